"""A policy that surely ends, and what it is worth: where Newton's method starts at γ = 1."""

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from nearopt.mdp.blocks import rows
from nearopt.mdp.errors import ImproperError
from nearopt.mdp.model import MDP
from nearopt.planning.classes import Graph, some
from nearopt.planning.linear import Table, Work, solve


def towards_the_end(graph: Graph) -> np.ndarray:
    """(S,) for each state a choice that may lead one step nearer to a terminal state and leads nowhere else for good;
    −1 in terminal states.
    """
    mdp = graph.mdp
    states = graph.surely_reaches(mdp.terminal)
    if not states.all():
        raise ImproperError(
            f"{some(mdp, ~states)}: no policy surely ends an episode from there, and rewards of both signs lie ahead",
            "set a discount below 1, or give them a way to a terminal state",
        )
    used = graph.branch & graph.inside(states, graph.choice)[mdp.branch_choice]
    nearer = distance_to(mdp, np.flatnonzero(used))
    source, target = graph.edges
    steps = np.flatnonzero(used)
    steps = steps[nearer[target[steps]] < nearer[source[steps]]]
    choice = np.full(mdp.num_states, -1)
    choice[source[steps]] = mdp.branch_choice[steps]
    return choice


def distance_to(mdp: MDP, branches: np.ndarray) -> np.ndarray:
    """(S,) number of these branches from each state to the nearest terminal one."""
    n, ends = mdp.num_states, np.flatnonzero(mdp.terminal)
    back = (mdp.next_state[branches], mdp.choice_state[mdp.branch_choice[branches]])
    entries = (np.append(back[0], np.full(len(ends), n)), np.append(back[1], ends))
    reverse = scipy.sparse.csr_array((np.ones(len(entries[0])), entries), shape=(n + 1, n + 1))
    return scipy.sparse.csgraph.dijkstra(reverse, indices=n, unweighted=True)[:n]


def worth(mdp: MDP, choice: np.ndarray, bonus: np.ndarray, work: Work) -> np.ndarray:
    """Expected sum of rewards and of `bonus` (C,) with one choice in each state; zeros where it cannot be solved."""
    deciding = np.flatnonzero(choice >= 0)
    chosen = choice[deciding]
    branches, row, _ = rows(mdp.branch_offset, chosen)
    source = deciding[row]
    shape = (mdp.num_states, mdp.num_states)
    table = Table(scipy.sparse.csr_array((mdp.probability[branches], (source, mdp.next_state[branches])), shape=shape))
    reward = np.bincount(source, mdp.probability[branches] * mdp.branch_reward[branches], mdp.num_states).astype(float)
    reward[deciding] += bonus[chosen]
    value = solve(table, reward, 1e-8, work)
    return value if np.isfinite(value).all() else np.zeros(mdp.num_states)
