"""The certificate checker accepts exact solutions, widened by a hair, and nothing that claims more than the truth."""

import copy
import math
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest

import nearopt as no
from nearopt.planning.checker import check
from tests.planning.consensus import PUBLISHED, consensus, questions
from tests.planning.fakes import HAIR, HARD, asked, encloses, fake, loop_solution, problems, ring_solution, widened
from tests.planning.rational import Problem, exact
from tests.planning.slow import from_branches

LOWER = "lower is not proved: it is not certain that it rises under a backup in {}"
SOLUTIONS = [fake(problem, *widened(problem)) for problem in problems(4)] + [loop_solution(), ring_solution()]


# ---------------------------------------------------------------- right answers
def test_right_certificates_are_accepted():
    for problem in problems(25):
        solution = fake(problem, *widened(problem))
        assert check(solution) == [], problem
        assert encloses(solution)
    for solution in (loop_solution(), ring_solution()):
        assert check(solution) == [] and encloses(solution)


def test_the_consensus_protocol_is_accepted():
    for reward, value in questions(PUBLISHED[2, 2]):
        problem = Problem(consensus(2, 2, reward), HARD)
        solution = fake(problem, *widened(problem))
        assert check(solution) == []
        assert solution.lower[0] <= value <= solution.upper[0]


def test_what_did_not_converge_may_be_wide():
    solution = copy.deepcopy(SOLUTIONS[0])
    solution.tol = 0.0
    assert "above the tolerance" in check(solution)[0]
    solution.converged = False
    assert check(solution) == []


# ---------------------------------------------------------------- wrong answers
def move(solution: Any, states: Any, side: int, to: np.ndarray) -> None:
    """The bound of that side becomes `to`, everywhere it is written, and the value with it if it must."""
    name = "lower" if side < 0 else "upper"
    for holder in (solution, solution.certificate):
        getattr(holder, name)[states] = to[states]
    getattr(solution.certificate, f"{name}_tail")[states] = 0.0
    solution.lower, solution.upper = np.minimum(solution.lower, solution.upper), solution.upper
    solution.value = np.clip(solution.value, solution.lower, solution.upper)


def raise_lower(solution, s):
    move(solution, s, -1, solution.upper)


def drop_upper(solution, s):
    move(solution, s, 1, solution.lower)


def raise_all_lower(solution, s):
    move(solution, ~solution.mdp.terminal, -1, solution.upper)


def drop_all_upper(solution, s):
    move(solution, ~solution.mdp.terminal, 1, solution.lower)


def shift_up(solution, s):
    up = solution.upper + (solution.upper - solution.lower)
    move(solution, s, 1, up)
    move(solution, s, -1, np.nextafter(solution.upper, solution.lower))
    solution.converged = False


def shift_down(solution, s):
    down = solution.lower - (solution.upper - solution.lower)
    move(solution, s, -1, down)
    move(solution, s, 1, np.nextafter(solution.lower, solution.upper))
    solution.converged = False


def swap(solution, s):
    c = solution.certificate
    solution.lower, solution.upper = solution.upper, solution.lower
    c.lower, c.lower_tail, c.upper, c.upper_tail = c.upper, -c.upper_tail, c.lower, -c.lower_tail


def turn_lower_tail(solution, s):
    solution.certificate.lower_tail[s] = -5e-324


def turn_upper_tail(solution, s):
    solution.certificate.upper_tail[s] = 5e-324


def other_lower(solution, s):
    solution.lower[s] = np.nextafter(solution.lower[s], solution.upper[s])


def other_upper(solution, s):
    solution.certificate.upper[s] = np.nextafter(solution.upper[s], np.inf)


def value_below(solution, s):
    solution.value[s] = np.nextafter(solution.lower[s], -np.inf)


def value_above(solution, s):
    solution.value[s] = np.nextafter(solution.upper[s], np.inf)


def not_a_number(solution, s):
    solution.certificate.upper_tail[s] = np.nan


def infinite(solution, s):
    solution.upper[s] = solution.certificate.upper[s] = np.inf


def infinite_below(solution, s):
    solution.lower[s] = solution.certificate.lower[s] = -np.inf


def value_is_no_number(solution, s):
    solution.value[s] = np.nan


def too_wide(solution, s):
    solution.tol = np.nextafter(float((solution.upper - solution.lower).max()), 0) * 0.999


def tolerance_is_no_number(solution, s):
    solution.tol = math.nan


def short(solution, s):
    solution.certificate.lower = solution.certificate.lower[:-1]


def single_precision(solution, s):
    solution.value = solution.value.astype(np.float32)


def other_temperature(solution, s):
    solution.temperature = solution.temperature + 0.01


def no_temperature(solution, s):
    solution.temperature = math.nan


def other_optimism(solution, s):
    solution.optimism = solution.optimism + 0.01


def other_discount(solution, s):
    solution.mdp = solution.mdp.replace(discount=solution.mdp.discount * 0.99 if solution.mdp.discount else 0.01)


def other_rewards(solution, s):
    solution.mdp = solution.mdp.replace(branch_reward=solution.mdp.branch_reward - 0.01)


def strange_prior(solution, s):
    solution.prior = "flat"


def negative_prior(solution, s):
    solution.prior = -np.ones((solution.mdp.num_states, solution.mdp.num_actions))


CORRUPTIONS = [
    *(raise_lower, drop_upper, raise_all_lower, drop_all_upper, shift_up, shift_down, swap),
    *(turn_lower_tail, turn_upper_tail, other_lower, other_upper, value_below, value_above),
    *(not_a_number, infinite, infinite_below, value_is_no_number, too_wide, tolerance_is_no_number),
    *(short, single_precision, strange_prior, negative_prior),
    *(other_temperature, no_temperature, other_optimism, other_discount, other_rewards),
]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda f: f.__name__)
def test_corruption_is_rejected(corrupt):
    rng = np.random.default_rng(3)
    tried = 0
    for good in SOLUTIONS:
        open_states = np.flatnonzero(good.upper > good.lower)  # not at rest: there lower = 0 = upper is right
        if len(open_states) == 0:
            continue
        solution = copy.deepcopy(good)
        corrupt(solution, int(rng.choice(open_states)))
        if corrupt in (other_temperature, other_optimism, other_discount) and not matters(good, solution):
            continue
        assert check(solution) != [], (corrupt.__name__, good.mdp, good.temperature)
        tried += 1
    assert tried > 20


def matters(good: Any, changed: Any) -> bool:
    """Whether other dials have another answer: not where there is but one choice, or one outcome, or no future."""
    if changed.temperature == 0 != changed.optimism:
        return True
    try:
        return not encloses(changed)
    except ArithmeticError:
        return True  # no finite value


def test_complaints_name_the_state():
    mdp = no.MDP.from_function(lambda s, a: [(1.0, "end", -1.0)], "start", lambda s: [0] if s == "start" else [])
    solution = fake(Problem(mdp, HARD), [Fraction(-1) + HAIR, Fraction(0)], [Fraction(-1) + 2 * HAIR, Fraction(0)])
    assert check(solution) == [LOWER.format("state 0 ('start')")]
    solution.lower[1] = solution.certificate.lower[1] = -1.0
    assert check(solution)[0] == "lower is not 0 in terminal state 1 ('end')"
    solution.value = solution.value.astype(np.float32)
    assert check(solution)[-1] == "value is not a float64 array with one number per state"


@pytest.mark.parametrize("name", ["lower", "lower_tail", "upper", "upper_tail"])
def test_a_flipped_bit_is_rejected_or_harmless(name):
    """Flipped in the certificate alone or, with no trace, everywhere: what is accepted is still true."""
    rng = np.random.default_rng(5)
    rejected = 0
    for good in SOLUTIONS:
        truth = exact(asked(good))
        for _ in range(12):
            solution, s, bit = copy.deepcopy(good), rng.integers(good.mdp.num_states), int(rng.integers(64))
            getattr(solution.certificate, name).view(np.uint64)[s] ^= np.uint64(1 << bit)
            plain = name in ("lower", "upper")
            changed = getattr(solution.certificate, name)[s] != getattr(good.certificate, name)[s]
            if plain and changed:
                assert check(solution) != []
                getattr(solution, name)[s] = getattr(solution.certificate, name)[s]
            solution.converged = False
            if check(solution) == []:
                assert encloses(solution, truth)
            else:
                rejected += 1
    assert rejected > 100


def test_noise_is_rejected_or_harmless():
    rng = np.random.default_rng(8)
    accepted = rejected = 0
    for good in SOLUTIONS:
        width, truth = good.upper - good.lower, exact(asked(good))
        for size in (0.0, 0.3, 1.0, 3.0):
            solution = copy.deepcopy(good)
            shift = width * rng.normal(size=len(width)) * size
            for name in ("lower", "upper"):
                bound = getattr(good, name) + shift + width * rng.normal(size=len(width)) * size / 3
                setattr(solution, name, bound)
                setattr(solution.certificate, name, bound.copy())
            solution.value = solution.lower.copy()
            solution.converged = False
            if check(solution) == []:
                accepted += 1
                assert encloses(solution, truth)
            else:
                rejected += 1
    assert accepted >= len(SOLUTIONS) // 2 and rejected > len(SOLUTIONS)


# ---------------------------------------------------------------- spurious fixed points
def ask(mdp: no.MDP, lower: float, upper: float, **changes: Any) -> list[str]:
    """Complaints about two numbers, one each for all states that are not terminal."""
    bounds = [[Fraction(x) * int(not t) for t in mdp.terminal] for x in (lower, upper)]
    return check(fake(Problem(mdp, {**HARD, **changes}), *bounds))


def two(reward: float, actions: int = 1, leave: float | None = None) -> no.MDP:
    """Two states that lead to each other for ever; with `leave` the first may go to a terminal state for that."""
    world = [[[(1.0, 1 - s, reward)]] * actions for s in (0, 1)] + [[]]
    if leave is not None:
        world[0] = [*world[0], [(1.0, 2, leave)]]
    return from_branches(world)


@pytest.mark.parametrize(
    ("mdp", "changes"),
    [
        (two(0.0), {}),
        (two(0.0, actions=3), {}),
        (two(0.0, leave=-1.0), {}),  # nothing is better than to stay
        (two(0.0), dict(temperature=1.0)),
        (two(0.0, actions=3), dict(temperature=1.0, prior="uniform")),
        (two(0.0, actions=3), dict(temperature=0.5, optimism=1.0, prior="uniform")),
        (two(0.0, actions=3), dict(temperature=1.0, prior=np.full((3, 3), [0.1, 0.2, 0.7]))),
    ],
)
def test_rest_is_worth_nothing(mdp, changes):
    assert ask(mdp, 0, 0, **changes) == []
    for lower, upper in ((100, 100), (100, 101), (-1, -1), (-2, -1), (1e-300, 1), (-1, -1e-300)):
        assert ask(mdp, lower, upper, **changes) != [], (lower, upper)


def test_a_fixed_point_is_no_proof():
    """Every constant from the truth upwards, or downwards, is a fixed point of these."""
    for value in (0.5, 1, 100):
        assert ask(two(0.0, leave=value), value, value) == [LOWER.format("state 0 and 1 more")]
    ring_up = two(0.0, leave=0.25)
    assert ask(ring_up, 0, 0.25) == [] and ask(ring_up, 0, 7) == []  # above the truth: a bound, if a poor one
    assert ask(ring_up, 0.25, 7) != [] and ask(ring_up, 7, 7) != [] and ask(ring_up, -1, 0.125) != []
    mixed = from_branches([[[(1.0, 0, 0.0)], [(1.0, 1, -1.0)]], [], [[(1.0, 1, 3.0)]]])  # a reward above 0 elsewhere
    good = fake(Problem(mixed, HARD), [Fraction(0), Fraction(0), Fraction(3)], [Fraction(0), Fraction(0), Fraction(3)])
    assert check(good) == [LOWER.format("state 2")]  # 3 is paid, but to show it B l > l is asked, and B l = l
    for lower in (good.lower, good.certificate.lower):
        lower[2] = np.nextafter(3.0, 0)
    assert check(good) == []
    for upper in (good.lower, good.upper, good.certificate.lower, good.certificate.upper, good.value):
        upper[0] = -1.0  # a fixed point too: to leave for −1 is as good as to stay for −1
    assert check(good) == ["upper excludes 0, the value of resting, in state 0"]


def test_what_is_earned_in_the_last_step_counts():
    """Stay for nothing, and at the end take 1 whose price of 3 comes a step later: every B^k 0 is 1, not 0."""
    mdp = from_branches([[[(1.0, 0, 0.0)], [(1.0, 1, 1.0)]], [[(1.0, 2, -3.0)]], []])
    for upper, accepted in ((Fraction(0), False), (Fraction(1, 2), False), (Fraction(1), True)):
        lower = [Fraction(0), Fraction(-3), Fraction(0)]
        assert (check(fake(Problem(mdp, HARD), lower, [upper, Fraction(-3) + HAIR, Fraction(0)])) == []) is accepted


def test_rest_beside_costs():
    """A bound above 0 beside a cost: proved as it falls, but not cut off at 0, so that rest has to be seen as rest."""
    cost = [(1.0, 4, -1e-10)], [(1.0, 4, -5.0)]
    stay = [[(1.0, 0, 0.0)], [(1.0, 4, -1.0)]]
    mdp = from_branches([stay, [[(0.5, 2, 0.0), (0.5, 3, 0.0)]], [cost[0]], [cost[1]], []])
    lower = [Fraction(x) for x in (0, -2.6, -1e-9, -5.1, 0)]
    upper = [Fraction(x) for x in (0, -2.5 + 2e-9, 1e-9, -5 + 1e-9, 0)]
    for prior in (None, np.full((5, 2), 0.25)):
        solution = fake(Problem(mdp, {**HARD, "prior": prior}), lower, upper)
        solution.converged = False
        assert check(solution) == []


def test_no_rest_where_something_is_earned_for_ever():
    assert ask(two(0.0, actions=2), 0, 0, temperature=1.0) != []  # the flat prior pays log 2 a step
    assert ask(two(1e-300), 0, 0) != [] and ask(two(-1e-300), 0, 0) != []
    assert ask(two(-np.inf), 0, 0) != [] and ask(two(-np.inf), 0, 0, temperature=1.0, optimism=1.0) != []
    half = np.full((3, 1), 0.5)
    assert ask(two(0.0), 0, 0, temperature=1.0, prior=half) != [] and ask(two(0.0), 0, 0, prior=half) == []
    assert ask(two(0.0), 0, 0, prior=0 * half) != []  # no choice at all
    assert ask(two(0.0), 0, 0, prior=0 * half, temperature=1.0) != []
    assert ask(two(0.0, leave=-1.0), 0, 0, temperature=1.0, prior="uniform") != []  # to leave may be forced on one
    barely = np.full((3, 3), [0.1, 0.2, 0.7 + 1e-15])  # rest at γ = 1; with a discount 1e-15 a step is just that
    assert ask(two(0.0, actions=3), 0, 0, temperature=1.0, prior=barely) == []
    assert ask(two(0.0, actions=3).replace(discount=0.5), 0, 0, temperature=1.0, prior=barely) != []


def test_rows_are_read_as_normalised():
    """Ten times 0.1 is not 1: the leftover 1e-16 a step must not be worth anything."""
    world = [[[(0.1, s, -1.0) for s in range(9)] + [(0.1, 9, -1.0)]] for _ in range(9)] + [[]]
    mdp = from_branches(world)
    assert sum(Fraction(p) for p in mdp.probability[:10]) != 1
    assert ask(mdp, -10 - 1e-12, -10 + 1e-12) == []
    assert ask(mdp, -10 + 1e-14, -10 + 1e-12) != [] and ask(mdp, -10 - 1e-12, -10 - 1e-14) != []
    free = from_branches([[[(0.1, s, 0.0) for s in range(10)]] for _ in range(10)]).replace(discount=0.5)
    for optimism in (0.0, 1.0, -1.0):
        assert ask(free, 0, 0, temperature=1.0, optimism=optimism) == []


def test_the_callers_precision_stays():
    before = flint.ctx.prec
    check(SOLUTIONS[0])
    assert flint.ctx.prec == before
