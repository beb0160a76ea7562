"""The model as rectangles: what `backup.py` computes on.

States with equally many choices and branches stand together in a block of shape (branch, choice, state), short rows
filled up with branches of probability zero. The state axis is last, so that one step is a handful of fused loops over
contiguous memory, on a CPU as on an accelerator. A regular world is a single block.

Inside the blocks states are renumbered so that the blocks follow each other; `from_states` and `to_states` translate.
"""

from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

if TYPE_CHECKING:
    from nearopt.mdp.model import MDP

SMALL = 4096  # entries up to which sizes are rounded up to powers of two: models alike in S and A share compiled code
WASTE = 1.5  # filled-up entries per real one that a single block may cost before it is split
LADDER = np.unique(np.concatenate([np.arange(1, 5), 2 ** np.arange(3, 40), 3 * 2 ** np.arange(1, 39)]))


class Block(eqx.Module):
    """n states with up to J choices of up to K branches each. Slot j of a state is its j-th available action."""

    next_state: Int[Array, "K J n"]  # in block order
    probability: Float[Array, "K J n"]
    reward: Float[Array, "R J n"]  # R = K, or 1 where the reward does not depend on the next state
    action: Int[Array, "J n"]
    state: Int[Array, " n"]  # public number; 0 for a filled-up state
    available: Bool[Array, "J n"]


class Blocks(eqx.Module):
    """All states of a model, block after block."""

    blocks: tuple[Block, ...]
    rank: Int[Array, " S"]  # where each public state stands
    slot: Int[Array, "S A"]  # where each public (state, action) stands among all choices; out of range if unavailable
    initial: Float[Array, " n"]
    discount: float | Float[Array, ""]  # the number 1, which costs nothing, or an array

    @property
    def size(self) -> int:
        """Number of states in block order, filled-up ones included."""
        return sum(b.state.shape[0] for b in self.blocks)

    def split(self, values: Float[Array, " n"]) -> list[Float[Array, " m"]]:
        """A vector over states, cut into the blocks."""
        cuts = np.cumsum([b.state.shape[0] for b in self.blocks])[:-1]
        return jnp.split(values, cuts)

    def from_states(self, values: Float[Array, " S"]) -> Float[Array, " n"]:
        """Public order → block order; 0 for filled-up states."""
        return jnp.zeros(self.size, values.dtype).at[self.rank].set(values)

    def to_states(self, values: Float[Array, " n"]) -> Float[Array, " S"]:
        """Block order → public order."""
        return values[self.rank]

    def from_actions(self, values: Float[Array, "S A"]) -> list[Float[Array, "J m"]]:
        """A public (S, A) table, read off at every choice."""
        return [values[b.state, b.action] for b in self.blocks]

    def to_actions(self, values: list[Float[Array, "J m"]], fill: float) -> Float[Array, "S A"]:
        """Values per choice as a public (S, A) table, `fill` where the action is not available."""
        return concatenate(values).at[self.slot].get(mode="fill", fill_value=fill)


def concatenate(values: list[Array]) -> Array:
    """Arrays of any shape, flattened one after the other."""
    return jnp.concatenate([v.reshape(-1) for v in values]) if len(values) > 1 else values[0].reshape(-1)


def ladder(widths: np.ndarray) -> np.ndarray:
    """Each width rounded up to a step of at most half as much again."""
    return np.where(widths > 0, LADDER[np.searchsorted(LADDER, np.maximum(widths, 1))], 0)


def power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


class Layout(NamedTuple):
    """The blocks, and where each branch of the model stands among theirs, filled-up ones included."""

    blocks: Blocks
    position: np.ndarray


def build_layout(mdp: "MDP") -> Layout:
    """The blocks of a model, on the default device."""
    choices = np.diff(mdp.choice_offset)
    branches = np.diff(mdp.branch_offset)
    widest = np.zeros(mdp.num_states, np.int64)
    np.maximum.at(widest, mdp.choice_state, branches)
    shape = (int(max(branches.max(initial=1), 1)), int(max(choices.max(initial=1), 1)), mdp.num_states)
    volume = int(np.prod(shape, dtype=np.int64))
    small = volume <= SMALL // 4
    if small:
        shape = (power_of_two(max(shape[0], 4)), power_of_two(max(shape[1], 4)), power_of_two(max(shape[2], 8)))
    if small or volume <= WASTE * mdp.num_branches:
        groups = [(shape, np.arange(mdp.num_states))]
    else:
        keys, member = np.unique(np.stack([ladder(widest), ladder(choices)]), axis=1, return_inverse=True)
        groups = []
        for g, (k, j) in enumerate(keys.T.tolist()):
            states = np.flatnonzero(member.reshape(-1) == g)
            groups.append(((max(k, 1), max(j, 1), len(states)), states))

    rank = np.zeros(mdp.num_states, np.int64)
    start = 0
    for shape, states in groups:
        rank[states] = start + np.arange(len(states))
        start += shape[2]
    build = Build(mdp, rank, wide=small or mdp.choice_reward is None)
    with jax.enable_x64(True), jax.ensure_compile_time_eval():  # the layout is kept, so it may hold no tracers
        blocks = tuple(build.block(shape, states) for shape, states in groups)
        initial = np.zeros(start)
        initial[rank] = mdp.initial
        build.slot[build.slot < 0] = build.choices
        narrow = np.int32 if build.branches < 2**31 else np.int64
        made = Blocks(
            blocks=blocks,
            rank=jnp.asarray(rank.astype(narrow)),
            slot=jnp.asarray(build.slot.astype(narrow)),
            initial=jnp.asarray(initial),
            discount=1.0 if mdp.discount == 1 else jnp.asarray(mdp.discount),
        )
    return Layout(made, build.position)


class Build:
    """What building one block after the other carries along: how many choices and branches have been laid out."""

    def __init__(self, mdp: "MDP", rank: np.ndarray, wide: bool):
        self.mdp, self.rank, self.wide = mdp, rank, wide
        self.slot = np.full((mdp.num_states, mdp.num_actions), -1, np.int64)
        self.position = np.zeros(mdp.num_branches, np.int64)
        self.choices = self.branches = 0

    def block(self, shape: tuple[int, int, int], states: np.ndarray) -> Block:
        """The block of `states`, filled up to `shape` (branches, choices, states)."""
        mdp = self.mdp
        _, num_slots, size = shape
        choice, column, j = rows(mdp.choice_offset, states)
        action = np.zeros((num_slots, size), np.int32)
        available = np.zeros((num_slots, size), bool)
        action[j, column] = mdp.choice_action[choice]
        available[j, column] = True
        self.slot[states[column], mdp.choice_action[choice]] = self.choices + j * size + column

        branch, of_choice, k = rows(mdp.branch_offset, choice)
        where = (k, j[of_choice], column[of_choice])
        self.position[branch] = self.branches + np.ravel_multi_index(where, shape)
        next_state = np.zeros(shape, np.int32)
        probability = np.zeros(shape)
        next_state[where] = self.rank[mdp.next_state[branch]]
        probability[where] = mdp.probability[branch]
        reward = np.zeros(shape if self.wide else (1, num_slots, size))
        if self.wide:
            reward[where] = mdp.branch_reward[branch]
        elif mdp.choice_reward is not None:
            reward[0, j, column] = mdp.choice_reward[choice]
        state = np.zeros(size, np.int32)
        state[: len(states)] = states
        self.choices += num_slots * size
        self.branches += int(np.prod(shape))
        return Block(*map(jnp.asarray, (next_state, probability, reward, action, state, available)))


def rows(offset: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The items of some rows of a compressed table: item, the row's place among `members`, the item's place in it."""
    count = offset[members + 1] - offset[members]
    row = np.repeat(np.arange(len(members)), count)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return offset[members][row] + place, row, place
