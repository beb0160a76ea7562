"""Everything worth saying about one fit, as numbers: `nearopt fit` writes them down, `figures` draws them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nearopt.behaviour.baselines import recorded
from nearopt.behaviour.comparison import Row, baselines, compare
from nearopt.behaviour.optimise import value_and_gradient
from nearopt.behaviour.predictive import Checks, check
from nearopt.mdp.errors import GroupError, KindError, PenaltyError
from nearopt.mdp.model import MDP
from nearopt.records.trajectories import Trajectories

if TYPE_CHECKING:
    from nearopt.behaviour.estimator import BehaviourModel
    from nearopt.behaviour.luck import OptimismTest

SHOWN = 40  # coefficients that are shown one by one
FITTED = "fitted agent"  # the first row of the comparison


class Asked(NamedTuple):
    """What a report is to hold; see `BehaviourModel.intervals` for the first three."""

    level: float = 0.95
    stderr: str = "hessian"
    intervals: str = "stderr"  # or "profile", "bootstrap"
    by: str | None = None
    optimism_test: bool = False
    features: tuple[str, ...] | None = None  # their names
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Report:
    """A fitted model, what it was fitted to, what was held back, and what follows.

    stderr, lower, upper: of `model.coef_`, in its shape, NaN where there are none (`unsure` says why). dials: estimate,
    lower and upper bound of each dial that was fitted. rows: the comparison, the fitted agent first; with nothing held
    out its `held_out` is NaN. gradient: its largest component, nats per decision. checks: of what was held out, or else
    of the training data; None where no trajectory has a first state.
    """

    model: "BehaviourModel"
    train: Trajectories
    held_out: Trajectories
    asked: Asked
    stderr: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    dials: dict[str, tuple[float, float, float]]
    unsure: str
    rows: tuple[Row, ...]
    gradient: float
    checks: Checks | None
    optimism: "OptimismTest | None"

    # ------------------------------------------------------------ what figures read
    @property
    def mdp(self) -> MDP:
        return self.model.mdp

    @property
    def coef(self) -> np.ndarray:
        return self.model.coef_

    @property
    def level(self) -> float:
        return self.asked.level

    @property
    def time_varying(self) -> bool:
        return bool(self.model.fit_.family.reward.time_varying)

    @cached_property
    def recorded(self) -> Trajectories:
        """All of the data."""
        return Trajectories.concatenate([self.train, self.held_out]) if len(self.held_out) else self.train

    @cached_property
    def taken(self) -> np.ndarray:
        """(S, A) how often each action was recorded in each state."""
        out = np.zeros((self.mdp.num_states, self.mdp.num_actions), int)
        np.add.at(out, recorded(self.recorded)[2:], 1)
        return out

    @property
    def visits(self) -> np.ndarray:
        """(S,) decisions recorded in each state."""
        return self.taken.sum(axis=1)

    @cached_property
    def moves(self) -> tuple[np.ndarray, np.ndarray]:
        """(M, 2) pairs of states recorded one after the other, and (M,) how often."""
        here, there = self.recorded.state[:, :-1], self.recorded.state[:, 1:]
        both = (here >= 0) & (there >= 0)
        return np.unique(np.stack([here[both], there[both]], 1), axis=0, return_counts=True)

    @cached_property
    def reward(self) -> np.ndarray:
        """(S, A), or (T, S, A) over time: fitted reward, expected over the next state; NaN for unavailable actions."""
        reward, (states, actions) = np.asarray(self.model.reward_), self.mdp.available.shape
        if reward.ndim - self.time_varying == 3:
            table = self.mdp.transition
            steps = reward.reshape(-1, states * actions, states)
            each = [np.asarray(table.multiply(step).sum(axis=1)).reshape(states, actions) for step in steps]
            reward = np.stack(each) if self.time_varying else each[0]
        return np.where(self.mdp.available, reward, np.nan)

    @property
    def maps(self) -> np.ndarray | None:
        """(K, S) of reward="maps"; its coefficients are their weights."""
        fit = self.model.fit_
        if fit.family.reward.kind != "maps":
            return None
        return np.asarray(fit.family.reward.split(jnp.asarray(fit.theta[: fit.family.reward.size]))[0])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each entry of `coef`, flattened, belongs to."""
        return coefficient_names(self.model, self.asked.features)

    @cached_property
    def shown(self) -> np.ndarray:
        """Which entries of `coef`, flattened, are worth a line: all, or the 40 that are farthest from 0, in s.e."""
        coef, error = np.abs(self.coef.reshape(-1)), self.stderr.reshape(-1)
        if len(coef) <= SHOWN:
            return np.arange(len(coef))
        with np.errstate(invalid="ignore", divide="ignore"):
            far = np.where(np.isfinite(error) & (error > 0), coef / error, 0.0) if np.isfinite(error).any() else coef
        return np.sort(np.argsort(-far, kind="stable")[:SHOWN])

    # ------------------------------------------------------------ words
    def identifiability(self) -> str:
        """`Identifiability.describe`, with the names of the features."""
        words = self.model.identifiability_.describe()
        if self.asked.features is not None and self.model.reward == "linear":
            for i in reversed(range(len(self.names))):  # "coefficient 12" before "coefficient 1"
                words = words.replace(f"coefficient {i}", self.names[i])
        return words


def make_report(
    model: "BehaviourModel",
    train: Trajectories,
    held_out: Trajectories,
    asked: Asked,
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """The report on a model fitted to `train`. `held_out` may be empty. Raises `KindError`, `GroupError`."""
    tell("measuring uncertainty")
    stderr, (lower, upper), dials, unsure = uncertainty(model, asked)
    tell("comparing with the baselines")
    rows = comparison(model, train, held_out)
    tell("simulating the fitted agent")
    checks = check(model, held_out if len(held_out) else train, asked.seed)
    optimism = None
    if asked.optimism_test:
        tell("testing optimism")
        optimism = model.optimism_test(train, asked.level)
    tell("asking what the data cannot tell")
    _ = model.identifiability_
    numbers = (stderr, lower, upper, dials, unsure, rows, steepest(model), checks, optimism)
    return Report(model, train, held_out, asked, *numbers)


def uncertainty(model: "BehaviourModel", asked: Asked) -> tuple[np.ndarray, np.ndarray, dict, str]:
    """Standard errors, bounds, dials with theirs, and why there are none."""
    kind = asked.stderr if asked.intervals == "stderr" else asked.intervals
    by = asked.by if kind not in ("hessian", "profile") else None
    unknown, unsure = np.full(model.coef_.shape, np.nan), ""
    try:
        stderr = model.stderr(asked.stderr, by=None if asked.stderr == "hessian" else asked.by)
        bounds = model.intervals(asked.level, kind, by=by, seed=asked.seed)
    except (PenaltyError, KindError, GroupError) as error:
        stderr, unsure = unknown, str(error)
        bounds = {"coef": np.stack([unknown, unknown])}
    nothing = (np.nan, np.nan)
    dials = {name: (x, *map(float, bounds.get(name, nothing))) for name, x in model.dials_.items()}
    return stderr, bounds["coef"], dials, unsure


def comparison(model: "BehaviourModel", train: Trajectories, held_out: Trajectories) -> tuple[Row, ...]:
    """The fitted agent beside the baselines."""
    with np.errstate(invalid="ignore"):  # −inf − −inf: neither predicts what happened
        rows = compare({FITTED: model} | baselines(model), train, held_out if len(held_out) else train)
    if len(held_out):
        return tuple(rows)
    return tuple(replace(row, held_out=np.nan, difference=np.nan, error=np.nan) for row in rows)


def steepest(model: "BehaviourModel") -> float:
    """The largest component of the gradient at the optimum."""
    fit = model.fit_
    with jax.enable_x64(True):
        guess = jnp.zeros(fit.family.blocks.size)
        _, slope = value_and_gradient(jnp.asarray(fit.theta), fit.family, fit.data, fit.penalties, guess)
    return float(np.abs(np.asarray(slope)[fit.free]).max(initial=0.0))


def coefficient_names(model: "BehaviourModel", features: tuple[str, ...] | None) -> tuple[str, ...]:
    """One name per entry of `coef_`, flattened."""
    mdp, shape, timed = model.mdp, model.coef_.shape, bool(model.fit_.family.reward.time_varying)
    size = int(np.prod(shape[timed:]))
    state = [f"state {s}" if mdp.state_names is None else str(mdp.state_names[s]) for s in range(mdp.num_states)]
    action = [f"action {a}" if mdp.action_names is None else str(mdp.action_names[a]) for a in range(mdp.num_actions)]
    if model.reward == "state":
        names = state
    elif model.reward == "state_action":
        names = [f"{s}: {a}" for s in state for a in action]
    elif features is not None and len(features) == size:
        names = list(features)
    else:
        word = {"linear": "feature", "maps": "weight of map", "network": "weight"}
        kind = model.reward if isinstance(model.reward, str) else ""
        names = [f"{word.get(kind, 'coefficient')} {i}" for i in range(size)]
    return tuple(f"{name}, t={t}" for t in range(shape[0]) for name in names) if timed else tuple(names)
