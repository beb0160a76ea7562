"""V by importance sampling against exact integrals, and the densities that it divides by."""

from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nearopt.agents import samplers
from nearopt.agents.importance import integrate
from nearopt.agents.task import Task

NO_PRIOR = lambda action: jnp.zeros(action.shape[:2])


def peak(width):
    return lambda action: -0.5 * (action**2).sum(axis=-1) / width**2


def exact(size, width):
    return size * np.log(width * np.sqrt(2 * np.pi) * erf(1 / (width * 2**0.5)))


def repeated(size, width, proposal_of, repeats=400, samples=64):
    def one(key):
        first, second = jax.random.split(key)
        return integrate(peak(width), NO_PRIOR, proposal_of(first), (1, samples, size), 0.1, second)

    return jax.vmap(one)(jax.random.split(jax.random.key(0), repeats))


def particles_of(size, width):
    """A proposal fitted to 64 particles of the density itself."""
    return lambda key: samplers.fitted(jnp.clip(width * jax.random.normal(key, (1, 64, size)), -1, 1))


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("width", [0.1, 0.3])
def test_the_bias_with_64_actions(size, width):
    found = repeated(size, width, particles_of(size, width))
    assert abs(float(found.log_integral.mean()) - exact(size, width)) <= 0.1
    assert 0.1 < float(found.ess.mean()) <= 1.0


def test_uniform_actions_fail_in_eight_dimensions():
    found = repeated(8, 0.1, lambda key: None)
    assert float(found.log_integral.mean()) - exact(8, 0.1) < -20
    assert float(found.ess.mean()) < 0.05


def test_the_integral_is_unbiased():
    found = repeated(2, 0.3, particles_of(2, 0.3), repeats=4_000, samples=20)
    total = float(jnp.exp(found.log_integral).mean())
    assert total == pytest.approx(np.exp(exact(2, 0.3)), rel=0.02)


def test_a_prior_and_the_entropy():
    """p = |a|-shaped: log ∫ p exp(Q) da and −E log π/p, against a fine grid."""
    grid = np.linspace(-1, 1, 20_001)
    q, p = np.sin(3 * grid), np.abs(grid)
    whole = np.trapezoid(p * np.exp(q), grid)
    entropy = -np.trapezoid(p * np.exp(q) / whole * (q - np.log(whole)), grid)
    energy = lambda action: jnp.sin(3 * action[..., 0])
    prior = lambda action: jnp.log(jnp.abs(action[..., 0]))
    found = integrate(energy, prior, None, (1, 200_000, 1), 1.0, jax.random.key(0))
    assert float(found.log_integral[0]) == pytest.approx(np.log(whole), abs=0.01)
    assert float(found.entropy[0]) == pytest.approx(entropy, abs=0.02)


# ---------------------------------------------------------------- densities
def made(kind, size=2):
    task = Task(1, low=(-1.0,) * size, high=(1.0,) * size)
    form = samplers.Form(task, kind, 3, 12, "unbounded", ("rbf", "paper", 1.0))
    network = samplers.init(form, (8,), "tanh", jax.random.key(0))
    xi = 2 * jax.random.normal(jax.random.key(1), (1, 12, size))
    return samplers.proposal(form, network, jnp.ones((1, 1)), xi)


@pytest.mark.parametrize("kind", ["stein", "mixture"])
def test_a_proposal_is_a_density_and_samples_from_it(kind):
    proposal, nodes = made(kind), np.tanh(np.linspace(-6, 6, 502))  # closer at the edges, where a mixture is steep
    middle, width = (nodes[1:] + nodes[:-1]) / 2, np.diff(nodes)
    grid = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(1, -1, 2)
    mass = np.exp(np.asarray(proposal.log_density(jnp.float32(grid)), float)[0]) * np.outer(width, width).ravel()
    assert mass.sum() == pytest.approx(1.0, abs=5e-3)
    drawn = np.asarray(proposal.sample(jax.random.key(2), 100_000), float)[0]
    assert np.abs(drawn).max() <= 1.0
    np.testing.assert_allclose(drawn.mean(axis=0), mass @ grid[0], atol=0.01)
    np.testing.assert_allclose((drawn**2).mean(axis=0), mass @ grid[0] ** 2, atol=0.01)
    np.testing.assert_allclose((drawn.prod(axis=1)).mean(), mass @ grid[0].prod(axis=1), atol=0.01)


def test_a_logistic_of_scale_one_half_is_uniform():
    even = samplers.Mixture(jnp.zeros((1, 1)), jnp.zeros((1, 1, 3)), jnp.full((1, 1, 3), np.log(0.5)))
    action = jax.random.uniform(jax.random.key(0), (1, 100, 3), minval=-1.0)
    np.testing.assert_allclose(even.log_density(action), np.full((1, 100), -3 * np.log(2)), atol=1e-4)
