"""Every bound that `solve` returns holds: against exact answers, and in the eyes of the independent checker."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import ctx, fmpq

import nearopt as no
from nearopt.planning.checker import check
from tests.planning.consensus import PUBLISHED, consensus, questions
from tests.planning.problems import FAMILIES, dials
from tests.planning.rational import PRECISION, Problem, above, below, exact, hard_values, linear_values
from tests.planning.slow import from_branches, haddad_monmege, random_walk, ring

METHODS = ("auto", "policy_iteration", "value_iteration")
PER_FAMILY = 56  # × 9 families: 504 problems
TOL = 1e-8
HARD = dials(0.0, 0.0, None)


def rational(values: list[Fraction]) -> list[fmpq]:
    return [fmpq(*v.as_integer_ratio()) for v in values]


def enclosed(problem: Problem, truth: list, tol: float = TOL, **how: Any) -> Any:
    """The solution, after checking that it encloses the truth in every state and that its certificate proves so."""
    solution = no.solve(problem.mdp, **problem.dials, tol=tol, **how)
    for s, (l, u, v) in enumerate(zip(solution.lower.tolist(), solution.upper.tolist(), truth, strict=True)):
        assert below(l, v) and above(u, v), (problem, how, s, l, float(str(v).split()[0].strip("[")), u)
    assert check(solution) == [], (problem, how)
    if how.get("throw", True):
        assert solution.converged and (solution.upper - solution.lower).max() <= tol
    return solution


# ---------------------------------------------------------------- random problems
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_random_problems(family):
    for i in range(PER_FAMILY):
        problem = family(np.random.default_rng([2018, i]))
        truth = exact(problem)
        if problem.dials["optimism"] == 1:  # a second way to the truth
            linear = linear_values(problem.mdp, problem.dials["temperature"], problem.dials["prior"])
            with ctx.workprec(PRECISION):
                assert all(a.overlaps(b) for a, b in zip(truth, linear, strict=True))
        enclosed(problem, truth, method=METHODS[i % 3])


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_a_maze_with_costs(slip):
    """First exit with negative rewards, in which the wrong turns never end."""
    maze = no.MDP.from_grid("S..#...\n.#...#.\n...#..G", slip=slip)
    truth = hard_values(maze)
    for method in METHODS:
        enclosed(Problem(maze, HARD), truth, method=method)


# ---------------------------------------------------------------- slow chains
CHAINS = {
    "reach 6": haddad_monmege(6, 0.7),
    "reach 12": haddad_monmege(12, 0.5),
    "reach 20": haddad_monmege(20, 0.7),
    "steps 6": haddad_monmege(6, 0.5, step=-1.0),
    "steps 12": haddad_monmege(12, 0.7, step=-1.0),
    "end components 6": haddad_monmege(6, 0.7, stay=0.0),
    "end components 16": haddad_monmege(16, 0.3, stay=0.0),
    "costly loops 10": haddad_monmege(10, 0.7, stay=-0.01, step=-1.0),
    "walk": random_walk(20, 0.5),
    "walk uphill": random_walk(40, 0.4, stay=0.0),
    "walk steps": random_walk(30, 0.5, step=-1.0),
    "walk steps downhill": random_walk(200, 0.6, stay=-1.0, step=-1.0),
    "ring": ring([0.1, 0.7, 0.3, 0.2]),
    "ring of equals": ring([0.3, 0.3, 0.3, 0.3, 0.3]),
}
LONG = {"reach 12", "reach 20", "steps 12", "end components 16"}  # beyond value iteration


def test_the_exact_values_of_the_chains():
    for name, (mdp, values) in CHAINS.items():
        if name != "costly loops 10":
            assert hard_values(mdp) == rational(values), name
    assert haddad_monmege(20, 0.7, step=-1.0)[1][20] == -1572862  # as QVBS has it
    assert haddad_monmege(100, 0.7, step=-1.0)[1][100] == -1901475900342344102245054808062


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("method", METHODS)
def test_slow_chains(name, method):
    if name in LONG and method == "value_iteration":
        pytest.skip("hundreds of thousands of sweeps and more")
    mdp, _ = CHAINS[name]
    enclosed(Problem(mdp, HARD), hard_values(mdp), method=method)


@pytest.mark.parametrize(
    "chain",
    [
        haddad_monmege(36, 0.7),
        haddad_monmege(30, 0.7, stay=0.0),
        haddad_monmege(30, 0.7, step=-1.0),
        random_walk(400, 0.3),
        random_walk(1000, 0.5, step=-1.0),
    ],
    ids=["reach 36", "end components 30", "steps 30", "walk 400", "walk steps 1000"],
)
def test_what_rounding_makes_hard_may_be_wide_but_not_wrong(chain):
    """Condition numbers up to 10^11. The bounds may be far apart; they still hold."""
    mdp, values = chain
    enclosed(Problem(mdp, HARD), rational(values), throw=False)


@pytest.mark.parametrize("tol", [1e-16, 1e-30])
def test_a_tolerance_below_rounding_is_told(tol):
    mdp, values = haddad_monmege(10, 0.7)
    solution = enclosed(Problem(mdp, HARD), rational(values), tol=tol, throw=False)
    assert not solution.converged and tol < (solution.upper - solution.lower).max() < 1e-6
    with pytest.raises(no.NearoptError):
        no.solve(mdp, temperature=0.0, tol=tol)


def test_the_last_step_counts():
    """To stay is free; the last of k steps takes 1 and leaves its price of 3 unpaid. V = lim B^k 0 = 1: or refuse."""
    mdp = from_branches([[[(1.0, 0, 0.0)], [(1.0, 1, 1.0)]], [[(1.0, 2, -3.0)]], []])
    try:
        solution = no.solve(mdp, **HARD)
    except no.NearoptError:
        return
    assert solution.lower[0] <= 1 <= solution.upper[0] and check(solution) == []


# ---------------------------------------------------------------- randomised consensus
@pytest.mark.parametrize("size", PUBLISHED, ids=str)
def test_the_model_is_the_published_one(size):
    mdp, published = consensus(*size, lambda coins: 0.0), PUBLISHED[size]
    loops = int(mdp.terminal.sum())  # the collection counts a loop in each finished state
    assert (mdp.num_states, mdp.num_choices + loops, mdp.num_branches + loops) == published[:3]


@pytest.mark.parametrize("question", range(4), ids=["all_one", "disagree", "cost", "gain"])
def test_consensus_with_272_states(question):
    reward, value = questions(PUBLISHED[2, 2])[question]
    mdp = consensus(2, 2, reward)
    truth = hard_values(mdp)
    assert truth[0] == rational([value])[0]
    for method in METHODS:
        enclosed(Problem(mdp, HARD), truth, method=method)


@pytest.mark.parametrize("question", range(3), ids=["all_one", "disagree", "cost"])
def test_consensus_with_22656_states(question):
    reward, value = questions(PUBLISHED[4, 2])[question]
    solution = no.solve(consensus(4, 2, reward), **HARD, tol=TOL)
    assert solution.lower[0] <= value <= solution.upper[0]
    assert check(solution) == []
