"""The JAX layer: equal to the public one, differentiable, batchable, and right in a 32-bit caller too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from tests.oracles import random_world, to_arrays

S, A, T = 6, 3, 5
NAMES = ("value", "q", "policy", "log_forward", "state_probs", "state_action_probs", "log_partition")


@pytest.fixture(scope="module")
def mdp():
    world = random_world(np.random.default_rng(5), S, A, 3, 1, forbid=False, branch_rewards=False)
    return no.MDP.from_arrays(**to_arrays(world, S, A), discount=0.95)


def differences(function, x, step=1e-5):
    """Central finite differences of a scalar function."""
    x = np.asarray(x, float)
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = step
        if np.isfinite(x[i]):
            out[i] = (function(x + e) - function(x - e)) / (2 * step)
    return out


def test_equals_the_public_layer(mdp):
    for optimism in (1.0, 0.0, -0.3):
        post, pure = no.infer(mdp, T, optimism=optimism), no.functional.infer(mdp, T, optimism=optimism)
        for name in NAMES:
            np.testing.assert_allclose(np.asarray(getattr(pure, name)), getattr(post, name), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("optimism", [1.0, 0.0, 0.4])
def test_gradient_of_log_partition_is_the_visitation(mdp, optimism):
    """∂ log_partition / ∂ r(s,a) = (1/τ) Σ_t state_action_probs (design §1)."""

    def log_partition(reward):
        return no.functional.infer(mdp, T, reward=reward, temperature=0.7, optimism=optimism).log_partition

    visits = no.infer(mdp, T, temperature=0.7, optimism=optimism).state_action_probs.sum(0) / 0.7
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(jax.grad(log_partition))(mdp.reward), visits, rtol=1e-12, atol=1e-14)
    assert not jax.config.jax_enable_x64
    if optimism == 1.0:  # a 32-bit caller gets float32
        answer = jax.grad(log_partition)(mdp.reward)
        assert answer.dtype == jnp.float32
        np.testing.assert_allclose(answer, visits, rtol=1e-5, atol=1e-6)


def test_all_derivatives_equal_finite_differences(mdp):
    rng = np.random.default_rng(1)
    prior = np.where(mdp.available, rng.dirichlet(np.ones(A), S), 0)
    with np.errstate(divide="ignore"):
        start = dict(
            reward=mdp.reward, temperature=0.8, optimism=0.6, log_prior=np.log(prior), final_value=rng.normal(size=S)
        )
    weights = rng.normal(size=(T, S, A))

    @jax.jit
    def scalar(arguments):
        post = no.functional.infer(mdp, T, **arguments)
        return jnp.sum(post.policy * weights) + jnp.sum(post.state_probs[2] ** 2) + post.log_partition

    with jax.enable_x64(True):
        exact = jax.jit(jax.grad(scalar))({name: jnp.asarray(x, float) for name, x in start.items()})
        for name, x in start.items():
            known = differences(lambda x, name=name: float(scalar(start | {name: jnp.asarray(x)})), x)
            np.testing.assert_allclose(exact[name], known, rtol=1e-6, atol=1e-8, err_msg=name)


def test_derivatives_in_optimism_pass_smoothly_through_zero(mdp):
    function = jax.jit(lambda k: no.functional.infer(mdp, T, optimism=k, temperature=0.8).log_partition)
    with jax.enable_x64(True):
        first, second = jax.jit(jax.grad(function)), jax.jit(jax.hessian(function))
        for at in (0.0, 1e-9, 1e-4, -1e-3, 1.0):
            slope = differences(lambda k: float(function(jnp.asarray(k))), at, 1e-4)
            np.testing.assert_allclose(first(jnp.asarray(at)), slope, rtol=1e-5)
            bend = differences(lambda k: float(first(jnp.asarray(k))), at, 1e-4)
            np.testing.assert_allclose(second(jnp.asarray(at)), bend, rtol=1e-4)
        limit = no.functional.infer(mdp, T, optimism=0.0, temperature=0.8).log_partition
        assert abs(float(function(jnp.asarray(1e-12))) - float(limit)) < 1e-11


def test_vmap_over_temperatures_and_rewards(mdp):
    temperatures = np.array([0.1, 0.5, 1.0, 4.0])
    with jax.enable_x64(True):
        batch = jax.jit(jax.vmap(lambda t: no.functional.infer(mdp, T, temperature=t)))(temperatures)
        rewards = np.stack([mdp.reward, 2 * mdp.reward - 1])
        other = jax.vmap(lambda r: no.functional.infer(mdp, T, reward=r).value)(rewards)
    for i, t in enumerate(temperatures):
        post = no.infer(mdp, T, temperature=t)
        for name in NAMES:
            np.testing.assert_allclose(getattr(batch, name)[i], getattr(post, name), rtol=1e-13, atol=1e-14)
    for i, r in enumerate(rewards):
        np.testing.assert_allclose(other[i], no.infer(mdp, T, reward=r).value, rtol=1e-13)
    single = jax.vmap(lambda t: no.functional.infer(mdp, T, temperature=t).log_partition)(temperatures)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, batch.log_partition, rtol=1e-6)


def test_one_compilation_serves_every_temperature(mdp):
    assert mdp.blocks.size  # a model laid out inside a trace costs that function a second one
    traces = []

    @jax.jit
    def log_partition(temperature):
        traces.append(1)
        return no.functional.infer(mdp, T, temperature=temperature).log_partition

    for t in (0.5, 1.0, 2.0):
        log_partition(t)
    assert len(traces) == 1


def test_rewards_and_priors_that_vary_over_time(mdp):
    """Time-varying inputs equal an explicit recursion that changes them at every step."""
    rng = np.random.default_rng(2)
    reward, prior = rng.normal(size=(T, S, A)), rng.dirichlet(np.ones(A), (T, S)) * mdp.available
    post = no.infer(mdp, T, reward=reward, prior=prior, temperature=0.6)
    value = np.zeros(S)
    for t in reversed(range(T)):
        one = no.infer(mdp, 1, reward=reward[t], prior=prior[t], temperature=0.6, final_value=value)
        value = one.value[0]
        np.testing.assert_allclose(post.value[t], value, rtol=1e-13)
        np.testing.assert_allclose(post.policy[t], one.policy[0], rtol=1e-12)
        np.testing.assert_allclose(post.transition(t).toarray(), one.transition(0).toarray(), rtol=1e-12)
    per_branch = np.broadcast_to(reward[..., None], (T, S, A, S))
    np.testing.assert_allclose(
        no.infer(mdp, T, reward=per_branch, prior=prior, temperature=0.6).value, post.value, rtol=1e-13
    )
    same = np.broadcast_to(reward[0], (T, S, A))
    np.testing.assert_allclose(
        no.infer(mdp, T, reward=same).value, no.infer(mdp, T, reward=reward[0]).value, rtol=1e-13
    )
    states = rng.normal(size=S)
    spread = np.broadcast_to(states[:, None], (S, A))
    np.testing.assert_allclose(no.infer(mdp, T, reward=states).value, no.infer(mdp, T, reward=spread).value, rtol=1e-14)


def test_a_prior_and_the_reward_that_absorbs_it(mdp):
    """p(a|s) exp(r/τ) is the same model as the flat prior with r + τ log p(a|s)."""
    rng = np.random.default_rng(4)
    prior = np.where(mdp.available, rng.dirichlet(np.ones(A), S), 0)
    tau = 0.7
    absorbed = mdp.reward + tau * np.log(np.where(prior > 0, prior, 1))
    a, b = no.infer(mdp, T, temperature=tau, prior=prior), no.infer(mdp, T, temperature=tau, reward=absorbed)
    for name in ("value", "policy", "state_probs"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12, atol=1e-13)


def test_the_callers_precision_is_untouched(mdp):
    assert jnp.ones(1).dtype == jnp.float32
    assert no.functional.infer(mdp, T).value.dtype == jnp.float64
    assert jnp.ones(1).dtype == jnp.float32 and not jax.config.jax_enable_x64


def test_hard_control():
    """Temperature 0: arg max, ties shared equally, an action with prior 0 left out."""
    two = np.zeros((1, 3, 1)) + 1
    mdp = no.MDP.from_arrays(two, np.array([[1.0, 1.0, 0.5]]))
    hard = no.infer(mdp, 2, temperature=0, optimism=0)
    np.testing.assert_array_equal(hard.policy[0], [[0.5, 0.5, 0]])
    np.testing.assert_array_equal(hard.value[:, 0], [2, 1, 0])
    biased = no.infer(mdp, 2, temperature=0, optimism=0, prior=np.array([[0.0, 1e-9, 1.0]]))
    np.testing.assert_array_equal(biased.policy[0], [[0, 1, 0]])
    assert biased.q[0, 0, 0] == 2
    soft = no.infer(mdp, 2, temperature=1e-4, optimism=0)
    np.testing.assert_allclose(soft.policy, hard.policy, atol=1e-12)


def test_ties_are_judged_by_the_best_alone():
    mdp = no.MDP.from_arrays(np.ones((1, 3, 1)), np.array([[0.0, -1e-7, -1e6]]))
    np.testing.assert_array_equal(no.infer(mdp, 1, temperature=0, optimism=0).policy[0, 0], [1, 0, 0])


def test_numbers_as_dials_are_checked(mdp):
    for dials in (dict(temperature=-1.0), dict(temperature=0.0), dict(optimism=float("nan"))):
        with pytest.raises(no.NearoptError):
            no.functional.infer(mdp, 2, **dials)
    hard = no.functional.infer(mdp, 2, temperature=np.array(0.0), optimism=np.array(0.0))
    assert not np.isnan(hard.policy).any()
