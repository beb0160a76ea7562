"""What can go wrong with the files of a run; every message ends with a mend."""

import os
from pathlib import Path

from nearopt.mdp.errors import NearoptError


class DamagedFileError(NearoptError):
    """A file that is not what was written: truncated, changed, or made to deceive."""


class CannotSaveError(NearoptError):
    """A disk or a folder that takes no file; what was saved before is still there."""


class UnsaveableError(NearoptError):
    """Arrays or facts that the files of a run cannot hold."""


class ReplayError(NearoptError):
    """Rows of a replay buffer that do not continue those saved before."""


class MetricsError(NearoptError):
    """A row of metrics that does not fit the table."""


class RunExistsError(NearoptError):
    """A new run in a place that is taken."""


class NotARunError(NearoptError):
    """A folder that holds no run."""


class RunLockedError(NearoptError):
    """A run that another process trains."""


class CurveError(NearoptError):
    """Runs that have no learning curve in common."""


def damaged(path: str | os.PathLike[str], what: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: {what}", "restore a copy, or write it anew")


def cannot_save(path: Path, error: Exception) -> CannotSaveError:
    """`error` is an `OSError`, or what `write_atomically` made of one."""
    cause: BaseException = error
    while not isinstance(cause, OSError) and cause.__context__:
        cause = cause.__context__
    reason = getattr(cause, "strerror", None) or str(cause)
    return CannotSaveError(
        f"{path} cannot be written ({reason}), and what was saved before is still there",
        "free disk space, check the folder's rights, or save elsewhere",
    )
