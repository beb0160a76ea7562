"""What no behaviour could tell is found, named, and really changes no policy; and a fit that fails says why."""

from functools import partial

import numpy as np
import pytest

import nearopt as no
from nearopt.behaviour import optimise
from nearopt.behaviour.estimator import FitWarning, IdentifiabilityWarning
from nearopt.behaviour.identifiability import before
from tests.behaviour.small import A, F, S, T, at, behaviour, world

MDP, FEATURES, AGENT = world()
SEEN = behaviour(MDP, AGENT, 60)
THETA = np.array([0.8, -0.4, 0.3])
build = partial(no.BehaviourModel, MDP, horizon=T)
CHAIN = np.eye(S)[(np.arange(S)[:, None] + [1, 2]) % S]  # nothing is left to chance


def check(model, seen, theta, size=None):
    """The counts add up, and no direction changes any policy: {words: count}."""
    found = at(model, seen, theta).identifiability_
    assert found.size == (len(theta) if size is None else size)
    assert found.rank + sum(d.count for d in found.directions) == found.size
    assert model.identifiable_ == (not found.directions)
    known = model.log_likelihoods(seen)[0]
    for direction in found.directions:
        assert np.linalg.matrix_rank(direction.vectors) == direction.count == len(direction.vectors)
        for vector in direction.vectors:
            moved = at(model, seen, theta + 0.7 * vector / np.abs(vector).max()).log_likelihoods(seen)[0]
            np.testing.assert_allclose(moved, known, rtol=1e-8)
    return {d.words: d.count for d in found.directions}


def only(found):
    """The one sentence of `check`."""
    assert len(found) == 1, found
    return next(iter(found.items()))


# ---------------------------------------------------------------- features
def with_third(feature):
    features = FEATURES.copy()
    features[..., 2] = feature
    return build(features=features)


def test_nothing_is_said_where_all_is_told_apart():
    model = build(features=FEATURES)
    assert check(model, SEEN, THETA) == {}
    assert model.identifiability_.describe() == "the data tell all 3 parameters apart"


def test_a_constant_is_named():
    """Here features 1 and 2 add up to one."""
    words, count = only(check(with_third(1 - FEATURES[..., 1]), SEEN, THETA))
    assert count == 1 and words.startswith("a constant added to every reward")


def test_a_constant_feature_is_named():
    words, _ = only(check(with_third(1.0), SEEN, THETA))
    assert words.startswith("a constant") and "never reached" not in words


def test_collinear_features_are_named_with_their_weights():
    words, count = only(check(with_third(-2 * FEATURES[..., 1]), SEEN, THETA))
    assert count == 1 and "only show together" in words
    sign = "+" if "+1 ×" in words else "-"
    assert f"{sign}1 × coefficient 1, {sign}0.5 × coefficient 2" in words and "coefficient 0" not in words


def test_a_feature_of_a_state_that_nobody_reaches_is_named():
    transition = AGENT.transition.copy()
    transition[:3, :, 3] = 0
    transition /= transition.sum(2, keepdims=True)
    mdp, features, agent = world(transition)
    features[..., 2] = np.eye(S)[3][:, None]
    seen = no.Trajectories(np.array([[0, 1, 2, 0]]), np.array([[0, 1, 0]]))
    words, count = only(check(no.BehaviourModel(mdp, features=features, horizon=T), seen, THETA))
    assert count == 1 and "never reached" in words and words.endswith("coefficient 2")
    told = no.Trajectories(np.array([[0, 1, 2, 0], [3, 3, 0, 1]]), np.array([[0, 1, 0], [0, 1, 1]]))
    assert check(no.BehaviourModel(mdp, features=features, horizon=T), told, THETA) == {}


# ---------------------------------------------------------------- free rewards
def test_potentials_are_named():
    """For ever, γ < 1: every potential, one per state, among them the constant."""
    rng = np.random.default_rng(1)
    found = check(no.BehaviourModel(MDP, reward="state_action"), SEEN, rng.normal(size=S * A))
    assert sum(found.values()) == S
    (first, one), (second, more) = found.items()
    assert first.startswith("a constant") and "potential shaping" in second and (one, more) == (1, S - 1)


def test_a_free_reward_and_a_free_prior_are_one():
    theta = np.append(np.random.default_rng(1).normal(size=S * A), 0.3)
    model = build(reward="state_action", prior="fit")
    assert sum(check(model, SEEN, theta).values()) == 2
    assert any("propensity" in said for said in before(MDP, model.fit_.family, False))


def test_a_constant_is_named_beside_a_free_prior():
    theta = np.append(np.random.default_rng(1).normal(size=S * A), 0.3)
    (first, _), (second, _) = check(build(reward="state_action", prior="fit"), SEEN, theta).items()
    assert first.startswith("a constant") and "log prior of action 1" in second


# ---------------------------------------------------------------- dials
def test_optimism_without_luck():
    mdp, _, agent = world(CHAIN, discount=1.0)
    seen = behaviour(mdp, agent, 40)
    words, count = only(check(no.BehaviourModel(mdp, reward="model", optimism="fit", horizon=T), seen, [0.0]))
    assert count == 1 and words.startswith("optimism") and "luck" in words
    assert check(no.BehaviourModel(MDP, reward="model", optimism="fit", horizon=T), SEEN, [0.0]) == {}


def test_temperature_and_scale():
    model = at(build(features=FEATURES, temperature="fit"), SEEN, THETA)
    found = model.identifiability_
    assert (found.size, found.rank) == (F + 1, F) and [d.count for d in found.directions] == [1]
    assert "temperature and the scale of the reward" in found.directions[0].words
    assert "3 of 4" in found.describe() and not model.identifiable_


def test_what_is_known_before_any_data():
    def said(mdp=MDP, penalised=False, **settings):
        model = no.BehaviourModel(mdp, features=FEATURES if "reward" not in settings else None, **settings)
        return before(mdp, model.family(settings.get("horizon")), penalised)

    certain = world(CHAIN, discount=1.0)[0]
    assert said() == said(reward="state_action", penalised=True) == said(reward="model", temperature="fit") == []
    assert said(optimism="fit", discount="fit", prior="fit", horizon=T) == []
    assert said(certain, optimism="fit", discount=0.9) == []  # the coin is luck
    for settings, word in (
        (dict(temperature="fit"), "scale of the reward"),
        (dict(reward="state_action"), "potentials"),
        (dict(reward="state_action", penalised=True, optimism="fit"), "optimism cannot"),
        (dict(reward="state_action", penalised=True, discount="fit"), "discount cannot"),
        (dict(reward="state_action", penalised=True, prior="fit"), "propensity"),
        (dict(mdp=certain, optimism="fit", horizon=T), "no luck"),
    ):
        sentences = said(**settings)
        assert len(sentences) == 1 and word in sentences[0], settings


# ---------------------------------------------------------------- fits that fail
def test_separation_is_named_and_mended_by_l2():
    """Action 1 was never taken, and a feature says which action it is."""
    features = FEATURES.copy()
    features[..., 2] = [0, 1]
    seen = no.Trajectories(SEEN.state, np.zeros_like(SEEN.action))
    model = build(features=features)
    with pytest.warns(FitWarning, match="no maximum.*never taken.*action 1.*0 of.*set l2"):
        model.fit(seen)
    assert not model.converged_ and "never taken" in model.message_
    model = build(features=features, l2=0.01).fit(seen)  # warnings are errors
    assert model.converged_ and model.message_ == "" and model.coef_[2] < -0.1


def test_a_proper_optimum_needs_no_word():
    model = build(features=FEATURES).fit(SEEN)
    assert model.converged_ and model.message_ == ""


def test_features_that_say_nothing():
    """Whatever was done, a reward that is the same everywhere is not moved, and the fit says so."""
    for l2 in (0.0, 0.1):
        model = build(features=np.ones((S, A, F)), l2=l2)
        with pytest.warns(FitWarning, match="zero everywhere"):
            model.fit(SEEN)
        assert (model.reward_ == 0).all() and "zero everywhere" in model.message_


def test_a_reward_of_zero_that_comes_in_every_scale():
    """It has no direction, and its temperature is infinite: nothing is NaN."""
    model = build(features=np.ones((S, A, F)), temperature="fit")
    with pytest.warns(FitWarning, match="zero everywhere"), pytest.warns(IdentifiabilityWarning, match="scale"):
        model.fit(SEEN)
    assert (model.coef_ == 0).all() and (model.reward_ == 0).all() and model.temperature_ == np.inf
    np.testing.assert_allclose(model.policy_, 1 / A)
    np.testing.assert_allclose([model.score(SEEN), model.log_likelihood_ / SEEN.num_decisions], -np.log(A))
    for kind in ("hessian", "opg", "sandwich"):
        found = model.intervals(0.9, kind)
        assert np.isposinf(model.stderr(kind)).all()
        np.testing.assert_array_equal(found["coef"], [[-np.inf] * F, [np.inf] * F])
        np.testing.assert_array_equal(found["temperature"], [0, np.inf])


@pytest.fixture(scope="module")
def mice():
    """imitation, issue 808: 50 states, 8 actions, 819 short walks at random; most states are never visited."""
    rng = np.random.default_rng(808)
    transition = np.zeros((50, 8, 50))
    for s, a in np.ndindex(50, 8):
        among = 14 if s < 14 else 50
        transition[s, a, rng.choice(among, 3, replace=False)] = rng.dirichlet(np.ones(3))
    mdp = no.MDP.from_arrays(transition, np.zeros(50), discount=0.9, initial=np.eye(50)[0])
    states, actions = np.full((819, 7), -1), np.full((819, 6), -1)
    for i, length in enumerate(rng.integers(2, 7, 819)):
        states[i, 0] = 0
        for t in range(length):
            actions[i, t] = rng.integers(8)
            states[i, t + 1] = rng.choice(50, p=transition[states[i, t], actions[i, t]])
    assert len(np.unique(states)) < 20
    return mdp, no.Trajectories(states, actions)


@pytest.mark.parametrize("horizon", [None, "episode"])
def test_short_walks_through_many_states(mice, horizon, recwarn, monkeypatch):
    """A reward that is not zero, or a word; by L-BFGS, as for many parameters, and by trust region."""
    mdp, seen = mice
    if horizon is None:
        monkeypatch.setattr(optimise, "FEW", 10)
    for l2 in (0.0, 1e-4):
        recwarn.clear()
        model = no.BehaviourModel(mdp, reward="state", horizon=horizon, l2=l2).fit(seen)
        told = [w for w in recwarn if issubclass(w.category, (FitWarning, IdentifiabilityWarning))]
        assert model.converged_ or model.message_ and told
        assert np.ptp(model.reward_) > 1e-3 or model.message_ and told
        assert np.isfinite(model.reward_).all()
        if model.converged_:
            assert model.log_likelihood_ > -seen.num_decisions * np.log(8)
    told = model.identifiability_
    assert told.rank + sum(d.count for d in told.directions) == told.size == 50 and told.rank < 20
