"""What `./benchmark.sh speed` runs: steps per second in training, of all scripts, with 1, 5 and 20 seeds.

A script is run as anybody runs it, and its own eval.csv is read: from step 1,000 on, environment and acting
included, evaluation excluded. Agent-steps are steps times seeds.

On a CPU, beside Stable-Baselines3's SAC if that is there. All systems take turns within a round, so a machine
that changes its pace changes it for all; a ratio is the median of the rounds' ratios. Writes
results/speed.csv after each of three rounds, of eleven minutes each.

On a GPU (--cuda) in about five minutes. Writes results/speed_cuda.csv.
"""

import argparse
import csv
import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent
SEEDS = (1, 5, 20)
UNSAFE, SAFE = ["sac_baseline", "sac_nf", "sac_hpo_continuous"], ["sac_lagrangian", "sac_hpo_safe"]
CASES = {"Hopper-v4": UNSAFE, "HalfCheetah-v4": SAFE}  # task -> what runs on it
CASES_OF_ONE_SEED = {"Humanoid-v4": UNSAFE}  # on a CPU
SB3 = """
import resource, sys, time
import gymnasium, numpy, torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
task, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
class Clock(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == 1000:
            self.start = time.perf_counter()
        if self.num_timesteps == 1000 + steps:
            print(steps / (time.perf_counter() - self.start))
        return True
full = steps == 0  # memory with a full replay buffer, instead of speed
model = SAC("MlpPolicy", gymnasium.make(task), learning_starts=800, ent_coef=0.2, seed=1, device="cpu")
if full:
    buffer = model.replay_buffer
    for name in "observations", "next_observations", "actions", "rewards", "dones", "timeouts":
        getattr(buffer, name)[:] = 0
    buffer.pos, buffer.full = 0, True
    model.learn(801)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0**2)
else:
    model.learn(1000 + steps + 1, callback=Clock())
"""


def run(command: list[str], threads: int) -> str:
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONWARNINGS="ignore")
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    if ended.returncode:
        raise SystemExit(f"benchmark.sh: {' '.join(command[:2])} failed: {ended.stderr.strip()[-300:]}")
    return ended.stdout


def flags_of(script: str) -> list[str]:
    """Those of the label of its name in experiments.csv."""
    with open(ROOT / "experiments.csv", newline="") as file:
        return next(row["flags"].split() for row in csv.DictReader(file) if row["label"] == script)


def speed_of_ours(script: str, task: str, threads: int, steps: int, seeds: int, cuda=False) -> float:
    """Steps per second; each step is one of every seed. Updates begin before the first step that counts."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, f"{script}.py", "--env-id", task, *flags_of(script)]
        command += ["--torch-threads", str(threads)]
        command += ["--learning-starts", str(1000 - 200 // seeds), "--total-timesteps", str(1000 + steps)]
        command += ["--num-seeds", str(seeds), "--eval-frequency", "1000", "--eval-episodes", "1"]
        run([*command, "--runs-dir", folder, "--cuda" if cuda else "--no-cuda"], threads)
        table, *_ = [*Path(folder).glob("*/seed_1/eval.csv")]
        _, *rows = csv.DictReader(table.read_text().splitlines())  # the first has the random steps in it
    last = [int(row["global_step"]) for row in rows]
    counts = [b - a for a, b in zip([1000, *last], last, strict=False)]
    return sum(counts) / sum(n / float(row["steps_per_second"]) for n, row in zip(counts, rows, strict=True))


def speed_of_sb3(python: str, task: str, threads: int, steps: int) -> float:
    return float(run([python, "-c", SB3, task, str(threads), str(steps)], threads).split()[-1])


def system(script: str, task: str, capacity: int):
    """An update of a fresh agent of a script, with a replay buffer full of zeros, as a function."""
    module = importlib.import_module(script)
    args = tyro.cli(module.Args, args=["--env-id", task, *flags_of(script)])
    args, env = module.make_task(module.resolve(args))
    torch.set_num_threads(1)
    shape, device = (env.obs_dim, env.action_dim), torch.device("cpu")
    generators, noise_generators = module.make_generators(range(1), device)
    agent = module.Agent(1, *shape, args)
    module.draw_weights(agent, generators)
    optimizers = module.make_optimizers(agent, args)
    buffer = module.ReplayBuffer(1, capacity, *shape, device)
    buffer.data.fill_(0.0)
    buffer.filled.fill_(capacity)
    noise = module.Noise(noise_generators, agent.policy, args.batch_size, shape[1])

    def learn():
        noise.advance()
        batch = buffer.sample(noise.now(noise.rows))
        module.update(agent, optimizers, batch, noise.now(noise.to_update).transpose(0, 1), args)

    return learn


@cache
def gflop_of_an_update(script: str, task: str) -> float:
    learn = system(script, task, 1000)
    with FlopCounterMode(display=False) as counter:
        learn()
    return counter.get_total_flops() / 1e9


@cache
def gibibytes_with_a_full_buffer(script: str, task: str) -> float:
    """In a process of its own: `speed.py --memory SCRIPT TASK`."""
    return float(run([sys.executable, __file__, "--memory", script, task], 1))


@cache
def gibibytes_of_sb3(python: str, task: str) -> float:
    return float(run([python, "-c", SB3, task, "1", "0"], 1))


@cache
def seconds_to_the_first_update(script: str, task: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, f"{script}.py", "--env-id", task, *flags_of(script)]
        command += ["--learning-starts", "0", "--total-timesteps", "1", "--eval-episodes", "1", "--no-cuda"]
        run([*command, "--runs-dir", folder], 1)
        return time.perf_counter() - start


def matrix_rate() -> float:
    """GFLOP/s of one thread on the products that make up an update, (256, 256) x (256, 256) in float32."""
    torch.set_num_threads(1)
    a, b, c = (torch.randn(256, 256) for _ in range(3))
    rates = []
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(20):
            torch.mm(a, b, out=c)
        rates.append(20 * 2 * 256**3 / (time.perf_counter() - start) / 1e9)
    return statistics.median(rates)


def machine() -> str:
    with open("/proc/cpuinfo") as file:
        model = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine()
        )
    return f"{os.cpu_count()} cores of {model}; torch {torch.__version__}, Python {platform.python_version()}"


def on_a_gpu(options) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("benchmark.sh: speed --cuda needs a GPU that PyTorch finds")
    rows = []
    for script, task in [(script, task) for task, scripts in CASES.items() for script in scripts]:
        for seeds in SEEDS:
            speed = speed_of_ours(script, task, 1, int(4000 * options.share_of_steps), seeds, cuda=True)
            row = {"task": task, "system": script, "seeds": seeds, "steps_per_second": round(speed, 1)}
            row |= {"agent_steps_per_second": round(speed * seeds), "gpu": torch.cuda.get_device_name()}
            rows.append(row | {"machine": machine()})
            print(f"{script}, {task}, {seeds} seed(s): {speed * seeds:.0f} agent-steps/s", flush=True)
    write(Path(options.out).with_name("speed_cuda.csv"), rows)


def write(path: Path, rows: list[dict]) -> None:
    part = Path(f"{path}.part")
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def what_to_measure(options) -> list[tuple]:
    """On a CPU, in the order of a round: (task, system, seeds, threads), and how many steps are timed."""
    cases = []
    for threads in (1, 2) if (os.cpu_count() or 1) > 1 else (1,):
        for task, scripts in {**CASES, **(CASES_OF_ONE_SEED if threads == 1 else {})}.items():
            systems = [("SB3 SAC", 1)] if options.sb3_python else []
            for script in scripts:
                many = threads == 1 and task in CASES
                systems += [(script, seeds) for seeds in (SEEDS if many else (1,))]
            cases += [((task, name, seeds, threads), 800 // seeds) for name, seeds in systems]
    return cases


def row_of(key: tuple, measured: dict, rate: float, options) -> dict:
    """A row of speed.csv; of one seed and thread with memory and what an update computes (measured once)."""
    task, name, seeds, threads = key
    speeds, theirs = measured[key], measured.get((task, "SB3 SAC", 1, threads), [])
    row = {"task": task, "system": name, "seeds": seeds, "threads": threads, "rounds": len(speeds)}
    row["steps_per_second"] = round(statistics.median(speeds) / seeds, 1)
    row["agent_steps_per_second"] = round(statistics.median(speeds), 1)
    row |= {"lowest": round(min(speeds), 1), "highest": round(max(speeds), 1)}
    ratios = [ours / other for ours, other in zip(speeds, theirs, strict=False)]
    row["times_sb3"] = round(statistics.median(ratios), 2) if ratios else ""
    row |= dict.fromkeys(("gflop_per_update", "gibibytes", "seconds_to_first_update", "share_of_limit"), "")
    if seeds == threads == 1 and name == "SB3 SAC":
        row["gibibytes"] = round(gibibytes_of_sb3(options.sb3_python, task), 2)
    elif seeds == threads == 1:
        row["gflop_per_update"] = round(gflop_of_an_update(name, task), 3)
        row["gibibytes"] = round(gibibytes_with_a_full_buffer(name, task), 2)
        row["seconds_to_first_update"] = round(seconds_to_the_first_update(name, task), 1)
        row["share_of_limit"] = round(row["gflop_per_update"] * row["steps_per_second"] / rate, 2)
    return row | {"matrix_gflop_per_second": round(rate, 1), "machine": machine()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sb3-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share-of-steps", type=float, default=1.0)
    parser.add_argument("--out", default=str(ROOT / "results" / "speed.csv"))
    parser.add_argument("--memory", nargs=2)
    parser.add_argument("--cuda", action="store_true")
    options = parser.parse_args()
    if options.memory:
        import resource

        system(*options.memory, 1_000_000)()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0**2)
        return
    if options.cuda:
        return on_a_gpu(options)

    rates, measured = [matrix_rate()], {}
    for number in range(options.rounds):
        for key, steps in what_to_measure(options):
            task, name, seeds, threads = key
            steps = max(50, int(steps * options.share_of_steps))
            if name == "SB3 SAC":
                speed = speed_of_sb3(options.sb3_python, task, threads, steps)
            else:
                speed = speed_of_ours(name, task, threads, steps, seeds)
            measured.setdefault(key, []).append(speed * seeds)
            case = f"{task}, {name}, {seeds} seed(s), {threads} thread(s)"
            print(f"round {number + 1}: {case}: {speed:.1f} steps/s", flush=True)
        rates.append(matrix_rate())
        write(options.out, [row_of(key, measured, statistics.median(rates), options) for key in measured])


if __name__ == "__main__":
    main()
