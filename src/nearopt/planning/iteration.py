"""V = BV by sweeps, and by Newton's method, which is soft policy iteration.

    value iteration      V ← BV
    policy iteration     V ← V + (I − P)⁻¹ (BV − V),  P = ∂B/∂V = Σ_a π(a|s) c_κ(s,a) p_κ(s'|s,a)

At κ = 0 the second is the evaluation of the policy that is greedy (softly) for V: soft policy iteration (Rust's
Newton-Kantorovich steps, 1987). For κ ≥ 0 B is convex: from a V ≤ BV on, Newton's iterates climb towards the value
and are never below those of value iteration (Puterman & Brumelle 1979). The maximum with BV keeps that so where the
linear system is solved roughly.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from nearopt.backup import is_one, is_zero
from nearopt.planning.linear import RESCUE, Kernel, Work, solve
from nearopt.problem import Problem

BATCH = 64  # sweeps per call, where a call costs more than a sweep
SMALL = 2**15  # branches up to which that is so
TIED = 8  # ulps of the largest value within which actions are tied in a Newton step
LONG = 4096  # sweeps after which changes as large as ever are taken for a circle
HUGE = 1e16  # a value or an expected number of steps above this is taken for infinite
PATIENCE = 8  # Newton steps without progress, after which it is over
ROUGH, EXACT = 1e-3, 1e-11  # accuracy of the linear systems of inexact and of exact Newton steps


class DivergingError(Exception):
    """The iterates leave every bound."""


class Look(NamedTuple):
    """One backup at V: BV − V, and the weights of P."""

    rise: Float[Array, " n"]
    weights: tuple[Float[Array, "K J n"], ...]


@eqx.filter_jit
def look(problem: Problem, value: Float[Array, " n"]) -> Look:
    step = problem.step(value, (None, None))
    policies = step.policy
    if is_zero(problem.temperature):
        slack = TIED * jnp.finfo(value.dtype).eps * jnp.abs(value).max()
        policies = [greedy(q, p, slack) for q, p in zip(step.q, problem.log_prior, strict=True)]
    parts = zip(policies, problem.transitions(step, value), strict=True)
    return Look(rise_of(problem, step.value, value), tuple(policy * moves for policy, moves in parts))


def greedy(q: Float[Array, "J n"], log_prior: Float[Array, "J n"], slack: Float[Array, ""]) -> Float[Array, "J n"]:
    """The best actions, shared equally by those that rounding cannot tell apart: one of them may never end, all of
    them together do. More generous ties, as in the backup, would stall Newton's method.
    """
    q = jnp.where(log_prior > -jnp.inf, q, -jnp.inf)
    best = (q >= q.max(axis=0) - slack) & (q > -jnp.inf)
    return best / jnp.maximum(best.sum(axis=0), 1)


@eqx.filter_jit
def sweeps(problem: Problem, value: Float[Array, " n"], count: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """B^count V, and the rise of the last sweep."""

    def sweep(_, carry):
        value, _ = carry
        later = problem.step(value, (None, None)).value
        return later, rise_of(problem, later, value)

    return lax.fori_loop(0, count, sweep, (value, jnp.zeros_like(value)))


def rise_of(problem: Problem, later: Float[Array, " n"], value: Float[Array, " n"]) -> Float[Array, " n"]:
    """BV − V, 0 in terminal states."""
    decides = jnp.concatenate([b.available.any(axis=0) for b in problem.blocks.blocks])
    return jnp.where(decides, later - value, 0.0)


def shifted(problem: Problem, margin: float) -> Problem:
    """The problem in which every decision is paid `margin` more."""
    return eqx.tree_at(lambda p: p.reward, problem, tuple(r + margin for r in problem.reward))


class Reached(NamedTuple):
    """Where an iteration ended: V, BV − V there, and P."""

    value: np.ndarray
    rise: np.ndarray
    kernel: Kernel

    @property
    def residual(self) -> float:
        return float(np.abs(self.rise).max(initial=0.0))


Iterate = Callable[[Problem, np.ndarray, float, Work], Reached]


def by_sweeps(problem: Problem, value: np.ndarray, target: float, work: Work, most: float = np.inf) -> Reached:
    """Value iteration until |BV − V| ≤ target, or until rounding is all that is left; `most` sweeps or so."""
    entries = sum(b.next_state.size for b in problem.blocks.blocks)
    count = BATCH if entries <= SMALL else 1
    v, best, earlier, since, done, watch = jnp.asarray(value), np.inf, np.inf, 0, 0, 1
    while True:
        v, rise = sweeps(problem, v, count)
        work.passes, done = work.passes + count, done + count
        residual, size = float(jnp.abs(rise).max()), float(jnp.abs(v).max())
        if not size < HUGE:
            raise DivergingError
        if done >= watch:
            work.watch(np.asarray(v))
            work.tell(f"sweep {done:,}, last change {residual:.3g}")
            circles = residual >= 0.999 * earlier and residual >= 1e-3 * size
            if circles and done >= max(LONG, 4 * problem.blocks.size):  # time for news to come from everywhere, twice
                raise DivergingError
            earlier = residual
            watch = 2 * done if count > 1 else done + max(1, min(done, 100))
        best, since = (residual, 0) if residual < best else (best, since + count)
        if residual <= target or done >= most or (residual <= noise(problem, size) and since >= 2 * BATCH):
            return reached(problem, np.asarray(v), work)


def by_newton(problem: Problem, value: np.ndarray, target: float, work: Work, accuracy: float | None = None) -> Reached:
    """Newton's method until |BV − V| ≤ target, or until rounding is all that is left.

    accuracy of the linear systems: None for what each step is worth.
    """
    best, since, convex = np.inf, 0, is_zero(problem.optimism) or float(problem.optimism) > 0
    before: Reached | None = None
    while True:
        at = reached(problem, value, work)
        if before is not None and not convex and not at.residual < before.residual:
            at = by_sweeps(problem, before.value, before.residual / 2, work)  # Newton may circle; sweeps never part
        residual, size = at.residual, float(np.abs(at.value).max(initial=0.0))
        if not (size < HUGE and residual < HUGE):
            raise DivergingError
        work.tell(f"step {work.steps}, {work.passes:,} passes, residual {residual:.3g}")
        best, since = (residual, 0) if residual < 0.5 * best else (best, since + 1)
        if residual <= target or since >= (PATIENCE if residual > noise(problem, size) else 2):
            return at
        work.steps += 1
        worth = min(ROUGH, (residual / before.residual) ** 2) if before else ROUGH  # Eisenstat & Walker (1996)
        needed = max(worth, 0.1 * target / residual) if accuracy is None else accuracy
        passes = work.passes
        direction = solve(at.kernel, at.rise, max(needed, EXACT), work, guess=flat_guess(problem, at.rise))
        if not np.isfinite(direction).all():
            if at.kernel.size <= RESCUE:  # P is singular: nobody ever leaves
                raise DivergingError
            value, before = by_sweeps(problem, at.value, target, work, work.passes - passes).value, None
            continue
        value, before = at.value + direction, at
        if convex and at.rise.min() >= -noise(problem, size):
            value = np.maximum(value, at.value + at.rise)


def flat_guess(problem: Problem, rise: np.ndarray) -> np.ndarray | None:
    """The solution if the rise were the same everywhere: with γ < 1 most of it often is."""
    discount = problem.blocks.discount
    if is_one(discount) or not is_zero(problem.optimism):
        return None
    decides = np.concatenate([np.asarray(b.available.any(axis=0)) for b in problem.blocks.blocks])
    return np.where(decides, np.median(rise[decides]) / (1 - float(discount)), 0.0)


def reached(problem: Problem, value: np.ndarray, work: Work) -> Reached:
    work.passes += 1
    rise, weights = look(problem, jnp.asarray(value))
    return Reached(value, np.asarray(rise), Kernel(problem.blocks, weights))


def noise(problem: Problem, size: float) -> float:
    """What rounding leaves of BV − V at values of this size."""
    return 16 * float(np.finfo(float).eps) * (max(size, 1e-290) + float(problem.temperature))
