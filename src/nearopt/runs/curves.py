"""Learning curves of several runs: the interquartile mean with its bootstrap interval, after Agarwal et al. 2021.

"Deep reinforcement learning at the edge of the statistical precipice", arXiv 2108.13264: with few runs the mean follows
one lucky seed and the median forgets most of them; the mean of the middle half does neither.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from nearopt.runs.errors import CurveError, DamagedFileError
from nearopt.runs.tensors import read_file

MOST_BYTES = 1 << 28  # two million rows


@dataclass(frozen=True)
class Curve:
    """Runs on common steps (points,): `runs` (seeds, points), their interquartile mean and its interval (points,)."""

    step: np.ndarray
    runs: np.ndarray
    iqm: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve(runs: Sequence[str | PathLike[str]], column: str = "return", points: int = 200, level: float = 0.95) -> Curve:
    """The curve of a column of metrics.csv over several run folders, one per seed.

    At each step a run counts with the last value it had by then: an episode's return is known when the episode ends,
    and a line drawn to the next one would show the future. The steps go from where every run has a value to where the
    shortest one ends.

    Raises: `CurveError` (no runs, a column that is not there or is empty, runs without a step in common), and what
    `read` raises.
    """
    if not runs:
        raise CurveError("no runs are given", "give at least one run folder")
    pairs = [values(Path(run) / "metrics.csv", column) for run in runs]
    start, end = max(step[0] for step, _ in pairs), min(step[-1] for step, _ in pairs)
    if start > end:
        raise CurveError(
            f"the runs have no step in common: one begins at {start:g}, one ends at {end:g}", "leave one out"
        )
    grid = np.linspace(start, end, points)
    scores = np.stack([value[np.searchsorted(step, grid, side="right") - 1] for step, value in pairs])
    return Curve(grid, scores, interquartile_mean(scores), *bootstrap_interval(scores, level=level))


def values(path: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a column where it is not empty; of equal steps the last counts."""
    table = read(path)
    if column not in table:
        raise CurveError(f"{path} has no column {column!r}", f"choose from {', '.join(table)}")
    there = ~np.isnan(table[column])
    if not there.any():
        raise CurveError(f"the column {column!r} of {path} is empty", "train longer, or choose another column")
    return table["step"][there], table[column][there]


def read(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """The columns of a metrics.csv as float64, NaN where a cell is empty. A last line without end is not there yet.

    Raises: `MissingFileError`, `FileAccessError`; `DamagedFileError`, with the line, for what `Metrics` does not write.
    """
    path = Path(path)
    try:
        text = read_file(path, most=MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise DamagedFileError(f"{path} is not UTF-8 text", "restore it from a copy") from None
    lines, count = io.StringIO(text, newline="\n"), text.count("\n")
    names = lines.readline().rstrip("\n").split(",") if count else []
    if names[:1] != ["step"] or len(set(names)) != len(names):
        raise broken(path, 1, "the header is not a list of different columns that begins with step")
    if count * len(names) > MOST_BYTES:  # every cell takes a byte of the text at least
        raise broken(path, 1, f"{len(names):,} columns are more than {count:,} lines can have")
    table = np.empty((count - 1, len(names)))
    for index, line in zip(range(count - 1), lines, strict=False):  # the last line may have no end yet
        table[index] = parse(path, index + 2, line.rstrip("\n"), len(names))
    back = np.flatnonzero(~(np.diff(table[:, 0], prepend=-np.inf) >= 0) | ~np.isfinite(table[:, 0]))
    if len(back):
        raise broken(path, int(back[0]) + 2, "its step is empty, infinite or comes before the last one")
    return {name: table[:, index].copy() for index, name in enumerate(names)}


def parse(path: Path, number: int, line: str, width: int) -> list[float]:
    cells = line.split(",")
    if len(cells) != width:
        raise broken(path, number, f"{len(cells)} cells, and the header has {width}")
    try:
        if "_" in line:  # Python reads 1_0 as 10
            raise ValueError
        return [float(cell) if cell else np.nan for cell in cells]
    except ValueError:
        raise broken(path, number, f"{line[:40]!r} is no row of numbers") from None


def broken(path: Path, number: int, what: str) -> DamagedFileError:
    return DamagedFileError(f"{path}, line {number}: {what}", "put the line right, or restore the file from a copy")


# ---------------------------------------------------------------- statistics
def interquartile_mean(x: np.ndarray, axis: int | None = 0) -> np.ndarray:
    """The mean of the middle half along an axis, or of all numbers for None: of n, int(n/4) are cut at either end.

    >>> float(interquartile_mean([1.0, 2.0, 3.0, 100.0]))
    2.5
    """
    x = np.sort(np.asarray(x, float), axis=axis)
    if axis is None:
        x, axis = x.reshape(-1), 0
    size = x.shape[axis]
    return np.take(x, range(size // 4, size - size // 4), axis=axis).mean(axis=axis)


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Callable[..., np.ndarray] = interquartile_mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval (low, high), each (points,), of `statistic(scores, axis=0)`; seeds are drawn anew.

    `scores` are (seeds, points); a run is drawn with all its points. With one seed there is nothing to draw, and the
    interval has no width.
    """
    scores = np.asarray(scores, float)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(scores), size=(resamples, len(scores)))
    means = np.stack([statistic(scores[draw], axis=0) for draw in draws])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
