"""`nearopt recover` as a user meets it: numbers, files, sentences, and what is said of bad input."""

import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

import nearopt as no
from nearopt.behaviour.recovery import Recovery
from nearopt.cli import main, recover
from tests.cli.test_cli import strict

MAZE = "#####\n#S.G#\n#...#\n#####\n"
WORDS = "recover maze.txt --features features.csv --horizon 5 --trajectories 30 --repetitions 6 --seed 3".split()
FEATURES = np.array([[0, 1], [1, 0], [2, 1], [0.5, 0], [1, 0], [1.5, 1]])


def prepare(folder):
    (folder / "maze.txt").write_text(MAZE)
    rows = [",".join(map(str, row)) for row in FEATURES]
    (folder / "features.csv").write_text("\n".join(["goal,wall", *rows, ""]))


def ask(**more):
    """The library's answer to WORDS --coef 1,-0.5."""
    model = no.BehaviourModel(no.MDP.from_grid(MAZE), features=FEATURES, horizon=5)
    asked = dict(trajectories=30, decisions=5, repetitions=6, seed=3) | more
    return no.recover(model, {"coef": [1.0, -0.5]}, **asked)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder, what was printed, and what the library answers."""
    folder = tmp_path_factory.mktemp("recover")
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = []
        patch.setattr("builtins.print", lambda text="", **kwargs: printed.append(text))
        assert main.main([*WORDS, "--coef", "1,-0.5", "--out", "out", "--json"]) == 0
    return SimpleNamespace(folder=folder, printed=printed, found=ask())


@pytest.fixture
def here(tmp_path, monkeypatch):
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_options_are_those_of_the_library():
    options, library = inspect.signature(recover.Options).parameters, inspect.signature(no.recover).parameters
    for name in ("trajectories", "repetitions", "level", "kind", "seed"):
        assert options[name].default == library[name].default, name
    assert recover.LONGEST == library["decisions"].default


# ---------------------------------------------------------------- answers
def test_json_is_what_the_library_answers(done):
    (text,) = done.printed
    answer, found = strict(text), done.found
    assert answer["names"] == ["goal", "wall"] and answer["truth"] == [1.0, -0.5]
    for name in ("mean", "bias", "spread", "mean_stderr", "coverage", "coverage_interval", "endless"):
        np.testing.assert_array_equal(answer[name], getattr(found, name), err_msg=name)
    assert answer["converged"] == 1 and answer["failed"] == 0 and answer["faults"] == list(found.faults)
    assert (answer["decisions"], answer["trajectories"], answer["kind"], answer["level"]) == (5, 30, "hessian", 0.95)
    assert any("So few repetitions (6)" in sentence for sentence in answer["verdict"])


def test_out_writes_what_it_lists(done):
    answer, found = strict(done.printed[0]), done.found
    files = sorted(str(path.relative_to(done.folder)) for path in (done.folder / "out").iterdir())
    assert files == sorted(answer["files"]) == [f"out/recovery.{end}" for end in ("json", "png", "safetensors")]
    assert strict((done.folder / "out/recovery.json").read_text()) == answer
    arrays = safetensors.numpy.load_file(done.folder / "out/recovery.safetensors")
    for name in recover.ARRAYS:
        np.testing.assert_array_equal(arrays[name], getattr(found, name), err_msg=name)
    assert arrays["converged"].tolist() == [True] * 6


def test_the_table_and_coefficients_that_are_drawn(call, here):
    words = [*WORDS, "--repetitions", "2"]
    answer = strict(call(*words, "--json")[1])
    assert answer["truth"] == np.random.default_rng([3, 1]).normal(size=2).tolist()
    code, out, err = call(*words)
    assert (code, err) == (0, "") and "seed 3, true coefficients drawn" in out
    for k, name in enumerate(("goal", "wall")):
        (row,) = (line.split() for line in out.splitlines() if line.startswith(f"  {name}"))
        assert row[:3] == [name, f"{answer['truth'][k]:.4g}", f"{answer['mean'][k]:.4g}"]
    assert answer["verdict"] and all(sentence in out for sentence in answer["verdict"])


def test_coefficients_from_files_and_with_a_minus_in_front(call, here):
    np.save("coef.npy", [-0.5, 1.0])
    Path("coef.csv").write_text("-0.5,1\n")
    for given in (["--coef", "-0.5,1"], ["--coef=-0.5,1"], ["--coef", "coef.npy"], ["--coef", "coef.csv"]):
        code, out, err = call(*WORDS, *given, "--repetitions", "1", "--json")
        assert (code, err) == (0, "") and strict(out)["truth"] == [-0.5, 1.0], given


def test_every_setting_arrives(call, here):
    words = (
        "--coef 1,-0.5 --repetitions 2 --l2 0.01 --kind opg --level 0.5 --temperature 2 --optimism 0.5 --discount 0.9"
    )
    code, out, err = call(*WORDS, *words.split(), "--json")
    dials = dict(temperature=2.0, optimism=0.5, discount=0.9, l2=0.01)
    model = no.BehaviourModel(no.MDP.from_grid(MAZE), features=FEATURES, horizon=5, **dials)
    asked = dict(trajectories=30, decisions=5, repetitions=2, seed=3, kind="opg", level=0.5)
    found = no.recover(model, {"coef": [1.0, -0.5]}, **asked)
    answer = strict(out)
    for name in ("mean", "mean_stderr", "coverage"):
        assert answer[name] == getattr(found, name).tolist(), name
    assert answer["verdict"] == [
        s.replace("coefficient 0", "goal").replace("coefficient 1", "wall") for s in found.verdict()
    ]


# ---------------------------------------------------------------- sentences
def by_hand(shift=0.0, shrink=1.0, repetitions=400):
    """Estimates with errors of 1, shifted, and intervals of 95 % that are shrunk."""
    estimate = 2.0 + shift + np.random.default_rng(0).normal(size=(repetitions, 1))
    error = np.full_like(estimate, shrink)
    bounds = estimate - 1.96 * error, estimate + 1.96 * error
    return Recovery(("size",), np.array([2.0]), estimate, error, *bounds, np.ones(repetitions, bool), 0.95)


def test_verdicts():
    told = lambda found: (found.faults[0], " ".join(found.verdict()))
    assert told(by_hand()) == ("", "Recovered: size.")
    fault, text = told(by_hand(shrink=0.6))
    assert fault == "too short" and "Intervals too short" in text and "Recovered" not in text and "off on" not in text
    assert told(by_hand(shrink=2))[0] == "too long"
    fault, text = told(by_hand(shift=0.4, shrink=1.2))
    assert fault == "biased" and "size by +0." in text and "Recovered" not in text
    fault, text = told(by_hand(shift=2.0))
    assert fault == "too short" and "size by +" in text
    endless = by_hand()
    endless.upper[:300] = np.inf
    assert told(endless) == ("not told", "Such data do not tell: size.")
    stuck = by_hand()
    assert told(replace(stuck, estimate=np.full_like(stuck.estimate, 2.0)))[0] == "not told"
    nothing = replace(by_hand(), lower=np.full((400, 1), np.nan))
    assert told(nothing)[0] == "no interval" and "none" in nothing.describe()
    assert "So few repetitions (20) leave" in told(by_hand(repetitions=20))[1]


def test_failed_fits_are_misses_and_told():
    found = by_hand()
    for array in (found.estimate, found.stderr, found.lower, found.upper):
        array[:100] = np.nan
    found.converged[:120] = False
    assert found.coverage[0] < 0.75 and found.faults == ("too short",) and np.isfinite(found.spread[0])
    assert "120 of 400 fits did not converge, 100 of them because no fit could be made." in found.verdict()
    alone = replace(by_hand(repetitions=1), truth=np.array([2.0]))
    assert np.isnan(alone.spread[0]) and "nan" in alone.describe()


# ---------------------------------------------------------------- bad input
DIAL = "--reward model --temperature fit"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("recover maze.txt", "--reward linear needs features"),
        ("recover no.txt --reward state", "no.txt does not exist"),
        ("recover maze.txt --reward state --features features.csv", "no use for features"),
        ("recover maze.txt --reward model", "nothing is fitted"),
        (f"recover maze.txt {DIAL}", "--true-temperature 0.5"),
        (f"recover maze.txt {DIAL} --true-temperature -1 --horizon 5", "true temperature is -1"),
        (f"recover maze.txt {DIAL} --true-temperature 1", "true parameters has no finite value"),
        (f"recover maze.txt {DIAL} --true-temperature 1 --horizon 5 --coef 1", "has no coefficients"),
        ("recover maze.txt --reward state --true-optimism 0.5", "add --optimism fit"),
        ("recover maze.txt --reward model --optimism fit --true-optimism 0.5 --horizon 5", "there is no luck"),
        (f"{' '.join(WORDS)} --coef x", "--coef is 'x'"),
        (f"{' '.join(WORDS)} --coef 1", "--coef has 1 number; give 2"),
        (f"{' '.join(WORDS)} --coef no.npy", "no.npy does not exist"),
        (f"{' '.join(WORDS)} --coef maze.csv", "maze.csv does not exist"),
        (f"{' '.join(WORDS)} --coef nan,1", "finite numbers"),
        (f"{' '.join(WORDS)} --decisions 6", "6 decisions do not fit into a horizon of 5"),
        (f"{' '.join(WORDS)} --horizon soon", "--horizon is 'soon'"),
        (f"{' '.join(WORDS)} --repetitions 0", "--repetitions is 0"),
        (f"{' '.join(WORDS)} --trajectories 1 --kind bootstrap", "of which there is 1"),
        (f"{' '.join(WORDS)} --level 95", "--level is 95"),
        (f"{' '.join(WORDS)} --l2 -1", "l2 is -1"),
        (f"{' '.join(WORDS)} --out maze.txt", "is a file, not a folder"),
    ],
)
def test_refusals_are_one_line_and_exit_code_1(call, here, words, told):
    before = sorted(Path().iterdir())
    code, out, err = call(*words.split(), "--json")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nearopt: error: ") and told in err
    assert sorted(Path().iterdir()) == before


def test_an_unknown_kind_is_a_usage_error(call, here):
    code, out, err = call(*WORDS, "--kind", "guess")
    assert (code, out) == (2, "") and "profile" in err
