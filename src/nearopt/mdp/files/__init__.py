"""Models in files: `.mdp` (ours, holds everything), `.drn` and `.umb` (model checkers), `.txt` (a grid, load only).

Every format is a module with `encode(mdp) -> bytes` and `decode(data, **options) -> MDP`. No format runs code on
loading, and nothing is allocated because a file merely says so.
"""

import importlib
import inspect
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from nearopt.mdp.errors import ArgumentError, FileAccessError, FormatError, MissingFileError, NearoptError, ParseError
from nearopt.mdp.files.atomic import write_atomically
from nearopt.mdp.model import MDP

MODULES = {".mdp": "native", ".drn": "drn", ".umb": "umb"}


def load(path: str | PathLike[str], **options: Any) -> MDP:
    """The model in a file; the suffix tells the format.

    `.mdp`: no options. `.drn`, `.umb`: `reward_model`, the name of the reward to take where the file has several.
    `.txt`: the options of `MDP.from_grid`.

    Raises: `MissingFileError`, `FileAccessError` (a folder, missing rights), `FormatError` (unknown suffix, or not what
    the suffix says), `ArgumentError` (an option that the format does not have), `TruncatedFileError`,
    `CorruptFileError`, `VersionError`, `ParseError` (with the line), `UnsupportedModelError`, `OversizeError`,
    `AmbiguousRewardError`, and the errors of the `MDP` constructor. Each message starts with the path.
    """
    path = Path(path)
    suffix = known_suffix(path, [*MODULES, ".txt"])
    data = read(path)
    decode = decode_grid if suffix == ".txt" else module_of(suffix).decode
    allowed = list(inspect.signature(MDP.from_grid if suffix == ".txt" else decode).parameters)[1:]
    if unknown := [name for name in options if name not in allowed]:
        mend = f"leave it out; the options are {', '.join(allowed)}" if allowed else "leave it out"
        raise ArgumentError(f"{path}: a {suffix} file has no option {unknown[0]!r}", mend)
    try:
        with np.errstate(all="ignore"):  # numbers as 1e308 or inf are refused by name, not by a warning
            return decode(data, **options)
    except NearoptError as error:
        raise type(error)(f"{path}: {error.problem}", error.mend) from None


def save(mdp: MDP, path: str | PathLike[str]) -> None:
    """Writes the model to `.mdp`, `.drn` or `.umb`, whole or not at all; the same model gives the same bytes.

    Raises: `LossySaveError` and `UnsaveableNameError` (the format cannot hold part of the model), `FormatError`
    (unknown suffix), `MissingFileError` (no such folder), `FileAccessError` (a folder, missing rights, a full disk).
    """
    path = Path(path)
    write_atomically(path, module_of(known_suffix(path, list(MODULES))).encode(mdp))


def known_suffix(path: Path, known: list[str]) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        if path.is_dir():
            raise FileAccessError(f"{path} is a folder", "give the file inside it")
        what = f"the suffix {suffix!r}" if suffix else "no suffix"
        raise FormatError(f"{path} has {what}", f"use one of {', '.join(known)}")
    return suffix


def module_of(suffix: str) -> Any:
    return importlib.import_module(
        f"nearopt.mdp.files.{MODULES[suffix]}"
    )  # one format never pays for another's imports


def read(path: Path) -> bytes:
    """The bytes of a regular file; `MissingFileError` or `FileAccessError` otherwise."""
    try:
        if path.is_file():
            return path.read_bytes()
        missing = not path.exists()
    except OSError as error:
        raise FileAccessError(f"{path} cannot be read ({error.strerror})", "check its rights and its disk") from None
    if missing:
        raise MissingFileError(f"{path} does not exist", "check the path")
    kind = "a folder" if path.is_dir() else "not a regular file"
    raise FileAccessError(f"{path} is {kind}", "give the path of a file")


def decode_grid(data: bytes, **options: Any) -> MDP:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParseError(f"line {line} is not UTF-8 text", "save the grid as plain UTF-8 text") from None
    return MDP.from_grid(text.replace("\r\n", "\n"), **options)
