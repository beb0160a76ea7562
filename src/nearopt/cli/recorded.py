"""What `nearopt fit` reads beside the model: recorded behaviour, what is held out of it, and features."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearopt.mdp.errors import (
    ArgumentError,
    CorruptFileError,
    FeatureError,
    GroupError,
    MissingColumnError,
    NearoptError,
    ParseError,
)
from nearopt.records.files import decode, split
from nearopt.records.labels import label_text
from nearopt.records.tables import DroppedRowsWarning
from nearopt.records.trajectories import Trajectories

if TYPE_CHECKING:
    from nearopt.cli.fit import Options
    from nearopt.mdp.model import MDP

MOST_TOLD = 20  # steps left out that are told one by one


@dataclass(frozen=True, eq=False)
class Recorded:
    """The data in two parts, what was left out of them, in words, and how the second part was chosen."""

    train: Trajectories
    held_out: Trajectories
    dropped: tuple[str, ...]
    num_dropped: int
    how: str


def read_data(options: "Options", mdp: "MDP") -> Recorded:
    """Raises what `Trajectories.from_csv` and `Trajectories.check` raise, and `ArgumentError`, `GroupError`."""
    parquet = options.data.suffix.lower() in (".parquet", ".pq")
    names = {name: getattr(options, name) for name in ("episode", "time", "state", "action", "subject")}
    read = Trajectories.from_parquet if parquet else Trajectories.from_csv
    with in_words_of_the_command(options.data), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DroppedRowsWarning)
        found = read(options.data, **names, mdp=mdp, invalid=options.invalid)
        if options.invalid == "refuse":
            found.check(mdp)
    lost = [w.message for w in caught if isinstance(w.message, DroppedRowsWarning)]
    dropped, count = [str(warning) for warning in lost], sum(warning.count for warning in lost)
    misfits = found.misfits(mdp)
    if len(misfits):
        found = found.without(misfits)
        dropped += misfits.describe(MOST_TOLD).splitlines()
    out, how = hold_out(options, found)
    return Recorded(found[~out], found[out], tuple(dropped), count + len(misfits), how)


@contextmanager
def in_words_of_the_command(path: Path) -> Iterator[None]:
    """The library's advice names its arguments; here they are options. Every message begins with the file."""
    try:
        yield
    except NearoptError as error:
        mend = re.sub(r'(?:or )?pass invalid="drop"', "or pass --invalid drop", error.mend)
        mend = re.sub(r"or drop them: trajectories.without\S*", "or pass --invalid drop", mend)
        mend = re.sub(r'\b(episode|time|state|action|subject)="\.\.\."', r"--\1 COLUMN", mend)
        problem = error.problem if error.problem.startswith(str(path)) else f"{path}: {error.problem}"
        raise type(error)(problem, mend.replace("the subject=", "the subject, --subject COLUMN")) from None


# ---------------------------------------------------------------- held out
def hold_out(options: "Options", found: Trajectories) -> tuple[np.ndarray, str]:
    """(n,) bool, and how it was decided."""
    column, equals, value = options.holdout.partition("=")
    if equals:
        mask = by_column(options, found, column.strip(), value.strip())
        return mask, f"those with {column.strip()} = {value.strip()}"
    try:
        share = float(options.holdout)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        mend = "give COLUMN=VALUE, or a share of the episodes below 1: split=validation, 0.2, or 0 for none"
        raise ArgumentError(f"--holdout is {options.holdout!r}", mend)
    count = min(max(round(share * len(found)), int(share > 0)), len(found))
    if count == len(found):
        raise GroupError(f"{len(found)} episode cannot be split", "pass --holdout 0, or record more")
    mask = np.zeros(len(found), bool)
    mask[np.random.default_rng(options.seed).permutation(len(found))[:count]] = True
    return mask, f"{share:.0%} of the episodes, drawn with seed {options.seed}" if count else "none"


def by_column(options: "Options", found: Trajectories, column: str, value: str) -> np.ndarray:
    """The episodes whose rows have this value. Raises `GroupError` where an episode has several, or none has it."""
    subject, episode, values = read_columns(options.data, [options.subject, options.episode, column])
    held: dict[tuple, set] = {}
    for s, e, v in zip(subject, episode, values, strict=True):
        held.setdefault((label_text(s), label_text(e)), set()).add(label_text(v) or "")
    who = [None] * len(found) if found.subject is None else found.subject.tolist()
    assert found.episode is not None
    mask = np.zeros(len(found), bool)
    for i, key in enumerate(zip(who, found.episode.tolist(), strict=True)):
        mine = held[(label_text(key[0]), label_text(key[1]))]
        if len(mine) > 1:
            several = ", ".join(map(repr, sorted(mine)[:3]))
            problem = f"{options.data}: episode {key[1]} has {column!r} {several}"
            raise GroupError(problem, "hold out whole episodes: give every row of an episode the same value")
        mask[i] = mine == {value}
    if not mask.any() or mask.all():
        known = sorted({v for mine in held.values() for v in mine})
        told = ", ".join(map(repr, known[:6])) + (", ..." if len(known) > 6 else "")
        which = "no" if not mask.any() else "every"
        raise GroupError(f"{options.data}: {which} episode has {column} = {value!r}", f"its values are {told}")
    return mask


def read_columns(path: Path, names: Sequence[str | None]) -> list[list[Any]]:
    """Columns of a table as they stand there; None where no column is named."""
    if path.suffix.lower() in (".parquet", ".pq"):
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        known, size = table.column_names, table.num_rows
        column = lambda name: table[name].to_pylist()
    else:
        known, rows, _ = read_rows(path)
        rows, size = [row for row in rows if len(row) == len(known)], 0
        size = len(rows)
        column = lambda name: [row[known.index(name)] for row in rows]
    for name in names:
        if name is not None and name not in known:
            problem = f"{path}: there is no column {name!r} among {', '.join(map(repr, known))}"
            raise MissingColumnError(problem, "check the name before '=' in --holdout")
    return [[None] * size if name is None else column(name) for name in names]


def read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the lines they stand in."""
    from nearopt.mdp.files import read

    rows, lines = [], []
    for some, where in split(decode(read(path), str(path)), str(path)):
        rows, lines = rows + some, lines + where
    if not rows:
        raise ParseError(f"{path} is empty", "give a header and a row per state")
    return [name.strip() for name in rows[0]], rows[1:], lines[1:]


# ---------------------------------------------------------------- features
def read_features(path: Path, mdp: "MDP") -> tuple[np.ndarray, tuple[str, ...] | None]:
    """(S, F), (S, A, F) or (S, A, S, F), and names. A CSV has a header and a row per state, in order or with a column
    `state`; with columns `state` and `action` a row per choice.

    Raises `FeatureError`, `ParseError`, `CorruptFileError`, `MissingFileError`, `FileAccessError`.
    """
    from nearopt.mdp.files import read

    if path.suffix.lower() == ".npy":
        read(path)  # one message for whatever cannot be opened
        try:
            return np.load(path, allow_pickle=False), None
        except (ValueError, EOFError):
            raise CorruptFileError(f"{path} is no array of numbers", "save it with numpy.save") from None
    if path.suffix.lower() != ".csv":
        raise ArgumentError(f"--features is {str(path)!r}", "give a .npy file, or a .csv file with a header")
    return parse_features(path, mdp)


def parse_features(path: Path, mdp: "MDP") -> tuple[np.ndarray, tuple[str, ...]]:
    header, rows, lines = read_rows(path)
    keys = [name for name in ("state", "action") if name in header]
    if keys == ["action"]:
        raise FeatureError(f"{path}: there is a column 'action' and no column 'state'", "name the states too")
    if all(is_number(name) for name in header):
        raise FeatureError(f"{path}: line 1 holds numbers", "begin with a header that names the features")
    names = tuple(name for name in header if name not in keys)
    numbering = {
        key: ({label_text(name): i for i, name in enumerate(known or ())}, count)
        for key, known, count in (
            ("state", mdp.state_names, mdp.num_states),
            ("action", mdp.action_names, mdp.num_actions),
        )
    }
    shape = tuple(numbering[key][1] for key in keys) or (len(rows),)
    table = np.full((*shape, len(names)), np.nan)
    for k, (row, line) in enumerate(zip(rows, lines, strict=True)):
        if len(row) != len(header):
            raise ParseError(f"{path}: line {line}: {len(row)} values, the header names {len(header)}", "mend the line")
        cells = dict(zip(header, row, strict=True))
        place = tuple(number_of(cells[key], key, *numbering[key], f"{path}: line {line}") for key in keys) or (k,)
        if not np.isnan(table[place]).all():
            raise FeatureError(f"{path}: line {line}: {mdp.describe(*place)} again", "give every row once")
        table[place] = [value_of(cells[name], f"{path}: line {line}: {name}") for name in names]
    needed = mdp.available if len(keys) == 2 else ~np.isnan(table).all(-1) if not keys else np.ones(len(table), bool)
    missing = np.argwhere(np.isnan(table).any(-1) & needed)
    if len(missing):
        raise FeatureError(f"{path}: there is no row for {mdp.describe(*missing[0].tolist())}", "give one per choice")
    return np.nan_to_num(table), names  # what is not available has no features


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def value_of(text: str, where: str) -> float:
    if not is_number(text) or not np.isfinite(float(text)):
        raise FeatureError(f"{where} is {text!r}", "give finite numbers")
    return float(text)


def number_of(text: str, part: str, known: dict[str | None, int], count: int, where: str) -> int:
    """The number of a state or action, by its name or its number."""
    text = text.strip()
    number = known.get(label_text(text), int(text) if text.isdecimal() else -1)
    if not 0 <= number < count:
        raise FeatureError(f"{where}: {part} {text!r} is not among 0 .. {count - 1}", "give a number or a name")
    return number
