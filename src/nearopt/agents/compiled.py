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
from nearopt.agents.replay import Batch, Later, in_order
from nearopt.agents.session import Session
from nearopt.agents.settings import Settings
from nearopt.agents.training import again, report_names, updates

LEAST = 2**14  # transitions in a ring


class Place(NamedTuple):
    """Where one agent is, in each of its streams: the environment's state, and what the episode brought so far."""

    state: Any  # with a leading axis: streams
    running: Any  # (streams, 3): return, soft return, length


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
    """What a step does not change. `offset`: transition number n came at step n + offset. `num` streams."""

    method: Method
    settings: Settings
    environment: Any
    names: tuple[str, ...]
    offset: int
    num: int


class Learner:
    """What is kept of one agent between blocks."""

    def __init__(self, agent: Agent):
        assert agent.world is not None
        environment, num = agent.world.environment, agent.world.n_envs
        begun = jax.vmap(environment.reset)(each(key_for(agent.seed, BEGIN, agent.steps), num))
        self.world = Place(begun, jnp.zeros((num, 3)))
        self.monitor = Monitor(num, report_names(agent))
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


def each(key: Any, num: int) -> Any:
    """A key for every stream (num,)."""
    return key[None] if num == 1 else jax.random.split(key, num)


# ---------------------------------------------------------------- one step of one agent
def interact(program: Program, carry: Carry, seed: Any, step: Any) -> Carry:
    """Acts once in every stream, and remembers what came of it."""
    method, settings, environment, _, offset, num = program
    keys = keys_of(seed, step)
    before = jax.vmap(environment.observe)(carry.world.state)
    chosen = lambda: choose(method, settings, carry.learned.state, before, keys.action)
    guessed = lambda: guess(settings, carry.learned.state, before, keys.guess)
    choice = jax.lax.cond(step < settings.learning_starts, guessed, chosen) if settings.learning_starts else chosen()
    after, reward, terminated = jax.vmap(environment.step)(each(keys.move, num), carry.world.state, choice.action)
    running = carry.world.running + jnp.stack([reward, reward + choice.bonus, jnp.ones(num)], axis=1)
    ended = terminated | (running[:, 2] >= environment.max_episode_steps)
    rows = dict(
        observation=before,
        action=choice.action,
        reward=reward,
        next_observation=jax.vmap(environment.observe)(after),
        terminated=terminated,
        ended=ended,
        back=jnp.where(carry.world.running[:, 2] > 0, num, 0),
    )
    slots = (step - offset + jnp.arange(num)) % carry.ring["reward"].shape[0]
    ring = {name: column.at[slots].set(rows[name]) for name, column in carry.ring.items()}
    begun = jax.vmap(environment.reset)(each(keys.reset, num))
    anew = lambda new, old: jnp.where(ended.reshape(num, *[1] * (old.ndim - 1)), new, old)
    world = Place(jax.tree.map(anew, begun, after), anew(0.0, running))
    finished = carry.finished + jnp.where(ended[:, None], running, 0.0).sum(axis=0)
    return carry._replace(world=world, ring=ring, finished=finished, episodes=carry.episodes + ended.sum())


def sample(program: Program, ring: dict[str, Any], seed: Any, step: Any) -> Batch:
    """The batches of the updates after this step: (updates, batch, ...), windows as in `Replay.sample`."""
    settings, capacity = program.settings, ring["reward"].shape[0]
    newest = step - 1 - program.offset
    if settings.on_policy:  # all of it
        slots = (newest + 1 + jnp.arange(capacity)) % capacity
        return in_order({name: column[slots][None] for name, column in ring.items()})
    count = settings.gradient_steps if settings.gradient_steps > 0 else settings.train_freq * program.num
    held = jnp.minimum(newest + 1, capacity)
    slots = jax.random.randint(keys_of(seed, step).sample, (count, settings.batch_size), 0, held)
    last, later = slots, None
    if settings.window > 1:
        at, on, inside = [], [], True
        for _ in range(settings.window - 1):
            following = (last + program.num) % capacity
            inside = inside & ((newest - last) % capacity >= program.num) & (ring["back"][following] > 0)
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
def block(program: Program, carry: Carry, seeds: Any, first: Any, rounds: Any) -> Carry:
    """`rounds` steps of every stream of all agents (the leading axis of `carry` and `seeds`), the first is `first`."""
    settings = program.settings

    def step(number: Any, carry: Carry) -> Carry:
        begin, end = first + number * program.num, first + (number + 1) * program.num
        carry = jax.vmap(partial(interact, program), in_axes=(0, 0, None))(carry, seeds, begin)
        learn = lambda learned: jax.vmap(partial(improve, program), in_axes=(0, 0, 0, None))(
            learned, carry.ring, seeds, end
        )
        made = end - (program.offset if settings.on_policy else 0)  # a rollout is counted by what the buffer holds
        due = (end > settings.learning_starts) & (made // program.num % settings.train_freq == 0)
        # The ring does not pass through the branch: there it would be copied.
        return carry._replace(learned=jax.lax.cond(due, learn, lambda learned: learned, carry.learned))

    return jax.lax.fori_loop(0, rounds, step, carry)


def train(agents: list[Agent], session: Session) -> None:
    """All agents in step, until the session's end."""
    for agent in agents:
        agent.learner = Learner(agent)
    session.ready(agents)
    first = agents[0]
    assert first.world is not None
    program = Program(
        first.method,
        first.settings,
        first.world.environment,
        first.learner.monitor.names,
        first.learner.offset,
        first.world.n_envs,
    )
    # A buffer that cannot fill is made smaller, to a power of 2: another call of `learn` then finds its program again.
    most = session.end - program.offset + program.num - 1
    capacity = first.buffer.capacity
    if not first.settings.on_policy:
        capacity = min(capacity, max(LEAST, 2 ** (most - 1).bit_length()))
    seeds = jnp.asarray([agent.seed for agent in agents], jnp.uint32)
    carry = stack([start(agent, capacity) for agent in agents])
    while first.steps < session.end:
        begin = first.steps
        rounds = -(-(session.until() - begin) // program.num)
        end = begin + rounds * program.num
        after = block(program, carry, seeds, jnp.int32(begin), jnp.int32(rounds))
        if not np.asarray(after.learned.finite).all():
            raise failed(program, agents, session, carry, seeds, begin, rounds)
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


def failed(program: Program, agents: list[Agent], session: Session, carry: Carry, seeds: Any, begin: int, rounds: int):
    """The error for a loss in this block that is not finite. All is deterministic: the step is found by repeating."""
    fine, wrong = 0, rounds  # finite after `fine` rounds, not after `wrong`
    while wrong - fine > 1:
        middle = (fine + wrong) // 2
        finite = np.asarray(block(program, carry, seeds, jnp.int32(begin), jnp.int32(middle)).learned.finite).all()
        fine, wrong = (middle, wrong) if finite else (fine, middle)
    before = block(program, carry, seeds, jnp.int32(begin), jnp.int32(fine))
    good, bad = begin + fine * program.num, begin + wrong * program.num
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
