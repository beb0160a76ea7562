"""For all tests: Linux lets a process hold 65,530 memory maps, and every compiled program takes some."""

from pathlib import Path

import jax
import pytest

MAPS = Path("/proc/self/maps")
MOST = 30_000


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST:
        jax.clear_caches()
