"""The cost side of both safe scripts, and Algorithm 3."""

import math
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import envs  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from conftest import (
    agent_of,
    make_agent,
    make_args,
    noise_for,
    plain_optimizers,
    random,
    random_batch,
    refused,
    resume,
    rows_of,
    same,
    weights,
    weights_of,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sac_baseline
import sac_hpo_continuous
import sac_hpo_safe

PLAIN = {"sac_lagrangian": sac_baseline, "sac_hpo_safe": sac_hpo_continuous}


# ------------------------------------------------------------------------------------------ J_C and lambda


def test_constraint_of_an_episode(safe):
    """Costs 0.5, 0, 1 with gamma 0.9: discounted 0.5 + 0.81 = 1.31; on average 0.5, 5 over 1 - gamma."""
    for cost, expected in (("speed", 1.31), ("info", 1.31), ("torque", 5.0)):
        args = make_args(safe, cost=cost, cost_limit=1.0, gamma=0.9)
        assert safe.constraint(args, 1.5, 1.31, 3) == pytest.approx(expected)


def test_multiplier_against_a_plain_list(safe):
    """Episodes of three seeds in turn, of different lengths and costs: when each lambda moves, by which
    mean, the projection at 0, and the counts."""
    args = make_args(safe, env_id="Ant-v4", cost="torque", cost_limit=25.0, cost_window=700, gamma=0.99)
    multiplier, rng = safe.Multiplier(3, args), np.random.default_rng(0)
    recent, steps, value = [[], [], []], [0, 0, 0], [0.0, 0.0, 0.0]
    over, moves, costs, values = [0, 0, 0], [0, 0, 0], [0.0, 0.0, 0.0], [[], [], []]
    for episode in range(240):
        i = int(rng.integers(3))
        length = int(rng.integers(1, 1000))
        total = length * rng.uniform(0.1, 0.5) * (0.3 if 90 <= episode < 180 else 1.0)
        multiplier.end_episode(i, total, math.nan, length, of_policy=True)
        recent[i].append(total / length / 0.01)
        steps[i] += length
        costs[i] += total
        over[i] += recent[i][-1] > 25.0
        if steps[i] >= 700:
            value[i] = max(0.0, value[i] + 0.1 * (sum(recent[i]) / len(recent[i]) - 25.0))
            recent[i], steps[i], moves[i] = [], 0, moves[i] + 1
        values[i].append(value[i])
        assert multiplier.value.tolist() == pytest.approx(value, rel=1e-4, abs=1e-4)
    for i in range(3):
        assert min(values[i][50:60]) == 0.0 and max(values[i]) > 1.0  # both directions, and the projection
        assert 20 < moves[i] < len(values[i]) - 10  # some moves are by one episode, some by more
    assert multiplier.episodes.tolist() == [len(v) for v in values]
    assert multiplier.episodes_over_limit.tolist() == over
    assert multiplier.total_cost.tolist() == pytest.approx(costs)


def test_multiplier_step_by_hand(safe):
    args = make_args(safe, env_id="HalfCheetah-v4", cost="speed", cost_limit=10.0, lambda_lr=0.1)
    multiplier = safe.Multiplier(2, args)
    for discounted, expected in ((30.0, 2.0), (10.0, 2.0), (25.0, 3.5), (0.0, 2.5)):
        multiplier.end_episode(1, 100.0, discounted, 1000, True)  # 1,000 steps: a move after each episode
        assert multiplier.value.tolist() == pytest.approx([0.0, expected])
    assert multiplier.total_cost.tolist() == [0.0, 400.0]
    multiplier.end_episode(1, 50.0, 99.0, 1000, False)  # random actions: counted, but lambda stays
    assert multiplier.value[1] == pytest.approx(2.5) and multiplier.total_cost[1] == 450.0
    assert multiplier.episodes_over_limit.tolist() == [0, 3] and multiplier.episodes.tolist() == [0, 5]
    for discounted, length, expected in ((40.0, 600, 2.5), (0.0, 399, 2.5), (50.0, 1, 4.5), (9.0, 999, 4.5)):
        multiplier.end_episode(1, 0.0, discounted, length, True)  # the third completes 1,000 steps: mean 30
        assert multiplier.value[1] == pytest.approx(expected)


def test_multiplier_survives_a_checkpoint(safe, tmp_path):
    args = make_args(safe, env_id="Ant-v4", cost_limit=25.0, cost="torque", cost_window=700)
    first, second = safe.Multiplier(2, args), safe.Multiplier(2, args)
    for index, length in ((0, 710), (0, 500), (1, 350), (0, 7), (0, 80), (1, 340)):
        first.end_episode(index, 0.4 * length, 3.0, length, True)
    assert first.value[0] > 0.0 and first.recent_episodes.tolist() == [3, 2]
    torch.save(first.state_dict(), tmp_path / "x.pt")
    second.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True))
    before = first.value.clone()
    for multiplier in (first, second):
        for index in range(2):
            multiplier.end_episode(index, 300.0, 3.0, 300, True)
    assert same(first.state_dict(), second.state_dict()) and (first.value > before).all()


def test_lambda_stays_where_a_cuda_graph_reads_it(safe):
    multiplier = safe.Multiplier(2, make_args(safe, cost_window=1))
    place = multiplier.value.data_ptr()
    multiplier.end_episode(1, 3.0, 3.0, 2, True)
    assert multiplier.value[1] > 0.0 and multiplier.value.data_ptr() == place


# ------------------------------------------------------------------------------------------------ the costs


def env_of(safe, **changes):
    env = safe.make_env(safe.resolve(make_args(safe, **changes)))
    env.reset(seed=0)
    return env


def cost_of(env, action):
    return env.step(np.array(action, np.float32))[4]["cost"]


def test_torque_costs_the_mean_of_the_motors(safe):
    assert cost_of(env_of(safe, env_id="Ant-v4"), [1, -1, 0.5, 0, 0, 0, 0, -0.5]) == pytest.approx(3.0 / 8.0)
    env = env_of(safe, env_id="Humanoid-v4", cost="torque", cost_limit=1.0)  # its motors are bounded by 0.4
    assert cost_of(env, np.ones(17)) == 1.0


def test_speed_costs_one_above_one_metre_per_second(safe, monkeypatch):
    env = env_of(safe, env_id="HalfCheetah-v4")
    inner = env.unwrapped
    real = inner.step
    cases = (0.3, 0), (1.0, 0), (1.01, 1), (-1.5, 1), (-0.9, 0), (np.array([-2.0]), 1), (np.array([[0.5]]), 0)
    for velocity, expected in cases:
        monkeypatch.setattr(inner, "step", lambda a, v=velocity: (*real(a)[:4], {"x_velocity": v}))
        assert cost_of(env, np.zeros(6)) == expected
    monkeypatch.setattr(inner, "step", lambda a: (*real(a)[:4], {"x_velocity": np.nan}))
    assert math.isnan(cost_of(env, np.zeros(6)))


def test_info_is_what_the_environment_reports(safe, monkeypatch):
    env = env_of(safe, env_id="Costly-v0", cost="info", cost_limit=1.0)
    assert cost_of(env, [1.0]) == pytest.approx(3.0)
    inner, real, info = env.unwrapped, env.unwrapped.step, {}
    for cost in (2.5, np.float32(2.5), np.array(2.5), np.array([2.5]), [2.5], True, np.array([[1]])):
        info["cost"] = cost
        monkeypatch.setattr(inner, "step", lambda a: (*real(a)[:4], info))
        assert isinstance(cost_of(env, [1.0]), float) and cost_of(env, [1.0]) == np.ravel(cost)[0]
        assert info["cost"] is cost  # the environment's own is left alone


SHORT = dict(total_timesteps=100, learning_starts=90, eval_frequency=1000, batch_size=4)


@pytest.mark.parametrize(
    "env_id, cost, step",
    [
        ("OneStep-v0", "info", 1),
        ("OneStep-v0", "speed", 1),
        ("LostCost-v0", "info", 31),
        ("TwoNumbersCost-v0", "info", 31),
        ("NegativeCost-v0", "info", 31),
    ],
)
def test_an_environment_without_that_cost_is_refused(safe, tmp_path, capsys, env_id, cost, step):
    args = make_args(safe, env_id=env_id, cost=cost, cost_limit=1.0, runs_dir=str(tmp_path), **SHORT)
    status, line = refused(capsys, safe.train, args)
    message = f"--cost {cost}: the task reports no cost, or one below 0"
    assert status == 2 and line == f"{safe.ALGORITHM}.py: step {step}: {message}"
    args = replace(args, total_timesteps=20, eval_frequency=20)
    if step > 1:  # in the evaluation first
        status, line = refused(capsys, safe.train, args)
        assert status == 2 and line == f"{safe.ALGORITHM}.py: evaluation of seed 1 at step 20: {message}"
        assert all(rows_of(run) == [] for run in tmp_path.iterdir())


def test_a_cost_that_is_not_finite(safe, tmp_path, capsys, monkeypatch):
    """In training it ends the run before it is stored; in an evaluation before there is a row."""
    stored, real = [], safe.ReplayBuffer.add
    monkeypatch.setattr(safe.ReplayBuffer, "add", lambda self, x: (stored.append(x), real(self, x)))
    changes = dict(env_id="NanCost-v0", cost="info", cost_limit=1.0, runs_dir=str(tmp_path))
    args = make_args(safe, **changes, **SHORT)
    status, line = refused(capsys, safe.train, args)
    assert status == 3 and "step 31: the environment's cost is not finite" in line
    assert len(stored) == 30 and np.isfinite(stored).all()
    (run,) = tmp_path.iterdir()
    assert rows_of(run) == []
    args = replace(args, total_timesteps=20, eval_frequency=20)
    status, line = refused(capsys, safe.train, args)
    assert status == 3 and "evaluation of seed 1 at step 20: the environment's cost is not finite" in line
    assert all(rows_of(run) == [] for run in tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(env_id="Hopper-v4"), "Hopper-v4 has no default limit, only Ant (torque) and Half"),
        (dict(env_id="Hopper-v4", cost_limit=3.0), "Hopper-v4 has no default"),
        (dict(env_id="Ant-v4", gamma=0.9), "Ant-v4 with --cost torque has no default limit, only Ant (torq"),
        (dict(env_id="HalfCheetah-v4", gamma=0.995), "HalfCheetah (speed) at gamma 0.99: give --cost"),
        (dict(env_id="Hopper-v4", cost="torque"), "Hopper-v4 with --cost torque has no default"),
        (dict(env_id="Hopper", cost="torque"), "Hopper with --cost torque has no default"),
        (dict(env_id="Ant-v4", cost="speed"), "Ant-v4 with --cost speed has no default"),
        (dict(env_id="Ant-v4", cost_limit=-1.0), "--cost-limit must be between 0 and"),
        (dict(env_id="Ant-v4", cost_limit=math.nan), "--cost-limit must be between 0 and"),
        (dict(env_id="Ant-v4", lambda_lr=0.0), "--lambda-lr must be between"),
        (dict(env_id="Ant-v4", cost_window=0), "--cost-window must be between 1 and"),
        (dict(env_id="Ant-v4", gamma=1.0), "--gamma must be below 1"),
    ],
    ids=str,
)
def test_bad_costs(safe, tmp_path, capsys, changes, message):
    status, line = refused(capsys, safe.train, safe.Args(runs_dir=str(tmp_path / "runs"), **SHORT, **changes))
    assert status == 2 and message in line and list(tmp_path.iterdir()) == []


def test_bad_number_of_steps(tmp_path, capsys):
    args = sac_hpo_safe.Args(env_id="Ant-v4", max_leapfrog_steps=0, runs_dir=str(tmp_path), **SHORT)
    status, line = refused(capsys, sac_hpo_safe.train, args)
    assert status == 2 and "--max-leapfrog-steps must be between 1 and" in line


def test_defaults_by_task(safe):
    for task, cost, limit in (
        ("Ant", "torque", 25.0),
        ("Ant-v4", "torque", 25.0),
        ("Ant-v5", "torque", 25.0),
        ("HalfCheetah-v4", "speed", 10.0),
    ):
        args = safe.resolve(safe.Args(env_id=task))
        assert (args.cost, args.cost_limit, args.lambda_lr) == (cost, limit, 0.1)
    args = safe.resolve(safe.Args(env_id="Ant-v4", cost="speed", cost_limit=3.0))
    assert (args.cost, args.cost_limit) == ("speed", 3.0)
    assert safe.resolve(safe.Args(env_id="HalfCheetah-v4", cost_limit=3.0)).cost == "speed"
    assert safe.resolve(safe.Args(env_id="Ant-v4", cost_limit=3.0, gamma=0.9)).cost_limit == 3.0


def test_an_id_without_a_version(safe, capsys):
    args, _ = safe.make_task(safe.resolve(safe.Args(env_id="Ant")))
    assert args.env_id == "Ant-v5" and (args.cost, args.cost_limit) == ("torque", 25.0)
    assert not hasattr(args, "step_size") or args.step_size == 0.1  # of Ant's row
    out = capsys.readouterr().out
    assert "Ant names no version" in out and "not in the paper's Table I" not in out


# ----------------------------------------------------------------------------------- critic and policy step


def test_cost_loss_by_hand(safe):
    q, to_come, cost, ends = torch.tensor([[[1, 2]], [[10, 10]], [[0.5, 1]], [[0, 1]]], dtype=torch.float64)
    loss, _ = safe.cost_loss(q, to_come, cost, ends, gamma=0.9)
    assert loss.tolist() == pytest.approx([((1 - 9.5) ** 2 + (2 - 1) ** 2) / 2])


@pytest.mark.parametrize("cost, ends", [("torque", 0.0), ("speed", 1.0), ("info", 1.0)])
def test_the_cost_critic_backs_up_cost_and_never_reward(safe, cost, ends):
    """Its step does not notice the rewards, has no entropy term, and follows the plain gradient. A sum of
    costs ends with the episode, an average does not."""
    batch, steps = random_batch(safe, seeds=2), []
    for scale in (1.0, 100.0):
        agent, args = make_agent(safe, seeds=2, gamma=0.9, tau=0.25, cost=cost, cost_limit=1.0)
        old, noise = deepcopy(agent), noise_for(agent, seeds=2)
        changed = batch._replace(reward=scale * batch.reward)
        safe.update(agent, plain_optimizers(agent), changed, noise, args)
        steps.append(weights(agent.q_cost))
    assert same(*steps)

    with torch.no_grad():
        next_action, _ = old.policy.sample(batch.next_obs, noise.chunk(2)[0])
        to_come = old.q_cost_target(batch.next_obs, next_action)[:, 0]
        target = batch.cost + 0.9 * (1 - ends * batch.terminated) * to_come
    loss = ((old.q_cost(batch.obs, batch.action)[:, 0] - target) ** 2).mean(-1).sum()
    gradients = torch.autograd.grad(loss, old.q_cost.parameters())
    for (name, before), gradient in zip(old.q_cost.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(steps[0][name], before.detach() - gradient)
    targets = zip(
        agent.q_cost_target.parameters(),
        agent.q_cost.parameters(),
        old.q_cost_target.parameters(),
        strict=True,
    )
    for target, critic, before in targets:
        torch.testing.assert_close(target, 0.75 * before + 0.25 * critic)


def test_the_cost_critics_target_begins_as_the_critic(safe):
    agent, _ = make_agent(safe, seeds=2, fresh=True)
    assert same(weights(agent.q_cost), weights(agent.q_cost_target))


def test_optimisers_of_all_parts(safe):
    agent, args = make_agent(safe, q_lr=1e-4, policy_lr=1e-3)
    optimizers = safe.make_optimizers(agent, args)
    rates = {"q": 1e-4, "q_cost": 1e-4, "policy": 1e-3, "log_alpha": 1e-4}
    assert {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()} == rates
    trained = [id(p) for optimizer in optimizers.values() for p in optimizer.param_groups[0]["params"]]
    expected = [id(p) for name, p in agent.named_parameters() if "target" not in name]
    assert sorted(trained) == sorted(expected)


@pytest.mark.parametrize("steps", [1, 5])
def test_without_lambda_the_update_is_that_of_the_plain_script(safe, steps):
    """lambda = 0: policy, critics and temperature begin and move bit for bit as in SAC, or in SAC-HPO."""
    plain = PLAIN[safe.__name__]
    settings = dict(dtype=torch.float32, seeds=2, autotune=True)
    agents = [(module, *make_agent(module, **settings)) for module in (safe, plain)]
    optimizers = [module.make_optimizers(agent, args) for module, agent, args in agents]

    def assert_equal():
        state = agents[0][1].state_dict()
        for name, value in agents[1][1].state_dict().items():
            assert torch.equal(value, state[name]), name

    assert_equal()
    for step in range(steps):
        for (module, agent, args), its in zip(agents, optimizers, strict=True):
            batch = random_batch(module, seeds=2, seed=100 * step, dtype=torch.float32)
            noise = noise_for(agent, seeds=2, seed=step, dtype=torch.float32)
            module.update(agent, its, batch, noise, args)
    assert_equal()
    assert (agents[0][1].multiplier.value == 0.0).all()


def test_lambda_moves_the_policy_away_from_cost(safe):
    """With a large lambda the policy's step lowers Q_C where it acts; with lambda = 0 hardly."""
    agent, args = make_agent(safe, seeds=2, tau=1e-9)
    agent.multiplier.value.copy_(torch.tensor([1000.0, 0.0]))
    batch, noise = random_batch(safe, rows=256, seeds=2), noise_for(agent, rows=256, seeds=2)
    frozen = deepcopy(agent.q_cost_target)

    @torch.no_grad()
    def cost_now():
        return frozen(batch.obs, agent.policy.sample(batch.obs, noise.chunk(2)[0])[0]).mean(-1)

    before = cost_now()
    optimizers = plain_optimizers(agent, policy=1e-5, q=0.0, q_cost=0.0)
    for _ in range(20):
        safe.update(agent, optimizers, batch, noise, args)
    change = cost_now() - before
    assert change[0] < 0.0 and change[0] < -10 * change[1].abs()


def test_three_seeds_at_once_are_each_alone(safe):
    """First weights, 50 updates with lambdas of their own, and actions after them."""
    lambdas = torch.tensor([0.0, 0.3, 5.0], dtype=torch.float64)
    settings = dict(autotune=True, cost="torque", cost_limit=0.0)
    together, args = make_agent(safe, seeds=3, fresh=True, **settings)
    alone = [make_agent(safe, seed=seed, fresh=True, **settings)[0] for seed in range(3)]
    for index, agent in enumerate(alone):
        assert same(agent.state_dict(), weights_of(together, index))
        agent.multiplier.value.copy_(lambdas[index : index + 1])
    together.multiplier.value.copy_(lambdas)
    optimizers = [safe.make_optimizers(agent, args) for agent in [together, *alone]]
    for step in range(50):
        batch, noise = random_batch(safe, seeds=3, seed=100 * step), noise_for(together, seeds=3, seed=step)
        logs = safe.update(together, optimizers[0], batch, noise, args)
        for i, agent in enumerate(alone):
            of_one = safe.Batch(*(value[i : i + 1] for value in batch))
            its_logs = safe.update(agent, optimizers[1 + i], of_one, noise[:, i : i + 1], args)
            for name, value in its_logs.items():
                torch.testing.assert_close(value, logs[name][i : i + 1], rtol=0, atol=1e-10)
    obs, first = random(3, 8, 3, seed=4), random(3, 8, 3, seed=5)
    noise = random(together.policy.draws_to_act, 3, 8, 2, seed=6)

    def act(agent, rows):
        if safe is sac_hpo_safe:
            return agent.policy.act(obs[rows], noise[:, rows], first[rows])[0]
        return agent.policy.act(obs[rows], noise[:, rows])

    for i, agent in enumerate(alone):
        for name, value in weights_of(together, i).items():
            torch.testing.assert_close(value, agent.state_dict()[name], rtol=0, atol=1e-10)
        torch.testing.assert_close(
            act(agent, slice(i, i + 1)), act(together, slice(3))[i : i + 1], rtol=0, atol=1e-10
        )


# ---------------------------------------------------------------------------------------------- Algorithm 3


class CostOfFirstAction:
    """Q_C(s, a) = scale a_0 + s_0: known in closed form."""

    def __init__(self, scale=1.0):
        self.scale, self.asked = scale, []

    def __call__(self, obs, action):
        self.asked.append(action)
        return (self.scale * action[..., 0] + obs[..., 0]).unsqueeze(1)

    def min_at(self, obs, rounded):
        gradient = torch.zeros(*obs.shape[:2], 2, dtype=obs.dtype)
        gradient[..., 0] = self.scale
        return lambda action: (self.scale * action[..., 0] + obs[..., 0], gradient)


def safe_policy(q_cost, **changes):
    agent, args = make_agent(sac_hpo_safe, **{"env_id": "Ant-v4", "seeds": 2, **changes})
    agent.policy.borrowed = agent.q_target, q_cost, agent.multiplier
    return agent.policy, args


def act(policy, obs, first_obs, seed=3, deterministic=False):
    noise = random(policy.draws_to_act, *obs.shape[:2], 2, seed=seed)
    if deterministic:
        noise[:2] = 0.0
    return policy.act(obs, noise, first_obs)


@torch.no_grad()
def mean(policy, obs):
    return policy(obs, torch.zeros(*obs.shape[:2], 2, dtype=obs.dtype))[0]


def test_slack_of_eq_15():
    """Accepted exactly where Q_C(s, a) - Q_C(s, pi_B(s)) < (1 - gamma) (d_0 - Q_C(s_0, pi_B(s_0)))."""
    policy, _ = safe_policy(CostOfFirstAction(), cost_limit=25.0, gamma=0.99, max_leapfrog_steps=1)
    obs, first = random(2, 500, 3, seed=4), random(2, 500, 3, seed=5)
    first[..., 0] = torch.linspace(-60, 100, 500)  # slack from 0.85 down to -0.75
    action, accepted_at = act(policy, obs, first)
    base, base_first = (torch.tanh(mean(policy, x))[..., 0] for x in (obs, first))
    slack = 0.01 * (25.0 - (base_first + first[..., 0]))
    should = action[..., 0] - base < slack
    assert torch.equal(accepted_at == 1, should)
    assert torch.equal(accepted_at == 2, ~should)
    assert should[slack < 0].any()  # infeasible, and yet some actions are so much safer that they pass
    assert not should.all()


def test_equal_is_not_less():
    """Eq. (14) is strict: where no action costs more than pi_B's and the slack is 0, none is accepted."""
    policy, args = safe_policy(CostOfFirstAction(scale=0.0), cost_limit=25.0)
    obs, first = random(2, 20, 3, seed=4), random(2, 20, 3, seed=5)
    first[..., 0] = 25.0
    assert (act(policy, obs, first)[1] == args.max_leapfrog_steps + 1).all()
    first[..., 0] = 24.9
    assert (act(policy, obs, first)[1] == 1).all()


def test_an_unsafe_action_is_returned_only_if_no_safe_one_was_found():
    """Wherever a step was accepted the action satisfies (14), it is the first that did, and it stays."""
    q_cost = CostOfFirstAction()
    policy, args = safe_policy(q_cost, cost_limit=0.5, momentum_std_explore=1.5, step_size=0.3)
    obs = random(2, 300, 3)
    obs[..., 0] = 1.0
    action, accepted_at = act(policy, obs, obs)
    base = torch.tanh(mean(policy, obs))[..., 0]
    slack = 0.01 * (0.5 - (base + 1.0))
    found = accepted_at <= args.max_leapfrog_steps
    assert (action[..., 0] - base < slack)[found].all()
    assert (action[..., 0] - base >= slack)[~found].all()
    trials = torch.stack([a[..., 0] for a in q_cost.asked[1:]])  # after pi_B(s) and pi_B(s_0): one per step
    for seed, row in found.nonzero().tolist():
        k = int(accepted_at[seed, row])
        assert (
            trials[: k - 1, seed, row] - base[seed, row] >= slack[seed, row]
        ).all()  # none before it passed
        assert (trials[k - 1 :, seed, row] == action[seed, row, 0]).all()
    assert len(set(accepted_at[found].tolist())) > 3 and found.any() and (~found).any()


def test_stops_at_the_first_step_if_all_is_safe_and_at_the_last_if_nothing_is():
    q_cost = CostOfFirstAction()
    policy, _ = safe_policy(q_cost, cost_limit=1e6)
    obs = random(2, 20, 3)
    _, accepted_at = act(policy, obs, obs)
    assert (accepted_at == 1).all() and len(q_cost.asked) == 2
    q_cost = CostOfFirstAction()
    policy, _ = safe_policy(q_cost, cost_limit=0.0, max_leapfrog_steps=7)
    far = obs.clone()
    far[..., 0] = 1e6
    _, accepted_at = act(policy, obs, far)
    assert (accepted_at == 8).all() and len(q_cost.asked) == 1 + 7


def test_all_steps_with_masks_are_the_early_exit():
    """Beside a row that nothing is accepted in, all K_max steps run, as in a CUDA graph. A row alone stops
    when it is accepted. Both come to the same action."""
    q_cost = CostOfFirstAction()
    policy, args = safe_policy(q_cost, cost_limit=0.5, momentum_std_explore=1.5, step_size=0.3)
    obs, first = random(2, 40, 3, seed=4), random(2, 40, 3, seed=5)
    first[:, 0, 0] = 1e6
    noise = random(policy.draws_to_act, 2, 40, 2)
    actions, accepted_at = policy.act(obs, noise, first)
    assert len(q_cost.asked) == 1 + args.max_leapfrog_steps
    for row in range(40):
        one = slice(row, row + 1)
        q_cost.asked.clear()
        action, accepted = policy.act(obs[:, one], noise[:, :, one], first[:, one])
        torch.testing.assert_close(action, actions[:, one], rtol=0, atol=1e-12)
        assert torch.equal(accepted, accepted_at[:, one])
        assert len(q_cost.asked) == 1 + min(int(accepted.max()), args.max_leapfrog_steps)
    assert len(set(accepted_at.flatten().tolist())) > 4


@pytest.mark.parametrize("coordinates", ["pre-tanh", "action"])
def test_algorithm_3_written_out(coordinates):
    """Each leapfrog step in full by leapfrog(), then fresh momentum noise: the same actions."""
    settings = dict(cost_limit=0.0, max_leapfrog_steps=4, coordinates=coordinates)
    policy, args = safe_policy(CostOfFirstAction(), **settings)
    obs = random(2, 30, 3)
    far = obs.clone()
    far[..., 0] = 1e6  # nothing is ever accepted
    noise = random(5, 2, 30, 2, seed=3)
    action, _ = policy.act(obs, noise, far)
    with torch.no_grad():
        x, _ = policy(obs, noise[0])
        x = torch.tanh(x) if coordinates == "action" else x
        rho = 0.0
        for k in range(4):
            rho = rho + args.momentum_std_explore * noise[1 + k]
            x, rho, _ = sac_hpo_safe.leapfrog(x, rho, policy.force_at(obs), args.step_size, 1, True)
    torch.testing.assert_close(action, x.clamp(-1, 1) if coordinates == "action" else torch.tanh(x))
    assert args.max_leapfrog_steps == 4 and args.momentum_std_explore == 1.0


def test_algorithm_3_starts_at_the_mean_without_momentum_if_deterministic():
    policy, args = safe_policy(CostOfFirstAction(), cost_limit=1e6, coordinates="pre-tanh")
    obs = random(2, 20, 3)
    force, _ = policy.force_at(obs)(mean(policy, obs))
    one_step = mean(policy, obs) - 0.5 * args.step_size**2 * force
    action, _ = act(policy, obs, obs, deterministic=True)
    torch.testing.assert_close(action, torch.tanh(one_step))


def test_noise_of_acting_and_of_updates():
    """u_0 and the momenta of K_max steps to act; u_0 and one momentum for an action in an update."""
    agent, _ = make_agent(sac_hpo_safe, max_leapfrog_steps=7)
    assert (agent.policy.draws_to_act, agent.policy.draws) == (8, 2)


def test_the_force_is_the_gradient_of_q_minus_lambda_q_c():
    agent, _ = make_agent(sac_hpo_safe, env_id="Ant-v4", seeds=2, coordinates="pre-tanh")
    lambdas = torch.tensor([0.7, 2.0], dtype=torch.float64)
    agent.multiplier.value.copy_(lambdas)
    obs, u = random(2, 20, 3, seed=4), random(2, 20, 2, seed=5)
    action = torch.tanh(u).requires_grad_()
    value = agent.q_target(obs, action).amin(1) - lambdas[:, None] * agent.q_cost_target(obs, action)[:, 0]
    (expected,) = torch.autograd.grad(value.sum(), action)
    _, found = agent.policy.force_at(obs)(u)
    torch.testing.assert_close(found["gradient"], expected)
    torch.testing.assert_close(found["q"], value.detach())


def test_both_critics_of_the_force_are_rounded():
    changes = dict(coordinates="pre-tanh", dtype=torch.float32)
    agent, _ = make_agent(sac_hpo_safe, env_id="Ant-v4", seeds=2, **changes)
    agent.multiplier.value.copy_(torch.tensor([0.7, 2.0]))
    obs, u = random(2, 20, 3, seed=4).float(), random(2, 20, 2, seed=5).float()
    for rounded in (False, True):
        _, gradient = agent.q_target.min_at(obs, rounded)(torch.tanh(u))
        _, cost_gradient = agent.q_cost_target.min_at(obs, rounded)(torch.tanh(u))
        expected = gradient - agent.multiplier.value.view(-1, 1, 1) * cost_gradient
        torch.testing.assert_close(agent.policy.force_at(obs, rounded)(u)[1]["gradient"], expected)


# ------------------------------------------------------------------------------------------------- learning

FAST = dict(batch_size=64, learning_starts=100, policy_lr=3e-3, q_lr=3e-3, tau=0.05, eval_frequency=100_000)


def trained(module, env_id, tmp_path, steps, **changes):
    settings = dict(env_id=env_id, total_timesteps=steps, runs_dir=str(tmp_path))
    args = make_args(module, **settings, **{**FAST, **changes})
    run = module.train(args)
    agent = module.Agent(1, 1, 1, module.resolve(args))
    agent.load_state_dict(agent_of(run, steps))
    return agent, run


def learned_action(module, agent):
    """The deterministic one at observation 0, from 0 to 3."""
    obs = np.zeros((1, 1), np.float32)
    if module is sac_hpo_safe:
        action, _ = sac_hpo_safe.decide(agent, obs, obs, torch.Generator().manual_seed(0))
    else:
        action = module.decide(agent, obs)
    return 1.5 * (action.item() + 1.0)


def scalars(run, tag):
    """What TensorBoard has of the first seed: (step, value)."""
    board = EventAccumulator(str(run / "seed_1"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in board.Scalars(tag)]


def numbers(run, name, seed=1):
    return [float(row[name]) for row in rows_of(run, seed)]


def test_the_cost_critic_learns_the_cost_to_go(safe, tmp_path):
    """Cost 2 at each of two steps, reward 7: Q_C is 2 + 0.8 * 2 at the first and 2 at the second."""
    changes = dict(gamma=0.8, cost="info", cost_limit=100.0, alpha=0.01)
    agent, _ = trained(safe, "TwoCosts-v0", tmp_path, 1200, **changes)
    for obs, expected in ((0.0, 3.6), (1.0, 2.0)):
        state = torch.full((1, 100, 1), obs)
        noise = random(agent.policy.draws, 1, 100, 1, dtype=torch.float32)
        with torch.no_grad():
            q_cost = agent.q_cost(state, agent.policy.sample(state, noise)[0]).mean().item()
        assert q_cost == pytest.approx(expected, abs=0.15)


def test_constrained_optimum(safe, tmp_path):
    """Reward -(a - 2.4)^2 and cost a, limit 1.2: the best safe action is 1.2, where lambda is the slope."""
    changes = dict(alpha=0.01, cost="info", cost_limit=1.2, lambda_lr=0.02, cost_window=1)
    if safe is sac_hpo_safe:  # the limit is on what training executes: with much noise the mean would show it
        changes["momentum_std_explore"] = 0.1
    agent, run = trained(safe, "Costly-v0", tmp_path, 1200, **changes)
    assert learned_action(safe, agent) == pytest.approx(1.2, abs=0.2)
    assert numbers(run, "j_c_mean") == pytest.approx([1.2], abs=0.2)
    assert numbers(run, "lambda") == pytest.approx([2.4], abs=0.3)


def test_unconstrained_sac_violates_the_limit(tmp_path):
    agent, _ = trained(sac_baseline, "Costly-v0", tmp_path, 1000, alpha=0.01)
    assert learned_action(sac_baseline, agent) == pytest.approx(2.4, abs=0.2)


# -------------------------------------------------------------------------------------------- whole runs


ONE_COST = dict(env_id="OneCost-v0", gamma=0.9, cost="info", cost_limit=1.0, eval_episodes=4)


def test_costs_of_an_evaluation_and_of_training(safe, tmp_path):
    """OneCost: three steps of cost 0.5, 0, 1 in every episode."""
    _, run = trained(safe, tmp_path=tmp_path, steps=120, cost_window=1, **{**ONE_COST, "eval_frequency": 60})
    for name in ("cost_mean", "discounted_cost_mean", "j_c_mean", "share_over_limit"):
        expected = {"cost_mean": 1.5, "share_over_limit": 1.0}.get(name, 1.31)
        assert numbers(run, name) == pytest.approx(2 * [expected]), name
    assert numbers(run, "training_episodes") == [20, 40] == numbers(run, "training_episodes_over_limit")
    assert numbers(run, "training_cost") == pytest.approx([20 * 1.5, 40 * 1.5])
    # learning_starts is 100: the episodes that end at 105, 108, ... 120 move lambda, by 0.1 * (1.31 - 1) each
    assert numbers(run, "lambda") == pytest.approx([0.0, 6 * 0.031], rel=1e-4)


def test_what_training_logs_of_costs(safe, tmp_path):
    """Costs of each episode and of all so far; leapfrog steps of episodes without random actions."""
    _, run = trained(safe, tmp_path=tmp_path, steps=121, **ONE_COST)
    ends = [*range(3, 121, 3)]
    assert scalars(run, "charts/episodic_cost") == [(step, 1.5) for step in ends]
    assert scalars(run, "charts/training_cost") == [(step, 0.5 * step) for step in ends]
    if safe is sac_hpo_safe:
        steps, taken = zip(*scalars(run, "charts/leapfrog_steps"), strict=True)
        assert steps == tuple(range(105, 121, 3)) and 1.0 <= min(taken) <= max(taken) <= 10.0


def test_costs_of_environments_beside_the_training(safe):
    """In processes of their own, as on a GPU."""
    changes = dict(env_id="envs:Costly-v0", cost="info", cost_limit=1.0, num_seeds=2)
    tasks = safe.make_envs(make_args(safe, **changes), beside=True)
    tasks.reset(seed=[1, 2])
    *_, infos = tasks.step(np.array([[0.0], [1.0]], np.float32))
    tasks.close()
    assert infos["cost"].tolist() == pytest.approx([1.5, 3.0])


def test_an_episode_cut_at_a_checkpoint_counts_nowhere(safe, tmp_path):
    """Every five steps, after an episode of three and two steps of the next. From step 20 on the policy
    acts: its episodes move lambda when they have 7 steps or more together, three of them."""
    changes = {**ONE_COST, "learning_starts": 20, "checkpoint_frequency": 5, "cost_window": 7}
    _, run = trained(safe, tmp_path=tmp_path, steps=100, **changes)
    assert numbers(run, "training_episodes") == [20] == numbers(run, "training_episodes_over_limit")
    assert numbers(run, "training_cost") == pytest.approx([20 * 1.5])
    assert numbers(run, "lambda") == pytest.approx([5 * 0.031], rel=1e-4)
    assert agent_of(run, 100)["multiplier.recent_steps"] == 3.0


def test_a_resumed_run_of_two_seeds_is_one_never_stopped(safe, tmp_path):
    """The checkpoint comes in the middle of episodes. Hopper falls after 10 to 100 steps: lambdas move
    before it and after it, and the counters hold something when it is written."""
    settings = dict(num_seeds=2, learning_starts=100, batch_size=16, eval_episodes=2, cost_window=90)
    settings |= dict(eval_frequency=250, checkpoint_frequency=250, seed=3)
    whole, short = (
        safe.train(make_args(safe, total_timesteps=steps, runs_dir=str(tmp_path / str(steps)), **settings))
        for steps in (500, 250)
    )
    at_the_checkpoint = [agent_of(short, 250, seed) for seed in (3, 4)]
    resume(safe, short, total_timesteps=500)
    for seed, before in zip((3, 4), at_the_checkpoint, strict=True):
        assert rows_of(short, seed) == rows_of(whole, seed) and len(rows_of(whole, seed)) == 2
        end = agent_of(short, 500, seed)
        assert same(end, agent_of(whole, 500, seed))
        assert 0.0 < before["multiplier.value"] < end["multiplier.value"]
    assert any(before["multiplier.recent_steps"] > 0.0 for before in at_the_checkpoint)
    assert rows_of(whole, 3)[-1]["lambda"] != rows_of(whole, 4)[-1]["lambda"]


def test_what_algorithm_3_did_is_in_the_evaluation(tmp_path, monkeypatch):
    """Four one-step episodes: accepted at steps 1, 1, 5 and never, with costs 0, 0, 3 and 3."""
    settings = dict(env_id="Costly-v0", cost="info", cost_limit=1.0, eval_episodes=4)
    agent, args = make_agent(sac_hpo_safe, 1, 1, dtype=torch.float32, **settings)
    answer = torch.tensor([[[-1.0], [-1.0], [1.0], [1.0]]]), torch.tensor([[1, 1, 5, 11]])
    monkeypatch.setattr(sac_hpo_safe.HamiltonianPolicy, "act", lambda *_: answer)
    row = sac_hpo_safe.evaluate(weights_of(agent, 0), args, 1, 0, tmp_path)
    assert row["leapfrog_steps_mean"] == pytest.approx((1 + 1 + 5 + 10) / 4)
    assert (row["accepted_at_first"], row["never_accepted"], row["share_over_limit"]) == (0.5, 0.25, 0.5)
    assert row["cost_mean"] == row["j_c_mean"] == pytest.approx(1.5)


def recorded(monkeypatch):
    """What Algorithm 3 is asked, in a list."""
    calls, real = [], sac_hpo_safe.HamiltonianPolicy.act

    def act(self, obs, noise, first_obs):
        calls.append((obs.clone(), noise.clone(), first_obs.clone()))
        return real(self, obs, noise, first_obs)

    monkeypatch.setattr(sac_hpo_safe.HamiltonianPolicy, "act", act)
    return calls


def test_each_state_comes_with_the_first_of_its_own_episode(tmp_path, monkeypatch):
    """In the training of two seeds and in evaluations, where episodes differ in length."""
    calls = recorded(monkeypatch)
    monkeypatch.setattr(sac_hpo_safe, "ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(1))
    settings = dict(env_id="Marked-v0", total_timesteps=60, num_seeds=2, runs_dir=str(tmp_path))
    changes = {**FAST, "learning_starts": 20, "eval_frequency": 20, "eval_episodes": 6}
    sac_hpo_safe.train(make_args(sac_hpo_safe, **settings, **changes, checkpoint_frequency=33))
    for obs, _, first_obs in calls:
        assert torch.equal(obs[..., 0], first_obs[..., 0]) and (first_obs[..., 1] == 0).all()
    for seeds in (1, 2):  # in evaluations, in training
        assert max(obs[..., 1].max() for obs, _, _ in calls if len(obs) == seeds) >= 3


def test_noise_of_an_evaluation(tmp_path, monkeypatch):
    """None in the first leapfrog step; then the momentum is random, by seed and step, and repeats. What the
    critics are asked for their promise has the noise of the first action that is played."""
    calls = recorded(monkeypatch)
    agent, args = make_agent(sac_hpo_safe, 2, 1, env_id="Marked-v0", dtype=torch.float32, eval_episodes=6)
    evaluations = []
    for seed, step in ((1, 7), (1, 7), (1, 8), (2, 7)):
        began = len(calls)
        sac_hpo_safe.evaluate(weights_of(agent, 0), args, seed, step, tmp_path)
        evaluations.append([noise for _, noise, _ in calls[began : began + 3]])
    first, again, other, of_other_seed = evaluations
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], first[1]) and not torch.equal(first[1][2:, :, :1], first[2][2:, :, :1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0], of_other_seed[0])
    everything = torch.cat([noise[:, :, :1] for _, noise, _ in calls], dim=2)
    assert (everything[:2] == 0.0).all() and everything[2:].std() == pytest.approx(1.0, abs=0.2)
    assert len(everything) == 1 + args.max_leapfrog_steps


def test_an_agent_for_your_own_program(tmp_path):
    """Its first action is tanh(mean) after one leapfrog step, in the environment's bounds."""
    settings = dict(env_id="Costly-v0", cost="info", cost_limit=1e6)
    agent, run = trained(sac_hpo_safe, tmp_path=tmp_path, steps=120, **settings)
    policy = sac_hpo_safe.load_agent(run / "seed_1" / "agent_120.pt")
    obs = np.zeros(1)
    assert policy(obs, obs) == pytest.approx([learned_action(sac_hpo_safe, agent)])


def test_an_agent_is_given_an_observation_and_then_the_first_one(tmp_path, monkeypatch):
    agent, args = make_agent(sac_hpo_safe, 2, 1, env_id="Marked-v0", dtype=torch.float32)
    task = sac_hpo_safe.make_env(args)
    (tmp_path / "seed_1").mkdir()
    sac_hpo_safe.save_agents(agent, args, task, 5, tmp_path)
    policy = sac_hpo_safe.load_agent(tmp_path / "seed_1" / "agent_5.pt")
    calls = recorded(monkeypatch)
    policy(np.array([3.0, 4.0]), np.array([3.0, 0.0]))
    ((obs, _, first_obs),) = calls
    assert obs.tolist() == [[[3.0, 4.0]]] and first_obs.tolist() == [[[3.0, 0.0]]]


def test_playing_says_what_it_cost(safe, tmp_path, capsys):
    """OneCost's discounted sum of 1.31, limit 1: four of four episodes over it."""
    _, run = trained(safe, tmp_path=tmp_path, steps=20, **ONE_COST)
    capsys.readouterr()
    safe.play(replace(safe.stored_args(str(run)), evaluate=str(run)))
    assert capsys.readouterr().out.splitlines()[-1] == "J_C 1.3, limit 1, episodes over it 100 %"
