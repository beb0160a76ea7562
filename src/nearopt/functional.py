"""The functional layer: exact inference and planning as pure JAX, for `jit`, `vmap` and `grad`.

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
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from nearopt.backup import Scalar, is_zero
from nearopt.behaviour.decisions import collect, steps
from nearopt.behaviour.likelihood import each, log_policy, with_discount
from nearopt.checks import check_dials, check_discount, check_horizon, check_model, check_span
from nearopt.inference.messages import backward, filtered, first_state, smoothed
from nearopt.mdp.model import MDP
from nearopt.planning.solve import choices
from nearopt.planning.stationary import stationary
from nearopt.problem import Problem, make_problem

if TYPE_CHECKING:
    from nearopt.records.trajectories import Trajectories


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
    traced, limits = dials(temperature, optimism)
    traced |= {"reward": reward, "log_prior": log_prior, "final_value": final_value}
    horizon = check_horizon(horizon)
    function = lambda arguments: whole(make_problem(mdp.blocks, horizon, **arguments, **limits), horizon)
    return function(traced) if jax.config.jax_enable_x64 else in_float64(function, traced)


class Stationary(eqx.Module):
    """The infinite horizon's solution as JAX arrays; names and axes are those of `nearopt.solve`."""

    value: Float[Array, " S"]
    q: Float[Array, "S A"]
    policy: Float[Array, "S A"]


def solve(
    mdp: MDP,
    *,
    reward: ArrayLike | None = None,
    temperature: Scalar = 1.0,
    optimism: Scalar = 0.0,
    log_prior: ArrayLike | None = None,
) -> Stationary:
    """The infinite horizon's value, q and policy; pure, for `jit`, `vmap` and `grad`, differentiated implicitly.

    reward: (S,), (S, A) or (S, A, S), instead of the model's own. log_prior: (S, A), None for the flat prior.
    Everything but `mdp` may be traced. The numbers 0 for `optimism` or `temperature` select the limits.

    Nothing is certified here, and nothing refused: NaN stands where no finite solution was found, which above 1,024
    states may also be one that exists, where episodes are very long; `nearopt.solve` says why. Raises the errors of
    `infer` for numbers and shapes.

    >>> import jax, numpy as np, nearopt as no
    >>> mdp = no.MDP.from_grid("S..G", discount=0.9)
    >>> slope = jax.grad(lambda reward: mdp.initial @ no.functional.solve(mdp, reward=reward).value)(mdp.reward)
    >>> visits = no.evaluate(mdp, no.solve(mdp).policy).occupancy
    >>> bool(np.allclose(slope, visits, atol=1e-5))
    True
    """
    check_model(mdp)
    traced, limits = dials(temperature, optimism)
    traced |= {"reward": reward, "log_prior": log_prior}

    def function(arguments: dict[str, Any]) -> Stationary:
        return settled(make_problem(mdp.blocks, None, **arguments, **limits))

    return function(traced) if jax.config.jax_enable_x64 else in_float64(function, traced)


@eqx.filter_jit
def settled(problem: Problem) -> Stationary:
    value = problem.blocks.to_states(stationary(problem, jnp.zeros(problem.blocks.size)))
    return Stationary(value, *choices(problem, value))


def log_likelihood(
    mdp: MDP,
    trajectories: "Trajectories",
    *,
    horizon: int | str | None = None,
    reward: ArrayLike | None = None,
    temperature: Scalar = 1.0,
    optimism: Scalar = 0.0,
    discount: Scalar | None = None,
    log_prior: ArrayLike | None = None,
) -> Float[Array, " n"]:
    """log p(actions | states) of each recorded trajectory, nats (n,); pure in everything but the model and the data.

    horizon: None (infinite), a number of decisions, or "episode", each trajectory's own length. reward: as in `solve`,
    with a finite horizon also (T, S, A) or (T, S, A, S). discount: γ instead of the model's own. log_prior: (S, A).
    Decisions that were not recorded whole do not count. −inf where an action is not available; NaN where there is no
    finite solution. Raises the errors of `infer`, and `TrajectoryLengthError`.

    >>> import jax, numpy as np, nearopt as no
    >>> mdp = no.MDP.from_grid("S..G")
    >>> walk = no.Trajectories.from_arrays(state=[0, 1, 2, 3], action=[1, 1, 1])
    >>> explain = lambda reward: no.functional.log_likelihood(mdp, walk, reward=reward, horizon=6)
    >>> bool(explain(mdp.reward)[0] < explain(2 * mdp.reward)[0])
    True
    >>> jax.grad(lambda reward: explain(reward).sum())(mdp.reward).shape
    (4, 4)
    """
    check_model(mdp)
    traced, limits = dials(temperature, optimism)
    if not isinstance(discount, Tracer) and discount is not None:
        limits["discount"] = check_discount(discount)
        discount = None
    traced |= {"reward": reward, "log_prior": log_prior} | ({} if discount is None else {"discount": discount})
    horizon = check_span(horizon)
    span, shape = steps(trajectories, horizon), () if reward is None else jnp.shape(reward)
    timed = len(shape) == 4 or shape == (span, mdp.num_states, mdp.num_actions)
    decisions = collect(mdp, trajectories, horizon, timed)

    def function(arguments: dict[str, Any]) -> Float[Array, " n"]:
        given = arguments | limits
        gamma = given.pop("discount", None)
        problem = make_problem(mdp.blocks, span, **given)
        logs = at_cells(with_discount(problem, gamma), decisions.cell, decisions.length)
        return each(logs, decisions)  # outside: its shapes are those of the data, which would be compiled for anew

    return function(traced) if jax.config.jax_enable_x64 else in_float64(function, traced)


@eqx.filter_jit
def at_cells(problem: Problem, cell: ArrayLike, length: ArrayLike | None) -> Float[Array, "G T D"]:
    return log_policy(problem, cell, length, jnp.zeros(problem.blocks.size)).log_policy


def dials(temperature: Scalar, optimism: Scalar) -> tuple[dict[str, Any], dict[str, Any]]:
    """Checked τ and κ: what may be traced, and the numbers 0, which select a limit."""
    given = dict(temperature=temperature, optimism=optimism)
    check_dials(*(1.0 if isinstance(x, Tracer) else x for x in given.values()))
    given = {name: x if isinstance(x, Tracer) else float(x) for name, x in given.items()}
    limits = {name: x for name, x in given.items() if is_zero(x)}
    return {name: x for name, x in given.items() if name not in limits}, limits


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
