"""An environment as plain data: the walk over its attributes, and what on the way is state, fixed, or neither."""

import collections
import contextlib
import enum
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.envs.toy_text import CliffWalkingEnv, FrozenLakeEnv, TaxiEnv
from gymnasium.vector import VectorEnv

from nearopt.environments import physics
from nearopt.environments.errors import CaptureError
from nearopt.environments.plain import NotPlainError, to_plain
from nearopt.mdp.model import MDP

FIXED = (EnvSpec, MDP, types.ModuleType, type, pathlib.PurePath)
LIBRARIES = {"gymnasium", "jax", "jaxlib", "nearopt", "numpy"}  # their functions remember nothing
FIXED_NAMES = frozenset(
    "_cached_spec _ezpickle_args _ezpickle_kwargs _metadata _saved_kwargs env_fns fullpath metadata mujoco_renderer"
    " render_mode spec unchanging".split()
)
TABLES = (CliffWalkingEnv, FrozenLakeEnv, TaxiEnv)  # their attribute P
CONTAINERS = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset", collections.deque: "deque"}
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by Python code


class Writer:
    """One walk over one environment. Mutable values are numbered as they are met, so that sharing is kept.

    Objects are the environments, and those of the packages that these come from; their attributes are walked in the
    order of their names. Raises: `CaptureError`.
    """

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.kept: list[Any] = []  # as long as they live, no id is given twice
        self.packages = {"gymnasium", "nearopt"}
        self.memory: dict[int, str] = {}  # where the memory of an array was met first

    def node(self, value: Any, where: str) -> Any:
        if type(value) in (tuple, frozenset):
            return self.container(value, where)
        if isinstance(value, enum.Enum) and value.name in type(value).__members__:
            return {"is": "enum", "name": value.name}
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
            return self.plain(value, where)
        if id(value) in self.numbers:
            return {"is": "same", "number": self.numbers[id(value)]}
        self.numbers[id(value)] = len(self.numbers)
        self.kept.append(value)
        if isinstance(value, gymnasium.Space):
            return self.space(value, where)
        if type(value) in CONTAINERS:
            return self.container(value, where)
        if type(value) is dict:
            items = [[self.node(key, f"{where}'s key"), self.node(x, f"{where}[{key!r}]")] for key, x in value.items()]
            return {"is": "dict", "items": items}
        if type(value) is np.ndarray:
            return self.array(value, where)
        if is_from(value, "mujoco", "MjData"):
            return self.plain(value, where, physics.to_plain)
        if isinstance(value, gymnasium.Env | VectorEnv):
            self.packages.add(package(value))
        if is_python(value) and package(value) in self.packages:
            return self.object(value, where)
        return self.plain(value, where)

    def plain(self, value: Any, where: str, convert: Any = to_plain) -> Any:
        try:
            return convert(value)
        except NotPlainError:
            kind = type(value).__name__
            mend = "resume at an episode boundary, or keep the state in numbers and arrays"
            raise CaptureError(f"{where} is a {kind}, which cannot be written as plain data", mend) from None

    def array(self, value: np.ndarray, where: str) -> Any:
        owner = value
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if owner.flags.writeable and (met := self.memory.setdefault(id(owner), where)) != where:
            mend = "copy one of them, or resume at an episode boundary"
            raise CaptureError(f"{where} and {met} are views of the same array", mend)
        self.kept.append(owner)
        node = self.plain(value, where)
        return {"is": "view", "array": node} if is_foreign(value) else node

    def container(self, value: Any, where: str) -> dict[str, Any]:
        items = [self.node(x, f"{where}[{i}]") for i, x in enumerate(value)]
        out = {"is": CONTAINERS[type(value)], "items": items}
        return out | {"maxlen": value.maxlen} if isinstance(value, collections.deque) else out

    def space(self, value: gymnasium.Space, where: str) -> dict[str, Any]:
        """A space is fixed but for its random generator, which an environment may draw from."""
        parts = [self.node(part, where) for part in subspaces(value)]
        return {"is": "space", "generator": self.node(vars(value).get("_np_random"), where), "parts": parts}

    def object(self, value: Any, where: str) -> dict[str, Any]:
        where = called(value, where)
        names = sorted(vars(value))
        fixed = [name for name in names if is_fixed(value, name, vars(value)[name])]
        attributes = {name: self.node(vars(value)[name], f"{where}.{name}") for name in names if name not in fixed}
        return {"is": "object", "class": type(value).__qualname__, "fixed": fixed, "attributes": attributes}


# ---------------------------------------------------------------- what kind of thing a value is
def is_fixed(owner: Any, name: str, value: Any) -> bool:
    """Whether this attribute is no part of the state."""
    if name in FIXED_NAMES or name in getattr(type(owner), "unchanging", ()):
        return True
    return (name == "P" and isinstance(owner, TABLES)) or is_constant(value)


def is_constant(value: Any) -> bool:
    """Specifications, models, functions, surfaces to draw on; a container of nothing else."""
    if type(value) in (list, tuple, dict):
        parts = list(value.values() if isinstance(value, dict) else value)
        return len(parts) > 0 and all(type(part) not in (list, tuple, dict) and is_constant(part) for part in parts)
    if isinstance(value, FIXED) or is_from(value, "mujoco", "MjModel") or package(value) == "pygame":
        return True
    return callable(value) and is_pure(value)


def is_pure(function: Any) -> bool:
    """Whether this function remembers nothing from call to call, as far as can be seen."""
    if isinstance(function, types.MethodType | types.BuiltinMethodType):
        return isinstance(function.__self__, (gymnasium.Env, VectorEnv, gymnasium.Space, types.NoneType, *FIXED))
    if {package(function), str(function.__module__).partition(".")[0]} & LIBRARIES:
        return True
    if isinstance(function, types.FunctionType):
        with contextlib.suppress(ValueError, RecursionError):  # a cell that is empty, a function that calls itself
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            cells += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
            return all(type(cell) in (bool, int, float, str, types.NoneType) or is_constant(cell) for cell in cells)
    return False


def is_from(value: Any, where: str, name: str) -> bool:
    return type(value).__name__ == name and package(value) == where


def package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def called(value: Any, where: str) -> str:
    """An environment goes by the name of its class, whatever is wrapped around it."""
    return type(value).__name__ if isinstance(value, gymnasium.Env | VectorEnv) else where


def is_python(value: Any) -> bool:
    """Whether all that the value holds is in its `__dict__`: no slots, nothing in C."""
    classes = type(value).__mro__[:-1]
    made = all(kind.__flags__ & HEAP_TYPE and not vars(kind).get("__slots__") for kind in classes)
    return made and hasattr(value, "__dict__")


def is_foreign(array: np.ndarray) -> bool:
    """Whether the memory belongs to something else than an array, which has to be written where it is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is not None and array.flags.writeable


def subspaces(space: gymnasium.Space) -> Iterator[gymnasium.Space]:
    for _, value in sorted(vars(space).items()):
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        yield from (x for x in values if isinstance(x, gymnasium.Space))
