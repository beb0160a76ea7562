"""`nearopt evaluate`: what trained agents are worth in episodes that they have not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nearopt.cli.options import Json, named, parse
from nearopt.mdp.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

    from nearopt.runs.directory import RunDirectory

EXAMPLES = """\
examples, to be copied:
  nearopt evaluate runs/sac-Pendulum-v1-seed0
  nearopt evaluate runs/pendulum --episodes 100 --json

RUN_DIR is one run, or the folder above several seeds. The final agents play whole episodes in fresh environments, the
same ones for every agent, each twice:
  deterministic   the policy's mode: the most probable action, or tanh of the mean of a squashed Gaussian
  stochastic      samples of the policy, which is what entropy regularisation optimises
Returns are sums of rewards over an episode, not discounted; the soft return adds −τ log π/p of every action, the
entropy bonus that was earned. After ± stands the standard deviation between episodes.

over seeds
  The interquartile mean of the agents' mean returns, and its 95 % bootstrap interval over agents (Agarwal et al. 2021).

--json
  run_dir, algorithm, env, env_kwargs, episodes, seed; runs: run_dir, seed, steps, temperature, and deterministic and
  stochastic, each with mean, std (null of one episode), soft_mean, soft_std, length, returns, soft_returns;
  over_seeds (null of one run): deterministic and stochastic, each with iqm, low, high.
"""


@dataclass(frozen=True)
class Options:
    """Returns of a trained agent in new episodes; of several seeds also their interquartile mean, with an interval."""

    run_dir: Annotated[Path, tyro.conf.Positional, named("RUN_DIR", "")]
    """The folder of a run, or the folder above several seeds."""
    episodes: Annotated[int, named("N")] = 10
    """Of each agent, in each of the two ways."""
    seed: Annotated[int, named("K")] = 0
    """Of the environments and of the policy's draws."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "evaluate", EXAMPLES, argv)
    from nearopt.cli.output import progress, to_json

    with progress("loading JAX") as tell:
        report, runs = answer(options, tell)
    if options.json:
        print(to_json(report))
    else:
        show(report, runs)
    return 0


def answer(options: Options, tell: Callable[[str], None]) -> "tuple[dict[str, Any], list[RunDirectory]]":
    """The numbers, and the runs that they are of."""
    from nearopt.cli.learned import finished_runs

    if options.episodes < 1:
        raise ArgumentError(f"--episodes is {options.episodes}", "give a whole number of at least 1")
    if not 0 <= options.seed < 2**31:
        raise ArgumentError(f"--seed is {options.seed}", f"give a whole number from 0 to {2**31 - 1}")
    runs = finished_runs(options.run_dir)
    rows = [row_of(run, options, tell) for run in runs]
    env = runs[0].config["env"]
    report = dict(run_dir=options.run_dir, algorithm=runs[0].config["algorithm"], env=env["id"])
    report |= dict(env_kwargs=env["kwargs"], episodes=options.episodes, seed=options.seed, runs=rows)
    return report | dict(over_seeds=over(rows) if len(rows) > 1 else None), runs


def row_of(run: "RunDirectory", options: Options, tell: Callable[[str], None]) -> dict[str, Any]:
    """One agent, played in both ways."""
    from nearopt.agents.evaluation import MOST_STREAMS, evaluate_agent
    from nearopt.agents.files import environment_of, load_agent

    agent = load_agent(run.agent)
    world = environment_of(run.config["env"] | dict(n_envs=min(options.episodes, MOST_STREAMS)))
    row: dict[str, Any] = dict(run_dir=run.path, seed=run.config["seed"], steps=agent.steps)
    row["temperature"] = agent.temperature
    for way in WAYS:
        tell(f"{run.path}: {options.episodes} episodes, {way}")
        played = evaluate_agent(agent, world, options.episodes, options.seed, way == "deterministic")
        row[way] = numbers(played.returns) | numbers(played.soft_returns, "soft_")
        row[way] |= dict(length=float(played.lengths.mean()))
        row[way] |= dict(returns=played.returns, soft_returns=played.soft_returns)
    if world.streams is not None:
        world.streams.env.close()
    return row


WAYS = ("deterministic", "stochastic")


def numbers(returns: "np.ndarray", prefix: str = "") -> dict[str, float | None]:
    spread = float(returns.std(ddof=1)) if len(returns) > 1 else None
    return {f"{prefix}mean": float(returns.mean()), f"{prefix}std": spread}


def over(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each way the interquartile mean over agents, and its interval."""
    import numpy as np

    from nearopt.runs.curves import bootstrap_interval, interquartile_mean

    scores = np.array([[row[way]["mean"] for way in WAYS] for row in rows])
    middle, (low, high) = interquartile_mean(scores), bootstrap_interval(scores)
    return {way: dict(iqm=middle[k], low=low[k], high=high[k]) for k, way in enumerate(WAYS)}


def show(report: dict[str, Any], runs: "list[RunDirectory]") -> None:
    """The numbers for people."""
    from nearopt.cli.learned import task_of
    from nearopt.cli.output import print_table

    def within(row: dict[str, Any], name: str) -> str:
        spread = row[f"{name}std"]
        return f"{row[f'{name}mean']:,.4g}" + ("" if spread is None else f" ± {spread:,.3g}")

    print(f"{task_of(runs[0])}: {report['episodes']} new episodes (seed {report['seed']}) of each agent, in each way\n")
    lines: list[tuple[str, ...]] = [("seed", "steps", "policy", "return", "soft return", "length")]
    for row in report["runs"]:
        for way in WAYS:
            told = row[way]
            start = (str(row["seed"]), f"{row['steps']:,}") if way == WAYS[0] else ("", "")
            lines.append((*start, way, within(told, ""), within(told, "soft_"), f"{told['length']:,.4g}"))
    print_table(lines)
    if report["over_seeds"]:
        print("\nover seeds: interquartile mean of their mean returns, 95 % interval")
        for way, found in report["over_seeds"].items():
            print(f"  {way:13}  {found['iqm']:,.4g}  ({found['low']:,.4g} to {found['high']:,.4g})")
