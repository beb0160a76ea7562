"""What the documents say is so: their code runs and prints what they show, their names and files exist, their
identities hold. The doctests of the package run here too."""

import doctest
import importlib
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

import nearopt as no
from nearopt.cli.main import main
from tests.oracles import random_world, to_arrays

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "nearopt"
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
THEORY = (ROOT / "docs" / "theory.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
OWNERS = {  # what a name in backticks starts with → where it is found
    "backup": "nearopt.backup",
    "functional": "nearopt.functional",
    "messages": "nearopt.inference.messages",
    "MDP": "nearopt.mdp.model:MDP",
    "Ledger": "nearopt.inference.ledger:Ledger",
    "Posterior": "nearopt.inference.posterior:Posterior",
    "Solution": "nearopt.planning.solve:Solution",
    "Trajectories": "nearopt.records.trajectories:Trajectories",
    "refusals": "nearopt.planning.refusals",
    "Blocks": "nearopt.mdp.blocks:Blocks",
}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# ---------------------------------------------------------------- the code of the README
@pytest.mark.parametrize("code, shown", list(zip(blocks(README, "python"), blocks(README, "text"), strict=True)))
def test_the_examples_print_what_the_readme_shows(code, shown, tmp_path, capsys):
    assert len(code.splitlines()) <= 18
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out == shown


COMMANDS = [line for block in blocks(README, "sh") for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme_work(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nearopt.figures.inference_figures", lambda *_, **__: [])  # drawing has tests of its own
    program, *words = shlex.split(command)
    assert program == "nearopt"
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out and not said.err
    folder = [Path(after) for word, after in zip(words, words[1:], strict=False) if word == "--out"]
    assert all((path / "posterior.safetensors").is_file() for path in folder)


def test_the_readme_shows_seven_commands_and_one_picture():
    assert len(COMMANDS) == 7
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert 10_000 < (ROOT / picture).stat().st_size < 250_000


# ---------------------------------------------------------------- names and files
def test_every_module_is_on_the_map_and_every_file_on_it_exists():
    named = set(re.findall(r"(?<![\w./-])[A-Za-z_][\w-]*(?:/[\w-]+)*\.(?:py|md|txt|toml)\b", ARCHITECTURE))
    places = (PACKAGE, ROOT, ROOT / "docs")
    assert [name for name in sorted(named) if not any((place / name).is_file() for place in places)] == []
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.stat().st_size}
    assert modules - named == set()
    folders = set(re.findall(r"`((?:[\w-]+/)+(?:[\w-]+)?)`", ARCHITECTURE))
    assert [name for name in sorted(folders) if not any((place / name).exists() for place in places)] == []


def test_every_file_stands_once_on_the_map():
    lines = re.findall(r"^    ([\w/]+\.py) +\S", ARCHITECTURE, re.MULTILINE)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^    .*$", "", page.read_text(), flags=re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        name, _, section = target.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if section else []
        assert not section or section in [re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings], target


@pytest.mark.parametrize("text", [README, ARCHITECTURE, THEORY], ids=["readme", "architecture", "theory"])
def test_names_in_backticks_exist(text):
    for owner, name in re.findall(rf"`({'|'.join(OWNERS)})\.(?!py`)(\w+)`", text):
        module, _, attribute = OWNERS[owner].partition(":")
        found = importlib.import_module(module)
        found = getattr(found, attribute) if attribute else found
        assert hasattr(found, name) or name in getattr(found, "__annotations__", {}), f"{owner}.{name}"


def test_public_names_in_the_documents_exist():
    said = "\n".join([README, ARCHITECTURE, THEORY])
    for name in re.findall(r"\bnearopt\.([a-z]\w*)\b", said):
        assert name in no.PUBLIC or (PACKAGE / name).exists(), name


# ---------------------------------------------------------------- what theory.md claims
HORIZON, S, A = 4, 4, 4  # the same for all of these worlds, so that they share compiled code


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_forward_messages_times_values_are_the_marginals(discount):
    temperature = 0.7
    world = random_world(np.random.default_rng(3), S, A, 3, 1, forbid=False, branch_rewards=True)
    mdp = no.MDP.from_arrays(**to_arrays(world, S, A), discount=discount)
    for optimism in (1.0, 0.4, -0.6):
        post = no.infer(mdp, HORIZON, temperature=temperature, optimism=optimism, prior="uniform")
        weight = np.exp(post.log_forward + optimism * post.value / temperature)
        share = post.state_probs / post.state_probs.sum(1, keepdims=True)
        np.testing.assert_allclose(weight / weight.sum(1, keepdims=True), share, rtol=1e-12)
        if discount == 1:
            total = post.log_evidence + np.log(weight.sum(1))
            np.testing.assert_allclose(total, optimism * post.log_partition, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimism", [1.0, 0.0, -1.0])
def test_what_is_returned_where_success_is_impossible(optimism):
    transition = np.zeros((S, A, S))
    transition[0, :2, :2] = 0.5
    transition[1:, :2, 1:] = np.eye(S - 1)[:, None]  # states 1, 2, 3 are traps, in which every step is forbidden
    reward = np.array([-1.0, -np.inf, -np.inf, -np.inf])
    mdp = no.MDP.from_arrays(transition, reward, initial=np.array([0.0, 1.0, 0.0, 0.0]), discount=0.8)
    prior = np.tile([3.0, 1.0, 0.0, 0.0], (S, 1))
    post = no.infer(mdp, HORIZON, optimism=optimism, prior=prior)
    assert np.isneginf(post.value[:HORIZON, 1]).all() and post.log_partition == -np.inf
    np.testing.assert_allclose(post.policy_at(0)[1], [0.75, 0.25, 0.0, 0.0])
    np.testing.assert_allclose(post.transition(0).toarray()[1 * A], [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(post.continuation(0)[1], [0.8, 0.8, 0.0, 0.0])
    recorded = no.Trajectories.from_arrays([[1, 1]], [[0]])
    if optimism == 0:
        np.testing.assert_allclose(post.state_probs[:, 1], 0.8 ** np.arange(HORIZON + 1))
        np.testing.assert_allclose(post.log_prob(recorded), np.log(0.75 * 0.8))
        return
    assert (post.state_probs == 0).all() and np.isneginf(post.log_prob(recorded)).all()
    with pytest.raises(no.NearoptError, match="nothing to sample"):
        post.sample(1, 0)
    if optimism == 1:
        assert np.isneginf(post.log_forward[1:]).all()


def test_the_flat_prior_pays_for_living_on():
    """It adds τ log n to every decision among n actions: no matter where nothing ends, and a reason not to end."""
    step = np.eye(S)[(np.arange(S)[:, None] + np.arange(A)) % S]
    endless = no.MDP.from_arrays(step, np.random.default_rng(0).normal(size=(S, A)))
    flat, uniform = no.infer(endless, HORIZON), no.infer(endless, HORIZON, prior="uniform")
    np.testing.assert_allclose(flat.policy_at(0), uniform.policy_at(0), rtol=1e-13)
    np.testing.assert_allclose(flat.value[0] - uniform.value[0], HORIZON * np.log(A), rtol=1e-13)
    ends = no.MDP.from_grid("S..G")
    flat, uniform = no.infer(ends, HORIZON), no.infer(ends, HORIZON, prior="uniform")
    assert flat.policy_at(0)[2, 1] < uniform.policy_at(0)[2, 1] - 0.1  # beside the goal


# ---------------------------------------------------------------- doctests
TESTED = [  # without the figures, which take seconds to draw and have tests of their own
    path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text() and path.parent != PACKAGE / "figures"
]


def test_the_doctests_of_the_package_pass():
    assert len(TESTED) >= 5
    for path in TESTED:
        name = ".".join(["nearopt", *path.relative_to(PACKAGE).with_suffix("").parts])
        result = doctest.testmod(importlib.import_module(name))
        assert result.attempted > 0 and result.failed == 0, name
