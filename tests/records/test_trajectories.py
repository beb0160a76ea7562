"""Trajectories as values: gaps, what is counted, picking, joining, equality."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupKFold, cross_val_score, train_test_split

import nearopt as no
from nearopt.mdp import errors

# decision 1 has no state, decision 2 no action; the second one begins late and ends with an action
GAPS = no.Trajectories(
    state=[[0, -1, 2, 3, 4], [-1, 1, 0, -1, -1]],
    action=[[1, 1, -1, 0], [-1, 1, 0, -1]],
    subject=["b", "a"],
    episode=[7, 8],
    line=[[2, 3, 5, 6, 9], [-1, 4, 7, -1, -1]],
)
WHOLE = no.Trajectories.from_arrays([[0, 1, 2], [0, 1]], [[1, 1], [1]])


def test_what_is_counted():
    assert GAPS.length.tolist() == [4, 3] and GAPS.num_decisions == 4
    assert WHOLE.length.tolist() == [2, 1] and WHOLE.num_decisions == 3
    assert GAPS.complete.tolist() == [False, False] and WHOLE.complete.all()
    assert (len(GAPS), GAPS.shape) == (2, (2, 4))


@pytest.mark.parametrize("state", [[[0, -1, 2]], [[-1, 1, 2]], [[0, 1, 2]]])
def test_gaps_are_refused_by_those_who_need_every_step(state):
    action = [[1, 1]] if state[0] != [0, 1, 2] else [[-1, 1]]
    with pytest.raises(errors.TrajectoryShapeError, match="step [01]; "):
        no.Trajectories.from_arrays(state, action)
    gaps = no.Trajectories(np.array(state), np.array(action))
    with pytest.raises(errors.GapError, match="step [01].*trajectories.complete"):
        no.infer(no.MDP.from_grid("S.G"), 2).log_prob(gaps)


@pytest.mark.parametrize("key", [0, -1, slice(1, None), [1, 0, 1], np.array([False, True]), (np.array([1]), ...)])
def test_rows_are_picked_as_from_an_array(key):
    picked = GAPS[key]
    rows = np.atleast_1d(np.arange(2)[key[0] if isinstance(key, tuple) else key])
    for name in ("state", "action", "subject", "episode", "line"):
        np.testing.assert_array_equal(getattr(picked, name), getattr(GAPS, name)[rows])
    assert WHOLE[key].subject is None


@pytest.mark.parametrize("key", [2, None, [[0, 1]], (0, 1), 0.5, [True]])
def test_other_keys_are_refused(key):
    with pytest.raises(IndexError):
        GAPS[key]


def test_it_runs_through_single_trajectories():
    assert [len(one) for one in GAPS] == [1, 1]


class Counts(BaseEstimator):
    def fit(self, trajectories, y=None):
        self.seen_ = sorted(trajectories.episode.tolist())
        return self

    def score(self, trajectories, y=None):
        assert not set(trajectories.episode.tolist()) & set(self.seen_)
        return trajectories.num_decisions


def test_scikit_learn_splits_them():
    ten = no.Trajectories(np.zeros((10, 3), int), np.zeros((10, 2), int), episode=np.arange(10))
    np.testing.assert_array_equal(cross_val_score(Counts(), ten, cv=5), [4.0] * 5)
    cross_val_score(Counts(), ten, groups=np.arange(10) // 4, cv=GroupKFold(3))
    train, test = train_test_split(ten, test_size=3, random_state=0)
    assert sorted([*train.episode, *test.episode]) == list(range(10)) and len(test) == 3


def test_they_are_joined_and_filled_up():
    joined = no.Trajectories.concatenate([GAPS, WHOLE])
    np.testing.assert_array_equal(joined.state[2:], [[0, 1, 2, -1, -1], [0, 1, -1, -1, -1]])
    assert joined.subject is None and joined.line is None and joined.num_decisions == 7
    twice = no.Trajectories.concatenate(iter([GAPS, GAPS]))
    assert twice.subject.tolist() == ["b", "a"] * 2 and twice.line.shape == (4, 5)
    for parts in ([], [GAPS, 3]):
        with pytest.raises(errors.TrajectoryShapeError):
            no.Trajectories.concatenate(parts)


def test_equality_is_that_of_the_tables():
    other_lines = no.Trajectories(GAPS.state, GAPS.action, GAPS.subject, GAPS.episode)
    assert other_lines == GAPS != GAPS[::-1]
    assert no.Trajectories(GAPS.state, GAPS.action) != GAPS
    assert no.Trajectories(WHOLE.state, WHOLE.action, episode=[0, 1]) == WHOLE != 3


def test_copies_stay_read_only():
    for twin in (pickle.loads(pickle.dumps(GAPS)), copy.deepcopy(GAPS)):
        assert twin == GAPS
        np.testing.assert_array_equal(twin.line, GAPS.line)
        for name in ("state", "action", "subject", "episode", "line"):
            assert not getattr(twin, name).flags.writeable


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([3, 4], [3, 4]),
        (["3", " 4"], [3, 4]),
        ([3.0, 4.0], [3, 4]),
        (["B3", 4], ["B3", "4"]),
        (["03", "4"], ["03", "4"]),
        ([0.5, 4], ["0.5", "4"]),
        (["9" * 30, "4"], ["9" * 30, "4"]),
    ],
)
def test_labels_are_whole_numbers_or_text(given, kept):
    assert no.Trajectories(WHOLE.state, WHOLE.action, subject=given).subject.tolist() == kept


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (dict(subject=["a"]), errors.TrajectoryShapeError),
        (dict(episode=[["a", "b"]]), errors.TrajectoryShapeError),
        (dict(episode=["a", None]), errors.LabelError),
        (dict(episode=["a", " "]), errors.LabelError),
        (dict(line=[1, 2]), errors.TrajectoryShapeError),
        (dict(line=[[0.5] * 3] * 2), errors.NotNumericError),
    ],
)
def test_wrong_fields(fields, error):
    with pytest.raises(error):
        no.Trajectories(WHOLE.state, WHOLE.action, **fields)
