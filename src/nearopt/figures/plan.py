"""What the pictures of an infinite horizon have in common: what they read, what they say, the scale of the bounds."""

from typing import Any, Protocol

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullFormatter

from nearopt.figures.paths import MOST_STEPS
from nearopt.figures.results import Dials
from nearopt.figures.words import inference_kind, prior_words
from nearopt.mdp.errors import ImproperError


class Plan(Dials, Protocol):
    """The attributes of `nearopt.Solution` that a figure reads."""

    @property
    def value(self) -> np.ndarray: ...
    @property
    def lower(self) -> np.ndarray: ...
    @property
    def upper(self) -> np.ndarray: ...
    @property
    def width(self) -> float: ...
    @property
    def tol(self) -> float: ...
    @property
    def converged(self) -> bool: ...
    @property
    def policy(self) -> np.ndarray: ...
    def path(self, start: int | None = None, limit: int = 100_000) -> tuple[np.ndarray, np.ndarray]: ...


def best_path(plan: Plan) -> tuple[np.ndarray, np.ndarray] | None:
    """States and actions of the best trajectory, or None where there is no single one."""
    if plan.temperature > 0 or plan.mdp.terminal.all():
        return None
    try:
        return plan.path(limit=MOST_STEPS)
    except ImproperError:
        return None


# ---------------------------------------------------------------- words
def plan_settings(plan: Dials) -> str:
    """One line on an infinite horizon: temperature, optimism and what it means, prior, discount."""
    meaning = dict(exact="exact inference", variational="true dynamics", hard="true dynamics", tilted="tilted dynamics")
    parts = [
        rf"temperature $\tau$ = {plan.temperature:g}" + (" (hard control)" if plan.temperature == 0 else ""),
        rf"optimism $\kappa$ = {plan.optimism:g} ({meaning[inference_kind(plan)]})",
        "infinite horizon",
        *([prior_words(plan)] if plan.temperature > 0 else []),
        rf"discount $\gamma$ = {plan.mdp.discount:g}",
    ]
    return "   ".join(parts)


def value_label(plan: Plan) -> str:
    soft = inference_kind(plan) == "variational"
    entropy = r", with $\tau\,\times$ entropy relative to the prior" if soft else ""
    return f"$V(s)$   [units of reward{entropy}]"


def value_title(plan: Plan) -> str:
    return "Values and policy of hard control" if plan.temperature == 0 else "Soft values and policy"


def width_line(plan: Plan) -> str:
    met = "" if plan.converged else ", which was not reached"
    return f"proved: lower ≤ V ≤ upper, nowhere more than {plan.width:.2g} apart   (tol {plan.tol:g}{met})"


def path_title(states: np.ndarray, plan: Plan) -> str:
    """How long it is, and how it ends."""
    count, last = len(states) - 1, int(states[-1])
    decisions = f"{count:,} {'decision' if count == 1 else 'decisions'}"
    if plan.mdp.terminal[last]:
        return f"The best trajectory: {decisions}, worth {plan.value[states[0]]:.6g}"
    if last in states[:-1]:
        return f"The best trajectory: {decisions}, then in circles; worth {plan.value[states[0]]:.6g}"
    return f"The best trajectory: its first {decisions}; worth {plan.value[states[0]]:.6g}"


# ---------------------------------------------------------------- the scale of the bounds
def decades(plan: Plan) -> LogNorm:
    """Whole decades that hold every width above 0, and tol."""
    gap = plan.upper - plan.lower
    low, high = gap[gap > 0].min(initial=plan.tol), max(plan.width, plan.tol)
    top = np.ceil(np.log10(high) - 1e-9)
    return LogNorm(10.0 ** min(np.floor(np.log10(low)), top - 1), 10.0**top)


def tidy_decades(axis: Any) -> None:
    """Labels at powers of ten only."""
    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_minor_formatter(NullFormatter())
