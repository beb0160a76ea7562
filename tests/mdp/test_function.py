"""Exploration by a step function."""

# pyright: reportArgumentType=false, reportOptionalIterable=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

from fractions import Fraction

import numpy as np
import pytest

import nearopt as no

WALK = {"a": ["b", "c"], "b": ["d"], "c": ["d", "a"], "d": []}


def follow(state, action):
    return [(1.0, action, -1.0)]


def explore_walk():
    return no.MDP.from_function(follow, "a", lambda s: WALK[s], discount=0.9)


def test_breadth_first_names_and_terminal_states():
    mdp = explore_walk()
    assert mdp.state_names == ("a", "b", "c", "d")
    assert mdp.action_names == ("b", "c", "d", "a")  # as they appear
    assert mdp.terminal.tolist() == [False, False, False, True]
    assert mdp.initial.tolist() == [1, 0, 0, 0] and mdp.discount == 0.9
    offered = [{mdp.action_names[a] for a in np.flatnonzero(row)} for row in mdp.available]
    assert offered == [set(WALK[s]) for s in "abcd"]
    assert mdp.describe(1, 2) == "state 1 ('b'), action 2 ('d')"


def test_equals_the_grid_builder():
    text = "S..#\n.#.G\n...."
    lines, slip = text.split("\n"), 0.2
    deltas = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}
    order = list(deltas)

    def step(cell, action):
        i = order.index(action)
        for p, turn in ((1 - slip, 0), (slip / 2, 1), (slip / 2, 3)):
            dx, dy = deltas[order[(i + turn) % 4]]
            x, y = cell[0] + dx, cell[1] + dy
            inside = 0 <= x < 4 and 0 <= y < 3 and lines[y][x] != "#"
            target = (x, y) if inside else cell
            yield p, target, -1.0 + 5.0 * (lines[target[1]][target[0]] == "G")

    mdp = no.MDP.from_function(step, (0, 0), lambda c: [] if lines[c[1]][c[0]] == "G" else order)
    grid = no.MDP.from_grid(text, slip=slip, goal_reward=5.0)
    assert mdp.num_states == grid.num_states and mdp.action_names == grid.action_names
    number = {tuple(xy): s for s, xy in enumerate(grid.positions.astype(int).tolist())}
    to = np.array([number[name] for name in mdp.state_names])
    for mine, theirs in ((mdp.transition, grid.transition), (mdp.branch_table(mdp.branch_reward), None)):
        if theirs is None:
            mine, theirs = (m.branch_table(m.probability * m.branch_reward) for m in (mdp, grid))
        shape = (len(to), 4, len(to))
        assert np.allclose(mine.toarray().reshape(shape), theirs.toarray().reshape(shape)[np.ix_(to, range(4), to)])
    assert mdp.terminal.tolist() == grid.terminal[to].tolist()


def test_actions_from_a_list_keep_its_order():
    mdp = no.MDP.from_function(lambda s, a: [(1, s, 0)], 0, ["right", "left"])
    assert mdp.action_names == ("right", "left") and mdp.available.all()


@pytest.mark.parametrize("actions", [range(3), np.arange(3), [0, 1, 2], (2, 0, 1), lambda s: iter([2, 0, 1])])
def test_actions_that_are_exactly_the_numbers_from_zero_are_their_own_numbers(actions):
    mdp = no.MDP.from_function(lambda s, a: [(1.0, s, float(a))], "x", actions)
    assert mdp.action_names is None
    assert mdp.reward.tolist() == [[0.0, 1.0, 2.0]]


@pytest.mark.parametrize("actions", [[1, 2], [True, False], [0, 2], ["0", "1"], [0.5, 1.5]])
def test_other_actions_are_named(actions):
    assert no.MDP.from_function(lambda s, a: [(1.0, s, 0.0)], 0, actions).action_names == tuple(actions)


def test_a_terminal_initial_state_works():
    mdp = no.MDP.from_function(follow, "d", lambda s: WALK[s])
    assert (mdp.num_states, mdp.num_actions, mdp.num_choices) == (1, 1, 0)
    assert mdp.terminal.tolist() == [True] and mdp.action_names is None
    mixed = no.MDP.from_function(follow, {"d": 0.25, "b": 0.75}, lambda s: WALK[s])
    assert mixed.state_names == ("d", "b") and mixed.initial.tolist() == [0.25, 0.75]


def test_a_dict_is_read_as_probabilities_and_zeros_are_not_followed():
    mdp = no.MDP.from_function(follow, {"b": 1, "c": 0}, lambda s: WALK[s])
    assert mdp.state_names == ("b", "d")
    split = no.MDP.from_function(lambda s, a: [(0.0, "never", 5.0), (1.0, s, 0.0)], "s", ["stay"])
    assert split.state_names == ("s",) and split.num_branches == 1


def test_any_number_and_any_hashable_state_will_do():
    def step(state, action):
        return (
            (Fraction(1, 3), frozenset({1}), np.float32(0.5)),
            [np.float64(1) / 3, None, -np.inf],
            (1 / 3, state, 2),
        )

    mdp = no.MDP.from_function(step, ("s", 0), lambda s: ["go"] if s == ("s", 0) else ())
    assert mdp.state_names == (("s", 0), frozenset({1}), None)
    assert mdp.branch_reward.tolist() == [2.0, 0.5, -np.inf]
    assert np.allclose(mdp.probability, 1 / 3)


def test_repeated_branches_merge():
    mdp = no.MDP.from_function(lambda s, a: [(0.5, s, 1.0), (0.25, s, 1.0), (0.25, s, 2.0)], 0, ["a"])
    assert mdp.probability.tolist() == [0.75, 0.25] and mdp.branch_reward.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("error", [TypeError, ValueError, KeyError])
@pytest.mark.parametrize("lazy", [False, True])
def test_errors_inside_step_pass_through(error, lazy):
    def step(state, action):
        raise error("mine")

    def generate(state, action):
        yield 0.5, state, 0.0
        raise error("mine")

    with pytest.raises(error, match="mine") as caught:
        no.MDP.from_function(generate if lazy else step, 0, [0])
    assert type(caught.value) is error


def test_errors_inside_a_state_pass_through():
    class Odd:
        def __hash__(self):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        no.MDP.from_function(lambda s, a: [(1.0, Odd(), 0.0)], 0, [0])
    assert type(caught.value) is ValueError


def test_exactly_max_states_is_allowed():
    def count(state, action):
        return [(1.0, min(state + 1, 9), 0.0)]

    assert no.MDP.from_function(count, 0, [0], max_states=10).num_states == 10


def test_step_is_called_once_per_choice_in_order():
    calls = []

    def step(state, action):
        calls.append((state, action))
        return [(0.5, (state + action) % 3, 0.0), (0.5, state, 0.0)]

    no.MDP.from_function(step, 0, [1, 2])
    assert calls == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
