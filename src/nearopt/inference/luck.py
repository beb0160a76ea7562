"""Which outcomes gained by being conditioned on success, and how many nats."""

from typing import NamedTuple

import numpy as np

from nearopt.inference.posterior import Posterior

NOISE = 1e-12  # nats below which a gain is rounding


class Luck(NamedTuple):
    """An outcome that the exact posterior believes in more than is true: state, action → next_state at step t."""

    t: int
    state: int
    action: int
    next_state: int  # −1: the episode ends by discount
    true: float  # γ p(s'|s,a), or 1−γ
    believed: float  # the same under the exact posterior, c(s,a) p(s'|s,a,O) or 1−c
    nats: float  # log believed/true
    visits: float  # how often the exact posterior expects it at this step


def luck_at(exact: Posterior, t: int, n: int) -> list[Luck]:
    """The n outcomes that gained most at step t."""
    mdp, group = exact.mdp, exact.mdp.branch_group
    if not len(group):
        return []
    log_policy, weight = exact.log_step(t)
    weight = np.exp(weight[mdp.layout.position])
    acting = exact.state_probs[t][mdp.choice_state] * np.exp(log_policy[mdp.choice_state, mdp.choice_action])
    choice, target = mdp.branch_choice[group], mdp.next_state[group]
    true, believed = mdp.discount * np.add.reduceat(mdp.probability, group), np.add.reduceat(weight, group)
    if mdp.discount < 1:
        ends = 1 - np.add.reduceat(weight, mdp.branch_offset[:-1])
        choice, target = np.append(choice, np.arange(len(ends))), np.append(target, np.full(len(ends), -1))
        true, believed = np.append(true, np.full(len(ends), 1 - mdp.discount)), np.append(believed, ends)
    visits = acting[choice] * believed
    won = np.flatnonzero((visits > 0) & (true > 0) & (believed > true * (1 + NOISE)))
    nats = np.log(believed[won] / true[won])
    best = np.argsort(-visits[won] * nats, kind="stable")[:n]
    return [
        Luck(t, int(mdp.choice_state[choice[i]]), int(mdp.choice_action[choice[i]]), int(target[i]), *map(float, row))
        for i, *row in zip(won[best], true[won][best], believed[won][best], nats[best], visits[won][best], strict=True)
    ]
