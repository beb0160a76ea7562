"""Files with right checksums and wrong contents, as an attacker writes them: a typed error, or a run that is whole.

What every file says is changed at every place, one at a time, and signed anew.
"""

import copy
import shutil
import warnings

import numpy as np
import pytest

import nearopt as no
from nearopt.agents import files
from nearopt.agents.session import resume
from nearopt.mdp.errors import NearoptError
from nearopt.runs import manifest, tensors

SMALL = dict(net_arch=[8], batch_size=4, learning_starts=4, buffer_size=60)
WRONG = [None, -1, 10**9, 10**30, 0.5, True, "", "x", "__import__('os')", [], {}, [1, [2]], {"tensor": "no"}, ["x"] * 3]
EACH = 80  # changes of one file


def places(value, path=()):
    """The paths to everything in nested data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changes(document):
    """The document with one place replaced, or left out: every place at least once, as far as EACH goes."""
    rng = np.random.default_rng(0)
    paths = [path for path in places(document) if path]
    for path in [paths[i] for i in rng.permutation(len(paths))[:EACH]]:
        out = copy.deepcopy(document)
        inner = out
        for key in path[:-1]:
            inner = inner[key]
        if rng.random() < 0.2 and isinstance(inner, dict):
            del inner[path[-1]]
        else:
            inner[path[-1]] = WRONG[rng.integers(len(WRONG))]
        yield path, out


def attempt(path, what):
    """Whether it was refused, by a typed error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            what()
    except NearoptError:
        return True
    except Exception as error:
        raise AssertionError(f"changed at {path}: {type(error).__name__}: {error}") from error
    return False


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was stopped after its last checkpoint but one."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    agent = no.SoftDQN("CartPole-v1", seed=0, **SMALL)
    agent.learn(60, run_dir=folder, checkpoint_every=20, log_every=20)
    shutil.move(folder / "agent", folder.parent / "agent")
    return folder


def test_agents(run, tmp_path):
    home = run.parent / "agent"
    arrays, facts = tensors.load(home, "agent")
    refused = 0
    for path, changed in changes(facts):
        tensors.save(tmp_path, "agent", arrays, changed)
        refused += attempt(path, lambda: no.load_agent(tmp_path).predict(np.zeros(4)))
    assert refused > EACH / 4


def test_arrays_of_agents(run, tmp_path):
    arrays, facts = tensors.load(run.parent / "agent", "agent")
    for name, array in arrays.items():
        for wrong in (array[..., None], array.astype(np.float64), np.zeros(0, np.float32)):
            tensors.save(tmp_path, "agent", arrays | {name: wrong}, facts)
            assert attempt(name, lambda: no.load_agent(tmp_path))
        tensors.save(tmp_path, "agent", {n: x for n, x in arrays.items() if n != name}, facts)
        assert attempt(name, lambda: no.load_agent(tmp_path))


@pytest.mark.parametrize("size", [[10**9], [10**5, 10**5], [8] * 1000])
def test_nothing_of_a_claimed_size_is_allocated(run, tmp_path, size):
    arrays, facts = tensors.load(run.parent / "agent", "agent")
    facts["settings"] |= dict(net_arch=size, buffer_size=10**15)
    tensors.save(tmp_path, "agent", arrays, facts)
    assert attempt("net_arch", lambda: no.load_agent(tmp_path))


@pytest.mark.parametrize("what", ["config", "checkpoint"])
def test_runs(run, tmp_path, what):
    newest = max((run / "checkpoints").glob("step-*"))
    config = manifest.parse((run / "config.json").read_bytes(), "config")
    arrays, facts = tensors.load(newest, "checkpoint")
    refused = 0
    for number, (path, changed) in enumerate(changes(config if what == "config" else facts)):
        if path[0] == "end" or path == ("env", "id"):
            continue  # a run that is longer, or in another environment, is one
        if "environment" in path:
            continue  # what an environment makes of other values of its attributes: tests/environments
        folder = tmp_path / str(number)
        shutil.copytree(run, folder)
        if what == "config":
            (folder / "config.json").write_bytes(manifest.dump(changed))
        else:
            tensors.save(folder / "checkpoints" / newest.name, "checkpoint", arrays, changed)
        refused += attempt(path, lambda folder=folder: resume(folder))
        shutil.rmtree(folder)
    assert refused > 10


def test_arrays_of_checkpoints(run, tmp_path):
    newest = max((run / "checkpoints").glob("step-*"))
    arrays, facts = tensors.load(newest, "checkpoint")
    for name in (name for name in arrays if not name.startswith("environment.")):
        shutil.copytree(run, tmp_path / "run")
        wrong = arrays | {name: arrays[name][None]}
        tensors.save(tmp_path / "run/checkpoints" / newest.name, "checkpoint", wrong, facts)
        assert attempt(name, lambda: resume(tmp_path / "run"))
        shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [
        dict(position=None),
        dict(position=dict(metrics=dict(bytes=0, columns=[1], step=0), timing=dict(bytes=0, columns=[], step=0))),
        dict(position=dict(metrics=dict(bytes=0, columns=[], step=41), timing=dict(bytes=0, columns=[], step=-1))),
        dict(steps=41),
    ],
    ids=repr,
)
def test_checkpoints_that_would_harm_the_metrics(run, tmp_path, change):
    newest = max((run / "checkpoints").glob("step-*"))
    arrays, facts = tensors.load(newest, "checkpoint")
    shutil.copytree(run, tmp_path / "run")
    before = (run / "metrics.csv").read_bytes()
    changed = facts | dict(facts=facts["facts"] | change)
    tensors.save(tmp_path / "run/checkpoints" / newest.name, "checkpoint", arrays, changed)
    assert attempt(change, lambda: resume(tmp_path / "run"))
    assert (tmp_path / "run/metrics.csv").read_bytes() == before


def test_an_action_that_there_is_not(run, tmp_path):
    newest = max((run / "checkpoints").glob("step-*"))
    arrays, facts = tensors.load(newest, "checkpoint")
    shutil.copytree(run, tmp_path / "run")
    tensors.save(tmp_path / "run/checkpoints" / newest.name, "checkpoint", arrays | dict(action=np.int32([7])), facts)
    assert attempt("action", lambda: resume(tmp_path / "run"))


def test_failures(run, tmp_path):
    agent = no.SAC("Pendulum-v1", seed=0, **SMALL | dict(learning_rate=1e30))
    with pytest.raises(NearoptError):
        agent.learn(60, run_dir=tmp_path / "run")
    arrays, facts = tensors.load(tmp_path / "run/failure", "update")
    assert not attempt("nothing", lambda: files.repeat(tmp_path / "run/failure"))
    for path, changed in changes(facts):
        tensors.save(tmp_path / "other", "update", arrays, changed)
        attempt(path, lambda: files.repeat(tmp_path / "other"))
