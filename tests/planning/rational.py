"""Exact answers for the infinite horizon.

Hard control is solved in rational numbers. Soft problems are solved by Newton's method in balls of 256 bits and then
enclosed: if B u < u and B l > l then l ≤ V* ≤ u. At optimism 1 there is a second way: z = exp(V/τ) solves a linear
system. Everything follows design §1 line by line and shares no code with nearopt.

The problem that is solved is that of the numbers which the `MDP` holds, each row of probabilities divided by its sum.
"""

import math
from fractions import Fraction
from typing import Any, NamedTuple

from flint import arb, arb_mat, ctx, fmpq, fmpq_mat

import nearopt as no

PRECISION = 256
NOTHING = Fraction(0)
Number = fmpq | arb


class Row(NamedTuple):
    """One choice that is possible: prior, Σ p, [(probability, reward, next state)] without what −inf forbids."""

    weight: Fraction
    mass: Fraction
    branches: list[tuple[Fraction, Fraction, int]]


class Problem(NamedTuple):
    """A model and the keyword arguments of `solve` that say what is asked about it."""

    mdp: no.MDP
    dials: dict[str, Any]


# ---------------------------------------------------------------- the model, as exact numbers
def read(mdp: no.MDP, optimism: float, prior: Any) -> list[list[Row]]:
    """The possible choices of each state."""
    world: list[list[Row]] = [[] for _ in range(mdp.num_states)]
    for c in range(mdp.num_choices):
        s = int(mdp.choice_state[c])
        b = slice(int(mdp.branch_offset[c]), int(mdp.branch_offset[c + 1]))
        branches = list(zip(mdp.probability[b].tolist(), mdp.branch_reward[b], mdp.next_state[b].tolist(), strict=True))
        possible = [(Fraction(p), Fraction(float(r)), t) for p, r, t in branches if r > -math.inf]
        weight = Fraction(1)
        if isinstance(prior, str):
            weight = Fraction(1, int(mdp.choice_offset[s + 1] - mdp.choice_offset[s]))
        elif prior is not None:
            weight = Fraction(float(prior[s, mdp.choice_action[c]]))
        if weight > 0 and possible and (optimism > 0 or len(possible) == len(branches)):
            world[s].append(Row(weight, sum((Fraction(p) for p, _, _ in branches), Fraction(0)), possible))
    return world


def at_rest(world: list[list[Row]], hard: bool, discount: float) -> set[int]:
    """Terminal states and, at γ = 1, states that nothing is earned or paid from: V* = 0 there.

    A state rests if every choice is free and leads to rest; under hard control without rewards above 0 one is enough.
    """
    rest = {s for s, rows in enumerate(world) if not rows}
    if discount < 1:
        return rest
    enough = any if hard and all(r <= 0 for rows in world for row in rows for _, r, _ in row.branches) else all
    inside = set(range(len(world)))
    while True:
        free = [enough(all(r == 0 and t in inside for _, r, t in row.branches) for row in rows) for rows in world]
        normal = [hard or abs(sum(row.weight for row in rows) - 1) <= Fraction(1e-12) for rows in world]
        smaller = rest | {s for s in inside if free[s] and normal[s]}
        if smaller == inside:
            return inside
        inside = smaller


# ---------------------------------------------------------------- hard control, in rationals
def hard_values(mdp: no.MDP, prior: Any = None, shift: Fraction = NOTHING) -> list[fmpq]:
    """V* at τ = 0, by policy iteration; with `shift` added to the reward of every step that is not rest.

    At γ = 1 it starts from a proper policy, and as no choice is changed for one that is only as good, every policy is
    proper: on a class that is never left, the mean gain of a change would be a mean reward of at most 0.
    """
    world = read(mdp, 0.0, prior)
    rest = at_rest(world, True, mdp.discount)
    gamma = fmpq(*Fraction(mdp.discount).as_integer_ratio())
    states = [s for s in range(mdp.num_states) if s not in rest]
    rows = {s: [rational(row, shift) for row in world[s]] for s in states}
    policy = proper(rows, rest)
    while True:
        value = evaluate(rows, policy, gamma, mdp.num_states)
        changed = False
        for s in states:
            q = [r + gamma * sum((p * value[t] for p, t in branches), fmpq(0)) for r, branches in rows[s]]
            if max(q) > value[s]:
                policy[s], changed = q.index(max(q)), True
        if not changed:
            return value


def rational(row: Row, shift: Fraction) -> tuple[fmpq, list[tuple[fmpq, int]]]:
    """The expected reward of a choice, and its (probability, next state)."""
    p = [fmpq(*(p / row.mass).as_integer_ratio()) for p, _, _ in row.branches]
    r = [fmpq(*(r + shift).as_integer_ratio()) for _, r, _ in row.branches]
    reward = sum((a * b for a, b in zip(p, r, strict=True)), fmpq(0))
    return reward, [(a, t) for a, (_, _, t) in zip(p, row.branches, strict=True)]


def proper(rows: dict[int, list], rest: set[int]) -> dict[int, int]:
    """A choice per state that leads towards rest with some probability, wherever there is one."""
    policy, reached, frontier = {s: 0 for s in rows}, set(rest), set(rest)
    while frontier:
        frontier = set()
        for s in rows.keys() - reached:
            for c, (_, branches) in enumerate(rows[s]):
                if any(t in reached for _, t in branches):
                    policy[s] = c
                    frontier.add(s)
                    break
        reached |= frontier
    return policy


def evaluate(rows: dict[int, list], policy: dict[int, int], gamma: fmpq, num_states: int) -> list[fmpq]:
    """V = r + γ P V, by a rational linear solver."""
    states = sorted(rows)
    place = {s: i for i, s in enumerate(states)}
    value = [fmpq(0)] * num_states
    if not states:
        return value
    system, right = fmpq_mat(len(states), len(states)), fmpq_mat(len(states), 1)
    for i, s in enumerate(states):
        right[i, 0], branches = rows[s][policy[s]]
        system[i, i] += 1
        for p, t in branches:
            if t in place:
                system[i, place[t]] -= gamma * p
    solved = system.solve(right)
    for i, s in enumerate(states):
        value[s] = solved[i, 0]
    return value


# ---------------------------------------------------------------- soft control, in balls
def ball(x: Fraction | float) -> arb:
    numerator, denominator = x.as_integer_ratio()
    return arb(numerator) / arb(denominator)


def backup(world: list[list[Row]], mdp: no.MDP, dials: tuple[arb, arb], value: list[arb], rest: set[int]):
    """B v of every state that does not rest, and the matrix ∂B/∂v."""
    (tau, kappa), gamma = dials, ball(mdp.discount)
    out, slope = list(value), arb_mat(len(world), len(world))
    for s, rows in enumerate(world):
        if s in rest:
            continue
        terms, slopes = [], []
        for row in rows:
            p = [ball(p / row.mass) for p, _, _ in row.branches]
            r, v = [ball(r) for _, r, _ in row.branches], [value[t] for _, _, t in row.branches]
            if kappa == 0:
                q = sum((a * (b + gamma * c) for a, b, c in zip(p, r, v, strict=True)), arb(0))
                share = [gamma * a for a in p]
            else:
                theta = kappa / tau
                going = [a * (theta * b).exp() * gamma * (theta * c).exp() for a, b, c in zip(p, r, v, strict=True)]
                ending = [a * (theta * b).exp() * (1 - gamma) for a, b in zip(p, r, strict=True)]
                whole = sum(going, arb(0)) + sum(ending, arb(0))
                q = whole.log() / theta
                share = [g / whole for g in going]
            terms.append(ball(row.weight) * (q / tau).exp())
            slopes.append([(x, t) for x, (_, _, t) in zip(share, row.branches, strict=True)])
        total = sum(terms, arb(0))
        out[s] = tau * total.log()
        for term, shares in zip(terms, slopes, strict=True):
            for x, t in shares:
                if t not in rest:
                    slope[s, t] += term / total * x
    return out, slope


class Soft(NamedTuple):
    """V* of a soft problem: l ≤ V* ≤ u where l, u = value ∓ ε·rise for every small ε > 0 down to `EPSILON`."""

    value: list[arb]  # numbers without radius
    rise: list[arb]  # (I − ∂B/∂v)^(−1) 1, and 0 at rest
    enclosure: list[arb]  # balls that contain V*


EPSILON = Fraction(1, 10**50)


def soft_values(mdp: no.MDP, temperature: float, optimism: float = 0.0, prior: Any = None) -> Soft:
    """V* at τ > 0: 20 backups of zero, Newton's method, and a proof that the answer is where it says."""
    with ctx.workprec(PRECISION):
        world = read(mdp, optimism, prior)
        rest = at_rest(world, False, mdp.discount)
        dials = ball(temperature), ball(optimism)
        size = mdp.num_states
        identity = arb_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])
        value = [arb(0)] * size
        for _ in range(20):
            value = [v.mid() for v in backup(world, mdp, dials, value, rest)[0]]
        for _ in range(60):
            after, slope = backup(world, mdp, dials, value, rest)
            columns = [[a - v, int(s not in rest)] for s, (a, v) in enumerate(zip(after, value, strict=True))]
            change, rise = zip(*(identity - slope).solve(arb_mat(columns)).tolist(), strict=True)
            value = [(v + c).mid() for v, c in zip(value, change, strict=True)]
            if all(abs(c) < ball(EPSILON) for c in change):
                break
        else:
            raise ArithmeticError("Newton's method does not arrive: is the value finite?")
        rise = [h.mid() for h in rise]
        ends = [[v + sign * ball(EPSILON) * h for v, h in zip(value, rise, strict=True)] for sign in (-1, 1)]
        for sign, end in zip((-1, 1), ends, strict=True):
            after, _ = backup(world, mdp, dials, end, rest)
            assert all(sign * (a - v) < 0 for s, (a, v) in enumerate(zip(after, end, strict=True)) if s not in rest)
        return Soft(value, rise, [l.union(u) for l, u in zip(*ends, strict=True)])


def linear_values(mdp: no.MDP, temperature: float, prior: Any = None) -> list[arb]:
    """V* at κ = 1, from z = M z + b for z = exp(V/τ), with a proof that the powers of M vanish."""
    with ctx.workprec(PRECISION):
        world = read(mdp, 1.0, prior)
        rest = at_rest(world, False, mdp.discount)
        tau, gamma, size = ball(temperature), ball(mdp.discount), mdp.num_states
        system, right = arb_mat(size, size), arb_mat(size, 2)
        for s, rows in enumerate(world):
            system[s, s] += 1
            right[s, 1] = arb(1)
            if s in rest:
                right[s, 0] = arb(1)
                continue
            for row in rows:
                for p, r, t in row.branches:
                    x = ball(row.weight * p / row.mass) * (ball(r) / tau).exp()
                    system[s, t] -= gamma * x
                    right[s, 0] += (1 - gamma) * x
        solved = system.solve(right)
        assert all(solved[s, 1] > 0 for s in range(size))  # M y < y for a y > 0
        return [tau * solved[s, 0].log() for s in range(size)]


def exact(problem: Problem) -> list[Number]:
    """V*: rational numbers, or balls that contain it."""
    dials = problem.dials
    if dials["temperature"] == 0:
        return list(hard_values(problem.mdp, dials["prior"]))
    return list(soft_values(problem.mdp, **dials).enclosure)


def below(x: float, y: Number) -> bool:
    """Certainly x ≤ y."""
    with ctx.workprec(PRECISION):
        return arb(x) <= y if isinstance(y, arb) else fmpq(*x.as_integer_ratio()) <= y


def above(x: float, y: Number) -> bool:
    """Certainly x ≥ y."""
    with ctx.workprec(PRECISION):
        return arb(x) >= y if isinstance(y, arb) else fmpq(*x.as_integer_ratio()) >= y
