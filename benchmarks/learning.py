"""What trained agents are worth at the end: `python -m benchmarks.learning RUN_DIR ... --save FILE`.

Each folder is one that `nearopt train` made (one run, or one of several seeds). Its final agents, not the best ones on
the way, play new episodes in both ways; the curves go beside FILE, to a folder of its name.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

import nearopt as no
from nearopt.cli.learned import task_of
from nearopt.runs.directory import open_runs

HEADER = "| task | steps | seeds | deterministic | stochastic | of each seed, deterministic |"
RULE = "|---|---:|---:|---:|---:|---|"
COLUMNS = ("return", "entropy", "temperature")


def nearopt(*words: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "nearopt", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def row(folder: Path, episodes: int) -> str:
    """A line of the table: interquartile means over seeds with 95 % intervals, of one seed mean ± deviation."""
    report = json.loads(nearopt("evaluate", folder, "--episodes", episodes, "--json"))
    runs = open_runs(folder)
    each = ", ".join(f"{run['deterministic']['mean']:,.0f}" for run in report["runs"])
    parts = (task_of(runs[0]), f"{report['runs'][0]['steps']:,}", str(len(runs)))
    values = [value(report, way) for way in ("deterministic", "stochastic")]
    return "| " + " | ".join((*parts, *values, each)) + " |"


def value(report: dict[str, Any], way: str) -> str:
    if report["over_seeds"]:
        found = report["over_seeds"][way]
        return f"{found['iqm']:,.0f} ({found['low']:,.0f} to {found['high']:,.0f})"
    found = report["runs"][0][way]
    return f"{found['mean']:,.0f} ± {found['std']:,.0f}"


def command_of(folder: Path) -> str:
    """The first seed's, with the number of seeds."""
    runs = open_runs(folder)
    return f"{runs[0].record['command']}" + (f"  ({len(runs)} seeds)" if len(runs) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=(__doc__ or "").split(":")[0])
    parser.add_argument("folders", metavar="RUN_DIR", nargs="+", type=Path)
    parser.add_argument("--episodes", type=int, default=20, help="of each agent, in each way")
    parser.add_argument("--save", metavar="FILE", type=Path, required=True, help="the Markdown file to write")
    options = parser.parse_args()
    lines = [f"# python -m benchmarks.learning: final agents, {options.episodes} new episodes each, in each way\n"]
    python, today = platform.python_version(), time.strftime("%Y-%m-%d")
    lines += [f"{today} · Python {python} · nearopt {no.__version__} · jax {jax.__version__}\n"]
    lines += [HEADER, RULE]
    pictures = options.save.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    links, commands = [], []
    for folder in options.folders:
        lines.append(row(folder, options.episodes))
        print(lines[-1], flush=True)
        picture = pictures / f"{folder.name}.png"
        nearopt("plot", folder, "--column", *COLUMNS, "--out", picture)
        links.append(f"![{folder.name}]({pictures.name}/{picture.name})\n")
        commands.append(f"    {command_of(folder)}")
    text = "\n".join([*lines, "", "Commands\n", *commands, "\nCurves\n", *links])
    options.save.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
