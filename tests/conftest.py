"""What the tests share: both scripts as modules, and a way to build a small agent in float64."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
SCRIPTS = ["sac_baseline", "sac_hpo_continuous"]


@pytest.fixture(params=SCRIPTS)
def script(request):
    """Each algorithm script in turn, imported."""
    return importlib.import_module(request.param)


@pytest.fixture
def hpo():
    return importlib.import_module("sac_hpo_continuous")


def make_agent(module, obs_dim=3, action_dim=2, seed=0, dtype=torch.float64, **args):
    """An agent with random weights, and its resolved arguments."""
    torch.manual_seed(seed)
    resolved = module.resolve(module.Args(**args))
    agent = module.Agent(obs_dim, action_dim, resolved, torch.device("cpu")).to(dtype)
    return agent, resolved
