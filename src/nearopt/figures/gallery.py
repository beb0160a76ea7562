"""All pictures of one exact inference, as files."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from nearopt.figures.canvas import save
from nearopt.figures.layout import find_lattice
from nearopt.figures.pages import grid_pages
from nearopt.figures.paths import check_paths
from nearopt.figures.results import Answer, Paths
from nearopt.figures.sheets import sheets
from nearopt.mdp.errors import ShapeError


def inference_figures(
    posterior: Answer,
    folder: "str | PathLike[str]",
    *,
    trajectories: Paths | None = None,
    sweep: Sequence[Answer] = (),
) -> list[Path]:
    """Draws a posterior as PNG files in `folder`, which is made if missing; returns the files that were written.

    world.png, backward.png, forward.png, posterior.png and policy.png; trajectories.png where trajectories (sampled
    from it) are given, temperature.png where `sweep` holds posteriors of the same task at other temperatures. A world
    whose positions are the cells of a grid is drawn as a map; any other as states over time, and without world.png.
    Every file appears whole or not at all, and takes the place of an earlier one of its name.

    Raises: `ShapeError` for a sweep over another model, `StateRangeError` for trajectories of another model.

    >>> import nearopt as no, tempfile
    >>> posterior = no.infer(no.MDP.from_grid("S..G"), horizon=6, temperature=0.5)
    >>> [path.name for path in inference_figures(posterior, tempfile.mkdtemp())]
    ['world.png', 'backward.png', 'forward.png', 'posterior.png', 'policy.png']
    """
    folder = Path(folder)
    for other in sweep:
        if other.mdp.num_states != posterior.mdp.num_states:
            raise ShapeError(
                f"the sweep holds a posterior over {other.mdp.num_states} states, the own one has "
                f"{posterior.mdp.num_states}",
                "sweep the temperature of one and the same model",
            )
    if trajectories is not None:
        check_paths(posterior.mdp, trajectories)
    others = [other for other in sweep if other.temperature != posterior.temperature]
    answers = sorted([posterior, *others], key=lambda answer: answer.temperature)
    make = grid_pages if find_lattice(posterior.mdp) is not None else sheets
    folder.mkdir(parents=True, exist_ok=True)
    return [save(figure, folder / name) for name, figure in make(posterior, trajectories, answers)]
