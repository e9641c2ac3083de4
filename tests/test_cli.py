"""The command line as a user meets it."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from conftest import ROOT, SAFE, cost_flags

TINY = ["--total-timesteps", "260", "--learning-starts", "100", "--eval-frequency", "130", "--eval-episodes", "2"]


def call(name, *words, **kwargs):
    return subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), *map(str, words)], capture_output=True, text=True, **kwargs
    )


TABLE_II = {
    "SAC-HPO": [],
    "Baseline-1": ["--explore", "conventional", "--train", "conventional"],
    "Baseline-2": ["--explore", "conventional", "--train", "gaussian"],
    "Baseline-3": ["--explore", "gaussian", "--train", "proposed"],
    "SAC": ["--explore", "gaussian", "--train", "gaussian"],
    "no randomness": ["--momentum-std-train", "0", "--momentum-std-explore", "0"],
    "drift": ["--explore", "drift", "--train", "drift"],
    "no state": ["--no-leapfrog-state", "--autotune"],
}


@pytest.mark.parametrize("flags", TABLE_II.values(), ids=TABLE_II)
def test_rows_of_table_ii_by_their_flags(flags, tmp_path):
    result = call("sac_hpo_continuous", *TINY, "--runs-dir", tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    (run,) = tmp_path.iterdir()
    assert len((run / "eval.csv").read_text().splitlines()) == 3
    stored = json.loads((run / "config.json").read_text())
    assert "--env-id" not in stored["command"] and stored["args"]["env_id"] == "Hopper-v4"
    assert stored["versions"]["torch"] and stored["processor"] and stored["args"]["leapfrog_steps"] == 2


def test_quiet_line_by_line_without_a_terminal(script, tmp_path):
    result = call(script.ALGORITHM, *TINY, *cost_flags(script.ALGORITHM), "--runs-dir", tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    (run,) = tmp_path.iterdir()
    assert lines[0].startswith(f"{run}: steps 0 to 260 on ")
    assert lines[1].startswith("Args(env_id='Hopper-v4', seed=1") and "alpha=0.2" in lines[1]
    assert [line.split(":")[0] for line in lines[2:]] == ["step 130", "step 260"]
    header = (run / "eval.csv").read_text().splitlines()[0]
    first, last = "global_step,return_mean,return_std,return_0,return_1,length_mean,q_bias,", "seconds,steps_per_second"
    assert header.startswith(first) and header.endswith(last)
    columns = header.removeprefix(first).removesuffix(last).split(",")[:-1]
    leapfrog = (
        ["leapfrog_steps_mean", "accepted_at_first", "never_accepted"] if script.ALGORITHM == "sac_hpo_safe" else []
    )
    cost = ["cost_mean", "discounted_cost_mean", "j_c_mean", "share_over_limit", "lambda"]
    cost += ["training_cost", "training_episodes", "training_episodes_over_limit"]
    assert columns == (leapfrog + cost if script.ALGORITHM in SAFE else [])


def test_progress_bar_on_a_terminal(tmp_path):
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # rows, columns
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sac_baseline.py"), *TINY, "--runs-dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
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
    code = "import gymnasium as g; e = g.make('Hopper-v4', render_mode='rgb_array'); e.reset(); print(e.render().shape)"
    for gl in ("egl", "osmesa"):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "MUJOCO_GL": gl}
        )
        if result.returncode == 0:
            return gl
    return None


def test_videos(either, tmp_path):
    gl = can_draw()
    if gl is None:
        pytest.skip("neither EGL nor OSMesa draws here: apt install libegl1 or libosmesa6")
    from imageio_ffmpeg import count_frames_and_secs

    environment = {**os.environ, "MUJOCO_GL": gl}
    task = ["--env-id", "InvertedPendulum-v5", *cost_flags(either.ALGORITHM)]  # its episodes are short at first
    result = call(either.ALGORITHM, *TINY, *task, "--runs-dir", tmp_path, "--capture-video", env=environment)
    assert result.returncode == 0, result.stderr
    (run,) = tmp_path.iterdir()
    assert len(list((run / "videos").iterdir())) == 2  # one of each evaluation
    result = call(either.ALGORITHM, "--evaluate", run, "--capture-video", env=environment)
    assert result.returncode == 0, result.stderr
    films = sorted((run / "videos").iterdir())
    assert len(films) == 3  # the second episode of the last evaluation is new
    for film in films:
        frames, seconds = count_frames_and_secs(str(film))
        assert frames >= 3 and seconds > 0.01


def test_help_names_every_default(script):
    text = call(script.ALGORITHM, "--help", env={**os.environ, "COLUMNS": "200"}).stdout
    for words in ("--env-id", "(default: Hopper-v4)", "--total-timesteps", "(default: 1000000)", "Table I"):
        assert words in text


def test_nothing_happens_at_import(script, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {script.ALGORITHM}; print('pybullet' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "False\n" and list(tmp_path.iterdir()) == []
