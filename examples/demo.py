"""Exact inference on three real inputs, and an agent that learns: `make demo`, or `python examples/demo.py [FOLDER]`.

For each input, the posterior over behaviour given that every decision is near-optimal; pictures go to out/demo/NAME/.
The agent learns to swing up a pendulum whose model it is not told.
"""

import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import nearopt as no

ROOT = Path(__file__).resolve().parents[1]
INPUTS = (  # name, source, horizon, temperature, more temperatures to compare
    ("lake", "gym:FrozenLake-v1", 40, 0.1, ()),
    ("taxi", "gym:Taxi-v4", 24, 0.5, ()),
    ("reach", "examples/reach.txt", 60, 0.3, (0.1, 0.6, 1.0)),
)
COLUMNS = "{:20} {:>7} {:>8} {:>12} {:>13} {:>9} {:>8}"


def main(folder: Path) -> None:
    print("Exact inference of near-optimal behaviour (optimism 1, flat prior)\n")
    print(COLUMNS.format("input", "states", "horizon", "temperature", "log evidence", "P(goal)", "seconds"))
    pictures = []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as workers:
        for row, paths in workers.map(solve, INPUTS, [folder] * len(INPUTS)):
            print(COLUMNS.format(*row), flush=True)
            pictures += paths
    print("\nlog evidence: log p(every decision is optimal), in nats, up to the flat prior, which is not normalised.")
    print("P(goal): probability, under the posterior, that the goal is reached by the end.")
    print("seconds: reading, compiling, inferring.\n")
    print("Soft actor-critic, which is told no model, on Pendulum-v1: 5,000 steps")
    start = time.perf_counter()
    before, after, picture = learn(folder / "pendulum")
    seconds = time.perf_counter() - start
    print(f"mean return of 20 new episodes: before {before:,.0f}, after {after:,.0f}; {seconds:.0f} seconds")
    print("\nPictures")
    for path in [*pictures, picture]:
        print(f"  {path}")


def solve(task: tuple, folder: Path) -> tuple[tuple, list[Path]]:
    """One input: its row of the table, and its pictures."""
    name, source, horizon, temperature, others = task
    start = time.perf_counter()
    mdp = load(source)
    posterior = no.infer(mdp, horizon, temperature=temperature)
    log_evidence = posterior.log_partition
    reached = posterior.state_probs[-1, goals(mdp)].sum()
    seconds = time.perf_counter() - start
    sweep = [no.infer(mdp, horizon, temperature=other) for other in others]
    numbers = f"{log_evidence:.4f}", f"{reached:.5f}", f"{seconds:.2f}"
    return (source, f"{mdp.num_states:,}", horizon, temperature, *numbers), draw(posterior, sweep, folder / name)


def learn(folder: Path) -> tuple[float, float, Path]:
    """Mean returns before and after learning, and the picture of its curves."""
    from nearopt.agents.evaluation import evaluate_agent
    from nearopt.figures import curves_page, save_curves
    from nearopt.runs.curves import curve

    settings = dict(learning_rate=1e-3, batch_size=128, tau=0.01, policy_kwargs=dict(net_arch=[64, 64]))
    agent = no.SAC("Pendulum-v1", seed=0, **settings)
    before = evaluate_agent(agent, "Pendulum-v1", 20).returns.mean()
    with tempfile.TemporaryDirectory() as run:
        agent.learn(5_000, run_dir=Path(run) / "run", log_every=200, progress_bar=True)
        panels = {
            name: {"SAC on Pendulum-v1": curve([Path(run) / "run"], name, points=25)} for name in ("return", "entropy")
        }
    folder.mkdir(parents=True, exist_ok=True)
    after = evaluate_agent(agent, "Pendulum-v1", 20).returns.mean()
    return float(before), float(after), save_curves(curves_page(panels), folder / "curves.png")


def load(source: str) -> no.MDP:
    return no.MDP.from_gymnasium(source[4:]) if source.startswith("gym:") else no.load(ROOT / source)


def goals(mdp: no.MDP) -> np.ndarray:
    """(S,) bool: the terminal states that pay best on arrival. In a lake, a hole is an end and no goal."""
    ends = mdp.terminal[mdp.next_state]
    pays = np.full(mdp.num_states, -np.inf)
    np.maximum.at(pays, mdp.next_state[ends], mdp.branch_reward[ends])
    return mdp.terminal & (pays == pays.max())


def draw(posterior: no.Posterior, sweep: list[no.Posterior], folder: Path) -> list[Path]:
    from nearopt.figures import inference_figures

    return inference_figures(posterior, folder, trajectories=posterior.sample(30, seed=0), sweep=sweep)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
