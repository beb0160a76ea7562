"""The optimism ledger as a picture: the log evidence split, the four returns; for one task, or against a dial."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from nearopt.figures.canvas import COLOURS, INK, MEDIUM, SMALL, WIDTH, name_panel, new_page
from nearopt.figures.results import Entries
from nearopt.figures.words import settings

RETURNS = {  # attribute: what it is, colour, line
    "believed_return": ("believed by the exact posterior", COLOURS[1], "-"),
    "actual_return": ("what its policy gets", COLOURS[5], "-"),
    "variational_return": ("variational policy", COLOURS[0], "-"),
    "optimal_return": ("best possible", COLOURS[7], ":"),
}
TERMS = {  # attribute: what it is, colour
    "kl_initial": ("the first state", COLOURS[2]),
    "kl_policy": ("the policies", COLOURS[3]),
    "kl_dynamics": ("the dynamics", COLOURS[4]),
}


def tidy(ax: Axes, xlabel: str, ylabel: str = "") -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    ax.set_xlabel(xlabel, fontsize=MEDIUM, color=INK)
    ax.set_ylabel(ylabel, fontsize=MEDIUM, color=INK)


def draw_terms(ledger: Entries, *, ax: Axes) -> list[BarContainer]:
    """From the ELBO up to the log evidence, one bar per divergence; returns the bars, in the order of the rows."""
    sizes = [getattr(ledger, name) for name in TERMS]
    finite = bool(np.isfinite([ledger.elbo, ledger.log_evidence]).all())
    widths = sizes if finite else [0.0, 0.0, 0.0]
    edges = (ledger.elbo if finite else 0.0) + np.concatenate([[0.0], np.cumsum(widths)])
    room = max(edges[-1] - edges[0], 0.02 * max(1.0, abs(edges[-1])))
    bars = []
    for row, (width, left, (_, colour)) in enumerate(zip(widths, edges[:-1], TERMS.values(), strict=True), 1):
        bars.append(ax.barh(row, width, left=left, height=0.7, color=colour))
    ax.vlines(edges, np.arange(4) - 0.35, np.arange(4) + 1.35, color=INK, lw=1.5)  # from one row to the next
    places = [*edges, edges[-1]]
    for row, (place, size) in enumerate(zip(places, [ledger.elbo, *sizes, ledger.log_evidence], strict=True)):
        ax.text(place + 0.02 * room, row, f"{size:.4g}", va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(5), ["ELBO", *(f"+ KL of {what}" for what, _ in TERMS.values()), "= log evidence"])
    ax.set_ylim(4.5, -0.5)
    ax.set_xlim(edges[0] - 0.1 * room, edges[-1] + 0.4 * room)
    ax.xaxis.set_major_locator(MaxNLocator(5) if finite else NullLocator())
    tidy(ax, "nats" if finite else r"nats   (the ELBO is $-\infty$: no policy is sure to succeed)")
    return bars


def draw_returns(ledger: Entries, *, ax: Axes) -> list[Line2D]:
    """The four expected sums of reward, a point each; returns the points, in the order of the rows."""
    values = [getattr(ledger, name) for name in RETURNS]
    known = [value for value in values if np.isfinite(value)] or [0.0]
    room = max(max(known) - min(known), 0.02 * max(1.0, abs(known[0])))
    drawn = []
    for row, (value, (_, colour, _)) in enumerate(zip(values, RETURNS.values(), strict=True)):
        place = value if np.isfinite(value) else min(known) - 0.1 * room
        drawn += ax.plot(place, row, marker="o" if np.isfinite(value) else "<", markersize=11, color=colour)
        ax.text(place + 0.05 * room, row, f"{value:.4g}", va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(4), [what for what, *_ in RETURNS.values()], fontsize=SMALL)
    ax.set_ylim(3.5, -0.5)
    ax.set_xlim(min(known) - 0.2 * room, max(known) + 0.4 * room)
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    tidy(ax, "expected sum of rewards")
    return drawn


def ledger_page(ledger: Entries) -> Figure:
    """What exact inference believes, and what it gets."""
    line = settings(ledger.exact, optimism=False)
    figure, body = new_page(WIDTH, 5.0, "The optimism ledger", line)
    left, right = body.subplots(1, 2)
    draw_terms(ledger, ax=left)
    draw_returns(ledger, ax=right)
    name_panel(left, "log evidence = ELBO + three divergences")
    name_panel(right, "what is believed, and what is got")
    return figure


def dial_page(dial: Sequence[float], ledgers: Sequence[Entries], *, label: str, title: str) -> Figure:
    """Returns and divergences of one task at several settings of a dial that is called `label`."""
    figure, body = new_page(WIDTH, 5.6, title, settings(ledgers[0].exact, optimism=False))
    left, right = body.subplots(1, 2)
    for name, (what, colour, line) in RETURNS.items():
        left.plot(dial, [getattr(ledger, name) for ledger in ledgers], line, color=colour, lw=2.5, label=what)
    tidy(left, label, "expected sum of rewards")
    name_panel(left, "what is believed, and what is got")
    below = np.array([ledger.elbo for ledger in ledgers])
    right.plot(dial, below, color=INK, lw=1.5, label="ELBO")
    for name, (what, colour) in TERMS.items():
        above = below + np.array([getattr(ledger, name) for ledger in ledgers])
        right.fill_between(dial, below, above, color=colour, alpha=0.85, lw=0, label=f"+ KL of {what}")
        below = above
    right.plot(dial, [ledger.log_evidence for ledger in ledgers], "--", color=INK, lw=2, label="= log evidence")
    tidy(right, label, "nats")
    name_panel(right, "log evidence = ELBO + three divergences")
    for ax in (left, right):
        ax.legend(fontsize=SMALL, frameon=False, loc="upper left")
        ax.set_xlim(min(dial), max(dial))
    return figure
