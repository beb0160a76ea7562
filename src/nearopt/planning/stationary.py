"""V = BV as a pure JAX function: Newton's method under `jit` and `vmap`, differentiated implicitly.

    (I − P) dV = ∂B/∂θ dθ        forwards;  the transposed system backwards: one adjoint solve, no unrolled sweeps

No certificate, no refusals: those need control flow that depends on values. A problem without a solution gives NaN.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.sparse.linalg import bicgstab
from jaxtyping import Array, Float

from nearopt.backup import is_one, is_zero
from nearopt.planning.iteration import look
from nearopt.planning.linear import product
from nearopt.problem import Problem

DENSE = 1024  # states up to which linear systems are solved by elimination, which never stalls
STEPS = 60  # of Newton's method; from a V ≤ BV on it needs about ten
STALL = 2  # steps without progress after which rounding is all that is left
FLOOR = 4 * float(np.finfo(float).eps)  # a residual, relative to the largest value, that is rounding
FOUND = 1e-12  # residual, relative to the largest value, up to which that is a solution
LOST = 1e-5  # error that rounding may leave in a value, relative to the largest
HUGE = 1e11  # a value above this is taken for infinite: there a rise of any size is relatively small
ITERATIONS = 20_000  # of the Krylov method in one solve, at most


@eqx.filter_custom_jvp
def stationary(problem: Problem, guess: Float[Array, " n"], solved: bool = False) -> Float[Array, " n"]:
    """The solution of V = BV in block order, looked for from a guess; NaN where Newton's method finds none.

    solved: the guess is the solution; what is wanted is how it changes with the problem.
    """
    if solved:
        return guess

    def go_on(state: tuple) -> Array:
        _, best, chosen, since, count = state
        size = jnp.abs(chosen).max()
        stalled = (since >= STALL) & (best <= FOUND * jnp.maximum(1.0, size))
        return (count < STEPS) & ~stalled & ~(best <= FLOOR * size)

    def step(state: tuple) -> tuple:
        value, best, chosen, since, count = state
        rise, weights = look(problem, value)
        residual = jnp.abs(rise).max()
        since = jnp.where(residual < 0.5 * best, 0, since + 1)
        chosen = jnp.where(residual < best, value, chosen)
        later = value + solve(problem, weights, rise, 1e-10)
        return later, jnp.minimum(best, residual), chosen, since, count + 1

    first = (guess, jnp.asarray(jnp.inf), guess, jnp.asarray(0), jnp.asarray(0))
    _, best, chosen, _, _ = lax.while_loop(go_on, step, first)
    size = jnp.abs(chosen).max()
    found = (best <= FOUND * jnp.maximum(1.0, size)) & (size < HUGE)
    if not is_zero(problem.optimism) or is_one(problem.blocks.discount):  # V = BV may have roots that no sweep tends to
        steps = solve(problem, look(problem, chosen).weights, jnp.ones(problem.blocks.size), 1e-6)
        # (I − P)⁻¹ 1 is a number of steps only where P dies out, and it is what a residual may be multiplied by
        lost = steps.max() * jnp.maximum(best, FLOOR * size)
        found &= (steps > 0.5).all() & (lost <= LOST * jnp.maximum(1.0, size))
    return jnp.where(found, chosen, jnp.nan)


@stationary.def_jvp
def stationary_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (problem, *rest), (change, *_) = primals, tangents
    value = stationary(problem, *rest)
    backup = lambda p: p.step(value, (None, None)).value
    push = eqx.filter_jvp(backup, (problem,), (change,))[1]
    weights = look(problem, value).weights
    return value, solve(problem, weights, push, 1e-13)


def solve(problem: Problem, weights: Any, b: Float[Array, " n"], accuracy: float) -> Float[Array, " n"]:
    """(I − P)⁻¹ b, differentiable in both modes."""

    def inverse(apply: Callable, b: Float[Array, " n"]) -> Float[Array, " n"]:
        if b.shape[0] <= DENSE:
            return jnp.linalg.solve(jax.vmap(apply, in_axes=1, out_axes=1)(jnp.eye(b.shape[0])), b)
        return bicgstab(apply, b, tol=accuracy, maxiter=min(10 * b.shape[0], ITERATIONS))[0]

    return lax.custom_linear_solve(lambda x: x - product(problem.blocks, weights, x), b, inverse, inverse)
