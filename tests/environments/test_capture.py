"""Captured and restored in a fresh copy, an environment goes on as if nothing had happened, to the last bit."""

import copy
import enum
import json
import os
from collections import deque
from dataclasses import dataclass, field

import gymnasium
import numpy as np
import pytest
import safetensors.numpy
from gymnasium import wrappers
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import nearopt as no
from nearopt.environments.capture import capture, move, reason_not_exact, restore, same, verified
from nearopt.environments.errors import CaptureError
from nearopt.environments.plain import GENERATORS, from_plain, to_plain
from nearopt.environments.streams import Streams
from tests.environments.counting import Counting

MDP = no.MDP.from_arrays(
    np.random.default_rng(0).dirichlet(np.ones(6), (6, 3)), np.arange(6.0), terminal=[False] * 5 + [True]
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes its warnings into the working folder."""
    monkeypatch.chdir(tmp_path)


def through_files(data):
    """As a checkpoint does it: JSON without infinities, keys sorted, and arrays in safetensors."""
    arrays = {}

    def split(node):
        if isinstance(node, np.ndarray):
            arrays[str(len(arrays))] = node
            return {"array": str(len(arrays) - 1)}
        if isinstance(node, dict):
            return {name: split(part) for name, part in node.items()}
        return [split(part) for part in node] if isinstance(node, list) else node

    def join(node):
        if isinstance(node, dict) and set(node) == {"array"}:
            return loaded[node["array"]]
        if isinstance(node, dict):
            return {name: join(part) for name, part in node.items()}
        return [join(part) for part in node] if isinstance(node, list) else node

    text = json.dumps(split(data), allow_nan=False, sort_keys=True)
    loaded = safetensors.numpy.load(safetensors.numpy.save(arrays))
    return join(json.loads(text))


def wrapped(id, **kwargs):
    def make():
        env = gymnasium.make(id, max_episode_steps=60, **kwargs)
        env = wrappers.RecordEpisodeStatistics(env, buffer_length=3)
        if isinstance(env.observation_space, Box):
            env = wrappers.NormalizeObservation(env)
        return wrappers.NormalizeReward(env)

    return make


def sync(id, mode, copies=True):
    return lambda: wrappers.vector.NormalizeReward(SyncVectorEnv([wrapped(id)] * 3, autoreset_mode=mode, copy=copies))


CLASSIC = ["CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1"]
TOY = ["FrozenLake-v1", "CliffWalking-v1", "Taxi-v4", "Blackjack-v1"]
MUJOCO = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Swimmer-v5", "Humanoid-v5"]
MAKERS = {id: wrapped(id) for id in CLASSIC + TOY + MUJOCO} | {
    "plain CartPole": lambda: gymnasium.make("CartPole-v1"),
    "plain HalfCheetah": lambda: gymnasium.make("HalfCheetah-v5"),
    "fickle Taxi": wrapped("Taxi-v4", fickle_passenger=True, is_rainy=True),
    "MDP": lambda: wrappers.TimeLimit(MDP.to_gymnasium(one_hot=True), 50),
    "next step": sync("CartPole-v1", AutoresetMode.NEXT_STEP),
    "same step": sync("Hopper-v5", AutoresetMode.SAME_STEP),
    "disabled, buffers": sync("Blackjack-v1", AutoresetMode.DISABLED, copies=False),
}


def actions_of(env, rng, count):
    space = copy.deepcopy(env.action_space)
    space.seed(int(rng.integers(2**31)))
    return [space.sample() for _ in range(count)]


def go_on(env, actions):
    return [move(env, copy.deepcopy(action)) for action in actions]


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
@pytest.mark.parametrize("name", MAKERS)
def test_a_fresh_copy_goes_on_to_the_last_bit(name):
    rng = np.random.default_rng(sum(map(ord, name)))
    one = MAKERS[name]()
    one.reset(seed=5)
    for _ in range(5):
        go_on(one, actions_of(one, rng, int(rng.integers(0, 150))))
        data = through_files(capture(one))
        other = MAKERS[name]()
        if rng.random() < 0.5:
            other.reset(seed=1)
            go_on(other, actions_of(other, rng, 7))
        restore(other, data)
        actions = actions_of(one, rng, 300)
        assert same(go_on(one, actions), go_on(other, actions))
        other.close()
    one.close()


def test_capturing_changes_nothing_and_copies():
    one, other = (gymnasium.make("CartPole-v1") for _ in range(2))
    for env in (one, other):
        env.reset(seed=0)
    data = capture(one)
    before = through_files(data)
    actions = actions_of(one, np.random.default_rng(0), 50)
    assert same(go_on(one, actions), go_on(other, actions))
    assert same(data, before)
    restore(other, data)
    go_on(other, actions)
    assert same(data, before)


def test_what_never_changes_is_left_alone():
    env = gymnasium.make("Taxi-v4")
    env.reset(seed=0)
    text = json.dumps(capture(env), default=lambda array: array.tolist())
    assert len(text) < 20_000 and '"P": ' not in text
    env = gymnasium.make("HalfCheetah-v5")
    env.reset(seed=0)
    assert str(env.unwrapped.fullpath) not in str(capture(env))


def test_streams_know_what_is_pending():
    def make():
        return Streams(SyncVectorEnv([lambda i=i: Counting(i) for i in range(3)]))

    one, zeros = make(), np.zeros(3, int)
    one.reset(0)
    while not one.step(zeros).terminated.any():
        pass
    other = make()
    restore(other, through_files(capture(one)))
    for _ in range(30):
        for left, right in zip(one.step(zeros), other.step(zeros), strict=True):
            np.testing.assert_array_equal(left, right)


# ---------------------------------------------------------------- every kind of value
class Phase(enum.Enum):
    WAIT = 1
    RUN = 2


@dataclass
class Helper:
    speed: float = 0.5
    trail: list = field(default_factory=list)


class Odd(gymnasium.Env):
    """Keeps its state in every way that there is."""

    observation_space = Box(-np.inf, np.inf, (4,), np.float64)
    action_space = Discrete(2)
    unchanging = ("big",)

    def __init__(self):
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float64)
        self.side = Dict(a=Tuple([Discrete(9), Box(-1.0, 1.0)]))
        self.big = object()
        self.phase, self.helper = Phase.WAIT, Helper()
        self.shared = self.alias = np.zeros(2)
        self.memory = deque(maxlen=3)
        self.legacy = np.random.Generator(np.random.MT19937(3))
        self.children = np.random.Generator(np.random.Philox(4))
        self.function, self.functions = len, [min, max]
        self.cycle = []
        self.cycle.append(self.cycle)
        self.helper_again = self.helper

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.side.seed(0)
        self.numbers = (
            np.float32(1.5),
            2,
            2.5,
            True,
            np.int8(3),
            float("inf"),
            complex(1, -0.0),
            b"\x00\xff",
            "ü",
            None,
        )
        self.table = {("a", 1): {3, 4}, None: frozenset({"x"}), 2.0: [np.str_("u"), np.bool_(True)]}
        self.fortran = np.asfortranarray(self.np_random.normal(size=(50, 60)).astype(np.float32))
        self.text = np.array([b"ab", b"c"])
        self.exact = np.complex64(1 / 3)
        self.swapped = np.arange(3.0).astype(">f8")
        self.shared[:] = 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.shared.sum(), len(self.memory), self.fortran.sum(), self.exact.real], np.float64)

    def step(self, action):
        self.phase = Phase.RUN if action else Phase.WAIT
        self.alias += [self.np_random.random(), self.legacy.normal()]
        self.memory.append(self.numbers[0] * action + len(self.cycle[0][0]))
        self.helper_again.speed *= 1.1
        self.helper.trail.append((self.helper.speed, self.numbers))
        draw = self.children.spawn(1)[0].random() + float(self.side.sample()["a"][1][0])
        reward = draw + sum(self.memory) + self.helper.speed + (self.phase is Phase.RUN)
        return self.observe(), reward, bool(self.legacy.random() < 0.1), False, {}


def test_every_kind_of_value():
    rng = np.random.default_rng(0)
    one, other = Odd(), Odd()
    one.reset(seed=0)
    go_on(one, actions_of(one, rng, 25))
    fixed = other.big, other.functions
    restore(other, through_files(capture(one)))
    assert other.alias is other.shared and other.helper_again is other.helper and other.cycle[0] is other.cycle
    assert (other.big, other.functions) == fixed
    assert [type(x) for x in other.numbers] == [type(x) for x in one.numbers]
    assert other.numbers == one.numbers and other.table == one.table and other.exact == one.exact
    assert other.fortran.flags.f_contiguous and other.swapped.dtype.str == ">f8" and other.text.dtype == "S2"
    assert other.memory.maxlen == 3
    actions = actions_of(one, rng, 200)
    assert same(go_on(one, actions), go_on(other, actions))
    assert verified(Odd) is None


def test_memory_of_a_simulation_is_written_where_it_is():
    def make():
        env = gymnasium.make("Hopper-v5")
        env.unwrapped.position = env.unwrapped.data.qpos  # as some environments do, and read it in their rewards
        return env

    one, other = make(), make()
    one.reset(seed=0)
    one.step(one.action_space.sample())
    restore(other, through_files(capture(one)))
    np.testing.assert_array_equal(other.unwrapped.position, one.unwrapped.position)
    assert other.unwrapped.position is other.unwrapped.data.qpos


@pytest.mark.parametrize("kind", GENERATORS)
def test_random_generators(kind):
    one = np.random.Generator(getattr(np.random, kind)(7))
    one.integers(5, size=3, dtype=np.int16)
    one.random(dtype=np.float32)
    one.spawn(2)
    other = from_plain(through_files(to_plain(one)))
    for draw in (lambda g: g.integers(9, size=700), lambda g: g.normal(size=5), lambda g: g.spawn(1)[0].random()):
        np.testing.assert_array_equal(draw(one), draw(other))


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(0),
        np.array("x"),
        np.zeros((0, 3), "U2"),
        np.array(1.5),
        np.float16(2),
        np.array([1 + 2j]),
        np.zeros((2, 0), order="F"),
    ],
    ids=repr,
)
def test_odd_arrays(value):
    back = from_plain(through_files(to_plain(value)))
    assert type(back) is type(value) and back.dtype == value.dtype and back.shape == value.shape
    np.testing.assert_array_equal(back, value)


# ---------------------------------------------------------------- what cannot be captured
def with_attributes(**attributes):
    env = Counting()
    vars(env).update(attributes)
    return env


class Slots:
    __slots__ = ("x",)


shared = np.zeros(4)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"rng": iter([1, 2])}, "Counting.rng is a list_iterator, which"),
        ({"file": open(os.devnull)}, "Counting.file is a TextIOWrapper, which"),  # noqa: SIM115
        ({"table": {"a": [object()]}}, r"Counting.table\['a'\]\[0\] is a object, which"),
        ({"slots": Slots()}, "Counting.slots is a Slots, which"),
        ({"array": np.array([object()])}, "Counting.array is a ndarray, which"),
        ({"record": np.zeros(2, "f8,i4")}, "Counting.record is a ndarray, which"),
        ({"long": np.longdouble(1)}, "Counting.long is a longdouble, which"),
        ({"old": np.random.RandomState(0)}, "Counting.old is a RandomState, which"),
        ({"order": __import__("collections").OrderedDict()}, "Counting.order is a OrderedDict, which"),
        ({"a": shared, "b": shared[:2]}, "Counting.b and Counting.a are views of the same array"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_what_cannot_be_captured_is_named(attributes, message):
    env = with_attributes(**attributes)
    with pytest.raises(CaptureError, match=message) as caught:
        capture(env)
    assert caught.value.mend and reason_not_exact(env) == caught.value.problem
    for value in attributes.values():
        getattr(value, "close", int)()


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # SWIG's: an error there ends the process
def test_box2d_is_named():
    env = gymnasium.make("LunarLander-v3")
    env.reset(seed=0)
    assert reason_not_exact(env) == "LunarLander.drawlist[0] is a b2Body, which cannot be written as plain data"
    assert reason_not_exact(env) == verified(lambda: gymnasium.make("LunarLander-v3"))
    env.close()


def test_other_processes_are_named():
    env = AsyncVectorEnv([Counting] * 2, context="forkserver")  # JAX forbids to fork
    reason = reason_not_exact(env)
    env.close()
    assert reason.startswith("AsyncVectorEnv.")
