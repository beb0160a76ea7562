"""The paper that pictures are drawn on: figures without pyplot, colours, colour bars, and files that appear whole."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 13.0  # inches, a slide
DPI = 150
TINY, SMALL, MEDIUM, LARGE = 10, 12, 13, 18  # points
WALL, EMPTY, HATCHED, INK = "0.62", "0.94", "0.75", "0.15"  # greys
START, GOAL = "white", "#E69F00"
# Okabe and Ito (2008), Color Universal Design: told apart by all common kinds of colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
PROBABILITY_MAP, LOG_MAP, PALE_MAP = "viridis", "cividis", "Blues"
REWARD_MAP = "PuOr"  # orange costs, purple pays, white is nothing


def new_page(width: float, height: float, title: str, settings: str) -> tuple[Figure, SubFigure]:
    """A white page with a title and a line of settings, and the part of it that is drawn on."""
    layout = ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.05)
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    figure.suptitle(title, fontsize=LARGE, color=INK)
    body: Any = figure.subfigures()
    body.suptitle(settings, fontsize=MEDIUM, color=INK)
    return figure, body


def name_panel(ax: Axes, *lines: str) -> None:
    ax.set_title("\n".join(filter(None, lines)), fontsize=SMALL, color=INK)


def probability_norm(largest: float) -> PowerNorm:
    """Colour ∝ √p from 0: small probabilities stay visible, large ones comparable."""
    return PowerNorm(0.5, vmin=0, vmax=largest if largest > 0 else 1.0)


def log_norm(rows: Sequence[np.ndarray]) -> tuple[Normalize, bool]:
    """One linear scale for all finite values, and whether a far tail (the lowest 2 %) falls off its lower end."""
    finite = np.concatenate([np.asarray(row)[np.isfinite(row)].reshape(-1) for row in rows])
    if not len(finite):
        return Normalize(-1, 0), False
    low, bend, high = finite.min(), float(np.percentile(finite, 2)), finite.max()
    cut = bend - low > 0.5 * (high - bend) > 0
    low = bend if cut else low
    return (Normalize(low, high) if high - low > 1e-9 * max(1, abs(high)) else Normalize(low - 0.5, high + 0.5)), cut


def colour_bar(page: Figure | SubFigure, drawn: ScalarMappable, axes: Any, label: str, **options: Any) -> Colorbar:
    """A labelled colour bar, below a wide page and beside a tall one; a scale of square roots says that it is one."""
    width, height = page.bbox.width, page.bbox.height
    where = {"location": "bottom", "aspect": 40} if width > 1.2 * height else {"location": "right", "aspect": 30}
    bar = page.colorbar(drawn, ax=axes, **{**where, "pad": 0.02, "shrink": 0.8, **options})
    if isinstance(drawn.norm, PowerNorm):
        label = f"{label}   (square-root scale)"
        ticks = square_root_ticks(float(drawn.norm.vmax or 1.0))
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.set_label(label, fontsize=MEDIUM, color=INK)
    bar.ax.tick_params(labelsize=SMALL)
    return bar


def square_root_ticks(largest: float) -> list[float]:
    """Round numbers, about evenly spaced in the square root."""
    exponent = np.floor(np.log10(largest))
    round_numbers = sorted(m * 10.0**e for e in (exponent - 2, exponent - 1, exponent) for m in (1, 2, 5))
    ticks = [0.0]
    for number in round_numbers:
        if number <= largest * (1 + 1e-9) and np.sqrt(number / largest) - np.sqrt(ticks[-1] / largest) > 0.11:
            ticks.append(number)
    return ticks


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG, whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        figure.savefig(part, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
