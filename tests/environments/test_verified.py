"""Exactness is tried, and doubted where a function or a model may change."""

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers

from nearopt.environments.capture import capture, reason_not_exact, restore, verified
from nearopt.environments.errors import RestoreError
from tests.environments.counting import Counting
from tests.environments.test_capture import MAKERS


class Hidden(Counting):
    """Keeps part of its state where no attribute shows it."""

    total = 0.0

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        Hidden.total += 1.0
        return observation + Hidden.total, reward, terminated, truncated, info


class Noisy(Counting):
    """Draws from a generator that nobody holds."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation + np.random.default_rng().random(), reward, terminated, truncated, info


@pytest.mark.parametrize("name", ["CartPole-v1", "Hopper-v5", "next step", "disabled, buffers", "MDP"])
def test_good_environments_are_verified(name):
    assert verified(MAKERS[name]) is None


@pytest.mark.parametrize("kind", [Hidden, Noisy])
def test_hidden_state_is_found(kind):
    env = kind()
    env.reset(seed=0)
    assert reason_not_exact(env) is None
    assert "differ 0 steps after" in verified(kind)


class Running:
    """A function that remembers what it was called with."""

    def __init__(self):
        self.total = 0.0

    def scale(self, reward):
        self.total += reward
        return reward / (1.0 + self.total)


def remembering():
    seen = [0.0]

    def scale(reward):
        seen[0] += reward
        return reward / (1.0 + seen[0])

    return scale


def keeping(reward, seen=[0.0]):  # noqa: B006
    seen[0] += reward
    return seen[0]


def calling_itself():
    def scale(reward):
        return reward if reward < 1 else scale(reward / 2)

    return scale


def halving(factor=0.5):
    return lambda reward: factor * reward


def test_functions_that_may_remember_are_no_plain_state():
    reason = lambda scale: reason_not_exact(wrappers.TransformReward(gymnasium.make("CartPole-v1"), scale))
    for scale in (remembering(), Running().scale, [].append, keeping, calling_itself()):
        assert "TransformReward.func is a" in reason(scale)
    for scale in (halving(), np.tanh, lambda reward: reward):
        assert reason(scale) is None


def test_a_simulation_of_another_model_is_refused():
    env, other = gymnasium.make("Hopper-v5"), gymnasium.make("Hopper-v5")
    for each in (env, other):
        each.reset(seed=0)
    other.unwrapped.model.body_mass[1] *= 1.1
    with pytest.raises(RestoreError, match="data"):
        restore(other, capture(env))
    env.close()
    other.close()
