"""Minari datasets, in a folder of the test's own."""

import sys
import warnings

import numpy as np
import pytest

import nearopt as no
from nearopt.mdp import errors

minari = pytest.importorskip("minari")
from gymnasium.spaces import Box, Discrete  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402

MAZE = no.MDP.from_grid("S..G", slip=0.1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def create(name, observations, actions, **spaces):
    flags = np.zeros(len(actions), bool)
    buffer = EpisodeBuffer(
        observations=observations, actions=actions, rewards=flags * 1.0, terminations=flags, truncations=flags
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(name, [buffer], data_format="arrow", **spaces)


def test_a_dataset_gives_back_what_was_written():
    sampled = no.infer(MAZE, 5, temperature=2.0).sample(20, seed=0)
    dataset = sampled.to_minari(MAZE, "maze/mice-v0", author="somebody")
    assert no.Trajectories.from_minari(dataset) == no.Trajectories.from_minari("maze/mice-v0") == sampled
    ended = MAZE.terminal[sampled.state[np.arange(20), sampled.length]]
    assert 0 < ended.sum() < 20
    for episode, steps, over in zip(dataset, sampled.length, ended, strict=True):
        last = np.arange(steps) == steps - 1
        np.testing.assert_array_equal(episode.terminations, last & over)
        np.testing.assert_array_equal(episode.truncations, last & ~over)
        np.testing.assert_array_equal(episode.rewards, np.full(steps, -1.0))
    assert (dataset.observation_space, dataset.action_space) == (Discrete(4), Discrete(4))


def test_rewards_of_transitions():
    mdp = no.MDP.from_grid("S.G", goal_reward=5.0)
    dataset = no.Trajectories.from_arrays([[0, 0, 1, 2]], [[3, 1, 1]]).to_minari(mdp, "maze-v0")
    np.testing.assert_array_equal(dataset[0].rewards, [-1.0, -1.0, 4.0])
    two = no.MDP([0, 1], [0], [0, 2], [0.5, 0.5], [0, 0], [1.0, 2.0], [1.0], 1)
    with pytest.raises(errors.AmbiguousRewardError, match="state 0, action 0 reaches state 0 with several rewards"):
        no.Trajectories.from_arrays([[0, 0]], [[0]]).to_minari(two, "two-v0")


def test_spaces_that_start_elsewhere():
    spaces = dict(observation_space=Discrete(3, start=3), action_space=Discrete(2, start=1))
    recorded = no.Trajectories.from_minari(create("off-v0", np.array([3, 4, 5]), np.array([1, 2]), **spaces))
    assert recorded.state.tolist() == [[0, 1, 2]] and recorded.action.tolist() == [[0, 1]]


record = no.Trajectories.from_arrays
FINE = record([[0, 1]], [[1]])
WRITTEN = [
    ("a gap", no.Trajectories([[0, -1, 1]], [[1, 1]]), "x-v0", {}, errors.GapError, "step 1"),
    ("no last state", record([[0, 1]], [[1, 1]]), "x-v0", {}, errors.GapError, "ends with an action"),
    ("no decisions", record([[0, 1], [0]], [[1], []]), "x-v0", {}, errors.GapError, "trajectory 1"),
    ("a misfit", record([[0, 3]], [[1]]), "x-v0", {}, errors.MisfitError, "state 3"),
    ("none", FINE[:0], "x-v0", {}, errors.EmptyRecordsError, "no trajectories"),
    ("no version", FINE, "mice", {}, errors.DatasetError, "'mice' has no version"),
    ("a wrong id", FINE, "mi ce-v0", {}, errors.DatasetError, "Malformed"),
    ("a wrong keyword", FINE, "x-v0", dict(autor="me"), errors.DatasetError, "autor"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("recorded", "name", "metadata", "error", "said"), [m[1:] for m in WRITTEN], ids=[m[0] for m in WRITTEN]
)
def test_what_cannot_be_written(recorded, name, metadata, error, said):
    with pytest.raises(error, match=said):
        recorded.to_minari(MAZE, name, **metadata)


def test_nothing_is_overwritten():
    FINE.to_minari(MAZE, "x-v0")
    with pytest.raises(errors.DatasetError, match="already exists"):
        FINE.to_minari(MAZE, "x-v0")


def test_what_cannot_be_read(monkeypatch):
    boxes = create(
        "box-v0",
        np.zeros((2, 1), np.float32),
        np.array([1]),
        observation_space=Box(0, 1, (1,)),
        action_space=Discrete(2),
    )
    empty = FINE.to_minari(MAZE, "x-v0").filter_episodes(lambda episode: False)
    for given, error, said in (
        (boxes, errors.DatasetError, "box-v0: its observations are Box"),
        (empty, errors.EmptyRecordsError, "x-v0 has no episodes"),
        ("none-v0", errors.MissingFileError, "no local Minari dataset 'none-v0'"),
        (3, errors.DatasetError, "int"),
    ):
        with pytest.raises(error, match=said):
            no.Trajectories.from_minari(given)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(errors.MissingExtraError, match=r"nearopt\[minari\]"):
        no.Trajectories.from_minari("x-v0")
