"""Dense and sparse tables → branches."""

from typing import Any

import numpy as np
import scipy.sparse

from nearopt.mdp.errors import EmptyModelError, MissingTransitionError, NoChoiceError, NotBooleanError, ShapeError
from nearopt.mdp.model import MDP
from nearopt.mdp.validate import check_dials, real_array


def mdp_from_arrays(
    transition: Any, reward: Any, initial: Any, discount: float, terminal: Any, available: Any, extras: dict[str, Any]
) -> MDP:
    """See `MDP.from_arrays`."""
    rows, num_states, num_actions = transition_rows(transition)
    _, discount = check_dials(num_actions, discount)
    terminal = mask(terminal, (num_states,), "terminal", np.zeros(num_states, bool))
    counts = np.diff(rows.indptr).reshape(num_states, num_actions)
    marked = mask(available, (num_states, num_actions), "available", counts > 0) & ~terminal[:, None]
    check_choices(marked, counts > 0, terminal)

    keep = np.repeat(marked.reshape(-1), counts.reshape(-1))
    row = np.repeat(np.arange(num_states * num_actions), counts.reshape(-1))[keep]
    next_state = rows.indices[keep]
    state, action = np.nonzero(marked)
    return MDP(
        choice_offset=np.concatenate([[0], np.cumsum(marked.sum(1))]),
        choice_action=action,
        branch_offset=np.concatenate([[0], np.cumsum(counts[state, action])]),
        probability=rows.data[keep],
        next_state=next_state,
        branch_reward=branch_rewards(reward, row, next_state, num_states, num_actions),
        initial=uniform(~terminal) if initial is None else initial,
        num_actions=num_actions,
        discount=discount,
        **extras,
    )


def transition_rows(transition: Any) -> tuple[scipy.sparse.csr_array, int, int]:
    """Non-zero transitions as CSR (S·A, S), with S and A."""
    if scipy.sparse.issparse(transition):
        rows = scipy.sparse.csr_array(transition, copy=True)
        height, width = transition.shape if rows.ndim == 2 else (0, 0)
        if width == 0 or height == 0 or height % width:
            raise ShapeError(f"sparse transition has shape {rows.shape}", "give (S·A, S), row s·A + a")
        rows.data = real_array(rows.data, "transition")
        rows.sum_duplicates()
        rows.eliminate_zeros()
        return rows, width, height // width
    dense = real_array(transition, "transition")
    if dense.ndim != 3 or dense.shape[0] != dense.shape[2]:
        raise ShapeError(f"transition has shape {dense.shape}", "give (S, A, S), or scipy sparse (S·A, S)")
    num_states, num_actions, _ = dense.shape
    if dense.size == 0:
        raise EmptyModelError(f"transition has shape {dense.shape}", "give at least one state and one action")
    return scipy.sparse.csr_array(dense.reshape(num_states * num_actions, num_states)), num_states, num_actions


def mask(value: Any, shape: tuple[int, ...], name: str, default: np.ndarray) -> np.ndarray:
    if value is None:
        return default
    array = np.asarray(value)
    if array.dtype != bool:
        raise NotBooleanError(f"{name} has dtype {array.dtype}", "give a boolean mask")
    if array.shape != shape:
        raise ShapeError(f"{name} has shape {array.shape}", f"give a mask of shape {shape}")
    return array.copy()


def check_choices(marked: np.ndarray, present: np.ndarray, terminal: np.ndarray) -> None:
    """Every state that is not terminal has a choice, and every available choice leads somewhere."""
    if (marked & ~present).any():
        s, a = np.argwhere(marked & ~present)[0]
        raise MissingTransitionError(
            f"state {s}, action {a} is marked available but its transition row is all zeros",
            "give the row, or mark the action unavailable",
        )
    lost = ~marked.any(1) & ~terminal
    if lost.any():
        s = int(np.argmax(lost))
        raise NoChoiceError(
            f"state {s} has no available action and is not terminal", "give it one, or mark it terminal"
        )


def branch_rewards(
    reward: Any, row: np.ndarray, next_state: np.ndarray, num_states: int, num_actions: int
) -> np.ndarray:
    """(B,) the reward of each branch, from (S,), (S, A), (S, A, S) or sparse (S·A, S)."""
    if scipy.sparse.issparse(reward):
        table = scipy.sparse.csr_array(reward, copy=True)
        if table.shape != (num_states * num_actions, num_states):
            raise ShapeError(f"sparse reward has shape {table.shape}", f"give {(num_states * num_actions, num_states)}")
        table.data = real_array(table.data, "reward")
        return table[row, next_state] if len(row) else np.zeros(0)
    dense = real_array(reward, "reward")
    state, action = row // num_actions, row % num_actions
    if dense.shape == (num_states,):
        return dense[state]
    if dense.shape == (num_states, num_actions):
        return dense[state, action]
    if dense.shape == (num_states, num_actions, num_states):
        return dense[state, action, next_state]
    raise ShapeError(
        f"reward has shape {dense.shape} for {num_states} states and {num_actions} actions",
        f"give ({num_states},), ({num_states}, {num_actions}) or ({num_states}, {num_actions}, {num_states})",
    )


def uniform(members: np.ndarray) -> np.ndarray:
    """Equal probabilities over the members, or over everything where there is none."""
    members = members if members.any() else np.ones_like(members)
    return members / members.sum()
