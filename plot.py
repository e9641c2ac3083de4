"""Pictures and tables from runs, finished or not: the paper's Figs. 2 to 7, final scores, the README's parts.

    python plot.py curves --figure continuous     # learning curves as in Fig. 2, of results/
    python plot.py table --root runs              # final scores of your own runs
    python plot.py policy runs/<run>              # Fig. 7, from agent_<step>.pt files of a SAC-HPO run
    python plot.py readme                         # rewrites what README.md has from here, and results/*.png

A run is any folder, at any depth under --root, with a config.json and an eval.csv, or with an eval.csv in the
folder seed_<n> of each seed. Its label, what a curve is called, is the folder above seed_<n> in the layout of
benchmark.sh (<task>/<label>/seed_<n>/<run>, or without <run>), elsewhere the script's name.
"""

import csv
import glob
import importlib
import json
import os
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import matplotlib

matplotlib.use("Agg")  # files only: no screen is needed
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import tyro
from scipy import stats

# Label -> how it is called, its colour (Okabe and Ito's, told apart by colour-blind readers) and, for print
# without colours, its line style. In the order of legends and tables.
LABELS = {
    "sac_baseline": ("SAC", "#0072B2", "--"),
    "sac_nf": ("SAC-NF", "#E69F00", "-."),
    "sac_hpo_continuous": ("SAC-HPO", "#D55E00", "-"),
    "sac_lagrangian": ("SAC-Lagrangian", "#0072B2", "--"),
    "sac_hpo_safe": ("safe SAC-HPO", "#D55E00", "-"),
    "baseline-1": ("Baseline-1: conventional leapfrog", "#009E73", ":"),
    "baseline-2": ("Baseline-2: conventional to explore only", "#CC79A7", "-."),
    "baseline-3": ("Baseline-3: proposed to train only", "#56B4E9", (0, (5, 1, 1, 1, 1, 1))),
    "drift": ("drift: momentum without force", "#555555", (0, (1, 3))),
    "base-policy": ("base policy alone, without leapfrog", "#000000", "-"),
    "explore-drift": ("base policy, momentum alone to explore", "#CC79A7", (0, (5, 2))),
    "explore-as-trained": ("SAC-HPO, momentum of training to explore", "#009E73", (0, (3, 1, 1, 1))),
    "no-momentum": ("SAC-HPO, no momentum", "#009E73", ":"),
    "autotune": ("SAC-HPO, temperature learned", "#E69F00", "--"),
    "momentum-in-target": ("SAC-HPO, momentum in the soft target", "#000000", (0, (5, 1, 1, 1, 1, 1))),
    "float32": ("SAC-HPO, nothing rounded", "#009E73", ":"),
    "spreads-exchanged": ("SAC-HPO, spreads of momentum exchanged", "#CC79A7", "-."),
    "online-critic": ("SAC-HPO, critics instead of their targets", "#56B4E9", (0, (5, 1, 1, 1, 1, 1))),
    "action-coordinates": ("SAC-HPO, leapfrog on a, clipped", "#555555", (0, (1, 3))),
    "sac-tianshou": ("SAC, Tianshou's settings", "#009E73", ":"),
    "leapfrog-steps-1": ("K = 1", "#0072B2", "--"),
    "leapfrog-steps-2": ("K = 2", "#D55E00", "-"),
    "leapfrog-steps-3": ("K = 3", "#009E73", ":"),
    "momentum-std-explore-0.5": ("exploration spread 0.5", "#0072B2", "--"),
    "momentum-std-explore-1.0": ("exploration spread 1.0", "#D55E00", "-"),
    "momentum-std-explore-1.5": ("exploration spread 1.5", "#009E73", ":"),
    "momentum-std-train-0.01": ("training spread 0.01", "#0072B2", "--"),
    "momentum-std-train-0.1": ("training spread 0.1", "#D55E00", "-"),
    "momentum-std-train-0.2": ("training spread 0.2", "#009E73", ":"),
}
FIGURES = {
    "continuous": ["sac_baseline", "sac_nf", "sac_hpo_continuous"],  # Fig. 2
    "safe": ["sac_lagrangian", "sac_hpo_safe"],  # Fig. 3
    "ablation": [  # Fig. 4, and controls of ours
        *("sac_baseline", "sac_hpo_continuous", "baseline-1", "baseline-2", "baseline-3"),
        *("drift", "base-policy", "explore-drift", "explore-as-trained"),
    ],
    "sensitivity-steps": [label for label in LABELS if label.startswith("leapfrog-steps-")],  # Fig. 5
    "sensitivity-explore": [label for label in LABELS if label.startswith("momentum-std-explore-")],
    "sensitivity-train": [label for label in LABELS if label.startswith("momentum-std-train-")],
    "momentum": ["sac_hpo_continuous", "no-momentum"],  # Fig. 6
    "choices": [  # not in the paper; the last two are of a script with a few lines changed: see the README
        *("sac_baseline", "sac_hpo_continuous", "momentum-in-target", "autotune", "float32"),
        *("spreads-exchanged", "online-critic", "action-coordinates"),
    ],
    "published": ["sac_baseline", "sac-tianshou"],  # nor this
}
# For labels that are not in the table, and those whose style another label of the same figure has already.
OTHERS = [
    (color, line)
    for line in ("-", "--", "-.", ":")
    for color in ("#000000", "#009E73", "#CC79A7", "#56B4E9", "#0072B2", "#E69F00", "#D55E00")
]
# Settings in which runs of one label may differ: they do not change what is learnt, or make a run longer.
NOT_COMPARED = set(
    "seed num_seeds runs_dir total_timesteps torch_threads cuda eval_frequency checkpoint_frequency "
    "snapshot_frequency capture_video track wandb_project_name wandb_entity resume evaluate".split()
)


def stop(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit status 2."""
    print(f"plot.py: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


def say(message: str) -> None:
    """A remark, on stderr: what is on stdout can go into a file."""
    print(message, file=sys.stderr)


# ------------------------------------------------------------------------------------------------------- runs


class Run(NamedTuple):
    env_id: str
    label: str
    seed: int
    table: np.ndarray  # of eval.csv: one record per evaluation
    config: dict
    folder: Path


Groups = dict[tuple[str, str], list[Run]]  # (task, label) -> its runs, by seed


def read_runs(root: Path) -> Groups:
    """All runs under a folder that were evaluated at least once; exits with status 2 if there is none."""
    groups, empty = defaultdict(dict), 0
    root = root.absolute()  # a label may be the name of a folder above it
    names = glob.glob("**/eval.csv", root_dir=root, recursive=True)  # follows links to other disks
    for path in [root / name for name in sorted(names)]:
        folder = top = path.parent
        own = re.fullmatch(r"seed_(\d+)", folder.name)
        if own and not (folder / "config.json").exists():
            top = folder.parent  # a run with a folder for each of its seeds
        try:
            config = json.loads((top / "config.json").read_text())
            env_id, seed, label = config["args"]["env_id"], config["args"]["seed"], config["algorithm"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            stop(f"{folder} has an eval.csv without a config.json that can be read with it ({error!r})")
        for above in (top, top.parent):
            label = above.parent.name if re.fullmatch(r"seed_\d+", above.name) else label
        seed = int(own[1]) if own else seed  # config.json has the first seed of the run
        try:
            if path.read_text().count("\n") < 2:
                empty += 1
                continue
            table = np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))
            needed = ["global_step", "return_mean"]
            if config["algorithm"] in FIGURES["safe"]:
                needed += ["j_c_mean", "lambda", "training_cost"]
            for column in needed:
                if not np.isfinite(table[column]).all():
                    raise ValueError(f"{column} is not a finite number in every row")
            if (np.diff(table["global_step"]) <= 0).any():
                raise ValueError("global_step does not rise")
        except (OSError, ValueError) as error:
            stop(f"{path} is damaged: {error}")
        run, other = Run(env_id, label, seed, table, config, folder), groups[env_id, label].get(seed)
        if other is not None:
            # Of two that are equally long, the later name.
            less, run = sorted([other, run], key=lambda r: r.table["global_step"][-1])
            same = f"{less.folder} has the task, label and seed of {run.folder}"
            say(f"{same}: the latter counts, being longer or later")
        groups[env_id, label][seed] = run
    for (env_id, label), of_seed in groups.items():
        first, *others = [run.config["args"] for run in of_seed.values()]
        differ = {k for other in others for k in first | other if first.get(k) != other.get(k)} - NOT_COMPARED
        if differ:
            names = ", ".join(sorted(differ))
            say(f"{env_id}, {label}: its seeds differ in {names} as well and are averaged all the same")
    if not groups:
        stop(f"no runs under {root}" + (f" but {empty} that have not been evaluated yet" if empty else ""))
    place = {label: i for i, label in enumerate(LABELS)}
    known = sorted(groups, key=lambda key: (key[0], place.get(key[1], len(place)), key[1]))
    return {key: [groups[key][seed] for seed in sorted(groups[key])] for key in known}


def pick(groups: Groups, labels: list[str], envs: list[str]) -> Groups:
    """Those of the wanted labels and tasks; empty lists leave all. Every task must be there, and a label."""
    kept = {key: runs for key, runs in groups.items() if not labels or key[1] in labels}
    kept = {key: runs for key, runs in kept.items() if not envs or key[0] in envs}
    if not kept or not set(envs) <= {env_id for env_id, _ in kept}:
        found = ", ".join(f"{env_id} {label}" for env_id, label in groups)
        wanted = f"{', '.join(labels) or 'any label'} on {', '.join(envs) or 'any task'}"
        stop(f"no runs of {wanted}; there are: {found}")
    for label in labels:
        if not any(key[1] == label for key in kept):
            say(f"no runs of {label} yet")
    return kept


def common_steps(runs: list[Run]) -> np.ndarray:
    """Steps at which all seeds were evaluated; says so if some go on for longer."""
    steps, name = runs[0].table["global_step"], f"{runs[0].env_id}, {runs[0].label}"
    for run in runs[1:]:
        steps = np.intersect1d(steps, run.table["global_step"])
    ends = {int(run.table["global_step"][-1]) for run in runs}
    if not steps.size:
        stop(f"{name}: its seeds have no evaluation at the same step")
    if len(ends) > 1:
        say(f"{name}: seeds end at {sorted(ends)}; all are cut at step {int(steps[-1])}")
    elif steps.size < max(run.table.size for run in runs):
        say(f"{name}: {steps.size} evaluations are at the same step of all seeds; they count")
    return steps


def up_to(last: int | None, steps: np.ndarray, runs: list[Run]) -> np.ndarray:
    """Steps up to `last`; all if it is None."""
    if last is not None and last < steps[0]:
        name = f"{runs[0].env_id}, {runs[0].label}"
        stop(f"{name}: the first evaluation is at step {int(steps[0])}, after step {last}")
    return steps if last is None else steps[steps <= last]


def values_at(runs: list[Run], steps: np.ndarray, column: str) -> np.ndarray:
    """(seeds, steps)"""
    return np.stack([run.table[column][np.isin(run.table["global_step"], steps)] for run in runs])


def cut_to_compare(groups: Groups) -> Groups:
    """Each task's runs up to the last step at which all of its labels and seeds were evaluated."""
    ends = {}
    for env_id, _ in groups:
        steps = [run.table["global_step"] for key, runs in groups.items() if key[0] == env_id for run in runs]
        shared = reduce(np.intersect1d, steps)
        if not shared.size:
            stop(f"{env_id}: its runs were never evaluated at the same step, so they cannot be compared")
        ends[env_id] = shared[-1]

    def cut(run: Run) -> Run:
        return run._replace(table=run.table[run.table["global_step"] <= ends[run.env_id]])

    return {key: [cut(run) for run in runs] for key, runs in groups.items()}


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Exponential moving average along the last axis; `window` evaluations weigh as 2 / (window + 1) does."""
    smoothed, weight = np.array(values, float), 2.0 / (window + 1.0)
    for i in range(1, values.shape[-1]):
        smoothed[..., i] = (1.0 - weight) * smoothed[..., i - 1] + weight * values[..., i]
    return smoothed


def name_of(label: str) -> str:
    return LABELS[label][0] if label in LABELS else label


def styles(labels: list[str]) -> dict[str, tuple]:
    """Label -> colour and line style; no two labels of a figure look the same."""
    chosen, spare = {}, iter(OTHERS)
    own = {label: LABELS[label][1:] for label in labels if label in LABELS}
    for label in labels:
        look = own.get(label)
        while look is None or look in chosen.values() or (label not in own and look in own.values()):
            look = next(spare)
        chosen[label] = look
    return chosen


# ----------------------------------------------------------------------------------------------------- curves


def draw_curves(groups: Groups, window: int, until: int | None = None) -> plt.Figure:
    """One column of panels per task: return and, where there are costs, the cost that the limit is about."""
    envs = list(dict.fromkeys(env_id for env_id, _ in groups))
    safe = any("j_c_mean" in run.table.dtype.names for runs in groups.values() for run in runs)
    columns = ["return_mean", *(["j_c_mean", "training_cost"] if safe else [])]
    names = {"return_mean": "return", "j_c_mean": "cost J_C", "training_cost": "cost of training so far"}
    smoothed = f", moving average of {window}" if window > 1 else ""
    across = len(envs) if safe else min(len(envs), 4)
    down = len(columns) if safe else -(-len(envs) // 4)
    labels = list(dict.fromkeys(label for _, label in groups))
    looks, many = styles(labels), len(labels) > 3  # the legend of many stands below its panel
    width, height = (6.0 if across == 1 else 4.2) if many else 3.6, 3.2 + 0.16 * len(labels) if many else 2.7
    size = 1.0 + width * across, 0.6 + height * down
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False)
    for (env_id, label), runs in groups.items():
        name, (color, line) = f"{name_of(label)} (n={len(runs)})", looks[label]
        steps = up_to(until, common_steps(runs), runs)
        for row, column in enumerate(columns):
            if column not in runs[0].table.dtype.names:
                continue
            place = envs.index(env_id)
            axis = axes[row, place] if safe else axes[place // 4, place % 4]
            raw = values_at(runs, steps, column)
            values = raw if column == "training_cost" else smooth(raw, window)
            mean, std = values.mean(0), values.std(0, ddof=1) if len(runs) > 1 else None
            axis.plot(steps / 1000.0, mean, color=color, linestyle=line, linewidth=1.8, label=name)
            if std is not None:
                band = {"facecolor": (color, 0.12), "edgecolor": (color, 0.6), "linestyle": line}
                axis.fill_between(steps / 1000.0, mean - std, mean + std, linewidth=0.6, **band)
            if column != "training_cost" and window > 1:  # an average lags: the dot is the table's number
                dot = {"color": color, "marker": "o", "markersize": 5, "clip_on": False}
                axis.plot(steps[-1] / 1000.0, raw[:, -1].mean(), **dot)
            if column == "j_c_mean" and not any(drawn.get_label() == "limit" for drawn in axis.lines):
                limit = runs[0].config["args"]["cost_limit"]
                axis.axhline(limit, color="#555555", linewidth=0.9, label="limit")
            axis.set_title(env_id if row == 0 or not safe else "", fontsize=10)
            axis.set_xlabel("thousand environment steps", fontsize=9)
            axis.set_ylabel(names[column] + (smoothed if column != "training_cost" else ""), fontsize=9)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.25)
    for axis in axes.flat:
        if axis.lines:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2 if across == 1 else 1}
            axis.legend(fontsize=7, frameon=False, **(below if many else {}))
        else:
            axis.set_visible(False)
    figure.tight_layout()
    return figure


def check_ending(path: Path) -> None:
    if path.suffix not in (".png", ".pdf", ".svg"):
        stop(f"--out must end in .png, .pdf or .svg, not be {path}")


def save(figure: plt.Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130, metadata={"Software": None} if path.suffix == ".png" else None)
    except OSError as error:
        stop(f"{path} cannot be written ({error})")
    plt.close(figure)
    print(path)


def labels_of(figure: str, labels: tuple[str, ...]) -> list[str]:
    """Those of a figure, or those given; none means all."""
    if figure not in ("", *FIGURES):
        stop(f"--figure must be one of {', '.join(FIGURES)}, not {figure}")
    if figure and labels:
        stop("--figure chooses the labels: give either --figure or --labels")
    return FIGURES.get(figure, list(labels))


@dataclass
class Curves:
    """Learning curves: mean over seeds and one standard deviation, one panel per task."""

    figure: str = ""
    """which figure's algorithms, as in benchmark.sh: continuous, safe, ablation ...; else --labels or all"""
    root: Path = Path("results")
    """folder under which runs are looked for"""
    labels: tuple[str, ...] = ()
    """algorithms to show, by label"""
    envs: tuple[str, ...] = ()
    """tasks to show"""
    window: int = 5
    """evaluations of the exponential moving average, 5 as in the paper; 1: none"""
    until: int | None = None
    """last environment step to show"""
    out: Path = Path("curves.png")
    """file to write; its ending chooses the format (png, pdf, svg)"""

    def __call__(self) -> None:
        labels = labels_of(self.figure, self.labels)
        check_ending(self.out)
        if self.window < 1:
            stop(f"--window must be 1 or more, not {self.window}")
        groups = pick(read_runs(self.root), labels, list(self.envs))
        save(draw_curves(groups, self.window, self.until), self.out)


# ------------------------------------------------------------------------------------------------------ table


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    return stats.trim_mean(scores, 0.25, axis=axis)


def interval(scores: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the inter-quartile mean, seeds drawn anew within the task."""
    result = stats.bootstrap((scores,), interquartile_mean, method="percentile", n_resamples=10_000, rng=0)
    return result.confidence_interval.low, result.confidence_interval.high


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of pairs of seeds in which ours scores higher; a tie counts half."""
    return float((np.sign(ours[:, None] - theirs[None, :]) * 0.5 + 0.5).mean())


def final_scores(groups: Groups, step: int | None = None) -> dict[tuple[str, str], tuple]:
    """(task, label) -> step of the last evaluation of all seeds (up to `step`), their returns there, runs."""
    scores = {}
    for key, runs in groups.items():
        steps = up_to(step, common_steps(runs), runs)
        scores[key] = int(steps[-1]), values_at(runs, steps[-1:], "return_mean")[:, 0], runs
    return scores


def table_lines(groups: Groups, step: int | None = None) -> list[str]:
    """A Markdown table of the last evaluations: final scores, not best ones."""
    scores = final_scores(groups, step)
    for env_id in dict.fromkeys(env_id for env_id, _ in scores):
        ends = sorted({last for key, (last, _, _) in scores.items() if key[0] == env_id})
        if len(ends) > 1:
            say(f"{env_id}: scores of steps {ends} do not compare; --step {ends[0]} takes all at the same")
    costs = {key for key, (_, _, runs) in scores.items() if "j_c_mean" in runs[0].table.dtype.names}
    compared = any(label == "sac_baseline" for _, label in scores)
    head = ["task", "algorithm", "step", "n", "return, mean ± std", "inter-quartile mean [95 % interval]"]
    head += ["J_C (limit)", "λ", "cost of training"] if costs else []
    head += ["P(better than SAC)"] if compared else []
    biased = any("q_bias" in runs[0].table.dtype.names for _, _, runs in scores.values())
    head += ["Q bias"] if biased else []
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for (env_id, label), (last, values, runs) in scores.items():
        n = len(values)
        spread = f" ± {values.std(ddof=1):,.0f}" if n > 1 else ""
        low_high = "[{:,.0f}, {:,.0f}]".format(*interval(values)) if n > 1 else "(one seed)"
        row = [env_id, name_of(label), f"{last:,}", str(n), f"{values.mean():,.0f}{spread}"]
        row += [f"{interquartile_mean(values):,.0f} {low_high}"]
        if costs and (env_id, label) not in costs:
            row += ["–"] * 3
        elif costs:
            step_of = np.array([last])
            names, limit = ("j_c_mean", "lambda", "training_cost"), runs[0].config["args"]["cost_limit"]
            j_c, multiplier, cost = (values_at(runs, step_of, column).mean() for column in names)
            row += [f"{j_c:.1f} ({limit:.0f})", f"{multiplier:.2f}", f"{cost:,.0f}"]
        if compared:
            sac = scores.get((env_id, "sac_baseline"))
            beside = label != "sac_baseline" and (env_id, label) not in costs and sac is not None
            beside = beside and sac[0] == last and min(n, len(sac[1])) > 1  # one seed has no distribution
            row += [f"{probability_of_improvement(values, sac[1]):.2f}" if beside else "–"]
        if biased:
            known = all("q_bias" in run.table.dtype.names for run in runs)
            row += [f"{values_at(runs, np.array([last]), 'q_bias').mean():+,.0f}" if known else "–"]
        lines.append("| " + " | ".join(row) + " |")
    return lines


@dataclass
class Table:
    """Final scores as a Markdown table: of each seed its last evaluation, of ten episodes, never its best."""

    figure: str = ""
    """which figure's algorithms, as in benchmark.sh: continuous, safe, ablation ...; else --labels or all"""
    root: Path = Path("results")
    """folder under which runs are looked for"""
    labels: tuple[str, ...] = ()
    """algorithms to show, by label"""
    envs: tuple[str, ...] = ()
    """tasks to show"""
    step: int | None = None
    """take the last evaluation up to this step"""

    def __call__(self) -> None:
        labels = labels_of(self.figure, self.labels)
        print("\n".join(table_lines(pick(read_runs(self.root), labels, list(self.envs)), self.step)))


# ----------------------------------------------------------------------------------------------------- policy


def numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Number -> what is in the folder under a name with that number."""
    found = [(re.fullmatch(pattern, path.name), path) for path in folder.glob("*")]
    return {int(match[1]): path for match, path in found if match}


def read_agent(path: Path) -> tuple:
    """The agent of an agent_<step>.pt file, its arguments, the script it is of, its training step."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        algorithm = state["algorithm"]
    except Exception as error:  # a damaged or foreign file raises half a dozen kinds
        stop(f"{path} is no agent file ({(str(error).splitlines() or [repr(error)])[0]})")
    if algorithm != "sac_hpo_continuous":
        stop(f"{path} is an agent of {algorithm}.py; Fig. 7 needs one of sac_hpo_continuous.py")
    script = importlib.import_module(algorithm)
    try:
        args = script.Args(**state["args"])
        agent = script.Agent(1, state["obs_dim"], state["action_low"].numel(), args)
        agent.load_state_dict(state["agent"])
    except (KeyError, TypeError, RuntimeError) as error:
        stop(f"{path} does not fit this version of {algorithm}.py ({error})")
    return agent, args, script, state["global_step"]


def state_of(path: Path, steps: int) -> np.ndarray:
    """Where an agent's deterministic policy is after `steps` steps of an episode, or before the end of it."""
    agent, args, script, _ = read_agent(path)
    env = script.make_env(args)
    obs, _ = env.reset(seed=args.seed)
    for _ in range(steps):
        after, _, terminated, truncated, _ = env.step(agent.act(obs[None])[0])
        if terminated or truncated:
            break
        obs = after
    env.close()
    return obs


def sample_policy(path: Path, obs: np.ndarray, samples: int, dims: tuple[int, int]) -> dict:
    """Actions of base policy and Hamiltonian policy at the state `obs`, and Q over two of their dimensions.

    Evolved actions start from the very u_0 of the base policy's; `drifted` are those again with the same
    momentum but no force. The other dimensions of the action are held at tanh(mean) under the contour.
    """
    import torch

    agent, args, _, step = read_agent(path)
    if max(dims) >= agent.action_dim or min(dims) < 0:
        stop(f"--dims must be two of the action's dimensions, 0 to {agent.action_dim - 1}, not {dims}")
    generator = torch.Generator().manual_seed(args.seed)
    with torch.no_grad():
        many = torch.from_numpy(obs).expand(1, samples, -1)
        xi, zeta = torch.randn(2, 1, samples, agent.action_dim, generator=generator)
        u, rho = agent.policy(many, xi)[0], args.momentum_std_explore * zeta
        actions, q_of = {}, {}
        for name, operator in ("base", "gaussian"), ("drifted", "drift"), ("evolved", args.explore):
            action = agent.policy.to_action(agent.policy.evolve(many, u, rho, operator)[0])
            actions[name], q_of[name] = action[0].numpy(), agent.q_target(many, action).amin(1)[0].numpy()
        axis = torch.linspace(-0.999, 0.999, 61)
        x, y = torch.meshgrid(axis, axis, indexing="xy")
        mean = agent.policy(many[:, :1], torch.zeros(1, 1, agent.action_dim))[0]
        grid = torch.tanh(mean).repeat(1, x.numel(), 1)
        grid[..., dims[0]], grid[..., dims[1]] = x.flatten(), y.flatten()
        q = agent.q_target(many[:, :1].expand(-1, x.numel(), -1), grid).amin(1).view_as(x)
    return {
        "env_id": args.env_id,
        "step": step,
        "axis": axis.numpy(),
        "q": q.numpy(),
        "base": actions["base"][:, list(dims)],
        "evolved": actions["evolved"][:, list(dims)],
        "q_of": q_of,
    }


def draw_policy(panels: list[dict], dims: tuple[int, int]) -> plt.Figure:
    figure, axes = plt.subplots(1, len(panels), figsize=(1.0 + 4.2 * len(panels), 4.2), squeeze=False)
    pale = matplotlib.colors.LinearSegmentedColormap.from_list("pale", ["#8c8c8c", "#ffffff"])
    for axis, panel in zip(axes[0], panels, strict=True):
        contour = axis.contourf(panel["axis"], panel["axis"], panel["q"], levels=20, cmap=pale)
        figure.colorbar(contour, ax=axis, label="Q").ax.tick_params(labelsize=8)
        looks = {"base": ("base policy", "#0072B2", "o", 0.0), "evolved": ("evolved", "#D55E00", "x", 0.5)}
        for key, (name, color, marker, width) in looks.items():
            look = {"color": color, "marker": marker, "linewidths": width, "s": 7, "alpha": 0.7}
            axis.scatter(*panel[key].T, label=f"{name}, mean Q {panel['q_of'][key].mean():.1f}", **look)
        axis.set(xlim=(-1, 1), ylim=(-1, 1), xlabel=f"action {dims[0]}", ylabel=f"action {dims[1]}")
        axis.set_title(f"{panel['env_id']}, step {panel['step']:,}", fontsize=10)
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
        axis.legend(fontsize=7, frameon=False, markerscale=2.0, **place)
    figure.tight_layout()
    return figure


@dataclass
class Policy:
    """Fig. 7: 1,000 actions of base policy and Hamiltonian policy in one state, over the contour of Q.

    Prints how much higher Q is after the leapfrog than at the same actions before, and what the same momentum
    without any force does: means and standard errors over the actions.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """folder of a run of sac_hpo_continuous.py, whose first seed is shown, or seed_<n> in it"""
    at: tuple[int, ...] = ()
    """training steps to show, of agent_<step>.pt files; else the first of those, a middle one and the last"""
    dims: tuple[int, int] = (0, 1)
    """dimensions of the action to show"""
    state_after: int = 50
    """steps of an episode of the last agent shown after which the state is taken"""
    samples: int = 1_000
    """actions of each policy"""
    out: Path = Path("policy.png")
    """file to write; its ending chooses the format"""

    def __call__(self) -> None:
        check_ending(self.out)
        if self.samples < 2:
            stop(f"--samples must be 2 or more, not {self.samples}")
        seeds = numbered(self.run, r"seed_(\d+)")
        folder = seeds[min(seeds)] if seeds else self.run
        files = numbered(folder, r"agent_(\d+)\.pt")
        if not files:
            stop(f"{folder} has no agent_<step>.pt; a run writes one at each checkpoint and at its end")
        there = sorted(files)
        at = self.at or sorted({there[0], there[len(there) // 2], there[-1]})
        for step in at:
            if step not in files:
                stop(f"--at {step}: {folder} has agents of steps {', '.join(map(str, there))}")
        obs = state_of(files[max(at)], self.state_after)
        panels = [sample_policy(files[step], obs, self.samples, self.dims) for step in at]
        for panel in panels:
            q = panel["q_of"]
            changes = [(q[name] - q["base"]) for name in ("evolved", "drifted")]
            whole, noise = (f"{c.mean():+.2f} ({c.std(ddof=1) / self.samples**0.5:.2f})" for c in changes)
            print(f"step {panel['step']}: Q {q['base'].mean():.2f}, leapfrog {whole}, momentum alone {noise}")
        save(draw_policy(panels, self.dims), self.out)


# ----------------------------------------------------------------------------------------------------- readme


def speed_lines(path: Path) -> list[str]:
    """The Markdown table of what `./benchmark.sh speed` measured."""
    with open(path) as file:
        rows = list(csv.DictReader(file))
    head = ["task", "system", "threads", "steps/s, median (lowest to highest)", "times SB3"]
    head += ["share of the limit", "GiB, full buffer", "s to first update"]
    names = "times_sb3", "share_of_limit", "gibibytes", "seconds_to_first_update"
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [row["task"], LABELS.get(row["system"], (row["system"],))[0], row["threads"]]
        cells += [f"{row['steps_per_second']} ({row['lowest']} to {row['highest']})"]
        cells += [row[name] or "–" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    rounds = dict.fromkeys(f"{row['rounds']} rounds on {row['threads']} thread(s)" for row in rows)
    rate, machine = (rows[0][name] for name in ("matrix_gflop_per_second", "machine"))
    products = f"{rate} GFLOP/s in float32 products of 256 × 256 matrices on one thread"
    return [*lines, "", f"{', '.join(rounds)}; {machine}; {products}."]


def gpu_speed_lines(path: Path) -> list[str]:
    """The Markdown table of what `./benchmark.sh speed --cuda` measured, a column per number of seeds."""
    with open(path) as file:
        rows = list(csv.DictReader(file))
    seeds = sorted({int(row["seeds"]) for row in rows})
    lines = [
        "| task | system | " + " | ".join(f"S = {n}" for n in seeds) + " |",
        "| --- " * (2 + len(seeds)) + "|",
    ]
    for task, system in dict.fromkeys((row["task"], row["system"]) for row in rows):
        cells = [task, LABELS[system][0]]
        for n in seeds:
            row = [r for r in rows if (r["task"], r["system"], r["seeds"]) == (task, system, str(n))]
            cells.append(f"{int(row[0]['agent_steps_per_second']):,}" if row else "–")
        lines.append("| " + " | ".join(cells) + " |")
    machines = dict.fromkeys(f"{row['gpu']}; {row['machine']}" for row in rows)
    return [*lines, "", f"{' and '.join(machines)}."]


def generate(root: Path, link: str) -> tuple[dict[str, str], dict[str, plt.Figure]]:
    """The README's generated parts by name, and the pictures by file name, from the runs under `root`, which
    the README calls `link`."""
    groups, parts, figures = read_runs(root), {}, {}
    for name, labels in FIGURES.items():
        chosen = {key: runs for key, runs in groups.items() if key[1] in labels}
        if name in ("ablation", "momentum", "choices", "published"):  # tasks on which more than Fig. 2's ran
            own = {env_id for env_id, label in chosen if label not in FIGURES["continuous"]}
            chosen = {key: runs for key, runs in chosen.items() if key[0] in own}
        if not chosen:
            continue
        chosen = cut_to_compare(chosen)
        figures[f"{name}.png"] = draw_curves(chosen, window=5)
        parts[name] = f"![learning curves]({link}/{name}.png)\n\n" + "\n".join(table_lines(chosen))
    if (root / "speed.csv").exists():
        parts["speed"] = "\n".join(speed_lines(root / "speed.csv"))
    if (root / "speed_cuda.csv").exists():
        parts["speed-cuda"] = "\n".join(gpu_speed_lines(root / "speed_cuda.csv"))
    return parts, figures


def fill(text: str, parts: dict[str, str]) -> str:
    """Puts each part between its two marks, <!-- generated: name --> and <!-- end -->."""

    def replace(match: re.Match) -> str:
        return f"{match[1]}\n{parts.get(match[2], '(no runs yet)')}\n{match[3]}"

    return re.sub(r"(<!-- generated: (\S+) -->).*?(<!-- end -->)", replace, text, flags=re.DOTALL)


@dataclass
class Readme:
    """Rewrites the generated tables and pictures of the README from the committed results."""

    root: Path = Path("results")
    """folder of the results"""
    readme: Path = Path("README.md")
    """file whose generated parts are rewritten"""

    def __call__(self) -> None:
        if not self.readme.is_file():
            stop(f"--readme must be a file, not {self.readme}")
        parts, figures = generate(self.root, Path(os.path.relpath(self.root, self.readme.parent)).as_posix())
        text = self.readme.read_text()
        for name in parts:
            if f"<!-- generated: {name} -->" not in text:
                lines = f"a line <!-- generated: {name} --> and an end"
                stop(f"--readme {self.readme} has no place for {name}: {lines}")
        for name, figure in figures.items():
            save(figure, self.root / name)
        self.readme.write_text(fill(text, parts))


if __name__ == "__main__":
    commands = {"curves": Curves, "table": Table, "policy": Policy, "readme": Readme}
    tyro.extras.subcommand_cli_from_dict(commands)()
