"""Why an answer is no answer: a likelihood without a maximum, a reward that the data did not move."""

import jax.numpy as jnp
import numpy as np

from nearopt.behaviour.decisions import Visits, visits
from nearopt.behaviour.family import explain
from nearopt.behaviour.uncertainty import Fit, fisher_root
from nearopt.mdp.model import MDP


class FitWarning(UserWarning):
    """A fit that stopped short, or whose answer needs a word."""


RUNNING = 1e-3  # a Newton step, relative to where a coefficient stands, that a maximum does not have
MOVED = 0.1  # change of a log-probability by such a step
NOTHING = 1e-8
NAMED = 3


def no_maximum(mdp: MDP, fit: Fit, step: np.ndarray | None) -> str:
    """What is wrong where coefficients run off to infinity, in a sentence; nothing where they do not.

    There the gradient vanishes like exp(−c), and so does the curvature: Newton's step stays as long as ever, which at
    a maximum it does not (Albert & Anderson 1984 on separation). step: that of θ where it is known.
    """
    if float(fit.penalties.l2) > 0 or not fit.free.any() or (step is None and fit.decisions.passages is not None):
        return ""
    if step is not None:
        running = np.abs(step) > RUNNING * (1 + np.abs(fit.theta))
    else:
        running = (np.arange(len(fit.theta)) < fit.family.reward.size) & moves(fit)
    if not running.any():
        return ""
    size = fit.family.reward.size
    dials = [name for name, runs in zip(fit.family.dials, running[size:], strict=True) if runs]
    who = " and ".join(["the coefficients"] * bool(running[:size].any()) + [f"the {name}" for name in dials])
    mend = "set l2" if running[:size].any() else f"fix the {dials[0]}"
    never = never_taken(mdp, fit) if running[:size].any() else ""
    because = f", because some actions were never taken where they could have been: {never}" if never else ""
    verb = "runs" if who.startswith("the ") and who in (f"the {name}" for name in dials) else "run"
    return f"the likelihood has no maximum, it still rises as {who} {verb} off{because}; {mend}"


def moves(fit: Fit) -> bool:
    """Whether a step of Fisher scoring still changes the probability of a recorded choice."""
    seen = visits(fit.family.blocks, fit.decisions)
    root = fisher_root(fit)
    weight = np.sqrt(expected(fit, seen))
    counts = dict(zip(*taken(fit), strict=True))
    step_of = np.repeat(np.arange(seen.cell.shape[0] * seen.cell.shape[1]), seen.cell.shape[2])[seen.place]
    keys = step_of * 2**32 + seen.cell.reshape(-1)[seen.place]
    count = np.array([counts.get(k, 0.0) for k in keys.tolist()])
    target = (count - weight**2) / np.maximum(weight, 1e-150)
    step = np.linalg.lstsq(root, target, rcond=1e-13)[0]
    change = np.abs(root @ step) / np.maximum(weight, 1e-150)
    return bool((change > MOVED).any())


def expected(fit: Fit, seen: Visits) -> np.ndarray:
    """n(s) π(a|s) of every entry of `visits`."""
    logs = explain(fit.family, jnp.asarray(fit.theta), seen.cell, fit.decisions.length, fit.value)
    return (seen.count * np.exp(np.asarray(logs))).reshape(-1)[seen.place]


def taken(fit: Fit) -> tuple[list[int], list[float]]:
    """How often each choice was taken at each step: keys and counts."""
    pooled, cell = fit.decisions.pooled(), fit.decisions.cell
    used = np.flatnonzero(pooled.reshape(-1) > 0)
    keys = used // cell.shape[2] * 2**32 + cell.reshape(-1)[used]
    return keys.tolist(), pooled.reshape(-1)[used].tolist()


def never_taken(mdp: MDP, fit: Fit) -> str:
    """The most visited states with actions that were never taken there, and hardly expected."""
    seen = visits(fit.family.blocks, fit.decisions)
    cells = seen.cell.reshape(-1)[seen.place]
    done = {k % 2**32 for k in taken(fit)[0]}
    number = np.bincount(cells, seen.count.reshape(-1)[seen.place])
    missed = [c for c in np.unique(cells).tolist() if c not in done]
    slot = np.asarray(fit.family.blocks.slot)
    words = []
    for c in sorted(missed, key=lambda c: -number[c])[:NAMED]:
        state, action = np.argwhere(slot == c)[0].tolist()
        words.append(f"{mdp.describe(state, action)} (0 of {int(number[c])} visits)")
    return ", ".join(words)


def nothing_learned(fit: Fit) -> str:
    """A sentence where the coefficients have stayed at zero."""
    size = fit.family.reward.size
    if size and (fit.family.reward.start == 0).all() and np.abs(fit.theta[:size]).max() < NOTHING:
        return (
            "the fitted reward is zero everywhere: nothing in its features tells the recorded actions from draws of "
            "the prior; try features of states and actions, or look at identifiability_"
        )
    return ""
