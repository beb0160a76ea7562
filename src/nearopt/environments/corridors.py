"""Two promising routes, of which one may turn out to be blocked: whoever kept both alive still arrives.

After the maze of Haarnoja et al. 2017 (arXiv 1702.08165), section 5.2, whose geometry was not published. This one is
ours, and frozen: another geometry will be another version.

    +-----------------------------+   y =  3
    |        ###############      |   y =  2
    |        ~~~~~ upper ~~~b     |   b: the door, shut where `blocked` says so
    |  S     ###############   G  |   y =  1 .. −1
    |        ~~~~~ lower ~~~b     |
    |        ###############      |   y = −2
    +-----------------------------+   y = −3
    x −5    −2             2      5
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Array, Bool, Float, Key

from nearopt.environments.environment import Environment
from nearopt.environments.errors import EnvironmentArgumentError

HALF_SIZE = np.array([5.0, 3.0], np.float32)
START, GOAL = np.array([-4.0, 0.0], np.float32), np.array([4.0, 0.0], np.float32)
NOISE, RADIUS, SPEED = 0.1, 0.75, 0.5
END, DOOR = 2.0, 1.0  # of the walls in x: from −2 to 2; the door is the last 1 of a corridor
NEAR, FAR = 1.0, 2.0  # the edges of the corridors, |y|
BLOCKED = ("none", "upper", "lower")


class TwoCorridors(Environment):
    """A point in [−5, 5] × [−3, 3] moves by its action, a velocity in [−0.5, 0.5]², and stops at walls.

    It starts at (−4, 0) + N(0, 0.1² I), and is to come within 0.75 of (4, 0), where the episode ends. Observes its
    position and not which corridor is blocked. A step pays −0.1 |x' − goal|, and 5 on arrival: the blocked end of a
    corridor, (1, ±1.5), is as near as one gets without turning back.

    Args:
        blocked: "none", "upper" or "lower".

    Raises: `EnvironmentArgumentError` for another one, `EpisodeLengthError`.

    >>> world = TwoCorridors(blocked="upper")
    >>> at, _, _ = world.step(jax.random.key(0), jnp.array([0.75, 1.5]), jnp.array([0.5, 0.0]))
    >>> at.tolist()
    [0.75, 1.5]
    """

    blocked: str = eqx.field(static=True, default="none")
    max_episode_steps: int = eqx.field(static=True, default=60)

    def __check_init__(self) -> None:
        if self.blocked not in BLOCKED:
            raise EnvironmentArgumentError(f"blocked is {self.blocked!r:.60}", f"give one of {', '.join(BLOCKED)}")

    @property
    def observation_space(self) -> Box:
        return Box(-HALF_SIZE, HALF_SIZE)

    @property
    def action_space(self) -> Box:
        return Box(-SPEED, SPEED, (2,))

    def reset(self, key: Key[Array, ""]) -> Float[Array, "2"]:
        return jnp.asarray(START) + NOISE * jax.random.normal(key, (2,))

    def observe(self, state: Float[Array, "2"]) -> Float[Array, "2"]:
        return state

    def step(
        self, key: Key[Array, ""], state: Float[Array, "2"], action: Float[Array, "2"]
    ) -> tuple[Float[Array, "2"], Float[Array, ""], Bool[Array, ""]]:
        action = jnp.clip(action, -SPEED, SPEED)
        after = state
        for move in (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])):  # one coordinate after the other: it slides
            moved = jnp.clip(after + move * action, -HALF_SIZE, HALF_SIZE)
            after = jnp.where(self.inside(moved), after, moved)
        distance = jnp.sqrt(((after - GOAL) ** 2).sum())
        arrived = distance < RADIUS
        return after, -0.1 * distance + jnp.where(arrived, 5.0, 0.0), arrived

    def inside(self, position: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether a point lies in a wall. No wall is thinner than a step is long."""
        x, y = position
        corridor = (jnp.abs(y) > NEAR) & (jnp.abs(y) < FAR)
        shut = {"none": False, "upper": y > 0, "lower": y < 0}[self.blocked]
        return (jnp.abs(x) < END) & (~corridor | (shut & (x > END - DOOR)))
