"""Learning agents: steps per second beside SB3 and SBX, in turns, each in a process of its own.

The peers' PyTorch is built for the CPU alone on Python 3.11 only, so they live in `.venv-peers`, never in `.venv`:
`make peers`. Where that folder is missing, their rows say so.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Row, best

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers/bin/python"
UPDATE = 0.59e9  # floating-point operations of one update: three networks of 256 × 256, batch 256
ROUNDS = 3


def work(python: Path | str, script: str, *arguments: object) -> dict | None:
    """What a script in this folder prints as JSON on its last line; None where it cannot run."""
    command = [str(python), str(ROOT / "benchmarks" / script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MUJOCO_GL": "egl"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT / "out")
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def matrix_rate(size: int = 256, products: int = 16) -> float:
    """Floating-point operations per second of products as large as an update's, on all cores: the floor."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)) / size**0.5, jnp.float32)
    chain = jax.jit(lambda x: jax.lax.fori_loop(0, products, lambda i, y: y @ x, x))
    return products * 2 * size**3 / best(lambda: chain(x), 50)


def half_cheetah() -> Iterator[Row]:
    """One update of batch 256 per step, two hidden layers of 256: environment, buffer and update together."""
    rate = matrix_rate()
    yield Row("matrix products of 256 × 256: floor of an update", UPDATE / rate, note=f"{rate / 1e9:.0f} GFLOP/s")
    rivals = {"nearopt": (sys.executable, "agents_speed.py", "nearopt")}
    if PEERS.exists():
        rivals |= {name: (PEERS, "agents_speed.py", name) for name in ("sb3", "sbx")}
    for environment, hidden, batch in (("HalfCheetah-v5", 256, 256), ("Pendulum-v1", 64, 64)):
        found: dict[str, float] = {}
        for _ in range(ROUNDS):  # in turns: noise meets all
            for name, (python, script, *arguments) in rivals.items():
                answer = work(python, script, *arguments, environment, hidden, batch)
                if answer:
                    found[name] = min(found.get(name, float("inf")), answer["seconds"])
        for name, seconds in found.items():
            ratio = seconds / found["nearopt"]
            aim, met = "", None
            if environment == "HalfCheetah-v5" and name != "nearopt":
                wanted = {"sb3": 3.0, "sbx": 1.5}[name]
                aim, met = f"{wanted:g} × as slow as nearopt", ratio >= wanted
            note = f"{1 / seconds:.0f} steps/s" + ("" if name == "nearopt" else f", {ratio:.2f} × nearopt's time")
            if environment == "HalfCheetah-v5" and name == "nearopt":
                share = UPDATE / rate / seconds
                note, aim, met = f"{note}, {share:.2f} of the floor", "0.7 of the floor", share >= 0.7
            yield Row(
                f"{name}: a step of {environment}, {hidden} × {hidden}, batch {batch}",
                seconds,
                aim=aim,
                met=met,
                note=note,
            )
        for name in ("sb3", "sbx"):
            if name not in found:
                yield Row(f"{name}: {environment}", float("nan"), note="not installed: make peers")


def pendulum() -> Iterator[Row]:
    """From the command to the file of an agent whose mean return is above −200: imports and compiling included."""
    folder = ROOT / "out" / f"bench-pendulum-{os.getpid()}"
    settings = ["sac", "Pendulum-v1", "--total-timesteps", "5000", "--seed", "0", "--run-dir", str(folder)]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nearopt", "train", *settings], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    command = [sys.executable, "-m", "nearopt", "evaluate", str(folder), "--episodes", "20", "--json"]
    returned = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    mean = returned["runs"][0]["deterministic"]["mean"]
    met = seconds <= 30 and mean > -200
    yield Row("Pendulum-v1 from a cold start", seconds, aim="30 s to −200", met=met, note=f"mean return {mean:.0f}")


def seeds() -> Iterator[Row]:
    """Eight seeds of an environment in JAX at once, and one after another."""
    for hidden, batch in ((64, 64), (256, 256)):
        one, eight = (work(sys.executable, "agents_speed.py", "seeds", n, hidden, batch) for n in (1, 8))
        assert one and eight
        ratio = 8 * one["seconds"] / eight["seconds"]
        small = hidden == 64
        yield Row(
            f"nearopt/Pendulum-v0, {hidden} × {hidden}, batch {batch}: a step of 8 seeds at once",
            eight["seconds"],
            aim="3 × the rate of one after another" if small else "",
            met=ratio >= 3 if small else None,
            note=f"{ratio:.1f} × the rate of one after another, {8 / eight['seconds']:.0f} steps/s in all",
        )


def memory() -> Iterator[Row]:
    """A full buffer of 10⁶ transitions of HalfCheetah."""
    answer = work(sys.executable, "agents_speed.py", "memory")
    assert answer
    megabytes = answer["bytes"] / 1e6
    note = f"{megabytes:.0f} MB resident"
    yield Row("10⁶ transitions of HalfCheetah", answer["seconds"], aim="250 MB", met=megabytes <= 250, note=note)


GROUPS = {"half-cheetah": half_cheetah, "pendulum": pendulum, "seeds": seeds, "replay": memory}
