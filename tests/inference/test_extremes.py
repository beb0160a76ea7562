"""10,000 random extremes: no NaN in any value or gradient, −inf kept, nothing lost over ranges above 3000 nats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from tests.oracles import random_world, to_arrays

S, A = 5, 3
NAMES = ("value", "q", "policy", "log_forward", "state_probs", "state_action_probs", "log_partition")


def extremes(rng, mdp, n):
    """Temperatures in [1e-3, 1e3], rewards to ±1e6 and −inf, priors with zeros, final values to ±1e6 and −inf."""
    size = 10.0 ** rng.uniform(-3, 6, (n, 1, 1))
    reward = rng.uniform(-1, 1, (n, S, A)) * size
    reward = np.where(rng.random((n, S, A)) < 0.1, -np.inf, reward)
    final = np.where(rng.random((n, S)) < 0.2, -np.inf, rng.uniform(-1, 1, (n, S)) * size[:, 0])
    prior = rng.dirichlet(np.full(A, 0.2), (n, S)) * (rng.random((n, S, A)) < 0.8)
    prior = np.where((prior * mdp.available).sum(-1, keepdims=True) > 0, prior, 1.0)
    with np.errstate(divide="ignore"):
        return reward, 10.0 ** rng.uniform(-3, 3, n), np.log(prior), final


@pytest.mark.parametrize(
    ("optimism", "discount"),
    [(1.0, 1.0), (0.0, 0.9), (None, 0.9), (None, 1.0)],
    ids=["exact", "variational", "any-discounted", "any"],
)
def test_no_nan_anywhere(optimism, discount):
    """4 × 2,500 problems."""
    rng = np.random.default_rng(7)
    batch = 2500
    world = random_world(rng, S, A, 3, 1, forbid=False, branch_rewards=False)
    mdp = no.MDP.from_arrays(**to_arrays(world, S, A), discount=discount)
    reward, temperature, log_prior, final = extremes(rng, mdp, batch)
    kappa = np.where(rng.random(batch) < 0.1, 0.0, rng.normal(size=batch) * 10.0 ** rng.uniform(-9, 1, batch))

    def everything(reward, temperature, log_prior, final, kappa, mdp=mdp):
        k = kappa if optimism is None else optimism
        return no.functional.infer(
            mdp, 4, reward=reward, temperature=temperature, optimism=k, log_prior=log_prior, final_value=final
        )

    def scalar(*arguments):  # every output takes part in the gradient, −inf entries left out
        post = everything(*arguments)
        return sum(jnp.sum(jnp.where(jnp.isfinite(x := getattr(post, name)), x, 0.0)) for name in NAMES)

    with jax.enable_x64(True):
        arguments = reward, temperature, log_prior, final, kappa
        post = jax.jit(jax.vmap(everything))(*arguments)
        gradients = jax.jit(jax.vmap(jax.grad(scalar, argnums=(0, 1, 2, 3, 4))))(*arguments)
    for name in NAMES:
        values = np.asarray(getattr(post, name))
        assert not np.isnan(values).any() and not np.isposinf(values).any(), name
    for name, gradient in zip(
        ("reward", "temperature", "log_prior", "final_value", "optimism"), gradients, strict=True
    ):
        bad = ~np.isfinite(np.asarray(gradient))
        assert not bad.any(), (name, np.argwhere(bad)[:3])


def test_no_state_is_lost_over_a_range_of_3000_nats():
    """Where one global shift underflows 38 of 50 states (notes/reliability.md §2), every message stays exact."""
    chain = np.zeros((50, 1, 50))
    chain[np.arange(49), 0, np.arange(1, 50)] = 1
    chain[49, 0, 49] = 1
    mdp = no.MDP.from_arrays(chain, np.full((50, 1), -62.0), initial=np.eye(50)[0])
    post = no.infer(mdp, 50, temperature=1.0, final_value=np.where(np.arange(50) == 49, 0.0, -3000.0))
    np.testing.assert_allclose(post.value[0], np.full(50, -3100.0), rtol=1e-14)
    np.testing.assert_allclose(post.log_forward[-1], np.where(np.arange(50) == 49, 0.0, -np.inf))
    two = np.zeros((2, 2, 2))
    two[:, 0, 0] = two[:, 1, 1] = 1
    far = no.infer(no.MDP.from_arrays(two, np.array([[0.0, -4000.0], [0.0, -4000.0]])), 3)
    np.testing.assert_allclose(far.log_forward[1], [0.0, -4000.0], atol=1e-9)
    np.testing.assert_allclose(far.q[0], np.array([[0.0, -4000.0]] * 2) + far.value[1][None], rtol=1e-14)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_conservation_at_extremes(temperature):
    rng = np.random.default_rng(3)
    world = random_world(rng, 8, 3, 4, 2, forbid=False, branch_rewards=True)
    mdp = no.MDP.from_arrays(**to_arrays(world, 8, 3))
    check_conservation(no.infer(mdp, 30, temperature=temperature))


def test_conservation():
    """log p(O_1:t−1) + log Σ_s α_t β_t is the same for every t (what it must show, 2)."""
    rng = np.random.default_rng(11)
    for _ in range(40):
        world = random_world(rng, 8, 3, 4, int(rng.integers(3)), forbid=True, branch_rewards=True)
        mdp = no.MDP.from_arrays(**to_arrays(world, 8, 3))
        check_conservation(no.infer(mdp, 25, temperature=float(rng.uniform(0.1, 5)), prior="uniform"))


def check_conservation(post):
    joint = post.log_forward + post.value / post.temperature
    top = joint.max(1)
    if np.isneginf(top).any():
        assert np.isneginf(post.log_partition)
        return
    total = post.log_evidence + top + np.log(np.exp(joint - top[:, None]).sum(1))
    np.testing.assert_allclose(total, post.log_partition, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimism", [1.0, 0.0])
def test_impossible_success(optimism):
    """Every way out is forbidden: −inf, no NaN, and no posterior to sample from at κ = 1."""
    loop = np.ones((1, 1, 1))
    post = no.infer(no.MDP.from_arrays(loop, np.array([-np.inf])), 3, optimism=optimism)
    assert post.log_partition == -np.inf and (post.value[:-1] == -np.inf).all()
    assert (post.policy == 1).all() and post.transition(0).toarray() == 1
    assert (post.state_probs == (0 if optimism else 1)).all()
