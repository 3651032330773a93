"""Fixtures of the live tests: root, checked, and a pair of namespaces for each test file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import Namespace, NamespacePair

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("live tests make network namespaces and capture in them: run them as root", pytrace=False)


@pytest.fixture(scope="module")
def pair(_root: None) -> Iterator[NamespacePair]:
    with NamespacePair() as pair:
        yield pair


@pytest.fixture
def left(pair: NamespacePair) -> Namespace:
    return pair.left


@pytest.fixture
def right(pair: NamespacePair) -> Namespace:
    return pair.right
