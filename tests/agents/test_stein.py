"""Stein's direction against loops over particles, and what each space takes for its fixed point."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nearopt.agents import samplers
from nearopt.agents.networks import descend
from nearopt.agents.stein import direction, kernel, volume
from nearopt.agents.task import Task

RBF = ("rbf", "paper", 1.0)


def energy(a):
    """log p of actions (n, A), up to a constant: two bumps, one narrow."""
    return jnp.log(jnp.exp(-8 * ((a - 0.5) ** 2).sum(-1)) + 0.5 * jnp.exp(-3 * ((a + 0.4) ** 2).sum(-1)))


def slope(f, x, width=1e-6):
    """Central differences."""
    return np.array([(f(x + width * e) - f(x - width * e)) / (2 * width) for e in np.eye(len(x))])


def slow_direction(fixed, moved, space, h):
    """The formulas, pair by pair, with numerical derivatives."""
    return np.array([np.mean([slow_push(u, v, space, h) for u in fixed], axis=0) for v in moved])


def slow_push(u, v, space, h):
    """What one particle at u does to one at v."""
    log_q = lambda a: np.log(np.exp(-8 * ((a - 0.5) ** 2).sum()) + 0.5 * np.exp(-3 * ((a + 0.4) ** 2).sum()))
    k = lambda x, y: np.exp(-((x - y) ** 2).sum() / h)
    if space == "unbounded":
        log_p = lambda u: log_q(np.tanh(u)) + np.log(1 - np.tanh(u) ** 2).sum()
        return k(u, v) * slope(log_p, u) + slope(lambda u: k(u, v), u)
    x, y = np.tanh(u), np.tanh(v)
    if space == "released":
        log_p = lambda a: log_q(a) + np.log(1 - a**2 + 1e-6).sum()
        return (k(x, y) * slope(log_p, x) + slope(lambda x: k(x, y), x)) * (1 - y**2)
    push = np.zeros_like(x)
    for j in range(len(x)):
        k_j = lambda x, j=j: (1 - x[j] ** 2) * (1 - y[j] ** 2) * k(x, y)
        push[j] = k_j(x) * slope(log_q, x)[j] + slope(k_j, x)[j]
    return push * (1 - y**2)


def width_of(x, y, rule):
    square = ((x[:, None] - y[None]) ** 2).sum(-1)
    return np.median(square) / (2 * np.log(len(x) + 1) if rule == "paper" else np.log(len(x)))


@pytest.mark.parametrize("space", ["unbounded", "box", "released"])
@pytest.mark.parametrize("rule", ["paper", "released"])
def test_the_direction_is_the_formula(space, rule):
    rng = np.random.default_rng(0)
    fixed, moved = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    points = (fixed, moved) if space == "unbounded" else (np.tanh(fixed), np.tanh(moved))
    slow = slow_direction(fixed, moved, space, width_of(*points, rule))
    with jax.enable_x64(True):
        quick = direction(energy, jnp.asarray(fixed), jnp.asarray(moved), space, ("rbf", rule, 1.0))
    np.testing.assert_allclose(quick, slow, atol=1e-7)


def test_the_other_kernel_has_its_own_slope():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    h = 0.7 * width_of(x, y, "paper")
    with jax.enable_x64(True):
        k = kernel(jnp.asarray(x), jnp.asarray(y), "imq", "paper", 0.7)
    value = lambda p, q: (1 + ((p - q) ** 2).sum() / h) ** -0.5
    np.testing.assert_allclose(k.value, [[value(p, q) for q in y] for p in x], atol=1e-12)
    expected = [[slope(lambda p, q=q: value(p, q), p) for q in y] for p in x]
    np.testing.assert_allclose(k.slope, expected, atol=1e-7)


def test_the_volume_far_out():
    u = np.array([[0.3, -1.0], [8.0, 0.0], [-60.0, 60.0]])
    exact = [np.log(1 - np.tanh(u[0]) ** 2).sum(), np.log(4) - 16 - 2 * np.log1p(np.exp(-16.0)), 2 * np.log(4) - 240]
    np.testing.assert_allclose(volume(jnp.float32(u)), exact, rtol=1e-5)


@pytest.mark.parametrize(("space", "vanishes"), [("unbounded", True), ("box", True), ("released", False)])
def test_steins_identity(space, vanishes):
    """Under the target itself the mean direction is nothing; the released form goes on pushing inwards."""
    flat = lambda a: jnp.zeros(a.shape[0])
    grid = jnp.linspace(-1, 1, 40_002)[1:-1][:, None]
    at = jnp.arctanh(jnp.float32([[0.0], [0.4], [0.8], [-0.95]]))
    phi = np.asarray(direction(flat, jnp.arctanh(grid), at, space, RBF))[:, 0]
    if vanishes:
        assert np.abs(phi).max() < 2e-3
    else:
        assert phi[2] < -0.05 and phi[3] > 0.01


# ---------------------------------------------------------------- samplers that were trained
def trained(size, kind, space="unbounded", log_p=None, steps=3_000, seed=0):
    """20,000 actions of a sampler that was trained for one state; its form and network."""
    task = Task(1, low=(-1.0,) * size, high=(1.0,) * size)
    form = samplers.Form(task, kind, 8, 32, space, RBF)
    network = samplers.init(form, (64, 64), "relu", jax.random.key(seed))
    adam = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    state = jnp.ones((16, 1))
    log_p = log_p or (lambda row, action: jnp.zeros(action.shape[:2]))

    def step(carry, key):
        network, moments = carry
        first, second = jax.random.split(key)
        xi = jax.random.normal(first, (16, 32, size))
        slope = jax.grad(lambda n: samplers.ascent(form, n, log_p, state, xi, second)[0])(network)
        network, moments = descend(adam, slope, moments, network)
        return (network, moments), None

    keys = jax.random.split(jax.random.key(seed + 1), steps)
    (network, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((network, adam.init(network)))
    xi = jax.random.normal(jax.random.key(7), (1, 20_000, size))
    return form, network, np.asarray(samplers.draw(form, network, state[:1], xi, jax.random.key(8))[0], float)


def marginal_divergence(action):
    """KL to uniform per dimension, from histograms, less their bias."""
    bins, total = 40, 0.0
    for column in action.T:
        share = np.histogram(column, bins, (-1, 1))[0] / len(column)
        total += (share[share > 0] * np.log(share[share > 0] * bins)).sum() - (bins - 1) / (2 * len(column))
    return total / action.shape[1]


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("kind", ["stein", "mixture"])
def test_a_flat_q_is_sampled_evenly(kind, size):
    assert marginal_divergence(trained(size, kind)[2]) <= 0.01


def test_the_released_form_misses_a_flat_q():
    """Its fixed point is Π (1 − a²): 0.125 nats per dimension away."""
    assert marginal_divergence(trained(1, "stein", "released")[2]) == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize("kind", ["stein", "mixture"])
def test_both_bumps_are_found_with_their_shares(kind):
    bumps = lambda row, a: jnp.logaddexp(-30 * ((a - 0.5) ** 2).sum(-1), np.log(0.5) - 30 * ((a + 0.5) ** 2).sum(-1))
    action = trained(2, kind, log_p=bumps)[2]
    assert (action.sum(axis=1) > 0).mean() == pytest.approx(2 / 3, abs=0.1)
    upper = action[action.sum(axis=1) > 0]
    np.testing.assert_allclose(upper.mean(axis=0), [0.5, 0.5], atol=0.06)
    np.testing.assert_allclose(upper.std(axis=0), np.full(2, 60**-0.5), atol=0.04)
