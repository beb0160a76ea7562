"""The state of a MuJoCo simulation as arrays: what decides the next step, and what observations and rewards read."""

import hashlib
import importlib
from typing import Any

import numpy as np

from nearopt.environments.plain import NotPlainError


def to_plain(data: Any) -> dict[str, Any]:
    """The integration state of an `MjData`, with every field of floats whose size its model decides.

    Sizes, pointers and indices stay out: MuJoCo computes them anew in each step, and trusts them.
    Raises: `NotPlainError` where bodies may sleep, which only they tell.
    """
    mujoco = library()
    if data.model.opt.enableflags & getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", 0):
        raise NotPlainError
    state = np.empty(mujoco.mj_stateSize(data.model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(data.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    names, flags = fields(data)
    arrays = {name: getattr(data, name).copy() for name in names}
    flags = {name: getattr(data, name) for name in flags}
    return {"is": "MjData", "model": fingerprint(data.model), "state": state, "fields": arrays, "flags": flags}


def fingerprint(model: Any) -> str:
    """A checksum of the model, which is no part of the state: it has to be the same where the state is restored."""
    mujoco = library()
    content = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return hashlib.sha256(content).hexdigest()


def check(data: Any, node: dict[str, Any]) -> None:
    """Raises: `NotPlainError` where `node` is not the state of such a simulation."""
    expected = to_plain(data)
    if node.get("model") != expected["model"]:
        raise NotPlainError
    for name in ("fields", "flags"):
        if not isinstance(node.get(name), dict) or set(node[name]) != set(expected[name]):
            raise NotPlainError
    for array, like in ((node.get("state"), expected["state"]), *pairs(node["fields"], expected["fields"])):
        if not isinstance(array, np.ndarray) or array.shape != like.shape or array.dtype != like.dtype:
            raise NotPlainError
    if not all(isinstance(flag, bool) for flag in node["flags"].values()):
        raise NotPlainError


def write(data: Any, node: dict[str, Any]) -> None:
    """Sets what `to_plain` read."""
    mujoco = library()
    mujoco.mj_setState(data.model, data, node["state"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, array in node["fields"].items():
        getattr(data, name)[...] = array
    for name, flag in node["flags"].items():
        setattr(data, name, flag)


def fields(data: Any) -> tuple[list[str], list[str]]:
    """Names of the arrays of floats that exist before the first step, and of the flags that say what was computed."""
    mujoco = library()
    fresh = mujoco.MjData(data.model)
    names = [name for name in dir(fresh) if not name.startswith("_")]
    values = [(name, getattr(fresh, name)) for name in names]
    floats = [
        name
        for name, x in values
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size and x.base is not None
    ]
    return floats, [name for name in names if name.startswith("flg_")]


def pairs(left: dict[str, Any], right: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(left[name], right[name]) for name in right]


def library() -> Any:
    """MuJoCo, an extra, whose functions have no types."""
    return importlib.import_module("mujoco")
