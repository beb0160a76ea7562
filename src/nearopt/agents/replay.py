"""The replay buffer: transitions as columns in a ring, float32, one copy of everything.

Transitions are numbered from 0 in order of arrival; number i lies in slot i mod capacity. Each knows the slot of the
one that followed it in its stream: windows of several steps cross neither an episode's end nor the newest transition.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from nearopt.agents.errors import SettingError
from nearopt.agents.settings import Settings
from nearopt.agents.task import Task


class Later(NamedTuple):
    """Steps 2 to n of windows of n steps. Where `on` is false the window has ended, and the rest means nothing."""

    observation: Any  # (batch, steps, size)
    action: Any
    reward: Any  # (batch, steps)
    on: Any


class Batch(NamedTuple):
    """Transitions to learn from, NumPy's or JAX's. Of windows the last one's `next_observation` and `terminated`."""

    observation: Any  # (batch, size)
    action: Any  # (batch, A) float32, or (batch,) int32
    reward: Any  # (batch,)
    next_observation: Any  # (batch, size)
    terminated: Any  # (batch,) float32
    later: Later | None = None
    back: Any = None  # (batch,) int32, of all that a policy did: the stream's previous row is so many above, 0: none


class Transitions(NamedTuple):
    """The contents of a buffer, oldest first. Actions are in the environment's units."""

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    terminated: np.ndarray


def columns(task: Task) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name → shape of a row, dtype. `ended`: terminated or truncated; `back`: the stream's previous one is so many
    numbers ago, 0: there is none."""
    action = ((), np.dtype(np.int32)) if task.num_actions else ((task.action_size,), np.dtype(np.float32))
    seen = ((task.observation_size,), np.dtype(np.float32))
    flag = ((), np.dtype(bool))
    return dict(
        observation=seen,
        action=action,
        reward=((), np.dtype(np.float32)),
        next_observation=seen,
        terminated=flag,
        ended=flag,
        back=((), np.dtype(np.int32)),
    )


def batch_shape(settings: Settings, size: tuple[int, ...]) -> Batch:
    """The shapes and types of a batch, or of several: `size` is (..., batch)."""
    form = lambda *lead: {n: jax.ShapeDtypeStruct((*lead, *s), t) for n, (s, t) in columns(settings.task).items()}
    rows, wide = form(*size), form(*size, settings.window - 1)
    later = Later(wide["observation"], wide["action"], wide["reward"], wide["ended"]) if settings.window > 1 else None
    terminated, back = rows["reward"], rows["back"] if settings.on_policy else None
    return Batch(rows["observation"], rows["action"], rows["reward"], rows["next_observation"], terminated, later, back)


def in_order(rows: Mapping[str, Any]) -> Batch:
    """Columns in order of arrival as a batch."""
    before, after = (rows[name] for name in ("observation", "next_observation"))
    terminated = rows["terminated"].astype(np.float32)
    return Batch(before, rows["action"], rows["reward"], after, terminated, None, rows["back"])


class Replay:
    """A ring of the newest `capacity` transitions. Memory is asked for with the first one, and taken as it fills.

    Raises: `SettingError` then, where there is not as much.

    >>> replay = Replay(Task(1, num_actions=2), capacity=2)
    >>> for t in range(3):
    ...     replay.add([[t]], [0], [1.0], [[t + 1]], [False], [False])
    >>> replay.contents().observation.ravel().tolist()
    [1.0, 2.0]
    """

    def __init__(self, task: Task, capacity: int):
        self.task, self.capacity, self.inserted = task, capacity, 0
        self.newest: dict[int, int] = {}  # stream → number of its newest transition

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The columns, (capacity, ...)."""
        form = columns(self.task)
        try:
            return {name: np.zeros((self.capacity, *shape), dtype) for name, (shape, dtype) in form.items()}
        except (MemoryError, ValueError):
            size = self.capacity * sum(math.prod(shape) * dtype.itemsize for shape, dtype in form.values())
            problem = f"buffer_size={self.capacity} needs {size / 2**30:,.0f} GiB, more than there is"
            raise SettingError(problem, "make it smaller") from None

    @cached_property
    def following(self) -> np.ndarray:
        """The slot of the stream's next transition, plus 1; 0: none."""
        return np.zeros(self.capacity, np.int32)

    def __len__(self) -> int:
        return min(self.inserted, self.capacity)

    @property
    def oldest(self) -> int:
        """The number of the oldest transition that is still here."""
        return max(0, self.inserted - self.capacity)

    def add(self, observation, action, reward, next_observation, terminated, truncated, real=None) -> None:
        """One transition of every stream; those that are not `real` are left out."""
        for stream in range(len(reward)):
            if real is not None and not real[stream]:
                continue
            slot = self.inserted % self.capacity
            before = self.newest.get(stream, -1)
            kept = before >= 0 and self.inserted - before < self.capacity
            back = self.inserted - before if kept and not self.rows["ended"][before % self.capacity] else 0
            rows = self.rows
            rows["observation"][slot] = observation[stream]
            rows["action"][slot] = action[stream]
            rows["reward"][slot] = reward[stream]
            rows["next_observation"][slot] = next_observation[stream]
            rows["terminated"][slot] = terminated[stream]
            rows["ended"][slot] = terminated[stream] or truncated[stream]
            rows["back"][slot] = back
            self.following[slot] = 0
            if back:
                self.following[before % self.capacity] = slot + 1
            self.newest[stream] = self.inserted
            self.inserted += 1

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...], n_steps: int = 1) -> Batch:
        """`size` transitions, or windows of up to `n_steps`, uniformly with replacement; `size` may be a shape."""
        slots = rng.integers(len(self), size=size)
        rows = self.rows
        last, later = slots, None
        if n_steps > 1:
            followers, on = [], []
            for _ in range(n_steps - 1):
                next_slot = self.following[last] - 1
                on.append(next_slot >= 0)
                last = np.where(on[-1], next_slot, last)
                followers.append(last)
            at, inside = np.stack(followers, axis=-1), np.logical_and.accumulate(np.stack(on, axis=-1), axis=-1)
            later = Later(rows["observation"][at], rows["action"][at], rows["reward"][at], inside)
        return Batch(
            rows["observation"].take(slots, axis=0),
            rows["action"].take(slots, axis=0),
            rows["reward"].take(slots),
            rows["next_observation"].take(last, axis=0),
            rows["terminated"].take(last).astype(np.float32),
            later,
        )

    def everything(self) -> Batch:
        """All that is here, oldest first."""
        return in_order(self.since(self.oldest))

    def since(self, first: int) -> dict[str, np.ndarray]:
        """The columns of transitions number `first`, first + 1, …: what a checkpoint adds to those before."""
        slots = np.arange(first, self.inserted) % self.capacity
        return {name: column[slots] for name, column in self.rows.items()}

    def contents(self) -> Transitions:
        rows = self.since(self.oldest)
        return Transitions(*(rows[name] for name in Transitions._fields))

    def extend(self, rows: Mapping[str, np.ndarray], first: int) -> None:
        """The columns of transitions number `first`, first + 1, … of a single stream."""
        slots = np.arange(first, first + len(rows["reward"])) % self.capacity
        for name, column in self.rows.items():
            column[slots] = rows[name]
        self.inserted = first + len(slots)

    def restore(self, rows: Mapping[str, np.ndarray], first: int, newest: Mapping[int, int]) -> None:
        """Back to what `since(first)` gave, when the streams' newest transitions had these numbers.

        Raises: `ValueError` for columns that are not this buffer's, or more rows than it holds.
        """
        size = len(rows["reward"]) if rows else 0
        if size > self.capacity or any(type(number) is not int for pair in newest.items() for number in pair):
            raise ValueError(f"{size} rows in a buffer of {self.capacity}, newest {newest!r:.60}")
        if rows and {name: (x.shape[1:], x.dtype) for name, x in rows.items()} != columns(self.task):
            raise ValueError("the columns of the replay buffer are not this agent's")
        if not all(0 <= number < first + size for number in newest.values()):
            raise ValueError(f"newest is {newest!r:.60}")
        self.inserted, self.newest = first + size, dict(newest)
        if not rows:
            return
        numbers = np.arange(first, first + size)
        slots = numbers % self.capacity
        for name, column in self.rows.items():
            column[slots] = rows[name]
        follows = (rows["back"] > 0) & (numbers - rows["back"] >= first)
        self.following[slots] = 0
        self.following[(numbers - rows["back"])[follows] % self.capacity] = slots[follows] + 1
