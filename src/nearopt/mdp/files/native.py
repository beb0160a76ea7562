"""`.mdp`: one safetensors file, the arrays of the model and a JSON text beside them.

The JSON stands in the metadata under the single key `nearopt` (the safetensors writer orders several keys at random)
and starts with a SHA-256 of the whole file, taken with the digest's own 64 digits set to zero. So every changed byte
is found, and the same model always gives the same bytes.
"""

import hashlib
import json
from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    CorruptFileError,
    FormatError,
    LossySaveError,
    ShapeError,
    TruncatedFileError,
)
from nearopt.mdp.files.names import (
    MAX_ACTIONS,
    check_action_count,
    check_offsets,
    check_version,
    decode_names,
    dump_json,
    encode_names,
    parse_json,
    shorten,
)
from nearopt.mdp.model import MDP

VERSION = 1
HEADER_LIMIT = 100_000_000  # safetensors reads no longer header
BLANK = "0" * 64
DTYPES = {
    "choice_offset": ("I64",),
    "choice_action": ("I32",),
    "branch_offset": ("I64",),
    "probability": ("F64",),
    "next_state": ("I32", "I64"),
    "branch_reward": ("F64",),
    "initial": ("F64",),
    "positions": ("F64",),
}
NUMPY = {"I64": "<i8", "I32": "<i4", "F64": "<f8"}
KEYS = {"sha256", "format", "num_actions", "discount", "state_names", "action_names"}
FRESH = "get a fresh copy of the file"


def encode(mdp: MDP) -> bytes:
    """The bytes of a `.mdp` file. Raises `UnsaveableNameError`; `LossySaveError` beyond the format's own limits."""
    import safetensors.numpy

    if mdp.num_actions > MAX_ACTIONS:
        raise LossySaveError(f"a .mdp file holds {MAX_ACTIONS} actions, not {mdp.num_actions}", "drop unused actions")
    arrays = {name: getattr(mdp, name) for name in DTYPES if getattr(mdp, name) is not None}
    text = dump_json(
        {
            "sha256": BLANK,
            "format": VERSION,
            "num_actions": mdp.num_actions,
            "discount": mdp.discount,
            "state_names": encode_names(mdp.state_names, "state"),
            "action_names": encode_names(mdp.action_names, "action"),
        }
    )
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = safetensors.numpy.save(arrays, metadata={"nearopt": text})
    header = int.from_bytes(data[:8], "little")
    if header > HEADER_LIMIT:
        problem = f"the names take {header:,} bytes, and a .mdp file holds {HEADER_LIMIT:,}"
        raise LossySaveError(problem, "give shorter names, or save mdp.replace(state_names=None)")
    # The first 64 zeros are the digest's: metadata precede the tensors, the digest precedes every name.
    start = data.index(BLANK.encode())
    digest = hashlib.sha256(data).hexdigest().encode()
    return b"".join((memoryview(data)[:start], digest, memoryview(data)[start + 64 :]))


def decode(data: bytes) -> MDP:
    """The model in the bytes of a `.mdp` file.

    Raises: `TruncatedFileError`, `FormatError` (no `.mdp` file at all), `CorruptFileError` (checksum, missing or extra
    array, wrong type), `VersionError`, and the errors of the `MDP` constructor.
    """
    tensors, document = parse(data)
    check_version(document, VERSION, "the file")
    check_digest(data, document)
    if set(document) != KEYS:
        raise CorruptFileError(f"the metadata have the keys {shorten(str(sorted(document)))}", FRESH)
    arrays = {name: array_of(name, spec) for name, spec in tensors}
    if missing := [name for name in DTYPES if name not in arrays and name != "positions"]:
        raise CorruptFileError(f"the array {missing[0]} is missing", FRESH)
    num_choices, num_branches = len(arrays["choice_action"]), len(arrays["probability"])
    check_offsets(arrays["choice_offset"], num_choices, "choice_offset")
    check_offsets(arrays["branch_offset"], num_branches, "branch_offset")
    num_states = len(arrays["choice_offset"]) - 1
    discount = document["discount"]
    if type(discount) not in (int, float):
        raise CorruptFileError(f"the discount is {shorten(repr(discount))}", FRESH)
    return MDP(
        **arrays,
        num_actions=check_action_count(document["num_actions"], num_states),
        discount=discount,
        state_names=decode_names(document["state_names"], "state"),
        action_names=decode_names(document["action_names"], "action"),
    )


def parse(data: bytes) -> tuple[list[tuple[str, dict[str, Any]]], Any]:
    """The tensors as safetensors hands them over, and the JSON document beside them."""
    import safetensors

    if len(data) < 8:
        raise TruncatedFileError(f"the file has {len(data)} bytes", FRESH)
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_LIMIT or (len(data) > 8 and data[8:9] != b"{"):
        raise FormatError("the content is not a .mdp file", "save the model with mdp.save('name.mdp')")
    if length > len(data) - 8:
        raise TruncatedFileError(f"the header takes {length} bytes, the file has {len(data) - 8} left", FRESH)
    try:
        tensors = safetensors.deserialize(data)
        header = json.loads(data[8 : 8 + length])
    except Exception as error:  # SafetensorError, and whatever else a future version raises
        kind = TruncatedFileError if "incomplete" in str(error).lower() else CorruptFileError
        raise kind(f"safetensors refuses the file ({shorten(str(error))})", FRESH) from None
    text = (header.get("__metadata__") or {}).get("nearopt")
    if text is None:
        raise FormatError("this safetensors file holds no nearopt model", "save the model with mdp.save('name.mdp')")
    return tensors, parse_json(text, "the metadata")


def check_digest(data: bytes, document: dict[str, Any]) -> None:
    digest = document.get("sha256")
    start = data.find(digest.encode()) if type(digest) is str and len(digest) == 64 and digest.isascii() else -1
    if start < 0:
        raise CorruptFileError("the file has no checksum", FRESH)
    hasher = hashlib.sha256(memoryview(data)[:start])
    hasher.update(BLANK.encode())
    hasher.update(memoryview(data)[start + 64 :])
    if hasher.hexdigest() != digest:
        raise CorruptFileError("the content does not match its checksum", FRESH)


def array_of(name: str, spec: dict[str, Any]) -> np.ndarray:
    """One tensor as an array over the bytes already read."""
    if name not in DTYPES:
        raise CorruptFileError(f"the file has an array {shorten(name)!r} that no model has", FRESH)
    if spec["dtype"] not in DTYPES[name]:
        raise CorruptFileError(f"{name} has type {spec['dtype']}, not {' or '.join(DTYPES[name])}", FRESH)
    dimensions = 2 if name == "positions" else 1
    if len(spec["shape"]) != dimensions:
        raise ShapeError(f"{name} has shape {shorten(str(spec['shape']))}, not {dimensions} axes", FRESH)
    return np.frombuffer(spec["data"], NUMPY[spec["dtype"]]).reshape(spec["shape"])
