"""Four goals and two corridors, against a plain NumPy step, and against exact answers on a grid."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import nearopt as no
from nearopt.environments import errors as e
from nearopt.environments import functional
from nearopt.environments.corridors import TwoCorridors
from nearopt.environments.multigoal import MultiGoal, on_grid

GOALS = [(5, 0), (-5, 0), (0, 5), (0, -5)]


def slow_step(version, x, a):
    """The published rules, written out."""
    a = np.clip(a, -1, 1)
    x = np.clip(x + a, -7, 7)
    squares = [(x[0] - g) ** 2 + (x[1] - h) ** 2 for g, h in GOALS]
    if version == "paper":
        return x, sum(30 * np.exp(-s / 8) for s in squares), False
    action, distance, goal = {"released": (30, 1, 10), "sac": (1, 0.1, 1)}[version]
    done = min(squares) ** 0.5 < 1
    return x, -action * (a @ a) - distance * min(squares) + (goal if done else 0), done


@pytest.mark.parametrize("version", ["released", "sac", "paper"])
def test_four_goals_pay_as_published(version):
    rng, world = np.random.default_rng(0), MultiGoal(version)
    xs, actions = rng.uniform(-7, 7, (400, 2)), rng.uniform(-1.3, 1.3, (400, 2))
    step = jax.jit(jax.vmap(world.step, (None, 0, 0)))
    after, reward, ended = step(jax.random.key(0), jnp.float32(xs), jnp.float32(actions))
    for i in range(len(xs)):
        x, pay, done = slow_step(version, xs[i], actions[i])
        np.testing.assert_allclose(after[i], x, atol=1e-5)
        assert float(reward[i]) == pytest.approx(pay, abs=1e-3, rel=1e-4) and bool(ended[i]) == done
    assert np.asarray(ended).any() == (version != "paper")


def test_the_start_of_the_four_goals():
    starts = np.asarray(jax.vmap(MultiGoal().reset)(jax.random.split(jax.random.key(0), 4000)))
    assert np.abs(starts.mean(axis=0)).max() < 0.01 and np.abs(starts.std(axis=0) - 0.1).max() < 0.005


@pytest.mark.parametrize(("version", "temperature"), [("released", 10.0), ("sac", 0.3), ("released", 0.5)])
def test_the_worth_of_a_free_step(version, temperature):
    world, edges = MultiGoal(version), np.linspace(-1, 1, 2001)
    inner = np.exp(-world.rules.action * edges**2 / temperature)
    assert world.free_energy(temperature) == pytest.approx(
        2 * temperature * np.log(np.trapezoid(inner, edges)), abs=1e-5
    )


def test_a_step_that_costs_nothing_is_worth_its_volume():
    assert MultiGoal("paper").free_energy(10.0) == pytest.approx(20 * np.log(2))


def test_the_grid_is_the_world():
    grid = on_grid(MultiGoal(), 2, 0.9)
    assert grid.mdp.num_states == 29**2 and grid.mdp.num_actions == 25
    assert grid.prior[0].sum() == pytest.approx(4.0)  # the volume of the box
    rng, (state, action) = np.random.default_rng(0), (0, 0)
    for _ in range(50):
        state, action = rng.integers(29**2), rng.integers(25)
        x, pay, _ = slow_step("released", grid.positions[state].astype(float), grid.actions[action])
        if grid.mdp.terminal[state]:
            continue
        row = grid.mdp.transition[[state * 25 + action]].toarray()[0]
        assert row[grid.nearest(tuple(x))] == 1.0
        assert grid.mdp.reward[state, action] == pytest.approx(pay, abs=1e-4)


def test_the_exact_policy_goes_to_all_four_goals_alike():
    grid = on_grid(MultiGoal(), 2, 0.99)
    solution = no.solve(grid.mdp, temperature=10.0, prior=grid.prior)
    policy, value = solution.policy[grid.nearest((0, 0))], solution.value
    moves = grid.actions
    right = policy[moves[:, 0] > np.abs(moves[:, 1])].sum()
    up = policy[moves[:, 1] > np.abs(moves[:, 0])].sum()
    assert right == pytest.approx(up, abs=1e-6) and right > 0.15
    assert value[grid.nearest((4, 0))] > value[grid.nearest((2, 0))] > value[grid.nearest((0, 0))]


# ---------------------------------------------------------------- corridors
def slow_walls(blocked, x, y):
    if not -2 < x < 2:
        return False
    if 1 < y < 2:
        return blocked == "upper" and x > 1
    if -2 < y < -1:
        return blocked == "lower" and x > 1
    return True


@pytest.mark.parametrize("blocked", ["none", "upper", "lower"])
def test_corridors_against_a_plain_step(blocked):
    rng, world = np.random.default_rng(1), TwoCorridors(blocked)
    xs = rng.uniform([-5, -3], [5, 3], (3000, 2))
    xs = np.array([x for x in xs if not slow_walls(blocked, *x)])
    actions = rng.uniform(-0.6, 0.6, xs.shape)
    after, reward, ended = jax.jit(jax.vmap(world.step, (None, 0, 0)))(
        jax.random.key(0), jnp.float32(xs), jnp.float32(actions)
    )
    stopped = 0
    for i, ((x, y), a) in enumerate(zip(xs, np.clip(actions, -0.5, 0.5), strict=True)):
        across, along = np.clip(x + a[0], -5, 5), np.clip(y + a[1], -3, 3)
        stopped += (hit := slow_walls(blocked, across, y))
        x = x if hit else across
        y = y if slow_walls(blocked, x, along) else along
        np.testing.assert_allclose(after[i], [x, y], atol=1e-5)
        far = np.hypot(x - 4, y)
        assert bool(ended[i]) == (far < 0.75)
        assert float(reward[i]) == pytest.approx(-0.1 * far + 5 * (far < 0.75), abs=1e-5)
    assert stopped > 20


def walk(world, *legs):
    """Where a course of (steps, action) ends, and whether it arrived."""
    at, done = jnp.array([-4.0, 0.0]), False
    for steps, action in legs:
        for _ in range(steps):
            at, _, over = world.step(jax.random.key(0), at, jnp.array(action))
            done |= bool(over)
    return np.asarray(at), done


@pytest.mark.parametrize(("side", "name"), [(1, "upper"), (-1, "lower")])
def test_only_the_open_corridor_leads_through(side, name):
    course = ((3, (0.0, 0.5 * side)), (16, (0.5, 0.0)), (4, (0.0, -0.5 * side)))
    assert walk(TwoCorridors("none"), *course)[1]
    at, done = walk(TwoCorridors(name), *course)
    assert not done and at[0] <= 1.0
    other = {"upper": "lower", "lower": "upper"}[name]
    assert walk(TwoCorridors(other), *course)[1]


# ---------------------------------------------------------------- both
@pytest.mark.parametrize(
    ("id", "kwargs"),
    [("nearopt/MultiGoal-v0", {"reward": "sac"}), ("nearopt/TwoCorridors-v0", {"blocked": "upper"})],
)
def test_through_gymnasium(id, kwargs):
    env = gymnasium.make(id, **kwargs)
    check_env(env.unwrapped, skip_render_check=True)
    observation, _ = env.reset(seed=3)
    after, *_ = env.step(env.action_space.sample() * 0)
    np.testing.assert_array_equal(after, observation)


@pytest.mark.parametrize(
    ("id", "kwargs", "words"),
    [
        ("nearopt/MultiGoal-v0", {"reward": "own"}, "reward is 'own'; give one of released, sac, paper"),
        ("nearopt/TwoCorridors-v0", {"blocked": "both"}, "blocked is 'both'; give one of none, upper, lower"),
        ("nearopt/TwoCorridors-v0", {"width": 1}, "width"),
    ],
)
def test_arguments_that_there_are_not(id, kwargs, words):
    with pytest.raises(e.EnvironmentArgumentError, match=words):
        functional(id, kwargs)
    with pytest.raises(e.EnvironmentArgumentError, match=words):
        gymnasium.make(id, **kwargs)
