"""Recorded behaviour and a fitted reward over the world: as a map, as places with ways between them, or as lists."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from nearopt.figures.canvas import (
    COLOURS,
    INK,
    MEDIUM,
    REWARD_MAP,
    SMALL,
    TINY,
    colour_bar,
    name_panel,
    new_page,
    probability_norm,
)
from nearopt.figures.layout import aspect, find_lattice, whole
from nearopt.figures.maps import draw_map
from nearopt.figures.paths import draw_arrows
from nearopt.figures.results import World
from nearopt.figures.tables import draw_shares, draw_table, label_states
from nearopt.figures.words import action_label, state_label

PAGE = 9.0  # inches: to be read on a page, not on a slide
FITTED = "fitted agent"  # its name in the comparison
FULL, NEAR = 0.3, 0.7  # shares of a grid that is states, and of steps to neighbouring cells, for a map
MANY = 30  # states without names from which on their numbers are an axis
COMMON = 0.8  # share of decisions from which on an action is left out of stacked bars, to see the others
ROWS, PANELS, LABELLED, MOST_POSTS = 30, 4, 14, 1_000
UNDER = ListedColormap(colormaps["Blues"](np.linspace(0.08, 0.75, 256)))


class Ranged(Protocol):
    """The attributes of `nearopt.behaviour.predictive.Check` that a figure reads."""

    @property
    def data(self) -> np.ndarray: ...
    @property
    def mean(self) -> np.ndarray: ...
    @property
    def low(self) -> np.ndarray: ...
    @property
    def high(self) -> np.ndarray: ...
    @property
    def distance(self) -> float: ...
    @property
    def usual(self) -> tuple[float, float]: ...


class Explained(Protocol):
    """The attributes of `nearopt.behaviour.report.Report` that a figure reads."""

    @property
    def mdp(self) -> Any: ...
    @property
    def taken(self) -> Any: ...
    @property
    def visits(self) -> np.ndarray: ...
    @property
    def moves(self) -> Any: ...
    @property
    def recorded(self) -> Any: ...
    @property
    def held_out(self) -> Any: ...
    @property
    def reward(self) -> Any: ...
    @property
    def maps(self) -> np.ndarray | None: ...
    @property
    def time_varying(self) -> bool: ...
    @property
    def coef(self) -> np.ndarray: ...
    @property
    def lower(self) -> np.ndarray: ...
    @property
    def upper(self) -> np.ndarray: ...
    @property
    def level(self) -> float: ...
    @property
    def names(self) -> Any: ...
    @property
    def shown(self) -> Any: ...
    @property
    def dials(self) -> dict[str, tuple[float, float, float]]: ...
    @property
    def rows(self) -> Sequence[Any]: ...
    @property
    def checks(self) -> Any: ...


# ---------------------------------------------------------------- which kind of world
def mapped(mdp: World) -> bool:
    """Whether it is a map: the states fill a grid well enough, and most steps lead to a neighbouring cell."""
    lattice = find_lattice(mdp)
    if lattice is None or (~lattice.wall).mean() < FULL:
        return False
    here, there = mdp.choice_state[mdp.branch_choice], mdp.next_state
    apart = np.hypot(lattice.row[here] - lattice.row[there], lattice.column[here] - lattice.column[there])
    return bool((apart[here != there] < 1.5).mean() >= NEAR) if (here != there).any() else True


def placed(mdp: World) -> bool:
    """Whether every state has a place of its own."""
    return mdp.positions is not None and len(np.unique(mdp.positions, axis=0)) == mdp.num_states


def numbered(mdp: World) -> bool:
    """Whether states are best told by their numbers: many, and without names or places."""
    return not placed(mdp) and mdp.state_names is None and mdp.num_states > MANY


def tidy(ax: Axes, grid: str = "x") -> None:
    ax.grid(axis=grid, color="0.9")  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.tick_params(axis=grid, labelsize=SMALL)  # type: ignore[arg-type]
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


# ---------------------------------------------------------------- places with ways between them
def draw_places(
    mdp: World, values: np.ndarray, *, ax: Axes, norm: Normalize, cmap: Any, moves: Any = None, hollow: Any = None
) -> ScalarMappable:
    """States as discs coloured by value, the ways of the model as thin lines, recorded moves as thick ones.

    hollow (S,) bool: discs without a colour. y points down.
    """
    place = np.asarray(mdp.positions, float)
    here, there = mdp.choice_state[mdp.branch_choice], mdp.next_state
    ways = np.unique(np.sort(np.stack([here, there], 1)[here != there], axis=1), axis=0)
    ax.add_collection(LineCollection(list(place[ways]), colors="0.8", linewidths=0.8, zorder=1))
    if moves is not None:
        pairs, count = moves
        real = pairs[:, 0] != pairs[:, 1]
        ways, which = np.unique(np.sort(pairs[real], axis=1), axis=0, return_inverse=True)
        total = np.bincount(which.reshape(-1), count[real], len(ways))
        width = 7 * np.sqrt(total / total.max(initial=1.0))
        ax.add_collection(LineCollection(list(place[ways]), colors=COLOURS[1], linewidths=width, zorder=2))
    low, high = place.min(axis=0), place.max(axis=0)
    room = np.maximum(high - low, 1e-9)
    ax.set_xlim(low[0] - 0.04 * room[0], high[0] + 0.04 * room[0])
    ax.set_ylim(high[1] + 0.1 * room[1], low[1] - 0.1 * room[1])
    ax.set_aspect("equal" if 1 / 3 <= room[0] / room[1] <= 3 else "auto")
    ax.set_axis_off()
    size = disc_size(mdp, ax)
    solid = np.ones(len(place), bool) if hollow is None else ~np.asarray(hollow)
    ax.scatter(*place[~solid].T, s=size**2 / 2, c="white", edgecolors="0.6", linewidths=0.6, zorder=3)
    return ax.scatter(*place[solid].T, s=size**2, c=np.asarray(values, float)[solid], norm=norm, cmap=cmap,
                      edgecolors=INK, linewidths=0.6, zorder=4)  # fmt: skip


def disc_size(mdp: World, ax: Axes) -> float:
    """A diameter, in points, at which discs hardly touch."""
    place = np.asarray(mdp.positions, float)
    scale = np.array([ax.bbox.width, ax.bbox.height]) * 72 / ax.figure.dpi
    points = (place - place.min(axis=0)) / np.maximum(np.ptp(place, axis=0), 1e-9) * scale * 0.9
    some = points[:: max(len(points) // 500, 1)]
    apart = np.hypot(*(some[:, None] - points[None]).transpose(2, 0, 1))
    return float(np.clip(0.8 * np.sort(apart, axis=1)[:, 1].min() if len(points) > 1 else 16, 3, 16))


def label_places(mdp: World, states: np.ndarray, ax: Axes) -> None:
    """Names above the discs, or below where there is one already, or none."""
    place = np.asarray(mdp.positions, float)
    points = ax.transData.transform(place) * 72 / ax.figure.dpi
    taken: list[np.ndarray] = []
    box = dict(boxstyle="round,pad=0.1", fc="white", ec="none", alpha=0.75)
    style: dict[str, Any] = dict(fontsize=TINY, parse_math=False, bbox=box, ha="center", va="center", zorder=6)
    for s in states.tolist():
        text = str(s) if mdp.state_names is None else state_label(mdp, s)
        room = np.array([4.0 + 3.3 * len(text), 12.0])  # half of its width, and its height
        for shift in (13.0, -13.0):
            here = np.append(points[s] + (0, shift), room[0])
            if all(abs(here[0] - o[0]) > room[0] + o[2] or abs(here[1] - o[1]) > room[1] for o in taken):
                ax.annotate(text, tuple(place[s]), (0, shift), textcoords="offset points", **style)
                taken.append(here)
                break


# ---------------------------------------------------------------- what was recorded
def data_page(report: Explained) -> Figure:
    """Decisions per state, and what was done there."""
    mdp, visits = report.mdp, report.visits.astype(float)
    line = f"{int(visits.sum()):,} decisions in {len(report.recorded):,} episodes"
    title, norm = "What was recorded", probability_norm(visits.max())
    seen = np.flatnonzero(visits > 0)
    if mapped(mdp):
        height = float(np.clip((PAGE - 1) / aspect(whole(mdp)), 1.2, 8)) + 2.4
        figure, body = new_page(PAGE, height, title, f"{line}; arrows: how often each action was taken")
        ax = body.subplots()
        image = draw_map(mdp, visits, ax=ax, norm=norm, cmap=UNDER, blank=visits == 0)
        acted = seen[np.argsort(-visits[seen], kind="stable")[:MOST_POSTS]]
        draw_arrows(mdp, report.taken / np.maximum(visits, 1)[:, None], acted, ax=ax, colour="black")
        colour_bar(body, image, ax, "decisions; white: never there", location="bottom", aspect=40)
        return figure
    if placed(mdp):
        figure, body = new_page(PAGE, 5.6, title, f"{line}; width of a way: how often it was taken")
        ax = body.subplots()
        drawn = draw_places(mdp, visits, ax=ax, norm=norm, cmap=UNDER, moves=report.moves, hollow=visits == 0)
        label_places(mdp, seen[np.argsort(-visits[seen], kind="stable")[:LABELLED]], ax)
        colour_bar(body, drawn, ax, "decisions; small and white: never there")
        return figure
    return numbered_data(report, line) if numbered(mdp) else listed_data(report, line)


def numbered_data(report: Explained, line: str) -> Figure:
    """Decisions and shares of actions over the number of the state."""
    mdp, taken = report.mdp, report.taken
    last = int(np.flatnonzero(report.visits).max(initial=0)) + 1
    figure, body = new_page(PAGE, 6.4, "What was recorded", line)
    top, bottom = body.subplots(2, 1, sharex=True)
    top.bar(range(last), report.visits[:last], width=1.0, color=COLOURS[0])
    top.set_ylabel("decisions", fontsize=MEDIUM, color=INK)
    share, left = taken[:last] / np.maximum(report.visits[:last], 1)[:, None], np.zeros(last)
    actions = np.argsort(-taken.sum(axis=0), kind="stable")[: len(COLOURS)].tolist()
    rest = int(taken.sum(axis=0)[actions[0]] > COMMON * taken.sum())
    for a, colour in list(zip(actions, COLOURS, strict=False))[rest:]:
        bottom.bar(range(last), share[:, a], bottom=left, width=1.0, color=colour, label=action_label(mdp, a))
        left = left + share[:, a]
    bottom.set_ylim(0, None if rest else 1)
    bottom.set_ylabel("share of actions", fontsize=MEDIUM, color=INK)
    if rest:
        name_panel(bottom, f"the rest: {action_label(mdp, actions[0])}")
    bottom.set_xlabel("state", fontsize=MEDIUM, color=INK)
    figure.legend(
        *bottom.get_legend_handles_labels(), loc="outside lower center", ncols=8, fontsize=SMALL, frameon=False
    )
    for ax in (top, bottom):
        tidy(ax, "y")
    return figure


def listed_data(report: Explained, line: str) -> Figure:
    """The most visited states: decisions, and shares of actions."""
    mdp, visits = report.mdp, report.visits
    states = np.sort(np.argsort(-visits, kind="stable")[:ROWS])
    states = states[visits[states] > 0]
    figure, body = new_page(PAGE, 0.22 * max(len(states), 6) + 2.4, "What was recorded", line)
    left, right = body.subplots(1, 2)
    left.barh(range(len(states)), visits[states], color=COLOURS[0], height=0.75)
    label_states(mdp, states, left)
    left.set_xlabel("decisions", fontsize=MEDIUM, color=INK)
    bars = draw_shares(mdp, report.taken / np.maximum(visits, 1)[:, None], states, ax=right)
    right.set_yticks([])
    right.set_ylim(left.get_ylim())
    right.set_xlabel("share of actions", fontsize=MEDIUM, color=INK)
    if len(states) < (visits > 0).sum():
        name_panel(left, f"the {len(states)} most visited states")
    figure.legend(handles=bars, loc="outside lower center", ncols=min(len(bars), 6), fontsize=SMALL, frameon=False)
    tidy(left)
    return figure


# ---------------------------------------------------------------- the reward
def reward_page(report: Explained) -> Figure:
    """The fitted reward: of each state, or of each action in it; over time as tables."""
    panels, line = reward_panels(report)
    title = "The fitted reward"
    if report.maps is not None:
        panels, line = (
            [(f"map {k}", row) for k, row in enumerate(report.maps)],
            "its maps; their weights change over time",
        )
    elif report.time_varying:
        return reward_tables(report, panels, line)
    largest = max((float(np.nanmax(np.abs(v), initial=0.0)) for _, v in panels), default=0.0) or 1.0
    norm = Normalize(-largest, largest)
    if not placed(report.mdp):
        return reward_lines(report, panels, line)
    as_map = mapped(report.mdp)
    shape = aspect(whole(report.mdp)) if as_map else 2.2
    across = 1 if len(panels) == 1 or shape > 3 or not as_map and report.mdp.num_states > 60 else 2
    down = -(-len(panels) // across)
    each = float(np.clip((PAGE - 0.5) / across / shape, 1.0, 7.0 if len(panels) == 1 else 3.6))
    figure, body = new_page(PAGE, down * (each + 0.4) + 2.2, title, line)
    axes = body.subplots(down, across, squeeze=False).reshape(-1)
    drawn: Any = None
    for ax, (name, values) in zip(axes, panels, strict=False):
        if as_map:
            drawn = draw_map(report.mdp, values, ax=ax, norm=norm, cmap=REWARD_MAP, blank=np.isnan(values))
        else:
            drawn = draw_places(report.mdp, values, ax=ax, norm=norm, cmap=REWARD_MAP, hollow=np.isnan(values))
            far = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[: LABELLED // 2]
            label_places(report.mdp, far, ax)
        name_panel(ax, name)
    for spare in axes[len(panels) :]:
        spare.remove()
    colour_bar(body, drawn, list(axes[: len(panels)]), "reward", location="bottom", aspect=40)
    return figure


def reward_panels(report: Explained) -> tuple[list[tuple[str, np.ndarray]], str]:
    """(name, values (…, S)) of every panel: one where all actions of a state pay alike, else the actions most taken."""
    reward = np.asarray(report.reward, float)
    known = ~np.isnan(reward)
    low = np.where(known, reward, np.inf).min(axis=-1)
    high = np.where(known, reward, -np.inf).max(axis=-1)
    some = known.any(axis=-1)
    if (high[some] - low[some] <= 1e-9 * max(1.0, np.abs(reward[known]).max(initial=0.0))).all():
        return [("", np.where(some, high, np.nan))], "per state, whatever is done there"
    actions = np.argsort(-report.taken.sum(axis=0), kind="stable")
    actions = [a for a in actions.tolist() if known[..., a].any()]
    shown = sorted(actions[:PANELS])
    few = f"; the {PANELS} actions most taken, of {len(actions)}" if len(actions) > PANELS else ""
    return [(action_label(report.mdp, a), reward[..., a]) for a in shown], f"per state and action{few}"


def reward_lines(report: Explained, panels: list[tuple[str, np.ndarray]], line: str) -> Figure:
    """A world without places: reward over the number of the state, or of the most visited states by name."""
    mdp = report.mdp
    if numbered(mdp):
        return reward_curves(report, panels, line)
    states = np.sort(np.argsort(-report.visits, kind="stable")[:ROWS])
    figure, body = new_page(PAGE, 0.24 * max(len(states), 6) + 2.4, "The fitted reward", line)
    ax = body.subplots()
    for (name, values), colour in zip(panels, COLOURS, strict=False):
        ax.plot(values[states], range(len(states)), "o", color=colour, label=name or None)
    ax.axvline(0, color="0.6", lw=1, zorder=1)
    label_states(mdp, states, ax)
    ax.set_xlabel("reward", fontsize=MEDIUM, color=INK)
    tidy(ax)
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=SMALL, frameon=False)
    return figure


def reward_curves(report: Explained, panels: list[tuple[str, np.ndarray]], line: str) -> Figure:
    """Reward over the number of the state; a panel per action, each on a scale of its own."""
    last, total = int(np.flatnonzero(report.visits).max(initial=0)), report.mdp.num_states
    own = "; mind that every action has a scale of its own" if len(panels) > 1 else ""
    figure, body = new_page(PAGE, 2.1 * len(panels) + 2.4, "The fitted reward", line + own)
    axes = body.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (name, values), colour in zip(axes, panels, COLOURS, strict=False):
        ax.plot(values, color=colour, lw=2)
        middle, spread = np.nanmean(values), np.ptp(values[~np.isnan(values)])
        if spread <= 1e-6 * abs(middle):  # a constant, with room around it
            ax.set_ylim(middle - 0.1 * abs(middle) - 1e-9, middle + 0.1 * abs(middle) + 1e-9)
        if last < total - 1:
            ax.axvspan(last + 0.5, total - 1, color="0.93", zorder=0)
        ax.set_ylabel("reward", fontsize=MEDIUM, color=INK)
        name_panel(ax, name)
        tidy(ax, "y")
    shaded = "; shaded: no decision recorded" if last < total - 1 else ""
    axes[-1].set_xlabel(f"state{shaded}", fontsize=MEDIUM, color=INK)
    return figure


def reward_tables(report: Explained, panels: list[tuple[str, np.ndarray]], line: str) -> Figure:
    """Reward of the most visited states over time, a table per action."""
    mdp = report.mdp
    states = np.sort(np.argsort(-report.visits, kind="stable")[: ROWS if len(panels) == 1 else 2 * ROWS // 3])
    states = states[report.visits[states] > 0]
    largest = max((float(np.nanmax(np.abs(v[:, states]), initial=0.0)) for _, v in panels), default=0.0) or 1.0
    across = 1 if len(panels) == 1 else 2
    down = -(-len(panels) // across)
    height = down * (0.19 * max(len(states), 6) + 0.9) + 2.2
    some = f"; the {len(states)} most visited states" if len(states) < mdp.num_states else ""
    figure, body = new_page(PAGE, height, "The fitted reward over time", line + some)
    axes = body.subplots(down, across, squeeze=False).reshape(-1)
    image: Any = None
    for ax, (name, values) in zip(axes, panels, strict=False):
        image = draw_table(mdp, values, states, ax=ax, norm=Normalize(-largest, largest), cmap=REWARD_MAP)
        name_panel(ax, name)
    for spare in axes[len(panels) :]:
        spare.remove()
    colour_bar(body, image, list(axes[: len(panels)]), "reward", location="bottom", aspect=40)
    return figure
