"""An `MDP` as an environment in JAX: agents that learn from experience can be held against exact answers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from nearopt.environments.environment import Environment, episode_length
from nearopt.environments.errors import NonFiniteError, UnavailableActionError
from nearopt.mdp.model import MDP


class Tabular(Environment):
    """Draws the transitions of a model from its sparse table, and pays the reward of the branch that happened.

    Observes the state one-hot. Terminates in terminal states; an episode that starts in one ends at its first step,
    which pays 0. The discount is left to the agent: no coin ends an episode.

    Raises: `UnavailableActionError` where a state lacks an action, `NonFiniteError` for a reward of −inf,
    `EpisodeLengthError`.

    >>> import nearopt as no
    >>> maze = Tabular(no.MDP.from_grid("S.G"), max_episode_steps=50)
    >>> state, reward, terminated = maze.step(jax.random.key(0), maze.reset(jax.random.key(1)), 1)
    >>> maze.observe(state).tolist(), float(reward), bool(terminated)
    ([0.0, 1.0, 0.0], -1.0, False)
    """

    first: Int[Array, "starts"]
    first_end: UInt32[Array, "starts"]
    choice_offset: Int[Array, "states"]
    branch_offset: Int[Array, "choices+1"]
    branch_end: UInt32[Array, "branches"]
    next_state: Int[Array, "branches"]
    reward: Float[Array, "branches"]
    terminal: Bool[Array, "states"]
    num_actions: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)  # of a search among the branches of a choice, or among first states
    max_episode_steps: int = eqx.field(static=True)

    def __init__(self, mdp: MDP, max_episode_steps: int):
        check(mdp)
        first = np.flatnonzero(mdp.initial)
        widths = np.diff(mdp.branch_offset)
        self.first = jnp.asarray(first, jnp.int32)
        self.first_end = jnp.asarray(ends(mdp.initial[first], np.array([0, len(first)])))
        self.choice_offset = jnp.asarray(mdp.choice_offset[:-1], jnp.int32)
        self.branch_offset = jnp.asarray(mdp.branch_offset, jnp.int32)
        self.branch_end = jnp.asarray(ends(mdp.probability, mdp.branch_offset))
        self.next_state = jnp.asarray(mdp.next_state, jnp.int32)
        self.reward = jnp.asarray(mdp.branch_reward, jnp.float32)
        self.terminal = jnp.asarray(mdp.terminal)
        self.num_actions = mdp.num_actions
        self.depth = int(max(len(first), widths.max(initial=1)) - 1).bit_length()
        self.max_episode_steps = episode_length(max_episode_steps)

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, self.terminal.shape)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.num_actions)

    def reset(self, key: Key[Array, ""]) -> Int[Array, ""]:
        return self.first[self.draw(key, self.first_end, jnp.int32(0), jnp.int32(len(self.first)))]

    def observe(self, state: Int[Array, ""]) -> Float[Array, "states"]:
        return jax.nn.one_hot(state, len(self.terminal), dtype=jnp.float32)

    def step(
        self, key: Key[Array, ""], state: Int[Array, ""], action: Int[Array, ""]
    ) -> tuple[Int[Array, ""], Float[Array, ""], Bool[Array, ""]]:
        over = self.terminal[state]
        choice = self.choice_offset[state] + action
        branch = self.draw(key, self.branch_end, self.branch_offset[choice], self.branch_offset[choice + 1])
        state = jnp.where(over, state, self.next_state[branch])
        return state, jnp.where(over, 0.0, self.reward[branch]), self.terminal[state]

    def draw(self, key: Any, end: UInt32[Array, "n"], low: Int[Array, ""], high: Int[Array, ""]) -> Int[Array, ""]:
        """The first of low .. high − 1 whose interval ends above 32 random bits: bisection."""
        bits, high = jax.random.bits(key, dtype=jnp.uint32), high - 1
        for _ in range(self.depth):
            middle = (low + high) // 2
            above = (end[middle] <= bits) & (low < high)
            low, high = jnp.where(above, middle + 1, low), jnp.where(above, high, middle)
        return low


def ends(probability: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Where the interval of each entry ends when those of its group fill [0, 2³²): exact to 2⁻³², unlike float32."""
    total = np.concatenate([[0.0], np.cumsum(probability)])
    start, stop = (np.repeat(total[part], np.diff(offset)) for part in (offset[:-1], offset[1:]))
    return np.minimum((total[1:] - start) / (stop - start) * 2.0**32, 2.0**32 - 1).astype(np.uint32)


def check(mdp: MDP) -> None:
    lacking = ~mdp.available & ~mdp.terminal[:, None]
    if lacking.any():
        state, action = np.argwhere(lacking)[0]
        where = mdp.describe(int(state), int(action))
        mend = "let it do what another action does, or use mdp.to_gymnasium(), which replaces such actions"
        raise UnavailableActionError(f"{where} is not available", mend)
    if not np.isfinite(mdp.branch_reward).all():
        choice = mdp.branch_choice[np.argmin(np.isfinite(mdp.branch_reward))]
        where = mdp.describe(int(mdp.choice_state[choice]), int(mdp.choice_action[choice]))
        raise NonFiniteError(f"{where} pays -inf", "give a finite penalty: agents learn from numbers")
