"""Tables → trajectories: every kind of table, names, what is left out, and every mistake with its line."""

import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import nearopt as no
from nearopt.mdp import errors
from nearopt.records.tables import DroppedRowsWarning

FRAME = pd.DataFrame(
    dict(episode=[1, 2, 1, 1, 2], t=[1, 1, 2, 4, 2], state=[0, 5, 1, 2, np.nan], action=[1, 0, np.nan, 1, np.nan])
)
STATE, ACTION = [[0, 1, -1, 2, -1], [5, -1, -1, -1, -1]], [[1, -1, -1, 1], [0, -1, -1, -1]]
HOUSE = no.MDP.from_grid("S.G").replace(state_names=("start", "hall", "goal"))
BARE = no.MDP.from_grid("S.G")
HEAD = "episode,t,state,action\n"


def masked(frame):
    return {name: np.ma.masked_invalid(frame[name].to_numpy(float)) for name in frame}


@pytest.mark.parametrize(
    "convert",
    [
        lambda f: f,
        lambda f: f.convert_dtypes(),
        lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
        lambda f: f.astype({"state": "category"}),
        lambda f: f.astype(object).where(f.notna(), None),
        lambda f: f.astype(str),
        lambda f: f.set_index("t", drop=False),
        pl.from_pandas,
        pa.Table.from_pandas,
        lambda f: f.to_records(index=False),
        masked,
        lambda f: {name: f[name].to_numpy() for name in f},
        lambda f: {name: f[name].tolist() for name in f},
    ],
)
def test_every_kind_of_table(convert):
    recorded = no.Trajectories.from_frame(convert(FRAME))
    assert recorded.state.tolist() == STATE and recorded.action.tolist() == ACTION
    assert recorded.episode.tolist() == [1, 2] and recorded.subject is None and recorded.line is None


def test_episodes_are_numbered_within_a_subject():
    frame = dict(who=["b", "a", "b", "a"], run=[1, 1, 1, 1], k=[0, 0, 1, 1], s=[3, 4, 5, 6], a=[0, 1, 2, 3])
    names = dict(episode="run", time="k", state="s", action="a")
    recorded = no.Trajectories.from_frame(frame, **names, subject="who")
    assert recorded.subject.tolist() == ["b", "a"] and recorded.episode.tolist() == [1, 1]
    assert recorded.action.tolist() == [[0, 2], [1, 3]]
    with pytest.raises(
        errors.RecordedTimeError, match="row 1: the time of episode 1 is 0 again, as in row 0.*subject="
    ):
        no.Trajectories.from_frame(frame, **names)


# ---------------------------------------------------------------- names
def states(values, mdp):
    n = len(values)
    return no.Trajectories.from_frame(dict(episode=[0] * n, t=range(n), state=values, action=[0] * n), mdp=mdp).state[0]


def test_names_are_looked_up_as_they_are_and_as_text():
    tuples = HOUSE.replace(state_names=((0, 0), (0, 1), (1, 1)))
    numbers = HOUSE.replace(state_names=(2, 1, 0))
    assert states(["hall", " goal", None, "NA"], HOUSE)[:4].tolist() == [1, 2, -1, -1]
    assert states(["hall", "2", 0, 1.0], HOUSE)[:4].tolist() == [1, 2, 0, 1]
    assert states(["(1, 1)", "(0, 0)"], tuples)[:2].tolist() == [2, 0]
    assert states([(1, 1), (0, 0)], tuples)[:2].tolist() == [2, 0]
    lists = pa.table(dict(episode=[0, 0], t=[0, 1], state=[[1, 1], [0, 0]], action=[0, 0]))  # how Arrow keeps tuples
    assert no.Trajectories.from_frame(lists, mdp=tuples).state[0, :2].tolist() == [2, 0]
    for values in ([0, 1, 2], ["0", "1", "2"], [0.0, "1", 2], ["0.0", "1.0", "2.0"]):
        assert states(values, numbers)[:3].tolist() == [2, 1, 0]
    assert states(["NA", "x"], HOUSE.replace(state_names=("x", "NA", "y")))[:2].tolist() == [1, 0]
    with pytest.raises(errors.RecordedNumberError, match="row 0: the state 7 is not among the names"):
        states([7], numbers)
    clash = HOUSE.replace(state_names=(1, "1", "y"))  # as they are, they differ; as text they do not
    assert states(["1", "y"], clash)[:2].tolist() == [1, 2]


# ---------------------------------------------------------------- mistakes in files
MISTAKES = [
    ("empty", "", {}, errors.EmptyRecordsError, "is empty"),
    ("only blank lines", "\n\n", {}, errors.EmptyRecordsError, "is empty"),
    ("only a header", HEAD, {}, errors.EmptyRecordsError, "no rows"),
    ("no such column", "episode,t,place,action\n1,0,0,1\n", {}, errors.MissingColumnError,
     "no column 'state' among 'episode', 't', 'place', 'action'"),
    ("no such subject", HEAD + "1,0,0,1\n", dict(subject="who"), errors.MissingColumnError, "'who'"),
    ("semicolons", "episode;t;state;action\n1;0;0;1\n", {}, errors.MissingColumnError, "not by ';'"),
    ("a column twice", "episode,t,state,state,action\n1,0,0,0,1\n", {}, errors.ColumnError,
     "2 columns are called 'state'"),
    ("too short", HEAD + "1,0,0,1\n\n1,1,2\n", {}, errors.ParseError, "line 4: 3 values, the header names 4;"),
    ("too long", HEAD + "1,0,0,1,\n", {}, errors.ParseError, "line 2: 5 values"),
    ("open quote", HEAD + '1,0,0,1\n"1,1,0,1\n', {}, errors.ParseError, "line 3 cannot be read"),
    ("Latin-1", HEAD.encode() + b"1,0,0,1\n\xe9,0,0,1\n", {}, errors.ParseError, "line 3 is not UTF-8"),
    ("UTF-16", (HEAD + "1,0,0,1\n").encode("utf-16"), {}, errors.ParseError, "line 1 is not UTF-8"),
    ("null bytes", HEAD + "1,0,\0,1\n", {}, errors.ParseError, "line 2 is not UTF-8"),
    ("no episode", HEAD + "1,0,0,1\n,1,0,1\n", {}, errors.LabelError, "line 3: the episode is missing"),
    ("no subject", "who," + HEAD + ",1,0,0,1\n", dict(subject="who"), errors.LabelError,
     "line 2: the subject is missing"),
    ("no time", HEAD + "1,,0,1\n", {}, errors.RecordedTimeError, "line 2: the time is missing"),
    ("half a time", HEAD + "1,0.5,0,1\n", {}, errors.RecordedTimeError, "line 2: the time is '0.5'"),
    ("a date", HEAD + "1,2020-01-01,0,1\n", {}, errors.RecordedTimeError, "'2020-01-01'"),
    ("time backwards", HEAD + "1,0,0,1\n1,2,0,1\n2,0,0,0\n1,1,0,1\n1,2,0,1\n", {}, errors.RecordedTimeError,
     "line 5: the time of episode 1 is 1, after 2 in line 3, and 1 more row cannot be used"),
    ("time again", "who," + HEAD + "B,1,0,0,1\nC,1,0,0,1\nB,1,0,0,1\n", dict(subject="who"), errors.RecordedTimeError,
     "line 4: the time of subject B, episode 1 is 0 again, as in line 2"),
    ("time stamps", HEAD + "1,1700000000,0,1\n2,1800000000,0,1\n", {}, errors.TimeSpanError,
     "line 3: the time is 1,800,000,000"),
    ("a name without a model", HEAD + "1,0,hall,1\n1,1,hall,1\n", {}, errors.RecordedNumberError,
     "line 2: the state is 'hall', which is no number, and 1 more row cannot be used; pass mdp="),
    ("a name that is none", HEAD + "1,0,hall,1\n1,1,hell,1\n", dict(mdp=HOUSE), errors.RecordedNumberError,
     "line 3: the state 'hell' is not among the names of the model; use one of 'start', 'hall', 'goal'"),
    ("a model without names", HEAD + "1,0,hall,1\n", dict(mdp=BARE), errors.RecordedNumberError, "no state names"),
    ("half a state", HEAD + "1,0,0.5,1\n", {}, errors.RecordedNumberError, "the state is 0.5"),
    ("infinite", HEAD + "1,0,1e999,1\n", {}, errors.RecordedNumberError, "1e999"),
    ("below 0", HEAD + "1,0,0,-1\n", {}, errors.RecordedNumberError, "line 2: the action is -1; leave empty"),
    ("an underscore", HEAD + "1,0,1_0,1\n", {}, errors.RecordedNumberError, "1_0"),
    ("other digits", HEAD + "1,0,٣,1\n", {}, errors.RecordedNumberError, "٣"),
    ("no way to treat them", HEAD + "1,0,0,1\n", dict(invalid="skip"), errors.ArgumentError, "skip"),
    ("no model", HEAD + "1,0,0,1\n", dict(mdp="maze"), errors.NotAModelError, "str"),
    ("nothing left", HEAD + "1,x,0,1\n", dict(invalid="drop"), errors.RecordedTimeError, "line 2"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "error", "said"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistakes_in_files(tmp_path, text, options, error, said):
    path = tmp_path / "trials.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(no.NearoptError) as caught:
        no.Trajectories.from_csv(path, **options)
    assert type(caught.value) is error, caught.value
    assert said in str(caught.value)
    assert str(path) in caught.value.problem or "invalid" in options or error is errors.NotAModelError
    assert caught.value.mend and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "error", "said"),
    [
        ("trials.csv", errors.ColumnError, "from_csv"),
        (np.zeros((3, 4)), errors.ColumnError, "ndarray"),
        (FRAME[:0], errors.EmptyRecordsError, "no rows"),
        (pl.from_pandas(FRAME).drop("t"), errors.MissingColumnError, "no column 't' among 'episode', 'state'"),
        (pa.Table.from_pandas(FRAME).drop_columns("t"), errors.MissingColumnError, "'t' among 'episode', 'state'"),
        (FRAME[["episode", "t"]].to_records(index=False), errors.MissingColumnError, "'state' among 'episode', 't'"),
        (dict(episode=0, t=[0], state=[0], action=[0]), errors.ColumnError, "'episode' has shape ()"),
        (dict(episode=[0], t=[0, 1], state=[0], action=[0]), errors.ColumnError, "'t' has 2 rows"),
        (dict(episode=[0], t=[0], state=[{1}], action=[0]), errors.ColumnError, "column 'state' holds a set"),
        (dict(episode=[0], t=[0], state=[([1],)], action=[0]), errors.ColumnError, "column 'state' holds a tuple"),
        (FRAME.assign(t=pd.date_range("2020", periods=5)), errors.RecordedTimeError, "row 0"),
        (FRAME.assign(action=[1, -1, 1, -1, 1]), errors.RecordedNumberError, "row 1: the action is -1, and 1 more row"),
        (FRAME.assign(state=np.inf), errors.RecordedNumberError, "inf"),
        (FRAME.assign(episode=[1, 2, np.nan, 1, 1]), errors.LabelError, "row 2"),
    ],
)
def test_mistakes_in_tables(frame, error, said):
    with pytest.raises(error, match=said.replace("(", r"\(").replace(")", r"\)")):
        no.Trajectories.from_frame(frame)


def test_rows_are_dropped_with_a_warning(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text(HEAD + "1,0,0,1\n1,x,1,1\n1,1,1,1\n1,2,2\n1,0,1,1\n1,2,2,9e9\n1,3,y,0\n")
    with pytest.warns(DroppedRowsWarning) as caught:
        recorded = no.Trajectories.from_csv(path, invalid="drop")
    assert recorded.state.tolist() == [[0, 1, 2, -1]] and recorded.line.tolist() == [[2, 4, 7, -1]]
    (warning,) = caught
    assert warning.filename == __file__
    assert (warning.message.count, warning.message.rows) == (4, (3, 5, 6, 8))
    assert "4 of 7 rows dropped (line 3: the time is 'x'; line 5: 3 values" in str(warning.message)
    assert "line 6: the time of episode 1 is 0, after 1 in line 4; ...)" in str(warning.message)


def test_files_that_are_none(tmp_path):
    for path, error in ((tmp_path, errors.FileAccessError), (tmp_path / "none.csv", errors.MissingFileError)):
        for read in (no.Trajectories.from_csv, no.Trajectories.from_parquet):
            with pytest.raises(error, match=str(path)):
                read(path)
    (tmp_path / "x.csv").write_text(HEAD)
    with pytest.raises(errors.CorruptFileError, match="x.csv is no Parquet file"):
        no.Trajectories.from_parquet(tmp_path / "x.csv")


def test_parquet(tmp_path, monkeypatch):
    FRAME.assign(note="x").to_parquet(path := tmp_path / "trials.parquet")
    assert no.Trajectories.from_parquet(path) == no.Trajectories.from_frame(FRAME)
    with pytest.raises(errors.MissingColumnError, match="'act' among 'episode', 't', 'state', 'action', 'note'"):
        no.Trajectories.from_parquet(path, action="act")
    FRAME.assign(t=[0, 0, 0, 1, 1]).to_parquet(path)
    with pytest.raises(errors.RecordedTimeError, match=f"{path}: row 2: "):
        no.Trajectories.from_parquet(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(errors.MissingExtraError, match=r"nearopt\[parquet\]"):
        no.Trajectories.from_parquet(path)


# ---------------------------------------------------------------- what real tables look like
def test_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / "trials.csv"
    text = 'note, episode ,t, state,action\r\n\r\n"two\r\nlines",1,0,"0",1\r\nx, 1, 1.0, 1e+00, NaN\r\n"","2",0,3,\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    recorded = no.Trajectories.from_csv(path)
    assert recorded.state.tolist() == [[0, 1], [3, -1]] and recorded.action.tolist() == [[1], [-1]]
    assert recorded.line.tolist() == [[3, 5], [6, -1]]


def test_many_rows_in_many_chunks(tmp_path):
    rng = np.random.default_rng(0)
    state, action = rng.integers(0, 99, (40, 51)), rng.integers(0, 9, (40, 50))
    recorded = no.Trajectories(state, action, episode=rng.permutation(40))
    recorded.to_csv(path := tmp_path / "long.csv")
    again = no.Trajectories.from_csv(path)
    assert again == recorded
    np.testing.assert_array_equal(again.line, 2 + np.arange(40 * 51).reshape(40, 51))


def test_few_long_episodes_among_many_short_ones_are_refused_before_memory_runs_out():
    n = 100_000
    episode = np.r_[np.arange(n), np.zeros(n, int)]
    frame = dict(episode=episode, t=np.r_[np.zeros(n, int), 1 + np.arange(n)], state=episode * 0, action=episode * 0)
    with pytest.raises(errors.TimeSpanError, match="100,001 decisions of 100,000 episodes"):
        no.Trajectories.from_frame(frame)
