"""Policies: the squashed Gaussian over a box, and p exp(f/τ) over discrete actions.

Squashed: a = tanh(u), u ~ N(mean, std²) (Haarnoja et al. 2018b, arXiv 1812.05905, appendix C).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.backup import soft_max


class Gaussian(NamedTuple):
    """Before squashing."""

    mean: Float[Array, "batch A"]
    log_std: Float[Array, "batch A"]


def gaussian(output: Float[Array, "batch two_A"], log_std: str, log_std_range: tuple[float, float]) -> Gaussian:
    """The two halves of a network's output as mean and log std.

    log_std: "clip" cuts it to its range (SB3), "tanh" maps it smoothly into it (CleanRL, Spinning Up), "softplus"
    makes std = softplus(x) + 1e-5 without a range (softlearning).
    """
    mean, raw = jnp.split(output, 2, axis=-1)
    low, high = log_std_range
    if log_std == "clip":
        return Gaussian(mean, jnp.clip(raw, low, high))
    if log_std == "tanh":
        return Gaussian(mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1))
    return Gaussian(mean, jnp.log(jax.nn.softplus(raw) + 1e-5))


class Squashed(NamedTuple):
    """An action in [−1, 1]^A and its log-density there."""

    action: Float[Array, "batch A"]
    log_prob: Float[Array, " batch"]


def squash(row: Gaussian, noise: Float[Array, "batch A"]) -> Squashed:
    """A reparameterised sample. log π(a) = log N(u) − Σ log(1 − tanh² u), with u as drawn, never atanh(a).

    log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)) is exact where the naive form is −inf.
    """
    u = row.mean + jnp.exp(row.log_std) * noise
    normal = -0.5 * noise**2 - row.log_std - 0.5 * np.log(2 * np.pi)
    volume = 2 * (np.log(2) - u - jax.nn.softplus(-2 * u))
    return Squashed(jnp.tanh(u), (normal - volume).sum(axis=-1))


class Tilted(NamedTuple):
    """The policy π ∝ p exp(f/τ) over n actions. Where p is 0, π is 0 and its log ratio still finite."""

    value: Float[Array, " batch"]  # τ log Σ p exp(f/τ)
    probability: Float[Array, "batch n"]
    log_ratio: Float[Array, "batch n"]  # log π/p = (f − value)/τ


def tilted(f: Float[Array, "batch n"], log_prior: Float[Array, "batch n"], temperature: Array | float) -> Tilted:
    """The backup's soft value and policy, of rows."""
    soft = soft_max(f.T, log_prior.T, temperature)
    return Tilted(soft.value, soft.policy.T, (f - soft.value[:, None]) / temperature)


class Drawn(NamedTuple):
    """An action, and log π/p of it."""

    action: Int[Array, " batch"]
    log_ratio: Float[Array, " batch"]


def draw(row: Tilted, log_prior: Float[Array, "batch n"], key: PRNGKeyArray, deterministic: bool) -> Drawn:
    """A sample; or the most probable action, of a policy that always takes it: π = 1."""
    logits = row.log_ratio + log_prior
    action = (logits.argmax(axis=1) if deterministic else jax.random.categorical(key, logits)).astype(jnp.int32)
    return Drawn(action, -at(log_prior, action) if deterministic else at(row.log_ratio, action))


def at(rows: Float[Array, "*batch n"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Each row's entry for its action."""
    return jnp.take_along_axis(rows, action[..., None], axis=-1)[..., 0]
