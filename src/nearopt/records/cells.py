"""Columns of a table → whole numbers. Each distinct value is read once; the rest is NumPy."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from nearopt.mdp.errors import ColumnError
from nearopt.records.labels import label_text

MISSING, INVALID = -1, -2
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # R writes 100000 as 1e+05
LARGEST = 2**53  # beyond it float64, which other programs keep their numbers in, skips whole numbers


class Coder:
    """Numbers values as they come, at the speed of a dictionary."""

    def __init__(self) -> None:
        self.number: defaultdict[Any, int] = defaultdict(count().__next__)

    def code(self, values: Sequence[Any]) -> np.ndarray:
        return np.fromiter(map(self.number.__getitem__, values), np.int64, len(values))


@dataclass(frozen=True)
class Column:
    """A value per row: the distinct ones, and (rows,) which of them each row holds."""

    distinct: list[Any]
    code: np.ndarray

    @staticmethod
    def of(values: np.ndarray, source: str) -> "Column":
        if values.dtype.kind in "biuf":
            distinct, code = np.unique(values, return_inverse=True)
            return Column(distinct.tolist(), code)
        coder = Coder()  # below, Arrow's lists may stand for names that are tuples
        items = [tuple(v) if isinstance(v, list | np.ndarray) else v for v in values.tolist()]
        try:
            code = coder.code(items)
        except TypeError:
            kind = next(type(item).__name__ for item in items if not is_key(item))
            raise ColumnError(f"{source} holds a {kind}, which is no value", "give numbers or text") from None
        return Column(list(coder.number), code)

    def __len__(self) -> int:
        return len(self.code)

    def __getitem__(self, row: int) -> Any:
        return self.distinct[self.code[row]]

    def read(self, one: Callable[[Any], int]) -> np.ndarray:
        """(rows,) int64: `one` of each value, called once for every distinct one."""
        return np.fromiter(map(one, self.distinct), np.int64, len(self.distinct))[self.code]


def is_key(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def is_missing(value: Any) -> bool:
    return label_text(value) is None or (isinstance(value, str) and value.strip().lower() in ("na", "nan"))


def whole(value: Any) -> int | None:
    """The value as a whole number, from a number or from text; None where it is none."""
    if isinstance(value, str) and NUMBER.fullmatch(text := value.strip()):
        value = float(text) if len(text) > 18 or not text.lstrip("+-").isdigit() else int(text)
    if isinstance(value, int | float | np.integer | np.floating) and abs(value) < LARGEST and value == int(value):
        return int(value)
    return None


def read_time(value: Any) -> int:
    """The time; `LARGEST` where there is none that can be used."""
    number = whole(value)
    return LARGEST if number is None else number


def read_label(texts: dict[str, int]) -> Callable[[Any], int]:
    """A reader of labels that numbers them in `texts` as they come."""

    def read(value: Any) -> int:
        text = label_text(value)
        return MISSING if text is None else texts.setdefault(text, len(texts))

    return read


@dataclass(frozen=True)
class Numbering:
    """What the values of a column may be: numbers from 0, and names if there are any."""

    names: tuple[Hashable, ...] | None

    def reader(self) -> Callable[[Any], int]:
        """From a value to its number, `MISSING` or `INVALID`. A name is meant before a number."""
        names = self.names or ()
        texts = [str(name).strip() for name in names]
        times = Counter(texts)
        table: dict[Any, int] = {text: i for i, text in enumerate(texts) if times[text] == 1}
        table.update({name: i for i, name in enumerate(names)})
        numeric = any(whole(name) is not None for name in names)

        def read(value: Any) -> int:
            known = table.get(value, table.get(value.strip()) if isinstance(value, str) else None)
            if known is not None:
                return known
            if is_missing(value):
                return MISSING
            number = whole(value)
            if number is None or (number < 0 and not numeric):
                return INVALID
            return table.get(number, table.get(str(number), INVALID)) if numeric else number  # 2.0 may be the name 2

        return read

    def fault(self, kind: str, value: Any, asked: bool) -> tuple[str, str]:
        """What is wrong with a value that cannot be read, and a mend; `asked`: whether a model was given."""
        number = whole(value)
        if number is not None and number < 0:
            return f"the {kind} is {number}", f"leave empty what was not recorded, and number the {kind}s from 0"
        if isinstance(value, float) or (isinstance(value, str) and NUMBER.fullmatch(value.strip())):
            if not self.names:
                return f"the {kind} is {value}, which is no number of a {kind}", f"number the {kind}s 0, 1, 2, ..."
        if self.names is None:
            if asked:
                return f"the {kind} is {value!r}, and the model has no {kind} names", f"give the model {kind}_names"
            return f"the {kind} is {value!r}, which is no number", f"pass mdp= to look up its {kind}_names"
        some = ", ".join(repr(name) for name in self.names[:3]) + (", ..." if len(self.names) > 3 else "")
        return f"the {kind} {value!r} is not among the names of the model", f"use one of {some}"
