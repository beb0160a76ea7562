"""Whether a model can have produced what was recorded."""

from dataclasses import dataclass, field, replace

import numpy as np

from nearopt.mdp.errors import MisfitError, NotAModelError, TrajectoryShapeError
from nearopt.mdp.model import MDP
from nearopt.records.trajectories import Trajectories

KINDS = ("state", "action", "terminal", "unavailable", "transition")


@dataclass(frozen=True, eq=False)
class Misfits:
    """The recorded steps that a model cannot have produced, in order of trajectory and time; one entry per step.

    trajectory, time, kind (M,): where, and the first of these that holds: "state", "action": a number that the model
    does not have; "terminal": an action in a terminal state; "unavailable": an action that is not available in its
    state; "transition": a next state that has probability 0. `describe` puts them in words.

    >>> import nearopt as no
    >>> mdp = no.MDP.from_grid("S.G")
    >>> recorded = no.Trajectories.from_arrays([[0, 2, 2], [0, 1, 2]], [[1, 0], [1, 1]])
    >>> print(recorded.misfits(mdp).describe())
    trajectory 0, t=0: state 0, action 1 ('right') cannot lead to state 2
    trajectory 0, t=1: action 0 ('up') in state 2, which is terminal
    """

    trajectory: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    mdp: MDP = field(repr=False)
    trajectories: Trajectories = field(repr=False)

    def __post_init__(self) -> None:
        for array in (self.trajectory, self.time, self.kind):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.kind)

    def describe(self, limit: int = 10) -> str:
        """At most `limit` of them, one per line, and how many there are beside."""
        lines = [self.line(k) for k in range(min(limit, len(self)))]
        return "\n".join(lines + [f"and {len(self) - limit:,} more"] * (len(self) > limit))

    def line(self, k: int) -> str:
        """The entry in words: 'line 17 (subject B3, episode 4, t=12): ...'."""
        i, t, kind = int(self.trajectory[k]), int(self.time[k]), str(self.kind[k])
        found = self.trajectories
        labels = [f"{n} {x[i]}" for n in ("subject", "episode") if (x := getattr(found, n)) is not None]
        line = -1 if found.line is None else found.line[i, t]
        place = ", ".join([*labels, f"t={t}"])
        if line >= 0:
            place = f"line {line} ({place})"
        elif not labels:
            place = f"trajectory {i}, t={t}"
        return f"{place}: {self.fault(i, t, kind)}"

    def fault(self, i: int, t: int, kind: str) -> str:
        mdp, found = self.mdp, self.trajectories
        state = int(found.state[i, t])
        if kind == "state":
            return f"state {state} is not among 0 .. {mdp.num_states - 1}"
        action = int(found.action[i, t])
        if kind == "action":
            return f"action {action} is not among 0 .. {mdp.num_actions - 1}"
        where = mdp.describe(state)
        what = mdp.describe(state, action).removeprefix(f"{where}, ")
        if kind == "terminal":
            return f"{what} in {where}, which is terminal"
        if kind == "unavailable":
            return f"{what} is not available in {where}"
        return f"{where}, {what} cannot lead to {mdp.describe(int(found.state[i, t + 1]))}"


def find_misfits(mdp: MDP, trajectories: Trajectories) -> Misfits:
    """See `Trajectories.misfits`."""
    if not isinstance(mdp, MDP):
        raise NotAModelError(f"the model is a {type(mdp).__name__}", "build an MDP, for instance with MDP.from_arrays")
    state = trajectories.state
    action = np.pad(trajectories.action, ((0, 0), (0, 1)), constant_values=-1)
    after = np.pad(state[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    kind = np.zeros(state.shape, np.int8)  # 1 + its place in KINDS
    known_state = (state >= 0) & (state < mdp.num_states)
    known_action = (action >= 0) & (action < mdp.num_actions)
    kind[(action != -1) & ~known_action] = 2
    kind[(state != -1) & ~known_state] = 1
    i, t = np.nonzero(known_state & known_action)
    choice = find_choices(mdp, state[i, t], action[i, t])
    kind[i, t] = np.select([choice >= 0, mdp.terminal[state[i, t]]], [0, 3], 4)
    led = (choice >= 0) & (after[i, t] >= 0) & (after[i, t] < mdp.num_states)
    i, t, choice = i[led], t[led], choice[led]
    kind[i, t] = np.where(find_branches(mdp, choice, after[i, t]) < 0, 5, 0)
    i, t = np.nonzero(kind)
    return Misfits(i, t, np.array(KINDS)[kind[i, t] - 1], mdp, trajectories)


def find_choices(mdp: MDP, state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The choice of each state and action, −1 where it is not available."""
    return locate(
        mdp.choice_state.astype(np.int64) * mdp.num_actions + mdp.choice_action, state * mdp.num_actions + action
    )


def find_branches(mdp: MDP, choice: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The first branch of each choice to the state after it, −1 where that has probability 0."""
    return locate(mdp.branch_choice.astype(np.int64) * mdp.num_states + mdp.next_state, choice * mdp.num_states + after)


def locate(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The first place of each wanted key among sorted keys, −1 where there is none."""
    place = np.searchsorted(keys, wanted)
    inside = place < len(keys)
    inside[inside] = keys[place[inside]] == wanted[inside]
    return np.where(inside, place, -1)


def check(mdp: MDP, trajectories: Trajectories) -> None:
    """See `Trajectories.check`."""
    if not len(misfits := find_misfits(mdp, trajectories)):
        return
    others = f", and {len(misfits) - 1:,} more steps do not fit" if len(misfits) > 1 else ""
    mend = "correct the table or the model, or drop them: trajectories.without(trajectories.misfits(mdp))"
    raise MisfitError(misfits.line(0) + others, mend)


def without(trajectories: Trajectories, misfits: Misfits) -> Trajectories:
    """See `Trajectories.without`."""
    if (theirs := misfits.trajectories.shape) != trajectories.shape:
        problem = f"the misfits are those of trajectories of shape {theirs}, these have {trajectories.shape}"
        raise TrajectoryShapeError(problem, "ask these for theirs: trajectories.misfits(mdp)")
    state, action = trajectories.state.copy(), trajectories.action.copy()
    strange = misfits.kind == "state"
    state[misfits.trajectory[strange], misfits.time[strange]] = -1
    deciding = misfits.time < trajectories.shape[1]
    action[misfits.trajectory[deciding], misfits.time[deciding]] = -1
    return replace(trajectories, state=state, action=action)
