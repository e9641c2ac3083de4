"""Small environments whose values are known, registered as `envs:<Name>-v0`."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box


class Known(gym.Env):
    """One observation number, one action number in [0, 3]; `play` gives reward and whether the episode
    terminates."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(0.0, 3.0, (1,), np.float32)  # not symmetric: actions are rescaled on the way in

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def observe(self):
        return np.array([float(self.t)])

    def step(self, action):
        assert self.action_space.contains(action), action
        reward, terminated = self.play(float(action[0]))
        self.t += 1
        return self.observe(), reward, terminated, False, {}


def bump(action, centre, width):
    return float(np.exp(-0.5 * ((action - centre) / width) ** 2))


PLAYS = {  # what `play` does
    "OneStep": lambda env, action: (1.0, True),  # Q = 1
    # Reward 1 at the second step only: Q(first) = gamma, Q(second) = 1.
    "TwoSteps": lambda env, action: (float(env.t == 1), env.t == 1),
    # One step, a narrow peak of reward at action 2.4.
    "Peak": lambda env, action: (bump(action, 2.4, 0.2), True),
    # One step, a peak of height 1 at action 0.6 and of height 2 at action 2.4; nothing between them.
    "TwoPeaks": lambda env, action: (bump(action, 0.6, 0.25) + 2.0 * bump(action, 2.4, 0.25), True),
}
for name, play in PLAYS.items():
    gym.register(f"{name}-v0", entry_point=type(name, (Known,), {"play": play}))


class Endless(Known):
    """Reward 1 at every step, cut off (not terminated) after 5: Q = 1 / (1 - gamma)."""

    def observe(self):
        return np.zeros(1)

    def play(self, action):
        return 1.0, False


class SameArray(Known):
    """Writes every observation into one array."""

    array = np.zeros(1)

    def observe(self):
        self.array[0] = self.t
        return self.array

    def play(self, action):
        return 0.0, self.t == 9


class Grid(Known):
    """Observations (2, 3) and actions (2, 2) of unequal bounds."""

    observation_space = Box(-1.0, 1.0, (2, 3), np.float64)
    action_space = Box(np.array([[0, 1], [-5, 2]], np.float32), np.array([[1, 3], [5, 9]], np.float32))

    def observe(self):
        return np.full((2, 3), 0.1 + self.t / 10)

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observe(), float(action.sum()), self.t == 5, False, {}


class Costly(Known):
    """One step; the reward is best at action 2.4, the cost is the action."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, info | {"cost": np.float32(action[0])}

    def play(self, action):
        return -((action - 2.4) ** 2), True


class OneCost(Costly):
    """Three steps that cost 0.5, 0 and 1."""

    def step(self, action):
        cost = (0.5, 0.0, 1.0)[self.t]
        *rest, _ = super().step(action)
        return *rest, {"cost": cost}

    def play(self, action):
        return 0.0, self.t == 2


class Marked(Known):
    """Observation: a number of the episode's own, and the time in it."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.number = float(self.rng.integers(1000))
        return super().reset(seed=seed)

    def observe(self):
        return np.array([self.number, float(self.t)])

    def play(self, action):
        return 0.0, self.t == int(self.number) % 5


for env in Endless, SameArray, Grid, Costly, OneCost, Marked:
    gym.register(f"{env.__name__}-v0", entry_point=env, max_episode_steps=5 if env is Endless else 200)
