"""True parameters against recovered ones: every repetition's interval, those that miss the truth in another colour."""

from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nearopt.figures.canvas import COLOURS, INK, MEDIUM, SMALL, name_panel, new_page, save
from nearopt.figures.words import plain

PAGE = 9.0  # inches
MOST = 12  # parameters with a panel
ZERO = 1e-12  # what is written as 0
REACH, ABSURD = 1.0, 1e4  # how far beyond the estimates a panel goes, in their range; widths that no panel shows
HELD, MISSED = COLOURS[0], COLOURS[5]


class Recovered(Protocol):
    """The attributes of `nearopt.Recovery` that a figure reads."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def truth(self) -> np.ndarray: ...
    @property
    def estimate(self) -> np.ndarray: ...
    @property
    def lower(self) -> np.ndarray: ...
    @property
    def upper(self) -> np.ndarray: ...
    @property
    def held(self) -> np.ndarray: ...
    @property
    def mean(self) -> np.ndarray: ...
    @property
    def coverage(self) -> np.ndarray: ...
    @property
    def coverage_interval(self) -> np.ndarray: ...
    @property
    def level(self) -> float: ...


def recovery_figures(found: Recovered, folder: "str | PathLike[str]") -> list[Path]:
    """Draws a `nearopt.Recovery` as recovery.png in `folder`, which is made if missing; returns the path in a list."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [save(recovery_page(found), folder / "recovery.png")]


def recovery_page(found: Recovered) -> Figure:
    """A panel per parameter, at most 12: those whose coverage is farthest from the level."""
    shown = chosen(found)
    across = min(len(shown), 3 if len(shown) > 4 else 2)
    down = -(-len(shown) // across)
    few = f"; the {len(shown)} of {len(found.names):,} parameters whose coverage is farthest from it" * (
        len(shown) < len(found.names)
    )
    line = f"{len(found.estimate):,} repetitions with {share(found.level)} intervals{few}"
    figure, body = new_page(PAGE, 1.9 + (3.6 if across == 1 else 2.9 if across == 2 else 2.5) * down, TITLE, line)
    axes = body.subplots(down, across, squeeze=False).reshape(-1)
    for ax, k in zip(axes, shown, strict=False):
        draw_recovery(found, int(k), ax=ax)
    for spare in axes[len(shown) :]:
        spare.remove()
    for ax in axes[max(len(shown) - across, 0) : len(shown)]:
        ax.set_xlabel("repetitions, by their estimate", fontsize=SMALL, color=INK)
    for ax in axes[: len(shown) : across]:
        ax.set_ylabel("estimate", fontsize=SMALL, color=INK)
    handles = [
        Line2D([], [], color=INK, lw=1.5, ls="--", label="truth"),
        Line2D([], [], color=HELD, lw=2, marker="o", ms=4, label="interval that holds it"),
        Line2D([], [], color=MISSED, lw=2, marker="o", ms=4, label="interval that misses it"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=MEDIUM, frameon=False)
    return figure


TITLE = "Do the intervals hold the true parameters?"


def chosen(found: Recovered) -> np.ndarray:
    """The parameters that have a panel, in their order."""
    far = np.abs(np.nan_to_num(found.coverage, nan=0.0) - found.level)
    return np.sort(np.argsort(-far, kind="stable")[:MOST])


def draw_recovery(found: Recovered, k: int, *, ax: Axes) -> None:
    """Parameter k: an interval for each repetition with a fit, in the order of the estimates, and the truth."""
    made = np.flatnonzero(~np.isnan(found.estimate[:, k]))
    order = made[np.argsort(found.estimate[made, k], kind="stable")]
    estimate, held = found.estimate[order, k], found.held[order, k]
    low, high = window(found, k)
    beyond = 10 * (high - low)  # endless intervals leave the picture
    lower, upper = (np.clip(bound[order, k], low - beyond, high + beyond) for bound in (found.lower, found.upper))
    place, width = np.arange(len(order)), float(np.clip(150 / max(len(order), 1), 0.5, 3.0))
    for which, colour, strength in ((held, HELD, 0.5), (~held, MISSED, 0.75)):
        known = which & ~np.isnan(lower)
        ax.vlines(place[known], lower[known], upper[known], color=colour, lw=width, alpha=strength, zorder=2)
        ax.plot(place[which], estimate[which], "o", color=colour, ms=1.2 + width, mew=0, zorder=3)
    ax.axhline(found.truth[k], color=INK, lw=1.5, ls="--", zorder=4)
    ax.set_ylim(low, high)
    ax.set_xlim(-1, max(len(order), 1))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    name_panel(ax, plain(found.names[k]).replace("$", r"\$"), *words(found, k))
    ax.title.set_color(MISSED if found.coverage_interval[1, k] < found.level else INK)


def window(found: Recovered, k: int) -> tuple[float, float]:
    """What the panel shows: the truth and all bounds, or all but the most extreme ones."""
    seen = np.append(found.estimate[:, k], found.truth[k])
    seen, (lower, upper) = seen[~np.isnan(seen)], (found.lower[:, k], found.upper[:, k])
    known = np.isfinite(lower) & np.isfinite(upper)
    reach = REACH * np.ptp(seen)
    if known.any():
        half = float(np.median(upper[known] - lower[known])) / 2
        reach = max(reach, 1.2 * half if half < ABSURD * (np.ptp(seen) + abs(found.truth[k])) else 0.0)
    low = max(lower[known].min(initial=seen.min()), seen.min() - reach)
    high = min(upper[known].max(initial=seen.max()), seen.max() + reach)
    room = 0.06 * (high - low) or 0.1 * max(1.0, abs(high))
    return float(low - room), float(high + room)


def words(found: Recovered, k: int) -> tuple[str, str]:
    """Truth and mean; coverage and how sure it is."""
    truth, mean = (0.0 if abs(x) <= ZERO else x for x in (float(found.truth[k]), float(found.mean[k])))
    numbers = f"truth {truth:.3g}, mean {mean:.3g}".replace("-", "−")
    if np.isnan(found.coverage[k]):
        return numbers, "no intervals"
    low, high = found.coverage_interval[:, k]
    return numbers, f"held in {share(found.coverage[k])}  ({100 * low:.0f} to {100 * high:.0f} %)"


def share(x: float) -> str:
    return f"{100 * x:.3g} %"
