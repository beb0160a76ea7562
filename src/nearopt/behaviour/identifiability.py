"""What the data cannot tell, in words: the null directions of the information matrix, and who is behind them.

A direction of θ along which no recorded state's policy changes is invisible, whatever the number of trajectories. Known
causes are subtracted one by one (Ng, Harada & Russell 1999 for potentials; Cao, Cohen & Szpruch 2021 for soft
policies), and what is left is named by its largest components.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array

from nearopt.behaviour.family import Family
from nearopt.behaviour.uncertainty import FLAT, MANY, Fit, fisher_root
from nearopt.mdp.model import MDP
from nearopt.planning.classes import reachable

SHOWN = 4  # components of a direction without a name
ROUNDING = 1e-7  # a singular value, relative, that is taken for zero


@dataclass(frozen=True)
class Direction:
    """One cause: how many directions it takes away, the sentence, and (k, Q) vectors of θ that span them.

    θ has no place for a temperature that is one with the reward's scale: then there are none.
    """

    count: int
    words: str
    vectors: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Identifiability:
    """How many directions of the parameters show in the recorded states, and which do not."""

    size: int
    rank: int
    directions: tuple[Direction, ...]

    @property
    def identifiable(self) -> bool:
        return self.rank == self.size

    def describe(self) -> str:
        """One line per cause.

        >>> Identifiability(2, 2, ()).describe()
        'the data tell all 2 parameters apart'
        """
        if self.identifiable:
            return f"the data tell all {self.size:,} parameters apart"
        head = f"the data tell {self.rank:,} of {self.size:,} directions apart; unseen:"
        return "\n".join([head, *(f"- {d.count:,} × {d.words}" for d in self.directions)])


def before(mdp: MDP, family: Family, penalised: bool) -> list[str]:
    """What is known before any data: settings that cannot be fitted together."""
    said = []
    free_policy = family.reward.kind == "state_action"
    if family.scale_free:
        said.append(
            "temperature and the scale of the reward cannot be told apart: only reward/temperature shows. The "
            "coefficients are reported with length 1 and the temperature relative to that; fix one of them instead"
        )
    if family.optimism is None and blind_to_luck(mdp, family):
        said.append(
            "optimism cannot be fitted: without discount, in a deterministic world, there is no luck to believe in. "
            "It stays 0"
        )
    elif family.optimism is None and free_policy:
        said.append("optimism cannot be told apart from a free reward per state and action, which explains any policy")
    if family.discount is None and free_policy:
        said.append("the discount cannot be told apart from a free reward per state and action")
    if family.fit_prior and free_policy:
        said.append("a propensity of an action is a reward for it: the prior cannot be told apart from free rewards")
    if free_policy and not penalised:
        said.append(
            "a free reward per state and action is identified only up to potentials, r + γ E Φ(s') − Φ(s); set l2 to "
            "choose the smallest"
        )
    return said


def blind_to_luck(mdp: MDP, family: Family) -> bool:
    """Whether κ has no effect: every choice has one outcome, and no coin ends the episode."""
    certain = mdp.num_branches == mdp.num_choices
    return certain and family.discount is not None and float(family.discount) == 1.0


def after(mdp: MDP, fit: Fit) -> Identifiability:
    """The null directions at θ, explained. Call it under 64-bit JAX."""
    found = of_theta(mdp, fit)
    if not fit.family.scale_free:
        return found
    words = "temperature and the scale of the reward: only reward/temperature shows"
    scale = Direction(1, words, np.zeros((0, len(fit.theta))))
    return Identifiability(found.size + 1, found.rank, (scale, *found.directions))


def of_theta(mdp: MDP, fit: Fit) -> Identifiability:
    """The null directions of θ itself, which lacks τ where the reward comes in every scale."""
    root = fisher_root(fit)
    scale = np.sqrt((root**2).sum(axis=0))
    size = len(scale)
    if size > MANY:
        values = np.linalg.eigvalsh(root @ root.T)
        rank = int((values > FLAT * values.max(initial=0.0)).sum())
        return Identifiability(size, rank, (Direction(size - rank, many_words(fit), np.zeros((0, size))),))
    least = FLAT * scale.max(initial=0.0)
    silent, loud = np.flatnonzero(scale <= least), np.flatnonzero(scale > least)
    rest = np.zeros((0, size))
    if len(loud):
        _, values, vectors = scipy.linalg.svd(root[:, loud] / scale[loud], full_matrices=True)
        values = np.append(values, np.zeros(len(loud) - len(values)))
        rest = np.zeros(((values <= FLAT * values[0]).sum(), size))
        rest[:, loud] = vectors[values <= FLAT * values[0]] / scale[loud]
        rest /= np.sqrt((rest**2).sum(axis=1, keepdims=True))
    rank = size - len(silent) - len(rest)
    visited = np.append(visited_coefficients(mdp, fit), np.zeros(len(fit.family.dials), bool))
    rest = np.concatenate([np.eye(size)[silent[visited[silent]]], rest])  # paid where they were, and yet unseen
    causes = (*explain_silent(mdp, fit, silent[~visited[silent]]), *explain_rest(mdp, fit, rest, visited))
    return Identifiability(size, rank, causes)


def many_words(fit: Fit) -> str:
    kind = "potentials Φ_t(s), r_t + γ E Φ_{t+1}(s') − Φ_t(s)" if fit.family.reward.time_varying else "potentials"
    return f"{kind}, and coefficients of states that no recorded state leads to; only l2 and smoothness decide these"


def explain_silent(mdp: MDP, fit: Fit, silent: np.ndarray) -> Iterator[Direction]:
    """Parameters that by themselves change nothing."""
    unit = np.eye(len(fit.theta))
    coefficients = silent[silent < fit.family.reward.size]
    if len(coefficients):
        names = some(coefficient_names(mdp, fit.family), coefficients)
        words = f"coefficients without effect on any recorded decision, of features never reached: {names}"
        yield Direction(len(coefficients), words, unit[coefficients])
    for i in silent[silent >= fit.family.reward.size]:
        name = fit.family.dials[i - fit.family.reward.size]
        why = " (nothing here depends on luck)" if name == "optimism" and blind_to_luck(mdp, fit.family) else ""
        yield Direction(1, f"{name}: no recorded decision depends on it{why}", unit[i : i + 1])


def explain_rest(mdp: MDP, fit: Fit, rest: np.ndarray, visited: np.ndarray) -> Iterator[Direction]:
    """Combinations of parameters that together change nothing: constants, potentials, dials, and the remainder."""
    if not len(rest):
        return
    size, names = fit.family.reward.size, [*coefficient_names(mdp, fit.family), *fit.family.dials]
    turn, values, _ = scipy.linalg.svd(rest[:, size:], full_matrices=True)  # dials into as few directions as can be
    involved = int((values > ROUNDING).sum())
    with_dials, rest = (turn.T @ rest)[:involved], (turn.T @ rest)[involved:]
    change = reward_change(mdp, fit, rest) if len(rest) else np.zeros((1, 0))
    idle = "combinations of coefficients that change no reward within reach"
    for words, basis in ((idle, np.zeros((len(change), 1))), *named_changes(mdp, fit)):
        if not len(rest):
            break
        outside = change - basis @ np.linalg.lstsq(basis, change, rcond=None)[0]
        inside, turn = kernel(outside, ROUNDING * max(np.linalg.norm(change, 2), 1e-300))
        if inside.any():
            yield Direction(int(inside.sum()), words, turn[inside] @ rest)
            rest, change = turn[~inside] @ rest, change @ turn[~inside].T
    if len(rest):
        hidden, turn = kernel(rest[:, :size][:, visited[:size]].T, ROUNDING)
        if hidden.any():
            unseen = some(names, np.flatnonzero(~visited[:size]))
            words = f"features never visited, which show only in where nobody went: {unseen}"
            yield Direction(int(hidden.sum()), words, turn[hidden] @ rest)
        rest = turn[~hidden] @ rest
    if len(rest) > SHOWN:
        words = f"combinations of parameters that change no recorded state's policy, such as {loadings(names, rest[0])}"
        yield Direction(len(rest), words, rest)
        rest = rest[:0]
    for vector in (*with_dials, *rest):
        order = np.roll(np.arange(len(vector)), len(vector) - size)  # dials first
        told = loadings([names[i] for i in order], vector[order])
        yield Direction(1, f"parameters that only show together: {told}", vector[None])


def kernel(matrix: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """An orthogonal basis of the columns' coefficients, and which of it the matrix takes to (nearly) zero."""
    _, values, vectors = scipy.linalg.svd(matrix, full_matrices=True)
    return np.append(values, np.zeros(matrix.shape[1] - len(values))) <= least, vectors


def loadings(names: list[str], vector: np.ndarray) -> str:
    """The largest components."""
    vector = vector / vector[np.abs(vector).argmax()]
    order = np.argsort(-np.abs(vector), kind="stable")[:SHOWN]
    shown = [f"{vector[i]:+.2g} × {names[i]}" for i in order if abs(vector[i]) > 0.01]
    return ", ".join(shown) + (", ..." if (np.abs(vector) > 0.01).sum() > len(shown) else "")


def visited_coefficients(mdp: MDP, fit: Fit) -> np.ndarray:
    """(P,) bool: coefficients on which the reward of some recorded choice depends."""
    reward, theta = fit.family.reward, jnp.asarray(fit.theta)
    if not reward.size:
        return np.zeros(0, bool)
    slot = np.asarray(fit.family.blocks.slot)
    cells = fit.decisions.cell.reshape(-1)[fit.decisions.place]
    pairs = np.argwhere(np.isin(slot, np.unique(cells)))
    time = (slice(None),) if reward.time_varying else ()
    table: Callable[[Array], Array] = lambda c: jnp.asarray(reward(c))[(*time, pairs[:, 0], pairs[:, 1])]
    slope = np.asarray(jax.jacfwd(table)(theta[: reward.size]))
    return (np.abs(slope) > 0).any(axis=tuple(range(slope.ndim - 1)))


def reward_change(mdp: MDP, fit: Fit, vectors: np.ndarray) -> np.ndarray:
    """(C, k) how the expected reward of every relevant choice changes along the directions; relevant: within reach."""
    family, theta = fit.family, jnp.asarray(fit.theta)
    if family.reward.kind == "model":
        return np.zeros((1, len(vectors)))
    size = family.reward.size
    table = lambda coef: family.reward(coef)
    push = lambda v: jax.jvp(table, (theta[:size],), (v,))[1]
    change = np.asarray(jax.vmap(push)(jnp.asarray(vectors[:, :size])))
    c = within_reach(mdp, fit)
    if family.reward.time_varying:
        change = change[:, :, mdp.choice_state[c], mdp.choice_action[c]]
        return change.reshape(len(vectors), -1).T
    if change.ndim == 4:
        picked = change[:, mdp.choice_state[mdp.branch_choice], mdp.choice_action[mdp.branch_choice], mdp.next_state]
        sums = np.add.reduceat(picked * mdp.probability, mdp.branch_offset[:-1], axis=1)
        return sums[:, c].T
    return change[:, mdp.choice_state[c], mdp.choice_action[c]].T


def within_reach(mdp: MDP, fit: Fit) -> np.ndarray:
    """The choices of all states that recorded states may lead to."""
    seen = np.zeros(fit.family.blocks.size, bool)
    seen[fit.visits.state] = True
    start = seen[np.asarray(fit.family.blocks.rank)]
    states = reachable(mdp.num_states, mdp.choice_state[mdp.branch_choice], mdp.next_state, start)
    return np.flatnonzero(states[mdp.choice_state])


def named_changes(mdp: MDP, fit: Fit) -> Iterator[tuple[str, np.ndarray]]:
    """Changes of reward that are known to change no policy, each with a basis over the relevant choices."""
    c = within_reach(mdp, fit)
    periods = fit.family.reward.shape[0] if fit.family.reward.time_varying else 1
    yield "a constant added to every reward", np.ones((len(c) * periods, 1))
    if fit.family.discount is None or fit.family.reward.time_varying:
        return
    table = mdp.branch_table(mdp.probability)
    rows = mdp.choice_state[c] * mdp.num_actions + mdp.choice_action[c]
    gamma = float(fit.family.discount)
    potential = gamma * table[rows].toarray()
    potential[np.arange(len(c)), mdp.choice_state[c]] -= 1.0
    potential[:, mdp.terminal] = 0.0
    shapes = np.concatenate([potential, np.ones((len(c), 1))], axis=1)
    yield "potential shaping, r + γ E Φ(s') − Φ(s): it changes values and no policy", shapes


def coefficient_names(mdp: MDP, family: Family) -> list[str]:
    """What each coefficient belongs to."""
    reward = family.reward
    names = [f"coefficient {i}" for i in range(reward.size)]
    if reward.kind in ("state", "state_action") and not reward.time_varying:
        cells = np.indices(reward.shape).reshape(len(reward.shape), -1).T.tolist()
        names = [mdp.describe(*cell) for cell in cells]
    return names


def some(names: list[str], which: np.ndarray) -> str:
    first = ", ".join(names[i] for i in which[:SHOWN])
    return first + (f" and {len(which) - SHOWN:,} more" if len(which) > SHOWN else "")
