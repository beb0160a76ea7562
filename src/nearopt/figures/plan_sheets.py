"""The infinite horizon in a world without a map: states by value, policies as bars, the best trajectory as a list."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nearopt.figures.canvas import COLOURS, INK, MEDIUM, SMALL, TINY, WIDTH, name_panel, new_page
from nearopt.figures.layout import thin
from nearopt.figures.pages import Page
from nearopt.figures.plan import Plan, best_path, decades, path_title, plan_settings, tidy_decades, value_label
from nearopt.figures.tables import draw_shares, label_states
from nearopt.figures.words import action_label, state_label

ROWS = 40  # states, or decisions, in a picture


def plan_sheets(plan: Plan) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for."""
    states, which = ranked(plan)
    yield "value.png", value_sheet(plan, states, which)
    if not plan.mdp.terminal[states].all():
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
