"""What `.drn` and `.umb` have in common: model checkers know no terminal states, names, discount or first-state odds.

- A terminal state is written as a self-loop without reward under the label `terminal`; on reading, a state labelled
  `terminal` or `deadlock` that does nothing but loop without reward is terminal.
- The first state is uniform over the states marked initial.
- Names, positions and the exact action numbers go into a note, a JSON text that other tools skip.
- What neither the format nor the note can hold is refused.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    AmbiguousRewardError,
    ArgumentError,
    CorruptFileError,
    LossySaveError,
    NoInitialStateError,
    UnsaveableNameError,
)
from nearopt.mdp.files.names import (
    MAX_ACTIONS,
    check_action_count,
    check_version,
    decode_names,
    dump_json,
    encode_names,
    parse_json,
    safe_repr,
    shorten,
)
from nearopt.mdp.model import MDP
from nearopt.mdp.validate import SUM_TOLERANCE

NOTE_VERSION = 1
TERMINAL = ("terminal", "deadlock")
NO_LABEL = "__NOLABEL__"  # Storm's own word for a choice without a label


@dataclass
class Explicit:
    """A model as a model checker sees it: every state has a choice, every choice at most one label."""

    choice_offset: np.ndarray  # (S+1,)
    branch_offset: np.ndarray  # (C+1,)
    probability: np.ndarray  # (B,)
    next_state: np.ndarray  # (B,)
    branch_reward: np.ndarray  # (B,)
    label: np.ndarray  # (C,) number of the action label
    label_names: list[str] | None  # the labels; None: labels are mere numbers
    num_labels: int
    declared: bool  # the file itself numbers its actions, used or not
    ends: np.ndarray  # (S,) bool, labelled terminal or deadlock
    first: np.ndarray  # (S,) bool, initial
    note: str | None = None  # JSON


# ------------------------------------------------------------ writing
def to_explicit(mdp: MDP, suffix: str, *, branch_rewards: bool, one_word: bool) -> Explicit:
    """The model with its terminal states as loops.

    Raises `LossySaveError` naming everything that would be lost, and `UnsaveableNameError`.
    """
    refuse_loss(mdp, suffix, branch_rewards)
    terminal = np.flatnonzero(mdp.terminal)
    at_choice = mdp.choice_offset[terminal]
    at_branch = mdp.branch_offset[at_choice]
    return Explicit(
        choice_offset=offsets(np.where(mdp.terminal, 1, np.diff(mdp.choice_offset))),
        branch_offset=offsets(np.insert(np.diff(mdp.branch_offset), at_choice, 1)),
        probability=np.insert(mdp.probability, at_branch, 1.0),
        next_state=np.insert(mdp.next_state, at_branch, terminal),
        branch_reward=np.insert(mdp.branch_reward, at_branch, 0.0),
        label=np.insert(mdp.choice_action, at_choice, 0),
        label_names=action_labels(mdp, one_word),
        num_labels=mdp.num_actions,
        declared=True,
        ends=mdp.terminal,
        first=mdp.initial > 0,
        note=make_note(mdp),
    )


def refuse_loss(mdp: MDP, suffix: str, branch_rewards: bool) -> None:
    losses = []
    if mdp.discount != 1.0:
        losses.append(f"the discount {mdp.discount!r}")
    forbidden = mdp.branch_reward == -np.inf
    if forbidden.any():
        losses.append(f"the reward of -inf of {where(mdp, int(mdp.branch_choice[np.argmax(forbidden)]))}")
    if not branch_rewards and mdp.choice_reward is None:
        first = mdp.branch_reward[mdp.branch_offset[:-1]]
        b = int(np.argmax(mdp.branch_reward != first[mdp.branch_choice]))
        losses.append(f"the rewards of {where(mdp, int(mdp.branch_choice[b]))}, which depend on the next state")
    support = mdp.initial[mdp.initial > 0]
    if not np.allclose(support, 1 / len(support), rtol=1e-9, atol=0.0):
        losses.append("an initial distribution that is not uniform over its states")
    if mdp.num_actions > MAX_ACTIONS:
        losses.append(f"{mdp.num_actions} actions")
    if losses:
        raise LossySaveError(f"a {suffix} file cannot hold {', nor '.join(losses)}", "save as .mdp, which holds all")


def where(mdp: MDP, choice: int) -> str:
    return mdp.describe(mdp.choice_state[choice], mdp.choice_action[choice])


def action_labels(mdp: MDP, one_word: bool) -> list[str] | None:
    """One label per action name, all different; a plain text without spaces and brackets where `one_word`."""
    if mdp.action_names is None:
        return None
    encode_names(mdp.action_names, "action")  # refuses the types that cannot be saved
    labels: dict[str, int] = {}
    for number, name in enumerate(mdp.action_names):
        label = str(name)
        bad = not label.isprintable() or label == NO_LABEL
        if one_word:
            bad |= not label or any(c.isspace() or c in "[]" for c in label)
        if bad:
            kind = "one printable word without brackets" if one_word else "printable text"
            raise UnsaveableNameError(f"action {number} is named {shorten(safe_repr(name))}", f"use {kind}")
        if label in labels:
            problem = f"actions {labels[label]} and {number} would both be labelled {shorten(safe_repr(label))}"
            raise UnsaveableNameError(problem, "give names that differ as text")
        labels[label] = number
    return list(labels)


def make_note(mdp: MDP) -> str:
    """What model checkers have no place for, as JSON."""
    support = mdp.initial[mdp.initial > 0]
    exact = bool((support == 1 / len(support)).all())
    return dump_json(
        {
            "format": NOTE_VERSION,
            "num_actions": mdp.num_actions,
            "action_names": encode_names(mdp.action_names, "action"),
            "state_names": encode_names(mdp.state_names, "state"),
            "positions": None if mdp.positions is None else mdp.positions.tolist(),
            "initial": None if exact else support.tolist(),  # uniform but for rounding
        }
    )


# ------------------------------------------------------------ reading
def from_explicit(model: Explicit) -> MDP:
    """The model behind its explicit form.

    Raises: `NoInitialStateError`; `CorruptFileError` where the note does not fit the model; the errors of the `MDP`
    constructor.
    """
    num_states = len(model.ends)
    check_action_count(model.num_labels, num_states)
    if (empty := np.diff(model.branch_offset) == 0).any():
        raise CorruptFileError(f"choice {int(np.argmax(empty))} leads nowhere", "give it a transition, or remove it")
    choice_state = np.repeat(np.arange(num_states), np.diff(model.choice_offset))
    branch_choice = np.repeat(np.arange(len(choice_state)), np.diff(model.branch_offset))
    loops = (model.next_state == choice_state[branch_choice]) & (model.branch_reward == 0) | (model.probability == 0)
    busy = np.zeros(num_states, bool)
    busy[choice_state[branch_choice[~loops]]] = True
    keep = ~(model.ends & ~busy)[choice_state]
    keep_branch = keep[branch_choice]
    state = choice_state[keep]
    note = read_note(model.note, num_states)
    action, count, names = number_actions(model, state, model.label[keep], note)
    branch_offset = offsets(np.diff(model.branch_offset)[keep])
    return MDP(
        choice_offset=offsets(np.bincount(state, minlength=num_states)),
        choice_action=action,
        branch_offset=branch_offset,
        probability=normalised(model.probability[keep_branch], branch_offset),
        next_state=model.next_state[keep_branch],
        branch_reward=model.branch_reward[keep_branch],
        initial=initial_of(model.first, note.get("initial")),
        num_actions=count,
        state_names=decode_names(note.get("state_names"), "state"),
        action_names=names,
        positions=note.get("positions"),
    )


def read_note(text: str | None, num_states: int) -> dict[str, Any]:
    """The note, empty where there is none; its names and positions are checked where they are used."""
    if text is None:
        return {}
    note = parse_json(text, "the nearopt note")
    check_version(note, NOTE_VERSION, "the nearopt note")
    check_action_count(note.get("num_actions"), num_states)
    return note


Numbering = tuple[np.ndarray, int, tuple[Any, ...] | None]


def number_actions(model: Explicit, state: np.ndarray, label: np.ndarray, note: dict[str, Any]) -> Numbering:
    """The action number of each choice that is left, the number of actions, and their names."""
    if note:
        return number_by_note(model, label, note)
    words = model.label_names
    if words is None:
        return separate(state, label, model.num_labels, None)
    used = np.arange(len(words)) if model.declared else np.array(list(dict.fromkeys(label.tolist())), np.int64)
    words = [words[i] for i in used]
    names: list[str] | None = None
    numbers = np.arange(len(words))
    if set(words) == {str(i) for i in range(len(words))}:
        numbers = np.array([int(word) for word in words], np.int64)
    elif set(words) - {NO_LABEL, ""}:
        names = ["unlabelled" if word in (NO_LABEL, "") else word for word in words]
    table = np.zeros(model.num_labels, np.int64)
    table[used] = numbers
    return separate(state, table[label], max(1, len(words)), names)


def number_by_note(model: Explicit, label: np.ndarray, note: dict[str, Any]) -> Numbering:
    count, names = note["num_actions"], decode_names(note.get("action_names"), "action")
    if model.label_names is None:
        return label, count, names
    known = None if names is None else {str(name): number for number, name in enumerate(names)}
    table = np.zeros(model.num_labels, np.int64)
    for old in np.unique(label).tolist():
        word = model.label_names[old]
        if known is not None:
            number = known.get(word, -1)
        else:
            number = int(word) if word.isascii() and word.isdecimal() and len(word) < 11 else -1
        if not 0 <= number < count:
            mend = "remove the note, which no longer fits the model"
            raise CorruptFileError(f"the nearopt note knows no action {shorten(word)!r}", mend)
        table[old] = number
    return table[label], count, names


def separate(state: np.ndarray, action: np.ndarray, count: int, names: list[str] | None) -> Numbering:
    """Choices of one state under one label are different actions here: the second becomes `label#2`, and so on."""
    key = state * count + action
    order = np.argsort(key, kind="stable")
    same = np.concatenate([[False], np.diff(key[order]) == 0])[: len(order)]
    if same.any():
        index = np.arange(len(order))
        turn = np.empty(len(order), np.int64)
        turn[order] = index - np.maximum.accumulate(np.where(same, 0, index))
        again = turn > 0
        pairs, which = np.unique(np.stack([action[again], turn[again]], 1), axis=0, return_inverse=True)
        action = action.astype(np.int64)
        action[again] = count + which.reshape(-1)
        count += len(pairs)
        if names is not None:
            names = names + [f"{names[a]}#{k + 1}" for a, k in pairs.tolist()]
    if names is not None and len(set(names)) < len(names):
        taken: set[str] = set()
        for i in range(len(names)):
            while names[i] in taken:
                names[i] += "#"
            taken.add(names[i])
    return action, count, None if names is None else tuple(names)


def choose_reward(names: list[str], wanted: str | None) -> int | None:
    """The place of the reward model to read, None where there is none."""
    if wanted is not None and wanted not in names:
        mend = f"choose among {', '.join(map(repr, names))}" if names else "leave reward_model out"
        raise ArgumentError(f"there is no reward model {wanted!r}", mend)
    if wanted is None and len(names) > 1:
        problem = f"there are {len(names)} reward models, {shorten(', '.join(names))}"
        raise AmbiguousRewardError(problem, f"choose one, load(path, reward_model={names[0]!r})")
    return None if not names else names.index(names[0] if wanted is None else wanted)


def normalised(probability: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Model checkers print six digits by default, so a row of n branches may be off by n rounding errors."""
    if len(probability) == 0:
        return probability
    sums = np.add.reduceat(probability, offset[:-1])
    gap = np.abs(sums - 1)
    rough = (gap > SUM_TOLERANCE) & (gap <= SUM_TOLERANCE * np.diff(offset))
    return probability / np.repeat(np.where(rough, sums, 1.0), np.diff(offset))


def initial_of(first: np.ndarray, exact: Any) -> np.ndarray:
    count = int(first.sum())
    if count == 0:
        raise NoInitialStateError("no state is initial", "mark at least one state as initial")
    initial = np.zeros(len(first))
    if exact is not None:
        if not isinstance(exact, list) or len(exact) != count or any(type(p) is not float for p in exact):
            mend = "remove the note, which no longer fits the model"
            raise CorruptFileError("the nearopt note does not fit the initial states", mend)
        initial[first] = exact
    else:
        initial[first] = 1 / count
    return initial


def offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
