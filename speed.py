"""What `./benchmark.sh speed` runs: steps per second in training.

On a CPU, beside Stable-Baselines3's SAC if that is there: after the first 1,000 steps, environment and acting
included, evaluation excluded; a script is run as anybody runs it, and its own eval.csv is read. All systems
take turns within a round, so a machine that changes its pace changes it for all; a ratio is the median of the
rounds' ratios. Writes results/speed.csv.

On a GPU (--cuda): agent-steps per second, that is steps per second times seeds, of all scripts with 1, 5 and
20 seeds at once, in about five minutes. Writes results/speed_cuda.csv.
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

ROOT = Path(__file__).resolve().parent
SEEDS = (1, 5, 20)
THREE_STEPS = ["--leapfrog-steps", "3"]
CASES = {  # task -> steps that are timed, and what runs on it
    "Hopper-v4": (1200, [("sac_baseline", []), ("sac_nf", []), ("sac_hpo_continuous", THREE_STEPS)]),
    "Humanoid-v4": (500, [("sac_baseline", []), ("sac_nf", []), ("sac_hpo_continuous", THREE_STEPS)]),
    "HalfCheetah-v4": (800, [("sac_hpo_safe", THREE_STEPS)]),
}
GPU_CASES = [(script, "Hopper-v4") for script in ("sac_baseline", "sac_nf", "sac_hpo_continuous")]
GPU_CASES += [(script, "HalfCheetah-v4") for script in ("sac_lagrangian", "sac_hpo_safe")]
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


def speed_of_ours(
    script: str, task: str, flags: list[str], threads: int, steps: int, seeds: int = 1
) -> float:
    """Steps per second; each step is one of every seed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, f"{script}.py", "--env-id", task, *flags, "--torch-threads", str(threads)]
        command += ["--learning-starts", "800", "--total-timesteps", str(1000 + steps)]
        command += ["--num-seeds", str(seeds), "--eval-frequency", "1000", "--eval-episodes", "1"]
        run([*command, "--runs-dir", folder], threads)
        table, *_ = [*Path(folder).glob("*/seed_1/eval.csv")]
        rows = list(csv.DictReader(table.read_text().splitlines()))[
            1:
        ]  # the first has the random steps in it
    last = [int(row["global_step"]) for row in rows]
    counts = [b - a for a, b in zip([1000, *last], last, strict=False)]
    return sum(counts) / sum(n / float(row["steps_per_second"]) for n, row in zip(counts, rows, strict=True))


def speed_of_sb3(python: str, task: str, threads: int, steps: int) -> float:
    return float(run([python, "-c", SB3, task, str(threads), str(steps)], threads).split()[-1])


def system(script: str, task: str, flags: list[str], capacity: int):
    """An update of a fresh agent of a script, with a replay buffer full of zeros, as a function."""
    module = importlib.import_module(script)
    changes = {"leapfrog_steps": 3} if flags else {}
    args, env = module.make_task(module.resolve(module.Args(env_id=task, **changes)))
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


def gflop_of_an_update(script: str, task: str, flags: list[str]) -> float:
    learn = system(script, task, flags, 1000)
    with FlopCounterMode(display=False) as counter:
        learn()
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
        model = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine()
        )
    return f"{os.cpu_count()} cores of {model}; torch {torch.__version__}, Python {platform.python_version()}"


def on_a_gpu(options) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("benchmark.sh: speed --cuda needs a GPU that PyTorch finds")
    rows = []
    for script, task in GPU_CASES:
        for seeds in SEEDS:
            speed = speed_of_ours(script, task, [], 1, int(4000 * options.share_of_steps), seeds)
            row = {"task": task, "system": script, "seeds": seeds, "steps_per_second": round(speed, 1)}
            row |= {"agent_steps_per_second": round(speed * seeds), "gpu": torch.cuda.get_device_name()}
            rows.append(row | {"machine": machine()})
            print(f"{script}, {task}, {seeds} seed(s): {speed * seeds:.0f} agent-steps/s", flush=True)
    write(Path(options.out).with_name("speed_cuda.csv"), rows)


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sb3-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="*", default=list(CASES))
    parser.add_argument("--share-of-steps", type=float, default=1.0)
    parser.add_argument("--out", default=str(ROOT / "results" / "speed.csv"))
    parser.add_argument("--memory", nargs=2)
    parser.add_argument("--cuda", action="store_true")
    options = parser.parse_args()
    if options.memory:
        import resource

        system(*options.memory, [], 1_000_000)()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0**2)
        return
    if options.cuda:
        return on_a_gpu(options)

    rates, rows = [matrix_rate()], []
    for task in options.tasks:
        steps, scripts = CASES[task]
        steps = int(steps * options.share_of_steps)
        for threads in (1, 2) if (os.cpu_count() or 1) > 1 else (1,):
            measured, rounds = {}, options.rounds if threads == 1 else min(2, options.rounds)
            for number in range(rounds):
                if options.sb3_python:
                    measured.setdefault("SB3 SAC", []).append(
                        speed_of_sb3(options.sb3_python, task, threads, steps)
                    )
                for script, flags in scripts:
                    speed = speed_of_ours(script, task, flags, threads, steps)
                    measured.setdefault(script, []).append(speed)
                now = ", ".join(f"{name} {speeds[-1]:.1f}" for name, speeds in measured.items())
                print(
                    f"{task}, {threads} thread(s), round {number + 1} of {rounds}: {now} steps/s", flush=True
                )
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
                    row["gibibytes"] = round(
                        float(run([options.sb3_python, "-c", SB3, task, "1", "0"], 1)), 2
                    )
                rows.append(row)
    rate = statistics.median(rates)
    for row in rows:
        gflop = row["gflop_per_update"]
        row["share_of_limit"] = round(gflop * row["steps_per_second"] / rate, 2) if gflop else ""
        row |= {"matrix_gflop_per_second": round(rate, 1), "machine": machine()}
    write(options.out, rows)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
