"""Namespaces come and go while sockets are listed."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.socket_tools import objects, pktproc_sockets, run
from pktproc.kernel.tables import Extent, Tables


@pytest.fixture
def churn() -> Iterator[None]:
    """Make and remove namespaces with a bound socket in them, one after another, as long as the test goes on."""
    stopped = threading.Event()

    def go_on() -> None:
        while not stopped.is_set():
            with NamespacePair() as pair, Program("udp_server", "127.0.0.1", 7499, namespace=pair.left).ready():
                pass

    thread = threading.Thread(target=go_on)
    thread.start()
    yield
    stopped.set()
    thread.join()


@pytest.mark.usefixtures("churn")
def test_namespaces_that_go_meanwhile_do_no_harm(left: Namespace) -> None:
    with Program("udp_server", "127.0.0.1", 7498, namespace=left).ready() as server:
        for _ in range(10):
            listed = objects("-ua", "sport", "=", ":7498", "--netns", "all")
            assert {holder["pid"] for entry in listed for holder in entry["holders"]} == {server.pid}
            done = run(pktproc_sockets("--netns", "all", "-ua", "dev", "lo"))
            assert done.returncode == 0, done.stderr


def test_a_namespace_is_read_though_its_name_is_gone() -> None:
    with NamespacePair() as pair:
        path = pair.left.path
        tables = Tables(pair.left.inode, path)
        with Program("udp_server", "127.0.0.1", 7499, namespace=pair.left).ready():
            subprocess.run(["ip", "netns", "del", pair.left.name], check=True)
            assert not path.exists()
            assert [row.local_port for row in tables.read("udp", Extent(0xFFF))] == [7499]
            assert "lo" in tables.interfaces().values()
            assert tables.ephemeral_ports()[0] > 1024
        tables.close()
