"""What is measured: exact inference from a toy to a million states. Sizes are arguments: tests run them small."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import nearopt as no
from benchmarks.harness import Row, best
from nearopt.inference.messages import backward, filtered, smoothed
from nearopt.problem import make_problem

ROOT = Path(__file__).resolve().parents[1]


def slip_grid(side: int) -> no.MDP:
    """A square without walls: start in one corner, goal in the other, one move in ten slips."""
    cells = np.full((side, side), ".")
    cells[0, 0], cells[-1, -1] = "S", "G"
    return no.MDP.from_grid("\n".join("".join(row) for row in cells), slip=0.1)


def large(side: int = 1000, horizon: int = 10, repeats: int = 2) -> Iterator[Row]:
    """The three recursions at 10⁶ states, exact and variational."""
    mdp = slip_grid(side)
    with jax.enable_x64(True):
        table = sum(b.probability.nbytes + b.next_state.nbytes for b in mdp.blocks.blocks)
        vectors = 3 * 8 * mdp.num_states  # read one, gather one, write one
        for optimism in (1.0, 0.0):
            problem = make_problem(mdp.blocks, horizon, optimism=optimism)
            values = backward(problem, horizon)
            name = f"{mdp.num_states:,} states, {mdp.num_branches:,} branches, T={horizon}, optimism {optimism:g}"
            moved = horizon * (table + vectors)
            for what, work in (
                ("backward messages", lambda p=problem: backward(p, horizon)),
                ("marginals", lambda p=problem, v=values: smoothed(p, v)),
                ("forward messages", lambda p=problem, v=values: filtered(p, v)),
            ):
                yield Row(f"{what}: {name}", best(work, repeats), horizon, moved)


MEMORY = """
import resource, sys
from benchmarks.rows import slip_grid
import nearopt as no
post = no.infer(slip_grid(int(sys.argv[1])), int(sys.argv[2]))
post.state_probs, post.log_forward, post.policy_at(0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def memory(cases: tuple = ((316, 200), (6, 100_000))) -> Iterator[Row]:
    """Peak memory of a whole inference, in a process of its own."""
    for side, horizon in cases:
        command = [sys.executable, "-c", MEMORY, str(side), str(horizon)]
        start = best_once(command)
        gigabytes = float(start[1])
        yield Row(
            f"all messages and marginals: {side * side:,} states × 4 actions, T={horizon:,}, compiling included",
            start[0],
            aim="at most 8 GiB",
            met=gigabytes <= 8,
            note=f"peak {gigabytes:.2f} GiB",
        )


def best_once(command: list[str]) -> tuple[float, str]:
    """Seconds and output of one run of a program."""
    import time

    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return time.perf_counter() - start, done.stdout.strip()


def small(side: int = 20, horizon: int = 100, repeats: int = 20) -> Iterator[Row]:
    """What a person waits for, warm."""
    mdp = slip_grid(side)
    name = f"warm {side}×{side} grid, T={horizon}"

    def everything(optimism: float) -> None:
        post = no.infer(mdp, horizon, temperature=0.3, optimism=optimism)
        _ = post.value, post.log_partition, post.state_probs, post.log_forward

    for optimism in (1.0, 0.0):
        seconds = best(lambda k=optimism: no.infer(mdp, horizon, temperature=0.3, optimism=k).value, repeats)
        yield Row(f"{name}, optimism {optimism:g}: backward", seconds, horizon, aim="10 ms", met=seconds <= 0.01)
        seconds = best(lambda k=optimism: everything(k), repeats)
        yield Row(f"{name}, optimism {optimism:g}: all messages", seconds, horizon, aim="10 ms", met=seconds <= 0.01)


def trajectories(side: int = 20, count: int = 100_000, horizon: int = 50) -> Iterator[Row]:
    """Drawing trajectories, and judging them."""
    post = no.infer(slip_grid(side), horizon, temperature=0.3)
    seconds = best(lambda: post.sample(count, seed=0).state, 2)
    yield Row(f"{count:,} trajectories of {horizon} steps drawn", seconds, horizon, aim="about 1 s", met=seconds <= 1.2)
    drawn = post.sample(count, seed=0)
    yield Row(f"{count:,} trajectories of {horizon} steps judged", best(lambda: post.log_prob(drawn), 2), horizon)


def batch(side: int = 10, horizon: int = 50, count: int = 256) -> Iterator[Row]:
    """Many temperatures of one model: one `vmap` against one after the other."""
    mdp = slip_grid(side)
    temperatures = np.linspace(0.2, 2, count)
    one = lambda t: no.functional.infer(mdp, horizon, temperature=t).log_partition
    with jax.enable_x64(True):
        single, many = jax.jit(one), jax.jit(jax.vmap(one))
        serial = best(lambda: [single(t) for t in temperatures])
        together = best(lambda: many(temperatures))
    yield Row(f"{count} temperatures of a {side}×{side} grid, T={horizon}: one by one", serial)
    yield Row(
        f"{count} temperatures of a {side}×{side} grid, T={horizon}: vmap", together, note=f"{serial / together:.1f}×"
    )


def command_line() -> Iterator[Row]:
    """From the shell, in a fresh process."""
    nearopt = [sys.executable, "-m", "nearopt"]
    seconds = min(best_once([*nearopt, "--help"])[0] for _ in range(3))
    yield Row("nearopt --help", seconds, aim="0.3 s", met=seconds <= 0.3)
    with tempfile.TemporaryDirectory() as folder:
        maze = str(ROOT / "examples" / "reach.txt")
        seconds, _ = best_once([*nearopt, "infer", maze, "--horizon", "60", "--temperature", "0.3", "--out", folder])
        yield Row("nearopt infer examples/reach.txt --horizon 60 --out: all pictures, cold", seconds)


def accelerator(side: int = 1000, horizon: int = 50) -> Iterator[Row]:
    """The same recursions on a GPU, where there is one."""
    if jax.default_backend() == "cpu":
        yield Row("accelerator rows", float("nan"), note="no accelerator here")
        return
    yield from large(side, horizon, repeats=3)


GROUPS = {f.__name__: f for f in (large, memory, small, trajectories, batch, command_line, accelerator)}
