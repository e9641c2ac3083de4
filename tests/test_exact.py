"""The same arguments give the same run, bit for bit: again, evaluated more often, killed and gone on with."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import agent_of, call, contents, cost_flags, flags, make_args, rows_of, same, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL = dict(learning_starts=40, batch_size=8, eval_episodes=1, eval_frequency=100, checkpoint_frequency=50)
BULLET = "HumanoidBulletEnv-v0"


def train(script, run_dir, **changes) -> Path:
    if "Bullet" in changes.get("env_id", ""):
        pytest.importorskip("pybullet", reason="PyBullet does not install on Python 3.12 or later")
    few = dict(max_leapfrog_steps=3) if script.__name__ == "sac_hpo_safe" else {}
    return script.train(make_args(script, run_dir=str(run_dir), **{**SMALL, **few, **changes}))


def words_of(name, **settings) -> list:
    """The same for a command line."""
    few = dict(max_leapfrog_steps=3) if name == "sac_hpo_safe" else {}
    return flags(**SMALL, **few, **settings) + cost_flags(name)


def events(run: Path, seed: int) -> dict[str, list]:
    """All of TensorBoard's scalars, (step, value) by name, after its own clean-up of restarts."""
    board = EventAccumulator(str(run / f"seed_{seed}"), size_guidance={"scalars": 0}).Reload()
    names = board.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def assert_same(a: Path, b: Path, step: int, seeds=(1,)) -> None:
    for seed in seeds:
        assert rows_of(a, seed) == rows_of(b, seed)
        assert same(agent_of(a, step, seed), agent_of(b, step, seed))
        assert events(a, seed) == events(b, seed) and "losses/q" in events(a, seed)
        agents = [sorted(path.name for path in (run / f"seed_{seed}").glob("*.pt")) for run in (a, b)]
        assert agents[0] == agents[1]


def test_twice_in_one_process(script, tmp_path):
    first, second = (train(script, tmp_path / name, total_timesteps=150) for name in "ab")
    assert_same(first, second, 150)
    assert [row["global_step"] for row in rows_of(first)] == ["50", "100", "150"]
    other = train(script, tmp_path / "c", total_timesteps=50, seed=2)
    assert not same(agent_of(other, 50, seed=2), agent_of(first, 50))
    if script.__name__ == "sac_hpo_safe":  # else the noise of Algorithm 3 was not there to repeat
        assert float(rows_of(first)[-1]["accepted_at_first"]) < 1.0


def test_three_seeds_twice_and_evaluated_more_often(longest, tmp_path, quick):
    """More evaluations, of more episodes, change nothing in training. Of agents those of checkpoints stay."""
    settings = dict(num_seeds=3, seed=4, total_timesteps=130)
    first, second = (train(longest, tmp_path / name, **settings) for name in "ab")
    third = train(longest, tmp_path / "c", eval_frequency=20, eval_episodes=2, **settings)
    assert_same(first, second, 130, (4, 5, 6))
    for seed in (4, 5, 6):
        assert same(agent_of(first, 130, seed), agent_of(third, 130, seed))
        steps = [int(path.stem.removeprefix("agent_")) for path in (third / f"seed_{seed}").glob("*.pt")]
        assert sorted(steps) == [50, 100, 130]
    steps = " ".join(row["global_step"] for row in rows_of(third, 5))
    assert steps == "20 40 50 60 80 100 120 130"
    assert not same(agent_of(first, 130, 4), agent_of(first, 130, 5))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("name, seeds", [("sac_baseline", 3), ("sac_hpo_safe", 1)])
def test_killed_at_random_moments_and_started_again(name, seeds, tmp_path, quick):
    """SIGKILL at a random moment, and twice at one after a further checkpoint. The same command goes on, and
    so does --resume; rows, weights and TensorBoard equal those of a run left in peace."""
    run, path = tmp_path / "killed", tmp_path / "killed" / "checkpoint.pt"
    settings = dict(num_seeds=seeds, env_id="Hopper-v4", total_timesteps=240)
    whole = train(__import__(name), tmp_path / "whole", **settings)
    again = [*words_of(name, **settings), "--run-dir", run]
    for how, longest in (again, 6.0), (again, 0.3), (["--resume", run], 0.3):  # in seconds; not seeded: in
        before = path.stat().st_mtime_ns if path.exists() else 0  # time every moment gets its turn
        process = start(name, *how)
        while longest < 1.0 and process.poll() is None:
            if path.exists() and path.stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, longest))
        with suppress(ProcessLookupError):  # it may have ended before
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL), process.communicate()
    assert call(name, *again).returncode == 0
    assert_same(whole, run, 240, range(1, seeds + 1))
    assert not list(run.rglob("*.part"))


def test_broken_off_and_started_again(tmp_path, monkeypatch):
    """What was written after the last checkpoint, to TensorBoard as well, does not come twice."""
    script = __import__("sac_baseline")
    whole, real, broken = train(script, tmp_path / "whole", total_timesteps=150), script.Run.save, []

    def save(run, step, **state):
        if step == 100 and not broken:
            broken.append(step)
            signal.raise_signal(signal.SIGINT)
        real(run, step, **state)  # in the place of the old checkpoint, whose file is then gone from the disk
        assert f"{run.folder}/checkpoint.pt (deleted)" not in Path("/proc/self/maps").read_text()

    monkeypatch.setattr(script.Run, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train(script, tmp_path / "run", total_timesteps=150)
    assert_same(whole, train(script, tmp_path / "run", total_timesteps=150), 150)


def test_a_finished_run_stays_as_it_is(script, tmp_path, main):
    words = words_of(script.__name__, env_id="Hopper-v4", total_timesteps=60)
    run = tmp_path / "run"
    assert main(script.__name__, *words, "--run-dir", run).returncode == 0
    before = contents(run)
    for again in ([*words, "--run-dir", run], ["--resume", run]):
        ended = main(script.__name__, *again)
        assert ended.returncode == 0 and not ended.stderr and contents(run) == before
        assert f"{run} is finished: 60 steps. To go on, give a larger --total-timesteps." in ended.stdout


@pytest.mark.parametrize("name, env_id", [("sac_hpo_safe", "Hopper-v4"), ("sac_baseline", BULLET)])
def test_a_run_made_longer_goes_on_from_its_end(name, env_id, tmp_path, quick):
    """It equals one that never stopped, as that one writes a checkpoint there. Nothing comes twice, and the
    buffer's ring has gone round: the oldest rows are overwritten in the same order."""
    script = __import__(name)
    settings = dict(env_id=env_id, num_seeds=2, buffer_size=70, checkpoint_frequency=40)
    short = train(script, tmp_path / "a", total_timesteps=80, **settings)
    before = rows_of(short, 2)
    assert train(script, short, total_timesteps=150, **settings) == short
    whole = train(script, tmp_path / "b", total_timesteps=150, **settings)
    assert_same(short, whole, 150, (1, 2))
    assert rows_of(short, 2)[:2] == before
    assert script.stored_run(short)[0].total_timesteps == 150


def test_runs_started_together_have_folders_of_their_own(either):
    assert len({either.resolve(make_args(either)).run_dir for _ in range(100)}) == 100
