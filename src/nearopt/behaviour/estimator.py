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
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from nearopt.behaviour.decisions import Decisions, collect, steps
from nearopt.behaviour.family import Family, explain, tables
from nearopt.behaviour.optimise import Optimum, Penalties, data_of, optimise
from nearopt.behaviour.rewards import build_reward
from nearopt.behaviour.uncertainty import Fit, standard_errors
from nearopt.checks import check_dials, check_discount, check_model, check_prior, check_span, number
from nearopt.mdp.errors import NoDecisionsError, PenaltyError, TrajectoryShapeError

if TYPE_CHECKING:
    from nearopt.mdp.model import MDP
    from nearopt.records.trajectories import Trajectories


class FitWarning(UserWarning):
    """A fit that stopped short, or whose answer needs a word."""


class BehaviourModel(BaseEstimator):
    """An agent that is nearly optimal for a reward that is not known, fitted to what it was seen to do.

    reward: "linear" in `features` of shape (S, F), (S, A, F) or (S, A, S, F); "state" or "state_action", one free
    number each; "maps", as many maps over states as `features` says, with weights over time; "model", the model's own
    reward, of which nothing is fitted; "network" or an equinox module, of features; or a differentiable function
    f(coef, features) → (S,), (S, A) or (S, A, S) with coef (F,).
    time_varying: coefficients per step. horizon: None (infinite), a number of decisions, or "episode", each
    trajectory's own length. discount: γ; None is the model's own. temperature (τ, in units of reward), optimism (κ),
    discount: a number, or "fit". prior: None (flat, p := 1), "uniform" (1/|A(s)|), an array (S, A), or "fit": one
    propensity per action. l2, smoothness: see below.

    `fit` maximises mean log-likelihood per decision − l2 ‖c‖² − smoothness Σ ‖c_{t+1} − c_t‖². Without time, and with
    reward="state", smoothness shrinks the differences of neighbouring states instead.

    Conventions: only reward/τ shows in behaviour; a reward fitted at τ is τ times the one fitted at 1. With
    temperature="fit" and a reward that comes in every scale, c has length 1 and the penalties act on c/τ. Flat and
    uniform prior differ by τ log |A(s)| per decision, so by a reward, except where every state has as many actions
    and γ = 1 with a fixed horizon.

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

    # ------------------------------------------------------------ fitting
    def fit(self, trajectories: "Trajectories", y: Any = None) -> "BehaviourModel":
        """The parameters under which the recorded actions are likeliest. `y` is there for scikit-learn, and ignored."""
        check_trajectories(trajectories)
        horizon = check_span(self.horizon)
        check_model(self.mdp)
        trajectories.check(self.mdp)
        with jax.enable_x64(True):
            family = self.family(steps(trajectories, horizon))
            decisions = collect(self.mdp, trajectories, horizon, family.reward.time_varying)
            if not decisions.total:
                raise NoDecisionsError("the trajectories hold no decision", "give states with their actions")
            start, free = family.start, np.ones(len(family.start), bool)
            optimum = optimise(family, data_of(decisions), self.penalties(), start, free)
            self.remember(family, decisions, optimum, free)
        if optimum.cause:
            warnings.warn(f"the fit stopped short: {optimum.cause}", FitWarning, stacklevel=2)
        return self

    def family(self, span: int | None) -> Family:
        """What is fitted, and what is fixed."""
        temperature, optimism = check_dials(
            *(1.0 if fitted(x) else x for x in (self.temperature, self.optimism if self.temperature != 0 else 0.0))
        )
        fixed = lambda setting, value: None if fitted(setting) else value if value == 0 else jnp.asarray(value)
        discount = self.mdp.discount if self.discount is None else self.discount
        prior = None if fitted(self.prior) else check_prior(self.mdp, None, self.prior)
        return Family(
            self.mdp.blocks,
            build_reward(self.mdp, self.reward, self.features, self.time_varying, span),
            fixed(self.temperature, temperature),
            fixed(self.optimism, optimism),
            None if fitted(discount) else check_discount(discount),
            None if prior is None else jnp.asarray(prior),
            fitted(self.prior),
            span,
        )

    def penalties(self) -> Penalties:
        values = []
        for name in ("l2", "smoothness"):
            value = number(getattr(self, name), PenaltyError, name)
            if value < 0:
                raise PenaltyError(f"{name} is {value:g}", "give a number of at least 0")
            values.append(jnp.asarray(value))
        return Penalties(*values)

    def remember(self, family: Family, decisions: Decisions, optimum: Optimum, free: np.ndarray) -> None:
        """Sets the attributes of a fitted model."""
        self.__dict__.pop("stderr_", None)
        theta = jnp.asarray(optimum.theta)
        policy, reward, at, public = tables(family, theta)
        public = np.asarray(public)
        self.fit_ = Fit(family, optimum.theta, decisions, self.penalties(), free)
        self.dials_ = dict(zip(family.public_names, public[family.reward.size :].tolist(), strict=True))
        self.coef_ = family.reward.public(public[: family.reward.size])
        self.temperature_ = self.dials_.get("temperature", float(at.temperature))
        self.optimism_ = float(at.optimism)
        self.discount_ = float(self.mdp.discount if at.discount is None else at.discount)
        scale = self.temperature_ if family.scale_free else 1.0
        self.reward_ = self.mdp.reward if reward is None else scale * np.asarray(reward)
        self.policy_ = np.asarray(policy)
        self.log_likelihood_ = float(decisions.each(explain(family, theta, decisions.cell, decisions.length)).sum())
        self.num_decisions_ = decisions.total
        self.converged_ = optimum.converged
        self.message_ = optimum.cause
        self.n_iter_ = optimum.iterations

    # ------------------------------------------------------------ uncertainty
    def stderr(self, kind: str = "hessian", by: Any = None) -> np.ndarray:
        """Standard errors of `coef_`, in its shape; inf where the data say nothing.

        kind: "hessian" (inverse), "opg" (outer product of gradients) or "sandwich". by: whose scores are summed before
        they are multiplied, for the last two: None, every decision's own; "episode" or "subject".
        """
        check_is_fitted(self)
        return self.fit_.family.reward.public(self.errors(kind, by)[: self.fit_.family.reward.size])

    @cached_property
    def stderr_(self) -> np.ndarray:
        """Standard errors of `coef_` from the inverse Hessian."""
        return self.stderr("hessian")

    def errors(self, kind: str, by: Any) -> np.ndarray:
        """Standard errors of all public parameters."""
        with jax.enable_x64(True):
            return standard_errors(self.fit_, kind, None)

    # ------------------------------------------------------------ judging
    def score(self, trajectories: "Trajectories", y: Any = None) -> float:
        """Mean log-likelihood per decision, nats, of the recorded actions given the recorded states."""
        logs, total = self.log_likelihoods(trajectories)
        return float(logs.sum() / total)

    def log_likelihoods(self, trajectories: "Trajectories") -> tuple[np.ndarray, int]:
        """(n,) that of every trajectory, nats, and the number of decisions."""
        check_is_fitted(self)
        check_trajectories(trajectories)
        trajectories.check(self.mdp)
        with jax.enable_x64(True):
            family = self.fit_.family
            span = steps(trajectories, self.horizon)
            if span != family.steps and not family.reward.time_varying:
                family = self.family(span)
            decisions = collect(self.mdp, trajectories, self.horizon, family.reward.time_varying)
            if not decisions.total:
                raise NoDecisionsError("the trajectories hold no decision", "give states with their actions")
            logs = explain(family, jnp.asarray(self.fit_.theta), decisions.cell, decisions.length)
            return decisions.each(logs), decisions.total


def fitted(setting: Any) -> bool:
    return isinstance(setting, str) and setting == "fit"


def check_trajectories(trajectories: Any) -> None:
    from nearopt.records.trajectories import Trajectories

    if not isinstance(trajectories, Trajectories):
        kind = type(trajectories).__name__
        raise TrajectoryShapeError(f"the trajectories are a {kind}", "build them with Trajectories.from_csv or .from_arrays")
