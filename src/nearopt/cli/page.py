"""report.html: one file without scripts or addresses, to be opened, printed, sent."""

import base64
import platform
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from nearopt import __version__
from nearopt.cli.doctor import OPTIONAL, REQUIRED, version_of
from nearopt.cli.fitted import BIT, beaten, coefficient_rows, fixed, number, state_of, verdict

if TYPE_CHECKING:
    from nearopt.behaviour.report import Report
    from nearopt.cli.recorded import Recorded

TEMPLATE = Path(__file__).with_name("report.html")
WORDS = {  # what a picture shows, to those who do not see it
    "data": "recorded decisions over the states of the world",
    "reward": "the fitted reward over the states of the world",
    "coefficients": "estimated coefficients with their intervals",
    "predictions": "statistics of the recorded data over the range of simulations of the fitted agent",
    "comparison": "log-likelihood per decision of the fitted agent and of the baselines",
}
ERRORS = {"hessian": "inverse Hessian", "opg": "outer product of scores", "sandwich": "sandwich"}


def render(numbers: dict[str, Any], report: "Report", recorded: "Recorded", pictures: Sequence[Path]) -> str:
    """The page; every text that comes from the data or the command line is escaped."""
    where = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    where.filters |= dict(number=number, fixed=fixed, count=lambda x: f"{x:,}", bits=lambda x: fixed(x / BIT))
    return where.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        numbers=numbers,
        report=report,
        recorded=recorded,
        title=Path(numbers["data"]).name,
        date=datetime.now().astimezone().isoformat(" ", "minutes"),
        platform=platform.platform(),
        versions=versions(),
        prints={str(path): fingerprint(path) for path in (Path(numbers["data"]), Path(numbers["source"]))},
        verdict=verdict(report),
        state=state_of(report),
        good=bool(report.model.converged_) and not any(map(beaten, report.rows[1:])),
        settings=settings(numbers, report),
        pictures={path.stem: (picture(path), WORDS[path.stem]) for path in pictures},
        coefficients=coefficient_rows(report),
        errors=error_words(report),
        checks=check_sentences(report),
        identifiability=report.identifiability().splitlines(),
    )


def versions() -> dict[str, str]:
    found = {name: version_of(name) for name in (*REQUIRED, *OPTIONAL)}
    known = {name: version for name, version in found.items() if version is not None}
    return dict(nearopt=__version__, python=platform.python_version()) | known


def fingerprint(path: Path) -> str | None:
    """SHA-256 of a file that was read, None where it is none (an environment)."""
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def picture(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def settings(numbers: dict[str, Any], report: "Report") -> list[tuple[str, str]]:
    """What was fixed and what was fitted, by name."""
    model = report.model
    kind = f"{model.reward}{', over time' if report.time_varying else ''}"
    dials = {
        name: f"{number(getattr(model, f'{name}_'), 6)}{' (fitted)' if name in report.dials else ''}"
        for name in ("temperature", "optimism", "discount")
    }
    horizon = "infinite" if model.horizon is None else str(model.horizon)
    rows = [("reward", kind), ("coefficients", f"{report.coef.size:,}"), ("horizon", horizon), *dials.items()]
    rows += [
        ("action prior", str(numbers["prior"])),
        ("l2", number(model.l2)),
        ("smoothness", number(model.smoothness)),
    ]
    return [*rows, ("likelihood", f"of {model.likelihood}")]


def error_words(report: "Report") -> str:
    """How the intervals were made."""
    asked = report.asked
    of = f", of {asked.by}s" if asked.by and asked.stderr != "hessian" else ""
    how = {"profile": "profile likelihood", "bootstrap": f"bootstrap over {asked.by or 'episode'}s"}
    made = how.get(asked.intervals, "estimate ± z standard errors")
    return f"{asked.level:.0%} intervals: {made}; standard errors: {ERRORS[asked.stderr]}{of}"


def check_sentences(report: "Report") -> list[str]:
    """What the predictive checks have shown."""
    if report.checks is None:
        return ["No trajectory has a first state: nothing could be simulated."]
    named = dict(visits="visits of states", actions="frequencies of actions", over_time="visits over time")
    out = []
    for name, what in named.items():
        check = getattr(report.checks, name)
        low, high = map(fixed, check.usual)
        told = "differ from the agent's by more than chance" if check.far else "could be the agent's"
        out.append(f"The {what} {told}: distance {fixed(check.distance)}, by chance {low} to {high}.")
    return out
