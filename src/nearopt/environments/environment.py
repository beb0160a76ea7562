"""What an environment written in JAX is: pure functions of its state, so that a whole training run compiles."""

import operator
from abc import abstractmethod
from typing import Any

import equinox as eqx
import gymnasium
from jaxtyping import Array, Bool, Float, Key

from nearopt.environments.errors import EpisodeLengthError


def episode_length(steps: Any) -> int:
    """Raises: `EpisodeLengthError`."""
    if not hasattr(steps, "__index__") or steps < 1:
        raise EpisodeLengthError(f"max_episode_steps is {steps!r:.60}", "give a whole number of at least 1")
    return operator.index(steps)


class Environment(eqx.Module):
    """An environment as pure functions, for `jit` and `vmap`; float32.

    A state is any PyTree of arrays of numbers. Actions are those of `action_space`, a Box (A,) or whole numbers from 0.
    Time limits are counted by whoever steps: nothing here ends an episode after `max_episode_steps`.
    """

    max_episode_steps: eqx.AbstractVar[int]  # static

    def __check_init__(self) -> None:
        episode_length(self.max_episode_steps)

    @property
    @abstractmethod
    def observation_space(self) -> gymnasium.Space:
        """Of one observation."""

    @property
    @abstractmethod
    def action_space(self) -> gymnasium.Space:
        """Of one action."""

    @abstractmethod
    def reset(self, key: Key[Array, ""]) -> Any:
        """A first state."""

    @abstractmethod
    def observe(self, state: Any) -> Float[Array, "size"]:
        """What an agent sees of a state, `observation_space` flattened."""

    @abstractmethod
    def step(self, key: Key[Array, ""], state: Any, action: Array) -> tuple[Any, Float[Array, ""], Bool[Array, ""]]:
        """(next state, reward, whether the episode has terminated there)."""
