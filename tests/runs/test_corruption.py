"""2,000 corrupted files: 2,000 typed errors, nothing else, and nothing loaded."""

import contextlib
import hashlib
import json
import tracemalloc

import numpy as np
import pytest

from nearopt.mdp.errors import NearoptError, VersionError
from nearopt.runs import checkpoints as module
from nearopt.runs import manifest, tensors
from nearopt.runs.checkpoints import Checkpoints
from tests.runs.samples import FACTS, TENSORS, rows, same

COUNT = 2_000


# ---------------------------------------------------------------- accidents
def truncated(data, rng):
    return data[: rng.integers(len(data))]


def flipped(data, rng):
    place, out = rng.integers(len(data)), bytearray(data)
    out[place] ^= 1 << rng.integers(8)
    return bytes(out)


def inserted(data, rng):
    place = rng.integers(len(data) + 1)
    return data[:place] + rng.bytes(rng.integers(1, 9)) + data[place:]


def deleted(data, rng):
    place = rng.integers(len(data))
    return data[:place] + data[place + rng.integers(1, 9) :]


def swapped(data, rng):
    a, b, c, d = np.sort(rng.integers(len(data) + 1, size=4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def zeroed(data, rng):
    place, size = rng.integers(len(data)), rng.integers(1, 512)
    return data[:place] + bytes(len(data[place : place + size])) + data[place + size :]


def noise(data, rng):
    return rng.bytes(len(data))


# ---------------------------------------------------------------- edits that keep the form
def spots(document, path=()):
    """The paths to all values in a JSON document."""
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from spots(value, (*path, key))


def edited_json(data, rng):
    """Valid JSON, in the same layout or in another, with another value, a value less, or none of that."""
    with contextlib.suppress(ValueError):
        document = json.loads(data)
        if rng.random() < 0.3:
            return json.dumps(document, indent=int(rng.integers(5)), sort_keys=bool(rng.integers(2))).encode()
        *path, key = (paths := [path for path in spots(document) if path])[rng.integers(len(paths))]
        parent = document
        for step in path:
            parent = parent[step]
        values = [0, 1, -1, 1e300, 2**70, "", "x", None, True, [], {}, "0" * 64, "1" * 64, parent[key], "float32"]
        if rng.random() < 0.2:
            del parent[key]
        else:
            parent[key] = values[rng.integers(len(values))]
        return manifest.canonical(document)
    return inserted_space(data, rng)


def inserted_space(data, rng):
    places = [place for place, byte in enumerate(data) if byte in b",:{[ \n"] or [0]
    place = places[rng.integers(len(places))] + 1
    return data[:place] + b" " * rng.integers(1, 4) + data[place:]


def edited_header(data, rng):
    """Another number, type or name in the header of a safetensors file."""
    if data[8:9] != b"{":
        return inserted_space(data, rng)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    spec = header[(names := sorted(header))[rng.integers(len(names))]]
    match rng.integers(4):
        case 0:
            spec["data_offsets"][rng.integers(2)] = [0, 1, 10**6, 2**63, -1, 2**64 - 1][rng.integers(6)]
        case 1:
            spec["shape"] = [[2**32, 2**32], [0], [-1], [2**62, 8], [1], []][rng.integers(6)]
        case 2:
            spec["dtype"] = ["F64", "F32", "BF16", "I8", "BOOL", "F8_E4M3", "?"][rng.integers(7)]
        case 3:
            header["__metadata__"] = {"a": "b"}
    text = json.dumps(header, separators=(",", ":")).encode()
    length = [len(text), size, 2**63, 10**8, 0][rng.integers(5)]
    return length.to_bytes(8, "little") + text + data[8 + size :]


ACCIDENTS = [truncated, flipped, inserted, deleted, swapped, zeroed, noise, edited_json, inserted_space, edited_header]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """An agent and a checkpoint with three files of rows: what to load, and what has to come back."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 200)
    tensors.save(tmp_path / "agent", "agent", TENSORS, FACTS)
    Checkpoints(tmp_path / "checkpoints").write(5, TENSORS, FACTS, rows(0, 25), 0, 3)

    def agent():
        arrays, facts = tensors.load(tmp_path / "agent", "agent")
        return same(arrays, TENSORS) and facts == FACTS

    def checkpoint():
        found = Checkpoints(tmp_path / "checkpoints").latest()
        return same(found.tensors, TENSORS) and found.facts == FACTS and same(found.rows, rows(3, 25))

    assert agent() and checkpoint()
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 7
    return [(path, agent if path.parent.name == "agent" else checkpoint) for path in files]


def test_two_thousand_corrupted_files(saved):
    rng = np.random.default_rng(0)
    count = {accident: 0 for accident in ACCIDENTS}
    while sum(count.values()) < COUNT:
        path, load = saved[rng.integers(len(saved))]
        good, accident = path.read_bytes(), ACCIDENTS[rng.integers(len(ACCIDENTS))]
        bad = accident(good, rng)
        if bad == good:
            continue
        path.write_bytes(bad)
        with pytest.raises(NearoptError, match=f"{path.name}.*; .*restore"):
            pytest.fail(f"{accident.__name__} of {path.name} was loaded: {load()}, {bad}")
        path.write_bytes(good)
        count[accident] += 1
    assert min(count.values()) > COUNT / 20
    assert all(load() for _, load in saved)


def test_every_byte_counts(saved):
    for path, load in saved[:3]:  # the agent's JSON and arrays, and a file of rows
        good = bytearray(path.read_bytes())
        for place in range(len(good)):
            good[place] ^= 0x80 >> place % 8
            path.write_bytes(good)
            with pytest.raises(NearoptError, match=f"{path.name} is damaged"):
                load()
            good[place] ^= 0x80 >> place % 8
        path.write_bytes(good)


# ---------------------------------------------------------------- malice
def safetensors_file(header, body=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def spec(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE_FILES = [
    b"",
    b"\0" * 8,
    safetensors_file({}, length=2**64 - 1),
    safetensors_file({}, length=99_999_999),
    safetensors_file({"x": spec([2**40], 0, 2**42)}),
    safetensors_file({"x": spec([2**62, 2**62], 0, 0)}),
    safetensors_file({"x": spec([0, 2**63, 2**63], 0, 0)}),
    safetensors_file({"x": spec([2], 0, 8), "y": spec([2], 4, 12)}, bytes(12)),  # overlapping
    safetensors_file({"x": spec([1], 0, 4), "y": spec([1], 8, 12)}, bytes(12)),  # a hole
    safetensors_file({"x": spec([1], 0, 4)}, bytes(8)),  # bytes that belong to nobody
    safetensors_file({"x": spec([1], 4, 0)}, bytes(4)),
    safetensors_file({"x": spec([-1], 0, 4)}, bytes(4)),
    safetensors_file({"x": spec([1.0], 0, 4)}, bytes(4)),
    safetensors_file({"x": spec(["1"], 0, 4)}, bytes(4)),
    safetensors_file({"x": spec([2], 0, 4, "BF16")}, bytes(4)),
    safetensors_file({"x": spec([4], 0, 4, "F8_E4M3")}, bytes(4)),
    safetensors_file({"x": spec([1], 0, 8, "C64")}, bytes(8)),
    safetensors_file({"x": spec([4], 0, 4, "BOOL")}, b"\0\1\2\3"),  # no booleans
    safetensors_file({"x": {}}),
    safetensors_file([]),
    safetensors_file(b"{" + b'"x":{' * 5000),
    safetensors_file(b"[" * 100_000),
    safetensors_file(b'{"x": NaN}'),
    safetensors_file(b'{"\xff": 1}'),
    safetensors_file(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + b"}", bytes(4)),
]


@pytest.mark.parametrize("number", range(len(HOSTILE_FILES)))
def test_a_hostile_safetensors_file_with_right_checksums(tmp_path, number):
    data = HOSTILE_FILES[number]
    (tmp_path / "agent.safetensors").write_bytes(data)
    text = tensors.describe({}, data, {})
    for dtype in ("float32", "bool"):
        claim = {"x": {"dtype": dtype, "shape": [1], "sha256": hashlib.sha256(b"\0\0\0\0").hexdigest()}}
        document = manifest.parse(text, "x") | {"tensors": claim}
        (tmp_path / "agent.json").write_bytes(manifest.dump(document))
        tracemalloc.start()
        with pytest.raises(NearoptError, match="agent.safetensors is damaged: .*; restore"):
            tensors.load(tmp_path, "agent")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # nothing is allocated because a file says so
        tracemalloc.stop()


def with_checksum(text: str) -> bytes:
    """Any text, with the checksum that it would have if it were taken as it stands."""
    return text.replace("CHECKSUM", hashlib.sha256(text.encode()).hexdigest()).encode()


HOSTILE_JSON = [
    b"",
    b"null",
    b"[]",
    b"0",
    b'"x"',
    b"{}",
    b'{"checksum": 0}',
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b"9" * 100_000,
    b"1e999999",
    b'{"checksum": NaN}',
    b'{"checksum": "a", "checksum": "b"}',
    b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf{}",
    b'{"facts": "\\ud800"}',
    b"{" + b" " * 4_000_000 + b"}",
    b"{" + b" " * 5_000_000 + b"}",
    with_checksum('{"checksum": "CHECKSUM", "format": 1}'),
    with_checksum('{\n "checksum": "CHECKSUM",\n "facts": NaN\n}\n'),
]


@pytest.mark.parametrize("number", range(len(HOSTILE_JSON)))
def test_hostile_json(tmp_path, number):
    tensors.save(tmp_path, "agent", TENSORS, FACTS)
    (tmp_path / "agent.json").write_bytes(HOSTILE_JSON[number])
    with pytest.raises(NearoptError, match="agent.json is damaged: .*; restore"):
        tensors.load(tmp_path, "agent")


@pytest.mark.parametrize(
    "change",
    [
        {"format": True},
        {"format": "1"},
        {"facts": []},
        {"facts": None},
        {"file": None},
        {"file": {}},
        {"file": {"bytes": 2**70, "sha256": "0" * 64}},
        {"file": {"bytes": -1, "sha256": "0" * 64}},
        {"file": {"bytes": 0, "sha256": "../../../x"}},
        {"file": {"bytes": 0, "sha256": "0" * 63}},
        {"tensors": {}},
        {"tensors": []},
        {"more": 1},
    ],
    ids=str,
)
def test_json_with_a_right_checksum_and_wrong_claims(tmp_path, change):
    tensors.save(tmp_path, "agent", TENSORS, FACTS)
    document = manifest.parse((tmp_path / "agent.json").read_bytes(), "x")
    (tmp_path / "agent.json").write_bytes(manifest.dump(document | change))
    with pytest.raises(NearoptError, match="is damaged: .*; restore"):
        tensors.load(tmp_path, "agent")


def test_another_format(tmp_path):
    tensors.save(tmp_path, "agent", TENSORS, FACTS)
    document = manifest.parse((tmp_path / "agent.json").read_bytes(), "x") | {"format": 2}
    (tmp_path / "agent.json").write_bytes(manifest.dump(document))
    with pytest.raises(VersionError, match="agent.json has format 2, and 1 is known here"):
        tensors.load(tmp_path, "agent")


@pytest.mark.parametrize("key", ["dtype", "shape", "sha256"])
@pytest.mark.parametrize("name", sorted(TENSORS))
def test_claims_about_an_array_are_checked(tmp_path, name, key):
    tensors.save(tmp_path, "agent", TENSORS, FACTS)
    document = manifest.parse((tmp_path / "agent.json").read_bytes(), "x")
    document["tensors"][name][key] = {"dtype": "int64", "shape": [9], "sha256": "0" * 64}[key]
    (tmp_path / "agent.json").write_bytes(manifest.dump(document))
    with pytest.raises(NearoptError, match="agent.json is damaged: it does not describe agent.safetensors"):
        tensors.load(tmp_path, "agent")
