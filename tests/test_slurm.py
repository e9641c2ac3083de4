"""benchmark.sh --slurm on a real Slurm: one array for all runs, and a run that Slurm kills goes on."""

import os
import shutil
import subprocess
import tempfile
import time

import pytest
from conftest import ROOT
from test_benchmark import STAND_IN

here = all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")) and os.geteuid() == 0
pytestmark = pytest.mark.skipif(not here, reason="needs root, slurm-wlm and munge")


@pytest.fixture
def cluster(monkeypatch):
    folder = tempfile.mkdtemp()  # and not in pytest's own folder, which munge, another user, could not enter
    monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
    try:
        subprocess.run([str(ROOT / "tests" / "slurm.sh"), "start", folder], check=True)
        yield
    finally:
        subprocess.run([str(ROOT / "tests" / "slurm.sh"), "stop", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition, seconds=60):
    for _ in range(5 * seconds):
        if condition():
            return
        time.sleep(0.2)
    raise TimeoutError


def slurm(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_array_with_a_killed_job(cluster, tmp_path, monkeypatch):
    stand_in, runs, calls = tmp_path / "python", tmp_path / "runs", tmp_path / "calls"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(stand_in))
    monkeypatch.setenv("CALLS", str(calls))
    words = ["momentum", "--seeds", "2", "--batch", "2", "--envs", "Slow-v0 A-v0", "--runs", str(runs)]
    words += ["--total-timesteps", "100", "--slurm", "--time=5", "--comment=extra words"]
    job = slurm(str(ROOT / "benchmark.sh"), *words).split()[-1]

    for task, algorithm in ("0", "sac_hpo_continuous"), ("2", "no-momentum"):
        wait_for((runs / "Slow-v0" / algorithm / "seeds_1-2" / "a__run" / "running").exists)
        queue = "squeue", "--noheader", "--states=RUNNING", "--format=%K", f"--jobs={job}_{task}"
        assert slurm(*queue).strip() == task
        # As a scheduler does that needs the node for something else.
        slurm("scontrol", "requeue", f"{job}_{task}")
    agents = "*/*/seeds_1-2/a__run/seed_[12]/agent_100.pt"
    wait_for(lambda: len(list(runs.glob(agents))) == 8, seconds=300)  # two minutes' pause
    resumed = [call for call in calls.read_text().splitlines() if "--resume" in call]
    assert len(resumed) == 2 and all("Slow-v0" in call for call in resumed)
    assert len(calls.read_text().splitlines()) == 4 + 2
