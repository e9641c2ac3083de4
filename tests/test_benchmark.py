"""benchmark.sh: what it runs, skips, resumes, reports. A small shell script stands in for the algorithms."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ROOT, SCRIPTS

STAND_IN = """#!/usr/bin/env bash
# Called as: python SCRIPT.py --env-id E ... --total-timesteps N --runs-dir D
# or as:     python SCRIPT.py --resume R --total-timesteps N
# Of a seed it makes what the scripts make: in the run's folder or, if SEEDS names folders, in those.
[ "$OMP_NUM_THREADS" = 1 ] || exit 9
echo "$*" >> "$CALLS"
while [ $# -gt 0 ]; do
    case $1 in
    --env-id) env=$2 ;;
    --total-timesteps) steps=$2 ;;
    --runs-dir) run=$2/a__run ;;
    --resume) run=$2 resumed=yes ;;
    esac
    shift
done
for seed in ${SEEDS:-.}; do
    mkdir -p "$run/$seed"
    printf 'global_step,return_mean\\n%s,1.0\\n' "$steps" > "$run/$seed/eval.csv"
done
printf '{\\n  "args": {\\n    "total_timesteps": %s\\n  }\\n}\\n' "$steps" > "$run/config.json"
case "$run" in
*Fail*) printf '%b\\n' "${SAYS:-no such task}" >&2; exit 2 ;;
*Slow*) [ -n "${resumed:-}" ] || { touch "$run/running"; sleep 300; } ;;
esac
for seed in ${SEEDS:-.}; do touch "$run/$seed/agent_best.pt" "$run/$seed/agent_$steps.pt"; done
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs benchmark.sh with the stand-in, its runs in a folder of the test's; returns the ended process."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(stand_in))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def call(*words, start=False):
        command = [str(ROOT / "benchmark.sh"), *words]
        command += [] if start == "bare" else ["--runs", str(tmp_path / "runs")]
        if start is True:

            def reset():  # background jobs ignore the one, nohup's the other
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.signal(signal.SIGHUP, signal.SIG_DFL)

            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            return subprocess.Popen(command, preexec_fn=reset, **pipes)
        return subprocess.run(command, capture_output=True, text=True)

    calls = tmp_path / "calls"
    call.calls = lambda: calls.read_text().splitlines() if calls.exists() else []
    call.runs = tmp_path / "runs"
    return call


@pytest.fixture(params=["", "seed_1", "seed_1 seed_2 seed_10"], ids=["one folder", "one seed", "seeds"])
def layout(request, monkeypatch):
    """The folders of seeds in a run's folder: none, as older scripts have it, one or several."""
    monkeypatch.setenv("SEEDS", request.param)
    return request.param.split()


def test_dry_run_prints_the_commands_and_runs_nothing(bench):
    ended = bench("continuous", "--dry-run")
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0 and len(lines) == len(set(lines)) == 3 * 8 * 5
    assert "--seed 1 " in lines[0] and "--seed 5 " in lines[-1]
    some = bench("continuous", "--seeds", "2-4", "--dry-run").stdout.splitlines()
    assert some == [line for line in lines if "--seed 1 " not in line and "--seed 5 " not in line]
    assert not bench.calls() and not bench.runs.exists()


HPO, TINY = "sac_hpo_continuous", "--learning-starts 500 --eval-episodes 1"
PLANS = {  # experiment -> label -> script and its flags
    "continuous": {name: f"{name} " for name in SCRIPTS[:3]},
    "safe": {name: f"{name} " for name in SCRIPTS[3:]},
    "ablation": {
        "sac_baseline": "sac_baseline ",
        "sac_hpo_continuous": f"{HPO} ",
        "baseline-1": f"{HPO} --explore conventional --train conventional",
        "baseline-2": f"{HPO} --explore conventional --train gaussian",
        "baseline-3": f"{HPO} --explore gaussian --train proposed",
        "drift": f"{HPO} --explore drift --train drift",
        "base-policy": f"{HPO} --explore gaussian --train gaussian",
    },
    "sensitivity": {f"leapfrog-steps-{k}": f"{HPO} --leapfrog-steps {k}" for k in (1, 2, 3)}
    | {f"momentum-std-explore-{std}": f"{HPO} --momentum-std-explore {std}" for std in (0.5, 1.0, 1.5)}
    | {f"momentum-std-train-{std}": f"{HPO} --momentum-std-train {std}" for std in (0.01, 0.1, 0.2)},
    "momentum": {
        "sac_hpo_continuous": f"{HPO} ",
        "no-momentum": f"{HPO} --momentum-std-train 0 --momentum-std-explore 0",
    },
    "choices": {
        "sac_baseline": "sac_baseline ",
        "sac_hpo_continuous": f"{HPO} ",
        "autotune": f"{HPO} --autotune",
        "momentum-in-target": f"{HPO} --momentum-in-target",
        "float32": f"{HPO} --bfloat16-force False",
        "spreads-exchanged": f"{HPO} --momentum-std-train 0.5 --momentum-std-explore 1",
    },
    "published": {
        "sac_baseline": "sac_baseline ",
        "sac-tianshou": "sac_baseline --policy-lr 0.001 --q-lr 0.001 --learning-starts 10000",
    },
    "quick": {name: f"{name} {TINY}" for name in SCRIPTS},
}
TASKS = {"continuous": 8, "safe": 2, "ablation": 2, "sensitivity": 3, "momentum": 3}  # the others: one


@pytest.mark.parametrize("experiment", PLANS)
def test_every_experiment_is_the_papers_and_its_commands_are_understood(bench, experiment):
    """Parsed by the script itself; nothing is trained."""
    import importlib
    import shlex

    import tyro

    seeds = [] if experiment == "quick" else ["--seeds", "1"]
    lines = bench(experiment, *seeds, "--dry-run").stdout.splitlines()
    plan, tasks = PLANS[experiment], set()
    assert len(lines) == len(plan) * TASKS.get(experiment, 1)
    for line in lines:
        _, script, *flags = shlex.split(line)
        task, label, seed = flags[-1].split("/")[-3:]
        end = flags.index("--total-timesteps")
        assert flags[:4] == ["--env-id", task, "--seed", "1"] and seed == "seed_1"
        assert f"{script.removesuffix('.py')} {' '.join(flags[4:end])}" == plan[label]
        tasks.add((task, label))
        module = importlib.import_module(script.removesuffix(".py"))
        assert module.ALGORITHM in SCRIPTS
        module.resolve(tyro.cli(module.Args, args=flags))
    assert len(tasks) == len(lines)


def test_finished_is_skipped_and_longer_runs_go_on(bench, layout):
    words = "momentum", "--seeds", "1", "--envs", "A-v0", "--total-timesteps"
    assert bench(*words, "100").returncode == 0
    assert len(bench.calls()) == 2
    ended = bench(*words, "100")
    assert ended.returncode == 0 and len(bench.calls()) == 2 and ended.stdout.count("finished before") == 2
    assert bench(*words, "50").returncode == 0 and len(bench.calls()) == 2
    assert bench(*words, "300").returncode == 0
    longer = bench.calls()[2:]
    assert len(longer) == 2 and all("--resume" in c and "--total-timesteps 300" in c for c in longer)
    run = bench.runs / "A-v0" / "no-momentum" / "seed_1" / "a__run"
    assert all((run / folder / "agent_300.pt").exists() for folder in layout or ["."])
    assert not list(bench.runs.glob("*.jobs"))


def test_a_run_that_lacks_rows_or_the_agent_of_a_seed_is_not_finished(bench, layout):
    """A resume cuts eval.csv at the last checkpoint and leaves later agents; and files may be foreign."""
    words = "momentum", "--seeds", "1", "--envs", "A-v0", "--total-timesteps", "100"
    bench(*words)
    folder = bench.runs / "A-v0" / "no-momentum" / "seed_1" / "a__run" / (layout or ["."])[-1]
    huge = 10**30
    rows = "90,1.0\n", "", "9,1.0\nmany words, and a comma", f"{huge},1.0\n"
    for text in *(f"global_step,return_mean\n{row}" for row in rows), "":
        (folder / "eval.csv").write_text(text)
        ended = bench(*words)
        assert ended.returncode == 0 and not ended.stderr
        assert (folder / "eval.csv").read_text().endswith("\n100,1.0\n")
    for name in "agent_best.pt", "agent_90.pt", "agent_100.pt.part", "agent_1e9.pt", f"agent_{huge}.pt":
        (folder / "agent_100.pt").rename(folder / name)
        ended = bench(*words)
        assert ended.returncode == 0 and not ended.stderr and (folder / name).exists()
        assert (folder / "agent_100.pt").exists()
    resumed = [call.split()[2] for call in bench.calls() if "--resume" in call]
    assert len(resumed) == 5 + 5 and all(run.endswith("no-momentum/seed_1/a__run") for run in resumed)
    assert bench(*words).stdout.count("finished before") == 2


def test_workers(bench):
    """As many at a time as asked for, one here and three there."""
    for count in 1, 3:
        words = "continuous", "--seeds", "1", "--envs", f"Slow{count}-v0", "--total-timesteps", "100"
        started = bench(*words, "--workers", str(count), start=True)
        for _ in range(100):
            if len(list(bench.runs.glob(f"Slow{count}-v0/*/*/*/running"))) == count:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        running = len(list(bench.runs.glob(f"Slow{count}-v0/*/*/*/running")))
        started.terminate()
        started.communicate(timeout=20)
        assert running == count


@pytest.mark.parametrize("kind", ["full", "locked"])
def test_a_run_that_cannot_say_or_lock_anything(bench, tmp_path, monkeypatch, kind):
    """Where nobody listens any more, every run is made; where no lock can be had, none is, and it says so."""
    words = [str(ROOT / "benchmark.sh"), "momentum", "--runs", str(bench.runs)]
    words += ["--seeds", "1", "--envs", "A-v0", "--total-timesteps", "100"]
    if kind == "full":
        with open("/dev/full", "w") as full:
            assert subprocess.run(words, stdout=full, stderr=full).returncode == 0
        assert len(bench.calls()) == 2
    else:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "flock").write_text("#!/bin/sh\nexit 65\n")
        (tmp_path / "bin" / "flock").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        ended = subprocess.run(words, capture_output=True, text=True)
        assert ended.returncode == 1 and ended.stderr.count("flock cannot lock") == 2
        assert not bench.calls()


def test_an_experiment_uses_the_runs_of_another(bench):
    bench("continuous", "--seeds", "2", "--envs", "A-v0", "--total-timesteps", "100")
    ended = bench("momentum", "--seeds", "2", "--envs", "A-v0", "--total-timesteps", "100")
    assert ended.stdout.count("finished before") == 2 and len(bench.calls()) == 6 + 2


def test_a_failed_run_stops_no_other_and_is_reported(bench):
    words = "continuous", "--seeds", "1", "--envs", "Fail-v0 A-v0", "--total-timesteps", "100"
    ended = bench(*words, "--workers", "1")
    assert ended.returncode == 1
    assert len(bench.calls()) == 6 and len(list(bench.runs.glob("A-v0/*/seed_1/a__run/agent_100.pt"))) == 3
    reports = [line for line in ended.stderr.splitlines() if line.endswith("log.txt: no such task")]
    assert len(reports) == 3 and all(line.startswith("failed with exit status 2: ") for line in reports)


TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
a.b.Trouble: in a process
"""


@pytest.mark.parametrize(
    "said, reason",
    [
        ("sac_nf.py: no such task\nUserWarning: semaphores\n  warnings.warn(", "sac_nf.py: no such task"),
        (f"{TRACEBACK}\nThat led to\n\n{TRACEBACK.replace('in a', 'no')}bye\n\n", "a.b.Trouble: no process"),
        (f"{TRACEBACK}sac_nf.py: no such task\n{TRACEBACK}", "sac_nf.py: no such task"),
        ("step 10\nKilled\n\n", "Killed"),
    ],
)
def test_the_line_that_tells_why_a_run_failed(bench, monkeypatch, said, reason):
    """Of the last attempt, and not what follows it in the log."""
    words = "momentum", "--seeds", "1", "--envs", "Fail-v0", "--total-timesteps", "100"
    for text in f"sac_nf.py: at first\n{TRACEBACK}", said:
        monkeypatch.setenv("SAYS", text)
        ended = bench(*words)
    assert ended.returncode == 1 and ended.stderr.count(f"log.txt: {reason}\n") == 2


def test_a_failure_is_forgotten_once_the_run_is_finished(bench):
    words = "momentum", "--seeds", "1", "--envs", "A-v0", "--total-timesteps", "100"
    bench(*words)
    (bench.runs / "A-v0" / "no-momentum" / "seed_1" / "failed").write_text("1\n")
    ended = bench(*words)
    assert ended.returncode == 0 and not ended.stderr
    (bench.runs / "A-v0" / "no-momentum" / "seed_1" / "failed").write_text("1\n")
    ended = bench(*words[:-1], "200")
    assert ended.returncode == 0 and not ended.stderr


def test_a_run_that_goes_on_elsewhere_is_left_alone(bench):
    words = "momentum", "--seeds", "1", "--envs", "Slow-v0", "--total-timesteps", "100"
    first = bench(*words, start=True)
    for _ in range(100):
        if list(bench.runs.rglob("running")):
            break
        time.sleep(0.1)
    (run,) = {path.parents[1] for path in list(bench.runs.rglob("running"))[:1]}
    line = f"{os.path.relpath(run, ROOT)} 100 sac_hpo_continuous --env-id Slow-v0 --seed 1"
    second = subprocess.run([str(ROOT / "benchmark.sh"), "_run", line], capture_output=True, text=True)
    calls = [call for call in bench.calls() if f"{run.parent.name}/{run.name}" in call]
    first.terminate()
    first.communicate(timeout=20)
    assert second.returncode == 0 and "runs already" in second.stderr
    assert len(calls) == 1
    assert bench("collect", "--dry-run").returncode == 2  # nothing is finished


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_its_own_children_and_the_same_command_goes_on(bench, how):
    bystander = subprocess.Popen(["sleep", "299"])
    words = "momentum", "--seeds", "1", "--envs", "Slow-v0", "--total-timesteps", "100"
    at_once = min(2, len(os.sched_getaffinity(0)))  # one run per core, whatever OMP_NUM_THREADS tells nproc
    started = bench(*words, start=True)
    for _ in range(100):
        if len(list(bench.runs.rglob("running"))) == at_once:
            break
        time.sleep(0.1)
    assert len(list(bench.runs.rglob("running"))) == at_once
    ours = "/".join(bench.runs.parts[-3:])
    assert len(subprocess.run(["pgrep", "-f", ours], capture_output=True, text=True).stdout.split()) >= 3
    started.send_signal(how)
    _, errors = started.communicate(timeout=20)
    assert started.returncode == 130 and "interrupted" in errors
    time.sleep(0.3)
    assert not subprocess.run(["pgrep", "-f", ours], capture_output=True, text=True).stdout
    assert bystander.poll() is None
    bystander.kill()
    assert bench(*words).returncode == 0
    assert sum("--resume" in call for call in bench.calls()) == at_once


def test_collect(bench, tmp_path):
    """Finished runs only, and of each only what is to be committed."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(ROOT / "benchmark.sh", copy)
    bench("continuous", "--seeds", "1", "--envs", "A-v0 Fail-v0", "--total-timesteps", "100")
    half = bench.runs / "A-v0" / "drift" / "seed_1" / "a__run"  # stopped, after a snapshot
    shutil.copytree(bench.runs / "A-v0" / "sac_nf" / "seed_1" / "a__run", half)
    (half / "agent_100.pt").rename(half / "agent_90.pt")
    collect = [str(copy / "benchmark.sh"), "collect", "--runs", str(bench.runs)]
    subprocess.run([*collect, "--dry-run"], check=True)
    assert not (copy / "results").exists()
    subprocess.run(collect, check=True)
    labels = ["sac_baseline", "sac_hpo_continuous", "sac_nf"]
    assert collected(copy) == [f"A-v0/{label}/seed_1" for label in labels]
    longer = copy / "results" / "A-v0" / "sac_nf" / "seed_1" / "eval.csv"
    longer.write_text(longer.read_text() + "200,2.0\n")
    ended = subprocess.run(collect, check=True, capture_output=True, text=True)
    assert longer.read_text().endswith("200,2.0\n")
    assert "being longer: results/A-v0/sac_nf/seed_1" in ended.stderr


def test_collect_of_runs_with_a_folder_for_each_seed(bench, tmp_path, monkeypatch):
    """Of one seed, as this script starts them, and of several, started by hand into a folder of the label."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(ROOT / "benchmark.sh", copy)
    monkeypatch.setenv("SEEDS", "seed_1")
    bench("momentum", "--seeds", "1", "--envs", "A-v0", "--total-timesteps", "100")
    by_hand = bench.runs / "A-v0" / "no-momentum" / "five of them"
    monkeypatch.setenv("SEEDS", "seed_7 seed_8 seed_12 seed_best")
    words = ["sac_x.py", "--total-timesteps", "100", "--runs-dir", str(by_hand)]
    subprocess.run([tmp_path / "python", *words], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    (by_hand / "a__run" / "seed_8" / "agent_100.pt").rename(by_hand / "a__run" / "seed_8" / "agent_90.pt")
    for foreign in "notes/seed_1/mine", "notes/seed_1/mine/seed_1", "notes/other/mine/seed_2":
        (bench.runs / "A-v0" / foreign).mkdir(parents=True)
        (bench.runs / "A-v0" / foreign / "eval.csv").write_text("some words\n")
    (bench.runs / "A-v0" / "notes" / "other" / "mine" / "config.json").write_text("{}\n")
    collect = [str(copy / "benchmark.sh"), "collect", "--runs", str(bench.runs)]
    ended = subprocess.run(collect, check=True, capture_output=True, text=True)
    assert not ended.stderr
    found = ["no-momentum/seed_1", "no-momentum/seed_12", "no-momentum/seed_7", "sac_hpo_continuous/seed_1"]
    assert collected(copy) == [f"A-v0/{folder}" for folder in found]
    config = copy / "results" / "A-v0" / "no-momentum" / "seed_12" / "config.json"
    assert config.read_text() == (by_hand / "a__run" / "config.json").read_text()


def collected(copy):
    """Folders of results/, each of which has the two files and nothing else."""
    files = [path for path in (copy / "results").rglob("*") if path.is_file()]
    folders = sorted({path.parent for path in files})
    assert sorted(files) == [folder / name for folder in folders for name in ("config.json", "eval.csv")]
    return [str(folder.relative_to(copy / "results")) for folder in folders]


def test_folders_with_spaces_and_relative_calls(bench, tmp_path):
    copy = tmp_path / "a copy"
    copy.mkdir()
    shutil.copy(ROOT / "benchmark.sh", copy)
    words = ["quick", "--dry-run"]
    ended = subprocess.run(["a copy/benchmark.sh", *words], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0 and "--runs-dir runs/benchmark-quick/" in ended.stdout
    assert subprocess.run(["a copy/benchmark.sh", "--help"], cwd=tmp_path, capture_output=True).stdout
    ended = subprocess.run(
        [str(ROOT / "benchmark.sh"), *words, "--runs", "x"], cwd=copy, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "--runs must not have spaces or quotes" in ended.stderr


def test_another_name_for_it_and_a_python_beside_the_caller(bench, tmp_path, monkeypatch):
    """Called through a symbolic link, with PYTHON and --runs seen from where it is called."""
    (tmp_path / "copy").mkdir()
    shutil.copy(ROOT / "benchmark.sh", tmp_path / "copy")
    (tmp_path / "bm").symlink_to(tmp_path / "copy" / "benchmark.sh")
    monkeypatch.setenv("PYTHON", "./python")
    words = ["./bm", "momentum", "--runs", "here"]
    words += ["--seeds", "1", "--envs", "ns/A-v0", "--total-timesteps", "100"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0 and len(bench.calls()) == 2, ended.stderr
    assert (tmp_path / "here" / "ns-A-v0" / "no-momentum" / "seed_1" / "a__run" / "agent_100.pt").exists()
    assert "--env-id ns/A-v0" in bench.calls()[0]


def test_no_python_with_torch(tmp_path, monkeypatch):
    """One line, and not a failure of every run."""
    shutil.copy(ROOT / "benchmark.sh", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("PYTHON", raising=False)
    ended = subprocess.run([str(tmp_path / "benchmark.sh"), "quick"], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "no Python with PyTorch" in ended.stderr
    assert subprocess.run([str(tmp_path / "benchmark.sh"), "--help"], capture_output=True).returncode == 0
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["continous"], "no experiment 'continous'"),
        (["continuous", "--seeds", "0"], "--seeds must be N, for seeds 1 to N, or M-N, not '0'"),
        (["continuous", "--seeds", "3-2"], "--seeds must be N, for seeds 1 to N, or M-N, not '3-2'"),
        (["continuous", "--seeds"], "--seeds must be N, for seeds 1 to N, or M-N, not ''"),
        (["continuous", "--workers"], "--workers must be a whole number from 1 to"),
        (["continuous", "--workers", "99999999999999999999"], "--workers must be a whole number from 1 to"),
        (["continuous", "--sedes", "3"], "unknown option --sedes"),
        (["continuous", "--envs"], "--envs needs a value"),
        (["continuous", "--envs", "  "], "--envs needs a value"),
        (["continuous", "--envs", "--dry-run"], "--envs needs a value"),
        (["continuous", "--runs", "a'b"], "--runs must not have spaces or quotes"),
        (["continuous", "--runs", "benchmark.sh"], "--runs benchmark.sh cannot be made"),
        (["quick", "--seeds", "3"], "quick has its own --seeds"),
        (["collect", "--envs", "A-v0"], "collect knows --runs and --dry-run, not --envs"),
        (["speed", "--sb3", "--typo"], "speed knows --rounds, --sb3 and --cuda, not --typo"),
        (["continuous"], "PYTHON must be a program, not 'nowhere'"),
        (["collect", "--runs", "nowhere"], "no finished runs under --runs nowhere"),
        pytest.param(
            ["continuous", "--slurm"],
            "--slurm needs sbatch",
            marks=pytest.mark.skipif(bool(shutil.which("sbatch")), reason="sbatch is here"),
        ),
    ],
)
def test_one_clear_line_for_bad_input(bench, words, message, monkeypatch, tmp_path):
    if "PYTHON" in message:
        monkeypatch.setenv("PYTHON", "nowhere")
    copy = tmp_path / "copy"  # with no runs in it that a regression could overwrite
    copy.mkdir()
    shutil.copy(ROOT / "benchmark.sh", copy)
    ended = subprocess.run(["./benchmark.sh", *words], cwd=copy, capture_output=True, text=True)
    assert ended.returncode == 2 and [path.name for path in copy.iterdir()] == ["benchmark.sh"]
    assert ended.stderr.startswith("benchmark.sh: ") and ended.stderr.count("\n") == 1
    assert message in ended.stderr
    assert not bench.calls()


def test_help(bench):
    assert "./benchmark.sh sensitivity" in bench("--help", start="bare").stdout
    assert os.access(ROOT / "benchmark.sh", os.X_OK)
