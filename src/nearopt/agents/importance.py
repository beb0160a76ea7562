"""V(s) = τ log ∫ p(a|s) exp(Q(s, a)/τ) da by importance sampling (Haarnoja et al. 2017, eq. 10)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


class Estimate(NamedTuple):
    """Of a batch of states. `entropy`: −E log π/p under π ∝ p exp(Q/τ); `ess`: effective samples, as a share of all."""

    log_integral: Float[Array, " batch"]  # V/τ
    entropy: Float[Array, " batch"]
    ess: Float[Array, " batch"]


def integrate(
    q_over_t: Any, log_prior: Any, proposal: Any, shape: tuple[int, int, int], share: float, key: PRNGKeyArray
) -> Estimate:
    """log ∫ p exp(Q/τ) da from `shape` = (batch, samples, A) actions: a `share` uniform, the others the proposal's.

    Uniform ones bound every weight: no region is forgotten for good. The shares are exact, and the density of all of
    them is the mixture's (Veach and Guibas 1995). share = 1 needs no proposal (None).

    Args:
        q_over_t, log_prior: of actions (batch, n, A) in [−1, 1]^A → (batch, n).
        proposal: has `sample(key, count)` and `log_density(action)`.
    """
    batch, count, size = shape
    first, second = jax.random.split(key)
    spread = count if proposal is None else max(1, round(share * count))
    action = jax.random.uniform(first, (batch, spread, size), minval=-1.0)
    density = jnp.full((batch, count), -size * np.log(2), jnp.float32)
    if proposal is not None and spread < count:
        action = jnp.concatenate([action, proposal.sample(second, count - spread)], axis=1)
        fitted = proposal.log_density(action) + np.log((count - spread) / count)
        density = jnp.logaddexp(density + np.log(spread / count), fitted)
    energy, prior = q_over_t(action), log_prior(action)
    weight = energy + prior - density
    total = jax.nn.logsumexp(weight, axis=1)
    part = jax.nn.softmax(weight, axis=1)
    log_integral = total - np.log(count)
    entropy = log_integral - (part * energy).sum(axis=1)
    return Estimate(log_integral, entropy, 1 / ((part**2).sum(axis=1) * count))
