"""Learning curves and tables, of any runs of these scripts.

    python plot.py curves "before=runs/a*" "after=runs/b*"     # two sets of runs in one picture, curves.png
    python plot.py table "before=runs/a*" "after=runs/b*"      # the same runs as a Markdown table
    python plot.py curves runs --columns return_mean values/entropy
    python plot.py table --figure safe                         # of results/, labelled by experiments.csv
    python plot.py docs                                        # writes the docs' tables anew

A run is given as LABEL=GLOB, or as GLOB alone: then its label is that of its folder in benchmark.sh's runs,
or else its algorithm. A glob names folders in which, at any depth, there are eval.csv files of seeds, each
with its run's config.json beside or above it.
What has one task and one label is averaged over seeds. A safe task's limit is part of the task.
"""

import glob
import json
import logging
import re
import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

HERE = Path(__file__).resolve().parent
COMPLETE = 0.8  # of the steps of a task's longest run: what is shorter still runs, or was a trial
NAMES = {"return_mean": "return", "j_c_mean": "cost J_C", "values/entropy": "entropy, nats"}
# Okabe and Ito's colours, which colour-blind readers tell apart, with line styles for print without colours.
BLUE, VERMILION = {"color": "#0072B2", "linestyle": "--"}, {"color": "#D55E00", "linestyle": "-"}
FIXED = {"sac_baseline": BLUE, "sac_hpo_continuous": VERMILION}  # in every picture
COLORS = "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"
LINES = (":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 3)), (0, (2, 2))) * 2
OTHERS = [{"color": COLORS[i], "linestyle": LINES[i + shift]} for shift in range(5) for i in range(5)]
STYLE = {"text.parse_math": False, "axes.grid": True, "grid.alpha": 0.25, "axes.titlesize": 10}
SMALL = "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"
STYLE |= {"legend.frameon": False, "legend.handlelength": 3.5} | dict.fromkeys(SMALL, 8)


def say(message: str) -> None:
    """One line on stderr: what is on stdout can go into a file."""
    print(f"plot.py: {' '.join(message.split())}", file=sys.stderr)


def source_of(word: str) -> tuple[str, str, list[str]]:
    """Label, name and eval.csv files of LABEL=GLOB or GLOB, which may have a = of their own."""
    for end in [0] + [match.end() for match in re.finditer("=", word)]:
        label, pattern = word[:end].removesuffix("="), Path(word[end:]).expanduser()
        if paths := sorted(glob.glob(f"{pattern}/**/eval.csv", recursive=True)):
            return label, label, paths
    raise ValueError(f"{pattern}: there is no folder with an eval.csv in it")


def experiments() -> pd.DataFrame:
    return pd.read_csv(HERE / "experiments.csv", dtype=str, keep_default_na=False)


def committed_sources(figure: str) -> list[tuple[str, str, list[str]]]:
    """The same of results/<task>/<label>, for the labels in experiments.csv or in one of its figures."""
    figures = experiments()["figures"].str.split()
    if figure and figure not in (known := figures.explode().dropna().unique()):
        raise ValueError(f"--figure must be one of {', '.join(known)}, not {figure}")
    shown = experiments()[[not figure or figure in of_label for of_label in figures]]
    paths = [sorted(glob.glob(f"{HERE}/results/*/{label}/seed_*/eval.csv")) for label in shown["label"]]
    return list(zip(shown["label"], shown["name"], paths, strict=True))


def read_tags(folder: Path, steps: pd.Index) -> pd.DataFrame:
    """What training logged for TensorBoard, averaged over the steps from one evaluation to the next."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that a run was resumed is no news
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    columns = {}
    for tag in events.Tags()["scalars"]:
        logged = pd.DataFrame(events.Scalars(tag))
        evaluation = pd.cut(logged["step"], [-1, *steps], labels=steps)  # after the last there is none
        columns[tag] = logged["value"].groupby(evaluation, observed=False).mean()
    return pd.DataFrame(columns, index=steps)


def read_seed(path: Path, label: str, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A row per evaluation, from an eval.csv and, for columns that are not there, TensorBoard's files."""
    folder = path.parent
    above = folder if (folder / "config.json").exists() else folder.parent
    config = json.loads((above / "config.json").read_text(encoding="utf-8"))
    args, table = config["args"], pd.read_csv(path).set_index("global_step")
    rising = table.index.is_monotonic_increasing and table.index.is_unique
    if not (rising and len(table) and np.isfinite(table["return_mean"].astype(float)).all()):
        raise ValueError("eval.csv needs rows, in which global_step rises and return_mean is finite")
    if not set(columns) <= set(table):
        table = table.join(read_tags(folder, table.index))
    if "training_episodes" in table:
        table["training_share_over_limit"] = table.eval("training_episodes_over_limit / training_episodes")
    if not label:  # benchmark.sh has runs in <task>/<label>/
        names = experiments().set_index("label")["name"]
        label = above.parent.name if above.parent.name in names else config["algorithm"]
        name = names.get(label, label)
    task, limit = args["env_id"], args.get("cost_limit", np.nan)
    own = re.fullmatch(r"seed_(\d+)", folder.name)
    facts = {"env": task, "limit": limit, "label": label, "name": name, "folder": str(folder)}
    facts["task"] = task if np.isnan(limit) else f"{task}, J_C of {args['cost']} ≤ {limit:g}"
    facts["seed"] = int(own[1]) if own else args["seed"]  # config.json has the first seed of the run
    return table.reset_index().assign(**facts)


def read_runs(sources: list[tuple], columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """A row per evaluation of every seed. Says which runs cannot be read, and goes on without them."""
    seeds = {}
    for label, name, path in ((label, name, Path(path)) for label, name, paths in sources for path in paths):
        try:
            run = read_seed(path, label, name, columns)
        except (OSError, ValueError, LookupError, TypeError) as error:
            say(f"left out: {path.parent} is no run of these scripts: {type(error).__name__}: {error}")
            continue
        key = tuple(run.loc[0, ["task", "label", "seed"]])
        short, seeds[key] = sorted([seeds.get(key, run), run], key=len)  # of the same length: the later
        if (less := short["folder"][0]) != (more := seeds[key]["folder"][0]):
            say(f"left out: {less}, as {more} has its task, label and seed; LABEL=GLOB tells them apart")
    if not seeds:
        raise ValueError("there is no run of these scripts that was evaluated")
    return pd.concat(seeds.values(), ignore_index=True)


@dataclass
class Selection:
    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # LABEL=GLOB or GLOB (default: results/)
    figure: str = ""  # of results/, by experiments.csv: continuous, safe, ablation, ...
    labels: tuple[str, ...] = ()  # labels to show, else all
    envs: tuple[str, ...] = ()  # tasks to show, else all
    until: int | None = None  # last environment step that counts
    columns: tuple[str, ...] = ()  # of eval.csv, or TensorBoard's tags, such as values/entropy

    def read(self) -> pd.DataFrame:
        """The evaluations to show, of complete runs. Says which runs are not complete."""
        if self.runs and self.figure:
            raise ValueError("--figure is for results/: it does not go with runs of your own")
        runs = read_runs(list(map(source_of, self.runs)) or committed_sources(self.figure), self.columns)
        for option, column, wanted in ("labels", "label", self.labels), ("envs", "env", self.envs):
            if missing := set(wanted) - set(runs[column]):
                there = ", ".join(runs[column].unique())
                raise ValueError(f"--{option}: no runs of {', '.join(sorted(missing))}; there are: {there}")
            runs = runs[runs[column].isin(wanted)] if wanted else runs
        runs = runs[runs["global_step"] <= (self.until or np.inf)]
        if runs.empty:
            raise ValueError("no evaluation of these labels and tasks up to this step")
        if missing := [column for column in self.columns if column not in runs or runs[column].isna().all()]:
            there = ", ".join(runs.select_dtypes("number").columns)
            raise ValueError(f"--columns: no run has {', '.join(missing)}; there are: {there}")
        last = runs.groupby("folder")["global_step"].transform("max")
        longest = runs.groupby("task")["global_step"].transform("max")
        short = last < COMPLETE * longest
        for (folder, end, whole), _ in runs[short].groupby(["folder", last[short], longest[short]]):
            say(f"left out: {folder} ends at step {end}, others at {whole}; --until {end} compares there")
        return runs[~short]


def looks_of(labels: list[str]) -> dict[str, dict]:
    """Label -> colour and line style, no two alike."""
    others = [label for label in labels if label not in FIXED]
    free = OTHERS if len(others) < len(labels) else [*FIXED.values(), *OTHERS]
    if len(others) > len(free):
        raise ValueError(f"{len(others)} labels cannot be told apart in one picture: choose with --labels")
    return FIXED | dict(zip(others, free, strict=False))


def draw_published(axis: Axes, task: str, last: float) -> None:
    """Published means of SAC on the task, plus and minus a standard deviation over seeds, up to a step."""
    published = pd.read_csv(HERE / "results" / "published" / "sac.csv")
    rows = published[(published["task"] == task) & (published["global_step"] <= last)]
    for source, row in rows.groupby("source"):
        x, mean, std = row["global_step"] / 1000, row["return_mean"], row["return_std_over_seeds"]
        name = f"published SAC: {source.split()[0]} (n = {row['seeds'].iloc[0]})"
        axis.fill_between(x, mean - std, mean + std, color="#999999", alpha=0.3, linewidth=0, label=name)
        axis.plot(x, mean, color="#bbbbbb", linewidth=2.5, zorder=1)


def draw_panel(axis: Axes, of_task: pd.DataFrame, column: str, looks: dict, span: int, single: bool) -> None:
    """A column of one task: of each label mean and band or, if `single`, a line per seed."""
    for label, of_label in of_task.groupby("label", sort=False):
        by_seed = of_label.pivot(index="global_step", columns="seed", values=column).dropna()
        if by_seed.empty:
            say(f"left out of {column}: {label} on {of_task['task'].iloc[0]}, as not all its seeds have it")
            continue
        curves = by_seed.set_axis(by_seed.index / 1000).ewm(span=span, adjust=False).mean()
        look = looks[label] | {"marker": "o" if len(curves) == 1 else None}
        if single or curves.shape[1] == 1:
            axis.plot(curves.index, curves, linewidth=1.0, **look)
            continue
        mean, std = curves.mean(axis=1), curves.std(axis=1)
        low = (mean - std).clip(lower=0.0 if column == "j_c_mean" else None)  # no cost is below 0
        axis.plot(mean, linewidth=1.8, **look)
        band = {"facecolor": (look["color"], 0.12), "edgecolor": (look["color"], 0.5), "linewidth": 0.6}
        axis.fill_between(mean.index, low, mean + std, linestyle=look["linestyle"], **band)
    if column == "j_c_mean" and np.isfinite(limit := of_task["limit"].iloc[0]):
        axis.axhline(limit, color="#555555", linewidth=0.9, label="limit of J_C")
    axis.set(xlabel="thousand environment steps", ylabel=NAMES.get(column, column))
    axis.locator_params(axis="x", nbins=5, integer=True)


@dataclass
class Curves(Selection):
    """Learning curves: mean and standard deviation over seeds; behind results/, in grey, published SAC."""

    window: int | None = None  # evaluations of the exponential average (default: 5, if there are fifty)
    single_seeds: bool = False  # a line per seed in the place of mean and band
    out: Path = Path("curves.png")  # file to write; its ending chooses the format (png, pdf, svg)

    @rc_context(STYLE)
    def draw(self, runs: pd.DataFrame) -> Figure:
        """Tasks side by side, three in a row, and columns below one another."""
        columns = self.columns or [column for column in ("return_mean", "j_c_mean") if column in runs]
        tasks, looks = list(runs.groupby("task")), looks_of(list(runs["label"].unique()))
        # Of ten evaluations an average over five would end a quarter below the last: so from fifty on.
        span = self.window or (5 if runs.groupby("folder").size().min() >= 50 else 1)
        across, blocks = min(len(tasks), 3), -(-len(tasks) // 3)
        size = (0.0, 5.6, 9.2, 9.6)[across], 2.4 * blocks * len(columns) + 0.2 * len(looks) / across + 0.7
        figure, entries = Figure(figsize=size, layout="constrained"), {}
        axes = figure.subplots(blocks * len(columns), across, squeeze=False)
        for (label, name), of_label in runs.groupby(["label", "name"], sort=False):
            n = of_label.groupby("task")["seed"].nunique()
            text = f"{name} (n = {' to '.join(map(str, sorted({n.min(), n.max()})))})"
            (entries[text],) = axes[0, 0].plot([], [], **looks[label])
        for i, (task, of_task) in enumerate(tasks):
            panels = axes[i // 3 * len(columns) :, i % 3][: len(columns)]
            panels[0].set_title(task)
            for axis, column in zip(panels, columns, strict=True):
                if of_task[column].notna().any():
                    draw_panel(axis, of_task, column, looks, span, self.single_seeds)
                if column == "return_mean" and not self.runs:
                    draw_published(axis, task, of_task["global_step"].max())
        for axis in axes.flat:
            axis.set_visible(axis.has_data())
            entries |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        title = "a line is one seed" if self.single_seeds else "band: ± one standard deviation over seeds"
        title += f"; exponential average over {span} evaluations" if span > 1 else ""
        place = {"loc": "outside lower center", "ncols": min(across, 2)}
        figure.legend(entries.values(), entries, title=title, **place)
        return figure

    def __call__(self) -> None:
        figure = self.draw(self.read())
        self.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out, dpi=150)
        print(self.out)


CELLS = {  # of a table -> column, of which the mean over seeds is shown, and format
    "J_C": ("j_c_mean", "{:.1f}"),
    "λ": ("lambda", "{:.2f}"),
    "training episodes over the limit": ("training_share_over_limit", "{:.0%}"),
    "Q bias": ("q_bias", "{:+,.1f}"),
}


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.1f}"


def range_of(scores: np.ndarray) -> str:
    """From five seeds on, IQM and its 95 % bootstrap interval, which promises more than it holds of fewer."""
    if len(scores) < 5:
        return f"{number(scores.min())} to {number(scores.max())}"
    iqm = partial(stats.trim_mean, proportiontocut=0.25)
    low, high = stats.bootstrap((scores,), iqm, method="percentile", rng=0).confidence_interval
    return f"{number(iqm(scores))} [{number(low)}, {number(high)}]"


def against(scores: np.ndarray, first: np.ndarray) -> str | None:
    """P and p, as `Table` says; nothing of a single seed, which has no distribution."""
    if scores is first or min(len(scores), len(first)) < 2:
        return None
    u, p = stats.mannwhitneyu(scores, first)
    return f"{u / (len(scores) * len(first)):.2f}, {p:.2f}"


def table_of(runs: pd.DataFrame, columns: tuple[str, ...] = (), score: str = "return_mean") -> str:
    """Final scores in Markdown. A task's runs are compared at the last step at which all were evaluated."""
    if score not in runs or runs[score].isna().any():
        raise ValueError(f"--score: not each evaluation of these runs has {score}")
    rows = []
    for task, of_task in runs.groupby("task"):
        evaluated, first = of_task["global_step"].value_counts(), ()
        shared = evaluated.index[evaluated == of_task.groupby(["label", "seed"]).ngroups]
        if shared.empty:
            raise ValueError(f"{task}: there is no step at which all runs were evaluated")
        step, compared = shared.max(), of_task[of_task["global_step"].isin(shared)]
        for name, group in compared.groupby("name", sort=False):
            final = group[group["global_step"] == step]
            scores, n = final[score].to_numpy(), len(final)
            row = {"task": task, "algorithm": name, "n": f"{n}", "step": f"{step:,}"}
            spread = f" ± {number(scores.std(ddof=1))}" if n > 1 else ""
            row[f"{NAMES.get(score, score)}, mean ± std over seeds"] = number(scores.mean()) + spread
            row["IQM [95 % interval], or range"] = range_of(scores) if n > 1 else None
            over_all = group.groupby("seed")[score].mean().to_numpy()
            first = first or (scores, over_all)
            row["P, p"] = against(scores, first[0])
            row["mean of all evaluations"] = number(over_all.mean())
            row["its P, p"] = against(over_all, first[1])
            for cell, (column, form) in (CELLS | {column: (column, "{:,.2f}") for column in columns}).items():
                shown = column in final and column != score
                value = final[column].mean(skipna=False) if shown else np.nan
                row[cell] = None if np.isnan(value) else form.format(value)
            rows.append(row)
    table = pd.DataFrame(rows, dtype=object).dropna(axis=1, how="all").fillna("–")
    lines = [list(table.columns), ["---"] * table.shape[1], *table.values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


@dataclass
class Table(Selection):
    """Final scores as a Markdown table: at the last step that a task's runs share, never the best.

    IQM is the inter-quartile mean. P is the share of pairs of seeds in which the score is above that of the
    task's first label, p its two-sided Mann-Whitney test. The mean of all evaluations, of those that a task's
    runs share, tells who is faster."""

    score: str = "return_mean"  # the column of eval.csv that is compared

    def __call__(self) -> None:
        print(table_of(self.read(), self.columns, self.score))


BLOCK = re.compile(r"(<!-- command: python plot\.py (.+?) -->\n)(?:(?!<!-- command:).)*?(<!-- end -->)", re.S)


def fill(text: str) -> str:
    """Puts between <!-- command: python plot.py ... --> and <!-- end --> what the command prints."""

    def printed(match: re.Match) -> str:
        with redirect_stdout(StringIO()) as out:
            main(shlex.split(match[2]))
        return match[1] + out.getvalue() + match[3]

    if text.count("<!-- command: python plot.py") != len(BLOCK.findall(text)):
        raise ValueError("not each <!-- command: python plot.py ... --> has its <!-- end -->")
    return BLOCK.sub(printed, text)


@dataclass
class Docs:
    """Writes the tables in README.md and docs/*.md anew: each by the command that stands above it."""

    def __call__(self) -> None:
        for path in HERE / "README.md", *sorted((HERE / "docs").glob("*.md")):
            path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


def main(words: list[str] | None = None) -> None:
    """Runs the command line, or the one given."""
    commands = {"curves": Curves, "table": Table, "docs": Docs}
    tyro.extras.subcommand_cli_from_dict(commands, args=words)()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        say(str(error))
        sys.exit(2)
