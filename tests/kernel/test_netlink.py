"""Netlink messages as bytes: what is built can be read, and nothing that is read raises."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.fake_proc import ESTABLISHED, HOME, LISTEN
from pktproc.kernel import inet_diag, netlink
from pktproc.model import Protocol, pack_address

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
BODY = struct.Struct("=BBBB2s2s16s16sIQIIIII")  # struct inet_diag_msg


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@given(st.lists(st.tuples(U16, U16, U32, st.binary(max_size=40))))
def test_what_is_built_is_read(sent: list[tuple[int, int, int, bytes]]) -> None:
    stream = b"".join(padded(netlink.build(*message)) for message in sent)
    received = [(m.type, m.flags, m.sequence, bytes(m.payload)) for m in netlink.messages(stream)]
    assert received == sent


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_are_read(sent: list[tuple[int, bytes]]) -> None:
    stream = b"".join(padded(struct.pack("=HH", 4 + len(value), kind) + value) for kind, value in sent)
    assert [(kind, bytes(value)) for kind, value in netlink.attributes(stream)] == sent


@pytest.mark.parametrize("flag", [0x8000, 0x4000, 0xC000])
def test_flags_of_an_attribute_are_no_part_of_its_type(flag: int) -> None:
    """NLA_F_NESTED and NLA_F_NET_BYTEORDER, linux/netlink.h."""
    assert [kind for kind, _ in netlink.attributes(struct.pack("=HH", 4, 7 | flag))] == [7]


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_to_an_end(data: bytes) -> None:
    for message in netlink.messages(data):
        assert len(message.payload) <= len(data)
        netlink.error_code(message)
        inet_diag.parse_socket(message.payload, HOME, Protocol.TCP)
        list(netlink.attributes(message.payload))


@given(st.binary(max_size=300))
def test_any_payload_is_a_socket_or_none(data: bytes) -> None:
    found = inet_diag.parse_socket(memoryview(data), HOME, Protocol.TCP)
    assert (found is None) == (len(data) < BODY.size)
    if found is not None:
        assert len(found.local_address) == len(found.remote_address) == 16


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b"", 0), (struct.pack("=i", 0), 0), (struct.pack("=i", -2), 2), (struct.pack("=i", 5), 0), (b"\1\2\3", 0)],
)
def test_errors_are_positive(payload: bytes, expected: int) -> None:
    message = netlink.Message(netlink.NLMSG_DONE, 0, 0, memoryview(payload))
    assert netlink.error_code(message) == expected


def test_a_socket_message_is_read_by_the_kernels_layout() -> None:
    """The layout of struct inet_diag_msg in linux/inet_diag.h, with addresses and ports in network order."""
    ours = socket.inet_pton(socket.AF_INET6, "fd77::1")
    theirs = socket.inet_pton(socket.AF_INET6, "fd77::2")
    body = BODY.pack(
        socket.AF_INET6, ESTABLISHED, 0, 0, b"\x9c\x40", b"\x00\x50", ours, theirs, 7, 1 << 40, 0, 0, 0, 33, 4711
    )
    only_v6 = struct.pack("=HHB3x", 5, 11, 1)
    found = inet_diag.parse_socket(memoryview(body + only_v6), HOME, Protocol.UDP)
    assert found is not None
    assert (found.local_address, found.local_port) == (pack_address("fd77::1"), 40000)
    assert (found.remote_address, found.remote_port) == (pack_address("fd77::2"), 80)
    assert (found.state, found.ifindex, found.cookie, found.uid, found.inode) == (ESTABLISHED, 7, 1 << 40, 33, 4711)
    assert (found.v6_only, found.protocol, found.netns) == (True, Protocol.UDP, HOME)


def test_the_protocol_of_a_message_beats_the_expected_one() -> None:
    body = BODY.pack(socket.AF_INET, LISTEN, 0, 0, b"\0\1", b"\0\0", bytes(16), bytes(16), 0, 1, 0, 0, 0, 0, 0)
    of_udp = struct.pack("=HHB3x", 5, 10, Protocol.UDP)
    found = inet_diag.parse_socket(memoryview(body + of_udp), HOME, Protocol.TCP)
    assert found is not None
    assert (found.protocol, found.uid) == (Protocol.UDP, None)
