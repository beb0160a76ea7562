"""Rows of a table: seconds beside the least that the memory bus allows, measured in the same run."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import nearopt as no

HEADER = "| problem | seconds | per step | must move | share of the floor | aim |"
RULE = "|---|---:|---:|---:|---:|---|"


@dataclass(frozen=True)
class Row:
    """One measurement. `moved`: bytes that the work must at least read and write; `aim`: what the issue asks for.

    `least_share`: the share of the floor's rate that it asks for, judged where the floor is known.
    """

    problem: str
    seconds: float
    steps: int = 1
    moved: float = 0.0
    aim: str = ""
    met: bool | None = None
    note: str = ""
    least_share: float = 0.0

    def line(self, bandwidth: float) -> str:
        """The row in Markdown; the share of the floor is floor time over measured time."""
        reached = self.moved / bandwidth / self.seconds
        share = f"{reached:.0%}" if self.moved else ""
        if self.least_share:
            share += f" of the {self.least_share:.0%} aimed at{verdict(reached >= self.least_share)}"
        moved = f"{self.moved / 2**30:.2f} GiB" if self.moved else ""
        per_step = f"{self.seconds / self.steps * 1e3:.3g} ms" if self.steps > 1 else ""
        problem = f"{self.problem} ({self.note})" if self.note else self.problem
        seconds = f"{self.seconds:.4g}" if self.seconds == self.seconds else ""
        return f"| {problem} | {seconds} | {per_step} | {moved} | {share} | {self.aim}{verdict(self.met)} |"


def verdict(met: bool | None) -> str:
    """What follows an aim."""
    return "" if met is None else (": met" if met else ": **missed**")


def race(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Least seconds of several runs of each, after one that compiles; they take turns, so that noise meets all."""
    for work in works:
        jax.block_until_ready(work())
    least = [float("inf")] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            start = time.perf_counter()
            jax.block_until_ready(work())
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def best(work: Callable[[], object], repeats: int = 3) -> float:
    """Least seconds of several runs, after one that compiles."""
    return race([work], repeats)[0]


def read_bandwidth(size: int = 2**25) -> float:
    """Bytes per second at which all cores together read an array much larger than the cache: the floor."""
    array = np.ones(size)
    parts = np.array_split(array, os.cpu_count() or 1)
    with ThreadPoolExecutor(len(parts)) as threads:
        by_numpy = best(lambda: list(threads.map(np.sum, parts)), 5)
    with jax.enable_x64(True):
        on_device = jnp.asarray(array)
        total = jax.jit(jnp.sum)
        by_jax = best(lambda: total(on_device), 5)
    return array.nbytes / min(by_numpy, by_jax)


def machine() -> str:
    """Where and when, without a name of the machine."""
    parts = [
        time.strftime("%Y-%m-%d"),
        f"Python {platform.python_version()}",
        f"nearopt {no.__version__}",
        f"jax {jax.__version__}",
        f"numpy {np.__version__}",
        f"{os.cpu_count()} cores",
        jax.devices()[0].platform,
        f"load average {os.getloadavg()[0]:.1f} at the start",
    ]
    return " · ".join(parts)
