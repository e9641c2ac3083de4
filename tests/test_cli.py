"""The command line as a user meets it."""

import fcntl
import importlib
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap

import envs  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from conftest import (
    ROOT,
    SAFE,
    SCRIPTS,
    agent_of,
    call,
    command,
    cost_flags,
    deterministic_action,
    make_args,
    rows_of,
)

TINY = [
    "--total-timesteps",
    "260",
    "--learning-starts",
    "100",
    "--eval-frequency",
    "130",
    "--eval-episodes",
    "2",
]
TABLE_II = {
    "SAC-HPO": [],
    "Baseline-1": ["--explore", "conventional", "--train", "conventional"],
    "Baseline-2": ["--explore", "conventional", "--train", "gaussian"],
    "Baseline-3": ["--explore", "gaussian", "--train", "proposed"],
    "base policy": ["--explore", "gaussian", "--train", "gaussian"],
    "no randomness": ["--momentum-std-train", "0", "--momentum-std-explore", "0"],
    "drift": ["--explore", "drift", "--train", "drift"],
    "no state": ["--no-leapfrog-state", "--autotune"],
    "the paper's letter": ["--coordinates", "action", "--bfloat16-force", "True"],
}


@pytest.mark.parametrize("flags", TABLE_II.values(), ids=TABLE_II)
def test_rows_of_table_ii_by_their_flags(flags, tmp_path):
    ended = call("sac_hpo_continuous", *TINY, "--runs-dir", tmp_path, *flags)
    assert ended.returncode == 0, ended.stderr
    (run,) = tmp_path.iterdir()
    assert len(rows_of(run)) == 2
    stored = json.loads((run / "config.json").read_text())
    assert "--env-id" not in stored["command"] and stored["args"]["env_id"] == "Hopper-v4"
    assert stored["versions"]["torch"] and stored["processor"] and stored["args"]["leapfrog_steps"] == 2


@pytest.mark.parametrize("seeds", [1, 2])
def test_quiet_line_by_line_without_a_terminal(script, tmp_path, seeds):
    if seeds == 2 and script.__name__ not in ("sac_baseline", "sac_hpo_safe"):
        pytest.skip("several seeds are reported in the same way by all scripts")
    name = script.ALGORITHM
    ended = call(name, *TINY, *cost_flags(name), "--runs-dir", tmp_path, "--seed", 5, "--num-seeds", seeds)
    assert ended.returncode == 0 and ended.stderr == ""
    lines = ended.stdout.splitlines()
    (run,) = tmp_path.iterdir()
    assert lines[0].startswith(f"{run}: steps 0 to 260 on ")
    assert lines[1].startswith("Args(env_id='Hopper-v4', seed=5") and "alpha=0.2" in lines[1]
    expected = [f"seed {seed}, step {step}" for step in (130, 260) for seed in range(5, 5 + seeds)]
    assert [line.split(":")[0] for line in lines[2:]] == expected
    assert run.name.startswith(f"Hopper-v4__{name}__5__")
    assert sorted(path.name for path in run.iterdir() if path.name != "lock") == sorted(
        ["checkpoint.pt", "config.json", *(f"seed_{seed}" for seed in range(5, 5 + seeds))]
    )
    header = (run / "seed_5" / "eval.csv").read_text().splitlines()[0]
    first = "global_step,return_mean,return_std,return_0,return_1,length_mean,q_bias,"
    last = "seconds,steps_per_second"
    assert header.startswith(first) and header.endswith(last)
    columns = header.removeprefix(first).removesuffix(last).split(",")[:-1]
    leapfrog = (
        ["leapfrog_steps_mean", "accepted_at_first", "never_accepted"] if name == "sac_hpo_safe" else []
    )
    cost = ["cost_mean", "discounted_cost_mean", "j_c_mean", "share_over_limit", "lambda"]
    cost += ["training_cost", "training_episodes", "training_episodes_over_limit"]
    assert columns == (leapfrog + cost if name in SAFE else [])


def test_progress_bar_on_a_terminal(tmp_path):
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # rows, columns
    words = command("sac_baseline", *TINY, "--runs-dir", tmp_path)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(main, 4096):
            shown += data
    except OSError:  # the other end closed
        pass
    os.close(main)
    assert process.wait() == 0
    assert b"260/260" in shown and b"step/s" in shown and b"return " in shown


def can_draw() -> str | None:
    """A value of MUJOCO_GL that works here without a screen, if any."""
    code = "import gymnasium as g; e = g.make('Hopper-v4', render_mode='rgb_array'); e.reset(); e.render()"
    for gl in ("egl", "osmesa"):
        environment = {**os.environ, "MUJOCO_GL": gl}
        if subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment).returncode == 0:
            return gl
    return None


@pytest.mark.parametrize("name, seeds", [("sac_baseline", 2), ("sac_hpo_safe", 1)])
def test_videos(name, tmp_path, seeds):
    gl = can_draw()
    if gl is None:
        pytest.skip("neither EGL nor OSMesa draws here: apt install libegl1 or libosmesa6")
    from imageio_ffmpeg import count_frames_and_secs

    environment = {**os.environ, "MUJOCO_GL": gl}
    words = ["--env-id", "InvertedPendulum-v5", *cost_flags(name), "--num-seeds", seeds]
    ended = call(name, *TINY, *words, "--runs-dir", tmp_path, "--capture-video", env=environment)
    assert ended.returncode == 0, ended.stderr
    (run,) = tmp_path.iterdir()
    folders = [run / f"seed_{seed}" / "videos" for seed in range(1, seeds + 1)]
    assert [len(list(folder.iterdir())) for folder in folders] == [2] * seeds  # one of each evaluation
    ended = call(name, "--evaluate", run, "--capture-video", env=environment)
    assert ended.returncode == 0, ended.stderr
    for folder in folders:
        films = sorted(folder.iterdir())
        assert len(films) == 3  # the second episode of the last evaluation is new
        for film in films:
            frames, seconds = count_frames_and_secs(str(film))
            assert frames >= 3 and seconds > 0.01


def test_help_names_every_default_once(script):
    text = call(script.ALGORITHM, "--help", env={**os.environ, "COLUMNS": "200"}).stdout
    for words in ("--env-id", "(default: Hopper-v4)", "--total-timesteps", "(default: 1000000)"):
        assert words in text
    flags = re.split(r"\n\W*(?=--)", text)[1:]  # each with its help
    assert len(flags) > 20
    for flag in flags:
        assert flag.count("default") == 1, flag
    assert any(flag.startswith("--alpha") and "(default: Table I, by task)" in flag for flag in flags)


def test_nothing_happens_at_import(script, tmp_path):
    code = f"import sys, {script.ALGORITHM}; print('pybullet' in sys.modules)"
    options = dict(capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    ended = subprocess.run([sys.executable, "-c", code], **options)
    assert ended.stdout == "False\n" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env_id", ["Hopper-v4", "Grid-v0"])
def test_an_agent_in_a_users_own_program(script, tmp_path, env_id):
    """The lines in load_agent's docstring, run: the agent's actions, in the environment's bounds."""
    free = (
        {"cost": "torque", "cost_limit": 1e6} if script.__name__ in SAFE else {}
    )  # Algorithm 3 accepts at once
    settings = dict(**free, total_timesteps=120, learning_starts=100, batch_size=8, eval_episodes=1)
    run = script.train(make_args(script, env_id=env_id, runs_dir=str(tmp_path), num_seeds=1, **settings))
    example = textwrap.dedent(re.search(r"\n\n(.*)", script.load_agent.__doc__, re.DOTALL).group(1))
    assert len(example.strip().splitlines()) <= 10
    example = example.replace("runs/<run>/seed_1/agent_1000000.pt", str(run / "seed_1" / "agent_120.pt"))
    task = script.make_env(make_args(script, env_id=env_id))
    obs, _ = task.env.reset(seed=3)
    names = {"load_agent": script.load_agent, "env": task.env, "obs": obs, "first_obs": obs}
    exec(example, names)
    action = names["policy"](*[obs, obs][: 1 + (script.__name__ == "sac_hpo_safe")])
    assert task.env.action_space.contains(action) and np.isfinite(names["reward"])
    with pytest.raises(ValueError, match="reshape"):
        names["policy"](*[np.append(obs, 0.0)] * (1 + (script.__name__ == "sac_hpo_safe")))
    for other in (name for name in SCRIPTS if name != script.__name__ and env_id == "Hopper-v4"):
        with pytest.raises(ValueError, match=rf"agent_120.pt, an agent of {script.__name__}\.py, does not"):
            importlib.import_module(other).load_agent(run / "seed_1" / "agent_120.pt")
    agent = script.Agent(1, np.size(obs), action.size, script.stored_args(str(run)))
    agent.load_state_dict(agent_of(run, 120))
    expected = deterministic_action(agent, torch.tensor(obs, dtype=torch.float32).reshape(1, 1, -1)).numpy()
    np.testing.assert_allclose(action, script.rescale(expected, task.low, task.high), rtol=1e-5, atol=1e-6)
