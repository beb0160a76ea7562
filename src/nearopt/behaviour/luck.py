"""Is this animal optimistic? κ with an interval, and likelihood-ratio tests against κ = 0 and κ = 1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from sklearn.base import clone

from nearopt.behaviour.decisions import steps
from nearopt.behaviour.estimator import BehaviourModel
from nearopt.behaviour.identifiability import blind_to_luck
from nearopt.behaviour.intervals import by_profile
from nearopt.behaviour.optimise import Optimum, data_of, optimise
from nearopt.behaviour.uncertainty import Fit, fisher_root
from nearopt.checks import check_span
from nearopt.mdp.errors import NoSolutionError
from nearopt.records.trajectories import Trajectories

SILENT = 1e-7  # information about κ per decision below which there is none


@dataclass(frozen=True)
class OptimismTest:
    """κ̂, its profile interval; for κ = 0 and κ = 1 twice the log-likelihood lost, and its p-value (χ², 1 degree).

    With l2 or smoothness what is lost is the penalised log-likelihood.

    identified: whether behaviour depends on κ here at all; where it does not, the numbers are NaN. converged: False
    where the likelihood is largest at the edge of the agents that have a finite value.
    """

    optimism: float
    interval: tuple[float, float]
    level: float
    log_likelihood: float
    statistic: dict[float, float]
    p_value: dict[float, float]
    identified: bool
    converged: bool

    def describe(self) -> str:
        """The verdict in words."""
        if not self.identified:
            return "optimism does not show in this behaviour: without chance there is no luck to believe in"
        low, high = self.interval
        edge = "" if self.converged else ", at the edge of what has a finite value"
        tests = ", ".join(f"κ = {k:g}: p = {p:.3g}" for k, p in self.p_value.items())
        return f"optimism {self.optimism:.3g}{edge}, {self.level:.0%} interval {low:.3g} to {high:.3g}; {tests}"


def test_optimism(model: BehaviourModel, trajectories: Trajectories, level: float = 0.95) -> OptimismTest:
    """Fits `model`, whatever its own κ, with κ free, 0 and 1. The fit with κ free starts from the other two: the
    likelihood may have several maxima in κ.

    Where an agent of κ = 1 has no finite value (an infinite horizon that is too hopeful), its entries are NaN.
    """
    horizon = check_span(model.horizon)
    model.check(trajectories)
    fixed: dict[float, Optimum] = {}
    with jax.enable_x64(True):
        span = steps(trajectories, horizon)
        fresh: Callable[[], Any] = lambda: clone(model)
        of = lambda kappa: fresh().set_params(optimism=kappa).family(span)
        family = of("fit")
        decisions, penalties = model.collect(trajectories, family, horizon), model.penalties()
        data = data_of(decisions)
        for kappa in (0.0, 1.0):
            for start in (*(o.theta for o in fixed.values()), of(kappa).start):
                try:
                    fixed[kappa] = optimise(of(kappa), data, penalties, start)
                    break
                except NoSolutionError:
                    continue
        place = family.reward.size + family.dials.index("optimism")
        starts = [np.insert(o.theta, place, kappa) for kappa, o in fixed.items()]
        found = min((optimise(family, data, penalties, s) for s in starts), key=lambda o: o.value)
        fit = Fit(family, found.theta, decisions, penalties, np.ones(len(found.theta), bool), found.value_function)
        penalty = float(family.reward.penalty(jnp.asarray(found.theta)[: family.reward.size], *penalties))
        root = fisher_root(fit)
        silent = blind_to_luck(model.mdp, family) or (root[:, place] ** 2).sum() <= SILENT * decisions.total
        kappa = float(found.theta[place])
        low, high = by_profile(fit, level, [place], found.value)[:, place] if not silent else (-np.inf, np.inf)
    lost = {k: 2 * decisions.total * (fixed[k].value - found.value) if k in fixed else np.nan for k in (0.0, 1.0)}
    lost = {k: np.nan if silent else max(x, 0.0) for k, x in lost.items()}
    p = {k: float(scipy.stats.chi2.sf(x, 1)) for k, x in lost.items()}
    likelihood = (penalty - found.value) * decisions.total
    return OptimismTest(
        np.nan if silent else kappa, (float(low), float(high)), level, likelihood, lost, p, not silent, found.converged
    )
