"""What becomes of runs: `nearopt evaluate`, `enjoy` and `plot` as a user meets them; kills; tuned settings."""

import dataclasses
import os
import shutil
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import nearopt as no
from benchmarks import kills
from nearopt.agents.evaluation import evaluate_agent
from nearopt.agents.files import class_of
from nearopt.agents.settings import settle
from nearopt.agents.task import Task
from nearopt.cli import tuned
from nearopt.runs.curves import bootstrap_interval, curve, interquartile_mean
from tests.cli.commands import TINY
from tests.cli.test_cli import strict


# ---------------------------------------------------------------- kills
def test_killed_twice_and_resumed_it_ends_with_the_same_bytes(compiled_once, tmp_path):
    words = "sac Pendulum-v1 --total-timesteps 2000 --checkpoint-every 300 --log-every 100".split() + TINY
    assert kills.undisturbed(words, tmp_path / "a") == 21
    rng = np.random.default_rng()
    moments = [(int(rng.integers(9)), rng.uniform(0, 0.1)), (int(rng.integers(12, 16)), rng.uniform(0, 0.05))]
    assert kills.disturbed(words, tmp_path / "b", moments) == 2, moments
    assert kills.different(tmp_path / "a", tmp_path / "b") == [], moments


# ---------------------------------------------------------------- evaluate
def test_evaluate_is_what_the_library_finds(call, here):
    code, out, err = call("evaluate", "run", "--episodes", "3", "--seed", "7", "--json")
    assert (code, err) == (0, "")
    answer, agent = strict(out), no.load_agent(Path("run/agent"))
    (row,) = answer["runs"]
    assert (answer["episodes"], answer["seed"], answer["over_seeds"]) == (3, 7, None)
    assert (row["seed"], row["steps"], row["temperature"]) == (3, 300, agent.temperature)
    for way in ("deterministic", "stochastic"):
        kwargs = dict(max_episode_steps=20)
        found = evaluate_agent(agent, "Pendulum-v1", 3, 7, way == "deterministic", kwargs)
        assert row[way]["returns"] == found.returns.tolist() and row[way]["length"] == 20
        assert row[way]["mean"] == found.returns.mean() and row[way]["std"] == found.returns.std(ddof=1)
        assert row[way]["soft_mean"] == found.soft_returns.mean()
    assert row["stochastic"]["returns"] != row["deterministic"]["returns"]


def test_evaluate_in_lines(call, here):
    code, out, err = call("evaluate", "run", "--episodes", "1")
    assert (code, err) == (0, "") and "1 new episodes (seed 0)" in out and "±" not in out
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["seed", "3", "stochastic"]


def test_evaluate_over_seeds(call, together, monkeypatch):
    monkeypatch.chdir(together.folder)
    code, out, err = call("evaluate", "runs", "--episodes", "4", "--json")
    answer = strict(out)
    assert (code, err) == (0, "") and [row["seed"] for row in answer["runs"]] == [5, 6, 7]
    means = np.array([[row[way]["mean"] for way in ("deterministic", "stochastic")] for row in answer["runs"]])
    low, high = bootstrap_interval(means)
    for k, way in enumerate(("deterministic", "stochastic")):
        told = [answer["over_seeds"][way][name] for name in ("iqm", "low", "high")]
        assert told == [interquartile_mean(means)[k], low[k], high[k]] and low[k] < high[k]
    code, out, err = call("evaluate", "runs", "--episodes", "4")
    assert (code, err) == (0, "") and "over seeds: interquartile mean" in out and "±" in out


# ---------------------------------------------------------------- enjoy
def test_enjoy_films(call, here):
    code, out, err = call("enjoy", "run", "--video", "films", "--episodes", "2", "--deterministic", "--json")
    answer = strict(out)
    assert (code, err) == (0, "")
    assert sorted(map(str, Path("films").iterdir())) == answer["files"]
    assert answer["files"] == [f"films/SAC-Pendulum-v1-seed3-episode-{i}.mp4" for i in range(2)]
    assert all(os.path.getsize(file) > 1_000 for file in answer["files"])
    found = evaluate_agent(
        no.load_agent(Path("run/agent")), gymnasium.make("Pendulum-v1", max_episode_steps=20), 2, 0, deterministic=True
    )
    assert answer["returns"] == found.returns.tolist() and answer["lengths"] == [20, 20]


def test_enjoy_opens_a_window_where_there_is_a_display(call, here, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    modes, make = [], gymnasium.make

    def remember(id, **kwargs):
        modes.append(kwargs.get("render_mode"))
        return make(id, **kwargs | (dict(render_mode="rgb_array") if modes[-1] else {}))

    monkeypatch.setattr(gymnasium, "make", remember)
    code, out, err = call("enjoy", "run")
    assert (code, err) == (0, "") and modes == [None, "human"]
    assert "SAC on Pendulum-v1" in out and "episode" in out and "written" not in out


def test_enjoy_says_what_cannot_be_drawn(call, here, together, monkeypatch):
    code, out, err = call("enjoy", str(together.run), "--video", "films")
    assert (code, out, err.count("\n")) == (1, "", 1) and "nearopt/Pendulum-v0 does not draw itself" in err

    def broken(self):
        raise RuntimeError("no OpenGL\nat all")

    monkeypatch.setattr("gymnasium.envs.classic_control.pendulum.PendulumEnv.render", broken)
    code, out, err = call("enjoy", "run", "--video", "films")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "Pendulum-v1 cannot be drawn here (RuntimeError: no OpenGL at all)" in err


# ---------------------------------------------------------------- plot
def test_plot_draws_what_it_says(call, here, together):
    words = ["plot", "run", str(together.run), "--column", "return", "temperature", "--out", "a/b.png", "--json"]
    code, out, err = call(*words)
    answer = strict(out)
    assert (code, err, answer["file"]) == (0, "", "a/b.png") and Path("a/b.png").read_bytes()[:4] == b"\x89PNG"
    first, second, *others = answer["curves"]
    assert [row["column"] for row in answer["curves"]] == ["return"] * 2 + ["temperature"] * 2 and len(others) == 2
    assert (first["label"], first["seeds"], first["steps"]) == ("SAC on Pendulum-v1 max_episode_steps=20", 1, 300)
    found = curve([together.run / f"seed-{i}" for i in range(3)], "return", points=2)
    assert (second["seeds"], second["steps"], second["label"]) == (3, 400, "SAC on nearopt/Pendulum-v0")
    assert (second["iqm"], second["low"], second["high"]) == (found.iqm[-1], found.low[-1], found.high[-1])


def test_plot_tells_equal_tasks_apart_by_their_folders(call, here):
    shutil.copytree("run", "other")
    code, out, err = call("plot", "run", "other", "--out", "c.svg")
    assert (code, err) == (0, "") and "max_episode_steps=20: run " in out and "max_episode_steps=20: other " in out
    assert out.endswith("written\n  c.svg\n") and "<svg" in Path("c.svg").read_text()


# ---------------------------------------------------------------- tuned settings
@pytest.mark.parametrize("algorithm", tuned.ALGORITHMS)
def test_tuned_settings_are_settings_of_environments(algorithm):
    kind = class_of(tuned.ALGORITHMS[algorithm])
    task = Task(3, num_actions=2) if kind.method.discrete else Task(3, low=(-1.0,), high=(1.0,))
    tables = tomllib.loads((tuned.TABLES / f"{algorithm}.toml").read_text())
    assert tables
    for id, given in tables.items():
        assert id in gymnasium.registry, id
        settings = settle(kind.method.settings, task, given)
        defaults = dataclasses.asdict(settle(kind.method.settings, task, {}))
        assert all(getattr(settings, name) != defaults[name] for name in given), f"{id}: a default"
