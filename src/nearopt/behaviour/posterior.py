"""The full posterior of a fitted `BehaviourModel`, by NUTS (Hoffman & Gelman 2014; Betancourt 2017).

    log p(θ | data) = Σ log π_θ(a|s) − N (l2 ‖c‖² + smoothness Σ (c_i − c_j)²) − Σ ((θ_i − m_i)/σ_i)²/2     N decisions

θ is what a fit searches, see `family.py`: the priors are densities over coefficients, log τ, κ, logit γ and log priors.
The penalties are a prior as well, the one whose Laplace approximation `uncertainty.py` takes. Where an agent has no
finite value the density is 0.
"""

import json
import warnings
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax import lax
from jaxtyping import Array, Float, Int

from nearopt.backup import is_zero
from nearopt.behaviour.decisions import Decisions
from nearopt.behaviour.estimator import BehaviourModel, log_likelihoods
from nearopt.behaviour.family import Family
from nearopt.behaviour.optimise import FEW, Data, Penalties, objective, value_and_gradient
from nearopt.behaviour.uncertainty import FLAT, Fit
from nearopt.checks import number
from nearopt.mdp.errors import ArgumentError, CountError, MissingExtraError, NoSolutionError, TemperatureError

if find_spec("numpyro") is None or find_spec("xarray") is None:
    raise MissingExtraError(
        "the posterior needs numpyro and xarray, which are not installed", 'pip install "nearopt[nuts]"'
    )

import numpyro
import xarray
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo
from tqdm import tqdm

PRIORS = {  # (mean, standard deviation) of normal priors, on the scale of θ
    "coef": (0.0, 10.0),  # in units of reward; where the temperature is fitted with it, of coef / temperature
    "temperature": (0.0, 1.5),  # log τ
    "optimism": (0.0, 2.0),
    "discount": (2.0, 2.0),  # logit γ
    "log_prior": (0.0, 2.0),  # log p(a) − log p(0)
}
DIMENSIONS = {"linear": ["feature"], "state": ["state"], "state_action": ["state", "action"], "network": ["weight"]}
CHUNK = 100  # steps of a chain between two signs of life
RHAT = 1.01  # Vehtari et al. (2021): a chain is trusted with r-hat up to this,
DRAWS = 100  # and from as many effective draws per chain


class SampleWarning(UserWarning):
    """Chains that have not explored the posterior."""


class Target(NamedTuple):
    """The posterior of the parameters that were fitted; the others stand where they are."""

    family: Family
    data: Data
    penalties: Penalties
    whole: Float[Array, " Q"]
    free: Int[Array, " D"]  # which are sampled
    mean: Float[Array, " Q"]
    scale: Float[Array, " Q"]  # of normal priors; inf: none

    def potential(self, part: Float[Array, " D"]) -> Float[Array, ""]:
        """Minus the log density of what is free, up to a constant; +inf where the agent has no finite value."""
        theta, guess = self.whole.at[self.free].set(part), jnp.zeros(self.family.blocks.size)
        loss, _ = objective(theta, self.family, self.data, self.penalties, guess)
        energy = jnp.sum(self.data.count) * loss + 0.5 * jnp.sum(((theta - self.mean) / self.scale) ** 2)
        return jnp.where(jnp.isnan(energy), jnp.inf, energy)


class Settings(NamedTuple):
    num_warmup: int
    target_accept: float
    dense: bool = True  # whether the metric is a full matrix

    def kernel(self, target: Target) -> tuple:
        """numpyro's NUTS: init(point, ...) and step(state)."""
        init, step = hmc(target.potential, algo="NUTS")
        options = dict(target_accept_prob=self.target_accept, dense_mass=self.dense, trajectory_length=None)
        return partial(init, num_warmup=self.num_warmup, **options), step


class Draw(NamedTuple):
    """A state of a chain, by ArviZ's names; `part` is θ where it is free."""

    part: Any
    lp: Any
    energy: Any
    diverging: Any
    acceptance_rate: Any
    n_steps: Any
    step_size: Any


# ---------------------------------------------------------------- chains
@eqx.filter_jit
def begin(key: Any, point: ParamInfo, metric: Array, target: Target, settings: Settings) -> Any:
    """The first state of a chain."""
    return settings.kernel(target)[0](point, inverse_mass_matrix=metric, rng_key=key)


@eqx.filter_jit
def advance(state: Any, target: Target, settings: Settings) -> tuple[Any, Draw]:
    """The state after `CHUNK` steps, and the draws on the way. Data of one shape share one compilation."""
    init, step = settings.kernel(target)
    init(ParamInfo(state.z, state.potential_energy, state.z_grad))  # numpyro's `step` learns its settings here

    def one(state: Any, _: None) -> tuple[Any, Draw]:
        state = step(state)
        lp, size = -state.potential_energy, state.adapt_state.step_size
        return state, Draw(state.z, lp, state.energy, state.diverging, state.accept_prob, state.num_steps, size)

    return lax.scan(one, state, length=CHUNK)


def explore(fit: Fit, target: Target, settings: Settings, num_samples: int, keys: Any, bar: Any = None) -> Draw:
    """A chain per key without its warm-up, as NumPy arrays (chain, draw, ...). Call it under 64-bit JAX."""
    top = mode(fit, target)
    metric, chains, total = metric_at(top, fit, target), [], settings.num_warmup + num_samples
    settings = settings._replace(dense=metric.ndim == 2)
    for key in keys:
        point, parts = start(top, metric, fit, target, key), []
        state = begin(key, point, jnp.asarray(metric), target, settings)
        for done in range(0, total, CHUNK):
            state, draws = advance(state, target, settings)
            parts.append(jax.device_get(draws))
            _ = bar and bar.update(min(CHUNK, total - done))
        chains.append([np.concatenate(x)[settings.num_warmup : total] for x in zip(*parts, strict=True)])
    return Draw(*map(np.stack, zip(*chains, strict=True)))


# ---------------------------------------------------------------- where chains begin
def energy(part: np.ndarray, fit: Fit, target: Target) -> tuple[float, np.ndarray]:
    """`Target.potential` and its slope, by the functions of `optimise`, which the fit has compiled."""
    theta = target.whole.at[target.free].set(part)
    guess = jnp.zeros(fit.family.blocks.size)
    (loss, _), slope = value_and_gradient(theta, fit.family, fit.data, fit.penalties, guess)
    away = np.asarray((theta - target.mean) / target.scale)
    slope = fit.decisions.total * np.asarray(slope) + away / np.asarray(target.scale)
    value = fit.decisions.total * float(loss) + 0.5 * float(away @ away)
    known = np.isfinite(value) and np.isfinite(slope).all()
    return (value, slope[target.free]) if known else (np.inf, np.zeros_like(part))


def mode(fit: Fit, target: Target) -> np.ndarray:
    """The highest density, looked for from the optimum of the fit, or from the middle of the priors where that is more
    likely: a likelihood without a maximum leads a fit astray. Raises `NoSolutionError`.
    """
    middle = np.where(np.isfinite(target.scale), target.mean, fit.theta)
    first = min((fit.theta[fit.free], middle[fit.free]), key=lambda part: energy(part, fit, target)[0])
    if not np.isfinite(energy(first, fit, target)[0]):
        mend = "check converged_, set a discount below 1, or a finite horizon"
        raise NoSolutionError("the agent at the optimum of the fit has no finite value", mend)
    found = scipy.optimize.minimize(energy, first, (fit, target), method="L-BFGS-B", jac=True)
    return found.x if np.isfinite(energy(found.x, fit, target)[0]) else first


def metric_at(part: np.ndarray, fit: Fit, target: Target) -> np.ndarray:
    """The inverse of the curvature, (D, D); for many parameters, and where there is none, ones."""
    if len(fit.theta) > FEW:
        return np.ones(len(part))
    second = fit.curvature(target.whole.at[target.free].set(part))
    second = (second + np.diag(np.asarray(target.scale) ** -2.0))[np.ix_(fit.free, fit.free)]
    if not np.isfinite(second).all():
        return np.eye(len(part))
    values, vectors = np.linalg.eigh(second)
    return (vectors / np.maximum(np.abs(values), FLAT * np.abs(values).max())) @ vectors.T


def start(top: np.ndarray, metric: np.ndarray, fit: Fit, target: Target, key: Any) -> ParamInfo:
    """The mode, moved by a draw of its Laplace approximation where there is one, so that chains begin apart."""
    part = top
    if metric.ndim == 2:
        part = top + np.linalg.cholesky(metric) @ np.asarray(jax.random.normal(jax.random.fold_in(key, 0), top.shape))
    part = part if np.isfinite(energy(part, fit, target)[0]) else top
    return ParamInfo(*map(jnp.asarray, (part, *energy(part, fit, target))))


# ---------------------------------------------------------------- what is sampled
def make_target(fit: Fit, priors: Mapping[str, Any] | None) -> Target:
    """The posterior of a fit. Raises `ArgumentError`, `TemperatureError`."""
    if is_zero(fit.family.temperature):
        raise TemperatureError("the temperature is 0, of which there is no gradient", "fit with a temperature above 0")
    if not fit.free.any():
        raise ArgumentError("nothing was fitted, so there is nothing to sample", 'set a dial to "fit"')
    mean, scale = np.array([normal for _, normal in normals(fit, priors)]).T
    arrays = (fit.theta, np.flatnonzero(fit.free), mean, scale)
    return Target(fit.family, fit.data, fit.penalties, *map(jnp.asarray, arrays))


def normals(fit: Fit, priors: Mapping[str, Any] | None) -> list[tuple[str, tuple[float, float]]]:
    """Name and normal prior of every entry of θ; of infinite width where the penalties are all. See `sample`."""
    names = ["coef"] * fit.family.reward.size
    names += ["log_prior" if name.startswith("log prior") else name for name in fit.family.dials]
    given = dict(priors or {})
    default = PRIORS | ({"coef": (0.0, np.inf)} if float(fit.penalties.l2) > 0 else {})
    for name, prior in given.items():
        if name not in names:
            known = ", ".join(map(repr, dict.fromkeys(names)))
            raise ArgumentError(f"priors names {name!r}, which is not sampled here", f"give priors of {known}")
        if not isinstance(prior, (tuple, list)) or len(prior) != 2:
            raise ArgumentError(f"the prior of {name} is {prior!r}", "give a mean and a standard deviation")
        given[name] = tuple(number(x, ArgumentError, f"prior of {name}") for x in prior)
        if given[name][1] <= 0:
            raise ArgumentError(f"the prior of {name} has standard deviation {given[name][1]:g}", "give one above 0")
    return [(name, (default | given)[name]) for name in names]


def check_count(value: Any, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise CountError(f"{name} is {value!r}", f"give a whole number of at least {least}")


# ---------------------------------------------------------------- draws as a tree of datasets
@eqx.filter_jit
def published(family: Family, thetas: Float[Array, "m Q"]) -> Float[Array, "m R"]:
    """What a user reads of every θ."""
    return jax.vmap(family.public)(thetas)


def parameters(model: BehaviourModel, thetas: np.ndarray) -> dict[str, tuple[list[str], np.ndarray]]:
    """Name → dimensions and draws (chain, draw, ...) of the public parameters."""
    family = model.fit_.family
    reward, lead = family.reward, thetas.shape[:2]
    public = np.asarray(published(family, jnp.asarray(thetas.reshape(-1, thetas.shape[-1])))).reshape(*lead, -1)
    coef, dials = np.split(public, [reward.size], axis=-1)
    out: dict[str, tuple[list[str], np.ndarray]] = {}
    if reward.size:
        kind = reward.kind if isinstance(reward.kind, str) else ""
        names = ["map"] if kind == "maps" else DIMENSIONS.get(kind, ["coefficient"])
        cut = reward.size - int(np.prod(reward.shape))
        out["coef"] = (["time"] * reward.time_varying + names, coef[..., cut:].reshape(*lead, *reward.shape))
        if cut:
            out["maps"] = (["map", "state"], coef[..., :cut].reshape(*lead, reward.shape[1], -1))
    plain = [name for name in family.public_names if not name.startswith("log prior")]
    out |= {name: ([], dials[..., i]) for i, name in enumerate(plain)}
    return out | ({"log_prior": (["action"], dials[..., len(plain) :])} if family.fit_prior else {})


def observed(decisions: Decisions, slot: np.ndarray) -> xarray.Dataset:
    """The recorded decisions, equal ones of an episode counted together."""
    choice = decisions.cell.reshape(-1)[decisions.place]
    public = np.full((slot.max() + 1, 2), -1)
    public[slot.reshape(-1)] = np.indices(slot.shape).reshape(2, -1).T
    columns = dict(episode=decisions.row, state=public[choice, 0], action=public[choice, 1], count=decisions.count)
    return xarray.Dataset({name: ("decision", column.astype(int)) for name, column in columns.items()})


def doubts(posterior: xarray.Dataset, diverging: np.ndarray) -> str:
    """What is wrong with the chains, in words."""
    said = [f"{int(diverging.sum()):,} of {diverging.size:,} draws diverged"] if diverging.any() else []
    varies = {}
    for name, values in posterior.data_vars.items():
        for index in np.ndindex(values.shape[2:]):
            x = values.values[(..., *index)]
            if np.ptp(x) > 0:  # a coefficient alone may have length 1 throughout
                varies[f"{name}{list(index) if index else ''}"] = x
    rhat = {name: float(split_gelman_rubin(x)) for name, x in varies.items()}
    draws = {name: float(effective_sample_size(x)) for name, x in varies.items()}
    few = DRAWS * len(diverging)
    for words, found in (
        (f"r-hat is above {RHAT} for", {k: f"{v:.3g}" for k, v in rhat.items() if not v <= RHAT}),
        (f"fewer than {few} effective draws of", {k: f"{v:.0f}" for k, v in draws.items() if not v >= few}),
    ):
        some = ", ".join(f"{k} ({v})" for k, v in list(found.items())[:4])
        said += [f"{words} {some}" + (f" and {len(found) - 4} more" if len(found) > 4 else "")] if found else []
    return "; ".join(said)


def sample(
    model: BehaviourModel,
    num_samples: int = 1000,
    *,
    num_warmup: int = 1000,
    num_chains: int = 2,
    seed: int = 0,
    priors: Mapping[str, tuple[float, float]] | None = None,
    target_accept: float = 0.8,
    progress: bool = False,
) -> xarray.DataTree:
    """See `BehaviourModel.sample`."""
    for name, value, least in (
        ("num_samples", num_samples, 4),
        ("num_warmup", num_warmup, 1),
        ("num_chains", num_chains, 1),
        ("seed", seed, 0),
    ):
        check_count(value, name, least)
    if not 0 < number(target_accept, ArgumentError, "target_accept") < 1:
        raise ArgumentError(f"target_accept is {target_accept:g}", "give a number between 0 and 1")
    fit = model.fit_
    with jax.enable_x64(True), tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        target = make_target(fit, priors)
        keys = jax.random.split(jax.random.key(seed % 2**63), num_chains)
        draws = explore(fit, target, Settings(int(num_warmup), float(target_accept)), int(num_samples), keys, bar)
        thetas = np.tile(fit.theta, (*draws.lp.shape, 1))
        thetas[..., fit.free] = draws.part
        each = [[log_likelihoods(fit.family, theta, fit.decisions) for theta in chain] for chain in thetas]
        tree = as_tree(model, parameters(model, thetas), draws, np.array(each))
    used = {name: prior for name, prior in normals(fit, priors) if np.isfinite(prior[1])}
    tree.attrs |= dict(tuning_steps=int(num_warmup), seed=int(seed), priors=json.dumps(used))
    if words := doubts(tree["posterior"].to_dataset(), draws.diverging):
        mend = "draw more, raise target_accept, or give narrower priors or penalties"
        warnings.warn(f"the chains have not explored the posterior: {words}; {mend}", SampleWarning, stacklevel=3)
    return tree


def as_tree(
    model: BehaviourModel, found: dict[str, tuple[list[str], np.ndarray]], draws: Draw, each: np.ndarray
) -> xarray.DataTree:
    """The groups of ArviZ: posterior, sample_stats, log_likelihood, observed_data."""
    from nearopt import __version__

    axes = ["chain", "draw"]
    index = {axis: np.arange(size) for axis, size in zip(axes, draws.lp.shape, strict=True)}
    posterior = xarray.Dataset({name: ([*axes, *dims], x) for name, (dims, x) in found.items()}, index)
    for axis, names in (("state", model.mdp.state_names), ("action", model.mdp.action_names)):
        if names is not None and axis in posterior.dims:
            posterior = posterior.assign_coords({axis: [str(name) for name in names]})
    stats = {name: (axes, x) for name, x in draws._asdict().items() if name != "part"}
    stats["tree_depth"] = (axes, np.log2(draws.n_steps).astype(int) + 1)
    groups = {
        "posterior": posterior,
        "sample_stats": xarray.Dataset(stats, index),
        "log_likelihood": xarray.Dataset({"log_likelihood": ([*axes, "episode"], each)}, index),
        "observed_data": observed(model.fit_.decisions, np.asarray(model.fit_.family.blocks.slot)),
    }
    tree = xarray.DataTree.from_dict(groups)
    versions = dict(inference_library="numpyro", inference_library_version=numpyro.__version__)
    tree.attrs = versions | dict(creation_library="nearopt", creation_library_version=__version__, jax=jax.__version__)
    return tree
