"""Data that is not the captured state of an environment: refused by name, and the environment stays as it was."""

import copy

import gymnasium
import numpy as np
import pytest

from nearopt.environments.capture import capture, restore, same
from nearopt.environments.errors import RestoreError
from nearopt.environments.plain import NotPlainError, from_plain


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes its warnings into the working folder."""
    monkeypatch.chdir(tmp_path)


def started(id="CartPole-v1"):
    env = gymnasium.make(id)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    return env


def nodes(data, path=()):
    """Every place in the data."""
    yield path
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from nodes(data[key], (*path, key))


def changed(data, path, change):
    data = copy.deepcopy(data)
    if not path:
        return change(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    return data


def nested(depth):
    node = None
    for _ in range(depth):
        node = {"is": "list", "items": [node]}
    return node


CHANGES = {
    "a number": lambda node: 12345.5,
    "nothing": lambda node: {},
    "a list": lambda node: [1],
    "another kind": lambda node: {"is": "nonsense"},
    "same": lambda node: {"is": "same", "number": 10**9},
    "array": lambda node: np.zeros((3, 7), np.float32) if isinstance(node, np.ndarray) else np.array(["x"]),
    "deep": lambda node: nested(3000),
    "missing": lambda node: {key: node[key] for key in sorted(node)[1:]} if isinstance(node, dict) and node else "x",
    "more": lambda node: node | {"reset": 1} if isinstance(node, dict) else None,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("id", ["CartPole-v1", "Hopper-v5"])
def test_damaged_data_is_refused_or_harmless(id, change):
    """Free attributes may take any plain value, so some damage is a state; all other damage is named, and undone."""
    env, fresh = started(id), started(id)
    data = capture(env)
    before, refused, total = capture(fresh), 0, 0
    places = list(nodes(data))
    for path in places[:: 1 + len(places) // 100]:
        try:
            restore(fresh, changed(data, path, CHANGES[change]))
        except RestoreError as error:
            assert error.mend
            refused += 1
            assert same(capture(fresh), before), path
        else:
            restore(fresh, before)
        total += 1
    assert refused > 0.3 * total


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), None, "TimeLimit is a TimeLimit, and nothing in the data"),
        ((), {}, "TimeLimit cannot become None, with"),
        (("class",), "OrderEnforcing", "TimeLimit is a TimeLimit, and the data that of a OrderEnforcing"),
        (("attributes", "_elapsed_steps"), [], r"TimeLimit._elapsed_steps cannot become \[\]"),
        (("attributes",), {}, "TimeLimit.env is missing in the data|TimeLimit._action_space is missing in the data"),
        (("attributes", "step"), 1, "TimeLimit.step is no part of the state"),
        (("attributes", "metadata"), {}, "TimeLimit.metadata is no part of the state"),
    ],
)
def test_misfits_are_named(path, value, message):
    env = started()
    data = capture(env)
    if path:
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    with pytest.raises(RestoreError, match=message):
        restore(started(), data if path else value)


@pytest.mark.parametrize(
    "node",
    [
        {"is": "set", "items": [1, 1]},
        {"is": "dict", "items": [[1, 2], [1, 3]]},
        {"is": "list", "items": [], "more": 1},
    ],
    ids=str,
)
def test_data_that_says_the_same_otherwise_is_refused(node):
    env = started()
    env.unwrapped.extra = None
    data, before = capture(env), capture(env)
    base_of(data)["extra"] = node
    with pytest.raises(RestoreError, match="TimeLimit does not keep the state that it is given"):
        restore(env, data)
    assert same(capture(env), before)


BYTES = np.zeros(8, np.uint8)
ARRAY = {"is": "array", "dtype": ">f8", "shape": [1], "order": "C", "data": BYTES}


@pytest.mark.parametrize(
    "node",
    [
        ARRAY | {"data": np.ones(8)},
        ARRAY | {"data": BYTES[:7]},
        ARRAY | {"data": [0] * 8},
        ARRAY | {"dtype": "O"},
        ARRAY | {"dtype": "f8,f4"},
        ARRAY | {"dtype": "nonsense"},
        ARRAY | {"shape": [2]},
        ARRAY | {"shape": [-7]},
        ARRAY | {"order": "Z"},
        {"is": "float", "text": "1e5"},
        {"is": "bytes", "data": np.zeros(2)},
        {"is": "complex", "parts": [1.0]},
        {"is": "complex", "parts": ["1", None]},
        {"is": "scalar", "array": 3},
        {"is": "scalar", "array": None},
        {"is": "generator", "state": {"bit_generator": "RandomState"}, "seeds": None},
        {"is": "generator", "state": {"bit_generator": "PCG64"}, "seeds": {"pool_size": 10**12}},
        {"is": "generator", "state": [], "seeds": None},
        {"is": ["list"]},
        np.array([object()]),
        object(),
        (),
    ],
    ids=lambda node: str(node).partition(" at 0x")[0][:60],
)
def test_nodes_that_describe_nothing(node):
    with pytest.raises(NotPlainError):
        from_plain(node)


def test_the_state_of_another_environment_is_refused():
    with pytest.raises(RestoreError, match="is a WalkerEnv|is a Walker2dEnv"):
        restore(started("Walker2d-v5"), capture(started("Hopper-v5")))
    with pytest.raises(RestoreError, match="TimeLimit"):
        restore(gymnasium.make("CartPole-v1").unwrapped, capture(started()))


def base_of(data):
    """The attributes of the innermost environment, below three wrappers."""
    for _ in range(3):
        data = data["attributes"]["env"]
    return data["attributes"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda node: node.update(state=node["state"][:-1]),
        lambda node: node.update(state=node["state"].astype(np.float32)),
        lambda node: node["fields"].pop("xpos"),
        lambda node: node["fields"].update(ncon=np.zeros(1)),
        lambda node: node["fields"].update(xpos=node["fields"]["xpos"].T.copy()),
        lambda node: node["flags"].update({name: 7 for name in node["flags"]}),
    ],
)
def test_damaged_physics_is_refused(damage):
    env = started("Hopper-v5")
    data, before = capture(env), capture(env)
    damage(base_of(data)["data"])
    with pytest.raises(RestoreError, match="HopperEnv.data cannot become 'MjData'"):
        restore(env, data)
    assert same(capture(env), before)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("MT19937", "pos", 10**6), ("MT19937", "pos", -1), ("Philox", "buffer_pos", 77), ("Philox", "buffer_pos", -1)],
)
def test_generators_that_would_read_elsewhere_are_refused(kind, name, value):
    env = started()
    env.unwrapped.np_random = np.random.Generator(getattr(np.random, kind)(0))
    data = capture(env)
    state = base_of(data)["_np_random"]["state"]
    (state["state"] if name == "pos" else state)[name] = value
    with pytest.raises(RestoreError, match="_np_random cannot become 'generator'"):
        restore(started(), data)
