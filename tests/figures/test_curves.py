"""Learning curves, looked at through the objects that matplotlib draws."""

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure

from nearopt.figures import curves_page, draw_curves, save_curves
from nearopt.figures.canvas import COLOURS
from nearopt.figures.curves import UNITS
from nearopt.runs.curves import Curve
from tests.figures.test_pages import assert_readable, words


def curve(seeds, points=4, shift=0.0):
    runs = shift + np.arange(points) + np.arange(seeds)[:, None] ** 2
    return Curve(1_000.0 * (1 + np.arange(points)), runs, runs.mean(axis=0), runs.min(axis=0) + 0.5, runs.max(axis=0))


def drawn(curves, column="return"):
    ax = Figure().subplots()
    draw_curves(curves, column, ax=ax)
    return ax


def test_several_seeds_are_a_line_a_band_and_thin_lines():
    given = curve(3)
    ax = drawn({"SAC": given})
    thick = [line for line in ax.lines if line.get_label() == "SAC"]
    thin = [line for line in ax.lines if line not in thick]
    assert len(thick) == 1 and len(thin) == 3
    np.testing.assert_array_equal(thick[0].get_xydata(), np.stack([given.step, given.iqm], axis=1))
    for line, run in zip(thin, given.runs, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), run)
        assert line.get_linewidth() < thick[0].get_linewidth() and line.get_alpha() == 0.35
    (band,) = ax.collections
    edge = {(x, y) for x, y in np.asarray(band.get_paths()[0].vertices)}
    assert {*zip(given.step, given.low, strict=True), *zip(given.step, given.high, strict=True)} <= edge
    assert thick[0].get_zorder() > thin[0].get_zorder() > band.get_zorder()


def test_many_seeds_are_not_drawn_one_by_one():
    ax = drawn({"SAC": curve(11)})
    assert len(ax.lines) == 1 and len(ax.collections) == 1


def test_one_seed_is_a_line_and_nothing_else():
    ax = drawn({"SAC": curve(1)})
    assert len(ax.lines) == 1 and not ax.collections
    assert ax.lines[0].get_marker() in ("", "None")
    assert drawn({"SAC": curve(1, points=1)}).lines[0].get_marker() == "o"  # else there would be nothing to see


def test_each_label_has_a_colour_or_a_style_of_its_own():
    ax = drawn({str(number): curve(1, shift=number) for number in range(20)})
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 20 and ax.lines[0].get_color() == COLOURS[0]


def test_band_and_thin_lines_have_the_colour_of_their_line():
    ax = drawn({"a": curve(2), "b": curve(2, shift=9)})
    colours = [matplotlib.colors.to_rgb(band.get_facecolor()[0]) for band in ax.collections]
    assert colours == [matplotlib.colors.to_rgb(colour) for colour in COLOURS[:2]]
    assert [line.get_color() for line in ax.lines] == [COLOURS[0]] * 3 + [COLOURS[1]] * 3


def test_axes_say_what_they_show():
    page = curves_page({name: {"SAC on Pendulum-v1": curve(2)} for name in ("soft_return", "entropy", "other_loss")})
    page.canvas.draw()
    assert [ax.get_ylabel() for ax in page.axes] == [UNITS["soft_return"], UNITS["entropy"], "other_loss"]
    assert [ax.get_xlabel() for ax in page.axes] == ["", "", "steps in the environment"]
    ticks = [label.get_text() for label in page.axes[-1].get_xticklabels()]
    assert "1 k" in ticks and "4 k" in ticks
    (legend,) = page.legends
    assert [text.get_text() for text in legend.get_texts()] == ["SAC on Pendulum-v1"]
    (body,) = page.subfigs
    assert "interquartile mean over seeds" in body.get_suptitle()


def test_one_run_is_not_called_a_mean():
    (body,) = curves_page({"return": {"SAC": curve(1)}}).subfigs
    assert "seeds" not in body.get_suptitle()


def test_no_text_covers_another_or_leaves_the_page():
    labels = [f"DiscreteSAC on LunarLander-v3: runs/{name}" for name in ("a$b$c", "日本", "lander", 30 * "very/long/")]
    many = [f"DiscreteSAC on LunarLander-v3: runs/lander-{number}" for number in range(9)]
    for chosen in (labels, many, ["SAC", "SoftDQN"]):
        for columns in (["return"], ["return", "soft_return", "entropy"]):
            page = curves_page({name: {label: curve(2) for label in chosen} for name in columns})
            assert_readable(page)
    assert r"a\$b\$c" in words(curves_page({"return": {labels[0]: curve(1)}}))  # no formula


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_files_are_whole_and_the_same_each_time(tmp_path, name):
    first = save_curves(curves_page({"return": {"SAC": curve(3)}}), tmp_path / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert b"<svg" in first if name.endswith("svg") else first.startswith(b"\x89PNG")
    assert save_curves(curves_page({"return": {"SAC": curve(3)}}), str(tmp_path / name)).read_bytes() == first


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    page, path = curves_page({"return": {"SAC": curve(3)}}), tmp_path / "a.svg"
    path.write_text("old")

    def fail(part, **_):
        part.write_text("half")
        raise OSError("full")

    page.savefig = fail
    with pytest.raises(OSError, match="full"):
        save_curves(page, path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
