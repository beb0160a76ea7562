"""`no.functional.log_likelihood` and its gradients against the oracle, and what must not change it."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from tests.behaviour.oracle import INF, Agent, Case, derivative, random_case

MODELS = 20  # per cell


@dataclass(frozen=True)
class Cell:
    """What may select compiled code: everything else is drawn at random within a cell."""

    horizon: Any
    kind: str  # axes of the reward; "model" is the model's own, on branches
    size: tuple[int, int]
    length: int  # of the longest trajectory, which is also T
    discount: str  # "one": the model's, 1; "model": the model's, below 1; "given" as an argument

    def __str__(self):
        return f"{self.horizon}-{self.kind}-{self.discount}".replace(" ", "_")

    def case(self, i):
        """The i-th model of this cell."""
        rng = np.random.default_rng(i)
        optimism = [0.0, 1.0, 0.5, -0.7, float(rng.choice([-1, 1]) * rng.uniform(0.2, 2))][i % 5]
        discount = 1.0 if self.discount == "one" else float(rng.uniform(0.3, 0.9))
        own, kind = self.kind == "model", "branch" if self.kind == "model" else self.kind
        prior = ("flat", "uniform", "array")[i // 5 % 3]
        where = dict(own=(own, self.discount != "given"))
        seed = (CELLS.index(self), i)
        return random_case(seed, self.size, kind, self.horizon, self.length, optimism, discount, prior, **where)


CELLS = [
    Cell(None, "model", (4, 3), 6, "model"),
    Cell(None, "state", (4, 3), 6, "given"),
    Cell(None, "choice", (4, 3), 6, "one"),
    Cell(None, "branch", (3, 2), 6, "model"),
    Cell(None, "branch", (3, 2), 6, "one"),
    Cell(3, "model", (4, 3), 3, "one"),
    Cell(1, "state", (3, 2), 1, "model"),
    Cell(3, "choice", (4, 3), 3, "given"),
    Cell(4, "branch", (3, 2), 4, "model"),
    Cell(3, "timed choice", (4, 3), 3, "one"),
    Cell(2, "timed branch", (2, 3), 2, "given"),
    Cell("episode", "model", (3, 2), 4, "model"),
    Cell("episode", "choice", (3, 2), 4, "one"),
    Cell("episode", "timed choice", (4, 3), 3, "given"),
    Cell("episode", "timed branch", (3, 2), 4, "model"),
]


def likelihood(case, **changes):
    return np.asarray(
        no.functional.log_likelihood(
            case.mdp(), case.trajectories(), horizon=case.horizon, **case.arguments() | changes
        )
    )


def close(found, known, tolerance=1e-12):
    found, known = np.asarray(found, float), np.asarray(known, float)
    assert found.shape == known.shape
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(known))
    assert not np.isnan(found).any()
    finite = np.isfinite(known)
    error = np.abs(found - known)[finite] / np.maximum(1, np.abs(known[finite]))
    assert error.max(initial=0) <= tolerance, (error.max(), found, known)


# ---------------------------------------------------------------- random models
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_equals_the_oracle(cell):
    for i in range(MODELS):
        case = cell.case(i)
        found = likelihood(case)
        assert found.dtype == np.float64
        close(found, case.exact())


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_gradients_equal_finite_differences(cell):
    """In a random direction of everything at once; entry by entry in the message."""
    for i in range(MODELS):
        case = cell.case(i)
        agent, rng = case.agent, np.random.default_rng(i)
        names = ["reward", "temperature", "optimism", "log_prior"] + ["discount"] * (agent.discount < 1)
        at = {name: np.asarray(getattr(agent, name), float) for name in names}
        direction = {name: np.where(np.isfinite(x), rng.normal(size=x.shape), 0) for name, x in at.items()}
        weights = rng.normal(size=len(case.states))
        mdp, recorded = case.mdp(), case.trajectories()

        def total(given, mdp=mdp, recorded=recorded, case=case, weights=weights):
            return weights @ no.functional.log_likelihood(mdp, recorded, horizon=case.horizon, **given)

        with jax.enable_x64(True):
            gradient = jax.grad(total)({name: jnp.asarray(x) for name, x in at.items()})
        slopes = {name: float(np.sum(np.asarray(gradient[name]) * direction[name])) for name in names}
        exact = lambda given, case=case, weights=weights: np.dot(weights, case.exact(**given))
        known = float(derivative(exact, at, direction))
        scale = max(1, abs(known), *map(abs, slopes.values()))
        if not abs(sum(slopes.values()) - known) <= 1e-6 * scale:
            alone = {n: {m: d * (m == n) for m, d in direction.items()} for n in names}
            known = {n: float(derivative(exact, at, alone[n])) for n in names}
            pytest.fail(f"model {i}, optimism {agent.optimism:g}: jax {slopes}, differences {known}")
