"""The benchmark harness on tiny sizes: every group yields rows, and the table says what was missed."""

import math

from benchmarks import harness, rows


def test_every_group_on_tiny_sizes():
    tiny = [
        *rows.large(4, 2, 1),
        *rows.small(3, 2, 1),
        *rows.trajectories(3, 10, 3),
        *rows.batch(3, 2, 4),
    ]
    assert len(tiny) == 6 + 4 + 2 + 2
    assert all(math.isfinite(r.seconds) and r.seconds > 0 for r in tiny)
    assert all(r.line(1e9).count("|") == 7 for r in tiny)
    assert set(rows.GROUPS) >= {"large", "memory", "small", "accelerator"}


def test_the_floor_and_the_verdict():
    assert harness.read_bandwidth(2**16) > 0
    row = harness.Row("work", seconds=2.0, steps=4, moved=2e9, aim="1 s", met=False)
    assert "| 50% |" in row.line(2e9) and "500 ms" in row.line(2e9) and "**missed**" in row.line(2e9)
