"""`.umb`: the format's own library, umbi, reads what we write and writes what we read; archives that lie."""

import bz2
import io
import json
import lzma
import struct
import tarfile
import tracemalloc
import zlib
from fractions import Fraction

import numpy as np
import pytest
import umbi

from nearopt.mdp import errors as e
from nearopt.mdp.files import archive, load, save, umb
from tests.mdp.file_models import small


def repack(change, compress=lambda raw: raw):
    """Our own archive with some files changed, and its index as a dictionary."""
    files = {name: bytes(view) for name, view in archive.unpack(umb.encode(small())).items()}
    index = json.loads(files["index.json"])
    change(files, index)
    if "raw" not in index:
        files["index.json"] = json.dumps(index).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return compress(out.getvalue())


def system(**changes):
    return lambda files, index: index["transition-system"].update(
        {f"#{k}".replace("_", "-"): v for k, v in changes.items()}
    )


def replace(name, content):
    return lambda files, index: files.update({name: content}) if content is not None else files.pop(name)


def test_umbi_reads_what_we_write_and_its_copy_is_the_same_model(tmp_path):
    for mdp in (small(), small(branch_reward=np.array([1.0, 2.0, 3.0, 4.0])), small(action_names=None)):
        save(mdp, tmp_path / "a.umb")
        ats = umbi.ats.read(tmp_path / "a.umb", strict=True)
        assert list(ats.state_is_initial) == [True, True, False] and ats.num_choices == 4  # one is the terminal loop
        umbi.ats.write(ats, tmp_path / "b.umb")
        assert load(tmp_path / "b.umb") == mdp


def test_umb_files_of_others(tmp_path):
    ats = umbi.ats.SimpleAts()
    ats.num_states, ats.num_players, ats.initial_states = 3, 1, [0, 1]
    ats.new_choice(state=0, targets=[1, 2], probs=[Fraction(1, 3), Fraction(2, 3)])
    ats.new_choice(state=0, targets=[0], probs=[Fraction(1)])
    ats.new_choice(state=1, targets=[2], probs=[Fraction(1)])
    ats.new_choice(state=2, targets=[2], probs=[Fraction(1)])
    ats.new_ap_annotation("deadlock").state_values = [False, False, True]
    reward = ats.new_reward_annotation("coins")
    reward.state_values, reward.choice_values = (
        [Fraction(1, 4), Fraction(0), Fraction(0)],
        [Fraction(i) for i in (0, 1, 2, 0)],
    )
    umbi.ats.write(ats, tmp_path / "m.umb")
    mdp = load(tmp_path / "m.umb")
    assert mdp.terminal.tolist() == [False, False, True] and mdp.initial.tolist() == [0.5, 0.5, 0.0]
    assert mdp.reward.tolist() == [[0.25, 1.25], [2.0, 0.0], [0.0, 0.0]] and mdp.action_names is None
    assert mdp.probability.tolist() == [1 / 3, 2 / 3, 1.0, 1.0]
    ats.new_reward_annotation("steps").choice_values = [1, 1, 1, 0]
    umbi.ats.write(ats, tmp_path / "m.umb")
    with pytest.raises(e.AmbiguousRewardError, match="coins, steps"):
        load(tmp_path / "m.umb")
    assert load(tmp_path / "m.umb", reward_model="steps").reward.tolist() == [[1, 1], [1, 0], [0, 0]]
    ats.time, ats.state_to_exit_rate = umbi.ats.TimeType.STOCHASTIC, [1.0, 1.0, 1.0]
    umbi.ats.write(ats, tmp_path / "m.umb")
    with pytest.raises(e.UnsupportedModelError, match="stochastic time"):
        load(tmp_path / "m.umb")


@pytest.mark.parametrize(
    "kind, change",
    [
        (e.CorruptFileError, system(states=2**60)),
        (e.CorruptFileError, system(choices=2**60)),
        (e.CorruptFileError, system(branches=2**62)),
        (e.CorruptFileError, system(choice_actions=1)),
        (e.CorruptFileError, system(initial_states=1)),
        (e.CorruptFileError, system(states="many")),
        (e.CorruptFileError, system(players=0)),
        (
            e.UnsupportedModelError,
            lambda f, i: i["transition-system"].update({"#players": 2, "player-names": ["a", "b"]}),
        ),
        (e.CorruptFileError, lambda files, index: index.update(raw=1) or files.pop("index.json")),
        (e.CorruptFileError, lambda files, index: index.update(raw=1) or files.update({"index.json": b"[" * 100_000})),
        (e.CorruptFileError, lambda files, index: index.clear()),
        (e.VersionError, lambda files, index: index.update({"format-version": 2})),
        (e.UnsupportedModelError, lambda files, index: index["transition-system"].pop("branch-probability-type")),
        (
            e.UnsupportedModelError,
            lambda files, index: index["transition-system"].update(
                {"branch-probability-type": {"type": "double-interval"}}
            ),
        ),
        (e.CorruptFileError, replace("branch-to-probability.bin", None)),
        (e.CorruptFileError, replace("state-to-choices.bin", None)),
        (
            e.NoInitialStateError,
            lambda f, i: (replace("state-is-initial.bin", None)(f, i), system(initial_states=0)(f, i)),
        ),
        (e.StructureError, replace("state-to-choices.bin", struct.pack("<4Q", 0, 2**64 - 1, 3, 4))),
        (e.CorruptFileError, replace("branch-to-target.bin", struct.pack("<5Q", 0, 1, 2, 2, 2**64 - 1))),
        (e.NaNError, replace("branch-to-probability.bin", struct.pack("<5d", *[float("nan")] * 5))),
        (e.CorruptFileError, replace("actions/choices/strings.bin", b"\xff\xff\xff\xff\xff\xff")),
        (e.CorruptFileError, replace("annotations/rewards/reward/choices/values.bin", b"\0" * 7)),
    ],
)
def test_a_wrong_umb_file_is_an_error_of_its_own_and_takes_no_memory(kind, change):
    umb.encode(small())  # umbi is imported by now
    data = repack(change)
    tracemalloc.start()
    try:
        with np.errstate(all="ignore"), pytest.raises(kind):
            umb.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data) + 3_000_000
    finally:
        tracemalloc.stop()


def test_types_without_a_size_have_the_default_one():
    def strip(files, index):
        index["transition-system"]["branch-probability-type"].pop("size")
        index["annotations"]["rewards"]["reward"]["type"].pop("size")

    assert umb.decode(repack(strip)) == small()


@pytest.mark.parametrize(
    "compress", [lambda raw: raw, lzma.compress, bz2.compress, lambda raw: zlib.compress(raw, wbits=31)]
)
def test_archives_of_every_kind_truncated_anywhere_and_bombs(compress):
    data = repack(lambda files, index: None, compress)
    assert umb.decode(data) == small()
    for end in range(0, len(data.rstrip(b"\0")), 1 + len(data) // 300):  # a plain tar ends in zeros
        with pytest.raises(e.NearoptError):
            umb.decode(data[:end])
    for place in range(0, len(data), 1 + len(data) // 500):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        try:  # tar has no checksum over contents, gzip none over its header: some flips are other models or none
            umb.decode(bytes(broken))
        except e.NearoptError:
            pass
    bomb = compress(bytes(64_000_000))
    if len(bomb) < 1_000_000:
        tracemalloc.start()
        try:
            with pytest.raises(e.OversizeError):
                umb.decode(bomb)
            assert tracemalloc.get_traced_memory()[1] < 3 * (100 * len(bomb) + 2**20) + 2**23  # the dictionary of xz
        finally:
            tracemalloc.stop()


def test_tar_headers_that_lie():
    plain = repack(lambda files, index: None)

    def edit(**fields):
        member = tarfile.TarInfo("index.json")
        for name, value in fields.items():
            setattr(member, name, value)
        return member.tobuf(tarfile.GNU_FORMAT) + plain[512:]

    for data, kind in [
        (edit(size=2**33 - 1), e.TruncatedFileError),
        (edit(size=-512), e.CorruptFileError),  # an endless loop in tarfile before Python 3.12.12
        (edit(size=2**50), e.CorruptFileError),
        (edit(type=tarfile.SYMTYPE, linkname="/etc/passwd"), e.CorruptFileError),
        (edit(type=tarfile.GNUTYPE_SPARSE), e.CorruptFileError),
        (plain[:-1024].rstrip(b"\0") + plain, e.NearoptError),
        (plain[: len(plain) - 10240] + plain, e.NearoptError),
    ]:
        with pytest.raises(kind):
            umb.decode(data)


def test_a_model_that_compresses_like_a_bomb_is_written_plainly(monkeypatch):
    monkeypatch.setattr(archive, "size_limit", lambda data: len(data) * 2)
    data = umb.encode(small())
    assert data[257:262] == b"ustar" and umb.decode(data) == small()
