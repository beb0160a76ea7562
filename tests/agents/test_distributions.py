"""Policies against distribution functions, quadrature and sums in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, ndtr

from nearopt.agents import sac
from nearopt.agents.distributions import Gaussian, Squashed, Tilted, at, draw, gaussian, squash, tilted
from nearopt.agents.settings import settle
from nearopt.agents.task import Task, discrete_log_prior

GAUSSIANS = [(0.0, 0.0), (1.5, -1.0), (-0.7, 0.8), (3.0, -2.0), (0.3, 2.0)]  # mean, log std
BOX = Task(1, low=(-0.4, -1.0), high=(0.4, 3.0))


def log_density(mean, log_std, u):
    """What `squash` says of tanh(u), in float64 where it is given that."""
    rows = Gaussian(*(jnp.full((len(u), 1), x) for x in (mean, log_std)))
    return np.asarray(squash(rows, jnp.asarray((u - mean) / np.exp(log_std))[:, None]).log_prob, float)


# ---------------------------------------------------------------- squashed Gaussian
@pytest.mark.parametrize(("mean", "log_std"), GAUSSIANS)
def test_the_density_integrates_to_one(mean, log_std):
    u = mean + np.exp(log_std) * np.linspace(-7, 7, 4001)
    area = np.exp(log_density(mean, log_std, u) - 2 * (np.logaddexp(u, -u) - np.log(2)))  # da = du / cosh² u
    assert np.trapezoid(area, u) == pytest.approx(1.0, abs=2e-5)


@pytest.mark.parametrize(("mean", "log_std"), GAUSSIANS)
def test_the_density_is_the_slope_of_the_distribution_function(mean, log_std):
    """P(tanh u ≤ a) = Φ((atanh a − mean)/std)."""
    a, h = np.linspace(-0.99, 0.99, 101), 1e-5
    below = lambda a: ndtr((np.arctanh(a) - mean) / np.exp(log_std))
    slope = (below(a + h) - below(a - h)) / (2 * h)
    density = np.exp(log_density(mean, log_std, np.arctanh(a)))
    np.testing.assert_allclose(density, slope, rtol=1e-3, atol=1e-6)


def test_dimensions_add_up_and_actions_are_tanh():
    rng = np.random.default_rng(0)
    mean, log_std, noise = (rng.normal(size=(6, 3)).astype(np.float32) for _ in range(3))
    drawn = squash(Gaussian(mean, log_std), noise)
    u = mean + np.exp(log_std) * noise
    np.testing.assert_allclose(drawn.action, np.tanh(u), rtol=1e-5)
    single = [[log_density(mean[i, j], log_std[i, j], u[i, j : j + 1])[0] for j in range(3)] for i in range(6)]
    np.testing.assert_allclose(drawn.log_prob, np.sum(single, axis=1), rtol=1e-5, atol=1e-5)


def test_samples_follow_the_distribution_function():
    noise = jax.random.normal(jax.random.key(0), (20_000, 1))
    action = np.asarray(squash(Gaussian(jnp.float32([[0.4]]), jnp.float32([[-0.3]])), noise).action)[:, 0]
    points = np.linspace(-0.9, 0.95, 30)
    share = (action[:, None] <= points).mean(axis=0)
    np.testing.assert_allclose(share, ndtr((np.arctanh(points) - 0.4) / np.exp(-0.3)), atol=4 * 0.5 / np.sqrt(20_000))


@pytest.mark.parametrize("log_std", [-20.0, 2.0])
@pytest.mark.parametrize("mean", [-1e30, -1e4, -50.0, -9.1, 0.0, 9.1, 50.0, 1e4, 1e30])
def test_far_out_everything_is_finite(mean, log_std):
    def cost(parameters, noise):
        drawn = squash(Gaussian(parameters[:1, None], parameters[1:, None]), noise)
        return drawn.log_prob.sum() + drawn.action.sum()

    for noise in (-5.0, 0.0, 5.0):
        value, slope = jax.value_and_grad(cost)(jnp.float32([mean, log_std]), jnp.full((1, 1), noise))
        assert np.isfinite(value) and np.isfinite(slope).all()
        if abs(mean) > 40:
            assert slope[0] == pytest.approx(2 * np.sign(mean))  # −d log(1 − tanh² u)/du


def test_the_tails_are_exact():
    """At u = 20, 1 − tanh² u is 0 in float32; its logarithm is 2 log 2 − 2u."""
    normal = -np.log(2 * np.pi) / 2
    assert log_density(20.0, 0.0, np.array([20.0]))[0] == pytest.approx(normal - 2 * np.log(2) + 40, rel=1e-6)


# ---------------------------------------------------------------- its width
def test_three_ways_to_a_width():
    raw = jnp.float32([-30.0, -6.0, -1.0, 0.0, 1.0, 3.0, 40.0])
    output = jnp.stack([0 * raw + 0.7, raw], axis=1)
    width = lambda log_std: np.asarray(gaussian(output, log_std, (-5.0, 2.0)).log_std, float)[:, 0]
    raw = np.asarray(raw, float)
    np.testing.assert_allclose(width("clip"), np.clip(raw, -5, 2), rtol=1e-6)
    np.testing.assert_allclose(width("tanh"), -5 + 7 / (1 + np.exp(-2 * raw)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(width("softplus"), np.log(np.logaddexp(0, raw) + 1e-5), rtol=1e-5)
    assert (gaussian(output, "clip", (-5.0, 2.0)).mean == jnp.float32(0.7)).all()


@pytest.mark.parametrize("log_std", ["clip", "tanh", "softplus"])
def test_a_width_has_finite_slopes(log_std):
    slope = jax.grad(lambda raw: gaussian(jnp.stack([raw, raw], axis=1), log_std, (-20.0, 2.0)).log_std.sum())
    assert np.isfinite(slope(jnp.float32([-1e4, -100.0, 0.0, 100.0, 1e4]))).all()


# ---------------------------------------------------------------- units of the box
def sac_settings(**given):
    return settle(sac.Settings, BOX, dict(net_arch=[4]) | given)


def test_densities_in_the_units_of_the_box_integrate_to_one_there():
    """The mean density of uniform points of the box, times its volume, is the probability of everything: 1."""
    rng, count = np.random.default_rng(1), 40_000
    action = rng.uniform(BOX.low, BOX.high, (count, 2))
    u = np.arctanh(np.clip((action - [0.0, 1.0]) / [0.4, 2.0], -1 + 1e-7, 1 - 1e-7)).astype(np.float32)
    actor = lambda observation: jnp.tile(jnp.float32([0.2, -0.1, -0.5, -0.7]), (count, 1))
    noise = (u - np.float32([0.2, -0.1])) / np.exp(np.float32([-0.5, -0.7]))
    drawn = sac.policy(sac_settings(), actor, None, noise)
    np.testing.assert_allclose(BOX.to_box(drawn.action), action, atol=1e-4)
    box = sac.relative(sac_settings(entropy_units="box"), jnp.zeros((count, 1)), drawn)
    assert np.exp(box).mean() * 0.8 * 4.0 == pytest.approx(1.0, abs=0.03)
    unit = sac.relative(sac_settings(), jnp.zeros((count, 1)), drawn)
    assert np.exp(unit).mean() * 2.0 * 2.0 == pytest.approx(1.0, abs=0.03)


def test_a_ratio_of_densities_has_no_units():
    drawn, seen = Squashed(jnp.float32([[0.1, -0.2], [0.9, 0.5]]), jnp.float32([0.3, -1.0])), jnp.zeros((2, 1))
    function = lambda observation, unit: -(unit**2).sum(axis=1)
    for prior, wanted in (("uniform", [0.3 + 2 * np.log(2), -1 + 2 * np.log(2)]), (function, [0.35, 0.06])):
        for units in ("unit", "box"):
            found = sac.relative(sac_settings(prior=prior, entropy_units=units), seen, drawn)
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_box_and_the_unit_box():
    unit = jnp.float32([[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0], [0.25, -0.75]])
    np.testing.assert_allclose(BOX.to_box(unit), [[-0.4, 3.0], [0.0, 1.0], [0.4, -1.0], [0.1, -0.5]], rtol=1e-6)
    np.testing.assert_allclose(BOX.to_unit(BOX.to_box(unit)), unit, atol=1e-6)
    odd = Task(1, low=(0.1,), high=(0.7,))
    corners = odd.to_box(jnp.float32([[-1.0], [1.0], [-1.0 - 1e-6], [1.0 + 1e-6]]))
    assert (corners >= np.float32(0.1)).all() and (corners <= np.float32(0.7)).all()


# ---------------------------------------------------------------- discrete actions
@pytest.mark.parametrize("temperature", [0.01, 0.5, 30.0])
@pytest.mark.parametrize("log_prior", [[0.0] * 4, [-np.log(4)] * 4, [-0.5, -np.inf, 0.2, -3.0]])
def test_the_soft_value_and_policy(log_prior, temperature):
    f = np.random.default_rng(2).normal(size=(7, 4))
    row = tilted(jnp.float32(f), jnp.broadcast_to(jnp.float32(log_prior), (7, 4)), temperature)
    f = np.float32(f).astype(float)
    value = temperature * logsumexp(f / temperature + log_prior, axis=1)
    np.testing.assert_allclose(row.value, value, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(row.probability, np.exp(log_prior + (f - value[:, None]) / temperature), atol=1e-4)
    np.testing.assert_allclose(row.log_ratio * temperature, f - value[:, None], rtol=1e-5, atol=1e-5)
    assert (row.probability[:, np.isneginf(log_prior)] == 0).all() and np.isfinite(row.log_ratio).all()


def test_extreme_values_and_excluded_actions_have_finite_slopes():
    prior = jnp.float32([[0.0, -jnp.inf, 0.0]])

    def cost(f):
        row = tilted(f, prior, 0.01)
        return (row.probability * (f - 0.01 * row.log_ratio)).sum() + row.value.sum() + row.log_ratio.sum()

    for f in ([1e4, -1e4, 0.0], [0.0, 1e4, -1e4], [-1e4, -1e4, -1e4]):
        value, slope = jax.value_and_grad(cost)(jnp.float32([f]))
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_draws_follow_the_policy_and_the_mode_is_its_largest():
    prior, count = jnp.float32([-0.5, -jnp.inf, 0.2, -3.0]), 20_000
    f = jnp.float32([0.3, 5.0, 0.0, 1.0])
    rows = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), tilted(f[None], prior[None], 0.7))
    drawn = draw(rows, jnp.broadcast_to(prior, (count, 4)), jax.random.key(0), False)
    share = np.bincount(drawn.action, minlength=4) / count
    np.testing.assert_allclose(share, rows.probability[0], atol=4 * 0.5 / np.sqrt(count))
    np.testing.assert_allclose(drawn.log_ratio, np.asarray(rows.log_ratio[0])[np.asarray(drawn.action)])
    mode = draw(Tilted(*(x[:1] for x in rows)), prior[None], jax.random.key(0), True)
    assert share[1] == 0 and mode.action[0] == np.argmax(rows.probability[0]) and drawn.action.dtype == jnp.int32


def test_rows_are_indexed_by_their_actions():
    rows = np.arange(24.0).reshape(2, 3, 4)
    action = np.array([[0, 3, 1], [2, 2, 0]])
    np.testing.assert_array_equal(at(rows, action), [[0, 7, 9], [14, 18, 20]])


def test_priors_over_discrete_actions():
    task, seen = Task(2, num_actions=3), jnp.float32([[1.0, 2.0], [3.0, 4.0]])
    table = lambda prior: np.asarray(discrete_log_prior(prior, task, seen))
    assert (table(None) == 0).all() and np.allclose(table("uniform"), -np.log(3))
    np.testing.assert_allclose(table((0.1, -np.inf, -2.0)), [[0.1, -np.inf, -2.0]] * 2)
    np.testing.assert_allclose(table(lambda o: o[:, :1] * jnp.arange(3)), [[0, 1, 2], [0, 3, 6]])
    np.testing.assert_allclose(table(lambda o: jnp.float32([0.0, -1.0, -2.0])), [[0, -1, -2]] * 2)
    assert table(None).shape == table("uniform").shape == (2, 3)
