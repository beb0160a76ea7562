"""Names of subjects and episodes: whole numbers, or text."""

import re
from typing import Any

import numpy as np

from nearopt.mdp.errors import LabelError, TrajectoryShapeError

WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # as Python prints it, and sure to fit int64


def label_text(value: Any) -> str | None:
    """The label as text, or None where there is none: 3, 3.0, "3" and " 3" are one label."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas, which need not be installed
        return None
    if isinstance(value, float | np.floating):
        if value != value:
            return None
        value = int(value) if abs(value) < 2**53 and value == int(value) else value
    return str(value).strip() or None


def as_labels(values: Any, name: str) -> np.ndarray:
    """(n,) int64 where all labels are whole numbers, otherwise text. Raises `LabelError` for a missing one."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise TrajectoryShapeError(f"{name} has shape {array.shape}", "give one label per trajectory")
    if array.dtype.kind == "i":
        return array.astype(np.int64)
    texts = [label_text(value) for value in array.tolist()]
    if None in texts:
        raise LabelError(f"trajectory {texts.index(None)} has no {name}", "give every trajectory a label, or give none")
    whole = all(WHOLE.fullmatch(text) for text in texts if text is not None)
    return np.array(texts, np.int64 if whole else np.str_)
