"""The same seed gives the same run, bit for bit: again, evaluated more often, or killed and resumed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import envs  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from conftest import ROOT, SAFE, cost_flags, deterministic_action, make_args
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL = dict(learning_starts=150, batch_size=16, eval_episodes=2, eval_frequency=300, checkpoint_frequency=100)
TIMING = {"seconds", "steps_per_second"}


def rows(run: Path) -> list[dict]:
    """eval.csv without the columns that tell the time."""
    header, *lines = (line.split(",") for line in (run / "eval.csv").read_text().splitlines())
    return [{name: value for name, value in zip(header, line, strict=True) if name not in TIMING} for line in lines]


def weights(run: Path, step: int) -> dict:
    return torch.load(run / f"agent_{step}.pt", weights_only=True)["agent"]


def events(run: Path) -> dict[str, list]:
    """All of TensorBoard's scalars but the speed, as (step, value) by name, after its own clean-up of restarts."""
    board = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    names = [name for name in board.Tags()["scalars"] if "steps_per_second" not in name]
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def assert_same(a: Path, b: Path, step: int) -> None:
    assert rows(a) == rows(b)
    first, second = weights(a, step), weights(b, step)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("env_id", ["Hopper-v4", "HumanoidBulletEnv-v0"])
def test_the_same_arguments_give_the_same_run(script, tmp_path, env_id):
    if "Bullet" in env_id and script.__name__ not in ("sac_baseline", "sac_hpo_continuous"):
        pytest.skip("PyBullet's side is the same in all scripts")
    runs = []
    for name in "ab":
        args = make_args(script, env_id=env_id, total_timesteps=400, runs_dir=str(tmp_path / name), **SMALL)
        runs.append(script.train(args))
    assert_same(*runs, 400)
    assert len(rows(runs[0])) == 2  # at 300, and at the end
    if script.__name__ == "sac_hpo_safe":  # else the noise of Algorithm 3 was not there to repeat
        assert float(rows(runs[0])[-1]["accepted_at_first"]) < 1.0
    assert events(runs[0]) == events(runs[1])


def test_another_seed_gives_another_run(either, tmp_path):
    runs = [
        either.train(make_args(either, total_timesteps=300, seed=seed, runs_dir=str(tmp_path), **SMALL))
        for seed in (1, 2)
    ]
    assert rows(runs[0]) != rows(runs[1])


def test_evaluating_more_often_changes_nothing_in_training(script, tmp_path):
    runs = []
    for name, changes in {"a": {}, "b": dict(eval_frequency=60, eval_episodes=3, snapshot_frequency=50)}.items():
        args = make_args(script, total_timesteps=400, runs_dir=str(tmp_path / name), **{**SMALL, **changes})
        runs.append(script.train(args))
    first, second = (weights(run, 400) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(rows(runs[1])) == 7
    assert sorted(p.name for p in runs[1].glob("agent_*"))[:3] == ["agent_100.pt", "agent_150.pt", "agent_200.pt"]


def command(name: str, *args) -> list[str]:
    return [sys.executable, str(ROOT / f"{name}.py"), *map(str, args)]


def as_flags(args: dict) -> list:
    return [word for key, value in args.items() for word in (f"--{key.replace('_', '-')}", value)]


def test_killed_at_random_moments_and_resumed(either, tmp_path):
    """SIGKILL, three times at random: afterwards rows, weights and TensorBoard equal those of a run left in peace."""
    script, name, steps = either, either.__name__, 1000
    whole = script.train(make_args(script, total_timesteps=steps, runs_dir=str(tmp_path / "whole"), **SMALL))
    moment = random.Random()  # not seeded: over time every moment gets its turn
    flags = ["--total-timesteps", steps, "--runs-dir", tmp_path / "killed", *as_flags(SMALL), *cost_flags(name)]
    flags += ["--bfloat16-force", "False"] if hasattr(script.Args, "bfloat16_force") else []  # as make_args has it
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills, killed = [], 0
    while True:
        process = subprocess.Popen(
            command(name, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        started = process.stdout.readline()  # "<run>: steps ...", once the loop is about to begin
        assert "steps" in started, process.stderr.read()
        if len(kills) < 3:
            wait = moment.uniform(0.0, 2.5)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            kills.append((started, wait))
        output = process.communicate(timeout=300)
        (run,) = (tmp_path / "killed").iterdir()
        script.stored_args(str(run))  # readable at any moment
        if (run / "checkpoint.pt").exists():
            script.load(run / "checkpoint.pt", {})
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
        killed += 1
        flags = ["--resume", run]
    assert killed >= 1, kills
    assert_same(whole, run, steps)
    assert events(whole) == events(run), kills
    assert len(rows(run)) == 4


def test_killed_before_the_first_checkpoint(script, tmp_path):
    """A run that is only a configuration begins again, in its own folder."""
    args = make_args(script, total_timesteps=200, runs_dir=str(tmp_path), **{**SMALL, "checkpoint_frequency": 10_000})
    run = script.train(args)
    before = rows(run), weights(run, 200)
    (run / "eval.csv").write_text("global_step,return_mean\n99,")
    assert not (run / "checkpoint.pt").exists()
    assert script.train(replace(script.stored_args(str(run)), resume=str(run))) == run
    assert rows(run) == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in weights(run, 200).items())


@pytest.mark.parametrize("env_id", ["Hopper-v4", "HumanoidBulletEnv-v0"])
def test_a_longer_run_is_the_same_as_one_made_longer(script, tmp_path, env_id):
    if "Bullet" in env_id and script.__name__ not in ("sac_baseline", "sac_hpo_continuous"):
        pytest.skip("PyBullet's side is the same in all scripts")
    args = make_args(script, env_id=env_id, total_timesteps=330, runs_dir=str(tmp_path / "a"), **SMALL)
    short = script.train(args)
    assert [row["global_step"] for row in rows(short)] == ["300", "330"]
    whole = script.train(replace(args, total_timesteps=700, runs_dir=str(tmp_path / "b")))
    script.train(replace(script.stored_args(str(short)), resume=str(short), total_timesteps=700))
    assert_same(short, whole, 700)
    assert script.stored_args(str(short)).total_timesteps == 700


def test_made_longer_after_an_episode_that_ended_with_the_run(either, tmp_path):
    """The last evaluation of the shorter run, out of turn, leaves nothing behind in the longer one."""
    small = dict(env_id="OneStep-v0", learning_starts=10, batch_size=4, eval_frequency=100, checkpoint_frequency=10)
    short = either.train(make_args(either, total_timesteps=50, runs_dir=str(tmp_path / "a"), **small))
    assert [row["global_step"] for row in rows(short)] == ["50"]
    whole = either.train(make_args(either, total_timesteps=120, runs_dir=str(tmp_path / "b"), **small))
    either.train(replace(either.stored_args(str(short)), resume=str(short), total_timesteps=120))
    assert_same(short, whole, 120)
    assert events(short) == events(whole)


def test_runs_started_together_have_folders_of_their_own(script, tmp_path):
    args = script.resolve(make_args(script, runs_dir=str(tmp_path)))
    assert len({script.open_run(args, {})[0] for _ in range(20)}) == 20


def test_checkpoint_holds_a_full_ring(either, tmp_path):
    """Resumed when the replay buffer has gone round: the oldest rows are overwritten in the same order."""
    small = {**SMALL, "buffer_size": 120}
    whole = either.train(make_args(either, total_timesteps=700, runs_dir=str(tmp_path / "a"), **small))
    short = either.train(make_args(either, total_timesteps=400, runs_dir=str(tmp_path / "b"), **small))
    either.train(replace(either.stored_args(str(short)), resume=str(short), total_timesteps=700))
    assert rows(short)[-1] == rows(whole)[-1]
    assert all(torch.equal(value, weights(whole, 700)[name]) for name, value in weights(short, 700).items())


def test_evaluation_plays_the_deterministic_policy(either, tmp_path):
    """--evaluate replays the last evaluation of the run: same seeds, same returns. Of one that was stopped, it plays
    the checkpoint's agent."""
    run = either.train(make_args(either, total_timesteps=300, runs_dir=str(tmp_path), **SMALL))
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    for name in "config.json", "checkpoint.pt":
        shutil.copy(run / name, stopped)
    step = either.load(stopped / "checkpoint.pt", {})["global_step"]
    result = subprocess.run(command(either.__name__, "--evaluate", stopped), capture_output=True, text=True, check=True)
    assert 150 < step < 300 and "\ncheckpoint.pt: return" in result.stdout
    for _ in range(2):
        result = subprocess.run(command(either.__name__, "--evaluate", run), capture_output=True, text=True, check=True)
        played = [float(line.split()[-1]) for line in result.stdout.splitlines() if line.startswith("episode")]
        expected = [float(rows(run)[-1][f"return_{i}"]) for i in range(2)]
        assert played == [round(value, 1) for value in expected]


def test_evaluation_row_against_episodes_played_one_by_one(script, tmp_path):
    """Returns, length and Q-bias of the batched evaluation equal a plain loop over its ten episodes."""
    safe = {"cost": "torque", "cost_limit": 1e6} if script.__name__ in SAFE else {}  # Algorithm 3 accepts at once
    args = script.resolve(make_args(script, seed=5, gamma=0.9, eval_episodes=10, **safe))
    torch.manual_seed(0)
    agent = script.Agent(11, 3, args, torch.device("cpu"))
    row = script.evaluate(agent, args, 1234, tmp_path)
    returns, lengths, biases = [], [], []
    for seed in np.random.default_rng([5, 1234]).integers(2**31, size=10).tolist():
        env = script.make_env(args)
        obs, done, rewards = env.reset(seed=seed)[0], False, []
        while not done:
            action = deterministic_action(agent, torch.from_numpy(obs[None]))
            if not rewards:
                first_q = torch.min(*agent.q(torch.from_numpy(obs[None]), action)).item()
            obs, reward, terminated, truncated, _ = env.step(action[0].numpy())
            rewards.append(reward)
            done = terminated or truncated
        returns.append(sum(rewards))
        lengths.append(len(rewards))
        biases.append(first_q - sum(reward * 0.9**t for t, reward in enumerate(rewards)))
    assert [row[f"return_{i}"] for i in range(10)] == pytest.approx(returns, rel=1e-3)
    assert row["return_mean"] == pytest.approx(np.mean(returns), rel=1e-3)
    assert row["return_std"] == pytest.approx(np.std(returns), rel=1e-2, abs=1e-2)
    assert row["length_mean"] == pytest.approx(np.mean(lengths), rel=1e-2)
    assert row["q_bias"] == pytest.approx(np.mean(biases), rel=1e-2, abs=1e-2)
