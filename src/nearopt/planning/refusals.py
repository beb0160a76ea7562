"""Problems without a finite value, refused with the class of states at fault."""

from collections.abc import Callable
from itertools import product
from typing import NoReturn

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from nearopt.backup import is_one, is_zero
from nearopt.mdp.errors import DivergentError, ForbiddenStateError, ImproperError, UndecidedError
from nearopt.planning.classes import Graph, free, hopeless, resting, some
from nearopt.planning.iteration import BATCH, sweeps
from nearopt.problem import Problem

LONGEST = 4096  # sweeps in which a growing class has to show itself
FAR = 1e300  # stands for +inf
ROUNDS = 64  # of leaving states out
CYCLE = 24  # sweeps after which cycles of length 2, 3, 4, 6, 8, 12 are back, and others nearly


def check_hope(graph: Graph) -> None:
    """Refuses states of value −inf."""
    if np.isfinite(graph.mdp.branch_reward).all():
        return
    dead = hopeless(graph)
    if dead.any():
        fate = "every behaviour meets" if graph.hopeful else "no behaviour surely avoids"
        raise ForbiddenStateError(
            f"the value of {some(graph.mdp, dead)} is -inf: from there {fate} a reward of -inf",
            "give such states a way out, make them terminal, or leave them out of the model",
        )


def check_ends(graph: Graph, prior: np.ndarray, temperature: float) -> np.ndarray:
    """Refuses episodes that never surely end, at γ = 1. Returns (S,) bool: the states that rest, of value 0."""
    mdp = graph.mdp
    rest = resting(graph, prior, temperature)
    exits = rest | mdp.terminal
    if temperature == 0:  # to stay where nothing is paid is as good as to end
        exits = exits | graph.can_stay(np.ones(mdp.num_states, bool), free(graph))
    stuck = ~(graph.reaches(exits, graph.choice) if graph.hopeful else graph.surely_reaches(exits))
    if stuck.any():
        what = "an episode from there can never end" if graph.hopeful else "no policy surely ends an episode from there"
        raise ImproperError(
            f"{some(mdp, stuck)}: {what}, so that without a discount the value is not finite",
            "set a discount below 1, give them a way to a terminal state, or leave them out of the model",
        )
    if temperature > 0:
        loops = graph.end_components(free(graph) & (prior >= 1)) >= 0
        if (loops & ~rest).any():
            raise DivergentError(
                f"{some(mdp, loops & ~rest)}: one can stay there for nothing, and to be free to leave at every later "
                "step is worth without bound, so that without a discount the value is +inf",
                "set a discount below 1, a normalised prior (prior='uniform'), or rewards below 0",
            )
    return rest


def check_rewarding_loops(graph: Graph, label: np.ndarray) -> None:
    """Refuses, at τ = 0 with rewards ≥ 0, rewards that can be had again and again. label: of end components."""
    mdp = graph.mdp
    stays = graph.choice & (label[mdp.choice_state] >= 0)
    leaves = graph.branch & (label[graph.edges[0]] != label[mdp.next_state])
    stays[mdp.branch_choice[leaves]] = False
    paid = stays & ~free(graph)
    if paid.any():
        states = label == label[mdp.choice_state[np.flatnonzero(paid)[0]]]
        raise DivergentError(
            f"{some(mdp, states)}: rewards above 0 can be had there again and again, so that without a discount the "
            "value is +inf",
            "set a discount below 1, or make the reward end the episode",
        )


def growth_watch(graph: Graph, problem: Problem, public: np.ndarray) -> Callable[[np.ndarray], None]:
    """A function of V = B^k 0 in block order that raises once V provably grows (or falls) without end.

    If B_C^m h ≥ h + g on some states C, B_C the backup of what stays in C and g > 0, then B^{mk} 0 ≥ k g − constant
    there. C is found by leaving out, again and again, the states that do not grow.
    `public`: block order → public order.
    """
    endless = without_end(problem)
    averse = not is_zero(problem.optimism) and float(problem.optimism) < 0
    signs = (1,) if not averse else (1, -1) if graph.mdp.discount == 1 else (-1,)  # an early end bounds V from above
    decides = np.zeros(problem.blocks.size, bool)
    decides[public] = ~graph.mdp.terminal

    def among(inside: np.ndarray, value: np.ndarray, sign: int, count: int) -> np.ndarray:
        """How far `count` sweeps move the value where only `inside` is left to go to."""
        later = np.where(inside, value, -np.inf if sign > 0 else FAR)
        for _ in range(count):
            swept = np.asarray(sweeps(endless, jnp.asarray(later), 1)[0])
            later = np.where(inside, swept, later)
        return sign * np.where(inside, later - value, 0.0)

    def watch(value: np.ndarray) -> None:
        least = 1e-9 * max(1.0, float(np.abs(value).max()))
        for sign, count in product(signs, (1, CYCLE)):  # several sweeps at once see through cycles
            inside = decides
            for _ in range(ROUNDS):
                moves = among(inside, value, sign, count)
                if inside.any() and (moves[inside] > least).all():
                    raise refusal(graph, inside[public], sign, float(moves[inside].min()) / count)
                if not inside.any() or not (inside & ~(moves > least)).any():
                    break
                inside = inside & (moves > least)

    return watch


def without_end(problem: Problem) -> Problem:
    """The same backup given that episodes go on: γ inside the expectation is a reward of (τ/κ) log γ."""
    discount = problem.blocks.discount
    if is_one(discount):
        return problem
    toll = jnp.log(jnp.asarray(discount)) / problem.scale
    endless = eqx.tree_at(lambda p: p.reward, problem, tuple(r + toll for r in problem.reward))
    return eqx.tree_at(lambda p: p.blocks.discount, endless, 1.0)


def refusal(graph: Graph, states: np.ndarray, sign: int, rate: float) -> DivergentError:
    why = "rewards and the freedom of choice add" if sign > 0 else "every step costs, in the risk-averse mean,"
    mend = "set a lower discount or temperature, a normalised prior (prior='uniform'), or lower rewards"
    return DivergentError(
        f"{some(graph.mdp, states)}: {why} at least {rate:.3g} at every step there, so that the value is "
        f"{'+' if sign > 0 else '-'}inf",
        mend if sign > 0 else "set an optimism nearer to 0, or a higher temperature",
    )


def explain_divergence(graph: Graph, problem: Problem, public: np.ndarray) -> NoReturn:
    """Raises the refusal of a problem whose iterates left every bound."""
    watch = growth_watch(graph, problem, public)
    value, rise, done, due = jnp.zeros(problem.blocks.size), jnp.zeros(problem.blocks.size), 0, 1
    watch(np.asarray(value))
    while done < LONGEST:
        count = BATCH if done else 1
        value, rise = sweeps(problem, value, count)
        done += count
        if done >= due:
            watch(np.asarray(value))
            due = 2 * done
    worst = np.zeros(graph.mdp.num_states, bool)
    worst[int(np.argmax(np.abs(np.asarray(rise)[public])))] = True
    raise UndecidedError(
        f"after {done:,} sweeps the value of {some(graph.mdp, worst)} still changes by "
        f"{np.abs(np.asarray(rise)).max():.3g} a sweep, and no finite bounds could be proved",
        "it is infinite or close to it, or rewards cancel around a cycle: set a discount below 1, or lower rewards",
    )
