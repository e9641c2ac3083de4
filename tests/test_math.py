"""Density and dynamics against autograd, numerical integration and torch.distributions, in float64."""

import importlib
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import (
    deterministic_action,
    make_agent,
    make_args,
    noise_for,
    plain_optimizers,
    random,
    random_batch,
)
from torch.autograd.functional import jacobian
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

HPO = "sac_hpo_continuous"
CHAINS = [(HPO, operator) for operator in ("proposed", "conventional", "drift")]
CHAINS += [("sac_hpo_safe", "proposed")]
chains = pytest.mark.parametrize("name, operator", CHAINS)
forces = pytest.mark.parametrize("name, operator", [case for case in CHAINS if case[1] != "drift"])
both = pytest.mark.parametrize("coordinates", ["pre-tanh", "action"])


def hamiltonian(name, operator="proposed", **changes):
    """An agent whose actions the operator evolves, and its arguments. Temperature and lambda are not the
    first ones and differ from seed to seed, as after some training."""
    module = importlib.import_module(name)
    if hasattr(module.Args, "train"):
        changes = {"train": operator, "explore": operator, **changes}
    agent, args = make_agent(module, **changes)
    with torch.no_grad():
        agent.log_alpha.add_(0.3 * torch.arange(1, agent.seeds + 1))
        if hasattr(agent, "multiplier"):
            agent.multiplier.value.copy_(0.7 * torch.arange(1, agent.seeds + 1))
    return agent, args


def start(rows, seeds=1, obs_dim=3, action_dim=2):
    """States, and points and momenta to start from."""
    return random(seeds, rows, obs_dim, seed=1), *random(2, seeds, rows, action_dim, seed=2)


def chosen(agent, operator):
    """An operator as an argument, where there is more than one."""
    return [operator] if hasattr(agent.policy.args, "train") else []


def force_at(agent, obs, operator):
    return agent.policy.force_at(obs, *chosen(agent, operator))


def evolve(agent, obs, u, rho, operator, **options):
    return agent.policy.evolve(obs, u, rho, *chosen(agent, operator), **options)


def leapfrog(name, agent, obs, x, rho, operator):
    """x_K, rho_K from (x_0, rho_0), wherever x_0 is."""
    args, force = agent.policy.args, force_at(agent, obs, operator)
    module = importlib.import_module(name)
    return module.leapfrog(x, rho, force, args.step_size, args.leapfrog_steps, True)[:2]


def action_moves(agent):
    return agent.policy.args.coordinates == "action"


class SmoothQ:
    """Two bumps and a slope, with derivatives of every order."""

    def min(self, obs, action):
        return (torch.sin(3.0 * action) + 0.5 * action).sum(-1) + 0.1 * obs.sum(-1)

    def min_at(self, obs, rounded):
        return lambda action: (self.min(obs, action), 3.0 * torch.cos(3.0 * action) + 0.5)


def use_smooth_q(agent):
    """Puts SmoothQ in the place of the target critics."""
    agent.policy.borrowed = (SmoothQ(), *agent.policy.borrowed[1:])


def mean_and_std(policy, obs):
    """Of the Gaussian; log std is squashed into (-5, 2)."""
    h = policy.body(obs)
    return policy.mean(h), torch.exp(-5.0 + 7.0 * (0.5 + 0.5 * torch.tanh(policy.log_std(h))))


def value(agent, obs, action):
    """What the force is the gradient of (S, B): min Q of the targets, less lambda Q_C in safe RL."""
    q = agent.q_target(obs, action).amin(1)
    if hasattr(agent, "multiplier"):
        q = q - agent.multiplier.value.unsqueeze(-1) * agent.q_cost_target(obs, action)[:, 0]
    return q


def leapfrog_nets(policy, inputs):
    """T_h and sigma_h as two networks of one hidden layer each, from the columns of the common one that are
    theirs."""
    nets = []
    weights, biases = policy.hidden.weight.chunk(2, dim=-1), policy.hidden.bias.chunk(2, dim=-1)
    for last, weight, bias in zip((policy.transform, policy.gate), weights, biases, strict=True):
        nets.append(F.elu(inputs @ weight + bias) @ last.weight + last.bias)
    return nets[0], torch.sigmoid(nets[1])


def force_by_hand(agent, obs, x, operator):
    """F(s, x) of Eqs. (13) and (9), T_h and sigma_h, by autograd and with nothing held constant."""
    policy = agent.policy
    action = x.clamp(-1.0, 1.0) if action_moves(agent) else torch.tanh(x)
    if operator == "drift":
        return torch.zeros_like(x), {}
    if not action.requires_grad:
        action.requires_grad_()
    (gradient,) = torch.autograd.grad(value(agent, obs, action).sum(), action, create_graph=True)
    if operator == "conventional":
        f = -gradient / agent.log_alpha.detach().exp().view(-1, 1, 1)
        return f if action_moves(agent) else (1 - action.square()) * f + 2 * action, {}
    g = -gradient / gradient.norm(dim=-1, keepdim=True)
    state = obs if policy.args.leapfrog_state else obs[..., :0]
    transform, gate = leapfrog_nets(policy, torch.cat([state, action, g], dim=-1))
    return gate * g + (1 - gate) * transform, {"transform": transform, "gate": gate}


def evolve_by_hand(agent, obs, u, rho, operator):
    """x_K, rho_K and the nets at x_K, step by step with two forces per step; the script needs one, and one
    more."""
    args, x, nets = agent.policy.args, torch.tanh(u) if action_moves(agent) else u, {}
    if operator == "gaussian":
        return x, torch.zeros_like(rho), nets
    for _ in range(args.leapfrog_steps):
        rho = rho - 0.5 * args.step_size * force_by_hand(agent, obs, x, operator)[0]
        x = x + args.step_size * rho
        f, nets = force_by_hand(agent, obs, x, operator)
        rho = rho - 0.5 * args.step_size * f
    return x, rho, nets


def sample_by_hand(agent, obs, noise, std, operator):
    """a_K, log q(a_K, rho_K|s) - log N(rho_0), rho_K, the nets at x_K; x_K itself."""
    mean, std_u = mean_and_std(agent.policy, obs)
    u = mean + std_u * noise[0]
    x, rho, nets = evolve_by_hand(agent, obs, u, std * noise[1], operator)
    action = x.clamp(-1.0, 1.0) if action_moves(agent) else torch.tanh(x)
    corrected = torch.tanh(u) if action_moves(agent) else action  # a_0 or a_K
    log_prob = Normal(mean, std_u).log_prob(u) - torch.log(1 - corrected.square())
    return action, log_prob.sum(-1), rho, nets, x


# ----------------------------------------------------------------------------------- volume, reversal, forces


@chains
@both
@pytest.mark.parametrize("steps", [1, 3])
def test_leapfrog_preserves_volume(name, operator, coordinates, steps):
    """Of (x, rho): the action in `action`, where it starts at tanh(u)."""
    agent, _ = hamiltonian(name, operator, coordinates=coordinates, leapfrog_steps=steps, step_size=0.3)
    use_smooth_q(agent)
    obs, x, rho = start(1)
    x = torch.tanh(x)

    def flow(x):
        u = torch.atanh(x[:2]) if action_moves(agent) else x[:2]
        end = evolve(agent, obs, u.view(1, 1, 2), x[2:].view(1, 1, 2), operator, need_rho=True)
        return torch.cat(end[:2], dim=-1).flatten()

    matrix = jacobian(flow, torch.cat([x, rho], dim=-1).flatten())
    assert (matrix - torch.eye(4)).abs().max() > 0.1  # the map is not the identity
    if operator != "drift":
        assert matrix[2:, :2].abs().max() > 0.01  # and its force depends on where it is
    assert torch.linalg.det(matrix).item() == pytest.approx(1.0, abs=1e-10)


@forces
@both
def test_without_momentum_volume_is_not_preserved(name, operator, coordinates):
    """x_0 -> x_K at rho_0 = 0 changes volume: log_prob, exact for the pair, is then no density of a_K
    alone."""
    agent, _ = hamiltonian(name, operator, coordinates=coordinates, leapfrog_steps=3, step_size=0.3)
    use_smooth_q(agent)
    obs, x, rho = start(1)

    def flow(x):
        return leapfrog(name, agent, obs, x.view(1, 1, 2), 0.0 * rho, operator)[0].flatten()

    matrix = jacobian(flow, torch.tanh(x).flatten())
    assert abs(torch.linalg.det(matrix).item() - 1.0) > 1e-3


def test_leapfrog_preserves_volume_under_any_force(hpo):
    _, x, rho = start(1)
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)  # not the gradient of anything

    def flow(x):
        end = hpo.leapfrog(x[:2], x[2:], lambda x: (torch.sin(weight @ x), None), 0.4, 5, True)
        return torch.cat(end[:2])

    matrix = jacobian(flow, torch.cat([x, rho], dim=-1).flatten())
    assert matrix[:2, :2].det().sub(1.0).abs() > 0.1
    assert torch.linalg.det(matrix).item() == pytest.approx(1.0, abs=1e-10)


@chains
@both
def test_leapfrog_runs_backwards(name, operator, coordinates):
    agent, _ = hamiltonian(name, operator, seeds=2, coordinates=coordinates, leapfrog_steps=4, step_size=0.2)
    obs, x, rho = start(50, seeds=2)
    x_end, rho_end = leapfrog(name, agent, obs, x, rho, operator)
    x_back, rho_back = leapfrog(name, agent, obs, x_end, -rho_end, operator)
    assert (x_end - x).abs().max() > 0.1
    torch.testing.assert_close(x_back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(-rho_back, rho, rtol=0, atol=1e-10)


@chains
@both
@pytest.mark.parametrize("seeds, steps, leapfrog_state", [(1, 1, True), (3, 3, True), (3, 2, False)])
def test_chain_against_the_equations_written_out(name, operator, coordinates, seeds, steps, leapfrog_state):
    """Eqs. (13) and (9), and what the last force found: Q and its gradient, T_h, sigma_h."""
    changes = dict(coordinates=coordinates, leapfrog_steps=steps, leapfrog_state=leapfrog_state)
    agent, _ = hamiltonian(name, operator, seeds=seeds, step_size=0.2, **changes)
    obs, u, rho = start(20, seeds)
    expected_x, expected_rho, nets = evolve_by_hand(agent, obs, u, 2.0 * rho, operator)
    x, rho_end, found = evolve(agent, obs, u, 2.0 * rho, operator, need_rho=True)
    torch.testing.assert_close(x, expected_x)
    torch.testing.assert_close(rho_end, expected_rho)
    if action_moves(agent):
        assert (x.abs() > 1.0).any() and (x.abs() < 1.0).any()
    if operator != "drift":
        action = (x.clamp(-1.0, 1.0) if action_moves(agent) else torch.tanh(x)).detach().requires_grad_()
        q = value(agent, obs, action)
        (gradient,) = torch.autograd.grad(q.sum(), action)
        nets |= {"q": q, "gradient": gradient}
        assert not found["q"].requires_grad and not found["gradient"].requires_grad
    assert found.keys() == nets.keys()
    for key in nets:
        torch.testing.assert_close(found[key], nets[key], msg=lambda m, key=key: f"{key}: {m}")
    torch.testing.assert_close(evolve(agent, obs, u, 2.0 * rho, operator)[0], expected_x)


@both
def test_without_leapfrog_nothing_moves(coordinates):
    agent, _ = hamiltonian(HPO, "gaussian", coordinates=coordinates)
    obs, u, rho = start(20)
    x, rho, found = evolve(agent, obs, u, rho, "gaussian", need_rho=True)
    torch.testing.assert_close(x, torch.tanh(u) if action_moves(agent) else u)
    assert not rho.any() and found == {}


@pytest.mark.parametrize("need_rho, evaluations", [(True, 4), (False, 3)])
def test_number_of_force_evaluations(hpo, need_rho, evaluations):
    calls = []
    hpo.leapfrog(torch.zeros(1), torch.ones(1), lambda x: (calls.append(x) or x, None), 0.1, 3, need_rho)
    assert len(calls) == evaluations


@pytest.mark.parametrize("momentum_in_target, in_the_target", [(False, 3), (True, 4)])
def test_an_update_needs_few_forces(hpo, monkeypatch, momentum_in_target, in_the_target):
    """K for the soft target, which needs no rho_K; K + 1 for Eq. (12), whose Q and its gradient the last one
    holds. The state's part is computed once in each of the two chains."""
    agent, args = make_agent(hpo, leapfrog_steps=3, momentum_in_target=momentum_in_target)
    counts, real = [], hpo.Critics.min_at

    def counting(critics, obs, *options):
        function, number = real(critics, obs, *options), len(counts)
        counts.append(0)

        def counted(action):
            counts[number] += 1
            return function(action)

        return counted

    monkeypatch.setattr(hpo.Critics, "min_at", counting)
    hpo.update(agent, plain_optimizers(agent), random_batch(hpo), noise_for(agent), args)
    kinds = 2 if hasattr(agent, "q_cost") else 1  # of critics: of rewards, and of costs
    assert counts == kinds * [in_the_target] + kinds * [4]


@both
def test_conventional_force_is_the_gradient_of_the_potential(coordinates):
    """U = -Q/alpha, and in pre-tanh coordinates less log |da/du|; alpha is the learned one, of each seed."""
    agent, _ = hamiltonian(HPO, "conventional", coordinates=coordinates, seeds=3)
    use_smooth_q(agent)
    obs, x, _ = start(20, seeds=3)
    leaf = (torch.tanh(x) if action_moves(agent) else x).clone().requires_grad_()
    action = leaf if action_moves(agent) else torch.tanh(leaf)
    potential = -SmoothQ().min(obs, action) / agent.log_alpha.detach().exp().unsqueeze(-1)
    if not action_moves(agent):
        potential = potential - torch.log(1 - action.square()).sum(-1)
    (expected,) = torch.autograd.grad(potential.sum(), leaf)
    found, _ = force_at(agent, obs, "conventional")(leaf.detach())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@both
def test_conventional_leapfrog_conserves_energy_to_second_order(coordinates):
    """Halving the step, at equal total time, divides the error in H = U(x) + rho^2 / 2 by four."""
    obs, x, rho = start(200)
    if coordinates == "action":  # near the bump within the box
        x, rho = 0.58 + 0.15 * torch.tanh(x), 0.2 * torch.tanh(rho)
    worst = []
    for steps in (40, 80, 160):
        agent, _ = hamiltonian(
            HPO, "conventional", coordinates=coordinates, leapfrog_steps=steps, step_size=2.0 / steps
        )
        use_smooth_q(agent)

        def energy(x, rho, agent=agent):
            a = x if action_moves(agent) else torch.tanh(x)
            volume = 0.0 if action_moves(agent) else torch.log1p(-a.square()).sum(-1)
            u = -SmoothQ().min(obs, a) / agent.log_alpha.detach().exp().unsqueeze(-1) - volume
            return u + 0.5 * rho.square().sum(-1)

        x_end, rho_end = leapfrog(HPO, agent, obs, x, rho, "conventional")
        assert coordinates == "pre-tanh" or x_end.abs().max() < 1.0
        worst.append((energy(x_end, rho_end) - energy(x, rho)).abs().mean().item())
    assert worst[0] > 1e-6
    assert worst[0] / worst[1] == pytest.approx(4.0, rel=0.1)
    assert worst[1] / worst[2] == pytest.approx(4.0, rel=0.1)


def test_conventional_leapfrog_samples_the_posterior():
    """Momentum drawn afresh again and again: actions become distributed as exp(Q / alpha), flat prior on (-1,
    1)."""
    changes = dict(coordinates="pre-tanh", alpha=0.4, leapfrog_steps=8, step_size=0.15)
    agent, _ = hamiltonian(HPO, "conventional", action_dim=1, **changes)
    use_smooth_q(agent)
    obs, u = torch.zeros(1, 20_000, 3).double(), torch.full((1, 20_000, 1), -1.0).double()
    for turn in range(25):
        u, _, _ = evolve(agent, obs, u, random(*u.shape, seed=turn), "conventional")
    edges = torch.linspace(-1, 1, 21, dtype=torch.float64)
    fine = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    weight = torch.exp(SmoothQ().min(torch.zeros(4001, 3), fine[:, None]) / agent.log_alpha.exp()).detach()
    expected = torch.stack([weight[(fine >= a) & (fine < b)].sum() for a, b in itertools.pairwise(edges)])
    seen = torch.histc(torch.tanh(u), bins=20, min=-1, max=1)
    distance = 0.5 * (seen / seen.sum() - expected / expected.sum()).abs().sum()
    assert distance < 0.03  # total variation; 0.72 for the start


def test_zero_gradient_gives_no_nan(hpo):
    agent, _ = hamiltonian(hpo.__name__, seeds=2, coordinates="pre-tanh")
    obs, x, _ = start(4, seeds=2)
    with torch.no_grad():
        agent.q_target.layer3.weight.zero_()
        if hasattr(agent, "multiplier"):
            agent.q_cost_target.layer3.weight.zero_()
    force, found = force_at(agent, obs, "proposed")(x)
    assert not found["gradient"].any()
    inputs = torch.cat([obs, torch.tanh(x), torch.zeros_like(x)], dim=-1)
    transform, gate = leapfrog_nets(agent.policy, inputs)
    torch.testing.assert_close(force, (1 - gate) * transform)  # g = 0: T_h alone


# -------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("operator", ["proposed", "conventional", "drift"])
@both
def test_density_integrates_to_one_and_matches_samples(operator, coordinates):
    """In one dimension, on a grid of (y, rho), by running each point backwards to (u_0, rho_0): y is the
    action, in `action` before it is clamped, where the correction for tanh is that of a_0."""
    agent, _ = hamiltonian(
        HPO, operator, coordinates=coordinates, action_dim=1, seed=3, leapfrog_steps=3, step_size=0.3
    )
    obs, std_rho, moves = random(1, 1, 3, seed=5), 0.8, action_moves(agent)
    mean, std = mean_and_std(agent.policy, obs)
    widest = 5.0 if moves else 1.0
    edges = torch.linspace(-widest, widest, 201, dtype=torch.float64)
    centres = 0.5 * (edges[1:] + edges[:-1])
    rhos = torch.linspace(-5, 5, 51, dtype=torch.float64)
    y, rho = (grid.reshape(1, -1, 1) for grid in torch.meshgrid(centres, rhos, indexing="ij"))
    with torch.no_grad():
        x = y if moves else torch.atanh(y)
        x0, rho0 = leapfrog(HPO, agent, obs.expand(1, y.numel(), 3), x, -rho, operator)
        u0 = torch.atanh(x0) if moves else x0  # NaN where nothing comes from
        log_q = Normal(mean, std).log_prob(u0.nan_to_num()) + Normal(0.0, std_rho).log_prob(rho0)
        log_q = log_q - torch.log(1 - (x0 if moves else y).square())
        density = torch.where(u0.isfinite(), log_q.exp(), 0.0).view(len(centres), len(rhos))
        marginal = density.sum(1) * (rhos[1] - rhos[0])
        width = centres[1] - centres[0]
        assert (marginal.sum() * width).item() == pytest.approx(1.0, abs=0.01)

        many = obs.expand(1, 10_000, 3)
        u, _ = agent.policy(many, random(1, 10_000, 1, seed=8))
        x, _, _ = evolve(agent, many, u, std_rho * random(1, 10_000, 1, seed=9), operator)
    assert not moves or (x.abs() > 1.0).double().mean() > 0.1
    seen = torch.histc(x if moves else torch.tanh(x), bins=10, min=-widest, max=widest) / 10_000
    expected = marginal.view(10, -1).sum(1) * width
    assert 0.5 * (seen - expected).abs().sum() < 0.025  # total variation; sampling noise alone is about 0.012


SAMPLED = [*CHAINS, (HPO, "gaussian")]


@pytest.mark.parametrize("name, operator", SAMPLED)
@both
@pytest.mark.parametrize("std", [0.7, 0.0])
def test_log_prob_of_a_sample(name, operator, coordinates, std):
    """That of the starting point, by torch.distributions, less the tanh: at the end point, or in `action` at
    the start. The chain without the last force, for the soft target, has the same action and log_prob."""
    agent, _ = hamiltonian(name, operator, coordinates=coordinates, momentum_std_train=std, seeds=2)
    obs, _, _ = start(30, seeds=2)
    noise = random(2, 2, 30, 2, seed=9)
    action, log_prob, rho, _ = agent.policy.sample_with_momentum(obs, noise)
    expected_action, expected, expected_rho, _, _ = sample_by_hand(agent, obs, noise, std, operator)
    torch.testing.assert_close(action, expected_action)
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rho, expected_rho)
    again, log_prob_again = agent.policy.sample(obs, noise)
    torch.testing.assert_close(again, action)
    torch.testing.assert_close(log_prob_again, log_prob)


@chains
@both
def test_momentum_in_target(name, operator, coordinates):
    """Then log_prob is log q(a_K, rho_K|s) - log N(rho_K), but for the mean of log N(rho_0) in place of log
    N(rho_0): the value of the critics is the objective's, Eq. (11). Without a force nothing is charged."""
    changes = dict(coordinates=coordinates, momentum_std_train=0.7, momentum_in_target=True)
    agent, _ = hamiltonian(name, operator, seeds=2, **changes)
    obs = start(30, seeds=2)[0].repeat(1, 20, 1)
    noise = random(2, 2, 600, 2, seed=9)
    action, log_prob = agent.policy.sample(obs, noise)
    same, plain, rho, _ = agent.policy.sample_with_momentum(obs, noise)
    torch.testing.assert_close(action, same)
    normal = Normal(0.0, 0.7)
    charged = -normal.entropy() * rho.shape[-1] - normal.log_prob(rho).sum(-1)
    torch.testing.assert_close(log_prob - plain, charged, rtol=1e-6, atol=1e-6)
    if operator == "drift":
        assert charged.mean().abs() < 4.0 * charged.std() / charged.numel() ** 0.5


def test_gaussian_log_prob_equals_torch_distributions(script):
    """For log stds from just above -5 to just below 2."""
    agent, _ = make_agent(script, seeds=2)
    with torch.no_grad():
        agent.policy.log_std.weight.mul_(12.0)
    obs, xi = random(2, 300, 3), random(2, 300, 2, seed=4)
    mean, std = mean_and_std(agent.policy, obs)
    assert -5.0 < std.log().min() < -4.99 and 1.99 < std.log().max() < 2.0
    u, log_normal = script.GaussianPolicy.forward(agent.policy, obs, xi)
    torch.testing.assert_close(u, mean + std * xi)
    torch.testing.assert_close(log_normal, Independent(Normal(mean, std), 1).log_prob(u))
    tanh = TanhTransform(cache_size=1)
    log_prob = TransformedDistribution(Independent(Normal(mean, std), 1), [tanh]).log_prob(tanh(u))
    torch.testing.assert_close(log_normal - script.tanh_log_det(u), log_prob)
    if type(agent.policy) is script.GaussianPolicy:  # nothing bends it
        action, found = agent.policy.sample(obs, xi.unsqueeze(0))
        torch.testing.assert_close(action, torch.tanh(u))
        torch.testing.assert_close(found, log_prob)
        torch.testing.assert_close(agent.policy.act(obs, xi.unsqueeze(0)), torch.tanh(u))
        torch.testing.assert_close(deterministic_action(agent, obs), torch.tanh(mean))


def test_tanh_log_det_is_right_and_never_infinite(script):
    u = torch.linspace(-8, 8, 101, dtype=torch.float64)[:, None]
    expected = torch.log(1 - torch.tanh(u).square()).squeeze(-1)
    torch.testing.assert_close(script.tanh_log_det(u), expected, rtol=1e-6, atol=1e-12)
    far = script.tanh_log_det(torch.tensor([[50.0], [-50.0], [1000.0]]))  # float32: 1 - tanh(50)^2 is 0
    torch.testing.assert_close(far, 2 * math.log(2.0) - 2 * torch.tensor([50.0, 50.0, 1000.0]))
    sums = script.tanh_log_det(random(2, 5, 3))
    torch.testing.assert_close(sums, torch.log(1 - torch.tanh(random(2, 5, 3)).square()).sum(-1))


# ---------------------------------------------------------------------------------- acting, and who sees what


@pytest.mark.parametrize(
    "explore, train",
    [
        ("proposed", "proposed"),
        ("gaussian", "proposed"),
        ("drift", "proposed"),
        ("conventional", "gaussian"),
        ("gaussian", "conventional"),
    ],
)
@both
def test_acting(explore, train, coordinates):
    """The exploration's operator and spread; from (mean, 0) in evaluation, with momentum else."""
    changes = dict(explore=explore, coordinates=coordinates, momentum_std_explore=1.3, momentum_std_train=0.2)
    agent, _ = hamiltonian(HPO, train, seeds=2, **changes)
    obs, _, _ = start(30, seeds=2)
    noise = random(2, 2, 30, 2, seed=8)
    for given in noise, torch.zeros_like(noise):
        expected, *_ = sample_by_hand(agent, obs, given, 1.3, explore)
        found = agent.policy.act(obs, given)
        torch.testing.assert_close(found, expected.detach())
        assert not found.requires_grad

    alone, _ = hamiltonian(HPO, train, **changes)
    obs, _, _ = start(30)
    evaluated = torch.from_numpy(importlib.import_module(HPO).decide(alone, obs[0].numpy()))
    expected, *_ = sample_by_hand(alone, obs, torch.zeros(2, 1, 30, 2).double(), 1.3, explore)
    torch.testing.assert_close(evaluated, expected[0].detach(), check_dtype=False)
    other, *_ = sample_by_hand(alone, obs, torch.zeros(2, 1, 30, 2).double(), 1.3, train)
    still = "drift", "gaussian"  # without noise these two are the same
    if explore != train and not (explore in still and train in still):
        assert (other - expected).abs().max() > 0.01


def test_nobody_sees_an_action_outside_the_box(hpo, monkeypatch):
    """With --coordinates action, critics, T_h, sigma_h and the environment: [-1, 1] is all that they know."""
    changes = dict(coordinates="action", momentum_std_train=5.0, momentum_std_explore=5.0, step_size=0.3)
    agent, args = hamiltonian(hpo.__name__, seeds=2, leapfrog_steps=3, **changes)
    seen = {}

    def watch(owner, method, makes_function, what):
        """Of a function of (obs, action), or of one that makes a function of the action."""
        real = getattr(owner, method)

        def watched(self, obs, *rest):
            name = what if self.n == 2 else what + " of cost"
            if not makes_function:
                seen.setdefault(name, []).append(rest[0])
                return real(self, obs, *rest)
            function = real(self, obs, *rest)
            return lambda action: (seen.setdefault(name, []).append(action), function(action))[1]

        monkeypatch.setattr(owner, method, watched)

    watch(hpo.Critics, "min_at", True, "gradient")
    watch(hpo.Critics, "forward", False, "critics")
    hidden = agent.policy.hidden.with_first

    def after(known):
        function = hidden(known)
        return lambda x: (seen.setdefault("T_h and sigma_h", []).append(x[..., :2]), function(x))[1]

    monkeypatch.setattr(agent.policy.hidden, "with_first", after)
    batch = random_batch(hpo, seeds=2)
    noise = noise_for(agent, seeds=2)
    u, _ = agent.policy(batch.obs, noise[0])
    x, _, _ = evolve(agent, batch.obs, u, 5.0 * noise[1], "proposed")
    assert x.abs().max() > 2.0
    seen["the soft target"] = [agent.policy.sample(batch.obs, noise[:2])[0]]
    acting = random(agent.policy.draws_to_act, 2, 16, 2, seed=6)
    first_obs = [batch.next_obs] if hasattr(agent, "multiplier") else []
    acted = agent.policy.act(batch.obs, acting, *first_obs)
    seen["the environment"] = [acted[0] if first_obs else acted]
    hpo.update(agent, plain_optimizers(agent), batch, noise, args)
    assert len(seen) == (7 if first_obs else 5)
    for name, actions in seen.items():
        assert max(action.abs().max().item() for action in actions) == 1.0, name


# ---------------------------------------------------------------- networks, and the critics' gradient by hand


@pytest.mark.parametrize("n, outputs", [(1, 40), (3, 5), (3, 40)])
def test_linear_layers_side_by_side_equal_torchs(script, n, outputs):
    """Those of few outputs lie in memory in another order."""
    layer, x = script.Linear(n, 7, outputs).double(), random(n, 10, 7)
    with torch.no_grad():
        layer.weight.copy_(random(n, 7, outputs, seed=2))
        layer.bias.copy_(random(n, 1, outputs, seed=3))
    for index in range(n):
        expected = F.linear(x[index], layer.weight[index].T, layer.bias[index, 0])
        torch.testing.assert_close(layer(x)[index], expected)


@pytest.mark.parametrize("known", [0, 3])
def test_linear_with_first(hpo, known):
    layer, x = hpo.Linear(2, 7, 5).double(), random(2, 10, 7)
    with torch.no_grad():
        layer.weight.copy_(random(2, 7, 5, seed=2))
        layer.bias.copy_(random(2, 1, 5, seed=3))
    function = layer.with_first(x[..., :known])
    for shift in 0.0, 1.0:
        x[..., known:] += shift
        torch.testing.assert_close(function(x[..., known:]), layer(x))


def test_critics_are_networks_of_their_own(script):
    """Q of critic j of seed i is that of network 2 i + j at seed i's inputs; of Q_C there is one per seed."""
    agent, _ = make_agent(script, seeds=3)
    obs, x, _ = start(10, seeds=3)
    both, found = torch.cat([obs, torch.tanh(x)], dim=-1), agent.q(obs, torch.tanh(x))
    assert found.shape == (3, 2, 10)

    def network(critic, number, x):
        layers = critic.layer1, critic.layer2, critic.layer3
        for layer in layers:
            x = F.linear(x, layer.weight[number].T, layer.bias[number, 0])
            x = x if layer is layers[-1] else F.relu(x)
        return x.squeeze(-1)

    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(found[i, j], network(agent.q, 2 * i + j, both[i]))
        if hasattr(agent, "q_cost"):
            found_cost = agent.q_cost(obs, torch.tanh(x))[:, 0]
            torch.testing.assert_close(found_cost[i], network(agent.q_cost, i, both[i]))


def test_sizes_of_the_networks(script):
    """Critics of two hidden layers of 256 units; Gaussian policies of two, below a leapfrog or flows of
    one."""

    def weights_and_biases(*widths):
        return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(widths))

    agent, _ = make_agent(script, 11, 3, seeds=2)

    def size(*parts):
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    hidden = [256, 256] if type(agent.policy) is script.GaussianPolicy else [256]
    policy = agent.policy
    assert size(agent.q) == size(agent.q_target) == 2 * 2 * weights_and_biases(14, 256, 256, 1)
    assert size(policy.body) == 2 * weights_and_biases(11, *hidden)
    assert size(policy.mean) == size(policy.log_std) == 2 * weights_and_biases(256, 3)
    if hasattr(policy, "hidden"):
        assert size(policy.hidden, policy.transform, policy.gate) == 2 * 2 * weights_and_biases(17, 32, 3)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("obs_dim, action_dim, rows", [(3, 2, 64), (40, 7, 300), (2, 1, 1)])
def test_min_at_equals_autograd(hpo, seeds, obs_dim, action_dim, rows):
    """Both are written out by hand in Critics. The smaller critic is now the one and now the other, the first
    everywhere, the second everywhere; at last they agree."""
    agent, _ = make_agent(hpo, obs_dim, action_dim, seeds)
    obs, x, _ = start(rows, seeds, obs_dim, action_dim)
    action, second = torch.tanh(x).requires_grad_(), agent.q.layer3.bias.detach()[1::2]  # (S, 1, 1)
    with torch.no_grad():
        apart = agent.q(obs, action)[:, 0] - agent.q(obs, action)[:, 1]  # (S, B)
    middle = apart.sort().values[:, (rows - 1) // 2 : rows // 2 + 1].mean(-1) + 0.01 * (rows == 1)
    first = second.clone()
    for shift in middle, apart.amax(-1) + 1.0, apart.amin(-1) - 1.0, None:
        if shift is None:
            for parameter in agent.q.parameters():
                parameter.data[1::2] = parameter.data[::2]
        else:
            second.copy_(first + shift.view(-1, 1, 1))
        q1, q2 = agent.q(obs, action).unbind(1)
        expected_q = torch.min(q1, q2)
        if shift is middle and rows > 1:
            assert ((q1 < q2).any(1) & (q2 < q1).any(1)).all()
        (expected,) = torch.autograd.grad(expected_q.sum(), action)
        q, gradient = agent.q.min_at(obs)(action)
        torch.testing.assert_close(q, expected_q.detach())
        torch.testing.assert_close(gradient, expected)
        assert not q.requires_grad and not gradient.requires_grad


def test_value_of_the_cost_critic_and_its_gradient_equal_autograd():
    agent, _ = hamiltonian("sac_hpo_safe", seeds=3)
    obs, x, _ = start(64, seeds=3)
    action = torch.tanh(x).requires_grad_()
    expected_q = agent.q_cost(obs, action)[:, 0]
    (expected,) = torch.autograd.grad(expected_q.sum(), action)
    q, gradient = agent.q_cost.min_at(obs)(action)
    torch.testing.assert_close(q, expected_q.detach())
    torch.testing.assert_close(gradient, expected)
    assert not q.requires_grad and not gradient.requires_grad


def test_attach(hpo):
    """The value is left as it is, and autograd finds the gradient that was given."""
    value, gradient, action = random(2, 5), random(2, 5, 3, seed=2), random(2, 5, 3, seed=3).requires_grad_()
    attached = hpo.attach(value, gradient, action)
    assert torch.equal(attached, value)
    torch.testing.assert_close(torch.autograd.grad(attached.sum(), action)[0], gradient)


def test_rounding(hpo):
    """In updates only, and only if asked for: bfloat16 turns and stretches the gradient, in most rows a
    little."""
    changes = dict(dtype=torch.float32, momentum_std_train=0.3, seeds=2)
    agent, _ = hamiltonian(hpo.__name__, **changes)
    rounding, _ = hamiltonian(hpo.__name__, bfloat16_force=True, **changes)
    with torch.no_grad():
        for critics in (
            agent.q_target,
            rounding.q_target,
        ):  # after the agent was made: the rounded ones must follow
            for parameter in critics.parameters():
                parameter.mul_(1.5)
    obs, x, _ = (part.float() for part in start(500, seeds=2))
    noise = random(2, 2, 500, 2, dtype=torch.float32)
    exact, rounded = (
        agent.policy.force_at(obs, *chosen(agent, "proposed"), rounded=rounded)(x)[1]
        for rounded in (False, True)
    )
    assert rounded["q"].dtype == rounded["gradient"].dtype == torch.float32
    error = (exact["gradient"] - rounded["gradient"]).norm(dim=-1) / exact["gradient"].norm(dim=-1)
    assert 1e-4 < error.median() < (0.015 if hasattr(agent, "multiplier") else 0.0075)
    # In some rows a ReLU or the choice of the smaller critic turned over.
    assert error.quantile(0.99) > 5.0 * error.median()
    assert F.cosine_similarity(exact["gradient"], rounded["gradient"], dim=-1).quantile(0.1) > 0.98
    torch.testing.assert_close(exact["q"], rounded["q"], rtol=0.02, atol=0.02)

    assert torch.equal(deterministic_action(agent, obs), deterministic_action(rounding, obs))
    for sample in "sample", "sample_with_momentum":
        apart = getattr(agent.policy, sample)(obs, noise)[0] - getattr(rounding.policy, sample)(obs, noise)[0]
        assert 1e-5 < apart.abs().mean() < 0.01


def test_rounding_is_the_default_where_it_is_fast(hpo, monkeypatch):
    """On CPUs that say so, if there is no GPU or it is not to be used."""
    for capability, fast in ("avx512_bf16", True), ("amx_bf16", True), ("avx2", False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=capability: {name: True, "sse": True})
        for gpu, cuda in (False, True), (True, True), (True, False):
            monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
            args = make_args(hpo, bfloat16_force=None, cuda=cuda)
            assert hpo.resolve(args).bfloat16_force is (fast and not (gpu and cuda))
            assert hpo.resolve(replace(args, bfloat16_force=True)).bfloat16_force is True
