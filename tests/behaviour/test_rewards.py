"""Families of rewards: what their coefficients mean, what their penalties shrink, what is refused."""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from nearopt.behaviour.optimise import value_and_gradient
from nearopt.behaviour.rewards import build_reward
from nearopt.mdp.errors import FeatureError, NaNError, PenaltyError, RewardKindError
from tests.behaviour.small import A, F, S, T, at, behaviour, counts, log_table, slope, world

CHAIN = np.stack([np.eye(S)[[1, 2, 3, 3]], 0.5 * np.eye(S) + 0.5 * np.eye(S)[[0, 0, 2, 2]]], 1)  # 0-1-2-3
CHAIN_PAIRS = [(0, 1), (1, 2), (2, 3)]
MDP, FEATURES, AGENT = world()
BRANCHES = np.random.default_rng(5).normal(size=(S, A, S, F))
SEEN = behaviour(MDP, AGENT, 30)
N = SEEN.num_decisions


def objective(model, theta, seen=SEEN):
    """What is minimised and its gradient, as the optimiser gets them."""
    fit = at(model, seen, theta).fit_
    with jax.enable_x64(True):
        start = jnp.asarray(theta)
        (value, _), found = value_and_gradient(
            start, fit.family, fit.data, fit.penalties, jnp.zeros(fit.family.blocks.size)
        )
    return float(value), np.asarray(found)


def built(kind, features=None, time_varying=False, steps=None, mdp=MDP):
    with jax.enable_x64(True):
        return build_reward(mdp, kind, features, time_varying, steps)


def table(reward, coef):
    with jax.enable_x64(True):
        return np.asarray(reward(jnp.asarray(coef)))


def penalty(reward, coef, l2, smoothness):
    with jax.enable_x64(True):
        return float(reward.penalty(jnp.asarray(coef), l2, smoothness))


# ---------------------------------------------------------------- objectives
def check(model, theta, agent, cost):
    """−mean log-likelihood + penalty, and its slope, against the oracle and `cost`."""
    n = counts(SEEN).sum(0)
    known = lambda x: cost(x) - (n * log_table(agent(x))).sum() / N
    found, gradient = objective(model, theta)
    np.testing.assert_allclose(found, float(known(theta)), rtol=1e-10)
    np.testing.assert_allclose(gradient, slope(known, theta).astype(float), rtol=1e-7, atol=1e-9)


def test_linear_in_features_of_transitions():
    theta, l2 = np.array([0.7, -1.1, 0.4]), 0.03
    model = no.BehaviourModel(MDP, features=BRANCHES, l2=l2, horizon=T, optimism=0.5)
    agent = lambda x: replace(AGENT, reward=BRANCHES @ x, kind="branch", optimism=0.5)
    check(model, theta, agent, lambda x: l2 * (x @ x))


def test_state_with_smoothness_over_neighbours():
    """Where one may follow the other, in either direction, once each."""
    theta = np.array([0.3, -0.8, 1.1, 0.2])
    cost = lambda x: 0.02 * (x @ x) + 0.05 * sum((x[i] - x[j]) ** 2 for i in range(S) for j in range(i))
    model = no.BehaviourModel(MDP, reward="state", l2=0.02, smoothness=0.05, horizon=T)
    check(model, theta, lambda x: replace(AGENT, reward=x, kind="state"), cost)
    chain = built("state", mdp=no.MDP.from_arrays(CHAIN, np.zeros(S)))
    found = penalty(chain, theta, 0.02, 0.05)
    np.testing.assert_allclose(
        found, 0.02 * theta @ theta + 0.05 * sum((theta[i] - theta[j]) ** 2 for i, j in CHAIN_PAIRS)
    )


def test_maps_with_weights_over_time():
    rng = np.random.default_rng(2)
    theta, l2, smoothness = rng.normal(size=2 * S + 2 * T), 0.01, 0.04
    maps, weights = (lambda x: x[: 2 * S].reshape(2, S)), (lambda x: x[2 * S :].reshape(T, 2))
    cost = lambda x: l2 * (x @ x) + smoothness * (np.diff(weights(x), axis=0) ** 2).sum()
    agent = lambda x: replace(AGENT, reward=weights(x) @ maps(x), kind="timed state")
    model = no.BehaviourModel(MDP, reward="maps", features=2, l2=l2, smoothness=smoothness, horizon=T)
    check(
        model,
        theta,
        lambda x: replace(agent(x), reward=np.repeat(agent(x).reward[..., None], A, 2), kind="timed choice"),
        cost,
    )
    reward = model.fit_.family.reward
    np.testing.assert_allclose(table(reward, theta), np.repeat((weights(theta) @ maps(theta))[..., None], A, 2))
    np.testing.assert_array_equal(reward.public(theta), weights(theta))
    assert np.abs(reward.start[: 2 * S]).max() > 0  # at zero maps and weights hold each other there


# ---------------------------------------------------------------- tables and penalties
def test_coefficients_over_time():
    coef = np.random.default_rng(3).normal(size=(T, F))
    reward = built("linear", FEATURES, True, T)
    np.testing.assert_allclose(table(reward, coef.reshape(-1)), np.einsum("saf,tf->tsa", FEATURES, coef))
    cost = 0.1 * (coef**2).sum() + 0.2 * (np.diff(coef, axis=0) ** 2).sum()
    np.testing.assert_allclose(penalty(reward, coef.reshape(-1), 0.1, 0.2), cost)
    np.testing.assert_array_equal(reward.public(coef.reshape(-1)), coef)
    free = np.random.default_rng(4).normal(size=(T, S, A))
    np.testing.assert_allclose(table(built("state_action", None, True, T), free.reshape(-1)), free)
    state = built("state", None, True, T)
    np.testing.assert_allclose(table(state, free[..., 0].reshape(-1)), np.repeat(free[..., :1], A, 2))
    cost = (np.diff(free[..., 0], axis=0) ** 2).sum()  # over time, and not over neighbours
    np.testing.assert_allclose(penalty(state, free[..., 0].reshape(-1), 0.0, 1.0), cost)


@pytest.mark.parametrize("features", [FEATURES, FEATURES[:, 0], BRANCHES], ids=["SAF", "SF", "SASF"])
def test_a_network_is_applied_to_every_row_of_features(features):
    reward = built("network", features)
    layers = reward.features.module.layers
    assert reward.size == sum(x.size for layer in layers for x in (layer.weight, layer.bias))
    x = features
    for k, layer in enumerate(layers):
        x = x @ np.asarray(layer.weight, float).T + np.asarray(layer.bias)
        x = np.tanh(x) if k < len(layers) - 1 else x[..., 0]
    x = np.repeat(x[:, None], A, 1) if features.ndim == 2 else x
    np.testing.assert_allclose(table(reward, reward.start), x, rtol=1e-6)
    assert np.ptp(table(reward, 2 * reward.start)) != np.ptp(x) and not reward.homogeneous


def test_an_equinox_module_and_a_function():
    module = eqx.nn.Linear(F, "scalar", key=jax.random.key(1))
    reward = built(module, FEATURES)
    weights, bias = np.array([0.3, -0.2, 1.0]), 0.7
    np.testing.assert_allclose(table(reward, [*weights, bias]), FEATURES @ weights + bias)
    for over in (False, True):
        curve = built(lambda coef, features: jnp.tanh(features @ coef), FEATURES, over, T if over else None)
        coef = np.tile(weights, (T, 1)) * np.arange(1, T + 1)[:, None] if over else weights
        known = np.tanh(np.einsum("saf,...f->...sa", FEATURES, coef))
        np.testing.assert_allclose(table(curve, coef.reshape(-1)), known)
    assert not curve.homogeneous and built("linear", FEATURES).homogeneous


# ---------------------------------------------------------------- refusals
def refused(error, match, **settings):
    with pytest.raises(error, match=match):
        no.BehaviourModel(MDP, **settings).fit(SEEN)


def test_features_that_do_not_fit():
    wrong = partial(refused, FeatureError)
    wrong("needs features")
    for shape in ((S,), (S + 1, F), (A, S, F), (S, A, F, S), (S, A, S, F, 1), (S, 0)):
        wrong(r"shape \(" + ", ".join(map(str, shape)).replace("(", ""), features=np.ones(shape))
    for bad in (np.nan, np.inf):
        table = FEATURES.copy()
        table[1, 0, 2] = bad
        refused(NaNError, r"\[1, 0, 2\]", features=table)
    for count in (None, 0, True, 1.5, FEATURES):
        wrong("features is", reward="maps", features=count, horizon=T)


def test_kinds_that_do_not_exist():
    refused(RewardKindError, "'quadratic'", reward="quadratic")
    refused(RewardKindError, "3", reward=3)
    refused(RewardKindError, "horizon", features=FEATURES, time_varying=True)
    refused(RewardKindError, "horizon", reward="maps", features=2)
    refused(RewardKindError, "does not vary", reward="model", time_varying=True, horizon=T)
    for name in ("l2", "smoothness"):
        refused(PenaltyError, name, features=FEATURES, **{name: -0.1})
        refused(PenaltyError, name, features=FEATURES, **{name: np.nan})
