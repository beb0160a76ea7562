"""`BehaviourModel`: which reward, temperature, prior and optimism explain recorded behaviour. Scikit-learn's contract.

>>> import numpy as np, nearopt as no
>>> mdp = no.MDP.from_grid("S..G", discount=0.9)
>>> walks = no.infer(mdp, 6, optimism=0.0).sample(50, seed=0)
>>> steps = no.Trajectories.from_arrays(walks.state, walks.action)
>>> features = np.array([0.0, 1.0, 2.0, 0.0])[:, None]  # one number per state: how far to the right
>>> model = no.BehaviourModel(mdp, features=features).fit(steps)
>>> model.coef_.shape, bool(model.converged_), model.reward_.shape
((1,), True, (4, 4))
"""

import warnings
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from nearopt.behaviour.decisions import Decisions, Horizon, collect, steps
from nearopt.behaviour.diagnosis import FitWarning, no_maximum, nothing_learned
from nearopt.behaviour.family import Family, tables
from nearopt.behaviour.identifiability import Identifiability, after, before, blind_to_luck
from nearopt.behaviour.intervals import by_bootstrap, by_covariance, by_profile, readable
from nearopt.behaviour.maxent import collect_passages
from nearopt.behaviour.optimise import Optimum, Penalties, data_of, optimise
from nearopt.behaviour.rewards import build_reward
from nearopt.behaviour.simulate import expected_reward, in_their_stead, policy_of
from nearopt.behaviour.uncertainty import Fit, effective_parameters, log_likelihoods, standard_errors
from nearopt.checks import check_dials, check_discount, check_model, check_prior, check_span, number
from nearopt.mdp.errors import (
    GroupError,
    KindError,
    NoDecisionsError,
    PenaltyError,
    TemperatureError,
    TrajectoryShapeError,
)
from nearopt.records.trajectories import Trajectories

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xarray import DataTree

    from nearopt.behaviour.luck import OptimismTest
    from nearopt.mdp.model import MDP

LIKELIHOODS = ("actions", "trajectories")


class IdentifiabilityWarning(UserWarning):
    """Parameters that no amount of behaviour could tell apart."""


class BehaviourModel(BaseEstimator):
    """An agent that is nearly optimal for a reward that is not known, fitted to what it was seen to do.

    reward: "linear" in `features` of shape (S, F), (S, A, F) or (S, A, S, F); "state" or "state_action", one free
    number each; "maps", as many maps over states as `features` says, with weights over time; "model", the model's own
    reward, of which nothing is fitted; "network" or an equinox module, of features; or a differentiable function
    f(coef, features) → (S,), (S, A) or (S, A, S) with coef (F,).
    time_varying: coefficients per step. horizon: None (infinite), a number of decisions, or "episode", each
    trajectory's own length, which the agent then knows: for recordings whose length was set beforehand, not for
    episodes that end when something is reached. discount: γ; None is the model's own. temperature (τ, in units of
    reward), optimism (κ), discount: a number, or "fit". prior: None (flat, p := 1), "uniform" (1/|A(s)|), an array
    (S, A), or "fit": one propensity per action, which sum to 1 over all actions. l2, smoothness: see below.
    likelihood: "actions", given the recorded states, or "trajectories", the older MaxEnt likelihood of whole
    trajectories under the tilted world (Ziebart et al. 2008 with optimism=1), which in a random world is biased.

    `fit` maximises mean log-likelihood per decision − l2 ‖c‖² − smoothness Σ ‖c_{t+1} − c_t‖². Without time, and with
    reward="state", smoothness shrinks the differences of neighbouring states instead.

    Conventions: only reward/τ shows in behaviour; a reward fitted at τ is τ times the one fitted at 1. With
    temperature="fit" and a reward that comes in every scale, c has length 1 and the penalties act on c/τ. Flat and
    uniform prior differ by τ log |A(s)| per decision, so by a reward, except where every state has as many actions
    and γ = 1 with a fixed horizon.

    Fitted: coef_, in the shape that the reward has; reward_ (S, A) or (T, S, A), expected over next states; policy_,
    temperature_, optimism_, discount_, log_likelihood_ (sum, nats), converged_, message_ (why not); when first asked
    for stderr_, identifiable_, identifiability_, num_parameters_.

    Sources: Rust (1987), Ziebart (2010) for κ = 0; design §1 for the rest.
    """

    def __init__(
        self,
        mdp: "MDP",
        *,
        reward: Any = "linear",
        features: Any = None,
        time_varying: bool = False,
        horizon: int | str | None = None,
        discount: Any = None,
        temperature: Any = 1.0,
        optimism: Any = 0.0,
        prior: Any = None,
        l2: float = 0.0,
        smoothness: float = 0.0,
        likelihood: str = "actions",
    ):
        self.mdp = mdp
        self.reward = reward
        self.features = features
        self.time_varying = time_varying
        self.horizon = horizon
        self.discount = discount
        self.temperature = temperature
        self.optimism = optimism
        self.prior = prior
        self.l2 = l2
        self.smoothness = smoothness
        self.likelihood = likelihood

    # ------------------------------------------------------------ fitting
    def fit(self, trajectories: Trajectories, y: Any = None) -> "BehaviourModel":
        """The parameters under which the recorded actions are likeliest. `y` is there for scikit-learn, and ignored."""
        horizon = check_span(self.horizon)
        self.check(trajectories)
        with jax.enable_x64(True):
            family = self.family(steps(trajectories, horizon))
            decisions = self.collect(trajectories, family, horizon)
            penalties = self.penalties()
            if float(penalties.smoothness) and not len(family.reward.pairs):
                sentence = "smoothness has nothing to act on: it is for rewards over time, and for reward='state'"
                warnings.warn(sentence, FitWarning, stacklevel=2)
            for sentence in before(self.mdp, family, float(penalties.l2) > 0):
                warnings.warn(sentence, IdentifiabilityWarning, stacklevel=2)
            free = np.array([name != "optimism" or not blind_to_luck(self.mdp, family) for name in family.dials], bool)
            free = np.append(np.ones(family.reward.size, bool), free)
            optimum = optimise(family, data_of(decisions), penalties, family.start, free)
            self.subject_, self.horizon_ = trajectories.subject, horizon
            self.remember(Fit(family, optimum.theta, decisions, penalties, free, optimum.value_function), optimum)
        if self.message_:
            warnings.warn(self.message_, FitWarning, stacklevel=2)
        return self

    def check(self, trajectories: Trajectories) -> None:
        """Raises what is wrong with the model or the trajectories, or with one beside the other."""
        check_trajectories(trajectories)
        check_model(self.mdp)
        trajectories.check(self.mdp)

    def family(self, span: int | None) -> Family:
        """What is fitted, and what is fixed."""
        temperature, optimism = check_dials(
            *(1.0 if fitted(x) else x for x in (self.temperature, self.optimism if self.temperature != 0 else 0.0))
        )
        if temperature == 0:
            raise TemperatureError("the temperature is 0: then behaviour has no likelihood", "fit one above 0")
        fixed = lambda setting, value: None if fitted(setting) else value if value == 0 else jnp.asarray(value)
        discount = self.mdp.discount if self.discount is None else self.discount
        gamma = None if fitted(discount) else check_discount(discount)
        prior = None if fitted(self.prior) else check_prior(self.mdp, None, self.prior)
        return Family(
            self.mdp.blocks,
            build_reward(self.mdp, self.reward, self.features, self.time_varying, span),
            fixed(self.temperature, temperature),
            fixed(self.optimism, optimism),
            gamma if gamma in (None, 1) else jnp.asarray(gamma),  # traced: all but 1 share compiled code
            None if prior is None else jnp.asarray(prior),
            fitted(self.prior),
            span,
        )

    def collect(self, trajectories: Trajectories, family: Family, horizon: Horizon) -> Decisions:
        """What the likelihood needs of some trajectories."""
        if self.likelihood not in LIKELIHOODS:
            kinds = " or ".join(map(repr, LIKELIHOODS))
            raise KindError(f"there is no likelihood {self.likelihood!r}", f"give {kinds}")
        whole = self.likelihood == "trajectories"
        span = family.steps if family.reward.time_varying else None
        decisions = collect(self.mdp, trajectories, horizon, whole or family.reward.time_varying, span)
        if not decisions.total:
            raise NoDecisionsError("the trajectories hold no decision", "give states with their actions")
        if not whole:
            return decisions
        passages = collect_passages(self.mdp, trajectories, horizon, span)
        return eqx.tree_at(lambda d: d.passages, decisions, passages, is_leaf=lambda x: x is None)

    def penalties(self) -> Penalties:
        values = []
        for name in ("l2", "smoothness"):
            value = number(getattr(self, name), PenaltyError, name)
            if value < 0:
                raise PenaltyError(f"{name} is {value:g}", "give a number of at least 0")
            values.append(jnp.asarray(value))
        return Penalties(*values)

    def remember(self, fit: Fit, optimum: Optimum) -> None:
        """Sets the attributes of a fitted model."""
        for name in ("stderr_", "identifiability_", "num_parameters_"):
            self.__dict__.pop(name, None)
        family, decisions, theta = fit.family, fit.decisions, jnp.asarray(fit.theta)
        policy, reward, at, public = tables(family, theta, fit.value)
        public = np.asarray(public)
        self.fit_ = fit
        self.dials_ = dict(zip(family.public_names, public[family.reward.size :].tolist(), strict=True))
        self.coef_ = family.reward.public(public[: family.reward.size])
        self.temperature_ = self.dials_.get("temperature", float(at.temperature))
        self.optimism_ = float(at.optimism)
        self.discount_ = float(self.mdp.discount if at.discount is None else at.discount)
        scale = self.temperature_ if family.scale_free and np.isfinite(self.temperature_) else 1.0
        self.reward_ = expected_reward(self.mdp, None if reward is None else scale * np.asarray(reward))
        self.policy_ = np.asarray(policy)
        coef = theta[: family.reward.size]
        self.log_likelihood_ = decisions.total * (float(family.reward.penalty(coef, *fit.penalties)) - optimum.value)
        self.num_decisions_ = decisions.total
        endless = no_maximum(self.mdp, fit, optimum.step)
        self.message_ = optimum.cause or nothing_learned(fit) or endless
        self.converged_ = optimum.converged and not endless
        self.n_iter_ = optimum.iterations

    # ------------------------------------------------------------ uncertainty
    def stderr(self, kind: str = "hessian", by: str | None = None) -> np.ndarray:
        """Standard errors of `coef_`, in its shape; inf where the data say nothing.

        kind: "hessian" (inverse), "opg" (outer product of gradients) or "sandwich". by: whose scores are summed before
        they are multiplied, for the last two: None, every decision's own; "episode" or "subject". Raises `KindError`,
        `GroupError`, and `PenaltyError` where there are too many parameters to do without l2.
        """
        check_is_fitted(self)
        with jax.enable_x64(True):
            return self.coefficients(standard_errors(self.fit_, kind, self.groups(by)))

    @cached_property
    def stderr_(self) -> np.ndarray:
        """Standard errors of `coef_` from the inverse Hessian."""
        return self.stderr("hessian")

    def intervals(
        self, level: float = 0.95, kind: str = "hessian", *, by: str | None = None, draws: int = 200, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Lower and upper bounds, stacked (2, ...): of "coef" and of every dial that was fitted.

        kind: a kind of `stderr`; "profile", of the likelihood; or "bootstrap", `draws` refits to resampled episodes
        (by="subject": subjects). Raises `KindError`, `GroupError`.
        """
        check_is_fitted(self)
        with jax.enable_x64(True):
            if kind == "profile":
                bounds = readable(self.fit_, by_profile(self.fit_, level))
            elif kind == "bootstrap":
                bounds = by_bootstrap(self.fit_, level, self.units(by or "episode"), draws, seed)
            else:
                bounds = by_covariance(self.fit_, level, kind, self.groups(by))
        size = self.fit_.family.reward.size
        dials = dict(zip(self.fit_.family.public_names, bounds[:, size:].T, strict=True))
        return {"coef": np.stack([self.coefficients(b) for b in bounds]), **dials}

    def confidence_interval(
        self, level: float = 0.95, kind: str = "hessian", *, by: str | None = None, draws: int = 200, seed: int = 0
    ) -> np.ndarray:
        """Lower and upper bounds of `coef_`, stacked (2, *coef_.shape); see `intervals`."""
        return self.intervals(level, kind, by=by, draws=draws, seed=seed)["coef"]

    @cached_property
    def identifiability_(self) -> Identifiability:
        """Which directions of the parameters the recorded states tell apart, and what hides the others."""
        check_is_fitted(self)
        with jax.enable_x64(True):
            return after(self.mdp, self.fit_)

    @property
    def identifiable_(self) -> bool:
        """Whether the data, without any penalty, tell all parameters apart."""
        return self.identifiability_.identifiable

    @cached_property
    def num_parameters_(self) -> float:
        """Effective parameters, tr F (F + Λ)⁻¹: with no penalty, as many as the data tell apart."""
        check_is_fitted(self)
        with jax.enable_x64(True):
            return effective_parameters(self.fit_)

    def optimism_test(self, trajectories: Trajectories, level: float = 0.95) -> "OptimismTest":
        """Is this animal optimistic? Fits κ, with a profile interval, and tests κ = 0 and κ = 1 by likelihood ratio.

        Refits from the settings of this model, except its optimism; nothing of it is changed.
        """
        from nearopt.behaviour.luck import test_optimism

        return test_optimism(self, trajectories, level)

    def policy_of(self, span: int | None = None, hard: bool = False) -> np.ndarray:
        """(S, A), or (T, S, A) of a horizon of `span` decisions; hard: the best actions for the fitted reward, with
        τ = 0, κ = 0 and the flat prior, ties shared. span: the fitted horizon where it is None.
        """
        check_is_fitted(self)
        with jax.enable_x64(True):
            return policy_of(self.fit_, span, hard)

    def sample(
        self,
        num_samples: int = 1000,
        *,
        num_warmup: int = 1000,
        num_chains: int = 2,
        seed: int = 0,
        priors: "Mapping[str, tuple[float, float]] | None" = None,
        target_accept: float = 0.8,
        progress: bool = False,
    ) -> "DataTree":
        """Draws from the posterior, by NUTS: an xarray DataTree with the groups of ArviZ.

        /posterior: coef, by the axes of `coef_`, and the dials that were fitted; /sample_stats; /log_likelihood, of
        every trajectory, for leave-one-out; /observed_data: which decisions each trajectory holds, how often.

        priors: name → mean and standard deviation of a normal density, of "coef" (each of them; the default is (0, 10),
        or where l2 is set none), "temperature" (of log τ; (0, 1.5)), "optimism" ((0, 2)), "discount" (of logit γ;
        (2, 2)) and "log_prior" (of log p(a) − log p(0); (0, 2)). Times exp(−N (l2 ‖c‖² + smoothness ...)): with the
        penalties alone, much data give `stderr_`. Where temperature="fit" with a reward that comes in every scale,
        c/τ is what is sampled and has the prior of "coef"; τ = 1/‖c/τ‖ has none of its own.

        A `SampleWarning` names divergences, r-hat above 1.01 and fewer than 100 effective draws per chain. Needs
        `pip install "nearopt[nuts]"`. Raises `MissingExtraError`, `ArgumentError`, `CountError`, `TemperatureError`
        (τ = 0), `NoSolutionError`.
        """
        check_is_fitted(self)
        from nearopt.behaviour.posterior import sample

        counts = dict(num_warmup=num_warmup, num_chains=num_chains, seed=seed)
        return sample(self, num_samples, **counts, priors=priors, target_accept=target_accept, progress=progress)

    def coefficients(self, public: np.ndarray) -> np.ndarray:
        """That part of all parameters which belongs to `coef_`, in its shape."""
        return self.fit_.family.reward.public(public[: self.fit_.family.reward.size])

    def groups(self, by: str | None) -> np.ndarray | None:
        """(n,) which trajectories belong together; None where decisions do not."""
        return None if by is None else self.units(by)

    def units(self, by: str) -> np.ndarray:
        """(n,) which trajectories belong together."""
        if by == "episode":
            return np.arange(self.fit_.decisions.num_trajectories)
        if by != "subject":
            raise KindError(f"there is no grouping by {by!r}", 'give None, "episode" or "subject"')
        if self.subject_ is None:
            raise GroupError("the trajectories name no subject", "read them with subject=..., or group by episode")
        return self.subject_

    # ------------------------------------------------------------ predicting
    def simulate(self, trajectories: Trajectories, seed: int = 0) -> Trajectories:
        """What this agent would have done in their stead: first states and lengths are those of the recorded ones.

        It acts as if the world were p_κ; the world moves by p. Trajectories without a first state are left out.
        """
        check_is_fitted(self)
        self.check(trajectories)
        own = self.horizon_ == "episode"  # an agent that knows when it will end
        return in_their_stead(self.mdp, self.policy_of if own else lambda _: self.policy_, own, trajectories, seed)

    def __getstate__(self) -> dict[str, Any]:
        """NumPy instead of JAX: float64 arrays of JAX do not survive pickling under a 32-bit default."""
        state: dict[str, Any] = dict(self.__dict__)
        if "fit_" in state:
            plain = lambda tree: jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, tree)
            fit = state["fit_"]
            parts = dict(family=plain(fit.family), penalties=plain(fit.penalties), value=plain(fit.value))
            state["fit_"] = replace(fit, **parts)
        return state

    # ------------------------------------------------------------ judging
    def score(self, trajectories: Trajectories, y: Any = None) -> float:
        """Mean log-likelihood per decision, nats, of the recorded actions given the recorded states."""
        logs, total = self.log_likelihoods(trajectories)
        return float(logs.sum() / total)

    def log_likelihoods(self, trajectories: Trajectories) -> tuple[np.ndarray, int]:
        """(n,) that of every trajectory, nats, and the number of decisions."""
        check_is_fitted(self)
        self.check(trajectories)
        with jax.enable_x64(True):
            family = self.fit_.family
            if not family.reward.time_varying:
                family = replace(family, steps=steps(trajectories, self.horizon_))
            decisions = self.collect(trajectories, family, self.horizon_)
            return log_likelihoods(family, self.fit_.theta, decisions, self.fit_.value), decisions.total


def fitted(setting: Any) -> bool:
    return isinstance(setting, str) and setting == "fit"


def check_trajectories(trajectories: Any) -> None:
    if not isinstance(trajectories, Trajectories):
        kind = type(trajectories).__name__
        raise TrajectoryShapeError(
            f"the trajectories are a {kind}", "build them with Trajectories.from_csv or .from_arrays"
        )
