"""Soft Q-learning: values against closed forms, a world with two equal peaks against its exact solution."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box

import nearopt as no
from nearopt.agents import sql
from nearopt.agents.errors import SettingError
from nearopt.agents.replay import Batch
from nearopt.environments.environment import Environment

SMALL = dict(net_arch=[16], batch_size=16, learning_starts=20, particles=8, value_samples=8)


class Peaks(Environment):
    """One step: pays −8 (|a| − 0.6)². Two actions are best."""

    max_episode_steps: int = eqx.field(static=True, default=1)

    @property
    def observation_space(self):
        return Box(-1.0, 1.0, (1,))

    @property
    def action_space(self):
        return Box(-2.0, 2.0, (1,))  # in units of [−1, 1] the peaks are at ±0.6

    def reset(self, key):
        return jnp.zeros(1)

    def observe(self, state):
        return state

    def step(self, key, state, action):
        return state, -8 * (jnp.abs(action[0] / 2) - 0.6) ** 2, jnp.array(True)


def linear(weights, **settings):
    """An agent whose Q is τ₀ Σ w_i a_i, and its settings."""
    agent = no.SQL("nearopt/MultiGoal-v0", seed=0, **{**SMALL, "net_arch": [], **settings})
    state, layer = agent.state, agent.state.critic.layers[0]
    weight = jnp.zeros_like(layer.weight).at[:, 2:, 0].set(jnp.asarray(weights))
    critic = eqx.tree_at(lambda c: (c.layers[0].weight, c.layers[0].bias), state.critic, (weight, 0 * layer.bias))
    return agent.settings, eqx.tree_at(lambda s: (s.critic, s.target), state, (critic, critic))


def closed(weights):
    """log ∫ exp(Σ w a) da over [−1, 1]^A."""
    return sum(np.log(2 * np.sinh(w) / w) for w in weights)


# ---------------------------------------------------------------- one thing at a time
@pytest.mark.parametrize("sampler", ["stein", "mixture"])
@pytest.mark.parametrize("proposal", ["fitted", "uniform"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_value_of_a_linear_q(sampler, proposal, temperature):
    settings, state = linear([0.5, -2.0], sampler=sampler, proposal=proposal, ent_coef=temperature)
    found = sql.value(settings, state, state.q, jnp.zeros((3, 2)), 20_000, jax.random.key(0))
    np.testing.assert_allclose(found.log_integral, closed([0.5, -2.0]), atol=0.03)  # Q/τ does not change with τ₀
    agent_value = sql.soft_value(settings, state, jnp.zeros((2, 2)))
    np.testing.assert_allclose(agent_value, temperature * closed([0.5, -2.0]), atol=0.3 * temperature)


def test_a_uniform_prior_takes_its_volume_off():
    settings, state = linear([0.5, -2.0], prior="uniform")
    found = sql.value(settings, state, state.q, jnp.zeros((3, 2)), 20_000, jax.random.key(0))
    np.testing.assert_allclose(found.log_integral, closed([0.5, -2.0]) - np.log(4), atol=0.03)


def test_the_target():
    """r + γ (1 − terminated) V': read off the mean that an update reports."""
    settings, state = linear([0.5, -2.0], ent_coef=3.0, value_samples=1_000, gamma=0.9, target_update_interval=1)
    for terminated, expected in ((1.0, 7.0), (0.0, 7.0 + 0.9 * 3.0 * closed([0.5, -2.0]))):
        zeros = jnp.zeros((16, 2))
        batch = Batch(zeros, zeros, jnp.full(16, 7.0), zeros, jnp.full(16, terminated))
        _, report = sql.update(settings, state, batch, jax.random.key(0))
        assert float(report["q"]) == pytest.approx(expected, abs=0.15)


def test_the_critics_slope_is_that_of_half_the_squares():
    settings, state = linear([0.5, -2.0], ent_coef=3.0)
    action, target = jnp.float32([[0.2, 0.4], [-1.0, 0.5]]), jnp.float32([1.0, 2.0])
    batch = Batch(jnp.zeros((2, 2)), action, target, jnp.zeros((2, 2)), jnp.zeros(2))
    q = 3.0 * (np.asarray(action) @ [0.5, -2.0])
    expected = 0.5 * np.mean((q - [1.0, 2.0]) ** 2) / 9.0
    assert float(sql.critic_loss(state.critic, settings, state.scale, batch, target)) == pytest.approx(
        expected, rel=1e-5
    )


def updated(agent, count):
    zeros = jnp.zeros((16, 2))
    batch = Batch(zeros, zeros, jnp.ones(16), zeros, jnp.zeros(16))
    state, states = agent.state, []
    step = jax.jit(lambda state, key: sql.update(agent.settings, state, batch, key)[0])
    for i in range(count):
        state = step(state, jax.random.key(i))
        states.append(state)
    return states


@pytest.mark.parametrize(("tau", "interval"), [(1.0, 3), (0.5, 2)])
def test_when_the_target_moves(tau, interval):
    agent = no.SQL("nearopt/MultiGoal-v0", seed=0, tau=tau, target_update_interval=interval, **SMALL)
    states = [agent.state, *updated(agent, 6)]
    first = lambda tree: np.asarray(tree.layers[0].weight)
    for i, (before, after) in enumerate(itertools.pairwise(states), start=1):
        if i % interval:
            np.testing.assert_array_equal(first(after.target), first(before.target))
        else:
            between = first(before.target) + tau * (first(after.critic) - first(before.target))
            np.testing.assert_allclose(first(after.target), between, atol=1e-6)


def test_annealing_is_even_in_the_logarithm():
    agent = no.SQL("nearopt/MultiGoal-v0", ent_coef=4.0, final_ent_coef=0.25, anneal_updates=4, **SMALL)
    temperatures = [float(np.exp(state.log_temperature)) for state in updated(agent, 6)]
    np.testing.assert_allclose(temperatures, [2.0, 1.0, 0.5, 0.25, 0.25, 0.25], rtol=1e-5)


def test_the_noise_shrinks_to_one_vector():
    agent = no.SQL("nearopt/MultiGoal-v0", noise_set=16, final_ent_coef=0.1, anneal_updates=4, **SMALL)
    counts = []
    for updates in range(6):
        xi = sql.noise(agent.settings, jnp.int32(updates), (500, 2), jax.random.key(1))
        counts.append(len(np.unique(np.asarray(xi), axis=0)))
    assert counts == [16, 8, 4, 2, 1, 1]


def test_a_tuned_temperature_reaches_its_entropy():
    agent = no.SQL(Peaks(), seed=0, gamma=0.0, ent_coef="auto_0.1", target_entropy=0.3, tau=0.1, learning_rate=3e-3)
    settings = agent.settings
    assert settings.tuned and settings.entropy_target == 0.3
    estimate = sql.Estimate(jnp.zeros(4), jnp.full(4, 0.1), jnp.ones(4))
    warmer, _ = sql.cooled(settings, agent.state, estimate, jnp.int32(1))
    assert warmer > agent.state.log_temperature
    colder, _ = sql.cooled(settings, agent.state, estimate._replace(entropy=jnp.full(4, 0.6)), jnp.int32(1))
    assert colder < agent.state.log_temperature


@pytest.mark.parametrize(
    "wrong",
    [
        dict(particles=5),
        dict(sampler="flow"),
        dict(uniform_share=1.0),
        dict(critics=0),
        dict(noise_set=-1),
        dict(final_ent_coef=0.1),
        dict(anneal_updates=5),
        dict(ent_coef="auto", final_ent_coef=0.1, anneal_updates=5),
        dict(noise_set=4, sampler="mixture"),
    ],
)
def test_settings_that_there_are_not(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        no.SQL("nearopt/MultiGoal-v0", **wrong)


# ---------------------------------------------------------------- a world with an exact answer
@pytest.mark.parametrize("sampler", ["stein", "mixture"])
def test_two_equal_peaks(sampler):
    settings = dict(gamma=0.0, ent_coef=0.5, learning_starts=500, tau=1.0, target_update_interval=1, net_arch=[64, 64])
    agent = no.SQL(Peaks(), seed=0, sampler=sampler, sampler_learning_rate=1e-3, particles=16, **settings)
    agent.learn(4_000)
    grid = np.linspace(-1, 1, 4_001)
    density = np.exp(-8 * (np.abs(grid) - 0.6) ** 2 / 0.5)
    whole = np.trapezoid(density, grid)
    assert agent.soft_value([0.0]) == pytest.approx(0.5 * np.log(whole), abs=0.05)
    actions, _ = agent.predict(np.zeros((20_000, 1)))
    shares = np.histogram(actions[:, 0] / 2, 16, (-1, 1))[0] / len(actions)
    inner = [np.trapezoid(part, dx=grid[1]) for part in (density[i * 250 : i * 250 + 251] for i in range(16))]
    exact = np.array(inner) / np.sum(inner)
    assert 0.5 * np.abs(shares - exact).sum() < (0.15 if sampler == "stein" else 0.1)
    best, _ = agent.predict([0.0], deterministic=True)
    assert abs(abs(best[0]) - 1.2) < 0.15


def test_few_actions_that_count_are_told():
    agent = no.SQL(Peaks(), seed=0, ent_coef=1e-4, proposal="uniform", gamma=1.0, **{**SMALL, "value_samples": 100})
    agent.state = eqx.tree_at(lambda s: s.log_temperature, agent.state, jnp.float32(-16.0))
    with pytest.warns(UserWarning, match="the soft value rests on .* of its actions"):
        agent.learn(100, log_every=50)


def test_files_and_resume(tmp_path):
    kinds = dict(seed=3, **SMALL)
    part = no.SQL("nearopt/MultiGoal-v0", **kinds)

    class Killed(Exception):
        pass

    def kill(step, row):
        if step == 80:
            raise Killed

    with pytest.raises(Killed):
        part.learn(120, run_dir=tmp_path / "part", checkpoint_every=50, log_every=20, callback=kill)
    whole = no.SQL("nearopt/MultiGoal-v0", **kinds)
    whole.learn(120, run_dir=tmp_path / "other", checkpoint_every=50, log_every=20)
    no.resume(tmp_path / "part")
    for name in ("agent/agent.safetensors", "agent/agent.json", "metrics.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    again = no.load_agent(tmp_path / "part" / "agent")
    assert isinstance(again, no.SQL) and again.soft_value([1.0, 1.0]) == whole.soft_value([1.0, 1.0])


# ---------------------------------------------------------------- fine-tuning
def test_fine_tuning_begins_with_the_networks(tmp_path):
    first = no.SQL("nearopt/MultiGoal-v0", seed=3, ent_coef=4.0, **SMALL).learn(60)
    first.save(tmp_path)
    cooled = dict(ent_coef=2.0, final_ent_coef=0.5, anneal_updates=40, noise_set=8)
    again = no.SQL.load(tmp_path, "nearopt/MultiGoal-v0", **cooled)
    assert again.temperature == pytest.approx(2.0) and int(again.state.updates) == 0
    at, action = [[1.0, 2.0]], [[0.5, -0.5]]
    np.testing.assert_allclose(again.q_values(at, action), first.q_values(at, action), rtol=1e-6)
    assert again.learn(40).temperature == pytest.approx(0.5)
    actions, _ = again.predict(np.zeros((200, 2)))
    assert len(np.unique(actions, axis=0)) == 1  # one vector of noise is left
    again.save(tmp_path)
    assert no.SQL.load(tmp_path).temperature == pytest.approx(0.5)


def test_fine_tuning_cannot_change_the_networks(tmp_path):
    no.SQL("nearopt/MultiGoal-v0", seed=3, **SMALL).save(tmp_path)
    for wrong in (dict(net_arch=[32]), dict(sampler="mixture"), dict(critics=2), dict(activation="tanh")):
        with pytest.raises(SettingError, match="asks for other networks"):
            no.SQL.load(tmp_path, **wrong)
    with pytest.raises(SettingError, match="no setting 'temperature'"):
        no.SQL.load(tmp_path, temperature=2.0)
