"""SAC-HPO for safe RL: Hamiltonian policy, cost critic and Lyapunov acceptance (Xu & Fekri 2021, Secs. IV-D, V-B).

As in SAC-HPO, leapfrog steps push actions, here towards higher Q - lambda Q_C. While acting, the leapfrog goes on, with
fresh momentum noise at every step, until the cost critic finds the action safe enough or ten steps are done. lambda
is SAC-Lagrangian's.

    python sac_hpo_safe.py --env-id HalfCheetah-v4
    python sac_hpo_safe.py --env-id Hopper-v4 --cost torque --cost-limit 20
    python sac_hpo_safe.py --resume runs/<run>                      # goes on, bit for bit, where the run stopped
    python sac_hpo_safe.py --evaluate runs/<run> --capture-video    # plays the finished agent

Paper -> this file
    Eqs. (14), (15), Algorithm 3       HamiltonianPolicy.act
    Sec. II-B, Sec. V-B, multiplier    Multiplier
    Sec. V-B, costs and limits         CostWrapper, COSTS, constraint
    Eq. (7), Algorithm 2               leapfrog, HamiltonianPolicy.evolve
    Eq. (9), conventional leapfrog     HamiltonianPolicy.force_at
    Eq. (10), density of (a_K, rho_K)  HamiltonianPolicy.sample_with_momentum
    Eq. (12), policy objective         policy_loss
    Eq. (13), proposed leapfrog        HamiltonianPolicy.force_at
    Algorithm 1                        train, update
    [16], SAC's soft Bellman backup    soft_q_target, q_loss
    Sec. V-A, evaluation protocol      evaluate
    Table I, settings by task          TABLE_I

Departures from the paper
    Sec. V-B prints Q + lambda Q_C, a misprint: Q - lambda Q_C, as in Sec. II-B   HamiltonianPolicy.value_at
    Ant's limit of 25 is read as an average torque of 25 %                        constraint
    lambda moves every 1,000 steps; the paper says in every learning iteration    Multiplier
    Not said there: Q_C of an average, the torque, goes on past a termination     update
    Algorithm 3 is followed; Sec. IV-D tests the action before any leapfrog step  HamiltonianPolicy.act
    pi_B(s) is tanh(mean), the present base policy without noise and leapfrog     HamiltonianPolicy.act
    Not said there: evaluation starts from (mean, 0), then is Algorithm 3 too     HamiltonianPolicy.act
    Q_C is of the training chain: Table I's K steps, without acceptance           HamiltonianPolicy.sample
    Actions are in (-1, 1)^A everywhere but in the call to the environment        make_env
    The leapfrog moves u where a = tanh(u), not a, which would leave (-1, 1)      HamiltonianPolicy
    Table I's epsilon and spreads of rho are taken in units of u                  HamiltonianPolicy
    Eq. (9)'s potential takes the change of variables from a to u into account    HamiltonianPolicy.force_at
    Eq. (13)'s g is the gradient in a, and drives u                               HamiltonianPolicy.force_at
    Not said there: T_h and sigma_h see the state; T_h is unbounded               HamiltonianPolicy
    Two target critics, the smaller of them counts, in forces and in Eq. (12)     HamiltonianPolicy.force_at
    Table II's "Gaussian Policy" is the base policy, one hidden layer, not SAC's  HamiltonianPolicy.evolve
    A control of our own beside Eqs. (9) and (13): "drift", no force at all       HamiltonianPolicy.force_at
    Not said there: the soft target takes the training chain, no terms of rho     HamiltonianPolicy.sample
    In updates, Q and its gradient in a are rounded to bfloat16 where it is fast  HamiltonianPolicy.value_at
    Not said there: how the spread is bounded; here (-5, 2) for its logarithm     GaussianPolicy.forward
    alpha stays at Table I's value; the paper also speaks of tuning: --autotune   temperature_loss

Shapes in comments: B batch, O observation, A action. K: Table I's leapfrog steps, in updates; Algorithm 3 has its own.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import gymnasium as gym
import mujoco
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

# ------------------------------------------------------------------------------------------------------- arguments


@dataclass
class Args:
    # task and budget
    env_id: str = "Hopper-v4"
    """task: any Gymnasium id with a Box observation and a bounded Box action space"""
    seed: int = 1
    """seed of every random number of the run"""
    total_timesteps: int = 1_000_000
    """environment steps to train for"""

    # SAC
    buffer_size: int = 1_000_000
    """transitions the replay buffer holds (|B| in Table I)"""
    gamma: float = 0.99
    """discount factor per step"""
    tau: float = 0.005
    """share of the critics that enters the target critics at each update"""
    batch_size: int = 256
    """transitions per update (m in Table I)"""
    learning_starts: int = 5_000
    """steps with uniformly random actions before the first update; the paper speaks of none"""
    policy_lr: float = 3e-4
    """Adam step size of the policy"""
    q_lr: float = 3e-4
    """Adam step size of the critics and, with --autotune, of the temperature"""
    alpha: float | None = None
    """temperature (alpha); with --autotune where it starts [default: Table I by task]"""
    autotune: bool = False
    """learn the temperature so that the policy's entropy nears -A nats"""

    # Hamiltonian policy
    leapfrog_steps: int | None = None
    """leapfrog steps per action (K) [default: Table I by task]"""
    step_size: float | None = None
    """leapfrog step size (epsilon) [default: Table I by task]"""
    momentum_std_train: float | None = None
    """standard deviation of the momentum drawn in updates (1/sqrt(beta_0^tr)) [default: Table I by task]"""
    momentum_std_explore: float | None = None
    """standard deviation of the momentum drawn to act (1/sqrt(beta_0^exp)) [default: Table I by task]"""
    leapfrog_hidden: int | None = None
    """ELU units in each of T_h and sigma_h (h_n) [default: Table I by task]"""
    leapfrog_state: bool = True
    """T_h and sigma_h see the state too"""
    momentum_in_target: bool = False
    """the critics' soft target charges for the momentum as Eq. (12) does"""
    explore: Literal["proposed", "conventional", "drift", "gaussian"] = "proposed"
    """what evolves actions to execute and to evaluate: Eq. (13), Eq. (9), momentum alone or nothing (Table II)"""
    train: Literal["proposed", "conventional", "drift", "gaussian"] = "proposed"
    """what evolves the actions in updates (Table II)"""

    # cost
    cost: Literal["torque", "speed", "info"] | None = None
    """cost of a step: mean |action|, 1 if |x velocity| > 1, or info["cost"] [default: Ant torque, HalfCheetah speed]"""
    cost_limit: float | None = None
    """limit d_0 on the cost of an episode, as a discounted sum [default: 25 for Ant, 10 for HalfCheetah]"""
    lambda_lr: float = 0.1
    """step size of the multiplier (eta)"""
    cost_window: int = 1000
    """steps between moves of the multiplier, each by the mean J_C of the episodes that ended since the last"""
    max_leapfrog_steps: int = 10
    """leapfrog steps after which an action is executed, safe or not (Algorithm 3's K; --leapfrog-steps: updates)"""

    # machine
    torch_threads: int = 1
    """CPU threads PyTorch may use; results repeat bit for bit at an equal number"""
    cuda: bool = True
    """use a GPU if PyTorch finds one"""
    bfloat16_force: bool | None = None
    """in updates, compute the wide layers of the leapfrog's critics in bfloat16 [default: if that is fast here]"""

    # what a run reports and keeps
    runs_dir: str = "runs"
    """folder in which the run's own folder is made"""
    eval_frequency: int = 10_000
    """steps between evaluations"""
    eval_episodes: int = 10
    """episodes per evaluation"""
    checkpoint_frequency: int = 10_000
    """steps after which the next episode end writes a checkpoint"""
    snapshot_frequency: int = 0
    """steps between snapshots of the agent, agent_<step>.pt; 0: only one, at the end"""
    capture_video: bool = False
    """film the first episode of every evaluation, with --evaluate all of them"""
    track: bool = False
    """log to Weights & Biases as well"""
    wandb_project_name: str = "sac-hpo"
    """Weights & Biases project"""
    wandb_entity: str | None = None
    """Weights & Biases team or user"""

    # instead of a new run
    resume: str | None = None
    """folder of a run to go on with; all arguments come from it, --total-timesteps may be raised"""
    evaluate: str | None = None
    """folder of a run whose last agent is to play --eval-episodes episodes"""


ALGORITHM = Path(__file__).stem
COSTS = {"Ant": ("torque", 25.0), "HalfCheetah": ("speed", 10.0)}  # Sec. V-B
# The paper's Table I, by environment id without its version.
TABLE_I_COLUMNS = "alpha momentum_std_train momentum_std_explore step_size leapfrog_steps leapfrog_hidden".split()
TABLE_I = {
    "HalfCheetah": (0.2, 1.0, 0.5, 0.2, 3, 32),
    "Hopper": (0.2, 0.1, 1.5, 0.15, 2, 32),
    "Walker2d": (0.2, 0.2, 1.5, 0.15, 3, 32),
    "Ant": (0.2, 0.1, 1.0, 0.1, 3, 32),
    "Humanoid": (0.05, 1.0, 1.0, 0.1, 3, 64),
    "HumanoidBulletEnv": (0.05, 0.4, 1.5, 0.2, 3, 64),
    "HumanoidFlagrunBulletEnv": (0.05, 0.2, 1.0, 0.15, 3, 32),
    "HumanoidFlagrunHarderBulletEnv": (0.05, 0.2, 1.5, 0.15, 3, 64),
}


def stop(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line on stderr. Status 2: unusable input, 3: the run went non-finite, 130: Ctrl-C."""
    print(f"{ALGORITHM}.py: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def require(args: Args, names: str, meaning: str, low: float, high: float = sys.float_info.max) -> None:
    for name in names.split():
        if not low <= getattr(args, name) <= high:
            stop(f"--{name.replace('_', '-')} must be {meaning}, not {getattr(args, name)}")


def resolve(args: Args) -> Args:
    """Fills what was not given from Table I; exits with status 2 on a value that cannot work."""
    family = args.env_id.rpartition("-v")[0]
    if family not in TABLE_I:
        print(f"{args.env_id} is not in the paper's Table I: Hopper's row stands in for what is not given")
    row = zip(TABLE_I_COLUMNS, TABLE_I.get(family, TABLE_I["Hopper"]), strict=True)
    args = replace(args, **{name: value for name, value in row if getattr(args, name) is None})
    require(args, "total_timesteps buffer_size batch_size torch_threads", "1 or more", 1)
    require(args, "eval_frequency eval_episodes checkpoint_frequency", "1 or more", 1)
    require(args, "seed learning_starts snapshot_frequency", "0 or more, below 2^63", 0, 2**63 - 1)
    require(args, "policy_lr q_lr alpha", "positive", sys.float_info.min)
    require(args, "gamma", "between 0 and 1", 0, 1)
    require(args, "tau", "above 0 and at most 1", sys.float_info.min, 1)
    require(args, "leapfrog_steps leapfrog_hidden", "1 or more", 1)
    require(args, "step_size", "positive", sys.float_info.min)
    require(args, "momentum_std_train momentum_std_explore", "0 or more", 0)
    if args.bfloat16_force is None:
        fast = {"avx512_bf16", "amx_bf16"} & {name for name, there in torch.cpu.get_capabilities().items() if there}
        args = replace(args, bfloat16_force=bool(fast) and not (args.cuda and torch.cuda.is_available()))
    if args.explore == "proposed" and args.train != "proposed":
        stop(f"--explore proposed needs --train proposed, not {args.train}: nothing else trains T_h and sigma_h")
    cost, limit = COSTS.get(family, (None, None))
    if args.cost_limit is None and args.cost not in (None, cost):
        stop(f"--cost {args.cost} needs a --cost-limit: there is no default for it with {args.env_id}")
    args = replace(args, cost=args.cost or cost, cost_limit=limit if args.cost_limit is None else args.cost_limit)
    if args.cost is None or args.cost_limit is None:
        stop(f"--cost and --cost-limit must be given: {args.env_id} has no default, only Ant and HalfCheetah do")
    require(args, "cost_limit", "0 or more", 0)
    require(args, "lambda_lr", "positive", sys.float_info.min)
    require(args, "cost_window", "1 or more", 1)
    require(args, "gamma", "below 1 with a cost", 0, math.nextafter(1.0, 0.0))
    require(args, "max_leapfrog_steps", "between 1 and 1,000,000", 1, 1_000_000)
    if args.momentum_in_target and (args.train == "gaussian" or args.momentum_std_train == 0.0):
        stop("--momentum-in-target needs a momentum: --momentum-std-train above 0, --train other than gaussian")
    if args.track and importlib.util.find_spec("wandb") is None:
        stop("--track needs Weights & Biases: pip install wandb")
    return args


# ----------------------------------------------------------------------------------------------------- environment


def make_env(args: Args, render_mode: str | None = None) -> gym.Env:
    """One environment with flat float32 observations (O,) and actions in [-1, 1]^A, rescaled to its own bounds.

    Exits with status 2 if there is no such environment, its spaces do not fit, or it cannot draw when asked to.
    """
    env_id, options = args.env_id, {"render_mode": render_mode} if render_mode else {}  # not all know the latter
    # Left alone, MuJoCo writes its warnings to a file in the current folder, deprecated model settings among them.
    mujoco.set_mju_user_warning(lambda text: None if "deprecated" in text else print(text, file=sys.stderr))
    try:
        if "BulletEnv" in env_id:
            import pybullet_envs_gymnasium  # noqa: F401  (registers the paper's tasks of Roboschool by these ids; slow)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # -v4 is meant: the nearest to the paper's -v2
            env = gym.make(env_id, disable_env_checker=True, **options)
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        stop(f"--env-id {env_id}{' with --capture-video' if render_mode else ''}: {error}")
    box, actions = env.observation_space, env.action_space
    if not isinstance(box, gym.spaces.Box):
        stop(f"--env-id {env_id}: observations must be a Box, not {box}")
    if not isinstance(actions, gym.spaces.Box) or actions.dtype.kind != "f" or not actions.is_bounded():
        stop(f"--env-id {env_id}: actions must be a continuous Box with finite bounds, not {actions}")
    if render_mode:
        try:
            import moviepy  # noqa: F401  (RecordVideo needs it)

            env.reset(seed=0)
            env.render()
        except Exception as error:  # every graphics backend raises its own kind
            stop(f"--capture-video: no picture of {env_id}; on a machine without a screen set MUJOCO_GL=egl ({error})")
    low, high = actions.low, actions.high

    # Departure: the paper says nothing of bounds other than its prior's (-1, 1). Rounding may pass them: so the clip.
    def rescale(action: np.ndarray) -> np.ndarray:  # (A,)
        return np.clip(low + 0.5 * (action.reshape(low.shape) + 1.0) * (high - low), low, high).astype(low.dtype)

    flat = gym.spaces.Box(-np.inf, np.inf, (int(np.prod(box.shape)),), np.float32)
    # A copy, since an environment may write its next observation over the last one.
    env = gym.wrappers.TransformObservation(env, lambda obs: np.array(obs, np.float32).ravel(), flat)
    env = gym.wrappers.TransformAction(env, rescale, gym.spaces.Box(-1.0, 1.0, (low.size,), np.float32))
    return CostWrapper(env, args.cost)


class CostWrapper(gym.Wrapper):
    """Puts the cost of a step into info["cost"] (Sec. V-B); exits with status 2 where there is none to put."""

    def __init__(self, env: gym.Env, cost: str):
        super().__init__(env)
        self.cost = cost

    def step(self, action: np.ndarray):
        obs, reward, terminated, truncated, info = self.env.step(action)
        needed = {"speed": "x_velocity", "info": "cost"}.get(self.cost)
        if needed and needed not in info:
            stop(f"--cost {self.cost}: the environment does not report info[{needed!r}]")
        if self.cost == "torque":
            info["cost"] = np.abs(action).mean()  # actions are in [-1, 1]: a share of the motors' largest torque
        elif self.cost == "speed":
            info["cost"] = abs(info["x_velocity"]) > 1.0
        info["cost"] = float(info["cost"])
        return obs, reward, terminated, truncated, info


def constraint(args: Args, total: float, discounted: float, length: int) -> float:
    """J_C of an episode, from the sum of its costs, their discounted sum and the number of its steps.

    Departure: both limits are read as in units of a discounted sum. For the torque the paper averages: here the mean
    cost per step over 1 - gamma, the discounted sum of an endless episode at that cost. So 25 is, at
    gamma = 0.99, an average torque of 25 %, which is what the source of the task (RCPO) constrains; as a sum over 1,000
    steps it would be 2.5 %.
    """
    return total / length / (1.0 - args.gamma) if args.cost == "torque" else discounted


# --------------------------------------------------------------------------------------------------- replay buffer


class Batch(NamedTuple):
    obs: Tensor  # (B, O)
    action: Tensor  # (B, A), in [-1, 1]
    reward: Tensor  # (B,)
    next_obs: Tensor  # (B, O)
    terminated: Tensor  # (B,), 1 where the episode ended for good; a truncated one counts as 0
    cost: Tensor  # (B,)


class ReplayBuffer:
    """The last `capacity` transitions, overwritten in a ring. Memory is taken only as it fills."""

    def __init__(self, capacity: int, obs_dim: int, action_dim: int):
        shapes = Batch((obs_dim,), (action_dim,), (), (obs_dim,), (), ())
        self.data = Batch(*(np.zeros((capacity, *shape), np.float32) for shape in shapes))
        self.capacity, self.added = capacity, 0

    def add(self, *transition) -> None:
        """Takes the fields of Batch for one step, in their order."""
        for array, value in zip(self.data, transition, strict=True):
            array[self.added % self.capacity] = value
        self.added += 1

    def sample(self, batch_size: int, rng: np.random.Generator, device: torch.device) -> Batch:
        """Draws transitions uniformly, with replacement."""
        rows = rng.integers(min(self.added, self.capacity), size=batch_size)
        return Batch(*(torch.from_numpy(array[rows]).to(device) for array in self.data))

    def state_dict(self) -> dict:
        filled = min(self.added, self.capacity)  # slices before from_numpy: torch.save then writes these rows only
        return {"added": self.added, "data": [torch.from_numpy(array[:filled]) for array in self.data]}

    def load_state_dict(self, state: dict) -> None:
        self.added = state["added"]
        for array, saved in zip(self.data, state["data"], strict=True):
            array[: len(saved)] = saved.numpy()


# -------------------------------------------------------------------------------------------------------- networks


class QNetwork(nn.Module):
    """Q(s, a): two hidden layers of 256 ReLU units (Sec. V-A)."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        layers = nn.Linear(obs_dim + action_dim, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)
        self.net = nn.Sequential(*layers)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([obs, action], dim=-1)).squeeze(-1)  # (B,)

    # The same again, for ReLU alone, written out for the gradient in the action: without autograd's graph, its gradient
    # in the state and its concatenation. SAC-HPO's many actions at one state share the state's part of the first layer.
    def state_part(self, obs: Tensor, rounded: bool = False) -> tuple[Tensor, Tensor]:
        """What the state adds to the first layer, bias included, (B, O) -> (B, 256), and the second layer's weights.

        With `rounded` the former is computed in bfloat16 and the latter given in it, so that products with it are too.
        """
        first, _, second, _, _ = self.net
        dtype = torch.bfloat16 if rounded else obs.dtype
        part = F.linear(obs.to(dtype), first.weight[:, : obs.shape[-1]].to(dtype)).to(obs.dtype).add_(first.bias)
        return part, second.weight.to(dtype)

    def layers(self, state_part: tuple[Tensor, Tensor], action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the three layers: (B, 256), (B, 256) and Q (B,)."""
        (part, weight), (first, _, second, _, last) = state_part, self.net
        h1 = torch.addmm(part, action, first.weight[:, -action.shape[-1] :].T).relu_()
        h2 = (h1.to(weight.dtype) @ weight.T).to(h1.dtype).add_(second.bias).relu_()
        return h1, h2, last(h2).squeeze(-1)

    def action_gradient(self, state_part: tuple[Tensor, Tensor], h1: Tensor, h2: Tensor, action_dim: int) -> Tensor:
        """dQ/da (B, A) from the hidden layers' outputs: what comes back passes a ReLU where its output is above 0."""
        _, weight = state_part
        first, _, _, _, last = self.net
        d2 = torch.ops.aten.threshold_backward(last.weight.expand(len(h2), -1), h2, 0.0)  # where(h2 > 0, weight, 0)
        d1 = torch.ops.aten.threshold_backward((d2.to(weight.dtype) @ weight).to(d2.dtype), h1, 0.0)
        return (first.weight[:, -action_dim:].T @ d1.T).T  # d1 @ weight, in the order that is faster for A = 3, 6


class TwinQ(nn.Module):
    """Two critics that differ in their initial weights only; the smaller of the two tempers overestimation."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        self.q1 = QNetwork(obs_dim, action_dim)
        self.q2 = QNetwork(obs_dim, action_dim)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.q1(obs, action), self.q2(obs, action)  # (B,) each

    def min(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.min(*self(obs, action))  # (B,)

    @torch.no_grad()
    def state_parts(self, obs: Tensor, rounded: bool = False) -> tuple:
        return self.q1.state_part(obs, rounded), self.q2.state_part(obs, rounded)

    @torch.no_grad()
    def min_and_gradient(self, state_parts: tuple, action: Tensor) -> tuple[Tensor, Tensor]:
        """min(Q1, Q2) (B,) and its gradient in the action (B, A), as autograd would find them but for ties.

        Each row goes back through its smaller critic only: half of what autograd does, which sends zeros the other way.
        """
        part1, part2 = state_parts
        h1, h2, q1 = self.q1.layers(part1, action)
        k1, k2, q2 = self.q2.layers(part2, action)
        smaller = q1 < q2
        rows, rest = smaller.nonzero().squeeze(-1), (~smaller).nonzero().squeeze(-1)
        h1, h2 = h1.index_select(0, rows), h2.index_select(0, rows)
        k1, k2 = k1.index_select(0, rest), k2.index_select(0, rest)
        gradient, action_dim = torch.empty_like(action), action.shape[-1]
        gradient[rows] = self.q1.action_gradient(part1, h1, h2, action_dim)
        gradient[rest] = self.q2.action_gradient(part2, k1, k2, action_dim)
        return torch.min(q1, q2), gradient


def attach(value: Tensor, gradient: Tensor, action: Tensor) -> Tensor:
    """value (B,), to autograd a function of the action (B, A) with a gradient (B, A) that is known already."""
    return value + (gradient * (action - action.detach())).sum(-1)


def tanh_log_det(u: Tensor) -> Tensor:
    """log |da/du| of a = tanh(u), the sum over A of log(1 - a^2), in a form exact for large |u|. (B, A) -> (B,)"""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u)).sum(-1)


class GaussianPolicy(nn.Module):
    """a = tanh(u), u ~ N(mean(s), std(s)^2), from `hidden_layers` layers of 256 ReLU units."""

    def __init__(self, obs_dim: int, action_dim: int, hidden_layers: int = 2):
        super().__init__()
        layers = [nn.Linear(obs_dim, 256), nn.ReLU()]
        for _ in range(hidden_layers - 1):
            layers += [nn.Linear(256, 256), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.mean = nn.Linear(256, action_dim)
        self.log_std = nn.Linear(256, action_dim)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of u, (B, A) each."""
        x = self.body(obs)  # (B, 256)
        # Squashed into (-5, 2), where gradients still pass; the paper does not say how it keeps the spread in bounds.
        log_std = -5.0 + 3.5 * (torch.tanh(self.log_std(x)) + 1.0)
        return self.mean(x), log_std

    def sample_gaussian(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """u = mean + std * xi (B, A), differentiable in the parameters, and log N(u; mean, std) (B,)."""
        mean, log_std = self(obs)
        xi = torch.randn_like(mean)
        log_normal = (-0.5 * xi.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)
        return mean + log_std.exp() * xi, log_normal

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """An action (B, A) and its log density on (-1, 1)^A (B,)."""
        u, log_normal = self.sample_gaussian(obs)
        return torch.tanh(u), log_normal - tanh_log_det(u)

    def act(self, obs: Tensor, deterministic: bool) -> Tensor:
        """The action to execute (B, A): a sample, or tanh(mean)."""
        return torch.tanh(self(obs)[0]) if deterministic else self.sample(obs)[0]


def leapfrog(u: Tensor, rho: Tensor, force: Callable, step_size: float, steps: int, need_rho: bool = True):
    """`steps` leapfrog steps, Eq. (7), of du/dt = rho, drho/dt = -F(u) from (u, rho), (B, A) each.

    force(u) returns F and whatever else it found at u. F at the end of a step is F at the start of the next: steps + 1
    evaluations do. Without `need_rho` the last, which moves rho only, is left out. Returns u, rho and what the last
    evaluation found. Each line adds to one of (u, rho) a function of the other, a shear, so the Jacobian determinant
    of the whole is 1 for any force. The mass is 1, as in the paper's Eq. (9), whatever the variance of rho.
    """
    f, found = force(u)
    for k in range(1, steps + 1):
        rho = rho - 0.5 * step_size * f
        u = u + step_size * rho
        if need_rho or k < steps:
            f, found = force(u)
            rho = rho - 0.5 * step_size * f
    return u, rho, found


class HamiltonianPolicy(GaussianPolicy):
    """A base policy of one hidden layer draws u_0; K leapfrog steps on (u, rho) follow; a_K = tanh(u_K).

    Departure: the paper evolves a itself and does not say what happens outside (-1, 1). u may go anywhere, and
    log q(a_K, rho_K|s) = log N(u_0) + log N(rho_0) - sum log(1 - a_K^2) is exact, as only the tanh changes volume.
    Table I's epsilon and spreads of the momentum, meant for a, are those of u: noise and force shrink by 1 - a^2 in a.
    What stands for SAC's log pi is this without log N(rho_0): the density of a_K alone has no closed form.
    """

    def __init__(self, obs_dim: int, action_dim: int, args: Args):
        super().__init__(obs_dim, action_dim, hidden_layers=1)
        # The paper calls the state optional and leaves open how T_h ends, here without bound, and all first weights.
        inputs, hidden = 2 * action_dim + (obs_dim if args.leapfrog_state else 0), args.leapfrog_hidden
        self.hidden = nn.Linear(inputs, 2 * hidden)  # the ELU layers of T_h and of sigma_h, side by side
        self.transform, self.gate = nn.Linear(hidden, action_dim), nn.Linear(hidden, action_dim)
        self.args = args

    def value_at(self, obs: Tensor, rounded: bool = False) -> Callable:
        """The function action (B, A) -> Q - lambda Q_C (B,) of the target critics and its gradient (B, A), at states
        (B, O): what takes the place of Q in Eqs. (9), (12) and (13).

        Departures: Sec. V-B prints a plus; Sec. II-B has the sign right. With `rounded` in bfloat16, faster where the
        processor has it: the density stays exact, as it is for any force; the gradient, in Eq. (12) too, is off by
        about one per cent in the median, and by far more at the states where rounding turns a ReLU or the choice of the
        smaller critic over.
        """
        q_target, _, q_cost_target, multiplier = self.borrowed
        state_parts, cost_part = q_target.state_parts(obs, rounded), q_cost_target.state_part(obs, rounded)

        def value_and_gradient(action: Tensor) -> tuple[Tensor, Tensor]:
            q, q_gradient = q_target.min_and_gradient(state_parts, action)
            q_cost, cost_gradient = q_cost_target.value_and_gradient(cost_part, action)
            return q - multiplier.value * q_cost, q_gradient - multiplier.value * cost_gradient

        return value_and_gradient

    def force_at(self, obs: Tensor, operator: str, rounded: bool = False) -> Callable:
        """The function u (B, A) -> F(s, u) (B, A) at states (B, O), and what F is made of: q (B,), here Q - lambda Q_C,
        its gradient in a, sigma_h, T_h. What depends on the states alone is computed once, here.

        Departures: of two target critics the smaller counts; Eq. (9) has the change of variables from a to u in it;
        Eq. (13)'s g, a gradient in a, drives u as it is.
        """
        if operator == "drift":  # a control: F = 0, the momentum's noise alone
            return lambda u: (torch.zeros_like(u), {})
        _, log_alpha, _, _ = self.borrowed
        value_and_gradient = self.value_at(obs, rounded)
        state = obs if self.args.leapfrog_state else obs[:, :0]
        part = F.linear(state, self.hidden.weight[:, : state.shape[-1]], self.hidden.bias)  # (B, 2 h_n)

        def force(u: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            action = torch.tanh(u)
            q, q_gradient = value_and_gradient(action)  # held constant: critics of ReLU are piecewise linear in a
            found = {"q": q, "q_gradient": q_gradient}
            if operator == "conventional":  # Eq. (9): dU/du, U(u) = -Q(s, tanh u) / alpha - sum log(1 - tanh(u)^2)
                return 2.0 * action - (1.0 - action.square()) * q_gradient / log_alpha.detach().exp(), found
            g = -F.normalize(q_gradient, dim=-1)  # Eq. (13), without the factor da/du; 0 stays 0
            x = torch.cat([action, g], dim=-1)  # to T_h(s, a, g) and sigma_h(s, a, g)
            h = F.elu(torch.addmm(part, x, self.hidden.weight[:, -x.shape[-1] :].T))
            h_transform, h_gate = h.chunk(2, dim=-1)  # (B, h_n) each
            transform, gate = self.transform(h_transform), torch.sigmoid(self.gate(h_gate))  # (B, A) each
            return gate * g + (1.0 - gate) * transform, found | {"gate": gate, "transform": transform}

        return force

    def evolve(self, obs: Tensor, u: Tensor, rho: Tensor, operator: str, need_rho: bool = False, rounded: bool = False):
        """Algorithm 2 from (u_0, rho_0), (B, A) each: u_K, rho_K and what the last force evaluation found."""
        step_size, steps = self.args.step_size, self.args.leapfrog_steps
        if operator == "gaussian":  # of Table II; departure: this base policy has one hidden layer, SAC's has two
            return u, torch.zeros_like(rho), {}
        return leapfrog(u, rho, self.force_at(obs, operator, rounded), step_size, steps, need_rho)

    def sample_with_momentum(self, obs: Tensor, need_rho: bool = True):
        """The training chain, Eq. (10): a_K (B, A), log q(a_K, rho_K|s) - log N(rho_0) (B,), rho_K (B, A), and what
        the force found there. Without `need_rho` rho stops half a step short, what was found a whole one: faster."""
        u, log_normal = self.sample_gaussian(obs)
        rho = self.args.momentum_std_train * torch.randn_like(u)
        u, rho, found = self.evolve(obs, u, rho, self.args.train, need_rho, self.args.bfloat16_force)
        return torch.tanh(u), log_normal - tanh_log_det(u), rho, found

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """For the soft target, on which the paper is silent: a_K (B, A) of the training chain and its log_prob (B,).

        With --momentum-in-target the latter also has what Eq. (12) charges for rho_K, beyond what rho_0 would cost.
        Q and Q_C are those of this chain, of Table I's K steps, and not of Algorithm 3, which acts.
        """
        if not self.args.momentum_in_target:
            return self.sample_with_momentum(obs, need_rho=False)[:2]
        action, log_prob, rho, _ = self.sample_with_momentum(obs)  # the penalty's mean is A / 2 if no force acts
        return action, log_prob + 0.5 * ((rho / self.args.momentum_std_train).square() - 1.0).sum(-1)

    def act(self, obs: Tensor, deterministic: bool, first_obs: Tensor, generator: torch.Generator | None = None):
        """Algorithm 3 for states (B, O) of episodes that began at first_obs (B, O): the action to execute (B, A), and
        the leapfrog step at which each was accepted (B,), max_leapfrog_steps + 1 for those that never were, 0 if
        --explore gaussian leaves no other action to try.

        Left open by the paper: pi_B(s) is tanh(mean), the base policy as it is now; evaluations start from (mean, 0),
        so only later steps' noise is left, from `generator`. (Sec. IV-D would test a_0 too; Algorithm 3 does not.)
        """
        _, _, q_cost_target, _ = self.borrowed
        mean = self(obs)[0]
        if deterministic:
            u, rho = mean, torch.zeros_like(mean)
        else:
            u = self.sample_gaussian(obs)[0]
            rho = self.args.momentum_std_explore * torch.randn_like(u)
        accepted_at = torch.full((len(obs),), self.args.max_leapfrog_steps + 1, device=obs.device)
        if self.args.explore == "gaussian":
            return torch.tanh(u), torch.zeros_like(accepted_at)

        reference = q_cost_target(obs, torch.tanh(mean))  # Q_C(s, pi_B(s))
        first_cost = q_cost_target(first_obs, torch.tanh(self(first_obs)[0]))  # Q_C(s_0, pi_B(s_0))
        slack = (1.0 - self.args.gamma) * (self.args.cost_limit - first_cost)  # Eq. (15); negative if infeasible
        half_step = 0.5 * self.args.step_size
        force = self.force_at(obs, self.args.explore)
        f, _ = force(u)
        for k in range(1, self.args.max_leapfrog_steps + 1):
            rho = rho - half_step * f
            waiting = accepted_at > self.args.max_leapfrog_steps  # (B,), the others stay where they are
            u = torch.where(waiting[:, None], u + self.args.step_size * rho, u)
            accepted = q_cost_target(obs, torch.tanh(u)) - reference < slack  # Eq. (14)
            accepted_at[waiting & accepted] = k
            if k == self.args.max_leapfrog_steps or (accepted_at <= k).all():
                break
            f, _ = force(u)  # ends this step and begins the next
            noise = torch.randn(rho.shape, generator=generator, device=rho.device, dtype=rho.dtype)
            rho = rho - half_step * f + self.args.momentum_std_explore * noise
        return torch.tanh(u), accepted_at


class CostCritic(QNetwork):
    """Q_C(s, a), the discounted cost to come. One alone: no minimum is taken of it."""

    @torch.no_grad()
    def value_and_gradient(self, state_part: tuple[Tensor, Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
        """Q_C (B,) and its gradient in the action (B, A)."""
        h1, h2, q_cost = self.layers(state_part, action)
        return q_cost, self.action_gradient(state_part, h1, h2, action.shape[-1])


class Multiplier(nn.Module):
    """lambda <- [lambda + eta (J_C - d_0)]_+ at the first end of an episode at least args.cost_window steps after the
    last move, from lambda = 0.

    Departure: the paper moves lambda in every learning iteration. After every episode already, however short, it outran
    a policy that falls over. What the paper leaves open: J_C is the mean over the episodes that ended since; those that
    began with random actions do not count. There is no optimiser: Adam would make steps of one size however large the
    violation.
    """

    def __init__(self, args: Args):
        super().__init__()
        self.args = args
        self.register_buffer("value", torch.zeros(()))  # lambda
        self.register_buffer("sum_j_c", torch.zeros((), dtype=torch.float64))  # since its last move, of the policy:
        self.register_buffer("recent_episodes", torch.zeros((), dtype=torch.long))
        self.register_buffer("recent_steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("episodes", torch.zeros((), dtype=torch.long))  # of training, random ones included,
        self.register_buffer("over_limit", torch.zeros((), dtype=torch.long))  # how many of them cost too much,
        self.register_buffer("total_cost", torch.zeros((), dtype=torch.float64))  # and what all of them cost

    def end_episode(self, total: float, discounted: float, length: int, of_policy: bool) -> None:
        """Takes the sum of an episode's costs, their discounted sum and its number of steps."""
        j_c = constraint(self.args, total, discounted, length)
        self.episodes += 1
        self.over_limit += int(j_c > self.args.cost_limit)
        self.total_cost += total
        if of_policy:
            self.sum_j_c += j_c
            self.recent_episodes += 1
            self.recent_steps += length
        if self.recent_steps >= self.args.cost_window:
            violation = self.sum_j_c / self.recent_episodes - self.args.cost_limit
            self.value.copy_((self.value + self.args.lambda_lr * violation).clamp(min=0.0))
            for counter in (self.sum_j_c, self.recent_episodes, self.recent_steps):
                counter.zero_()


class Agent(nn.Module):
    """All that learns: critics, target critics, temperature, policy, multiplier, and their optimisers."""

    def __init__(self, obs_dim: int, action_dim: int, args: Args, device: torch.device):
        super().__init__()
        self.q = TwinQ(obs_dim, action_dim)
        self.q_target = deepcopy(self.q).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(args.alpha)))
        self.policy = HamiltonianPolicy(obs_dim, action_dim, args)
        self.q_cost = CostCritic(obs_dim, action_dim)
        self.q_cost_target = deepcopy(self.q_cost).requires_grad_(False)
        self.multiplier = Multiplier(args)
        # In a tuple: not the policy's own to train.
        self.policy.borrowed = (self.q_target, self.log_alpha, self.q_cost_target, self.multiplier)
        self.device = device
        self.to(device)
        self.optimizers = {
            "q": torch.optim.Adam(self.q.parameters(), lr=args.q_lr, fused=True),
            "q_cost": torch.optim.Adam(self.q_cost.parameters(), lr=args.q_lr, fused=True),
            "policy": torch.optim.Adam(self.policy.parameters(), lr=args.policy_lr, fused=True),
            "alpha": torch.optim.Adam([self.log_alpha], lr=args.q_lr),
        }

    @torch.no_grad()
    def act(self, obs: np.ndarray, deterministic: bool, first_obs: np.ndarray, generator=None) -> tuple:
        """Actions (B, A) and when they were accepted (B,), for observations and the episodes' first ones (B, O)."""
        obs, first_obs = (torch.from_numpy(array).to(self.device) for array in (obs, first_obs))
        return tuple(t.cpu().numpy() for t in self.policy.act(obs, deterministic, first_obs, generator))


# ---------------------------------------------------------------------------------------------- losses and update

Logs = dict[str, Tensor]  # TensorBoard's name -> scalar, detached


def soft_q_target(reward: Tensor, terminated: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha, gamma) -> Tensor:
    """r + gamma (Q'(s', a') - alpha log pi(a'|s')); nothing is expected after a termination. (B,)"""
    return reward + gamma * (1.0 - terminated) * (next_q - alpha * next_log_prob)


def q_loss(q1: Tensor, q2: Tensor, target: Tensor) -> tuple[Tensor, Logs]:
    """Mean squared error of each critic against the common target, added up."""
    loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
    return loss, {"losses/q": loss.detach(), "values/q1": q1.detach().mean(), "values/q2": q2.detach().mean()}


def cost_loss(q_cost: Tensor, next_q_cost: Tensor, cost: Tensor, ends: Tensor, gamma) -> tuple[Tensor, Logs]:
    """Mean squared error of Q_C(s, a) against c + gamma Q_C'(s', a'): a cost to come has no entropy term.

    ends (B,) is 1 where no cost is to come.
    """
    loss = F.mse_loss(q_cost, cost + gamma * (1.0 - ends) * next_q_cost)
    return loss, {"losses/q_cost": loss.detach(), "values/q_cost": q_cost.detach().mean()}


def policy_loss(q: Tensor, log_prob: Tensor, rho: Tensor, alpha, momentum_std: float) -> tuple[Tensor, Logs]:
    """Minus Eq. (12): alpha log_prob + (alpha beta_0 / 2) rho_K^T rho_K - Q(s, a_K), beta_0 = 1 / momentum_std^2.

    log_prob = log N(u_0) - sum log(1 - a_K^2) stands for Eq. (12)'s log pi(a_0|s). If no momentum is drawn (Fig. 6),
    beta_0 would be infinite: there is no penalty on rho_K then.
    """
    if momentum_std > 0.0:
        penalty = 0.5 * (rho / momentum_std).square().sum(-1)  # (B,)
    else:
        penalty = torch.zeros_like(log_prob)
    loss = (alpha * (log_prob + penalty) - q).mean()
    logs = {"losses/policy": loss, "values/entropy": -log_prob.mean(), "values/momentum_penalty": penalty.mean()}
    return loss, {name: value.detach() for name, value in logs.items()}


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> tuple[Tensor, Logs]:
    """-alpha (log pi + target entropy), with alpha = exp(log_alpha) as the factor and not log_alpha itself.

    Departure: only with --autotune, since the paper both speaks of tuning alpha and gives its values in Table I.
    """
    loss = -(log_alpha.exp() * (log_prob.detach() + target_entropy)).mean()
    return loss, {"losses/temperature": loss.detach()}


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step on the optimiser's own parameters; others that the loss went through get no gradient."""
    parameters = optimizer.param_groups[0]["params"]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)  # None leaves a parameter as it is
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def update(agent: Agent, batch: Batch, args: Args) -> Logs:
    """One gradient step on all that learns; then the target critics follow."""
    obs, action, reward, next_obs, terminated, cost = batch
    alpha = agent.log_alpha.detach().exp()

    with torch.no_grad():
        next_action, next_log_prob = agent.policy.sample(next_obs)
        next_q = agent.q_target.min(next_obs, next_action)
        next_q_cost = agent.q_cost_target(next_obs, next_action)
        target = soft_q_target(reward, terminated, next_q, next_log_prob, alpha, args.gamma)
    loss, logs = q_loss(*agent.q(obs, action), target)
    descend(agent.optimizers["q"], loss)

    # Departure, not said in the paper: an average has no end. If Q_C of torque ended with the episode, falling over
    # would be a way to save it; so it goes on, with what Q_C makes of a state that no action was ever taken in.
    cost_ends = torch.zeros_like(terminated) if args.cost == "torque" else terminated
    loss, cost_logs = cost_loss(agent.q_cost(obs, action), next_q_cost, cost, cost_ends, args.gamma)
    descend(agent.optimizers["q_cost"], loss)
    logs |= cost_logs | {"values/lambda": agent.multiplier.value.clone()}

    action, log_prob, rho, found = agent.policy.sample_with_momentum(obs)
    if "q" in found:  # Q and its gradient at a_K are known from the last half-step: no other pass through the critics
        q = attach(found["q"], found["q_gradient"], action)
    else:
        q = attach(*agent.policy.value_at(obs, args.bfloat16_force)(action), action)
    loss, policy_logs = policy_loss(q, log_prob, rho, alpha, args.momentum_std_train)
    descend(agent.optimizers["policy"], loss)
    logs |= policy_logs | {"values/alpha": alpha}
    if "gate" in found:
        logs["values/gate"] = found["gate"].detach().mean()
        logs["values/transform_norm"] = found["transform"].detach().norm(dim=-1).mean()

    if args.autotune:
        loss, temperature_logs = temperature_loss(agent.log_alpha, log_prob, -float(action.shape[-1]))
        descend(agent.optimizers["alpha"], loss)
        logs |= temperature_logs

    with torch.no_grad():  # target <- (1 - tau) target + tau critic, at every update; the paper says "periodically"
        torch._foreach_lerp_(list(agent.q_target.parameters()), list(agent.q.parameters()), args.tau)
        torch._foreach_lerp_(list(agent.q_cost_target.parameters()), list(agent.q_cost.parameters()), args.tau)
    return logs


# ------------------------------------------------------------------------------------------------------ evaluation


def evaluate(agent: Agent, args: Args, global_step: int, run: Path) -> dict[str, float]:
    """Plays args.eval_episodes episodes with the policy's mean and Algorithm 3, all environments stepped as one batch.

    Environments and random numbers are its own, made anew from (seed, global_step): training does not notice.
    return_std is over the episodes. q_bias is min(Q1, Q2) at the first state minus the discounted return that
    followed, averaged: above 0 the critics promise too much. (They also count entropy, and the policy's noise.)
    """
    count = args.eval_episodes
    films = (count if args.evaluate else 1) if args.capture_video else 0
    warnings.filterwarnings("ignore", ".*Overwriting existing videos")  # all films of a run share one folder
    envs = [make_env(args, "rgb_array" if i < films else None) for i in range(count)]
    for i in range(films):
        name = f"step_{global_step}_number_{i}"
        envs[i] = gym.wrappers.RecordVideo(envs[i], str(run / "videos"), lambda episode: True, name_prefix=name)
    seeds = np.random.default_rng([args.seed, global_step]).integers(2**31, size=count).tolist()
    obs = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])  # (count, O)
    first_obs, accepted_at = obs.copy(), []
    noise, again = (torch.Generator(agent.device).manual_seed(seeds[0]) for _ in range(2))  # for Algorithm 3
    with torch.no_grad():
        first = torch.from_numpy(obs).to(agent.device)
        first_q = agent.q.min(first, agent.policy.act(first, True, first, again)[0]).cpu().numpy()
    costs, discounted_costs = np.zeros(count), np.zeros(count)
    returns, discounted, lengths, playing = np.zeros(count), np.zeros(count), np.zeros(count, int), np.arange(count)
    while playing.size:
        actions, accepted = agent.act(obs[playing], True, first_obs[playing], noise)
        accepted_at += accepted.tolist()
        over = np.zeros(playing.size, bool)
        for j, i in enumerate(playing):
            obs[i], reward, terminated, truncated, info = envs[i].step(actions[j])
            costs[i] += info["cost"]
            discounted_costs[i] += args.gamma ** lengths[i] * info["cost"]
            returns[i] += reward
            discounted[i] += args.gamma ** lengths[i] * reward
            lengths[i] += 1
            over[j] = terminated or truncated
        playing = playing[~over]
    for env in envs:
        env.close()
    row = {"return_mean": returns.mean(), "return_std": returns.std()}
    row |= {f"return_{i}": value for i, value in enumerate(returns)}
    row |= {"length_mean": lengths.mean(), "q_bias": (first_q - discounted).mean()}
    steps = np.array(accepted_at)
    row |= {"leapfrog_steps_mean": np.minimum(steps, args.max_leapfrog_steps).mean()}
    row |= {"accepted_at_first": np.mean(steps == 1), "never_accepted": np.mean(steps > args.max_leapfrog_steps)}
    j_c = [constraint(args, *values) for values in zip(costs, discounted_costs, lengths, strict=True)]
    row |= {"cost_mean": costs.mean(), "discounted_cost_mean": discounted_costs.mean(), "j_c_mean": np.mean(j_c)}
    row |= {"share_over_limit": np.mean(np.array(j_c) > args.cost_limit), "lambda": agent.multiplier.value.item()}
    row |= {"training_cost": agent.multiplier.total_cost.item(), "training_episodes": agent.multiplier.episodes.item()}
    row |= {"training_episodes_over_limit": agent.multiplier.over_limit.item()}
    return {name: float(value) for name, value in row.items()}


# ------------------------------------------------------------------------------------------------------ checkpoint


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file and renames it: a kill leaves the old content or the new, never a part."""
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


def write_rows(path: Path, rows: list[dict]) -> None:
    """The whole CSV file, header first."""
    lines = [rows[0], *(row.values() for row in rows)] if rows else []
    write_whole(path, lambda part: part.write_text("".join(",".join(map(str, line)) + "\n" for line in lines)))


def save_agent(run: Path, agent: Agent, args: Args, global_step: int) -> None:
    """agent_<step>.pt: weights and configuration, to play with and to plot from."""
    state = {"algorithm": ALGORITHM, "args": asdict(replace(args, resume=None)), "global_step": global_step}
    state["agent"] = agent.state_dict()
    write_whole(run / f"agent_{global_step}.pt", lambda part: torch.save(state, part))


def load(path: Path, parts: dict) -> dict:
    """Reads a file of torch.save, restores the named parts (by their load_state_dict) and returns all that is in it.

    Only tensors and plain data are read: a file from a stranger executes nothing.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return state
    except Exception as error:  # a damaged or foreign file raises half a dozen kinds
        stop(f"{path} is damaged or does not fit this script ({(str(error).splitlines() or [repr(error)])[0]})")


def stored_args(run: str) -> Args:
    """The configuration of a run; exits with status 2 if the folder holds no run of this script."""
    try:
        config = json.loads((Path(run) / "config.json").read_text())
        if config["algorithm"] != ALGORITHM:
            stop(f"{run} is a run of {config['algorithm']}.py, not of this script")
        return Args(**config["args"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        stop(f"{run} is not the folder of a run: config.json cannot be used ({error})")


def open_run(args: Args, parts: dict) -> tuple[Path, dict]:
    """Makes the folder of a new run, or restores `parts` from a run's checkpoint. Returns folder and checkpoint.

    A run stopped before its first checkpoint begins anew. The only change allowed to a run is that it gets longer.
    """
    config, state = {"algorithm": ALGORITHM, "args": asdict(replace(args, resume=None, evaluate=None))}, {}
    if args.resume:
        run, new = Path(args.resume), config["args"]
        for name, old in asdict(stored_args(args.resume)).items():
            if new[name] != old and not (name == "total_timesteps" and new[name] > old):
                stop(f"--{name.replace('_', '-')} is {old} in this run; only --total-timesteps may change, and grow")
        if (run / "checkpoint.pt").exists():
            state = load(run / "checkpoint.pt", parts)
        config = json.loads((run / "config.json").read_text()) | config
    else:
        task = args.env_id.replace("/", "-").replace(":", "-")
        run = Path(args.runs_dir) / f"{task}__{ALGORITHM}__{args.seed}__{datetime.now():%Y%m%d-%H%M%S-%f}"
        names = "torch", "gymnasium", "mujoco", "pybullet", "pybullet_envs_gymnasium", "numpy"
        config["versions"] = {d.name: d.version for d in importlib.metadata.distributions() if d.name in names}
        config["versions"]["python"] = sys.version.split()[0]
        cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        config["processor"] = next((line.split(": ")[-1] for line in cpuinfo if line.startswith("model name")), None)
        git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() if shutil.which("git") else ""
        config |= {"commit": commit or None, "command": shlex.join(sys.argv)}
    try:
        run.mkdir(parents=True, exist_ok=args.resume is not None)
        write_whole(run / "config.json", lambda part: part.write_text(json.dumps(config, indent=2) + "\n"))
        return run, state
    except OSError as error:
        stop(f"--runs-dir {args.runs_dir}: the run's folder cannot be made or written ({error})")


# ----------------------------------------------------------------------------------------------------------- train


def set_device(args: Args) -> torch.device:
    torch.set_num_threads(args.torch_threads)
    return torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")


def train(args: Args) -> Path:
    """The loop of Algorithm 1, whatever the policy: acts, stores, updates. Returns the folder of the run."""
    args, device = resolve(args), set_device(args)
    torch.manual_seed(args.seed)  # initial weights and the policy's noise
    rng = np.random.default_rng(args.seed)  # first actions, minibatches, the seed of each episode
    env = make_env(args)
    if args.capture_video:
        make_env(args, "rgb_array").close()  # if it cannot be filmed, say so now
    obs_dim, action_dim = env.observation_space.shape[0], env.action_space.shape[0]
    agent = Agent(obs_dim, action_dim, args, device)
    try:
        buffer = ReplayBuffer(args.buffer_size, obs_dim, action_dim)
    except (MemoryError, ValueError) as error:
        stop(f"--buffer-size {args.buffer_size} is too large: {error}")

    global_step, seconds, rows = 0, 0.0, []  # rows: those of eval.csv
    run, state = open_run(args, {"agent": agent, "buffer": buffer, **agent.optimizers})
    if state:
        global_step, seconds, rows = state["global_step"], state["seconds"], state["rows"]
        rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        if device.type == "cuda" and "cuda_rng" in state:  # not if the run began on a machine without
            torch.cuda.set_rng_state(state["cuda_rng"])
    write_rows(run / "eval.csv", rows)
    if args.track:
        import wandb

        project = {"project": args.wandb_project_name, "entity": args.wandb_entity, "config": asdict(args)}
        wandb.init(name=run.name, id=run.name, resume="allow", sync_tensorboard=True, **project)
    writer = SummaryWriter(str(run), purge_step=global_step + 1 if args.resume else None)
    print(f"{run}: steps {global_step} to {args.total_timesteps} on {device}\n{args}")
    bar = tqdm(total=args.total_timesteps, initial=global_step, unit="step", disable=None, dynamic_ncols=True)
    start_time, speed_step, speed_time = time.perf_counter() - seconds, global_step, time.perf_counter()
    next_checkpoint = (global_step // args.checkpoint_frequency + 1) * args.checkpoint_frequency

    def check_finite(values, what: str) -> None:
        if not np.isfinite(values).all():
            kept = (run / "checkpoint.pt").exists()
            then = f"resume from {run / 'checkpoint.pt'} with --resume {run}" if kept else "there is no checkpoint yet"
            stop(f"step {global_step}: {what} is not finite, the run ends here; {then}", status=3)

    while global_step < args.total_timesteps:
        obs, _ = env.reset(seed=int(rng.integers(2**31)))
        episode_return, episode_length, done = 0.0, 0, False
        episode_cost, episode_discounted_cost = 0.0, 0.0
        first_obs, leapfrog_steps = obs, 0
        while not done and global_step < args.total_timesteps:
            global_step += 1
            if global_step <= args.learning_starts:
                action = rng.uniform(-1.0, 1.0, action_dim).astype(np.float32)
            else:
                actions, accepted_at = agent.act(obs[None], False, first_obs[None])
                action, leapfrog_steps = actions[0], leapfrog_steps + min(accepted_at[0], args.max_leapfrog_steps)
                check_finite(action, "the policy's action")
            next_obs, reward, terminated, truncated, info = env.step(action)
            check_finite(np.append(next_obs, [reward, info["cost"]]), "the environment's reward, cost or observation")
            buffer.add(obs, action, reward, next_obs, terminated, info["cost"])
            episode_cost += info["cost"]
            episode_discounted_cost += args.gamma**episode_length * info["cost"]
            obs, done = next_obs, terminated or truncated
            episode_return, episode_length = episode_return + float(reward), episode_length + 1
            if done:
                of_policy = global_step - episode_length >= args.learning_starts  # from its first step on
                agent.multiplier.end_episode(episode_cost, episode_discounted_cost, episode_length, of_policy)

            if global_step > args.learning_starts:
                logs = update(agent, buffer.sample(args.batch_size, rng, device), args)
                losses = [logs[name].item() for name in ("losses/q", "losses/q_cost", "losses/policy")]
                check_finite(losses, "the critics' or the policy's loss")
                if global_step % 100 == 0:
                    for name, value in logs.items():
                        writer.add_scalar(name, value, global_step)
            bar.update()

            if global_step % args.eval_frequency == 0 or global_step == args.total_timesteps:
                speed = (global_step - speed_step) / (time.perf_counter() - speed_time)
                row = {"global_step": global_step, **evaluate(agent, args, global_step, run)}
                row |= {"seconds": round(time.perf_counter() - start_time, 1), "steps_per_second": round(speed, 1)}
                rows.append(row)
                write_rows(run / "eval.csv", rows)
                for name in "return_mean return_std length_mean q_bias steps_per_second j_c_mean lambda".split():
                    writer.add_scalar(f"eval/{name}", row[name], global_step)
                score = f"return {row['return_mean']:.1f} +- {row['return_std']:.1f}"
                score += f", J_C {row['j_c_mean']:.1f}, lambda {row['lambda']:.2f}"
                tqdm.write(f"step {global_step}: {score}, length {row['length_mean']:.0f}, {speed:.0f} steps/s")
                speed_step, speed_time = global_step, time.perf_counter()
            if args.snapshot_frequency and global_step % args.snapshot_frequency == 0:
                save_agent(run, agent, args, global_step)

        if done:
            writer.add_scalar("charts/leapfrog_steps", leapfrog_steps / episode_length, global_step)
            writer.add_scalar("charts/episodic_cost", episode_cost, global_step)
            writer.add_scalar("charts/training_cost", agent.multiplier.total_cost.item(), global_step)
            bar.set_postfix_str(f"return {episode_return:.1f}", refresh=False)
            writer.add_scalar("charts/episodic_return", episode_return, global_step)
            writer.add_scalar("charts/episodic_length", episode_length, global_step)
        if done and next_checkpoint <= global_step < args.total_timesteps:  # here no simulator state needs keeping
            check_finite([parameter.detach().sum().item() for parameter in agent.parameters()], "a weight")
            writer.flush()  # TensorBoard's events up to here must be on disk before the checkpoint says they are
            state = {"agent": agent.state_dict(), "buffer": buffer.state_dict(), "global_step": global_step}
            state |= {name: optimizer.state_dict() for name, optimizer in agent.optimizers.items()}
            state |= {"seconds": time.perf_counter() - start_time, "rows": rows, "rng": rng.bit_generator.state}
            state |= {"torch_rng": torch.get_rng_state()}
            if device.type == "cuda":
                state["cuda_rng"] = torch.cuda.get_rng_state()
            write_whole(run / "checkpoint.pt", lambda part, state=state: torch.save(state, part))
            next_checkpoint = (global_step // args.checkpoint_frequency + 1) * args.checkpoint_frequency
            # PyBullet's first episode in an environment differs from later ones, and a resumed run has a new
            # environment here: so has the run that was never stopped.
            env.close()
            env = make_env(args)

    check_finite([parameter.detach().sum().item() for parameter in agent.parameters()], "a weight")
    save_agent(run, agent, args, global_step)
    env.close()
    writer.close()
    bar.close()
    return run


def play(args: Args) -> None:
    """--evaluate: plays the last agent of a run, of one that was stopped its checkpoint's, and prints the returns."""
    args, run = resolve(args), Path(args.evaluate)
    files = sorted(run.glob("agent_*.pt"), key=lambda path: int(path.stem.removeprefix("agent_")))
    files = files or list(run.glob("checkpoint.pt"))
    if not files:
        stop(f"--evaluate {run}: neither agent_<step>.pt nor checkpoint.pt there yet; see --checkpoint-frequency")
    env = make_env(args)
    agent = Agent(env.observation_space.shape[0], env.action_space.shape[0], args, set_device(args))
    state = load(files[-1], {"agent": agent})
    row = evaluate(agent, args, state["global_step"], run)
    for i in range(args.eval_episodes):
        print(f"episode {i}: return {row[f'return_{i}']:.1f}")
    print(f"{files[-1].name}: return {row['return_mean']:.1f} +- {row['return_std']:.1f}")
    costs = f"J_C {row['j_c_mean']:.1f}, limit {args.cost_limit}"
    print(f"{costs}, episodes over it {100.0 * row['share_over_limit']:.0f} %")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # a line written into a file or a pipe is there at once
    args = tyro.cli(Args)
    if args.resume and args.evaluate:
        stop("--resume goes on with a run and --evaluate plays its last agent: give one of them")
    if run := args.resume or args.evaluate:  # what is not given comes from the run, not from the defaults above
        args = tyro.cli(Args, default=replace(stored_args(run), resume=args.resume, evaluate=args.evaluate))
    try:
        play(args) if args.evaluate else train(args)
    except KeyboardInterrupt:
        stop("interrupted; a training run goes on from its last checkpoint with --resume and its folder", status=130)
