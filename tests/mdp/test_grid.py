"""Grids against a builder that walks cell by cell."""

# pyright: reportOptionalMemberAccess=false

from pathlib import Path

import numpy as np
import pytest

import nearopt as no

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # up, right, down, left as (column, row)
EXAMPLE = Path(__file__).parents[2] / "examples" / "reach.txt"


def slow(lines, slip, step_reward, goal_reward):
    """Dense transition and reward (S, A, S), by the rules as they are stated."""
    cells = [(x, y) for y, line in enumerate(lines) for x, c in enumerate(line) if c != "#"]
    number = {cell: s for s, cell in enumerate(cells)}
    letter = [lines[y][x] for x, y in cells]
    n = len(cells)
    transition, reward = np.zeros((n, 4, n)), np.zeros((n, 4, n))
    for s, (x, y) in enumerate(cells):
        for a in range(4):
            if letter[s] == "G":
                continue
            for p, turn in ((1 - slip, 0), (slip / 2, 1), (slip / 2, 3)):
                dx, dy = MOVES[(a + turn) % 4]
                t = number.get((x + dx, y + dy), s)
                transition[s, a, t] += p
                if p > 0:
                    reward[s, a, t] = step_reward + (goal_reward if letter[t] == "G" else 0)
    starts = np.array([c == "S" for c in letter])
    return cells, letter, transition, reward, starts / starts.sum()


def check(text, lines, slip=0.0, step_reward=-1.0, goal_reward=0.0):
    mdp = no.MDP.from_grid(text, slip=slip, step_reward=step_reward, goal_reward=goal_reward)
    cells, letter, transition, reward, initial = slow(lines, slip, step_reward, goal_reward)
    assert mdp.positions.tolist() == [list(map(float, cell)) for cell in cells]
    assert mdp.terminal.tolist() == [c == "G" for c in letter]
    assert np.allclose(mdp.transition.toarray(), transition.reshape(-1, len(cells)), rtol=0, atol=1e-15)
    assert np.array_equal(mdp.transition.toarray() > 0, transition.reshape(-1, len(cells)) > 0)
    mine = mdp.reward if mdp.reward.ndim == 3 else np.where(transition > 0, mdp.reward[:, :, None], 0)
    assert np.array_equal(mine, reward)
    assert np.array_equal(mdp.initial, initial)
    return mdp


@pytest.mark.parametrize("seed", range(12))
def test_random_grids_equal_the_slow_builder(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 8, size=2)
    drawing = rng.choice(list("#..  G"), size=(height, width))
    drawing[rng.integers(height), rng.integers(width)] = "S"
    drawing[0, 0] = "S"  # no margin
    lines = ["".join(row) for row in drawing]
    slip = (0.0, 0.2, 1.0, 1 / 3)[seed % 4]
    check("\n".join(lines), lines, slip, float(rng.normal()), float(rng.normal()))


def test_the_names_and_the_order():
    mdp = no.MDP.from_grid("S.\n.G", discount=0.5)
    assert mdp.action_names == ("up", "right", "down", "left") and mdp.state_names is None
    assert mdp.positions.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]] and mdp.discount == 0.5
    up, right, down, left = (mdp.transition.toarray()[a] for a in range(4))
    assert [int(np.argmax(x)) for x in (up, right, down, left)] == [0, 1, 2, 0]
    assert np.array_equal(mdp.reward[:3], -np.ones((3, 4)))


def test_slip_turns_to_the_two_sides_and_bumps_add_up():
    corner = no.MDP.from_grid("S.\n..", slip=0.2)
    assert np.allclose(corner.transition.toarray()[0], [0.9, 0.1, 0, 0])  # up: 0.8 + 0.1 stay, 0.1 right
    assert corner.num_branches == 40  # merged: 2, 3, 3 and 2 in a corner
    assert np.allclose(no.MDP.from_grid("S.", slip=1.0).transition.toarray()[1], [1.0, 0.0])


def test_a_goal_reward_with_slip_is_a_branch_reward():
    mdp = no.MDP.from_grid("S.G", slip=0.2, goal_reward=10.0)
    assert mdp.reward.shape == (3, 4, 3)
    assert mdp.reward[1, 1].tolist() == [0.0, -1.0, 9.0]
    assert no.MDP.from_grid("S.G", goal_reward=10.0).reward[1].tolist() == [-1, 9, -1, -1]


def test_several_starts_and_goals_and_none():
    mdp = no.MDP.from_grid("S.G\nG.S")
    assert mdp.initial.tolist() == [0.5, 0, 0, 0, 0, 0.5] and mdp.terminal.sum() == 2
    assert not no.MDP.from_grid("S..").terminal.any()
    alone = no.MDP.from_grid("S")
    assert alone.transition.toarray().tolist() == [[1.0]] * 4


def test_forbidden_rewards():
    mdp = no.MDP.from_grid("S.G", goal_reward=-np.inf)
    assert mdp.branch_reward[mdp.next_state == 2].tolist() == [-np.inf]
    assert (no.MDP.from_grid("S.G", step_reward=-np.inf, goal_reward=3.0).branch_reward == -np.inf).all()


WALLED = ["#####", "#S G#", "#####"]
OPEN = [" S ", "   ", " G "]


def indent(lines, by="    "):
    return "\n".join(by + line for line in lines)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\n\n" + "\n".join(WALLED) + "\n\n", WALLED),
        ("\r\n".join(WALLED) + "\r\n", WALLED),
        ("\n" + indent(WALLED) + "\n    ", WALLED),  # triple quotes inside a function
        ("\n" + indent(WALLED) + "\n", WALLED),
        ("\n" + indent(["S..", ".#G"]) + "\n    ", ["S..", ".#G"]),
        ("\n".join(OPEN), OPEN),  # spaces are cells, also at the edge
        ("\n" + "\n".join(OPEN) + "\n", OPEN),
        (" S#\n ##\n G ", [" S#", " ##", " G "]),  # the left column is the way
        (" S#\n ##\n #G", [" S#", " ##", " #G"]),
        ("  S G", ["  S G"]),
        (" #S\n  G", [" #S", "  G"]),
        ("   \nS G\n   ", ["   ", "S G", "   "]),  # rows of free cells, as long as the others
        ("   \nS G\n   \n", ["   ", "S G", "   "]),
        ("S G\n  ", ["S G"]),  # what stands before closing quotes
    ],
)
def test_which_lines_and_spaces_are_cells(text, lines):
    check(text, lines, slip=0.1, goal_reward=1.0)


def test_the_example():
    text = EXAMPLE.read_text()
    lines = text.splitlines()
    assert (len(lines), {len(line) for line in lines}) == (15, {31})
    mdp = check(text, lines)
    assert mdp.initial.max() == 1 and mdp.terminal.sum() == 1
    reached = mdp.initial > 0
    for _ in range(60):
        reached = reached | (mdp.transition.T @ np.repeat(reached, 4) > 0)
    assert reached.all()  # no walled-off cell
