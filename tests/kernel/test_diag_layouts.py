"""SCTP and vsock: kernels without them are common, so their answers are written down by the kernel's own headers.

A program in C makes the messages with the structures of linux/inet_diag.h and linux/vm_sockets_diag.h. Where the kernel
has these sockets, the live tests list them, too (`bed.programs.all_kinds`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pktproc.inventory.peers import Peers
from pktproc.inventory.rows import Row, make_row
from pktproc.kernel import inet_table, netlink, vsock_diag
from pktproc.model import pack_address
from pktproc.output import socket_details
from pktproc.output.socket_ends import Ends
from pktproc.output.socket_export import end_of

SOURCE = Path(__file__).with_name("diag_messages.c")
NETNS = 4026531840
Written = Callable[..., bytes]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    program = tmp_path_factory.mktemp("diag") / "messages"
    subprocess.run(["clang", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE], check=True, timeout=60)

    def run(*names: str) -> bytes:
        return subprocess.run([program, *names], capture_output=True, check=True, timeout=10).stdout

    return run


def sctp_rows(data: bytes) -> list[Row]:
    blocks = inet_table.Blocks(NETNS, "sctp").of(memoryview(data))
    return [make_row(values) for block in blocks for values in zip(*block, strict=True)]


def vsock_rows(data: bytes) -> list[Row]:
    return [vsock_diag.row(message.payload, NETNS) for message in netlink.messages(memoryview(data))]


def test_requests_are_as_the_headers_have_them(written: Written) -> None:
    assert vsock_diag.request(1 << 10) == written("vsock-request")
    assert inet_table.request("sctp", 2, states=0xFFF) == written("sctp-request")


def test_a_socket_of_sctp_is_read_as_the_kernel_tells_it(written: Written) -> None:
    (row,) = sctp_rows(written("sctp-socket"))
    assert (row.netns, row.kind, row.state, row.inode, row.cookie, row.uid) == (
        NETNS,
        "sctp",
        10,
        4242,
        1 << 32 | 0x99,
        1000,
    )
    assert (row.local, row.local_port, row.remote_port) == (pack_address("10.77.0.1"), 5000, 0)
    assert (row.receive_queue, row.send_queue) == (11, 12)
    assert row.attributes.locals == (pack_address("10.77.0.1"), pack_address("fd77::1"))
    assert row.attributes.peers is None


def test_an_association_has_its_own_numbers_for_states_and_timers(written: Written) -> None:
    """Its number for ESTABLISHED is TCP's for SYN-RECV."""
    rows = sctp_rows(written("sctp-socket", "sctp-association", "sctp-ending"))
    assert [row.state for row in rows] == [10, 1, 8]
    assert {row.key for row in rows} == {rows[0].key}
    _, association, _ = rows
    assert (association.remote, association.remote_port) == (pack_address("10.77.0.2"), 6000)
    assert (association.timer, association.retransmissions, association.expires_ms) == (1, 2, 300)
    told = socket_details.info(association)
    assert "locals:10.77.0.1,fd77::1 peers:10.77.0.2,10.77.1.2" in told


def test_plain_listings_read_the_same(written: Written) -> None:
    data = written("sctp-association", "sctp-socket")
    blocks = inet_table.Blocks(NETNS, "sctp", attributes=False).of(memoryview(data))
    assert [make_row(values) for block in blocks for values in zip(*block, strict=True)] == sctp_rows(data)


def test_the_other_end_of_an_association_is_the_socket_that_has_the_mirrored_one(written: Written) -> None:
    (socket, association) = sctp_rows(written("sctp-socket", "sctp-association"))
    mirrored = association._replace(
        local=association.remote, local_port=6000, remote=association.local, remote_port=5000, inode=7, cookie=7
    )
    own = mirrored._replace(attributes=socket.attributes)
    found = Peers([socket, association, own, mirrored], lambda _: ()).of(association)
    assert found is not None
    assert found.inode == 7
    assert Peers([socket, association, own, mirrored], lambda _: ()).of(socket) is None


def test_vsock_sockets_are_read_as_the_kernel_tells_them(written: Written) -> None:
    listener, packets = vsock_rows(written("vsock-listener", "vsock-packets"))
    assert (listener.kind, listener.state, listener.inode, listener.cookie) == ("v_str", 10, 4343, 2 << 32 | 0x77)
    assert (packets.kind, packets.state, packets.attributes.shutdown) == ("v_seq", 1, 1)
    ends = Ends({})
    assert (ends.local(listener), ends.remote(listener)) == (("3", "1024"), ("*", "*"))
    assert (ends.local(packets), ends.remote(packets)) == (("3", "1024"), ("2", "2"))
    assert end_of(packets, local=False) == {"cid": 2, "port": 2}
