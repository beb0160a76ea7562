"""The pictures of a world without a map, one page each: states down, time across."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure

from nearopt.figures.canvas import (
    INK,
    PALE_MAP,
    PROBABILITY_MAP,
    SMALL,
    WIDTH,
    colour_bar,
    log_norm,
    name_panel,
    new_page,
    probability_norm,
)
from nearopt.figures.layout import MOST_COLUMNS, brightest, busiest, middle, thin, until, visits
from nearopt.figures.pages import Page, path_words
from nearopt.figures.results import Answer, Paths
from nearopt.figures.tables import cells, draw_policy_bars, draw_state_bars, draw_table, draw_table_trajectories
from nearopt.figures.words import (
    arrivals,
    backward_words,
    forward_words,
    marginal_words,
    percent,
    policy_title,
    settings,
)

ROWS = 40  # states in a picture
ACROSS = 5  # temperatures side by side
BESIDE = dict(location="right", aspect=30)


def sheets(posterior: Answer, trajectories: Paths | None, sweep: Sequence[Answer]) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for. Without a map there is no picture of the world."""
    states = rows_of([posterior])
    yield "backward.png", backward_sheet(posterior, states)
    yield "forward.png", forward_sheet(posterior, states)
    yield "posterior.png", posterior_sheet(posterior, states)
    if trajectories is not None:
        yield "trajectories.png", trajectories_sheet(posterior, trajectories, states)
    yield "policy.png", policy_sheet(posterior)
    if len(sweep) > 1:
        yield "temperature.png", temperature_sheet(sweep)


def rows_of(answers: Sequence[Answer]) -> np.ndarray:
    """The states that have a row; where success is impossible nothing is visited, and they are the first ones."""
    states = busiest(answers, ROWS)
    return states if len(states) else np.arange(min(ROWS, answers[0].mdp.num_states))


def share_of(posterior: Answer, states: np.ndarray) -> str:
    total = visits(posterior)
    return percent(float(total[states].sum() / max(total.sum(), np.finfo(float).tiny)))


def which_states(posterior: Answer, states: np.ndarray) -> str:
    total = posterior.mdp.num_states
    if len(states) == total:
        return "all states, in the order of their mean time"
    share = share_of(posterior, states)
    return f"the {len(states)} most visited of {total:,} states ({share} of the time), in the order of their mean time"


def table_page(posterior: Answer, states: np.ndarray, title: str) -> tuple[Figure, SubFigure]:
    return new_page(WIDTH, 3.2 + 0.19 * max(len(states), 8), title, settings(posterior))


def messages_sheet(posterior: Answer, states: np.ndarray, values: np.ndarray, unit: float, words: tuple) -> Figure:
    """Log messages over time."""
    title, label = words
    figure, body = table_page(posterior, states, title)
    ax = body.subplots()
    last = until([posterior])
    norm, cut = log_norm([cells(values, states, last, unit)])
    image = draw_table(posterior.mdp, values, states, ax=ax, norm=norm, unit=unit, last=last)
    name_panel(ax, which_states(posterior, states))
    hatched = r"; hatched: $-\infty$, impossible" if not np.isfinite(cells(values, states, last, unit)).all() else ""
    colour_bar(body, image, ax, label + hatched, extend="min" if cut else "neither", **BESIDE)
    return figure


def backward_sheet(posterior: Answer, states: np.ndarray) -> Figure:
    """log β over time."""
    return messages_sheet(posterior, states, posterior.value, posterior.temperature or 1.0, backward_words(posterior))


def forward_sheet(posterior: Answer, states: np.ndarray) -> Figure:
    """log α over time."""
    return messages_sheet(posterior, states, posterior.log_forward, 1.0, forward_words(posterior))


def marginal_norm(answers: Sequence[Answer], states: np.ndarray) -> PowerNorm:
    """One colour scale for state probabilities."""
    times = thin(until(answers), MOST_COLUMNS).tolist()
    return probability_norm(max(brightest(answer, times, states) for answer in answers))


def posterior_sheet(posterior: Answer, states: np.ndarray) -> Figure:
    """State probabilities over time, and expected visits beside them."""
    mdp, (title, label) = posterior.mdp, marginal_words(posterior)
    figure, body = table_page(posterior, states, title)
    ax, side = body.subplots(1, 2, width_ratios=(3, 1))
    norm = marginal_norm([posterior], states)
    image = draw_table(
        mdp, posterior.state_probs, states, ax=ax, norm=norm, cmap=PROBABILITY_MAP, last=until([posterior])
    )
    name_panel(ax, which_states(posterior, states))
    draw_state_bars(posterior, states, ax=side)
    side.set_yticks([])
    side.set_xlabel("expected number of visits", fontsize=SMALL, color=INK)
    arrived = arrivals(posterior, posterior.horizon)
    name_panel(side, f"at the end: {arrived}" if arrived else "")
    colour_bar(body, image, ax, label, location="bottom", aspect=40, extend="max")
    return figure


def trajectories_sheet(posterior: Answer, trajectories: Paths, states: np.ndarray) -> Figure:
    """Trajectories over the state probabilities."""
    figure, body = table_page(posterior, states, path_words(posterior, trajectories))
    ax = body.subplots()
    norm = marginal_norm([posterior], states)
    image = draw_table(
        posterior.mdp, posterior.state_probs, states, ax=ax, norm=norm, cmap=PALE_MAP, last=until([posterior])
    )
    draw_table_trajectories(posterior.mdp, trajectories, states, ax=ax)
    breaks = "" if len(states) == posterior.mdp.num_states else "\na line breaks where its state is not among them"
    name_panel(ax, which_states(posterior, states) + breaks)
    colour_bar(body, image, ax, marginal_words(posterior)[1], extend="max", **BESIDE)
    return figure


def policy_sheet(posterior: Answer) -> Figure:
    """The policy at the first decision and at one on the way, in the states that are likely then."""
    times = sorted({0, middle(posterior)})
    figure, body = new_page(WIDTH, 7.5, policy_title(posterior), settings(posterior))
    bars = []
    for ax, t in zip(body.subplots(1, len(times), squeeze=False).reshape(-1), times, strict=True):
        now = np.where(posterior.mdp.terminal, -1.0, posterior.state_probs[t])
        states = np.argsort(-now, kind="stable")[:20]
        states = states[now[states] >= min(now.max(), 1e-6)]
        bars = draw_policy_bars(posterior, t, states, ax=ax)
        which = f"the {len(states)} most probable states" if len(states) > 1 else "the most probable state"
        name_panel(ax, f"t = {t:,}: {which}\n(together {percent(max(now[states].sum(), 0))})")
    figure.legend(handles=bars, loc="outside lower center", ncols=len(bars), fontsize=SMALL, frameon=False)
    return figure


def temperature_sheet(answers: Sequence[Answer]) -> Figure:
    """State probabilities over time at each temperature, on one colour scale and for the same states."""
    states = rows_of(answers)
    line = settings(answers[0], temperature=False)
    down, across = -(-len(answers) // ACROSS), min(len(answers), ACROSS)
    height = 1.8 + down * (1.6 + 0.19 * max(len(states), 8))
    figure, body = new_page(WIDTH, height, "The effect of temperature", line)
    axes = body.subplots(down, across, squeeze=False, sharey=True).reshape(-1)
    for spare in axes[len(answers) :]:
        spare.remove()
    axes = axes[: len(answers)]
    look: dict[str, Any] = dict(norm=marginal_norm(answers, states), cmap=PROBABILITY_MAP, last=until(answers))
    images = [draw_table(a.mdp, a.state_probs, states, ax=ax, **look) for ax, a in zip(axes, answers, strict=True)]
    for ax, answer in zip(axes, answers, strict=True):
        share = "" if len(states) == answer.mdp.num_states else f"rows: {share_of(answer, states)} of the time"
        name_panel(ax, rf"$\tau$ = {answer.temperature:g}", arrivals(answer, answer.horizon), share)
    colour_bar(body, images[0], list(axes), marginal_words(answers[0])[1], extend="max", **BESIDE)
    return figure
