"""`.drn`, read as Storm reads it; nonsense is named with its line."""

import tracemalloc

import numpy as np
import pytest

from nearopt.mdp import errors as e
from nearopt.mdp.files import drn, load
from tests.mdp.file_models import small

DRN = """\
// a comment
@type: MDP
@value_type: double
@parameters

@placeholders
$0 : 1/4
$1 : 0.75
@reward_models
coins
@nr_states
4
@nr_choices
5
@model
state 0 [0.5] init "two words"
//[x=1]
\taction left [1]
\t\t1 : 1/3
\t\t2 : 2/3
\taction right [-1e-1]
\t\t3 : $0
\t\t0 : $1
state 1
\taction right
\t\t2 : 0.333333
\t\t1 : 0.333333
\t\t0 : 0.333333
state 2 [0] deadlock
\taction left [0]
\t\t2 : 1
state 3 [0] terminal
\taction left [7]
\t\t3 : 1
"""


def test_drn_is_read_as_storm_reads_it():
    mdp = drn.decode(DRN.encode())
    assert mdp.action_names == ("left", "right") and mdp.terminal.tolist() == [False, False, True, False]
    assert mdp.reward.tolist() == [[1.5, 0.4], [0.0, 0.0], [0.0, 0.0], [7.0, 0.0]]  # state 3 earns: no terminal state
    expected = np.zeros((4, 2, 4))
    expected[0, 0, 1:3] = 1 / 3, 2 / 3
    expected[0, 1, [3, 0]] = 0.25, 0.75
    expected[1, 1, :3] = 1 / 3  # printed with six digits
    expected[3, 0, 3] = 1
    assert np.allclose(mdp.transition.toarray().reshape(4, 2, 4), expected, rtol=0, atol=1e-15)
    assert mdp.initial.tolist() == [1, 0, 0, 0] and mdp.discount == 1
    assert drn.decode(DRN.replace("\n", "\r\n").encode()) == mdp


def test_drn_chooses_among_rewards():
    two = DRN.replace("coins", "coins steps").replace("[1]", "[1, 5]").encode()
    with pytest.raises(e.AmbiguousRewardError, match="reward_model='coins'"):
        drn.decode(two)
    assert drn.decode(two, "coins") == drn.decode(DRN.encode())
    assert drn.decode(two, "steps").reward[0].tolist() == [5.0, 0.0]
    with pytest.raises(e.ArgumentError, match="'gold'"):
        drn.decode(two, "gold")


def test_drn_numbers_actions():
    def read(*labels):
        lines = [f"action {label}\n0 : 1" for label in labels]
        head = f"@type: MDP\n@nr_states\n2\n@model\nstate 0 init\n{lines[0]}\n{lines[1]}\nstate 1\n{lines[2]}"
        mdp = drn.decode(head.encode())
        return mdp.choice_action.tolist(), mdp.action_names, mdp.num_actions

    assert read("0", "1", "0") == ([0, 1, 0], None, 2)
    assert read("1", "0", "1") == ([0, 1, 1], None, 2)
    assert read("b", "a", "b") == ([0, 1, 0], ("b", "a"), 2)
    assert read("0", "2", "2") == ([0, 1, 1], ("0", "2"), 2)
    assert read("a", "a", "a") == ([0, 1, 0], ("a", "a#2"), 2)
    assert read("__NOLABEL__", "__NOLABEL__", "__NOLABEL__") == ([0, 1, 0], None, 2)
    assert read("a", "__NOLABEL__", "unlabelled") == ([0, 1, 2], ("a", "unlabelled", "unlabelled#"), 3)


def test_drn_without_our_note_keeps_the_model():
    text = drn.encode(small()).decode()
    assert text.splitlines()[1].startswith("// nearopt {")
    plain = drn.decode("".join(line for line in text.splitlines(True) if "nearopt {" not in line).encode())
    assert plain == small(state_names=None, positions=None)


def test_a_markov_chain_has_one_action():
    chain = "@type: DTMC\n@nr_states\n2\n@model\nstate 0 init\n1 : 0.5\n0 : 1/2\nstate 1 deadlock\naction x\n1 : 1\n"
    mdp = drn.decode(chain.encode())
    assert (mdp.num_actions, mdp.action_names, mdp.terminal.tolist()) == (1, None, [False, True])
    with pytest.raises(e.ParseError, match="line 11.*second action"):
        drn.decode((chain + "action y\n1 : 1").encode())


@pytest.mark.parametrize(
    "old, new, kind, message",
    [
        ("@type: MDP", "@type: CTMC", e.UnsupportedModelError, "line 2, '@type: CTMC'"),
        ("type: double", "type: double-interval", e.UnsupportedModelError, "line 3.*interval"),
        ("@parameters\n", "@parameters\np q", e.UnsupportedModelError, "line 5.*p q"),
        ("@parameters", "@nonsense", e.ParseError, "line 4, '@nonsense'"),
        ("@type: MDP", "@type: MDP\n@type: MDP", e.ParseError, "line 3.*twice"),
        ("@type: MDP", "", e.ParseError, "no @type"),
        ("@nr_states\n4", "@nr_states\nfour", e.ParseError, "line 12, 'four'"),
        ("@nr_states\n4", f"@nr_states\n{10**15}", e.TruncatedFileError, str(10**15)),
        ("@nr_states\n4", "@nr_states\n" + "9" * 5000, e.ParseError, "line 12"),
        ("@nr_states\n4", "@nr_states\n3", e.ParseError, "line 22.*'3 : .0'.*no state 3"),
        ("@nr_choices\n5", "@nr_choices\n6", e.CorruptFileError, "announces 6 choices, the file has 5"),
        ("@model", "", e.ParseError, "line 16.*'state 0"),
        ("state 1", "state 5", e.ParseError, "line 24, 'state 5'"),
        ("1 : 1/3", "1 ; 1/3", e.ParseError, "line 19, '1 ; 1/3'"),
        ("1 : 1/3", "-1 : 1/3", e.ParseError, "'-1' is no next state"),
        ("1 : 1/3", "1 : 1/0", e.ParseError, "'1/0' is no number"),
        ("1 : 1/3", "1 : 1_0", e.ParseError, "'1_0' is no number"),
        ("1 : 1/3", "1 : nan", e.ParseError, "'nan' is no number"),
        ("1 : 1/3", "1 : $7", e.ParseError, "no number"),
        ("1 : 1/3", "1 : [0.1, 0.5]", e.UnsupportedModelError, "line 19.*interval"),
        ("1 : 1/3", "1 : 1/2", e.RowSumError, "state 0, action 0"),
        ("1 : 1/3", "1 : -1/3", e.NegativeProbabilityError, "state 0, action 0"),
        ("left [1]", "left [1", e.ParseError, "line 18.*close"),
        ("left [1]", "left [1,2]", e.ParseError, "2 rewards"),
        ("left [1]", "left [1] more", e.ParseError, "'more' follows"),
        ("left [1]", "left [inf]", e.InfiniteRewardError, "inf"),
        ("\t\t2 : 1\n", "", e.ParseError, "line 31.*leads nowhere"),
        ("state 1\n\taction right\n", "state 1 [3]\nstate 2\n", e.UnsupportedModelError, "line 25.*no action"),
        (" init", "", e.NoInitialStateError, "initial"),
        ("// a comment", '// nearopt {"format":9}', e.VersionError, "version 9"),
        ("// a comment", "// nearopt {", e.CorruptFileError, "note"),
        ("// a comment", '// nearopt {"format":1,"num_actions":2}', e.CorruptFileError, "no action 'left'"),
        ("// a comment", f'// nearopt {{"format":1,"num_actions":{2**60}}}', e.CorruptFileError, str(2**60)),
        ("state 3", "\udcff", e.ParseError, "line 32 is not UTF-8"),
    ],
)
def test_nonsense_in_drn_is_named_with_its_line(tmp_path, old, new, kind, message):
    path = tmp_path / "bad.drn"
    assert DRN.count(old) >= 1
    path.write_bytes(DRN.replace(old, new, 1).encode(errors="surrogateescape"))
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=message) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and str(caught.value).endswith(".")


def test_drn_refuses_rewards_of_branches():
    with pytest.raises(e.LossySaveError, match="next state"):
        drn.encode(small(branch_reward=np.array([1.0, 2.0, 0.0, 0.0])))


@pytest.mark.parametrize("name", ["two words", "a[1]", "", "x\n", "\x00", "__NOLABEL__", (1, 2), "\ud800"])
def test_action_names_that_are_no_word_of_drn(name):
    with pytest.raises(e.UnsaveableNameError, match="action 1"):
        drn.encode(small(action_names=("go", name)))
    with pytest.raises(e.UnsaveableNameError, match="both"):
        drn.encode(small(action_names=("1", 1)))
