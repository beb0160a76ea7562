"""Worlds on which value iteration stops long before it has arrived, or never arrives, with their exact values."""

from fractions import Fraction

import numpy as np
import scipy.sparse

import nearopt as no

Choices = list[list[tuple[float, int, float]]]  # for each action: probability, next state, reward


def from_branches(world: list[Choices]) -> no.MDP:
    """world[s][a] lists (probability, next state, reward); a state without actions is terminal."""
    size, width = len(world), max(len(choices) for choices in world)
    found = [(s * width + a, t, p, r) for s, acts in enumerate(world) for a, b in enumerate(acts) for p, t, r in b]
    row, column, p, r = (np.array(x) for x in zip(*found, strict=True))
    shape = (size * width, size)
    transition = scipy.sparse.csr_array((p, (row, column)), shape)
    reward = scipy.sparse.csr_array((r.astype(float), (row, column)), shape)
    return no.MDP.from_arrays(transition, reward, terminal=np.array([not choices for choices in world]))


def haddad_monmege(n: int, p: float, stay: float | None = None, step: float = 0.0) -> tuple[no.MDP, list[Fraction]]:
    """The slow chain of Haddad and Monmege (2018, "Interval iteration algorithm for MDPs and IMDPs") on 0 .. 2n, n > 1.

    From the middle it turns to the target 0 with probability p, else towards the sink 2n; on the way there every step
    falls back to the middle with probability 1/2. With step = 0 arriving at the target pays 1: the values are
    probabilities, that of the middle is p, and a sweep of value iteration gains no more than 2^−n there. With
    step = −1 the values are −(expected steps), −(3·2^(n−1) − 2) in the middle. QVBS (ahartmanns/qcomp) lists the same
    numbers for p = 0.7. `stay`, where given, is the reward of a second action that stays where one is: with 0 every
    state is an end component.
    """
    world: list[Choices] = []
    for x in range(2 * n + 1):
        on = x - 1 if x < n else x + 1
        arrival = step + (1.0 if step == 0 and on == 0 else 0.0)
        moves = [(p, n - 1, step), (1 - p, n + 1, step)] if x == n else [(0.5, on, arrival), (0.5, n, step)]
        world.append([] if x in (0, 2 * n) else [moves] if stay is None else [moves, [(1.0, x, stay)]])
    chance, most = Fraction(p) / (Fraction(p) + Fraction(1 - p)), 3 * 2 ** (n - 1)

    def value(x: int) -> Fraction:
        straight = Fraction(1, 2 ** min(x, 2 * n - x))  # probability of never coming back to the middle
        if x == n:
            return Fraction(step) * (most - 2) if step else chance
        return Fraction(step) * (1 - straight) * most if step else straight * (0 < x < n) + (1 - straight) * chance

    return from_branches(world), [value(x) for x in range(2 * n + 1)]


def random_walk(n: int, up: float, stay: float | None = None, step: float = 0.0) -> tuple[no.MDP, list[Fraction]]:
    """The gambler's ruin on 0 .. n (Feller 1968, "An introduction to probability theory", §XIV.2 and 3).

    With step = 0 arriving at n pays 1; with step = −1 the values are −(expected steps). `stay` as above.
    """
    world: list[Choices] = [[]]
    for x in range(1, n):
        branches = [(1 - up, x - 1, step), (up, x + 1, step + (0.0 if step or x < n - 1 else 1.0))]
        world.append([branches] if stay is None else [branches, [(1.0, x, stay)]])
    world.append([])
    odds = Fraction(1 - up) / Fraction(up)
    won = [Fraction(x, n) if odds == 1 else (1 - odds**x) / (1 - odds**n) for x in range(n + 1)]
    if not step:
        return from_branches(world), [*won[:n], Fraction(0)]
    drift = (1 - odds) / (1 + odds)  # of one step, p − q with p + q = 1
    steps = [Fraction(x * (n - x)) if odds == 1 else (n * won[x] - x) / drift for x in range(n + 1)]
    return from_branches(world), [Fraction(step) * x for x in steps]


def ring(chances: list[float]) -> tuple[no.MDP, list[Fraction]]:
    """States on a ring: go on, jump anywhere on it, or leave by one's own exit, which pays 1 with one's own chance.

    Going round for ever costs nothing, so every value from the best chance upwards is a fixed point of the backup.
    """
    n = len(chances)
    jump = [(1 / n, t, 0.0) for t in range(n)]
    world: list[Choices] = [
        [[(1.0, (s + 1) % n, 0.0)], jump, [(chance, n, 1.0), (1 - chance, n + 1, 0.0)]]
        for s, chance in enumerate(chances)
    ]
    best = max(Fraction(chance) / (Fraction(chance) + Fraction(1 - chance)) for chance in chances)
    return from_branches([*world, [], []]), [best] * n + [Fraction(0)] * 2
