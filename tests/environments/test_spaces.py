"""Spaces: every observation as numbers, as Gymnasium flattens them; what agents cannot use is refused."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, OneOf, Sequence, Text, Tuple
from gymnasium.vector.utils import concatenate, create_empty_array

from nearopt.environments import errors as e
from nearopt.environments.spaces import Spaces

TWO = Discrete(2)
OBSERVATIONS = [
    Box(-1, 1, (3,)),
    Box(-1, 1, (1,), np.float64),
    Box(0, 255, (2, 3), np.uint8),
    Box(-1, 1, ()),
    Discrete(5, start=-2),
    Discrete(4, dtype=np.uint8),
    MultiBinary(4),
    MultiBinary((2, 2)),
    MultiDiscrete([2, 3], start=[1, -4]),
    MultiDiscrete([[2, 3], [4, 5]]),
    Tuple((Discrete(3), Box(-1, 1, (2, 2)), Dict(b=MultiBinary(2), a=Discrete(2, start=3)))),
    Dict(z=Box(-np.inf, np.inf, (2,), np.float64), a=Discrete(2)),
]


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_observations_are_flattened_as_gymnasium_does(space):
    space.seed(0)
    samples = [space.sample() for _ in range(4)]
    expected = np.stack([gymnasium.spaces.flatten(space, sample) for sample in samples]).astype(np.float32)
    spaces = Spaces(space, TWO)
    batch = spaces.flatten(concatenate(space, samples, create_empty_array(space, 4)))
    for found in (np.stack([spaces.flatten(sample) for sample in samples]), batch):
        assert found.dtype == np.float32 and found.shape == (4, spaces.observation_size)
        np.testing.assert_array_equal(found, expected)


def test_flattening_copies():
    observation = np.zeros(3, np.float32)
    Spaces(OBSERVATIONS[0], TWO).flatten(observation)[:] = 1
    assert not observation.any()


def test_actions_of_a_box():
    spaces = Spaces(TWO, Box(np.float32([-1, 0]), np.float32([0.5, 3])))
    assert (spaces.discrete, spaces.action_size) == (False, 2)
    assert spaces.low.dtype == spaces.high.dtype == np.float32
    np.testing.assert_array_equal([spaces.low, spaces.high], [[-1, 0], [0.5, 3]])


def test_rounded_bounds_stay_inside():
    space = Box(np.array([-0.1, 0.1]), np.array([0.1, 0.3]), dtype=np.float64)
    spaces = Spaces(TWO, space)
    for bound, own in ((spaces.low, space.low), (spaces.high, space.high)):
        assert bound.dtype == np.float32 and bound.astype(np.float64) in space
        np.testing.assert_allclose(bound, own, rtol=1e-6)


def test_actions_that_are_numbered():
    spaces = Spaces(TWO, Discrete(3, start=-1))
    assert (spaces.discrete, spaces.num_actions, spaces.first_action) == (True, 3, -1)


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_files(space):
    spaces = Spaces(space, Box(np.float32([-0.1, -2]), np.float32([0.1, 0.7])))
    data = json.loads(json.dumps(spaces.to_json(), allow_nan=False))
    again = Spaces.from_json(data)
    expected = space if isinstance(space, Box | Discrete) else gymnasium.spaces.flatten_space(space)
    for found, wanted in ((again.observation, expected), (again.action, spaces.action)):
        assert type(found) is type(wanted) and found.shape == wanted.shape
        if isinstance(wanted, Box):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal([found.low, found.high], [wanted.low, wanted.high])
        else:
            assert (found.n, found.start) == (wanted.n, wanted.start)
    assert again.to_json() == data


# ---------------------------------------------------------------- mistakes
INF = np.inf


@pytest.mark.parametrize(
    ("observation", "action", "error", "message"),
    [
        (TWO, MultiDiscrete([2, 3]), e.ActionSpaceError, "MultiDiscrete"),
        (TWO, Box(-1, 1, (2, 2)), e.ActionSpaceError, r"\(2, 2\)"),
        (TWO, Box(-1, 1, ()), e.ActionSpaceError, "Box"),
        (TWO, Box(-1, 1, (0,)), e.ActionSpaceError, r"\(0,\)"),
        (TWO, Box(0, 9, (2,), np.int32), e.ActionSpaceError, "int32"),
        (TWO, Box(np.float32([-1, -INF]), np.float32([1, 1])), e.ActionBoundsError, "action 1 ranges from -inf to 1.0"),
        (TWO, Box(-1, INF, (1,)), e.ActionBoundsError, "action 0 ranges from -1.0 to inf"),
        (TWO, Box(1, 1, (1,)), e.ActionBoundsError, "action 0 ranges from 1.0 to 1.0"),
        (TWO, Box(-3e38, 3e38, (1,)), e.ActionBoundsError, "e.38"),
        (Graph(Box(-1, 1), None), TWO, e.ObservationSpaceError, "Graph"),
        (Sequence(TWO), TWO, e.ObservationSpaceError, "Sequence"),
        (Text(5), TWO, e.ObservationSpaceError, "Text"),
        (OneOf([TWO, TWO]), TWO, e.ObservationSpaceError, "OneOf"),
        (Dict(a=TWO, b=Tuple([Text(5)])), TWO, e.ObservationSpaceError, "Text"),
        (Box(-1, 1, (0,)), TWO, e.ObservationSpaceError, "hold nothing"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_spaces_that_agents_cannot_use(observation, action, error, message):
    with pytest.raises(error, match=message) as caught:
        Spaces(observation, action)
    assert caught.value.mend


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (Box(-1, 1, (3,)), np.zeros(4)),
        (Box(-1, 1, (3,)), np.zeros((3, 1))),
        (Box(-1, 1, (3,)), np.zeros((2, 2, 3))),
        (Box(-1, 1, (3,)), "north"),
        (Box(-1, 1, (3,)), None),
        (Box(-1, 1, (2, 3)), np.zeros((3, 2))),
        (Discrete(3), 3),
        (Discrete(3), -1),
        (Discrete(3), 1.0),
        (Discrete(3, start=1), 0),
        (MultiDiscrete([2, 3]), [2, 0]),
        (Dict(a=TWO), {"b": 1}),
        (Tuple([TWO, TWO]), (1,)),
    ],
    ids=str,
)
def test_observations_of_another_space(space, observation):
    with pytest.raises(e.ObservationError, match="is no observation of"):
        Spaces(space, TWO).flatten(observation)


GOOD = Spaces(Box(-1, 1, (2,)), TWO).to_json()
BOX = GOOD["observation"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"observation": BOX},
        GOOD | {"more": 1},
        *(
            {"observation": space, "action": GOOD["action"]}
            for space in (
                "Box",
                {"kind": "Text", "max_length": 5},
                {"kind": "Discrete", "n": 2},
                {"kind": "Discrete", "n": 0, "start": 0},
                {"kind": "Discrete", "n": True, "start": 0},
                {"kind": "Discrete", "n": 10**12, "start": 0},
                {"kind": "Discrete", "n": 3, "start": 10**30},
                BOX | {"shape": [10**6, 10**6]},
                BOX | {"shape": [-2, -1]},
                BOX | {"shape": [10**9, 0]},
                BOX | {"shape": [2.0]},
                BOX | {"shape": [1000, "x"]},
                BOX | {"dtype": "object"},
                BOX | {"dtype": "U9"},
                BOX | {"dtype": "float32, float32"},
                BOX | {"dtype": "nonsense"},
                BOX | {"low": [0.0, 0.0, 0.0]},
                BOX | {"low": "nan"},
                BOX | {"low": float("nan")},
                BOX | {"low": "zero"},
                BOX | {"low": None},
                BOX | {"low": {}},
                BOX | {"low": 2.0},
                BOX | {"low": [[0.0], [0.0, 1.0]]},
                BOX | {"dtype": "uint8", "low": -1},
                BOX | {"dtype": "uint8", "low": "-inf"},
                BOX | {"more": 1},
            )
        ),
    ],
    ids=str,
)
def test_damaged_files(data):
    with pytest.raises(e.SpaceDataError):
        Spaces.from_json(data)
