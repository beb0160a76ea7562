"""From an approximate value to two proved bounds, as close as asked.

With h = (I − P)⁻¹ 1, the expected number of decisions to come, V ± δ h are moved inwards by about δ at every backup:
witnesses for δ above rounding, and 2 δ max h apart. Where the first order is not enough (the maximum of many, a large
δ h) Newton's correction of the witness itself mends it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nearopt.mdp.errors import UndecidedError
from nearopt.planning.certificate import proves_lower, proves_upper
from nearopt.planning.classes import some
from nearopt.planning.enclosure import Enclosure, Wide
from nearopt.planning.iteration import HUGE, LONG, DivergingError, Iterate, Reached, by_sweeps, reached, shifted
from nearopt.planning.linear import Kernel, Work, solve
from nearopt.problem import Problem

SLACK = 2.4  # the width aimed at is 2 δ max h; this leaves room for corrections and for rounding outwards
CORRECTIONS = 8
COARSER = 40  # times that δ is doubled before a proof is given up


@dataclass(frozen=True)
class Task:
    """A model in both forms: bounds on a backup (public order), and backups (block order)."""

    world: Enclosure
    problem: Problem
    iterate: Iterate
    work: Work

    @property
    def contracts(self) -> bool:
        """γ < 1 and κ = 0: every backup shrinks every error by γ."""
        return self.world.mdp.discount < 1 and self.world.optimism == 0

    @property
    def by_sweeps(self) -> bool:
        return self.iterate is by_sweeps

    def public(self, value: np.ndarray) -> np.ndarray:
        return value[np.asarray(self.problem.blocks.rank)]

    def block(self, value: np.ndarray) -> np.ndarray:
        out = np.zeros(self.problem.blocks.size)
        out[np.asarray(self.problem.blocks.rank)] = value
        return out

    def decisions(self, kernel: Kernel) -> np.ndarray:
        """h with (I − P) h ≥ 0.9, about the expected number of decisions to come; in block order."""
        decides = self.block((~self.world.mdp.terminal).astype(float))
        if self.contracts:
            return decides / (1 - self.world.mdp.discount)
        if not self.by_sweeps:
            h = solve(kernel, decides, 1e-4, self.work)
            if not (np.isfinite(h).all() and h.max(initial=0.0) < HUGE and (h >= 0.5 * decides).all()):
                raise DivergingError
            return h
        h = decides
        while True:
            later = decides + kernel.apply(h)
            self.work.passes += 1
            if (later - h).max(initial=0.0) <= 0.1:
                return later
            h = later

    def correction(self, kernel: Kernel, gap: np.ndarray) -> np.ndarray:
        """What to add, in public order, where BV − V is to grow less by `gap`."""
        if self.by_sweeps:
            return gap.astype(float)
        return self.public(solve(kernel, self.block(gap.astype(float)), 1e-6, self.work))

    def excess(self, value: np.ndarray) -> tuple[np.ndarray, float]:
        """BV − V in long double, and how far it may be off."""
        self.work.passes += 1
        low, high = self.world.excess(value)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise DivergingError
        return (low + high) / 2, float((high - low).max(initial=0.0)) / 2


class Witnesses(NamedTuple):
    """Proved bounds, (S,) long double; `inexact`: for every model whose numbers round to this one's."""

    lower: np.ndarray
    upper: np.ndarray
    inexact: bool


def approach(task: Task, start: np.ndarray, tol: float) -> tuple[Reached, np.ndarray, float]:
    """V in float64, near enough for bounds tol apart; h in public order; and δ."""
    margin = lambda h: tol / (SLACK * max(float(h.max(initial=0.0)), 1.0))
    if task.contracts:
        h = np.where(task.world.mdp.terminal, 0.0, 1 / (1 - task.world.mdp.discount))
        return task.iterate(task.problem, start, margin(h) / 4, task.work), h, margin(h)
    at = task.iterate(task.problem, start, tol / 10, task.work)
    h = task.decisions(at.kernel)
    if at.residual > margin(h) / 4:
        at = task.iterate(task.problem, at.value, margin(h) / 4, task.work)
        h = task.decisions(at.kernel)
    h = task.public(h)
    return at, h, margin(h)


def refine(task: Task, at: Reached, target: float) -> np.ndarray:
    """V in long double, |BV − V| ≤ target or as small as it gets, in public order."""
    value, best, since = task.public(at.value).astype(Wide), np.inf, 0
    while True:
        gap, error = task.excess(value)
        residual = float(np.abs(gap).max(initial=0.0))
        best, since = (residual, 0) if residual < (1 if task.by_sweeps else 0.5) * best else (best, since + 1)
        if residual <= max(target, error) or since > (LONG if task.by_sweeps else 0):
            return value
        value = value + task.correction(at.kernel, gap)


def bracket(task: Task, start: np.ndarray, tol: float) -> Witnesses:
    """Proved bounds, at most tol apart where rounding allows it."""
    at, h, delta = approach(task, start, tol)
    value = refine(task, at, delta / 4)
    for inexact in (True, False):  # first for every model whose numbers round to these
        lower = witness(task, value - delta * h, delta, -1, inexact)
        upper = None if lower is None else witness(task, value + delta * h, delta, 1, inexact)
        if lower is not None and upper is not None:
            return Witnesses(lower, upper, inexact)
    error = task.excess(value)[1]
    if error < delta / 8 and not task.contracts:  # not for rounding
        raise unproved(task, value)
    delta = max(delta, error)
    for _ in range(COARSER):  # rounding: as near as can be proved
        lower = witness(task, value - delta * h, delta, -1, False) if lower is None else lower
        upper = witness(task, value + delta * h, delta, 1, False) if upper is None else upper
        if lower is not None and upper is not None:
            return Witnesses(lower, upper, False)
        delta *= 2
    raise unproved(task, value)


def unproved(task: Task, value: np.ndarray) -> UndecidedError:
    worst = np.zeros(len(value), bool)
    worst[int(np.argmax(np.abs(value)))] = True
    return UndecidedError(
        f"no bounds could be proved on the value of {some(task.world.mdp, worst)}, about {float(value[worst][0]):.3g}",
        "rewards may cancel around a cycle there: set a discount below 1, or change one of them a little",
    )


def witness(task: Task, guess: np.ndarray, delta: float, sign: int, inexact: bool) -> np.ndarray | None:
    """`guess`, corrected until its bound is proved; None where rounding is above δ.

    The correction solves V = BV ± δ: where two choices are nearly tied, the one that takes longer may earn more δ.
    """
    proves = proves_upper if sign > 0 else proves_lower
    for attempt in range(CORRECTIONS):
        task.work.passes += 1
        if proves(task.world, guess, inexact):
            return guess
        gap, error = task.excess(guess)
        if inexact or error > delta / 2:
            return None
        start = task.block(guess.astype(float))
        if attempt == 0:
            paid = shifted(task.problem, sign * delta)
            if task.by_sweeps:  # as long again at most: paid for every decision, the value may have no bound
                at = by_sweeps(paid, start, delta / 4, task.work, task.work.passes + LONG)
            else:
                at = task.iterate(paid, start, delta / 4, task.work)
            guess = task.public(at.value).astype(Wide)
            continue
        gap = np.where(task.world.mdp.terminal, 0, gap + sign * delta)
        step = task.correction(reached(task.problem, start, task.work).kernel, gap)
        if not np.isfinite(step).all():
            return None
        guess = guess + step
    return None


# ---------------------------------------------------------------- loops without reward, at τ = 0
def lower_through_loops(task: Task, start: np.ndarray, tol: float) -> np.ndarray:
    """The lower witness where one may circle for nothing: it pays δ for every decision, so it does not circle."""
    delta, at = tol / SLACK / 8, None
    for _ in range(CORRECTIONS):
        at = task.iterate(shifted(task.problem, -delta), start if at is None else at.value, delta / 4, task.work)
        h = task.decisions(at.kernel)
        needed = tol / (SLACK * max(float(h.max(initial=0.0)), 1.0))
        if delta <= 1.01 * needed:
            break
        delta = needed
    assert at is not None
    for _ in range(COARSER):
        found = witness(task, task.public(at.value).astype(Wide), delta, -1, False)
        if found is not None:
            return found
        delta *= 2
        at = task.iterate(shifted(task.problem, -delta), at.value, delta / 4, task.work)
    raise unproved(task, task.public(at.value))
