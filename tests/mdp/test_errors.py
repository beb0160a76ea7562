"""Every mistake has a type of its own, and its message names the offending value and a way to mend it."""

# pyright: reportArgumentType=false, reportIndexIssue=false

import gymnasium
import numpy as np
import pytest
import scipy.sparse
from gymnasium.envs.toy_text import FrozenLakeEnv, TaxiEnv
from gymnasium.spaces import Box, Discrete

import nearopt as no
from nearopt.mdp import errors as e

NAN, INF = np.nan, np.inf
P = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])  # two states, two actions, one choice missing
R = np.zeros(2)
ROWS = scipy.sparse.csr_array(P.reshape(4, 2))


def arrays(transition=P, reward=R, **kwargs):
    return lambda: no.MDP.from_arrays(transition, reward, **kwargs)


def changed(array, index, value):
    array = np.array(array, float)
    array[index] = value
    return array


def function(outcome=((1.0, "s", 0.0),), initial="s", actions=("a", "b"), **kwargs):
    step = outcome if callable(outcome) else lambda state, action: outcome
    return lambda: no.MDP.from_function(step, initial, actions, **kwargs)


def grid(text, **kwargs):
    return lambda: no.MDP.from_grid(text, **kwargs)


def gym(env):
    return lambda: no.MDP.from_gymnasium(env)


def table(P, observations=None, **attributes):
    env = gymnasium.Env()
    observations, actions = observations or Discrete(1), Discrete(1)
    attributes = {"initial_state_distrib": [1.0]} | attributes
    for name, value in dict(P=P, observation_space=observations, action_space=actions, **attributes).items():
        if value is not None:
            setattr(env, name, value)
    return lambda: no.MDP.from_gymnasium(env)


def replaced(**changes):
    return lambda: no.MDP.from_arrays(P, R).replace(**changes)


def ambiguous():
    return no.MDP([0, 1], [0], [0, 2], [0.5, 0.5], [0, 0], [1.0, 2.0], [1.0], 1).reward


def too_large():
    states = 200_000
    rows = scipy.sparse.eye_array(states, format="csr")
    reward = scipy.sparse.csr_array(([1.0], ([0], [0])), shape=(states, states))
    rows = scipy.sparse.vstack([scipy.sparse.csr_array(([0.5, 0.5], ([0, 0], [0, 1])), shape=(1, states)), rows[1:]])
    return no.MDP.from_arrays(rows, reward).reward


def steps(*actions):
    def run():
        env = no.MDP.from_grid("SG").to_gymnasium()
        if actions[0] is not None:
            env.reset()
        for action in actions:
            env.step(action or 0)

    return run


SELF = [[[(1.0, 0, 0.0, False)]]]
LAKE = gymnasium.make("FrozenLake-v1")
MISTAKES = [
    # ---- arrays
    (e.EmptyModelError, "(0, 2, 0)", arrays(np.zeros((0, 2, 0)))),
    (e.EmptyModelError, "(2, 0, 2)", arrays(np.zeros((2, 0, 2)))),
    (e.ShapeError, "(2, 2)", arrays(np.eye(2))),
    (e.ShapeError, "(2, 1, 3)", arrays(np.zeros((2, 1, 3)))),
    (e.NotNumericError, "<U1", arrays(P.astype(int).astype("U1"))),
    (e.NotNumericError, "transition", arrays([[[0.5, 0.5]], [[1.0]]])),
    (e.NotNumericError, "object", arrays(None)),
    (e.NotNumericError, "complex128", arrays(reward=R + 0j)),
    (e.NaNError, "state 0, action 1", arrays(changed(P, (0, 1, 0), NAN))),
    (e.NegativeProbabilityError, "-0.5", arrays(changed(changed(P, (0, 0, 0), -0.5), (0, 0, 1), 1.5))),
    (e.RowSumError, "0.97", arrays(changed(P, (1, 0, 1), 0.97))),
    (e.RowSumError, "inf", arrays(changed(P, (1, 0, 1), INF))),
    (e.ShapeError, "(3,)", arrays(reward=np.zeros(3))),
    (e.NaNError, "state 1, action 0: the reward", arrays(reward=[0.0, NAN])),
    (e.InfiniteRewardError, "+inf", arrays(reward=[0.0, INF])),
    (e.NotBooleanError, "int64", arrays(terminal=[0, 1])),
    (e.ShapeError, "(3,)", arrays(terminal=[True, False, False])),
    (e.ShapeError, "available has shape (2,)", arrays(available=[True, True])),
    (e.MissingTransitionError, "state 1, action 1", arrays(available=np.ones((2, 2), bool))),
    (e.NoChoiceError, "state 1", arrays(available=np.array([[True, True], [False, False]]))),
    (e.DiscountError, "1.5", arrays(discount=1.5)),
    (e.DiscountError, "nan", arrays(discount=NAN)),
    (e.DiscountError, "'high'", arrays(discount="high")),
    (e.ShapeError, "(3,)", arrays(initial=[1.0, 0.0, 0.0])),
    (e.InitialError, "initial[1] is -1", arrays(initial=[2.0, -1.0])),
    (e.InitialError, "0.9", arrays(initial=[0.5, 0.4])),
    (e.NaNError, "initial[0]", arrays(initial=[NAN, 1.0])),
    (e.NotNumericError, "object", arrays(initial={0: 1.0})),
    (e.NameCountError, "3 state names for 2", arrays(state_names=["a", "b", "c"])),
    (e.NameCountError, "7", arrays(action_names=7)),
    (e.DuplicateNameError, "'left'", arrays(action_names=["left", "left"])),
    (e.UnhashableNameError, "['b']", arrays(state_names=["a", ["b"]])),
    (e.PositionError, "(2,)", arrays(positions=[0.0, 1.0])),
    (e.PositionError, "[1.0, inf]", arrays(positions=[[0.0, 0.0], [1.0, INF]])),
    # ---- sparse
    (e.ShapeError, "(4, 3)", arrays(scipy.sparse.csr_array((4, 3)))),
    (e.ShapeError, "(2, 2)", arrays(ROWS, scipy.sparse.csr_array((2, 2)))),
    (e.NotNumericError, "complex128", arrays(ROWS * 1j)),
    (e.NotNumericError, "complex128", arrays(ROWS, ROWS * 1j)),
    (e.RowSumError, "state 0, action 0: the probabilities sum to 2", arrays(ROWS * 2)),
    (e.NegativeProbabilityError, "-0.5", arrays(-ROWS)),
    (e.NaNError, "state 0, action 0", arrays(ROWS * NAN)),
    # ---- raw arrays, and what is asked of a model
    (e.ActionRangeError, "action 1 ", replaced(num_actions=1)),
    (e.StateRangeError, "next state 5 ", replaced(next_state=[0, 1, 5, 1])),
    (e.StructureError, "branch_offset", replaced(branch_offset=[0, 2, 2, 4])),
    (e.StructureError, "lists action 0 twice", replaced(choice_action=[0, 0, 0])),
    (e.ShapeError, "choice_action has shape (3, 1)", replaced(choice_action=[[0], [1], [0]])),
    (e.ShapeError, "(4, 1)", replaced(probability=np.ones((4, 1)))),
    (e.EmptyModelError, "nan", replaced(num_actions=NAN)),
    (e.NotNumericError, "float64", replaced(next_state=[0.0, 1.0, 0.0, 1.0])),
    (e.AmbiguousRewardError, "two rewards, 1 and 2", ambiguous),
    (e.DenseTooLargeError, "200000", too_large),
    # ---- functions
    (e.NoInitialStateError, "None", function(initial=None)),
    (e.NoInitialStateError, "{}", function(initial={})),
    (e.UnhashableStateError, "['s']", function(initial=["s"])),
    (e.UnhashableStateError, "{'x': 1}", function([(1.0, {"x": 1}, 0.0)])),
    (e.InitialError, "'t'", function(initial={"s": 1.5, "t": -0.5})),
    (e.InitialError, "'half'", function(initial={"s": "half"})),
    (e.InitialError, "3", function(initial={"x": 1, "y": 2})),
    (e.InitialError, "nan", function(initial={"s": NAN})),
    (e.BranchError, "state 's', action 'a': step returned None", function(lambda s, a: None)),
    (e.BranchError, "[]", function([])),
    (e.BranchError, "0.5 is not a triple", function((0.5, "s", 1.0))),
    (e.BranchError, "(1.0, 's')", function([(1.0, "s")])),
    (e.BranchError, "'abc'", function(["abc"])),
    (e.BranchError, "'s' is not a triple", function({"s": 1.0})),
    (e.BranchError, "probability 'all'", function([("all", "s", 0.0)])),
    (e.BranchError, "probability None", function([(None, "s", 0.0)])),
    (e.BranchError, "reward 1000", function([(1.0, "s", 10**400)])),
    (e.BranchError, "reward '1'", function([(1.0, "s", "1")])),
    (e.RowSumError, "state 's', action 'a': the probabilities sum to 0.9", function([(0.4, "s", 0), (0.5, "t", 0)])),
    (e.RowSumError, "sum to 0", function([(0.0, "s", 0.0)])),
    (e.NegativeProbabilityError, "-0.5 of next state 't'", function([(1.5, "s", 0.0), (-0.5, "t", 0.0)])),
    (e.NegativeProbabilityError, "-0.1 of next state 't'", function([(1.0, "s", 0.0), (-0.1, "t", 0.0)])),
    (e.NaNError, "next state 'u' is nan", function([(1.0, "s", 0.0), (NAN, "u", 0.0)])),
    (e.NaNError, "next state 't' is nan", function([(0.5, "s", 0.0), (NAN, "t", 0.0)])),
    (e.NaNError, "state 's', action 'a': the reward", function([(1.0, "s", NAN)])),
    (e.InfiniteRewardError, "state 's', action 'a'", function([(1.0, "s", INF)])),
    (e.TooManyStatesError, "100", function(lambda s, a: [(1.0, s + 1, 0.0)], 0, max_states=100)),
    (e.DuplicateNameError, "'a'", function(actions=["a", "b", "a"])),
    (e.DuplicateNameError, "state 's' offers action 'b' twice", function(actions=lambda s: ["a", "b", "b"])),
    (e.UnhashableNameError, "['up']", function(actions=[["up"]])),
    (e.UnhashableNameError, "state 's': action {}", function(actions=lambda s: [{}])),
    (e.NoChoiceError, "empty", function(actions=[])),
    (e.NoChoiceError, "4", function(actions=4)),
    (e.NoChoiceError, "'up'", function(actions="up")),
    (e.NoChoiceError, "{'s': ['up']}", function(actions={"s": ["up"]})),
    (e.NoChoiceError, "actions('s') returned 'up'", function(actions=lambda s: "up")),
    (e.NoChoiceError, "actions('s') returned None", function(actions=lambda s: None)),
    (e.DiscountError, "-0.1", function(discount=-0.1)),
    # ---- grids
    (e.EmptyGridError, "''", grid("")),
    (e.EmptyGridError, "'\\n  \\n'", grid("\n  \n")),
    (e.EmptyGridError, "2 lines of 3 walls", grid("###\n###")),
    (e.UnknownCharacterError, "line 2, column 3: 'x'", grid("\nS.x\n..G")),
    (e.UnknownCharacterError, "line 3, column 6: 'g'", grid("\n    #S#\n    #g#")),
    (e.UnknownCharacterError, "line 1, column 1: '\\t'", grid("\tS\n\tG")),
    (e.UnknownCharacterError, "line 1, column 1: 'm'", grid("maze.txt")),
    (e.RaggedGridError, "line 3 has 2 cells, line 1 has 3", grid("S..\n...\n.G")),
    (e.RaggedGridError, "line 2 has 0 cells", grid("S.G\n\nS.G")),
    (e.NoStartError, "3 cells", grid("..G")),
    (e.SlipError, "1.1", grid("S", slip=1.1)),
    (e.SlipError, "nan", grid("S", slip=NAN)),
    (e.SlipError, "'0.1'", grid("S", slip="0.1")),
    (e.GridRewardError, "step_reward is nan", grid("S", step_reward=NAN)),
    (e.GridRewardError, "step_reward is inf", grid("S", step_reward=INF)),
    (e.GridRewardError, "goal_reward is None", grid("S", goal_reward=None)),
    (e.FormatError, "list", grid(["S", "G"])),
    (e.DiscountError, "2", grid("S", discount=2)),
    # ---- Gymnasium
    (e.UnknownEnvironmentError, "Did you mean: `FrozenLake`", gym("FrozenLak-v1")),
    (e.UnknownEnvironmentError, "v99", gym("FrozenLake-v99")),
    (e.UnknownEnvironmentError, "no_such_module", gym("no_such_module:Foo-v0")),
    (e.UnknownEnvironmentError, "''", gym("")),
    (e.NotTabularError, "CartPole-v1", gym("CartPole-v1")),
    (e.NotTabularError, "42", gym(42)),
    (e.HiddenRandomnessError, "fickle_passenger=True", gym(TaxiEnv(fickle_passenger=True))),
    (e.HiddenRandomnessError, "StickyAction", gym(gymnasium.wrappers.StickyAction(LAKE, 0.1))),
    (e.HiddenRandomnessError, "TransformReward", gym(gymnasium.wrappers.TransformReward(LAKE, abs))),
    (e.NegativeProbabilityError, "-0.1", gym(FrozenLakeEnv(success_rate=1.2))),
    (e.TableError, "starts at 1", table(SELF, Discrete(1, start=1))),
    (e.TableError, "Box", table(SELF, Box(0, 1))),
    (e.TableError, "P has 1 states, the observation space 2", table(SELF, Discrete(2))),
    (e.TableError, "P has no state 0", table({"0": SELF[0]})),
    (e.TableError, "P[0] is None", table([None])),
    (e.TableError, "actions [1]", table({0: {1: SELF[0][0]}})),
    (e.TableError, "P[0][0] is 1.0", table([[1.0]])),
    (e.TableError, "(1.0, 0, 0.0)", table([[[(1.0, 0, 0.0)]]])),
    (e.TableError, "('1.0', 0, 0.0, False)", table([[[("1.0", 0, 0.0, False)]]])),
    (e.TableError, "leads to 3", table([[[(1.0, 3, 0.0, False)]]])),
    (e.TableError, "leads to 0.5", table([[[(1.0, 0.5, 0.0, False)]]])),
    (e.TableError, "(2,)", table(SELF, initial_state_distrib=[0.5, 0.5])),
    (e.TableError, "start_state_index is 1", table(SELF, initial_state_distrib=None, start_state_index=1)),
    (e.NoInitialStateError, "Env does not tell where", table(SELF, initial_state_distrib=None)),
    (e.InitialError, "0.9", table(SELF, initial_state_distrib=[0.9])),
    (e.RowSumError, "state 0, action 0: the probabilities sum to 0.5", table([[[(0.5, 0, 0.0, False)]]])),
    (e.NaNError, "state 0, action 0: the reward", table([[[(1.0, 0, NAN, False)]]])),
    # ---- the environment
    (e.EpisodeOverError, "before the first reset", steps(None)),
    (e.EpisodeOverError, "after the end in state 1", steps(1, 0)),
    (e.ActionRangeError, "action 7 ", steps(7)),
    (e.StateRangeError, "state 2 ", lambda: no.MDP.from_grid("SG").to_gymnasium().reset(options={"state": 2})),
]


@pytest.mark.parametrize(("error", "value", "mistake"), MISTAKES, ids=[f"{m[0].__name__}:{m[1]}" for m in MISTAKES])
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_a_mistake_is_named_and_can_be_mended(error, value, mistake):
    with pytest.raises(no.NearoptError) as caught:
        mistake()
    assert type(caught.value) is error, caught.value
    assert value in caught.value.problem
    assert caught.value.mend.strip()
    assert str(caught.value) == f"{caught.value.problem}; {caught.value.mend}."
    assert "\n" not in str(caught.value)  # the command line prints one line


def test_every_type_of_the_model_occurs():
    used = {error for error, _, _ in MISTAKES}
    names = [name for name, value in vars(e).items() if isinstance(value, type) and name != "NearoptError"]
    of_the_model = names[: names.index("MissingFileError")]
    assert {name for name in of_the_model} == {error.__name__ for error in used} - {"FormatError"}


def test_a_long_state_is_cut_in_messages():
    with pytest.raises(e.RowSumError) as caught:
        no.MDP.from_function(lambda s, a: [(0.5, s, 0.0)], tuple(range(5000)), ["a"])
    assert len(str(caught.value)) < 300
