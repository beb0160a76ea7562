"""`nearopt solve`: the infinite horizon, with bounds that are proved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from nearopt.cli.options import Json, Pairs, Source, named, parse

if TYPE_CHECKING:
    from nearopt.planning.solve import Solution

ARRAYS = ("value", "lower", "upper", "q", "policy")

EXAMPLES = """\
examples, to be copied:
  nearopt solve gym:FrozenLake-v1 --temperature 0.01 --env-kwargs discount=0.99
  nearopt solve gym:FrozenLake-v1 --temperature 0.1 --prior uniform --tol 1e-12
  nearopt solve gym:CliffWalking-v1 --temperature 0 --out out/cliff
  nearopt solve gym:Taxi-v4 --prior uniform --method value_iteration
  printf '#######\\n#S   G#\\n#######\\n' > maze.txt
  nearopt solve maze.txt --temperature 0.3 --env-kwargs slip=0.1 --json

The value is the limit of the finite horizon's: discounted, or until a terminal state is reached. Where it is not finite
the states at fault are named; without a discount, mind that the flat prior pays τ log n per decision among n actions.
SOURCE is as in `nearopt infer --help`.

--out DIR
  *.png                    values with the policy, how far the bounds are apart, at temperature 0 the best trajectory
  solution.safetensors     value, lower, upper (S), q, policy (S, A)
  summary.json             what --json prints, without arrays

--json
  source, prior, temperature, optimism, discount, num_states, num_actions, num_choices, files;
  initial_value, initial_lower, initial_upper: expected over the first state, lower <= value <= upper proved;
  width (largest upper - lower), tol, converged, passes over the transitions, steps of Newton's method, method;
  path: at temperature 0, if nothing is left to chance: state, action of the best trajectory, at most 1,000 decisions,
  and ended, whether it reaches a terminal state; else null.
  Models of at most 200 states: also value, lower, upper, q, policy. Infinite numbers are "-inf", "inf".
"""


@dataclass(frozen=True)
class Options:
    """The infinite horizon: value and stationary policy, with proved bounds, lower <= value <= upper."""

    source: Source
    """A model: FILE.txt (a maze), FILE.mdp, FILE.drn, FILE.umb, or gym:ID."""
    temperature: Annotated[float, named("τ")] = 1.0
    """How soft optimality is, in units of reward; 0 is classical control."""
    optimism: Annotated[float, named("κ")] = 0.0
    """0: honest dynamics; 1: exact inference, which believes in luck; below 0: averse to risk."""
    prior: Annotated[str, named("PRIOR")] = "flat"
    """Over actions: flat (1 each), uniform (1/number), or a .npy or .csv file of shape (S, A)."""
    env_kwargs: Pairs = ()
    """For the environment or the maze: discount=0.99, slip=0.1. Values are JSON, or else text."""
    tol: Annotated[float, named("WIDTH")] = 1e-8
    """How far the bounds may be apart, in units of reward."""
    method: Literal["auto", "policy_iteration", "value_iteration"] = "auto"
    """policy_iteration is Newton's method, auto the same with each step as accurate as it is worth."""
    out: Annotated[Path | None, named("DIR", "")] = None
    """Write pictures and arrays into this folder."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "solve", EXAMPLES, argv)
    from nearopt.cli.output import progress, to_json

    with progress("reading the model") as tell:
        report, sol = answer(options, tell)
    if options.json:
        from nearopt.cli.summary import SMALL

        few = sol.mdp.num_states <= SMALL
        print(to_json(report | ({name: getattr(sol, name) for name in ARRAYS} if few else {})))
    else:
        from nearopt.cli.plan import show

        show(report, sol)
    return 0


def answer(options: Options, tell: Callable[[str], None]) -> tuple[dict[str, Any], "Solution"]:
    """The solution and its numbers; with --out, the files are written."""
    from nearopt.cli.artifacts import check_folder, write_solution
    from nearopt.cli.source import load_source, read_prior

    prior = read_prior(options.prior)
    mdp = load_source(options.source, options.env_kwargs)
    if options.out:
        check_folder(options.out)
    tell("loading JAX")
    from nearopt.cli.plan import summarise
    from nearopt.planning.solve import solve

    tell("solving")
    sol = solve(
        mdp,
        temperature=options.temperature,
        optimism=options.optimism,
        prior=prior,
        tol=options.tol,
        method=options.method,
        tell=lambda text: tell(f"solving: {text}"),
    )
    report = dict(source=options.source, prior=options.prior) | summarise(sol) | dict(files=[])
    if options.out:
        tell("drawing")
        report["files"] = write_solution(report, sol, options.out)
    return report, sol
