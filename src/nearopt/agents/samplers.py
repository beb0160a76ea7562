"""What draws actions from p(a|s) exp(Q/τ): a network of noise (Stein), or a mixture whose density is known.

Both give unbounded particles u, with a = tanh(u), of a batch of states, and both are improved by `improve`. A proposal
for importance sampling has a density: the mixture's own, or one fitted to the network's particles.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, PRNGKeyArray

from nearopt.agents.networks import MLP
from nearopt.agents.stein import direction, volume
from nearopt.agents.task import Task


class Form(NamedTuple):
    """Which sampler, of what size."""

    task: Task
    sampler: str  # "stein", "mixture"
    components: int
    particles: int
    space: str
    kernel: tuple[str, str, float]  # kind, rule, scale


def init(form: Form, hidden: tuple[int, ...], activation: str, key: PRNGKeyArray) -> MLP:
    seen, size = form.task.observation_size, form.task.action_size
    if form.sampler == "stein":
        return MLP.init(seen + size, hidden, size, activation, key)
    key, spread = jax.random.split(key)
    network = MLP.init(seen, hidden, form.components * (1 + 2 * size), activation, key)
    last = network.layers[-1]
    means = jax.random.normal(spread, (form.components, size))  # components that start alike stay alike
    start = jnp.concatenate([jnp.zeros((form.components, 1)), means, jnp.full_like(means, np.log(0.3))], axis=1)
    layers = (*network.layers[:-1], last.__class__(last.weight, start.ravel()))
    return MLP(layers, activation)


# ---------------------------------------------------------------- the network of noise
def particles(network: MLP, observation: Float[Array, "batch size"], noise: Float[Array, "batch M A"]) -> Array:
    """u = ξ + f(s, ξ), (batch, M, A): near the even policy from the start.

    Particles that all begin in one place (f alone: the released code) all fall into one mode.
    """
    shape = (*noise.shape[:2], observation.shape[-1])
    return noise + network(jnp.concatenate([jnp.broadcast_to(observation[:, None], shape), noise], axis=-1))


class Proposal(NamedTuple):
    """A density on [−1, 1]^A per state: truncated Gaussians about centres, all of one width per dimension."""

    centre: Float[Array, "batch M A"]
    width: Float[Array, "batch 1 A"]

    def sample(self, key: PRNGKeyArray, count: int) -> Float[Array, "batch count A"]:
        first, second = jax.random.split(key)
        batch, num, size = self.centre.shape
        start = jax.random.randint(first, (batch, 1), 0, num)
        centre = jnp.take_along_axis(self.centre, ((start + jnp.arange(count)) % num)[..., None], axis=1)
        low, high = norm.cdf((-1 - centre) / self.width), norm.cdf((1 - centre) / self.width)
        part = jax.random.uniform(second, (batch, count, size))
        return jnp.clip(centre + self.width * norm.ppf(low + part * (high - low)), -1.0, 1.0)

    def log_density(self, action: Float[Array, "batch count A"]) -> Float[Array, "batch count"]:
        z = (action[:, :, None] - self.centre[:, None]) / self.width[:, None]
        inside = norm.cdf((1 - self.centre) / self.width) - norm.cdf((-1 - self.centre) / self.width)
        each = -0.5 * (z**2).sum(axis=-1) - jnp.log(inside * self.width).sum(axis=-1)[:, None]
        constant = 0.5 * action.shape[-1] * np.log(2 * np.pi) + np.log(self.centre.shape[1])
        return jax.nn.logsumexp(each, axis=-1) - constant


def fitted(action: Float[Array, "batch M A"]) -> Proposal:
    """A kernel density estimate, with Silverman's width (1986, eq. 4.14) and at least 0.02."""
    _, num, size = action.shape
    factor = (4 / ((size + 2) * num)) ** (1 / (size + 4))
    return Proposal(action, jnp.maximum(factor * action.std(axis=1, keepdims=True), 0.02))


# ---------------------------------------------------------------- the mixture
class Mixture(NamedTuple):
    """Of products of logistic densities in u, per state. One at 0 of scale ½ is exactly uniform in a."""

    log_weight: Float[Array, "batch k"]
    mean: Float[Array, "batch k A"]
    log_scale: Float[Array, "batch k A"]

    def stratified(self, key: PRNGKeyArray, count: int) -> Float[Array, "batch k count A"]:
        """`count` points of every component, with derivatives."""
        shape = (*self.mean.shape[:2], count, self.mean.shape[-1])
        return self.mean[:, :, None] + jnp.exp(self.log_scale)[:, :, None] * jax.random.logistic(key, shape)

    def sample(self, key: PRNGKeyArray, count: int) -> Float[Array, "batch count A"]:
        """Actions in [−1, 1]^A."""
        first, second = jax.random.split(key)
        batch, _, size = self.mean.shape
        which = jax.random.categorical(first, self.log_weight[:, None], axis=-1, shape=(batch, count))[..., None]
        mean, log_scale = (jnp.take_along_axis(x, which, axis=1) for x in (self.mean, self.log_scale))
        u = mean + jnp.exp(log_scale) * jax.random.logistic(second, (batch, count, size))
        return jnp.tanh(jnp.clip(u, -EDGE, EDGE))

    def log_density(self, action: Float[Array, "batch count A"]) -> Float[Array, "batch count"]:
        return self.log_density_at(jnp.arctanh(jnp.clip(action, -CLOSEST, CLOSEST)))

    def log_density_at(self, u: Float[Array, "batch count A"]) -> Float[Array, "batch count"]:
        """Of a = tanh(u), over [−1, 1]^A."""
        z = (u[:, :, None] - self.mean[:, None]) * jnp.exp(-self.log_scale)[:, None]
        each = -z - 2 * jax.nn.softplus(-z) - self.log_scale[:, None]
        return jax.nn.logsumexp(each.sum(axis=-1) + self.log_weight[:, None], axis=-1) - volume(u)


EDGE = 7.0  # |u| beyond which tanh(u) is 1 in float32
CLOSEST = float(np.tanh(EDGE))


def mixture(form: Form, network: MLP, observation: Float[Array, "batch size"]) -> Mixture:
    rows = network(observation).reshape(observation.shape[0], form.components, -1)
    mean, log_scale = jnp.split(rows[..., 1:], 2, axis=-1)
    return Mixture(jax.nn.log_softmax(rows[..., 0]), jnp.clip(mean, -EDGE, EDGE), jnp.clip(log_scale, -6.0, 2.0))


# ---------------------------------------------------------------- either
def draw(form: Form, network: MLP, observation: Float[Array, "batch size"], noise: Any, key: PRNGKeyArray) -> Array:
    """Actions in [−1, 1]^A, as many per state as there is noise (batch, M, A); the mixture makes its own."""
    if form.sampler == "stein":
        return jnp.tanh(particles(network, observation, noise))
    return mixture(form, network, observation).sample(key, noise.shape[1])


def proposal(form: Form, network: MLP, observation: Float[Array, "batch size"], noise: Any) -> Proposal | Mixture:
    if form.sampler == "stein":
        return fitted(jnp.tanh(particles(network, observation, noise)))
    return mixture(form, network, observation)


def ascent(form: Form, network: MLP, log_p: Any, observation: Array, noise: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
    """A loss, for its gradient, and its size.

    log_p: log p(a|s) + Q(s, a)/τ of actions (batch, n, A) in [−1, 1]^A → (batch, n).
    """
    if form.sampler == "stein":
        return amortised(form, network, log_p, observation, noise)
    return divergences(form, network, log_p, observation, key)


def amortised(form: Form, network: MLP, log_p: Any, observation: Array, noise: Any) -> tuple[Array, Array]:
    """−Σ φ(u) · u: its gradient carries Stein's direction into the network (Haarnoja et al. 2017, eqs. 13 and 14).

    Half of the particles are moved by the other half. The mean over particles and states, where the released code sums.
    """
    u = particles(network, observation, noise)
    half = noise.shape[1] // 2
    still = jax.lax.stop_gradient(u)

    def one(row: Array, fixed: Array, moved: Array) -> Array:
        energy = lambda action: log_p(row[None], action[None])[0]
        return direction(energy, fixed, moved, form.space, form.kernel)

    phi = jax.lax.stop_gradient(jax.vmap(one)(observation, still[:, :half], still[:, half:]))
    return -(phi * u[:, half:]).sum(axis=-1).mean(), (phi**2).sum(axis=-1).mean()


def divergences(form: Form, network: MLP, log_p: Any, observation: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
    """KL(sampler ‖ target) + KL(target ‖ sampler), up to constants: the first is precise, the second finds every mode.

    The first by points of every component with derivatives; the second by the same points, and uniform ones, weighted.
    """
    first, second = jax.random.split(key)
    row, size = mixture(form, network, observation), form.task.action_size
    each = max(1, form.particles // form.components)
    u = jnp.clip(row.stratified(first, each), -EDGE, EDGE)
    flat = u.reshape(u.shape[0], -1, size)
    share = jnp.exp(row.log_weight)[:, :, None] / each
    gap = row.log_density_at(flat) - log_p(observation, jnp.tanh(flat))
    reverse = (share * gap.reshape(u.shape[:3])).sum(axis=(1, 2))

    edge = jnp.arctanh(jax.random.uniform(second, (u.shape[0], form.particles, size), minval=-CLOSEST, maxval=CLOSEST))
    points = jax.lax.stop_gradient(jnp.concatenate([flat, edge], axis=1))
    known = row.log_density_at(points)
    even = Mixture(jnp.full_like(row.log_weight, -np.log(form.components)), row.mean, row.log_scale)
    count, spread = flat.shape[1], form.particles
    drawn = jnp.logaddexp(
        even.log_density_at(points) + np.log(count / (count + spread)),
        np.log(spread / (count + spread)) - size * np.log(2),
    )
    weight = jax.lax.stop_gradient(jax.nn.softmax(log_p(observation, jnp.tanh(points)) - drawn, axis=1))
    forward = -(weight * known).sum(axis=1)
    return (reverse + forward).mean(), (reverse + forward).mean()
