"""Standard errors and intervals against NumPy formulas on finite differences of the oracle's likelihood."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import nearopt as no
from nearopt.behaviour import intervals, optimise, uncertainty
from nearopt.behaviour.estimator import FitWarning
from nearopt.mdp.errors import GroupError, KindError, PenaltyError
from tests.behaviour.small import A, F, S, T, at, behaviour, counts, curvature, linear, log_table, slope, world

MDP, FEATURES, AGENT = world()
build = partial(no.BehaviourModel, MDP, horizon=T)
SEEN = behaviour(MDP, AGENT, 60)
N = SEEN.num_decisions
Z = scipy.stats.norm.ppf(0.975)
L2 = 0.01
MANY_SEEN = behaviour(MDP, AGENT, 2000)


@pytest.fixture(scope="module")
def coefficients():
    return build(features=FEATURES, l2=L2).fit(SEEN)


@pytest.fixture(scope="module")
def dials():
    """The reward is known, and what is fitted are temperature, discount and prior."""
    return build(reward="model", temperature="fit", discount="fit", prior="fit").fit(MANY_SEEN)


def dial_agent(theta):
    """θ = (log τ, logit γ, log prior of action 1 − that of action 0)."""
    prior = np.array([0, theta[2]]) - np.logaddexp(0, theta[2])
    return replace(
        AGENT, temperature=np.exp(theta[0]), discount=1 / (1 + np.exp(-theta[1])), log_prior=np.tile(prior, (S, 1))
    )


def covariances(agent, theta, seen, ridge, group=None):
    """By name; `ridge` is the Hessian of the penalties."""
    table, n = lambda x: log_table(agent(x)), counts(seen)
    scores = slope(table, theta).reshape(T * S * A, -1)
    likelihood = lambda x: (n.sum(0) * table(x)).sum()
    bread = np.linalg.inv((ridge - curvature(likelihood, theta)).astype(float))
    rows = np.repeat(np.eye(T * S * A), n.sum(0).reshape(-1).astype(int), axis=0)  # every decision by itself
    if group is not None:
        rows = np.stack([n[group == g].sum(0).reshape(-1) for g in np.unique(group)])
    outer = ((rows @ scores).T @ (rows @ scores)).astype(float)
    return {"hessian": bread, "opg": np.linalg.inv(outer + ridge), "sandwich": bread @ outer @ bread}


# ---------------------------------------------------------------- three covariances
@pytest.mark.parametrize("by", [None, "episode", "subject"])
def test_errors_of_coefficients(coefficients, by):
    group = {None: None, "episode": np.arange(len(SEEN)), "subject": SEEN.subject}[by]
    known = covariances(linear(AGENT, FEATURES), coefficients.coef_, SEEN, 2 * L2 * N * np.eye(F), group)
    for kind, covariance in known.items():
        error = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(coefficients.stderr(kind, by), error, rtol=1e-7)
        low, high = coefficients.confidence_interval(0.95, kind, by=by)
        np.testing.assert_allclose((high - low) / 2, Z * error, rtol=1e-7)
        np.testing.assert_allclose((high + low) / 2, coefficients.coef_, rtol=1e-12)


def test_errors_of_dials_by_the_delta_method(dials):
    theta = dials.fit_.theta
    tau, gamma, prior = np.exp(theta[0]), 1 / (1 + np.exp(-theta[1])), np.exp(theta[2]) / (1 + np.exp(theta[2]))
    names = ["temperature", "discount", "log prior of action 0", "log prior of action 1"]
    assert list(dials.dials_) == names
    np.testing.assert_allclose(list(dials.dials_.values()), [tau, gamma, np.log(1 - prior), np.log(prior)], rtol=1e-9)
    assert (dials.temperature_, dials.discount_) == (dials.dials_["temperature"], dials.dials_["discount"])
    known = covariances(dial_agent, theta, MANY_SEEN, np.zeros((3, 3)))
    for kind, covariance in known.items():
        e = np.sqrt(np.diag(covariance))
        found = dials.intervals(0.9, kind)
        z = scipy.stats.norm.ppf(0.95)
        np.testing.assert_allclose(found["temperature"], tau * np.exp([-z * e[0], z * e[0]]), rtol=1e-6)  # log scale
        logit = theta[1] + np.array([-z, z]) * e[1]
        np.testing.assert_allclose(found["discount"], 1 / (1 + np.exp(-logit)), rtol=1e-6)  # logit scale
        for name, factor in (("log prior of action 0", prior), ("log prior of action 1", 1 - prior)):
            middle = dials.dials_[name]
            np.testing.assert_allclose(found[name], middle + np.array([-z, z]) * e[2] * factor, rtol=1e-6)


def test_errors_where_the_reward_comes_in_every_scale(coefficients):
    """c/τ = b is what is fitted: c = b/‖b‖, τ = 1/‖b‖."""
    b = coefficients.coef_
    free = at(build(features=FEATURES, temperature="fit", l2=L2), SEEN, b)
    long = np.linalg.norm(b)
    unit = b / long
    covariance = covariances(linear(AGENT, FEATURES), b, SEEN, 2 * L2 * N * np.eye(F))["opg"]
    turn = (np.eye(F) - np.outer(unit, unit)) / long
    np.testing.assert_allclose(free.stderr("opg"), np.sqrt(np.diag(turn @ covariance @ turn)), rtol=1e-6)
    relative = np.sqrt(unit @ covariance @ unit) / long  # of τ
    found = free.intervals(0.95, "opg")
    np.testing.assert_allclose(found["coef"].mean(0), unit, rtol=1e-12)
    np.testing.assert_allclose(found["temperature"], np.exp([-Z * relative, Z * relative]) / long, rtol=1e-6)
    with pytest.raises(KindError, match="length 1"):
        free.intervals(0.95, "profile")


def test_errors_are_infinite_where_a_direction_is_flat():
    theta, kinds = np.array([0.8, -0.4, 0.0]), ("hessian", "opg", "sandwich")
    silent, double = FEATURES.copy(), FEATURES.copy()
    silent[..., 2], double[..., 2] = 0, -2 * FEATURES[..., 0]
    for kind in kinds:
        alone = at(build(features=silent), SEEN, theta).stderr(kind)
        twice = at(build(features=double), SEEN, theta).stderr(kind)
        assert np.isfinite(alone[:2]).all() and np.isposinf(alone[2])
        assert np.isposinf(twice[[0, 2]]).all()
        np.testing.assert_allclose(twice[1], alone[1], rtol=1e-6)


# ---------------------------------------------------------------- the infinite horizon, whose V is remembered
def test_a_hessian_is_taken_at_the_right_value():
    """V of θ where it is known, and V of another θ where that is asked about."""
    model = build(features=FEATURES, l2=L2).set_params(horizon=None).fit(SEEN)
    assert model.fit_.value is not None
    n = counts(SEEN).sum((0, 1))
    likelihood = lambda x: (n * log_table(linear(AGENT, FEATURES)(x), None)).sum()
    for theta in (model.coef_, model.coef_ + [0.3, -0.2, 0.5]):
        known = 2 * L2 * N * np.eye(F) - curvature(likelihood, theta).astype(float)
        with jax.enable_x64(True):
            np.testing.assert_allclose(model.fit_.curvature(theta), known, rtol=1e-6, atol=1e-6)
            if theta is model.coef_:
                np.testing.assert_allclose(model.fit_.curvature(), known, rtol=1e-6, atol=1e-6)
                np.testing.assert_allclose(model.stderr_, np.sqrt(np.diag(np.linalg.inv(known))), rtol=1e-6)


def test_the_optimiser_asks_for_a_hessian_at_the_right_value(monkeypatch):
    """SciPy may ask for it at another point than for the last value."""
    model = at(build(features=FEATURES, l2=L2).set_params(horizon=None), SEEN, np.zeros(F))
    fit, minimise, seen = model.fit_, scipy.optimize.minimize, []

    def asks(value, start, hess, **rest):
        for here, before in ((start + 0.5, start - 0.5), (start, start + 1)):
            value(before)
            seen.append((here, hess(here)))
        return minimise(value, start, hess=hess, **rest)

    monkeypatch.setattr(optimise.scipy.optimize, "minimize", asks)
    with jax.enable_x64(True):
        optimise.optimise(fit.family, fit.data, fit.penalties, fit.theta)
        for theta, hessian in seen:
            np.testing.assert_allclose(N * hessian, fit.curvature(jnp.asarray(theta)), rtol=1e-7, atol=1e-9)
    assert len(seen) == 2


# ---------------------------------------------------------------- many parameters
def fisher(agent, theta):
    """Σ n(s) Σ_a π(a|s) g gᵀ."""
    table = lambda x: log_table(agent(x))
    weight = counts(SEEN).sum((0, 3))[..., None] * np.exp(table(theta))
    g = slope(table, theta)
    return np.einsum("tsa,tsai,tsaj->ij", weight, g, g).astype(float)


def test_errors_of_many_parameters_by_woodbury(monkeypatch):
    theta, l2, smoothness = np.array([0.5, -0.2, 0.1, 0.7]), 0.02, 0.05
    many = at(build(reward="state", l2=l2, smoothness=smoothness), SEEN, theta)
    agent = lambda x: replace(AGENT, reward=x, kind="state")
    laplacian = S * np.eye(S) - np.ones((S, S))  # all are neighbours here
    prior = 2 * N * (l2 * np.eye(S) + smoothness * laplacian)
    known = fisher(agent, theta)
    np.testing.assert_allclose(many.num_parameters_, np.trace(known @ np.linalg.inv(known + prior)), rtol=1e-6)
    monkeypatch.setattr(uncertainty, "MANY", 3)
    np.testing.assert_allclose(many.stderr(), np.sqrt(np.diag(np.linalg.inv(known + prior))), rtol=1e-7)
    with pytest.raises(PenaltyError, match="l2"):
        many.stderr("opg")
    with pytest.raises(PenaltyError, match="l2"):
        at(build(reward="state"), SEEN, theta).stderr()


def test_effective_parameters():
    theta = np.array([0.8, -0.4, 0.3])
    many = lambda features, l2: at(build(features=features, l2=l2), SEEN, theta).num_parameters_
    known = fisher(linear(AGENT, FEATURES), theta)
    assert many(FEATURES, 0.0) == pytest.approx(3, rel=1e-9)
    for l2 in (0.01, 1.0):
        trace = np.trace(known @ np.linalg.inv(known + 2 * l2 * N * np.eye(F)))
        np.testing.assert_allclose(many(FEATURES, l2), trace, rtol=1e-6)
        assert trace < 2.95
    double = FEATURES.copy()
    double[..., 2] = FEATURES[..., 0] + FEATURES[..., 1]
    assert many(double, 0.0) == pytest.approx(2, rel=1e-9)


# ---------------------------------------------------------------- intervals
def test_profile_bounds_are_where_a_brute_search_finds_the_likelihood_fallen(dials):
    found, theta = dials.intervals(0.9, "profile"), dials.fit_.theta
    n = counts(MANY_SEEN).sum(0)
    minus = lambda x: -float((n * log_table(dial_agent(x))).sum())
    best = minus(theta)
    np.testing.assert_allclose(best, -dials.log_likelihood_, rtol=1e-10)
    fall = scipy.stats.chi2.ppf(0.9, 1) / 2
    scale = {"temperature": np.log, "discount": lambda x: np.log(x / (1 - x))}
    for i, name in enumerate(scale):
        low, high = scale[name](found[name])
        assert low < theta[i] < high
        for bound in (low, high):
            held = lambda rest, i=i, bound=bound: minus(np.insert(rest, i, bound))
            out = scipy.optimize.minimize(held, np.delete(theta, i), method="BFGS", options=dict(gtol=1e-4))
            np.testing.assert_allclose(out.fun - best, fall, rtol=1e-4)
    assert np.isnan(found["log prior of action 0"]).all()


def test_an_open_profile_is_infinite():
    features = FEATURES.copy()
    features[..., 2] = 0
    found = build(features=features).fit(SEEN).confidence_interval(0.95, "profile")
    np.testing.assert_array_equal(found[:, 2], [-np.inf, np.inf])
    assert np.isfinite(found[:, :2]).all()


def test_bootstrap(coefficients):
    draw = lambda seed, by="episode": coefficients.intervals(0.8, "bootstrap", by=by, draws=12, seed=seed)["coef"]
    one = draw(0)
    np.testing.assert_array_equal(draw(0), one)
    assert (draw(1) != one).all() and (draw(0, "subject") != one).all()
    assert (one[0] < one[1]).all()
    width = np.diff(coefficients.confidence_interval(0.8, "sandwich", by="episode"), axis=0)[0]
    assert (np.diff(one, axis=0)[0] > 0.3 * width).all() and (np.diff(one, axis=0)[0] < 3 * width).all()


def test_bootstrap_by_subject_keeps_subjects_whole():
    """Subjects who did the same things are not told from each other, however different their episodes."""
    same = no.Trajectories(
        np.tile(SEEN.state[:20], (3, 1)), np.tile(SEEN.action[:20], (3, 1)), np.repeat([0, 1, 2], 20)
    )
    found = build(features=FEATURES, l2=L2).fit(same)
    by = lambda name: found.intervals(0.8, "bootstrap", by=name, draws=6)["coef"]
    np.testing.assert_allclose(by("subject"), np.tile(found.coef_, (2, 1)), rtol=1e-6)
    assert (np.ptp(by("episode"), axis=0) > 0.01).all()


def test_refits_of_the_bootstrap_that_stopped_short_are_counted(coefficients, monkeypatch):
    found = []

    def stops(*given):
        found.append(optimise.optimise(*given))
        return replace(found[-1], converged=len(found) > 2)

    monkeypatch.setattr(intervals, "optimise", stops)
    with pytest.warns(FitWarning, match="2 of 6 refits of the bootstrap stopped short"):
        coefficients.intervals(0.8, "bootstrap", draws=6)
    assert len(found) == 6
    coefficients.intervals(0.8, "bootstrap", draws=6)  # warnings are errors


def test_what_is_refused(coefficients):
    for level in (0.0, 1.0, 95, -0.1, np.nan, "95%"):
        for kind in ("hessian", "profile", "bootstrap"):
            with pytest.raises(KindError, match="level"):
                coefficients.intervals(level, kind)
    for ask in (coefficients.stderr, lambda kind: coefficients.intervals(0.95, kind)):
        with pytest.raises(KindError, match="'fisher'.*'hessian'"):
            ask("fisher")
    with pytest.raises(KindError, match="'rat'"):
        coefficients.stderr("opg", by="rat")
    unnamed = at(build(features=FEATURES), SEEN, np.zeros(F))
    unnamed.subject_ = None
    with pytest.raises(GroupError, match="subject"):
        unnamed.stderr("sandwich", by="subject")
    unnamed.subject_ = np.zeros(len(SEEN))
    with pytest.raises(GroupError, match="one group"):
        unnamed.intervals(0.95, "bootstrap", by="subject")
