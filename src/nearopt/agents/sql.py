"""Soft Q-learning with energy-based policies (Haarnoja et al. 2017, arXiv 1702.08165): π ∝ p exp(Q/τ) over a box.

critic   y = r + γ (1 − terminated) V'(s'),   V(s) = τ log ∫ p(a|s) exp(Q(s, a)/τ) da       (eqs. 10 and 11)
sampler  a = tanh(ξ + f(s, ξ)), moved by Stein's direction towards p exp(Q/τ)                    (eqs. 13 and 14)

Where the released code (haarnoja/softqlearning) differs from the paper there is a setting. In both V rests on uniform
actions, which fails above three dimensions; here they are a share of what a density near exp(Q/τ) proposes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.agents import samplers
from nearopt.agents.agent import Agent, Method
from nearopt.agents.errors import SettingError
from nearopt.agents.importance import Estimate, integrate
from nearopt.agents.networks import MLP, both, descend, moments_of, networks, polyak
from nearopt.agents.replay import Batch
from nearopt.agents.settings import OffPolicy, choice
from nearopt.agents.task import box_log_prior
from nearopt.agents.temperature import temperature_loss


@dataclass(frozen=True)
class Settings(OffPolicy):
    """Soft Q-learning's settings; the defaults are the paper's (appendix D).

    learning_rate, sampler_learning_rate: of Q, and of the sampler; 0 means `learning_rate`.
    ent_coef: the temperature. The released code has 1, and scales the reward by 1/τ instead.
    final_ent_coef, anneal_updates: over so many updates the temperature goes there, evenly in its logarithm; 0: stays.
    tau, target_update_interval: the target is moved after so many updates: copied at tau = 1 (released), Polyak else.
    critics: networks for Q, of which the least counts in targets and in the policy (released 1, softlearning 2).
    sampler: "stein", a network of noise; "mixture" of `components`, whose density is known: for many dimensions.
    particles: actions per state and update; Stein's are moved half by half.
    stein_space: "unbounded" or "box"; "released" is that code's inconsistent update, see `nearopt.agents.stein`.
    kernel, bandwidth, bandwidth_scale: see `stein.kernel`.
    value_samples: actions for V (paper 50, released 16).
    proposal: of those actions: "fitted" to the sampler, or "uniform" (paper; the released code gives all states of a
        batch the same ones). uniform_share: how many of them are uniform in any case.
    noise_set: 0: fresh noise for every action; else one of so many fixed vectors, of which fewer and fewer are used
        while the temperature is annealed, at last one: a deterministic policy (fine-tuning).
    """

    learning_rate: float = 1e-3
    sampler_learning_rate: float = 1e-4
    learning_starts: int = 10_000
    batch_size: int = 64
    tau: float = 1.0
    target_update_interval: int = 1_000
    ent_coef: str | float = 1.0
    final_ent_coef: float = 0.0
    anneal_updates: int = 0
    net_arch: tuple[int, ...] = (200, 200)
    critics: int = 1
    sampler: str = choice("stein", "mixture")
    components: int = 8
    particles: int = 32
    stein_space: str = choice("unbounded", "box", "released")
    kernel: str = choice("rbf", "imq")
    bandwidth: str = choice("paper", "released")
    bandwidth_scale: float = 1.0
    value_samples: int = 50
    proposal: str = choice("fitted", "uniform")
    uniform_share: float = 0.1
    noise_set: int = 0

    def __post_init__(self) -> None:
        if bool(self.final_ent_coef) != bool(self.anneal_updates):
            given = f"final_ent_coef={self.final_ent_coef} with anneal_updates={self.anneal_updates}"
            raise SettingError(f"{given} anneals nothing", "give both, or neither")
        if self.final_ent_coef and self.tuned:
            raise SettingError(f"ent_coef={self.ent_coef!r} is tuned, not annealed", "start from a number")
        if self.noise_set and self.sampler != "stein":
            raise SettingError(f"noise_set={self.noise_set} is nothing to a mixture", 'take sampler="stein"')

    @property
    def entropy_target(self) -> float:
        """In nats, relative to the prior, as SAC's."""
        if not isinstance(self.target_entropy, str):
            return float(self.target_entropy)
        size = self.task.action_size * (0.5 if self.target_entropy == "half" else 1.0)
        return -size - (0.0 if self.prior is None else self.task.action_size * np.log(2))

    @property
    def greatest_entropy(self) -> float:
        return self.task.action_size * float(np.log(2)) if self.prior is None else 0.0

    @property
    def form(self) -> samplers.Form:
        kernel = (self.kernel, self.bandwidth, self.bandwidth_scale)
        sizes = (self.sampler, self.components, self.particles)
        return samplers.Form(self.task, *sizes, self.stein_space, kernel)


class State(eqx.Module):
    """All that learning changes."""

    critic: MLP  # with a leading axis: `critics` of them
    target: MLP
    sampler: MLP
    scale: Float[Array, ""]  # the units of Q in which the critics tell it: the temperature they began with
    log_temperature: Float[Array, ""]
    critic_moments: optax.OptState
    sampler_moments: optax.OptState
    temperature_moments: optax.OptState
    updates: Int[Array, ""]

    def q(self, observation: Float[Array, "batch size"], unit: Float[Array, "batch n A"]) -> Float[Array, "batch n"]:
        return q_values(self.scale, self.critic, observation, unit)


def optimisers(settings: Settings) -> tuple[optax.GradientTransformation, ...]:
    """Adam for Q (and the temperature, where it is tuned), and for the sampler."""
    rate = settings.learning_rate
    return optax.adam(rate), optax.adam(settings.sampler_learning_rate or rate)


def init(settings: Settings, key: PRNGKeyArray) -> State:
    task, keys, (adam, climb) = settings.task, jax.random.split(key), optimisers(settings)
    sizes = (task.observation_size + task.action_size, settings.net_arch, 1, settings.activation)
    critic = networks(settings.critics, *sizes, keys[0])
    sampler = samplers.init(settings.form, settings.net_arch, settings.activation, keys[1])
    log_temperature = jnp.log(jnp.float32(settings.initial_temperature))
    moments = moments_of(adam, critic), moments_of(climb, sampler), moments_of(adam, log_temperature)
    scale = jnp.float32(settings.initial_temperature)
    return State(critic, critic, sampler, scale, log_temperature, *moments, jnp.int32(0))


# ---------------------------------------------------------------- the functions
def q_values(scale: Array, critic: MLP, observation: Float[Array, "batch size"], unit: Array) -> Array:
    """The least of the critics' Q at actions (batch, n, A) in [−1, 1]^A → (batch, n).

    The critics tell it in units of `scale`: equal tasks in other units learn alike. (The released code scales the
    reward instead.)
    """
    shape = (*unit.shape[:2], observation.shape[-1])
    rows = jnp.concatenate([jnp.broadcast_to(observation[:, None], shape), unit], axis=-1)
    return scale * both(critic, rows)[..., 0].min(axis=0)


def log_priors(settings: Settings, observation: Array, unit: Float[Array, "batch n A"]) -> Float[Array, "batch n"]:
    """log p(a|s) over [−1, 1]^A."""
    one = lambda action: box_log_prior(settings.prior, settings.task, observation, action, "unit")
    return jax.vmap(one, in_axes=1, out_axes=1)(unit)


def noise(settings: Settings, updates: Array, shape: tuple[int, ...], key: PRNGKeyArray) -> Float[Array, "*shape"]:
    """ξ: standard normal; or one of the first few of a fixed set, fewer and fewer (2017, section 5.3)."""
    if not settings.noise_set:
        return jax.random.normal(key, shape)
    vectors = jax.random.normal(jax.random.key(0), (settings.noise_set, shape[-1]))
    left = jnp.ceil(settings.noise_set ** (1 - progress(settings, updates)))
    return vectors[jax.random.randint(key, shape[:-1], 0, left.astype(jnp.int32))]


def progress(settings: Settings, updates: Array) -> Array:
    """From 0 to 1: how much of the annealing is done."""
    return jnp.clip(updates / max(settings.anneal_updates, 1), 0.0, 1.0) if settings.anneal_updates else jnp.zeros(())


def value(
    settings: Settings, state: Any, q: Callable, observation: Float[Array, "batch size"], count: int, key: Any
) -> Estimate:
    """V/τ of a function q(observation, unit) by importance sampling, with `count` actions."""
    first, second = jax.random.split(key)
    tau, batch, size = jnp.exp(state.log_temperature), observation.shape[0], settings.task.action_size
    proposal = None
    if settings.proposal == "fitted":
        xi = noise(settings, state.updates, (batch, settings.particles, size), first)
        proposal = samplers.proposal(settings.form, state.sampler, observation, xi)
    energy = lambda unit: q(observation, unit) / tau
    prior = lambda unit: log_priors(settings, observation, unit)
    return integrate(energy, prior, proposal, (batch, count, size), settings.uniform_share, second)


def critic_loss(critic: MLP, settings: Settings, scale: Array, batch: Batch, target: Float[Array, " batch"]) -> Array:
    """½ (Q_i − y)² in units of `scale`, averaged over the batch, summed over the critics."""
    rows = jnp.concatenate([batch.observation, settings.task.to_unit(batch.action)], axis=-1)
    return 0.5 * ((both(critic, rows)[..., 0] - target / scale) ** 2).mean(axis=1).sum()


def sampler_loss(
    sampler: MLP, settings: Settings, q: Callable, temperature: Array, observation: Array, xi: Array, key: Any
):
    """What moves the sampler towards p exp(Q/τ), and how far it has to go."""

    def log_p(observation: Array, unit: Array) -> Array:
        return q(observation, unit) / temperature + log_priors(settings, observation, unit)

    return samplers.ascent(settings.form, sampler, log_p, observation, xi, key)


# ---------------------------------------------------------------- learning
def update(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
    """One gradient step of Q, then one of the sampler."""
    adam, _ = optimisers(settings)
    first, second = jax.random.split(key)
    temperature = jnp.exp(state.log_temperature)
    late = partial(q_values, state.scale, state.target)
    after = value(settings, state, late, batch.next_observation, settings.value_samples, first)
    target = batch.reward + settings.gamma * (1.0 - batch.terminated) * temperature * after.log_integral
    loss, slope = jax.value_and_grad(critic_loss)(state.critic, settings, state.scale, batch, target)
    critic, critic_moments = descend(adam, slope, state.critic_moments, state.critic)
    sampler, sampler_moments, gap = improve(
        settings, state, partial(q_values, state.scale, critic), batch.observation, second
    )

    count = state.updates + 1
    log_temperature, temperature_moments = cooled(settings, state, after, count)
    tracked = polyak(state.target, critic, settings.tau)
    due = count % settings.target_update_interval == 0
    tracked = jax.tree.map(lambda new, old: jnp.where(due, new, old), tracked, state.target)
    moments = (critic_moments, sampler_moments, temperature_moments)
    moved = State(critic, tracked, sampler, state.scale, log_temperature, *moments, count)
    finite = (jnp.isfinite(loss) & jnp.isfinite(gap)).astype(jnp.float32)
    report = dict(
        critic_loss=loss, sampler_gap=gap, q=target.mean(), entropy=after.entropy.mean(), ess=after.ess.mean()
    )
    return moved, report | dict(finite=finite)


def improve(
    settings: Settings, state: Any, q: Callable, observation: Float[Array, "batch size"], key: PRNGKeyArray
) -> tuple[MLP, Any, Array]:
    """One step of the sampler towards p exp(q/τ); all that composition needs."""
    first, second = jax.random.split(key)
    shape = (observation.shape[0], settings.particles, settings.task.action_size)
    xi = noise(settings, state.updates, shape, first)
    climb = jax.value_and_grad(sampler_loss, has_aux=True)
    args = (settings, q, jnp.exp(state.log_temperature), observation, xi, second)
    (_, gap), slope = climb(state.sampler, *args)
    return *descend(optimisers(settings)[1], slope, state.sampler_moments, state.sampler), gap


def cooled(settings: Settings, state: State, after: Estimate, count: Array) -> tuple[Array, Any]:
    """The temperature of the next update: tuned, annealed or the same."""
    moments = state.temperature_moments
    if settings.tuned:
        slope = jax.grad(temperature_loss)(state.log_temperature, after.entropy, settings.entropy_target, "temperature")
        return descend(optimisers(settings)[0], slope, moments, state.log_temperature)
    if not settings.final_ent_coef:
        return state.log_temperature, moments
    ends = np.log([settings.initial_temperature, settings.final_ent_coef])
    return jnp.float32(ends[0]) + progress(settings, count) * jnp.float32(ends[1] - ends[0]), moments


def act(
    settings: Settings, state: Any, observation: Float[Array, "batch size"], key: PRNGKeyArray, deterministic: bool
):
    """Actions in the environment's units, and log π/p = (Q − V)/τ of them.

    Deterministic: of `particles` actions, drawn with noise that is always the same, the most probable one.
    """
    first, second, third = jax.random.split(jax.random.key(0) if deterministic else key, 3)
    batch, tau = observation.shape[0], jnp.exp(state.log_temperature)
    count = settings.particles if deterministic else 1
    xi = noise(settings, state.updates, (batch, count, settings.task.action_size), first)
    unit = samplers.draw(settings.form, state.sampler, observation, xi, second)
    energy = state.q(observation, unit) / tau
    if deterministic:
        best = (energy + log_priors(settings, observation, unit)).argmax(axis=1)
        return settings.task.to_box(jnp.take_along_axis(unit, best[:, None, None], axis=1)[:, 0]), jnp.zeros(batch)
    whole = value(settings, state, state.q, observation, settings.value_samples, third)
    return settings.task.to_box(unit[:, 0]), energy[:, 0] - whole.log_integral


def soft_value(settings: Settings, state: Any, observation: Float[Array, "batch size"]) -> Float[Array, " batch"]:
    """V(s), of 256 actions with noise that is always the same."""
    estimate = value(settings, state, state.q, observation, 256, jax.random.key(0))
    return jnp.exp(state.log_temperature) * estimate.log_integral


def action_values(settings: Settings, state: Any, observation: Float[Array, "batch size"], action: Array) -> Array:
    """Q(s, a) of actions in the environment's units."""
    return state.q(observation, settings.task.to_unit(action)[:, None])[:, 0]


class SQL(Agent):
    """Soft Q-learning with an energy-based policy, for actions in a box; `nearopt.agents.sql` is the whole algorithm.

    Its policy may have as many modes as Q has: where SAC commits to one of several routes, this agent keeps them all.

    Args:
        env: a Gymnasium environment, a vector of them, an environment in JAX, or an id.
        seed: of the networks, the noise, the environment, everything.
        env_kwargs, n_envs: for an id: its arguments, and how many of it are stepped side by side.
        settings: SB3's names and those of `sql.Settings`.

    Raises:
        SettingError: a setting that does not exist, or out of range.
        WrongAgentError: the actions are discrete.

    >>> agent = SQL("nearopt/MultiGoal-v0", seed=0, ent_coef=10.0, learning_starts=50, batch_size=16, net_arch=[16])
    >>> agent.learn(60).predict([0.0, 0.0])[0].shape
    (2,)
    """

    method = Method("SQL", False, Settings, init, act, update, soft_value, action_values)
