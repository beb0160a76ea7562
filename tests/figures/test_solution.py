"""The pictures of a solution show its own numbers: values, policy, width of the certificate, best trajectory."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.quiver import Quiver

import nearopt as no
from nearopt import figures
from nearopt.figures.layout import find_lattice
from nearopt.figures.plan import best_path
from nearopt.figures.plan_sheets import ROWS, plan_sheets
from nearopt.figures.solution import MOST_POSTS, maps, posts
from nearopt.mdp.errors import ImproperError
from tests.figures.test_pages import assert_drawn, assert_readable, words

DIALS = dict(temperature=0.5, optimism=0.0, prior=None, tol=1e-8, converged=True)


def plan(mdp, path=None, **changes):
    """A solution of arbitrary numbers: figures read, they do not compute."""
    rng = np.random.default_rng(0)
    ends = mdp.terminal
    value = np.where(ends, 0.0, -rng.uniform(1, 9, mdp.num_states))
    gap = np.where(ends, 0.0, 10.0 ** rng.uniform(-11, -8.1, mdp.num_states))
    policy = rng.dirichlet(np.ones(mdp.num_actions), mdp.num_states) * mdp.available
    numbers = dict(value=value, lower=value - gap / 2, upper=value + gap / 2, width=gap.max(), policy=policy)

    def follow(start=None, limit=100_000):
        if path is None:
            raise ImproperError("state 0, action 1 has 3 outcomes", "use the policy")
        return np.array(path[0][: limit + 1]), np.array(path[1][:limit])

    return SimpleNamespace(mdp=mdp, path=follow, **numbers | DIALS | changes)


def hard(mdp, path):
    return plan(mdp, path, temperature=0.0)


def pages(solution):
    return dict((maps if find_lattice(solution.mdp) is not None else plan_sheets)(solution))


def image_of(page):
    return page.axes[0].get_images()[-1]


WORLD = "S...\n.#.G\n...."


@pytest.fixture(scope="module")
def world():
    return no.MDP.from_grid(WORLD, slip=0.1)


def way(mdp):
    """States along the top and down into the goal, and the moves."""
    place = {tuple(xy): s for s, xy in enumerate(mdp.positions.tolist())}
    return [place[xy] for xy in [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1)]], [1, 1, 1, 2]


# ---------------------------------------------------------------- on a grid
def test_the_map_holds_the_values(world):
    solution = plan(world)
    shown = image_of(pages(solution)["value.png"]).get_array()
    lattice = find_lattice(world)
    free = ~world.terminal
    np.testing.assert_array_equal(shown[lattice.row[free], lattice.column[free]], solution.value[free])
    assert shown.mask[lattice.row[~free], lattice.column[~free]].all()  # 0 is not on the scale of the others


def test_the_arrows_are_the_policy(world):
    solution = plan(world)
    (arrows,) = pages(solution)["value.png"].axes[0].findobj(Quiver)
    compass = [(0, -1), (1, 0), (0, 1), (-1, 0)]
    shown = [(s, a) for s in np.flatnonzero(~world.terminal) for a in range(4) if solution.policy[s, a] >= 0.02]
    expected = [(*world.positions[s] + 0.06 * np.array(compass[a]), *0.7 * solution.policy[s, a] * np.array(compass[a]))
                for s, a in shown]  # fmt: skip
    np.testing.assert_allclose(np.column_stack([arrows.XY, arrows.U, arrows.V]), expected)


def test_large_maps_have_few_arrows():
    big = no.MDP.from_grid("\n".join(["S" + "." * 59] + ["." * 60] * 58 + ["." * 59 + "G"]))
    states, every = posts(plan(big))
    assert every == 2 and len(states) <= MOST_POSTS
    assert (big.positions[states] % 2 == 1).all()
    solution = plan(big)
    (arrows,) = pages(solution)["value.png"].axes[0].findobj(Quiver)
    first = solution.policy[states[0]]
    np.testing.assert_allclose(np.hypot(arrows.U, arrows.V)[: (first >= 0.02).sum()], 1.4 * first[first >= 0.02])
    assert "2 × 2 cells" in words(pages(solution)["value.png"])


def test_the_bounds_are_on_a_log_scale(world):
    solution = plan(world)
    page = pages(solution)["bounds.png"]
    image, lattice, free = image_of(page), find_lattice(world), ~world.terminal
    shown = image.get_array()[lattice.row, lattice.column]
    np.testing.assert_array_equal(shown[free], (solution.upper - solution.lower)[free])
    assert isinstance(image.norm, LogNorm) and image.norm.vmax == pytest.approx(1e-8)
    assert 1e-12 < image.norm.vmin <= shown[free].min()
    assert "bounds are equal" in words(page) and f"{solution.width:.2g} apart" in words(page)


def test_a_width_above_tol_is_on_the_scale_and_told(world):
    page = pages(plan(world, tol=1e-12, converged=False))["bounds.png"]
    norm = image_of(page).norm
    assert norm.vmin <= 1e-12 * (1 + 1e-9) and norm.vmax >= 5e-9 and "not reached" in words(page)


def test_the_best_trajectory_is_a_line(world):
    states, actions = way(world)
    page = pages(hard(world, (states, actions)))["path.png"]
    lines = [c for c in page.axes[0].collections if hasattr(c, "get_segments") and c.get_zorder() == 4]
    np.testing.assert_array_equal(lines[0].get_segments()[0], world.positions[states])
    assert "4 decisions, worth" in words(page)


@pytest.mark.parametrize(
    ("states", "told"), [([0, 1, 2, 1], "3 decisions, then in circles"), ([0, 1], "its first 1 decision;")]
)
def test_a_trajectory_that_does_not_end_says_so(world, states, told):
    assert told in words(pages(hard(world, (states, [1] * (len(states) - 1))))["path.png"])


def test_no_trajectory_where_there_is_no_single_best_one(world):
    assert best_path(plan(world, way(world))) is None  # soft
    assert best_path(hard(world, None)) is None  # chance
    assert set(pages(hard(world, None))) == {"value.png", "bounds.png"}


# ---------------------------------------------------------------- without a map
def test_states_are_sorted_by_value(chain):
    solution = plan(chain)
    page = pages(solution)["value.png"]
    left, right = page.axes
    order = np.argsort(-solution.value, kind="stable")
    np.testing.assert_array_equal(left.lines[0].get_xdata(), solution.value[order])
    gap = (solution.upper - solution.lower)[order]
    np.testing.assert_array_equal(right.lines[0].get_xdata(), gap[gap > 0])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), np.flatnonzero(gap > 0))
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels[0] == "end (end)" and labels[order.tolist().index(0)] == "a$b_"


def test_of_many_states_the_best_and_the_worst_are_shown():
    size = 300
    step = np.eye(size)[np.minimum(np.arange(size) + 1, size - 1)][:, None]
    many = no.MDP.from_arrays(step, -np.ones(size), discount=0.9)
    solution = plan(many)
    left = pages(solution)["value.png"].axes[0]
    shown = left.lines[0].get_xdata()
    assert len(shown) == ROWS and (np.diff(shown) <= 0).all()
    assert (shown[0], shown[-1]) == (solution.value.max(), solution.value.min())
    assert "40 of 300 states" in words(pages(solution)["value.png"])


def test_the_bars_are_the_policy(chain):
    solution = plan(chain)
    page = pages(solution)["policy.png"]
    order = np.argsort(-solution.value, kind="stable")
    order = order[~chain.terminal[order]]
    widths = [[bar.get_width() for bar in bars] for bars in page.axes[0].containers]
    np.testing.assert_allclose(np.transpose(widths), solution.policy[order])


def test_the_trajectory_without_a_map_is_a_list_of_decisions(chain):
    page = pages(hard(chain, ([0, 1, 2, 6], [0, 1, 0])))["path.png"]
    ax = page.axes[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "a$b_: go" and labels[2] == "line break: go" and labels[3] == "end (end)"
    assert labels[1].endswith(": $wait")
    solution = hard(chain, None)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [*solution.value[[0, 1, 2]], np.nan])


# ---------------------------------------------------------------- pages and files
def test_no_text_covers_another(world, chain):
    narrow = no.MDP.from_grid("S\n.\n.\n.\nG", discount=0.9)
    for solution in (hard(world, way(world)), hard(chain, ([0, 1, 2, 6], [0, 1, 0])), plan(narrow), plan(chain)):
        for page in pages(solution).values():
            assert_readable(page)


def test_every_file(world, chain, tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 50)
    for mdp, path, names in (
        (world, way(world), ["value.png", "bounds.png", "path.png"]),
        (chain, ([0, 6], [0]), ["value.png", "policy.png", "path.png"]),
    ):
        folder = tmp_path / "new" / names[1]
        paths = figures.solution_figures(hard(mdp, path), folder)
        assert paths == [folder / name for name in names] and sorted(folder.iterdir()) == sorted(paths)
        assert_drawn(paths)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_smallest_worlds(discount, tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 20)
    one = no.MDP.from_grid("S", discount=discount)
    assert len(figures.solution_figures(plan(one, width=0.0, lower=np.zeros(1), upper=np.zeros(1)), tmp_path)) == 2


def test_a_world_in_which_nobody_decides(tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 20)
    over = no.MDP.from_arrays(np.zeros((3, 2, 3)), np.zeros(3), terminal=np.ones(3, bool))
    paths = figures.solution_figures(plan(over, temperature=0.0, width=0.0), tmp_path)
    assert [path.name for path in paths] == ["value.png"]


def test_a_real_solution_is_drawn(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 20)
    solution = no.solve(no.MDP.from_grid(WORLD), temperature=0)
    assert [p.name for p in figures.solution_figures(solution, tmp_path)] == ["value.png", "bounds.png", "path.png"]
