"""`nearopt infer`: exact inference over a finite horizon, as numbers, arrays and pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nearopt.cli.machine import memory
from nearopt.cli.options import Json, Pairs, Source, named, parse
from nearopt.mdp.errors import HorizonError, SampleSizeError

if TYPE_CHECKING:
    from nearopt.inference.posterior import Posterior

SWEEP = (0.25, 0.5, 2, 4)  # times the temperature

EXAMPLES = """\
examples, to be copied:
  nearopt infer gym:FrozenLake-v1 --horizon 30 --temperature 0.1
  nearopt infer gym:FrozenLake-v1 --horizon 30 --optimism 0 --env-kwargs is_slippery=false map_name=8x8
  nearopt infer gym:Taxi-v4 --horizon 20 --prior uniform --out out/taxi
  printf '#######\\n#S   G#\\n#######\\n' > maze.txt
  nearopt infer maze.txt --horizon 12 --env-kwargs slip=0.1 --out out/maze --json

SOURCE
  FILE.txt    a maze: '#' wall, 'S' start, 'G' goal, ' ' or '.' free; --env-kwargs slip, step_reward, goal_reward,
              discount
  FILE.mdp    saved by nearopt; FILE.drn, FILE.umb: from a model checker, --env-kwargs reward_model
  gym:ID      a Gymnasium environment with a table (FrozenLake, CliffWalking, Taxi); --env-kwargs discount and its own

--out DIR
  *.png                    pictures, with --samples trajectories and five temperatures, 1/4 to 4 times the given one
  posterior.safetensors    value, state_probs, log_forward (T+1, S), policy (T, S, A), sampled_state, sampled_action
  summary.json             what --json prints, without arrays

--json
  source, prior, horizon, temperature, optimism, discount, num_states, num_actions, num_choices, files, and
  log_partition (nats) and its meaning: log evidence (optimism 1), ELBO (0; then also as elbo), log partition (else);
  expected_reward, entropy of the policy (nats; both summed over time), terminal_probability at the end: null where
  success is impossible (log_partition "-inf", optimism not 0) or they take long; most_visited: state, name, visits.
  Models of at most 200 states and 200 decisions: also value, state_probs, policy. Infinite numbers are "-inf", "inf".
"""


@dataclass(frozen=True)
class Options:
    """The exact posterior over behaviour, given that each of T decisions is optimal: p(O=1|s,a) = exp(reward/τ)."""

    source: Source
    """A model: FILE.txt (a maze), FILE.mdp, FILE.drn, FILE.umb, or gym:ID."""
    horizon: Annotated[int, named("T")]
    """Number of decisions."""
    temperature: Annotated[float, named("τ")] = 1.0
    """How soft optimality is, in units of reward; 0 is classical control and needs --optimism 0."""
    optimism: Annotated[float, named("κ")] = 1.0
    """1: exact inference, which believes in luck; 0: variational, honest dynamics; below 0: averse to risk."""
    prior: Annotated[str, named("PRIOR")] = "flat"
    """Over actions: flat (1 each), uniform (1/number), or a .npy or .csv file of shape (S, A)."""
    env_kwargs: Pairs = ()
    """For the environment or the maze: slip=0.1, map_name=8x8. Values are JSON, or else text."""
    out: Annotated[Path | None, named("DIR", "")] = None
    """Write pictures and arrays into this folder."""
    samples: Annotated[int, named("N")] = 30
    """Trajectories to draw for --out; 0 for none."""
    seed: Annotated[int, named("N")] = 0
    """Of the trajectories."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "infer", EXAMPLES, argv)
    from nearopt.cli.output import progress, to_json

    with progress("reading the model") as tell:
        report, post = answer(options, tell)
    from nearopt.cli.summary import show, small_arrays

    if options.json:
        print(to_json(report | small_arrays(post)))
    else:
        show(report, post)
    return 0


def answer(options: Options, tell: Callable[[str], None]) -> tuple[dict[str, Any], "Posterior"]:
    """The posterior and its numbers; with --out, the files are written."""
    from nearopt.cli.artifacts import check_folder, write
    from nearopt.cli.source import load_source, read_prior

    prior = read_prior(options.prior)
    mdp = load_source(options.source, options.env_kwargs)
    check_memory(mdp.num_states, options.horizon)
    check_samples(options)
    if options.out:
        check_folder(options.out)
    tell("loading JAX")
    from nearopt.cli.summary import summarise
    from nearopt.inference.posterior import infer

    tell("inferring")
    at = lambda temperature: infer(
        mdp, options.horizon, temperature=temperature, optimism=options.optimism, prior=prior
    )
    post = at(options.temperature)
    report = dict(source=options.source, prior=options.prior) | summarise(post) | dict(files=[])
    if options.out:
        tell("drawing")
        sweep = [at(factor * options.temperature) for factor in SWEEP if options.temperature > 0]
        wanted = options.samples != 0 and post.state_probs[0].sum() > 0
        trajectories = post.sample(options.samples, options.seed) if wanted else None
        report["files"] = write(report, post, trajectories, sweep, options.out)
    return report, post


def check_memory(num_states: int, horizon: int, arrays: int = 4) -> None:
    """Values, probabilities and forward messages have to fit."""
    need, have = arrays * 8 * num_states * (horizon + 1), memory()
    if have is not None and need > have:
        what = f"{horizon:,} decisions in {num_states:,} states need {need / 2**30:,.0f} GiB of memory"
        raise HorizonError(f"{what}, and there are {have / 2**30:,.0f}", "shorten the horizon")


def check_samples(options: Options) -> None:
    for name, value in (("samples", options.samples), ("seed", options.seed)):
        if value < 0:
            raise SampleSizeError(f"--{name} is {value}", "give a whole number, at least 0")
