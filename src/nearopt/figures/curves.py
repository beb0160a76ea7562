"""Learning curves: what a column of metrics did over the steps, the middle of several seeds and each of them."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from nearopt.figures.canvas import COLOURS, INK, MEDIUM, SMALL, new_page, save
from nearopt.figures.words import drawable

FEW = 10  # runs that are drawn one by one
LONG = 36  # characters of a label that leave no room for another one beside it
LONGEST = 76  # characters of a label
WIDE, HIGH, LINE = 9.0, 4.0, 0.27  # inches of a panel, of a line of the legend
UNITS = {
    "return": "return (sum of rewards in an episode)",
    "soft_return": "soft return (with the entropy bonus)",
    "length": "length of an episode (steps)",
    "episodes": "episodes",
    "entropy": "entropy of the policy (nats)",
    "temperature": "temperature (units of reward)",
    "q": "mean target of Q (units of reward)",
    "critic_loss": "critic loss (reward²)",
    "actor_loss": "actor loss (units of reward)",
}


class Curve(Protocol):
    """The attributes of `nearopt.runs.curves.Curve` that a figure reads."""

    @property
    def step(self) -> np.ndarray: ...
    @property
    def runs(self) -> np.ndarray: ...
    @property
    def iqm(self) -> np.ndarray: ...
    @property
    def low(self) -> np.ndarray: ...
    @property
    def high(self) -> np.ndarray: ...


def curves_page(panels: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """A panel per column of metrics, one beneath the other: {column: {label: curve}}."""
    several = any(len(curve.runs) > 1 for curves in panels.values() for curve in curves.values())
    line = "interquartile mean over seeds, 95 % bootstrap interval, thin: single seeds" if several else ""
    labels = [legible(label) for label in next(iter(panels.values()))]
    across = 2 if max(map(len, labels)) <= LONG else 1
    high = 1.2 + HIGH * len(panels) + LINE * -(-len(labels) // across)
    figure, body = new_page(WIDE, high, "Learning curves", line)
    axes = body.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (column, curves) in zip(axes, panels.items(), strict=True):
        draw_curves(curves, column, ax=ax)
    axes[-1].set_xlabel("steps in the environment", fontsize=MEDIUM, color=INK)
    handles = axes[0].get_legend_handles_labels()[0]
    figure.legend(handles, labels, loc="outside lower center", ncols=across, fontsize=MEDIUM, frameon=False)
    return figure


def draw_curves(curves: Mapping[str, Curve], column: str, *, ax: Axes) -> None:
    """One colour per label: the interquartile mean, its band, and where they are few, the runs themselves."""
    for number, (label, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        style = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
        if 1 < len(curve.runs) <= FEW:
            ax.plot(curve.step, curve.runs.T, color=colour, lw=0.7, ls=style, alpha=0.35, zorder=2)
        if len(curve.runs) > 1:
            ax.fill_between(curve.step, curve.low, curve.high, color=colour, alpha=0.2, lw=0, zorder=1)
        dot = "o" if len(curve.step) == 1 else ""  # a line of one point cannot be seen
        ax.plot(curve.step, curve.iqm, color=colour, lw=2, ls=style, marker=dot, label=label, zorder=3)
    ax.set_ylabel(UNITS.get(column, column), fontsize=MEDIUM, color=INK)
    ax.xaxis.set_major_formatter(EngFormatter())
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
    ax.grid(color="0.9", lw=0.8, zorder=0)
    ax.margins(x=0.01)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=SMALL)


def legible(label: str) -> str:
    """A label that the font can draw and the page can hold; of a long one the middle goes."""
    text = "".join(c if ord(c) in drawable() else "\N{WHITE SQUARE}" for c in label)
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 + 1 :]}"
    return text.replace("$", r"\$")


def save_curves(figure: Figure, path: "str | os.PathLike[str]") -> Path:
    """Writes a .png, or an .svg (the same bytes each time), whole or not at all."""
    path = Path(path)
    if path.suffix.lower() != ".svg":
        return save(figure, path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with rc_context({"svg.hashsalt": "nearopt"}):
            figure.savefig(part, format="svg", bbox_inches="tight", metadata={"Date": None})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
