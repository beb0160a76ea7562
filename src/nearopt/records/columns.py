"""Trajectories → a table with a row per step."""

import numpy as np

from nearopt.mdp.errors import LabelError
from nearopt.records.cells import MISSING
from nearopt.records.trajectories import Trajectories


def to_columns(trajectories: Trajectories) -> dict[str, np.ndarray]:
    """See `Trajectories.columns`."""
    length = trajectories.shape[1]
    label = check_labels(trajectories)
    state = trajectories.state
    action = np.pad(trajectories.action, ((0, 0), (0, 1)), constant_values=MISSING)
    rows = (state != MISSING) | (action != MISSING)
    rows[:, :1] = True  # a row for every trajectory, and one that tells which time is decision 0
    if not (state[:, length:] != MISSING).any() and not (action[:, length - 1 :] != MISSING).any():
        rows[:1, length] = True  # and one that tells how many decisions there are
    i, t = np.nonzero(rows)
    labels = {name: values[i] for name, values in label.items()}
    return labels | {"t": t, "state": with_nan(state[i, t]), "action": with_nan(action[i, t])}


def check_labels(trajectories: Trajectories) -> dict[str, np.ndarray]:
    """The subjects, if there are any, and the episodes; `LabelError` where two are alike."""
    episode = np.arange(len(trajectories)) if trajectories.episode is None else trajectories.episode
    label = {"episode": episode}
    if trajectories.subject is not None:
        label = {"subject": trajectories.subject, "episode": episode}
    codes = np.stack([np.unique(values, return_inverse=True)[1] for values in label.values()])
    first = np.unique(codes, axis=1, return_index=True)[1]
    if len(first) < len(trajectories):
        again = int(np.setdiff1d(np.arange(len(trajectories)), first)[0])
        words = ", ".join(f"{name} {values[again]}" for name, values in label.items())
        mend = "label them anew: dataclasses.replace(trajectories, episode=range(len(trajectories)))"
        raise LabelError(f"trajectory {again} is {words}, and so is an earlier one", mend)
    return label


def with_nan(values: np.ndarray) -> np.ndarray:
    """int64, or float64 with NaN where some were not recorded."""
    return np.where(values == MISSING, np.nan, values) if (values == MISSING).any() else values
