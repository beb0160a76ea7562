"""`make calibrate`, or `python -m benchmarks.calibration [--repetitions N] [--save FILE]`: do intervals hold the truth?

Every study simulates N data sets from known parameters, fits each, and counts how often 95 % intervals hold the truth.
Intervals that are right do so in 93 to 97 % of 1,000; where the count itself allows no verdict, that is said.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np

import nearopt as no
from benchmarks.harness import machine

WORLD = "S....\n.#.#.\n....G\n....."  # one move in five slips
LOW, HIGH = 0.93, 0.97


def studies() -> Iterator[tuple[str, no.BehaviourModel, dict, int]]:
    """Name, model, truth, number of trajectories."""
    endless = no.MDP.from_grid(WORLD, slip=0.2, discount=0.95, goal_reward=5.0)
    episodes = no.MDP.from_grid(WORLD, slip=0.2, goal_reward=5.0)
    features = np.random.default_rng(1).normal(size=(endless.num_states, 4, 2))
    truth = {"coef": np.array([1.0, -0.5])}
    yield "reward, infinite horizon", no.BehaviourModel(endless, features=features), truth, 100
    yield (
        "reward and optimism, 30 decisions",
        no.BehaviourModel(episodes, features=features, optimism="fit", horizon=30),
        truth | {"optimism": 0.5},
        100,
    )
    known = no.BehaviourModel(endless, reward="model", temperature="fit", optimism="fit")
    for count in (400, 100):  # κ is weakly seen here: with few data its likelihood is not yet a parabola
        yield "temperature and optimism, infinite horizon", known, {"temperature": 0.6, "optimism": 0.4}, count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description="Coverage of 95 % intervals.")
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", default=["hessian"], help="hessian, opg, sandwich, profile")
    parser.add_argument("--save", metavar="FILE", help="write the tables to a Markdown file as well")
    options = parser.parse_args()
    lines = [machine(), ""]
    for name, model, truth, count in studies():
        for kind in options.kinds:
            start = time.perf_counter()
            found = no.recover(
                model, truth, trajectories=count, decisions=30, repetitions=options.repetitions, kind=kind, seed=1
            )
            seconds = time.perf_counter() - start
            right = ((found.coverage >= LOW) & (found.coverage <= HIGH)).all()
            verdict = "all between 93 % and 97 %" if right else "**not all between 93 % and 97 %**"
            lines += [f"## {name}: {kind}", "", "```", found.describe(), "```", ""]
            lines += [f"{options.repetitions:,} data sets of {count} × 30 decisions in {seconds:.0f} s; {verdict}", ""]
            print("\n".join(lines[-7:]), flush=True)
    if options.save:
        command = (
            f"python -m benchmarks.calibration --repetitions {options.repetitions} --kinds {' '.join(options.kinds)}"
        )
        with open(options.save, "w", encoding="utf-8") as file:
            file.write(f"# {command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
