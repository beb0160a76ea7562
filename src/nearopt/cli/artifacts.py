"""What `--out` writes: pictures, arrays, numbers."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearopt.cli.output import to_json
from nearopt.mdp.errors import FileAccessError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np

    from nearopt.inference.ledger import Ledger
    from nearopt.inference.posterior import Posterior
    from nearopt.planning.solve import Solution
    from nearopt.records.trajectories import Trajectories

MOST_ENTRIES = 2**27  # of the policy, above which it is not saved: 1 GiB


def check_folder(folder: Path, option: str = "--out") -> None:
    """Finds what would go wrong in the end, before the work is done. Makes nothing."""
    if find_spec("matplotlib") is None:
        problem = f"{option} draws with matplotlib, which is not installed"
        raise MissingExtraError(problem, 'pip install "nearopt[figures]"')
    above = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(above):
        raise FileAccessError(f"{above} is a file, not a folder", f"choose another folder for {option}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise FileAccessError(f"the folder {above} cannot be written", f"choose another folder for {option}")


def write(
    report: dict[str, Any],
    post: "Posterior",
    trajectories: "Trajectories | None",
    sweep: Sequence["Posterior"],
    folder: Path,
) -> list[str]:
    """Pictures, posterior.safetensors and summary.json; returns their paths."""
    from nearopt.figures import inference_figures

    make_folder(folder)
    pictures = inference_figures(post, folder, trajectories=trajectories, sweep=sweep)
    arrays = arrays_of(post) | dict(log_forward=post.log_forward)
    if trajectories is not None:
        arrays |= dict(sampled_state=trajectories.state, sampled_action=trajectories.action)
    return finish(report, arrays, pictures, folder / "posterior.safetensors")


def write_comparison(report: dict[str, Any], led: "Ledger", folder: Path) -> list[str]:
    """Pictures, ledger.safetensors and summary.json; returns their paths."""
    from nearopt.figures import comparison_figures

    make_folder(folder)
    pictures = comparison_figures(led, folder)
    answers = dict(exact=led.exact, variational=led.variational, optimal=led.optimal)
    arrays = {f"{name}_{key}": a for name, post in answers.items() for key, a in arrays_of(post).items()}
    return finish(report, arrays, pictures, folder / "ledger.safetensors")


def write_solution(report: dict[str, Any], sol: "Solution", folder: Path) -> list[str]:
    """Pictures, solution.safetensors and summary.json; returns their paths."""
    from nearopt.figures import solution_figures

    make_folder(folder)
    pictures = solution_figures(sol, folder)
    arrays = dict(value=sol.value, lower=sol.lower, upper=sol.upper, q=sol.q, policy=sol.policy)
    return finish(report, arrays, pictures, folder / "solution.safetensors")


def make_folder(folder: Path, option: str = "--out") -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        mend = f"choose another folder for {option}"
        raise FileAccessError(f"cannot make the folder {folder} ({error.strerror})", mend) from None


def arrays_of(post: "Posterior") -> dict[str, "np.ndarray"]:
    """What is saved of every posterior; not the policy where it is large."""
    from nearopt.cli.summary import policy_of

    few = post.horizon * post.mdp.num_states * post.mdp.num_actions <= MOST_ENTRIES
    return dict(value=post.value, state_probs=post.state_probs) | (dict(policy=policy_of(post)) if few else {})


def finish(
    report: dict[str, Any], arrays: dict[str, "np.ndarray"], pictures: Sequence[Path], target: Path
) -> list[str]:
    """Writes the arrays and summary.json; returns the paths of everything."""
    import safetensors.numpy

    from nearopt.mdp.files.atomic import write_atomically

    files = [*map(str, pictures), str(target), str(target.with_name("summary.json"))]
    # copies: safetensors writes the memory as it lies, whatever the strides
    write_atomically(files[-2], safetensors.numpy.save({name: array.copy("C") for name, array in arrays.items()}))
    write_atomically(files[-1], f"{to_json(report | dict(files=files), indent=2)}\n".encode())
    return files
