"""`nearopt recover`: simulate from known parameters, fit, and see whether they come back."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from nearopt.cli.options import Json, Pairs, Source, named, parse
from nearopt.mdp.errors import ArgumentError, FeatureError, NoSolutionError

if TYPE_CHECKING:
    import numpy as np

    from nearopt.behaviour.estimator import BehaviourModel
    from nearopt.behaviour.recovery import Recovery

DIALS = ("temperature", "optimism", "discount")
NUMBERS = ("names", "truth", "mean", "bias", "spread", "mean_stderr", "coverage", "coverage_interval", "endless")
ARRAYS = ("truth", "estimate", "stderr", "lower", "upper", "coverage", "coverage_interval")
LONGEST = 50  # decisions of a trajectory, unless told
LINES = 16  # parameters that are printed

EXAMPLES = """\
examples, to be copied:
  nearopt recover gym:FrozenLake-v1 --reward model --temperature fit --true-temperature 0.1 --discount 0.95
  nearopt recover gym:FrozenLake-v1 --reward model --temperature fit --true-temperature 0.1 --optimism fit \
--true-optimism 0.3 --discount 0.95 --prior uniform --out out/lake
  printf '#####\\n#S.G#\\n#...#\\n#####\\n' > maze.txt
  printf 'goal,wall\\n0,1\\n1,0\\n2,1\\n0.5,0\\n1,0\\n1.5,1\\n' > features.csv
  nearopt recover maze.txt --features features.csv --coef 1,-0.5 --discount 0.9
  nearopt recover maze.txt --features features.csv --coef=-0.5,1 --discount 0.9 --trajectories 5 --json

In each repetition the agent at the truth moves through the world, is fitted from scratch, and the interval of each
parameter holds the truth or misses it. Good intervals of 95 % miss it in 5 % of the repetitions. Give the settings and
as many trajectories as your own data will have: what does not come back here cannot be trusted there.
SOURCE is as in `nearopt infer --help`, --features as in `nearopt fit --help`.

With --features and --temperature fit, coefficients have length 1 and the temperature is relative to that.
With --horizon episode the agent looks ahead as far as --decisions, and each episode is fitted with its own length:
where episodes end early, in terminal states, these differ, and this command shows how much it matters.

the table
  spread      of the estimates over the repetitions; mean s.e. says what the fits take it for
  coverage    how often intervals held the truth, and, with so many repetitions, what that may be (to 95 %)
  last        too short, too long: that excludes the level; biased: on average off by more than a quarter of the spread;
              not told: most intervals are endless, or the estimates follow the penalty and no data

--out DIR
  recovery.png             every interval beside the truth
  recovery.safetensors     truth (R), estimate, stderr, lower, upper (repetitions, R), converged, coverage
  recovery.json            what --json prints

--json
  source; the settings; names (R), and in their order truth, mean, bias, spread, mean_stderr, coverage,
  coverage_interval (2, R), endless (share of endless intervals), faults; converged, failed (shares of the repetitions);
  verdict; files.
  Numbers that are not finite are "-inf", "inf", "nan".
"""


@dataclass(frozen=True)
class Options:
    """Simulates from known parameters, fits, and compares: can such data tell what you want to know?"""

    source: Source
    """A model: FILE.txt (a maze), FILE.mdp, FILE.drn, FILE.umb, or gym:ID."""
    env_kwargs: Pairs = ()
    """For the environment or the maze: slip=0.1, map_name=8x8. Values are JSON, or else text."""
    reward: Literal["linear", "state", "state_action", "model"] = "linear"
    """linear in features; one number per state, or per state and action; the model's own."""
    features: Annotated[str, named("FILE", "")] = ""
    """For linear: a .csv with a header, or a .npy."""
    coef: Annotated[str, named("C,C,...", "drawn, each from a standard normal")] = ""
    """The true coefficients: numbers, or a .npy or .csv file of them."""
    horizon: Annotated[str, named("T")] = "infinite"
    """How far the agent looks ahead: infinite, a number of decisions, or episode."""
    discount: Annotated[str, named("γ")] = "model"
    """A number, fit, or the model's own."""
    temperature: Annotated[str, named("τ")] = "1"
    """A number, in units of reward, or fit."""
    optimism: Annotated[str, named("κ")] = "0"
    """0: an agent that knows the world's dynamics; 1: one that believes in luck; any number, or fit."""
    true_discount: Annotated[float | None, named("γ", "")] = None
    """With --discount fit: what it really is."""
    true_temperature: Annotated[float | None, named("τ", "")] = None
    """With --temperature fit: what it really is."""
    true_optimism: Annotated[float | None, named("κ", "")] = None
    """With --optimism fit: what it really is."""
    prior: Annotated[str, named("PRIOR")] = "flat"
    """Over actions: flat (1 each), uniform (1/number), or a .npy or .csv file of shape (S, A)."""
    l2: Annotated[float, named("λ")] = 0.0
    """Shrinks coefficients: a penalty per decision on their squares."""
    trajectories: Annotated[int, named("N")] = 100
    """How many are simulated in each repetition."""
    decisions: Annotated[int | None, named("L", "50, or the horizon where that is shorter")] = None
    """How long they are at most; terminal states end them earlier."""
    repetitions: Annotated[int, named("R")] = 100
    """How often it is simulated and fitted."""
    kind: Literal["hessian", "opg", "sandwich", "profile", "bootstrap"] = "hessian"
    """Intervals from standard errors (three ways), from the profile of the likelihood, or from 200 refits."""
    level: Annotated[float, named("P")] = 0.95
    """Of the intervals."""
    seed: Annotated[int, named("N")] = 0
    """Of the simulations, and of coefficients that are drawn."""
    out: Annotated[Path | None, named("DIR", "")] = None
    """Write a picture and arrays into this folder."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "recover", EXAMPLES, argv)
    from nearopt.cli.output import progress, to_json

    with progress("reading the model") as tell:
        report, found = answer(options, tell)
    if options.json:
        print(to_json(report))
    else:
        show(report, found, options)
    return 0


def answer(options: Options, tell: Callable[[str], None]) -> tuple[dict[str, Any], "Recovery"]:
    """The recovery and its numbers; with --out, the files are written."""
    from nearopt.cli.artifacts import check_folder
    from nearopt.cli.fit import horizon_of, number_or_fit
    from nearopt.cli.source import load_source, read_prior

    check(options)
    settings: dict[str, Any] = dict(reward=options.reward, l2=options.l2, horizon=horizon_of(options.horizon))
    if options.decisions is None:
        most = settings["horizon"] if isinstance(settings["horizon"], int) else LONGEST
        options = dataclasses.replace(options, decisions=min(LONGEST, max(most, 1)))
    settings |= {name: number_or_fit(name, getattr(options, name)) for name in DIALS if name != "discount"}
    settings["discount"] = None if options.discount == "model" else number_or_fit("discount", options.discount)
    settings["prior"] = read_prior(options.prior)
    truth = true_dials(options, settings)
    mdp = load_source(options.source, options.env_kwargs)
    if options.out:
        check_folder(options.out)
    features, names = None, None
    if options.features:
        from nearopt.cli.recorded import read_features

        features, names = read_features(Path(options.features), mdp)
    tell("loading JAX")
    from nearopt.behaviour.estimator import BehaviourModel

    model = BehaviourModel(mdp, features=features, **settings)
    found = recovered(options, model, truth, tell)
    if names is not None:
        found = dataclasses.replace(found, names=(*names, *found.names[len(names) :]))
    report = numbers_of(options, found)
    if options.out:
        tell("drawing")
        report["files"] = write(report, found, options.out)
    return report, found


def recovered(
    options: Options, model: "BehaviourModel", truth: dict[str, Any], tell: Callable[[str], None]
) -> "Recovery":
    """What the library answers; its advice in words of the command line."""
    from nearopt.behaviour.recovery import draw_coefficients, recover

    assert options.decisions is not None
    asked = ("trajectories", "decisions", "repetitions", "level", "kind", "seed")
    try:
        drawn = draw_coefficients(model, options.decisions, options.seed)
        if drawn.size:
            truth |= dict(coef=read_coef(options.coef, drawn.shape) if options.coef else drawn)
        elif options.coef:
            raise ArgumentError(f"--reward {options.reward} has no coefficients", "leave --coef out")
        return recover(model, truth, **{name: getattr(options, name) for name in asked}, tell=tell)
    except NoSolutionError as error:
        raise NoSolutionError(error.problem, "pass --prior uniform, a lower --discount, or a --horizon") from None


# ---------------------------------------------------------------- what is asked
def check(options: Options) -> None:
    """What can be seen to be wrong before anything is read."""
    if options.reward == "linear" and not options.features:
        mend = "pass --features FILE, or --reward model with --temperature fit --true-temperature 0.1"
        raise FeatureError("--reward linear needs features", mend)
    if options.reward != "linear" and options.features:
        raise FeatureError(f"--reward {options.reward} has no use for features", "leave --features out")
    if not 0 < options.level < 1:
        raise ArgumentError(f"--level is {options.level:g}", "give a number between 0 and 1, such as 0.95")
    for name, least in (("seed", 0), ("trajectories", 1), ("decisions", 1), ("repetitions", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ArgumentError(f"--{name} is {value}", f"give a whole number of at least {least}")
    if options.kind == "bootstrap" and options.trajectories < 2:
        raise ArgumentError("--kind bootstrap resamples trajectories, of which there is 1", "pass --trajectories 20")


def true_dials(options: Options, settings: dict[str, Any]) -> dict[str, Any]:
    """The true values of the dials that are fitted, and of no others."""
    truth = {}
    for name in DIALS:
        value = getattr(options, f"true_{name}")
        if settings[name] == "fit":
            if value is None:
                example = dict(temperature=0.5, optimism=0.3, discount=0.9)[name]
                mend = f"say what it really is: --true-{name} {example}"
                raise ArgumentError(f"--{name} fit simulates an agent whose {name} is not known", mend)
            truth[name] = value
        elif value is not None:
            raise ArgumentError(f"--true-{name} is {value:g}, and no {name} is fitted", f"add --{name} fit")
    if not truth and options.reward == "model":
        mend = "add --temperature fit --true-temperature 0.1, for example"
        raise ArgumentError("with --reward model and every dial a number nothing is fitted", mend)
    return truth


def read_coef(text: str, shape: tuple[int, ...]) -> "np.ndarray":
    """Numbers with commas between them, or a file of them, in the shape of the coefficients."""
    import numpy as np

    path = Path(text)
    suffix = path.suffix.lower()
    try:
        if suffix in (".npy", ".csv"):
            from nearopt.mdp.files import read

            read(path)  # one message for whatever cannot be opened
            array = np.load(path) if suffix == ".npy" else np.loadtxt(path, delimiter=",", encoding="utf-8-sig")
        else:
            array = np.array([float(word) for word in text.split(",")])
        array = np.asarray(array, float)
    except (ValueError, EOFError) as error:
        if type(error).__module__.startswith("nearopt"):
            raise
        mend = "give numbers such as 1,-0.5, or a .npy or .csv file of numbers"
        raise ArgumentError(f"--coef is {text!r}", mend) from None
    if array.size != int(np.prod(shape)):
        count = f"{array.size:,} number{'' if array.size == 1 else 's'}"
        raise ArgumentError(f"--coef has {count}", f"give {int(np.prod(shape)):,}, the shape is {shape}")
    return array.reshape(shape)


# ---------------------------------------------------------------- numbers, lines, files
def numbers_of(options: Options, found: "Recovery") -> dict[str, Any]:
    """The numbers of `nearopt recover`, under the names of their attributes."""
    left_out = ("json", "out", "env_kwargs", "coef", *(f"true_{name}" for name in DIALS))
    out = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name not in left_out}
    out |= {name: getattr(found, name) for name in NUMBERS}
    out |= dict(converged=found.converged.mean(), failed=1 - found.fitted.mean(), faults=found.faults)
    return out | dict(verdict=found.verdict(), files=[])


def show(report: dict[str, Any], found: "Recovery", options: Options) -> None:
    """The numbers for people."""
    from nearopt.cli.output import print_table

    dials = ", ".join(f"{name} {report[name]}" for name in DIALS)
    print(f"{report['source']}: reward {report['reward']}, horizon {report['horizon']}, {dials}")
    sizes = f"{report['repetitions']:,} repetitions of {report['trajectories']:,} trajectories"
    drawn = ", true coefficients drawn" if options.reward != "model" and not options.coef else ""
    print(f"{sizes} of up to {report['decisions']:,} decisions; seed {report['seed']}{drawn}\n")
    print(f"recovered, with {100 * report['level']:.4g} % intervals ({report['kind']})")
    order = sorted(range(len(found.names)), key=lambda k: not found.faults[k])[:LINES]
    print_table(found.table(sorted(order)))
    if len(found.names) > LINES:
        print(f"  and {len(found.names) - LINES:,} more: --json or --out DIR")
    print()
    for sentence in report["verdict"]:
        print(sentence)
    if report["files"]:
        print("\nwritten")
        print_table([(path,) for path in report["files"]])


def write(report: dict[str, Any], found: "Recovery", folder: Path) -> list[str]:
    """recovery.png, recovery.safetensors and recovery.json; returns their paths."""
    import numpy as np
    import safetensors.numpy

    from nearopt.cli.artifacts import make_folder
    from nearopt.cli.output import to_json
    from nearopt.figures.recovery import recovery_figures
    from nearopt.mdp.files.atomic import write_atomically

    make_folder(folder)
    pictures = recovery_figures(found, folder)
    files = [*map(str, pictures), str(folder / "recovery.safetensors"), str(folder / "recovery.json")]
    arrays = {name: np.array(getattr(found, name), float, order="C") for name in ARRAYS}
    arrays["converged"] = np.array(found.converged)
    write_atomically(files[-2], safetensors.numpy.save(arrays))
    write_atomically(files[-1], f"{to_json(report | dict(files=files), indent=2)}\n".encode())
    return files
