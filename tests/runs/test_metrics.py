"""Rows of metrics: exact text, cut back exactly, never half a line."""

import os
import resource
import subprocess
import sys
import types

import numpy as np
import pytest

from nearopt.mdp.errors import MissingExtraError
from nearopt.runs.curves import read
from nearopt.runs.errors import CannotSaveError, DamagedFileError, MetricsError
from nearopt.runs.metrics import Metrics, number

ROW = {"return": -812.5, "entropy": np.float32(0.1), "episodes": 3}


def make(folder, **options):
    return Metrics(folder, **({"tensorboard": False} | options))


def test_the_text_of_the_tables(tmp_path):
    metrics = make(tmp_path / "run")
    metrics.write(1000, ROW, {"seconds": 0.5})
    metrics.write(np.int64(2000), {"episodes": np.int32(4), "return": np.nan}, {})
    metrics.write(3000, {"entropy": None, "return": -np.inf}, {"seconds": 2})
    metrics.close()
    assert (tmp_path / "run" / "metrics.csv").read_text() == (
        "step,return,entropy,episodes\n1000,-812.5,0.1,3\n2000,,,4\n3000,-inf,,\n"
    )
    assert (tmp_path / "run" / "timing.csv").read_text() == "step,seconds\n1000,0.5\n2000,\n3000,2\n"
    assert sorted(os.listdir(tmp_path / "run")) == ["metrics.csv", "timing.csv"]


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64])
def test_numbers_are_short_and_come_back(kind):
    rng = np.random.default_rng(0)
    values = [0.0, -0.0, 1.0, 0.1, 1e-5, 65504, 1e-8, np.inf, -np.inf, *np.exp(rng.normal(size=100) * 4)]
    for value in map(kind, values):
        text = number("x", value)
        assert kind(float(text)) == value and np.signbit(float(text)) == np.signbit(value)
        assert kind is np.float16 or len(text) <= len(repr(float(value)))
    assert number("x", np.float32(0.1)) == "0.1" and number("x", 1e22) == "1e+22"
    assert number("x", kind("nan")) == "" == number("x", None)
    for value in (3, np.int8(3), np.uint64(3), np.array(3)):
        assert number("x", value) == "3"
    assert number("x", 2**60 + 1) == str(2**60 + 1) and number("x", True) == "1"


@pytest.mark.parametrize("value", ["1", b"1", 1j, np.ones(1), [1], object()])
def test_what_is_no_number(tmp_path, value):
    with pytest.raises(MetricsError, match="loss is .*; give a number"):
        make(tmp_path).write(1, {"loss": value}, {})


@pytest.mark.parametrize("name", ["step", "a,b", 'a"b', "a\nb", " a", "", "a\r"])
def test_names_that_no_header_holds(tmp_path, name):
    with pytest.raises(MetricsError, match="a column is called"):
        make(tmp_path).write(1, {name: 1.0}, {})
    assert not (tmp_path / "metrics.csv").exists()


def test_a_new_column_is_refused(tmp_path):
    metrics = make(tmp_path)
    metrics.write(1, ROW, {})
    with pytest.raises(MetricsError, match="no column 'loss' but return, entropy, episodes; give it in the first row"):
        metrics.write(2, {"loss": 1.0}, {})
    metrics.close()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


# ---------------------------------------------------------------- cutting back
def test_a_resumed_run_writes_what_an_uninterrupted_one_writes(tmp_path):
    def rows(metrics, steps):
        for step in steps:
            metrics.write(step, {"return": step / 3, "loss": np.nan if step < 3 else step}, {"seconds": 1.0})

    whole = make(tmp_path / "whole")
    rows(whole, range(10))
    whole.close()
    wanted = (tmp_path / "whole" / "metrics.csv").read_bytes()
    for at in range(10):  # a checkpoint before row `at`, a kill some rows and half a line later
        folder = tmp_path / str(at)
        first = make(folder)
        rows(first, range(at))
        position = first.position()
        rows(first, range(at, min(at + 3, 10)))
        with (folder / "metrics.csv").open("ab") as file:
            file.write(b"9,0.3333")
        again = make(folder)
        again.rewind(position if at else None)
        rows(again, range(at, 10))
        again.close()
        first.close()
        assert (folder / "metrics.csv").read_bytes() == wanted
        assert len((folder / "timing.csv").read_text().splitlines()) == 11


def test_a_position_is_plain_data(tmp_path):
    metrics = make(tmp_path)
    nothing = {"bytes": 0, "columns": [], "step": -1}
    assert metrics.position() == {"metrics": nothing, "timing": nothing}
    metrics.write(np.int64(7), {"a": 1}, {})
    at = {"bytes": len("step,a\n7,1\n"), "columns": ["a"], "step": 7}
    assert metrics.position() == {"metrics": at, "timing": {"bytes": len("step\n7\n"), "columns": [], "step": 7}}
    metrics.close()
    assert make(tmp_path).position()["metrics"]["bytes"] == at["bytes"]


def test_a_position_is_on_the_disk(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    metrics = make(tmp_path)
    metrics.write(1, ROW, {"seconds": 1.0})
    flushed.clear()
    metrics.position()
    assert flushed == ["metrics.csv", "timing.csv"]
    metrics.close()


def test_a_table_that_lost_rows_is_damaged(tmp_path):
    metrics = make(tmp_path)
    metrics.write(1, ROW, {"seconds": 1.0})
    position = metrics.position()
    metrics.close()
    os.truncate(tmp_path / "timing.csv", 3)
    with pytest.raises(DamagedFileError, match="timing.csv is damaged: it has 3 bytes, and had 19 at the checkpoint"):
        make(tmp_path).rewind(position)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(DamagedFileError, match="metrics.csv is damaged: it has 0 bytes"):
        make(tmp_path).rewind(position)
    (tmp_path / "metrics.csv").write_text("step,reward,other\n" + "1" * 100)
    with pytest.raises(DamagedFileError, match="its columns are reward, other, and were return, entropy, episodes"):
        make(tmp_path).rewind(position)


# ---------------------------------------------------------------- full disks
def test_no_half_line_on_a_full_disk(tmp_path):
    metrics = make(tmp_path)
    metrics.write(1, ROW, {"seconds": 1.0})
    before = (tmp_path / "metrics.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for more in range(8):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + more, limits[1]))
            with pytest.raises(CannotSaveError, match=r"metrics.csv cannot be written \((No space|File too large)"):
                metrics.write(2, ROW, {"seconds": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / "metrics.csv").read_bytes() == before
    metrics.write(2, ROW, {"seconds": 1.0})
    metrics.close()
    assert read(tmp_path / "metrics.csv")["step"].tolist() == [1, 2]


def test_a_place_that_takes_no_table(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotSaveError):
        make(tmp_path / "file").write(1, ROW, {})
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(CannotSaveError):
        make(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("")
    metrics = Metrics(tmp_path / "run")
    with pytest.raises(CannotSaveError, match="tensorboard cannot be written"):
        metrics.write(1, ROW, {})
    metrics.close()


# ---------------------------------------------------------------- others' formats
def events(folder):
    """(step, tag, value) of every event file in the order TensorBoard reads them, hidden ones left out."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            if event.session_log.status == SessionLog.START:
                shown = [one for one in shown if one[0] < event.step]
            shown += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return shown


def test_tensorboard_shows_each_row_once(tmp_path):
    metrics = Metrics(tmp_path)
    metrics.write(0, {"loss": 0.0, "return": np.nan}, {"seconds": 1.0})
    metrics.write(10, {"loss": 5.0}, {"seconds": 1.0})
    position = metrics.position()
    metrics.write(20, {"loss": 10.0}, {"seconds": 1.0})
    again = Metrics(tmp_path)  # without having closed the first: it was killed
    again.rewind(position)
    again.write(20, {"loss": 7.0}, {"seconds": 2.0})
    again.close()
    assert events(tmp_path / "tensorboard") == [
        (0, "loss", 0.0),
        (0, "timing/seconds", 1.0),
        (10, "loss", 5.0),
        (10, "timing/seconds", 1.0),
        (20, "loss", 7.0),
        (20, "timing/seconds", 2.0),
    ]
    metrics.rewind()
    metrics.write(0, {"loss": 1.0}, {})
    metrics.close()
    assert events(tmp_path / "tensorboard") == [(0, "loss", 1.0)]


def test_weights_and_biases_when_asked(tmp_path, monkeypatch):
    logged = []
    run = types.SimpleNamespace(log=lambda row, step: logged.append((step, row)), finish=lambda: logged.append("end"))
    fake = types.SimpleNamespace(init=lambda **given: logged.append(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    metrics = make(tmp_path, wandb="pendulum")
    metrics.write(5, {"return": -1.0, "loss": np.nan}, {"seconds": 1})
    metrics.close()
    assert logged == [
        {"project": "pendulum", "dir": str(tmp_path), "resume": "auto"},
        (5, {"return": -1.0, "timing/seconds": 1.0}),
        "end",
    ]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r'pip install "nearopt\[wandb\]"'):
        make(tmp_path, wandb="pendulum")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, nearopt.runs.checkpoints, nearopt.runs.metrics, nearopt.runs.directory, nearopt.runs.curves\n"
        "print(sorted({'jax', 'tensorboardX', 'wandb', 'safetensors', 'gymnasium'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
