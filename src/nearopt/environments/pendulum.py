"""Gymnasium's Pendulum-v1 in JAX: swing a rod up, and hold it there, with a motor too weak to lift it at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Array, Bool, Float, Key

from nearopt.environments.environment import Environment

MAX_SPEED, MAX_TORQUE, TIME_STEP, GRAVITY, MASS, LENGTH = 8.0, 2.0, 0.05, 10.0, 1.0, 1.0


class Pendulum(Environment):
    """The state is (angle, angular velocity), the angle in [−π, π), 0 upright; never terminates.

    Observes (cos, sin, angular velocity). Reward: −(angle² + 0.1 velocity² + 0.001 torque²), before the move.
    """

    max_episode_steps: int = eqx.field(static=True, default=200)

    @property
    def observation_space(self) -> Box:
        high = np.array([1.0, 1.0, MAX_SPEED], np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> Box:
        return Box(-MAX_TORQUE, MAX_TORQUE, (1,))

    def reset(self, key: Key[Array, ""]) -> Float[Array, "2"]:
        return jax.random.uniform(key, (2,), minval=-1.0) * jnp.array([jnp.pi, 1.0])

    def observe(self, state: Float[Array, "2"]) -> Float[Array, "3"]:
        angle, velocity = state
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), velocity])

    def step(
        self, key: Key[Array, ""], state: Float[Array, "2"], action: Float[Array, "1"]
    ) -> tuple[Float[Array, "2"], Float[Array, ""], Bool[Array, ""]]:
        angle, velocity = state
        torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
        cost = angle**2 + 0.1 * velocity**2 + 0.001 * torque**2
        pull = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3 / (MASS * LENGTH**2) * torque
        velocity = jnp.clip(velocity + pull * TIME_STEP, -MAX_SPEED, MAX_SPEED)
        angle = wrap(angle + velocity * TIME_STEP)  # Gymnasium lets it grow, which costs digits in float32
        return jnp.stack([angle, velocity]), -cost, jnp.array(False)


def wrap(angle: Float[Array, ""]) -> Float[Array, ""]:
    """The same angle in [−π, π)."""
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
