"""The infinite horizon in pictures: values with the policy, what is proved of them, the best trajectory, as files."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from nearopt.figures.canvas import (
    COLOURS,
    INK,
    MEDIUM,
    PALE_MAP,
    SMALL,
    TINY,
    WALL,
    WIDTH,
    colour_bar,
    log_norm,
    name_panel,
    new_page,
    save,
)
from nearopt.figures.layout import RIM, find_lattice, require_lattice, thin, whole
from nearopt.figures.maps import draw_map
from nearopt.figures.pages import Page, big_size, legend
from nearopt.figures.paths import MOST_STEPS, draw_arrows, draw_trajectories
from nearopt.figures.results import Plan
from nearopt.figures.tables import draw_shares, label_states
from nearopt.figures.words import action_label, plan_settings, state_label
from nearopt.mdp.errors import ImproperError

ROWS = 40  # states, or decisions, in a picture without a map
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
    make = maps if find_lattice(solution.mdp) is not None else tables
    return [save(figure, folder / name) for name, figure in make(solution)]


def best_path(plan: Plan) -> tuple[np.ndarray, np.ndarray] | None:
    """States and actions of the best trajectory, or None where there is no single one."""
    if plan.temperature > 0 or plan.mdp.terminal.all():
        return None
    try:
        return plan.path(limit=MOST_STEPS)
    except ImproperError:
        return None


# ---------------------------------------------------------------- words
def value_label(plan: Plan) -> str:
    entropy = "" if plan.temperature == 0 else r", with $\tau\,\times$ entropy relative to the prior"
    return f"$V(s)$   [units of reward{entropy}]"


def value_title(plan: Plan) -> str:
    return "Values and policy of hard control" if plan.temperature == 0 else "Soft values and policy"


def width_line(plan: Plan) -> str:
    met = "" if plan.converged else ", which was not reached"
    return f"proved: lower ≤ V ≤ upper, nowhere more than {plan.width:.2g} apart   (tol {plan.tol:g}{met})"


def path_title(states: np.ndarray, plan: Plan) -> str:
    """How long it is, and how it ends."""
    count, last = len(states) - 1, int(states[-1])
    decisions = f"{count:,} {'decision' if count == 1 else 'decisions'}"
    if plan.mdp.terminal[last]:
        return f"The best trajectory: {decisions}, worth {plan.value[states[0]]:.6g}"
    if last in states[:-1]:
        return f"The best trajectory: {decisions}, then in circles; worth {plan.value[states[0]]:.6g}"
    return f"The best trajectory: its first {decisions}; worth {plan.value[states[0]]:.6g}"


# ---------------------------------------------------------------- on a grid
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


def decades(plan: Plan) -> LogNorm:
    """Whole decades that hold every width above 0, and tol."""
    gap = plan.upper - plan.lower
    low, high = gap[gap > 0].min(initial=plan.tol), max(plan.width, plan.tol)
    top = np.ceil(np.log10(high) - 1e-9)
    return LogNorm(10.0 ** min(np.floor(np.log10(low)), top - 1), 10.0**top)


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


def tidy_decades(axis: Any) -> None:
    """Labels at powers of ten only."""
    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_minor_formatter(NullFormatter())


def path_map(plan: Plan, states: np.ndarray) -> Figure:
    """The best trajectory as a line over the values."""
    figure, body, ax = map_page(plan, path_title(states, plan))
    draw_values(plan, body, ax)
    drawn = draw_trajectories(plan.mdp, SimpleNamespace(state=states[None]), ax=ax, jitter=0)
    drawn.set(linewidth=3, alpha=0.9)
    legend(figure, plan, *white("terminal: value 0", plan.mdp.terminal.any()))
    return figure


# ---------------------------------------------------------------- without a map
def tables(plan: Plan) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for."""
    states, which = ranked(plan)
    yield "value.png", value_sheet(plan, states, which)
    yield "policy.png", policy_sheet(plan, states, which)
    path = best_path(plan)
    if path is not None:
        yield "path.png", path_sheet(plan, *path)


def ranked(plan: Plan) -> tuple[np.ndarray, str]:
    """Up to 40 states from the best to the worst, evenly spread over the ranks, and what they are."""
    order, total = np.argsort(-plan.value, kind="stable"), plan.mdp.num_states
    if total <= ROWS:
        return order, "all states, from the most valuable down"
    return order[thin(total - 1, ROWS)], f"{ROWS} of {total:,} states, evenly spread from the most valuable down"


def sheet(plan: Plan, rows: int, title: str) -> tuple[Figure, Any]:
    return new_page(WIDTH, 3.0 + 0.19 * max(rows, 8), title, plan_settings(plan))


def tidy(ax: Axes, label: str) -> None:
    """A panel of points, one row each."""
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.set_xlabel(label, fontsize=MEDIUM, color=INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def value_sheet(plan: Plan, states: np.ndarray, which: str) -> Figure:
    """V as points, and upper − lower beside them."""
    figure, body = sheet(plan, len(states), "Values, and how far their proved bounds are apart")
    left, right = body.subplots(1, 2, width_ratios=(3, 2))
    rows = np.arange(len(states))
    left.plot(plan.value[states], rows, "o", color=COLOURS[0])
    label_states(plan.mdp, states, left)
    tidy(left, value_label(plan))
    name_panel(left, which)
    gap, norm = (plan.upper - plan.lower)[states], decades(plan)
    right.plot(gap[gap > 0], rows[gap > 0], "o", color=COLOURS[0])
    mark = right.axvline(plan.tol, color=COLOURS[5], lw=2, label=f"tol {plan.tol:g}")
    right.set_xscale("log")
    tidy_decades(right.xaxis)
    right.set_xlim(float(norm.vmin or 0), float(norm.vmax or 1) * 1.1)
    label_states(plan.mdp, states, right)
    right.set_yticks([])
    tidy(right, "upper − lower   [units of reward]")
    name_panel(right, f"largest: {plan.width:.2g}" + ("; no point where they are equal" if (gap <= 0).any() else ""))
    figure.legend(handles=[mark], loc="outside lower right", fontsize=SMALL, frameon=False)
    return figure


def policy_sheet(plan: Plan, states: np.ndarray, which: str) -> Figure:
    """The policy as stacked bars."""
    states = states[~plan.mdp.terminal[states]]
    figure, body = sheet(plan, len(states), f"The {'optimal' if plan.temperature == 0 else 'soft'} policy")
    ax = body.subplots()
    bars = draw_shares(plan.mdp, plan.policy, states, ax=ax)
    ax.set_xlabel(r"$\pi(a\,|\,s)$  [probability]", fontsize=MEDIUM, color=INK)
    name_panel(ax, which + (" (without terminal ones)" if plan.mdp.terminal.any() else ""))
    figure.legend(handles=bars, loc="outside lower center", ncols=min(len(bars), 8), fontsize=SMALL, frameon=False)
    return figure


def path_sheet(plan: Plan, states: np.ndarray, actions: np.ndarray) -> Figure:
    """One row per decision, from the top: the state, the action, what is still to come."""
    shown = states[:ROWS]
    figure, body = sheet(plan, len(shown), path_title(states, plan))
    ax = body.subplots()
    ahead = np.where(plan.mdp.terminal[shown], np.nan, plan.value[shown])
    ax.plot(ahead, range(len(shown)), "o-", color=COLOURS[5])
    label_states(plan.mdp, shown, ax)
    labels = [
        f"{state_label(plan.mdp, int(s))}: {action_label(plan.mdp, int(a))}"
        for s, a in zip(shown, actions, strict=False)
    ]
    labels += [state_label(plan.mdp, int(s)) for s in shown[len(labels) :]]
    ax.set_yticks(range(len(labels)), labels, fontsize=TINY, family="DejaVu Sans", parse_math=False)
    tidy(ax, value_label(plan))
    rest = f" (the first {ROWS} of {len(states):,})" if len(states) > ROWS else ""
    name_panel(ax, f"from the top, one state and decision a row: what is still to come{rest}")
    return figure
