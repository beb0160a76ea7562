"""Problems without a finite value are refused within a second, with the states at fault; their neighbours are not."""

import time

import numpy as np
import pytest

import nearopt as no
from nearopt.mdp.errors import DivergentError, ForbiddenStateError, ImproperError, UndecidedError
from nearopt.planning.checker import check

INF = np.inf


def world(branches: dict, discount: float = 1.0, terminal: tuple = ("end",)) -> no.MDP:
    """{state: {action: [(probability, next state, reward), ...]}} as a model; every state is a first state."""
    states = [*branches, *terminal]
    return no.MDP.from_function(
        lambda s, a: branches[s][a],
        {s: 1 / len(states) for s in states},
        lambda s: list(branches.get(s, {})),
        discount=discount,
    )


GO = [(1.0, "end", -1.0)]
REFUSED = [  # what is wrong, the model, dials, error, what the message says
    ("no way out", world({"a": {0: GO}, "trap": {0: [(1.0, "trap", -1.0)]}}), {}, ImproperError, "trap"),
    ("no sure way out", world({"a": {0: [(0.5, "end", -1.0), (0.5, "trap", -1.0)]}, "trap": {0: [(1.0, "trap", -1.0)]}}),
     {}, ImproperError, "2 states"),
    ("no sure way out, hard", world({"a": {0: [(0.5, "end", -1.0), (0.5, "trap", -1.0)]},
                                     "trap": {0: [(1.0, "trap", -1.0)]}}), {"temperature": 0}, ImproperError, "2 states"),
    ("not even luck", world({"a": {0: GO}, "trap": {0: [(1.0, "trap", -1.0)]}}), {"optimism": 1}, ImproperError, "trap"),
    ("a paid loop", world({"a": {0: GO, 1: [(1.0, "a", 0.5)]}}), {}, DivergentError, "at least"),
    ("a paid loop, hard", world({"a": {0: GO, 1: [(1.0, "a", 0.5)]}, "b": {0: [(1.0, "a", 0.0)]}}), {"temperature": 0},
     DivergentError, "at every step"),
    ("a paid loop among costs, hard", world({"a": {0: GO, 1: [(1.0, "b", 2.0)]}, "b": {0: [(1.0, "a", -1.0)]}}),
     {"temperature": 0}, (DivergentError, UndecidedError), "state"),
    ("living on pays", no.MDP.from_grid("S..G"), {}, DivergentError, "freedom of choice"),
    ("living on pays, by luck", no.MDP.from_grid("S..G", slip=0.2), {"optimism": 1}, DivergentError, "freedom of choice"),
    ("leaving later costs nothing", no.MDP.from_gymnasium("FrozenLake-v1"), {"temperature": 0.1}, DivergentError,
     "for nothing"),
    ("discount does not save optimism", no.MDP.from_grid("S..G", discount=0.9), {"optimism": 1}, DivergentError, "+inf"),
    ("averse to risk", world({"a": {0: [(0.5, "a", -1.0), (0.5, "end", -1.0)]}}), {"optimism": -1}, DivergentError,
     "-inf"),
    ("forbidden", world({"a": {0: GO}, "b": {0: [(1.0, "end", -INF)]}}), {}, ForbiddenStateError, "'b'"),
    ("forbidden at risk", world({"a": {0: [(0.5, "end", -1.0), (0.5, "b", -1.0)]}, "b": {0: [(1.0, "end", -INF)]}}),
     {}, ForbiddenStateError, "2 states"),
    ("forbidden, discounted", world({"b": {0: [(1.0, "end", -INF)]}}, discount=0.5), {}, ForbiddenStateError, "'b'"),
    ("rewards that cancel, hard", world({"a": {0: [(1.0, "b", 1.0)], 1: GO}, "b": {0: [(1.0, "a", -1.0)]}}),
     {"temperature": 0}, (DivergentError, UndecidedError), "state"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """The clock is for the refusal, not for the first compilation in this process."""
    for temperature in (0.0, 1.0):
        no.solve(no.MDP.from_grid("S.G", step_reward=-3), temperature=temperature)


@pytest.mark.parametrize("method", ["auto", "value_iteration"])
@pytest.mark.parametrize(("mdp", "how", "error", "says"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused(mdp, how, error, says, method):
    start = time.process_time()
    with pytest.raises(error) as caught:
        no.solve(mdp, **how, method=method)
    seconds = time.process_time() - start
    assert says in str(caught.value) and "state" in str(caught.value)
    assert seconds < 10  # generous: a busy machine, and sometimes a compilation; `make bench` prints the figure


ACCEPTED = [  # neighbours of the above, each with its value in the first state
    ("a trap that costs nothing", world({"a": {0: GO}, "trap": {0: [(1.0, "trap", 0.0)]}}), {}, [-1.0, 0.0]),
    ("luck gets out", world({"a": {0: [(0.5, "end", -1.0), (0.5, "trap", -1.0)]}, "trap": {0: [(1.0, "end", -3.0)]}}),
     {"optimism": 1}, [np.log((np.exp(-1) + np.exp(-4)) / 2), -3.0]),
    ("a loop that costs", world({"a": {0: GO, 1: [(1.0, "a", -1.0)]}}), {}, [np.log(np.exp(-1) / (1 - np.exp(-1)))]),
    ("a free loop, hard", world({"a": {0: GO, 1: [(1.0, "a", 0.0)]}}), {"temperature": 0}, [0.0]),
    ("a free loop before a reward, hard", world({"a": {0: [(1.0, "end", 2.0)], 1: [(1.0, "a", 0.0)]}}),
     {"temperature": 0}, [2.0]),
    ("free to stay where nothing is to be gained, and a gain before a loss elsewhere, hard",
     world({"b": {0: [(1.0, "b", 0.0)], 1: GO}, "c": {0: [(1.0, "d", 5.0)]}, "d": {0: [(1.0, "end", -10.0)]}}),
     {"temperature": 0}, [0.0, -5.0, -10.0]),
    ("a free loop before a large reward, hard", world({"a": {0: [(1.0, "end", 1e6)], 1: [(1.0, "a", 0.0)]}}),
     {"temperature": 0, "tol": 1e5}, [1e6]),
    ("forbidden but avoidable", world({"a": {0: GO, 1: [(1.0, "b", -INF)]}, "b": {0: GO}}), {}, [-1.0, -1.0]),
    ("averse, but short", world({"a": {0: [(0.1, "a", -1.0), (0.9, "end", -1.0)]}}), {"optimism": -1},
     [-np.log(0.9 * np.e / (1 - 0.1 * np.e))]),
    ("free to stay, with a normalised prior", no.MDP.from_gymnasium("FrozenLake-v1"), {"prior": "uniform"}, None),
]  # fmt: skip


@pytest.mark.parametrize("method", ["auto", "policy_iteration", "value_iteration"])
@pytest.mark.parametrize(("mdp", "how", "truth"), [a[1:] for a in ACCEPTED], ids=[a[0] for a in ACCEPTED])
def test_accepted(mdp, how, truth, method):
    solution = no.solve(mdp, **how, method=method)
    assert solution.converged
    if truth is not None:
        decides = np.flatnonzero(~mdp.terminal)
        np.testing.assert_allclose(solution.value[decides], truth, atol=how.get("tol", 1e-8))
    assert check(solution) == []
