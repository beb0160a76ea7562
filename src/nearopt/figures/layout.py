"""Where things go: the cells of a grid, the moments worth a panel, the states worth a row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearopt.figures.results import Answer, World
from nearopt.mdp.errors import PositionError

SPARSEST = 20  # a bounding box of more than this many places per state is no grid
MOST_CELLS = 4_000_000
MOST_COLUMNS = 400  # moments in a picture with a time axis
LARGE = 2_500  # cells from which on a map shows only the part where somebody comes
REACHED = 0.01  # expected visits from which on a state counts as reached
RIM = 0.35  # room around the grid, in cells, for arrows against its edge

Window = tuple[tuple[float, float], tuple[float, float]]  # limits of rows (bottom, top) and columns (left, right)


@dataclass(frozen=True)
class Lattice:
    """The cells of a grid: row and column (S,) of each state, shape (rows, columns). The other places are walls."""

    row: np.ndarray
    column: np.ndarray
    shape: tuple[int, int]

    def image(self, values: np.ndarray) -> np.ma.MaskedArray:
        """(rows, columns) of values (S,), masked where there is no state and where the value is not finite."""
        out = np.full(self.shape, np.nan)
        out[self.row, self.column] = values
        return finite(out)

    @property
    def wall(self) -> np.ndarray:
        """(rows, columns) bool."""
        out = np.ones(self.shape, bool)
        out[self.row, self.column] = False
        return out


def finite(values: np.ndarray) -> np.ma.MaskedArray:
    """Values, masked where they are not finite, and 0 under the mask: matplotlib computes with what is under it."""
    known = np.isfinite(values)
    return np.ma.array(np.where(known, values, 0.0), mask=~known)


def find_lattice(mdp: World) -> Lattice | None:
    """The grid that the positions form, or None: no positions, two states in one place, or no regular spacing."""
    if mdp.positions is None:
        return None
    column, row = (places(np.asarray(mdp.positions)[:, axis]) for axis in (0, 1))
    if column is None or row is None:
        return None
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    cells = shape[0] * shape[1]
    if cells > min(MOST_CELLS, max(10_000, SPARSEST * len(row))):
        return None
    if len(np.unique(row * shape[1] + column)) < len(row):
        return None
    return Lattice(row, column, shape)


def require_lattice(mdp: World) -> Lattice:
    """As `find_lattice`; `PositionError` where there is none."""
    lattice = find_lattice(mdp)
    if lattice is None:
        raise PositionError("the positions of the states are not the cells of a grid", "draw it with draw_table")
    return lattice


def places(coordinate: np.ndarray) -> np.ndarray | None:
    """Coordinates → 0, 1, 2, … by the smallest spacing, or None where that is not regular."""
    distinct = np.unique(coordinate)
    gap = np.diff(distinct).min(initial=np.inf)
    if gap == np.inf:
        return np.zeros(len(coordinate), int)
    steps = (coordinate - distinct[0]) / gap
    whole = np.round(steps)
    return whole.astype(int) if np.abs(steps - whole).max() < 1e-6 and whole.max() < MOST_CELLS else None


# ---------------------------------------------------------------- moments
def acting(posterior: Answer) -> np.ndarray:
    """(T+1,) probability of being in a state that is not terminal."""
    return posterior.state_probs @ (~posterior.mdp.terminal).astype(float)


def moments(posterior: Answer, count: int) -> np.ndarray:
    """Up to `count` time steps worth a panel: spread over the time in which somebody still acts, and the last one."""
    going = np.flatnonzero(acting(posterior) > 0.02)
    busy = int(going[-1]) if len(going) else posterior.horizon
    if busy > 0.8 * posterior.horizon:
        return thin(posterior.horizon, count)
    return np.append(thin(busy, count - 1), posterior.horizon)


def until(answers: Sequence[Answer]) -> int:
    """The last moment worth a column: the horizon, or soon after nobody acts any more."""
    horizon = max(answer.horizon for answer in answers)
    going = [np.flatnonzero(acting(answer) > 0.02) for answer in answers]
    busy = max((int(times[-1]) for times in going if len(times)), default=horizon)
    return horizon if 2 * busy > horizon or horizon <= 40 else max(busy * 5 // 4, 20)


def thin(horizon: int, count: int) -> np.ndarray:
    """Up to `count` time steps from 0 to horizon, both included, evenly spread."""
    return np.unique(np.round(np.linspace(0, horizon, count)).astype(int))


def brightest(posterior: Answer, times: np.ndarray | list[int], states: np.ndarray | slice = slice(None)) -> float:
    """The largest probability of a state that is not terminal, after the first moment: what a colour scale should span.

    Known starts and goals hold a probability of one for a moment and for ever, beside which all else would be dark.
    """
    free = ~posterior.mdp.terminal[states]
    return max((float(posterior.state_probs[t][states][free].max(initial=0.0)) for t in times if t > 0), default=0.0)


def middle(posterior: Answer) -> int:
    """A decision half-way through the time in which somebody acts."""
    busy = np.flatnonzero(acting(posterior)[:-1] > 0.5)
    return int(busy[-1] // 2) if len(busy) else posterior.horizon // 2


# ---------------------------------------------------------------- states
def visits(posterior: Answer) -> np.ndarray:
    """(S,) expected number of visits, Σ_t state_probs[t]; a terminal state counts once per step it is stayed in."""
    return posterior.state_probs.sum(axis=0)


def busiest(answers: Sequence[Answer], count: int) -> np.ndarray:
    """The `count` states that are most visited in all answers together, in the order of the mean time of visits."""
    total = np.sum([visits(answer) for answer in answers], axis=0)
    chosen = np.argsort(-total, kind="stable")[:count]
    chosen = chosen[total[chosen] > 0]
    clock = np.sum([np.arange(len(answer.state_probs)) @ answer.state_probs for answer in answers], axis=0)
    return chosen[np.argsort(clock[chosen] / total[chosen], kind="stable")]


def goals(mdp: World) -> tuple[np.ndarray, np.ndarray]:
    """Terminal states, as (those whose arrival pays best, the others)."""
    best = np.full(mdp.num_states, -np.inf)
    np.maximum.at(best, mdp.next_state, mdp.branch_reward)
    terminal = np.flatnonzero(mdp.terminal)
    top = best[terminal] == best[terminal].max(initial=-np.inf)
    return terminal[top], terminal[~top]


def state_reward(mdp: World) -> tuple[np.ndarray, str]:
    """(S,) rewards to colour a world with, and what they are: paid on arrival if that says it all, else on acting."""
    first = np.full(mdp.num_states, np.inf)
    np.minimum.at(first, mdp.next_state, mdp.branch_reward)
    if np.array_equal(first[mdp.next_state], mdp.branch_reward):
        return np.where(first < np.inf, first, np.nan), "on arrival"
    seen = mdp.branch_reward > -np.inf
    weight = np.where(seen, mdp.probability, 0.0)
    state = mdp.choice_state[mdp.branch_choice]
    total = np.bincount(state, weight * np.where(seen, mdp.branch_reward, 0.0), mdp.num_states)
    count = np.bincount(state, weight, mdp.num_states)
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan), "of a step from here, mean over actions"


# ---------------------------------------------------------------- windows
def reached_states(posterior: Answer) -> np.ndarray:
    """States that are not terminal and have at least 0.01 expected visits; of those the 2,500 busiest."""
    total = np.where(posterior.mdp.terminal, 0.0, visits(posterior))
    order = np.argsort(-total, kind="stable")[:LARGE]
    return np.sort(order[total[order] >= REACHED])


def whole(mdp: World) -> Window:
    """All of the grid."""
    rows, columns = require_lattice(mdp).shape
    return (rows - 0.5, -0.5), (-0.5, columns - 0.5)


def around(posterior: Answer, rim: float = 0.0) -> Window:
    """The part of the grid that holds the reached states and the goals, and a cell around; `rim` widens the grid."""
    lattice = require_lattice(posterior.mdp)
    states = np.concatenate([reached_states(posterior), goals(posterior.mdp)[0]])
    (bottom, _), (_, right) = whole(posterior.mdp)
    if not len(states):
        return whole(posterior.mdp)
    rows, columns = lattice.row[states], lattice.column[states]
    return (
        (min(rows.max() + 1.5, bottom + rim), max(rows.min() - 1.5, -0.5 - rim)),
        (max(columns.min() - 1.5, -0.5 - rim), min(columns.max() + 1.5, right + rim)),
    )


def view(answers: Sequence[Answer]) -> Window:
    """All of a small grid; of a large one the part where somebody comes in one of the answers."""
    lattice = require_lattice(answers[0].mdp)
    if lattice.shape[0] * lattice.shape[1] <= LARGE:
        return whole(answers[0].mdp)
    rows, columns = np.moveaxis(np.array([around(answer) for answer in answers]), 1, 0)
    return (rows[:, 0].max(), rows[:, 1].min()), (columns[:, 0].min(), columns[:, 1].max())


def aspect(window: Window) -> float:
    """Width by height."""
    rows, columns = window
    return (columns[1] - columns[0]) / (rows[0] - rows[1])


# ---------------------------------------------------------------- arrows
COMPASS = {
    "up": (0, -1), "north": (0, -1), "n": (0, -1), "right": (1, 0), "east": (1, 0), "e": (1, 0),
    "down": (0, 1), "south": (0, 1), "s": (0, 1), "left": (-1, 0), "west": (-1, 0), "w": (-1, 0),
}  # fmt: skip


def directions(mdp: World, lattice: Lattice, states: np.ndarray) -> np.ndarray:
    """(n, A, 2) unit vectors (column, row) of the actions in n states; zero where an action stays or is not available.

    Actions named after directions point there, even against a wall. Others point to their most likely next cell; where
    several are equally likely, to the mean of those.
    """
    named = [COMPASS.get(str(name).lower()) for name in mdp.action_names or ()]
    out = np.zeros((len(states), mdp.num_actions, 2))
    index = np.full(mdp.num_states, -1)
    index[states] = np.arange(len(states))
    wanted = index[mdp.choice_state] >= 0
    rows, actions = index[mdp.choice_state[wanted]], mdp.choice_action[wanted]
    if named and all(named):
        out[rows, actions] = np.array(named, float)[actions]
        return out
    place = np.stack([lattice.column, lattice.row], 1).astype(float)
    start = mdp.branch_offset[:-1]
    top = np.maximum.reduceat(mdp.probability, start)[mdp.branch_choice]
    likely = (mdp.probability >= top * (1 - 1e-9)).astype(float)
    move = place[mdp.next_state] - place[mdp.choice_state[mdp.branch_choice]]
    mean = np.add.reduceat(move * likely[:, None], start) / np.add.reduceat(likely, start)[:, None]
    size = np.hypot(mean[:, 0], mean[:, 1])[:, None]
    unit = np.where(size > 1e-9, mean / np.where(size > 1e-9, size, 1), 0.0)
    out[rows, actions] = unit[wanted]
    return out
