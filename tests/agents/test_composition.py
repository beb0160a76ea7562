"""Composition: the published bounds against exact solutions, sums against closed forms, two half-planes to a corner."""

from dataclasses import replace

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from benchmarks.composition import ends, train
from nearopt.agents import composition, sql
from nearopt.agents.errors import NoEnvironmentError, SettingError, WrongAgentError
from nearopt.mdp.errors import NearoptError
from nearopt.runs import tensors
from nearopt.runs.errors import DamagedFileError
from tests.oracles import random_world, to_arrays

SMALL = dict(net_arch=[8], batch_size=16, learning_starts=20, particles=8, value_samples=8)
ID = "nearopt/MultiGoal-v0"
DISCOUNT = 0.9


# ---------------------------------------------------------------- the bounds, exactly
class Tables:
    """Two tasks in one random world, each solved; their mean Q, and what the paper says of it."""

    def __init__(self, seed, temperature, indifferent=False):
        rng, self.temperature = np.random.default_rng(seed), temperature
        world = to_arrays(random_world(rng, 6, 3, 3, 1, False, False), 6, 3)
        self.transition, terminal = world["transition"], world["terminal"]
        if indifferent:  # what is done now changes nothing that comes later
            self.transition[:] = rng.dirichlet(np.ones(6), size=(6, 1))
        rewards = 2.0 * rng.normal(size=(2, 6, 3))
        one, two, both = (self.solve(reward, terminal) for reward in (*rewards, rewards.mean(axis=0)))
        self.available, self.reward = np.isfinite(both.q), rewards.mean(axis=0)
        self.optimum = np.where(self.available, both.q, 0.0)
        self.mean = np.where(self.available, (one.q + two.q) / 2, -np.inf)
        largest = self.mean.max(axis=1, initial=-1e3, keepdims=True)
        weight = np.exp((self.mean - largest) / temperature)
        self.policy = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        self.mean = np.where(self.available, self.mean, 0.0)
        overlap = np.sqrt(one.policy * two.policy).sum(axis=1)
        self.renyi = -2 * np.log(np.where(self.available.any(axis=1), overlap, 1.0))  # D_½(π_1 ‖ π_2)

    def solve(self, reward, terminal):
        self.mdp = no.MDP.from_arrays(self.transition, reward, discount=DISCOUNT, terminal=terminal)
        return no.solve(self.mdp, temperature=self.temperature, tol=1e-10)

    def best(self, x):
        return np.where(self.available.any(axis=1), np.where(self.available, x, -np.inf).max(axis=1), 0.0)

    def loss(self, scale):
        """C: of `scale` · D_½ at every state that comes, if what is worst is done on the way."""
        loss = np.zeros_like(self.reward)
        for _ in range(400):
            loss = DISCOUNT * self.transition @ (scale * self.renyi + self.best(loss))
        return loss

    def policy_loss(self, loss):
        """D, of a given C: what the policy of the sum loses of it."""
        total = np.zeros_like(loss)
        for _ in range(400):
            total = DISCOUNT * self.transition @ (self.policy * (loss + total)).sum(axis=1)
        return total

    def worth(self):
        """Q of the policy of the sum, and V at the start, by linear equations."""
        entropy = -(self.policy * np.log(np.where(self.policy > 0, self.policy, 1.0))).sum(axis=1)
        onward = np.einsum("sa,sat->st", self.policy, self.transition)
        gained = (self.policy * self.reward).sum(axis=1) + self.temperature * entropy
        value = np.linalg.solve(np.eye(len(onward)) - DISCOUNT * onward, gained)
        return self.reward + DISCOUNT * self.transition @ value, float(self.mdp.initial @ value)

    def below(self, x):
        """The least of x where there are actions: below 0 where a bound does not hold."""
        return x[self.available].min()


WORLDS = [(seed, temperature) for seed in range(10) for temperature in (0.3, 1.0, 3.0)]


@pytest.mark.parametrize(("seed", "temperature"), WORLDS)
def test_the_published_bounds(seed, temperature):
    world = Tables(seed, temperature)
    loss = world.loss(temperature / 2)
    assert loss.max() > 0.01  # something is lost, or nothing would be shown
    assert world.below(world.mean - world.optimum) > -1e-8  # Lemma 1
    assert world.below(world.optimum - (world.mean - loss)) > -1e-8
    q, start = world.worth()
    assert start == pytest.approx(no.evaluate(world.mdp, world.policy).soft_value(temperature), abs=1e-8)
    assert world.below(q - (world.optimum - world.policy_loss(loss))) > -1e-8  # Theorem 1
    assert world.below(world.optimum - q) > -1e-8


def test_the_bounds_say_something():
    """With a part of the constant, without the temperature, or with the other sign they do not hold."""
    worlds = [Tables(seed, 3.0) for seed in range(10)]
    fails = lambda scale: sum(w.below(w.optimum - (w.mean - w.loss(scale))) < -1e-6 for w in worlds)
    assert fails(0.5) == fails(-1.5) == 10 and fails(0.8 * 1.5) >= 3 and fails(1.5) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_constant_is_exact_where_actions_change_nothing_to_come(seed):
    world = Tables(seed, 2.0, indifferent=True)
    there = world.available
    np.testing.assert_allclose(world.optimum[there], (world.mean - world.loss(1.0))[there], atol=1e-8)


# ---------------------------------------------------------------- the sum
def learned(seed, steps=40, **settings):
    return no.SQL(ID, seed=seed, **SMALL | settings).learn(steps)


@pytest.fixture(scope="module")
def one():
    return learned(0)


def linear(weights, temperature=1.0, **settings):
    """An agent whose Q is τ Σ w_i a_i."""
    agent = learned(0, net_arch=[], ent_coef=temperature, **settings)
    layer = agent.state.critic.layers[0]
    weight = jnp.zeros_like(layer.weight).at[:, 2:, 0].set(jnp.asarray(weights))
    agent.state = eqx.tree_at(
        lambda s: s.critic, agent.state, eqx.tree_at(parts, agent.state.critic, (weight, 0.0 * layer.bias))
    )
    return agent


parts = lambda critic: (critic.layers[0].weight, critic.layers[0].bias)


def closed(weights):
    """log ∫ exp(Σ w a) da over [−1, 1]^A."""
    return sum(np.log(2 * np.sinh(w) / w) for w in weights)


def test_qs_of_other_units_and_several_critics_are_added():
    agents = [learned(i, ent_coef=scale, critics=2) for i, scale in enumerate((4.0, 0.5, 1.0))]
    both = no.compose(agents, updates=3, ent_coef=1.0)
    rng = np.random.default_rng(0)
    seen, action = rng.uniform(-7, 7, (200, 2)), rng.uniform(-1, 1, (200, 2))
    each = [agent.q_values(seen, action) for agent in agents]
    np.testing.assert_allclose(both.q_values(seen, action), sum(each), rtol=1e-5, atol=1e-5)
    rows = jnp.float32(np.hstack([seen, action]))
    all_of = [agent.state.scale * np.asarray(sql.both(agent.state.critic, rows))[..., 0] for agent in agents]
    later = np.sum(all_of, axis=0).min(axis=0)  # the least of the sums is another function
    assert np.abs(later - sum(each)).max() > 0.01


@pytest.mark.parametrize("sampler", ["stein", "mixture"])
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_the_value_of_a_sum_and_of_a_mean(sampler, temperature):
    """At twice the temperature the sum is worth twice what the mean is at it."""
    agents = [linear(w, temperature, sampler=sampler) for w in ([0.5, -2.0], [1.0, 1.2])]
    for times, weights in ((1, [1.5, -0.8]), (2, [0.75, -0.4])):
        both = no.compose(agents, updates=0, ent_coef=times * temperature)
        found = sql.value(both.settings, both.state, both.state.q, jnp.zeros((3, 2)), 20_000, jax.random.key(0))
        np.testing.assert_allclose(found.log_integral, closed(weights), atol=0.03)
        expected = times * temperature * closed(weights)
        assert both.soft_value([0.0, 0.0]) == pytest.approx(expected, abs=0.1 * times * temperature)


@pytest.mark.parametrize("sampler", ["stein", "mixture"])
def test_the_sampler_learns_the_product_of_the_policies(sampler):
    agents = [linear(w) for w in ([0.5, -2.0], [1.0, -1.5])]
    faster = dict(sampler=sampler, particles=16, sampler_learning_rate=1e-2, batch_size=32)
    before, after = (no.compose(agents, updates=n, **faster) for n in (0, 1_500))
    mean = lambda agent: agent.predict(np.zeros((5_000, 2)))[0].mean(axis=0)
    exact = 1 / np.tanh([1.5, -3.5]) - 1 / np.array([1.5, -3.5])  # of exp(w a) on [−1, 1]
    assert np.abs(mean(after) - exact).max() < 0.06 < np.abs(mean(before) - exact).max()


def test_agents_count_by_what_their_buffers_hold(monkeypatch):
    one, two = learned(0, steps=30), learned(1, steps=90)
    for agent, mark in ((one, 0.0), (two, 1.0)):
        agent.buffer.rows["observation"][:, 0] = mark

    def counted(settings, state, batch, key):
        return replace(state, scales=state.scales + batch.observation[:, 0].mean()), dict(finite=jnp.float32(1))

    monkeypatch.setattr(composition, "update", counted)
    both = no.compose([one, two], updates=400, batch_size=17)
    share = (np.asarray(both.state.scales)[0] - float(one.state.scale)) / 400
    assert share == pytest.approx(0.75, abs=0.02)  # 6800 states: three standard deviations are 0.016
    assert both.steps == len(both.replay.reward) == 120
    np.testing.assert_array_equal(both.replay.action, np.concatenate([one.replay.action, two.replay.action]))


# ---------------------------------------------------------------- two half-planes
@pytest.fixture(scope="module")
def halves():
    """One agent learned to be right of a line, one above it."""
    return [train(axis, 1, 4_000)[0] for axis in (0, 1)]


def test_two_half_planes_make_a_corner(halves):
    right, above = map(ends, halves)
    assert right[0] > 0.95 and right[2] < 0.5 and above[1] > 0.95 and above[2] < 0.5
    assert ends(no.compose(halves, updates=500))[2] > 0.95
    assert ends(no.compose(halves, updates=500, ent_coef=0.6))[2] > 0.9  # the mean
    assert ends(no.compose(halves, updates=500, sampler="mixture"))[2] > 0.95


def test_it_is_deterministic(halves):
    first, again, other = (no.compose(halves, updates=20, seed=seed) for seed in (3, 3, 4))
    look = lambda agent: agent.predict(np.zeros((4, 2)))[0].tolist()
    assert look(first) == look(again) != look(other)


# ---------------------------------------------------------------- learning on, files
@pytest.mark.parametrize("make", [lambda: ID, lambda: gymnasium.make(f"nearopt.environments:{ID}")])
def test_learning_on_changes_the_sampler_alone(make):
    both = no.compose([learned(0), learned(1)], updates=5, env=make())
    before, told = both.state, []
    both.learn(30, log_every=10, callback=lambda step, row: told.append((step, row["sampler_gap"], row["return"])))
    assert both.steps == len(both.replay.reward) == 110 and [step for step, *_ in told] == [90, 100, 110]
    assert np.isfinite(np.array(told)[:, 1]).all()
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
    after = both.state
    assert same(before.critics, after.critics) and same(before.scales, after.scales)
    assert not same(before.sampler, after.sampler) and int(after.updates) == 35


def test_files(tmp_path):
    both = no.compose([learned(0, ent_coef=0.3), learned(1, ent_coef=0.3)], updates=5, sampler="mixture")
    both.save(tmp_path)
    again = no.load_agent(tmp_path)
    assert isinstance(again, no.Composition) and again.temperature == both.temperature == pytest.approx(0.3)
    seen, action = np.ones((5, 2)), np.full((5, 2), 0.5)
    assert np.array_equal(again.q_values(seen, action), both.q_values(seen, action))
    assert np.array_equal(again.soft_value(seen), both.soft_value(seen))
    assert np.array_equal(again.predict(seen)[0], both.predict(seen)[0])
    with pytest.raises(NoEnvironmentError):
        again.learn(10)
    assert no.Composition.load(tmp_path, ID).learn(20).steps == 100
    assert no.Composition.load(tmp_path, ent_coef=0.6).temperature == pytest.approx(0.6)
    with pytest.raises(WrongAgentError, match="holds a Composition"):
        no.SQL.load(tmp_path)
    file = tmp_path / "agent.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedFileError):
        no.load_agent(tmp_path)


def test_files_of_a_stranger(tmp_path, one):
    no.compose([one, one], updates=0).save(tmp_path)
    arrays, facts = tensors.load(tmp_path, "agent")
    for parts in [None, -1, 0, 1, 3, 10**9, 10**30, 2.5, True, "2", [2], {}]:
        facts["settings"]["parts"] = parts
        tensors.save(tmp_path, "agent", arrays, facts)
        with pytest.raises(NearoptError):
            no.load_agent(tmp_path)


def test_resume_is_exact(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, row):
        if step == 120:
            raise Killed

    part, whole = (no.compose([learned(0), learned(1)], updates=5, env=ID) for _ in range(2))
    with pytest.raises(Killed):
        part.learn(80, run_dir=tmp_path / "part", checkpoint_every=30, log_every=20, callback=kill)
    whole.learn(80, run_dir=tmp_path / "whole", checkpoint_every=30, log_every=20)
    no.resume(tmp_path / "part")
    for name in ("agent/agent.safetensors", "agent/agent.json", "metrics.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# ---------------------------------------------------------------- what cannot be composed
REFUSED = {
    "agents[1] is no SQL agent but SAC; train": lambda: no.SAC(ID, net_arch=[8]),
    "agents[1] is no SQL agent but str": lambda: "b",
    "agents[1] has other observations or actions": lambda: no.SQL("nearopt/TwoCorridors-v0", **SMALL),
    "agents[1] has net_arch=(9,), and agents[0] (8,)": lambda: learned(1, net_arch=[9]),
    "agents[1] has activation='tanh', and agents[0] 'relu'": lambda: learned(1, activation="tanh"),
    "agents[1] has critics=2, and agents[0] 1": lambda: learned(1, critics=2),
    "the replay buffer of agents[1] is empty": lambda: no.SQL(ID, **SMALL),
    "agents[0] has ent_coef=1.0, and agents[1] 2.0; give ent_coef=": lambda: learned(1, ent_coef=2.0),
    "agents[0] has prior=None, and agents[1] 'uniform'": lambda: learned(1, prior="uniform"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_agents_that_cannot_be_composed(one, said):
    with pytest.raises((WrongAgentError, SettingError)) as caught:
        no.compose([one, REFUSED[said]()])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(parts=2), "parts=2 is not to be chosen"),
        (dict(net_arch=[16]), "net_arch"),
        (dict(ent_coef="auto"), "keeps its temperature"),
        (dict(final_ent_coef=0.1, anneal_updates=5), "keeps its temperature"),
        (dict(ent_koef=1.0), "no setting 'ent_koef'"),
        (dict(buffer_size=50), "buffer_size=50 is less than the 80 transitions"),
        (dict(updates=-1), "updates"),
        (dict(seed=-1), "seed"),
        (dict(env="nearopt/TwoCorridors-v0"), "env has other observations"),
    ],
)
def test_arguments_that_there_are_not(one, wrong, said):
    with pytest.raises(NearoptError, match=said):
        no.compose([one, one], **wrong)


def test_one_agent_is_no_sum(one):
    for few in ([], [one], one):
        with pytest.raises(WrongAgentError, match=r"give at least two|no SQL"):
            no.compose(few)
    with pytest.raises(WrongAgentError, match="compose"):
        no.Composition(ID)


def test_annealed_agents_are_composed_as_they_ended():
    agents = [learned(i, final_ent_coef=0.25, anneal_updates=10, noise_set=4) for i in range(2)]
    both = no.compose(agents, updates=2)
    assert both.temperature == pytest.approx(0.25) and both.settings.noise_set == 0
    assert len(np.unique(both.predict(np.zeros((50, 2)))[0], axis=0)) == 50
