"""Single values as plain data, and back to the last bit: numbers, text, arrays, random generators.

Plain data is what JSON holds (numbers are finite), and NumPy arrays of its numeric types. What is not such a thing by
itself becomes a dictionary whose key "is" says what it stands for. Reading it back builds values of NumPy and Python
and nothing else.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

GENERATORS: dict[str, Any] = {
    kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.MT19937)
}
NUMERIC = {
    np.dtype(name) for name in ("bool", "f2", "f4", "f8", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)))
}


class NotPlainError(Exception):
    """A value that is none of these, or plain data that describes none."""


# ---------------------------------------------------------------- to plain data
def to_plain(value: Any) -> Any:
    """Raises: `NotPlainError` for what is no single value."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"is": "float", "text": repr(value)}
    if kind is complex:
        return {"is": "complex", "parts": [to_plain(value.real), to_plain(value.imag)]}
    if kind is bytes:
        return {"is": "bytes", "data": np.frombuffer(value, np.uint8).copy()}
    if kind is np.ndarray:
        return array_to_plain(value)
    if isinstance(value, np.generic):
        return {"is": "scalar", "array": array_to_plain(np.asarray(value))}
    if kind is np.random.Generator:
        return generator_to_plain(value.bit_generator)
    raise NotPlainError


def array_to_plain(array: np.ndarray) -> Any:
    """An array of a numeric type is itself, unless it is in Fortran's order, on which the bits of sums depend."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    if array.dtype in NUMERIC and order == "C":
        return array.copy("C")
    if not writable(array.dtype):
        raise NotPlainError
    data = np.frombuffer(array.tobytes(order), np.uint8).copy()
    return {"is": "array", "dtype": array.dtype.str, "shape": list(array.shape), "order": order, "data": data}


def writable(dtype: np.dtype) -> bool:
    """Whether the bytes of an array are its values: no addresses, and no padding, which long double has too."""
    return not dtype.hasobject and dtype.kind != "V" and dtype.char not in "gG"


def generator_to_plain(bits: Any) -> dict[str, Any]:
    seeds = bits.seed_seq
    if GENERATORS.get(type(bits).__name__) is not type(bits) or type(seeds) not in (np.random.SeedSequence, type(None)):
        raise NotPlainError
    return {
        "is": "generator",
        "state": tree(bits.state, to_plain),
        "seeds": None if seeds is None else tree(seeds.state, to_plain),
    }


def tree(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """`leaf` of everything in dictionaries and sequences."""
    if isinstance(value, dict) and "is" not in value:
        return {name: tree(part, leaf) for name, part in value.items()}
    return [tree(part, leaf) for part in value] if isinstance(value, list | tuple) else leaf(value)


# ---------------------------------------------------------------- from plain data
def from_plain(node: Any) -> Any:
    """What `to_plain` was given. Raises: `NotPlainError`."""
    try:
        match node:
            case None | bool() | int() | str() | float():
                return node
            case np.ndarray() if node.dtype in NUMERIC:
                return node.copy()
            case {"is": "float", "text": "nan" | "inf" | "-inf" as text}:
                return float(text)
            case {"is": "complex", "parts": [real, imaginary]}:
                return complex(from_plain(real), from_plain(imaginary))
            case {"is": "bytes", "data": np.ndarray() as data}:
                return data.astype(np.uint8, casting="no").tobytes()
            case {"is": "array"}:
                return array_from_plain(node)
            case {"is": "scalar", "array": inner}:
                return from_plain(inner)[()]
            case {"is": "generator", "state": state, "seeds": seeds}:
                return generator_from_plain(tree(state, from_plain), tree(seeds, from_plain))
    except (AttributeError, TypeError, ValueError, KeyError, OverflowError, IndexError):
        pass
    raise NotPlainError


def array_from_plain(node: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(node["dtype"])
    if not writable(dtype) or node["order"] not in ("C", "F") or min(node["shape"], default=0) < 0:
        raise NotPlainError
    flat = np.frombuffer(node["data"].astype(np.uint8, casting="no").tobytes(), dtype)
    return flat.reshape(node["shape"], order=node["order"]).copy(order="K")


def generator_from_plain(state: dict[str, Any], seeds: dict[str, Any] | None) -> np.random.Generator:
    position = {"MT19937": lambda: state["state"]["pos"], "Philox": lambda: state["buffer_pos"]}
    if not 0 <= position.get(state["bit_generator"], int)() <= (624 if state["bit_generator"] == "MT19937" else 4):
        raise NotPlainError  # NumPy 2.1 would read there
    if seeds is not None and not 1 <= seeds["pool_size"] <= 64:
        raise NotPlainError
    bits = GENERATORS[state["bit_generator"]](None if seeds is None else np.random.SeedSequence(**seeds))
    bits.state = state
    return np.random.Generator(bits)
