"""Two tasks at once, of agents that learned each alone (Haarnoja et al. 2018, arXiv 1803.06773).

The Qs of SQL agents are added, and only a sampler is trained, towards p exp(Σ_i Q_i/τ), at the states of all their
replay buffers: an agent counts by what its buffer holds, as in the released softqlearning code.

At the agents' own temperature the sum is the product of their policies, π ∝ p Π_i (π_i/p). The paper takes the mean of
the n Qs: that is the sum at temperature nτ, the geometric mean of the policies. Of the mean Q_Σ the paper shows how far
it is from the optimum Q* of the mean reward (Lemma 1): Q_Σ ≥ Q* ≥ Q_Σ − C with, for two agents,
C(s, a) = γ E_s'[½ τ D_½(π_1 ‖ π_2) + max_a' C(s', a')] and Rényi's divergence D_½ = −2 log Σ √(π_1 π_2): policies that
agree lose nothing, and what they lose is only what lies ahead. And its policy π_Σ is worth at least Q* − D, with
D(s, a) = γ E_s'[E_a'~π_Σ[C(s', a') + D(s', a')]] (Theorem 1). `tests/agents/test_composition.py` holds both exactly.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nearopt.agents import sql
from nearopt.agents.agent import Agent, Method, enter
from nearopt.agents.errors import DivergedError, SettingError, WrongAgentError
from nearopt.agents.keys import NETWORKS, key_for
from nearopt.agents.networks import MLP
from nearopt.agents.replay import Batch
from nearopt.agents.settings import MOST_STEPS, whole


@dataclass(frozen=True)
class Settings(sql.Settings):
    """Those of SQL; what belongs to learning Q means nothing here. `parts`: how many Qs are added."""

    learning_starts: int = 0
    parts: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.parts) is not int or not 2 <= self.parts <= 1000:
            raise SettingError(f"parts={self.parts!r} is no whole number from 2 to 1000", "compose as many agents")
        if self.tuned or self.final_ent_coef:
            given = f"ent_coef={self.ent_coef!r}, final_ent_coef={self.final_ent_coef}"
            raise SettingError(f"{given}: a composition keeps its temperature", "give ent_coef, a number, alone")


class State(eqx.Module):
    """The sampler changes, the Qs do not."""

    critics: MLP  # with two leading axes: agents, and the critics of each
    scales: Float[Array, " parts"]  # the units of each agent's Q
    sampler: MLP
    log_temperature: Float[Array, ""]
    sampler_moments: optax.OptState
    updates: Int[Array, ""]

    def q(self, observation: Float[Array, "batch size"], unit: Float[Array, "batch n A"]) -> Float[Array, "batch n"]:
        """Σ_i Q_i, each the least of its critics."""
        each = jax.vmap(sql.q_values, in_axes=(0, 0, None, None))
        return each(self.scales, self.critics, observation, unit).sum(axis=0)


def init(settings: Settings, key: PRNGKeyArray) -> State:
    """Of Qs that know nothing, and a sampler as new."""
    one = jax.vmap(partial(sql.init, settings))(jax.random.split(key, settings.parts))
    first = jax.tree.map(lambda x: x[0], one)
    return State(one.critic, one.scale, first.sampler, first.log_temperature, first.sampler_moments, first.updates)


def update(settings: Settings, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, dict[str, Array]]:
    """One gradient step of the sampler at the states of a batch; nothing else in it is used."""
    first, second = jax.random.split(key)
    sampler, moments, gap = sql.improve(settings, state, state.q, batch.observation, first)
    here = sql.value(settings, state, state.q, batch.observation, settings.value_samples, second)
    moved = replace(state, sampler=sampler, sampler_moments=moments, updates=state.updates + 1)
    finite = jnp.isfinite(gap).astype(jnp.float32)
    return moved, dict(sampler_gap=gap, entropy=here.entropy.mean(), ess=here.ess.mean(), finite=finite)


@partial(jax.jit, static_argnums=(0, 3))
def retrain(
    settings: Settings, state: State, observation: Float[Array, "n size"], updates: int, key: PRNGKeyArray
) -> tuple[State, Array]:
    """So many updates, each at states drawn evenly from these rows; and whether all of them were finite."""

    def one(state: State, key: PRNGKeyArray) -> tuple[State, Array]:
        first, second = jax.random.split(key)
        rows = observation[jax.random.randint(first, (settings.batch_size,), 0, len(observation))]
        none = jnp.zeros(settings.batch_size)
        state, report = update(settings, state, Batch(rows, none, none, rows, none), second)
        return state, report["finite"]

    state, finite = jax.lax.scan(one, state, jax.random.split(key, updates))
    return state, finite.all()


class Composition(Agent):
    """What `compose` makes of SQL agents; `load` reads it from a file, as every agent."""

    origin: dict[str, Any]
    method = Method("Composition", False, Settings, init, sql.act, update, sql.soft_value, sql.action_values)

    def __init__(self, *_: Any, **__: Any):
        raise WrongAgentError("a composition is made of agents that have learned", "call nearopt.compose([a, b])")


def compose(
    agents: Iterable[sql.SQL], *, updates: int = 2_000, seed: int = 0, env: Any = None, **settings: Any
) -> Composition:
    """An agent whose Q is the sum of theirs, at their temperature: it does what all of them agree is good.

    Its buffer begins with all that theirs hold; `steps` counts that too. `learn(n)` acts with the composed policy, adds
    what it sees, and goes on training the sampler; the Qs stay.

    Args:
        agents: SQL agents with the same observations, actions and networks, just trained: no file holds a buffer.
        updates: gradient steps of the sampler, which begins anew: after some 250 it is as good as one that began as the
            first agent's, and it does not depend on their order.
        seed: of the sampler's training, and of the composed agent.
        env: to learn on, where that is wanted: an id, or an environment.
        settings: `ent_coef` where the agents' temperatures differ, or another is meant (n times theirs: the mean of the
            n Qs); `prior` where their priors differ; others instead of the first agent's, the sampler's kind for one.

    Raises:
        WrongAgentError: fewer than two, not SQL, other spaces or networks, or nothing in a buffer.
        SettingError: a setting that does not exist, or no common temperature or prior and none given.
        DivergedError: the sampler's loss is not finite.

    >>> small = dict(net_arch=[8], batch_size=16, learning_starts=20, particles=8)
    >>> a, b = (sql.SQL("nearopt/MultiGoal-v0", seed=seed, **small).learn(40) for seed in (0, 1))
    >>> both, seen, action = compose([a, b], updates=10), [1.0, 0.0], [0.5, 0.5]
    >>> bool(np.isclose(both.q_values(seen, action), a.q_values(seen, action) + b.q_values(seen, action)))
    True
    >>> len(both.replay.reward), both.temperature
    (80, 1.0)
    """
    agents = check(agents)
    updates = whole("updates", updates, 0, MOST_STEPS)
    held = [agent.buffer.since(agent.buffer.oldest) for agent in agents]
    rows = {name: np.concatenate([part[name] for part in held]) for name in held[0]}
    size = len(rows["reward"])
    both = Composition.__new__(Composition)
    both.world = None if env is None else enter(env)
    both.origin = dict(id=None, kwargs={}, n_envs=1)
    if both.world is not None and both.world.spaces.to_json() != agents[0].spaces.to_json():
        raise WrongAgentError("env has other observations or actions than the agents", "give one like theirs")
    both.build(agents[0].spaces, seed, inherited(agents, settings, size))
    both.buffer.extend(rows, 0)
    both.steps = size
    stack = lambda get: jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(get, agents))
    begun = replace(both.state, critics=stack(lambda a: a.state.critic), scales=stack(lambda a: a.state.scale))
    seen = jnp.asarray(rows["observation"])
    both.state, finite = retrain(both.settings, begun, seen, updates, key_for(both.seed, NETWORKS, 1))
    if not finite:
        raise DivergedError("the sampler's loss is not finite", "lower sampler_learning_rate")
    return both


def check(given: Any) -> list[sql.SQL]:
    """The agents, or a sentence about why they cannot be added."""
    agents = list(given) if isinstance(given, Iterable) else [given]
    for number, agent in enumerate(agents):
        if not isinstance(agent, sql.SQL):
            raise WrongAgentError(f"agents[{number}] is no SQL agent but {type(agent).__name__}", "train it as SQL")
    if len(agents) < 2:
        raise WrongAgentError(f"the number of agents is {len(agents)}", "give at least two")
    first = agents[0]
    networks = lambda one: {name: getattr(one.settings, name) for name in ("net_arch", "activation", "critics")}
    for number, agent in enumerate(agents):
        if agent.spaces.to_json() != first.spaces.to_json():
            problem = f"agents[{number}] has other observations or actions than agents[0]"
            raise WrongAgentError(problem, "compose agents of one world, with other rewards")
        for name, value in networks(agent).items():
            if value != networks(first)[name]:
                problem = f"agents[{number}] has {name}={value!r}, and agents[0] {networks(first)[name]!r}"
                raise WrongAgentError(problem, "train them with the same networks")
        if not len(agent.buffer):
            problem = f"the replay buffer of agents[{number}] is empty"
            raise WrongAgentError(problem, "compose agents where they were trained; files hold no buffer")
    return agents


def inherited(agents: Sequence[sql.SQL], given: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The first agent's settings with what is given, room for `size` transitions, and nothing that is annealed."""
    fixed = [name for name in ("parts", "net_arch", "activation", "critics", "policy_kwargs") if name in given]
    if fixed:
        raise SettingError(f"{fixed[0]}={given[fixed[0]]!r} is not to be chosen: the agents have it", "leave it out")
    first: Any = agents[0].settings
    own = {f.name: getattr(first, f.name) for f in fields(first) if f.name != "task"}
    own |= dict(learning_starts=0, final_ent_coef=0.0, anneal_updates=0, noise_set=0)
    own |= dict(buffer_size=max(first.buffer_size, size), parts=len(agents))
    temperatures = [float(f"{agent.temperature:.6g}") for agent in agents]  # 0.1, not 0.0999999940
    own["ent_coef"] = agreed("ent_coef", given, temperatures, lambda a, b: bool(np.isclose(a, b, rtol=1e-4)))
    own["prior"] = agreed("prior", given, [agent.settings.prior for agent in agents], lambda a, b: a is b or a == b)
    settings = own | dict(given)
    if settings["buffer_size"] < size:
        problem = f"buffer_size={settings['buffer_size']} is less than the {size} transitions of the agents"
        raise SettingError(problem, "make it larger, or leave it out")
    return settings


def agreed(name: str, given: Mapping[str, Any], values: Sequence[Any], same: Callable) -> Any:
    """What is given, or what all agents have."""
    if name in given:
        return given[name]
    for number, value in enumerate(values):
        if not same(values[0], value):
            problem = f"agents[0] has {name}={values[0]!r:.60}, and agents[{number}] {value!r:.60}"
            raise SettingError(problem, f"give {name}=…")
    return values[0]
