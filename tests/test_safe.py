"""The cost side of both safe scripts, and Algorithm 3."""

import copy
import math

import envs  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from conftest import deterministic_action, make_agent, make_args, make_batch, make_optimizers_plain

import sac_baseline
import sac_hpo_continuous
import sac_hpo_safe

PLAIN = {"sac_lagrangian": sac_baseline, "sac_hpo_safe": sac_hpo_continuous}


# ------------------------------------------------------------------------------------------------- J_C and lambda


def test_constraint_of_an_episode(safe):
    """Costs 0.5, 0, 1 with gamma 0.9: discounted 0.5 + 0.81 = 1.31; on average 0.5 a step, 5 over 1 - gamma."""
    for cost, expected in (("speed", 1.31), ("info", 1.31), ("torque", 5.0)):
        args = make_args(safe, cost=cost, cost_limit=1.0, gamma=0.9)
        assert safe.constraint(args, total=1.5, discounted=1.31, length=3) == pytest.approx(expected)


def test_multiplier_against_a_plain_list(safe):
    """Episodes of different lengths and costs: when it moves, by which mean, the projection at 0, and the counts."""
    args = make_args(safe, env_id="Ant-v4", cost="torque", cost_limit=25.0, cost_window=700, gamma=0.99)
    multiplier = safe.Multiplier(args)
    recent, steps, value, over, moves, rng = [], 0, 0.0, 0, 0, np.random.default_rng(0)
    values = []
    for episode in range(80):
        length = int(rng.integers(1, 1000))
        total = length * rng.uniform(0.1, 0.5) * (0.3 if 30 <= episode < 60 else 1.0)
        multiplier.end_episode(total, math.nan, length, of_policy=True)
        recent.append(total / length / 0.01)
        steps += length
        over += recent[-1] > 25.0
        if steps >= 700:
            value = max(0.0, value + 0.1 * (sum(recent) / len(recent) - 25.0))
            recent, steps, moves = [], 0, moves + 1
        values.append(value)
        assert multiplier.value.item() == pytest.approx(value, rel=1e-4, abs=1e-4)
    assert min(values[50:60]) == 0.0 and max(values) > 1.0  # both directions, and the projection
    assert 30 < moves < 60  # some moves are by one episode, some by more
    assert multiplier.episodes.item() == 80 and multiplier.over_limit.item() == over


def test_multiplier_step_by_hand(safe):
    args = make_args(safe, env_id="HalfCheetah-v4", cost="speed", cost_limit=10.0, lambda_lr=0.1)
    multiplier = safe.Multiplier(args)
    for discounted, expected in ((30.0, 2.0), (10.0, 2.0), (25.0, 3.5), (0.0, 2.5)):
        multiplier.end_episode(100.0, discounted, 1000, of_policy=True)  # 1,000 steps: a move after each episode
        assert multiplier.value.item() == pytest.approx(expected)
    assert multiplier.total_cost.item() == 400.0
    multiplier.end_episode(50.0, 99.0, 1000, of_policy=False)  # random actions: counted, but lambda stays
    assert multiplier.value.item() == pytest.approx(2.5) and multiplier.total_cost.item() == 450.0
    assert multiplier.over_limit.item() == 3 and multiplier.episodes.item() == 5
    for discounted, length, expected in ((40.0, 600, 2.5), (0.0, 399, 2.5), (50.0, 1, 4.5), (9.0, 999, 4.5)):
        multiplier.end_episode(0.0, discounted, length, of_policy=True)  # the third completes 1,000 steps: mean 30
        assert multiplier.value.item() == pytest.approx(expected)


def test_multiplier_survives_a_checkpoint(safe, tmp_path):
    args = make_args(safe, env_id="Ant-v4", cost_limit=25.0, cost="torque", cost_window=700)
    first, second = safe.Multiplier(args), safe.Multiplier(args)
    for length in (710, 500, 7, 80):
        first.end_episode(0.4 * length, 3.0, length, of_policy=True)
    assert first.value > 0.0 and first.recent_episodes == 3
    torch.save(first.state_dict(), tmp_path / "x.pt")
    second.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True))
    for multiplier in (first, second):
        multiplier.end_episode(100.0, 3.0, 300, of_policy=True)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


# ------------------------------------------------------------------------------------------------------- the costs


def test_torque_costs_the_mean_of_the_motors(safe):
    env = safe.make_env(safe.resolve(make_args(safe, env_id="Ant-v4")))
    env.reset(seed=0)
    action = np.array([1, -1, 0.5, 0, 0, 0, 0, -0.5], np.float32)
    assert env.step(action)[4]["cost"] == pytest.approx(3.0 / 8.0)
    env = safe.make_env(safe.resolve(make_args(safe, env_id="Humanoid-v4")))  # its motors are bounded by 0.4
    env.reset(seed=0)
    assert env.step(np.ones(17, np.float32))[4]["cost"] == 1.0


def test_speed_costs_one_above_one_metre_per_second(safe, monkeypatch):
    env = safe.make_env(safe.resolve(make_args(safe, env_id="HalfCheetah-v4")))
    env.reset(seed=0)
    inner = env.unwrapped
    real = inner.step
    for velocity, expected in ((0.3, 0.0), (1.0, 0.0), (1.01, 1.0), (-1.5, 1.0), (-0.9, 0.0)):
        monkeypatch.setattr(inner, "step", lambda a, v=velocity: (*real(a)[:4], {"x_velocity": v}))
        assert env.step(np.zeros(6, np.float32))[4]["cost"] == expected


def test_info_is_what_the_environment_reports(safe):
    env = safe.make_env(safe.resolve(make_args(safe, env_id="Costly-v0", cost="info", cost_limit=1.0)))
    env.reset(seed=0)
    assert env.step(np.ones(1, np.float32))[4]["cost"] == pytest.approx(3.0)


@pytest.mark.parametrize("cost, key", [("info", "cost"), ("speed", "x_velocity")])
def test_an_environment_without_that_cost_is_refused(safe, tmp_path, capsys, cost, key):
    with pytest.raises(SystemExit) as stopped:
        safe.train(make_args(safe, env_id="OneStep-v0", cost=cost, cost_limit=1.0, runs_dir=str(tmp_path)))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--cost {cost}: the environment does not report info['{key}']" in line


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(env_id="Hopper-v4", cost=None), "--cost and --cost-limit must be given: Hopper-v4 has no default"),
        (dict(env_id="Hopper-v4", cost=None, cost_limit=3.0), "--cost and --cost-limit must be given"),
        (dict(env_id="Hopper-v4", cost="torque"), "--cost torque needs a --cost-limit"),
        (dict(env_id="Ant-v4", cost="speed"), "--cost speed needs a --cost-limit"),
        (dict(env_id="Ant-v4", cost_limit=-1.0), "--cost-limit must be 0 or more"),
        (dict(env_id="Ant-v4", cost_limit=math.nan), "--cost-limit must be 0 or more"),
        (dict(env_id="Ant-v4", lambda_lr=0.0), "--lambda-lr must be positive"),
        (dict(env_id="Ant-v4", cost_window=0), "--cost-window must be 1 or more"),
        (dict(env_id="Ant-v4", gamma=1.0), "--gamma must be below 1 with a cost"),
    ],
    ids=str,
)
def test_bad_costs(safe, tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit) as stopped:
        safe.train(safe.Args(runs_dir=str(tmp_path / "runs"), **changes))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and list(tmp_path.iterdir()) == []


def test_bad_number_of_steps(tmp_path, capsys):
    with pytest.raises(SystemExit):
        sac_hpo_safe.train(sac_hpo_safe.Args(env_id="Ant-v4", max_leapfrog_steps=0, runs_dir=str(tmp_path)))
    assert "--max-leapfrog-steps must be between 1 and" in capsys.readouterr().err


def test_defaults_by_task(safe):
    for task, cost, limit in (
        ("Ant-v4", "torque", 25.0),
        ("Ant-v5", "torque", 25.0),
        ("HalfCheetah-v4", "speed", 10.0),
    ):
        args = safe.resolve(safe.Args(env_id=task))
        assert (args.cost, args.cost_limit, args.lambda_lr) == (cost, limit, 0.1)
    args = safe.resolve(safe.Args(env_id="Ant-v4", cost="speed", cost_limit=3.0))
    assert (args.cost, args.cost_limit) == ("speed", 3.0)
    assert safe.resolve(safe.Args(env_id="HalfCheetah-v4", cost_limit=3.0)).cost == "speed"


# ------------------------------------------------------------------------------------------- critic and policy step


def random_batch(module, rows=16, seed=7):
    g = torch.Generator().manual_seed(seed)
    obs, next_obs = (torch.randn(rows, 3, generator=g, dtype=torch.float64) for _ in range(2))
    action = torch.rand(rows, 2, generator=g, dtype=torch.float64) * 2 - 1
    reward, cost = (torch.randn(rows, generator=g, dtype=torch.float64) for _ in range(2))
    return make_batch(module, obs, action, reward, next_obs, (torch.arange(rows) % 3 == 0).double(), cost.abs())


def test_cost_loss_by_hand(safe):
    q, next_q, cost, ends = (torch.tensor(x, dtype=torch.float64) for x in ([1, 2], [10, 10], [0.5, 1], [0, 1]))
    loss, _ = safe.cost_loss(q, next_q, cost, ends, gamma=0.9)
    assert loss.item() == pytest.approx(((1 - 9.5) ** 2 + (2 - 1) ** 2) / 2)


@pytest.mark.parametrize("cost, ends", [("torque", 0.0), ("speed", 1.0), ("info", 1.0)])
def test_the_cost_critic_backs_up_cost_and_never_reward(safe, cost, ends):
    """Its step does not notice the rewards, has no entropy term, and follows the plain gradient. A sum of costs ends
    with the episode, an average does not."""
    steps = []
    for scale in (1.0, 100.0):
        agent, args = make_agent(safe, gamma=0.9, tau=0.25, cost=cost, cost_limit=1.0)
        make_optimizers_plain(agent)
        old = copy.deepcopy(agent)
        batch = random_batch(safe)
        torch.manual_seed(3)
        safe.update(agent, batch._replace(reward=scale * batch.reward), args)
        steps.append(
            [
                new.detach() - before
                for new, before in zip(agent.q_cost.parameters(), old.q_cost.parameters(), strict=True)
            ]
        )
    assert all(torch.equal(a, b) for a, b in zip(*steps, strict=True))

    torch.manual_seed(3)
    with torch.no_grad():
        next_action, _ = old.policy.sample(batch.next_obs)
        to_come = old.q_cost_target(batch.next_obs, next_action)
        target = batch.cost + 0.9 * (1 - ends * batch.terminated) * to_come
    loss = ((old.q_cost(batch.obs, batch.action) - target) ** 2).mean()
    for step, gradient in zip(steps[0], torch.autograd.grad(loss, old.q_cost.parameters()), strict=True):
        torch.testing.assert_close(step, -gradient)
    for target, critic, before in zip(
        agent.q_cost_target.parameters(), agent.q_cost.parameters(), old.q_cost_target.parameters(), strict=True
    ):
        torch.testing.assert_close(target, 0.75 * before + 0.25 * critic)


@pytest.mark.parametrize("steps", [1, 5])
def test_without_lambda_the_update_is_that_of_the_plain_script(safe, steps):
    """lambda = 0: policy, critics and temperature move bit for bit as in SAC, or in SAC-HPO."""
    plain = PLAIN[safe.__name__]
    agent, args = make_agent(safe, dtype=torch.float32, autotune=True)
    other, other_args = make_agent(plain, dtype=torch.float32, autotune=True)
    batch = random_batch(safe)
    for step in range(steps):
        for module, one, its_args in ((safe, agent, args), (plain, other, other_args)):
            torch.manual_seed(step)
            row = [value.float() for value in batch][: len(module.Batch._fields)]
            module.update(one, module.Batch(*row), its_args)
    state = agent.state_dict()
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert agent.multiplier.value == 0.0


def test_lambda_moves_the_policy_away_from_cost(safe):
    """With a large lambda the policy's step lowers Q_C where it acts."""
    agent, args = make_agent(safe)
    agent.multiplier.value.fill_(1000.0)
    batch = random_batch(safe, rows=256)

    def cost_now():
        torch.manual_seed(0)
        with torch.no_grad():
            return frozen(batch.obs, agent.policy.sample(batch.obs)[0]).mean().item()

    frozen = copy.deepcopy(agent.q_cost_target)
    before = cost_now()
    make_optimizers_plain(agent, lr=1e-5)
    for part in ("q", "q_cost"):
        agent.optimizers[part].param_groups[0]["lr"] = 0.0
    args = args.__class__(**{**args.__dict__, "tau": 1e-9})
    for _ in range(20):
        safe.update(agent, batch, args)
    assert cost_now() < before


# ------------------------------------------------------------------------------------------------------ Algorithm 3


class CostOfFirstAction:
    """Q_C(s, a) = scale * a_0 + s_0: known in closed form."""

    def __init__(self, scale=1.0):
        self.scale, self.asked = scale, []

    def __call__(self, obs, action):
        self.asked.append(action)
        return self.scale * action[..., 0] + obs[..., 0]

    def state_part(self, obs, rounded):
        return obs

    def value_and_gradient(self, obs, action):
        gradient = torch.zeros_like(action)
        gradient[..., 0] = self.scale
        return (self.scale * action[..., 0] + obs[..., 0]).detach(), gradient


def safe_policy(q_cost, **changes):
    agent, args = make_agent(sac_hpo_safe, env_id="Ant-v4", **changes)
    agent.policy.borrowed = (*agent.policy.borrowed[:2], q_cost, agent.multiplier)
    return agent.policy, args


def test_slack_of_eq_15():
    """Accepted exactly where Q_C(s, a) - Q_C(s, pi_B(s)) < (1 - gamma) (d_0 - Q_C(s_0, pi_B(s_0)))."""
    q_cost = CostOfFirstAction()
    policy, _ = safe_policy(q_cost, cost_limit=25.0, gamma=0.99, max_leapfrog_steps=1)
    torch.manual_seed(0)
    obs, first = torch.randn(500, 3, dtype=torch.float64), torch.randn(500, 3, dtype=torch.float64)
    first[:, 0] = torch.linspace(-60, 100, 500)  # slack from 0.85 down to -0.75
    action, accepted_at = policy.act(obs, False, first)
    base, base_first = (torch.tanh(policy(x)[0])[:, 0] for x in (obs, first))
    slack = 0.01 * (25.0 - (base_first + first[:, 0]))
    should = action[:, 0] - base < slack
    assert torch.equal(accepted_at == 1, should)
    assert torch.equal(accepted_at == 2, ~should)
    assert should[slack < 0].any()  # infeasible, and yet some actions are so much safer that they pass
    assert not should.all()


def test_an_unsafe_action_is_returned_only_if_no_safe_one_was_found():
    """Wherever a step was accepted the action satisfies (14), and it is the first that did."""
    q_cost = CostOfFirstAction()
    drift = {"explore": "drift", "train": "gaussian"}  # whose force does not ask Q_C
    policy, args = safe_policy(q_cost, cost_limit=0.5, momentum_std_explore=1.5, step_size=0.3, **drift)
    torch.manual_seed(1)
    obs = torch.randn(400, 3, dtype=torch.float64)
    obs[:, 0] = 1.0
    action, accepted_at = policy.act(obs, False, obs)
    base = torch.tanh(policy(obs)[0])[:, 0]
    slack = 0.01 * (0.5 - (base + 1.0))
    found = accepted_at <= args.max_leapfrog_steps
    assert (action[found, 0] - base[found] < slack[found]).all()
    assert (action[~found, 0] - base[~found] >= slack[~found]).all()
    trials = torch.stack([a[:, 0] for a in q_cost.asked[2:]])  # after pi_B(s) and pi_B(s_0): one per leapfrog step
    for row in found.nonzero().flatten().tolist():
        k = int(accepted_at[row])
        assert (trials[: k - 1, row] - base[row] >= slack[row]).all()  # none before it passed
        assert trials[k - 1, row] == action[row, 0]
    assert len(set(accepted_at[found].tolist())) > 3 and found.any() and (~found).any()


def test_stops_at_the_first_step_if_all_is_safe_and_at_the_last_if_nothing_is():
    q_cost = CostOfFirstAction()
    drift = {"explore": "drift", "train": "gaussian"}  # whose force does not ask Q_C
    policy, _ = safe_policy(q_cost, cost_limit=1e6, **drift)
    obs = torch.randn(20, 3, dtype=torch.float64)
    _, accepted_at = policy.act(obs, False, obs)
    assert (accepted_at == 1).all() and len(q_cost.asked) == 3
    q_cost = CostOfFirstAction()
    policy, _ = safe_policy(q_cost, cost_limit=0.0, max_leapfrog_steps=7, **drift)
    far = obs.clone()
    far[:, 0] = 1e6
    _, accepted_at = policy.act(obs, False, far)
    assert (accepted_at == 8).all() and len(q_cost.asked) == 2 + 7


@pytest.mark.parametrize("operator", ["proposed", "conventional", "drift"])
def test_algorithm_3_written_out(operator):
    """Each leapfrog step in full by leapfrog(), then fresh momentum noise: the same actions."""
    train = "proposed" if operator == "proposed" else "gaussian"
    q_cost = CostOfFirstAction()
    policy, args = safe_policy(q_cost, cost_limit=0.0, max_leapfrog_steps=4, explore=operator, train=train)
    obs = torch.randn(30, 3, dtype=torch.float64)
    far = obs.clone()
    far[:, 0] = 1e6  # nothing is ever accepted
    torch.manual_seed(5)
    action, _ = policy.act(obs, False, far, torch.Generator().manual_seed(6))
    torch.manual_seed(5)
    u, _ = policy.sample_gaussian(obs)
    rho = args.momentum_std_explore * torch.randn_like(u)
    noise = torch.Generator().manual_seed(6)
    for _ in range(4):
        u, rho, _ = sac_hpo_safe.leapfrog(u, rho, policy.force_at(obs, operator), args.step_size, 1)
        fresh = torch.randn(30, 2, generator=noise, dtype=torch.float64)
        rho = rho + args.momentum_std_explore * fresh
    torch.testing.assert_close(action, torch.tanh(u))


def test_algorithm_3_starts_at_the_mean_without_momentum_if_deterministic():
    policy, args = safe_policy(CostOfFirstAction(), cost_limit=1e6)
    obs = torch.randn(20, 3, dtype=torch.float64)
    mean = policy(obs)[0]
    force, _ = policy.force_at(obs, "proposed")(mean)
    one_step = mean - 0.5 * args.step_size**2 * force
    torch.testing.assert_close(policy.act(obs, True, obs)[0], torch.tanh(one_step))


def test_gaussian_exploration_takes_no_steps():
    policy, _ = safe_policy(CostOfFirstAction(), explore="gaussian", train="gaussian", cost_limit=0.0)
    obs = torch.randn(5, 3, dtype=torch.float64)
    action, accepted_at = policy.act(obs, True, obs)
    torch.testing.assert_close(action, torch.tanh(policy(obs)[0]))
    assert (accepted_at == 0).all()


def test_the_force_is_the_gradient_of_q_minus_lambda_q_c():
    agent, _ = make_agent(sac_hpo_safe, env_id="Ant-v4")
    agent.multiplier.value.fill_(0.7)
    obs, u = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    action = torch.tanh(u).requires_grad_()
    value = torch.min(*agent.q_target(obs, action)) - 0.7 * agent.q_cost_target(obs, action)
    (expected,) = torch.autograd.grad(value.sum(), action)
    _, found = agent.policy.force_at(obs, "proposed")(u)
    torch.testing.assert_close(found["q_gradient"], expected)
    torch.testing.assert_close(found["q"], value.detach())


# --------------------------------------------------------------------------------------------------------- learning

FAST = dict(batch_size=64, learning_starts=100, policy_lr=3e-3, q_lr=3e-3, tau=0.05, eval_frequency=100_000)


def trained(module, env_id, tmp_path, steps, **changes):
    args = make_args(module, env_id=env_id, total_timesteps=steps, runs_dir=str(tmp_path), **{**FAST, **changes})
    run = module.train(args)
    agent = module.Agent(1, 1, module.resolve(args), torch.device("cpu"))
    module.load(run / f"agent_{steps}.pt", {"agent": agent})
    return agent, run


def test_the_cost_critic_learns_the_cost_to_go(safe, tmp_path):
    """Cost 2 at each of two steps, reward 7: Q_C is 2 + 0.8 * 2 at the first and 2 at the second."""
    changes = dict(gamma=0.8, cost="info", cost_limit=100.0, alpha=0.01)
    agent, _ = trained(safe, "TwoCosts-v0", tmp_path, 1200, **changes)
    for obs, expected in ((0.0, 3.6), (1.0, 2.0)):
        state = torch.full((100, 1), obs)
        with torch.no_grad():
            q_cost = agent.q_cost(state, agent.policy.sample(state)[0]).mean().item()
        assert q_cost == pytest.approx(expected, abs=0.15)


def test_constrained_optimum(safe, tmp_path):
    """Reward -(a - 2.4)^2 and cost a, limit 1.2: the best safe action is 1.2, where lambda is the slope, 2.4."""
    changes = dict(alpha=0.01, cost="info", cost_limit=1.2, lambda_lr=0.02, cost_window=1)
    if (
        safe is sac_hpo_safe
    ):  # the limit is on what is executed in training: little noise there, or it tells in the mean
        changes["momentum_std_explore"] = 0.1
    agent, run = trained(safe, "Costly-v0", tmp_path, 2500, **changes)
    action = 1.5 * (deterministic_action(agent, torch.zeros(1, 1)).item() + 1.0)
    assert action == pytest.approx(1.2, abs=0.2)
    table = np.genfromtxt(run / "eval.csv", delimiter=",", names=True)
    assert table["j_c_mean"] == pytest.approx(action, abs=0.1)
    assert table["lambda"] == pytest.approx(2.4, abs=0.6)


def test_unconstrained_sac_violates_the_limit(tmp_path):
    agent, _ = trained(sac_baseline, "Costly-v0", tmp_path, 1000, alpha=0.01)
    assert 1.5 * (deterministic_action(agent, torch.zeros(1, 1)).item() + 1.0) == pytest.approx(2.4, abs=0.2)


def test_costs_of_an_evaluation_and_of_training(safe, tmp_path):
    """OneCost: three steps of cost 0.5, 0, 1 in every episode."""
    changes = dict(gamma=0.9, cost="info", cost_limit=1.0, cost_window=1, eval_frequency=60, eval_episodes=4)
    _, run = trained(safe, "OneCost-v0", tmp_path, 120, **changes)
    table = np.genfromtxt(run / "eval.csv", delimiter=",", names=True)
    assert table["cost_mean"].tolist() == pytest.approx([1.5, 1.5])
    assert table["discounted_cost_mean"].tolist() == pytest.approx([1.31, 1.31])
    assert table["j_c_mean"].tolist() == pytest.approx([1.31, 1.31])
    assert table["training_episodes"].tolist() == [20, 40] == table["training_episodes_over_limit"].tolist()
    assert table["training_cost"].tolist() == pytest.approx([20 * 1.5, 40 * 1.5])
    assert table["share_over_limit"].tolist() == [1.0, 1.0]
    # learning_starts is 100: the episodes that end at 105, 108, ... 120 move lambda, by 0.1 * (1.31 - 1) each
    assert table["lambda"].tolist() == pytest.approx([0.0, 6 * 0.031], rel=1e-4)


def test_what_algorithm_3_did_is_in_the_evaluation(tmp_path, monkeypatch):
    """Four one-step episodes: accepted at steps 1, 1, 5 and never, with costs 0, 0, 3 and 3."""
    args = make_args(sac_hpo_safe, env_id="Costly-v0", cost="info", cost_limit=1.0, eval_episodes=4)
    args = sac_hpo_safe.resolve(args)
    agent = sac_hpo_safe.Agent(1, 1, args, torch.device("cpu"))
    actions = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    monkeypatch.setattr(agent.policy, "act", lambda *_: (actions, torch.tensor([1, 1, 5, 11])))
    row = sac_hpo_safe.evaluate(agent, args, 0, tmp_path)
    assert row["leapfrog_steps_mean"] == pytest.approx((1 + 1 + 5 + 10) / 4)
    assert (row["accepted_at_first"], row["never_accepted"], row["share_over_limit"]) == (0.5, 0.25, 0.5)
    assert row["cost_mean"] == row["j_c_mean"] == pytest.approx(1.5)


def test_each_state_comes_with_the_first_of_its_own_episode(tmp_path, monkeypatch):
    """In training and in evaluations, where episodes of different lengths are stepped together."""
    calls, real = [], sac_hpo_safe.HamiltonianPolicy.act

    def act(self, obs, deterministic, first_obs, generator=None):
        calls.append((obs.clone(), first_obs.clone(), deterministic))
        return real(self, obs, deterministic, first_obs, generator)

    monkeypatch.setattr(sac_hpo_safe.HamiltonianPolicy, "act", act)
    changes = {**FAST, "learning_starts": 20, "eval_frequency": 20, "eval_episodes": 6}
    sac_hpo_safe.train(
        make_args(sac_hpo_safe, env_id="Marked-v0", total_timesteps=60, runs_dir=str(tmp_path), **changes)
    )
    for obs, first_obs, _ in calls:
        assert torch.equal(obs[:, 0], first_obs[:, 0]) and (first_obs[:, 1] == 0).all()
    for kind in (True, False):
        assert max(obs[:, 1].max() for obs, _, deterministic in calls if deterministic is kind) >= 3
