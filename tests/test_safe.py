"""The cost side of both safe scripts, and Algorithm 3. (One update by hand is in test_update.py.)"""

import math

import by_hand
import envs  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from by_hand import after_training
from conftest import make_agent, make_args, noise_for, plain_optimizers, random, random_batch, same, weights
from gymnasium.spaces import Box
from test_update import recorded_run

import sac_baseline
import sac_hpo_continuous
import sac_hpo_safe

PLAIN = {"sac_lagrangian": sac_baseline, "sac_hpo_safe": sac_hpo_continuous}
CPU = torch.device("cpu")


@pytest.mark.parametrize("cost", ["torque", "info"])
def test_multiplier_against_a_plain_list(safe, cost):
    """Episodes of three agents in turn, of different lengths and costs, some with random actions: J_C, a
    discounted sum or, of torque, the mean over 1 - gamma; when each lambda moves and by what, never below 0;
    the counts. Its tensors stay where CUDA graphs read them, and go through a checkpoint."""
    args = make_args(safe, env_id="Ant-v4", cost=cost, cost_limit=25.0, cost_window=700, lambda_lr=0.1)
    multiplier, rng = safe.Multiplier(3, args, CPU), np.random.default_rng(0)
    recent, steps, value, counts = [[], [], []], [0, 0, 0], [0.0, 0.0, 0.0], np.zeros((3, 3))
    seen, moves, place = [], set(), multiplier.value.data_ptr()
    for episode in range(240):
        i, length, of_policy = int(rng.integers(3)), int(rng.integers(1, 1000)), rng.random() < 0.8
        total = length * rng.uniform(0.1, 0.5) * (0.3 if 90 <= episode < 180 else 1.0)
        j_c = total / length / 0.01 if cost == "torque" else total / 7.0
        multiplier.end_episode(i, total, total / 7.0, length, bool(of_policy))
        counts[:, i] += 1, j_c > 25.0, total
        if of_policy:
            recent[i], steps[i] = [*recent[i], j_c], steps[i] + length
        if steps[i] >= 700:
            value[i] = max(0.0, value[i] + 0.1 * (sum(recent[i]) / len(recent[i]) - 25.0))
            moves.add(len(recent[i]))
            recent[i], steps[i] = [], 0
        assert multiplier.value.tolist() == pytest.approx(value, rel=1e-4, abs=1e-4)
        assert multiplier.value.data_ptr() == place
        seen.append(max(value))
        if episode == 100:
            saved, multiplier = multiplier.state_dict(), safe.Multiplier(3, args, CPU)
            place = multiplier.value.data_ptr()
            multiplier.load_state_dict(saved)
    assert max(seen) > 1.0 and min(seen[20:]) < 0.5 and moves >= {1, 2, 3}
    found = multiplier.episodes, multiplier.episodes_over_limit, multiplier.total_cost
    np.testing.assert_allclose(torch.stack(found), counts)


def test_cost_of_a_step(safe):
    """torque: the mean of |action|, each as a share of the largest. speed: above 1 m/s. info: as reported."""
    box = Box(np.array([-0.4, 0.0], np.float32), np.array([0.4, 3.0], np.float32))
    for action, expected in ([0.4, 3.0], 1.0), ([0.0, 1.5], 0.0), ([-0.2, 0.0], 0.75):
        assert safe.cost_of("torque", np.float32(action), box, {}) == pytest.approx(expected)
    speeds = (1.0, 0), (1.01, 1), (-1.5, 1), (-0.9, 0), (np.array([-2.0]), 1), (math.nan, math.nan)
    for speed, expected in speeds:
        found = safe.cost_of("speed", None, box, {"x_velocity": speed})
        assert found == pytest.approx(expected, nan_ok=True)  # NaN is for the one check of numbers
    for cost in 2.5, np.float32(2.5), np.array([2.5]), [2.5], True, 0, np.array([[1]]):
        found = safe.cost_of("info", None, box, {"cost": cost})
        assert type(found) is float and found == np.ravel(cost)[0]


def test_cost_that_is_no_cost(safe):
    for kind, name in ("speed", "x_velocity"), ("info", "cost"):
        for info in {}, {name: np.ones(2)}, {name: None}, {name: "much"}, {"reward": 1.0}:
            with pytest.raises(ValueError, match=rf"^--cost {kind}: .*info\['{name}'\]"):
                safe.cost_of(kind, None, None, info)
    with pytest.raises(ValueError, match=r"^--cost info: .* below 0, -0.5$"):
        safe.cost_of("info", None, None, {"cost": -0.5})


@pytest.mark.parametrize("cost, ends", [("torque", False), ("speed", True), ("info", True)])
def test_what_an_end_means(safe, cost, ends):
    """Whether a transition terminates changes what Q learns, always; what Q_C learns, if costs are summed up,
    and not if they are averaged. Reward is for Q alone, cost for Q_C alone."""
    as_it_is, steps = random_batch(safe, seeds=2), []
    other = {"reward": 9.0 * as_it_is.reward, "cost": 9.0 * as_it_is.cost}
    other |= {"terminated": 1.0 - as_it_is.terminated}
    for change in {}, *({name: value} for name, value in other.items()):
        agent, args = after_training(safe, seeds=2, cost=cost, cost_limit=1.0)
        batch, noise = as_it_is._replace(**change), noise_for(agent, seeds=2)
        safe.update(agent, plain_optimizers(agent), batch, noise, args)
        steps.append((weights(agent.q), weights(agent.q_cost)))
    moved = [[not same(a, b) for a, b in zip(step, steps[0], strict=True)] for step in steps[1:]]
    assert moved == [[True, False], [False, True], [True, ends]]


def test_without_lambda_an_update_is_that_of_the_plain_script(safe):
    """lambda = 0: from equal weights policy, critics, temperature move bit for bit as in SAC or SAC-HPO."""
    changes, states = dict(dtype=torch.float32, seeds=2, autotune=True), []
    for module in safe, PLAIN[safe.__name__]:
        agent, args = make_agent(module, **changes)
        optimizers = module.make_optimizers(agent, args)
        states.append([weights(agent)])
        for step in range(5):
            batch = random_batch(module, seeds=2, seed=100 * step, dtype=torch.float32)
            noise = noise_for(agent, seeds=2, seed=step, dtype=torch.float32)
            module.update(agent, optimizers, batch, noise, args)
        states[-1].append(weights(agent))
    for of_safe, of_plain in zip(*states, strict=True):
        assert same({name: of_safe[name] for name in of_plain}, of_plain)
    assert not same(*states[1]) and not states[0][1]["multiplier.value"].any()


class CostOfFirstAction(torch.nn.Module):
    """Q_C(s, a) = scale a_0 + s_0, and what it was asked: pi_B(s_0), pi_B(s), then one action per step."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.asked = scale, []

    def forward(self, obs, action):
        self.asked.append(action[..., 0].detach())
        return (self.scale * action[..., 0] + obs[..., 0]).unsqueeze(1)

    def at(self, obs):
        return lambda action: self(obs, action)


def safe_agent(scale, first_cost, rows, **changes):
    """An agent, what its Q_C was asked, and what to act on. At the first states Q_C is `first_cost`, give or
    take an action. lambda is 0, and the force does not ask Q_C."""
    agent, _ = make_agent(sac_hpo_safe, env_id="Ant-v4", seeds=2, **changes)
    agent.q_cost_target = q_cost = CostOfFirstAction(scale)
    agent.value_at = lambda obs: lambda action: agent.q_target.at(obs)(action).amin(1)
    obs, first_obs = random(2, rows, 3, seed=4), random(2, rows, 3, seed=5)
    first_obs[..., 0] = first_cost
    return agent, q_cost.asked, (obs, random(agent.draws_to_act, 2, rows, 2, seed=3), first_obs)


@torch.no_grad()
def base_action(agent, obs):
    """pi_B(s) = tanh(mean), its first number."""
    return torch.tanh(by_hand.mean_and_std(agent.policy, obs)[0])[..., 0]


def test_acceptance():
    """Eq. (14), Q_C(s, a) - Q_C(s, pi_B(s)) < slack, with that of Eq. (15), (1 - gamma) (d_0 - Q_C(s_0,
    pi_B(s_0))): the first action that passes is returned, and stays, or the last, if all K_max fail."""
    first_cost = torch.linspace(-60.0, 100.0, 300)  # slack from 0.6 down to -1
    changes = dict(cost_limit=0.5, momentum_std_explore=1.5, step_size=0.3)
    agent, asked, (obs, noise, first_obs) = safe_agent(1.0, first_cost, 300, **changes)
    action, accepted_at = agent.act(obs, noise, first_obs)
    base = base_action(agent, obs)
    slack = 0.01 * (0.5 - (base_action(agent, first_obs) + first_obs[..., 0]))
    trials = torch.stack(asked[2:])
    passes = trials - base < slack
    assert len(trials) == 10
    assert torch.equal(accepted_at, torch.where(passes.any(0), passes.int().argmax(0), 10) + 1)
    taken = trials.gather(0, (accepted_at.clamp(max=10) - 1).unsqueeze(0))[0]
    assert torch.equal(action[..., 0], taken) and torch.equal(taken, trials[-1])
    assert len(set(accepted_at.flatten().tolist())) > 5 and (accepted_at == 11).any()
    assert passes[0][slack < 0.0].any()  # infeasible, yet some actions are so much safer that they pass


@pytest.mark.parametrize("first_cost, accepted_at, trials", [(25.0, 11, 10), (24.9, 1, 1)])
def test_equal_is_not_less(first_cost, accepted_at, trials):
    """Eq. (14) is strict: where no action costs more than pi_B's, none is accepted if the slack is 0. If it
    is more, all are at once, and no further step is done."""
    agent, asked, given = safe_agent(0.0, first_cost, 20, cost_limit=25.0)
    assert (agent.act(*given)[1] == accepted_at).all() and len(asked) == 2 + trials


@pytest.mark.parametrize("steps", [1, 4])
def test_algorithm_3_written_out(steps):
    """Nothing is accepted: fresh momentum is added before each whole leapfrog step, and the last action is
    returned; by noise of 0 too, from (tanh(mean), 0). One step is exploration by sac_hpo_continuous."""
    changes = dict(env_id="Ant-v4", seeds=2, momentum_std_explore=3.0)
    agent, args = after_training(sac_hpo_safe, max_leapfrog_steps=steps, **changes)
    assert agent.draws_to_act == 1 + steps and agent.draws == 2
    obs, noise, epsilon = random(2, 30, 3), random(agent.draws_to_act, 2, 30, 2), args.step_size
    torch.nn.init.constant_(agent.q_cost_target.layer3.bias, 1e6)
    for xi, *momenta in noise, 0.0 * noise:
        a, _ = by_hand.base_policy(agent.policy, obs, xi)
        rho = torch.zeros_like(a)
        for zeta in momenta:
            rho = rho + 3.0 * zeta - 0.5 * epsilon * by_hand.force(agent, obs, a, "proposed")
            a, rho = by_hand.bounce(a + epsilon * rho, rho)
            rho = rho - 0.5 * epsilon * by_hand.force(agent, obs, a, "proposed")
        found, accepted_at = agent.act(obs, torch.stack([xi, *momenta]), obs)
        torch.testing.assert_close(found, a.detach(), rtol=1e-7, atol=1e-7)
        assert (accepted_at == steps + 1).all() and not found.requires_grad
    if steps == 1:
        agent.multiplier.value.zero_()
        plain, _ = after_training(sac_hpo_continuous, leapfrog_steps=1, **changes)
        plain.load_state_dict({name: agent.state_dict()[name] for name in plain.state_dict()})
        assert torch.equal(agent.act(obs, noise, obs)[0], plain.act(obs, noise))


def test_each_state_comes_with_the_first_of_its_own_episode(monkeypatch, tmp_path):
    """In the training of two agents, across checkpoints, and in evaluations of episodes of many lengths."""
    changes = dict(learning_starts=20, checkpoint_frequency=33, eval_episodes=6)
    run, _, _, acts = recorded_run(sac_hpo_safe, monkeypatch, tmp_path, "envs:Marked-v0", 2, **changes)
    for obs, _, first_obs, _ in acts:
        assert torch.equal(obs[..., 0], first_obs[..., 0]) and (first_obs[..., 1] == 0.0).all()
    assert len(acts) == 40 and max(obs[..., 1].max() for obs, *_ in acts) >= 3

    decided, real = [], sac_hpo_safe.decide

    def decide(agent, obs, first_obs, **options):
        decided.append((obs, first_obs, *real(agent, obs, first_obs, **options)))
        return decided[-1][2:]

    monkeypatch.setattr(sac_hpo_safe, "decide", decide)
    path = run / "seed_1" / "agent_60.pt"
    settings = sac_hpo_safe.read(path)["args"]
    sac_hpo_safe.evaluate(path, sac_hpo_safe.Args(**settings | {"cost_limit": -1e9}))
    *played, _ = decided
    assert len(played) > 2
    for t, (obs, first_obs, *_) in enumerate(played):
        playing = t <= first_obs[:, 0] % 5
        assert np.array_equal(obs[playing, 0], first_obs[playing, 0]) and not first_obs[:, 1].any()


def test_costs_of_a_run(safe, monkeypatch, tmp_path):
    """Three steps that cost 0.5, 0 and 1, again and again; gamma 0.9: J_C is 1.31. Episodes that begin after
    step 20 move lambda, when three of them have ended; those that a checkpoint cuts count nowhere."""
    changes = dict(steps=100, learning_starts=20, checkpoint_frequency=5, eval_episodes=4)
    changes |= dict(gamma=0.9, cost="info", cost_limit=1.0, cost_window=7)
    run, _, _, _ = recorded_run(safe, monkeypatch, tmp_path, "envs:OneCost-v0", **changes)
    table = (run / "seed_1" / "eval.csv").read_text().splitlines()
    row = dict(zip(table[0].split(","), map(float, table[-1].split(",")), strict=True))
    expected = {"cost_mean": 1.5, "discounted_cost_mean": 1.31, "j_c_mean": 1.31, "share_over_limit": 1.0}
    expected |= {"training_episodes": 20, "training_episodes_over_limit": 20, "training_cost": 30.0}
    expected |= {"lambda": 5 * 0.1 * 0.31}
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_what_algorithm_3_did_in_an_evaluation(monkeypatch, tmp_path):
    """Four one-step episodes: accepted at steps 1, 1, 5 and never, with costs 0, 0, 3 and 3."""
    changes = dict(env_id="envs:Costly-v0", cost="info", cost_limit=1.0, eval_episodes=4)
    agent, args = make_agent(sac_hpo_safe, 1, 1, dtype=torch.float32, **changes)
    sizes = {"obs_dim": 1, "low": torch.zeros(1), "high": torch.full((1,), 3.0), "step": 5}
    answer = torch.tensor([[[-1.0], [-1.0], [1.0], [1.0]]]), torch.tensor([[1, 1, 5, 11]])
    monkeypatch.setattr(sac_hpo_safe, "load", lambda *_: (agent, sizes))
    monkeypatch.setattr(sac_hpo_safe.Agent, "act", lambda *_: answer)
    row = sac_hpo_safe.evaluate(tmp_path, args)
    expected = {"leapfrog_steps_mean": (1 + 1 + 5 + 10) / 4, "accepted_at_first": 0.5, "never_accepted": 0.25}
    expected |= {"share_over_limit": 0.5, "cost_mean": 1.5, "j_c_mean": 1.5}
    assert {name: row[name] for name in expected} == expected
