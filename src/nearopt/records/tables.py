"""Tables with a row per step: their columns, and what is said about rows that cannot be used."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nearopt.mdp.errors import ColumnError, MissingColumnError, NearoptError
from nearopt.records.cells import Column


class DroppedRowsWarning(UserWarning):
    """Rows of a table that were left out: `count` of them, the first at `rows` (lines of a file)."""

    def __init__(self, message: str, count: int, rows: tuple[int, ...]):
        super().__init__(message, count, rows)
        self.count, self.rows = count, rows

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Names:
    """The columns that hold each part of a row."""

    episode: str
    time: str
    state: str
    action: str
    subject: str | None = None

    def check(self, known: Iterable[Any], source: str) -> dict[str, str]:
        """Part → column, all of which are among `known`."""
        wanted = {part: name for part, name in asdict(self).items() if name is not None}
        known = list(known)
        for part, name in wanted.items():
            if known.count(name) != 1:
                problem = f"{source}: there is no column {name!r} among {', '.join(map(repr, known)) or 'none'}"
                if name in known:
                    raise ColumnError(f"{source}: {known.count(name)} columns are called {name!r}", "rename one")
                if len(known) == 1 and (mark := next((m for m in (";", "\t", "|") if m in str(known[0])), "")):
                    raise MissingColumnError(problem, f"separate the columns by commas, not by {mark!r}")
                raise MissingColumnError(problem, f'say which column holds it, {part}="..."')
        return wanted


class Fault(NamedTuple):
    """Rows that cannot be used for the same reason."""

    rows: np.ndarray  # bool, one per row of the table
    error: type[NearoptError]
    describe: Callable[[int], tuple[str, str]]  # the problem and the mend of a row


@dataclass(frozen=True)
class Table:
    """Columns as they were read, by part."""

    source: str
    names: Names
    columns: dict[str, Column]
    line: np.ndarray | None = None  # (rows,) where each row stands in the file; rows are counted from 0 without
    ragged: Fault | None = None

    def where(self, row: int) -> str:
        return f"row {row}" if self.line is None else f"line {self.line[row]}"

    def refuse(self, faults: list[Fault], total: int) -> NearoptError:
        """The error of the first row at fault."""
        first = min(faults, key=lambda fault: int(np.argmax(fault.rows)))
        row = int(np.argmax(first.rows))
        problem, mend = first.describe(row)
        others = f", and {total - 1:,} more row{'s' * (total > 2)} cannot be used" if total > 1 else ""
        return first.error(f"{self.source}: {self.where(row)}: {problem}{others}", f'{mend}, or pass invalid="drop"')

    def warn(self, faults: list[Fault], bad: np.ndarray) -> None:
        """Says which rows are dropped, and why."""
        rows = np.flatnonzero(bad)
        reasons = []
        for row in rows[:3].tolist():
            fault = next(fault for fault in faults if fault.rows[row])
            reasons.append(f"{self.where(row)}: {fault.describe(row)[0]}")
        text = f"{self.source}: {len(rows):,} of {len(bad):,} rows dropped ({'; '.join(reasons)}"
        lines = rows[:10] if self.line is None else self.line[rows[:10]]
        warning = DroppedRowsWarning(text + ("; ...)" if len(rows) > 3 else ")"), len(rows), tuple(lines.tolist()))
        warnings.warn(warning, skip_file_prefixes=(str(Path(__file__).parents[1]),))


def frame_columns(frame: Any, names: Names, source: str) -> dict[str, Column]:
    """Part → values. Frames name their columns in four ways."""
    known = getattr(frame, "column_names", None)  # Arrow, whose `columns` are arrays
    known = getattr(frame, "columns", None) if known is None else known
    known = getattr(getattr(frame, "dtype", None), "names", None) if known is None else known
    known = frame.keys() if known is None and hasattr(frame, "keys") else known
    if known is None:
        mend = "give a table with named columns, or read a file with from_csv or from_parquet"
        raise ColumnError(f"{source} is a {type(frame).__name__}", mend)
    out, rows = {}, None
    for part, name in names.check(known, source).items():
        column = as_array(frame[name])
        if column.ndim != 1:
            raise ColumnError(f"{source}: column {name!r} has shape {column.shape}", "give one value per row")
        rows = len(column) if rows is None else rows
        if len(column) != rows:
            raise ColumnError(f"{source}: column {name!r} has {len(column)} rows, others {rows}", "give rows alike")
        out[part] = Column.of(column, f"{source}: column {name!r}")
    return out


def as_array(column: Any) -> np.ndarray:
    """A column as NumPy has it. Lists may mix numbers, text and tuples; NumPy would make them alike."""
    if isinstance(column, Sequence) and not isinstance(column, str | bytes):
        return np.fromiter(column, object, len(column))
    if isinstance(column, np.ma.MaskedArray):
        values = np.ma.getdata(column).astype(object)
        values[np.ma.getmaskarray(column)] = None
        return values
    return np.asarray(column)
