"""The family of agents that a fit searches: from one vector of parameters to the problem that an agent solves.

    θ = (coefficients, log τ, κ, logit γ, log prior of every action but the first)

Of the dials only those that are fitted are in θ. Where rewards come in every scale, τ is not: only coefficients / τ
can be told from behaviour, so θ holds these, and `Family.public` divides them by their length.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nearopt.backup import Scalar
from nearopt.behaviour.likelihood import log_policy, policies, with_discount
from nearopt.behaviour.maxent import log_world
from nearopt.behaviour.rewards import Reward
from nearopt.mdp.blocks import Blocks
from nearopt.problem import Problem, make_problem


class Parameters(NamedTuple):
    """What θ stands for; `None` for a discount or prior that is the model's own or flat."""

    coef: Float[Array, " P"]
    temperature: Scalar
    optimism: Scalar
    discount: Scalar | None
    log_prior: Any


class Family(eqx.Module):
    """Rewards and dials; a dial that is None is fitted."""

    blocks: Blocks
    reward: Reward
    temperature: Any  # a traced scalar, the number 0, or None: fitted
    optimism: Any
    discount: Any
    log_prior: Float[Array, "S A"] | None
    fit_prior: bool = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)

    @property
    def scale_free(self) -> bool:
        """Whether τ is fitted together with a reward that comes in every scale."""
        return self.temperature is None and self.reward.homogeneous

    @property
    def dials(self) -> tuple[str, ...]:
        """The names of what follows the coefficients in θ, in order."""
        names = [] if self.temperature is not None or self.scale_free else ["temperature"]
        names += ["optimism"] if self.optimism is None else []
        names += ["discount"] if self.discount is None else []
        return (*names, *(f"log prior of action {a}" for a in range(1, self.actions) if self.fit_prior))

    @property
    def actions(self) -> int:
        return self.blocks.slot.shape[1]

    @property
    def start(self) -> np.ndarray:
        """Where a fit begins: τ = 1, κ = 0, γ = 0.9, every action alike."""
        begin = {"temperature": 0.0, "optimism": 0.0, "discount": np.log(9.0)}
        return np.concatenate([self.reward.start, [begin.get(name, 0.0) for name in self.dials]])

    def read(self, theta: Float[Array, " Q"]) -> Parameters:
        """The parameters at θ."""
        coef, rest = theta[: self.reward.size], dict(zip(self.dials, theta[self.reward.size :], strict=True))
        temperature = 1.0 if self.scale_free else self.temperature
        prior = self.log_prior
        if self.fit_prior:
            shift = theta[len(theta) - self.actions + 1 :]
            prior = jax.nn.log_softmax(jnp.concatenate([jnp.zeros(1), shift]))
            prior = jnp.broadcast_to(prior, self.blocks.slot.shape)
        return Parameters(
            coef,
            jnp.exp(rest["temperature"]) if temperature is None else temperature,
            rest["optimism"] if self.optimism is None else self.optimism,
            jax.nn.sigmoid(rest["discount"]) if self.discount is None else self.discount,
            prior,
        )

    def problem(self, theta: Float[Array, " Q"]) -> Problem:
        """What the agent at θ solves."""
        at = self.read(theta)
        return self.pose(at, at.temperature, at.optimism, at.log_prior)

    def pose(self, at: Parameters, temperature: Scalar, optimism: Scalar, log_prior: Any) -> Problem:
        """The problem of this reward and discount with these dials."""
        timed, reward = self.reward.time_varying, self.reward(at.coef)
        if timed and reward is not None:
            reward = reward[: self.steps]  # a shorter horizon has the first of them
        problem = make_problem(self.blocks, self.steps, reward, temperature, optimism, log_prior, timed=timed)
        return with_discount(problem, at.discount)

    def public(self, theta: Float[Array, " Q"]) -> Float[Array, " R"]:
        """Coefficients and fitted dials as a user reads them: τ, κ, γ and log priors of all actions."""
        at = self.read(theta)
        coef, parts = at.coef, []
        if self.scale_free:
            length = jnp.sqrt(coef @ coef)
            coef, parts = coef / jnp.where(length > 0, length, 1.0), [1 / length]
        elif self.temperature is None:
            parts = [at.temperature]
        parts += [at.optimism] if self.optimism is None else []
        parts += [at.discount] if self.discount is None else []
        prior = [at.log_prior[0]] if self.fit_prior else []
        return jnp.concatenate([coef, jnp.asarray(parts, float).reshape(-1), *prior])

    @property
    def public_names(self) -> tuple[str, ...]:
        """The names of what follows the coefficients in `public`."""
        names = ["temperature"] if self.temperature is None else []
        names += [name for name in self.dials if name in ("optimism", "discount")]
        return (*names, *(f"log prior of action {a}" for a in range(self.actions) if self.fit_prior))


@eqx.filter_jit
def explain(
    family: Family, theta: Float[Array, " Q"], cell: Any, length: Any, value: Float[Array, " n"] | None = None
) -> Float[Array, "G T D"]:
    """log π of every cell for the agent at θ, whose V (infinite horizon) may be known."""
    guess = jnp.zeros(family.blocks.size) if value is None else value
    return log_policy(family.problem(theta), cell, length, guess, value is not None).log_policy


@eqx.filter_jit
def tables(
    family: Family, theta: Float[Array, " Q"], value: Float[Array, " n"] | None = None
) -> tuple[Float[Array, "*T S A"], Any, Parameters, Array]:
    """Policy, reward, parameters and public parameters at θ."""
    at = family.read(theta)
    return policies(family.problem(theta), family.steps, value), family.reward(at.coef), at, family.public(theta)


@eqx.filter_jit
def explain_world(family: Family, theta: Float[Array, " Q"], branch: Any, length: Any) -> tuple[Array, Array]:
    """`log_world` of the agent at θ."""
    return log_world(family.problem(theta), branch, length)
