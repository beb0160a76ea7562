"""`nearopt train`: an agent learns in an environment, and leaves a folder from which it can go on."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nearopt.cli.options import Json, Pairs, named, parse
from nearopt.mdp.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from nearopt.agents.agent import Agent

EXAMPLES = """\
examples, to be copied:
  nearopt train sac Pendulum-v1 --total-timesteps 4000
  nearopt train sac Pendulum-v1 --total-timesteps 4000 --seeds 5 --run-dir runs/pendulum
  nearopt train soft-dqn CartPole-v1 --total-timesteps 20000 --set ent_coef=0.5 net_arch=[128,128]
  nearopt train sac LunarLander-v3 --total-timesteps 200000 --env-kwargs continuous=true
  nearopt train sac HalfCheetah-v5 --total-timesteps 1000000 --seed 3 --checkpoint-every 20000

ALGO
  sac            actions in a box
  soft-dqn       discrete actions: soft Q-learning
  discrete-sac   discrete actions: an actor and two critics
  sql            actions in a box: an energy-based policy, with all the modes that Q has
  soft-pg        either: the policy gradient with the entropy inside the return, on-policy; give it --n-envs
  pcl            either: path consistency, from a replay buffer

ENV_ID
  An environment that Gymnasium knows, or one written in JAX, nearopt/Pendulum-v0: there the whole loop is compiled.
  MODULE:ID imports the module first; as no file may do that, such a run is resumed and evaluated from Python.

settings, the last counts
  defaults of the algorithm (its paper's); those that were found to work in this environment, if any: they are printed;
  --set KEY=VALUE. Names are Stable-Baselines3's, values JSON or else text: learning_rate=1e-3 net_arch=[64,64]

--seeds N
  The seeds K, K+1, …, each in a folder seed-0, seed-1, … In JAX all at once, elsewhere as many at a time as there are
  cores, in processes of their own.

--run-dir DIR
  config.json, metrics.csv, timing.csv, tensorboard/, checkpoints/, agent/. Stopped or killed, `nearopt resume DIR` goes
  on, where the environment's state can be written down to the same bytes as if nothing had happened.

--json
  run_dir, algorithm, env, env_kwargs, total_timesteps, settings, tuned (those that are nearopt's choice for this
  environment), resume ("exact", or "at an episode boundary: ..."), failed (run_dir: message);
  runs: run_dir, seed, finished, steps, episodes, and of the last episodes return, soft_return (null before the first).
"""


@dataclass(frozen=True)
class Options:
    """Trains an agent: its experience teaches it the soft Bellman equation's solution."""

    algo: Annotated[str, tyro.conf.Positional, named("ALGO", "")]
    """sac, soft-dqn, discrete-sac, sql, soft-pg or pcl."""
    env_id: Annotated[str, tyro.conf.Positional, named("ENV_ID", "")]
    """An environment, by its Gymnasium id."""
    total_timesteps: Annotated[int, named("N", "")]
    """How many steps the agent takes."""
    seed: Annotated[int, named("K")] = 0
    """Of networks, noise, environment, everything."""
    run_dir: Annotated[Path | None, named("DIR", "runs/ALGO-ENV_ID-seedK")] = None
    """A new folder for all that the run writes."""
    seeds: Annotated[int, named("N")] = 1
    """How many agents, with the seeds K, K+1, ..."""
    n_envs: Annotated[int, named("N")] = 1
    """Copies of the environment that one agent steps side by side."""
    set: Pairs = ()
    """Settings of the algorithm: learning_rate=1e-3 net_arch=[64,64]."""
    env_kwargs: Pairs = ()
    """For the environment: continuous=true. Values are JSON, or else text."""
    checkpoint_every: Annotated[int, named("STEPS")] = 5_000
    """How often all is saved."""
    log_every: Annotated[int, named("STEPS")] = 1_000
    """How often a row of metrics is written."""
    wandb: Annotated[str, named("PROJECT", "")] = ""
    """Send the metrics to Weights & Biases as well."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "train", EXAMPLES, argv)
    from nearopt.cli.source import read_pairs
    from nearopt.cli.tuned import class_name, tuned_settings

    name = class_name(options.algo)
    check(options)
    folder = options.run_dir or default_folder(options)
    check_free(folder)
    chosen, tuned = read_pairs("--set", options.set), tuned_settings(options.algo, options.env_id)
    kwargs = read_pairs("--env-kwargs", options.env_kwargs)
    tuned = {key: value for key, value in tuned.items() if key not in chosen}
    from nearopt.cli.output import progress

    with progress("loading JAX"):
        agents = make(options, name, kwargs, tuned | chosen)
    if tuned and not options.json:
        told = " ".join(f"{key}={value}".replace(" ", "") for key, value in tuned.items())
        print(f"nearopt: tuned for {options.env_id}: {told}", file=sys.stderr)
    with resumable(folder):
        failed = learn(agents, options, folder)
    return finish(folder, failed, options.json, tuned=tuned)


def make(options: Options, name: str, kwargs: dict[str, Any], settings: dict[str, Any]) -> "list[Agent]":
    """The agents, one per seed."""
    from nearopt.agents.files import class_of

    given = dict(env_kwargs=kwargs, n_envs=options.n_envs, **settings)
    seeds = range(options.seed, options.seed + options.seeds)
    return [class_of(name)(options.env_id, seed=seed, **given) for seed in seeds]


def learn(agents: "list[Agent]", options: Options, folder: Path) -> dict[Path, str]:
    """Trains them all: here, or where each needs a process, there. Returns what went wrong where."""
    from nearopt.agents.agent import learn as train
    from nearopt.agents.session import Session

    spread = len(agents) > 1 and not in_jax(options.env_id)
    total, every = options.total_timesteps, (options.log_every, options.checkpoint_every)
    with Session(total, folder, not spread, None, *every, options.wandb or None) as session:
        session.begin(agents)
        if not spread:
            train(agents, session)
    if not spread:
        return {}
    from nearopt.cli.seeds import side_by_side
    from nearopt.runs.directory import open_runs

    agents.clear()
    return side_by_side(open_runs(folder))


# ---------------------------------------------------------------- what is asked
def in_jax(id: str) -> bool:
    from nearopt.environments import TABLE

    return id in TABLE


def check(options: Options) -> None:
    """What can be seen to be wrong before anything is loaded."""
    for name in ("total_timesteps", "seeds", "n_envs", "checkpoint_every", "log_every"):
        if getattr(options, name) < 1:
            option = name.replace("_", "-")
            raise ArgumentError(f"--{option} is {getattr(options, name)}", "give a whole number of at least 1")
    if not 0 <= options.seed < 2**31:
        raise ArgumentError(f"--seed is {options.seed}", f"give a whole number from 0 to {2**31 - 1}")
    if options.env_id.startswith("gym:"):
        raise ArgumentError(f"the environment is {options.env_id!r}", f"write {options.env_id[4:] or 'Pendulum-v1'}")
    if options.wandb and options.seeds > 1:
        raise ArgumentError("--wandb follows one run, and --seeds starts several", "train the seeds one by one")
    if options.seeds > 1 and ":" in options.env_id:  # each seed is resumed from its file
        problem = f"--seeds is {options.seeds}, and no file may import {options.env_id.partition(':')[0]}"
        raise ArgumentError(problem, "train the seeds one by one")
    if options.wandb and find_spec("wandb") is None:
        raise MissingExtraError("Weights & Biases is not installed", "pip install 'nearopt[wandb]'")


def default_folder(options: Options) -> Path:
    seeds = f"seed{options.seed}" if options.seeds == 1 else f"seeds{options.seed}-{options.seed + options.seeds - 1}"
    return Path("runs") / f"{options.algo}-{re.sub(r'[^\w.]+', '-', options.env_id)}-{seeds}"


def check_free(folder: Path) -> None:
    """A run needs a folder of its own."""
    from nearopt.runs.directory import LEFT_OVER
    from nearopt.runs.errors import RunExistsError

    left_over = lambda path: re.fullmatch(LEFT_OVER, path.name)
    empty_seed = lambda path: path.is_dir() and path.name.startswith("seed-") and all(map(left_over, path.iterdir()))
    if os.path.lexists(folder) and not folder.is_dir():
        raise RunExistsError(f"{folder} is a file", "choose another --run-dir")
    inside = {path.name for path in folder.glob("*") if not left_over(path) and not empty_seed(path)}
    if "config.json" in inside or any(name.startswith("seed-") for name in inside):
        raise RunExistsError(
            f"{folder} holds a run", f"nearopt resume {folder} goes on with it; or choose another --run-dir"
        )
    if inside:
        raise RunExistsError(f"{folder} is not empty, it holds {min(inside)}", "choose another --run-dir")


# ---------------------------------------------------------------- shared with `nearopt resume`
@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Around training: whoever stops it is told how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nnearopt: stopped; `nearopt resume {folder}` goes on", file=sys.stderr)
        raise


def finish(folder: Path, failed: dict[Path, str], json: bool, **more: Any) -> int:
    """Tells what the runs have come to; the exit code."""
    from nearopt.cli.learned import numbers_of, show
    from nearopt.cli.output import to_json
    from nearopt.runs.directory import open_runs

    runs = open_runs(folder)
    report = numbers_of(runs, folder) | more | dict(failed=failed)
    if json:
        print(to_json(report))
    else:
        show(report, runs, failed)
    return 1 if failed else 0
