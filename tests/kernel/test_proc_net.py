"""The tables of /proc/net: hand-made lines, hostile lines, and the very sockets of this process."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.fake_proc import CLOSE, ESTABLISHED, HOME, LISTEN, TIME_WAIT, FakeProc
from pktproc.kernel import proc_net
from pktproc.model import UNSPECIFIED, UNSPECIFIED_V4, Protocol, Socket, pack_address

NET = Path("/proc/self/net")


@pytest.mark.parametrize(
    ("order", "text", "expected"),
    [
        ("little", "0100007F:1F90", ("127.0.0.1", 8080)),
        ("big", "7F000001:1F90", ("127.0.0.1", 8080)),
        ("little", "02004D0A:0050", ("10.77.0.2", 80)),
        ("big", "0A4D0002:0050", ("10.77.0.2", 80)),
        ("little", "00000000:0000", ("0.0.0.0", 0)),
        ("little", "00000000000000000000000001000000:FFFF", ("::1", 65535)),
        ("big", "00000000000000000000000000000001:FFFF", ("::1", 65535)),
        ("little", "000077FD000000000000000002000000:0035", ("fd77::2", 53)),
        ("big", "FD770000000000000000000000000002:0035", ("fd77::2", 53)),
        ("little", "0000000000000000FFFF00000100007F:0035", ("127.0.0.1", 53)),
        ("big", "00000000000000000000FFFF7F000001:0035", ("127.0.0.1", 53)),
    ],
)
def test_addresses_are_words_in_the_byte_order_of_the_host(
    monkeypatch: pytest.MonkeyPatch, order: str, text: str, expected: tuple[str, int]
) -> None:
    monkeypatch.setattr(sys, "byteorder", order)
    assert proc_net.parse_address(text) == (pack_address(expected[0]), expected[1])


@pytest.mark.parametrize("text", ["", ":", "0100007F", "0100007F:", "01:1", "XX00007F:0001", "0100007F00:0001"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        proc_net.parse_address(text)


def test_a_line_becomes_a_socket(fake: FakeProc) -> None:
    fake.open("tcp", ("10.77.0.1", 40000), ("10.77.0.2", 80), inode=77, uid=33)
    fake.start(1)
    (found,) = proc_net.read_table(fake.root / "1" / "net", "tcp", HOME)
    assert found == Socket(
        netns=HOME,
        protocol=Protocol.TCP,
        local_address=pack_address("10.77.0.1"),
        local_port=40000,
        remote_address=pack_address("10.77.0.2"),
        remote_port=80,
        state=ESTABLISHED,
        inode=77,
        cookie=0,
        uid=33,
    )


def test_the_user_of_a_socket_without_an_inode_is_unknown(fake: FakeProc) -> None:
    fake.open("tcp", ("10.77.0.1", 40000), ("10.77.0.2", 80), state=TIME_WAIT, inode=0, uid=0)
    fake.start(1)
    (found,) = proc_net.read_table(fake.root / "1" / "net", "tcp", HOME)
    assert (found.state, found.inode, found.uid) == (TIME_WAIT, 0, None)


def test_a_raw_socket_has_its_protocol_as_port(fake: FakeProc) -> None:
    fake.open("raw6", ("::", Protocol.ICMPV6), state=CLOSE, inode=78)
    fake.start(1)
    (found,) = proc_net.read_table(fake.root / "1" / "net", "raw6", HOME)
    assert (found.protocol, found.raw, found.local_address) == (Protocol.ICMPV6, True, UNSPECIFIED)


def test_a_missing_table_is_empty(tmp_path: Path) -> None:
    assert proc_net.read_table(tmp_path, "udplite", HOME) == []
    assert proc_net.read_table(tmp_path / "gone", "tcp", HOME) == []


def test_only_the_wanted_ports_of_a_table_are_read(fake: FakeProc) -> None:
    for port in (80, 8080, 40000):
        fake.open("tcp", ("10.77.0.1", port), inode=port)
    fake.start(10)
    net = fake.root / "10" / "net"
    assert {found.local_port for found in proc_net.read_table(net, "tcp", HOME)} == {80, 8080, 40000}
    wanted = {proc_net.hexadecimal(port) for port in (80, 40000, 1)}
    assert {found.local_port for found in proc_net.read_table(net, "tcp", HOME, wanted)} == {80, 40000}


@given(st.lists(st.text()))
def test_hostile_lines_never_raise(lines: list[str]) -> None:
    for protocol in (Protocol.TCP, None):
        assert len(list(proc_net.parse_inet(iter(lines), HOME, protocol))) <= len(lines)
    assert len(list(proc_net.parse_packet(iter(lines), HOME))) <= len(lines)


WORDS = st.one_of(
    st.sampled_from(["0100007F:1F90", "0:", "-1", "FF", "0A", "00000000:00000000", "99999999999999999999", "١٢"]),
    st.text(alphabet="0123456789ABCDEFabcdef:xX_-+. ", max_size=40),
)


@given(st.lists(st.lists(WORDS, min_size=8, max_size=14).map(" ".join)))
def test_lines_that_look_right_never_raise(lines: list[str]) -> None:
    for protocol in (Protocol.TCP, None):
        for found in proc_net.parse_inet(iter(lines), HOME, protocol):
            assert len(found.local_address) == len(found.remote_address) == 16
    assert len(list(proc_net.parse_packet(iter(lines), HOME))) <= len(lines)


@given(st.binary(max_size=300))
def test_hostile_tables_never_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    (folder / "tcp").write_bytes(data)
    assert proc_net.read_table(folder, "tcp", HOME) == []


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


@pytest.mark.parametrize(
    ("family", "kind", "address", "table"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", "tcp"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1", "tcp6"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", "udp"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "::1", "udp6"),
    ],
)
def test_the_sockets_of_this_process_are_in_the_kernels_tables(
    family: socket.AddressFamily, kind: socket.SocketKind, address: str, table: str
) -> None:
    with socket.socket(family, kind) as sock:
        sock.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        (found,) = [one for one in proc_net.read_table(NET, table, HOME) if one.inode == inode_of(sock)]
        assert (found.local_address, found.local_port) == (pack_address(address), sock.getsockname()[1])
        assert found.state == (LISTEN if kind == socket.SOCK_STREAM else CLOSE)
        assert found.uid == os.geteuid()
        assert found.remote_address == (UNSPECIFIED if family == socket.AF_INET6 else UNSPECIFIED_V4)


@pytest.mark.live
def test_raw_and_packet_sockets_are_in_the_kernels_tables() -> None:
    """A packet socket with protocol 0 receives nothing."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as raw,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet,
    ):
        (found,) = [one for one in proc_net.read_table(NET, "raw", HOME) if one.inode == inode_of(raw)]
        assert (found.protocol, found.raw, found.uid) == (253, True, os.geteuid())
        (found,) = [one for one in proc_net.read_table(NET, "packet", HOME) if one.inode == inode_of(packet)]
        assert (found.protocol, found.local_port, found.ifindex) == (-1, 0, 0)


@pytest.mark.parametrize(
    ("protocol", "tables"),
    [
        (Protocol.TCP, ("tcp", "tcp6")),
        (Protocol.UDP, ("udp", "udp6")),
        (Protocol.UDPLITE, ("udplite", "udplite6")),
        (Protocol.ICMP, ("icmp", "raw", "raw6")),
        (Protocol.ICMPV6, ("icmp6", "raw", "raw6")),
        (89, ("raw", "raw6")),
    ],
)
def test_a_protocol_is_looked_for_where_its_sockets_can_be(protocol: int, tables: tuple[str, ...]) -> None:
    assert proc_net.tables_of(protocol) == tables
