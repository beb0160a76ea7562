"""Which rewards are considered: from a vector of coefficients to r(s,a), or r(s,a,s').

linear         r = features · c             (S, F), (S, A, F) or (S, A, S, F)
state          r(s,a) = c(s)                one free number per state
state_action   r(s,a) = c(s,a)
maps           r_t(s,a) = Σ_k w_t(k) m_k(s)  K maps times weights that drift (Ashwood, Jha & Pillow 2022)
model          the model's own              nothing to fit but the dials
a function     r = f(c, features)
a module       r = module(features(s)) or module(features(s,a)): a network, whose weights are the coefficients
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from nearopt.mdp.errors import FeatureError, NaNError, RewardKindError
from nearopt.mdp.model import MDP
from nearopt.mdp.validate import real_array

KINDS = ("linear", "state", "state_action", "maps", "model", "network")
WIDTH, DEPTH = 16, 2  # of reward="network"
SPREAD = 0.1  # of the maps at the start: at zero maps and weights would hold each other there


class Reward(eqx.Module):
    """A family of rewards. The coefficients are one vector: those of `shape`, per step where they vary over time, and
    before them, for maps, the maps.
    """

    features: Any  # what `table` works on: an array, an equinox module with one, or nothing
    pairs: Int[Array, "M 2"]  # coefficients whose difference `smoothness` shrinks
    start: np.ndarray  # (P,) where a fit begins
    kind: Any = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)  # of coef_
    states: tuple[int, int] = eqx.field(static=True)  # S, A
    time_varying: bool = eqx.field(static=True)

    @property
    def size(self) -> int:
        return len(self.start)

    @property
    def homogeneous(self) -> bool:
        """Whether a multiple of every reward of the family is in it: then its scale and τ are one number."""
        return self.kind in ("linear", "state", "state_action")

    def __call__(self, coef: Float[Array, " P"]) -> Float[Array, "..."] | None:
        """(S, A), (S, A, S), with a leading axis T where it varies; None for the model's own."""
        if self.kind == "model":
            return None
        if self.kind == "maps":
            maps, weights = self.split(coef)
            return jnp.broadcast_to((weights @ maps)[..., None], (len(weights), *self.states))
        if self.time_varying:
            return jax.vmap(self.table)(coef.reshape(self.shape[0], -1))
        return self.table(coef)

    def split(self, coef: Float[Array, " P"]) -> tuple[Float[Array, "K S"], Float[Array, "T K"]]:
        """Maps and weights."""
        steps, maps = self.shape
        cut = maps * self.states[0]
        return coef[:cut].reshape(maps, -1), coef[cut:].reshape(steps, maps)

    def table(self, coef: Float[Array, " p"]) -> Float[Array, "..."]:
        """The reward of one step."""
        if self.kind == "state":
            reward = coef
        elif self.kind == "state_action":
            reward = coef.reshape(self.states)
        elif self.kind == "linear":
            reward = self.features @ coef
        elif isinstance(self.features, Network):
            reward = self.features(coef)
        else:
            reward = jnp.asarray(self.kind(coef, self.features), float)
        return jnp.broadcast_to(reward[:, None], self.states) if reward.ndim == 1 else reward

    def penalty(self, coef: Float[Array, " P"], l2: Array, smoothness: Array) -> Float[Array, ""]:
        """l2 ‖c‖² + smoothness Σ (c_i − c_j)²."""
        differences = coef[self.pairs[:, 0]] - coef[self.pairs[:, 1]]
        return l2 * (coef @ coef) + smoothness * (differences @ differences)

    def public(self, coef: np.ndarray) -> np.ndarray:
        """The coefficients as `coef_` shows them; of maps, the weights."""
        return np.asarray(coef)[-int(np.prod(self.shape)) :].reshape(self.shape) if self.size else np.zeros(self.shape)


class Network(eqx.Module):
    """An equinox module as a family: its arrays are the coefficients."""

    inputs: Float[Array, "... F"]
    module: eqx.Module

    def __call__(self, coef: Float[Array, " P"]) -> Float[Array, "..."]:
        arrays, rest = eqx.partition(self.module, eqx.is_inexact_array)
        module = eqx.combine(ravel_pytree(arrays)[1](coef), rest)
        flat = jax.vmap(module)(self.inputs.reshape(-1, self.inputs.shape[-1]))  # type: ignore[arg-type]
        return flat.reshape(self.inputs.shape[:-1])


def build_reward(mdp: MDP, kind: Any, features: Any, time_varying: bool, steps: int | None) -> Reward:
    """The family that `BehaviourModel` was asked for; call it under 64-bit JAX.

    Raises `RewardKindError`, `FeatureError`.
    """
    if isinstance(kind, str) and kind not in KINDS or not (isinstance(kind, str) or callable(kind)):
        names = ", ".join(map(repr, KINDS))
        raise RewardKindError(f"there is no kind of reward {kind!r}", f"give {names}, a function or an equinox module")
    states = (mdp.num_states, mdp.num_actions)
    if kind == "maps":
        return build_maps(mdp, features, steps)
    single = {"state": states[:1], "state_action": states, "model": (0,)}.get(kind if isinstance(kind, str) else "")
    if single is not None and features is not None:
        raise FeatureError(f"reward={kind!r} has no use for features", "leave features out, or take reward='linear'")
    table = check_features(mdp, features) if single is None else np.zeros((0, 0))
    if single is not None:
        start, payload = np.zeros(int(np.prod(single))), None
    elif kind == "network" or isinstance(kind, eqx.Module):
        module = make_network(table.shape[-1]) if kind == "network" else kind
        module = jax.tree.map(lambda x: jnp.asarray(x, float) if eqx.is_inexact_array(x) else x, module)
        payload = Network(jnp.asarray(table), module)
        start = np.asarray(ravel_pytree(eqx.filter(module, eqx.is_inexact_array))[0])
        single, kind = start.shape, "network"
    else:
        single, payload = table.shape[-1:], jnp.asarray(table)
        start = np.zeros(single)
    if not isinstance(kind, str) or kind == "network":
        check_shape(mdp, kind, payload, start)
    if time_varying and kind == "model":
        raise RewardKindError("the model's own reward does not vary over time", "set time_varying=False")
    pairs = neighbours(mdp) if kind == "state" and not time_varying else np.zeros((0, 2), int)
    if time_varying:
        if steps is None:
            mend = 'set horizon to T or to "episode"'
            raise RewardKindError("rewards that vary over time need a finite horizon", mend)
        pairs, start, single = in_time(steps, start.size), np.tile(start, steps), (steps, *single)
    return Reward(payload, jnp.asarray(pairs), start, kind, tuple(single), states, time_varying)


def check_shape(mdp: MDP, kind: Any, payload: Any, start: np.ndarray) -> None:
    """What a function or a module makes of its features has to be a reward. Raises `RewardKindError`."""
    states, actions = mdp.num_states, mdp.num_actions
    shapes = ((states,), (states, actions), (states, actions, states))
    made = payload if isinstance(payload, Network) else lambda coef: jnp.asarray(kind(coef, payload), float)
    try:
        shape = jax.eval_shape(made, jnp.asarray(start)).shape
    except (TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise RewardKindError(
            f"the reward cannot be computed ({why})", "give a function of coef (F,) and features"
        ) from None
    if shape not in shapes:
        wanted = f"{shapes[0]}, {shapes[1]} or {shapes[2]}"
        raise RewardKindError(f"the reward has shape {shape}", f"let it have one of {wanted}")


def build_maps(mdp: MDP, features: Any, steps: int | None) -> Reward:
    """Maps and weights, both fitted. Raises `FeatureError`, `RewardKindError`."""
    if isinstance(features, bool) or not isinstance(features, (int, np.integer)) or features < 1:
        raise FeatureError(f"features is {features!r}", "with reward='maps' give the number of maps, features=2")
    if steps is None:
        raise RewardKindError("maps with weights over time need a finite horizon", 'set horizon to T or to "episode"')
    count = int(features)
    maps = np.random.default_rng(0).normal(0, SPREAD, (count, mdp.num_states))
    start = np.concatenate([maps.reshape(-1), np.ones(steps * count)])
    pairs = in_time(steps, count) + maps.size
    shape, states = (steps, count), (mdp.num_states, mdp.num_actions)
    return Reward(None, jnp.asarray(pairs), start, "maps", shape, states, True)


def make_network(width: int) -> eqx.Module:
    """Two hidden layers of tanh units: small enough for a table, smooth enough for curvature."""
    return eqx.nn.MLP(width, "scalar", WIDTH, DEPTH, activation=jnp.tanh, key=jax.random.key(0))


def check_features(mdp: MDP, features: Any) -> np.ndarray:
    """(S, F), (S, A, F) or (S, A, S, F), finite."""
    states, actions = mdp.num_states, mdp.num_actions
    shapes = f"({states}, F), ({states}, {actions}, F) or ({states}, {actions}, {states}, F)"
    if features is None:
        raise FeatureError("a reward in features needs features", f"give an array of shape {shapes}")
    table = real_array(features, "features")
    leading = {(states,), (states, actions), (states, actions, states)}
    if table.shape[:-1] not in leading or not table.shape[-1:] or not table.shape[-1]:
        raise FeatureError(f"features has shape {table.shape}", f"give {shapes}")
    if not np.isfinite(table).all():
        where = np.argwhere(~np.isfinite(table))[0].tolist()
        raise NaNError(f"features{where} is {table[tuple(where)]:g}", "give finite numbers")
    return table


def in_time(steps: int, size: int) -> np.ndarray:
    """Each coefficient and itself one step later."""
    first = np.arange((steps - 1) * size)
    return np.stack([first, first + size], 1)


def neighbours(mdp: MDP) -> np.ndarray:
    """Pairs of states of which one may follow the other."""
    pairs = np.stack([mdp.choice_state[mdp.branch_choice], mdp.next_state], 1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return pairs[pairs[:, 0] != pairs[:, 1]]
