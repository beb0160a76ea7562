"""A solution in a few numbers, for programs and for people, from its public attributes."""

import itertools
import math
from typing import TYPE_CHECKING, Any

from nearopt.cli.output import print_table
from nearopt.mdp.errors import ImproperError

if TYPE_CHECKING:
    import numpy as np

    from nearopt.mdp.model import MDP
    from nearopt.planning.solve import Solution

COUNTS = ("num_states", "num_actions", "num_choices")
PROOF = ("width", "tol", "converged", "passes", "steps", "method")
LONGEST = 1_000  # decisions of the best trajectory that are told
RUNS = 12  # of equal actions that are printed


def summarise(sol: "Solution") -> dict[str, Any]:
    """The numbers of `nearopt solve`, under the names of their attributes."""
    mdp = sol.mdp
    out: dict[str, Any] = dict(temperature=sol.temperature, optimism=sol.optimism, discount=mdp.discount)
    out |= {name: getattr(mdp, name) for name in COUNTS}
    out["initial_value"] = expected(mdp.initial, sol.value)
    out["initial_lower"] = expected(mdp.initial, sol.lower, -1)
    out["initial_upper"] = expected(mdp.initial, sol.upper, 1)
    return out | {name: getattr(sol, name) for name in PROOF} | dict(path=best_path(sol))


def expected(initial: "np.ndarray", value: "np.ndarray", side: int = 0) -> float:
    """Σ p(s) value(s), moved down (side −1) or up (1) by more than rounding can be wrong."""
    (states,) = initial.nonzero()
    if len(states) == 1:
        return float(value[states[0]])
    terms = (initial[states] * value[states]).tolist()
    error = 2.0**-51 * math.fsum(map(abs, terms))  # each product, the sum and the shift are off by half an ulp at most
    return math.fsum(terms) + side * error


def best_path(sol: "Solution") -> dict[str, Any] | None:
    """The single best trajectory, or None where there is none."""
    if sol.temperature > 0:
        return None
    try:
        states, actions = sol.path(limit=LONGEST)
    except ImproperError:
        return None
    return dict(state=states.tolist(), action=actions.tolist(), ended=bool(sol.mdp.terminal[states[-1]]))


# ---------------------------------------------------------------- text
def show(report: dict[str, Any], sol: "Solution") -> None:
    """The numbers for people."""
    print(f"{report['source']}: {sol.mdp!r}")
    print(f"temperature {sol.temperature:g}, optimism {sol.optimism:g}, prior {report['prior']}\n")
    print("value, expected over the first state")
    names = ("upper", "value", "lower")
    words = ("proved bound", "", "proved bound")
    print_table([(name, f"{report[f'initial_{name}']!r}", word) for name, word in zip(names, words, strict=True)])
    print("\ncertificate")
    print_table(
        [
            ("width", f"{sol.width:.3g}", "the largest upper - lower of all states"),
            ("tol", f"{sol.tol:g}", "converged" if sol.converged else "not reached"),
            ("passes", f"{sol.passes:,}", "over the transitions"),
            ("Newton steps", f"{sol.steps:,}", f"method {sol.method}"),
        ]
    )
    if report["path"]:
        print("\nthe single best trajectory")
        print_table(path_rows(report["path"], sol.mdp))
    if report["files"]:
        print("\nwritten")
        print_table([(path,) for path in report["files"]])


def path_rows(path: dict[str, Any], mdp: "MDP") -> list[tuple[str, ...]]:
    """Where it leads, and its actions with repetitions counted."""
    states, count = path["state"], len(path["action"])
    if path["ended"]:
        fate = f"to {mdp.describe(states[-1])}, which is terminal"
    elif states[-1] in states[:-1]:
        fate = f"back to {mdp.describe(states[-1])}, and so on"
    else:
        fate = "and more"
    runs = [(action, len(list(run))) for action, run in itertools.groupby(path["action"])]
    name = lambda action: str(action if mdp.action_names is None else mdp.action_names[action])
    told = [name(action) + (f" × {times}" if times > 1 else "") for action, times in runs[:RUNS]]
    told += ["..."] if len(runs) > RUNS else []
    rows = [(f"{count:,} {'decision' if count == 1 else 'decisions'}", f"from {mdp.describe(states[0])} {fate}")]
    return [*rows, ("actions", " ".join(", ".join(told).split()))] if told else rows
