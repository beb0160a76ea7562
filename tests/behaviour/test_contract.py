"""`BehaviourModel` keeps scikit-learn's contract, and stops where its objective, computed by the oracle, is flat."""

import copy
import pickle
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

import nearopt as no
from tests.behaviour.oracle import Agent, derivative, log_likelihood, log_policy

S, A, F, T = 4, 2, 2, 3
TIMED = dict(time_varying=True, horizon=T, smoothness=0.1, l2=0.01)
DEFAULTS = dict(
    reward="linear",
    features=None,
    time_varying=False,
    horizon=None,
    discount=None,
    temperature=1.0,
    optimism=0.0,
    prior=None,
    l2=0.0,
    smoothness=0.0,
)


@pytest.fixture(scope="module")
def world():
    """Features, a model, an agent whose reward is linear in them, and what it did: 40 episodes of 3 decisions."""
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(S), (S, A))
    mdp = no.MDP.from_arrays(transition, np.zeros((S, A)), discount=0.8)
    features = rng.normal(size=(S, A, F))
    available = np.ones((S, A), bool)
    agent = Agent(transition, available, features @ [1.0, -0.5], "choice", np.zeros((S, A)), 0.8)
    states, actions = np.zeros((40, T + 1), int), np.zeros((40, T), int)
    for i, t in np.ndindex(40, T):
        states[i, 0] = i % S
        s = states[i, t]
        actions[i, t] = rng.choice(A, p=np.exp(np.array(list(log_policy(agent, None, 0, s).values()), float)))
        states[i, t + 1] = rng.choice(S, p=transition[s, actions[i, t]])
    return mdp, features, agent, no.Trajectories(states, actions)


@pytest.fixture(scope="module")
def fitted(world):
    mdp, features, _, recorded = world
    return no.BehaviourModel(mdp, features=features, l2=0.01).fit(recorded)


# ---------------------------------------------------------------- parameters
def test_the_constructor_stores_what_it_is_given(world):
    mdp, features, _, _ = world
    given = dict(
        mdp=mdp,
        reward="linear",
        features=features,
        time_varying=True,
        horizon="episode",
        discount="fit",
        temperature="fit",
        optimism="fit",
        prior=np.full((S, A), 0.5),
        l2=0.25,
        smoothness=0.75,
    )
    model = no.BehaviourModel(**given)
    assert isinstance(model, BaseEstimator)
    for name, value in given.items():
        assert getattr(model, name) is value and model.get_params()[name] is value, name
    assert DEFAULTS.items() <= no.BehaviourModel(mdp).get_params().items()


def test_wrong_settings_are_found_by_fit_and_not_before(world):
    mdp, _, _, recorded = world
    wrong = no.BehaviourModel(mdp, reward="quadratic", l2=-1.0, horizon=0)
    with pytest.raises(no.NearoptError):
        wrong.fit(recorded)


def test_clone_and_set_params(world, fitted):
    copy = clone(fitted)
    assert type(copy) is no.BehaviourModel and not hasattr(copy, "coef_")
    assert copy.get_params().keys() == fitted.get_params().keys()
    np.testing.assert_array_equal(copy.features, fitted.features)
    assert copy.set_params(l2=0.5, horizon=3) is copy
    assert (copy.l2, copy.horizon, fitted.l2, fitted.horizon) == (0.5, 3, 0.01, None)
    with pytest.raises(ValueError, match="Invalid parameter"):
        copy.set_params(bananas=1)
    np.testing.assert_array_equal(clone(fitted).fit(world[3]).coef_, fitted.coef_)


def test_repr_names_the_class(world, fitted):
    for model in (no.BehaviourModel(world[0]), fitted, clone(fitted)):
        assert repr(model).startswith("BehaviourModel(") and len(repr(model)) < 2000


# ---------------------------------------------------------------- fit
def test_not_fitted(world):
    mdp, features, _, recorded = world
    model = no.BehaviourModel(mdp, features=features)
    for ask in (
        lambda: model.score(recorded),
        lambda: model.stderr("hessian"),
        lambda: model.confidence_interval(0.95, "hessian"),
    ):
        with pytest.raises(NotFittedError):
            ask()
    assert not [name for name in vars(model) if name.endswith("_") and not name.startswith("_")]


def test_fit_returns_self_and_leaves_its_inputs_alone(world):
    mdp, features, _, recorded = world
    mine, prior = features.copy(), np.full((S, A), 0.5)
    state, action = recorded.state.copy(), recorded.action.copy()
    model = no.BehaviourModel(mdp, features=mine, prior=prior, l2=0.01)
    before = dict(model.get_params())
    assert model.fit(recorded) is model
    np.testing.assert_array_equal(mine, features)
    np.testing.assert_array_equal(prior, 0.5)
    np.testing.assert_array_equal(recorded.state, state)
    np.testing.assert_array_equal(recorded.action, action)
    assert mine.flags.writeable and prior.flags.writeable
    assert all(model.get_params()[name] is value for name, value in before.items())
    assert not jax.config.jax_enable_x64
    first = model.coef_.copy(), np.array(model.stderr_), model.log_likelihood_
    again = model.fit(recorded), model.fit(recorded[:20]).coef_.copy(), model.fit(recorded)
    assert not np.array_equal(again[1], first[0])  # fit forgets what it was fitted to
    for one, other in zip(first, (model.coef_, model.stderr_, model.log_likelihood_), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_a_fit_gives(world, fitted):
    _, features, agent, recorded = world
    assert fitted.converged_
    assert np.shape(fitted.coef_) == np.shape(fitted.stderr_) == (F,)
    assert (fitted.temperature_, fitted.optimism_, fitted.discount_) == (1.0, 0.0, 0.8)
    np.testing.assert_allclose(fitted.reward_, features @ fitted.coef_, rtol=1e-12)
    found = replace(agent, reward=np.asarray(fitted.reward_))
    known = log_likelihood(found, None, recorded.state, recorded.action)
    np.testing.assert_allclose(fitted.log_likelihood_, float(known.sum()), rtol=1e-10)
    np.testing.assert_allclose(fitted.score(recorded), float(known.sum()) / recorded.num_decisions, rtol=1e-10)
    np.testing.assert_allclose(fitted.score(recorded[:7]), float(known[:7].sum()) / (7 * T), rtol=1e-10)
    policy = [np.exp(np.array(list(log_policy(found, None, 0, s).values()), float)) for s in range(S)]
    np.testing.assert_allclose(fitted.policy_, policy, rtol=1e-9)
    for kind in ("hessian", "opg", "sandwich"):
        error = fitted.stderr(kind)
        assert np.shape(error) == (F,) and (error > 0).all()
        low, high = fitted.confidence_interval(0.95, kind)
        np.testing.assert_allclose(low, fitted.coef_ - 1.959963985 * error, rtol=1e-8)
        np.testing.assert_allclose(high, fitted.coef_ + 1.959963985 * error, rtol=1e-8)
    np.testing.assert_array_equal(fitted.stderr_, fitted.stderr("hessian"))


def test_another_value_of_a_dial_is_not_compiled_anew(world):
    mdp, features, _, recorded = world
    calls = []
    reward = lambda coef, features: calls.append(1) or features @ coef

    def traces(**dials):
        before = len(calls)
        no.BehaviourModel(mdp, reward=reward, features=features, l2=0.01, horizon=T, **dials).fit(recorded)
        return len(calls) - before

    first, again = (traces(discount=0.5, temperature=0.7, optimism=0.3) for _ in range(2))
    assert first > again == traces(discount=0.6, temperature=0.9, optimism=-0.2)


def test_a_fitted_model_may_be_copied_and_pickled(world):
    """Under JAX's default of 32 bits, in which the package has not left its 64."""
    mdp, features, _, recorded = world
    model = no.BehaviourModel(mdp, features=features, l2=0.01, temperature=0.7, discount=0.6).fit(recorded)
    known = model.log_likelihoods(recorded)[0], model.stderr("sandwich")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (other.coef_ == model.coef_).all() and other.score(recorded) == model.score(recorded)
        np.testing.assert_array_equal(other.log_likelihoods(recorded)[0], known[0])
        np.testing.assert_array_equal(other.stderr("sandwich"), known[1])


# ---------------------------------------------------------------- splitting and searching
def test_cross_validation(world):
    mdp, features, _, recorded = world
    model = no.BehaviourModel(mdp, features=features, l2=0.01)
    scores = cross_val_score(model, recorded, cv=KFold(4), error_score="raise")
    for (train, test), score in zip(KFold(4).split(recorded), scores, strict=True):
        by_hand = clone(model).fit(recorded[train]).score(recorded[test])
        assert score == by_hand and -3 < score < 0


def test_grid_search(world):
    mdp, features, _, recorded = world
    grid = {"l2": [0.0, 0.01, 100.0]}
    search = GridSearchCV(no.BehaviourModel(mdp, features=features), grid, cv=KFold(4), error_score="raise")
    search.fit(recorded)
    assert search.best_params_["l2"] < 100
    worst = search.cv_results_["mean_test_score"][2]
    np.testing.assert_allclose(worst, -np.log(2), atol=0.02)  # all that is left is the uniform policy
    assert search.score(recorded) == search.best_estimator_.score(recorded) > worst


# ---------------------------------------------------------------- the objective is flat at the fit
def objective(model, agent, recorded, features):
    """Of named numbers: mean log-likelihood per decision − l2·‖coef‖² − smoothness·Σ‖coef_{t+1} − coef_t‖²."""

    def value(at):
        coef = at["coef"]
        rewards = {
            "linear": lambda: np.einsum("saf,...f->...sa", features, coef),
            "state": lambda: np.broadcast_to(coef[..., None], (*coef.shape, A)),
            "state_action": lambda: coef,
        }
        kind = "timed choice" if model.time_varying else "choice"
        dials = {name: x for name, x in at.items() if name != "coef"}
        acting = replace(agent, reward=rewards[model.reward](), kind=kind, **dials)
        mean = log_likelihood(acting, model.horizon, recorded.state, recorded.action).sum() / recorded.num_decisions
        steps = np.diff(coef, axis=0) if model.time_varying else np.zeros(1)
        return mean - model.l2 * (coef**2).sum() - model.smoothness * (steps**2).sum()

    return value


def slopes(function, at):
    """{name: gradient} by finite differences."""
    zero = {name: np.zeros(np.shape(x)) for name, x in at.items()}
    found = {name: np.zeros(np.shape(x)) for name, x in at.items()}
    for name, x in at.items():
        for i in np.ndindex(np.shape(x)):
            unit = np.zeros(np.shape(x))
            unit[i] = 1
            found[name][i] = derivative(function, at, zero | {name: unit})
    return found


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(l2=0.02),
        dict(l2=0.02, horizon=T),
        dict(l2=0.02, horizon="episode", optimism=1.0, discount=1.0),
        dict(l2=0.02, horizon=T, optimism=-0.5, temperature=0.7, prior=np.full((S, A), 0.5)),
        dict(reward="state", l2=0.02),
        dict(reward="state_action", l2=0.02, discount=0.5),
        TIMED,
        TIMED | dict(reward="state_action", horizon="episode"),
        TIMED | dict(reward="state", l2=0.005, smoothness=0.0),
    ],
    ids=lambda settings: "-".join(f"{k}" for k in settings) or "plain",
)
def test_the_objective_is_flat_at_the_fit(world, settings):
    mdp, features, agent, recorded = world
    model = no.BehaviourModel(mdp, features=features if settings.get("reward", "linear") == "linear" else None)
    model = model.set_params(**settings).fit(recorded)
    assert model.converged_
    dials = dict(discount=model.discount_, temperature=model.temperature_, optimism=model.optimism_)
    assert dials == {"discount": 0.8, "temperature": 1.0, "optimism": 0.0} | {
        k: settings.get(k, dials[k]) for k in dials
    }
    prior = np.log(settings["prior"]) if "prior" in settings else agent.log_prior
    found = objective(model, replace(agent, log_prior=prior, **dials), recorded, features)
    coef = np.asarray(model.coef_)
    shape = {"linear": (F,), "state": (S,), "state_action": (S, A)}[model.reward]
    assert coef.shape == ((T, *shape) if model.time_varying else shape)
    assert np.abs(slopes(found, {"coef": coef})["coef"]).max() < 1e-6
    rng = np.random.default_rng(0)
    for _ in range(5):  # and not flat at the bottom
        assert found({"coef": coef + 0.3 * rng.normal(size=coef.shape)}) < found({"coef": coef})


@pytest.mark.parametrize("name", ["temperature", "optimism", "discount"])
def test_a_fitted_dial_is_where_the_objective_is_flat(world, name):
    """With the reward known, so that the dial is identified; costs, so that every optimism has a finite value."""
    mdp, features, agent, _ = world
    rng = np.random.default_rng(1)
    dial = {"temperature": 1.5, "optimism": 0.7, "discount": 0.6}[name]
    truth = replace(agent, reward=-rng.uniform(1, 4, (S, A)), **{name: dial})
    chance = [np.exp(float(log_policy(truth, None, 0, s)[1])) for s in range(S)]
    states = np.repeat(np.arange(S), 1000)[:, None]
    actions = np.concatenate([np.arange(1000) < round(1000 * p) for p in chance]).astype(int)[:, None]
    recorded = no.Trajectories(np.append(states, np.full_like(states, -1), axis=1), actions)
    own = no.MDP.from_arrays(agent.transition, truth.reward, discount=0.8)
    model = no.BehaviourModel(own, reward="model", **{name: "fit"}).fit(recorded)
    assert model.converged_
    value = lambda at: log_likelihood(replace(truth, **at), None, recorded.state, recorded.action).mean()
    at = {name: np.asarray(getattr(model, f"{name}_"), float)}
    assert abs(at[name] - dial) < 0.1
    assert abs(slopes(value, at)[name]) < 1e-6
    np.testing.assert_allclose(model.log_likelihood_ / 4000, float(value(at)), rtol=1e-9)


def test_a_reward_and_its_temperature_are_one_scale(world):
    mdp, features, _, recorded = world
    fit = lambda t: no.BehaviourModel(mdp, features=features, temperature=t).fit(recorded)
    one, two = fit(1.0), fit(2.0)
    np.testing.assert_allclose(two.coef_, 2 * one.coef_, rtol=1e-5)
    np.testing.assert_allclose(two.stderr_, 2 * np.asarray(one.stderr_), rtol=1e-4)
    np.testing.assert_allclose(two.log_likelihood_, one.log_likelihood_, rtol=1e-9)
    np.testing.assert_allclose(two.policy_, one.policy_, rtol=1e-5)


# ---------------------------------------------------------------- other rewards
def test_features_of_states_and_of_branches_agree(world):
    mdp, _, _, recorded = world
    features = np.random.default_rng(2).normal(size=(S, F))
    shapes = [features, np.broadcast_to(features[:, None, None], (S, A, S, F))]
    fits = [no.BehaviourModel(mdp, features=x, l2=0.01).fit(recorded) for x in shapes]
    np.testing.assert_allclose(fits[1].coef_, fits[0].coef_, rtol=1e-6, atol=1e-8)


def test_a_function_and_a_module_are_rewards(world, fitted):
    mdp, features, _, recorded = world
    function = lambda coef, features: features @ coef
    model = no.BehaviourModel(mdp, reward=function, features=features, l2=0.01).fit(recorded)
    np.testing.assert_allclose(model.coef_, fitted.coef_, rtol=1e-5)
    np.testing.assert_allclose(model.reward_, fitted.reward_, rtol=1e-5)
    module = eqx.nn.Linear(F, "scalar", use_bias=False, key=jax.random.key(0))
    before = np.array(module.weight)
    model = no.BehaviourModel(mdp, reward=module, features=features, l2=0.01).fit(recorded)
    np.testing.assert_allclose(model.reward_, fitted.reward_, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(module.weight, before)


def test_what_cannot_be_told_is_said(world, fitted):
    """A feature that is the same everywhere changes nothing that an agent does for ever."""
    mdp, features, _, recorded = world
    same = np.concatenate([features, np.ones((S, A, 1))], axis=2)
    model = no.BehaviourModel(mdp, features=same, l2=0.0).fit(recorded)
    assert np.all(fitted.identifiable_) and not np.all(model.identifiable_)
