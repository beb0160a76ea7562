"""What an agent does: its policy, and what would have become of it in the world as it is.

The agent acts as if the world were p_κ; the world moves by p. That is not `Posterior.sample`, in which the world shares
the agent's optimism.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from nearopt.behaviour.likelihood import policies
from nearopt.behaviour.uncertainty import Fit
from nearopt.inference.sampling import draw
from nearopt.mdp.errors import TrajectoryLengthError
from nearopt.mdp.model import MDP
from nearopt.planning.evaluation import rewards
from nearopt.records.trajectories import Trajectories


def simulate(mdp: MDP, policy: np.ndarray, first: np.ndarray, length: np.ndarray, seed: int) -> Trajectories:
    """One trajectory for each first state (n,), of up to `length` (n,) decisions; terminal states end it.

    policy: (S, A), or (T, S, A) by decisions taken. The last state reached is recorded.
    """
    rng = np.random.default_rng(seed)
    n, longest = len(first), int(length.max(initial=1))
    state = np.full((n, longest + 1), -1, np.int64)
    action = np.full((n, longest), -1, np.int64)
    state[:, 0] = first
    for t in range(longest):
        alive = np.flatnonzero((length > t) & (state[:, t] >= 0))
        alive = alive[~mdp.terminal[state[alive, t]]]
        if not len(alive):
            break
        table = policy[t] if policy.ndim == 3 else policy
        of_choice = lambda c, table=table: table[mdp.choice_state[c], mdp.choice_action[c]]
        choice = draw(rng, mdp.choice_offset, state[alive, t], of_choice)
        action[alive, t] = mdp.choice_action[choice]
        branch = draw(rng, mdp.branch_offset, choice, lambda b: mdp.probability[b])
        state[alive, t + 1] = mdp.next_state[branch]
    return Trajectories(state, action)


def in_their_stead(
    mdp: MDP, policy_of: Callable[[int], np.ndarray], own: bool, trajectories: Trajectories, seed: int
) -> Trajectories:
    """Trajectories with the first states and lengths of recorded ones; those without a first state are left out.

    policy_of: the policy over so many decisions; own: it differs from length to length. Raises
    `TrajectoryLengthError` where it does not reach.
    """
    trajectories = trajectories[trajectories.state[:, 0] >= 0]
    length, rng = np.maximum(trajectories.length, 1), np.random.default_rng(seed)
    parts, order = [], []
    for span in np.unique(length) if own else [length.max(initial=1)]:
        which = np.flatnonzero(length == span) if own else np.arange(len(length))
        policy = policy_of(int(span))
        if policy.ndim == 3 and span > len(policy):
            raise too_long(span, len(policy))
        first = trajectories.state[which, 0]
        parts.append(simulate(mdp, policy, first, length[which], int(rng.integers(2**63))))
        order.append(which)
    return Trajectories.concatenate(parts)[np.argsort(np.concatenate(order))] if len(trajectories) else trajectories


def too_long(span: int, horizon: int) -> TrajectoryLengthError:
    mend = "simulate shorter ones, or fit a longer horizon"
    return TrajectoryLengthError(f"{span} decisions, where the horizon is {horizon}", mend)


def policy_of(fit: Fit, span: int | None, hard: bool) -> np.ndarray:
    """The policy at θ over a horizon of `span` decisions, the fitted one where that is None. Under 64-bit JAX.

    Raises `TrajectoryLengthError` where rewards vary over time and end before.
    """
    family, theta = fit.family, jnp.asarray(fit.theta)
    if span is not None and family.steps is not None:
        if family.reward.time_varying and span > family.steps:
            raise too_long(span, family.steps)
        family = replace(family, steps=span)
    if not hard:
        return np.asarray(policies(family.problem(theta), family.steps))
    return np.asarray(policies(family.pose(family.read(theta), 0.0, 0.0, None), family.steps))


def expected_reward(mdp: MDP, reward: np.ndarray | None) -> np.ndarray:
    """(S, A) or (T, S, A): E[r | s, a] of a reward that may depend on the next state; None is the model's own."""
    if reward is None:
        return rewards(mdp)
    states, actions = mdp.num_states, mdp.num_actions
    if reward.shape[-3:] != (states, actions, states) or reward.ndim < 3:
        return reward
    c = mdp.branch_choice
    terms = mdp.probability * reward[..., mdp.choice_state[c], mdp.choice_action[c], mdp.next_state]
    out = np.zeros((*reward.shape[:-3], states, actions))
    out[..., mdp.choice_state, mdp.choice_action] = np.add.reduceat(terms, mdp.branch_offset[:-1], axis=-1)
    return out
