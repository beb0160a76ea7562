"""What a fitted agent would have done: its policy, in the world as it is.

The agent acts as if the world were p_κ; the world moves by p. That is not `Posterior.sample`, in which the world shares
the agent's optimism.
"""

import numpy as np

from nearopt.inference.sampling import draw
from nearopt.mdp.model import MDP
from nearopt.records.trajectories import Trajectories


def simulate(mdp: MDP, policy: np.ndarray, first: np.ndarray, length: np.ndarray, seed: int) -> Trajectories:
    """One trajectory for each first state (n,), of up to `length` (n,) decisions; terminal states end it.

    policy: (S, A), or (T, S, A) by decisions taken. The last state reached is recorded.
    """
    rng = np.random.default_rng(seed)
    return walk(mdp, policy, np.zeros_like(length), first, length, rng)


def walk(
    mdp: MDP, policy: np.ndarray, offset: np.ndarray, first: np.ndarray, length: np.ndarray, rng: np.random.Generator
) -> Trajectories:
    """`simulate`; decision t of trajectory i is that of step offset[i] + t of the policy."""
    n, longest = len(first), int(length.max(initial=1))
    state = np.full((n, longest + 1), -1, np.int64)
    action = np.full((n, longest), -1, np.int64)
    state[:, 0] = first
    tables = policy if policy.ndim == 3 else policy[None]
    for t in range(longest):
        alive = np.flatnonzero((length > t) & (state[:, t] >= 0))
        alive = alive[~mdp.terminal[state[alive, t]]]
        if not len(alive):
            break
        step = np.minimum(offset[alive] + t, len(tables) - 1)
        here = state[alive, t]
        weight = lambda c, step=step, here=here: of_rows(mdp, tables, step, here, c)
        choice = draw(rng, mdp.choice_offset, here, weight)
        action[alive, t] = mdp.choice_action[choice]
        branch = draw(rng, mdp.branch_offset, choice, lambda b: mdp.probability[b])
        state[alive, t + 1] = mdp.next_state[branch]
    return Trajectories(state, action)


def of_rows(mdp: MDP, tables: np.ndarray, step: np.ndarray, here: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """π of the listed choices, which are those of one state after the other."""
    steps = np.repeat(step, np.diff(mdp.choice_offset)[here])
    return tables[steps, mdp.choice_state[choices], mdp.choice_action[choices]]
