"""JSON that is checked to the last byte: equal values have one text only, and the text holds its own checksum.

>>> text = dump({"seed": 0})
>>> parse(text, "x")
{'seed': 0}
>>> parse(text + b" ", "x")
Traceback (most recent call last):
...
nearopt.runs.errors.DamagedFileError: x is damaged: it is not what was written; restore a copy, or write it anew.
"""

import hashlib
import json
import math
import os
from typing import Any

from nearopt.runs.errors import UnsaveableError, damaged

LIMIT = 1 << 22  # bytes of a text: room for 30,000 chunks of a replay buffer, too little to fill a memory when parsed
DEPTH = 64


def plain(value: Any, where: str = "facts", depth: int = DEPTH) -> Any:
    """`value` as JSON gives it back: dictionaries with text keys, lists (tuples become lists), text, numbers, None.

    Whole numbers are exact whatever their size. Raises `UnsaveableError` for everything else, NaN and inf among it.
    """
    if depth == 0:
        raise UnsaveableError(f"{where[:40]}... is nested deeper than {DEPTH} levels", "flatten it")
    if value is None or type(value) in (bool, str):
        return value
    if isinstance(value, dict):
        if other := [key for key in value if type(key) is not str]:
            raise UnsaveableError(f"{where} has the key {other[0]!r}, which is no text", "use str keys")
        return {key: plain(item, f"{where}[{key!r}]", depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
    if type(value) is int and value.bit_length() <= 4096:  # Python refuses to read numbers of more than 4,300 digits
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    shown = f"{value!r:.60}" if isinstance(value, float) else f"a {type(value).__name__}"
    raise UnsaveableError(f"{where} is {shown}", "use text, finite numbers, lists and dictionaries; arrays are tensors")


def canonical(document: dict[str, Any]) -> bytes:
    return f"{json.dumps(document, indent=1, sort_keys=True, allow_nan=False)}\n".encode("ascii")


def dump(document: dict[str, Any]) -> bytes:
    """The one text of `document`, which is `plain` and has no key "checksum"."""
    checksum = hashlib.sha256(canonical(document)).hexdigest()
    text = canonical({**document, "checksum": checksum})
    if len(text) > LIMIT:
        raise UnsaveableError(f"the facts take {len(text):,} bytes of JSON, the limit is {LIMIT:,}", "save less")
    return text


def parse(text: bytes, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document that `dump` wrote. Raises `DamagedFileError` for any text that `dump` does not write."""
    try:
        document = json.loads(text.decode("ascii"))
        del document["checksum"]
        if dump(document) == text:
            return document
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        pass  # no JSON, numbers without end, nested too deep, no dictionary
    raise damaged(path, "it is not what was written")
