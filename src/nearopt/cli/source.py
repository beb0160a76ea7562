"""SOURCE → MDP, and what else stands on a command line: key=value pairs and priors."""

import difflib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearopt.mdp.errors import (
    ArgumentError,
    CorruptFileError,
    FileAccessError,
    MissingFileError,
    NearoptError,
    UnknownEnvironmentError,
)

if TYPE_CHECKING:
    import numpy as np

    from nearopt.mdp.model import MDP

WORDS = {"True": True, "False": False, "None": None}  # Python's spelling; as strings they would all be true


def load_source(source: str, pairs: Sequence[Sequence[str]] = ()) -> "MDP":
    """The model in a file, or `gym:ID`; `pairs` are the words of --env-kwargs.

    Raises: `ArgumentError`, `UnknownEnvironmentError`, and what `nearopt.load` and `MDP.from_gymnasium` raise.
    """
    options = read_pairs("--env-kwargs", pairs)
    prefix, colon, name = source.partition(":")
    if colon and prefix == "gym":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mdp = load_gymnasium(name, options)
        for warning in caught:
            if issubclass(warning.category, UserWarning):
                text = plain_text(str(warning.message)).removeprefix("WARN: ")
                print("nearopt: warning:", text, file=sys.stderr)
        return mdp
    if re.fullmatch(r"[A-Z]\w*-v\d+", source) and not Path(source).exists():
        raise MissingFileError(f"{source} does not exist", f"a Gymnasium environment is written gym:{source}")
    from nearopt.mdp.files import load

    try:
        return load(source, **options)
    except MissingFileError as error:
        mend = f"{error.mend}, or start without a file: nearopt infer gym:FrozenLake-v1 --horizon 30"
        raise MissingFileError(error.problem, mend) from None


def load_gymnasium(name: str, options: dict[str, Any]) -> "MDP":
    """`discount` is the model's, everything else goes to the environment."""
    if not name:
        raise ArgumentError("gym: names no environment", "write gym:FrozenLake-v1, for example")
    import gymnasium

    from nearopt.mdp.toy_text import mdp_from_gymnasium

    discount = options.pop("discount", 1.0)
    try:
        spec = gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, ValueError) as error:
        near = difflib.get_close_matches(name, gymnasium.registry, n=1)
        mend = f"write gym:{near[0]}, perhaps" if near else "check the id"
        raise UnknownEnvironmentError(f"gym:{name}: {plain_text(str(error))}", mend) from None
    check_options(name, spec, options)
    try:
        env = gymnasium.make(spec, **options)
    except Exception as error:  # the environment's own code, called with what the user typed
        given = " ".join(f"{key}={value!r}" for key, value in options.items())
        what = f"gym:{name} cannot be made{' with ' if given else ''}{given}"
        why = f"({type(error).__name__}: {plain_text(str(error))})"
        raise UnknownEnvironmentError(f"{what} {why}", "check --env-kwargs") from None
    try:
        return mdp_from_gymnasium(env, discount)
    except NearoptError as error:
        raise type(error)(f"gym:{name}: {error.problem}", error.mend) from None
    finally:
        env.close()


def check_options(name: str, spec: Any, options: dict[str, Any]) -> None:
    """Gymnasium's own message for a wrong keyword is a traceback and three sentences."""
    from gymnasium.envs.registration import load_env_creator

    try:
        creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
        parameters = inspect.signature(creator).parameters.values()
    except Exception:  # gymnasium.make will tell what is wrong with it
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    allowed = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for key in options:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            mend = f"write {near[0]}, perhaps" if near else f"it takes {', '.join([*allowed, 'discount'])}"
            raise ArgumentError(f"gym:{name} takes no {key!r}", mend)


def read_pairs(option: str, words: Sequence[Sequence[str]]) -> dict[str, Any]:
    """[['slip=0.1', 'map_name=8x8']] → {'slip': 0.1, 'map_name': '8x8'}: JSON where it is JSON, text elsewhere."""
    options: dict[str, Any] = {}
    for pair in (pair for group in words for pair in group):
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ArgumentError(f"{option} has {pair!r}", "write key=value, without spaces around '='")
        if key in options:
            raise ArgumentError(f"{option} gives {key} twice", "give each key once")
        try:
            options[key] = WORDS[text] if text in WORDS else json.loads(text)
        except (ValueError, RecursionError):
            options[key] = text
    return options


def read_prior(text: str) -> "None | str | np.ndarray":
    """'flat', 'uniform', or the array in a .npy or .csv file. Nothing pickled is loaded."""
    if text in ("flat", "uniform"):
        return None if text == "flat" else text
    import numpy as np

    path = Path(text)
    readers = {
        ".npy": lambda: np.load(path, allow_pickle=False),
        ".csv": lambda: np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig"),
    }
    if path.suffix.lower() not in readers:
        raise ArgumentError(f"the prior is {text!r}", "give flat, uniform, or a .npy or .csv file of shape (S, A)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file: its shape will be refused
            array = readers[path.suffix.lower()]()
    except FileNotFoundError:
        raise MissingFileError(f"the prior {text} does not exist", "check the path, or give flat or uniform") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileAccessError(f"the prior {text} cannot be read ({reason})", "check the file") from None
    except (ValueError, EOFError, MemoryError) as error:
        if path.suffix.lower() == ".npy":  # NumPy's own message advises to load pickles
            raise CorruptFileError(f"the prior {text} is no array of numbers", "save it with numpy.save") from None
        mend = "write numbers and commas only, no header"
        raise CorruptFileError(f"the prior {text} is no table ({plain_text(str(error))})", mend) from None
    if not isinstance(array, np.ndarray):
        raise CorruptFileError(f"the prior {text} holds several arrays", "save a single one with numpy.save")
    return array


def plain_text(message: str) -> str:
    """One line, without terminal colours and without its last full stop."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split()).rstrip(".")
