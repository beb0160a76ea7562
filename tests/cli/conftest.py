"""A folder with a maze, and a way to call the command line."""

import pytest

from nearopt.cli import main

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
