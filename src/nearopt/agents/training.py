"""Learning in a Gymnasium environment: act, step, remember, update.

One compiled program per step: the updates that are due, then the next action. While it computes, the books are kept.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nearopt.agents import files
from nearopt.agents.acting import Choice, choose, guess
from nearopt.agents.agent import Agent, Method
from nearopt.agents.keys import keys_of
from nearopt.agents.monitor import Monitor, check_form
from nearopt.agents.replay import Batch, batch_shape, columns
from nearopt.agents.session import Session
from nearopt.agents.settings import Settings, whole
from nearopt.environments.capture import capture, restore
from nearopt.environments.errors import CaptureError, RestoreError


class Learner:
    """Where learning stands between two steps. All of it is plain data, and goes into checkpoints."""

    def __init__(self, agent: Agent):
        assert agent.world is not None and agent.world.streams is not None
        self.streams = agent.world.streams
        self.rng = np.random.default_rng([agent.seed, agent.steps])
        self.observation = self.streams.reset(agent.seed + agent.steps)
        self.monitor = Monitor(self.streams.num, report_names(agent))
        self.rounds = 0  # steps of all streams
        self.learned = agent.buffer.inserted  # transitions before this one are not of the present policy
        self.choice: Choice | None = None  # made together with the last update

    def capture(self, agent: Agent) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and facts for a checkpoint."""
        arrays = {f"monitor.{name}": array for name, array in self.monitor.capture().items()}
        arrays["observation"] = self.observation
        if self.choice is not None:  # computed anew by another program it might differ in its last bit
            arrays |= dict(action=np.asarray(self.choice.action), bonus=np.asarray(self.choice.bonus))
        try:
            environment, reason = files.pack(capture(self.streams), "environment.", arrays), None
        except CaptureError as error:
            environment, reason = None, error.problem
        newest = list(agent.buffer.newest.items())
        facts = dict(rounds=self.rounds, learned=self.learned, rng=self.rng.bit_generator.state, newest=newest)
        return arrays, facts | dict(environment=environment, reason=reason)

    def restore(self, agent: Agent, arrays: Any, facts: Any, rows: Any, first: int) -> str | None:
        """Back to what `capture` saw. Where the environment's state is not to be had: to new episodes, and why."""
        self.monitor.restore({n.removeprefix("monitor."): x for n, x in arrays.items() if n.startswith("monitor.")})
        check_form(arrays, dict(observation=self.observation))
        self.rounds, self.rng.bit_generator.state = whole("rounds", facts["rounds"], 0), facts["rng"]
        self.learned = whole("learned", facts["learned"], 0)
        agent.buffer.restore(rows, first, {stream: number for stream, number in facts["newest"]})
        reason = facts["reason"]
        if facts["environment"] is not None:
            try:
                restore(self.streams, files.unpack(facts["environment"], arrays))
            except RestoreError as error:  # another model, say, since its last reset
                reason = error.problem
        if reason is None:
            self.observation = arrays["observation"]
            if "action" in arrays:
                row, kind = columns(agent.settings.task)["action"]
                form = dict(
                    action=np.zeros((self.streams.num, *row), kind), bonus=np.zeros(self.streams.num, np.float32)
                )
                check_form(arrays, form)
                if not self.streams.spaces.allows(arrays["action"]):
                    raise ValueError("the next action is none")
                self.choice = Choice(arrays["action"], arrays["bonus"])
            return None
        self.observation = self.streams.reset(agent.seed + agent.steps)
        self.monitor.running[:] = 0.0
        agent.buffer.newest.clear()
        return reason


@partial(jax.jit, static_argnums=(0, 1))
def decide(method: Method, settings: Settings, state: Any, observation: Any, seed: Any, step: Any) -> Choice:
    return choose(method, settings, state, observation, keys_of(seed, step).action)


@partial(jax.jit, static_argnums=0)
def decide_at_random(settings: Settings, state: Any, observation: Any, seed: Any, step: Any) -> Choice:
    return guess(settings, state, observation, keys_of(seed, step).guess)


@partial(jax.jit, static_argnums=(0, 1))
def advance(method: Method, settings: Settings, state: Any, batches: Batch, observation: Any, seed: Any, step: Any):
    """Updates, one per batch (their leading axis), then an action. Reports are (updates, names)."""
    keys = keys_of(seed, step)
    state, reports = updates(method, settings, state, batches, keys.update)
    return state, reports, choose(method, settings, state, observation, keys.action)


def updates(method: Method, settings: Settings, state: Any, batches: Batch, key: Any) -> tuple[Any, Any]:
    """A block of gradient steps: one per batch."""

    def one(state: Any, row: tuple) -> tuple[Any, Any]:
        state, report = method.update(settings, state, *row)
        return state, jnp.stack([report[name].astype(jnp.float32) for name in sorted(report)])

    count = batches.reward.shape[0]
    split = jax.random.split(key, count)
    if count == 1:  # a loop of one step costs more than the step
        state, report = one(state, jax.tree.map(lambda x: x[0], (batches, split)))
        return state, report[None]
    return jax.lax.scan(one, state, (batches, split))


def again(
    method: Method, settings: Settings, state: Any, batches: Batch, seed: int, step: int
) -> dict[str, np.ndarray]:
    """What the updates of this step report, by name, one entry per update."""
    names = sorted(
        jax.eval_shape(
            partial(method.update, settings), state, jax.tree.map(lambda x: x[0], batches), jax.random.key(0)
        )[1]
    )
    reports = np.asarray(updates(method, settings, state, batches, keys_of(seed, step).update)[1])
    return dict(zip(names, reports.T, strict=True))


def report_names(agent: Agent) -> tuple[str, ...]:
    """What an update of this agent reports, in alphabetical order."""
    settings, size = agent.settings, agent.buffer.capacity
    batch = batch_shape(settings, (size if settings.on_policy else settings.batch_size,))
    shapes = jax.eval_shape(partial(agent.method.update, settings), agent.state, batch, jax.random.key(0))
    return tuple(sorted(shapes[1]))


# ---------------------------------------------------------------- the loop
def train(agents: list[Agent], session: Session) -> None:
    """One agent, until the session's end."""
    (agent,) = agents
    agent.buffer.newest.clear()  # the environment may have been used since: every call begins with new episodes
    agent.learner = Learner(agent)
    session.ready([agent])
    while agent.steps < session.end:
        step(agent, session)
        session.after([agent])


def step(agent: Agent, session: Session) -> None:
    """One step of every stream, and the updates that are due after it."""
    learner, settings = agent.learner, agent.settings
    now = (agent.state, learner.observation, agent.seed, agent.steps)
    if agent.steps < settings.learning_starts:
        choice = decide_at_random(settings, *now)
    else:
        choice = learner.choice or decide(agent.method, settings, *now)
    learner.choice = None
    action, bonus = np.asarray(choice.action), np.asarray(choice.bonus)
    moves = learner.streams.step(action)
    ended = (moves.terminated | moves.truncated) & moves.real
    agent.buffer.add(
        learner.observation, action, moves.reward, moves.next_observation, moves.terminated, moves.truncated, moves.real
    )
    learner.observation = moves.observation
    learner.rounds += 1
    agent.steps += learner.streams.num
    if due(agent):
        improve(agent, session)
    learner.monitor.moved(moves.reward, bonus, ended, moves.real)


def due(agent: Agent) -> bool:
    """Whether to learn now."""
    learner, settings, buffer = agent.learner, agent.settings, agent.buffer
    if settings.on_policy:  # not by rounds: a stream that only resets itself adds nothing
        return buffer.inserted - learner.learned >= buffer.capacity
    return agent.steps > settings.learning_starts and learner.rounds % settings.train_freq == 0 and len(buffer) > 0


def batches_of(agent: Agent) -> Batch:
    """What to learn from now: one batch per update."""
    learner, settings = agent.learner, agent.settings
    if settings.on_policy:
        learner.learned = agent.buffer.inserted
        return jax.tree.map(lambda column: column[None], agent.buffer.everything())
    count = settings.gradient_steps if settings.gradient_steps > 0 else settings.train_freq * learner.streams.num
    return agent.buffer.sample(learner.rng, (count, settings.batch_size), settings.window)


def improve(agent: Agent, session: Session) -> None:
    """The updates that are due, and the next action with them."""
    learner, settings = agent.learner, agent.settings
    batches = batches_of(agent)
    before = agent.state
    state, reports, choice = advance(
        agent.method, settings, before, batches, learner.observation, agent.seed, agent.steps
    )
    reports = np.asarray(reports)
    if not reports[:, learner.monitor.finite].all():
        raise session.diverged(agent, 0, batches, dict(zip(learner.monitor.names, reports.T, strict=True)))
    learner.monitor.learned(reports)
    agent.state, learner.choice = state, choice
