"""An independent check of a solution's certificate: a proof in interval arithmetic that lower ≤ V* ≤ upper.

V* is the limit of the finite-horizon values B^k 0, where B is the backup of design §1, each row p(.|s,a) read as
divided by its exact sum. The witnesses l = lower + lower_tail and u = upper + upper_tail are exact real sums. B is
monotone, and a constant c ≥ 0 added to (taken from) a value adds (takes) at most c; hence

    γ < 1   B u ≤ u proves V* ≤ u: from u + c the excess c shrinks by a factor < 1 a step, however large the rewards.
    γ = 1   Let Z be rest states, in which every B^k 0 is 0, and let u ≥ 0 there. V* ≤ u if elsewhere
            (A) B u < u; for B^k 0 ≤ u + c gives B^(k+1) 0 ≤ u + c − δ; or
            (B) B w ≤ w for w = max(u, 0), so that B^k 0 ≤ w for all k, and B u < u where u < 0, as in (A).

and likewise below with the signs turned. (A) is the argument of stochastic shortest paths (Bertsekas and Tsitsiklis
1991, "An analysis of stochastic shortest path problems", §2), (B) that of positive and negative dynamic programming
(Puterman 1994, "Markov decision processes", §7.2). Nothing of the solver is used here.
"""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from flint import arb, ctx

from nearopt.mdp.model import MDP

PRECISION = 256  # bits: differences of two witnesses and their products with a probability stay exact
NORMALISED = 1e-12  # a prior so near to summing to one is read, in rest states, as summing to one
WITNESSES = ("lower", "lower_tail", "upper", "upper_tail")


class Choice(NamedTuple):
    weight: arb  # its prior, times `Model.norm` of the state
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
    complaints = check_dials(solution) or check_arrays(solution)
    if complaints:
        return complaints
    certificate = solution.certificate
    with ctx.workprec(PRECISION):
        model = read(solution)
        lower = witness(certificate.lower, certificate.lower_tail)
        upper = witness(certificate.upper, certificate.upper_tail)
        return check_side(solution.mdp, model, lower, -1) + check_side(solution.mdp, model, upper, 1)


# ---------------------------------------------------------------- what is plain to see
def check_dials(solution: Any) -> list[str]:
    mdp, tau, kappa, prior = solution.mdp, solution.temperature, solution.optimism, solution.prior
    if not (math.isfinite(tau) and tau >= 0 and math.isfinite(kappa)):
        return [f"temperature {tau} and optimism {kappa} are not finite, or the temperature is negative"]
    if tau == 0 and kappa != 0:
        return [f"optimism {kappa} is not defined at temperature 0"]
    if not solution.tol >= 0:
        return [f"the tolerance is {solution.tol}"]
    if prior is None or isinstance(prior, str) and prior == "uniform":
        return []
    weights = np.zeros(0) if isinstance(prior, str) else np.asarray(prior, np.float64)
    if weights.shape != (mdp.num_states, mdp.num_actions):
        return [f'the prior is neither None nor "uniform" nor an array of shape {mdp.num_states, mdp.num_actions}']
    wrong = ~(np.isfinite(weights) & (weights >= 0)).all(1)
    return complain(mdp, "the prior is negative or not finite in {}", wrong & ~mdp.terminal)


def check_arrays(solution: Any) -> list[str]:
    """Shapes, finite numbers, zeros in terminal states, signs of the tails, order, width."""
    mdp, certificate = solution.mdp, solution.certificate
    arrays = {f"certificate.{name}": getattr(certificate, name) for name in WITNESSES}
    arrays |= {name: getattr(solution, name) for name in ("lower", "upper", "value")}
    out = []
    for name, array in arrays.items():
        if not (isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == (mdp.num_states,)):
            return [f"{name} is not a float64 array with one number per state"]
        out += complain(mdp, f"{name} is not finite in {{}}", ~np.isfinite(array))
        out += complain(mdp, f"{name} is not 0 in terminal {{}}", (array != 0) & mdp.terminal)
    if out:
        return out
    lower, upper, value = solution.lower, solution.upper, solution.value
    out += complain(mdp, "certificate.lower is not the solution's in {}", certificate.lower != lower)
    out += complain(mdp, "certificate.upper is not the solution's in {}", certificate.upper != upper)
    out += complain(mdp, "certificate.lower_tail is negative in {}", certificate.lower_tail < 0)
    out += complain(mdp, "certificate.upper_tail is positive in {}", certificate.upper_tail > 0)
    out += complain(mdp, "value is below lower in {}", value < lower)
    out += complain(mdp, "value is above upper in {}", value > upper)
    if solution.converged and math.isfinite(solution.tol):
        tol = Fraction(float(solution.tol))
        wide = np.array([Fraction(u) - Fraction(l) > tol for u, l in zip(upper.tolist(), lower.tolist(), strict=True)])
        out += complain(mdp, f"upper − lower is above the tolerance {solution.tol} in {{}}", wide)
    return out


def complain(mdp: MDP, sentence: str, wrong: np.ndarray) -> list[str]:
    """One sentence about the states at fault, or none."""
    states = np.flatnonzero(wrong)
    more = f" and {len(states) - 1} more" if len(states) > 1 else ""
    return [sentence.format(mdp.describe(int(states[0])) + more)] if len(states) else []


# ---------------------------------------------------------------- the problem
def witness(whole: np.ndarray, tail: np.ndarray) -> list[arb]:
    return [arb(a) + arb(b) for a, b in zip(whole.tolist(), tail.tolist(), strict=True)]


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

    Under hard control without positive rewards one such choice is enough: nothing is better than 0.
    """
    if mdp.discount < 1:
        return np.zeros(mdp.num_states, bool)
    live, state = weights > 0, mdp.choice_state
    free = live.copy()
    free[mdp.branch_choice[mdp.branch_reward != 0]] = False
    needed = np.maximum(np.bincount(state[live], minlength=mdp.num_states), 1)
    if hard and (mdp.branch_reward <= 0).all():
        needed = np.ones(mdp.num_states, np.int64)
    total = np.bincount(state, weights, minlength=mdp.num_states) / norm
    count = np.where(hard | (abs(total - 1) <= NORMALISED), np.bincount(state[free], minlength=mdp.num_states), 0)
    inside = mdp.terminal | (count >= needed)
    order = np.argsort(mdp.next_state, kind="stable")  # branches by the state that they lead to
    start = np.searchsorted(mdp.next_state[order], np.arange(mdp.num_states + 1))
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


# ---------------------------------------------------------------- the theorem
def check_side(mdp: MDP, model: Model, bound: list[arb], side: int) -> list[str]:
    """Whether V* ≤ bound (side 1) or bound ≤ V* (side −1) is proved."""

    def gains(value: list[arb]) -> list[arb]:
        return [side * gain(model, s, value) if on else arb(0) for s, on in enumerate(others.tolist())]

    others = ~(model.resting | mdp.terminal)
    name, moves = ("upper", "falls") if side > 0 else ("lower", "rises")
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
    return complain(mdp, f"{name} is not proved: it is not certain that it {moves} under a backup in {{}}", unproved)


def gain(model: Model, state: int, value: list[arb]) -> arb:
    """A number with the sign of (B v)(s) − v(s): the largest Q − v at τ = 0, else Σ p(a|s) exp((Q − v)/τ) − 1.

    Everything is relative to v(s), so that equal values cancel exactly.
    """
    gamma, tau, kappa, v = model.discount, model.temperature, model.optimism, value[state]
    if tau == 0:
        best = arb.neg_inf()
        for choice in model.choices[state]:
            best = best.max(sum((p * (r + (gamma * value[t] - v)) for p, r, t in choice.branches), arb(0)))
        return best
    total = arb(-model.norm[state])
    for weight, mass, branches in model.choices[state]:
        if kappa == 0:
            odds = (sum((p * (r + (gamma * value[t] - v)) for p, r, t in branches), arb(0)) / mass / tau).exp()
        else:
            theta, end = kappa / tau, 1 - gamma
            mean = arb(0)
            for p, r, t in branches:
                mean += p * gamma * (theta * (r + (value[t] - v))).exp()
                if end > 0:
                    mean += p * end * (theta * (r - v)).exp()
            odds = (mean / mass) ** (1 / kappa)
        total += weight * odds
    return total
