"""One update against plain autograd; agents that know nothing of one another; optimisers and buffer."""

import importlib
from collections import deque
from contextlib import nullcontext
from copy import deepcopy

import by_hand
import envs  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from by_hand import after_training
from conftest import (
    SAFE,
    act,
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

CPU = torch.device("cpu")
HPO = "sac_hpo_continuous"


def updated_by_hand(agent, batch, noise, args, operator):
    """A step of size 1 down each loss, one after the other, and the targets' average: weights and logs."""
    agent, logs = deepcopy(agent), {}
    obs, action, reward, next_obs, terminated, *cost = batch
    alpha = agent.log_alpha.detach().exp().unsqueeze(-1)
    agent.args = args

    def step(parameters, loss):
        parameters = list(parameters)
        gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(0.0 if gradient is None else gradient)

    def draw(obs, noise):
        """Action, momentum and log-density of the chain that is trained."""
        if hasattr(agent.policy, "hidden"):
            return by_hand.evolve(agent, obs, noise, operator, args.momentum_std_train)
        a, log_prob = by_hand.base_policy(agent.policy, obs, noise[0])
        return a, None, log_prob

    next_action, _, next_log_prob = draw(next_obs, noise[: agent.draws])
    next_action = next_action.detach()
    soft = torch.min(*agent.q_target(next_obs, next_action).unbind(1)) - alpha * next_log_prob
    target = (reward + args.gamma * (1.0 - terminated) * soft).detach()
    q1, q2 = agent.q(obs, action).unbind(1)
    q_loss = ((q1 - target) ** 2).mean(-1) + ((q2 - target) ** 2).mean(-1)
    logs |= {"losses/q": q_loss, "values/q": 0.5 * (q1 + q2).mean(-1), "values/alpha": alpha[:, 0]}
    step(agent.q.parameters(), q_loss)
    if cost:
        ends = 0.0 if args.cost == "torque" else terminated  # an average has no end
        to_come = agent.q_cost_target(next_obs, next_action)[:, 0]
        target = (cost[0] + args.gamma * (1.0 - ends) * to_come).detach()
        q_cost = agent.q_cost(obs, action)[:, 0]
        logs |= {"losses/q_cost": ((q_cost - target) ** 2).mean(-1), "values/q_cost": q_cost.mean(-1)}
        logs |= {"values/lambda": agent.multiplier.value.clone()}
        step(agent.q_cost.parameters(), logs["losses/q_cost"])

    a, rho, log_prob = draw(obs, noise[agent.draws :])
    charged = log_prob
    if rho is not None:  # Eq. (12), with beta_0 = 1 / std^2, which a spread of 0 leaves out
        std = args.momentum_std_train
        penalty = 0.5 * rho.square().sum(-1) / std**2 if std else torch.zeros_like(log_prob)
        logs["values/momentum_penalty"], charged = penalty.mean(-1), log_prob + penalty
        value = by_hand.value(agent, obs, a)
    else:
        value = torch.min(*agent.q(obs, a).unbind(1))
        if cost:
            value = value - agent.multiplier.value.unsqueeze(-1) * agent.q_cost(obs, a)[:, 0]
    logs |= {"values/entropy": -log_prob.mean(-1), "losses/policy": (alpha * charged - value).mean(-1)}
    step(agent.policy.parameters(), logs["losses/policy"])
    if args.autotune:  # towards an entropy of -A: d/d(log alpha) of alpha (entropy + A)
        with torch.no_grad():
            agent.log_alpha.sub_(alpha[:, 0] * (logs["values/entropy"] + action.shape[-1]))

    with torch.no_grad():
        for name in ("q", "q_cost") if cost else ("q",):
            parts = getattr(agent, f"{name}_target").parameters(), getattr(agent, name).parameters()
            for old, new in zip(*parts, strict=True):
                old.copy_((1.0 - args.tau) * old + args.tau * new)
    return weights(agent), {name: value.detach() for name, value in logs.items()}


CHAIN = {"leapfrog_steps": 3, "step_size": 0.3, "momentum_std_train": 2.0}
STILL = {"momentum_std_train": 0.0, "momentum_std_explore": 0.0}
CASES = [("sac_baseline", "", {}), ("sac_nf", "", {}), ("sac_nf", "", {"flows": 0})]
CASES += [("sac_lagrangian", "", {"cost": cost, "cost_limit": 1.0}) for cost in ("torque", "speed", "info")]
CASES += [(HPO, operator, CHAIN) for operator in ("proposed", "conventional", "drift", "gaussian")]
CASES += [(HPO, operator, CHAIN | STILL) for operator in ("proposed", "conventional", "gaussian")]
for name in HPO, "sac_hpo_safe":
    CASES += [(name, "proposed", CHAIN | {"leapfrog_steps": k, "leapfrog_state": k > 1}) for k in (1, 2)]
CASES += [("sac_hpo_safe", "proposed", CHAIN | {"cost": c, "cost_limit": 1.0}) for c in ("torque", "speed")]
CASES += [("sac_hpo_safe", "proposed", CHAIN | STILL)]


@pytest.mark.parametrize("name, operator, changes", CASES)
@pytest.mark.parametrize("seeds, autotune", [(1, False), (3, True)])
def test_update(name, operator, changes, seeds, autotune):
    """Gradient steps on critics, policy and, if asked for, temperature, then a step of the targets; all that
    is logged; and nothing else moves."""
    script = importlib.import_module(name)
    changes = changes | dict(alpha=0.3, gamma=0.9, tau=0.25, autotune=autotune, seeds=seeds)
    agent, args = after_training(script, operator, **changes)
    batch, noise, old = random_batch(script, seeds=seeds), noise_for(agent, seeds=seeds), weights(agent)
    expected, expected_logs = updated_by_hand(agent, batch, noise, args, operator)
    logs, new = script.update(agent, plain_optimizers(agent), batch, noise, args), weights(agent)
    for key in expected:
        of_key = {"rtol": 1e-9, "atol": 1e-9, "msg": lambda m, key=key: f"{key}: {m}"}
        torch.testing.assert_close(new[key], expected[key], **of_key)
    assert logs.keys() == expected_logs.keys()
    for key in logs:
        assert logs[key].shape == (seeds,) and not logs[key].requires_grad
        torch.testing.assert_close(logs[key], expected_logs[key], msg=lambda m, key=key: f"{key}: {m}")
    still = {key for key in old if torch.equal(old[key], new[key])}
    nets = ("policy.hidden", "policy.transform", "policy.gate") if operator != "proposed" else ()
    allowed = ("multiplier", *nets, *(() if autotune else ("log_alpha",)))
    assert still == {key for key in old if key.startswith(allowed)}


def test_optimisers(script):
    """PyTorch's plain Adam, fresh, with each part's own rate, of all that learns and of nothing else: the
    step that makes its state moves nothing and leaves no trace."""
    rates = {"q": 1e-4, "q_cost": 1e-4, "log_alpha": 1e-4, "policy": 1e-3}
    agent, args = after_training(script, seeds=2, autotune=True, policy_lr=1e-3, q_lr=1e-4)
    expected, old = deepcopy(agent), weights(agent)
    optimizers, plain = script.make_optimizers(agent, args), plain_optimizers(expected)
    assert same(old, weights(agent)) and optimizers.keys() == plain.keys()
    trained = [id(p) for optimizer in optimizers.values() for p in optimizer.param_groups[0]["params"]]
    assert sorted(trained) == sorted(id(p) for n, p in agent.named_parameters() if "target" not in n)
    for name, optimizer in plain.items():
        plain[name] = torch.optim.Adam(optimizer.param_groups[0]["params"], rates[name], foreach=False)
        state = optimizers[name].state.values()
        assert state and not any(value.any() for of_one in state for value in of_one.values())
    batch = random_batch(script, seeds=2)
    for turn in range(3):
        noise = noise_for(agent, seeds=2, seed=turn)
        script.update(agent, optimizers, batch, noise, args)
        script.update(expected, plain, batch, noise, args)
    for name, weight in weights(expected).items():
        found = agent.state_dict()[name]
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_three_agents_of_one_update_equal_three_single_ones(script):
    """Five updates by Adam and an action after them, at weights, temperatures, multipliers, batches and noise
    that differ from agent to agent."""
    changes = dict(autotune=True, policy_lr=1e-3, q_lr=1e-3)
    together, args = after_training(script, seeds=3, **changes)
    alone = [make_agent(script, **changes)[0] for _ in range(3)]
    for i, agent in enumerate(alone):
        agent.load_state_dict(weights_of(together, 3, i))
    optimizers = [script.make_optimizers(agent, args) for agent in (together, *alone)]
    for step in range(5):
        batch, noise = random_batch(script, seeds=3, seed=10 * step), noise_for(together, seeds=3, seed=step)
        logs = script.update(together, optimizers[0], batch, noise, args)
        for i, agent in enumerate(alone):
            one = script.Batch(*(x[i : i + 1] for x in batch))
            own = script.update(agent, optimizers[1 + i], one, noise[:, i : i + 1], args)
            for name, found in own.items():
                torch.testing.assert_close(found, logs[name][i : i + 1], rtol=0, atol=1e-10)
    obs, first, noise = random(3, 8, 3), random(3, 8, 3, seed=5), random(together.draws_to_act, 3, 8, 2)
    acted = act(together, obs, noise, first)
    for i, agent in enumerate(alone):
        for name, found in weights_of(together, 3, i).items():
            torch.testing.assert_close(found, agent.state_dict()[name], rtol=0, atol=1e-10)
        one = slice(i, i + 1)
        found = act(agent, obs[one], noise[:, one], first[one])
        torch.testing.assert_close(found, acted[one], rtol=0, atol=1e-10)


def test_first_weights(script):
    """Uniform in +-1 / sqrt(inputs), by the generator and nothing else; all agents and both critics differ,
    targets begin as the critics."""
    options = dict(seeds=3, dtype=torch.float32, fresh=True)
    agent, _ = make_agent(script, 11, 3, **options)
    torch.manual_seed(5)
    assert same(weights(agent), weights(make_agent(script, 11, 3, **options)[0]))
    layers = {name: layer for name, layer in agent.named_modules() if isinstance(layer, script.Linear)}
    assert len(layers) >= 3 + 3 + 3
    for layer in layers.values():
        bound = layer.weight.shape[1] ** -0.5
        for part in layer.weight, layer.bias:
            assert part.abs().max() <= bound and part.any()
            if part.numel() > 1000:
                assert part.abs().max() > 0.99 * bound and part.mean().abs() < 0.1 * bound
                assert part.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert len({tuple(network.flatten().tolist()) for network in part}) == len(part)
    for name in ("q", "q_cost") if hasattr(agent, "q_cost") else ("q",):
        target = getattr(agent, f"{name}_target")
        assert same(weights(getattr(agent, name)), weights(target))
        assert not any(parameter.requires_grad for parameter in target.parameters())


def recorded_run(script, monkeypatch, folder, env_id, seeds=1, steps=60, **changes):
    """A short run, its last checkpoint, batches and noise of its updates, and what it acted on and how."""
    updates, acts, real_update, real_act = [], [], script.update, script.Agent.act

    def update(agent, optimizers, batch, noise, args):
        updates.append((batch, noise.clone()))
        return real_update(agent, optimizers, batch, noise, args)

    def act(agent, obs, *given):
        acted = real_act(agent, obs, *given)
        acts.append((obs.clone(), *(x.clone() for x in given), acted))
        return acted

    monkeypatch.setattr(script, "update", update)
    monkeypatch.setattr(script.Agent, "act", act)
    monkeypatch.setattr(script, "workers", lambda n: nullcontext())  # evaluations in this process
    changes = dict(eval_frequency=10_000, eval_episodes=1, batch_size=8) | changes
    changes |= dict(env_id=env_id, num_seeds=seeds, total_timesteps=steps, run_dir=str(folder))
    run = script.train(make_args(script, **changes))
    return run, script.read(run / "checkpoint.pt"), updates, [call for call in acts if len(call[0]) == seeds]


def test_what_is_random_in_a_run(script, monkeypatch, tmp_path):
    """Noise to act and of updates is standard normal and differs between agents, draws and steps; so do the
    minibatches and the random actions of the start."""
    changes = dict(learning_starts=40)
    _, saved, updates, acts = recorded_run(script, monkeypatch, tmp_path, "envs:Endless-v0", 2, **changes)
    assert len(updates) == len(acts) == 20
    to_act = torch.stack([noise for _, noise, *_ in acts])
    of_updates = torch.stack([noise for _, noise in updates])
    assert to_act.shape[2:] == (2, 1, 1) and of_updates.shape[2:] == (2, 8, 1)
    noise = torch.cat([to_act.flatten(), of_updates.flatten()])
    assert noise.unique().numel() == noise.numel() and abs(noise.mean()) < 5.0 / noise.numel() ** 0.5
    assert abs(noise.square().mean() - 1.0) < 5.0 * (2.0 / noise.numel()) ** 0.5
    actions = torch.stack(saved["buffer"]["rows"])[..., 1]
    drawn = torch.stack([batch.action == actions.unsqueeze(1) for batch, _ in updates])  # of what is stored
    places = drawn.int().argmax(-1)  # (20, 2, 8)
    assert len(set(map(tuple, places.flatten(0, 1).tolist()))) == 40
    assert drawn.any(-1).all() and (places.amax((1, 2)) < torch.arange(40, 60)).all() and places.max() > 50
    assert actions.shape == (2, 60) and actions.unique().numel() == 120
    uniform = actions[:, :40].flatten().sort().values
    assert (uniform - torch.linspace(-1.0, 1.0, 80)).abs().max() < 2.0 * 1.95 / 80**0.5  # Kolmogorov-Smirnov


@pytest.mark.parametrize("env_id, end", [("TwoSteps", 1.0), ("Endless", 0.0)])
def test_what_a_run_stores(script, monkeypatch, tmp_path, env_id, end):
    """Each transition as it was: its own next state, not the first of the next episode; and whether it ended
    for good, which a time limit does not, nor a checkpoint, here in the middle of an episode."""
    changes = dict(learning_starts=20, checkpoint_frequency=7)
    _, saved, _, _ = recorded_run(script, monkeypatch, tmp_path, f"envs:{env_id}-v0", steps=28, **changes)
    (rows,) = saved["buffer"]["rows"]
    fields = dict(zip(script.Batch._fields, rows.T, strict=True))
    assert len(rows) == 28 and (rows[:, 1].abs() <= 1.0).all()
    if env_id == "TwoSteps":  # seven steps: three episodes, and a step of a fourth
        t = torch.tensor(4 * [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
        assert torch.equal(fields["obs"], t) and torch.equal(fields["next_obs"], t + 1.0)
        assert torch.equal(fields["reward"], t) and torch.equal(fields["terminated"], t)
    else:
        assert (fields["reward"] == 1.0).all()
    assert fields["terminated"].max() == end
    if script.__name__ in SAFE:  # torque: the action's share of the largest
        torch.testing.assert_close(fields["cost"], fields["action"].abs(), rtol=1e-5, atol=1e-6)


def transition(script, seeds, step):
    """Of each agent: the reward is 100 times its place plus the step."""
    row = {"obs": random(seeds, 3, seed=step), "action": random(seeds, 2, seed=100 + step)}
    row |= {"reward": 100.0 * torch.arange(seeds) + step, "next_obs": random(seeds, 3, seed=200 + step)}
    row |= {"terminated": torch.full((seeds,), step % 4 == 0), "cost": random(seeds, seed=300 + step)}
    return [row[name].numpy() for name in script.Batch._fields]


def whole_numbers(shape, below, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def test_buffer_against_a_deque_across_wrap_around(either):
    """Every transition that is still held is drawn, and no other, each whole."""
    buffer, reference = either.ReplayBuffer(2, 7, 3, 2, CPU), deque(maxlen=7)
    for step in range(25):
        reference.append(transition(either, 2, step))
        buffer.add(*reference[-1])
        batch = buffer.sample(whole_numbers((2, 200), len(reference), seed=step))
        for seed in range(2):
            known = {fields[2][seed]: [field[seed] for field in fields] for fields in reference}
            assert set(batch.reward[seed].tolist()) == known.keys()
            for row, reward in enumerate(batch.reward[seed].tolist()):
                for found, field in zip(batch, known[reward], strict=True):
                    assert np.array_equal(found[seed, row].numpy(), np.float32(field))


@pytest.mark.parametrize("rows", [4, 10, 13])
def test_buffer_survives_a_checkpoint(either, rows, tmp_path):
    """And takes no more room there than what is in it."""
    first, second = (either.ReplayBuffer(2, 10, 3, 2, CPU) for _ in range(2))
    large, path = either.ReplayBuffer(2, 100_000, 3, 2, CPU), tmp_path / "buffer.pt"
    for step in range(rows):
        first.add(*transition(either, 2, step))
        large.add(*transition(either, 2, step))
    for buffer in large, first:
        torch.save(buffer.state_dict(), path)
        assert path.stat().st_size < 5_000
    second.load_state_dict(torch.load(path, weights_only=True, mmap=True))
    for step in 50, 51:
        numbers = whole_numbers((2, 64), min(first.added, 10))
        for found, expected in zip(second.sample(numbers), first.sample(numbers), strict=True):
            assert torch.equal(found, expected)
        for buffer in first, second:
            buffer.add(*transition(either, 2, step))
