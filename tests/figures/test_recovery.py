"""The picture of a recovery shows its own numbers: every interval, the truth, the coverage."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb

from nearopt.behaviour.recovery import Recovery
from nearopt.figures.recovery import HELD, MISSED, chosen, recovery_figures, recovery_page
from tests.figures.test_pages import assert_readable, words


def fake(parameters=1, repetitions=40, off=0.0):
    """Normal estimates with normal intervals of 90 %; the last parameter is off."""
    rng = np.random.default_rng(0)
    truth = np.linspace(-1, 2, parameters)
    error = np.full((repetitions, parameters), 0.2)
    estimate = truth + 0.2 * rng.normal(size=error.shape)
    estimate[:, -1] += off
    names = tuple(f"a${k}_^" for k in range(parameters))
    bounds = estimate - 1.645 * error, estimate + 1.645 * error
    return Recovery(names, truth, estimate, error, *bounds, np.ones(repetitions, bool), 0.9)


def drawn(ax, colour):
    """Ends of the vertical lines of one colour, (n, 2), sorted."""
    lines = [c for c in ax.collections if isinstance(c, LineCollection) and len(c.get_segments())]
    ends = [s[:, 1] for c in lines if np.allclose(c.get_color()[0][:3], to_rgb(colour)) for s in c.get_segments()]
    return np.array(sorted(map(tuple, ends))).reshape(-1, 2)


def test_every_interval_has_the_colour_of_its_fate():
    found = fake()
    page = recovery_page(found)
    (ax,) = page.axes
    bounds, held = np.stack([found.lower[:, 0], found.upper[:, 0]], 1), found.held[:, 0]
    assert 0 < held.sum() < 40
    for which, colour in ((held, HELD), (~held, MISSED)):
        np.testing.assert_allclose(drawn(ax, colour), sorted(map(tuple, bounds[which])))
    dots = np.concatenate([line.get_ydata() for line in ax.get_lines() if line.get_marker() == "o"])
    np.testing.assert_allclose(np.sort(dots), np.sort(found.estimate[:, 0]))
    (dashed,) = (line for line in ax.get_lines() if line.get_linestyle() == "--")
    np.testing.assert_array_equal(dashed.get_ydata(), found.truth[0])
    low, high = ax.get_ylim()
    assert low < found.lower.min() and high > found.upper.max()
    told = words(page)
    assert f"held in {100 * held.mean():.3g} %" in told and "40 repetitions with 90 % intervals" in told
    assert "truth −1" in told
    assert_readable(page)


def test_intervals_that_are_too_short_show_in_the_title():
    axes = recovery_page(fake(3, off=0.5)).axes
    colours = [to_rgb(ax.title.get_color()) == to_rgb(MISSED) for ax in axes]
    assert colours == [False, False, True]


def test_many_parameters_are_the_worst_ones():
    found = fake(20, off=1.0)
    shown = chosen(found)
    far = np.abs(found.coverage - 0.9)
    assert len(shown) == 12 and 19 in shown and far[shown].min() >= np.delete(far, shown).max()
    page = recovery_page(found)
    titles = [ax.get_title().split("\n")[0] for ax in page.axes]
    assert titles == [rf"a\${k}_^" for k in shown] and "the 12 of 20 parameters" in words(page)
    assert_readable(page)


@pytest.mark.parametrize("which", ["endless", "absurd", "failed", "none", "constant"])
def test_what_is_not_finite_leaves_a_panel_that_can_be_read(which):
    found = fake()
    if which == "endless":
        found.lower[::2], found.upper[1::3] = -np.inf, np.inf
    if which == "absurd":
        found.upper[:] = 1e10
    if which == "failed":
        for array in (found.estimate, found.stderr, found.lower, found.upper):
            array[::2] = np.nan
    if which == "none":
        found.lower[:], found.upper[:] = np.nan, np.nan
    if which == "constant":
        found.estimate[:], found.lower[:], found.upper[:] = found.truth, found.truth, found.truth
    page = recovery_page(found)
    (ax,) = page.axes
    low, high = ax.get_ylim()
    assert low < np.nanmin(found.estimate) and np.nanmax(found.estimate) < high and high - low < 4
    assert len(drawn(ax, HELD)) + len(drawn(ax, MISSED)) == (~np.isnan(found.lower)).sum()
    assert ("no intervals" in words(page)) == (which == "none")
    assert_readable(page)


def test_the_file_appears_in_a_new_folder(tmp_path):
    (path,) = recovery_figures(fake(2), tmp_path / "new")
    assert path == tmp_path / "new" / "recovery.png" and list(path.parent.iterdir()) == [path]
    assert path.read_bytes().startswith(b"\x89PNG")
