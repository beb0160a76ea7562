"""Trajectories drawn from the posterior have the posterior's own probabilities, and recorded ones are judged fairly."""

import pickle

import numpy as np
import pytest
from scipy.stats import chisquare

import nearopt as no
from tests.oracles import random_world, to_arrays


def model(discount, seed=1):
    world = random_world(np.random.default_rng(seed), 4, 3, 3, 1, forbid=False, branch_rewards=True)
    return no.MDP.from_arrays(**to_arrays(world, 4, 3), discount=discount)


@pytest.mark.parametrize("optimism", [1.0, 0.0, -0.7])
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_frequencies_equal_probabilities(discount, optimism):
    post = no.infer(model(discount), 3, temperature=0.7, optimism=optimism)
    n = 60_000
    drawn = post.sample(n, seed=5)
    kinds, first, count = np.unique(
        np.concatenate([drawn.state, drawn.action], axis=1), axis=0, return_index=True, return_counts=True
    )
    log_prob = post.log_prob(drawn)[first]
    if discount == 1:
        expected = np.exp(log_prob) * n
        assert expected.sum() == pytest.approx(n, rel=0.02)
        often = expected > 20
        rest = [count[~often].sum() + 1e-9, n - expected[often].sum() + 1e-9]
        observed, wanted = np.append(count[often], rest[0]), np.append(expected[often], rest[1])
        assert chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-4
    for t in range(3):
        alive = drawn.state[:, t][drawn.state[:, t] >= 0]
        frequency = np.bincount(alive, minlength=4) / n
        open_states = ~post.mdp.terminal
        np.testing.assert_allclose(frequency[open_states], post.state_probs[t][open_states], atol=0.01)
        acting = drawn.action[:, t] >= 0
        pairs = np.zeros((4, 3))
        np.add.at(pairs, (drawn.state[acting, t], drawn.action[acting, t]), 1 / n)
        np.testing.assert_allclose(pairs, post.state_action_probs[t], atol=0.01)
    assert len(kinds) > 20


def test_seeds_reproduce_and_differ():
    post = no.infer(model(1.0), 4)
    a, b, c = post.sample(50, seed=1), post.sample(50, seed=1), post.sample(50, seed=2)
    np.testing.assert_array_equal(a.state, b.state)
    assert (a.state != c.state).any()


def test_impossible_choices_are_never_drawn():
    """Zero-probability branches, actions with prior 0 and forbidden rewards do not occur in 100,000 draws."""
    transition = np.zeros((3, 3, 3))
    transition[:, :, 0], transition[:, :, 1] = 0.5, 0.5
    reward = np.zeros((3, 3, 3))
    reward[:, 1, 1] = -np.inf
    mdp = no.MDP.from_arrays(transition, reward, initial=np.array([1.0, 0, 0]))
    post = no.infer(mdp, 2, prior=np.array([[0.0, 0.5, 0.5]] * 3))
    drawn = post.sample(50_000, seed=0)
    assert not (drawn.action == 0).any() and not (drawn.state == 2).any()
    assert not ((drawn.action == 1) & (drawn.state[:, 1:] == 1)).any()


def test_log_probability_stays_exact_where_probability_underflows():
    mdp = no.MDP.from_arrays(np.ones((1, 2, 1)), np.array([[0.0, -5000.0]]))
    post = no.infer(mdp, 2, temperature=1.0)
    rare = no.Trajectories.from_arrays([[0, 0, 0]], [[1, 1]])
    np.testing.assert_allclose(post.log_prob(rare), [-10000.0], rtol=1e-13)
    assert post.policy[0, 0, 1] == 0


def test_impossible_records_have_log_probability_minus_infinity():
    mdp = no.MDP.from_grid("S.G")
    post = no.infer(mdp, 2)
    jump = no.Trajectories.from_arrays([[0, 2]], [[1]])
    elsewhere = no.Trajectories.from_arrays([[1, 2]], [[1]])
    after_the_end = no.Trajectories.from_arrays([[0, 1, 2]], [[1, 1]])
    assert post.log_prob(jump) == -np.inf and post.log_prob(elsewhere) == -np.inf
    assert post.log_prob(after_the_end) > -np.inf
    beyond = no.infer(mdp, 3).log_prob(no.Trajectories.from_arrays([[0, 1, 2, 2]], [[1, 1, 0]]))
    assert beyond == -np.inf  # a terminal state has no actions


def test_trajectories_from_lists_and_single():
    ragged = no.Trajectories.from_arrays([[0, 1, 2], [0, 1]], [[1, 1], [1]])
    np.testing.assert_array_equal(ragged.state, [[0, 1, 2], [0, 1, -1]])
    np.testing.assert_array_equal(ragged.action, [[1, 1], [1, -1]])
    one = no.Trajectories.from_arrays([0, 1, 2], [1, 1])
    assert len(one) == 1 and one.length.tolist() == [2]
    unknown = no.Trajectories.from_arrays([[0, 1]], [[1, 1]])  # where the last action led was not recorded
    np.testing.assert_array_equal(unknown.state, [[0, 1, -1]])
    with pytest.raises(ValueError, match="read-only"):
        ragged.state[0, 0] = 3


def test_unrecorded_last_state_is_left_out_of_the_probability():
    mdp = no.MDP.from_grid("S.G", slip=0.3)
    post = no.infer(mdp, 2, temperature=0.5)
    half = post.log_prob(no.Trajectories.from_arrays([[0, 1]], [[1, 1]]))
    ends = [no.Trajectories.from_arrays([[0, 1, s]], [[1, 1]]) for s in range(3)]
    total = np.logaddexp.reduce(np.concatenate([post.log_prob(e) for e in ends]))
    np.testing.assert_allclose(half, total, rtol=1e-12)


def test_first_states_stay_exact_where_their_probability_underflows():
    reach = np.zeros((3, 1, 3))
    reach[:2, 0, 2] = 1
    mdp = no.MDP.from_arrays(reach, np.array([0.0, -1000.0, 0.0]), terminal=np.array([False, False, True]))
    log_prob = no.infer(mdp, 1).log_prob(no.Trajectories.from_arrays([[1, 2]], [[0]]))
    np.testing.assert_allclose(log_prob, [-1000.0], rtol=1e-12)


def test_posterior_dynamics_where_going_on_underflows():
    """γ < 1 and values of −800 nats: the episode all but surely ends, yet where it goes on to is known exactly."""
    transition = np.zeros((4, 1, 4))
    transition[0, 0, 1:3] = 0.5
    transition[1:3, 0, 3] = 1
    for low, high, share in ((-8.0, -9.0, 1.0), (-7.43, -7.435, 1 / (1 + np.exp(-0.5)))):
        reward = np.array([0.0, low, high, 0.0])
        mdp = no.MDP.from_arrays(transition, reward, terminal=np.arange(4) == 3, discount=0.9)
        row = no.infer(mdp, 2, temperature=0.01).transition(0).toarray()[0]
        np.testing.assert_allclose(row, [0, share, 1 - share, 0], rtol=1e-9, atol=1e-40)


def test_a_forbidden_action_carries_no_forward_mass_under_risk_aversion():
    transition = np.zeros((5, 2, 5))
    transition[0, 0, 1:3] = 0.5
    transition[0, 1, 3] = transition[1, 0, 4] = transition[2, 0, 4] = transition[3, 0, 4] = 1
    reward = np.zeros((5, 2, 5))
    reward[0, 0, 2] = -np.inf
    mdp = no.MDP.from_arrays(transition, reward, terminal=np.arange(5) == 4, initial=np.eye(5)[0])
    post = no.infer(mdp, 2, optimism=-1.0)
    np.testing.assert_allclose(np.exp(post.log_forward[1]), [0, 0, 0, 1, 0], atol=1e-300)
    np.testing.assert_allclose(post.state_probs[1], [0, 0, 0, 1, 0])


def test_what_is_kept_cannot_be_changed_or_rounded():
    post = no.infer(model(1.0), 2)
    with pytest.raises(ValueError, match="read-only"):
        post.state_probs[0] = 0
    with pytest.raises(no.NearoptError, match="pickled"):
        pickle.dumps(post)


def test_trajectories_without_decisions_and_none_at_all():
    mdp = no.MDP.from_grid("S.G")
    still = no.Trajectories.from_arrays([[0, 1, 2], [2]], [[1, 1], []])
    assert no.infer(mdp, 2).log_prob(still)[1] == -np.inf  # it does not start in the goal
    assert no.infer(mdp, 2).log_prob(no.Trajectories(np.zeros((0, 3), int), np.zeros((0, 2), int))).shape == (0,)
    with pytest.raises(no.NearoptError, match="4294967297"):
        no.infer(mdp, 2).log_prob(no.Trajectories.from_arrays([[0, 2**32 + 1]], [[1]]))
