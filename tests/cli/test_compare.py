"""`nearopt compare` as a user meets it."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import nearopt as no
from nearopt.cli import compare
from tests.cli.conftest import MAZE
from tests.cli.test_cli import strict

WORDS = "compare maze.txt --horizon 6 --temperature 0.5 --prior uniform --env-kwargs slip=0.2".split()


def expected():
    return no.ledger(no.MDP.from_grid(MAZE, slip=0.2), 6, temperature=0.5, prior="uniform")


def test_json_is_what_the_library_answers(call, folder):
    code, out, err = call(*WORDS, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    answer, led = strict(out), expected()
    for name in (*compare.ENTRIES, *compare.RETURNS):
        assert answer[name] == getattr(led, name), name
    assert answer["luck"] == [luck._asdict() for luck in led.luck(compare.MOST_LUCK)]
    for name in compare.ANSWERS:
        for key in ("value", "state_probs", "policy"):
            assert np.allclose(answer[name][key], getattr(getattr(led, name), key), rtol=0, atol=1e-14)
    assert (answer["horizon"], answer["temperature"], answer["prior"], answer["files"]) == (6, 0.5, "uniform", [])
    assert (answer["num_states"], answer["num_actions"], answer["num_choices"], answer["discount"]) == (5, 4, 16, 1)


def test_the_table_tells_every_entry(call, folder):
    code, out, err = call(*WORDS)
    led = expected()
    assert (code, err) == (0, "")
    for name in (*compare.ENTRIES, *compare.RETURNS):
        assert f" {getattr(led, name):.6g} " in f"{out} ", name
    best = led.luck(1)[0]
    assert f"state {best.state}, action {best.action}" in out and f"{best.nats:.3g} nats" in out


def test_out_writes_what_it_lists(call, folder, monkeypatch):
    def draw(led, folder):
        (folder / "ledger.png").touch()
        return [folder / "ledger.png"]

    monkeypatch.setattr("nearopt.figures.comparison_figures", draw)
    code, out, err = call(*WORDS, "--out", "a/b", "--json")
    files = strict(out)["files"]
    assert (code, err) == (0, "")
    assert files == [f"a/b/{name}" for name in ("ledger.png", "ledger.safetensors", "summary.json")]
    assert sorted(map(str, Path("a/b").iterdir())) == sorted(files)
    arrays, led = safetensors.numpy.load_file("a/b/ledger.safetensors"), expected()
    assert len(arrays) == 9
    assert np.allclose(arrays["variational_value"], led.variational.value, rtol=0, atol=1e-14)
    assert np.allclose(arrays["optimal_policy"], led.optimal.policy, rtol=0, atol=1e-14)
    saved = strict(Path("a/b/summary.json").read_text())
    assert saved["files"] == files and saved["log_evidence"] == led.log_evidence and "exact" not in saved


def test_infinite_entries_are_words(call, folder):
    """A step is forbidden that no policy is sure to avoid: walking on may slip into the trap."""
    transition = np.zeros((5, 4, 5))  # the shape of the maze: shared compiled code
    transition[0, 0, 1:3], transition[1, 0, 1], transition[2, 0, 2] = 0.5, 1, 1
    end = np.arange(5) > 2
    model = no.MDP.from_arrays(transition, np.where(np.arange(5) == 2, -np.inf, 0), initial=np.eye(5)[0], terminal=end)
    model.save("trap.mdp")
    words = "compare trap.mdp --horizon 6".split()
    answer = strict(call(*words, "--json")[1])
    assert (answer["elbo"], answer["kl_dynamics"], answer["actual_return"]) == ("-inf", "inf", "-inf")
    code, out, err = call(*words)
    assert (code, err) == (0, "") and "-inf" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("maze.txt --temperature 0", "the temperature is 0, where there is no evidence"),
        ("maze.txt --temperature -1", "the temperature is -1"),
        ("maze.txt --horizon 0", "the horizon is 0"),
        ("maze.txt --horizon 1000000000000", "GiB of memory"),
        ("maze.txt --prior fat", "the prior is 'fat'"),
        ("maze.txt --out maze.txt", "maze.txt is a file"),
        ("maze.txt --env-kwargs step_reward=-Infinity", "no behaviour of 3 steps succeeds"),
        ("nofile.txt", "nofile.txt does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(call, folder, words, told):
    before = sorted(Path().iterdir())
    horizon = [] if "--horizon" in words else ["--horizon", "3"]
    code, out, err = call("compare", *words.split(), *horizon)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nearopt: error: ") and told in err and "Traceback" not in err
    assert sorted(Path().iterdir()) == before


def test_large_models_list_no_luck(call, folder, monkeypatch):
    monkeypatch.setattr("nearopt.cli.summary.MOST_WORK", 1)
    assert strict(call(*WORDS, "--json")[1])["luck"] is None
