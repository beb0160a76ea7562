"""Variational inference, optimism 0, is the optimum of the ELBO over policies that share the true dynamics.

The ELBO of a policy is computed here twice, by enumerating trajectories and by a forward pass in NumPy; neither knows
of a soft value. Its gradient is exact (complex step), its optimum is searched for by an optimiser.
"""

import math

import numpy as np
import pytest
import scipy.optimize

import nearopt as no
from tests.oracles import random_world, to_arrays

S, A, HORIZON = 4, 3, 3  # the same for all worlds, so that they share compiled code
SHAPE = (HORIZON, S, A)


class World:
    """A random task, as arrays; for the ELBO of any policy (..., T, S, A), many at a time."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.world = random_world(rng, S, A, 2, seed % 3, forbid=False, branch_rewards=seed % 2 > 0)
        arrays = to_arrays(self.world, S, A)
        self.discount = (1.0, 0.9)[seed // 2 % 2]
        self.temperature = float(rng.uniform(0.3, 3))
        self.initial = rng.dirichlet(np.ones(S))
        self.mdp = no.MDP.from_arrays(**arrays, initial=self.initial, discount=self.discount)
        self.available, self.transition = self.mdp.available, self.discount * arrays["transition"]
        self.reward = (arrays["transition"] * arrays["reward"]).sum(2)
        weight = np.where(self.available, rng.dirichlet(np.ones(A), S) + 0.05, 0)
        self.prior = (None, weight)[seed // 4 % 2]
        with np.errstate(divide="ignore"):
            self.log_prior = np.where(self.available, np.log(weight) if seed // 4 % 2 else 0.0, 0.0)
        self.rng = rng

    def policy(self, logits):
        """(..., T, S, A) of logits; real or complex."""
        weight = np.where(self.available, np.exp(logits), 0)
        total = weight.sum(-1, keepdims=True)
        return np.where(self.available, weight / np.where(total == 0, 1, total), 0)

    def elbo(self, policy):
        """(...) E_q[Σ r]/τ + entropy relative to the prior, by a forward pass."""
        mass, total = np.broadcast_to(self.initial, policy.shape[:-3] + (S,)), 0.0
        for t in range(HORIZON):
            now = policy[..., t, :, :]
            log_now = np.log(np.where(now == 0, 1, now))
            acting = mass[..., :, None] * now
            total = total + (acting * (self.reward / self.temperature + self.log_prior - log_now)).sum((-1, -2))
            mass = np.einsum("...sa,sau->...u", acting, self.transition) + np.where(self.mdp.terminal, mass, 0)
        return total

    def elbo_by_enumeration(self, policy):
        """The same as a sum over trajectories, branch by branch and with the ending coin."""
        found = []

        def extend(t, s, probability, score):
            if t == HORIZON or not self.world[s]:
                found.append(probability * score)
                return
            for a, branches in self.world[s].items():
                pi = policy[t, s, a]
                if pi == 0:
                    continue
                for p, s2, r in branches:
                    now = score + self.log_prior[s, a] - math.log(pi) + r / self.temperature
                    if self.discount < 1:
                        found.append(probability * pi * p * (1 - self.discount) * now)
                    extend(t + 1, s2, probability * pi * p * self.discount, now)

        for s in range(S):
            extend(0, s, self.initial[s], 0.0)
        return math.fsum(found)

    def gradient(self, logits):
        """Exact ∂ELBO/∂logits (T, S, A), by the complex step."""
        steps = 1e-30j * np.eye(logits.size).reshape(-1, *logits.shape)
        return np.imag(self.elbo(self.policy(logits + steps))).reshape(logits.shape) / 1e-30

    def objective(self, logits):
        """−ELBO and its gradient, for SciPy."""
        logits = logits.reshape(SHAPE)
        return -self.elbo(self.policy(logits)), -self.gradient(logits).reshape(-1)


def infer(world, temperature=None):
    temperature = world.temperature if temperature is None else temperature
    return no.infer(world.mdp, HORIZON, temperature=temperature, optimism=0.0, prior=world.prior)


@pytest.mark.parametrize("seeds", [range(0, 500), range(500, 1000)], ids=["first 500", "last 500"])
def test_the_answer_is_the_optimum_of_the_elbo(seeds):
    for seed in seeds:
        world = World(seed)
        post = infer(world)
        policy = np.stack([post.policy_at(t) for t in range(HORIZON)])
        best = post.elbo
        assert best == post.log_partition
        assert best == pytest.approx(world.elbo_by_enumeration(policy), rel=1e-10, abs=1e-10)
        assert best == pytest.approx(world.elbo(policy), rel=1e-10, abs=1e-10)
        with np.errstate(divide="ignore"):
            logits = np.where(policy > 0, np.log(np.where(policy > 0, policy, 1)), 0.0)
        assert np.abs(world.gradient(logits)).max() < 1e-10
        check_others(world, post, policy, logits)


def check_others(world, post, policy, logits):
    """No other policy does better, and each does worse by exactly Σ_t E[KL(its policy ‖ the optimal one)]."""
    size = (12, *SHAPE)
    scale = world.rng.choice([0.01, 1, 10], size=(12, 1, 1, 1))
    near, far = world.policy(logits + scale * world.rng.normal(size=size)), world.policy(world.rng.normal(size=size))
    single = world.policy(np.where(np.arange(A) == world.rng.integers(A, size=(12, HORIZON, S, 1)), 50.0, 0.0))
    others = np.concatenate([near, far, single])
    shortfall = post.elbo - world.elbo(others)
    assert shortfall.min() >= -1e-12 * max(1, abs(post.elbo))
    mass, expected, marginal = np.broadcast_to(world.initial, (len(others), S)), 0.0, world.initial
    for t in range(HORIZON):
        ratio = np.log(np.where(others[:, t] > 0, others[:, t], 1)) - logits[t] * (others[:, t] > 0)
        expected = expected + (mass[:, :, None] * others[:, t] * ratio).sum((1, 2))
        stay = world.mdp.terminal
        mass = np.einsum("ns,nsa,sau->nu", mass, others[:, t], world.transition) + np.where(stay, mass, 0)
        np.testing.assert_allclose(post.state_probs[t], marginal, rtol=1e-10, atol=1e-13)
        marginal = np.einsum("s,sa,sau->u", marginal, policy[t], world.transition) + np.where(stay, marginal, 0)
    np.testing.assert_allclose(post.state_probs[HORIZON], marginal, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(shortfall, expected, rtol=1e-10, atol=1e-10)


def test_every_value_is_the_optimum_from_there():
    """V_t(s)/τ is the ELBO of the steps that are left, for someone who starts in s: by shifting the start."""
    for seed in range(0, 200, 3):
        world = World(seed)
        post = infer(world)
        policy = np.stack([post.policy_at(t) for t in range(HORIZON)])
        for t in range(HORIZON):
            late = World(seed)
            rest = np.concatenate([policy[t:], policy[:t]])  # what comes after the end is not reached
            for s in range(S):
                late.initial = np.eye(S)[s]
                cut = np.concatenate([rest[: HORIZON - t], np.zeros((t, S, A))])
                expected = late.elbo(cut)
                assert post.value[t, s] / world.temperature == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_an_optimiser_finds_nothing_better():
    for seed in range(1, 41, 4):
        world = World(seed)
        post = infer(world)
        start = 0.1 * world.rng.normal(size=SHAPE).reshape(-1)
        found = scipy.optimize.minimize(world.objective, start, jac=True, method="BFGS", options=dict(gtol=1e-9))
        assert -found.fun <= post.elbo + 1e-12 * max(1, abs(post.elbo))
        assert -found.fun == pytest.approx(post.elbo, rel=1e-9, abs=1e-9)
        reached = post.state_probs[:HORIZON, :, None] > 1e-3
        gap = np.abs(world.policy(found.x.reshape(SHAPE)) - np.stack([post.policy_at(t) for t in range(HORIZON)]))
        assert (gap * reached).max() < 1e-4


# ---------------------------------------------------------------- limits
def deterministic(seed):
    rng = np.random.default_rng(seed)
    step = np.eye(S)[rng.integers(S, size=(S, A))]
    return no.MDP.from_arrays(step, rng.normal(size=(S, A)), initial=np.eye(S)[seed % S])


def test_without_chance_exact_and_variational_are_one():
    for seed in range(30):
        led = no.ledger(deterministic(seed), HORIZON, temperature=0.3 + seed / 10, prior=(None, "uniform")[seed % 2])
        for name in ("value", "state_probs", "policy", "log_partition"):
            exact, variational = getattr(led.exact, name), getattr(led.variational, name)
            np.testing.assert_allclose(exact, variational, rtol=1e-12, atol=1e-12)
        assert max(led.kl_initial, led.kl_policy, led.kl_dynamics) < 1e-14 and led.luck() == []
        assert led.believed_return == pytest.approx(led.variational_return, rel=1e-12)
        assert led.believed_return == pytest.approx(led.actual_return, rel=1e-12)


def test_the_soft_value_is_above_the_hard_one_by_at_most_the_entropy():
    """0 ≤ V_τ − V_0 ≤ τ (T−t) log A with the flat prior."""
    left = np.arange(HORIZON, -1, -1)[:, None] * math.log(A)
    for seed in range(0, 400, 8):  # seeds of the flat prior and no discount
        world = World(seed)
        hard = no.infer(world.mdp, HORIZON, temperature=0.0, optimism=0.0)
        for temperature in (1e-6, 0.01, 1.0, 30.0):
            gain = infer(world, temperature).value - hard.value
            assert gain.min() >= -1e-12 and (gain <= temperature * left + 1e-12).all()


def test_cold_is_hard_control():
    for seed in range(0, 400, 8):
        world = World(seed)
        hard, cold = no.infer(world.mdp, HORIZON, temperature=0.0, optimism=0.0), infer(world, 1e-7)
        np.testing.assert_allclose(cold.value, hard.value, atol=1e-6)
        np.testing.assert_allclose(cold.policy_at(0), hard.policy_at(0), atol=1e-6)
        led = no.ledger(world.mdp, HORIZON, temperature=1e-7)
        assert led.variational_return == pytest.approx(led.optimal_return, abs=1e-6)
