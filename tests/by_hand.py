"""The paper's equations written out one after the other, for autograd to differentiate: nothing is held
constant, computed once for two uses or used again, as the scripts do it."""

import torch
import torch.nn.functional as F
from conftest import make_agent, random
from torch.distributions import Normal


def after_training(module, operator="proposed", **changes):
    """Agents whose temperatures, multipliers and flows are not the first ones and differ from one another."""
    if hasattr(module.Args, "train"):
        changes = {"train": operator, "explore": operator, **changes}
    agent, args = make_agent(module, **changes)
    with torch.no_grad():
        agent.log_alpha.add_(0.3 * torch.arange(1, len(agent.log_alpha) + 1))
        if hasattr(agent, "multiplier"):
            agent.multiplier.value.copy_(0.7 * torch.arange(1, len(agent.log_alpha) + 1))
        for i, flow in enumerate(getattr(agent.policy, "flows", [])):
            flow.log_alpha.copy_(random(*flow.log_alpha.shape, seed=20 + i))
            flow.raw_s.copy_(2.0 * random(*flow.raw_s.shape, seed=40 + i))
    return agent, args


def chosen(agent, operator) -> list:
    """The operator as an argument, where there is more than one."""
    return [operator] if hasattr(agent.args, "train") else []


def mean_and_std(policy, obs):
    """Of the Gaussian before tanh: one hidden layer, or two; log std in (-5, 2)."""
    h = F.relu(policy.layer1(obs))
    if hasattr(policy, "layer2"):
        h = F.relu(policy.layer2(h))
    return policy.mean(h), torch.exp(-5.0 + 7.0 * torch.sigmoid(2.0 * policy.log_std(h)))


def radial_flow(flow, z):
    """z' = z + beta / (alpha + r) (z - c) with beta = -alpha + softplus(.), and log |det dz'/dz|."""
    alpha = flow.log_alpha.exp()
    beta = -alpha + F.softplus(flow.raw_s)
    r = (z - flow.centre).square().sum(-1, keepdim=True).sqrt()
    h, dh = 1.0 / (alpha + r), -1.0 / (alpha + r) ** 2
    across, along = torch.log(1.0 + beta * h), torch.log(1.0 + beta * h + beta * dh * r)
    return z + beta * h * (z - flow.centre), ((z.shape[-1] - 1) * across + along).squeeze(-1)


def base_policy(policy, obs, xi):
    """a = tanh(u), or a_0, and its log-density on (-1, 1)^A."""
    mean, std = mean_and_std(policy, obs)
    u = mean + std * xi
    log_prob = Normal(mean, std).log_prob(u).sum(-1)
    for flow in getattr(policy, "flows", []):
        u, log_det = radial_flow(flow, u)
        log_prob = log_prob - log_det
    a = torch.tanh(u)
    return a, log_prob - torch.log(1.0 - a.square()).sum(-1)


def value(agent, obs, action):
    """What the force climbs (S, B): the smaller target Q, in safe RL less lambda Q_C."""
    q = torch.min(*agent.q_target(obs, action).unbind(1))
    if hasattr(agent, "multiplier"):
        q = q - agent.multiplier.value.unsqueeze(-1) * agent.q_cost_target(obs, action)[:, 0]
    return q


def leapfrog_nets(policy, inputs):
    """T_h and sigma_h, each of one hidden layer: their halves of the common one."""
    weights, biases = policy.hidden.weight.chunk(2, dim=-1), policy.hidden.bias.chunk(2, dim=-1)
    h_transform, h_gate = (F.elu(inputs @ w + b) for w, b in zip(weights, biases, strict=True))
    transform = h_transform @ policy.transform.weight + policy.transform.bias
    return transform, torch.sigmoid(h_gate @ policy.gate.weight + policy.gate.bias)


def force(agent, obs, a, operator):
    """F(s, a) of Eqs. (13) and (9)."""
    if operator in ("drift", "gaussian"):
        return torch.zeros_like(a)
    a = a if a.requires_grad else a.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(value(agent, obs, a).sum(), a, create_graph=True)
    if operator == "conventional":
        return -gradient / agent.log_alpha.detach().exp().view(-1, 1, 1)
    g = -gradient / gradient.square().sum(-1, keepdim=True).sqrt()
    state = obs if agent.args.leapfrog_state else obs[..., :0]
    transform, gate = leapfrog_nets(agent.policy, torch.cat([state, a, g], dim=-1))
    return gate * g + (1.0 - gate) * transform


def bounce(a, rho):
    """What sticks out at a bound is turned back there, and its momentum, until nothing sticks out."""
    while (a.abs() > 1.0).any():
        a, rho = torch.where(a > 1.0, 2.0 - a, a), torch.where(a > 1.0, -rho, rho)
        a, rho = torch.where(a < -1.0, -2.0 - a, a), torch.where(a < -1.0, -rho, rho)
    return a, rho


def evolve(agent, obs, noise, operator, std):
    """a_K, rho_K and log pi(a_0|s), with two forces per step; the script needs one, and one more."""
    epsilon, rho = agent.args.step_size, std * noise[1]
    a, log_prob = base_policy(agent.policy, obs, noise[0])
    if operator == "gaussian":
        return a, torch.zeros_like(rho), log_prob
    for _ in range(agent.args.leapfrog_steps):
        rho = rho - 0.5 * epsilon * force(agent, obs, a, operator)
        a, rho = bounce(a + epsilon * rho, rho)
        rho = rho - 0.5 * epsilon * force(agent, obs, a, operator)
    return a, rho, log_prob
