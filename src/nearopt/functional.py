"""The functional layer: exact inference as pure JAX, for `jit`, `vmap` and `grad`.

Everything here computes in float64, whatever the caller's setting. Inside a transformation of a 32-bit caller (JAX's
default) the results are then rounded to float32, and only reverse mode is defined; under `jax.enable_x64(True)` they
stay float64 and every derivative exists.

The gradient of the log partition with respect to the reward is the visitation (design §1):

    >>> import jax, numpy as np, nearopt as no
    >>> mdp = no.MDP.from_grid("S..G")
    >>> log_partition = lambda reward: no.functional.infer(mdp, 5, reward=reward, temperature=0.5).log_partition
    >>> visits = 0.5 * jax.grad(log_partition)(mdp.reward)
    >>> bool(np.allclose(visits, no.infer(mdp, 5, temperature=0.5).state_action_probs.sum(0)))
    True
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from nearopt.backup import Scalar, is_zero
from nearopt.inference.checks import check_dials, check_model
from nearopt.inference.messages import Problem, backward, filtered, first_state, smoothed
from nearopt.mdp.errors import AmbiguousRewardError, FinalValueError, HorizonError, PriorShapeError
from nearopt.mdp.model import MDP


class Inference(eqx.Module):
    """The exact posterior over T steps as JAX arrays; names and axes are those of `nearopt.infer`.

    Under `jit`, what is not used is not computed.
    """

    value: Float[Array, "T+1 S"]
    q: Float[Array, "T S A"]
    policy: Float[Array, "T S A"]
    log_forward: Float[Array, "T+1 S"]
    state_probs: Float[Array, "T+1 S"]
    state_action_probs: Float[Array, "T S A"]
    log_partition: Float[Array, ""]


def in_float64(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)` computed in 64-bit JAX from a 32-bit caller.

    Concrete arguments give a float64 answer. Traced ones give what the caller's transformations can carry, float32;
    the reverse pass has to run in 64 bits as well, so it is entered by hand.
    """
    if not any(isinstance(x, Tracer) for x in jax.tree.leaves(arguments)):
        with jax.enable_x64(True):
            return function(*arguments)

    def cast(tree: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype), tree)

    @jax.custom_vjp
    def rounded(*arguments):
        with jax.enable_x64(True):
            return cast(function(*arguments), jnp.float32)

    def forward(*arguments):
        with jax.enable_x64(True):
            answer, pull_back = jax.vjp(function, *arguments)
            return cast(answer, jnp.float32), pull_back

    def reverse(pull_back, cotangent):
        with jax.enable_x64(True):
            return pull_back(cast(cotangent, jnp.float64))

    rounded.defvjp(forward, reverse)
    return rounded(*arguments)


def infer(
    mdp: MDP,
    horizon: int,
    *,
    reward: ArrayLike | None = None,
    temperature: Scalar = 1.0,
    optimism: Scalar = 1.0,
    log_prior: ArrayLike | None = None,
    final_value: ArrayLike | None = None,
) -> Inference:
    """Messages, policy, marginals and log partition of `horizon` steps; pure, for `jit`, `vmap` and `grad`.

    reward: (S,), (S, A), (T, S, A), (S, A, S) or (T, S, A, S), instead of the model's own. log_prior: (S, A) or
    (T, S, A) logarithms of the action prior, None for the flat one. final_value: (S,), zeros by default. Everything
    but `mdp` and `horizon` may be traced. The numbers 0 for `optimism` or `temperature` select the limits.

    Arrays are not checked here (they may be tracers): `nearopt.infer` does that. Numbers and shapes are:
    `TemperatureError`, `OptimismError`, `AmbiguousRewardError`, `PriorShapeError`, `FinalValueError`, `HorizonError`.
    """
    check_model(mdp)
    dials = [x if isinstance(x, Tracer) else float(x) for x in (temperature, optimism)]
    check_dials(*(1.0 if isinstance(x, Tracer) else x for x in dials))
    traced = dict(zip(("temperature", "optimism"), dials, strict=True))
    limits = {name: traced.pop(name) for name in list(traced) if is_zero(traced[name])}
    traced |= {"reward": reward, "log_prior": log_prior, "final_value": final_value}
    function = lambda arguments: whole(make_problem(mdp, horizon, **arguments, **limits), int(horizon))
    return function(traced) if jax.config.jax_enable_x64 else in_float64(function, traced)


@eqx.filter_jit
def whole(problem: Problem, horizon: int) -> Inference:
    """Everything there is to infer."""
    values = backward(problem, horizon)
    public = jax.vmap(problem.blocks.to_states)
    masses = public(smoothed(problem, values))
    q, policy = over_time(problem, values)
    return Inference(
        value=public(values),
        q=q,
        policy=policy,
        log_forward=public(filtered(problem, values).log_forward),
        state_probs=masses,
        state_action_probs=masses[:-1, :, None] * policy,
        log_partition=first_state(problem, values[0]).log_partition,
    )


@eqx.filter_jit
def over_time(problem: Problem, values: Float[Array, "T+1 n"]) -> tuple[Float[Array, "T S A"], Float[Array, "T S A"]]:
    """Q and π of every step, in public order."""

    def one(_, now):
        step = problem.step(*now)
        return None, (problem.blocks.to_actions(step.q, -jnp.inf), problem.blocks.to_actions(step.policy, 0.0))

    return jax.lax.scan(one, None, (values[1:], problem.timed()))[1]


def make_problem(
    mdp: MDP,
    horizon: int,
    reward: Any = None,
    temperature: Scalar = 1.0,
    optimism: Scalar = 1.0,
    log_prior: Any = None,
    final_value: Any = None,
) -> Problem:
    """The task in block order. Call it under 64-bit JAX."""
    if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
        raise HorizonError(f"the horizon is {horizon!r}", "give a whole number of decisions, at least 1")
    shape = (mdp.num_states, mdp.num_actions)
    rewards, timed_reward = reward_blocks(mdp, horizon, reward)
    timed_prior = log_prior is not None and jnp.ndim(log_prior) == 3
    if log_prior is not None and jnp.shape(log_prior) != ((horizon, *shape) if timed_prior else shape):
        raise PriorShapeError(
            f"the prior has shape {jnp.shape(log_prior)}", f"give one number per state and action, {shape}"
        )
    if final_value is not None and jnp.shape(final_value) != shape[:1]:
        raise FinalValueError(
            f"final_value has shape {jnp.shape(final_value)}", f"give one number per state, {shape[:1]}"
        )
    return Problem(
        blocks=mdp.blocks,
        reward=rewards,
        log_prior=prior_blocks(mdp, log_prior, timed_prior),
        final_value=final_blocks(mdp, final_value),
        temperature=0.0 if is_zero(temperature) else jnp.asarray(temperature, float),
        optimism=0.0 if is_zero(optimism) else jnp.asarray(optimism, float),
        timed_reward=timed_reward,
        timed_prior=timed_prior,
    )


def reward_blocks(mdp: MDP, horizon: int, reward: Any) -> tuple[tuple[Array, ...], bool]:
    """The reward per block and whether it varies over time."""
    blocks = mdp.blocks.blocks
    if reward is None:
        return tuple(b.reward for b in blocks), False
    reward = jnp.asarray(reward, float)
    states, actions = mdp.num_states, mdp.num_actions
    branch, timed = (states, actions, states), (horizon, states, actions)
    if reward.shape == branch == timed:
        raise AmbiguousRewardError(
            f"reward of shape {branch} may be (S, A, S) or (T, S, A)", "add the missing axis: (T, S, A, S)"
        )
    if reward.shape == (states,):
        reward = jnp.broadcast_to(reward[:, None], (states, actions))
    per_choice = lambda r: tuple(x[None] for x in mdp.blocks.from_actions(r))
    per_branch = lambda r: tuple(r[b.state, b.action, public[b.next_state]] for b in blocks)
    public = jnp.zeros(mdp.blocks.size, int).at[mdp.blocks.rank].set(jnp.arange(states))
    readers = {
        (states, actions): (per_choice, False),
        timed: (jax.vmap(per_choice), True),
        branch: (per_branch, False),
        (horizon, *branch): (jax.vmap(per_branch), True),
    }
    if reward.shape not in readers:
        raise AmbiguousRewardError(
            f"reward has shape {reward.shape} for {states} states, {actions} actions and horizon {horizon}",
            "give (S,), (S, A), (T, S, A), (S, A, S) or (T, S, A, S)",
        )
    read, is_timed = readers[reward.shape]
    return read(reward), is_timed


def prior_blocks(mdp: MDP, log_prior: Any, timed: bool) -> tuple[Array, ...]:
    """log p(a|s) per block: 0 for the flat prior, −inf where there is no choice."""
    blocks = mdp.blocks.blocks
    flat = tuple(jnp.where(b.available, 0.0, -jnp.inf).astype(float) for b in blocks)
    if log_prior is None:
        return flat
    read = lambda p: tuple(
        jnp.where(b.available, x, -jnp.inf) for b, x in zip(blocks, mdp.blocks.from_actions(p), strict=True)
    )
    return (jax.vmap(read) if timed else read)(jnp.asarray(log_prior, float))


def final_blocks(mdp: MDP, final_value: Any) -> Array:
    """V_{T+1} in block order; 0 in terminal states."""
    if final_value is None:
        return jnp.zeros(mdp.blocks.size)
    return mdp.blocks.from_states(jnp.where(mdp.terminal, 0.0, jnp.asarray(final_value, float)))
