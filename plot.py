"""Pictures and tables from runs, finished or not: the paper's Figs. 2 to 7, final scores, the docs' parts.

    python plot.py curves --root runs           # learning curves of your own runs
    python plot.py table --figure continuous    # final scores of what is in results/, as in Fig. 2
    python plot.py policy runs/<run>            # Fig. 7, from agent_<step>.pt files of a SAC-HPO run
    python plot.py gap                          # how near to exp(Q / alpha) a policy comes if Q has two modes
    python plot.py logs runs/<run>              # what training logged, into a training.csv
    python plot.py docs                         # rewrites what README.md and docs/ have from here

A run is any folder, at any depth under --root, with a config.json and an eval.csv, or with an eval.csv in the
folder seed_<n> of each seed. Its label, what a curve is called, is its script's name and the settings
in which runs of this script on the same task differ, as in "sac_nf, tau=0.01". A folder of benchmark.sh,
<task>/<label>/, gives its own; experiments.csv has these labels, their order, their names and figures.
"""

import glob
import json
import logging
import math
import os
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, NoReturn

os.environ["MPLBACKEND"] = "agg"  # files only: no screen is needed, and no notebook's backend
import numpy as np
import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

HERE = Path(__file__).resolve().parent
EXPERIMENTS = pd.read_csv(HERE / "experiments.csv", dtype=str, keep_default_na=False).set_index("label")
NAMES, OF_LABEL = EXPERIMENTS["name"].to_dict(), EXPERIMENTS["figures"].str.split()
FIGURES = {  # figure -> its labels, both in the order of the table
    figure: [label for label in OF_LABEL.index if figure in OF_LABEL[label]]
    for figure in OF_LABEL.explode().dropna().unique()
}
PUBLISHED = pd.read_csv(HERE / "results" / "published" / "sac.csv")  # means of published runs of SAC
WIDTH = {1: 5.6, 2: 9.2, 3: 9.6}  # panels in a row -> width in inches, to be read at 900 pixels
COLUMNS = {"return_mean": "return", "j_c_mean": "cost J_C", "training_cost": "cost of training so far"}
LOGGED = {  # by training.csv: what tells whether the leapfrog does anything
    "values/entropy": "entropy, nats",
    "values/momentum_penalty": "(β₀/2) |ρ_K|²",
    "values/gate": "σ_h",
    "values/transform_norm": "‖T_h‖",
}
# Okabe and Ito's colours, which colour-blind readers tell apart, with line styles for print without colours.
COLORS = "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"
LINES = ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 3)), (0, (2, 2))
LOOKS = [(color, LINES[(i + shift) % 5]) for shift in range(5) for i, color in enumerate(COLORS)]
FIXED = {"sac_baseline": ("#0072B2", "--"), "sac_hpo_continuous": ("#D55E00", "-")}  # in every picture
FIXED |= {"sac_nf": LOOKS.pop(0), "action-coordinates": LOOKS.pop(0)}
# Settings in which runs of one label may differ: they are not of the method.
NOT_COMPARED = set(
    "seed num_seeds runs_dir total_timesteps torch_threads cuda eval_frequency checkpoint_frequency "
    "snapshot_frequency capture_video track wandb_project_name wandb_entity resume evaluate".split()
)


def say(message: str) -> None:
    """One line on stderr: what is on stdout can go into a file."""
    print(f"plot.py: {' '.join(message.split())}", file=sys.stderr)


def stop(message: str) -> NoReturn:
    say(message)
    raise SystemExit(2)


# ------------------------------------------------------------------------------------------------------- runs


class Run(NamedTuple):
    task: str
    label: str
    seed: int
    table: pd.DataFrame  # eval.csv: a row per evaluation, by global_step
    args: dict
    folder: Path
    placed: bool  # its label is that of a folder of benchmark.sh


Groups = dict[tuple[str, str], list[Run]]  # (task, label) -> its runs, by seed


def read_run(path: Path, envs: tuple[str, ...]) -> Run | None:
    """The run of an eval.csv; None if its task is not wanted or nothing has been evaluated yet."""
    folder = top = path.parent
    own = re.fullmatch(r"seed_(\d+)", folder.name)
    if own and not (folder / "config.json").exists():
        top = folder.parent  # a run with a folder for each of its seeds
    config = json.loads((top / "config.json").read_text(encoding="utf-8"))
    args, task = config["args"], config["args"]["env_id"]
    if (envs and task not in envs) or path.read_text(encoding="utf-8").count("\n") < 2:
        return None
    table = pd.read_csv(path).set_index("global_step")
    if (logged := folder / "training.csv").exists():
        table = table.join(pd.read_csv(logged).set_index("global_step"))
    costs = ["j_c_mean", "training_cost", "lambda"] if "cost_limit" in args else []
    for column in ["return_mean", *costs]:
        if not np.isfinite(table[column].astype(float)).all():
            raise ValueError(f"{column} is not a finite number in every row")
    if not (np.diff(table.index.astype(float)) > 0).all():
        raise ValueError("global_step does not rise")
    folders = {re.sub("[/:]", "-", name) for name in (task, re.sub(r"-v\d+$", "", task))}
    below = [above.name for above in (top, *top.parents) if above.parent.name in folders]
    known = [name for name in below if name in EXPERIMENTS.index]
    if known and (wrong := unlike(known[0], config["algorithm"], args)):
        say(f"{folder} is not of the label {known[0]}: {wrong}")
        below = known = []
    other = [name for name in below if name != top.name and not name.startswith("seed_")]
    label = [*known, *other, config["algorithm"]][0]
    seed = int(own[1]) if own else args["seed"]  # config.json has the first seed of the run
    return Run(task, label, seed, table, args, folder, bool(known))


def flags_of(label: str) -> list[tuple[str, str]]:
    """Names and values of a label's flags; of a switch, --name or --no-name, the value is True or False."""
    words = re.findall(r"--(no-)?(\S+)(?: ([^-\s]\S*))?", EXPERIMENTS["flags"].get(label, ""))
    return [(name.replace("-", "_"), value or str(not no)) for no, name, value in words]


def unlike(label: str, algorithm: str, args: dict) -> str:
    """In which flag or script a run differs from a label of experiments.csv; nothing if in none. Flags that
    the script did not have yet say nothing."""
    if algorithm != EXPERIMENTS["script"][label]:
        return f"algorithm={algorithm}"
    for name, value in flags_of(label):
        given = args.get(name, value)
        number = isinstance(given, float | int) and not isinstance(given, bool)
        if (given != float(value)) if number else (str(given) != value):
            return f"{name}={given}"
    return ""


def differing(runs: list[Run], wanted: list[tuple[str, str]] = ()) -> list[str]:
    """Settings that are not the same in all runs, and as wanted, of those that change what is learnt."""
    values = defaultdict(set)
    for name, value in [*wanted, *(item for run in runs for item in run.args.items())]:
        values[name.replace("-", "_")].add(str(value))
    return sorted(name for name in values.keys() - NOT_COMPARED if len(values[name]) > 1)


def tell_apart(runs: list[Run]) -> list[Run]:
    """Of one task and label: outside of benchmark.sh's folders, settings in which runs differ, from one
    another or from experiments.csv, become part of the label."""
    label, placed = runs[0].label, [run for run in runs if run.placed]
    names = differing(runs, flags_of(label)) if len(placed) < len(runs) else []
    own = [", ".join([label, *(f"{name}={run.args.get(name, 'unset')}" for name in names)]) for run in runs]
    return [run if run.placed else run._replace(label=new) for run, new in zip(runs, own, strict=True)]


def read_runs(root: Path, envs: tuple[str, ...] = ()) -> Groups:
    """All runs under a folder, on some tasks or on any, that were evaluated at least once. Says which cannot
    be read; exits with status 2 if nothing is left, of any of the tasks."""
    root, found, groups = root.absolute(), defaultdict(list), defaultdict(dict)
    for name in sorted(glob.glob("**/eval.csv", root_dir=root, recursive=True)):  # follows links
        try:
            if run := read_run(root / name, envs):
                found[run.task, run.label].append(run)
        except (OSError, ValueError, LookupError, TypeError) as error:
            say(f"left out: {root / name} or its config.json is damaged ({type(error).__name__}: {error})")
    for run in (run for runs in found.values() for run in tell_apart(runs)):
        of_seed = groups[run.task, run.label]
        if other := of_seed.get(run.seed):
            less, run = sorted([other, run], key=lambda r: r.table.index[-1])  # or the later name
            why = f"of its task, label and seed, {run.folder} is longer or has a later name"
            say(f"{less.folder} is left out: {why}")
        of_seed[run.seed] = run
    if missing := [task for task in envs if task not in [of for of, _ in groups]]:
        stop(f"no evaluated runs of {', '.join(missing)} under {root}")
    place = {label: i for i, label in enumerate(EXPERIMENTS.index)}
    order = sorted(groups, key=lambda key: (key[0], place.get(key[1].split(", ")[0], len(place)), key[1]))
    ordered = {key: [groups[key][seed] for seed in sorted(groups[key])] for key in order}
    return ordered or stop(f"no evaluated runs under {root}")


def align(groups: Groups, last: int | None = None, together: bool = False) -> Groups:
    """Runs at the steps, up to `last`, at which all seeds of a label were evaluated; says what that cuts. If
    `together`, all labels of a task end at the last step that they share."""
    aligned = {}
    for (task, label), runs in groups.items():
        if names := differing([run for run in runs if run.placed]):
            names = ", ".join(names)
            say(f"{task}, {label}: its runs differ in {names} as well and are averaged all the same")
        peers = [run for key in groups if key[0] == task for run in groups[key]] if together else runs
        steps, shared = (reduce(pd.Index.intersection, (r.table.index for r in of)) for of in (runs, peers))
        if len(steps) and not together and len(steps) < max(len(run.table) for run in runs):
            say(f"{task}, {label}: cut to the {len(steps)} evaluations, up to step {steps[-1]}, of all seeds")
        steps = steps[steps <= min(shared.max(), last or np.inf)]  # none if nothing is shared: max() is nan
        if len(steps):
            aligned[task, label] = [run._replace(table=run.table.loc[steps]) for run in runs]
        else:
            say(f"left out: {task}, {label}: no step in common{f' up to {last}' if last else ''}")
    return aligned or stop("no runs are left")


def per_seed(runs: list[Run], column: str) -> pd.DataFrame:
    """A column of aligned runs: a row per step, a column per seed."""
    return pd.concat({run.seed: run.table[column].astype(float) for run in runs}, axis=1)


def has(runs: list[Run], column: str) -> bool:
    """Whether all seeds have a column. Says which lack it, if some have it."""
    lacking = [run for run in runs if column not in run.table or run.table[column].isna().all()]
    if 0 < len(lacking) < len(runs):
        seeds = ", ".join(str(run.seed) for run in lacking)
        say(f"{runs[0].task}, {runs[0].label}: left out of {column}, which seed(s) {seeds} lack")
    return not lacking


# ------------------------------------------------------------------------------------------ curves and tables


def looks_of(labels: list[str]) -> dict[str, tuple]:
    """Label -> colour and line style, no two alike."""
    others = [label for label in dict.fromkeys(labels) if label not in FIXED]
    looks = LOOKS if FIXED.keys() & set(labels) else [*FIXED.values(), *LOOKS]
    if len(others) > len(looks):
        stop(f"{len(others)} labels are more than one picture can tell apart: choose some with --labels")
    return FIXED | dict(zip(others, looks, strict=False))


def literally(text: str) -> str:
    """For Matplotlib, which takes $ for mathematics and leaves out of legends what begins with _."""
    return re.sub("^_", "\N{ZERO WIDTH SPACE}_", text.replace("$", r"\$"))


def draw_published(axis: Axes, task: str, last: float) -> set[str]:
    """Published means of SAC on the task, plus and minus a standard deviation over seeds, up to a step.
    Returns which NOTES it needs."""
    rows = PUBLISHED[(PUBLISHED["task"] == task) & (PUBLISHED["global_step"] <= last)]
    for source, row in rows.groupby("source"):
        x, mean, std = row["global_step"] / 1000, row["return_mean"], row["return_std_over_seeds"]
        name = f"published SAC: {source.split()[0]} (n = {row['seeds'].iloc[0]})"
        axis.fill_between(x, mean - std, mean + std, color="#999999", alpha=0.3, linewidth=0, label=name)
        axis.plot(x, mean, color="#bbbbbb", linewidth=2.5, zorder=1)
    return set() if rows.empty else {"band"}


NOTES = {  # what a picture shows besides curves -> how its legend says so
    "band": "band: ± one standard deviation over seeds",
    "seeds": "right of the curves: the last evaluation of each seed, in the order of the legend",
    "dot": "dot: the last evaluation alone, as in the table",
}


def draw_panel(axis: Axes, column: str, by_label: dict[str, list[Run]], window: int, looks: dict) -> set[str]:
    """Means over seeds, and their spread: bands, or the seeds right of the curves, if more than three bands
    would overlap. Returns which NOTES it needs.

    Of ten evaluations an average over five would end a quarter below the last: so from fifty on."""
    shortest = min(len(runs[0].table) for runs in by_label.values())
    smoothed = window > 1 and column != "training_cost" and shortest >= 50
    spread = "band" if sum(len(runs) > 1 for runs in by_label.values()) <= 3 else "seeds"
    end, notes = max(runs[0].table.index[-1] for runs in by_label.values()) / 1000, set()
    for place, (label, runs) in enumerate(by_label.items()):
        raw, n, (color, line) = per_seed(runs, column).dropna(), len(runs), looks[label]
        curves = raw.ewm(span=window if smoothed else 1, adjust=False).mean().where(raw.notna())
        x, mean, std = raw.index / 1000, curves.mean(axis=1), curves.std(axis=1)
        name = literally(f"{NAMES.get(label, label)} ({'one seed' if n == 1 else f'n = {n}'})")
        look = {"color": color, "linestyle": line, "marker": "o" if len(x) == 1 else None}
        axis.plot(x, mean, linewidth=0.9 if n == 1 else 1.8, label=name, **look)
        notes |= {spread} if n > 1 else set()
        if spread == "seeds":
            beside = [end * (1.04 + 0.03 * place)] * n
            axis.plot(beside, raw.iloc[-1], "-o", color=color, linewidth=0.8, markersize=2.5)
        elif n > 1:
            low = mean - std
            if "cost" in COLUMNS.get(column, ""):  # none is below 0
                low = low.clip(lower=0)
            band = {"facecolor": (color, 0.12), "edgecolor": (color, 0.6), "linestyle": line}
            axis.fill_between(x, low, mean + std, linewidth=0.6, **band)
        if smoothed:
            notes.add("dot")
            last = [mean.iloc[-1], raw.iloc[-1].mean()]
            axis.plot(2 * [x[-1]], last, "-o", markevery=[1], color=color, linewidth=0.6, clip_on=False)
    if column == "j_c_mean":
        for limit in {run.args["cost_limit"] for runs in by_label.values() for run in runs}:
            axis.axhline(limit, color="#555555", linewidth=0.9, label=f"limit {limit:g}")
    average = f", exponential\naverage over {window} evaluations" if smoothed else ""
    axis.set_ylabel((COLUMNS | LOGGED).get(column, literally(column)) + average, fontsize=8)
    axis.set_xlabel("thousand environment steps", fontsize=8)
    ticks = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(0, end)
    axis.set_xticks(ticks[ticks <= end])
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    return notes


def draw_curves(groups: Groups, window: int, columns: tuple[str, ...] = ()) -> Figure:
    """For each task, three in a row, a panel per column, below one another, and then its legend. Columns are
    the return and, where there are any, costs; or those given."""
    tasks = {task: {label: groups[of, label] for of, label in groups if of == task} for task, _ in groups}
    columns = columns or [c for c in COLUMNS if any(c in runs[0].table for runs in groups.values())]
    looks = looks_of([label for _, label in groups])
    across, blocks, tall = min(len(tasks), 3), -(-len(tasks) // 3), max(map(len, tasks.values())) + 1
    high = 2.4 if len(columns) < 4 else 1.7
    size = WIDTH[across], blocks * (high * len(columns) + 0.18 * tall) + 0.5
    figure, notes = Figure(figsize=size, layout="constrained"), set()
    axes = figure.subplots(blocks * len(columns), across, squeeze=False)
    for i, (task, by_label) in enumerate(tasks.items()):
        entries, lowest = {}, None
        for row, column in enumerate(columns):
            if having := {label: runs for label, runs in by_label.items() if has(runs, column)}:
                lowest = axes[i // 3 * len(columns) + row, i % 3]
                notes |= draw_panel(lowest, column, having, window, looks)
                if row == 0:
                    lowest.set_title(literally(task), fontsize=10)
                    if columns[0] == "return_mean" and "j_c_mean" not in columns:  # limited, none compares
                        last = max(runs[0].table.index[-1] for runs in having.values())
                        notes |= draw_published(lowest, task, last)
                entries |= dict(zip(*lowest.get_legend_handles_labels()[::-1], strict=True))
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.55 / high)}
        lowest.legend(entries.values(), entries, fontsize=8, frameon=False, handlelength=3.5, **below)
    for axis in axes.flat:
        axis.set_visible(bool(axis.lines))
    dots = {"color": "#777777", "marker": "o"}
    drawn = {
        "band": Patch(facecolor="#dddddd", edgecolor="#777777"),
        "seeds": Line2D([], [], markersize=2.5, linewidth=0.8, **dots),
        "dot": Line2D([], [], linestyle="", **dots),
    }
    if there := [note for note in NOTES if note in notes]:
        handles, texts = [drawn[note] for note in there], [NOTES[note] for note in there]
        figure.legend(handles, texts, loc="outside lower center", fontsize=8, frameon=False)
    return figure


def make_folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"{path} cannot be written ({error})")


def save(figure: Figure, path: Path) -> None:
    make_folder_of(path)
    try:
        figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else None)
    except OSError as error:
        stop(f"{path} cannot be written ({error})")
    print(path)


@dataclass
class Selection:
    figure: str = ""  # a figure's labels, by experiments.csv: continuous, safe, ablation ...; else --labels
    root: Path = Path("results")  # folder under which runs are looked for
    labels: tuple[str, ...] = ()  # labels to show, each with all of its settings, or names; else all
    envs: tuple[str, ...] = ()  # tasks to show; else all
    until: int | None = None  # last environment step that counts

    def runs(self) -> Groups:
        if self.figure not in ("", *FIGURES):
            stop(f"--figure must be one of {', '.join(FIGURES)}, not {self.figure}")
        if self.figure and self.labels:
            stop("--figure chooses the labels: give either --figure or --labels")
        groups, labels = read_runs(self.root, self.envs), FIGURES.get(self.figure, self.labels)
        names = {  # with settings and without, and as in legends
            key: {key[1], key[1].split(", ")[0], NAMES.get(key[1], key[1])} for key in groups
        }
        if missing := [label for label in labels if label not in set().union(*names.values())]:
            say(f"no runs yet of {', '.join(missing)}")
        kept = {key: runs for key, runs in groups.items() if not labels or names[key] & set(labels)}
        there = "; ".join(dict.fromkeys(label for _, label in groups))
        return align(kept, self.until) if kept else stop(f"no runs of these labels; there are: {there}")


@dataclass
class Curves(Selection):
    """Learning curves: mean over seeds and one standard deviation, a panel per task.

    Published curves of SAC on the same task stand behind in grey."""

    columns: tuple[str, ...] = ()  # of eval.csv, or of training.csv (see logs); else the return, and costs
    window: int = 5  # evaluations of the exponential average, if there are fifty or more; 1: none
    out: Path = Path("curves.png")  # file to write; its ending chooses the format (png, pdf, svg)

    def __call__(self) -> None:
        if self.window < 1:
            stop(f"--window must be 1 or more, not {self.window}")
        groups = self.runs()
        there = dict.fromkeys(column for runs in groups.values() for column in runs[0].table)
        if missing := [column for column in self.columns if column not in there]:
            stop(f"--columns: no run has {', '.join(missing)}; there are: {', '.join(there)}")
        last_steps(groups)
        save(draw_curves(groups, self.window, self.columns), self.out)


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean along the last axis without the lowest and the highest quarter, each rounded down."""
    cut, n = scores.shape[-1] // 4, scores.shape[-1]
    return np.sort(scores)[..., cut : n - cut].mean(-1)


def interval(scores: np.ndarray) -> np.ndarray:
    """95 % percentile bootstrap interval of the inter-quartile mean, seeds drawn anew within the task."""
    drawn = np.random.default_rng(0).choice(scores, (10_000, len(scores)))
    return np.percentile(interquartile_mean(drawn), [2.5, 97.5])


def better(scores: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """The share of pairs in which a score is above one of the others, and its two-sided p: how often dividing
    all the scores into two such groups at random gives a share as far from a half. Exact up to nine seeds."""

    def share(a: np.ndarray, b: np.ndarray) -> float:  # a tie counts half
        return float(np.mean(np.sign(a[:, None] - b) * 0.5 + 0.5))

    together, n, found = np.concatenate([scores, others]), len(scores), share(scores, others)
    divisions = combinations(range(len(together)), n)
    if math.comb(len(together), n) > 50_000:
        rng = np.random.default_rng(0)
        divisions = (rng.permutation(len(together))[:n] for _ in range(10_000))
    shares = np.array([share(together[list(one)], np.delete(together, one)) for one in divisions])
    return found, float(np.mean(abs(shares - 0.5) >= abs(found - 0.5) - 1e-9))


def last_steps(groups: Groups) -> dict[tuple[str, str], int]:
    """Of aligned runs; says so where they differ within a task."""
    ends = {key: int(runs[0].table.index[-1]) for key, runs in groups.items()}
    for task in dict.fromkeys(task for task, _ in groups):
        if len(steps := sorted({end for key, end in ends.items() if key[0] == task})) > 1:
            say(f"{task}: scores of steps {steps} do not compare; --until {steps[0]} takes all at the same")
    return ends


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.1f}"


def markdown(rows: list[dict[str, str | None]]) -> str:
    """A table of rows, each column -> cell; a column without any cell is left out."""
    table = pd.DataFrame(rows, dtype=object).dropna(axis=1, how="all").fillna("–")
    lines = [list(table.columns), ["---"] * table.shape[1], *table.values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def algorithm_of(task: str, label: str, link: bool) -> str:
    """A label's name, with a link, if wanted, to the folder <task>/<label> of the root."""
    name = NAMES.get(label, label)
    return f"[{name}]({{root}}/{task}/{label})" if link else name


def table_of(groups: Groups, link: bool = False) -> str:
    """A Markdown table of the last evaluations of aligned runs: final scores, not best ones.

    Who learns faster has the higher mean of all evaluations."""
    scores = {key: per_seed(runs, "return_mean").iloc[-1].to_numpy() for key, runs in groups.items()}
    ends, rows = last_steps(groups), []
    for (task, label), runs in groups.items():
        score, sac, n = scores[task, label], (task, "sac_baseline"), len(runs)
        last = pd.DataFrame([run.table.iloc[-1] for run in runs]).mean()  # of each column, over seeds
        row = {
            "task": task,
            "algorithm": algorithm_of(task, label, link),
            "step": f"{ends[task, label]:,}",
            "n": str(n),
        }
        spread = f" ± {number(score.std(ddof=1))}" if n > 1 else " (one seed)"
        row["return, mean ± std over seeds"] = number(score.mean()) + spread
        if n >= 5:  # of fewer, an interval promises more than it holds
            low, high = map(number, interval(score))
            range_ = f"{number(interquartile_mean(score))} [{low}, {high}]"
        else:
            range_ = f"{number(score.min())} to {number(score.max())}" if n > 1 else None
        row["inter-quartile mean [95 % interval], or range of seeds"] = range_
        row["mean of all evaluations"] = number(per_seed(runs, "return_mean").to_numpy().mean())
        limit = runs[0].args.get("cost_limit")
        row["J_C (limit)"] = None if limit is None else f"{last['j_c_mean']:.1f} ({limit:g})"
        row["λ"] = None if limit is None else f"{last['lambda']:.2f}"
        row["cost of training"] = None if limit is None else f"{last['training_cost']:,.0f}"
        row["episodes over the limit"] = None
        if limit is not None and all("training_episodes" in run.table for run in runs):
            over, of = last["training_episodes_over_limit"] * n, last["training_episodes"] * n
            row["episodes over the limit"] = f"{over:.0f} of {of:.0f}"
        row["P(better than SAC), p"] = None
        compared = label != sac[1] and limit is None and ends.get(sac) == ends[task, label]
        if compared and min(n, len(scores[sac])) > 1:  # one seed has no distribution
            share, p = better(score, scores[sac])
            row["P(better than SAC), p"] = f"{share:.2f}, {p:.2f}"
        biased = all("q_bias" in run.table for run in runs)
        rows.append(row | {"Q bias": f"{last['q_bias']:+,.0f}" if biased else None})
    return markdown(rows)


def logged_table(groups: Groups, link: bool = False) -> str:
    """A Markdown table of what training logged before the last evaluation: means over seeds."""
    rows = []
    for (task, label), runs in groups.items():
        row = {"task": task, "algorithm": algorithm_of(task, label, link), "n": str(len(runs))}
        row["step"] = f"{runs[0].table.index[-1]:,}"
        last = pd.DataFrame([run.table.iloc[-1] for run in runs])
        for column, name in LOGGED.items():
            known = column in last and last[column].notna().all()
            row[name] = f"{last[column].mean():.2f}" if known else None
        rows.append(row)
    return markdown(rows)


@dataclass
class Table(Selection):
    """Final scores as a Markdown table: of each seed its last evaluation, of ten episodes, never its best.

    From five seeds on, an inter-quartile mean has a bootstrap interval; below, the range of seeds."""

    def __call__(self) -> None:
        print(table_of(self.runs()))


@dataclass
class Logs:
    """What training logged for TensorBoard, averaged from one evaluation to the next: a training.csv beside
    each eval.csv, for --columns of curves."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of a run, or seed_<n> in it

    def __call__(self) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that a run was resumed is no news
        found = [
            path.parent for path in sorted(self.run.rglob("eval.csv")) if any(path.parent.glob("*tfevents*"))
        ]
        for folder in found or stop(f"{self.run}: no eval.csv with TensorBoard's files beside it"):
            if (folder / "eval.csv").read_text(encoding="utf-8").count("\n") < 2:
                say(f"left out: {folder}: nothing was evaluated yet")
                continue
            steps = pd.read_csv(folder / "eval.csv")["global_step"]
            events, columns = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload(), {}
            for tag in (tag for tag in events.Tags()["scalars"] if not tag.startswith("eval/")):
                logged = pd.DataFrame(events.Scalars(tag))
                # The first evaluation at or after it; what came after the last one belongs to none.
                after = pd.cut(logged["step"], [0, *steps], labels=steps)
                columns[tag] = logged["value"].groupby(after, observed=False).mean()
            table = pd.DataFrame(columns, index=pd.Index(steps, name="global_step"))
            table.to_csv(folder / "training.csv", float_format="%.5g")
            print(folder / "training.csv")


# --------------------------------------------------------------------------------------------- policy and gap


def numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Number -> what is in the folder under a name with that number, in their order."""
    found = [(re.fullmatch(pattern, path.name), path) for path in folder.glob("*")]
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def read_agent(path: Path) -> tuple:
    """The agent of an agent_<step>.pt file and its arguments."""
    import sac_hpo_continuous as script

    def make(state: dict) -> None:
        if state["algorithm"] != script.ALGORITHM:
            raise ValueError(f"it is of {state['algorithm']}.py")
        state["args"] = script.Args(**state["args"])
        state["made"] = script.Agent(1, state["obs_dim"], state["action_low"].numel(), state["args"])
        state["made"].load_state_dict(state["agent"])

    state = script.load(path, make)
    return state["made"], state["args"]


def episode_of(path: Path, steps: int) -> np.ndarray:
    """Observations (M, O) of an episode of an agent's deterministic policy, M at most `steps` + 1."""
    import sac_hpo_continuous as script

    agent, args = read_agent(path)
    env = script.make_env(args)
    obs, over = [env.reset(seed=args.seed)[0]], [False]
    while len(obs) <= steps:
        after, _, *over, _ = env.step(script.decide(agent, obs[-1][None])[0])
        if any(over):
            break
        obs.append(after)
    env.close()
    return np.stack(obs)


def sample_policy(path: Path, obs: np.ndarray, samples: int) -> tuple[dict, dict]:
    """In each of M states (M, O): actions (M, samples, A) of the base policy, evolved and `drifted`, and Q of
    each (M, samples).

    Evolved actions start from the very u_0 of the base policy's; drifted ones are those again with the same
    momentum but no force."""
    import torch

    agent, args = read_agent(path)
    generator, actions, q_of = torch.Generator().manual_seed(args.seed), {}, {}
    with torch.no_grad():
        many = torch.from_numpy(obs).repeat_interleave(samples, dim=0).unsqueeze(0)
        xi, zeta = torch.randn(2, 1, many.shape[1], agent.action_dim, generator=generator)
        u, rho = agent.policy(many, xi)[0], args.momentum_std_explore * zeta
        for name, operator in ("base", "gaussian"), ("drifted", "drift"), ("evolved", args.explore):
            action = agent.policy.to_action(agent.policy.evolve(many, u, rho, operator)[0])
            actions[name] = action.view(len(obs), samples, -1).numpy()
            q_of[name] = agent.q_target(many, action).amin(1).view(len(obs), samples).numpy()
    return actions, q_of


def q_over(path: Path, obs: np.ndarray, dims: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and Q on a grid over two dimensions of the action; the others are held at tanh(mean)."""
    import torch

    agent, _ = read_agent(path)
    if len(set(dims)) < 2 or not set(dims) <= set(range(agent.action_dim)):
        stop(f"--dims must be two dimensions of the action, which has {agent.action_dim}, not {dims}")
    x, y = torch.meshgrid(*2 * [torch.linspace(-0.999, 0.999, 61)], indexing="xy")
    with torch.no_grad():
        one = torch.from_numpy(obs).expand(1, 1, -1)
        grid = torch.tanh(agent.policy(one, torch.zeros(1, 1, agent.action_dim))[0]).repeat(1, x.numel(), 1)
        grid[..., dims[0]], grid[..., dims[1]] = x.flatten(), y.flatten()
        q = agent.q_target(one.expand(-1, x.numel(), -1), grid).amin(1).view_as(x)
    return x.numpy(), y.numpy(), q.numpy()


@dataclass
class Policy:
    """Fig. 7: what the leapfrog, exploring, does to the actions of the base policy.

    Draws actions of the first seed of each run in one state, over Q: base policy (dots), evolved (circles).
    Prints for each seed, as means over many states, how much higher Q is after the leapfrog than at the same
    actions before, what the same momentum without any force does, and how far actions are spread."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]  # folders of runs of SAC-HPO, or seed_<n> in them
    at: tuple[int, ...] = ()  # steps of agent_<step>.pt files; else the first, a middle one and the last
    dims: tuple[int, int] = (0, 1)  # dimensions of the action to draw
    state_after: int = 50  # steps of an episode of the last agent drawn after which the state drawn is taken
    states: int = 20  # states for what is printed, evenly spaced in an episode of each agent
    samples: int = 200  # actions in each state
    out: Path = Path("policy.png")  # file to write, and a .csv beside it; its ending chooses the format

    def files_of(self, folder: Path) -> dict[int, Path]:
        """Step -> agent, of the steps to show."""
        files = numbered(folder, r"agent_(\d+)\.pt")
        if not files:
            stop(f"{folder} has no agent_<step>.pt; a run writes one at each checkpoint and at its end")
        there = list(files)
        at = self.at or sorted({there[0], there[len(there) // 2], there[-1]})
        if missing := set(at) - set(there):
            stop(f"--at {min(missing)}: {folder} has agents of steps {', '.join(map(str, there))}")
        return {step: files[step] for step in at}

    def measure(self, path: Path) -> dict:
        """One row of the table: Q, its changes, and standard deviations of actions, all means over states."""
        _, args = read_agent(path)
        seen = episode_of(path, 1_000)
        obs = seen[np.linspace(0, len(seen) - 1, self.states).astype(int)]
        actions, q_of = sample_policy(path, obs, self.samples)
        row = {"env_id": args.env_id, "coordinates": args.coordinates, "seed": args.seed}
        row["step"] = int(re.search(r"\d+", path.name)[0])
        row |= {"states": len(obs), "actions": self.samples, "q": q_of["base"].mean()}
        row["leapfrog"] = (q_of["evolved"] - q_of["base"]).mean()
        row["momentum_alone"] = (q_of["drifted"] - q_of["base"]).mean()
        row["share_higher"] = (q_of["evolved"] > q_of["base"]).mean()
        spread = {name: action.std(axis=1, ddof=1).mean() for name, action in actions.items()}
        row |= {"spread_base": spread["base"], "spread_leapfrog": spread["evolved"]}
        return row | {"spread_momentum_alone": spread["drifted"]}

    def draw(self, axis: Axes, path: Path, obs: np.ndarray) -> None:
        """The actions of one agent in one state (1, O), over Q."""
        _, args = read_agent(path)
        actions, q_of = sample_policy(path, obs, self.samples)
        dots = {"color": "#0072B2", "s": 7, "linewidths": 0, "label": "base policy"}
        circles = {"facecolors": "none", "edgecolors": "#D55E00", "s": 22, "linewidths": 0.6}
        pale = LinearSegmentedColormap.from_list("pale", ["#a0a0a0", "#ffffff"])
        filled = axis.contourf(*q_over(path, obs, self.dims), levels=20, cmap=pale)
        axis.figure.colorbar(filled, ax=axis, ticks=MaxNLocator(4)).ax.tick_params(labelsize=7)
        for name, look in ("base", dots), ("evolved", circles | {"label": "after the leapfrog"}):
            axis.scatter(*actions[name][0][:200, self.dims].T, **look)  # more hide one another
        step = int(re.search(r"\d+", path.name)[0])
        change = (q_of["evolved"] - q_of["base"]).mean()
        title = f"{args.env_id}, {args.coordinates}\nstep {step:,}: Q {change:+.2f} by the leapfrog"
        axis.set_title(title, fontsize=9)
        axis.set(xlim=(-1, 1), ylim=(-1, 1))
        axis.set_xlabel(f"action {self.dims[0]}", fontsize=8)
        axis.set_ylabel(f"action {self.dims[1]}", fontsize=8)
        axis.tick_params(labelsize=7)

    def __call__(self) -> None:
        if not self.runs:
            stop("policy needs the folder of a run of sac_hpo_continuous.py, or more than one")
        if self.samples < 2:
            stop(f"--samples must be 2 or more, not {self.samples}")
        if self.states < 1:
            stop(f"--states must be 1 or more, not {self.states}")
        folders = [list(numbered(run, r"seed_(\d+)").values()) or [run] for run in self.runs]
        files = [[self.files_of(folder) for folder in seeds] for seeds in folders]
        make_folder_of(self.out)
        columns = max(len(seeds[0]) for seeds in files)
        figure = Figure(figsize=(3.2 * columns, 2.9 * len(files) + 0.3), layout="constrained")
        axes = figure.subplots(len(files), columns, squeeze=False)
        for seeds, row in zip(files, axes, strict=True):
            obs = episode_of(seeds[0][max(seeds[0])], self.state_after)[-1:]
            for axis, path in zip(row, seeds[0].values(), strict=False):
                self.draw(axis, path, obs)
            for axis in row[len(seeds[0]) :]:
                axis.set_axis_off()
        shown = axes[0, 0].get_legend_handles_labels()
        figure.legend(*shown, loc="outside lower center", fontsize=9, frameon=False, ncols=2)
        found = []
        for path in (path for seeds in files for seed in seeds for path in seed.values()):
            found.append(self.measure(path))
            text = "{env_id}, {coordinates}, seed {seed}, step {step}: Q {q:.2f}, leapfrog {leapfrog:+.2f}"
            text += (
                " ({share_higher:.0%} higher), momentum alone {momentum_alone:+.2f}; spread {spread_base:.2f}"
            )
            text += ", after the leapfrog {spread_leapfrog:.2f}, momentum alone {spread_momentum_alone:.2f}"
            print(text.format(**found[-1]), flush=True)
        save(figure, self.out)
        pd.DataFrame(found).to_csv(self.out.with_suffix(".csv"), index=False, float_format="%.4f")


EDGES = np.linspace(-1.0, 1.0, 201)  # of the bins in which actions are counted


class TwoModes:
    """Q(a) = -(4 a^2 - 1)^2 / 2, with equal modes at a = +-1/2, in the place of the target critics."""

    def min_at(self, obs=None, rounded: bool = False):
        return self

    def __call__(self, action) -> tuple:
        """Q and its gradient, both constants to autograd, as those of Critics.min_at are."""
        a = action.detach()
        return -0.5 * ((4 * a**2 - 1) ** 2).sum(-1), -8 * a * (4 * a**2 - 1)


def train_chain(settings: "Gap", row: str, operator: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Trains S policies on TwoModes by the script's own loss. Returns the bins' shares (S, bins) of actions
    in updates and of those that explore, and the bins' shares under exp(Q / alpha) / Z."""
    import torch

    import sac_hpo_continuous as script

    torch.set_num_threads(1)  # the same numbers everywhere
    args = script.Args(f"{row}-v4", train=operator, explore=operator, coordinates=settings.coordinates)
    args, seeds = script.resolve(args), range(settings.seed, settings.seed + settings.num_seeds)
    agent, q_at = script.Agent(len(seeds), 1, 1, args), TwoModes()
    generators, _ = script.make_generators(seeds, torch.device("cpu"))
    script.draw_weights(agent, generators)
    agent.policy.borrowed = q_at, agent.log_alpha
    optimizer, alpha = script.make_optimizers(agent, args)["policy"], torch.tensor(args.alpha)

    def sample(chain, count: int):
        noise = torch.stack([torch.randn(2, count, 1, generator=g) for g in generators], dim=1)
        return chain(torch.ones(len(seeds), count, 1), noise)

    for _ in range(settings.updates):
        action, log_prob, rho, _ = sample(agent.policy.sample_with_momentum, args.batch_size)
        q = script.attach(*q_at(action), action)
        script.descend(optimizer, script.policy_loss(q, log_prob, rho, alpha, args.momentum_std_train)[0])
    with torch.no_grad():
        both = sample(agent.policy.sample_with_momentum, 200_000)[0], sample(agent.policy.act, 200_000)
    inside = torch.from_numpy(np.linspace(EDGES[:-1], EDGES[1:], 21))  # (21, bins)
    target = (q_at(inside.unsqueeze(-1))[0] / args.alpha).exp().mean(0).numpy()
    shares = [np.array([np.histogram(a, EDGES)[0] / a.numel() for a in actions]) for actions in both]
    return shares, target / target.sum()


def divergence(shares: np.ndarray, target: np.ndarray) -> np.ndarray:
    """KL(shares || target) over the last axis, in nats; a share of 0 adds 0."""
    return (shares * np.log(np.maximum(shares, 1e-300) / target)).sum(-1)


def best_gaussian(target: np.ndarray) -> np.ndarray:
    """The bins' shares of tanh(u), u Gaussian, that come nearest to the target's, by a grid of u's mean and
    standard deviation. The target is symmetric, so a mean below 0 does not come nearer than one above."""
    import torch

    std, mean = torch.meshgrid(torch.linspace(0.05, 1.5, 146), torch.linspace(0.0, 1.0, 101), indexing="ij")
    edges = torch.from_numpy(EDGES).atanh()  # of the bins, for u; infinite at both ends
    shares = torch.special.ndtr((edges - mean[..., None]) / std[..., None]).diff(dim=-1).numpy()
    return shares.reshape(-1, len(target))[divergence(shares, target).argmin()]


@dataclass
class Gap:
    """The paper's core claim in its smallest form: one state, an action of one dimension, a Q with two modes.

    Trains the Gaussian, the proposed and the conventional leapfrog in rows of Table I, for about two minutes.
    Prints the KL divergence of their actions to exp(Q / alpha) / Z, in updates and exploring: median over
    seeds, lowest and highest; draws the densities of the median's seed over exp(Q / alpha) / Z. Beside them
    is the best of all Gaussians, which training need not find."""

    rows: tuple[str, ...] = ("HalfCheetah", "Hopper", "Walker2d")  # rows of Table I
    coordinates: Literal["pre-tanh", "action"] = "pre-tanh"  # what the leapfrog moves
    seed: int = 1  # first seed
    num_seeds: int = 5  # seeds of each
    updates: int = 1_500  # updates of each policy
    out: Path = Path("results/gap.png")  # file to write, and a .csv beside it; its ending chooses the format

    def __call__(self) -> None:
        figure = Figure(figsize=(3.2 * len(self.rows), 5.6), layout="constrained")
        make_folder_of(self.out)  # or says now, and not after two minutes, that it cannot
        axes, found = figure.subplots(2, len(self.rows), squeeze=False, sharey=True), []
        x, width = (EDGES[:-1] + EDGES[1:]) / 2, EDGES[1] - EDGES[0]
        looks = {"gaussian": FIXED["sac_baseline"], "proposed": FIXED["sac_hpo_continuous"]}
        looks["conventional"] = LOOKS[0]
        names = {"gaussian": "Gaussian, trained", "proposed": "proposed", "conventional": "conventional"}

        def write(axis: Axes, line: int, text: str, color: str) -> None:
            place = {"fontsize": 8, "ha": "center", "transform": axis.transAxes}
            axis.text(0.5, 0.9 - 0.09 * line, text, color=color, **place)

        for row, column in zip(self.rows, axes.T, strict=True):
            for operator, (color, line) in looks.items():
                both, target = train_chain(self, row, operator)
                best = best_gaussian(target)
                for chain, axis, shares in zip(("in updates", "exploring"), column, both, strict=True):
                    kl = divergence(shares, target)
                    middle = np.argsort(kl)[len(kl) // 2]
                    if operator == "gaussian":
                        axis.fill_between(x, target / width, color="#cccccc", label="target: exp(Q / α) / Z")
                        axis.set_title(f"{row}'s row, {chain}", fontsize=10)
                        axis.plot(
                            x,
                            best / width,
                            color="#555555",
                            linewidth=0.8,
                            label="best Gaussian, not trained",
                        )
                        write(axis, 3, f"best Gaussian: KL {divergence(best, target):.2f}", "#555555")
                    axis.plot(x, shares[middle] / width, color=color, linestyle=line, label=names[operator])
                    write(axis, list(looks).index(operator), f"{names[operator]}: KL {kl[middle]:.2f}", color)
                    result = {"row": row, "policy": operator, "actions": chain, "seeds": len(kl)}
                    result |= {"KL median": kl[middle], "lowest": min(kl), "highest": max(kl)}
                    result["best Gaussian"] = divergence(best, target)
                    found.append(result | {"updates": self.updates, "coordinates": self.coordinates})
                    spread = "KL {KL median:.2f} ({lowest:.2f} to {highest:.2f})".format(**result)
                    print(f"{row}, {operator}, {chain}: {spread}", flush=True)
        for axis in axes.flat:
            axis.set(xlim=(-1.08, 1.08), ylim=(0, 6))  # what stands at a bound can be seen
            axis.tick_params(labelsize=8)
        for axis in axes[-1]:
            axis.set_xlabel("action")
        for axis in axes[:, 0]:
            axis.set_ylabel("density")
        shared = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            *shared, loc="outside lower center", fontsize=9, frameon=False, ncols=5, handlelength=3.5
        )
        save(figure, self.out)
        pd.DataFrame(found).to_csv(self.out.with_suffix(".csv"), index=False, float_format="%.3f")


# ------------------------------------------------------------------------------------------------------- docs


# Of speed.csv, in a table of their own: what an update computes, and the memory with a full replay buffer.
DETAILS = [
    "gflop_per_update",
    "gibibytes",
    "seconds_to_first_update",
    "share_of_limit",
    "matrix_gflop_per_second",
]


def csv_table(table: pd.DataFrame) -> str:
    """What was read from a CSV file, in Markdown; what is the same in all of its rows stands below."""
    table = table.rename(columns=lambda c: c.replace("_", " "))
    table = table.replace({"system": NAMES})
    same = [c for c in table if len(table) > 1 and table[c].nunique() == 1]
    below = "; ".join(f"{c}: {table[c].iloc[0]}" for c in same)
    return markdown(table.drop(columns=same).replace("", None).to_dict("records")) + f"\n\n{below}"


def policy_table(measured: pd.DataFrame) -> str:
    """The .csv of `plot.py policy` in Markdown: means over seeds, of changes also the lowest and highest."""
    rows = []
    for (task, coordinates, step), seeds in measured.groupby(["env_id", "coordinates", "step"], sort=False):
        row = {"task": task, "coordinates": coordinates, "step": f"{step:,}", "n": str(len(seeds))}
        row["Q"] = f"{seeds['q'].mean():.0f}"
        for column, name in ("leapfrog", "leapfrog"), ("momentum_alone", "momentum alone"):
            change = seeds[column]
            range_ = f" ({change.min():+.2f} to {change.max():+.2f})" if len(seeds) > 1 else ""
            row[f"change of Q: {name}"] = f"{change.mean():+.2f}{range_}"
        row["actions with higher Q"] = f"{seeds['share_higher'].mean():.0%}"
        for column, name in ("base", "base policy"), ("leapfrog", "leapfrog"), ("momentum_alone", "momentum"):
            row[f"spread: {name}"] = f"{seeds[f'spread_{column}'].mean():.2f}"
        rows.append(row)
    return markdown(rows)


def generate(root: Path) -> tuple[dict[str, str], dict[str, Figure]]:
    """The generated parts by name, with {root} for where a file has `root`, and the pictures by file name."""
    groups, parts, figures = read_runs(root), {}, {}
    for name, labels in FIGURES.items():
        # Other figures than Fig. 2 have the tasks on which something ran that is not in Fig. 2 too.
        own = [label for label in labels if name == "continuous" or label not in FIGURES["continuous"]]
        tasks = {task for task, label in groups if label in own}
        if chosen := {key: groups[key] for key in groups if key[0] in tasks and key[1] in labels}:
            chosen = align(chosen, together=True)
            figures[f"{name}.png"] = draw_curves(chosen, window=5)
            parts[f"picture-{name}"] = f"![learning curves: {name}]({{root}}/{name}.png)"
            parts[name] = parts[f"picture-{name}"] + "\n\n" + table_of(chosen, link=True)
    logged = {key: runs for key, runs in groups.items() if any(set(LOGGED) & set(r.table) for r in runs)}
    if logged := {key: logged[key] for key in logged if key[1] in FIGURES["continuous"]}:
        logged = align(logged)
        figures["training.png"] = draw_curves(logged, window=5, columns=tuple(LOGGED))
        parts["training"] = "![what training logged]({root}/training.png)\n\n" + logged_table(
            logged, link=True
        )
    for name in "gap", "gap-action", "speed", "speed-cuda":
        if (path := root / f"{name.replace('-', '_')}.csv").exists():
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            if name == "speed":
                measured = table[table["gibibytes"] != ""]
                parts["speed-details"] = csv_table(measured[["task", "system", *DETAILS]])
                table = table.drop(columns=DETAILS)
            parts[name] = csv_table(table)
    for name in {"gap", "gap-action"} & set(parts):
        picture = f"![densities of actions over exp(Q / α) / Z]({{root}}/{name.replace('-', '_')}.png)"
        parts |= {f"picture-{name}": picture, name: picture + "\n\n" + parts[name]}
    if (path := root / "policy.csv").exists():
        picture = "![actions of the base policy, and after the leapfrog, over Q]({root}/policy.png)"
        parts["policy"] = picture + "\n\n" + policy_table(pd.read_csv(path))
    return parts, figures


PLACE = re.compile(r"(<!-- generated: (\S+) -->)(?:(?!<!-- generated).)*?(<!-- end -->)", flags=re.DOTALL)


def fill(text: str, parts: dict[str, str], link: str) -> str:
    """Puts each part between its two marks, <!-- generated: name --> and <!-- end -->."""
    parts = {name: part.replace("{root}", link) for name, part in parts.items()}
    return PLACE.sub(lambda m: f"{m[1]}\n{parts.get(m[2], '(no runs yet)')}\n{m[3]}", text)


@dataclass
class Docs:
    """Rewrites the generated tables and pictures of README.md and docs/*.md from the committed results.

    A part stands between <!-- generated: name --> and <!-- end -->. Names are speed, speed-details,
    speed-cuda and, for picture and table, gap, gap-action, policy, training and the figures in
    experiments.csv; each that exists must have a place in one of the files. A picture alone is
    picture-<name>, and may have one."""

    root: Path = Path("results")  # folder of the results
    files: tuple[Path, ...] = ()  # files with places for parts; else README.md and docs/*.md

    def __call__(self) -> None:
        try:
            files = self.files or (Path("README.md"), *sorted(Path("docs").glob("*.md")))
            texts = {path: path.read_text(encoding="utf-8") for path in files}
        except OSError as error:
            stop(f"--files must be files that exist ({error})")
        parts, figures = generate(self.root)
        for path, text in texts.items():
            if (begun := text.count("<!-- generated: ")) != len(PLACE.findall(text)):
                stop(f"{path}: not each of its {begun} places, <!-- generated: ... -->, has its <!-- end -->")
        places = {match[2] for text in texts.values() for match in PLACE.finditer(text)}
        if missing := [name for name in parts if name not in places and not name.startswith("picture-")]:
            stop(f"no file has a place, <!-- generated: ... -->, for {', '.join(missing)}")
        for name, figure in figures.items():
            save(figure, self.root / name)
        for path, text in texts.items():
            link = Path(os.path.relpath(self.root, path.parent)).as_posix()
            path.write_text(fill(text, parts, link), encoding="utf-8")


def main(words: list[str] | None = None) -> None:
    """Runs the command line, or the one given."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None, if closed
        stream.reconfigure(errors="backslashreplace")  # a terminal may know ASCII only
    commands = {"curves": Curves, "table": Table, "policy": Policy, "gap": Gap, "logs": Logs, "docs": Docs}
    command = tyro.extras.subcommand_cli_from_dict(commands, args=words)
    if (path := getattr(command, "out", None)) and path.suffix not in (".png", ".pdf", ".svg"):
        stop(f"--out must end in .png, .pdf or .svg, not be {path}")
    command()


if __name__ == "__main__":
    main()
