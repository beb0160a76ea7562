"""Files: every format gives back the identical model, and a save is whole or not at all.

(Storm 2.0 itself has parsed our .drn and .umb files; it is GPL and no dependency of the tests.)
"""

import os
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearopt.mdp import errors as e
from nearopt.mdp.files import atomic, drn, load, native, save, umb
from nearopt.mdp.model import MDP
from tests.mdp.file_models import models, same_names, small


# ------------------------------------------------------------ round trips
@pytest.mark.parametrize("suffix", [".mdp", ".drn", ".umb"])
def test_every_format_gives_back_the_identical_model(suffix):
    module = {".mdp": native, ".drn": drn, ".umb": umb}[suffix]

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(models(suffix))
    def check(mdp):
        data = module.encode(mdp)
        loaded = module.decode(data)
        assert loaded == mdp and same_names(loaded, mdp)
        assert module.encode(mdp) == data == module.encode(loaded)

    check()


@pytest.mark.parametrize("suffix", [".mdp", ".drn", ".umb"])
def test_save_and_load_through_a_path(tmp_path, suffix):
    path = tmp_path / f"model{suffix.upper()}"
    small().save(path)
    assert load(str(path)) == small()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".drn", ".umb"])
def test_an_initial_distribution_uniform_but_for_rounding_comes_back_exactly(tmp_path, suffix):
    mdp = small(initial=np.array([1 / 3, 1 / 3 + 1e-15, 1 / 3]))
    save(mdp, tmp_path / f"m{suffix}")
    assert load(tmp_path / f"m{suffix}") == mdp


def test_a_grid_is_loaded_with_its_options(tmp_path, monkeypatch):
    path = tmp_path / "maze.txt"
    path.write_bytes("\ufeffS G\r\n".encode())
    seen = {}

    def from_grid(text, *, slip=0.0):
        seen.update(text=text, slip=slip)
        return small()

    monkeypatch.setattr(MDP, "from_grid", staticmethod(from_grid))
    assert load(path, slip=0.25) == small()
    assert seen == {"text": "S G\n", "slip": 0.25}
    with pytest.raises(e.ArgumentError, match="speed"):
        load(path, speed=3)
    path.write_bytes(b"S\n\xff")
    with pytest.raises(e.ParseError, match="line 2"):
        load(path)
    with pytest.raises(e.FormatError, match="txt"):
        save(small(), tmp_path / "x.txt")


# ------------------------------------------------------------ paths
def test_paths_that_lead_nowhere(tmp_path):
    for path, kind in [("none.mdp", e.MissingFileError), ("x.zip", e.FormatError), ("x", e.FormatError)]:
        with pytest.raises(kind, match=path):
            load(tmp_path / path)
    for name in ("folder.mdp", "folder"):
        (tmp_path / name).mkdir()
        with pytest.raises(e.FileAccessError, match="folder"):
            load(tmp_path / name)
    with pytest.raises(e.MissingFileError):
        load("nul\0.mdp")
    with pytest.raises(e.FileAccessError, match="folder.mdp"):
        save(small(), tmp_path / "folder.mdp")
    with pytest.raises(e.MissingFileError, match="absent"):
        save(small(), tmp_path / "absent" / "m.mdp")
    with pytest.raises(e.FileAccessError):
        save(small(), tmp_path / ("x" * 300 + ".mdp"))
    with pytest.raises(e.ArgumentError, match="reward_model"):
        save(small(), tmp_path / "m.mdp")
        load(tmp_path / "m.mdp", reward_model="x")


# ------------------------------------------------------------ whole or not at all
@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, error):
    path = tmp_path / "m.mdp"
    save(small(), path)
    old = path.read_bytes()

    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(atomic.os, call, fail)
    with pytest.raises(e.FileAccessError if isinstance(error, OSError) else KeyboardInterrupt):
        save(small(discount=0.5), path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["m.mdp"] and path.read_bytes() == old


def test_the_file_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda fd: (calls.append(stat.S_ISDIR(os.fstat(fd).st_mode)), fsync(fd)))
    monkeypatch.setattr(atomic.os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    save(small(), tmp_path / "m.mdp")
    assert calls == [False, "rename", True]  # file, rename, folder


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_obeys_the_umask_and_links_stay(tmp_path, mask):
    (tmp_path / "link.mdp").symlink_to(tmp_path / "m.mdp")
    before = os.umask(mask)
    try:
        save(small(), tmp_path / "link.mdp")
    finally:
        os.umask(before)
    assert (tmp_path / "link.mdp").is_symlink()
    assert stat.S_IMODE((tmp_path / "m.mdp").stat().st_mode) == 0o666 & ~mask


# ------------------------------------------------------------ what would be lost is refused
@pytest.mark.parametrize("suffix", [".drn", ".umb"])
@pytest.mark.parametrize(
    "changes, word",
    [
        (dict(discount=0.9), "discount 0.9"),
        (dict(initial=np.array([0.9, 0.1, 0.0])), "initial"),
        (dict(branch_reward=np.array([-np.inf, -np.inf, 0.0, 0.0])), r"-inf of state 0 \('a'\), action 0 \('go'\)"),
    ],
)
def test_lossy_saves_are_refused(tmp_path, suffix, changes, word):
    with pytest.raises(e.LossySaveError, match=word) as caught:
        save(small(**changes), tmp_path / f"m{suffix}")
    assert "save as .mdp" in str(caught.value) and not list(tmp_path.iterdir())
    save(small(**changes), tmp_path / "m.mdp")


@pytest.mark.parametrize("module", [native, drn, umb])
def test_names_that_a_file_cannot_hold(module):
    deep = ()
    for _ in range(60):
        deep = (deep,)
    for name in (b"x", 1j, frozenset(), float("nan"), ("x", b"y"), deep, 10**5000):
        with pytest.raises(e.UnsaveableNameError, match="state 1"):
            module.encode(small(state_names=(0, name, 2)))
    good = small(state_names=(np.int64(5), (np.int64(3), np.str_("x")), "\ud800"))
    assert module.decode(module.encode(good)).state_names == (5, (3, "x"), "\ud800")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.sampled_from([native, drn, umb]))
def test_random_bytes_are_refused(data, module):
    with pytest.raises(e.NearoptError):
        module.decode(data)
