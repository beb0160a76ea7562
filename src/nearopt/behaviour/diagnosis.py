"""Why an answer is no answer: a likelihood without a maximum, a reward that the data did not move."""

import numpy as np

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
    root, expected = fisher_root(fit), fit.expected()
    weight = np.maximum(np.sqrt(expected), 1e-150)
    step = np.linalg.lstsq(root, (fit.visits.taken - expected) / weight, rcond=1e-13)[0]
    return bool((np.abs(root @ step) / weight > MOVED).any())


def never_taken(mdp: MDP, fit: Fit) -> str:
    """The most visited states with actions that were never taken there, and hardly expected."""
    seen = fit.visits
    cells = seen.cell.reshape(-1)[seen.place]
    number, done = np.bincount(cells, seen.count), np.bincount(cells, seen.taken)
    missed = np.flatnonzero((number > 0) & (done == 0)).tolist()
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
