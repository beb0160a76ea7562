"""One update of every agent, in every variant, against NumPy's in `golden.py`; many updates against single ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nearopt.agents import discrete_sac, sac, soft_dqn, training
from nearopt.agents.files import from_tensors, to_tensors
from nearopt.agents.replay import Batch, Later
from nearopt.agents.settings import settle
from nearopt.agents.task import Task
from tests.agents import golden
from tests.agents.golden import How

ROWS, SEEN = 16, 3
BOX = Task(SEEN, low=(-0.4, -1.0), high=(0.4, 3.0))
CHOICES = Task(SEEN, num_actions=3)
HALF, MIDDLE = np.array([0.4, 2.0]), np.array([0.0, 1.0])
COMMON = dict(net_arch=[8, 8], batch_size=ROWS, gamma=0.9, tau=0.1)
ROW = (-0.5, -np.inf, 0.3)  # a row of log-probabilities, not normalised, one action excluded


def batch_of(task, seed=0, n_steps=1, lead=()):
    """Random transitions; every third one is terminal."""
    rng = np.random.default_rng(seed)
    size = (*lead, ROWS)

    def acted(*shape):
        if task.num_actions:
            return rng.integers(task.num_actions, size=shape).astype(np.int32)
        return rng.uniform(task.low, task.high, (*shape, task.action_size)).astype(np.float32)

    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    terminated = np.broadcast_to(np.arange(ROWS) % 3 == 0, size).astype(np.float32)
    later = None
    if n_steps > 1:  # windows of 1, 2, …, n steps; any of them may end by termination, or by truncation
        length = np.broadcast_to(np.arange(ROWS) // 3 % n_steps, size)
        on = np.arange(n_steps - 1) < length[..., None]
        wide = (*size, n_steps - 1)
        later = Later(normal(*wide, SEEN), acted(*wide), normal(*wide), on)
    return Batch(normal(*size, SEEN), acted(*size), normal(*size), normal(*size, SEEN), terminated, later)


def warm(method, settings, seed=0, updates=0):
    """A state in mid-training: larger weights, a target of its own, moments and counts that are not zero."""
    state, rng = method.init(settings, jax.random.key(seed)), np.random.default_rng(seed)
    arrays = to_tensors(state)
    for name, value in arrays.items():
        if ".mu" in name:
            arrays[name] = rng.normal(size=value.shape) * 0.1
        elif ".nu" in name:
            arrays[name] = rng.uniform(0.0002, 0.001, size=value.shape)
        elif name.endswith("count"):
            arrays[name] = np.full(value.shape, 5)
        elif name == "updates":
            arrays[name] = np.array(updates)
        elif name == "log_temperature":
            arrays[name] = value - 0.7 if settings.tuned else value
        else:
            arrays[name] = 1.5 * value + 0.1 * rng.normal(size=value.shape)
        arrays[name] = arrays[name].astype(value.dtype)
    return from_tensors(state, arrays)


def plain(batch):
    rows = batch._asdict() | dict(later=batch.later and batch.later._asdict())
    return jax.tree.map(
        lambda x: np.asarray(x, np.asarray(x).dtype if np.asarray(x).dtype.kind in "ib" else float), rows
    )


def compare(found, wanted):
    found = to_tensors(found)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def moved(before, after, name):
    """How far a part of the state went."""
    before, after = golden.part(to_tensors(before), name), golden.part(after, name)
    return max(np.abs(before[leaf] - after[leaf]).max() for leaf in before)


# ---------------------------------------------------------------- SAC
def tilted_prior(observation, unit):
    return -0.5 * (unit**2).sum(axis=-1) + 0.3 * observation[:, 0] * unit[:, 1]


def uniform_prior(observation, unit):
    return np.full(len(unit), -2 * np.log(2))


AUTO = -2.0  # −A
RELATIVE = AUTO - 2 * np.log(2)  # the same, relative to the uniform density 2^−A
CLEANRL = dict(
    rates=(1e-3, 3e-4, 1e-3),
    log_std="tanh",
    log_std_range=(-5.0, 2.0),
    temperature_sample="fresh",
    entropy_units="box",
    delay=2,
)

# name: (settings, what they mean for the oracle)
SAC = {
    "default": (dict(), dict()),
    "sb3": ("sb3", dict(rates=(3e-4,) * 3, temperature_loss="log")),
    "cleanrl": ("cleanrl", CLEANRL),
    "haarnoja": (
        "haarnoja",
        dict(rates=(3e-4,) * 3, actor_q="mean", log_std="softplus", temperature_sample="fresh"),
    ),
    "rates": (
        dict(critic_learning_rate=0.03, actor_learning_rate=0.01, temperature_learning_rate=0.04),
        dict(rates=(0.03, 0.01, 0.04)),
    ),
    "actor_q_mean": (dict(actor_q="mean"), dict(actor_q="mean")),
    "actor_q_first": (dict(actor_q="first"), dict(actor_q="first")),
    "log_std_tanh": (
        dict(log_std="tanh", log_std_range=(-3.0, 1.0)),
        dict(log_std="tanh", log_std_range=(-3.0, 1.0)),
    ),
    "log_std_softplus": (dict(log_std="softplus"), dict(log_std="softplus")),
    "log_std_range": (dict(log_std_range=(-0.3, 0.2)), dict(log_std_range=(-0.3, 0.2))),
    "temperature_loss": (dict(temperature_loss="log"), dict(temperature_loss="log")),
    "temperature_sample": (dict(temperature_sample="fresh"), dict(temperature_sample="fresh")),
    "entropy_units": (dict(entropy_units="box"), dict(entropy_units="box")),
    "update_order": (dict(update_order="together"), dict(update_order="together")),
    "target_entropy_half": (dict(target_entropy="half"), dict(target_entropy=-1.0)),
    "target_entropy": (dict(target_entropy=-3.5), dict(target_entropy=-3.5)),
    "ent_coef": (dict(ent_coef=0.3), dict(tuned=False)),
    "ent_coef_start": (dict(ent_coef="auto_0.2"), dict()),
    "prior_uniform": (dict(prior="uniform"), dict(prior=uniform_prior, target_entropy=RELATIVE)),
    "prior": (dict(prior=tilted_prior), dict(prior=tilted_prior, target_entropy=RELATIVE)),
    "prior_in_box_units": (
        dict(prior="uniform", entropy_units="box"),
        dict(prior=uniform_prior, target_entropy=AUTO - np.log(np.subtract(BOX.high, BOX.low)).sum()),
    ),
    "tau": (dict(tau=1.0), dict(tau=1.0)),
    "gamma": (dict(gamma=0.0), dict(gamma=0.0)),
    "activation": (dict(activation="tanh"), dict(activation="tanh")),
}


def sac_case(name, updates=0):
    given, meant = SAC[name]
    if isinstance(given, str):
        given = sac.PRESETS[given]
    else:
        given = dict(learning_rate=0.02) | given
    settings = settle(sac.Settings, BOX, COMMON | given)
    state = warm(sac, settings, updates=updates)
    how = How(**(dict(half=HALF, middle=MIDDLE, target_entropy=AUTO) | meant))
    return settings, state, how


def sac_noise(key, delay):
    """What `sac.update` draws."""
    normal = lambda key: np.asarray(jax.random.normal(key, (ROWS, BOX.action_size)), float)
    key, first = jax.random.split(key)
    keys = [key] if delay == 1 else jax.random.split(key, delay)
    pairs = [jax.random.split(key) for key in keys]
    return dict(next=normal(first), actor=[normal(p[0]) for p in pairs], fresh=[normal(p[1]) for p in pairs])


compiled = jax.jit(sac.update, static_argnums=0)  # the others run uncompiled: that is faster, once each


@pytest.mark.parametrize("name", SAC)
def test_sac(name):
    settings, state, how = sac_case(name)
    batch, key = batch_of(BOX), jax.random.key(7)
    wanted = golden.sac(to_tensors(state), plain(batch), sac_noise(key, how.delay), how)
    compare((compiled if how.delay > 1 else sac.update)(settings, state, batch, key)[0], wanted)
    least = 0.1 * min(how.rates)
    assert moved(state, wanted, "actor") > least and moved(state, wanted, "critic") > least


def test_a_delayed_actor_rests_in_between():
    settings, state, how = sac_case("cleanrl", updates=1)
    batch, key = batch_of(BOX), jax.random.key(7)
    wanted = golden.sac(to_tensors(state), plain(batch), sac_noise(key, how.delay), how)
    found, report = compiled(settings, state, batch, key)
    compare(found, wanted)
    assert moved(state, wanted, "actor") == 0 and moved(state, wanted, "critic") > 0
    assert np.isnan(report["actor_loss"]) and report["finite"] == 1


def test_the_first_update():
    """Moments are zero, so Adam's corrections of their bias are at their largest."""
    settings, _, how = sac_case("default")
    state, batch, key = sac.init(settings, jax.random.key(3)), batch_of(BOX), jax.random.key(7)
    wanted = golden.sac(to_tensors(state), plain(batch), sac_noise(key, 1), how)
    found = to_tensors(sac.update(settings, state, batch, key)[0])
    for name, value in wanted.items():
        slope = wanted.get(name.replace("actor.", "actor_moments.0.mu.").replace("critic.", "critic_moments.0.mu."))
        clear = np.abs(slope) > 1e-4 if name.startswith(("actor.", "critic.")) else ...  # a step of the gradient's sign
        np.testing.assert_allclose(found[name][clear], value[clear], rtol=1e-5, atol=1e-5, err_msg=name)
        assert clear is ... or clear.mean() > 0.2, name


def test_what_an_update_of_sac_reports():
    settings, state, how = sac_case("default")
    batch, key = batch_of(BOX), jax.random.key(7)
    report = sac.update(settings, state, batch, key)[1]
    drawn = golden.sampled(
        golden.part(to_tensors(state), "actor"), batch.observation, sac_noise(key, 1)["actor"][0], how
    )
    np.testing.assert_allclose(report["entropy"], -drawn[1].mean(), rtol=1e-5)
    broken = sac.update(settings, state, batch._replace(reward=batch.reward * np.nan), key)[1]
    assert report["finite"] == 1 and broken["finite"] == 0


# ---------------------------------------------------------------- discrete actions
def rows(log_prior):
    return lambda observation: np.broadcast_to(log_prior, (len(observation), 3))


def leaning(observation):
    """A prior that depends on what is seen."""
    return observation @ np.array([[0.3, 0.1, -0.2], [0.0, 0.4, 0.0], [0.2, -0.3, 0.1]], np.float32)


FLAT = 0.98 * np.log(3)  # 0.98 of the uniform policy's entropy
KL = FLAT - np.log(3)  # relative to a normalised prior
OF_TWO = np.log(np.exp(-0.5) + np.exp(0.3)) - 0.02 * np.log(2)  # relative to ROW, which allows two
UNIFORM = rows(-np.log(3))

SOFT_DQN = {
    "flat": (dict(), dict()),
    "uniform": (dict(prior="uniform"), dict(prior=UNIFORM)),
    "row": (dict(prior=ROW), dict(prior=rows(ROW))),
    "function": (dict(prior=leaning), dict(prior=leaning)),
    "double": (dict(double=True), dict(double=True)),
    "n_steps": (dict(n_steps=3), dict(n_steps=3)),
    "n_steps_row": (dict(n_steps=3, prior=ROW), dict(n_steps=3, prior=rows(ROW))),
    "n_steps_double": (dict(n_steps=3, double=True), dict(n_steps=3, double=True)),
    "auto": (dict(ent_coef="auto"), dict(tuned=True, target_entropy=FLAT)),
    "auto_half": (dict(ent_coef="auto_0.3", target_entropy="half"), dict(tuned=True, target_entropy=FLAT / 2)),
    "auto_uniform": (
        dict(ent_coef="auto", prior="uniform", double=True, n_steps=3),
        dict(tuned=True, prior=UNIFORM, target_entropy=KL, double=True, n_steps=3),
    ),
    "gamma": (dict(gamma=0.0, n_steps=3), dict(gamma=0.0, n_steps=3)),
}

DISCRETE_SAC = {
    "flat": (dict(), dict(target_entropy=FLAT)),
    "uniform": (dict(prior="uniform"), dict(prior=UNIFORM, target_entropy=KL)),
    "row": (dict(prior=ROW), dict(prior=rows(ROW), target_entropy=OF_TWO)),
    "function": (dict(prior=leaning), dict(prior=leaning, target_entropy=KL)),
    "ent_coef": (dict(ent_coef=0.3), dict(tuned=False)),
    "target_entropy": (dict(target_entropy=0.4), dict(target_entropy=0.4)),
}


@pytest.mark.parametrize("name", SOFT_DQN)
def test_soft_dqn(name):
    given, meant = SOFT_DQN[name]
    settings = settle(soft_dqn.Settings, CHOICES, COMMON | dict(learning_rate=0.02, ent_coef=0.3) | given)
    state, batch = warm(soft_dqn, settings), batch_of(CHOICES, n_steps=settings.n_steps)
    how = How(**(dict(tuned=False, prior=rows(0.0)) | meant))
    wanted = golden.soft_dqn(to_tensors(state), plain(batch), how)
    compare(soft_dqn.update(settings, state, batch, jax.random.key(0))[0], wanted)
    assert moved(state, wanted, "critic") > 1e-3


@pytest.mark.parametrize("name", DISCRETE_SAC)
def test_discrete_sac(name):
    given, meant = DISCRETE_SAC[name]
    settings = settle(discrete_sac.Settings, CHOICES, COMMON | dict(learning_rate=0.02) | given)
    state, batch = warm(discrete_sac, settings), batch_of(CHOICES)
    wanted = golden.discrete_sac(to_tensors(state), plain(batch), How(**(dict(prior=rows(0.0)) | meant)))
    compare(discrete_sac.update(settings, state, batch, jax.random.key(0))[0], wanted)
    assert moved(state, wanted, "critic") > 1e-3 and moved(state, wanted, "actor") > 1e-3


# ---------------------------------------------------------------- many updates
def test_a_block_of_updates_and_several_seeds_are_single_updates():
    settings = sac_case("default")[0]
    one, block = partial(sac.update, settings), partial(training.updates, sac.SAC.method, settings)
    seeds = [warm(sac, settings, seed) for seed in range(3)]
    batches = [batch_of(BOX, seed, lead=(5,)) for seed in range(3)]
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *zip(seeds, batches, strict=True))
    ends, reports = jax.jit(jax.vmap(block))(*together, keys)
    end, report = jax.jit(block)(seeds[0], batches[0], keys[0])
    for i, (state, rows, key) in enumerate(zip(seeds, batches, keys, strict=True)):
        singles = []
        for j, k in enumerate(jax.random.split(key, 5)):
            state, told = one(state, jax.tree.map(lambda x, j=j: x[j], rows), k)
            singles.append([told[name] for name in sorted(told)])
        close(jax.tree.map(lambda x, i=i: x[i], ends), state, 1e-5)
        np.testing.assert_allclose(reports[i], singles, rtol=1e-5, atol=1e-5)
        if i == 0:
            close(end, state, 1e-6)
            np.testing.assert_allclose(report, singles, rtol=1e-5, atol=1e-5)


def close(found, wanted, tolerance):
    wanted = to_tensors(wanted)
    for name, value in to_tensors(found).items():
        np.testing.assert_allclose(value, wanted[name], rtol=tolerance, atol=tolerance, err_msg=name)
