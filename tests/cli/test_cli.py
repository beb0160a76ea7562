"""The command line as a user meets it: mostly in process, a few times as a real command."""

import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import nearopt as no
from nearopt.cli import doctor, infer, main, selftest, source, summary
from nearopt.cli.options import parse
from nearopt.cli.output import to_json
from tests.cli.conftest import MAZE

ROOT = Path(__file__).parents[2]
HEAVY = {"jax", "numpy", "scipy", "matplotlib", "gymnasium", "rich"}


POSITIONAL = {"source", "data", "algo", "env_id", "run_dir", "run_dirs"}  # in some verb


def command(*words, **options):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env, timeout=120, **options)


def strict(text):
    """Parses JSON that holds no NaN or Infinity."""

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def examples(text):
    """The words of every `nearopt ...` line."""
    lines = [line.split(" > ")[0] for line in text.splitlines() if line.startswith("  nearopt ")]
    return [shlex.split(line)[1:] for line in lines]


# ---------------------------------------------------------------- help
def test_help_names_every_verb(call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert all(re.search(rf"^  {verb} ", out, re.MULTILINE) for verb in main.VERBS)
    assert call()[::2] == (2, out)  # no verb: the same, as a usage error


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help_with_examples_that_parse(call, verb):
    code, out, err = call(verb, "--help")
    module = importlib.import_module(f"nearopt.cli.{verb}")
    found = examples(module.EXAMPLES)
    assert (code, err) == (0, "") and module.EXAMPLES in out and found
    for words in found:
        assert words[0] == verb
        parse(module.Options, verb, "", words[1:])
    for field in inspect.signature(module.Options).parameters:
        assert field in POSITIONAL or f"--{field.replace('_', '-')}" in out


def test_first_command_of_the_help_works(call):
    words = examples(main.help_text())[0]
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert re.search(r"log evidence +-?\d+\.\d+ nats", out) and "state 0" in out


def test_version(call):
    assert call("--version") == (0, f"nearopt {no.__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["infer", "--help"], ["--version"], ["infr"]])
def test_nothing_heavy_is_imported_to_tell_how_to_use_it(words):
    script = (
        "import sys, nearopt; from nearopt.cli.main import main; main(sys.argv[1:]); "
        f"print(*sorted({HEAVY - {'rich'} if words[0] == 'infer' else HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    done = command("-c", script, *words)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == ""


def test_defaults_are_those_of_the_library():
    options, library = inspect.signature(infer.Options).parameters, inspect.signature(no.infer).parameters
    assert options["temperature"].default == library["temperature"].default
    assert options["optimism"].default == library["optimism"].default
    assert source.read_prior(options["prior"].default) is library["prior"].default


# ---------------------------------------------------------------- answers
def test_json_is_what_the_library_answers(call, folder):
    words = "infer maze.txt --horizon 6 --temperature 0.5 --env-kwargs slip=0.2 --json"
    code, out, err = call(*words.split())
    assert (code, err, out.count("\n")) == (0, "", 1)
    answer, post = strict(out), no.infer(no.MDP.from_grid(MAZE, slip=0.2), 6, temperature=0.5)
    assert answer["log_partition"] == pytest.approx(post.log_partition, abs=1e-12, rel=0)
    for name in ("value", "state_probs", "policy"):
        assert np.allclose(answer[name], getattr(post, name), rtol=0, atol=1e-14)
    assert (answer["horizon"], answer["temperature"], answer["optimism"]) == (6, 0.5, 1.0)
    assert (answer["num_states"], answer["num_choices"], answer["files"]) == (5, 16, [])
    assert answer["terminal_probability"] == pytest.approx(post.state_probs[-1, -1])


def test_expected_reward_is_the_derivative_of_the_log_partition(call):
    words = "infer gym:FrozenLake-v1 --horizon 30 --json --env-kwargs is_slippery=True --temperature"
    inverse = np.array([2.0, 2.0 - 1e-4, 2.0 + 1e-4])  # rewards of FrozenLake belong to branches
    middle, low, high = (strict(call(*words.split(), repr(float(1 / b)))[1]) for b in inverse)
    slope = (high["log_partition"] - low["log_partition"]) / 2e-4
    assert middle["expected_reward"] == pytest.approx(slope, rel=1e-6)


def test_elbo_is_expected_reward_plus_entropy(call, folder):
    words = "infer maze.txt --horizon 6 --temperature 0.5 --optimism 0 --env-kwargs slip=0.2 --json"
    answer = strict(call(*words.split())[1])
    assert answer["elbo"] == answer["log_partition"] and answer["meaning"] == "ELBO"
    assert answer["elbo"] == pytest.approx(answer["expected_reward"] / 0.5 + answer["entropy"], abs=1e-10)


def test_impossible_success_is_an_answer(call, folder):
    words = "infer maze.txt --horizon 6 --env-kwargs slip=0.2 step_reward=-Infinity".split()
    code, out, err = call(*words, "--json")
    answer = strict(out)
    assert (code, err, answer["log_partition"]) == (0, "", "-inf")
    assert answer["value"][0][0] == "-inf" and answer["terminal_probability"] is None
    code, out, err = call(*words)
    assert (code, err) == (0, "") and "success is impossible" in out


def test_large_models_print_no_arrays(call, folder, monkeypatch):
    words = "infer maze.txt --horizon 6 --env-kwargs slip=0.2 --json".split()
    assert "policy" in strict(call(*words)[1])
    monkeypatch.setattr(summary, "SMALL", 5)
    assert "policy" not in strict(call(*words)[1])


@pytest.mark.parametrize("name", ["prior.npy", "prior.csv"])
def test_prior_from_a_file(call, folder, name):
    prior = np.tile([0.1, 0.6, 0.1, 0.2], (5, 1))
    np.save("prior.npy", prior)
    np.savetxt("prior.csv", prior, delimiter=",")
    answer = strict(call(*f"infer maze.txt --horizon 6 --env-kwargs slip=0.2 --json --prior {name}".split())[1])
    assert answer["log_partition"] == no.infer(no.MDP.from_grid(MAZE, slip=0.2), 6, prior=prior).log_partition


def test_pairs():
    pairs = ["slip=0.1", "name=8x8", "text=a=b", "yes=true", "no=False", "none=None", "list=[1]", "empty="]
    expected = dict(slip=0.1, name="8x8", text="a=b", yes=True, no=False, none=None, list=[1], empty="")
    assert source.read_pairs("--set", [pairs[:3], pairs[3:]]) == expected


def test_out_writes_what_it_lists(call, folder, monkeypatch):
    def draw(post, folder, *, trajectories, sweep):
        assert (len(trajectories), [other.temperature for other in sweep]) == (7, [0.125, 0.25, 1.0, 2.0])
        (folder / "world.png").touch()
        return [folder / "world.png"]

    monkeypatch.setattr("nearopt.figures.inference_figures", draw)
    words = "infer maze.txt --horizon 6 --temperature 0.5 --env-kwargs slip=0.2 --out a/b --samples 7 --seed 1 --json"
    code, out, err = call(*words.split())
    files = strict(out)["files"]
    assert (code, err, files) == (
        0,
        "",
        [f"a/b/{name}" for name in ("world.png", "posterior.safetensors", "summary.json")],
    )
    assert sorted(map(str, Path("a/b").iterdir())) == sorted(files)
    arrays = safetensors.numpy.load_file("a/b/posterior.safetensors")
    post = no.infer(no.MDP.from_grid(MAZE, slip=0.2), 6, temperature=0.5)
    for name in ("value", "state_probs", "log_forward", "policy"):
        assert np.allclose(arrays[name], getattr(post, name), rtol=0, atol=1e-14)
    assert np.array_equal(arrays["sampled_state"], post.sample(7, 1).state)
    saved = strict(Path("a/b/summary.json").read_text())
    assert saved["files"] == files and saved["log_partition"] == post.log_partition


def test_help_example_from_an_empty_folder(tmp_path):
    """The maze of the help, word for word, in a shell."""
    lines = [line for line in infer.EXAMPLES.splitlines() if "maze.txt" in line]
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "nearopt"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m nearopt "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run("\n".join(lines), shell=True, cwd=tmp_path, env=env, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    files = strict(done.stdout)["files"]
    assert all((tmp_path / file).is_file() for file in files)
    assert {"out/maze/trajectories.png", "out/maze/temperature.png", "out/maze/summary.json"} < set(files)


# ---------------------------------------------------------------- mistakes
WRONG = [
    ("nofile.txt", "nofile.txt does not exist"),
    ("model.xyz", "'.xyz'"),
    (".", "is a folder"),
    ("broken.txt", "line 1, column 3: 'x'"),
    ("broken.mdp", "broken.mdp"),
    ("maze.txt --horizon 0", "the horizon is 0"),
    ("maze.txt --horizon 1000000000000", "GiB of memory"),
    ("maze.txt --temperature -1", "the temperature is -1"),
    ("maze.txt --temperature nan", "the temperature is nan"),
    ("maze.txt --temperature 0", "temperature 0 is hard control"),
    ("maze.txt --optimism inf", "the optimism is inf"),
    ("maze.txt --prior fat", "the prior is 'fat'"),
    ("maze.txt --prior missing.npy", "missing.npy does not exist"),
    ("maze.txt --prior objects.npy", "objects.npy is no array of numbers"),
    ("maze.txt --prior header.csv", "header.csv is no table"),
    ("maze.txt --prior small.csv", "the prior has shape (1, 2)"),
    ("maze.txt --env-kwargs slip", "--env-kwargs has 'slip'"),
    ("maze.txt --env-kwargs slip=0 slip=1", "slip twice"),
    ("maze.txt --env-kwargs slip=0 --env-kwargs slip=1", "--env-kwargs gives slip twice"),
    ("maze.txt --env-kwargs slp=0.1", "no option 'slp'"),
    ("maze.txt --env-kwargs slip=often", "slip is 'often'"),
    ("maze.txt --out maze.txt", "maze.txt is a file"),
    ("maze.txt --out out --seed -1", "--seed is -1"),
    ("maze.txt --out out --samples -1", "--samples is -1"),
    ("gym:", "names no environment"),
    ("gym:FrozenLak-v1", "write gym:FrozenLake-v1"),
    ("gym:Taxi", "write gym:Taxi-v4"),
    ("gym:CartPole-v1", "no transition table"),
    ("gym:Taxi-v4 --env-kwargs fickle_passenger=true", "fickle_passenger=True"),
    ("gym:FrozenLake-v1 --env-kwargs slippery=1", "takes no 'slippery'; write is_slippery"),
    ("gym:FrozenLake-v1 --env-kwargs map_name=9x9", "map_name='9x9'"),
    ("gym:FrozenLake-v1 --env-kwargs discount=high", "the discount is 'high'"),
    ("FrozenLake-v1", "gym:FrozenLake-v1"),
]


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[words for words, _ in WRONG])
def test_bad_input_is_one_line_and_exit_code_1(call, folder, words, told):
    Path("model.xyz").touch()
    Path("broken.txt").write_text("S.x")
    Path("broken.mdp").write_text("no model")
    Path("header.csv").write_text("up,down\n1,2\n")
    Path("small.csv").write_text("1,2\n")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    before = sorted(Path().iterdir())
    horizon = [] if "--horizon" in words else ["--horizon", "3"]
    code, out, err = call("infer", *words.split(), *horizon)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nearopt: error: ") and told in err and "Traceback" not in err
    assert sorted(Path().iterdir()) == before  # nothing is left behind


USAGE = ["", "infr", "--nope", "infer", "infer maze.txt", "infer --horizon 3", "infer maze.txt --horizon many"]


@pytest.mark.parametrize("words", [*USAGE, "infer maze.txt --horizon 3 --nope", "doctor now"])
def test_usage_errors_exit_with_2(call, folder, words):
    code, out, err = call(*words.split())
    assert (code, out) == (2, "") and err and "Traceback" not in err


@pytest.mark.parametrize(
    ("word", "told"), [("infr", "'infer'"), ("Doctor", "'doctor'"), ("maze.txt", "nearopt infer maze.txt --horizon")]
)
def test_unknown_verb_suggests_the_nearest(call, word, told):
    code, out, err = call(word)
    assert (code, out, err.count("\n")) == (2, "", 1) and told in err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "out"), 1, "nearopt: error: out: Permission denied"),
        (MemoryError(), 1, "nearopt: error: not enough memory"),
        (ModuleNotFoundError("No module named 'gymnasium'", name="gymnasium"), 1, "'gymnasium' is not installed"),
        (no.NearoptError("a\nb", "c"), 1, "nearopt: error: a b; c.\n"),
    ],
)
def test_what_else_goes_wrong(call, monkeypatch, error, code, told):
    def fail(*_):
        raise error

    monkeypatch.setattr(infer, "answer", fail)
    got, out, err = call("infer", "maze.txt", "--horizon", "3")
    assert (got, out) == (code, "") and told in err and err.count("\n") == bool(told)


def test_a_bug_keeps_its_traceback(call, monkeypatch):
    monkeypatch.setattr(infer, "answer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("infer", "maze.txt", "--horizon", "3")


def test_reader_that_goes_away():
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "nearopt", "--help"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, env=env, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


# ---------------------------------------------------------------- doctor
def test_doctor_finds_nothing(call):
    code, out, err = call("doctor", "--json")
    answer = strict(out)
    assert (code, err, answer["ok"]) == (0, "", True)
    statuses = {check["name"]: check["status"] for check in answer["checks"]}
    assert "failed" not in statuses.values()
    assert sum("rows" in name for name in statuses) == 2 and sum("soft backup" in name for name in statuses) == 2
    assert answer["versions"]["nearopt"] == no.__version__ and answer["versions"]["jax"] and answer["cores"] >= 1


@pytest.mark.parametrize("broken", ["batched_sums", "soft_backup"])
def test_doctor_fails_where_arithmetic_is_wrong(call, monkeypatch, broken):
    """jaxlib 0.10.2 was wrong by 0.8 % in the last row."""
    monkeypatch.setattr(selftest, "SUMS", ((np.float32, 65), (np.float64, 33)))
    monkeypatch.setattr(selftest, "BACKUPS", (33,))
    right = getattr(selftest, broken)

    def wrong(*arguments):
        got = right(*arguments).copy()
        got[-1] *= 0.992
        return got

    assert call("doctor")[0] == 0
    monkeypatch.setattr(selftest, broken, wrong)
    code, out, err = call("doctor")
    assert (code, err) == (1, "") and re.search(r"^failed +.*1 of \d+ wrong; entry \d+ is", out, re.MULTILINE)


def test_doctor_survives_a_broken_installation(call, monkeypatch):
    def fail():
        raise RuntimeError("no backend\nat all")

    monkeypatch.setattr(doctor, "devices", fail)
    monkeypatch.setattr(selftest, "arithmetic", fail)
    monkeypatch.setattr(doctor, "version_of", lambda package: {"jax": "0.10.2", "scipy": None}.get(package, "9.0"))
    code, out, err = call("doctor")
    assert (code, err) == (1, "") and "RuntimeError: no backend at all" in out and "3 of" in out
    assert re.search(r"^warning +jax +0\.10\.2: .*#39103", out, re.MULTILINE)
    assert re.search(r"^failed +scipy +not installed", out, re.MULTILINE)
    assert strict(call("doctor", "--json")[1])["devices"] is None


def test_doctor_knows_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^\w-]", entry)[0] for entry in project["dependencies"]}
    assert names <= set(doctor.REQUIRED)


# ---------------------------------------------------------------- parts
def test_to_json():
    value = {
        "a": np.array([[1.0, -np.inf]]),
        "b": np.float64(np.inf),
        "c": None,
        "d": (True, np.int64(2)),
        "e": Path("x"),
    }
    assert strict(to_json(value)) == {"a": [[1.0, "-inf"]], "b": "inf", "c": None, "d": [True, 2], "e": "x"}


def test_demo_computes_its_numbers(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    assert spec and spec.loader
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    monkeypatch.setattr(demo, "draw", lambda posterior, sweep, folder: [folder / "x.png"])
    row, pictures = demo.solve(("lake", "gym:FrozenLake-v1", 30, 0.1, ()), tmp_path)
    post = no.infer(no.MDP.from_gymnasium("FrozenLake-v1"), 30, temperature=0.1)
    assert float(row[4]) == pytest.approx(post.log_partition, abs=1e-4)
    assert float(row[5]) == pytest.approx(post.state_probs[-1, 15], abs=1e-5)
    assert pictures == [tmp_path / "lake" / "x.png"]
