"""Streams of experience: from any Gymnasium environment, single or vectorised, true transitions and nothing else."""

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from nearopt.environments.errors import (
    AutoresetError,
    EnvironmentArgumentError,
    EnvironmentIdError,
    NonFiniteError,
    NotAnEnvironmentError,
)
from nearopt.environments.spaces import Spaces
from nearopt.mdp.errors import MissingExtraError, NearoptError, UnknownEnvironmentError

MEND_RESET = "use a vector environment that follows metadata['autoreset_mode'], such as gymnasium.make_vec's"


class Moves(NamedTuple):
    """One step of n streams. Where both flags are set, the episode has terminated: nothing follows."""

    next_observation: np.ndarray  # (n, size) float32: the true successor, where an episode ends its final observation
    reward: np.ndarray  # (n,) float32
    terminated: np.ndarray  # (n,) bool
    truncated: np.ndarray  # (n,) bool
    real: np.ndarray  # (n,) bool: False where the environment only reset itself and nothing was learned
    observation: np.ndarray  # (n, size) float32: what to act on next, where an episode ended that of the new one


class Streams:
    """`num` streams of experience from one environment, single or vectorised in any autoreset mode.

    `env`, `spaces` (of a single environment) and `num` are public. Everything else that a continuation needs is plain
    data: `capture(streams)` covers it, with the environment's own state.

    Raises: `NotAnEnvironmentError`, `AutoresetError`, and as `Spaces`; `step` and `reset`: `NonFiniteError`.

    >>> streams = Streams(gymnasium.make("CartPole-v1"))
    >>> streams.reset(seed=0).shape
    (1, 4)
    >>> moves = streams.step(np.array([1]))
    >>> moves.reward, moves.terminated, moves.real
    (array([1.], dtype=float32), array([False]), array([ True]))
    """

    unchanging = ("spaces",)  # see `capture`

    def __init__(self, env: "gymnasium.Env | VectorEnv"):
        self.env = env
        if isinstance(env, VectorEnv):
            self.spaces = Spaces(env.single_observation_space, env.single_action_space)
            self.num, self.mode = env.num_envs, env.metadata.get("autoreset_mode")
            if not isinstance(self.mode, AutoresetMode):
                raise AutoresetError(f"{env} resets itself in the mode {self.mode!r}", MEND_RESET)
        elif isinstance(env, gymnasium.Env):
            self.spaces = Spaces(env.observation_space, env.action_space)
            self.num, self.mode = 1, None
        else:
            raise NotAnEnvironmentError(
                f"{env!r:.200} is no environment", "give a gymnasium.Env or VectorEnv, or an id"
            )
        self.over = np.zeros(self.num, bool)  # NEXT_STEP: what the next step will only reset
        self.steps = 0  # since the last reset, for messages

    def reset(self, seed: int) -> np.ndarray:
        """New episodes everywhere: observations (n, size) float32. Stream i is seeded with seed + i."""
        observation, _ = self.env.reset(seed=int(seed))
        self.over = np.zeros(self.num, bool)
        self.steps = 0
        return self.finite(self.flatten(observation), "observation")

    def step(self, actions: np.ndarray) -> Moves:
        """Actions (n, A) within the bounds, or (n,) whole numbers from 0 → what came of them."""
        self.steps += 1
        moves = self.step_single(actions[0]) if self.mode is None else self.step_vector(actions)
        self.finite(moves.next_observation, "observation")
        if moves.observation is not moves.next_observation:
            self.finite(moves.observation, "observation")
        self.finite(moves.reward, "reward")
        return moves

    # ------------------------------------------------------------ one environment
    def step_single(self, action: Any) -> Moves:
        action = int(action) + self.spaces.first_action if self.spaces.discrete else self.box(action)
        observation, reward, terminated, truncated, _ = self.env.step(action)
        final = observation = self.flatten(observation)
        if terminated or truncated:
            observation = self.flatten(self.env.reset()[0])
        reward = np.array([float(reward)], np.float32)
        flags = np.array((terminated, truncated, True), bool).reshape(3, 1)
        return Moves(final, reward, flags[0], flags[1], flags[2], observation)

    # ------------------------------------------------------------ a vector of them
    def step_vector(self, actions: np.ndarray) -> Moves:
        if self.spaces.discrete:
            actions = (np.asarray(actions) + self.spaces.first_action).astype(self.spaces.action.dtype)
        else:
            actions = self.box(actions)
        observation, reward, terminated, truncated, info = self.env.step(actions)
        reward = np.array(reward, np.float32)
        terminated, truncated = np.array(terminated, bool), np.array(truncated, bool)
        final = observation = self.flatten(observation)
        real, ended = ~self.over, terminated | truncated
        if self.mode is AutoresetMode.NEXT_STEP:
            self.over = ended
        elif ended.any():
            if self.mode is AutoresetMode.SAME_STEP:
                final = self.final_observations(observation, ended, info)
            else:
                fresh, _ = self.env.reset(options={"reset_mask": ended.copy()})
                observation = np.where(ended[:, None], self.flatten(fresh), observation)
        return Moves(final, reward, terminated, truncated, real, observation)

    def final_observations(self, observation: np.ndarray, ended: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """`observation`, with rows of ended episodes replaced by info["final_obs"]."""
        told = np.asarray(info.get("_final_obs", np.zeros(self.num, bool)))
        if "final_obs" not in info or not np.array_equal(told, ended):
            streams = np.flatnonzero(ended), np.flatnonzero(told)
            raise AutoresetError(
                f"step {self.steps}: episodes ended in streams {streams[0]}, info['final_obs'] holds {streams[1]}",
                MEND_RESET,
            )
        final = observation.copy()
        for i in np.flatnonzero(ended):
            final[i] = self.spaces.flatten(info["final_obs"][i])
        return final

    # ------------------------------------------------------------ what goes in and out
    def box(self, action: np.ndarray) -> np.ndarray:
        """A copy, which the environment may keep or change."""
        return np.array(action, self.spaces.action.dtype)

    def flatten(self, observation: Any) -> np.ndarray:
        """(n, size) float32."""
        out = self.spaces.flatten(observation)
        if out.size != self.num * self.spaces.observation_size:
            raise self.spaces.foreign(f"{np.shape(observation)} numbers for {self.num} streams")
        return out[None] if self.mode is None else out

    def finite(self, array: np.ndarray, what: str) -> np.ndarray:
        if not np.isfinite(array).all():
            i = np.argwhere(~np.isfinite(array))[0]
            where = f", entry {i[1]}" if len(i) > 1 else ""
            raise NonFiniteError(
                f"step {self.steps}, stream {i[0]}: the {what}{where} is {array[tuple(i)]}",
                "bound it in the environment, or in a wrapper around it",
            )
        return array


# ---------------------------------------------------------------- by id
def make(id: str, kwargs: Mapping[str, Any] | None = None, num: int = 1) -> Streams:
    """Streams of the environment that Gymnasium knows by this id, made with these arguments.

    For num > 1 it is a `SyncVectorEnv` that resets in the same step, so that every step of every stream is a
    transition. An id "module:Id" imports the module first: see `check_id`.

    Raises: `UnknownEnvironmentError`, `MissingExtraError`, `EnvironmentArgumentError`, and as `Streams`.
    """
    try:
        if num == 1:
            return Streams(gymnasium.make(id, **(kwargs or {})))
        same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
        made = gymnasium.make_vec(id, num, vectorization_mode="sync", vector_kwargs=same_step, **(kwargs or {}))
        return Streams(made)
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        near = difflib.get_close_matches(id, gymnasium.registry, n=1, cutoff=0.0)[0]
        problem = f"there is no environment {id!r} ({clean(error)})"
        raise UnknownEnvironmentError(problem, f"did you mean {near}") from None
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise MissingExtraError(f"{id} needs more than is installed ({clean(error)})", extra(id)) from None
    except gymnasium.error.Error as error:
        raise UnknownEnvironmentError(f"cannot make {id!r}: {clean(error)}", "see gymnasium.registry") from None
    except NearoptError:
        raise
    except Exception as error:  # whatever its constructor does not like
        told = f"{type(error).__name__}: {clean(error)}"
        raise EnvironmentArgumentError(f"{id} was given {dict(kwargs or {})} ({told})", "see its page") from None


def check_id(id: Any) -> str:
    """An id that comes from a file: making it imports no module that the file names. Raises: `EnvironmentIdError`."""
    if not isinstance(id, str) or ":" in id or id.startswith("GymV"):  # GymV21Environment-v0 imports its arguments
        mend = "make the environment yourself, and pass it in"
        raise EnvironmentIdError(f"the environment id {id!r:.200} is none, or would import a module", mend)
    return id


def clean(error: Exception) -> str:
    return str(error).rstrip(". ")


def extra(id: str) -> str:
    """What to install, by where the environment comes from."""
    spec = gymnasium.registry.get(id.rpartition(":")[2])
    for name in ("mujoco", "box2d"):
        if spec is not None and f".{name}" in str(spec.entry_point):
            return f"pip install 'nearopt[{name}]'"
    return "install the package that holds it"
