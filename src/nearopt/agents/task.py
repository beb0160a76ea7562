"""What a method must know of its environment, as a value."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nearopt.agents.errors import SettingError

Prior = None | str | tuple[float, ...] | Callable


@dataclass(frozen=True)
class Task:
    """Sizes and bounds of observations and actions. Hashable, so that equal tasks share compiled programs."""

    observation_size: int
    num_actions: int = 0  # 0: the actions are a box
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def action_size(self) -> int:
        return len(self.low)

    @property
    def half(self) -> Float[Array, " A"]:
        """Half the width of the action box: the scale between its units and those of [−1, 1]."""
        return jnp.asarray((np.asarray(self.high) - np.asarray(self.low)) / 2, jnp.float32)

    @property
    def middle(self) -> Float[Array, " A"]:
        return jnp.asarray((np.asarray(self.high) + np.asarray(self.low)) / 2, jnp.float32)

    def to_box(self, unit: Float[Array, "batch A"]) -> Float[Array, "batch A"]:
        """From [−1, 1] to the environment's units; rounding does not leave the box."""
        return jnp.clip(self.middle + self.half * unit, jnp.asarray(self.low), jnp.asarray(self.high))

    def to_unit(self, action: Float[Array, "batch A"]) -> Float[Array, "batch A"]:
        return (action - self.middle) / self.half


def discrete_log_prior(prior: Prior, task: Task, observation: Float[Array, "batch size"]) -> Float[Array, "batch n"]:
    """log p(a|s) for every action: None flat (0), "uniform" (−log n), a row of log-probabilities, or a function."""
    n = task.num_actions
    if callable(prior):
        return jnp.broadcast_to(prior(observation), (observation.shape[0], n))
    row = 0.0 if prior is None else -np.log(n) if isinstance(prior, str) else jnp.asarray(prior, jnp.float32)
    return jnp.broadcast_to(jnp.asarray(row, jnp.float32), (observation.shape[0], n))


def box_log_prior(
    prior: Prior, task: Task, observation: Float[Array, "batch size"], unit: Float[Array, "batch A"], units: str
) -> Float[Array, " batch"]:
    """log p(a|s) as a density over [−1, 1]^A: "uniform" is −A log 2, a function of both arguments what it says.

    None is flat: density 1, per unit of [−1, 1] ("unit") or of the environment's own ("box").
    """
    if callable(prior):
        return prior(observation, unit)
    volume = -task.action_size * np.log(2) if prior else jnp.log(task.half).sum() if units == "box" else 0.0
    return jnp.full(unit.shape[:1], volume, jnp.float32)


def check_prior(prior: Prior, task: Task) -> Prior:
    """The prior as a hashable value, or a sentence about what is wrong with it."""
    if prior is None or prior == "flat":
        return None
    if callable(prior) or (isinstance(prior, str) and prior == "uniform"):
        return prior
    if isinstance(prior, str) or not task.num_actions:
        wanted = "'uniform', None (flat) or a function" + (
            ", or a row of log-probabilities" if task.num_actions else ""
        )
        raise SettingError(f"prior={prior!r} is none that this agent knows", f"give {wanted}")
    try:
        row = np.asarray(prior, float)
    except (TypeError, ValueError):
        row = np.array(np.nan)  # no numbers: no row of them
    if row.shape != (task.num_actions,) or np.isnan(row).any() or (row == np.inf).any() or not (row > -np.inf).any():
        raise SettingError(
            f"prior={prior!r} is not a row of {task.num_actions} log-probabilities", "give one number per action"
        )
    return tuple(row.tolist())
