"""The same packet on several interfaces counts once; what is sent again on one interface counts again."""

from __future__ import annotations

import pytest

from bandwidth.counted import BRIDGE, ETH0, HOST, LOOPBACK, OUT, START_NS, Seen, adds_up, block, by, tcp, udp
from pktproc.bandwidth.ledger import Ledger
from pktproc.bandwidth.views import Captured
from pktproc.model import Interface

CURL = (by(1, "curl"), None)
VETH = Interface("veth0", 9, 1)


def counted(*blocks: list[Seen], repeats: bool = True) -> Captured:
    book = Ledger(repeats=repeats)
    for seen in blocks:
        book.add(block(seen, [ETH0, BRIDGE, VETH, LOOPBACK]))
    adds_up(book.view())
    return book.view().captured


def on(interface: Interface, frame: bytes, at_ns: int = 0) -> Seen:
    return Seen(frame, CURL, OUT if interface is ETH0 else HOST, interface, START_NS + at_ns)


DATA = tcp(1, 2, "PA", 100, id=7)
OTHER_HOP = tcp(1, 2, "PA", 100, id=7, ttl=63)


@pytest.mark.parametrize("copy", [DATA, OTHER_HOP], ids=["bridged", "routed"])
@pytest.mark.parametrize("apart", [False, True], ids=["in one block", "in two"])
def test_a_packet_on_three_interfaces_counts_once(copy: bytes, *, apart: bool) -> None:
    first, second, third = on(ETH0, DATA), on(BRIDGE, copy, 1000), on(VETH, copy, 2000)
    blocks = ([first], [second, third]) if apart else ([first, second, third],)
    assert counted(*blocks) == Captured(len(DATA), 1, 2 * len(DATA), 2, 0)
    assert counted(*blocks, repeats=False).packets == 3


def test_what_is_sent_again_counts_again_and_its_copies_do_not() -> None:
    blocks = [[on(ETH0, DATA, at), on(BRIDGE, DATA, at + 1)] for at in range(0, 50, 10)]
    assert counted(*blocks)[:4] == (5 * len(DATA), 5, 5 * len(DATA), 5)
    flat = [one for pair in blocks for one in pair]
    assert counted(flat)[:4] == (5 * len(DATA), 5, 5 * len(DATA), 5)
    late = [*(pair[0] for pair in blocks), *(pair[1] for pair in blocks)]
    assert counted(late)[:4] == (5 * len(DATA), 5, 5 * len(DATA), 5)


def test_a_copy_that_was_lost_is_made_up_for_by_no_other() -> None:
    assert counted([on(ETH0, DATA), on(ETH0, DATA, 5), on(BRIDGE, DATA, 6)])[1::2] == (2, 1)
    assert counted([on(BRIDGE, DATA, 0), on(ETH0, DATA, 5), on(ETH0, DATA, 6)])[1::2] == (2, 1)


@pytest.mark.parametrize(
    "other",
    [tcp(1, 2, "PA", 100, id=8), tcp(1, 2, "PA", 100, id=7, seq=2), tcp(1, 3, "PA", 100, id=7), udp(1, 2, 100, id=7)],
    ids=["id", "seq", "port", "protocol"],
)
def test_other_packets_are_no_copies(other: bytes) -> None:
    assert counted([on(ETH0, DATA), on(BRIDGE, other, 1)]).duplicate_packets == 0


def test_equal_packets_long_after_are_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pktproc.bandwidth.repeats.MAX_REMEMBERED", 64)
    for apart_ns, copies in ((900_000_000, 1), (60_000_000_000, 0)):
        many = [on(ETH0, udp(5, 6, 10, id=number), apart_ns // 2) for number in range(30)]
        assert counted([on(ETH0, DATA)], many, [on(BRIDGE, DATA, apart_ns)]).duplicate_packets == copies


def test_connections_are_counted_on_one_interface() -> None:
    book = Ledger(["name"])
    syn, answer = tcp(40000, 80, "S"), tcp(80, 40000, "SA", local="10.77.0.2")
    seen = [
        Seen(syn, CURL, OUT, ETH0, START_NS),
        Seen(syn, CURL, OUT, BRIDGE, START_NS + 1),
        Seen(answer, (None, CURL[0]), HOST, BRIDGE, START_NS + 2),
        Seen(answer, (None, CURL[0]), HOST, ETH0, START_NS + 3),
    ]
    book.add(block(seen))
    (row,) = book.view().rows
    assert (row.connections, row.total.sent_packets, row.total.received_packets) == (1, 1, 1)


def test_a_copy_on_an_interface_that_nothing_was_seen_on_before_is_one_where_there_may_be_several() -> None:
    """As of the first packets of a capture on all interfaces: the blocks know only those that had packets."""
    book = Ledger(several_interfaces=True)
    for seen in ([on(ETH0, DATA)], [on(BRIDGE, DATA, 1000)]):
        book.add(block(seen, [ETH0]))
    assert book.captured == Captured(len(DATA), 1, len(DATA), 1, 0)
