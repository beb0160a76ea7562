"""A fit to recorded behaviour in pictures: the data, the reward, coefficients, predictions, competitors, as files."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nearopt.figures.behaviour_world import FITTED, PAGE, Explained, Ranged, data_page, numbered, reward_page, tidy
from nearopt.figures.canvas import COLOURS, INK, MEDIUM, SMALL, TINY, name_panel, new_page, save
from nearopt.figures.pages import Page
from nearopt.figures.tables import label_states
from nearopt.figures.words import action_label, plain, state_label

MOST_CURVES = 8  # coefficients per step that are drawn over time
ROWS = 20  # states in a panel of visits
SELDOM = 0.002  # a share of decisions below which a state has no row
RARE = 0.03  # a share below which shares are drawn on a log scale
BIT = float(np.log(2.0))
DATA: dict[str, Any] = dict(marker="o", color="black", ls="", ms=5, zorder=5)


def behaviour_figures(report: Explained, folder: "str | PathLike[str]") -> list[Path]:
    """Draws a `nearopt.behaviour.report.Report` as PNG files in `folder`, which is made if missing; returns them.

    data.png, reward.png, coefficients.png (where something was fitted), predictions.png (where they could be made) and
    comparison.png. Every file appears whole or not at all.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [save(figure, folder / name) for name, figure in behaviour_pages(report)]


def behaviour_pages(report: Explained) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for."""
    yield "data.png", data_page(report)
    yield "reward.png", reward_page(report)
    if report.coef.size or report.dials:
        yield "coefficients.png", coefficient_page(report)
    if report.checks is not None:
        yield "predictions.png", prediction_page(report)
    yield "comparison.png", comparison_page(report)


# ---------------------------------------------------------------- coefficients
def coefficient_page(report: Explained) -> Figure:
    """Estimates with intervals: as curves over time where there are few per step, else one row each; dials below."""
    steps = len(report.coef) if report.time_varying else 0
    curves = steps > 0 and report.coef.size // steps <= MOST_CURVES
    rows, dials = 0 if curves else len(report.shown), len(report.dials)
    heights = [4.0 if curves else 0.24 * rows + 0.6] * (report.coef.size > 0) + [0.3 * dials + 0.6] * (dials > 0)
    total = report.coef.size
    few = f"; {rows} of {total:,}, those farthest from 0" if rows and rows < total else ""
    title = f"estimates with {report.level:.0%} intervals{few}"
    figure, body = new_page(PAGE, sum(heights) + 1.6, "Coefficients", title)
    axes = body.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if curves:
        draw_curves(report, axes[0])
    elif rows:
        estimate, low, high = (
            np.asarray(x).reshape(-1)[report.shown] for x in (report.coef, report.lower, report.upper)
        )
        draw_intervals([report.names[i] for i in report.shown], estimate, low, high, axes[0])
        axes[0].set_xlabel("coefficient", fontsize=MEDIUM, color=INK)
    if dials:
        estimate, low, high = np.array(list(report.dials.values()), float).T
        draw_intervals(list(report.dials), estimate, low, high, axes[-1])
        axes[-1].set_xlabel("dial", fontsize=MEDIUM, color=INK)
    return figure


def draw_intervals(names: list[str], estimate: np.ndarray, low: np.ndarray, high: np.ndarray, ax: Axes) -> None:
    """One row each, from the top; hollow where the data set no bound."""
    place, known = np.arange(len(names)), np.isfinite(low) & np.isfinite(high)
    if known.any():
        ax.hlines(place[known], low[known], high[known], color=COLOURS[0], lw=2, zorder=2)
    ax.plot(estimate[known], place[known], "o", color=COLOURS[0], ms=5, zorder=3)
    ax.plot(estimate[~known], place[~known], "o", mfc="white", mec=COLOURS[0], ms=5, zorder=3)
    ax.axvline(0, color="0.6", lw=1, zorder=1)
    ax.set_yticks(place, list(map(plain, names)), fontsize=TINY, family="DejaVu Sans", parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if not known.all():
        hollow = Line2D([], [], marker="o", ls="", mfc="white", mec=COLOURS[0], label="no bounds: the data do not tell")
        ax.legend(handles=[hollow], fontsize=TINY, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    tidy(ax)


def draw_curves(report: Explained, ax: Axes) -> None:
    """Every coefficient over time, with a band where it is known."""
    steps = len(report.coef)
    flat = [np.asarray(x).reshape(steps, -1) for x in (report.coef, report.lower, report.upper)]
    for k, colour in zip(range(flat[0].shape[1]), COLOURS, strict=False):
        middle, low, high = (x[:, k] for x in flat)
        name = plain(report.names[k].rpartition(", t=")[0])
        ax.plot(range(steps), middle, color=colour, lw=2, label=name.replace("$", r"\$"))
        known = np.isfinite(low) & np.isfinite(high)
        ax.fill_between(range(steps), low, high, where=known, color=colour, alpha=0.2, lw=0)
    ax.axhline(0, color="0.6", lw=1)
    ax.set_xlabel("time t  [decisions]", fontsize=MEDIUM, color=INK)
    ax.set_ylabel("coefficient", fontsize=MEDIUM, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.legend(fontsize=TINY, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    tidy(ax, "y")


# ---------------------------------------------------------------- predictions
def prediction_page(report: Explained) -> Figure:
    """What was recorded, over the range of what the fitted agent does in its stead."""
    checks: Any = report.checks
    what = "held-out data" if len(report.held_out) else "data it was fitted to"
    line = f"{checks.decisions:,} decisions of the {what}, and {checks.replicates} simulations of the agent"
    figure, body = new_page(PAGE, 9.2, "Does the fitted agent do what was recorded?", line)
    halves: Any = body.subfigures(2, 1, height_ratios=(1.15, 1))
    upper, lower = halves
    top = upper.subplots()
    draw_visits(report, checks.visits, top)
    left, right = lower.subplots(1, 2, width_ratios=(1, 1.6))
    mdp, actions = report.mdp, checks.actions
    order = np.argsort(-actions.data, kind="stable")[:ROWS]
    draw_ranges(actions, order, left)
    left.set_yticks(range(len(order)), [action_label(mdp, int(a)) for a in order], fontsize=SMALL, parse_math=False)
    left.set_xlabel("share of decisions", fontsize=SMALL, color=INK)
    smallest = actions.data[order].min()
    if 0 < smallest < RARE and actions.low[order].min() > 0:
        left.set_xscale("log")
        left.xaxis.set_major_formatter("{x:g}")
        left.set_xlim(min(smallest, actions.low[order].min()) / 2, 1.5)
    else:
        left.set_xlim(0)
    name_panel(left, "actions", *distance_words(actions))
    draw_over_time(report, right)
    agent = Line2D([], [], color=COLOURS[0], lw=5, alpha=0.5, label="fitted agent: mean and 95 % of simulations")
    figure.legend(
        handles=[Line2D([], [], label="recorded", **DATA), agent],
        loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False,
    )  # fmt: skip
    return figure


def distance_words(check: Ranged) -> tuple[str, str]:
    """The distance of the data from the agent, beside what chance alone would do."""
    low, high = check.usual
    return f"distance {check.distance:.3f}", f"by chance {low:.3f} to {high:.3f}"


def draw_ranges(check: Ranged, order: np.ndarray, ax: Axes) -> None:
    """One row per entry: a bar over the range of the agent, a dot for the data."""
    place = np.arange(len(order))
    ax.barh(place, (check.high - check.low)[order], left=check.low[order], height=0.6, color=COLOURS[0], alpha=0.5)
    ax.plot(check.mean[order], place, "|", color=COLOURS[0], ms=11, mew=2)
    ax.plot(check.data[order], place, **DATA)
    ax.set_ylim(max(len(order), 3) - 0.4, -0.6)
    tidy(ax)


def draw_visits(report: Explained, check: Ranged, ax: Axes) -> None:
    """Decisions per state: over their numbers where they are many and mean something, else the most visited ones."""
    mdp = report.mdp
    most = np.argsort(-np.maximum(check.data, check.mean), kind="stable")
    if numbered(mdp):
        last = int(np.flatnonzero(np.maximum(check.data, check.high)).max(initial=0)) + 1
        states = np.arange(last)
        ax.fill_between(states, check.low[:last], check.high[:last], color=COLOURS[0], alpha=0.4, lw=0, step="mid")
        ax.plot(states, check.mean[:last], color=COLOURS[0], lw=1.5, drawstyle="steps-mid")
        ax.plot(states, check.data[:last], **{**DATA, "ms": 3})
        ax.set_xlabel("state", fontsize=SMALL, color=INK)
        ax.set_ylabel("share of decisions", fontsize=SMALL, color=INK)
        ax.set_ylim(0)
        tidy(ax, "y")
        name_panel(ax, "visits", ", ".join(distance_words(check)))
        return
    order = np.sort(most[:ROWS])
    order = order[np.maximum(check.data, check.mean)[order] > SELDOM]
    draw_ranges(check, order, ax)
    label_states(mdp, order, ax)
    ax.set_xlim(0)
    ax.set_xlabel("share of decisions", fontsize=SMALL, color=INK)
    few = f"the {len(order)} most visited states" if len(order) < mdp.num_states else "visits"
    name_panel(ax, few, ", ".join(distance_words(check)))


def draw_over_time(report: Explained, ax: Axes) -> None:
    """Share of those who still act that is in the most visited states, or in ranges of them."""
    checks: Any = report.checks
    check, time = checks.over_time, checks.time
    for k, (group, colour) in enumerate(zip(checks.followed, COLOURS, strict=False)):
        name = state_label(report.mdp, int(group[0]))
        label = name if len(group) == 1 else f"states {group[0]}–{group[-1]}"
        ax.fill_between(time, check.low[:, k], check.high[:, k], color=colour, alpha=0.25, lw=0)
        ax.plot(time, check.data[:, k], "o-", color=colour, ms=3, lw=1, label=label.replace("$", r"\$"))
    ax.set_ylim(0)
    ax.set_xlabel("time t  [decisions]", fontsize=SMALL, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.legend(fontsize=TINY, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, columnspacing=1.0)
    tidy(ax, "y")
    what = "the most visited states" if len(checks.followed[0]) == 1 else "ranges of states"
    name_panel(ax, f"where those who still act are: {what}", ", ".join(distance_words(check)))


# ---------------------------------------------------------------- comparison
def comparison_page(report: Explained) -> Figure:
    """Bits per decision of every explanation, the fitted agent on top."""
    rows, held = report.rows, len(report.held_out) > 0
    bits = np.array([(row.held_out if held else row.train) / BIT for row in rows])
    error = np.array([row.error / BIT for row in rows])
    what = "held-out decisions" if held else "the data that it was fitted to: nothing was held out"
    figure, body = new_page(PAGE, 0.42 * len(rows) + 2.3, "How well each explanation predicts", what)
    ax, place = body.subplots(), np.arange(len(rows))
    known = np.isfinite(bits)
    colours = [COLOURS[5] if row.name == FITTED else COLOURS[0] for row in rows]
    ax.hlines(place[known], bits[known].min(initial=0.0), bits[known], color="0.85", lw=1, zorder=1)
    for k in np.flatnonzero(known):
        spread = error[k] if np.isfinite(error[k]) else None
        ax.errorbar(bits[k], place[k], xerr=spread, fmt="o", color=colours[k], ms=7, lw=2, zorder=3)
    for k in place:
        text = f"{bits[k]:.3f}".replace("-", "−") if known[k] else "−∞: finds some decision impossible"
        x = bits[k] if known[k] else bits[known].min(initial=0.0)
        ax.annotate(text, (x, k), (0, 7), textcoords="offset points", fontsize=SMALL, color=INK, ha="center")
    ax.set_yticks(place, [row.name for row in rows], fontsize=SMALL)
    ax.set_ylim(len(rows) - 0.5, -0.8)
    ax.margins(x=0.08)
    ax.set_xlabel("log-likelihood per decision  [bits]; right is better", fontsize=MEDIUM, color=INK)
    tidy(ax)
    if held:
        name_panel(ax, "whiskers: standard error of the difference from the fitted agent")
    return figure
