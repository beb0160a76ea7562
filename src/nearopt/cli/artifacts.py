"""What `nearopt infer --out` writes: pictures, arrays, numbers."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearopt.cli.output import to_json
from nearopt.mdp.errors import FileAccessError, MissingExtraError

if TYPE_CHECKING:
    from nearopt.inference.posterior import Posterior
    from nearopt.inference.trajectories import Trajectories

MOST_ENTRIES = 2**27  # of the policy, above which it is not saved: 1 GiB


def check_folder(folder: Path) -> None:
    """Finds what would go wrong in the end, before the work is done. Makes nothing."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("--out draws with matplotlib, which is not installed", 'pip install "nearopt[figures]"')
    above = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(above):
        raise FileAccessError(f"{above} is a file, not a folder", "choose another folder for --out")
    if not os.access(above, os.W_OK | os.X_OK):
        raise FileAccessError(f"the folder {above} cannot be written", "choose another folder for --out")


def write(
    report: dict[str, Any],
    post: "Posterior",
    trajectories: "Trajectories | None",
    sweep: Sequence["Posterior"],
    folder: Path,
) -> list[str]:
    """Pictures, posterior.safetensors and summary.json; returns their paths."""
    import safetensors.numpy

    from nearopt.cli.summary import policy_of
    from nearopt.figures import inference_figures
    from nearopt.mdp.files.atomic import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        mend = "choose another folder for --out"
        raise FileAccessError(f"cannot make the folder {folder} ({error.strerror})", mend) from None
    pictures = inference_figures(post, folder, trajectories=trajectories, sweep=sweep)
    files = [*map(str, pictures), str(folder / "posterior.safetensors"), str(folder / "summary.json")]
    arrays = dict(value=post.value, state_probs=post.state_probs, log_forward=post.log_forward)
    if post.horizon * post.mdp.num_states * post.mdp.num_actions <= MOST_ENTRIES:
        arrays["policy"] = policy_of(post)
    if trajectories is not None:
        arrays |= dict(sampled_state=trajectories.state, sampled_action=trajectories.action)
    # copies: safetensors writes the memory as it lies, whatever the strides
    write_atomically(files[-2], safetensors.numpy.save({name: array.copy("C") for name, array in arrays.items()}))
    write_atomically(files[-1], f"{to_json(report | dict(files=files), indent=2)}\n".encode())
    return files
