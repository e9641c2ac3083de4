"""The numbers in the prose of docs/results.md and README.md are those of the committed CSV files.

A quote stands for its place in the text. Each number in it is compared with the one computed, to the digits
that it is written with. A number that is in no quote must be one of those that are no result."""

import importlib
import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_args

import plot
import sac_hpo_continuous as hpo

RUNS = plot.read_runs(ROOT / "results")
PUBLISHED = plot.PUBLISHED.set_index(["task", "global_step"])[["return_mean", "return_std_over_seeds"]]
GAPS = pd.read_csv(ROOT / "results" / "gap.csv").set_index(["row", "policy", "actions"])
GAP_ACTION = pd.read_csv(ROOT / "results" / "gap_action.csv").set_index(["row", "policy", "actions"])[
    "KL median"
]
GAP, BEST_GAUSSIAN = GAPS["KL median"], GAPS["best Gaussian"].iloc[0]
MOVED = pd.read_csv(ROOT / "results" / "policy.csv").set_index(["env_id", "coordinates"]).sort_index()
CHEETAH, HOPPER, ANT, BULLET = "HalfCheetah-v4", "Hopper-v4", "Ant-v4", "HumanoidBulletEnv-v0"
HPO, SAC, NF = "sac_hpo_continuous", "sac_baseline", "sac_nf"
ACTION = "action-coordinates"


def plain(name: str) -> str:
    """A page without what is generated, code, links' targets, headings and line breaks."""
    text = plot.PLACE.sub("", (ROOT / name).read_text())
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    return " ".join(re.sub(r"`[^`]*`|\]\([^)\s]*\)", "", text).split())


TEXT = {name: plain(f"docs/{name}.md") for name in ("results", "departures", "speed")}
TEXT["README"] = plain("README.md")
NUMBER = re.compile(r"(?<![\w.])[−+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w])")


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text)


def of(task: str, label: str, step: int | None = None, column: str = "return_mean") -> np.ndarray:
    """A column of each seed's eval.csv, at a step or at the last one."""
    tables = [run.table for run in RUNS[task, label]]
    return np.array([table.loc[step or table.index[-1], column] for table in tables], float)


def ends(*arguments, **options) -> tuple[float, float]:
    values = of(*arguments, **options)
    return min(values), max(values)


def along(task: str, label: str, first: int, last: int, column: str = "return_mean") -> np.ndarray:
    return np.concatenate([run.table.loc[first:last, column].to_numpy() for run in RUNS[task, label]])


def better(task: str, label: str, other: str, step: int) -> tuple[float, float]:
    """Share of pairs of seeds, and its p."""
    return plot.better(of(task, label, step), of(task, other, step))


def spread(*arguments) -> tuple[float, float]:
    """Mean and standard deviation over seeds."""
    values = of(*arguments)
    return values.mean(), values.std(ddof=1)


def whole(task: str, label: str, until: int) -> np.ndarray:
    """Each seed's mean of all evaluations up to a step."""
    return np.array([run.table.loc[:until, "return_mean"].mean() for run in RUNS[task, label]])


def over_the_limit(task: str, label: str, step: int) -> list[float]:
    """Episodes of training over the limit, and all, of all seeds together."""
    return [
        of(task, label, step, column).sum()
        for column in ("training_episodes_over_limit", "training_episodes")
    ]


def moved(task: str, coordinates: str, column: str) -> tuple[float, float]:
    """The lowest and the highest of all agents of Fig. 7."""
    values = MOVED.loc[task, coordinates][column]
    return values.min(), values.max()


def with_the_earlier_form() -> tuple[float, float]:
    """SAC-HPO against drift, three seeds more of each, whose scores stand in the text."""
    hamiltonian = [*of(CHEETAH, HPO, 50_000), 698.0, 1761.0, 2225.0]
    return plot.better(np.array(hamiltonian), np.array([*of(CHEETAH, "drift", 50_000), 570.0, 760.0, 801.0]))


def since(task: str, label: str, first: int, column: str) -> float:
    """By how much a sum over training has grown since a step, of one seed."""
    return float(of(task, label, column=column)[0] - of(task, label, first, column)[0])


def mean(*arguments, **options) -> float:
    return float(of(*arguments, **options).mean())


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "results" / name)


def weights(script: str, task: str = CHEETAH) -> int:
    """In the policy."""
    module = importlib.import_module(script)
    args = module.resolve(make_args(module, env_id=task))
    made, env = module.make_task(args)
    agent = module.Agent(1, env.obs_dim, env.action_dim, made)
    return sum(weight.numel() for weight in agent.policy.parameters())


def hours(system: str, seeds: int = 1) -> float:
    """Of a million steps of each seed, on one core."""
    speed = table("speed.csv").set_index(["task", "system", "seeds", "threads"])["steps_per_second"]
    return 1e6 / speed[HOPPER, system, seeds, 1] / 3600


def minutes(system: str) -> float:
    """Of a million steps of five seeds on a GPU."""
    speed = table("speed_cuda.csv").set_index(["system", "seeds"])["steps_per_second"]
    return 1e6 / speed[system, 5] / 60


def lowest_transform() -> int:
    """The step at which |T_h| is smallest in action coordinates."""
    norms = [run.table["values/transform_norm"] for run in RUNS[HOPPER, ACTION]]
    return pd.concat(norms, axis=1).mean(axis=1).idxmin()


def charge_of(force: float) -> float:
    """What a constant force of that length adds to (beta_0 / 2) |rho_K|^2 in Hopper's row: K steps change rho
    by K epsilon times it; that it is as often along rho_0 as against it adds nothing on average."""
    args = hpo.resolve(hpo.Args(env_id=HOPPER))
    return 0.5 * (args.leapfrog_steps * args.step_size * force / args.momentum_std_train) ** 2


# Quote -> the numbers in it, in their order.
FACTS = {
    "with three seeds it holds the true median 75 % of the time, with two 50 %": lambda: [
        100 * (1 - 2 / 2**n) for n in (3, 2)
    ],
    "cut off at 190,000 of 250,000 steps": lambda: [
        RUNS[HOPPER, SAC][0].table.index[-1],
        RUNS[HOPPER, SAC][0].args["total_timesteps"],
    ],
    "SAC-Lagrangian to 31.5 at a J_C of 0.0, safe SAC-HPO to 547 at 10.8": lambda: [
        of(CHEETAH, label, column=column)[0]
        for label in ("sac_lagrangian", "sac_hpo_safe")
        for column in ("return_mean", "j_c_mean")
    ],
    "HalfCheetah-v4 the band's mean ends at 7,024 and our SAC's at 4,185": lambda: [
        PUBLISHED.loc[CHEETAH].loc[:150_500]["return_mean"].iloc[-1],
        mean(CHEETAH, SAC, 150_000),
    ],
    "on one peak (KL 0.70); the best Gaussian covers both (KL 0.58)": lambda: [
        GAP["HalfCheetah", "gaussian", "in updates"],
        BEST_GAUSSIAN,
    ],
    "the proposed leapfrog does better, 0.46, with Walker2d's a little better, 0.53": lambda: [
        GAP[row, "proposed", "in updates"] for row in ("HalfCheetah", "Walker2d")
    ],
    "is far worse, 1.53 and 2.09": lambda: [
        GAP[row, "proposed", "exploring"] for row in ("Hopper", "Walker2d")
    ],
    "Means are 2,992 (SAC), 1,688 (SAC-NF), 1,754 (pre-tanh) and 1,991 (action)": lambda: [
        mean(HOPPER, label, 190_000) for label in (SAC, NF, HPO, ACTION)
    ],
    "have learnt to hop, with 2,727 to 3,198": lambda: ends(HOPPER, SAC),
    "two have: 549, 692, 920, 3,007 and 3,273": lambda: np.sort(of(HOPPER, NF, 190_000)),
    "the action's 821, 1,162, 2,340, 2,375 and 3,256": lambda: np.sort(of(HOPPER, ACTION, 190_000)),
    "Pre-tanh's have 729, 967, 1,122, 2,896 and 3,055": lambda: np.sort(of(HOPPER, HPO, 190_000)),
    "wins 5 of the 25 pairs of seeds against SAC (p = 0.15)": lambda: [
        *(25 * better(HOPPER, ACTION, SAC, 190_000)[0], 25),
        better(HOPPER, HPO, SAC, 190_000)[1],
    ],
    "15 of 25 against SAC-NF (p = 0.69)": lambda: [
        *(25 * better(HOPPER, ACTION, NF, 190_000)[0], 25),
        better(HOPPER, HPO, NF, 190_000)[1],
    ],
    "Hopper-v4, 190,000, n = 5: behind SAC, p = 0.15": lambda: [
        *(190_000, len(of(HOPPER, SAC))),
        better(HOPPER, HPO, SAC, 190_000)[1],
    ],
    "without gradient, p = 0.10; with the earlier form's runs, pooled afterwards, n = 6, p = 0.03": lambda: [
        *(better(CHEETAH, HPO, "drift", 50_000)[1], 6, with_the_earlier_form()[1])
    ],
    "Of all twelve together, put together afterwards, SAC-HPO wins 32 of 36 pairs (p = 0.03)": lambda: [
        *(36 * with_the_earlier_form()[0], 36, with_the_earlier_form()[1])
    ],
    "last five are 2,386 (SAC), 1,426 (SAC-NF), 1,522 (pre-tanh) and 1,542 (action)": lambda: [
        np.mean(along(HOPPER, label, 150_000, 190_000)) for label in (SAC, NF, HPO, ACTION)
    ],
    "At 150,000 steps SAC had 1,301, the three others 997, 1,362 and 1,338": lambda: [
        150_000,
        *(mean(HOPPER, label, 150_000) for label in (SAC, NF, HPO, ACTION)),
    ],
    "SAC-NF has 1,758 and pre-tanh 1,884 at 200,000 steps": lambda: [
        *(mean(HOPPER, NF, 200_000), mean(HOPPER, HPO, 200_000), 200_000),
    ],
    ", action 2,594 at 240,000 and 2,214 at 250,000": lambda: [
        *(mean(HOPPER, ACTION, 240_000), 240_000),
        *(mean(HOPPER, ACTION, 250_000), 250_000),
    ],
    "The published SAC has 2,205 ± 1,007 at 183,000 (ten seeds)": lambda: [
        *PUBLISHED.loc[HOPPER].loc[:183_500].iloc[-1],
        183_000,
    ],
    "SAC-NF's and SAC-HPO's pre-tanh runs have got to 200,000, the action's to 250,000": lambda: [
        RUNS[HOPPER, label][0].table.index[-1] for label in (HPO, ACTION)
    ],
    "the base policy alone to 100,000 of 150,000": lambda: [
        RUNS[HOPPER, "base-policy"][0].table.index[-1],
        RUNS[HOPPER, "base-policy"][0].args["total_timesteps"],
    ],
    "one hidden layer, with 8 % of the weights of SAC's policy (SAC-NF's has 7 %)": lambda: [
        100 * weights(script, HOPPER) / weights(SAC, HOPPER) for script in (HPO, NF)
    ],
    "the charge is 1.49 to 1.57 all along": lambda: [
        min(along(HOPPER, HPO, 10_000, 250_000, "values/momentum_penalty")),
        max(along(HOPPER, ACTION, 10_000, 250_000, "values/momentum_penalty")),
    ],
    "at 10,000 steps σ_h is 0.26 in action coordinates": lambda: [
        10_000,
        mean(HOPPER, ACTION, 10_000, "values/gate"),
    ],
    "without T_h would add about 0.3 to the charge, and 0.03 is what is added": lambda: [
        charge_of(mean(HOPPER, ACTION, 10_000, "values/gate")),
        mean(HOPPER, ACTION, 10_000, "values/momentum_penalty") - 1.5,
    ],
    "σ_h itself falls, to 0.08 in both coordinates": lambda: [mean(HOPPER, HPO, None, "values/gate")],
    "‖T_h‖ falls to 0.05 in both (action: at 150,000)": lambda: [
        mean(HOPPER, HPO, None, "values/transform_norm"),
        lowest_transform(),
    ],
    "in action coordinates rises again, to 0.11 at 250,000": lambda: [
        mean(HOPPER, ACTION, 250_000, "values/transform_norm"),
        250_000,
    ],
    "(biases of −19 and −9 at 190,000 steps, SAC's −24)": lambda: [
        *(mean(HOPPER, label, 190_000, "q_bias") for label in (HPO, ACTION)),
        190_000,
        mean(HOPPER, SAC, 190_000, "q_bias"),
    ],
    "behind after 190,000 steps: 1,754 or 1,991, against SAC's 2,992 (p = 0.15)": lambda: [
        190_000,
        *(mean(HOPPER, label, 190_000) for label in (HPO, ACTION, SAC)),
        better(HOPPER, ACTION, SAC, 190_000)[1],
    ],
    "SAC-NF ends at 3,790 on HalfCheetah-v4 and at 1,688 on Hopper-v4": lambda: [
        mean(CHEETAH, NF, 150_000),
        mean(HOPPER, NF, 190_000),
    ],
    "higher after 150,000 steps: 4,938 or 5,640, in two readings of the paper, against SAC's 4,185": lambda: [
        *(150_000, mean(CHEETAH, HPO, 150_000), mean(CHEETAH, ACTION, 150_000)),
        mean(CHEETAH, SAC, 150_000),
    ],
    "Three seeds do not settle it (p = 1.00 and 0.40)": lambda: [
        better(CHEETAH, label, SAC, 150_000)[1] for label in (HPO, ACTION)
    ],
    "150,000 steps, n = 3: higher means than SAC, p = 1.00 and 0.40": lambda: [
        *(150_000, len(of(CHEETAH, SAC))),
        *(better(CHEETAH, label, SAC, 150_000)[1] for label in (HPO, ACTION)),
    ],
    "higher means at 150,000 steps, 4,938 and 5,640 in the two": lambda: [
        150_000,
        *(mean(CHEETAH, label, 150_000) for label in (HPO, ACTION)),
    ],
    "action, against 4,185 (SAC) and 3,790 (SAC-NF)": lambda: [
        mean(CHEETAH, label, 150_000) for label in (SAC, NF)
    ],
    "do not settle it: p = 1.00 and 0.40 against SAC": lambda: [
        better(CHEETAH, label, SAC, 150_000)[1] for label in (HPO, ACTION)
    ],
    "they win 8 (p = 0.20) and all 9 of the pairs (p = 0.10)": lambda: [
        value
        for pairs, p in [better(CHEETAH, label, NF, 150_000) for label in (HPO, ACTION)]
        for value in (9 * pairs, p)
    ],
    "than SAC-NF, p = 0.20 and 0.10": lambda: [
        better(CHEETAH, label, NF, 150_000)[1] for label in (HPO, ACTION)
    ],
    "Of all evaluations the means are 2,170 (SAC), 1,867 (SAC-NF), 2,478 (pre-tanh) and 3,089": lambda: [
        whole(CHEETAH, label, 150_000).mean() for label in (SAC, NF, HPO, ACTION)
    ],
    "Against SAC p is 1.00 and 0.20, so this": lambda: [
        plot.better(whole(CHEETAH, label, 150_000), whole(CHEETAH, SAC, 150_000))[1]
        for label in (HPO, ACTION)
    ],
    "Of all evaluations the means are 1,255, 816, 885 and 862": lambda: [
        whole(HOPPER, label, 190_000).mean() for label in (SAC, NF, HPO, ACTION)
    ],
    "is not faster either (p = 0.22 and 0.15)": lambda: [
        plot.better(whole(HOPPER, label, 190_000), whole(HOPPER, SAC, 190_000))[1] for label in (HPO, ACTION)
    ],
    "over the last five the means are 1,522 or 1,542 against 2,386": lambda: [
        np.mean(along(HOPPER, label, 150_000, 190_000)) for label in (HPO, ACTION, SAC)
    ],
    "with 72 against 80 of 180 episodes over it": lambda: [
        *(
            over_the_limit(CHEETAH, "sac_hpo_safe", 60_000)[0],
            *over_the_limit(CHEETAH, "sac_lagrangian", 60_000),
        ),
    ],
    "less return, 181 of 266 against 109 of 159": lambda: [
        *over_the_limit(ANT, "sac_hpo_safe", 100_000),
        *over_the_limit(ANT, "sac_lagrangian", 100_000),
    ],
    "Q is higher by 0.14 to 0.83 (pre-tanh) and by 0.50 to 5.83 (action)": lambda: [
        *moved(CHEETAH, "pre-tanh", "leapfrog"),
        *moved(CHEETAH, "action", "leapfrog"),
    ],
    "for 72 to 85 % and 87 to 98 % of the actions": lambda: [
        100 * share
        for coordinates in ("pre-tanh", "action")
        for share in moved(CHEETAH, coordinates, "share_higher")
    ],
    "Q is lower by 0.09 to 1.52 after the leapfrog": lambda: [
        -MOVED.loc[HOPPER]["leapfrog"].max(),
        -MOVED.loc[HOPPER]["leapfrog"].min(),
    ],
    "by no more than 0.03 less than after the momentum alone": lambda: [
        (MOVED.loc[HOPPER]["leapfrog"] - MOVED.loc[HOPPER]["momentum_alone"]).max()
    ],
    "20 states of an episode of an agent, 200 actions in each": lambda: [
        *MOVED["states"].unique(),
        *MOVED["actions"].unique(),
    ],
    "to the end: 1,666, where the others have 5,005 and 5,884": lambda: np.sort(of(CHEETAH, SAC, 150_000)),
    "with 4,108 and 2,396, and the third has 4,868": lambda: of(CHEETAH, NF, 150_000)[[0, 2, 1]],
    "end with 4,483, 5,075 and 5,254 (pre-tanh) and 5,125, 5,709 and 6,085 (action)": lambda: [
        *np.sort(of(CHEETAH, HPO, 150_000)),
        *np.sort(of(CHEETAH, ACTION, 150_000)),
    ],
    "where these have 3,141, 2,227 and 3,598, and action 4,459": lambda: [
        mean(CHEETAH, label, 100_000) for label in (SAC, NF, HPO, ACTION)
    ],
    "ρ₀ alone makes 3.0": lambda: [6 / 2],
    "With the force it is 3.02 (pre-tanh) and 2.58 (action) at 10,000 steps": lambda: [
        *(mean(CHEETAH, label, 10_000, "values/momentum_penalty") for label in (HPO, ACTION)),
        10_000,
    ],
    ", 3.72 and 4.33 at 150,000. σ_h": lambda: [
        *(mean(CHEETAH, label, 150_000, "values/momentum_penalty") for label in (HPO, ACTION)),
        150_000,
    ],
    "from 0.09 and 0.14 to 0.40 and 0.40 (action: with a peak of 0.56 at 50,000)": lambda: [
        *(mean(CHEETAH, label, step, "values/gate") for step in (10_000, 150_000) for label in (HPO, ACTION)),
        mean(CHEETAH, ACTION, 50_000, "values/gate"),
        50_000,
    ],
    "from 2.6 and 2.6 to 9.6 and 14.2. Exploring": lambda: [
        mean(CHEETAH, label, step, "values/transform_norm")
        for step in (10_000, 150_000)
        for label in (HPO, ACTION)
    ],
    "against SAC's 2,992": lambda: [mean(HOPPER, SAC)],
    "action 1,991 ± 990, pre-tanh 1,754 ± 1,125, SAC 2,992 ± 197": lambda: [
        value for label in (ACTION, HPO, SAC) for value in spread(HOPPER, label, 190_000)
    ],
    "action 5,640 ± 484, pre-tanh 4,938 ± 404, SAC 4,185 ± 2,226": lambda: [
        value for label in (ACTION, HPO, SAC) for value in spread(CHEETAH, label, 150_000)
    ],
    "SAC-HPO's policy has 14 % of the weights of SAC's, SAC-NF's 11 %": lambda: [
        100 * weights(script) / weights(SAC) for script in (HPO, NF)
    ],
    "adds noise of standard deviation 0.45 to what it moves at each step": lambda: [
        args.step_size * args.leapfrog_steps * args.momentum_std_explore  # without force it goes straight on
        for args in [hpo.resolve(hpo.Args(env_id=HOPPER))]
    ],
    "five seeds, has 1,379 ± 1,018 at 100,000 steps: level with SAC's 1,185 (p = 1.00), and ahead "
    "of pre-tanh's 680 in 18 of 25 pairs (p = 0.31)": lambda: [
        *(*spread(HOPPER, "base-policy", 100_000), 100_000),
        *(mean(HOPPER, SAC, 100_000), better(HOPPER, "base-policy", SAC, 100_000)[1]),
        *(mean(HOPPER, HPO, 100_000), 25 * better(HOPPER, "base-policy", HPO, 100_000)[0], 25),
        better(HOPPER, "base-policy", HPO, 100_000)[1],
    ],
    "that explores with that noise reaches 345": lambda: of(HOPPER, "explore-drift", 100_000),
    "do as well as the base policy, and reaches 431": lambda: of(HOPPER, "explore-as-trained", 100_000),
    "SAC-HPO's bias is +175 and +315 at 20,000 and 30,000 steps": lambda: [
        *(mean(BULLET, HPO, step, "q_bias") for step in (20_000, 30_000)),
        20_000,
        30_000,
    ],
    "SAC's +25 and +69; at 10,000 both have −20": lambda: [
        *(mean(BULLET, SAC, step, "q_bias") for step in (20_000, 30_000)),
        10_000,
        mean(BULLET, HPO, 10_000, "q_bias"),
    ],
    "With the momentum in the target it is +193": lambda: of(BULLET, "momentum-in-target", column="q_bias"),
    "both peaks and has 0.583. Trained ones have 0.587 to 0.702": lambda: [
        BEST_GAUSSIAN,
        *GAPS.loc["HalfCheetah", "gaussian", "in updates"][["lowest", "highest"]],
    ],
    "better than any Gaussian: KL 0.46. In Walker2d's it is a little better than any, 0.53": lambda: [
        GAP[row, "proposed", "in updates"] for row in ("HalfCheetah", "Walker2d")
    ],
    "In Hopper's row it is the trained Gaussian, 0.70": lambda: [GAP["Hopper", "proposed", "in updates"]],
    "rows add noise that no training sees: 1.53 and 2.09": lambda: [
        GAP[row, "proposed", "exploring"] for row in ("Hopper", "Walker2d")
    ],
    "to the bounds of the action: 22 to 26": lambda: [
        min(GAP.xs("conventional", level="policy")),
        max(GAP.xs("conventional", level="policy")),
    ],
    "worse than the trained Gaussian: 0.81. In Walker2d's it is better than any Gaussian, 0.50": lambda: [
        GAP_ACTION[row, "proposed", "in updates"] for row in ("HalfCheetah", "Walker2d")
    ],
    "in Hopper's and Walker2d's rows is further off still: 4.29 and 5.85": lambda: [
        GAP_ACTION[row, "proposed", "exploring"] for row in ("Hopper", "Walker2d")
    ],
    "conventional chain does better here, 0.76 to 9.86": lambda: [
        min(GAP_ACTION.xs("conventional", level="policy")),
        max(GAP_ACTION.xs("conventional", level="policy")),
    ],
    "settings end behind the Gaussian, 0.81, because of the few actions that land on the bounds; "
    "Walker2d's have 0.50, Hopper's 0.70": lambda: [
        GAP_ACTION[row, "proposed", "in updates"] for row in ("HalfCheetah", "Walker2d", "Hopper")
    ],
    "score 4,327 ± 225 and 6,213 ± 461 on HalfCheetah-v3 after 50,000 and 100,000 steps": lambda: [
        *PUBLISHED.loc["HalfCheetah-v3", 50_000],
        *PUBLISHED.loc["HalfCheetah-v3", 100_000],
        50_000,
        100_000,
    ],
    "one seed of our SAC scores 4,623 and 6,031 on HalfCheetah-v4": lambda: [
        *of(CHEETAH, "sac-tianshou", 50_000),
        *of(CHEETAH, "sac-tianshou", 100_000),
    ],
    "rate alone three seeds have 5,146 ± 2,878 after 150,000 steps, and 4,185 ± 2,226": lambda: [
        *(*spread(CHEETAH, "sac-fast", 150_000), 150_000),
        *spread(CHEETAH, SAC, 150_000),
    ],
    "ahead seed by seed, at each of the 15 evaluations": lambda: [
        np.count_nonzero(
            [
                (of(CHEETAH, "sac-fast", step) > of(CHEETAH, SAC, step)).all()
                for step in range(10_000, 150_001, 10_000)
            ]
        )
    ],
    "the higher rate wins 7 (p = 0.40)": lambda: [
        9 * better(CHEETAH, "sac-fast", SAC, 150_000)[0],
        better(CHEETAH, "sac-fast", SAC, 150_000)[1],
    ],
    "on its back, with either rate: 1,952 and 1,666": lambda: [
        of(CHEETAH, label, 150_000)[2] for label in ("sac-fast", SAC)
    ],
    "such a seed: 7,024 ± 929 (SimbaV2) and 7,199 ± 701 (Tianshou) after 150,000 steps": lambda: [
        *PUBLISHED.loc[CHEETAH].loc[:150_500].iloc[-1],
        *(*PUBLISHED.loc["HalfCheetah-v3", 150_000], 150_000),
    ],
    "The two other seeds have 5,951 and 7,537, the second within the published range; "
    "with the paper's rate 5,005 and 5,884": lambda: [
        *np.sort(of(CHEETAH, "sac-fast", 150_000))[1:],
        *np.sort(of(CHEETAH, SAC, 150_000))[1:],
    ],
    "After 50,000 steps it was 3,442 and 4,308 against 1,077 and 1,416": lambda: [
        50_000,
        *np.sort(of(CHEETAH, "sac-fast", 50_000)[:2]),
        *np.sort(of(CHEETAH, SAC, 50_000)[:2]),
    ],
    "on its back ours has 5,005 and 5,884, and 5,951 and 7,537 with": lambda: [
        *np.sort(of(CHEETAH, SAC, 150_000))[1:],
        *np.sort(of(CHEETAH, "sac-fast", 150_000))[1:],
    ],
    "0.001 alone reach 5,146 ± 2,878, these settings 4,185 ± 2,226": lambda: [
        *(0.001, *spread(CHEETAH, "sac-fast", 150_000)),
        *spread(CHEETAH, SAC, 150_000),
    ],
    "(Baseline-1) has the higher mean, 2,044 against 1,196: SAC-HPO wins 3 of the 9 pairs against it "
    "(p = 0.70)": lambda: [
        *(1, mean(CHEETAH, "baseline-1", 50_000), mean(CHEETAH, HPO, 50_000)),
        *(9 * better(CHEETAH, HPO, "baseline-1", 50_000)[0], 9),
        better(CHEETAH, HPO, "baseline-1", 50_000)[1],
    ],
    "(Baseline-2) has 831, in training alone (Baseline-3) 895, and of their pairs the first wins 5 of 9 "
    "(p = 1.00)": lambda: [
        *(2, mean(CHEETAH, "baseline-2", 50_000), 3, mean(CHEETAH, "baseline-3", 50_000)),
        *(9 * better(CHEETAH, "baseline-2", "baseline-3", 50_000)[0], 9),
        better(CHEETAH, "baseline-2", "baseline-3", 50_000)[1],
    ],
    "wins all 9 pairs against Baseline-2 (p = 0.10, a weak sign) and 7 against Baseline-3 (p = 0.40), "
    "as Baseline-1 wins 8 against each (p = 0.20)": lambda: [
        *(
            9 * better(CHEETAH, HPO, "baseline-2", 50_000)[0],
            2,
            better(CHEETAH, HPO, "baseline-2", 50_000)[1],
        ),
        *(
            9 * better(CHEETAH, HPO, "baseline-3", 50_000)[0],
            3,
            better(CHEETAH, HPO, "baseline-3", 50_000)[1],
        ),
        *(1, 9 * better(CHEETAH, "baseline-1", "baseline-2", 50_000)[0]),
        better(CHEETAH, "baseline-1", "baseline-3", 50_000)[1],
    ],
    "the conventional one has the higher mean, p = 0.70": lambda: [
        better(CHEETAH, HPO, "baseline-1", 50_000)[1]
    ],
    "n = 3: no difference seen, p = 1.00": lambda: [
        *(3, better(CHEETAH, "baseline-2", "baseline-3", 50_000)[1])
    ],
    "SAC-HPO's three seeds, 962 to 1,468, lie above": lambda: ends(CHEETAH, HPO, 50_000),
    "the momentum without any force (527 to 886; p = 0.10)": lambda: [
        *ends(CHEETAH, "drift", 50_000),
        better(CHEETAH, HPO, "drift", 50_000)[1],
    ],
    "a weak sign: three seeds, 220 to 404, below all three with momentum (p = 0.10)": lambda: [
        *ends(CHEETAH, "no-momentum", 50_000),
        better(CHEETAH, "no-momentum", HPO, 50_000)[1],
    ],
    "n = 3: all seeds below all with momentum, p = 0.10": lambda: [
        *(3, better(CHEETAH, "no-momentum", HPO, 50_000)[1])
    ],
    "the objective sees rises to 9.6 to 9.8 nats": lambda: ends(
        CHEETAH, "no-momentum", 50_000, column="values/entropy"
    ),
    "‖T_h‖ grows to 63 to 98,": lambda: ends(CHEETAH, "no-momentum", 50_000, column="values/transform_norm"),
    "has more than 6 log 2 = 4.2": lambda: [6, 2, 6 * np.log(2)],
    "exceeds the return by 115 to 124 at the end, as a bonus for such an entropy would make it. "
    "That of SAC-HPO falls short by 68": lambda: [
        *ends(CHEETAH, "no-momentum", column="q_bias"),
        -mean(CHEETAH, HPO, 50_000, "q_bias"),
    ],
    "average torque of 25.0 % (SAC-Lagrangian) and 23.6 % (safe SAC-HPO) was spent": lambda: [
        since(ANT, label, 50_000, "training_cost") / 500 for label in ("sac_lagrangian", "sac_hpo_safe")
    ],
    "26 of 58 and 38 of 112 episodes were over the limit": lambda: [
        since(ANT, label, 50_000, column)
        for label in ("sac_lagrangian", "sac_hpo_safe")
        for column in ("training_episodes_over_limit", "training_episodes")
    ],
    "SAC-Lagrangian ends at 1,756; safe SAC-HPO, at 1,007": lambda: [
        *of(ANT, "sac_lagrangian"),
        *of(ANT, "sac_hpo_safe"),
    ],
    "The 60 training episodes of a seed cost 3,426 to 5,039 (SAC-Lagrangian) and 4,515 to 4,665": lambda: [
        mean(CHEETAH, "sac_lagrangian", 60_000, "training_episodes"),
        *ends(CHEETAH, "sac_lagrangian", 60_000, "training_cost"),
        *ends(CHEETAH, "sac_hpo_safe", 60_000, "training_cost"),
    ],
    "24 to 28 and 22 to 26 of them were over it": lambda: [
        *ends(CHEETAH, "sac_lagrangian", 60_000, "training_episodes_over_limit"),
        *ends(CHEETAH, "sac_hpo_safe", 60_000, "training_episodes_over_limit"),
    ],
    "One seed of each earns more than 100: 311 at a J_C of 0.3, and 720 at 14.6": lambda: [
        100,
        *(
            of(CHEETAH, label, 60_000, column)[np.argmax(of(CHEETAH, label, 60_000))]
            for label in ("sac_lagrangian", "sac_hpo_safe")
            for column in ("return_mean", "j_c_mean")
        ),
    ],
    "1,196 ± 255 rounded, 1,348 ± 135 unrounded": lambda: [
        *spread(CHEETAH, HPO, 50_000),
        *spread(CHEETAH, "float32", 50_000),
    ],
    "the return is 40 instead of 4 and the critics' bias +193 instead of +315": lambda: [
        mean(BULLET, label, 30_000, column)
        for column in ("return_mean", "q_bias")
        for label in ("momentum-in-target", HPO)
    ],
    "humanoid has 40 at 30,000 steps, one seed, and 4 without": lambda: [
        *(mean(BULLET, "momentum-in-target", 30_000), 30_000),
        mean(BULLET, HPO, 30_000),
    ],
    "321 ± 93 against 1,196 ± 255 (three seeds each)": lambda: [
        *spread(CHEETAH, "no-momentum", 50_000),
        *spread(CHEETAH, HPO, 50_000),
    ],
    "drift 527 to 886, SAC-HPO 962 to 1,468": lambda: [
        *ends(CHEETAH, "drift", 50_000),
        *ends(CHEETAH, HPO, 50_000),
    ],
    "exchanged 1,065 (one seed), as in Table I 962 to 1,468 (three)": lambda: [
        *of(CHEETAH, "spreads-exchanged", 50_000),
        *ends(CHEETAH, HPO, 50_000),
    ],
    "reach 6,031 (one seed), these settings 3,141 ± 1,551 (three)": lambda: [
        *of(CHEETAH, "sac-tianshou", 100_000),
        *spread(CHEETAH, SAC, 100_000),
    ],
    "38 % (seed 1, step 100,000), 0 % and 0.02 % (seeds 2 and 3, step 60,000)": lambda: [
        *(100 * of(CHEETAH, "sac_hpo_safe", column="never_accepted")[:1]),
        *(1, 100_000),
        *(100 * of(CHEETAH, "sac_hpo_safe", column="never_accepted")[1:]),
        *(2, 3, 60_000),
    ],
    "| SAC | 3.5 hours | 18 minutes |": lambda: [hours(SAC), minutes(SAC)],
    "| SAC-HPO | 5.1 hours | 27 minutes |": lambda: [hours(HPO), minutes(HPO)],
    "train SAC 1.2 times as fast": lambda: [5 * hours(SAC) / hours(SAC, 5)],
}
# What else has numbers: settings, steps, references, and what was measured in runs whose logs are not here.
NO_RESULT = [
    r"(Eqs?\.|Figs?\.|Baseline|Table) ?-?\(?\d+\)?|H200|Seed 1|torch 2\.11",
    r"(after|than|at|At|step|to|last|every) \d+0,000( steps)?|10,000 random steps",
    r"1,000 (steps|actions)|about 1,000",
    r"\(β₀/2\)|1/√β₀ = [\d.]+|= 50 \|ρ_K\|²|α = 0\.2|0\.001 instead of the paper's 0\.0003|\(−1, 1\)⁶",
    r"Its 95 % interval|held near 0|0\.5 is no difference|far from 0\.5|So 0 is not",
    r"H/\(1 − γ\)|seed each, 100,000 steps",
    r"is below 0\.05|if P is at most 0\.08 or at least 0\.92|P is 0 or 1",  # see test_plot.py
    r"where ρ₀ alone makes 1\.5|train \(1\) than to explore \(0\.5\)|limit of 25 %|limit allows 6,000",
    r"agrees to 1e-15",  # of both forms of the scripts, when they changed
    # Of runs of the earlier form: scores in results/ until commit 8502b7c, since replaced; what is in
    # TensorBoard's files.
    r"698, 1,761 and 2,225 against 570, 760 and 801",
    r"had 4,279 \(SAC\), 4,717 \(SAC-NF\) and 4,314 \(pre-tanh\)",
    r"\|ρ_K\|² / 2|learning rates of 0\.001|by 150,000 both",
    r"0\.9 per step",
]


def test_numbers_are_found():
    text = "Hopper-v4: −20 and 1,761.5 ± 0.3 of u₀, +175, H200"
    assert numbers(text) == ["−20", "1,761.5", "0.3", "+175"]


@pytest.mark.parametrize("quote", FACTS)
def test_a_number_in_the_prose_is_that_of_the_results(quote):
    assert any(quote in text for text in TEXT.values()), "not in the text any more"
    written, computed = numbers(quote), FACTS[quote]()
    assert len(written) == len(computed), (written, computed)
    for number, value in zip(written, computed, strict=True):
        half = 0.5001 * 10.0 ** -len(number.partition(".")[2])
        assert abs(float(number.replace(",", "").replace("−", "-")) - value) <= half, (number, value)


def test_what_is_said_of_fig_7():
    """Of HalfCheetah-v4's six runs and of Hopper-v4's ten, at all steps at which their agents were saved."""
    cheetah, hopper = MOVED.loc[CHEETAH], MOVED.loc[HOPPER]
    assert [len(of_task.reset_index().groupby(["coordinates", "seed"])) for of_task in (cheetah, hopper)] == [
        6,
        10,
    ]
    assert (cheetah["leapfrog"] > 0).all() and (cheetah["momentum_alone"] < 0).all()
    assert (cheetah["spread_leapfrog"] < cheetah["spread_base"]).all() and (hopper["leapfrog"] < 0).all()
    assert (hopper["spread_leapfrog"] > hopper["spread_base"]).all()
    assert (hopper["spread_leapfrog"] - hopper["spread_momentum_alone"]).abs().max() < 0.005


def test_which_runs_are_of_the_earlier_form():
    """Their config.json has no num_seeds; the page names them."""
    earlier = {key for key, runs in RUNS.items() if "num_seeds" not in runs[0].args}
    named = {(HOPPER, label) for label in ("explore-drift", "explore-as-trained")}
    named |= {
        (task, label) for task, label in RUNS if task == BULLET or label in ("sac_lagrangian", "sac_hpo_safe")
    }
    named |= {(CHEETAH, label) for label in ("float32", "spreads-exchanged", "sac-tianshou")}
    assert earlier == named


def test_every_number_in_the_prose_is_known():
    text = TEXT["results"]
    for quote in FACTS:
        text = text.replace(quote, "")
    for pattern in NO_RESULT:
        text = re.sub(pattern, "", text)
    left = [text[max(m.start() - 60, 0) : m.end() + 20] for m in NUMBER.finditer(text)]
    print(*left, sep="\n")
    assert not left, "no fact of this file, and in no pattern of NO_RESULT"
