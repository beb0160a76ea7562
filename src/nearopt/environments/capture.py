"""The exact state of a Gymnasium environment as plain data: what a run needs to go on as if it had not been stopped.

The environment is read as the graph of its attributes: wrappers, vectors, helpers of the same package, and down to the
values. What is part of the state is written; what never changes (spaces, specifications, models, functions) is left
alone; anything else, such as a Box2D world, cannot be captured, and is named. A class may list attributes that no step
changes in `unchanging`. Restoring sets attributes to values of Python and NumPy, and runs no code of the data's choice.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from nearopt.environments.errors import CaptureError, RestoreError
from nearopt.environments.reading import Reader
from nearopt.environments.writing import Writer

TRIED = 20  # steps, in `verified`: before the state is captured, from there to a reset, and after it


def capture(env: Any) -> dict[str, Any]:
    """The state of an environment (or of `Streams`): nested dictionaries and lists of JSON's scalars and NumPy arrays.

    Covers all wrappers, `SyncVectorEnv` with what is in it, and all random generators, those of the spaces included.

    Raises: `CaptureError`, naming the attribute and its class.

    >>> import gymnasium
    >>> env = gymnasium.make("CartPole-v1")
    >>> _ = env.reset(seed=0)
    >>> state = capture(env)
    >>> state["class"], state["attributes"]["_elapsed_steps"]
    ('TimeLimit', 0)
    """
    return Writer().node(env, type(env).__name__)


def restore(env: Any, data: Any) -> None:
    """Gives an environment (or `Streams`), made in the same way as another one, the state that `capture` read there.

    Raises: `RestoreError`, naming the place; the environment then is as it was.

    >>> import gymnasium
    >>> env, other = gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1")
    >>> _ = env.reset(seed=0)
    >>> restore(other, capture(env))
    >>> bool((other.step(1)[0] == env.step(1)[0]).all())
    True
    """
    reader = Reader()
    reader.root(data, env)
    reader.write()
    if not same(capture(env), data):
        reader.undo()
        raise reader.misfit(type(env).__name__, "does not keep the state that it is given")


def reason_not_exact(env: Any) -> str | None:
    """Why the state of this environment cannot be captured, in a sentence; None where it can be.

    What an environment keeps elsewhere, behind a number or in a module, cannot be seen: see `verified`.
    """
    try:
        capture(env)
    except CaptureError as error:
        return error.problem
    return None


def same(left: Any, right: Any) -> bool:
    """Whether plain data is equal to the last bit. Attributes that are fixed in one object only do not count."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        if type(left) is not type(right) or left.dtype != right.dtype or left.shape != right.shape:
            return False
        return left.tobytes() == right.tobytes()
    if isinstance(left, dict) and isinstance(right, dict):
        names = (set(left) | set(right)) - {"fixed"}
        return all(name in left and name in right and same(left[name], right[name]) for name in names)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and repr(left) == repr(right)


# ---------------------------------------------------------------- does it go on?
def verified(make_env: Callable[[], Any]) -> str | None:
    """Tries it: one environment takes random steps, another one its state, then both go the same way across a reset.

    None where observations, rewards and flags are the same to the last bit; otherwise the reason, in a sentence.
    """
    one, other = make_env(), make_env()
    try:
        actions = copy.deepcopy(one.action_space)
        actions.seed(0)
        one.reset(seed=0)
        for _ in range(TRIED):
            move(one, actions.sample())
        restore(other, capture(one))
        for step in range(2 * TRIED):
            if step == TRIED:
                found = [outcome(env.reset()[0]) for env in (one, other)]
            else:
                action = actions.sample()
                found = [move(env, copy.deepcopy(action)) for env in (one, other)]
            if not same(*found):
                return f"{type(one).__name__} and its copy differ {step} steps after the state was captured"
    except (CaptureError, RestoreError) as error:
        return error.problem
    finally:
        one.close()
        other.close()
    return None


def move(env: Any, action: Any) -> Any:
    """One step, with the reset after it where the environment leaves that to us: what was seen, as plain data."""
    observation, reward, terminated, truncated, _ = env.step(action)
    seen = [observation, reward, terminated, truncated]
    if not isinstance(env, VectorEnv):
        seen += [env.reset()[0]] if terminated or truncated else []
    elif env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and (terminated | truncated).any():
        seen += [env.reset(options={"reset_mask": terminated | truncated})[0]]
    return outcome(seen)


def outcome(seen: Any) -> Any:
    return Writer().node(seen, "the outcome of a step")
