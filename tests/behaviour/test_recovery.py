"""Recovery counts by hand, and simulation in the world as it is."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

import nearopt as no
from nearopt.behaviour.recovery import Recovery
from nearopt.behaviour.simulate import simulate
from nearopt.mdp.errors import CountError, FeatureError, HorizonError, KindError
from tests.behaviour.small import A, F, S, T, at, log_table, world

MDP, FEATURES, AGENT = world()
MODEL = no.BehaviourModel(MDP, features=FEATURES, horizon=T)
TRUTH = {"coef": [1.5, -1.0, 0.5]}


@pytest.fixture(scope="module")
def recovered():
    told = []
    found = no.recover(MODEL, TRUTH, trajectories=150, decisions=T, repetitions=4, seed=3, tell=told.append)
    assert told == [f"repetition {k} of 4" for k in (1, 2, 3, 4)]
    return found


def test_the_truth_comes_back(recovered):
    assert recovered.names == ("coefficient 0", "coefficient 1", "coefficient 2")
    np.testing.assert_array_equal(recovered.truth, TRUTH["coef"])
    assert recovered.estimate.shape == recovered.lower.shape == recovered.upper.shape == (4, F)
    assert recovered.converged.all() and len(np.unique(recovered.estimate[:, 0])) == 4
    width = (recovered.upper - recovered.lower) / 2 / scipy.stats.norm.ppf(0.975)
    assert (np.abs(recovered.estimate - recovered.truth) < 4 * width).all() and (width < 0.5).all()
    np.testing.assert_allclose((recovered.lower + recovered.upper) / 2, recovered.estimate)
    assert not hasattr(MODEL, "coef_")


def test_one_seed_one_answer(recovered):
    again = lambda seed: no.recover(MODEL, TRUTH, trajectories=150, decisions=T, repetitions=2, seed=seed).estimate
    np.testing.assert_array_equal(again(3), recovered.estimate[:2])
    assert (again(4) != recovered.estimate[:2]).all()


def by_hand(truth, estimate, lower, upper):
    """The second of four repetitions failed."""
    tables = [
        np.insert(np.array(x, float), 1, np.nan, axis=0) for x in (estimate, np.ones((3, len(truth))), lower, upper)
    ]
    converged = np.array([True, False, True, True])
    return Recovery(tuple("abc"[: len(truth)]), np.array(truth), *tables, converged, 0.9)


def test_coverage_by_hand():
    lower = [[0.0, 2.1, 0.0], [1.0, 2.5, -np.inf], [1.2, 0.0, 3.5]]
    upper = [[0.9, 3.0, 5.0], [2.0, 3.0, np.inf], [2.0, 9.0, 4.0]]
    found = by_hand([1.0, 2.0, 3.0], [[0.5, 2.5, 3.0], [1.5, 2.75, 2.0], [1.6, 4.0, 4.0]], lower, upper)
    np.testing.assert_array_equal(found.coverage, [0.25, 0.25, 0.5])
    np.testing.assert_allclose(found.bias, [0.2, 9.25 / 3 - 2, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.spread[2], 1.0)
    for k, held in enumerate((1, 1, 2)):
        exact = scipy.stats.binomtest(held, 4).proportion_ci(0.95, "exact")
        np.testing.assert_allclose(found.coverage_interval[:, k], [exact.low, exact.high])
    edge = by_hand([1.0], np.ones((3, 1)), np.full((3, 1), 2.0), np.full((3, 1), 3.0))
    np.testing.assert_allclose(edge.coverage_interval[:, 0], [0, 1 - 0.025**0.25])
    lines = found.describe().splitlines()
    assert "25 %" in lines[1] and "50 %" in lines[3] and "1 of 4 fits did not converge" in found.describe()


def test_a_truth_that_is_no_member_of_the_family():
    ask = lambda truth, model=MODEL, **more: no.recover(
        model, truth, trajectories=2, decisions=T, repetitions=1, **more
    )
    for truth in ({}, {"temperature": 1.0}, TRUTH | {"temperature": 1.0}):
        with pytest.raises(KindError, match="coef"):
            ask(truth)
    for coef in ([1.0, 2.0], np.ones((1, 4)), 1.0):
        with pytest.raises(FeatureError, match="shape"):
            ask({"coef": coef})
    dial = no.BehaviourModel(MDP, reward="model", temperature="fit", horizon=T)
    with pytest.raises(KindError, match="temperature"):
        ask({"temperature": "hot"}, dial)
    for name in ("trajectories", "repetitions"):
        for value in (0, -1, 2.5, True):
            with pytest.raises(CountError, match=name):
                no.recover(MODEL, TRUTH, **{name: value})
    with pytest.raises(HorizonError, match="4 decisions"):
        no.recover(MODEL, TRUTH, decisions=T + 1)


@pytest.mark.parametrize(
    "truth",
    [{"temperature": -1.0}, {"temperature": 0.0}, {"temperature": 1.0, "discount": 1.5}],
    ids=str,
)
def test_a_truth_out_of_range(truth):
    names = dict.fromkeys(truth, "fit")
    model = no.BehaviourModel(MDP, reward="model", horizon=T, **names)
    with pytest.raises(no.NearoptError):
        no.recover(model, truth, trajectories=2, decisions=T, repetitions=1)


# ---------------------------------------------------------------- simulation
def test_an_optimistic_agent_moves_in_the_world_as_it_is():
    agent = replace(AGENT, optimism=1.0)
    policy = np.exp(log_table(agent)).astype(float)
    walks = simulate(MDP, policy, np.zeros(20_000, int), np.full(20_000, T), seed=0)
    tilted = no.infer(MDP, T).transition(0).toarray().reshape(S, A, S)[0]
    for a in range(A):
        first = walks.action[:, 0] == a
        assert abs(first.mean() - policy[0, 0, a]) < 4 * np.sqrt(policy[0, 0, a] / 20_000)
        went = np.bincount(walks.state[first, 1], minlength=S)
        assert scipy.stats.chisquare(went, first.sum() * AGENT.transition[0, a]).pvalue > 1e-4
        assert np.abs(went / first.sum() - tilted[a]).max() > 0.05
    last = walks.state[:, T - 1] == 1
    share = (walks.action[last, T - 1] == 0).mean()
    assert abs(share - policy[T - 1, 1, 0]) < 4 * np.sqrt(0.25 / last.sum()) < abs(share - policy[0, 1, 0])


def test_a_model_simulates_in_the_stead_of_what_was_recorded():
    seen = no.Trajectories(
        np.array([[2, 0, -1, -1], [1, 1, 1, 1], [-1, 2, 1, -1], [3, 0, 0, -1]]),
        np.array([[0, -1, -1], [1, 1, 1], [-1, 0, -1], [1, 1, -1]]),
    )
    model = at(no.BehaviourModel(MDP, features=FEATURES, horizon="episode"), seen, np.zeros(F))
    policy = np.stack([np.tile(row, (S, 1)) for row in ([1.0, 0], [0, 1.0], [1.0, 0])])  # 0, then 1, then 0
    model.policy_of = lambda span=None, hard=False: policy[-(span or 3) :]
    found = model.simulate(seen, seed=0)
    np.testing.assert_array_equal(found.state[:, 0], [2, 1, 3])  # one has no first state
    np.testing.assert_array_equal(found.length, [1, 3, 2])
    np.testing.assert_array_equal(found.action, [[0, -1, -1], [0, 1, 0], [1, 0, -1]])  # by decisions left
    np.testing.assert_array_equal(found.state, model.simulate(seen, seed=0).state)
