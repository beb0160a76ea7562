"""`solve`: every way to the solution leads to the same one, its limits are right, and it does what it says."""

from fractions import Fraction

import jax
import numpy as np
import pytest

import nearopt as no
from nearopt.mdp.errors import (
    ImproperError,
    MethodError,
    OptimismError,
    PriorShapeError,
    RoundingFloorError,
    StateRangeError,
    TemperatureError,
    ToleranceError,
)
from nearopt.planning.checker import check
from nearopt.planning.linear import DIRECT

S, A = 6, 3


def model(
    rng: np.random.Generator, discount: float, terminals: int = 1, low: float = -2.0, high: float = 1.0
) -> no.MDP:
    """A random world of one shape, so that everything compiles once."""
    transition = rng.dirichlet(np.full(S, 0.5), size=(S, A))
    reward = rng.uniform(low, high, (S, A, S))
    return no.MDP.from_arrays(transition, reward, discount=discount, terminal=np.arange(S) >= S - terminals)


def dense_newton(mdp: no.MDP, temperature: float, prior: str | None) -> np.ndarray:
    """κ = 0 by dense linear algebra in NumPy, from nothing but the tables: soft policy iteration to its end."""
    transition = mdp.transition.toarray().reshape(S, A, S)
    reward = np.zeros((S, A))
    np.add.at(
        reward,
        (mdp.choice_state[mdp.branch_choice], mdp.choice_action[mdp.branch_choice]),
        mdp.probability * mdp.branch_reward,
    )
    weight = np.full(A, 1 / A if prior else 1.0)
    value = np.where(mdp.terminal, 0.0, -20.0)
    for _ in range(200):
        q = reward + mdp.discount * transition @ value
        if temperature:
            top = q.max(1, keepdims=True)
            odds = weight * np.exp((q - top) / temperature)
            policy = odds / odds.sum(1, keepdims=True)
            bonus = -temperature * (policy * np.log(np.where(policy > 0, policy / weight, 1.0))).sum(1)
        else:
            policy, bonus = np.eye(A)[q.argmax(1)], 0.0
        policy = np.where(mdp.terminal[:, None], 0.0, policy)
        earned = np.where(mdp.terminal, 0.0, (policy * reward).sum(1) + bonus)
        moves = mdp.discount * np.einsum("sa,sat->st", policy, transition)
        later = np.linalg.solve(np.eye(S) - moves, earned)
        if np.abs(later - value).max() < 1e-13 * max(1, np.abs(value).max()):
            return later
        value = later
    return value


def test_four_ways_agree_on_200_models():
    """Policy iteration, value iteration, dense linear algebra and the limit of the finite horizon: pairwise 1e-9."""
    rng = np.random.default_rng(3)
    for i in range(200):
        discount = (0.8, 0.9, 1.0)[i % 3]
        temperature = (0.0, 0.1, 1.0)[i // 3 % 3]
        prior = None if i % 2 else "uniform"
        high = 1.0 if discount < 1 else -0.2 - (np.log(A) * temperature if prior is None else 0.0)
        mdp = model(rng, discount, low=high - 3, high=high)
        tight = dict(temperature=temperature, prior=prior, tol=1e-10)
        ways = [no.solve(mdp, **tight, method=m).value for m in ("auto", "policy_iteration", "value_iteration")]
        ways.append(dense_newton(mdp, temperature, prior))
        ways.append(no.infer(mdp, 1000, temperature=temperature, optimism=0, prior=prior).value[0])
        for a in ways:
            for b in ways:
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-9, err_msg=f"model {i}")


@pytest.mark.parametrize("optimism", [1.0, 0.4, -0.1])
def test_the_finite_horizon_leads_there_at_any_optimism(optimism):
    rng = np.random.default_rng(4)
    for _ in range(20):
        for mdp in (model(rng, 0.9, high=-0.3), model(rng, 1.0, high=-0.3)):
            how = dict(temperature=3.0, optimism=optimism, prior="uniform")
            solution = no.solve(mdp, **how, tol=1e-10)
            post = no.infer(mdp, 1000, **how)
            np.testing.assert_allclose(solution.value, post.value[0], atol=1e-9)
            np.testing.assert_allclose(solution.policy, post.policy_at(0), atol=1e-9)


def test_deterministic_dynamics_do_not_know_optimism():
    rng = np.random.default_rng(5)
    for _ in range(20):
        transition = np.eye(S)[rng.integers(0, S, (S, A))]
        transition[:, 0] = np.eye(S)[np.minimum(np.arange(S) + 1, S - 1)]
        mdp = no.MDP.from_arrays(transition, rng.uniform(-3, -1.5, (S, A)), terminal=np.arange(S) == S - 1)
        values = [no.solve(mdp, temperature=0.5, optimism=k).value for k in (0.0, 1.0, 0.3, -1.0)]
        np.testing.assert_allclose(values[1:], [values[0]] * 3, atol=1e-8)


def test_between_hard_control_and_the_entropy_of_every_step():
    """Flat prior: 0 ≤ V_τ − V_0 ≤ τ log A/(1−γ); uniform prior: lowered by just that; τ → 0 meets V_0."""
    rng = np.random.default_rng(6)
    for _ in range(30):
        mdp = model(rng, 0.9, terminals=0)
        hard = no.solve(mdp, temperature=0)
        for temperature in (1e-6, 0.05, 1.0):
            most = temperature * np.log(A) / (1 - 0.9)
            flat = no.solve(mdp, temperature=temperature).value - hard.value
            assert (flat >= -1e-8).all() and (flat <= most + 1e-8).all()
            uniform = no.solve(mdp, temperature=temperature, prior="uniform").value - hard.value
            assert (uniform >= -most - 1e-8).all() and (uniform <= 1e-8).all()
        np.testing.assert_allclose(no.solve(mdp, temperature=1e-6).value, hard.value, atol=2e-5)


def test_the_policy_is_worth_the_value():
    """`evaluate` of the soft-optimal policy gives the soft value back; of any other policy, less."""
    rng = np.random.default_rng(7)
    for i in range(20):
        mdp = model(rng, 0.95 if i % 2 else 1.0, high=-1.0)
        solution = no.solve(mdp, temperature=0.7)
        ev = no.evaluate(mdp, solution.policy)
        assert abs(ev.soft_value(0.7) - mdp.initial @ solution.value) < 1e-8
        other = rng.dirichlet(np.ones(A), size=S)
        assert no.evaluate(mdp, other).soft_value(0.7) < ev.soft_value(0.7)


# ---------------------------------------------------------------- the single best trajectory
def test_hard_control_in_a_deterministic_world_is_the_best_path():
    maze = no.MDP.from_grid("S.#G\n..#.\n....")
    states, actions = no.solve(maze, temperature=0).path()
    assert len(actions) == 7 == -no.solve(maze, temperature=0).value[states[0]]
    assert maze.terminal[states[-1]]
    for s, a, t in zip(states, actions, states[1:], strict=False):
        assert maze.transition[[s * 4 + a]].toarray()[0, t] == 1


def test_no_single_path_through_a_world_of_chance():
    with pytest.raises(ImproperError, match="3 outcomes"):
        no.solve(no.MDP.from_grid("...\nS.G\n...", slip=0.2), temperature=0).path()


# ---------------------------------------------------------------- certificates and tolerances
def test_a_tolerance_below_rounding_is_refused_or_reached_as_far_as_can_be():
    mdp = model(np.random.default_rng(8), 0.999, terminals=0)
    with pytest.raises(RoundingFloorError, match="set tol to"):
        no.solve(mdp, tol=1e-20)
    solution = no.solve(mdp, tol=1e-20, throw=False)
    assert not solution.converged and 0 < solution.width < 1e-11
    assert (solution.lower <= solution.value).all() and (solution.value <= solution.upper).all()


def test_rust_s_buses_within_twelve_newton_steps():
    """90 mileage bins, γ = 0.9999 (Rust 1987): certified to 1e-10, where value iteration needs 190,000 sweeps."""
    bins, increments = 90, (0.39189182, 0.59529371, 0.01281447)
    transition, mileage = np.zeros((bins, 2, bins)), np.arange(bins)
    for step, p in enumerate(increments):
        np.add.at(transition, (mileage, 0, np.minimum(mileage + step, bins - 1)), p)
        transition[:, 1, step] += p
    reward = np.stack([-0.001 * 2.293 * mileage, np.full(bins, -10.075)], axis=1)
    solution = no.solve(no.MDP.from_arrays(transition, reward, discount=0.9999), tol=1e-10)
    assert solution.width <= 1e-10 and solution.steps <= 12


def test_a_large_world_is_solved_matrix_free():
    """More states than are factorised: the same answer as value iteration, in far fewer passes."""
    cells = np.full((60, 60), ".")
    cells[0, 0], cells[-1, -1] = "S", "G"
    mdp = no.MDP.from_grid("\n".join("".join(row) for row in cells), slip=0.1, discount=0.999)
    assert mdp.num_states > DIRECT
    for temperature in (0.0, 0.3, 1.0):
        newton = no.solve(mdp, temperature=temperature, tol=1e-6)
        sweeps = no.solve(mdp, temperature=temperature, tol=1e-6, method="value_iteration")
        np.testing.assert_allclose(newton.value, sweeps.value, atol=1e-6)
    assert newton.passes * 10 < sweeps.passes  # where living on pays: every state matters to every other


def test_extreme_dials_neither_overflow_nor_go_on_for_ever():
    """A tolerance far above the temperature; rewards far below it, whose rounding is the temperature's."""
    maze = no.MDP.from_grid("S..G")
    for optimism in (0.0, 1.0):
        rough = no.solve(maze, temperature=1e-5, optimism=optimism, tol=0.1)
        np.testing.assert_allclose(rough.value, [-3, -2, -1, 0], atol=0.1)
        assert check(rough) == []
    tiny = model(np.random.default_rng(12), 0.99, low=-3e-7, high=2e-7)
    ways = [no.solve(tiny, temperature=1e6, prior="uniform", method=m) for m in ("auto", "value_iteration")]
    np.testing.assert_allclose(ways[0].value, ways[1].value, atol=1e-8)
    one = no.MDP.from_arrays(np.ones((1, 1, 1)), np.ones(1), discount=0.999)
    assert abs(no.solve(one, method="value_iteration").value[0] - 1000) < 1e-8


def test_bounds_hold_for_the_decimals_that_were_meant():
    """0.1, 0.2, 0.7 and 0.99 are no float64 numbers; where the tolerance allows, their exact values are enclosed."""
    p = [Fraction(1, 10), Fraction(2, 10), Fraction(7, 10)]
    gamma, reward = Fraction(99, 100), [Fraction(3, 10), Fraction(-7, 10), Fraction(11, 10)]
    mean = sum(a * b for a, b in zip(p, reward, strict=True))  # every state draws the next one alike
    truth = [r + gamma * mean / (1 - gamma) for r in reward]
    transition = np.broadcast_to([0.1, 0.2, 0.7], (3, 1, 3))
    solution = no.solve(no.MDP.from_arrays(transition, np.array([0.3, -0.7, 1.1]), discount=0.99), tol=2e-11)
    assert solution.certificate.inexact
    for low, v, high in zip(solution.lower.tolist(), truth, solution.upper.tolist(), strict=True):
        assert Fraction(low) <= v <= Fraction(high)


# ---------------------------------------------------------------- bad input
def test_mistakes_are_named():
    mdp = no.MDP.from_grid("S.G", discount=0.9)
    for error, how in (
        (ToleranceError, dict(tol=0)),
        (ToleranceError, dict(tol="small")),
        (MethodError, dict(method="magic")),
        (MethodError, dict(method=["auto"])),
        (TemperatureError, dict(temperature=-1)),
        (TemperatureError, dict(temperature="0.5")),
        (OptimismError, dict(temperature=0, optimism=1)),
        (PriorShapeError, dict(prior=np.ones((4, 3, 4)))),
    ):
        with pytest.raises(error):
            no.solve(mdp, **how)
    for start in (3, -1, 1.5, "S"):
        with pytest.raises(StateRangeError, match="first state"):
            no.solve(mdp, temperature=0).path(start)


# ---------------------------------------------------------------- the functional layer
def test_the_functional_solution_is_the_certified_one():
    rng = np.random.default_rng(9)
    for i in range(20):
        mdp = model(rng, 0.9 if i % 2 else 1.0, high=-1.0)
        for optimism in (0.0, 0.5):
            sure = no.solve(mdp, temperature=0.8, optimism=optimism)
            quick = no.functional.solve(mdp, temperature=0.8, optimism=optimism)
            np.testing.assert_allclose(quick.value, sure.value, atol=1e-8)
            np.testing.assert_allclose(quick.policy, sure.policy, atol=1e-8)


def test_its_gradient_is_the_occupancy():
    rng = np.random.default_rng(10)
    for discount in (0.9, 1.0):
        mdp = model(rng, discount, high=-1.0)
        mdp = mdp.replace(branch_reward=np.repeat(rng.uniform(-3, -1, mdp.num_choices), np.diff(mdp.branch_offset)))
        with jax.enable_x64(True):
            worth = lambda reward, mdp=mdp: mdp.initial @ no.functional.solve(mdp, reward=reward, temperature=0.8).value
            slope, bend = jax.jit(jax.grad(worth))(mdp.reward), jax.jit(jax.hessian(worth))(mdp.reward)
        visits = no.evaluate(mdp, no.solve(mdp, temperature=0.8).policy).occupancy
        np.testing.assert_allclose(slope, visits, atol=1e-9)
        step = 1e-5 * rng.normal(size=mdp.reward.shape)
        with jax.enable_x64(True):
            ahead = np.asarray(jax.grad(worth)(mdp.reward + step)) - np.asarray(jax.grad(worth)(mdp.reward - step))
        np.testing.assert_allclose(ahead / 2, np.einsum("satu,tu->sa", bend, step), atol=1e-10)


def test_vmap_over_temperatures_and_no_answer_is_nan():
    mdp = model(np.random.default_rng(11), 0.9)
    temperatures = np.array([0.2, 1.0, 5.0])
    many = jax.vmap(lambda t: no.functional.solve(mdp, temperature=t).value)(temperatures)
    for t, value in zip(temperatures, many, strict=True):
        np.testing.assert_allclose(value, no.solve(mdp, temperature=t).value, rtol=1e-5)
    endless = no.MDP.from_grid("S..G")  # the flat prior pays for living on
    assert np.isnan(no.functional.solve(endless, temperature=1.0).value).any()
