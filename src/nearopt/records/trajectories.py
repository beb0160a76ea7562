"""Recorded or sampled behaviour: who was where, and did what, at each step."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from nearopt.mdp.errors import TrajectoryShapeError
from nearopt.mdp.validate import real_array
from nearopt.records.labels import as_labels

if TYPE_CHECKING:
    from os import PathLike

    from nearopt.mdp.model import MDP
    from nearopt.records.validity import Misfits


@dataclass(frozen=True, eq=False)
class Trajectories:
    """n trajectories of up to L decisions; −1 is what was not recorded.

    state (n, L+1): the state before each decision, then the state after the last one. action (n, L): the action of each
    decision. Both are −1 behind the end of a trajectory, and in gaps: a state may be known without its action, and an
    action without its state. subject, episode (n,): labels, numbers or text. line (n, L+1): the line of the file that
    each step was read from, −1 where there is none. The last three may be None.

    `trajectories[rows]` picks some of them, so that scikit-learn can split them; `shape` is (n, L). Two are equal where
    their tables are, `columns`: lines do not count, and episodes without labels are numbered 0, 1, ...

    Raises: `TrajectoryShapeError` for shapes that do not fit together.
    """

    state: np.ndarray
    action: np.ndarray
    subject: np.ndarray | None = None
    episode: np.ndarray | None = None
    line: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("state", "action"):
            object.__setattr__(self, name, real_array(getattr(self, name), name, np.int64))
        n = len(self.state) if self.state.ndim else 0
        if self.state.ndim != 2 or self.action.shape != (n, self.state.shape[1] - 1):
            raise TrajectoryShapeError(
                f"state has shape {self.state.shape} and action {self.action.shape}", "give (n, L+1) and (n, L)"
            )
        for name, shape in (("subject", (n,)), ("episode", (n,)), ("line", self.state.shape)):
            value = getattr(self, name)
            if value is None:
                continue
            value = real_array(value, name, np.int64) if name == "line" else as_labels(value, name)
            if value.shape != shape:
                raise TrajectoryShapeError(f"{name} has shape {value.shape}, state {self.state.shape}", f"give {shape}")
            object.__setattr__(self, name, value)
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                value.flags.writeable = False

    # ------------------------------------------------------------ builders
    @staticmethod
    def from_arrays(state: Any, action: Any) -> "Trajectories":
        """From state (n, L) or (n, L+1) and action (n, L), or one trajectory of each, or lists of unequal lengths.

        −1 fills up; a trajectory may end with a state (the last one reached) or with an action (where it led was not
        recorded). Raises `TrajectoryShapeError` where states and actions do not alternate: for gaps use a table, or the
        constructor.

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
        out = Trajectories(widen(states, length + 1), widen(actions, length))
        if gap := out.first_gap():
            raise TrajectoryShapeError(gap, "fill up with -1 behind the end only, and leave empty trajectories out")
        return out

    @staticmethod
    def from_frame(
        frame: Any,
        *,
        episode: str = "episode",
        time: str = "t",
        state: str = "state",
        action: str = "action",
        subject: str | None = None,
        mdp: "MDP | None" = None,
        invalid: str = "refuse",
    ) -> "Trajectories":
        """From a table with one row per step: pandas, polars, an Arrow table, a dict of arrays, a structured array.

        The names are those of its columns. `time` counts decisions in whole numbers: the smallest time of the table is
        decision 0, a missing time is a missing step, and within an episode times increase from row to row (rows of
        other episodes may lie between them). The same label under two subjects is two episodes. An empty, NaN or "NA"
        state or action was not recorded; the last row of an episode may hold the state it reached and no action.

        States and actions are numbers from 0. With `mdp` they are looked up among its `state_names` and `action_names`
        first, as they are or as text; whole numbers that are no names are then numbers, unless some names are whole
        numbers too. That the model could have produced the rows is the question of `check` and `misfits`.

        invalid: "refuse" raises at the first row that cannot be used, "drop" leaves such rows out and warns
        (`nearopt.records.tables.DroppedRowsWarning`). Either refuses a table of which nothing is left.

        Raises: `MissingColumnError`, `ColumnError`, `EmptyRecordsError`, `LabelError`, `RecordedTimeError`,
        `RecordedNumberError`, `TimeSpanError` (times that do not count decisions), `ArgumentError`.

        >>> import nearopt as no
        >>> rows = {"episode": [1, 1, 2, 2], "t": [0, 1, 0, 2], "state": [0, 1, 0, 2], "action": [1, None, 0, 1]}
        >>> recorded = no.Trajectories.from_frame(rows)
        >>> recorded.action
        array([[ 1, -1, -1],
               [ 0, -1,  1]])
        >>> recorded.num_decisions
        3
        """
        from nearopt.records.assembly import read_frame
        from nearopt.records.tables import Names

        return read_frame(frame, Names(episode, time, state, action, subject), mdp, invalid)

    @staticmethod
    def from_csv(
        path: "str | PathLike[str]",
        *,
        episode: str = "episode",
        time: str = "t",
        state: str = "state",
        action: str = "action",
        subject: str | None = None,
        mdp: "MDP | None" = None,
        invalid: str = "refuse",
    ) -> "Trajectories":
        """From a CSV file: UTF-8, commas, a header; the rules of `from_frame`. Every message names the line.

        Raises, beside the errors of `from_frame`: `MissingFileError`, `FileAccessError`, `ParseError`.
        """
        from nearopt.records.files import read_csv
        from nearopt.records.tables import Names

        return read_csv(path, Names(episode, time, state, action, subject), mdp, invalid)

    @staticmethod
    def from_parquet(
        path: "str | PathLike[str]",
        *,
        episode: str = "episode",
        time: str = "t",
        state: str = "state",
        action: str = "action",
        subject: str | None = None,
        mdp: "MDP | None" = None,
        invalid: str = "refuse",
    ) -> "Trajectories":
        """From a Parquet file, by the rules of `from_frame`; needs `pip install "nearopt[parquet]"`.

        Raises, beside the errors of `from_frame`: `MissingExtraError`, `MissingFileError`, `FileAccessError`,
        `CorruptFileError`.
        """
        from nearopt.records.files import read_parquet
        from nearopt.records.tables import Names

        return read_parquet(path, Names(episode, time, state, action, subject), mdp, invalid)

    @staticmethod
    def from_minari(dataset: Any) -> "Trajectories":
        """From a Minari dataset of discrete observations and actions, or the id of a local one.

        Numbers count from the start of their space; episodes are labelled by their ids. Needs
        `pip install "nearopt[minari]"`.

        Raises: `MissingExtraError`, `MissingFileError` (no such local dataset), `DatasetError`, `EmptyRecordsError`.
        """
        from nearopt.records.minari import read_minari

        return read_minari(dataset)

    @staticmethod
    def concatenate(parts: "Iterable[Trajectories]") -> "Trajectories":
        """One after the other, filled up to the longest. Subjects, episodes and lines are kept where all have them.

        >>> import nearopt as no
        >>> one = no.Trajectories.from_arrays([0, 1, 2], [1, 1])
        >>> no.Trajectories.concatenate([one, one[:1]]).shape
        (2, 2)
        """
        parts = list(parts)
        if not parts or not all(isinstance(part, Trajectories) for part in parts):
            kinds = ", ".join(sorted({type(part).__name__ for part in parts})) or "nothing"
            raise TrajectoryShapeError(f"what is to be joined is {kinds}", "give at least one Trajectories, no others")
        width = max(part.shape[1] for part in parts)
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Trajectories)}
        wide = {"state": width + 1, "action": width, "line": width + 1}
        return Trajectories(
            **{
                name: np.concatenate([widen(v, wide[name]) if name in wide else v for v in values])
                for name, values in columns.items()
                if all(v is not None for v in values)
            }
        )

    # ------------------------------------------------------------ out
    def columns(self) -> dict[str, np.ndarray]:
        """The table: 1-D arrays `subject` (if there are any), `episode`, `t`, `state` and `action`, a row per step.

        Numbers are int64; a column in which some were not recorded is float64, with NaN there. `from_frame` reads it
        back. Raises `LabelError` where two trajectories bear the same label.
        """
        from nearopt.records.columns import to_columns

        return to_columns(self)

    def to_csv(self, path: "str | PathLike[str]") -> None:
        """Writes `columns` as a CSV file, whole or not at all; `from_csv` reads it back.

        Raises: `LabelError` as `columns` does, `MissingFileError` (no such folder), `FileAccessError`.
        """
        from nearopt.records.files import write_csv

        write_csv(self, path)

    def to_minari(self, mdp: "MDP", dataset_id: str, **metadata: Any) -> Any:
        """Writes a local Minari dataset and returns it: `trajectories.to_minari(mdp, "maze/mice-v0", author="me")`.

        Observations are state numbers and rewards those of `mdp`; an episode is terminated where its last state is
        terminal, and truncated otherwise. metadata: keywords of `minari.create_dataset_from_buffers`. Labels are not
        kept.

        Raises: `MissingExtraError`, `GapError` (Minari knows none: the last state counts), `MisfitError`,
        `AmbiguousRewardError`, `DatasetError`.
        """
        from nearopt.records.minari import write_minari

        return write_minari(self, mdp, dataset_id, metadata)

    # ------------------------------------------------------------ against a model
    def misfits(self, mdp: "MDP") -> "Misfits":
        """Every recorded step that the model cannot have produced; `initial` is not asked. See `Misfits`."""
        from nearopt.records.validity import find_misfits

        return find_misfits(mdp, self)

    def check(self, mdp: "MDP") -> None:
        """Raises `MisfitError` where the model cannot have produced what was recorded, with the first such step."""
        from nearopt.records.validity import check

        check(mdp, self)

    def without(self, misfits: "Misfits") -> "Trajectories":
        """The decisions at fault become gaps: their actions −1, and states that the model does not have."""
        from nearopt.records.validity import without

        return without(self, misfits)

    # ------------------------------------------------------------ as a sequence
    @property
    def shape(self) -> tuple[int, int]:
        """(n, L)."""
        return len(self.state), self.action.shape[1]

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, key: Any) -> "Trajectories":
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:  # scikit-learn asks for X[rows, ...]
            key = key[0]
        rows = np.atleast_1d(np.arange(len(self))[key])
        if rows.ndim > 1:
            raise IndexError("trajectories have one index: give a number, a slice, an array of numbers or a mask")
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return Trajectories(**{name: value[rows] for name, value in values.items() if value is not None})

    def __iter__(self) -> "Iterator[Trajectories]":
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trajectories):
            return NotImplemented
        same = lambda name: np.array_equal(getattr(self, name), getattr(other, name))
        return same("state") and same("action") and all(map(np.array_equal, labels(self), labels(other)))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Trajectories, tuple(getattr(self, f.name) for f in fields(self))  # NumPy forgets read-only

    def __repr__(self) -> str:
        return f"Trajectories({len(self):,} of up to {self.action.shape[1]:,} decisions)"

    # ------------------------------------------------------------ what follows
    @property
    def length(self) -> np.ndarray:
        """(n,) number of decisions up to the last recorded action, gaps included."""
        return np.where(self.action != -1, np.arange(1, self.shape[1] + 1), 0).max(axis=1, initial=0)

    @property
    def num_decisions(self) -> int:
        """Number of decisions of which both state and action were recorded."""
        return int(((self.state[:, :-1] != -1) & (self.action != -1)).sum())

    @property
    def complete(self) -> np.ndarray:
        """(n,) bool: recorded from decision 0 to the end without a gap."""
        out = np.ones(len(self), bool)
        for mask, _ in self.gaps():
            out &= ~mask.any(axis=1)
        return out

    def gaps(self) -> Iterator[tuple[np.ndarray, str]]:
        """For each kind of gap, a mask (n, steps) of where it is and what it is called."""
        acts, seen = self.action != -1, self.state != -1
        yield acts[:, 1:] & ~acts[:, :-1], "acts again after a gap"
        yield acts & ~seen[:, :-1], "acts in no recorded state"
        yield seen[:, 1:] & ~acts, "has a state after its end"
        yield ~seen[:, :1], "has no state"

    def first_gap(self) -> str | None:
        """The first gap in words, or None."""
        for mask, what in self.gaps():
            if mask.any():
                i, t = np.argwhere(mask)[0].tolist()
                return f"trajectory {i} {what} at step {t}"
        return None


def labels(trajectories: Trajectories) -> tuple[Any, np.ndarray]:
    """Subjects, if there are any, and episodes, numbered where they have no labels."""
    episode = trajectories.episode
    return trajectories.subject, np.arange(len(trajectories)) if episode is None else episode


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
