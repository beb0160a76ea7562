"""What a fit has to beat, or at least to stand beside: policies without a reward, and hard control with lapses.

Each is an estimator with `fit`, `score` and `num_parameters_`, as `BehaviourModel` is.
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from nearopt.behaviour.estimator import BehaviourModel
from nearopt.mdp.errors import NoDecisionsError, PenaltyError
from nearopt.mdp.model import MDP
from nearopt.records.trajectories import Trajectories

LAPSES = np.concatenate([np.geomspace(1e-4, 0.1, 60), np.linspace(0.11, 1.0, 90)])  # rates that are tried


class Baseline(BaseEstimator):
    """A policy π(a|s), or π_t(a|s), that is found without solving for a reward; `fit` sets `policy_`."""

    policy_: np.ndarray
    num_parameters_: float

    def log_likelihoods(self, trajectories: Trajectories) -> tuple[np.ndarray, int]:
        """(n,) that of every trajectory, nats, and the number of decisions."""
        check_is_fitted(self)
        row, t, state, action = recorded(trajectories)
        policy, offset = self.over_time(trajectories)
        with np.errstate(divide="ignore"):
            step = (np.minimum(offset[row] + t, len(policy) - 1),) if policy.ndim == 3 else ()
            logs = np.log(policy[(*step, state, action)])
        return np.bincount(row, logs, len(trajectories)), len(row)

    def over_time(self, trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        """The policy, and at which of its steps each trajectory (n,) begins; its last step stands for all later."""
        return self.policy_, np.zeros(len(trajectories), int)

    def score(self, trajectories: Trajectories, y: Any = None) -> float:
        """Mean log-likelihood per decision, nats."""
        logs, total = self.log_likelihoods(trajectories)
        return float(logs.sum() / total)


class Uniform(Baseline):
    """Every available action alike."""

    def __init__(self, mdp: MDP):
        self.mdp = mdp

    def fit(self, trajectories: Trajectories, y: Any = None) -> "Uniform":
        available = self.mdp.available
        self.policy_ = available / np.maximum(available.sum(1, keepdims=True), 1)
        self.num_parameters_ = 0
        return self


class EmpiricalMarkov(Baseline):
    """How often each action was taken in each state, with `smoothing` added to every count; with time_varying also at
    each time; times after the last recorded one are taken for that. It explains the most, and says nothing about why.
    """

    def __init__(self, mdp: MDP, smoothing: float = 0.1, time_varying: bool = False):
        self.mdp = mdp
        self.smoothing = smoothing
        self.time_varying = time_varying

    def fit(self, trajectories: Trajectories, y: Any = None) -> "EmpiricalMarkov":
        """Raises `PenaltyError` for a smoothing below 0."""
        if not self.smoothing >= 0:
            raise PenaltyError(f"the smoothing is {self.smoothing!r}", "give a number of at least 0")
        _, t, state, action = recorded(trajectories)
        available = self.mdp.available
        shape = (int(t.max()) + 1, *available.shape) if self.time_varying else available.shape
        counts = np.zeros(shape)
        np.add.at(counts, (t, state, action) if self.time_varying else (state, action), 1.0)
        counts += self.smoothing * available
        total = counts.sum(-1, keepdims=True)
        uniform = available / np.maximum(available.sum(1, keepdims=True), 1)
        self.policy_ = np.where(total > 0, counts / np.where(total > 0, total, 1), uniform)
        seen = np.zeros(shape[:-1], bool)
        seen[(t, state) if self.time_varying else state] = True
        self.num_parameters_ = int(np.maximum(available.sum(1) - 1, 0)[np.nonzero(seen)[-1]].sum())
        return self


class HardWithLapses(Baseline):
    """The best actions for the reward of a fitted `BehaviourModel`, except for a share of lapses, which are uniform."""

    def __init__(self, model: BehaviourModel):
        self.model = model

    def fit(self, trajectories: Trajectories, y: Any = None) -> "HardWithLapses":
        self.uniform_ = Uniform(self.model.mdp).fit(trajectories).policy_
        self.hard_ = self.model.policy_of(self.span(trajectories), hard=True)
        hard, offset = self.hard(trajectories)
        row, t, state, action = recorded(trajectories)
        step = (np.minimum(offset[row] + t, len(hard) - 1),) if hard.ndim == 3 else ()
        best, other = hard[(*step, state, action)], self.uniform_[state, action]
        with np.errstate(divide="ignore"):
            logs = np.log((1 - LAPSES) * best[:, None] + LAPSES * other[:, None]).sum(axis=0)
        self.lapse_ = float(LAPSES[np.argmax(logs)])
        self.policy_ = (1 - self.lapse_) * hard + self.lapse_ * self.uniform_
        self.num_parameters_ = self.model.num_parameters_ + 1
        return self

    def hard(self, trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        """The best actions, and at which step each trajectory begins, as the model itself counts its steps."""
        span = self.span(trajectories)
        if span is None:
            return self.hard_, np.zeros(len(trajectories), int)
        hard = self.hard_ if span <= len(self.hard_) else self.model.policy_of(span, hard=True)
        return hard, len(hard) - np.maximum(trajectories.length, 1)

    def span(self, trajectories: Trajectories) -> int | None:
        """The longest of them, where what matters is how many decisions are left."""
        if self.model.horizon_ != "episode" or self.model.fit_.family.reward.time_varying:
            return None
        return int(trajectories.length.max(initial=1))

    def over_time(self, trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        hard, offset = self.hard(trajectories)
        return (1 - self.lapse_) * hard + self.lapse_ * self.uniform_, offset


def recorded(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Trajectory, time, state and action of every decision that was recorded whole."""
    row, t = np.nonzero((trajectories.action >= 0) & (trajectories.state[:, :-1] >= 0))
    if not len(row):
        raise NoDecisionsError("the trajectories hold no decision", "give states with their actions")
    return row, t, trajectories.state[row, t], trajectories.action[row, t]
