"""What the likelihood needs of a table of behaviour: which decisions, at which step, how often."""

from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import numpy as np

from nearopt.mdp.blocks import Blocks, power_of_two, rows
from nearopt.mdp.errors import TrajectoryLengthError
from nearopt.mdp.model import MDP

if TYPE_CHECKING:
    from nearopt.records.trajectories import Trajectories

Horizon = int | str | None  # None: infinite; a number of decisions; "episode": each trajectory's own length

SMALL = 1024  # choices up to which there is a cell for each


class Decisions(eqx.Module):
    """The recorded decisions of n trajectories, equal ones counted together; those not recorded whole are left out.

    `cell` lists the distinct choices of every step (by their place in block order, rows filled up), and a
    trajectory's entries say which cells it holds, how often. An infinite horizon is a single step. Group g has a
    horizon of `length[g]` steps: there is one group, or one for every length where rewards vary over time.
    """

    cell: np.ndarray  # (G, T, D)
    length: np.ndarray | None  # (G,); None: infinite horizon
    row: np.ndarray  # (E,) which trajectory
    place: np.ndarray  # (E,) which cell, in the flattened order
    count: np.ndarray  # (E,) how often
    num_trajectories: int = eqx.field(static=True)
    passages: Any = None  # `maxent.Passages`, where whole trajectories are explained

    @property
    def total(self) -> int:
        """The number of decisions."""
        return int(self.count.sum())

    def pooled(self, weight: np.ndarray | None = None) -> np.ndarray:
        """(G, T, D) how often each cell occurs, trajectory i counted weight[i] times."""
        count = self.count if weight is None else self.count * weight[self.row]
        return np.bincount(self.place, count, self.cell.size).astype(float).reshape(self.cell.shape)

    def each(self, logs: Any) -> np.ndarray:
        """(n,) the log-likelihood of every trajectory, from those of the cells."""
        terms = self.count * np.asarray(logs).reshape(-1)[self.place]
        return np.bincount(self.row, terms, self.num_trajectories)


def steps(trajectories: "Trajectories", horizon: Horizon) -> int | None:
    """The number of steps of a finite horizon, None for the infinite one."""
    return int(trajectories.length.max(initial=1)) if isinstance(horizon, str) else horizon


def collect(
    mdp: MDP, trajectories: "Trajectories", horizon: Horizon, timed: bool, span: int | None = None
) -> Decisions:
    """The decisions of some trajectories; timed: the reward varies over time, of which `span` steps are known.

    Raises `TrajectoryLengthError` where a trajectory is longer than the horizon.
    """
    state, action = trajectories.state[:, :-1], trajectories.action
    row, t = np.nonzero((action >= 0) & (state >= 0))
    choice = np.asarray(mdp.blocks.slot)[state[row, t], action[row, t]].astype(np.int64)
    time = place_in_time(trajectories, horizon, timed, row, t, span)
    choices = num_choices(mdp.blocks) + 1
    key, which = np.unique(time.step * choices + choice, return_inverse=True)
    least = choices if choices <= SMALL else 1  # data that differ a little share their shape, and compiled code
    cell, place = by_step(key // choices, key % choices, len(time.lengths), time.span, least)
    pair, count = np.unique(row * cell.size + place[which], return_counts=True)
    return Decisions(
        cell,
        None if horizon is None else time.lengths,
        (pair // cell.size).astype(np.int32),
        (pair % cell.size).astype(np.int32),
        count.astype(float),
        len(trajectories),
    )


class Placed(NamedTuple):
    step: np.ndarray  # of every decision, groups one after the other
    group: np.ndarray  # (n,) of every trajectory
    lengths: np.ndarray  # (G,)
    span: int  # T


def place_in_time(
    trajectories: "Trajectories",
    horizon: Horizon,
    timed: bool,
    row: np.ndarray,
    t: np.ndarray,
    span: int | None = None,
) -> Placed:
    """When decision t of trajectory `row` is made. Raises `TrajectoryLengthError`."""
    length, one = np.maximum(trajectories.length, 1), np.zeros(len(trajectories), int)
    longest = int(length.max(initial=1))
    if horizon is None:
        return Placed(np.zeros_like(t), one, np.array([1]), 1)
    known = span if isinstance(horizon, str) else horizon
    if known is not None and longest > known:
        i = int(np.argmax(length))
        what = "the fitted rewards end after" if isinstance(horizon, str) else "the horizon is"
        mend = "fit trajectories as long" if isinstance(horizon, str) else 'set a longer horizon, or horizon="episode"'
        raise TrajectoryLengthError(f"trajectory {i} has {longest} decisions, {what} {known}", mend)
    span = known or longest
    if not isinstance(horizon, str):
        return Placed(t, one, np.array([span]), span)
    if not timed:
        return Placed(t + longest - length[row], one, np.array([span]), span)  # what matters is how many are left
    lengths, group = np.unique(length, return_inverse=True)
    return Placed(group[row] * span + t, group, lengths, span)


def by_step(
    step: np.ndarray, choice: np.ndarray, groups: int, span: int, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Choices sorted by step as (G, T, D ≥ least), filled up with choice 0; and where in it each of them stands."""
    start = np.searchsorted(step, np.arange(groups * span))
    column = np.arange(len(step)) - start[step]
    width = power_of_two(max(int(column.max(initial=0)) + 1, least))
    cell = np.zeros((groups * span, width), np.int32)
    cell[step, column] = choice
    return cell.reshape(groups, span, width), step * width + column


def num_choices(blocks: Blocks) -> int:
    """Places for choices in block order; the number itself stands for an action that is not available."""
    return sum(b.action.size for b in blocks.blocks)


class Visits(eqx.Module):
    """Every action of every recorded state: cells like those of `Decisions`, of which E are not filled up."""

    cell: np.ndarray  # (G, T, D)
    place: np.ndarray  # (E,) where those stand
    state: np.ndarray  # (E,) in block order
    count: np.ndarray  # (E,) how often the state was visited,
    taken: np.ndarray  # (E,) and the action taken


def visits(blocks: Blocks, decisions: Decisions) -> Visits:
    """The states of some decisions with all that could have been done there."""
    owner, available, start = [], [], 0
    for block in blocks.blocks:
        size = block.state.shape[0]
        owner.append(np.tile(np.arange(start, start + size), block.action.shape[0]))
        available.append(np.asarray(block.available).reshape(-1))
        start += size
    owner, available = np.concatenate(owner), np.concatenate(available)
    choices = np.flatnonzero(available)
    choices = choices[np.argsort(owner[choices], kind="stable")]
    offset = np.searchsorted(owner[choices], np.arange(start + 1))

    groups, span, width = decisions.cell.shape
    pooled = decisions.pooled().reshape(-1)
    used = np.flatnonzero((pooled > 0) & (decisions.cell.reshape(-1) < len(owner)))
    step, choice = used // width, decisions.cell.reshape(-1)[used]
    key, which = np.unique(step * start + owner[choice], return_inverse=True)
    count = np.bincount(which, pooled[used])
    item, row, _ = rows(offset, key % start)
    steps = (key // start)[row]
    cell, place = by_step(steps, choices[item], groups, span, min(len(owner), SMALL))
    done, could = step * len(owner) + choice, steps * len(owner) + choices[item]
    at = np.minimum(np.searchsorted(done, could), len(done) - 1)
    taken = np.where(done[at] == could, pooled[used][at], 0.0)
    return Visits(cell, place, (key % start)[row], count[row], taken)
