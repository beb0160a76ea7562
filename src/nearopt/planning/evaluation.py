"""What a policy is worth in the true world: reward, entropy, visits.

V = r_π + γ P_π V,  entropy alike with H(π(·|s)) for r;  Σ_t γ^t p(s_t) = initial + γ P_πᵀ Σ_t γ^t p(s_t)
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse

from nearopt.checks import check_horizon, check_model, number
from nearopt.mdp.errors import ImproperError, PolicyError, TemperatureError, UndecidedError
from nearopt.mdp.model import MDP
from nearopt.mdp.validate import real_array
from nearopt.planning.classes import reachable, some
from nearopt.planning.linear import Table, Work, solve

SUM = 1e-6  # by which the sum of a policy's row may differ from one
ACCURACY = 1e-11  # of the linear systems, relative


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` finds, from the model's initial states: sums over time, in which γ^t counts decision t."""

    mdp: MDP
    policy: np.ndarray = field(repr=False)
    horizon: int | None
    value: np.ndarray
    """(S,) expected sum of rewards from each state."""
    state_entropy: np.ndarray
    """(S,) expected sum of the policy's entropies from each state, in nats."""
    occupancy: np.ndarray
    """(S, A) Σ γ^t p(s_t, a_t)."""

    @property
    def expected_reward(self) -> float:
        """The expected sum of rewards."""
        return expectation(self.mdp.initial, self.value)

    @property
    def entropy(self) -> float:
        """The expected sum of the policy's entropies, in nats."""
        return expectation(self.mdp.initial, self.state_entropy)

    def soft_value(self, temperature: float) -> float:
        """Expected reward plus temperature × entropy: what `solve` with the flat prior makes largest."""
        temperature = number(temperature, TemperatureError, "temperature")
        if temperature < 0:
            raise TemperatureError(f"the temperature is {temperature:g}", "give a number of at least 0")
        return self.expected_reward + (temperature * self.entropy if temperature else 0.0)


def evaluate(mdp: MDP, policy: Any, *, horizon: int | None = None) -> Evaluation:
    """Expected reward, entropy, soft value and discounted occupancy of a policy, in the true dynamics.

    policy: (S, A) probabilities, or (T, S, A) with a horizon; entries in terminal states do not count. horizon: number
    of decisions; None: until the episode ends.

    Raises `PolicyError` where a row is no distribution over the available actions, `HorizonError`, and `ImproperError`
    where, without discount, an episode may never end and goes on earning.

    >>> import nearopt as no
    >>> mdp = no.MDP.from_grid("S..G", discount=0.9)
    >>> ev = no.evaluate(mdp, no.solve(mdp, temperature=0).policy)
    >>> round(ev.expected_reward, 6), ev.entropy, round(float(ev.occupancy.sum()), 6)
    (-2.71, 0.0, 2.71)
    """
    check_model(mdp)
    horizon = None if horizon is None else check_horizon(horizon)
    policy = check_policy(mdp, policy, horizon)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(policy > 0, policy * np.log(policy), 0.0).sum(-1)
    parts = over_time(mdp, policy, entropy, horizon) if horizon else for_ever(mdp, policy, entropy)
    return Evaluation(mdp, policy, horizon, *parts)


def check_policy(mdp: MDP, policy: Any, horizon: int | None) -> np.ndarray:
    """Rows of sum one over the available actions, 0 in terminal states."""
    policy = real_array(policy, "policy")
    shape = (mdp.num_states, mdp.num_actions)
    if policy.shape != shape and (horizon is None or policy.shape != (horizon, *shape)):
        wanted = f"{shape}" if horizon is None else f"{shape} or {(int(horizon), *shape)}"
        raise PolicyError(f"the policy has shape {policy.shape}", f"give {wanted}")
    policy = np.where(mdp.terminal[:, None], 0.0, policy)

    def where(mask: np.ndarray) -> str:
        *time, state, action = np.argwhere(mask)[0].tolist()
        return f"{f'step {time[0]}, ' if time else ''}{mdp.describe(state, action)}"

    bad = ~(policy >= 0) | (policy == np.inf)
    if bad.any():
        raise PolicyError(f"{where(bad)}: the probability is {policy[bad][0]:g}", "give numbers from 0 to 1")
    outside = (policy > 0) & ~mdp.available
    if outside.any():
        raise PolicyError(
            f"{where(outside)} is not available, but its probability is {policy[outside][0]:g}", "set the entry to 0"
        )
    total = policy.sum(-1, keepdims=True)
    off = (np.abs(total - 1) > SUM)[..., 0] & ~mdp.terminal
    if off.any():
        *time, state = np.argwhere(off)[0].tolist()
        step = f"step {time[0]}, " if time else ""
        raise PolicyError(
            f"{step}{mdp.describe(state)}: the probabilities sum to {total[..., 0][off][0]:g}", "divide by it"
        )
    return policy / np.where(total > 0, total, 1)


def rewards(mdp: MDP) -> np.ndarray:
    """E[r | s, a], (S, A); 0 where nothing is available."""
    out = np.zeros((mdp.num_states, mdp.num_actions))
    mean = np.bincount(mdp.branch_choice, mdp.probability * mdp.branch_reward, mdp.num_choices)
    out[mdp.choice_state, mdp.choice_action] = mean
    return out


def weighted(policy: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Σ_a π(a|s) x(s, a), where an action that is never taken does not count, whatever it is worth."""
    return np.where(policy > 0, policy * np.where(policy > 0, values, 0.0), 0.0).sum(-1)


def expectation(probability: np.ndarray, values: np.ndarray) -> float:
    return float(weighted(probability, values))


def over_time(mdp: MDP, policy: np.ndarray, entropy: np.ndarray, horizon: int) -> tuple[np.ndarray, ...]:
    """Value, entropy and occupancy of T decisions."""
    reward, moves, gamma = rewards(mdp), mdp.transition, mdp.discount
    at = (lambda x, t: x[t]) if policy.ndim == 3 else (lambda x, t: x)
    value, spread = np.zeros(mdp.num_states), np.zeros(mdp.num_states)
    for t in reversed(range(horizon)):
        ahead = lambda v: (moves @ v).reshape(reward.shape) if np.isfinite(v).all() else careful(moves, v, reward.shape)
        value = weighted(at(policy, t), reward + gamma * ahead(value) if gamma else reward)
        spread = at(entropy, t) + gamma * weighted(at(policy, t), ahead(spread))
    occupancy, mass = np.zeros(reward.shape), mdp.initial
    for t in range(horizon):
        flow = mass[:, None] * at(policy, t)
        occupancy += flow
        mass = gamma * (moves.T @ flow.reshape(-1))
    return value, spread, occupancy


def careful(moves: scipy.sparse.csr_array, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """E[v(s') | s, a] where some values are −inf."""
    finite = np.isfinite(value)
    mean = moves @ np.where(finite, value, 0.0)
    return np.where(moves @ (~finite).astype(float) > 0, -np.inf, mean).reshape(shape)


def for_ever(mdp: MDP, policy: np.ndarray, entropy: np.ndarray) -> tuple[np.ndarray, ...]:
    """Value, entropy and occupancy until the episode ends."""
    reward = weighted(policy, rewards(mdp))
    weight = policy[mdp.choice_state, mdp.choice_action][mdp.branch_choice] * mdp.probability
    rows, columns = mdp.choice_state[mdp.branch_choice][weight > 0], mdp.next_state[weight > 0]
    shape = (mdp.num_states, mdp.num_states)
    moves = scipy.sparse.csr_array((mdp.discount * weight[weight > 0], (rows, columns)), shape=shape)
    if mdp.discount == 1:
        moves = ending(mdp, moves, (reward != 0) | (entropy != 0))
    lost = reachable(mdp.num_states, columns, rows, reward == -np.inf)  # from where −inf may be met
    known = np.where(lost, 0.0, reward)
    work = Work()
    value = np.where(lost, -np.inf, solved(Table(moves), known, work))
    spread = solved(Table(moves), entropy, work)
    visits = solved(Table(scipy.sparse.csr_array(moves.T)), mdp.initial, work)
    return value, spread, np.maximum(visits, 0.0)[:, None] * policy


def ending(mdp: MDP, moves: scipy.sparse.csr_array, earns: np.ndarray) -> scipy.sparse.csr_array:
    """The chain without the states that are never left and earn nothing; those that earn are refused."""
    rows, columns = moves.nonzero()
    stuck = ~reachable(mdp.num_states, columns, rows, mdp.terminal)
    if (stuck & earns).any():
        raise ImproperError(
            f"{some(mdp, stuck)}: with this policy an episode never ends there, so that without a discount the sums "
            "are not finite",
            "set a discount below 1 or a horizon, or give a policy that ends",
        )
    goes_on = scipy.sparse.diags_array((~stuck).astype(float))
    return scipy.sparse.csr_array(goes_on @ moves @ goes_on)


def solved(table: Table, b: np.ndarray, work: Work) -> np.ndarray:
    x = solve(table, b, ACCURACY, work)
    if not np.isfinite(x).all():
        raise UndecidedError(
            "the linear system of this policy could not be solved",
            "its episodes are too long for float64: set a lower discount, or a horizon",
        )
    return x
