"""The model: states → available choices → branches (probability, next state, reward).

Two row pointers hold the tree, as in a compressed sparse row matrix with one more level:

    choices of state s     choice_offset[s]  .. choice_offset[s+1]      choice_action[c]  its action number
    branches of choice c   branch_offset[c]  .. branch_offset[c+1]      probability, next_state, branch_reward

A terminal state is a state without choices. An action that is not available is simply not listed. The order is
canonical (choices by action, branches by next state, then reward; equal branches merged, none of probability zero),
so two models are the same exactly when their arrays are.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from nearopt.mdp.errors import AmbiguousRewardError, DenseTooLargeError
from nearopt.mdp.validate import check_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    import gymnasium

    from nearopt.mdp.blocks import Blocks, Layout

DENSE_LIMIT = 2**28  # entries (2 GiB of float64) above which a dense (S, A, S) table is refused


@dataclass(frozen=True, eq=False)
class MDP:
    """A Markov decision process, sparse and immutable.

    Build one with `from_arrays`, `from_function`, `from_grid`, `from_gymnasium` or `nearopt.load`; the constructor
    itself takes the raw arrays, checks them and brings them to the canonical order.

    Shapes: S states, A actions, C choices (available state-action pairs), B branches.

    Raises: a `NearoptError` of its own type for every way in which the arrays are not a model (`mdp/errors.py`).

    >>> import numpy as np, nearopt as no
    >>> mdp = no.MDP.from_arrays(transition=np.array([[[0.5, 0.5]], [[0.0, 0.0]]]), reward=np.array([-1.0, 0.0]),
    ...                          terminal=np.array([False, True]))
    >>> mdp
    MDP(2 states, 1 action, 1 choice, 2 branches, 1 terminal, discount 1)
    """

    choice_offset: np.ndarray
    choice_action: np.ndarray
    branch_offset: np.ndarray
    probability: np.ndarray
    next_state: np.ndarray
    branch_reward: np.ndarray
    initial: np.ndarray
    num_actions: int
    discount: float = 1.0
    state_names: tuple[Hashable, ...] | None = None
    action_names: tuple[Hashable, ...] | None = None
    positions: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, value in check_structure({f.name: getattr(self, f.name) for f in fields(self)}).items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    # ------------------------------------------------------------ builders
    @staticmethod
    def from_arrays(
        transition: Any,
        reward: Any,
        *,
        initial: Any = None,
        discount: float = 1.0,
        terminal: Any = None,
        available: Any = None,
        state_names: Sequence[Hashable] | None = None,
        action_names: Sequence[Hashable] | None = None,
        positions: Any = None,
    ) -> "MDP":
        """A model from tables, dense or sparse.

        transition: (S, A, S) array, or scipy sparse (S·A, S) with row s·A + a; a row of zeros is an action that is
        not available. reward: (S,), (S, A) or (S, A, S), or scipy sparse of the transition's shape; −inf forbids.
        initial: (S,), uniform over the non-terminal states by default. terminal (S,) and available (S, A): bool;
        rows of terminal states and of unavailable actions do not count. Row sums within 1e-6 of one are accepted and
        normalised. positions: (S, 2), x and y, for pictures.
        """
        from nearopt.mdp.arrays import mdp_from_arrays

        extras = dict(state_names=state_names, action_names=action_names, positions=positions)
        return mdp_from_arrays(transition, reward, initial, discount, terminal, available, extras)

    @staticmethod
    def from_function(
        step: "Callable[[Any, Any], Sequence[tuple[float, Any, float]]]",
        initial: "Hashable | Mapping[Any, float]",
        actions: "Sequence[Hashable] | Callable[[Any], Sequence[Hashable]]",
        *,
        discount: float = 1.0,
        max_states: int = 10_000_000,
    ) -> "MDP":
        """A model explored from its initial states: `step(state, action) -> [(probability, next_state, reward), ...]`.

        initial: a state, or {state: probability}. actions: a list, or `actions(state) -> list`; a state without
        actions is terminal. States are any hashable values and become `state_names`, numbered as they are found,
        breadth first. `max_states` stops an exploration that does not end.
        """
        from nearopt.mdp.function import mdp_from_function

        return mdp_from_function(step, initial, actions, discount, max_states)

    @staticmethod
    def from_grid(
        text: str,
        *,
        slip: float = 0.0,
        step_reward: float = -1.0,
        goal_reward: float = 0.0,
        discount: float = 1.0,
    ) -> "MDP":
        """A maze drawn in text: '#' wall, 'S' start (one or more, uniform), 'G' goal (terminal), ' ' or '.' free.

        Actions are up, right, down, left; a bump stays. With probability `slip` the move turns to one of the two
        sides, equally. `goal_reward` is added on arrival. positions: column and row of each cell.
        """
        from nearopt.mdp.grid import mdp_from_grid

        return mdp_from_grid(text, slip, step_reward, goal_reward, discount)

    @staticmethod
    def from_gymnasium(env: "gymnasium.Env | str", *, discount: float = 1.0) -> "MDP":
        """A model from a Gymnasium toy-text table, `env.unwrapped.P`; state and action numbers are kept.

        Branches that terminate lead to terminal states; rewards stay on the branch. A time limit of the environment
        is not part of the table: the horizon is yours to choose.
        """
        from nearopt.mdp.toy_text import mdp_from_gymnasium

        return mdp_from_gymnasium(env, discount)

    # ------------------------------------------------------------ out
    def to_gymnasium(self, *, one_hot: bool = False) -> "gymnasium.Env":
        """The model as a Gymnasium environment that observes the state number (or its one-hot vector).

        `info["action_mask"]` tells the available actions. An unavailable action is replaced by an available one drawn
        uniformly, which never pays better than choosing well, and `info["action_taken"]` says which. The discount is
        left to the agent.
        """
        from nearopt.mdp.environment import make_environment

        return make_environment(self, one_hot)

    def save(self, path: "str | PathLike[str]") -> None:
        """Writes `.mdp` (everything), `.drn` (Storm) or `.umb`, whole or not at all.

        Raises `LossySaveError` where the format cannot hold part of the model, and says which part.
        """
        from nearopt.mdp.files import save

        save(self, path)

    def replace(self, **changes: Any) -> "MDP":
        """The same model with some fields changed, checked again: `mdp.replace(discount=0.9)`."""
        return replace(self, **changes)

    def __deepcopy__(self, memo: dict[int, Any]) -> "MDP":
        return self  # immutable; NumPy's own deep copies would be writeable, and Gymnasium copies its specs often

    def __reduce__(self) -> tuple[Any, ...]:
        return MDP, tuple(getattr(self, f.name) for f in fields(self))  # checked again; NumPy forgets read-only

    # ------------------------------------------------------------ what follows from the arrays
    @property
    def num_states(self) -> int:
        return len(self.choice_offset) - 1

    @property
    def num_choices(self) -> int:
        return len(self.choice_action)

    @property
    def num_branches(self) -> int:
        return len(self.probability)

    @cached_property
    def terminal(self) -> np.ndarray:
        """(S,) bool: states without choices."""
        return np.diff(self.choice_offset) == 0

    @cached_property
    def choice_state(self) -> np.ndarray:
        """(C,) the state each choice belongs to."""
        return np.repeat(np.arange(self.num_states), np.diff(self.choice_offset))

    @cached_property
    def branch_choice(self) -> np.ndarray:
        """(B,) the choice each branch belongs to."""
        return np.repeat(np.arange(self.num_choices), np.diff(self.branch_offset))

    @cached_property
    def branch_group(self) -> np.ndarray:
        """(G,) the first branch of every (state, action, next state): branches that differ in reward only are one."""
        new = (np.diff(self.branch_choice) != 0) | (np.diff(self.next_state) != 0)
        return np.flatnonzero(np.concatenate([np.ones(min(self.num_branches, 1), bool), new]))

    @property
    def available(self) -> np.ndarray:
        """(S, A) bool."""
        out = np.zeros((self.num_states, self.num_actions), bool)
        out[self.choice_state, self.choice_action] = True
        return out

    @property
    def transition(self) -> scipy.sparse.csr_array:
        """p(s'|s,a) as scipy sparse (S·A, S), row s·A + a; rows of unavailable actions are empty."""
        return self.branch_table(self.probability)

    def branch_table(self, values: np.ndarray) -> scipy.sparse.csr_array:
        """Values per branch as scipy sparse (S·A, S); branches to the same next state are added."""
        rows = self.choice_state * self.num_actions + self.choice_action
        indptr = np.zeros(self.num_states * self.num_actions + 1, np.int64)
        indptr[rows + 1] = np.diff(self.branch_offset)
        shape = (self.num_states * self.num_actions, self.num_states)
        table = scipy.sparse.csr_array((values.copy(), self.next_state.copy(), np.cumsum(indptr)), shape=shape)
        table.sum_duplicates()
        return table

    @cached_property
    def choice_reward(self) -> np.ndarray | None:
        """(C,) the reward of each choice, or None where the reward depends on the next state."""
        first = self.branch_reward[self.branch_offset[:-1]]
        return first if np.array_equal(first[self.branch_choice], self.branch_reward) else None

    @property
    def reward(self) -> np.ndarray:
        """r(s,a) as (S, A), or r(s,a,s') as (S, A, S) where it depends on the next state; 0 where nothing happens.

        Raises `DenseTooLargeError` where a dense (S, A, S) would not fit (`branch_reward` always does), and
        `AmbiguousRewardError` where one transition carries two rewards.
        """
        if self.choice_reward is not None:
            out = np.zeros((self.num_states, self.num_actions))
            out[self.choice_state, self.choice_action] = self.choice_reward
            return out
        shape = (self.num_states, self.num_actions, self.num_states)
        if np.prod(shape, dtype=float) > DENSE_LIMIT:
            raise DenseTooLargeError(f"rewards of shape {shape} are too large for one array", "use mdp.branch_reward")
        same = (np.diff(self.branch_choice) == 0) & (np.diff(self.next_state) == 0)
        if same.any():
            b = int(np.argmax(same))
            c = self.branch_choice[b]
            where = self.describe(int(self.choice_state[c]), int(self.choice_action[c]))
            raise AmbiguousRewardError(
                f"{where} reaches state {self.next_state[b]} with "
                f"two rewards, {self.branch_reward[b]:g} and {self.branch_reward[b + 1]:g}",
                "use mdp.branch_reward, which has one reward per branch",
            )
        out = np.zeros(shape)
        c = self.branch_choice
        out[self.choice_state[c], self.choice_action[c], self.next_state] = self.branch_reward
        return out

    @cached_property
    def layout(self) -> "Layout":
        """The model as rectangular JAX arrays, the form that `backup.py` computes on."""
        from nearopt.mdp.blocks import build_layout

        return build_layout(self)

    @property
    def blocks(self) -> "Blocks":
        """The arrays of `layout`."""
        return self.layout.blocks

    def describe(self, state: int, action: int | None = None) -> str:
        """'state 3 ("hall")' or 'state 3 ("hall"), action 1 ("left")', for messages."""

        def one(kind: str, number: int, names: tuple[Hashable, ...] | None) -> str:
            return f"{kind} {number}" if names is None else f"{kind} {number} ({names[number]!r})"

        text = one("state", int(state), self.state_names)
        return text if action is None else f"{text}, {one('action', int(action), self.action_names)}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MDP):
            return NotImplemented

        def same(a: Any, b: Any) -> bool:
            return np.array_equal(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else a == b

        return all(same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        def count(n: int, word: str, plural: str) -> str:
            return f"{n:,} {word if n == 1 else plural}"

        parts = [
            count(self.num_states, "state", "states"),
            count(self.num_actions, "action", "actions"),
            count(self.num_choices, "choice", "choices"),
            count(self.num_branches, "branch", "branches"),
            f"{int(self.terminal.sum()):,} terminal",
            f"discount {self.discount:g}",
        ]
        return f"MDP({', '.join(parts)})"
