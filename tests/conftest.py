"""What the tests share: the scripts as modules, small agents in float64, random batches, calls of scripts."""

import csv
import importlib
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

# Tests run side by side, one on each core: more threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
UNSAFE = ["sac_baseline", "sac_nf", "sac_hpo_continuous"]
SAFE = ["sac_lagrangian", "sac_hpo_safe"]
SCRIPTS = UNSAFE + SAFE


def modules(*names: str):
    @pytest.fixture(params=names)
    def module(request):
        return importlib.import_module(request.param)

    return module


script = modules(*SCRIPTS)  # each algorithm in turn
unsafe = modules(*UNSAFE)
safe = modules(*SAFE)
hpo = modules("sac_hpo_continuous", "sac_hpo_safe")
# For tests of what test_diffable.py holds to be the same in all: shortest and longest, or the latter alone.
either = modules("sac_baseline", "sac_hpo_safe")
longest = modules("sac_hpo_safe")


def make_args(module, **changes):
    """Args of a script. Where it needs a cost and none is given or known for the task: torque, limited to 0:
    lambda moves at every episode and Algorithm 3 rejects some actions."""
    changes = {"env_id": "Hopper-v4", **changes}
    family = changes["env_id"].rpartition("-v")[0]
    if module.__name__ in SAFE and "cost" not in changes and family not in module.COSTS:
        changes = {"cost": "torque", "cost_limit": 0.0, **changes}
    return module.Args(**changes)


def cost_flags(name: str) -> list[str]:
    """The same for a command line."""
    return ["--cost", "torque", "--cost-limit", "0"] if name in SAFE else []


def make_agent(module, obs_dim=3, action_dim=2, seeds=1, seed=0, dtype=torch.float64, fresh=False, **changes):
    """S agents with random weights, and resolved arguments. Unless `fresh`, targets and critics differ, as
    after some training: a formula that takes one for the other is noticed."""
    args = module.resolve(make_args(module, **changes))
    generator = torch.Generator().manual_seed(seed)
    agent = module.Agent(generator, seeds, obs_dim, action_dim, args).to(dtype)
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            if "target" in name and not fresh:
                parameter.mul_(1.1)
    return agent, args


def random(*shape, seed=1, dtype=torch.float64):
    """N(0, 1), the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_batch(module, rows=16, seeds=1, obs_dim=3, action_dim=2, seed=7, dtype=torch.float64):
    """A Batch (S, B, ...); every third transition terminates; with costs where the script has them."""
    numbers = random(2 + action_dim, seeds, rows, seed=seed, dtype=dtype)
    reward, cost, action = numbers.split([1, 1, action_dim])
    row = {
        "obs": random(seeds, rows, obs_dim, seed=seed + 1, dtype=dtype),
        "action": torch.tanh(action).movedim(0, -1),
        "reward": reward[0],
        "next_obs": random(seeds, rows, obs_dim, seed=seed + 2, dtype=dtype),
        "terminated": (torch.arange(rows) % 3 == 0).to(dtype).expand(seeds, rows),
        "cost": cost[0].abs(),
    }
    return module.Batch(**{name: row[name] for name in module.Batch._fields})


def action_dim_of(agent) -> int:
    return agent.policy.mean.bias.shape[-1]


def noise_for(agent, rows=16, seeds=1, seed=3, dtype=torch.float64):
    """Of an update: (2 draws, S, B, A)."""
    return random(2 * agent.draws, seeds, rows, action_dim_of(agent), seed=seed, dtype=dtype)


def plain_optimizers(agent, **rates):
    """Plain gradient descent, with step size 1 unless one is given: every step then is minus the gradient."""
    parts = {"q": agent.q.parameters(), "policy": agent.policy.parameters(), "log_alpha": [agent.log_alpha]}
    if hasattr(agent, "q_cost"):
        parts["q_cost"] = agent.q_cost.parameters()
    return {name: torch.optim.SGD(list(part), lr=rates.get(name, 1.0)) for name, part in parts.items()}


def weights(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def weights_of(agent, seeds, index=0) -> dict:
    """A copy of one agent's weights, as an agent of one seed has them."""
    return {name: value.chunk(seeds)[index].clone() for name, value in agent.state_dict().items()}


def act(agent, obs, noise, first_obs=None):
    """The actions (S, B, A), of Algorithm 3 too: there the episodes began at first_obs, or at obs."""
    if "first_obs" in inspect.signature(agent.act).parameters:
        return agent.act(obs, noise, obs if first_obs is None else first_obs)[0]
    return agent.act(obs, noise)


def rows_of(run, seed=1) -> list[dict]:
    """eval.csv without the column that a clock fills."""
    table = list(csv.DictReader((Path(run) / f"seed_{seed}" / "eval.csv").read_text().splitlines()))
    return [{name: row[name] for name in row if name != "steps_per_second"} for row in table]


def agent_of(run, step, seed=1) -> dict:
    return torch.load(Path(run) / f"seed_{seed}" / f"agent_{step}.pt", weights_only=True)["agent"]


def same(first, second) -> bool:
    equal = (torch.equal(value, second[name]) for name, value in first.items())
    return first.keys() == second.keys() and all(equal)


def flags(**settings) -> list:
    """Settings as words of a command line."""
    words = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, value]
    return words


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def command(name, *words) -> list[str]:
    return [sys.executable, str(ROOT / f"{name}.py"), *map(str, words)]


def call(name, *words, **options):
    """Runs a script as a user does."""
    return subprocess.run(command(name, *words), capture_output=True, text=True, **options)


def start(name, *words) -> subprocess.Popen:
    """A script on its own, as in a terminal: in a process group, and with Ctrl-C, which jobs in the
    background ignore."""
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    options |= dict(env={**os.environ, "PYTHONPATH": str(ROOT / "tests")})
    reset = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command(name, *words), preexec_fn=reset, **options)


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def main(monkeypatch, capsys):
    """Like `call`, but in this process: torch need not be imported anew, and a test may change what a script
    finds. An exception that the script does not turn into a line is raised here."""

    def run(name, *words) -> Ended:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        path, module = ROOT / f"{name}.py", ModuleType("__main__")
        module.__file__ = str(path)
        for alias in "__main__", "__mp_main__":
            monkeypatch.setitem(sys.modules, alias, module)
        capsys.readouterr()
        status = 0
        try:
            exec(compile(path.read_text(), path, "exec"), module.__dict__)
        except SystemExit as ended:
            status = ended.code or 0
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def quick(monkeypatch):
    """Processes beside the training are copies of this one, which start at once: a script's begin anew."""
    fork = multiprocessing.get_context("fork")
    for where in (multiprocessing, *(importlib.import_module(name) for name in SCRIPTS)):
        monkeypatch.setattr(where, "get_context", lambda kind: fork)
