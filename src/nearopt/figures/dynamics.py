"""Posterior dynamics beside the true ones: two sets of arrows on a grid, pairs of bars elsewhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from nearopt.figures.canvas import (
    COLOURS,
    EMPTY,
    INK,
    MEDIUM,
    SMALL,
    TINY,
    WALL,
    WIDTH,
    colour_bar,
    name_panel,
    new_page,
)
from nearopt.figures.layout import RIM, Window, around, aspect, middle, reached_states, require_lattice
from nearopt.figures.maps import draw_map
from nearopt.figures.pages import legend
from nearopt.figures.results import Dynamic, Entries, Outcome, World
from nearopt.figures.words import action_label, moment, settings, state_label

# blue lost, grey neither, red gained: no arrow fades into the page
GAIN_MAP = LinearSegmentedColormap.from_list("gain", [COLOURS[0], "0.6", COLOURS[5]])
WIDEST = 3.0  # nats beyond which a gain has no colour of its own
FAINTEST = 0.02  # the least probability that an arrow is drawn for
ROWS = 12  # outcomes in a page of bars


def draw_dynamics(
    posterior: Dynamic,
    t: int,
    *,
    ax: Axes,
    believed: bool = True,
    norm: Normalize | None = None,
    window: Window | None = None,
) -> Quiver:
    """Where the posterior's most probable action leads at t: one arrow per next state, as long as it is probable.

    `believed`: by the posterior dynamics, else by the true ones. The colour is log believed/true in nats in both. An
    arrow of probability 1 is 0.7 of a cell long, none is drawn below 0.02; a dot stays. States as in `draw_policy`.
    Returns the arrows.
    """
    mdp, lattice = posterior.mdp, require_lattice(posterior.mdp)
    states = reached_states(posterior)
    norm = norm or gain_norm(posterior, [t])
    seen = np.isin(np.arange(mdp.num_states), states)
    lost = np.isneginf(posterior.value[t]) & ~mdp.terminal
    blank = (seen & ~lost) | mdp.terminal
    draw_map(
        mdp, np.where(seen | blank, np.nan, 0.0), ax=ax, cmap=ListedColormap([EMPTY]), blank=blank,
        window=window or around(posterior, RIM),
    )  # fmt: skip
    states = states[~lost[states]]
    rows = favourites(posterior, t, states)
    table = posterior.transition(t) if believed else mdp.transition
    start, target, probability, gain = entries(table, posterior.dynamics_gain(t), rows)
    place = np.stack([lattice.column, lattice.row], 1).astype(float)
    centre, move = place[states[start]], place[target] - place[states[start]]
    size = np.hypot(*move.T)[:, None]
    unit = np.where(size > 0, move / np.where(size > 0, size, 1), 0.0)
    strong, stays = probability >= FAINTEST, size[:, 0] == 0
    moves, stays = strong & ~stays, strong & stays
    colour: dict[str, Any] = dict(norm=norm, cmap=GAIN_MAP)
    drawn = ax.quiver(
        *(centre[moves] + 0.06 * unit[moves]).T, *(unit[moves] * 0.7 * probability[moves][:, None]).T, gain[moves],
        angles="xy", scale_units="xy", scale=1, width=0.055, units="xy", headwidth=3.6, headlength=3.2,
        headaxislength=3, minlength=0, zorder=7, **colour,
    )  # fmt: skip
    wide = 0.3 * np.sqrt(probability[stays])
    dots = EllipseCollection(
        wide, wide, np.zeros(len(wide)), units="xy", offsets=centre[stays], offset_transform=ax.transData,
        array=gain[stays], edgecolors="none", zorder=7, **colour,
    )  # fmt: skip
    ax.add_collection(dots, autolim=False)
    ax.set_facecolor(WALL)
    return drawn


def favourites(posterior: Dynamic, t: int, states: np.ndarray) -> np.ndarray:
    """The row of the table of dynamics of each state's most probable action."""
    return states * posterior.mdp.num_actions + posterior.policy_at(t)[states].argmax(axis=1)


def gain_norm(posterior: Dynamic, times: Sequence[int]) -> Normalize:
    """One scale for all gains of arrows that are believed in, the same to both sides of 0."""
    largest, states = 0.1, reached_states(posterior)
    for t in times:
        _, _, believed, gain = entries(
            posterior.transition(t), posterior.dynamics_gain(t), favourites(posterior, t, states)
        )
        largest = max(largest, float(np.abs(gain[believed >= FAINTEST]).max(initial=0.0)))
    return Normalize(-min(largest, WIDEST), min(largest, WIDEST))


def entries(table: Any, gain: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of some rows of a sparse table: the row's place among them, column, value; and the gain, which is as sparse."""
    count = np.diff(table.indptr)[rows]
    start = np.repeat(np.arange(len(rows)), count)
    where = np.repeat(table.indptr[rows] - np.cumsum(count) + count, count) + np.arange(count.sum())
    return start, table.indices[where], table.data[where], gain.data[where]


def dynamics_page(posterior: Dynamic) -> Figure:
    """True and believed arrows side by side, at the first decision and at one on the way."""
    times, window = sorted({0, middle(posterior)}), around(posterior, RIM)
    each = float(np.clip((WIDTH - 0.3) / 2 / aspect(window), 1.0, 6.0))
    title = "Where the most probable action leads: in truth, and as exact inference believes"
    figure, body = new_page(WIDTH, (each + 0.35) * len(times) + 2.0, title, settings(posterior))
    axes = body.subplots(len(times), 2, squeeze=False)
    look: dict[str, Any] = dict(norm=gain_norm(posterior, times), window=window)
    arrows = []
    for (true, tilted), t in zip(axes, times, strict=True):
        arrows += [draw_dynamics(posterior, t, ax=ax, believed=ax is tilted, **look) for ax in (true, tilted)]
        name_panel(true, rf"true: $p(s'\,|\,s,a)$ at {moment(posterior, t)}")
        name_panel(tilted, rf"believed: $p(s'\,|\,s,a,O_{{1:T}})$ at {moment(posterior, t)}")
    label = "log of believed over true probability   [nats]: red gained, blue lost"
    colour_bar(body, arrows[0], list(axes.reshape(-1)), label, extend="both", location="bottom", aspect=40)
    legend(figure, posterior, rare=True)
    return figure


# ---------------------------------------------------------------- without a map
def draw_luck(mdp: World, outcomes: Sequence[Outcome], *, ax: Axes) -> None:
    """Pairs of bars, the true probability of each outcome and the believed one, with the nats between them."""
    for k, (name, colour) in enumerate((("true", COLOURS[4]), ("believed", COLOURS[1]))):
        width = [getattr(outcome, name) for outcome in outcomes]
        ax.barh(np.arange(len(outcomes)) + 0.4 * k - 0.2, width, height=0.38, color=colour, label=name)
    for i, outcome in enumerate(outcomes):
        words = f"{outcome.nats:.3g} nats × {outcome.visits:.2g} visits"
        ax.text(1.02, i, words, va="center", fontsize=TINY, color=INK, transform=ax.get_yaxis_transform())
    labels = [outcome_label(mdp, outcome) for outcome in outcomes]
    ax.set_yticks(range(len(labels)), labels, fontsize=TINY, family="DejaVu Sans", parse_math=False)
    ax.set_ylim(max(len(outcomes), 2) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.set_xlabel("probability of the outcome", fontsize=MEDIUM, color=INK)


def outcome_label(mdp: World, outcome: Outcome) -> str:
    """'t = 3: hall, go on → garden'."""
    end = "ends by discount" if outcome.next_state < 0 else state_label(mdp, outcome.next_state)
    return f"t = {outcome.t:,}: {state_label(mdp, outcome.state)}, {action_label(mdp, outcome.action)} → {end}"


def luck_page(ledger: Entries) -> Figure:
    """The outcomes that gained most."""
    outcomes = ledger.luck(ROWS)
    title = "The luck that exact inference believes in"
    figure, body = new_page(WIDTH, 2.6 + 0.45 * max(len(outcomes), 2), title, settings(ledger.exact))
    ax = body.subplots()
    draw_luck(ledger.exact.mdp, outcomes, ax=ax)
    name_panel(ax, "the outcomes that gained most, by expected visits × nats" if outcomes else "no outcome gained")
    if outcomes:
        figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    return figure
