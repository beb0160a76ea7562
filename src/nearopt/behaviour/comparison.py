"""Which explanation predicts best: held-out log-likelihood, cross-validation, AIC and BIC, beside the baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold

from nearopt.behaviour.baselines import EmpiricalMarkov, HardWithLapses, Uniform, recorded
from nearopt.behaviour.estimator import BehaviourModel
from nearopt.mdp.errors import GroupError
from nearopt.records.trajectories import Trajectories

BIT = np.log(2.0)


@dataclass(frozen=True)
class Row:
    """One explanation. train, held_out: mean log-likelihood per decision, nats; error: the standard error, over
    trajectories, of how much better the first row predicts. aic, bic: of the training data, in nats × 2; effective
    parameters are those that the data tell apart, whatever the penalties.
    """

    name: str
    parameters: float
    train: float
    held_out: float
    difference: float
    error: float
    aic: float
    bic: float

    @property
    def bits(self) -> float:
        """`held_out` in bits."""
        return self.held_out / BIT


def compare(models: Mapping[str, Any], train: Trajectories, held_out: Trajectories) -> list[Row]:
    """Fits every model to `train` and asks it for `held_out`; the first is what the others are compared with.

    Models are `BehaviourModel`s, or whatever has `fit`, `log_likelihoods` and `num_parameters_`; one that is fitted
    already is left as it is. Raises `GroupError` where nothing is held out.
    """
    if not len(held_out):
        raise GroupError("there are no held-out trajectories", "hold some back")
    rows, first = [], None
    lengths = np.bincount(recorded(held_out)[0], minlength=len(held_out))
    for name, model in models.items():
        fitted = model if hasattr(model, "policy_") else model.fit(train)
        inside, decisions = fitted.log_likelihoods(train)
        outside, total = fitted.log_likelihoods(held_out)
        first = outside if first is None else first
        gap = first - outside
        even = gap - gap.sum() / total * lengths  # what a trajectory gains beyond its share of decisions
        deviance = -2 * float(inside.sum())
        rows.append(
            Row(
                name,
                fitted.num_parameters_,
                float(inside.sum()) / decisions,
                float(outside.sum()) / total,
                float(gap.sum()) / total,
                spread(even) / total,
                deviance + 2 * fitted.num_parameters_,
                deviance + float(np.log(decisions)) * fitted.num_parameters_,
            )
        )
    return rows


def baselines(model: BehaviourModel) -> dict[str, Any]:
    """What a reviewer asks for beside a fitted model."""
    mdp = model.mdp
    out: dict[str, Any] = {"hard-optimal with lapses": HardWithLapses(model)}
    if (mdp.branch_reward != 0).any() and model.reward != "model":
        dials: dict[str, Any] = dict(
            horizon=model.horizon, discount=model.discount, optimism=model.optimism, prior=model.prior
        )
        out["soft-optimal for the model's own reward"] = BehaviourModel(mdp, reward="model", temperature="fit", **dials)
    out["empirical Markov"] = EmpiricalMarkov(mdp)
    if model.horizon is not None:
        out["empirical Markov, over time"] = EmpiricalMarkov(mdp, time_varying=True)
    return out | {"uniform": Uniform(mdp)}


def cross_validate(model: Any, trajectories: Trajectories, folds: int = 5, by: str = "episode") -> np.ndarray:
    """(folds,) mean log-likelihood per decision, nats, of each fold under a fit to the others.

    by: "episode", or "subject": whole subjects are held out. The model given is not touched. Raises `GroupError`.
    """
    groups = trajectories.subject if by == "subject" else np.arange(len(trajectories))
    if groups is None:
        raise GroupError("the trajectories name no subject", "read them with subject=..., or hold out episodes")
    count = len(np.unique(groups))
    if not 2 <= folds <= count:
        raise GroupError(f"{count} {by}s cannot be cut into {folds} folds", f"take 2 to {count}")
    nothing, labels = np.zeros(len(trajectories)), np.unique(groups, return_inverse=True)[1]
    if by == "subject":
        cuts = GroupKFold(folds).split(nothing, groups=labels)
    else:
        cuts = KFold(folds, shuffle=True, random_state=0).split(nothing)
    fresh: Callable[[], Any] = lambda: clone(model)
    return np.array([fresh().fit(trajectories[a]).score(trajectories[b]) for a, b in cuts])


def spread(gap: np.ndarray) -> float:
    """The standard error of a sum over trajectories."""
    return float(np.sqrt(len(gap)) * gap.std(ddof=1)) if len(gap) > 1 else float("nan")
