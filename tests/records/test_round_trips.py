"""What is written is read back as it was."""

import os

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

import nearopt as no
from nearopt.mdp import errors

LABEL = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=5).filter(lambda text: text.strip())


@st.composite
def recordings(draw):
    """Trajectories with gaps anywhere, labelled or not."""
    n, length = draw(st.integers(1, 4)), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    full = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    state = np.where(rng.random((n, length + 1)) < full, rng.integers(0, 9, (n, length + 1)), -1)
    action = np.where(rng.random((n, length)) < full, rng.integers(0, 9, (n, length)), -1)
    labels = st.lists(st.one_of(LABEL, st.integers(-9, 9)), min_size=n, max_size=n, unique_by=lambda x: str(x).strip())
    subject = draw(st.none() | st.lists(LABEL, min_size=n, max_size=n))
    return no.Trajectories(state, action, subject, draw(st.none() | labels))


def read_back(read, source, trajectories):
    return read(source, subject=None if trajectories.subject is None else "subject")


@settings(deadline=None, max_examples=60)
@given(recordings())
def test_csv_gives_back_what_was_written(tmp_path_factory, trajectories):
    path = tmp_path_factory.mktemp("x") / "trials.csv"
    trajectories.to_csv(path)
    again = read_back(no.Trajectories.from_csv, path, trajectories)
    assert again == trajectories


@settings(deadline=None, max_examples=60)
@given(recordings())
def test_frames_give_back_what_was_written(trajectories):
    columns = trajectories.columns()
    for frame in (columns, pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns)):
        assert read_back(no.Trajectories.from_frame, frame, trajectories) == trajectories


def test_the_file_is_plain(tmp_path):
    recorded = no.Trajectories([[0, -1, 2], [3, 4, -1]], [[1, -1], [0, 2]], subject=["a", "b,c"], episode=[1, 1])
    recorded.to_csv(tmp_path / "x.csv")
    rows = ["subject,episode,t,state,action", "a,1,0,0,1", "a,1,2,2,", '"b,c",1,0,3,0', '"b,c",1,1,4,2']
    assert (tmp_path / "x.csv").read_text() == "\n".join([*rows, ""])
    assert os.listdir(tmp_path) == ["x.csv"]


def test_sampled_trajectories_come_back(tmp_path):
    sampled = no.infer(no.MDP.from_grid("S..G", slip=0.2), 6, temperature=3.0).sample(20, seed=0)
    sampled.to_csv(tmp_path / "x.csv")
    assert no.Trajectories.from_csv(tmp_path / "x.csv") == sampled


def test_what_cannot_be_written(tmp_path):
    recorded = no.Trajectories.from_arrays([[0, 1], [0, 1]], [[1], [1]])
    twice = no.Trajectories.concatenate([no.Trajectories(recorded.state, recorded.action, episode=[4, 5])] * 2)
    with pytest.raises(errors.LabelError, match="trajectory 2 is episode 4, and so is an earlier one"):
        twice.to_csv(tmp_path / "x.csv")
    with pytest.raises(errors.MissingFileError, match="none"):
        recorded.to_csv(tmp_path / "none" / "x.csv")
    with pytest.raises(errors.FileAccessError):
        recorded.to_csv(tmp_path)
    assert os.listdir(tmp_path) == []
