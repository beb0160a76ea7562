"""What an agent is to its user: predict, learn, replay, save, load."""

import json
import subprocess
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import nearopt as no
from nearopt.agents import compiled
from nearopt.agents.agent import named
from nearopt.agents.errors import DivergedError, NoEnvironmentError, ObservationError, SettingError, WrongAgentError
from nearopt.agents.files import repeat
from nearopt.environments.adapter import GymnasiumEnvironment
from nearopt.environments.pendulum import Pendulum
from nearopt.environments.tabular import Tabular
from nearopt.mdp.errors import NearoptError
from nearopt.runs import tensors
from nearopt.runs.checkpoints import Checkpoints
from tests.environments.counting import Counting

SMALL = dict(net_arch=[8], batch_size=8, learning_starts=5)
BOX = Box(np.float32([-1, -3]), np.float32([1, 5]))


def vector(mode, num=3, actions=None):
    return SyncVectorEnv([lambda i=i: Counting(i, actions) for i in range(num)], autoreset_mode=mode)


# ---------------------------------------------------------------- acting
def test_predict_takes_one_observation_or_many():
    agent = no.SAC(Counting(actions=BOX), seed=0, **SMALL)
    one, state = agent.predict([0.0, 1.0, 2.0])
    many, _ = agent.predict(np.zeros((5, 3)), deterministic=True)
    assert state is None and one.shape == (2,) and many.shape == (5, 2) and BOX.contains(one)
    assert (many == many[0]).all() and agent.soft_value(np.zeros(3)).shape == ()
    assert agent.q_values(np.zeros((5, 3)), np.zeros(2)).shape == (5,)
    samples = np.array([agent.predict(np.zeros(3))[0] for _ in range(50)])
    assert len(np.unique(samples, axis=0)) == 50  # the noise goes on


@pytest.mark.parametrize("kind", [no.SoftDQN, no.DiscreteSAC])
def test_discrete_actions_are_the_environments_numbers(kind):
    agent = kind(Counting(), seed=0, ent_coef=0.5, **SMALL)  # Discrete(4, start=5)
    actions = agent.predict(np.zeros((200, 3)))[0]
    assert set(actions) == {5, 6, 7, 8} and isinstance(agent.predict(np.zeros(3))[0], np.integer)
    q = agent.q_values(np.zeros(3))
    assert q.shape == (4,) and agent.q_values(np.zeros(3), 7) == q[2]
    assert (
        agent.predict(np.zeros(3), deterministic=True)[0] == agent.predict(np.zeros((1, 3)), deterministic=True)[0][0]
    )
    with pytest.raises(ObservationError, match="9 is no action"):
        agent.q_values(np.zeros(3), 9)


def test_soft_values_of_a_q_function_are_its_log_sum_exp():
    agent = no.SoftDQN(Counting(), seed=0, ent_coef=0.5, **SMALL)
    q, value = agent.q_values(np.ones((6, 3))), agent.soft_value(np.ones((6, 3)))
    assert np.allclose(value, 0.5 * np.log(np.exp(q / 0.5).sum(axis=1)), atol=1e-6)
    uniform = no.SoftDQN(Counting(), seed=0, ent_coef=0.5, prior="uniform", **SMALL)
    assert np.allclose(uniform.soft_value(np.ones((6, 3))), value - 0.5 * np.log(4), atol=1e-6)
    assert uniform.temperature == pytest.approx(0.5)


def test_sb3_may_evaluate_an_agent():
    agent, env = no.SoftDQN("CartPole-v1", seed=0, **SMALL), gymnasium.make_vec("CartPole-v1", 3)
    observations, starts = env.reset(seed=0)[0], np.ones(3, bool)
    for _ in range(5):  # as stable_baselines3.common.evaluation.evaluate_policy does it
        actions, states = agent.predict(observations, state=None, episode_start=starts, deterministic=True)
        observations, _, ended, _, _ = env.step(actions)
        starts = ended
        assert states is None and actions.shape == (3,)


PEERS = Path(__file__).parents[2] / ".venv-peers/bin/python"  # `make peers`: another Python, hence another process
EVALUATE = """
import json, sys, gymnasium, numpy as np
from stable_baselines3.common.evaluation import evaluate_policy

class Agent:
    def predict(self, *given, **named):
        plain = lambda x: x.tolist() if hasattr(x, "tolist") else x
        print(json.dumps([[plain(x) for x in given], {name: plain(x) for name, x in named.items()}]), flush=True)
        action, kind = json.loads(sys.stdin.readline())
        return np.array(action, kind), None

told = evaluate_policy(Agent(), gymnasium.make(sys.argv[1]), 3, return_episode_rewards=True, warn=False)
print(json.dumps(dict(returns=told[0], lengths=told[1]), default=float))
"""


@pytest.mark.skipif(not PEERS.exists(), reason="stable_baselines3 is not installed: make peers")
@pytest.mark.parametrize("kind, id", [(no.SoftDQN, "CartPole-v1"), (no.SAC, "Pendulum-v1")])
def test_sb3_does_evaluate_an_agent(kind, id):
    """Its own function, which calls `predict` in its own way."""
    agent = kind(id, seed=0, **SMALL)
    command = [str(PEERS), "-W", "ignore", "-c", EVALUATE, id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sb3:
        assert sb3.stdin and sb3.stdout
        while isinstance(asked := json.loads(sb3.stdout.readline()), list):
            action, _ = agent.predict(*asked[0], **asked[1])
            print(json.dumps([action.tolist(), str(action.dtype)]), file=sb3.stdin, flush=True)
    assert len(asked["returns"]) == 3 and min(asked["lengths"]) >= 8 and np.isfinite(asked["returns"]).all()


@pytest.mark.parametrize(
    "ask, said",
    [
        (lambda agent: agent.predict([0.0, np.nan, 0.0]), "is not finite"),
        (lambda agent: agent.q_values(np.zeros((2, 3)), [5, 6, 7]), "is no action of"),
        (lambda agent: agent.q_values(np.zeros(3), 5.5), "is no action of"),
        (lambda agent: agent.q_values(np.zeros(3), "x"), "is no action of"),
        (lambda agent: agent.q_values(np.zeros(3), 4), "is no action of"),
    ],
)
def test_what_is_asked_has_to_make_sense(ask, said):
    with pytest.raises(ObservationError, match=said):
        ask(no.SoftDQN(Counting(), seed=0, **SMALL))


@pytest.mark.parametrize("action", [[1.0], np.zeros((3, 2)), [np.nan, 0.0], "x"], ids=repr)
def test_actions_in_a_box_have_to_make_sense(action):
    with pytest.raises(ObservationError, match="is no action of"):
        no.SAC(Counting(actions=BOX), seed=0, **SMALL).q_values(np.zeros((2, 3)), action)


# ---------------------------------------------------------------- learning
def check_chain(agent, streams):
    """Every transition in the buffer is one that the counting environment made, and none is missing."""
    have = agent.replay
    assert len(have.reward) == agent.buffer.inserted
    expected = 1000.0 * have.observation[:, 1] + 10.0 * have.observation[:, 2] + have.action
    assert np.array_equal(have.reward, expected)
    assert np.array_equal(have.observation[:, :2], have.next_observation[:, :2])  # never into another episode
    assert np.array_equal(have.observation[:, 2] + 1, have.next_observation[:, 2])
    for stream in range(streams):
        rows = have.observation[have.observation[:, 0] == stream]
        over = np.flatnonzero(np.diff(rows[:, 1]))
        assert (np.diff(rows[:, 1]) >= 0).all() and (rows[over + 1, 2] == 0).all()
        assert (np.diff(rows[:, 2])[np.diff(rows[:, 1]) == 0] == 1).all()


@pytest.mark.parametrize("make", [Counting, *(lambda mode=mode: vector(mode) for mode in AutoresetMode)])
def test_the_buffer_holds_every_transition_and_nothing_else(make):
    env = make()
    agent = no.SoftDQN(env, seed=0, **SMALL).learn(60)
    check_chain(agent, getattr(env, "num_envs", 1))
    assert agent.steps >= 60 and agent.state.updates > 0


def test_a_second_call_learns_that_many_more():
    steps = []
    agent = no.SoftDQN(Counting(), seed=0, **SMALL)
    agent.learn(40, callback=lambda step, row: steps.append(step), log_every=20)
    agent.learn(30, callback=lambda step, row: steps.append(step), log_every=20)
    assert agent.steps == 70 and len(agent.replay.reward) == 70 and steps == [20, 40, 60, 70]


def test_what_is_played_between_two_calls_is_not_learned():
    env = Counting()
    agent = no.SoftDQN(env, seed=0, **SMALL).learn(25)
    env.reset(seed=9)
    env.step(5)
    agent.learn(10)
    have = agent.replay
    assert len(have.reward) == 35 and (have.next_observation[:, 1] == have.observation[:, 1]).all()  # one episode
    assert (have.next_observation[:, 2] == have.observation[:, 2] + 1).all()


def test_windows_do_not_lead_from_one_call_into_the_next():
    """In JAX, where time limits are long: the second call begins with a new episode."""
    settings = SMALL | dict(n_steps=4, learning_starts=400, batch_size=200)
    world = Tabular(no.MDP.from_grid("S...G"), max_episode_steps=1_000)
    agent = no.SoftDQN(world, seed=0, buffer_size=400, **settings).learn(7).learn(7).learn(30)
    program = compiled.Program(agent.method, agent.settings, world, agent.learner.monitor.names, 0, 1)
    ring = {name: jnp.asarray(column) for name, column in agent.buffer.rows.items()}
    assert [int(n) for n in np.flatnonzero(agent.buffer.rows["back"][:44] == 0)][:3] == [0, 7, 14]
    batch = compiled.sample(program, ring, 0, 44)
    numbers = jnp.asarray(np.arange(400))
    where = compiled.sample(program, ring | dict(reward=numbers.astype(jnp.float32)), 0, 44)
    first, last = np.asarray(where.reward[0]), np.asarray((where.reward + where.later.on.sum(axis=-1))[0])
    for edge in (7, 14):
        assert not ((first < edge) & (last >= edge)).any() and (last == edge - 1).any()
    assert np.asarray(batch.later.on).any()


class Uniform(Pendulum):
    """Pays what its own draw says, which is made as that of a random action would be."""

    def step(self, key, state, action):
        state, _, terminated = super().step(key, state, action)
        return state, jax.random.uniform(key, (1,), minval=-1.0)[0], terminated


def test_the_environments_chance_is_not_the_actions():
    have = no.SAC(Uniform(), seed=0, **SMALL | dict(learning_starts=400)).learn(400).replay
    assert abs(np.corrcoef(have.action[:, 0], have.reward)[0, 1]) < 0.2


def test_a_callback_sees_rows_and_may_stop():
    rows = []

    def stop(step, row):
        rows.append(row)
        return np.bool_(len(rows) < 2)

    agent = no.SoftDQN(Counting(), seed=0, **SMALL)
    agent.learn(500, callback=stop, log_every=10)
    assert agent.steps == 20 and {"return", "soft_return", "entropy", "temperature", "critic_loss"} <= rows[1].keys()


def test_equal_seeds_learn_equally_and_others_do_not():
    agents = [no.SoftDQN(Counting(), seed=seed, **SMALL).learn(30) for seed in (1, 1, 2)]
    value = [agent.soft_value(np.ones(3)) for agent in agents]
    assert value[0] == value[1] != value[2]


def test_discount_zero_learns_rewards():
    agent = no.SoftDQN("CartPole-v1", seed=0, gamma=0.0, learning_rate=1e-2, **SMALL).learn(300)
    q = agent.q_values(agent.replay.observation)
    assert abs(q[np.arange(300), agent.replay.action] - 1.0).mean() < 0.1


@pytest.mark.parametrize("id", ["Pendulum-v1", "nearopt/Pendulum-v0"])
def test_a_loss_that_is_not_finite_stops_before_its_update(id, tmp_path):
    agent = no.SAC(id, seed=0, **(SMALL | dict(learning_rate=1e30)))
    with pytest.raises(DivergedError, match="loss is (nan|inf)"):
        agent.learn(200, run_dir=tmp_path / "run", checkpoint_every=4)
    assert np.isfinite(agent.soft_value([1.0, 0.0, 0.0])) and agent.steps < 12
    _, reports = repeat(tmp_path / "run" / "failure")
    assert not all(np.isfinite(row).all() for row in reports.values())
    tensors = Checkpoints(tmp_path / "run" / "checkpoints").latest().tensors
    assert all(np.isfinite(array).all() for name, array in tensors.items() if name.startswith("state."))


class Costly(Pendulum):
    """Pays so much that its square is infinite."""

    def step(self, key, state, action):
        state, _, terminated = super().step(key, state, action)
        return state, jnp.float32(1e25), terminated


@pytest.mark.parametrize("env", [Costly(), TimeLimit(GymnasiumEnvironment(Costly()), 50)], ids=["jax", "host"])
def test_the_loss_that_is_not_finite_first_is_named(env):
    """The actor's follows from it."""
    with pytest.raises(DivergedError, match="critic_loss is inf"):
        no.SAC(env, seed=0, **SMALL).learn(200)


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    "given, said",
    [
        (dict(learning_rat=1), "'learning_rat'; did you mean 'learning_rate'"),
        (dict(learning_rate=-1), "learning_rate=-1 is not a number above 0"),
        (dict(gamma=1.5), "gamma=1.5 is not a number from 0 to 1"),
        (dict(batch_size=2.5), "batch_size=2.5 is not a whole number"),
        (dict(batch_size=100, buffer_size=10), "batch_size=100 is more than buffer_size=10"),
        (dict(ent_coef="aut"), "ent_coef='aut' is no temperature"),
        (dict(ent_coef=0.0), "ent_coef=0.0 is no temperature"),
        (dict(policy_kwargs=dict(net_arc=[1])), "policy_kwargs has no 'net_arc'"),
        (dict(policy_kwargs=dict(activation_fn="relux")), "activation='relux' is not one of"),
        (dict(prior=[0.0, 0.0]), "is not a row of 4 log-probabilities"),
        (dict(prior="gauss"), "prior='gauss' is none that this agent knows"),
        (dict(n_steps=0), "n_steps=0 is not"),
    ],
)
def test_wrong_settings_are_named(given, said):
    with pytest.raises(SettingError, match=said.replace("(", r"\(")):
        no.SoftDQN(Counting(), **given)


def test_wrong_arguments_are_named():
    with pytest.raises(SettingError, match="seed is -1"):
        no.SAC("Pendulum-v1", seed=-1)
    with pytest.raises(SettingError, match="n_envs is 4, and the environment is 1"):
        no.SAC(gymnasium.make("Pendulum-v1"), n_envs=4)
    with pytest.raises(SettingError, match="the environment is made"):
        no.SAC(gymnasium.make("Pendulum-v1"), env_kwargs=dict(g=1.0))
    agent = no.SAC("Pendulum-v1", **SMALL)
    for name in ("total_timesteps", "log_every", "checkpoint_every"):
        with pytest.raises(SettingError, match=f"{name} is 0"):
            agent.learn(**(dict(total_timesteps=9) | {name: 0}))


def test_an_environment_is_named_only_where_its_name_says_all():
    assert named(gymnasium.make("CartPole-v1")) == ("CartPole-v1", {})
    changed = gymnasium.make("CartPole-v1", max_episode_steps=7, disable_env_checker=True, sutton_barto_reward=True)
    told = dict(sutton_barto_reward=True, max_episode_steps=7, disable_env_checker=True)
    assert named(changed) == ("CartPole-v1", told)
    assert gymnasium.make("CartPole-v1", **told).spec.max_episode_steps == 7
    for env in (gymnasium.wrappers.ClipReward(changed, 0, 1), gymnasium.make_vec("CartPole-v1", 2)):
        assert named(env) == (None, {})


def test_wrong_agents_are_named():
    with pytest.raises(WrongAgentError, match="take SoftDQN or DiscreteSAC"):
        no.SAC(Counting())
    with pytest.raises(WrongAgentError, match="take SAC"):
        no.SoftDQN("Pendulum-v1")
    with pytest.raises(WrongAgentError, match="'sb3', 'cleanrl', 'haarnoja'"):
        no.SAC("Pendulum-v1", preset="spinning")
    with pytest.raises(SettingError, match="actor_q='max' is none of the choices"):
        no.SAC("Pendulum-v1", actor_q="max")


# ---------------------------------------------------------------- files
@pytest.mark.parametrize(
    "make",
    [
        lambda: no.SAC(Counting(actions=BOX), seed=3, preset="cleanrl", **SMALL),
        lambda: no.SoftDQN(Counting(), seed=3, prior=[0.0, -1.0, -np.inf, -2.0], **SMALL),
        lambda: no.DiscreteSAC(Counting(), seed=3, **SMALL),
    ],
)
def test_a_saved_agent_is_the_same_agent(make, tmp_path):
    agent = make().learn(20)
    agent.save(tmp_path / "a")
    same = no.load_agent(tmp_path / "a")
    same.save(tmp_path / "b")
    for name in ("agent.safetensors", "agent.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert type(same) is type(agent) and same.settings == agent.settings
    x = np.random.default_rng(0).normal(size=(9, 3))
    assert np.array_equal(same.soft_value(x), agent.soft_value(x))
    assert np.array_equal(same.predict(x, deterministic=True)[0], agent.predict(x, deterministic=True)[0])
    with pytest.raises(NoEnvironmentError):
        same.learn(1)


@pytest.mark.parametrize(
    "changed", [dict(spaces=3), dict(settings={}), dict(seed="x"), dict(steps=[]), dict(seed=None)]
)
def test_files_with_right_checksums_and_wrong_facts_are_refused(tmp_path, changed):
    no.SoftDQN("CartPole-v1", **SMALL).save(tmp_path / "a")
    arrays, facts = tensors.load(tmp_path / "a", "agent")
    tensors.save(tmp_path / "b", "agent", arrays, facts | changed)
    with pytest.raises(NearoptError):
        no.load_agent(str(tmp_path / "b"))


def test_a_loaded_agent_learns_on(tmp_path):
    agent = no.SoftDQN(Counting(), seed=0, **SMALL).learn(30)
    agent.save(tmp_path)
    again = no.SoftDQN.load(tmp_path, env=Counting()).learn(10)
    assert again.steps == 40 and len(again.replay.reward) == 10 and again.state.updates > agent.state.updates


def test_what_does_not_fit_is_refused(tmp_path):
    no.SoftDQN(Counting(), seed=0, **SMALL).save(tmp_path)
    with pytest.raises(WrongAgentError, match="holds a SoftDQN"):
        no.SAC.load(tmp_path)
    with pytest.raises(WrongAgentError, match="other observations or actions"):
        no.SoftDQN.load(tmp_path, env=Counting(actions=Discrete(3)))
    for name in ("agent.json", "agent.safetensors"):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(no.NearoptError, match="damaged"):
            no.load_agent(tmp_path)
        path.write_bytes(whole)


def test_a_prior_that_is_a_function_is_given_again(tmp_path):
    prior = lambda observation: -observation[:, :1] * np.arange(4.0)
    agent = no.SoftDQN(Counting(), seed=0, prior=prior, **SMALL)
    agent.save(tmp_path)
    assert json.loads((tmp_path / "agent.json").read_text())
    with pytest.raises(WrongAgentError, match="was a function"):
        no.load_agent(tmp_path)
    x = np.ones((2, 3))
    assert np.array_equal(no.SoftDQN.load(tmp_path, prior=prior).soft_value(x), agent.soft_value(x))
