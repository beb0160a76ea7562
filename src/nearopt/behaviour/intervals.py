"""Intervals: from a covariance, from the profile of the likelihood, from resampled trajectories.

covariance  estimate ± z · s.e.; of τ, γ on the scale on which they are fitted, log τ and logit γ
profile     {θ_i : 2 (ℓ(θ̂) − max ℓ(θ with θ_i)) ≤ χ²_1(level)}: right where the likelihood is skewed
bootstrap   percentiles of refits to resampled episodes or subjects: right where these differ from each other
"""

import warnings
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.stats

from nearopt.behaviour.diagnosis import FitWarning
from nearopt.behaviour.optimise import data_of, optimise
from nearopt.behaviour.uncertainty import Fit, covariance_of, standard_errors
from nearopt.checks import number
from nearopt.mdp.errors import GroupError, KindError, NoSolutionError

FARTHEST = 2.0**20  # standard errors from the optimum at which a profile is taken to be open
NARROW = 1e-4  # how precisely the edge of what has a finite value is found
LEAST = 1e-3  # step of a profile, relative: at that edge curvatures are endless, and standard errors nothing
POSITIVE, UNIT = ("temperature",), ("discount",)


def by_covariance(fit: Fit, level: float, kind: str, group: np.ndarray | None) -> np.ndarray:
    """(2, R) of the public parameters."""
    z = scipy.stats.norm.ppf(0.5 + check_level(level) / 2)
    estimate = np.asarray(fit.family.public(jnp.asarray(fit.theta)))
    error = standard_errors(fit, kind, group)
    with np.errstate(invalid="ignore"):  # ∞ − ∞, where the reward is zero and its temperature ∞
        out = np.stack([estimate - z * error, estimate + z * error])
    for k, name in enumerate(fit.family.public_names, start=fit.family.reward.size):
        x, s = estimate[k], error[k]
        if name in POSITIVE:
            out[:, k] = x * np.exp(np.array([-z, z]) * s / x) if np.isfinite(x) else (0.0, np.inf)
        if name in UNIT:
            slope = s / max(x * (1 - x), 1e-300)
            out[:, k] = 1 / (1 + np.exp(-(np.log(x / (1 - x)) + np.array([-z, z]) * slope))) if 0 < x < 1 else x
    return out


def by_profile(fit: Fit, level: float, which: Sequence[int] | None = None, best: float | None = None) -> np.ndarray:
    """(2, Q) of θ, or of some of it and NaN elsewhere; ±inf where the likelihood never falls far enough.

    best: the objective at the optimum, where it is known.
    """
    if fit.family.scale_free and which is None:
        raise KindError("there is no profile of coefficients of length 1", "fix the temperature")
    z2 = scipy.stats.chi2.ppf(check_level(level), 1)
    data = data_of(fit.decisions)
    base = optimise(fit.family, data, fit.penalties, fit.theta, fit.free).value if best is None else best
    deviance = lambda value: 2 * fit.decisions.total * (value - base)
    error = theta_errors(fit)
    if which is not None:
        error = np.where(np.isfinite(error), error, LEAST * (1 + np.abs(fit.theta)))
    out = np.full((2, len(fit.theta)), np.nan)
    for i in np.flatnonzero(fit.free) if which is None else which:
        free = fit.free.copy()
        free[i] = False
        known = {float(fit.theta[i]): fit.theta}  # where the profile has been: a good start for its neighbourhood

        def excess(x: float, i: int = int(i), free: np.ndarray = free, known: dict = known) -> float:
            theta = known[min(known, key=lambda y: abs(y - x))].copy()
            theta[i] = x
            try:
                found = optimise(fit.family, data, fit.penalties, theta, free)
            except NoSolutionError:
                return np.inf
            known[x] = found.theta
            return deviance(found.value) - z2

        out[:, i] = [side(excess, fit.theta[i], sign * error[i], float(np.sqrt(z2))) for sign in (-1, 1)]
    return out


def side(excess: Callable[..., float], centre: float, step: float, z: float) -> float:
    """Where the profile crosses, on one side."""
    if not np.isfinite(step):
        return float(np.copysign(np.inf, step))
    near, far = 0.0, z
    while not (e := excess(centre + far * step)) > 0:
        if far > FARTHEST or np.isnan(e):
            return float(np.copysign(np.inf, step))
        near, far = far, 2 * far
    if not np.isfinite(e):  # there the agent has no finite value: the interval ends where it ceases to, at the latest
        while far - near > NARROW * far:
            middle = (near + far) / 2
            e = excess(centre + middle * step)
            if np.isfinite(e) and e > 0:
                far = middle
                break
            near, far = (middle, far) if e <= 0 else (near, middle)
        else:
            return float(centre + near * step)
    root = scipy.optimize.root_scalar(lambda x: excess(centre + x * step), bracket=(near, far), xtol=1e-6).root
    return float(centre + root * step)


def theta_errors(fit: Fit) -> np.ndarray:
    """(Q,) standard errors of θ itself, to measure steps with; of no use at the edge of what has a finite value."""
    try:
        covariance, endless = covariance_of(fit, "hessian", None)
    except ValueError:  # a Hessian with NaN
        return 0.1 * (1 + np.abs(fit.theta))
    known = np.maximum(np.sqrt(np.diag(covariance)), LEAST * (1 + np.abs(fit.theta)))
    return np.where(endless > 1e-6, np.inf, known)


def readable(fit: Fit, theta: np.ndarray) -> np.ndarray:
    """Bounds of θ as bounds of the public parameters, one at a time; NaN for the action prior, which has no own θ."""
    size, names = fit.family.reward.size, fit.family.dials
    out = np.full((2, size + len(fit.family.public_names)), np.nan)
    out[:, :size] = theta[:, :size]
    for k, name in enumerate(fit.family.public_names):
        if name in names and not name.startswith("log prior"):
            x = theta[:, size + names.index(name)]
            with np.errstate(over="ignore"):
                out[:, size + k] = np.exp(x) if name in POSITIVE else 1 / (1 + np.exp(-x)) if name in UNIT else x
    return out


def by_bootstrap(fit: Fit, level: float, group: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(2, R) percentiles over refits to resampled groups of trajectories."""
    tail = (1 - check_level(level)) / 2
    return np.quantile(bootstrap(fit, group, draws, seed), [tail, 1 - tail], axis=0)


def bootstrap(fit: Fit, group: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, R) public parameters of refits; each draws as many groups as there are, with replacement."""
    members = np.unique(group, return_inverse=True)[1]
    count = int(members.max()) + 1
    if count < 2:
        raise GroupError("there is one group of trajectories to resample", "resample episodes, or record more")
    rng, out, failed = np.random.default_rng(seed), [], 0
    for _ in range(draws):
        weight = np.bincount(rng.integers(count, size=count), minlength=count)[members].astype(float)
        found = optimise(fit.family, data_of(fit.decisions, weight), fit.penalties, fit.theta, fit.free)
        failed += not found.converged
        out.append(np.asarray(fit.family.public(jnp.asarray(found.theta))))
    if failed:
        warnings.warn(f"{failed} of {draws} refits of the bootstrap stopped short", FitWarning, stacklevel=4)
    return np.stack(out)


def check_level(level: float) -> float:
    level = number(level, KindError, "level")
    if not 0 < level < 1:
        raise KindError(f"the level is {level:g}", "give a number between 0 and 1, such as 0.95")
    return level
