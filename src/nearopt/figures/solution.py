"""The infinite horizon in pictures: values with the policy, what is proved of them, the best trajectory, as files."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from nearopt.figures.canvas import COLOURS, PALE_MAP, WALL, colour_bar, log_norm, new_page, save
from nearopt.figures.layout import RIM, find_lattice, require_lattice, whole
from nearopt.figures.maps import draw_map
from nearopt.figures.pages import Page, big_size, legend
from nearopt.figures.paths import draw_arrows, draw_trajectories
from nearopt.figures.plan import (
    Plan,
    best_path,
    decades,
    path_title,
    plan_settings,
    tidy_decades,
    value_label,
    value_title,
    width_line,
)
from nearopt.figures.plan_sheets import plan_sheets

MOST_POSTS = 1_000  # cells of a map that have arrows
UNDER = ListedColormap(colormaps["Blues"](np.linspace(0.12, 0.6, 256)))  # arrows and lines are seen on it
ARROWS = "length and opacity of an arrow are the probability of its action"


def solution_figures(solution: Plan, folder: "str | PathLike[str]") -> list[Path]:
    """Draws a solution as PNG files in `folder`, which is made if missing; returns the files that were written.

    value.png and bounds.png: values with the policy as arrows, and how far the proved bounds are apart. path.png, at
    temperature 0 where the best actions leave nothing to chance: the single best trajectory. A world without a map is
    drawn as sheets of states, with policy.png of its own. Every file appears whole or not at all.

    >>> import nearopt as no, tempfile
    >>> solution = no.solve(no.MDP.from_grid("S..G"), temperature=0)
    >>> [path.name for path in solution_figures(solution, tempfile.mkdtemp())]
    ['value.png', 'bounds.png', 'path.png']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    make = maps if find_lattice(solution.mdp) is not None else plan_sheets
    return [save(figure, folder / name) for name, figure in make(solution)]


def maps(plan: Plan) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for."""
    yield "value.png", value_map(plan)
    yield "bounds.png", bounds_map(plan)
    path = best_path(plan)
    if path is not None:
        yield "path.png", path_map(plan, path[0])


def map_page(plan: Plan, title: str, line: str = "") -> tuple[Figure, Any, Axes]:
    settings = "\n".join(filter(None, [plan_settings(plan), line]))
    figure, body = new_page(*big_size(whole(plan.mdp)), title, settings)
    return figure, body, body.subplots()


def draw_values(plan: Plan, body: Any, ax: Axes) -> AxesImage:
    """V(s), with its colour bar; terminal states, whose value is 0, are white."""
    norm, cut = log_norm([plan.value[~plan.mdp.terminal]])
    image = draw_map(plan.mdp, plan.value, ax=ax, norm=norm, cmap=UNDER, blank=plan.mdp.terminal)
    colour_bar(body, image, ax, value_label(plan), extend="min" if cut else "neither")
    return image


def white(label: str, any_: bool) -> list[Patch]:
    """The entry of a legend for white cells, where there are any."""
    return [Patch(facecolor="white", edgecolor=WALL, label=label)] if any_ else []


def value_map(plan: Plan) -> Figure:
    """V with the policy as arrows: in every cell of a small world, else in every k-th row and column."""
    states, every = posts(plan)
    where = f"; one in {every} × {every} cells has arrows" if every > 1 else ""
    figure, body, ax = map_page(plan, value_title(plan), ARROWS + where)
    draw_values(plan, body, ax)
    draw_arrows(plan.mdp, plan.policy, states, ax=ax, scale=every, colour="black")
    rows, columns = require_lattice(plan.mdp).shape
    ax.set_xlim(-0.5 - RIM * every, columns - 0.5 + RIM * every)
    ax.set_ylim(rows - 0.5 + RIM * every, -0.5 - RIM * every)
    ax.set_facecolor(WALL)
    legend(figure, plan, *white("terminal: value 0", plan.mdp.terminal.any()))
    return figure


def posts(plan: Plan) -> tuple[np.ndarray, int]:
    """The states that have arrows, and how many cells apart they are."""
    lattice = require_lattice(plan.mdp)
    every = int(np.ceil(np.sqrt(lattice.shape[0] * lattice.shape[1] / MOST_POSTS)))
    here = (lattice.row % every == every // 2) & (lattice.column % every == every // 2)
    return np.flatnonzero(here & ~plan.mdp.terminal), every


def bounds_map(plan: Plan) -> Figure:
    """upper − lower, on a scale of powers of ten."""
    figure, body, ax = map_page(plan, "How far the proved bounds of the value are apart", width_line(plan))
    gap = plan.upper - plan.lower
    image = draw_map(plan.mdp, gap, ax=ax, norm=decades(plan), cmap=PALE_MAP, blank=gap <= 0)
    bar = colour_bar(body, image, ax, "upper − lower   [units of reward]; the mark is tol")
    across = bar.orientation == "horizontal"
    tidy_decades(bar.ax.xaxis if across else bar.ax.yaxis)
    (bar.ax.axvline if across else bar.ax.axhline)(plan.tol, color=COLOURS[5], lw=4, clip_on=False)
    legend(figure, plan, *white("bounds are equal", bool((gap <= 0).any())))
    return figure


class Track(NamedTuple):
    """One trajectory, to be drawn."""

    state: np.ndarray


def path_map(plan: Plan, states: np.ndarray) -> Figure:
    """The best trajectory as a line over the values."""
    figure, body, ax = map_page(plan, path_title(states, plan))
    draw_values(plan, body, ax)
    drawn = draw_trajectories(plan.mdp, Track(states[None]), ax=ax, jitter=0)
    drawn.set(linewidth=3, alpha=0.9)
    legend(figure, plan, *white("terminal: value 0", plan.mdp.terminal.any()))
    return figure
