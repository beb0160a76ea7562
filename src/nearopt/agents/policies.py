"""A network as a policy, over discrete actions or a box, for agents that must know log π/p of actions of the past.

Discrete: π ∝ p exp(logits). Box: a Gaussian with its mean inside, cut off at the edges. Of a squashed one, tanh(u), the
u of an old action is lost to rounding near the edges, where good policies often are.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, PRNGKeyArray

from nearopt.agents.distributions import Drawn, at, draw, tilted
from nearopt.agents.networks import MLP
from nearopt.agents.settings import Settings, Shared
from nearopt.agents.soft_dqn import discrete_maximum, discrete_target
from nearopt.agents.task import box_log_prior, discrete_log_prior

LEAST, MOST = -5.0, 1.0  # log std: at most it is nearly uniform


def init(settings: Settings, key: PRNGKeyArray) -> MLP:
    """The network: logits, or what `bounded` reads."""
    task = settings.task
    outputs = task.num_actions or 2 * task.action_size
    return MLP.init(task.observation_size, settings.net_arch, outputs, settings.activation, key)


def log_ratios(settings: Settings, actor: MLP, observation: Float[Array, "batch size"]) -> Float[Array, "batch n"]:
    """log π/p of every discrete action."""
    return tilted(actor(observation), discrete_log_prior(settings.prior, settings.task, observation), 1.0).log_ratio


def log_ratio(settings: Settings, actor: MLP, observation: Float[Array, "batch size"], action: Any) -> Array:
    """log π/p (batch,) of actions in the environment's units and numbers."""
    if settings.task.num_actions:
        return at(log_ratios(settings, actor, observation), action)
    unit = settings.task.to_unit(action)
    return bounded(actor, observation).log_density(unit) - log_prior(settings, observation, unit)


def divergence(settings: Settings, actor: MLP, observation: Float[Array, "batch size"], key: PRNGKeyArray) -> Array:
    """KL(π ‖ p) (batch,), with a flat prior −H; over a box log p is that of one sample, with derivatives."""
    if settings.task.num_actions:
        row = tilted(actor(observation), discrete_log_prior(settings.prior, settings.task, observation), 1.0)
        return (row.probability * row.log_ratio).sum(axis=1)
    row = bounded(actor, observation)
    return -row.entropy() - log_prior(settings, observation, row.sample(key))


def act(
    settings: Settings, actor: MLP, observation: Float[Array, "batch size"], key: PRNGKeyArray, deterministic: bool
) -> Drawn:
    """Actions in the environment's units, and log π/p of them (over a box 0 where deterministic: the mode)."""
    task = settings.task
    if task.num_actions:
        prior = discrete_log_prior(settings.prior, task, observation)
        return draw(tilted(actor(observation), prior, 1.0), prior, key, deterministic)
    row = bounded(actor, observation)
    if deterministic:
        return Drawn(task.to_box(row.mean), jnp.zeros(observation.shape[:1]))
    unit = row.sample(key)
    return Drawn(task.to_box(unit), row.log_density(unit) - log_prior(settings, observation, unit))


# ---------------------------------------------------------------- the box
class Bounded(NamedTuple):
    """Independent Gaussians of every dimension, cut off at ±1, with means between: a density over [−1, 1]^A."""

    mean: Float[Array, "batch A"]
    std: Float[Array, "batch A"]

    @property
    def ends(self) -> tuple[Float[Array, "batch A"], Float[Array, "batch A"]]:
        """−1 and 1 in standard deviations from the mean."""
        return (-1 - self.mean) / self.std, (1 - self.mean) / self.std

    @property
    def inside(self) -> Float[Array, "batch A"]:
        """How much of the whole Gaussian is kept; never little, as the mean is."""
        low, high = self.ends
        return norm.cdf(high) - norm.cdf(low)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "batch A"]:
        """With derivatives."""
        part = jax.random.uniform(key, self.mean.shape, minval=1e-6, maxval=1 - 1e-6)
        return jnp.clip(self.mean + self.std * norm.ppf(norm.cdf(self.ends[0]) + part * self.inside), -1.0, 1.0)

    def log_density(self, unit: Float[Array, "batch A"]) -> Float[Array, " batch"]:
        z = (unit - self.mean) / self.std
        return (norm.logpdf(z) - jnp.log(self.std * self.inside)).sum(axis=-1)

    def entropy(self) -> Float[Array, " batch"]:
        """−E log density, exactly."""
        (low, high), inside = self.ends, self.inside
        edges = (low * norm.pdf(low) - high * norm.pdf(high)) / (2 * inside)
        return (jnp.log(self.std * inside) + 0.5 * np.log(2 * np.pi * np.e) + edges).sum(axis=-1)


def bounded(actor: MLP, observation: Float[Array, "batch size"]) -> Bounded:
    """What a network's output says: tanh of the first half are means, the second half log stds, kept in their range."""
    mean, raw = jnp.split(actor(observation), 2, axis=-1)
    return Bounded(jnp.tanh(mean), jnp.exp(LEAST + 0.5 * (MOST - LEAST) * (jnp.tanh(raw) + 1)))


def log_prior(settings: Settings, observation: Array, unit: Float[Array, "batch A"]) -> Float[Array, " batch"]:
    return box_log_prior(settings.prior, settings.task, observation, unit, "unit")


# ---------------------------------------------------------------- entropies
def entropy_target(settings: Shared) -> float:
    """What a tuned temperature keeps, in nats relative to the prior: SoftDQN's rule, or SAC's."""
    if settings.task.num_actions:
        return discrete_target(settings)
    if not isinstance(settings.target_entropy, str):
        return float(settings.target_entropy)
    size = settings.task.action_size * (0.5 if settings.target_entropy == "half" else 1.0)
    return -size - (0.0 if settings.prior is None else settings.task.action_size * float(np.log(2)))


def greatest_entropy(settings: Shared) -> float:
    """The most that a policy can have."""
    if settings.task.num_actions:
        return discrete_maximum(settings)
    return settings.task.action_size * float(np.log(2)) if settings.prior is None else 0.0
