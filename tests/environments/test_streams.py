"""Streams against the obvious loop over one environment: no transition across an episode boundary, none lost."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from nearopt.environments import errors as e
from nearopt.environments.streams import Streams, check_id, make
from nearopt.mdp.errors import MissingExtraError, UnknownEnvironmentError
from tests.environments.counting import Counting, truth

STEPS = 60
BOX = Box(-1.0, 1.0, (2,), np.float64)
MODES = list(AutoresetMode)


def choose_number(observation):
    return int(observation.sum()) % 4


def choose_box(observation):
    return np.float32([observation[1] % 3 - 1, observation[2] % 2])


def several(mode, actions=None, kind=SyncVectorEnv, **kwargs):
    made = [lambda i=i: Counting(i, actions) for i in range(3)]
    return kind(made, autoreset_mode=mode, **kwargs)


def recorded(streams, choose):
    """Transitions per stream, as `truth` lists them, and all that `step` returned."""
    observation = streams.reset(0)
    lists, all_moves = [[] for _ in range(streams.num)], []
    for _ in range(STEPS):
        actions = np.array([choose(row) for row in observation])
        kept = actions.copy()
        moves = streams.step(actions)
        assert np.array_equal(actions, kept), "an action was changed"
        for i in np.flatnonzero(moves.real):
            flags = (moves.terminated[i], moves.truncated[i])
            row = (*observation[i], *np.atleast_1d(actions[i]), moves.reward[i], *moves.next_observation[i], *flags)
            lists[i].append(row)
        all_moves.append(moves)
        observation = moves.observation
    return [np.array(rows, float) for rows in lists], all_moves


@pytest.mark.parametrize("actions", [None, BOX], ids=["discrete", "box"])
def test_a_single_environment(actions):
    choose = choose_box if actions else choose_number
    (found,), all_moves = recorded(Streams(Counting(1, actions)), choose)
    np.testing.assert_array_equal(found, truth(1, STEPS, choose, actions))
    assert all(moves.real.all() for moves in all_moves)


@pytest.mark.parametrize("copy", [True, False], ids=["copies", "buffers"])
@pytest.mark.parametrize("actions", [None, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("mode", MODES)
def test_vectors_in_every_mode(mode, actions, copy):
    choose = choose_box if actions else choose_number
    lists, all_moves = recorded(Streams(several(mode, actions, copy=copy)), choose)
    for i, found in enumerate(lists):
        expected = truth(i, STEPS, choose, actions)
        ends = expected[: len(found), -2:].any(axis=1)
        fake = ends[:-1].sum() if mode is AutoresetMode.NEXT_STEP else 0
        assert STEPS - 1 <= len(found) + fake <= STEPS
        assert len(found) == STEPS or mode is AutoresetMode.NEXT_STEP
        np.testing.assert_array_equal(found, expected[: len(found)])
    for moves in all_moves:
        assert [part.shape for part in moves] == [(3, 3), (3,), (3,), (3,), (3,), (3, 3)]
        assert [part.dtype for part in moves] == [np.float32, np.float32, bool, bool, bool, np.float32]


def test_a_vector_in_other_processes():
    env = several(AutoresetMode.SAME_STEP, kind=AsyncVectorEnv, context="forkserver")  # JAX forbids to fork
    lists, _ = recorded(Streams(env), choose_number)
    env.close()
    for i, found in enumerate(lists):
        np.testing.assert_array_equal(found, truth(i, STEPS, choose_number))


@pytest.mark.parametrize("mode", MODES)
def test_a_reset_forgets_what_was_pending(mode):
    streams = Streams(several(mode))
    streams.reset(0)
    while not (moves := streams.step(np.zeros(3, int))).terminated.any():
        pass
    streams.reset(1)
    moves = streams.step(np.zeros(3, int))
    assert moves.real.all()
    np.testing.assert_array_equal(moves.next_observation[:, 2], [1, 1, 1])


def test_seeds_are_those_of_single_environments():
    one = Streams(gymnasium.make("CartPole-v1")).reset(8)
    three = make("CartPole-v1", num=3).reset(np.int64(7))
    np.testing.assert_array_equal(three[1:2], one)


def test_observations_of_dictionaries_in_every_mode():
    class Sorted(gymnasium.ObservationWrapper):
        def __init__(self):
            super().__init__(Counting())
            self.observation_space = Dict(count=Box(-np.inf, np.inf, (3,), np.float64), parity=Discrete(2))

        def observation(self, observation):
            return {"count": observation, "parity": int(observation[2]) % 2}

    for mode in MODES:
        streams = Streams(SyncVectorEnv([Sorted] * 2, autoreset_mode=mode))
        observation = streams.reset(0)
        for _ in range(20):
            moves = streams.step(np.zeros(2, int))
            np.testing.assert_array_equal(moves.next_observation[:, 3:].argmax(1), moves.next_observation[:, 2] % 2)
            going_on = moves.real & ~moves.terminated & ~moves.truncated
            np.testing.assert_array_equal(moves.next_observation[going_on, 2], observation[going_on, 2] + 1)
            observation = moves.observation


# ---------------------------------------------------------------- mistakes
class Broken(Counting):
    def __init__(self, what, value=np.nan):
        super().__init__(actions=Discrete(2))
        self.what, self.value = what, value

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.what == "reward" and self.moment == 2:
            reward = self.value
        if self.what == "observation" and self.moment == 2:
            observation[1] = self.value
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["reward", "observation"])
def test_what_is_not_finite_is_named(what, value):
    streams = Streams(Broken(what, value))
    streams.reset(0)
    streams.step(np.zeros(1, int))
    with pytest.raises(e.NonFiniteError, match=f"step 2, stream 0: the {what}.* is {value}"):
        streams.step(np.zeros(1, int))


def test_large_numbers_are_finite():
    streams = Streams(Broken("observation", 1e30))
    streams.reset(0)
    streams.step(np.zeros(1, int))
    assert streams.step(np.zeros(1, int)).next_observation[0, 1] == np.float32(1e30)


class Forgetful(SyncVectorEnv):
    """Says that it resets in the same step, and keeps the final observation to itself."""

    def step(self, actions):
        observation, reward, terminated, truncated, _ = super().step(actions)
        return observation, reward, terminated, truncated, {}


def batched(env):
    env.step = lambda action: (np.zeros((2, 3)), 0.0, False, False, {})
    return env


@pytest.mark.filterwarnings("ignore:.*Pendulum-v0 is out of date:DeprecationWarning")
@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: Streams("CartPole-v1"), e.NotAnEnvironmentError, "'CartPole-v1' is no environment"),
        (lambda: several_steps(several(AutoresetMode.SAME_STEP, kind=Forgetful)), e.AutoresetError, r"streams \[0\]"),
        (lambda: Streams(without_mode()), e.AutoresetError, "mode None"),
        (lambda: several_steps(batched(Counting())), e.ObservationError, r"\(2, 3\) numbers for 1 stream"),
        (lambda: Streams(Counting(actions=Graph(BOX, None))), e.ActionSpaceError, "Graph"),
        (lambda: make("CartPoel-v1"), UnknownEnvironmentError, "did you mean CartPole-v1"),
        (lambda: make("CartPole-v7"), UnknownEnvironmentError, "CartPole-v7"),
        (lambda: make("Pendulum-v0"), UnknownEnvironmentError, "did you mean Pendulum-v1"),
        (lambda: make("nowhere/CartPole-v1", num=2), UnknownEnvironmentError, "nowhere/CartPole-v1"),
        (lambda: make("a b"), UnknownEnvironmentError, "a b"),
        (lambda: make("no_such_module:X-v0"), MissingExtraError, "no_such_module"),
        (lambda: make("CartPole-v1", {"colour": 1}), e.EnvironmentArgumentError, "colour"),
        (lambda: make("CartPole-v1", {"colour": 1}, num=2), e.EnvironmentArgumentError, "colour"),
        (lambda: check_id("os:X-v0"), e.EnvironmentIdError, "'os:X-v0'"),
        (lambda: check_id("GymV26Environment-v0"), e.EnvironmentIdError, "GymV26"),
        (lambda: make("nearopt/Pendulum-v0", {"colour": 1}), e.EnvironmentArgumentError, "colour"),
        (lambda: check_id(3), e.EnvironmentIdError, "3"),
    ],
)
def test_mistakes_are_named(act, error, message):
    with pytest.raises(error, match=message) as caught:
        act()
    assert type(caught.value) is error and caught.value.mend


def several_steps(env):
    streams = Streams(env)
    streams.reset(0)
    for _ in range(10):
        streams.step(np.zeros(streams.num, int))


def without_mode():
    env = several(AutoresetMode.SAME_STEP)
    del env.metadata["autoreset_mode"]
    return env


@pytest.mark.parametrize(("id", "extra"), [("HalfCheetah-v5", "mujoco"), ("LunarLander-v3", "box2d")])
def test_a_missing_package_is_named(monkeypatch, id, extra):
    def fail(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("it is not installed")

    monkeypatch.setattr(gymnasium, "make", fail)
    with pytest.raises(MissingExtraError, match=rf"pip install 'nearopt\[{extra}\]'"):
        make(id)


def test_a_plain_id_passes():
    assert check_id("CartPole-v1") == "CartPole-v1"
