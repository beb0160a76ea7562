"""The policy gradient and path consistency: their parts against slow answers, the agents against `solve`."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import nearopt as no
from nearopt.agents import pcl, policies, soft_pg
from nearopt.agents.replay import Batch, Later, Replay
from nearopt.agents.task import Task
from nearopt.environments.tabular import Tabular
from tests.agents.test_exact import FAR, GAMMA, MAZES, NEAR, lottery, maze

BOX = Task(2, low=(-1.0, 0.0), high=(3.0, 0.5))
SEEN = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
TAU = 0.3
ROWS = 40


# ---------------------------------------------------------------- policies
def wide(settings, seed=0):
    """A policy over a box whose densities are far from flat."""
    actor = policies.init(settings, jax.random.key(seed))
    return jax.tree.map(lambda x: 3 * x, actor)


def test_the_density_over_a_box_is_a_truncated_gaussian():
    row = policies.bounded(wide(soft_pg.Settings(BOX)), SEEN)
    mean, std = np.asarray(row.mean, float), np.asarray(row.std, float)
    low, high = (-1 - mean) / std, (1 - mean) / std
    other = scipy.stats.truncnorm(low, high, mean, std)
    assert std.min() < 0.1 and std.max() > 0.5 and np.abs(mean).max() > 0.9
    np.testing.assert_allclose(row.entropy(), other.entropy().sum(axis=1), atol=1e-4)
    keys = jax.random.split(jax.random.key(1), 4_000)
    drawn = np.asarray(jax.vmap(row.sample)(keys))
    assert (np.abs(drawn) <= 1).all()
    for b, a in np.ndindex(mean.shape):
        one = scipy.stats.truncnorm(low[b, a], high[b, a], mean[b, a], std[b, a])
        assert scipy.stats.kstest(drawn[:, b, a], one.cdf).pvalue > 1e-4
    np.testing.assert_allclose(row.log_density(drawn[0]), other.logpdf(drawn[0]).sum(axis=1), atol=1e-3)


@pytest.mark.parametrize("prior", [None, "uniform", lambda seen, unit: -(unit**2).sum(axis=-1) + seen[:, 0]])
def test_what_was_paid_for_an_action_is_known_again(prior):
    settings = soft_pg.Settings(BOX, prior=prior)
    actor = wide(settings)
    drawn = policies.act(settings, actor, SEEN, jax.random.key(2), False)
    assert ((drawn.action >= np.array(BOX.low)) & (drawn.action <= np.array(BOX.high))).all()
    again = policies.log_ratio(settings, actor, SEEN, drawn.action)
    np.testing.assert_allclose(again, drawn.log_ratio, atol=2e-3)
    keys = jax.random.split(jax.random.key(3), 20_000)
    mean = jax.vmap(lambda key: policies.act(settings, actor, SEEN, key, False).log_ratio)(keys).mean(axis=0)
    cost = jax.vmap(lambda key: policies.divergence(settings, actor, SEEN, key))(keys).mean(axis=0)
    np.testing.assert_allclose(cost, mean, atol=0.05)
    best, cost = policies.act(settings, actor, SEEN, jax.random.key(2), True)
    assert not np.any(cost) and np.allclose(best, BOX.to_box(policies.bounded(actor, SEEN).mean))


def test_discrete_policies_by_hand():
    prior = (-0.5, -np.inf, 0.3)
    settings = soft_pg.Settings(Task(2, num_actions=3), prior=prior)
    actor = wide(settings)
    logits = np.asarray(actor(SEEN), float) + np.array(prior)
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ratio = np.log(policy[:, [0, 2]]) - np.array(prior)[[0, 2]]
    np.testing.assert_allclose(policies.log_ratios(settings, actor, SEEN)[:, [0, 2]], ratio, atol=1e-5)
    cost = policies.divergence(settings, actor, SEEN, jax.random.key(0))
    np.testing.assert_allclose(cost, (policy[:, [0, 2]] * ratio).sum(axis=1), atol=1e-5)
    assert settings.greatest_entropy == pytest.approx(np.logaddexp(-0.5, 0.3))


# ---------------------------------------------------------------- advantages
@pytest.mark.parametrize("streams", [1, 3])
def test_sums_along_streams(streams):
    """Against a walk along each stream; some only reset themselves at times, and episodes end."""
    rng, replay = np.random.default_rng(streams), Replay(Task(1, num_actions=2), 50)
    lists, number = [[[]] for _ in range(streams)], 0
    for _ in range(40):
        real, ended = rng.random(streams) < 0.8, rng.random(streams) < 0.2
        kept = np.flatnonzero(real)
        replay.add(
            np.zeros((streams, 1)), np.zeros(streams), np.zeros(streams), np.zeros((streams, 1)), ended, ended, real
        )
        for stream in kept:
            lists[stream][-1].append(number)
            number += 1
            if ended[stream]:
                lists[stream].append([])
    batch, first = replay.everything(), max(0, number - 50)
    delta = rng.normal(size=len(batch.reward)).astype(np.float32)
    want = np.zeros(number)
    for episode in (episode for stream in lists for episode in stream):
        later = 0.0
        for i in reversed([i for i in episode if i >= first]):
            want[i] = later = delta[i - first] + 0.7 * later
    np.testing.assert_allclose(soft_pg.along(jnp.asarray(delta), batch.back, 0.7), want[first:], rtol=1e-5, atol=1e-5)


def world():
    rng = np.random.default_rng(7)
    transition = rng.dirichlet(np.ones(4), size=(4, 3))
    return no.MDP.from_arrays(transition, rng.normal(size=(4, 3)), initial=rng.dirichlet(np.ones(4)), discount=GAMMA)


def test_the_actors_gradient_is_that_of_the_soft_return():
    """With exact advantages, weighted as states are visited: against finite differences of `no.evaluate`."""
    mdp, tau = world(), 0.4
    settings = soft_pg.Settings(Task(4, num_actions=3), net_arch=(), ent_coef=tau, gamma=GAMMA)
    actor, eye = wide(settings), np.eye(4, dtype=np.float32)
    table = lambda actor: np.asarray(np.exp(np.float64(policies.log_ratios(settings, actor, eye))))
    normal = lambda p: p / p.sum(axis=1, keepdims=True)
    exact = no.evaluate(mdp, normal(table(actor)))
    policy, visits = normal(table(actor)), exact.occupancy.sum(axis=1)
    transition = mdp.transition.toarray().reshape(4, 3, 4)
    cost = (policy * np.log(policy)).sum(axis=1)
    own = np.linalg.solve(
        np.eye(4) - GAMMA * np.einsum("sa,sat->st", policy, transition), (policy * mdp.reward).sum(axis=1) - tau * cost
    )
    advantage = mdp.reward + GAMMA * transition @ own - tau * cost[:, None] - own[:, None]
    assert own @ mdp.initial == pytest.approx(exact.soft_value(tau), abs=1e-8)
    states, actions = map(np.ravel, np.indices((4, 3)))

    def loss(actor):
        def one(s, a):
            rows = soft_pg.Lesson(eye[s][None], a[None], known[s, a][None], jnp.float32(advantage)[s, a][None], None)
            return soft_pg.actor_loss(actor, settings, jnp.float32(tau), rows, jax.random.key(0))[0]

        known = jnp.log(jnp.float32(policy))
        return (jax.vmap(one)(states, actions) * jnp.float32(visits[:, None] * policy).ravel()).sum()

    eye = jnp.asarray(eye)
    slope = jax.grad(loss)(actor).layers[0].weight
    step, weight = 1e-2, np.asarray(actor.layers[0].weight)
    for i, j in np.ndindex(weight.shape):
        moved = []
        for side in (1, -1):
            shift = np.zeros_like(weight)
            shift[i, j] = side * step
            other = jax.tree.map(lambda x, s=shift: x + s if x.shape == s.shape else x, actor)
            moved.append(no.evaluate(mdp, normal(table(other))).soft_value(tau))
        assert -slope[i, j] == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=2e-4)
    assert np.abs(slope).max() > 1e-2


def test_no_policy_moves_further_than_the_clip_allows():
    task, key = Task(2, num_actions=2), jax.random.key(0)
    settings = soft_pg.Settings(task, clip_range=0.2, ent_coef=1e-6)
    actor = policies.init(settings, key)
    rows = lambda known, gain: soft_pg.Lesson(SEEN[:1], jnp.array([0]), jnp.array([known]), jnp.array([gain]), None)
    slope = lambda rows: jax.grad(lambda a: soft_pg.actor_loss(a, settings, jnp.float32(0), rows, key)[0])(actor)
    size = lambda tree: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
    now = policies.log_ratio(settings, actor, SEEN[:1], jnp.array([0]))[0]
    assert size(slope(rows(now, 1.0))) > 1e-3
    assert size(slope(rows(now - 0.5, 1.0))) == 0 and size(slope(rows(now - 0.5, -1.0))) > 1e-3
    assert size(slope(rows(now + 0.5, -1.0))) == 0 and size(slope(rows(now + 0.5, 1.0))) > 1e-3


# ---------------------------------------------------------------- path consistency
def windows(task, n):
    rng = np.random.default_rng(4)
    size = (ROWS, n - 1)
    seen = lambda *shape: rng.normal(size=(*shape, 2)).astype(np.float32)
    acted = lambda *shape: rng.integers(3, size=shape).astype(np.int32)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    on = np.arange(n - 1) < (np.arange(ROWS) % n)[:, None]
    later = Later(seen(*size), acted(*size), normal(*size), on)
    return Batch(
        seen(ROWS), acted(ROWS), normal(ROWS), seen(ROWS), (np.arange(ROWS) % 3 == 0).astype(np.float32), later
    )


@pytest.mark.parametrize("gradient", ["path", "first"])
def test_residuals_of_windows_by_hand(gradient):
    task, prior = Task(2, num_actions=3), (-0.5, -1.0, 0.3)
    settings = pcl.Settings(task, n_steps=4, gradient=gradient, gamma=GAMMA, prior=prior, net_arch=(8,))
    one, two = (pcl.init(settings, jax.random.key(k)).pair for k in (0, 1))
    batch = windows(task, 4)
    have = pcl.residual(settings, one, two, jnp.float32(TAU), batch)
    after = one if gradient == "path" else two
    value = lambda pair, seen: float(pair.critic(seen[None])[0, 0])
    ratio = lambda pair, seen, a: float(policies.log_ratios(settings, pair.actor, seen[None])[0, a])
    for b in range(0, ROWS, 3):
        paid, length = float(batch.reward[b]), 1
        for i in range(3):
            if batch.later.on[b, i]:
                cost = TAU * ratio(after, batch.later.observation[b, i], batch.later.action[b, i])
                paid += GAMMA ** (i + 1) * (batch.later.reward[b, i] - cost)
                length += 1
        paid += GAMMA**length * (1 - batch.terminated[b]) * value(after, batch.next_observation[b])
        begun = value(one, batch.observation[b]) + TAU * ratio(one, batch.observation[b], batch.action[b])
        assert have[b] == pytest.approx(begun - paid, abs=1e-4)


def test_the_gradients_of_both_agents_are_one():
    """The losses of PCL and SoftPG, every action weighted by π: one is τ times the other's actor, plus its critic."""
    with jax.enable_x64(True):
        task, key, count, rng = Task(4, num_actions=3), jax.random.key(3), 3, np.random.default_rng(1)
        off = pcl.Settings(task, n_steps=1, gradient="first", ent_coef=TAU, gamma=GAMMA, net_arch=(16,))
        on = soft_pg.Settings(task, ent_coef=TAU, gamma=GAMMA, gae_lambda=0.0, net_arch=(16,))
        widen = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)
        pair, state = widen(pcl.init(off, key).pair), widen(soft_pg.init(on, key))
        state = state.__class__(**vars(state) | dict(actor=pair.actor, critic=pair.critic))
        seen, after, reward = (jnp.asarray(rng.normal(size=size)) for size in ((ROWS, 4), (ROWS, 4), ROWS))
        over = jnp.asarray(np.arange(ROWS) % 5 == 0, float)
        tau = jnp.exp(state.log_temperature)
        sides = []
        for number in range(count):
            done = jnp.full(ROWS, number, jnp.int32)
            batch = Batch(seen, done, reward + number, after, over, None, jnp.zeros(ROWS, jnp.int32))
            share = jnp.exp(policies.log_ratio(off, pair.actor, seen, done))
            rows = soft_pg.lesson(on, state, batch, key)

            def soft_q(moved, batch=batch, share=share):
                return 0.5 * (share * pcl.residual(off, moved, pair, tau, batch) ** 2).mean()

            def actor(moved, rows=rows, share=share):
                new = jnp.exp(policies.log_ratio(on, moved.actor, rows.observation, rows.action) - rows.log_ratio)
                return -(share * new * rows.advantage).mean()

            def critic(moved, rows=rows, share=share):
                return 0.5 * (share * (moved.critic(rows.observation)[:, 0] - rows.value) ** 2).mean()

            right = jax.tree.map(lambda a, v: tau * a + v, jax.grad(actor)(pair), jax.grad(critic)(pair))
            sides.append((jax.grad(soft_q)(pair), right))
        left, right = (jax.tree.map(lambda *leaves: sum(leaves), *side) for side in zip(*sides, strict=True))
        cost = jax.grad(lambda moved: policies.divergence(on, moved.actor, seen, key).mean())(pair)
        right = jax.tree.map(lambda rest, kl: rest + tau**2 * kl, right, cost)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), left, right)
        assert float(jnp.abs(left.actor.layers[0].weight).max()) > 1e-3


# ---------------------------------------------------------------- what is learned from
SMALL = dict(net_arch=[8], n_steps=8, batch_size=8)


def test_a_rollout_is_what_the_present_policy_did(monkeypatch):
    """Of streams of which some only reset themselves: every transition is learned from once."""
    seen, improve = [], soft_pg.update

    def spy(settings, state, batch, key):
        jax.debug.callback(lambda batch: seen.append(batch), batch)
        return improve(settings, state, batch, key)

    monkeypatch.setattr(no.SoftPG, "method", no.SoftPG.method._replace(update=spy))
    one = lambda: gymnasium.make("CartPole-v1", max_episode_steps=5)
    env = SyncVectorEnv([one] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    agent = no.SoftPG(env, seed=0, **SMALL).learn(200)
    jax.effects_barrier()
    kept = agent.buffer
    assert kept.capacity == 24 and len(seen) == agent.state.updates // 3 >= 6
    last = kept.everything()
    number = kept.inserted - agent.learner.learned
    for name in ("observation", "action", "reward", "next_observation", "terminated"):
        rows = [getattr(batch, name) for batch in seen]
        assert all(len(column) == 24 for column in rows)
        np.testing.assert_array_equal(rows[-1][number:], getattr(last, name)[: 24 - number])
    whole = np.concatenate([batch.observation for batch in seen])
    assert len(np.unique(whole, axis=0)) == len(whole)  # nothing twice


@pytest.mark.parametrize("envs", [1, 4])
def test_updates_in_jax(envs):
    """As many as there were rollouts, also across calls; the buffer holds one."""
    world = Tabular(maze(MAZES[0]), 20)
    agent = no.SoftPG(world, seed=0, n_envs=envs, n_epochs=3, **SMALL)
    for steps in (5 * envs, 3 * envs, 8 * envs, 9 * envs):
        agent.learn(steps, log_every=10_000)
    assert agent.steps == 25 * envs and agent.buffer.inserted == agent.steps
    assert agent.state.updates == 3 * envs * 3  # rollouts, minibatches, epochs
    assert set(np.unique(agent.buffer.everything().back)) <= {0, envs}


# ---------------------------------------------------------------- landing
def distance(agent, mdp):
    exact = no.solve(mdp, temperature=agent.temperature, prior=agent.settings.prior)
    live = np.flatnonzero(~mdp.terminal)
    seen = np.eye(mdp.num_states, dtype=np.float32)[live]
    return np.abs(agent.soft_value(seen) - exact.value[live]).max(), np.abs(agent.q_values(seen) - exact.q[live]).max()


WORLDS = {"maze": (lambda: maze(MAZES[0]), 0.1), "lottery": (lottery, 0.25)}
ROLLOUTS = dict(n_envs=64, n_steps=64, batch_size=512, gae_lambda=0.8, learning_rate=1e-3, net_arch=[64])


@pytest.mark.parametrize("where", WORLDS)
def test_the_policy_gradient_lands(where):
    """The distance shrinks; the last steps are small ones."""
    mdp, tau = WORLDS[where][0](), WORLDS[where][1]
    agent = no.SoftPG(Tabular(mdp, 20), seed=0, gamma=GAMMA, ent_coef=tau, **ROLLOUTS)
    early = distance(agent.learn(8_192, log_every=10**6), mdp)
    agent.learn(400_000, log_every=10**6)
    agent.renew(dict(learning_rate=1e-4, n_steps=256, batch_size=4_096))
    value, q = distance(agent.learn(2_000_000, log_every=10**6), mdp)
    assert value < NEAR < early[0] and q < 2 * NEAR, (value, q, early)


def test_a_bonus_alone_leads_elsewhere():
    mdp = maze(MAZES[0])
    agent = no.SoftPG(Tabular(mdp, 20), seed=0, gamma=GAMMA, ent_coef=0.1, entropy="bonus", **ROLLOUTS)
    assert distance(agent.learn(400_000, log_every=10**6), mdp)[0] > FAR


REPLAYED = dict(net_arch=[64], learning_rate=1e-3, batch_size=128, tau=0.02, learning_starts=500)


@pytest.mark.parametrize(
    "given", [dict(n_steps=5), dict(n_steps=1, gradient="first"), dict(n_steps=3, gradient="first")]
)
def test_path_consistency_lands(given):
    mdp = maze(MAZES[0])
    agent = no.PCL(Tabular(mdp, 20), seed=0, gamma=GAMMA, ent_coef=0.1, **REPLAYED, **given)
    early = distance(agent.learn(700, log_every=10**6), mdp)
    value, q = distance(agent.learn(2_500, log_every=10**6), mdp)
    assert max(value, q) < NEAR < early[0], (value, q, early)


def test_path_consistency_where_chance_rules():
    """Through the whole path it has another aim; through the first action alone it lands."""
    mdp, found = lottery(), {}
    for gradient, n_steps in (("path", 5), ("first", 1)):
        settings = REPLAYED | dict(gamma=GAMMA, ent_coef=0.25, learning_rate=5e-4, batch_size=512)
        settings |= dict(n_envs=64, learning_starts=200_000, n_steps=n_steps, gradient=gradient)
        agent = no.PCL(Tabular(mdp, 20), seed=0, **settings).learn(200_000 + 64 * 3_000, log_every=10**6)
        found[gradient] = distance(agent, mdp)[0]
    assert found["first"] < NEAR and found["path"] > 2 * NEAR, found


# ---------------------------------------------------------------- in a box, and on disk
@pytest.mark.parametrize("kind", [no.SoftPG, no.PCL])
@pytest.mark.parametrize("id", ["nearopt/Pendulum-v0", "Pendulum-v1", "CartPole-v1"])
def test_stopped_and_resumed(kind, id, tmp_path):
    """In the midst of a rollout: the same bytes."""
    given = (
        dict(n_steps=32, batch_size=16, n_epochs=2) if kind is no.SoftPG else dict(batch_size=16, learning_starts=20)
    )
    make = lambda: kind(id, seed=3, n_envs=2, net_arch=[8], **given)
    run = dict(checkpoint_every=50, log_every=50)
    make().learn(200, run_dir=tmp_path / "whole", **run)

    class Killed(Exception):
        pass

    def stop(step, row):
        if step >= 150:
            raise Killed

    with pytest.raises(Killed):
        make().learn(200, run_dir=tmp_path / "run", callback=stop, **run)
    (agent,) = no.resume(tmp_path / "run")
    assert agent.steps == 200
    for name in ("agent/agent.safetensors", "agent/agent.json", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    again = no.load_agent(tmp_path / "run/agent")
    seen = np.zeros(agent.spaces.observation_size)
    assert type(again) is kind and again.soft_value(seen) == agent.soft_value(seen)


def test_the_policy_gradient_learns_to_swing_up():
    """A pendulum, sixteen side by side."""
    settings = dict(n_envs=16, n_steps=128, batch_size=128, n_epochs=10, clip_range=0.2, learning_rate=1e-3)
    agent = no.SoftPG("nearopt/Pendulum-v0", seed=0, gamma=0.95, ent_coef=0.1, net_arch=[64, 64], **settings)
    told = []
    agent.learn(120_000, log_every=4_000, callback=lambda step, row: told.append(row["return"]))
    assert told[0] < -900 and max(told) > -350, told
