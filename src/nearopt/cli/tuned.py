"""Which algorithms there are, and their settings per environment: `tuned/<algorithm>.toml`, a table for each id."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from nearopt.mdp.errors import ArgumentError

ALGORITHMS = {  # name: class
    "sac": "SAC",
    "discrete-sac": "DiscreteSAC",
    "soft-dqn": "SoftDQN",
    "sql": "SQL",
    "soft-pg": "SoftPG",
    "pcl": "PCL",
}
TABLES = Path(__file__).with_name("tuned")


def class_name(algorithm: str) -> str:
    """The agent's class. Raises `ArgumentError`, with the nearest name."""
    if algorithm in ALGORITHMS:
        return ALGORITHMS[algorithm]
    near = difflib.get_close_matches(algorithm.lower().replace("_", "-"), ALGORITHMS, n=1)
    mend = f"did you mean {near[0]}" if near else f"there are {', '.join(ALGORITHMS)}"
    raise ArgumentError(f"there is no algorithm {algorithm!r}", mend)


def tuned_settings(algorithm: str, id: str) -> dict[str, Any]:
    """What was found to work in this environment, over the class's defaults; {} where they are what there is."""
    return tomllib.loads((TABLES / f"{algorithm}.toml").read_text("utf-8")).get(id, {})
