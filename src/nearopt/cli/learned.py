"""Run folders on the command line: which ones a folder holds, what they have come to, and what to do next."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearopt.cli.output import print_table
from nearopt.environments import TABLE
from nearopt.runs.curves import read
from nearopt.runs.directory import RunDirectory, open_runs
from nearopt.runs.errors import NotARunError


def finished_runs(folder: Path) -> list[RunDirectory]:
    """`open_runs`, if each has its final agent. Raises `NotARunError` as well."""
    runs = open_runs(folder)
    if missing := [run.path for run in runs if not run.finished]:
        problem = f"{missing[0]} has no final agent yet"
        raise NotARunError(problem, f"finish the training: nearopt resume {folder}")
    return runs


def task_of(run: RunDirectory) -> str:
    """`SAC on Pendulum-v1`."""
    env = run.config["env"]
    kwargs = "".join(f" {key}={value}" for key, value in (env["kwargs"] or {}).items())
    return f"{run.config['algorithm']} on {env['id'] or 'an environment of its own'}{kwargs}"


def table_of(run: RunDirectory) -> dict[str, Any]:
    """The columns of metrics.csv; {} where nothing was written yet."""
    path = run.path / "metrics.csv"
    return read(path) if path.is_file() and path.stat().st_size else {}


def numbers_of(runs: Sequence[RunDirectory], folder: Path) -> dict[str, Any]:
    """What --json prints of runs that were trained together."""
    config = runs[0].config
    out = dict(run_dir=folder, algorithm=config["algorithm"], env=config["env"]["id"])
    out |= dict(env_kwargs=config["env"]["kwargs"], total_timesteps=config["end"] - config["start"])
    return out | dict(resume=config["resume"], settings=config["settings"], runs=[row_of(run) for run in runs])


def row_of(run: RunDirectory) -> dict[str, Any]:
    """One run: how far it is, and the last of what it measured."""
    table = table_of(run)
    row: dict[str, Any] = dict(run_dir=run.path, seed=run.config["seed"], finished=run.finished)
    row["steps"], row["episodes"] = (
        int(np.nan_to_num(table[name][-1])) if len(table.get(name, ())) else 0 for name in ROW
    )
    for name in ("return", "soft_return"):
        told = [value for value in table.get(name, ()) if not math.isnan(value)]
        row[name] = float(told[-1]) if told else None
    return row


ROW = ("step", "episodes")


# ---------------------------------------------------------------- lines
def show(report: Mapping[str, Any], runs: Sequence[RunDirectory], failed: Mapping[Path, str]) -> None:
    """The numbers for people, and the commands that come next."""
    rows, folder = report["runs"], report["run_dir"]
    seeds = f"seed {rows[0]['seed']}" if len(rows) == 1 else f"{len(rows)} seeds"
    print(f"{task_of(runs[0])}, {seeds}\n")
    print("trained; the returns are means of the last episodes, those since the row of metrics before")
    header = ("seed", "steps", "episodes", "return", "soft return", "")
    print_table([header, *(cells(row, failed.get(row["run_dir"], "")) for row in rows)])
    print(f"\nwritten to {folder}" + ("" if len(rows) == 1 else ", a folder for each seed"))
    print_table(
        [("agent/", "the agent"), ("metrics.csv, tensorboard/", "what was measured"), ("checkpoints/", went(report))]
    )
    if ":" in (report["env"] or ""):
        print("\nfrom Python: no file may import the module of this environment\n")
        print(f"    import {report['env'].partition(':')[0]}, nearopt")
        print(f'    nearopt.resume("{folder}", env=...), or nearopt.load_agent("{folder}/agent", env=...)')
        return
    print("\nnext")
    if all(row["finished"] for row in rows):
        seen = report["env"] not in TABLE  # what is written in JAX does not draw itself
        print_table([(f"nearopt {verb} {folder}", what) for verb, what in NEXT.items() if seen or verb != "enjoy"])
    else:
        print_table([(f"nearopt resume {folder}", "goes on with what is not finished")])


NEXT = {
    "evaluate": "returns of new episodes, with and without the policy's noise",
    "plot": "the learning curve",
    "enjoy": "watch it, or film it with --video DIR",
}


def went(report: Mapping[str, Any]) -> str:
    """What the checkpoints are good for."""
    exact = report["resume"] == "exact"
    return "after a kill the run goes on " + ("to the same bytes" if exact else report["resume"])


def cells(row: Mapping[str, Any], error: str) -> tuple[str, ...]:
    returns = ("none yet" if row[name] is None else f"{row[name]:,.4g}" for name in ("return", "soft_return"))
    state = error or ("" if row["finished"] else "not finished")
    return (str(row["seed"]), f"{row['steps']:,}", f"{row['episodes']:,}", *returns, state)
