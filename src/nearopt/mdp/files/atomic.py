"""A file is either the old one or the new one, whatever happens in between."""

import contextlib
import os
from pathlib import Path

from nearopt.mdp.errors import FileAccessError, MissingFileError


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replaces the file at `path` by `data`: written beside it, flushed to the disk, then renamed over it.

    A failure leaves the old file and nothing else. The mode is what `open` would give, 0666 less the umask. A symbolic
    link stays one: the file it points to is replaced.

    Raises: `MissingFileError` where the folder does not exist, `FileAccessError` where it cannot be written.
    """
    target = Path(os.path.realpath(path))
    # A short name of its own: the target's may already be as long as the file system allows.
    temporary = target.with_name(f".nearopt-{os.urandom(8).hex()}.tmp")
    try:
        # os.open lets the kernel apply the umask; tempfile would leave 0600, reading the umask is a race.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except FileNotFoundError:
        raise MissingFileError(f"the folder {target.parent} does not exist", "create it, or save elsewhere") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        mend = "check that it is no folder, and its rights and disk"
        raise FileAccessError(f"{path} cannot be written ({reason})", mend) from None
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Makes the renaming itself survive a power loss, where the system offers that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # some network file systems refuse; the file is in place by now
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
