"""One training run is one folder.

config.json     what was asked for: settings, command, versions
metrics.csv     what was measured; timing.csv, tensorboard/
checkpoints/    to go on from after a kill
agent/          the final agent
failure/        the batch on which a run stopped, had it to
"""

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nearopt.mdp.errors import MissingFileError, NearoptError, VersionError
from nearopt.mdp.files.atomic import write_atomically
from nearopt.runs import manifest, tensors
from nearopt.runs.errors import (
    DamagedFileError,
    NotARunError,
    RunExistsError,
    RunLockedError,
    UnsaveableError,
    cannot_save,
    damaged,
)

FORMAT = 1
PACKAGES = ("nearopt", "jax", "jaxlib", "equinox", "optax", "numpy", "safetensors", "gymnasium", "mujoco", "box2d")


class RunDirectory:
    """The folder of a run: `RunDirectory.create` for a new one, `RunDirectory.open` for one that is there.

    `config` is what `create` was given, `record` the rest of config.json: format, command, versions, machine.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = RunDirectory.create(Path(folder, "run"), {"algorithm": "sac", "seed": 0})
    ...     with run.lock():
    ...         print(RunDirectory.open(run.path).config, run.finished)
    {'algorithm': 'sac', 'seed': 0} False
    """

    def __init__(self, path: Path, document: dict[str, Any]):
        self.path = path
        self.checkpoints, self.agent = path / "checkpoints", path / "agent"
        self.record = {key: document[key] for key in RECORD}
        self.config = {key: value for key, value in document.items() if key not in RECORD}

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: dict[str, Any]) -> "RunDirectory":
        """Makes the folder, where there is none or an empty one, and config.json in it.

        Raises: `RunExistsError` (the folder holds a run or other things, or is a file), `RunLockedError` (another
        process is making one there), `UnsaveableError` (a config that JSON cannot hold), `CannotSaveError`.
        """
        path = Path(path)
        config = manifest.plain(config, "config")
        if taken := [key for key in RECORD if key in config]:
            raise UnsaveableError(f"config has the key {taken[0]!r}, which the run fills in itself", "rename it")
        run = cls(path, {**config, **record()})
        try:
            tensors.make_folder(path)
            check_empty(path)
            with run.lock():  # of two that find the folder empty, one makes the run
                check_empty(path)
                write_atomically(path / "config.json", manifest.dump({**run.config, **run.record}))
        except (FileExistsError, NotADirectoryError):
            raise RunExistsError(f"{path} is or lies under a file", "choose another folder") from None
        except (RunExistsError, RunLockedError):
            raise
        except (OSError, NearoptError) as error:
            raise cannot_save(path / "config.json", error) from None
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """The run in this folder.

        Raises: `NotARunError`, `DamagedFileError` (config.json cannot be read as what it is), `VersionError`.
        """
        path = Path(path)
        file = path / "config.json"
        try:
            text = tensors.read_file(file)
        except MissingFileError:
            what = "holds no run" if path.is_dir() else "is no folder"
            raise NotARunError(f"{path} {what}", "give the folder of a run, the one with config.json") from None
        document = manifest.parse(text, file)
        match document:
            case {"format": int(number)} if number != FORMAT:
                raise VersionError(
                    f"{file} has format {number}, and {FORMAT} is known here", "use the nearopt it names"
                )
            case {"format": int(), "command": str(), "versions": dict(), "machine": dict()}:
                return cls(path, document)
        raise DamagedFileError(f"{file} is not the config of a run", "restore a copy, or give another folder")

    @property
    def finished(self) -> bool:
        """Is the final agent there, under its final name?"""
        return all((self.agent / f"agent.{suffix}").exists() for suffix in ("json", "safetensors"))

    def versions_differ(self) -> list[str]:
        """A sentence for each package whose version is not the one that the run began with."""
        then, now = self.record["versions"], versions()
        return [
            f"{name} is {now.get(name, 'absent')} here, and was {then.get(name, 'absent')} when the run began."
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        ]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """While it is held, no other process may train this run; the system takes it back from a killed one.

        Raises: `RunLockedError`; `CannotSaveError` where the folder takes no files.
        """
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise cannot_save(self.path / "lock", error) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = f"another process trains the run in {self.path}"
                raise RunLockedError(problem, "wait for it, or choose another folder") from None
            except OSError as error:
                raise cannot_save(self.path / "lock", error) from None
            yield
        finally:
            os.close(descriptor)

    def dump(self, name: str, arrays: Mapping[str, np.ndarray], facts: dict[str, Any]) -> Path:
        """Writes `failure/<name>.safetensors` and .json, and returns the folder. Raises what `tensors.save` does."""
        tensors.save(self.path / "failure", name, arrays, facts)
        return self.path / "failure"


def check_empty(path: Path) -> None:
    """Raises: `RunExistsError`."""
    inside = [file.name for file in path.iterdir() if not re.fullmatch(LEFT_OVER, file.name)]
    if "config.json" in inside:
        raise RunExistsError(f"{path} holds a run", "resume it, or choose another folder")
    if inside:
        raise RunExistsError(f"{path} holds other things ({min(inside)})", "choose an empty or a new folder")


# ---------------------------------------------------------------- several seeds
def open_runs(path: str | os.PathLike[str]) -> list[RunDirectory]:
    """The run in a folder, or those of several seeds in seed-0, seed-1, … beneath it.

    Raises: as `RunDirectory.open`, and `DamagedFileError` where a config is not that of an agent's training.
    """
    path = Path(path)
    numbers = sorted(int(found[1]) for file in path.glob("seed-*") if (found := GROUP.fullmatch(file.name)))
    if numbers and not (path / "config.json").exists():
        return [training_run(path / f"seed-{number}") for number in numbers]
    return [training_run(path)]


def training_run(path: Path) -> RunDirectory:
    """`RunDirectory.open`, with a config of the form that `nearopt.agents.session` gives it."""
    run = RunDirectory.open(path)
    match run.config:
        case {
            "algorithm": str(),
            "env": {"id": str() | None, "kwargs": dict() | None, "n_envs": int(n_envs)},
            "resume": str(),
            "settings": dict(),
            "wandb": str() | None,
            **rest,
        } if all(type(rest.get(name)) is int and rest[name] >= least for name, least in COUNTS.items()):
            if rest["seeds"] <= MOST_SEEDS and 1 <= n_envs <= MOST_ENVS and rest["start"] < rest["end"]:
                return run
    raise damaged(path / "config.json", "it is not the config of an agent's training")


def complete(path: str | os.PathLike[str]) -> list[RunDirectory]:
    """`open_runs`; the seeds that a kill between two folders has left out are made, as the first one knows them all."""
    path = Path(path)
    if not (path / "config.json").exists() and (path / "seed-0/config.json").exists():
        run = training_run(path / "seed-0")
        first = run.config
        missing = [n for n in range(first["seeds"]) if not (path / f"seed-{n}/config.json").exists()]
        if missing:
            with run.lock():  # who trains seed 0 may just be making the others
                for number in missing:
                    RunDirectory.create(path / f"seed-{number}", first | dict(seed=first["seed"] + number))
    return open_runs(path)


# ---------------------------------------------------------------- what a run notes by itself
RECORD = ("format", "command", "versions", "machine")
GROUP = re.compile(r"seed-(\d{1,5})")  # the folder of one of several seeds
COUNTS = dict(seed=0, seeds=1, start=0, end=1, log_every=1, checkpoint_every=1)  # of a config: what it is at least
MOST_SEEDS, MOST_ENVS = 10**4, 2**12
LEFT_OVER = r"lock|\.nearopt-.*\.tmp"  # what a killed process may leave in a folder that it had not yet made a run


def record() -> dict[str, Any]:
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    machine = {"cores": os.cpu_count(), "threads": len(os.sched_getaffinity(0))}
    return {"format": FORMAT, "command": command, "versions": versions(), "machine": machine}


def versions() -> dict[str, str]:
    """Of Python and of the packages on which the numbers of a run may depend; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
