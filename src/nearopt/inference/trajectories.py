"""Recorded or sampled behaviour: who was where, and did what, at each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearopt.mdp.errors import TrajectoryShapeError
from nearopt.mdp.validate import real_array


@dataclass(frozen=True, eq=False)
class Trajectories:
    """n trajectories of up to L decisions, filled up with −1.

    state (n, L+1): the state before each decision, then the state after the last one, −1 where it was not recorded.
    action (n, L): the action of each decision, −1 after the last one.
    """

    state: np.ndarray
    action: np.ndarray

    @staticmethod
    def from_arrays(state: Any, action: Any) -> "Trajectories":
        """From state (n, L) or (n, L+1) and action (n, L), or one trajectory of each, or lists of unequal lengths.

        −1 fills up; a trajectory may end with a state (the last one reached) or with an action (where it led was not
        recorded). Raises `TrajectoryShapeError` where states and actions do not alternate.

        >>> import nearopt as no
        >>> no.Trajectories.from_arrays(state=[[0, 1, 2], [0, 1]], action=[[1, 1], [1]]).length
        array([2, 1])
        """
        states, actions = rectangle(state, "state"), rectangle(action, "action")
        if len(states) != len(actions):
            raise TrajectoryShapeError(
                f"{len(states)} rows of states and {len(actions)} rows of actions",
                "give one row of each per trajectory",
            )
        length = max(actions.shape[1], states.shape[1] - 1)
        return Trajectories(widen(states, length + 1), widen(actions, length))

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", real_array(self.state, "state", np.int64))
        object.__setattr__(self, "action", real_array(self.action, "action", np.int64))
        if self.state.ndim != 2 or self.action.shape != (len(self.state), self.state.shape[1] - 1):
            raise TrajectoryShapeError(
                f"state has shape {self.state.shape} and action {self.action.shape}", "give (n, L+1) and (n, L)"
            )
        acts, seen = self.action != -1, self.state != -1
        late = acts[:, 1:] & ~acts[:, :-1]  # an action after a gap
        blind = acts & ~seen[:, :-1]  # an action in no recorded state
        stray = seen[:, 1:] & ~acts  # a state that no action led to
        for mask, what in (
            (late, "acts again after it ended"),
            (blind, "acts in no recorded state"),
            (stray, "has a state after its end"),
        ):
            if mask.any():
                i, t = np.argwhere(mask)[0].tolist()
                raise TrajectoryShapeError(f"trajectory {i} {what} at step {t}", "fill up with -1 behind the end only")
        if not seen[:, 0].all():
            i = int(np.argmin(seen[:, 0]))
            raise TrajectoryShapeError(f"trajectory {i} has no first state", "leave empty trajectories out")
        for array in (self.state, self.action):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.state)

    def __repr__(self) -> str:
        return f"Trajectories({len(self):,} of up to {self.action.shape[1]:,} decisions)"

    @property
    def length(self) -> np.ndarray:
        """(n,) number of decisions."""
        return (self.action != -1).sum(axis=1)


def rectangle(rows: Any, name: str) -> np.ndarray:
    """Rows of unequal length, filled up with −1; a single row stands for one trajectory."""
    if isinstance(rows, Sequence) and len(rows) and isinstance(rows[0], (Sequence, np.ndarray)):
        parts = [real_array(r, name, np.int64).reshape(-1) if len(r) else np.zeros(0, np.int64) for r in rows]
        out = np.full((len(parts), max(map(len, parts))), -1, np.int64)
        for i, part in enumerate(parts):
            out[i, : len(part)] = part
        return out
    array = real_array(rows, name, np.int64) if np.size(rows) else np.zeros(np.shape(rows), np.int64)
    if array.ndim not in (1, 2):
        raise TrajectoryShapeError(f"{name} has shape {array.shape}", "give (n, L), or one trajectory")
    return np.atleast_2d(array)


def widen(array: np.ndarray, width: int) -> np.ndarray:
    return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=-1)
