"""The rules of docs/architecture.md: who may import whom, how long things may get, what no file may hold.

Each check is a function of a folder that returns its complaints. The first half asks it about this project, the second
half about small sources with a planted fault, so that a check which sees nothing cannot pass.
"""

import ast
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import nearopt

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "nearopt"

# What each part may import of the package, beside itself. A name stands for everything beneath it. Imports inside
# functions and under TYPE_CHECKING count like any other: no part needs an exception.
MAY_IMPORT = {
    "mdp": (),
    "backup": ("mdp",),
    "checks": ("mdp",),
    "problem": ("backup", "mdp"),
    "records": ("mdp",),
    "functional": ("backup", "behaviour", "checks", "inference.messages", "mdp", "planning", "problem", "records"),
    "inference": ("backup", "checks", "functional", "mdp", "problem", "records"),
    "planning": ("backup", "checks", "mdp", "problem"),
    "behaviour": ("backup", "checks", "inference", "mdp", "planning", "problem", "records"),
    "environments": ("mdp",),
    "runs": ("mdp.errors", "mdp.files.atomic"),
    "agents": ("backup", "environments", "mdp.errors", "runs"),
    "figures": ("mdp.errors",),  # it reads results by attribute, see figures/results.py
    "cli": (
        *("agents", "backup", "behaviour", "checks", "environments", "figures"),
        *("functional", "inference", "mdp", "planning", "records", "runs"),
    ),
    # __init__.py and __main__.py
    "": ("agents", "backup", "behaviour", "cli", "figures", "functional", "inference", "mdp", "planning", "records"),
}
ONLY_IN = {"matplotlib": "figures", "mpl_toolkits": "figures", "tyro": "cli", "rich": "cli"}
RUNS_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}

MOST_LINES, MEDIAN_LINES, MOST_FUNCTION_LINES, MOST_ARGUMENTS = 400, 150, 60, 10
PROMISED = {("estimator.py", "__init__")}  # signatures that the public contract fixes, not we

HOSTS = {"arxiv.org", "doi.org", "github.com", "keepachangelog.com", "pmc-tools.github.io", "semver.org"}
PRIVATE = {
    "a host that is not public": re.compile(r"\blocalhost:\d|\b[\w-]+\.(?:corp|internal|intranet|lan)\b"),
    "a package index": re.compile(
        r"(?<![\w-])--(?:extra-index-url|index-url|find-links|trusted-host)\b|\bindex[_-]url *="
    ),
    "a path of one machine": re.compile(
        r"(?<![\w.~$}/-])/(?:builds|home|mnt|private|root|scratch|tmp|Users|work|workspace)/\w|\b[A-Z]:\\[A-Z]|\bfile://"
    ),
}
ADDRESS = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://([^\s/\"'`()<>\[\]{}]+)")


# ---------------------------------------------------------------- imports
def check_imports(package: Path) -> list[str]:
    """Complaints about the imports of every file of the package in this folder."""
    complaints = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        names = ("nearopt", *inside.with_suffix("").parts)
        part = "" if inside.name in ("__init__.py", "__main__.py") and len(names) == 2 else names[1]
        if part not in MAY_IMPORT:
            complaints.append(f"{inside}: {part} has no row in MAY_IMPORT")
            continue
        tree = ast.parse(path.read_text())
        for line, target in [*imports(tree, names), *uses(tree), *dynamic_imports(tree, part)]:
            if fault := judge(part, target):
                complaints.append(f"{inside}:{line}: {fault}")
        complaints += [f"{inside}:{line}: {name} runs text" for line, name in runs_text(tree)]
    return complaints


def judge(part: str, target: str) -> str | None:
    """What is wrong with this part importing the dotted `target`."""
    top, _, rest = target.partition(".")
    if top != "nearopt":
        if top in RUNS_CODE:
            return f"{top} runs code on loading"
        return f"only {ONLY_IN[top]} may import {top}" if ONLY_IN.get(top, part) != part else None
    public, _, more = rest.partition(".")
    if public in nearopt.PUBLIC and nearopt.PUBLIC[public] != f"nearopt.{public}":
        rest = f"{nearopt.PUBLIC[public]}.{public}.{more}".removeprefix("nearopt.").rstrip(".")
    if rest in ("", "__version__") or any(under(rest, own) for own in (part, *MAY_IMPORT[part]) if own):
        return None
    return f"{part or 'the package itself'} may not import nearopt.{rest}"


def under(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def imports(tree: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import statement in a module called `names`, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = names[: -node.level] if node.level else ()  # `from . import x` in a/__init__.py: names end so too
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What is reached through `import nearopt`: `nearopt.infer` imports as much as an import does."""
    statements = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    bound = {a.asname: a.name for a in statements if a.asname and a.name.partition(".")[0] == "nearopt"}
    if any(not a.asname and a.name.partition(".")[0] == "nearopt" for a in statements):
        bound["nearopt"] = "nearopt"
    chains = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in chains}
    for node in chains:
        words, value = [node.attr], node.value
        while isinstance(value, ast.Attribute):
            words, value = [value.attr, *words], value.value
        if id(node) not in inner and isinstance(value, ast.Name) and value.id in bound:
            yield node.lineno, ".".join([bound[value.id], *words])


def dynamic_imports(tree: ast.AST, part: str) -> Iterator[tuple[int, str]]:
    """`import_module("a.b")` and `import_module(f"a.b.{c}")`; another argument only where all public names are."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if getattr(node.func, "attr", getattr(node.func, "id", "")) != "import_module":
            continue
        name = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
        if isinstance(name, ast.Constant):
            yield node.lineno, str(name.value).rstrip(".")
        elif part:
            yield node.lineno, f"nearopt.{ast.unparse(node.args[0])}"


def runs_text(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every mention of `eval` and the like, and of arrays that may hold pickles."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in RUNS_TEXT:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in ("eval", "exec"):
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield node.value.lineno, "allow_pickle"


# ---------------------------------------------------------------- lengths
def check_lengths(folder: Path) -> list[str]:
    """Complaints about long files, long functions and long signatures."""
    complaints = []
    for path in sorted(folder.rglob("*.py")):
        text, where = path.read_text(), path.relative_to(folder)
        if (lines := len(text.splitlines())) > MOST_LINES:
            complaints.append(f"{where}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            name = getattr(node, "name", "lambda")
            if (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES:
                complaints.append(f"{where}:{node.lineno}: {name} has {lines} lines")
            if (count := arguments(node.args)) > MOST_ARGUMENTS and (path.name, name) not in PROMISED:
                complaints.append(f"{where}:{node.lineno}: {name} has {count} arguments")
    return complaints


def arguments(args: ast.arguments) -> int:
    """The number of arguments, `self` and `cls` apart."""
    plain = [*args.posonlyargs, *args.args]
    bound = len(plain) > 0 and plain[0].arg in ("self", "cls")
    return len(plain) - bound + len(args.kwonlyargs) + (args.vararg is not None) + (args.kwarg is not None)


def median_length(folder: Path) -> float:
    """Lines of the file in the middle; files of at most three lines are left out."""
    lengths = [len(path.read_text().splitlines()) for path in folder.rglob("*.py")]
    return statistics.median(length for length in lengths if length > 3)


# ---------------------------------------------------------------- text
def check_text(folder: Path, names: Iterable[str]) -> list[str]:
    """Complaints about addresses, indexes and paths in the files of these names; files that are no text are skipped."""
    complaints = []
    for name in names:
        try:
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError):  # a picture; a file that is deleted but not yet committed so
            continue
        for number, line in enumerate(lines, 1):
            found = [what for what, pattern in PRIVATE.items() if pattern.search(line)]
            found += [f"the host {host}" for host in ADDRESS.findall(line) if host.rstrip(".,;") not in HOSTS]
            complaints += [f"{name}:{number}: {what}" for what in found]
    return complaints


# ---------------------------------------------------------------- this project
def test_imports_follow_the_table():
    assert check_imports(PACKAGE) == []


def test_every_row_of_the_table_is_a_part():
    parts = {path.stem for path in PACKAGE.iterdir() if path.name[0] not in "_."}
    assert set(MAY_IMPORT) - {""} == parts


def test_the_document_shows_the_same_table():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert {part: tuple(re.findall(r"`([\w.]+)`", may)) for part, may in rows} == {
        part: may for part, may in MAY_IMPORT.items() if part
    }


def test_nothing_is_too_long():
    folders = [ROOT / name for name in ("src", "tests", "examples", "benchmarks")]
    assert [complaint for folder in folders for complaint in check_lengths(folder)] == []
    assert median_length(PACKAGE) <= MEDIAN_LINES


def test_no_file_names_a_registry_or_a_machine():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("which files are tracked is known to git alone, and this is no checkout")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]  # also those about to be added
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    assert check_text(ROOT, filter(None, names)) == []


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("jax", "numpy", "scipy", "equinox", "gymnasium", "matplotlib", "tyro", "rich")
    code = f"import sys, nearopt; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- planted faults
CLEAN = "import math\nfrom pathlib import Path\n"
PLANTED_IMPORTS = [  # (file, source, complaint; "" where there is none)
    ("mdp/clean.py", "from nearopt.mdp.errors import NearoptError\nimport nearopt\nnearopt.__version__\n", ""),
    ("mdp/top.py", "from nearopt.inference.posterior import infer\n", "mdp may not import nearopt.inference"),
    ("mdp/inner.py", "def f():\n    import nearopt.backup\n", "mdp/inner.py:2: mdp may not import nearopt.backup"),
    (
        "mdp/typed.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nearopt import cli\n",
        "nearopt.cli",
    ),
    ("mdp/public.py", "from nearopt import infer\n", "mdp may not import nearopt.inference.posterior.infer"),
    ("mdp/attribute.py", "import nearopt as no\nno.infer(1, 2)\n", "mdp/attribute.py:2: mdp may not import"),
    ("mdp/nested.py", "import nearopt.mdp.model\nnearopt.figures.save(1)\n", "nearopt.figures.save"),
    ("mdp/files/relative.py", "from ...inference import messages\n", "mdp may not import nearopt.inference.messages"),
    ("mdp/files/__init__.py", "from ..arrays import mask\nfrom . import drn\n", ""),
    ("mdp/dynamic.py", "import importlib\nimportlib.import_module('nearopt.backup')\n", "nearopt.backup"),
    ("mdp/formatted.py", "import importlib as i\ni.import_module(f'nearopt.mdp.files.{1}')\n", ""),
    ("mdp/hidden.py", "from importlib import import_module\nimport_module(NAME)\n", "mdp may not import nearopt.NAME"),
    ("mdp/star.py", "from nearopt import *\n", "mdp may not import nearopt.*"),
    ("backup.py", "from nearopt.mdp.blocks import Blocks\n", ""),
    ("backup.py", "from nearopt.inference.messages import Problem\n", "backup may not import nearopt.inference"),
    ("functional.py", "from nearopt.inference.posterior import infer\n", "functional may not import"),
    ("functional.py", "from nearopt.inference.messages import backward\n", ""),
    ("inference/x.py", "import matplotlib.pyplot\n", "only figures may import matplotlib"),
    ("figures/x.py", "from nearopt.mdp import model\n", "figures may not import nearopt.mdp.model"),
    ("figures/x.py", "from nearopt.mdp import errors\nfrom matplotlib.figure import Figure\n", ""),
    ("figures/x.py", "from rich.console import Console\n", "only cli may import rich"),
    ("backup.py", "def f():\n    import tyro\n", "backup.py:2: only cli may import tyro"),
    ("cli/x.py", "import tyro\nfrom nearopt.figures import save\n", ""),
    ("cli/x.py", "import pickle\n", "pickle runs code"),
    ("cli/x.py", "import yaml\n", "yaml runs code"),
    ("cli/x.py", "eval('1')\n", "cli/x.py:1: eval runs text"),
    ("cli/x.py", "f = exec\n", "exec runs text"),
    ("cli/x.py", "import re\nre.compile('a')\nimport numpy as np\nnp.load('a', allow_pickle=False)\n", ""),
    ("cli/x.py", "import numpy as np\nnp.load('a', allow_pickle=True)\n", "allow_pickle runs text"),
    ("dreams/x.py", CLEAN, "dreams has no row"),
    ("__main__.py", "from nearopt.cli.main import main\n", ""),
]


def plant(folder: Path, name: str, source: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(source)
    return folder


@pytest.mark.parametrize(("name", "source", "complaint"), PLANTED_IMPORTS)
def test_a_planted_import_is_found(tmp_path, name, source, complaint):
    found = check_imports(plant(plant(tmp_path, "mdp/fine.py", CLEAN), name, source))
    assert len(found) == bool(complaint), found
    assert complaint in "".join(found)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1\n" * 400, ""),
        ("x = 1\n" * 401, "x.py: 401 lines"),
        ("def f():\n" + "    x = 1\n" * 59, ""),
        ("def f():\n" + "    x = 1\n" * 60, "x.py:1: f has 61 lines"),
        ("class A:\n    async def f(self):\n" + "        x = 1\n" * 60, "x.py:2: f has 61 lines"),
        ("class A:\n    def f(self, a, b, c, d, e, f, *g, h, i, **j): ...\n", ""),
        ("def f(a, b, c, d, e, /, f, *g, h, i, j, **k): ...\n", "x.py:1: f has 11 arguments"),
        ("f = lambda a, b, c, d, e, f, g, h, i, j, k: 0\n", "x.py:1: lambda has 11 arguments"),
    ],
)
def test_planted_length_is_found(tmp_path, source, complaint):
    assert check_lengths(plant(tmp_path, "x.py", source)) == ([complaint] if complaint else [])


def test_the_median_leaves_out_empty_files(tmp_path):
    for number, lines in enumerate((0, 0, 0, 10, 20, 90)):
        plant(tmp_path, f"x{number}.py", "x = 1\n" * lines)
    assert median_length(tmp_path) == 20


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("see https://arxiv.org/abs/1805.00909, and src/nearopt/mdp, ~/work/x, /usr/bin/env, ../work/x", ""),
        ("https" + "://packages.example.com/simple", "the host packages.example.com"),
        ("git+ssh" + "://user@example.org/x.git", "the host user@example.org"),
        ("http" + "://localhost" + ":3141/root", "a host that is not public"),
        ("mirror" + ".internal", "a host that is not public"),
        ("pip install --index" + "-url x", "a package index"),
        ("--no-emit-index-url --no-emit-find-links", ""),
        ("cd /" + "home/somebody/x", "a path of one machine"),
        ("PYTHONPATH=/" + "work/main/src", "a path of one machine"),
        ("'C:" + "\\Users'", "a path of one machine"),
    ],
)
def test_a_planted_address_is_found(tmp_path, text, complaint):
    found = check_text(plant(tmp_path, "x.txt", f"first\n{text}\n"), ["x.txt"])
    assert any(f"x.txt:2: {complaint}" == one for one in found) if complaint else found == []


def test_files_that_are_no_text_are_skipped(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\xff\xfe")
    assert check_text(tmp_path, ["x.png", "gone.txt"]) == []
