"""SAC-Lagrangian: SAC under a limit on cost, the baseline of Xu & Fekri (2021) for safe RL.

A third critic, Q_C, learns the discounted cost to come. The policy maximises SAC's objective with
Q - lambda Q_C in place of Q. Every 1,000 steps or so lambda goes up by what episodes cost above the limit,
times eta, or down by what they cost below it.

    python sac_lagrangian.py --env-id HalfCheetah-v4 --num-seeds 5     # five agents, side by side
    python sac_lagrangian.py --env-id Hopper-v4 --cost torque --cost-limit 20
    python sac_lagrangian.py --resume runs/<run>                       # go on with a run, bit for bit
    python sac_lagrangian.py --evaluate runs/<run> --capture-video     # play and film its agents

At each step of the environment, after --learning-starts:
    act       a ~ pi(s)
    critics   Q(s, a) -> r + gamma (min Q'(s', a') - alpha log pi(a'|s')),  a' ~ pi(s')
              Q_C(s, a) -> c + gamma Q_C'(s', a')                                     Sec. II-B
    policy    ascend min Q(s, a) - lambda Q_C(s, a) - alpha log pi(a|s),  a ~ pi(s)       Sec. V-B
    targets   Q' <- (1 - tau) Q' + tau Q, and Q_C' likewise
    store     s, a, r, s', c in the replay buffer, of which the lines above draw theirs
    lambda    <- [lambda + eta (J_C - d_0)]_+ when enough episodes have ended         Sec. II-B

S seeds are S agents that never meet, computed as one batch: what belongs to an agent has an axis S in front,
and losses are summed over it. Read it as if S were 1. Shapes in comments: S seeds, B batch, O observation,
A action. "Departure [entry]": see docs/departures.md.
"""

import importlib.metadata
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import current_process, get_context
from pathlib import Path
from threading import Thread
from typing import Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from filelock import FileLock
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import DtypeObservation, FlattenObservation, RecordVideo
from torch import Generator, Tensor, nn
from torch.distributions.transforms import TanhTransform
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    env_id: str = "HalfCheetah-v4"  # any Gymnasium task with a bounded Box of actions
    env_kwargs: str = "{}"  # JSON for gym.make, such as '{"terminate_when_unhealthy": false}'
    seed: int = 1  # of the first agent; a run repeats bit for bit
    num_seeds: int = 1  # agents to train side by side (S): seed, seed + 1, ...; one generator for all
    total_timesteps: int = 1_000_000  # environment steps, per agent
    cuda: bool = True  # use a GPU if there is one
    torch_threads: int = 1  # CPU threads; results repeat bit for bit at an equal number

    # SAC
    buffer_size: int = 1_000_000  # transitions in the replay buffer, per agent (|B| in Table I)
    gamma: float = 0.99  # discount factor per step
    tau: float = 0.005  # share of the critics that enters the target critics at each update
    batch_size: int = 256  # transitions per update (m in Table I)
    learning_starts: int = 5_000  # steps with uniformly random actions before the first update
    policy_lr: float = 3e-4  # learning rate of the policy
    q_lr: float = 3e-4  # learning rate of the critics and, with --autotune, of the temperature
    table_row: str | None = None  # row of Table I for what is None here (None: the task's, or HalfCheetah's)
    alpha: float | None = None  # temperature; with --autotune its first value (None: Table I)
    autotune: bool = False  # learn the temperature, towards an entropy of -A nats

    # cost of a step (c): torque, mean |action|; speed, 1 if |x velocity| > 1 m/s; info, info["cost"] (None:
    # the paper's, for Ant and HalfCheetah)
    cost: Literal["torque", "speed", "info"] | None = None
    # limit d_0 on J_C: on an episode's discounted sum of costs or, for torque, on its mean cost / (1 - gamma)
    # (None: the paper's, for Ant and HalfCheetah)
    cost_limit: float | None = None
    lambda_lr: float = 0.1  # step size of the multiplier, lambda (eta)
    cost_window: int = 1_000  # steps of finished episodes, by whose mean J_C lambda moves next

    # what a run reports and keeps
    run_dir: str | None = None  # the run's folder; a run that is there goes on (None: a new one in runs)
    eval_frequency: int = 10_000  # steps between evaluations
    eval_episodes: int = 10  # episodes per evaluation
    checkpoint_frequency: int = 50_000  # steps between checkpoints; each cuts the episodes in progress
    capture_video: bool = False  # film the first episode of each evaluation
    track: bool = False  # log to Weights & Biases as well (see WANDB_PROJECT, WANDB_ENTITY)
    resume: str | None = None  # go on with the run in this folder; --total-timesteps may grow
    evaluate: str | None = None  # play an agent_<step>.pt, or the newest of each seed in a run's folder


ALGORITHM = Path(__file__).stem
SETTINGS = ("alpha",)
TABLE_I = dict.fromkeys(["HalfCheetah", "Hopper", "Walker2d", "Ant"], (0.2,))  # by id without version
BULLET = ["HumanoidBulletEnv", "HumanoidFlagrunBulletEnv", "HumanoidFlagrunHarderBulletEnv"]
TABLE_I |= dict.fromkeys(["Humanoid", *BULLET], (0.05,))
MAY_BE_0 = "seed learning_starts gamma cost_limit".split()
COSTS = {"Ant": ("torque", 25.0), "HalfCheetah": ("speed", 10.0)}  # Sec. V-B: cost and limit d_0


# ---------------------------------------------------------------------------------------- networks and policy


class Linear(nn.Module):
    """n linear layers side by side: (n, B, in) -> (n, B, out). First weights are PyTorch's default."""

    def __init__(self, generator: Generator, n: int, inputs: int, outputs: int):
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        weight = torch.empty(n, outputs, inputs, device=generator.device).mT  # (n, in, out)
        weight = weight if outputs <= 32 else weight.contiguous()  # transposed if narrow: 5 to 10 % on a CPU
        bias = torch.empty(n, 1, outputs, device=generator.device)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(bias.uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Critics(nn.Module):
    """n critics per agent. Of two the smaller Q counts, so that errors do not add up to overestimation."""

    def __init__(self, generator: Generator, seeds: int, n: int, obs_dim: int, action_dim: int):
        super().__init__()
        self.n = n
        self.layer1 = Linear(generator, n * seeds, obs_dim + action_dim, 256)
        self.layer2 = Linear(generator, n * seeds, 256, 256)
        self.layer3 = Linear(generator, n * seeds, 256, 1)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q of each critic (S, n, B)."""
        x = torch.cat([obs, action], dim=-1).repeat_interleave(self.n, dim=0)  # (nS, B, O + A)
        h1 = self.layer1(x).relu_()
        h2 = self.layer2(h1).relu_()  # in place: an update of five agents takes a twentieth less time
        return self.layer3(h2).view(-1, self.n, obs.shape[1])


class Policy(nn.Module):
    """a = tanh(u), where u = mean(s) + std(s) xi: a Gaussian, squashed."""

    def __init__(self, generator: Generator, seeds: int, obs_dim: int, action_dim: int):
        super().__init__()
        self.layer1 = Linear(generator, seeds, obs_dim, 256)
        self.layer2 = Linear(generator, seeds, 256, 256)
        self.mean = Linear(generator, seeds, 256, action_dim)
        self.log_std = Linear(generator, seeds, 256, action_dim)

    def forward(self, obs: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        """The action (S, B, A), from xi ~ N(0, 1) of its shape, and log pi(a|s) on (-1, 1)^A (S, B)."""
        h = F.relu(self.layer2(F.relu(self.layer1(obs))))
        # Departure [Bounds of log std]: squashed into (-5, 2), as in CleanRL; the paper is silent.
        log_std = -5.0 + 3.5 * (torch.tanh(self.log_std(h)) + 1.0)
        u = self.mean(h) + log_std.exp() * xi
        log_prob = (-0.5 * xi.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)
        a = torch.tanh(u)  # log |da/du| is log(1 - a^2), here without its rounding at large |u|
        return a, log_prob - TanhTransform().log_abs_det_jacobian(u, a).sum(-1)


def constraint(args: Args, total, discounted, length):
    """J_C of an episode, from the sum of its costs, their discounted sum and the number of its steps.

    Departure [Units of the limits]: J_C is the discounted sum of costs or, for torque, which the paper limits
    on average, the mean cost of a step over 1 - gamma: what a discounted sum without end would come to.
    """
    return total / length / (1.0 - args.gamma) if args.cost == "torque" else discounted


class Multiplier(nn.Module):
    """lambda <- [lambda + eta (J_C - d_0)]_+ of each agent (Secs. II-B and V-B), from 0.

    Departure [When lambda moves]: when the episodes since its last move add up to --cost-window steps, by
    their mean J_C; moved after every episode, it outran a policy of short episodes. Episodes that began with
    random actions do not count, nor do those that a checkpoint cut.
    """

    def __init__(self, seeds: int, args: Args, device: torch.device):
        super().__init__()
        self.args = args
        self.register_buffer("value", torch.zeros(seeds, device=device))  # lambda
        count = partial(torch.zeros, dtype=torch.float64, device=device)
        for name in "episodes", "episodes_over_limit", "total_cost":  # of all episodes that ended
            self.register_buffer(name, count(seeds))
        self.register_buffer("recent", count(seeds, 3))  # since the last move: episodes, steps, sum of J_C

    def end_episode(self, index: int, total: float, discounted: float, length: float, of_policy: bool):
        """Counts an episode of the agent at `index`: the sum of its costs, their discounted sum, its length,
        and whether all of its actions were the policy's. Moves lambda, if it is time."""
        j_c = constraint(self.args, total, discounted, length)
        self.episodes[index] += 1
        self.episodes_over_limit[index] += j_c > self.args.cost_limit
        self.total_cost[index] += total
        if of_policy:
            self.recent[index] += self.recent.new_tensor([1.0, length, j_c])
        episodes, steps, sum_of_j_c = self.recent[index].tolist()
        if steps >= self.args.cost_window:
            violation = sum_of_j_c / episodes - self.args.cost_limit
            moved = self.value[index].item() + self.args.lambda_lr * violation
            self.value[index] = max(0.0, moved)  # in place: the CUDA graphs read it there
            self.recent[index] = 0.0


class Agent(nn.Module):
    """All that learns, of S agents, and how it acts."""

    draws = draws_to_act = 1  # tensors of noise (S, B, A) per action: in an update, and to act

    def __init__(self, generator: Generator, seeds: int, obs_dim: int, action_dim: int, args: Args):
        super().__init__()
        self.args, device = args, generator.device
        self.q = Critics(generator, seeds, 2, obs_dim, action_dim)
        self.q_target = deepcopy(self.q).requires_grad_(False)
        self.policy = Policy(generator, seeds, obs_dim, action_dim)
        self.log_alpha = nn.Parameter(torch.full((seeds,), math.log(args.alpha), device=device))
        self.q_cost = Critics(generator, seeds, 1, obs_dim, action_dim)  # Q_C; a minimum would flatter it
        self.q_cost_target = deepcopy(self.q_cost).requires_grad_(False)
        self.multiplier = Multiplier(seeds, args, device)

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The action to execute. Departure [Evaluation of a Gaussian]: noise of 0 makes it the mean's."""
        return self.policy(obs, noise[0])[0]


# ----------------------------------------------------------------------------------------- losses and update


class Batch(NamedTuple):
    obs: Tensor  # (S, B, O)
    action: Tensor  # (S, B, A), in [-1, 1]
    reward: Tensor  # (S, B)
    next_obs: Tensor  # (S, B, O)
    terminated: Tensor  # (S, B), 1 if the episode ended for good. Departure [Ends of episodes]: 0 if cut off
    cost: Tensor  # (S, B)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the sum of the agents' losses (S,), each of which depends on its own weights only."""
    optimizer.zero_grad()
    loss.sum().backward(inputs=optimizer.param_groups[0]["params"])  # not those of critics it passes through
    optimizer.step()


def update(agent: Agent, optimizers: dict, batch: Batch, noise: Tensor, args: Args) -> dict[str, Tensor]:
    """One step on critics, policy and, with --autotune, temperature; the target critics follow.

    `noise` ~ N(0, 1) (2, S, B, A): for actions at next_obs and at obs. Returns logs (S,).
    """
    obs, action, reward, next_obs, terminated, cost = batch
    alpha = agent.log_alpha.detach().exp().unsqueeze(-1)  # (S, 1)

    with torch.no_grad():
        next_action, next_log_prob = agent.policy(next_obs, noise[0])
        next_q = agent.q_target(next_obs, next_action).amin(1)
        target = reward + args.gamma * (1.0 - terminated) * (next_q - alpha * next_log_prob)
        # Departure [The cost critic]: Q_C is of the policy that is trained, not of pi_B, and without entropy.
        next_q_cost = agent.q_cost_target(next_obs, next_action).squeeze(1)
        # Departure [Where Q_C ends]: an average, as torque is, has no end, or falling over would save it.
        ends = torch.zeros_like(terminated) if args.cost == "torque" else terminated
        cost_target = cost + args.gamma * (1.0 - ends) * next_q_cost
    q = agent.q(obs, action)  # (S, 2, B)
    q_loss = (q - target.unsqueeze(1)).square().mean(-1).sum(1)
    descend(optimizers["q"], q_loss)
    q_cost = agent.q_cost(obs, action).squeeze(1)  # (S, B)
    cost_loss = (q_cost - cost_target).square().mean(-1)
    descend(optimizers["q_cost"], cost_loss)

    a, log_prob = agent.policy(obs, noise[1])
    value = agent.q(obs, a).amin(1) - agent.multiplier.value.unsqueeze(-1) * agent.q_cost(obs, a).squeeze(1)
    loss = (alpha * log_prob - value).mean(-1)  # minus Sec. V-B's objective
    descend(optimizers["policy"], loss)

    if args.autotune:  # Departure [Temperature]: towards an entropy of -A
        entropy, target_entropy = -log_prob.detach().mean(-1), -action.shape[-1]
        descend(optimizers["log_alpha"], agent.log_alpha.exp() * (entropy - target_entropy))

    with torch.no_grad():  # target <- (1 - tau) target + tau critic
        torch._foreach_lerp_(list(agent.q_target.parameters()), list(agent.q.parameters()), args.tau)
        targets = list(agent.q_cost_target.parameters())
        torch._foreach_lerp_(targets, list(agent.q_cost.parameters()), args.tau)
    logs = {
        "losses/q": q_loss,
        "losses/policy": loss,
        "values/q": q.mean((1, 2)),
        "values/alpha": alpha.squeeze(-1),
        "values/entropy": -log_prob.mean(-1),
        "losses/q_cost": cost_loss,
        "values/q_cost": q_cost.mean(-1),
        "values/lambda": agent.multiplier.value.clone(),  # end_episode changes it in place
    }
    return {name: value.detach() for name, value in logs.items()}


# ========================================================= plumbing: environments, replay buffer, CUDA graphs


class EnvironmentFailed(Exception):
    """What a task raised, as text: so it can leave its process, and whose error it is stays clear."""


@contextmanager
def blamed() -> Iterator[None]:
    """Whatever a task raises is the task's."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit, or a panic of a simulator written in Rust, is no Exception
        raise EnvironmentFailed(traceback.format_exc()) from None


@contextmanager
def named(what: object) -> Iterator[None]:
    """Whatever is raised about an argument or a file becomes an error that names it."""
    try:
        yield
    except (Exception, SystemExit) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{what}: {type(error).__name__}: {error}") from error


def cost_of(cost: str, action: np.ndarray, space: gym.spaces.Box, info: dict) -> float:
    """What a step costs (Sec. V-B). ValueError if the task does not report it as one number, 0 or more."""
    if cost == "torque":  # Departure [Cost of torque]: a share of the largest
        return float(np.abs(2.0 * (action - space.low) / (space.high - space.low) - 1.0).mean())
    name = "x_velocity" if cost == "speed" else "cost"
    try:
        value = float(np.asarray(info[name]).item())
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"--cost {cost}: the task does not report info[{name!r}] as one number") from None
    if cost == "speed":
        return float(np.heaviside(abs(value) - 1.0, 0.0))  # NaN stays NaN
    if value < 0.0:
        raise ValueError(f"--cost info: the task reports a cost below 0, {value}")
    return value


class Fresh(gym.Wrapper):
    """A reset with a seed makes the task anew, as PyBullet's state depends on what was before.

    Rewards and ends are plain numbers, infos hold the cost alone. What the task raises is blamed on it.
    """

    def __init__(self, make: Callable[[], gym.Env], cost: str):
        super().__init__(make())
        self.make, self.cost, self.is_new = make, cost, True

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        with blamed():
            if seed is not None and not self.is_new:
                self.close()
                self.env = self.make()
            self.is_new = False
            obs, _ = self.env.reset(seed=seed, options=options or None)
        return self.checked(obs), {}

    def step(self, action: np.ndarray):
        with blamed():
            obs, *numbers, info = self.env.step(action)
            reward, terminated, truncated = (np.asarray(number).item() for number in numbers)
        info = {"cost": cost_of(self.cost, action, self.action_space, info)}
        return self.checked(obs), reward, terminated, truncated, info

    def checked(self, obs: np.ndarray) -> np.ndarray:
        if obs.shape != self.observation_space.shape:
            raise ValueError(f"--env-id: an observation is {obs.shape}, not {self.observation_space.shape}")
        return obs

    def close(self) -> None:
        try:
            with blamed():
                self.env.close()
        except EnvironmentFailed as error:
            print(f"the environment cannot be closed:\n{error}", file=sys.stderr)


def make_env(args: Args, film: Path | None = None) -> gym.Env:
    """The task with flat float32 observations; if `film` is a path, its first episode is filmed there."""
    gym.logger.min_level = gym.logger.ERROR + 1  # it warns of -v4, which is meant, and errors are raised
    with suppress(Exception):  # MuJoCo warns of what -v4's files use; a task may do without it
        import mujoco

        mujoco.set_mju_user_warning(lambda text: "deprecated" in text or print(text, file=sys.stderr))

    def make() -> gym.Env:
        if "BulletEnv" in args.env_id:
            import pybullet_envs_gymnasium  # noqa: F401  (registers these tasks)
        options = json.loads(args.env_kwargs) | ({"render_mode": "rgb_array"} if film else {})
        env = gym.make(args.env_id, disable_env_checker=True, **options)
        if film:
            with suppress(AttributeError, KeyError):  # MuJoCo's robots run away from any other camera
                env.unwrapped.mujoco_renderer.camera_id = env.unwrapped.model.camera("track").id
            env = RecordVideo(env, str(film.parent), lambda episode: episode == 0, name_prefix=film.stem)
        # Here is the place for wrappers of your own. Tasks are made anew for each evaluation and after each
        # checkpoint: a wrapper that keeps statistics, such as NormalizeObservation, begins again there.
        return DtypeObservation(FlattenObservation(env), np.float32)

    hint = " --capture-video (without a screen, MuJoCo needs MUJOCO_GL=egl)" if film else ""
    with named(f"--env-id {args.env_id} --env-kwargs {args.env_kwargs}{hint}"):
        env = Fresh(make, args.cost)
        if env.unwrapped.spec.id != args.env_id.rpartition(":")[2]:
            raise ValueError(f"which version? The latest is {env.unwrapped.spec.id}")
        box = env.action_space
        is_box = isinstance(box, gym.spaces.Box) and box.dtype.kind == "f"
        if not is_box or np.abs([box.low, box.high]).max() > 1e30:  # which stands for no bound
            raise TypeError(f"actions must be continuous and bounded, not {box}")
        if film:  # RecordVideo passes over a task that draws nothing
            env.unwrapped.reset(seed=0)
            if not isinstance(env.unwrapped.render(), np.ndarray):
                raise TypeError("render() gives no picture")
            env.is_new = False
    return env


def rescale(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """From [-1, 1], (N, A), to a task's bounds, N actions in their shape."""
    unit = 0.5 * (action.reshape(-1, *low.shape) + 1.0)
    return np.clip(low + unit * (high - low), low, high).astype(low.dtype)


def memory() -> int:
    """Bytes that this process may have: the machine's or, in a container or a job, its control group's."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    groups = Path("/proc/self/cgroup")  # lines of number:controllers:path; version 2 leaves the second empty
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        folder = Path("/sys/fs/cgroup", controllers, path.lstrip("/"))
        for group in folder, *folder.parents:
            for file in group / "memory.max", group / "memory.limit_in_bytes":  # versions 2 and 1
                with suppress(OSError, ValueError):  # there is none, or it says "max"
                    limits.append(int(file.read_text()))
    return min(limits)


class ReplayBuffer:
    """The last transitions of each agent, the fields of Batch in a row: a ring (S, capacity, D)."""

    def __init__(self, seeds: int, capacity: int, obs_dim: int, action_dim: int, device: torch.device):
        self.widths = obs_dim, action_dim, 1, obs_dim, 1, 1  # of the fields of Batch
        self.capacity, self.added = capacity, 0
        shape = seeds, capacity, sum(self.widths)
        there = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory()
        with named(f"--buffer-size {capacity} of {seeds} agents wants {4e-9 * math.prod(shape):.3g} GB"):
            if 4 * math.prod(shape) > there:
                raise MemoryError(f"there are {there / 1e9:.3g} GB")
            self.rows = torch.empty(shape, device=device)
        self.agents = torch.arange(seeds, device=device).unsqueeze(-1)  # (S, 1)

    def add(self, *fields: np.ndarray) -> None:
        """One transition of each agent: the fields of Batch, (S, ...) each."""
        row = torch.tensor(np.column_stack(fields), dtype=torch.float32, pin_memory=self.rows.is_cuda)
        self.rows[:, self.added % self.capacity].copy_(row, non_blocking=True)  # pinned: the CPU goes on
        self.added += 1

    def sample(self, numbers: Tensor) -> Batch:
        """A minibatch of each agent: its rows with these numbers (S, B)."""
        rows = self.rows[self.agents, numbers]
        obs, action, reward, next_obs, terminated, cost = rows.split(self.widths, dim=-1)
        return Batch(obs, action, reward.squeeze(-1), next_obs, terminated.squeeze(-1), cost.squeeze(-1))

    def state_dict(self) -> dict:
        # By way of NumPy: torch.save would write the whole ring of which this is a view.
        filled = [rows[: self.added].cpu().numpy() for rows in self.rows]
        return {"added": self.added, "rows": [torch.from_numpy(rows) for rows in filled]}

    def load_state_dict(self, state: dict) -> None:
        self.added = state["added"]
        for rows, saved in zip(self.rows, state["rows"], strict=True):
            rows[: len(saved)] = saved


def make_optimizers(agent: Agent, args: Args) -> dict[str, torch.optim.Adam]:
    """Adam works element by element: S agents in one optimiser stay S agents."""
    adam = partial(torch.optim.Adam, fused=True, capturable=agent.log_alpha.is_cuda)
    optimizers = {
        "q": adam(agent.q.parameters(), lr=args.q_lr),
        "policy": adam(agent.policy.parameters(), lr=args.policy_lr),
        "log_alpha": adam([agent.log_alpha], lr=args.q_lr),
        "q_cost": adam(agent.q_cost.parameters(), lr=args.q_lr),
    }
    for optimizer in optimizers.values():  # a step by gradients of 0 makes Adam's state and moves nothing
        descend(optimizer, 0.0 * sum(value.sum() for value in optimizer.param_groups[0]["params"]))
        for state in optimizer.state.values():
            state["step"].zero_()
    return optimizers


def capture(function: Callable, tensors: list[Tensor]) -> Callable:
    """On a GPU, a CUDA graph of `function`: a replay launches its hundreds of kernels by one call.

    They are recorded once and replayed on the same tensors. Recording runs nothing, but needs a few real
    calls on a side stream before it; what they did to `tensors`, all that learns, is undone.
    """
    if not tensors[0].is_cuda:
        return function
    before = [tensor.clone() for tensor in tensors]
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        output = function()  # tensors that every replay fills
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)

    def replay():
        graph.replay()
        return output

    replay.recorded = function  # as long as this lives, so do the tensors that the graph reads and writes
    return replay


# ------------------------------------------------------------------------- plumbing: agent files, evaluation


def write(path: Path, content: dict | str) -> None:
    """Through a temporary file: if the process is killed meanwhile, the old file is still whole."""
    part = path.with_name(path.name + ".part")
    try:
        with named(path):
            part.write_text(content) if isinstance(content, str) else torch.save(content, part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> dict:
    """What `write` has written. Code in the file does not run."""
    with named(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def load(path: Path, args: Args | None = None) -> tuple[Agent, dict]:
    """The agent in an agent_<step>.pt, with its own arguments or others, and what else is there."""
    state = read(path)
    with named(f"{path} is no agent of {ALGORITHM}.py"):
        if state["algorithm"] != ALGORITHM:
            raise ValueError(f"it is of {state['algorithm']}.py")
        agent = Agent(Generator(), 1, state["obs_dim"], state["low"].numel(), args or Args(**state["args"]))
        agent.load_state_dict(state["agent"])
    return agent, state


def decide(agent: Agent, obs: np.ndarray, deterministic: bool = True) -> np.ndarray:
    """Actions (B, A) in [-1, 1] of a single agent at observations (B, O)."""
    shape = agent.draws_to_act, 1, len(obs), agent.policy.mean.bias.shape[-1]
    noise = torch.zeros(shape) if deterministic else torch.randn(shape)
    return agent.act(torch.from_numpy(obs).unsqueeze(0), noise)[0].numpy()


def load_agent(path: str | Path) -> Callable[..., np.ndarray]:
    """The policy in an agent_<step>.pt, for your own program: from flat observations, (O,) or (N, O), to
    actions to execute, in their task's shape. ValueError if the file or an observation does not fit.

    policy = load_agent("runs/<run>/seed_1/agent_1000000.pt")
    obs, reward, terminated, truncated, info = env.step(policy(obs))  # or policy(obs, deterministic=False)
    """
    agent, state = load(Path(path))
    low, high, obs_dim = state["low"].numpy(), state["high"].numpy(), state["obs_dim"]

    def policy(obs: np.ndarray, deterministic: bool = True) -> np.ndarray:
        obs = np.asarray(obs, np.float32)
        if obs.shape[-1:] != (obs_dim,) or obs.ndim > 2:
            raise ValueError(f"observations must be ({obs_dim},) or (N, {obs_dim}), not {obs.shape}")
        actions = rescale(decide(agent, np.atleast_2d(obs), deterministic), low, high)
        return actions if obs.ndim == 2 else actions[0]

    return policy


def evaluate(path: Path, args: Args) -> dict[str, float]:
    """A row of eval.csv: plays episodes with an agent_<step>.pt, each in a task of its own, all at a time.

    q_bias: what the critics promised at the first state minus the discounted return that followed, averaged.
    Exact critics would not make it 0: they are of the policy in updates, with its noise, and promise alpha
    times its entropy, too.
    """
    torch.set_num_threads(args.torch_threads)
    agent, state = load(path, args)
    low, high, n = state["low"].numpy(), state["high"].numpy(), args.eval_episodes
    films = [path.parent / "videos" / path.name if args.capture_video else None] + (n - 1) * [None]
    with blamed():  # training has made the same task before
        envs = SyncVectorEnv([partial(make_env, args, film) for film in films])  # what has ended begins anew
    if envs.single_observation_space.shape != (state["obs_dim"],):
        raise ValueError(f"{path} is of {state['args']['env_id']}; {args.env_id} has other observations")
    seeds = np.random.default_rng([args.seed, state["step"]]).integers(2**31, size=n).tolist()
    obs, _ = envs.reset(seed=seeds)
    first = torch.from_numpy(obs)[None], torch.from_numpy(decide(agent, obs))[None]
    promised = agent.q(*first).amin(1)[0].detach().numpy()
    returns, discounted, lengths, playing = np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n, bool)
    costs, discounted_costs = np.zeros((2, n))
    while playing.any():
        obs, rewards, terminated, truncated, infos = envs.step(rescale(decide(agent, obs), low, high))
        returns[playing] += rewards[playing]
        discounted[playing] += (args.gamma**lengths * rewards)[playing]
        costs[playing] += infos["cost"][playing]
        discounted_costs[playing] += (args.gamma**lengths * infos["cost"])[playing]
        lengths[playing] += 1
        playing &= ~(terminated | truncated)
    envs.close()
    row = {"return_mean": returns.mean(), "return_std": returns.std()}  # over episodes, not seeds
    row |= {f"return_{i}": value for i, value in enumerate(returns)}
    row |= {"length_mean": lengths.mean(), "q_bias": (promised - discounted).mean()}
    j_c, multiplier = constraint(args, costs, discounted_costs, lengths), agent.multiplier
    row |= {"cost_mean": costs.mean(), "discounted_cost_mean": discounted_costs.mean()}
    row |= {"j_c_mean": j_c.mean(), "share_over_limit": (j_c > args.cost_limit).mean()}
    row |= {"lambda": multiplier.value.item(), "training_cost": multiplier.total_cost.item()}
    row |= {"training_episodes": multiplier.episodes.item()}
    row |= {"training_episodes_over_limit": multiplier.episodes_over_limit.item()}
    if not np.isfinite(list(row.values())).all():
        raise FloatingPointError(f"evaluation of {path}: the environment's numbers are not finite")
    return {name: float(value) for name, value in row.items()}


def start_worker(parent) -> None:
    """Ends when the other end of the pipe `parent` closes: with `workers`, or as the parent was killed."""
    Thread(target=lambda: (parent.poll(None), os._exit(1)), daemon=True).start()


@contextmanager
def workers(n: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that evaluate. They end with the block, and with this process if it is killed."""
    spawn = get_context("spawn")  # a forked process could not use CUDA
    theirs, ours = spawn.Pipe(duplex=False)  # carries nothing: that `ours` is closed ends the processes
    with ProcessPoolExecutor(n, spawn, start_worker, (theirs,)) as pool, ours:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for this process alone
        started = pool.map(int, [0] * n)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with named('this run needs processes, and a script of yours needs `if __name__ == "__main__":`'):
            list(started)
        yield pool


# ------------------------------------------------------------------------------------ plumbing: a run on disk


def stored_run(folder: Path) -> tuple[Args, list]:
    """Arguments and starts of the run in a folder. ValueError if there is none of this script's."""
    with named(f"{folder} has no run of {ALGORITHM}.py"):
        config = json.loads((folder / "config.json").read_text())
        if config["algorithm"] != ALGORITHM:
            raise ValueError(f"it is of {config['algorithm']}.py")
        return Args(**config["args"]), config["starts"]


def surroundings() -> dict:
    """What else than arguments may matter to a run's numbers."""
    here = shlex.quote(str(Path(__file__).resolve().parent))
    names = "torch gymnasium mujoco pybullet numpy".split()
    versions = {d.name: d.version for d in importlib.metadata.distributions() if d.name in names}
    return {
        "command": shlex.join(sys.argv),
        "commit": subprocess.getoutput(f"git -C {here} describe --always --dirty --abbrev=40 2> /dev/null"),
        "processor": subprocess.getoutput("sed -n 's/^model name.*: //p;T;q' /proc/cpuinfo 2> /dev/null"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {"python": sys.version.split()[0], **versions},
    }


class Run(AbstractContextManager):
    """A run's folder: config.json, checkpoint.pt; in seed_<n>/ eval.csv, agents, films, TensorBoard's files.

    An error that breaks it off gets a note that says how to go on.
    """

    def __init__(self, args: Args, pool, shapes: dict, tensors: list[Tensor], generator, buffer):
        self.pool, self.shapes, self.folder = pool, shapes, Path(args.run_dir)
        self.args = replace(args, run_dir=None, resume=None)
        self.folders = [self.folder / f"seed_{args.seed + i}" for i in range(args.num_seeds)]
        config, path, starts = self.folder / "config.json", self.folder / "checkpoint.pt", []
        if args.resume or config.exists():
            stored, starts = stored_run(self.folder)
            longer = replace(stored, total_timesteps=max(stored.total_timesteps, args.total_timesteps))
            changed = sorted(asdict(longer).items() - asdict(self.args).items())
            if changed and (path.exists() or any(self.folder.glob("seed_*/eval.csv"))):
                its_own = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changed)
                rule = "only --total-timesteps may change, and grow (--resume takes all from the run)"
                raise ValueError(f"{self.folder} has {its_own}: {rule}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.folder / "lock")
        with named(f"--run-dir {self.folder}: another process trains there, or nothing can be locked there"):
            self.lock.acquire(timeout=0)
        self.step, self.rows = 0, [[] for _ in self.folders]  # of the checkpoint; of each eval.csv
        if path.exists():
            saved = read(path)
            with named(f"{path} does not fit"):
                self.step, self.rows = saved["step"], saved["rows"]
                torch._foreach_copy_(tensors, saved["tensors"])  # in place, where CUDA graphs read them
                generator.set_state(saved["random"])
                buffer.load_state_dict(saved["buffer"])
        self.clock, self.told, self.speed = (self.step, time.perf_counter()), time.perf_counter(), 0.0
        self.evaluations = []  # agent, step, steps per second, what waits for the row
        self.writers = []
        if self.step >= args.total_timesteps:  # a finished run stays as it is
            return
        kept = asdict(self.args)
        if args.track:
            with named("--track"):
                import wandb

                name = self.folder.name
                wandb.init(name=name, id=name, resume="allow", sync_tensorboard=True, config=kept)
        starts.append({"step": self.step, **surroundings()})
        write(config, json.dumps({"algorithm": ALGORITHM, "args": kept, "starts": starts}, indent=2) + "\n")
        self.writers = [SummaryWriter(str(folder), purge_step=self.step + 1) for folder in self.folders]

    def __exit__(self, kind, error, trace) -> None:
        for writer in self.writers:
            writer.close()
        self.lock.release()
        if error:
            resume = f"python {ALGORITHM}.py --resume {shlex.quote(str(self.folder))}"
            error.add_note(f"to go on from step {self.step}: {resume}")

    def check(self, values: np.ndarray | Tensor, what: str, step: int) -> None:
        """FloatingPointError with step and seeds, if of values (S, ...) one is not finite as a float32."""
        finite = torch.as_tensor(values).float().reshape(len(self.folders), -1).isfinite().all(1).tolist()
        if not all(finite):
            bad = ", ".join(str(self.args.seed + i) for i, good in enumerate(finite) if not good)
            raise FloatingPointError(f"step {step}, seed {bad}: {what} is not finite")

    def log(self, logs: dict[str, Tensor], step: int, last_return: float) -> None:
        """To TensorBoard; without a terminal, which has a bar, also a line every other minute."""
        for name, values in logs.items():
            self.check(values, name, step)
            for writer, value in zip(self.writers, values.tolist(), strict=True):
                writer.add_scalar(name, value, step)
        now, (before, then) = time.perf_counter(), self.clock
        self.speed = (step - before) / (now - then)
        if now > self.told + 120.0 and not sys.stderr.isatty():
            self.told = now
            print(f"step {step}: last return in training {last_return:.1f}, {self.speed:.1f} steps/s")

    def evaluate(self, agent: Agent, step: int) -> None:
        """Writes agent_<step>.pt of each seed and has it played, in a process beside the training or here."""
        self.collect()
        weights, n = agent.state_dict(), len(self.folders)
        for i, folder in enumerate(self.folders):
            args = replace(self.args, seed=self.args.seed + i, num_seeds=1)
            own = {name: value.chunk(n)[i].cpu().clone() for name, value in weights.items()}
            path = folder / f"agent_{step}.pt"
            state = {"algorithm": ALGORITHM, "args": asdict(args), "step": step, "agent": own}
            write(path, state | self.shapes)
            job = evaluate, path, args
            get_row = self.pool.submit(*job).result if self.pool else partial(*job)
            self.evaluations.append((i, step, self.speed, get_row))
        if not self.pool:
            self.collect()
        self.clock = step, time.perf_counter()

    def collect(self) -> None:
        """Writes down what was played, in order. Agents stay that are as old as a checkpoint, or the end."""
        for i, step, speed, get_row in self.evaluations:
            row = {"global_step": step, **get_row(), "steps_per_second": round(speed, 1)}
            self.rows[i].append(row)
            lines = [self.rows[i][0], *(row.values() for row in self.rows[i])]
            write(self.folders[i] / "eval.csv", "".join(",".join(map(str, line)) + "\n" for line in lines))
            for name in "return_mean", "length_mean", "q_bias", "j_c_mean", "lambda":
                self.writers[i].add_scalar(f"eval/{name}", row[name], step)
            self.writers[i].flush()
            score = f"return {row['return_mean']:.1f} +- {row['return_std']:.1f}"
            score += f", J_C {row['j_c_mean']:.1f}, lambda {row['lambda']:.2f}"
            tqdm.write(f"{self.folders[i].name}, step {step}: {score}, {speed:.1f} steps/s")
            if step % self.args.checkpoint_frequency and step < self.args.total_timesteps:
                (self.folders[i] / f"agent_{step}.pt").unlink()
        self.evaluations = []

    def save(self, step: int, **state) -> None:
        """checkpoint.pt: all it takes to go on."""
        self.collect()
        if not all(tensor.isfinite().all() for tensor in state["tensors"]):
            raise FloatingPointError(f"step {step}: a weight, or what Adam keeps, is not finite")
        write(self.folder / "checkpoint.pt", {"step": step, "rows": self.rows, **state})
        self.step, self.clock = step, (step, time.perf_counter())


# ----------------------------------------------------------------------------------------- plumbing: training


def train(args: Args) -> Path:
    """Trains all agents; returns the run's folder. Raises ValueError or OSError for what cannot work,
    FloatingPointError for a number that is not finite, EnvironmentFailed for what the task raises."""
    if getattr(current_process(), "_inheriting", False):  # a child, which imports a script without a guard,
        raise SystemExit(1)  # calls `train` again: its parent's `workers` says why it ends
    args = resolve(args)
    torch.set_num_threads(args.torch_threads)
    seeds, device = args.num_seeds, torch.device("cuda" if args.cuda else "cpu")
    vector = partial(AsyncVectorEnv, context="spawn") if args.cuda and seeds > 1 else SyncVectorEnv
    if args.capture_video:
        make_env(args, film=Path.cwd() / "try").close()
    envs = vector([partial(make_env, args)] * seeds, autoreset_mode=AutoresetMode.DISABLED)
    low, high = envs.single_action_space.low, envs.single_action_space.high
    obs_dim, action_dim = envs.single_observation_space.shape[0], low.size

    generator = Generator(device).manual_seed(args.seed)  # of all that is random, but for what tasks draw
    agent = Agent(generator, seeds, obs_dim, action_dim, args)
    optimizers = make_optimizers(agent, args)
    adam = [value for o in optimizers.values() for state in o.state.values() for value in state.values()]
    tensors = [*agent.state_dict().values(), *adam]  # all that learns
    buffer = ReplayBuffer(seeds, min(args.buffer_size, args.total_timesteps), obs_dim, action_dim, device)
    # What act and learn read. It is filled before each call, so that a CUDA graph of them draws nothing.
    obs_now = torch.zeros(seeds, 1, obs_dim, device=device)
    noise_to_act = torch.zeros(agent.draws_to_act, seeds, 1, action_dim, device=device)
    noise = torch.zeros(2 * agent.draws, seeds, args.batch_size, action_dim, device=device)
    numbers = torch.zeros(seeds, args.batch_size, dtype=torch.long, device=device)
    chosen = torch.zeros(seeds, action_dim, pin_memory=args.cuda)
    chosen_now = torch.get_device_module(device).Event()

    act = capture(lambda: agent.act(obs_now, noise_to_act).squeeze(1), tensors)
    learn = capture(lambda: update(agent, optimizers, buffer.sample(numbers), noise, args), tensors)
    shapes = {"obs_dim": obs_dim, "low": torch.from_numpy(low), "high": torch.from_numpy(high)}
    beside = workers(min(seeds, max(1, os.cpu_count() // 2))) if args.cuda or seeds > 1 else nullcontext()
    with beside as pool, Run(args, pool, shapes, tensors, generator, buffer) as run:
        steps = range(run.step + 1, args.total_timesteps + 1)
        if not steps:
            print(f"{run.folder} is finished: {run.step} steps. To go on, give a larger --total-timesteps.")
            return run.folder
        plan = f"steps {run.step} to {args.total_timesteps} on {device}"
        print(f"{run.folder}: {plan}, with random actions up to {args.learning_starts}")
        bar = tqdm(steps, initial=run.step, total=steps[-1], unit="step", disable=None, dynamic_ncols=True)
        logs, last_return, saved = {}, math.nan, True
        for step in bar:
            if saved:  # also at the start. Departure [Episodes at a checkpoint]: they are cut there
                obs, _ = envs.reset(seed=torch.randint(2**31, (), generator=generator, device=device).item())
                returns, lengths = np.zeros((2, seeds))
                costs_so_far = np.zeros((2, seeds))  # of each episode: their sum, and discounted
            run.check(obs, "the environment's observation", step)

            if step <= args.learning_starts:
                uniform = torch.rand(seeds, action_dim, generator=generator, device=device)
                actions = (2.0 * uniform - 1.0).cpu().numpy()
            else:
                obs_now.copy_(torch.tensor(obs, pin_memory=args.cuda).unsqueeze(1), non_blocking=True)
                noise_to_act.normal_(generator=generator)
                chosen.copy_(act(), non_blocking=True)
                chosen_now.record()  # the CPU waits for the action alone, and not for the update behind it
                if buffer.added:  # Departure [The newest transition]: a GPU learns while the tasks step
                    noise.normal_(generator=generator)
                    numbers.random_(min(buffer.added, buffer.capacity), generator=generator)
                    logs = learn()
                chosen_now.synchronize()
                actions = chosen.numpy()  # (S, A)
                run.check(actions, "the policy's action", step)
            next_obs, rewards, terminated, truncated, infos = envs.step(rescale(actions, low, high))
            costs, whose = infos["cost"], "the environment's observation, reward or cost"
            run.check(np.column_stack([next_obs, rewards, costs]), whose, step)
            buffer.add(obs, actions, rewards, next_obs, terminated, costs)
            costs_so_far += costs, args.gamma**lengths * costs
            obs, returns, lengths = next_obs, returns + rewards, lengths + 1
            if (over := terminated | truncated).any():
                for i in np.flatnonzero(over):
                    of_policy = step - lengths[i] >= args.learning_starts  # from its first step on
                    agent.multiplier.end_episode(i, *costs_so_far[:, i], lengths[i], of_policy)
                    run.writers[i].add_scalar("charts/episodic_return", returns[i], step)
                    run.writers[i].add_scalar("charts/episodic_cost", costs_so_far[0, i], step)
                last_return = returns[over].mean()
                bar.set_postfix_str(f"return {last_return:.1f}", refresh=False)
                obs, _ = envs.reset(options={"reset_mask": over})
                returns[over], lengths[over], costs_so_far[:, over] = 0.0, 0.0, 0.0

            saved = step == args.total_timesteps or step % args.checkpoint_frequency == 0
            evaluated = saved or step % args.eval_frequency == 0
            if evaluated or step % 100 == 0:
                run.log(logs, step, last_return)
            if evaluated:
                run.evaluate(agent, step)
            if saved:
                run.save(step, tensors=tensors, random=generator.get_state(), buffer=buffer.state_dict())
        envs.close()
        print(f"trained: {run.folder}\nplay: python {ALGORITHM}.py --evaluate {shlex.quote(str(run.folder))}")
    return run.folder


def resolve(args: Args) -> Args:
    """Fills in what Table I, the machine and the clock decide. ValueError for what cannot be.

    Departure [Tasks outside Table I]: HalfCheetah's row.
    """
    family = re.sub(r"^.*:|-v\d+$", "", args.env_id)
    cost, limit = COSTS.get(family, (None, None))
    args = replace(args, cost=args.cost or cost)
    if args.cost_limit is None and args.cost == cost and args.gamma == 0.99:  # as J_C is discounted
        args = replace(args, cost_limit=limit)
    if args.cost is None or args.cost_limit is None:
        known = "but for Ant (torque) and HalfCheetah (speed) at gamma 0.99"
        raise ValueError(f"{args.env_id} needs --cost and --cost-limit: there are no defaults {known}")
    row = args.table_row or (family if family in TABLE_I else "HalfCheetah")
    if row not in TABLE_I:
        raise ValueError(f"--table-row {row}: the rows are {', '.join(TABLE_I)}")
    known = dict(zip(SETTINGS, TABLE_I[row], strict=True))
    missing = {name: value for name, value in known.items() if getattr(args, name) is None}
    if missing and row != family:
        print(f"{args.env_id}: {', '.join(missing)} as in {row}'s row of Table I (see --table-row)")
    args = replace(args, **missing)
    for name, value in asdict(args).items():
        flag, least = f"--{name.replace('_', '-')}", "0 or more" if name in MAY_BE_0 else "above 0"
        if value == "":
            raise ValueError(f"{flag} must not be empty")
        if type(value) in (int, float) and not (0 < value < 1e12 or (value == 0 and name in MAY_BE_0)):
            raise ValueError(f"{flag} cannot be {value}: it must be {least}, and below 1e12")
    if args.gamma >= 1.0 or args.tau > 1.0:
        raise ValueError("--gamma must be below 1, as limits are on discounted sums, and --tau at most 1")
    now = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9}"
    name = f"{args.env_id}__{ALGORITHM}__{args.seed}__{now}"
    folder = args.resume or args.run_dir or f"runs/{re.sub('[/:]', '-', name)}"
    # Absolute before foreign code runs: a simulator may change the current folder.
    folder = Path(folder).expanduser().absolute()
    return replace(args, run_dir=str(folder), cuda=args.cuda and torch.cuda.is_available())


def play(args: Args) -> None:
    """--evaluate: plays agents and prints their returns. What is not given is as in the agent's run."""
    path = Path(args.evaluate).expanduser().absolute()
    found = sorted(path.glob("seed_*/agent_*.pt"), key=lambda file: int(file.stem.removeprefix("agent_")))
    newest = {file.parent: file for file in found}
    if not path.is_file() and not newest:
        raise ValueError(f"--evaluate {path}: there is no agent_<step>.pt")
    for file in [path] if path.is_file() else sorted(newest.values()):
        own = resolve(tyro.cli(Args, default=load(file)[0].args))
        make_env(own, Path.cwd() / "try" if own.capture_video else None).close()  # errors of an argument
        row = evaluate(file, own)
        returns = " ".join(f"{row[f'return_{i}']:.1f}" for i in range(own.eval_episodes))
        print(f"{file}: returns {returns}, mean {row['return_mean']:.1f}")
        over = f"episodes over it {100.0 * row['share_over_limit']:.0f} %"
        print(f"J_C {row['j_c_mean']:.1f}, limit {own.cost_limit:g}, {over}")
        if own.capture_video:
            print(f"film: {file.parent / 'videos' / file.stem}-episode-0.mp4")


if __name__ == "__main__":
    sys.path.append(os.getcwd())  # --env-id my_module:MyTask-v0 finds my_module.py in the current folder
    sys.stdout.reconfigure(line_buffering=True)  # a line is there at once
    EnvironmentFailed.__module__ = "__mp_main__"  # this file's name in each process, so it can come back
    status = {EnvironmentFailed: 1, FloatingPointError: 3, KeyboardInterrupt: 130}  # 2: input, disk or memory
    try:
        args = tyro.cli(Args)
        if sum(folder is not None for folder in (args.resume, args.run_dir, args.evaluate)) > 1:
            raise ValueError("give one of --resume, --run-dir and --evaluate")
        if args.resume is not None:  # what is not given is as in the run
            args = tyro.cli(Args, default=stored_run(Path(args.resume).expanduser())[0])
        train(args) if args.evaluate is None else play(args)
    # EOFError and BrokenExecutor: a process of the environments, or one that evaluates, was killed.
    except (ValueError, OSError, EOFError, BrokenExecutor, torch.OutOfMemoryError, *status) as error:
        said = {EnvironmentFailed: "the environment failed", KeyboardInterrupt: "interrupted"}
        if isinstance(error, EnvironmentFailed):
            print(error, file=sys.stderr)  # the task's own traceback
        text = said.get(type(error), f"{type(error).__name__}: {error}")
        line = "; ".join([text, *getattr(error, "__notes__", [])])
        print(f"{ALGORITHM}.py: {' '.join(line.split())}", file=sys.stderr)
        sys.exit(status.get(type(error), 2))
