"""Small models, and the shared enemies of every file format."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from nearopt.mdp.model import MDP

WORDS = st.sampled_from(["left", "right", "go", "été", "a-b", "0", "7", "__x", "//", '"', "state"])
ATOMS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5)
NAMES = st.recursive(ATOMS, lambda part: st.lists(part, max_size=3).map(tuple), max_leaves=5)
REWARDS = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, 1 / 3, 5e-324, -1.0])


@st.composite
def models(draw, suffix=".mdp"):
    """A small model, with whatever the format can hold."""
    num_states, num_actions = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    full = suffix == ".mdp"
    choice_offset, action, branch_offset, probability, target, reward = [0], [], [0], [], [], []
    for _ in range(num_states):
        available = draw(st.sets(st.integers(0, num_actions - 1)))  # empty: a terminal state
        for a in sorted(available):
            branches = sorted(
                draw(st.dictionaries(st.integers(0, num_states - 1), st.integers(1, 9), min_size=1)).items()
            )
            common = draw(REWARDS)
            action.append(a)
            probability += [weight / sum(w for _, w in branches) for _, weight in branches]
            target += [s for s, _ in branches]
            forbid = st.just(-np.inf) if full else st.nothing()
            own = full or suffix == ".umb"
            reward += [draw(REWARDS | forbid) if own and draw(st.booleans()) else common for _ in branches]
            branch_offset.append(len(target))
        choice_offset.append(len(action))
    first = draw(st.sets(st.integers(0, num_states - 1), min_size=1))
    weight = np.array([s in first for s in range(num_states)], float)
    if full:
        weight *= [draw(st.integers(1, 9)) for _ in range(num_states)]
    labels = {".mdp": NAMES, ".drn": WORDS, ".umb": WORDS | st.sampled_from(["two words", "[x]", ""])}[suffix]
    names = st.lists(NAMES, min_size=num_states, max_size=num_states, unique=True)
    actions = st.lists(labels, min_size=num_actions, max_size=num_actions, unique=True)
    places = st.lists(st.floats(-9, 9), min_size=2 * num_states, max_size=2 * num_states)
    place = draw(st.none() | places)
    return MDP(
        choice_offset=np.array(choice_offset, np.int64),
        choice_action=np.array(action, np.int64),
        branch_offset=np.array(branch_offset, np.int64),
        probability=np.array(probability, float),
        next_state=np.array(target, np.int64),
        branch_reward=np.array(reward, float),
        initial=weight / weight.sum(),
        num_actions=num_actions,
        discount=draw(st.floats(0, 1)) if full else 1.0,
        state_names=draw(st.none() | names),
        action_names=draw(st.none() | actions),
        positions=None if place is None else np.reshape(place, (num_states, 2)),
    )


def small(**changes):
    transition = np.zeros((3, 2, 3))
    transition[0, 0] = [0.25, 0.75, 0.0]
    transition[0, 1, 2] = transition[1, 1, 2] = 1.0
    reward = np.array([[-1.5, 1e-5], [0.0, 0.1], [0.0, 0.0]])
    extras: dict[str, Any] = dict(
        state_names=("a", (1, "b"), None), action_names=("go", "stay"), positions=np.arange(6.0).reshape(3, 2)
    )
    mdp = MDP.from_arrays(transition, reward, terminal=np.array([False, False, True]), **extras)
    return mdp.replace(**changes) if changes else mdp


def same_names(a, b):
    """Equality that tells True from 1 and 1 from 1.0."""
    return repr(a.state_names) == repr(b.state_names) and repr(a.action_names) == repr(b.action_names)
