"""One call of `learn`: when rows are written, when checkpoints are made, when it ends."""

import contextlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from nearopt.agents import files
from nearopt.agents.errors import DivergedError, SettingError, StopTraining, WrongAgentError
from nearopt.agents.settings import MOST_STEPS, to_json, whole
from nearopt.environments import TABLE
from nearopt.environments.capture import reason_not_exact, verified
from nearopt.environments.streams import make
from nearopt.mdp.errors import NearoptError
from nearopt.runs.checkpoints import Checkpoint, Checkpoints
from nearopt.runs.directory import RunDirectory, complete
from nearopt.runs.errors import NotARunError
from nearopt.runs.metrics import Metrics

Callback = Callable[[int, dict[str, float]], bool | None]
LEAST_ESS = 0.05  # share of the actions for V that count
MOST_CHUNKS = 20_000  # files of transitions that one checkpoint can name


class Run:
    """The files of one agent's training."""

    def __init__(self, directory: RunDirectory, wandb: str | None):
        self.directory = directory
        self.checkpoints = Checkpoints(directory.checkpoints)
        self.metrics = Metrics(directory.path, wandb=wandb)
        self.saved = 0  # transitions that the checkpoints hold

    def checkpoint(self, agent: Any) -> None:
        arrays, facts = agent.learner.capture(agent)
        arrays |= {f"state.{name}": array for name, array in files.to_tensors(agent.state).items()}
        facts |= dict(steps=agent.steps, position=self.metrics.position())
        buffer = agent.buffer
        first = max(self.saved, buffer.oldest)
        self.checkpoints.write(agent.steps, arrays, facts, buffer.since(first), first, buffer.oldest)
        self.saved = buffer.inserted

    def restore(self, agent: Any, checkpoint: Checkpoint) -> None:
        """The agent, its learner and the metrics as they were.

        Raises: `DamagedFileError` where the checkpoint is not this run's, or somebody else's work.
        """
        facts, arrays = checkpoint.facts, checkpoint.tensors
        state = {name.removeprefix("state."): x for name, x in arrays.items() if name.startswith("state.")}
        with files.believed_in_nothing(self.directory.checkpoints / f"step-{checkpoint.step:012d}"):
            agent.state = files.from_tensors(agent.state, state)
            config = self.directory.config
            if facts["steps"] != checkpoint.step or not config["start"] <= checkpoint.step <= config["end"]:
                raise ValueError(f"steps is {facts['steps']!r:.60}")
            if checkpoint.first > checkpoint.step - len(checkpoint.rows.get("reward", ())):
                raise ValueError(f"the replay buffer begins with {checkpoint.first}")
            agent.steps = facts["steps"]
            reason = agent.learner.restore(agent, arrays, facts, checkpoint.rows, checkpoint.first)
            self.metrics.rewind(position(facts["position"], checkpoint.step))
        if reason is not None and config["resume"].startswith("exact"):
            warnings.warn(f"{self.directory.path} goes on with a new episode: {reason}", stacklevel=5)
        self.saved = agent.buffer.inserted


def position(facts: Any, steps: int) -> dict[str, Any]:
    """Where the metrics were after `steps`, as `Metrics.position` tells it. Raises: `ValueError`."""
    for table in ("metrics", "timing"):
        match facts[table]:
            case {"bytes": int(size), "columns": list(columns), "step": int(step)} if size >= 0 and -1 <= step <= steps:
                if all(isinstance(name, str) for name in columns):
                    continue
        raise ValueError(f"position is {facts!r:.60}")
    return facts


class Session:
    """From `begin` to the end of one call of `learn`, for one agent or several that learn in step."""

    def __init__(
        self,
        total: int,
        run_dir: str | Path | None = None,
        progress_bar: bool = False,
        callback: Callback | None = None,
        log_every: int = 1_000,
        checkpoint_every: int = 5_000,
        wandb: str | None = None,
    ):
        self.total, self.log_every = whole("total_timesteps", total), whole("log_every", log_every)
        self.checkpoint_every = whole("checkpoint_every", checkpoint_every)
        self.folder, self.wandb, self.callback = None if run_dir is None else Path(run_dir), wandb, callback
        self.progress_bar, self.bar = progress_bar, None
        self.runs: list[Run] = []
        self.resumed: list[Checkpoint] = []
        self.held = contextlib.ExitStack()
        self.seen = self.end = 0
        self.warned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *why: Any) -> bool:
        self.held.close()
        if self.bar is not None:
            self.bar.close()
        return kind is StopTraining  # a callback has had enough: no error

    # ------------------------------------------------------------ beginning
    def begin(self, agents: list[Any]) -> None:
        """A new run; where there is a folder, its files are made: for several agents in seed-0, seed-1, … beneath."""
        most = MOST_STEPS - agents[0].steps
        self.seen, self.end = agents[0].steps, agents[0].steps + whole("total_timesteps", self.total, most=most)
        for agent in agents:
            _ = agent.buffer.rows  # is there as much memory? Before there are files
        if self.folder is not None:
            self.check_chunks(agents[0].buffer.capacity)
            folders = [self.folder] if len(agents) == 1 else [self.folder / f"seed-{i}" for i in range(len(agents))]
            resumes = how_it_resumes(agents[0].world)
            for agent, folder in zip(agents, folders, strict=True):
                config = self.config(agent) | dict(seeds=len(agents), resume=resumes)
                directory = RunDirectory.create(folder, config)
                self.held.enter_context(directory.lock())
                self.write_to(directory)

    def go_on(self, directories: list[RunDirectory], checkpoints: list[Checkpoint]) -> None:
        """An old run, whose lock is held, from checkpoints of one step (none: from its start)."""
        config = directories[0].config
        self.wandb, self.end = config["wandb"], config["end"]
        if not checkpoints and config["start"]:
            problem = f"{directories[0].path} has no checkpoint, and its agent had learned before the run began"
            raise NotARunError(problem, "train it anew")
        for directory in directories:
            self.write_to(directory)
        self.resumed = checkpoints
        for checkpoint in checkpoints:
            if checkpoint.warning:
                warnings.warn(checkpoint.warning, stacklevel=3)
        self.seen = checkpoints[0].step if checkpoints else 0

    def write_to(self, directory: RunDirectory) -> None:
        run = Run(directory, self.wandb)
        self.held.callback(run.metrics.close)
        self.runs.append(run)

    def check_chunks(self, buffer_size: int) -> None:
        """Every checkpoint names a file of transitions for each one before it that the buffer reaches back to."""
        files_named = min(self.total, buffer_size) // self.checkpoint_every
        if files_named > MOST_CHUNKS:
            problem = f"checkpoint_every={self.checkpoint_every} cuts the replay buffer into {files_named:,} files"
            raise SettingError(problem, f"give at least {min(self.total, buffer_size) // MOST_CHUNKS + 1}")

    def config(self, agent: Any) -> dict[str, Any]:
        """What `config.json` says: all that is needed to do it again."""
        world = agent.world
        return dict(
            algorithm=type(agent).__name__,
            env=dict(id=world.id, kwargs=files.plain_kwargs(world.kwargs), n_envs=world.n_envs),
            seed=agent.seed,
            start=agent.steps,
            end=self.end,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            wandb=self.wandb,
            settings=to_json(agent.settings),
        )

    def ready(self, agents: list[Any]) -> None:
        """The agents' learners are there: back to the checkpoints, or the first one."""
        for agent, run, checkpoint in zip(agents, self.runs, self.resumed, strict=False):
            run.restore(agent, checkpoint)
        if not self.resumed:
            for agent, run in zip(agents, self.runs, strict=False):
                run.metrics.rewind()
                run.checkpoint(agent)
        self.clock, self.clocked = time.perf_counter(), agents[0].steps
        if self.progress_bar:
            from tqdm import tqdm

            self.bar = tqdm(total=self.end, initial=self.seen, unit="step", dynamic_ncols=True, disable=None)

    # ------------------------------------------------------------ between
    def until(self) -> int:
        """The step at which the next row or checkpoint is due."""
        following = lambda every: (self.seen // every + 1) * every
        return min(self.end, following(self.log_every), following(self.checkpoint_every))

    def after(self, agents: list[Any]) -> None:
        """After every step, or block of steps: what is due."""
        step, before = agents[0].steps, self.seen
        self.seen = step
        if self.bar is not None:
            self.bar.update(step - before)
        if step // self.log_every > before // self.log_every or step >= self.end:
            self.log(agents)
        if self.runs and step // self.checkpoint_every > before // self.checkpoint_every and step < self.end:
            for agent, run in zip(agents, self.runs, strict=True):
                run.checkpoint(agent)
        if step >= self.end:
            self.finish(agents)

    def log(self, agents: list[Any]) -> None:
        """A row of metrics for every agent; the callback and the bar see the first one's."""
        now, step = time.perf_counter(), agents[0].steps
        seconds = now - self.clock
        timing = dict(seconds=seconds, steps_per_second=(step - self.clocked) / max(seconds, 1e-9))
        self.clock, self.clocked = now, step
        rows = [agent.learner.monitor.row(agent.temperature) for agent in agents]
        self.watch(step, rows)
        for row, run in zip(rows, self.runs, strict=False):
            run.metrics.write(step, row, timing)
        if self.bar is not None:
            shown = ("return", "soft_return", "entropy", "temperature")
            self.bar.set_postfix({name: f"{rows[0][name]:.4g}" for name in shown if name in rows[0]})
        answer = None if self.callback is None else self.callback(step, rows[0])
        if answer is not None and not answer:  # NumPy's False as well
            self.finish(agents)
            raise StopTraining

    def watch(self, step: int, rows: list[dict[str, float]]) -> None:
        """Says once that the soft values rest on few of the actions that were drawn for them."""
        least = min((row["ess"] for row in rows if "ess" in row), default=np.nan)
        if least < LEAST_ESS and not self.warned:
            self.warned = True
            said = f"step {step}: the soft value rests on {least:.1%} of its actions"
            mend = 'give more value_samples, another sampler ("mixture"), or a higher temperature'
            warnings.warn(f"{said}, and is too low; {mend}", stacklevel=2)

    def finish(self, agents: list[Any]) -> None:
        for agent, run in zip(agents, self.runs, strict=False):
            run.metrics.flush()
            agent.save(run.directory.agent)

    def diverged(self, agent: Any, number: int, batches: Any, reports: dict[str, np.ndarray]) -> DivergedError:
        """The error for a loss that is not finite. What led there is kept; `agent` is as it was before.

        `reports`: by name, an entry per update. What comes after the critic in an update may be NaN because of it.
        """
        first = int(np.argmin(reports["finite"]))
        told = {name: reports[name][first] for name in sorted(reports, key=lambda name: name != "critic_loss")}
        bad = next((f"{name} is {value}" for name, value in told.items() if not np.isfinite(value)), "a loss")
        said = f"step {agent.steps}: {bad}"
        mend = "lower the learning rate, or bound rewards and observations"
        if not self.runs:
            return DivergedError(said, mend)
        run = self.runs[number]
        arrays, facts = files.failure(agent, batches, agent.seed, agent.steps)
        run.directory.dump("update", arrays, facts)
        folder = run.directory.path / "failure"
        return DivergedError(
            f"{said}; the batch is in {folder} (nearopt.agents.files.repeat does the update again)", mend
        )


def how_it_resumes(world: Any) -> str:
    """ "exact", or why only at an episode's boundary."""
    if world.environment is not None:
        return "exact"
    reason = reason_not_exact(world.streams.env)
    if reason is None and world.id is None:
        return "exact, as far as can be seen"
    if reason is None:  # two of them can be had, to try it
        reason = verified(lambda: make(world.id, world.kwargs, world.n_envs).env)
    return "exact" if reason is None else f"at an episode boundary: {reason}"


def resume(
    run_dir: str | Path,
    env: Any = None,
    progress_bar: bool = False,
    callback: Callback | None = None,
    prior: Any = None,
) -> list[Any]:
    """Goes on with a run that was stopped, from its newest whole checkpoint, to the end it was to reach.

    Args:
        run_dir: a run, or the folder above several seeds: in JAX they learn in step, otherwise one after another.
        env: the environment, where the run's configuration cannot name it.
        prior: the action prior, where it was a function.

    Returns:
        The agents. A run that is finished is left alone.

    Raises:
        NotARunError, DamagedFileError, RunLockedError: see `nearopt.runs`.

    >>> import shutil, tempfile
    >>> from nearopt import SoftDQN
    >>> with tempfile.TemporaryDirectory() as home:
    ...     first = SoftDQN("CartPole-v1", seed=0, net_arch=[8], batch_size=16)
    ...     _ = first.learn(300, run_dir=f"{home}/run", checkpoint_every=200)
    ...     shutil.rmtree(f"{home}/run/agent")  # as if it had been killed before its end
    ...     (again,) = resume(f"{home}/run")
    >>> again.steps, bool(again.soft_value(np.zeros(4)) == first.soft_value(np.zeros(4)))
    (300, True)
    """
    from nearopt.agents.agent import is_functional, learn

    directories = complete(run_dir)
    together = is_functional(env) or (env is None and directories[0].config["env"]["id"] in TABLE)
    if len(directories) > 1 and not together:
        return [agent for one in directories for agent in resume(one.path, env, progress_bar, callback, prior)]
    finished = lambda: all(directory.finished for directory in directories)
    with contextlib.ExitStack() as held:
        if not finished():
            for directory in directories:
                held.enter_context(directory.lock())
        if finished():  # by now: another process may have held the lock
            return [files.load_agent(directory.agent, env, prior) for directory in directories]
        config = directories[0].config
        with files.believed_in_nothing(directories[0].path / "config.json"):
            agents = [build(directory.config, env, prior) for directory in directories]
        every = config["log_every"], config["checkpoint_every"]
        with Session(config["end"], None, progress_bar, callback, *every) as session:
            session.go_on(directories, common([Checkpoints(d.checkpoints) for d in directories]))
            learn(agents, session)
    return agents


def build(config: dict[str, Any], env: Any, prior: Any) -> Any:
    """The agent of this configuration, as new."""
    from nearopt.agents.agent import enter

    kind = files.class_of(config["algorithm"])
    agent = kind.__new__(kind)
    num = config["env"]["n_envs"]
    agent.world = enter(env, n_envs=num) if env is not None else files.environment_of(config["env"])
    if agent.world.n_envs != num:
        problem = f"the run was begun with {num} environments, and {agent.world.n_envs} are given"
        raise WrongAgentError(problem, "give as many")
    agent.build(agent.world.spaces, config["seed"], files.read_settings(config["settings"], prior))
    return agent


def common(folders: list[Checkpoints]) -> list[Checkpoint]:
    """The newest checkpoints of one step; empty where a run has not got to its first."""
    newest = [folder.latest() for folder in folders]
    if any(checkpoint is None for checkpoint in newest):
        return []
    step = min(checkpoint.step for checkpoint in newest if checkpoint)
    at = [c if c and c.step == step else folder.latest(at_most=step) for c, folder in zip(newest, folders, strict=True)]
    if any(checkpoint is None or checkpoint.step != step for checkpoint in at):
        raise NearoptError("the seeds have no checkpoint of one step", "train them anew")
    return [checkpoint for checkpoint in at if checkpoint]
