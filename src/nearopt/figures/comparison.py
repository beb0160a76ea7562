"""Exact, variational and hard control side by side, each picture on one colour scale, as files."""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nearopt.figures.canvas import (
    LOG_MAP,
    PROBABILITY_MAP,
    SMALL,
    WIDTH,
    colour_bar,
    log_norm,
    name_panel,
    new_page,
    probability_norm,
    save,
)
from nearopt.figures.dynamics import dynamics_page, luck_page
from nearopt.figures.layout import RIM, Window, around, aspect, find_lattice, until, view, visits
from nearopt.figures.ledger import ledger_page
from nearopt.figures.maps import draw_map, draw_visits
from nearopt.figures.pages import Page, legend
from nearopt.figures.paths import draw_policy
from nearopt.figures.results import Answer, Entries
from nearopt.figures.sheets import marginal_norm, rows_of
from nearopt.figures.tables import draw_policy_bars, draw_table
from nearopt.figures.words import arrivals, settings

BELOW = dict(location="bottom", aspect=40)
NAMES = ("exact: believes in its luck", "variational: true dynamics", "hard control: no entropy, no prior")
VALUES = "Values at the first decision: what each expects from here"
POLICIES = "Policies at the first decision"
UNIT = "[units of reward; with temperature × entropy, but for hard control]"
VISITS = "Where each expects to be: the exact posterior in the world it believes in, the others in the true one"


def comparison_figures(ledger: Entries, folder: "str | PathLike[str]") -> list[Path]:
    """Draws a ledger as PNG files in `folder`, which is made if missing; returns the files that were written.

    ledger.png, values.png, policies.png, visits.png and dynamics.png: the entries; values, policies and expected visits
    of exact inference, variational inference and hard control, on one colour scale each; the posterior dynamics beside
    the true ones. A world on a grid is drawn as maps, any other as tables and bars. Every file appears whole or not at
    all.

    >>> import nearopt as no, tempfile
    >>> ledger = no.ledger(no.MDP.from_grid("S..G", slip=0.1), 6, temperature=0.5)
    >>> [path.name for path in comparison_figures(ledger, tempfile.mkdtemp())]
    ['ledger.png', 'values.png', 'policies.png', 'visits.png', 'dynamics.png']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    make = maps if find_lattice(ledger.exact.mdp) is not None else tables
    return [save(figure, folder / name) for name, figure in make(ledger)]


def answers_of(ledger: Entries) -> list[Answer]:
    return [ledger.exact, ledger.variational, ledger.optimal]


def line_of(ledger: Entries) -> str:
    return settings(ledger.exact, optimism=False)


# ---------------------------------------------------------------- on a grid
def maps(ledger: Entries) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for."""
    yield "ledger.png", ledger_page(ledger)
    yield "values.png", value_maps(ledger)
    yield "policies.png", policy_maps(ledger)
    yield "visits.png", visit_maps(ledger)
    yield "dynamics.png", dynamics_page(ledger.exact)


def three_maps(ledger: Entries, title: str, window: Window, room: float) -> tuple[Figure, Any, list[Any]]:
    """A page of three equal maps, in a row, or in a column where they are wide; `room` inches for all else."""
    down, across = (3, 1) if aspect(window) > 2.5 else (1, 3)
    beside = 0.3 if across > 1 else 1.6  # the colour bar of a tall page
    each = float(np.clip((WIDTH - beside) / across / aspect(window), 0.6, 6.5))
    figure, body = new_page(WIDTH, (each + 0.4) * down + room, title, line_of(ledger))
    axes = list(body.subplots(down, across, squeeze=False).reshape(-1))
    return figure, body, axes


def value_maps(ledger: Entries) -> Figure:
    """V at the first decision, in units of reward."""
    answers, mdp = answers_of(ledger), ledger.exact.mdp
    rows = [answer.value[0] for answer in answers]
    norm, cut = log_norm(rows)
    window = view(answers)
    figure, body, axes = three_maps(ledger, VALUES, window, 2.0)
    images = [draw_map(mdp, row, ax=ax, norm=norm, window=window) for row, ax in zip(rows, axes, strict=True)]
    for ax, name in zip(axes, NAMES, strict=True):
        name_panel(ax, name)
    label = f"$V_1(s)$   {UNIT}"
    colour_bar(body, images[0], axes, label, extend="min" if cut else "neither")
    legend(figure, ledger.exact, impossible=any(np.isneginf(row).any() for row in rows))
    return figure


def policy_maps(ledger: Entries) -> Figure:
    """Arrows of the first decision; length and opacity are the probability."""
    answers = answers_of(ledger)
    (low, high), (left, right) = np.moveaxis(np.array([around(answer, RIM) for answer in answers]), 0, -1)
    window = (low.max(), high.min()), (left.min(), right.max())
    figure, _, axes = three_maps(ledger, f"{POLICIES}: length and opacity are the probability", window, 1.3)
    for answer, ax, name in zip(answers, axes, NAMES, strict=True):
        draw_policy(answer, 0, ax=ax, window=window)
        name_panel(ax, name)
    legend(figure, ledger.exact, rare=True, impossible=any(np.isneginf(a.value[0]).any() for a in answers))
    return figure


def visit_maps(ledger: Entries) -> Figure:
    """Expected visits."""
    answers = answers_of(ledger)
    window, free = view(answers), ~ledger.exact.mdp.terminal
    norm = probability_norm(max(float(visits(answer)[free].max(initial=0.0)) for answer in answers))
    figure, body, axes = three_maps(ledger, VISITS, window, 2.3)
    images = [draw_visits(answer, ax=ax, norm=norm, window=window) for answer, ax in zip(answers, axes, strict=True)]
    for answer, ax, name in zip(answers, axes, NAMES, strict=True):
        name_panel(ax, name, arrivals(answer, answer.horizon))
    colour_bar(body, images[0], axes, "expected number of visits")
    legend(figure, ledger.exact, blank=True)
    return figure


# ---------------------------------------------------------------- without a map
def tables(ledger: Entries) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for."""
    yield "ledger.png", ledger_page(ledger)
    yield "values.png", value_tables(ledger)
    yield "policies.png", policy_tables(ledger)
    yield "visits.png", visit_tables(ledger)
    yield "dynamics.png", luck_page(ledger)


def three_tables(ledger: Entries, title: str, states: np.ndarray) -> tuple[Figure, Any, Sequence[Any]]:
    figure, body = new_page(WIDTH, 3.9 + 0.19 * max(len(states), 8), title, line_of(ledger))
    return figure, body, list(body.subplots(1, 3, sharey=True))


def value_tables(ledger: Entries) -> Figure:
    """V over time."""
    answers = answers_of(ledger)
    states, last = rows_of(answers), until(answers)
    figure, body, axes = three_tables(ledger, "Values over time: what each expects from here", states)
    norm, cut = log_norm([answer.value[: last + 1, states] for answer in answers])
    images = []
    for answer, ax, name in zip(answers, axes, NAMES, strict=True):
        images.append(draw_table(answer.mdp, answer.value, states, ax=ax, norm=norm, cmap=LOG_MAP, last=last))
        name_panel(ax, name)
    impossible = any(np.isneginf(answer.value[: last + 1, states]).any() for answer in answers)
    label = f"$V_t(s)$   {UNIT}" + (r"; hatched: $-\infty$" if impossible else "")
    colour_bar(body, images[0], axes, label, extend="min" if cut else "neither", **BELOW)
    return figure


def policy_tables(ledger: Entries) -> Figure:
    """Stacked bars of the first decision, in the states where somebody decides."""
    answers, mdp = answers_of(ledger), ledger.exact.mdp
    states = np.array([s for s in rows_of(answers) if not mdp.terminal[s]], int)[:20]
    figure, _, axes = three_tables(ledger, POLICIES, states)
    bars = []
    for answer, ax, name in zip(answers, axes, NAMES, strict=True):
        bars = draw_policy_bars(answer, 0, states, ax=ax)
        name_panel(ax, name)
    figure.legend(handles=bars, loc="outside lower center", ncols=min(len(bars), 8), fontsize=SMALL, frameon=False)
    return figure


def visit_tables(ledger: Entries) -> Figure:
    """State probabilities over time."""
    answers = answers_of(ledger)
    states = rows_of(answers)
    look: dict[str, Any] = dict(norm=marginal_norm(answers, states), cmap=PROBABILITY_MAP, last=until(answers))
    figure, body, axes = three_tables(ledger, VISITS, states)
    images = []
    for answer, ax, name in zip(answers, axes, NAMES, strict=True):
        images.append(draw_table(answer.mdp, answer.state_probs, states, ax=ax, **look))
        name_panel(ax, name, arrivals(answer, answer.horizon))
    colour_bar(body, images[0], axes, "probability of the state", extend="max", **BELOW)
    return figure
