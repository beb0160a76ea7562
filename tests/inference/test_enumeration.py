"""Exact inference against brute force: 2,000 random worlds, every quantity of the contract."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nearopt as no
from tests.oracles import Oracle, random_world, to_arrays

RELATIVE = 1e-12
S, A = 4, 3


def close(actual, expected, what):
    """Equal to 1e-12: relative for large logarithms, absolute for probabilities and logarithms around 0."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert not np.isnan(actual).any(), what
    assert (np.isneginf(actual) == np.isneginf(expected)).all(), (what, actual, expected)
    finite = np.isfinite(expected)
    error = np.abs(actual[finite] - expected[finite]) / np.maximum(1, np.abs(expected[finite]))
    assert error.max(initial=0) <= RELATIVE, (what, error.max(), actual, expected)


def case(seed, zero_optimism, unit_discount, draw):
    rng = np.random.default_rng(seed)
    world = random_world(rng, S, A, 3, draw["terminals"], draw["forbid"], draw["branch_rewards"])
    arrays = to_arrays(world, S, A)
    discount = 1.0 if unit_discount else float(rng.choice([0.0, 0.5, 0.9, 0.99]))
    start = rng.dirichlet(np.ones(S)) * (rng.random(S) < 0.7)
    start = start / start.sum() if start.sum() else np.eye(S)[0]
    final = rng.normal(size=S) * draw["final"]
    available = np.array([[a in world[s] for a in range(A)] for s in range(S)])
    if draw["prior"] == "array":
        prior = np.where(available, rng.dirichlet(np.ones(A), S), 0) * (rng.random((S, A)) < 0.8)
        prior = np.where((prior.sum(1) == 0)[:, None], available, prior).astype(float)
        weights = prior
    else:
        prior = draw["prior"]
        count = np.maximum(available.sum(1, keepdims=True), 1)
        weights = available / (count if prior == "uniform" else 1)
    dials = dict(temperature=float(rng.uniform(0.3, 3)), optimism=0.0 if zero_optimism else draw["optimism"])
    mdp = no.MDP.from_arrays(**arrays, initial=start, discount=discount)
    oracle = Oracle(
        world=world,
        initial=dict(enumerate(start.tolist())),
        discount=discount,
        horizon=draw["horizon"],
        prior=[{s: {a: float(weights[s, a]) for a in world[s]} for s in range(S)}] * draw["horizon"],
        final_value=dict(enumerate(final.tolist())),
        **dials,
    )
    return mdp, oracle, no.infer(mdp, draw["horizon"], prior=prior, final_value=final, **dials)


draws = st.fixed_dictionaries(
    dict(
        terminals=st.integers(0, 2),
        forbid=st.booleans(),
        branch_rewards=st.booleans(),
        final=st.sampled_from([0.0, 1.0]),
        prior=st.sampled_from([None, "uniform", "array"]),
        optimism=st.sampled_from([1.0, 1.0, 0.5, 0.01, -1.0, 2.0]),
        horizon=st.sampled_from([1, 3]),
    )
)


@pytest.mark.parametrize("unit_discount", [True, False], ids=["undiscounted", "discounted"])
@pytest.mark.parametrize("zero_optimism", [False, True], ids=["tilted", "variational"])
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), draw=draws)
def test_everything_equals_enumeration(seed, zero_optimism, unit_discount, draw):
    mdp, oracle, post = case(seed, zero_optimism, unit_discount, draw)
    check_messages(oracle, post)
    close(post.log_partition, oracle.log_partition(), "log_partition")
    if post.log_partition == -math.inf and oracle.optimism > 0:
        assert (post.state_probs == 0).all()
        with pytest.raises(no.NearoptError, match="nothing to sample"):
            post.sample(1, 0)
        return
    if not math.isfinite(post.log_partition) and oracle.optimism != 0:
        return  # κ < 0 and hope lost: the tilted first state is not defined
    check_process(mdp, oracle, post)
    if oracle.optimism == 1:
        check_without_values(oracle, post)


def check_messages(oracle, post):
    horizon = oracle.horizon
    close(post.value, [[oracle.value(t, s) for s in range(S)] for t in range(horizon + 1)], "value")
    q, policy = np.full((horizon, S, A), -np.inf), np.zeros((horizon, S, A))
    for t, s in np.ndindex(horizon, S):
        for a in oracle.world[s]:
            q[t, s, a], policy[t, s, a] = oracle.q(t, s, a), oracle.policy(t, s, a)
    close(post.q, q, "q")
    close(post.policy, policy, "policy")
    for t in range(horizon):
        transition, continuation = post.transition(t).toarray().reshape(S, A, S), post.continuation(t)
        for s in range(S):
            for a in oracle.world[s]:
                row = oracle.transition(t, s, a)
                going_on = oracle.tilted(t, s, a)[1]
                if going_on > 0:
                    close(transition[s, a], [row[s2] for s2 in range(S)], "transition")
                close(continuation[s, a], going_on, "continuation")


def check_process(mdp, oracle, post):
    state, action = oracle.marginals(S, A)
    close(post.state_probs, state, "state_probs")
    close(post.state_action_probs, action, "state_action_probs")
    if oracle.optimism == 0:
        with np.errstate(divide="ignore"):
            sums = state.sum(1, keepdims=True)
            expected = np.where(sums > 0, np.log(state) - np.log(np.where(sums > 0, sums, 1)), -np.inf)
        close(post.log_forward, expected, "log_forward at κ=0")
    found = oracle.trajectories()
    if mdp.discount == 1:
        found = [f for f in found if not f[3]]
    states, actions = [f[0] for f in found], [f[1] or (-1,) for f in found]
    recorded = no.Trajectories.from_arrays(states, actions)
    log_prob = post.log_prob(recorded)
    if mdp.discount == 1:
        close(log_prob, np.log([f[2] for f in found]), "log_prob")
        return
    prefix = {}  # what is recorded of an episode that ended by discount is the prefix, whatever came after it
    for s, a, p, _ in found:
        ends_with_state = [(s[: cut + 1], a[:cut]) for cut in range(len(s))]
        ends_with_action = [(s[: cut + 1], a[: cut + 1]) for cut in range(len(a))]
        for key in ends_with_state + ends_with_action:
            prefix[key] = prefix.get(key, 0.0) + p
    close(log_prob, np.log([prefix[s, a] for s, a, _, _ in found]), "log_prob with discount")


def check_without_values(oracle, post):
    """At κ = 1 sums over trajectories give evidence and α with no value function at all."""
    alive, ended = oracle.evidence(oracle.horizon)
    total = ended + math.fsum(
        w * math.exp((oracle.final_value[s] if oracle.world[s] else 0.0) / oracle.temperature) for s, w in alive.items()
    )
    close(post.log_partition, math.log(total), "evidence")
    for t in range(oracle.horizon + 1):
        alive, _ = oracle.evidence(t)
        sums = math.fsum(alive.values())
        if sums == 0:
            assert np.isneginf(post.log_forward[t]).all()
            continue
        close(post.log_evidence[t], math.log(sums), "log_evidence")
        with np.errstate(divide="ignore"):
            close(post.log_forward[t], np.log([alive[s] / sums for s in range(S)]), "log_forward")
