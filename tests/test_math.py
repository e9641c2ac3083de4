"""Dynamics, densities and networks against autograd, numerical integration and torch.distributions."""

import importlib
import itertools

import by_hand
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_hand import after_training, chosen
from conftest import act, make_agent, noise_for, plain_optimizers, random, random_batch
from torch.autograd.functional import jacobian
from torch.distributions import Normal, TanhTransform, TransformedDistribution

import sac_hpo_continuous

HPO = "sac_hpo_continuous"
CHAINS = [(HPO, operator) for operator in ("proposed", "conventional", "drift")]
CHAINS += [("sac_hpo_safe", "proposed")]
chains = pytest.mark.parametrize("name, operator", CHAINS)


def start(rows, seeds=1, action_dim=2):
    """States, and actions and momenta to start from."""
    a, rho = random(2, seeds, rows, action_dim, seed=2)
    return random(seeds, rows, 3, seed=1), torch.tanh(a), rho


def smooth_q(action):
    """Bumps and a slope, with derivatives of every order."""
    return (torch.sin(3.0 * action) + 0.5 * action).sum(-1)


def use_smooth_q(agent):
    agent.value_at = lambda obs: smooth_q


def evolve(agent, obs, noise, operator, std):
    return agent.evolve(obs, noise, *chosen(agent, operator), momentum_std=std)


def leapfrog(agent, obs, a, rho, operator):
    """a_K and rho_K from any (a_0, rho_0), by the script's leapfrog and the last half step."""
    grad_u = agent.grad_u_at(obs, *chosen(agent, operator))
    epsilon, module = agent.args.step_size, importlib.import_module(type(agent).__module__)
    a, rho = module.leapfrog(a, rho, grad_u, epsilon, agent.args.leapfrog_steps)
    return a, rho - 0.5 * epsilon * grad_u(a)[0]


def test_reflect_against_a_loop_that_bounces(hpo):
    """With none, one and several reflections, at either bound."""
    a, rho = 4.0 * random(20_000, 2), random(20_000, 2, seed=2)
    assert {int(n) for n in ((a.abs() + 1.0) // 2.0).unique()} >= {0, 1, 2, 3, 4}  # times that it turns back
    for found, expected in zip(hpo.reflect(a, rho), by_hand.bounce(a, rho), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reflect_never_leaves_the_box(hpo, dtype):
    """Not by rounding either: at the bounds, a hair beside them, far away. Inside nothing changes."""
    whole, far = torch.arange(-9.0, 10.0, dtype=dtype), 1e7 * random(1000).to(dtype)
    beside = (torch.nextafter(whole, whole + sign) for sign in (1.0, -1.0))
    a, rho = hpo.reflect(torch.cat([whole, far, *beside]), torch.ones(1057, dtype=dtype))
    assert a.abs().max() == 1.0 and (rho.abs() == 1.0).all()
    inside = torch.linspace(-0.999, 0.999, 1001, dtype=dtype)
    a, rho = hpo.reflect(inside, torch.ones_like(inside))
    torch.testing.assert_close(a, inside)
    assert (rho == 1.0).all()


@chains
@pytest.mark.parametrize("steps", [1, 4])
def test_volume_is_preserved(name, operator, steps, monkeypatch):
    """|det| = 1 of (a_0, rho_0) -> (a_K, rho_K), where components are reflected several times within a step
    and in several steps; the map is far from the identity and bends."""

    def bent(value, action, mixed):  # the script's gradient is a constant to autograd
        return value(action), torch.autograd.grad(value(action).sum(), action, create_graph=True)[0]

    module = importlib.import_module(name)
    agent, _ = after_training(module, operator, leapfrog_steps=steps, step_size=0.3)
    use_smooth_q(agent)
    monkeypatch.setattr(module, "value_and_gradient", bent)
    obs, a, rho = start(12)
    rho = 12.0 * rho
    assert ((a + 0.3 * rho).abs() > 3.0).any()

    def flow(x):
        return torch.cat(leapfrog(agent, obs[:, :1], *x.view(2, 1, 1, 2), operator), dim=-1).flatten()

    for x in torch.cat([a, rho], dim=-1)[0]:
        matrix = jacobian(flow, x)
        assert torch.linalg.det(matrix).abs().item() == pytest.approx(1.0, abs=1e-10)
        assert operator == "drift" or matrix[2:, :2].abs().max() > 1e-3  # the force depends on where it is


@chains
@torch.no_grad()
def test_it_runs_backwards(name, operator):
    """From (a_K, -rho_K) back to (a_0, -rho_0), through many reflections: so it is one-to-one."""
    changes = dict(seeds=2, leapfrog_steps=4, step_size=0.2)
    agent, _ = after_training(importlib.import_module(name), operator, **changes)
    use_smooth_q(agent)
    obs, a, rho = start(300, seeds=2)
    rho = 12.0 * rho
    a_end, rho_end = leapfrog(agent, obs, a, rho, operator)
    a_back, rho_back = leapfrog(agent, obs, a_end, -rho_end, operator)
    assert (a_end - a).abs().max() > 1.0 and ((a + 0.2 * rho).abs() > 3.0).any()
    torch.testing.assert_close(a_back, a, rtol=0, atol=1e-10)
    torch.testing.assert_close(-rho_back, rho, rtol=0, atol=1e-10)


@pytest.mark.parametrize("operator", ["proposed", "conventional", "drift"])
@torch.no_grad()
def test_density_of_what_comes_out(operator):
    """In one dimension. q(a_K, rho_K) = pi(a_0) N(rho_0) at the pair from which (a_K, rho_K) comes: it is
    what `evolve` returns, integrates to 1, and its marginal is the histogram of many draws of a_K."""
    changes = dict(action_dim=1, seed=3, leapfrog_steps=3, step_size=0.3)
    agent, _ = after_training(sac_hpo_continuous, operator, **changes)
    obs, of_rho, tanh = random(1, 1, 3, seed=5), Normal(0.0, 1.5), TanhTransform(cache_size=1)
    of_a = TransformedDistribution(Normal(*by_hand.mean_and_std(agent.policy, obs)), [tanh])

    def log_density(a, rho):
        there = a.reshape(1, -1, 1), -rho.reshape(1, -1, 1)
        a_0, rho_0 = leapfrog(agent, obs.expand(1, a.numel(), 3), *there, operator)
        log_q = of_a.log_prob(a_0.clamp(-1.0 + 1e-12, 1.0 - 1e-12)) + of_rho.log_prob(rho_0)
        return log_q.view(a.shape)

    edges, rhos = (torch.linspace(-end, end, n, dtype=torch.float64) for end, n in ((1.0, 201), (7.5, 61)))
    pairs = torch.meshgrid(0.5 * (edges[1:] + edges[:-1]), rhos, indexing="ij")
    share = log_density(*pairs).exp().view(10, -1).sum(1) * (edges[1] - edges[0]) * (rhos[1] - rhos[0])
    assert share.sum().item() == pytest.approx(1.0, abs=0.01)
    noise = random(2, 1, 10_000, 1, seed=8)
    a, rho, grad_u, log_prob = evolve(agent, obs.expand(1, 10_000, 3), noise, operator, 1.5)
    rho, found = rho - 0.15 * grad_u(a)[0], log_prob + of_rho.log_prob(1.5 * noise[1])[..., 0]
    error = (found[:, :1000] - log_density(a[:, :1000, 0], rho[:, :1000, 0])).abs()
    assert (error < 1e-6).double().mean() > 0.99  # but where rounding takes the way back across a kink
    seen = torch.histc(a, bins=10, min=-1, max=1) / 10_000
    assert 0.5 * (seen - share).abs().sum() < 0.025  # total variation; sampling noise alone is about 0.012


@pytest.mark.parametrize("clamped", [False, True])
def test_objective_is_the_lower_bound_that_it_claims_to_be(monkeypatch, clamped):
    """J of Eq. (12) where Q = 3a, |a| <= 1, after learning to maximise it by HalfCheetah's row: it comes
    close to alpha (log of the integral of exp(Q / alpha) - 1/2), and never above. Were actions clamped at
    the bounds, where entropy is lost that log pi(a_0) credits, it would."""
    if clamped:
        monkeypatch.setattr(sac_hpo_continuous, "reflect", lambda a, rho: (a.clamp(-1.0, 1.0), rho))
    changes = dict(env_id="HalfCheetah-v4", policy_lr=3e-3, dtype=torch.float32)
    agent, args = make_agent(sac_hpo_continuous, 1, 1, **changes)
    assert (args.alpha, args.momentum_std_train, args.step_size, args.leapfrog_steps) == (0.2, 1.0, 0.2, 3)
    agent.value_at = lambda obs: lambda action: 3.0 * action.squeeze(-1)
    optimizers = sac_hpo_continuous.make_optimizers(agent, args)

    def j(rows, optimizers, seed):
        batch = random_batch(sac_hpo_continuous, rows, 1, 1, 1, dtype=torch.float32)
        noise = noise_for(agent, rows, seed=seed, dtype=torch.float32)
        batch = batch._replace(obs=torch.zeros_like(batch.obs))
        return -sac_hpo_continuous.update(agent, optimizers, batch, noise, args)["losses/policy"].item()

    for step in range(400):
        j(64, optimizers, step)
    found = j(20_000, plain_optimizers(agent, policy=0.0), 1000)
    fine = torch.linspace(-1.0, 1.0, 100_001, dtype=torch.float64)
    bound = 0.2 * (torch.trapezoid(torch.exp(15.0 * fine), fine).log().item() - 0.5)
    assert bound == pytest.approx(2.358, abs=1e-3)
    if clamped:
        assert found > bound + 0.05
    else:
        assert bound - 0.1 < found < bound


@torch.no_grad()
def test_conventional_leapfrog_samples_the_posterior():
    """Momentum drawn afresh again and again: actions become distributed as exp(Q / alpha) on (-1, 1)."""
    changes = dict(action_dim=1, alpha=0.4, leapfrog_steps=8, step_size=0.1)
    agent, _ = after_training(sac_hpo_continuous, "conventional", **changes)
    use_smooth_q(agent)
    obs, a = torch.zeros(1, 20_000, 3).double(), torch.full((1, 20_000, 1), -0.9).double()
    for turn in range(25):
        a, _ = leapfrog(agent, obs, a, random(*a.shape, seed=turn), "conventional")
    edges = torch.linspace(-1.0, 1.0, 21, dtype=torch.float64)
    fine = torch.linspace(-1.0, 1.0, 4001, dtype=torch.float64)
    weight = torch.exp(smooth_q(fine[:, None]) / agent.log_alpha.detach().exp())
    expected = torch.stack([weight[(fine >= a) & (fine < b)].sum() for a, b in itertools.pairwise(edges)])
    seen = torch.histc(a, bins=20, min=-1, max=1)
    distance = 0.5 * (seen / seen.sum() - expected / expected.sum()).abs().sum()
    assert distance < 0.03  # total variation


@pytest.mark.parametrize("name, operator", [*CHAINS, (HPO, "gaussian")])
@pytest.mark.parametrize("steps, std, leapfrog_state", [(1, 5.0, True), (3, 5.0, False), (2, 0.0, True)])
def test_chain_written_out(name, operator, steps, std, leapfrog_state):
    """Forces of Eqs. (13) and (9) and the value beside them, by autograd; a_K, rho_K, log pi(a_0|s); through
    several reflections, and without a momentum at the start."""
    changes = dict(leapfrog_steps=steps, step_size=0.3, leapfrog_state=leapfrog_state)
    agent, _ = after_training(importlib.import_module(name), operator, seeds=3, **changes)
    obs, noise = random(3, 30, 3), random(2, 3, 30, 2, seed=9)
    expected_a, expected_rho, expected = by_hand.evolve(agent, obs, noise, operator, std)
    a, rho, grad_u, log_prob = evolve(agent, obs, noise, operator, std)
    f, value = grad_u(a)
    torch.testing.assert_close(a, expected_a)
    torch.testing.assert_close(f, by_hand.force(agent, obs, a, operator))
    torch.testing.assert_close(value, by_hand.value(agent, obs, a))
    torch.testing.assert_close(rho - 0.15 * f, expected_rho)
    torch.testing.assert_close(log_prob, expected)
    unbound = by_hand.base_policy(agent.policy, obs, noise[0])[0] + 0.3 * std * noise[1]
    assert std == 0.0 or (unbound.abs() > 3.0).any()


def test_zero_gradient_stays_zero(hpo):
    """Where Q is flat, the force is T_h's share alone, and no gradient is NaN."""
    agent, _ = after_training(hpo, seeds=2)
    obs, a, _ = start(4, seeds=2)
    with torch.no_grad():
        agent.q_target.layer3.weight.zero_()
        if hasattr(agent, "multiplier"):
            agent.q_cost_target.layer3.weight.zero_()
    force, _ = agent.grad_u_at(obs, *chosen(agent, "proposed"))(a)
    transform, gate = by_hand.leapfrog_nets(agent.policy, torch.cat([obs, a, torch.zeros_like(a)], dim=-1))
    torch.testing.assert_close(force, (1.0 - gate) * transform)
    end, rho, *_ = evolve(agent, obs, random(2, 2, 4, 2), "proposed", 1.0)
    (end.sum() + rho.square().sum()).backward()
    assert all(p.grad.isfinite().all() for p in agent.policy.parameters() if p.grad is not None)


def test_value_and_gradient(hpo):
    """Autograd's, where gradients are off too. To autograd the gradient is a constant, of weights and of the
    action, and it is the value's gradient."""
    weight, action = random(3, seed=4).requires_grad_(), random(2, 5, 3).requires_grad_()

    def bumps(action):
        return (torch.sin(3.0 * action) * weight).sum(-1)

    for enabled in True, False:
        with torch.set_grad_enabled(enabled):
            q, found = hpo.value_and_gradient(bumps, action, False)
        assert not found.requires_grad and action.grad is None and weight.grad is None
        torch.testing.assert_close(q, bumps(action))
        if enabled:
            torch.testing.assert_close(torch.autograd.grad(q.sum(), action)[0], found)
        torch.testing.assert_close(found, (3.0 * torch.cos(3.0 * action) * weight).detach())


def test_mixed_precision(hpo, monkeypatch):
    """In all forces of an update if it is asked for, never to act: bfloat16 turns and stretches the gradient,
    in most rows by little, and what comes back is float32."""
    asked, real, obs, a = [], hpo.value_and_gradient, *(part.float() for part in start(500, seeds=2)[:2])
    monkeypatch.setattr(hpo, "value_and_gradient", lambda *given: (asked.append(given[2]), real(*given))[1])
    batch, logs = random_batch(hpo, seeds=2, dtype=torch.float32), []
    for mixed in False, True:
        agent, args = after_training(hpo, seeds=2, dtype=torch.float32, mixed_precision=mixed)
        act(agent, obs, random(agent.draws_to_act, 2, 500, 2, dtype=torch.float32))
        assert asked and not any(asked)
        asked.clear()
        noise = noise_for(agent, seeds=2, dtype=torch.float32)
        logs.append(hpo.update(agent, plain_optimizers(agent, policy=0.0), batch, noise, args))
        assert set(asked) == {mixed} and all(value.dtype == torch.float32 for value in logs[-1].values())
        asked.clear()
    apart = [(logs[0][name] - logs[1][name]).abs().max() for name in ("losses/policy", "losses/q")]
    assert 0.0 < min(apart) and max(apart) < 0.05
    exact, mixed = (real(agent.value_at(obs), a, m)[1] for m in (False, True))
    assert mixed.dtype == torch.float32
    assert 1e-4 < ((exact - mixed).norm(dim=-1) / exact.norm(dim=-1)).median() < 0.015
    assert F.cosine_similarity(exact, mixed, dim=-1).quantile(0.1) > 0.98
    with torch.autocast("cpu", torch.bfloat16):
        q = agent.q_target.at(obs)(a)
    assert q.dtype == torch.float32 and (q[:, 0] != q[:, 1]).all()  # rounded, some critics would tie


@pytest.mark.parametrize("explore", ["proposed", "conventional", "drift", "gaussian"])
@pytest.mark.parametrize("std", [1.3, 0.0])
def test_acting(explore, std):
    """The exploration's operator and spread; by noise of 0, as in evaluation, from (tanh(mean), 0)."""
    train = "proposed" if explore in ("proposed", "drift") else "gaussian"
    changes = dict(explore=explore, momentum_std_explore=std, momentum_std_train=0.2)
    agent, _ = after_training(sac_hpo_continuous, train, **changes)
    obs = random(1, 30, 3)
    for noise in random(2, 1, 30, 2, seed=8), torch.zeros(2, 1, 30, 2).double():
        expected, *_ = by_hand.evolve(agent, obs, noise, explore, std)
        found = agent.act(obs, noise)
        torch.testing.assert_close(found, expected.detach())
    evaluated = sac_hpo_continuous.decide(agent.float(), obs[0].numpy().astype(np.float32))
    torch.testing.assert_close(torch.from_numpy(evaluated), found[0].float(), rtol=1e-4, atol=1e-4)


def test_log_prob_equals_torch_distributions(script):
    """For log stds from just above -5 to just below 2. By noise of 0 the action is that of the mean."""
    agent, _ = make_agent(script, seeds=2, **({"flows": 0} if script.__name__ == "sac_nf" else {}))
    with torch.no_grad():
        agent.policy.log_std.weight.mul_(12.0)
    obs, xi = random(2, 300, 3), 0.8 * random(2, 300, 2, seed=4)
    mean, std = by_hand.mean_and_std(agent.policy, obs)
    assert -5.0 < std.log().min() < -4.99 and 1.99 < std.log().max() < 2.0
    action, log_prob = agent.policy(obs, xi)
    u = mean + std * xi
    expected = (Normal(mean, std).log_prob(u) + 2.0 * torch.cosh(u).log()).sum(-1)  # 1 - tanh^2 = 1 / cosh^2
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(action, torch.tanh(u))
    if agent.draws == 1:  # no leapfrog follows
        assert torch.equal(agent.act(obs, xi.unsqueeze(0)), action.detach())
        torch.testing.assert_close(agent.act(obs, 0.0 * xi.unsqueeze(0)), torch.tanh(mean).detach())
    far, log_prob = agent.float().policy(obs.float(), 100.0 * xi.float())
    assert far.abs().max() == 1.0 and log_prob.isfinite().all()  # in float32 1 - tanh(20)^2 is 0


@pytest.mark.parametrize("n, outputs", [(1, 40), (3, 5)])
def test_linear_layers_side_by_side(longest, n, outputs):
    """As PyTorch's, one by one. With some of its inputs known a layer is the same function of the others."""
    layer, x = longest.Linear(torch.Generator().manual_seed(0), n, 7, outputs).double(), random(n, 10, 7)
    for shift in 0.0, 1.0:
        y = torch.cat([x[..., :3], x[..., 3:] + shift], dim=-1)
        expected = [F.linear(y[i], layer.weight[i].T, layer.bias[i, 0]) for i in range(n)]
        for found in layer(y), layer.given(x[..., :3])(y[..., 3:]), layer.given(x[..., :0])(y):
            torch.testing.assert_close(found, torch.stack(expected))


def test_critics_are_networks_of_their_own(script):
    """Q of critic j of agent i is that of network 2i + j at agent i's inputs; of Q_C there is one."""
    agent, _ = make_agent(script, seeds=3)
    obs, action, _ = start(10, seeds=3)
    inputs = torch.cat([obs, action], dim=-1)
    for name in ("q", "q_cost") if hasattr(agent, "q_cost") else ("q",):
        critics, n = getattr(agent, name), 2 if name == "q" else 1
        found = critics(obs, action)
        assert found.shape == (3, n, 10)
        for i, j in itertools.product(range(3), range(n)):
            x = inputs[i]
            for layer in critics.layer1, critics.layer2, critics.layer3:
                x = F.linear(x, layer.weight[n * i + j].T, layer.bias[n * i + j, 0])
                x = x if layer is critics.layer3 else F.relu(x)
            torch.testing.assert_close(found[i, j], x.squeeze(-1))


def test_sizes_of_the_networks(script):
    """Critics of two hidden layers of 256 units; Gaussian policies of two, below a leapfrog or flows of one;
    T_h and sigma_h of one of h_n = 32; a flow has a centre and two numbers."""

    def numbers(*widths):
        return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(widths))

    agent, _ = make_agent(script, 11, 3, seeds=2)
    size = {name: sum(p.numel() for p in part.parameters()) / 2 for name, part in agent.named_children()}
    own = {"sac_nf": numbers(11, 256) + 5 * (3 + 2)}  # Hopper's number of flows
    own |= dict.fromkeys(["sac_baseline", "sac_lagrangian"], numbers(11, 256, 256))
    hamiltonian = numbers(11, 256) + 2 * numbers(11 + 2 * 3, 32, 3)
    assert size["policy"] == own.get(script.__name__, hamiltonian) + 2 * numbers(256, 3)
    assert size["q"] == size["q_target"] == 2 * numbers(14, 256, 256, 1)
    if hasattr(agent, "q_cost"):
        assert size["q_cost"] == size["q_cost_target"] == numbers(14, 256, 256, 1)
