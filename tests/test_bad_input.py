"""What cannot work is refused in one line, with status 2, before anything is written; 3: not finite."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial

import envs  # noqa: F401  (registers them)
import odd
import pytest
import torch
from conftest import ROOT, agent_of, call, command, cost_flags, make_args, refused, resume, rows_of
from filelock import FileLock

BAD_VALUES = [
    (dict(env_id="Hoper-v4"), "--env-id Hoper-v4"),
    (dict(env_id="Hopper-v99"), "--env-id Hopper-v99"),
    (dict(env_id="no such thing"), "--env-id no such thing"),
    (dict(env_id="no_such_module:Thing-v0"), "--env-id no_such_module"),
    (dict(env_id="a:b:c"), "--env-id a:b:c"),
    (dict(env_id="odd:ConstructorFails-v0"), "RuntimeError: licence server is not reachable"),
    (dict(env_id="odd:ConstructorAsserts-v0"), "--env-id odd:ConstructorAsserts-v0: AssertionError"),
    (dict(env_id="odd:HugeBounds-v0"), "needs continuous, bounded actions"),
    (dict(env_id="odd:RenderNone-v0", capture_video=True), "render() gives no picture"),
    (dict(env_id="CartPole-v1"), "needs Boxes of observations and actions, not"),
    (dict(env_id="DiscreteActions-v0"), "Discrete(3)"),
    (dict(env_id="UnboundedActions-v0"), "needs continuous, bounded actions"),
    (dict(env_id="DictObservations-v0"), "needs Boxes of observations"),
    (dict(total_timesteps=0), "--total-timesteps must be between 1 and 1e+12, not 0"),
    (dict(num_seeds=0), "--num-seeds must be between 1 and"),
    (dict(num_seeds=10**6), "--num-seeds must be between 1 and"),
    (dict(buffer_size=-1), "--buffer-size must be between 1 and 1e+12, not -1"),
    (
        dict(buffer_size=10**12, total_timesteps=10**12),
        "--buffer-size 1000000000000 with --num-seeds 1 would take",
    ),
    (dict(batch_size=0), "--batch-size must be between 1 and"),
    (dict(batch_size=99999999999999999999), "--batch-size must be between 1 and"),
    (dict(torch_threads=0), "--torch-threads must be between 1 and"),
    (dict(torch_threads=100_000_000_000), "--torch-threads must be between 1 and"),
    (dict(eval_frequency=0), "--eval-frequency must be between 1 and"),
    (dict(eval_episodes=0), "--eval-episodes must be between 1 and"),
    (dict(checkpoint_frequency=0), "--checkpoint-frequency must be between 1 and"),
    (dict(snapshot_frequency=-5), "--snapshot-frequency must be between 0 and"),
    (dict(learning_starts=-1), "--learning-starts must be between 0 and"),
    (dict(seed=-1), "--seed must be between 0 and"),
    (dict(seed=2**64), "--seed must be between 0 and"),
    (dict(gamma=1.5), "--gamma must be between 0 and 1, not 1.5"),
    (dict(gamma=float("nan")), "--gamma must be between 0 and 1, not nan"),
    (dict(tau=0.0), "--tau must be between 1e-10 and 1"),
    (dict(policy_lr=0.0), "--policy-lr must be between 1e-10"),
    (dict(q_lr=float("inf")), "--q-lr must be between 1e-10"),
    (dict(alpha=0.0), "--alpha must be between 1e-10"),
]
BAD_LEAPFROG = [
    (dict(leapfrog_steps=0), "--leapfrog-steps must be between 1 and"),
    (dict(leapfrog_hidden=-3), "--leapfrog-hidden must be between 1 and"),
    (dict(step_size=0.0), "--step-size must be between 1e-10"),
    (dict(momentum_std_train=-0.1), "--momentum-std-train must be between 0 and"),
    (dict(momentum_std_train=float("inf")), "--momentum-std-train must be between 0 and"),
    (dict(momentum_std_explore=float("nan")), "--momentum-std-explore must be between 0 and"),
    (dict(momentum_in_target=True, momentum_std_train=0.0), "--momentum-in-target needs a momentum"),
]
BAD_OPERATORS = [
    (dict(explore="proposed", train="gaussian"), "--explore proposed needs --train proposed"),
    (dict(explore="proposed", train="conventional"), "--explore proposed needs --train proposed"),
    (
        dict(momentum_in_target=True, explore="gaussian", train="gaussian"),
        "--momentum-in-target needs a momentum",
    ),
]


def check_refused(module, tmp_path, capsys, changes, message):
    args = make_args(module, **{"total_timesteps": 100, "runs_dir": str(tmp_path / "runs"), **changes})
    status, line = refused(capsys, module.train, args)
    assert status == 2 and message in line and line.startswith(f"{module.ALGORITHM}.py: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes, message", BAD_VALUES, ids=str)
def test_bad_values(either, tmp_path, capsys, changes, message):
    check_refused(either, tmp_path, capsys, changes, message)


@pytest.mark.parametrize("changes, message", BAD_LEAPFROG, ids=str)
def test_bad_leapfrog(hpo, tmp_path, capsys, changes, message):
    check_refused(hpo, tmp_path, capsys, changes, message)


@pytest.mark.parametrize("changes, message", BAD_OPERATORS, ids=str)
def test_bad_operators(tmp_path, capsys, changes, message):
    import sac_hpo_continuous

    check_refused(sac_hpo_continuous, tmp_path, capsys, changes, message)


FAST = dict(total_timesteps=60, learning_starts=40, batch_size=4, checkpoint_frequency=20, eval_episodes=1)


def run_of(module, tmp_path, **changes):
    settings = {"env_id": "odd:Odd-v0", **FAST, **changes}
    return module.train(make_args(module, runs_dir=str(tmp_path / "runs"), **settings))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def words_of(name, tmp_path, **changes) -> list:
    """The same as `run_of` for a command line."""
    settings = {"env-id": "odd:Odd-v0", **FAST, "runs-dir": tmp_path / "runs", **changes}
    words = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]
    return words + cost_flags(name)


HERE = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}


@pytest.fixture
def stepped_beside(tmp_path):
    """An environment in which scripts step their tasks in processes, as with several seeds on a GPU."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys, gymnasium as gym\n"
        "def beside(makers, **options):\n"
        "    return sys.modules['__main__'].make_envs(*makers[0].args, beside=True)\n"
        "gym.vector.SyncVectorEnv = beside\n"
    )
    return {**HERE, "PYTHONPATH": f"{tmp_path / 'site'}:{HERE['PYTHONPATH']}"}


# ------------------------------------------------------------------------------------------- a run's folder


def test_unwritable_runs_folder(longest, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    ended = call(
        longest.__name__, *words_of(longest.__name__, tmp_path, runs_dir=tmp_path / "file"), env=HERE
    )
    assert ended.returncode == 2 and str(tmp_path / "file") in ended.stderr and ended.stderr.count("\n") == 1


def test_resume_of_a_folder_that_is_no_run(either, tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "missing"):
        status, line = refused(capsys, either.stored_args, str(folder))
        assert status == 2 and f"{folder} is not the folder of a run" in line
    (tmp_path / "config.json").write_text(
        '{"algorithm": "' + either.ALGORITHM + '", "args": {"colour": "red"}}'
    )
    status, line = refused(capsys, either.stored_args, str(tmp_path))
    assert status == 2 and "config.json cannot be used" in line


def test_resume_of_another_algorithms_run(either, tmp_path, capsys):
    run = run_of(either, tmp_path)
    config = json.loads((run / "config.json").read_text()) | {"algorithm": "sac_other"}
    (run / "config.json").write_text(json.dumps(config))
    status, line = refused(capsys, either.stored_args, str(run))
    assert status == 2 and "sac_other.py" in line


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_resume_of_a_truncated_checkpoint(either, tmp_path, capsys, part):
    run = run_of(either, tmp_path)
    data = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(data[: int(part * len(data))])
    before = contents(run)
    capsys.readouterr()
    status, line = refused(capsys, resume, either, run)
    assert status == 2 and "checkpoint.pt is damaged" in line
    assert contents(run) == before


def test_a_checkpoint_cannot_execute_anything(either, tmp_path, capsys):
    class Malice:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"agent": Malice()}, tmp_path / "checkpoint.pt")
    status, line = refused(capsys, either.load, tmp_path / "checkpoint.pt")
    assert status == 2 and "damaged or does not fit" in line
    assert not (tmp_path / "owned").exists()


def test_resume_may_only_make_a_run_longer(either, tmp_path, capsys):
    run = run_of(either, tmp_path)
    before = contents(run)
    capsys.readouterr()
    for changes, message in (
        (dict(gamma=0.5), "--gamma is 0.99 in"),
        (dict(total_timesteps=50), "--total-timesteps is 60 in"),
        (dict(num_seeds=2), "--num-seeds is 1 in"),
    ):
        args = replace(either.stored_args(str(run)), resume=str(run), **changes)
        status, line = refused(capsys, either.train, args)
        assert status == 2 and message in line and "only --total-timesteps may change, and grow" in line
    assert contents(run) == before


def test_resume_from_the_command_line(longest, tmp_path):
    run = run_of(longest, tmp_path, gamma=0.9)
    ended = call(longest.__name__, "--resume", run, "--gamma", 0.99, env=HERE)  # the default, not the run's
    assert ended.returncode == 2 and "--gamma is 0.9 in" in ended.stderr
    ended = call(longest.__name__, "--resume", run, "--total-timesteps", 80, env=HERE)
    assert ended.returncode == 0, ended.stderr
    assert "Table I" not in ended.stdout  # that its arguments are Hopper's was said when it began
    config = json.loads((run / "config.json").read_text())
    (resumed,) = config["resumed"]  # the refused one is none
    assert resumed["step"] == 60 and "--total-timesteps 80" in resumed["command"]
    assert all(resumed[name] == config[name] for name in ("processor", "versions", "commit", "gpu"))
    assert (run / "seed_1" / "agent_80.pt").exists()


def test_evaluate_without_an_agent(either, tmp_path, capsys):
    run = run_of(either, tmp_path)
    for file in (run / "seed_1").glob("agent_*.pt"):
        file.rename(file.with_name("agent_best.pt"))
    capsys.readouterr()
    status, line = refused(capsys, either.play, replace(either.stored_args(str(run)), evaluate=str(run)))
    assert status == 2 and "no agent_<step>.pt of seed 1; see --checkpoint-frequency" in line


def test_playing_changes_nothing_of_the_agent(either, tmp_path, capsys):
    """Another task would have other shapes, or the wrong agent in it without a word."""
    run = run_of(either, tmp_path)
    capsys.readouterr()
    args = replace(either.stored_args(str(run)), evaluate=str(run))
    for changes, message in (
        (dict(env_id="Grid-v0"), f"--env-id is {args.env_id}"),
        (dict(gamma=0.5), "--gam"),
    ):
        status, line = refused(capsys, either.play, replace(args, **changes))
        assert status == 2 and message in line and "--eval-episodes" in line
    either.play(replace(args, eval_episodes=1, cuda=False))
    assert "seed 1, episode 0: return" in capsys.readouterr().out


def test_files_that_are_no_agent(either, tmp_path):
    """They raise in a user's program, and do not end it."""
    run = run_of(either, tmp_path)
    (tmp_path / "damaged.pt").write_bytes((run / "seed_1" / "agent_60.pt").read_bytes()[:5000])
    torch.save([1, 2], tmp_path / "list.pt")
    for path in run / "checkpoint.pt", tmp_path / "damaged.pt", tmp_path / "list.pt":
        with pytest.raises(ValueError, match=r"\.pt, which is of no agent, does not fit this script"):
            either.load_agent(path)
    with pytest.raises(FileNotFoundError):
        either.load_agent(tmp_path / "agent_1.pt")


def test_tracking_waits_for_the_lock(either, tmp_path, capsys, monkeypatch):
    """Weights & Biases would go on with the run that another process logs to it."""
    tracked = []
    monkeypatch.setattr(either, "start_wandb", lambda args, run: tracked.append(run))
    run = run_of(either, tmp_path, track=True)
    assert tracked == [run]
    with FileLock(run / "lock"):
        assert refused(capsys, partial(resume, total_timesteps=80), either, run)[0] == 2
    assert tracked == [run]
    resume(either, run, total_timesteps=80)
    assert tracked == [run, run]


def test_two_processes_on_one_run(longest, tmp_path):
    """The second is refused, and the run goes on as if nothing had been."""
    words = words_of(
        longest.__name__, tmp_path, total_timesteps=600, eval_frequency=600, checkpoint_frequency=200
    )
    process = subprocess.Popen(command(longest.__name__, *words), stdout=subprocess.PIPE, text=True, env=HERE)
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    (run,) = (tmp_path / "runs").iterdir()
    process.send_signal(signal.SIGSTOP)
    before = contents(run)
    ended = call(longest.__name__, "--resume", run, env=HERE)
    assert ended.returncode == 2 and "another process is training there" in ended.stderr
    assert ended.stderr.count("\n") == 1 and contents(run) == before
    process.send_signal(signal.SIGCONT)
    process.communicate()
    assert process.returncode == 0 and len(rows_of(run)) == 1


def limit_files():  # as a full disk does, but with another number
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_full_disk(longest, tmp_path):
    """One line; the old checkpoint is whole and no part of the new one stays behind."""
    words = words_of(longest.__name__, tmp_path, checkpoint_frequency=50)
    ended = call(longest.__name__, *words, env=HERE, preexec_fn=limit_files)
    (run,) = (tmp_path / "runs").iterdir()
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "cannot be written" in ended.stderr and not list(run.rglob("*.part"))
    run = run_of(longest, tmp_path / "second")
    before = (run / "checkpoint.pt").read_bytes()
    ended = call(
        longest.__name__, "--resume", run, "--total-timesteps", 100, env=HERE, preexec_fn=limit_files
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert (run / "checkpoint.pt").read_bytes() == before and not list(run.rglob("*.part"))


# -------------------------------------------------------------------------------------- what goes non-finite


def stopped(module, tmp_path, capsys, **changes) -> str:
    """The last line of a run that ends with status 3."""
    with pytest.raises(SystemExit) as ended:
        run_of(module, tmp_path, **changes)
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 3 and "as it would repeat itself, start anew with other settings" in line
    for run in (tmp_path / "runs").iterdir():
        for table in run.rglob("eval.csv"):
            assert "nan" not in table.read_text() and "inf" not in table.read_text()
        if (run / "checkpoint.pt").exists():
            state = module.load(run / "checkpoint.pt")
            assert f"--resume {run} goes back to the last checkpoint" in line
            assert all(torch.isfinite(value).all() for value in state["agent"].values())
            assert all(torch.isfinite(rows).all() for rows in state["buffer"]["rows"])
        else:
            assert "there is no checkpoint yet" in line
    return line


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    "env_id, message",
    [
        ("NanReward-v0", "step 31: the environment's observation or reward is not finite"),
        ("EnormousReward-v0", "step 1: the environment's observation or reward is not finite"),
        ("InfObservation-v0", "step 30: the environment's observation or reward is not finite"),
        ("odd:ResetNan-v0", "step 1: the environment's observation is not finite"),
        ("odd:LaterResetNan-v0", "step 41: the environment's observation is not finite"),
        (
            "odd:EvaluationNanReward-v0",
            "evaluation of seed 1 at step 30: the environment's reward is not finite",
        ),
        (
            "odd:EvaluationNanObservation-v0",
            "evaluation of seed 1 at step 30: an observation or action is not",
        ),
    ],
)
def test_non_finite_environment(either, tmp_path, capsys, monkeypatch, env_id, message, seeds):
    evaluation = "Evaluation" in env_id
    if seeds == 2 and not evaluation:
        pytest.skip("in one process, several environments are as one")
    if evaluation:
        monkeypatch.setattr(getattr(odd, env_id[4:-3]), "made", 0)
    settings = dict(num_seeds=seeds, checkpoint_frequency=1000, eval_episodes=8)
    frequency = 30 if evaluation else 1000
    assert message in stopped(either, tmp_path, capsys, env_id=env_id, eval_frequency=frequency, **settings)


def test_non_finite_loss(either, tmp_path, capsys):
    """Rewards whose squares overflow: the loss is looked at first, and the checkpoint from before stays."""
    line = stopped(either, tmp_path, capsys, env_id="HugeReward-v0", eval_frequency=1000, total_timesteps=90)
    assert "step 60: a loss is not finite" in line or "step 42: the policy's action is not finite" in line
    (run,) = (tmp_path / "runs").iterdir()
    assert either.load(run / "checkpoint.pt")["global_step"] == 40
    assert max(int(path.stem[6:]) for path in run.rglob("agent_*")) == 40


def test_non_finite_weights_are_not_kept(either, tmp_path, capsys, monkeypatch):
    """A loss can be finite and the step after it not: the next action shows it, or the evaluation."""
    real = either.update
    for steps, message in ((60, "step 42: the policy's action"), (41, "evaluation of seed 1 at step 41")):

        def poisoned(agent, *rest):
            logs = real(agent, *rest)
            with torch.no_grad():
                agent.policy.mean.bias.fill_(float("nan"))
            return logs

        monkeypatch.setattr(either, "update", poisoned)
        line = stopped(either, tmp_path / str(steps), capsys, total_timesteps=steps)
        assert message in line
        (run,) = (tmp_path / str(steps) / "runs").iterdir()
        assert torch.isfinite(agent_of(run, 40)["policy.mean.bias"]).all()


@pytest.mark.parametrize(("kept", "beside"), [(True, False), (False, False), (True, True)])
def test_interrupted(longest, tmp_path, kept, beside, stepped_beside):
    """Ctrl-C, also as processes start: status 130, and a checkpoint is promised only where there is one."""
    words = words_of(
        longest.__name__,
        tmp_path,
        num_seeds=2,
        total_timesteps=10**6,
        eval_frequency=50,
        checkpoint_frequency=50 if kept else 10**6,
    )
    process = subprocess.Popen(
        command(longest.__name__, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=stepped_beside if beside else HERE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    wanted = "runs/*/checkpoint.pt" if kept else "runs/*/seed_2/events*"
    while not list(tmp_path.glob(wanted)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    if not kept:
        time.sleep(1.0)  # then the processes that evaluate are starting
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    then = "goes back to the last checkpoint" if kept else "there is no checkpoint yet"
    assert errors.splitlines()[-1].startswith(f"{longest.__name__}.py: interrupted; ") and then in errors
    assert errors.count("\n") == 1, errors


# ------------------------------------------------------------------------------------ environments and shell


@pytest.mark.parametrize("seeds", [1, 2])
def test_arrays_of_one_number_are_numbers(either, tmp_path, seeds):
    run = run_of(either, tmp_path, env_id="odd:Arrays-v0", num_seeds=seeds)
    assert float(rows_of(run, seeds)[-1]["return_mean"]) == 10.0


@pytest.mark.parametrize("of", ["evaluations", "environments"])
def test_a_process_beside_the_training_that_dies(longest, tmp_path, of, stepped_beside):
    words = words_of(longest.__name__, tmp_path, env_id="odd:EndsItsProcess-v0", num_seeds=2)
    ended = call(longest.__name__, *words, env=stepped_beside if of == "environments" else HERE)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "a process beside the training has ended, perhaps for want of memory" in ended.stderr


def test_a_destructor_that_fails_is_heard(longest, tmp_path):
    ended = call(
        longest.__name__, *words_of(longest.__name__, tmp_path, env_id="odd:DestructorFails-v0"), env=HERE
    )
    assert ended.returncode == 0 and "the simulator does not let go" in ended.stderr


def test_what_is_said_at_the_start(either, tmp_path, capsys):
    run_of(either, tmp_path, env_id="odd:Image-v0")
    said = capsys.readouterr().out
    assert "observations of shape (4, 5, 3) are flattened: there is no convolution" in said
    assert "odd:Image-v0 is not in the paper's Table I. Hopper's row is used: {'alpha': 0.2" in said
    run = run_of(either, tmp_path / "second", env_id="odd:Odd")
    assert "odd:Odd names no version: Odd-v1, the newest, is used" in capsys.readouterr().out
    assert either.stored_args(str(run)).env_id == "odd:Odd-v1"
    args = either.resolve(make_args(either, env_id="Humanoid"))
    assert args.alpha == 0.05 and "Table I" not in capsys.readouterr().out
    given = {name: value for name, value in vars(args).items() if name in either.TABLE_I[""]}
    either.resolve(make_args(either, env_id="odd:Odd-v0", **given))
    assert "Table I" not in capsys.readouterr().out  # nothing came from there


def test_a_module_in_the_current_folder(longest, tmp_path):
    """--env-id my_module:MyTask-v0 finds my_module.py where the user is, with one seed and with two."""
    (tmp_path / "my_module.py").write_text((ROOT / "tests" / "odd.py").read_text())
    for seeds in (1, 2):
        words = words_of(longest.__name__, tmp_path / str(seeds), env_id="my_module:Odd-v0", num_seeds=seeds)
        ended = call(longest.__name__, *words, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
    (run,) = (tmp_path / "1" / "runs").iterdir()
    assert call(longest.__name__, "--evaluate", run, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(longest, tmp_path, closed):
    words = " ".join(map(str, command(longest.__name__, *words_of(longest.__name__, tmp_path))))
    ended = subprocess.run(["bash", "-c", f"{words} {closed}"], capture_output=True, text=True, env=HERE)
    assert ended.returncode == 0, ended.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert len(rows_of(run)) == 1
    ended = subprocess.run(
        ["bash", "-c", f"{words} --gamma 7 {closed}"], capture_output=True, text=True, env=HERE
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr


def test_a_folder_that_ascii_cannot_name(longest, tmp_path):
    words = words_of(longest.__name__, tmp_path, runs_dir=tmp_path / "größe", gamma=0.9)
    ended = call(longest.__name__, *words, env={**HERE, "PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 0, ended.stderr
    assert "gr\\xf6\\xdfe" in ended.stdout


WANDB = """
def init(**settings):
    raise {error}
"""


@pytest.mark.parametrize("error", ["ValueError('no login:\\n two lines')", "ImportError('half installed')"])
def test_weights_and_biases_that_refuses(longest, tmp_path, error):
    (tmp_path / "wandb.py").write_text(WANDB.format(error=error))
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests")])
    ended = call(
        longest.__name__, *words_of(longest.__name__, tmp_path), "--track", env={**HERE, "PYTHONPATH": path}
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "--track: Weights & Biases cannot be used: " in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_films_that_cannot_be_written(longest, tmp_path, monkeypatch, capsys):
    """A folder that cannot be made, as on a read-only disk, with --evaluate --capture-video: one line."""
    run = run_of(longest, tmp_path)
    (run / "seed_1" / "videos").write_text("a file in its place")
    (tmp_path / "my_films.py").write_text(FILMED)
    config = json.loads((run / "config.json").read_text())
    config["args"]["env_id"] = "my_films:Filmed-v0"
    (run / "config.json").write_text(json.dumps(config))
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests")])
    ended = call(longest.__name__, "--evaluate", run, "--capture-video", env={**HERE, "PYTHONPATH": path})
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "videos" in ended.stderr


FILMED = """
import gymnasium, numpy, odd


class Filmed(odd.RenderNone):
    def render(self):
        return numpy.zeros((16, 16, 3), numpy.uint8)


gymnasium.register("Filmed-v0", entry_point=Filmed)
"""


def test_no_pybullet(longest, tmp_path):
    """Where it is not installed, as on Python 3.12 and later."""
    (tmp_path / "pybullet_envs_gymnasium.py").write_text("import no_such_pybullet")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests")])
    words = words_of(longest.__name__, tmp_path, env_id="HumanoidBulletEnv-v0")
    ended = call(longest.__name__, *words, env={**HERE, "PYTHONPATH": path})
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert (
        "--env-id HumanoidBulletEnv-v0 needs PyBullet, which installs on Python 3.11 and before"
        in ended.stderr
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["--env-id", "Hoper-v4"], "--env-id Hoper-v4"),
        (["--batch-size", "0"], "--batch-size must be between 1 and"),
        (["--batch-size", "99999999999999999999"], "--batch-size must be between 1 and"),
        (["--resume", "a", "--evaluate", "b"], "give one of them"),
        (["--resume", "/nowhere"], "/nowhere is not the folder of a run"),
        (["--evaluate", "/nowhere"], "/nowhere is not the folder of a run"),
        (["--batch-size", "many"], "--batch-size"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
    ids=str,
)
def test_from_the_command_line(longest, tmp_path, words, message):
    ended = call(longest.__name__, *cost_flags(longest.__name__), *words, cwd=tmp_path)
    assert ended.returncode == 2
    assert message in ended.stderr and "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks(longest, tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert len(rows_of(run_of(longest, tmp_path))) == 1
