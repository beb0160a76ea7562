"""The first thing a careful user runs: simulate from known parameters, fit, and see whether they come back.

Every repetition simulates as much behaviour as asked from the agent at the truth, in the world as it is, fits it from
scratch, and asks whether the interval of each parameter holds the truth. Intervals of level 95 % should in 95 % of
the repetitions; `Recovery.coverage` says in how many they did.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from sklearn.base import clone

from nearopt.behaviour.estimator import BehaviourModel
from nearopt.behaviour.family import Family, tables
from nearopt.behaviour.identifiability import coefficient_names
from nearopt.behaviour.simulate import simulate
from nearopt.checks import check_horizon, number
from nearopt.mdp.errors import CountError, FeatureError, HorizonError, KindError
from nearopt.records.trajectories import Trajectories


@dataclass(frozen=True)
class Recovery:
    """truth (R,); estimate, lower, upper (repetitions, R), NaN where a fit failed; names (R,); level of the intervals;
    converged (repetitions,).
    """

    names: tuple[str, ...]
    truth: np.ndarray
    estimate: np.ndarray = field(repr=False)
    lower: np.ndarray = field(repr=False)
    upper: np.ndarray = field(repr=False)
    converged: np.ndarray = field(repr=False)
    level: float

    @property
    def coverage(self) -> np.ndarray:
        """(R,) the share of repetitions whose interval holds the truth; those without an interval count as misses."""
        return ((self.lower <= self.truth) & (self.truth <= self.upper)).mean(axis=0)

    @property
    def coverage_interval(self) -> np.ndarray:
        """(2, R) what the coverage may be, to 95 %, given so many repetitions (Clopper & Pearson 1934)."""
        n = len(self.estimate)
        held = np.rint(self.coverage * n)
        low = np.where(held > 0, scipy.stats.beta.ppf(0.025, held, n - held + 1), 0.0)
        high = np.where(held < n, scipy.stats.beta.ppf(0.975, held + 1, n - held), 1.0)
        return np.stack([low, high])

    @property
    def bias(self) -> np.ndarray:
        """(R,) mean of the estimates, minus the truth."""
        return np.nanmean(self.estimate, axis=0) - self.truth

    def describe(self) -> str:
        """One line per parameter."""
        width = max(map(len, self.names), default=0)
        lines = [f"{'':{width}}      truth       mean     spread   coverage (of {self.level:.0%} intervals)"]
        spread = np.nanstd(self.estimate, axis=0)
        rows = zip(
            self.names, self.truth, self.bias + self.truth, spread, self.coverage, self.coverage_interval.T, strict=True
        )
        for name, truth, mean, sd, held, (low, high) in rows:
            lines.append(
                f"{name:{width}} {truth:10.4g} {mean:10.4g} {sd:10.3g}   {held:.1%}  ({low:.1%} to {high:.1%})"
            )
        return "\n".join(lines)


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
    fitted. trajectories: how many in each repetition, from the model's initial states, of up to `decisions` decisions.
    kind: of the intervals, as in `BehaviourModel.intervals`. Raises `FeatureError` and `KindError` for a truth that is
    no member of the family, `CountError`, `HorizonError`.

    >>> import numpy as np, nearopt as no
    >>> mdp = no.MDP.from_grid("S...\\n...G", slip=0.1, discount=0.9)
    >>> model = no.BehaviourModel(mdp, reward="model", temperature="fit")
    >>> found = no.recover(model, {"temperature": 0.5}, trajectories=20, decisions=10, repetitions=3)
    >>> found.names, found.estimate.shape
    (('temperature',), (3, 1))
    """
    counts = (("trajectories", trajectories), ("repetitions", repetitions))
    for name, value in counts:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise CountError(f"{name} is {value!r}", "give a whole number of at least 1")
    decisions = check_horizon(decisions)
    if isinstance(model.horizon, int) and decisions > model.horizon:
        raise HorizonError(f"{decisions} decisions do not fit into a horizon of {model.horizon}", "simulate fewer")
    with jax.enable_x64(True):
        family = model.family(decisions if model.horizon == "episode" else model.horizon)
        theta = truth_of(family, truth)
        policy = np.asarray(tables(family, jnp.asarray(theta))[0])
        public = np.asarray(family.public(jnp.asarray(theta)))
    names = (*coefficient_names(model.mdp, family), *family.public_names)
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(repetitions):
        first = rng.choice(model.mdp.num_states, trajectories, p=model.mdp.initial)
        length = np.full(trajectories, decisions)
        seen = simulate(model.mdp, policy, first, length, int(rng.integers(2**63)))
        rows.append(one_fit(model, seen, level, kind))
        if tell is not None:
            tell(f"repetition {k + 1} of {repetitions}")
    estimate, lower, upper, converged = map(np.array, zip(*rows, strict=True))
    return Recovery(names, public, estimate, lower, upper, converged, level)


def one_fit(model: BehaviourModel, seen: Trajectories, level: float, kind: str) -> tuple:
    """Estimate, lower and upper bounds of all public parameters, and whether the fit converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a fit would say of itself is in `converged`
        fitted = clone(model).fit(seen)
        bounds = fitted.intervals(level, kind)
    flat = lambda part: np.concatenate(
        [np.ravel(bounds["coef"][part]), *(np.ravel(bounds[n][part]) for n in fitted.dials_)]
    )
    estimate = np.concatenate([fitted.coef_.reshape(-1), np.array(list(fitted.dials_.values()))])
    return estimate, flat(0), flat(1), fitted.converged_


def truth_of(family: Family, truth: Mapping[str, object]) -> np.ndarray:
    """θ of parameters as a user names them."""
    wanted = {name for name in family.public_names if not name.startswith("log prior")}
    coefficients = family.reward.size > 0
    missing = wanted - set(truth) | ({"coef"} - set(truth) if coefficients else set())
    extra = set(truth) - wanted - ({"coef"} if coefficients else set())
    if missing or extra:
        asked = ", ".join(sorted(wanted | ({"coef"} if coefficients else set())))
        raise KindError(
            f"the truth names {', '.join(sorted(truth)) or 'nothing'}", f"name just what is fitted: {asked}"
        )
    coef = np.asarray(truth.get("coef", np.zeros(0)), float)
    if family.reward.kind == "maps" or coef.size != family.reward.size:
        raise FeatureError(f"the true coefficients have shape {coef.shape}", f"give {family.reward.shape}")
    values = {name: number(truth[name], KindError, f"true {name}") for name in wanted}
    scale = values["temperature"] if family.scale_free else 1.0
    onto = {"temperature": np.log, "optimism": lambda x: x, "discount": lambda x: np.log(x / (1 - x))}
    dials = [onto[name](values[name]) if name in values else 0.0 for name in family.dials]
    return np.concatenate([coef.reshape(-1) / scale, dials])
