"""Every model passes through here, whoever built it: checked, then brought to the canonical order."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    ActionRangeError,
    DiscountError,
    DuplicateNameError,
    EmptyModelError,
    InfiniteRewardError,
    InitialError,
    NameCountError,
    NaNError,
    NegativeProbabilityError,
    NotNumericError,
    PositionError,
    RowSumError,
    ShapeError,
    StateRangeError,
    StructureError,
    UnhashableNameError,
)

SUM_TOLERANCE = 1e-6  # how far a row of probabilities may be from one: float32 rounding passes, a mistake does not
SUM_EXACT = 1e-12  # rows nearer than this are kept as they are, so that saving and loading changes no bit


def real_array(value: Any, name: str, dtype: Any = np.float64) -> np.ndarray:
    """`value` as a fresh array of float64 (or of whole numbers); `NotNumericError` otherwise."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise NotNumericError(f"{name} is not a rectangular array ({error})", "give rows of equal length") from None
    whole = np.issubdtype(dtype, np.integer)
    if array.dtype.kind not in ("biu" if whole else "biuf"):
        kind = "whole numbers" if whole else "real numbers"
        raise NotNumericError(f"{name} has dtype {array.dtype}, not {kind}", f"give an array of {kind}")
    return np.array(array, dtype)


def check_structure(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of an `MDP`, each checked and the branches in canonical order."""
    out = dict(raw)
    out["num_actions"], out["discount"] = check_dials(raw["num_actions"], raw["discount"])
    for name in ("choice_offset", "choice_action", "branch_offset", "next_state"):
        out[name] = real_array(raw[name], name, np.int64)
    for name in ("probability", "branch_reward", "initial"):
        out[name] = real_array(raw[name], name)
    for name in ("choice_offset", "choice_action", "branch_offset"):
        if out[name].ndim != 1:
            raise ShapeError(f"{name} has shape {out[name].shape}", "give one dimension")
    num_states = len(out["choice_offset"]) - 1
    if num_states < 1:
        raise EmptyModelError("the model has no states", "give at least one state")
    check_offsets(out["choice_offset"], len(out["choice_action"]), "choice_offset", full=False)
    check_offsets(out["branch_offset"], len(out["probability"]), "branch_offset", full=True)
    if len(out["branch_offset"]) != len(out["choice_action"]) + 1:
        raise StructureError("branch_offset and choice_action disagree on the number of choices", "rebuild the model")
    for name in ("next_state", "branch_reward"):
        if out[name].shape != out["probability"].shape:
            raise ShapeError(
                f"{name} has shape {out[name].shape}, probability {out['probability'].shape}", "match them"
            )
    check_branches(out, num_states)
    out.update(canonical(out))
    out["initial"] = check_initial(out["initial"], num_states)
    out["state_names"] = check_names(raw["state_names"], num_states, "state")
    out["action_names"] = check_names(raw["action_names"], out["num_actions"], "action")
    out["positions"] = check_positions(raw["positions"], num_states)
    return out


def check_dials(num_actions: Any, discount: Any) -> tuple[int, float]:
    if not isinstance(num_actions, int | np.integer) or num_actions < 1:
        raise EmptyModelError(f"the model has {num_actions} actions", "give at least one action")
    try:
        discount = float(discount)
    except (TypeError, ValueError):
        raise DiscountError(f"the discount is {discount!r}", "give a number from 0 to 1") from None
    if not 0.0 <= discount <= 1.0:
        raise DiscountError(f"the discount is {discount:g}", "give a number from 0 to 1")
    return int(num_actions), discount


def check_offsets(offset: np.ndarray, length: int, name: str, full: bool) -> None:
    bad = offset.ndim != 1 or len(offset) < 1 or offset[0] != 0 or offset[-1] != length
    if bad or (offset[1:] < offset[:-1]).any() or (full and (offset[1:] == offset[:-1]).any()):
        raise StructureError(f"{name} does not rise from 0 to {length}", "rebuild the model from its tables")


def check_branches(out: dict[str, Any], num_states: int) -> None:
    """Ranges and numbers of choices and branches; the message names state and action."""
    action, choice_offset, branch_offset = out["choice_action"], out["choice_offset"], out["branch_offset"]

    def where_choice(c: int) -> str:
        return f"state {int(np.searchsorted(choice_offset, c, 'right') - 1)}, action {int(action[c])}"

    def where(b: int) -> str:
        return where_choice(int(np.searchsorted(branch_offset, b, "right") - 1))

    def first(mask: np.ndarray) -> int | None:
        return int(np.argmax(mask)) if mask.any() else None

    if (c := first((action < 0) | (action >= out["num_actions"]))) is not None:
        raise ActionRangeError(
            f"action {action[c]} is not among 0 .. {out['num_actions'] - 1}", "number actions from 0"
        )
    p, r, s = out["probability"], out["branch_reward"], out["next_state"]
    if (b := first(np.isnan(p))) is not None:
        raise NaNError(f"{where(b)}: a transition probability is NaN", "replace it by a number")
    if (b := first(np.isnan(r))) is not None:
        raise NaNError(f"{where(b)}: the reward is NaN", "replace it by a number, or by -inf to forbid")
    if (b := first(p < 0)) is not None:
        raise NegativeProbabilityError(f"{where(b)}: the probability {p[b]:g} is negative", "give numbers from 0 to 1")
    if (b := first((s < 0) | (s >= num_states))) is not None:
        raise StateRangeError(
            f"{where(b)}: next state {s[b]} is not among 0 .. {num_states - 1}", "number states from 0"
        )
    if (b := first((r == np.inf) & (p > 0))) is not None:
        raise InfiniteRewardError(f"{where(b)}: the reward is +inf", "give a finite reward, or -inf to forbid")
    sums = np.add.reduceat(p, branch_offset[:-1]) if len(p) else np.zeros(0)
    if (c := first(np.abs(sums - 1) > SUM_TOLERANCE)) is not None:
        raise RowSumError(f"{where_choice(c)}: the probabilities sum to {sums[c]:.9g}", "divide the row by its sum")


def canonical(out: dict[str, Any]) -> dict[str, np.ndarray]:
    """Choices by action, branches by next state and reward; duplicates merged, zeros dropped, rows normalised."""
    choice_offset, branch_offset, action = out["choice_offset"], out["branch_offset"], out["choice_action"]
    p, s, r = out["probability"], out["next_state"], out["branch_reward"]
    num_choices = len(action)
    state = np.repeat(np.arange(len(choice_offset) - 1), np.diff(choice_offset))
    key = state * out["num_actions"] + action
    if (np.diff(key) <= 0).any():
        order = np.argsort(key, kind="stable")
        if (np.diff(key[order]) == 0).any():
            c = int(order[np.argmax(np.diff(key[order]) == 0)])
            raise StructureError(f"state {state[c]} lists action {action[c]} twice", "list each action once per state")
        rank = np.empty(num_choices, np.int64)
        rank[order] = np.arange(num_choices)
        action = action[order]
    else:
        rank = np.arange(num_choices)
    choice = np.repeat(rank, np.diff(branch_offset))
    keep = p > 0
    choice, p, s, r = choice[keep], p[keep], s[keep], r[keep]

    def apart() -> np.ndarray:  # True where a branch differs from the one before it
        return (
            (np.diff(choice) != 0) | (np.diff(s) != 0) | (np.diff(r) != 0) & ~((r[1:] == -np.inf) & (r[:-1] == -np.inf))
        )

    ordered = (np.diff(choice) > 0) | (np.diff(choice) == 0) & (np.diff(s) > 0)
    if not ordered.all():
        order = np.lexsort((r, s, choice))
        choice, p, s, r = choice[order], p[order], s[order], r[order]
        with np.errstate(invalid="ignore"):  # -inf − -inf
            starts = np.flatnonzero(np.concatenate([[True], apart()]))
        p, choice, s, r = np.add.reduceat(p, starts), choice[starts], s[starts], r[starts]
    counts = np.bincount(choice, minlength=num_choices)
    offset = np.concatenate([[0], np.cumsum(counts)])
    if len(p):
        sums = np.add.reduceat(p, offset[:-1])
        off = np.abs(sums - 1) > SUM_EXACT
        if off.any():
            p = np.where(off[choice], p / sums[choice], p)
    index = np.int32 if len(choice_offset) <= 2**31 else np.int64
    return dict(
        choice_action=action.astype(np.int32),
        branch_offset=offset,
        probability=p,
        next_state=s.astype(index),
        branch_reward=r,
    )


def check_initial(initial: np.ndarray, num_states: int) -> np.ndarray:
    if initial.shape != (num_states,):
        raise ShapeError(f"initial has shape {initial.shape}", f"give one probability per state, ({num_states},)")
    if np.isnan(initial).any():
        raise NaNError(f"initial[{int(np.argmax(np.isnan(initial)))}] is NaN", "replace it by a probability")
    if (initial < 0).any():
        s = int(np.argmax(initial < 0))
        raise InitialError(f"initial[{s}] is {initial[s]:g}", "give probabilities from 0 to 1")
    total = initial.sum()
    if not abs(total - 1) <= SUM_TOLERANCE:
        raise InitialError(f"initial sums to {total:.9g}", "divide it by its sum")
    return initial if abs(total - 1) <= SUM_EXACT else initial / total


def check_names(names: Sequence[Hashable] | None, count: int, kind: str) -> tuple[Hashable, ...] | None:
    if names is None:
        return None
    if not isinstance(names, Iterable):
        raise NameCountError(f"the {kind} names are {names!r}", f"give a list with one name per {kind}")
    names = tuple(n.item() if isinstance(n, np.generic) else n for n in names)
    if len(names) != count:
        raise NameCountError(f"{len(names)} {kind} names for {count} {kind}s", f"give one name per {kind}")
    seen: set[Hashable] = set()
    for name in names:
        try:
            known = name in seen
        except TypeError:
            raise UnhashableNameError(f"the {kind} name {name!r} is not hashable", "use text or numbers") from None
        if known:
            raise DuplicateNameError(f"two {kind}s are named {name!r}", f"give every {kind} its own name")
        seen.add(name)
    return names


def check_positions(positions: Any, num_states: int) -> np.ndarray | None:
    if positions is None:
        return None
    positions = real_array(positions, "positions")
    if positions.shape != (num_states, 2):
        raise PositionError(f"positions has shape {positions.shape}", f"give x and y per state, ({num_states}, 2)")
    if not np.isfinite(positions).all():
        s = int(np.argmax(~np.isfinite(positions).all(1)))
        raise PositionError(f"the position of state {s} is {positions[s].tolist()}", "give finite coordinates")
    return positions
