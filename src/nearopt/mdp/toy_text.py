"""Gymnasium's toy-text tables, P[state][action] = [(probability, next state, reward, terminated), ...] → branches."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from gymnasium.envs.toy_text import CliffWalkingEnv, FrozenLakeEnv, TaxiEnv

from nearopt.mdp.errors import (
    HiddenRandomnessError,
    NoInitialStateError,
    NotTabularError,
    TableError,
    UnknownEnvironmentError,
)
from nearopt.mdp.model import MDP
from nearopt.mdp.validate import real_array

ACTION_NAMES = {
    FrozenLakeEnv: ("left", "down", "right", "up"),
    CliffWalkingEnv: ("up", "right", "down", "left"),
    TaxiEnv: ("south", "north", "east", "west", "pickup", "dropoff"),
}
# Wrappers under which a step pays or does something else than the table says. Observations may be wrapped freely.
CHANGES_STEPS = (
    gymnasium.ActionWrapper,
    gymnasium.RewardWrapper,
    gymnasium.wrappers.MaxAndSkipObservation,
    gymnasium.wrappers.NormalizeReward,
    *([gymnasium.wrappers.RepeatAction] if hasattr(gymnasium.wrappers, "RepeatAction") else []),
)
TRIPLE = "give P[state][action] as a list of (probability, next_state, reward, terminated)"


class Table(NamedTuple):
    """The branches of P, in order of state and action."""

    state: np.ndarray
    action: np.ndarray
    probability: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


def mdp_from_gymnasium(env: Any, discount: float) -> MDP:
    """See `MDP.from_gymnasium`. An id is made with `gymnasium.make` and closed again.

    The table ends an episode on a branch, a model in a state: the next state of a terminated branch becomes terminal,
    and what the table lists for it is dropped. Where such a state must stay alive (an episode can also start there, or
    come there from a first state without ending), its terminated branches lead to one more state instead, terminal, at
    the end: all others keep their numbers, and S is one more than the observation space has.

    An action without branches is not available. Positions (column, row) come with FrozenLake and CliffWalking.

    Raises: `UnknownEnvironmentError`, `NotTabularError` (no table), `TableError` (a table that does not fit),
    `HiddenRandomnessError` (steps do more than the table tells: Taxi's fickle passenger, wrappers of actions and
    rewards), `NoInitialStateError`, and what is wrong with the numbers themselves, as for `MDP.from_arrays`.
    """
    if isinstance(env, str):
        env = made = make(env)
        try:
            return mdp_from_gymnasium(env, discount)
        finally:
            made.close()
    task = getattr(env, "unwrapped", env)
    num_states, num_actions = check_environment(env, task)
    table = read_table(task.P, num_states, num_actions)
    initial = first_states(task, num_states)

    acted = reachable(table, initial)  # states that an episode goes on from
    entered = np.zeros(num_states, bool)
    entered[table.next_state[table.terminated & (table.probability > 0)]] = True
    terminal, alive = entered & ~acted, entered & acted
    extra = int(alive.any())
    next_state = np.where(table.terminated & alive[table.next_state], num_states, table.next_state)

    keep = ~terminal[table.state]
    choice, counts = np.unique(table.state[keep] * num_actions + table.action[keep], return_counts=True)
    per_state = np.bincount(choice // num_actions, minlength=num_states + extra)
    return MDP(
        choice_offset=np.concatenate([[0], np.cumsum(per_state)]),
        choice_action=choice % num_actions,
        branch_offset=np.concatenate([[0], np.cumsum(counts)]),
        probability=table.probability[keep],
        next_state=next_state[keep],
        branch_reward=table.reward[keep],
        initial=np.concatenate([initial, np.zeros(extra)]),
        num_actions=num_actions,
        discount=discount,
        action_names=next((names for kind, names in ACTION_NAMES.items() if isinstance(task, kind)), None),
        positions=None if extra else positions(task, num_states),
    )


def make(name: str) -> gymnasium.Env:
    try:
        return gymnasium.make(name)
    except (gymnasium.error.Error, ImportError) as error:
        mend = "give an id from gymnasium.registry, or an environment"
        raise UnknownEnvironmentError(f"cannot make {name!r}: {str(error).rstrip('. ')}", mend) from None


def called(task: Any) -> str:
    spec = getattr(task, "spec", None)
    return getattr(spec, "id", type(task).__name__ if isinstance(task, gymnasium.Env) else repr(task))


def check_environment(env: Any, task: Any) -> tuple[int, int]:
    """The numbers of states and actions; errors where there is no table, or one that does not tell everything."""
    if not isinstance(getattr(task, "P", None), Mapping | list | tuple):
        raise NotTabularError(
            f"{called(task)} has no transition table P", "use a toy-text environment (FrozenLake, CliffWalking, Taxi)"
        )
    for name in ("observation_space", "action_space"):
        space = getattr(task, name, None)
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise TableError(f"the {name} is {space}", "a table needs Discrete spaces")
        if space.start != 0:
            raise TableError(f"the {name} {space} starts at {space.start}", "number states and actions from 0")
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, CHANGES_STEPS):
            raise HiddenRandomnessError(
                f"the wrapper {type(env).__name__} changes actions or rewards, and P does not tell",
                "pass env.unwrapped for the task without it",
            )
        env = env.env
    if getattr(task, "fickle_passenger", False) and getattr(task, "fickle_probability", 1) > 0:
        raise HiddenRandomnessError(
            f"fickle_passenger={task.fickle_passenger}: the passenger changes destination in step, and P does not tell",
            "make the environment with fickle_passenger=False",
        )
    return int(task.observation_space.n), int(task.action_space.n)


def read_table(table: Any, num_states: int, num_actions: int) -> Table:
    state, action, branches = [], [], []
    for s in range(num_states):
        for a, outcome in entries(entry(table, s, num_states), num_actions, f"P[{s}]"):
            if not isinstance(outcome, Iterable):
                raise TableError(f"P[{s}][{a}] is {outcome!r}", TRIPLE)
            for branch in outcome:
                if not isinstance(branch, list | tuple) or len(branch) != 4:
                    raise TableError(f"P[{s}][{a}] lists {branch!r}", TRIPLE)
                p, target, reward, terminated = branch
                try:
                    branches.append((0.0 + p, int(target), 0.0 + reward, bool(terminated)))  # 0.0 + "0.5" fails
                except (TypeError, ValueError):
                    raise TableError(f"P[{s}][{a}] lists {branch!r}, not numbers", TRIPLE) from None
                if not 0 <= branches[-1][1] < num_states or branches[-1][1] != target:
                    raise TableError(
                        f"P[{s}][{a}] leads to {target}, not among the states 0 .. {num_states - 1}",
                        "make P and the observation space agree",
                    )
                state.append(s)
                action.append(a)
    columns = zip(*branches, strict=True) if branches else [()] * 4
    kinds = (float, np.int64, float, bool)
    values = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return Table(np.array(state, np.int64), np.array(action, np.int64), *values)


def entry(table: Any, state: int, num_states: int) -> Any:
    if len(table) != num_states:
        raise TableError(
            f"P has {len(table)} states, the observation space {num_states}", "make P and the observation space agree"
        )
    try:
        return table[state]
    except KeyError:
        raise TableError(f"P has no state {state}", "make P and the observation space agree") from None


def entries(row: Any, num_actions: int, where: str) -> list[tuple[int, Any]]:
    """(action, outcomes) of one state, by action."""
    if not isinstance(row, Mapping | list | tuple):
        raise TableError(f"{where} is {row!r}", TRIPLE)
    items = row.items() if isinstance(row, Mapping) else enumerate(row)
    outcomes = {int(a): outcome for a, outcome in items if isinstance(a, int | np.integer)}
    if len(outcomes) != len(row) or not all(0 <= a < num_actions for a in outcomes):
        actions = list(row) if isinstance(row, Mapping) else len(row)
        raise TableError(
            f"{where} has actions {actions}, not all among 0 .. {num_actions - 1}", "make P and the action space agree"
        )
    return sorted(outcomes.items(), key=lambda item: item[0])


def first_states(task: Any, num_states: int) -> np.ndarray:
    initial = getattr(task, "initial_state_distrib", None)
    if initial is not None:
        initial = real_array(initial, "initial_state_distrib")
        if initial.shape != (num_states,):
            raise TableError(
                f"initial_state_distrib has shape {initial.shape}", f"give one probability per state, ({num_states},)"
            )
        return initial
    index = getattr(task, "start_state_index", None)
    if index is None:
        raise NoInitialStateError(
            f"{called(task)} does not tell where episodes start",
            "set initial_state_distrib (one probability per state) or start_state_index on it",
        )
    if not isinstance(index, int | np.integer) or not 0 <= index < num_states:
        raise TableError(f"start_state_index is {index!r}", f"give a state from 0 to {num_states - 1}")
    return (np.arange(num_states) == index).astype(float)


def reachable(table: Table, initial: np.ndarray) -> np.ndarray:
    """(S,) bool: the states that are entered without ending, from a source beside the table that enters the first."""
    source, goes_on = len(initial), ~table.terminated & (table.probability > 0)
    first = np.flatnonzero(initial > 0)
    rows = np.concatenate([table.state[goes_on], np.full(len(first), source)])
    columns = np.concatenate([table.next_state[goes_on], first])
    graph = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(source + 1, source + 1))
    found = scipy.sparse.csgraph.breadth_first_order(graph, source, return_predecessors=False)
    out = np.zeros(source + 1, bool)
    out[found] = True
    return out[:source]


def positions(task: Any, num_states: int) -> np.ndarray | None:
    """(S, 2) column and row, for environments whose states are known to be the cells of a drawing in reading order."""
    if isinstance(task, FrozenLakeEnv):
        shape = np.shape(task.desc)
    elif isinstance(task, CliffWalkingEnv):
        shape = tuple(task.shape)
    else:
        return None
    if len(shape) != 2 or shape[0] * shape[1] != num_states:
        return None
    return np.stack([np.tile(np.arange(shape[1]), shape[0]), np.repeat(np.arange(shape[0]), shape[1])], 1).astype(float)
