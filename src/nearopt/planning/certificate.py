"""What proves a value: two witnesses, one on either side, that a single backup moves inwards.

B is monotone, and B(v + c) ≤ Bv + c for a constant c ≥ 0. The value is V = lim B^k 0, the finite horizon's limit.

    γ < 1    Bu ≤ u everywhere                                ⇒  V ≤ u   (c shrinks at every backup)
    γ = 1    Bu < u at every state that decides               ⇒  V ≤ u   (so by at least the least margin)
             B max(u,0) ≤ max(u,0), and Bu < u where u < 0    ⇒  V ≤ u   (B^k 0 ≤ max(u,0) throughout)

and the same with every sign turned for V ≥ l. At γ = 1 a residual proves nothing: slow chains and loops without reward
make it small far from V. Cf. Bertsekas & Tsitsiklis (1991) on stochastic shortest paths; Hartmanns & Kaminski (2020),
optimistic value iteration, guess and verify in this way.
"""

from dataclasses import dataclass

import numpy as np

from nearopt.planning.enclosure import Enclosure


@dataclass(frozen=True, eq=False)
class Certificate:
    """The witnesses l = lower + lower_tail and u = upper + upper_tail, exact sums of float64 numbers, each (S,).

    lower_tail ≥ 0 ≥ upper_tail: lower and upper are the witnesses rounded outwards. `planning/checker.py` verifies it.
    """

    lower: np.ndarray
    lower_tail: np.ndarray
    upper: np.ndarray
    upper_tail: np.ndarray
    inexact: bool
    """Whether they hold for every model whose numbers round to this one's; if not, for its rows, normalised."""

    @property
    def width(self) -> float:
        """The largest upper − lower."""
        return float((self.upper - self.lower).max(initial=0.0))


def certify(lower: np.ndarray, upper: np.ndarray, inexact: bool) -> Certificate:
    """Witnesses in long double, split without error."""
    low, high = lower.astype(float), upper.astype(float)
    low = np.where(low > lower, np.nextafter(low, -np.inf), low)
    high = np.where(high < upper, np.nextafter(high, np.inf), high)
    return Certificate(low, (lower - low).astype(float), high, (upper - high).astype(float), inexact)


def proves_upper(world: Enclosure, witness: np.ndarray, inexact: bool = False) -> bool:
    """Whether V ≤ witness is proved."""
    decides = ~world.mdp.terminal
    high = world.excess(witness, inexact).high
    if world.mdp.discount < 1:
        return bool((high[decides] <= 0).all())
    if (high[decides] < 0).all():
        return True
    raised = np.maximum(witness, 0)
    strict = (high < 0) | (witness >= 0) | ~decides
    return bool(strict.all()) and bool((world.excess(raised, inexact).high[decides] <= 0).all())


def proves_lower(world: Enclosure, witness: np.ndarray, inexact: bool = False) -> bool:
    """Whether witness ≤ V is proved."""
    decides = ~world.mdp.terminal
    low = world.excess(witness, inexact).low
    if world.mdp.discount < 1:
        return bool((low[decides] >= 0).all())
    if (low[decides] > 0).all():
        return True
    sunk = np.minimum(witness, 0)
    strict = (low > 0) | (witness <= 0) | ~decides
    return bool(strict.all()) and bool((world.excess(sunk, inexact).low[decides] >= 0).all())
