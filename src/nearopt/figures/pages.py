"""The pictures of a world on a grid, one page each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nearopt.figures.canvas import (
    SMALL,
    WIDTH,
    colour_bar,
    headline,
    log_norm,
    name_panel,
    new_figure,
    probability_norm,
)
from nearopt.figures.layout import Lattice, ended, middle, moments, require_lattice, state_reward, visits
from nearopt.figures.maps import (
    draw_backward,
    draw_forward,
    draw_marginal,
    draw_visits,
    draw_world,
    legend_handles,
    log_backward,
)
from nearopt.figures.paths import draw_policy, draw_trajectories
from nearopt.figures.results import Answer, Paths
from nearopt.figures.words import (
    backward_words,
    forward_words,
    marginal_words,
    percent,
    settings,
    visits_label,
)

Page = tuple[str, Figure]


def grid_pages(posterior: Answer, trajectories: Paths | None, sweep: Sequence[Answer]) -> Iterator[Page]:
    """Every page as (file name, figure), drawn when asked for."""
    yield "world.png", world_page(posterior)
    yield "backward.png", backward_page(posterior)
    yield "forward.png", forward_page(posterior)
    yield "posterior.png", posterior_page(posterior)
    if trajectories is not None:
        yield "trajectories.png", trajectories_page(posterior, trajectories)
    yield "policy.png", policy_page(posterior)
    if len(sweep) > 1:
        yield "temperature.png", temperature_page(sweep)


# ---------------------------------------------------------------- shapes
def big_size(lattice: Lattice) -> tuple[float, float]:
    """Width and height of a page with one map."""
    height = np.clip((WIDTH - 2) / lattice.aspect, 2.0, 8.0)
    width = np.clip(height * lattice.aspect, 7.0, WIDTH - 2)
    return float(width) + 2, float(height) + 1.8


def columns_for(lattice: Lattice, count: int) -> int:
    """How many maps stand side by side."""
    if lattice.aspect > 5:
        return 1
    return min(count, 3 if lattice.aspect > 1.4 else 5)


def panels(lattice: Lattice, count: int, width: float = WIDTH) -> tuple[Figure, np.ndarray]:
    """A page of equal maps."""
    across = columns_for(lattice, count)
    down = -(-count // across)
    each = np.clip((width - 1.5) / across / lattice.aspect, 0.5, 5.0)
    figure = new_figure(width, float(each + 0.4) * down + 1.8)
    axes = figure.subplots(down, across, squeeze=False).reshape(-1)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def moment(posterior: Answer, t: int) -> str:
    return f"t = {t:,}" if t < posterior.horizon else f"t = T = {t:,}"


def legend(figure: Figure, posterior: Answer, **which: bool) -> None:
    handles = legend_handles(posterior.mdp, **which)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=SMALL, frameon=False)


# ---------------------------------------------------------------- pages
def world_page(posterior: Answer) -> Figure:
    """The world, with its rewards where they vary."""
    mdp = posterior.mdp
    figure = new_figure(*big_size(require_lattice(mdp)))
    ax = figure.subplots()
    image = draw_world(mdp, ax=ax)
    reward, what = state_reward(mdp)
    known = np.unique(reward[~np.isnan(reward)])
    same = "" if len(known) != 1 else f"   every step pays {known[0]:g}"
    counts = f"{mdp.num_states:,} states   {mdp.num_actions} actions{same}"
    headline(figure, "The world", counts)
    if len(known) > 1:
        colour_bar(figure, image, ax, f"reward {what}")
    legend(figure, posterior, impossible=bool(np.isneginf(known).any()))
    return figure


def messages_page(posterior: Answer, draw: Callable[..., Any], row: Callable[[int], np.ndarray], words: tuple) -> Figure:
    """Log messages at a few moments on one colour scale."""
    title, label = words
    times = moments(posterior)
    figure, axes = panels(require_lattice(posterior.mdp), len(times))
    rows = [row(int(t)) for t in times]
    norm, cut = log_norm(rows)
    for ax, t in zip(axes, times, strict=True):
        image = draw(posterior, int(t), ax=ax, norm=norm)
        name_panel(ax, moment(posterior, int(t)))
    headline(figure, title, settings(posterior))
    colour_bar(figure, image, axes, label, extend="min" if cut else "neither")
    legend(figure, posterior, impossible=any(np.isneginf(r).any() for r in rows))
    return figure


def backward_page(posterior: Answer) -> Figure:
    """log β at a few moments."""
    return messages_page(posterior, draw_backward, lambda t: log_backward(posterior, t), backward_words(posterior))


def forward_page(posterior: Answer) -> Figure:
    """log α at a few moments."""
    return messages_page(posterior, draw_forward, lambda t: posterior.log_forward[t], forward_words(posterior))


def posterior_page(posterior: Answer) -> Figure:
    """Expected visits, large, and the state probabilities at a few moments."""
    lattice = require_lattice(posterior.mdp)
    times, finished = moments(posterior), ended(posterior)
    wide = lattice.aspect > 1.4
    height = (WIDTH - 3) / lattice.aspect + (WIDTH - 2) / 5 / lattice.aspect + 2.6 if wide else 7.0
    figure = new_figure(WIDTH, float(np.clip(height, 4.5, 10.5)))
    if wide:
        top, bottom = figure.subfigures(2, 1, height_ratios=(4, 1.45), hspace=0.02)
        small = bottom.subplots(1, len(times), squeeze=False).reshape(-1)
    else:
        top, bottom = figure.subfigures(1, 2, width_ratios=(1, 1.1), wspace=0.02)
        small = bottom.subplots(2, 3).reshape(-1)
    large = top.subplots()
    image = draw_visits(posterior, ax=large)
    name_panel(large, f"summed over time; {percent(finished[-1])} end in a terminal state")
    colour_bar(top, image, large, visits_label(posterior))
    title, label = marginal_words(posterior)
    norm = probability_norm(float(posterior.state_probs[times].max()))
    for ax, t in zip(small, times, strict=False):
        image = draw_marginal(posterior, int(t), ax=ax, norm=norm)
        name_panel(ax, f"{moment(posterior, int(t))}\n{percent(finished[t])} at the end")
    for spare in small[len(times) :]:
        spare.remove()
    colour_bar(bottom, image, small[: len(times)], label)
    headline(figure, title, settings(posterior))
    legend(figure, posterior, blank=True)
    return figure


def trajectories_page(posterior: Answer, trajectories: Paths) -> Figure:
    """Sampled trajectories over the expected visits."""
    figure = new_figure(*big_size(require_lattice(posterior.mdp)))
    ax = figure.subplots()
    image = draw_visits(posterior, ax=ax, cmap="Greys")
    drawn = draw_trajectories(posterior.mdp, trajectories, ax=ax)
    colour_bar(figure, image, ax, visits_label(posterior))
    headline(figure, f"{len(drawn.get_paths())} sampled trajectories", settings(posterior))
    legend(figure, posterior)
    return figure


def policy_page(posterior: Answer) -> Figure:
    """The policy at the first decision and at one on the way."""
    lattice = require_lattice(posterior.mdp)
    times = sorted({0, middle(posterior)})
    stacked = lattice.aspect > 1.4
    width, height = big_size(lattice)
    if stacked:
        figure = new_figure(width, min(2 * (height - 1.8), 11.0) + 2)
        axes = figure.subplots(len(times), 1, squeeze=False).reshape(-1)
    else:
        figure = new_figure(WIDTH, float(np.clip((WIDTH - 1) / 2 / lattice.aspect, 3, 9)) + 1.8)
        axes = figure.subplots(1, len(times), squeeze=False).reshape(-1)
    for ax, t in zip(axes, times, strict=True):
        draw_policy(posterior, t, ax=ax)
        name_panel(ax, rf"$\pi_t(a\,|\,s)$ at t = {t:,}")
    headline(figure, "The policy: length and opacity of an arrow are the probability of the action", settings(posterior))
    legend(figure, posterior)
    return figure


def temperature_page(answers: Sequence[Answer]) -> Figure:
    """Expected visits at each temperature, on one colour scale."""
    lattice = require_lattice(answers[0].mdp)
    figure, axes = panels(lattice, len(answers))
    total = [np.where(a.mdp.terminal, 0.0, visits(a)).max() for a in answers]
    norm = probability_norm(float(max(total)))
    for ax, answer in zip(axes, answers, strict=True):
        image = draw_visits(answer, ax=ax, norm=norm)
        name_panel(ax, rf"$\tau$ = {answer.temperature:g}" + f"   ({percent(ended(answer)[-1])} end)")
    headline(figure, "The effect of temperature", settings(answers[0], temperature=False))
    colour_bar(figure, image, axes, visits_label(answers[0]))
    legend(figure, answers[0], blank=True)
    return figure
