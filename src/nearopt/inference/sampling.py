"""Whole trajectories: drawn from the posterior, and their log-probability under it (design §1).

One step of all trajectories at a time. A choice or a branch is drawn by inverting the cumulative weights of its own
row; rows have their own lengths, so nothing is filled up.
"""

from typing import Any

import numpy as np

from nearopt.inference.posterior import Posterior
from nearopt.mdp.blocks import rows
from nearopt.mdp.errors import (
    ActionRangeError,
    GapError,
    ImpossibleEvidenceError,
    SampleSizeError,
    StateRangeError,
    TrajectoryEndError,
    TrajectoryLengthError,
    TrajectoryShapeError,
)
from nearopt.records.trajectories import Trajectories


def sample(post: Posterior, n: int, seed: int) -> Trajectories:
    """See `Posterior.sample`."""
    for name, value, least in (("number of trajectories", n, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise SampleSizeError(f"the {name} is {value!r}", f"give a whole number, at least {least}")
    first = np.cumsum(post.state_probs[0])
    if first[-1] == 0:
        raise ImpossibleEvidenceError(
            f"no behaviour of {post.horizon} steps succeeds (log_partition is -inf), so there is nothing to sample",
            "lengthen the horizon, or make the rewards or final values that forbid it finite",
        )
    mdp, rng = post.mdp, np.random.default_rng(seed)
    position = mdp.layout.position
    states = np.full((n, post.horizon + 1), -1, np.int32)
    actions = np.full((n, post.horizon), -1, np.int32)
    states[:, 0] = np.searchsorted(first, rng.random(n) * first[-1], side="right")
    alive = np.flatnonzero(~mdp.terminal[states[:, 0]])
    for t in range(post.horizon):
        if not len(alive):
            break
        _, policy, branches = post.step(t)
        state = states[alive, t]
        of_choice = lambda c, policy=policy: policy[mdp.choice_state[c], mdp.choice_action[c]]
        choice = draw(rng, mdp.choice_offset, state, of_choice)
        actions[alive, t] = mdp.choice_action[choice]
        ends = mdp.discount < 1
        branch = draw(rng, mdp.branch_offset, choice, lambda b, branches=branches: branches[position[b]], may_end=ends)
        alive, branch = alive[branch >= 0], branch[branch >= 0]
        states[alive, t + 1] = mdp.next_state[branch]
        alive = alive[~mdp.terminal[states[alive, t + 1]]]
    return Trajectories(states, actions)


def draw(
    rng: np.random.Generator, offset: np.ndarray, members: np.ndarray, weight: Any, may_end: bool = False
) -> np.ndarray:
    """One item of each member's row, with probability proportional to its weight.

    With `may_end` the weights are probabilities that sum to at most one; what is missing is drawn as −1.
    """
    item, row, _ = rows(offset, members)
    cumulative = np.cumsum(weight(item))
    count = np.diff(offset)[members]
    start = np.cumsum(count) - count
    before = np.where(start > 0, cumulative[start - 1], 0.0)
    total = cumulative[start + count - 1] - before
    threshold = before + rng.random(len(members)) * (1.0 if may_end else total)
    passed = np.add.reduceat(cumulative <= threshold[row], start)
    drawn = item[start + np.minimum(passed, count - 1)]
    return np.where(passed < count, drawn, -1) if may_end else drawn


def log_prob(post: Posterior, trajectories: Trajectories) -> np.ndarray:
    """See `Posterior.log_prob`."""
    if not isinstance(trajectories, Trajectories):
        kind = type(trajectories).__name__
        raise TrajectoryShapeError(f"the trajectories are a {kind}", "build them with Trajectories.from_arrays")
    mdp = post.mdp
    if not len(trajectories):
        return np.zeros(0)
    if gap := trajectories.first_gap():
        mend = "leave out what was not recorded throughout: trajectories[trajectories.complete]"
        raise GapError(f"{gap}, and what was not recorded cannot be judged", mend)
    check_ranges(post, trajectories)
    check_ends(post, trajectories)
    out = log_first(post)[trajectories.state[:, 0]]
    key = mdp.choice_state * mdp.num_actions + mdp.choice_action
    position = mdp.layout.position
    for t in range(trajectories.action.shape[1]):
        acting = np.flatnonzero(trajectories.action[:, t] >= 0)
        if not len(acting):
            break
        policy, branches = post.log_step(t)
        state, action, later = (
            x[acting, c] for x, c in ((trajectories.state, t), (trajectories.action, t), (trajectories.state, t + 1))
        )
        out[acting] += policy[state, action]
        wanted = state.astype(np.int64) * mdp.num_actions + action
        choice = np.minimum(np.searchsorted(key, wanted), mdp.num_choices - 1)
        known = (key[choice] == wanted) & (later >= 0)
        item, row, _ = rows(mdp.branch_offset, choice[known])
        reaches = np.where(mdp.next_state[item] == later[known][row], branches[position[item]], -np.inf)
        moved = np.full(known.sum(), -np.inf)
        np.logaddexp.at(moved, row, reaches)
        out[acting[known]] += moved
    return out


def log_first(post: Posterior) -> np.ndarray:
    """(S,) log of p(s) exp(κ V_1(s)/τ), normalised; exact where the probability itself underflows."""
    with np.errstate(divide="ignore"):
        known = np.log(post.mdp.initial)
    if post.optimism == 0:
        return known
    value = post.value[0]
    if not np.isfinite(post.log_partition):
        return np.full_like(known, -np.inf)
    gain = post.optimism * (np.where(np.isfinite(value), value, 0.0) / post.temperature - post.log_partition)
    return np.where(np.isfinite(value), known + gain, -np.inf)


def check_ranges(post: Posterior, trajectories: Trajectories) -> None:
    """State and action numbers that exist, and no more decisions than the horizon."""
    mdp = post.mdp
    for values, count, kind, error in (
        (trajectories.state, mdp.num_states, "state", StateRangeError),
        (trajectories.action, mdp.num_actions, "action", ActionRangeError),
    ):
        bad = (values < -1) | (values >= count)
        if bad.any():
            i, t = np.argwhere(bad)[0].tolist()
            raise error(
                f"trajectory {i}, step {t}: {kind} {values[i, t]} is not among 0 .. {count - 1}", "number from 0"
            )
    longest = int(np.argmax(trajectories.length))
    if trajectories.length[longest] > post.horizon:
        raise TrajectoryLengthError(
            f"trajectory {longest} has {trajectories.length[longest]} decisions, the horizon is {post.horizon}",
            "infer with a longer horizon, or cut the trajectory",
        )


def check_ends(post: Posterior, trajectories: Trajectories) -> None:
    """One that stops early is in a terminal state, or may be heading for one; with discount it may stop anywhere."""
    mdp, length = post.mdp, trajectories.length
    early = np.flatnonzero(length < post.horizon)
    if mdp.discount < 1 or not len(early):
        return
    last = trajectories.state[early, length[early]]
    seen = last >= 0
    before = np.maximum(length[early] - 1, 0)
    state, action = trajectories.state[early, before], trajectories.action[early, before]
    ending = np.zeros((mdp.num_states, mdp.num_actions), bool)  # choices that may reach a terminal state
    choice = mdp.branch_choice[mdp.terminal[mdp.next_state]]
    ending[mdp.choice_state[choice], mdp.choice_action[choice]] = True
    fine = np.where(seen, mdp.terminal[last], ending[state, action] | ~mdp.available[state, action])
    if not fine.all():
        i = int(np.argmin(fine))
        t = length[early[i]]
        where = f"in {mdp.describe(last[i])}" if seen[i] else f"after {mdp.describe(state[i], action[i])}"
        raise TrajectoryEndError(
            f"trajectory {early[i]} stops after {t} of {post.horizon} decisions, {where}, where the process goes on",
            "infer with the trajectory's own horizon, or record how it went on",
        )
