"""Runs of several seeds in processes of their own, as many at a time as there are cores."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from nearopt.cli.learned import row_of
from nearopt.cli.machine import cores
from nearopt.mdp.errors import NearoptError
from nearopt.runs.directory import RunDirectory

POLL = 0.2  # seconds
MOST_SHOWN = 5  # returns beside the bar


def side_by_side(runs: Sequence[RunDirectory]) -> dict[Path, str]:
    """Goes on with each run to its end; returns what went wrong where.

    What ends this process ends the others, but for SIGKILL.
    """
    waiting, most, failed = list(runs), min(cores(), len(runs)), {}
    going: dict[subprocess.Popen, tuple[RunDirectory, IO[bytes]]] = {}
    with contextlib.ExitStack() as files, stopped(going), bar(runs) as tell:
        while waiting or going:
            while waiting and len(going) < most:
                run, told = waiting.pop(0), files.enter_context(tempfile.TemporaryFile())
                going[start(run.path, told, alone=most == 1)] = run, told
            time.sleep(POLL)
            for process in [process for process in going if process.poll() is not None]:
                run, told = going.pop(process)
                if process.returncode:
                    failed[run.path] = reason(process.returncode, told)
            tell(len(runs) - len(waiting) - len(going))
    return failed


def start(folder: Path, told: IO[bytes], alone: bool) -> subprocess.Popen:
    """`nearopt resume`, on one core unless it is alone: processes whose threads compete are slower than one another."""
    env = dict(os.environ)
    if not alone:
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
        env["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "nearopt", "resume", str(folder), "--json"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told, env=env)


def reason(code: int, told: IO[bytes]) -> str:
    """Why a process failed: its last line."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    told.seek(0)
    lines = told.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    return last.strip().removeprefix("nearopt: error: ")


@contextlib.contextmanager
def stopped(going: dict[subprocess.Popen, Any]) -> Iterator[None]:
    """In the end nothing that is `going` goes on, not even after SIGTERM. What is killed can be resumed."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        for process in going:
            process.terminate()
        for process in going:
            process.wait()
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def bar(runs: Sequence[RunDirectory]) -> Iterator[Callable[[int], None]]:
    """On a terminal a bar over the steps of all runs; nothing elsewhere."""
    from tqdm import tqdm

    ends = [run.config["end"] for run in runs]
    with tqdm(total=sum(ends), unit="step", dynamic_ncols=True, disable=None) as line:
        seen = float("-inf")

        def tell(done: int) -> None:
            nonlocal seen
            if line.disable or (time.monotonic() < seen + 1 and done < len(runs)):
                return
            seen = time.monotonic()
            with contextlib.suppress(NearoptError):  # a table that is just being begun
                rows = [row_of(run) for run in runs]
                line.n = sum(row["steps"] for row in rows)
                returns = [f"{row['return']:.4g}" for row in rows if row["return"] is not None]
                line.set_postfix_str(f"{done} of {len(runs)} seeds done, return {' '.join(returns[:MOST_SHOWN])}")

        yield tell
