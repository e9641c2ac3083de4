"""Whose error is it? An argument, a file or a run: one line, status 2. A number that is not finite: one
line, status 3. The environment: its own traceback, and a last line that says so, status 1. Ctrl-C: one line,
and status 130."""

import fcntl
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import odd
import pytest
import torch
from conftest import ROOT, SAFE, Ended, agent_of, call, contents, flags, make_args, rows_of, same, start
from filelock import FileLock

SMALL = dict(env_id="odd:Odd-v0", total_timesteps=60, learning_starts=20, batch_size=4, eval_frequency=30)
SMALL |= dict(eval_episodes=2, checkpoint_frequency=30)
BASELINE, HPO, SAFEST = "sac_baseline", "sac_hpo_continuous", "sac_hpo_safe"
BESIDE = 10**6  # instances of evaluations beside the training have such numbers
# Which instances of the environment go wrong: those of evaluations, of one agent and of three; the third.
EVALUATION, THIRD = {1: dict(first=2), 3: dict(first=BESIDE)}, dict(first=3, last=3)


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    monkeypatch.setattr(odd.Odd, "made", 0)


def settings(name, odd=None, **changes) -> dict:
    costs = dict(cost="torque", cost_limit=5.0) if name in SAFE else {}
    return {**SMALL, **costs, "env_kwargs": json.dumps(odd or {}), **changes}


def words_of(name, odd=None, **changes) -> list:
    return flags(**{key: value for key, value in settings(name, odd, **changes).items() if value is not None})


def train(script, run_dir, odd=None, **changes):
    return script.train(script.Args(run_dir=str(run_dir), **settings(script.__name__, odd, **changes)))


def line_of(ended, status: int) -> str:
    """The one line of a script that ended so."""
    assert ended.returncode == status and ended.stderr.count("\n") == 1, ended.stderr
    assert "Traceback" not in ended.stdout
    return ended.stderr


# ------------------------------------------------------------------------------------------- the environment


ERRORS = "RuntimeError SystemExit SystemExit() ConnectionResetError BrokenPipeError EOFError TimeoutError"
ERRORS += " TimeoutError() FloatingPointError ValueError KeyError AssertionError() MemoryError StopIteration"
ERRORS += " GeneratorExit TwoArguments Unspeakable Panic"
FAILURES = [(BASELINE, "step", error, {}, 1) for error in ERRORS.split()]
FAILURES += [(SAFEST, "step", "FloatingPointError", {}, 3), (BASELINE, "reward", "two numbers", {}, 1)]
FAILURES += [(BASELINE, "reset", "SystemExit", {}, seeds) for seeds in (1, 3)]
FAILURES += [(BASELINE, "make", "RuntimeError", dict(first=4, last=6), 3)]  # when a checkpoint has been made
IN_EVALUATION = [("step", error) for error in ("TwoArguments", "ConnectionResetError", "SystemExit()")]
IN_EVALUATION += [("step", "EOFError"), ("first obs", "TimeoutError()"), ("make", "FloatingPointError")]
FAILURES += [(SAFEST, *how, EVALUATION[seeds], seeds) for how in IN_EVALUATION for seeds in (1, 3)]


@pytest.mark.parametrize("name, at, what, where, seeds", FAILURES)
def test_the_environment_fails(name, at, what, where, seeds, tmp_path, main, quick):
    wrong = dict(at=at, what=what, **where)
    ended = main(name, *words_of(name, wrong, num_seeds=seeds), "--run-dir", tmp_path / "run")
    *trace, last = ended.stderr.splitlines()
    assert ended.returncode == 1, ended.stderr
    assert last.startswith(f"{name}.py: the environment failed; to go on from step ") and "--resume" in last
    assert "Traceback" in ended.stderr
    if what != "two numbers":
        error = [line for line in trace if what.removesuffix("()") in line]
        assert error and ("the simulator broke" in error[-1] or "()" in what or what == "Unspeakable")
    odd.Odd.made, script = 0, __import__(name)
    with pytest.raises(script.EnvironmentFailed, match="Traceback"):
        train(script, tmp_path / "2", wrong, num_seeds=seeds)


@pytest.mark.parametrize("error, seeds", [("RuntimeError", 3), ("SystemExit", 1), ("BrokenPipeError", 1)])
def test_an_environment_that_cannot_be_closed_is_reported(error, seeds, tmp_path, main, quick):
    run = tmp_path / "run"
    words = words_of(BASELINE, dict(at="close", what=error), num_seeds=seeds)
    ended = main(BASELINE, *words, "--run-dir", run)
    assert ended.returncode == 0 and len(rows_of(run, seeds)) == 2
    assert "the environment cannot be closed:\nTraceback" in ended.stderr
    assert f"{error}: the simulator broke" in ended.stderr


def test_an_error_of_an_evaluation_leaves_its_process_whole(tmp_path):
    words = words_of(BASELINE, dict(at="step", what="TwoArguments", first=BESIDE), num_seeds=3)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    ended = call(BASELINE, *words, "--run-dir", tmp_path / "run", env=environment)
    assert ended.returncode == 1 and "odd.TwoArguments: the simulator broke" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"{BASELINE}.py: the environment failed; ")


def test_an_error_of_an_environment_in_a_process_of_its_own(tmp_path):
    """As on a GPU, where tasks of several agents have processes: it leaves them, a % in it too."""
    text = (ROOT / f"{BASELINE}.py").read_text().replace("if args.cuda and seeds > 1", "if seeds > 1")
    (tmp_path / "changed.py").write_text(text)
    words = words_of(BASELINE, dict(at="step", what="RuntimeError"), num_seeds=3)
    options = dict(env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}, capture_output=True, text=True)
    ended = subprocess.run([sys.executable, "changed.py", *map(str, words)], cwd=tmp_path, **options)
    assert ended.returncode == 1 and "RuntimeError: the simulator broke at 100 %" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("changed.py: the environment failed; ")


def test_a_process_beside_the_training_is_killed(tmp_path, main, quick):
    words = words_of(BASELINE, dict(at="step", what="killed", first=BESIDE), num_seeds=3)
    ended = main(BASELINE, *words, "--run-dir", tmp_path / "run")
    assert "BrokenProcessPool" in line_of(ended, 2) and "to go on from step 0" in ended.stderr


@pytest.mark.parametrize("at", ["every reward", "over", "cost"])
def test_arrays_of_one_number_are_numbers(at, tmp_path):
    script = __import__("sac_lagrangian" if at == "cost" else BASELINE)
    costs = dict(cost="info") if at == "cost" else {}
    runs = [train(script, tmp_path / what, dict(at=at, what=what), **costs) for what in ("usual", "array")]
    assert rows_of(runs[0]) == rows_of(runs[1]) and same(*(agent_of(run, 60) for run in runs))


def test_an_environment_that_seeds_the_global_generators_does_no_harm(tmp_path, longest):
    runs = [train(longest, tmp_path / what, dict(at="step", what=what)) for what in ("usual", "seeds")]
    assert same(*(agent_of(run, 60) for run in runs))


def test_reset_is_not_given_options_that_nobody_chose(tmp_path, quick):
    for seeds in (1, 3):
        wrong = dict(at="options", what="KeyError")
        assert train(__import__(BASELINE), tmp_path / str(seeds), wrong, num_seeds=seeds).exists()


@pytest.mark.parametrize("folder, seeds", [("run", 1), ("~/run", 3)])
def test_an_environment_that_changes_the_folder(folder, seeds, tmp_path, main, quick, monkeypatch):
    """The run, what goes on with it and what plays it find everything where the command said it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    words = words_of(BASELINE, dict(at="make", what="moves"), num_seeds=seeds)
    run = tmp_path / "run"
    longer, agent = ["--resume", folder, "--total-timesteps", 90], f"{folder}/seed_1/agent_90.pt"
    played = ["--evaluate", folder], ["--evaluate", agent]
    for more in [*words, "--run-dir", folder], longer, *played:
        monkeypatch.chdir(tmp_path)
        ended = main(BASELINE, *more)
        assert ended.returncode == 0, ended.stderr
    assert len(rows_of(run, seeds)) == 3 and [path.name for path in tmp_path.iterdir()] == ["run"]
    returns = [float(rows_of(run)[-1][f"return_{i}"]) for i in range(2)]
    assert f"returns {returns[0]:.1f} {returns[1]:.1f}," in ended.stdout


# ------------------------------------------------------------------------------------ numbers not finite


NOT_FINITE = [
    (BASELINE, 1, "first obs", "nan", {}, "step 1, seed 4: the environment's observation is not finite"),
    (BASELINE, 1, "obs", "inf", {}, "step 7, seed 4: the environment's observation or reward is not finite"),
    (BASELINE, 1, "reward", "nan", {}, "step 7, seed 4: the environment's observation or reward is not"),
    (BASELINE, 1, "reward", "too large for float32", {}, "step 7, seed 4: the environment's observation or"),
    (BASELINE, 3, "reward", "nan", THIRD, "step 7, seed 6: the environment's observation or reward is not"),
    (SAFEST, 3, "first obs", "inf", THIRD, "step 1, seed 6: the environment's observation is not finite"),
    (SAFEST, 1, "cost", "nan", {}, "step 1, seed 4: the environment's observation, reward or cost is not"),
    (BASELINE, 1, "reward", "nan", EVALUATION[1], "evaluation of "),
    (BASELINE, 3, "reward", "inf", EVALUATION[3], "evaluation of "),
    (BASELINE, 3, "obs", "nan", EVALUATION[3], "evaluation of "),
    (SAFEST, 1, "cost", "nan", EVALUATION[1], "evaluation of "),
    (BASELINE, 1, "every reward", "its square is", {}, "step 30, seed 4: losses/q is not finite"),
    (SAFEST, 3, "every reward", "its square is", THIRD, "step 30, seed 6: losses/q is not finite"),
    (BASELINE, 1, "reward", "its square is", {}, "not finite"),
]


@pytest.mark.parametrize("name, seeds, at, what, where, message", NOT_FINITE)
def test_a_number_that_is_not_finite(name, seeds, at, what, where, message, tmp_path, main, quick):
    run = tmp_path / "run"
    changes = dict(cost="info") if at == "cost" else {}
    words = words_of(name, dict(at=at, what=what, **where), seed=4, num_seeds=seeds, **changes)
    line = line_of(main(name, *words, "--run-dir", run), 3)
    assert line.startswith(f"{name}.py: FloatingPointError: ") and message in line
    path, state = run / "checkpoint.pt", {"step": 0, "tensors": []}
    state = torch.load(path) if path.exists() else state
    assert f"to go on from step {state['step']}: python {name}.py --resume {run}" in line
    assert all(value.isfinite().all() for value in state["tensors"])
    tables = "".join(path.read_text() for path in run.rglob("eval.csv"))
    assert "nan" not in tables and "inf" not in tables


# -------------------------------------------------------------------------------------------------- arguments


NO_TASKS = "Hoper-v4", "Hopper-v99", "", "no such thing", "no_such_module:Thing-v0", "a:b:c"
OUTSIDE = "actions must be continuous and bounded"
BAD = [
    *((BASELINE, dict(env_id=env_id), f"--env-id {env_id}".strip()) for env_id in NO_TASKS),
    (BASELINE, dict(env_id="CartPole-v1", env_kwargs="{}"), OUTSIDE),
    (BASELINE, dict(env_id="Pendulum", env_kwargs="{}"), "which version? The latest is Pendulum-v1"),
    *((BASELINE, dict(env_kwargs=text), f"--env-kwargs {text}") for text in ("no JSON", "[1]", "null")),
    (BASELINE, dict(env_kwargs='{"colour": "red"}'), "colour"),
    *((BASELINE, dict(odd=dict(actions=space)), OUTSIDE) for space in list(odd.SPACES)[3:]),
    (BASELINE, dict(odd=dict(at="make", what="RuntimeError")), "RuntimeError: the simulator broke"),
    (BASELINE, dict(odd=dict(at="make", what="SystemExit"), num_seeds=3), "SystemExit: the simulator broke"),
    (BASELINE, dict(odd=dict(at="make", what="AssertionError()")), "--env-id odd:Odd-v0"),
    (BASELINE, dict(odd=dict(at="render", what="nothing"), capture_video=True), "--capture-video"),
    (BASELINE, dict(odd=dict(at="render", what="OSError"), capture_video=True), "the simulator broke"),
    (BASELINE, dict(table_row="Walker"), "--table-row Walker: the rows are HalfCheetah, "),
    *((BASELINE, {name: 1.5}, "--gamma and --tau must be at most 1") for name in ("gamma", "tau")),
    (BASELINE, dict(buffer_size=10**11, total_timesteps=10**11), "--buffer-size 100000000000 of 1 agents"),
    (SAFEST, dict(gamma=1.0), "--gamma must be below 1, as"),
    *((SAFEST, {name: None}, "needs --cost and --cost-limit") for name in ("cost", "cost_limit")),
    (SAFEST, dict(cost="speed"), "--cost speed: the task does not report info['x_velocity']"),
    (SAFEST, dict(cost="info", odd=dict(at="cost", what="two numbers")), "as one number"),
    (SAFEST, dict(cost="info", odd=dict(at="cost", what="negative")), "a cost below 0"),
    *((HPO, dict(train=way), "--explore proposed needs --train proposed") for way in ("gaussian", "drift")),
]


@pytest.mark.parametrize("name, changes, message", BAD, ids=str)
def test_bad_arguments(name, changes, message, tmp_path, main, quick):
    """ValueError in Python, a line from a shell; in neither case a folder is left behind."""
    with pytest.raises((ValueError, OSError)) as raised:
        train(__import__(name), tmp_path / "run", **changes)
    assert message in str(raised.value)
    odd.Odd.made = 0
    assert message in line_of(main(name, *words_of(name, **changes), "--run-dir", tmp_path / "run"), 2)
    at_a_step = "cost" in changes and changes["cost"]  # what the task reports is known then only
    assert at_a_step or list(tmp_path.iterdir()) == []


def test_every_number_has_its_bounds(script):
    for name, value in asdict(script.resolve(make_args(script))).items():
        if type(value) in (int, float):
            bad = [-1, 10**13, *([] if name in script.MAY_BE_0 else [0])]
            for wrong in bad if type(value) is int else [*bad, math.nan, math.inf, -math.inf]:
                with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}"):
                    script.resolve(make_args(script, **{name: wrong}))


WORDS = [
    (["--resume", "a", "--evaluate", "b"], "give one of --resume, --run-dir and --evaluate"),
    (["--run-dir", "a", "--evaluate", ""], "give one of --resume, --run-dir and --evaluate"),
    *((["--resume", folder], "has no run of sac_baseline.py") for folder in ("nowhere", ".", "")),
    *((["--evaluate", folder], "there is no agent_<step>.pt") for folder in ("nowhere", ".", "")),
    (["--run-dir", ""], "--run-dir must not be empty"),
    (["--batch-size", "0"], "--batch-size cannot be 0: it must be above 0"),
]


@pytest.mark.parametrize("words, message", WORDS, ids=str)
def test_bad_words(words, message, tmp_path, main, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = "--env-id", "Pendulum-v1", "--total-timesteps", 10
    assert message in line_of(main(BASELINE, *words, *quick), 2) and list(tmp_path.iterdir()) == []


LIMITS = [  # /proc/self/cgroup, and the file with the limit
    ("0::/user/job\n", "sys/fs/cgroup/user/job/memory.max", "4000000"),
    ("0::/user/job\n", "sys/fs/cgroup/user/memory.max", "4000000\n"),
    ("0::/elsewhere/job\n", "sys/fs/cgroup/memory.max", "4000000\n"),
    ("3:cpu:/a\n7:memory:/slurm/job\n0::/\n", "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", "4000000"),
]


@pytest.mark.parametrize("groups, file, limit", LIMITS)
def test_a_buffer_larger_than_the_control_group_allows(groups, file, limit, longest, tmp_path, monkeypatch):
    for path, text in ("proc/self/cgroup", groups), (file, limit):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(longest, "Path", lambda first, *rest: Path(f"{tmp_path}/{first}", *rest))
    assert longest.memory() == 4_000_000
    (tmp_path / file).write_text("max")
    assert longest.memory() > 10**9
    (tmp_path / file).write_text(limit)
    longest.ReplayBuffer(2, 10_000, 20, 5, torch.device("cpu"))  # 3.92 MB
    with pytest.raises(ValueError, match=r"--buffer-size 11000 of 2 agents wants .* there are 0.004 GB"):
        longest.ReplayBuffer(2, 11_000, 20, 5, torch.device("cpu"))


def test_a_buffer_larger_than_ulimit_allows(tmp_path, main):
    in_use = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 10**9, before[1]))
    try:
        words = words_of(BASELINE, buffer_size=10**8, total_timesteps=10**8)  # 4 GB
        ended = main(BASELINE, *words, "--run-dir", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert "--buffer-size 100000000 of 1 agents wants 4 GB" in line_of(ended, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at, first", [("first obs", 1), ("obs", 1), ("obs", BESIDE)])
def test_observations_of_another_shape_than_promised(at, first, tmp_path, main, quick):
    words = words_of(BASELINE, dict(at=at, what="one number more", first=first), num_seeds=3)
    line = line_of(main(BASELINE, *words, "--run-dir", tmp_path / "run"), 2)
    assert "--env-id: an observation is (4,), not (3,)" in line


def test_a_task_without_mujoco_needs_no_mujoco(tmp_path):
    env = {**os.environ, "MUJOCO_GL": "nonsense"}
    words = words_of(BASELINE, env_id="Pendulum-v1", eval_episodes=1)
    ended = call(BASELINE, *words, "--run-dir", tmp_path / "run", env=env)
    assert ended.returncode == 0 and not ended.stderr and len(rows_of(tmp_path / "run")) == 2


# ------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    import sac_baseline

    return train(sac_baseline, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of 60 steps, to be spoiled."""
    return shutil.copytree(finished, tmp_path / "run")


class Malice:
    def __repr__(self):
        return "Malice"  # an id that is the same in every process of the tests

    def __reduce__(self):
        return os.mkdir, ("owned",)


def spoil(path: Path, how) -> None:
    if isinstance(how, float):
        data = path.read_bytes()
        path.write_bytes(data[: int(how * len(data))])
    elif isinstance(how, str):
        path.write_text(how)
    elif isinstance(how, Path):
        shutil.copy(path.parent / how, path)
    else:
        torch.save(how, path)


CONFIG = '{"algorithm": "sac_baseline", "args": %s, "starts": []}'
AGENT = "seed_1/agent_60.pt"
SPOILED = [
    *(("checkpoint.pt", how) for how in (0.0, 0.3, 0.99, "text", Malice(), [1], {"a": 1}, Path(AGENT))),
    ("checkpoint.pt", {"step": 30, "rows": [[]], "tensors": [torch.zeros(2)]}),
    *(("config.json", how) for how in ("", "{}", "[]", CONFIG % '{"colour": "red"}', CONFIG % "[]")),
    ("config.json", '{"algorithm": "sac_nf", "args": {}}'),
]


@pytest.mark.parametrize("file, how", SPOILED, ids=str)
def test_a_spoiled_run(file, how, run, main, monkeypatch):
    """One line that names the file or the folder; nothing is destroyed, no code in it runs."""
    spoil(run / file, how)
    monkeypatch.chdir(run)
    before = contents(run)
    for words in (["--resume", run], [*words_of(BASELINE), "--run-dir", run]):
        line = line_of(main(BASELINE, *words, "--total-timesteps", 90), 2)
        after = contents(run) | {"config.json": before["config.json"]}  # where the attempt may be noted
        assert str(run) in line and before.items() <= after.items() and not (run / "owned").exists()


AGENTS = [0.0, 0.3, 0.99, "text", [1], {"a": 1}, Malice(), Path("../checkpoint.pt")]


@pytest.mark.parametrize("how", AGENTS, ids=str)
def test_a_file_that_is_no_agent(how, run, main, monkeypatch):
    import sac_baseline

    spoil(run / AGENT, how)
    monkeypatch.chdir(run)
    assert AGENT in line_of(main(BASELINE, "--evaluate", run / AGENT), 2)
    with pytest.raises(ValueError, match=AGENT):
        sac_baseline.load_agent(run / AGENT)
    assert not (run / "owned").exists()


def test_another_scripts_run_and_agent(run, main):
    evaluate = ["--evaluate", run / AGENT]
    for words in (["--resume", run], [*words_of("sac_nf"), "--run-dir", run], evaluate):
        assert "it is of sac_baseline.py" in line_of(main("sac_nf", *words), 2)
    other = main(BASELINE, *evaluate, "--env-id", "envs:OneStep-v0", "--env-kwargs", "{}")
    assert "is of odd:Odd-v0; envs:OneStep-v0 has other observations" in line_of(other, 2)


CHANGES = dict(gamma=0.5), dict(total_timesteps=50), dict(num_seeds=2), dict(env_id="Hopper-v4")


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_run_can_only_become_longer(changes, run, main):
    for _ in range(2):
        before = contents(run)
        for words in (["--resume", run], [*words_of(BASELINE), "--run-dir", run]):
            line = line_of(main(BASELINE, *words, *flags(**changes)), 2)
            assert flags(**changes)[0] in line and "only --total-timesteps may change, and grow" in line
        assert contents(run) == before
        (run / "checkpoint.pt").unlink(missing_ok=True)  # as if broken off before it, but evaluated


@pytest.mark.parametrize("why", ["another process trains there", "nothing can be locked there"])
def test_a_run_that_cannot_be_locked(why, run, main, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    other, before = FileLock(run / "lock"), contents(run)
    other.acquire() if "another" in why else monkeypatch.setattr(fcntl, "flock", no_locks)
    line = line_of(main(BASELINE, "--resume", run, "--total-timesteps", 90), 2)
    assert str(run) in line and why in line and contents(run) == before
    other.release(force=True)


def test_a_full_disk(run, tmp_path, main):
    """One line; the old checkpoint is whole, no part of a new one stays, and the run can go on later."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = (run / "checkpoint.pt").read_bytes()
    for words in ([*words_of(BASELINE), "--run-dir", tmp_path / "new"], ["--resume", run]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        try:
            ended = main(BASELINE, *words, "--total-timesteps", 90)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert str(words[-1]) in line_of(ended, 2) and not list(tmp_path.rglob("*.part"))
    assert (run / "checkpoint.pt").read_bytes() == old
    assert main(BASELINE, "--resume", run, "--total-timesteps", 90).returncode == 0


# ------------------------------------------------------------------------------------ Ctrl-C and notebooks


BROKEN_OFF = [(seeds, evaluation, "SIGINT") for seeds in (1, 3) for evaluation in (False, True)]
BROKEN_OFF += [(3, True, "SIGKILL")]


@pytest.mark.parametrize("seeds, in_evaluation, by", BROKEN_OFF)
def test_interrupted(seeds, in_evaluation, by, tmp_path):
    """Ctrl-C, which a terminal sends to the whole process group, or SIGKILL to the training alone: no process
    stays. An episode of an evaluation never ends."""
    run, kwargs = tmp_path / "run", dict(episode=10**9 if in_evaluation else 20)
    words = words_of(BASELINE, kwargs, num_seeds=seeds, total_timesteps=10**6, checkpoint_frequency=50)
    process = start(BASELINE, *words, "--run-dir", run)
    while not (run / ("seed_1/agent_30.pt" if in_evaluation else "checkpoint.pt")).exists():
        time.sleep(0.02)
    time.sleep(2.0 if in_evaluation else 0.3)  # for its imports
    os.killpg(process.pid, signal.SIGINT) if by == "SIGINT" else process.kill()
    _, said = process.communicate(timeout=60)
    if by == "SIGINT":
        line = line_of(Ended(process.returncode, "", said), 130)
        step = torch.load(run / "checkpoint.pt")["step"] if (run / "checkpoint.pt").exists() else 0
        expected = f"interrupted; to go on from step {step}: python {BASELINE}.py --resume {run}"
        assert line == f"{BASELINE}.py: {expected}\n"
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def test_one_agent_starts_no_process(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "workers", None)
    train(script, tmp_path / "run")
    assert multiprocessing.active_children() == []


PROGRAM = """
import sys
sys.path.append({root!r})
from sac_baseline import Args, train
settings = dict(env_id="Pendulum-v1", total_timesteps=20, eval_episodes=1)
print(train(Args(run_dir="one", **settings)))
try:
    train(Args(num_seeds=2, **settings))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_program_without_a_guard(tmp_path):
    """One agent is trained; several, which need processes, end with an error that says what is missing."""
    (tmp_path / "program.py").write_text(PROGRAM.format(root=str(ROOT)))
    ended = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0 and str(tmp_path / "one") in ended.stdout, ended.stderr
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("ValueError this run needs processes") and 'if __name__ == "__main__":' in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "program.py"]
