"""Environments that do what they should not, registered as `odd:<Name>-v0`."""

import multiprocessing
import os
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box


class Odd(gym.Env):
    """Twenty steps, with nothing odd."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.obs(), {}

    def obs(self):
        return np.full(self.observation_space.shape, self.t / 20, np.float32)

    def reward(self):
        return 1.0

    def step(self, action):
        self.t += 1
        return self.obs(), self.reward(), self.t >= 20, False, {}


class Arrays(Odd):
    """Every number is an array of one number."""

    def reward(self):
        return np.array([0.5], np.float32)

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, np.array([terminated]), np.array(truncated), info


class ResetNan(Odd):
    def obs(self):
        return np.full(3, np.nan if self.t == 0 else 0.1, np.float32)


class LaterResetNan(Odd):
    """At the reset of the third episode."""

    episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed=seed)

    def obs(self):
        return np.full(3, np.inf if self.t == 0 and self.episodes == 3 else 0.1, np.float32)


class EvaluationNan(Odd):
    """In every instance but the first three of a process, those of training, so in evaluation."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.number = type(self).made

    def broken(self):
        return self.number > 3 and self.t == 5


class EvaluationNanReward(EvaluationNan):
    def reward(self):
        return float("nan") if self.broken() else 1.0


class EvaluationNanObservation(EvaluationNan):
    def obs(self):
        return np.full(3, np.nan if self.broken() else 0.1, np.float32)


class EndsItsProcess(Odd):
    """As if it were killed, where it is stepped beside the training."""

    def step(self, action):
        if multiprocessing.parent_process():
            os._exit(9)
        return super().step(action)


class DestructorFails(Odd):
    def __del__(self):
        raise RuntimeError("the simulator does not let go")


class HugeBounds(Odd):
    """They stand for "none"."""

    action_space = Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32)


class RenderNone(Odd):
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        return None


class ConstructorFails(Odd):
    def __init__(self):
        raise RuntimeError("licence server is not reachable")


class ConstructorAsserts(Odd):
    def __init__(self):
        raise AssertionError


class Image(Odd):
    observation_space = Box(0, 255, (4, 5, 3), np.uint8)

    def obs(self):
        return np.full((4, 5, 3), self.t, np.uint8)


for kind in list(globals().values()):
    if isinstance(kind, type) and issubclass(kind, Odd):
        gym.register(f"{kind.__name__}-v0", entry_point=kind)
        gym.register(f"{kind.__name__}-v1", entry_point=kind)
