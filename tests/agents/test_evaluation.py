"""Evaluation against environments whose returns are known, and against a loop written out."""

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from nearopt import SAC, SoftDQN
from nearopt.agents.agent import act, enter
from nearopt.agents.errors import WrongAgentError
from nearopt.agents.evaluation import EndlessEpisodeError, evaluate_agent
from nearopt.agents.keys import EVALUATE, key_for
from nearopt.environments.environment import Environment
from tests.environments.counting import LENGTHS, Counting


class Plain(Counting):
    """Its reward is 1000 episode + 10 step, whatever is done."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward - float(action), terminated, truncated, info


@pytest.fixture(scope="module")
def agent():
    return SoftDQN(Plain(), net_arch=[4], buffer_size=10, batch_size=2, ent_coef=0.5)


def known(stream, episode):
    """Return and length of an episode."""
    length = LENGTHS[(episode + 2 * stream) % 7]
    return 1000.0 * episode * length + 10.0 * sum(range(length)), length


@pytest.mark.parametrize("mode", [None, *AutoresetMode])
@pytest.mark.parametrize("episodes", [1, 5])
def test_every_stream_contributes_its_own_episodes(agent, mode, episodes):
    """Were the first to end counted, whatever stream they are of, short ones would be too many."""
    if mode is None:
        env, quota = Plain(), [episodes]
    else:
        env = SyncVectorEnv([lambda i=i: Plain(i) for i in range(2)], autoreset_mode=mode)
        quota = [(episodes + 1) // 2, episodes // 2]
    for _ in range(2):  # the second time it goes on counting: episodes begin anew, and reset counts one more
        begun = [e.episode + 1 for e in ([env] if isinstance(env, Plain) else env.envs)]
        found = evaluate_agent(agent, env, episodes, deterministic=True)
        wanted = [
            known(i, first + k) for i, (first, due) in enumerate(zip(begun, quota, strict=True)) for k in range(due)
        ]
        assert list(zip(found.returns, found.lengths, strict=True)) == wanted


def test_the_soft_return_is_the_return_and_the_temperature_times_the_entropy(agent):
    """A policy that is far from greedy: −τ log π of the actions taken, written out."""
    found = evaluate_agent(agent, Plain(), 3, seed=4, deterministic=False)
    env, key, step = Plain(), key_for(4, EVALUATE), 0
    observation, soft = env.reset()[0], []
    for _ in range(3):
        total, over = 0.0, False
        while not over:
            rows = np.array([observation], np.float32)
            key_now = jax.random.fold_in(key, step)
            action, log_ratio = act(agent.method, agent.settings, agent.state, rows, key_now, False)
            q = agent.q_values(observation)
            log_policy = q / 0.5 - np.log(np.exp(q / 0.5 - (q / 0.5).max()).sum()) - (q / 0.5).max()
            assert float(log_ratio[0]) == pytest.approx(log_policy[int(action[0])], abs=1e-4)
            observation, reward, terminated, truncated, _ = env.step(int(action[0]) + 5)
            total, over, step = total + reward - 0.5 * log_policy[int(action[0])], terminated or truncated, step + 1
        soft.append(total)
        observation = env.reset()[0]
    np.testing.assert_allclose(found.soft_returns, soft, rtol=1e-6)
    assert (found.soft_returns > found.returns).all()


def test_a_policy_that_is_sure_of_its_actions_earns_no_entropy():
    """The soft return of the mode is that of a policy which always takes it: the return, less τ log n with a prior."""
    for prior, cost in ((None, 0.0), ("uniform", 0.5 * np.log(4))):
        agent = SoftDQN(Plain(), seed=0, ent_coef=0.5, prior=prior, net_arch=[4], buffer_size=10, batch_size=2)
        found = evaluate_agent(agent, Plain(), 4, deterministic=True)
        np.testing.assert_allclose(found.soft_returns, found.returns - cost * found.lengths, rtol=1e-6)


class Ticking(Environment):
    """Observes (when it will end, step); the reward is the number of the step, from 0."""

    max_episode_steps: int = eqx.field(static=True, default=6)

    @property
    def observation_space(self):
        return Box(0.0, 100.0, (2,))

    @property
    def action_space(self):
        return Discrete(3)

    def reset(self, key):
        return jnp.stack([jax.random.randint(key, (), 1, 10), 0])

    def observe(self, state):
        return state.astype(jnp.float32)

    def step(self, key, state, action):
        return state + jnp.array([0, 1]), state[1].astype(jnp.float32), state[1] + 1 >= state[0]


def test_episodes_in_jax_end_where_they_end():
    agent = SoftDQN(Ticking(), net_arch=[4], buffer_size=10, batch_size=2)
    found = evaluate_agent(agent, Ticking(), 40, deterministic=False)
    assert set(found.lengths) == {1, 2, 3, 4, 5, 6}  # drawn from 1 to 9, the longer ones are cut
    np.testing.assert_array_equal(found.returns, found.lengths * (found.lengths - 1) / 2)
    bonus = found.soft_returns - found.returns
    assert (bonus >= 0).all() and bonus.max() > 1e-5 and (bonus <= 0.1 * np.log(3) * found.lengths + 1).all()
    same = evaluate_agent(agent, Ticking(), 40, deterministic=False)
    np.testing.assert_array_equal(same.soft_returns, found.soft_returns)
    other = evaluate_agent(agent, Ticking(), 40, seed=1, deterministic=False)
    assert (other.soft_returns != found.soft_returns).any()


class Dice(Ticking):
    """The reward is the action and a number drawn uniformly."""

    def step(self, key, state, action):
        state, _, terminated = super().step(key, state, action)
        return state, action + jax.random.uniform(key), terminated


def test_every_step_in_jax_draws_anew():
    agent = SoftDQN(Dice(), net_arch=[4], buffer_size=10, batch_size=2, ent_coef=100.0)
    found = evaluate_agent(agent, Dice(), 400, deterministic=False)
    returns = found.returns[found.lengths == 6]
    assert len(returns) > 150 and 3 < returns.var() < 6  # 6 (2/3 + 1/12); were a draw used twice, 7 or more


def test_in_jax_and_in_gymnasium_the_same_policy_is_worth_the_same():
    agent = SAC("nearopt/Pendulum-v0", net_arch=[8], buffer_size=10, batch_size=2)
    compiled = evaluate_agent(agent, "nearopt/Pendulum-v0", 200)
    stepped = evaluate_agent(agent, enter(gymnasium.make("Pendulum-v1")), 40)
    assert (compiled.lengths == 200).all() and (stepped.lengths == 200).all()
    np.testing.assert_array_equal(compiled.returns, compiled.soft_returns)  # nothing is drawn: no bonus
    spread = np.hypot(compiled.returns.std() / 200**0.5, stepped.returns.std() / 40**0.5)
    assert abs(compiled.returns.mean() - stepped.returns.mean()) < 4 * spread


def test_an_environment_by_its_id_is_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(SyncVectorEnv, "close_extras", lambda self, **more: closed.append(self.num_envs))
    agent = SAC("Pendulum-v1", net_arch=[8], buffer_size=10, batch_size=2)
    found = evaluate_agent(agent, "Pendulum-v1", 3, env_kwargs=dict(max_episode_steps=5))
    assert closed == [3] and found.lengths.tolist() == [5, 5, 5]


def test_an_episode_without_end(agent, monkeypatch):
    class Endless(Plain):
        def step(self, action):
            return *super().step(action)[:2], False, False, {}

    monkeypatch.setattr("nearopt.agents.evaluation.MOST_STEPS", 3)
    with pytest.raises(EndlessEpisodeError, match="has not ended after 3 steps; give the environment a time limit"):
        evaluate_agent(agent, Endless(), 1)


def test_another_environment_is_refused(agent):
    with pytest.raises(WrongAgentError, match="CartPole-v1 has other observations or actions"):
        evaluate_agent(agent, "CartPole-v1")
