"""What a user may get wrong when asking for inference or a plan."""

from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    DiscountError,
    EmptyPriorError,
    FinalValueError,
    HorizonError,
    InfiniteRewardError,
    NaNError,
    NegativePriorError,
    NotAModelError,
    OptimismError,
    PriorShapeError,
    PriorUnavailableError,
    TemperatureError,
)
from nearopt.mdp.model import MDP
from nearopt.mdp.validate import real_array


def number(value: Any, error: type, name: str) -> float:
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        value = float(value)
    except (TypeError, ValueError):
        raise error(f"the {name} is {value!r}", "give a number") from None
    if not np.isfinite(value):
        raise error(f"the {name} is {value:g}", "give a finite number")
    return value


def check_model(mdp: Any) -> None:
    if not isinstance(mdp, MDP):
        raise NotAModelError(f"the model is a {type(mdp).__name__}", "build an MDP, for instance with MDP.from_arrays")


def check_dials(temperature: Any, optimism: Any) -> tuple[float, float]:
    """τ ≥ 0 and κ, both finite; τ = 0 only with κ = 0."""
    temperature = number(temperature, TemperatureError, "temperature")
    optimism = number(optimism, OptimismError, "optimism")
    if temperature < 0:
        raise TemperatureError(f"the temperature is {temperature:g}", "give a number above 0, or 0 for hard control")
    if temperature == 0 and optimism != 0:
        raise OptimismError(
            f"temperature 0 is hard control, which optimism {optimism:g} does not define", "set optimism=0 with it"
        )
    return temperature, optimism


def check_horizon(horizon: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
        raise HorizonError(f"the horizon is {horizon!r}", "give a whole number of decisions, at least 1")
    return int(horizon)


def check_span(horizon: Any) -> int | str | None:
    """What behaviour is explained with: None (infinite), a number of decisions, or "episode"."""
    if horizon is None or isinstance(horizon, str) and horizon == "episode":
        return horizon
    if isinstance(horizon, str):
        raise HorizonError(f"the horizon is {horizon!r}", 'give None (infinite), a number of decisions, or "episode"')
    return check_horizon(horizon)


def check_discount(discount: Any) -> float:
    """0 ≤ γ ≤ 1."""
    discount = number(discount, DiscountError, "discount")
    if not 0 <= discount <= 1:
        raise DiscountError(f"the discount is {discount:g}", "give a number from 0 to 1")
    return discount


def check_prior(mdp: MDP, horizon: int | None, prior: Any) -> np.ndarray | None:
    """log p(a|s) as (S, A) or, with a horizon, (T, S, A); None for the flat prior."""
    if prior is None:
        return None
    shape = (mdp.num_states, mdp.num_actions)
    available = mdp.available
    if isinstance(prior, str):
        if prior != "uniform":
            raise PriorShapeError(f"the prior is {prior!r}", 'give None (flat), "uniform", or an array (S, A)')
        return np.where(available, -np.log(np.maximum(available.sum(1, keepdims=True), 1)), -np.inf)
    prior = real_array(prior, "prior")
    if prior.shape not in (shape, (horizon, *shape)):
        raise PriorShapeError(
            f"the prior has shape {prior.shape}", f"give {shape}" + (f" or {(horizon, *shape)}" if horizon else "")
        )
    prior = np.where(mdp.terminal[:, None], 0.0, prior)  # entries in terminal states do not count

    def where(mask: np.ndarray) -> str:
        *time, state, action = np.argwhere(mask)[0].tolist()
        return f"{f'step {time[0]}, ' if time else ''}{mdp.describe(state, action)}"

    bad = ~(np.isfinite(prior) & (prior >= 0))
    if bad.any():
        raise NegativePriorError(f"{where(bad)}: the prior is {prior[bad][0]:g}", "give finite numbers, at least 0")
    outside = (prior > 0) & ~available
    if outside.any():
        raise PriorUnavailableError(
            f"{where(outside)} is not available, but its prior is {prior[outside][0]:g}", "set the entry to 0"
        )
    empty = (prior.sum(-1) == 0) & ~mdp.terminal
    if empty.any():
        *time, state = np.argwhere(empty)[0].tolist()
        raise EmptyPriorError(
            f"{f'step {time[0]}, ' if time else ''}{mdp.describe(state)}: no action has prior mass",
            "give at least one available action a positive entry",
        )
    with np.errstate(divide="ignore"):
        return np.log(prior)


def check_final_value(mdp: MDP, final_value: Any) -> np.ndarray | None:
    """(S,), below +inf; entries in terminal states do not count."""
    if final_value is None:
        return None
    final_value = real_array(final_value, "final_value")
    if final_value.shape != (mdp.num_states,):
        raise FinalValueError(
            f"final_value has shape {final_value.shape}", f"give one number per state, {(mdp.num_states,)}"
        )
    final_value = np.where(mdp.terminal, 0.0, final_value)
    bad = np.isnan(final_value) | (final_value == np.inf)
    if bad.any():
        s = int(np.argmax(bad))
        raise FinalValueError(
            f"the final value of {mdp.describe(s)} is {final_value[s]:g}", "give a number, or -inf to forbid"
        )
    return final_value


def check_reward(reward: Any) -> np.ndarray:
    """Numbers below +inf, of any shape that `make_problem` accepts."""
    reward = real_array(reward, "reward")
    if np.isnan(reward).any():
        raise NaNError(
            f"reward{np.argwhere(np.isnan(reward))[0].tolist()} is NaN", "replace it by a number, or by -inf"
        )
    if (reward == np.inf).any():
        where = np.argwhere(reward == np.inf)[0].tolist()
        raise InfiniteRewardError(f"reward{where} is +inf", "give a finite reward, or -inf to forbid")
    return reward
