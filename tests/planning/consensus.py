"""The shared coin of randomised consensus (Aspnes and Herlihy 1990, "Fast randomized consensus using shared memory").

The model is PRISM's case study "consensus" (coin2.nm, coin4.nm); its sizes and exact answers are those of the
Quantitative Verification Benchmark Set, ahartmanns/qcomp, benchmarks/mdp/consensus (Storm, exact arithmetic). There a
state in which all have finished loops; here it is terminal.

Each process flips a coin, adds it to a shared counter as +1 or −1, and reads the counter: beyond a bound it decides,
else it flips again. The scheduler, which picks who moves next, is the agent.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import nearopt as no

FLIP, WRITE, CHECK, FINISHED = range(4)
State = tuple[int, tuple[tuple[int, int], ...]]  # the counter; program counter and coin of each process


class Published(NamedTuple):
    """What the collection says of one model, its loops of finished states included in choices and branches."""

    states: int
    choices: int
    branches: int
    all_one: Fraction  # "c2": the least probability of finishing with all coins 1
    disagree: Fraction  # the greatest probability of finishing with coins that differ
    fewest_steps: int  # the least expected number of steps
    most_steps: int


PUBLISHED = {  # (N, K)
    (2, 2): Published(272, 400, 492, Fraction(49, 128), Fraction(13, 120), 48, 75),
    (4, 2): Published(22656, 60544, 75232, Fraction(325, 1024), Fraction(170112531, 577765376), 192, 363),
}


def consensus(processes: int, rounds: int, reward: Callable[[tuple[int, ...] | None], float]) -> no.MDP:
    """N processes, K = `rounds`. A step pays `reward` of the coins where it finishes the last process, else of None."""
    left, right, most = processes, (2 * rounds + 1) * processes, 2 * (rounds + 1) * processes

    def step(state: State, who: int) -> list[tuple[float, State, float]]:
        counter, everyone = state
        place, coin = everyone[who]
        if place == FLIP:
            moves = [(0.5, counter, (WRITE, 0)), (0.5, counter, (WRITE, 1))]
        elif place == WRITE:
            moves = [(1.0, counter + (1 if coin else -1), (CHECK, 0))]
            assert 0 <= moves[0][1] <= most
        elif counter <= left:
            moves = [(1.0, counter, (FINISHED, 0))]
        elif counter >= right:
            moves = [(1.0, counter, (FINISHED, 1))]
        else:
            moves = [(1.0, counter, (FLIP, 0))]
        out = []
        for p, counted, mine in moves:
            after = (*everyone[:who], mine, *everyone[who + 1 :])
            done = all(place == FINISHED for place, _ in after)
            out.append((p, (counted, after), reward(tuple(coin for _, coin in after) if done else None)))
        return out

    def movers(state: State) -> list[int]:
        return [i for i, (place, _) in enumerate(state[1]) if place != FINISHED]

    start = ((rounds + 1) * processes, ((FLIP, 0),) * processes)
    return no.MDP.from_function(step, start, movers)


def all_one(coins: tuple[int, ...] | None) -> float:
    """V* = −(least probability that all coins are 1)."""
    return -1.0 if coins is not None and all(coins) else 0.0


def disagree(coins: tuple[int, ...] | None) -> float:
    """V* = the greatest probability that coins differ."""
    return 1.0 if coins is not None and len(set(coins)) > 1 else 0.0


def cost(coins: tuple[int, ...] | None) -> float:
    """V* = −(least expected number of steps)."""
    return -1.0


def gain(coins: tuple[int, ...] | None) -> float:
    """V* = the greatest expected number of steps."""
    return 1.0


def questions(published: Published) -> list[tuple[Callable, Fraction]]:
    """Each reward, with V* of the first state."""
    return [
        (all_one, -published.all_one),
        (disagree, published.disagree),
        (cost, Fraction(-published.fewest_steps)),
        (gain, Fraction(published.most_steps)),
    ]
