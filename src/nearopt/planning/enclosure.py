"""Bounds on one backup, rounding included: what turns a guess into a proof.

`backup.py` runs where it runs fastest and says nothing of its last bits. Here the same equation (design §1) is summed
in NumPy's long double, operation by operation with the error bound that IEEE arithmetic gives, always relative to the
state's own value: Bv − v is small near a solution, so little is lost however large v is. Nothing here is trusted by
the tests: `checker.py` proves the same inequalities anew with interval arithmetic.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nearopt.mdp.model import MDP

Wide = np.longdouble
EPS = Wide(np.finfo(Wide).eps)  # 2^-63 on x86; twice the unit roundoff, so every bound below has a factor 2 to spare
HALF_ULP = Wide(2.0) ** -53  # how far a float64 may be from the number that was meant
ELEMENTARY = 4  # ulps that exp and log may be wrong by; the C library states less
TINY = Wide(1e-300)  # covers every underflow
CHUNK = 2**20  # branches worked on at a time


class Bounds(NamedTuple):
    """low ≤ Bv − v ≤ high, (S,) long double; 0 in terminal states. NaN where nothing can be said."""

    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Enclosure:
    """A model with its dials. prior: (C,) per choice."""

    mdp: MDP
    prior: np.ndarray
    temperature: float
    optimism: float

    def excess(self, value: np.ndarray, inexact: bool = False) -> Bounds:
        """Bounds on Bv − v. `inexact`: valid for every model whose numbers round to this one's.

        Rows of the model are read as normalised, p/Σp; with `inexact` also as they stand.
        """
        value = value.astype(Wide)
        mdp = self.mdp
        low, high = np.zeros(mdp.num_states, Wide), np.zeros(mdp.num_states, Wide)
        starts = mdp.branch_offset[mdp.choice_offset]  # of each state, and the end
        cuts = np.unique(np.searchsorted(starts, np.arange(0, max(mdp.num_branches, 1), CHUNK)))
        with np.errstate(all="ignore"):  # −inf is a value here, and NaN proves nothing
            for first, last in zip(cuts, [*cuts[1:], mdp.num_states], strict=True):
                self.part(value, int(first), int(last), inexact, low, high)
        return Bounds(low, high)

    def part(self, value: np.ndarray, first: int, last: int, inexact: bool, low: np.ndarray, high: np.ndarray) -> None:
        """The bounds of the states first .. last−1."""
        mdp = self.mdp
        c, d = mdp.choice_offset[first], mdp.choice_offset[last]
        if c == d:
            return
        b = mdp.branch_offset[c]
        own = mdp.choice_state[c:d]
        rows = mdp.branch_offset[c : d + 1] - b
        gain, error = self.choices(value, slice(b, mdp.branch_offset[d]), rows, value[own], inexact)
        live = np.flatnonzero(np.diff(mdp.choice_offset[first : last + 1])) + first
        heads = mdp.choice_offset[live] - c
        low[live], high[live] = self.states(gain, error, self.prior[c:d], np.append(heads, d - c), inexact)

    def choices(
        self, value: np.ndarray, branches: slice, rows: np.ndarray, own: np.ndarray, inexact: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Q − v of some choices, and how far it may be off; `own` is v of each choice's state."""
        mdp, heads, count = self.mdp, rows[:-1], np.diff(rows)
        total = lambda x: np.add.reduceat(x, heads)
        p = mdp.probability[branches].astype(Wide)
        r = mdp.branch_reward[branches]
        weight = total(p)
        v = np.repeat(own, count)
        gamma = Wide(mdp.discount)
        arriving = gamma * value[mdp.next_state[branches]] if gamma != 1 else value[mdp.next_state[branches]]
        step = arriving - v if self.optimism == 0 or gamma == 1 else value[mdp.next_state[branches]] - v
        x = step + r
        slip = EPS * (np.abs(step) + np.abs(x) + (np.abs(arriving) if gamma != 1 else 0))
        if inexact:
            slip = slip + HALF_ULP * (4 * np.abs(x) + np.abs(r) + 2 * np.abs(arriving))
        stray = np.abs(1 - weight) * np.abs(own) if inexact else 0
        if self.optimism == 0:
            gain = total(p * x) / weight
            error = (total(p * slip) + (count + 4) * EPS * total(p * np.abs(x))) / weight + stray
            return gain, np.where(gain > -np.inf, error, 0)
        theta = Wide(self.optimism) / Wide(self.temperature)
        live = r > -np.inf
        going, ending = theta * x, theta * (r - v)
        most = np.where(live, going if gamma == 1 else np.maximum(going, ending), -np.inf)
        top = np.maximum.reduceat(most, heads)
        top = np.where(np.isfinite(top), top, 0)
        shift = np.repeat(top, count)
        grown = np.exp(going - shift)
        off = np.abs(theta) * slip + EPS * (3 * np.abs(going) + 2 * np.abs(shift) + ELEMENTARY)
        if gamma != 1:
            grown = gamma * grown + (1 - gamma) * np.exp(ending - shift)
            off = off + EPS * (4 * np.abs(ending) + ELEMENTARY) + (HALF_ULP / (1 - gamma) if inexact else 0)
        grown, off = np.where(live, grown, 0 if theta > 0 else np.inf), np.where(live, off, 0)
        mean = total(p * grown) / weight
        gain = (top + np.log(mean)) / theta
        wrong = np.maximum.reduceat(off, heads) + (count + 5) * EPS
        error = (
            np.where(
                wrong < 0.01,
                1.1 * wrong / np.abs(theta) + ELEMENTARY * EPS * (np.abs(gain) + np.abs(top / theta)),
                np.nan,
            )
            + stray
        )
        sure = (mean == 0) | (np.logical_or.reduceat(~live, heads) & (theta < 0))  # Q is −inf, exactly
        return np.where(sure, -np.inf, gain), np.where(sure, 0, np.where(np.isfinite(mean), error, np.nan))

    def states(
        self, gain: np.ndarray, error: np.ndarray, prior: np.ndarray, offset: np.ndarray, inexact: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bounds on V − v from those on Q − v. offset: where each state's choices start, and the end."""
        heads, size = offset[:-1], np.diff(offset)
        allowed = prior > 0
        gain, error = np.where(allowed, gain, -np.inf), np.where(allowed, error, 0)
        if self.temperature == 0:
            return np.maximum.reduceat(gain - error, heads), np.maximum.reduceat(gain + error, heads)
        tau = Wide(self.temperature)
        top = np.maximum.reduceat(gain, heads)
        below = (gain - np.repeat(top, size)) / tau  # shifted: an overflow would prove nothing
        share = prior * np.exp(below)
        off = error / tau + EPS * (3 * np.abs(below) + ELEMENTARY + 2)
        if inexact:
            off = off + HALF_ULP * (2 + np.abs(below))
        off = np.where(gain > -np.inf, off, 0)
        total = np.add.reduceat(share, heads)
        wrong = np.add.reduceat(share * off, heads) + size * (EPS * total + TINY)
        rise = top + tau * np.log(total)
        relative = np.where(wrong < 0.01 * total, 1.1 * wrong / total, np.nan)
        slip = tau * (relative + ELEMENTARY * EPS * np.abs(np.log(total))) + EPS * (np.abs(rise) + np.abs(top))
        if inexact:
            slip = slip + HALF_ULP * np.abs(rise - top)
        return rise - slip, rise + slip


def choice_prior(mdp: MDP, prior: Any) -> np.ndarray:
    """p(a|s) of every choice, (C,) long double, from a checked prior: None, "uniform" or (S, A)."""
    if prior is None:
        return np.ones(mdp.num_choices, Wide)
    if isinstance(prior, str):
        return 1 / np.diff(mdp.choice_offset)[mdp.choice_state].astype(Wide)
    return np.asarray(prior, float)[mdp.choice_state, mdp.choice_action].astype(Wide)
