"""`no.functional.log_likelihood` and its gradients against the oracle, and what must not change it."""

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from nearopt import functional
from nearopt.behaviour.likelihood import log_policy
from tests.behaviour.oracle import INF, Agent, Case, derivative, random_case

MODELS = 30  # per cell, 300 in all


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


CELLS = [  # models alike in size, horizon, next-state rewards, time axis and the coin share compiled code
    Cell(None, "model", (4, 3), 3, "model"),
    Cell(None, "state", (4, 3), 3, "given"),
    Cell(None, "choice", (4, 3), 3, "model"),
    Cell(None, "branch", (3, 2), 3, "one"),
    Cell(3, "state", (4, 3), 3, "model"),
    Cell(3, "choice", (4, 3), 3, "given"),
    Cell(3, "timed branch", (4, 3), 3, "one"),
    Cell(4, "model", (3, 2), 4, "model"),
    Cell("episode", "choice", (4, 3), 3, "model"),
    Cell("episode", "timed choice", (2, 3), 2, "given"),
]


SAMPLE = CELLS[5]


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
    error = np.abs(found[finite] - known[finite]) / np.maximum(1, np.abs(known[finite]))
    assert error.max(initial=0) <= tolerance, (error.max(), found, known)


# ---------------------------------------------------------------- random models
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_random_models_equal_the_oracle(cell):
    for i in range(MODELS):
        case = cell.case(i)
        found, exact = likelihood(case), case.exact()
        assert found.dtype == np.float64
        close(found, exact)
        check_gradient(case, exact, np.random.default_rng(i))


def check_gradient(case, exact, rng):
    """Values and slopes where everything is traced, in a random direction of all arguments at once."""
    agent, mdp, recorded = case.agent, case.mdp(), case.trajectories()
    names = ["reward", "temperature", "optimism", "log_prior"] + ["discount"] * (agent.discount < 1)
    at = {name: np.asarray(getattr(agent, name), float) for name in names}
    direction = {name: np.where(np.isfinite(x), rng.normal(size=x.shape), 0) for name, x in at.items()}
    weights = rng.normal(size=len(exact))

    def total(given):
        found = no.functional.log_likelihood(mdp, recorded, horizon=case.horizon, **given)
        return weights @ found, found

    with jax.enable_x64(True):
        slopes, found = jax.grad(total, has_aux=True)({name: jnp.asarray(x) for name, x in at.items()})
    close(found, exact)
    slopes = {name: float(np.sum(np.asarray(slopes[name]) * direction[name])) for name in names}
    compare(slopes, lambda given: np.dot(weights, case.exact(**given)), at, direction, case)


def compare(slopes, function, at, direction, case):
    """The sum of slopes against the derivative of a function; one by one where they differ."""
    known = float(derivative(function, at, direction))
    if not abs(sum(slopes.values()) - known) <= 1e-6 * max(1, *map(abs, slopes.values())):
        alone = {n: {m: d * (m == n) for m, d in direction.items()} for n in at}
        known = {n: float(derivative(function, at, alone[n])) for n in at}
        pytest.fail(f"optimism {case.agent.optimism:g}: slopes {slopes}, differences {known}")


# ---------------------------------------------------------------- transformations
def test_a_32_bit_caller_gets_rounded_gradients():
    case = SAMPLE.case(2)
    mdp, recorded, reward = case.mdp(), case.trajectories(), case.agent.reward
    fit = lambda r: no.functional.log_likelihood(mdp, recorded, horizon=3, **case.arguments() | {"reward": r}).sum()
    found = jax.jit(jax.grad(fit))(reward)
    assert found.dtype == np.float32
    with jax.enable_x64(True):
        exact = jax.jit(jax.grad(fit))(jnp.asarray(reward))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("horizon", [3, "episode"])
def test_gradient_in_a_discount_of_one(horizon):
    """From below: the coin's 1−γ is zero there, and its logarithm must not matter."""
    case = replace(random_case((7,), (4, 3), "branch", 3, 3, 0.5, 1.0, own=(True, True)), horizon=horizon)
    mdp, recorded = case.mdp(), case.trajectories()
    given = dict(horizon=horizon, temperature=case.agent.temperature, optimism=0.5)
    fit = lambda gamma: no.functional.log_likelihood(mdp, recorded, discount=gamma, **given).sum()
    with jax.enable_x64(True):
        found = jax.grad(fit)(jnp.asarray(1.0))
    known = derivative(lambda given: case.exact(**given).sum(), {"discount": np.array(1.0)}, {"discount": 1.0})
    np.testing.assert_allclose(found, float(known), rtol=1e-6)


# ---------------------------------------------------------------- what must not matter
OPTIMISMS = [0.0, 1.0, 0.5, -0.7]
HORIZONS = [None, 3, "episode"]


def small_world(rng, deterministic=False, discount=1.0, **dials):
    """Four states, three actions, all available; the last state is terminal and every choice may lead there.

    Costs are such that there is a finite value for ever, under every optimism that is asked about and without discount.
    """
    p = 0.5 * rng.dirichlet(np.ones(4), (4, 3)) + 0.5 * np.eye(4)[3]
    if deterministic:  # forward, or stay at a cost
        p = np.eye(4)[np.minimum(np.arange(4)[:, None] + [0, 1, 2], 3)]
    available = np.ones((4, 3), bool)
    available[3] = False
    reward = -rng.uniform(1.2, 1.6, (4, 3, 4)) * dials.get("temperature", 1.0)
    states, actions = np.array([[0, 1, 2, 3], [1, 0, 2, -1], [2, 3, -1, -1]]), rng.integers(3, size=(3, 3))
    actions[states[:, 1:] == -1] = -1
    agent = Agent(p, available, reward, "branch", np.zeros((4, 3)), discount, **dials)
    return agent, lambda horizon, agent=agent: Case(agent, horizon, states, actions, False, True, False)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_jit_and_vmap(horizon):
    case = small_world(np.random.default_rng(7))[1](horizon)
    mdp, recorded = case.mdp(), case.trajectories()
    temperatures, optimisms = np.array([0.7, 1.0, 1.5]), np.array([0.5, 0.0, -0.3])

    @jax.jit
    @jax.vmap
    def both(temperature, optimism):
        given = case.arguments() | dict(temperature=temperature, optimism=optimism)
        return no.functional.log_likelihood(mdp, recorded, horizon=horizon, **given)

    with jax.enable_x64(True):
        found = both(temperatures, optimisms)
    close(found, [case.exact(temperature=t, optimism=k) for t, k in zip(temperatures, optimisms, strict=True)])


def test_other_data_are_not_compiled_for(monkeypatch):
    traces = []
    monkeypatch.setattr(functional, "log_policy", lambda *given: traces.append(1) or log_policy(*given))
    case = small_world(np.random.default_rng(7))[1](3)
    for n in (1, 2, 3):
        some = replace(case, states=case.states[:n], actions=case.actions[:n])
        close(likelihood(some), some.exact())
    assert len(traces) <= 1


@pytest.mark.parametrize("horizon", HORIZONS)
def test_optimism_does_not_matter_where_nothing_is_left_to_chance(horizon):
    _, case = small_world(np.random.default_rng(0), deterministic=True, temperature=0.8)
    known = case(horizon).exact()
    assert np.ptp(known) > 0.1
    for optimism in OPTIMISMS:
        close(likelihood(case(horizon), optimism=optimism), known)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("horizon", HORIZONS)
def test_scaling_reward_and_temperature_together_does_not_matter(horizon, discount):
    agent, case = small_world(np.random.default_rng(1), discount=discount, temperature=0.8)
    case = case(horizon)
    for optimism in OPTIMISMS:
        known = likelihood(case, optimism=optimism)
        for factor in (0.01, 3.0, 1000.0):
            scaled = dict(reward=agent.reward * factor, temperature=agent.temperature * factor)
            close(likelihood(case, optimism=optimism, **scaled), known)


@pytest.mark.parametrize("optimism", OPTIMISMS)
def test_potential_shaping_does_not_matter(optimism):
    """r + Φ(s') − Φ(s), Φ = 0 where it ends: Ng, Harada and Russell (1999), and for every κ as V moves by −Φ."""
    rng = np.random.default_rng(2)
    agent, case = small_world(rng, optimism=optimism)
    height = np.append(rng.normal(size=(4, 3)), np.zeros((4, 1)), axis=1)  # Φ_t, t = 0 .. 3; terminal state 0
    shaped = agent.reward + height[0] - height[0][:, None, None]
    close(likelihood(case(None), reward=shaped), likelihood(case(None)))
    if optimism == 0:
        discounted = small_world(np.random.default_rng(2), discount=0.8)[1](None)
        close(
            likelihood(discounted, reward=agent.reward + 0.8 * height[0] - height[0][:, None, None]), discounted.exact()
        )
    height[3] = 0
    shaped = agent.reward + height[1:, None, None, :] - height[:-1, :, None, None]
    close(likelihood(case(3), reward=shaped), likelihood(case(3)))


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_prior_is_a_reward(horizon, discount):
    """r + τ log p(a|s) with the flat prior is r with the prior p."""
    rng = np.random.default_rng(3)
    agent, case = small_world(rng, discount=discount, temperature=0.8)
    log_prior = np.log(rng.dirichlet(np.ones(3), 4))
    for optimism in OPTIMISMS:
        known = likelihood(case(horizon), log_prior=log_prior, optimism=optimism)
        reward = agent.reward + agent.temperature * log_prior[..., None]
        close(likelihood(case(horizon), reward=reward, optimism=optimism), known)


def test_episode_is_each_ones_own_horizon():
    agent, case = small_world(np.random.default_rng(4), optimism=0.5)
    case, timed = case("episode"), np.random.default_rng(4).normal(size=(3, 4, 3))
    for reward in (agent.reward, timed):
        together = likelihood(case, reward=reward)
        for i, length in enumerate(case.trajectories().length):
            alone = replace(case, horizon=int(length), states=case.states[i : i + 1, : length + 1])
            alone = replace(alone, actions=case.actions[i : i + 1, :length])
            close(likelihood(alone, reward=reward[:length] if reward is timed else reward), together[i : i + 1])


# ---------------------------------------------------------------- what was not recorded, what cannot be
@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("missing", [("state",), ("action",), ("state", "action")], ids="-".join)
@pytest.mark.parametrize("gap", [0, 1])
def test_a_gap_does_not_count(horizon, missing, gap):
    _, case = small_world(np.random.default_rng(5), optimism=0.5)
    case = case(horizon)
    recorded = {"state": case.states.copy(), "action": case.actions.copy()}
    for name in missing:
        recorded[name][0, gap] = -1
    cut = replace(case, states=recorded["state"], actions=recorded["action"])
    alone = replace(case, states=np.where(np.arange(4) == gap, case.states, -1)[:1], actions=case.actions[:1].copy())
    alone.actions[0, np.arange(3) != gap] = -1
    found, known = likelihood(cut), likelihood(case)
    close(found, cut.exact())
    close(found[1:], known[1:])
    if horizon != "episode":  # the decision left out is the difference
        close(found[:1] + likelihood(alone), known[:1])


@pytest.mark.parametrize("horizon", HORIZONS)
def test_what_is_done_twice_counts_twice(horizon):
    _, case = small_world(np.random.default_rng(5), optimism=0.5)
    case = case(horizon)
    case.states[0], case.actions[0] = 1, 2
    found = likelihood(case)
    close(found, case.exact())
    if horizon is None:
        once = replace(case, states=np.array([[1, -1]]), actions=np.array([[2]]))
        close(found[:1], 3 * likelihood(once))


def test_nothing_recorded_is_certain():
    _, case = small_world(np.random.default_rng(5))
    for horizon in HORIZONS:
        empty = case(horizon)
        empty.states[2], empty.actions[2] = -1, -1
        found = likelihood(empty)
        assert found[2] == 0 and (found[:2] < 0).all()


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("why", ["prior", "reward", "unavailable"])
def test_an_impossible_action_is_minus_infinity(horizon, why):
    """For the trajectory that has it, and the gradient of the others stays finite."""
    agent, case = small_world(np.random.default_rng(6), optimism=0.5)
    case = case(horizon)
    reward, log_prior = agent.reward[..., 0].copy(), agent.log_prior.copy()
    available = agent.available.copy()
    case.actions[0, 1] = (case.actions[1, 0] + 1) % 3
    impossible = 1, case.actions[0, 1]
    if why == "prior":
        log_prior[impossible] = -INF
    elif why == "reward":
        reward[impossible] = -INF
    else:
        available[impossible] = False
    agent = replace(agent, available=available, reward=reward, kind="choice", log_prior=log_prior)
    case = replace(case, agent=agent)
    found = likelihood(case)
    assert found[0] == -INF and np.isfinite(found[1:]).all()
    close(found, case.exact())
    mdp, recorded = case.mdp(), case.trajectories()

    def possible(given):
        return no.functional.log_likelihood(mdp, recorded, horizon=horizon, **given)[1:].sum()

    names = ["reward", "temperature", "optimism", "log_prior"]
    with jax.enable_x64(True):
        slopes = jax.grad(possible)({name: jnp.asarray(getattr(agent, name)) for name in names})
    bad = [name for name, x in slopes.items() if not np.isfinite(x).all()]
    assert not bad, bad


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_reward_that_is_no_number_gives_none(horizon):
    """It is not taken for −inf, which forbids."""
    agent, case = small_world(np.random.default_rng(6))
    for bad in (np.nan, -INF):
        reward = agent.reward.copy()
        reward[1, 0] = bad
        assert (np.isnan(likelihood(case(horizon), reward=reward)) == np.isnan(bad)).all()


@pytest.mark.parametrize("optimism", [0.0, -0.5])
def test_roots_of_the_equation_that_are_no_values_give_no_number(optimism):
    """Where one may circle for nothing, free to choose, V grows without end; V = BV has a solution all the same."""
    lake = no.MDP.from_gymnasium(gym.make("FrozenLake-v1"))
    goes = np.eye(4)[[[1, 2], [0, 3], [3, 1], [3, 3]]]
    goes[3] = 0
    cost = np.array([[0, -1.7630436476782523], [0, -1.7630436476782523], [0, -0.17630436476782524], [0, 0]])
    ring = no.MDP.from_arrays(goes, cost, terminal=[False, False, False, True])
    walk = no.Trajectories(np.array([[0, 1]]), np.array([[0]]))
    for mdp in (lake, ring):
        recorded = no.Trajectories(np.array([[0, 0]]), np.array([[0]])) if mdp is lake else walk
        dials = dict(temperature=0.1, optimism=optimism)
        assert np.isnan(no.functional.log_likelihood(mdp, recorded, **dials)).all()
        assert np.isfinite(no.functional.log_likelihood(mdp, recorded, **dials, discount=0.9)).all()
        with pytest.raises(no.NearoptError, match="for nothing"):
            no.solve(mdp, **dials)


def test_a_trajectory_longer_than_the_horizon_is_refused():
    case = small_world(np.random.default_rng(7))[1](2)
    with pytest.raises(no.NearoptError, match="3"):
        likelihood(case)


def test_one_action_is_no_decision():
    case = random_case((1,), (4, 1), "choice", None, 3, 0.0, 0.5)
    close(likelihood(case), np.zeros(4))
