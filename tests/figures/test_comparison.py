"""The pictures of a comparison show the ledger's own numbers, and arrows go where the tables say."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.quiver import Quiver

import nearopt as no
from nearopt import figures
from nearopt.figures.comparison import maps, tables
from nearopt.figures.dynamics import luck_page, outcome_label
from nearopt.figures.ledger import RETURNS, ledger_page
from tests.figures.answers import fake, make_axes
from tests.figures.test_pages import assert_drawn, assert_readable, words

ENTRIES = dict(log_evidence=-1.0, elbo=-4.0, kl_initial=0.5, kl_policy=1.5, kl_dynamics=1.0)
FOUR = dict(believed_return=5.0, actual_return=-3.0, variational_return=1.0, optimal_return=2.0)


def outcome(next_state, **changes):
    numbers = dict(t=1, state=0, action=0, next_state=next_state, true=0.1, believed=0.7, nats=1.95, visits=0.5)
    return SimpleNamespace(**numbers | changes)


def tilted(answer, seed=0):
    """A fake answer with dynamics of its own: every branch's weight times a random number."""
    rng, mdp = np.random.default_rng(seed), answer.mdp
    weight = mdp.probability * rng.uniform(0.2, 2, mdp.num_branches)
    weight /= np.add.reduceat(weight, mdp.branch_offset[:-1])[mdp.branch_choice]
    answer.transition = lambda t: mdp.branch_table(weight)
    answer.dynamics_gain = lambda t: mdp.branch_table(np.log(weight / mdp.probability))
    return answer


def fake_ledger(mdp, **changes):
    answers = dict(
        exact=tilted(fake(mdp)),
        variational=fake(mdp, optimism=0.0, seed=1),
        optimal=fake(mdp, temperature=0.0, optimism=0.0, seed=2),
    )
    luck = lambda n: [outcome(1), outcome(-1, visits=0.25)][:n]
    return SimpleNamespace(**ENTRIES | FOUR | answers | dict(luck=luck) | changes)


def slippery():
    return no.MDP.from_grid("S...\n.#..\n...G", slip=0.2)


# ---------------------------------------------------------------- numbers
def test_the_terms_stack_up_to_the_log_evidence():
    bars = figures.draw_terms(fake_ledger(slippery()), ax=make_axes())
    spans = [(bar[0].get_x(), bar[0].get_x() + bar[0].get_width()) for bar in bars]
    assert np.allclose(spans, [(-4, -3.5), (-3.5, -2), (-2, -1)])


def test_the_returns_are_points():
    points = figures.draw_returns(fake_ledger(slippery()), ax=make_axes())
    assert [point.get_xdata()[0] for point in points] == [5, -3, 1, 2] and list(FOUR) == list(RETURNS)


def test_infinite_entries_are_told():
    led = fake_ledger(slippery(), elbo=-np.inf, kl_dynamics=np.inf, actual_return=-np.inf)
    page = ledger_page(led)
    assert words(page).count("-inf") == 2 and "no policy is sure" in words(page)
    assert_readable(page)


def test_a_dial_shows_every_entry():
    ledgers = [fake_ledger(slippery(), elbo=-4.0 - x, log_evidence=-1.0 - x, believed_return=x) for x in (0.0, 1.0)]
    page = figures.dial_page([0.0, 1.0], ledgers, label="luck", title="x")
    left, right = page.axes
    drawn = [np.asarray(line.get_ydata()).tolist() for line in left.get_lines()]
    assert drawn == [[0, 1], [-3, -3], [1, 1], [2, 2]]
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in right.collections]
    assert np.allclose(tops, [-3.5, -2, -1])


@pytest.mark.parametrize("believed", [True, False])
def test_arrows_are_the_branches_of_the_favourite_action(believed):
    mdp = slippery()
    answer = tilted(fake(mdp))
    answer.value[:] = 0
    drawn = figures.draw_dynamics(answer, 2, ax=make_axes(), believed=believed)
    assert isinstance(drawn, Quiver)
    table = (answer.transition(2) if believed else mdp.transition).toarray()
    gain = answer.dynamics_gain(2).toarray()
    expected = {}
    for s in np.flatnonzero(~mdp.terminal).tolist():
        row = s * mdp.num_actions + int(answer.policy_at(2)[s].argmax())
        for s2 in np.flatnonzero(table[row] >= 0.02).tolist():
            if s2 != s:
                move = mdp.positions[s2] - mdp.positions[s]
                expected[tuple(mdp.positions[s]), tuple(move)] = (0.7 * table[row, s2], gain[row, s2])
    found = {}
    for (x, y), u, v, nats in zip(drawn.XY, drawn.U, drawn.V, drawn.get_array(), strict=True):
        size = np.hypot(u, v)
        tail = np.array([x, y]) - 0.06 * np.array([u, v]) / size
        found[tuple(np.round(tail)), tuple(np.round(np.array([u, v]) / size))] = (size, nats)
    assert found.keys() == expected.keys()
    for key, (size, nats) in expected.items():
        assert found[key] == pytest.approx((size, nats))


def test_outcomes_are_named(chain):
    assert outcome_label(chain, outcome(1)) == "t = 1: a$b_, go → 日本".replace("日本", "\N{WHITE SQUARE}" * 2)
    assert outcome_label(chain, outcome(-1)).endswith("→ ends by discount")
    led = fake_ledger(chain)
    page = luck_page(led)
    assert "1.95 nats × 0.5 visits" in words(page)
    assert "no outcome gained" in words(luck_page(fake_ledger(chain, luck=lambda n: [])))


# ---------------------------------------------------------------- pages
def test_one_colour_scale_for_all_three(chain):
    for mdp, make in ((slippery(), maps), (chain, tables)):
        pages = dict(make(fake_ledger(mdp)))
        for name in ("values.png", "visits.png"):
            images = [ax.get_images()[-1] for ax in pages[name].axes if ax.get_images()]
            assert len(images) == 3 and len({id(image.norm) for image in images}) == 1


def test_no_text_covers_another(chain):
    for mdp, make in ((slippery(), maps), (chain, tables)):
        for _, page in make(fake_ledger(mdp)):
            assert_readable(page)
            bars = [ax for ax in page.axes if hasattr(ax, "_colorbar")]
            boxes = [text.get_window_extent() for ax in bars for text in (ax.xaxis.label, ax.yaxis.label)]
            assert all(box.y0 > -1 and box.y1 < page.bbox.height + 1 for box in boxes)


def test_every_file(chain, tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 50)
    names = ["ledger.png", "values.png", "policies.png", "visits.png", "dynamics.png"]
    for folder, mdp in (("grid", slippery()), ("chain", chain)):
        paths = figures.comparison_figures(fake_ledger(mdp), tmp_path / folder)
        assert paths == [tmp_path / folder / name for name in names]
        assert_drawn(paths)
