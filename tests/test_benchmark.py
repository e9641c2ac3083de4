"""benchmark.sh: what it runs, skips, resumes, reports. A small shell script stands in for the algorithms."""

import csv
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, SCRIPTS

STAND_IN = """#!/usr/bin/env bash
# Called as: python -c QUESTION
# or as:     python SCRIPT.py --env-id E --seed M --num-seeds N ... --total-timesteps N --runs-dir D
# or as:     python SCRIPT.py --resume R --total-timesteps N
# or as:     python plot.py logs FOLDER
# Of a seed it makes what the scripts make: in the run's folder or, if SEEDS names folders or there is more
# than one seed, in those.
[ "$1" != -c ] || { echo "$*" >> "$CALLS.asked"; echo "${GPU:-False}"; exit; }
[ "$1 $2" != "plot.py logs" ] || { echo "means of $3" > "$3/training.csv"; exit; }
[ "$OMP_NUM_THREADS" = 1 ] || exit 9
echo "$*" >> "$CALLS"
script=$1
while [ $# -gt 0 ]; do
    case $1 in
    --seed) first=$2 ;;
    --num-seeds) many=$2 ;;
    --total-timesteps) steps=$2 ;;
    --runs-dir) run=$2/a__run ;;
    --resume) run=$2 resumed=yes ;;
    esac
    shift
done
if [ -n "${resumed:-}" ] && [ -z "${SEEDS:-}" ]; then SEEDS=$(cd "$run" && ls -d seed_* 2>/dev/null); fi
if [ "${many:-1}" != 1 ]; then SEEDS=$(seq -f seed_%.0f "$first" $((first + many - 1))); fi
for seed in ${SEEDS:-.}; do
    mkdir -p "$run/$seed"
    printf 'global_step,return_mean,steps_per_second\\n%s,-1.25,71.3\\n' "$steps" > "$run/$seed/eval.csv"
done
printf '{\\n  "args": {\\n    "total_timesteps": %s\\n  }\\n}\\n' "$steps" > "$run/config.json"
case "$script $run" in
*Fail* | ${FAILS:-none}*) printf '%b\\n' "${SAYS:-no such task}" >&2; exit "${STATUS:-2}" ;;
*Slow*) [ -n "${resumed:-}" ] || { touch "$run/running"; sleep "${SLEEP:-300}"; } ;;
esac
for seed in ${SEEDS:-.}; do touch "$run/$seed/agent_best.pt" "$run/$seed/agent_$steps.pt"; done
"""


def program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def copy_to(folder):
    """What benchmark.sh needs of the repository to start runs, in a folder of the test's."""
    folder.mkdir(exist_ok=True)
    for name in "benchmark.sh", "experiments.csv":
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs benchmark.sh with the stand-in, its runs in a folder of the test's; returns the ended process."""
    monkeypatch.setenv("PYTHON", str(program(tmp_path / "python", STAND_IN)))
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
    call.asked = lambda: len(Path(f"{calls}.asked").read_text().splitlines())
    call.runs = tmp_path / "runs"
    return call


def wait_for(condition):
    for _ in range(100):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


@pytest.fixture(params=["", "seed_1", "seed_1 seed_2 seed_10"], ids=["one folder", "one seed", "seeds"])
def layout(request, monkeypatch):
    """The folders of seeds in a run's folder: none, as older scripts have it, one or several."""
    monkeypatch.setenv("SEEDS", request.param)
    return request.param.split()


def commands_of(ended):
    """The commands that a dry run printed, and its comments on what they take."""
    assert ended.returncode == 0 and not ended.stderr
    lines = ended.stdout.splitlines()
    commands = [line for line in lines if not line.startswith("#")]
    assert lines[: len(commands)] == commands
    return commands, lines[len(commands) :]


def test_dry_run_prints_the_commands_and_runs_nothing(bench, tmp_path):
    words = "continuous", "--envs", "A-v0 B-v0", "--total-timesteps", "100", "--dry-run"
    lines, _ = commands_of(bench(*words))
    assert len(lines) == len(set(lines)) == 4 * 2 * 5
    assert "--seed 1 " in lines[0] and "--seed 5 " in lines[-1]
    some, _ = commands_of(bench(*words, "--seeds", "2-4"))
    assert some == [line for line in lines if "--seed 1 " not in line and "--seed 5 " not in line]
    assert not bench.calls() and not bench.runs.exists()
    printed = bench(*words, "--seeds", "1", "--labels", "sac_nf").stdout  # a list that a shell understands
    subprocess.run(
        ["bash", "-e"], input=printed, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert len(bench.calls()) == len(list(bench.runs.glob("[AB]-v0/sac_nf/seed_1/a__run/agent_100.pt"))) == 2


TABLE = list(csv.DictReader((ROOT / "experiments.csv").read_text().splitlines()))
TINY = "--learning-starts 500 --eval-frequency 750 --eval-episodes 1"
TASKS = {"continuous": 8, "safe": 2, "ablation": 2, "sensitivity": 3, "sensitivity-steps": 3, "momentum": 3}


def test_the_table_of_experiments():
    """Fields without commas or double quotes, as benchmark.sh splits it; no label or name comes twice."""
    header, *rows = (ROOT / "experiments.csv").read_text().splitlines()
    assert header == "label,script,flags,figures,name"
    assert all(row.count(",") == 4 and '"' not in row for row in rows)
    for column in "label", "name":
        assert len({row[column] for row in TABLE} - {""}) == len(TABLE)
    assert all(row["script"] in SCRIPTS and row["figures"] for row in TABLE)
    assert {row["label"] for row in TABLE} >= set(SCRIPTS)


@pytest.mark.parametrize("experiment", [*TASKS, "choices", "published", "quick"])
def test_every_experiment_is_the_tables_and_its_commands_are_understood(bench, experiment):
    """Parsed by the script itself; nothing is trained."""
    import importlib
    import shlex

    import tyro

    seeds = [] if experiment == "quick" else ["--seeds", "1"]
    lines, _ = commands_of(bench(experiment, *seeds, "--dry-run"))
    plan, tasks, labels = {}, set(), []
    for row in TABLE:
        figures = {part for figure in row["figures"].split() for part in (figure, figure.split("-")[0])}
        if experiment in figures or (experiment == "quick" and row["label"] == row["script"]):
            tiny = TINY if experiment == "quick" else ""
            plan[row["label"]] = f"{row['script']}.py {row['flags']} {tiny}".split()
    for line in lines:
        _, script, *flags = shlex.split(line)
        task, label, seed = flags[-1].split("/")[-3:]
        end = flags.index("--total-timesteps")
        first = ["--env-id", task, "--seed", "1", "--num-seeds", "1"]
        assert flags[: len(first)] == first and seed == "seed_1"
        assert [script, *flags[len(first) : end]] == plan[label]
        tasks.add((task, label))
        labels += [label] if label not in labels else []
        module = importlib.import_module(script.removesuffix(".py"))
        module.resolve(tyro.cli(module.Args, args=flags))
    assert labels == list(plan)  # in the table's order
    for_one_task = {("HumanoidBulletEnv-v0", "explore-as-trained")} if experiment == "ablation" else set()
    assert len(tasks | for_one_task) == len(lines) + len(for_one_task) == len(plan) * TASKS.get(experiment, 1)


def test_labels_and_those_that_belong_to_one_task(bench):
    """In the table's order, whatever the call's; nothing is run under a name that says something else."""
    words = "choices", "--seeds", "1", "--envs", "Ant-v4 HalfCheetah-v4", "--dry-run", "--labels"
    lines, _ = commands_of(bench(*words, "spreads-exchanged\nfloat32"))
    folders = [line.split("/runs/")[1].strip() for line in lines]
    assert folders == [
        "Ant-v4/float32/seed_1",
        "HalfCheetah-v4/float32/seed_1",
        "HalfCheetah-v4/spreads-exchanged/seed_1",
    ]


def test_batches(bench, tmp_path):
    """N seeds of a label in a process; finished, resumed and collected as a whole."""
    copy = copy_to(tmp_path / "copy")
    words = "momentum", "--envs", "A-v0", "--seeds", "3-7", "--batch", "2", "--total-timesteps"
    assert bench(*words, "100").returncode == 0
    seeds = ["--seed 3 --num-seeds 2", "--seed 5 --num-seeds 2", "--seed 7 --num-seeds 1"]
    assert len(bench.calls()) == 6 and all(sum(s in call for call in bench.calls()) == 2 for s in seeds)
    run = bench.runs / "A-v0" / "no-momentum" / "seeds_5-6" / "a__run"
    (run / "seed_6" / "agent_100.pt").unlink()
    ended = bench(*words, "100")
    assert ended.returncode == 0 and ended.stdout.count("finished before") == 5
    flags = "--momentum-std-train 0 --momentum-std-explore 0 --total-timesteps 100"  # or it would be refused
    flags = f"--coordinates pre-tanh {flags}"
    assert f"seeds_5-6/a__run {flags}" in bench.calls()[-1] and len(bench.calls()) == 7
    collect = [str(copy / "benchmark.sh"), "collect", "--runs", str(bench.runs)]
    subprocess.run(collect, check=True)
    assert collected(copy) == [
        f"A-v0/{label}/seed_{seed}" for label in ("no-momentum", "sac_hpo_continuous") for seed in range(3, 8)
    ]


def test_a_seed_stays_in_the_run_that_has_it(bench):
    """Alone or in a batch, whatever --batch says later; what is in no run makes batches around them."""
    words = "choices", "--labels", "float32", "--envs", "A-v0", "--total-timesteps", "100", "--seeds"
    bench(*words, "2")
    bench(*words, "5-6", "--batch", "2")
    (bench.runs / "A-v0" / "float32" / "seeds_5-6" / "a__run" / "seed_5" / "agent_100.pt").unlink()
    shutil.rmtree(bench.runs / "A-v0" / "float32" / "seed_1")
    (bench.runs / "A-v0" / "float32" / "seeds_8-9").mkdir()  # never started
    for foreign in "seeds_x-9", "seed_1-", "seeds_1-99999999999999999999", "seeds_01-09":
        (bench.runs / "A-v0" / "float32" / foreign / "a").mkdir(parents=True)
        (bench.runs / "A-v0" / "float32" / foreign / "a" / "config.json").write_text("{}\n")
    before = len(bench.calls())
    assert bench(*words, "12", "--batch", "4").returncode == 0
    made = ["--resume " if "--resume" in call else call for call in bench.calls()[before:]]
    made = sorted(" ".join(call.split("--")[2:4]).replace("num-seeds ", "") for call in made)
    assert made == sorted(["", "seed 1  1 ", "seed 3  2 ", "seed 7  4 ", "seed 11  2 "])
    assert any("--resume" in call and "seeds_5-6" in call for call in bench.calls()[before:])
    before = len(bench.calls())
    for batch in 1, 5, 12:
        ended = bench(*words, "12", "--batch", str(batch))
        assert ended.stdout.count("finished before") == 6 and not ended.stderr
    bench(*words, "6-6", "--total-timesteps", "300")
    (call,) = bench.calls()[before:]
    assert "seeds_5-6/a__run --coordinates pre-tanh --bfloat16-force False --total-timesteps 300" in call


@pytest.mark.parametrize(
    "begun, free", [("seeds_1-2", "seed_3"), ("seed_2", "seed_1"), ("seeds_4-9", "seed_3")]
)
def test_a_seed_that_another_call_began_in_the_meantime(bench, begun, free):
    """Between planning and starting: it is not trained twice."""
    label = bench.runs / "A-v0" / "float32"
    (label / begun / "b__run").mkdir(parents=True)
    (label / begun / "b__run" / "config.json").write_text("{}\n")
    taken = "seeds_2-5"
    for folder in taken, free:
        first, _, last = folder.partition("_")[2].partition("-")
        words = f"100 sac_x --env-id A-v0 --seed {first} --num-seeds {int(last or first) - int(first) + 1}"
        command = [str(ROOT / "benchmark.sh"), "_run", f"{label / folder} {words}"]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 0
        said = f"left alone, it has seeds of {label / begun}/b__run: {label / folder}\n"
        assert ended.stderr == (said if folder == taken else "")
    (call,) = bench.calls()
    assert f"--seed {free[-1]} " in call


def test_on_a_gpu_all_seeds_in_one_process_and_one_process_at_a_time(bench, monkeypatch, tmp_path):
    program(tmp_path / "bin" / "nproc", "#!/bin/sh\necho 3\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("GPU", "True")
    words = "momentum", "--seeds", "2-4", "--total-timesteps", "100", "--envs"
    started = bench(*words, "Slow-v0", start=True)
    wait_for(lambda: list(bench.runs.rglob("running")))
    time.sleep(0.5)
    (running,) = bench.runs.rglob("running")
    started.terminate()
    started.communicate(timeout=20)
    assert running.parents[1].name == "seeds_2-4"
    assert bench.asked() == 1
    bench(*words, "A-v0", "--batch", "1", "--workers", "2")
    assert bench.asked() == 1 and len(list(bench.runs.glob("A-v0/*/seed_[234]/a__run"))) == 6
    monkeypatch.setenv("GPU", "False")
    bench(*words, "B-v0")
    assert bench.asked() == 2 and len(list(bench.runs.glob("B-v0/*/seed_[234]/a__run"))) == 6


def test_quick_ends_with_a_verdict_on_each_script(bench, monkeypatch):
    monkeypatch.setenv("FAILS", "sac_nf")
    monkeypatch.setenv("SEEDS", "seed_1")
    monkeypatch.setenv("STATUS", "3")
    ended = bench("quick")
    assert ended.returncode == 1
    works = [f"{name}: works, 1,500 steps, return -1.2, 71 steps/s" for name in SCRIPTS if name != "sac_nf"]
    assert ended.stdout.splitlines()[-4:] == works
    (failed,) = [line for line in ended.stderr.splitlines() if line.startswith("sac_nf: ")]
    assert failed.startswith("sac_nf: failed with exit status 3: no such task; log: ")
    assert (ROOT / failed.split()[-1]).read_text().endswith("no such task\n")
    monkeypatch.setenv("FAILS", "none")
    monkeypatch.setenv("SEEDS", "seed_2")  # a script that makes nothing of what it is asked for
    ended = bench("quick", "--labels", "sac_nf")
    assert "works" not in ended.stdout


SPEEDS = """task,system,seeds,threads,rounds,steps_per_second,lowest,highest
Light-v4,sac_baseline,1,1,5,100.0,1,1,"2 cores, of any make"
Heavy-v4,sac_baseline,1,1,5,50.0,1,1,"2 cores, of any make"
Light-v4,sac_baseline,1,2,5,9000.0,1,1,"2 cores, of any make"
Light-v4,sac_baseline,5,1,5,9000.0,1,1,"2 cores, of any make"
Light-v4,sac_hpo_continuous,1,1,5,20.0,1,1,"2 cores, of any make"
Light-v4,sac_nf,1,2,5,9000.0,1,1,"2 cores, of any make"
"""
SPEEDS_CUDA = """task,system,seeds,steps_per_second,agent_steps_per_second
Light-v4,sac_baseline,1,1000.0,1
Light-v4,sac_baseline,5,500.0,1
Light-v4,sac_baseline,20,200.0,1
"""


@pytest.mark.parametrize(
    "gpu, words, says",
    [
        ("False", "--envs Light-v4", "1 x sac_baseline: 10 hours|1 x sac_nf: unknown|in all 10.0 core-hours"),
        ("False", "--envs Other-v4", "1 x sac_baseline: 20 hours|1 x sac_nf: unknown|in all 20.0 core-hours"),
        (
            "False",
            "--envs Light-v4 --seeds 3 --batch 2 --labels sac_baseline",
            "1 x sac_baseline: 20 hours|1 x ",
        ),
        ("False", "--envs Light-v4 --total-timesteps 360000", "1 x sac_baseline: 1 hours|"),
        ("True", "--envs Light-v4", "1 x sac_baseline: 1 hours|1 x sac_nf: unknown|in all 1.0 GPU-hours"),
        ("True", "--envs Light-v4 --seeds 2", "1 x sac_baseline: 2 hours|1 x sac_nf: unknown|"),
        ("True", "--envs Light-v4 --seeds 20", "1 x sac_baseline: 5 hours|1 x sac_nf: unknown|"),
        (
            "True",
            "--envs Light-v4 --seeds 21",
            "1 x sac_baseline: unknown|1 x sac_nf: unknown|in all 0.0 GPU",
        ),
    ],
)
def test_the_hours_to_expect(bench, monkeypatch, tmp_path, gpu, words, says):
    monkeypatch.setenv("GPU", gpu)
    copy = copy_to(tmp_path / "copy")
    (copy / "results").mkdir()
    (copy / "results" / "speed.csv").write_text(SPEEDS)
    (copy / "results" / "speed_cuda.csv").write_text(SPEEDS_CUDA)
    start = ["./benchmark.sh", "continuous", "--dry-run", "--total-timesteps", "3600000", "--seeds", "1"]
    call = [*start, "--labels", "sac_baseline sac_nf", *words.split()]
    _, hours = commands_of(subprocess.run(call, cwd=copy, capture_output=True, text=True))
    assert "|".join(line.removeprefix("# ") for line in hours).startswith(says)
    assert ("sac_nf: unknown" not in says) or hours[-1].endswith(f" and {says.count('unknown')} unknown")
    shutil.rmtree(copy / "results")
    _, hours = commands_of(subprocess.run(call, cwd=copy, capture_output=True, text=True))
    assert all(line.endswith(" unknown") for line in hours)


def test_the_hours_of_what_is_left(bench, tmp_path):
    """By the tables in the repository, whose columns are where benchmark.sh looks for them."""
    for name, columns in ("speed", "seeds,threads,rounds"), ("speed_cuda", "seeds"):
        header = (ROOT / "results" / f"{name}.csv").read_text().splitlines()[0]
        assert header.startswith(f"task,system,{columns},steps_per_second,")
    words = "momentum", "--envs", "Hopper-v4", "--seeds", "2", "--batch", "2", "--total-timesteps"
    bench(*words, "100000")
    elsewhere = ["--runs", str(tmp_path / "none"), "--dry-run"]
    _, whole = commands_of(bench(*words, "100000", *elsewhere, start="bare"))
    lines, left = commands_of(bench(*words, "150000", "--dry-run"))
    assert all("--resume" in line for line in lines)
    total = [float(comments[-1].split()[3]) for comments in (whole, left)]
    assert total[0] > 0.5 and abs(total[1] - total[0] / 2) < 0.06
    ended = bench(*words, "100000", "--dry-run")
    assert ended.stdout.count("# finished: ") == 2 and "in all 0.0 core-hours" in ended.stdout


def test_slurm_arrays(bench, tmp_path, monkeypatch):
    """What is submitted, in place of Slurm one after the other: a run for each job, batches as well."""
    submit = """#!/usr/bin/env bash
    for word in "$@"; do
        case $word in
        --array=0-*) last=${word#*-*-*-} ;;
        --wrap=*) wrap=${word#--wrap=} ;;
        --chdir=*) cd "${word#--chdir=}" ;;
        esac
    done
    echo "$*" > "$CALLS.sbatch"
    for task in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID=$task bash -c "$wrap"; done
    """
    sbatch = program(tmp_path / "bin" / "sbatch", submit)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    words = "momentum", "--envs", "A-v0", "--seeds", "3", "--batch", "2", "--total-timesteps", "100"
    ended = bench(*words, "--runs", str(bench.runs), "--slurm", "--gres=gpu:1", start="bare")
    assert ended.returncode == 0, ended.stderr
    assert "--array=0-3 " in (tmp_path / "calls.sbatch").read_text()
    assert " --gres=gpu:1 " in (tmp_path / "calls.sbatch").read_text()
    assert len(bench.calls()) == 4 and len(list(bench.runs.glob("A-v0/*/seeds_1-2/a__run/seed_[12]"))) == 4
    assert len(list(bench.runs.glob("A-v0/*/seed_3/a__run"))) == 2


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
    words = "momentum", "--labels", "no-momentum", "--seeds", "1", "--envs", "A-v0"
    words += "--total-timesteps", "100"
    bench(*words)
    folder = bench.runs / "A-v0" / "no-momentum" / "seed_1" / "a__run" / (layout or ["."])[-1]
    huge = 10**30
    rows = "90,1.0\n", "", "9,1.0\nmany words, and a comma", f"{huge},1.0\n"
    for text in *(f"global_step,return_mean\n{row}" for row in rows), "":
        (folder / "eval.csv").write_text(text)
        ended = bench(*words)
        assert ended.returncode == 0 and not ended.stderr
        assert (folder / "eval.csv").read_text().endswith("\n100,-1.25,71.3\n")
    for name in "agent_best.pt", "agent_90.pt", "agent_100.pt.part", "agent_1e9.pt", f"agent_{huge}.pt":
        (folder / "agent_100.pt").rename(folder / name)
        ended = bench(*words)
        assert ended.returncode == 0 and not ended.stderr and (folder / name).exists()
        assert (folder / "agent_100.pt").exists()
    resumed = [call.split()[2] for call in bench.calls() if "--resume" in call]
    assert len(resumed) == 5 + 5 and all(run.endswith("no-momentum/seed_1/a__run") for run in resumed)
    assert bench(*words).stdout.count("finished before") == 1


def test_workers(bench):
    """As many at a time as asked for, one here and three there."""
    for count in 1, 3:
        words = "continuous", "--seeds", "1", "--envs", f"Slow{count}-v0", "--total-timesteps", "100"
        started = bench(*words, "--workers", str(count), start=True)
        wait_for(lambda: len(list(bench.runs.glob(f"Slow{count}-v0/*/*/*/running"))) == count)  # noqa: B023
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
        program(tmp_path / "bin" / "flock", "#!/bin/sh\nexit 65\n")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        ended = subprocess.run(words, capture_output=True, text=True)
        assert ended.returncode == 1 and ended.stderr.count("flock cannot lock") == 2
        assert not bench.calls()


def test_an_experiment_uses_the_runs_of_another(bench):
    bench("continuous", "--seeds", "2", "--envs", "A-v0", "--total-timesteps", "100")
    ended = bench("momentum", "--seeds", "2", "--envs", "A-v0", "--total-timesteps", "100")
    assert ended.stdout.count("finished before") == 2 and len(bench.calls()) == 8 + 2


def test_a_failed_run_stops_no_other_and_is_reported(bench):
    words = "continuous", "--seeds", "1", "--envs", "Fail-v0 A-v0", "--total-timesteps", "100"
    ended = bench(*words, "--workers", "1")
    assert ended.returncode == 1
    assert len(bench.calls()) == 8 and len(list(bench.runs.glob("A-v0/*/seed_1/a__run/agent_100.pt"))) == 4
    said = "/seed_1: failed with exit status 2: no such task; log: "
    assert ended.stderr.count(said) == ended.stderr.count("/seed_1/log.txt\n") == 4


TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
a.b.Trouble: in a process
"""
BAR = " 50%|█████     | 750/1500 [00:10<00:10, 71.1step/s, loss=nan]"


@pytest.mark.parametrize(
    "said, reason",
    [
        ("sac_nf.py: no such task\nUserWarning: semaphores\n  warnings.warn(", "sac_nf.py: no such task"),
        (f"{TRACEBACK}\nThat led to\n\n{TRACEBACK.replace('in a', 'no')}bye\n\n", "a.b.Trouble: no process"),
        (f"{TRACEBACK}sac_nf.py: no such task\n{TRACEBACK}", "sac_nf.py: no such task"),
        ("step 10\nKilled\n\n", "Killed"),
        (f"step 10\n\r{BAR}\r{BAR}", "step 10"),
        (f"{BAR}\r{BAR}sac_nf.py: a loss is not finite\n{BAR}", "sac_nf.py: a loss is not finite"),
        (f"\r{BAR}\r    \rsac_nf.py: interrupted\n{TRACEBACK}", "sac_nf.py: interrupted"),
        (f"{BAR}\r{BAR}\n{TRACEBACK}{BAR}\n", "a.b.Trouble: in a process"),
    ],
)
def test_the_line_that_tells_why_a_run_failed(bench, monkeypatch, said, reason):
    """Of the last attempt, and not what follows it in the log."""
    words = "momentum", "--seeds", "1", "--envs", "Fail-v0", "--total-timesteps", "100"
    for text in f"sac_nf.py: at first\n{TRACEBACK}", said:
        monkeypatch.setenv("SAYS", text)
        ended = bench(*words)
    assert ended.returncode == 1 and ended.stderr.count(f"failed with exit status 2: {reason}; log: ") == 2


@pytest.mark.parametrize(
    "status, said",
    [("137", "killed, perhaps for want of memory"), ("143", "ended from outside; the same comm")],
)
def test_a_run_that_was_killed(bench, monkeypatch, status, said):
    monkeypatch.setenv("STATUS", status)
    ended = bench("momentum", "--seeds", "1", "--envs", "Fail-v0", "--total-timesteps", "100")
    assert ended.stderr.count(f"failed with exit status {status}: benchmark.sh: {said}") == 2


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
    words = "momentum", "--seeds", "2", "--batch", "2", "--envs", "Slow-v0", "--total-timesteps", "100"
    first = bench(*words, start=True)
    wait_for(lambda: list(bench.runs.rglob("running")))
    (run,) = {path.parents[1] for path in list(bench.runs.rglob("running"))[:1]}
    assert run.name == "seeds_1-2"
    line = f"{os.path.relpath(run, ROOT)} 100 sac_hpo_continuous --env-id Slow-v0 --seed 1 --num-seeds 2"
    second = subprocess.run([str(ROOT / "benchmark.sh"), "_run", line], capture_output=True, text=True)
    calls = [call for call in bench.calls() if f"{run.parent.name}/{run.name}" in call]
    first.terminate()
    first.communicate(timeout=20)
    assert second.returncode == 0 and "runs already" in second.stderr
    assert len(calls) == 1
    assert bench("collect", "--dry-run").returncode == 2  # nothing is finished


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_its_own_children_and_the_same_command_goes_on(bench, how, monkeypatch):
    bystander = subprocess.Popen(["sleep", "299"])
    words = "momentum", "--seeds", "1", "--envs", "Slow-v0", "--total-timesteps", "100"
    at_once = min(2, len(os.sched_getaffinity(0)))  # one run per core, whatever OMP_NUM_THREADS tells nproc
    started = bench(*words, start=True)
    wait_for(lambda: len(list(bench.runs.rglob("running"))) == at_once)
    ours = "/".join(bench.runs.parts[-3:])
    assert len(subprocess.run(["pgrep", "-f", ours], capture_output=True, text=True).stdout.split()) >= 3
    started.send_signal(how)
    _, errors = started.communicate(timeout=20)
    assert started.returncode == 130 and "interrupted" in errors
    time.sleep(0.3)
    assert not subprocess.run(["pgrep", "-f", ours], capture_output=True, text=True).stdout
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    monkeypatch.setenv("SLEEP", "0")  # where one core ran one run, the other starts now
    assert bench(*words).returncode == 0
    assert sum("--resume" in call for call in bench.calls()) == at_once


def test_collect(bench, tmp_path):
    """Finished runs only, and of each only what is to be committed."""
    copy = copy_to(tmp_path / "copy")
    bench("continuous", "--seeds", "1", "--envs", "A-v0 Fail-v0", "--total-timesteps", "100")
    half = bench.runs / "A-v0" / "drift" / "seed_1" / "a__run"  # stopped, after a snapshot
    shutil.copytree(bench.runs / "A-v0" / "sac_nf" / "seed_1" / "a__run", half)
    (half / "agent_100.pt").rename(half / "agent_90.pt")
    collect = [str(copy / "benchmark.sh"), "collect", "--runs", str(bench.runs)]
    subprocess.run([*collect, "--dry-run"], check=True)
    assert not (copy / "results").exists()
    (bench.runs / "A-v0" / "sac_nf" / "seed_1" / "a__run" / "events.out.tfevents.1").touch()
    stale = copy / "results" / "A-v0" / "sac_baseline" / "seed_1" / "training.csv"
    stale.parent.mkdir(parents=True)
    stale.touch()  # of a run that was here before
    subprocess.run(collect, check=True)
    logged = copy / "results" / "A-v0" / "sac_nf" / "seed_1" / "training.csv"
    assert logged.read_text().startswith("means of ") and logged.read_text().endswith(
        "sac_nf/seed_1/a__run\n"
    )
    assert list((copy / "results").rglob("training.csv")) == [logged]
    next(bench.runs.rglob("*tfevents*")).unlink()
    subprocess.run(collect, check=True)
    assert logged.exists()  # still of this run, though TensorBoard's files are gone
    logged.unlink()
    labels = ["action-coordinates", "sac_baseline", "sac_hpo_continuous", "sac_nf"]
    assert collected(copy) == [f"A-v0/{label}/seed_1" for label in labels]
    longer = copy / "results" / "A-v0" / "sac_nf" / "seed_1" / "eval.csv"
    longer.write_text(longer.read_text() + "200,2.0\n")
    ended = subprocess.run(collect, check=True, capture_output=True, text=True)
    assert longer.read_text().endswith("200,2.0\n")
    assert "being longer: results/A-v0/sac_nf/seed_1" in ended.stderr


def test_collect_of_runs_with_a_folder_for_each_seed(bench, tmp_path, monkeypatch):
    """Of one seed, as this script starts them, and of several, started by hand into a folder of the label."""
    copy = copy_to(tmp_path / "copy")
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
    config = bench.runs / "A-v0" / "notes" / "other" / "mine" / "config.json"
    collect = [str(copy / "benchmark.sh"), "collect", "--runs", str(bench.runs)]
    for steps in "many", 10**30, '1,\n"total_timesteps": 2':
        config.write_text(f'{{"total_timesteps": {steps}}}\n')
        ended = subprocess.run(collect, check=True, capture_output=True, text=True)
        assert not ended.stderr
    found = ["no-momentum/seed_1", "no-momentum/seed_12", "no-momentum/seed_7", "sac_hpo_continuous/seed_1"]
    assert collected(copy) == [f"A-v0/{folder}" for folder in found]
    config = copy / "results" / "A-v0" / "no-momentum" / "seed_12" / "config.json"
    assert config.read_text() == (by_hand / "a__run" / "config.json").read_text()


def test_collect_what_is_unfinished(bench, tmp_path):
    """If asked to; not where nothing was evaluated. What it replaces, and of which run, it says."""
    copy = copy_to(tmp_path / "copy")
    words = "choices", "--labels", "float32 autotune", "--envs", "A-v0", "--total-timesteps", "100"
    bench(*words, "--seeds", "2", "--batch", "2")
    runs = [bench.runs / "A-v0" / label / "seeds_1-2" / "a__run" for label in ("autotune", "float32")]
    for run in runs:
        (run / "seed_2" / "agent_100.pt").unlink()
    (runs[0] / "seed_2" / "eval.csv").write_text("")
    collect = [str(copy / "benchmark.sh"), "collect", "--runs", str(bench.runs)]

    def said(*words):
        return subprocess.run([*collect, *words], check=True, capture_output=True, text=True).stderr

    assert not said() and len(collected(copy)) == 2
    assert not said("--unfinished")
    assert collected(copy) == ["A-v0/autotune/seed_1", "A-v0/float32/seed_1", "A-v0/float32/seed_2"]
    assert not said("--unfinished")  # the same once more
    table = runs[1] / "seed_2" / "eval.csv"
    table.write_text(table.read_text() + "150,1.0,1.0\n")
    assert said("--unfinished") == "replaced: results/A-v0/float32/seed_2\n"
    other = bench.runs / "A-v0" / "float32" / "seed_1" / "b__run"
    shutil.copytree(runs[1] / "seed_1", other)
    shutil.copy(runs[1] / "config.json", other)
    both = (os.path.relpath(run, copy) for run in (other, runs[1]))
    twice = f"two runs have it, {' and '.join(both)}; the later in this order counts"
    assert said() == f"results/A-v0/float32/seed_1: {twice}\n"


def test_a_run_whose_own_shell_was_killed_is_named(bench, tmp_path, monkeypatch):
    """As one is that a full disk left without a word."""
    kills = STAND_IN.replace('[ "$OMP', '[[ "$*" != *Fail* ]] || { kill -9 $PPID; exit; }\n[ "$OMP')
    monkeypatch.setenv("PYTHON", str(program(tmp_path / "python", kills)))
    words = (
        "momentum",
        "--labels",
        "no-momentum",
        "--seeds",
        "1",
        "--total-timesteps",
        "100",
        "--workers",
        "1",
    )
    ended = bench(*words, "--envs", "A-v0 Fail-v0")
    folder = bench.runs / "Fail-v0" / "no-momentum" / "seed_1"
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(
        f"Fail-v0/no-momentum/seed_1: not finished; log: {os.path.relpath(folder, ROOT)}/log.txt"
    )
    assert "A-v0/no-momentum" not in ended.stderr.splitlines()[-1].replace("Fail-v0", "")


def collected(copy):
    """Folders of results/, each of which has the two files and nothing else."""
    files = [path for path in (copy / "results").rglob("*") if path.is_file()]
    folders = sorted({path.parent for path in files})
    assert sorted(files) == [folder / name for folder in folders for name in ("config.json", "eval.csv")]
    return [str(folder.relative_to(copy / "results")) for folder in folders]


def test_folders_with_spaces_and_relative_calls(bench, tmp_path):
    copy = copy_to(tmp_path / "a copy")
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
    copy_to(tmp_path / "copy")
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
    copy_to(tmp_path)
    program(tmp_path / "bin" / "python3", "#!/bin/sh\nexit 1\n")
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
        (["continuous", "--batch", "0"], "--batch must be a whole number from 1 to 999999999, not '0'"),
        (["quick", "--batch", "5"], "quick has its own --batch"),
        (["safe", "--labels", "sac_nf"], "'sac_nf' in safe, which has: sac_lagrangian sac_hpo_safe"),
        (["safe", "--labels"], "--labels needs a value"),
        (["continuous ablation"], "no experiment 'continuous ablation'"),
        (["sensitivity-"], "no experiment 'sensitivity-'"),
        (
            ["choices", "--envs", "A-v0", "--labels", "spreads-exchanged"],
            "no runs: --help says to which tasks",
        ),
        (["continuous", "--workers"], "--workers must be a whole number from 1 to"),
        (["continuous", "--workers", "99999999999999999999"], "--workers must be a whole number from 1 to"),
        (["continuous", "--sedes", "3"], "unknown option --sedes"),
        (["continuous", "--envs"], "--envs needs a value"),
        (["continuous", "--envs", "  "], "--envs needs a value"),
        (["continuous", "--envs", "--dry-run"], "--envs needs a value"),
        (["continuous", "--runs", "a'b"], "--runs must not have spaces or quotes"),
        (["continuous", "--runs", "benchmark.sh"], "--runs benchmark.sh cannot be made"),
        (["quick", "--seeds", "3"], "quick has its own --seeds"),
        (["collect", "--envs", "A-v0"], "collect knows --runs, --unfinished and --dry-run, not --envs"),
        (["momentum", "--unfinished"], "--unfinished is for collect"),
        (["speed", "--cuda", "--rounds", "1"], "speed --cuda goes without --rounds and --sb3"),
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
    copy = copy_to(tmp_path / "copy")  # with no runs in it that a regression could overwrite
    files = sorted(copy.iterdir())
    ended = subprocess.run(["./benchmark.sh", *words], cwd=copy, capture_output=True, text=True)
    assert ended.returncode == 2 and sorted(copy.iterdir()) == files
    assert ended.stderr.startswith("benchmark.sh: ") and ended.stderr.count("\n") == 1
    assert message in ended.stderr
    assert not bench.calls()


def test_a_copy_without_the_table(bench, tmp_path):
    copy = copy_to(tmp_path / "copy")
    (copy / "experiments.csv").unlink()
    ended = subprocess.run([str(copy / "benchmark.sh"), "safe"], capture_output=True, text=True)
    assert ended.returncode == 2 and not bench.calls()
    assert ended.stderr == "benchmark.sh: experiments.csv, the table of the experiments, is not here\n"


def test_help(bench):
    assert "./benchmark.sh sensitivity" in bench("--help", start="bare").stdout
    assert os.access(ROOT / "benchmark.sh", os.X_OK)
