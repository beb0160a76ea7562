"""Worlds and answers to draw."""

import numpy as np
import pytest

import nearopt as no
from tests.figures.answers import MAZE


@pytest.fixture(scope="module")
def maze():
    return no.MDP.from_grid(MAZE)


@pytest.fixture(scope="module")
def posterior(maze):
    return no.infer(maze, 12, temperature=0.7, prior="uniform", final_value=np.where(maze.terminal, 0.0, -np.inf))


@pytest.fixture(scope="module")
def chain():
    """Seven states in a row without positions, names that a font or a formula could stumble over."""
    transition = np.zeros((7, 2, 7))
    for s in range(6):
        transition[s, 0, s + 1] = 1
        transition[s, 1, s] = 1
    names = ("a$b_", "日本", "line\nbreak", ("tuple", 3), "x" * 60, "^$\\frac", "end")
    return no.MDP.from_arrays(
        transition,
        -np.ones(7),
        initial=np.eye(7)[0],
        terminal=np.arange(7) == 6,
        state_names=names,
        action_names=("go", "$wait"),
    )
