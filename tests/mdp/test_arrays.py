"""Tables in, tables out: nothing lost, nothing reordered, nothing of the caller's touched."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse

import nearopt as no

S, A = 6, 3
KINDS = ("S", "SA", "SAS")


def tables(seed=0):
    """A random model with one terminal state and unavailable actions."""
    rng = np.random.default_rng(seed)
    transition = rng.random((S, A, S)) * (rng.random((S, A, S)) < 0.5)
    transition[..., 0] += 0.1  # no empty row by chance
    available = rng.random((S, A)) < 0.7
    available[:, 1] = True
    available[5] = False
    transition /= transition.sum(2, keepdims=True)
    transition[~available] = 0
    return transition, available, available.any(1) == 0, rng


def rewards(kind, transition, rng):
    return rng.normal(size={"S": (S,), "SA": (S, A), "SAS": (S, A, S)}[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_dense_and_sparse_are_the_same_model(kind):
    transition, _, terminal, rng = tables()
    reward = rewards(kind, transition, rng)
    rows = transition.reshape(S * A, S)
    dense = no.MDP.from_arrays(transition, reward, terminal=terminal)
    for make in (scipy.sparse.csr_array, scipy.sparse.csc_matrix, scipy.sparse.coo_array):
        assert no.MDP.from_arrays(make(rows), reward, terminal=terminal) == dense
    if kind == "SAS":
        sparse = scipy.sparse.csr_array(np.where(rows > 0, reward.reshape(S * A, S), 0))
        assert no.MDP.from_arrays(scipy.sparse.csr_array(rows), sparse, terminal=terminal) == dense


@pytest.mark.parametrize("kind", KINDS)
def test_what_went_in_comes_out(kind):
    transition, available, terminal, rng = tables(1)
    reward = rewards(kind, transition, rng)
    mdp = no.MDP.from_arrays(transition, reward, terminal=terminal, discount=0.9)
    assert np.array_equal(mdp.available, available)
    assert np.array_equal(mdp.terminal, terminal)
    assert np.allclose(mdp.transition.toarray().reshape(S, A, S), transition, rtol=1e-15, atol=0)
    if kind == "SAS":
        assert np.array_equal(mdp.reward, np.where(transition > 0, reward, 0))
    else:
        full = np.broadcast_to(reward[:, None] if kind == "S" else reward, (S, A))
        assert np.array_equal(mdp.reward, np.where(available, full, 0))
    assert np.array_equal(mdp.initial, ~terminal / (~terminal).sum())
    assert (mdp.num_states, mdp.num_actions, mdp.discount) == (S, A, 0.9)


@pytest.mark.parametrize("sparse", [False, True])
def test_inputs_are_neither_changed_nor_kept(sparse):
    transition, _, terminal, rng = tables(2)
    reward, initial = rewards("SA", transition, rng), np.full(S, 1 / S)
    available, positions = np.ones((S, A), bool) & (transition.sum(2) > 0), rng.random((S, 2))
    table = transition
    if sparse:  # each row backwards, with explicit zeros: what scipy would tidy up in place
        rows = transition.reshape(S * A, S)[:, ::-1]
        indices, indptr = np.tile(np.arange(S)[::-1], S * A), np.arange(0, S * A * S + 1, S)
        table = scipy.sparse.csr_array((rows.reshape(-1).copy(), indices, indptr), shape=(S * A, S))
        assert not table.has_sorted_indices
    given = [reward, initial, terminal, available, positions]
    given += [table.data, table.indices, table.indptr] if sparse else [table]
    before = [x.copy() for x in given]
    extras = dict(initial=initial, terminal=terminal, available=available, positions=positions)
    mdp = no.MDP.from_arrays(table, reward, **extras)
    for array, old in zip(given, before, strict=True):
        assert np.array_equal(array, old)
    copied = copy.copy(mdp.probability), mdp.branch_reward.copy(), mdp.initial.copy(), mdp.positions.copy()
    for array in given:
        array[...] = 0
    now = (mdp.probability, mdp.branch_reward, mdp.initial, mdp.positions)
    assert all(np.array_equal(a, b) for a, b in zip(copied, now, strict=True))


def test_the_order_is_canonical_whatever_the_order_of_branches_and_choices():
    transition, _, terminal, rng = tables(3)
    mdp = no.MDP.from_arrays(transition, rewards("SAS", transition, rng).round(1), terminal=terminal)
    for _ in range(5):
        choices, branches = [], []
        for s in range(S):
            choices += list(rng.permutation(np.arange(mdp.choice_offset[s], mdp.choice_offset[s + 1])))
        for c in choices:
            branches.append(rng.permutation(np.arange(mdp.branch_offset[c], mdp.branch_offset[c + 1])))
        order = np.concatenate(branches)
        # every branch split in two halves, the second of which comes last in its choice
        order = np.concatenate([np.concatenate([b, b]) for b in branches])
        shuffled = mdp.replace(
            choice_action=mdp.choice_action[choices],
            branch_offset=np.concatenate([[0], np.cumsum([2 * len(b) for b in branches])]),
            probability=mdp.probability[order] / 2,
            next_state=mdp.next_state[order],
            branch_reward=mdp.branch_reward[order],
        )
        assert shuffled == mdp


def raw(probability, next_state, reward):
    """One state with one choice."""
    n = len(probability)
    return no.MDP([0, 1], [0], [0, n], probability, next_state, np.array(reward, float), [1.0], 1)


def test_equal_branches_merge_and_zero_ones_go():
    mdp = raw([0.25, 0.0, 0.5, 0.25], [0, 0, 0, 0], [1, 7, 2, 1])
    assert mdp.branch_reward.tolist() == [1, 2] and mdp.probability.tolist() == [0.5, 0.5]
    assert mdp.transition.toarray().tolist() == [[1.0]]
    forbidden = raw([0.5, 0.5], [0, 0], [-np.inf, -np.inf])
    assert forbidden.branch_reward.tolist() == [-np.inf] and forbidden.reward.tolist() == [[-np.inf]]
    assert raw([0.0, 1.0], [0, 0], [np.inf, 3.0]).branch_reward.tolist() == [3.0]  # +inf that never happens


def test_float32_rows_are_accepted_and_normalised():
    rng = np.random.default_rng(4)
    transition = rng.dirichlet(np.ones(300), size=(300, 2)).astype(np.float32)
    assert np.abs(transition.astype(float).sum(2) - 1).max() > 1e-12
    mdp = no.MDP.from_arrays(transition, np.zeros(300, np.float32))
    assert np.abs(np.add.reduceat(mdp.probability, mdp.branch_offset[:-1]) - 1).max() < 1e-14
    assert all(getattr(mdp, name).dtype == np.float64 for name in ("probability", "branch_reward", "initial"))


def test_rows_that_already_sum_to_one_keep_every_bit():
    transition = np.array([[[0.1, 0.2, 0.7]], [[1 / 3, 1 / 3, 1 / 3]], [[0.0, 1.0, 0.0]]])
    mdp = no.MDP.from_arrays(transition, np.zeros(3))
    assert np.array_equal(mdp.transition.toarray(), transition.reshape(3, 3))


def test_rows_of_terminal_states_and_unavailable_actions_do_not_count():
    transition = np.full((2, 2, 2), np.nan)
    transition[0, 0] = [0, 1]
    available = np.array([[True, False], [True, True]])
    mdp = no.MDP.from_arrays(transition, np.zeros(2), terminal=np.array([False, True]), available=available)
    assert mdp.available.tolist() == [[True, False], [False, False]] and mdp.next_state.tolist() == [1]


@pytest.mark.parametrize("reward", [np.zeros(2), scipy.sparse.csr_array((2, 2))])
def test_a_model_may_consist_of_terminal_states(reward):
    mdp = no.MDP.from_arrays(scipy.sparse.csr_array((2, 2)), reward, terminal=np.array([True, True]))
    assert mdp.num_choices == 0 and mdp.initial.tolist() == [0.5, 0.5]


def test_copies_are_as_immutable_as_the_model():
    transition, _, terminal, _ = tables()
    mdp = no.MDP.from_arrays(transition, np.zeros(S), terminal=terminal, state_names=[f"s{i}" for i in range(S)])
    for other in (mdp, copy.copy(mdp), copy.deepcopy(mdp), pickle.loads(pickle.dumps(mdp)), mdp.replace(discount=1.0)):
        assert other == mdp
        with pytest.raises(ValueError, match="read-only"):
            other.probability[0] = 0.5
