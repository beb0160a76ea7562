"""What is measured: planning, beside its peers. Sizes are arguments: tests run them small."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import nearopt as no
from benchmarks.harness import Row, best, race
from benchmarks.peers import SOLVERS, quantecon_sweep, solved, tables, timed
from benchmarks.rows import best_once, slip_grid
from nearopt.inference.messages import backward_step
from nearopt.problem import Problem, make_problem


def random_mdp(states: int, actions: int, branches: int, discount: float, local: bool = False) -> no.MDP:
    """A garnet, GARNET(S, A, b): next states at random, or, if local, at the fixed distances of a grid's neighbours."""
    rng = np.random.default_rng(0)
    choices = states * actions
    if local:
        side = int(states**0.5)
        distance = np.resize([1, -1, side, -side], branches)
        next_state = (np.arange(states).repeat(actions)[:, None] + distance) % states
    else:
        next_state = rng.integers(0, states, (choices, branches))
    return no.MDP(
        choice_offset=np.arange(0, choices + 1, actions),
        choice_action=np.tile(np.arange(actions), states),
        branch_offset=np.arange(0, choices * branches + 1, branches),
        probability=rng.dirichlet(np.ones(branches), choices).reshape(-1),
        next_state=next_state.reshape(-1),
        branch_reward=rng.normal(size=choices).repeat(branches),
        initial=np.full(states, 1 / states),
        num_actions=actions,
        discount=discount,
    )


# ---------------------------------------------------------------- one sweep
def sweep(states: int = 500_000, actions: int = 4, branches: int = 4, repeats: int = 30) -> Iterator[Row]:
    """One sweep in float64: ours with the log-sum-exp and without it, QuantEcon's hard one of the same arrays.

    The floor reads probabilities, next states, rewards and a vector once, and writes a vector.
    """
    for local in (False, True):
        mdp = random_mdp(states, actions, branches, 0.99, local)
        name = f"{states:,} states × {actions} × {branches}, {'neighbouring' if local else 'random'} next states"
        value = np.random.default_rng(1).normal(size=states)
        with jax.enable_x64(True):
            blocks = mdp.blocks.blocks
            moved = sum(b.probability.nbytes + b.next_state.nbytes + b.reward.nbytes for b in blocks) + 16 * states
            start = mdp.blocks.from_states(jnp.asarray(value))
            problems = [make_problem(mdp.blocks, 1, temperature=t, optimism=0.0) for t in (1.0, 0.0)]
            works: list[Callable] = [partial(backward_step, p, start, p.timed()) for p in problems]
            try:
                works.append(partial(quantecon_sweep(tables(mdp)), value))
            except ImportError as error:
                yield Row(f"hard sweep, QuantEcon: {name}", float("nan"), note=f"not run: {error}")
            soft, hard, *theirs = race(works, repeats)
        for seconds in theirs:
            yield Row(f"hard sweep, QuantEcon: {name}", seconds, moved=moved)
        yield Row(f"hard sweep: {name}", hard, moved=moved)
        aim, met = "faster than QuantEcon's hard sweep", soft < theirs[0] if theirs else None
        yield Row(f"soft sweep: {name}", soft, moved=moved, aim=aim, met=met, least_share=0.5)


# ---------------------------------------------------------------- whole solutions
def solvers(
    states: Iterable[int] = (2500, 10_000), side: int = 100, tol: float = 1e-6, peers: Iterable[str] = SOLVERS
) -> Iterator[Row]:
    """Hard control, each solver at its best to the same tolerance; errors are against a value certified to a 1000th."""
    problems = {f"garnet, {s:,} states × 4 × 5, discount 0.99": random_mdp(s, 4, 5, 0.99) for s in states}
    for discount in (0.99, 0.9999):
        problems[f"slip grid {side}×{side}, discount {discount:g}"] = slip_grid(side).replace(discount=discount)
    for problem, mdp in problems.items():
        truth = no.solve(mdp, temperature=0, tol=tol / 1000).value
        sol = no.solve(mdp, temperature=0, tol=tol)
        seconds = best(lambda m=mdp: no.solve(m, temperature=0, tol=tol).value, 2)
        error = np.abs(sol.value - truth).max()
        yield Row(
            f"{problem}: nearopt", seconds, note=f"certified to {tol:g}, error {error:.1e}, {sol.passes:,} passes"
        )
        model = tables(mdp)
        for name in peers:
            yield solved(name, problem, model, tol, truth)


class Sweeps(NamedTuple):
    """How many sweeps value iteration needs, and whether they were all run."""

    needed: int
    measured: bool


def value_iteration_sweeps(mdp: no.MDP, temperature: float, tol: float, most: int, look: int = 50) -> Sweeps:
    """Sweeps until γ/(1−γ) times the span of the last change is within `tol`, the certificate of value iteration.

    Terminal states keep the value 0, so 0 is in the span. After `most` sweeps the rest is extrapolated from the
    decay over the last 300 or, if there are fewer, over their second half.
    """
    gain = mdp.discount / (1 - mdp.discount)
    with jax.enable_x64(True):
        problem = make_problem(mdp.blocks, 1, temperature=temperature, optimism=0.0)
        value, widths = jnp.zeros(mdp.blocks.size), {}
        for count in range(1, most + 1):
            before, value = value, backward_step(problem, value, problem.timed())
            if count % look == 0 or count == most:
                widths[count] = gain * float(span(problem, value - before))
                if widths[count] <= tol:
                    return Sweeps(count, True)
        first = max((c for c in widths if c <= max(most - 300, most // 2)), default=min(widths))
        rate = (np.log(widths[most]) - np.log(widths[first])) / max(most - first, 1)
        rate = min(rate, np.log(mdp.discount)) if rate >= 0 else rate
        return Sweeps(int(most + np.ceil(np.log(tol / widths[most]) / rate)), False)


@jax.jit
def span(problem: Problem, change: jax.Array) -> jax.Array:
    """Largest minus smallest; a terminal state, where there is one, changes by 0."""
    real = problem.blocks.to_states(change)
    return real.max() - real.min()


def solve_timed(mdp: no.MDP, temperature: float, tol: float, method: str) -> tuple[Any, float]:
    """A solution, as far as rounding lets it come, and its seconds; a rough one first compiles."""
    work = partial(no.solve, mdp, temperature=temperature, method=method, throw=False)
    work(tol=1.0)
    return timed(lambda: work(tol=tol))


CERTIFIED = """
import resource, sys, time
from benchmarks.rows import slip_grid
import nearopt as no
mdp = slip_grid(int(sys.argv[1])).replace(discount=float(sys.argv[2]))
start = time.perf_counter()
sol = no.solve(mdp, temperature=float(sys.argv[3]), tol=float(sys.argv[4]))
width = (sol.upper - sol.lower).max()
seconds = time.perf_counter() - start
print(seconds, sol.passes, width, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def certified(
    side: int = 1000,
    small: int = 50,
    temperatures: Iterable[float] = (1.0, 0.3, 0.0),
    tol: float = 1e-6,
    most: int = 6000,
    discount: float = 0.9999,
) -> Iterator[Row]:
    """A certified solution in a process of its own, and the passes that value iteration needs for the same certificate.

    At temperature 1 with the flat prior living on pays; at the others the goal is worth reaching.
    """
    for temperature in temperatures:
        name = f"slip grid, discount {discount:g}, temperature {temperature:g}, certified to {tol:g}"
        mdp = slip_grid(small).replace(discount=discount)
        for method in ("auto", "value_iteration"):
            sol, seconds = solve_timed(mdp, temperature, tol, method)
            yield Row(f"{small}×{small} {name}: {method}", seconds, note=f"{sol.passes:,} passes")
        command = [sys.executable, "-c", CERTIFIED, str(side), str(discount), str(temperature), str(tol)]
        total, printed = best_once(command)
        seconds, passes, width, gigabytes = map(float, printed.split())
        need = value_iteration_sweeps(slip_grid(side).replace(discount=discount), temperature, tol, most)
        how = "measured" if need.measured else f"extrapolated from the decay over the last 300 of {most:,}"
        yield Row(
            f"{side * side:,} states, {name}, compiling included",
            seconds,
            steps=int(passes),
            aim="100 × fewer passes, 60 s, 4 GiB",
            met=need.needed >= 100 * passes and seconds <= 60 and gigabytes <= 4,
            note=f"{passes:,.0f} passes, value iteration {need.needed:,} ({how}): {need.needed / passes:,.0f} ×; width "
            f"{width:.1e}; peak {gigabytes:.2f} GiB; {total:.0f} s with the building of the model",
        )


# ---------------------------------------------------------------- a slow chain
def bus_engine(states: int = 90, discount: float = 0.9999) -> no.MDP:
    """Rust (1987), bus group 4, linear cost: keep the engine (action 0) or replace it (1) as its mileage bin rises."""
    theta, replacement = 2.293, 10.075
    increments = np.array([0.39189182, 0.59529371, 0.01281447])
    transition = np.zeros((states, 2, states))
    for state in range(states):
        for step, p in enumerate(increments / increments.sum()):
            transition[state, 0, min(state + step, states - 1)] += p
            transition[state, 1, min(step, states - 1)] += p
    reward = np.stack([-0.001 * theta * np.arange(states), np.full(states, -replacement)], axis=1)
    return no.MDP.from_arrays(transition, reward, discount=discount)


def rust(states: int = 90, discount: float = 0.9999, tol: float = 1e-10) -> Iterator[Row]:
    """Newton against soft value iteration on a chain whose discount is nearly one."""
    mdp = bus_engine(states, discount)
    name = f"bus engine, {states} states, discount {discount:g}, temperature 1, certified to {tol:g}"
    sol = no.solve(mdp, tol=tol)
    seconds = best(lambda: no.solve(mdp, tol=tol).value)
    aim = "12 Newton steps"
    yield Row(
        f"{name}: Newton", seconds, aim=aim, met=sol.steps <= 12, note=f"{sol.steps} steps, {sol.passes:,} passes"
    )
    slow, seconds = solve_timed(mdp, 1.0, tol, "value_iteration")
    width = (slow.upper - slow.lower).max()
    yield Row(f"{name}: value iteration", seconds, note=f"{slow.passes:,} passes to a width of {width:.1e}")


# ---------------------------------------------------------------- many at once
def planning_batch(side: int = 10, count: int = 256, discount: float = 0.99) -> Iterator[Row]:
    """Many temperatures, and many rewards, of one model: one `vmap` against one after the other."""
    mdp = slip_grid(side).replace(discount=discount)
    name = f"of a {side}×{side} grid, discount {discount:g}"
    temperatures = np.linspace(0.2, 2, count)
    rewards = mdp.reward - np.random.default_rng(0).random((count, *mdp.reward.shape))
    cases = {
        "temperatures": (lambda t: no.functional.solve(mdp, temperature=t).value, temperatures),
        "rewards": (lambda r: no.functional.solve(mdp, reward=r).value, rewards),
    }
    with jax.enable_x64(True):
        for what, (one, inputs) in cases.items():
            single, many = jax.jit(one), jax.jit(jax.vmap(one))
            serial = best(lambda f=single, xs=inputs: [f(x) for x in xs])
            together = best(lambda f=many, xs=inputs: f(xs))
            yield Row(f"{count} {what} {name}: one by one", serial)
            times = serial / together
            yield Row(f"{count} {what} {name}: vmap", together, aim="5 ×", met=times >= 5, note=f"{times:.1f} ×")


GROUPS = {f.__name__: f for f in (sweep, solvers, certified, rust, planning_batch)}
