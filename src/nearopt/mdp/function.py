"""A step function, explored breadth first → branches."""

from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    BranchError,
    DuplicateNameError,
    InfiniteRewardError,
    InitialError,
    NaNError,
    NegativeProbabilityError,
    NoChoiceError,
    NoInitialStateError,
    RowSumError,
    TooManyStatesError,
    UnhashableNameError,
    UnhashableStateError,
)
from nearopt.mdp.model import MDP
from nearopt.mdp.validate import SUM_TOLERANCE, check_dials

Choices = list[tuple[int, Any]]  # action number and the user's action


def mdp_from_function(
    step: Callable[[Any, Any], Iterable[tuple[float, Any, float]]],
    initial: Any,
    actions: Any,
    discount: float,
    max_states: int,
) -> MDP:
    """See `MDP.from_function`.

    A mapping given as `initial` is always read as {state: probability}. Branches and first states of probability zero
    are not followed. Actions keep the order of the list, or of first appearance when `actions` is a function; where
    they are exactly the numbers 0 .. A-1, each is its own number and there are no action names.

    Raises: `NoInitialStateError`, `InitialError`, `UnhashableStateError`, `UnhashableNameError`,
    `DuplicateNameError`, `NoChoiceError`, `BranchError`, `NaNError`, `NegativeProbabilityError`, `RowSumError`,
    `InfiniteRewardError`, `TooManyStatesError`, `DiscountError`. Errors raised inside `step` pass through untouched.
    """
    _, discount = check_dials(1, discount)
    first = first_states(initial)
    action_number: dict[Any, int] = {}
    choose: Callable[..., Callable[[Any], Choices]] = choose_by_function if callable(actions) else choose_all
    choices_of = choose(actions, action_number)
    states, arrays = explore(step, choices_of, list(first), max_states)
    check_rewards(arrays, states, list(action_number))

    names: list[Any] | None = list(action_number)
    if all(isinstance(a, int | np.integer) and not isinstance(a, bool) for a in names):
        if sorted(names) == list(range(len(names))):
            # found as 1, 0: an action 1 that is called 0 would surprise
            arrays["choice_action"] = np.array([int(a) for a in names], np.int64)[arrays["choice_action"]]
            names = None
    probabilities = np.zeros(len(states))
    probabilities[: len(first)] = list(first.values())
    return MDP(
        **arrays,
        initial=probabilities,
        num_actions=max(1, len(action_number)),  # all states terminal: one action that no state offers
        discount=discount,
        state_names=tuple(states),
        action_names=None if names is None else tuple(names),
    )


def first_states(initial: Any) -> dict[Any, float]:
    """{state: probability}, each above zero."""
    if initial is None or isinstance(initial, Mapping) and not initial:
        raise NoInitialStateError(f"initial is {initial!r}", "give a state, or {state: probability}")
    if not isinstance(initial, Mapping):
        try:
            return {initial: 1.0}
        except TypeError:
            raise UnhashableStateError(f"the initial state {show(initial)} is not hashable", HASHABLE) from None
    for state, p in initial.items():
        if not is_number(p):
            raise InitialError(f"the initial probability of state {show(state)} is {p!r}", "give a number from 0 to 1")
        if not p >= 0:
            raise InitialError(f"the initial probability of state {show(state)} is {p}", "give a number from 0 to 1")
    total = float(sum(map(float, initial.values())))
    if not abs(total - 1) <= SUM_TOLERANCE:
        raise InitialError(
            f"the initial probabilities of {show(list(initial))} sum to {total:.9g}",
            "divide them by their sum; a dict is read as {state: probability}",
        )
    return {state: float(p) for state, p in initial.items() if p > 0}


def choose_all(actions: Any, number: dict[Any, int]) -> Callable[[Any], Choices]:
    """Every state offers the whole list; fills `number`."""
    if not isinstance(actions, Iterable) or isinstance(actions, str | Mapping):
        raise NoChoiceError(f"actions is {show(actions)}", "give a list, such as range(4), or a function of the state")
    actions = list(actions)
    if not actions:
        raise NoChoiceError("actions is an empty list", "give at least one action, or a function of the state")
    for action in actions:
        if number_of(action, number, "the list of actions") != len(number) - 1:
            raise DuplicateNameError(f"action {show(action)} is listed twice", "list each action once")
    choices = list(zip(range(len(actions)), actions, strict=True))
    return lambda state: choices


def choose_by_function(actions: Callable[[Any], Any], number: dict[Any, int]) -> Callable[[Any], Choices]:
    """What `actions(state)` returns; fills `number` as actions appear."""

    def choices(state: Any) -> Choices:
        offered = actions(state)
        if not isinstance(offered, Iterable) or isinstance(offered, str | Mapping):
            mend = "return a list; an empty one makes the state terminal"
            raise NoChoiceError(f"actions({show(state)}) returned {show(offered)}", mend)
        offered = list(offered)
        numbers = [number_of(action, number, f"state {show(state)}") for action in offered]
        if len(set(numbers)) < len(numbers):
            twice = next(a for a, n in zip(offered, numbers, strict=True) if numbers.count(n) > 1)
            raise DuplicateNameError(f"state {show(state)} offers action {show(twice)} twice", "list each action once")
        return list(zip(numbers, offered, strict=True))

    return choices


def number_of(action: Any, number: dict[Any, int], where: str) -> int:
    try:
        return number.setdefault(action, len(number))
    except TypeError:
        raise UnhashableNameError(f"{where}: action {show(action)} is not hashable", HASHABLE) from None


def explore(
    step: Callable[[Any, Any], Iterable[tuple[float, Any, float]]],
    choices_of: Callable[[Any], Choices],
    states: list[Any],
    max_states: int,
) -> tuple[list[Any], dict[str, np.ndarray]]:
    """All states that can be reached, in the order found, and the arrays of choices and branches.

    `array` and not `list`: it takes whatever is a number, refuses what is not, and needs 8 bytes for each.
    """
    probability, next_state, reward = array("d"), array("q"), array("d")
    choice_action, choice_offset, branch_offset = array("q"), array("q", [0]), array("q", [0])
    number = {state: i for i, state in enumerate(states)}
    for state in states:  # grows while it is walked: breadth first
        for action_number, action in choices_of(state):
            outcome = step(state, action)
            if not isinstance(outcome, list | tuple):
                outcome = listed(outcome, state, action)
            before = len(probability)
            try:
                for p, target, r in outcome:
                    if p > 0:
                        found = number.setdefault(target, len(states))
                        if found == len(states):
                            states.append(target)
                        probability.append(p)
                        next_state.append(found)
                        reward.append(r)
                    elif p != 0:
                        raise fault(state, action, outcome)
            except (TypeError, ValueError, OverflowError) as error:
                raise fault(state, action, outcome, error) from None
            if not abs(sum(probability[before:]) - 1) <= SUM_TOLERANCE:
                raise fault(state, action, outcome)
            if len(states) > max_states:
                raise TooManyStatesError(
                    f"more than {max_states:,} states; the latest is {show(states[-1])}, reached from state "
                    f"{show(state)}, action {show(action)}",
                    "raise max_states, or make the states coarser",
                )
            choice_action.append(action_number)
            branch_offset.append(len(probability))
        choice_offset.append(len(choice_action))
    raw = dict(choice_offset=choice_offset, choice_action=choice_action, branch_offset=branch_offset)
    raw |= dict(probability=probability, next_state=next_state, branch_reward=reward)
    return states, {name: np.array(values, values.typecode) for name, values in raw.items()}


def listed(outcome: Any, state: Any, action: Any) -> list[Any]:
    """Generators and other iterables as a list; an error raised inside a generator is the user's own."""
    if not isinstance(outcome, Iterable):
        where = f"state {show(state)}, action {show(action)}"
        raise BranchError(f"{where}: step returned {show(outcome)}", TRIPLES)
    return list(outcome)


def fault(state: Any, action: Any, outcome: Any, error: Exception | None = None) -> Exception:
    """What is wrong with one outcome of `step`; where nothing is, the `error` that was met there."""
    where = f"state {show(state)}, action {show(action)}"
    if not outcome:
        return BranchError(f"{where}: step returned {show(outcome)}, no branch", NO_BRANCH)
    total = 0.0
    for branch in outcome:
        triple = list(branch) if isinstance(branch, Iterable) and not isinstance(branch, str) else []
        if len(triple) != 3:
            return BranchError(f"{where}: {show(branch)} is not a triple", TRIPLES)
        p, target, r = triple
        if not is_number(p):
            return BranchError(f"{where}: the probability {show(p)} is not a number", TRIPLES)
        if not is_number(r):
            return BranchError(f"{where}: the reward {show(r)} is not a number", TRIPLES)
        if p != p:
            return NaNError(f"{where}: the probability of next state {show(target)} is {p}", "replace it by a number")
        if p < 0:
            return NegativeProbabilityError(
                f"{where}: the probability {p} of next state {show(target)} is negative", "give numbers from 0 to 1"
            )
        try:
            hash(target)
        except TypeError:
            return UnhashableStateError(f"{where}: next state {show(target)} is not hashable", HASHABLE)
        total += float(p)
    if not abs(total - 1) <= SUM_TOLERANCE:
        return RowSumError(f"{where}: the probabilities sum to {total:.9g}", "divide them by their sum")
    return error or BranchError(f"{where}: step returned {show(outcome)}", TRIPLES)


def check_rewards(arrays: dict[str, np.ndarray], states: list[Any], actions: list[Any]) -> None:
    """NaN and +inf, named by the user's own states and actions."""
    reward = arrays["branch_reward"]
    bad = np.isnan(reward) | (reward == np.inf)
    if not bad.any():
        return
    b = int(np.argmax(bad))
    c = int(np.searchsorted(arrays["branch_offset"], b, "right") - 1)
    s = int(np.searchsorted(arrays["choice_offset"], c, "right") - 1)
    where = f"state {show(states[s])}, action {show(actions[arrays['choice_action'][c]])}"
    if np.isnan(reward[b]):
        raise NaNError(f"{where}: the reward is NaN", "replace it by a number, or by -inf to forbid")
    raise InfiniteRewardError(f"{where}: the reward is +inf", "give a finite reward, or -inf to forbid")


def is_number(value: Any) -> bool:
    """Whether the arrays of `explore` take it: floats, integers, fractions, NumPy scalars; no strings."""
    try:
        array("d", [value])
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def show(value: Any) -> str:
    """The user's own value, cut where it would fill the screen."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}…{text[-19:]}"


HASHABLE = "use a hashable value, such as a tuple or a frozen dataclass"
TRIPLES = "return a list of (probability, next_state, reward)"
NO_BRANCH = f"{TRIPLES}; where an action is not available, let actions(state) leave it out"
