"""The older likelihood, of whole trajectories under the tilted world (Ziebart et al. 2008 at κ = 1):

    log p(ξ) = log p_κ(s_1) + Σ_t log π_t(a_t|s_t) + Σ_t log c_κ p_κ(s_{t+1}|s_t,a_t)

which is what `Posterior.log_prob` computes. At κ = 1 it is r(ξ)/τ + log p(ξ) − log Z. The world's factors depend on the
parameters unless κ = 0, so luck that the animal merely had is explained by what it is thought to have wanted: in a
random world estimates are biased. It is here because published fits use it. This file holds the world's factors.
"""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from nearopt.backup import is_zero
from nearopt.behaviour.decisions import Horizon, by_step, place_in_time
from nearopt.inference.messages import first_state
from nearopt.mdp.blocks import concatenate, rows
from nearopt.mdp.errors import HorizonError, TrajectoryShapeError
from nearopt.mdp.model import MDP
from nearopt.problem import Problem, safe_log

if TYPE_CHECKING:
    from nearopt.records.trajectories import Trajectories


class Passages(eqx.Module):
    """First states and passages (s_t, a_t, s_{t+1}) of whole trajectories, equal ones counted together."""

    states: int = eqx.field(static=True)  # in block order
    branch: np.ndarray  # (G, T, D, M) the branches that make up a passage, the number of all fills up
    length: np.ndarray  # (G,)
    start: np.ndarray  # (n,) each trajectory's first state, groups one after the other
    row: np.ndarray  # (E,) which trajectory
    place: np.ndarray  # (E,) which passage, in the flattened order

    def pooled(self, weight: np.ndarray | None = None) -> "World":
        """How often each first state and each passage occurs, trajectory i counted weight[i] times."""
        weight = np.ones(len(self.start)) if weight is None else weight
        shape = self.branch.shape[:3]
        first = np.bincount(self.start, weight, shape[0] * self.states).reshape(shape[0], self.states)
        count = np.bincount(self.place, weight[self.row], int(np.prod(shape))).reshape(shape)
        return World(self.branch, first, count)

    def each(self, first: Array, passage: Array) -> np.ndarray:
        """(n,) the world's part of every trajectory, from `log_world`."""
        terms = np.asarray(passage).reshape(-1)[self.place]
        return np.asarray(first).reshape(-1)[self.start] + np.bincount(self.row, terms, len(self.start))


class World(eqx.Module):
    """What of `Passages` a likelihood needs."""

    branch: np.ndarray
    first: np.ndarray  # (G, n)
    count: np.ndarray  # (G, T, D)


def collect_passages(mdp: MDP, trajectories: "Trajectories", horizon: Horizon, span: int | None = None) -> Passages:
    """Raises `HorizonError` for an infinite horizon and `TrajectoryShapeError` where steps are missing."""
    if horizon is None:
        raise HorizonError("whole trajectories have no infinite horizon", 'set horizon to T or to "episode"')
    if (gap := trajectories.first_gap()) is not None:
        raise TrajectoryShapeError(f"{gap}, so it is no whole trajectory", 'use likelihood="actions", which needs none')
    state, action = trajectories.state, trajectories.action
    row, t = np.nonzero((action >= 0) & (state[:, 1:] >= 0))
    time = place_in_time(trajectories, horizon, True, row, t, span)
    rank = np.asarray(mdp.blocks.rank)

    first = mdp.branch_group  # equal next states with different rewards are one passage
    members = np.append(first, mdp.num_branches)
    key = mdp.choice_state[mdp.branch_choice[first]] * mdp.num_actions + mdp.choice_action[mdp.branch_choice[first]]
    key = key * mdp.num_states + mdp.next_state[first]
    wanted = (state[row, t] * mdp.num_actions + action[row, t]) * mdp.num_states + state[row, t + 1]
    passage = np.searchsorted(key, wanted)  # the model can have produced it: this was checked
    step, passage, which = unique_pairs(time.step, passage)
    cell, place = by_step(step, passage, len(time.lengths), time.span)
    item, of, k = rows(members, cell.reshape(-1))
    branch = np.full(
        (cell.size, int(np.diff(members).max(initial=1))), sum(b.next_state.size for b in mdp.blocks.blocks)
    )
    branch[of, k] = mdp.layout.position[item]
    start = time.group * mdp.blocks.size + rank[state[:, 0]]
    return Passages(mdp.blocks.size, branch.reshape(*cell.shape, -1), time.lengths, start, row, place[which])


def unique_pairs(step: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = int(item.max(initial=0)) + 1
    key, which = np.unique(step * size + item, return_inverse=True)
    return key // size, key % size, which


def log_world(
    problem: Problem, branch: ArrayLike, length: ArrayLike
) -> tuple[Float[Array, "G n"], Float[Array, "G T D"]]:
    """log p_κ of every first state, and log c_κ p_κ of every passage."""

    def one(branch: Int[Array, "T D M"], length: Array) -> tuple[Float[Array, " n"], Float[Array, "T D"]]:
        def step(next_value: Float[Array, " n"], now: tuple) -> tuple:
            t, branches, timed = now
            made = problem.step(next_value, timed)
            logs = concatenate(problem.log_transitions(made, next_value, timed))
            logs = logs.at[branches].get(mode="fill", fill_value=-jnp.inf)
            together = logs[:, 0] if logs.shape[1] == 1 else jax.nn.logsumexp(logs, axis=1)
            return jnp.where(t < length, made.value, problem.final_value), together

        inputs = (jnp.arange(len(branch)), branch, problem.timed())
        value, logs = lax.scan(step, problem.final_value, inputs, reverse=True)
        return log_first(problem, value), logs

    return jax.vmap(one)(jnp.asarray(branch), jnp.asarray(length))


def log_first(problem: Problem, value: Float[Array, " n"]) -> Float[Array, " n"]:
    """log p(s) + κ (V_1(s)/τ − log Z)."""
    known = safe_log(problem.blocks.initial)
    if is_zero(problem.scale):
        return known
    return known + problem.optimism * (value / problem.temperature - first_state(problem, value).log_partition)
