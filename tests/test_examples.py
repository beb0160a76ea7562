"""The examples run, small, and show what their READMEs say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def lottery():
    spec = importlib.util.spec_from_file_location("lottery", ROOT / "examples" / "lottery" / "lottery.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_exact_inference_buys_and_variational_inference_walks_past(lottery):
    none, some, full = lottery.ledgers([0.0, 0.3, 1.0])
    assert lottery.buys(full.exact) > 0.999 and lottery.buys(full.variational) < 0.07
    assert full.believed_return == pytest.approx(9, abs=1e-3) and full.optimal_return == pytest.approx(0, abs=1e-12)
    assert full.actual_return == pytest.approx(-0.43, abs=0.005) and full.actual_return < full.variational_return
    assert full.believed_return > some.believed_return > none.believed_return
    for led in (some, full):  # the expected value of a ticket does not depend on the dial
        assert led.variational_return == pytest.approx(none.variational_return, abs=1e-12)
        assert min(led.kl_initial, led.kl_policy, led.kl_dynamics) > 1e-3
    best = full.luck(1)[0]
    assert (best.true, best.believed) == pytest.approx((0.02, 1), abs=1e-3)


def test_without_luck_the_gap_vanishes(lottery):
    (none,) = lottery.ledgers([0.0])
    assert none.log_evidence == pytest.approx(none.elbo, abs=1e-14)
    assert none.believed_return == pytest.approx(none.actual_return, abs=1e-14)
    assert none.believed_return == pytest.approx(none.variational_return, abs=1e-14)
    assert lottery.buys(none.exact) == pytest.approx(lottery.buys(none.variational), abs=1e-14)


def test_the_lottery_writes_its_picture(lottery, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 30)
    paths = lottery.main(tmp_path / "new", settings=3)
    assert paths[0].name == "lottery.png" and all(path.stat().st_size > 1000 for path in paths)
    assert capsys.readouterr().out.count(".png") == len(paths) == 6
