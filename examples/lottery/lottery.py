"""Who buys a lottery ticket? `python examples/lottery/lottery.py [FOLDER]`, in seconds; see the README beside it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import nearopt as no

PRICE, PRIZE, CHANCE = 1.0, 10.0, 0.02  # a ticket returns 0.2 on average: it costs 0.8
HORIZON, TEMPERATURE = 2, 0.3


def world(luck: float) -> no.MDP:
    """Two ways home, one past a kiosk that sells tickets, one past a café. Chance says which it is today.

    Luck scales what winning and losing pay around their mean: with luck 1 the ticket is a lottery, with luck 0 it
    costs 0.8, whatever is drawn, and so does a coffee. The expected value of a ticket never changes.
    """
    mean = CHANCE * PRIZE - PRICE
    won, lost = (mean + luck * (pays - mean) for pays in (PRIZE - PRICE, -PRICE))

    def step(state: str, action: str) -> list[tuple[float, str, float]]:
        if state == "kiosk" and action == "buy":
            return [(CHANCE, "won", won), (1 - CHANCE, "lost", lost)]
        return [(1.0, {"kiosk": "park", "café": "lane"}.get(state, "home"), mean if action == "buy" else 0.0)]

    actions = lambda state: {"kiosk": ["walk", "buy"], "café": ["walk", "buy"], "home": []}.get(state, ["walk"])
    return no.MDP.from_function(step, {"kiosk": 0.5, "café": 0.5}, actions)


def ledgers(dial: Sequence[float]) -> list[no.Ledger]:
    """The ledger at each setting of the dial."""
    return [no.ledger(world(luck), HORIZON, temperature=TEMPERATURE, prior="uniform") for luck in dial]


def buys(posterior: no.Posterior) -> float:
    """The probability that a ticket is bought at the kiosk."""
    mdp = posterior.mdp
    return float(posterior.policy_at(0)[mdp.state_names.index("kiosk"), mdp.action_names.index("buy")])


def main(folder: Path, settings: int = 41) -> list[Path]:
    from nearopt.figures import comparison_figures, dial_page, save

    dial = np.linspace(0, 1, settings)
    found = ledgers(dial)
    row = "{:>5} {:>9} {:>11} {:>10} {:>9} {:>12} {:>8} {:>9}"
    print(row.format("", "P(buy),", "P(buy),", "believed", "actual", "variational", "optimal", "log p(O)"))
    print(row.format("luck", "exact", "variational", "return", "return", "return", "return", "- ELBO"))
    for luck, led in list(zip(dial, found, strict=True))[:: max((settings - 1) // 4, 1)]:
        returns = led.believed_return, led.actual_return, led.variational_return, led.optimal_return
        numbers = buys(led.exact), buys(led.variational), *returns, led.log_evidence - led.elbo
        print(row.format(f"{luck:.2f}", *(f"{number:.3f}" for number in numbers)))
    best = found[-1].luck(1)[0]
    odds = f"wins with probability {best.believed:.4f}; it does with {best.true:g}"
    print(f"\nAt luck 1 the exact posterior believes that a ticket {odds}: {best.nats:.2f} nats.\n")
    folder.mkdir(parents=True, exist_ok=True)
    title = "The lottery: exact inference pays for its luck, variational inference walks past"
    page = dial_page(dial.tolist(), found, label="luck (0: the ticket surely costs 0.8)", title=title)
    paths = [save(page, folder / "lottery.png"), *comparison_figures(found[-1], folder)]
    for path in paths:
        print(path)
    return paths


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/lottery"))
