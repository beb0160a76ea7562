"""How well the data pin the parameters: three covariances, by name.

    hessian    H⁻¹              curvature of the objective (observed information)
    opg        (Σ g gᵀ + Λ)⁻¹   outer product of the scores g; of decisions, or of episodes or subjects as wholes
    sandwich   H⁻¹ (Σ g gᵀ) H⁻¹ right also where decisions are not independent given the model (Huber 1967)

H = N · the Hessian of what `optimise` minimises, Λ that of the penalties alone: with penalties these are Laplace
approximations to a posterior whose prior they are. Directions in which H is flat have infinite variance.

Above `MANY` parameters H is replaced by the Fisher information of the recorded states plus Λ, and inverted by
Woodbury's formula in the dimension of the data.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Array, Float

from nearopt.behaviour.decisions import Decisions, Visits, visits
from nearopt.behaviour.family import Family, explain, explain_world
from nearopt.behaviour.optimise import Data, Penalties, data_of, hessian
from nearopt.mdp.blocks import power_of_two
from nearopt.mdp.errors import KindError, PenaltyError
from nearopt.planning.classes import components

KINDS = ("hessian", "opg", "sandwich")
MANY = 1500
FLAT = 1e-9  # an eigenvalue, relative to the diagonal, below which a direction is flat
TOUCHED = 1e-6  # the share of a parameter in flat directions from which its own variance is infinite


@dataclass(frozen=True)
class Fit:
    """Everything that uncertainty is about: the optimum, its family, its data."""

    family: Family
    theta: np.ndarray
    decisions: Decisions
    penalties: Penalties
    free: np.ndarray  # (Q,) bool: parameters that were fitted; the others stand where they are
    value: Any = None  # (n,) V of the agent at θ, infinite horizon; None where it is not known

    @property
    def data(self) -> Data:
        return data_of(self.decisions)

    @cached_property
    def visits(self) -> Visits:
        return visits(self.family.blocks, self.decisions)

    def expected(self) -> np.ndarray:
        """(E,) n(s) π(a|s) of every entry of `visits`."""
        seen = self.visits
        logs = explain(self.family, jnp.asarray(self.theta), seen.cell, self.decisions.length, self.value)
        return seen.count * np.exp(np.asarray(logs)).reshape(-1)[seen.place]

    def curvature(self, theta: Any = None) -> np.ndarray:
        """(Q, Q) N · the Hessian of what `optimise` minimises, here or at another θ. Call it under 64-bit JAX."""
        known = theta is None and self.value is not None
        value = self.value if known else jnp.zeros(self.family.blocks.size)
        at = jnp.asarray(self.theta if theta is None else theta)
        return self.decisions.total * np.asarray(hessian(at, self.family, self.data, self.penalties, value, known)[0])


def log_likelihoods(family: Family, theta: np.ndarray, decisions: Decisions, value: Any = None) -> np.ndarray:
    """(n,) of every trajectory under the agent at θ, nats; value: V where it is known."""
    at = jnp.asarray(theta)
    out = decisions.each(explain(family, at, decisions.cell, decisions.length, value))
    if decisions.passages is None:
        return out
    world = explain_world(family, at, decisions.passages.branch, decisions.length)
    return out + decisions.passages.each(*world)


def standard_errors(fit: Fit, kind: str, group: np.ndarray | None) -> np.ndarray:
    """(R,) of `Family.public`, in its order; inf where the data say nothing. Call it under 64-bit JAX.

    group (n,): which trajectories are one unit, for the scores; None: every decision is one.
    """
    if kind not in KINDS:
        raise KindError(f"there is no kind of standard error {kind!r}", f"give one of {', '.join(map(repr, KINDS))}")
    if len(fit.theta) > MANY:
        return many(fit, kind)
    covariance, endless = covariance_of(fit, kind, group)
    slope = np.asarray(public_slope(fit.family, jnp.asarray(fit.theta)))
    variance = np.einsum("ri,ij,rj->r", slope, covariance, slope, optimize=True)
    loose = ~((np.abs(slope) @ endless) <= TOUCHED)  # a reward of zero has no direction: there the slope is NaN
    return np.where(loose, np.inf, np.sqrt(np.maximum(variance, 0.0)))


@eqx.filter_jit
def public_slope(family: Family, theta: Float[Array, " Q"]) -> Float[Array, "R Q"]:
    """∂ public parameters / ∂θ."""
    return jax.jacrev(family.public)(theta)


def covariance_of(fit: Fit, kind: str, group: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The covariance of θ off its flat directions, and how far each parameter lies in these."""
    if kind == "opg":
        return inverse(outer(fit, group) + curvature_of_penalty(fit).toarray(), fit.free)
    bread, endless = inverse(fit.curvature(), fit.free)
    return (bread, endless) if kind == "hessian" else (bread @ outer(fit, group) @ bread, endless)


def inverse(information: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse over what is free, without its flat directions; and the weight of those in every parameter."""
    size = len(information)
    out, endless = np.zeros((size, size)), np.where(free, 0.0, 1.0)
    scale = np.sqrt(np.maximum(np.diag(information), 0.0))
    known = free & (scale > FLAT * scale.max(initial=0.0)) & (scale > 0)
    endless[free & ~known] = 1.0
    if known.any():
        unit = scale[known]
        values, vectors = scipy.linalg.eigh(information[np.ix_(known, known)] / np.outer(unit, unit))
        flat = values <= FLAT
        solid = vectors[:, ~flat] / unit[:, None]
        out[np.ix_(known, known)] = (solid / values[~flat]) @ solid.T
        endless[known] = np.sqrt((vectors[:, flat] ** 2).sum(axis=1))
    return out, endless


def outer(fit: Fit, group: np.ndarray | None) -> np.ndarray:
    """Σ g gᵀ over units."""
    if fit.decisions.passages is not None:
        raise KindError("whole trajectories have no scores of decisions", "use the kind 'hessian', or the bootstrap")
    data, count = fit.decisions, fit.data.count.reshape(-1)
    occurs = np.flatnonzero(count)
    scores = jacobian(fit, data.cell, occurs)
    if group is None:
        weighted = scores * np.sqrt(count[occurs])[:, None]
    else:
        rows, column = np.unique(group, return_inverse=True)[1], np.searchsorted(occurs, data.place)
        shape = (rows.max() + 1, len(occurs))
        weighted = scipy.sparse.csr_array((data.count, (rows[data.row], column)), shape=shape) @ scores
    return weighted.T @ weighted


def jacobian(fit: Fit, cell: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(E, Q) ∂ log π of the cells at these places."""
    padded = np.zeros(power_of_two(len(place)), int)  # one shape for data that differ a little
    padded[: len(place)] = place
    forward, theta = len(fit.theta) <= len(place), jnp.asarray(fit.theta)
    slope = slopes(theta, fit.family, cell, fit.decisions.length, jnp.asarray(padded), forward, fit.value)
    return np.asarray(slope)[: len(place)]


@eqx.filter_jit
def slopes(
    theta: Array, family: Family, cell: Any, length: Any, place: Array, forward: bool, value: Any
) -> Float[Array, "D Q"]:
    logs = lambda t: explain(family, t, cell, length, value).reshape(-1)[place]
    return (jax.jacfwd if forward else jax.jacrev)(logs)(theta)


def curvature_of_penalty(fit: Fit) -> scipy.sparse.csr_array:
    """Λ = N · ∂² (l2 ‖c‖² + smoothness Σ (c_i − c_j)²), (Q, Q)."""
    size, coefficients = len(fit.theta), fit.family.reward.size
    pairs = np.asarray(fit.family.reward.pairs)
    rows = np.repeat(np.arange(len(pairs)), 2)
    signs = np.tile([1.0, -1.0], len(pairs))
    differences = scipy.sparse.csr_array((signs, (rows, pairs.reshape(-1))), shape=(len(pairs), size))
    ridge = scipy.sparse.diags_array(np.where(np.arange(size) < coefficients, float(fit.penalties.l2), 0.0))
    smooth = float(fit.penalties.smoothness) * (differences.T @ differences)
    return scipy.sparse.csr_array(2.0 * fit.decisions.total * (ridge + smooth))


def many(fit: Fit, kind: str) -> np.ndarray:
    """`standard_errors` with the Fisher information: Σ = Λ⁻¹ − Λ⁻¹ Bᵀ (I + B Λ⁻¹ Bᵀ)⁻¹ B Λ⁻¹, F = BᵀB."""
    if kind != "hessian" or float(fit.penalties.l2) <= 0 or fit.family.public_names:
        raise PenaltyError(
            f"standard errors of {len(fit.theta):,} parameters need l2 above 0, kind 'hessian' and fixed dials",
            "set l2, or take fewer coefficients",
        )
    root = fisher_root(fit)
    prior = scipy.sparse.csc_array(curvature_of_penalty(fit))
    factor = scipy.sparse.linalg.splu(prior)
    spread = factor.solve(root.T)  # Λ⁻¹ Bᵀ, (Q, D)
    small = np.eye(len(root)) + root @ spread
    lower = scipy.linalg.solve_triangular(scipy.linalg.cholesky(small, lower=True), spread.T, lower=True)
    return np.sqrt(np.maximum(diagonal_of_inverse(prior) - (lower**2).sum(axis=0), 0.0))


def diagonal_of_inverse(matrix: Any) -> np.ndarray:
    """diag Λ⁻¹. Coefficients that are coupled make blocks of Λ; equal blocks are inverted once."""
    label = components(matrix.shape[0], *matrix.nonzero())
    out, order = np.zeros(matrix.shape[0]), np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label))
    known: dict[bytes, np.ndarray] = {}
    rows: Any = scipy.sparse.csr_array(matrix)
    for members in np.split(order, ends[:-1]):
        block = rows[members][:, members].toarray()
        key = block.tobytes()
        if key not in known:
            known[key] = np.diag(np.linalg.inv(block))
        out[members] = known[key]
    return out


def fisher_root(fit: Fit) -> np.ndarray:
    """B (D, Q) with BᵀB = Σ n(s) Σ_a π(a|s) ∂log π ∂log πᵀ over the recorded states: what they can tell of θ."""
    if fit.decisions.passages is not None:  # the world's factors tell too: the root of the likelihood's own curvature
        values, vectors = scipy.linalg.eigh(fit.curvature() - curvature_of_penalty(fit).toarray())
        return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return np.sqrt(fit.expected())[:, None] * jacobian(fit, fit.visits.cell, fit.visits.place)


def effective_parameters(fit: Fit) -> float:
    """tr F (F + Λ)⁻¹, over the directions that the data or a penalty pin."""
    root = fisher_root(fit)
    if len(fit.theta) <= MANY:
        information = root.T @ root
        return float((inverse(information + curvature_of_penalty(fit).toarray(), fit.free)[0] * information).sum())
    if float(fit.penalties.l2) <= 0:
        values = np.linalg.eigvalsh(root @ root.T)
        return float((values > FLAT * values.max(initial=0.0)).sum())
    prior = scipy.sparse.csc_array(curvature_of_penalty(fit))  # Σ λ/(1+λ), λ the eigenvalues of B Λ⁻¹ Bᵀ
    values = np.maximum(np.linalg.eigvalsh(root @ scipy.sparse.linalg.splu(prior).solve(root.T.copy())), 0.0)
    return float((values / (1 + values)).sum())
