"""What a run measures: `metrics.csv`, the same bytes for the same run, and `timing.csv`, which tells how fast it was.

Both can be cut back to where they were when a checkpoint was made, so that a resumed run writes no row twice.
TensorBoard reads the same numbers from `tensorboard/`.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearopt.mdp.errors import MissingExtraError
from nearopt.mdp.files.atomic import sync_folder
from nearopt.runs.errors import MetricsError, cannot_save, damaged


class Metrics:
    """The metrics of the run in `folder`; an existing run's are continued, see `rewind`.

    `tensorboard=False` writes CSV only. `wandb` names a project of Weights & Biases to send them to as well.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     metrics = Metrics(folder, tensorboard=False)
    ...     metrics.write(1000, {"return": -812.5, "episodes": 5}, {"seconds": 0.7})
    ...     position = metrics.position()
    ...     metrics.write(2000, {"return": -643.0}, {"seconds": 1.2})
    ...     metrics.rewind(position)
    ...     metrics.close()
    ...     print(Path(folder, "metrics.csv").read_text())
    step,return,episodes
    1000,-812.5,5
    <BLANKLINE>
    """

    def __init__(self, folder: str | os.PathLike[str], tensorboard: bool = True, wandb: str | None = None):
        self.folder = Path(folder)
        self.metrics, self.timing = Table(self.folder / "metrics.csv"), Table(self.folder / "timing.csv")
        self.events = Events(self.folder / "tensorboard") if tensorboard else None
        self.wandb = start_wandb(wandb, self.folder) if wandb else None

    def write(self, step: int, row: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Appends a row to each table, on the disk's side of this process when it returns.

        The first row settles the columns. Later rows may leave some out, which stay empty, as NaN and None do.

        Raises: `MetricsError` (an unknown column, no number), `CannotSaveError` (then no half row is left).
        """
        self.metrics.append(step, row)
        self.timing.append(step, timing)
        both = {**row, **{f"timing/{name}": value for name, value in timing.items()}}
        both = {name: float(value) for name, value in both.items() if number(name, value)}
        if self.events:
            self.events.append(step, both)
        if self.wandb:
            self.wandb.log(both, step=step)

    def position(self) -> dict[str, Any]:
        """How far the tables have got: plain data for a checkpoint. What lies before it is on the disk."""
        self.flush()
        return {"metrics": self.metrics.position(), "timing": self.timing.position()}

    def rewind(self, position: Mapping[str, Any] | None = None) -> None:
        """Forgets what was written after `position`; without one, everything.

        Raises: `DamagedFileError` where a table is shorter than it was, or has other columns.
        """
        for name, table in (("metrics", self.metrics), ("timing", self.timing)):
            table.rewind(position[name] if position else {"bytes": 0, "columns": [], "step": -1})
        if self.events:
            self.events.rewind(position["metrics"]["step"] + 1 if position else 0)

    def flush(self) -> None:
        """Everything written so far is on the disk, whatever happens to the machine."""
        self.metrics.flush()
        self.timing.flush()

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # each is closed, whatever another one raises
            stack.callback(self.metrics.close)
            stack.callback(self.timing.close)
            if self.events:
                stack.callback(self.events.close)
            if self.wandb:
                stack.callback(self.wandb.finish)


# ---------------------------------------------------------------- CSV
class Table:
    """A CSV file that grows by whole lines."""

    def __init__(self, path: Path):
        self.path, self.file, self.columns, self.step = path, None, [], -1
        with contextlib.suppress(FileNotFoundError), guard(path), path.open("rb") as file:
            self.columns = file.readline().decode(errors="replace").rstrip("\n").split(",")[1:]

    def append(self, step: int, row: Mapping[str, float]) -> None:
        cells = {name: number(name, value) for name, value in row.items()}
        if not self.columns:
            columns = check_columns(list(cells))
            self.add(",".join(["step", *columns]))
            self.columns = columns
        if unknown := [name for name in cells if name not in self.columns]:
            columns = ", ".join(self.columns)
            raise MetricsError(
                f"{self.path.name} has no column {unknown[0]!r} but {columns}", "give it in the first row, as NaN"
            )
        self.add(",".join([number("step", step), *(cells.get(name, "") for name in self.columns)]))
        self.step = int(step)

    def add(self, line: str) -> None:
        data = f"{line}\n".encode()
        file = self.open()
        end = file.seek(0, os.SEEK_END)
        with guard(self.path):
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise

    def open(self) -> Any:
        if self.file is None:
            with guard(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = self.path.open("ab", buffering=0)  # a line is written at once, or seen to fail
                sync_folder(self.path.parent)
        return self.file

    def position(self) -> dict[str, Any]:
        size = self.path.stat().st_size if self.path.exists() else 0
        return {"bytes": size, "columns": self.columns, "step": self.step}

    def rewind(self, position: Mapping[str, Any]) -> None:
        size, columns = position["bytes"], position["columns"]
        have = self.path.stat().st_size if self.path.exists() else 0
        if have < size:
            raise damaged(self.path, f"it has {have:,} bytes, and had {size:,} at the checkpoint")
        if size and self.columns != columns:
            raise damaged(self.path, f"its columns are {', '.join(self.columns)}, and were {', '.join(columns)}")
        if have:
            with guard(self.path):
                os.truncate(self.path, size)
        self.columns, self.step = list(columns), position["step"]

    def flush(self) -> None:
        if self.file:
            with guard(self.path):
                os.fsync(self.file.fileno())

    def close(self) -> None:
        if self.file:
            try:
                self.flush()
            finally:
                self.file.close()
                self.file = None


@contextlib.contextmanager
def guard(path: Path) -> Iterator[None]:
    """Whatever the system refuses becomes a `CannotSaveError`, but that a file is not there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot_save(path, error) from None


def check_columns(names: Sequence[str]) -> list[str]:
    for name in names:
        if name == "step" or not name.isprintable() or set(name) & set(',"') or name != name.strip() or not name:
            raise MetricsError(f"a column is called {name!r}", "use another name, without comma and quote")
    return list(names)


def number(name: str, value: Any) -> str:
    """The shortest text that reads back as the same number, in the number's own precision; "" for NaN and None."""
    value = np.asarray(np.nan if value is None else value)[()]
    if isinstance(value, np.bool_ | np.integer):
        return str(int(value))
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else str(value)
    raise MetricsError(f"{name} is {value!r:.60}", "give a number")


# ---------------------------------------------------------------- others' formats
class Events:
    """TensorBoard's event files, written in this thread: nothing is queued that a full disk could block."""

    def __init__(self, folder: Path):
        self.folder, self.writer, self.purge = folder, None, 0

    def append(self, step: int, row: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        self.write(step=int(step), summary=Summary(value=values))

    def write(self, **content: Any) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        with guard(self.folder):
            if self.writer is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                # The name holds seconds: without a suffix, two writers within one second would share a file.
                self.writer = EventsWriter(str(self.folder / "events"), f".{time.time_ns()}")
                # TensorBoard hides what another file says of this step and later ones.
                start = Event(wall_time=time.time(), step=self.purge, session_log=SessionLog(status=SessionLog.START))
                self.writer.write_event(start)
            self.writer.write_event(Event(wall_time=time.time(), **content))
            self.writer.flush()

    def rewind(self, step: int) -> None:
        self.close()
        self.purge = step

    def close(self) -> None:
        if self.writer:
            writer, self.writer = self.writer, None
            with guard(self.folder):
                writer.close()


def start_wandb(project: str, folder: Path) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            "Weights & Biases is not installed", 'pip install "nearopt[wandb]", or leave wandb out'
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(project=project, dir=str(folder), resume="auto")  # goes on where a killed process stopped
