"""How many decisions there are: horizons, and trajectories shorter or longer than those that were fitted."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import nearopt as no
from nearopt.behaviour.recovery import recover
from nearopt.mdp.errors import AmbiguousRewardError, HorizonError, TrajectoryLengthError
from tests.behaviour.small import A, F, S, T, at, behaviour, cut, log_table, world

MDP, FEATURES, AGENT = world()
SEEN = behaviour(MDP, AGENT, 30)
LENGTHS = np.array([3, 1, 2, 3, 2, 1])
REWARD = np.random.default_rng(4).normal(size=(T, S, A))
TIMED = replace(AGENT, reward=REWARD, kind="timed choice")
build = partial(no.BehaviourModel, MDP)
timed = partial(build, reward="state_action", time_varying=True)


def longer(seen, decisions):
    """With as many decisions, the last ones again and again."""
    more = np.arange(1, decisions - seen.action.shape[1] + 1) % 2
    state = np.concatenate([seen.state, np.repeat(seen.state[:, -1:], len(more), 1)], axis=1)
    return no.Trajectories(state, np.concatenate([seen.action, np.tile(more, (len(seen), 1))], axis=1))


def judged(seen, table_of):
    """(n,) log-likelihoods, from log π (T, S, A) for every length."""
    out = []
    for state, action, length in zip(seen.state, seen.action, seen.length, strict=True):
        t = np.arange(length)
        out.append(float(table_of(length)[t, state[:length], action[:length]].sum()))
    return np.array(out)


def test_rewards_over_time_judge_shorter_episodes_by_their_first_steps():
    fitted = cut(SEEN[:6], LENGTHS)
    model = at(timed(horizon="episode"), fitted, REWARD.reshape(-1))
    for lengths in (LENGTHS, [1, 2, 2, 1, 1, 2], [1] * 6):
        seen = cut(SEEN[6:12], lengths)
        found, decisions = model.log_likelihoods(seen)
        assert decisions == np.sum(lengths)
        np.testing.assert_allclose(found, judged(seen, partial(log_table, TIMED)), rtol=1e-10)
    with pytest.raises(TrajectoryLengthError, match="trajectory 0 has 4 decisions.*fitted rewards end after 3"):
        model.score(longer(SEEN[:2], 4))


def test_a_fixed_horizon_judges_shorter_trajectories_by_its_first_steps():
    model = at(timed(horizon=T), SEEN, REWARD.reshape(-1))
    seen = cut(SEEN[:6], LENGTHS)
    np.testing.assert_allclose(model.log_likelihoods(seen)[0], judged(seen, lambda _: log_table(TIMED)), rtol=1e-10)
    with pytest.raises(TrajectoryLengthError, match="trajectory 0 has 4 decisions, the horizon is 3"):
        model.score(longer(SEEN[:2], 4))


def test_an_episode_may_be_longer_than_those_that_were_fitted():
    theta = np.array([0.8, -0.4, 0.3])
    model = at(build(features=FEATURES, horizon="episode"), cut(SEEN[:6], [2] * 6), theta)
    acting = replace(AGENT, reward=FEATURES @ theta)
    for seen in (cut(SEEN[:6], LENGTHS), longer(SEEN[:2], 5)):
        np.testing.assert_allclose(model.log_likelihoods(seen)[0], judged(seen, partial(log_table, acting)), rtol=1e-10)


def test_horizons_are_whole_numbers_of_any_type():
    one, other = (build(features=FEATURES, l2=0.01, horizon=horizon).fit(SEEN) for horizon in (T, np.int64(T)))
    np.testing.assert_array_equal(one.coef_, other.coef_)
    assert one.score(SEEN) == other.score(SEEN) and other.horizon_ == T
    np.testing.assert_array_equal(one.simulate(SEEN).action, other.simulate(SEEN).action)
    likelihood = partial(no.functional.log_likelihood, MDP, SEEN)
    np.testing.assert_array_equal(likelihood(horizon=T), likelihood(horizon=np.int64(T)))
    for horizon in (T, np.int64(T)):
        with pytest.raises(HorizonError, match="4 decisions do not fit into a horizon of 3"):
            recover(build(features=FEATURES, horizon=horizon), {"coef": np.ones(F)}, decisions=4)


def test_a_horizon_that_is_set_after_the_fit_waits_for_the_next():
    model = build(features=FEATURES, l2=0.01, horizon=T).fit(SEEN)
    known, walks = model.log_likelihoods(SEEN)[0], model.simulate(SEEN).action
    for horizon in (2, None, "episode", 0):
        model.set_params(horizon=horizon)
        np.testing.assert_array_equal(model.log_likelihoods(SEEN)[0], known)
        np.testing.assert_array_equal(model.simulate(SEEN).action, walks)
    with pytest.raises(HorizonError):
        model.fit(SEEN)


# ---------------------------------------------------------------- as many states as actions as steps
def test_axes_of_equal_length_are_not_taken_for_each_other():
    rng = np.random.default_rng(6)
    goes, over_time, of_branches = rng.dirichlet(np.ones(3), (3, 3)), *rng.normal(size=(2, 3, 3, 3))
    mdp = no.MDP.from_arrays(goes, np.zeros((3, 3)), discount=0.8)
    state, action = rng.integers(3, size=(4, 4)), rng.integers(3, size=(4, 3))
    seen = no.Trajectories(state, action)
    agent = replace(AGENT, transition=goes, available=np.ones((3, 3), bool), log_prior=np.zeros((3, 3)))
    known = partial(likelihood_of, seen)
    model = at(no.BehaviourModel(mdp, reward="state_action", time_varying=True, horizon=3), seen, over_time.reshape(-1))
    acting = replace(agent, reward=over_time, kind="timed choice")
    np.testing.assert_allclose(model.log_likelihoods(seen)[0], known(acting), rtol=1e-10)
    model = at(no.BehaviourModel(mdp, features=of_branches[..., None], horizon=3), seen, [1.5])
    acting = replace(agent, reward=1.5 * of_branches, kind="branch")
    np.testing.assert_allclose(model.log_likelihoods(seen)[0], known(acting), rtol=1e-10)
    with pytest.raises(AmbiguousRewardError, match="add the missing axis"):
        no.functional.log_likelihood(mdp, seen, horizon=3, reward=over_time)
    found = no.functional.log_likelihood(mdp, seen, horizon=3, reward=np.repeat(over_time[..., None], 3, 3))
    np.testing.assert_allclose(found, known(replace(agent, reward=over_time, kind="timed choice")), rtol=1e-10)


def likelihood_of(seen, agent):
    table = table3(agent)
    return np.array([float(table[np.arange(3), s[:3], a].sum()) for s, a in zip(seen.state, seen.action, strict=True)])


def table3(agent):
    """log π (3, 3, 3) at κ = 0, τ = 1."""
    value, rows = np.zeros(3), []
    for t in reversed(range(3)):
        r = agent.reward if agent.kind == "branch" else np.repeat(agent.reward[t][..., None], 3, 2)
        q = (agent.transition * (r + agent.discount * value)).sum(2)
        value = np.log(np.exp(q).sum(1))
        rows.append(q - value[:, None])
    return np.stack(rows[::-1])


# ---------------------------------------------------------------- simulation
STEADY = 3000 * np.random.default_rng(26).normal(size=(S, A))  # so much that what is done tells the policy
OVER_TIME = 3000 * REWARD


def walked(model, lengths, table_of):
    """Simulates in the stead of trajectories so long; every action has to be the likeliest of its step."""
    recorded = cut(longer(SEEN[:6], 5), lengths)
    found = model.simulate(recorded)
    np.testing.assert_array_equal(found.length, lengths)
    np.testing.assert_array_equal(found.state[:, 0], recorded.state[:, 0])
    for state, action, length in zip(found.state, found.action, found.length, strict=True):
        table = table_of(length)
        assert action[:length].tolist() == [table[t, state[t]].argmax() for t in range(length)]


def steadily(horizon):
    model = at(build(reward="state_action", horizon=horizon), SEEN, STEADY.reshape(-1))
    model.policy_ = model.policy_of()
    return model


def over_time(horizon):
    model = at(timed(horizon=horizon), SEEN, OVER_TIME.reshape(-1))
    model.policy_ = model.policy_of()
    return model


def test_simulated_lengths_are_the_recorded_ones():
    """Who knows when it will end acts by how many decisions are left; others by how many were taken, or by neither."""
    steady = partial(log_table, replace(AGENT, reward=STEADY))
    varied = partial(log_table, replace(AGENT, reward=OVER_TIME, kind="timed choice"))
    assert len({tuple(best) for best in steady(5).argmax(2)}) == 3  # or the test could not tell
    walked(steadily("episode"), [5, 1, 4, 2, 5, 1], steady)  # also longer than what was fitted
    walked(steadily(T), LENGTHS, lambda _: steady(T))
    walked(steadily(None), [5, 1, 4, 2, 5, 1], lambda _: np.tile(steady(None), (5, 1, 1)))
    walked(over_time("episode"), LENGTHS, varied)
    walked(over_time(T), LENGTHS, lambda _: varied(T))
    for model in (over_time("episode"), over_time(T), steadily(T)):
        with pytest.raises(TrajectoryLengthError, match="4 decisions, where the horizon is 3"):
            model.simulate(longer(SEEN[:3], 4))


def test_who_has_no_first_state_is_not_simulated():
    state = SEEN.state[:3].copy()
    state[1, 0] = -1
    found = steadily("episode").simulate(no.Trajectories(state, SEEN.action[:3]))
    np.testing.assert_array_equal(found.state[:, 0], SEEN.state[[0, 2], 0])
    assert len(steadily("episode").simulate(no.Trajectories(state[1:2], SEEN.action[1:2]))) == 0
