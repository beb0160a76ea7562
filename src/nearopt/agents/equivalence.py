"""Soft Q-learning is a policy gradient and a value gradient: the equivalence of the two, executable.

Tie the three functions together, Q = V + τ log π/p, and let y be any target of Q(s, a), held constant. With a ~ π,

    E (Q − y) ∇Q = E (V + τ log π/p − y) (∇V + τ ∇log π)                    where E ∇log π = 0, E log π/p ∇log π = ∇KL
                 = −τ { E ∇log π (y − V) − τ ∇KL(π‖p) } + (V − V̂) ∇V,       V̂ = E y − τ KL(π‖p)

    soft Q-learning = −τ × policy gradient + value gradient: an actor-critic whose value coefficient is 1/τ.

(Schulman, Chen & Abbeel 2017, arXiv 1704.06440, sections 3 and 4; after Levine 2018, arXiv 1805.00909.) The entropy is
inside the return: y holds r − τ log π/p of later steps, and the divergence of this step has a gradient of its own. It
holds for every single action too, with y − τ log π/p − V as the advantage and y − τ log π/p as the value's target.

What is left between the two algorithms is what follows: soft Q-learning's target has the softmax over all actions a',
the policy gradient's the action taken. With π̄ ∝ p exp(Q̄/τ) and V̄ those of the Q̄ that targets are made of,

    Q̄(s', a') − τ log π/p(a') = V̄(s') − τ log π/π̄(a'),       with the mean V̄ − τ KL(π‖π̄) over a' ~ π:

the same where π is Q̄'s own, on average less where Q̄ lags behind.

A model says V and π of observations for parameters of any kind: tables, networks that share or do not, or one Q network
whose V and π are the backup's, as in `soft_dqn.policy`. The action prior is the model's. Compute in float64, within
`jax.enable_x64(True)`, to see the identity to rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from nearopt.agents.distributions import Tilted, at, tilted
from nearopt.agents.errors import SettingError

type Model = Callable[[Any, Any], Tilted]  # parameters, observation (batch, ...) → V and π there


class Experience(NamedTuple):
    """Where, what, and what came of it. Without actions, each is there with its probability and has a target."""

    observation: Any  # (batch, ...)
    target: Any  # y: (batch,), or (batch, n) without actions
    action: Any = None  # (batch,) int


class Steps(NamedTuple):
    """What was met after the current action."""

    reward: Any  # (batch,)
    terminated: Any  # (batch,) bool, or 0 and 1
    next_action: Any  # (batch,) int, drawn from the policy


class Terms(NamedTuple):
    """Three gradients, each of the shape of the parameters: soft_q = −τ policy + value."""

    soft_q: Any
    policy: Any  # uphill, as in textbooks; the others are slopes of losses
    value: Any


def tied(value: Float[Array, " batch"], logits: Float[Array, "batch n"], log_prior: Any = 0.0) -> Tilted:
    """V as given and π ∝ p exp(logits): what a model of tables or networks returns. log_prior: (n,) or (batch, n)."""
    return tilted(logits, jnp.broadcast_to(log_prior, logits.shape), 1.0)._replace(value=value)


# ---------------------------------------------------------------- targets
def targets(
    following: str, steps: Steps, lagging: Tilted, acting: Tilted, temperature: Array | float, discount: float
) -> Float[Array, " batch"]:
    """y of one-step transitions: r + γ (1 − terminated) V̂(s').

    following: the one switch between the two algorithms. "softmax" has V̂ = τ log Σ p exp(Q̄/τ), over all actions, soft
        Q-learning; "taken" has V̂ = Q̄(s', a') − τ log π(a'|s')/p of the action taken, the policy gradient.
    lagging: V̄ and π̄ at s' of Q̄: a model's, of older parameters or the same, or `tilted(q, log_prior, temperature)`.
    acting: V and π at s' of the policy that chose a'.

    Raises:
        SettingError: `following` is neither.
    """
    if following not in ("softmax", "taken"):
        raise SettingError(f"following={following!r} is no kind of target", "give 'softmax' or 'taken'")
    value = lagging.value
    if following == "taken":
        value = value - temperature * at(acting.log_ratio - lagging.log_ratio, steps.next_action)
    return steps.reward + discount * (1.0 - steps.terminated) * value


# ---------------------------------------------------------------- the three losses
def soft_q_loss(row: Tilted, experience: Experience, temperature: Array | float) -> Float[Array, " batch"]:
    """E ½ (Q(s, a) − y)², Q = V + τ log π/p; where the actions come from is not differentiated."""
    q = row.value[:, None] + temperature * row.log_ratio
    return 0.5 * (weight(row, experience) * (q - spread(experience)) ** 2).sum(axis=1)


def policy_objective(row: Tilted, experience: Experience, temperature: Array | float) -> Float[Array, " batch"]:
    """E log π(a|s) (y − V) − τ KL(π‖p), whose gradient is the policy gradient.

    Of an action taken the divergence is log π/p of that action, and goes into the advantage: its gradient by the score.
    """
    score = weight(row, experience) * row.log_ratio  # ∇log π is ∇log π/p
    if experience.action is None:
        divergence = (row.probability * row.log_ratio).sum(axis=1)
    else:
        divergence = (score * stop_gradient(row.log_ratio)).sum(axis=1)
    advantage = stop_gradient(spread(experience) - row.value[:, None])
    return (score * advantage).sum(axis=1) - temperature * divergence


def value_loss(row: Tilted, experience: Experience, temperature: Array | float) -> Float[Array, " batch"]:
    """½ (V − V̂)², V̂ = E [y − τ log π/p] held constant."""
    earned = weight(row, experience) * (spread(experience) - temperature * row.log_ratio)
    return 0.5 * (row.value - stop_gradient(earned.sum(axis=1))) ** 2


def weight(row: Tilted, experience: Experience) -> Float[Array, "batch n"]:
    """How much each action counts: 1 for the one taken; or π, held constant."""
    if experience.action is None:
        return stop_gradient(row.probability)
    return jax.nn.one_hot(experience.action, row.probability.shape[1], dtype=row.probability.dtype)


def spread(experience: Experience) -> Float[Array, "batch n_or_1"]:
    """Targets beside actions: one for each, or the one of the action taken."""
    target = jnp.asarray(experience.target)
    if target.ndim != (2 if experience.action is None else 1):
        raise SettingError(
            f"targets of shape {target.shape} {'without' if experience.action is None else 'with'} actions",
            "give (batch,) with actions, (batch, n) without",
        )
    return target if target.ndim == 2 else target[:, None]


# ---------------------------------------------------------------- their gradients
def soft_q_gradient(model: Model, parameters: Any, experience: Experience, temperature: Array | float) -> Any:
    """∇ mean ½ (Q − y)²."""
    return gradient(soft_q_loss, model, parameters, experience, temperature)


def policy_gradient(model: Model, parameters: Any, experience: Experience, temperature: Array | float) -> Any:
    """mean [∇log π (y − V)] − τ ∇ KL(π‖p): uphill."""
    return gradient(policy_objective, model, parameters, experience, temperature)


def value_gradient(model: Model, parameters: Any, experience: Experience, temperature: Array | float) -> Any:
    """∇ mean ½ (V − V̂)²."""
    return gradient(value_loss, model, parameters, experience, temperature)


def gradient(loss: Callable, model: Model, parameters: Any, experience: Experience, temperature: Array | float) -> Any:
    """Of a loss's mean over the batch, with respect to the parameters."""
    mean = lambda parameters: loss(model(parameters, experience.observation), experience, temperature).mean()
    return jax.grad(mean)(parameters)


def terms(model: Model, parameters: Any, experience: Experience, temperature: Array | float) -> Terms:
    """The three gradients at some parameters, each computed from its own loss.

    >>> import numpy as np
    >>> theta = dict(value=np.array([0.5, -1.0]), logits=np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]))
    >>> model = lambda theta, state: tied(theta["value"][state], theta["logits"][state], np.log([0.5, 0.3, 0.2]))
    >>> experience = Experience(np.array([0, 1, 1]), np.array([1.0, -2.0, 3.0]), action=np.array([2, 0, 1]))
    >>> with jax.enable_x64(True):
    ...     parts = terms(model, theta, experience, temperature=0.1)
    ...     difference(parts, temperature=0.1) < 1e-15
    True
    """
    gradients = (soft_q_gradient, policy_gradient, value_gradient)
    return Terms(*(of(model, parameters, experience, temperature) for of in gradients))


def difference(parts: Terms, temperature: Array | float) -> float:
    """The largest |soft_q − (−τ policy + value)| over all parameters: rounding, if all is well."""
    gap = lambda soft_q, policy, value: jnp.abs(soft_q + temperature * policy - value).max()
    return float(jnp.stack(jax.tree.leaves(jax.tree.map(gap, *parts))).max())


# ---------------------------------------------------------------- path consistency
def residual(
    value: Float[Array, "*batch steps_and_1"],
    log_ratio: Float[Array, "*batch steps"],
    reward: Float[Array, "*batch steps"],
    discount: float,
    temperature: Array | float,
) -> Float[Array, "*batch"]:
    """V(s_t) − γ^d V(s_t+d) − Σ_i<d γ^i (r_t+i − τ log π/p(a_t+i|s_t+i)) of paths of d steps.

    At the solution it is 0 whatever chose the actions: on every path where moves are certain, in the mean over next
    states elsewhere (Nachum et al. 2017, arXiv 1702.08892). A terminal state may only be the last, with value 0.

    >>> float(residual(jnp.array([1.0, 2.0]), jnp.array([-0.5]), jnp.array([-1.0]), discount=1.0, temperature=2.0))
    -1.0
    """
    powers = discount ** jnp.arange(log_ratio.shape[-1])
    earned = (powers * (reward - temperature * log_ratio)).sum(axis=-1)
    return value[..., 0] - discount ** log_ratio.shape[-1] * value[..., -1] - earned
