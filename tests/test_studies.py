"""studies.py: the toy problem against closed forms, what is measured of agents against the script itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from scipy import stats

import sac_hpo_continuous as script
import studies


def test_the_target_in_closed_form():
    """exp(15 a) on (-1, 1), Q = 3 a with HalfCheetah's temperature."""
    shares, log_z = studies.target_of(lambda a: 3.0 * a, alpha=0.2)
    assert log_z == pytest.approx(np.log(2.0 * np.sinh(15.0) / 15.0), rel=1e-9)
    np.testing.assert_allclose(
        shares, np.diff(np.exp(15.0 * studies.EDGES)) / (2.0 * np.sinh(15.0)), rtol=1e-6
    )
    assert [studies.two_modes(torch.tensor(a)).item() for a in (-0.5, 0.0, 0.5)] == [0.0, -0.5, 0.0]


@pytest.mark.parametrize("operator", studies.LOOKS)
@pytest.mark.parametrize("q_of", [studies.two_modes, torch.neg], ids=["peaks", "slope"])
def test_j_is_a_lower_bound(operator, q_of):
    """In updates and exploring, log Z - J is at least the action's divergence; without rho it is that."""
    agent = studies.train_toy(q_of, operator, "HalfCheetah", seeds=2, updates=60)
    target, log_z = studies.target_of(q_of, agent.args.alpha)
    for std in agent.args.momentum_std_train, agent.args.momentum_std_explore:
        shares, j = studies.measure_toy(agent, operator, std, 50_000)
        kl = stats.entropy(shares, target, axis=1)
        assert shares.sum(1) == pytest.approx(1.0)
        assert (log_z - j > kl - 0.02).all()
        if operator == "gaussian":
            assert log_z - j == pytest.approx(kl, abs=0.02)


@pytest.mark.parametrize("operator", ["proposed", "drift"])
def test_training_on_the_toy(operator):
    """The script's update raises J and moves no critic; its loss is -alpha J and a constant."""
    agents = [studies.train_toy(studies.two_modes, operator, "Hopper", 2, updates) for updates in (0, 100)]
    before, after = (studies.measure_toy(agent, operator, 0.1, 9_000)[1] for agent in agents)
    assert (after > before).all() and agents[1].q.nothing == 0.0
    noise = torch.randn(2, 2, 9_000, 1, generator=torch.Generator().manual_seed(0))
    ones, optimizers = torch.ones(2, 9_000), script.make_optimizers(agents[0], agents[0].args)
    batch = script.Batch(*(ones.unsqueeze(-1) if width else ones for width in (1, 1, 0, 1, 0)))
    logs = script.update(agents[0], optimizers, batch, noise.repeat(2, 1, 1, 1), agents[0].args)
    j = 0.5 * noise[1].square().mean((1, 2)) - logs["losses/policy"] / 0.2
    np.testing.assert_allclose(before, j, rtol=1e-4)


def test_gap(tmp_path, capsys):
    words = ["--rows", "Hopper", "--seeds", "3", "--updates", "2", "--samples", "1000"]
    studies.main(["gap", *words, "--out", str(tmp_path / "new" / "gap.png")])
    table = pd.read_csv(tmp_path / "new" / "gap.csv")
    assert table["KL, median"].between(table["lowest"], table["highest"]).all() and len(table) == 8
    assert (table["J"] < table["log Z"]).all() and imread(tmp_path / "new" / "gap.png").std() > 0.0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 + 8


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    """Of two seeds at two steps, on a task with two dimensions of the action."""
    args = script.Args("Reacher-v5", num_seeds=2, total_timesteps=60, learning_starts=20, batch_size=16)
    args.eval_episodes, args.eval_frequency, args.checkpoint_frequency, args.cuda = 1, 30, 30, False
    args.run_dir = str(tmp_path_factory.mktemp("runs") / "run")
    return sorted(script.train(args).glob("seed_*/agent_*.pt"))


def test_policy(agents, tmp_path, capsys):
    out = tmp_path / "policy.png"
    studies.main(["policy", *map(str, agents), "--states", "3", "--samples", "50", "--out", str(out)])
    table = pd.read_csv(out.with_suffix(".csv"))
    assert table[["step", "seed"]].values.tolist() == [[30, 1], [60, 1], [30, 2], [60, 2]]
    *_, first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("| Reacher-v5 | 30 | 2 | ") and imread(out).shape[1] > 900
    assert last.split(" | ")[4] == f"{table['change by leapfrog'][[1, 3]].mean():.2f}"

    # The same from the script's functions: what acts, on the same noise, and the smaller target Q.
    agent, _ = script.load(agents[-1])
    seen = studies.episode_of(agents[-1], agent.args)
    obs = torch.from_numpy(seen[[0, 25, 50]]).repeat_interleave(50, dim=0)[None]
    noise = torch.randn(2, 1, 150, 2, generator=torch.Generator().manual_seed(2))
    action, base = agent.act(obs, noise), agent.policy(obs, noise[0])[0]
    with torch.no_grad():
        change = agent.q_target(obs, action).amin(1) - agent.q_target(obs, base).amin(1)
    row = table.iloc[-1]
    assert row["change by leapfrog"] == pytest.approx(change.mean().item(), abs=1e-4)
    assert row["share with higher Q"] == pytest.approx((change > 0).float().mean().item(), abs=1e-4)
    assert row["spread, leapfrog"] == pytest.approx(action.view(3, 50, 2).std(1).mean().item(), abs=1e-4)
    x, y, q = studies.q_over(agent, seen[:1], (1, 0))
    corner = torch.tensor([[[y[5, 7], x[5, 7]]]])  # dimension 1 is to the right
    assert q[5, 7] == pytest.approx(agent.q_target(obs[:, :1], corner).amin().item(), rel=1e-5)


@pytest.mark.parametrize("words", [[], ["AGENT", "--dims", "0", "2"], ["nowhere.pt"]])
def test_bad_input_is_named(agents, tmp_path, words):
    words = [str(agents[0]) if word == "AGENT" else word for word in words]
    with pytest.raises((ValueError, OSError), match=r"needs agent_<step>.pt|--dims must be two|nowhere.pt"):
        studies.main(["policy", *words, "--out", str(tmp_path / "a.png")])
