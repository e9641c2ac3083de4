"""Steps per second of training: our scripts and, if it is installed, Stable-Baselines3's SAC.

    python speed.py                   # one CPU core, a quarter of an hour; writes results/speed.csv
    python speed.py --cuda            # a GPU; writes results/speed_cuda.csv

A script is run as anybody runs it, in a folder that is removed afterwards, and its eval.csv is read, without
the first row, which has random steps in it. Agent-steps are steps times seeds. All systems take turns within
a round, so a machine that changes its pace changes it for all of them.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent
SCRIPTS = "sac_baseline", "sac_nf", "sac_hpo_continuous", "sac_lagrangian", "sac_hpo_safe"
SB3 = "SB3 SAC"


def speed_of_script(script: str, seeds: int, options: argparse.Namespace) -> float:
    """Of two stretches without random steps, between evaluations by one episode."""
    steps = options.steps if options.cuda else max(10, options.steps // seeds)
    with tempfile.TemporaryDirectory() as folder:
        words = f"--env-id {options.env_id} --num-seeds {seeds} --learning-starts {steps // 2}"
        words += f" --total-timesteps {3 * steps} --eval-frequency {steps} --eval-episodes 1"
        words += " --cuda" if options.cuda else " --no-cuda"
        command = [sys.executable, f"{script}.py", *words.split(), "--run-dir", f"{folder}/run"]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if ended.returncode:
            sys.exit(f"speed.py: {script} failed: {ended.stderr.strip()[-300:]}")
        table = pd.read_csv(f"{folder}/run/seed_1/eval.csv")
    return statistics.harmonic_mean(table["steps_per_second"][1:])


def speed_of_sb3(options: argparse.Namespace) -> float:
    """At our batch size, networks and updates per step, which are its defaults."""
    from stable_baselines3 import SAC

    torch.set_num_threads(1)
    steps, device = options.steps, "cuda" if options.cuda else "cpu"
    model = SAC("MlpPolicy", options.env_id, learning_starts=steps // 2, ent_coef=0.2, device=device)
    model.learn(steps)
    start = time.perf_counter()
    model.learn(2 * steps, reset_num_timesteps=False)
    return 2 * steps / (time.perf_counter() - start)


def measure(system: str, seeds: int, options: argparse.Namespace) -> float:
    if system != SB3:
        return speed_of_script(system, seeds, options)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # it starts as fresh as a script does
        return pool.submit(speed_of_sb3, options).result()


def table_of(measured: dict[tuple[str, int], list[float]], env_id: str) -> pd.DataFrame:
    """Medians over the rounds; of the ratios to Stable-Baselines3 as well, each within a round."""
    rows, sb3 = [], measured.get((SB3, 1), [])
    for (system, seeds), speeds in measured.items():
        speed, ratios = statistics.median(speeds), [seeds * a / b for a, b in zip(speeds, sb3, strict=False)]
        row = {"task": env_id, "system": system, "seeds": seeds, "steps_per_second": round(speed, 1)}
        row |= {"agent_steps_per_second": round(seeds * speed, 1), "rounds": len(speeds)}
        rows.append(row | ({"times_sb3": round(statistics.median(ratios), 2)} if ratios else {}))
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuda", action="store_true", help="on a GPU")
    parser.add_argument("--scripts", nargs="+", choices=SCRIPTS, default=[SCRIPTS[0], SCRIPTS[2]])
    parser.add_argument("--env-id", default="Hopper-v4")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 5, 20], help="numbers of seeds at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="agent-steps, on a GPU steps, between evaluations")
    options = parser.parse_args()
    if options.cuda and not torch.cuda.is_available():
        sys.exit("speed.py: --cuda needs a GPU that PyTorch finds")
    options.steps = options.steps or (4000 if options.cuda else 1000)
    names = re.findall(r"model name\s*: (.*)", subprocess.getoutput("cat /proc/cpuinfo"))
    cores = f"{os.cpu_count()} cores of {[*names, platform.machine()][0]}"
    machine = torch.cuda.get_device_name() if options.cuda else cores
    path = ROOT / "results" / f"speed{'_cuda' * options.cuda}.csv"
    os.environ.update(OMP_NUM_THREADS="1", MALLOC_TOP_PAD_="1000000000")  # as benchmark.sh starts runs
    measured = {(SB3, 1): []} if find_spec("stable_baselines3") else {}
    measured |= {(script, seeds): [] for script in options.scripts for seeds in options.seeds}
    for number in range(options.rounds):
        for (system, seeds), speeds in measured.items():
            speeds.append(measure(system, seeds, options))
            print(f"round {number + 1}: {system}, {seeds} seed(s): {speeds[-1]:.1f} steps/s", file=sys.stderr)
        table = table_of(measured, options.env_id)  # a call that is broken off leaves its finished rounds
        table.assign(machine=machine, torch=torch.__version__).to_csv(path, index=False)
    for cells in table.columns, ["---"] * len(table.columns), *table.itertuples(index=False):
        print("| " + " | ".join(map(str, cells)) + " |")
    print(f"\n{machine}; torch {torch.__version__}")


if __name__ == "__main__":
    main()
