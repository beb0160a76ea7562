"""What every agent is to its user: `learn`, `predict`, `save`, `load`, with SB3's names."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import gymnasium
import jax
import numpy as np

from nearopt.agents import files
from nearopt.agents.errors import NoEnvironmentError, ObservationError, SettingError, WrongAgentError
from nearopt.agents.keys import NETWORKS, PREDICT, key_for
from nearopt.agents.replay import Replay, Transitions
from nearopt.agents.settings import OffPolicy, OnPolicy, Settings, settle, whole
from nearopt.agents.task import Task
from nearopt.environments import functional
from nearopt.environments.spaces import Spaces
from nearopt.environments.streams import Streams, make
from nearopt.runs.directory import MOST_ENVS

MOST_SEED = 2**31 - 1


class Method(NamedTuple):
    """An algorithm: the pure functions of its file. Each takes the settings first; observations come in batches."""

    name: str
    discrete: bool | None  # None: either
    settings: type[OffPolicy] | type[OnPolicy]
    init: Callable  # (settings, key) → state
    act: Callable  # (settings, state, observation, key, deterministic) → action, log π/p
    update: Callable  # (settings, state, batch, key) → state, metrics
    soft_value: Callable  # (settings, state, observation) → (batch,)
    q_values: Callable  # (settings, state, observation, action) → (batch,)


@partial(jax.jit, static_argnums=(0, 1, 5))
def act(method: Method, settings: Settings, state: Any, observation: Any, key: Any, deterministic: bool) -> Any:
    return method.act(settings, state, observation, key, deterministic)


@partial(jax.jit, static_argnums=(0, 1))
def soft_value(method: Method, settings: Settings, state: Any, observation: Any) -> Any:
    return method.soft_value(settings, state, observation)


@partial(jax.jit, static_argnums=(0, 1))
def q_values(method: Method, settings: Settings, state: Any, observation: Any, action: Any) -> Any:
    return method.q_values(settings, state, observation, action)


@partial(jax.jit, static_argnums=(0, 1))
def init(method: Method, settings: Settings, seed: Any) -> Any:
    return method.init(settings, key_for(seed, NETWORKS))


def shape_of(method: Method, settings: Settings) -> Any:
    """The shapes and types of an agent's state."""
    return jax.eval_shape(partial(method.init, settings), jax.random.key(0))


class World(NamedTuple):
    """An environment, and how it was named."""

    streams: Streams | None  # of Gymnasium
    environment: Any  # in JAX
    spaces: Spaces
    id: str | None
    kwargs: Mapping[str, Any]
    n_envs: int = 1


def enter(env: Any, kwargs: Mapping[str, Any] | None = None, n_envs: int = 1) -> World:
    """The environment behind whatever a user hands over: an id, an environment, a vector, an environment in JAX."""
    kwargs = dict(kwargs or {})
    id = env if isinstance(env, str) else None
    written = functional(env, kwargs) if isinstance(env, str) else env if is_functional(env) else None
    if written is not None:
        return World(None, written, Spaces(written.observation_space, written.action_space), id, kwargs, n_envs)
    if isinstance(env, str):
        streams = make(env, kwargs, n_envs)
        return World(streams, None, streams.spaces, id, kwargs, streams.num)
    if kwargs:
        raise SettingError(f"env_kwargs is {kwargs}, and the environment is made", "give its id, or leave them out")
    streams = Streams(env)
    if streams.num > MOST_ENVS:
        raise SettingError(f"the vector holds {streams.num} environments", f"give at most {MOST_ENVS}")
    return World(streams, None, streams.spaces, *named(env), streams.num)


def named(env: Any) -> tuple[str | None, dict[str, Any]]:
    """The id and the arguments that make this environment anew; no id where they cannot."""
    spec = getattr(env, "spec", None)
    known = None if spec is None else gymnasium.registry.get(spec.id)
    if spec is None or known is None or spec.additional_wrappers or spec.order_enforce != known.order_enforce:
        return None, {}
    if isinstance(env, gymnasium.vector.VectorEnv):  # which autoreset mode, in which processes: no id says
        return None, {}
    changed = {k: getattr(spec, k) for k in ("max_episode_steps", "disable_env_checker")}
    return spec.id, spec.kwargs | {k: v for k, v in changed.items() if v != getattr(known, k)}


def is_functional(env: Any) -> bool:
    return not isinstance(env, gymnasium.Env) and hasattr(env, "observe") and hasattr(env, "max_episode_steps")


def task_of(spaces: Spaces) -> Task:
    if spaces.discrete:
        return Task(spaces.observation_size, num_actions=spaces.num_actions)
    return Task(spaces.observation_size, low=tuple(spaces.low.tolist()), high=tuple(spaces.high.tolist()))


class Agent:
    """The part that SAC, SoftDQN and the others share. Their own pages say what their settings are."""

    method: ClassVar[Method]
    presets: ClassVar[dict[str, dict]] = {}

    def __init__(
        self,
        env: Any,
        *,
        seed: int = 0,
        preset: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        n_envs: int = 1,
        **settings: Any,
    ):
        n_envs = whole("n_envs", n_envs, most=MOST_ENVS)
        self.world: World | None = enter(env, env_kwargs, n_envs)
        if self.world.n_envs != n_envs and n_envs != 1:
            raise SettingError(f"n_envs is {n_envs}, and the environment is {self.world.n_envs}", "leave n_envs out")
        self.build(self.world.spaces, seed, self.preset(preset) | settings)

    def build(
        self, spaces: Spaces, seed: int, settings: Mapping[str, Any], state: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """`state`: the arrays of a file, instead of new ones."""
        if self.method.discrete not in (None, spaces.discrete):
            has, needs = ("discrete actions", "a box") if spaces.discrete else ("actions in a box", "discrete ones")
            others = "SoftDQN or DiscreteSAC" if spaces.discrete else "SAC or SQL"
            raise WrongAgentError(f"the environment has {has}, and {self.method.name} needs {needs}", f"take {others}")
        self.spaces, self.seed = spaces, whole("seed", seed, 0, MOST_SEED)
        self.settings = settle(self.method.settings, task_of(spaces), settings)
        if state is None:
            self.state = init(self.method, self.settings, self.seed)
        else:  # nothing is made before it is known to be of the size that the settings claim
            self.state = files.from_tensors(shape_of(self.method, self.settings), state)
        self.forget()
        self.steps = 0  # transitions learned from, over all calls of learn
        self.predictions = 0
        self.learner: Any = None  # where learning stands in its environment; made by the first learn

    def forget(self) -> None:
        """An empty buffer."""
        num = self.world.n_envs if self.world else 1
        self.buffer = Replay(self.settings.task, self.settings.capacity(num))

    @classmethod
    def preset(cls, name: str | None) -> dict[str, Any]:
        if name is not None and name not in cls.presets:
            there = f"give one of {', '.join(map(repr, cls.presets))}" if cls.presets else "leave it out"
            raise WrongAgentError(f"{cls.__name__} has no preset {name!r}", there)
        return dict(cls.presets.get(name or "", {}))

    # ------------------------------------------------------------ learning
    def learn(
        self,
        total_timesteps: int,
        *,
        run_dir: str | Path | None = None,
        progress_bar: bool = False,
        callback: Callable[[int, dict[str, float]], bool | None] | None = None,
        log_every: int = 1_000,
        checkpoint_every: int = 5_000,
        wandb: str | None = None,
    ) -> Self:
        """`total_timesteps` more transitions, and the updates that belong to them.

        Every call begins with new episodes. Of a vector of environments all take a step at once, and the count may pass
        `total_timesteps` by less than their number; so it does by the steps in which one of them only resets.

        Args:
            run_dir: a new folder for metrics, checkpoints and the agent; `nearopt resume` goes on there.
            progress_bar: on a terminal.
            callback: called with (step, row of metrics) for every row; training stops where it returns False.
            log_every, checkpoint_every: in steps.
            wandb: a project of Weights & Biases, to which the metrics are sent as well; needs `run_dir`.

        Raises:
            DivergedError: a loss is not finite; the agent is as it was before that update.
            NoEnvironmentError: the agent was loaded without one.
            SettingError: a count that is no whole number of at least 1.
            RunExistsError: `run_dir` holds something. CannotSaveError: it takes no files.

        >>> from nearopt import SoftDQN
        >>> agent = SoftDQN("CartPole-v1", seed=0, net_arch=[8], batch_size=16)
        >>> told = []
        >>> agent.learn(200, log_every=100, callback=lambda step, row: told.append(step)).steps
        200
        >>> told
        [100, 200]
        """
        from nearopt.agents.session import Session

        if self.world is None:
            raise NoEnvironmentError("this agent has no environment", "load it with env=…, then learn")
        every = log_every, checkpoint_every
        with Session(total_timesteps, run_dir, progress_bar, callback, *every, wandb) as session:
            session.begin([self])
            learn([self], session)
        return self

    # ------------------------------------------------------------ acting
    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        """One observation or a batch of them → (action or actions, None); SB3's `evaluate_policy` calls it.

        Args:
            observation: as the environment gives it, or (n, ...) of them.
            state, episode_start: SB3's, not used: no agent here has a memory.
            deterministic: the mode of a discrete policy, tanh of the mean of a squashed Gaussian; otherwise a sample.

        Returns:
            Actions in the environment's units and numbers: (A,) or (), of a batch (n, A) or (n,); and None.

        Raises:
            ObservationError: another shape, or numbers that are not finite.

        >>> from nearopt import SAC
        >>> SAC("Pendulum-v1", seed=0, net_arch=[8]).predict([1.0, 0.0, 0.0])[0].shape
        (1,)
        """
        rows, single = self.rows(observation)
        key = key_for(self.seed, PREDICT, self.predictions)
        self.predictions += not deterministic
        action = np.asarray(act(self.method, self.settings, self.state, rows, key, deterministic)[0])
        if self.spaces.discrete:
            action = action.astype(np.int64) + self.spaces.first_action
        return (action[0] if single else action), None

    def soft_value(self, observation: Any) -> np.ndarray:
        """V(s) of one observation () or a batch (n,), in units of reward: what is to come, entropy included.

        V = τ log Σ p exp(Q/τ) where the agent has no actor, otherwise E[Q − τ log π/p] under its policy.

        Raises:
            ObservationError: another shape, or numbers that are not finite.

        >>> from nearopt import SoftDQN
        >>> agent = SoftDQN("CartPole-v1", seed=0, ent_coef=0.5, net_arch=[8])
        >>> q = agent.q_values([0.0, 0.0, 0.0, 0.0])
        >>> bool(np.isclose(agent.soft_value([0.0, 0.0, 0.0, 0.0]), 0.5 * np.log(np.exp(q / 0.5).sum())))
        True
        """
        rows, single = self.rows(observation)
        value = np.asarray(soft_value(self.method, self.settings, self.state, rows), float)
        return value[0] if single else value

    def q_values(self, observation: Any, action: Any = None) -> np.ndarray:
        """Q(s, a), in units of reward.

        Args:
            observation: one, or a batch of n.
            action: in the environment's units and numbers, one or n. Discrete: None for all, (A,) or (n, A).

        Raises:
            ObservationError: another shape, an action that there is not, actions in a box and none given.

        >>> from nearopt import SAC
        >>> agent = SAC("Pendulum-v1", seed=0, net_arch=[8])
        >>> agent.q_values([[1.0, 0.0, 0.0]] * 5, [0.5]).shape
        (5,)
        """
        rows, single = self.rows(observation)
        if action is None and not self.spaces.discrete:
            raise ObservationError("a box has no list of all its actions", "give the action too")
        if self.spaces.discrete:
            q = q_values(self.method, self.settings, self.state, rows, None)
            if action is not None:
                q = np.asarray(q)[np.arange(len(rows)), self.index(action, len(rows))]
        else:
            given = self.box_action(action, len(rows))
            q = q_values(self.method, self.settings, self.state, rows, given)
        return np.asarray(q, float)[0] if single else np.asarray(q, float)

    def index(self, action: Any, rows: int) -> np.ndarray:
        """The agent's numbers of discrete actions, one or `rows` of them."""
        given = np.asarray(action)
        index = given - self.spaces.first_action if given.dtype.kind in "iu" else np.array(-1)
        if index.shape not in ((), (rows,)) or (index < 0).any() or (index >= self.spaces.num_actions).any():
            raise self.no_action(action, f"give one of them, or one for each of the {rows} observations")
        return index

    def box_action(self, action: Any, rows: int) -> np.ndarray:
        """Actions in a box as (rows, A) float32."""
        size = self.settings.task.action_size
        try:
            given = np.asarray(action, np.float32)
        except (TypeError, ValueError):
            given = np.array(np.nan)
        if given.shape not in ((size,), (rows, size)) or not np.isfinite(given).all():
            raise self.no_action(action, f"give {size} finite numbers, or a row for each of the {rows} observations")
        return np.broadcast_to(given, (rows, size))

    def no_action(self, action: Any, mend: str) -> ObservationError:
        return ObservationError(f"{action!r:.60} is no action of {self.spaces.action}", mend)

    def rows(self, observation: Any) -> tuple[np.ndarray, bool]:
        """A batch of flat observations, and whether there was only one."""
        flat = self.spaces.flatten(observation)
        if not np.isfinite(flat).all():
            raise ObservationError(f"{observation!r:.60} is not finite", "give numbers")
        return (flat[None], True) if flat.ndim == 1 else (flat, False)

    @property
    def temperature(self) -> float:
        return float(np.exp(self.state.log_temperature))

    @property
    def replay(self) -> Transitions:
        """What is in the buffer, oldest first, as (n, ...) arrays; actions in the environment's units and numbers.

        >>> from nearopt import SoftDQN
        >>> SoftDQN("CartPole-v1", seed=0, net_arch=[8], batch_size=16).learn(50).replay.observation.shape
        (50, 4)
        """
        held = self.buffer.contents()
        return held._replace(action=held.action + self.spaces.first_action) if self.spaces.discrete else held

    # ------------------------------------------------------------ files
    def save(self, folder: str | Path) -> None:
        """agent.safetensors and agent.json: networks, targets, optimisers, temperature, settings; no replay buffer.

        Raises:
            CannotSaveError: a full disk, missing rights; an agent that was there is still there.

        >>> import tempfile
        >>> from nearopt import SAC
        >>> agent, seen = SAC("Pendulum-v1", seed=0, net_arch=[8]), [1.0, 0.0, 0.0]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     agent.save(folder)
        ...     bool(SAC.load(folder).soft_value(seen) == agent.soft_value(seen))
        True
        """
        files.save_agent(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, env: Any = None, prior: Callable | None = None, **settings: Any) -> Self:
        """What `save` wrote; nothing in it is run. With `env` it can learn on. A prior that is a function is given too.

        With other `settings` it learns anew from these networks: optimisers and the count of updates begin again, and
        so does the temperature where `ent_coef` is among them.

        Raises:
            MissingFileError: there is none. DamagedFileError: any changed byte.
            SettingError: a setting that does not exist, is out of range, or does not fit the networks.
            WrongAgentError: an agent of another class, or another environment's.

        >>> import tempfile
        >>> from nearopt import SAC
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SAC("Pendulum-v1", seed=0, net_arch=[8], ent_coef=0.5).save(folder)
        ...     SAC.load(folder, ent_coef=0.25).temperature
        0.25
        """
        agent = files.load_agent(Path(folder), env, prior, {cls.__name__: cls})
        if settings:
            agent.renew(settings)
        return agent

    def renew(self, changes: Mapping[str, Any]) -> None:
        """Other settings, the same networks; what belongs to learning begins again."""
        saved = {f.name: getattr(self.settings, f.name) for f in fields(self.settings) if f.name != "task"}
        settings = settle(self.method.settings, self.settings.task, saved | dict(changes))
        fresh = init(self.method, settings, self.seed)
        begins = {"updates"} | ({"log_temperature"} if "ent_coef" in changes else set())
        kept = {f.name: getattr(self.state, f.name) for f in fields(fresh) if f.name not in begins}
        kept = {name: part for name, part in kept.items() if not name.endswith("_moments")}
        form = lambda tree: jax.tree.map(jax.numpy.shape, tree)
        if any(form(part) != form(getattr(fresh, name)) for name, part in kept.items()):
            raise SettingError(f"{dict(changes)} asks for other networks than the file's", "leave those settings out")
        self.settings, self.state = settings, replace(fresh, **kept)
        self.forget()


def learn(agents: list[Agent], session: Any) -> None:
    """Until the session's end: with Gymnasium step by step, in JAX whole blocks of steps for all agents at once."""
    world = agents[0].world
    assert world is not None
    if world.environment is not None:
        from nearopt.agents.compiled import train
    else:
        from nearopt.agents.training import train
    train(agents, session)
