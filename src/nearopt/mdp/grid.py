"""A maze drawn in text → branches, without a loop over cells."""

from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    EmptyGridError,
    FormatError,
    GridRewardError,
    NoStartError,
    RaggedGridError,
    SlipError,
    UnknownCharacterError,
)
from nearopt.mdp.model import MDP

ACTIONS = ("up", "right", "down", "left")
STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # (row, column) of each action
READING_ORDER = (0, 3, None, 1, 2)  # where one move can lead, by state number: up, left, stay, right, down
CHARACTERS = "#SG. "


def mdp_from_grid(text: str, slip: float, step_reward: float, goal_reward: float, discount: float) -> MDP:
    """See `MDP.from_grid`. States are the cells that are not walls, in reading order.

    Leaving the drawn area is a bump too. Every step pays `step_reward`, one that arrives at a goal also `goal_reward`;
    several goals are fine, and none (for a finite horizon). Which lines and spaces are part of the drawing, see
    `drawn_lines`.

    Raises: `EmptyGridError`, `UnknownCharacterError`, `RaggedGridError`, `NoStartError`, `SlipError`,
    `GridRewardError`, `DiscountError`, `FormatError` (not text).
    """
    if not 0 <= number(slip) <= 1:
        raise SlipError(f"slip is {slip!r}", "give a probability from 0 to 1")
    for name, value in (("step_reward", step_reward), ("goal_reward", goal_reward)):
        if not number(value) < np.inf:
            raise GridRewardError(f"{name} is {value!r}", "give a finite number, or -inf to forbid")

    grid = read_grid(text)
    cell = grid != ord("#")
    start, goal = grid[cell] == ord("S"), grid[cell] == ord("G")
    if not start.any():
        raise NoStartError(f"no start among the {cell.sum():,} cells of the grid", "mark one or more cells 'S'")
    row, column = np.nonzero(cell)
    choice_offset = np.concatenate([[0], np.cumsum(np.where(goal, 0, 4))])
    branch_offset, probability, next_state = moves(neighbours(cell)[~goal], np.flatnonzero(~goal), number(slip))
    paid = number(step_reward) + np.where(goal, number(goal_reward), 0.0)
    return MDP(
        choice_offset=choice_offset,
        choice_action=np.tile(np.arange(4), int((~goal).sum())),
        branch_offset=branch_offset,
        probability=probability,
        next_state=next_state,
        branch_reward=paid[next_state],
        initial=start / start.sum(),
        num_actions=4,
        discount=discount,
        action_names=ACTIONS,
        positions=np.stack([column, row], 1).astype(float),
    )


def number(value: Any) -> float:
    """As float; NaN, which fails every comparison, where it is not a number."""
    try:
        return np.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        return np.nan


def read_grid(text: str) -> np.ndarray:
    """(rows, columns) of code points, checked."""
    if not isinstance(text, str):
        raise FormatError(f"the grid is of type {type(text).__name__}, not text", "join its lines with '\\n'")
    first, lines = drawn_lines(text)
    width = len(lines[0]) if lines else 0
    codes = np.frombuffer("".join(lines).encode("utf-32-le", "surrogatepass"), np.uint32)
    known = np.isin(codes, [ord(c) for c in CHARACTERS])
    if not known.all():
        i, line = int(np.argmin(known)), 0
        while i >= len(lines[line]):
            i, line = i - len(lines[line]), line + 1
        indent = len(text.split("\n")[first + line].rstrip("\r")) - len(lines[line])
        raise UnknownCharacterError(
            f"line {first + line + 1}, column {indent + i + 1}: {lines[line][i]!r} means nothing in a grid",
            "use '#' wall, 'S' start, 'G' goal, ' ' or '.' free (nearopt.load reads a grid from a file)",
        )
    for i, line in enumerate(lines):
        if len(line) != width:
            raise RaggedGridError(
                f"line {first + i + 1} has {len(line)} cells, line {first + 1} has {width}",
                "draw every line equally long: short lines are not guessed",
            )
    if not (codes != ord("#")).any():
        raise EmptyGridError(f"the grid has no cells: {len(lines)} lines of {width} walls", "draw cells: 'S', 'G', '.'")
    return codes.reshape(len(lines), width)


def drawn_lines(text: str) -> tuple[int, list[str]]:
    """The lines that are part of the drawing, and the number of lines before them.

    Empty lines before and after are dropped, and so is a last line of spaces that is not as long as the first (what
    stands before closing quotes). A margin of equally many spaces on every line is dropped where it must be
    indentation: because the drawing begins with a wall on every line, so that nobody could enter the margin, or because
    it draws its free cells as '.' and has no other space. All other spaces are free cells.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if not text.strip(" \r\n"):
        raise EmptyGridError(f"the grid {text!r} has no cells", "draw at least a start, 'S'")
    first = next(i for i, line in enumerate(lines) if line)
    lines = lines[first:]
    if not lines[-1].strip(" ") and len(lines[-1]) != len(lines[0]):
        lines.pop()
    while not lines[-1]:
        lines.pop()
    margins = {len(line) - len(line.lstrip(" ")) for line in lines}
    margin = margins.pop() if len(margins) == 1 else 0
    body = [line[margin:] for line in lines]
    walled = all(line.startswith("#") for line in body)
    dotted = any("." in line for line in body) and not any(" " in line for line in body)
    return first, body if walled or dotted else lines


def neighbours(cell: np.ndarray) -> np.ndarray:
    """(N, 4) the state up, right, down and left of each cell, -1 where a wall or the edge is."""
    padded = np.full((cell.shape[0] + 2, cell.shape[1] + 2), -1)
    padded[1:-1, 1:-1][cell] = np.arange(cell.sum())
    rows, columns = cell.shape
    return np.stack([padded[1 + r : 1 + r + rows, 1 + c : 1 + c + columns][cell] for r, c in STEPS], 1)


def moves(beside: np.ndarray, state: np.ndarray, slip: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """branch_offset, probability and next_state of four choices per state.

    Every choice gets five places, in the order of the state numbers, so that bumps add up in one place and the branches
    come out sorted: no sort of millions of rows. The probabilities depend on the walls around a cell alone.
    """
    direction = np.zeros((4, 4))  # p(direction moved | action)
    for action in range(4):
        direction[action, action] = 1 - slip
        direction[action, [(action + 1) % 4, (action + 3) % 4]] = slip / 2
    pattern = np.arange(16)[:, None] >> np.arange(4) & 1 == 1  # which of the four directions are blocked
    table = np.empty((16, 4, 5))
    target = np.empty((len(state), 5), np.int32)
    for place, d in enumerate(READING_ORDER):
        target[:, place] = state if d is None else beside[:, d]
        table[:, :, place] = pattern @ direction.T if d is None else direction[:, d] * ~pattern[:, d, None]
    of_state = (beside < 0) @ np.array([1, 2, 4, 8])
    keep = (table > 0)[of_state]
    branch_offset = np.concatenate([[0], np.cumsum(keep.sum(2).reshape(-1))])
    return branch_offset, table[of_state][keep], np.broadcast_to(target[:, None], keep.shape)[keep]
