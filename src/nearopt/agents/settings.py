"""Settings: one frozen value per agent, from SB3's keyword arguments."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearopt.agents.errors import SettingError
from nearopt.agents.networks import ACTIVATIONS
from nearopt.agents.task import Prior, Task, check_prior
from nearopt.agents.temperature import read_ent_coef


def choice(default: str, *others: str) -> Any:
    """A setting that is one of these words."""
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass(frozen=True)
class Shared:
    """What every agent has. Names are SB3's."""

    task: Task
    learning_rate: float = 3e-4
    gamma: float = 0.99
    ent_coef: str | float = "auto"
    target_entropy: str | float = "auto"
    prior: Prior = None
    net_arch: tuple[int, ...] = (256, 256)
    activation: str = "relu"

    entropy_units = "unit"  # of a flat prior over a box; a setting of SAC
    window = 1  # transitions in what an agent learns from at once

    @property
    def entropy_target(self) -> float:
        """The relative entropy that a tuned temperature keeps, in nats."""
        raise NotImplementedError

    @property
    def greatest_entropy(self) -> float:
        """The most that a policy can have."""
        raise NotImplementedError

    @property
    def tuned(self) -> bool:
        return read_ent_coef(self.ent_coef).tuned

    @property
    def initial_temperature(self) -> float:
        return read_ent_coef(self.ent_coef).value


@dataclass(frozen=True)
class OffPolicy(Shared):
    """What every agent with a replay buffer has."""

    buffer_size: int = 1_000_000
    learning_starts: int = 100  # steps of random actions before the first update
    batch_size: int = 256
    tau: float = 0.005  # target networks: target + tau · (online − target)
    train_freq: int = 1  # steps of every stream between updates
    gradient_steps: int = 1  # updates then; −1: as many as there were transitions

    on_policy = False

    def capacity(self, num: int) -> int:
        """Transitions that are remembered, of `num` streams."""
        return self.buffer_size


@dataclass(frozen=True)
class OnPolicy(Shared):
    """What every agent has that learns from what its present policy does: the buffer holds that, and no more."""

    n_steps: int = 256  # of every stream between updates
    batch_size: int = 64  # an update makes its gradient steps with about so many transitions each

    on_policy, learning_starts, gradient_steps = True, 0, 1

    @property
    def train_freq(self) -> int:
        return self.n_steps

    def capacity(self, num: int) -> int:
        return self.n_steps * num


Settings = OffPolicy | OnPolicy

# setting: (what it must be, test)
MOST_STEPS = 2**31 - 1  # of an agent in all: programs count them in 32 bits
COUNT = ("a whole number of at least 1", lambda x: type(x) is int and 1 <= x)
STEPS = (f"a whole number from 1 to {MOST_STEPS}", lambda x: COUNT[1](x) and x <= MOST_STEPS)
RATE = ("a number above 0", lambda x: is_number(x) and 0 < x < float("inf"))
OWN_RATE = ("a number above 0, or 0 for learning_rate", lambda x: is_number(x) and 0 <= x < float("inf"))
FEW = ("a whole number from 1 to 1000", lambda x: COUNT[1](x) and x <= 1000)
WHOLE = (f"a whole number from 0 to {MOST_STEPS}", lambda x: type(x) is int and 0 <= x <= MOST_STEPS)
RULES: dict[str, tuple[str, Any]] = {
    "learning_rate": RATE,
    "critic_learning_rate": OWN_RATE,
    "actor_learning_rate": OWN_RATE,
    "temperature_learning_rate": OWN_RATE,
    "sampler_learning_rate": OWN_RATE,
    "final_ent_coef": ("a number above 0, or 0 for none", OWN_RATE[1]),
    "anneal_updates": WHOLE,
    "noise_set": WHOLE,
    "target_update_interval": STEPS,
    "critics": FEW,
    "components": FEW,
    "value_samples": FEW,
    "particles": ("an even number from 4 to 1000", lambda x: FEW[1](x) and x >= 4 and x % 2 == 0),
    "bandwidth_scale": RATE,
    "uniform_share": ("a number above 0 and below 1", lambda x: is_number(x) and 0 < x < 1),
    "buffer_size": COUNT,
    "batch_size": STEPS,
    "train_freq": STEPS,
    "n_steps": STEPS,
    "policy_delay": FEW,
    "n_epochs": FEW,
    "gae_lambda": ("a number from 0 to 1", lambda x: is_number(x) and 0 <= x <= 1),
    "clip_range": ("a number from 0 to 1, 0 for none", lambda x: is_number(x) and 0 <= x <= 1),
    "learning_starts": WHOLE,
    "gradient_steps": ("-1, or " + STEPS[0], lambda x: type(x) is int and (x == -1 or STEPS[1](x))),
    "tau": ("a number above 0 and at most 1", lambda x: is_number(x) and 0 < x <= 1),
    "gamma": ("a number from 0 to 1", lambda x: is_number(x) and 0 <= x <= 1),
    "target_entropy": (
        '"auto", "half" or a number',
        lambda x: x in ("auto", "half") if isinstance(x, str) else is_number(x),
    ),
    "activation": (f"one of {', '.join(ACTIVATIONS)}", lambda x: isinstance(x, str) and x in ACTIVATIONS),
    "net_arch": (
        "at most 64 whole numbers of at least 1, one per hidden layer",
        lambda x: isinstance(x, tuple) and len(x) <= 64 and all(COUNT[1](n) and n <= 2**24 for n in x),
    ),
    "log_std_range": (
        "two numbers, the lower one first",
        lambda x: len(x) == 2 and all(map(is_number, x)) and x[0] < x[1],
    ),
    "double": ("true or false", lambda x: isinstance(x, bool)),
}


def is_number(x: object) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < float("inf")


def whole(name: str, value: Any, least: int = 1, most: int = 2**53) -> int:
    """A whole number in this range, of whatever type: 5, 5.0, NumPy's. Raises: `SettingError`."""
    number = plain(value)
    if not is_number(number) or number != int(number) or not least <= number <= most:
        upper = "" if most == 2**53 else f" and at most {most}"
        raise SettingError(f"{name} is {value!r:.60}", f"give a whole number of at least {least}{upper}")
    return int(number)


def settle[S: OffPolicy | OnPolicy](kind: type[S], task: Task, given: Mapping[str, Any]) -> S:
    """The settings of one agent: `given` over the class's defaults, checked.

    `policy_kwargs` may hold net_arch and activation (or activation_fn, by name), and goes before those settings.

    Raises:
        SettingError: a name that this agent does not have, or a value out of range.
    """
    given = {name: plain(value) for name, value in unfold(given).items()}
    known = {field.name: field for field in dataclasses.fields(kind) if field.name != "task"}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise SettingError(f"there is no setting {name!r}", mend.removesuffix("?"))
        choices = known[name].metadata.get("choices")
        what, holds = RULES.get(name, ("", lambda x: True))
        if choices and value not in choices:
            raise SettingError(
                f"{name}={value!r} is none of the choices", f"give one of {', '.join(map(repr, choices))}"
            )
        if not passes(holds, value):
            raise SettingError(f"{name}={value!r} is not {what}", f"the default is {known[name].default!r}")
    if "ent_coef" in given:
        read_ent_coef(given["ent_coef"])
    if "prior" in given:
        given["prior"] = check_prior(given["prior"], task)
    settings = kind(task, **given)
    target, most = settings.entropy_target, settings.greatest_entropy
    if settings.tuned and not callable(settings.prior) and target > most:
        raise SettingError(f"target_entropy={target:.4g} is more than any policy has, {most:.4g}", "lower it")
    if isinstance(settings, OffPolicy) and settings.batch_size > settings.buffer_size:
        raise SettingError(
            f"batch_size={settings.batch_size} is more than buffer_size={settings.buffer_size}",
            "make the buffer larger",
        )
    return settings


def passes(holds: Any, value: object) -> bool:
    try:
        return bool(holds(value))
    except TypeError:
        return False


def unfold(given: Mapping[str, Any]) -> dict[str, Any]:
    """`policy_kwargs` taken apart."""
    flat = dict(given)
    extra = flat.pop("policy_kwargs", None) or {}
    if not isinstance(extra, Mapping):
        raise SettingError(f"policy_kwargs={extra!r} is no dictionary", "give dict(net_arch=[256, 256])")
    for name, value in extra.items():
        if name not in ("net_arch", "activation", "activation_fn"):
            raise SettingError(f"policy_kwargs has no {name!r}", "it may hold net_arch and activation_fn")
        flat[name.removesuffix("_fn")] = value
    return flat


def plain(value: Any) -> Any:
    """Lists as tuples, NumPy scalars as numbers: what can be hashed, compared and written as JSON."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(plain(item) for item in value)
    return value


def to_json(settings: Settings) -> dict[str, Any]:
    """Every setting but the task. A prior that is a function is named, not written: it must be given again."""
    rows = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name != "task"}
    prior = rows["prior"]
    if callable(prior):
        rows["prior"] = "function"
    elif isinstance(prior, tuple):
        rows["prior"] = ["-inf" if p == float("-inf") else p for p in prior]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in rows.items()}
