"""The radial flows of sac_nf.py against autograd, numerical integration and their textbook form, in float64.

That each agent has its own and that the policy's optimiser trains them, and how, is in test_update.py.
"""

import itertools

import by_hand
import pytest
import torch
from by_hand import after_training
from conftest import make_agent, random
from torch.autograd.functional import jacobian
from torch.distributions import Normal

import sac_nf


def flow_with(action_dim, log_alpha, raw_s, dtype=torch.float64):
    flow = sac_nf.RadialFlow(torch.Generator().manual_seed(5), 1, action_dim).to(dtype)
    torch.nn.init.constant_(flow.log_alpha, log_alpha)
    torch.nn.init.constant_(flow.raw_s, raw_s)
    return flow


@pytest.mark.parametrize("action_dim", [1, 2, 6])
def test_log_prob_equals_autograd(action_dim):
    """The density of what noise becomes is that of the noise over the determinant of the whole way, through
    Gaussian, flows and tanh, at other parameters for each of two agents; and the flows are the textbook's. To
    act does the same."""
    agent, _ = after_training(sac_nf, action_dim=action_dim, flows=3, seeds=2)
    obs, xi = random(2, 10, 3), random(2, 10, action_dim, seed=2)
    action, log_prob = found = agent.policy(obs, xi)
    for by_script, expected in zip(found, by_hand.base_policy(agent.policy, obs, xi), strict=True):
        torch.testing.assert_close(by_script, expected)
    assert torch.equal(agent.act(obs, xi.unsqueeze(0)), action.detach())
    for i, j in itertools.product(range(2), range(10)):

        def on_the_way(part, i=i, j=j):
            return agent.policy(obs, xi.index_put((torch.tensor(i), torch.tensor(j)), part))[0][i, j]

        log_det = torch.linalg.slogdet(jacobian(on_the_way, xi[i, j]))[1]
        torch.testing.assert_close(log_prob[i, j], Normal(0.0, 1.0).log_prob(xi[i, j]).sum() - log_det)


@pytest.mark.parametrize("log_alpha", [-20.0, 0.0, 20.0])
@pytest.mark.parametrize("raw_s", [-30.0, 0.0, 30.0])
def test_one_to_one_for_extreme_parameters(log_alpha, raw_s):
    """On a ray from the centre the distance grows with the distance, and everything is finite; in float32 too
    at the centre and far from it."""
    flow = flow_with(2, log_alpha, raw_s)
    torch.nn.init.zeros_(flow.centre)  # so that small distances from it are not rounded away
    r = torch.logspace(-8, 6, 500, dtype=torch.float64)
    new, log_det = flow(r.view(1, -1, 1) * torch.tensor([0.6, 0.8], dtype=torch.float64))
    distance = new.norm(dim=-1)
    assert (distance.diff() > 0).all() and (distance > 0).all() and log_det.isfinite().all()
    torch.testing.assert_close(new[..., 0] / distance, torch.full_like(distance, 0.6))
    flow = flow_with(3, 0.5 * log_alpha, 0.6 * raw_s, torch.float32)
    z = (flow.centre + torch.tensor([0.0, 1e-6, 1.0, 1e6]).view(1, -1, 1)).detach().requires_grad_()
    new, log_det = flow(z)
    gradients = torch.autograd.grad(new.sum() + log_det.sum(), [z, *flow.parameters()])
    assert all(x.isfinite().all() for x in (new, log_det, *gradients))


def test_the_start():
    """As the identity, with centres that are N(0, 1), of each flow and agent its own."""
    agent, _ = make_agent(sac_nf, action_dim=3, seeds=2, flows=500, fresh=True)
    z = random(2, 10, 3)
    new, log_det = z, 0.0
    for flow in agent.policy.flows[:4]:
        new, by_flow = flow(new)
        log_det = log_det + by_flow
    torch.testing.assert_close(new, z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-5)
    centres = torch.stack([flow.centre.detach() for flow in agent.policy.flows]).view(-1, 3)
    assert torch.pdist(centres).min() > 1e-3
    for column in centres.T:  # within five standard deviations
        assert abs(column.mean()) < 5 / 1000**0.5 and abs(column.std() - 1.0) < 5 / 2000**0.5
    assert 0.02 < (centres.abs() > 2.0).double().mean() < 0.08  # 0.0455


def test_density_integrates_to_one_and_matches_samples():
    """One action dimension, three bent flows: exp(log_prob) over (-1, 1), following a fine grid of noise."""
    agent, _ = make_agent(sac_nf, action_dim=1, flows=3)
    for flow, log_alpha, raw_s in zip(agent.policy.flows, (-1.0, 0.5, 0.0), (2.0, -2.0, 1.0), strict=True):
        torch.nn.init.constant_(flow.log_alpha, log_alpha)
        torch.nn.init.constant_(flow.raw_s, raw_s)
    grid = torch.linspace(-9, 9, 40_001, dtype=torch.float64).view(1, -1, 1)
    with torch.no_grad():
        a, log_prob = agent.policy(torch.zeros(1, 40_001, 3).double(), grid)
        a, density = a.flatten(), log_prob.flatten().exp()
        sample, _ = agent.policy(torch.zeros(1, 50_000, 3).double(), random(1, 50_000, 1))
    assert (a.diff() > 0).all()
    assert torch.trapezoid(density, a).item() == pytest.approx(1.0, abs=1e-4)
    edges = torch.linspace(-1, 1, 21, dtype=torch.float64)
    seen = torch.histc(sample, bins=20, min=-1, max=1) / 50_000
    cumulative = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(density, a)])
    at = cumulative[torch.searchsorted(a, edges).clamp(max=len(a) - 1)]
    assert 0.5 * (seen - at.diff()).abs().sum() < 0.015  # total variation
