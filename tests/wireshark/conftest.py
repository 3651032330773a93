"""Fixtures of the tests that capture: a pair of namespaces, and programs that talk on the loopback of one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program

PORT = 7950


class Talk(NamedTuple):
    """Two programs on the loopback of a namespace, with their pids: `talker` sends to `listener` without end."""

    talker: int
    listener: int
    namespace: Namespace


@pytest.fixture(scope="module")
def left() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.fail("these tests make network namespaces and capture in them: run them as root", pytrace=False)
    with NamespacePair() as pair:
        yield pair.left


def called(name: str, folder: Path) -> Path:
    """Return the path of the Python interpreter under another name, which becomes that of its process."""
    path = folder / name
    path.symlink_to(sys.executable)
    return path


@pytest.fixture(scope="module")
def talk(left: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    folder = tmp_path_factory.mktemp("programs")
    listens = ("127.0.0.1", PORT, "--silent")
    talks = ("127.0.0.1", PORT, "--rate", 500, "--burst", 1, "--count", 10**9, "--bytes", 200)
    with (
        Program("udp_server", *listens, namespace=left, interpreter=called("the listener", folder)) as listener,
        Program("udp_flood", *talks, namespace=left, interpreter=called("talker", folder)) as talker,
    ):
        listener.ready()
        talker.ready().say()
        yield Talk(talker.pid, listener.pid, left)
