"""`.mdp` under attack: truncated, flipped, forged."""

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from nearopt.mdp import errors as e
from nearopt.mdp.files import native
from tests.mdp.file_models import small


def forge(arrays=None, **changes):
    """A `.mdp` file with a right checksum and whatever else."""
    mdp = small()
    content = {name: getattr(mdp, name) for name in native.DTYPES} | (arrays or {})
    content = {name: np.array(a, order="C") for name, a in content.items() if a is not None}
    document = dict(sha256="0" * 64, format=1, num_actions=2, discount=1.0, state_names=None, action_names=None)
    text = json.dumps({key: value for key, value in (document | changes).items() if value != "drop"})
    data = safetensors.numpy.save(content, metadata={"nearopt": text})
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)


def test_every_truncation_and_every_flipped_byte_is_found():
    data = native.encode(small())
    assert native.decode(data) == small()
    for end in range(len(data)):
        with pytest.raises(e.NearoptError):
            native.decode(data[:end])
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        with pytest.raises(e.NearoptError):
            native.decode(bytes(broken))
    for extra in (b"\0", b" " * 8, data):
        with pytest.raises(e.NearoptError):
            native.decode(data + extra)


@pytest.mark.parametrize(
    "kind, data",
    [
        (e.TruncatedFileError, b""),
        (e.TruncatedFileError, struct.pack("<Q", 500) + b"{}"),
        (e.FormatError, struct.pack("<Q", 2**63) + b"{}"),
        (e.FormatError, b"PK\x03\x04" + bytes(range(200))),
        (e.FormatError, safetensors.numpy.save({"x": np.zeros(3)})),
        (e.CorruptFileError, struct.pack("<Q", 40000) + b'{"a":' * 8000),
        (e.CorruptFileError, forge(dict(extra=np.zeros(2)))),
        (e.CorruptFileError, forge(dict(initial=None))),
        (e.CorruptFileError, forge(dict(probability=np.zeros(4, np.float32)))),
        (e.ShapeError, forge(dict(probability=np.zeros((4, 1))))),
        (e.ShapeError, forge(dict(probability=np.array(1.0)))),
        (e.NaNError, forge(dict(probability=np.full(4, np.nan)))),
        (e.RowSumError, forge(dict(probability=np.full(4, 1e308)))),
        (e.StateRangeError, forge(dict(next_state=np.full(4, 2**31 - 1, np.int32)))),
        (e.ActionRangeError, forge(dict(choice_action=np.array([0, 5, 1], np.int32)))),
        (e.StructureError, forge(dict(branch_offset=np.array([0, 2, 2**62, 4])))),
        # every difference of these offsets overflows into a positive number
        (e.StructureError, forge(dict(choice_offset=np.array([0, 2**63 - 1, -2, 3])))),
        (e.CorruptFileError, forge(num_actions=2**60)),
        (e.CorruptFileError, forge(num_actions=True)),
        (e.CorruptFileError, forge(num_actions=2.0)),
        (e.CorruptFileError, forge(num_actions="drop")),
        (e.CorruptFileError, forge(discount="1")),
        (e.CorruptFileError, forge(discount=float("nan"))),
        (e.DiscountError, forge(discount=1.5)),
        (e.VersionError, forge(format=2)),
        (e.CorruptFileError, forge(format=0)),
        (e.CorruptFileError, forge(sha256="0" * 63 + "1")),
        (e.CorruptFileError, forge(state_names="abc")),
        (e.CorruptFileError, forge(state_names=[1, 2, {"exec": "x"}])),
        (e.NameCountError, forge(state_names=[1, 2])),
        (e.DuplicateNameError, forge(action_names=[1, 1])),
    ],
)
def test_a_wrong_mdp_file_is_an_error_of_its_own_and_takes_no_memory(kind, data):
    tracemalloc.start()
    try:
        with np.errstate(all="ignore"), pytest.raises(kind):
            native.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data) + 2_000_000
    finally:
        tracemalloc.stop()


def test_the_forger_itself_is_sound():
    assert native.decode(forge()) == small(state_names=None, action_names=None)


def test_names_beyond_the_header_limit_are_refused(monkeypatch):
    monkeypatch.setattr(native, "HEADER_LIMIT", 500)
    with pytest.raises(e.LossySaveError, match="names"):
        native.encode(small())
