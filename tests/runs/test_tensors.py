"""Arrays and facts come back bit for bit, or not at all."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from nearopt.mdp.errors import FileAccessError, MissingFileError
from nearopt.runs import tensors
from nearopt.runs.errors import CannotSaveError, DamagedFileError, UnsaveableError
from nearopt.runs.manifest import LIMIT
from nearopt.runs.tensors import load, save
from tests.runs.samples import FACTS, TENSORS, same

BOTH = ["agent.json", "agent.safetensors"]
TYPES = ["bool", "float16", "float32", "float64", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))]


def listing(folder):
    return sorted(os.listdir(folder))


# ---------------------------------------------------------------- there and back
def test_arrays_and_facts_come_back(tmp_path):
    save(tmp_path / "new" / "agent", "agent", TENSORS, FACTS)
    arrays, facts = load(tmp_path / "new" / "agent", "agent")
    assert same(arrays, TENSORS) and facts == FACTS and list(facts["list"]) == [1.5, 0.0, None, True]
    assert str(facts["list"][1]) == "-0.0" and type(facts["list"][3]) is bool
    assert all(array.flags.writeable for array in arrays.values())
    assert listing(tmp_path / "new" / "agent") == BOTH
    save(tmp_path, "empty", {}, {})
    assert load(tmp_path, "empty") == ({}, {})


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_comes_back(tmp_path, kind):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 if kind == "bool" else 256, size=6 * np.dtype(kind).itemsize, dtype=np.uint8)
    array = bits.view(kind).reshape(2, 3)  # NaN and inf of every kind among the floats
    given = {"plain": array, "turned": array.T, "cut": array[:, ::2], "none": array[:0], "one": array[0, 0]}
    given["scalar"] = np.array(array[0, 0])
    given["swapped"] = array.astype(array.dtype.newbyteorder(">"))
    save(tmp_path, "agent", given, {})
    given["swapped"] = array
    assert same(load(tmp_path, "agent")[0], given)


def test_equal_input_gives_equal_bytes(tmp_path):
    code = (
        "import sys, pathlib; from tests.runs.samples import *; from nearopt.runs.tensors import save\n"
        "turn = lambda d: dict(reversed(d.items()))\n"
        "save(pathlib.Path(sys.argv[1]), 'agent', turn(TENSORS), turn(FACTS))"
    )
    save(tmp_path / "0", "agent", TENSORS, FACTS)
    for number in (1, 2):
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        subprocess.run([sys.executable, "-c", code, tmp_path / str(number)], check=True, env=environment)
        for name in BOTH:
            assert (tmp_path / str(number) / name).read_bytes() == (tmp_path / "0" / name).read_bytes()
    header = (tmp_path / "0" / BOTH[1]).read_bytes()
    assert b"__metadata__" not in header[: 8 + int.from_bytes(header[:8], "little")]


def test_the_json_says_what_is_there(tmp_path):
    save(tmp_path, "agent", TENSORS, FACTS)
    document = json.loads((tmp_path / "agent.json").read_text())
    assert document.keys() == {"checksum", "facts", "file", "format", "tensors"}
    assert document["tensors"]["weights"]["shape"] == [2, 3] and document["tensors"]["weights"]["dtype"] == "float64"
    assert document["tensors"]["none"]["sha256"].startswith("e3b0c44298fc1c14")  # SHA-256 of nothing


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_obeys_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        save(tmp_path, "agent", TENSORS, FACTS)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in BOTH] == [0o666 & ~mask] * 2


def test_another_name_in_the_same_folder_is_left_alone(tmp_path):
    save(tmp_path, "agent", TENSORS, FACTS)
    save(tmp_path, "agent-2", {}, {})
    save(tmp_path, "agent", {}, {})
    assert load(tmp_path, "agent-2") == load(tmp_path, "agent") == ({}, {})


def test_a_new_pair_under_its_first_name_is_loaded(tmp_path):
    save(tmp_path, "agent", TENSORS, FACTS)
    digest = json.loads((tmp_path / "agent.json").read_text())["file"]["sha256"]
    (tmp_path / "agent.safetensors").rename(tmp_path / f".agent-{digest}.safetensors")
    (tmp_path / "agent.safetensors").write_bytes(b"the old one")
    assert same(load(tmp_path, "agent")[0], TENSORS)
    tensors.settle(tmp_path, "agent")
    assert listing(tmp_path) == BOTH and same(load(tmp_path, "agent")[0], TENSORS)


# ---------------------------------------------------------------- what cannot be saved
def nested(depth):
    return [nested(depth - 1)] if depth else 0


@pytest.mark.parametrize(
    ("arrays", "facts", "words"),
    [
        ({"x": np.array(["text"])}, {}, "'x' has type <U4"),
        ({"x": np.array([None])}, {}, "'x' has type object"),
        ({"x": np.ones(2, complex)}, {}, "complex128"),
        ({"x": np.ones(2, np.longdouble)}, {}, "float128|longdouble"),
        ({"__metadata__": np.ones(2)}, {}, "__metadata__"),
        ({"a\nb": np.ones(2)}, {}, "printable"),
        ({"\ud800": np.ones(2)}, {}, "printable"),
        ({}, {"a": {"b": [0, np.nan]}}, r"facts\['a'\]\['b'\]\[1\] is nan"),
        ({}, {"a": -np.inf}, "is -inf"),
        ({}, {"a": np.float32(1)}, "a float32"),
        ({}, {"a": np.ones(2)}, "a ndarray"),
        ({}, {"a": np.int64(1)}, "a int64"),
        ({}, {"a": b"x"}, "a bytes"),
        ({}, {"a": {1: 2}}, "the key 1"),
        ({}, {"a": nested(70)}, "nested deeper"),
        ({}, {"a": nested(900)}, "nested deeper"),
        ({}, {"a": 10**5000}, "a int"),
        ({}, {"a": "x" * LIMIT}, "bytes of JSON"),
    ],
)
def test_what_no_file_holds_is_refused(tmp_path, arrays, facts, words):
    save(tmp_path, "agent", TENSORS, FACTS)
    with pytest.raises(UnsaveableError, match=words):
        save(tmp_path, "agent", arrays, facts)
    assert same(load(tmp_path, "agent")[0], TENSORS) and listing(tmp_path) == BOTH


def test_tuples_become_lists_and_float_subclasses_floats(tmp_path):
    save(tmp_path, "agent", {}, {"a": (1, (2,)), "b": np.float64(0.1)})
    facts = load(tmp_path, "agent")[1]
    assert facts == {"a": [1, [2]], "b": 0.1} and type(facts["b"]) is float


def test_a_place_that_takes_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "under", tmp_path / ("x" * 300)):
        with pytest.raises(CannotSaveError, match="still there; free disk space"):
            save(folder, "agent", {}, {})
    (tmp_path / "agent.json").mkdir()
    with pytest.raises(CannotSaveError):
        save(tmp_path, "agent", {}, {})
    assert listing(tmp_path) == ["agent.json", "file"]


# ---------------------------------------------------------------- what cannot be loaded
def test_missing_files(tmp_path):
    for folder in (tmp_path, tmp_path / "none", tmp_path / "nul\0"):
        with pytest.raises(MissingFileError, match="agent.json does not exist"):
            load(folder, "agent")
    save(tmp_path, "agent", TENSORS, FACTS)
    (tmp_path / "agent.safetensors").unlink()
    with pytest.raises(MissingFileError, match="agent.safetensors"):
        load(tmp_path, "agent")


@pytest.mark.parametrize("name", BOTH)
def test_something_else_in_place_of_a_file(tmp_path, name):
    def folder():
        (tmp_path / name).mkdir()

    def link():
        (tmp_path / name).symlink_to(tmp_path / "copy")

    def loop():
        (tmp_path / name).symlink_to(tmp_path / name)

    save(tmp_path, "agent", TENSORS, FACTS)
    os.rename(tmp_path / name, tmp_path / "copy")
    for make, words in (
        (folder, "not a regular file"),
        (lambda: os.mkfifo(tmp_path / name), "not a regular file"),
        (link, "symbolic link"),
        (loop, "symbolic link"),
        (lambda: (tmp_path / name).write_bytes(b""), ""),
    ):
        make()
        with pytest.raises(DamagedFileError, match=f"{name} is damaged: .*{words}.*; restore a copy"):
            load(tmp_path, "agent")
        (tmp_path / name).rmdir() if make is folder else (tmp_path / name).unlink()


def test_a_file_without_rights(tmp_path, monkeypatch):
    save(tmp_path, "agent", TENSORS, FACTS)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileAccessError, match="Permission denied"):
        load(tmp_path, "agent")


def test_a_huge_file_is_not_read(tmp_path):
    save(tmp_path, "agent", TENSORS, FACTS)
    for name in BOTH:
        old = (tmp_path / name).read_bytes()
        os.truncate(tmp_path / name, 1 << 42)  # a hole of 4 TB
        with pytest.raises(DamagedFileError, match="4,398,046,511,104 bytes"):
            load(tmp_path, "agent")
        os.truncate(tmp_path / name, 0)
        (tmp_path / name).write_bytes(old)
    assert same(load(tmp_path, "agent")[0], TENSORS)
