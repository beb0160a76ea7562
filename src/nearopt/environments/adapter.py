"""An environment in JAX as a Gymnasium environment."""

from typing import Any

import equinox as eqx
import gymnasium
import jax
import numpy as np

from nearopt.environments import functional
from nearopt.environments.environment import Environment


class GymnasiumEnvironment(gymnasium.Env):
    """An `Environment` as a Gymnasium environment, without a time limit: `gymnasium.wrappers.TimeLimit` adds it.

    Its state is kept as NumPy arrays, so that `capture` sees it; keys are drawn from `np_random`.

    >>> from nearopt.environments.pendulum import Pendulum
    >>> env = GymnasiumEnvironment(Pendulum())
    >>> env.reset(seed=0)[0].shape
    (3,)
    """

    metadata = {"render_modes": []}
    unchanging = ("environment", "structure")

    def __init__(self, environment: Environment):
        self.environment = environment
        self.observation_space, self.action_space = environment.observation_space, environment.action_space
        self.structure = jax.tree.structure(jax.eval_shape(environment.reset, jax.random.key(0)))
        self.state: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        state, observation = begin(self.environment, self.draw())
        return self.see(state, observation), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        state = jax.tree.unflatten(self.structure, self.state)
        state, observation, reward, terminated = move(self.environment, self.draw(), state, np.asarray(action))
        return self.see(state, observation), float(reward), bool(terminated), False, {}

    def draw(self) -> np.uint32:
        """The seed of a key."""
        return self.np_random.integers(2**32, dtype=np.uint32)

    def see(self, state: Any, observation: jax.Array) -> np.ndarray:
        self.state = [np.array(leaf) for leaf in jax.tree.leaves(state)]
        return np.array(observation).reshape(self.observation_space.shape)


@eqx.filter_jit
def begin(environment: Environment, seed: Any) -> tuple[Any, jax.Array]:
    state = environment.reset(jax.random.key(seed))
    return state, environment.observe(state)


@eqx.filter_jit
def move(environment: Environment, seed: Any, state: Any, action: Any) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
    state, reward, terminated = environment.step(jax.random.key(seed), state, action)
    return state, environment.observe(state), reward, terminated


def make(id: str, **kwargs: Any) -> GymnasiumEnvironment:
    """Gymnasium's entry point for the ids of `nearopt.environments.TABLE`."""
    environment = functional(id, kwargs)
    assert environment is not None, f"{id} is not of this package"
    return GymnasiumEnvironment(environment)
