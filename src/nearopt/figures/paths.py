"""Movement on a grid: sampled trajectories as lines, a policy as arrows."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_rgba
from matplotlib.quiver import Quiver

from nearopt.figures.canvas import COLOURS, EMPTY
from nearopt.figures.layout import Lattice, directions, require_lattice, visits
from nearopt.figures.maps import draw_map
from nearopt.figures.results import Answer, Paths, World
from nearopt.mdp.errors import StateRangeError

MOST_LINES, MOST_STEPS, MOST_ARROWS = 100, 2_000, 2_500
REACHED = 0.01  # expected visits from which on a state is worth an arrow
FAINTEST = 0.02  # the least probability that an arrow is drawn for


def check_paths(mdp: World, trajectories: Paths) -> np.ndarray:
    """(n, L+1) states of the trajectories that are drawn; `StateRangeError` for a state that is not in the model."""
    state = np.asarray(trajectories.state)
    if state.max(initial=-1) >= mdp.num_states:
        raise StateRangeError(
            f"the trajectories visit state {state.max()}, the model has {mdp.num_states} states", "draw the model's own"
        )
    return state[:MOST_LINES, : MOST_STEPS + 1]


def draw_trajectories(
    mdp: World, trajectories: Paths, *, ax: Axes, jitter: float = 0.3, colour: str = COLOURS[5]
) -> LineCollection:
    """Trajectories as lines through the cells, each shifted by up to `jitter` cells so that they stay apart.

    At most 100 trajectories, 2,000 steps of each. Draws nothing but the lines: draw a map on `ax` first.
    """
    lattice = require_lattice(mdp)
    states = check_paths(mdp, trajectories)
    place = np.stack([lattice.column, lattice.row], 1).astype(float)
    rng = np.random.default_rng(0)
    shift = rng.uniform(-jitter, jitter, (len(states), 1, 2))
    shake = rng.uniform(-jitter / 4, jitter / 4, (*states.shape, 2))
    points = place[states] + shift + shake
    lines = [line[row >= 0] for line, row in zip(points, states, strict=True)]
    alpha = float(np.clip(4 / max(len(lines), 1) ** 0.6, 0.15, 0.9))
    drawn = LineCollection(lines, colors=colour, alpha=alpha, linewidths=1.6, joinstyle="round", zorder=4)
    return ax.add_collection(drawn, autolim=False)


def reached_states(posterior: Answer) -> np.ndarray:
    """The states that a policy is drawn in: not terminal, at least 0.01 expected visits, at most the 2,500 busiest."""
    total = np.where(posterior.mdp.terminal, 0.0, visits(posterior))
    order = np.argsort(-total, kind="stable")[:MOST_ARROWS]
    return np.sort(order[total[order] >= REACHED])


def draw_policy(posterior: Answer, t: int, *, ax: Axes, zoom: bool = True) -> Quiver:
    """π_t(a|s) as arrows: length and opacity are the probability, p = 1 reaches the edge of the cell.

    Only states with at least 0.01 expected visits have arrows, all others are light grey; `zoom` shows no more of the
    grid than they need. An action that stays is drawn as a dot. Returns the arrows, none below probability 0.02.
    """
    mdp, lattice = posterior.mdp, require_lattice(posterior.mdp)
    states = reached_states(posterior)
    seen = np.zeros(mdp.num_states, bool)
    seen[states] = True
    image = draw_map(mdp, np.where(seen | mdp.terminal, np.nan, 0.0), ax=ax, blank=seen | mdp.terminal)
    image.set_cmap(flat(EMPTY))
    probability = posterior.policy_at(t)[states]
    unit = directions(mdp, lattice, states)
    centre = np.stack([lattice.column[states], lattice.row[states]], 1).astype(float)
    centre = np.broadcast_to(centre[:, None], unit.shape)
    strong = probability >= FAINTEST
    moves = strong & (np.abs(unit).sum(2) > 0)
    arrow = unit[moves] * (0.5 * probability[moves])[:, None]
    drawn = ax.quiver(
        *centre[moves].T, *arrow.T, color=shades(probability[moves]), angles="xy", scale_units="xy", scale=1,
        width=0.12, units="xy", headwidth=2.6, headlength=2.2, headaxislength=2.2, minlength=0, zorder=5,
    )  # fmt: skip
    stays = strong & ~moves
    size = 0.3 * np.sqrt(probability[stays])
    dots = EllipseCollection(
        size, size, np.zeros(len(size)), units="xy", offsets=centre[stays], offset_transform=ax.transData,
        facecolors=shades(probability[stays]), edgecolors="none", zorder=5,
    )  # fmt: skip
    ax.add_collection(dots, autolim=False)
    if zoom and len(states):
        frame(ax, lattice, np.concatenate([states, np.flatnonzero(mdp.terminal & (visits(posterior) > REACHED))]))
    return drawn


def flat(colour: str):
    from matplotlib.colors import ListedColormap

    return ListedColormap([colour])


def shades(probability: np.ndarray) -> np.ndarray:
    """(n, 4) colours whose opacity is the probability."""
    colours = np.tile(to_rgba(COLOURS[0]), (len(probability), 1))
    colours[:, 3] = 0.35 + 0.65 * np.clip(probability, 0, 1)
    return colours


def frame(ax: Axes, lattice: Lattice, states: np.ndarray) -> None:
    """Shows the part of the grid that holds these states, and one cell around it."""
    rows, columns = lattice.row[states], lattice.column[states]
    ax.set_xlim(max(columns.min() - 1.5, -0.5), min(columns.max() + 1.5, lattice.shape[1] - 0.5))
    ax.set_ylim(min(rows.max() + 1.5, lattice.shape[0] - 0.5), max(rows.min() - 1.5, -0.5))
