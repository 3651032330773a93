"""Packets of a file, named by the record of the hosts that they ran between."""

from __future__ import annotations

import math

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP

from attribution.host import HOME, NS_PER_S
from attribution.recorded import Record, at, file_batch, names, process, replay, span, tcp, udp
from attribution.traffic import OURS, OURS6, THEIRS, THEIRS6, ends_of
from pktproc.attribution.history import Coverage
from pktproc.attribution.replay import ReplayAttributor
from pktproc.model import Match, Protocol

A, B, C = process("a", 10), process("b", 11), process("c", 12)
UDP_NUMBER = Protocol.UDP
CLIENT, SERVER = (OURS, 40000), (THEIRS, 80)


@pytest.fixture
def record() -> Record:
    record = Record()
    record.has(OURS, OURS6)
    return record


@pytest.mark.parametrize(("ours", "theirs"), [(OURS, THEIRS), (OURS6, THEIRS6)])
def test_the_recorded_end_is_named_both_ways(record: Record, ours: str, theirs: str) -> None:
    record.saw(A, span(1, 5), (ours, 40000), (theirs, 80))
    there, back = tcp((ours, 40000), (theirs, 80)), tcp((theirs, 80), (ours, 40000))
    (sent, received) = replay(record, [(2, there), (2, back)])
    assert names([sent, received]) == [("a", None), (None, "a")]
    assert sent[0] is not None
    assert (sent[0].match, sent[0].evidence, sent[0].final) == (Match.EXACT, "snapshot", True)


def test_tcp_and_udp_on_one_port_are_told_apart(record: Record) -> None:
    record.saw(A, span(1, 5), CLIENT, SERVER)
    record.saw(B, span(1, 5), CLIENT, SERVER, protocol=UDP_NUMBER)
    assert names(replay(record, [(2, tcp(CLIENT, SERVER)), (2, udp(CLIENT, SERVER))])) == [("a", None), ("b", None)]


def test_a_connection_is_named_from_its_syn_to_its_last_packets(record: Record) -> None:
    """The look before did not see it yet, the one after did not see it any more."""
    record.saw(A, span(2, 4, after=1, before=5), CLIENT, SERVER)
    packets = [
        (1.2, tcp(CLIENT, SERVER, "S")),
        (3, tcp(CLIENT, SERVER)),
        (4.9, tcp(SERVER, CLIENT, "FA")),
        (8, tcp(CLIENT, SERVER, "A")),
    ]
    assert names(replay(record, packets)) == [("a", None), ("a", None), (None, "a"), ("a", None)]


def test_before_a_look_that_did_not_find_it_nobody_is_named(record: Record) -> None:
    record.saw(A, span(2, 4, after=1, before=5), CLIENT, SERVER)
    assert names(replay(record, [(0.9, tcp(CLIENT, SERVER))])) == [("?no-socket", None)]


def test_ends_used_again_by_another_process_are_split_at_its_syn(record: Record) -> None:
    record.saw(A, span(2, 3, after=1, before=4), CLIENT, SERVER)
    record.saw(B, span(4, 5, after=3, before=6), CLIENT, SERVER)
    packets = [
        (1.5, tcp(CLIENT, SERVER, "S", 100)),
        (3.2, tcp(CLIENT, SERVER, "FA")),
        (3.3, tcp(SERVER, CLIENT, "FA")),
        (3.4, tcp(CLIENT, SERVER, "S", 900)),
        (3.5, tcp(SERVER, CLIENT, "SA")),
        (3.6, tcp(CLIENT, SERVER, "S", 900)),
        (4.5, tcp(CLIENT, SERVER, "A")),
    ]
    expected = [("a", None), ("a", None), (None, "a"), ("b", None), (None, "b"), ("b", None), ("b", None)]
    assert names(replay(record, packets)) == expected


def test_without_a_syn_the_time_between_two_owners_is_ambiguous(record: Record) -> None:
    record.saw(A, span(2, 3, after=1, before=4), CLIENT, SERVER)
    record.saw(B, span(4, 5, after=3, before=6), CLIENT, SERVER)
    packets = [(time, tcp(CLIENT, SERVER)) for time in (3, 3.5, 4)]
    answers = replay(record, packets)
    assert names(answers) == [("a", None), ("?ambiguous", None), ("b", None)]
    doubtful = answers[1][0]
    assert doubtful is not None
    assert {holder.name for holder in doubtful.holders} == {"a", "b"}


def test_a_connection_between_two_looks_is_not_taken_for_its_successor(record: Record) -> None:
    record.saw(B, span(4, 5, after=3, before=6), CLIENT, SERVER)
    packets = [(3.1, tcp(CLIENT, SERVER, "S", 1)), (3.2, tcp(CLIENT, SERVER, "FA")), (3.5, tcp(CLIENT, SERVER, "S", 2))]
    assert names(replay(record, packets)) == [("?no-socket", None), ("?no-socket", None), ("b", None)]


def test_a_syn_in_a_later_block_begins_a_new_owner_s_time(record: Record) -> None:
    record.saw(A, span(2, 3, after=1, before=4), CLIENT, SERVER)
    record.saw(B, span(4, 5, after=3, before=6), CLIENT, SERVER)
    attributor = ReplayAttributor([record])
    blocks = [
        [(2.5, tcp(CLIENT, SERVER))],
        [(3.4, tcp(CLIENT, SERVER, "S", 900)), (3.5, tcp(SERVER, CLIENT, "SA"))],
        [(3.6, tcp(CLIENT, SERVER))],
    ]
    answers = [names(ends_of(attributor.attribute(file_batch(block)))) for block in blocks]
    assert answers == [[("a", None)], [("b", None), (None, "b")], [("b", None)]]


def test_the_other_way_is_forgotten_at_a_syn_in_a_block_of_its_own(record: Record) -> None:
    record.saw(A, span(2, 3, after=1, before=3.3), CLIENT, SERVER)
    attributor = ReplayAttributor([record])
    blocks = [
        [(2.5, tcp(CLIENT, SERVER)), (2.6, tcp(SERVER, CLIENT))],
        [(50.0, tcp(CLIENT, SERVER, "S", 900))],
        [(50.1, tcp(SERVER, CLIENT, "SA"))],
    ]
    answers = [names(ends_of(attributor.attribute(file_batch(block)))) for block in blocks]
    assert answers == [[("a", None), (None, "a")], [("?no-socket", None)], [(None, "?no-socket")]]


def test_a_datagram_port_that_changes_hands_is_ambiguous_only_in_between(record: Record) -> None:
    record.saw(A, span(2, 3, after=1, before=3.3), ("0.0.0.0", 5000), protocol=UDP_NUMBER)
    record.saw(B, span(4, 5, after=3, before=6), ("0.0.0.0", 5000), protocol=UDP_NUMBER)
    packets = [(time, udp((OURS, 5000), SERVER)) for time in (2.5, 3.2, 3.5, 4.5)]
    assert [name for name, _ in names(replay(record, packets))] == ["a", "?ambiguous", "b", "b"]


def test_a_socket_of_which_only_the_end_was_heard_keeps_others_from_being_named(record: Record) -> None:
    record.saw(None, span(3.6, 3.6, after=3, before=3.6), (OURS, 5000), protocol=UDP_NUMBER)
    record.saw(B, span(4, 5, after=3, before=6), ("0.0.0.0", 5000), protocol=UDP_NUMBER)
    packets = [(time, udp((OURS, 5000), SERVER)) for time in (3.5, 3.8)]
    assert [name for name, _ in names(replay(record, packets))] == ["?ambiguous", "b"]


def test_where_ends_are_not_heard_datagrams_between_looks_are_unknown(record: Record) -> None:
    record.covered = [Coverage(at(0), at(100), "procfs", hears_ends=False, interval_ns=NS_PER_S)]
    record.saw(A, span(2, 3, after=1, before=4), ("0.0.0.0", 5000), protocol=UDP_NUMBER)
    packets = [(time, udp((OURS, 5000), SERVER)) for time in (1.5, 2.5, 3.5)]
    assert [name for name, _ in names(replay(record, packets))] == ["?not-covered", "a", "?not-covered"]


def test_outside_the_times_of_recording_nobody_is_named(record: Record) -> None:
    record.covered = [
        Coverage(at(10), at(20), "netlink", hears_ends=True, interval_ns=NS_PER_S),
        Coverage(at(50), at(60), "netlink", hears_ends=True, interval_ns=NS_PER_S),
    ]
    record.saw(A, span(10, 20), CLIENT, SERVER)
    packets = [(time, tcp(CLIENT, SERVER)) for time in (5, 8.5, 15, 21.5, 30, 55)]
    named = ["?not-covered", "a", "a", "a", "?not-covered", "?no-socket"]
    assert [name for name, _ in names(replay(record, packets))] == named


def test_strangers_are_forwarded_where_it_was_recorded_and_not_covered_elsewhere(record: Record) -> None:
    record.covered = [Coverage(at(10), at(20), "netlink", hears_ends=True, interval_ns=NS_PER_S)]
    packets = [(time, udp(("10.77.5.1", 1), ("10.77.6.1", 2))) for time in (15, 40)]
    assert names(replay(record, packets)) == [("?forwarded", "?forwarded"), ("?not-covered", "?not-covered")]


def test_what_is_not_ip_has_that_reason(record: Record) -> None:
    assert names(replay(record, [(1, ARP())])) == [("?not-ip", "?not-ip")]


class TestListener:
    """A connection that no look found came in through a listener."""

    LISTENER = ("0.0.0.0", 80)

    def test_names_the_server_of_a_short_connection(self, record: Record) -> None:
        record.saw(A, span(0, 100), self.LISTENER)
        record.saw(A, span(50, 60, after=49, before=61), (OURS, 80), (THEIRS, 7))
        ((source, destination),) = replay(record, [(5.5, tcp((THEIRS, 5), (OURS, 80), "S"))])
        assert source is None
        assert destination is not None
        assert (destination.process, destination.match) == (A, Match.LISTENER)

    def test_names_the_server_of_a_connection_of_which_only_the_end_was_heard(self, record: Record) -> None:
        record.saw(A, span(0, 100), self.LISTENER)
        record.saw(A, span(50, 60, after=49, before=61), (OURS, 80), (THEIRS, 7))
        record.saw(None, span(5.7, 5.7, after=5, before=5.7), (OURS, 80), (THEIRS, 5))
        packets = [(5.5, tcp((THEIRS, 5), (OURS, 80), "S")), (5.6, tcp((OURS, 80), (THEIRS, 5), "FA"))]
        assert names(replay(record, packets)) == [(None, "a"), ("a", None)]

    def test_is_not_named_if_it_was_never_seen_to_keep_a_connection(self, record: Record) -> None:
        record.saw(A, span(0, 100), self.LISTENER)
        assert names(replay(record, [(5.5, tcp((THEIRS, 5), (OURS, 80), "S"))])) == [(None, "?closed")]

    def test_is_not_named_if_others_serve_the_port(self, record: Record) -> None:
        record.saw(A, span(0, 100), self.LISTENER)
        record.saw(B, span(50, 60, after=49, before=61), (OURS, 80), (THEIRS, 7))
        ((_, destination),) = replay(record, [(5.5, tcp((THEIRS, 5), (OURS, 80), "S"))])
        assert destination is not None
        assert (destination.reason, destination.holders) == ("closed", (A,))

    def test_is_never_the_one_who_sent_the_syn(self, record: Record) -> None:
        record.saw(A, span(0, 100), self.LISTENER)
        packets = [(5.5, tcp((OURS, 80), (THEIRS, 5), "S")), (5.6, tcp((THEIRS, 5), (OURS, 80), "SA"))]
        assert names(replay(record, packets)) == [("?no-socket", None), (None, "?no-socket")]


def test_both_ends_between_two_recorded_hosts_are_named(record: Record) -> None:
    other = Record(name="other")
    other.has(THEIRS)
    record.saw(A, span(1, 5), CLIENT, SERVER)
    other.saw(B, span(1, 5), SERVER, CLIENT)
    answers = replay([record, other], [(2, tcp(CLIENT, SERVER)), (2, tcp(SERVER, CLIENT))])
    assert names(answers) == [("a", "b"), ("b", "a")]


def test_an_address_belongs_to_the_host_that_had_it_then(record: Record) -> None:
    moved = "10.77.9.9"
    other = Record(name="other")
    record.has(moved, when=span(1, 10, before=11))
    other.has(moved, when=span(20, 30, after=19))
    record.saw(A, span(0, 100), (moved, 53), protocol=UDP_NUMBER)
    other.saw(B, span(0, 100), (moved, 53), protocol=UDP_NUMBER)
    packets = [(time, udp((THEIRS, 9), (moved, 53))) for time in (5, 15, 25)]
    assert [name for _, name in names(replay([record, other], packets))] == ["a", "?forwarded", "b"]


def test_an_address_of_two_namespaces_is_ambiguous_unless_a_connection_tells(record: Record) -> None:
    shared = "172.17.0.1"
    record.has(shared)
    record.has(shared, netns=HOME + 1)
    record.saw(A, span(0, 100), (shared, 53), protocol=UDP_NUMBER)
    record.saw(B, span(0, 100), (shared, 40000), SERVER, netns=HOME + 1)
    packets = [(5, udp((THEIRS, 9), (shared, 53))), (5, tcp((shared, 40000), SERVER))]
    assert names(replay(record, packets)) == [(None, "?ambiguous"), ("b", None)]


def test_loopback_in_two_namespaces_is_told_apart_by_both_ends(record: Record) -> None:
    record.has("10.77.8.1", netns=HOME + 1)
    here, there = ("127.0.0.1", 53), ("127.0.0.1", 40000)
    record.saw(A, span(0, 100), here, protocol=UDP_NUMBER)
    record.saw(B, span(0, 100), here, protocol=UDP_NUMBER, netns=HOME + 1)
    record.saw(C, span(0, 100), there, here, protocol=UDP_NUMBER, netns=HOME + 1)
    assert names(replay(record, [(5, udp(there, here)), (5, udp(here, there))])) == [("c", "b"), ("b", "c")]


def test_a_socket_that_was_passed_on_is_shared_while_it_may_be_either_s(record: Record) -> None:
    """A parent accepts, a child serves: one look sees both, the next the child alone."""
    holders = [(A, span(2, 2, after=1, before=3)), (B, span(2, 9, after=1))]
    record.saw(holders, span(2, 9, after=1), (OURS, 80), (THEIRS, 5))
    answers = replay(record, [(time, tcp((THEIRS, 5), (OURS, 80))) for time in (2.5, 5)])
    assert names(answers) == [(None, "a"), (None, "b")]
    shared = answers[0][1]
    assert shared is not None
    assert (shared.match, set(shared.holders)) == (Match.SHARED, {A, B})


def test_a_socket_that_may_have_been_either_s_is_ambiguous(record: Record) -> None:
    holders = [(A, span(2, 3, after=1, before=4)), (B, span(4, 9, after=3))]
    record.saw(holders, span(2, 9, after=1), (OURS, 80), (THEIRS, 5))
    answers = replay(record, [(time, tcp((THEIRS, 5), (OURS, 80))) for time in (2.5, 3.5, 5)])
    assert [name for _, name in names(answers)] == ["a", "?ambiguous", "b"]


def test_the_skew_of_the_capture_s_clock_is_taken_off(record: Record) -> None:
    record.saw(A, span(101, 105, after=100, before=106), CLIENT, SERVER)
    packets = [(3, tcp(CLIENT, SERVER))]
    assert names(replay(record, packets)) == [("?no-socket", None)]
    assert names(replay(record, packets, skew=100)) == [("a", None)]


def test_a_skew_that_all_connections_share_is_noticed(record: Record) -> None:
    """The capture's clock is 100.4 s behind; looks were taken once a second."""
    packets = []
    for number in range(8):
        client = (OURS, 40000 + number)
        begin = 10 + number * 0.7
        look = math.ceil(begin + 100.4)
        record.saw(A, span(look, look + 5, after=look - 1, before=look + 6), client, SERVER)
        packets.append((begin, tcp(client, SERVER, "S", number)))
    attributor = ReplayAttributor([record])
    attributor.attribute(file_batch(packets))
    suggested = attributor.skew.suggestion_ns()
    assert suggested is not None
    assert abs(suggested - 100.4 * NS_PER_S) < 0.5 * NS_PER_S
    again = ReplayAttributor([record], skew_ns=suggested)
    assert {name for name, _ in names(ends_of(again.attribute(file_batch(packets))))} == {"a"}
    assert again.skew.suggestion_ns() is None


def test_without_connections_no_skew_is_suggested(record: Record) -> None:
    attributor = ReplayAttributor([record])
    assert attributor.skew.suggestion_ns() is None
    attributor.attribute(file_batch([(1, udp(CLIENT, SERVER))]))
    assert attributor.skew.suggestion_ns() is None


def test_an_icmp_error_belongs_to_who_sent_the_packet_in_it(record: Record) -> None:
    record.saw(A, span(0, 100), (OURS, 5000), protocol=UDP_NUMBER)
    error = IP(src=THEIRS, dst=OURS) / ICMP(type=3, code=3) / udp((OURS, 5000), SERVER)
    assert names(replay(record, [(5, error)])) == [(None, "a")]


def test_echoes_of_ping_are_its_own_by_their_id(record: Record) -> None:
    ping = process("ping", 4711)
    record.saw(ping, span(0, 100), ("0.0.0.0", 1), protocol=Protocol.ICMP, raw=True)
    echoes = [(5, IP(src=OURS, dst=THEIRS) / ICMP(type=8, id=number)) for number in (4711, 99)]
    assert names(replay(record, echoes)) == [("ping", None), ("?ambiguous", None)]


@pytest.mark.parametrize("hears", [True, False])
def test_neighbour_discovery_is_the_kernel_s(record: Record, *, hears: bool) -> None:
    record.covered = [Coverage(at(0), at(100), "netlink", hears_ends=hears, interval_ns=NS_PER_S)]
    asked = IPv6(src=OURS6, dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt=THEIRS6)
    assert names(replay(record, [(5, asked)])) == [("?kernel", None)]


def test_a_reset_from_a_closed_port_is_the_kernel_s(record: Record) -> None:
    assert names(replay(record, [(5, tcp((OURS, 81), (THEIRS, 5), "RA"))])) == [("?kernel", None)]


def test_packets_out_of_order_in_the_file_are_named_at_their_own_time(record: Record) -> None:
    record.saw(A, span(2, 3, after=1, before=3.3), ("0.0.0.0", 5000), protocol=UDP_NUMBER)
    record.saw(B, span(4, 5, after=3.3, before=6), ("0.0.0.0", 5000), protocol=UDP_NUMBER)
    packets = [(time, udp((OURS, 5000), SERVER)) for time in (4.5, 2.5, 5.5, 2.1)]
    assert [name for name, _ in names(replay(record, packets))] == ["b", "a", "b", "a"]


def test_an_empty_block_has_no_answers(record: Record) -> None:
    assert replay(record, []) == []
