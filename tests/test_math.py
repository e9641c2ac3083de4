"""The density and the dynamics against autograd, numerical integration and torch.distributions, in float64."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from conftest import deterministic_action, make_agent, make_args, make_batch, make_optimizers_plain
from torch.autograd.functional import jacobian
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

OPERATORS = ["proposed", "conventional", "drift"]


class SmoothQ:
    """Two bumps and a slope, with derivatives of every order."""

    def min(self, obs, action):
        return (torch.sin(3.0 * action) + 0.5 * action).sum(-1) + 0.1 * obs.sum(-1)

    def state_parts(self, obs, rounded):
        return obs

    def min_and_gradient(self, obs, action):
        return self.min(obs, action).detach(), (3.0 * torch.cos(3.0 * action) + 0.5).detach()


def use_smooth_q(agent):
    """Puts SmoothQ in the place of the target critics."""
    agent.policy.borrowed = (SmoothQ(), *agent.policy.borrowed[1:])


def value(agent, obs, action):
    """What the force is the gradient of: min Q, less lambda Q_C in safe RL."""
    q = torch.min(*agent.q_target(obs, action))
    return q - agent.multiplier.value * agent.q_cost_target(obs, action) if hasattr(agent, "multiplier") else q


def raise_multiplier(agent):
    if hasattr(agent, "multiplier"):
        agent.multiplier.value.fill_(0.7)


def leapfrog_nets(policy, x):
    """T_h and sigma_h as two networks of one hidden layer each, from the rows of the common one that are theirs."""
    nets = []
    for last, weight, bias in zip(
        (policy.transform, policy.gate), policy.hidden.weight.chunk(2), policy.hidden.bias.chunk(2), strict=True
    ):
        nets.append(last(torch.nn.functional.elu(x @ weight.T + bias)))
    return nets[0], torch.sigmoid(nets[1])


def start(rows, obs_dim=3, action_dim=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = (rows, obs_dim), (rows, action_dim), (rows, action_dim)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("steps", [1, 3])
def test_leapfrog_preserves_volume(hpo, operator, steps):
    agent, _ = make_agent(hpo, leapfrog_steps=steps, step_size=0.3)
    obs, u, rho = start(1)

    def flow(x):
        u, rho, _ = agent.policy.evolve(obs, x[None, :2], x[None, 2:], operator, need_rho=True)
        return torch.cat([u, rho], dim=-1)[0]

    matrix = jacobian(flow, torch.cat([u, rho], dim=-1)[0])
    assert (matrix - torch.eye(4)).abs().max() > 0.1  # the map is not the identity
    assert torch.linalg.det(matrix).item() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("operator", ["proposed", "conventional"])
def test_without_momentum_volume_is_not_preserved(hpo, operator):
    """u_0 -> u_K at rho_0 = 0 changes volume: log_prob, exact for the pair, is then no density of a_K, as the README
    says of Fig. 6's control."""
    agent, _ = make_agent(hpo, leapfrog_steps=3, step_size=0.3)
    obs, u, rho = start(1)
    matrix = jacobian(lambda u: agent.policy.evolve(obs, u[None], 0.0 * rho, operator)[0][0], u[0])
    assert abs(torch.linalg.det(matrix).item() - 1.0) > 1e-3


def test_leapfrog_preserves_volume_under_any_force(hpo):
    _, u, rho = start(1)
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)  # not the gradient of anything

    def flow(x):
        return torch.cat(hpo.leapfrog(x[:2], x[2:], lambda u: (torch.sin(weight @ u), None), 0.4, 5)[:2])

    matrix = jacobian(flow, torch.cat([u, rho], dim=-1)[0])
    assert torch.linalg.det(matrix).item() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("operator", OPERATORS)
def test_leapfrog_runs_backwards(hpo, operator):
    agent, _ = make_agent(hpo, leapfrog_steps=4, step_size=0.2)
    obs, u, rho = start(50)
    u_end, rho_end, _ = agent.policy.evolve(obs, u, rho, operator, need_rho=True)
    u_back, rho_back, _ = agent.policy.evolve(obs, u_end, -rho_end, operator, need_rho=True)
    assert (u_end - u).abs().max() > 0.1
    torch.testing.assert_close(u_back, u, rtol=0, atol=1e-10)
    torch.testing.assert_close(-rho_back, rho, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("leapfrog_state", [True, False])
def test_leapfrog_against_the_equations_written_out(hpo, steps, leapfrog_state):
    """Eq. (13) step by step with 2 force evaluations per step; evolve reuses one of them and may leave out the last."""
    agent, _ = make_agent(hpo, leapfrog_steps=steps, step_size=0.2, leapfrog_state=leapfrog_state)
    raise_multiplier(agent)
    policy = agent.policy
    obs, u, rho = start(20)

    def force(u):
        action = torch.tanh(u).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(agent, obs, action).sum(), action)
        g = -gradient / gradient.norm(dim=-1, keepdim=True)
        x = torch.cat([obs if leapfrog_state else obs[:, :0], torch.tanh(u), g], dim=-1)
        transform, gate = leapfrog_nets(policy, x)
        return gate * g + (1 - gate) * transform

    expected_u, expected_rho = u, rho
    for _ in range(steps):
        half = expected_rho - 0.1 * force(expected_u)
        expected_u = expected_u + 0.2 * half
        expected_rho = half - 0.1 * force(expected_u)
    u_end, rho_end, found = policy.evolve(obs, u, rho, "proposed", need_rho=True)
    torch.testing.assert_close(u_end, expected_u)
    torch.testing.assert_close(rho_end, expected_rho)
    torch.testing.assert_close(found["q"], value(agent, obs, torch.tanh(u_end)).detach())
    torch.testing.assert_close(policy.evolve(obs, u, rho, "proposed", need_rho=False)[0], expected_u)


def test_an_update_needs_few_forces(hpo):
    """K for the soft target, which needs no rho_K; K + 1 for Eq. (12), whose Q and its gradient the last one holds."""
    agent, args = make_agent(hpo, leapfrog_steps=3)
    calls, real = [], hpo.TwinQ.min_and_gradient
    agent.q_target.min_and_gradient = lambda *a: (calls.append(1), real(agent.q_target, *a))[1]
    obs, u, _ = start(16)
    zeros = torch.zeros(16).double()
    hpo.update(agent, make_batch(hpo, obs, torch.tanh(u), zeros, obs, zeros), args)
    assert len(calls) == 3 + 4


@pytest.mark.parametrize("need_rho, evaluations", [(True, 4), (False, 3)])
def test_number_of_force_evaluations(hpo, need_rho, evaluations):
    calls = []
    hpo.leapfrog(torch.zeros(1), torch.ones(1), lambda u: (calls.append(u) or u, None), 0.1, 3, need_rho)
    assert len(calls) == evaluations


def test_conventional_force_is_the_gradient_of_the_potential(hpo):
    agent, _ = make_agent(hpo, alpha=0.3)
    use_smooth_q(agent)
    obs, u, _ = start(20)
    leaf = u.clone().requires_grad_()
    action = torch.tanh(leaf)
    potential = -SmoothQ().min(obs, action) / 0.3 - torch.log(1 - action.square()).sum(-1)
    (expected,) = torch.autograd.grad(potential.sum(), leaf)
    torch.testing.assert_close(agent.policy.force_at(obs, "conventional")(u)[0], expected, rtol=1e-6, atol=1e-6)


def test_conventional_leapfrog_conserves_energy_to_second_order(hpo):
    """Halving the step, at equal total time, divides the error in H = U(u) + rho^2 / 2 by four."""
    obs, u, rho = start(200)
    worst = []
    for steps in (40, 80, 160):
        agent, _ = make_agent(hpo, alpha=0.5, leapfrog_steps=steps, step_size=2.0 / steps)
        use_smooth_q(agent)

        def energy(u, rho):
            a = torch.tanh(u)
            return -SmoothQ().min(obs, a) / 0.5 - torch.log1p(-a.square()).sum(-1) + 0.5 * rho.square().sum(-1)

        u_end, rho_end, _ = agent.policy.evolve(obs, u, rho, "conventional", need_rho=True)
        worst.append((energy(u_end, rho_end) - energy(u, rho)).abs().mean().item())
    assert worst[0] > 1e-6
    assert worst[0] / worst[1] == pytest.approx(4.0, rel=0.1)
    assert worst[1] / worst[2] == pytest.approx(4.0, rel=0.1)


def test_conventional_leapfrog_samples_the_posterior():
    """Momentum drawn afresh again and again: actions become distributed as exp(Q / alpha), flat prior on (-1, 1)."""
    import sac_hpo_continuous as hpo

    agent, _ = make_agent(hpo, action_dim=1, alpha=0.5, leapfrog_steps=8, step_size=0.15)
    use_smooth_q(agent)
    torch.manual_seed(0)
    obs, u = torch.zeros(20_000, 3, dtype=torch.float64), torch.full((20_000, 1), -1.0, dtype=torch.float64)
    for _ in range(25):
        u, _, _ = agent.policy.evolve(obs, u, torch.randn_like(u), "conventional")
    edges = torch.linspace(-1, 1, 21, dtype=torch.float64)
    fine = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    weight = torch.exp(SmoothQ().min(torch.zeros(4001, 3, dtype=torch.float64), fine[:, None]) / 0.5)
    expected = torch.stack([weight[(fine >= a) & (fine < b)].sum() for a, b in itertools.pairwise(edges)])
    seen = torch.histc(torch.tanh(u), bins=20, min=-1, max=1)
    distance = 0.5 * (seen / seen.sum() - expected / expected.sum()).abs().sum()
    assert distance < 0.03  # total variation; 0.72 for the start


@pytest.mark.parametrize("operator", OPERATORS)
def test_density_integrates_to_one_and_matches_samples(operator):
    """In one dimension: q(a, rho) on a grid, by running each grid point backwards to (u_0, rho_0)."""
    import sac_hpo_continuous as hpo

    agent, _ = make_agent(hpo, action_dim=1, seed=3, leapfrog_steps=3, step_size=0.3)
    obs = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    mean, log_std = agent.policy(obs)
    std_rho = 0.8
    edges = torch.linspace(-1, 1, 401, dtype=torch.float64)
    rhos = torch.linspace(-6, 6, 121, dtype=torch.float64)
    actions = 0.5 * (edges[1:] + edges[:-1])
    a, rho = (x.reshape(-1, 1) for x in torch.meshgrid(actions, rhos, indexing="ij"))
    u = torch.atanh(a)
    with torch.no_grad():
        u0, rho0, _ = agent.policy.evolve(obs.expand(len(a), -1), u, -rho, operator, need_rho=True)
        log_q = Normal(mean, log_std.exp()).log_prob(u0).sum(-1) + Normal(0.0, std_rho).log_prob(rho0).sum(-1)
        density = (log_q - hpo.tanh_log_det(u)).exp().reshape(len(actions), len(rhos))
        marginal = density.sum(1) * (rhos[1] - rhos[0])
        assert (marginal.sum() * (actions[1] - actions[0])).item() == pytest.approx(1.0, abs=0.01)

        torch.manual_seed(0)
        many = obs.expand(40_000, -1)
        u, _ = agent.policy.sample_gaussian(many)
        u, _, _ = agent.policy.evolve(many, u, std_rho * torch.randn_like(u), operator)
    seen = torch.histc(torch.tanh(u), bins=20, min=-1, max=1) / 40_000
    expected = marginal.reshape(20, -1).sum(1) * (actions[1] - actions[0])
    assert 0.5 * (seen - expected).abs().sum() < 0.02  # total variation; sampling noise alone is about 0.009


@pytest.mark.parametrize("operator", ["proposed", "conventional", "drift", "gaussian"])
def test_log_prob_of_a_sample(hpo, operator):
    """log_prob is that of the starting point, by torch.distributions, less the tanh at the end point."""
    explore = "gaussian" if operator != "proposed" else "proposed"
    agent, _ = make_agent(hpo, train=operator, explore=explore, momentum_std_train=0.7)
    obs, _, _ = start(30)
    torch.manual_seed(9)
    action, log_prob, rho, _ = agent.policy.sample_with_momentum(obs)
    torch.manual_seed(9)
    mean, log_std = agent.policy(obs)
    u0 = mean + log_std.exp() * torch.randn_like(mean)
    rho0 = 0.7 * torch.randn_like(mean)
    assert (rho0.abs() > 0).all()
    u_end = torch.atanh(action)
    if operator != "gaussian":
        back, rho_back, _ = agent.policy.evolve(obs, u_end, -rho, operator, need_rho=True)
        torch.testing.assert_close(back, u0, rtol=0, atol=1e-6)
        torch.testing.assert_close(-rho_back, rho0, rtol=0, atol=1e-6)
    expected = Normal(mean, log_std.exp()).log_prob(u0).sum(-1) - torch.log(1 - action.square()).sum(-1)
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)
    torch.manual_seed(9)
    again, log_prob_again = agent.policy.sample(obs)  # the chain without the last force gives the same action
    torch.testing.assert_close(again, action)
    torch.testing.assert_close(log_prob_again, log_prob)


@pytest.mark.parametrize("operator", ["proposed", "conventional", "drift"])
def test_momentum_in_target(hpo, operator):
    """Then log_prob is log q(a_K, rho_K|s) - log N(rho_K), but for the mean of log N(rho_0) in place of log N(rho_0):
    the value of the critics is the objective's, Eq. (11). Without a force nothing is charged."""
    explore = "gaussian" if operator != "proposed" else "proposed"
    agent, _ = make_agent(hpo, train=operator, explore=explore, momentum_std_train=0.7, momentum_in_target=True)
    obs, _, _ = start(30)
    obs = obs.repeat(400, 1)
    torch.manual_seed(9)
    action, log_prob = agent.policy.sample(obs)
    torch.manual_seed(9)
    same, plain, rho, _ = agent.policy.sample_with_momentum(obs)
    torch.testing.assert_close(action, same)
    normal = Normal(0.0, 0.7)
    charged = -normal.entropy() * rho.shape[-1] - normal.log_prob(rho).sum(-1)
    torch.testing.assert_close(log_prob - plain, charged, rtol=1e-6, atol=1e-6)
    if operator == "drift":
        assert charged.mean().abs() < 4.0 * charged.std() / len(charged) ** 0.5


def test_gaussian_log_prob_equals_torch_distributions(script):
    agent, _ = make_agent(script)
    obs, _, _ = start(50)
    torch.manual_seed(4)
    u, _ = agent.policy.sample_gaussian(obs)
    torch.manual_seed(4)
    action, log_prob = script.GaussianPolicy.sample(agent.policy, obs)
    mean, log_std = agent.policy(obs)
    reference = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(cache_size=1)])
    torch.testing.assert_close(action, torch.tanh(u))
    torch.testing.assert_close(log_prob, reference.log_prob(action), rtol=1e-6, atol=1e-6)
    assert (log_std > -5).all() and (log_std < 2).all()


def test_tanh_log_det_is_right_and_never_infinite(script):
    u = torch.linspace(-8, 8, 101, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        script.tanh_log_det(u), torch.log(1 - torch.tanh(u).square()).squeeze(-1), rtol=1e-6, atol=1e-12
    )
    far = script.tanh_log_det(torch.tensor([[50.0], [-50.0], [1000.0]]))  # float32: 1 - tanh(50)^2 is 0
    torch.testing.assert_close(far, 2 * math.log(2.0) - 2 * torch.tensor([50.0, 50.0, 1000.0]))


@pytest.mark.parametrize("obs_dim, action_dim, rows", [(3, 2, 64), (40, 7, 300), (2, 1, 1)])
def test_min_and_gradient_equal_autograd(script, obs_dim, action_dim, rows):
    """Both are written out by hand in TwinQ. The smaller critic is now the one and now the other, the first everywhere,
    the second everywhere; at last they agree."""
    agent, _ = make_agent(script, obs_dim, action_dim)
    obs, u, _ = start(rows, obs_dim, action_dim)
    action = torch.tanh(u).requires_grad_()
    with torch.no_grad():
        apart = agent.q.q1(obs, action) - agent.q.q2(obs, action)
        middle = apart.sort().values[(rows - 1) // 2 : rows // 2 + 1].mean() + 0.01 * (rows == 1)
        raised = agent.q.q2.net[-1].bias.clone()
    for shift in middle, apart.max() + 1.0, apart.min() - 1.0, None:
        if shift is None:
            agent.q.q2.load_state_dict(agent.q.q1.state_dict())
        else:
            agent.q.q2.net[-1].bias.data = raised + shift
        q1, q2 = agent.q(obs, action)
        expected_q = torch.min(q1, q2)
        if shift is middle and rows > 1:
            assert (q1 < q2).any() and (q2 < q1).any()
        (expected,) = torch.autograd.grad(expected_q.sum(), action)
        q, gradient = agent.q.min_and_gradient(agent.q.state_parts(obs), action)
        torch.testing.assert_close(q, expected_q.detach())
        torch.testing.assert_close(gradient, expected)
        assert not q.requires_grad and not gradient.requires_grad


def test_value_and_gradient_equal_autograd(hpo):
    agent, _ = make_agent(hpo)
    raise_multiplier(agent)
    obs, u, _ = start(64)
    action = torch.tanh(u).requires_grad_()
    expected_q = value(agent, obs, action)
    (expected,) = torch.autograd.grad(expected_q.sum(), action)
    q, gradient = agent.policy.value_at(obs)(action)
    torch.testing.assert_close(q, expected_q.detach())
    torch.testing.assert_close(gradient, expected)
    assert not q.requires_grad and not gradient.requires_grad


def test_attach(script):
    """The value is left as it is, and autograd finds the gradient that was given."""
    value, gradient, action = torch.randn(5), torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)
    attached = script.attach(value, gradient, action)
    assert torch.equal(attached, value)
    torch.testing.assert_close(torch.autograd.grad(attached.sum(), action)[0], gradient)


def test_rounding(hpo):
    """In updates only, and only if asked for: bfloat16 turns and stretches the gradient, in most rows a little."""
    agent, _ = make_agent(hpo, dtype=torch.float32, momentum_std_train=0.3)
    rounding, _ = make_agent(hpo, dtype=torch.float32, momentum_std_train=0.3, bfloat16_force=True)
    raise_multiplier(agent), raise_multiplier(rounding)
    with torch.no_grad():
        for critic in (agent.q_target, rounding.q_target):  # after the agent was made: what is rounded must follow
            for parameter in critic.parameters():
                parameter.mul_(1.5)
    obs, u, _ = (x.float() for x in start(500))
    action = torch.tanh(u)
    q, gradient = agent.policy.value_at(obs)(action)
    rounded_q, rounded_gradient = agent.policy.value_at(obs, rounded=True)(action)
    assert rounded_q.dtype == rounded_gradient.dtype == torch.float32
    weights = [[part[1].dtype for part in agent.q_target.state_parts(obs, rounded)] for rounded in (False, True)]
    assert weights == [[torch.float32] * 2, [torch.bfloat16] * 2]
    error = (gradient - rounded_gradient).norm(dim=-1) / gradient.norm(dim=-1)
    assert 1e-4 < error.median() < (0.015 if hasattr(agent, "multiplier") else 0.0075)  # of Q - lambda Q_C, of Q
    assert error.quantile(0.99) > 5.0 * error.median()  # a ReLU or the choice of the smaller critic turned over
    assert torch.nn.functional.cosine_similarity(gradient, rounded_gradient).quantile(0.1) > 0.98
    torch.testing.assert_close(q, rounded_q, rtol=0.02, atol=0.02)

    def sample(one):
        torch.manual_seed(1)
        return one.policy.sample(obs)[0]

    def act(one):
        torch.manual_seed(1)
        return deterministic_action(one, obs)

    assert torch.equal(act(agent), act(rounding))
    assert 1e-5 < (sample(agent) - sample(rounding)).abs().mean() < 0.01


def test_rounding_is_the_default_where_it_is_fast(hpo, monkeypatch):
    for capability, fast in ("avx512_bf16", True), ("amx_bf16", True), ("avx2", False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=capability: {name: True, "sse": True})
        args = make_args(hpo, bfloat16_force=None)
        assert hpo.resolve(args).bfloat16_force is fast
        assert hpo.resolve(replace(args, bfloat16_force=True)).bfloat16_force is True


def test_acting():
    """The exploration chain: from (mean, 0) if deterministic, else with momentum of the exploration's spread."""
    import sac_hpo_continuous as hpo

    agent, _ = make_agent(hpo, momentum_std_explore=1.3, momentum_std_train=0.2)
    obs, _, _ = start(30)
    mean, log_std = agent.policy(obs)
    u, _, _ = agent.policy.evolve(obs, mean, torch.zeros_like(mean), "proposed")
    torch.testing.assert_close(agent.policy.act(obs, True), torch.tanh(u))
    torch.manual_seed(8)
    u0 = mean + log_std.exp() * torch.randn_like(mean)
    u, _, _ = agent.policy.evolve(obs, u0, 1.3 * torch.randn_like(mean), "proposed")
    torch.manual_seed(8)
    torch.testing.assert_close(agent.policy.act(obs, False), torch.tanh(u))


def test_zero_gradient_gives_no_nan(hpo):
    agent, _ = make_agent(hpo)
    obs, u, _ = start(4)
    with torch.no_grad():
        for critic in [agent.q_target.q1, agent.q_target.q2]:
            critic.net[-1].weight.zero_()
    force, _ = agent.policy.force_at(obs, "proposed")(u)
    x = torch.cat([obs, torch.tanh(u), torch.zeros_like(u)], dim=-1)
    transform, gate = leapfrog_nets(agent.policy, x)
    torch.testing.assert_close(force, (1 - gate) * transform)  # g = 0: T_h alone


def full_objective(agent, args, obs, operator):
    """Minus Eq. (12) with nothing detached and nothing reused: second derivatives of the critics included."""
    policy, alpha = agent.policy, args.alpha
    mean, log_std = policy(obs)
    xi = torch.randn_like(mean)
    u0 = mean + log_std.exp() * xi
    rho = args.momentum_std_train * torch.randn_like(mean)

    def force(u):
        action = torch.tanh(u)
        (gradient,) = torch.autograd.grad(value(agent, obs, action).sum(), action, create_graph=True)
        if operator == "conventional":
            return -(1 - action.square()) * gradient / alpha + 2 * action
        g = -gradient / gradient.norm(dim=-1, keepdim=True)
        x = torch.cat([obs, action, g], dim=-1)
        transform, gate = leapfrog_nets(policy, x)
        return gate * g + (1 - gate) * transform

    u = u0
    for _ in range(args.leapfrog_steps):
        if operator in ("proposed", "conventional"):
            rho = rho - 0.5 * args.step_size * force(u)
        if operator != "gaussian":
            u = u + args.step_size * rho
        if operator in ("proposed", "conventional"):
            rho = rho - 0.5 * args.step_size * force(u)
    log_prob = Normal(mean, log_std.exp()).log_prob(u0) - torch.log(1 - torch.tanh(u).square())
    penalty = 0.5 * alpha / args.momentum_std_train**2 * rho.square().sum(-1)
    if operator == "gaussian":
        penalty = torch.zeros_like(penalty)
    return (alpha * log_prob.sum(-1) + penalty - value(agent, obs, torch.tanh(u))).mean()


@pytest.mark.parametrize("operator", ["proposed", "conventional", "drift", "gaussian"])
def test_gradient_of_the_policy_objective(hpo, operator):
    """What update() descends equals autograd through everything with create_graph=True, for every parameter."""
    explore = "proposed" if operator == "proposed" else "gaussian"
    agent, args = make_agent(hpo, train=operator, explore=explore, leapfrog_steps=3, momentum_std_train=0.6)
    raise_multiplier(agent)
    obs, _, _ = start(16)
    names, parameters = zip(*agent.policy.named_parameters(), strict=True)
    torch.manual_seed(2)
    expected = torch.autograd.grad(full_objective(agent, args, obs, operator), parameters, allow_unused=True)

    before = [p.detach().clone() for p in parameters]
    make_optimizers_plain(agent)
    for name in set(agent.optimizers) - {"policy"}:
        agent.optimizers[name].param_groups[0]["lr"] = 0.0
    zeros = torch.zeros(16).double()
    batch = make_batch(hpo, obs, torch.zeros(16, 2).double(), zeros, obs, zeros)
    # The critics' target draws first: 16 x 2 for u and for rho. Draw the same here, then come to the policy's draws.
    real = agent.policy.sample
    agent.policy.sample = lambda obs: (real(obs), torch.manual_seed(2))[0]
    hpo.update(agent, batch, args)
    moved = 0
    for name, parameter, old, gradient in zip(names, parameters, before, expected, strict=True):
        step = old - parameter.detach()
        if gradient is None:
            assert not step.any(), name
        else:
            torch.testing.assert_close(step, gradient, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
            moved += bool(step.any())
    assert moved == (12 if operator == "proposed" else 6)
