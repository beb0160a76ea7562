"""What an agent sees and does: any fixed-size observation as float32 numbers, and a Box or Discrete action."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from nearopt.environments.errors import (
    ActionBoundsError,
    ActionSpaceError,
    ObservationError,
    ObservationSpaceError,
    SpaceDataError,
)

MOST_NUMBERS = 2**26  # of one observation or action described in a file: more is no description but an attack


@dataclass(frozen=True)
class Spaces:
    """The spaces of one environment (of a vector of them: the single ones).

    Raises: `ActionSpaceError`, `ActionBoundsError`, `ObservationSpaceError`.

    >>> spaces = Spaces(Discrete(3), Box(-2.0, 2.0, (1,)))
    >>> spaces.observation_size, spaces.flatten(2), spaces.flatten([2, 0]).shape
    (3, array([0., 0., 1.], dtype=float32), (2, 3))
    """

    observation: Space
    action: Space

    def __post_init__(self) -> None:
        check_observation(self.observation)
        if not isinstance(self.action, Discrete):
            check_action(self.action)

    # ------------------------------------------------------------ observations
    @cached_property
    def observation_size(self) -> int:
        return gymnasium.spaces.flatdim(self.observation)

    @cached_property
    def flat(self) -> bool:
        """Whether an observation is a vector already."""
        return isinstance(self.observation, Box) and len(self.observation.shape) == 1

    def flatten(self, observation: Any) -> np.ndarray:
        """One observation → (size,) float32, a batch of n → (n, size); always a new array.

        A Box is ravelled, Discrete and MultiDiscrete become one-hot, parts of Tuple and Dict stand side by side, as in
        `gymnasium.spaces.flatten`. A batch is what Gymnasium's vector environments make of it.

        Raises: `ObservationError`.
        """
        try:
            out = np.array(observation, np.float32) if self.flat else flatten(self.observation, observation)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise self.foreign(f"{observation!r:.200} ({error})") from None
        if out.shape[-1:] != (self.observation_size,) or out.ndim > 2:
            raise self.foreign(f"an array of shape {np.shape(observation)}")
        return out

    def foreign(self, what: str) -> ObservationError:
        return ObservationError(f"{what} is no observation of {self.observation}", "give one of them, or a batch")

    # ------------------------------------------------------------ actions
    @cached_property
    def discrete(self) -> bool:
        return isinstance(self.action, Discrete)

    @cached_property
    def first_action(self) -> int:
        """Of Discrete: the environment's number of the agents' action 0."""
        assert isinstance(self.action, Discrete), "only Discrete actions are numbered"
        return int(self.action.start)

    @property
    def num_actions(self) -> int:
        """Of Discrete: the actions are 0 .. num_actions − 1, whatever number the space starts at."""
        assert isinstance(self.action, Discrete), "only Discrete actions can be counted"
        return int(self.action.n)

    def allows(self, actions: np.ndarray) -> bool:
        """Whether these are actions as agents choose them: (n, A) within the bounds, or (n,) numbers from 0."""
        low, high = (0, self.num_actions - 1) if self.discrete else (self.low, self.high)
        return bool(((actions >= low) & (actions <= high)).all())

    @property
    def action_size(self) -> int:
        """Of a Box: A, the numbers in one action."""
        assert isinstance(self.action, Box), "only Box actions have a size"
        return self.action.shape[0]

    @cached_property
    def low(self) -> np.ndarray:
        """(A,) float32, of a Box; never below its own bound."""
        assert isinstance(self.action, Box), "only Box actions have bounds"
        low = self.action.low.astype(np.float32)
        return np.where(low < self.action.low, np.nextafter(low, np.float32(np.inf)), low)

    @cached_property
    def high(self) -> np.ndarray:
        """(A,) float32, of a Box; never above its own bound."""
        assert isinstance(self.action, Box), "only Box actions have bounds"
        high = self.action.high.astype(np.float32)
        return np.where(high > self.action.high, np.nextafter(high, np.float32(-np.inf)), high)

    # ------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        """Plain data for a file; observations other than Box and Discrete are described by the Box they flatten to."""
        plain = isinstance(self.observation, Box | Discrete)
        observation = self.observation if plain else gymnasium.spaces.flatten_space(self.observation)
        return {"observation": space_to_json(observation), "action": space_to_json(self.action)}

    @staticmethod
    def from_json(data: Any) -> "Spaces":
        """What `to_json` wrote. Raises: `SpaceDataError`, and as the constructor."""
        if not isinstance(data, Mapping) or set(data) != {"observation", "action"}:
            raise SpaceDataError(f"spaces are described by {data!r:.200}", "give an observation and an action")
        return Spaces(space_from_json(data["observation"]), space_from_json(data["action"]))


# ---------------------------------------------------------------- flattening
def flatten(space: Space, x: Any) -> np.ndarray:
    """float32; leading axes of a batch stay."""
    if isinstance(space, Tuple):
        return np.concatenate([flatten(part, y) for part, y in zip(space.spaces, x, strict=True)], axis=-1)
    if isinstance(space, Dict):
        return np.concatenate([flatten(part, x[name]) for name, part in space.spaces.items()], axis=-1)
    if isinstance(space, Discrete):
        return one_hot(np.asarray(x) - int(space.start), int(space.n))
    assert space.shape is not None
    array = np.asarray(x)
    lead = array.shape[: array.ndim - len(space.shape)]
    if array.shape != lead + space.shape:
        raise ValueError(f"its shape is {array.shape}")
    array = array.reshape(*lead, math.prod(space.shape))
    if isinstance(space, MultiDiscrete):
        numbers = zip(np.moveaxis(array - space.start.ravel(), -1, 0), space.nvec.ravel(), strict=True)
        return np.concatenate([one_hot(number, int(n)) for number, n in numbers], axis=-1)
    return array.astype(np.float32)


def one_hot(number: np.ndarray, n: int) -> np.ndarray:
    if number.dtype.kind not in "iu" or (number < 0).any() or (number >= n).any():
        raise ValueError(f"no whole number below {n}")
    out = np.zeros((*number.shape, n), np.float32)
    np.put_along_axis(out, number[..., None].astype(np.intp), 1.0, axis=-1)
    return out


# ---------------------------------------------------------------- checks
def check_observation(space: Any) -> None:
    parts = space.spaces if isinstance(space, Tuple) else list(space.spaces.values()) if isinstance(space, Dict) else ()
    for part in parts:
        check_observation(part)
    if not isinstance(space, Box | Discrete | MultiBinary | MultiDiscrete | Tuple | Dict):
        raise ObservationSpaceError(
            f"observations of {space} have no fixed number of numbers",
            "wrap it in gymnasium.wrappers.TransformObservation, which may turn them into a Box",
        )
    if gymnasium.spaces.flatdim(space) == 0:
        raise ObservationSpaceError(f"observations of {space} hold nothing", "observe at least a constant")


def check_action(space: Any) -> None:
    if not isinstance(space, Box) or len(space.shape) != 1 or space.shape == (0,) or space.dtype.kind != "f":
        raise ActionSpaceError(
            f"the action space is {space}, and agents choose from Discrete or from a Box of floats with one axis",
            "wrap it in gymnasium.wrappers.TransformAction, which may offer another one",
        )
    for i, (low, high) in enumerate(zip(space.low.tolist(), space.high.tolist(), strict=True)):
        if not 0 < np.float32(high) - np.float32(low) < np.inf:
            raise ActionBoundsError(
                f"action {i} ranges from {low} to {high}",
                "give it a finite range with gymnasium.wrappers.TransformAction(env, lambda action: action, "
                "Box(low, high)), and leave out ClipAction, which takes the bounds away",
            )


# ---------------------------------------------------------------- plain data
def space_to_json(space: Space) -> dict[str, Any]:
    if isinstance(space, Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    assert isinstance(space, Box)
    low, high = bound_to_json(space.low), bound_to_json(space.high)
    return {"kind": "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": space.dtype.name}


def bound_to_json(bound: np.ndarray) -> Any:
    """A number where all are equal, otherwise a list; infinities, for which JSON has no number, as text."""
    numbers = [x if math.isfinite(x) else str(x) for x in bound.ravel().tolist()]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def space_from_json(data: Any) -> Space:
    try:
        match data:
            case {"kind": "Discrete", "n": int(n), "start": int(start)} if len(data) == 3 and n <= MOST_NUMBERS:
                return Discrete(n, start=start)
            case {"kind": "Box", "low": low, "high": high, "shape": list(shape), "dtype": str(dtype)} if len(data) == 5:
                return box_from_json(low, high, shape, np.dtype(dtype))
    except (TypeError, ValueError, OverflowError):
        pass
    raise SpaceDataError(f"{data!r:.200} describes no Box and no Discrete", "use what Spaces.to_json returns")


def box_from_json(low: Any, high: Any, shape: list[Any], dtype: np.dtype) -> Box:
    if not all(isinstance(n, int) and 0 <= n <= MOST_NUMBERS for n in shape) or math.prod(shape) > MOST_NUMBERS:
        raise ValueError("no shape")
    if dtype.kind not in "biuf":
        raise ValueError("no numbers")
    bounds = [bound_from_json(bound, tuple(shape), dtype) for bound in (low, high)]
    return Box(bounds[0], bounds[1], dtype=dtype.type)


def bound_from_json(bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if isinstance(bound, list):
        return np.array([float(x) if x in ("inf", "-inf") else x for x in bound], dtype).reshape(shape)
    return np.full(shape, np.array(float(bound) if bound in ("inf", "-inf") else bound, dtype))
