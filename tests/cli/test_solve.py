"""`nearopt solve` as a user meets it."""

import contextlib
import inspect
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import safetensors.numpy

import nearopt as no
from nearopt.cli import plan, solve
from nearopt.planning.solve import METHODS
from tests.cli.conftest import MAZE
from tests.cli.test_cli import strict

WORDS = "solve maze.txt --temperature 0.3 --prior uniform --env-kwargs slip=0.2".split()
HARD = "solve maze.txt --temperature 0".split()


def expected(**dials):
    return no.solve(no.MDP.from_grid(MAZE, slip=0.2), **dict(temperature=0.3, prior="uniform") | dials)


def test_options_are_those_of_the_library():
    options, library = inspect.signature(solve.Options).parameters, inspect.signature(no.solve).parameters
    for name in ("temperature", "optimism", "tol", "method"):
        assert options[name].default == library[name].default, name
    assert get_args(solve.Options.__annotations__["method"]) == tuple(METHODS)


# ---------------------------------------------------------------- answers
def test_json_is_what_the_library_answers(call, folder):
    code, out, err = call(*WORDS, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    answer, sol = strict(out), expected()
    for name in solve.ARRAYS:
        shown = np.array(answer[name], float)  # "-inf" is read as a number
        np.testing.assert_array_equal(shown, getattr(sol, name), err_msg=name)
    for name in (*plan.PROOF, "temperature", "optimism", "prior"):
        assert answer[name] == getattr(sol, name), name
    assert answer["q"][-1] == ["-inf"] * 4 and answer["converged"] is True
    assert [answer[f"initial_{name}"] for name in ("lower", "value", "upper")] == [
        sol.lower[0], sol.value[0], sol.upper[0]
    ]  # fmt: skip
    assert (answer["num_states"], answer["num_actions"], answer["num_choices"], answer["discount"]) == (5, 4, 16, 1)
    assert (answer["path"], answer["files"]) == (None, [])


def test_every_option_arrives(call, folder):
    words = "--optimism 0.5 --tol 1e-4 --method value_iteration --json".split()
    answer, sol = strict(call(*WORDS, *words)[1]), expected(optimism=0.5, tol=1e-4, method="value_iteration")
    assert (answer["optimism"], answer["tol"], answer["method"]) == (0.5, 1e-4, "value_iteration")
    assert (answer["value"], answer["passes"], answer["steps"]) == (sol.value.tolist(), sol.passes, 0)
    assert answer["width"] > 1e-8


def test_the_table_tells_the_certificate(call, folder):
    code, out, err = call(*WORDS)
    sol = expected()
    assert (code, err) == (0, "")
    for number in (sol.lower[0], sol.value[0], sol.upper[0]):
        assert f" {float(number)!r} " in f"{out.replace(chr(10), ' ')} "
    assert f"{sol.width:.3g}" in out and "tol           1e-08" in out and "converged" in out
    assert f"passes        {sol.passes} " in out and f"Newton steps  {sol.steps} " in out and "method auto" in out
    assert "trajectory" not in out


def test_the_best_trajectory(call, folder):
    code, out, err = call(*HARD)
    assert (code, err) == (0, "")
    assert "4 decisions  from state 0 to state 4, which is terminal" in out and "right × 4" in out
    path = strict(call(*HARD, "--json")[1])["path"]
    assert path == dict(state=[0, 1, 2, 3, 4], action=[1] * 4, ended=True)
    assert strict(call(*HARD, *"--json --env-kwargs slip=0.2".split())[1])["path"] is None  # chance
    assert strict(call(*HARD[:-1], "0.3", "--json")[1])["path"] is None  # soft


def test_trajectories_that_do_not_end_are_told_in_short():
    mdp = no.MDP.from_grid("S..", discount=0.9)
    path = lambda state, action: dict(state=state, action=action, ended=False)
    rows = plan.path_rows(path([0, 1, 2, 1], [1, 1, 3]), mdp)
    assert rows[0] == ("3 decisions", "from state 0 back to state 1, and so on")
    assert rows[1] == ("actions", "right × 2, left")
    rows = plan.path_rows(path([0, 1], [1]), mdp)
    assert rows[0] == ("1 decision", "from state 0 and more")
    zigzag = [1, 3] * plan.RUNS
    assert plan.path_rows(path([0, *([1, 0] * plan.RUNS)], zigzag), mdp)[1][1].count("right") == plan.RUNS / 2


def test_the_expected_bounds_hold_exactly():
    """Against rational arithmetic; rounding the plain sum would not do."""
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(200):
        value, weight = rng.normal(size=7) * 10.0 ** rng.integers(-3, 9, 7), rng.random(7)
        weight /= weight.sum()
        true = sum(Fraction(float(p)) * Fraction(float(v)) for p, v in zip(weight, value, strict=True))
        low, middle, high = (Fraction(plan.expected(weight, value, side)) for side in (-1, 0, 1))
        assert low <= true <= high and low < middle < high
        assert high - low <= Fraction(2) ** -48 * Fraction(float(np.abs(value).max()))
        moved += middle != true
    assert moved > 100
    assert plan.expected(np.eye(3)[1], np.array([1.0, 0.1, 2.0]), 1) == 0.1  # a known first state: no rounding


def test_large_models_print_no_arrays(call, folder, monkeypatch):
    monkeypatch.setattr("nearopt.cli.summary.SMALL", 4)
    assert not set(solve.ARRAYS) & set(strict(call(*WORDS, "--json")[1]))


def test_out_writes_what_it_lists(call, folder, monkeypatch):
    def draw(sol, folder):
        (folder / "value.png").touch()
        return [folder / "value.png"]

    monkeypatch.setattr("nearopt.figures.solution_figures", draw)
    code, out, err = call(*WORDS, "--out", "a/b", "--json")
    files = strict(out)["files"]
    assert (code, err) == (0, "")
    assert files == [f"a/b/{name}" for name in ("value.png", "solution.safetensors", "summary.json")]
    assert sorted(map(str, Path("a/b").iterdir())) == sorted(files)
    arrays, sol = safetensors.numpy.load_file("a/b/solution.safetensors"), expected()
    assert sorted(arrays) == sorted(solve.ARRAYS)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], getattr(sol, name))
    saved = strict(Path("a/b/summary.json").read_text())
    assert saved["files"] == files and saved["width"] == sol.width and "value" not in saved


def test_progress_is_told(call, folder, monkeypatch):
    told = []

    @contextlib.contextmanager
    def progress(text):
        told.append(text)
        yield told.append

    monkeypatch.setattr("nearopt.cli.output.progress", progress)
    call(*WORDS)
    assert told[0] == "reading the model" and any(line.startswith("solving: step ") for line in told)
    call(*WORDS, "--method", "value_iteration")
    assert any(line.startswith("solving: sweep ") for line in told)


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("maze.txt --temperature 1", "so that the value is +inf"),
        ("maze.txt --temperature 0.3 --env-kwargs step_reward=0", "one can stay there for nothing"),
        ("maze.txt --env-kwargs step_reward=-Infinity", "avoids a reward of -inf"),
        ("endless.txt", "no policy surely ends an episode"),
        ("maze.txt --temperature 0.3 --tol 1e-18", "bounds 1e-18 apart cannot be proved"),
        ("maze.txt --tol 0", "the tolerance is 0"),
        ("maze.txt --temperature -1", "the temperature is -1"),
        ("maze.txt --temperature 0 --optimism 1", "temperature 0 is hard control"),
        ("maze.txt --prior fat", "the prior is 'fat'"),
        ("maze.txt --out maze.txt", "maze.txt is a file"),
        ("nofile.txt", "nofile.txt does not exist"),
    ],
)
def test_refusals_are_one_line_and_exit_code_1(call, folder, words, told):
    Path("endless.txt").write_text("S..\n")
    before = sorted(Path().iterdir())
    code, out, err = call("solve", *words.split(), "--json")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nearopt: error: ") and told in err and "Traceback" not in err
    assert sorted(Path().iterdir()) == before


def test_an_unknown_method_is_a_usage_error(call, folder):
    code, out, err = call("solve", "maze.txt", "--method", "guess")
    assert (code, out) == (2, "") and "policy_iteration" in err
