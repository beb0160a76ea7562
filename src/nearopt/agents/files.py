"""Agents as files: every array by name, every setting as JSON; and back, without running anything."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nearopt.agents.errors import WrongAgentError
from nearopt.agents.replay import Batch, batch_shape
from nearopt.agents.settings import MOST_STEPS, settle, to_json, whole
from nearopt.environments.spaces import Spaces
from nearopt.mdp.errors import NearoptError
from nearopt.runs import tensors
from nearopt.runs.directory import MOST_ENVS
from nearopt.runs.errors import damaged

NAME, FORMAT = "agent", 1
CLASSES = {
    "SAC": "sac",
    "DiscreteSAC": "discrete_sac",
    "SoftDQN": "soft_dqn",
    "SQL": "sql",
    "Composition": "composition",
    "SoftPG": "soft_pg",
    "PCL": "pcl",
}


def class_of(name: Any) -> Any:
    """The class of agents with this name."""
    if not isinstance(name, str) or name not in CLASSES:
        raise WrongAgentError(f"there is no agent {name!r:.60}", f"there are {', '.join(CLASSES)}")
    return getattr(importlib.import_module(f"nearopt.agents.{CLASSES[name]}"), name)


# ---------------------------------------------------------------- trees of arrays
def to_tensors(tree: Any) -> dict[str, np.ndarray]:
    """A PyTree of arrays as names and arrays: `.actor.layers[0].weight` is called actor.layers.0.weight."""
    return {name: np.asarray(leaf) for name, leaf in leaves_of(tree).items()}


def leaves_of(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def from_tensors[T](template: T, given: Mapping[str, np.ndarray]) -> T:
    """A tree like `template` (of arrays, or of shapes only) with these arrays in it.

    Raises:
        WrongAgentError: names, shapes or types that are not the template's.
    """
    wanted = leaves_of(template)
    odd = sorted(wanted.keys() ^ given.keys()) or [n for n, x in wanted.items() if form(x) != form(given[n])]
    if odd:
        have = form(given[odd[0]]) if odd[0] in given else "nothing"
        need = form(wanted[odd[0]]) if odd[0] in wanted else "nothing"
        raise WrongAgentError(f"{odd[0]} is {have}, and this agent has {need} there", "load it as what it was saved as")
    leaves = [jnp.asarray(given[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def form(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"


# ---------------------------------------------------------------- nested plain data
def pack(data: Any, prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    """Nested plain data with its NumPy arrays taken out, into `arrays`; in their place stands {"tensor": name}."""
    if isinstance(data, np.ndarray):
        name = f"{prefix}{len(arrays)}"
        arrays[name] = data
        return {"tensor": name}
    if isinstance(data, Mapping):
        return {key: pack(value, prefix, arrays) for key, value in data.items()}
    return [pack(value, prefix, arrays) for value in data] if isinstance(data, list) else data


def unpack(data: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `pack` was given."""
    if isinstance(data, Mapping):
        if set(data) == {"tensor"}:
            return arrays[data["tensor"]]
        return {key: unpack(value, arrays) for key, value in data.items()}
    return [unpack(value, arrays) for value in data] if isinstance(data, list) else data


# ---------------------------------------------------------------- agents
def save_agent(agent: Any, folder: Path) -> None:
    """agent.safetensors and agent.json; the same agent gives the same bytes."""
    world = agent.world
    facts = dict(
        format=FORMAT,
        algorithm=type(agent).__name__,
        settings=to_json(agent.settings),
        spaces=agent.spaces.to_json(),
        env=dict(id=world.id, kwargs=plain_kwargs(world.kwargs), n_envs=world.n_envs) if world else agent.origin,
        seed=agent.seed,
        steps=agent.steps,
    )
    tensors.save(folder, NAME, to_tensors(agent.state), facts)


def plain_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of an environment as far as JSON can hold them; None where it cannot."""
    kinds = (str, int, float, bool, list, tuple, dict, type(None))
    return {k: v for k, v in kwargs.items()} if all(isinstance(v, kinds) for v in kwargs.values()) else None


def load_agent(folder: str | Path, env: Any = None, prior: Any = None, classes: Mapping[str, Any] | None = None) -> Any:
    """The agent in a folder, of whatever class it is.

    Args:
        env: to learn on, or None: then it can predict.
        prior: the action prior, where it was a function.

    Raises:
        MissingFileError: there is none. DamagedFileError: any changed byte.
        WrongAgentError: it is of no class among `classes`, or has other observations or actions than `env`.

    >>> import tempfile
    >>> from nearopt import SoftDQN
    >>> with tempfile.TemporaryDirectory() as home:
    ...     SoftDQN("CartPole-v1", seed=3, net_arch=[8]).save(home)
    ...     agent = load_agent(home)
    >>> type(agent).__name__, agent.seed
    ('SoftDQN', 3)
    """
    folder = Path(folder)
    arrays, facts = tensors.load(folder, NAME)
    name = facts.get("algorithm")
    if facts.get("format") != FORMAT:
        raise WrongAgentError(f"{folder} has format {facts.get('format')!r}", f"this version of nearopt reads {FORMAT}")
    kind = class_of(name)
    if classes is not None and name not in classes:
        raise WrongAgentError(f"{folder} holds a {name}", "load it with nearopt.load_agent")
    agent = kind.__new__(kind)
    agent.world = None
    if env is not None:
        from nearopt.agents.agent import enter

        with believed_in_nothing(folder / f"{NAME}.json"):
            agent.world = enter(env, n_envs=whole("n_envs", facts["env"]["n_envs"], most=MOST_ENVS))
        if agent.world.spaces.to_json() != facts.get("spaces"):
            raise WrongAgentError(
                f"{folder} was trained with other observations or actions", "give it its own environment"
            )
    with believed_in_nothing(folder / f"{NAME}.json"):
        spaces = agent.world.spaces if agent.world else Spaces.from_json(facts["spaces"])
        agent.build(spaces, facts["seed"], read_settings(facts["settings"], prior), arrays)
        agent.origin, agent.steps = origin_of(facts["env"]), whole("steps", facts["steps"], 0, MOST_STEPS)
    return agent


def origin_of(facts: Any) -> dict[str, Any]:
    """What a file says of where an agent learned."""
    match facts:
        case {"id": str() | None, "kwargs": dict() | None, "n_envs": int()}:
            return facts
    raise TypeError(f"env is {facts!r:.60}")


@contextlib.contextmanager
def believed_in_nothing(path: Path) -> Iterator[None]:
    """Around reading what a file says: its checksums may be right, and somebody else may have written it."""
    try:
        yield
    except NearoptError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None


def read_settings(settings: Mapping[str, Any], prior: Any) -> dict[str, Any]:
    """Settings as `to_json` wrote them: every one of them."""
    given = dict(settings)
    if given["prior"] == "function":
        if not callable(prior):
            raise WrongAgentError("its action prior was a function, which no file holds", "give it again: prior=…")
        given["prior"] = prior
    elif isinstance(given["prior"], list):
        given["prior"] = [float(p) for p in given["prior"]]
    return given


# ---------------------------------------------------------------- failures
def failure(agent: Any, batches: Batch, seed: int, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All that an update saw, as arrays and facts: `repeat` does it again."""
    arrays = {f"state.{name}": array for name, array in to_tensors(agent.state).items()}
    arrays |= {f"batch.{name}": np.asarray(array) for name, array in to_tensors(batches).items()}
    facts = dict(
        algorithm=type(agent).__name__,
        settings=to_json(agent.settings),
        spaces=agent.spaces.to_json(),
        seed=seed,
        step=step,
    )
    return arrays, facts


def repeat(folder: str | Path, name: str = "update", prior: Any = None) -> tuple[Any, dict[str, np.ndarray]]:
    """Does the updates again that stopped a run: (state before them, what they report, one entry per update).

    `folder` is the run's folder `failure`. A prior that was a function is given again.
    """
    from nearopt.agents.agent import MOST_SEED, shape_of, task_of
    from nearopt.agents.training import again

    arrays, facts = tensors.load(Path(folder), name)
    part = lambda start: {k.removeprefix(start): x for k, x in arrays.items() if k.startswith(start)}
    with believed_in_nothing(Path(folder) / f"{name}.json"):
        method = class_of(facts["algorithm"]).method
        spaces = Spaces.from_json(facts["spaces"])
        settings = settle(method.settings, task_of(spaces), read_settings(facts["settings"], prior))
        seed, step = whole("seed", facts["seed"], 0, MOST_SEED), whole("step", facts["step"], 0, MOST_STEPS)
        state = from_tensors(shape_of(method, settings), part("state."))
        size = part("batch.")["reward"].shape
        batches = from_tensors(batch_shape(settings, size), part("batch."))
        return state, again(method, settings, state, batches, seed, step)


def environment_of(facts: Mapping[str, Any]) -> Any:
    """The environment that a file names, made from its id; modules that a file names are not imported."""
    from nearopt.agents.agent import enter
    from nearopt.environments.streams import check_id

    if not facts["id"] or facts["kwargs"] is None:
        raise WrongAgentError("the file does not say how its environment is made", "give it: env=…")
    return enter(check_id(facts["id"]), facts["kwargs"], facts["n_envs"])
