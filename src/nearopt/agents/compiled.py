"""Learning in an environment written in JAX: the whole loop is one program, for one agent or for many seeds at once.

A step is written for one agent and `vmap`ped; the loop over steps is outside, so that all agents share the counters,
and a branch not taken is not computed. Between blocks of steps the host writes metrics and checkpoints.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nearopt.agents import files
from nearopt.agents.acting import choose, guess
from nearopt.agents.agent import Agent, Method
from nearopt.agents.keys import BEGIN, key_for, keys_of
from nearopt.agents.monitor import Monitor
from nearopt.agents.replay import Batch, Later
from nearopt.agents.session import Session
from nearopt.agents.settings import OffPolicy
from nearopt.agents.training import again, report_names, updates

LEAST = 2**14  # transitions in a ring


class Place(NamedTuple):
    """Where one agent is: the environment's state, and (return, soft return, length) of the episode so far."""

    state: Any
    running: Any


class Learned(NamedTuple):
    """What updates change."""

    state: Any
    reports: Any  # sums of what updates said, over
    counts: Any  # the number of those that said it
    finite: Any  # whether every loss so far was


class Carry(NamedTuple):
    """All that a step changes."""

    learned: Learned
    world: Place
    ring: dict[str, Any]
    finished: Any  # (return, soft return, length), summed over the episodes that ended
    episodes: Any


class Program(NamedTuple):
    """What a step does not change. `offset`: transition number n came at step n + offset."""

    method: Method
    settings: OffPolicy
    environment: Any
    names: tuple[str, ...]
    offset: int


class Learner:
    """What is kept of one agent between blocks."""

    def __init__(self, agent: Agent):
        assert agent.world is not None
        environment = agent.world.environment
        self.world = Place(environment.reset(key_for(agent.seed, BEGIN, agent.steps)), jnp.zeros(3))
        self.monitor = Monitor(1, report_names(agent))
        self.offset = agent.steps - agent.buffer.inserted

    def capture(self, agent: Agent) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {f"monitor.{name}": array for name, array in self.monitor.capture().items()}
        arrays |= {f"world.{name}": array for name, array in files.to_tensors(self.world).items()}
        return arrays, {}

    def restore(self, agent: Agent, arrays: Any, facts: Any, rows: Any, first: int) -> str | None:
        part = lambda start: {n.removeprefix(start): x for n, x in arrays.items() if n.startswith(start)}
        self.monitor.restore(part("monitor."))
        self.world = files.from_tensors(self.world, part("world."))
        agent.buffer.restore(rows, first, {})
        self.offset = agent.steps - agent.buffer.inserted


# ---------------------------------------------------------------- one step of one agent
def interact(program: Program, carry: Carry, seed: Any, step: Any) -> Carry:
    """Acts once, and remembers what came of it."""
    method, settings, environment, _, offset = program
    keys = keys_of(seed, step)
    before = environment.observe(carry.world.state)[None]
    chosen = lambda: choose(method, settings, carry.learned.state, before, keys.action)
    guessed = lambda: guess(settings, carry.learned.state, before, keys.guess)
    choice = jax.lax.cond(step < settings.learning_starts, guessed, chosen) if settings.learning_starts else chosen()
    after, reward, terminated = environment.step(keys.move, carry.world.state, choice.action[0])
    running = carry.world.running + jnp.stack([reward, reward + choice.bonus[0], 1.0])
    ended = terminated | (running[2] >= environment.max_episode_steps)
    row = dict(
        observation=before[0],
        action=choice.action[0],
        reward=reward,
        next_observation=environment.observe(after),
        terminated=terminated,
        ended=ended,
        back=(carry.world.running[2] > 0).astype(jnp.int32),
    )
    slot = (step - offset) % carry.ring["reward"].shape[0]
    ring = {name: column.at[slot].set(row[name]) for name, column in carry.ring.items()}
    begun = environment.reset(keys.reset)
    world = Place(
        jax.tree.map(lambda new, old: jnp.where(ended, new, old), begun, after), jnp.where(ended, 0.0, running)
    )
    finished = carry.finished + jnp.where(ended, running, 0.0)
    return carry._replace(world=world, ring=ring, finished=finished, episodes=carry.episodes + ended.astype(jnp.int32))


def sample(program: Program, ring: dict[str, Any], seed: Any, step: Any) -> Batch:
    """The batches of the updates after this step: (updates, batch, ...), windows as in `Replay.sample`."""
    settings, capacity = program.settings, ring["reward"].shape[0]
    count = settings.gradient_steps if settings.gradient_steps > 0 else settings.train_freq
    newest = step - 1 - program.offset
    held = jnp.minimum(newest + 1, capacity)
    slots = jax.random.randint(keys_of(seed, step).sample, (count, settings.batch_size), 0, held)
    last, later = slots, None
    if settings.n_steps > 1:
        at, on, inside = [], [], True
        for _ in range(settings.n_steps - 1):
            following = (last + 1) % capacity
            inside = inside & (last != newest % capacity) & (ring["back"][following] == 1)
            last = jnp.where(inside, following, last)
            at.append(last)
            on.append(inside)
        rows = jnp.stack(at, axis=-1)
        later = Later(ring["observation"][rows], ring["action"][rows], ring["reward"][rows], jnp.stack(on, axis=-1))
    observation, action, reward = (ring[name][slots] for name in ("observation", "action", "reward"))
    terminated = ring["terminated"][last].astype(jnp.float32)
    return Batch(observation, action, reward, ring["next_observation"][last], terminated, later)


def improve(program: Program, learned: Learned, ring: dict[str, Any], seed: Any, step: Any) -> Learned:
    """The updates that are due after this step."""
    batches = sample(program, ring, seed, step)
    state, reports = updates(program.method, program.settings, learned.state, batches, keys_of(seed, step).update)
    told = ~jnp.isnan(reports)
    return Learned(
        state,
        learned.reports + jnp.where(told, reports, 0.0).sum(axis=0),
        learned.counts + told.sum(axis=0),
        learned.finite & (reports[:, program.names.index("finite")] > 0).all(),
    )


# ---------------------------------------------------------------- many steps of many agents
@eqx.filter_jit
def block(program: Program, carry: Carry, seeds: Any, first: Any, last: Any) -> Carry:
    """The steps first, …, last − 1 of all agents (the leading axis of `carry` and `seeds`)."""
    settings = program.settings

    def step(number: Any, carry: Carry) -> Carry:
        carry = jax.vmap(partial(interact, program), in_axes=(0, 0, None))(carry, seeds, number)
        learn = lambda learned: jax.vmap(partial(improve, program), in_axes=(0, 0, 0, None))(
            learned, carry.ring, seeds, number + 1
        )
        due = (number + 1 > settings.learning_starts) & ((number + 1) % settings.train_freq == 0)
        # The ring does not pass through the branch: there it would be copied.
        return carry._replace(learned=jax.lax.cond(due, learn, lambda learned: learned, carry.learned))

    return jax.lax.fori_loop(first, last, step, carry)


def train(agents: list[Agent], session: Session) -> None:
    """All agents in step, until the session's end."""
    for agent in agents:
        agent.learner = Learner(agent)
    session.ready(agents)
    first = agents[0]
    assert first.world is not None
    program = Program(
        first.method, first.settings, first.world.environment, first.learner.monitor.names, first.learner.offset
    )
    # A buffer that cannot fill is made smaller, to a power of 2: another call of `learn` then finds its program again.
    capacity = min(first.settings.buffer_size, max(LEAST, 2 ** (session.end - program.offset - 1).bit_length()))
    seeds = jnp.asarray([agent.seed for agent in agents], jnp.uint32)
    carry = stack([start(agent, capacity) for agent in agents])
    while first.steps < session.end:
        begin, end = first.steps, session.until()
        after = block(program, carry, seeds, jnp.int32(begin), jnp.int32(end))
        if not np.asarray(after.learned.finite).all():
            raise failed(program, agents, session, carry, seeds, begin, end)
        for number, agent in enumerate(agents):
            absorb(agent, after, number, begin, end)
        carry = afresh(after)
        session.after(agents)


def start(agent: Agent, capacity: int) -> Carry:
    """What a block begins with: the host's replay buffer as a ring on the device."""
    names, buffer = len(agent.learner.monitor.names), agent.buffer
    ring = {name: np.zeros((capacity, *column.shape[1:]), column.dtype) for name, column in buffer.rows.items()}
    oldest = max(buffer.oldest, buffer.inserted - capacity)
    slots = np.arange(oldest, buffer.inserted) % capacity
    for name, column in buffer.since(oldest).items():
        ring[name][slots] = column
    learned = Learned(agent.state, jnp.zeros(names), jnp.zeros(names), jnp.bool_(True))
    return Carry(learned, agent.learner.world, jax.tree.map(jnp.asarray, ring), jnp.zeros(3), jnp.int32(0))


def afresh(carry: Carry) -> Carry:
    """Without the sums, which the monitor has by now."""
    zero = jnp.zeros_like
    learned = carry.learned._replace(reports=zero(carry.learned.reports), counts=zero(carry.learned.counts))
    return carry._replace(learned=learned, finished=zero(carry.finished), episodes=zero(carry.episodes))


def stack(trees: list[Carry]) -> Carry:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def absorb(agent: Agent, after: Carry, number: int, begin: int, end: int) -> None:
    """What the steps begin, …, end − 1 have changed of one agent, the `number`th."""
    mine = lambda tree: jax.tree.map(lambda x: x[number], tree)
    learner = agent.learner
    agent.state, agent.steps, learner.world = mine(after.learned.state), end, mine(after.world)
    capacity = after.ring["reward"].shape[1]
    numbers = np.arange(max(begin, end - capacity), end) - learner.offset
    rows = {name: np.asarray(column)[number, numbers % capacity] for name, column in after.ring.items()}
    agent.buffer.extend(rows, int(numbers[0]))
    sums = (after.finished, after.episodes, after.learned.reports, after.learned.counts)
    learner.monitor.add(*(np.asarray(part[number], float) for part in sums))


def failed(program: Program, agents: list[Agent], session: Session, carry: Carry, seeds: Any, begin: int, end: int):
    """The error for a loss in this block that is not finite. All is deterministic: the step is found by repeating."""
    good, bad = begin, end  # finite after `good` steps, not after `bad`
    while bad - good > 1:
        middle = (good + bad) // 2
        fine = np.asarray(block(program, carry, seeds, jnp.int32(begin), jnp.int32(middle)).learned.finite).all()
        good, bad = (middle, bad) if fine else (good, middle)
    before = block(program, carry, seeds, jnp.int32(begin), jnp.int32(good))
    moved = jax.vmap(partial(interact, program), in_axes=(0, 0, None))(before, seeds, good)
    batches = jax.vmap(partial(sample, program), in_axes=(0, 0, None))(moved.ring, seeds, bad)
    after = jax.vmap(partial(improve, program), in_axes=(0, 0, 0, None))(moved.learned, moved.ring, seeds, bad)
    number = int(np.argmin(np.asarray(after.finite)))
    for index, agent in enumerate(agents):
        absorb(agent, moved, index, begin, bad)
    batch = jax.tree.map(lambda x: np.asarray(x[number]), batches)
    bad_one = agents[number]
    told = again(program.method, program.settings, bad_one.state, batch, bad_one.seed, bad)
    return session.diverged(bad_one, number, batch, told)
