"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv 1910.07207): sums over actions, no samples.

critic       y = r + γ (1 − terminated) Σ_a' π(a'|s') [ min_i Q'_i(s', a') − τ log π(a'|s')/p ]
actor        E_s Σ_a π(a|s) [ τ log π(a|s)/p − min_i Q_i(s, a) ],   π ∝ p exp(logits)
temperature  τ such that −E Σ π log π/p is the target entropy
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.agents.agent import Agent, Method
from nearopt.agents.distributions import Tilted, at, draw, tilted
from nearopt.agents.networks import MLP, both, descend, moments_of, polyak, twins
from nearopt.agents.replay import Batch
from nearopt.agents.settings import OffPolicy
from nearopt.agents.soft_dqn import discrete_maximum, discrete_target
from nearopt.agents.task import discrete_log_prior
from nearopt.agents.temperature import temperature_loss


@dataclass(frozen=True)
class Settings(OffPolicy):
    """Discrete SAC's settings.

    target_entropy: in nats relative to the prior; "auto" is 0.98 of the uniform policy's entropy.
    """

    @property
    def entropy_target(self) -> float:
        return discrete_target(self)

    @property
    def greatest_entropy(self) -> float:
        return discrete_maximum(self)


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


def init(settings: Settings, key: PRNGKeyArray) -> State:
    task, keys, adam = settings.task, jax.random.split(key), optax.adam(settings.learning_rate)
    shape = (task.observation_size, settings.net_arch, task.num_actions, settings.activation)
    actor, critic = MLP.init(*shape, keys[0]), twins(*shape, keys[1])
    log_temperature = jnp.log(jnp.float32(settings.initial_temperature))
    moments = (moments_of(adam, actor), moments_of(adam, critic), moments_of(adam, log_temperature))
    return State(actor, critic, critic, log_temperature, *moments, jnp.int32(0))


# ---------------------------------------------------------------- the functions
def policy(settings: Settings, actor: MLP, observation: Float[Array, "batch size"]) -> Tilted:
    return tilted(actor(observation), discrete_log_prior(settings.prior, settings.task, observation), 1.0)


def expected(row: Tilted, q: Float[Array, "batch n"], temperature: Array) -> Float[Array, " batch"]:
    """Σ_a π [ Q − τ log π/p ]: the soft value of a policy."""
    return (row.probability * (q - temperature * row.log_ratio)).sum(axis=1)


def critic_target(settings: Settings, state: State, batch: Batch) -> Float[Array, " batch"]:
    """y: the entropy of the next state is inside the terminal mask, and is discounted with its value."""
    row = policy(settings, state.actor, batch.next_observation)
    q = both(state.target, batch.next_observation).min(axis=0)
    value = expected(row, q, jnp.exp(state.log_temperature))
    return batch.reward + settings.gamma * (1.0 - batch.terminated) * value


def critic_loss(critic: MLP, batch: Batch, target: Float[Array, " batch"]) -> Float[Array, ""]:
    """½ (Q_i(s, a) − y)², averaged over the batch, summed over the twins."""
    q = jax.vmap(lambda rows: at(rows, batch.action))(both(critic, batch.observation))
    return 0.5 * ((q - target) ** 2).mean(axis=1).sum()


def actor_loss(actor: MLP, settings: Settings, critic: MLP, temperature: Array, batch: Batch):
    """−E Σ π [ Q − τ log π/p ], and the relative entropies of the policy."""
    row = policy(settings, actor, batch.observation)
    q = both(critic, batch.observation).min(axis=0)
    return -expected(row, q, temperature).mean(), -(row.probability * row.log_ratio).sum(axis=1)


# ---------------------------------------------------------------- learning
def update(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
    """One gradient step of everything; nothing in it is drawn, so `key` is not used."""
    adam, temperature = optax.adam(settings.learning_rate), jnp.exp(state.log_temperature)
    target = critic_target(settings, state, batch)
    loss, slope = jax.value_and_grad(critic_loss)(state.critic, batch, target)
    critic, critic_moments = descend(adam, slope, state.critic_moments, state.critic)

    climb = jax.value_and_grad(actor_loss, has_aux=True)
    (cost, entropy), slope = climb(state.actor, settings, critic, temperature, batch)
    actor, actor_moments = descend(adam, slope, state.actor_moments, state.actor)

    log_temperature, temperature_moments = state.log_temperature, state.temperature_moments
    if settings.tuned:
        slope = jax.grad(temperature_loss)(log_temperature, entropy, settings.entropy_target, "temperature")
        log_temperature, temperature_moments = descend(adam, slope, temperature_moments, log_temperature)
    tracked = polyak(state.target, critic, settings.tau)
    moments = (actor_moments, critic_moments, temperature_moments)
    moved = State(actor, critic, tracked, log_temperature, *moments, state.updates + 1)
    finite = (jnp.isfinite(loss) & jnp.isfinite(cost)).astype(jnp.float32)
    return moved, dict(critic_loss=loss, actor_loss=cost, q=target.mean(), entropy=entropy.mean(), finite=finite)


def act(
    settings: Settings, state: State, observation: Float[Array, "batch size"], key: PRNGKeyArray, deterministic: bool
):
    """Actions, and log π/p of them."""
    row = policy(settings, state.actor, observation)
    return draw(row, discrete_log_prior(settings.prior, settings.task, observation), key, deterministic)


def soft_value(settings: Settings, state: State, observation: Float[Array, "batch size"]) -> Float[Array, " batch"]:
    q = both(state.critic, observation).min(axis=0)
    return expected(policy(settings, state.actor, observation), q, jnp.exp(state.log_temperature))


def q_values(settings: Settings, state: State, observation: Float[Array, "batch size"], action: None) -> Array:
    return both(state.critic, observation).min(axis=0)


class DiscreteSAC(Agent):
    """Soft actor-critic for discrete actions; `nearopt.agents.discrete_sac` is the whole algorithm.

    Args:
        env: a Gymnasium environment, a vector of them, an environment in JAX, or an id.
        seed: of the networks, the noise, the environment, everything.
        env_kwargs, n_envs: for an id: its arguments, and how many of it are stepped side by side.
        settings: SB3's names and those of `discrete_sac.Settings`.

    Raises:
        SettingError: a setting that does not exist, or out of range.
        WrongAgentError: the actions are no discrete ones.

    >>> agent = DiscreteSAC("CartPole-v1", seed=0, learning_starts=50, batch_size=32)
    >>> agent.learn(100).temperature > 0
    True
    """

    method = Method("DiscreteSAC", True, Settings, init, act, update, soft_value, q_values)
