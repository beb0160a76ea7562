"""The pictures of a world without a map, one page each: states down, time across."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from nearopt.figures.canvas import (
    MEDIUM,
    PROBABILITY_MAP,
    SMALL,
    WIDTH,
    colour_bar,
    headline,
    log_norm,
    name_panel,
    new_figure,
    probability_norm,
)
from nearopt.figures.layout import busiest, ended, middle, visits
from nearopt.figures.pages import Page
from nearopt.figures.results import Answer, Paths
from nearopt.figures.tables import cells, draw_policy_bars, draw_state_bars, draw_table, draw_table_trajectories
from nearopt.figures.words import (
    backward_words,
    forward_words,
    marginal_words,
    percent,
    settings,
    visits_label,
)

ROWS = 40  # states in a picture


def sheets(posterior: Answer, trajectories: Paths | None, sweep: Sequence[Answer]) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for. Without a map there is no picture of the world."""
    states = busiest(posterior, ROWS)
    if not len(states):  # success is impossible: there is only the backward pass to show
        states = np.arange(min(ROWS, posterior.mdp.num_states))
    yield "backward.png", backward_sheet(posterior, states)
    yield "forward.png", forward_sheet(posterior, states)
    yield "posterior.png", posterior_sheet(posterior, states)
    if trajectories is not None:
        yield "trajectories.png", trajectories_sheet(posterior, trajectories, states)
    yield "policy.png", policy_sheet(posterior)
    if len(sweep) > 1:
        yield "temperature.png", temperature_sheet(sweep, states)


def sheet_height(count: int) -> float:
    return 2.3 + 0.19 * max(count, 8)


def which_states(posterior: Answer, states: np.ndarray) -> str:
    total = posterior.mdp.num_states
    if len(states) == total:
        return "all states, in the order of their mean time"
    share = visits(posterior)[states].sum() / max(visits(posterior).sum(), 1e-300)
    return f"the {len(states)} most visited of {total:,} states ({percent(share)} of the time), in the order of their mean time"


def messages_sheet(posterior: Answer, states: np.ndarray, values: np.ndarray, unit: float, words: tuple) -> Figure:
    """Log messages over time."""
    title, label = words
    figure = new_figure(WIDTH, sheet_height(len(states)))
    ax = figure.subplots()
    norm, cut = log_norm([cells(values, states, unit)])
    image = draw_table(posterior.mdp, values, states, ax=ax, norm=norm, unit=unit)
    name_panel(ax, which_states(posterior, states))
    headline(figure, title, settings(posterior))
    hatched = r"; hatched: $-\infty$" if np.ma.getmaskarray(image.get_array()).any() else ""
    colour_bar(figure, image, ax, label + hatched, extend="min" if cut else "neither")
    return figure


def backward_sheet(posterior: Answer, states: np.ndarray) -> Figure:
    """log β over time."""
    return messages_sheet(posterior, states, posterior.value, posterior.temperature or 1.0, backward_words(posterior))


def forward_sheet(posterior: Answer, states: np.ndarray) -> Figure:
    """log α over time."""
    return messages_sheet(posterior, states, posterior.log_forward, 1.0, forward_words(posterior))


def marginal_norm(posterior: Answer, states: np.ndarray):
    """One colour scale for the states that are not terminal; those that are fill up and would drown them."""
    chosen = states[~posterior.mdp.terminal[states]]
    return probability_norm(float(posterior.state_probs[:, chosen].max(initial=0.0)))


def posterior_sheet(posterior: Answer, states: np.ndarray) -> Figure:
    """State probabilities over time, and expected visits beside them."""
    figure = new_figure(WIDTH, sheet_height(len(states)))
    ax, side = figure.subplots(1, 2, width_ratios=(3, 1))
    title, label = marginal_words(posterior)
    norm = probability_norm(float(posterior.state_probs[:, states].max(initial=0.0)))
    image = draw_table(posterior.mdp, posterior.state_probs, states, ax=ax, norm=norm, cmap=PROBABILITY_MAP)
    name_panel(ax, which_states(posterior, states))
    draw_state_bars(posterior, states, ax=side)
    side.set_yticks([])
    side.set_xlabel(visits_label(posterior), fontsize=MEDIUM)
    name_panel(side, f"{percent(ended(posterior)[-1])} end in a terminal state")
    headline(figure, title, settings(posterior))
    colour_bar(figure, image, ax, label, location="left")
    return figure


def trajectories_sheet(posterior: Answer, trajectories: Paths, states: np.ndarray) -> Figure:
    """Sampled trajectories over the state probabilities."""
    figure = new_figure(WIDTH, sheet_height(len(states)))
    ax = figure.subplots()
    norm = probability_norm(float(posterior.state_probs[:, states].max(initial=0.0)))
    image = draw_table(posterior.mdp, posterior.state_probs, states, ax=ax, norm=norm, cmap="Greys")
    drawn = draw_table_trajectories(posterior.mdp, trajectories, states, ax=ax)
    name_panel(ax, f"{which_states(posterior, states)}; a line breaks where its state is not among them")
    headline(figure, f"{len(drawn.get_paths())} sampled trajectories", settings(posterior))
    colour_bar(figure, image, ax, marginal_words(posterior)[1])
    return figure


def policy_sheet(posterior: Answer) -> Figure:
    """The policy at the first decision and at one on the way, in the states that are likely then."""
    times = sorted({0, middle(posterior)})
    terminal = posterior.mdp.terminal
    figure = new_figure(WIDTH, 7.5)
    for ax, t in zip(figure.subplots(1, len(times), squeeze=False).reshape(-1), times, strict=True):
        now = np.where(terminal, -1.0, posterior.state_probs[t])
        states = np.argsort(-now, kind="stable")[:20]
        states = states[now[states] >= 0]
        bars = draw_policy_bars(posterior, t, states, ax=ax)
        name_panel(ax, f"t = {t:,}: the {len(states)} most probable states\n(together {percent(now[states].sum())})")
    headline(figure, "The policy", settings(posterior))
    across = min(len(bars), 8)
    figure.legend(handles=bars, loc="outside lower center", ncols=across, fontsize=SMALL, frameon=False)
    return figure


def temperature_sheet(answers: Sequence[Answer], states: np.ndarray) -> Figure:
    """State probabilities over time at each temperature, on one colour scale and for the same states."""
    figure = new_figure(WIDTH, sheet_height(len(states)))
    axes = figure.subplots(1, len(answers), squeeze=False, sharey=True).reshape(-1)
    norm = probability_norm(max(float(a.state_probs[:, states].max(initial=0.0)) for a in answers))
    for ax, answer in zip(axes, answers, strict=True):
        image = draw_table(answer.mdp, answer.state_probs, states, ax=ax, norm=norm, cmap=PROBABILITY_MAP)
        name_panel(ax, rf"$\tau$ = {answer.temperature:g}" + f"\n{percent(ended(answer)[-1])} end")
        ax.set_xlabel("time t  [decisions]", fontsize=SMALL)
    headline(figure, "The effect of temperature", settings(answers[0], temperature=False))
    colour_bar(figure, image, axes, marginal_words(answers[0])[1])
    return figure
