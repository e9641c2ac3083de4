"""What cannot work is refused in one line, with status 2, before anything is written; 3 if a run goes non-finite."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import envs  # noqa: F401  (registers them)
import pytest
import torch
from conftest import ROOT, cost_flags, make_args

BAD_VALUES = [
    (dict(env_id="Hoper-v4"), "--env-id Hoper-v4"),
    (dict(env_id="Hopper-v99"), "--env-id Hopper-v99"),
    (dict(env_id="no such thing"), "--env-id no such thing"),
    (dict(env_id="no_such_module:Thing-v0"), "--env-id no_such_module"),
    (dict(env_id="CartPole-v1"), "continuous Box"),
    (dict(env_id="DiscreteActions-v0"), "continuous Box"),
    (dict(env_id="UnboundedActions-v0"), "finite bounds"),
    (dict(env_id="DictObservations-v0"), "observations must be a Box"),
    (dict(total_timesteps=0), "--total-timesteps must be 1 or more, not 0"),
    (dict(buffer_size=-1), "--buffer-size must be 1 or more, not -1"),
    (dict(buffer_size=10**15), "--buffer-size 1000000000000000 is too large"),
    (dict(batch_size=0), "--batch-size must be 1 or more"),
    (dict(torch_threads=0), "--torch-threads must be 1 or more"),
    (dict(eval_frequency=0), "--eval-frequency must be 1 or more"),
    (dict(eval_episodes=0), "--eval-episodes must be 1 or more"),
    (dict(checkpoint_frequency=0), "--checkpoint-frequency must be 1 or more"),
    (dict(snapshot_frequency=-5), "--snapshot-frequency must be 0 or more"),
    (dict(learning_starts=-1), "--learning-starts must be 0 or more"),
    (dict(seed=-1), "--seed must be 0 or more"),
    (dict(seed=2**64), "--seed must be 0 or more, below 2^63"),
    (dict(env_id="a:b:c"), "--env-id a:b:c"),
    (dict(gamma=1.5), "--gamma must be between 0 and 1"),
    (dict(gamma=float("nan")), "--gamma must be between 0 and 1"),
    (dict(tau=0.0), "--tau must be above 0 and at most 1"),
    (dict(policy_lr=0.0), "--policy-lr must be positive"),
    (dict(q_lr=float("inf")), "--q-lr must be positive"),
    (dict(alpha=0.0), "--alpha must be positive"),
]
BAD_LEAPFROG = [
    (dict(explore="proposed", train="gaussian"), "--explore proposed needs --train proposed"),
    (dict(explore="proposed", train="conventional"), "--explore proposed needs --train proposed"),
    (dict(momentum_in_target=True, explore="gaussian", train="gaussian"), "--momentum-in-target needs a momentum"),
    (dict(momentum_in_target=True, momentum_std_train=0.0), "--momentum-in-target needs a momentum"),
    (dict(leapfrog_steps=0), "--leapfrog-steps must be 1 or more"),
    (dict(leapfrog_hidden=-3), "--leapfrog-hidden must be 1 or more"),
    (dict(step_size=0.0), "--step-size must be positive"),
    (dict(momentum_std_train=-0.1), "--momentum-std-train must be 0 or more"),
    (dict(momentum_std_train=float("inf")), "--momentum-std-train must be 0 or more"),
    (dict(momentum_std_explore=float("nan")), "--momentum-std-explore must be 0 or more"),
]


def refused(capsys, call, *args) -> tuple[int, str]:
    """Exit status and the one line on stderr."""
    with pytest.raises(SystemExit) as stopped:
        call(*args)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return stopped.value.code, lines[0]


@pytest.mark.parametrize("changes, message", BAD_VALUES, ids=str)
def test_bad_values(script, tmp_path, capsys, changes, message):
    args = make_args(script, **{"total_timesteps": 100, "runs_dir": str(tmp_path / "runs"), **changes})
    status, line = refused(capsys, script.train, args)
    assert status == 2 and message in line and line.startswith(f"{script.ALGORITHM}.py: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes, message", BAD_LEAPFROG, ids=str)
def test_bad_leapfrog(hpo, tmp_path, capsys, changes, message):
    status, line = refused(
        capsys, hpo.train, make_args(hpo, **{"total_timesteps": 100, "runs_dir": str(tmp_path / "runs"), **changes})
    )
    assert status == 2 and message in line
    assert list(tmp_path.iterdir()) == []


def run_of(script, tmp_path, **changes):
    settings = dict(env_id="OneStep-v0", total_timesteps=60, learning_starts=40, batch_size=4, checkpoint_frequency=20)
    return script.train(
        make_args(script, runs_dir=str(tmp_path / "runs"), **{**settings, "eval_episodes": 1, **changes})
    )


def test_unwritable_runs_folder(script, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, line = refused(capsys, script.train, make_args(script, runs_dir=str(tmp_path / "file")))
    assert status == 2 and f"--runs-dir {tmp_path / 'file'}" in line


def test_resume_of_a_folder_that_is_no_run(script, tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "missing"):
        status, line = refused(capsys, script.stored_args, str(folder))
        assert status == 2 and f"{folder} is not the folder of a run" in line
    (tmp_path / "config.json").write_text('{"algorithm": "' + script.ALGORITHM + '", "args": {"colour": "red"}}')
    status, line = refused(capsys, script.stored_args, str(tmp_path))
    assert status == 2 and "config.json cannot be used" in line


def test_resume_of_another_algorithms_run(script, tmp_path, capsys):
    run = run_of(script, tmp_path)
    config = json.loads((run / "config.json").read_text()) | {"algorithm": "sac_other"}
    (run / "config.json").write_text(json.dumps(config))
    status, line = refused(capsys, script.stored_args, str(run))
    assert status == 2 and "sac_other.py" in line


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_resume_of_a_truncated_checkpoint(script, tmp_path, capsys, part):
    run = run_of(script, tmp_path)
    data = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(data[: int(part * len(data))])
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    args = replace(script.stored_args(str(run)), resume=str(run), total_timesteps=100)
    capsys.readouterr()
    status, line = refused(capsys, script.train, args)
    assert status == 2 and "checkpoint.pt is damaged" in line
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_checkpoint_cannot_execute_anything(script, tmp_path, capsys):
    class Malice:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"agent": Malice()}, tmp_path / "checkpoint.pt")
    status, line = refused(capsys, script.load, tmp_path / "checkpoint.pt", {})
    assert status == 2 and "damaged or does not fit" in line
    assert not (tmp_path / "owned").exists()


def test_resume_may_only_make_a_run_longer(script, tmp_path, capsys):
    run = run_of(script, tmp_path)
    stored = replace(script.stored_args(str(run)), resume=str(run))
    config = (run / "config.json").read_text()
    capsys.readouterr()
    status, line = refused(capsys, script.train, replace(stored, gamma=0.5))
    assert status == 2 and "--gamma is 0.99 in this run" in line
    status, line = refused(capsys, script.train, replace(stored, total_timesteps=50))
    assert status == 2 and "--total-timesteps is 60 in this run" in line
    assert (run / "config.json").read_text() == config


def test_evaluate_without_an_agent(script, tmp_path, capsys):
    run = run_of(script, tmp_path)
    for file in [*run.glob("agent_*.pt"), *run.glob("checkpoint.pt")]:
        file.unlink()
    capsys.readouterr()
    status, line = refused(capsys, script.play, replace(script.stored_args(str(run)), evaluate=str(run)))
    assert status == 2 and "neither agent_<step>.pt nor checkpoint.pt there yet" in line


@pytest.mark.parametrize("env_id", ["NanReward-v0", "InfObservation-v0"])
def test_non_finite_environment(script, tmp_path, capsys, env_id):
    with pytest.raises(SystemExit) as stopped:
        run_of(script, tmp_path, env_id=env_id, eval_frequency=1000, total_timesteps=500)
    assert stopped.value.code == 3
    line = capsys.readouterr().err.splitlines()[-1]
    step = 31 if env_id == "NanReward-v0" else 30
    assert f"step {step}: the environment's reward" in line and "observation is not finite" in line
    assert "there is no checkpoint yet" in line


def test_non_finite_loss_names_the_checkpoint(script, tmp_path, capsys):
    """Rewards whose squares overflow: stops at the first update, and the checkpoint from before it is intact."""
    with pytest.raises(SystemExit) as stopped:
        run_of(script, tmp_path, env_id="HugeReward-v0")
    assert stopped.value.code == 3
    line = capsys.readouterr().err.splitlines()[-1]
    (run,) = (tmp_path / "runs").iterdir()
    assert "step 41: the critics' or the policy's loss is not finite" in line
    assert f"resume from {run / 'checkpoint.pt'} with --resume {run}" in line
    state = script.load(run / "checkpoint.pt", {})
    assert state["global_step"] == 40
    assert all(torch.isfinite(value).all() for value in state["agent"].values())


def test_non_finite_cost_loss(safe, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_of(safe, tmp_path, env_id="HugeCost-v0", cost="info", cost_limit=1.0)
    assert stopped.value.code == 3
    assert "step 41: the critics' or the policy's loss is not finite" in capsys.readouterr().err


def test_non_finite_weights_are_not_kept(script, tmp_path, capsys, monkeypatch):
    """A loss can be finite and the step after it not: the next action shows it, and no checkpoint is written."""
    real = script.update

    def poisoned(agent, batch, args):
        logs = real(agent, batch, args)
        with torch.no_grad():
            agent.policy.mean.bias.fill_(float("nan"))
        return logs

    monkeypatch.setattr(script, "update", poisoned)
    with pytest.raises(SystemExit) as stopped:
        run_of(script, tmp_path, env_id="OneStep-v0")
    assert stopped.value.code == 3
    (run,) = (tmp_path / "runs").iterdir()
    assert "step 42: the policy's action is not finite" in capsys.readouterr().err
    assert all(torch.isfinite(value).all() for value in script.load(run / "checkpoint.pt", {})["agent"].values())
    assert not list(run.glob("agent_*"))


def test_track_without_wandb(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, line = refused(capsys, script.train, make_args(script, track=True, runs_dir=str(tmp_path / "runs")))
    assert status == 2 and "pip install wandb" in line
    assert list(tmp_path.iterdir()) == []


def test_capture_video_of_what_cannot_be_drawn(script, tmp_path, capsys):
    for env_id in ("OneStep-v0", "Blind-v0"):
        args = make_args(script, env_id=env_id, capture_video=True, runs_dir=str(tmp_path / "runs"))
        status, line = refused(capsys, script.train, args)
        assert status == 2 and "--capture-video" in line and env_id in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words, message",
    [
        (["--env-id", "Hoper-v4"], "--env-id Hoper-v4"),
        (["--batch-size", "0"], "--batch-size must be 1 or more"),
        (["--resume", "a", "--evaluate", "b"], "give one of them"),
        (["--resume", "/nowhere"], "/nowhere is not the folder of a run"),
        (["--evaluate", "/nowhere"], "/nowhere is not the folder of a run"),
        (["--batch-size", "many"], "--batch-size"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
    ids=str,
)
def test_from_the_command_line(either, tmp_path, words, message):
    result = subprocess.run(
        [sys.executable, str(ROOT / f"{either.ALGORITHM}.py"), *cost_flags(either.__name__), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_resume_from_the_command_line_takes_no_other_argument(either, tmp_path):
    run = run_of(either, tmp_path, env_id="Pendulum-v1", gamma=0.9)
    base = [sys.executable, str(ROOT / f"{either.ALGORITHM}.py"), "--resume", str(run)]
    result = subprocess.run([*base, "--gamma", "0.99"], capture_output=True, text=True)  # the default, not the run's
    assert result.returncode == 2 and "--gamma is 0.9 in this run" in result.stderr
    result = subprocess.run([*base, "--total-timesteps", "80"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (run / "agent_80.pt").exists()
