"""`nearopt compare`: exact, variational and hard control side by side, and the ledger between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nearopt.cli.infer import check_memory
from nearopt.cli.options import Json, Pairs, Source, named, parse

if TYPE_CHECKING:
    from nearopt.inference.ledger import Ledger
    from nearopt.inference.luck import Luck
    from nearopt.mdp.model import MDP

ENTRIES = ("log_evidence", "elbo", "kl_initial", "kl_policy", "kl_dynamics")
RETURNS = {  # attribute: what it is
    "believed_return": "of the exact posterior, in the world that it believes in",
    "actual_return": "of its policy, in the true world",
    "variational_return": "of the variational policy, in the true world",
    "optimal_return": "the best possible, by hard control",
}
ANSWERS = ("exact", "variational", "optimal")
MOST_LUCK = 5  # outcomes told
ARRAYS = 9  # of one number per state and decision that all this needs

EXAMPLES = """\
examples, to be copied:
  nearopt compare gym:FrozenLake-v1 --horizon 30 --temperature 0.1 --prior uniform
  nearopt compare gym:FrozenLake-v1 --horizon 30 --temperature 0.1 --env-kwargs is_slippery=false
  nearopt compare gym:CliffWalking-v1 --horizon 40 --env-kwargs is_slippery=true --out out/cliff
  printf '#######\\n#S   G#\\n#######\\n' > maze.txt
  nearopt compare maze.txt --horizon 12 --prior uniform --env-kwargs slip=0.3 --json

Exact inference conditions the dynamics on success, so it believes in its luck; variational inference keeps them; hard
control is the best possible, without entropy or prior. SOURCE is as in `nearopt infer --help`.

--out DIR
  *.png                    ledger; values, policies, visits of the three on one scale each; dynamics true and believed
  ledger.safetensors       of each of exact, variational, optimal: NAME_value, NAME_state_probs, NAME_policy
  summary.json             what --json prints, without arrays

--json
  source, prior, horizon, temperature, discount, num_states, num_actions, num_choices, files;
  log_evidence = elbo + kl_initial + kl_policy + kl_dynamics, in nats; expected sums of reward: believed_return,
  actual_return, variational_return, optimal_return; luck: the outcomes that gained most, with t, state, action,
  next_state (-1: the episode ends by discount), true and believed probability, nats, visits; null if it takes long.
  Models of at most 200 states and 200 decisions: also value, state_probs, policy of exact, variational, optimal.
  Infinite numbers are "-inf", "inf".
"""


@dataclass(frozen=True)
class Options:
    """Exact inference, variational inference and hard control side by side: what is believed, and what is got."""

    source: Source
    """A model: FILE.txt (a maze), FILE.mdp, FILE.drn, FILE.umb, or gym:ID."""
    horizon: Annotated[int, named("T")]
    """Number of decisions."""
    temperature: Annotated[float, named("τ")] = 1.0
    """How soft optimality is, in units of reward; above 0."""
    prior: Annotated[str, named("PRIOR")] = "flat"
    """Over actions: flat (1 each), uniform (1/number), or a .npy or .csv file of shape (S, A)."""
    env_kwargs: Pairs = ()
    """For the environment or the maze: slip=0.1, map_name=8x8. Values are JSON, or else text."""
    out: Annotated[Path | None, named("DIR", "")] = None
    """Write pictures and arrays into this folder."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "compare", EXAMPLES, argv)
    from nearopt.cli.output import progress, to_json

    with progress("reading the model") as tell:
        report, led = answer(options, tell)
    if options.json:
        from nearopt.cli.summary import small_arrays

        print(to_json(report | {name: small_arrays(getattr(led, name)) for name in ANSWERS}))
    else:
        show(report, led)
    return 0


def answer(options: Options, tell: Callable[[str], None]) -> tuple[dict[str, Any], "Ledger"]:
    """The ledger and its numbers; with --out, the files are written."""
    from nearopt.cli.artifacts import check_folder, write_comparison
    from nearopt.cli.source import load_source, read_prior

    prior = read_prior(options.prior)
    mdp = load_source(options.source, options.env_kwargs)
    check_memory(mdp.num_states, options.horizon, ARRAYS)
    if options.out:
        check_folder(options.out)
    tell("loading JAX")
    from nearopt.inference.ledger import ledger

    tell("inferring")
    led = ledger(mdp, options.horizon, temperature=options.temperature, prior=prior)
    report = dict(source=options.source, prior=options.prior) | summarise(led) | dict(files=[])
    if options.out:
        tell("drawing")
        report["files"] = write_comparison(report, led, options.out)
    return report, led


def summarise(led: "Ledger") -> dict[str, Any]:
    """The numbers of `nearopt compare`, under the names of their attributes."""
    from nearopt.cli.summary import MOST_WORK

    post, mdp = led.exact, led.exact.mdp
    out: dict[str, Any] = dict(horizon=post.horizon, temperature=post.temperature, discount=mdp.discount)
    out |= dict(num_states=mdp.num_states, num_actions=mdp.num_actions, num_choices=mdp.num_choices)
    out |= {name: getattr(led, name) for name in (*ENTRIES, *RETURNS)}
    quick = mdp.num_branches * post.horizon <= MOST_WORK
    out["luck"] = [luck._asdict() for luck in led.luck(MOST_LUCK)] if quick else None
    return out


# ---------------------------------------------------------------- text
def show(report: dict[str, Any], led: "Ledger") -> None:
    """The numbers for people."""
    from nearopt.cli.output import print_table
    from nearopt.cli.summary import meaning

    mdp = led.exact.mdp
    print(f"{report['source']}: {mdp!r}")
    print(f"horizon {report['horizon']:,}, temperature {report['temperature']:g}, prior {report['prior']}\n")
    print("log evidence, split  [nats]")
    words = (
        meaning(led.exact)[1],
        "of the variational policy",
        "of the first state",
        "of the policies",
        "of the dynamics",
    )
    signs = dict(
        zip(ENTRIES, ("= log evidence", "  ELBO", "+ divergence", "+ divergence", "+ divergence"), strict=True)
    )
    rows = [(signs[name], f"{report[name]:.6g}", text) for name, text in zip(ENTRIES, words, strict=True)]
    print_table([*rows[1:], rows[0]])
    print("\nexpected sum of rewards")
    print_table([(name.removesuffix("_return"), f"{report[name]:.6g}", text) for name, text in RETURNS.items()])
    if report["luck"]:
        print("\nthe luck that exact inference counts on most")
        print_table([luck_row(mdp, luck) for luck in led.luck(MOST_LUCK)])
    if report["files"]:
        print("\nwritten")
        print_table([(path,) for path in report["files"]])


def luck_row(mdp: "MDP", luck: "Luck") -> tuple[str, ...]:
    end = "ends by discount" if luck.next_state < 0 else mdp.describe(luck.next_state)
    chance = f"believed {luck.believed:.3g}, true {luck.true:.3g}"
    where = f"{mdp.describe(luck.state, luck.action)} → {end}"
    return f"t = {luck.t:,}", where, chance, f"{luck.nats:.3g} nats × {luck.visits:.2g} visits"
