"""Is this animal optimistic? Simulated ones, in the world as it is, and worlds in which nobody could tell."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

import nearopt as no
from tests.behaviour.small import S, T, behaviour, counts, log_table, world

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
