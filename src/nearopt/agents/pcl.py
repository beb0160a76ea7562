"""Path consistency learning (Nachum et al. 2017, arXiv 1702.08892): along any path, whoever took it,

    V(s_1) = Σ_{i≤m} γ^{i−1} (r_i − τ log π(a_i|s_i)/p) + γ^m V(s_{m+1})                    (eq. 15, with a prior)

at the optimum: exactly where the dynamics are deterministic, in expectation over next states otherwise. The squared
difference of the sides is made small over windows from the replay buffer, through everything in it ("path": the paper).

Where chance rules, that is another aim: the square of a sample's difference has the variance of what follows in it,
and V and π bend to make it smaller. `gradient="first"` moves V(s_1) + τ log π(a_1|s_1)/p alone, to where the rest of
the path leads by networks that lag behind: soft Q-learning, with Q = V + τ log π/p, and right under chance.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.agents import policies
from nearopt.agents.agent import Agent, Method
from nearopt.agents.networks import MLP, descend, moments_of, polyak
from nearopt.agents.replay import Batch
from nearopt.agents.settings import OffPolicy, choice
from nearopt.agents.temperature import temperature_loss


@dataclass(frozen=True)
class Settings(OffPolicy):
    """Path consistency's settings.

    ent_coef: the temperature, a number unless told "auto" (the paper's code has 0.025).
    n_steps: the length of windows.
    gradient: through the whole "path", or its "first" action and value alone, where the world is not deterministic.
    tau: how fast the networks follow that "first" aims with; "path" has none.
    """

    ent_coef: str | float = 0.025
    n_steps: int = 10
    gradient: str = choice("path", "first")

    @property
    def window(self) -> int:
        return self.n_steps

    @property
    def entropy_target(self) -> float:
        return policies.entropy_target(self)

    @property
    def greatest_entropy(self) -> float:
        return policies.greatest_entropy(self)


class Pair(eqx.Module):
    """π and V."""

    actor: MLP
    critic: MLP


class State(eqx.Module):
    """All that learning changes."""

    pair: Pair
    target: Pair
    log_temperature: Float[Array, ""]
    moments: optax.OptState
    temperature_moments: optax.OptState
    updates: Int[Array, ""]


def init(settings: Settings, key: PRNGKeyArray) -> State:
    keys, adam = jax.random.split(key), optax.adam(settings.learning_rate)
    critic = MLP.init(settings.task.observation_size, settings.net_arch, 1, settings.activation, keys[1])
    pair = Pair(policies.init(settings, keys[0]), critic)
    log_temperature = jnp.log(jnp.float32(settings.initial_temperature))
    return State(pair, pair, log_temperature, moments_of(adam, pair), moments_of(adam, log_temperature), jnp.int32(0))


# ---------------------------------------------------------------- the functions
def rest(settings: Settings, pair: Pair, temperature: Array, batch: Batch) -> Float[Array, " batch"]:
    """r_1 and all that follows it: Σ_{i>1} γ^{i−1} (r_i − τ log π/p) + γ^m V(s_{m+1})."""
    value = (1.0 - batch.terminated) * pair.critic(batch.next_observation)[:, 0]
    if batch.later is None:
        return batch.reward + settings.gamma * value
    ratio = jax.vmap(lambda seen, done: policies.log_ratio(settings, pair.actor, seen, done))
    paid = batch.later.reward - temperature * ratio(batch.later.observation, batch.later.action)
    powers = settings.gamma ** jnp.arange(1, settings.n_steps)
    earned = jnp.where(batch.later.on, powers * paid, 0.0).sum(axis=1)
    return batch.reward + earned + settings.gamma ** (1 + batch.later.on.sum(axis=1)) * value


def residual(settings: Settings, pair: Pair, target: Pair, temperature: Array, batch: Batch) -> Float[Array, " batch"]:
    """The difference between the two sides."""
    first = policies.log_ratio(settings, pair.actor, batch.observation, batch.action)
    follows = pair if settings.gradient == "path" else target
    begun = pair.critic(batch.observation)[:, 0] + temperature * first
    return begun - rest(settings, follows, temperature, batch)


def loss(pair: Pair, settings: Settings, target: Pair, temperature: Array, batch: Batch) -> Float[Array, ""]:
    """Half its square, averaged."""
    return 0.5 * (residual(settings, pair, target, temperature, batch) ** 2).mean()


# ---------------------------------------------------------------- learning
def update(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
    """One gradient step."""
    adam, temperature = optax.adam(settings.learning_rate), jnp.exp(state.log_temperature)
    cost, slope = jax.value_and_grad(loss)(state.pair, settings, state.target, temperature, batch)
    pair, moments = descend(adam, slope, state.moments, state.pair)
    entropy = -policies.divergence(settings, pair.actor, batch.observation, key)
    log_temperature, temperature_moments = state.log_temperature, state.temperature_moments
    if settings.tuned:
        slope = jax.grad(temperature_loss)(log_temperature, entropy, settings.entropy_target, "temperature")
        log_temperature, temperature_moments = descend(adam, slope, temperature_moments, log_temperature)
    tracked = polyak(state.target, pair, settings.tau)
    moved = State(pair, tracked, log_temperature, moments, temperature_moments, state.updates + 1)
    value = pair.critic(batch.observation)[:, 0].mean()
    finite = jnp.isfinite(cost).astype(jnp.float32)
    return moved, dict(critic_loss=cost, q=value, entropy=entropy.mean(), finite=finite)


def act(
    settings: Settings, state: State, observation: Float[Array, "batch size"], key: PRNGKeyArray, deterministic: bool
):
    """Actions in the environment's units, and log π/p of them."""
    return policies.act(settings, state.pair.actor, observation, key, deterministic)


def soft_value(settings: Settings, state: State, observation: Float[Array, "batch size"]) -> Float[Array, " batch"]:
    return state.pair.critic(observation)[:, 0]


def q_values(settings: Settings, state: State, observation: Float[Array, "batch size"], action: Any) -> Array:
    """V + τ log π/p: of all discrete actions, or of actions in a box."""
    value, tau = soft_value(settings, state, observation), jnp.exp(state.log_temperature)
    if action is None:
        return value[:, None] + tau * policies.log_ratios(settings, state.pair.actor, observation)
    return value + tau * policies.log_ratio(settings, state.pair.actor, observation, action)


class PCL(Agent):
    """Path consistency learning, for discrete actions or a box; `nearopt.agents.pcl` is the whole algorithm.

    Args:
        env: a Gymnasium environment, a vector of them, an environment in JAX, or an id.
        seed: of the networks, the noise, the environment, everything.
        env_kwargs, n_envs: for an id: its arguments, and how many of it are stepped side by side.
        settings: SB3's names and those of `pcl.Settings`.

    Raises:
        SettingError: a setting that does not exist, or out of range.

    >>> agent = PCL("CartPole-v1", seed=0, ent_coef=0.1, learning_starts=50, batch_size=32, net_arch=[16]).learn(100)
    >>> agent.q_values([0.0, 0.0, 0.0, 0.0]).shape, agent.soft_value([[0.0, 0.0, 0.0, 0.0]]).shape
    ((2,), (1,))
    """

    method = Method("PCL", None, Settings, init, act, update, soft_value, q_values)
