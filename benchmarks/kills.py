"""SIGKILL at random moments, `nearopt resume`, and then the same bytes: `python -m benchmarks.kills [--save FILE]`.

In each trial a run is killed once, between its first file and the end of training, and resumed to its end. Agent and
metrics are compared, byte by byte, with those of a run that nobody stopped.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

FILES = ("agent/agent.safetensors", "agent/agent.json", "metrics.csv")
SMALL = "--checkpoint-every 300 --log-every 100 --set learning_starts=100 net_arch=[32,32] batch_size=32".split()
CASES = {  # environment: steps
    "Pendulum-v1": 3_000,
    "nearopt/Pendulum-v0": 10_000,
    "HalfCheetah-v5": 3_000,
}


def start(*words: str | Path) -> subprocess.Popen:
    """A `nearopt` of its own."""
    command = [sys.executable, "-m", "nearopt", *map(str, words), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def end(process: subprocess.Popen) -> None:
    _, told = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {told.decode(errors='replace')}")


def undisturbed(words: Sequence[str], folder: Path) -> int:
    """`nearopt train` to its end; the lines of its metrics.csv."""
    end(start("train", *words, "--run-dir", folder))
    return lines_of(folder)


def disturbed(words: Sequence[str], folder: Path, moments: Sequence[tuple[int, float]]) -> int:
    """The same, killed at each moment: so many lines (0: once the run has begun), and then seconds; how many struck."""
    process, struck = start("train", *words, "--run-dir", folder), 0
    for lines, seconds in moments:
        while process.poll() is None and not ((folder / "config.json").exists() and lines_of(folder) >= lines):
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        struck += process.returncode == -signal.SIGKILL
        process = start("resume", folder)
    end(process)
    return struck


def lines_of(folder: Path) -> int:
    path = folder / "metrics.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def different(one: Path, other: Path) -> list[str]:
    """The files whose bytes are not the same."""
    return [name for name in FILES if (one / name).read_bytes() != (other / name).read_bytes()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), help="environments")
    parser.add_argument("--trials", type=int, default=20, help="of each environment")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--save", metavar="FILE", help="write the table to a Markdown file as well")
    options = parser.parse_args()
    lines = [
        "| environment | steps | killed before the end | same bytes |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{place}/cache")
        for name in options.only:
            lines.append(case(name, options.trials, random.Random(options.seed), Path(place)))
            print(*(lines if len(lines) == 3 else lines[-1:]), sep="\n", flush=True)
    if options.save:
        Path(options.save).write_text("\n".join([f"# python -m benchmarks.kills --seed {options.seed}\n", *lines, ""]))


def case(name: str, trials: int, rng: random.Random, place: Path) -> str:
    """A row of the table."""
    words = ["sac", name, "--total-timesteps", str(CASES[name]), *SMALL]
    home = place / name.replace("/", "-")
    undisturbed(words, home / "warm")  # it compiles
    begun = time.monotonic()
    lines = undisturbed(words, home / "reference")
    seconds = (time.monotonic() - begun) / lines
    struck = same = 0
    for trial in range(trials):
        folder = home / str(trial)
        struck += disturbed(words, folder, [(rng.randrange(lines), rng.uniform(0, seconds))])
        odd = different(home / "reference", folder)
        same += not odd
        if odd:
            print(f"{name}, trial {trial}: {', '.join(odd)} differ", file=sys.stderr)
    return f"| {name} | {CASES[name]:,} | {struck} of {trials} | {same} of {trials} |"


if __name__ == "__main__":
    main()
