"""speed.py: what counts of a run, what is set against what, and what is left of a call that is broken off."""

import shutil
import subprocess
import sys
from argparse import Namespace

import pandas as pd
import pytest
from conftest import ROOT

import speed


def test_the_first_row_does_not_count(monkeypatch):
    """20 and 30 steps/s over equally many steps are 24; the first row has steps of random actions."""

    def run(command, **options):
        words = "--num-seeds 5 --learning-starts 100 --total-timesteps 600 --eval-frequency 200 "
        assert words in " ".join(command)
        folder = speed.Path(command[-1], "seed_1")
        folder.mkdir(parents=True)
        (folder / "eval.csv").write_text("global_step,steps_per_second\n200,900\n400,20\n600,30\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(speed.subprocess, "run", run)
    options = Namespace(env_id="Pendulum-v1", cuda=False, steps=1000)
    assert speed.speed_of_script("sac_nf", 5, options) == pytest.approx(24)


def test_rounds(monkeypatch, tmp_path):
    """Systems take turns; medians over rounds, of ratios within a round; finished rounds stay on disk."""
    speeds, cases = iter([10.0, 4.0, 20.0, 6.0, 40.0, 5.0]), []
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(speed, "ROOT", tmp_path)
    monkeypatch.setattr(speed, "measure", lambda *case: cases.append(case[:2]) or next(speeds))
    monkeypatch.setattr(speed, "find_spec", lambda name: name == "stable_baselines3")
    monkeypatch.setattr(sys, "argv", ["speed.py", *"--scripts sac_nf --seeds 5 --rounds 4".split()])
    with pytest.raises(StopIteration):
        speed.main()
    assert cases == [("SB3 SAC", 1), ("sac_nf", 5)] * 3 + [("SB3 SAC", 1)]
    (_, sb3), (_, nf) = pd.read_csv(tmp_path / "results" / "speed.csv").iterrows()
    assert (sb3["agent_steps_per_second"], sb3["times_sb3"], sb3["rounds"]) == (20.0, 1.0, 3)
    assert (nf["steps_per_second"], nf["agent_steps_per_second"], nf["times_sb3"]) == (5.0, 25.0, 1.5)


def test_a_real_run_and_one_that_fails(tmp_path):
    (tmp_path / "results").mkdir()
    for name in "speed.py", "sac_baseline.py":
        shutil.copy(ROOT / name, tmp_path)
    for task, status in ("Nowhere-v0", 1), ("Pendulum-v1", 0):
        words = f"speed.py --scripts sac_baseline --seeds 1 --rounds 1 --steps 20 --env-id {task}"
        call = [sys.executable, *words.split()]
        ended = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == status and ("sac_baseline failed: " in ended.stderr) == bool(status)
    speeds = pd.read_csv(tmp_path / "results" / "speed.csv")["steps_per_second"]
    assert f"\n| Pendulum-v1 | sac_baseline | 1 | {[*speeds][-1]} | " in ended.stdout
