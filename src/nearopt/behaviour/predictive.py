"""Predictive checks: does the fitted agent, put where the recorded ones began, do what they did?

for every statistic: that of the data, and its range over replicates of the data by the agent
distance   ½ Σ |share − mean share of the replicates|; of the data, and of replicates among themselves, which tells
           how much of it is chance
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearopt.behaviour.baselines import recorded
from nearopt.mdp.model import MDP
from nearopt.records.trajectories import Trajectories

if TYPE_CHECKING:
    from nearopt.behaviour.estimator import BehaviourModel

REPLICATES, MOST_DECISIONS = 100, 2_000_000
RANGE = (0.025, 0.975)
FOLLOWED = 4  # states, or groups of them, whose visits are followed over time
MANY = 30  # states without names or places from which on their numbers are taken for an order
MOMENTS = 40  # in time, at most


@dataclass(frozen=True, eq=False)
class Check:
    """One statistic: shares of the data, the mean over replicates, and their 95 % range, all of one shape; and the
    distance of the data from that mean, with the 95 % range of replicates' own distances.
    """

    data: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    distance: float
    usual: tuple[float, float]

    @property
    def far(self) -> bool:
        """Whether the data are farther from the agent than its own replicates are."""
        return self.distance > self.usual[1]


@dataclass(frozen=True, eq=False)
class Checks:
    """visits: share of decisions per state (S,); actions: per action (A,); over_time (M, K): of those who still act at
    the moments `time` (M,), the share that is in each of the K groups of states `followed`, NaN where nobody acts.
    """

    visits: Check
    actions: Check
    over_time: Check
    time: np.ndarray
    followed: tuple[np.ndarray, ...]
    replicates: int
    decisions: int


def check(model: "BehaviourModel", trajectories: Trajectories, seed: int = 0) -> Checks | None:
    """Simulates the fitted agent in the stead of those who were recorded; None where no first state was recorded."""
    began = trajectories[trajectories.state[:, 0] >= 0]
    if not began.num_decisions:
        return None
    count = int(np.clip(MOST_DECISIONS // began.num_decisions, 20, REPLICATES))
    simulated = [model.simulate(began, seed=seed * MOST_DECISIONS + i) for i in range(count)]
    states, actions = model.mdp.available.shape
    everybody = [trajectories, *simulated]
    tables = [recorded(one)[1:] for one in everybody]
    visits = np.stack([np.bincount(state, minlength=states) for _, state, _ in tables])
    acts = np.stack([np.bincount(action, minlength=actions) for _, _, action in tables])
    followed = groups(model.mdp, visits[0])
    longest = trajectories.shape[1]
    edges = np.unique(np.linspace(0, longest, min(MOMENTS, longest) + 1).astype(int))
    timed = np.stack(
        [over_time(np.searchsorted(edges, t, "right") - 1, s, followed, len(edges) - 1) for t, s, _ in tables]
    )
    parts = (summarise(shares(visits)), summarise(shares(acts)), summarise(timed))
    return Checks(*parts, (edges[:-1] + edges[1:] - 1) / 2, followed, count, trajectories.num_decisions)


def groups(mdp: MDP, visits: np.ndarray) -> tuple[np.ndarray, ...]:
    """The most visited states, one by one; where states are best told by their numbers, four ranges visited alike."""
    if mdp.state_names is None and mdp.positions is None and mdp.num_states > MANY:
        share = np.cumsum(visits) / visits.sum()
        rank = np.minimum((share - visits / visits.sum() / 2) * FOLLOWED, FOLLOWED - 1).astype(int)
        return tuple(np.flatnonzero(rank == k) for k in range(FOLLOWED) if (rank == k).any())
    order = np.argsort(-visits, kind="stable")[:FOLLOWED]
    return tuple(np.array([s]) for s in order if visits[s] > 0)


def shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True)


def over_time(moment: np.ndarray, state: np.ndarray, followed: tuple[np.ndarray, ...], moments: int) -> np.ndarray:
    """(M, K) shares of those who act at each moment; NaN where nobody does."""
    acting = np.bincount(moment, minlength=moments).astype(float)
    here = np.stack([np.bincount(moment[np.isin(state, group)], minlength=moments) for group in followed], axis=1)
    return np.divide(here, acting[:, None], out=np.full(here.shape, np.nan), where=acting[:, None] > 0)


def summarise(values: np.ndarray) -> Check:
    """The first entry is that of the data, the others are replicates."""
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat).all(axis=0)  # a moment that nobody reached
    mean, low, high = (np.full(flat.shape[1], np.nan) for _ in range(3))
    some = ~np.isnan(flat[1:]).all(axis=0)
    mean[some] = np.nanmean(flat[1:, some], axis=0)
    low[some], high[some] = np.nanquantile(flat[1:, some], RANGE, axis=0)
    gap = np.abs(np.nan_to_num(flat - mean))
    distance = gap[:, known].sum(axis=1) / 2 / (values.shape[1] if values.ndim == 3 else 1)
    usual = np.quantile(distance[1:], RANGE)
    shape = values.shape[1:]
    data, mean, low, high = (x.reshape(shape) for x in (flat[0], mean, low, high))
    return Check(data, mean, low, high, float(distance[0]), (float(usual[0]), float(usual[1])))
