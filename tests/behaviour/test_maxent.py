"""The likelihood of whole trajectories is `Posterior.log_prob`, and its slope is visits minus expected visits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nearopt as no
from nearopt.behaviour.optimise import value_and_gradient
from nearopt.mdp.errors import HorizonError, KindError, TrajectoryShapeError
from tests.behaviour.small import A, S, T, at, behaviour, world

MDP, FEATURES, AGENT = world()
TAU = 0.7


def lottery():
    """State 0: a, b. Leaving pays 2 or −1 although it leads to the same place; state 2 is terminal."""
    outcomes = {
        ("home", 0): [(0.25, "away", 2.0), (0.25, "away", -1.0), (0.5, "home", 0.5)],
        ("home", 1): [(0.9, "home", 0.2), (0.1, "end", 1.0)],
        ("away", 0): [(0.6, "home", 0.0), (0.4, "end", -0.5)],
        ("away", 1): [(0.3, "end", 3.0), (0.3, "end", 0.0), (0.4, "away", -1.0)],
    }
    start = {"home": 0.7, "away": 0.3}
    actions = lambda s: [] if s == "end" else [0, 1]
    return no.MDP.from_function(lambda s, a: outcomes[s, a], start, actions, discount=0.9)


LOTTERY = lottery()
HOME, AWAY, END = (LOTTERY.state_names.index(s) for s in ("home", "away", "end"))


@pytest.fixture(scope="module")
def walks():
    """To the end, or to the horizon."""
    state = [[HOME, AWAY, HOME, HOME], [AWAY, END, -1, -1], [HOME, AWAY, AWAY, END], [HOME, HOME, END, -1]]
    action = [[0, 0, 1], [1, -1, -1], [0, 1, 1], [1, 1, -1]]
    return no.Trajectories(np.array(state), np.array(action))


@pytest.mark.parametrize("kappa", [0.0, 1.0, 0.5])
def test_it_is_log_prob_of_the_posterior(walks, kappa):
    given = dict(temperature=TAU, optimism=kappa)
    model = no.BehaviourModel(LOTTERY, reward="model", likelihood="trajectories", horizon=T, **given)
    found, decisions = at(model, walks, []).log_likelihoods(walks)
    known = no.infer(LOTTERY, T, **given).log_prob(walks)
    assert decisions == 9 and np.ptp(known) > 0.5
    np.testing.assert_allclose(found, known, rtol=1e-12)
    np.testing.assert_allclose(model.score(walks), known.sum() / 9)
    np.testing.assert_allclose(model.log_likelihoods(walks[2:3])[0], known[2:3], rtol=1e-12)


def test_each_episode_has_its_own_horizon(walks):
    given = dict(temperature=TAU, optimism=1.0)
    model = no.BehaviourModel(LOTTERY, reward="model", likelihood="trajectories", horizon="episode", **given)
    cut = no.Trajectories(
        np.where(np.arange(4) < [[4], [2], [4], [2]], walks.state, -1),
        np.where(np.arange(3) < [[3], [1], [3], [1]], walks.action, -1),
    )
    found = at(model, cut, []).log_likelihoods(cut)[0]
    for rows, length in (([0, 2], 3), ([1, 3], 1)):
        own = no.Trajectories(cut.state[rows][:, : length + 1], cut.action[rows][:, :length])
        np.testing.assert_allclose(found[rows], no.infer(LOTTERY, length, **given).log_prob(own), rtol=1e-12)


def test_the_slope_at_optimism_one_is_visits_minus_expected_visits():
    """∂ log p(ξ) / ∂ r(s,a) = (visits of the data − expected visits) / τ, Ziebart et al. (2008)."""
    seen = behaviour(MDP, AGENT, 60)
    theta = np.random.default_rng(3).normal(size=S * A)
    settings = dict(reward="state_action", temperature=TAU, optimism=1.0, discount=1.0, horizon=T)
    fit = at(no.BehaviourModel(MDP, likelihood="trajectories", **settings), seen, theta).fit_
    with jax.enable_x64(True):
        guess = jnp.zeros(fit.family.blocks.size)
        (value, _), slope = value_and_gradient(jnp.asarray(theta), fit.family, fit.data, fit.penalties, guess)
    world = no.MDP.from_arrays(AGENT.transition, theta.reshape(S, A))
    post = no.infer(world, T, temperature=TAU)
    visits = np.zeros((S, A))
    np.add.at(visits, (seen.state[:, :-1], seen.action), 1.0)
    known = (visits - len(seen) * post.state_action_probs.sum(0)) / TAU
    np.testing.assert_allclose(-seen.num_decisions * np.asarray(slope).reshape(S, A), known, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(-seen.num_decisions * float(value), post.log_prob(seen).sum(), rtol=1e-12)


def test_what_is_refused():
    whole = dict(features=FEATURES, likelihood="trajectories")
    seen = behaviour(MDP, AGENT, 4)
    with pytest.raises(HorizonError, match="infinite"):
        no.BehaviourModel(MDP, **whole).fit(seen)
    for gap in ("state", "action"):
        holes = {"state": seen.state.copy(), "action": seen.action.copy()}
        holes[gap][1, 1] = -1
        with pytest.raises(TrajectoryShapeError, match="no whole trajectory"):
            no.BehaviourModel(MDP, horizon=T, **whole).fit(no.Trajectories(**holes))
    with pytest.raises(KindError, match="'paths'"):
        no.BehaviourModel(MDP, features=FEATURES, likelihood="paths").fit(seen)
