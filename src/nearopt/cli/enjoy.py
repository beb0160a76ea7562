"""`nearopt enjoy`: a trained agent in a window, or as a film."""

import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nearopt.cli.options import Json, named, parse
from nearopt.cli.source import plain_text
from nearopt.mdp.errors import ArgumentError, MissingExtraError, NearoptError

if TYPE_CHECKING:
    from nearopt.runs.directory import RunDirectory

EXAMPLES = """\
examples, to be copied:
  nearopt enjoy runs/sac-Pendulum-v1-seed0
  nearopt enjoy runs/sac-Pendulum-v1-seed0 --episodes 3 --deterministic --video films

RUN_DIR is one run; of the folder above several seeds the first one is shown. The agent samples its actions, as it was
trained to, unless told --deterministic.

--video DIR
  One .mp4 per episode; needs pip install 'nearopt[video]'. Without a display MuJoCo draws by MUJOCO_GL=egl, which is
  set unless you set it (osmesa is another way).

--json
  run_dir, seed (of the agent), episodes, deterministic, returns, soft_returns, lengths, files.
"""


class RenderingError(NearoptError):
    """An environment that cannot be drawn here."""


@dataclass(frozen=True)
class Options:
    """Shows a trained agent in a window, or films it."""

    run_dir: Annotated[Path, tyro.conf.Positional, named("RUN_DIR", "")]
    """The folder of a run."""
    episodes: Annotated[int, named("N")] = 1
    """How many."""
    video: Annotated[Path | None, named("DIR", "")] = None
    """Film into this folder, and open no window."""
    deterministic: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """The policy's mode instead of samples."""
    json: Json = False
    """Print one JSON object, and nothing else."""


def run(argv: Sequence[str]) -> int:
    options = parse(Options, "enjoy", EXAMPLES, argv)
    from nearopt.cli.learned import finished_runs, task_of
    from nearopt.cli.output import print_table, progress, to_json

    if options.episodes < 1:
        raise ArgumentError(f"--episodes is {options.episodes}", "give a whole number of at least 1")
    if options.video is None and not has_display():
        raise RenderingError("there is no display to open a window on", "film it: --video DIR")
    run = finished_runs(options.run_dir)[0]
    with progress("playing"):
        played, files = play(run, options)
    report: dict[str, Any] = dict(run_dir=run.path, seed=run.config["seed"], episodes=options.episodes)
    report |= dict(deterministic=options.deterministic) | played._asdict() | dict(files=files)
    if options.json:
        print(to_json(report))
        return 0
    print(f"{task_of(run)}, seed {run.config['seed']}\n")
    columns = zip(played.returns, played.soft_returns, played.lengths, strict=True)
    rows = [(str(number), *(f"{x:,.4g}" for x in row)) for number, row in enumerate(columns)]
    print_table([("episode", "return", "soft return", "length"), *rows])
    if files:
        print("\nwritten")
        print_table([(file,) for file in files])
    return 0


def has_display() -> bool:
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def play(run: "RunDirectory", options: Options) -> tuple[Any, list[str]]:
    """The returns, and the films that were made."""
    from nearopt.agents.evaluation import evaluate_agent
    from nearopt.agents.files import load_agent

    agent, id = load_agent(run.agent), run.config["env"]["id"]
    name = f"{run.config['algorithm']}-{re.sub(r'[^\w.]+', '-', str(id))}-seed{run.config['seed']}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, about a folder that holds films already
        env = draw(run, options)
        try:
            shown = film(env, name, options) if options.video else env
            played = evaluate_agent(agent, shown, options.episodes, 0, options.deterministic)
            shown.close()  # where a film ends
        except NearoptError:
            raise
        except Exception as error:  # the environment's own code, and OpenGL's
            why = f"{type(error).__name__}: {plain_text(str(error))[:200]}"
            mend = "see `nearopt enjoy --help` about MUJOCO_GL" if "mujoco" in str(env.spec) else "see its own page"
            raise RenderingError(f"{id} cannot be drawn here ({why})", mend) from None
    if not options.video:
        return played, []
    return played, [str(options.video / f"{name}-episode-{number}.mp4") for number in range(options.episodes)]


def draw(run: "RunDirectory", options: Options) -> Any:
    """The environment, made to be seen."""
    from nearopt.environments import streams

    facts = run.config["env"]
    if not facts["id"] or facts["kwargs"] is None:
        raise RenderingError(f"{run.path} does not say how its environment is made", "show the agent from Python")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets on stdout
    if not has_display():
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    id, mode = streams.check_id(facts["id"]), "rgb_array" if options.video else "human"
    blind = streams.make(id, facts["kwargs"]).env
    blind.close()
    if mode not in blind.metadata.get("render_modes", ()):
        raise RenderingError(f"{id} does not draw itself (render_mode={mode!r})", "use nearopt evaluate")
    return streams.make(id, facts["kwargs"] | dict(render_mode=mode)).env


def film(env: Any, name: str, options: Options) -> Any:
    """An environment that films its episodes."""
    from gymnasium.error import DependencyNotInstalled
    from gymnasium.wrappers import RecordVideo

    wanted = lambda episode: episode < options.episodes  # the one begun after the last is none
    try:
        return RecordVideo(env, str(options.video), wanted, name_prefix=name)
    except DependencyNotInstalled:
        raise MissingExtraError("films need moviepy, which is not installed", "pip install 'nearopt[video]'") from None
