"""What `./benchmark.sh speed` runs: steps per second in training, beside Stable-Baselines3's SAC if that is there.

Steady state: after the first 1,000 steps, environment and acting included, evaluation excluded; a script is run as
anybody runs it, and its own eval.csv is read. All systems take turns within a round, so a machine that changes its pace
changes it for all; a ratio is the median of the rounds' ratios. Writes results/speed.csv.
"""

import argparse
import csv
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
THREE_STEPS = ["--leapfrog-steps", "3"]
CASES = {  # task -> steps that are timed, and what runs on it
    "Hopper-v4": (1200, [("sac_baseline", []), ("sac_nf", []), ("sac_hpo_continuous", THREE_STEPS)]),
    "Humanoid-v4": (500, [("sac_baseline", []), ("sac_nf", []), ("sac_hpo_continuous", THREE_STEPS)]),
    "HalfCheetah-v4": (800, [("sac_hpo_safe", THREE_STEPS)]),
}
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


def speed_of_ours(script: str, task: str, flags: list[str], threads: int, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, f"{script}.py", "--env-id", task, *flags, "--torch-threads", str(threads)]
        command += ["--learning-starts", "800", "--total-timesteps", str(1000 + steps), "--eval-frequency", "1000"]
        run([*command, "--eval-episodes", "1", "--runs-dir", folder], threads)
        (table,) = Path(folder).glob("*/eval.csv")
        rows = list(csv.DictReader(table.read_text().splitlines()))[1:]  # the first has the random steps in it
    last = [int(row["global_step"]) for row in rows]
    counts = [b - a for a, b in zip([1000, *last], last, strict=False)]
    return sum(counts) / sum(n / float(row["steps_per_second"]) for n, row in zip(counts, rows, strict=True))


def speed_of_sb3(python: str, task: str, threads: int, steps: int) -> float:
    return float(run([python, "-c", SB3, task, str(threads), str(steps)], threads).split()[-1])


def agent_and_batch(script: str, task: str, flags: list[str], capacity: int):
    """A script's module, a fresh agent, a full replay buffer of zeros, arguments."""
    import numpy as np

    module = importlib.import_module(script)
    changes = {"leapfrog_steps": 3} if flags else {}
    args = module.resolve(module.Args(env_id=task, **changes))
    torch.set_num_threads(1)
    env = module.make_env(args)
    shape = env.observation_space.shape[0], env.action_space.shape[0]
    agent = module.Agent(*shape, args, torch.device("cpu"))
    buffer = module.ReplayBuffer(capacity, *shape)
    for array in buffer.data:
        array[:] = 0.0
    buffer.added = capacity
    return module, agent, buffer, args, np.random.default_rng(0)


def gflop_of_an_update(script: str, task: str, flags: list[str]) -> float:
    module, agent, buffer, args, rng = agent_and_batch(script, task, flags, 1000)
    with FlopCounterMode(display=False) as counter:
        module.update(agent, buffer.sample(args.batch_size, rng, agent.device), args)
    return counter.get_total_flops() / 1e9


def gibibytes_with_a_full_buffer(script: str, task: str) -> float:
    """In a process of its own: `speed.py --memory SCRIPT TASK`."""
    return float(run([sys.executable, __file__, "--memory", script, task], 1))


def seconds_to_the_first_update(script: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, f"{script}.py", "--env-id", "Hopper-v4", "--learning-starts", "0"]
        run([*command, "--total-timesteps", "1", "--eval-episodes", "1", "--runs-dir", folder], 1)
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
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores of {model}; torch {torch.__version__}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sb3-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="*", default=list(CASES))
    parser.add_argument("--share-of-steps", type=float, default=1.0)
    parser.add_argument("--out", default=str(ROOT / "results" / "speed.csv"))
    parser.add_argument("--memory", nargs=2)
    options = parser.parse_args()
    if options.memory:
        import resource

        module, agent, buffer, args, rng = agent_and_batch(*options.memory, [], 1_000_000)
        module.update(agent, buffer.sample(args.batch_size, rng, agent.device), args)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0**2)
        return

    rates, rows = [matrix_rate()], []
    for task in options.tasks:
        steps, scripts = CASES[task]
        steps = int(steps * options.share_of_steps)
        for threads in (1, 2) if (os.cpu_count() or 1) > 1 else (1,):
            measured, rounds = {}, options.rounds if threads == 1 else min(2, options.rounds)
            for number in range(rounds):
                if options.sb3_python:
                    measured.setdefault("SB3 SAC", []).append(speed_of_sb3(options.sb3_python, task, threads, steps))
                for script, flags in scripts:
                    speed = speed_of_ours(script, task, flags, threads, steps)
                    measured.setdefault(script, []).append(speed)
                now = ", ".join(f"{name} {speeds[-1]:.1f}" for name, speeds in measured.items())
                print(f"{task}, {threads} thread(s), round {number + 1} of {rounds}: {now} steps/s", flush=True)
            rates.append(matrix_rate())
            for name, speeds in measured.items():
                row = {"task": task, "system": name, "threads": threads, "rounds": rounds}
                row |= {"steps_per_second": round(statistics.median(speeds), 1)}
                row |= {"lowest": round(min(speeds), 1), "highest": round(max(speeds), 1)}
                pairs = zip(speeds, measured.get("SB3 SAC", []), strict=False)
                ratios = [ours / theirs for ours, theirs in pairs]
                row["times_sb3"] = round(statistics.median(ratios), 2) if ratios else ""
                row["gflop_per_update"], row["gibibytes"], row["seconds_to_first_update"] = "", "", ""
                if threads == 1 and name != "SB3 SAC":
                    row["gflop_per_update"] = round(gflop_of_an_update(name, task, dict(scripts)[name]), 3)
                    row["gibibytes"] = round(gibibytes_with_a_full_buffer(name, task), 2)
                    row["seconds_to_first_update"] = (
                        round(seconds_to_the_first_update(name), 1) if "Hop" in task else ""
                    )
                elif threads == 1:
                    row["gibibytes"] = round(float(run([options.sb3_python, "-c", SB3, task, "1", "0"], 1)), 2)
                rows.append(row)
    rate = statistics.median(rates)
    for row in rows:
        gflop = row["gflop_per_update"]
        row["share_of_limit"] = round(gflop * row["steps_per_second"] / rate, 2) if gflop else ""
        row |= {"matrix_gflop_per_second": round(rate, 1), "machine": machine()}
    with open(options.out, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
