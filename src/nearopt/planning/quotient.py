"""Loops without reward, folded: at τ = 0 an upper bound cannot be proved through them.

Among states where one may circle for nothing every constant solves V = BV. Folding each such class into one state
that may stop (value 0) or leave leaves one solution; Haddad & Monmege (2018) do so for probabilities.
"""

from dataclasses import dataclass

import numpy as np

from nearopt.mdp.blocks import rows
from nearopt.mdp.model import MDP
from nearopt.planning.classes import Graph


@dataclass(frozen=True)
class Quotient:
    """The folded model, and (S,) the folded state of each state."""

    mdp: MDP
    state: np.ndarray


def fold_loops(graph: Graph, label: np.ndarray) -> Quotient:
    """label: (S,) the class of each state, −1 for states in none."""
    mdp = graph.mdp
    alone = label < 0
    state = np.where(alone, 0, label)
    num_classes = int(label.max(initial=-1)) + 1
    state[alone] = num_classes + np.arange(int(alone.sum()))
    size = int(state.max()) + 2  # one more: where a class stops
    stays = graph.choice & (label[mdp.choice_state] >= 0)
    stays[mdp.branch_choice[label[graph.edges[0]] != label[mdp.next_state]]] = False
    kept = np.flatnonzero(graph.choice & ~stays)
    branches = rows(mdp.branch_offset, kept)[0]

    owner = np.append(state[mdp.choice_state[kept]], np.arange(num_classes))
    count = np.append(np.diff(mdp.branch_offset)[kept], np.ones(num_classes, int))
    probability = np.append(mdp.probability[branches], np.ones(num_classes))
    target = np.append(state[mdp.next_state[branches]], np.full(num_classes, size - 1))
    reward = np.append(mdp.branch_reward[branches], np.zeros(num_classes))
    order = np.argsort(owner, kind="stable")
    place = rows(np.append(0, np.cumsum(count)), order)[0]
    choices = np.bincount(owner, minlength=size)
    offset = np.append(0, np.cumsum(choices))
    initial = np.zeros(size)
    np.add.at(initial, state, mdp.initial)
    folded = MDP(
        choice_offset=offset,
        choice_action=np.arange(offset[-1]) - np.repeat(offset[:-1], choices),
        branch_offset=np.append(0, np.cumsum(count[order])),
        probability=probability[place],
        next_state=target[place],
        branch_reward=reward[place],
        initial=initial,
        num_actions=max(1, int(choices.max())),
    )
    return Quotient(folded, state)


def without_choices(mdp: MDP, states: np.ndarray) -> MDP:
    """The model in which these states are terminal."""
    kept = ~states[mdp.choice_state]
    branches = kept[mdp.branch_choice]
    count = np.bincount(mdp.choice_state[kept], minlength=mdp.num_states)
    return mdp.replace(
        choice_offset=np.append(0, np.cumsum(count)),
        choice_action=mdp.choice_action[kept],
        branch_offset=np.append(0, np.cumsum(np.diff(mdp.branch_offset)[kept])),
        probability=mdp.probability[branches],
        next_state=mdp.next_state[branches],
        branch_reward=mdp.branch_reward[branches],
    )
