"""Stein variational gradient descent (Liu and Wang 2016, arXiv 1608.04471): where particles move towards a density.

    φ(y) = E_x [ k(x, y) ∇_x log p(x) + ∇_x k(x, y) ]

It vanishes for x ~ p only where p k is 0 at the edge of the space (Stein's identity). In the box of actions no density
p ∝ exp(Q/τ) is, so the space matters:

"unbounded"  u = atanh(a): log p(u) = Q(tanh u)/τ + Σ log(1 − tanh² u), and the kernel in u. Consistent.
"box"        a itself, with a kernel that vanishes at the edge: k_i(x, y) = (1 − x_i²) (1 − y_i²) k(x, y). Consistent.
"released"   what haarnoja/softqlearning does: the density of u, its slope and the kernel taken in a. Its fixed point is
             p(a) Π (1 − a_i²): for comparison only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Kernel(NamedTuple):
    """k(x, y) and its slope in x, for every pair."""

    value: Float[Array, "x y"]
    slope: Float[Array, "x y A"]


def bandwidth(square: Float[Array, "x y"], rule: str) -> Float[Array, ""]:
    """h of exp(−|x − y|²/h), from the median of the squared distances.

    "paper": d / (2 log(M + 1)) (Haarnoja et al. 2017, appendix D.1); "released": d / log M, at least 1e-3. M counts x.
    """
    count = square.shape[0]
    middle = jnp.median(square)
    h = middle / (2 * np.log(count + 1)) if rule == "paper" else middle / np.log(max(count, 2))
    return jax.lax.stop_gradient(jnp.maximum(h, 1e-3))


def kernel(x: Float[Array, "x A"], y: Float[Array, "y A"], kind: str, rule: str, scale: float) -> Kernel:
    """ "rbf": exp(−|x − y|²/h); "imq": (1 + |x − y|²/h)^(−1/2), whose tails are heavier."""
    difference = x[:, None] - y[None]
    square = (difference**2).sum(axis=-1)
    h = scale * bandwidth(square, rule)
    if kind == "rbf":
        value = jnp.exp(-square / h)
        return Kernel(value, -2 / h * difference * value[..., None])
    value = (1 + square / h) ** -0.5
    return Kernel(value, -difference / h * (value**3)[..., None])


def volume(u: Float[Array, "*rows A"]) -> Float[Array, "*rows"]:
    """Σ log(1 − tanh² u), exact for every u."""
    return (2 * (np.log(2) - u - jax.nn.softplus(-2 * u))).sum(axis=-1)


def direction(log_p: Any, fixed: Float[Array, "x A"], moved: Float[Array, "y A"], space: str, form: tuple) -> Array:
    """φ at the points `moved`, by the points `fixed`; both are unbounded, u. What to add to u, up to a step size.

    log_p: of actions (x, A) in [−1, 1]^A, up to a constant → (x,). form: kind, rule and scale of `kernel`.
    """
    if space == "unbounded":
        score = jax.grad(lambda u: (log_p(jnp.tanh(u)) + volume(u)).sum())(fixed)
        k = kernel(fixed, moved, *form)
        return (k.value[..., None] * score[:, None] + k.slope).mean(axis=0)
    x, y = jnp.tanh(fixed), jnp.tanh(moved)
    k = kernel(x, y, *form)
    if space == "box":
        score = jax.grad(lambda a: log_p(a).sum())(x)
        edge = 1 - x**2
        inside = k.value[..., None] * (edge * score - 2 * x)[:, None] + edge[:, None] * k.slope
        phi = (1 - y**2) * inside.mean(axis=0)
    else:
        score = jax.grad(lambda a: (log_p(a) + jnp.log(1 - a**2 + 1e-6).sum(axis=-1)).sum())(x)
        phi = (k.value[..., None] * score[:, None] + k.slope).mean(axis=0)
    return phi * (1 - y**2)  # through a = tanh(u)
