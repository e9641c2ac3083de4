"""What the leapfrog does to actions: the paper's Fig. 7, and a problem small enough to know the answer.

    python studies.py policy runs/<run>/seed_*/agent_100000.pt    # policy.png, policy.csv and a table
    python studies.py gap                                         # gap.png, gap.csv and a table, in minutes

Both call the functions of sac_hpo_continuous.py, so what they show is what trains and plays there.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import integrate, stats
from torch import Generator, Tensor, nn

import sac_hpo_continuous as script

# Okabe and Ito's colours, with line styles for print without colours; the first two as in plot.py.
LOOKS = {
    "gaussian": {"color": "#0072B2", "linestyle": "--"},
    "proposed": {"color": "#D55E00", "linestyle": "-"},
    "conventional": {"color": "#009E73", "linestyle": ":"},
    "drift": {"color": "#CC79A7", "linestyle": "-."},
}


def markdown(table: pd.DataFrame) -> str:
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else f"{cell}" for cell in row] for row in table.values]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table.columns, ["---"] * table.shape[1], *rows])


def save(figure: Figure, table: pd.DataFrame, out: Path) -> None:
    figure.savefig(out, dpi=150)
    table.to_csv(out.with_suffix(".csv"), index=False, float_format="%.4f")
    print(out)


def episode_of(path: Path, args: script.Args) -> np.ndarray:
    """Observations (M, O) of an episode of the deterministic policy, of at most 1,000 steps."""
    env, policy = script.make_env(args), script.load_agent(path)
    obs, over = [env.reset(seed=args.seed)[0]], [False]
    while not any(over) and len(obs) < 1_000:
        after, _, *over, _ = env.step(policy(obs[-1]))
        obs.append(after)
    env.close()
    return np.stack(obs)


@torch.no_grad()
def sample(agent: script.Agent, obs: np.ndarray, count: int) -> tuple[dict, dict]:
    """At states obs (M, O): actions (M, count, A) of the base policy, moved by the momentum alone, and moved
    by the leapfrog, all from the same a_0 and rho_0; and Q of each (M, count)."""
    args, states = agent.args, torch.from_numpy(obs).repeat_interleave(count, dim=0).unsqueeze(0)
    generator, actions, q_of = Generator().manual_seed(args.seed), {}, {}
    noise = torch.randn(2, 1, len(obs) * count, agent.policy.mean.bias.shape[-1], generator=generator)
    for name, operator in ("base", "gaussian"), ("momentum", "drift"), ("leapfrog", args.explore):
        action, *_ = agent.evolve(states, noise, operator, args.momentum_std_explore)
        actions[name] = action.view(len(obs), count, -1).numpy()
        q_of[name] = agent.value_at(states)(action).view(len(obs), count).numpy()
    return actions, q_of


def measure(agent: script.Agent, obs: np.ndarray, count: int) -> dict[str, float]:
    """Means over states: Q, how the leapfrog and the momentum alone change it, and how far actions spread."""
    actions, q = sample(agent, obs, count)
    row = {"Q": q["base"].mean(), "change by leapfrog": (q["leapfrog"] - q["base"]).mean()}
    row["by momentum alone"] = (q["momentum"] - q["base"]).mean()
    row["share with higher Q"] = (q["leapfrog"] > q["base"]).mean()
    return row | {f"spread, {name}": actions[name].std(axis=1, ddof=1).mean() for name in actions}


@torch.no_grad()
def q_over(agent: script.Agent, obs: np.ndarray, dims: tuple[int, int]) -> list[np.ndarray]:
    """x, y and Q on a grid over two dimensions of the action; the others are held at tanh(mean)."""
    x, y = torch.meshgrid(*2 * [torch.linspace(-1.0, 1.0, 61)], indexing="xy")
    state = torch.from_numpy(obs).expand(1, x.numel(), -1)
    action, _ = agent.policy(state, torch.zeros(1, x.numel(), agent.policy.mean.bias.shape[-1]))
    action[..., dims[0]], action[..., dims[1]] = x.flatten(), y.flatten()
    return [x.numpy(), y.numpy(), agent.value_at(state)(action).view_as(x).numpy()]


@dataclass
class Policy:
    """Fig. 7: what the leapfrog does to the base policy's actions while exploring.

    The table has, as means over many states, how much higher Q is after the leapfrog than at the same actions
    before, what the same momentum does without a force, and how far actions spread; the CSV has it of each
    agent. Of agents of one task and step the picture shows the first, 50 steps into an episode."""

    agents: Annotated[tuple[Path, ...], tyro.conf.Positional]  # agent_<step>.pt of sac_hpo_continuous.py
    dims: tuple[int, int] = (0, 1)  # dimensions of the action to draw
    states: int = 20  # states that are measured, evenly spaced in an episode
    samples: int = 200  # actions in each of them
    out: Path = Path("policy.png")  # picture to write; beside it a .csv

    def draw(self, axis: Axes, agent: script.Agent, obs: np.ndarray) -> None:
        """Actions in one state (1, O), before and after the leapfrog, over Q."""
        filled = axis.contourf(*q_over(agent, obs, self.dims), levels=20, cmap="gray", alpha=0.4)
        axis.figure.colorbar(filled, ax=axis).ax.tick_params(labelsize=7)
        actions, _ = sample(agent, obs, self.samples)
        before, after = (actions[name][0][:, self.dims].T for name in ("base", "leapfrog"))
        axis.scatter(*before, s=7, linewidths=0.0, color="#0072B2", label="base policy")
        axis.scatter(*after, s=22, facecolors="none", edgecolors="#D55E00", label="after the leapfrog")
        axis.set(xlim=(-1, 1), ylim=(-1, 1), xlabel=f"action {self.dims[0]}", ylabel=f"action {self.dims[1]}")

    def __call__(self) -> None:
        rows, first = [], {}
        if not self.agents:
            raise ValueError("policy needs agent_<step>.pt files of sac_hpo_continuous.py")
        for path in self.agents:
            agent, state = script.load(path)
            if len(set(self.dims)) < 2 or not set(self.dims) <= set(range(state["low"].numel())):
                raise ValueError(f"{path}: --dims must be two dimensions of its actions, not {self.dims}")
            obs = episode_of(path, agent.args)
            evenly = np.linspace(0, len(obs) - 1, self.states).astype(int)
            row = {"task": agent.args.env_id, "step": state["step"], "seed": agent.args.seed}
            rows.append(row | measure(agent, obs[evenly], self.samples))
            first.setdefault((row["task"], row["step"]), (agent, obs[:51][-1:]))
        across, down = min(len(first), 3), -(-len(first) // 3)
        figure = Figure(figsize=(3.4 * across, 2.9 * down + 0.4), layout="constrained")
        for i, ((task, step), shown) in enumerate(first.items(), start=1):
            self.draw(figure.add_subplot(down, across, i, title=f"{task}, step {step:,}"), *shown)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        table = pd.DataFrame(rows)
        save(figure, table, self.out)
        groups = table.drop(columns="seed").groupby(["task", "step"], sort=False)
        print(markdown(groups.size().to_frame("n").join(groups.mean()).reset_index()))


EDGES = np.linspace(-1.0, 1.0, 201)  # of the bins in which actions are counted


def two_modes(a: Tensor) -> Tensor:
    """Equal peaks of 0 at a = -1/2 and a = 1/2, and -1/2 between them."""
    return -0.5 * (4.0 * a**2 - 1.0) ** 2


class Toy(nn.Module):
    """Critics of a known Q of one action: training does not change them, whatever it tries to teach."""

    def __init__(self, q_of: Callable):
        super().__init__()
        self.q_of, self.nothing = q_of, nn.Parameter(torch.zeros(()))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return (self.q_of(action) + 0.0 * self.nothing).mT.expand(-1, 2, -1)

    def at(self, obs: Tensor) -> Callable:
        return lambda action: self(obs, action)


def train_toy(q_of: Callable, operator: str, row: str, seeds: int, updates: int) -> script.Agent:
    """S policies, trained on a known Q by the script's own update, in a row of Table I."""
    args = script.resolve(script.Args(f"{row}-v4", explore=operator, train=operator))
    generator = Generator().manual_seed(args.seed)
    agent = script.Agent(generator, seeds, 1, 1, args)
    agent.q, agent.q_target = Toy(q_of), Toy(q_of).requires_grad_(False)
    optimizers = script.make_optimizers(agent, args)
    ones, zeros = torch.ones(seeds, args.batch_size, 1), torch.zeros(seeds, args.batch_size)
    batch = script.Batch(ones, zeros.unsqueeze(-1), zeros, ones, zeros)
    for _ in range(updates):
        noise = torch.randn(4, seeds, args.batch_size, 1, generator=generator)
        script.update(agent, optimizers, batch, noise, args)
    return agent


@torch.no_grad()
def measure_toy(agent: script.Agent, operator: str, std: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each seed: the bins' shares (S, bins) of its actions, and J (S,), Eq. (12) in nats: the mean of
    Q / alpha - log pi(a_0) + (|rho_0|^2 - |rho_K|^2) / (2 std^2). log Z - J is the divergence of a_K and
    rho_K together, so never below 0, nor below that of a_K alone."""
    noise = torch.randn(2, len(agent.log_alpha), count, 1, generator=Generator().manual_seed(0))
    a, rho, grad_u, log_prob = agent.evolve(torch.ones(noise.shape[1:]), noise, operator, std)
    f, q = grad_u(a)
    rho = (rho - 0.5 * agent.args.step_size * f) / std
    gain = 0.0 if operator == "gaussian" else 0.5 * (noise[1].square() - rho.square()).sum(-1)
    j = (q / agent.args.alpha - log_prob + gain).mean(-1)
    return np.stack([np.histogram(of_seed, EDGES)[0] / count for of_seed in a]), j.numpy()


def target_of(q_of: Callable, alpha: float) -> tuple[np.ndarray, float]:
    """The bins' shares under exp(Q / alpha) / Z, and log Z, by Simpson's rule in every bin."""
    inside = np.linspace(EDGES[:-1], EDGES[1:], 21)  # (21, bins)
    area = integrate.simpson(np.exp(q_of(torch.from_numpy(inside)).numpy() / alpha), inside, axis=0)
    return area / area.sum(), np.log(area.sum())


@dataclass
class Gap:
    """The claim in its smallest form: one state, one action dimension, a Q with two equal peaks.

    The table has the KL divergence of actions to exp(Q / alpha) / Z, as median over seeds, lowest, highest;
    and J, which training maximises, beside log Z, which it cannot exceed."""

    rows: tuple[str, ...] = ("HalfCheetah", "Hopper", "Walker2d")  # of Table I
    seeds: int = 5  # policies of each kind
    updates: int = 1_500  # of each policy
    samples: int = 200_000  # actions that are counted, of each policy
    out: Path = Path("gap.png")  # picture to write; beside it a .csv

    def __call__(self) -> None:
        torch.set_num_threads(1)  # the same numbers everywhere
        figure, found = Figure(figsize=(3.2 * len(self.rows), 5.2), layout="constrained"), []
        axes = figure.subplots(2, len(self.rows), squeeze=False, sharex=True, sharey=True)
        middles, width = (EDGES[:-1] + EDGES[1:]) / 2, EDGES[1] - EDGES[0]
        for (row, column), operator in product(zip(self.rows, axes.T, strict=True), LOOKS):
            agent = train_toy(two_modes, operator, row, self.seeds, self.updates)
            target, log_z = target_of(two_modes, agent.args.alpha)
            stds = agent.args.momentum_std_train, agent.args.momentum_std_explore
            for chain, std, axis in zip(("in updates", "exploring"), stds, column, strict=True):
                shares, j = measure_toy(agent, operator, std, self.samples)
                kl = stats.entropy(shares, target, axis=1)
                facts = {"row": row, "actions": chain, "policy": operator, "n": self.seeds}
                facts |= {"KL, median": np.median(kl), "lowest": kl.min(), "highest": kl.max()}
                found.append(facts | {"J": j.mean(), "log Z": log_z})
                if operator == "gaussian":
                    axis.fill_between(middles, target / width, color="#cccccc", label="exp(Q / α) / Z")
                    axis.set_title(f"{row}'s row, {chain}", fontsize=10)
                of_median = shares[np.argsort(kl)[len(kl) // 2]]
                axis.plot(middles, of_median / width, label=operator, **LOOKS[operator])
        figure.supylabel("density of actions", fontsize=9)
        look = {"fontsize": 9, "frameon": False, "ncols": min(5, 2 * len(self.rows)), "handlelength": 3.5}
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", **look)
        save(figure, pd.DataFrame(found), self.out)
        print(markdown(pd.DataFrame(found)))


def main(words: list[str] | None = None) -> None:
    """Runs the command line, or the one given."""
    command = tyro.extras.subcommand_cli_from_dict({"policy": Policy, "gap": Gap}, args=words)
    command.out.parent.mkdir(parents=True, exist_ok=True)  # says now, not after minutes, that it cannot
    command()


if __name__ == "__main__":
    sys.path.append("")  # an agent's task may be my_module:MyTask-v0, in the current folder
    try:
        main()
    except (OSError, ValueError) as error:
        print(f"studies.py: {error}", file=sys.stderr)
        sys.exit(2)
