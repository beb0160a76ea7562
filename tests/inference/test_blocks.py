"""Ragged models, split into many blocks, against dense NumPy recursions; both orders translate into each other."""

import jax
import numpy as np
import pytest

import nearopt as no
from nearopt.inference import messages
from nearopt.mdp import blocks


def ragged(seed, num_states=240, num_actions=6, hub=True):
    """Choices of 1 to 90 branches, 1 to 6 choices, some terminal states: many blocks."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((num_states, num_actions, num_states))
    for s in range(num_states):
        for a in rng.permutation(num_actions)[: rng.integers(1, num_actions + 1)]:
            width = 90 if hub and rng.random() < 0.02 else int(rng.choice([1, 2, 3, 5]))
            targets = rng.choice(num_states, width, replace=False)
            transition[s, a, targets] = rng.dirichlet(np.ones(width))
    reward = rng.normal(size=(num_states, num_actions, num_states))
    terminal = rng.random(num_states) < 0.1
    return no.MDP.from_arrays(transition, reward, terminal=terminal), transition, reward, terminal


def dense(transition, reward, terminal, horizon, temperature, optimism):
    """Value and state_probs by dense algebra, flat prior, γ = 1, from design §1."""
    available = (transition.sum(-1) > 0) & ~terminal[:, None]
    value = [np.zeros(len(terminal))]
    steps = []
    for _ in range(horizon):
        gain = reward + value[0]
        if optimism:
            theta = optimism / temperature
            weight = transition * np.exp(theta * gain)
            q = np.log(np.where(available, weight.sum(-1), 1)) / theta
            tilted = weight / np.where(available, weight.sum(-1), 1)[..., None]
        else:
            q, tilted = (transition * gain).sum(-1), transition
        z = (np.exp(q / temperature) * available).sum(-1)
        v = np.where(terminal, 0, temperature * np.log(np.where(terminal, 1, z)))
        policy = np.exp((q - v[:, None]) / temperature) * available
        steps.append((policy, tilted))
        value.insert(0, v)
    initial = (~terminal) / (~terminal).sum() * np.exp(optimism / temperature * value[0])
    mass = [initial / initial.sum()]
    for policy, tilted in reversed(steps):
        mass.append(np.einsum("s,sa,sat->t", mass[-1], policy, tilted) + np.where(terminal, mass[-1], 0))
    return np.array(value), np.array(mass)


@pytest.mark.parametrize("optimism", [1.0, 0.0, -0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_ragged_model_equals_dense_algebra(seed, optimism):
    mdp, transition, reward, terminal = ragged(seed)
    assert len(mdp.blocks.blocks) > 5
    post = no.infer(mdp, 6, temperature=0.7, optimism=optimism)
    value, mass = dense(transition, reward, terminal, 6, 0.7, optimism)
    np.testing.assert_allclose(post.value, value, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(post.state_probs, mass, rtol=1e-10, atol=1e-15)
    smoothing = post.log_forward + optimism * post.value / 0.7
    smoothing = np.exp(smoothing - smoothing.max(1, keepdims=True))
    np.testing.assert_allclose(smoothing / smoothing.sum(1, keepdims=True), mass, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("optimism", [1.0, 0.0])
def test_one_block_many_blocks_and_python_steps_agree(monkeypatch, optimism):
    mdp, *_ = ragged(3, num_states=40, hub=False)
    kinds = []
    for waste, large in ((0.0, 2**62), (1e9, 2**62), (0.0, 0)):
        monkeypatch.setattr(blocks, "WASTE", waste)
        monkeypatch.setattr(blocks, "SMALL", 0)
        monkeypatch.setattr(messages, "LARGE", large)
        post = no.infer(mdp.replace(), 5, optimism=optimism)  # a fresh copy: layouts are cached
        kinds.append((len(post.mdp.blocks.blocks), post))
    assert [k for k, _ in kinds] == [kinds[0][0], 1, kinds[0][0]] and kinds[0][0] > 3
    for name in ("value", "q", "policy", "log_forward", "log_evidence", "state_probs"):
        for _, post in kinds[1:]:
            np.testing.assert_allclose(getattr(post, name), getattr(kinds[0][1], name), rtol=1e-13, atol=1e-13)


def test_public_order_survives_the_blocks():
    mdp, *_ = ragged(4)
    with jax.enable_x64(True):
        values = np.arange(mdp.num_states) + 0.5
        np.testing.assert_array_equal(mdp.blocks.to_states(mdp.blocks.from_states(values)), values)
        table = np.where(mdp.available, np.arange(mdp.available.size).reshape(mdp.available.shape), -7.0)
        np.testing.assert_array_equal(mdp.blocks.to_actions(mdp.blocks.from_actions(table), -7.0), table)
        flat = blocks.concatenate([b.probability for b in mdp.blocks.blocks])
        np.testing.assert_array_equal(np.asarray(flat)[mdp.layout.position], mdp.probability)
        assert np.asarray(flat).sum() == pytest.approx(mdp.probability.sum(), rel=1e-14)


def test_filling_up_costs_at_most_half_as_much_again():
    mdp, *_ = ragged(5)
    filled = sum(b.probability.size for b in mdp.blocks.blocks)
    assert filled < 4 * mdp.num_branches  # choices and branches are both rounded up, rarely both badly
    steps = blocks.ladder(np.arange(1, 200))
    assert (steps >= np.arange(1, 200)).all() and (steps <= 1.5 * np.arange(1, 200)).all()
