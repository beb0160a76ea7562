"""The benchmark harness on tiny sizes: every group yields rows, and the table says what was missed."""

import importlib.util
import math

import jax
import numpy as np
import pytest

import nearopt as no
from benchmarks import __main__, harness, peers, planning, rows

INSTALLED = {
    "QuantEcon": "quantecon",
    "mdpsolver": "mdpsolver",
    "pymdptoolbox": "mdptoolbox",
    "jaxdp": "jaxdp",
}


def check(tiny: list[harness.Row], count: int) -> None:
    assert len(tiny) == count
    assert all(math.isfinite(r.seconds) and r.seconds > 0 for r in tiny if "not run" not in r.note)
    assert all(r.line(1e9).count("|") == 7 for r in tiny)


def test_every_group_on_tiny_sizes():
    tiny = [
        *rows.large(4, 2, 1),
        *rows.small(3, 2, 1),
        *rows.trajectories(3, 10, 3),
        *rows.batch(3, 2, 4),
    ]
    check(tiny, 6 + 4 + 2 + 2)
    assert set(__main__.GROUPS) >= {"large", "memory", "small", "accelerator", "sweep", "solvers", "certified", "rust"}


@pytest.mark.filterwarnings("ignore")  # the peers' own, where they are installed
def test_the_sweep_on_tiny_sizes():
    check(list(planning.sweep(30, 3, 4, 1)), 6)


def test_planning_on_tiny_sizes():
    tiny = [
        *planning.solvers(states=[20], side=4, tol=1e-3, peers=[]),
        *planning.certified(6, 4, temperatures=[1.0], tol=1e-3, most=60, discount=0.9),
        *planning.rust(10, 0.9, 1e-8),
        *planning.planning_batch(3, 4, 0.9),
    ]
    check(tiny, 3 + 3 + 2 + 4)


def test_the_floor_and_the_verdict():
    assert harness.read_bandwidth(2**16) > 0
    row = harness.Row("work", seconds=2.0, steps=4, moved=2e9, aim="1 s", met=False, least_share=0.4)
    line = row.line(2e9)
    assert "| 50% of the 40% aimed at: met |" in line and "500 ms" in line and "| 1 s: **missed** |" in line


def test_a_random_model_is_a_garnet():
    for local in (False, True):
        mdp = planning.random_mdp(25, 3, 4, 0.9, local)
        assert (mdp.num_states, mdp.num_actions, mdp.num_choices) == (25, 3, 75)
        assert 75 * 2 < mdp.num_branches <= 75 * 4  # equal branches are merged


def value_iteration(mdp: no.MDP, sweeps: int) -> np.ndarray:
    """Hard control by the peers' tables, in three lines of NumPy."""
    model, value = peers.tables(mdp), np.zeros(mdp.num_states)
    for _ in range(sweeps):
        value = (model.reward + model.discount * (model.transition @ value).reshape(model.reward.shape)).max(axis=1)
    return value


def test_the_tables_of_the_peers_are_the_model():
    mdp = rows.slip_grid(4).replace(discount=0.9)
    post = no.infer(mdp, 7, temperature=0.0, optimism=0.0)
    assert np.allclose(value_iteration(mdp, 7), post.value[0], rtol=0, atol=1e-12)
    one_way = no.MDP.from_arrays(np.array([[[0.0, 1], [0, 0]], [[1, 0], [1, 0]]]), np.zeros((2, 2)), discount=0.9)
    with pytest.raises(ValueError, match="every action"):
        peers.tables(one_way)


@pytest.mark.filterwarnings("ignore")  # the peers' own
@pytest.mark.parametrize("name", list(INSTALLED))
def test_a_peer_solves_our_model_or_says_why_not(name):
    mdp = rows.slip_grid(4).replace(discount=0.9)
    row = peers.solved(name, "grid", peers.tables(mdp), 1e-6, value_iteration(mdp, 300))
    if importlib.util.find_spec(INSTALLED[name]) is None:
        assert row.note.startswith("not run: No module named") and math.isnan(row.seconds)
    else:
        assert row.seconds > 0 and float(row.note.split()[1].rstrip(",")) < 1e-4


def test_a_peer_that_would_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr(peers, "DENSE", 1)
    row = peers.solved("jaxdp", "grid", peers.tables(rows.slip_grid(4)), 1e-6, np.zeros(16))
    assert "not run: its dense tables" in row.note


def test_the_sweeps_of_value_iteration_are_counted_or_extrapolated():
    mdp = planning.random_mdp(30, 2, 3, 0.97)
    counted = planning.value_iteration_sweeps(mdp, 1.0, 1e-4, most=1000, look=1)
    guessed = planning.value_iteration_sweeps(mdp, 1.0, 1e-4, most=counted.needed // 2, look=1)
    assert counted.measured and not guessed.measured
    assert abs(guessed.needed - counted.needed) <= 0.1 * counted.needed
    leaky = planning.value_iteration_sweeps(rows.slip_grid(3).replace(discount=0.9), 1.0, 1e-6, 1000, 1)
    endless = math.log(1e-6 * 0.1 / (0.9 * math.log(4))) / math.log(0.9)  # living on pays; some slip into the goal
    assert 0.8 * endless < leaky.needed < endless


def test_the_bus_engine_is_the_published_one():
    mdp = planning.bus_engine()
    transition = mdp.transition.toarray().reshape(90, 2, 90)
    assert np.allclose(transition[40, 0, 40:43], [0.39189182, 0.59529371, 0.01281447], atol=1e-8)
    assert np.allclose(transition[40, 1, :3], [0.39189182, 0.59529371, 0.01281447], atol=1e-8)
    assert transition[89, 0, 89] == 1 and mdp.discount == 0.9999
    assert np.allclose(mdp.reward[[0, 89]], [[0, -10.075], [-0.204077, -10.075]])
    with jax.enable_x64(True):
        value = no.infer(mdp, 5, optimism=0.0).value[0]
    assert value[0] > value[89]
