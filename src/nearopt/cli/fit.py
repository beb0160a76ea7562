"""`nearopt fit`: which reward, temperature and optimism explain recorded behaviour, with a report to hand on."""

import contextlib
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nearopt.cli.options import Json, Pairs, named, parse
from nearopt.mdp.errors import ArgumentError, FeatureError, GroupError

if TYPE_CHECKING:
    from nearopt.behaviour.report import Report
    from nearopt.cli.recorded import Recorded

EXAMPLES = """\
examples, to be copied:
  printf '#####\\n#S.G#\\n#...#\\n#####\\n' > maze.txt
  printf 'episode,t,state,action\\n0,0,0,1\\n0,1,1,1\\n1,0,0,2\\n1,1,3,1\\n1,2,4,1\\n1,3,5,0\\n\
2,0,0,1\\n2,1,1,1\\n' > mice.csv
  nearopt fit mice.csv --mdp maze.txt --reward state --discount 0.9 --l2 0.01
  nearopt fit mice.csv --mdp maze.txt --reward state_action --discount 0.9 --l2 0.01 --report out/mice
  nearopt fit mice.csv --mdp maze.txt --reward model --temperature fit --discount 0.9 --holdout 0 --json

  nearopt fit mice.csv --mdp labyrinth.mdp --reward state_action --time-varying --horizon 22 --l2 1e-4 \
--smoothness 1e-4 --holdout split=validation --report out/mice
  nearopt fit buses.csv --mdp bus.mdp --features costs.csv --episode bus --time period --action replaced \
--holdout 0 --stderr sandwich --by episode --report out/buses

DATA
  a row per step, CSV with a header, or Parquet: episode, t, state, action (other names: --episode ... --subject).
  States and actions are numbers from 0 or names of the model; an empty cell was not recorded.

--features
  FILE.csv    a header that names the features, and a row per state; rows are in the order of the states, or say which
              by a column `state`. With columns `state` and `action`: a row per choice
  FILE.npy    an array (S, F), (S, A, F) or (S, A, S, F)
  N           with --reward maps: how many maps

--report DIR
  report.html          everything below, self-contained: to be opened, printed, sent
  *.png                its pictures
  fit.safetensors      coef, stderr, lower, upper, reward, policy, in the shapes of the attributes
  fit.json             what --json prints

--json
  data, source, command; the settings of the fit; coef, stderr, lower, upper (shape of coef_), names, level;
  temperature, optimism, discount, and in dials: estimate, lower, upper of those fitted; log_likelihood (nats, sum),
  num_decisions, num_parameters (effective), gradient, n_iter, converged, message; score: held-out mean log-likelihood
  per decision, nats (null with nothing held out), train_score; identifiable, identifiability (words);
  comparison: per policy name, parameters, train, held_out (nats per decision), bits, difference and its error, aic,
  bic; checks; optimism_test or null; warnings, dropped, files. Numbers that are not finite are "-inf", "inf", "nan".
"""


@dataclass(frozen=True)
class Options:
    """Fits the reward that a nearly optimal agent would need to do what was recorded, and tests the answer."""

    data: Annotated[Path, tyro.conf.Positional, named("DATA", "")]
    """What was recorded: a .csv or .parquet file with a row per step."""
    mdp: Annotated[str, named("SOURCE", "")]
    """The world: FILE.txt (a maze), FILE.mdp, FILE.drn, FILE.umb, or gym:ID; its own reward is ignored."""
    env_kwargs: Pairs = ()
    """For the environment or the maze: slip=0.1, map_name=8x8. Values are JSON, or else text."""
    reward: Literal["linear", "state", "state_action", "maps", "model", "network"] = "linear"
    """linear in features; one number per state, or per state and action; maps with weights over time; the model's own;
    a network of features."""
    features: Annotated[str, named("FILE", "")] = ""
    """For linear and network: a .csv with a header, or a .npy; for maps, how many."""
    time_varying: bool = False
    """Coefficients of their own at each step; needs a finite horizon."""
    horizon: Annotated[str, named("T")] = "infinite"
    """How far the agent looks ahead: infinite, a number of decisions, or episode: each trajectory's own length."""
    discount: Annotated[str, named("γ")] = "model"
    """A number, fit, or the model's own."""
    temperature: Annotated[str, named("τ")] = "1"
    """A number, in units of reward, or fit."""
    optimism: Annotated[str, named("κ")] = "0"
    """0: an agent that knows the world's dynamics; 1: one that believes in luck; any number, or fit."""
    prior: Annotated[str, named("PRIOR")] = "flat"
    """Over actions: flat (1 each), uniform (1/number), fit, or a .npy or .csv file of shape (S, A)."""
    l2: Annotated[float, named("λ")] = 0.0
    """Shrinks coefficients: a penalty per decision on their squares."""
    smoothness: Annotated[float, named("λ")] = 0.0
    """Shrinks differences from step to step, or between neighbouring states."""
    likelihood: Literal["actions", "trajectories"] = "actions"
    """Of actions given the recorded states; or of whole trajectories (older MaxEnt, biased in random worlds)."""
    episode: Annotated[str, named("COLUMN")] = "episode"
    """Which episode a row belongs to."""
    time: Annotated[str, named("COLUMN")] = "t"
    """Which decision of it, counted in whole numbers."""
    state: Annotated[str, named("COLUMN")] = "state"
    """The state before the decision."""
    action: Annotated[str, named("COLUMN")] = "action"
    """What was done."""
    subject: Annotated[str | None, named("COLUMN", "")] = None
    """Who did it."""
    invalid: Literal["refuse", "drop"] = "refuse"
    """Rows that cannot be read, and steps that the world cannot have produced: refused, or left out and listed."""
    holdout: Annotated[str, named("SHARE")] = "0.2"
    """What is kept back to judge the fit: a share of the episodes, COLUMN=VALUE of the data, or 0."""
    stderr: Literal["hessian", "opg", "sandwich"] = "hessian"
    """Standard errors: inverse Hessian, outer product of scores, or both, right also where the model is not."""
    by: Literal["decision", "episode", "subject"] = "decision"
    """What is independent of one another: for opg, sandwich and bootstrap."""
    intervals: Literal["stderr", "profile", "bootstrap"] = "stderr"
    """From standard errors, from the profile of the likelihood, or from 200 refits to resampled data."""
    level: Annotated[float, named("P")] = 0.95
    """Of the intervals."""
    optimism_test: bool = False
    """Also fit κ, and test κ = 0 and κ = 1."""
    report: Annotated[Path | None, named("DIR", "")] = None
    """Write report.html, pictures and arrays into this folder."""
    seed: Annotated[int, named("N")] = 0
    """Of what is held out, of simulations and resampling."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "fit", EXAMPLES, argv)
    from nearopt.cli.output import progress, to_json

    command = shlex.join(["nearopt", "fit", *argv])
    with progress("reading the model") as tell:
        numbers, report, recorded = answer(options, command, tell)
    if options.json:
        print(to_json(numbers))
    else:
        from nearopt.cli.fitted import show

        show(numbers, report, recorded)
    return 0


def answer(options: Options, command: str, tell: Callable[[str], None]) -> tuple[dict[str, Any], "Report", "Recorded"]:
    """The fit and its numbers; with --report, the files are written."""
    from nearopt.cli.artifacts import check_folder
    from nearopt.cli.source import load_source

    check(options)
    mdp = load_source(options.mdp, options.env_kwargs)
    if options.report:
        check_folder(options.report, "--report")
    tell("reading the data")
    from nearopt.cli.recorded import read_data, read_features

    features, names = None, None
    if options.reward == "maps":
        features = int(options.features)
    elif options.features:
        features, names = read_features(Path(options.features), mdp)
    recorded = read_data(options, mdp)
    tell("loading JAX")
    from nearopt.behaviour.estimator import BehaviourModel
    from nearopt.behaviour.report import Asked, make_report
    from nearopt.cli.fitted import numbers_of, write

    model = BehaviourModel(mdp, features=features, **settings(options))
    by = None if options.by == "decision" else options.by
    asked = Asked(options.level, options.stderr, options.intervals, by, options.optimism_test, names, options.seed)
    tell("fitting")
    with heard() as told:
        model.fit(recorded.train)
    with heard() as later:
        report = make_report(model, recorded.train, recorded.held_out, asked, tell)
    told += [f"while the fit was compared and tested: {text}" for text in later if text not in told]
    numbers = dict(command=command, data=options.data, source=options.mdp, prior=options.prior)
    numbers |= numbers_of(report, recorded) | dict(warnings=told, files=[])
    if options.report:
        tell("drawing")
        numbers["files"] = write(numbers, report, recorded, options)
    return numbers, report, recorded


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """What is warned of meanwhile, each sentence once, in a list that is filled at the end."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield told
    told += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))


def check(options: Options) -> None:
    """What can be seen to be wrong before anything is read."""
    if options.reward in ("linear", "network") and not options.features:
        mend = "pass --features FILE, or --reward state for one free number per state"
        raise FeatureError(f"--reward {options.reward} needs features", mend)
    if options.reward == "maps" and not (options.features.isdecimal() and int(options.features)):
        raise FeatureError(f"--features is {options.features!r}", "with --reward maps give how many: --features 2")
    if options.by == "subject" and options.subject is None:
        raise GroupError("--by subject needs subjects", "say which column holds them, --subject COLUMN")
    if not 0 < options.level < 1:
        raise ArgumentError(f"--level is {options.level:g}", "give a number between 0 and 1, such as 0.95")
    if options.seed < 0:
        raise ArgumentError(f"--seed is {options.seed}", "give a whole number, at least 0")


def settings(options: Options) -> dict[str, Any]:
    """Arguments of `BehaviourModel`, features apart."""
    from nearopt.cli.source import read_prior

    names = ("reward", "time_varying", "l2", "smoothness", "likelihood")
    out: dict[str, Any] = {name: getattr(options, name) for name in names}
    out["horizon"] = horizon_of(options.horizon)
    out["discount"] = None if options.discount == "model" else number_or_fit("discount", options.discount)
    out["temperature"] = number_or_fit("temperature", options.temperature)
    out["optimism"] = number_or_fit("optimism", options.optimism)
    out["prior"] = "fit" if options.prior == "fit" else read_prior(options.prior)
    return out


def horizon_of(text: str) -> int | str | None:
    if text in ("infinite", "episode"):
        return None if text == "infinite" else text
    try:
        return int(text)
    except ValueError:
        raise ArgumentError(f"--horizon is {text!r}", "give a number of decisions, episode or infinite") from None


def number_or_fit(name: str, text: str) -> float | str:
    try:
        return text if text == "fit" else float(text)
    except ValueError:
        raise ArgumentError(f"--{name} is {text!r}", "give a number, or fit") from None
