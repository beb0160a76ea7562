"""The infinite horizon: V = lim B^k 0, by Newton or by sweeps, with a certificate.

>>> import nearopt as no
>>> sol = no.solve(no.MDP.from_grid("S..G", discount=0.9), temperature=0.2)
>>> bool((sol.lower <= sol.value).all() and (sol.upper - sol.lower).max() <= 1e-8)
True
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nearopt.checks import check_dials, check_model, check_prior, number
from nearopt.mdp.errors import ImproperError, MethodError, RoundingFloorError, StateRangeError, ToleranceError
from nearopt.mdp.model import MDP
from nearopt.planning.bounds import METHODS, certified
from nearopt.planning.certificate import Certificate
from nearopt.planning.enclosure import choice_prior
from nearopt.planning.linear import Work
from nearopt.problem import Problem, make_problem


def solve(
    mdp: MDP,
    *,
    temperature: float = 1.0,
    optimism: float = 0.0,
    prior: Any = None,
    tol: float = 1e-8,
    method: str = "auto",
    throw: bool = True,
    tell: Callable[[str], None] | None = None,
) -> "Solution":
    """The stationary solution of the design's equation, with proved bounds: lower ≤ V ≤ upper, at most `tol` apart.

    V is the limit of the finite horizon's values with final value 0: discounted (γ < 1), or until a terminal state is
    reached (γ = 1). temperature: τ ≥ 0 in units of reward; 0 is hard control. optimism: κ = 0 leaves the dynamics
    alone; other values have a solution only where episodes end soon enough. prior: None (flat), "uniform", or (S, A).
    method: "policy_iteration" is Newton's method with linear systems solved accurately, "auto" the same with each
    solved as accurately as the step is worth, matrix-free (BiCGSTAB) in large models; "value_iteration" sweeps.
    tell: called with a line on the progress, now and then.

    Raises `ForbiddenStateError`, `ImproperError`, `DivergentError` or `UndecidedError` where the value is not finite,
    with the states at fault; `RoundingFloorError` where `tol` is below what float64 can prove, unless `throw` is
    False; `ToleranceError`, `MethodError`, and what `nearopt.infer` raises for its arguments.

    Sources: design §1; Puterman & Brumelle (1979) on Newton's method; Haarnoja et al. (2017), theorem 3, on soft value
    iteration; `planning/certificate.py` on the proof.
    """
    check_model(mdp)
    temperature, optimism = check_dials(temperature, optimism)
    tol = number(tol, ToleranceError, "tolerance")
    if tol <= 0:
        raise ToleranceError(f"the tolerance is {tol:g}", "give a number above 0, in units of value")
    if not isinstance(method, str) or method not in METHODS:
        raise MethodError(f"there is no method {method!r}", f"give one of {', '.join(map(repr, METHODS))}")
    work = Work() if tell is None else Work(tell=tell)
    with jax.enable_x64(True):
        log_prior = check_prior(mdp, None, prior)
        certificate = certified(mdp, choice_prior(mdp, prior), (temperature, optimism, log_prior), tol, method, work)
        problem = make_problem(mdp.blocks, None, None, temperature, optimism, log_prior)
        value = np.clip((certificate.lower + certificate.upper) / 2, certificate.lower, certificate.upper)
        q, policy = map(np.asarray, choices(problem, jnp.asarray(value)))
    dials = (temperature, optimism, prior, tol, method)
    solution = Solution(mdp, *dials, value, q, policy, certificate, work.passes, work.steps)
    if throw and not solution.converged:
        raise RoundingFloorError(
            f"bounds {tol:g} apart cannot be proved: with values up to {np.abs(value).max():.3g} rounding allows "
            f"{certificate.width:.2g}",
            f"set tol to {certificate.width * 1.5:.1g} or more, or throw=False to take what is proved",
        )
    return solution


@eqx.filter_jit
def choices(problem: Problem, value: Float[Array, " S"]) -> tuple[Float[Array, "S A"], Float[Array, "S A"]]:
    """Q and π of a value, all in public order."""
    blocks = problem.blocks
    step = problem.step(blocks.from_states(value), (None, None))
    return blocks.to_actions(step.q, -jnp.inf), blocks.to_actions(step.policy, 0.0)


@dataclass(frozen=True, eq=False)
class Solution:
    """The answer of `solve`. value, lower, upper (S,); q, policy (S, A); lower ≤ V ≤ upper is proved.

    q is −inf and policy 0 where an action is not available. passes: over the transitions, of any kind (a factorisation
    counts as one). steps: Newton steps. converged: upper − lower ≤ tol everywhere. `certificate.inexact` tells whether
    the bounds hold for every model whose numbers round to this one's, or for its rows divided by their sums.
    """

    mdp: MDP
    temperature: float
    optimism: float
    prior: Any
    tol: float
    method: str
    value: np.ndarray
    q: np.ndarray
    policy: np.ndarray
    certificate: Certificate = field(repr=False)
    passes: int
    steps: int

    @property
    def lower(self) -> np.ndarray:
        """(S,) proved lower bounds."""
        return self.certificate.lower

    @property
    def upper(self) -> np.ndarray:
        """(S,) proved upper bounds."""
        return self.certificate.upper

    @property
    def width(self) -> float:
        """The largest upper − lower."""
        return self.certificate.width

    @property
    def converged(self) -> bool:
        """Whether the bounds are within tol of each other."""
        return self.width <= self.tol

    def path(self, start: int | None = None, limit: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
        """The single best trajectory: its states (L+1,) and actions (L,), from `start` or the likeliest first state.

        For hard control (τ = 0) in a deterministic world; of tied actions the first that leads on. It ends in a
        terminal state, or where it would come back to a state it has seen.

        Raises `ImproperError` where a best action has several outcomes, and `StateRangeError`.

        >>> import nearopt as no
        >>> states, actions = no.solve(no.MDP.from_grid("S..G"), temperature=0).path()
        >>> states.tolist(), actions.tolist()
        ([0, 1, 2, 3], [1, 1, 1])
        """
        mdp = self.mdp
        state = int(np.argmax(mdp.initial)) if start is None else start
        if isinstance(state, bool) or not isinstance(state, (int, np.integer)) or not 0 <= state < mdp.num_states:
            raise StateRangeError(f"the first state is {start!r}", f"give a number from 0 to {mdp.num_states - 1}")
        state = int(state)
        states, actions, seen = [state], [], {state}
        while not mdp.terminal[state] and len(actions) < limit:
            best = np.flatnonzero(self.policy[state] >= self.policy[state].max())
            moves = [(int(a), self.successor(state, int(a))) for a in best]
            action, state = next((m for m in moves if m[1] not in seen), moves[0])
            states.append(state)
            actions.append(action)
            if state in seen:
                break
            seen.add(state)
        return np.array(states), np.array(actions)

    def successor(self, state: int, action: int) -> int:
        """Where an action certainly leads."""
        mdp = self.mdp
        first = mdp.choice_offset[state]
        choice = first + int(np.searchsorted(mdp.choice_action[first : mdp.choice_offset[state + 1]], action))
        targets = np.unique(mdp.next_state[mdp.branch_offset[choice] : mdp.branch_offset[choice + 1]])
        if len(targets) > 1:
            raise ImproperError(
                f"{mdp.describe(state, action)} has {len(targets)} outcomes, so there is no single best trajectory",
                "use the policy, or sample from nearopt.infer(mdp, horizon, temperature=0, optimism=0)",
            )
        return int(targets[0])
