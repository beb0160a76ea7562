"""The best member of a family: SciPy's optimisers on exact derivatives.

    maximise  (1/N) Σ log π(a|s) − l2 ‖c‖² − smoothness Σ (c_i − c_j)²        N decisions

Few parameters: trust region with the exact Hessian (Steihaug 1983). Many: L-BFGS (Byrd et al. 1995). Where an
agent has no finite value (NaN) the objective is −inf, from which both step back.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float

from nearopt.behaviour.decisions import Decisions
from nearopt.behaviour.family import Family
from nearopt.behaviour.likelihood import log_policy, total
from nearopt.behaviour.maxent import World, log_world
from nearopt.mdp.errors import NoSolutionError

FEW = 120  # parameters up to which exact Hessians are worth their price
STILL = 1e-6  # a gradient, in nats per decision, below which there is nothing left to climb
FINISHED = 1e-9  # what the optimisers are asked for
MOST = 3000  # iterations
WALL = 40  # steps in a row into agents without a finite value, after which the optimum is taken to be among them
FLAT = 1e-13  # a gradient that is rounding
POLISH = 4  # Newton steps at the end


class Data(NamedTuple):
    """Cells and how often each occurs; `Decisions.cell`, `length` and `pooled`. world: for whole trajectories."""

    cell: Any
    length: Any
    count: Any
    world: World | None = None


class Penalties(NamedTuple):
    l2: Array
    smoothness: Array


def objective(
    theta: Float[Array, " Q"],
    family: Family,
    data: Data,
    penalties: Penalties,
    guess: Float[Array, " n"],
    solved: bool = False,
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """What is minimised, minus the mean log-likelihood per decision plus the penalties; and the agent's V."""
    problem = family.problem(theta)
    logs, value = log_policy(problem, data.cell, data.length, guess, solved)
    likelihood = total(logs, data.count)
    if data.world is not None:
        first, passages = log_world(problem, data.world.branch, data.length)
        likelihood += total(first, data.world.first) + total(passages, data.world.count)
    return family.reward.penalty(theta[: family.reward.size], *penalties) - likelihood / jnp.sum(data.count), value


value_and_gradient = eqx.filter_jit(jax.value_and_grad(objective, has_aux=True))
hessian = eqx.filter_jit(jax.hessian(objective, has_aux=True))


@dataclass(frozen=True)
class Optimum:
    """Where an optimiser stopped, and why."""

    theta: np.ndarray
    value: float
    gradient: float  # the largest component
    iterations: int
    converged: bool
    cause: str = ""  # in words, where it has not converged
    value_function: Any = None  # V (n,) there, of an infinite horizon
    step: np.ndarray | None = None  # the Newton step (Q,) from here, where the Hessian is at hand


def data_of(decisions: Decisions, weight: np.ndarray | None = None) -> Data:
    world = None if decisions.passages is None else decisions.passages.pooled(weight)
    return Data(decisions.cell, decisions.length, decisions.pooled(weight), world)


def optimise(
    family: Family, data: Data, penalties: Penalties, start: np.ndarray, free: np.ndarray | None = None
) -> Optimum:
    """The optimum from `start` on, over the parameters where `free` (all); call it under 64-bit JAX.

    Raises `NoSolutionError` where the agent at the start has no finite value.
    """
    free = np.ones(len(start), bool) if free is None else free
    whole, guess, walls, at = np.array(start, float), jnp.zeros(family.blocks.size), 0, np.zeros(0)

    def place(part: np.ndarray) -> np.ndarray:
        theta = whole.copy()
        theta[free] = part
        return theta

    def value(part: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal guess, walls, at
        (f, found), g = value_and_gradient(jnp.asarray(place(part)), family, data, penalties, guess)
        f, g = float(f), np.asarray(g)[free]
        if not (np.isfinite(f) and np.isfinite(g).all()):
            walls += 1
            return np.inf, np.zeros_like(part)
        guess, walls, at = found, 0, part.copy()
        return f, g

    def curvature(part: np.ndarray) -> np.ndarray:
        if not np.array_equal(at, part):
            value(part)  # V belongs to the point that was looked at last
        second = hessian(jnp.asarray(place(part)), family, data, penalties, guess, True)[0]
        second = np.asarray(second)[np.ix_(free, free)]
        return second if np.isfinite(second).all() else np.eye(len(part))  # go straight downhill

    def halt(_: Any) -> None:
        if walls > WALL:
            raise StopIteration

    first, _ = value(whole[free])
    if not np.isfinite(first):
        raise NoSolutionError(
            "the agent at the start of the fit has no finite value", "set a discount below 1, or a finite horizon"
        )
    if not free.any():
        return Optimum(whole, first, 0.0, 0, True, "", guess)
    step = None
    if free.sum() <= FEW:
        options = dict(gtol=FINISHED, maxiter=MOST)
        out = scipy.optimize.minimize(
            value, whole[free], jac=True, hess=curvature, method="trust-ncg", options=options, callback=halt
        )
        part, ahead = polish(value, curvature, out.x)
        step = np.zeros(len(whole))
        step[free] = ahead
    else:
        options = dict(gtol=FINISHED, ftol=1e-15, maxiter=MOST, maxfun=2 * MOST, maxcor=30)
        out = scipy.optimize.minimize(value, whole[free], jac=True, method="L-BFGS-B", options=options, callback=halt)
        part = out.x
    f, g = value(part)
    theta, steepest = place(part), float(np.abs(g).max())
    cause = "" if steepest <= STILL else why(out.nit, steepest, walls > WALL, out.message)
    return Optimum(theta, f, steepest, int(out.nit), not cause, cause, guess, step)


def polish(value: Any, curvature: Any, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps for as long as they flatten the gradient, and the next one: the last digits, where differences of
    the objective are rounding.
    """
    slope, step = value(part)[1], np.zeros_like(part)
    for left in reversed(range(POLISH)) if np.abs(slope).max() > FLAT else ():
        step = np.linalg.lstsq(curvature(part), slope, rcond=1e-12)[0]
        f, g = value(part - step)
        if not left or not np.isfinite(f) or not np.abs(g).max() < 0.5 * np.abs(slope).max():
            break
        part, slope = part - step, g
    return part, step


def why(iterations: int, steepest: float, walled: bool, message: str) -> str:
    """Why an optimiser stopped short."""
    left = f"the gradient is still {steepest:.2g} nats per decision"
    if walled:
        return f"the likelihood rises towards agents that have no finite value: {left}; lower the discount"
    if iterations >= MOST:
        return f"{iterations:,} iterations were not enough: {left}"
    return f"no step improves the fit, but {left} ({message})"
