"""The numbers of a report: predictive checks against closed forms, names, and what is shown."""

from types import SimpleNamespace

import numpy as np

import nearopt as no
from nearopt.behaviour import predictive, simulate
from nearopt.behaviour.report import Report

RING = no.MDP.from_arrays(
    np.stack([np.roll(np.eye(3), 1, axis=1), np.eye(3)], axis=1), np.zeros(3), initial=np.eye(3)[0]
)


def agent(stay):
    """Moves on around a ring of three states, or stays with probability `stay`."""
    policy = np.tile([1 - stay, stay], (3, 1))
    walk = lambda t, seed=0: simulate.simulate(RING, policy, t.state[:, 0], t.length, seed)
    return SimpleNamespace(mdp=RING, simulate=walk)


def test_an_agent_passes_its_own_checks_and_another_fails():
    own = predictive.check(agent(0.3), agent(0.3).simulate(blank(60, 20), seed=10**9))
    other = predictive.check(agent(0.3), agent(0.6).simulate(blank(60, 20), seed=10**9))
    assert not own.actions.far and own.actions.distance < 0.05
    assert other.actions.far and abs(other.actions.distance - 0.3) < 0.05  # ½ (0.3 + 0.3)
    assert (own.decisions, own.replicates) == (1200, 100)


def blank(n, steps):
    return no.Trajectories.from_arrays(np.zeros((n, steps + 1), int), np.ones((n, steps), int))


def test_a_check_is_the_data_beside_the_replicates():
    values = np.array([[0.5, 0.5], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    found = predictive.summarise(values)
    np.testing.assert_allclose(found.data, [0.5, 0.5])
    np.testing.assert_allclose(found.mean, [0.3, 0.7])
    np.testing.assert_allclose((found.low, found.high), np.quantile(values[1:], predictive.RANGE, axis=0))
    assert np.isclose(found.distance, 0.2) and found.far


def test_shares_over_time_leave_out_moments_without_anybody():
    shares = predictive.over_time(np.array([0, 0, 2]), np.array([1, 2, 2]), (np.array([2]),), 3)
    np.testing.assert_array_equal(shares, [[0.5], [np.nan], [1.0]])


def test_states_without_names_or_places_are_followed_in_ranges():
    visits = np.array([10] * 40)
    many = SimpleNamespace(num_states=40, state_names=None, positions=None)
    assert [g.tolist() for g in predictive.groups(many, visits)] == [list(range(k, k + 10)) for k in (0, 10, 20, 30)]
    named = SimpleNamespace(num_states=40, state_names=tuple(range(40)), positions=None)
    assert [g.tolist() for g in predictive.groups(named, np.arange(40))] == [[39], [38], [37], [36]]


def test_a_trajectory_without_a_beginning_cannot_be_simulated():
    assert predictive.check(agent(0.3), no.Trajectories(np.array([[-1, 1, 2]]), np.array([[-1, 0]]))) is None


def test_the_coefficients_farthest_from_zero_are_shown():
    coef = np.arange(50.0)
    report = lambda stderr: Report(SimpleNamespace(coef_=coef), *[None] * 3, stderr, *[None] * 8).shown
    assert report(np.ones(50)).tolist() == list(range(10, 50))
    assert report(np.full(50, np.nan)).tolist() == list(range(10, 50))
    assert 49 not in report(np.where(coef == 49, np.inf, 1.0)) and 9 in report(np.where(coef == 49, np.inf, 1.0))
