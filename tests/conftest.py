"""What the tests share: the scripts as modules, and a way to build a small agent in float64."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
UNSAFE = ["sac_baseline", "sac_nf", "sac_hpo_continuous"]
SAFE = ["sac_lagrangian", "sac_hpo_safe"]
SCRIPTS = UNSAFE + SAFE


@pytest.fixture(params=SCRIPTS)
def script(request):
    """Each algorithm in turn, imported."""
    return importlib.import_module(request.param)


@pytest.fixture(params=UNSAFE)
def unsafe(request):
    return importlib.import_module(request.param)


@pytest.fixture(params=["sac_baseline", "sac_hpo_safe"])
def either(request):
    """The shortest script and the longest, for slow tests of what test_diffable.py holds to be the same in all."""
    return importlib.import_module(request.param)


@pytest.fixture(params=SAFE)
def safe(request):
    return importlib.import_module(request.param)


@pytest.fixture(params=["sac_hpo_continuous", "sac_hpo_safe"])
def hpo(request):
    return importlib.import_module(request.param)


def make_args(module, **changes):
    """Args of a script; where it needs a cost and none is given or known for the task, torque with a limit of 0: then
    lambda moves at every episode, and Algorithm 3 rejects some actions."""
    family = changes.get("env_id", "Hopper-v4").rpartition("-v")[0]
    if module.__name__ in SAFE and "cost" not in changes and family not in module.COSTS:
        changes = {"cost": "torque", "cost_limit": 0.0, **changes}
    if hasattr(module.Args, "bfloat16_force"):  # the mathematics is tested without rounding
        changes = {"bfloat16_force": False, **changes}
    return module.Args(**changes)


def cost_flags(name: str) -> list[str]:
    """The same for a command line."""
    return ["--cost", "torque", "--cost-limit", "0"] if name in SAFE else []


def make_agent(module, obs_dim=3, action_dim=2, seed=0, dtype=torch.float64, fresh=False, **changes):
    """An agent with random weights, and its resolved arguments. Unless `fresh`, the targets are not as the critics, as
    after some training: a formula that takes the one for the other is noticed."""
    torch.manual_seed(seed)
    args = module.resolve(make_args(module, **changes))
    agent = module.Agent(obs_dim, action_dim, args, torch.device("cpu")).to(dtype)
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            if "target" in name and not fresh:
                parameter.mul_(1.1)
    return agent, args


def make_optimizers_plain(agent, lr=1.0):
    """Plain gradient descent with step size 1: every step then is minus the gradient."""
    parts = {"q": agent.q.parameters(), "policy": agent.policy.parameters(), "alpha": [agent.log_alpha]}
    if hasattr(agent, "q_cost"):
        parts["q_cost"] = agent.q_cost.parameters()
    agent.optimizers = {name: torch.optim.SGD(list(p), lr=lr) for name, p in parts.items()}


def make_batch(module, obs, action, reward, next_obs, terminated, cost=None):
    """A Batch; with costs where the script has them."""
    row = [obs, action, reward, next_obs, terminated]
    if "cost" in module.Batch._fields:
        row.append(torch.zeros_like(reward) if cost is None else cost)
    return module.Batch(*row)


def deterministic_action(agent, obs):
    """tanh(mean) and what the policy makes of it; for Algorithm 3 the states are taken as first of their episodes."""
    with torch.no_grad():
        if "first_obs" in inspect.signature(agent.policy.act).parameters:
            return agent.policy.act(obs, True, obs)[0]
        return agent.policy.act(obs, True)
