"""SAC-HPO: Soft Actor-Critic whose actions are evolved by Hamiltonian dynamics (Xu & Fekri 2021).

A Gaussian base policy draws an action u, and a momentum rho is drawn beside it. K leapfrog steps move both
along the gradient of Q, which two small networks, T_h and sigma_h, learn to bend. Every step preserves
volume, so the density of the evolved pair is known, and SAC's objective can be computed for it.

    python sac_hpo_continuous.py --env-id Hopper-v4 --num-seeds 5         # seeds 1 to 5, side by side
    python sac_hpo_continuous.py --resume runs/<run>                      # go on with a run, bit for bit
    python sac_hpo_continuous.py --evaluate runs/<run> --capture-video    # play the trained agents, filmed
    python sac_hpo_continuous.py --explore conventional --train gaussian  # Baseline-2 of Table II

S seeds are S agents that never meet, computed as one batch: what belongs to an agent has an axis S in front,
losses are summed over it, and each agent's random numbers are its own. Read it as if S were 1.

Paper -> this file: Eq. (7) leapfrog, Algorithm 2 HamiltonianPolicy.evolve, Eqs. (9) and (13)
HamiltonianPolicy.force_at, Eq. (10) HamiltonianPolicy.sample_with_momentum, Eq. (12) policy_loss, Algorithm 1
train and update, [16] soft_q_target and q_loss, Sec. V-A evaluate, Table I TABLE_I, Table II --explore and
--train, Fig. 6 --momentum-std-* 0.
Where this file departs from the paper, a comment says "Departure [entry]", which is in docs/departures.md.

Shapes in comments: S seeds, n critics of a seed, B batch, O observation, A action.
"""

import importlib.metadata
import io
import json
import math
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, NoReturn

import gymnasium as gym
import mujoco
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro
from filelock import FileLock, Timeout
from gymnasium.vector import AutoresetMode
from torch import Generator, Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

Operator = Literal["proposed", "conventional", "drift", "gaussian"]
BY_TASK = tyro.conf.arg(help_behavior_hint="(default: Table I, by task)")
BY_CPU = tyro.conf.arg(help_behavior_hint="(default: True on a CPU that multiplies bfloat16 fast)")


@dataclass
class Args:
    # task and budget
    env_id: str = "Hopper-v4"  # task: any Gymnasium id with Box observations and a bounded Box of actions
    seed: int = 1  # first seed; a seed determines every random number of its agent
    num_seeds: int = 1  # seeds to train side by side, from --seed on (S)
    total_timesteps: int = 1_000_000  # environment steps to train for, per seed

    # SAC
    buffer_size: int = 1_000_000  # transitions the replay buffer holds, per seed (|B| in Table I)
    gamma: float = 0.99  # discount factor per step
    tau: float = 0.005  # share of the critics that enters the target critics at each update
    batch_size: int = 256  # transitions per update (m in Table I)
    learning_starts: int = 5_000  # steps with uniformly random actions before the first update
    policy_lr: float = 3e-4  # learning rate of the policy
    q_lr: float = 3e-4  # learning rate of the critics and, with --autotune, of the temperature
    alpha: Annotated[float | None, BY_TASK] = None  # temperature (alpha); with --autotune its first value
    autotune: bool = False  # learn the temperature, towards an entropy of -A nats

    # Hamiltonian policy
    leapfrog_steps: Annotated[int | None, BY_TASK] = None  # leapfrog steps per action (K)
    step_size: Annotated[float | None, BY_TASK] = None  # leapfrog step size, in units of what moves (epsilon)
    momentum_std_train: Annotated[float | None, BY_TASK] = None  # momentum's std in updates (1/sqrt(beta_tr))
    momentum_std_explore: Annotated[float | None, BY_TASK] = None  # momentum's std to act (1/sqrt(beta_exp))
    leapfrog_hidden: Annotated[int | None, BY_TASK] = None  # hidden units of T_h and of sigma_h (h_n)
    leapfrog_state: bool = True  # T_h and sigma_h see the state too
    momentum_in_target: bool = False  # Eq. (12)'s penalty, less its mean, is in the soft target too
    # what evolves actions to act: proposed, Eq. (13); conventional, (9); drift, momentum; gaussian, nothing
    explore: Operator = "proposed"
    train: Operator = "proposed"  # what evolves actions in updates (Table II)
    coordinates: Literal["action", "pre-tanh"] = "action"  # what the leapfrog moves: a = tanh(u), or u

    # machine
    cuda: bool = True  # use a GPU if there is one
    torch_threads: int = 1  # CPU threads for PyTorch; results repeat bit for bit at an equal number
    # in updates, bfloat16 in the target critics' second layer: for the force, and for Eq. (12)'s Q
    bfloat16_force: Annotated[bool | None, BY_CPU] = None

    # what a run reports and keeps
    runs_dir: str = "runs"  # folder in which the run's own folder is made
    eval_frequency: int = 10_000  # steps between evaluations
    eval_episodes: int = 10  # episodes per evaluation
    checkpoint_frequency: int = 50_000  # steps between checkpoints; each cuts the episodes in progress
    snapshot_frequency: int = 0  # steps between copies of the agents beside those of each checkpoint; 0: none
    capture_video: bool = False  # film the first episode of each evaluation; with --evaluate, all of them
    track: bool = False  # log to Weights & Biases as well
    wandb_project_name: str = "sac-hpo"  # Weights & Biases project
    wandb_entity: str | None = None  # Weights & Biases team or user

    # instead of a new run
    resume: str | None = None  # folder of a run to continue as it is, or longer: --total-timesteps may grow
    evaluate: str | None = None  # folder of a run whose agents are to play --eval-episodes episodes


ALGORITHM = Path(__file__).stem
TABLE_I = {  # the paper's settings: their names, then values by environment id without its version
    "": "alpha momentum_std_train momentum_std_explore step_size leapfrog_steps leapfrog_hidden".split(),
    "HalfCheetah": (0.2, 1.0, 0.5, 0.2, 3, 32),
    "Hopper": (0.2, 0.1, 1.5, 0.15, 2, 32),
    "Walker2d": (0.2, 0.2, 1.5, 0.15, 3, 32),
    "Ant": (0.2, 0.1, 1.0, 0.1, 3, 32),
    "Humanoid": (0.05, 1.0, 1.0, 0.1, 3, 64),
    "HumanoidBulletEnv": (0.05, 0.4, 1.5, 0.2, 3, 64),
    "HumanoidFlagrunBulletEnv": (0.05, 0.2, 1.0, 0.15, 3, 32),
    "HumanoidFlagrunHarderBulletEnv": (0.05, 0.2, 1.5, 0.15, 3, 64),
}


# --------------------------------------------------------------------------------------- algorithm: networks


class Linear(nn.Module):
    """n linear layers side by side: (n, B, in) -> (n, B, out). All NaN until `draw_weights` fills them."""

    def __init__(self, n: int, inputs: int, outputs: int):
        super().__init__()
        # For few outputs it is stored transposed, as a CPU multiplies faster then.
        weight = torch.full((n, outputs, inputs), math.nan).mT
        self.weight = nn.Parameter(weight if outputs <= 32 else weight.contiguous())  # (n, in, out)
        self.bias = nn.Parameter(torch.full((n, 1, outputs), math.nan))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)

    def with_first(self, known: Tensor) -> Callable:
        """The layer with its first inputs fixed, a function of the others: (n, B, rest) -> (n, B, out)."""
        known_weight, weight = self.weight.tensor_split([known.shape[-1]], dim=1)
        part = torch.baddbmm(self.bias, known, known_weight)
        return lambda x: torch.baddbmm(part, x, weight)


class Critics(nn.Module):
    """n critics per seed, each with first weights of its own.

    Where there are two, the smaller Q is used, so that errors do not add up to overestimation.
    """

    def __init__(self, seeds: int, n: int, obs_dim: int, action_dim: int):
        super().__init__()
        self.n = n
        self.layer1 = Linear(n * seeds, obs_dim + action_dim, 256)
        self.layer2 = Linear(n * seeds, 256, 256)
        self.layer3 = Linear(n * seeds, 256, 1)

    def for_each(self, x: Tensor) -> Tensor:
        """(S, B, D) -> (nS, B, D): each seed's x for all of its critics."""
        return x.unsqueeze(1).expand(-1, self.n, -1, -1).flatten(0, 1)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q of each critic (S, n, B)."""
        h1 = F.relu(self.layer1(self.for_each(torch.cat([obs, action], dim=-1))))
        h2 = F.relu(self.layer2(h1))
        return self.layer3(h2).view(-1, self.n, obs.shape[1])

    @torch.no_grad()
    def min_at(self, obs: Tensor, rounded: bool = False) -> Callable:
        """The function action (S, B, A) -> the smallest Q (S, B) and its gradient in the action (S, B, A).

        Backpropagation by hand: the derivative of a ReLU is the sign of its output, 1 or 0, which overwrites
        it here. Departure [Rounding of the force]: if `rounded`, both products with the second layer's
        weights, the widest, are in bfloat16.
        """
        layer1 = self.layer1.with_first(self.for_each(obs))
        weight1 = self.layer1.weight[:, obs.shape[-1] :]  # of the action
        dtype = torch.bfloat16 if rounded else obs.dtype
        weight2, bias2 = self.layer2.weight.to(dtype), self.layer2.bias.to(dtype)
        back2 = (self.layer2.weight * self.layer3.weight.mT).mT.to(dtype)  # as dQ/dh2 is layer3.weight

        @torch.no_grad()  # once more, as it runs later
        def min_and_gradient(action: Tensor) -> tuple[Tensor, Tensor]:
            h1 = layer1(self.for_each(action)).relu_()  # (nS, B, 256)
            h2 = torch.baddbmm(bias2, h1.to(dtype), weight2).relu_()
            q = self.layer3(h2.to(obs.dtype)).view(-1, self.n, obs.shape[1])  # (S, n, B)
            q, which = q.min(1)  # (S, B) each
            d1 = (h2.sign_() @ back2) * h1.sign_()
            gradients = (weight1 @ d1.mT).mT.unflatten(0, (-1, self.n))  # (S, n, B, A), faster in this order
            return q, gradients.take_along_dim(which[:, None, :, None], dim=1).squeeze(1)

        return min_and_gradient


def tanh_log_det(u: Tensor) -> Tensor:
    """log |da/du| for a = tanh(u): the sum of log(1 - a^2) over A, without its rounding at large |u|."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u)).sum(-1)


class GaussianPolicy(nn.Module):
    """a = tanh(u), u = mean(s) + std(s) xi, from one draw of noise, xi ~ N(0, 1) (S, B, A), per action."""

    draws = draws_to_act = 1  # draws of noise (S, B, A) that one action needs: in an update, and to act

    def __init__(self, seeds: int, obs_dim: int, action_dim: int, hidden_layers: int = 2):
        super().__init__()
        layers = [Linear(seeds, obs_dim, 256), nn.ReLU()]
        for _ in range(hidden_layers - 1):
            layers += [Linear(seeds, 256, 256), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.mean = Linear(seeds, 256, action_dim)
        self.log_std = Linear(seeds, 256, action_dim)

    def forward(self, obs: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        """u (S, B, A), differentiable in the weights, and log N(u; mean, std) (S, B)."""
        x = self.body(obs)  # (S, B, 256)
        # Departure [Bounds of log std]: squashed into (-5, 2), as in CleanRL; the paper is silent.
        log_std = -5.0 + 3.5 * (torch.tanh(self.log_std(x)) + 1.0)
        log_normal = (-0.5 * xi.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)
        return self.mean(x) + log_std.exp() * xi, log_normal


def leapfrog(x: Tensor, rho: Tensor, force: Callable, step_size: float, steps: int, need_rho: bool):
    """Eq. (7): steps of dx/dt = rho, drho/dt = -F(x) from (x, rho), (S, B, A) each; F in the place of dU/dx.

    Each line adds to one of x and rho a function of the other, so volume is preserved whatever the force is.
    The force at the end of a step is the force at the start of the next; the very last one moves rho only,
    and is left out if nobody needs rho. Returns x, rho and what else the last force found.
    """
    f, found = force(x)
    for k in range(1, steps + 1):
        rho = rho.sub(f, alpha=0.5 * step_size)  # rho - (epsilon / 2) F(x)
        x = x.add(rho, alpha=step_size)
        if need_rho or k < steps:
            f, found = force(x)
            rho = rho.sub(f, alpha=0.5 * step_size)
    return x, rho, found


class HamiltonianPolicy(GaussianPolicy):
    """The Gaussian draws u_0; more noise, zeta, gives the momentum rho_0 = std zeta. The leapfrog moves both.

    As in the paper the action itself moves, from a_0 = tanh(u_0). It may leave (-1, 1), on which the paper is
    silent. Departure [What the leapfrog moves]: it is clamped to be used, and the density is that of
    (a_0, rho_0). With --coordinates pre-tanh u moves, a_K = tanh(u_K), and the density of (a_K, rho_K) is
    exact: log N(u_0) + log N(rho_0) - sum log(1 - a_K^2).
    """

    draws = draws_to_act = 2

    def __init__(self, seeds: int, obs_dim: int, action_dim: int, args: Args):
        super().__init__(seeds, obs_dim, action_dim, hidden_layers=1)
        inputs, hidden = 2 * action_dim + (obs_dim if args.leapfrog_state else 0), args.leapfrog_hidden
        self.hidden = Linear(seeds, inputs, 2 * hidden)  # the ELU layers of T_h and of sigma_h, side by side
        self.transform = Linear(seeds, hidden, action_dim)  # T_h
        self.gate = Linear(seeds, hidden, action_dim)  # sigma_h, before its sigmoid
        self.args, self.action_moves = args, args.coordinates == "action"  # else u moves

    def to_action(self, x: Tensor) -> Tensor:
        """From what the leapfrog moves to the action that critics, T_h, sigma_h and environment see."""
        return x.clamp(-1.0, 1.0) if self.action_moves else torch.tanh(x)

    def force_at(self, obs: Tensor, operator: Operator, rounded: bool = False) -> Callable:
        """The function x -> F(s, x) (S, B, A) and what it is made of: min Q (S, B) of the target critics, its
        gradient in the action and, if proposed, sigma_h and T_h (S, B, A). What s alone decides is computed
        once."""
        # Departure [Critic in the force and in Eq. (12)]: min of the targets, which follow at every update.
        q_target, log_alpha = self.borrowed
        if operator == "drift":  # a control that the paper lacks: momentum without any force
            return lambda x: (torch.zeros_like(x), {})
        min_and_gradient = q_target.min_at(obs, rounded)
        hidden = self.hidden.with_first(obs if self.args.leapfrog_state else obs[..., :0])  # or no columns

        def force(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            action = self.to_action(x)
            q, gradient = min_and_gradient(action)  # constants to autograd; `attach` puts dQ/da back
            found = {"q": q, "gradient": gradient}
            if operator == "conventional":  # Eq. (9)
                f = -gradient / log_alpha.detach().exp().view(-1, 1, 1)
                if not self.action_moves:  # Departure [Potential in Eq. (9)]: U has - sum log(1 - a^2) too.
                    f = (1.0 - action.square()) * f + 2.0 * action
                return f, found
            # Departure [Gradient in Eq. (13)]: if u moves, g lacks the factor da/du. A gradient of 0 stays 0.
            g = -F.normalize(gradient, dim=-1)
            h = F.elu(hidden(torch.cat([action, g], dim=-1)))
            h_transform, h_gate = h.chunk(2, dim=-1)
            transform, gate = self.transform(h_transform), torch.sigmoid(self.gate(h_gate))
            f = torch.lerp(transform, g, gate)  # sigma_h g + (1 - sigma_h) T_h
            return f, found | {"gate": gate, "transform": transform}

        return force

    def evolve(self, obs: Tensor, u: Tensor, rho: Tensor, operator: Operator, need_rho=False, rounded=False):
        """Algorithm 2 from (u_0, rho_0), (S, B, A) each: x_K, rho_K and what the last force found."""
        x = torch.tanh(u) if self.action_moves else u
        # Departure ["Gaussian Policy" in Table II]: the base policy, of one hidden layer and not SAC's two.
        if operator == "gaussian":
            return x, torch.zeros_like(rho), {}
        force = self.force_at(obs, operator, rounded)
        return leapfrog(x, rho, force, self.args.step_size, self.args.leapfrog_steps, need_rho)

    def sample_with_momentum(self, obs: Tensor, noise: Tensor, need_rho: bool = True):
        """The training chain, Eq. (10): a_K, log q(a_K, rho_K|s) - log N(rho_0) (S, B), rho_K, and what the
        last force found, at a_K. Without `need_rho` the last two are not up to date."""
        xi, zeta = noise
        u, log_normal = self(obs, xi)
        rho = self.args.momentum_std_train * zeta
        x, rho, found = self.evolve(obs, u, rho, self.args.train, need_rho, self.args.bfloat16_force)
        log_prob = log_normal - tanh_log_det(u if self.action_moves else x)
        return self.to_action(x), log_prob, rho, found

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """For the soft target: a_K and what stands for log pi (S, B). Departure [Soft target]: no momentum.

        --momentum-in-target adds Eq. (12)'s penalty less A / 2, its mean over rho_0, which would add up in Q.
        """
        with_momentum = self.args.momentum_in_target
        action, log_prob, rho, _ = self.sample_with_momentum(obs, noise, need_rho=with_momentum)
        if with_momentum:
            log_prob = log_prob + 0.5 * ((rho / self.args.momentum_std_train).square() - 1.0).sum(-1)
        return action, log_prob

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The exploration chain's a_K. Departure [Evaluation of SAC-HPO]: from (mean, 0), by noise of 0."""
        xi, zeta = noise
        u, _ = self(obs, xi)
        rho = self.args.momentum_std_explore * zeta
        return self.to_action(self.evolve(obs, u, rho, self.args.explore)[0])


class Agent(nn.Module):
    """All that learns, of S seeds."""

    def __init__(self, seeds: int, obs_dim: int, action_dim: int, args: Args):
        super().__init__()
        self.seeds, self.action_dim = seeds, action_dim
        self.q = Critics(seeds, 2, obs_dim, action_dim)
        self.q_target = deepcopy(self.q).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.full((seeds,), math.log(args.alpha)))
        self.policy = HamiltonianPolicy(seeds, obs_dim, action_dim, args)
        self.policy.borrowed = self.q_target, self.log_alpha  # in a tuple, so not among the policy's weights


# ----------------------------------------------------------------------------- algorithm: losses and update


class Batch(NamedTuple):
    obs: Tensor  # (S, B, O)
    action: Tensor  # (S, B, A), in [-1, 1]
    reward: Tensor  # (S, B)
    next_obs: Tensor  # (S, B, O)
    terminated: Tensor  # (S, B), 1 if the episode ended for good, 0 if it went on or was cut off


Logs = dict[str, Tensor]  # name in TensorBoard -> (S,)


def soft_q_target(reward, terminated, next_q: Tensor, next_log_prob: Tensor, alpha, gamma: float) -> Tensor:
    """r + gamma (Q'(s', a') - alpha log pi(a'|s')), or r alone if the episode terminated. (S, B)"""
    return reward + gamma * (1.0 - terminated) * (next_q - alpha * next_log_prob)


def q_loss(q: Tensor, target: Tensor) -> tuple[Tensor, Logs]:
    """Mean squared error of each critic, q (S, 2, B), against the common target, added up. (S,)"""
    loss = (q - target.unsqueeze(1)).square().mean(-1).sum(1)
    q1, q2 = q.mean(-1).unbind(1)
    return loss, {"losses/q": loss, "values/q1": q1, "values/q2": q2}


def policy_loss(q: Tensor, log_prob: Tensor, rho: Tensor, alpha, momentum_std: float) -> tuple[Tensor, Logs]:
    """Minus Eq. (12): alpha log_prob + (alpha beta_0 / 2) |rho_K|^2 - q, where q is of a_K. (S,)

    beta_0 = 1 / std^2. Departure [Density]: log_prob has tanh's term at a_0 (if u moves, at a_K).
    """
    penalty = torch.zeros_like(log_prob)
    if momentum_std > 0.0:  # Departure [No momentum, Fig. 6]: beta_0 would be infinite, so no penalty.
        penalty = 0.5 * (rho / momentum_std).square().sum(-1)
    loss = (alpha * (log_prob + penalty) - q).mean(-1)
    entropy, penalty = -log_prob.mean(-1), penalty.mean(-1)
    return loss, {"losses/policy": loss, "values/entropy": entropy, "values/momentum_penalty": penalty}


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> tuple[Tensor, Logs]:
    """-alpha (log pi + target entropy). Departure [Temperature]: off by default. (S,)"""
    loss = -log_alpha.exp() * (log_prob.detach().mean(-1) + target_entropy)
    return loss, {"losses/temperature": loss}


def attach(value: Tensor, gradient: Tensor, action: Tensor) -> Tensor:
    """value (S, B), to autograd a function of the action (S, B, A) with the gradient (S, B, A) given."""
    return value + (gradient * (action - action.detach())).sum(-1)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the sum of the seeds' losses (S,), each of which depends on its own weights only."""
    optimizer.zero_grad()
    loss.sum().backward(inputs=optimizer.param_groups[0]["params"])
    optimizer.step()


def update(agent: Agent, optimizers: dict, batch: Batch, noise: Tensor, args: Args) -> Logs:
    """One gradient step on critics, policy and, with --autotune, temperature; the target critics follow.

    `noise` ~ N(0, 1) (2 policy.draws, S, B, A): its first half is for actions at next_obs, the other at obs.
    """
    obs, action, reward, next_obs, terminated = batch
    next_noise, noise = noise.chunk(2)
    alpha = agent.log_alpha.detach().exp().unsqueeze(-1)  # (S, 1)

    with torch.no_grad():
        next_action, next_log_prob = agent.policy.sample(next_obs, next_noise)
        next_q = agent.q_target(next_obs, next_action).amin(1)
        target = soft_q_target(reward, terminated, next_q, next_log_prob, alpha, args.gamma)
    loss, q_logs = q_loss(agent.q(obs, action), target)
    descend(optimizers["q"], loss)

    action, log_prob, rho, found = agent.policy.sample_with_momentum(obs, noise)
    if "q" in found:  # Q and its gradient at a_K are known from the last half-step of the leapfrog
        q = attach(found["q"], found["gradient"], action)
    else:
        q = attach(*agent.q_target.min_at(obs, args.bfloat16_force)(action), action)
    loss, policy_logs = policy_loss(q, log_prob, rho, alpha, args.momentum_std_train)
    descend(optimizers["policy"], loss)
    logs = {**q_logs, **policy_logs, "values/alpha": alpha.squeeze(-1)}
    if "gate" in found:
        logs["values/gate"] = found["gate"].mean((1, 2))  # sigma_h
        logs["values/transform_norm"] = found["transform"].norm(dim=-1).mean(-1)  # of T_h

    if args.autotune:
        loss, temperature_logs = temperature_loss(agent.log_alpha, log_prob, -float(agent.action_dim))
        descend(optimizers["log_alpha"], loss)
        logs |= temperature_logs

    with torch.no_grad():  # target <- (1 - tau) target + tau critic
        torch._foreach_lerp_(list(agent.q_target.parameters()), list(agent.q.parameters()), args.tau)
    return {name: value.detach() for name, value in logs.items()}


# ================================================================================ plumbing: the environment


def stop(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line. Status 2: unusable input or disk, 3: not finite, 130: Ctrl-C."""
    print(f"{ALGORITHM}.py: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def check_finite(values, what: str) -> None:
    if not np.isfinite(values).all():
        raise FloatingPointError(f"{what} is not finite")


def rescale(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """From [-1, 1]^A to an environment's bounds, in their shape."""
    unit = 0.5 * (action.reshape(low.shape) + 1.0)
    return np.clip(low + unit * (high - low), low, high).astype(low.dtype)


class Task(gym.Wrapper):
    """Flat float32 observations (O,), actions in [-1, 1]^A, plain numbers for reward and ends of episodes.

    A reset with a seed makes it anew, but for the first one: PyBullet's state depends on what was before.
    """

    def __init__(self, env: gym.Env, make: Callable[[], gym.Env]):
        super().__init__(env)
        self.make, self.is_new = make, True
        self.low, self.high = env.action_space.low, env.action_space.high
        self.obs_dim, self.action_dim = math.prod(env.observation_space.shape), self.low.size
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (self.obs_dim,))
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self.action_dim,))

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        if seed is not None and not self.is_new:
            self.env.close()
            self.env = self.make()
        self.is_new = False
        obs, _ = self.env.reset(seed=seed, options=options)
        return np.array(obs, np.float32).ravel(), {}

    def step(self, action: np.ndarray):
        obs, *numbers, _ = self.env.step(rescale(action, self.low, self.high))
        numbers = [np.asarray(number).item() for number in numbers]  # reward, terminated, truncated
        return np.array(obs, np.float32).ravel(), *numbers, {}


def make_env(args: Args, film: bool = False) -> gym.Env:
    """The task, wrapped. Exits with status 2 if it cannot be made, does not fit, or cannot be filmed."""
    # Left alone, MuJoCo writes its warnings to a file in the current folder.
    mujoco.set_mju_user_warning(lambda text: None if "deprecated" in text else print(text, file=sys.stderr))
    warnings.filterwarnings("ignore", ".*out of date")  # -v4 is meant: it is the closest to the paper's -v2
    options = {"render_mode": "rgb_array"} if film else {}  # not every task knows this argument
    try:
        if "BulletEnv" in args.env_id:
            import pybullet_envs_gymnasium  # noqa: F401  (registers these tasks)
        make = partial(gym.make, args.env_id, disable_env_checker=True, **options)
        env = make()
        if film:
            import moviepy  # noqa: F401  (RecordVideo needs it)

            with warnings.catch_warnings(action="ignore"):
                env.reset(seed=0)
                if not isinstance(env.render(), np.ndarray):
                    raise ValueError("render() gives no picture")
            env.close()
            env = make()  # one that was never reset, as without a camera
    except Exception as error:  # every simulator and every graphics backend raises its own kind
        hint = " with --capture-video (without a screen set MUJOCO_GL=egl)" if film else ""
        if "BulletEnv" in args.env_id and isinstance(error, ImportError):
            hint = " needs PyBullet, which installs on Python 3.11 and before"
        stop(f"--env-id {args.env_id}{hint}: {type(error).__name__}: {error}")
    box, actions = env.observation_space, env.action_space
    if not isinstance(box, gym.spaces.Box) or not isinstance(actions, gym.spaces.Box):
        stop(f"--env-id {args.env_id} needs Boxes of observations and actions, not {box} and {actions}")
    if actions.dtype.kind != "f" or np.abs([actions.low, actions.high]).max() > 1e30:  # that stands for none
        stop(f"--env-id {args.env_id} needs continuous, bounded actions, not {actions}")
    return Task(env, make)


@contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Processes that are started meanwhile never get Ctrl-C: they end with this one, which still does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_envs(args: Args, beside: bool) -> gym.vector.VectorEnv:
    """The S tasks, stepped in processes beside the training or one after the other."""
    makers = [partial(make_env, args)] * args.num_seeds
    if beside:
        warnings.filterwarnings("ignore", ".*`close` while waiting")  # a run that breaks off in a step
        with ctrl_c_held():
            return gym.vector.AsyncVectorEnv(makers, context="spawn", autoreset_mode=AutoresetMode.DISABLED)
    return gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


# ---------------------------------------- plumbing: random numbers, optimisers, replay buffer, CUDA graph


def make_generators(seeds: range, device: torch.device) -> tuple[list[Generator], list[Generator]]:
    """Two generators for each seed and from it alone: one on the CPU, one for the noise on the device."""
    words = [np.random.SeedSequence(seed).generate_state(2) for seed in seeds]
    on_cpu = [Generator().manual_seed(int(first)) for first, _ in words]
    on_device = [Generator(device).manual_seed(int(second)) for _, second in words]
    return on_cpu, on_device


@torch.no_grad()
def draw_weights(agent: Agent, generators: list[Generator]) -> None:
    """PyTorch's default, uniform in +-1/sqrt(inputs), to each seed's layers from its own generator."""
    for layer in agent.modules():
        if isinstance(layer, Linear):
            bound = 1.0 / math.sqrt(layer.weight.shape[1])
            for parameter in layer.weight, layer.bias:
                for part, generator in zip(parameter.chunk(len(generators)), generators, strict=True):
                    part.uniform_(-bound, bound, generator=generator)
    agent.q_target.load_state_dict(agent.q.state_dict())  # what the loop drew for it is not used


def make_optimizers(agent: Agent, args: Args) -> dict[str, torch.optim.Adam]:
    """Adam works element by element: S agents in one optimiser stay S agents."""
    warnings.filterwarnings("ignore", ".*running without CUDA graph capture")  # before the capture it must
    groups = {"q": agent.q.parameters(), "policy": agent.policy.parameters(), "log_alpha": [agent.log_alpha]}
    rates = {"q": args.q_lr, "policy": args.policy_lr, "log_alpha": args.q_lr}
    options = {"fused": True, "capturable": agent.log_alpha.is_cuda}
    optimizers = {name: torch.optim.Adam(groups[name], lr=rates[name], **options) for name in groups}
    for optimizer in optimizers.values():  # a step by gradients of 0 makes Adam's state and moves nothing
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for state in optimizer.state.values():
            state["step"].zero_()
    return optimizers


class Noise:
    """What is random in the policy's steps and updates, drawn 64 steps ahead, by a generator per seed.

    So a CUDA graph (see `capture`) draws nothing itself: it reads what belongs to the step set by `advance`,
    which must be called before each step. Without it, the same noise and minibatch come again.
    """

    def __init__(self, generators: list[Generator], policy: nn.Module, batch_size: int, action_dim: int):
        seeds, device = len(generators), generators[0].device
        self.to_act = torch.zeros(seeds, 64, policy.draws_to_act, 1, action_dim, device=device)
        self.to_update = torch.zeros(seeds, 64, 2 * policy.draws, batch_size, action_dim, device=device)
        self.rows = torch.zeros(seeds, 64, batch_size, dtype=torch.long, device=device)  # of minibatches
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.generators, self.left = generators, 0

    def advance(self) -> None:
        if self.left == 0:
            for index, generator in enumerate(self.generators):
                self.to_act[index].normal_(generator=generator)
                self.to_update[index].normal_(generator=generator)
                # `ReplayBuffer.sample` takes remainders: of 63 bits they are as good as uniform.
                self.rows[index].random_(generator=generator)
            self.left = 64
        self.left -= 1
        self.step.fill_(self.left)

    def now(self, drawn: Tensor) -> Tensor:
        """This step's part of one of the three tensors, without its second axis."""
        return drawn.index_select(1, self.step).squeeze(1)


class ReplayBuffer:
    """The last `capacity` transitions of each seed on the device, packed in rows: a ring (S, capacity, D)."""

    def __init__(self, seeds: int, capacity: int, obs_dim: int, action_dim: int, device: torch.device):
        self.widths = obs_dim, action_dim, 1, obs_dim, 1  # of the fields of Batch
        self.capacity, self.added = capacity, 0
        size = 4 * seeds * capacity * sum(self.widths)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if device.type == "cuda":
            memory, _ = torch.cuda.mem_get_info(device)
        if size > memory:
            excess = f"{size / 1e9:.3g} GB of {memory / 1e9:.3g} GB on the {device.type}"
            stop(f"--buffer-size {capacity} with --num-seeds {seeds} would take {excess}: lower one of them")
        # Uninitialised, so that a CPU's memory is taken only as rows are written.
        self.data = torch.empty(seeds, capacity, sum(self.widths), device=device)
        self.first_rows = torch.arange(seeds, device=device).unsqueeze(-1) * capacity  # (S, 1)
        self.filled = torch.ones((), dtype=torch.long, device=device)  # 1 at first, as `sample` divides by it

    def add(self, rows: np.ndarray) -> None:
        """One transition of each seed (S, D), the fields of Batch side by side."""
        self.data[:, self.added % self.capacity] = to_device(rows, self.data.device)
        self.added += 1
        self.filled.fill_(min(self.added, self.capacity))

    def sample(self, numbers: Tensor) -> Batch:
        """A minibatch of each seed, uniform and with replacement, by random whole numbers (S, B)."""
        rows = self.first_rows + numbers % self.filled
        packed = self.data.flatten(0, 1).index_select(0, rows.flatten()).view(*numbers.shape, -1)
        obs, action, reward, next_obs, terminated = packed.split(self.widths, dim=-1)
        return Batch(obs, action, reward.squeeze(-1), next_obs, terminated.squeeze(-1))

    def state_dict(self) -> dict:
        filled = self.data[:, : min(self.added, self.capacity)].cpu().numpy()
        # By way of NumPy, as torch.save writes all that a tensor is a view of.
        return {"added": self.added, "rows": [torch.from_numpy(rows) for rows in filled]}

    def load_state_dict(self, state: dict) -> None:
        self.added = state["added"]
        self.filled.fill_(min(self.added, self.capacity))
        for rows, saved in zip(self.data, state["rows"], strict=True):
            rows[: len(saved)] = saved


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Through pinned memory, if to a GPU: only then does the CPU not wait for the copy."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def capture(function: Callable, changed: list[Tensor]) -> Callable:
    """On a GPU, a function that launches all kernels of `function` at once; on a CPU, `function` itself.

    An update is hundreds of small kernels, slower to launch than to run. So they are recorded once, as a CUDA
    graph, and replayed on the same tensors. Recording runs nothing, but needs a few real calls on a side
    stream before it; what they did to the tensors `changed` is undone.
    """
    if not changed[0].is_cuda:
        return function
    before = [tensor.clone() for tensor in changed]
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        output = function()  # tensors that every replay fills
    with torch.no_grad():
        torch._foreach_copy_(changed, before)

    def replay():
        graph.replay()
        return output

    replay.recorded = function  # as long as this lives, so do the tensors that the graph reads and writes
    return replay


# ------------------------------------------------------------------------------------ plumbing: evaluation


def weights_of(agent: Agent, index: int) -> dict[str, Tensor]:
    """A copy of one seed's weights, as an Agent(1, ...) has them."""
    chunks = {name: value.chunk(agent.seeds) for name, value in agent.state_dict().items()}
    return {name: chunk[index].cpu().clone() for name, chunk in chunks.items()}


def decide(agent: Agent, obs: np.ndarray) -> np.ndarray:
    """What an Agent(1, ...) does: its deterministic actions (B, A) at observations (B, O)."""
    no_noise = torch.zeros(agent.policy.draws_to_act, 1, len(obs), agent.action_dim)
    return agent.policy.act(torch.from_numpy(obs).unsqueeze(0), no_noise)[0].numpy()


def evaluate(weights: dict, args: Args, seed: int, step: int, folder: Path) -> dict[str, float]:
    """Plays episodes with one seed's agent (see `decide`), each in a new environment, all at the same time.

    q_bias: what the critics promised at the first state minus the discounted return that followed, averaged.
    """
    count, title = args.eval_episodes, f"evaluation of seed {seed} at step {step}"
    films = (count if args.evaluate else 1) if args.capture_video else 0
    warnings.filterwarnings("ignore", ".*Overwriting existing videos")  # all films of a seed share one folder
    envs = [make_env(args, i < films) for i in range(count)]
    for i in range(films):
        name, videos = f"step_{step}_number_{i}", str(folder / "videos")
        envs[i] = gym.wrappers.RecordVideo(envs[i], videos, lambda episode: True, name_prefix=name)
    reset_seeds = np.random.default_rng([seed, step]).integers(2**31, size=count).tolist()
    obs = np.stack([env.reset(seed=s)[0] for env, s in zip(envs, reset_seeds, strict=True)])  # (count, O)
    agent = Agent(1, obs.shape[1], envs[0].action_space.shape[0], args)
    agent.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    actions = decide(agent, obs)
    with torch.no_grad():
        promised = agent.q(torch.from_numpy(obs[None]), torch.from_numpy(actions[None])).amin(1)[0].numpy()
    returns, discounted, lengths = np.zeros((3, count))
    playing = list(range(count))
    while playing:
        for i, action in zip(tuple(playing), decide(agent, obs[playing]), strict=True):
            check_finite([*obs[i], *action], f"{title}: an observation or action")
            obs[i], reward, terminated, truncated, _ = envs[i].step(action)
            returns[i] += reward
            discounted[i] += args.gamma ** lengths[i] * reward
            lengths[i] += 1
            if terminated or truncated:
                playing.remove(i)
    for env in envs:
        env.close()
    row = {"return_mean": returns.mean(), "return_std": returns.std()}  # over episodes, not seeds
    row |= {f"return_{i}": value for i, value in enumerate(returns)}
    row |= {"length_mean": lengths.mean(), "q_bias": (promised - discounted).mean()}
    check_finite(list(row.values()), f"{title}: the environment's reward")
    return {name: float(value) for name, value in row.items()}


def start_worker(parent: Connection) -> None:
    """A process that evaluates ends with its parent, even if that was killed."""
    torch.set_num_threads(1)
    threading.Thread(target=lambda: (parent.poll(None), os._exit(1)), daemon=True).start()


class Evaluations:
    """Evaluates every seed, in processes beside the training or at once; writes the results down in order."""

    def __init__(self, args: Args, run: Path, rows: dict[int, list[dict]], writers: dict, beside: bool):
        self.args, self.run, self.rows, self.writers, self.pending = args, run, rows, writers, []
        spawn = multiprocessing.get_context("spawn")  # a forked process could use neither CUDA nor threads
        theirs, self.ours = spawn.Pipe(duplex=False)  # carries nothing; that it closes ends the processes
        workers = min(len(rows), max(1, os.cpu_count() // 2))
        self.pool = ProcessPoolExecutor(workers, spawn, start_worker, (theirs,)) if beside else None

    def close(self) -> None:
        self.ours.close()
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def submit(self, seed: int, step: int, weights: dict[str, Tensor], timing: dict[str, float]) -> None:
        arrays = {name: value.numpy() for name, value in weights.items()}  # tensors would hold file handles
        job = arrays, self.args, seed, step, self.run / f"seed_{seed}"
        with ctrl_c_held():  # the pool may start a process
            self.pending.append((seed, step, timing, self.pool.submit(evaluate, *job) if self.pool else job))

    def collect(self, wait: bool) -> None:
        """Writes down what is done, in the order in which it was submitted; if told to wait, all of it."""
        while self.pending and (wait or not self.pool or self.pending[0][-1].done()):
            seed, step, timing, job = self.pending.pop(0)
            result = job.result() if self.pool else evaluate(*job)
            row = {"global_step": step, **result, **timing}
            self.rows[seed].append(row)
            write_rows(self.run / f"seed_{seed}" / "eval.csv", self.rows[seed])
            for name in "return_mean", "return_std", "length_mean", "q_bias", "steps_per_second":
                self.writers[seed].add_scalar(f"eval/{name}", row[name], step)
            score = f"return {row['return_mean']:.1f} +- {row['return_std']:.1f}"
            tqdm.write(f"seed {seed}, step {step}: {score}, {row['steps_per_second']:.0f} steps/s")


# ---------------------------------------------------------------------------------- plumbing: a run on disk


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Through a temporary file: if the process is killed meanwhile, the old file is still whole."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # of torch.save the latter
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def write_rows(path: Path, rows: list[dict]) -> None:
    lines = [rows[0], *(row.values() for row in rows)] if rows else []
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    write_whole(path, lambda part: part.write_text(text))


def load(path: Path, restore: Callable[[dict], object] = dict) -> dict:
    """Reads a file of torch.save and hands its content to `restore`. Code in the file does not run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        restore(state)
        return state
    except Exception as error:  # a damaged or foreign file raises half a dozen kinds
        stop(f"{path} is damaged or does not fit ({(str(error).splitlines() or [repr(error)])[0]})")


def save_agents(agent: Agent, args: Args, task: Task, step: int, run: Path) -> None:
    """agent_<step>.pt of each seed: what `load_agent` and --evaluate need."""
    for index in range(args.num_seeds):
        seed = args.seed + index
        state = {"algorithm": ALGORITHM, "global_step": step, "agent": weights_of(agent, index)}
        state |= {"args": asdict(replace(args, seed=seed, num_seeds=1, resume=None)), "obs_dim": task.obs_dim}
        state |= {"action_low": torch.tensor(task.low), "action_high": torch.tensor(task.high)}
        write_whole(run / f"seed_{seed}" / f"agent_{step}.pt", partial(torch.save, state))


def load_agent(path: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """The policy in an agent_<step>.pt for your own program: from an observation to the action to execute.
    Raises ValueError if the file is no agent of this script, OSError if it cannot be read; the policy raises
    ValueError if an observation does not fit.

    policy = load_agent("runs/<run>/seed_1/agent_1000000.pt")
    obs, reward, terminated, truncated, info = env.step(policy(obs))
    """
    file, state = io.BytesIO(Path(path).read_bytes()), {}
    try:
        state = dict(torch.load(file, map_location="cpu", weights_only=True))
        obs_dim, low, high = state["obs_dim"], state["action_low"].numpy(), state["action_high"].numpy()
        agent = Agent(1, obs_dim, low.size, Args(**state["args"]))
        agent.load_state_dict(state["agent"])
    except Exception as error:
        of = f"an agent of {state['algorithm']}.py" if "algorithm" in state else "which is of no agent"
        raise ValueError(f"{path}, {of}, does not fit this script") from error
    return lambda obs: rescale(decide(agent, np.array(obs, np.float32).reshape(1, obs_dim)), low, high)


def stored_args(run: str) -> Args:
    try:
        config = json.loads((Path(run) / "config.json").read_text())
        if config["algorithm"] != ALGORITHM:
            stop(f"{run} is a run of {config['algorithm']}.py, not of this script")
        return Args(**config["args"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        stop(f"{run} is not the folder of a run: config.json cannot be used ({error})")


def write_config(run: Path, args: Args, start: int) -> None:
    """config.json: the arguments and, for each start of the run, what else may matter to its numbers."""
    path = run / "config.json"
    folder = shlex.quote(str(Path(__file__).resolve().parent))
    failed, commit = subprocess.getstatusoutput(f"git -C {folder} describe --always --dirty --abbrev=40")
    names = "torch", "gymnasium", "mujoco", "pybullet", "pybullet_envs_gymnasium", "numpy"
    versions = {d.name: d.version for d in importlib.metadata.distributions() if d.name in names}
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    processors = re.findall(r"model name\s*: (.*)", cpuinfo) or [None]
    gpu = torch.cuda.get_device_name() if args.cuda and torch.cuda.is_available() else None
    here = {"command": shlex.join(sys.argv), "processor": processors[0], "gpu": gpu}
    here |= {"versions": {**versions, "python": sys.version.split()[0]}, "commit": None if failed else commit}
    if path.exists():
        config = json.loads(path.read_text())
        config.setdefault("resumed", []).append({"step": start, **here})
    else:
        config = {"algorithm": ALGORITHM, **here}
    config["args"] = asdict(replace(args, resume=None, evaluate=None))
    write_whole(path, lambda part: part.write_text(json.dumps(config, indent=2) + "\n"))


def start_wandb(args: Args, run: Path) -> None:
    try:
        import wandb

        project = {"project": args.wandb_project_name, "entity": args.wandb_entity, "config": asdict(args)}
        wandb.init(name=run.name, id=run.name, resume="allow", sync_tensorboard=True, **project)
    except Exception as error:  # not installed, no login, a name that is refused
        stop(f"--track: Weights & Biases cannot be used: {type(error).__name__}: {error}")


@contextmanager
def open_run(args: Args, seeds: range) -> Iterator[Path]:
    """The run's folder, made if it is new, and locked. If the run breaks off, says how to go on."""
    name = f"{args.env_id.replace('/', '-').replace(':', '-')}__{ALGORITHM}__{args.seed}__"
    run = Path(args.resume or Path(args.runs_dir) / f"{name}{datetime.now():%Y%m%d-%H%M%S-%f}")
    if args.track and not args.resume:
        start_wandb(args, run)
    try:
        for seed in seeds:
            (run / f"seed_{seed}").mkdir(parents=True, exist_ok=True)
        with FileLock(run / "lock", timeout=0):
            if args.track and args.resume:
                start_wandb(args, run)
            yield run
    except Timeout:
        stop(f"--resume {run}: another process is training there")
    except (KeyboardInterrupt, FloatingPointError) as error:
        kept = (run / "checkpoint.pt").exists()
        then = f"--resume {run} goes back to the last checkpoint" if kept else "there is no checkpoint yet"
        if isinstance(error, KeyboardInterrupt):
            stop(f"interrupted; {then}", status=130)
        stop(f"{error}; {then}; as it would repeat itself, start anew with other settings", status=3)


# ----------------------------------------------------------------------------------------- plumbing: training


def require(args: Args, names: str, low: float, high: float) -> None:
    for name in names.split():
        if not low <= getattr(args, name) <= high:
            flag = "--" + name.replace("_", "-")
            stop(f"{flag} must be between {low:g} and {high:g}, not {getattr(args, name)}")


def resolve(args: Args) -> Args:
    """Fills in Table I and ends the program on values that cannot work."""
    family = re.sub(r"^.*:|-v\d+$", "", args.env_id)
    row = dict(zip(TABLE_I[""], TABLE_I.get(family, TABLE_I["Hopper"]), strict=True))
    missing = {name: value for name, value in row.items() if getattr(args, name) is None}
    if missing and family not in TABLE_I:
        print(f"{args.env_id} is not in the paper's Table I. Hopper's row is used: {missing}")
    args = replace(args, **missing)
    require(args, "total_timesteps buffer_size eval_frequency checkpoint_frequency", 1, 1e12)
    require(args, "num_seeds batch_size eval_episodes", 1, 1e5)
    require(args, "torch_threads", 1, 1e3)
    require(args, "seed learning_starts snapshot_frequency", 0, 1e12)
    require(args, "policy_lr q_lr alpha", 1e-10, 1e6)
    require(args, "gamma", 0, 1)
    require(args, "tau", 1e-10, 1)
    require(args, "leapfrog_steps leapfrog_hidden", 1, 1e4)
    require(args, "step_size", 1e-10, 1e6)
    require(args, "momentum_std_train momentum_std_explore", 0, 1e6)
    if args.bfloat16_force is None:
        on_cpu = not (args.cuda and torch.cuda.is_available())
        able = on_cpu and [name for name, there in torch.cpu.get_capabilities().items() if there]
        args = replace(args, bfloat16_force=on_cpu and ("avx512_bf16" in able or "amx_bf16" in able))
    if args.explore == "proposed" and args.train != "proposed":
        stop("--explore proposed needs --train proposed: nothing else trains T_h and sigma_h")
    if args.momentum_in_target and (args.train == "gaussian" or args.momentum_std_train == 0.0):
        stop("--momentum-in-target needs a momentum in updates: see --momentum-std-train and --train")
    return args


def refuse_changes(args: Args, run: str, free: str, rule: str) -> None:
    """Ends the program if an argument is not what it was in a run, unless it is one of `free`."""
    for name, stored in asdict(stored_args(run)).items():
        if name not in free.split() and getattr(args, name) != stored:
            stop(f"--{name.replace('_', '-')} is {stored} in {run}: {rule}")


def make_task(args: Args) -> tuple[Args, Task]:
    """The task, for its shapes and bounds, and the arguments, with its version."""
    task = make_env(args, args.capture_video)
    task.close()
    newest = task.spec.id
    if not args.env_id.endswith(newest):
        print(f"{args.env_id} names no version: {newest}, the newest, is used (closest to the paper: -v4)")
        module, colon, _ = args.env_id.rpartition(":")
        args = replace(args, env_id=module + colon + newest)
    if len(shape := task.env.observation_space.shape) > 1:
        print(f"observations of shape {shape} are flattened: there is no convolution")
    return args, task


def train(args: Args) -> Path:
    """Algorithm 1 for all seeds. Returns the run's folder.

    Departure [The newest transition]: a step's transition is stored after the step's update.
    Departure [Episodes at a checkpoint]: they are cut, and bootstrapped as at a time limit.
    """
    if args.resume:
        longer = args.total_timesteps > stored_args(args.resume).total_timesteps
        free = "resume total_timesteps" if longer else "resume"
        refuse_changes(args, args.resume, free, "only --total-timesteps may change, and grow")
    args, task = make_task(resolve(args))
    torch.set_num_threads(args.torch_threads)
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")
    seeds = range(args.seed, args.seed + args.num_seeds)
    obs_dim, action_dim = task.obs_dim, task.action_dim

    generators, noise_generators = make_generators(seeds, device)
    agent = Agent(len(seeds), obs_dim, action_dim, args)
    draw_weights(agent, generators)
    optimizers = make_optimizers(agent.to(device), args)
    adam = [value for o in optimizers.values() for state in o.state.values() for value in state.values()]
    capacity = min(args.buffer_size, args.total_timesteps)
    buffer = ReplayBuffer(len(seeds), capacity, obs_dim, action_dim, device)
    noise = Noise(noise_generators, agent.policy, args.batch_size, action_dim)
    obs_on_device = torch.zeros(len(seeds), 1, obs_dim, device=device)
    chosen = torch.zeros(len(seeds), action_dim, pin_memory=device.type == "cuda")
    chosen_now = torch.get_device_module(device).Event()

    def act() -> Tensor:
        return agent.policy.act(obs_on_device, noise.now(noise.to_act).transpose(0, 1)).squeeze(1)

    def learn() -> Logs:
        batch = buffer.sample(noise.now(noise.rows))
        return update(agent, optimizers, batch, noise.now(noise.to_update).transpose(0, 1), args)

    changed = [*agent.state_dict().values(), *adam]
    act, learn = capture(act, changed), capture(learn, changed)

    def restore(state: dict) -> None:
        agent.load_state_dict(state["agent"])
        buffer.load_state_dict(state["buffer"])
        for tensor, saved in zip(adam, state["adam"], strict=True):
            tensor.copy_(saved)
        for generator, saved in zip(generators + noise_generators, state["generators"], strict=True):
            generator.set_state(saved)

    def check(values, what: str) -> None:
        check_finite(values, f"step {global_step}: {what}")

    start, seconds, rows, writers = 0, 0.0, {seed: [] for seed in seeds}, {}  # rows: those of eval.csv
    beside = device.type == "cuda" or len(seeds) > 1
    with open_run(args, seeds) as run, closing(Evaluations(args, run, rows, writers, beside)) as evaluations:
        if args.resume and (run / "checkpoint.pt").exists():
            state = load(run / "checkpoint.pt", restore)
            start, seconds = state["global_step"], state["seconds"]
            rows.update(state["rows"])
            del state  # a copy of the buffer
        if start >= args.total_timesteps:
            print(f"{run} is finished: {start} steps. To go on, give a larger --total-timesteps.")
            return run
        write_config(run, args, start)
        for seed in seeds:  # rows later than the checkpoint go: they will come again
            write_rows(run / f"seed_{seed}" / "eval.csv", rows[seed])
            writers[seed] = SummaryWriter(str(run / f"seed_{seed}"), purge_step=start + 1)
        print(f"{run}: steps {start} to {args.total_timesteps} on {device}\n{args}")

        envs, obs, logs = make_envs(args, beside=device.type == "cuda" and len(seeds) > 1), None, {}
        clock, clock_step = time.perf_counter(), start
        began = clock - seconds
        steps = range(start + 1, args.total_timesteps + 1)
        bar = tqdm(steps, initial=start, total=steps[-1], unit="step", disable=None, dynamic_ncols=True)
        for global_step in bar:
            if obs is None:  # at the start and after a checkpoint
                reset_seeds = [torch.randint(2**31, (), generator=g).item() for g in generators]
                obs, _ = envs.reset(seed=reset_seeds)
                returns, lengths = np.zeros((2, len(seeds)))
                noise.left = 0  # drawn anew, in the run that goes on as in the one that resumes
            check(obs, "the environment's observation")

            if global_step <= args.learning_starts:
                uniform = torch.stack([torch.rand(action_dim, generator=g) for g in generators])
                actions = (2.0 * uniform - 1.0).numpy()
            else:
                noise.advance()
                obs_on_device.copy_(to_device(obs, device).unsqueeze(1))
                chosen.copy_(act(), non_blocking=True)
                chosen_now.record()
                if buffer.added:  # Of what is stored so far: on a GPU it runs while the environments step.
                    logs = learn()
                chosen_now.synchronize()
                actions = chosen.numpy()  # (S, A)
                check(actions, "the policy's action")
            next_obs, rewards, terminated, truncated, _ = envs.step(actions)
            packed = np.column_stack([obs, actions, rewards, next_obs, terminated])  # as in Batch
            packed = torch.from_numpy(packed).float().numpy()  # what float32 cannot hold becomes infinite
            check(packed, "the environment's observation or reward")
            buffer.add(packed)
            obs, returns, lengths = next_obs, returns + rewards, lengths + 1
            if (over := terminated | truncated).any():
                for index in np.flatnonzero(over):
                    charts = {"episodic_return": returns[index], "episodic_length": lengths[index]}
                    for name, value in charts.items():
                        writers[seeds[index]].add_scalar(f"charts/{name}", value, global_step)
                    bar.set_postfix_str(f"return {returns[index]:.1f}", refresh=False)
                obs, _ = envs.reset(options={"reset_mask": over})
                returns[over], lengths[over] = 0.0, 0.0

            last = global_step == args.total_timesteps
            evaluating = last or global_step % args.eval_frequency == 0
            saving = last or global_step % args.checkpoint_frequency == 0
            if logs and (global_step % 100 == 0 or evaluating or saving):
                values = torch.stack(list(logs.values()), dim=1).cpu().numpy()  # (S, number of logs)
                check(values, "a loss")
                for seed, numbers in zip(seeds, values, strict=True):
                    for name, number in zip(logs, numbers, strict=True):
                        writers[seed].add_scalar(name, number, global_step)
            if evaluating:
                now = time.perf_counter()
                speed = (global_step - clock_step) / (now - clock)
                timing = {"seconds": round(now - began, 1), "steps_per_second": round(speed, 1)}
                for index, seed in enumerate(seeds):
                    evaluations.submit(seed, global_step, weights_of(agent, index), timing)
            evaluations.collect(wait=saving)
            if saving or (args.snapshot_frequency and global_step % args.snapshot_frequency == 0):
                check([weight.detach().sum().item() for weight in agent.parameters()], "a weight")
                save_agents(agent, args, task, global_step, run)
            if saving:
                for writer in writers.values():
                    writer.flush()
                state = {"agent": agent.state_dict(), "adam": adam, "buffer": buffer.state_dict()}
                state |= {"generators": [g.get_state() for g in generators + noise_generators], "rows": rows}
                state |= {"global_step": global_step, "seconds": time.perf_counter() - began}
                write_whole(run / "checkpoint.pt", partial(torch.save, state))
                del state  # on a GPU's host, a copy of the buffer
                obs = None  # episodes in progress are cut: then there is no simulator's state to keep
            if evaluating or saving:
                clock, clock_step = time.perf_counter(), global_step

        envs.close()
        for writer in writers.values():
            writer.close()
    return run


def play(args: Args) -> None:
    """--evaluate: plays the newest agent of each seed and prints the returns."""
    free = "evaluate seed num_seeds eval_episodes capture_video torch_threads cuda"
    rule = "only --seed, --num-seeds, --eval-episodes, --capture-video and --torch-threads may change"
    refuse_changes(args, args.evaluate, free, rule)
    torch.set_num_threads(args.torch_threads)
    for seed in range(args.seed, args.seed + args.num_seeds):
        folder = Path(args.evaluate) / f"seed_{seed}"
        names = {path: path.stem.removeprefix("agent_") for path in folder.glob("agent_*.pt")}
        files = {int(name): path for path, name in names.items() if name.isdigit()}
        if not files:
            stop(f"--evaluate {args.evaluate}: no agent_<step>.pt of seed {seed}; see --checkpoint-frequency")
        step, path = max(files.items())
        row = evaluate(load(path)["agent"], args, seed, step, folder)
        for i in range(args.eval_episodes):
            print(f"seed {seed}, episode {i}: return {row[f'return_{i}']:.1f}")
        print(f"{path}: return {row['return_mean']:.1f} +- {row['return_std']:.1f}")


def read_args() -> Args:
    """From the command line and, with --resume or --evaluate, what is not given there from the run."""
    args = tyro.cli(Args)
    if args.resume and args.evaluate:
        stop("--resume goes on with a run and --evaluate plays its agents: give one of them")
    if run := args.resume or args.evaluate:
        stored = replace(stored_args(run), resume=args.resume, evaluate=args.evaluate)
        if args.evaluate and any(word.split("=")[0] == "--seed" for word in sys.argv):
            stored = replace(stored, num_seeds=1)
        args = tyro.cli(Args, default=stored)
    return args


if __name__ == "__main__":
    # Gymnasium's destructor complains where a process that stepped an environment is gone.
    sys.unraisablehook = lambda told: "VectorEnv" in repr(told.object) or sys.__unraisablehook__(told)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # closed, as by >&-: what is written goes nowhere
    sys.stderr = sys.stderr or open(os.devnull, "w")
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # a line is there at once
    sys.path.append("")  # --env-id my_module:MyTask-v0 finds my_module.py in the current folder
    args = read_args()
    try:
        play(resolve(args)) if args.evaluate else train(args)
    except (BrokenExecutor, EOFError, ConnectionResetError) as error:
        stop(f"a process beside the training has ended, perhaps for want of memory ({error!r})")
    except (OSError, FloatingPointError) as error:  # a full disk, for example
        stop(str(error), status=2 if isinstance(error, OSError) else 3)
    except torch.OutOfMemoryError:
        stop("the GPU's memory is full: lower --num-seeds, --buffer-size or --batch-size")
    except KeyboardInterrupt:
        stop("interrupted while no run was in progress", status=130)
