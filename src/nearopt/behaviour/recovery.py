"""The first thing a careful user runs: simulate from known parameters, fit, and see whether they come back.

Every repetition simulates as much behaviour as asked from the agent at the truth, in the world as it is, fits it from
scratch, and asks whether the interval of each parameter holds the truth. Intervals of level 95 % should in 95 % of
the repetitions; `Recovery.coverage` says in how many they did, `Recovery.verdict` what to make of it.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from sklearn.base import clone

from nearopt.behaviour.estimator import BehaviourModel, fitted
from nearopt.behaviour.family import Family, Parameters, tables
from nearopt.behaviour.identifiability import blind_to_luck, coefficient_names
from nearopt.behaviour.intervals import check_level
from nearopt.behaviour.simulate import simulate
from nearopt.behaviour.uncertainty import standard_errors
from nearopt.checks import check_horizon, check_model, check_span, number
from nearopt.mdp.errors import (
    CountError,
    DiscountError,
    DivergentError,
    FeatureError,
    ForbiddenStateError,
    HorizonError,
    ImproperError,
    KindError,
    NoDecisionsError,
    NoSolutionError,
    TemperatureError,
    UndecidedError,
)
from nearopt.planning.solve import solve
from nearopt.records.trajectories import Trajectories

HARMFUL = 0.25  # of the spread: a bias above it eats into the coverage
SURE = 3.0  # standard errors from which on a bias is no accident of the simulation
VAGUE = 0.15  # width of an interval of coverage that says little
ZERO = 1e-12  # what is printed as 0
STUCK = 0.01  # of the standard error: a spread below it says that the estimates follow no data
FAILURES = 3  # failed repetitions without any success, after which there is no point in going on
UNFIT = (NoSolutionError, NoDecisionsError)  # what one draw of behaviour may suffer, and another one not


@dataclass(frozen=True)
class Recovery:
    """truth (R,); estimate, stderr, lower, upper (repetitions, R), NaN where a fit failed or has no interval; names
    (R,); converged (repetitions,); level of the intervals.

    stderr is of the kind of the intervals, or from the Hessian where these are "profile" or "bootstrap".
    """

    names: tuple[str, ...]
    truth: np.ndarray
    estimate: np.ndarray = field(repr=False)
    stderr: np.ndarray = field(repr=False)
    lower: np.ndarray = field(repr=False)
    upper: np.ndarray = field(repr=False)
    converged: np.ndarray = field(repr=False)
    level: float

    @property
    def fitted(self) -> np.ndarray:
        """(repetitions,) whether there was a fit, converged or not."""
        return ~np.isnan(self.estimate).any(axis=1)

    @property
    def held(self) -> np.ndarray:
        """(repetitions, R) whether the interval holds the truth; where there is none, it does not."""
        return (self.lower <= self.truth) & (self.truth <= self.upper)

    @property
    def coverage(self) -> np.ndarray:
        """(R,) the share of repetitions whose interval holds the truth; failed fits count as misses. NaN for a
        parameter that never has an interval.
        """
        never = np.isnan(self.lower).all(axis=0)
        return np.where(never, np.nan, self.held.mean(axis=0))

    @property
    def coverage_interval(self) -> np.ndarray:
        """(2, R) what the coverage may be, to 95 %, given so many repetitions (Clopper & Pearson 1934)."""
        n = len(self.estimate)
        held = np.rint(self.coverage * n)
        low = np.where(held == 0, 0.0, scipy.stats.beta.ppf(0.025, held, n - held + 1))
        high = np.where(held == n, 1.0, scipy.stats.beta.ppf(0.975, held + 1, n - held))
        return np.stack([low, high])

    @property
    def endless(self) -> np.ndarray:
        """(R,) the share of repetitions with an infinite interval: what the data do not tell."""
        return (np.isinf(self.lower) | np.isinf(self.upper)).mean(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """(R,) mean of the estimates."""
        return over_fits(np.mean, self.estimate[self.fitted])

    @property
    def bias(self) -> np.ndarray:
        """(R,) mean of the estimates, minus the truth."""
        return self.mean - self.truth

    @property
    def spread(self) -> np.ndarray:
        """(R,) standard deviation of the estimates over the repetitions; NaN with fewer than two fits."""
        return over_fits(lambda x, axis: x.std(axis=axis, ddof=1), self.estimate[self.fitted], least=2)

    @property
    def mean_stderr(self) -> np.ndarray:
        """(R,) mean of the standard errors, to be compared with `spread`; inf where the data once said nothing."""
        return over_fits(np.mean, self.stderr[self.fitted])

    @property
    def faults(self) -> tuple[str, ...]:
        """(R,) what is wrong with each parameter, in a word or two; "" where nothing is."""
        low, high = self.coverage_interval
        shifted, out = self.shifted, []
        for k in range(len(self.names)):
            if np.isnan(self.coverage[k]):
                out.append("no interval")
            elif self.endless[k] > 0.5 or self.spread[k] < STUCK * self.mean_stderr[k]:
                out.append("not told")
            elif high[k] < self.level:
                out.append("too short")
            elif shifted[k]:
                out.append("biased")
            else:
                out.append("too long" if low[k] > self.level else "")
        return tuple(out)

    def verdict(self) -> list[str]:
        """What has been shown, in sentences."""
        faults, n, out = np.array(self.faults, object), len(self.estimate), []
        low, high = self.coverage_interval
        which = lambda *words: [k for k in range(len(faults)) if faults[k] in words]
        if good := which("", "too long"):
            out.append(f"Recovered: {listed([self.names[k] for k in good])}.")
        if bad := which("too short"):
            told = [f"{self.names[k]} ({share(low[k])} to {share(high[k])})" for k in bad]
            out.append(f"Intervals too short, they should hold the truth in {share(self.level)}: {listed(told)}.")
        if off := [k for k in which("biased", "too short") if self.shifted[k]]:
            told = [f"{self.names[k]} by {self.bias[k]:+.3g}" for k in off]
            out.append(f"Estimates that are off on average: {listed(told)}.")
        if long := which("too long"):
            out.append(f"Intervals longer than they need to be: {listed([self.names[k] for k in long])}.")
        if unseen := which("not told"):
            out.append(f"Such data do not tell: {listed([self.names[k] for k in unseen])}.")
        if none := which("no interval"):
            out.append(f"Without intervals of this kind: {listed([self.names[k] for k in none])}.")
        if len(faults) >= 20 and bad:
            out.append(f"Of {len(faults):,} parameters chance alone would make some 2.5 % seem too short.")
        if not self.converged.all():
            failed = int((~self.fitted).sum())
            words = f", {failed:,} of them because no fit could be made" if failed else ""
            out.append(f"{int((~self.converged).sum()):,} of {n:,} fits did not converge{words}.")
        if len(faults) and (high - low)[~np.isnan(low)].max(initial=0.0) > VAGUE:
            out.append(f"So few repetitions ({n:,}) leave the coverage vague: take more.")
        return out

    @property
    def shifted(self) -> np.ndarray:
        """(R,) bool: a bias that matters, and is no accident."""
        n, rounding = max(int(self.fitted.sum()), 1), 1e-6 * np.maximum(np.abs(self.truth), 1.0)
        return np.abs(self.bias) > np.maximum(max(HARMFUL, SURE / np.sqrt(n)) * self.spread, rounding)

    def table(self, which: Iterable[int] | None = None) -> list[tuple[str, ...]]:
        """A heading, and a row of text per parameter, or per some of them."""
        rows: list[tuple[str, ...]] = [("", "truth", "mean", "bias", "spread", "mean s.e.", "coverage", "may be", "")]
        low, high = self.coverage_interval
        columns = np.stack([self.truth, self.mean, self.bias, self.spread, self.mean_stderr], 1)
        for k in range(len(self.names)) if which is None else which:
            truth, mean, bias, spread, error = (0.0 if abs(x) <= ZERO else x for x in columns[k].tolist())
            told = (*(f"{x:.4g}" for x in (truth, mean)), f"{bias:+.2g}", *(f"{x:.3g}" for x in (spread, error)))
            held = (
                ("none", "") if np.isnan(low[k]) else (share(self.coverage[k]), f"{share(low[k])} to {share(high[k])}")
            )
            rows.append((self.names[k], *told, *held, self.faults[k]))
        return rows

    def describe(self) -> str:
        """A line per parameter, and the verdict."""
        rows = self.table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self.verdict()])


def over_fits(measure: Callable[..., np.ndarray], some: np.ndarray, least: int = 1) -> np.ndarray:
    return measure(some, axis=0) if len(some) >= least else np.full(some.shape[1], np.nan)


def share(x: float) -> str:
    return f"{100 * x:.3g} %"


def listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def recover(
    model: BehaviourModel,
    truth: Mapping[str, object],
    *,
    trajectories: int = 100,
    decisions: int = 50,
    repetitions: int = 100,
    level: float = 0.95,
    kind: str = "hessian",
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Recovery:
    """Simulates, fits and compares, `repetitions` times. `model` is left as it is; it says what is fitted.

    truth: "coef" in the shape of `coef_`, and a number for each of "temperature", "optimism", "discount" that is
    fitted; a fitted action prior is uniform. trajectories: how many in each repetition, from the model's initial
    states, of up to `decisions` decisions, which are also the horizon of an agent with horizon="episode". kind: of the
    intervals, as in `BehaviourModel.intervals`. Raises `FeatureError` and `KindError` for a truth that is no member of
    the family, `NoSolutionError` for one without a finite value, `CountError`, `HorizonError`.

    >>> import numpy as np, nearopt as no
    >>> mdp = no.MDP.from_grid("S...\\n...G", slip=0.1, discount=0.9)
    >>> model = no.BehaviourModel(mdp, reward="model", temperature="fit")
    >>> found = no.recover(model, {"temperature": 0.5}, trajectories=20, decisions=10, repetitions=3)
    >>> found.names, found.estimate.shape
    (('temperature',), (3, 1))
    """
    check_counts(dict(trajectories=trajectories, repetitions=repetitions))
    check_level(level)
    check_model(model.mdp)
    with jax.enable_x64(True):
        family = family_of(model, decisions)
        theta = truth_of(family, truth)
        if kind == "profile" and family.scale_free:
            raise KindError("there is no profile of coefficients of length 1", "fix the temperature")
        policy, reward, at, public = tables(family, jnp.asarray(theta))
        policy, public = np.asarray(policy), np.asarray(public)
    check_truth(model, family, reward, at)
    names = (*coefficient_names(model.mdp, family), *family.public_names)
    if "optimism" in names and blind_to_luck(model.mdp, family):
        raise KindError("optimism cannot be recovered: in this world there is no luck", "fix the optimism")
    rng = np.random.default_rng(seed)
    rows, failed = [], []
    for k in range(repetitions):
        if tell is not None:
            tell(f"repetition {k + 1:,} of {repetitions:,}")
        first = rng.choice(model.mdp.num_states, trajectories, p=model.mdp.initial)
        length = np.full(trajectories, decisions)
        seen = simulate(model.mdp, policy, first, length, int(rng.integers(2**63)))
        try:
            rows.append(one_fit(model, seen, level, kind))
        except UNFIT as error:
            failed.append(error)
            rows.append((*np.full((4, len(names)), np.nan), False))
            if len(failed) == k + 1 >= min(FAILURES, repetitions):
                raise
    estimate, error, lower, upper, converged = map(np.array, zip(*rows, strict=True))
    return Recovery(names, public, estimate, error, lower, upper, converged, level)


def one_fit(model: BehaviourModel, seen: Trajectories, level: float, kind: str) -> tuple:
    """Estimate, standard error, lower and upper bounds of all public parameters, and whether the fit converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a fit would say of itself is in `converged`
        fresh: Any = clone(model)
        known: BehaviourModel = fresh.fit(seen)
        bounds = known.intervals(level, kind)
        with jax.enable_x64(True):
            error = standard_errors(known.fit_, "hessian" if kind in ("profile", "bootstrap") else kind, None)
    flat = lambda part: np.concatenate(
        [np.ravel(bounds["coef"][part]), *(np.ravel(bounds[n][part]) for n in known.dials_)]
    )
    estimate = np.concatenate([known.coef_.reshape(-1), np.array(list(known.dials_.values()))])
    return estimate, error, flat(0), flat(1), bool(known.converged_)


# ---------------------------------------------------------------- what is asked
def check_counts(counts: Mapping[str, object]) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise CountError(f"{name} is {value!r}", "give a whole number of at least 1")


def family_of(model: BehaviourModel, decisions: int) -> Family:
    """What is fitted to trajectories of so many decisions. Call it under 64-bit JAX."""
    decisions, horizon = check_horizon(decisions), check_span(model.horizon)
    if isinstance(horizon, int) and decisions > horizon:
        raise HorizonError(f"{decisions} decisions do not fit into a horizon of {horizon}", "simulate as many")
    return model.family(decisions if isinstance(horizon, str) else horizon)


def check_truth(model: BehaviourModel, family: Family, reward: Any, at: Parameters) -> None:
    """Raises `NoSolutionError` where the agent has no finite value: Newton's method may find what looks like one."""
    if family.steps is not None:
        return
    mdp, changes = model.mdp, dict(discount=model.mdp.discount if at.discount is None else float(at.discount))
    if reward is not None:
        choice = mdp.branch_choice
        place = (mdp.choice_state[choice], mdp.choice_action[choice], mdp.next_state)
        reward = np.asarray(reward)
        changes["branch_reward"] = reward[place[: reward.ndim]]
    prior = np.where(mdp.available, 1 / mdp.num_actions, 0.0) if fitted(model.prior) else model.prior
    dials: dict[str, Any] = dict(temperature=float(at.temperature), optimism=float(at.optimism), prior=prior)
    try:
        solve(mdp.replace(**changes), **dials, throw=False)
    except (ForbiddenStateError, ImproperError, DivergentError, UndecidedError) as error:
        problem = f"the agent at the true parameters has no finite value: {error.problem}"
        raise NoSolutionError(problem, error.mend) from None


def draw_coefficients(model: BehaviourModel, decisions: int, seed: int) -> np.ndarray:
    """True coefficients, each from a standard normal, in the shape of `coef_`; empty where there are none."""
    check_model(model.mdp)
    with jax.enable_x64(True):
        shape = family_of(model, decisions).reward.shape
    return np.random.default_rng([seed, 1]).normal(size=shape)  # not the stream that simulates


def truth_of(family: Family, truth: Mapping[str, object]) -> np.ndarray:
    """θ of parameters as a user names them."""
    wanted = {name for name in family.public_names if not name.startswith("log prior")}
    coefficients = family.reward.size > 0
    missing = wanted - set(truth) | ({"coef"} - set(truth) if coefficients else set())
    extra = set(truth) - wanted - ({"coef"} if coefficients else set())
    if missing or extra:
        asked = ", ".join(sorted(wanted | ({"coef"} if coefficients else set())))
        mend = f"name just what is fitted: {asked}" if asked else "fit something: reward, temperature, optimism"
        raise KindError(f"the truth names {', '.join(sorted(truth)) or 'nothing'}", mend)
    coef = np.asarray(truth.get("coef", np.zeros(0)), float)
    if family.reward.kind == "maps" or coef.size != family.reward.size:
        raise FeatureError(f"the true coefficients have shape {coef.shape}", f"give {family.reward.shape}")
    if not np.isfinite(coef).all() or family.scale_free and not coef.any():
        mend = "give finite numbers, and not all of them 0 where the temperature is fitted"
        raise FeatureError(f"the true coefficients are {coef.reshape(-1)[:6].tolist()}", mend)
    values = {name: number(truth[name], KindError, f"true {name}") for name in wanted}
    if values.get("temperature", 1.0) <= 0:
        raise TemperatureError(f"the true temperature is {values['temperature']:g}", "give a number above 0")
    if not 0 < values.get("discount", 0.5) < 1:
        raise DiscountError(f"the true discount is {values['discount']:g}", "give a number between 0 and 1")
    scale = values["temperature"] if family.scale_free else 1.0
    onto = {"temperature": np.log, "optimism": lambda x: x, "discount": lambda x: np.log(x / (1 - x))}
    dials = [onto[name](values[name]) if name in values else 0.0 for name in family.dials]
    return np.concatenate([coef.reshape(-1) / scale, dials])
