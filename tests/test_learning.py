"""Known answers learned in seconds, a real task, and what a run stores, updates and evaluates."""

import importlib
import math
from dataclasses import replace

import envs
import numpy as np
import pytest
import torch
from conftest import SAFE, act, agent_of, make_agent, make_args, rows_of, weights
from gymnasium.spaces import Box

FAST = dict(batch_size=32, learning_starts=100, policy_lr=3e-3, q_lr=3e-3, tau=0.05, eval_episodes=1)
HPO = "sac_hpo_continuous"


def train(script, env_id, run_dir, steps, **changes):
    free = dict(cost="torque", cost_limit=1000.0) if script.__name__ in SAFE else {}  # lambda stays 0
    settings = {**FAST, **free, **changes, "total_timesteps": steps, "run_dir": str(run_dir)}
    return script.train(make_args(script, env_id=env_id, **settings))


def load(script, run, step, seed=1):
    """Agent and arguments in a run's agent_<step>.pt."""
    agent, state = script.load(run / f"seed_{seed}" / f"agent_{step}.pt")
    assert state["args"]["seed"] == seed and state["args"]["num_seeds"] == 1 and state["step"] == step
    return agent


def learn(script, env_id, run_dir, steps, **changes):
    return load(script, train(script, env_id, run_dir, steps, **changes), steps)


def q_at(agent, obs):
    """Mean of both critics at an observation over actions of the policy."""
    obs = torch.full((1, 200, 1), float(obs))
    noise = torch.randn(agent.draws_to_act, 1, 200, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return agent.q(obs, act(agent, obs, noise)).mean().item()


def best_action(agent, obs):
    """The deterministic one at observations (B, O), in [-1, 1], (B, A)."""
    noise = torch.zeros(agent.draws_to_act, 1, len(obs), agent.policy.mean.bias.shape[-1])
    return act(agent, torch.as_tensor(obs, dtype=torch.float32)[None], noise)[0]


def trained(agent):
    """Weights by name, without lambda and its counters."""
    return {key: weight for key, weight in weights(agent).items() if not key.startswith("multiplier")}


def test_value_of_two_steps(unsafe, tmp_path):
    agent = learn(unsafe, "TwoSteps-v0", tmp_path, 300, alpha=1e-3, gamma=0.8)
    assert q_at(agent, 1) == pytest.approx(1.0, abs=0.05)
    assert q_at(agent, 0) == pytest.approx(0.8, abs=0.05)


def test_value_goes_on_past_a_truncation(unsafe, tmp_path):
    """A cut after 5 steps would be worth 1 + 0.8 + ... = 3.36 at most if it counted as an end."""
    agent = learn(unsafe, "Endless-v0", tmp_path, 300, alpha=1e-3, gamma=0.8, tau=0.2)
    assert q_at(agent, 0) == pytest.approx(5.0, abs=0.25)


PEAKS = [("sac_nf", "Peak-v0"), (HPO, "Peak-v0"), ("sac_baseline", "TwoPeaks-v0"), (HPO, "TwoPeaks-v0")]


@pytest.mark.parametrize("name, env_id", PEAKS)
def test_best_action(name, env_id, tmp_path):
    agent = learn(importlib.import_module(name), env_id, tmp_path, 300, alpha=0.02, table_row="Hopper")
    assert 1.5 * (best_action(agent, [[0.0]]).item() + 1.0) == pytest.approx(2.4, abs=0.2)


def test_pendulum(tmp_path):
    """A real task: -1,200 at the start, and about -150 for a policy that swings up and balances at once."""
    changes = dict(batch_size=64, learning_starts=500, tau=0.02, eval_episodes=20, alpha=0.2)
    run = train(importlib.import_module("sac_baseline"), "Pendulum-v1", tmp_path, 2000, **changes)
    assert float(rows_of(run)[-1]["return_mean"]) > -500


@pytest.mark.parametrize("learning_starts, first_update", [(20, 21), (0, 2)])
def test_updates_begin_with_the_first_action_of_the_policy(script, tmp_path, learning_starts, first_update):
    """The first `learning_starts` actions are the uniform ones of the run's generator, and no weight has
    changed after them; the next step acts by the policy and updates, if there is something to learn from."""
    ends, settings = {}, dict(seed=3, learning_starts=learning_starts, batch_size=8)
    for steps in first_update - 1, first_update:
        run = train(script, "Grid-v0", tmp_path / str(steps), steps, **settings)
        ends[steps] = agent_of(run, steps, seed=3)
    args = script.resolve(make_args(script, env_id="envs:Grid-v0"))
    generator = torch.Generator().manual_seed(3)
    before = trained(script.Agent(generator, 1, 6, 4, args))
    assert all(torch.equal(weight, ends[first_update - 1][key]) for key, weight in before.items())
    still = {key for key, weight in before.items() if torch.equal(weight, ends[first_update][key])}
    assert still >= {"log_alpha"} and all("flows" in key for key in still - {"log_alpha"})  # a flow may lag

    torch.randint(2**31, (1,), generator=generator)  # for `reset`
    uniform = [2.0 * torch.rand(1, 4, generator=generator) - 1.0 for _ in range(first_update)]
    actions = script.read(run / "checkpoint.pt")["buffer"]["rows"][0][:, 6:10]  # after an observation of 6
    same = [torch.allclose(*pair, atol=1e-6) for pair in zip(actions, uniform, strict=True)]
    assert same == [step < learning_starts for step in range(first_update)]


TASKS = "Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid"
MUJOCO = [f"{task}-{version}" for task in TASKS for version in ("v4", "v5")]
BULLET = ["HumanoidBulletEnv-v0", "HumanoidFlagrunBulletEnv-v0", "HumanoidFlagrunHarderBulletEnv-v0"]


@pytest.mark.parametrize("env_id", MUJOCO + BULLET)
def test_every_task_of_the_paper(env_id, either, capsys):
    """It can be made and stepped, and has a row in Table I."""
    if "Bullet" in env_id:
        pytest.importorskip("pybullet", reason="PyBullet does not install on Python 3.12 or later")
    args = either.resolve(make_args(either, env_id=env_id))
    assert args.alpha == (0.05 if "Humanoid" in env_id else 0.2) and "Table I" not in capsys.readouterr().out
    env = either.make_env(args)
    seen = [env.reset(seed=1)[0]]
    for _ in range(5):
        obs, reward, *_ = env.step(env.action_space.sample())
        seen.append(obs)
        assert math.isfinite(reward) and obs.dtype == np.float32 and obs.ndim == 1
    env.close()
    assert np.isfinite(seen).all() and np.std(seen, axis=0).max() > 0.0


def test_actions_are_rescaled_and_stay_within_the_bounds(longest):
    """Random bounds, for which the largest action overshoots by rounding in one case of six."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        low, high = np.sort(rng.normal(size=(2, 2, 3)).astype(np.float32), axis=0)
        for unit, expected in ((-1.0, low), (0.0, 0.5 * (low + high)), (1.0, high)):
            (action,) = longest.rescale(np.full((1, 6), unit, np.float32), low, high)
            np.testing.assert_allclose(action, expected, rtol=1e-5, atol=1e-6)
            assert Box(low, high).contains(action)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observations_are_copied(script, tmp_path, monkeypatch, dtype):
    """An environment that reuses one array must not change what is stored: obs and next_obs differ."""
    monkeypatch.setattr(envs.SameArray, "array", np.zeros(1, dtype))
    run = train(script, "SameArray-v0", tmp_path, 50)
    rows = script.read(run / "checkpoint.pt")["buffer"]["rows"][0]
    assert len(rows) == 50 and rows[:, 0].unique().numel() == 10
    assert torch.equal(rows[:, 3], rows[:, 0] + 1)  # next_obs, after obs, action and reward


def test_evaluation_row_against_episodes_played_one_by_one(script, tmp_path):
    """Returns, length and Q-bias of the batched evaluation equal a plain loop over its ten episodes. The bias
    is that of the smaller critic, not of the targets."""
    changes = dict(gamma=0.9, eval_episodes=10)
    if script.__name__ in SAFE:  # Algorithm 3 accepts at once
        changes |= {"cost": "torque", "cost_limit": 1e6}
    agent, args = make_agent(script, 11, 3, dtype=torch.float32, **changes)
    args = replace(args, seed=5)
    with torch.no_grad():
        agent.q.layer3.bias.view(-1).copy_(torch.tensor([50.0, 30.0]))
    env = script.make_env(args)
    bounds = {name: torch.from_numpy(getattr(env.action_space, name)) for name in ("low", "high")}
    state = {"algorithm": script.__name__, "agent": agent.state_dict(), "step": 1234, "obs_dim": 11, **bounds}
    torch.save(state, tmp_path / "agent_1234.pt")
    row = script.evaluate(tmp_path / "agent_1234.pt", args)
    returns, lengths, biases = [], [], []
    for seed in np.random.default_rng([5, 1234]).integers(2**31, size=10).tolist():
        obs, done, rewards = env.reset(seed=seed)[0], False, []
        while not done:
            action = best_action(agent, obs[None])
            if not rewards:
                first_q = agent.q(torch.from_numpy(obs)[None, None], action[None]).min().item()
            obs, reward, terminated, truncated, _ = env.step(action[0].numpy())  # Hopper's bounds: -1 and 1
            rewards.append(reward)
            done = terminated or truncated
        returns.append(sum(rewards))
        lengths.append(len(rewards))
        biases.append(first_q - sum(reward * 0.9**t for t, reward in enumerate(rewards)))
    assert [row[f"return_{i}"] for i in range(10)] == pytest.approx(returns, rel=1e-3)
    assert row["return_mean"] == pytest.approx(np.mean(returns), rel=1e-3)
    assert row["return_std"] == pytest.approx(np.std(returns), rel=1e-2, abs=1e-2)
    assert row["length_mean"] == pytest.approx(np.mean(lengths), rel=1e-2)
    assert 10.0 < row["q_bias"] == pytest.approx(np.mean(biases), abs=1e-2)
