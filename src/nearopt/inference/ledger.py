"""The optimism ledger: what exact inference believes beyond the variational answer, entry by entry (design §1).

    log p(O_1:T) = ELBO + KL(p(s_1) ‖ p(s_1|O)) + Σ_t E KL(q(a_t|s_t) ‖ p(a_t|s_t,O))
                        + Σ_t E KL(p(s_t+1|s_t,a_t) ‖ p(s_t+1|s_t,a_t,O))

E is under the variational process: the true first state and dynamics, with the variational policy q. Each divergence is
summed on its own, factor by factor against the exact posterior's, in one pass forward.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nearopt.backup import is_one
from nearopt.checks import check_dials
from nearopt.inference.luck import Luck, luck_at
from nearopt.inference.messages import sweep, targets
from nearopt.inference.posterior import Posterior, infer
from nearopt.mdp.blocks import concatenate
from nearopt.mdp.errors import CountError, ImpossibleEvidenceError, TemperatureError
from nearopt.mdp.model import MDP
from nearopt.problem import Problem, safe_log


@dataclass(frozen=True, eq=False)
class Ledger:
    """The answer of `ledger`: log_evidence = elbo + kl_initial + kl_policy + kl_dynamics, in nats, and four returns.

    kl_initial, kl_policy, kl_dynamics: at least 0, each the expectation under the variational process of that factor of
    its own against the exact posterior's. With discount γ < 1 the ending coin, drawn together with the next state,
    belongs to the dynamics. With the flat prior log_evidence is the log partition, which is not normalised.

    Returns are expected sums of reward over the horizon, in units of reward; γ ends episodes and weighs nothing.
    believed_return: of the exact posterior, in the tilted world that it believes in. actual_return: of its policy in
    the true world. variational_return: of the variational policy. optimal_return: the best possible, of hard control
    without a prior. So actual_return and variational_return are at most optimal_return.

    exact, variational, optimal: the three posteriors. Where no policy is sure to avoid rewards of −inf, elbo is −inf
    and a divergence +inf, and so are the returns of a policy that meets them (−inf).
    """

    log_evidence: float
    elbo: float
    kl_initial: float
    kl_policy: float
    kl_dynamics: float
    believed_return: float
    actual_return: float
    variational_return: float
    optimal_return: float
    exact: Posterior = field(repr=False)
    variational: Posterior = field(repr=False)
    optimal: Posterior = field(repr=False)

    def luck(self, n: int = 10) -> list[Luck]:
        """The n outcomes that gained most: by expected visits of the exact posterior × nats, the largest first.

        One entry per step, state, action and next state (−1 where γ < 1 ends the episode), none that lost. All nats by
        branch, losses included: `Posterior.dynamics_gain`. Raises `CountError` for n below 1.

        >>> import nearopt as no
        >>> led = no.ledger(no.MDP.from_grid("S.G", slip=0.2), 3, prior="uniform")
        >>> best = led.luck(1)[0]
        >>> (best.t, best.state, best.action, best.next_state), round(best.true, 2), round(best.believed, 2)
        ((1, 1, 1, 2), 0.8, 0.92)
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise CountError(f"the number of branches is {n!r}", "give a whole number, at least 1")
        found = [luck for t in range(self.exact.horizon) for luck in luck_at(self.exact, t, n)]
        return sorted(found, key=lambda luck: -luck.visits * luck.nats)[:n]


def ledger(mdp: MDP, horizon: int, *, temperature: float = 1.0, prior: Any = None) -> Ledger:
    """Exact and variational inference side by side, the divergences between them, and what optimism costs.

    temperature: τ > 0 in units of reward. prior: None (flat), "uniform", or an array (S, A) or (T, S, A), as in
    `infer`. Keeps three arrays (T+1, S) of messages, and nothing with an action axis.

    Raises `TemperatureError` at τ = 0, where there is no evidence to split; `ImpossibleEvidenceError` where no
    behaviour can succeed; and what `infer` raises. Source: design §1; Levine, "Reinforcement Learning and Control as
    Probabilistic Inference" (2018), section 3.

    >>> import nearopt as no
    >>> led = no.ledger(no.MDP.from_grid("S.G", slip=0.2), 3, prior="uniform")
    >>> round(led.log_evidence - led.elbo, 3), round(led.kl_initial + led.kl_policy + led.kl_dynamics, 3)
    (0.02, 0.02)
    >>> led.believed_return > led.actual_return
    True
    """
    if not isinstance(temperature, bool) and temperature == 0:
        raise TemperatureError(
            "the temperature is 0, where there is no evidence to split",
            "give a number above 0; infer(..., temperature=0, optimism=0) is hard control",
        )
    temperature, _ = check_dials(temperature, 1.0)
    exact, variational = (infer(mdp, horizon, temperature=temperature, optimism=k, prior=prior) for k in (1.0, 0.0))
    if exact.log_partition == -np.inf:
        raise ImpossibleEvidenceError(
            f"no behaviour of {exact.horizon} steps succeeds (log_evidence is -inf), so there is nothing to split",
            "lengthen the horizon, or make the rewards that forbid it finite",
        )
    optimal = infer(mdp, horizon, temperature=0.0, optimism=0.0)
    best = np.where(mdp.initial > 0, optimal.value[0], 0.0)
    with jax.enable_x64(True):
        values = exact.messages[1:], variational.messages[1:], exact.problem.timed()
        step = eqx.Partial(forward_step, variational.problem)
        first = start(exact.problem, exact.messages[0])
        sums = sweep(step, exact.problem, first, values, exact.horizon, keep=False).sums
        return Ledger(
            log_evidence=exact.log_partition,
            elbo=variational.elbo,
            **{name: float(value) for name, value in sums._asdict().items()},
            optimal_return=float(mdp.initial @ best),
            exact=exact,
            variational=variational,
            optimal=optimal,
        )


# ---------------------------------------------------------------- one pass forward
class Sums(NamedTuple):
    """What has been added up so far; names as in `Ledger`."""

    kl_initial: Float[Array, ""]
    kl_policy: Float[Array, ""]
    kl_dynamics: Float[Array, ""]
    believed_return: Float[Array, ""]
    actual_return: Float[Array, ""]
    variational_return: Float[Array, ""]


class Forward(NamedTuple):
    """Probabilities of the states that are not terminal at one step, and the sums of the steps before it."""

    believed: Float[Array, " n"]  # the exact posterior
    actual: Float[Array, " n"]  # its policy in the true world
    variational: Float[Array, " n"]  # q
    sums: Sums


@eqx.filter_jit
def start(exact: Problem, value: Float[Array, " n"]) -> Forward:
    """First states, and their divergence."""
    known = exact.blocks.initial
    log_known = safe_log(known)
    live = (known > 0) & (value > -jnp.inf)
    log_weight = jnp.where(live, log_known + jnp.where(live, value, 0.0) / exact.temperature, -jnp.inf)
    log_believed = log_weight - jax.scipy.special.logsumexp(log_weight)
    zero = jnp.zeros(())
    sums = Sums(divergence(log_known, log_believed).sum(), zero, zero, zero, zero, zero)
    return Forward(jnp.exp(log_believed), known, known, sums)


@eqx.filter_jit
def forward_step(variational: Problem, exact: Problem, carry: Forward, now: tuple) -> Forward:
    """Moves the three processes on by one step, and adds what it costs and pays."""
    next_exact, next_value, timed = now
    blocks, reward = exact.blocks, exact.at(timed)[0]
    e, v = exact.step(next_exact, timed), variational.step(next_value, timed)
    log_pi, log_rho = exact.log_policy(e, e.value, timed), variational.log_policy(v, v.value, timed)
    lucky, sums = exact.transitions(e, next_exact), carry.sums
    dynamics = dynamics_divergence(exact, e.q, exact.log_transitions(e, next_exact, timed), reward)
    masses = zip(*(blocks.split(m) for m in carry[:3]), strict=True)
    flows: tuple[list[Array], ...] = ([], [], [])
    for i, ((believed, actual, honest), block) in enumerate(zip(masses, blocks.blocks, strict=True)):
        pi, rho, p = e.policy[i], v.policy[i], block.probability
        believed, actual, acting = believed * pi, actual * pi, honest * rho
        kl = jnp.where(block.available, divergence(log_rho[i], log_pi[i]), 0.0).sum(axis=0)
        sums = Sums(
            sums.kl_initial,
            sums.kl_policy + expectation(honest, kl),
            sums.kl_dynamics + expectation(acting, dynamics[i]),
            sums.believed_return + expectation(believed * e.branches[i], reward[i]),
            sums.actual_return + expectation(actual * p, reward[i]),
            sums.variational_return + expectation(acting * p, reward[i]),
        )
        onward = blocks.discount * p
        for flow, mass, branches in zip(flows, (believed, actual, acting), (lucky[i], onward, onward), strict=True):
            flow.append(mass * branches)
    where = targets(blocks)
    still = jnp.zeros(blocks.size)  # what has reached a terminal state adds nothing any more
    moved = [still.at[where].add(concatenate(flow), mode="promise_in_bounds") for flow in flows]
    return Forward(moved[0], moved[1], moved[2], sums)


def dynamics_divergence(exact: Problem, q: list, log_branches: list, reward: tuple) -> list[Float[Array, "J n"]]:
    """KL of the true draw of a branch and the ending coin, against the exact posterior's, for every choice.

    The posterior of going on along a branch is γ p exp((r + V − Q)/τ), that of ending on it (1−γ) p exp((r − Q)/τ).
    """
    blocks, out = exact.blocks, []
    for block, q_b, log_on, r in zip(blocks.blocks, q, log_branches, reward, strict=True):
        log_p = safe_log(block.probability)
        gamma = jnp.asarray(blocks.discount)
        kl = divergence(log_p + safe_log(gamma), log_on)
        if not is_one(blocks.discount):
            possible = q_b > -jnp.inf  # else nothing is conditioned on
            gain = jnp.where(possible, r - jnp.where(possible, q_b, 0.0), 0.0) / exact.temperature
            log_end = log_p + safe_log(1 - gamma)
            kl = kl + divergence(log_end, log_end + gain)
        out.append(kl.sum(axis=0))
    return out


def divergence(log_q: Float[Array, "..."], log_p: Float[Array, "..."]) -> Float[Array, "..."]:
    """q log(q/p) − q + p ≥ 0, which sums to KL(q ‖ p): no term is negative, so nothing cancels."""
    q, p = jnp.exp(log_q), jnp.exp(log_p)
    h = jnp.where(q > 0, log_p - jnp.where(q > 0, log_q, 0.0), 0.0)
    return jnp.where(q > 0, jnp.where(h < 1, q * (jnp.expm1(jnp.minimum(h, 1.0)) - h), p - q - q * h), p)


def expectation(mass: Array, x: Array) -> Float[Array, ""]:
    """Σ mass · x, where no mass makes an infinite x count for nothing."""
    return jnp.where(mass > 0, mass * jnp.where(mass > 0, x, 0.0), 0.0).sum()
