"""plot.py: statistics against hand-computed values, runs of every layout, errors, parts not stale."""

import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
import tyro
from conftest import ROOT, command
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

import plot
import sac_hpo_continuous


def write_run(folder, returns, env_id="Hopper-v4", algorithm=None, seed=1, every=10_000, **columns):
    """An eval.csv with one row per return, and a config.json. Settings are given as `args`; the columns of a
    safe run bring its limit. Without an algorithm it is that of the label that a folder has, or SAC."""
    folder.mkdir(parents=True)
    scripts = plot.EXPERIMENTS["script"]
    algorithm = algorithm or [*(scripts[name] for name in folder.parts if name in scripts), "sac_baseline"][0]
    args = {"env_id": env_id, "seed": seed, **columns.pop("args", {})}
    if "j_c_mean" in columns:
        args["cost_limit"] = 10.0
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
    return folder


def costs(n=2):
    columns = {"j_c_mean": [30.0, 9.5] * n, "lambda": [2.0, 0.25] * n, "training_cost": [10.0, 1234.0] * n}
    return columns | {"training_episodes": [3, 9] * n, "training_episodes_over_limit": [1, 2] * n}


def read_table(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def labels_in(root, *envs):
    return [label for _, label in plot.read_runs(root, envs)]


def rows_of(groups):
    return [line.strip("| ").split(" | ") for line in plot.table_of(plot.align(groups)).splitlines()]


def curves(root, window=5, **options):
    return plot.draw_curves(plot.align(plot.read_runs(root), **options), window)


def shown(figure):
    """Panels that are drawn, and the texts of their legends."""
    axes = [axis for axis in figure.axes if axis.get_visible()]
    return axes, [t.get_text() for a in axes if a.get_legend() for t in a.get_legend().get_texts()]


# ------------------------------------------------------------------------------------------------------- runs


def test_every_layout_is_found(tmp_path):
    """As scripts write a run, alone and where benchmark.sh puts it, and as it is committed; with a folder for
    each seed and without."""
    hopper, ant = tmp_path / "Hopper-v4", {"env_id": "Ant-v4", "algorithm": "sac_nf"}
    write_run(tmp_path / "Ant-v4__sac_nf__2__now", [5, 6], seed=2, **ant)
    write_seeds(tmp_path / "Ant-v4__sac_nf__9__now", [9, 10, 11], **ant)
    write_run(hopper / "drift" / "seed_3" / "Hopper-v4__x", [1, 2], seed=3)
    write_seeds(hopper / "drift" / "seed_5" / "Hopper-v4__x", [5, 6])
    write_seeds(hopper / "drift" / "seeds_10-11" / "Hopper-v4__x", [10, 11])
    write_run(hopper / "drift" / "seed_1", [3, 4], seed=1)
    write_run(hopper / "drift" / "seed_8", [3, 4], seed=7)  # one seed of a run that began with seed 7
    write_seeds(hopper / "mine" / "Hopper-v4__y", [1, 2])
    write_run(hopper / "Hopper-v4__z", [1, 2], seed=3)  # a run of one's own, right below the task
    # The label is below another task.
    write_run(tmp_path / "Ant-v4" / "drift" / "x", [1, 2], seed=3, algorithm="sac_baseline")
    groups = plot.read_runs(tmp_path)
    assert {key: [run.seed for run in runs] for key, runs in groups.items()} == {
        ("Ant-v4", "sac_nf"): [2, 9, 10, 11],
        ("Hopper-v4", "sac_baseline"): [3],
        ("Hopper-v4", "drift"): [1, 3, 5, 6, 8, 10, 11],
        ("Hopper-v4", "mine"): [1, 2],
    }
    one = hopper / "drift" / "seed_5" / "Hopper-v4__x" / "seed_6"
    assert list(plot.read_runs(one)) == [("Hopper-v4", "drift")]


def test_own_runs_are_told_apart_by_what_differs(tmp_path, capsys):
    args = {"tau": 0.005, "step_size": 0.2, "coordinates": "pre-tanh", "runs_dir": "a", "num_seeds": 2}
    own = {"algorithm": "sac_hpo_continuous"}
    write_seeds(tmp_path / "a", [1, 2], args=args, **own)
    write_seeds(tmp_path / "b", [3], args=args | {"runs_dir": "b", "num_seeds": 1}, **own)
    assert labels_in(tmp_path) == ["sac_hpo_continuous"]  # where a run is and how long is no other setting
    write_seeds(tmp_path / "c", [1], args=args | {"step_size": 0.3}, **own)
    write_seeds(tmp_path / "d", [1], args=args | {"tau": 0.1, "step_size": 0.3}, **own)
    write_seeds(tmp_path / "e", [1], env_id="Ant-v4", args=args | {"step_size": 0.1}, **own)
    names = [", step_size=0.2, tau=0.005", ", step_size=0.3, tau=0.005", ", step_size=0.3, tau=0.1"]
    assert labels_in(tmp_path) == ["sac_hpo_continuous" + name for name in ["", *names]]  # Ant comes first
    assert not capsys.readouterr().err
    # In benchmark.sh's folder the label stays; it is said that seeds differ.
    placed = tmp_path / "Hopper-v4" / "sac_hpo_continuous"
    write_seeds(placed / "x" / "y", [7], args=args | {"alpha": 0.1}, **own)
    write_seeds(placed / "x" / "z", [8], args=args | {"alpha": 0.2}, **own)
    assert labels_in(tmp_path, "Hopper-v4")[0] == "sac_hpo_continuous"
    capsys.readouterr()
    (runs,) = plot.Selection(root=tmp_path, labels=("sac_hpo_continuous",), envs=("Ant-v4",)).runs().values()
    assert len(runs) == 1
    assert not capsys.readouterr().err  # of what is not shown nothing is said
    assert len(plot.Selection(root=tmp_path, labels=("sac_hpo_continuous",)).runs()) == 5
    assert "its runs differ in alpha as well" in capsys.readouterr().err


def test_a_label_says_no_flag_that_the_run_had_not(tmp_path):
    """experiments.csv has sac_hpo_continuous in one of two coordinates."""
    (flags,) = [plot.EXPERIMENTS.loc["sac_hpo_continuous", "flags"]]
    wanted = flags.split()[-1]
    (other,) = {"action", "pre-tanh"} - {wanted}
    for name, args in ("a", {"coordinates": wanted}), ("b", {}), ("c", {"coordinates": other}):
        write_run(tmp_path / name, [1], algorithm="sac_hpo_continuous", args=args)
        if name != "c":
            assert labels_in(tmp_path / name) == ["sac_hpo_continuous"]
    assert labels_in(tmp_path / "c") == [f"sac_hpo_continuous, coordinates={other}"]


def test_order_and_choice(tmp_path, capsys):
    """Tasks by name, labels as in experiments.csv and then by name."""
    for name in "B-v0 mine", "B-v0 drift", "B-v0 sac_nf", "A-v0 a", "A-v0 drift":
        task, label = name.split()
        write_run(tmp_path / task / label / "seed_1", [1], env_id=task)
    order = ["A-v0 drift", "A-v0 a", "B-v0 sac_nf", "B-v0 drift", "B-v0 mine"]
    by_name = "drift: momentum without force"
    for labels, envs, left in (
        ((), (), order),
        (("drift",), (), order[::3]),
        ((by_name,), (), order[::3]),
        ((), ("A-v0",), order[:2]),
    ):
        chosen = plot.Selection(root=tmp_path, labels=labels, envs=envs).runs()
        assert list(map(" ".join, chosen)) == left
    assert not capsys.readouterr().err
    assert list(plot.Selection(root=tmp_path, figure="ablation").runs()) == [
        ("A-v0", "drift"),
        ("B-v0", "drift"),
    ]
    assert "no runs yet of sac_baseline, sac_hpo_continuous, baseline-1, " in capsys.readouterr().err


def test_of_two_runs_of_a_seed_the_longer_counts(tmp_path, capsys):
    for name, returns in ("a", [1, 2]), ("b", [1, 2, 3]), ("c", [7]):
        write_run(tmp_path / name, returns)
    (runs,) = plot.read_runs(tmp_path).values()
    assert [run.folder.name for run in runs] == ["b"]
    assert "a is left out: " in capsys.readouterr().err


def test_links_and_any_folder_as_root(tmp_path, monkeypatch):
    """A run on another disk is found, and a label is the same from wherever one looks."""
    write_run(tmp_path / "disk" / "seed_1", [1, 2], algorithm="sac_hpo_continuous")
    there = tmp_path / "runs" / "Hopper-v4" / "drift"
    there.mkdir(parents=True)
    (there / "seed_1").symlink_to(tmp_path / "disk" / "seed_1")
    assert labels_in(tmp_path / "runs") == ["drift"]
    monkeypatch.chdir(there)
    assert labels_in(plot.Path(".")) == ["drift"]


def test_a_label_is_that_of_its_flags_only(tmp_path, capsys):
    """A run in the folder of a label that has other flags, or another script, is shown as a run of one's own.
    Flags that a script did not have when it ran say nothing."""
    hopper, own = tmp_path / "Hopper-v4", {"algorithm": "sac_hpo_continuous"}
    both = {"explore": "drift", "train": "drift"}
    write_run(hopper / "drift" / "seed_1", [1.0], args=both, **own)
    write_run(hopper / "drift" / "seed_2", [1.0], seed=2, args={"train": "drift"}, **own)
    assert labels_in(tmp_path) == ["drift"] and not capsys.readouterr().err
    write_run(hopper / "drift" / "seed_3", [1.0], seed=3, args=both | {"explore": "proposed"}, **own)
    write_run(hopper / "float32" / "seed_1", [1.0], args={"bfloat16_force": True}, **own)
    write_run(hopper / "autotune" / "seed_4", [1.0], seed=4, args={"autotune": True}, **own)
    write_run(hopper / "no-momentum" / "seed_1", [1.0], algorithm="sac_nf")
    write_run(hopper / "leapfrog-steps-2" / "seed_1", [1.0], args={"leapfrog_steps": 2}, **own)
    groups = plot.read_runs(tmp_path)
    assert {label.split(",")[0] for _, label in groups} == {
        *("sac_nf", "sac_hpo_continuous", "drift", "autotune", "leapfrog-steps-2")
    }
    assert [run.seed for run in groups["Hopper-v4", "drift"]] == [1, 2]
    assert [line.split(" is not ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "of the label drift: explore=proposed",
        "of the label float32: bfloat16_force=True",
        "of the label no-momentum: algorithm=sac_nf",
    ]


def test_every_label_fits_what_its_flags_make():
    for label, script, flags in plot.EXPERIMENTS[["script", "flags"]].itertuples():
        module = importlib.import_module(script)
        args = asdict(tyro.cli(module.Args, args=flags.split()))
        assert plot.unlike(label, script, args) == "", label
        for name, value in plot.flags_of(label):
            changed = not args[name] if isinstance(args[name], bool) else "other"
            assert plot.unlike(label, script, args | {name: changed}) == f"{name}={changed}", value


def test_a_task_without_a_version_has_its_folder(tmp_path):
    """benchmark.sh makes the folder by the name it is given, and config.json has the one of Gymnasium."""
    write_run(tmp_path / "HalfCheetah" / "drift" / "seed_1", [1.0], env_id="HalfCheetah-v5")
    assert labels_in(tmp_path) == ["drift"]


def test_damaged_runs_are_named_and_the_others_shown(tmp_path, capsys):
    write_run(tmp_path / "good", [1.0, 2.0])
    half = write_run(tmp_path / "half", [1.0, 2.0]) / "eval.csv"
    half.write_text(half.read_text() + "400")
    write_run(tmp_path / "nan", [1.0, "nan"])
    write_run(tmp_path / "text", [1.0, "3x7"])
    back = write_run(tmp_path / "back", [1.0, 2.0]) / "eval.csv"
    back.write_text(back.read_text() + "20000,9\n")
    write_run(tmp_path / "costs", [1.0], args={"cost_limit": 1.0}, algorithm="sac_lagrangian")
    bytes_ = write_run(tmp_path / "bytes", [1.0]) / "eval.csv"
    bytes_.write_bytes(bytes_.read_bytes() + b"\xff")
    for name, text in ("list", "[]"), ("no_args", '{"args": 3}'), ("no_json", "{"):
        (write_run(tmp_path / name, [1.0]) / "config.json").write_text(text)
    (write_run(tmp_path / "alone", [1.0]) / "config.json").unlink()
    inside = write_run(tmp_path / "inside" / "copy", [1.0])  # of a run, but of none of its seeds
    (inside / "config.json").rename(inside.parent / "config.json")
    write_run(tmp_path / "unevaluated", [])
    plot.main(["table", "--root", str(tmp_path)])
    printed = capsys.readouterr()
    assert "| Hopper-v4 | SAC | 20,000 | 1 |" in printed.out
    left_out = re.findall(rf"left out: {tmp_path}/([^ ]*)/eval.csv ", printed.err)
    bad = "alone back bytes costs half inside/copy list nan no_args no_json text"
    assert left_out == bad.split() and len(printed.err.splitlines()) == len(left_out)
    shutil.rmtree(tmp_path / "good")
    with pytest.raises(SystemExit) as stopped:
        plot.read_runs(tmp_path)
    assert stopped.value.code == 2 and "no evaluated runs under" in capsys.readouterr().err


def test_other_tasks_are_not_even_read(tmp_path, capsys):
    write_run(tmp_path / "a", ["nan"])
    write_run(tmp_path / "b", [1.0], env_id="Ant-v4")
    assert list(plot.read_runs(tmp_path, ("Ant-v4",))) == [("Ant-v4", "sac_baseline")]
    assert not capsys.readouterr().err


def test_unequal_lengths_are_cut_and_said(tmp_path, capsys):
    write_run(tmp_path / "a", [1, 2, 3], seed=1)
    write_run(tmp_path / "b", [5, 6], seed=2)
    write_run(tmp_path / "c", [1, 2, 3], algorithm="sac_nf")
    write_run(tmp_path / "d", [1], algorithm="drift", seed=1, every=70_000)
    write_run(tmp_path / "e", [1, 2, 3], algorithm="drift", seed=2, every=20_000)
    aligned = plot.align(plot.read_runs(tmp_path))
    runs = aligned["Hopper-v4", "sac_baseline"]
    assert plot.per_seed(runs, "return_mean").to_dict() == {
        1: {10_000: 1, 20_000: 2},
        2: {10_000: 5, 20_000: 6},
    }
    printed = capsys.readouterr().err
    assert "sac_baseline: cut to the 2 evaluations, up to step 20000" in printed
    assert "left out: Hopper-v4, drift: no step in common" in printed and len(aligned) == 2
    plot.table_of(aligned)
    assert "scores of steps [20000, 30000] do not compare; --until 20000" in capsys.readouterr().err
    assert len(plot.align(plot.read_runs(tmp_path), 10_000)["Hopper-v4", "sac_nf"][0].table) == 1


def test_comparisons_are_at_the_same_step(tmp_path):
    """Of each task: what another task lacks cuts nothing."""
    write_run(tmp_path / "a", [1, 2, 3], seed=1)
    write_run(tmp_path / "b", [4, 5, 6, 7], algorithm="sac_nf", seed=1)
    write_run(tmp_path / "c", [8, 9], algorithm="sac_nf", seed=2)
    write_run(tmp_path / "d", [1, 2, 3, 4], env_id="Ant-v4")
    write_run(tmp_path / "e", [1, 2, 3, 4], env_id="Pusher-v4")
    write_run(tmp_path / "f", [5, 6, 7, 8], env_id="Pusher-v4", algorithm="sac_nf", every=15_000)
    cut = plot.align(plot.read_runs(tmp_path), together=True)
    assert {key: [run.table["return_mean"].tolist() for run in runs] for key, runs in cut.items()} == {
        ("Ant-v4", "sac_baseline"): [[1, 2, 3, 4]],
        ("Hopper-v4", "sac_baseline"): [[1, 2]],
        ("Hopper-v4", "sac_nf"): [[4, 5], [8, 9]],
        ("Pusher-v4", "sac_baseline"): [[1, 2, 3]],
        ("Pusher-v4", "sac_nf"): [[5, 6]],
    }


# ----------------------------------------------------------------------------------------------------- curves


def test_fifty_evaluations_are_smoothed(tmp_path):
    """By 2 / (5 + 1) for the newest; a dot, explained, is the table's number. Of 49 nothing is smoothed."""
    for seed in 1, 2:
        write_run(tmp_path / f"{seed}", [0.0] * 48 + [3.0 * seed, 6.0 * seed], env_id="T-v0", seed=seed)
    figure = curves(tmp_path)
    (axis,), _ = shown(figure)
    curve, dot = axis.lines
    assert curve.get_ydata()[-2:] == pytest.approx([1.5, 4.0]) and dot.get_ydata().tolist() == pytest.approx(
        [4.0, 9.0]
    )
    assert axis.get_ylabel() == "return, exponential\naverage over 5 evaluations"
    notes = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(notes) == 2 and "the last evaluation alone" in notes[1]
    for figure in curves(tmp_path, last=490_000), curves(tmp_path, window=1):
        (axis,), _ = shown(figure)
        assert len(axis.lines) == 1 and axis.get_ylabel() == "return"
        assert axis.lines[0].get_ydata()[48] == 4.5
        assert len(figure.legends[0].get_texts()) == 1


@pytest.mark.parametrize("kind", ["one seed", "seeds", "costs", "ten tasks"])
def test_curves_are_drawn(tmp_path, kind):
    columns = costs() if kind == "costs" else {}
    for seed in [1] if kind == "one seed" else [1, 2, 3]:
        for env_id in [f"T{i}-v0" for i in range(10)] if kind == "ten tasks" else ["T-v0"]:
            write_run(tmp_path / f"{env_id}{seed}", [seed, 2.0], env_id=env_id, seed=seed, **columns)
    axes, texts = shown(curves(tmp_path))
    assert len(axes) == {"costs": 3, "ten tasks": 10}.get(kind, 1)
    assert texts[0] == ("SAC (one seed)" if kind == "one seed" else "SAC (n = 3)")
    assert axes[0].lines[0].get_ydata().tolist() == ([1.0, 2.0] if kind == "one seed" else [2.0, 2.0])
    assert axes[0].lines[0].get_linewidth() == (0.9 if kind == "one seed" else 1.8)
    assert len(axes[0].collections) == (0 if kind == "one seed" else 1)  # the band of one standard deviation
    assert ("limit 10" in texts) == (kind == "costs")


def test_more_than_three_bands_become_dots(tmp_path):
    """Each seed's last evaluation, not smoothed, right of the curves and in the order of the legend."""
    for i, label in enumerate(["a", "b", "c", "d"]):
        for seed in 1, 2:
            write_run(
                tmp_path / "T-v0" / label / f"seed_{seed}", [0.0, 10.0 * i + seed], env_id="T-v0", seed=seed
            )
    figure = curves(tmp_path)
    (axis,), texts = shown(figure)
    means, dots = axis.lines[::2], axis.lines[1::2]
    assert not axis.collections and [line.get_ydata()[-1] for line in means] == [1.5, 11.5, 21.5, 31.5]
    assert [line.get_ydata().tolist() for line in dots] == [
        [1.0, 2.0],
        [11.0, 12.0],
        [21.0, 22.0],
        [31.0, 32.0],
    ]
    places = [line.get_xdata()[0] for line in dots]
    assert places == sorted(places) and places[0] > 20.0 and max(axis.get_xticks()) == 20.0
    assert [text[0] for text in texts] == ["a", "b", "c", "d"]
    assert [line.get_color() for line in means] == [line.get_color() for line in dots]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [plot.NOTES["seeds"]]
    three = dict(list(plot.read_runs(tmp_path).items())[:3])
    (axis,), _ = shown(plot.draw_curves(three, window=5))
    assert len(axis.collections) == 3 and len(axis.lines) == 3


def test_a_band_of_costs_ends_at_0(tmp_path):
    for seed in 1, 2:
        columns = {**costs(), "j_c_mean": [0.0, 20.0 * (seed - 1)] * 2}
        write_run(tmp_path / f"{seed}", [0.0, 20.0 * seed, 0.0, 0.0], seed=seed, **columns)
    axes, _ = shown(curves(tmp_path))
    low = [axis.collections[0].get_paths()[0].vertices[:, 1].min() for axis in axes[:2]]
    assert low[1] == 0.0 and 0.0 <= low[0]
    assert axes[1].collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(10.0 + 200**0.5)


def test_published_curves_are_shown_where_the_task_is_theirs(tmp_path):
    for task in "HalfCheetah-v4", "HalfCheetah-v3", "HalfCheetah-v5":
        write_run(tmp_path / task, [0.0] * 5, env_id=task)
    axes, texts = shown(curves(tmp_path))
    sources = [text for text in texts if text.startswith("published SAC: ") and text.endswith(" (n = 10)")]
    assert len(axes) == 3 and ["Tianshou" in text for text in sources] == [True, False]
    by_task = {axis.get_title(): axis for axis in axes}
    assert len(by_task["HalfCheetah-v5"].lines) == 1
    _, reference = by_task["HalfCheetah-v4"].lines
    assert reference.get_xdata()[-1] == 49.998 and reference.get_ydata()[-1] == 4212.3
    write_run(
        tmp_path / "safe" / "x", [0.0] * 4, env_id="HalfCheetah-v4", algorithm="sac_lagrangian", **costs()
    )
    _, texts = shown(curves(tmp_path / "safe"))
    assert not [text for text in texts if "published" in text]


def test_curves_of_a_figure_can_be_told_apart():
    for labels in plot.FIGURES.values():
        looks = plot.looks_of(labels)
        assert len({looks[label] for label in labels}) == len(labels)
        assert looks.items() >= plot.FIXED.items()
    assert not set(plot.FIXED.values()) & set(plot.LOOKS)  # what is in every picture looks like nothing else
    many = ["mine", *plot.EXPERIMENTS.index[:15], "yours"]
    looks = plot.looks_of(many)
    assert len({looks[label] for label in many}) == len(many)


@pytest.mark.parametrize("count", [20, 40])
def test_many_labels_and_odd_ones(tmp_path, count, capsys):
    for i, label in enumerate(["_mine", "a$b", "c$d$e", *map(str, range(count - 3))]):
        write_run(tmp_path / "T-v0" / label / f"seed_{i}", [1.0, 2.0 * i], env_id="T-v0", seed=i)
    picture = tmp_path / "a.png"
    arguments = ["curves", "--root", str(tmp_path), "--out", str(picture)]
    if count == 40:
        with pytest.raises(SystemExit):
            plot.main(arguments)
        assert "40 labels are more than one picture can tell apart" in capsys.readouterr().err
    else:
        plot.main(arguments)
        assert picture.exists()
        _, texts = shown(curves(tmp_path))
        assert len(texts) == 20 and r"c\$d\$e (one seed)" in texts and "\u200b_mine (one seed)" in texts


def test_no_legend_covers_data(tmp_path):
    for i in range(8):
        write_run(tmp_path / "T-v0" / f"label {i}" / "seed_1", [1.0, 2.0], env_id="T-v0", **costs())
    figure = curves(tmp_path)
    figure.draw_without_rendering()
    axes, texts = shown(figure)
    assert len(texts) == 9
    (legend,) = [axis.get_legend() for axis in axes if axis.get_legend()]
    box, whole = legend.get_window_extent(), figure.bbox
    assert not any(box.overlaps(axis.get_window_extent()) for axis in axes)
    assert box.y0 >= whole.y0 and box.x1 <= whole.x1


def test_columns_of_what_training_logged(tmp_path, capsys):
    """Of a run that was resumed, what its checkpoint did not know of counts once; means from evaluation to
    evaluation; any column of both files can be drawn, without published curves and with bands below 0."""
    run = write_seeds(tmp_path / "a", (1, 2), [7.0, 8.0, 9.0], env_id="Hopper-v4")  # at 10, 20, 30 thousand
    for seed, sign in (1, 1.0), (2, -1.0):
        for start, steps in (0, (9_000, 10_000, 11_000, 12_000)), (10_000, (10_001, 20_000)):
            with SummaryWriter(str(run / f"seed_{seed}"), purge_step=start + 1) as writer:
                for step in steps:
                    writer.add_scalar("values/entropy", sign * step, step)
                writer.add_scalar("eval/return_mean", 7.0, steps[-1])
            time.sleep(1.1)  # files of one second are read by name
    write_run(tmp_path / "not logged", [1.0], seed=9, env_id="Hopper-v4")
    (run / "seed_3").mkdir()
    (run / "seed_3" / "eval.csv").write_text("")
    SummaryWriter(str(run / "seed_3")).close()
    plot.main(["logs", str(run / "seed_3")])
    assert f"left out: {run / 'seed_3'}: nothing was evaluated yet" in capsys.readouterr().err
    plot.main(["logs", str(run)])
    assert capsys.readouterr().out.splitlines() == [str(run / f"seed_{n}" / "training.csv") for n in (1, 2)]
    text = (run / "seed_2" / "training.csv").read_text()
    assert text == "global_step,values/entropy\n10000,-9500\n20000,-15000\n30000,\n"  # 15000.5, in 5 digits
    figure = plot.draw_curves(plot.read_runs(run), 5, ("values/entropy", "return_mean"))
    (entropy, returns), texts = shown(figure)
    assert entropy.get_ylabel() == "entropy, nats" and texts == ["SAC (n = 2)"]
    np.testing.assert_allclose(entropy.lines[0].get_ydata(), [0.0, 0.0], atol=1.0)  # the third has none
    assert entropy.collections[0].get_paths()[0].vertices[:, 1].min() < -15_000
    assert len(returns.lines) == 1
    words = ["curves", "--root", str(run), "--out", str(tmp_path / "a.png"), "--columns"]
    plot.main([*words, "values/entropy", "return_mean"])
    with pytest.raises(SystemExit):
        plot.main([*words, "values/entropie"])
    assert "no run has values/entropie; there are: return_mean, values/entropy" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        plot.main(["logs", str(tmp_path / "not logged")])
    assert "no eval.csv with TensorBoard's files beside it" in capsys.readouterr().err
    assert plot.logged_table(plot.read_runs(run)).splitlines()[2] == "| Hopper-v4 | SAC | 2 | 30,000 |"
    lines = plot.logged_table(plot.align(plot.read_runs(run), last=20_000)).splitlines()
    assert lines[::2] == [
        "| task | algorithm | n | step | entropy, nats |",
        "| Hopper-v4 | SAC | 2 | 20,000 | 0.00 |",
    ]


def test_what_some_seeds_did_not_log_is_left_out(tmp_path, capsys):
    """And nothing is averaged over fewer seeds than it says."""
    run = write_seeds(tmp_path / "a", (1, 2, 3), [7.0, 8.0, 9.0])
    for seed, last in (1, "5"), (2, ""), (3, "5"):
        text = f"global_step,values/entropy\n10000,1\n20000,3\n30000,{last}\n"
        (run / f"seed_{seed}" / "training.csv").write_text(text)
    groups = plot.read_runs(tmp_path)
    (entropy,), texts = shown(plot.draw_curves(groups, 5, ("values/entropy",)))
    assert entropy.lines[0].get_ydata().tolist() == [1.0, 3.0] and texts == ["SAC (n = 3)"]
    assert "entropy" not in plot.logged_table(groups)
    (run / "seed_1" / "training.csv").unlink()
    capsys.readouterr()
    (panel,), _ = shown(plot.draw_curves(plot.read_runs(tmp_path), 5, ("return_mean", "values/entropy")))
    assert panel.get_ylabel() == "return"
    said = "Hopper-v4, sac_baseline: left out of values/entropy, which seed(s) 1 lack"
    assert said in capsys.readouterr().err


def test_curves_of_different_lengths_are_named(tmp_path, capsys):
    write_run(tmp_path / "a", [1.0, 2.0])
    write_run(tmp_path / "b", [1.0, 2.0, 3.0], algorithm="sac_nf")
    plot.main(["curves", "--root", str(tmp_path), "--out", str(tmp_path / "a.png")])
    assert "Hopper-v4: scores of steps [20000, 30000] do not compare" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ table


def test_interquartile_mean_and_interval():
    scores = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])
    assert plot.interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert plot.interquartile_mean(np.array([6.0, 1.0, 2.0])) == 3.0
    low, high = plot.interval(scores)
    assert low < plot.interquartile_mean(scores) < high
    # The interval of five holds the truth nine times in ten, as docs/results.md says.
    rng = np.random.default_rng(0)
    intervals = [plot.interval(rng.normal(size=5)) for _ in range(1000)]
    assert np.mean([low <= 0.0 <= high for low, high in intervals]) == pytest.approx(0.9, abs=0.02)


def test_share_of_pairs_and_how_often_chance_gives_it():
    share, p = plot.better(np.array([3.0, 9.0, 7.0, 8.0, 5.0]), np.array([1.0, 6.0, 2.0, 5.0]))
    assert share == pytest.approx((2 + 4 + 4 + 4 + 2.5) / 20)
    assert plot.better(np.arange(5.0), np.arange(5.0)) == (0.5, 1.0)
    # Critical values of the rank test: as docs/results.md says, three seeds each cannot have p < 0.05.
    ways = {3: 2 / 20, 5: 2 / 252, 9: 2 / 48620}
    for n, exact in ways.items():
        assert plot.better(n + np.arange(n), np.arange(n)) == (1.0, pytest.approx(exact))
    # Five each: 8 of 252 divisions have two of 25 pairs lost, or fewer, on either side; 14 have three.
    for lost, count in (2, 8), (3, 14):
        share, p = plot.better(np.array([4.5 - lost, 5, 6, 7, 8]), np.arange(5.0))
        assert (share, p) == (pytest.approx(1 - lost / 25), pytest.approx(count / 252))
    # Of ten each it draws divisions: the count of pairs won is then nearly normal.
    scores = np.random.default_rng(1).permutation(20.0 * np.arange(20))
    share, p = plot.better(scores[:10], scores[10:])
    z = (abs(share * 100 - 50) - 0.5) / math.sqrt(10 * 10 * 21 / 12)
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)


def test_table_has_final_scores_and_not_the_best(tmp_path):
    for seed, last in enumerate([100.0, 200.0, 600.0], start=1):
        write_run(tmp_path / f"a{seed}", [5000.0, last], seed=seed)
        write_run(tmp_path / f"b{seed}", [0.0, last + 150.0], algorithm="sac_nf", seed=seed)
    head, _, sac, flow = rows_of(plot.read_runs(tmp_path))
    assert head[-1] == "P(better than SAC), p" and len(head) == len(sac) == len(flow)
    assert sac == ["Hopper-v4", "SAC", "20,000", "3", "300 ± 265", "100 to 600", "2,650", "–"]
    assert flow == ["Hopper-v4", "SAC-NF", "20,000", "3", "450 ± 265", "250 to 750", "225", "0.78, 0.40"]
    write_run(tmp_path / "c", [0.0, 1e4], algorithm="drift")
    assert rows_of(plot.read_runs(tmp_path))[-1][3:] == ["1", "10,000 (one seed)", "–", "5,000", "–"]


def test_an_interval_from_five_seeds_on(tmp_path):
    for seed in range(1, 6):
        write_run(tmp_path / f"a{seed}", [0.0, float(seed)], seed=seed)
    assert rows_of(plot.read_runs(tmp_path))[-1][-2:] == ["3.0 [1.3, 4.7]", "1.5"]
    shutil.rmtree(tmp_path / "a5")
    assert rows_of(plot.read_runs(tmp_path))[-1][-2] == "1.0 to 4.0"


def test_table_of_safe_runs_and_of_one_seed(tmp_path):
    write_run(tmp_path / "a", [1.0, 2.0], algorithm="sac_lagrangian", **costs(1))
    row = rows_of(plot.read_runs(tmp_path))[-1]
    assert row[1:] == [
        "SAC-Lagrangian",
        "20,000",
        "1",
        "2.0 (one seed)",
        "1.5",
        "9.5 (10)",
        "0.25",
        "1,234",
        "2 of 9",
    ]
    write_run(tmp_path / "b", [1.0, 2.0], seed=1, q_bias=[0.0, -30.0])
    write_run(tmp_path / "c", [1.0, 2.0], seed=2, q_bias=[0.0, -20.0])
    head, _, sac, lagrangian = rows_of(plot.read_runs(tmp_path))
    assert head[-1] == "Q bias" and sac[-1] == "-25" and lagrangian[-1] == "–" and sac[-5:-1] == ["–"] * 4


def test_what_a_terminal_and_a_notebook_may_bring(tmp_path):
    for seed in 1, 2:
        write_run(tmp_path / f"{seed}", [1.0, 2.0], seed=seed)
    there = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        command("plot", "table", "--root", tmp_path), capture_output=True, text=True, env=os.environ | there
    )
    assert ended.returncode == 0 and not ended.stderr
    assert r"| 2.0 \xb1 0.0 |" in ended.stdout


# ----------------------------------------------------------------------------------------------------- policy


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one seed with agents of steps 40 and 80, on a task with two dimensions of the action."""
    args = sac_hpo_continuous.Args(
        env_id="Swimmer-v5",
        seed=3,
        total_timesteps=80,
        learning_starts=20,
        eval_episodes=1,
        eval_frequency=1000,
        snapshot_frequency=40,
        batch_size=16,
        momentum_std_train=0.1,
        momentum_std_explore=0.3,
        bfloat16_force=False,
        cuda=False,
        runs_dir=str(tmp_path_factory.mktemp("runs")),
    )
    return sac_hpo_continuous.train(args)


def test_policy(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    first, out, printed = run / "seed_3", tmp_path / "policy.png", {}
    (first / "agent_best.pt").touch()
    for seed in 10, 20:  # by their names, they would come before the first
        shutil.copytree(first, run / f"seed_{seed}")
        (run / f"seed_{seed}" / "agent_80.pt").unlink()
    few = ["--dims", "1", "0", "--samples", "50", "--states", "3", "--out", str(out)]
    for folders in [run], [first], [run / "seed_10"], [run / "seed_10", first]:
        plot.main(["policy", *map(str, folders), *few])
        height, width, _ = imread(out).shape
        assert (width > 900) == (folders != [run / "seed_10"]) and (height > 700) == (len(folders) == 2)
        *lines, last = capsys.readouterr().out.splitlines()
        printed[*folders] = [re.search(r"step (\d+): Q", line)[1] for line in lines]
        assert last == str(out)
        table = pd.read_csv(tmp_path / "policy.csv")
        assert table["step"].astype(str).tolist() == printed[*folders]
        assert set(table["env_id"]) == {"Swimmer-v5"} and set(table["coordinates"]) == {"action"}
    assert printed[run,] == ["40", "80", "40", "40"]
    assert printed[first,] == ["40", "80"] and printed[run / "seed_10",] == ["40"]
    assert printed[run / "seed_10", first] == ["40", "40", "80"]


def test_what_policy_shows(trained, capsys):
    path = trained / "seed_3" / "agent_80.pt"
    for dims in (0, 0), (0, 2), (-1, 0):
        with pytest.raises(SystemExit):
            plot.q_over(path, np.zeros((1, 8), np.float32), dims)
        assert "--dims must be two dimensions of the action, which has 2" in capsys.readouterr().err
    agent, args = plot.read_agent(path)
    assert args.seed == 3
    seen = plot.episode_of(path, 10)
    env = sac_hpo_continuous.make_env(args)
    expected, _ = env.reset(seed=3)
    for obs in seen:
        np.testing.assert_allclose(obs, expected)
        expected, *_ = env.step(sac_hpo_continuous.decide(agent, expected[None])[0])
    env.close()
    assert len(seen) == 11

    obs = seen[[0, 10]]
    shown_actions, q_of = plot.sample_policy(path, obs, 500)
    with torch.no_grad():  # each evolved action comes from its own base action
        many = torch.from_numpy(obs).repeat_interleave(500, 0)[None]
        xi, zeta = torch.randn(2, 1, 1000, 2, generator=torch.Generator().manual_seed(3))
        u = agent.policy(many, xi)[0]
        drifted = agent.policy.evolve(many, u, args.momentum_std_explore * zeta, "drift")[0]
        actions = {"base": u.tanh(), "drifted": agent.policy.to_action(drifted)}
        actions["evolved"] = agent.policy.act(many, torch.stack([xi, zeta]))
        for name, action in actions.items():
            np.testing.assert_allclose(shown_actions[name].reshape(1000, 2), action[0], rtol=1e-6)
            q = agent.q_target(many, action).amin(1)[0]
            np.testing.assert_allclose(q_of[name].ravel(), q, rtol=1e-5)
        x, y, q = plot.q_over(path, obs[-1:], (1, 0))
        corner = torch.tensor([[[y[5, 7], x[5, 7]]]])  # dimension 1 is to the right
        np.testing.assert_allclose(q[5, 7], agent.q_target(many[:, -1:], corner).amin(), rtol=1e-5)
    assert len({q_of[name].mean() for name in actions}) == 3 and q.std() > 0.0


def test_what_policy_measures(trained):
    """Means over states that are evenly spaced in an episode; the spread is one of actions in a state."""
    path = trained / "seed_3" / "agent_80.pt"
    row = plot.Policy(runs=(path.parent,), states=3, samples=100).measure(path)
    seen = plot.episode_of(path, 1_000)
    actions, q_of = plot.sample_policy(path, seen[[0, 499, 999]], 100)
    assert len(seen) == 1_000 and row["states"] == 3 and row["actions"] == 100 and row["step"] == 80
    assert row["q"] == pytest.approx(np.mean(q_of["base"]))
    assert row["leapfrog"] == pytest.approx(np.mean(q_of["evolved"]) - np.mean(q_of["base"]), rel=1e-3)
    assert row["momentum_alone"] == pytest.approx(np.mean(q_of["drifted"]) - np.mean(q_of["base"]), rel=1e-3)
    assert row["share_higher"] == np.count_nonzero(q_of["evolved"] > q_of["base"]) / 300
    for ours, name in ("base", "base"), ("leapfrog", "evolved"), ("momentum_alone", "drifted"):
        variances = [np.var(actions[name][i, :, j], ddof=1) for i in range(3) for j in range(2)]
        assert row[f"spread_{ours}"] == pytest.approx(np.mean(np.sqrt(variances)), rel=1e-5)


def test_the_table_of_policy():
    rows = [
        ["T", "action", seed, 50, 9.6, change, -0.1, 0.8, 0.3, 0.2, 0.4]
        for seed, change in ((1, 0.5), (2, 0.2))
    ]
    names = ["env_id", "coordinates", "seed", "step", "q", "leapfrog", "momentum_alone", "share_higher"]
    names += ["spread_base", "spread_leapfrog", "spread_momentum_alone"]
    table = plot.policy_table(pd.DataFrame(rows, columns=names))
    cells = [cell.strip() for cell in table.splitlines()[-1].strip("| ").split("|")]
    assert cells[:6] == ["T", "action", "50", "2", "10", "+0.35 (+0.20 to +0.50)"]
    assert cells[6:] == ["-0.10 (-0.10 to -0.10)", "80%", "0.30", "0.20", "0.40"]


@pytest.mark.parametrize("kind", ["old", "other", "later", "one dimension"])
def test_an_agent_that_does_not_fit(tmp_path, kind, capsys):
    """Of a version before or after this one, of another script, or for which there is no plane to draw."""
    module = sac_hpo_continuous
    args = module.resolve(module.Args(env_id="Pendulum-v1"))
    state = {"algorithm": "sac_hpo_continuous", "args": asdict(args), "global_step": 10, "agent": {}}
    state |= {"obs_dim": 3, "action_low": torch.zeros(1)}
    if kind == "other":
        state["algorithm"] = "sac_nf"
    elif kind == "later":
        state["args"]["unknown"] = 1
    elif kind == "one dimension":
        state["agent"] = module.Agent(1, 3, 1, args).state_dict()
    torch.save(state, tmp_path / "agent_10.pt")
    with pytest.raises(SystemExit) as stopped:
        plot.main(["policy", str(tmp_path), "--state-after", "1"])
    messages = {"other": "it is of sac_nf.py", "one dimension": "dimensions of the action, which has 1"}
    assert messages.get(kind, "does not fit") in capsys.readouterr().err and stopped.value.code == 2


# -------------------------------------------------------------------------------------------------------- gap


def test_the_fixed_q():
    q_at = plot.TwoModes().min_at()
    a = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    q, gradient = q_at(a)
    assert not q.requires_grad and not gradient.requires_grad
    by_hand = -0.5 * (4.0 * a.squeeze(-1) ** 2 - 1.0) ** 2
    torch.testing.assert_close(q, by_hand.detach())
    torch.testing.assert_close(gradient.squeeze(-1), torch.autograd.grad(by_hand.sum(), a)[0].squeeze(-1))
    assert q.argsort()[-2:].sort().values.tolist() == [2, 6]  # -1/2 and 1/2


def test_chains_of_the_gap(tmp_path):
    """The Gaussian finds one mode or both, the conventional leapfrog neither. Shares are shares, of each seed
    its own, and the same again."""
    settings = plot.Gap(num_seeds=2, updates=200)
    kl = {}
    for operator in "gaussian", "conventional":
        (shares, exploring), target = plot.train_chain(settings, "Hopper", operator)
        assert shares.shape == exploring.shape == (2, 200) and not (shares[0] == shares[1]).all()
        np.testing.assert_allclose(shares.sum(-1), 1.0)
        kl[operator] = plot.divergence(shares, target)
    assert target.sum() == pytest.approx(1.0) and np.argmax(target[100:]) in (49, 50)
    assert (kl["gaussian"] > 0.3).all() and (kl["gaussian"] < 1.5).all() and (kl["conventional"] > 5.0).all()
    alone = plot.train_chain(replace(settings, num_seeds=1, seed=2), "Hopper", "conventional")[0][0]
    np.testing.assert_allclose(alone[0], shares[1], atol=0.01)


def test_the_best_gaussian_by_integration_in_u():
    """On the fixed Q at alpha = 0.2: broad, between the modes, and better than any on one mode."""
    u = np.linspace(-8.0, 8.0, 20_001)
    log_target = -0.5 * (4.0 * np.tanh(u) ** 2 - 1.0) ** 2 / 0.2  # of a, without its constant
    log_jacobian = 2.0 * (np.log(2.0) - u - np.log1p(np.exp(-2.0 * u)))
    log_z = np.log(np.trapezoid(np.exp(log_target + log_jacobian), u))

    def kl(mean, std):
        log_q = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2.0 * np.pi)
        return np.trapezoid(np.exp(log_q) * (log_q - log_jacobian - log_target + log_z), u)

    fine = np.linspace(-1.0, 1.0, 200 * 20 + 1)
    density = np.exp(-0.5 * (4.0 * fine**2 - 1.0) ** 2 / 0.2)
    target = np.array([density[20 * i : 20 * i + 21].mean() for i in range(200)])
    target /= target.sum()
    best = plot.best_gaussian(target)
    assert best.sum() == pytest.approx(1.0, abs=1e-6) and np.allclose(best, best[::-1], atol=1e-6)
    lowest = min(kl(mean, std) for mean in np.linspace(0.0, 0.8, 17) for std in np.linspace(0.1, 1.0, 46))
    assert plot.divergence(best, target) == pytest.approx(lowest, abs=0.003)
    assert min(kl(mean, 0.2) for mean in np.linspace(0.4, 0.6, 21)) > lowest + 0.1


def test_gap_writes_a_picture_and_a_table(tmp_path, monkeypatch, capsys):
    target = np.full(200, 0.005)
    both = np.stack([np.repeat([0.01, 0.0], 100), target, target])  # KL log 2, 0, 0

    def train(settings, row, operator):
        return [both, both[:1].repeat(3, 0) if operator == "proposed" else both[1:].repeat(2, 0)[:3]], target

    monkeypatch.setattr(plot, "train_chain", train)
    plot.main(["gap", "--rows", "Ant", "--num-seeds", "3", "--out", str(tmp_path / "new" / "gap.png")])
    assert imread(tmp_path / "new" / "gap.png").size
    assert "Ant, proposed, in updates: KL 0.00 (0.00 to 0.69)" in capsys.readouterr().out
    rows = [
        line.split(" | ") for line in plot.csv_table(read_table(tmp_path / "new" / "gap.csv")).splitlines()
    ]
    assert rows[0] == ["| policy", "actions", "KL median", "lowest", "highest |"]
    assert rows[3] == ["| gaussian", "exploring", "0.000", "0.000", "0.000 |"]
    nearest = plot.divergence(plot.best_gaussian(target), target)
    expected = f"row: Ant; seeds: 3; best Gaussian: {nearest:.3f}; updates: 1500; coordinates: pre-tanh"
    assert rows[-1] == [expected]


# ------------------------------------------------------------------------------------------------------- docs


def test_a_csv_file_as_a_table(tmp_path):
    rows = ["A-v0,sac_nf,1,0.6,two cores", "A-v0,SB3 SAC,2,,two cores"]
    (tmp_path / "a.csv").write_text("\n".join(["task,system,per_second,empty,machine", *rows]) + "\n")
    assert plot.csv_table(read_table(tmp_path / "a.csv")).splitlines() == [
        "| system | per second | empty |",
        "| --- | --- | --- |",
        "| SAC-NF | 1 | 0.6 |",
        "| SB3 SAC | 2 | – |",
        "",
        "task: A-v0; machine: two cores",
    ]


def test_docs_fill_every_file(tmp_path, monkeypatch, capsys):
    """Links are relative to the file, what is outside of the marks stays, a place without a part says so."""
    write_run(tmp_path / "results" / "Hopper-v4" / "sac_baseline" / "seed_1", [1.0, 2.0])
    write_run(tmp_path / "results" / "Hopper-v4" / "drift" / "seed_1", [1.0, 2.0])
    write_run(tmp_path / "results" / "Ant-v4" / "sac_baseline" / "seed_1", [1.0, 2.0], env_id="Ant-v4")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)

    def place(name):
        return f"a\n<!-- generated: {name} -->\nold\n<!-- end -->\nb\n"

    page = tmp_path / "docs" / "a.md"
    (tmp_path / "README.md").write_text(place("picture-continuous") + place("speed"))
    page.write_text(place("ablation"))
    with pytest.raises(SystemExit):
        plot.main(["docs"])
    assert "for continuous" in capsys.readouterr().err
    assert page.read_text() == place("ablation") and not (tmp_path / "results" / "ablation.png").exists()
    page.write_text(place("ablation") + place("continuous"))
    plot.main(["docs"])
    readme = (
        "a\n<!-- generated: picture-continuous -->\n![learning curves: continuous](results/continuous.png)\n"
    )
    none = "<!-- end -->\nb\na\n<!-- generated: speed -->\n(no runs yet)\n<!-- end -->\nb\n"
    assert (tmp_path / "README.md").read_text() == readme + none
    text = page.read_text()
    assert "](../results/ablation.png)\n\n| task |" in text and "old" not in text
    ablation, continuous = text.split("generated: continuous")
    assert "drift: momentum" in ablation and "Ant-v4" not in ablation and "Ant-v4" in continuous
    assert imread(tmp_path / "results" / "ablation.png").size
    plot.main(["docs"])
    assert page.read_text() == text
    page.write_text(text.replace("<!-- end -->", "", 1))  # up to the next one would be lost
    with pytest.raises(SystemExit):
        plot.main(["docs"])
    assert f"{page.relative_to(tmp_path)}: not each of its 2 places" in capsys.readouterr().err
    assert page.read_text() == text.replace("<!-- end -->", "", 1)


def test_docs_and_pictures_are_not_stale(tmp_path):
    """What is committed is what the committed runs give, and every part is somewhere."""
    parts, figures = plot.generate(ROOT / "results")
    files, places = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], set()
    for path in files:
        text = path.read_text()
        link = os.path.relpath(ROOT / "results", path.parent)
        assert plot.fill(text, parts, link) == text, f"{path.name}: run python plot.py docs"
        places |= {match[2] for match in plot.PLACE.finditer(text)}
    assert {name for name in parts if not name.startswith("picture-")} <= places
    for name, figure in figures.items():
        plot.save(figure, tmp_path / name)
        committed, drawn = imread(ROOT / "results" / name), imread(tmp_path / name)
        assert committed.shape == drawn.shape, "run: python plot.py docs"
        # One evaluation moved by half changes some 3,000 pixels.
        changed = np.abs(committed - drawn).max(-1) > 0.1
        assert changed.sum() < 200, "run: python plot.py docs"


def test_results_hold_runs_and_pictures_only():
    """Of each seed its eval.csv as the script wrote it, what training logged, and the run's config.json, in a
    folder named by task, label and seed."""
    default = asdict(sac_hpo_continuous.Args())
    tables = ["speed.csv", "speed_cuda.csv", "gap.csv", "gap_action.csv", "policy.csv", "published/sac.csv"]
    for path in (ROOT / "results").rglob("*"):
        name = path.relative_to(ROOT / "results")
        if path.is_dir() or path.suffix == ".png" or str(name) in tables:
            continue
        assert path.name in ("eval.csv", "training.csv", "config.json"), path
        args = json.loads((path.parent / "config.json").read_text())["args"]
        task, label, seed = name.parent.parts
        seeds = range(args["seed"], args["seed"] + args.get("num_seeds", 1))
        assert args["env_id"] == task and seed in [f"seed_{n}" for n in seeds]
        assert label in plot.EXPERIMENTS.index
        assert all(args[name] == default[name] for name in ("gamma", "batch_size"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["curves", "--root", "EMPTY"], "no evaluated runs under"),
        (["curves", "--root", "UNEVALUATED"], "no evaluated runs under"),
        (["curves", "--root", "ONE", "--figure", "fig2"], "--figure must be one of continuous"),
        (["curves", "--root", "ONE", "--window", "0"], "--window must be 1 or more"),
        (["table", "--root", "ONE", "--envs", "Ant-v4"], "no evaluated runs of Ant-v4 under"),
        (["table", "--root", "ONE", "--labels", "drift"], "there are: sac_baseline"),
        (["table", "--root", "ONE", "--until", "5"], "no runs are left"),
        (["curves", "--root", "ONE", "--out", "a.xyz"], "--out must end in .png, .pdf or .svg, not be a.xyz"),
        (["curves", "--root", "ONE", "--out", "ONE/a/eval.csv/a.png"], "cannot be written"),
        (["curves", "--root", "ONE", "--labels", "drift", "--figure", "safe"], "either --figure or --labels"),
        (["docs", "--root", "ONE", "--files", "nowhere.md"], "--files must be files that exist"),
        (["docs", "--root", "ONE", "--files", "ONE/a/eval.csv"], "for continuous"),
        (["policy"], "policy needs the folder of a run"),
        (["policy", "ONE"], "no agent_<step>.pt"),
        (["policy", "ONE", "--samples", "1"], "--samples must be 2 or more"),
        (["policy", "ONE", "--states", "0"], "--states must be 1 or more"),
        (["policy", "ONE", "--out", "a.xyz"], "--out must end in"),
        (["policy", "AGENT"], "agent_10.pt is damaged or does not fit"),
        (["policy", "AGENT", "--at", "20"], "--at 20: AGENT has agents of steps 10"),
        (["policy", "SEEDS"], "SEEDS/seed_2 has no agent_<step>.pt"),
        (["gap", "--out", "a.xyz"], "--out must end in"),
        (["gap", "--out", "ONE/a/eval.csv/a.png"], "cannot be written"),
    ],
)
def test_one_clear_line_for_bad_input(tmp_path, arguments, message, monkeypatch, capsys):
    (tmp_path / "EMPTY").mkdir()
    write_run(tmp_path / "UNEVALUATED" / "a", [])
    write_run(tmp_path / "ONE" / "a", [1.0])
    for seed in 2, 10:
        (tmp_path / "SEEDS" / f"seed_{seed}").mkdir(parents=True)
    (tmp_path / "AGENT").mkdir()
    (tmp_path / "AGENT" / "agent_best.pt").touch()
    (tmp_path / "AGENT" / "agent_10.pt").write_bytes(b"not a file of torch.save")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        plot.main(arguments)
    *remarks, last = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and message in last
    assert len(remarks) == ("--until" in arguments or arguments[-2:] == ["--labels", "drift"])


def test_help_names_every_command_and_option():
    ended = subprocess.run(
        [sys.executable, ROOT / "plot.py", "curves", "--help"], capture_output=True, text=True
    )
    for words in "--window", "evaluations of the exponential average", "--until", "last environment step":
        assert words in re.sub(r"\s+", " ", ended.stdout)
