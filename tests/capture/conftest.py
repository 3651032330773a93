"""A pair of namespaces for each file of live tests, made as root."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bed.namespaces import Namespace, NamespacePair


@pytest.fixture(scope="module")
def pair() -> Iterator[NamespacePair]:
    if os.geteuid() != 0:
        pytest.fail("live tests make network namespaces and capture in them: run them as root", pytrace=False)
    with NamespacePair() as pair:
        yield pair


@pytest.fixture
def left(pair: NamespacePair) -> Namespace:
    return pair.left


@pytest.fixture
def right(pair: NamespacePair) -> Namespace:
    return pair.right
