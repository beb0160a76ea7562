"""The exact likelihood of recorded actions given the recorded states, as pure JAX.

    log p(a_1:T | s_1:T) = Σ_t log π_t(a_t|s_t),   π_t(a|s) = p(a|s) exp((Q_t(s,a) − V_t(s))/τ)

The agent acts as if the world were the tilted p_κ, which is in its Q and V. The world that moved it is p, whose factor
Π p(s_{t+1}|s_t,a_t) no parameter changes. κ = 0 is maximum causal entropy (Ziebart 2010), and Rust's (1987) dynamic
logit. Gradients of the infinite horizon are implicit: one adjoint solve (`planning/stationary.py`).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from nearopt.backup import Scalar, is_one
from nearopt.behaviour.decisions import Decisions
from nearopt.mdp.blocks import concatenate
from nearopt.planning.stationary import stationary
from nearopt.problem import Problem


def with_discount(problem: Problem, discount: Scalar | None) -> Problem:
    """The same problem with another γ."""
    if discount is None:
        return problem
    gamma = 1.0 if is_one(discount) else jnp.asarray(discount, float)
    return eqx.tree_at(lambda p: p.blocks.discount, problem, gamma)


class Explained(NamedTuple):
    """log π of every cell, and the agent's V (infinite horizon; else the guess), a good guess for an agent alike."""

    log_policy: Float[Array, "G T D"]
    value: Float[Array, " n"]


def log_policy(
    problem: Problem, cell: ArrayLike, length: ArrayLike | None, guess: Float[Array, " n"], solved: bool = False
) -> Explained:
    """One solution of V = BV (length None), or one pass backwards in time. cell (G, T, D), length (G,).

    solved: the guess is that solution.
    """
    cell = jnp.asarray(cell)
    wrong = jnp.stack([jnp.isnan(r).any() for r in problem.reward]).any()  # NaN would be lost among −inf
    if length is None:
        value = stationary(problem, guess, solved)
        logs = at_cells(problem, value, value, (None, None), cell[0, 0])[1]
        return Explained(jnp.where(wrong | jnp.isnan(value).any(), jnp.nan, logs)[None, None], value)
    logs = jax.vmap(lambda cells, steps: one_group(problem, cells, steps))(cell, jnp.asarray(length))
    return Explained(jnp.where(wrong, jnp.nan, logs), guess)


def one_group(problem: Problem, cell: Int[Array, "T D"], length: Int[Array, ""]) -> Float[Array, "T D"]:
    """log π at the cells of each step, for a horizon of `length` of the T steps."""

    @jax.checkpoint  # the reverse pass keeps V_t and no array over branches
    def step(next_value: Float[Array, " n"], now: tuple) -> tuple:
        t, cells, timed = now
        value, logs = at_cells(problem, None, next_value, timed, cells)
        return jnp.where(t < length, value, problem.final_value), logs

    inputs = (jnp.arange(cell.shape[0]), cell, problem.timed())
    return lax.scan(step, problem.final_value, inputs, reverse=True)[1]


def at_cells(problem: Problem, value: Any, next_value: Array, timed: tuple, cells: Array) -> tuple[Array, Array]:
    """V of the step before `next_value`, and log π of some of its choices; −inf for one that is not available."""
    step = problem.step(next_value, timed)
    logs = concatenate(problem.log_policy(step, step.value if value is None else value, timed))
    return step.value, logs.at[cells].get(mode="fill", fill_value=-jnp.inf)


def total(logs: Float[Array, "..."], count: ArrayLike) -> Float[Array, ""]:
    """Σ count · log π, in which a cell that does not occur has no part."""
    count = jnp.asarray(count)
    return jnp.where(count > 0, count * jnp.where(count > 0, logs, 0.0), 0.0).sum()


def each(logs: Float[Array, "G T D"], decisions: Decisions) -> Float[Array, " n"]:
    """The log-likelihood of every trajectory."""
    terms = decisions.count * logs.reshape(-1)[decisions.place]
    return jnp.zeros(decisions.num_trajectories).at[decisions.row].add(terms)


@eqx.filter_jit
def policies(problem: Problem, steps: int | None, value: Float[Array, " n"] | None = None) -> Float[Array, "*T S A"]:
    """π as a table: of the infinite horizon, whose V may be known, or of each of its steps."""
    if steps is None:
        solution = stationary(problem, jnp.zeros(problem.blocks.size)) if value is None else value
        step = problem.step(solution, (None, None))
        return problem.blocks.to_actions(step.policy, 0.0)

    def backwards(next_value: Float[Array, " n"], timed: tuple) -> tuple:
        step = problem.step(next_value, timed)
        return step.value, problem.blocks.to_actions(step.policy, 0.0)

    return lax.scan(backwards, problem.final_value, problem.timed(), length=steps, reverse=True)[1]
