"""The pictures of a fit show its own numbers: the data, the reward, coefficients, predictions, competitors."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.quiver import Quiver

import nearopt as no
from nearopt import figures
from nearopt.figures.behaviour import behaviour_pages
from nearopt.figures.behaviour_world import mapped, numbered, placed
from nearopt.figures.layout import find_lattice
from tests.figures.test_pages import assert_readable, words


def tree():
    """A binary tree of 15 nodes at places that are no map."""
    transition, place = np.zeros((15, 3, 15)), np.zeros((15, 2))
    for s in range(15):
        for a, child in enumerate((2 * s + 1, 2 * s + 2)):
            transition[s, a, child if child < 15 else s] = 1
        transition[s, 2, max(s - 1, 0) // 2] = 1
        depth = int(np.log2(s + 1))
        place[s] = (2 * (s + 1 - 2**depth) + 1) * 2 ** (3 - depth), depth
    return no.MDP.from_arrays(transition, np.zeros(15), positions=place, action_names=("left", "right", "back"))


def line(states):
    """Many states without names or places."""
    transition = np.zeros((states, 2, states))
    for s in range(states):
        transition[s, 0, min(s + 1, states - 1)] = transition[s, 1, 0] = 1
    return no.MDP.from_arrays(transition, np.zeros(states), action_names=("$keep", "replace"))


WORLDS = {
    "map": lambda: no.MDP.from_grid("S...\n.#.G\n...."),
    "tree": tree,
    "line": lambda: line(50),
    "list": lambda: line(9),
}


def ranged(shape, rng):
    data = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    mean = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    return SimpleNamespace(
        data=data, mean=mean, low=0.8 * mean, high=1.2 * mean, distance=0.123, usual=(0.01, 0.1), far=True
    )


def fake(mdp, steps=0, per_state=False, **changes):
    """A report of arbitrary numbers: figures read, they do not compute."""
    rng = np.random.default_rng(0)
    taken = rng.integers(0, 40, mdp.available.shape) * mdp.available
    taken[mdp.num_states // 2] = 0
    shape = (steps,) * (steps > 0) + mdp.available.shape
    reward = rng.normal(size=shape[:-1])[..., None] * np.ones(shape) if per_state else rng.normal(size=shape)
    coef = rng.normal(size=(steps, 2) if steps else 3)
    row = lambda name, bits: SimpleNamespace(name=name, held_out=bits * np.log(2), train=-1.0, error=0.02)
    rows = [row("fitted agent", -0.5), row("empirical Markov", -0.25), row("else", -np.inf), row("uniform", -2.0)]
    names = [f"{n}, t={t}" for t in range(steps) for n in ("a$b", "c")] if steps else ["one", "two", "^$\\frac"]
    checks = SimpleNamespace(
        visits=ranged((mdp.num_states,), rng), actions=ranged((mdp.num_actions,), rng), over_time=ranged((6, 2), rng),
        time=np.arange(6.0), followed=(np.array([0]), np.array([1])), decisions=77, replicates=100,
    )  # fmt: skip
    numbers = dict(
        mdp=mdp, taken=taken, visits=taken.sum(1), moves=(np.array([[0, 1], [1, 0], [1, 1]]), np.array([3, 6, 9])),
        recorded=range(5), held_out=range(2), reward=np.where(mdp.available, reward, np.nan), maps=None,
        time_varying=steps > 0, coef=coef, lower=coef - 1, upper=coef + 1, level=0.9, names=names,
        shown=np.arange(coef.size), dials={"temperature": (2.0, 1.0, 4.0)}, rows=rows, checks=checks,
    )  # fmt: skip
    return SimpleNamespace(**numbers | changes)


def pages(report):
    return dict(behaviour_pages(report))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [0, 5])
def test_every_page_is_drawn_and_readable(world, steps):
    mdp = WORLDS[world]()
    assert (mapped(mdp), placed(mdp), numbered(mdp)) == (world == "map", world in ("map", "tree"), world == "line")
    drawn = pages(fake(mdp, steps))
    assert list(drawn) == [f"{n}.png" for n in ("data", "reward", "coefficients", "predictions", "comparison")]
    for page in drawn.values():
        assert_readable(page)


def test_the_map_holds_the_decisions_and_the_shares_of_actions():
    report = fake(WORLDS["map"]())
    ax = pages(report)["data.png"].axes[0]
    lattice, seen = find_lattice(report.mdp), report.visits > 0
    shown = ax.get_images()[-1].get_array()[lattice.row, lattice.column]
    np.testing.assert_array_equal(shown[seen], report.visits[seen])
    assert shown.mask[~seen].all()
    (arrows,) = ax.findobj(Quiver)
    share = (report.taken / np.maximum(report.visits, 1)[:, None])[seen]
    size = np.hypot(arrows.U, arrows.V)
    np.testing.assert_allclose(np.sort(size), np.sort(0.7 * share[share >= 0.02]))


def test_places_hold_the_decisions_and_the_moves():
    report = fake(tree())
    ax = pages(report)["data.png"].axes[0]
    unseen, seen = (c for c in ax.findobj(PathCollection) if len(c.get_offsets()))
    np.testing.assert_array_equal(seen.get_array(), report.visits[report.visits > 0])
    np.testing.assert_array_equal(unseen.get_offsets(), report.mdp.positions[report.visits == 0])
    _, moves = (c for c in ax.collections if isinstance(c, LineCollection))
    assert len(moves.get_segments()) == 1  # back and forth is one way, staying none
    assert len(ax.collections[0].get_segments()) == 14


def test_rewards_are_drawn_per_action_or_once():
    report = fake(tree())
    axes = [ax for ax in pages(report)["reward.png"].axes if ax.get_title()]
    assert [ax.get_title() for ax in axes] == ["left", "right", "back"]
    for a, ax in enumerate(axes):
        np.testing.assert_array_equal(ax.collections[-1].get_array(), report.reward[:, a])
    alone = fake(WORLDS["map"](), per_state=True)
    (ax, _) = pages(alone)["reward.png"].axes
    lattice, free = find_lattice(alone.mdp), ~alone.mdp.terminal
    shown = ax.get_images()[-1].get_array()[lattice.row, lattice.column]
    np.testing.assert_array_equal(shown[free], alone.reward[free, 0])
    maps = fake(WORLDS["map"](), 5, maps=np.arange(22.0).reshape(2, 11))
    assert [ax.get_title() for ax in pages(maps)["reward.png"].axes][:2] == ["map 0", "map 1"]


def test_rewards_over_time_are_tables():
    report = fake(line(9), 5)
    left = pages(report)["reward.png"].axes[0]
    states = np.flatnonzero(report.visits > 0)
    np.testing.assert_array_equal(left.get_images()[-1].get_array(), report.reward[:, states, 0].T)


def test_coefficients_have_their_intervals():
    report = fake(line(9))
    report.upper[2] = np.inf
    page = pages(report)["coefficients.png"]
    (whiskers,) = (c for c in page.axes[0].collections if isinstance(c, LineCollection))
    ends = [segment[:, 0].tolist() for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, np.stack([report.lower, report.upper], 1)[:2])
    solid, hollow = (page.axes[0].get_lines()[k].get_xdata() for k in (0, 1))
    np.testing.assert_array_equal(np.append(solid, hollow), report.coef)
    assert "90%" in words(page) and "temperature" in words(page) and "no bounds" in words(page)
    curves = pages(fake(line(9), 5))["coefficients.png"].axes[0]
    np.testing.assert_array_equal(curves.get_lines()[1].get_ydata(), fake(line(9), 5).coef[:, 1])


def test_every_explanation_stands_in_the_comparison():
    report = fake(line(9))
    page = pages(report)["comparison.png"]
    told = words(page)
    assert all(row.name in told for row in report.rows)
    assert all(text in told for text in ("−0.500", "−0.250", "−2.000", "−∞", "held-out decisions"))
    assert "nothing was held out" in words(pages(fake(line(9), held_out=()))["comparison.png"])


def test_without_checks_or_coefficients_there_are_no_pages_of_them():
    report = fake(line(9), coef=np.zeros(0), dials={}, checks=None)
    assert list(pages(report)) == ["data.png", "reward.png", "comparison.png"]


def test_files_appear_in_the_folder(tmp_path):
    files = figures.behaviour_figures(fake(line(9), checks=None), tmp_path / "new")
    assert sorted(files) == sorted((tmp_path / "new").iterdir()) and len(files) == 4
