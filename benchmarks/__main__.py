"""`make bench`, or `python -m benchmarks [--only GROUP ...] [--save FILE]`."""

import argparse

from benchmarks.agents import GROUPS as AGENTS
from benchmarks.behaviour import GROUPS as BEHAVIOUR
from benchmarks.harness import HEADER, RULE, machine, read_bandwidth
from benchmarks.planning import GROUPS as PLANNING
from benchmarks.rows import GROUPS as INFERENCE

GROUPS = INFERENCE | PLANNING | BEHAVIOUR | AGENTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed beside the memory bus's floor.")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), help="groups of rows to run")
    parser.add_argument("--save", metavar="FILE", help="write the table to a Markdown file as well")
    options = parser.parse_args()
    chosen = options.only or list(GROUPS)
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    show(machine())
    bandwidth = read_bandwidth()
    show(f"floor: all cores read {bandwidth / 2**30:.1f} GiB/s\n")
    show(HEADER)
    show(RULE)
    for name in chosen:
        for row in GROUPS[name]():
            show(row.line(bandwidth))
    if options.save:
        command = "python -m benchmarks" + (f" --only {' '.join(options.only)}" if options.only else "")
        with open(options.save, "w", encoding="utf-8") as file:
            file.write(f"# {command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
