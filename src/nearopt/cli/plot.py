"""`nearopt plot`: learning curves of one or more runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nearopt.cli.options import Json, named, parse
from nearopt.mdp.errors import ArgumentError

if TYPE_CHECKING:
    from nearopt.runs.curves import Curve
    from nearopt.runs.directory import RunDirectory

MOST_POINTS = 200

EXAMPLES = """\
examples, to be copied:
  nearopt plot runs/sac-Pendulum-v1-seed0
  nearopt plot runs/pendulum runs/pendulum-small --column return soft_return temperature --out curves.svg

Each RUN_DIR becomes a line: one run, or the folder above several seeds. Of seeds it is the interquartile mean, with the
95 % bootstrap interval as a band (Agarwal et al. 2021); up to ten seeds are drawn one by one as well, in thin lines.
Runs need not be finished. The columns are those of metrics.csv; each gets a panel. A return is the mean of the episodes
that ended since the row before: of the policy that explored, so it says less than `nearopt evaluate`.

--json
  file; curves: run_dir, label, column, seeds, steps (of the last point), iqm, low, high (there).
"""


@dataclass(frozen=True)
class Options:
    """Learning curves: the interquartile mean over seeds, with a bootstrap interval."""

    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional, named("RUN_DIR", "")]
    """Runs, or folders above several seeds."""
    column: Annotated[tuple[str, ...], named("NAME")] = ("return",)
    """Columns of metrics.csv: return, soft_return, entropy, temperature, length, q, critic_loss, ..."""
    out: Annotated[Path, named("FILE")] = Path("curves.png")
    """The picture: .png or .svg. One that is there is replaced."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "plot", EXAMPLES, argv)
    from nearopt.cli.artifacts import check_folder, make_folder
    from nearopt.cli.output import print_table, progress, to_json
    from nearopt.runs.directory import open_runs

    check(options)
    check_folder(options.out.parent)
    groups = {folder: open_runs(folder) for folder in options.run_dirs}
    names = labels(groups)
    with progress("reading"):
        panels = {
            column: {names[folder]: curve_of(runs, column) for folder, runs in groups.items()}
            for column in options.column
        }
    from nearopt.figures import curves_page, save_curves

    make_folder(options.out.parent)
    save_curves(curves_page(panels), options.out)
    rows: list[dict[str, Any]] = []
    for column, curves in panels.items():
        for folder, found in zip(groups, curves.values(), strict=True):
            row = dict(
                run_dir=folder, label=names[folder], column=column, seeds=len(found.runs), steps=int(found.step[-1])
            )
            rows.append(row | dict(iqm=found.iqm[-1], low=found.low[-1], high=found.high[-1]))
    if options.json:
        print(to_json(dict(file=options.out, curves=rows)))
        return 0
    print("at the last step that all seeds of a line have")
    header = ("", "column", "seeds", "steps", "interquartile mean", "95 % interval")
    print_table([header, *map(cells, rows)])
    print(f"\nwritten\n  {options.out}")
    return 0


def curve_of(runs: "list[RunDirectory]", column: str) -> "Curve":
    """At as many steps as the runs have rows, so that the points of a short curve are its rows; at most at 200."""
    from nearopt.runs.curves import curve, values

    paths = [run.path for run in runs]
    rows = max(len(values(path / "metrics.csv", column)[0]) for path in paths)
    return curve(paths, column, points=min(rows, MOST_POINTS))


def check(options: Options) -> None:
    if not options.run_dirs:
        raise ArgumentError("no runs are given", "name at least one folder: nearopt plot runs/pendulum")
    if options.out.suffix.lower() not in (".png", ".svg"):
        raise ArgumentError(f"--out is {options.out}", "give a file that ends with .png or .svg")
    for name, given in (("RUN_DIR", options.run_dirs), ("--column", options.column)):
        if twice := [one for number, one in enumerate(given) if one in given[:number]]:
            raise ArgumentError(f"{name} {twice[0]} is given twice", "give it once")


def labels(groups: "dict[Path, list[RunDirectory]]") -> dict[Path, str]:
    """Algorithm and environment; where that is not enough to tell them apart, also the folder."""
    from nearopt.cli.learned import task_of

    tasks = {folder: task_of(runs[0]) for folder, runs in groups.items()}
    alike = {task for task in tasks.values() if list(tasks.values()).count(task) > 1}
    return {folder: f"{task}: {folder}" if task in alike else task for folder, task in tasks.items()}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    interval = f"{row['low']:,.4g} to {row['high']:,.4g}" if row["seeds"] > 1 else ""
    return (row["label"], row["column"], str(row["seeds"]), f"{int(row['steps']):,}", f"{row['iqm']:,.4g}", interval)
