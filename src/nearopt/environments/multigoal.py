"""Four goals in the plane, all equally good: the task that shows what an energy-based policy is for.

Haarnoja et al. 2017 (arXiv 1702.08165), section 5.1. It was published in three versions; `RULES` has them by name.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Array, Bool, Float, Key

from nearopt.environments.environment import Environment
from nearopt.environments.errors import EnvironmentArgumentError
from nearopt.mdp.model import MDP

SIDE, RADIUS, START = 7.0, 1.0, 0.1
GOALS = np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]], np.float32)


class Rules(NamedTuple):
    """What a version pays: −action |a|² − distance min_g |x' − g|² + goal on arrival, or bumps around the goals."""

    action: float
    distance: float
    goal: float  # the episode ends there; 0: it never ends
    height: float = 0.0  # of Gaussian bumps at the goals
    width: float = 1.0


RULES = {
    "released": Rules(30.0, 1.0, 10.0),  # haarnoja/softqlearning; temperature 10
    "sac": Rules(1.0, 0.1, 1.0),  # haarnoja/sac; temperature 1/3
    # A mixture of Gaussians; its height and width were not published: these are ours. Temperature 10.
    "paper": Rules(0.0, 0.0, 0.0, height=30.0, width=2.0),
}


class MultiGoal(Environment):
    """A point x in [−7, 7]² moves by its action, a velocity in [−1, 1]²: x' = clip(x + a). It starts at N(0, 0.1² I).

    Goals at (±5, 0) and (0, ±5). The episode ends within 1 of one of them ("paper": it does not); observes x.

    Args:
        reward: "released", "sac" or "paper": see `RULES`.
        max_episode_steps: 30 in the released code, 20 in the paper.

    Raises: `EnvironmentArgumentError` for another reward, `EpisodeLengthError`.

    >>> world = MultiGoal()
    >>> x, reward, terminated = world.step(jax.random.key(0), jnp.array([4.0, 0.0]), jnp.array([0.5, 0.0]))
    >>> x.tolist(), float(reward), bool(terminated)
    ([4.5, 0.0], 2.25, True)
    """

    reward: str = eqx.field(static=True, default="released")
    max_episode_steps: int = eqx.field(static=True, default=30)

    def __check_init__(self) -> None:
        if self.reward not in RULES:
            raise EnvironmentArgumentError(f"reward is {self.reward!r:.60}", f"give one of {', '.join(RULES)}")

    @property
    def rules(self) -> Rules:
        return RULES[self.reward]

    @property
    def observation_space(self) -> Box:
        return Box(-SIDE, SIDE, (2,))

    @property
    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    def reset(self, key: Key[Array, ""]) -> Float[Array, "2"]:
        return START * jax.random.normal(key, (2,))

    def observe(self, state: Float[Array, "2"]) -> Float[Array, "2"]:
        return state

    def step(
        self, key: Key[Array, ""], state: Float[Array, "2"], action: Float[Array, "2"]
    ) -> tuple[Float[Array, "2"], Float[Array, ""], Bool[Array, ""]]:
        action = jnp.clip(action, -1.0, 1.0)
        after = jnp.clip(state + action, -SIDE, SIDE)
        squares = ((after - GOALS) ** 2).sum(axis=-1)
        rules, nearest = self.rules, squares.min()
        arrived = (nearest < RADIUS**2) & (rules.goal > 0)
        bumps = rules.height * jnp.exp(-squares / (2 * rules.width**2)).sum()
        cost = rules.action * (action**2).sum() + rules.distance * nearest
        return after, bumps - cost + jnp.where(arrived, rules.goal, 0.0), arrived

    def free_energy(self, temperature: float) -> float:
        """τ log ∫ exp(−action |a|²/τ) da, in units of reward: what a step is worth for its freedom alone.

        Where it is more than the least cost of distance, wandering for ever pays, and no policy goes to a goal.

        >>> round(MultiGoal().free_energy(10.0), 2)
        0.17
        """
        from math import erf, log, pi, sqrt

        scale = self.rules.action / temperature
        side = 2.0 if scale == 0 else sqrt(pi / scale) * erf(sqrt(scale))
        return 2 * temperature * log(side)


class Grid(NamedTuple):
    """A world whose points are nodes of a grid, for exact answers."""

    mdp: MDP  # states and actions are nodes, the first coordinate slowest
    prior: Float[np.ndarray, "S A"]  # of the trapezoid rule: Σ prior exp(Q/τ) ≈ ∫ exp(Q/τ) da
    positions: Float[np.ndarray, "S 2"]
    actions: Float[np.ndarray, "A 2"]

    def nearest(self, position: tuple[float, float]) -> int:
        """The state at, or next to, a point."""
        return int(((self.positions - np.asarray(position)) ** 2).sum(axis=1).argmin())


def on_grid(world: MultiGoal, cells: int, discount: float) -> Grid:
    """The task with `cells` nodes to a unit of length: every move leads from node to node, without interpolation.

    `nearopt.solve(grid.mdp, temperature=τ, prior=grid.prior)` is the soft-optimal solution without a time limit; its
    error is that of the trapezoid rule in the actions.
    """
    axis = np.arange(-round(SIDE) * cells, round(SIDE) * cells + 1)
    steps = np.arange(-cells, cells + 1)
    where = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    moves = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    after = np.clip(where[:, None] + moves, axis[0], axis[-1])
    number = (after - axis[0]) @ np.array([len(axis), 1])
    positions, actions = (nodes.astype(np.float32) / cells for nodes in (where, moves))
    pay = jax.vmap(jax.vmap(world.step, (None, None, 0)), (None, 0, None))
    _, reward, _ = pay(jax.random.key(0), jnp.asarray(positions), jnp.asarray(actions))
    near = ((positions[:, None] - GOALS) ** 2).sum(axis=-1).min(axis=1) < RADIUS**2
    terminal = near & (world.rules.goal > 0)
    weight = np.where(np.abs(steps) == cells, 0.5, 1.0) / cells
    prior = np.broadcast_to(np.outer(weight, weight).ravel(), number.shape)
    return Grid(table(number, np.asarray(reward, float), terminal, positions, discount), prior, positions, actions)


def table(
    following: np.ndarray, reward: np.ndarray, terminal: np.ndarray, positions: np.ndarray, discount: float
) -> MDP:
    """The MDP whose moves are sure: (S, A) next states and rewards."""
    from scipy.sparse import csr_array

    num, choices = following.shape
    ones, ends = np.ones(num * choices), np.arange(num * choices + 1)
    transition = csr_array((ones, following.ravel(), ends), shape=(num * choices, num))
    start = np.zeros(num)
    start[((positions) ** 2).sum(axis=1).argmin()] = 1.0
    return MDP.from_arrays(transition, reward, initial=start, discount=discount, terminal=terminal, positions=positions)
