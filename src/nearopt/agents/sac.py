"""Soft actor-critic (Haarnoja et al. 2018b, arXiv 1812.05905): twin soft Q functions and a squashed Gaussian actor.

    critic       y = r + γ (1 − terminated) [ min_i Q'_i(s', a') − τ log π(a'|s')/p(a'|s') ],  a' ~ π     (eqs. 2, 3, 5)
    actor        E[ τ log π(a|s)/p(a|s) − Q(s, a) ],  a = tanh(mean + std · noise)                       (eq. 9)
    temperature  τ such that E[ −log π/p ] is the target entropy                                         (eq. 18)

Where public implementations differ there is a setting, with the paper's choice as default; `PRESETS` names the others'.
p is the action prior, and enters all three lines.
"""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.agents.agent import Agent, Method
from nearopt.agents.distributions import Squashed, gaussian, squash
from nearopt.agents.networks import MLP, both, descend, moments_of, polyak, twins
from nearopt.agents.replay import Batch
from nearopt.agents.settings import OffPolicy, choice
from nearopt.agents.task import box_log_prior
from nearopt.agents.temperature import temperature_loss


@dataclass(frozen=True)
class Settings(OffPolicy):
    """SAC's settings, and its mathematics as pure functions of them.

    critic_learning_rate, actor_learning_rate, temperature_learning_rate: 0 means `learning_rate`.
    target_entropy: "auto" is −A nats, "half" −A/2 (jaxrl, brax). With a prior (whose integral is 1) the budget is
        relative to it: a number is taken as it is, and "auto" is what −A is to the uniform prior.
    actor_q: which Q the actor climbs: "min" of the twins, their "mean" (softlearning), the "first".
    log_std, log_std_range: see `distributions.gaussian`.
    temperature_loss: "temperature" · (H − H*) as in the paper, or "log" temperature · (H − H*) (SB3).
    temperature_sample: the temperature's loss sees the actions of the actor's loss ("shared") or "fresh" ones from the
        actor just updated (CleanRL).
    entropy_units: entropy is measured on [−1, 1]^A ("unit"), or in the units of the action "box" (CleanRL): on a box of
        ±0.4 the same policy has less by A log 0.4.
    update_order: the actor climbs the critics just updated ("sequential") or the old ones ("together").
    policy_delay: the actor and the temperature are updated at every k-th step, k times (CleanRL: 2).
    """

    critic_learning_rate: float = 0.0
    actor_learning_rate: float = 0.0
    temperature_learning_rate: float = 0.0
    actor_q: str = choice("min", "mean", "first")
    log_std: str = choice("clip", "tanh", "softplus")
    log_std_range: tuple[float, float] = (-20.0, 2.0)
    temperature_loss: str = choice("temperature", "log")
    temperature_sample: str = choice("shared", "fresh")
    entropy_units: str = choice("unit", "box")
    update_order: str = choice("sequential", "together")
    policy_delay: int = 1

    @property
    def entropy_target(self) -> float:
        """In nats, relative to the prior."""
        if not isinstance(self.target_entropy, str):
            return float(self.target_entropy)
        size = self.task.action_size * (0.5 if self.target_entropy == "half" else 1.0)
        return -size if self.prior is None else -size - self.volume

    @property
    def greatest_entropy(self) -> float:
        """That of the uniform policy."""
        return self.volume if self.prior is None else 0.0

    @property
    def volume(self) -> float:
        """The logarithm of the box's, in the units in which entropy is measured."""
        wide = (
            np.subtract(self.task.high, self.task.low)
            if self.entropy_units == "box"
            else np.full_like(self.task.low, 2)
        )
        return float(np.log(wide).sum())


PRESETS: dict[str, dict] = {
    "sb3": dict(temperature_loss="log", learning_starts=100),
    "cleanrl": dict(
        critic_learning_rate=1e-3,
        temperature_learning_rate=1e-3,
        log_std="tanh",
        log_std_range=(-5.0, 2.0),
        temperature_sample="fresh",
        entropy_units="box",
        policy_delay=2,
        learning_starts=5_000,
    ),
    "haarnoja": dict(actor_q="mean", log_std="softplus", temperature_sample="fresh", learning_starts=10_000),
}


class State(eqx.Module):
    """All that learning changes."""

    actor: MLP
    critic: MLP  # twins
    target: MLP
    log_temperature: Float[Array, ""]
    actor_moments: optax.OptState
    critic_moments: optax.OptState
    temperature_moments: optax.OptState
    updates: Int[Array, ""]


def optimisers(settings: Settings) -> tuple[optax.GradientTransformation, ...]:
    """Adam for the critics, the actor, the temperature."""
    rates = (settings.critic_learning_rate, settings.actor_learning_rate, settings.temperature_learning_rate)
    critic, actor, temperature = (optax.adam(rate or settings.learning_rate) for rate in rates)
    return critic, actor, temperature


def init(settings: Settings, key: PRNGKeyArray) -> State:
    task, keys = settings.task, jax.random.split(key)
    actor = MLP.init(task.observation_size, settings.net_arch, 2 * task.action_size, settings.activation, keys[0])
    critic = twins(task.observation_size + task.action_size, settings.net_arch, 1, settings.activation, keys[1])
    log_temperature = jnp.log(jnp.float32(settings.initial_temperature))
    moments = [
        moments_of(adam, parameters)
        for adam, parameters in zip(optimisers(settings), (critic, actor, log_temperature), strict=True)
    ]
    return State(actor, critic, critic, log_temperature, moments[1], moments[0], moments[2], jnp.int32(0))


# ---------------------------------------------------------------- the functions
def policy(settings: Settings, actor: MLP, observation: Float[Array, "batch size"], noise: Array) -> Squashed:
    """Actions in [−1, 1]^A, and their log-density there."""
    return squash(gaussian(actor(observation), settings.log_std, settings.log_std_range), noise)


def q_values(critic: MLP, observation: Float[Array, "batch size"], unit: Float[Array, "batch A"]) -> Array:
    """Q of both critics, (2, batch)."""
    return both(critic, jnp.concatenate([observation, unit], axis=-1))[..., 0]


def relative(settings: Settings, observation: Array, drawn: Squashed) -> Float[Array, " batch"]:
    """log π/p of the actions drawn: what temperature times it costs."""
    prior = box_log_prior(settings.prior, settings.task, observation, drawn.action, settings.entropy_units)
    return drawn.log_prob - prior


def critic_target(settings: Settings, state: State, batch: Batch, noise: Array) -> Float[Array, " batch"]:
    """y: the entropy of the next action is inside the terminal mask, and is discounted with the value it belongs to."""
    drawn = policy(settings, state.actor, batch.next_observation, noise)
    q = q_values(state.target, batch.next_observation, drawn.action).min(axis=0)
    value = q - jnp.exp(state.log_temperature) * relative(settings, batch.next_observation, drawn)
    return batch.reward + settings.gamma * (1.0 - batch.terminated) * value


def critic_loss(critic: MLP, settings: Settings, batch: Batch, target: Float[Array, " batch"]) -> Float[Array, ""]:
    """½ (Q_i − y)², averaged over the batch, summed over the twins."""
    q = q_values(critic, batch.observation, settings.task.to_unit(batch.action))
    return 0.5 * ((q - target) ** 2).mean(axis=1).sum()


def actor_loss(actor: MLP, settings: Settings, critic: MLP, temperature: Array, batch: Batch, noise: Array):
    """E[τ log π/p − Q], and the relative entropies −log π/p of the actions drawn."""
    drawn = policy(settings, actor, batch.observation, noise)
    q = q_values(critic, batch.observation, drawn.action)
    climbed = {"min": lambda q: q.min(axis=0), "mean": lambda q: q.mean(axis=0), "first": lambda q: q[0]}
    cost = relative(settings, batch.observation, drawn)
    return (temperature * cost - climbed[settings.actor_q](q)).mean(), -cost


# ---------------------------------------------------------------- learning
def update(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
    """One gradient step of everything, and what is worth knowing of it."""
    shape = (*batch.reward.shape, settings.task.action_size)
    key, first = jax.random.split(key)
    critic_adam = optimisers(settings)[0]
    target = critic_target(settings, state, batch, jax.random.normal(first, shape))
    loss, slope = jax.value_and_grad(critic_loss)(state.critic, settings, batch, target)
    critic, moments = descend(critic_adam, slope, state.critic_moments, state.critic)
    climbed = critic if settings.update_order == "sequential" else state.critic

    act = Actor(state.actor, state.actor_moments, state.log_temperature, state.temperature_moments)
    if settings.policy_delay == 1:
        act, report = improve(settings, act, climbed, batch, key)
    else:
        keys = jax.random.split(key, settings.policy_delay)
        repeat = lambda act: jax.lax.scan(lambda a, k: improve(settings, a, climbed, batch, k), act, keys)
        nothing = jnp.full(settings.policy_delay, jnp.nan)
        skip = lambda act: (act, dict(actor_loss=nothing, entropy=nothing, finite=jnp.ones_like(nothing)))
        due = state.updates % settings.policy_delay == 0
        act, reports = jax.lax.cond(due, repeat, skip, act)
        report = {name: rows.mean() for name, rows in reports.items()} | dict(finite=reports["finite"].min())
    tracked = polyak(state.target, critic, settings.tau)
    count = state.updates + 1
    moved = State(act.actor, critic, tracked, act.log_temperature, act.moments, moments, act.temperature_moments, count)
    finite = report.pop("finite") * jnp.isfinite(loss)
    return moved, dict(critic_loss=loss, q=target.mean(), finite=finite, **report)


class Actor(NamedTuple):
    """The part of the state that `improve` changes."""

    actor: MLP
    moments: optax.OptState
    log_temperature: Float[Array, ""]
    temperature_moments: optax.OptState


def improve(settings: Settings, act: Actor, critic: MLP, batch: Batch, key: PRNGKeyArray) -> tuple[Actor, dict]:
    """One step of the actor, then one of the temperature."""
    _, actor_adam, temperature_adam = optimisers(settings)
    shape = (*batch.reward.shape, settings.task.action_size)
    noise, fresh = (jax.random.normal(k, shape) for k in jax.random.split(key))
    slope = jax.value_and_grad(actor_loss, has_aux=True)
    (loss, entropy), gradient = slope(act.actor, settings, critic, jnp.exp(act.log_temperature), batch, noise)
    actor, moments = descend(actor_adam, gradient, act.moments, act.actor)
    log_temperature, temperature_moments = act.log_temperature, act.temperature_moments
    if settings.tuned:
        if settings.temperature_sample == "fresh":
            entropy = -relative(settings, batch.observation, policy(settings, actor, batch.observation, fresh))
        gradient = jax.grad(temperature_loss)(
            log_temperature, entropy, settings.entropy_target, settings.temperature_loss
        )
        log_temperature, temperature_moments = descend(temperature_adam, gradient, temperature_moments, log_temperature)
    report = dict(actor_loss=loss, entropy=entropy.mean(), finite=jnp.isfinite(loss).astype(jnp.float32))
    return Actor(actor, moments, log_temperature, temperature_moments), report


def act(
    settings: Settings, state: State, observation: Float[Array, "batch size"], key: PRNGKeyArray, deterministic: bool
):
    """Actions in the environment's units, and log π/p of them (0 where deterministic: tanh of the mean)."""
    task = settings.task
    if deterministic:
        row = gaussian(state.actor(observation), settings.log_std, settings.log_std_range)
        return task.to_box(jnp.tanh(row.mean)), jnp.zeros(observation.shape[:1])
    noise = jax.random.normal(key, (observation.shape[0], task.action_size))
    drawn = policy(settings, state.actor, observation, noise)
    return task.to_box(drawn.action), relative(settings, observation, drawn)


def soft_value(settings: Settings, state: State, observation: Float[Array, "batch size"]) -> Float[Array, " batch"]:
    """V(s) = E[min_i Q_i(s, a) − τ log π/p]: the mean of 64 actions, with noise that is always the same."""

    def one(noise: Float[Array, " A"]) -> Float[Array, " batch"]:
        drawn = policy(settings, state.actor, observation, jnp.broadcast_to(noise, shape))
        q = q_values(state.critic, observation, drawn.action).min(axis=0)
        return q - jnp.exp(state.log_temperature) * relative(settings, observation, drawn)

    shape = (observation.shape[0], settings.task.action_size)
    return jax.vmap(one)(jax.random.normal(jax.random.key(0), (64, shape[1]))).mean(axis=0)


def action_values(settings: Settings, state: State, observation: Float[Array, "batch size"], action: Array) -> Array:
    """min_i Q_i(s, a) of actions in the environment's units."""
    return q_values(state.critic, observation, settings.task.to_unit(action)).min(axis=0)


class SAC(Agent):
    """Soft actor-critic for actions in a box; `nearopt.agents.sac` is the whole algorithm.

    Args:
        env: a Gymnasium environment, a vector of them, an environment in JAX, or an id.
        seed: of the networks, the noise, the environment, everything.
        env_kwargs, n_envs: for an id: its arguments, and how many of it are stepped side by side.
        preset: "sb3", "cleanrl" or "haarnoja" instead of the paper's choices.
        settings: SB3's names and those of `sac.Settings`.

    Raises:
        SettingError: a setting that does not exist, or out of range.
        WrongAgentError: the actions are discrete.

    >>> agent = SAC("Pendulum-v1", seed=0, learning_starts=50, batch_size=32, policy_kwargs=dict(net_arch=[16]))
    >>> action, _ = agent.learn(100).predict([1.0, 0.0, 0.0], deterministic=True)
    >>> action.shape, agent.replay.observation.shape
    ((1,), (100, 3))
    """

    method = Method("SAC", False, Settings, init, act, update, soft_value, action_values)
    presets = PRESETS
