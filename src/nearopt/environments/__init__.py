"""Environments: Gymnasium's as streams of experience, and a few in JAX, registered as `nearopt/...`.

Importing this package registers them, and imports no JAX: `gymnasium.make("nearopt.environments:nearopt/Pendulum-v0")`.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium

from nearopt.environments.errors import EnvironmentArgumentError

if TYPE_CHECKING:
    from nearopt.environments.environment import Environment

# id: (module of this package, class of the environment in JAX, steps until an episode is truncated)
TABLE = {
    "nearopt/Pendulum-v0": ("pendulum", "Pendulum", 200),
    "nearopt/MultiGoal-v0": ("multigoal", "MultiGoal", 30),
    "nearopt/TwoCorridors-v0": ("corridors", "TwoCorridors", 60),
}


def register() -> None:
    """Makes Gymnasium know the ids of `TABLE`; a second call changes nothing."""
    for id, (_, _, steps) in TABLE.items():
        if id not in gymnasium.registry:
            gymnasium.register(id, "nearopt.environments.adapter:make", max_episode_steps=steps, kwargs={"id": id})


def functional(id: str, kwargs: Mapping[str, Any] | None = None) -> "Environment | None":
    """The environment in JAX behind an id of `TABLE`; None for any other id. Raises: `EnvironmentArgumentError`."""
    if id not in TABLE:
        return None
    module, name, _ = TABLE[id]
    kind = getattr(importlib.import_module(f"nearopt.environments.{module}"), name)
    try:
        return kind(**(kwargs or {}))
    except TypeError as error:
        mend = f"give those of nearopt.environments.{module}.{name}"
        raise EnvironmentArgumentError(f"{id} was given {dict(kwargs or {})} ({error})", mend) from None


register()
