"""Figures show the posterior's own numbers, and arrows and lines go where they should."""

from types import SimpleNamespace

import numpy as np
import pytest

import nearopt as no
from nearopt import figures
from nearopt.figures.layout import busiest, find_lattice, moments, thin, until, view
from nearopt.mdp.errors import PositionError
from tests.figures.answers import MAZE, fake, make_axes


def on_grid(mdp, values):
    """{(column, row): value}, read cell by cell."""
    return {
        tuple(map(int, place)): value for place, value in zip(mdp.positions - mdp.positions.min(0), values, strict=True)
    }


def assert_shows(image, mdp, values, hidden=()):
    array = image.get_array()
    cells = on_grid(mdp, values)
    states = on_grid(mdp, range(mdp.num_states))
    for row in range(array.shape[0]):
        for column in range(array.shape[1]):
            shown = array[row, column]
            if (column, row) not in cells or states[column, row] in hidden or not np.isfinite(cells[column, row]):
                assert shown is np.ma.masked
            else:
                assert shown == cells[column, row]


# ---------------------------------------------------------------- numbers
def test_maps_show_the_posteriors_numbers(maze, posterior):
    end = np.flatnonzero(maze.terminal)
    assert_shows(figures.draw_visits(posterior, ax=make_axes()), maze, posterior.state_probs.sum(0), hidden=end)
    for t in (0, 5, 12):
        assert_shows(figures.draw_marginal(posterior, t, ax=make_axes()), maze, posterior.state_probs[t])
        assert_shows(figures.draw_backward(posterior, t, ax=make_axes()), maze, posterior.value[t] / 0.7)
        assert_shows(figures.draw_forward(posterior, t, ax=make_axes()), maze, posterior.log_forward[t])
    assert not np.isfinite(posterior.value[12]).all() and not np.isfinite(posterior.log_forward[0]).all()


def test_value_at_temperature_zero_is_not_divided(maze):
    hard = fake(maze, temperature=0.0, optimism=0.0)
    assert_shows(figures.draw_backward(hard, 0, ax=make_axes()), maze, hard.value[0])


def test_y_points_down_and_cells_are_square(posterior):
    ax = make_axes()
    image = figures.draw_visits(posterior, ax=ax)
    assert ax.yaxis_inverted() and ax.get_aspect() == 1
    assert image.get_array().shape == (3, 7) and image.get_extent() == [-0.5, 6.5, 2.5, -0.5]


def test_world_shows_rewards_where_they_vary(maze):
    assert figures.draw_world(maze, ax=make_axes()).get_array().mask.all()
    paid = no.MDP.from_grid(MAZE, goal_reward=5)
    entered = np.where(paid.terminal, 4.0, -1.0)
    assert_shows(figures.draw_world(paid, ax=make_axes()), paid, entered)
    cliff = no.MDP.from_gymnasium("CliffWalking-v1")
    reward = figures.draw_world(cliff, ax=make_axes()).get_array()
    assert reward[2, 5] == (-100 - 3) / 4 and reward[0, 5] == -1 and reward[3, 11] is np.ma.masked


def test_tables_show_the_posteriors_numbers(chain):
    posterior = fake(chain)
    states = np.arange(7)
    image = figures.draw_table(chain, posterior.state_probs, states, ax=make_axes())
    assert np.array_equal(image.get_array(), posterior.state_probs.T)
    image = figures.draw_table(chain, posterior.value, states, ax=make_axes(), unit=2.0)
    assert np.array_equal(image.get_array().mask, ~np.isfinite(posterior.value.T))
    assert np.array_equal(image.get_array().compressed(), posterior.value.T[np.isfinite(posterior.value.T)] / 2)
    bars = figures.draw_state_bars(posterior, states, ax=make_axes())
    assert np.allclose([bar.get_width() for bar in bars], [*posterior.state_probs.sum(0)[:6], 0])
    policy = figures.draw_policy_bars(posterior, 2, states[:6], ax=make_axes())
    assert np.allclose([[bar.get_width() for bar in action] for action in policy], posterior.policy_at(2)[:6].T)


def test_many_actions_share_the_last_colour():
    transition = np.broadcast_to(np.eye(3)[:, None], (3, 12, 3))
    mdp = no.MDP.from_arrays(transition, np.arange(36.0).reshape(3, 12) / 9)
    posterior = fake(mdp)
    favourites = [1, 2, 3, 5, 8, 9, 11]
    boost = posterior.policy_at(0) + 10 * np.isin(np.arange(12), favourites)
    posterior.policy_at = lambda t: boost / boost.sum(1, keepdims=True)
    bars = figures.draw_policy_bars(posterior, 0, np.arange(3), ax=make_axes())
    assert [bar.get_label() for bar in bars] == [f"action {a}" for a in favourites] + ["5 other actions"]
    assert np.allclose(np.sum([[b.get_width() for b in bar] for bar in bars], 0), 1)
    assert np.allclose([b.get_width() for b in bars[-1]], posterior.policy_at(0)[:, [0, 4, 6, 7, 10]].sum(1))


# ---------------------------------------------------------------- movement
def with_policy(mdp, policy):
    """An answer that does nothing but hold a policy, and has been everywhere."""
    everywhere = np.ones((3, mdp.num_states)) / mdp.num_states
    return SimpleNamespace(mdp=mdp, state_probs=everywhere, value=np.zeros_like(everywhere), policy_at=lambda t: policy)


def arrows_of(quiver):
    """{(column, row): [(dx, dy, opacity), ...]} by the cell that an arrow starts in."""
    found = {}
    for (x, y), dx, dy, colour in zip(quiver.XY, quiver.U, quiver.V, quiver.get_facecolor(), strict=True):
        found.setdefault((round(x), round(y)), []).append((dx, dy, colour[3]))
    return found


@pytest.mark.parametrize("named", [True, False])
def test_arrows_point_where_the_action_goes(named):
    mdp = no.MDP.from_grid("S..\n...\n..G")
    mdp = mdp if named else mdp.replace(action_names=None)
    for action, step in enumerate([(0, -1), (1, 0), (0, 1), (-1, 0)]):
        policy = np.zeros((9, 4))
        policy[:, action] = 1
        arrows = arrows_of(figures.draw_policy(with_policy(mdp, policy), 0, ax=make_axes()))
        assert np.allclose(arrows[1, 1], [(0.7 * step[0], 0.7 * step[1], 1)])
        bump = (1 + step[0], 1 + step[1])  # the cell that the action leads out of the grid from
        assert (bump in arrows) == named and (2, 2) not in arrows


def test_length_and_opacity_are_the_probability():
    mdp = no.MDP.from_grid("S..\n...\n..G", slip=0.2)
    policy = np.tile([0.5, 0.29, 0.2, 0.01], (9, 1))
    (up, right, down) = arrows_of(figures.draw_policy(with_policy(mdp, policy), 0, ax=make_axes()))[1, 1]
    assert np.allclose([up[1], right[0], down[1]], [-0.35, 0.203, 0.14])
    assert up[2] > right[2] > down[2]


def test_unnamed_actions_point_to_the_most_likely_cells():
    mdp = no.MDP.from_grid("...\n.S.\n...", slip=0.5).replace(action_names=None)
    policy = np.tile([1.0, 0, 0, 0], (9, 1))  # up with 1/2, left and right with 1/4 each
    assert np.allclose(
        arrows_of(figures.draw_policy(with_policy(mdp, policy), 0, ax=make_axes()))[1, 1], [(0, -0.7, 1)]
    )
    even = no.MDP.from_grid("...\n.S.\n...", slip=2 / 3).replace(action_names=None)
    assert np.allclose(
        arrows_of(figures.draw_policy(with_policy(even, policy), 0, ax=make_axes()))[0, 1],
        [(0.5**0.5 * 0.7, -(0.5**0.5) * 0.7, 1)],
    )


def test_arrows_only_where_somebody_comes(maze, posterior):
    arrows = arrows_of(figures.draw_policy(posterior, 3, ax=make_axes()))
    possible = np.isfinite(posterior.value[3]) & (posterior.state_probs.sum(0) >= 0.01) & ~maze.terminal
    assert set(arrows) == {cell for cell, shown in on_grid(maze, possible).items() if shown}


def test_trajectories_stay_in_their_cells_and_end(maze, posterior):
    trajectories = posterior.sample(20, seed=0)
    lines = figures.draw_trajectories(maze, trajectories, ax=make_axes()).get_segments()
    place = maze.positions - maze.positions.min(0)
    assert len(lines) == 20
    for line, states in zip(lines, trajectories.state, strict=True):
        assert np.abs(line - place[states[states >= 0]]).max() < 0.5
        assert np.abs(line[-1] - place[maze.terminal][0]).max() < 0.5


def test_table_trajectories_follow_the_rows(chain):
    state = [[0, 0, 1, 2, 3, 4], [0, 1, 2], [0, 1, 2, 3, 3, 2]]
    trajectories = no.Trajectories.from_arrays(state, [[1] * (len(s) - 1) for s in state])
    drawn = figures.draw_table_trajectories(chain, trajectories, np.array([2, 1, 0]), ax=make_axes())
    for line, states in zip(drawn.get_segments(), trajectories.state, strict=True):
        seen = states[(states >= 0) & (states <= 2)]
        height = line[:, 1][np.isfinite(line[:, 1])]
        assert np.array_equal(np.round(height), 2 - seen)


# ---------------------------------------------------------------- where things go
def test_positions_that_are_no_grid(chain):
    place = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)]
    assert find_lattice(chain.replace(positions=np.array(place, float) * 2.5)).shape == (1, 7)
    for wrong in [(6.3, 0), (5, 0), (9e9, 0)]:
        assert find_lattice(chain.replace(positions=np.array([*place[:6], wrong], float))) is None
    with pytest.raises(PositionError, match="draw_table"):
        figures.draw_map(chain, np.zeros(7), ax=make_axes())


def test_large_grids_show_where_somebody_comes():
    mdp = no.MDP.from_grid("\n".join(["." * 60] * 44 + ["." * 20 + "S" + "." * 10 + "G" + "." * 28]))
    answer = fake(mdp)
    answer.state_probs[:] = 0
    answer.state_probs[np.arange(13), 44 * 60 + 20 + np.minimum(np.arange(13), 11)] = 1
    assert view([answer]) == ((44.5, 42.5), (18.5, 32.5))
    ax = make_axes()
    figures.draw_policy(answer, 0, ax=ax)
    assert ax.get_ylim() == (44.85, 42.5) and ax.get_xlim() == (18.5, 32.5)
    ax = make_axes()
    figures.draw_visits(answer, ax=ax)
    assert ax.get_ylim() == (44.5, -0.5)


def test_tables_end_when_everybody_has_ended(chain):
    answer = fake(chain, horizon=1000)
    answer.state_probs[101:] = chain.terminal
    assert until([answer]) == 125 and until([answer, fake(chain, horizon=1000)]) == 1000
    image = figures.draw_table(chain, answer.state_probs, np.arange(7), ax=make_axes(), last=125)
    assert np.array_equal(image.get_array(), answer.state_probs[:126].T)


def test_moments_follow_the_action(posterior):
    assert moments(posterior, 6)[[0, -1]].tolist() == [0, 12]
    early = fake(posterior.mdp, horizon=3000)
    early.state_probs[20:] = posterior.mdp.terminal
    assert moments(early, 6).tolist() == [0, 5, 10, 14, 19, 3000]
    assert len(thin(10**5, 400)) == 400 and thin(2, 400).tolist() == [0, 1, 2]


def test_states_in_the_order_of_their_time(chain):
    answer = fake(chain, horizon=6)
    answer.state_probs[:] = np.eye(7)[[6, 0, 0, 2, 2, 2, 5]]
    assert busiest([answer], 40).tolist() == [6, 0, 2, 5] and busiest([answer], 2).tolist() == [0, 2]
    assert busiest([answer, fake(chain)], 40).shape == (7,)
