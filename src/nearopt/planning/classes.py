"""Which states rest, which never end, which go in circles: what the graph says before any number is computed.

With γ = 1 the value V = lim B^k 0 is finite only if episodes end; everything here is about that. Choices with prior 0
or a reward of −inf are no choices. A *class* is an end component (de Alfaro 1997): states among which one can stay for
ever and reach each from each.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components

from nearopt.mdp.model import MDP


@dataclass(frozen=True)
class Graph:
    """The choices that count: (C,) and (B,) masks. At κ > 0 success may rely on luck, so a single branch counts."""

    mdp: MDP
    choice: np.ndarray
    branch: np.ndarray
    hopeful: bool
    edges: tuple[np.ndarray, np.ndarray] = field(repr=False)  # source and target state of every branch

    def reaches(self, targets: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """(S,) bool: from where some path of these choices leads to the targets, themselves included."""
        used = self.branch & choice[self.mdp.branch_choice]
        return reachable(self.mdp.num_states, self.edges[1][used], self.edges[0][used], targets)

    def inside(self, states: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """(C,) bool: those of `choice` all of whose branches lead to `states`."""
        ok = choice.copy()
        ok[self.mdp.branch_choice[self.branch & ~states[self.mdp.next_state]]] = False
        return ok

    def states_of(self, choice: np.ndarray) -> np.ndarray:
        """(S,) bool: the states that have one of these choices."""
        out = np.zeros(self.mdp.num_states, bool)
        out[self.mdp.choice_state[choice]] = True
        return out

    def can_stay(self, states: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """The largest part of `states` in which these choices allow to stay for ever; terminal states stay."""
        terminal = self.mdp.terminal
        while True:
            kept = (states & self.states_of(self.inside(states, choice))) | (states & terminal)
            if (kept == states).all():
                return states
            states = kept

    def surely_reaches(self, targets: np.ndarray) -> np.ndarray:
        """From where some policy reaches the targets with probability one."""
        states, choice = np.ones(self.mdp.num_states, bool), self.choice
        while True:
            choice = self.inside(states, choice)
            kept = self.reaches(targets, choice)
            if (kept == states).all():
                return states
            states = kept

    def end_components(self, choice: np.ndarray, states: np.ndarray | None = None) -> np.ndarray:
        """(S,) the number of each state's maximal end component of these choices, −1 where there is none."""
        mdp = self.mdp
        choice = choice if states is None else choice & states[mdp.choice_state]
        if not choice.any():
            return np.full(mdp.num_states, -1)
        while True:
            used = self.branch & choice[mdp.branch_choice]
            label = components(mdp.num_states, self.edges[0][used], self.edges[1][used])
            leaves = used & (label[self.edges[0]] != label[self.edges[1]])
            kept = choice.copy()
            if self.hopeful:  # a branch may leave: the luck of staying is what counts
                stays = used & ~leaves
                kept = np.zeros_like(choice)
                kept[mdp.branch_choice[stays]] = True
                return numbered(np.where(self.states_of(kept), label, -1))
            kept[mdp.branch_choice[leaves]] = False
            if (kept == choice).all():
                return numbered(np.where(self.states_of(choice), label, -1))
            choice = kept


def build_graph(mdp: MDP, prior: np.ndarray, optimism: float) -> Graph:
    """prior: (C,)."""
    possible = mdp.branch_reward > -np.inf
    choice = prior > 0
    if optimism > 0:
        branch = possible & choice[mdp.branch_choice]
    else:
        choice = choice.copy()
        choice[mdp.branch_choice[~possible]] = False
        branch = choice[mdp.branch_choice]
    sources = mdp.choice_state[mdp.branch_choice]
    return Graph(mdp, choice, branch, optimism > 0, (sources, mdp.next_state))


def reachable(n: int, source: np.ndarray, target: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(n,) bool: what can be reached from `start` along the edges."""
    first = np.flatnonzero(start)
    sources, targets = np.append(source, np.full(len(first), n)), np.append(target, first)
    graph = scipy.sparse.csr_array((np.ones(len(sources), np.int8), (sources, targets)), shape=(n + 1, n + 1))
    out = np.zeros(n + 1, bool)
    out[breadth_first_order(graph, n, return_predecessors=False)] = True
    return out[:n]


def components(n: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) the number of each state's strongly connected component."""
    graph = scipy.sparse.csr_array((np.ones(len(source), np.int8), (source, target)), shape=(n, n))
    return connected_components(graph, connection="strong")[1]


def numbered(label: np.ndarray) -> np.ndarray:
    """Labels from 0 on; −1 stays."""
    kept = label >= 0
    out = np.full(len(label), -1)
    out[kept] = np.unique(label[kept], return_inverse=True)[1]
    return out


# ---------------------------------------------------------------- what the solver asks
def hopeless(graph: Graph) -> np.ndarray:
    """(S,) bool: states of value −inf, because every behaviour meets, or at κ ≤ 0 may meet, a reward of −inf."""
    mdp = graph.mdp
    states = np.ones(mdp.num_states, bool)
    if graph.hopeful and mdp.discount == 1:
        while True:  # a state is alive where some branch leads to one that is
            used = graph.branch & states[mdp.next_state]
            alive = mdp.terminal.copy()
            alive[graph.edges[0][used]] = True
            alive &= states
            if (alive == states).all():
                return ~states
            states = alive
    if graph.hopeful or mdp.discount == 0:
        return ~(graph.states_of(graph.choice & has(graph)) | mdp.terminal)
    return ~graph.can_stay(states, graph.choice)


def has(graph: Graph) -> np.ndarray:
    """(C,) bool: choices with a possible branch."""
    out = np.zeros(graph.mdp.num_choices, bool)
    out[graph.mdp.branch_choice[graph.branch]] = True
    return out


def free(graph: Graph) -> np.ndarray:
    """(C,) bool: choices whose every reward is 0."""
    out = graph.choice.copy()
    out[graph.mdp.branch_choice[graph.branch & (graph.mdp.branch_reward != 0)]] = False
    return out


def resting(graph: Graph, prior: np.ndarray, temperature: float) -> np.ndarray:
    """(S,) bool: states where nothing is ever earned again, so that B^k 0 = 0 for every k.

    Every choice is free and stays among them, and the prior sums to one. In hard control a single such choice is
    enough where no reward above 0 can be reached: nothing beats staying for ever.
    """
    mdp = graph.mdp
    free_choice, decides = free(graph), ~mdp.terminal
    if not free_choice.any():
        return np.zeros(mdp.num_states, bool)
    bad = np.zeros(mdp.num_states, bool)
    bad[mdp.choice_state[(prior > 0) & ~free_choice]] = True
    if temperature > 0:
        mass = np.bincount(mdp.choice_state, prior.astype(float), mdp.num_states)
        bad |= decides & (np.abs(mass - 1) > 1e-12)
    rest = decides & ~graph.reaches(bad, graph.choice)
    if temperature == 0:
        gains = np.zeros(mdp.num_states, bool)
        gains[graph.edges[0][graph.branch & (mdp.branch_reward > 0)]] = True
        rest |= decides & graph.can_stay(~graph.reaches(gains, graph.choice), free_choice)
    return rest


def some(mdp: MDP, states: np.ndarray) -> str:
    """'state 7', or '12 states (state 0, state 4, state 7, ...)', for messages. states: (S,) bool."""
    found = np.flatnonzero(states)
    if len(found) == 1:
        return mdp.describe(int(found[0]))
    listed = ", ".join(mdp.describe(int(s)) for s in found[:3])
    return f"{len(found):,} states ({listed}{', ...' if len(found) > 3 else ''})"
