"""The optimism ledger against the enumeration of all trajectories, and what must hold between its entries."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nearopt as no
from nearopt.inference import messages
from nearopt.mdp import errors
from tests.oracles import INF, LedgerOracle, Oracle, random_world, to_arrays

S, A, HORIZON = 4, 3, 3  # the same for all worlds, so that they share compiled code
RETURNS = ("believed_return", "actual_return", "variational_return", "optimal_return")
DIVERGENCES = ("kl_initial", "kl_policy", "kl_dynamics")
CLIFF = no.MDP.from_gymnasium("CliffWalking-v1", discount=0.97)
NAMES = ("log_evidence", "elbo", *DIVERGENCES, *RETURNS)


def random_prior(rng, kind, available):
    """What `ledger` is given, and the weights (T, S, A) that it means."""
    count = np.maximum(available.sum(1, keepdims=True), 1)
    if kind in (None, "uniform"):
        return kind, np.broadcast_to(available / (1 if kind is None else count), (HORIZON, S, A))
    shape = (HORIZON, S) if kind == "over time" else (S,)
    prior = np.where(available, 2 * rng.dirichlet(np.ones(A), shape), 0) * (rng.random((*shape, A)) < 0.8)
    prior = np.where((prior.sum(-1) == 0)[..., None], available, prior).astype(float)
    return prior, np.broadcast_to(prior, (HORIZON, S, A))


def small(world):
    """{state: branches} with one action; the same shapes as all other worlds here."""
    arrays = to_arrays({s: {0: world[s]} if s in world else {} for s in range(S)}, S, A)
    return no.MDP.from_arrays(**arrays, initial=np.eye(S)[0])


def oracle_of(world, start, discount, temperature, weights, optimism=1.0):
    prior = [{s: {a: float(weights[t, s, a]) for a in world[s]} for s in range(S)} for t in range(HORIZON)]
    final = dict.fromkeys(range(S), 0.0)
    return Oracle(world, dict(enumerate(start.tolist())), discount, HORIZON, temperature, optimism, prior, final)


def case(seed, discount, draw):
    rng = np.random.default_rng(seed)
    world = random_world(rng, S, A, 2, draw["terminals"], draw["forbid"], draw["branch_rewards"])
    start = rng.dirichlet(np.ones(S)) * (rng.random(S) < 0.7)
    start = start / start.sum() if start.sum() else np.eye(S)[0]
    available = np.array([[a in world[s] for a in range(A)] for s in range(S)])
    prior, weights = random_prior(rng, draw["prior"], available)
    temperature = float(rng.uniform(0.3, 3))
    mdp = no.MDP.from_arrays(**to_arrays(world, S, A), initial=start, discount=discount)
    variational = oracle_of(world, start, discount, temperature, weights, optimism=0.0)
    expected = LedgerOracle(oracle_of(world, start, discount, temperature, weights), variational.policy)
    return mdp, dict(temperature=temperature, prior=prior), expected


draws = st.fixed_dictionaries(
    dict(terminals=st.integers(0, 2), forbid=st.booleans(), branch_rewards=st.booleans(), prior=st.integers(0, 2))
)
UNDISCOUNTED, DISCOUNTED = ((1.0,), (None, "uniform", "over time")), ((0.0, 0.5, 0.9, 0.99), (None, "uniform", "array"))


@pytest.mark.parametrize(("discounts", "priors"), [UNDISCOUNTED, DISCOUNTED], ids=["undiscounted", "discounted"])
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), draw=draws)
def test_every_entry_equals_enumeration(seed, discounts, priors, draw):
    mdp, dials, expected = case(seed, discounts[seed % len(discounts)], draw | dict(prior=priors[draw["prior"]]))
    if expected.log_evidence == -INF:
        with pytest.raises(errors.ImpossibleEvidenceError, match="3 steps"):
            no.ledger(mdp, HORIZON, **dials)
        return
    led = no.ledger(mdp, HORIZON, **dials)
    for name in NAMES:
        assert getattr(led, name) == pytest.approx(getattr(expected, name), rel=1e-11, abs=1e-11), name
    assert min(led.kl_initial, led.kl_policy, led.kl_dynamics) >= 0
    assert max(led.actual_return, led.variational_return) <= led.optimal_return + 1e-12
    if led.elbo > -INF:
        parts = led.elbo + led.kl_initial + led.kl_policy + led.kl_dynamics
        assert abs(led.log_evidence - parts) <= 1e-10 * max(1, abs(led.log_evidence))
    else:
        assert led.kl_initial + led.kl_policy + led.kl_dynamics == INF
    check_luck(led)


def check_luck(led):
    """The largest of all gains, one by one, from the posterior's public tables."""
    mdp, post, found = led.exact.mdp, led.exact, {}
    for t in range(HORIZON):
        believed, on = post.transition(t).toarray().reshape(S, A, S), post.continuation(t)
        true = mdp.transition.toarray().reshape(S, A, S)
        for s, a in np.argwhere(mdp.available).tolist():
            acts = post.state_probs[t, s] * post.policy_at(t)[s, a]
            pairs = [(s2, mdp.discount * true[s, a, s2], on[s, a] * believed[s, a, s2]) for s2 in range(S)]
            for s2, p, b in [*pairs, (-1, 1 - mdp.discount, 1 - on[s, a])]:
                if p > 0 and acts * b > 0 and b > p * (1 + 1e-9):
                    found[t, s, a, s2] = acts * b * math.log(b / p)
    best = led.luck(len(found) or 1)
    assert all(luck.nats == pytest.approx(math.log(luck.believed / luck.true)) for luck in best)
    worth = [luck.visits * luck.nats for luck in best]
    assert worth == sorted(worth, reverse=True)
    notable = {key: value for key, value in found.items() if value > 1e-9}
    given = {tuple(luck[:4]): luck.visits * luck.nats for luck in best}
    assert notable == pytest.approx({key: given[key] for key in notable}, rel=1e-6)


def test_large_models_are_stepped_from_python(monkeypatch):
    rng = np.random.default_rng(0)
    mdp = no.MDP.from_arrays(rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A)))
    prior = rng.dirichlet(np.ones(A), (HORIZON, S))
    one = no.ledger(mdp, HORIZON, temperature=0.7, prior=prior)
    monkeypatch.setattr(messages, "LARGE", 0)
    other = no.ledger(mdp, HORIZON, temperature=0.7, prior=prior)
    assert isinstance(other.exact.messages, np.ndarray) and not isinstance(one.exact.messages, np.ndarray)
    for name in NAMES:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-13, abs=1e-13)


def test_wide_ranges_keep_the_identity():
    """Thousands of nats, where probabilities underflow and only their logarithms are known."""
    for temperature in (0.05, 0.3, 1e3):
        led = no.ledger(CLIFF, 20, temperature=temperature, prior="uniform")
        parts = led.elbo + led.kl_initial + led.kl_policy + led.kl_dynamics
        assert abs(led.log_evidence - parts) <= 1e-10 * max(1, abs(led.log_evidence))


def test_believed_return_is_a_derivative():
    """∂ log p(O)/∂(1/τ) = E[Σ r | O] at a fixed prior, without any forward pass."""
    evidence = lambda inverse: no.infer(CLIFF, 20, temperature=1 / inverse, prior="uniform").log_partition
    slope = (evidence(4 + 1e-4) - evidence(4 - 1e-4)) / 2e-4
    assert no.ledger(CLIFF, 20, temperature=0.25, prior="uniform").believed_return == pytest.approx(slope, rel=1e-7)


def test_gain_is_the_ratio_of_the_tables():
    slippery = no.MDP.from_grid("S..\n.#.\n..G", slip=0.3)
    for model in (CLIFF, slippery):
        post = no.infer(model, HORIZON, temperature=0.8)
        for t in range(HORIZON):
            gain, true = post.dynamics_gain(t), model.transition
            assert gain.nnz == true.nnz and np.array_equal(gain.indices, true.indices)
            np.testing.assert_allclose(true.data * np.exp(gain.data), post.transition(t).data, rtol=1e-12)
    assert not no.infer(slippery, HORIZON, optimism=0.0).dynamics_gain(0).data.round(14).any()


def test_a_branch_that_success_rules_out():
    mdp = small({0: [(0.5, 1, 0.0), (0.5, 2, 0.0)], 1: [(1.0, 1, 0.0)], 2: [(1.0, 2, -INF)]})
    led = no.ledger(mdp, HORIZON)
    assert led.exact.dynamics_gain(0).toarray()[0].tolist() == [0, pytest.approx(math.log(2)), -INF, 0]
    assert (led.elbo, led.kl_dynamics, led.actual_return) == (-INF, INF, -INF)
    assert led.log_evidence == pytest.approx(math.log(0.5)) and led.believed_return == 0
    best = led.luck(5)
    assert len(best) == 1 and best[0][:6] == (0, 0, 0, 1, 0.5, 1.0)


def test_two_rewards_on_the_way_to_one_state():
    """The posterior chooses between branches, not between next states: the divergence has to do the same."""
    one = small({0: [(0.5, 3, 0.0), (0.5, 2, 2.0)]})
    mdp = one.replace(next_state=np.full(2, 3))
    assert mdp.num_branches == 2 and len(mdp.branch_group) == 1
    led = no.ledger(mdp, HORIZON)
    won = 1 / (1 + math.exp(-2))
    assert led.believed_return == pytest.approx(2 * won) and led.actual_return == 1
    assert led.kl_dynamics == pytest.approx(-0.5 * math.log(4 * won * (1 - won)))
    assert led.log_evidence == pytest.approx(1 + led.kl_dynamics, abs=1e-14) and led.luck() == []
    np.testing.assert_allclose(led.exact.dynamics_gain(0).data, 0, atol=1e-15)


def test_mistakes():
    mdp = no.MDP.from_grid("S.G")
    with pytest.raises(errors.TemperatureError, match="the temperature is 0, where there is no evidence"):
        no.ledger(mdp, 3, temperature=0)
    with pytest.raises(errors.TemperatureError, match="the temperature is -1"):
        no.ledger(mdp, 3, temperature=-1)
    with pytest.raises(errors.HorizonError, match="the horizon is 0"):
        no.ledger(mdp, 0)
    with pytest.raises(errors.PriorShapeError, match="even"):
        no.ledger(mdp, 3, prior="even")
    with pytest.raises(errors.NotAModelError):
        no.ledger(np.eye(2), 3)
    with pytest.raises(errors.ImpossibleEvidenceError, match="log_evidence is -inf"):
        no.ledger(no.MDP.from_grid("S.G", step_reward=-np.inf), 3)
    with pytest.raises(errors.CountError, match="0"):
        no.ledger(mdp, 3).luck(0)
