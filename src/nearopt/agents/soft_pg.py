"""Entropy-regularised policy gradient (Schulman et al. 2017, arXiv 1704.06440), on-policy.

    δ = r − τ KL(s) + γ (1 − terminated) V(s') − V(s),   KL(s) = KL(π(·|s) ‖ p)
    A = Σ_d (γλ)^d δ_d along a stream                    (Schulman et al. 2015, arXiv 1506.02438, eq. 16)
    actor    E[∇log π(a|s) A] − τ ∇KL(s)                 (2017, eq. 13: what an action changes now and what comes later)
    critic   ½ (V(s) − V̂)²,   V̂ = V(s) + A

The entropy is inside the return: the agent seeks states where it may be random later on, and V is the soft value, as in
every other agent here. The common form has the one-step bonus −τ ∇KL alone (`entropy="bonus"`): V then knows nothing of
entropy, and the solution is another. Since π ∝ p exp(Q/τ) at the optimum, Q = V + τ log π/p, which `q_values` tells.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.agents import policies
from nearopt.agents.agent import Agent, Method
from nearopt.agents.networks import MLP, descend, moments_of
from nearopt.agents.replay import Batch
from nearopt.agents.settings import OnPolicy, choice
from nearopt.agents.temperature import temperature_loss


@dataclass(frozen=True)
class Settings(OnPolicy):
    """The policy gradient's settings.

    ent_coef: the temperature, a number unless told "auto" (the paper has 0.01).
    entropy: inside the "return", or a one-step "bonus".
    gae_lambda: 0: V(s') stands for all that comes later; 1: what came does, as far as it was seen.
    n_epochs: how often an update goes through what the policy did.
    clip_range: the most by which π(a|s) may change its share in an update (Schulman et al. 2017b, arXiv 1707.06347,
        eq. 7); 0: no bound, for a single epoch.
    """

    ent_coef: str | float = 0.01
    entropy: str = choice("return", "bonus")
    gae_lambda: float = 0.95
    n_epochs: int = 1
    clip_range: float = 0.0

    @property
    def entropy_target(self) -> float:
        return policies.entropy_target(self)

    @property
    def greatest_entropy(self) -> float:
        return policies.greatest_entropy(self)


PRESETS: dict[str, dict] = {"ppo": dict(n_epochs=10, clip_range=0.2, n_steps=2048)}


class State(eqx.Module):
    """All that learning changes."""

    actor: MLP
    critic: MLP
    log_temperature: Float[Array, ""]
    actor_moments: optax.OptState
    critic_moments: optax.OptState
    temperature_moments: optax.OptState
    updates: Int[Array, ""]


def init(settings: Settings, key: PRNGKeyArray) -> State:
    task, keys, adam = settings.task, jax.random.split(key), optax.adam(settings.learning_rate)
    actor = policies.init(settings, keys[0])
    critic = MLP.init(task.observation_size, settings.net_arch, 1, settings.activation, keys[1])
    log_temperature = jnp.log(jnp.float32(settings.initial_temperature))
    moments = moments_of(adam, actor), moments_of(adam, critic), moments_of(adam, log_temperature)
    return State(actor, critic, log_temperature, *moments, jnp.int32(0))


# ---------------------------------------------------------------- the functions
def along(delta: Float[Array, " rows"], back: Int[Array, " rows"], decay: float) -> Float[Array, " rows"]:
    """Σ_d decay^d δ_d of each row and those that follow it in its stream, as far as they are here.

    back: the stream's previous row is so many above, 0: none. An episode that was cut off ends with V(s') in its δ.
    """

    def step(later: Array, row: Array) -> tuple[Array, Array]:
        total = delta[row] + decay * later[row]
        linked = (back[row] > 0) & (back[row] <= row)
        return later.at[row - jnp.where(linked, back[row], 0)].set(jnp.where(linked, total, later[row])), total

    back = jnp.asarray(back)
    return jax.lax.scan(step, jnp.zeros_like(delta), jnp.arange(delta.shape[0]), reverse=True)[1]


class Lesson(NamedTuple):
    """What one gradient step learns from, of rows in any order."""

    observation: Any
    action: Any
    log_ratio: Any  # log π/p, by the policy that acted
    advantage: Any
    value: Any  # V̂


def lesson(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> Lesson:
    """Advantages and values of all that the policy did."""
    value, after = state.critic(batch.observation)[:, 0], state.critic(batch.next_observation)[:, 0]
    delta = batch.reward + settings.gamma * (1.0 - batch.terminated) * after - value
    if settings.entropy == "return":
        delta -= jnp.exp(state.log_temperature) * policies.divergence(settings, state.actor, batch.observation, key)
    advantage = along(delta, batch.back, settings.gamma * settings.gae_lambda)
    known = policies.log_ratio(settings, state.actor, batch.observation, batch.action)
    return Lesson(batch.observation, batch.action, known, advantage, value + advantage)


def critic_loss(critic: MLP, rows: Lesson) -> Float[Array, ""]:
    """½ (V − V̂)², averaged."""
    return 0.5 * ((critic(rows.observation)[:, 0] - rows.value) ** 2).mean()


def actor_loss(actor: MLP, settings: Settings, temperature: Array, rows: Lesson, key: PRNGKeyArray):
    """−E[π/π_then A] + τ KL: at the policy that acted, the policy gradient. And the relative entropies."""
    share = jnp.exp(policies.log_ratio(settings, actor, rows.observation, rows.action) - rows.log_ratio)
    gain = share * rows.advantage
    if settings.clip_range:
        near = jnp.clip(share, 1 - settings.clip_range, 1 + settings.clip_range)
        gain = jnp.minimum(gain, near * rows.advantage)
    cost = policies.divergence(settings, actor, rows.observation, key)
    return (temperature * cost - gain).mean(), -cost


# ---------------------------------------------------------------- learning
def update(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
    """All gradient steps with what the policy did: `n_epochs` times through it, in minibatches and a new order."""
    first, second = jax.random.split(key)
    rows = lesson(settings, state, batch, first)
    size = batch.reward.shape[0]
    count = max(1, size // settings.batch_size)

    def epoch(state: State, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
        order, key = jax.random.split(key)
        parts = jax.random.permutation(order, size)[: size // count * count].reshape(count, -1)
        shuffled = jax.tree.map(lambda column: column[parts], rows)
        return jax.lax.scan(partial(step, settings), state, (shuffled, jax.random.split(key, count)))

    state, reports = jax.lax.scan(epoch, state, jax.random.split(second, settings.n_epochs))
    report = {name: told.mean() for name, told in reports.items()} | dict(q=rows.value.mean())
    return state, report | dict(finite=reports["finite"].min())


def step(settings: Settings, state: State, lesson: tuple[Lesson, PRNGKeyArray]) -> tuple[State, dict[str, Array]]:
    """One gradient step of everything."""
    rows, key = lesson
    adam, temperature = optax.adam(settings.learning_rate), jnp.exp(state.log_temperature)
    loss, slope = jax.value_and_grad(critic_loss)(state.critic, rows)
    critic, critic_moments = descend(adam, slope, state.critic_moments, state.critic)
    climb = jax.value_and_grad(actor_loss, has_aux=True)
    (cost, entropy), slope = climb(state.actor, settings, temperature, rows, key)
    actor, actor_moments = descend(adam, slope, state.actor_moments, state.actor)
    log_temperature, temperature_moments = state.log_temperature, state.temperature_moments
    if settings.tuned:
        slope = jax.grad(temperature_loss)(log_temperature, entropy, settings.entropy_target, "temperature")
        log_temperature, temperature_moments = descend(adam, slope, temperature_moments, log_temperature)
    moved = State(actor, critic, log_temperature, actor_moments, critic_moments, temperature_moments, state.updates + 1)
    finite = (jnp.isfinite(loss) & jnp.isfinite(cost)).astype(jnp.float32)
    return moved, dict(critic_loss=loss, actor_loss=cost, entropy=entropy.mean(), finite=finite)


def act(
    settings: Settings, state: State, observation: Float[Array, "batch size"], key: PRNGKeyArray, deterministic: bool
):
    """Actions in the environment's units, and log π/p of them."""
    return policies.act(settings, state.actor, observation, key, deterministic)


def soft_value(settings: Settings, state: State, observation: Float[Array, "batch size"]) -> Float[Array, " batch"]:
    return state.critic(observation)[:, 0]


def q_values(settings: Settings, state: State, observation: Float[Array, "batch size"], action: Any) -> Array:
    """V + τ log π/p: of all discrete actions, or of actions in a box."""
    value, tau = soft_value(settings, state, observation), jnp.exp(state.log_temperature)
    if action is None:
        return value[:, None] + tau * policies.log_ratios(settings, state.actor, observation)
    return value + tau * policies.log_ratio(settings, state.actor, observation, action)


class SoftPG(Agent):
    """Entropy-regularised policy gradient, for discrete actions or a box; `nearopt.agents.soft_pg` is all of it.

    It learns from what its present policy does, and forgets it: give it many streams (`n_envs`).

    Args:
        env: a Gymnasium environment, a vector of them, an environment in JAX, or an id.
        seed: of the networks, the noise, the environment, everything.
        env_kwargs, n_envs: for an id: its arguments, and how many of it are stepped side by side.
        preset: "ppo": ten clipped epochs.
        settings: SB3's names and those of `soft_pg.Settings`.

    Raises:
        SettingError: a setting that does not exist, or out of range.

    >>> agent = SoftPG("CartPole-v1", seed=0, n_envs=4, n_steps=16, ent_coef=0.1, net_arch=[16]).learn(128)
    >>> agent.q_values([0.0, 0.0, 0.0, 0.0]).shape, agent.soft_value([[0.0, 0.0, 0.0, 0.0]]).shape
    ((2,), (1,))
    """

    method = Method("SoftPG", None, Settings, init, act, update, soft_value, q_values)
    presets = PRESETS
