"""The oracle itself: against trajectories that are counted, and against answers known by hand."""

import numpy as np
import pytest

from tests.behaviour.oracle import INF, KINDS, Agent, derivative, enumerated, log_likelihood, log_policy, random_case


@pytest.mark.parametrize("kind", KINDS)
def test_trees_equal_counted_trajectories_at_optimism_one(kind):
    for i in range(20):
        size, prior = ((3, 2), (2, 3))[i % 2], ("flat", "uniform", "array")[i % 3]
        agent = random_case((i,), size, kind, 3, 3, 1.0, (1.0, 0.7)[i // 2 % 2], prior).agent
        counted = enumerated(agent, 3)
        assert counted
        for (t, s), known in counted.items():
            found = log_policy(agent, 3, t, s)
            for a, x in known.items():
                assert found[a] == x or abs(found[a] - x) < 1e-16 * max(1, abs(x))


def bandit(**changes):
    """State 0: stay, earning 1, or leave for the terminal state 1, earning nothing."""
    transition = np.array([[[1, 0], [0, 1]], [[0, 0], [0, 0]]], float)
    available = np.array([[True, True], [False, False]])
    given = dict(reward=np.array([[1.0, 0], [0, 0]]), kind="choice", log_prior=np.zeros((2, 2)))
    return Agent(transition, available, **given | changes)


@pytest.mark.parametrize("optimism", [0.0, 1.0, -0.5])
def test_one_and_two_decisions_by_hand(optimism):
    agent = bandit(temperature=2.0, optimism=optimism)
    leave = np.log1p(np.exp(0.5))  # −log π(leave), last decision; V = 2·leave
    early = np.log1p(np.exp(0.5 + leave))
    found = log_likelihood(agent, 2, [[0, 0, 1], [0, 1, -1], [-1, 0, 1]], [[0, 1], [1, -1], [-1, 1]])
    np.testing.assert_allclose(found.astype(float), [0.5 + leave - early - leave, -early, -leave], rtol=1e-15)
    found = log_likelihood(agent, "episode", [[0, 1, -1]], [[1, -1]])
    np.testing.assert_allclose(float(found[0]), -leave, rtol=1e-15)
    assert log_likelihood(agent, 2, [[1, 0, 1]], [[0, 1]])[0] == -INF


def test_for_ever_by_hand():
    """V = log(e^(1 + γV) + 1) at κ = 0; staying for ever pays more the longer it may go on."""
    agent = bandit(discount=0.5)
    v = 0.0
    for _ in range(200):
        v = np.log(np.exp(1 + 0.5 * v) + 1)
    np.testing.assert_allclose(float(log_policy(agent, None, 0, 0)[1]), -v, rtol=1e-14)


def test_derivative_is_of_fourth_order():
    found = derivative(lambda x: np.exp(2 * x["a"]).sum(), {"a": np.array([0.0, -INF])}, {"a": np.array([1.0, 0.0])})
    assert abs(found - 2) < 1e-10
