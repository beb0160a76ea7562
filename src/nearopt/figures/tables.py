"""Worlds without a map: one row per state, one column per moment; bars for a policy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.container import BarContainer
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from nearopt.figures.canvas import COLOURS, HATCHED, INK, LOG_MAP, MEDIUM, SMALL, TINY
from nearopt.figures.layout import MOST_COLUMNS, finite, thin, visits
from nearopt.figures.paths import check_paths, line_alpha
from nearopt.figures.results import Answer, Paths, World
from nearopt.figures.words import action_label, state_label


def label_states(mdp: World, states: Sequence[int] | np.ndarray, ax: Axes) -> None:
    """One row per state, from the top, each with its name."""
    labels = [state_label(mdp, int(s)) for s in states]
    ax.set_yticks(range(len(labels)), labels, fontsize=TINY, family="DejaVu Sans", parse_math=False)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)


def cells(values: np.ndarray, states: np.ndarray, last: int, unit: float = 1.0) -> np.ndarray:
    """(states, moments) of values (T+1, S) / unit, up to `last`."""
    with np.errstate(over="ignore"):
        return values[np.ix_(thin(last, MOST_COLUMNS), states)].T / unit


def draw_table(
    mdp: World,
    values: np.ndarray,
    states: np.ndarray,
    *,
    ax: Axes,
    norm: Normalize | None = None,
    cmap: str = LOG_MAP,
    unit: float = 1.0,
    last: int | None = None,
) -> AxesImage:
    """values (T+1, S) / unit over time for the chosen states, from the top; returns the image, (states, moments).

    `last` is the last moment shown, the horizon by default.

    A value that is not finite (−inf) is hatched. Of more than 400 moments, 400 evenly spread ones are shown.
    """
    last = len(values) - 1 if last is None else last
    extent = (-0.5, last + 0.5, len(states) - 0.5, -0.5)
    ax.add_patch(
        Rectangle(
            (-0.5, -0.5), last + 1, len(states), facecolor="white", edgecolor=HATCHED, hatch="////", lw=0, zorder=0
        )
    )
    shown = finite(cells(values, states, last, unit))
    image = ax.imshow(shown, extent=extent, aspect="auto", interpolation="nearest", norm=norm, cmap=cmap, zorder=2)
    label_states(mdp, states, ax)
    ax.set_xlim(-0.5, last + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.tick_params(axis="x", labelsize=SMALL)
    whole = "" if last == len(values) - 1 else f", the first {last:,} of {len(values) - 1:,}"
    ax.set_xlabel(f"time t  [decisions]{whole}", fontsize=MEDIUM, color=INK)
    return image


def draw_table_trajectories(
    mdp: World, trajectories: Paths, states: np.ndarray, *, ax: Axes, jitter: float = 0.25, colour: str = COLOURS[5]
) -> LineCollection:
    """Trajectories as lines over a `draw_table` of the same states; a line breaks where the state has no row."""
    visited = check_paths(mdp, trajectories)
    row = np.full(mdp.num_states + 1, np.nan)  # the last entry is for the −1 that fills up
    row[states] = np.arange(len(states))
    rng = np.random.default_rng(0)
    shift = rng.uniform(-jitter, jitter, (len(visited), 1))
    height = row[visited] + shift
    time = np.arange(visited.shape[1]) + 0.4 * shift
    lines = np.stack([np.broadcast_to(time, height.shape), height], 2)
    drawn = LineCollection(
        list(lines), colors=colour, alpha=line_alpha(visited), linewidths=1.4, joinstyle="round", zorder=4
    )
    ax.add_collection(drawn, autolim=False)
    return drawn


def draw_state_bars(posterior: Answer, states: np.ndarray, *, ax: Axes) -> BarContainer:
    """Expected visits of the chosen states as bars; terminal states, which only count the time left, have none."""
    mdp = posterior.mdp
    total = np.where(mdp.terminal, 0.0, visits(posterior))[states]
    bars = ax.barh(range(len(states)), total, color=COLOURS[0], height=0.75)
    label_states(mdp, states, ax)
    ax.tick_params(axis="x", labelsize=SMALL)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return bars


def draw_policy_bars(posterior: Answer, t: int, states: np.ndarray, *, ax: Axes) -> list[BarContainer]:
    """π_t(a|s) of the chosen states as stacked bars, one colour per action: the 7 most probable, and the rest together.

    Returns one container per colour.
    """
    drawn = draw_shares(posterior.mdp, posterior.policy_at(t), states, ax=ax)
    ax.set_xlabel(r"$\pi_t(a\,|\,s)$  [probability]", fontsize=MEDIUM, color=INK)
    return drawn


def draw_shares(mdp: World, policy: np.ndarray, states: np.ndarray, *, ax: Axes) -> list[BarContainer]:
    """policy (S, A) of the chosen states, as `draw_policy_bars` of a moment."""
    policy, left = policy[states], np.zeros(len(states))
    drawn = []
    for colour, (label, width) in zip(COLOURS, shares(mdp, policy), strict=False):
        bar = ax.barh(
            range(len(states)), width, left=left, color=colour, height=0.8, edgecolor="white", lw=0.5, label=label
        )
        drawn.append(bar)
        left = left + width
    label_states(mdp, states, ax)
    ax.set_ylim(max(len(states), 8) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.tick_params(axis="x", labelsize=SMALL)
    return drawn


def shares(mdp: World, policy: np.ndarray) -> list[tuple[str, Any]]:
    """(label, probabilities) for up to eight colours."""
    if mdp.num_actions <= len(COLOURS):
        return [(action_label(mdp, a), policy[:, a]) for a in range(mdp.num_actions)]
    order = np.argsort(-policy.sum(0), kind="stable")
    top = np.sort(order[: len(COLOURS) - 1])
    rest = np.delete(np.arange(mdp.num_actions), top)
    named = [(action_label(mdp, int(a)), policy[:, a]) for a in top]
    return [*named, (f"{len(rest)} other actions", policy[:, rest].sum(1))]
