"""Small arrays, and a replay buffer whose rows tell their own number."""

import numpy as np

TENSORS = {
    "weights": np.arange(6.0).reshape(2, 3),
    "half": np.array([1.5, -np.inf], np.float16),
    "mask": np.array([True, False, True]),
    "count": np.array(7, np.uint32),
    "none": np.zeros((0, 4), np.int8),
}
FACTS = {"rng": 2**127 + 1, "name": "ü", "list": [1.5, -0.0, None, True], "deep": {"a": {"b": []}}}


def same(given, wanted) -> bool:
    """The same names, types, shapes and bits."""
    wanted = {name: np.asarray(array) for name, array in wanted.items()}
    return given.keys() == wanted.keys() and all(
        (given[name].dtype, given[name].shape, given[name].tobytes()) == (array.dtype, array.shape, array.tobytes())
        for name, array in wanted.items()
    )


def rows(first: int, end: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    number = np.arange(first, end)
    return {
        "observation": (number[:, None] + np.array([0.0, 0.25, 0.5]) + shift).astype(np.float32),
        "reward": number + shift,
        "terminated": number % 3 == 0,
    }
