"""plot.py: tables and curves against numbers worked out by hand, runs of every layout, what is left out."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.text import Text
from torch.utils.tensorboard import SummaryWriter

import plot


def write(folder, returns, algorithm="sac_baseline", env_id="Hopper-v4", every=10_000, args=(), **columns):
    """A seed's folder, seed_<n>, in a run's folder with a config.json."""
    folder.mkdir(parents=True)
    config = {"algorithm": algorithm, "args": {"env_id": env_id, "seed": 1, **dict(args)}}
    (folder.parent / "config.json").write_text(json.dumps(config))
    columns = {"global_step": every * np.arange(1, len(returns) + 1), "return_mean": returns, **columns}
    pd.DataFrame(columns).to_csv(folder / "eval.csv", index=False)
    return folder


def table(capsys, *words):
    """Cells of the lines of a table without its rule, and what was said on stderr."""
    plot.main(["table", *map(str, words)])
    out, err = capsys.readouterr()
    head, _, *rows = [line.strip("| ").split(" | ") for line in out.splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows], err.splitlines()


def curves(*words, **options):
    """The panels that are seen, and the legend's texts."""
    chosen = plot.Curves(tuple(map(str, words)), **options)
    figure = chosen.draw(chosen.read())
    texts = [figure.legends[0].get_title(), *figure.legends[0].get_texts()]
    return [axis for axis in figure.axes if axis.get_visible()], [text.get_text() for text in texts]


def drawn(axis):
    """x and y of the lines, but for those that only the legend has."""
    return [line.get_xydata().T.tolist() for line in axis.lines if len(line.get_xdata())]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A repository with results of three labels, one of which experiments.csv does not have."""
    rows = "sac_baseline,,,first second,SAC", "sac_hpo_continuous,,,first,HPO"
    (tmp_path / "experiments.csv").write_text("\n".join(["label,script,flags,figures,name", *rows]))
    results = tmp_path / "results"
    places = "Hopper-v4/sac_hpo_continuous Hopper-v4/sac_baseline Ant-v4/sac_baseline Ant-v4/trial"
    for place in places.split():
        write(results / place / "seed_1", [1.0, 2.0], env_id=place.split("/")[0])
    (results / "published").mkdir()
    columns = "source,task,global_step,return_mean,return_std_over_seeds,seeds"
    rows = "Paper x.csv,Hopper-v4,{0},7,2,10\nPaper x.csv,Ant-v3,{0},9,2,10\n"
    (results / "published" / "sac.csv").write_text(columns + "\n" + rows.format(1000) + rows.format(90_000))
    monkeypatch.setattr(plot, "HERE", tmp_path)
    return tmp_path


def test_final_scores_and_not_the_best(tmp_path, capsys):
    for seed, last in enumerate([100.0, 200.0, 600.0], start=1):
        write(tmp_path / "a" / f"seed_{seed}", [5000.0, last], q_bias=[9.0, -30.0 * seed])
        write(tmp_path / "b" / f"seed_{seed}", [0.0, last + 150.0])
    write(tmp_path / "c" / "seed_1", [0.0, 1e4])
    (first, second, one), said = table(capsys, f"A={tmp_path}/a", f"B={tmp_path}/b", f"C={tmp_path}/c")
    assert not said
    assert list(first.values())[:5] == ["Hopper-v4", "A", "3", "20,000", "300 ± 265"]
    assert list(first.values())[5:] == ["100 to 600", "–", "2,650", "–", "-60.0"]
    # Seven of nine pairs are won, and none; the exact test of three against three has 0.40 and 0.10 for that.
    assert list(second.values())[4:-1] == ["450 ± 265", "250 to 750", "0.78, 0.40", "225", "0.00, 0.10"]
    assert list(one.values())[2:] == ["1", "20,000", "10,000", "–", "–", "5,000", "–", "–"]


def test_an_interval_from_five_seeds_on(tmp_path, capsys):
    for seed in range(1, 6):
        write(tmp_path / "a" / f"seed_{seed}", [float(seed)])
        write(tmp_path / "b" / f"seed_{seed}", [5.0 + seed])
    (first, second), _ = table(capsys, f"a={tmp_path}/a", f"b={tmp_path}/b")
    # Of 1 to 5 without one at either end the mean is 3, its bootstrap's 2.5 % quantile (1 + 1 + 2) / 3.
    assert first["IQM [95 % interval], or range"] == "3.0 [1.3, 4.7]"
    assert second["P, p"] == "1.00, 0.01"  # 2 of the 252 ways to divide ten in halves
    (four, five), _ = table(capsys, f"a={tmp_path}/a/seed_[1-4]", f"b={tmp_path}/b")
    assert four["IQM [95 % interval], or range"] == "1.0 to 4.0" and four["n"] == "4"
    assert five["P, p"] == "1.00, 0.02"  # 2 of 126


def test_compared_at_the_last_step_of_all_complete_runs(tmp_path, capsys):
    write(tmp_path / "a" / "seed_1", [1.0] * 9 + [2.0])
    write(tmp_path / "b" / "seed_1", [3.0] * 8 + [4.0])
    write(tmp_path / "c" / "seed_1", [5.0] * 7)
    write(tmp_path / "other task" / "seed_1", [6.0] * 20, env_id="Ant-v4")
    words = f"a={tmp_path}/a", f"b={tmp_path}/b", f"c={tmp_path}/c", f"{tmp_path}/other*"
    (ant, a, b), (line,) = table(capsys, *words)
    assert (ant["step"], a["step"], b["step"]) == ("200,000", "90,000", "90,000")
    score = "return, mean ± std over seeds"
    assert (a[score], b[score]) == ("1.0", "4.0")
    assert "left out" in line and f"{tmp_path}/c/seed_1 ends at step 70000, others at 100000" in line
    rows, said = table(capsys, *words, "--until", 70_000)
    assert [row[score] for row in rows[1:]] == ["1.0", "3.0", "5.0"] and not said
    panels, _ = curves(*words, envs=("Hopper-v4",))
    assert [x[-1] for x, _ in drawn(panels[0])] == [100.0, 90.0]  # curves are not cut to the shortest


def test_mean_of_all_evaluations_is_over_those_that_all_runs_have(tmp_path, capsys):
    """A run that was evaluated less often, and so hardly at its low beginning, is not faster by that."""
    write(tmp_path / "a" / "seed_1", [1.0, 2.0, 3.0, 4.0])
    write(tmp_path / "b" / "seed_1", [2.0, 4.0], every=20_000)
    (a, b), _ = table(capsys, f"a={tmp_path}/a", f"b={tmp_path}/b")
    assert a["mean of all evaluations"] == b["mean of all evaluations"] == "3.0"


def test_safe_runs(tmp_path, capsys):
    costs = {"lambda": [2.0, 0.25], "training_episodes": [4, 40], "training_episodes_over_limit": [4, 10]}
    for limit in 10.0, 25.0:
        for seed, last in (1, 0.5), (2, 17.5):
            facts = costs | {"j_c_mean": [30.0, last], "args": {"cost": "speed", "cost_limit": limit}}
            write(tmp_path / f"{limit:g}" / f"seed_{seed}", [1.0, 2.0], "sac_lagrangian", "Ant-v4", **facts)
    write(tmp_path / "c" / "seed_1", [1.0, 2.0], env_id="Ant-v4")
    rows, said = table(capsys, tmp_path)
    tasks = ["Ant-v4", "Ant-v4, J_C of speed ≤ 10", "Ant-v4, J_C of speed ≤ 25"]
    assert [row["task"] for row in rows] == tasks and not said
    cells = [rows[1][name] for name in ("J_C", "λ", "training episodes over the limit")]
    assert cells == ["9.0", "0.25", "25%"] and rows[0]["J_C"] == "–"
    (costs, _), _ = table(capsys, tmp_path / "10", tmp_path / "25", "--score", "j_c_mean")
    assert costs["cost J_C, mean ± std over seeds"] == "9.0 ± 12.0" and "J_C" not in costs
    assert costs["mean of all evaluations"] == "19.5"  # of (30 + 0.5) / 2 and (30 + 17.5) / 2
    panels, texts = curves(tmp_path)
    labels = [axis.get_ylabel() for axis in panels]
    assert labels == ["return"] * 3 + ["cost J_C"] * 2 and "limit of J_C" in texts
    (band,) = panels[-1].collections
    assert band.get_datalim(panels[-1].transData).y0 == 0.0 and not capsys.readouterr().err  # no cost is less
    limits = [line.get_ydata()[0] for axis in panels for line in axis.lines if line.get_color() == "#555555"]
    assert limits == [10.0, 25.0]


def test_mean_and_band(tmp_path):
    write(tmp_path / "a" / "seed_1", [1.0, 2.0, 9.0])
    write(tmp_path / "a" / "seed_2", [3.0, 8.0])
    write(tmp_path / "b" / "seed_1", [0.0, 0.0, 0.0])
    (axis,), texts = curves(f"a={tmp_path}/a", f"b={tmp_path}/b", until=20_000)
    assert texts == ["band: ± one standard deviation over seeds", "a (n = 2)", "b (n = 1)"]
    assert drawn(axis)[0] == [[10.0, 20.0], [2.0, 5.0]]
    (band,) = axis.collections
    low, high = 2.0 - 2.0**0.5, 5.0 + 18.0**0.5  # standard deviations of 1, 3 and of 2, 8
    x, y = band.get_paths()[0].vertices.T
    assert [y[x == 10.0].min(), y[x == 20.0].max()] == pytest.approx([low, high])
    (axis,), texts = curves(f"a={tmp_path}/a", until=20_000, single_seeds=True)
    assert drawn(axis) == [[[10.0, 20.0], [1.0, 2.0]], [[10.0, 20.0], [3.0, 8.0]]]
    assert texts[0] == "a line is one seed" and not axis.collections
    # Of the seeds of a label, which one ends earlier than others: means are of all its seeds.
    write(tmp_path / "c" / "seed_1", [1.0] * 10)
    write(tmp_path / "c" / "seed_2", [3.0] * 9)
    (axis,), _ = curves(tmp_path / "c")
    assert drawn(axis) == [[list(np.arange(10.0, 91.0, 10.0)), [2.0] * 9]]


def test_smoothing(tmp_path):
    """y <- y + 2 / (window + 1) (x - y), from fifty evaluations on unless a window is asked for."""
    write(tmp_path / "a" / "seed_1", [0.0, 3.0, 0.0] + [1.0] * 46)
    (axis,), texts = curves(tmp_path)
    assert drawn(axis)[0][1][:3] == [0.0, 3.0, 0.0] and "average" not in texts[0]
    (axis,), texts = curves(tmp_path, window=2)
    assert drawn(axis)[0][1][:3] == pytest.approx([0.0, 2.0, 2.0 / 3.0])
    assert "exponential average over 2 evaluations" in texts[0]
    write(tmp_path / "b" / "seed_1", [0.0, 3.0, 0.0] + [1.0] * 47)
    (axis,), texts = curves(tmp_path / "b")
    assert drawn(axis)[0][1][:3] == pytest.approx([0.0, 1.0, 2.0 / 3.0]) and "over 5" in texts[0]


def test_colours_and_line_styles():
    fixed = {"sac_baseline": ("#0072B2", "--"), "sac_hpo_continuous": ("#D55E00", "-")}
    labels = [*fixed, *map(str, range(25))]
    for order in labels, labels[::-1]:
        looks = {label: tuple(look.values()) for label, look in plot.looks_of(order).items()}
        assert len(set(looks.values())) == len(looks) == 27
        assert looks.items() >= fixed.items()
    assert list(plot.looks_of(["before", "after"]).values())[2:] == list(plot.looks_of([]).values())
    with pytest.raises(ValueError, match="28 labels cannot be told apart"):
        plot.looks_of(list(map(str, range(28))))


def test_the_picture_can_be_read(tmp_path):
    """At 900 pixels, or little more; no text is cut off or hides a panel; $ and _ are what they are."""
    for env_id in "Ant-v4", "Hopper-v4", "a task of $one's own$", "Walker2d-v4":
        for label in "_old $a$", "sac_baseline", "a label with quite a long name, as may be":
            write(tmp_path / label / env_id / "seed_1", [1.0, 2.0, 3.0], label, env_id)
    plot.main(["curves", str(tmp_path), "--out", str(tmp_path / "new" / "a.png")])
    assert 900 <= imread(tmp_path / "new" / "a.png").shape[1] <= 1500
    chosen = plot.Curves((str(tmp_path),), columns=("return_mean", "seed"))
    figure = chosen.draw(chosen.read())
    figure.draw_without_rendering()
    assert "_old $a$ (n = 1)" in [text.get_text() for text in figure.legends[0].get_texts()]
    seen = [axis for axis in figure.axes if axis.get_visible()]
    assert len(seen) == 8 and "a task of $one's own$" in [axis.get_title() for axis in seen]
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())
    box = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(axis.get_tightbbox()) for axis in seen)
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1


def test_layouts_and_labels(tmp_path, capsys):
    """A run's folder, one seed's, a folder of many; labels that are given, and those that are not."""
    write(tmp_path / "x" / "lr=0.1" / "seed_3", [1.0], "sac_nf")
    write(tmp_path / "x" / "lr=0.2" / "seed_4", [2.0], "sac_nf")
    alone = write(tmp_path / "y" / "run" / "seed_7", [3.0])
    (alone.parent / "config.json").rename(alone / "config.json")  # as in results/
    (tmp_path / "z").symlink_to(tmp_path / "y")

    def found(*words):
        rows, _ = table(capsys, *words)
        return {row["algorithm"]: row["n"] for row in rows}

    assert found(tmp_path / "x") == {"SAC-NF": "2"}
    assert found(tmp_path / "x", f"{tmp_path}/y/run/seed_*") == {"SAC-NF": "2", "SAC": "1"}
    assert found(f"lr=2={tmp_path}/x/lr=0.2", f"{tmp_path}/x/lr=0.1") == {"lr=2": "1", "SAC-NF": "1"}
    assert found(f"link={tmp_path}/z") == {"link": "1"}
    assert found(f"a|b={tmp_path}/x") == {r"a\|b": "2"}
    for place in "sac_hpo_continuous/seeds_1-2/seed_1", "drift/seed_1/seed_1", "drift/seed_2/seed_2":
        write(tmp_path / "benchmark" / "Hopper-v4" / place, [4.0], "sac_hpo_continuous")
    assert found(tmp_path / "benchmark") == {"SAC-HPO": "1", "drift: momentum without force": "2"}


def test_what_is_left_out_and_cuts_nothing(tmp_path, capsys):
    write(tmp_path / "a" / "seed_1", [1.0, 2.0])
    write(tmp_path / "b" / "seed_1", [1.0, 2.0, 3.0])  # longer, so this counts
    for name, text in {
        "other tool": "step,reward\n1,2\n",
        "empty": "",
        "not begun": "global_step,return_mean\n",
        "not finite": "global_step,return_mean\n10000,nan\n",
        "twice": "global_step,return_mean\n10000,1\n10000,1\n",
    }.items():
        write(tmp_path / name / "seed_9", [1.0])
        (tmp_path / name / "seed_9" / "eval.csv").write_text(text)
    write(tmp_path / "no config" / "seed_8", [1.0])
    (tmp_path / "no config" / "config.json").unlink()
    write(tmp_path / "its config" / "seed_8", [1.0])
    (tmp_path / "its config" / "config.json").write_text('{"learning_rate": 1}')
    (row,), said = table(capsys, tmp_path)
    assert row["n"] == "1" and row["step"] == "30,000" and len(said) == 8
    assert sum(f"plot.py: left out: {tmp_path}" in s and "is no run of these scripts" in s for s in said) == 7
    line = f"plot.py: left out: {tmp_path}/a/seed_1, as {tmp_path}/b/seed_1 has its task, label and seed"
    assert sum(line in s for s in said) == 1


def test_tags_of_tensorboard(tmp_path, capsys):
    """Means from one evaluation to the next; what some runs do not have leaves these out, with a line."""
    for name, sign in ("a/seed_1", 1.0), ("a/seed_2", 2.0), ("b/seed_1", 1.0):
        folder = write(tmp_path / name, [7.0, 8.0])
        with SummaryWriter(str(folder)) as writer:
            for step, value in (9_000, 1.0), (10_000, 3.0), (10_001, 5.0), (20_000, 9.0), (20_001, 99.0):
                writer.add_scalar("values/entropy", sign * value, step)
    write(tmp_path / "b" / "seed_2", [1.0, 2.0])
    words = f"a={tmp_path}/a", f"b={tmp_path}/b"
    (row, other), _ = table(capsys, *words, "--columns", "values/entropy")
    assert row["values/entropy"] == "10.50" and other["values/entropy"] == "–"
    (axis,), _ = curves(*words, columns=("values/entropy",))
    assert axis.get_ylabel() == "entropy, nats" and drawn(axis) == [[[10.0, 20.0], [3.0, 10.5]]]
    assert "left out of values/entropy: b on Hopper-v4" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no run has values/entropie; there are: .*values/entropy"):
        curves(*words, columns=("values/entropie",))


def test_results_are_labelled_by_experiments_csv(home, capsys):
    rows, said = table(capsys)
    order = [("Ant-v4", "SAC"), ("Hopper-v4", "SAC"), ("Hopper-v4", "HPO")]  # of labels: experiments.csv's
    assert [(row["task"], row["algorithm"]) for row in rows] == order and not said
    assert [row["algorithm"] for row in table(capsys, "--figure", "second")[0]] == ["SAC", "SAC"]
    assert len(table(capsys, "--envs", "Ant-v4")[0]) == 1
    assert len(table(capsys, "--labels", "sac_hpo_continuous")[0]) == 1
    panels, texts = curves()
    assert texts[1:] == ["SAC (n = 1)", "HPO (n = 1)", "published SAC: Paper (n = 10)"]
    assert panels[1].lines[0].get_color() == "#0072B2" and panels[1].lines[0].get_linestyle() == "--"
    assert panels[1].lines[-1].get_xydata().tolist() == [[1.0, 7.0]]  # not beyond the runs
    assert "published" not in str(curves(home / "results")[1])  # on runs of one's own


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere/*"], "nowhere/[*]: there is no folder with an eval.csv in it"),
        (["a=nowhere/*"], "nowhere/[*]: there is no folder"),
        (["results", "--figure", "first"], "--figure is for results/"),
        (["--figure", "third"], "--figure must be one of first, second, not third"),
        (["--envs", "Ant-v3"], "--envs: no runs of Ant-v3; there are: Ant-v4, Hopper-v4"),
        (["--labels", "SAC"], "--labels: no runs of SAC; there are: sac_baseline, sac_hpo_continuous"),
        (["--score", "j_c_mean"], "--score: not each evaluation of these runs has j_c_mean"),
        (["--until", "9"], "no evaluation of these labels and tasks up to this step"),
        (["results/trial"], "there is no run of these scripts"),
        (["results", "odd"], "Hopper-v4: there is no step at which all runs were evaluated"),
    ],
)
def test_bad_input_is_named(home, monkeypatch, words, why):
    monkeypatch.chdir(home)
    (home / "results" / "trial").mkdir()
    (home / "results" / "trial" / "eval.csv").touch()
    write(home / "odd" / "seed_5", [1.0], every=17_000)
    with pytest.raises(ValueError, match=why):
        plot.main(["table", *words])


@pytest.mark.parametrize("out", ["a.doc", "/dev/null/a.png"])
def test_one_line_and_status_2(tmp_path, out):
    write(tmp_path / "a" / "seed_1", [1.0])
    command = [sys.executable, plot.__file__, "curves", str(tmp_path), "--out", out]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout, line[:9]) == (2, "", "plot.py: ")


def test_docs_have_what_the_commands_print(home, capsys):
    text = "a\n<!-- command: python plot.py table --labels sac_hpo_continuous -->\n{}<!-- end -->\nb\n"
    pages = [home / "README.md", home / "docs" / "a.md"]
    for page in pages:
        page.parent.mkdir(exist_ok=True)
        page.write_text(text.format("stale\n") * 2)
    plot.main(["docs"])
    plot.main(["table", "--labels", "sac_hpo_continuous"])
    printed = capsys.readouterr().out
    assert "| HPO | 1 |" in printed
    assert [page.read_text() for page in pages] == [text.format(printed) * 2] * 2
    with pytest.raises(ValueError, match="has its <!-- end -->"):
        plot.fill(text.replace("<!-- end -->", "") + text)


def test_committed_docs_are_what_the_commands_print():
    for page in plot.HERE / "README.md", *plot.HERE.glob("docs/*.md"):
        assert plot.fill(page.read_text()) == page.read_text(), f"{page}: python plot.py docs writes it anew"
