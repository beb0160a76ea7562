"""Plain data back into an environment that was made anew in the same way.

First everything is read and checked against the environment, then it is written. Values are built anew; objects are
those that the environment has already.
"""

import collections
import enum
import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from nearopt.environments import physics
from nearopt.environments.errors import RestoreError
from nearopt.environments.plain import NotPlainError, from_plain
from nearopt.environments.writing import CONTAINERS, called, is_fixed, is_foreign, is_from, is_python, subspaces

KINDS = {name: kind for kind, name in CONTAINERS.items()}


class Reader:
    """One walk over plain data beside an environment; `write` then does what it found, and `undo` takes it back.

    Raises: `RestoreError`.
    """

    def __init__(self) -> None:
        self.changes: list[tuple[Callable[[], Any], Callable[[], Any]]] = []  # how to do each, and how to undo it
        self.made: list[Any] = []  # the mutable values by number, as `Writer` counts them

    def root(self, data: Any, env: Any) -> None:
        where = type(env).__name__
        try:
            if self.value(data, env, where) is not env:
                raise self.misfit(where, "cannot become another object")
        except RecursionError:
            raise self.misfit(where, "cannot become data nested so deeply") from None

    def write(self) -> None:
        for do, _ in self.changes:
            do()

    def undo(self) -> None:
        for _, undo in reversed(self.changes):
            undo()

    def value(self, node: Any, live: Any, where: str) -> Any:
        """What stands at this place: a new value, or `live` (which is there now) after the changes."""
        out = self.read(node, live, where)
        if is_part(live) and out is not live:
            raise self.misfit(where, f"is a {type(live).__name__}, and nothing in the data")
        return out

    def read(self, node: Any, live: Any, where: str) -> Any:
        try:
            match node:
                case {"is": "same", "number": int(number)} if 0 <= number < len(self.made):
                    return self.made[number]
                case {"is": "enum", "name": str(name)} if isinstance(live, enum.Enum):
                    return type(live)[name]
                case {"is": "tuple" | "frozenset" as name, "items": list(items)}:
                    return KINDS[name](self.items(items, live, where))
                case {"is": "list" | "set" as name, "items": list(items)}:
                    return self.fill(KINDS[name](), items, live, where)
                case {"is": "deque", "items": list(items), "maxlen": int() | None as length}:
                    return self.fill(collections.deque(maxlen=length), items, live, where)
                case {"is": "dict", "items": list(items)}:
                    return self.dictionary(items, live, where)
                case {"is": "view", "array": array}:
                    return self.view(from_plain(array), live)
                case {"is": "space", "generator": generator, "parts": list(parts)}:
                    return self.space(generator, parts, live, where)
                case {"is": "object", "class": str(name), "fixed": list(fixed), "attributes": dict(attributes)}:
                    return self.object(name, fixed, attributes, live, where)
                case {"is": "MjData"}:
                    return self.simulation(node, live)
            made = from_plain(node)
        except RestoreError:
            raise
        except (NotPlainError, TypeError, ValueError, KeyError):
            found = f"{node!r:.80}" if not isinstance(node, dict) else f"{node.get('is')!r:.80}, with {sorted(node)}"
            raise self.misfit(where, f"cannot become {found}") from None
        return self.keep(made) if isinstance(made, np.ndarray | np.random.Generator) else made

    def keep(self, value: Any) -> Any:
        self.made.append(value)
        return value

    def misfit(self, where: str, what: str) -> RestoreError:
        return RestoreError(f"{where} {what}", "give what capture returned, and an environment made in the same way")

    # ------------------------------------------------------------ values
    def items(self, items: list[Any], live: Any, where: str) -> list[Any]:
        near = list(live) if isinstance(live, list | tuple) else []
        if len(near) != len(items) and any(map(is_part, near)):
            raise self.misfit(where, f"has {len(near)} parts, and {len(items)} in the data")
        near += [None] * (len(items) - len(near))
        return [self.value(item, near[i], f"{where}[{i}]") for i, item in enumerate(items)]

    def fill(self, out: Any, items: list[Any], live: Any, where: str) -> Any:
        self.keep(out)  # before its items, which may refer to it
        values = self.items(items, live, where)
        if isinstance(out, set):
            out.update(values)
        else:
            out.extend(values)
        return out

    def dictionary(self, items: list[Any], live: Any, where: str) -> dict[Any, Any]:
        out = self.keep({})
        for pair in items:
            key, node = pair
            key = self.value(key, None, f"{where}'s key")
            out[key] = self.value(node, live.get(key) if isinstance(live, dict) else None, f"{where}[{key!r}]")
        return out

    def view(self, array: Any, live: Any) -> np.ndarray:
        """An array in the memory of something else is written where it is."""
        if not isinstance(array, np.ndarray) or not isinstance(live, np.ndarray) or not is_foreign(live):
            raise NotPlainError
        if (array.shape, array.dtype) != (live.shape, live.dtype):
            raise NotPlainError
        self.changes.append(
            (functools.partial(np.copyto, live, array), functools.partial(np.copyto, live, live.copy()))
        )
        return self.keep(live)

    # ------------------------------------------------------------ objects
    def space(self, generator: Any, parts: list[Any], live: Any, where: str) -> gymnasium.Space:
        if not isinstance(live, gymnasium.Space):
            raise NotPlainError
        self.keep(live)
        for part, own in zip(parts, subspaces(live), strict=True):
            self.value(part, own, where)
        made = self.value(generator, None, where)
        if not isinstance(made, np.random.Generator | None):
            raise NotPlainError
        self.set(vars(live), "_np_random", made)
        return live

    def simulation(self, node: dict[str, Any], live: Any) -> Any:
        if not is_from(live, "mujoco", "MjData"):
            raise NotPlainError
        physics.check(live, node)
        before = physics.to_plain(live)
        self.changes.append(
            (functools.partial(physics.write, live, node), functools.partial(physics.write, live, before))
        )
        return self.keep(live)

    def object(self, name: str, fixed: list[Any], attributes: dict[str, Any], live: Any, where: str) -> Any:
        if type(live).__qualname__ != name or not is_python(live):
            raise self.misfit(where, f"is a {type(live).__qualname__}, and the data that of a {name}")
        self.keep(live)
        have, where = vars(live), called(live, where)
        for own, value in have.items():
            if own not in attributes and own not in fixed and not is_fixed(live, own, value):
                raise self.misfit(f"{where}.{own}", "is missing in the data")
        for own in sorted(attributes):
            if is_fixed(live, own, have.get(own)) or callable(getattr(type(live), own, None)):
                raise self.misfit(f"{where}.{own}", "is no part of the state, and the data has it")
            new = self.value(attributes[own], have.get(own), f"{where}.{own}")
            self.set(have, own, new)
        return live

    def set(self, have: dict[str, Any], name: str, value: Any) -> None:
        back = (
            functools.partial(have.__setitem__, name, have[name]) if name in have else functools.partial(have.pop, name)
        )
        self.changes.append((functools.partial(have.__setitem__, name, value), back))


def is_part(value: Any) -> bool:
    """Whether the environment cannot do without this very object."""
    return isinstance(value, gymnasium.Env | VectorEnv | gymnasium.Space) or is_from(value, "mujoco", "MjData")
