"""Draws from posteriors, against integrals on a grid, Laplace's approximation, and simulation-based calibration.

The oracle is `benchmarks/calibration_nuts.py`: agents in plain NumPy, which share nothing with the package.
"""

import importlib
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from numpyro.diagnostics import effective_sample_size
from numpyro.infer.util import ParamInfo

import nearopt as no
from benchmarks.calibration_nuts import CASES, WARMUP, Case, Ranks, calibrate, chi_square, replicate, simulate
from nearopt.behaviour import posterior
from nearopt.behaviour.posterior import (
    CHUNK,
    SampleWarning,
    Settings,
    Target,
    advance,
    begin,
    doubts,
    energy,
    explore,
    make_target,
    parameters,
)

COEFFICIENTS, DIALS = CASES[:2]  # two parameters each: of an infinite horizon; τ and κ of a finite one
TRUTH = {COEFFICIENTS.name: np.array([1.0, -0.5]), DIALS.name: np.array([-0.3, 0.8])}


def record(case: Case, lengths: tuple[int, ...] = (6,) * 12, seed: int = 0) -> no.Trajectories:
    policy = case.agents(TRUTH[case.name][None]).policy(case.span)[0]
    return simulate(np.random.default_rng(seed), case.world, policy, np.array(lengths))


def draws_of(case: Case, recorded: no.Trajectories, num_samples: int = 1000, **settings) -> xarray.DataTree:
    model = case.model().fit(recorded)
    return model.sample(num_samples, num_warmup=WARMUP, **({"priors": case.priors} | settings))


@pytest.fixture(scope="module")
def tree() -> xarray.DataTree:
    return draws_of(COEFFICIENTS, record(COEFFICIENTS))


# ---------------------------------------------------------------- integrals on a grid
def on_grid(case: Case, recorded: no.Trajectories, axes: list[np.ndarray]) -> np.ndarray:
    """The density of θ on the grid of two axes, summing to 1."""
    theta = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    policy = case.agents(theta).policy(case.span)
    state, action = recorded.state[:, :-1], recorded.action
    time = np.broadcast_to(np.arange(action.shape[1]), action.shape) % policy.shape[1]
    known = action >= 0
    log = np.log(policy[:, time[known], state[known], action[known]]).sum(axis=1)
    prior = np.array([case.priors[name] for name in (["coef"] * 2 if not case.reward else ["temperature", "optimism"])])
    log -= 0.5 * (((theta - prior[:, 0]) / prior[:, 1]) ** 2).sum(axis=1)
    density = np.exp(log - log.max()).reshape(len(axes[0]), len(axes[1]))
    return density / density.sum()


def compare(x: np.ndarray, axis: np.ndarray, mass: np.ndarray) -> None:
    """Draws (chain, draw) against a marginal on a regular grid: mean, deviation, quantiles, up to chance."""
    mean = axis @ mass
    deviation = np.sqrt((axis - mean) ** 2 @ mass)
    size = float(effective_sample_size(x))
    assert size > 200
    assert abs(x.mean() - mean) < 4 * deviation / np.sqrt(size)
    kurtosis = (axis - mean) ** 4 @ mass / deviation**4
    assert abs(x.var() / deviation**2 - 1) < 4 * np.sqrt((kurtosis - 1) / size) * 1.5  # squares mix more slowly
    cumulative = np.cumsum(mass) - mass / 2
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert abs(np.interp(np.quantile(x, p), axis, cumulative) - p) < 4 * np.sqrt(p * (1 - p) / size) * 1.5 + 0.005


def test_coefficients_of_an_infinite_horizon_follow_the_integral(tree):
    axes = [np.linspace(-1, 3, 61), np.linspace(-2, 1.5, 61)]
    density = on_grid(COEFFICIENTS, record(COEFFICIENTS), axes)
    assert max(density[0].max(), density[-1].max(), density[:, 0].max(), density[:, -1].max()) < 1e-6  # all is inside
    coef = tree["posterior"]["coef"].to_numpy()
    compare(coef[..., 0], axes[0], density.sum(1))
    compare(coef[..., 1], axes[1], density.sum(0))


@pytest.mark.filterwarnings("ignore::nearopt.behaviour.estimator.FitWarning")  # the likelihood has no maximum
def test_a_prior_makes_a_posterior_of_a_likelihood_without_maximum():
    policy = COEFFICIENTS.agents(TRUTH[COEFFICIENTS.name][None]).policy(None)[0]
    best = np.eye(3)[policy.argmax(axis=-1)]  # the likelier action, always
    recorded = simulate(np.random.default_rng(0), COEFFICIENTS.world, best, np.full(12, 6))
    axes = [np.linspace(-1, 8, 81), np.linspace(-6, 3, 81)]
    density = on_grid(COEFFICIENTS, recorded, axes)
    coef = draws_of(COEFFICIENTS, recorded)["posterior"]["coef"].to_numpy()
    compare(coef[..., 0], axes[0], density.sum(1))
    compare(coef[..., 1], axes[1], density.sum(0))


def test_temperature_and_optimism_of_a_finite_horizon_follow_the_integral():
    recorded = record(DIALS)
    fit = DIALS.model().fit(recorded).fit_
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 2)
        part = explore(fit, make_target(fit, DIALS.priors), Settings(WARMUP, 0.8), 1500, keys).part
    axes = [np.linspace(-2.6, 2.4, 80), np.linspace(-4.03, 4.01, 80)]  # κ = 0 is not on it
    density = on_grid(DIALS, recorded, axes)
    assert max(density[0].max(), density[-1].max(), density[:, 0].max(), density[:, -1].max()) < 1e-5
    compare(part[..., 0], axes[0], density.sum(1))
    compare(part[..., 1], axes[1], density.sum(0))


class CutOff(NamedTuple):
    """A standard normal in two dimensions, NaN with its gradient where the first coordinate is above the edge."""

    edge: Any

    def potential(self, part):
        energy = 0.5 * part @ part + 0.0 * jnp.sqrt(self.edge - part[0])
        return jnp.where(jnp.isnan(energy), jnp.inf, energy)


def test_a_density_that_ends_at_an_edge_is_sampled_up_to_it():
    with jax.enable_x64(True):
        target, settings, parts = CutOff(jnp.asarray(0.3)), Settings(WARMUP, 0.8), []
        point = ParamInfo(*map(jnp.asarray, (np.zeros(2), 0.0, np.zeros(2))))
        state = begin(jax.random.key(0), point, jnp.eye(2), target, settings)
        for _ in range(0, WARMUP + 4000, CHUNK):
            state, draws = advance(state, target, settings)
            parts.append(np.asarray(draws.part))
    x = np.concatenate(parts)[None, WARMUP:]
    assert x[..., 0].max() < 0.3
    axis = np.linspace(-5, 0.3, 500)
    compare(x[..., 0], axis, np.exp(-(axis**2) / 2) / np.exp(-(axis**2) / 2).sum())
    axis = np.linspace(-5, 5, 500)
    compare(x[..., 1], axis, np.exp(-(axis**2) / 2) / np.exp(-(axis**2) / 2).sum())


def test_where_the_agent_has_no_value_the_density_is_zero():
    model = COEFFICIENTS.model().fit(record(COEFFICIENTS))
    with jax.enable_x64(True):
        target = make_target(model.fit_, COEFFICIENTS.priors)
        potential = eqx.filter_jit(Target.potential)
        for theta in np.random.default_rng(0).normal(size=(3, 2)):
            np.testing.assert_allclose(potential(target, jnp.asarray(theta)), energy(theta, model.fit_, target)[0])
        nowhere = np.array([1e150, 1e150])
        assert potential(target, jnp.asarray(nowhere)) == energy(nowhere, model.fit_, target)[0] == np.inf


def test_much_data_make_it_laplaces_approximation():
    case = Case(COEFFICIENTS.name, {"l2": 1e-4}, {})
    recorded = record(case, (6,) * 800)
    model = case.model().fit(recorded)
    found = model.sample(num_warmup=WARMUP)["posterior"]["coef"]
    np.testing.assert_allclose(found.std(("chain", "draw")), model.stderr_, rtol=0.08)
    assert (np.abs(found.mean(("chain", "draw")) - model.coef_) < 0.15 * model.stderr_).all()


# ---------------------------------------------------------------- calibration
@pytest.mark.parametrize(("case", "replications"), [(COEFFICIENTS, 40), (DIALS, 16)], ids=["coef", "dials"])
def test_ranks_of_the_truth_are_uniform(case, replications):
    ranks = np.array(calibrate(case, replications).rank)
    assert ranks.shape == (replications, 3)
    assert all(chi_square(rank, bins=4) > 1e-3 for rank in ranks.T)


def test_ranks_under_another_agent_are_not():
    """Behaviour of agents with larger coefficients, taken for that of others."""
    theta, found = COEFFICIENTS.draw(np.random.default_rng(0), 20), Ranks()
    policy = COEFFICIENTS.agents(theta + 0.7).policy(None)
    for i in range(20):
        replicate(COEFFICIENTS, theta[i], policy[i], i, found)
    assert all(chi_square(rank, bins=4) < 1e-3 for rank in np.array(found.rank).T)


# ---------------------------------------------------------------- what comes back
def test_the_groups_are_those_of_arviz(tree):
    assert set(tree.children) == {"posterior", "sample_stats", "log_likelihood", "observed_data"}
    assert dict(tree["posterior"].sizes) == {"chain": 2, "draw": 1000, "feature": 2}
    stats = tree["sample_stats"].to_dataset()
    assert set(stats) == {
        *("lp", "energy", "diverging", "acceptance_rate", "n_steps", "tree_depth", "step_size"),
    }
    assert stats["diverging"].dtype == bool and (stats["tree_depth"] >= 1).all()
    assert tree["posterior"]["coef"].dtype == np.float64
    assert tree.attrs["inference_library"] == "numpyro" and tree.attrs["priors"] == '{"coef": [0.0, 1.0]}'


def test_log_likelihoods_and_priors_add_up_to_the_density(tree):
    """Per trajectory, from the oracle; and the sampler's own log density."""
    recorded, logs = record(COEFFICIENTS), tree["log_likelihood"]["log_likelihood"]
    assert logs.dims == ("chain", "draw", "episode") and logs.sizes["episode"] == 12
    coef = tree["posterior"]["coef"].to_numpy()
    policy = COEFFICIENTS.agents(coef[0, :5]).policy(None)[:, 0]
    expected = np.log(policy[:, recorded.state[:, :-1], recorded.action]).sum(axis=2)
    np.testing.assert_allclose(logs[0, :5], expected, atol=1e-7)
    density = logs.sum("episode") - 0.5 * (coef**2).sum(axis=2)
    np.testing.assert_allclose(tree["sample_stats"]["lp"], density, atol=1e-9)


def test_the_recorded_decisions_come_back(tree):
    recorded, seen = record(COEFFICIENTS), tree["observed_data"].to_dataset()
    counts = np.zeros((12, 4, 3), int)
    episode, state, action, count = (seen[name].to_numpy() for name in ("episode", "state", "action", "count"))
    np.add.at(counts, (episode, state, action), count)
    expected = np.zeros_like(counts)
    np.add.at(expected, (np.arange(12)[:, None], recorded.state[:, :-1], recorded.action), 1)
    np.testing.assert_array_equal(counts, expected)


def test_other_data_compile_nothing_and_seeds_repeat(monkeypatch, tree):
    def compiles(*_):
        raise AssertionError("traced again")

    monkeypatch.setattr(Target, "potential", compiles)
    again = draws_of(COEFFICIENTS, record(COEFFICIENTS))
    assert again["posterior"].to_dataset().identical(tree["posterior"].to_dataset())
    other = draws_of(COEFFICIENTS, record(COEFFICIENTS, (5,) * 20, seed=1), seed=1)
    assert not other["posterior"]["coef"].equals(tree["posterior"]["coef"])
    assert not jax.config.jax_enable_x64 and jnp.zeros(1).dtype == jnp.float32  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "dims"),
    [
        (dict(reward="state"), {"coef": ("state",)}),
        (dict(reward="state_action", prior="fit"), {"coef": ("state", "action"), "log_prior": ("action",)}),
        (dict(reward="maps", features=2, horizon=3), {"coef": ("time", "map"), "maps": ("map", "state")}),
        (dict(features=np.ones((4, 2)), horizon=3, time_varying=True), {"coef": ("time", "feature")}),
        (dict(features=np.ones((4, 2)), temperature="fit"), {"coef": ("feature",), "temperature": ()}),
        (dict(reward="model", optimism="fit", discount="fit"), {"optimism": (), "discount": ()}),
        (dict(reward=lambda c, f: f @ c, features=np.ones((4, 2))), {"coef": ("coefficient",)}),
    ],
)
def test_parameters_have_their_names_and_axes(settings, dims):
    model = no.BehaviourModel(COEFFICIENTS.model().mdp, **settings)
    with jax.enable_x64(True):
        family = model.family(settings.get("horizon"))
        thetas = np.random.default_rng(0).normal(size=(2, 5, len(family.start)))
        found = parameters(SimpleNamespace(fit_=SimpleNamespace(family=family)), thetas)
        one = np.asarray(family.public(jnp.asarray(thetas[1, 3])))
    assert {name: tuple(axes) for name, (axes, _) in found.items()} == dims
    parts = [
        found[name][1][1, 3].ravel()
        for name in ("maps", "coef", *(n for n in found if n not in ("maps", "coef")))
        if name in found
    ]
    np.testing.assert_allclose(np.concatenate(parts), one)


# ---------------------------------------------------------------- words
def test_chains_that_disagree_are_named():
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(2, 400, 2)) + np.array([[[0, 0]], [[0, 3]]])
    table = xarray.Dataset(
        {"coef": (["chain", "draw", "feature"], apart), "one": (["chain", "draw"], np.ones((2, 400)))}
    )
    said = doubts(table, np.arange(800).reshape(2, 400) < 3)
    assert (
        "3 of 800 draws diverged; r-hat is above 1.01 for coef[1] (" in said and "effective draws of coef[1] (" in said
    )
    assert "coef[0]" not in said and "one" not in said
    assert doubts(table.isel(feature=[0]), np.zeros((2, 400), bool)) == ""


def test_too_few_draws_are_warned_of():
    with pytest.warns(SampleWarning, match="have not explored the posterior: .*fewer than 100 effective draws of coef"):
        draws_of(COEFFICIENTS, record(COEFFICIENTS), 50, num_chains=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(priors={"optimism": (0, 1)}),
            "priors names 'optimism', which is not sampled here; give priors of 'coef'",
        ),
        (dict(priors={"coef": 3}), "the prior of coef is 3; give a mean and a standard deviation"),
        (dict(priors={"coef": (0, "wide")}), "the prior of coef is 'wide'"),
        (dict(priors={"coef": (0, 0)}), "the prior of coef has standard deviation 0"),
        (dict(num_chains=0), "num_chains is 0; give a whole number of at least 1"),
        (dict(num_samples=2.5), "num_samples is 2.5"),
        (dict(seed=-1), "seed is -1"),
        (dict(target_accept=1), "target_accept is 1; give a number between 0 and 1"),
    ],
)
def test_mistakes_are_named(settings, message):
    model = COEFFICIENTS.model().fit(record(COEFFICIENTS))
    with pytest.raises(no.NearoptError) as error:
        model.sample(**settings)
    assert message in str(error.value)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    monkeypatch.delitem(sys.modules, posterior.__name__)
    with pytest.raises(no.NearoptError, match=r'pip install "nearopt\[nuts\]"'):
        importlib.import_module(posterior.__name__)
