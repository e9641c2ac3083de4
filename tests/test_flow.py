"""The radial flows of sac_nf.py against autograd, in float64."""

import math

import pytest
import torch
from conftest import make_agent
from torch.autograd.functional import jacobian

import sac_nf


def flow_with(action_dim, log_alpha, raw_s, seed=0):
    torch.manual_seed(seed)
    flow = sac_nf.RadialFlow(action_dim).double()
    with torch.no_grad():
        flow.log_alpha.fill_(log_alpha)
        flow.raw_s.fill_(raw_s)
    return flow


@pytest.mark.parametrize("action_dim", [1, 2, 6])
@pytest.mark.parametrize("log_alpha, raw_s", [(0.0, 2.0), (1.5, -3.0), (-2.0, 0.5), (0.3, 5.0)])
def test_log_det_equals_autograd(action_dim, log_alpha, raw_s):
    flow = flow_with(action_dim, log_alpha, raw_s)
    for z in 2.0 * torch.randn(5, action_dim, dtype=torch.float64):
        matrix = jacobian(lambda z: flow(z[None])[0][0], z)
        _, log_det = flow(z[None])
        assert log_det.item() == pytest.approx(torch.linalg.slogdet(matrix)[1].item(), abs=1e-9)
        assert torch.linalg.det(matrix) > 0


def test_flow_against_its_textbook_form():
    """z' = z + beta / (alpha + r) (z - c) with beta = -alpha + softplus(.), and both factors of the determinant."""
    flow = flow_with(4, 0.4, 1.3)
    z = torch.randn(30, 4, dtype=torch.float64)
    alpha, beta = math.exp(0.4), -math.exp(0.4) + math.log1p(math.exp(1.3))
    r = (z - flow.centre).norm(dim=-1, keepdim=True)
    h, dh = 1 / (alpha + r), -1 / (alpha + r) ** 2
    new, log_det = flow(z)
    torch.testing.assert_close(new, z + beta * h * (z - flow.centre))
    torch.testing.assert_close(
        log_det, (3 * torch.log(1 + beta * h) + torch.log(1 + beta * h + beta * dh * r)).squeeze(-1)
    )


@pytest.mark.parametrize("log_alpha", [-20.0, 0.0, 20.0])
@pytest.mark.parametrize("raw_s", [-30.0, 0.0, 30.0])
def test_one_to_one_for_extreme_parameters(log_alpha, raw_s):
    """On a ray from the centre the distance grows with the distance, and everything is finite."""
    flow = flow_with(2, log_alpha, raw_s)
    with torch.no_grad():
        flow.centre.zero_()  # so that small distances from it are not rounded away
    r = torch.logspace(-8, 6, 500, dtype=torch.float64)
    new, log_det = flow(r[:, None] * torch.tensor([[0.6, 0.8]], dtype=torch.float64))
    assert torch.isfinite(new).all() and torch.isfinite(log_det).all()
    distance = new.norm(dim=-1)
    assert (distance.diff() > 0).all() and (distance > 0).all()
    torch.testing.assert_close(new[:, 0] / distance, torch.full_like(r, 0.6))
    loss = new.sum() + log_det.sum()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, flow.parameters()))


def test_starts_as_the_identity():
    flow = sac_nf.RadialFlow(3).double()
    z = torch.randn(10, 3, dtype=torch.float64)
    new, log_det = flow(z)
    torch.testing.assert_close(new, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det, torch.zeros(10, dtype=torch.float64), rtol=0, atol=1e-6)
    agent, _ = make_agent(sac_nf, flows=3)
    centres = torch.stack([flow.centre for flow in agent.policy.flows])
    assert torch.pdist(centres).min() > 0.01


def test_density_integrates_to_one_and_matches_samples():
    """One action dimension, three bent flows: exp(log_prob) over (-1, 1), by following base samples on a fine grid."""
    agent, _ = make_agent(sac_nf, action_dim=1, flows=3)
    for i, flow in enumerate(agent.policy.flows):
        with torch.no_grad():
            flow.log_alpha.fill_([-1.0, 0.5, 0.0][i])
            flow.raw_s.fill_([2.0, -2.0, 1.0][i])
    obs = torch.zeros(1, 3, dtype=torch.float64)
    with torch.no_grad():
        mean, log_std = agent.policy(obs)
        u = mean + log_std.exp() * torch.linspace(-9, 9, 200_001, dtype=torch.float64)[:, None]
        log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(u).sum(-1)
        z = u
        for flow in agent.policy.flows:
            z, log_det = flow(z)
            log_prob = log_prob - log_det
        a, density = torch.tanh(z).squeeze(-1), (log_prob - sac_nf.tanh_log_det(z)).exp()
        assert (a.diff() > 0).all()
        assert torch.trapezoid(density, a).item() == pytest.approx(1.0, abs=1e-4)
        torch.manual_seed(0)
        sample, log_prob = agent.policy.sample(obs.expand(50_000, -1))
    nearest = torch.searchsorted(a, sample.squeeze(-1)).clamp(max=len(a) - 1)
    torch.testing.assert_close(log_prob, density[nearest].log(), rtol=1e-2, atol=1e-2)
    edges = torch.linspace(-1, 1, 21, dtype=torch.float64)
    seen = torch.histc(sample, bins=20, min=-1, max=1) / 50_000
    cumulative = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(density, a)])
    at = cumulative[torch.searchsorted(a, edges).clamp(max=len(a) - 1)]
    assert 0.5 * (seen - at.diff()).abs().sum() < 0.015


def test_no_flows_give_the_gaussian_policy_exactly():
    agent, _ = make_agent(sac_nf, flows=0)
    obs = torch.randn(40, 3, dtype=torch.float64)
    torch.manual_seed(1)
    action, log_prob = agent.policy.sample(obs)
    torch.manual_seed(1)
    expected, expected_log_prob = sac_nf.GaussianPolicy.sample(agent.policy, obs)
    assert torch.equal(action, expected) and torch.equal(log_prob, expected_log_prob)
    assert torch.equal(agent.policy.act(obs, True), sac_nf.GaussianPolicy.act(agent.policy, obs, True))


def test_deterministic_action_is_the_mean_through_the_flows():
    agent, _ = make_agent(sac_nf, flows=2)
    for flow in agent.policy.flows:
        with torch.no_grad():
            flow.raw_s.fill_(3.0)
    obs = torch.randn(10, 3, dtype=torch.float64)
    z = agent.policy(obs)[0]
    for flow in agent.policy.flows:
        z = flow(z)[0]
    torch.testing.assert_close(agent.policy.act(obs, True), torch.tanh(z))
    assert (agent.policy.act(obs, True) - torch.tanh(agent.policy(obs)[0])).abs().max() > 0.05


@pytest.mark.parametrize(
    "task, flows",
    {"Hopper-v4": 5, "Walker2d-v4": 5, "HalfCheetah-v4": 3, "Ant-v4": 4, "Humanoid-v4": 4}.items(),
)
def test_number_of_flows_by_task(task, flows):
    assert sac_nf.resolve(sac_nf.Args(env_id=task)).flows == flows


def test_the_base_has_one_hidden_layer():
    """Sec. V-A. Weights by hand: the layer, mean and log std, and of each flow a centre and two numbers."""
    policy = sac_nf.FlowPolicy(11, 3, 5)
    assert sum(p.numel() for p in policy.parameters()) == (11 + 1) * 256 + 2 * (256 + 1) * 3 + 5 * (3 + 2)
