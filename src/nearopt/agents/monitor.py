"""What a row of metrics is made of: sums over finished episodes and over updates."""

from collections.abc import Mapping

import numpy as np

EPISODE = ("return", "soft_return", "length")


def check_form(given: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    """Whether these arrays have the names, shapes and types of those. Raises: `KeyError`, `ValueError`."""
    for name, array in wanted.items():
        if (given[name].shape, given[name].dtype) != (array.shape, array.dtype):
            raise ValueError(f"{name} is {given[name].dtype} {given[name].shape}")


class Monitor:
    """Counts of one run. `soft_return` adds −τ log π/p of every action taken to the rewards; sums are not discounted.

    A row tells the means since the row before; where no episode ended, or nothing was updated, it tells NaN. Every
    update reports whether its losses were "finite": those that were not end a run, and are never in a row.
    """

    def __init__(self, num: int, names: tuple[str, ...]):
        self.names = names  # of what an update reports
        self.finite = names.index("finite")
        self.running = np.zeros((3, num))  # of unfinished episodes: return, soft return, length
        self.finished = np.zeros(3)
        self.reports = np.zeros(len(names))
        self.counts = np.zeros(len(names))
        self.episodes = 0
        self.fresh = 0  # episodes since the last row

    def moved(self, reward: np.ndarray, bonus: np.ndarray, ended: np.ndarray, real: np.ndarray) -> None:
        """One step of every stream; `bonus` is −τ log π/p of its action."""
        if real.all():
            self.running[0] += reward
            self.running[1] += reward + bonus
            self.running[2] += 1.0
        else:
            self.running += np.where(real, np.stack([reward, reward + bonus, np.ones_like(reward)]), 0.0)
        if ended.any():
            self.finished += self.running[:, ended].sum(axis=1)
            self.running[:, ended] = 0.0
            self.episodes += int(ended.sum())
            self.fresh += int(ended.sum())

    def learned(self, reports: np.ndarray) -> None:
        """Reports of updates (names,) or (updates, names). NaN: this update has nothing to say of that."""
        for row in np.atleast_2d(reports).astype(float):
            told = row == row
            self.reports += row if told.all() else np.where(told, row, 0.0)
            self.counts += told

    def add(self, finished: np.ndarray, episodes: np.ndarray, reports: np.ndarray, counts: np.ndarray) -> None:
        """Sums that were made elsewhere."""
        self.finished, self.reports, self.counts = (
            self.finished + finished,
            self.reports + reports,
            self.counts + counts,
        )
        self.episodes, self.fresh = self.episodes + int(episodes), self.fresh + int(episodes)

    def row(self, temperature: float) -> dict[str, float]:
        """Means since the last row, and a new start."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self.finished / self.fresh if self.fresh else np.full(3, np.nan)
            learned = self.reports / self.counts
        row = dict(episodes=self.episodes, **dict(zip(EPISODE, means.tolist(), strict=True)))
        row |= dict(zip(self.names, learned.tolist(), strict=True)) | dict(temperature=temperature)
        del row["finite"]
        self.finished, self.fresh = np.zeros(3), 0
        self.reports, self.counts = np.zeros(len(self.names)), np.zeros(len(self.names))
        return row

    def capture(self) -> dict[str, np.ndarray]:
        return dict(
            running=self.running,
            finished=self.finished,
            reports=self.reports,
            counts=self.counts,
            episodes=np.array([self.episodes, self.fresh]),
        )

    def restore(self, data: Mapping[str, np.ndarray]) -> None:
        """What `capture` gave. Raises: `KeyError`, `ValueError`."""
        check_form(data, self.capture())
        self.running, self.finished = data["running"].copy(), data["finished"].copy()
        self.reports, self.counts = data["reports"].copy(), data["counts"].copy()
        self.episodes, self.fresh = (int(n) for n in data["episodes"])
