"""`nearopt VERB ...`: finds the verb, and turns what goes wrong into one line and an exit code.

Exit codes: 0, 1 (bad input), 2 (usage), 130 (Ctrl-C), 141 (the reader of a pipe went away).
"""

import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nearopt import __version__
from nearopt.mdp.errors import NearoptError

VERBS = {  # each is a module here with run(argv) -> exit code
    "infer": "the exact posterior over behaviour, given that it is near-optimal",
    "solve": "the infinite horizon: value and policy, with bounds that are proved",
    "compare": "exact, variational and hard control side by side, and what optimism costs",
    "fit": "which reward explains recorded behaviour, with intervals, checks and a report",
    "recover": "simulate from known parameters, fit, and see whether they come back",
    "train": "an agent learns from experience; killed at any moment, it can go on",
    "resume": "goes on with a run that was stopped, to the same bytes where it can",
    "evaluate": "returns of a trained agent in new episodes, with intervals over seeds",
    "enjoy": "watch a trained agent, or film it",
    "plot": "learning curves: interquartile mean over seeds, with intervals",
    "doctor": "the toolchain, checked: versions, machine, arithmetic",
}

HELP = """\
nearopt {version}: control as probabilistic inference

usage: nearopt VERB ...

verbs
{verbs}

Start here (needs no file):
  nearopt infer gym:FrozenLake-v1 --horizon 30 --temperature 0.1

`nearopt VERB --help` tells the options of a verb and gives examples; `nearopt --version` the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code is returned. Nothing but bugs raises."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks τ shows '?'
    try:
        code = dispatch(argv)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # tyro has said why
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # else Python complains when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except NearoptError as error:
        return fail(str(error))
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "nearopt":
            raise
        return fail(f"the package {error.name!r} is not installed; install nearopt anew, or ask nearopt doctor")
    except MemoryError:
        return fail("not enough memory; shorten the horizon, take a smaller model, or use a machine with more")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}; check its rights and its disk")


def dispatch(argv: list[str]) -> int:
    verb, *rest = argv or [""]
    if verb in VERBS:
        run: Callable[[list[str]], int] = importlib.import_module(f"nearopt.cli.{verb}").run
        return run(rest)
    if verb in ("-h", "--help", "help"):
        if rest and rest[0] in VERBS:
            return dispatch([rest[0], "--help"])
        print(help_text(), end="")
        return 0
    if verb in ("-V", "--version", "version"):
        print(f"nearopt {__version__}")
        return 0
    if not verb:
        print(help_text(), end="", file=sys.stderr)
        return 2
    return fail(unknown(verb), code=2)


def help_text() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {summary}" for verb, summary in VERBS.items())
    return HELP.format(version=__version__, verbs=verbs)


def unknown(verb: str) -> str:
    """What is wrong with the first word, and what may have been meant."""
    if verb.startswith("-"):
        return f"unknown option {verb!r} before the verb; the verbs are {', '.join(VERBS)} (see nearopt --help)"
    if verb.startswith("gym:") or Path(verb).suffix in (".txt", ".mdp", ".drn", ".umb"):
        return f"{verb!r} is no verb; did you mean `nearopt infer {verb} --horizon 30`?"
    near = difflib.get_close_matches(verb.lower(), VERBS, n=1, cutoff=0.5)
    mend = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
    return f"{verb!r} is no verb; {mend} (see nearopt --help)"


def fail(message: str, code: int = 1) -> int:
    """One line on stderr, whatever the message holds."""
    with contextlib.suppress(OSError):
        print("nearopt: error:", " ".join(message.split()), file=sys.stderr)
    return code
