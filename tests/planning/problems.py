"""Random problems for the infinite horizon, each with a finite value. All have one shape, so they compile once."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import nearopt as no
from tests.planning.rational import Problem

S, A, K = 8, 3, 3  # states, actions, most branches of a choice
INF = math.inf


class World:
    """A random structure: p(s'|s,a) and which actions are available; rewards are left to the families below.

    States have a random order that begins with the terminal ones; the first available action of each state, its way
    out, leads to an earlier state with some probability (`certain`: to earlier states only). With `leak` every choice
    ends with at least that probability.
    """

    def __init__(self, rng: np.random.Generator, terminals: int, certain: bool = False, leak: float = 0.0):
        self.order = rng.permutation(S)
        self.terminal = np.zeros(S, bool)
        self.terminal[self.order[:terminals]] = True
        self.transition = np.zeros((S, A, S))
        self.available = np.zeros((S, A), bool)
        self.way_out = np.zeros((S, A), bool)
        dyadic = bool(rng.integers(2))
        for level in range(terminals, S):
            s, earlier = self.order[level], self.order[: max(level, 1)]
            offered = rng.random(A) < 0.75
            offered[rng.integers(A)] = True
            self.available[s] = offered
            self.way_out[s, np.argmax(offered)] = True
            for a in np.flatnonzero(offered):
                out = bool(self.way_out[s, a]) and terminals > 0
                if leak:
                    targets = np.append(rng.choice(S, K - 1), rng.choice(self.order[:terminals]))
                elif out:
                    targets = (
                        rng.choice(earlier, K) if certain else np.append(rng.choice(S, K - 1), rng.choice(earlier))
                    )
                else:
                    targets = rng.choice(S, int(rng.integers(1, K + 1)))
                for p, t in zip(probabilities(rng, len(targets), dyadic, leak), targets, strict=True):
                    self.transition[s, a, t] += p

    def reward(self, rng: np.random.Generator, low: float, high: float, forbid: bool = False) -> np.ndarray:
        """(S, A, S), or (S, A); one choice in ten is forbidden, in whole or in part, but never a way out."""
        shape = (S, A, S) if rng.integers(2) else (S, A)
        reward = rng.uniform(low, high, shape)
        if forbid:
            mask = rng.random(shape) < 0.1
            reward[mask & ~(self.way_out[..., None] if len(shape) == 3 else self.way_out)] = -INF
        return reward

    def prior(self, rng: np.random.Generator, kind: int, scale: float = 0.0) -> Any:
        """None, uniform, or an array, in which some actions but the way out have 0, rows summing to about e^±scale."""
        if kind < 2:
            return None if kind == 0 else "uniform"
        weights = np.where(self.available, rng.exponential(size=(S, A)), 0.0)
        weights[(rng.random((S, A)) < 0.2) & ~self.way_out] = 0.0
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-9)
        return weights * np.exp(scale * rng.uniform(-1, 1, (S, 1)))

    def mdp(self, reward: np.ndarray, discount: float) -> no.MDP:
        return no.MDP.from_arrays(
            self.transition, reward, discount=discount, terminal=self.terminal, available=self.available
        )


def probabilities(rng: np.random.Generator, n: int, dyadic: bool, leak: float) -> np.ndarray:
    """n probabilities, the last at least `leak`; sixteenths, or whatever rounding makes of a random point."""
    if dyadic:
        least = np.ones(n) + np.eye(n)[-1] * math.ceil(16 * leak)
        return (least + rng.multinomial(16 - int(least.sum()), np.full(n, 1 / n))) / 16
    p = np.maximum(rng.dirichlet(np.full(n, 0.7)), 1e-3)
    return (1 - leak) * p / p.sum() + leak * np.eye(n)[-1]


# ---------------------------------------------------------------- hard control
def hard_discounted(rng: np.random.Generator) -> Problem:
    world = World(rng, int(rng.integers(3)))
    reward = world.reward(rng, -3, 3, forbid=True)
    discount = float(rng.choice([0.0, 0.5, 0.9, 0.99, 0.999]))
    return Problem(world.mdp(reward, discount), dials(0.0, 0.0, world.prior(rng, int(rng.integers(3)), 1.0)))


def hard_costs(rng: np.random.Generator) -> Problem:
    """First exit, every step costs; or some choices are free, and one may rest on them."""
    world = World(rng, int(rng.integers(1, 3)))
    reward = world.reward(rng, -2, -0.1, forbid=True)
    if rng.integers(2):
        reward[rng.random(reward.shape) < 0.4] = 0.0
    return Problem(world.mdp(reward, 1.0), dials(0.0, 0.0, world.prior(rng, int(rng.integers(3)))))


def hard_arrival(rng: np.random.Generator) -> Problem:
    """Rewards of at least 0, paid where the episode ends, and choices that stay for ever: end components."""
    world = World(rng, 2)
    loops = world.available & ~world.way_out & (rng.random((S, A)) < 0.4)
    for s, a in np.argwhere(loops):
        world.transition[s, a] = np.eye(S)[s]
    prize = np.where(world.terminal, rng.uniform(0, 2, S) * (rng.random(S) < 0.8), 0.0)
    return Problem(world.mdp(np.broadcast_to(prize, (S, A, S)).copy(), 1.0), dials(0.0, 0.0, None))


def hard_leaking(rng: np.random.Generator) -> Problem:
    """First exit, rewards of both signs: every choice ends sooner or later."""
    world = World(rng, 2, leak=0.1)
    return Problem(world.mdp(world.reward(rng, -3, 3, forbid=True), 1.0), dials(0.0, 0.0, None))


# ---------------------------------------------------------------- soft control, dynamics fixed
def soft_discounted(rng: np.random.Generator) -> Problem:
    world = World(rng, int(rng.integers(3)))
    reward = world.reward(rng, -3, 3, forbid=True)
    discount = float(rng.choice([0.0, 0.5, 0.9, 0.99, 0.999]))
    temperature = float(rng.choice([0.05, 0.5, 1.0, 4.0]))
    return Problem(world.mdp(reward, discount), dials(temperature, 0.0, world.prior(rng, int(rng.integers(3)), 1.0)))


def soft_leaking(rng: np.random.Generator) -> Problem:
    world = World(rng, 2, leak=0.2)
    reward = world.reward(rng, -3, 3, forbid=True)
    return Problem(
        world.mdp(reward, 1.0), dials(float(rng.uniform(0.1, 2)), 0.0, world.prior(rng, int(rng.integers(3))))
    )


def soft_costs(rng: np.random.Generator) -> Problem:
    """First exit with loops. A step costs more than the τ log A that the flat prior pays for having a choice."""
    world, kind = World(rng, int(rng.integers(1, 3))), int(rng.integers(3))
    temperature = float(rng.uniform(0.1, 2))
    bonus = temperature * math.log(A) if kind == 0 else 0.0
    reward = world.reward(rng, -2 - bonus, -0.1 - bonus, forbid=True)
    if kind == 1 and rng.integers(2):  # one state rests: its every choice stays, and is free
        s = world.order[-1]
        world.transition[s] = np.where(world.available[s, :, None], np.eye(S)[s], 0.0)
        reward[s] = 0.0
    return Problem(world.mdp(reward, 1.0), dials(temperature, 0.0, world.prior(rng, kind)))


# ---------------------------------------------------------------- optimism and risk aversion
def tilted_discounted(rng: np.random.Generator) -> Problem:
    """κ of both signs, where the value exists: the tilted chance of going on stays below one.

    Under risk aversion no choice is forbidden: the prior of the others, below one, would count as a cost every step.
    """
    world, optimism = World(rng, int(rng.integers(3))), float(rng.choice([1.0, 1.0, 0.5, 2.0, -1.0]))
    discount, temperature = float(rng.choice([0.5, 0.9, 0.99])), float(rng.uniform(0.3, 2))
    room = -0.5 * math.log(discount) * temperature / abs(optimism)  # γ exp(κ r/τ) < 1
    kind = int(rng.integers(1, 3))
    reward = world.reward(rng, -2, room, forbid=True) if optimism > 0 else world.reward(rng, -room, 2)
    return Problem(world.mdp(reward, discount), dials(temperature, optimism, world.prior(rng, kind)))


def tilted_costs(rng: np.random.Generator) -> Problem:
    """First exit; under risk aversion with a way out that is certain, as a chance of long delays may cost too much."""
    optimism = float(rng.choice([1.0, 1.0, 0.5, 2.0, -1.0]))
    world, kind = World(rng, int(rng.integers(1, 3)), certain=optimism < 0), int(rng.integers(3))
    temperature = float(rng.uniform(0.3, 2))
    bonus = temperature * math.log(A) if kind == 0 else 0.0
    reward = world.reward(rng, -1 - bonus, -0.1 - bonus, forbid=True)
    return Problem(world.mdp(reward, 1.0), dials(temperature, optimism, world.prior(rng, kind)))


def dials(temperature: float, optimism: float, prior: Any) -> dict[str, Any]:
    return dict(temperature=temperature, optimism=optimism, prior=prior)


FAMILIES: list[Callable[[np.random.Generator], Problem]] = [
    hard_discounted,
    hard_costs,
    hard_arrival,
    hard_leaking,
    soft_discounted,
    soft_leaking,
    soft_costs,
    tilted_discounted,
    tilted_costs,
]


def random_problems(count: int, seed: int = 0) -> list[Problem]:
    """As many of every family, give or take one."""
    return [FAMILIES[i % len(FAMILIES)](np.random.default_rng([seed, i])) for i in range(count)]
