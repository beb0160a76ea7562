"""What an agent does at random, what that is worth, and where the keys come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from nearopt.agents import acting, keys, soft_dqn
from nearopt.agents.distributions import draw, tilted
from nearopt.agents.settings import settle
from nearopt.agents.task import Task
from nearopt.environments.tabular import Tabular
from tests.environments.counting import Counting

CHOICES = Task(1, num_actions=4)
ROW = [0.3, -np.inf, -1.0, -np.inf]


@pytest.mark.parametrize(
    ("prior", "log_prior"),
    [(None, np.zeros(4)), ("uniform", np.full(4, -np.log(4))), (ROW, np.array(ROW))],
    ids=["flat", "uniform", "row"],
)
def test_a_guess_is_uniform_over_what_the_prior_allows(prior, log_prior):
    settings = settle(soft_dqn.Settings, CHOICES, dict(prior=prior, ent_coef=0.5))
    state = soft_dqn.init(settings, jax.random.key(0))
    made = acting.guess(settings, state, jnp.zeros((4_000, 1)), jax.random.key(1))
    allowed = np.flatnonzero(log_prior > -np.inf)
    seen, count = np.unique(made.action, return_counts=True)
    assert seen.tolist() == allowed.tolist() and abs(count / 4_000 - 1 / len(allowed)).max() < 0.05
    ratio = -np.log(len(allowed)) - log_prior[np.asarray(made.action)]
    np.testing.assert_allclose(made.bonus, -0.5 * ratio, rtol=1e-5)


@pytest.mark.parametrize(
    "env", [Counting(), Tabular(no.MDP.from_grid("S..G"), max_episode_steps=9)], ids=["host", "jax"]
)
def test_no_agent_does_what_the_prior_excludes(env):
    agent = no.SoftDQN(env, seed=0, prior=ROW, net_arch=[4], batch_size=4, learning_starts=60).learn(90)
    first = agent.spaces.first_action
    assert set((agent.replay.action - first).tolist()) == {0, 2}


def test_the_most_probable_action_always_taken_has_probability_one():
    """−log π/p of a policy that is sure is log p: 0 for a flat prior, −log n for the uniform one."""
    f = jnp.array([[0.0, 2.0, 1.0]])
    for log_prior in (jnp.zeros((1, 3)), jnp.full((1, 3), -jnp.log(3.0)), jnp.array([[-0.1, -2.5, -9.0]])):
        row = tilted(f, log_prior, 0.5)
        sure, drawn = (draw(row, log_prior, jax.random.key(0), deterministic) for deterministic in (True, False))
        assert int(sure.action[0]) == 1 and float(-sure.log_ratio[0]) == float(log_prior[0, 1])
        ratio = float(row.log_ratio[0, int(drawn.action[0])])
        assert float(drawn.log_ratio[0]) == ratio


def test_keys_are_all_different():
    """Of networks, of every step's purposes, of predictions; for neighbouring seeds and steps as well."""
    data = lambda key: tuple(np.asarray(jax.random.key_data(key)).tolist())
    seen = [data(jax.random.key(seed)) for seed in range(4)]
    for seed in range(4):
        for purpose in (keys.NETWORKS, keys.BEGIN, keys.PREDICT, keys.EVALUATE):
            made = [keys.key_for(seed, purpose, number) for number in range(6)]
            seen += [data(key) for parent in made for key in (parent, *jax.random.split(parent, 3))]
        steps = [keys.keys_of(seed, step) for step in range(6)]
        seen += [data(key) for step in steps for parent in step for key in (parent, *jax.random.split(parent, 3))]
    assert len(set(seen)) == len(seen)
