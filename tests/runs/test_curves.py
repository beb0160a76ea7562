"""Learning curves against SciPy, and against the definition written out."""

import numpy as np
import pytest
import scipy.stats

from nearopt.mdp.errors import MissingFileError
from nearopt.runs.curves import bootstrap_interval, curve, interquartile_mean, read
from nearopt.runs.errors import CurveError, DamagedFileError
from nearopt.runs.metrics import Metrics


def table(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.csv").write_text(text)
    return folder


# ---------------------------------------------------------------- reading
def test_what_metrics_writes_can_be_read(tmp_path):
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.write(1, {"return": -1.5, "loss": np.nan, "n": 3}, {})
    metrics.write(2, {"return": np.inf, "loss": 1e-300}, {})
    metrics.close()
    found = read(tmp_path / "metrics.csv")
    assert list(found) == ["step", "return", "loss", "n"] and all(x.dtype == np.float64 for x in found.values())
    np.testing.assert_array_equal(found["return"], [-1.5, np.inf])
    np.testing.assert_array_equal(found["loss"], [np.nan, 1e-300])
    np.testing.assert_array_equal(found["n"], [3, np.nan])


def test_a_line_that_is_being_written_is_not_there_yet(tmp_path):
    assert read(table(tmp_path, "step,a\n1,2\n2,34") / "metrics.csv")["a"].tolist() == [2]
    assert read(table(tmp_path, "step,a\n") / "metrics.csv")["a"].shape == (0,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: the header"),
        ("step,a", "line 1"),
        ("a,step\n1,2\n", "line 1"),
        ("step,a,a\n1,2,3\n", "line 1"),
        ("step,a\n1,2\n3\n", "line 3: 1 cells, and the header has 2"),
        ("step,a\n1,2\n3,4,5\n", "line 3: 3 cells"),
        ("step,a\n1,2\n\n3,4\n", "line 3"),
        ("step,a\n1,x\n", "line 2: '1,x' is no row of numbers"),
        ("step,a\n1,1_0\n", "line 2"),
        ("step,a\n1,2\n5,2\n4,2\n", "line 4: its step is empty, infinite or comes before"),
        ("step,a\n1,2\n,2\n", "line 3: its step is empty"),
    ],
)
def test_a_damaged_table(tmp_path, text, words):
    with pytest.raises(DamagedFileError, match=f"metrics.csv, {words}"):
        read(table(tmp_path, text) / "metrics.csv")


def test_no_table(tmp_path):
    with pytest.raises(MissingFileError, match="metrics.csv"):
        read(tmp_path / "metrics.csv")
    with pytest.raises(DamagedFileError, match="not a regular file"):
        read(tmp_path)
    (tmp_path / "metrics.csv").write_bytes(b"step,\xff\n")
    with pytest.raises(DamagedFileError, match="UTF-8"):
        read(tmp_path / "metrics.csv")


# ---------------------------------------------------------------- statistics
@pytest.mark.parametrize("size", range(1, 24))
def test_the_interquartile_mean_is_scipys_trimmed_mean(size):
    x = np.random.default_rng(size).normal(size=(size, 3))
    np.testing.assert_allclose(interquartile_mean(x), scipy.stats.trim_mean(x, 0.25, axis=0), rtol=1e-14)
    np.testing.assert_allclose(interquartile_mean(x, axis=1), scipy.stats.trim_mean(x, 0.25, axis=1), rtol=1e-14)
    np.testing.assert_allclose(interquartile_mean(x, axis=None), scipy.stats.trim_mean(x, 0.25, axis=None), rtol=1e-14)


def test_the_interval_is_the_one_of_all_resamples():
    """Three seeds have 27 resamples, all equally probable: the exact quantiles of the mean."""
    scores = np.array([[0.0, 5.0], [1.0, 5.0], [9.0, 5.0]])
    grid = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
    means = scores[grid].mean(axis=1)
    exact = np.quantile(means, [0.2, 0.8], axis=0, method="inverted_cdf")
    low, high = bootstrap_interval(scores, statistic=np.mean, level=0.6, resamples=20_000)
    np.testing.assert_allclose([low, high], exact, atol=1e-12)
    assert low[1] == high[1] == 5.0


def test_runs_are_drawn_whole_and_repeatably():
    scores = np.random.default_rng(0).normal(size=(15, 1)) + np.zeros(4)
    low, high = bootstrap_interval(scores, resamples=300)
    assert np.ptp(low) == np.ptp(high) == 0 and low[0] < high[0]  # equal points, equal draws
    np.testing.assert_array_equal(bootstrap_interval(scores, resamples=300), (low, high))
    assert not np.array_equal(bootstrap_interval(scores, resamples=300, seed=1), (low, high))


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(size=(20, 1)), statistic=np.mean, resamples=200)
        hits += low[0] <= 0 <= high[0]
    assert 0.88 <= hits / 200 <= 0.98  # a percentile interval of 20 runs is a little too narrow


# ---------------------------------------------------------------- curves
def test_a_run_counts_with_its_last_value(tmp_path):
    first = table(tmp_path / "0", "step,return\n0,\n10,1\n20,3\n20,4\n40,9\n")
    second = table(tmp_path / "1", "step,return\n4,2\n30,6\n35,\n36,8\n")
    found = curve([first, str(second)], points=27)
    np.testing.assert_array_equal(found.step, np.arange(10, 37))  # from the later start to the earlier end
    np.testing.assert_array_equal(found.runs[0], np.where(found.step < 20, 1, 4))
    np.testing.assert_array_equal(found.runs[1], np.select([found.step < 30, found.step < 36], [2, 6], 8))
    np.testing.assert_array_equal(found.iqm, interquartile_mean(found.runs))
    assert (found.low <= found.iqm).all() and (found.iqm <= found.high).all()
    np.testing.assert_array_equal((found.low, found.high), bootstrap_interval(found.runs))


def test_one_run_has_an_interval_without_width(tmp_path):
    found = curve([table(tmp_path, "step,return\n0,1\n10,2\n")])
    assert found.step.shape == (200,) and (found.low == found.high).all() and found.iqm[-1] == 2


def test_what_is_no_curve(tmp_path):
    early, late = table(tmp_path / "0", "step,return\n0,1\n5,1\n"), table(tmp_path / "1", "step,return,a\n6,1,\n")
    for runs, column, words in (
        ([], "return", "no runs are given"),
        ([early], "loss", "no column 'loss'; choose from step, return"),
        ([late], "a", "the column 'a' of .* is empty"),
        ([early, late], "return", "no step in common: one begins at 6, one ends at 5"),
    ):
        with pytest.raises(CurveError, match=words):
            curve(runs, column=column)
