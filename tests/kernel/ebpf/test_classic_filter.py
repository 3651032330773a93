"""Classic filters rewritten as eBPF: the kernel runs both, and takes the same packets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pktproc.capture import filter as packet_filter
from pktproc.capture.filter import Instruction
from pktproc.errors import PktprocError, Unsupported
from pktproc.kernel.ebpf.classic_filter import followed
from pktproc.kernel.ebpf.flow_cache import FlowCache

SNAPLEN = 300
NOWHERE = "no-such-if"  # so libpcap compiles for Ethernet
EXPRESSIONS = [
    "tcp",
    "tcp port 443",
    "udp and (port 53 or portrange 1000-2000)",
    "host 10.77.0.1",
    "net 10.0.0.0/8 and not src host 10.1.2.3",
    "ip6 and tcp",
    "ip6 host fd77::1",
    "tcp[13] & 7 != 0",
    "ip[8] < 5 or ip[2:2] > 500",
    "ip[2:2] / 3 = 20",
    "ip[0] * ip[1] - ip[8] > 7",
    "ip[2:2] % ip[9] = 1",
    "ip[2:2] / ip[1] = 9",
    "(ip[4:2] ^ 0xffff) & 0x0f0f | 1 = 5",
    "ip[4:2] << 3 > ip[6:2] >> 2",
    "-ip[0] + len > 60",
    "greater 100",
    "less 80",
    "ether host 02:77:00:00:00:01",
    "arp",
    "icmp6 or icmp[0] = 8",
    "ether[20:4] = 0x0a4d0001",
]
OUTER_HEADERS = [
    bytes.fromhex("027700000002 027700000001 0800 4500 0054 1234 0000 40 06 0000 0a4d0001 0a010203 01bb0035 00000000"),
    bytes.fromhex("027700000002 027700000001 0800 4600 0054 1234 0000 03 11 0000 0a4d0001 0a4d0002 01010101 03e80035"),
    bytes.fromhex("027700000002 027700000001 0800 4500 0040 1234 2001 40 06 0000 0a4d0001 0a4d0002 01bb0035 00000000"),
    bytes.fromhex("027700000002 027700000001 86dd 6000 0000 0020 0640") + bytes.fromhex("fd77" + "00" * 13 + "01") * 2,
    bytes.fromhex("ffffffffffff 027700000001 0806 0001 0800 06 04 0001"),
]


@contextmanager
def passage() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a socket; what is sent into the first must pass the filter of the second."""
    into, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with into, out:
        out.setblocking(False)
        yield into, out


def passes(ends: tuple[socket.socket, socket.socket], packet: bytes) -> int:
    """Return how many bytes of a packet pass, 0 if it does not."""
    into, out = ends
    into.send(packet)
    try:
        return len(out.recv(1 << 16))
    except BlockingIOError:
        return 0


def same(program: tuple[Instruction, ...], packets: list[bytes]) -> None:
    """Assert that a program takes the same packets as it is and rewritten."""
    with ExitStack() as opened:
        classic, rewritten = opened.enter_context(passage()), opened.enter_context(passage())
        packet_filter.attach(classic[1], program)
        cache = FlowCache("wire", "inout", SNAPLEN, lambda: 0, program)
        opened.callback(cache.close)
        packet_filter.attach_loaded(rewritten[1], cache.descriptor)
        for packet in packets:
            assert (passes(classic, packet) > 0) == (passes(rewritten, packet) > 0), packet.hex()


@pytest.mark.parametrize("expression", EXPRESSIONS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    packets=st.lists(
        st.tuples(st.sampled_from([*OUTER_HEADERS, b""]), st.binary(max_size=120)).map(b"".join).filter(bool),
        min_size=1,
        max_size=20,
    )
)
def test_expressions_take_the_same_packets(expression: str, packets: list[bytes]) -> None:
    program = packet_filter.compile_filter(expression, NOWHERE, SNAPLEN)
    same(program, [*packets, *(header + bytes(40) for header in OUTER_HEADERS)])


# Code of every kind that the kernel takes, libpcap or not: jumps go to the return at the end.
OPERANDS = st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0, 64))
STEPS = st.one_of(
    st.tuples(st.sampled_from([0x20, 0x28, 0x30]), st.integers(0, 80)),
    st.tuples(st.sampled_from([0x40, 0x48, 0x50]), st.integers(0, 8)),
    st.tuples(st.sampled_from([0x00, 0x01]), OPERANDS),
    st.tuples(st.just(0xB1), st.integers(0, 40)),
    st.tuples(st.sampled_from([0x80, 0x81, 0x07, 0x87, 0x84]), st.just(0)),
    st.tuples(st.sampled_from([0x04, 0x14, 0x24, 0x44, 0x54, 0xA4]), OPERANDS),
    st.tuples(st.sampled_from([0x34, 0x94]), st.integers(1, 0xFFFFFFFF)),
    st.tuples(st.sampled_from([0x64, 0x74]), st.integers(0, 31)),
    st.tuples(st.sampled_from([0x0C, 0x1C, 0x2C, 0x3C, 0x4C, 0x5C, 0x9C, 0xAC]), st.just(0)),
    st.tuples(st.sampled_from([0x02, 0x03, 0x60, 0x61]), st.integers(0, 3)),
    st.tuples(st.sampled_from([0x15, 0x25, 0x35, 0x45, 0x1D, 0x2D, 0x3D, 0x4D]), OPERANDS),
)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=20), packets=st.lists(st.binary(min_size=1, max_size=100), max_size=8)
)
def test_any_program_takes_the_same_packets(steps: list[tuple[int, int]], packets: list[bytes]) -> None:
    stores = [Instruction(0x02, 0, 0, word) for word in range(4)]  # the kernel wants words written before they are read
    body = [Instruction(code, len(steps) - 1 - at if code & 7 == 5 else 0, 0, k) for at, (code, k) in enumerate(steps)]
    program = (*stores, *body, Instruction(0x16, 0, 0, 0))
    same(program, [*packets, *OUTER_HEADERS])


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(0x20, 0, 0, 0xFFFFF000 + 28),  # the type of the link
        Instruction(0x05, 0, 0, 0xFFFFFFF0),  # backwards
        Instruction(0x05, 0, 0, 7),
        Instruction(0xFF, 0, 0, 0),
        Instruction(0x02, 0, 0, 16),
    ],
)
def test_what_cannot_be_rewritten_is_refused(instruction: Instruction) -> None:
    with pytest.raises(Unsupported):
        followed((instruction, Instruction(0x06, 0, 0, 1)), 0, SNAPLEN)


@settings(max_examples=500)
@given(
    program=st.lists(
        st.builds(
            Instruction, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFFFFFF)
        ),
        max_size=40,
    )
)
def test_no_program_raises_anything_else(program: list[Instruction]) -> None:
    try:
        code = followed(program, 0, SNAPLEN)
    except PktprocError:
        return
    assert len(code) % 8 == 0
