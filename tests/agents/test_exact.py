"""What agents learn by experience against `solve`; and historic bugs, planted one at a time, that this must notice.

Environments start anywhere, which changes no value, and cut episodes after a few steps, which must not either: most
episodes are truncated, and whoever takes that for an end is far off.
"""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import nearopt as no
from nearopt.agents import compiled, discrete_sac, replay, sac, soft_dqn
from nearopt.agents.distributions import Squashed
from nearopt.agents.networks import both
from nearopt.agents.session import Session
from nearopt.environments.environment import Environment
from nearopt.environments.tabular import Tabular

NEAR = 1e-2
GAMMA = 0.9
MAZES = ["S.#.G\n..#..\n.....", "S...\n.#..\n.#.#\n...G", "S....\n.#.#.\n....G"]  # 13 cells each: one program


@pytest.fixture
def quick_compilation():
    """Some programs run for less time than it takes to make them good."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# ---------------------------------------------------------------- worlds
def anywhere(mdp):
    return mdp.replace(initial=~mdp.terminal / np.sum(~mdp.terminal))


def maze(text):
    return anywhere(no.MDP.from_grid(text, step_reward=-0.1, goal_reward=1.0, discount=GAMMA))


def lake():
    return anywhere(no.MDP.from_gymnasium("FrozenLake-v1", discount=GAMMA))


def lottery():
    """A ticket may win entry to a second draw; every draw can be left alone."""
    table = {
        ("shop", "draw"): [(0.3, "hall", 0.25), (0.7, "shop", -0.1)],
        ("shop", "leave"): [(1.0, "home", 0.05)],
        ("hall", "draw"): [(0.5, "home", 0.5), (0.5, "shop", -0.2)],
        ("hall", "leave"): [(1.0, "home", 0.15)],
    }
    mdp = no.MDP.from_function(lambda s, a: table[s, a], "shop", lambda s: [] if s == "home" else ["draw", "leave"])
    return anywhere(mdp.replace(discount=GAMMA))


def errors(agent, mdp):
    """The largest |V − V*|, and the largest total variation between π and π*, over all states that are no end."""
    exact = no.solve(mdp, temperature=agent.temperature, prior=agent.settings.prior)
    live = np.flatnonzero(~mdp.terminal)
    seen = np.eye(mdp.num_states, dtype=np.float32)[live]
    if isinstance(agent, no.SoftDQN):
        row = soft_dqn.policy(agent.settings, agent.state.critic, jnp.float32(agent.temperature), seen)
    else:
        row = discrete_sac.policy(agent.settings, agent.state.actor, seen)
    variation = np.abs(row.probability - exact.policy[live]).sum(axis=1) / 2
    return np.abs(agent.soft_value(seen) - exact.value[live]).max(), variation.max()


# ---------------------------------------------------------------- landing
LEARNING = {
    "maze": dict(ent_coef=0.1, net_arch=[64], learning_rate=1e-3, batch_size=128, tau=0.02, learning_starts=500),
    "lottery": dict(ent_coef=0.25, net_arch=[32], learning_rate=5e-4, batch_size=512, tau=0.02),
    "lake": dict(ent_coef=0.5, net_arch=[32], learning_rate=3e-4, batch_size=1024, tau=0.02, prior="uniform"),
}
BOTH = pytest.mark.parametrize("kind", [no.SoftDQN, no.DiscreteSAC])


@BOTH
@pytest.mark.parametrize("text", MAZES, ids=["0", "1", "2"])
@pytest.mark.usefixtures("quick_compilation")
def test_mazes(kind, text):
    steps, mdp = 2_000, maze(text)
    agent = kind(Tabular(mdp, max_episode_steps=20), gamma=GAMMA, buffer_size=steps, **LEARNING["maze"])
    agent.learn(steps, log_every=steps)
    value, variation = errors(agent, mdp)
    assert value < NEAR and variation < NEAR, (value, variation)


@BOTH
@pytest.mark.parametrize(("world", "steps", "updates"), [("lottery", 200_000, 3_000), ("lake", 300_000, 4_000)])
def test_chance(kind, world, steps, updates):
    """At random first: how far the recorded frequencies are from the probabilities bounds what can be learned."""
    mdp = lottery() if world == "lottery" else lake()
    settings = LEARNING[world] | dict(learning_starts=steps - updates, buffer_size=steps)
    agent = kind(Tabular(mdp, max_episode_steps=4), seed=1, gamma=GAMMA, **settings).learn(steps, log_every=steps)
    value, variation = errors(agent, mdp)
    assert value < NEAR and variation < NEAR, (value, variation)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.usefixtures("quick_compilation")
def test_windows_of_several_steps(n):
    steps, mdp = 4_000, maze(MAZES[0])
    agent = no.SoftDQN(Tabular(mdp, 20), gamma=GAMMA, buffer_size=steps, n_steps=n, **LEARNING["maze"])
    value, variation = errors(agent.learn(steps, log_every=steps), mdp)
    assert value < NEAR and variation < NEAR, (value, variation)


def test_windows_of_several_steps_where_chance_rules():
    steps, mdp = 200_000, lottery()
    settings = LEARNING["lottery"] | dict(learning_starts=steps - 3_000, buffer_size=steps, n_steps=3)
    agent = no.SoftDQN(Tabular(mdp, 4), seed=1, gamma=GAMMA, **settings).learn(steps, log_every=steps)
    value, variation = errors(agent, mdp)
    assert value < NEAR and variation < NEAR, (value, variation)


# ---------------------------------------------------------------- planted bugs: in the target
FAR = 3e-2
MANY = 1_000_000  # an agent whose updates are counted from n · MANY has bug n
TARGETS = {
    "none": lambda q, entropy, on: GAMMA * on * (q + entropy),
    "entropy outside the terminal mask": lambda q, entropy, on: GAMMA * (on * q + entropy),
    "entropy of the next action missing": lambda q, entropy, on: GAMMA * on * q,
    "entropy not discounted": lambda q, entropy, on: on * (GAMMA * q + entropy),
}


def target_with_bugs(settings, state, batch):
    """`discrete_sac.critic_target` with the bug that the count of updates names."""
    row = discrete_sac.policy(settings, state.actor, batch.next_observation)
    q = (row.probability * both(state.target, batch.next_observation).min(axis=0)).sum(axis=1)
    entropy = -settings.initial_temperature * (row.probability * row.log_ratio).sum(axis=1)
    values = jnp.stack([target(q, entropy, 1 - batch.terminated) for target in TARGETS.values()])
    return batch.reward + values[state.updates // MANY]


@pytest.fixture(scope="module")
def agents_with_bugs():
    """Four agents that learn in step: one program."""
    jax.config.update("jax_disable_most_optimizations", True)
    steps, mdp = 1_000, maze(MAZES[0])
    settings = LEARNING["maze"] | dict(learning_starts=200, learning_rate=3e-3, tau=0.05)
    world = Tabular(mdp, max_episode_steps=20)  # with seed 1 every action is tried everywhere in so few steps
    make = lambda: no.DiscreteSAC(world, seed=1, gamma=GAMMA, buffer_size=steps, **settings)
    agents = [make() for _ in TARGETS]
    for number, agent in enumerate(agents):
        agent.state = agent.state.__class__(**vars(agent.state) | dict(updates=jnp.int32(number * MANY)))
    with pytest.MonkeyPatch.context() as patch, Session(steps, log_every=steps) as session:
        patch.setattr(discrete_sac, "critic_target", target_with_bugs)
        session.begin(agents)
        compiled.train(agents, session)
    jax.config.update("jax_disable_most_optimizations", False)
    return {name: errors(agent, mdp) for name, agent in zip(TARGETS, agents, strict=True)}


@pytest.mark.parametrize("bug", TARGETS)
def test_bugs_in_the_target(bug, agents_with_bugs):
    value, variation = agents_with_bugs[bug]
    assert max(value, variation) < NEAR if bug == "none" else value > FAR


# ---------------------------------------------------------------- planted bugs: in what is remembered
def forget_real(add):
    return lambda self, *columns, real=None: add(self, *columns[:6])


def confuse(add):
    def planted(self, observation, action, reward, following, terminated, truncated, real=None):
        add(self, observation, action, reward, following, terminated | truncated, truncated, real)

    return planted


MEMORIES = {"none": lambda add: add, "autoreset transition stored": forget_real, "truncation as termination": confuse}


@pytest.mark.parametrize("bug", MEMORIES)
def test_bugs_in_what_is_remembered(bug, monkeypatch):
    """In a vector of Gymnasium's environments that reset themselves in the step after an episode's end."""
    mdp = maze("S..\n.#G")
    one = lambda: gymnasium.wrappers.TimeLimit(mdp.to_gymnasium(one_hot=True), 3)
    env = SyncVectorEnv([one] * 8, autoreset_mode=AutoresetMode.NEXT_STEP)
    monkeypatch.setattr(replay.Replay, "add", MEMORIES[bug](replay.Replay.add))
    settings = LEARNING["maze"] | dict(gradient_steps=4, learning_rate=3e-3, tau=0.05, buffer_size=8_000)
    agent = no.SoftDQN(env, gamma=GAMMA, **settings).learn(4_000, log_every=4_000)
    value, variation = errors(agent, mdp)
    assert max(value, variation) < NEAR if bug == "none" else value > FAR


@pytest.mark.usefixtures("quick_compilation")
def test_truncation_as_termination_in_a_compiled_loop(monkeypatch):
    sample = compiled.sample
    planted = lambda program, ring, *step: sample(program, ring | dict(terminated=ring["ended"]), *step)
    monkeypatch.setattr(compiled, "sample", planted)
    steps, mdp = 1_001, maze(MAZES[0])
    agent = no.SoftDQN(Tabular(mdp, max_episode_steps=20), gamma=GAMMA, buffer_size=steps, **LEARNING["maze"])
    value, _ = errors(agent.learn(steps, log_every=steps), mdp)
    assert value > FAR


# ---------------------------------------------------------------- planted bugs: in the temperature
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_the_temperature(sign, monkeypatch):
    """One decision: the temperature at which a softmax of the rewards has the target entropy is known."""
    reward = np.array([0.0, 0.5, 1.0, -0.3])
    mdp = no.MDP.from_function(lambda s, a: [(1.0, 1, reward[a])], 0, lambda s: [] if s else [0, 1, 2, 3])
    target = 1.0
    if sign < 0:
        right = soft_dqn.temperature_loss
        monkeypatch.setattr(soft_dqn, "temperature_loss", lambda *given: -right(*given))

    def entropy(temperature):
        policy = np.exp(reward / temperature) / np.exp(reward / temperature).sum()
        return -(policy * np.log(policy)).sum()

    exact = scipy.optimize.brentq(lambda temperature: entropy(temperature) - target, 0.1, 10)
    steps = 1_000 + (sign < 0)  # so that the two share no program
    settings = dict(net_arch=[32], learning_rate=3e-3, learning_starts=100, batch_size=64, buffer_size=steps, gamma=0.0)
    env = Tabular(mdp, max_episode_steps=5)
    agent = no.SoftDQN(env, ent_coef="auto", target_entropy=target, **settings).learn(steps, log_every=steps)
    off = abs(agent.temperature - exact), abs(entropy(agent.temperature) - target)
    assert max(off) < NEAR if sign > 0 else min(off) > 0.1


# ---------------------------------------------------------------- planted bugs: in the density of actions
class Bandit(Environment):
    """One decision in a box, with a quadratic reward."""

    max_episode_steps: int = 1

    @property
    def observation_space(self):
        return Box(0.0, 1.0, (1,))

    @property
    def action_space(self):
        return Box(np.float32([-0.4]), np.float32([1.2]))

    def reset(self, key):
        return jnp.zeros(())

    def observe(self, state):
        return jnp.ones(1)

    def step(self, key, state, action):
        return state, paid(action[0]), jnp.bool_(True)


def paid(action):
    return -4.0 * (action - 0.6) ** 2


UNIT = (np.arange(20_000) + 0.5) / 10_000 - 1  # midpoints of [−1, 1]
WIDTH = 1e-4
TEMPERATURE = 0.5


def squashed_density(mean, log_std):
    """Of tanh(u), u ~ N(mean, std²), at UNIT."""
    z = (np.arctanh(UNIT) - mean) / np.exp(log_std)
    return np.exp(-(z**2) / 2 - log_std - np.log(2 * np.pi) / 2 - np.log1p(-(UNIT**2)))


def value_of(density):
    """E[r − τ log π]."""
    return (density * (paid(0.4 + 0.8 * UNIT) - TEMPERATURE * np.log(density))).sum() * WIDTH


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("bug", ["none", "log-determinant missing"])
def test_the_density_of_actions(bug, monkeypatch):
    """SAC on one decision: V = τ log ∫ exp(r/τ) da, and π = exp((r − V)/τ), as near as a squashed Gaussian comes."""
    boltzmann = np.exp(paid(0.4 + 0.8 * UNIT) / TEMPERATURE)
    exact = TEMPERATURE * np.log(boltzmann.sum() * WIDTH)
    best = scipy.optimize.minimize(lambda p: -value_of(squashed_density(*p)), [0.3, -1.0]).x
    nearest = squashed_density(*best)
    assert 0 < exact - value_of(nearest) < 2 * NEAR

    def flat(row, noise):
        u = row.mean + jnp.exp(row.log_std) * noise
        return Squashed(jnp.tanh(u), (-(noise**2) / 2 - row.log_std - np.log(2 * np.pi) / 2).sum(axis=-1))

    if bug != "none":
        monkeypatch.setattr(sac, "squash", flat)
    steps = 3_000 + (bug != "none")  # so that the two share no program
    settings = dict(net_arch=[32, 32], learning_rate=1e-3, learning_starts=500, batch_size=256, buffer_size=steps)
    agent = no.SAC(Bandit(), gamma=0.0, ent_coef=TEMPERATURE, **settings).learn(steps, log_every=steps)
    row = sac.gaussian(agent.state.actor(jnp.ones((1, 1))), "clip", (-20.0, 2.0))
    density = squashed_density(float(row.mean[0, 0]), float(row.log_std[0, 0]))
    value, variation = abs(agent.soft_value([1.0]) - value_of(nearest)), np.abs(density - nearest).sum() * WIDTH / 2
    assert max(value, variation) < 2 * NEAR if bug == "none" else min(value, variation) > 5 * NEAR
