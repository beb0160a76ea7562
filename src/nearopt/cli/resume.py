"""`nearopt resume`: goes on with a run that was stopped or killed, to the end it was to reach."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from nearopt.cli.machine import cores
from nearopt.cli.options import Json, named, parse

if TYPE_CHECKING:
    from nearopt.runs.directory import RunDirectory

EXAMPLES = """\
examples, to be copied:
  nearopt resume runs/sac-Pendulum-v1-seed0
  nearopt resume runs/pendulum --json

RUN_DIR is what `nearopt train` was given as --run-dir: one run, or the folder above several seeds. It goes on from the
newest checkpoint that is whole. Where config.json says "resume": "exact", the agent and metrics.csv end up with the
same bytes as if the run had never been stopped, on this machine, with as many cores and these versions of packages.

--json
  as of `nearopt train`, without tuned.
"""


@dataclass(frozen=True)
class Options:
    """Goes on with a run that was stopped or killed. One that is finished is left alone."""

    run_dir: Annotated[Path, tyro.conf.Positional, named("RUN_DIR", "")]
    """The folder of a run, or the folder above several seeds."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "resume", EXAMPLES, argv)
    from nearopt.cli.train import finish, in_jax, resumable
    from nearopt.runs.directory import complete

    folder, failed = options.run_dir, {}
    runs = complete(folder)
    left = [run for run in runs if not run.finished]
    if not left and not options.json:
        print(f"finished already: {folder}\n")
    for difference in differences(left[0]) if left else ():
        print(f"nearopt: warning: {difference} The bytes may differ.", file=sys.stderr)
    with resumable(folder):
        together = bool(left) and in_jax(left[0].config["env"]["id"])
        if together or len(left) == 1:
            from nearopt.agents.session import resume

            resume(folder if together else left[0].path, progress_bar=True)
        elif left:
            from nearopt.cli.seeds import side_by_side

            failed = side_by_side(left)
    return finish(folder, failed, options.json)


def differences(run: "RunDirectory") -> list[str]:
    """A sentence for all that is not as it was when the run began, and on which the last bits depend."""
    now, then = cores(), run.record["machine"].get("threads", cores())
    same = now == then
    return run.versions_differ() + (
        [] if same else [f"There are {now} cores for it here, and were {then} when it began."]
    )
