"""plot.py: statistics against hand-computed values, runs of every layout, errors, a README not stale."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT

import plot
import sac_hpo_continuous


def write_run(folder, returns, env_id="Hopper-v4", algorithm="sac_baseline", seed=1, every=10_000, **columns):
    """An eval.csv with one row per return, and a config.json."""
    folder.mkdir(parents=True)
    args = {"env_id": env_id, "seed": seed, "cost_limit": 10.0}
    (folder / "config.json").write_text(json.dumps({"algorithm": algorithm, "args": args}))
    names = ["global_step", "return_mean", *columns]
    rows = [[every * (i + 1), value, *(c[i] for c in columns.values())] for i, value in enumerate(returns)]
    lines = [names, *rows] if rows else []
    (folder / "eval.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return folder


def write_seeds(folder, seeds, returns=(1.0, 2.0), **arguments):
    """A run with a folder for each of its seeds, of which config.json has the first."""
    for seed in seeds:
        write_run(folder / f"seed_{seed}", returns, seed=seeds[0], **arguments)
        (folder / f"seed_{seed}" / "config.json").rename(folder / "config.json")
    config = json.loads((folder / "config.json").read_text())
    config["args"]["num_seeds"] = len(seeds)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_layout_is_found(tmp_path):
    """As scripts write a run, alone and where benchmark.sh puts it, and as it is committed; with a folder for
    each seed and without."""
    hopper, ant = tmp_path / "Hopper-v4", {"env_id": "Ant-v4", "algorithm": "sac_nf"}
    write_run(tmp_path / "Ant-v4__sac_nf__2__now", [5, 6], seed=2, **ant)
    write_seeds(tmp_path / "Ant-v4__sac_nf__9__now", [9, 10, 11], **ant)
    write_seeds(tmp_path / "Ant-v4__sac_nf__4__now", [4], **ant)
    write_run(hopper / "drift" / "seed_3" / "Hopper-v4__x", [1, 2], seed=3)
    write_seeds(hopper / "drift" / "seed_4" / "Hopper-v4__x", [4])
    write_seeds(hopper / "drift" / "seed_5" / "Hopper-v4__x", [5, 6])
    write_run(hopper / "drift" / "seed_1", [3, 4], seed=1)
    write_run(hopper / "drift" / "seed_8", [3, 4], seed=7)  # one seed of a run that began with seed 7
    write_seeds(hopper / "mine" / "Hopper-v4__x", [1, 2])
    groups = plot.read_runs(tmp_path)
    assert {key: [run.seed for run in runs] for key, runs in groups.items()} == {
        ("Ant-v4", "sac_nf"): [2, 4, 9, 10, 11],
        ("Hopper-v4", "drift"): [1, 3, 4, 5, 6, 8],
        ("Hopper-v4", "sac_baseline"): [1, 2],
    }
    one = hopper / "drift" / "seed_5" / "Hopper-v4__x" / "seed_6"
    assert list(plot.read_runs(one)) == [("Hopper-v4", "drift")]


def test_the_number_of_seeds_is_no_other_setting(tmp_path, capsys):
    write_seeds(tmp_path / "a", [1, 2])
    write_run(tmp_path / "b", [1, 2], seed=3)
    assert [run.seed for run in plot.read_runs(tmp_path)["Hopper-v4", "sac_baseline"]] == [1, 2, 3]
    assert not capsys.readouterr().err


def test_order_and_choice(tmp_path, capsys):
    """Tasks by name, labels as in the table and then by name."""
    for name in "B-v0 mine", "B-v0 drift", "B-v0 sac_nf", "A-v0 a", "A-v0 drift":
        task, label = name.split()
        write_run(tmp_path / task / label / "seed_1", [1], env_id=task)
    groups = plot.read_runs(tmp_path)
    order = ["A-v0 drift", "A-v0 a", "B-v0 sac_nf", "B-v0 drift", "B-v0 mine"]
    assert [" ".join(key) for key in groups] == order
    for labels, envs, left in ([], [], order), (["drift"], [], order[::3]), ([], ["A-v0"], order[:2]):
        assert list(map(" ".join, plot.pick(groups, labels, envs))) == left
    assert not capsys.readouterr().err


def test_of_two_runs_of_a_seed_the_longer_counts(tmp_path, capsys):
    write_run(tmp_path / "a", [1, 2])
    write_run(tmp_path / "b", [1, 2, 3])
    write_run(tmp_path / "c", [7])
    (runs,) = plot.read_runs(tmp_path).values()
    assert [run.folder.name for run in runs] == ["b"]
    assert "the latter counts" in capsys.readouterr().err


def test_links_and_any_folder_as_root(tmp_path, monkeypatch):
    """A run on another disk is found, and a label is the same from wherever one looks."""
    write_run(tmp_path / "disk" / "seed_1", [1, 2])
    (tmp_path / "runs" / "drift").mkdir(parents=True)
    (tmp_path / "runs" / "drift" / "seed_1").symlink_to(tmp_path / "disk" / "seed_1")
    assert list(plot.read_runs(tmp_path / "runs")) == [("Hopper-v4", "drift")]
    monkeypatch.chdir(tmp_path / "runs" / "drift")
    assert list(plot.read_runs(plot.Path("."))) == [("Hopper-v4", "drift")]


def test_what_does_not_belong_together_is_said(tmp_path, capsys):
    """Seeds of other settings, and scores of other steps."""
    for seed in 1, 2:
        folder = write_run(tmp_path / f"a{seed}", [1, 2], seed=seed)
        config = json.loads((folder / "config.json").read_text())
        config["args"] |= {"alpha": seed, "runs_dir": str(seed)}
        (folder / "config.json").write_text(json.dumps(config))
    write_run(tmp_path / "b", [1, 2, 3], algorithm="sac_nf")
    groups = plot.read_runs(tmp_path)
    assert "sac_baseline: its seeds differ in alpha as well" in capsys.readouterr().err
    plot.table_lines(groups)
    assert "scores of steps [20000, 30000] do not compare; --step 20000" in capsys.readouterr().err
    write_run(tmp_path / "c", [1], algorithm="drift", seed=1, every=60_000)
    write_run(tmp_path / "d", [1, 2, 3], algorithm="drift", seed=2, every=20_000)
    plot.common_steps(plot.read_runs(tmp_path)["Hopper-v4", "drift"])
    assert "1 evaluations are at the same step" in capsys.readouterr().err


def test_unequal_lengths_are_cut_and_said(tmp_path, capsys):
    write_run(tmp_path / "a", [1, 2, 3], seed=1)
    write_run(tmp_path / "b", [5, 6], seed=2)
    (runs,) = plot.read_runs(tmp_path).values()
    steps = plot.common_steps(runs)
    assert steps.tolist() == [10_000, 20_000]
    assert "cut at step 20000" in capsys.readouterr().err
    assert plot.values_at(runs, steps, "return_mean").tolist() == [[1, 2], [5, 6]]


def test_comparisons_are_at_the_same_step(tmp_path):
    """Of each task: what another task lacks cuts nothing."""
    write_run(tmp_path / "a", [1, 2, 3], seed=1)
    write_run(tmp_path / "b", [4, 5, 6, 7], algorithm="sac_nf", seed=1)
    write_run(tmp_path / "c", [8, 9], algorithm="sac_nf", seed=2)
    write_run(tmp_path / "d", [1, 2, 3, 4], env_id="Ant-v4")
    write_run(tmp_path / "e", [1, 2, 3, 4], env_id="Pusher-v4")
    write_run(tmp_path / "f", [5, 6, 7, 8], env_id="Pusher-v4", algorithm="sac_nf", every=15_000)
    cut = plot.cut_to_compare(plot.read_runs(tmp_path))
    returns = {key: [run.table["return_mean"].tolist() for run in runs] for key, runs in cut.items()}
    assert returns == {
        ("Ant-v4", "sac_baseline"): [[1, 2, 3, 4]],
        ("Hopper-v4", "sac_baseline"): [[1, 2]],
        ("Hopper-v4", "sac_nf"): [[4, 5], [8, 9]],
        ("Pusher-v4", "sac_baseline"): [[1, 2, 3]],
        ("Pusher-v4", "sac_nf"): [[5, 6]],
    }


def test_smooth():
    """Window 5 weighs the newest with 1/3; window 1 changes nothing."""
    values = np.array([[3.0, 6.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(plot.smooth(values, 5), [[3.0, 4.0, 8 / 3], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(plot.smooth(values, 1), values)


def test_interquartile_mean_and_interval():
    scores = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])
    assert plot.interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)
    low, high = plot.interval(scores)
    assert low < plot.interquartile_mean(scores) < high
    # The interval holds the truth in nineteen of twenty samples of ten, but of three in three of four, as the
    # README says.
    rng = np.random.default_rng(0)
    for size, lowest, highest in (10, 0.83, 0.99), (3, 0.68, 0.82):
        intervals = [plot.interval(rng.normal(size=size)) for _ in range(200)]
        hits = [low <= 0.0 <= high for low, high in intervals]
        assert lowest < np.mean(hits) < highest


def test_probability_of_improvement():
    ours, theirs = np.array([1.0, 3.0]), np.array([0.0, 2.0, 3.0])
    assert plot.probability_of_improvement(ours, theirs) == pytest.approx((1 + 0 + 0 + 1 + 1 + 0.5) / 6)


def test_table_has_final_scores_and_not_the_best(tmp_path):
    for seed, last in enumerate([100.0, 200.0, 600.0], start=1):
        write_run(tmp_path / f"a{seed}", [5000.0, last], seed=seed)
        write_run(tmp_path / f"b{seed}", [0.0, last + 150.0], algorithm="sac_nf", seed=seed)
    head, rule, sac, flow = plot.table_lines(plot.read_runs(tmp_path))
    assert head.count("|") == rule.count("|") == sac.count("|") == flow.count("|")
    assert sac.startswith("| Hopper-v4 | SAC | 20,000 | 3 | 300 ± 265 | 300 [100, 600] | – |")
    assert flow.startswith("| Hopper-v4 | SAC-NF | 20,000 | 3 | 450 ± 265 |") and flow.endswith("| 0.78 |")
    assert "5,000" in plot.table_lines(plot.read_runs(tmp_path), step=10_000)[2]
    write_run(tmp_path / "c", [0.0, 1e4], algorithm="drift")
    assert plot.table_lines(plot.read_runs(tmp_path))[-1].endswith("| 1 | 10,000 | 10,000 (one seed) | – |")


def test_table_of_safe_runs_and_of_one_seed(tmp_path):
    costs = {"j_c_mean": [30.0, 9.5], "lambda": [2.0, 0.25], "training_cost": [10.0, 1234.0]}
    write_run(tmp_path / "a", [1.0, 2.0], algorithm="sac_lagrangian", **costs)
    row = plot.table_lines(plot.read_runs(tmp_path))[-1]
    assert row == "| Hopper-v4 | SAC-Lagrangian | 20,000 | 1 | 2 | 2 (one seed) | 9.5 (10) | 0.25 | 1,234 |"
    write_run(tmp_path / "b", [1.0, 2.0], seed=1, q_bias=[0.0, -30.0])
    write_run(tmp_path / "c", [1.0, 2.0], seed=2, q_bias=[0.0, -20.0])
    head, _, sac, lagrangian = plot.table_lines(plot.read_runs(tmp_path))
    assert head.endswith("| Q bias |") and sac.endswith("| -25 |") and lagrangian.endswith("| – |")


def test_safe_and_other_runs_together(tmp_path, capsys):
    """All of results/ at once: a table and curves in which what an algorithm does not have is left out."""
    plot.Table(root=ROOT / "results")()
    plot.Curves(root=ROOT / "results", out=tmp_path / "all.png")()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows[:1] + rows[2:]}) == 1
    by_name = {row[1]: row for row in rows if row[0] == "| HalfCheetah-v4"}
    assert by_name["SAC-NF"][6:9] == ["–"] * 3 and by_name["SAC-NF"][9] != "–"
    assert by_name["safe SAC-HPO"][6].endswith("(10)") and by_name["safe SAC-HPO"][9] == "–"


def test_curves_of_a_figure_can_be_told_apart():
    for labels in plot.FIGURES.values():
        assert plot.styles(labels) == {label: plot.LABELS[label][1:] for label in labels}
    many = ["mine", *plot.LABELS, "yours", "theirs"]
    looks = plot.styles(many)
    assert list(looks) == many and len(set(looks.values())) == len(many)
    assert looks["sac_baseline"] == plot.LABELS["sac_baseline"][1:]
    assert plot.styles(["mine", "drift"])["drift"] == plot.LABELS["drift"][1:]


def test_the_dot_is_the_tables_number(tmp_path):
    for seed, last in (1, 10.0), (2, 30.0):
        write_run(tmp_path / f"{seed}", [0.0, last], seed=seed)
    figure = plot.draw_curves(plot.read_runs(tmp_path), window=5)
    curve, dot = figure.axes[0].lines
    assert curve.get_ydata()[-1] == pytest.approx(20.0 / 3.0) and dot.get_ydata()[0] == 20.0
    assert figure.axes[0].get_ylabel() == "return, moving average of 5"
    plt.close(figure)


@pytest.mark.parametrize("kind", ["one seed", "seeds", "costs", "ten tasks"])
def test_curves_are_drawn(tmp_path, kind):
    columns = {"j_c_mean": [1.0, 2.0], "lambda": [0.0, 1.0], "training_cost": [1.0, 2.0]}
    columns = columns if kind == "costs" else {}
    for seed in [1] if kind == "one seed" else [1, 2, 3]:
        for env_id in [f"T{i}-v0" for i in range(10)] if kind == "ten tasks" else ["Hopper-v4"]:
            write_run(tmp_path / f"{env_id}{seed}", [seed, 2.0], env_id=env_id, seed=seed, **columns)
    figure = plot.draw_curves(plot.read_runs(tmp_path), window=1)
    shown = [axis for axis in figure.axes if axis.lines]
    assert len(shown) == {"costs": 3, "ten tasks": 10}.get(kind, 1)
    mean = shown[0].lines[0].get_ydata()
    assert mean.tolist() == ([1.0, 2.0] if kind == "one seed" else [2.0, 2.0])
    assert len(shown[0].collections) == (0 if kind == "one seed" else 1)  # the band of one standard deviation
    plt.close(figure)


def test_policy(tmp_path, capsys):
    """From the files of a real run, snapshot and last agent."""
    args = sac_hpo_continuous.Args(
        env_id="Pendulum-v1",
        seed=3,
        total_timesteps=600,
        learning_starts=200,
        eval_episodes=1,
        snapshot_frequency=300,
        batch_size=64,
        momentum_std_train=0.1,
        momentum_std_explore=0.3,
        bfloat16_force=False,
        cuda=False,
        runs_dir=str(tmp_path),
    )
    run = sac_hpo_continuous.train(args)
    first = run / "seed_3"
    (first / "agent_best.pt").touch()
    for seed in 10, 20:  # by their names, they would come before the first
        shutil.copytree(first, run / f"seed_{seed}")
        (run / f"seed_{seed}" / "agent_600.pt").unlink()
    capsys.readouterr()
    out, printed = tmp_path / "policy.png", {}
    for folder in run, first, run / "seed_10":
        plot.Policy(folder, dims=(0, 0), samples=50, out=out)()
        assert plt.imread(out).shape[1] > (1000 if folder != run / "seed_10" else 400)
        printed[folder] = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert printed[run] == printed[first] == ["step 300", "step 600", str(out)]
    assert printed[run / "seed_10"] == ["step 300", str(out)]

    agent, args, _, _ = plot.read_agent(first / "agent_600.pt")
    assert args.seed == 3
    obs = plot.state_of(first / "agent_600.pt", 10)
    env = sac_hpo_continuous.make_env(args)
    expected, _ = env.reset(seed=3)
    for _ in range(10):
        expected, *_ = env.step(agent.act(expected[None])[0])
    env.close()
    np.testing.assert_allclose(obs, expected)

    panel = plot.sample_policy(first / "agent_600.pt", obs, 500, (0, 0))
    assert panel["base"].shape == panel["evolved"].shape == (500, 2)
    with torch.no_grad():  # each evolved action comes from its own base action
        many = torch.from_numpy(obs).expand(1, 500, -1)
        generator = torch.Generator().manual_seed(3)
        xi, zeta = torch.randn(2, 1, 500, 1, generator=generator)
        u = agent.policy(many, xi)[0]
        drifted = agent.policy.evolve(many, u, args.momentum_std_explore * zeta, "drift")[0]
        actions = {
            "base": u.tanh(),
            "drifted": drifted.tanh(),
            "evolved": agent.policy.act(many, torch.stack([xi, zeta])),
        }
        for name in "base", "evolved":
            np.testing.assert_allclose(panel[name], actions[name][0].expand(-1, 2), rtol=1e-6)
        for name, action in actions.items():
            q = agent.q_target(many, action).amin(1)[0]
            np.testing.assert_allclose(panel["q_of"][name], q, rtol=1e-5)
        middle = agent.q_target(many[:, :1], torch.zeros(1, 1, 1)).amin()  # both axes are the same dimension
        np.testing.assert_allclose(panel["q"][30], middle, rtol=1e-5)
    assert len({panel["q_of"][name].mean() for name in actions}) == 3
    assert panel["q"].shape == (61, 61) and panel["q"].std() > 0.0


@pytest.mark.parametrize("kind", ["old", "other", "later"])
def test_an_agent_that_does_not_fit(tmp_path, kind, capsys):
    """Of a version before or after this one, or of another script."""
    args = asdict(sac_hpo_continuous.Args(env_id="Pendulum-v1"))
    state = {"algorithm": "sac_hpo_continuous", "args": args, "global_step": 10, "agent": {}}
    if kind == "other":
        state["algorithm"] = "sac_nf"
    elif kind == "later":
        state["args"] = args | {"unknown": 1}
    torch.save(state, tmp_path / "agent_10.pt")
    with pytest.raises(SystemExit):
        plot.Policy(tmp_path)()
    message = "is an agent of sac_nf.py" if kind == "other" else "does not fit this version"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["curves", "--root", "EMPTY"], "no runs under"),
        (["curves", "--root", "UNEVALUATED"], "but 1 that have not been evaluated yet"),
        (["curves", "--root", "BROKEN"], "without a config.json"),
        (["curves", "--root", "INSIDE"], "INSIDE/a/copy has an eval.csv without a config.json"),
        (["curves", "--root", "ONE", "--figure", "fig2"], "--figure must be one of continuous"),
        (["curves", "--root", "ONE", "--window", "0"], "--window must be 1 or more"),
        (["table", "--root", "ONE", "--envs", "Ant-v4"], "there are: Hopper-v4 sac_baseline"),
        (["table", "--root", "ONE", "--step", "5"], "the first evaluation is at step 10000, after step 5"),
        (["curves", "--root", "ONE", "--until", "5"], "the first evaluation is at step 10000, after step 5"),
        (["curves", "--root", "ONE", "--out", "a.xyz"], "--out must end in .png, .pdf or .svg, not be a.xyz"),
        (["curves", "--root", "ONE", "--out", "ONE/a/eval.csv/a.png"], "cannot be written"),
        (["curves", "--root", "ONE", "--figure", "safe", "--labels", "drift"], "either --figure or --labels"),
        (["table", "--root", "HALF"], "eval.csv is damaged"),
        (["table", "--root", "NAN"], "return_mean is not a finite number in every row"),
        (["table", "--root", "BACK"], "global_step does not rise"),
        (["table", "--root", "COSTS"], "eval.csv is damaged: no field of name j_c_mean"),
        (["table", "--root", "BYTES"], "eval.csv is damaged"),
        (["table", "--root", "LIST"], "without a config.json that can be read"),
        (["readme", "--root", "APART", "--readme", "APART/a/eval.csv"], "never evaluated at the same step"),
        (["readme", "--root", "ONE", "--readme", "nowhere.md"], "--readme must be a file, not nowhere.md"),
        (["readme", "--root", "FIG2", "--readme", "FIG2/a/eval.csv"], "has no place for continuous"),
        (["policy", "ONE"], "no agent_<step>.pt"),
        (["policy", "ONE", "--samples", "1"], "--samples must be 2 or more"),
        (["policy", "ONE", "--out", "a.xyz"], "--out must end in"),
        (["policy", "AGENT"], "no agent file"),
        (["policy", "SEEDS"], "SEEDS/seed_2 has no agent_<step>.pt"),
    ],
)
def test_one_clear_line_for_bad_input(tmp_path, arguments, message):
    (tmp_path / "EMPTY").mkdir()
    write_run(tmp_path / "UNEVALUATED" / "a", [])
    (write_run(tmp_path / "BROKEN" / "a", [1.0]) / "config.json").unlink()
    write_run(tmp_path / "ONE" / "a", [1.0])
    inside = write_run(tmp_path / "INSIDE" / "a" / "copy", [1.0])  # of a run, but of none of its seeds
    (inside / "config.json").rename(inside.parent / "config.json")
    half = write_run(tmp_path / "HALF" / "a", [1.0, 2.0, 3.0]) / "eval.csv"
    half.write_text(half.read_text() + "400")
    write_run(tmp_path / "NAN" / "a", [1.0, "3x7", 3.0])
    back = write_run(tmp_path / "BACK" / "a", [1.0, 2.0]) / "eval.csv"
    back.write_text(back.read_text() + "20000,9\n")
    write_run(tmp_path / "COSTS" / "a", [1.0], algorithm="sac_lagrangian")
    bytes_ = write_run(tmp_path / "BYTES" / "a", [1.0]) / "eval.csv"
    bytes_.write_bytes(bytes_.read_bytes() + b"\xff")
    (write_run(tmp_path / "LIST" / "a", [1.0]) / "config.json").write_text("[]")
    write_run(tmp_path / "FIG2" / "a", [1.0])
    write_run(tmp_path / "APART" / "a", [1.0])
    write_run(tmp_path / "APART" / "b", [1.0], algorithm="sac_nf", every=15_000)
    for seed in 2, 10:
        (tmp_path / "SEEDS" / f"seed_{seed}").mkdir(parents=True)
    (tmp_path / "AGENT").mkdir()
    (tmp_path / "AGENT" / "agent_best.pt").touch()
    (tmp_path / "AGENT" / "agent_10.pt").write_bytes(b"not a file of torch.save")
    command = [sys.executable, str(ROOT / "plot.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("plot.py: ") and ended.stderr.count("\n") == 1
    assert message in ended.stderr


def test_speed_table(tmp_path):
    names = "task system threads rounds steps_per_second lowest highest times_sb3 gibibytes".split()
    names += ["seconds_to_first_update", "share_of_limit", "matrix_gflop_per_second", "machine"]
    rows = [
        "A-v0,sac_nf,1,5,90.5,80.0,99.0,1.5,0.6,4.2,0.5,87.0,two cores",
        "A-v0,SB3 SAC,2,5,60,50,70,1.0,,,,87.0,two cores",
    ]
    (tmp_path / "speed.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    head, rule, ours, theirs, _, about = plot.speed_lines(tmp_path / "speed.csv")
    assert ours == "| A-v0 | SAC-NF | 1 | 90.5 (80.0 to 99.0) | 1.5 | 0.5 | 0.6 | 4.2 |"
    assert theirs == "| A-v0 | SB3 SAC | 2 | 60 (50 to 70) | 1.0 | – | – | – |"
    assert head.count("|") == rule.count("|") == ours.count("|") and about.startswith(
        "5 rounds on 1 thread(s), 5 rounds on 2 thread(s); two cores; 87.0 GFLOP"
    )


def test_gpu_speed_table(tmp_path):
    names = "task,system,seeds,steps_per_second,agent_steps_per_second,gpu,machine"
    rows = ["A-v0,sac_nf,1,900.4,900,X1,16 cores", "A-v0,sac_nf,20,500.0,10000,X1,16 cores"]
    rows += ["A-v0,sac_baseline,20,600.0,12000,X1,16 cores"]
    (tmp_path / "speed_cuda.csv").write_text("\n".join([names, *rows]) + "\n")
    assert plot.gpu_speed_lines(tmp_path / "speed_cuda.csv") == [
        "| task | system | S = 1 | S = 20 |",
        "| --- | --- | --- | --- |",
        "| A-v0 | SAC-NF | 900 | 10,000 |",
        "| A-v0 | SAC | – | 12,000 |",
        "",
        "X1; 16 cores.",
    ]


def test_fill_leaves_the_rest_alone():
    text = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n<!-- generated: y -->\n<!-- end -->\n"
    filled = plot.fill(text, {"x": "new\ntable"})
    x = "<!-- generated: x -->\nnew\ntable\n<!-- end -->\n"
    y = "<!-- generated: y -->\n(no runs yet)\n<!-- end -->\n"
    assert filled == f"a\n{x}b\n{y}"
    assert plot.fill(filled, {"x": "new\ntable"}) == filled


def test_readme_and_pictures_are_not_stale(tmp_path):
    """What is committed is what the committed runs give."""
    parts, figures = plot.generate(ROOT / "results", "results")
    readme = (ROOT / "README.md").read_text()
    assert plot.fill(readme, parts) == readme, "run: python plot.py readme"
    for name in parts:
        assert f"<!-- generated: {name} -->" in readme
    for name, figure in figures.items():
        plot.save(figure, tmp_path / name)
        committed, drawn = plt.imread(ROOT / "results" / name), plt.imread(tmp_path / name)
        assert committed.shape == drawn.shape, "run: python plot.py readme"
        # One evaluation moved by half changes some 3,000 pixels.
        changed = np.abs(committed - drawn).max(-1) > 0.1
        assert changed.sum() < 200, "run: python plot.py readme"


def test_results_hold_runs_and_pictures_only():
    """Of each seed its eval.csv as the script wrote it and the run's config.json, in a folder named by task,
    label and seed."""
    default = asdict(sac_hpo_continuous.Args())
    for path in (ROOT / "results").rglob("*"):
        if path.is_dir() or path.suffix == ".png" or path.name in ("speed.csv", "speed_cuda.csv"):
            continue
        assert path.name in ("eval.csv", "config.json"), path
        args = json.loads((path.parent / "config.json").read_text())["args"]
        task, label, seed = path.parent.relative_to(ROOT / "results").parts
        seeds = range(args["seed"], args["seed"] + args.get("num_seeds", 1))
        assert args["env_id"] == task and seed in [f"seed_{n}" for n in seeds]
        assert label in plot.LABELS
        assert all(args[name] == default[name] for name in ("gamma", "batch_size"))
