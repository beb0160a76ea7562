"""Message passing over a finite horizon: one backward recursion, two forward ones (design §1).

backward   V_t, the log message log β_t(s) = V_t(s)/τ at κ = 1
filtered   log α_t(s), α_t(s) = p(s_t | O_1:t−1): what the past alone says, each step normalised
smoothed   p(s_t | O_1:T), by running the tilted process forward

All work on vectors in block order (`mdp/blocks.py`); time is the leading axis of what they return. Q, policies and
other arrays over (time, state, action) are recomputed from V where they are asked for: one backup each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from nearopt.backup import entropic_mean, is_zero, tilt
from nearopt.mdp.blocks import Blocks, concatenate
from nearopt.problem import Problem, safe_log

LARGE = 2**18  # branches from which a step is worth a dispatch of its own


def sweep(
    step: Callable, problem: Problem, carry: Any, inputs: Any, horizon: int, reverse: bool = False, keep: bool = True
) -> Any:
    """`lax.scan` of `step(problem, carry, input) -> carry` over all steps, keeping every carry, or only the last.

    XLA runs the loops of a CPU on one core. A large model is therefore stepped from Python, each step on all cores.
    """
    entries = sum(b.next_state.size for b in problem.blocks.blocks)
    traced = any(isinstance(x, Tracer) for x in jax.tree.leaves((problem, carry, inputs)))
    if traced or entries < LARGE or jax.default_backend() != "cpu":
        return scan(step, problem, carry, inputs, horizon, reverse, keep)
    kept = jax.tree.map(lambda x: np.empty((horizon, *x.shape)), carry) if keep else None
    for t in reversed(range(horizon)) if reverse else range(horizon):
        carry = step(problem, carry, jax.tree.map(lambda x: x[t], inputs))  # noqa: B023
        for rows, row in zip(jax.tree.leaves(kept), jax.tree.leaves(carry) if keep else (), strict=True):
            rows[t] = row
    return kept if keep else carry


@eqx.filter_jit
def scan(step: Callable, problem: Problem, carry: Any, inputs: Any, horizon: int, reverse: bool, keep: bool) -> Any:
    def body(carry, now):
        return (carry := step(problem, carry, now)), carry if keep else None

    last, every = lax.scan(body, carry, inputs, length=horizon, reverse=reverse)
    return every if keep else last


def joined(*parts: Any) -> Any:
    """Arrays one after the other along time, on the side where they are."""
    return (np if any(isinstance(p, np.ndarray) for p in parts) else jnp).concatenate(parts)


def backward(problem: Problem, horizon: int) -> Float[Array, "T+1 n"]:
    """V_t for t = 1 .. T+1; the last row is the final value."""
    values = sweep(backward_step, problem, problem.final_value, problem.timed(), horizon, reverse=True)
    return joined(values, problem.final_value[None])


@eqx.filter_jit
def backward_step(problem: Problem, next_value: Float[Array, " n"], timed: tuple) -> Float[Array, " n"]:
    return problem.step(next_value, timed).value


class First(NamedTuple):
    """The first state: its posterior, and the log partition function."""

    probability: Float[Array, " n"]
    log_partition: Float[Array, ""]


@eqx.filter_jit
def first_state(problem: Problem, value: Float[Array, " n"]) -> First:
    """p_κ(s) ∝ p(s) exp(κ V_1(s)/τ) and (1/κ) log Σ_s p(s) exp(κ V_1(s)/τ).

    Where success is impossible (log partition −inf, κ ≠ 0) there is no posterior, and the probabilities are all 0. At
    τ = 0 the log partition is the limit of E[V_1]/τ: ±inf, or 0 where E[V_1] is.
    """
    row = entropic_mean(value, problem.blocks.initial, problem.scale)
    mean, probability = row.mean, tilt(value, problem.blocks.initial, problem.scale, row)
    if is_zero(problem.temperature):
        return First(probability, jnp.where(mean == 0, 0.0, mean * jnp.inf))
    possible = mean > -jnp.inf
    log_partition = jnp.where(possible, jnp.where(possible, mean, 0.0) / problem.temperature, -jnp.inf)
    if is_zero(problem.scale):
        return First(probability, log_partition)
    return First(jnp.where(possible, probability, 0.0), log_partition)


def smoothed(problem: Problem, values: Float[Array, "T+1 n"]) -> Float[Array, "T+1 n"]:
    """p(s_t | O_1:T): the first state, the policy and the tilted dynamics run forward. Terminal mass stays."""
    first = first_state(problem, values[0]).probability
    return joined(first[None], sweep(smoothed_step, problem, first, (values[1:], problem.timed()), len(values) - 1))


@eqx.filter_jit
def smoothed_step(problem: Problem, mass: Float[Array, " n"], now: tuple) -> Float[Array, " n"]:
    next_value, timed = now
    step = problem.step(next_value, timed)
    parts = zip(problem.blocks.split(mass), step.policy, problem.transitions(step, next_value), strict=True)
    flow = [lax.optimization_barrier(m * p) * w for m, p, w in parts]  # or π is computed anew for every branch
    stay = jnp.where(terminal_states(problem.blocks), mass, 0.0)
    flow = lax.optimization_barrier(concatenate(flow))
    return stay.at[targets(problem.blocks)].add(flow, mode="promise_in_bounds")


class Filtered(NamedTuple):
    """log α, and log p(O_1:t−1), the logarithm of what each row was divided by."""

    log_forward: Float[Array, "T+1 n"]
    log_evidence: Float[Array, " T+1"]


def filtered(problem: Problem, values: Float[Array, "T+1 n"]) -> Filtered:
    """log α_t for every κ: α_{t+1}(s') ∝ Σ α_t(s) p(a|s) exp((1−κ)(Q_t−V_t)/τ) γ p(s'|s,a) exp(κ r/τ).

    At κ = 1 that is exact filtering, which knows nothing of V; at κ = 0 it is the policy run forward. For every κ,
    α_t(s) exp(κ V_t(s)/τ) is proportional to p(s_t = s | O_1:T).
    """
    first = Filtered(safe_log(problem.blocks.initial), jnp.zeros(()))
    step = eqx.Partial(filtered_step, tuple(safe_log(b.probability) for b in problem.blocks.blocks))
    later = sweep(step, problem, first, (values[:-1], values[1:], problem.timed()), len(values) - 1)
    return jax.tree.map(lambda f, l: joined(f[None], l), first, later)


@eqx.filter_jit
def filtered_step(log_probability: tuple, problem: Problem, carry: Filtered, now: tuple) -> Filtered:
    log_mass, log_evidence = carry
    value, next_value, timed = now
    blocks, scale = problem.blocks, problem.scale
    reward, log_prior = problem.at(timed)
    q, policy = problem.step(next_value, timed)[:2]
    flow = []
    parts = zip(blocks.split(log_mass), blocks.split(value), q, policy, reward, log_prior, log_probability, strict=True)
    for m, v, q_b, policy_b, r, prior, log_p in parts:
        choice = lax.optimization_barrier(m + log_choice(problem, prior, policy_b, q_b, v))
        allowed = r > -jnp.inf
        tilt = 0.0 if is_zero(scale) else jnp.where(allowed, scale * jnp.where(allowed, r, 0.0), -jnp.inf)
        flow.append(choice + jnp.log(jnp.asarray(blocks.discount)) + tilt + log_p)
    stay = jnp.where(terminal_states(blocks), log_mass, -jnp.inf)
    later = scatter_log_sum(stay, targets(blocks), concatenate(flow))
    norm = scatter_log_sum(jnp.full(1, -jnp.inf), jnp.zeros_like(later, int), later)[0]
    norm = jnp.where(norm > -jnp.inf, norm, 0.0)
    return Filtered(later - norm, log_evidence + norm)


def log_choice(problem: Problem, log_prior: Array, policy: Array, q: Array, value: Array) -> Float[Array, "J n"]:
    """log of p(a|s) exp((1−κ)(Q−V)/τ) = log of p(a|s)^κ π(a|s)^(1−κ): the prior at κ = 1, the policy at κ = 0."""
    kappa = problem.optimism
    if is_zero(kappa):
        return safe_log(policy)
    advantage = jnp.where((q > -jnp.inf) & (value > -jnp.inf), q - value, 0.0)
    never = (q == -jnp.inf) & (value > -jnp.inf) & (kappa < 1)  # π = 0 there, whatever the prior
    return jnp.where(never, -jnp.inf, log_prior + (1 - kappa) * advantage / problem.temperature)


def terminal_states(blocks: Blocks) -> Array:
    """(n,) bool, filled-up states included (they hold no mass)."""
    return jnp.concatenate([~b.available.any(axis=0) for b in blocks.blocks])


def targets(blocks: Blocks) -> Array:
    """(B,) where each branch leads, filled-up ones included."""
    return concatenate([b.next_state for b in blocks.blocks])


def scatter_log_sum(x: Float[Array, " n"], where: Array, y: Float[Array, " B"]) -> Float[Array, " n"]:
    """log (exp x[i] + Σ exp y over the y that go to i), shifted per row; where all is −inf, −inf with gradient 0."""
    top = lax.stop_gradient(x.at[where].max(y, mode="promise_in_bounds"))
    live = top > -jnp.inf
    shift = jnp.where(live, top, 0.0)
    grown = lambda z, s: jnp.exp(jnp.where(z > -jnp.inf, jnp.where(z > -jnp.inf, z, 0.0) - s, -jnp.inf))
    shifts = lax.optimization_barrier(shift[where])
    total = grown(x, shift).at[where].add(lax.optimization_barrier(grown(y, shifts)), mode="promise_in_bounds")
    return jnp.where(live, shift + jnp.log(jnp.where(live, total, 1.0)), -jnp.inf)
