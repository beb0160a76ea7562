"""What a policy is worth: returns of whole episodes in environments that it has not seen."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nearopt.agents.agent import MOST_SEED, Agent, Method, World, act, enter
from nearopt.agents.errors import WrongAgentError
from nearopt.agents.keys import EVALUATE, key_for
from nearopt.agents.settings import Settings, whole
from nearopt.environments.streams import Streams
from nearopt.mdp.errors import NearoptError

MOST_STREAMS = 16  # environments of Gymnasium that are stepped side by side
MOST_STEPS = 100_000  # of one episode


class EndlessEpisodeError(NearoptError):
    """An episode that does not end."""


class Returns(NamedTuple):
    """Of episodes (n,), float64: the sum of rewards; the same with −τ log π/p of every action; the number of steps."""

    returns: np.ndarray
    soft_returns: np.ndarray
    lengths: np.ndarray


def evaluate_agent(
    agent: Agent,
    env: Any,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    env_kwargs: Mapping[str, Any] | None = None,
) -> Returns:
    """The returns of `episodes` whole episodes. Sums are not discounted, and the agent learns nothing.

    Every stream of a vector of environments contributes a number of episodes that is fixed beforehand: were the first
    to end taken, short ones would count too often.

    Args:
        env: an id, which is made anew with `env_kwargs`; an environment, a vector of them, one in JAX; or a `World`.
        seed: of the environment and of the policy's draws.
        deterministic: the policy's mode instead of samples.

    Raises:
        SettingError: no episode, or a seed below 0.
        WrongAgentError: the environment has other observations or actions than the agent's.
        EndlessEpisodeError: an episode of Gymnasium has not ended after 100,000 steps.

    >>> from nearopt import SAC
    >>> evaluate_agent(SAC("Pendulum-v1"), "Pendulum-v1", episodes=2).lengths
    array([200., 200.])
    """
    episodes, seed = whole("episodes", episodes), whole("seed", seed, 0, MOST_SEED)
    world = env if isinstance(env, World) else enter(env, env_kwargs, min(episodes, MOST_STREAMS))
    if world.spaces.to_json() != agent.spaces.to_json():
        problem = f"{world.id or 'the environment'} has other observations or actions than the agent was trained with"
        raise WrongAgentError(problem, "evaluate it in its own environment, made with the same arguments")
    if world.environment is not None:
        key = key_for(seed, EVALUATE)
        sums = in_jax(agent.method, agent.settings, agent.state, world.environment, key, episodes, deterministic)
        return Returns(*np.asarray(sums, float))
    assert world.streams is not None
    try:
        return in_streams(agent, world.streams, episodes, seed, deterministic)
    finally:
        if isinstance(env, str):
            world.streams.env.close()


def in_streams(agent: Agent, streams: Streams, episodes: int, seed: int, deterministic: bool) -> Returns:
    """In Gymnasium: those of the first stream come first."""
    n, key, temperature = streams.num, key_for(seed, EVALUATE), agent.temperature
    quota = [episodes // n + (stream < episodes % n) for stream in range(n)]
    ended: list[list[np.ndarray]] = [[] for _ in range(n)]
    running, observation, step = np.zeros((3, n)), streams.reset(seed), 0
    while any(len(done) < due for done, due in zip(ended, quota, strict=True)):
        choice = act(
            agent.method, agent.settings, agent.state, observation, jax.random.fold_in(key, step), deterministic
        )
        action, cost = (np.asarray(part) for part in choice)
        moves = streams.step(action)
        sums = np.stack([moves.reward, moves.reward - temperature * cost, np.ones(n)])
        running += np.where(moves.real, sums, 0.0)
        for stream in np.flatnonzero((moves.terminated | moves.truncated) & moves.real):
            ended[stream].append(running[:, stream].copy())
            running[:, stream] = 0.0
        if running[2].max() >= MOST_STEPS:
            mend = "give the environment a time limit: max_episode_steps"
            raise EndlessEpisodeError(f"an episode has not ended after {MOST_STEPS:,} steps", mend)
        observation, step = moves.observation, step + 1
    rows = [row for done, due in zip(ended, quota, strict=True) for row in done[:due]]
    return Returns(*np.array(rows).reshape(-1, 3).T)


@eqx.filter_jit
def in_jax(
    method: Method, settings: Settings, state: Any, environment: Any, key: Any, episodes: int, deterministic: bool
) -> Any:
    """(3, episodes), all at once: as many steps as the longest one has."""
    each = partial(jax.random.split, num=episodes)
    first, key = jax.random.split(key)
    temperature = jnp.exp(state.log_temperature)

    def step(carry: tuple) -> tuple:
        number, world, sums, going = carry
        moving, choosing = jax.random.split(jax.random.fold_in(key, number))
        observation = jax.vmap(environment.observe)(world)
        action, cost = method.act(settings, state, observation, choosing, deterministic)
        after, reward, terminated = jax.vmap(environment.step)(each(moving), world, action)
        more = jnp.stack([reward, reward - temperature * cost, jnp.ones(episodes)])
        return number + 1, after, sums + jnp.where(going, more, 0.0), going & ~terminated

    going_on = lambda carry: (carry[0] < environment.max_episode_steps) & carry[3].any()
    begun = jax.vmap(environment.reset)(each(first))
    begin = (jnp.int32(0), begun, jnp.zeros((3, episodes)), jnp.ones(episodes, bool))
    return jax.lax.while_loop(going_on, step, begin)[2]
