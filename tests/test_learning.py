"""Environments with known answers, learned in seconds, and a real one."""

import importlib
from dataclasses import replace

import envs
import numpy as np
import pytest
import torch
from conftest import SAFE, deterministic_action, make_args
from gymnasium.spaces import Box

FAST = dict(batch_size=64, learning_starts=100, policy_lr=3e-3, q_lr=3e-3, tau=0.05, eval_frequency=10_000)


def learn(script, env_id, tmp_path, steps, **changes):
    free = {"cost": "torque", "cost_limit": 1000.0} if script.__name__ in SAFE else {}  # never above: lambda stays 0
    settings = {**FAST, **free, **changes}
    args = make_args(script, env_id=env_id, total_timesteps=steps, runs_dir=str(tmp_path), **settings)
    run = script.train(args)
    env = script.make_env(args)
    agent = script.Agent(
        env.observation_space.shape[0], env.action_space.shape[0], script.resolve(args), torch.device("cpu")
    )
    script.load(run / f"agent_{steps}.pt", {"agent": agent})
    return agent, run


def q_at(agent, obs):
    """Mean of both critics at an observation over actions of the policy."""
    obs = torch.full((200, 1), float(obs))
    with torch.no_grad():
        q1, q2 = agent.q(obs, agent.policy.sample(obs)[0])
    return (0.5 * (q1 + q2)).mean().item()


def best_action(agent):
    """The deterministic action in the environment's own units, [0, 3]."""
    return 1.5 * (deterministic_action(agent, torch.zeros(1, 1)).item() + 1.0)


def test_value_of_one_step(unsafe, tmp_path):
    agent, _ = learn(unsafe, "OneStep-v0", tmp_path, 600, alpha=1e-3)
    assert q_at(agent, 0) == pytest.approx(1.0, abs=0.03)


def test_value_of_two_steps(unsafe, tmp_path):
    agent, _ = learn(unsafe, "TwoSteps-v0", tmp_path, 1500, alpha=1e-3, gamma=0.8)
    assert q_at(agent, 1) == pytest.approx(1.0, abs=0.05)
    assert q_at(agent, 0) == pytest.approx(0.8, abs=0.05)


def test_value_goes_on_past_a_truncation(unsafe, tmp_path):
    """A cut after 5 steps would be worth 1 + 0.8 + ... = 3.36 at most if it counted as an end."""
    agent, _ = learn(unsafe, "Endless-v0", tmp_path, 1500, alpha=1e-3, gamma=0.8)
    assert q_at(agent, 0) == pytest.approx(5.0, abs=0.25)


@pytest.mark.parametrize("env_id, best", [("Peak-v0", 2.4), ("TwoPeaks-v0", 2.4)])
def test_best_action(unsafe, tmp_path, env_id, best):
    agent, _ = learn(unsafe, env_id, tmp_path, 2000, alpha=0.02)
    assert best_action(agent) == pytest.approx(best, abs=0.2)


@pytest.mark.parametrize("name", ["sac_baseline", "sac_hpo_continuous"])
def test_pendulum(name, tmp_path):
    """A real task: -1,200 at the start, and about -150 for a policy that swings up and balances."""
    changes = dict(
        batch_size=128, policy_lr=1e-3, q_lr=1e-3, learning_starts=1000, eval_frequency=6000, eval_episodes=20
    )
    _, run = learn(importlib.import_module(name), "Pendulum-v1", tmp_path, 6000, alpha=0.2, tau=0.01, **changes)
    table = np.genfromtxt(run / "eval.csv", delimiter=",", names=True)
    assert table["return_mean"] > -300


@pytest.mark.parametrize("operator", ["proposed", "conventional", "drift", "gaussian"])
def test_smoke_run_moves_every_trained_weight(hpo, tmp_path, operator):
    """Crosses learning_starts; what the flags train has moved, and T_h and sigma_h move only if they are used."""
    args = make_args(
        hpo, env_id="Pendulum-v1", total_timesteps=130, learning_starts=100, runs_dir=str(tmp_path), train=operator
    )
    explore = operator if operator != "proposed" else "proposed"
    args = replace(args, explore=explore, eval_episodes=1)
    torch.manual_seed(args.seed)
    before = hpo.Agent(3, 1, hpo.resolve(args), torch.device("cpu")).state_dict()
    after = hpo.load(hpo.train(args) / "agent_130.pt", {})["agent"]
    for name, value in before.items():
        if name.startswith("multiplier"):
            continue
        trained = name != "log_alpha" and (
            operator == "proposed" or not name.startswith(("policy.hidden", "policy.gate", "policy.transform"))
        )
        assert torch.equal(value, after[name]) != trained, name


@pytest.mark.parametrize("name", ["sac_baseline", "sac_nf", "sac_lagrangian"])
def test_smoke_run_moves_every_weight(name, tmp_path):
    script = importlib.import_module(name)
    args = make_args(script, env_id="Pendulum-v1", total_timesteps=130, learning_starts=100, runs_dir=str(tmp_path))
    args = replace(args, eval_episodes=1, autotune=True)
    torch.manual_seed(args.seed)
    before = dict(script.Agent(3, 1, script.resolve(args), torch.device("cpu")).named_parameters())
    after = script.load(script.train(args) / "agent_130.pt", {})["agent"]
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []


MUJOCO = [f"{task}-{v}" for task in ("Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid") for v in ("v4", "v5")]
BULLET = ["HumanoidBulletEnv-v0", "HumanoidFlagrunBulletEnv-v0", "HumanoidFlagrunHarderBulletEnv-v0"]


@pytest.mark.parametrize("env_id", MUJOCO + BULLET)
def test_every_task_of_the_paper(either, tmp_path, env_id):
    """Random steps, updates, an evaluation: finite numbers, and the weights have moved."""
    settings = dict(learning_starts=30, batch_size=8, eval_episodes=1, runs_dir=str(tmp_path))
    args = either.resolve(make_args(either, env_id=env_id, total_timesteps=40, **settings))
    run = either.train(args)
    table = np.genfromtxt(run / "eval.csv", delimiter=",", names=True)
    assert all(np.isfinite(table[name]) for name in table.dtype.names)
    env = either.make_env(args)
    torch.manual_seed(args.seed)
    before = either.Agent(env.observation_space.shape[0], env.action_space.shape[0], args, torch.device("cpu"))
    after = either.load(run / "agent_40.pt", {})["agent"]
    assert not torch.equal(before.policy.mean.weight, after["policy.mean.weight"])


def test_spaces_of_any_shape(script, tmp_path):
    """Box(2, 3) in float64 and Box(2, 2) with unequal bounds: the environment itself checks what it is given."""
    learn(script, "Grid-v0", tmp_path, 130)


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


def test_observations_are_copied(script, tmp_path):
    """An environment that reuses one array must not change what is stored: obs and next_obs differ by one step."""
    rows = []
    real = script.ReplayBuffer.add
    script.ReplayBuffer.add = lambda self, *row: (rows.append(row), real(self, *row))
    try:
        learn(script, "SameArray-v0", tmp_path, 50)
    finally:
        script.ReplayBuffer.add = real
    assert all(row[3][0] == row[0][0] + 1 for row in rows)  # next_obs, obs
