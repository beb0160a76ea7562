"""Arguments → a dataclass, by tyro: its fields are the options, their docstrings the help."""

from collections.abc import Sequence
from typing import Annotated

import tyro

CONFIG = (tyro.conf.FlagCreatePairsOff,)
Json = Annotated[bool, tyro.conf.arg(name="json", help_behavior_hint="")]
Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE", help_behavior_hint="")]


def named(metavar: str, default: str | None = None) -> object:
    """For `Annotated`: what stands for the value in the help, and what is said of its default."""
    hint = None if default is None else default and f"(default: {default})"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


Pairs = Annotated[  # --set a=1 b=2 --set c=3
    tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]], named("KEY=VALUE", "")
]


def parse[T](options: type[T], verb: str, examples: str, argv: Sequence[str]) -> T:
    """The options of one verb. Help ends with the examples, as they are; a usage error exits with 2."""
    try:
        return tyro.cli(options, prog=f"nearopt {verb}", args=list(argv), config=CONFIG)
    except SystemExit as stop:
        if stop.code in (0, None):
            print(examples, end="")
        raise
