"""Fixtures of the kernel room: a procfs tree, and namespaces for what needs the kernel itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import NamespacePair
from kernel.fake_proc import FakeProc


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture(scope="module")
def pair() -> Iterator[NamespacePair]:
    if os.geteuid() != 0:
        pytest.fail("live tests make network namespaces: run them as root", pytrace=False)
    with NamespacePair() as pair:
        yield pair
