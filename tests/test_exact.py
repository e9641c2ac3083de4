"""The same seed gives the same run, bit for bit: again, evaluated more often, killed and resumed."""

import importlib
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import envs  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from conftest import agent_of, call, command, cost_flags, make_args, resume, rows_of, same
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL = dict(
    learning_starts=150, batch_size=16, eval_episodes=2, eval_frequency=300, checkpoint_frequency=100
)


def events(run: Path, seed: int) -> dict[str, list]:
    """All of TensorBoard's scalars but the speed, (step, value) by name, after its clean-up of restarts."""
    board = EventAccumulator(str(run / f"seed_{seed}"), size_guidance={"scalars": 0}).Reload()
    names = [name for name in board.Tags()["scalars"] if "steps_per_second" not in name]
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def assert_same(a: Path, b: Path, step: int, seeds=(1,)) -> None:
    for seed in seeds:
        assert rows_of(a, seed) == rows_of(b, seed)
        assert same(agent_of(a, step, seed), agent_of(b, step, seed))
        assert events(a, seed) == events(b, seed)


def needs_bullet(env_id):
    if "Bullet" in env_id:
        pytest.importorskip("pybullet", reason="PyBullet does not install on Python 3.12 or later")


def repeat(script, tmp_path, **settings) -> Path:
    """Two runs of the same arguments, compared; the first of them."""
    settings = {**SMALL, "total_timesteps": 400, **settings}
    first, second = (
        script.train(make_args(script, runs_dir=str(tmp_path / name), **settings)) for name in "ab"
    )
    assert_same(first, second, 400, range(1, 1 + settings.get("num_seeds", 1)))
    return first


def test_the_same_arguments_give_the_same_run(script, tmp_path):
    run = repeat(script, tmp_path)
    assert [row["global_step"] for row in rows_of(run)] == ["300", "400"]
    if script.__name__ == "sac_hpo_safe":  # else the noise of Algorithm 3 was not there to repeat
        assert float(rows_of(run)[-1]["accepted_at_first"]) < 1.0


def test_the_same_arguments_give_the_same_run_of_three_seeds(longest, tmp_path):
    repeat(longest, tmp_path, num_seeds=3)


@pytest.mark.parametrize("env_id", ["HumanoidBulletEnv-v0", "Hopper-v4"])
def test_a_camera_changes_nothing(either, env_id, monkeypatch):
    """That it draws is tried before the run: in PyBullet a state depends on what was simulated before."""
    needs_bullet(env_id)
    if "Bullet" not in env_id:
        monkeypatch.setattr("gymnasium.envs.mujoco.MujocoEnv.render", lambda env: np.zeros((2, 2, 3)))
    seen = []
    for film in (False, True):
        env = either.make_env(make_args(either, env_id=env_id), film)
        seen.append([env.reset(seed=5)[0]])
        seen[-1] += [env.step(np.full(env.action_dim, 0.3, np.float32))[0] for _ in range(10)]
        env.close()
    assert np.array_equal(*seen)


def test_the_same_arguments_give_the_same_run_in_pybullet(tmp_path):
    needs_bullet("HumanoidBulletEnv-v0")
    repeat(importlib.import_module("sac_baseline"), tmp_path, env_id="HumanoidBulletEnv-v0")


def test_seeds_at_once_are_those_seeds_alone(longest, tmp_path):
    """Up to rounding: a matrix product alone may be computed in another order than beside others."""
    settings = dict(SMALL, total_timesteps=300, checkpoint_frequency=200)
    together = longest.train(
        make_args(longest, seed=2, num_seeds=3, runs_dir=str(tmp_path / "a"), **settings)
    )
    ends = []
    for seed in (2, 3, 4):
        alone = longest.train(make_args(longest, seed=seed, runs_dir=str(tmp_path / str(seed)), **settings))
        for row, its in zip(rows_of(together, seed), rows_of(alone, seed), strict=True):
            values, expected = ([float(value) for value in each.values()] for each in (row, its))
            assert row.keys() == its.keys() and values == pytest.approx(expected, rel=1e-2, abs=1e-2)
        ends.append(agent_of(alone, 300, seed))
        for name, value in agent_of(together, 300, seed).items():
            torch.testing.assert_close(value, ends[-1][name], rtol=1e-3, atol=1e-4)
    assert not same(ends[0], ends[1])


def test_evaluating_more_often_changes_nothing_in_training(longest, tmp_path):
    """Nor do more copies of the agents."""
    runs = []
    for name, changes in {
        "a": {},
        "b": dict(eval_frequency=60, eval_episodes=3, snapshot_frequency=50),
    }.items():
        settings = {**SMALL, "num_seeds": 2, "total_timesteps": 400, **changes}
        runs.append(longest.train(make_args(longest, runs_dir=str(tmp_path / name), **settings)))
    for seed in (1, 2):
        assert same(*(agent_of(run, 400, seed) for run in runs))
    assert len(rows_of(runs[1])) == 7
    steps = [int(path.stem[6:]) for path in (runs[1] / "seed_2").glob("agent_*.pt")]
    assert sorted(steps) == [50, 100, 150, 200, 250, 300, 350, 400]


@pytest.mark.parametrize("name, seeds, steps", [("sac_baseline", 3, 500), ("sac_hpo_safe", 1, 600)])
def test_killed_at_random_moments_and_resumed(name, seeds, steps, tmp_path):
    """SIGKILL, three times at random: rows, weights and TensorBoard equal those of a run left in peace."""
    either = importlib.import_module(name)
    settings = {**SMALL, "num_seeds": seeds, "total_timesteps": steps}
    whole = either.train(make_args(either, runs_dir=str(tmp_path / "whole"), **settings))
    moment = random.Random()  # not seeded: over time every moment gets its turn
    words = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]
    words += ["--runs-dir", tmp_path / "killed", *cost_flags(name)]
    words += (
        ["--bfloat16-force", "False"] if hasattr(either.Args, "bfloat16_force") else []
    )  # as make_args has it
    kills, killed = [], 0
    pipes = dict(
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while True:
        process = subprocess.Popen(command(name, *words), **pipes)
        started = process.stdout.readline()  # "<run>: steps ...", once the loop is about to begin
        assert "steps" in started, process.stderr.read()
        if len(kills) < 3:
            kills.append((started, moment.uniform(0.0, 2.5)))
            time.sleep(kills[-1][1])
            process.send_signal(signal.SIGKILL)
        output = process.communicate(timeout=300)
        (run,) = (tmp_path / "killed").iterdir()
        either.stored_args(str(run))  # readable at any moment
        if (run / "checkpoint.pt").exists():
            either.load(run / "checkpoint.pt")
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
        killed += 1
        words = ["--resume", run]
    assert killed >= 1, kills
    assert_same(whole, run, steps, range(1, seeds + 1))
    assert not list(run.rglob("*.part"))


def test_killed_before_the_first_checkpoint(either, tmp_path):
    """A run that is only a configuration begins again, in its own folder."""
    run = either.train(make_args(either, total_timesteps=200, runs_dir=str(tmp_path), **SMALL))
    before = rows_of(run), agent_of(run, 200)
    (run / "seed_1" / "eval.csv").write_text("global_step,return_mean\n99,")
    (run / "checkpoint.pt").unlink()
    assert resume(either, run) == run
    assert rows_of(run) == before[0] and same(agent_of(run, 200), before[1])


def contents(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_stays_as_it_is(script, tmp_path, capsys):
    run = script.train(make_args(script, total_timesteps=200, runs_dir=str(tmp_path), **SMALL))
    before = contents(run)
    resume(script, run)
    assert (
        f"{run} is finished: 200 steps. To go on, give a larger --total-timesteps." in capsys.readouterr().out
    )
    assert contents(run) == before


@pytest.mark.parametrize(
    "name, env_id", [("sac_hpo_safe", "Hopper-v4"), ("sac_baseline", "HumanoidBulletEnv-v0")]
)
def test_a_run_made_longer_goes_on_from_its_end(name, env_id, tmp_path):
    """It equals one that never stopped, as that one writes a checkpoint there. Nothing comes twice."""
    needs_bullet(env_id)
    longest = importlib.import_module(name)
    settings = {**SMALL, "env_id": env_id, "num_seeds": 2, "eval_frequency": 100}
    short = longest.train(make_args(longest, total_timesteps=300, runs_dir=str(tmp_path / "a"), **settings))
    before = rows_of(short, 2)
    resume(longest, short, total_timesteps=500)
    whole = longest.train(make_args(longest, total_timesteps=500, runs_dir=str(tmp_path / "b"), **settings))
    assert_same(short, whole, 500, (1, 2))
    assert rows_of(short, 2)[:3] == before
    assert [row["global_step"] for row in rows_of(short)] == ["100", "200", "300", "400", "500"]
    assert longest.stored_args(str(short)).total_timesteps == 500


def test_a_run_made_longer_from_between_two_checkpoints(either, tmp_path):
    """Its end, out of turn, stays in the table, and nothing after it is lost or comes twice."""
    run = either.train(make_args(either, total_timesteps=230, runs_dir=str(tmp_path), **SMALL))
    resume(either, run, total_timesteps=400)
    assert [row["global_step"] for row in rows_of(run)] == ["230", "300", "400"]
    steps = [step for step, _ in events(run, 1)["eval/return_mean"]]
    assert steps == [230, 300, 400]


def test_a_checkpoint_holds_a_full_ring(tmp_path):
    """Resumed when the replay buffer has gone round: the oldest rows are overwritten in the same order."""
    either = importlib.import_module("sac_baseline")
    settings = {**SMALL, "buffer_size": 120, "eval_frequency": 100}
    short = either.train(make_args(either, total_timesteps=400, runs_dir=str(tmp_path / "a"), **settings))
    resume(either, short, total_timesteps=700)
    whole = either.train(make_args(either, total_timesteps=700, runs_dir=str(tmp_path / "b"), **settings))
    assert_same(short, whole, 700)


def test_runs_started_together_have_folders_of_their_own(either, tmp_path):
    args, names = either.resolve(make_args(either, runs_dir=str(tmp_path))), set()
    for _ in range(20):
        with either.open_run(args, range(1, 2)) as run:
            names.add(run)
    assert len(names) == 20


def test_evaluate_plays_the_newest_agents(longest, tmp_path):
    """The newest by number, of each seed or of --seed, in the episodes of its evaluation: so its returns
    come again. Files of other names are left alone."""
    settings = {**SMALL, "num_seeds": 2, "snapshot_frequency": 50}
    run = longest.train(make_args(longest, total_timesteps=300, seed=4, runs_dir=str(tmp_path), **settings))
    for name in "agent_best.pt", "agent_1e9.pt", "agent_.pt", "agent_9 (copy).pt":
        shutil.copy(run / "seed_4" / "agent_50.pt", run / "seed_4" / name)
    for words, seeds in (([], (4, 5)), (["--seed", "5"], (5,)), (["--seed=4"], (4,))):
        ended = call(longest.__name__, "--evaluate", run, *words)
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
        played = [float(line.split()[-1]) for line in ended.stdout.splitlines() if line.startswith("seed")]
        expected = [float(rows_of(run, seed)[-1][f"return_{i}"]) for seed in seeds for i in range(2)]
        assert played == [round(value, 1) for value in expected]
        assert [line.split(":")[0].split("/")[-1] for line in ended.stdout.splitlines() if ".pt" in line] == [
            "agent_300.pt"
        ] * len(seeds)
    assert replace(longest.stored_args(str(run)), runs_dir="").seed == 4
