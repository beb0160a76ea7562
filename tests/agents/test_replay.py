"""The ring against a plain list: contents, windows, and what checkpoints keep of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nearopt.agents.compiled import Program, sample
from nearopt.agents.errors import SettingError
from nearopt.agents.replay import Batch, Later, Replay, batch_shape, columns
from nearopt.agents.soft_dqn import Settings
from nearopt.agents.task import Task

TASK = Task(1, num_actions=3)


class Story:
    """Streams of random episodes. Every transition is (stream, its number in the stream), told by its observation."""

    def __init__(self, streams, seed, real=0.8):
        self.rng, self.streams, self.real = np.random.default_rng(seed), streams, real
        self.lists = [[] for _ in range(streams)]  # transitions of each stream: (id, next id, terminated, ended)
        self.order, self.id = [], 0

    def tell(self, replay, rounds):
        for _ in range(rounds):
            real = self.rng.random(self.streams) < self.real
            ended = self.rng.random(self.streams) < 0.25
            terminated = ended & (self.rng.random(self.streams) < 0.5)
            ids = self.id + np.arange(self.streams)
            self.id += self.streams
            replay.add(ids[:, None], ids % 3, ids * 2.0, ids[:, None] + 0.5, terminated, ended & ~terminated, real)
            for stream in np.flatnonzero(real):
                row = (int(ids[stream]), bool(terminated[stream]), bool(ended[stream]))
                self.lists[stream].append(row)
                self.order.append(row)

    def window(self, id, n):
        """Ids of the window of up to n steps that starts with this transition, by walking along its stream."""
        stream = next(rows for rows in self.lists if any(row[0] == id for row in rows))
        at = next(i for i, row in enumerate(stream) if row[0] == id)
        out = [stream[at]]
        while len(out) < n and not out[-1][2] and at + len(out) < len(stream):
            out.append(stream[at + len(out)])
        return out


@pytest.mark.parametrize("streams, capacity, seed", [(1, 7, 0), (1, 100, 1), (3, 20, 2), (4, 9, 3), (2, 1, 4)])
def test_contents_are_the_newest_in_order(streams, capacity, seed):
    replay, story = Replay(TASK, capacity), Story(streams, seed)
    for _ in range(30):
        story.tell(replay, 2)
        kept = story.order[-capacity:]
        have = replay.contents()
        assert len(replay) == len(kept) == len(have.reward)
        assert have.observation[:, 0].tolist() == [row[0] for row in kept]
        assert have.next_observation[:, 0].tolist() == [row[0] + 0.5 for row in kept]
        assert have.reward.tolist() == [row[0] * 2.0 for row in kept]
        assert have.action.tolist() == [row[0] % 3 for row in kept]
        assert have.terminated.tolist() == [row[1] for row in kept]


def check_windows(batch, story, n):
    for b in range(len(batch.reward)):
        window = story.window(int(batch.observation[b, 0]), n)
        assert batch.later.on[b].tolist() == [i < len(window) - 1 for i in range(n - 1)]
        for i, row in enumerate(window[1:]):
            assert batch.later.observation[b, i, 0] == row[0] and batch.later.reward[b, i] == row[0] * 2.0
            assert batch.later.action[b, i] == row[0] % 3
        assert batch.next_observation[b, 0] == window[-1][0] + 0.5
        assert batch.terminated[b] == window[-1][1]


@pytest.mark.parametrize("streams, capacity", [(1, 50), (3, 50), (3, 11), (2, 2), (1, 1)])
@pytest.mark.parametrize("n", [2, 4])
def test_windows_end_with_the_episode_or_the_newest_step(streams, capacity, n):
    replay, story = Replay(TASK, capacity), Story(streams, 5)
    rng = np.random.default_rng(0)
    for _ in range(15):
        story.tell(replay, 3)
        batch = replay.sample(rng, 64, n)
        assert batch.observation.shape == (64, 1) and batch.later.reward.shape == (64, n - 1)
        check_windows(batch, story, n)


def test_sampling_is_uniform_and_takes_shapes():
    replay, story = Replay(TASK, 10), Story(1, 1)
    story.tell(replay, 40)
    batch = replay.sample(np.random.default_rng(0), (200, 100))
    assert batch.observation.shape == (200, 100, 1) and batch.later is None
    _, count = np.unique(batch.observation, return_counts=True)
    assert len(count) == 10 and abs(count - 2000).max() < 5 * np.sqrt(1800)


@pytest.mark.parametrize("streams, capacity", [(1, 30), (3, 30), (2, 1000)])
def test_what_a_checkpoint_keeps_brings_it_back(streams, capacity):
    replay, story = Replay(TASK, capacity), Story(streams, 9)
    for _ in range(20):
        story.tell(replay, 4)
        copy = Replay(TASK, capacity)
        copy.restore(replay.since(replay.oldest), replay.oldest, replay.newest)
        assert copy.inserted == replay.inserted
        first, second = (r.sample(np.random.default_rng(3), 100, 3) for r in (replay, copy))
        jax.tree.map(np.testing.assert_array_equal, first, second)
        with_more = Story(streams, 77)  # and both go on alike
        with_more.id = story.id
        with_more.tell(copy, 1)
        check = Story(streams, 77)
        check.id = story.id
        again = Replay(TASK, capacity)
        again.restore(replay.since(replay.oldest), replay.oldest, replay.newest)
        check.tell(again, 1)
        jax.tree.map(np.testing.assert_array_equal, copy.sample(rng(), 50, 3), again.sample(rng(), 50, 3))


def rng():
    return np.random.default_rng(8)


@pytest.mark.parametrize("streams", [1, 3])
def test_windows_of_the_compiled_loop_are_the_same(streams):
    """There every step of every stream is one."""
    settings = Settings(TASK, n_steps=4, batch_size=512, gradient_steps=2)
    for capacity, told in ((16, 10), (16, 16), (16, 41), (64, 41)):
        replay, story = Replay(TASK, capacity), Story(streams, 12, real=1.0)
        story.tell(replay, told)
        ring = {name: jnp.asarray(column) for name, column in replay.rows.items()}
        offset = 5
        program = Program(None, settings, None, (), offset, streams)
        batches = sample(program, ring, 0, replay.inserted + offset)
        assert batches.reward.shape == (2, 512)
        for u in range(2):
            batch = jax.tree.map(lambda x, u=u: np.asarray(x[u]), batches)
            check_windows(batch, story, 4)
        seen = set(np.asarray(batches.observation).ravel().astype(int).tolist())
        assert seen == {row[0] for row in story.order[-capacity:]}


def test_the_form_of_a_batch():
    settings = Settings(TASK, n_steps=3)
    empty = batch_shape(settings, (8,))
    replay, story = Replay(TASK, 10), Story(1, 1)
    story.tell(replay, 9)
    batch = replay.sample(rng(), 8, 3)
    assert isinstance(empty, Batch) and isinstance(empty.later, Later)
    form = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert form(empty) == form(batch)
    assert batch_shape(settings, (2, 8)).later.on.shape == (2, 8, 2)
    assert set(columns(TASK)) == set(replay.rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows | dict(reward=rows["reward"].astype(float)),
        lambda rows: rows | dict(observation=rows["observation"][:, :0]),
        lambda rows: {name: x for name, x in rows.items() if name != "back"},
        lambda rows: {name: np.repeat(x, 3, axis=0) for name, x in rows.items()},
    ],
)
def test_rows_that_are_not_the_buffers_are_refused(change):
    replay, story = Replay(TASK, 10), Story(1, 1)
    story.tell(replay, 9)
    with pytest.raises(ValueError):
        Replay(TASK, 10).restore(change(replay.since(0)), 0, {})
    for newest in ({0: 9}, {0: -1}, {0: 1.0}, {"0": 1}):
        with pytest.raises(ValueError):
            Replay(TASK, 10).restore(replay.since(0), 0, newest)


def test_memory_is_asked_for_with_the_first_transition():
    replay = Replay(TASK, 10**15)
    assert len(replay) == 0
    with pytest.raises(SettingError, match="buffer_size=1000000000000000 needs"):
        Story(1, 1).tell(replay, 1)
