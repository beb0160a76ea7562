"""An environment that counts, so that each observation and each reward tells where it comes from."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

LENGTHS = (3, 1, 4, 1, 5, 2, 6)  # of episode e of stream i: LENGTHS[(e + 2 i) % 7]


class Counting(gymnasium.Env):
    """Observes (stream, episode, step); the reward is 1000 episode + 10 step + action.

    Of every three episodes one terminates, one is truncated and one is both at once.
    """

    def __init__(self, stream=0, actions=None):
        self.stream, self.episode = stream, -1
        self.observation_space = Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = actions or Discrete(4, start=5)

    def observe(self):
        return np.array([self.stream, self.episode, self.moment], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.moment = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not of {self.action_space}"
        number = float(np.sum(action))
        if isinstance(action, np.ndarray):
            action[:] = np.nan  # an environment may do with its action what it likes
        over = self.moment == LENGTHS[(self.episode + 2 * self.stream) % 7]
        assert not over, "a step after the end of an episode"
        reward = 1000.0 * self.episode + 10.0 * self.moment + number
        self.moment += 1
        over = self.moment == LENGTHS[(self.episode + 2 * self.stream) % 7]
        return self.observe(), reward, over and self.episode % 3 != 1, over and self.episode % 3 != 0, {}


def truth(stream, count, choose, actions=None):
    """The first `count` transitions (observation, action, reward, next observation, terminated, truncated)."""
    env, out = Counting(stream, actions), []
    observation, _ = env.reset()
    for _ in range(count):
        action = choose(observation)
        new, reward, terminated, truncated, _ = env.step(
            action + env.action_space.start if actions is None else action.copy()
        )
        out.append((*observation, *np.atleast_1d(action), reward, *new, terminated, truncated))
        observation = env.reset()[0] if terminated or truncated else new
    return np.array(out, float)
