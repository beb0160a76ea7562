"""The two soft means against 60-digit arithmetic, at every scale; derivatives against exact ones; rows without hope."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from nearopt.backup import UNROLL, entropic_mean, soft_max, tilt

mpmath.mp.dps = 60
INF = np.inf


@pytest.fixture(autouse=True)
def sixty_four_bits():
    with jax.enable_x64(True):
        yield


def exact_mean(x, p, theta):
    """(1/θ) log Σ p exp(θ x) with Σ p = 1 exactly."""
    p = [mpmath.mpf(float(v)) for v in p]
    total = mpmath.fsum(p)
    return (
        mpmath.log(
            mpmath.fsum(
                w / total * mpmath.exp(mpmath.mpf(theta) * mpmath.mpf(float(v))) for w, v in zip(p, x, strict=True)
            )
        )
        / theta
    )


@pytest.mark.parametrize("rows", [3, UNROLL + 1])
@pytest.mark.parametrize("theta", [1e-14, 1e-9, 1e-4, 1e-2, 0.03, 0.5, 1.0, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("sign", [1, -1])
def test_entropic_mean_is_exact_at_every_scale(theta, sign, rows):
    rng = np.random.default_rng(0)
    for spread in (1e-6, 1.0, 1e3, 1e6):
        x = rng.uniform(-1, 1, (rows, 20)) * spread
        p = rng.dirichlet(np.ones(rows), 20).T
        mean = np.asarray(entropic_mean(x, p, jnp.asarray(sign * theta)).mean)
        for i in range(20):
            known = float(exact_mean(x[:, i], p[:, i], sign * theta))
            assert abs(mean[i] - known) <= 4e-13 * max(abs(known), spread), (spread, mean[i], known)


@pytest.mark.parametrize("theta", [1e-9, 1e-3, 0.7, 50.0, -0.7])
def test_derivatives_of_the_entropic_mean(theta):
    rng = np.random.default_rng(1)
    x, p = rng.uniform(-1, 1, 4), rng.dirichlet(np.ones(4))
    column = lambda x, theta: entropic_mean(x[:, None], p[:, None], theta).mean[0]
    weight = tilt(x[:, None], p[:, None], theta, entropic_mean(x[:, None], p[:, None], jnp.asarray(theta)))[:, 0]
    np.testing.assert_allclose(jax.grad(column)(x, jnp.asarray(theta)), weight, rtol=1e-13)
    for order, derivative in ((1, jax.grad(column, 1)), (2, jax.grad(jax.grad(column, 1), 1))):
        known = float(mpmath.diff(lambda t: exact_mean(x, p, t), mpmath.mpf(theta), order))
        np.testing.assert_allclose(derivative(x, jnp.asarray(theta)), known, rtol=1e-8)
    flat = lambda x: entropic_mean(x[:, None], p[:, None], 0.0).mean[0]
    np.testing.assert_allclose(jax.grad(flat)(x), p, rtol=1e-15)


def test_rows_without_hope():
    p = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    x = np.array([[-INF, -INF, 1.0], [0.0, -INF, 2.0]])
    for theta, known in ((1.0, [np.log(0.5), -INF, -INF]), (-1.0, [-INF, -INF, -INF]), (0.0, [-INF, -INF, -INF])):
        row = entropic_mean(x, p, jnp.asarray(theta))
        np.testing.assert_allclose(row.mean, known)
        assert not np.isnan(tilt(x, p, jnp.asarray(theta), row)).any()
        gradients = jax.grad(lambda x, t: jnp.where(jnp.isfinite(m := entropic_mean(x, p, t).mean), m, 0).sum(), (0, 1))
        assert all(np.isfinite(g).all() for g in gradients(x, jnp.asarray(theta)))
    np.testing.assert_allclose(entropic_mean(x, p, 0.0).mean, [-INF, -INF, 0.0])


@pytest.mark.parametrize("temperature", [1e-3, 0.3, 1.0, 1e3])
@pytest.mark.parametrize("rows", [4, UNROLL + 1])
def test_soft_max_is_exact(temperature, rows):
    rng = np.random.default_rng(2)
    for spread in (1e-3, 1.0, 1e6):
        q, log_prior = rng.uniform(-1, 1, (rows, 10)) * spread, np.log(rng.dirichlet(np.ones(rows), 10).T)
        value, policy = soft_max(q, log_prior, jnp.asarray(temperature))
        for i in range(10):
            terms = [
                mpmath.exp(mpmath.mpf(float(l)) + mpmath.mpf(float(v)) / temperature)
                for l, v in zip(log_prior[:, i], q[:, i], strict=True)
            ]
            known = float(temperature * mpmath.log(mpmath.fsum(terms)))
            assert abs(value[i] - known) <= 1e-15 * (4 * abs(known) + 20 * temperature + spread)
            shares = [float(t / mpmath.fsum(terms)) for t in terms]
            np.testing.assert_allclose(policy[:, i], shares, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(policy.sum(0), 1, rtol=1e-15)


def test_a_tiny_prior_on_the_best_action_is_not_lost():
    """The largest exponent is elsewhere than the largest Q: a shift by max Q alone would underflow."""
    value, policy = soft_max(np.array([[0.0], [-900.0]]), np.array([[-1000.0], [0.0]]), jnp.asarray(1.0))
    np.testing.assert_allclose(value, [-900.0])
    np.testing.assert_allclose(policy, [[0.0], [1.0]], atol=1e-40)


def test_derivatives_of_the_soft_max():
    rng = np.random.default_rng(3)
    q, log_prior = rng.normal(size=(3, 1)), np.log(rng.dirichlet(np.ones(3)))[:, None]
    value = lambda q, p, t: soft_max(q, p, t).value[0]
    share = lambda q, p, t: soft_max(q, p, t).policy[1, 0]
    plain_value = lambda q, p, t: t * jax.nn.logsumexp((p + q / t)[:, 0])
    plain_share = lambda q, p, t: jax.nn.softmax((p + q / t)[:, 0])[1]
    t = jnp.asarray(0.7)
    for ours, plain in ((value, plain_value), (share, plain_share)):
        for argument in range(3):
            a, b = (jax.grad(f, argument)(q, log_prior, t) for f in (ours, plain))
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
            a, b = (jax.jacfwd(jax.grad(f, argument), 0)(q, log_prior, t) for f in (ours, plain))
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_a_row_of_minus_infinity_has_gradient_zero():
    """jax.nn.logsumexp gives NaN here (jax #6811)."""
    q, log_prior = np.array([[-INF, 0.0], [-INF, -INF]]), np.array([[0.0, 0.0], [0.0, -INF]])
    gradient = jax.grad(lambda q, p, t: jnp.where(jnp.isfinite(v := soft_max(q, p, t).value), v, 0).sum(), (0, 1, 2))
    for g in gradient(q, log_prior, jnp.asarray(1.0)):
        assert np.isfinite(g).all()
    np.testing.assert_array_equal(gradient(q, log_prior, jnp.asarray(1.0))[0], [[0, 1], [0, 0]])
    policy = soft_max(q, log_prior, jnp.asarray(1.0)).policy
    np.testing.assert_array_equal(policy, [[0.5, 1], [0.5, 0]])  # the prior, where there is nothing to choose by


@pytest.mark.parametrize("scale", [0.7, 2.0])
def test_a_forbidden_branch_counts_in_the_slope_of_the_scale(scale):
    """M(θ) = (1/θ) log (½ e^θ): a branch of −inf has no weight, but it is part of the divergence dM/dθ."""
    x, p = jnp.array([1.0, -INF]), jnp.array([0.5, 0.5])
    with jax.enable_x64(True):
        slope = jax.grad(lambda t: entropic_mean(jnp.asarray(x, float), jnp.asarray(p, float), t).mean)(scale)
    np.testing.assert_allclose(slope, np.log(2) / scale**2, rtol=1e-12)
