"""Environments in JAX against Gymnasium's, against the model that they draw from, and as Gymnasium environments."""

import subprocess
import sys
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import nearopt as no
from nearopt import environments
from nearopt.environments import errors as e
from nearopt.environments.adapter import GymnasiumEnvironment
from nearopt.environments.capture import capture, restore, same, verified
from nearopt.environments.pendulum import Pendulum
from nearopt.environments.streams import Streams, make
from nearopt.environments.tabular import Tabular, ends

ID = "nearopt/Pendulum-v0"


# ---------------------------------------------------------------- the pendulum
def test_the_pendulum_moves_as_gymnasiums():
    rng, own, theirs = np.random.default_rng(0), Pendulum(), gymnasium.make("Pendulum-v1").unwrapped
    theirs.reset(seed=0)
    states = rng.uniform([-np.pi, -8], [np.pi, 8], (300, 2))
    states[:4] = [[0, 0], [np.pi, 0], [-np.pi, 8], [3.1, 8]]
    actions = rng.uniform(-2.5, 2.5, (300, 1))  # beyond the bounds too: both clip
    step = jax.jit(jax.vmap(own.step, in_axes=(None, 0, 0)))
    after, reward, terminated = step(jax.random.key(0), jnp.float32(states), jnp.float32(actions))
    assert {after.dtype.name, reward.dtype.name, terminated.dtype.name} == {"float32", "bool"}
    observed = jax.vmap(own.observe)(after)
    for i, (state, action) in enumerate(zip(states, actions, strict=True)):
        theirs.state = state
        expected, pay, over, _, _ = theirs.step(action)
        np.testing.assert_allclose(observed[i], expected, atol=3e-6)
        assert reward[i] == pytest.approx(pay, rel=1e-5, abs=1e-5) and terminated[i] == over


def test_the_pendulum_stays_on_gymnasiums_course():
    own, theirs = Pendulum(), gymnasium.make("Pendulum-v1").unwrapped
    theirs.reset(seed=0)
    theirs.state = np.array([3.0, 0.5])
    actions = jnp.float32(np.sin(np.arange(60) / 5)[:, None] * 2)

    def step(state, action):
        state, reward, _ = own.step(jax.random.key(0), state, action)
        return state, (own.observe(state), reward)

    _, (observed, rewards) = jax.lax.scan(step, jnp.float32([3.0, 0.5]), actions)
    for action, observation, reward in zip(np.asarray(actions), observed, rewards, strict=True):
        expected, pay, *_ = theirs.step(action)
        np.testing.assert_allclose(observation, expected, atol=1e-3)
        assert reward == pytest.approx(pay, abs=1e-3)


def test_the_pendulum_begins_as_gymnasiums():
    own, theirs = Pendulum(), gymnasium.make("Pendulum-v1")
    states = np.asarray(jax.vmap(own.reset)(jax.random.split(jax.random.key(0), 4000)))
    assert np.abs(states).max(axis=0) == pytest.approx([np.pi, 1], rel=0.01)
    assert states.std(axis=0) == pytest.approx([np.pi / 3**0.5, 1 / 3**0.5], rel=0.05)
    assert own.observation_space == theirs.observation_space and own.action_space == theirs.action_space
    assert own.max_episode_steps == theirs.spec.max_episode_steps == gymnasium.spec(ID).max_episode_steps


# ---------------------------------------------------------------- models
def random_model(rng):
    """Wide and narrow choices, two rewards to the same next state, tiny probabilities, several first states."""
    states, actions = 7, 3
    rows = rng.dirichlet(np.full(states, 0.3), (states, actions))
    rows[0, 0] = np.eye(states)[3]
    rows[1, 1] = [1e-9, 0.5, 0.0, 0.5 - 1e-9, 0, 0, 0]

    def step(state, action):
        branches = [(p, s, float(100 * state + 10 * action + s)) for s, p in enumerate(rows[state, action])]
        return [*((p / 2, s, r) for p, s, r in branches), *((p / 2, s, r + 0.5) for p, s, r in branches)]

    actions_of = lambda state: list(range(actions)) if state < states - 1 else []
    return no.MDP.from_function(step, {0: 0.25, 2: 0.5, 6: 0.25}, actions_of, discount=0.9)


def slowly(mdp, state, action, bits):
    """(next state, reward, terminated): the branch into whose part of [0, 2³²) the random bits fall."""
    choices = range(mdp.choice_offset[state], mdp.choice_offset[state + 1])
    if len(choices) == 0:
        return state, 0.0, True
    choice = next(c for c in choices if mdp.choice_action[c] == action)
    branches = range(mdp.branch_offset[choice], mdp.branch_offset[choice + 1])
    above = lambda branch: bits < mdp.probability[branches[0] : branch + 1].sum() * 2.0**32
    branch = next((branch for branch in branches if above(branch)), branches[-1])
    after = int(mdp.next_state[branch])
    return after, mdp.branch_reward[branch], bool(mdp.terminal[after])


def test_a_model_is_drawn_from_branch_by_branch():
    mdp = random_model(np.random.default_rng(0))
    tabular = Tabular(mdp, 50)
    keys = jax.random.split(jax.random.key(1), 400)
    bits = np.asarray(jax.vmap(lambda key: jax.random.bits(key, dtype=jnp.uint32))(keys))
    step = jax.jit(jax.vmap(tabular.step, in_axes=(0, None, None)))
    for state in range(mdp.num_states):
        for action in range(mdp.num_actions):
            after, reward, terminated = step(keys, jnp.int32(state), jnp.int32(action))
            expected = np.array([slowly(mdp, state, action, number) for number in bits.tolist()])
            np.testing.assert_array_equal(np.stack([after, reward, terminated], axis=1), expected)


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
def test_the_extremes_stay_within_the_choice(monkeypatch, bits):
    mdp = random_model(np.random.default_rng(0))
    monkeypatch.setattr(jax.random, "bits", lambda key, dtype: jnp.uint32(bits))
    state, action = np.divmod(np.arange(mdp.num_states * mdp.num_actions), mdp.num_actions)
    step = jax.jit(jax.vmap(Tabular(mdp, 50).step, in_axes=(None, 0, 0)))
    found = np.stack(step(jax.random.key(0), state, action), axis=1)
    np.testing.assert_array_equal(found, [slowly(mdp, *pair, bits) for pair in zip(state, action, strict=True)])


def test_frequencies_are_those_of_the_model():
    mdp = random_model(np.random.default_rng(1))
    tabular, count = Tabular(mdp, 50), 20_000
    keys = jax.random.split(jax.random.key(2), count)
    first = np.bincount(jax.jit(jax.vmap(tabular.reset))(keys), minlength=mdp.num_states) / count
    np.testing.assert_allclose(first, mdp.initial, atol=0.015)
    step = jax.jit(jax.vmap(tabular.step, in_axes=(0, None, None)))
    after = step(keys, jnp.int32(1), jnp.int32(2))[0]
    row = mdp.transition.toarray()[1 * mdp.num_actions + 2]
    np.testing.assert_allclose(np.bincount(after, minlength=mdp.num_states) / count, row, atol=0.015)


def test_intervals_are_as_long_as_probabilities():
    rng = np.random.default_rng(0)
    offset = np.array([0, 1, 4, 1004])
    probability = np.concatenate([[1.0], [0.25, 0.5, 0.25], rng.dirichlet(np.ones(1000))])
    found = ends(probability, offset).astype(float)
    for begin, end in zip(offset[:-1], offset[1:], strict=True):
        lengths = np.diff(np.concatenate([[0.0], found[begin : end - 1], [2.0**32]]))
        np.testing.assert_allclose(lengths / 2.0**32, probability[begin:end], atol=2.0**-31)


def test_observations_of_a_model_and_its_time():
    mdp = random_model(np.random.default_rng(2))
    tabular = Tabular(mdp, np.int64(5))
    np.testing.assert_array_equal(jax.vmap(tabular.observe)(jnp.arange(7)), np.eye(7, dtype=np.float32))
    assert tabular.max_episode_steps == 5 and type(tabular.max_episode_steps) is int
    assert (tabular.observation_space.shape, tabular.action_space.n) == ((7,), 3)


ROW = np.array([[0.5, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Tabular(no.MDP.from_arrays([[[0, 1], [0, 0]], [[0, 1], [1, 0]]], [0.0, 0.0]), 5),
            e.UnavailableActionError,
            "state 0, action 1 is not available",
        ),
        (
            lambda: Tabular(no.MDP.from_arrays([ROW, ROW], [[0, 0], [0, -np.inf]]), 5),
            e.NonFiniteError,
            "state 1, action 1 pays -inf",
        ),
        (lambda: Tabular(no.MDP.from_grid("SG"), 0), e.EpisodeLengthError, "max_episode_steps is 0"),
        (lambda: Tabular(no.MDP.from_grid("SG"), 2.5), e.EpisodeLengthError, "max_episode_steps is 2.5"),
    ],
)
def test_models_that_cannot_be_drawn_from(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert caught.value.mend


# ---------------------------------------------------------------- as Gymnasium environments
def maze():
    return GymnasiumEnvironment(Tabular(no.MDP.from_grid("S.G\n...", slip=0.1), 20))


def limited_maze():
    return gymnasium.wrappers.TimeLimit(maze(), 20)


@pytest.mark.filterwarnings("ignore:.*(symmetric and normalized|alternative render modes).*:UserWarning")
@pytest.mark.parametrize("env", [maze, lambda: gymnasium.make(ID).unwrapped], ids=["maze", "pendulum"])
def test_gymnasiums_own_checks(env):
    check_env(env())


def test_the_adapter_steps_as_the_environment():
    env, own = gymnasium.make(ID).unwrapped, Pendulum()
    observation, _ = env.reset(seed=3)
    state = jnp.asarray(env.state[0])
    for torque in np.linspace(-2, 2, 9, dtype=np.float32):
        np.testing.assert_allclose(observation, own.observe(state), rtol=1e-6, atol=1e-6)
        observation, reward, terminated, truncated, _ = env.step(torque[None])
        state, expected, _ = own.step(jax.random.key(0), state, torque[None])
        assert reward == pytest.approx(float(expected), rel=1e-5) and not terminated and not truncated
        assert type(reward) is float and type(terminated) is bool
        np.testing.assert_allclose(env.state[0], state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make_env", [lambda: gymnasium.make(ID), limited_maze], ids=["pendulum", "maze"])
def test_the_adapter_is_captured_exactly(make_env):
    assert verified(make_env) is None
    one, other = Streams(make_env()), Streams(make_env())
    one.reset(0)
    restore(other, capture(one))
    actions = np.zeros((1, 1), np.float32) if not one.spaces.discrete else np.ones(1, int)
    for _ in range(250):
        left, right = one.step(actions), other.step(actions)
        assert same(list(left), list(right))


# ---------------------------------------------------------------- ids
def test_registering_twice_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environments.register()
    assert gymnasium.spec(ID).entry_point == "nearopt.environments.adapter:make"


def test_ids_lead_to_environments():
    assert isinstance(environments.functional(ID, {"max_episode_steps": 7}), Pendulum)
    assert environments.functional("Pendulum-v1") is None
    assert set(environments.TABLE) <= set(gymnasium.registry)
    streams = make(ID)
    assert streams.reset(0).shape == (1, 3)
    for _ in range(199):
        assert not streams.step(np.zeros((1, 1))).truncated[0]
    assert streams.step(np.zeros((1, 1))).truncated[0]


def test_gymnasium_finds_the_environment_and_no_jax_is_loaded_before():
    code = """if True:
    import sys
    import gymnasium, nearopt.environments
    print(nearopt.environments.TABLE.keys() <= gymnasium.registry.keys(), {"jax", "scipy"} & set(sys.modules))
    import nearopt.environments.streams
    print({"jax", "equinox", "mujoco"} & set(sys.modules))
    print(gymnasium.make("nearopt.environments:nearopt/Pendulum-v0").reset(seed=0)[0].shape)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["True set()", "set()", "(3,)"]
