"""What a verb prints: aligned lines for people, strict JSON for programs, a progress line on a terminal."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def print_table(rows: Sequence[tuple[str, ...]], indent: str = "  ") -> None:
    """Columns as wide as their longest entry; the last one may be empty."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print((indent + line).rstrip())


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON of numbers, arrays, paths and names: infinities are the strings "inf" and "-inf"."""
    return json.dumps(plain(value), allow_nan=False, indent=indent)


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr that tells what is being done, gone at the end; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield lambda text: status.update(text)
