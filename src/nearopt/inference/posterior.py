"""Exact inference as a user meets it: NumPy in, NumPy out, everything checked, nothing large kept.

`infer` passes the backward messages and keeps them, (T+1) × S numbers. Forward messages and marginals are computed
once, when first asked for. What has an action axis, (T, S, A), is recomputed on every access, and `q_at`,
`policy_at`, `transition` and `continuation` give a single step of it.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
import scipy.sparse

from nearopt.checks import check_dials, check_final_value, check_horizon, check_model, check_prior, check_reward
from nearopt.functional import over_time
from nearopt.inference.messages import Filtered, backward, filtered, first_state, smoothed
from nearopt.mdp.blocks import concatenate
from nearopt.mdp.errors import LossySaveError, OptimismError, TimeError
from nearopt.mdp.model import MDP
from nearopt.problem import Problem, make_problem

if TYPE_CHECKING:
    from nearopt.records.trajectories import Trajectories


def infer(
    mdp: MDP,
    horizon: int,
    *,
    temperature: float = 1.0,
    optimism: float = 1.0,
    prior: Any = None,
    final_value: Any = None,
    reward: Any = None,
) -> "Posterior":
    """The posterior over behaviour, given that every one of `horizon` steps is optimal: p(O_t=1|s,a) = exp(r/τ).

    temperature: τ ≥ 0 in units of reward; 0 is hard control and needs optimism 0. optimism: κ = 1 conditions the
    dynamics on success too (exact inference), 0 leaves them alone (variational inference), below 0 is averse to risk.
    prior: None is the flat prior p(a|s) := 1, "uniform" is 1/|A(s)|, an array (S, A) or (T, S, A) any other; it need
    not be normalised. final_value: (S,), the value after the last step, zeros by default and in terminal states.
    reward: instead of the model's own, (S,), (S, A), (T, S, A), (S, A, S) or (T, S, A, S).

    Raises a `NearoptError` of its own type for every mistake in these. Source: design §1; Levine, "Reinforcement
    Learning and Control as Probabilistic Inference" (2018), sections 2 and 3.

    >>> import nearopt as no
    >>> post = no.infer(no.MDP.from_grid("S.G"), horizon=4)
    >>> post.value.shape, post.policy.shape, round(post.log_partition, 3)
    ((5, 3), (4, 3, 4), 1.485)
    """
    check_model(mdp)
    temperature, optimism = check_dials(temperature, optimism)
    horizon = check_horizon(horizon)
    with jax.enable_x64(True):
        log_prior = check_prior(mdp, horizon, prior)
        reward = None if reward is None else check_reward(reward)
        final_value = check_final_value(mdp, final_value)
        problem = make_problem(mdp.blocks, horizon, reward, temperature, optimism, log_prior, final_value)
        return Posterior(mdp, horizon, temperature, optimism, prior, problem, backward(problem, horizon))


@dataclass(frozen=True, eq=False)
class Posterior:
    """The answer of `infer`. Time is 0-based: row t of `value` belongs to the state before decision t.

    value (T+1, S), q (T, S, A), policy (T, S, A): β_t(s) = exp(V_t/τ) and β_t(s,a) = exp(Q_t/τ) at κ = 1. q is −inf
    and policy 0 where an action is not available. Where value is −inf no behaviour can succeed (κ ≤ 0: none surely
    does), and the policy is the prior, normalised. log_forward (T+1, S), state_probs (T+1, S), state_action_probs
    (T, S, A), log_partition: see `docs/theory.md`. If log_partition is −inf and κ ≠ 0 there is no posterior:
    state_probs is 0 and `sample` refuses.
    """

    mdp: MDP
    horizon: int
    temperature: float
    optimism: float
    prior: Any
    problem: Problem = field(repr=False)
    messages: jax.Array = field(repr=False)  # V, (T+1, n) in block order

    # ------------------------------------------------------------ messages
    @cached_property
    def value(self) -> np.ndarray:
        """V_t(s), (T+1, S); the last row is the final value."""
        return self.public(self.messages)

    @property
    def q(self) -> np.ndarray:
        """Q_t(s,a), (T, S, A), computed on each access."""
        return self.actions()[0]

    @property
    def policy(self) -> np.ndarray:
        """π_t(a|s), (T, S, A), computed on each access."""
        return self.actions()[1]

    @cached_property
    def filtered(self) -> Filtered:
        with jax.enable_x64(True):
            return filtered(self.problem, self.messages)

    @property
    def log_forward(self) -> np.ndarray:
        """log α_t(s), (T+1, S), each row normalised: log p(s_t | O_1:t−1) at κ = 1, log state_probs at κ = 0."""
        return self.public(self.filtered.log_forward)

    @property
    def log_evidence(self) -> np.ndarray:
        """(T+1,) log of what each row of `log_forward` was divided by.

        At κ = 1 with a normalised prior: log p(O_1:t−1 and not ended by discount).
        """
        return np.asarray(self.filtered.log_evidence)

    # ------------------------------------------------------------ marginals
    @cached_property
    def state_probs(self) -> np.ndarray:
        """p(s_t | O_1:T), (T+1, S); a row sums to the probability that the episode has not ended by discount."""
        with jax.enable_x64(True):
            return self.public(smoothed(self.problem, self.messages))

    @property
    def state_action_probs(self) -> np.ndarray:
        """p(s_t, a_t | O_1:T), (T, S, A), computed on each access."""
        policy = self.policy
        return np.multiply(self.state_probs[:-1, :, None], policy, out=policy)

    @cached_property
    def log_partition(self) -> float:
        """(1/κ) log Σ_s p(s) exp(κ V_1(s)/τ); log p(O_1:T) at κ = 1 with a normalised prior, the ELBO at κ = 0."""
        with jax.enable_x64(True):
            return float(first_state(self.problem, self.messages[0]).log_partition)

    @property
    def elbo(self) -> float:
        """E_q[Σ r]/τ + entropy relative to the prior; the log partition at κ = 0, `OptimismError` elsewhere."""
        if self.optimism != 0:
            raise OptimismError(f"optimism is {self.optimism:g}, which has no ELBO", "infer with optimism=0")
        return self.log_partition

    # ------------------------------------------------------------ one step
    def q_at(self, t: int) -> np.ndarray:
        """Q_t(s,a), (S, A)."""
        return self.step(t)[0]

    def policy_at(self, t: int) -> np.ndarray:
        """π_t(a|s), (S, A)."""
        return self.step(t)[1]

    def transition(self, t: int) -> scipy.sparse.csr_array:
        """p_κ(s'|s,a) at step t, given that the episode goes on: scipy sparse (S·A, S), rows sum to 1.

        At κ = 1 these are the posterior dynamics ∝ p(s'|s,a) exp(r/τ) β_{t+1}(s'). Where success is impossible, or
        the episode certainly ends, the true dynamics stand.
        """
        return self.mdp.branch_table(np.exp(self.given_going_on(self.log_step(t)[1])))

    def dynamics_gain(self, t: int) -> scipy.sparse.csr_array:
        """log p_κ(s'|s,a)/p(s'|s,a) at step t, in nats: which branch gained, which lost. Scipy sparse (S·A, S).

        Every branch of the model is stored, also one with a gain of 0; −inf is a branch that success rules out.

        >>> import nearopt as no
        >>> post = no.infer(no.MDP.from_grid("S.G", slip=0.2), 3, prior="uniform")
        >>> post.dynamics_gain(1).toarray()[1 * 4 + 1].round(2)  # from the middle cell to the right
        array([ 0.  , -0.86,  0.14])
        """
        mdp = self.mdp
        gain, group = np.zeros(mdp.num_branches), mdp.branch_group
        if len(group):
            believed = np.logaddexp.reduceat(self.given_going_on(self.log_step(t)[1]), group)
            gain[group] = believed - np.logaddexp.reduceat(np.log(mdp.probability), group)
        return mdp.branch_table(gain)  # which adds 0 for the other branches to the same state

    def continuation(self, t: int) -> np.ndarray:
        """c_κ(s,a) at step t, (S, A): probability of going on, given success; 0 where not available."""
        weight = self.step(t)[2][self.mdp.layout.position]
        out = np.zeros((self.mdp.num_states, self.mdp.num_actions))
        out[self.mdp.choice_state, self.mdp.choice_action] = np.add.reduceat(weight, self.mdp.branch_offset[:-1])
        return out if self.mdp.discount < 1 else self.mdp.available.astype(float)

    # ------------------------------------------------------------ trajectories
    def sample(self, n: int, seed: int) -> "Trajectories":
        """n whole trajectories from the posterior; the same seed gives the same ones.

        Raises `SampleSizeError`, and `ImpossibleEvidenceError` where success has probability zero.
        """
        from nearopt.inference.sampling import sample

        return sample(self, n, seed)

    def log_prob(self, trajectories: "Trajectories") -> np.ndarray:
        """(n,) log-probability of recorded trajectories under the same process; −inf where impossible.

        It is that of what is recorded: the first state, each action, each next state that is in the table, and having
        gone on until there. Raises `TrajectoryLengthError`, `StateRangeError`, `ActionRangeError`, `GapError` for one
        that was not recorded throughout, and `TrajectoryEndError` for one that stops before the horizon neither in a
        terminal state nor by discount.
        """
        from nearopt.inference.sampling import log_prob

        return log_prob(self, trajectories)

    # ------------------------------------------------------------ inside
    def step(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Q_t and π_t, (S, A), and the probability of each branch and going on, filled-up ones included."""
        self.check_time(t)
        with jax.enable_x64(True):
            q, policy, branches = step_at(self.problem, self.messages[t + 1], self.problem.timed_at(t))
            return np.asarray(q), np.asarray(policy), np.asarray(branches)

    def log_step(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """log π_t, (S, A), and the logarithm of the branch probabilities of `step`; exact where those underflow."""
        self.check_time(t)
        with jax.enable_x64(True):
            now = (self.messages[t], self.messages[t + 1], self.problem.timed_at(t))
            policy, branches = log_step_at(self.problem, *now)
            return np.asarray(policy), np.asarray(branches)

    def given_going_on(self, log_branches: np.ndarray) -> np.ndarray:
        """(B,) log p_κ(s'|s,a) of every branch, from those of `log_step`: normalised over the branches of a choice.

        In logs, for going on may be less likely than 1e-308. Where it is impossible the true dynamics stand.
        """
        mdp, log_weight = self.mdp, log_branches[self.mdp.layout.position]
        if not len(log_weight):
            return log_weight
        top = np.maximum.reduceat(log_weight, mdp.branch_offset[:-1])[mdp.branch_choice]
        live = top > -np.inf
        shifted = np.where(live, log_weight - np.where(live, top, 0.0), 0.0)
        total = np.add.reduceat(np.exp(shifted), mdp.branch_offset[:-1])[mdp.branch_choice]
        return np.where(live, shifted - np.log(total), np.log(mdp.probability))

    def check_time(self, t: int) -> None:
        if isinstance(t, bool) or not isinstance(t, (int, np.integer)) or not 0 <= t < self.horizon:
            raise TimeError(f"step {t!r} is outside the horizon", f"give a whole number from 0 to {self.horizon - 1}")

    def __reduce__(self):
        raise LossySaveError(
            "a posterior cannot be pickled without rounding it", "send the model, and infer again there"
        )

    def actions(self) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(True):
            q, policy = over_time(self.problem, self.messages)
            return np.array(q), np.array(policy)

    def public(self, rows: jax.Array) -> np.ndarray:
        """Rows over states, block order → public order."""
        out = np.asarray(rows)[:, np.asarray(self.mdp.blocks.rank)]
        out.flags.writeable = False  # it is kept, and sampled from
        return out


@eqx.filter_jit
def step_at(problem: Problem, next_value: jax.Array, timed: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One step for `Posterior.step`."""
    blocks = problem.blocks
    now = problem.step(next_value, timed)
    branches = concatenate(problem.transitions(now, next_value))
    return blocks.to_actions(now.q, -np.inf), blocks.to_actions(now.policy, 0.0), branches


@eqx.filter_jit
def log_step_at(problem: Problem, value: jax.Array, next_value: jax.Array, timed: tuple) -> tuple[jax.Array, jax.Array]:
    """One step for `Posterior.log_step`."""
    now = problem.step(next_value, timed)
    policy = problem.log_policy(now, value, timed)
    return problem.blocks.to_actions(policy, -np.inf), concatenate(problem.log_transitions(now, next_value, timed))
