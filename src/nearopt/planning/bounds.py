"""From a model to its two proved bounds, or to a refusal: the graph first, then numbers."""

from dataclasses import replace
from functools import partial

import numpy as np

from nearopt.mdp.errors import UndecidedError
from nearopt.mdp.model import MDP
from nearopt.planning.bracket import COARSER, Task, Witnesses, approach, bracket, lower_through_loops, unproved, witness
from nearopt.planning.certificate import Certificate, certify, proves_upper
from nearopt.planning.classes import Graph, build_graph, free
from nearopt.planning.enclosure import Enclosure, choice_prior
from nearopt.planning.iteration import EXACT, DivergingError, Iterate, by_newton, by_sweeps
from nearopt.planning.linear import Work
from nearopt.planning.proper import towards_the_end, worth
from nearopt.planning.quotient import Quotient, fold_loops, without_choices
from nearopt.planning.refusals import check_ends, check_hope, check_rewarding_loops, explain_divergence, growth_watch
from nearopt.problem import make_problem

METHODS: dict[str, Iterate] = {
    "auto": by_newton,
    "policy_iteration": partial(by_newton, accuracy=EXACT),
    "value_iteration": by_sweeps,
}
MOST_SWEEPS = 1e8  # of value iteration


def certified(mdp: MDP, prior: np.ndarray, dials: tuple, tol: float, method: str, work: Work) -> Certificate:
    """The certificate of the whole model. prior: (C,); dials: τ, κ, log prior."""
    temperature, optimism, log_prior = dials
    graph = build_graph(mdp, prior, optimism)
    check_hope(graph)
    core = mdp
    if mdp.discount == 1:
        rest = check_ends(graph, prior, temperature)
        if rest.any():  # their value is 0, as if they were terminal
            core = without_choices(mdp, rest)
            prior = prior[~rest[mdp.choice_state]]
            graph = build_graph(core, prior, optimism)
    problem = make_problem(core.blocks, None, None, temperature, optimism, log_prior)
    task = Task(Enclosure(core, prior, temperature, optimism), problem, METHODS[method], work)
    try:
        aim = min(tol, scale(core, temperature))
        found = certify(*core_bounds(graph, task, aim))
        while found.width > tol:  # choices nearly tied that take longer than the best, or rounding
            aim *= 0.8 * tol / found.width
            closer = certify(*core_bounds(graph, task, aim))
            if not closer.width < 0.9 * found.width:
                break
            found = closer
    except DivergingError:
        explain_divergence(graph, problem, np.asarray(problem.blocks.rank))
    return found


def scale(mdp: MDP, temperature: float) -> float:
    """What a single decision is about; bounds further apart than that would prove nothing cheaper."""
    finite = np.abs(mdp.branch_reward[np.isfinite(mdp.branch_reward)])
    return max(temperature, float(finite.max(initial=0.0))) or 1.0


def core_bounds(graph: Graph, task: Task, tol: float) -> Witnesses:
    """The witnesses where every state decides or is terminal."""
    mdp = graph.mdp
    if task.contracts:
        return bracket(task, np.zeros(task.problem.blocks.size), tol)
    if mdp.discount == 1 and task.world.temperature == 0:
        loops = graph.end_components(free(graph))
        if (loops >= 0).any():
            return through_loops(graph, task, loops, tol)
    watch = growth_watch(graph, task.problem, np.asarray(task.problem.blocks.rank))
    watch(np.zeros(task.problem.blocks.size))
    task.work.watch = watch
    start = proper_start(graph, task)
    if task.by_sweeps:
        newton = replace(task, iterate=by_newton, work=Work())
        check_patience(newton, start)
        task.work.passes += newton.work.passes
    return bracket(task, start, tol)


def check_patience(task: Task, start: np.ndarray) -> None:
    """Refuses value iteration where it would never end: a value that grows like a logarithm shows in no sweep."""
    rough = 1e-9 * scale(task.world.mdp, task.world.temperature)
    at = task.iterate(task.problem, start, rough, task.work)
    if at.residual > rough:
        raise DivergingError
    longest = task.decisions(at.kernel).max(initial=0.0)
    if longest > MOST_SWEEPS:
        raise UndecidedError(
            f"value iteration would take {longest:.1g} sweeps and more, as many as an episode has decisions; no state "
            "would be done before",
            "use method='auto', or set a discount below 1",
        )


def through_loops(graph: Graph, task: Task, loops: np.ndarray, tol: float) -> Witnesses:
    """Hard control where one may circle for nothing: the upper bound with those loops folded."""
    mdp = graph.mdp
    if (mdp.branch_reward >= 0).all():
        loops = graph.end_components(graph.choice)
        check_rewarding_loops(graph, loops)
    folded: Quotient = fold_loops(graph, loops)
    inner = make_problem(folded.mdp.blocks, None, None, 0.0, 0.0)
    world = Enclosure(folded.mdp, choice_prior(folded.mdp, None), 0.0, 0.0)
    small = Task(world, inner, task.iterate, task.work)
    at, h, delta = approach(small, np.zeros(inner.blocks.size), tol)
    upper = None
    for _ in range(COARSER):
        upper = witness(small, small.public(at.value) + delta * h, delta, 1, False)
        if upper is not None:
            break
        delta *= 2
    if upper is None or not proves_upper(task.world, upper[folded.state]):
        raise unproved(task, small.public(at.value)[folded.state])
    upper = np.where(mdp.terminal, 0, upper[folded.state])
    return Witnesses(lower_through_loops(task, proper_start(graph, task), tol), upper, False)


def proper_start(graph: Graph, task: Task) -> np.ndarray:
    """At γ = 1 and κ = 0, the value of some policy that surely ends; else zeros. In block order.

    From there Newton climbs: hard control's greedy policy for V = 0 may never end, nor may a soft one whose other
    choices underflow.
    """
    mdp = graph.mdp
    if mdp.discount < 1 or task.world.optimism != 0:
        return np.zeros(task.problem.blocks.size)
    log_prior = np.log(task.world.prior.astype(float), where=task.world.prior > 0, out=np.zeros(mdp.num_choices))
    return task.block(worth(mdp, towards_the_end(graph), task.world.temperature * log_prior, task.work))
