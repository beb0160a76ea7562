"""Minari datasets of numbered states and actions."""

import re
import warnings
from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    AmbiguousRewardError,
    DatasetError,
    EmptyRecordsError,
    GapError,
    MissingExtraError,
    MissingFileError,
)
from nearopt.mdp.model import MDP
from nearopt.records.trajectories import Trajectories
from nearopt.records.validity import check, find_branches, find_choices


def import_minari() -> Any:
    try:
        import minari
    except ImportError:
        raise MissingExtraError(
            "Minari datasets need minari, which is not installed", 'pip install "nearopt[minari]"'
        ) from None
    return minari


# ---------------------------------------------------------------- in
def read_minari(dataset: Any) -> Trajectories:
    """See `Trajectories.from_minari`."""
    minari = import_minari()
    if isinstance(dataset, str):
        dataset = load(minari, dataset)
    if not isinstance(dataset, minari.MinariDataset):
        raise DatasetError(
            f"the dataset is a {type(dataset).__name__}", "give a MinariDataset, or the id of a local one"
        )
    spaces = (dataset.observation_space, dataset.action_space)
    for kind, space in zip(("observations", "actions"), spaces, strict=True):
        if not hasattr(space, "n") or not hasattr(space, "start"):
            raise DatasetError(f"{dataset.id}: its {kind} are {space}", "give a dataset of Discrete spaces")
    episodes = list(dataset.iterate_episodes())
    if not episodes:
        raise EmptyRecordsError(f"{dataset.id} has no episodes", "give at least one")
    first_state, first_action = (int(space.start) for space in spaces)
    length = max(len(episode.actions) for episode in episodes)
    state = np.full((len(episodes), length + 1), -1, np.int64)
    action = np.full((len(episodes), length), -1, np.int64)
    for i, episode in enumerate(episodes):
        state[i, : len(episode.observations)] = np.asarray(episode.observations).reshape(-1) - first_state
        action[i, : len(episode.actions)] = np.asarray(episode.actions).reshape(-1) - first_action
    return Trajectories(state, action, episode=np.array([episode.id for episode in episodes]))


def load(minari: Any, dataset_id: str) -> Any:
    try:
        return minari.load_dataset(dataset_id)
    except FileNotFoundError:
        mend = f"see minari.list_local_datasets(), or fetch it with minari.download_dataset({dataset_id!r})"
        raise MissingFileError(f"there is no local Minari dataset {dataset_id!r}", mend) from None
    except ImportError as error:
        raise MissingExtraError(f"the dataset {dataset_id!r} needs more: {one_line(error)}", "install it") from None
    except (ValueError, OSError) as error:
        raise DatasetError(f"the dataset {dataset_id!r} cannot be read ({one_line(error)})", "check its id") from None


# ---------------------------------------------------------------- out
def write_minari(trajectories: Trajectories, mdp: MDP, dataset_id: str, metadata: dict[str, Any]) -> Any:
    """See `Trajectories.to_minari`."""
    minari = import_minari()
    from gymnasium.spaces import Discrete
    from minari.data_collector import EpisodeBuffer

    if not re.fullmatch(r".+-v[0-9]+", str(dataset_id)):
        raise DatasetError(f"the id {dataset_id!r} has no version", "end it in one, such as 'maze/mice-v0'")
    if not len(trajectories):
        raise EmptyRecordsError("there are no trajectories", "give at least one")
    if gap := trajectories.first_gap():
        raise GapError(f"{gap}, which a Minari dataset cannot hold", "write trajectories[trajectories.complete]")
    check(mdp, trajectories)
    length = trajectories.length
    last = trajectories.state[np.arange(len(length)), length]
    for fault, what in (
        (last == -1, "ends with an action: where it led was not recorded"),
        (length == 0, "has no decisions"),
    ):
        if fault.any():
            mend = "leave it out"
            raise GapError(f"trajectory {int(np.argmax(fault))} {what}, which a Minari dataset cannot hold", mend)
    reward, ends = rewards(mdp, trajectories), mdp.terminal[last]
    buffers = []
    for i, steps in enumerate(length.tolist()):
        end = np.arange(steps) == steps - 1
        buffers.append(
            EpisodeBuffer(
                id=i,
                observations=trajectories.state[i, : steps + 1].copy(),  # pyright: ignore[reportArgumentType]
                actions=trajectories.action[i, :steps].copy(),  # pyright: ignore[reportArgumentType]
                rewards=reward[i, :steps],  # pyright: ignore[reportArgumentType]
                terminations=end & ends[i],
                truncations=end & ~ends[i],
            )
        )
    spaces = dict(observation_space=Discrete(mdp.num_states), action_space=Discrete(mdp.num_actions))
    options = {**spaces, "data_format": "arrow", **metadata}  # what the extra installs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an author, an address and a code link that were not given
            return minari.create_dataset_from_buffers(dataset_id, buffers, **options)
    except ImportError as error:
        raise MissingExtraError(one_line(error), 'leave out data_format, which is "arrow" by default') from None
    except (ValueError, OSError, TypeError) as error:
        mend = "give a new id such as 'maze/mice-v0', and only keywords of minari.create_dataset_from_buffers"
        raise DatasetError(f"the dataset {dataset_id!r} cannot be written ({one_line(error)})", mend) from None


def rewards(mdp: MDP, trajectories: Trajectories) -> np.ndarray:
    """(n, L) reward of each recorded transition, NaN where there is none."""
    out = np.full(trajectories.shape, np.nan)
    i, t = np.nonzero(trajectories.action != -1)
    choice = find_choices(mdp, trajectories.state[i, t], trajectories.action[i, t])
    if mdp.choice_reward is not None:
        out[i, t] = mdp.choice_reward[choice]
        return out
    branch = find_branches(mdp, choice, trajectories.state[i, t + 1])
    two = np.zeros(mdp.num_branches, bool)  # the first of several branches that differ in their reward only
    two[mdp.branch_group] = np.diff(np.append(mdp.branch_group, mdp.num_branches)) > 1
    if two[branch].any():
        k = int(np.argmax(two[branch]))
        where = mdp.describe(int(mdp.choice_state[choice[k]]), int(mdp.choice_action[choice[k]]))
        problem = f"{where} reaches state {mdp.next_state[branch[k]]} with several rewards"
        raise AmbiguousRewardError(problem, "give the model one reward per transition")
    out[i, t] = mdp.branch_reward[branch]
    return out


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
