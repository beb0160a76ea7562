"""`nearopt doctor`: the toolchain, the machine, and whether its arithmetic is right."""

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

from nearopt import __version__
from nearopt.cli.machine import cores, memory
from nearopt.cli.options import Json, parse
from nearopt.cli.output import print_table, progress, to_json
from nearopt.mdp.errors import NearoptError

REQUIRED = (
    *("jax", "jaxlib", "numpy", "scipy", "gymnasium", "equinox", "jaxtyping"),
    *("optax", "safetensors", "tyro", "rich", "umbi", "pyamg", "scikit-learn", "jinja2", "tensorboardX", "tqdm"),
)
OPTIONAL = {
    "matplotlib": 'draws pictures; pip install "nearopt[figures]"',
    "numpyro": 'samples posteriors of fits; pip install "nearopt[nuts]"',
    "pyarrow": 'reads Parquet; pip install "nearopt[parquet]"',
    "minari": 'reads and writes Minari datasets; pip install "nearopt[minari]"',
    "mujoco": 'runs HalfCheetah and its like; pip install "nearopt[mujoco]"',
    "box2d": 'runs LunarLander; pip install "nearopt[box2d]"',
    "moviepy": 'films an agent for nearopt enjoy --video; pip install "nearopt[video]"',
    "wandb": 'logs a run with Weights & Biases; pip install "nearopt[wandb]"',
}
OLD_PYTHON = "newer JAX, whose sums are right, needs Python 3.12"
OLD_JAX = "jaxlib 0.10.2 sums wrongly under jit (jax #39103), 0.11.0 can hang (jax #39257); use jax 0.12 or newer"

EXAMPLES = """\
examples, to be copied:
  nearopt doctor
  nearopt doctor --json > doctor.json      to go with a bug report

Exit code 0 where nothing failed (warnings are no failure), 1 otherwise.

--json
  ok; versions: by package, null where not installed; platform, cores, memory_gib, devices, environment (JAX_*, XLA_*);
  checks: name, status (ok, warning, failed, absent), detail
"""


@dataclass(frozen=True)
class Options:
    """Checks the toolchain: versions, machine, and JAX's arithmetic against NumPy. Takes a few seconds."""

    json: Json = False
    """Print one JSON object, and nothing else."""


@dataclass(frozen=True)
class Check:
    name: str
    status: Literal["ok", "warning", "failed", "absent"]
    detail: str


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "doctor", EXAMPLES, argv)
    checks: list[Check] = []
    with progress("checking") as tell:
        for check in all_checks():
            checks.append(check)
            tell(f"checked {check.name}")
    healthy = all(check.status != "failed" for check in checks)
    if options.json:
        print(to_json(dict(ok=healthy) | facts() | dict(checks=[asdict(check) for check in checks])))
    else:
        print_table([(check.status, check.name, check.detail) for check in checks], indent="")
        problems = sum(check.status == "failed" for check in checks)
        print("\nall is well" if healthy else f"\n{problems} of {len(checks)} checks failed")
    return 0 if healthy else 1


def all_checks() -> Iterator[Check]:
    yield Check("nearopt", "ok", __version__)
    yield python_check()
    yield from package_checks()
    yield machine_check()
    yield guarded("accelerator", accelerator)
    try:
        from nearopt.cli.selftest import arithmetic

        for what, right, detail in arithmetic():
            yield Check(what, "ok" if right else "failed", detail)
    except Exception as error:  # whatever a broken installation does
        yield broken("arithmetic", error)


def guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return broken(name, error)


def broken(name: str, error: Exception) -> Check:
    detail = str(error) if isinstance(error, NearoptError) else f"{type(error).__name__}: {error}"
    return Check(name, "failed", " ".join(detail.split()))


# ---------------------------------------------------------------- versions
def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def older(version: str, *least: int) -> bool:
    numbers = [int(part) for part in version.split(".")[: len(least)] if part.isdigit()]
    return tuple(numbers) < least


def python_check() -> Check:
    version = platform.python_version()
    detail = f"{version} ({sys.executable})"
    return (
        Check("python", "warning", f"{detail}: {OLD_PYTHON}")
        if older(version, 3, 12)
        else Check("python", "ok", detail)
    )


def package_checks() -> Iterator[Check]:
    for package in REQUIRED:
        version = version_of(package)
        if version is None:
            yield Check(package, "failed", f"not installed; pip install {package}")
        elif package in ("jax", "jaxlib") and older(version, 0, 12):
            yield Check(package, "warning", f"{version}: {OLD_JAX}")
        else:
            yield Check(package, "ok", version)
    for package, use in OPTIONAL.items():
        version = version_of(package)
        yield Check(package, "absent", use) if version is None else Check(package, "ok", version)


# ---------------------------------------------------------------- machine
def machine_check() -> Check:
    size = memory()
    memory_text = "memory unknown" if size is None else f"{size / 2**30:.1f} GiB of memory"
    count = cores()
    return Check("machine", "ok", f"{platform.platform()}, {count} core{'' if count == 1 else 's'}, {memory_text}")


def accelerator() -> Check:
    found = devices()
    return Check("accelerator", "ok", "none: JAX computes on the CPU" if found == ["cpu"] else ", ".join(found))


def devices() -> list[str]:
    import jax

    return [
        "cpu" if device.platform == "cpu" else f"{device.platform} {device.device_kind}" for device in jax.devices()
    ]


def facts() -> dict[str, object]:
    """For JSON: what the checks looked at."""
    size = memory()
    versions = dict(python=platform.python_version(), nearopt=__version__)
    try:
        found: list[str] | None = devices()
    except Exception:  # the check tells
        found = None
    return dict(
        versions=versions | {package: version_of(package) for package in (*REQUIRED, *OPTIONAL)},
        platform=platform.platform(),
        cores=cores(),
        memory_gib=None if size is None else round(size / 2**30, 2),
        devices=found,
        environment={key: value for key, value in os.environ.items() if key.startswith(("JAX_", "XLA_"))},
    )
