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
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from nearopt.backup import is_zero
from nearopt.behaviour.decisions import Decisions, num_choices
from nearopt.behaviour.family import Family, explain
from nearopt.behaviour.optimise import FEW, Data, Penalties, hessian, objective, value_and_gradient
from nearopt.behaviour.uncertainty import FLAT, Fit
from nearopt.checks import number
from nearopt.mdp.blocks import power_of_two
from nearopt.mdp.errors import ArgumentError, CountError, MissingExtraError, TemperatureError

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

if TYPE_CHECKING:
    from nearopt.behaviour.estimator import BehaviourModel

PRIORS = {  # (mean, standard deviation) of normal priors, on the scale of θ
    "coef": (0.0, 10.0),  # in units of reward; where the temperature is fitted with it, of coef / temperature
    "temperature": (0.0, 1.5),  # log τ
    "optimism": (0.0, 2.0),
    "discount": (2.0, 2.0),  # logit γ
    "log_prior": (0.0, 2.0),  # log p(a) − log p(0)
}
DIMENSIONS = {"linear": ["feature"], "state": ["state"], "state_action": ["state", "action"], "network": ["weight"]}
CHUNK = 100  # steps of a chain between two looks at the clock
ROOM = 64  # cells per step that a small model always gets: other data then share compiled code
RHAT, DRAWS = (
    1.01,
    100,
)  # Vehtari et al. (2021): r-hat up to, and effective draws per chain from which, to trust a chain


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

    def prior(self, theta: Float[Array, " Q"]) -> Float[Array, ""]:
        """Minus the log density of the normal priors, up to a constant."""
        return 0.5 * jnp.sum(((theta - self.mean) / self.scale) ** 2)

    def potential(self, part: Float[Array, " D"]) -> Float[Array, ""]:
        """Minus the log density of what is free, up to a constant; +inf where the agent has no finite value."""
        theta, guess = self.whole.at[self.free].set(part), jnp.zeros(self.family.blocks.size)
        loss, _ = objective(theta, self.family, self.data, self.penalties, guess)
        energy = jnp.sum(self.data.count) * loss + self.prior(theta)
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
    metric, chains, total = metric_at(fit, target), [], settings.num_warmup + num_samples
    settings = settings._replace(dense=metric.ndim == 2)
    for key in keys:
        point, parts = start(fit, target, metric, key), []
        state = begin(key, point, jnp.asarray(metric), target, settings)
        for done in range(0, total, CHUNK):
            state, draws = advance(state, target, settings)
            parts.append(jax.device_get(draws))
            _ = bar and bar.update(min(CHUNK, total - done))
        chains.append([np.concatenate(x)[settings.num_warmup : total] for x in zip(*parts, strict=True)])
    return Draw(*map(np.stack, zip(*chains, strict=True)))


def metric_at(fit: Fit, target: Target) -> np.ndarray:
    """The inverse of the curvature at the optimum, (D, D); for many parameters ones, (D,)."""
    if len(fit.theta) > FEW:
        return np.ones(len(target.free))
    guess, free = jnp.zeros(fit.family.blocks.size), np.asarray(target.free)
    second = fit.decisions.total * np.asarray(hessian(target.whole, fit.family, fit.data, fit.penalties, guess)[0])
    values, vectors = np.linalg.eigh((second + np.diag(np.asarray(target.scale) ** -2.0))[np.ix_(free, free)])
    return (vectors / np.maximum(np.abs(values), FLAT * np.abs(values).max())) @ vectors.T


def start(fit: Fit, target: Target, metric: np.ndarray, key: Any) -> ParamInfo:
    """The optimum, moved by a draw of its Laplace approximation where that is possible, so that chains start apart."""
    free, guess = np.asarray(target.free), jnp.zeros(fit.family.blocks.size)
    root = np.linalg.cholesky(metric) if metric.ndim == 2 else 0.0 * np.diag(metric)
    away = target.whole.at[free].add(root @ jax.random.normal(jax.random.fold_in(key, 0), free.shape))
    for theta in (away, target.whole):  # by the functions of `optimise`, which the fit has compiled
        (loss, _), slope = value_and_gradient(theta, fit.family, fit.data, fit.penalties, guess)
        if np.isfinite(loss):
            break
    prior, pull = jax.value_and_grad(target.prior)(theta)
    return ParamInfo(theta[free], fit.decisions.total * loss + prior, (fit.decisions.total * slope + pull)[free])


# ---------------------------------------------------------------- what is sampled
def make_target(fit: Fit, priors: Mapping[str, Any] | None) -> Target:
    """The posterior of a fit. Raises `ArgumentError`, `TemperatureError`."""
    if is_zero(fit.family.temperature):
        raise TemperatureError("the temperature is 0, of which there is no gradient", "fit with a temperature above 0")
    if not fit.free.any():
        raise ArgumentError("nothing was fitted, so there is nothing to sample", 'set a dial to "fit"')
    data = fit.data
    spare = max(0, min(ROOM, power_of_two(num_choices(fit.family.blocks))) - data.cell.shape[-1])
    wide = lambda x: jnp.asarray(np.pad(x, ((0, 0), (0, 0), (0, spare))))
    mean, scale = np.array([normal for _, normal in normals(fit, priors)]).T
    data = Data(wide(data.cell), data.length, wide(data.count))
    arrays = (fit.theta, np.flatnonzero(fit.free), mean, scale)
    return Target(fit.family, data, fit.penalties, *map(jnp.asarray, arrays))


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


def log_likelihoods(fit: Fit, thetas: np.ndarray) -> np.ndarray:
    """(..., n) that of every trajectory."""
    cell, length = fit.decisions.cell, fit.decisions.length
    each = [
        fit.decisions.each(explain(fit.family, jnp.asarray(t), cell, length))
        for t in thetas.reshape(-1, thetas.shape[-1])
    ]
    return np.reshape(each, (*thetas.shape[:-1], -1))


def parameters(model: "BehaviourModel", thetas: np.ndarray) -> dict[str, tuple[list[str], np.ndarray]]:
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
    model: "BehaviourModel",
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
        keys = jax.random.split(jax.random.key(seed), num_chains)
        draws = explore(fit, target, Settings(int(num_warmup), float(target_accept)), int(num_samples), keys, bar)
        thetas = np.tile(fit.theta, (*draws.lp.shape, 1))
        thetas[..., fit.free] = draws.part
        tree = as_tree(model, parameters(model, thetas), draws, log_likelihoods(fit, thetas))
    used = {name: prior for name, prior in normals(fit, priors) if np.isfinite(prior[1])}
    tree.attrs |= dict(tuning_steps=num_warmup, seed=seed, priors=json.dumps(used))
    if words := doubts(tree["posterior"].to_dataset(), draws.diverging):
        mend = "draw more, raise target_accept, or give narrower priors or penalties"
        warnings.warn(f"the chains have not explored the posterior: {words}; {mend}", SampleWarning, stacklevel=3)
    return tree


def as_tree(
    model: "BehaviourModel", found: dict[str, tuple[list[str], np.ndarray]], draws: Draw, each: np.ndarray
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
