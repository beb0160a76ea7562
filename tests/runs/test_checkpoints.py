"""Checkpoints against a list of all rows ever inserted."""

import json
import tracemalloc

import numpy as np
import pytest

from nearopt.mdp.errors import FileAccessError
from nearopt.runs import checkpoints as module
from nearopt.runs import tensors
from nearopt.runs.checkpoints import Checkpoints
from nearopt.runs.errors import CannotSaveError, DamagedFileError, ReplayError, UnsaveableError
from tests.runs.samples import FACTS, TENSORS, rows, same


def write(folder, step, first, end, keep):
    Checkpoints(folder).write(step, {"step": np.array(step)}, {"step": step}, rows(first, end), first, keep)


def change(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def chunks(folder):
    return sorted(path.name for path in folder.glob("replay-*"))


# ---------------------------------------------------------------- what comes back
def test_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none").latest() is None
    assert Checkpoints(tmp_path).latest() is None


def test_all_of_it_comes_back(tmp_path):
    Checkpoints(tmp_path / "run" / "checkpoints").write(7, TENSORS, FACTS, rows(0, 5), 0, 2)
    found = Checkpoints(tmp_path / "run" / "checkpoints").latest()
    assert (found.step, found.facts, found.first, found.warning) == (7, FACTS, 2, None)
    assert same(found.tensors, TENSORS) and same(found.rows, rows(2, 5))
    assert all(array.flags.writeable for array in found.rows.values())


@pytest.mark.parametrize("seed", range(5))
def test_a_ring_buffer_over_many_checkpoints(tmp_path, monkeypatch, seed):
    """Random numbers of new rows, none and more than the buffer holds among them; small files, so that all is cut."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 200)  # 9 rows
    rng = np.random.default_rng(seed)
    capacity, end, saved, written = 25, 0, 0, []
    for step in range(1, 15):
        end += int(rng.choice([0, 1, 8, 9, 10, 30, 70]))
        keep = max(0, end - capacity)
        first = max(saved, keep) if step % 2 else saved  # rows that are overwritten already may be left out
        given = rows(first, end) if first < end or step % 3 else {}
        Checkpoints(tmp_path).write(step, {}, {}, given, first, keep)
        saved, written = end, [*written[-1:], (step, keep, end)]
        for step, keep, end in written:
            found = Checkpoints(tmp_path).latest(at_most=step)
            assert (found.step, found.first) == (step, keep)
            assert same(found.rows, rows(keep, end)) or found.rows == {} == given
        edges = [tuple(map(int, name[7:-12].split("-"))) for name in chunks(tmp_path)]
        oldest = written[0][1]
        assert all(stop > oldest and stop - start <= 9 for start, stop in edges)
        assert len(list(tmp_path.iterdir())) == len(edges) + len(written)
    assert Checkpoints(tmp_path).latest(at_most=0) is None


def test_rows_are_written_once(tmp_path):
    write(tmp_path, 1, 0, 1000, 0)
    before = (tmp_path / "replay-0-1000.safetensors").stat()
    write(tmp_path, 2, 1000, 1010, 0)
    assert (tmp_path / "replay-0-1000.safetensors").stat() == before
    assert chunks(tmp_path) == ["replay-0-1000.safetensors", "replay-1000-1010.safetensors"]


def test_without_a_replay_buffer(tmp_path):
    for step in range(4):
        Checkpoints(tmp_path).write(step, TENSORS, {"step": step}, {}, 0, 0)
    found = Checkpoints(tmp_path).latest()
    assert found.facts == {"step": 3} and found.rows == {} and found.first == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_buffer_has_its_columns(tmp_path):
    write(tmp_path, 0, 0, 0, 0)
    assert same(Checkpoints(tmp_path).latest().rows, rows(0, 0))
    write(tmp_path, 1, 0, 3, 0)
    assert same(Checkpoints(tmp_path).latest().rows, rows(0, 3))


def test_files_of_others_stay(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    (tmp_path / "step-000000000009").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReplayError, match="no checkpoint"):
        write(tmp_path, 1, 0, 3, 0)
    (tmp_path / "step-000000000009").rename(tmp_path / ".step-000000000009")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-5").mkdir()
    write(tmp_path, 1, 0, 3, 0)
    write(tmp_path, 2, 3, 6, 0)
    write(tmp_path, 3, 6, 9, 0)
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "step-5").is_dir()
    assert (tmp_path / "elsewhere" / "precious").exists() and not (tmp_path / ".step-000000000009").is_symlink()


def test_what_a_killed_removal_left_is_removed(tmp_path):
    write(tmp_path, 1, 0, 3, 0)
    write(tmp_path, 2, 3, 6, 0)
    (tmp_path / ".step-000000000001").mkdir()
    (tmp_path / ".step-000000000001" / "checkpoint.json").write_text("")
    (tmp_path / "replay-77-99.safetensors").write_text("")
    write(tmp_path, 3, 6, 9, 0)
    assert sorted(path.name for path in tmp_path.glob("*step*")) == ["step-000000000002", "step-000000000003"]
    assert len(chunks(tmp_path)) == 3


# ---------------------------------------------------------------- damage, and other processes
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    write(tmp_path, 1, 0, 5, 0)
    write(tmp_path, 2, 5, 8, 0)
    change(tmp_path / "replay-5-8.safetensors")
    found = Checkpoints(tmp_path).latest()
    assert found.step == 1 and same(found.rows, rows(0, 5))
    assert found.warning == (
        f"{tmp_path}/replay-5-8.safetensors is damaged: it is not the file that the checkpoint describes; "
        "the run goes on from step 1."
    )
    change(tmp_path / "step-000000000001" / "checkpoint.json")
    with pytest.raises(DamagedFileError, match="no checkpoint that is whole: .*replay-5-8.*; restore it from a copy"):
        Checkpoints(tmp_path).latest()


def test_a_checkpoint_under_another_name_is_damaged(tmp_path):
    write(tmp_path, 1, 0, 5, 0)
    (tmp_path / "step-000000000001").rename(tmp_path / "step-000000000009")
    with pytest.raises(DamagedFileError, match="does not describe a checkpoint of step 9"):
        Checkpoints(tmp_path).latest()


@pytest.mark.parametrize("victim", ["checkpoint.json", "checkpoint.safetensors", "../replay-5-8.safetensors"])
def test_a_missing_file_is_damage(tmp_path, victim):
    write(tmp_path, 1, 0, 5, 0)
    write(tmp_path, 2, 5, 8, 0)
    (tmp_path / "step-000000000002" / victim).unlink()
    found = Checkpoints(tmp_path).latest()
    assert found.step == 1 and found.warning


def test_an_older_checkpoint_may_be_gone_on_from(tmp_path):
    """Several seeds in step: one was killed before the others, so these go back, past a checkpoint that is whole."""
    for step in (1, 2):
        write(tmp_path, step, 5 * step - 5, 5 * step, 0)
    assert Checkpoints(tmp_path).latest(at_most=1).step == 1
    Checkpoints(tmp_path).write(3, {}, {}, rows(5, 9, 0.5), 5, 0)
    found = Checkpoints(tmp_path).latest()
    assert found.step == 3
    assert same({"reward": found.rows["reward"]}, {"reward": np.r_[np.arange(5.0), np.arange(5.5, 9)]})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "replay-0-5.safetensors",
        "replay-5-9.safetensors",
        "step-000000000001",
        "step-000000000003",
    ]


def test_the_rows_of_two_processes_are_never_mixed(tmp_path):
    write(tmp_path, 1, 0, 5, 0)
    write(tmp_path, 2, 5, 8, 0)
    change(tmp_path / "step-000000000002" / "checkpoint.safetensors")
    Checkpoints(tmp_path).write(2, {}, {}, rows(5, 8, 0.5), 5, 5)  # the same file names as the killed process
    assert same(Checkpoints(tmp_path).latest().rows, rows(5, 8, 0.5))


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("step", "given", "first", "keep", "words"),
    [
        (3, rows(7, 9), 7, 0, "of the rows 0 to 8 some were never given"),
        (3, rows(4, 9), 4, 0, "comes before step 3, row 4"),
        (0, rows(5, 9), 5, 0, "comes before step 0, row 5"),
        (3, rows(5, 9), 5, 10, "of the rows 10 to 8"),
        (3, rows(5, 9) | {"reward": np.ones(3)}, 5, 0, "have 3 and 4 rows"),
        (3, rows(5, 9) | {"reward": np.ones(4, np.float32)}, 5, 0, "float32"),
        (3, {"reward": np.ones(4)}, 5, 0, "keep their names"),
        (3, rows(5, 9) | {"reward": np.ones((4, 1))}, 5, 0, "keep their names"),
    ],
)
def test_rows_that_do_not_fit(tmp_path, step, given, first, keep, words):
    write(tmp_path, 1, 0, 5, 0)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReplayError, match=words):
        Checkpoints(tmp_path).write(step, {}, {}, given, first, keep)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_saved(tmp_path, monkeypatch):
    write(tmp_path, 1, 0, 5, 0)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnsaveableError, match="nan"):
        Checkpoints(tmp_path).write(2, {}, {"a": np.nan}, rows(5, 9), 5, 0)
    with pytest.raises(UnsaveableError, match="<U1"):
        Checkpoints(tmp_path).write(2, {}, {}, {"a": np.array(["x"])}, 5, 0)
    (tmp_path / ".step-000000000002").write_text("")
    with pytest.raises(CannotSaveError, match="step-000000000002"):
        write(tmp_path, 2, 5, 9, 0)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotSaveError):
        write(tmp_path / "file", 1, 0, 5, 0)

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, "listdir", refuse)
    with pytest.raises(FileAccessError, match="Permission denied"):
        Checkpoints(tmp_path).latest()


def test_a_list_of_files_is_believed_in_nothing(tmp_path):
    """JSON with a right checksum and wrong claims: nothing is allocated, and no path leaves the folder."""
    write(tmp_path, 1, 0, 5, 2)
    home = tmp_path / "step-000000000001"
    good = tensors.load(home, "checkpoint")[1]
    chunk = good["replay"]["chunks"][0]

    def claims():
        huge = 1 << 50
        yield {"replay": None}, {}
        yield {"facts": []}, {}
        for step in (True, 2, "1", -1, None):
            yield {}, {"step": step}
        for first, end in ((2, huge), (huge, huge), (6, 5), (-1, 5), (5, 5), (2, 4), (2.0, 5)):
            yield {}, {"first": first, "end": end}
        for wrong in (
            {"end": huge},
            {"end": 6},
            {"bytes": 0},
            {"bytes": huge},
            {"sha256": "../../x"},
            {"sha256": None},
            {"first": "../../etc/x"},
            {"first": 3},
            {"first": None},
        ):
            yield {}, {"chunks": [chunk | wrong]}
        yield {}, {"chunks": [chunk | {"end": huge}], "end": huge}
        yield {}, {"chunks": [chunk, chunk]}
        yield {}, {"chunks": []}
        yield {}, {"chunks": [[]]}
        yield {}, {"chunks": {}}
        for columns in (
            {},
            [],
            {"reward": ["float64", []]},
            good["replay"]["columns"] | {"reward": ["float64", [huge]]},
            good["replay"]["columns"] | {"reward": ["float32", []]},
            good["replay"]["columns"] | {"reward": ["object", []]},
            good["replay"]["columns"] | {"reward": [["float64"], []]},
            good["replay"]["columns"] | {"more": ["float64", [0, huge, huge]]},
            good["replay"]["columns"] | {"more": ["float64", [0]]},
            good["replay"]["columns"] | {"more": ["float64", [-1]]},
        ):
            yield {}, {"columns": columns}

    tracemalloc.start()
    for number, (facts, replay) in enumerate(claims()):
        document = good | {"replay": good["replay"] | replay} | facts
        tensors.save(home, "checkpoint", {"step": np.array(1)}, json.loads(json.dumps(document)))
        with pytest.raises(DamagedFileError):
            pytest.fail(f"claim {number} is believed: {Checkpoints(tmp_path).latest()}")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    tensors.save(home, "checkpoint", {"step": np.array(1)}, good)
    assert same(Checkpoints(tmp_path).latest().rows, rows(2, 5))


def test_memory_and_time_of_a_large_buffer(tmp_path):
    """A tenth of 10⁶ HalfCheetah transitions: loading takes little more memory than the rows themselves."""
    count, step = 100_000, 5_000
    shapes = {"observation": (17,), "action": (6,), "reward": (), "next_observation": (17,), "terminated": ()}
    rng = np.random.default_rng(0)
    data = {name: rng.random((count, *shape), np.float32) for name, shape in shapes.items()}
    data["terminated"] = data["terminated"] < 0.01
    for first in range(0, count, step):
        part = {name: array[first : first + step] for name, array in data.items()}
        Checkpoints(tmp_path).write(first + step, {}, {}, part, first, 0)
    tracemalloc.start()
    found = Checkpoints(tmp_path).latest()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert same(found.rows, data)
    assert peak < 1.3 * sum(array.nbytes for array in data.values())
