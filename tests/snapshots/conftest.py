"""Fixtures of the tests of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapshots.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db")
    yield bench
    bench.store.close()


@pytest.fixture
def deaf_bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "store.db", hears_ends=False)
    yield bench
    bench.store.close()
