"""The soft Bellman backup: one equation, two dials (design §1).

    Q(s,a) = (τ/κ) log E_s' [ exp(κ r(s,a,s')/τ) · (γ exp(κ V(s')/τ) + 1−γ) ]
    V(s)   = τ log Σ_a p(a|s) exp(Q(s,a)/τ)
    π(a|s) = p(a|s) exp((Q(s,a) − V(s))/τ)

κ = 1 is exact inference (Q/τ and V/τ are log messages), κ → 0 maximum-entropy control, κ < 0 risk aversion; τ = 0 with
κ = 0 is classical control. Whatever needs a backup calls this file; nothing derives it anew.

All three lines are one operation, a mean over the *first* axis that weighs large values more (or less) than the
arithmetic one. Shifts are per row, so a row is as precise as if it stood alone; −inf is a value, never a NaN, in the
results and in the gradients. `temperature` and `optimism` may be numbers or traced scalars; the number 0 selects the
limit, which costs no exponentials over branches.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from nearopt.mdp.blocks import Blocks

Scalar = float | Float[Array, ""]
UNROLL = 32  # rows up to which a reduction over the first axis is written out: XLA then fuses it with the gather
SERIES = 1 / 32  # |θ|·range under which the entropic mean is summed as a series around the arithmetic mean
FAR = 1e300  # a slope above this is as good as infinite
TIES = 1e-12  # at τ = 0, actions within this relative distance of the best are tied


def is_zero(dial: Scalar) -> bool:
    """True for the number 0; a traced value is not known to be zero."""
    return isinstance(dial, (int, float, np.generic)) and dial == 0


def is_one(discount: Scalar) -> bool:
    """True for the number 1: no coin is tossed."""
    return isinstance(discount, (int, float, np.generic)) and discount == 1


def slabs(x: Float[Array, "K ..."]) -> list[Float[Array, "k ..."]]:
    """The first axis cut into single rows, or left whole where it is long.

    A short axis is written out, row by row, from the gather to the logarithm: XLA makes one loop of that, several times
    faster than of the same mathematics on the whole array.
    """
    return [x[k : k + 1] for k in range(x.shape[0])] if x.shape[0] <= UNROLL else [x]


def fold(operation: Callable, parts: Sequence[Array]) -> Array:
    """A reduction over the first axis, given as slabs."""
    wholes: dict[Callable, Callable] = {jnp.add: jnp.sum, jnp.maximum: jnp.max, jnp.minimum: jnp.min}
    whole = wholes[operation]
    return reduce(operation, [p[0] if p.shape[0] == 1 else whole(p, axis=0) for p in parts])


class Mean(NamedTuple):
    """An entropic mean (...), and the row constants that `tilt` needs: shift and Σ p exp(θ (x − shift))."""

    mean: Float[Array, "..."]
    shift: Float[Array, "..."]
    total: Float[Array, "..."]


def entropic_mean(x: Float[Array, "K ..."], probability: Float[Array, "K ..."], scale: Scalar) -> Mean:
    """(1/θ) log Σ_k p_k exp(θ x_k), for scale θ = κ/τ of either sign; the arithmetic mean at θ = 0.

    A row (along the first axis) without any p > 0 is −inf, or 0 where θ is the number 0. Smooth in θ, also through 0;
    gradients are finite.
    """
    if is_zero(scale):
        possible = [p > 0 for p in slabs(probability)]
        rows = zip(slabs(x), slabs(probability), possible, strict=True)
        mean = fold(jnp.add, [jnp.where(is_, p * jnp.where(is_, x, 0.0), 0.0) for x, p, is_ in rows])
        return Mean(mean, jnp.zeros_like(mean), jnp.ones_like(mean))
    return curved_mean(x, probability, jnp.asarray(scale, x.dtype))


@jax.custom_jvp
def curved_mean(x: Float[Array, "K ..."], probability: Float[Array, "K ..."], scale: Float[Array, ""]) -> Mean:
    """`entropic_mean` at θ ≠ 0, or at a traced θ."""
    xs, ps = slabs(x), slabs(probability)
    possible = [p > 0 for p in ps]
    live = [is_ & (x > -jnp.inf) for x, is_ in zip(xs, possible, strict=True)]
    top = fold(jnp.maximum, [jnp.where(on, x, -jnp.inf) for x, on in zip(xs, live, strict=True)])
    bottom = fold(jnp.minimum, [jnp.where(on, x, jnp.inf) for x, on in zip(xs, live, strict=True)])
    any_live = top > -jnp.inf
    any_dead = fold(jnp.maximum, [is_ & ~on for is_, on in zip(possible, live, strict=True)])
    hopeless = ~any_live | (any_dead & (scale <= 0))
    shift = jnp.where(any_live, jnp.where(scale > 0, top, bottom), 0.0)

    d = [jnp.where(on, x - shift, 0.0) for x, on in zip(xs, live, strict=True)]  # θ d is never above 0
    p = [jnp.where(on, p, 0.0) for p, on in zip(ps, live, strict=True)]
    total = fold(jnp.add, [p * jnp.exp(scale * d) for p, d in zip(p, d, strict=True)])
    total = jnp.where(hopeless, 1.0, total)
    far = jnp.log(total) / jnp.where(scale == 0, 1.0, scale)

    # Near θ·range = 0, log Σ p e^y / θ cancels; with φ(y) = (e^y − 1)/y and ψ(u) = log(1+u)/u it is z ψ(θ z),
    # z = Σ p d φ(θ d), for any θ including 0.
    z = fold(jnp.add, [p * d * polynomial(scale * d, PHI) for p, d in zip(p, d, strict=True)])
    near = z * polynomial(scale * z, PSI)
    is_near = (jnp.abs(scale) * (top - bottom) < SERIES) & ~any_dead
    mean = jnp.where(hopeless, -jnp.inf, shift + jnp.where(is_near, near, far))
    return Mean(mean, shift, total)


@curved_mean.defjvp
def curved_mean_jvp(primals: tuple, tangents: tuple) -> tuple[Mean, Mean]:
    """dM = Σ ω dx + dθ KL(ω‖p)/θ² + Σ (e^h − 1)/θ dp, with ω the tilted probabilities and h = θ(x − M) = log ω/p.

    With Σ p e^h = 1 the divergence is Σ p (h e^h − e^h + 1), every term at least 0: nothing cancels; branches of −inf,
    where e^h = 0, have their part p in it, and −dp/θ. dp sums to 0.
    """
    (x, probability, scale), (dx, dp, dscale) = primals, tangents
    row = curved_mean(x, probability, scale)
    weight = tilt(x, probability, scale, row)
    live = (probability > 0) & (x > -jnp.inf) & (row.mean > -jnp.inf)
    gap = jnp.where(live, x - jnp.where(row.mean > -jnp.inf, row.mean, 0.0), 0.0)
    h = scale * gap
    near = jnp.abs(h) < SERIES
    theta = jnp.where(scale == 0, 1.0, scale)
    bend = jnp.where(near, probability * gap**2 * polynomial(h, CHI), (weight * (h - 1) + probability) / theta**2)
    grow = jnp.where(near, gap * polynomial(h, PHI), jnp.expm1(jnp.where(near, 0.0, h)) / theta)
    zero = lambda terms: jnp.where(live, terms, 0.0).sum(axis=0)
    lost = lambda terms: jnp.where((x == -jnp.inf) & (row.mean > -jnp.inf), terms, 0.0).sum(axis=0)
    dscaled = (zero(bend) + lost(probability) / theta**2) * dscale
    dmean = zero(weight * dx) + dscaled + zero(grow * dp) - lost(dp) / theta
    d = jnp.where(live, x - row.shift, 0.0)
    dtotal = row.total * zero(weight * (scale * dx + d * dscale)) + zero(jnp.exp(scale * d) * dp)
    return row, Mean(dmean, jnp.zeros_like(row.shift), dtotal)


def tilt(
    x: Float[Array, "K ..."], probability: Float[Array, "K ..."], scale: Scalar, row: Mean
) -> Float[Array, "K ..."]:
    """The probabilities under which an entropic mean is taken: p exp(θ x), normalised; p where the mean is −inf."""
    if is_zero(scale):
        return probability
    mean, shift, total = lax.optimization_barrier(row)  # or XLA computes the whole row anew for each of its entries
    live = (probability > 0) & (x > -jnp.inf)
    weight = jnp.where(live, probability, 0.0) * jnp.exp(scale * jnp.where(live, x - shift, 0.0))
    return jnp.where(mean > -jnp.inf, weight / total, probability)


PHI = [1 / float(np.prod(np.arange(2.0, n + 2))) for n in range(9)]  # Σ y^n/(n+1)!
CHI = [(n + 1) * c / (n + 2) for n, c in enumerate(PHI)]  # Σ (n+1) y^n/(n+2)!
PSI = [(-1) ** n / (n + 1) for n in range(12)]


def polynomial(x: Float[Array, "..."], coefficients: Sequence[float]) -> Float[Array, "..."]:
    """Horner's rule; |x| above SERIES gives a finite number that the caller does not use."""
    x = jnp.clip(x, -2 * SERIES, 2 * SERIES)
    return reduce(lambda above, c: above * x + c, reversed(coefficients[:-1]), jnp.full_like(x, coefficients[-1]))


class Soft(NamedTuple):
    """V and π of the states of one block."""

    value: Float[Array, " n"]
    policy: Float[Array, "J n"]


def soft_max(q: Float[Array, "J n"], log_prior: Float[Array, "J n"], temperature: Scalar) -> Soft:
    """V = τ log Σ_a p(a|s) exp(Q/τ) and π = p(a|s) exp((Q−V)/τ), over the first axis.

    Where no action has a finite Q the policy is the prior, normalised (at τ = 0: uniform over the prior's support):
    there is nothing to choose by. A column without any action (log prior all −inf) has value −inf and policy 0.
    """
    if not is_zero(temperature):
        return soft(q, log_prior, jnp.asarray(temperature, q.dtype))
    allowed = [p > -jnp.inf for p in slabs(log_prior)]
    live = [a & (q > -jnp.inf) for q, a in zip(slabs(q), allowed, strict=True)]
    best = fold(jnp.maximum, [jnp.where(on, q, -jnp.inf) for q, on in zip(slabs(q), live, strict=True)])
    slack = TIES * jnp.abs(jnp.where(best > -jnp.inf, best, 0.0))
    tied = [
        jnp.where(best > -jnp.inf, on & (q >= best - slack), a).astype(q.dtype)
        for q, on, a in zip(slabs(q), live, allowed, strict=True)
    ]
    return Soft(best, jnp.concatenate(tied) / jnp.maximum(fold(jnp.add, tied), 1.0))


@jax.custom_jvp
def soft(q: Float[Array, "J n"], log_prior: Float[Array, "J n"], temperature: Float[Array, ""]) -> Soft:
    """`soft_max` at τ > 0."""
    qs, priors = slabs(q), slabs(log_prior)
    live = [(p > -jnp.inf) & (q > -jnp.inf) for q, p in zip(qs, priors, strict=True)]
    top = fold(jnp.maximum, [jnp.where(on, q, -jnp.inf) for q, on in zip(qs, live, strict=True)])
    any_live = top > -jnp.inf
    best = jnp.where(any_live, top, 0.0)
    # shifted twice, by the best Q and by the largest exponent: a prior may be tiny where Q is large
    logit = [
        jnp.where(any_live, jnp.where(on, jnp.where(on, q - best, 0.0) / temperature + p, -jnp.inf), p)
        for q, p, on in zip(qs, priors, live, strict=True)
    ]
    top = fold(jnp.maximum, logit)
    shift = jnp.where(top > -jnp.inf, top, 0.0)
    total = jnp.where(top > -jnp.inf, fold(jnp.add, [jnp.exp(l - shift) for l in logit]), 1.0)
    value = jnp.where(any_live, best + temperature * (shift + jnp.log(total)), -jnp.inf)
    shift, total = lax.optimization_barrier((shift, total))  # or every action of the policy sums its row anew
    return Soft(value, jnp.concatenate([jnp.exp(l - shift) / total for l in logit]))


@soft.defjvp
def soft_jvp(primals: tuple, tangents: tuple) -> tuple[Soft, Soft]:
    """dV = Σ π (dQ + τ d log p) + dτ Σ π (log p − log π) and dπ = π (dl − Σ π dl), l = Q/τ + log p the logit."""
    (q, log_prior, temperature), (dq, dp, dtemperature) = primals, tangents
    value, policy = soft(q, log_prior, temperature)
    any_live = value > -jnp.inf
    live = (policy > 0) & (q > -jnp.inf) & any_live
    gain = jnp.where(live, q - jnp.where(any_live, value, 0.0), 0.0) / temperature  # log π − log p
    mean = lambda terms: (policy * terms).sum(axis=0)
    dlogit = jnp.where(any_live, jnp.where(live, dq - gain * dtemperature, 0.0) / temperature + dp, dp)
    dvalue = mean(jnp.where(live, dq + temperature * dp - gain * dtemperature, 0.0))
    return Soft(value, policy), Soft(dvalue, policy * (dlogit - mean(dlogit)))


def discounted(value: Float[Array, " n"], discount: Scalar, scale: Scalar) -> Float[Array, " n"]:
    """W(s') = (1/θ) log(γ exp(θ V(s')) + 1−γ): the value of arriving, when the episode may end there with value 0."""
    if is_one(discount):
        return value
    gamma = jnp.full_like(value, discount)
    mean = entropic_mean(jnp.stack([value, jnp.zeros_like(value)]), jnp.stack([gamma, 1 - gamma]), scale).mean
    if is_zero(scale) or not isinstance(discount, Tracer):
        return mean
    # at γ = 1 ending has probability 0, which a mean leaves out; its derivative in γ, (1 − e^(−θV))/θ, is not 0
    finite = lax.stop_gradient(
        jnp.where(value > -jnp.inf, value, 0.0)
    )  # its own slope may overflow where it is not used
    y = -lax.stop_gradient(scale) * finite
    slope = finite * jnp.where(jnp.abs(y) < SERIES, polynomial(y, PHI), jnp.expm1(y) / jnp.where(y == 0, 1.0, y))
    return mean + (gamma - lax.stop_gradient(gamma)) * jnp.where(gamma == 1, jnp.clip(slope, -FAR, FAR), 0.0)


def going_on(value: Float[Array, " n"], discount: Scalar, scale: Scalar) -> Float[Array, " n"]:
    """P(the episode goes on | arrived at s', success) = γ exp(θ V)/(γ exp(θ V) + 1−γ)."""
    gamma = jnp.full_like(value, discount)
    if is_zero(scale) or is_one(discount):
        return gamma
    certain = (gamma == 1) | (gamma == 0)
    odds = jnp.log(jnp.where(certain, 0.5, gamma)) - jnp.log1p(-jnp.where(certain, 0.5, gamma))
    finite = value > -jnp.inf
    gain = jnp.where(
        finite,
        scale * jnp.where(finite, value, 0.0),
        jnp.where(scale > 0, -jnp.inf, jnp.where(scale < 0, jnp.inf, 0.0)),
    )
    return jnp.where(certain, gamma, jax.nn.sigmoid(odds + gain))


def scale_of(temperature: Scalar, optimism: Scalar) -> Scalar:
    """θ = κ/τ, the number 0 where κ is."""
    return 0.0 if is_zero(optimism) else optimism / temperature


class Step(NamedTuple):
    """One backup, block by block: Q and π per choice, the tilted probability of each branch, V per state."""

    q: list[Float[Array, "J n"]]
    policy: list[Float[Array, "J n"]]
    branches: list[Float[Array, "K J n"]]
    value: Float[Array, " n"]


def backup(
    blocks: Blocks,
    next_value: Float[Array, " n"],
    reward: Sequence[Float[Array, "R J n"]],
    log_prior: Sequence[Float[Array, "J n"]],
    temperature: Scalar,
    optimism: Scalar,
    discount: Scalar,
) -> Step:
    """V_{t+1} → Q_t, π_t, V_t. `reward` and `log_prior` are per block; terminal states keep value 0.

    `branches` is the tilted ∝ p(s'|s,a) exp(θ (r + W(s'))), in which the episode may still end on arrival.
    """
    scale = scale_of(temperature, optimism)
    arrival = discounted(next_value, discount, scale)
    q, policy, branches, value = [], [], [], []
    for block, r, p in zip(blocks.blocks, reward, log_prior, strict=True):
        x = r + arrival.at[block.next_state].get(mode="promise_in_bounds")
        x = x if is_zero(scale) else lax.optimization_barrier(x)  # exponentials are vectorised only away from a gather
        row = entropic_mean(x, block.probability, scale)
        q.append(jnp.where(block.available, row.mean, -jnp.inf))
        states = soft_max(lax.optimization_barrier(q[-1]), p, temperature)
        policy.append(states.policy)
        branches.append(tilt(x, block.probability, scale, row))
        value.append(jnp.where(block.available.any(axis=0), states.value, 0.0))
    return Step(q, policy, branches, jnp.concatenate(value) if len(value) > 1 else value[0])
