"""The pictures of a world on a grid, one page each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from nearopt.figures.canvas import (
    PALE_MAP,
    SMALL,
    WIDTH,
    colour_bar,
    log_norm,
    name_panel,
    new_page,
    probability_norm,
)
from nearopt.figures.layout import (
    RIM,
    Window,
    around,
    aspect,
    brightest,
    middle,
    moments,
    reached_states,
    state_reward,
    view,
    visits,
    whole,
)
from nearopt.figures.maps import (
    draw_backward,
    draw_forward,
    draw_marginal,
    draw_visits,
    draw_world,
    legend_handles,
    log_backward,
)
from nearopt.figures.paths import check_paths, draw_policy, draw_trajectories
from nearopt.figures.results import Answer, Dials, Paths
from nearopt.figures.words import (
    arrivals,
    backward_words,
    forward_words,
    marginal_words,
    moment,
    paths_title,
    policy_title,
    settings,
    visits_label,
)

Page = tuple[str, Figure]
MOMENTS = 6  # small multiples over time, the same in every page


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
def big_size(window: Window) -> tuple[float, float]:
    """Width and height of a page with one map."""
    height = float(np.clip((WIDTH - 1) / aspect(window), 1.0, 7.0))
    return float(np.clip(height * aspect(window) + 1, 10.0, WIDTH)), height + 2.2


def columns_for(window: Window) -> int:
    """How many maps stand side by side."""
    return 1 if aspect(window) > 5 else 3 if aspect(window) > 1.4 else MOMENTS


def panels(window: Window, count: int, title: str, line: str) -> tuple[Figure, SubFigure, np.ndarray]:
    """A page of `count` equal maps."""
    across = min(count, columns_for(window))
    down = -(-count // across)
    each = np.clip((WIDTH - 0.3) / max(across, 2) / aspect(window), 0.5, 4.5)
    figure, body = new_page(WIDTH, float(each + 0.45) * down + 2.1, title, line)
    axes = body.subplots(down, across, squeeze=False).reshape(-1)
    for spare in axes[count:]:
        spare.remove()
    return figure, body, axes[:count]


def legend(figure: Figure, answer: Dials, *more: Any, **which: bool) -> None:
    handles = [*legend_handles(answer.mdp, **which), *more]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=SMALL, frameon=False)


# ---------------------------------------------------------------- pages
def world_page(posterior: Answer) -> Figure:
    """The world, with its rewards where they vary."""
    mdp = posterior.mdp
    reward, what = state_reward(mdp)
    known = np.unique(reward[~np.isnan(reward)])
    same = f"   every step pays {known[0]:g}" if len(known) == 1 else ""
    line = f"{mdp.num_states:,} states   {mdp.num_actions} actions{same}"
    figure, body = new_page(*big_size(whole(mdp)), "The world", line)
    ax = body.subplots()
    image = draw_world(mdp, ax=ax)
    if len(known) > 1:
        bar = colour_bar(body, image, ax, f"reward {what}   [units of reward]")
        finite = np.append(known[np.isfinite(known)], 0.0)
        (bar.ax.set_xlim if bar.orientation == "horizontal" else bar.ax.set_ylim)(finite.min(), finite.max())
    legend(figure, posterior, impossible=bool(np.isneginf(known).any()))
    return figure


def messages_page(
    posterior: Answer, draw: Callable[..., Any], row: Callable[[int], np.ndarray], words: tuple
) -> Figure:
    """Log messages at a few moments on one colour scale."""
    title, label = words
    times = moments(posterior, MOMENTS).tolist()
    figure, body, axes = panels(whole(posterior.mdp), len(times), title, settings(posterior))
    rows = [row(t) for t in times]
    norm, cut = log_norm(rows)
    images = [draw(posterior, t, ax=ax, norm=norm) for ax, t in zip(axes, times, strict=True)]
    for ax, t in zip(axes, times, strict=True):
        name_panel(ax, moment(posterior, t))
    colour_bar(body, images[0], list(axes), label, extend="min" if cut else "neither")
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
    window, times = view([posterior]), moments(posterior, MOMENTS).tolist()
    title, label = marginal_words(posterior)
    across = {1: 1, 3: 2}.get(columns_for(window), 3)
    down = -(-len(times) // across)
    height = down * (6.2 / across / aspect(window) + 0.65) + 1.6
    figure, body = new_page(16.0, float(np.clip(height, 6.0, 8.5)), title, settings(posterior))
    halves: Any = body.subfigures(1, 2, width_ratios=(1.2 if across < 3 else 1.0, 1), wspace=0.02)
    left, right = halves
    large = left.subplots()
    image = draw_visits(posterior, ax=large, window=window)
    name_panel(large, "summed over time" + part(posterior, window))
    colour_bar(left, image, large, visits_label(posterior), location="left", aspect=30)
    norm = probability_norm(brightest(posterior, times))
    small = right.subplots(down, across, squeeze=False).reshape(-1)
    for ax, t in zip(small, times, strict=False):
        image = draw_marginal(posterior, t, ax=ax, norm=norm, window=window)
        name_panel(ax, moment(posterior, t), arrivals(posterior, t))
    for spare in small[len(times) :]:
        spare.remove()
    where = dict(location="bottom", aspect=40) if aspect(window) < 0.5 else dict(location="right", aspect=30)
    colour_bar(right, image, list(small[: len(times)]), label, extend="max", **where)
    legend(figure, posterior, blank=True)
    return figure


def part(posterior: Answer, window: Window) -> str:
    return "" if window == whole(posterior.mdp) else " (a part of the world)"


def path_words(posterior: Answer, trajectories: Paths) -> str:
    drawn = check_paths(posterior.mdp, trajectories)
    return paths_title(len(trajectories.state), len(drawn), drawn.shape[1] < trajectories.state.shape[1])


def trajectories_page(posterior: Answer, trajectories: Paths) -> Figure:
    """Trajectories over the expected visits."""
    title = path_words(posterior, trajectories)
    window = view([posterior])
    figure, body = new_page(*big_size(window), title + part(posterior, window), settings(posterior))
    ax = body.subplots()
    image = draw_visits(posterior, ax=ax, cmap=PALE_MAP, window=window)
    draw_trajectories(posterior.mdp, trajectories, ax=ax)
    colour_bar(body, image, ax, visits_label(posterior))
    legend(figure, posterior)
    return figure


def policy_page(posterior: Answer) -> Figure:
    """The policy at the first decision and at one on the way."""
    times, window = sorted({0, middle(posterior)}), around(posterior, RIM)
    down = len(times) if aspect(window) > 1.4 else 1
    across = len(times) // down
    reached, late = reached_states(posterior), False
    each = float(np.clip((WIDTH - 0.3) / across / aspect(window), 1.0, 6.5))
    title = f"{policy_title(posterior)}: length and opacity of an arrow are the probability of its action"
    figure, body = new_page(WIDTH, (each + 0.45) * down + 1.6, title, settings(posterior))
    for ax, t in zip(body.subplots(down, across, squeeze=False).reshape(-1), times, strict=True):
        draw_policy(posterior, t, ax=ax, window=window)
        late |= bool(np.isneginf(posterior.value[t][reached]).any())
        name_panel(ax, rf"$\pi_t(a\,|\,s)$ at t = {t:,}")
    legend(figure, posterior, rare=True, impossible=late)
    return figure


def temperature_page(answers: Sequence[Answer]) -> Figure:
    """Expected visits at each temperature, on one colour scale."""
    line, window = settings(answers[0], temperature=False), view(answers)
    figure, body, axes = panels(window, len(answers), "The effect of temperature", line)
    norm = probability_norm(max(float(visits(a)[~a.mdp.terminal].max(initial=0.0)) for a in answers))
    images = [draw_visits(a, ax=ax, norm=norm, window=window) for ax, a in zip(axes, answers, strict=True)]
    for ax, answer in zip(axes, answers, strict=True):
        name_panel(ax, rf"$\tau$ = {answer.temperature:g}", arrivals(answer, answer.horizon))
    colour_bar(body, images[0], list(axes), visits_label(answers[0]))
    legend(figure, answers[0], blank=True)
    return figure
