"""Baselines by hand, lapses that are found again, and comparisons whose every number is recomputed."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import nearopt as no
from nearopt.behaviour.baselines import EmpiricalMarkov, HardWithLapses, Uniform
from nearopt.behaviour.comparison import compare, cross_validate
from nearopt.behaviour.simulate import simulate
from nearopt.mdp.errors import GroupError, NoDecisionsError, PenaltyError
from tests.behaviour.small import A, S, T, at, behaviour, cut, world

MDP, FEATURES, AGENT = world()
SEEN = behaviour(MDP, AGENT, 30)

# three states, of which the last is terminal; in state 0 only two of three actions are available
AVAILABLE = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0]], bool)
UNEVEN = no.MDP.from_arrays(
    np.where(AVAILABLE[..., None], [0.4, 0.4, 0.2], 0.0),
    np.zeros(3),
    terminal=[False, False, True],
    available=AVAILABLE,
)
BY_HAND = no.Trajectories(
    np.array([[0, 0, 1, 2], [0, 1, 2, -1], [1, -1, 0, 1]]), np.array([[0, 1, 2], [1, 2, -1], [0, 1, 1]])
)


def test_uniform_is_minus_log_of_the_number_of_actions():
    model = Uniform(UNEVEN).fit(BY_HAND)
    found, decisions = model.log_likelihoods(BY_HAND)
    two, three = -np.log(2), -np.log(3)
    np.testing.assert_allclose(found, [2 * two + three, two + three, two + three])
    assert decisions == 7 and model.num_parameters_ == 0
    np.testing.assert_allclose(model.score(BY_HAND), found.sum() / 7)


def test_empirical_counts_by_hand():
    """State 0: action 0 once, 1 three times. State 1: 0 once, 2 twice."""
    model = EmpiricalMarkov(UNEVEN, smoothing=0.0).fit(BY_HAND)
    np.testing.assert_allclose(model.policy_, [[1 / 4, 3 / 4, 0], [1 / 3, 0, 2 / 3], [0, 0, 0]])
    assert model.num_parameters_ == 1 + 2
    np.testing.assert_allclose(
        model.score(BY_HAND), (np.log([1 / 4, 1 / 3]).sum() + 3 * np.log(3 / 4) + 2 * np.log(2 / 3)) / 7
    )
    smooth = EmpiricalMarkov(UNEVEN, smoothing=0.5).fit(BY_HAND).policy_
    np.testing.assert_allclose(smooth, [[1.5 / 5, 3.5 / 5, 0], [1.5 / 4.5, 0.5 / 4.5, 2.5 / 4.5], [0, 0, 0]])
    never = no.Trajectories(np.array([[1, 2]]), np.array([[1]]))
    assert model.log_likelihoods(never)[0] == -np.inf


def test_empirical_counts_over_time_by_hand():
    model = EmpiricalMarkov(UNEVEN, smoothing=0.0, time_varying=True).fit(BY_HAND)
    uniform = [[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 0]]
    assert model.policy_.shape == (3, 3, 3)
    np.testing.assert_allclose(model.policy_[0, :2], [[1 / 2, 1 / 2, 0], [1, 0, 0]])
    np.testing.assert_allclose(model.policy_[1, :2], [[0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(model.policy_[2, :2], [[0, 1, 0], [0, 0, 1]])
    assert model.num_parameters_ == 3 * (1 + 2)
    early = EmpiricalMarkov(UNEVEN, smoothing=0.0, time_varying=True).fit(BY_HAND[:1])
    np.testing.assert_allclose(early.policy_[0, 1], uniform[1])  # nobody was seen there


def test_refusals():
    for smoothing in (-1.0, np.nan):
        with pytest.raises(PenaltyError, match="smoothing"):
            EmpiricalMarkov(UNEVEN, smoothing=smoothing).fit(BY_HAND)
    with pytest.raises(NoDecisionsError):
        EmpiricalMarkov(UNEVEN).fit(no.Trajectories(np.array([[0, 1]]), np.array([[-1]])))


def test_the_rate_of_lapses_is_found():
    hard = best = np.eye(A)[[0, 1, 1, 0]]
    model = SimpleNamespace(
        mdp=MDP,
        policy_of=lambda span, hard: best,
        num_parameters_=3.0,
        horizon_=None,
        fit_=SimpleNamespace(family=None),
    )
    for rate in (0.0, 0.1, 0.6):
        seen = simulate(MDP, (1 - rate) * hard + rate / A, np.zeros(400, int), np.full(400, 20), seed=1)
        fit = HardWithLapses(model).fit(seen)
        taken = hard[seen.state[:, :-1], seen.action].mean()  # 1 − rate/2
        assert abs(fit.lapse_ - 2 * (1 - taken)) < 0.01 and abs(fit.lapse_ - rate) < 0.03
        np.testing.assert_allclose(fit.policy_, (1 - fit.lapse_) * hard + fit.lapse_ / A)
        assert fit.num_parameters_ == 4


def test_the_hard_policy_is_that_of_hard_control():
    coef = np.array([1.0, -0.7, 0.4])
    model = at(no.BehaviourModel(MDP, features=FEATURES, horizon=T), SEEN, coef)
    value, best = np.zeros(S), []
    for _ in range(T):
        q = FEATURES @ coef + 0.8 * AGENT.transition @ value
        value, best = q.max(1), [np.eye(A)[q.argmax(1)], *best]
    np.testing.assert_array_equal(model.policy_of(hard=True), best)


def test_lapses_of_who_knows_when_it_ends():
    """Each trajectory goes through the last steps of the best policy, also one longer than any before."""
    coef, seen = 3000 * np.random.default_rng(26).normal(size=(S, A)), behaviour(MDP, AGENT, 40)
    model = at(no.BehaviourModel(MDP, reward="state_action", horizon="episode"), seen, coef.reshape(-1))
    value, best = np.zeros(S), []
    for _ in range(T):
        q = coef + 0.8 * AGENT.transition @ value
        value, best = q.max(1), [q.argmax(1), *best]
    assert (best[0] != best[-1]).any()

    def hits(seen):
        return [
            sum(best[T - n + t][s[t]] == a[t] for t in range(n))
            for s, a, n in zip(seen.state, seen.action, seen.length, strict=True)
        ]

    seen = cut(seen, np.arange(40) % 3 + 1)
    short = cut(seen, np.minimum(seen.length, 2))
    solved = []
    solve = model.policy_of
    model.policy_of = lambda span, hard: solved.append(span) or solve(span, hard)
    fit = HardWithLapses(model).fit(short)
    assert abs(fit.lapse_ / 2 - 1 + np.sum(hits(short)) / np.sum(short.length)) < 0.01
    for other, calls in ((short, [2]), (seen, [2, 3]), (short[:5], [2, 3])):
        found, right = fit.log_likelihoods(other)[0], np.array(hits(other))
        logs = np.log([fit.lapse_ / 2, 1 - fit.lapse_ / 2])
        np.testing.assert_allclose(found, right * logs[1] + (other.length - right) * logs[0])
        assert solved == calls


# ---------------------------------------------------------------- comparing
def test_every_number_of_a_comparison():
    train, held_out = SEEN[:20], SEEN[20:]
    models = {"markov": EmpiricalMarkov(MDP, smoothing=1.0), "uniform": Uniform(MDP)}
    first, second = compare(models, train, held_out)
    assert (first.name, second.name) == ("markov", "uniform")
    counts = np.ones((S, A))
    np.add.at(counts, (train.state[:, :-1], train.action), 1)
    logs = np.log(counts / counts.sum(1, keepdims=True))
    each = lambda seen: logs[seen.state[:, :-1], seen.action].sum(1)
    assert (first.parameters, second.parameters) == (S * (A - 1), 0)
    np.testing.assert_allclose(first.train, each(train).sum() / 60)
    np.testing.assert_allclose(first.held_out, each(held_out).sum() / 30)
    np.testing.assert_allclose(first.bits, first.held_out / np.log(2))
    np.testing.assert_allclose(first.aic, -2 * each(train).sum() + 2 * S)
    np.testing.assert_allclose(first.bic, -2 * each(train).sum() + np.log(60) * S)
    assert first.difference == first.error == 0
    np.testing.assert_allclose((second.train, second.held_out), -np.log(A))
    np.testing.assert_allclose((second.aic, second.bic), 2 * 60 * np.log(A))
    gap = each(held_out) + 3 * np.log(A)
    np.testing.assert_allclose(second.difference, gap.sum() / 30)
    np.testing.assert_allclose(second.error, np.sqrt(10 * gap.var(ddof=1)) / 30)
    with pytest.raises(GroupError, match="held-out"):
        compare(models, train, SEEN[:0])


def test_a_gap_that_is_the_same_everywhere_has_no_error_whatever_the_lengths():
    lengths = np.array([3, 1, 2, 3, 1])
    held_out = cut(SEEN[:5], lengths)
    judge = lambda seen, each: (each * seen.length, int(seen.length.sum()))
    model = lambda each: SimpleNamespace(policy_=0, num_parameters_=0, log_likelihoods=lambda seen: judge(seen, each))
    first, second, third = compare({"a": model(-0.5), "b": model(-0.7), "c": Uniform(MDP)}, SEEN, held_out)
    assert (first.error, first.difference) == (0, 0)
    np.testing.assert_allclose([second.difference, third.difference], [0.2, np.log(A) - 0.5])
    np.testing.assert_allclose([second.error, third.error], 0, atol=1e-12)
    uneven = [model(-0.5), model(np.array([-0.7, -0.7, -0.7, -0.9, -0.7]))]
    _, other = compare(dict(zip("ab", uneven, strict=True)), held_out, held_out)
    even = np.array([0.2, 0.2, 0.2, 0.4, 0.2]) * lengths - 2.6 / 10 * lengths
    np.testing.assert_allclose(other.error, np.sqrt(5) * even.std(ddof=1) / 10)


def test_a_model_that_is_fitted_is_not_fitted_again():
    fitted = EmpiricalMarkov(MDP).fit(SEEN[:5])
    before = fitted.policy_
    compare({"markov": fitted}, SEEN[5:20], SEEN[20:])
    assert fitted.policy_ is before


SPLITS = []


class Spy(BaseEstimator):
    """Scores by the number of what it is given; remembers whom it saw."""

    def fit(self, seen):
        self.inside_ = seen
        return self

    def score(self, seen):
        SPLITS.append((self.inside_, seen))
        return float(len(seen))


@pytest.mark.parametrize("by", ["subject", "episode"])
def test_cross_validation(by):
    SPLITS.clear()
    uneven = no.Trajectories(SEEN.state, SEEN.action, subject=np.repeat(["a", "b", "c", "d"], [12, 3, 8, 7]))
    spy = Spy()
    scores = cross_validate(spy, uneven, folds=3, by=by)
    assert not hasattr(spy, "inside_") and len(SPLITS) == 3
    assert scores.tolist() == [len(outside) for _, outside in SPLITS] and scores.sum() == 30
    shared = 0
    for inside, outside in SPLITS:
        assert len(inside) + len(outside) == 30
        shared += len(set(inside.subject) & set(outside.subject))
    assert (shared == 0) == (by == "subject")


def test_cross_validation_refuses():
    with pytest.raises(GroupError, match="4 subjects"):
        cross_validate(Spy(), SEEN, folds=5, by="subject")
    with pytest.raises(GroupError, match="folds"):
        cross_validate(Spy(), SEEN, folds=1)
    with pytest.raises(GroupError, match="no subject"):
        cross_validate(Spy(), no.Trajectories(SEEN.state, SEEN.action), by="subject")
