"""Movement on a grid: sampled trajectories as lines, a policy as arrows."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.quiver import Quiver

from nearopt.figures.canvas import COLOURS, EMPTY, WALL
from nearopt.figures.layout import RIM, Window, around, directions, reached_states, require_lattice
from nearopt.figures.maps import draw_map
from nearopt.figures.results import Answer, Paths, World
from nearopt.mdp.errors import StateRangeError

MOST_LINES, MOST_STEPS = 100, 2_000
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
    shake = rng.uniform(-jitter / 8, jitter / 8, (*states.shape, 2))
    points = place[states] + shift + shake
    lines = [line[row >= 0] for line, row in zip(points, states, strict=True)]
    drawn = LineCollection(lines, colors=colour, alpha=line_alpha(states), linewidths=1.6, joinstyle="round", zorder=4)
    ax.add_collection(drawn, autolim=False)
    return drawn


def line_alpha(states: np.ndarray) -> float:
    """Opacity of the lines: the more there is to draw, the less."""
    return float(np.clip(15 / np.sqrt(max((states >= 0).sum(), 1)), 0.12, 0.9))


def draw_policy(posterior: Answer, t: int, *, ax: Axes, window: Window | None = None) -> Quiver:
    """π_t(a|s) as arrows: length and opacity are the probability, p = 1 is 0.7 of a cell long.

    Only states with at least 0.01 expected visits have arrows, all others are light grey; states from which success is
    impossible at t are hatched. The part of the grid around the arrows is shown, or `window`. An action that stays is
    drawn as a dot. Returns the arrows, none below probability 0.02.
    """
    mdp = posterior.mdp
    states = reached_states(posterior)
    seen = np.zeros(mdp.num_states, bool)
    seen[states] = True
    lost = np.isneginf(posterior.value[t]) & ~mdp.terminal
    blank = (seen & ~lost) | mdp.terminal
    window = window or around(posterior, RIM)
    unseen = np.where(seen | blank, np.nan, 0.0)
    draw_map(mdp, unseen, ax=ax, cmap=ListedColormap([EMPTY]), blank=blank, window=window)
    states = states[~lost[states]]
    drawn = draw_arrows(mdp, posterior.policy_at(t), states, ax=ax)
    ax.set_facecolor(WALL)
    return drawn


def draw_arrows(
    mdp: World,
    policy: np.ndarray,
    states: np.ndarray,
    *,
    ax: Axes,
    length: float = 0.7,
    scale: float = 1.0,
    colour: str = COLOURS[0],
    rim: str = "none",
) -> Quiver:
    """policy (S, A) in the chosen states as arrows, on a map; of probability 1 they are `length` × `scale` cells long.

    `scale` makes them thicker too; `rim` is the colour around them. Returns the arrows.
    """
    lattice, probability = require_lattice(mdp), policy[states]
    unit = directions(mdp, lattice, states)
    centre = np.stack([lattice.column[states], lattice.row[states]], 1).astype(float)
    centre = np.broadcast_to(centre[:, None], unit.shape)
    strong = probability >= FAINTEST
    moves = strong & (np.abs(unit).sum(2) > 0)
    arrow = unit[moves] * (length * scale * probability[moves])[:, None]
    tail = centre[moves] + 0.06 * scale * unit[moves]
    drawn = ax.quiver(
        *tail.T, *arrow.T, color=shades(probability[moves], colour), angles="xy", scale_units="xy", scale=1,
        width=0.055 * scale, units="xy", headwidth=3.6, headlength=3.2, headaxislength=3, minlength=0, zorder=7,
        edgecolors=rim, linewidths=0 if rim == "none" else 0.5,
    )  # fmt: skip
    stays = strong & ~moves
    size = 0.3 * scale * np.sqrt(probability[stays])
    dots = EllipseCollection(
        size, size, np.zeros(len(size)), units="xy", offsets=centre[stays], offset_transform=ax.transData,
        facecolors=shades(probability[stays], colour), edgecolors=rim, linewidths=0.5, zorder=5,
    )  # fmt: skip
    ax.add_collection(dots, autolim=False)
    return drawn


def shades(probability: np.ndarray, colour: str = COLOURS[0]) -> np.ndarray:
    """(n, 4) colours whose opacity is the probability."""
    colours = np.tile(to_rgba(colour), (len(probability), 1))
    colours[:, 3] = 0.35 + 0.65 * np.clip(probability, 0, 1)
    return colours
