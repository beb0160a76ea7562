"""Where every key of JAX comes from: the seed, a purpose and a number. Nothing about them need be remembered."""

from typing import Any, NamedTuple

import jax

NETWORKS, STEPS, BEGIN, PREDICT, EVALUATE = range(5)


class Keys(NamedTuple):
    """Of one step. No two are equal, and none is made from another."""

    update: Any
    action: Any
    guess: Any  # the action, where it is drawn at random
    move: Any  # the environment's
    reset: Any
    sample: Any  # of the replay buffer


def key_for(seed: Any, purpose: int, number: Any = 0) -> Any:
    """The key of one purpose (NETWORKS, …); `number` counts those of its kind."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), number)


def keys_of(seed: Any, step: Any) -> Keys:
    """The keys that belong to a step.

    >>> keys = keys_of(0, 7)
    >>> len({tuple(jax.random.key_data(key).tolist()) for key in keys})
    6
    """
    return Keys(*jax.random.split(key_for(seed, STEPS, step), len(Keys._fields)))
