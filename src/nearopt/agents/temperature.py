"""The temperature: a number, or tuned so that the policy keeps a given entropy (Haarnoja et al. 2018b, eq. 18)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from nearopt.agents.errors import SettingError


class EntCoef(NamedTuple):
    """What `ent_coef` says: whether it is tuned, and the number it is or starts from."""

    tuned: bool
    value: float


def read_ent_coef(ent_coef: str | float) -> EntCoef:
    """A number fixes the temperature; "auto" tunes it from 1, "auto_0.1" from 0.1 (SB3's notation).

    >>> read_ent_coef("auto_0.1")
    EntCoef(tuned=True, value=0.1)
    """
    mend = 'give a number above 0, "auto", or "auto_0.1" to start from 0.1'
    tuned = isinstance(ent_coef, str)
    text = "1" if ent_coef == "auto" else ent_coef.removeprefix("auto_") if isinstance(ent_coef, str) else ent_coef
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        raise SettingError(f"ent_coef={ent_coef!r} is no temperature", mend) from None
    if (
        isinstance(ent_coef, bool)
        or not 0 < value < float("inf")
        or (isinstance(ent_coef, str) and not ent_coef.startswith("auto"))
    ):
        raise SettingError(f"ent_coef={ent_coef!r} is no temperature", mend)
    return EntCoef(tuned, value)


def temperature_loss(
    log_temperature: Float[Array, ""], entropy: Float[Array, " batch"], target: float, loss: str
) -> Float[Array, ""]:
    """τ rises while the entropy is below its target. `loss`: "log" is log τ · (H − H*), "temperature" is τ · (H − H*).

    They have the same root and another speed; both are minimised in log τ, so τ stays above 0. `entropy` is relative
    to the action prior, −log π/p.
    """
    scale = log_temperature if loss == "log" else jnp.exp(log_temperature)
    return scale * (entropy - target).mean()
