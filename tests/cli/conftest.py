"""A folder with a maze, a way to call the command line, and runs that were trained through it."""

import json
import shutil
from types import SimpleNamespace

import pytest

from nearopt.cli import main
from tests.cli.commands import TOGETHER, WORDS

MAZE = "#######\n#S   G#\n#######\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with one maze."""
    (tmp_path / "maze.txt").write_text(MAZE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    """main([...]) -> exit code, stdout, stderr."""

    def run(*words):
        code = main.main(list(words))
        return code, *capsys.readouterr()

    return run


def quietly(folder, *words):
    """main([...]) in a folder → what it printed. For fixtures, which cannot use capsys."""
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("builtins.print", lambda text="", **kwargs: printed.append(text))
        assert main.main(list(words)) == 0
    return printed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one run beneath it, and what `train` printed."""
    folder = tmp_path_factory.mktemp("train")
    (printed,) = quietly(folder, *WORDS, "--run-dir", "run", "--seed", "3", "--json")
    return SimpleNamespace(folder=folder, run=folder / "run", answer=json.loads(printed))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Three seeds of an environment in JAX."""
    folder = tmp_path_factory.mktemp("together")
    (printed,) = quietly(folder, *TOGETHER, "--seeds", "3", "--seed", "5", "--run-dir", "runs", "--json")
    return SimpleNamespace(folder=folder, run=folder / "runs", answer=json.loads(printed))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def compiled_once(cache, monkeypatch):
    """Processes share what they compile."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A folder of one's own, with a copy of the run."""
    shutil.copytree(trained.run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path
