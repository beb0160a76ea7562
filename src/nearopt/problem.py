"""A task with its dials, in block order: what the recursions of inference and planning both work on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nearopt.backup import Scalar, Step, backup, going_on, is_one, is_zero, scale_of
from nearopt.mdp.blocks import Blocks
from nearopt.mdp.errors import AmbiguousRewardError, FinalValueError, PriorShapeError


class Problem(eqx.Module):
    """A task with its dials. `reward` and `log_prior` are per block; with a leading time axis where `timed_reward` and
    `timed_prior` say so. `temperature` and `optimism` are traced scalars, or the number 0.
    """

    blocks: Blocks
    reward: tuple[Float[Array, "*T R J n"], ...]
    log_prior: tuple[Float[Array, "*T J n"], ...]
    final_value: Float[Array, " n"]
    temperature: Scalar
    optimism: Scalar
    timed_reward: bool = eqx.field(static=True, default=False)
    timed_prior: bool = eqx.field(static=True, default=False)

    @property
    def scale(self) -> Scalar:
        """θ = κ/τ."""
        return scale_of(self.temperature, self.optimism)

    def timed(self) -> tuple:
        """What varies over time, for `lax.scan`."""
        return self.reward if self.timed_reward else None, self.log_prior if self.timed_prior else None

    def at(self, timed: tuple) -> tuple:
        """Reward and log prior of one step."""
        reward, log_prior = timed
        return self.reward if reward is None else reward, self.log_prior if log_prior is None else log_prior

    def timed_at(self, t: int | Array) -> tuple:
        """What varies over time, at step t."""
        return jax.tree.map(lambda x: x[t], self.timed())

    def step(self, next_value: Float[Array, " n"], timed: tuple) -> Step:
        """One backup, V_{t+1} → Q_t, π_t, V_t."""
        reward, log_prior = self.at(timed)
        dials = (self.temperature, self.optimism, self.blocks.discount)
        return backup(self.blocks, next_value, reward, log_prior, *dials)

    def transitions(self, step: Step, next_value: Float[Array, " n"]) -> list[Float[Array, "K J n"]]:
        """Probability, given success, of taking each branch and going on: c_κ(s,a) p_κ(s'|s,a), block by block.

        Where success is impossible, Q = −inf, there is nothing to condition on: γ p(s'|s,a).
        """
        discount = self.blocks.discount
        if is_zero(self.scale) or is_one(discount):
            return [p * discount for p in step.branches]
        go_on = going_on(next_value, discount, self.scale)
        parts = zip(self.blocks.blocks, step.branches, step.q, strict=True)
        return [p * jnp.where(q > -jnp.inf, go_on[b.next_state], discount) for b, p, q in parts]

    def log_policy(self, step: Step, value: Float[Array, " n"], timed: tuple) -> list[Float[Array, "J n"]]:
        """log π = log p(a|s) + (Q−V)/τ, which stays exact where π underflows."""
        parts = zip(step.q, step.policy, self.at(timed)[1], self.blocks.split(value), strict=True)
        if is_zero(self.temperature):
            return [safe_log(policy) for _, policy, _, _ in parts]
        logs = []
        for q, policy, prior, v in parts:
            live = (q > -jnp.inf) & (v > -jnp.inf)  # −inf/τ would have the gradient NaN
            soft = prior + jnp.where(live, q - jnp.where(v > -jnp.inf, v, 0.0), 0.0) / self.temperature
            logs.append(jnp.where(v > -jnp.inf, jnp.where(live, soft, -jnp.inf), safe_log(policy)))
        return logs

    def log_transitions(self, step: Step, next_value: Float[Array, " n"], timed: tuple) -> list[Float[Array, "K J n"]]:
        """log of γ p(s'|s,a) exp(θ (r + V(s') − Q)), the logarithm of `transitions`."""
        logs = []
        for block, q, r, p in zip(
            self.blocks.blocks, step.q, self.at(timed)[0], self.transitions(step, next_value), strict=True
        ):
            known = safe_log(block.probability) + jnp.log(jnp.asarray(self.blocks.discount))
            if not is_zero(self.scale):
                gain = r + next_value[block.next_state] - jnp.where(q > -jnp.inf, q, 0.0)
                known = jnp.where(q > -jnp.inf, known + self.scale * gain, safe_log(p))
            logs.append(known)
        return logs


def safe_log(p: Array) -> Array:
    """log p with log 0 = −inf and gradient 0 there."""
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)


def make_problem(
    blocks: Blocks,
    horizon: int | None,
    reward: Any = None,
    temperature: Scalar = 1.0,
    optimism: Scalar = 1.0,
    log_prior: Any = None,
    final_value: Any = None,
    timed: bool | None = None,
) -> Problem:
    """The task in block order; horizon None: the same at every step, for ever. Call it under 64-bit JAX.

    timed: whether the reward has a leading axis of time, where its shape is not to tell.
    """
    shape = blocks.slot.shape
    rewards, timed_reward = reward_blocks(blocks, horizon, reward, timed)
    timed_prior = horizon is not None and log_prior is not None and jnp.ndim(log_prior) == 3
    if log_prior is not None and jnp.shape(log_prior) != ((horizon, *shape) if timed_prior else shape):
        raise PriorShapeError(
            f"the prior has shape {jnp.shape(log_prior)}", f"give one number per state and action, {shape}"
        )
    if final_value is not None and jnp.shape(final_value) != shape[:1]:
        raise FinalValueError(
            f"final_value has shape {jnp.shape(final_value)}", f"give one number per state, {shape[:1]}"
        )
    return Problem(
        blocks=blocks,
        reward=rewards,
        log_prior=prior_blocks(blocks, log_prior, timed_prior),
        final_value=final_blocks(blocks, final_value),
        temperature=0.0 if is_zero(temperature) else jnp.asarray(temperature, float),
        optimism=0.0 if is_zero(optimism) else jnp.asarray(optimism, float),
        timed_reward=timed_reward,
        timed_prior=timed_prior,
    )


def reward_blocks(
    layout: Blocks, horizon: int | None, reward: Any, known: bool | None = None
) -> tuple[tuple[Array, ...], bool]:
    """The reward per block and whether it varies over time, which its shape tells where it is not known."""
    blocks = layout.blocks
    if reward is None:
        return tuple(b.reward for b in blocks), False
    reward = jnp.asarray(reward, float)
    states, actions = layout.slot.shape
    branch, timed = (states, actions, states), (horizon, states, actions)
    if known is None and reward.shape == branch == timed:
        raise AmbiguousRewardError(
            f"reward of shape {branch} may be (S, A, S) or (T, S, A)", "add the missing axis: (T, S, A, S)"
        )
    if reward.shape == (states,):
        reward = jnp.broadcast_to(reward[:, None], (states, actions))
    per_choice = lambda r: tuple(x[None] for x in layout.from_actions(r))
    per_branch = lambda r: tuple(r[b.state, b.action, public[b.next_state]] for b in blocks)
    public = jnp.zeros(layout.size, int).at[layout.rank].set(jnp.arange(states))
    if known is not None:
        read = per_branch if reward.ndim == 3 + known else per_choice
        return (jax.vmap(read) if known else read)(reward), known
    readers = {
        (states, actions): (per_choice, False),
        timed: (jax.vmap(per_choice), True),
        branch: (per_branch, False),
        (horizon, *branch): (jax.vmap(per_branch), True),
    }
    if reward.shape not in readers:
        raise AmbiguousRewardError(
            f"reward has shape {reward.shape} for {states} states, {actions} actions and horizon {horizon}",
            "give (S,), (S, A), (T, S, A), (S, A, S) or (T, S, A, S)",
        )
    read, is_timed = readers[reward.shape]
    return read(reward), is_timed


def prior_blocks(layout: Blocks, log_prior: Any, timed: bool) -> tuple[Array, ...]:
    """log p(a|s) per block: 0 for the flat prior, −inf where there is no choice."""
    blocks = layout.blocks
    flat = tuple(jnp.where(b.available, 0.0, -jnp.inf).astype(float) for b in blocks)
    if log_prior is None:
        return flat
    read = lambda p: tuple(
        jnp.where(b.available, x, -jnp.inf) for b, x in zip(blocks, layout.from_actions(p), strict=True)
    )
    return (jax.vmap(read) if timed else read)(jnp.asarray(log_prior, float))


def final_blocks(layout: Blocks, final_value: Any) -> Array:
    """V_{T+1} in block order; 0 in terminal states."""
    if final_value is None:
        return jnp.zeros(layout.size)
    decides = jnp.concatenate([b.available.any(axis=0) for b in layout.blocks])
    return jnp.where(decides, layout.from_states(jnp.asarray(final_value, float)), 0.0)
