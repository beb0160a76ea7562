"""A fit in numbers for programs, in lines for people, and as a folder with a report."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearopt.cli.output import print_table, to_json

if TYPE_CHECKING:
    from nearopt.behaviour.comparison import Row
    from nearopt.behaviour.report import Report
    from nearopt.cli.fit import Options
    from nearopt.cli.recorded import Recorded

BIT = math.log(2.0)
LINES = 12  # coefficients that are printed


def numbers_of(report: "Report", recorded: "Recorded") -> dict[str, Any]:
    """The numbers of `nearopt fit`, under the names of their attributes."""
    model, first = report.model, report.rows[0]
    out: dict[str, Any] = {
        name: getattr(model, name) for name in ("reward", "time_varying", "horizon", "likelihood", "l2", "smoothness")
    }
    out |= dict(num_states=model.mdp.num_states, num_actions=model.mdp.num_actions)
    out |= data_numbers(recorded)
    out |= dict(coef=report.coef, stderr=report.stderr, lower=report.lower, upper=report.upper, names=report.names)
    out |= dict(level=report.level, stderr_kind=report.asked.stderr, intervals=report.asked.intervals)
    out |= dict(temperature=model.temperature_, optimism=model.optimism_, discount=model.discount_)
    out["dials"] = {name: dict(zip(("estimate", "lower", "upper"), x, strict=True)) for name, x in report.dials.items()}
    out |= dict(log_likelihood=model.log_likelihood_, num_decisions=model.num_decisions_)
    out |= dict(num_parameters=model.num_parameters_, gradient=report.gradient, n_iter=model.n_iter_)
    out |= dict(converged=model.converged_, message=model.message_)
    out |= dict(score=first.held_out if len(report.held_out) else None, train_score=first.train)
    out |= dict(identifiable=model.identifiable_, identifiability=report.identifiability())
    out["comparison"] = [asdict(row) | dict(bits=row.bits) for row in report.rows]
    checks = report.checks
    out["checks"] = checks and {
        name: dict(distance=check.distance, usual=check.usual, far=check.far)
        for name, check in (("visits", checks.visits), ("actions", checks.actions), ("over_time", checks.over_time))
    }
    out["optimism_test"] = report.optimism and asdict(report.optimism) | dict(words=report.optimism.describe())
    return out


def data_numbers(recorded: "Recorded") -> dict[str, Any]:
    parts = [part for part in (recorded.train, recorded.held_out) if len(part)]
    who = None if parts[0].subject is None else [s for part in parts for s in part.subject.tolist()]  # type: ignore[union-attr]
    return dict(
        subjects=None if who is None else len(set(who)),
        episodes=sum(map(len, parts)),
        decisions=sum(part.num_decisions for part in parts),
        held_out_episodes=len(recorded.held_out),
        held_out_decisions=recorded.held_out.num_decisions,
        held_out=recorded.how,
        num_dropped=recorded.num_dropped,
        dropped=recorded.dropped,
    )


# ---------------------------------------------------------------- words
def number(value: float, digits: int = 4, full: bool = False) -> str:
    """A number for people: −1.234, 3.4e-07, ∞; a dash where there is none. full: with zeros at its end."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:#.{digits}g}".rstrip(".") if full else f"{value:.{digits}g}"
    if digits <= math.log10(max(abs(value), 1)) and abs(value) < 1e6:
        text = f"{value:,.0f}"  # 12,345 and not 1.234e+04
    return text.replace("-", "−", 1) if value < 0 else text


def fixed(value: float, decimals: int = 3) -> str:
    """As `number`, with as many decimals in every row of a table."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")  # −0.0 + 0.0 is 0.0


def verdict(report: "Report") -> list[str]:
    """What the fit has shown, in sentences: beside the uniform policy, and beside the empirical Markov policy."""
    out, mine = [], report.rows[0]
    if not len(report.held_out):
        bits = fixed(mine.train / BIT)
        out.append(f"It explains the data it was fitted to with {bits} bits per decision; nothing was held out.")
        told = [f"{row.name} {fixed(row.train / BIT)} bits, AIC {fixed(row.aic, 1)}" for row in report.rows[1:]]
        out.append(f"Beside it (AIC {fixed(mine.aic, 1)}): {'; '.join(told)}.")
        return out
    out.append(f"It predicts held-out decisions with {fixed(mine.bits)} bits per decision.")
    always = ("uniform", "empirical Markov", "empirical Markov, over time")
    for row in report.rows[1:]:
        if row.name in always or beaten(row):
            out.append(beside(row))
    return out


def beaten(row: "Row") -> bool:
    """Whether another explanation predicts better than the fitted agent, by more than chance where that is known."""
    return row.difference < -2 * (row.error if math.isfinite(row.error) else 0.0)


def beside(row: "Row") -> str:
    """The fitted agent beside one of the others."""
    gap, error = row.difference / BIT, row.error / BIT
    against = f"“{row.name}” ({fixed(row.bits)} bits)"
    if math.isnan(gap):
        return f"Beside {against}: no comparison, both find some decision impossible."
    told = f"{fixed(abs(gap))}{f' ± {fixed(error)}' if math.isfinite(error) else ''} bits per decision"
    if not beaten(row) and not gap > 2 * (error if math.isfinite(error) else 0.0):
        return f"It predicts about as well as {against}: they differ by {told}."
    return f"It predicts {'WORSE' if beaten(row) else 'better'} than {against}, by {told}."


def state_of(report: "Report") -> str:
    """Whether the optimiser arrived."""
    model = report.model
    if model.converged_:
        return f"converged after {model.n_iter_:,} iterations"
    return f"not converged: {model.message_ or 'no reason is known'}"


# ---------------------------------------------------------------- text
def show(numbers: dict[str, Any], report: "Report", recorded: "Recorded") -> None:
    """The numbers for people."""
    model, decisions = report.model, numbers["decisions"]
    print(f"{numbers['data']}: {numbers['episodes']:,} episodes, {decisions:,} decisions; world {numbers['source']}")
    held = numbers["held_out_episodes"], numbers["held_out_decisions"]
    print(f"held out: {recorded.how}" + (" (episodes: {:,}, decisions: {:,})".format(*held) if held[0] else ""))
    if recorded.dropped:
        print(f"left out: {recorded.num_dropped:,} rows or steps")
        print_table([(line,) for line in recorded.dropped[:LINES]])
    horizon = "infinite" if model.horizon is None else model.horizon
    dials = f"temperature {model.temperature_:.4g}, optimism {model.optimism_:.4g}, discount {model.discount_:.6g}"
    print(f"reward {model.reward}, horizon {horizon}, {dials}; {state_of(report)}\n")
    for sentence in verdict(report):
        print(sentence)
    print("\nlog-likelihood per decision, in bits")
    print_table([("", "fitted to", "held out", "parameters")] + [comparison_row(row) for row in report.rows])
    lines = coefficient_rows(report)[:LINES]
    if lines:
        more = report.coef.size + len(report.dials) - len(lines)
        print(f"\n{'coefficients' if report.coef.size else 'dials'}, with {report.level:.0%} intervals")
        print_table([("", "estimate", "s.e.", "from", "to"), *lines])
        print(f"  and {more:,} more: --json or --report DIR" if more else "", end="\n" if more else "")
    if report.unsure:
        print(f"no intervals: {report.unsure}")
    print(f"\n{report.identifiability()}")
    if report.optimism:
        print(report.optimism.describe())
    for text in numbers["warnings"]:
        print(f"warning: {text}")
    if numbers["files"]:
        print("\nwritten")
        print_table([(path,) for path in numbers["files"]])


def comparison_row(row: "Row") -> tuple[str, ...]:
    return row.name, f"{fixed(row.train / BIT):>9}", f"{fixed(row.bits):>8}", f"{row.parameters:>10,.1f}"


def coefficient_rows(report: "Report") -> list[tuple[str, ...]]:
    """Name, estimate, standard error and bounds of the dials and of the coefficients that are shown."""
    rows = [
        (name, number(x, full=True), "", number(low, full=True), number(high, full=True))
        for name, (x, low, high) in report.dials.items()
    ]
    coef = np.where(np.abs(report.coef) <= 1e-9 * np.abs(report.coef).max(initial=0.0), 0.0, report.coef)  # rounding
    flat = [array.reshape(-1) for array in (coef, report.stderr, report.lower, report.upper)]
    return rows + [(report.names[i], *(number(float(array[i]), full=True) for array in flat)) for i in report.shown]


# ---------------------------------------------------------------- files
def write(numbers: dict[str, Any], report: "Report", recorded: "Recorded", options: "Options") -> list[str]:
    """Pictures, report.html, fit.safetensors and fit.json; returns their paths."""
    import safetensors.numpy

    from nearopt.cli.artifacts import make_folder
    from nearopt.cli.page import render
    from nearopt.figures import behaviour_figures
    from nearopt.mdp.files.atomic import write_atomically

    folder: Path | None = options.report
    assert folder is not None
    make_folder(folder, "--report")
    pictures = behaviour_figures(report, folder)
    files = [*(folder / name for name in ("report.html", "fit.safetensors", "fit.json")), *pictures]
    numbers = numbers | dict(files=list(map(str, files)))
    model = report.model
    arrays = dict(coef=report.coef, stderr=report.stderr, lower=report.lower, upper=report.upper)
    arrays |= dict(reward=np.asarray(model.reward_), policy=model.policy_)
    # copies: safetensors writes the memory as it lies, whatever the strides
    data = safetensors.numpy.save({name: np.array(array, float, order="C") for name, array in arrays.items()})
    write_atomically(files[0], render(numbers, report, recorded, pictures).encode())
    write_atomically(files[1], data)
    write_atomically(files[2], f"{to_json(numbers, indent=2)}\n".encode())
    return numbers["files"]
