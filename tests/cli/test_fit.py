"""`nearopt fit` as a user meets it: numbers, files, the report, and what is said of bad input."""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

import nearopt as no
from nearopt.behaviour.estimator import BehaviourModel
from nearopt.cli import fit, fitted, main, recorded
from nearopt.mdp.errors import FeatureError, GroupError, NearoptError, ParseError
from tests.cli.test_cli import strict

MAZE = "#####\n#S.G#\n#...#\n#####\n"
WORDS = "fit walks.csv --mdp maze.txt --features features.csv --horizon 5 --holdout split=test".split()
HEADINGS = (
    *("What was asked", "Data", "Verdict", "The data over the world", "The fitted reward", "Coefficients"),
    *("Quality of the fit", "Predictive checks", "What the data cannot tell", "Beside other explanations"),
)


def walks():
    return no.infer(no.MDP.from_grid(MAZE), 5, optimism=0.0, temperature=0.5).sample(40, seed=0)


def prepare(folder):
    """A maze, walks through it of which the last ten are a test, and a feature with a name to be escaped."""
    walks().to_csv(folder / "walks.csv")
    head, *rows = (folder / "walks.csv").read_text().splitlines()
    split = [f"{row},{'test' if int(row.split(',')[0]) >= 30 else 'train'}" for row in rows]
    (folder / "walks.csv").write_text("\n".join([f"{head},split", *split, ""]))
    (folder / "maze.txt").write_text(MAZE)
    (folder / "features.csv").write_text("<b>goal\n0\n1\n2\n0.5\n1\n1.5\n")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder, what was printed, and the model of the library."""
    folder = tmp_path_factory.mktemp("fit")
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = []
        patch.setattr("builtins.print", lambda text, **kwargs: printed.append(text))
        assert main.main([*WORDS, "--report", "out", "--json"]) == 0
    features = np.array([0, 1, 2, 0.5, 1, 1.5])[:, None]
    model = BehaviourModel(no.MDP.from_grid(MAZE), features=features, horizon=5).fit(walks()[:30])
    return SimpleNamespace(folder=folder, printed=printed, model=model)


def test_options_are_those_of_the_library():
    options, library = inspect.signature(fit.Options).parameters, inspect.signature(BehaviourModel).parameters
    assert set(library) <= set(options)
    for name in ("reward", "time_varying", "l2", "smoothness", "likelihood"):
        assert options[name].default == library[name].default, name
    given = fit.settings(fit.Options(Path("x.csv"), "maze.txt"))
    assert {name: library[name].default for name in given} == given


# ---------------------------------------------------------------- answers
def test_json_is_what_the_library_answers(done):
    (text,) = done.printed
    answer, model = strict(text), done.model
    assert answer["coef"] == model.coef_.tolist() and answer["names"] == ["<b>goal"]
    assert answer["stderr"] == model.stderr().tolist()
    np.testing.assert_array_equal([answer["lower"], answer["upper"]], model.confidence_interval())
    assert (answer["temperature"], answer["optimism"], answer["discount"]) == (1, 0, 1)
    assert answer["log_likelihood"] == model.log_likelihood_ and answer["num_decisions"] == walks()[:30].num_decisions
    assert answer["score"] == model.score(walks()[30:]) and answer["train_score"] == model.score(walks()[:30])
    assert answer["converged"] is True and answer["identifiable"] is True and answer["gradient"] < 1e-6
    assert (answer["episodes"], answer["held_out_episodes"], answer["num_dropped"]) == (40, 10, 0)
    names = [row["name"] for row in answer["comparison"]]
    assert names[0] == "fitted agent" and {"empirical Markov", "uniform"} <= set(names)
    assert answer["comparison"][-1]["bits"] == pytest.approx(-2.0)


def test_the_folder_holds_what_is_listed(done):
    files = strict(done.printed[0])["files"]
    assert sorted(map(str, (done.folder / "out").iterdir())) == sorted(str(done.folder / name) for name in files)
    arrays, model = safetensors.numpy.load_file(done.folder / "out/fit.safetensors"), done.model
    for name in ("coef", "reward", "policy"):
        np.testing.assert_array_equal(arrays[name], getattr(model, f"{name}_"))
    np.testing.assert_array_equal([arrays["lower"], arrays["upper"]], model.confidence_interval())
    assert strict((done.folder / "out/fit.json").read_text()) == strict(done.printed[0])


def test_the_report_is_one_file_and_tells_everything(done):
    page = (done.folder / "out/report.html").read_text()
    assert [page.index(f">{heading}<") for heading in HEADINGS] == sorted(
        page.index(f">{heading}<") for heading in HEADINGS
    )
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 5
    assert not re.findall(r"<script|(?:src|href)=\"(?!data:|#)|url\(|@import|https?:", page)
    assert "&lt;b&gt;goal" in page and "<b>goal" not in page
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))
    assert " ".join(["nearopt", *WORDS, "--report out --json"]) in words
    for told in (
        f"jax {__import__('jax').__version__}",
        "SHA-256",
        "The fit has converged",
        "10",
        "“empirical Markov”",
    ):
        assert told in words
    assert fitted.number(float(done.model.coef_[0]), full=True) in words


def test_the_table_tells_the_verdict(call, done, monkeypatch):
    monkeypatch.chdir(done.folder)
    code, out, err = call(*WORDS)
    assert (code, err) == (0, "")
    bits = done.model.score(walks()[30:]) / np.log(2)
    assert f"held-out decisions with {fitted.fixed(bits)} bits" in out and "converged" in out
    assert re.search(r"empirical Markov +−\d\.\d{3} +−\d\.\d{3}", out) and "<b>goal" in out
    assert "the data tell all 1 parameters apart" in out


def test_a_better_explanation_is_named():
    row = lambda **x: SimpleNamespace(name="else", held_out=-0.5, bits=-0.72, **x)
    assert "WORSE than “else” (−0.720 bits), by 0.144 ± 0.014" in fitted.beside(row(difference=-0.1, error=0.01))
    assert "about as well" in fitted.beside(row(difference=-0.1, error=0.06))
    assert "better than" in fitted.beside(row(difference=0.1, error=float("nan")))
    assert "no comparison" in fitted.beside(row(difference=float("nan"), error=float("nan")))


def test_numbers_are_readable():
    shown = [fitted.number(x) for x in (-1.23456, 0, 12345.6, 3.4e-7, np.inf, -np.inf, np.nan)]
    assert shown == ["−1.235", "0", "12,346", "3.4e-07", "∞", "−∞", "–"]
    assert fitted.number(3.0, full=True) == "3.000" and fitted.fixed(-1e-9) == "0.000"


# ---------------------------------------------------------------- what is held out
def options(**changes):
    names = dict(episode="episode", time="t", state="state", action="action", subject=None, invalid="refuse", seed=0)
    return SimpleNamespace(**dict(data=Path("walks.csv"), holdout="0.2") | names | changes)


@pytest.fixture
def here(tmp_path, monkeypatch):
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return no.MDP.from_grid(MAZE)


def test_a_share_of_the_episodes_is_held_out(here):
    parts = [recorded.read_data(options(seed=seed), here) for seed in (0, 0, 1)]
    assert [len(part.held_out) for part in parts] == [8, 8, 8]
    assert parts[0].held_out == parts[1].held_out and parts[0].held_out != parts[2].held_out
    together = np.concatenate([parts[0].train.episode, parts[0].held_out.episode])
    assert sorted(together.tolist()) == list(range(40))
    assert len(recorded.read_data(options(holdout="0"), here).held_out) == 0


def test_a_column_tells_what_is_held_out(here):
    found = recorded.read_data(options(holdout="split=test"), here)
    assert found.held_out.episode.tolist() == list(range(30, 40)) and found.how == "those with split = test"
    with pytest.raises(GroupError, match="no episode has split = 'x'; its values are 'test', 'train'"):
        recorded.read_data(options(holdout="split=x"), here)
    Path("walks.csv").write_text(re.sub(r"^(3,1,.*)train$", r"\1test", Path("walks.csv").read_text(), flags=re.M))
    with pytest.raises(GroupError, match="episode 3 has 'split' 'test', 'train'"):
        recorded.read_data(options(holdout="split=test"), here)


def test_what_cannot_be_is_refused_or_listed_with_its_line(here):
    lines = ["episode,t,state,action", "0,0,0,1", "0,1,4,1", "1,0,0,9", "1,1,x,0", "2,0,0,1", "2,1,1,1"]
    Path("walks.csv").write_text("\n".join(lines))
    with pytest.raises(NearoptError, match=r"walks.csv: line 5: the state is 'x'.*, or pass --invalid drop"):
        recorded.read_data(options(), here)
    Path("walks.csv").write_text("\n".join(line for line in lines if "x" not in line))
    with pytest.raises(NearoptError, match=r"walks.csv: line 2 .*cannot lead to state 4.*, or pass --invalid drop"):
        recorded.read_data(options(), here)
    Path("walks.csv").write_text("\n".join(lines))
    found = recorded.read_data(options(invalid="drop", holdout="0"), here)
    assert found.num_dropped == 3 and found.train.num_decisions == 3
    told = "\n".join(found.dropped)
    assert "line 5: the state is 'x'" in told and "line 2 (" in told and "action 9 is not among 0 .. 3" in told


# ---------------------------------------------------------------- features
def test_features_are_read_by_row_name_and_choice(tmp_path):
    mdp = no.MDP.from_arrays(np.ones((2, 2, 2)) / 2, np.zeros(2), state_names=("a", "b"), action_names=("go", "stay"))
    path = tmp_path / "f.csv"
    path.write_text("x, y\n1,2\n3,4\n")
    table, names = recorded.read_features(path, mdp)
    assert table.tolist() == [[1, 2], [3, 4]] and names == ("x", "y")
    path.write_text("state,x\nb,3\n0,1\n")
    assert recorded.read_features(path, mdp)[0].tolist() == [[1], [3]]
    path.write_text("state,x,action\nb,3,stay\na,1,1\na,2,0\nb,4,go\n")
    assert recorded.read_features(path, mdp)[0].tolist() == [[[2], [1]], [[4], [3]]]
    np.save(tmp_path / "f.npy", np.ones((2, 2, 3)))
    assert recorded.read_features(tmp_path / "f.npy", mdp)[0].shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("state,x\na,1\n", FeatureError, "no row for state 1"),
        ("state,x\na,1\na,2\n", FeatureError, "line 3: state 0 .* again"),
        ("state,x\na,1\nc,2\n", FeatureError, "line 3: state 'c' is not among 0 .. 1"),
        ("x\n1\nyes\n", FeatureError, "line 3: x is 'yes'"),
        ("1\n2\n", FeatureError, "line 1 holds numbers"),
        ("x,y\n1\n2,3\n", ParseError, "line 2: 1 values, the header names 2"),
        ("action,x\ngo,1\n", FeatureError, "no column 'state'"),
    ],
)
def test_features_that_cannot_be_read_name_their_line(tmp_path, text, error, told):
    mdp = no.MDP.from_arrays(np.ones((2, 2, 2)) / 2, np.zeros(2), state_names=("a", "b"))
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(error, match=told):
        recorded.read_features(tmp_path / "f.csv", mdp)


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("walks.csv --mdp maze.txt", "--reward linear needs features; pass --features FILE"),
        ("none.csv --mdp maze.txt --reward state", "none.csv does not exist"),
        ("walks.csv --mdp none.txt --reward state", "none.txt does not exist"),
        ("walks.csv --mdp maze.txt --reward state --time when", "no column 'when'"),
        ("walks.csv --mdp maze.txt --reward state --episode trial", "--episode COLUMN"),
        ("walks.csv --mdp maze.txt --reward state --holdout 1", "--holdout is '1'"),
        ("walks.csv --mdp maze.txt --reward state --holdout who=a", "no column 'who'"),
        ("walks.csv --mdp maze.txt --reward state --temperature hot", "--temperature is 'hot'; give a number, or fit"),
        ("walks.csv --mdp maze.txt --reward state --horizon long", "--horizon is 'long'"),
        ("walks.csv --mdp maze.txt --reward state --by subject", "--subject COLUMN"),
        ("walks.csv --mdp maze.txt --reward state --level 95", "--level is 95"),
        ("walks.csv --mdp maze.txt --reward maps", "give how many: --features 2"),
        ("walks.csv --mdp maze.txt --reward state --report maze.txt", "choose another folder for --report"),
        ("walks.csv --mdp maze.txt --features walks.csv --horizon 5", "walks.csv: line 2"),
    ],
)
def test_refusals_are_one_line_and_exit_code_1(call, here, words, told):
    before = sorted(Path().iterdir())
    code, out, err = call("fit", *words.split(), "--json")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nearopt: error: ") and told in err
    assert sorted(Path().iterdir()) == before


def test_an_unknown_reward_is_a_usage_error(call, here):
    code, out, err = call("fit", "walks.csv", "--mdp", "maze.txt", "--reward", "guess")
    assert (code, out) == (2, "") and "state_action" in err
