"""Checkpoints of a run: the newest two, each whole or not there, with a replay buffer that is written only once.

    checkpoints/step-000000005000/checkpoint.json, checkpoint.safetensors
    checkpoints/replay-0-5000.safetensors, ...

Rows of the replay buffer are numbered from 0 on as they are inserted. Those new since the last checkpoint go to files
of their own, which never change; the checkpoint lists, with checksums, the files that hold the rows it needs. Its
folder is renamed to its final name last, so what a killed process leaves is either a checkpoint or nothing that anybody
reads. One process at a time may write: `RunDirectory.lock`.
"""

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearopt.mdp.errors import FileAccessError, MissingFileError, NearoptError
from nearopt.mdp.files.atomic import sync_folder, write_atomically
from nearopt.runs import tensors as files
from nearopt.runs.errors import DamagedFileError, ReplayError, UnsaveableError, cannot_save, damaged

NAME = "checkpoint"
CHUNK_BYTES = 1 << 24  # a larger file would have to be held in memory twice when it is read


@dataclass(frozen=True)
class Checkpoint:
    """What `Checkpoints.write` was given. `rows` start with transition number `first`, the oldest still needed.

    `warning` is None, or a sentence about the newer checkpoint that is damaged.
    """

    step: int
    tensors: dict[str, np.ndarray]
    facts: dict[str, Any]
    rows: dict[str, np.ndarray]
    first: int
    warning: str | None


@dataclass(frozen=True)
class Chunk:
    """A file with the rows `first` to `end - 1`."""

    first: int
    end: int
    bytes: int
    sha256: str

    @property
    def file(self) -> str:
        return f"replay-{self.first}-{self.end}.safetensors"


@dataclass(frozen=True)
class Contents:
    """What a checkpoint says of its replay buffer: rows `first` to `end - 1`, and where they are."""

    step: int
    first: int
    end: int
    columns: dict[str, list[Any]]  # name: [dtype, shape of a row]
    chunks: tuple[Chunk, ...]

    @property
    def row_bytes(self) -> int:
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in self.columns.values())


class Checkpoints:
    """The checkpoints in a folder, which need not exist yet.

    >>> import tempfile
    >>> tensors, rows = {"weights": np.ones(3)}, {"reward": np.arange(4.0)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder)
    ...     checkpoints.write(4, tensors, {"seed": 0}, rows, first=0, keep=1)
    ...     newest = checkpoints.latest()
    >>> newest.step, newest.facts, newest.first, newest.rows["reward"]
    (4, {'seed': 0}, 1, array([1., 2., 3.]))
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    def write(
        self,
        step: int,
        tensors: Mapping[str, np.ndarray],
        facts: dict[str, Any],
        rows: Mapping[str, np.ndarray],
        first: int,
        keep: int,
    ) -> None:
        """Adds a checkpoint, and removes all but the newest two.

        `rows`: the columns (n, ...) of the transitions number `first` to `first + n - 1`, those inserted since the
        checkpoint that this process last wrote or began with (none: {}, or n = 0). `keep`: the number of the oldest
        transition that is still in the buffer. Checkpoints that know of later steps or rows were written by a process
        that was killed, after the one that this process began with: they are damaged or not wanted, and are removed.

        Raises: `ReplayError` (rows missing, columns changed, no checkpoint to go on from), `UnsaveableError`,
        `CannotSaveError` (a full disk, missing rights): then the last checkpoint is as it was.
        """
        home, beside = self.folder / f"step-{step:012d}", self.folder / f".step-{step:012d}"
        chunks = []
        try:
            line, stale = self._line(step, first)
            contents, chunks = plan(step, rows, first, keep, line[-1] if line else None)
            document = {"facts": facts, "replay": asdict(contents)}
            files.make_folder(self.folder)
            for other in stale:
                remove(self.folder / f"step-{other:012d}")
            for name, data in chunks:
                write_atomically(self.folder / name, data)
            if home.is_dir():  # the last checkpoint once more: replaced where it is
                files.save(home, NAME, tensors, document)
            else:
                files.save(beside, NAME, tensors, document)
                os.rename(beside, home)
        except (OSError, NearoptError) as error:
            for path in (beside, *(self.folder / name for name, _ in chunks)):
                with contextlib.suppress(OSError):
                    remove(path)
            if isinstance(error, UnsaveableError | ReplayError):
                raise
            raise cannot_save(home, error) from None
        sync_folder(self.folder)
        self._prune([*[old for old in line if old.step < step][-1:], contents])

    def latest(self, at_most: int | None = None) -> Checkpoint | None:
        """The newest checkpoint that is whole, of step `at_most` or before it; None where there is none at all.

        Raises: `DamagedFileError` where there are checkpoints, but none that is whole.
        """
        errors = []
        for step in sorted(self._steps(), reverse=True):
            if at_most is not None and step > at_most:
                continue
            home = self.folder / f"step-{step:012d}"
            try:
                tensors, document = files.load(home, NAME)
                contents = read_contents(document, home, step)
                rows = self._rows(contents)
            except NearoptError as error:
                errors.append(error)
                continue
            warning = f"{errors[0].problem}; the run goes on from step {step}." if errors else None
            return Checkpoint(step, tensors, document["facts"], rows, contents.first, warning)
        if errors:
            problem = f"{self.folder} holds no checkpoint that is whole: {errors[0].problem}"
            raise DamagedFileError(problem, "restore it from a copy, or begin a new run")
        return None

    def _line(self, step: int, first: int) -> tuple[list[Contents], list[int]]:
        """The checkpoints from which step `step` and row `first` can follow, in order, and the steps of later ones."""
        steps, line = sorted(self._steps()), []
        for other in steps:
            home = self.folder / f"step-{other:012d}"
            with contextlib.suppress(DamagedFileError, MissingFileError):
                contents = read_contents(files.read_manifest(home, NAME)["facts"], home, other)
                if other <= step and contents.end <= first:
                    line.append(contents)
        if steps and not line:
            problem = f"no checkpoint in {self.folder} comes before step {step}, row {first}"
            raise ReplayError(problem, "go on from latest(), or begin a new run")
        return line, [other for other in steps if other > line[-1].step]

    def _steps(self) -> list[int]:
        try:
            names = os.listdir(self.folder) if self.folder.is_dir() else []
        except OSError as error:
            raise FileAccessError(f"{self.folder} cannot be read ({error.strerror})", "check its rights") from None
        return [int(found[1]) for name in names if (found := re.fullmatch(r"step-(\d{12,18})", name))]

    def _rows(self, contents: Contents) -> dict[str, np.ndarray]:
        """The rows, read file by file into arrays that are allocated once the files are known to be large enough."""
        paths = [self.folder / chunk.file for chunk in contents.chunks]
        for path, chunk in zip(paths, contents.chunks, strict=True):
            have = path.stat().st_size if path.is_file() else 0
            if have < (chunk.end - chunk.first) * contents.row_bytes:
                raise damaged(path, f"it has {have:,} bytes, fewer than its rows take")
        size = contents.end - contents.first
        try:
            rows = {name: np.empty((size, *shape), dtype) for name, (dtype, shape) in contents.columns.items()}
        except ValueError:
            raise damaged(self.folder, f"a column of step {contents.step} has an impossible shape") from None
        for path, chunk in zip(paths, contents.chunks, strict=True):
            data = files.read_file(path, chunk.bytes)
            if hashlib.sha256(data).hexdigest() != chunk.sha256:
                raise damaged(path, "it is not the file that the checkpoint describes")
            arrays = files.decode(data, path)
            if columns_of(arrays) != contents.columns or {len(a) for a in arrays.values()} != {chunk.end - chunk.first}:
                raise damaged(path, "its columns are not those of the checkpoint")
            start = max(chunk.first, contents.first)
            for name, array in arrays.items():
                rows[name][start - contents.first : chunk.end - contents.first] = array[start - chunk.first :]
        return rows

    def _prune(self, line: list[Contents]) -> None:
        """Removes what these do not need, and what killed processes left. What cannot go now goes next time."""
        kept = {f"step-{contents.step:012d}" for contents in line}
        kept |= {chunk.file for contents in line for chunk in contents.chunks}
        ours = r"\.?step-\d{12,18}|replay-\d+-\d+\.safetensors|\.nearopt-[0-9a-f]+\.tmp"
        with contextlib.suppress(OSError):
            # Hidden ones first: `remove` needs their names. Rows last: a checkpoint is whole as long as it is there.
            for path in sorted(self.folder.iterdir(), key=lambda path: (path.name.startswith("replay"), path.name)):
                if path.name not in kept and re.fullmatch(ours, path.name):
                    remove(path)


def remove(path: Path) -> None:
    """Removes a file or a folder of files, if it is there. A checkpoint is first renamed to what nobody reads."""
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith("."):
            path = path.rename(path.with_name(f".{path.name}"))
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- rows
def plan(
    step: int, rows: Mapping[str, np.ndarray], first: int, keep: int, last: Contents | None
) -> tuple[Contents, list[tuple[str, bytes]]]:
    """What the new checkpoint will contain, and the new files (name, content) for that."""
    arrays = {name: files.checked(name, array) for name, array in rows.items()}
    columns = columns_of(arrays) or (last.columns if last else {})
    if len(lengths := {len(array) for array in arrays.values()}) > 1:
        raise ReplayError(f"the columns have {' and '.join(map(str, sorted(lengths)))} rows", "give each as many")
    if last and last.columns and columns != last.columns:
        raise ReplayError(f"the columns are {columns}, and were {last.columns}", "keep their names, types and shapes")
    end = first + max(lengths, default=0)
    new = list(cut(arrays, first, end))
    chunks = [chunk for chunk in (*(last.chunks if last else ()), *(chunk for chunk, _ in new)) if chunk.end > keep]
    if not covers(chunks, keep, end):
        raise ReplayError(f"of the rows {keep} to {end - 1} some were never given", "give those since the last write")
    names = {chunk.file for chunk in chunks}
    written = [(chunk.file, data) for chunk, data in new if chunk.file in names]
    return Contents(int(step), int(keep), int(end), columns, tuple(chunks)), written


def cut(arrays: Mapping[str, np.ndarray], first: int, end: int) -> Iterator[tuple[Chunk, bytes]]:
    """The rows as files of at most about CHUNK_BYTES."""
    row_bytes = sum(array.nbytes for array in arrays.values()) // max(end - first, 1)
    most = max(1, CHUNK_BYTES // max(row_bytes, 1))
    for start in range(first, end, most):
        stop = min(start + most, end)
        data = files.encode({name: array[start - first : stop - first] for name, array in arrays.items()})
        yield Chunk(int(start), int(stop), len(data), hashlib.sha256(data).hexdigest()), data


def covers(chunks: list[Chunk] | tuple[Chunk, ...], first: int, end: int) -> bool:
    """Do the chunks follow each other without a gap, from `first` or before it to `end`?"""
    edges = [chunk.first for chunk in chunks] + [end]
    follow = [chunk.end for chunk in chunks] == edges[1:] and all(chunk.first < chunk.end for chunk in chunks)
    return follow and edges[0] <= first <= end and (not chunks or chunks[0].end > first)


def columns_of(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    return {name: [array.dtype.name, list(array.shape[1:])] for name, array in arrays.items()}


def read_contents(document: dict[str, Any], home: Path, step: int) -> Contents:
    """The contents that the JSON of a checkpoint states, believed in nothing. Raises `DamagedFileError`."""

    def whole(value: Any) -> int:
        if type(value) is not int or not 0 <= value < 1 << 60:
            raise TypeError(value)
        return value

    try:
        replay = document["replay"]
        columns = {
            name: [{known: known for known in files.DTYPES.values()}[dtype], [whole(size) for size in shape]]
            for name, (dtype, shape) in replay["columns"].items()
        }
        chunks = tuple(
            Chunk(whole(chunk["first"]), whole(chunk["end"]), whole(chunk["bytes"]), chunk["sha256"])
            for chunk in replay["chunks"]
        )
        contents = Contents(whole(replay["step"]), whole(replay["first"]), whole(replay["end"]), columns, chunks)
        if contents.step == step and covers(chunks, contents.first, contents.end):
            if isinstance(document["facts"], dict):
                return contents
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise damaged(home / f"{NAME}.json", f"it does not describe a checkpoint of step {step}")
