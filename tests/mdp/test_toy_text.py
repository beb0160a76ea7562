"""Gymnasium's tables: the model is what the environment does."""

# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportOptionalSubscript=false

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text import CliffWalkingEnv, FrozenLakeEnv, TaxiEnv
from scipy.stats import chisquare

import nearopt as no
from nearopt.mdp.errors import HiddenRandomnessError

IDS = ("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1", "Taxi-v4")


class Tabular(gymnasium.Env):
    """A table with nothing around it; steps as toy-text environments do."""

    def __init__(self, table, initial=None, start=None, actions=1):
        self.P = table
        self.observation_space = gymnasium.spaces.Discrete(len(table))
        self.action_space = gymnasium.spaces.Discrete(actions)
        if initial is not None:
            self.initial_state_distrib = np.array(initial)
        if start is not None:
            self.start_state_index = start


def reachable(mdp):
    reached, before = mdp.initial > 0, None
    while before is None or (reached != before).any():
        before = reached
        reached = reached | (mdp.transition.T @ np.repeat(reached, mdp.num_actions) > 0)
    return reached


@pytest.mark.parametrize("name", IDS)
def test_the_table_is_kept(name):
    env = gymnasium.make(name)
    mdp, table = no.MDP.from_gymnasium(env, discount=0.9), env.unwrapped.P
    assert (mdp.num_states, mdp.num_actions) == (env.observation_space.n, env.action_space.n)
    assert mdp == no.MDP.from_gymnasium(name, discount=0.9)
    assert np.array_equal(mdp.initial, env.unwrapped.initial_state_distrib)
    ends = {t for row in table.values() for outcome in row.values() for p, t, _, done in outcome if done and p > 0}
    assert set(np.flatnonzero(mdp.terminal)) == ends
    c = 0
    for s in range(mdp.num_states):
        for a in range(mdp.num_actions) if s not in ends else ():
            expected = {}
            for p, t, r, _ in table[s][a]:
                expected[int(t), float(r)] = expected.get((int(t), float(r)), 0.0) + p
            b = slice(mdp.branch_offset[c], mdp.branch_offset[c + 1])
            found = zip(mdp.next_state[b].tolist(), mdp.branch_reward[b].tolist(), strict=True)
            assert dict(zip(found, mdp.probability[b], strict=True)) == pytest.approx(
                {key: p for key, p in expected.items() if p > 0}
            )
            c += 1
    assert c == mdp.num_choices


def test_taxi_has_four_terminal_states_and_reaches_404():
    mdp = no.MDP.from_gymnasium("Taxi-v4")
    assert (mdp.num_states, mdp.terminal.sum(), reachable(mdp).sum()) == (500, 4, 404)
    assert mdp.action_names == ("south", "north", "east", "west", "pickup", "dropoff") and mdp.positions is None


def test_names_and_positions():
    lake = no.MDP.from_gymnasium("FrozenLake-v1")
    assert lake.action_names == ("left", "down", "right", "up")
    assert lake.positions[[0, 3, 4, 15]].tolist() == [[0, 0], [3, 0], [0, 1], [3, 3]]
    cliff = no.MDP.from_gymnasium("CliffWalking-v1")
    assert cliff.action_names == ("up", "right", "down", "left")
    assert cliff.positions[[36, 47]].tolist() == [[0, 3], [11, 3]] and cliff.initial[36] == 1
    wide = no.MDP.from_gymnasium(FrozenLakeEnv(desc=["SFF", "FFG"]))
    assert wide.positions[-1].tolist() == [2, 1]


@pytest.mark.parametrize(
    "env",
    [
        TaxiEnv(is_rainy=True),
        TaxiEnv(is_rainy=True, rainy_probability=0.5),
        TaxiEnv(),
        FrozenLakeEnv(success_rate=0.6),
        FrozenLakeEnv(is_slippery=False, reward_schedule=(5, -3, -1)),
        CliffWalkingEnv(is_slippery=True),
    ],
    ids=lambda env: type(env).__name__,
)
def test_steps_of_the_environment_are_as_frequent_as_the_model_says(env):
    """Read from the source in gymnasium 1.4, and here from its behaviour: P is all there is."""
    mdp = no.MDP.from_gymnasium(env)
    rng, n = np.random.default_rng(0), 300
    env.reset(seed=0)
    states = np.flatnonzero(reachable(mdp) & ~mdp.terminal)
    worst = 1.0
    for s in rng.choice(states, size=12):
        for a in range(mdp.num_actions):
            c = mdp.choice_offset[s] + a
            b = slice(mdp.branch_offset[c], mdp.branch_offset[c + 1])
            counts = dict.fromkeys(zip(mdp.next_state[b].tolist(), mdp.branch_reward[b].tolist(), strict=True), 0)
            for _ in range(n):
                env.unwrapped.s = int(s)
                t, r, done, _, _ = env.step(a)
                assert done == mdp.terminal[t]
                counts[t, float(r)] += 1  # a KeyError is a step that the model does not know
            worst = min(worst, chisquare(list(counts.values()), n * mdp.probability[b]).pvalue)
    assert worst > 1e-4  # of about 50 tests


def test_a_fickle_passenger_is_not_in_the_table():
    with pytest.raises(HiddenRandomnessError, match="fickle_passenger=True"):
        no.MDP.from_gymnasium(gymnasium.make("Taxi-v4", fickle_passenger=True))
    never = TaxiEnv(fickle_passenger=True, fickle_probability=0.0)
    assert no.MDP.from_gymnasium(never) == no.MDP.from_gymnasium("Taxi-v4")


def test_wrappers_of_observations_are_fine_and_of_rewards_are_not():
    lake = gymnasium.make("FrozenLake-v1")
    mdp = no.MDP.from_gymnasium("FrozenLake-v1")
    assert no.MDP.from_gymnasium(gymnasium.wrappers.FlattenObservation(lake)) == mdp
    assert no.MDP.from_gymnasium(gymnasium.wrappers.RecordEpisodeStatistics(lake)) == mdp
    for wrapped in (
        gymnasium.wrappers.TransformReward(lake, lambda r: r - 1),
        gymnasium.wrappers.NormalizeReward(lake),
        gymnasium.wrappers.TimeLimit(gymnasium.wrappers.StickyAction(lake, 0.25), 10),
    ):
        with pytest.raises(HiddenRandomnessError, match="wrapper"):
            no.MDP.from_gymnasium(wrapped)


def test_a_state_that_ends_and_goes_on_gets_one_more_state():
    """State 1 is left again when entered from 0, and ends the episode when entered from 2."""
    table = {
        0: {0: [(1.0, 1, 1.0, False)]},
        1: {0: [(0.5, 2, 2.0, False), (0.5, 3, 2.0, True)]},
        2: {0: [(0.5, 1, 3.0, True), (0.25, 1, 3.0, False), (0.25, 3, 4.0, True)]},
        3: {0: [(1.0, 3, 0.0, True)]},
    }
    mdp = no.MDP.from_gymnasium(Tabular(table, initial=[1.0, 0, 0, 0]))
    assert mdp.num_states == 5
    assert mdp.terminal.tolist() == [False, False, False, True, True]
    assert mdp.transition.toarray()[2].tolist() == [0, 0.25, 0, 0.25, 0.5]
    assert mdp.reward[2, 0].tolist() == [0, 3, 0, 4, 3]
    assert mdp.initial.tolist() == [1, 0, 0, 0, 0]


def test_an_episode_may_start_where_another_ends():
    table = [[[(0.5, 1, 0.0, False), (0.5, 0, 1.0, True)]], [[(1.0, 0, 0.0, True)]]]
    mdp = no.MDP.from_gymnasium(Tabular(table, start=0))
    assert mdp.num_states == 3 and mdp.terminal.tolist() == [False, False, True]
    assert mdp.transition.toarray()[:2].tolist() == [[0, 0.5, 0.5], [0, 0, 1]]


def test_the_extra_state_has_no_place_in_a_drawing():
    lake = FrozenLakeEnv(is_slippery=False)
    lake.P[0][0] = [(1.0, 0, 0.0, True)]  # leaving the start to the left now ends there
    mdp = no.MDP.from_gymnasium(lake)
    assert mdp.num_states == 17 and mdp.positions is None and mdp.next_state[0] == 16


def test_conflicts_of_unreachable_states_and_impossible_ends_do_not_count():
    table = {
        0: {0: [(1.0, 1, 0.0, True), (0.0, 0, 0.0, True)]},
        1: {0: [(1.0, 1, 0.0, True)]},
        2: {0: [(1.0, 1, 0.0, False)]},  # nobody gets here
    }
    mdp = no.MDP.from_gymnasium(Tabular(table, start=0))
    assert mdp.num_states == 3 and mdp.terminal.tolist() == [False, True, False]


def test_actions_without_branches_are_not_available():
    table = {0: {1: [(1.0, 1, 0.0, False)], 0: []}, 1: {0: [(1.0, 0, 0.0, False)]}, 2: {}}
    mdp = no.MDP.from_gymnasium(Tabular(table, start=0, actions=2))
    assert mdp.available.tolist() == [[False, True], [True, False], [False, False]]
    assert mdp.terminal.tolist() == [False, False, True]


def test_an_id_is_made_and_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(FrozenLakeEnv, "close", lambda self: closed.append(self))
    no.MDP.from_gymnasium("FrozenLake-v1")
    assert len(closed) == 1
    no.MDP.from_gymnasium(gymnasium.make("FrozenLake-v1"))
    assert len(closed) == 1  # what was given stays open
