"""An environment in which one thing goes wrong, `odd:Odd-v0`: --env-kwargs say where, what and for whom."""

import builtins
import multiprocessing
import os
import random
from typing import ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete


class TwoArguments(RuntimeError):
    """Cannot leave its process: pickle would make it anew from its text alone."""

    def __init__(self, text, code):
        super().__init__(text)


class Panic(BaseException):
    """No Exception, as what simulators written in Rust raise."""


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("and cannot say why")


def seed_all(usual):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    return usual


# From what is usual at some place to what comes there instead.
INSTEAD = {
    "usual": lambda usual: usual,
    "nan": lambda usual: usual * np.nan,
    "inf": lambda usual: usual + np.inf,
    "too large for float32": lambda usual: 0.0 * usual + 1e39,
    "its square is": lambda usual: 0.0 * usual + 1e30,
    "negative": lambda usual: -abs(usual),
    "array": lambda usual: np.array([usual]),
    "two numbers": lambda usual: np.array([usual, usual]),
    "one number more": lambda usual: np.append(usual, 0.0),
    "nothing": lambda usual: None,
    "moves": lambda usual: (os.chdir("/"), usual)[1],
    "seeds": seed_all,
    "killed": lambda usual: os._exit(9),
}


def instead(what: str, usual):
    """Or the error of that name: Python's, one from above, or without a text if it ends in `()`."""
    if what in INSTEAD:
        return INSTEAD[what](usual)
    error = getattr(builtins, what.removesuffix("()"), None) or globals()[what.removesuffix("()")]
    raise error() if "()" in what else error("the simulator broke at 100 %", *[7] * (error is TwoArguments))


SPACES = {
    "grid": Box(-1.0, 1.0, (2, 3), np.float64),
    "image": Box(0, 255, (4, 5, 3), np.uint8),
    "dict": Dict({"a": Box(0.0, 1.0, (2,)), "b": Discrete(3)}),
    "discrete": Discrete(3),
    "whole numbers": Box(0, 5, (2,), np.int64),
    "unbounded": Box(-np.inf, np.inf, (2,), np.float32),
    "half-bounded": Box(0.0, np.inf, (2,), np.float32),
    "huge": Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32),
}


class Odd(gym.Env):
    """Episodes of twenty steps. At `at` comes `what`, in instances number `first` to `last` of their process;
    those of processes beside the training count from a million.

    Places: make; reset, from an instance's second on; first obs; at step 7: step, obs, reward;
    in reset, options if they are not None; close; render; at every step: every reward, over, cost.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 30}
    made = 0

    def __init__(
        self, at="", what="", first=1, last=10**9, obs=None, actions=None, render_mode=None, episode=20
    ):
        Odd.made += 1
        self.number = Odd.made + (10**6 if multiprocessing.parent_process() else 0)
        self.at = at if first <= self.number <= last else ""
        self.what, self.render_mode, self.resets, self.episode = what, render_mode, 0, episode
        self.observation_space = SPACES[obs] if obs else Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = SPACES[actions] if actions else Box(-1.0, 1.0, (2,), np.float32)
        self.come("make", None)

    def come(self, place, usual, now=True):
        return instead(self.what, usual) if place == self.at and now else usual

    def observe(self):
        if isinstance(self.observation_space, Dict):
            return {"a": np.array([0.1, self.t / 20], np.float32), "b": self.t % 3}
        return np.full(self.observation_space.shape, self.t / 20, self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.resets = 0, self.resets + 1
        self.come("reset", None, self.resets > 1)
        self.come("options", None, options is not None)
        return self.come("first obs", self.observe()), {}

    def step(self, action):
        self.t += 1
        now = self.t == 7
        self.come("step", None, now)
        obs, reward = self.come("obs", self.observe(), now), -float(np.square(action).mean())
        over = self.come("over", self.t >= self.episode)
        reward = self.come("every reward", self.come("reward", reward, now))
        return obs, reward, over, False, {"cost": self.come("cost", 0.5)}

    def render(self):
        return self.come("render", np.zeros((16, 16, 3), np.uint8))

    def close(self):
        self.come("close", None)


gym.register("Odd-v0", entry_point=Odd)
