"""An independent check of a solution's certificate: a proof in interval arithmetic that lower ≤ V* ≤ upper.

V* is the limit of the finite-horizon values B^k 0, where B is the backup of design §1, each row p(.|s,a) read as
divided by its exact sum. The witnesses l = lower + lower_tail and u = upper + upper_tail are exact real sums. B is
monotone, and a constant c ≥ 0 added to (taken from) a value adds (takes) at most c; so

    γ < 1   V* ≤ u if B u ≤ u: the excess c of u + c shrinks by a factor < 1 a step, which holds on bounded values.
    γ = 1   Let Z be rest states, in which every B^k 0 is 0, and let u ≥ 0 there. V* ≤ u if elsewhere
            (A) B u < u; for B^k 0 ≤ u + c gives B^(k+1) 0 ≤ u + c − δ; or
            (B) B w ≤ w for w = max(u, 0), so that B^k 0 ≤ w for all k, and B u < u where u < 0, as in (A).

and likewise below with the signs turned. (A) is the argument of stochastic shortest paths (Bertsekas and Tsitsiklis
1991, "An analysis of stochastic shortest path problems", §2), (B) that of positive and negative dynamic programming
(Puterman 1994, "Markov decision processes", §7.2). Nothing of the solver is used here.
"""

import math
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from flint import arb, ctx

from nearopt.mdp.model import MDP

PRECISION = 256  # bits: differences of two witnesses and their products with a probability stay exact
NORMALISED = 1e-12  # a prior so near to summing to one is read, in rest states, as summing to one


class Choice(NamedTuple):
    weight: arb  # its prior, times the state's `norm`
    mass: arb  # Σ p, 1 up to rounding
    branches: list[tuple[arb, arb, int]]  # probability, reward, next state


class Model(NamedTuple):
    """The problem as plain lists, with what is impossible left out."""

    choices: list[list[Choice]]  # of each state
    norm: list[int]  # weights are to be divided by this: 1, or |A(s)| for the uniform prior
    resting: np.ndarray  # Z
    discount: arb
    temperature: arb
    optimism: arb


def check(solution: Any) -> list[str]:
    """Complaints about a solution and its certificate, in sentences; an empty list is a proof that all is right."""
    if complaints := check_dials(solution) or check_arrays(solution):
        return complaints
    with ctx.workprec(PRECISION):
        model = read(solution)
        return check_side(solution, model, "lower", -1) + check_side(solution, model, "upper", 1)


def check_dials(solution: Any) -> list[str]:
    mdp, tau, kappa, prior = solution.mdp, solution.temperature, solution.optimism, solution.prior
    if not (0 <= tau < math.inf and math.isfinite(kappa) and (tau > 0 or kappa == 0)):
        return [f"there is no backup with temperature {tau} and optimism {kappa}"]
    shape = (mdp.num_states, mdp.num_actions)
    known = prior is None or isinstance(prior, str)
    weights = np.ones(shape) if known else np.asarray(prior, np.float64)
    if weights.shape != shape or known and prior not in (None, "uniform"):
        return [f'the prior is neither None nor "uniform" nor an array of shape {shape}']
    wrong = ~(np.isfinite(weights) & (weights >= 0)).all(1)
    return complain(mdp, "the prior is negative or not finite in {}", wrong & ~mdp.terminal)


def check_arrays(solution: Any) -> list[str]:
    """Shapes, finite numbers, zeros in terminal states, signs, order, width."""
    mdp, certificate = solution.mdp, solution.certificate
    arrays = {name: getattr(solution, name) for name in ("lower", "upper", "value")}
    for name in ("lower", "lower_tail", "upper", "upper_tail"):
        arrays[f"certificate.{name}"] = getattr(certificate, name)
    out: list[str] = []
    for name, array in arrays.items():
        if not (isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == (mdp.num_states,)):
            return [f"{name} is not a float64 array with one number per state"]
        out += complain(mdp, f"{name} is not finite in {{}}", ~np.isfinite(array))
        out += complain(mdp, f"{name} is not 0 in terminal {{}}", (array != 0) & mdp.terminal)
    if out:
        return out
    lower, upper, value = solution.lower, solution.upper, solution.value
    pairs, tol = zip(upper.tolist(), lower.tolist(), strict=True), float(solution.tol)
    wide = np.array([bool(solution.converged) and not Fraction(u) - Fraction(l) <= tol for u, l in pairs])
    return [
        *complain(mdp, "certificate.lower is not the solution's in {}", certificate.lower != lower),
        *complain(mdp, "certificate.upper is not the solution's in {}", certificate.upper != upper),
        *complain(mdp, "certificate.lower_tail is negative in {}", certificate.lower_tail < 0),
        *complain(mdp, "certificate.upper_tail is positive in {}", certificate.upper_tail > 0),
        *complain(mdp, "value is below lower in {}", value < lower),
        *complain(mdp, "value is above upper in {}", value > upper),
        *complain(mdp, f"upper − lower is above the tolerance {tol} in {{}}", wide),
    ]


def complain(mdp: MDP, sentence: str, wrong: np.ndarray) -> list[str]:
    """One sentence about the states at fault, or none."""
    states = np.flatnonzero(wrong)
    more = f" and {len(states) - 1} more" if len(states) > 1 else ""
    return [sentence.format(mdp.describe(int(states[0])) + more)] if len(states) else []


def read(solution: Any) -> Model:
    mdp: MDP = solution.mdp
    tau, kappa = float(solution.temperature), float(solution.optimism)
    weights, norm = np.ones(mdp.num_choices), np.ones(mdp.num_states, np.int64)
    if isinstance(solution.prior, str):
        norm = np.maximum(np.diff(mdp.choice_offset), 1)  # sums are compared with |A(s)|: 1/3 has no exact number
    elif solution.prior is not None:
        weights = np.asarray(solution.prior, np.float64)[mdp.choice_state, mdp.choice_action]
    choices: list[list[Choice]] = [[] for _ in range(mdp.num_states)]
    offset, state = mdp.branch_offset.tolist(), mdp.choice_state.tolist()
    columns = (mdp.probability.tolist(), mdp.branch_reward.tolist(), mdp.next_state.tolist())
    for c, weight in enumerate(weights.tolist()):
        rows = list(zip(*(column[offset[c] : offset[c + 1]] for column in columns), strict=True))
        possible = [(arb(p), arb(r), t) for p, r, t in rows if r > -math.inf]
        hopeless = not possible or (kappa <= 0 and len(possible) < len(rows))  # Q = −inf
        if weight > 0 and not hopeless:
            choices[state[c]].append(Choice(arb(weight), sum((arb(p) for p, _, _ in rows), arb(0)), possible))
    resting = rest(mdp, weights, norm, tau == 0)
    return Model(choices, norm.tolist(), resting, arb(mdp.discount), arb(tau), arb(kappa))


def rest(mdp: MDP, weights: np.ndarray, norm: np.ndarray, hard: bool) -> np.ndarray:
    """Z: the largest set of states whose every choice is free and stays in Z or ends, so that B^k 0 = 0.

    Under hard control one such choice is enough where no positive reward can be reached: nothing is better than 0.
    """
    if mdp.discount < 1:
        return np.zeros(mdp.num_states, bool)
    live, state = weights > 0, mdp.choice_state
    free = live.copy()
    free[mdp.branch_choice[mdp.branch_reward != 0]] = False
    needed = np.maximum(np.bincount(state[live], minlength=mdp.num_states), 1)
    total = np.bincount(state, weights, minlength=mdp.num_states) / norm
    count = np.where(hard | (abs(total - 1) <= NORMALISED), np.bincount(state[free], minlength=mdp.num_states), 0)
    inside = mdp.terminal | (count >= needed)
    order = np.argsort(mdp.next_state, kind="stable")  # branches by the state that they lead to
    start = np.searchsorted(mdp.next_state[order], np.arange(mdp.num_states + 1))
    if hard:
        played = live.copy()
        played[mdp.branch_choice[mdp.branch_reward == -np.inf]] = False
        gains = np.zeros(mdp.num_states, bool)
        gains[state[mdp.branch_choice[played[mdp.branch_choice] & (mdp.branch_reward > 0)]]] = True
        ahead = np.flatnonzero(gains).tolist()
        while ahead:
            t = ahead.pop()
            sources = state[mdp.branch_choice[(b := order[start[t] : start[t + 1]])[played[mdp.branch_choice[b]]]]]
            fresh = np.unique(sources[~gains[sources]])
            gains[fresh] = True
            ahead += fresh.tolist()
        needed[~gains] = 1
        inside = mdp.terminal | (count >= needed)
    outside = np.flatnonzero(~inside).tolist()
    while outside:
        t = outside.pop()
        for c in mdp.branch_choice[order[start[t] : start[t + 1]]].tolist():
            s = int(state[c])
            count[s] -= free[c]
            free[c] = False
            if inside[s] and count[s] < needed[s]:
                inside[s] = False
                outside.append(s)
    return inside & ~mdp.terminal


def check_side(solution: Any, model: Model, name: str, side: int) -> list[str]:
    """Whether V* ≤ u (side 1) or l ≤ V* (side −1) is proved."""

    def gains(value: list[arb]) -> list[arb]:
        return [side * gain(model, s, value) if on else arb(0) for s, on in enumerate(others.tolist())]

    mdp: MDP = solution.mdp
    parts = (getattr(solution.certificate, part).tolist() for part in (name, f"{name}_tail"))
    bound = [arb(whole) + arb(tail) for whole, tail in zip(*parts, strict=True)]
    others = ~(model.resting | mdp.terminal)
    beyond = np.array([bool(side * v >= 0) for v in bound])  # certain, as is every comparison of balls
    if (model.resting & ~beyond).any():
        return complain(mdp, f"{name} excludes 0, the value of resting, in {{}}", model.resting & ~beyond)
    if mdp.discount < 1:
        unproved = others & np.array([not g <= 0 for g in gains(bound)])
    else:
        unproved = others & np.array([not g < 0 for g in gains(bound)])  # (A)
        if unproved.any():  # (B)
            clipped = [side * (side * v).max(arb(0)) for v in bound]
            unproved = (unproved & ~beyond) | others & np.array([not g <= 0 for g in gains(clipped)])
    moves = "falls" if side > 0 else "rises"
    return complain(mdp, f"{name} is not proved: it is not certain that it {moves} under a backup in {{}}", unproved)


def gain(model: Model, state: int, value: list[arb]) -> arb:
    """A number with the sign of (B v)(s) − v(s): the largest Q − v at τ = 0, else Σ p(a|s) exp((Q − v)/τ) − 1.

    Everything is relative to v(s), so that equal values cancel exactly.
    """
    gamma, tau, kappa, v = model.discount, model.temperature, model.optimism, value[state]
    changes = []  # Q − v at κ = 0, else exp(θ (Q − v)), of each choice
    for _, mass, branches in model.choices[state]:
        total = arb(0)
        for p, r, t in branches:
            if kappa == 0:
                total += p * (r + (gamma * value[t] - v))
                continue
            total += p * gamma * (kappa / tau * (r + (value[t] - v))).exp()
            total += p * (1 - gamma) * (kappa / tau * (r - v)).exp() if gamma < 1 else 0
        changes.append(total / mass)
    if tau == 0:
        return reduce(arb.max, changes, arb.neg_inf())
    odds = [(x / tau).exp() if kappa == 0 else x ** (1 / kappa) for x in changes]
    return sum((c.weight * x for c, x in zip(model.choices[state], odds, strict=True)), arb(-model.norm[state]))
