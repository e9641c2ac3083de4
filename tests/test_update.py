"""Losses against numbers worked out by hand, the whole update against plain autograd, the buffer against a list."""

import importlib
import math
from collections import deque

import numpy as np
import pytest
import torch
from conftest import make_agent, make_batch
from conftest import make_optimizers_plain as plain_sgd

NOT_HAMILTONIAN = ["sac_baseline", "sac_nf", "sac_lagrangian"]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_soft_q_target(script):
    target = script.soft_q_target(tensor(1, 1), tensor(0, 1), tensor(10, 10), tensor(-2, -2), 0.5, 0.9)
    assert target.tolist() == pytest.approx([1 + 0.9 * (10 + 0.5 * 2), 1.0])


def test_q_loss(script):
    loss, logs = script.q_loss(tensor(1, 2), tensor(0, 0), tensor(1, 4))
    assert loss.item() == pytest.approx((0 + 4) / 2 + (1 + 16) / 2)
    assert logs["values/q1"].item() == 1.5 and logs["values/q2"].item() == 0.0


@pytest.mark.parametrize("name", NOT_HAMILTONIAN)
def test_policy_loss(name):
    loss, logs = importlib.import_module(name).policy_loss(q=tensor(1, 5), log_prob=tensor(-1, 3), alpha=0.2)
    assert loss.item() == pytest.approx(((-0.2 - 1) + (0.6 - 5)) / 2)
    assert logs["values/entropy"].item() == pytest.approx(-1.0)


def test_hamiltonian_policy_loss(hpo):
    rho = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64)
    loss, logs = hpo.policy_loss(tensor(1, 5), tensor(-1, 3), rho, alpha=0.2, momentum_std=0.5)  # beta_0 = 4
    by_hand = ((0.2 * -1 + 0.2 * 4 / 2 * 5 - 1) + (0.2 * 3 + 0.2 * 4 / 2 * 9 - 5)) / 2
    assert loss.item() == pytest.approx(by_hand)
    assert logs["values/momentum_penalty"].item() == pytest.approx((4 / 2 * 5 + 4 / 2 * 9) / 2)
    loss, _ = hpo.policy_loss(tensor(1, 5), tensor(-1, 3), rho, alpha=0.2, momentum_std=0.0)
    assert loss.item() == pytest.approx(((-0.2 - 1) + (0.6 - 5)) / 2)


def test_temperature_loss(script):
    log_alpha = torch.tensor(math.log(0.5), dtype=torch.float64, requires_grad=True)
    loss, _ = script.temperature_loss(log_alpha, tensor(1, 3), target_entropy=-6.0)
    assert loss.item() == pytest.approx(-0.5 * (2 - 6))
    loss.backward()
    assert log_alpha.grad.item() == pytest.approx(2.0)  # entropy -2 is above its target -6: alpha must fall


def random_batch(script, rows=16):
    g = torch.Generator().manual_seed(7)
    obs, next_obs = (torch.randn(rows, 3, generator=g, dtype=torch.float64) for _ in range(2))
    action = torch.rand(rows, 2, generator=g, dtype=torch.float64) * 2 - 1
    reward = torch.randn(rows, generator=g, dtype=torch.float64)
    cost = torch.rand(rows, generator=g, dtype=torch.float64)
    return make_batch(script, obs, action, reward, next_obs, (torch.arange(rows) % 3 == 0).double(), cost)


def snapshot(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("autotune", [False, True])
def test_update_is_one_gradient_step_and_a_polyak_step(script, autotune):
    agent, args = make_agent(script, alpha=0.3, gamma=0.9, tau=0.25, autotune=autotune)
    plain_sgd(agent)
    batch = random_batch(script)
    old = snapshot(agent)

    torch.manual_seed(11)
    with torch.no_grad():
        next_action, next_log_prob = agent.policy.sample(batch.next_obs)
        q1, q2 = agent.q_target(batch.next_obs, next_action)
        target = batch.reward + 0.9 * (1 - batch.terminated) * (torch.min(q1, q2) - 0.3 * next_log_prob)
    q1, q2 = agent.q(batch.obs, batch.action)
    loss = ((q1 - target) ** 2).mean() + ((q2 - target) ** 2).mean()
    expected = dict(
        zip([n for n, _ in agent.q.named_parameters()], torch.autograd.grad(loss, agent.q.parameters()), strict=True)
    )
    _, log_prob = agent.policy.sample(batch.obs)

    torch.manual_seed(11)
    logs = script.update(agent, batch, args)
    assert logs["losses/q"].item() == pytest.approx(loss.item())
    for name, parameter in agent.q.named_parameters():
        torch.testing.assert_close(parameter.detach(), old["q." + name] - expected[name])
        polyak = 0.75 * old["q_target." + name] + 0.25 * parameter.detach()
        torch.testing.assert_close(dict(agent.q_target.named_parameters())[name], polyak)
    assert any((p.detach() != old["policy." + n]).any() for n, p in agent.policy.named_parameters())
    step = (agent.log_alpha - old["log_alpha"]).item()
    by_hand = 0.3 * (log_prob.mean().item() - 2.0) if autotune else 0.0  # target entropy -A = -2
    assert step == pytest.approx(by_hand, rel=1e-5)


def test_optimisers_are_adam_with_the_learning_rates_of_the_arguments(script):
    """PyTorch's fused Adam and its plain one take the same three steps."""
    agent, args = make_agent(script, policy_lr=1e-3, q_lr=1e-4, autotune=True)
    rates = {"q": args.q_lr, "q_cost": args.q_lr, "policy": args.policy_lr, "alpha": args.q_lr}
    parts = {"q": agent.q.parameters(), "policy": agent.policy.parameters(), "alpha": [agent.log_alpha]}
    parts |= {"q_cost": agent.q_cost.parameters()} if hasattr(agent, "q_cost") else {}
    assert set(parts) == set(agent.optimizers)
    for name, part in parts.items():
        part = list(part)
        copies = [p.detach().clone().requires_grad_() for p in part]
        plain = torch.optim.Adam(copies, lr=rates[name], fused=False, foreach=False)
        for _ in range(3):
            for p, copy in zip(part, copies, strict=True):
                p.grad = torch.randn_like(p)
                copy.grad = p.grad.clone()
            agent.optimizers[name].step()
            plain.step()
        for p, copy in zip(part, copies, strict=True):
            torch.testing.assert_close(p, copy, rtol=0, atol=1e-9)


def test_descend_leaves_others_without_a_gradient(script):
    mine, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    before = mine.weight.detach().clone()
    script.descend(torch.optim.SGD(mine.parameters(), lr=1.0), other(mine(torch.ones(1, 2))).sum())
    torch.testing.assert_close(mine.weight.detach(), before - other.weight.detach().T.expand(2, 2))
    assert other.weight.grad is None and other.bias.grad is None


@pytest.mark.parametrize("name", NOT_HAMILTONIAN)
def test_policy_step_uses_the_critics_and_leaves_them_alone(name):
    script = importlib.import_module(name)
    agent, args = make_agent(script, alpha=0.3)
    plain_sgd(agent)
    for part in set(agent.optimizers) - {"policy"}:
        agent.optimizers[part].param_groups[0]["lr"] = 0.0
    if name == "sac_lagrangian":
        agent.multiplier.value.fill_(0.7)
    batch, old = random_batch(script), snapshot(agent)
    draws = agent.policy.sample
    agent.policy.sample = lambda obs: (draws(obs), torch.manual_seed(5))[0]
    script.update(agent, batch, args)
    new, agent.policy.sample = snapshot(agent), draws

    with torch.no_grad():
        for key, parameter in agent.named_parameters():
            parameter.copy_(old[key])
    torch.manual_seed(5)
    action, log_prob = agent.policy.sample(batch.obs)
    q = torch.min(*agent.q(batch.obs, action))
    if name == "sac_lagrangian":
        q = q - 0.7 * agent.q_cost(batch.obs, action)
    loss = (0.3 * log_prob - q).mean()
    gradients = torch.autograd.grad(loss, agent.policy.parameters())
    for (key, _), gradient in zip(agent.policy.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(new["policy." + key], old["policy." + key] - gradient)
    for key, _ in agent.q.named_parameters():
        assert torch.equal(new["q." + key], old["q." + key])


def test_buffer_against_a_list_across_wrap_around(script):
    rng = np.random.default_rng(0)
    buffer, reference = script.ReplayBuffer(7, obs_dim=3, action_dim=2), deque(maxlen=7)
    for step in range(25):
        row = rng.normal(size=3), rng.normal(size=2), float(step), rng.normal(size=3), step % 4 == 0, rng.normal()
        row = row[: len(script.Batch._fields)]  # the last is the cost
        buffer.add(*row)
        reference.append(row)
        batch = buffer.sample(200, rng, torch.device("cpu"))
        known = {item[2]: item for item in reference}
        assert set(batch.reward.tolist()) == set(known)  # every row still held is drawn, and no other
        for i, reward in enumerate(batch.reward.tolist()):
            for seen, expected in zip(batch, known[reward], strict=True):
                np.testing.assert_array_equal(seen[i].numpy(), np.float32(expected))


def test_buffer_draws_uniformly(script):
    buffer = script.ReplayBuffer(10, 1, 1)
    for step in range(13):
        buffer.add(*([0.0], [0.0], step, [0.0], False, 0.0)[: len(script.Batch._fields)])
    rewards = buffer.sample(100_000, np.random.default_rng(0), torch.device("cpu")).reward
    counts = torch.bincount(rewards.long(), minlength=13)
    assert (counts[:3] == 0).all()
    assert (counts[3:] - 10_000).abs().max() < 500  # five standard deviations


@pytest.mark.parametrize("rows", [4, 10, 13])
def test_buffer_survives_a_checkpoint(script, rows, tmp_path):
    first, second = script.ReplayBuffer(10, 2, 1), script.ReplayBuffer(10, 2, 1)
    for step in range(rows):
        first.add(*([step, -step], [0.5], step, [step + 1, 0], step % 5 == 4, -step)[: len(script.Batch._fields)])
    torch.save(first.state_dict(), tmp_path / "buffer.pt")
    assert (tmp_path / "buffer.pt").stat().st_size < 5_000
    second.load_state_dict(torch.load(tmp_path / "buffer.pt", weights_only=True))
    for buffer in (first, second):
        buffer.add(*([9.0, 9.0], [0.1], 99.0, [8.0, 8.0], True, 5.0)[: len(script.Batch._fields)])
    a, b = (buffer.sample(64, np.random.default_rng(3), torch.device("cpu")) for buffer in (first, second))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_first_and_second_critic_differ_and_targets_start_equal(script):
    agent, _ = make_agent(script, fresh=True)
    weights = [critic.net[0].weight for critic in (agent.q.q1, agent.q.q2, agent.q_target.q1, agent.q_target.q2)]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2]) and torch.equal(weights[1], weights[3])
    assert not any(p.requires_grad for p in agent.q_target.parameters())
