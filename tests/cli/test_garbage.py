"""When circles are looked for."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktproc.cli.garbage import RareLooks
from pktproc.kernel import namespaces
from pktproc.listing import Looker, Question


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Keep the garbage collector off, as a command does that goes on."""
    automatic = gc.isenabled()
    gc.disable()
    yield
    if automatic:
        gc.enable()


class Circle:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("uncollected")
def test_circles_go_when_a_look_is_due_and_not_before() -> None:
    now = 0.0
    looks = RareLooks(lambda: now)
    circle = weakref.ref(Circle())
    now = 599.0
    looks.look_if_due()
    assert circle() is not None
    now = 601.0
    looks.look_if_due()
    assert circle() is None
    circle = weakref.ref(Circle())
    now = 1200.0
    looks.look_if_due()
    assert circle() is not None


@pytest.mark.usefixtures("uncollected")
def test_looks_at_all_sockets_leave_no_circles() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Looker(Question(), keeps=True) as looker:
        looker.look()
        gc.collect()
        listing = looker.look()
        port = listener.getsockname()[1]
        assert [entry.holders for entry in listing.entries if entry.row.local_port == port and entry.holders]
        del listing
        assert gc.collect() == 0


@pytest.mark.usefixtures("uncollected")
def test_work_in_a_namespace_leaves_no_circles_not_even_if_it_fails() -> None:
    def work() -> int:
        raise FileNotFoundError

    here = Path("/proc/self/ns/net")
    namespaces.run_inside(here, namespaces.current)
    gc.collect()
    for _ in range(3):
        assert namespaces.run_inside(here, namespaces.current) == namespaces.current()
        with contextlib.suppress(FileNotFoundError):
            namespaces.run_inside(here, work)
    assert gc.collect() == 0
