"""A run's folder: made once, opened as what it is, trained by one process at a time."""

import os
import platform
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from nearopt.mdp.errors import NearoptError, VersionError
from nearopt.runs import directory, manifest, tensors
from nearopt.runs.directory import RunDirectory, complete, open_runs
from nearopt.runs.errors import (
    CannotSaveError,
    DamagedFileError,
    NotARunError,
    RunExistsError,
    RunLockedError,
    UnsaveableError,
)

CONFIG = {"algorithm": "sac", "seed": 2**70, "net": (256, 256), "env": {"id": "Pendulum-v1", "kwargs": {}}, "ü": 0.1}
PLAIN = CONFIG | {"net": [256, 256]}
TRAINING = dict(
    algorithm="SAC",
    env=dict(id="Pendulum-v1", kwargs={}, n_envs=1),
    resume="exact",
    settings=dict(gamma=0.5),
    wandb=None,
    seed=0,
    seeds=1,
    start=0,
    end=9,
    log_every=1,
    checkpoint_every=1,
)


def test_a_run_is_made_and_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/nearopt", "train", "sac", "--set", "a b=1"])
    made = RunDirectory.create(tmp_path / "runs" / "first", CONFIG)
    opened = RunDirectory.open(str(tmp_path / "runs" / "first"))
    for run in (made, opened):
        assert run.path == tmp_path / "runs" / "first"
        assert run.config == PLAIN
        assert (run.checkpoints, run.agent) == (run.path / "checkpoints", run.path / "agent")
        assert run.record["command"] == "nearopt train sac --set 'a b=1'"
        assert run.record["versions"]["python"] == platform.python_version()
        assert {"nearopt", "jax", "jaxlib", "numpy", "gymnasium", "safetensors"} <= run.record["versions"].keys()
        assert 1 <= run.record["machine"]["threads"] <= run.record["machine"]["cores"]
    text = (made.path / "config.json").read_text()
    assert text.startswith('{\n "algorithm": "sac",') and text.endswith("}\n")
    assert platform.node() not in text and os.getcwd() not in text
    assert sorted(os.listdir(made.path)) == ["config.json", "lock"]


def test_a_run_is_finished_when_its_agent_is_there(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    assert not run.finished
    tensors.save(run.agent, "agent", {"x": np.ones(2)}, {})
    assert run.finished and RunDirectory.open(run.path).finished
    (run.agent / "agent.safetensors").rename(run.agent / ".agent-x.safetensors")  # killed before the last renaming
    assert not run.finished


def test_a_dump_can_be_loaded(tmp_path):
    run = RunDirectory.create(tmp_path, {})
    assert run.dump("batch", {"x": np.array([np.nan])}, {"step": 3}) == tmp_path / "failure"
    arrays, facts = tensors.load(tmp_path / "failure", "batch")
    assert np.isnan(arrays["x"]).all() and facts == {"step": 3}


# ---------------------------------------------------------------- refusals
def test_a_place_that_is_taken(tmp_path):
    RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(RunExistsError, match="run holds a run; resume it, or choose another folder"):
        RunDirectory.create(tmp_path / "run", {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(RunExistsError, match=r"other things \(thesis.tex\); choose an empty"):
        RunDirectory.create(tmp_path / "other", {})
    for place in ("other/thesis.tex", "other/thesis.tex/run"):
        with pytest.raises(RunExistsError, match="under a file"):
            RunDirectory.create(tmp_path / place, {})
    with pytest.raises(CannotSaveError, match="File name too long"):
        RunDirectory.create(tmp_path / ("x" * 300), {})
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".nearopt-0123.tmp").write_text("half a conf")
    RunDirectory.create(tmp_path / "killed", {})


@pytest.mark.parametrize("config", [{"a": np.nan}, {"a": np.ones(2)}, {"a": {1: 2}}, {"command": "x"}, {"format": 1}])
def test_a_config_that_json_cannot_hold(tmp_path, config):
    with pytest.raises(UnsaveableError, match="config"):
        RunDirectory.create(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_what_is_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(NotARunError, match="(holds no run|is no folder); give the folder of a run"):
            RunDirectory.open(place)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (b"", DamagedFileError, "not what was written"),
        (b"\xff\xfe", DamagedFileError, "not what was written"),
        (b"[" * 100_000, DamagedFileError, "not what was written"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, DamagedFileError, "not what was written"),
        (b'{"format": 1' + b"0" * 5000 + b"}", DamagedFileError, "not what was written"),
        (b" " * 5_000_000, DamagedFileError, "5,000,000 bytes"),
        (b"[]", DamagedFileError, "not what was written"),
        (manifest.dump({}), DamagedFileError, "not the config of a run"),
        (manifest.dump(dict(format=1, command="", versions={}, machine=4)), DamagedFileError, "not the config"),
        (manifest.dump(dict(format=2)), VersionError, "format 2, and 1 is known"),
    ],
)
def test_a_config_that_cannot_be_read(tmp_path, text, kind, words):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(kind, match=f"config.json.*{words}") as caught:
        RunDirectory.open(tmp_path)
    assert isinstance(caught.value, NearoptError) and len(str(caught.value)) < 500


def test_a_config_that_was_changed_is_refused(tmp_path):
    RunDirectory.create(tmp_path, CONFIG)
    text = (tmp_path / "config.json").read_text()
    for changed in (text.replace("0.1", "0.2"), text.replace(" ", "  ", 1), text[:-2]):
        assert changed != text
        (tmp_path / "config.json").write_text(changed)
        with pytest.raises(DamagedFileError, match="not what was written"):
            RunDirectory.open(tmp_path)


def test_seeds_that_a_kill_left_out_are_made(tmp_path):
    group = [tmp_path / f"seed-{number}" for number in range(3)]
    config = TRAINING | dict(seed=7, seeds=3)
    RunDirectory.create(group[0], config)
    group[1].mkdir()  # killed before its config.json was there
    with pytest.raises(NotARunError, match="seed-1 holds no run"):
        open_runs(tmp_path)
    runs = complete(tmp_path)
    assert [run.path for run in runs] == group
    assert [run.config for run in runs] == [config | dict(seed=7 + number) for number in range(3)]
    texts = [(folder / "config.json").read_bytes() for folder in group]
    assert [run.path for run in complete(tmp_path)] == group
    assert texts == [(folder / "config.json").read_bytes() for folder in group]
    assert [run.path for run in complete(group[1])] == [group[1]]


@pytest.mark.parametrize(
    "change",
    [
        dict(algorithm=3),
        dict(env={}),
        dict(env=dict(id=[], kwargs={}, n_envs=1)),
        dict(env=dict(id="Pendulum-v1", kwargs={}, n_envs=10**9)),
        dict(env=dict(id="Pendulum-v1", kwargs=[], n_envs=1)),
        dict(resume=None),
        dict(settings=[]),
        dict(wandb=1),
        dict(seed=-1),
        dict(seed=True),
        dict(seeds=0),
        dict(seeds=10**7),
        dict(seeds=1.5),
        dict(start=None),
        dict(end="9"),
        dict(log_every=0),
    ],
    ids=repr,
)
def test_a_config_of_no_training_is_refused(tmp_path, change):
    RunDirectory.create(tmp_path / "seed-0", TRAINING | change)
    for opens in (open_runs, complete):
        with pytest.raises(DamagedFileError, match="not the config of an agent's training"):
            opens(tmp_path)
    assert os.listdir(tmp_path) == ["seed-0"]


def test_of_two_that_make_a_run_in_one_folder_one_does(tmp_path):
    """Each finds the folder empty before the other one writes."""
    made, refused = [], []

    def make(number):
        try:
            made.append(RunDirectory.create(tmp_path / "run", dict(number=number)).config["number"])
        except (RunExistsError, RunLockedError):
            refused.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 7
    assert RunDirectory.open(tmp_path / "run").config == dict(number=made[0])


def test_versions_that_differ_are_named(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path, {})
    assert run.versions_differ() == []
    now = directory.versions()
    changed = {name: version for name, version in now.items() if name != "jax"} | {"numpy": "9.9", "more": "1"}
    monkeypatch.setattr(directory, "versions", lambda: changed)
    said = RunDirectory.open(tmp_path).versions_differ()
    assert f"jax is absent here, and was {now['jax']} when the run began." in said
    assert f"numpy is 9.9 here, and was {now['numpy']} when the run began." in said
    assert "more is 1 here, and was absent when the run began." in said and len(said) == 3


# ---------------------------------------------------------------- one process at a time
def test_a_second_process_may_not_train_the_run(tmp_path):
    RunDirectory.create(tmp_path, {})
    code = (
        "import sys; from nearopt.runs.directory import RunDirectory\n"
        "with RunDirectory.open(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunLockedError, match="another process trains the run"):
            RunDirectory.open(tmp_path).lock().__enter__()
        process.send_signal(signal.SIGKILL)
    with RunDirectory.open(tmp_path).lock():
        with pytest.raises(RunLockedError):
            RunDirectory.open(tmp_path).lock().__enter__()
    with RunDirectory.open(tmp_path).lock():
        pass
    with pytest.raises(KeyError), RunDirectory.open(tmp_path).lock():
        raise KeyError  # what goes wrong inside is not the lock's, and frees it
    with RunDirectory.open(tmp_path).lock():
        pass


def test_a_folder_that_takes_no_lock(tmp_path):
    run = RunDirectory.create(tmp_path, {})
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").mkdir()
    with pytest.raises(CannotSaveError, match="lock cannot be written"), run.lock():
        pass
