"""Maps of a world on a grid: one number per cell, walls, starts and goals. y points down, as rows are read."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize, to_rgba
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.path import Path as Outline

from nearopt.figures.canvas import (
    EMPTY,
    GOAL,
    HATCHED,
    LOG_MAP,
    PROBABILITY_MAP,
    REWARD_MAP,
    START,
    WALL,
    probability_norm,
)
from nearopt.figures.layout import REACHED, Window, goals, require_lattice, state_reward, visits, whole
from nearopt.figures.results import Answer, World

MOST_MARKS = 300


def draw_map(
    mdp: World,
    values: Any,
    *,
    ax: Axes,
    norm: Normalize | None = None,
    cmap: str | Colormap = LOG_MAP,
    blank: Any = None,
    window: Window | None = None,
) -> AxesImage:
    """One number per state as coloured cells; returns the image, whose array is `values` laid out on the grid.

    Walls are grey, cells whose value is not finite (−inf) hatched, cells in `blank` (S,) bool white. Starts and goals
    are marked. `window` shows a part of the grid. Raises `PositionError` where the positions are no cells of a grid.
    """
    lattice = require_lattice(mdp)
    rows, columns = lattice.shape
    blank = np.zeros(mdp.num_states, bool) if blank is None else np.asarray(blank)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    ax.add_patch(
        Rectangle((-0.5, -0.5), columns, rows, facecolor="white", edgecolor=HATCHED, hatch="////", lw=0, zorder=0)
    )
    ground = np.zeros((rows, columns, 4))
    ground[lattice.wall] = to_rgba(WALL)
    ground[lattice.row[blank], lattice.column[blank]] = to_rgba("white")
    ax.imshow(ground, extent=extent, interpolation="nearest", zorder=1)
    shown = lattice.image(np.where(blank, np.nan, np.asarray(values, float)))
    image = ax.imshow(shown, extent=extent, interpolation="nearest", norm=norm, cmap=cmap, zorder=2)
    down, across = window or whole(mdp)
    ax.set_xlim(across)
    ax.set_ylim(down)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_color(WALL)
        spine.set_linewidth(2)
    draw_marks(mdp, ax=ax)
    return image


def draw_marks(mdp: World, *, ax: Axes) -> list[PolyCollection]:
    """Starts as discs, goals as stars, other terminal states (those whose arrival pays less) as crosses."""
    lattice = require_lattice(mdp)
    best, other = goals(mdp)
    across, down = np.abs(np.diff([ax.get_xlim(), ax.get_ylim()])).reshape(-1)
    cell = min(ax.bbox.width / across, ax.bbox.height / down) * 72 / ax.figure.dpi  # points
    radius = max(0.2, 4.5 / cell)  # a fifth of a cell, but to be seen in the smallest panel too
    edge = min(0.8, 0.12 * radius * cell)
    drawn = []
    for states, outline, colour in (
        (np.flatnonzero(mdp.initial), Outline.unit_regular_polygon(48), START),
        (other, CROSS, "white"),
        (best, Outline.unit_regular_star(5, innerCircle=0.45), GOAL),
    ):
        if 0 < len(states) <= MOST_MARKS:
            ring = np.asarray(outline.to_polygons(closed_only=True)[0]) * (radius, -radius)
            centre = np.stack([lattice.column[states], lattice.row[states]], 1)
            marks = PolyCollection(
                list(ring + centre[:, None]), facecolors=colour, edgecolors="black", linewidths=edge, zorder=6
            )
            drawn.append(ax.add_collection(marks, autolim=False))
    return drawn


PLUS = np.array(
    [(1, 1), (1, 4), (-1, 4), (-1, 1), (-4, 1), (-4, -1), (-1, -1), (-1, -4), (1, -4), (1, -1), (4, -1), (4, 1), (1, 1)]
)
CROSS = Outline(PLUS @ np.array([(1, 1), (-1, 1)]) / 5)


def legend_handles(mdp: World, *, impossible: bool = False, blank: bool = False, rare: bool = False) -> list[Any]:
    """What the marks of a map mean, for a legend."""
    lattice = require_lattice(mdp)
    best, other = goals(mdp)
    mark: dict[str, Any] = dict(linestyle="", markeredgecolor="black", markersize=11)
    stays = " (not on the scale of visits)" if blank else ""
    handles: list[Any] = [Line2D([], [], marker="o", color=START, label="start", **mark)]
    if len(best):
        handles.append(Line2D([], [], marker="*", color=GOAL, label=f"goal{stays}", **{**mark, "markersize": 15}))
    if len(other):
        handles.append(Line2D([], [], marker="X", color="white", label="other terminal state", **mark))
    if lattice.wall.any():
        handles.append(Patch(facecolor=WALL, label="wall"))
    if rare:
        handles.append(Patch(facecolor=EMPTY, label=f"expected visits < {REACHED:g}: not drawn"))
    if impossible:
        handles.append(Patch(facecolor="white", edgecolor=HATCHED, hatch="////", label=r"impossible ($-\infty$)"))
    return handles


# ---------------------------------------------------------------- what is on the map
def draw_world(mdp: World, *, ax: Axes) -> AxesImage:
    """Walls, free cells, starts and goals; the cells are coloured by reward where it varies.

    Returns the image, whose array holds the rewards; it is masked throughout where all rewards are equal.
    """
    reward, _ = state_reward(mdp)
    known = reward[~np.isnan(reward)]
    blank = np.isnan(reward) | (len(known) > 0 and known.min() == known.max())
    largest = float(np.abs(known[np.isfinite(known)]).max(initial=0.0)) or 1.0
    image = draw_map(mdp, reward, ax=ax, norm=Normalize(-largest, largest), cmap=REWARD_MAP, blank=blank)
    rows, columns = require_lattice(mdp).shape
    if rows + columns <= 150:
        style: dict[str, Any] = dict(color=EMPTY, lw=0.8, zorder=3)
        ax.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, **style)
        ax.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, **style)
    return image


def log_backward(posterior: Answer, t: int) -> np.ndarray:
    """(S,) log β_t = V_t/τ; V_t itself at temperature 0."""
    with np.errstate(over="ignore"):
        return posterior.value[t] / (posterior.temperature or 1.0)


def draw_backward(
    posterior: Answer, t: int, *, ax: Axes, norm: Normalize | None = None, window: Window | None = None
) -> AxesImage:
    """log β_t(s) = V_t(s)/τ in nats (V_t at temperature 0); −inf is hatched."""
    return draw_map(posterior.mdp, log_backward(posterior, t), ax=ax, norm=norm, window=window)


def draw_forward(
    posterior: Answer, t: int, *, ax: Axes, norm: Normalize | None = None, window: Window | None = None
) -> AxesImage:
    """log α_t(s) in nats; −inf is hatched."""
    return draw_map(posterior.mdp, posterior.log_forward[t], ax=ax, norm=norm, window=window)


def draw_marginal(
    posterior: Answer, t: int, *, ax: Axes, norm: Normalize | None = None, window: Window | None = None
) -> AxesImage:
    """p(s_t | O_1:T), the intersection of forward and backward messages."""
    norm = norm or probability_norm(float(posterior.state_probs[t].max()))
    return draw_map(posterior.mdp, posterior.state_probs[t], ax=ax, norm=norm, cmap=PROBABILITY_MAP, window=window)


def draw_visits(
    posterior: Answer,
    *,
    ax: Axes,
    norm: Normalize | None = None,
    cmap: str = PROBABILITY_MAP,
    window: Window | None = None,
) -> AxesImage:
    """Expected visits Σ_t p(s_t | O_1:T); terminal states, where visits only count the time that is left, are white."""
    terminal = posterior.mdp.terminal
    total = visits(posterior)
    norm = norm or probability_norm(float(total[~terminal].max(initial=0.0)))
    return draw_map(posterior.mdp, total, ax=ax, norm=norm, cmap=cmap, blank=terminal, window=window)
