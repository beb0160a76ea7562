"""Whatever fails, and wherever a process dies: what is loaded is the old state or the new one, whole."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nearopt.runs import tensors
from nearopt.runs.checkpoints import Checkpoints
from nearopt.runs.errors import CannotSaveError
from tests.runs.disk import Disk
from tests.runs.samples import rows, same

FAULTS = ["fail", "full", "kill", "power"]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sweep(fault, prepare, act, check):
    """`act` on what `prepare` made, with a fault at every operation in turn, until there is none left to fail."""
    for at in range(1000):
        place = prepare()
        error = None
        with Disk(fault, at) as disk:
            try:
                act(place)
            except CannotSaveError as caught:
                error = caught
        check(place, error, disk.struck)
        if not disk.struck:
            return at
    raise AssertionError("it does not end")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The disk is simulated, or survives the process: nothing has to reach it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def folders(tmp_path):
    """Fresh folders, one per call."""
    numbers = iter(range(10_000))
    return lambda: tmp_path / str(next(numbers))


# ---------------------------------------------------------------- a pair of files
PAIR = [dict(x=np.arange(n + 3.0)) for n in range(4)]


def put(folder, number):
    tensors.save(folder, "agent", PAIR[number], {"number": number})


def held(folder) -> int:
    arrays, facts = tensors.load(folder, "agent")
    assert same(arrays, PAIR[facts["number"]])
    return facts["number"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_pair_is_the_old_or_the_new_one(folders, fault):
    def prepare():
        folder = folders()
        put(folder, 0)
        return folder

    def check(folder, error, struck):
        number = held(folder)
        if fault in ("kill", "power"):
            assert number in (0, 1)
        else:
            assert number == (0 if error else 1)
        if error:
            assert "No space left on device" in str(error) and "still there" in str(error)
            assert len(list(folder.iterdir())) == 2
        put(folder, 2)
        assert held(folder) == 2 and len(list(folder.iterdir())) == 2  # orphans are gone

    assert sweep(fault, prepare, lambda folder: put(folder, 1), check) >= 9


def test_a_save_killed_after_a_killed_save(folders):
    for first in range(17):  # a save has 16 operations

        def prepare(first=first):
            folder = folders()
            put(folder, 0)
            with Disk("power", first) as disk:
                put(folder, 1)
            assert disk.struck == (first < 16)
            return folder, held(folder)

        def check(place, _error, struck):
            folder, before = place
            assert held(folder) in ((before, 2) if struck else (2,))
            put(folder, 3)
            assert held(folder) == 3 and len(list(folder.iterdir())) == 2

        sweep("power", prepare, lambda place: put(place[0], 2), check)


def test_a_disk_that_cannot_be_read_for_a_moment(folders):
    """The new arrays are still under their first name, and the JSON that says so cannot be read: they stay."""
    for at in range(2):
        folder = folders()
        put(folder, 0)
        with Disk("kill", 13) as disk:
            put(folder, 1)
        assert disk.log[-1][0] == "replace" and disk.log[-1][1].endswith("agent.safetensors") and held(folder) == 1
        with Disk("fail", at) as disk, pytest.raises(CannotSaveError):
            put(folder, 2)
        assert held(folder) == 1 and disk.struck


def test_a_first_save_leaves_nothing_or_all(folders):
    def check(folder, _error, struck):
        try:
            assert held(folder) == 0
        except tensors.MissingFileError:
            assert struck
        put(folder, 1)
        assert held(folder) == 1 and len(list(folder.iterdir())) == 2

    sweep("power", folders, lambda folder: put(folder, 0), check)


def test_every_renaming_reaches_the_disk(folders):
    """The file is flushed before, its folder after: else a power loss can leave a name without content."""
    folder = folders()
    put(folder, 0)
    with Disk() as disk:
        put(folder, 1)
        Checkpoints(folder / "checkpoints").write(3, PAIR[0], {}, rows(0, 3), 0, 0)
    renamed = [at for at, (name, _) in enumerate(disk.log) if name in ("replace", "rename")]
    assert len(renamed) == 8
    for at in renamed:
        after = [(name, target) for name, target in disk.log[at + 1 :] if name != "read"][0]
        assert after == ("fsync", os.path.dirname(disk.log[at][1]))
        if os.path.basename(disk.log[at][1]).startswith((".agent", "agent.json", "replay", "checkpoint.json")):
            assert disk.log[at - 1][0] == "fsync"


# ---------------------------------------------------------------- checkpoints
def state(step: int, shift: float):
    """What a process writes at this step: 10 rows a step, of which the last 15 are kept."""
    arrays = {"weights": np.full(3, step + shift)}
    return arrays, {"step": step, "shift": shift}, rows(10 * step - 10, 10 * step, shift), 10 * step - 10


def write(folder, step, shift=0.0):
    Checkpoints(folder).write(step, *state(step, shift), max(0, 10 * step - 15))


def found(folder) -> tuple[int, float]:
    """The step and the shift of the newest checkpoint, which has to be whole: rows of older steps have no shift."""
    checkpoint = Checkpoints(folder).latest()
    step, shift = checkpoint.step, checkpoint.facts["shift"]
    arrays, facts, new, first = state(step, shift)
    keep = max(0, 10 * step - 15)
    old = rows(keep, first)
    assert same(checkpoint.tensors, arrays) and checkpoint.facts == facts and checkpoint.first == keep
    assert same(checkpoint.rows, {name: np.concatenate([old[name], new[name]]) for name in new})
    return step, shift


def tidy(folder):
    """Nothing but two checkpoints and the rows that they need."""
    steps = sorted(int(path.name[5:]) for path in folder.glob("step-*"))
    assert len(steps) <= 2
    needed = max(0, 10 * steps[0] - 15) // 10
    chunks = {f"replay-{10 * n}-{10 * n + 10}.safetensors" for n in range(needed, steps[-1])}
    assert {path.name for path in folder.iterdir()} == chunks | {f"step-{step:012d}" for step in steps}
    assert all(len(list(path.iterdir())) == 2 for path in folder.glob("step-*"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_is_the_old_or_the_new_one(folders, fault):
    def prepare():
        folder = folders()
        for step in (1, 2, 3):
            write(folder, step)
        return folder, everything(folder)

    def check(place, error, struck):
        folder, before = place
        now = found(folder)
        if error:
            assert now == (3, 0.0) and "No space left on device" in str(error) and everything(folder) == before
        elif fault in ("kill", "power"):
            assert now in [(3, 0.0), (4, 0.0)] and (now == (4, 0.0) or struck)
        else:
            assert now == (4, 0.0)
        for path in folder.glob("step-*"):  # what is there is whole, also while it is being removed
            older = Checkpoints(folder).latest(at_most=int(path.name[5:]))
            assert older.warning is None and older.step == int(path.name[5:])
        step = now[0] + 1
        write(folder, step, 0.125)  # the resumed process sees other things: nothing of the killed one's is left
        assert found(folder) == (step, 0.125)
        tidy(folder)

    assert sweep(fault, prepare, lambda place: write(place[0], 4), check) >= 20


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", [3, 4])
def test_a_damaged_checkpoint_is_replaced(folders, fault, step):
    def prepare():
        folder = folders()
        for earlier in (1, 2, 3):
            write(folder, earlier)
        with (folder / "step-000000000003" / "checkpoint.safetensors").open("r+b") as file:
            file.truncate(10)
        assert found(folder) == (2, 0.0)
        return folder

    def act(folder):  # a process that began with step 2, and stops at other steps than the killed one
        given = {
            name: np.concatenate([rows(20, 10 * step - 10)[name], new]) for name, new in state(step, 0.125)[2].items()
        }
        arrays, facts, _, _ = state(step, 0.125)
        Checkpoints(folder).write(step, arrays, facts, given, 20, 10 * step - 15)

    def check(folder, error, struck):
        assert found(folder) in [(2, 0.0), (step, 0.125)]
        assert (found(folder) == (2, 0.0)) if error else (struck or found(folder) == (step, 0.125))

    sweep(fault, prepare, act, check)


def test_a_whole_checkpoint_of_an_abandoned_future(folders):
    """A process that goes back to step 1 and writes step 2 never leaves the old step 3 behind as the newest."""

    def prepare():
        folder = folders()
        for step in (1, 3):
            new, first = rows(10 if step == 3 else 0, 10 * step), 10 if step == 3 else 0
            Checkpoints(folder).write(step, {}, {}, new, first, 0)
        return folder

    def check(folder, _error, struck):
        steps = {int(path.name[5:]) for path in folder.glob("step-*")}
        assert steps in ({1, 3}, {1}, {1, 2}) and (struck or steps == {1, 2})

    sweep("kill", prepare, lambda folder: Checkpoints(folder).write(2, {}, {}, rows(10, 20, 0.5), 10, 0), check)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_step_once_more(folders, fault):
    def prepare():
        folder = folders()
        for step in (1, 2, 3):
            write(folder, step)
        return folder

    def act(folder):
        arrays, facts, _, _ = state(3, 0.0)
        Checkpoints(folder).write(3, {"weights": arrays["weights"] + 1}, facts, {}, 30, 15)

    def check(folder, error, struck):
        checkpoint = Checkpoints(folder).latest()
        assert checkpoint.step == 3 and same(checkpoint.rows, rows(15, 30))
        assert checkpoint.tensors["weights"][0] in ((3, 4) if struck and not error else (3,) if error else (4,))
        assert Checkpoints(folder).latest(at_most=2).step == 2

    sweep(fault, prepare, act, check)


# ---------------------------------------------------------------- real ones
def test_a_file_that_may_not_grow(folders):
    """The system itself stops a write in the middle, at every 100th byte."""
    big = {"x": np.arange(500.0)}
    folder = folders()
    put(folder, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in range(0, 4000, 100):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
            with pytest.raises(CannotSaveError, match="File too large"):
                tensors.save(folder, "agent", big, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert held(folder) == 0 and len(list(folder.iterdir())) == 2


def test_killed_processes(tmp_path):
    """SIGKILL while checkpoints are written without a pause, four times in a row in the same folder."""
    code = (
        "import sys, pathlib; from tests.runs.test_kills import found, write\n"
        "folder = pathlib.Path(sys.argv[1]); step = found(folder)[0]\n"
        "while True: print(step, flush=True); step += 1; write(folder, step)"
    )
    rng = np.random.default_rng(0)
    write(tmp_path, 1)
    steps = [1]
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
        for more in range(3):
            assert process.stdout.readline() == b"%d\n" % (steps[-1] + more)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        step, shift = found(tmp_path)
        assert step >= steps[-1] + 2 and shift == 0.0
        steps.append(step)
    write(tmp_path, steps[-1] + 1)
    tidy(tmp_path)
