"""benchmark.sh: its lists of commands, and what becomes of them. A small script stands in for the others."""

import csv
import importlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import tyro
from conftest import ROOT, SCRIPTS

# It starts, resumes or skips by --run-dir, as the scripts do; a line of `steps` is a step that was trained.
STAND_IN = """
import os, sys, time
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
run, first, task = Path(words["--run-dir"]), int(words["--seed"]), words["--env-id"]
run.mkdir(parents=True, exist_ok=True)
(run / "config.json").write_text(" ".join(sys.argv))
print("started with", os.environ["OMP_NUM_THREADS"], "thread")
task != "Kill-v0" or os.kill(os.getpid(), 9)
task != "Fail-v0" or sys.exit("stand-in: ValueError: no such task")
steps, wanted = run / "steps", int(words["--total-timesteps"])
start = len(steps.read_text().splitlines()) if steps.exists() else 0
for step in range(start, wanted):
    with steps.open("a") as file:
        file.write(f"{step}\\n")
    time.sleep(0.02 if task == "Slow-v0" else 0)
for seed in range(first, first + int(words["--num-seeds"])):
    (run / f"seed_{seed}").mkdir(exist_ok=True)
    (run / f"seed_{seed}" / "eval.csv").write_text(f"{seed} at {wanted}")
"""
TABLE = list(csv.DictReader((ROOT / "experiments.csv").read_text().splitlines()))
SLURM = all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")) and os.geteuid() == 0


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Calls a copy of benchmark.sh that has stand-ins beside it; `bench.runs` is where it keeps runs."""
    monkeypatch.setenv("PYTHON", sys.executable)
    for name in "benchmark.sh", "experiments.csv":
        shutil.copy(ROOT / name, tmp_path)
    for name in SCRIPTS:
        (tmp_path / f"{name}.py").write_text(STAND_IN)

    def call(line):
        words = [str(tmp_path / "benchmark.sh"), *shlex.split(line)]
        return subprocess.run(words, capture_output=True, text=True, timeout=100)

    call.folder, call.runs = tmp_path, tmp_path / "runs" / "benchmark"
    return call


def commands(bench, line):
    """Of a dry run: (script, flags, folder of the run) for each."""
    ended = bench(f"{line} --dry-run")
    assert ended.returncode == 0 and not ended.stderr and not (bench.folder / "runs").exists()
    split = [shlex.split(command) for command in ended.stdout.splitlines()]
    assert all(words[0] == sys.executable and words[-2] == "--run-dir" for words in split)
    return [(words[1].removesuffix(".py"), words[2:], words[-1]) for words in split]


def trained(bench):
    """Folder of a run -> the steps that were trained in it, in order."""
    steps = sorted(bench.runs.rglob("steps"))
    return {str(f.parent.relative_to(bench.runs)): [int(n) for n in f.read_text().split()] for f in steps}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)


def test_the_table_of_experiments(bench):
    """Fields without commas or quotes, as benchmark.sh splits it; default_of says what Table I says."""
    header, *rows = (ROOT / "experiments.csv").read_text().splitlines()
    assert header == "label,script,flags,figures,name,default_of"
    assert all(row.count(",") == 5 and '"' not in row for row in rows)
    assert all(len({row[column] for row in TABLE}) == len(TABLE) for column in ("label", "name"))
    assert {row["label"] for row in TABLE if not row["flags"]} == {row["script"] for row in TABLE}
    tasks = {flags[1] for _, flags, _ in commands(bench, "continuous")}
    module = importlib.import_module("sac_hpo_continuous")
    for row in [row for row in TABLE if row["figures"].startswith("sensitivity-")]:
        option, value = row["flags"].removeprefix("--").replace("-", "_").split()
        settings = {task: getattr(module.resolve(module.Args(env_id=task)), option) for task in tasks}
        same = {task[:-3] for task in tasks if settings[task] == float(value)}
        assert set(row["default_of"].split()) == same, row["label"]


@pytest.mark.parametrize(
    "experiment, runs",
    [("continuous", 24), ("safe", 4), ("ablation", 12), ("momentum", 6), ("published", 2), ("quick", 5)]
    + [("sensitivity", 3 + 6 + 6 + 9), ("sensitivity-steps", 3 + 6)],  # three tasks: default, K, spreads
)
def test_the_scripts_understand_the_commands(bench, experiment, runs):
    """Parsed by the scripts themselves; nothing is trained."""
    made = commands(bench, f"{experiment} --seeds 1")
    assert len({folder for *_, folder in made}) == len(made) == runs
    flags_of = {row["label"]: row["flags"].split() for row in TABLE}
    for script, flags, folder in made:
        where, task, label, seed = folder.rsplit("/", 3)
        assert where == "runs/benchmark" or (experiment, where[:11]) == ("quick", "runs/quick-")
        assert seed == "seed_1" and flags_of[label] == flags[6 : 6 + len(flags_of[label])]
        module = importlib.import_module(script)
        args = module.resolve(tyro.cli(module.Args, args=flags))
        assert args.env_id == task and args.run_dir.endswith(folder)


def test_options(bench):
    """Seeds in batches, all tasks of one before the next; labels; tasks with odd names."""
    line = "momentum --seeds 3-7 --batch 2 --labels no-momentum --total-timesteps 9 --envs 'A-v0 my:ns/B-v0'"
    folders = {"seeds_3-4": "3 --num-seeds 2", "seeds_5-6": "5 --num-seeds 2", "seed_7": "7 --num-seeds 1"}
    made, starts = commands(bench, line), [f"my:ns/B-v0 --seed {words}" for words in folders.values()]
    assert [" ".join(flags[1:6]) for _, flags, _ in made[1::2]] == starts
    names = [f"{task}/no-momentum/{folder}" for folder in folders for task in ("A-v0", "my-ns-B-v0")]
    assert [folder.removeprefix("runs/benchmark/") for *_, folder in made] == names
    assert bench(line).returncode == 0 and trained(bench) == {name: [*range(9)] for name in names}


def test_a_run_that_fails_stops_no_other_and_is_named(bench):
    ended = bench("momentum --seeds 1 --total-timesteps 9 --workers 1 --envs 'Fail-v0 Kill-v0 A-v0'")
    assert [*trained(bench)] == [f"A-v0/{label}/seed_1" for label in ("no-momentum", "sac_hpo_continuous")]
    head, *named = ended.stderr.splitlines()[-5:]
    assert ended.returncode == 1 and head == "benchmark.sh: 4 of 6 runs failed"
    assert "failed: runs/benchmark/Fail-v0/no-momentum/seed_1: exit status 1: stand-in: Val" in named[2]
    assert "Kill-v0/no-momentum/seed_1: exit status 137: " in named[3]
    log = (bench.runs / "A-v0" / "no-momentum" / "seed_1.log").read_text()
    assert log.startswith(f"$ {sys.executable} sac_hpo_continuous.py ") and "started with 1 thread" in log


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_interrupted_and_called_again(bench, sent):
    """Ctrl-C, kill, a closed terminal, kill -9: all runs end at once; the same call finishes each once."""
    line = "momentum --seeds 2 --total-timesteps 100 --workers 3 --envs Slow-v0"
    call = ["env", "--default-signal=INT,HUP", bench.folder / "benchmark.sh", *line.split()]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as started:
        wait_for(lambda: len(trained(bench)) == 3)
        started.send_signal(sent)
        said = started.communicate(timeout=20)[1]
    said_so = (130, "benchmark.sh: interrupted; the same command goes on\n")
    assert (started.returncode, said) == ((-9, "") if sent == signal.SIGKILL else said_so)
    time.sleep(0.2)
    before = trained(bench)
    time.sleep(0.3)
    assert trained(bench) == before and len(before) == 3 and all(len(n) < 100 for n in before.values())
    for steps in 100, 100, 110:  # the second time, all are finished before
        ended = bench(line.replace("100", str(steps)))
        assert ended.returncode == 0 and ended.stdout.count("finished: ") == 4 and not ended.stderr
        assert list(trained(bench).values()) == [[*range(steps)]] * 4


def test_collect(bench):
    line = "momentum --labels no-momentum --envs A-v0 --total-timesteps 9 --seeds"
    assert "no evaluated runs" in bench("collect").stderr
    bench(f"{line} 3 --batch 2")
    ended, place = bench("collect"), "results/A-v0/no-momentum/seed_"
    assert ended.returncode == 0 and not ended.stderr
    assert ended.stdout.split() == [f"{place}{seed}" for seed in (3, 1, 2)]
    for seed, run in (1, "seeds_1-2"), (2, "seeds_1-2"), (3, "seed_3"):
        files = {path.name: path.read_text() for path in (bench.folder / f"{place}{seed}").iterdir()}
        assert sorted(files) == ["config.json", "eval.csv"] and f"no-momentum/{run}" in files["config.json"]
        assert files["eval.csv"] == f"{seed} at 9"
    bench(f"{line} 1")
    longer = bench.folder / f"{place}3" / "eval.csv"
    longer.write_text("more\n")
    both = f"{place}1: both seed_1 and seeds_1-2 have it; the longer counts\n"
    assert bench("collect").stderr == f"{place}3: has more\n{both}" and longer.read_text() == "more\n"


BAD = {
    "continous": "no experiment 'continous'",
    "sensitivity-": "no experiment 'sensitivity-'",
    "safe --seeds 0": "cannot be '0'",
    "safe --seeds 3-2": "no runs: --seeds 3-2",
    "safe --batch 1e3": "cannot be '1e3'",
    "safe --envs --dry-run": "--envs needs a value",
    "safe --labels sac_nf": "no label 'sac_nf' in safe, which has: sac_lagrangian sac_hpo_safe",
    "sensitivity --labels leapfrog-steps-2 --envs Hopper-v4": "no runs: ",
    "safe --sedes 3": "unknown option '--sedes'",
    "collect --envs A-v0": "collect takes no options",
    "safe": "no Python at 'nowhere'",
}


@pytest.mark.parametrize("line, message", BAD.items())
def test_one_line_for_bad_input(bench, line, message, monkeypatch):
    monkeypatch.setenv("PYTHON", "nowhere" if "nowhere" in message else sys.executable)
    ended = bench(line)
    assert ended.returncode == 2 and not (bench.folder / "runs").exists() and message in ended.stderr
    assert ended.stderr.startswith("benchmark.sh: ") and ended.stderr.count("\n") == 1


def test_help_and_a_real_run(bench, monkeypatch):
    """It is trained by the Python of .venv, found finished, goes on; another argument is refused."""
    assert "./benchmark.sh sensitivity" in bench("").stdout == bench("--help").stdout
    monkeypatch.delenv("PYTHON")
    assert bench("safe --dry-run").stdout.count("python3 sac_lagrangian.py ") == 2 * 5
    (bench.folder / ".venv").symlink_to(sys.prefix)
    shutil.copy(ROOT / "sac_baseline.py", bench.folder)
    for steps, found in (20, ["20"]), (20, ["20"]), (40, ["20", "40"]):
        line = f"continuous --labels sac_baseline --seeds 1 --envs Pendulum-v1 --total-timesteps {steps}"
        assert bench(line).returncode == 0
        table = (bench.runs / "Pendulum-v1/sac_baseline/seed_1/seed_1/eval.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in table] == ["global_step", *found]
    experiments = bench.folder / "experiments.csv"
    experiments.write_text(experiments.read_text().replace("sac_baseline,,", "sac_baseline,--gamma 0.9,"))
    ended = bench(line)
    assert ended.returncode == 1 and ": exit status 2: sac_baseline.py: " in ended.stderr.splitlines()[-1]


@pytest.mark.skipif(not SLURM, reason="needs root, slurm-wlm and munge")
def test_slurm(bench, monkeypatch):
    """A real one: one array for all runs, and a run that Slurm takes off its node goes on."""
    # Not pytest's own folder, which munge, another user, cannot enter; the daemons may write until they end.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cluster:
        monkeypatch.setenv("SLURM_CONF", f"{cluster}/slurm.conf")
        try:
            subprocess.run([ROOT / "tests" / "slurm.sh", "start", cluster], check=True)
            line = "momentum --seeds 3 --batch 2 --envs 'Slow-v0 A-v0' --total-timesteps 100"
            job = bench(f"{line} --slurm --time=5 --comment='extra words'").stdout.split()[-1]
            wait_for(lambda: "Slow-v0/sac_hpo_continuous/seeds_1-2" in trained(bench))
            subprocess.run(["scontrol", "requeue", f"{job}_1"], check=True)  # it starts again in two minutes
            wait_for(lambda: list(trained(bench).values()) == [[*range(100)]] * 8, seconds=300)
            logs = [log.read_text() for log in bench.runs.glob("momentum-*.log")]
            assert sorted(log.count("started with 1 thread") for log in logs) == [1] * 7 + [2]
        finally:
            subprocess.run([ROOT / "tests" / "slurm.sh", "stop", cluster], check=True)
