"""What a model cannot have produced: against the obvious loop, in words, and left out."""

import numpy as np
import pytest

import nearopt as no
from nearopt.mdp import errors
from tests.oracles import random_world, to_arrays

MAZE = no.MDP.from_grid("S.G").replace(state_names=("start", "hall", "goal"))
TABLE = """who,episode,t,state,action
B3,4,0,start,right
B3,4,1,goal,right
B3,4,2,goal,
B3,5,0,hall,up
B3,5,1,7,9
B3,5,2,1,9
B3,5,3,1,0
B3,5,4,0,0
"""


@pytest.fixture
def recorded(tmp_path):
    (tmp_path / "trials.csv").write_text(TABLE)
    return no.Trajectories.from_csv(tmp_path / "trials.csv", subject="who", mdp=MAZE)


def slow(mdp, trajectories):
    """One row at a time, with dense tables."""
    S, A = mdp.num_states, mdp.num_actions
    dense = mdp.transition.toarray().reshape(S, A, S)
    for i, t in np.ndindex(trajectories.state.shape):
        s, last = trajectories.state[i, t], t == trajectories.shape[1]
        a = -1 if last else trajectories.action[i, t]
        after = -1 if last else trajectories.state[i, t + 1]
        if s != -1 and not 0 <= s < S:
            yield i, t, "state"
        elif a != -1 and not 0 <= a < A:
            yield i, t, "action"
        elif s == -1 or a == -1:
            continue
        elif mdp.terminal[s]:
            yield i, t, "terminal"
        elif not mdp.available[s, a]:
            yield i, t, "unavailable"
        elif 0 <= after < S and dense[s, a, after] == 0:
            yield i, t, "transition"


@pytest.mark.parametrize("seed", range(5))
def test_misfits_are_those_of_the_loop(seed):
    rng = np.random.default_rng(seed)
    mdp = no.MDP.from_arrays(**to_arrays(random_world(rng, 6, 4, 2, 1, forbid=False, branch_rewards=True), 6, 4))
    recorded = no.Trajectories(rng.integers(-2, 7, (60, 9)), rng.integers(-2, 5, (60, 8)))
    found = recorded.misfits(mdp)
    entries = list(zip(found.trajectory.tolist(), found.time.tolist(), found.kind.tolist(), strict=True))
    assert entries == list(slow(mdp, recorded)) and len(found) == len(entries)
    assert set(found.kind) == {"state", "action", "terminal", "unavailable", "transition"}
    clean = recorded.without(found)
    assert not len(clean.misfits(mdp)) and clean.check(mdp) is None
    changed = (clean.state != recorded.state) | np.pad(clean.action != recorded.action, ((0, 0), (0, 1)))
    assert set(map(tuple, np.argwhere(changed).tolist())) <= {entry[:2] for entry in entries}
    assert clean.without(clean.misfits(mdp)) == clean


def test_sampled_trajectories_fit():
    mdp = no.MDP.from_grid("S.#\n..G", slip=0.2)
    sampled = no.infer(mdp, 12, temperature=2.0).sample(200, seed=0)
    assert not len(sampled.misfits(mdp)) and sampled.misfits(mdp).describe() == ""
    sampled.check(mdp)


def test_they_are_told_by_line(recorded):
    assert recorded.misfits(MAZE).describe().splitlines() == [
        "line 2 (subject B3, episode 4, t=0): state 0 ('start'), action 1 ('right') cannot lead to state 2 ('goal')",
        "line 3 (subject B3, episode 4, t=1): action 1 ('right') in state 2 ('goal'), which is terminal",
        "line 6 (subject B3, episode 5, t=1): state 7 is not among 0 .. 2",
        "line 7 (subject B3, episode 5, t=2): action 9 is not among 0 .. 3",
        "line 8 (subject B3, episode 5, t=3): state 1 ('hall'), action 0 ('up') cannot lead to state 0 ('start')",
    ]
    assert recorded.misfits(MAZE).describe(1).splitlines()[1:] == ["and 4 more"]
    with pytest.raises(errors.MisfitError, match="^line 2 .*, and 4 more steps do not fit; .*without"):
        recorded.check(MAZE)
    clean = recorded.without(recorded.misfits(MAZE))
    np.testing.assert_array_equal(clean.line, recorded.line)
    assert clean.subject.tolist() == ["B3", "B3"] and clean.num_decisions == 2


def test_without_lines_they_are_told_by_label_or_number():
    half = no.MDP.from_arrays(np.array([[[1.0], [0.0]]]), np.zeros(1))
    bare = no.Trajectories([[0, 0]], [[1]])
    assert bare.misfits(half).describe() == "trajectory 0, t=0: action 1 is not available in state 0"
    named = no.Trajectories([[0, 0]], [[1]], episode=["x"])
    assert named.misfits(half).describe() == "episode x, t=0: action 1 is not available in state 0"


def test_mistakes(recorded):
    for call in (recorded.check, recorded.misfits):
        with pytest.raises(errors.NotAModelError, match="ndarray"):
            call(np.eye(2))
    with pytest.raises(errors.TrajectoryShapeError, match="misfits"):
        recorded[:1].without(recorded.misfits(MAZE))
    with pytest.raises(ValueError, match="read-only"):
        recorded.misfits(MAZE).time[0] = 3
