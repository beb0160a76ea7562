"""What an agent does next: as its policy says, or at random while it knows nothing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nearopt.agents.agent import Method
from nearopt.agents.settings import Settings
from nearopt.agents.task import box_log_prior, discrete_log_prior


class Choice(NamedTuple):
    """Actions, and −τ log π/p of them: what that adds to the soft return."""

    action: Any
    bonus: Any


def choose(method: Method, settings: Settings, state: Any, observation: Any, key: Any) -> Choice:
    """The policy's."""
    action, cost = method.act(settings, state, observation, key, False)
    return Choice(action, -jnp.exp(state.log_temperature) * cost)


def guess(settings: Settings, state: Any, observation: Any, key: Any) -> Choice:
    """Drawn uniformly from all actions that the prior allows; what they are worth is that of this uniform policy."""
    task, prior = settings.task, settings.prior
    if task.num_actions:
        log_prior = discrete_log_prior(prior, task, observation)
        allowed = log_prior > -jnp.inf
        action = jax.random.categorical(key, jnp.where(allowed, 0.0, -jnp.inf)).astype(jnp.int32)
        chosen = jnp.take_along_axis(log_prior, action[:, None], axis=1)[:, 0]
        cost = -jnp.log(allowed.sum(axis=1)) - chosen
    else:
        unit = jax.random.uniform(key, (observation.shape[0], task.action_size), minval=-1.0)
        cost = -task.action_size * np.log(2) - box_log_prior(prior, task, observation, unit, settings.entropy_units)
        action = task.to_box(unit)
    return Choice(action, -jnp.exp(state.log_temperature) * cost)
