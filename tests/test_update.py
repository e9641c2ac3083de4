"""Losses and updates against numbers by hand and plain autograd; seeds that know nothing of one another."""

import importlib
import math
import os
from collections import deque
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import (
    make_agent,
    make_args,
    noise_for,
    plain_optimizers,
    random,
    random_batch,
    same,
    weights,
    weights_of,
)
from test_math import HPO, hamiltonian, sample_by_hand, value

CPU = torch.device("cpu")
NOT_HAMILTONIAN = ["sac_baseline", "sac_nf", "sac_lagrangian"]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


# ------------------------------------------------------------------ losses of two seeds, two transitions each


def test_soft_q_target(script):
    alpha, log_prob = tensor([0.5], [0.2]), tensor([-2, -2], [-3, 1])
    reward, terminated, q = tensor([1, 1], [2, 2]), tensor([0, 1], [0, 0]), tensor([10, 10], [5, 6])
    found = script.soft_q_target(reward, terminated, q, log_prob, alpha, 0.9)
    assert found[0].tolist() == pytest.approx([1 + 0.9 * (10 + 0.5 * 2), 1.0])
    assert found[1].tolist() == pytest.approx([2 + 0.9 * (5 + 0.2 * 3), 2 + 0.9 * (6 - 0.2)])


def test_q_loss(script):
    q = tensor([[1, 2], [0, 0]], [[3, 3], [5, 1]])  # seed, critic, transition
    loss, logs = script.q_loss(q, tensor([1, 4], [3, 0]))
    assert loss.tolist() == pytest.approx([(0 + 4) / 2 + (1 + 16) / 2, (0 + 9) / 2 + (4 + 1) / 2])
    assert logs["losses/q"].tolist() == loss.tolist()
    assert logs["values/q1"].tolist() == [1.5, 3.0] and logs["values/q2"].tolist() == [0.0, 3.0]


@pytest.mark.parametrize("name", NOT_HAMILTONIAN)
def test_policy_loss(name):
    q, log_prob, alpha = tensor([1, 5], [2, 0]), tensor([-1, 3], [4, 2]), tensor([0.2], [0.5])
    loss, logs = importlib.import_module(name).policy_loss(q, log_prob, alpha)
    assert loss.tolist() == pytest.approx([((-0.2 - 1) + (0.6 - 5)) / 2, ((2 - 2) + (1 - 0)) / 2])
    assert logs["losses/policy"].tolist() == loss.tolist()
    assert logs["values/entropy"].tolist() == pytest.approx([-1.0, -3.0])


def test_hamiltonian_policy_loss(hpo):
    """(alpha beta_0 / 2) |rho_K|^2, beta_0 = 1 / 0.5^2 = 4; nothing without momentum."""
    q, log_prob, alpha = tensor([1, 5], [2, 0]), tensor([-1, 3], [4, 2]), tensor([0.2], [0.5])
    rho = tensor([[1, 2], [0, 3]], [[1, 0], [0, 0]])
    loss, logs = hpo.policy_loss(q, log_prob, rho, alpha, momentum_std=0.5)
    first = ((0.2 * -1 + 0.2 * 4 / 2 * 5 - 1) + (0.2 * 3 + 0.2 * 4 / 2 * 9 - 5)) / 2
    second = ((0.5 * 4 + 0.5 * 4 / 2 * 1 - 2) + 0.5 * 2) / 2
    assert loss.tolist() == pytest.approx([first, second])
    assert logs["losses/policy"].tolist() == loss.tolist()
    assert logs["values/entropy"].tolist() == pytest.approx([-1.0, -3.0])
    assert logs["values/momentum_penalty"].tolist() == pytest.approx([(4 / 2 * 5 + 4 / 2 * 9) / 2, 1.0])
    loss, logs = hpo.policy_loss(q, log_prob, rho, alpha, momentum_std=0.0)
    assert loss.tolist() == pytest.approx([((-0.2 - 1) + (0.6 - 5)) / 2, ((2 - 2) + (1 - 0)) / 2])
    assert logs["values/momentum_penalty"].tolist() == [0.0, 0.0]


def test_temperature_loss(script):
    log_alpha = tensor(math.log(0.5), math.log(0.2)).requires_grad_()
    loss, logs = script.temperature_loss(log_alpha, tensor([1, 3], [8, 10]), target_entropy=-6.0)
    assert loss.tolist() == pytest.approx([-0.5 * (2 - 6), -0.2 * (9 - 6)])
    assert logs["losses/temperature"].tolist() == loss.tolist()
    loss.sum().backward()  # entropy -2 is above its target -6: alpha must fall; -9 is below it
    assert log_alpha.grad.tolist() == pytest.approx([2.0, -0.6])


# -------------------------------------------------------------------------------- an update by plain autograd


def updated_by_hand(agent, batch, noise, args, operator):
    """One step of size 1 on each loss, one after the other, and Polyak averaging: the new weights and what is
    logged. Autograd goes through the whole chain of leapfrog steps with nothing held constant or used
    again."""
    agent, logs = deepcopy(agent), {}
    obs, action, reward, next_obs, terminated, *cost = batch
    draws, alpha = agent.policy.draws, agent.log_alpha.detach().exp().unsqueeze(-1)

    def step(parameters, loss, name):
        parameters, logs[f"losses/{name}"] = list(parameters), loss.detach()
        gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient)

    with torch.no_grad():
        next_action, next_log_prob = agent.policy.sample(next_obs, noise[:draws])
        next_q = torch.min(*agent.q_target(next_obs, next_action).unbind(1)) - alpha * next_log_prob
        target = reward + args.gamma * (1 - terminated) * next_q
    q1, q2 = agent.q(obs, action).unbind(1)
    logs |= {"values/q1": q1.mean(-1), "values/q2": q2.mean(-1), "values/alpha": alpha.squeeze(-1)}
    step(agent.q.parameters(), ((q1 - target) ** 2).mean(-1) + ((q2 - target) ** 2).mean(-1), "q")
    if cost:  # a torque, which has no end
        with torch.no_grad():
            target = cost[0] + args.gamma * agent.q_cost_target(next_obs, next_action)[:, 0]
        q_cost = agent.q_cost(obs, action)[:, 0]
        logs |= {"values/q_cost": q_cost.mean(-1), "values/lambda": agent.multiplier.value.clone()}
        step(agent.q_cost.parameters(), ((q_cost - target) ** 2).mean(-1), "q_cost")

    penalty = torch.zeros(obs.shape[:2]).double()
    if hasattr(agent.policy, "hidden"):
        std = args.momentum_std_train
        action, log_prob, rho, nets, x = sample_by_hand(agent, obs, noise[draws:], std, operator)
        penalty = 0.5 * rho.square().sum(-1) / std**2
        logs["values/momentum_penalty"] = penalty.mean(-1)
        q = value(agent, obs, action)
        if nets:
            logs["values/gate"] = nets["gate"].mean((1, 2))
            logs["values/transform_norm"] = nets["transform"].square().sum(-1).sqrt().mean(-1)
        if args.coordinates == "action" and operator != "gaussian":
            assert (x.abs() > 1.0).any() and (x.abs() < 1.0).any()
    else:
        action, log_prob = agent.policy.sample(obs, noise[draws:])
        q = torch.min(*agent.q(obs, action).unbind(1))
        if cost:
            q = q - agent.multiplier.value.unsqueeze(-1) * agent.q_cost(obs, action)[:, 0]
    logs["values/entropy"] = -log_prob.mean(-1)
    step(agent.policy.parameters(), (alpha * (log_prob + penalty) - q).mean(-1), "policy")
    if args.autotune:  # towards an entropy of -A
        loss = -agent.log_alpha.exp() * (log_prob.detach().mean(-1) - agent.action_dim)
        step([agent.log_alpha], loss, "temperature")

    with torch.no_grad():
        for name in ("q", "q_cost") if cost else ("q",):
            parts = getattr(agent, f"{name}_target").parameters(), getattr(agent, name).parameters()
            for old, new in zip(*parts, strict=True):
                old.copy_((1 - args.tau) * old + args.tau * new)
    return weights(agent), {name: entry.detach() for name, entry in logs.items()}


UPDATES = [(name, "", {}) for name in NOT_HAMILTONIAN]
for coordinates in "pre-tanh", "action":
    for operator in "proposed", "conventional", "drift", "gaussian":
        UPDATES.append((HPO, operator, {"coordinates": coordinates}))
    UPDATES.append(("sac_hpo_safe", "proposed", {"coordinates": coordinates}))
UPDATES += [(HPO, "proposed", {"leapfrog_state": False}), (HPO, "proposed", {"momentum_in_target": True})]


@pytest.mark.parametrize("name, operator, changes", UPDATES)
@pytest.mark.parametrize("seeds, autotune", [(1, False), (3, True)])
def test_update(name, operator, changes, seeds, autotune):
    """A gradient step on the critics, one on the policy, one on the temperature if asked for, and a Polyak
    step."""
    script = importlib.import_module(name)
    if operator:
        changes = changes | {"leapfrog_steps": 3, "step_size": 0.3, "momentum_std_train": 0.6}
    changes = changes | dict(alpha=0.3, gamma=0.9, tau=0.25, autotune=autotune, seeds=seeds)
    agent, args = hamiltonian(name, operator or "proposed", **changes)
    batch, noise, old = random_batch(script, seeds=seeds), noise_for(agent, seeds=seeds), weights(agent)
    expected, expected_logs = updated_by_hand(agent, batch, noise, args, operator)
    logs = script.update(agent, plain_optimizers(agent), batch, noise, args)
    new = weights(agent)
    for key in expected:
        torch.testing.assert_close(
            new[key], expected[key], rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}"
        )
    assert logs.keys() == expected_logs.keys()
    for key in logs:
        assert logs[key].shape == (seeds,) and not logs[key].requires_grad
        torch.testing.assert_close(logs[key], expected_logs[key], msg=lambda m, k=key: f"{k}: {m}")
    still = {key for key in old if torch.equal(old[key], new[key])} - {"log_alpha"}
    nets = {key for key in old if key.startswith(("policy.hidden", "policy.transform", "policy.gate"))}
    assert still == {key for key in old if key.startswith("multiplier")} | (
        nets if operator != "proposed" else set()
    )
    assert torch.equal(old["log_alpha"], new["log_alpha"]) != autotune


def test_descend(script):
    """A step down the sum of the losses, by this gradient alone; others are left without one."""
    mine, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    before, optimizer = mine.weight.detach().clone(), torch.optim.SGD(mine.parameters(), lr=1.0)
    for turn in 1, 2:
        script.descend(optimizer, other(mine(torch.ones(3, 2))).squeeze(-1))
        expected = before - 3.0 * turn * other.weight.detach().T.expand(2, 2)
        torch.testing.assert_close(mine.weight.detach(), expected)
    assert other.weight.grad is None and other.bias.grad is None


def test_optimisers_are_adam_with_the_learning_rates_of_the_arguments(script):
    """As PyTorch's plain one, fresh, in three updates: the step that makes Adam's state leaves no trace."""
    rates = dict(policy_lr=1e-3, q_lr=1e-4)
    agent, args = hamiltonian(script.__name__, seeds=2, autotune=True, **rates)
    expected, old = deepcopy(agent), weights(agent)
    optimizers, plain = script.make_optimizers(agent, args), plain_optimizers(expected)
    assert same(old, weights(agent)) and optimizers.keys() == plain.keys()
    for name, optimizer in plain.items():
        rate = 1e-3 if name == "policy" else 1e-4
        plain[name] = torch.optim.Adam(optimizer.param_groups[0]["params"], rate, fused=False, foreach=False)
    batch = random_batch(script, seeds=2)
    for turn in range(3):
        noise = noise_for(agent, seeds=2, seed=turn)
        script.update(agent, optimizers, batch, noise, args)
        script.update(expected, plain, batch, noise, args)
        for name, weight in weights(expected).items():
            part = agent.state_dict()[name]
            torch.testing.assert_close(part, weight, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert (agent.q.layer3.bias - old["q.layer3.bias"]).abs().max().item() == pytest.approx(3e-4, rel=0.2)
    assert (agent.policy.mean.bias - old["policy.mean.bias"]).abs().max().item() == pytest.approx(
        3e-3, rel=0.2
    )


def test_weights_that_nobody_drew_are_noticed(script):
    """Who copies the networks without `draw_weights` sees NaN, and not an agent that never learns."""
    args = script.resolve(make_args(script))
    agent = script.Agent(2, 3, 2, args)
    layers = [layer for layer in agent.modules() if isinstance(layer, script.Linear)]
    assert len(layers) >= 8
    assert all(weight.isnan().all() for layer in layers for weight in layer.parameters())
    script.draw_weights(agent, script.make_generators(range(2), CPU)[0])
    assert all(value.isfinite().all() for value in agent.state_dict().values())


# -------------------------------------------------------------------------- seeds know nothing of one another


def trained(script, seeds, updates, spoiled=None, dtype=torch.float64):
    """Acts and learns as `train` does, from transitions that each seed alone determines: per seed, everything
    that there is at the end. The weights and transitions of the one `spoiled` are others."""
    args = script.resolve(make_args(script, batch_size=4, autotune=True, policy_lr=1e-3, q_lr=1e-3))
    generators, noise_generators = script.make_generators(seeds, CPU)
    agent = script.Agent(len(seeds), 3, 2, args)
    script.draw_weights(agent, generators)
    agent.to(dtype)
    if hasattr(agent, "multiplier"):
        agent.multiplier.value.copy_(0.1 * torch.tensor(seeds))
    optimizers = script.make_optimizers(agent, args)
    adam = [
        state[key]
        for o in optimizers.values()
        for state in o.state.values()
        for key in ("exp_avg", "exp_avg_sq")
    ]
    buffer = script.ReplayBuffer(len(seeds), 70, 3, 2, CPU)
    noise = script.Noise(noise_generators, agent.policy, 4, 2)
    tables = [np.random.default_rng(seed) for seed in seeds]
    if spoiled is not None:
        with torch.no_grad():
            for parameter in agent.state_dict().values():
                parameter.chunk(len(seeds))[spoiled].mul_(1.5)

    def now(drawn):
        return noise.now(drawn).transpose(0, 1).to(dtype)

    for _ in range(updates):
        rows = np.stack([table.normal(size=sum(buffer.widths)) for table in tables]).astype(np.float32)
        rows[:, 9] = rows[:, 9] > 1.0  # terminated
        if spoiled is not None:
            rows[spoiled] += 1.0
        buffer.add(rows)
        noise.advance()
        batch = script.Batch(*(part.to(dtype) for part in buffer.sample(noise.now(noise.rows))))
        logs = script.update(agent, optimizers, batch, now(noise.to_update), args)
    obs = torch.from_numpy(rows[:, None, :3]).to(dtype)
    first_obs = [obs] if script.__name__ == "sac_hpo_safe" else []
    acted = agent.policy.act(obs, now(noise.to_act), *first_obs)
    acted = acted if first_obs else [acted]
    everything = {f"agent {name}": part for name, part in agent.state_dict().items()}
    everything |= {f"adam {number}": part for number, part in enumerate(adam)}
    everything |= {f"action {number}": part for number, part in enumerate(acted)} | logs
    everything = [
        {name: part.chunk(len(seeds))[i] for name, part in everything.items()} for i in range(len(seeds))
    ]
    for mine, *both in zip(everything, generators, noise_generators, strict=True):
        mine |= {f"generator {number}": generator.get_state() for number, generator in enumerate(both)}
    return everything


def test_three_seeds_at_once_are_as_each_alone(script):
    """After 100 updates, up to the rounding of another order of sums in float64."""
    together = trained(script, range(4, 7), 100)
    assert not torch.equal(together[0]["agent log_alpha"], together[1]["agent log_alpha"])
    for index in 0, 2:
        mine, (alone,) = together[index], trained(script, range(4 + index, 5 + index), 100)
        assert mine.keys() == alone.keys()
        for name in mine:
            torch.testing.assert_close(
                mine[name], alone[name], rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_what_one_seed_has_changes_not_a_bit_in_another(script):
    plain, spoiled = (trained(script, range(3), 20, index, torch.float32) for index in (None, 1))
    for index in 0, 2:
        assert same(plain[index], spoiled[index])
    changed = {name for name in plain[1] if not torch.equal(plain[1][name], spoiled[1][name])}
    assert {"agent q.layer1.weight", "agent policy.mean.weight", "agent log_alpha", "action 0"} <= changed


@pytest.mark.parametrize("seed", [3, 2**32 + 3])
def test_first_weights(script, seed):
    """Uniform in +-1 / sqrt(inputs), from each seed's own generator; the critics differ, their targets are
    equal."""
    options = dict(dtype=torch.float32, fresh=True)
    five, _ = make_agent(script, 11, 3, seeds=5, seed=seed - 2, **options)
    alone, _ = make_agent(script, 11, 3, seeds=1, seed=seed, **options)
    other, _ = make_agent(script, 11, 3, seeds=1, seed=3 if seed > 3 else 4, **options)
    assert same(weights_of(five, 2), alone.state_dict())
    layers = {name: layer for name, layer in alone.named_modules() if isinstance(layer, script.Linear)}
    assert len(layers) >= 3 + 3 + 3
    for name, layer in layers.items():
        bound = layer.weight.shape[1] ** -0.5
        for part in layer.weight, layer.bias:
            assert part.abs().max() <= bound
            if part.numel() > 500:
                assert part.abs().max() > 0.99 * bound
                assert part.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
                assert part.mean().abs() < 0.1 * bound
        assert layer.bias.any()
        assert not torch.equal(layer.weight, other.get_submodule(name).weight)
    for layer in alone.q.layer1, alone.q.layer2, alone.q.layer3:
        assert not torch.equal(layer.weight[0], layer.weight[1])
    for name in ("q", "q_cost") if hasattr(alone, "q_cost") else ("q",):
        target = getattr(alone, f"{name}_target")
        assert same(getattr(alone, name).state_dict(), target.state_dict())
        assert not any(parameter.requires_grad for parameter in target.parameters())


def test_generators_of_many_seeds_are_all_different(script):
    """The two of a seed as well; a CPU's generator takes 32 bits only of what it is seeded with."""
    first = []
    for seeds in range(1000), range(2**32, 2**32 + 1000):
        for generators in script.make_generators(seeds, CPU):
            first += [torch.randint(2**63 - 1, (), generator=generator).item() for generator in generators]
    assert len(set(first)) == 4000


# ------------------------------------------------------------------------------------------- noise and buffer


def noise_of(script, seeds, batch_size=5):
    _, generators = script.make_generators(seeds, CPU)
    return script.Noise(generators, SimpleNamespace(draws=2, draws_to_act=3), batch_size, 4)


def drawn(noise, steps):
    """Steps of (to_act, to_update, rows), (steps, S, ...) each."""
    parts = []
    for _ in range(steps):
        noise.advance()
        parts.append([noise.now(part).clone() for part in (noise.to_act, noise.to_update, noise.rows)])
    return [torch.stack(part) for part in zip(*parts, strict=True)]


def test_noise_of_a_seed_depends_on_that_seed_alone(script):
    three = drawn(noise_of(script, range(4, 7)), 130)
    for index in range(3):
        alone = drawn(noise_of(script, range(4 + index, 5 + index)), 130)
        for part, expected in zip(three, alone, strict=True):
            assert torch.equal(part[:, index], expected[:, 0])


def test_noise_is_standard_normal_and_never_repeats(script):
    to_act, to_update, rows = drawn(noise_of(script, range(2)), 130)
    assert (
        to_act.shape == (130, 2, 3, 1, 4)
        and to_update.shape == (130, 2, 4, 5, 4)
        and rows.shape == (130, 2, 5)
    )
    both = torch.cat([to_act.flatten(), to_update.flatten()]).double()
    assert both.unique().numel() > 0.99 * both.numel() and rows.unique().numel() == rows.numel()
    n = both.numel()
    for power, moment, variance in (1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0):
        assert abs((both**power).mean().item() - moment) < 5.0 * (variance / n) ** 0.5
    pairs = to_update.flatten(2)  # steps, seeds, numbers
    for one, other in (pairs[:-1], pairs[1:]), (pairs[:, 0], pairs[:, 1]), (pairs[..., :-1], pairs[..., 1:]):
        assert abs((one * other).mean().item()) < 5.0 / one.numel() ** 0.5
    assert rows.min() >= 0 and rows.max() > 2**62  # 63 bits


def test_what_is_left_of_the_noise_can_be_thrown_away(script):
    """As a checkpoint does: what follows depends on the generator's state alone."""
    stopped, whole = noise_of(script, range(2)), noise_of(script, range(2))
    drawn(stopped, 10)
    stopped.left = 0
    drawn(whole, 64)
    for part, expected in zip(drawn(stopped, 3), drawn(whole, 3), strict=True):
        assert torch.equal(part, expected)


def transition(script, seeds, step):
    """A row per seed: the reward is 100 times the seed's place plus the step."""
    reward = 100.0 * torch.arange(seeds).view(-1, 1) + step
    row = {"obs": random(seeds, 3, seed=step), "action": random(seeds, 2, seed=100 + step), "reward": reward}
    row |= {
        "next_obs": random(seeds, 3, seed=200 + step),
        "terminated": torch.full((seeds, 1), step % 4 == 0),
    }
    row |= {"cost": random(seeds, 1, seed=300 + step)}
    return np.concatenate([row[name].numpy() for name in script.Batch._fields], axis=1).astype(np.float32)


def whole_numbers(*shape, seed=0):
    return torch.empty(shape, dtype=torch.long).random_(generator=torch.Generator().manual_seed(seed))


def test_buffer_against_a_list_across_wrap_around(script):
    buffer, reference = script.ReplayBuffer(2, 7, 3, 2, CPU), deque(maxlen=7)
    for step in range(25):
        rows = transition(script, 2, step)
        buffer.add(rows)
        reference.append(rows)
        batch = buffer.sample(whole_numbers(2, 200, seed=step))
        for seed in range(2):
            known = {rows[seed, 5].item(): rows[seed] for rows in reference}
            # every row still held is drawn, and no other
            assert set(batch.reward[seed].tolist()) == set(known)
            seen = [part[seed].view(200, -1) for part in batch]
            for row in torch.cat(seen, dim=-1).numpy():
                np.testing.assert_array_equal(row, known[row[5].item()])
    assert [part.dim() for part in batch] == [3, 3, 2, 3, 2, 2][: len(batch)]


def test_buffer_draws_uniformly(script):
    """By the numbers of Noise; from 10 rows, after 13 of them."""
    buffer, noise = script.ReplayBuffer(2, 10, 3, 2, CPU), noise_of(script, range(2), batch_size=50_000)
    for step in range(13):
        buffer.add(transition(script, 2, step))
    noise.advance()
    rewards = buffer.sample(noise.now(noise.rows)).reward
    for seed in range(2):
        counts = torch.bincount(rewards[seed].long() - 100 * seed, minlength=13)
        assert (counts[:3] == 0).all()
        assert (counts[3:] - 5000).abs().max() < 336  # five standard deviations
    assert not torch.equal(rewards[0], rewards[1] - 100)


def test_memory_is_taken_only_as_rows_are_written(script):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    buffer = script.ReplayBuffer(2, 1_000_000, 3, 2, CPU)
    assert buffer.data.nbytes > 7e7 and resident() - before < 0.2 * buffer.data.nbytes
    buffer.data.zero_()
    assert resident() - before > 0.8 * buffer.data.nbytes


@pytest.mark.parametrize("rows", [4, 10, 13])
def test_buffer_survives_a_checkpoint(script, rows, tmp_path):
    """And takes no more room there than what is in it."""
    first, second = script.ReplayBuffer(2, 10, 3, 2, CPU), script.ReplayBuffer(2, 10, 3, 2, CPU)
    large = script.ReplayBuffer(2, 100_000, 3, 2, CPU)
    for step in range(rows):
        first.add(transition(script, 2, step))
        large.add(transition(script, 2, step))
    for buffer in large, first:
        torch.save(buffer.state_dict(), tmp_path / "buffer.pt")
        assert (tmp_path / "buffer.pt").stat().st_size < 5_000
    second.load_state_dict(torch.load(tmp_path / "buffer.pt", weights_only=True, mmap=True))
    for _ in range(2):
        numbers = whole_numbers(2, 64)
        for part, expected in zip(second.sample(numbers), first.sample(numbers), strict=True):
            assert torch.equal(part, expected)
        for buffer in first, second:
            buffer.add(transition(script, 2, 50))
