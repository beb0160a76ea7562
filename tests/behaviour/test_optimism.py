"""Is this animal optimistic? Simulated ones, in the world as it is, and worlds in which nobody could tell."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import nearopt as no
from nearopt.behaviour import luck
from nearopt.behaviour.optimise import Optimum, value_and_gradient
from nearopt.mdp.errors import TrajectoryShapeError
from tests.behaviour.small import S, T, behaviour, counts, linear, log_table, world

MDP, FEATURES, AGENT = world()
MODEL = no.BehaviourModel(MDP, reward="model", horizon=T)


@pytest.mark.parametrize("kappa", [0.0, 0.8])
def test_the_truth_is_held_and_what_is_wrong_rejected(kappa):
    """The world moves by p, whatever the animal believes of it."""
    seen = behaviour(MDP, replace(AGENT, optimism=kappa), 3000, seed=1)
    n = counts(seen).sum(0)
    likelihood = lambda k: float((n * log_table(replace(AGENT, optimism=k))).sum())
    found = MODEL.optimism_test(seen, level=0.99)
    low, high = found.interval
    assert found.identified and found.converged and low < kappa < high and found.level == 0.99
    np.testing.assert_allclose(found.log_likelihood, likelihood(found.optimism), rtol=1e-9)
    assert max(likelihood(found.optimism + e) for e in (-0.02, 0.02)) < found.log_likelihood
    fall = scipy.stats.chi2.ppf(0.99, 1) / 2
    for bound in (low, high):
        np.testing.assert_allclose(found.log_likelihood - likelihood(bound), fall, rtol=1e-4)
    for k in (0.0, 1.0):
        lost = 2 * (found.log_likelihood - likelihood(k))
        np.testing.assert_allclose(found.statistic[k], lost, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.p_value[k], scipy.stats.chi2.sf(lost, 1), rtol=1e-4)
    assert (found.p_value[0.0] < 0.001) == (kappa > 0)
    if kappa == 0:
        assert found.p_value[0.0] > 0.01 and found.p_value[1.0] < 0.001
    else:
        assert found.p_value[1.0] > 0.001
    words = found.describe()
    assert f"{found.optimism:.3g}" in words and "99% interval" in words and "κ = 1: p =" in words
    assert "edge" not in words
    assert MODEL.optimism == 0.0 and not hasattr(MODEL, "fit_")


def test_an_optimism_at_the_edge_of_what_has_a_finite_value():
    """Always done is what gains most by optimism, of which for ever only a little has a finite value."""
    reward = AGENT.reward / 2
    mdp = no.MDP.from_arrays(AGENT.transition, reward, discount=0.8)
    table = lambda k: log_table(replace(AGENT, reward=reward, optimism=k), None).astype(float)
    state = np.tile(np.arange(S), 40)[:, None]
    action = (table(0.25) - table(0.0)).argmax(1)[state]
    seen = no.Trajectories(np.append(state, np.full_like(state, -1), axis=1), action)
    likelihood = lambda k: float(table(k)[state, action].sum())
    found = no.BehaviourModel(mdp, reward="model").optimism_test(seen)
    low, high = found.interval
    assert found.identified and not found.converged
    assert "edge" in found.describe()
    no.solve(mdp, optimism=found.optimism - 1e-3)
    with pytest.raises(no.NearoptError):
        no.solve(mdp, optimism=found.optimism + 1e-3)
    np.testing.assert_allclose(high, found.optimism, atol=1e-3)
    assert likelihood(0.0) < likelihood(0.25) < found.log_likelihood
    fall = scipy.stats.chi2.ppf(0.95, 1) / 2
    np.testing.assert_allclose(found.log_likelihood - likelihood(low), fall, rtol=1e-4)
    np.testing.assert_allclose(found.statistic[0.0], 2 * (found.log_likelihood - likelihood(0.0)), rtol=1e-6)
    assert np.isnan(found.statistic[1.0]) and np.isnan(found.p_value[1.0])


def test_penalties_are_no_part_of_the_likelihood(monkeypatch):
    seen, theta = behaviour(MDP, AGENT, 20), np.array([1.5, -1.0, 0.5, 0.3])

    def found_at_once(family, data, penalties, start):
        at = theta[: len(start)]
        (value, _), _ = value_and_gradient(jnp.asarray(at), family, data, penalties, jnp.zeros(family.blocks.size))
        return Optimum(at, float(value), 0.0, 0, True)

    monkeypatch.setattr(luck, "optimise", found_at_once)
    monkeypatch.setattr(luck, "by_profile", lambda fit, *_: np.zeros((2, len(fit.theta))))
    model = no.BehaviourModel(MDP, features=FEATURES, horizon=T, l2=0.05)
    acting = linear(AGENT, FEATURES, optimism=0.3)(theta[:3])
    likelihood = float((counts(seen).sum(0) * log_table(acting)).sum())
    np.testing.assert_allclose(model.optimism_test(seen).log_likelihood, likelihood, rtol=1e-9)
    with pytest.raises(TrajectoryShapeError):
        model.optimism_test(np.zeros(3))
    with pytest.raises(no.NearoptError, match="state 9"):
        model.optimism_test(no.Trajectories(np.array([[0, 9]]), np.array([[0]])))


@pytest.mark.parametrize("twins", [True, False])
def test_without_luck_nobody_can_tell(twins):
    """A deterministic world; and one where chance only decides between states that are alike."""
    goes = np.eye(S)[(np.arange(S)[:, None] + [1, 2]) % S]
    reward = AGENT.reward
    if twins:
        pair = np.arange(S) // 2
        goes, reward = np.where(pair == np.stack([pair, 1 - pair], 1)[..., None], [0.3, 0.7, 0.6, 0.4], 0), reward[pair]
        goes = goes / goes.sum(2, keepdims=True)
    mdp = no.MDP.from_arrays(goes, reward)
    seen = behaviour(mdp, replace(AGENT, transition=goes, reward=reward, discount=1.0), 40)
    found = no.BehaviourModel(mdp, reward="model", horizon=T).optimism_test(seen)
    assert not found.identified and np.isnan(found.optimism) and found.interval == (-np.inf, np.inf)
    assert np.isnan([*found.statistic.values(), *found.p_value.values()]).all()
    assert "does not show" in found.describe() and "p =" not in found.describe()
