"""Solutions as the checker sees them, made of exact values widened by a hair."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
from flint import arb, ctx

from tests.planning.problems import FAMILIES, dials, hard_arrival
from tests.planning.rational import PRECISION, Problem, above, ball, below, exact, hard_values, soft_values
from tests.planning.slow import haddad_monmege, random_walk, ring

HAIR = Fraction(1, 10**12)
HARD = dials(0.0, 0.0, None)


def fraction(x: Any) -> Fraction:
    if isinstance(x, arb):
        mantissa, exponent = x.man_exp()
        return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return Fraction(int(x.p), int(x.q))


def widened(problem: Problem) -> tuple[list[Fraction], list[Fraction]]:
    """Witnesses on both sides of V*, off it by a hair per step: B u < u and B l > l."""
    if problem.dials["temperature"] == 0:
        mdp, prior = problem.mdp, problem.dials["prior"]
        ends = [hard_values(mdp, prior, -HAIR), hard_values(mdp, prior, HAIR)]
    else:
        soft = soft_values(problem.mdp, **problem.dials)
        with ctx.workprec(PRECISION):
            ends = [
                [(v + ball(sign * HAIR) * h).mid() for v, h in zip(soft.value, soft.rise, strict=True)]
                for sign in (-1, 1)
            ]
    return [fraction(x) for x in ends[0]], [fraction(x) for x in ends[1]]


def outward(x: Fraction, direction: float) -> tuple[float, float]:
    """A float beyond x, and what is to be added to it to get back."""
    whole = float(x)
    if (Fraction(whole) - x) * int(direction) < 0:
        whole = math.nextafter(whole, direction * math.inf)
    return whole, float(x - Fraction(whole))


def fake(problem: Problem, lower: list[Fraction], upper: list[Fraction]) -> Any:
    """What `solve` returns, as far as the checker looks."""
    low, up = (np.array([outward(x, side) for x in xs]).reshape(-1, 2) for xs, side in ((lower, -1.0), (upper, 1.0)))
    certificate = SimpleNamespace(lower=low[:, 0], lower_tail=low[:, 1], upper=up[:, 0], upper_tail=up[:, 1])
    return SimpleNamespace(
        mdp=problem.mdp,
        **problem.dials,
        lower=low[:, 0].copy(),
        upper=up[:, 0].copy(),
        value=np.clip((low[:, 0] + up[:, 0]) / 2, low[:, 0], up[:, 0]),
        tol=max(1e-9, 1.01 * float((up[:, 0] - low[:, 0]).max())),
        converged=True,
        certificate=certificate,
    )


def loop_solution() -> Any:
    """Where staying costs nothing, no value exceeds its own backup by a hair: B u = u."""
    mdp, value = haddad_monmege(8, 0.7, stay=0.0)
    steps = haddad_monmege(8, 0.7, step=-1.0)[1]
    return fake(
        Problem(mdp, HARD),
        [v + HAIR * h for v, h in zip(value, steps, strict=True)],
        [v - HAIR * h for v, h in zip(value, steps, strict=True)],
    )


def ring_solution() -> Any:
    mdp, value = ring([0.1, 0.7, 0.3, 0.2])
    way = [2, 1, 4, 3, 0, 0]  # steps until the best exit is taken
    return fake(
        Problem(mdp, HARD),
        [v - HAIR * n for v, n in zip(value, way, strict=True)],
        [v + HAIR * (n > 0) for v, n in zip(value, way, strict=True)],
    )


def problems(count: int) -> list[Problem]:
    """Of every family that a hair per step leaves finite, and two chains."""
    families = [family for family in FAMILIES if family is not hard_arrival]
    out = [family(np.random.default_rng([99, i])) for family in families for i in range(count)]
    return [
        *out,
        Problem(haddad_monmege(12, 0.7)[0], HARD),
        Problem(random_walk(20, 0.4, step=-1.0, stay=-0.1)[0], HARD),
    ]


def asked(solution: Any) -> Problem:
    return Problem(solution.mdp, {name: getattr(solution, name) for name in HARD})


def encloses(solution: Any, truth: list | None = None) -> bool:
    values = exact(asked(solution)) if truth is None else truth
    bounds = zip(solution.lower.tolist(), solution.upper.tolist(), values, strict=True)
    return all(below(l, v) and above(u, v) for l, u, v in bounds)
