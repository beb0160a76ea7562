"""State and action names as JSON, and what all formats check before they believe a file."""

import json
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from nearopt.mdp.errors import CorruptFileError, StructureError, UnsaveableNameError, VersionError

MAX_ACTIONS = 2**31 - 1  # action numbers are int32
MAX_DEPTH = 50  # of tuples in tuples; keeps the recursion below Python's own limit
MAX_INT_BITS = 13_000  # Python refuses to parse integers of more than 4300 digits
NAME_MEND = "name states and actions by str, int, float, bool, None or tuples of these"


def encode_names(names: Sequence[Hashable] | None, kind: str) -> list[Any] | None:
    """Names as JSON values: a tuple becomes a list, an infinity {"float": "inf"}.

    Raises `UnsaveableNameError` for any other type, naming the state or action.
    """
    if names is None:
        return None

    def encode(name: Any, depth: int) -> Any:
        if isinstance(name, np.generic):
            name = name.item()
        if name is None or type(name) in (str, bool):
            return name
        if type(name) is int and name.bit_length() <= MAX_INT_BITS:
            return name
        if type(name) is float and name == name:  # NaN is never equal to itself, so a loaded model could not be either
            return name if abs(name) != np.inf else {"float": str(name)}
        if type(name) is tuple and depth < MAX_DEPTH:
            return [encode(part, depth + 1) for part in name]
        raise UnsaveableNameError("", "")

    out = []
    for number, name in enumerate(names):
        try:
            out.append(encode(name, 0))
        except UnsaveableNameError:
            text = f"{kind} {number} is named {shorten(safe_repr(name))}, of type {type(name).__name__}"
            raise UnsaveableNameError(f"{text}, which a file cannot hold", NAME_MEND) from None
    return out


def decode_names(values: Any, kind: str) -> tuple[Hashable, ...] | None:
    """The inverse of `encode_names`; `CorruptFileError` for anything that it does not write."""

    def decode(value: Any, depth: int) -> Hashable:
        if isinstance(value, list) and depth < MAX_DEPTH:
            return tuple(decode(part, depth + 1) for part in value)
        if isinstance(value, dict) and list(value) == ["float"] and value["float"] in ("inf", "-inf"):
            return float(value["float"])
        if isinstance(value, list | dict):
            raise CorruptFileError(f"{shorten(safe_repr(value))} is no {kind} name", "get a fresh copy of the file")
        return value

    if values is None:
        return None
    if not isinstance(values, list):
        raise CorruptFileError(f"the {kind} names are no list", "get a fresh copy of the file")
    return tuple(decode(value, 0) for value in values)


def dump_json(document: dict[str, Any]) -> str:
    """JSON on one line, in ASCII, every float such that it reads back exactly."""
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def parse_json(text: str | bytes, what: str) -> Any:
    """JSON from a file that may be hostile; `CorruptFileError` whatever is wrong with it."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # ValueError covers bad JSON, bad UTF-8 and endless integers
        raise CorruptFileError(f"{what} is no JSON ({shorten(str(error))})", "get a fresh copy of the file") from None


def check_version(document: Any, known: int, what: str) -> None:
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise CorruptFileError(f"{what} does not tell its format version", "get a fresh copy of the file")
    if version > known:
        raise VersionError(f"{what} has format version {version}, this nearopt reads up to {known}", "update nearopt")


def check_action_count(count: Any, num_states: int) -> int:
    """A number of actions that a file claims: believed only where action numbers and state-action rows fit."""
    if type(count) is not int or not 1 <= count <= MAX_ACTIONS or num_states * count >= 2**62:
        problem = f"the file claims {shorten(safe_repr(count))} actions"
        raise CorruptFileError(problem, f"give a whole number from 1 to {MAX_ACTIONS}")
    return count


def check_offsets(offset: np.ndarray, length: int, name: str) -> None:
    """Offsets from a file, which may be chosen so that their differences overflow: compared, not subtracted."""
    rising = len(offset) > 0 and offset[0] == 0 and offset[-1] == length and bool((offset[1:] >= offset[:-1]).all())
    if not rising:
        raise StructureError(f"{name} does not rise from 0 to {length}", "get a fresh copy of the file")


def shorten(text: str, width: int = 80) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # a name whose own repr fails, an integer too long to print
        return f"a {type(value).__name__}"
