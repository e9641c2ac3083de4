"""The radial flows of sac_nf.py against autograd, in float64; each seed's flows are its own."""

import math

import pytest
import torch
from conftest import (
    deterministic_action,
    make_agent,
    noise_for,
    plain_optimizers,
    random,
    random_batch,
    refused,
    weights,
    weights_of,
)
from torch.autograd import gradcheck
from torch.autograd.functional import jacobian
from torch.distributions import Normal
from torch.func import functional_call

import sac_baseline
import sac_nf


def flow_with(action_dim, log_alpha, raw_s, dtype=torch.float64):
    flow = sac_nf.RadialFlow(1, action_dim).to(dtype)
    with torch.no_grad():
        flow.centre.copy_(random(1, 1, action_dim, seed=5))
        flow.log_alpha.fill_(log_alpha)
        flow.raw_s.fill_(raw_s)
    return flow


def bent_agent(**options):
    """An agent whose flows are far from the identity, with other numbers for each flow and seed."""
    agent, args = make_agent(sac_nf, **options)
    with torch.no_grad():
        for index, flow in enumerate(agent.policy.flows):
            flow.log_alpha.copy_(random(*flow.log_alpha.shape, seed=20 + index))
            flow.raw_s.copy_(2.0 * random(*flow.raw_s.shape, seed=40 + index))
    return agent, args


@pytest.mark.parametrize("action_dim", [1, 2, 6])
@pytest.mark.parametrize("log_alpha, raw_s", [(0.0, 2.0), (1.5, -3.0), (-2.0, 0.5), (0.3, 5.0)])
def test_log_det_equals_autograd(action_dim, log_alpha, raw_s):
    flow = flow_with(action_dim, log_alpha, raw_s)
    for z in 2.0 * random(5, action_dim):
        matrix = jacobian(lambda z: flow(z.view(1, 1, -1))[0].view(-1), z)
        _, log_det = flow(z.view(1, 1, -1))
        assert log_det.item() == pytest.approx(torch.linalg.slogdet(matrix)[1].item(), abs=1e-9)
        assert torch.linalg.det(matrix) > 0


@pytest.mark.parametrize("action_dim", [1, 2, 6])
def test_log_prob_of_the_chain_equals_autograd(action_dim):
    """The density of what noise xi becomes is N(xi; 0, 1) over the determinant of the whole way: through the
    Gaussian, the flows and tanh, at other parameters for each of two seeds."""
    agent, _ = bent_agent(action_dim=action_dim, flows=3, seeds=2)
    obs, xi = random(2, 4, 3, seed=1), random(1, 2, 4, action_dim, seed=2)
    z, log_prob_z = agent.policy(obs, xi[0])
    action, log_prob = agent.policy.sample(obs, xi)
    torch.testing.assert_close(action, torch.tanh(z))
    for i, j in [(0, 0), (0, 3), (1, 0), (1, 3)]:

        def on_the_way(part, i=i, j=j):
            changed = xi.clone()
            changed[0, i, j] = part
            return agent.policy(obs, changed[0])[0][i, j], agent.policy.sample(obs, changed)[0][i, j]

        to_z, to_action = jacobian(on_the_way, xi[0, i, j])
        of_xi = Normal(0.0, 1.0).log_prob(xi[0, i, j]).sum()
        torch.testing.assert_close(log_prob_z[i, j], of_xi - torch.linalg.slogdet(to_z)[1])
        torch.testing.assert_close(log_prob[i, j], of_xi - torch.linalg.slogdet(to_action)[1])


def test_flow_against_its_textbook_form():
    """z' = z + beta / (alpha + r) (z - c), beta = -alpha + softplus(.), and both parts of the determinant."""
    flow = flow_with(4, 0.4, 1.3)
    z = random(1, 30, 4)
    alpha, beta = math.exp(0.4), -math.exp(0.4) + math.log1p(math.exp(1.3))
    r = (z - flow.centre).norm(dim=-1, keepdim=True)
    h, dh = 1 / (alpha + r), -1 / (alpha + r) ** 2
    new, log_det = flow(z)
    torch.testing.assert_close(new, z + beta * h * (z - flow.centre))
    across, along = torch.log(1 + beta * h), torch.log(1 + beta * h + beta * dh * r)
    torch.testing.assert_close(log_det, (3 * across + along).squeeze(-1))


@pytest.mark.parametrize("action_dim", [1, 3])
def test_gradients_against_finite_differences(action_dim):
    """Of the new point and of the log-determinant, in the point and in all three parameters."""
    flow = flow_with(action_dim, -0.5, 2.0)

    def outputs(z, *values):
        return functional_call(flow, dict(zip(names, values, strict=True)), (z,))

    names, values = zip(*flow.named_parameters(), strict=True)
    assert len(names) == 3
    assert gradcheck(outputs, (random(1, 4, action_dim).requires_grad_(), *values))


@pytest.mark.parametrize("log_alpha", [-20.0, 0.0, 20.0])
@pytest.mark.parametrize("raw_s", [-30.0, 0.0, 30.0])
def test_one_to_one_for_extreme_parameters(log_alpha, raw_s):
    """On a ray from the centre the distance grows with the distance, and everything is finite."""
    flow = flow_with(2, log_alpha, raw_s)
    with torch.no_grad():
        flow.centre.zero_()  # so that small distances from it are not rounded away
    r = torch.logspace(-8, 6, 500, dtype=torch.float64)
    new, log_det = flow(r.view(1, -1, 1) * torch.tensor([0.6, 0.8], dtype=torch.float64))
    assert torch.isfinite(new).all() and torch.isfinite(log_det).all()
    distance = new.norm(dim=-1)
    assert (distance.diff() > 0).all() and (distance > 0).all()
    torch.testing.assert_close(new[..., 0] / distance, torch.full_like(distance, 0.6))
    loss = new.sum() + log_det.sum()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, flow.parameters()))


@pytest.mark.parametrize("log_alpha", [-10.0, 10.0])
@pytest.mark.parametrize("raw_s", [-20.0, 20.0])
def test_finite_at_the_centre_and_far_from_it_in_float32(log_alpha, raw_s):
    flow = flow_with(3, log_alpha, raw_s, torch.float32)
    steps = torch.tensor([0.0, 1e-6, 1.0, 1e6]).view(1, -1, 1)
    z = (flow.centre + steps).detach().requires_grad_()
    new, log_det = flow(z)
    gradients = torch.autograd.grad(new.sum() + log_det.sum(), [z, *flow.parameters()])
    assert all(torch.isfinite(x).all() for x in (new, log_det, *gradients))


def test_starts_as_the_identity():
    agent, _ = make_agent(sac_nf, action_dim=3, seeds=2, flows=4, fresh=True)
    z = random(2, 10, 3)
    for flow in agent.policy.flows:
        new, log_det = flow(z)
        torch.testing.assert_close(new, z, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(log_det, torch.zeros(2, 10, dtype=torch.float64), rtol=0, atol=1e-6)


def test_centres_start_at_random_and_differ():
    agent, _ = make_agent(sac_nf, action_dim=3, seeds=2, flows=500, fresh=True)
    centres = torch.stack([flow.centre.detach() for flow in agent.policy.flows]).view(-1, 3)
    assert torch.pdist(centres).min() > 1e-3
    for column in centres.T:  # N(0, 1), within five standard deviations
        assert abs(column.mean()) < 5 / 1000**0.5 and abs(column.std() - 1.0) < 5 / 2000**0.5
    assert 0.02 < (centres.abs() > 2.0).double().mean() < 0.08  # 0.0455


@pytest.mark.parametrize("index", [0, 2])
def test_first_weights_of_a_seed_do_not_depend_on_its_neighbours(index):
    agent, _ = make_agent(sac_nf, seeds=3, seed=4, flows=2, fresh=True)
    alone, _ = make_agent(sac_nf, seeds=1, seed=4 + index, flows=2, fresh=True)
    mine, expected = weights_of(agent, index), alone.state_dict()
    assert {"policy.flows.1.centre", "policy.flows.1.log_alpha", "policy.flows.1.raw_s"} <= mine.keys()
    assert mine.keys() == expected.keys()
    assert all(torch.equal(mine[name], expected[name]) for name in mine)


def test_each_of_three_seeds_is_as_it_would_be_alone():
    """Actions, densities and two updates, at weights, batches and noise that differ from seed to seed."""
    agent, args = bent_agent(seeds=3, flows=3, alpha=0.3, autotune=True)
    batch, noise = random_batch(sac_nf, seeds=3), noise_for(agent, seeds=3)
    agents = [sac_nf.Agent(1, 3, 2, args).double() for _ in range(3)]
    for index, alone in enumerate(agents):
        alone.load_state_dict(weights_of(agent, index))
    outputs = agent.policy.sample(batch.obs, noise[:1])
    acted = agent.policy.act(batch.obs, noise[:1])
    optimizers = plain_optimizers(agent, policy=0.1, q=0.1, log_alpha=0.1)
    logs = [sac_nf.update(agent, optimizers, batch, noise, args) for _ in range(2)][-1]
    for index, alone in enumerate(agents):
        own_batch = sac_nf.Batch(*(value[index : index + 1] for value in batch))
        own_noise = noise[:, index : index + 1]
        own_outputs = alone.policy.sample(own_batch.obs, own_noise[:1])
        for together, single in zip(outputs, own_outputs, strict=True):
            torch.testing.assert_close(together[index], single[0], rtol=0, atol=1e-10)
        own_acted = alone.policy.act(own_batch.obs, own_noise[:1])
        torch.testing.assert_close(acted[index], own_acted[0], rtol=0, atol=1e-10)

        before, optimizers = weights(alone), plain_optimizers(alone, policy=0.1, q=0.1, log_alpha=0.1)
        own_logs = [sac_nf.update(alone, optimizers, own_batch, own_noise, args) for _ in range(2)][-1]
        for name, value in weights_of(agent, index).items():
            torch.testing.assert_close(value, alone.state_dict()[name], rtol=0, atol=1e-10)
            assert not torch.equal(value, before[name]), f"{name} has not moved"
        for name in logs:
            torch.testing.assert_close(logs[name][index], own_logs[name][0], rtol=0, atol=1e-10)


def test_density_integrates_to_one_and_matches_samples():
    """One action dimension, three bent flows: exp(log_prob) over (-1, 1), following a fine grid of noise."""
    agent, _ = make_agent(sac_nf, action_dim=1, flows=3)
    for i, flow in enumerate(agent.policy.flows):
        with torch.no_grad():
            flow.log_alpha.fill_([-1.0, 0.5, 0.0][i])
            flow.raw_s.fill_([2.0, -2.0, 1.0][i])
    grid = torch.linspace(-9, 9, 40_001, dtype=torch.float64).view(1, 1, -1, 1)
    with torch.no_grad():
        a, log_prob = agent.policy.sample(torch.zeros(1, 40_001, 3).double(), grid)
        a, density = a.flatten(), log_prob.flatten().exp()
        assert (a.diff() > 0).all()
        assert torch.trapezoid(density, a).item() == pytest.approx(1.0, abs=1e-4)
        noise = random(1, 1, 50_000, 1, seed=0)
        sample, log_prob = agent.policy.sample(torch.zeros(1, 50_000, 3).double(), noise)
    nearest = torch.searchsorted(a, sample.flatten()).clamp(max=len(a) - 1)
    torch.testing.assert_close(log_prob.flatten(), density[nearest].log(), rtol=1e-2, atol=1e-2)
    edges = torch.linspace(-1, 1, 21, dtype=torch.float64)
    seen = torch.histc(sample, bins=20, min=-1, max=1) / 50_000
    cumulative = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(density, a)])
    at = cumulative[torch.searchsorted(a, edges).clamp(max=len(a) - 1)]
    assert 0.5 * (seen - at.diff()).abs().sum() < 0.015


def test_no_flows_give_the_gaussian_policy_exactly():
    agent, _ = make_agent(sac_nf, flows=0, seeds=2)
    gaussian = sac_baseline.GaussianPolicy(2, 3, 2, hidden_layers=1).double()
    gaussian.load_state_dict(agent.policy.state_dict())
    obs, noise = random(2, 40, 3, seed=1), random(1, 2, 40, 2, seed=2)
    for given, expected in zip(agent.policy.sample(obs, noise), gaussian.sample(obs, noise), strict=True):
        assert torch.equal(given, expected)
    assert torch.equal(agent.policy.act(obs, noise), gaussian.act(obs, noise))
    assert agent.policy.draws == gaussian.draws == 1


def test_the_exploring_action_is_the_sampled_one():
    agent, _ = bent_agent(flows=2, seeds=2)
    obs, noise = random(2, 10, 3, seed=1), random(1, 2, 10, 2, seed=2)
    torch.testing.assert_close(agent.policy.act(obs, noise), agent.policy.sample(obs, noise)[0].detach())


def test_deterministic_action_is_the_mean_through_the_flows():
    agent, _ = make_agent(sac_nf, flows=2)
    for flow in agent.policy.flows:
        with torch.no_grad():
            flow.raw_s.fill_(3.0)
    obs = random(1, 10, 3)
    with torch.no_grad():
        mean = z = agent.policy.mean(agent.policy.body(obs))
        for flow in agent.policy.flows:
            z = flow(z)[0]
    action = deterministic_action(agent, obs)
    torch.testing.assert_close(action, torch.tanh(z))
    assert (action - torch.tanh(mean)).abs().max() > 0.05


def test_the_optimiser_of_the_policy_trains_the_flows():
    """One Adam for base and flow; its step on the flows is one down alpha log pi - min Q."""
    agent, args = bent_agent(flows=2)
    parts = {
        name: {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
        for name, optimizer in sac_nf.make_optimizers(agent, args).items()
    }
    assert {id(parameter) for parameter in agent.policy.parameters()} == parts["policy"]
    own = {id(parameter) for flow in agent.policy.flows for parameter in flow.parameters()}
    assert len(own) == 2 * 3 and own <= parts["policy"] and not own & (parts["q"] | parts["log_alpha"])

    batch, noise = random_batch(sac_nf), noise_for(agent)
    action, log_prob = agent.policy.sample(batch.obs, noise[1:])
    alpha = agent.log_alpha.detach().exp()
    loss = (alpha * log_prob - agent.q(batch.obs, action).amin(1)).mean()
    gradients = torch.autograd.grad(loss, agent.policy.flows.parameters())
    old = weights(agent.policy.flows)
    sac_nf.update(agent, plain_optimizers(agent, q=0.0), batch, noise, args)
    for (name, parameter), gradient in zip(agent.policy.flows.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 1e-6
        torch.testing.assert_close(parameter.detach(), old[name] - gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "task, flows",
    {
        "Hopper-v4": 5,
        "Walker2d-v4": 5,
        "HalfCheetah-v4": 3,
        "Ant-v5": 4,
        "Humanoid-v4": 4,
        "HumanoidBulletEnv-v0": 4,
        "HumanoidFlagrunBulletEnv-v0": 4,
        "HumanoidFlagrunHarderBulletEnv-v0": 4,
        "Pendulum-v1": 5,  # as for any task outside the table: Hopper's
    }.items(),
)
def test_number_of_flows_by_task(task, flows):
    args = sac_nf.resolve(sac_nf.Args(env_id=task))
    assert args.flows == flows
    assert args.alpha == (0.05 if task.startswith("Humanoid") else 0.2)
    assert len(sac_nf.Agent(1, 3, 2, args).policy.flows) == flows


@pytest.mark.parametrize("flows", [0, 2])
def test_a_number_of_flows_given_by_hand_wins(flows):
    assert sac_nf.resolve(sac_nf.Args(flows=flows)).flows == flows
    agent, _ = make_agent(sac_nf, flows=flows)
    assert len(agent.policy.flows) == flows


@pytest.mark.parametrize("flows", [-1, 100_000])
def test_a_number_of_flows_that_cannot_be_is_refused(flows, capsys):
    status, line = refused(capsys, sac_nf.resolve, sac_nf.Args(flows=flows))
    assert status == 2 and line == f"sac_nf.py: --flows must be between 0 and 10000, not {flows}"


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_base_has_one_hidden_layer(seeds):
    """Sec. V-A. Weights by hand: the layer, mean and log std, and of each flow a centre and two numbers."""
    policy = sac_nf.FlowPolicy(seeds, 11, 3, 5)
    one = (11 + 1) * 256 + 2 * (256 + 1) * 3 + 5 * (3 + 2)
    assert sum(p.numel() for p in policy.parameters()) == seeds * one
