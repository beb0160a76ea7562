"""Soft Q-learning for discrete actions: the soft Bellman backup, sampled.

    y = r + γ (1 − terminated) V(s'),   V(s) = τ log Σ_a p(a|s) exp(Q'(s, a)/τ)     exactly, not by samples
    π(a|s) = p(a|s) exp((Q(s, a) − V(s))/τ)

(Haarnoja et al. 2017, arXiv 1702.08165, eqs. 4 to 6; Schulman et al. 2017, arXiv 1704.06440.) `prior=None` is flat
(rewards plus entropy), `prior="uniform"` normalised (rewards less the KL to uniform): they differ by τ log n a step.

Windows of n steps follow path consistency (Nachum et al. 2017, arXiv 1702.08892, eq. 11):
y = r_1 + Σ_{i>1} γ^{i−1} (r_i − τ log π(a_i|s_i)/p) + γ^m V(s_{m+1}). Since −τ log π/p is V − Q, the mean from every
later step on is V(s_i) at the solution, whatever chose a_i and wherever chance led: right off-policy without importance
weights. Away from the solution it need not contract as the backup of one step does: take n small.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.agents.agent import Agent, Method
from nearopt.agents.distributions import Tilted, at, draw, tilted
from nearopt.agents.networks import MLP, descend, moments_of, polyak
from nearopt.agents.replay import Batch, Later
from nearopt.agents.settings import OffPolicy, Shared
from nearopt.agents.task import discrete_log_prior
from nearopt.agents.temperature import temperature_loss


@dataclass(frozen=True)
class Settings(OffPolicy):
    """Soft Q-learning's settings.

    ent_coef: the temperature, a number unless told "auto".
    target_entropy: for "auto", in nats relative to the prior; "auto" is 0.98 of the uniform policy's entropy.
    double: the next action's distribution is the online network's, its values are the target network's.
    n_steps: the length of windows.
    """

    ent_coef: str | float = 0.1
    double: bool = False
    n_steps: int = 1

    @property
    def window(self) -> int:
        return self.n_steps

    @property
    def entropy_target(self) -> float:
        return discrete_target(self)

    @property
    def greatest_entropy(self) -> float:
        return discrete_maximum(self)


def discrete_target(settings: Shared) -> float:
    """A number; or 0.98 log n of Christodoulou 2019 (arXiv 1910.07207), moved to where the prior has its maximum.

    n counts the actions that the prior allows.
    """
    if not isinstance(settings.target_entropy, str):
        return float(settings.target_entropy)
    share = 0.49 if settings.target_entropy == "half" else 0.98
    row, greatest = settings.prior, discrete_maximum(settings)
    count = sum(p > -np.inf for p in row) if isinstance(row, tuple) else settings.task.num_actions
    return greatest + (share - 1) * float(np.log(count))


def discrete_maximum(settings: Shared) -> float:
    """The greatest relative entropy −Σ π log π/p there is, log Σ p: that of π ∝ p. A function is taken to sum to 1."""
    row = settings.prior
    if isinstance(row, tuple):
        return float(np.logaddexp.reduce(row))
    return float(np.log(settings.task.num_actions)) if row is None else 0.0


class State(eqx.Module):
    """All that learning changes."""

    critic: MLP
    target: MLP
    log_temperature: Float[Array, ""]
    critic_moments: optax.OptState
    temperature_moments: optax.OptState
    updates: Int[Array, ""]


def init(settings: Settings, key: PRNGKeyArray) -> State:
    task = settings.task
    critic = MLP.init(task.observation_size, settings.net_arch, task.num_actions, settings.activation, key)
    log_temperature, adam = jnp.log(jnp.float32(settings.initial_temperature)), optax.adam(settings.learning_rate)
    moments = (moments_of(adam, critic), moments_of(adam, log_temperature))
    return State(critic, critic, log_temperature, *moments, jnp.int32(0))


# ---------------------------------------------------------------- the functions
def policy(settings: Settings, critic: MLP, temperature: Array, observation: Float[Array, "batch size"]) -> Tilted:
    """V and π of the Q function that a network is."""
    return tilted(critic(observation), discrete_log_prior(settings.prior, settings.task, observation), temperature)


def next_value(settings: Settings, state: State, observation: Float[Array, "batch size"]) -> Float[Array, " batch"]:
    """V(s'): of the target network; with `double` the value there of the online network's policy."""
    temperature = jnp.exp(state.log_temperature)
    if not settings.double:
        return policy(settings, state.target, temperature, observation).value
    online = policy(settings, state.critic, temperature, observation)
    return (online.probability * (state.target(observation) - temperature * online.log_ratio)).sum(axis=1)


def critic_target(settings: Settings, state: State, batch: Batch) -> Float[Array, " batch"]:
    """y, over windows as long as they go."""
    value = (1.0 - batch.terminated) * next_value(settings, state, batch.next_observation)
    if batch.later is None:
        return batch.reward + settings.gamma * value
    powers = settings.gamma ** jnp.arange(1, settings.n_steps)
    earned = jnp.where(batch.later.on, powers * path_reward(settings, state, batch.later), 0.0).sum(axis=1)
    return batch.reward + earned + settings.gamma ** (1 + batch.later.on.sum(axis=1)) * value


def path_reward(settings: Settings, state: State, later: Later) -> Float[Array, "batch steps"]:
    """r − τ log π(a|s)/p of the later steps of windows."""
    network = state.critic if settings.double else state.target
    temperature = jnp.exp(state.log_temperature)
    ratio = jax.vmap(lambda observation: policy(settings, network, temperature, observation).log_ratio)(
        later.observation
    )
    return later.reward - temperature * at(ratio, later.action)


def critic_loss(critic: MLP, batch: Batch, target: Float[Array, " batch"]) -> Float[Array, ""]:
    """½ (Q(s, a) − y)², averaged."""
    return 0.5 * ((at(critic(batch.observation), batch.action) - target) ** 2).mean()


# ---------------------------------------------------------------- learning
def update(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
    """One gradient step; nothing in it is drawn, so `key` is not used."""
    adam = optax.adam(settings.learning_rate)
    target = critic_target(settings, state, batch)
    loss, slope = jax.value_and_grad(critic_loss)(state.critic, batch, target)
    critic, moments = descend(adam, slope, state.critic_moments, state.critic)
    row = policy(settings, critic, jnp.exp(state.log_temperature), batch.observation)
    entropy = -(row.probability * row.log_ratio).sum(axis=1)
    log_temperature, temperature_moments = state.log_temperature, state.temperature_moments
    if settings.tuned:
        slope = jax.grad(temperature_loss)(log_temperature, entropy, settings.entropy_target, "temperature")
        log_temperature, temperature_moments = descend(adam, slope, temperature_moments, log_temperature)
    tracked = polyak(state.target, critic, settings.tau)
    moved = State(critic, tracked, log_temperature, moments, temperature_moments, state.updates + 1)
    finite = jnp.isfinite(loss).astype(jnp.float32)
    return moved, dict(critic_loss=loss, q=target.mean(), entropy=entropy.mean(), finite=finite)


def act(
    settings: Settings, state: State, observation: Float[Array, "batch size"], key: PRNGKeyArray, deterministic: bool
):
    """Actions, and log π/p of them."""
    row = policy(settings, state.critic, jnp.exp(state.log_temperature), observation)
    return draw(row, discrete_log_prior(settings.prior, settings.task, observation), key, deterministic)


def soft_value(settings: Settings, state: State, observation: Float[Array, "batch size"]) -> Float[Array, " batch"]:
    return policy(settings, state.critic, jnp.exp(state.log_temperature), observation).value


def q_values(settings: Settings, state: State, observation: Float[Array, "batch size"], action: None) -> Array:
    return state.critic(observation)


class SoftDQN(Agent):
    """Soft Q-learning for discrete actions; `nearopt.agents.soft_dqn` is the whole algorithm.

    Args:
        env: a Gymnasium environment, a vector of them, an environment in JAX, or an id.
        seed: of the networks, the noise, the environment, everything.
        env_kwargs, n_envs: for an id: its arguments, and how many of it are stepped side by side.
        settings: SB3's names and those of `soft_dqn.Settings`; `ent_coef` is the temperature.

    Raises:
        SettingError: a setting that does not exist, or out of range.
        WrongAgentError: the actions are no discrete ones.

    >>> agent = SoftDQN("CartPole-v1", seed=0, ent_coef=0.5, learning_starts=50, batch_size=32)
    >>> agent.learn(100).q_values([0.0, 0.0, 0.0, 0.0]).shape
    (2,)
    """

    method = Method("SoftDQN", True, Settings, init, act, update, soft_value, q_values)
