"""Published numbers on real data: Rust's engine replacements (1987), mice in a labyrinth (Rosenberg et al. 2021)."""

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import nearopt as no

DATA = Path(__file__).parents[3] / "shared" / "data"
BUSES, LABYRINTH = DATA / "bus_engines" / "group4.csv", DATA / "labyrinth" / "water_restricted.csv"
needs = lambda path: pytest.mark.skipif(not path.exists(), reason=f"{path} is not here: the project does not ship it")

# What each kind of reward is fitted with, and the bits per held-out decision that it must reach.
SETTINGS = {
    "state": (dict(reward="state", discount=0.9, l2=1e-4), -1.67),
    "state_action": (dict(reward="state_action", discount=0.9, l2=1e-4), -0.93),
    "state_action over time": (
        dict(reward="state_action", time_varying=True, horizon=22, discount=1.0, l2=1e-4, smoothness=1e-3),
        -0.36,
    ),
}


def columns(path):
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# ---------------------------------------------------------------- Rust's buses
def engine():
    """States: the odometer in bins of 5,000 miles. Actions: keep, replace, which restarts from bin 0."""
    size, increments = 90, [0.39189182, 0.59529371, 0.01281447]
    transition, features = np.zeros((size, 2, size)), np.zeros((size, 2, 2))
    for s in range(size):
        for more, p in enumerate(increments):
            transition[s, 0, min(s + more, size - 1)] += p
            transition[s, 1, more] += p
        features[s] = [[0, -0.001 * s], [-1, 0]]  # · (RC, θ)
    return no.MDP.from_arrays(transition, np.zeros((size, 2)), discount=0.9999), features


def buses():
    rows = columns(BUSES)
    numbers = {name: values.astype(int) for name, values in rows.items()}
    kept = numbers["period"] >= 1  # the published likelihood leaves the first month out
    frame = {name: values[kept] for name, values in numbers.items()}
    return no.Trajectories.from_frame(frame, episode="bus", time="period", state="state", action="replaced")


@pytest.fixture(scope="module")
def rust():
    mdp, features = engine()
    return no.BehaviourModel(mdp, features=features).fit(buses())


@needs(BUSES)
def test_rust_likelihood_at_the_published_numbers():
    mdp, features = engine()
    recorded = buses()
    assert len(recorded) == 37 and recorded.num_decisions == 37 * 116 and (recorded.action == 1).sum() == 33
    found = no.functional.log_likelihood(mdp, recorded, reward=features @ [10.07494, 2.29309])
    assert round(-float(np.asarray(found).sum()), 4) == 163.5843


@needs(BUSES)
def test_rust_maximum_likelihood(rust):
    assert rust.converged_ and np.all(rust.identifiable_)
    np.testing.assert_allclose(rust.coef_, [10.07494, 2.29309], atol=5e-5)
    np.testing.assert_allclose(-rust.log_likelihood_, 163.58428, atol=5e-5)


@needs(BUSES)
@pytest.mark.parametrize(
    "kind, published",
    [("opg", [1.5815, 0.6383]), ("hessian", [1.3513, 0.5538]), ("sandwich", [1.1548, 0.4832])],
)
def test_rust_standard_errors(rust, kind, published):
    np.testing.assert_allclose(rust.stderr(kind), published, atol=1e-3)


# ---------------------------------------------------------------- mice
def labyrinth():
    """127 nodes of a binary tree; actions: left, right, back, stay."""
    nodes = np.arange(127)
    children = [np.where(nodes < 63, 2 * nodes + side, nodes) for side in (1, 2)]
    where = np.stack([*children, np.maximum((nodes - 1) // 2, 0), nodes], axis=1)
    rows = (np.ones(where.size), (np.arange(where.size), where.reshape(-1)))
    return no.MDP.from_arrays(scipy.sparse.csr_array(rows, shape=(where.size, 127)), np.zeros(127), discount=0.9)


@pytest.fixture(scope="module")
def mice():
    rows = columns(LABYRINTH)
    split = rows.pop("split")
    numbers = {name: values.astype(int) for name, values in rows.items()}
    pick = lambda which: no.Trajectories.from_frame({k: v[split == which] for k, v in numbers.items()})
    return pick("train"), pick("validation")


@needs(LABYRINTH)
def test_the_labyrinth_is_what_was_recorded(mice):
    train, held_out = mice
    mdp = labyrinth()
    assert (train.shape, held_out.shape) == ((160, 22), (40, 22))
    train.check(mdp)
    held_out.check(mdp)


@needs(LABYRINTH)
@pytest.mark.parametrize("name", SETTINGS)
def test_mice_are_foretold(mice, name):
    settings, bits = SETTINGS[name]
    train, held_out = mice
    model = no.BehaviourModel(labyrinth(), **settings).fit(train)
    assert model.converged_
    assert model.score(held_out) / np.log(2) >= bits
