"""Known answers learned in seconds, a real task, and what a run stores, updates and evaluates."""

import importlib
import math

import envs
import numpy as np
import pytest
import torch
from conftest import SAFE, UNSAFE, agent_of, deterministic_action, make_agent, make_args, rows_of, weights_of
from gymnasium.spaces import Box

FAST = dict(batch_size=64, learning_starts=100, policy_lr=3e-3, q_lr=3e-3, tau=0.05, eval_episodes=1)
HPO = "sac_hpo_continuous"


def run_of(script, env_id, tmp_path, steps, **changes):
    settings = FAST | changes
    if script.__name__ in SAFE:  # never above the limit: lambda stays 0
        settings |= {"cost": "torque", "cost_limit": 1000.0}
    args = make_args(script, env_id=env_id, total_timesteps=steps, runs_dir=str(tmp_path), **settings)
    return script.train(args)


def trained_agent(script, run, step, seed=1):
    """From agent_<step>.pt: an agent of one seed."""
    state = script.load(run / f"seed_{seed}" / f"agent_{step}.pt")
    args = script.Args(**state["args"])
    assert args.seed == seed and args.num_seeds == 1
    agent = script.Agent(1, state["obs_dim"], state["action_low"].numel(), args)
    agent.load_state_dict(state["agent"])
    return agent


def learn(script, env_id, tmp_path, steps, **changes):
    return trained_agent(script, run_of(script, env_id, tmp_path, steps, **changes), steps)


def q_at(agent, obs):
    """Mean of both critics at an observation over actions of the policy."""
    obs = torch.full((1, 200, 1), float(obs))
    noise = torch.randn(agent.policy.draws, 1, 200, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return agent.q(obs, agent.policy.sample(obs, noise)[0]).mean().item()


def best_action(agent):
    """The deterministic action in the environment's own units, [0, 3]."""
    return 1.5 * (deterministic_action(agent, torch.zeros(1, 1, 1)).item() + 1.0)


def trainable(agent):
    """Weights by name, without lambda and its counters."""
    return {key: weight for key, weight in weights_of(agent, 0).items() if not key.startswith("multiplier")}


def test_value_of_one_step(unsafe, tmp_path):
    agent = learn(unsafe, "OneStep-v0", tmp_path, 300, alpha=1e-3)
    assert q_at(agent, 0) == pytest.approx(1.0, abs=0.03)


def test_two_seeds_at_once_learn_too(tmp_path):
    script = importlib.import_module(HPO)
    run = run_of(script, "envs:OneStep-v0", tmp_path, 300, alpha=1e-3, num_seeds=2, seed=5)
    agents = [trained_agent(script, run, 300, seed) for seed in (5, 6)]
    for agent in agents:
        assert q_at(agent, 0) == pytest.approx(1.0, abs=0.03)
    assert not torch.equal(agents[0].q.layer1.weight, agents[1].q.layer1.weight)
    for seed in (5, 6):
        (row,) = rows_of(run, seed)
        assert float(row["return_mean"]) == 1.0 and float(row["q_bias"]) == pytest.approx(0.0, abs=0.05)


def test_value_of_two_steps(unsafe, tmp_path):
    agent = learn(unsafe, "TwoSteps-v0", tmp_path, 300, alpha=1e-3, gamma=0.8)
    assert q_at(agent, 1) == pytest.approx(1.0, abs=0.05)
    assert q_at(agent, 0) == pytest.approx(0.8, abs=0.05)


def test_value_goes_on_past_a_truncation(unsafe, tmp_path):
    """A cut after 5 steps would be worth 1 + 0.8 + ... = 3.36 at most if it counted as an end."""
    agent = learn(unsafe, "Endless-v0", tmp_path, 300, alpha=1e-3, gamma=0.8, tau=0.2)
    assert q_at(agent, 0) == pytest.approx(5.0, abs=0.25)


PEAKS = [(name, env_id, {}) for name in UNSAFE for env_id in ("Peak-v0", "TwoPeaks-v0")]
PEAKS += [(HPO, "Peak-v0", {"coordinates": "action"})]


@pytest.mark.parametrize("name, env_id, changes", PEAKS)
def test_best_action(name, env_id, changes, tmp_path):
    agent = learn(importlib.import_module(name), env_id, tmp_path, 300, alpha=0.02, **changes)
    assert best_action(agent) == pytest.approx(2.4, abs=0.2)


@pytest.mark.parametrize("name", ["sac_baseline", HPO])
def test_pendulum(name, tmp_path):
    """A real task: -1,200 at the start, and about -150 for a policy that swings up and balances at once."""
    changes = dict(learning_starts=500, tau=0.02, eval_episodes=20)
    script = importlib.import_module(name)
    run = run_of(script, "Pendulum-v1", tmp_path, 2500, alpha=0.2, **changes)
    assert float(rows_of(run)[-1]["return_mean"]) > -500


SMOKE = [(name, {"autotune": True}) for name in ("sac_baseline", "sac_nf", "sac_lagrangian")]
SMOKE += [(HPO, {"train": way, "explore": way}) for way in ("conventional", "drift", "gaussian")]
SMOKE += [(name, {"coordinates": way}) for name in (HPO, "sac_hpo_safe") for way in ("pre-tanh", "action")]


@pytest.mark.parametrize("name, changes", SMOKE)
def test_smoke_run_moves_every_trained_weight(name, changes, tmp_path, monkeypatch):
    """Crosses learning_starts; what the flags train has moved, and T_h and sigma_h move only if they are
    used. The environment is given actions in [-1, 1]."""
    script, given = importlib.import_module(name), []
    if "coordinates" in changes:
        changes = {"momentum_std_explore": 5.0, "leapfrog_steps": 3, **changes}
    real = script.Task.step

    def step(self, action):
        given.append(action)
        return real(self, action)

    monkeypatch.setattr(script.Task, "step", step)
    run = run_of(script, "Pendulum-v1", tmp_path, 130, batch_size=32, **changes)
    agent, args = make_agent(script, 3, 1, seed=1, dtype=torch.float32, fresh=True, **changes)
    before, after = trainable(agent), agent_of(run, 130)
    still = set() if args.autotune else {"log_alpha"}
    if "train" in changes:
        unused = "policy.hidden", "policy.gate", "policy.transform"
        still |= {key for key in before if key.startswith(unused)}
    assert {key for key in before if torch.equal(before[key], after[key])} == still
    assert len(given) == 130 + 200  # an episode of Pendulum is 200 steps long
    assert max(abs(action.item()) for action in given) <= 1.0


@pytest.mark.parametrize("learning_starts, first_update", [(20, 21), (0, 2)])
def test_updates_begin_with_the_first_action_of_the_policy(script, tmp_path, learning_starts, first_update):
    """The first `learning_starts` actions are the uniform ones of the seed's own generator, and no weight has
    changed after them; the next step acts by the policy and updates, if there is something to learn from."""
    ends, settings = {}, dict(seed=3, learning_starts=learning_starts)
    for steps in first_update - 1, first_update:
        run = run_of(script, "Pendulum-v1", tmp_path / str(steps), steps, **settings)
        ends[steps] = agent_of(run, steps, seed=3)
    agent, _ = make_agent(script, 3, 1, seed=3, dtype=torch.float32, fresh=True)
    before = trainable(agent)
    assert all(torch.equal(weight, ends[first_update - 1][key]) for key, weight in before.items())
    still = {key for key, weight in before.items() if torch.equal(weight, ends[first_update][key])}
    assert still >= {"log_alpha"} and all("flows" in key for key in still - {"log_alpha"})  # a flow may lag

    ((generator,), _) = script.make_generators(range(3, 4), torch.device("cpu"))
    script.draw_weights(agent, [generator])
    torch.randint(2**31, (), generator=generator)  # for `reset`
    uniform = [torch.rand(1, generator=generator).item() * 2 - 1 for _ in range(first_update)]
    rows = script.load(run / "checkpoint.pt")["buffer"]["rows"][0]
    actions = rows[:, 3].tolist()  # after an observation of 3
    assert actions[:learning_starts] == pytest.approx(uniform[:learning_starts], abs=1e-6)
    for action, number in zip(actions[learning_starts:], uniform[learning_starts:], strict=True):
        assert abs(action - number) > 1e-4


TASKS = "Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid"
MUJOCO = [f"{task}-{version}" for task in TASKS for version in ("v4", "v5")]
BULLET = ["HumanoidBulletEnv-v0", "HumanoidFlagrunBulletEnv-v0", "HumanoidFlagrunHarderBulletEnv-v0"]


@pytest.mark.parametrize("env_id", MUJOCO + BULLET)
def test_every_task_of_the_paper(either, tmp_path, env_id):
    """Random steps, updates, an evaluation: finite numbers, and the weights have moved."""
    settings = dict(learning_starts=30, batch_size=8, eval_episodes=1, runs_dir=str(tmp_path))
    args = either.resolve(make_args(either, env_id=env_id, total_timesteps=40, **settings))
    run = either.train(args)
    (row,) = rows_of(run)
    assert row["global_step"] == "40" and all(math.isfinite(float(number)) for number in row.values())
    agent = trained_agent(either, run, 40)
    sizes = agent.q.layer1.weight.shape[1] - agent.action_dim, agent.action_dim
    first, _ = make_agent(either, *sizes, seed=1, dtype=torch.float32, fresh=True, env_id=env_id)
    assert not torch.equal(first.policy.mean.weight, agent.policy.mean.weight)
    assert not torch.equal(first.q.layer1.weight, agent.q.layer1.weight)


def test_spaces_of_any_shape(script, tmp_path):
    """Box(2, 3) in float64, Box(2, 2) with unequal bounds: the environment itself checks what it is given."""
    agent = learn(script, "Grid-v0", tmp_path, 130)
    assert agent.action_dim == 4 and agent.q.layer1.weight.shape[1] == 6 + 4


def test_actions_are_rescaled_and_stay_within_the_bounds(script, monkeypatch):
    """Random bounds, for which the largest action overshoots by rounding in one case of six."""
    rng, seen = np.random.default_rng(0), []
    monkeypatch.setattr(
        envs.Known, "step", lambda self, action: (seen.append(action), np.zeros(1), 0.0, True, False, {})[1:]
    )
    for _ in range(100):
        low, high = np.sort(rng.normal(size=(2, 3)).astype(np.float32), axis=0)
        monkeypatch.setattr(envs.Known, "action_space", Box(low, high))
        env = script.make_env(make_args(script, env_id="Known-v0"))
        env.reset(seed=0)
        for unit, expected in ((-1.0, low), (0.0, 0.5 * (low + high)), (1.0, high)):
            env.step(np.full(3, unit, np.float32))
            np.testing.assert_allclose(seen[-1], expected, rtol=1e-5, atol=1e-6)
            assert env.unwrapped.action_space.contains(seen[-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observations_are_copied(script, tmp_path, monkeypatch, dtype):
    """An environment that reuses one array must not change what is stored: obs and next_obs differ."""
    monkeypatch.setattr(envs.SameArray, "array", np.zeros(1, dtype))
    run = run_of(script, "SameArray-v0", tmp_path, 50)
    rows = script.load(run / "checkpoint.pt")["buffer"]["rows"][0]
    assert len(rows) == 50 and rows[:, 0].unique().numel() == 10
    assert torch.equal(rows[:, 3], rows[:, 0] + 1)  # next_obs, after obs, action and reward


def test_evaluation_row_against_episodes_played_one_by_one(script, tmp_path):
    """Returns, length and Q-bias of the batched evaluation equal a plain loop over its ten episodes. The bias
    is that of the smaller critic, not of the targets."""
    changes = dict(gamma=0.9, eval_episodes=10)
    if script.__name__ in SAFE:  # Algorithm 3 accepts at once
        changes |= {"cost": "torque", "cost_limit": 1e6}
    agent, args = make_agent(script, 11, 3, dtype=torch.float32, **changes)
    with torch.no_grad():
        agent.q.layer3.bias.view(-1).copy_(torch.tensor([50.0, 30.0]))
    row = script.evaluate(weights_of(agent, 0), args, 5, 1234, tmp_path)
    returns, lengths, biases = [], [], []
    for seed in np.random.default_rng([5, 1234]).integers(2**31, size=10).tolist():
        env = script.make_env(args)
        obs, done, rewards = env.reset(seed=seed)[0], False, []
        while not done:
            state = torch.from_numpy(obs).view(1, 1, 11)
            action = deterministic_action(agent, state)
            if not rewards:
                first_q = agent.q(state, action).min().item()
            obs, reward, terminated, truncated, _ = env.step(action.flatten().numpy())
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
