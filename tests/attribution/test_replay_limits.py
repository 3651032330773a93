"""Packets of a file at the limits of what was recorded: before, between and behind, and where holders came and went."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP

from attribution.host import HOME, NS_PER_S
from attribution.recorded import Record, at, file_batch, name_of, names, process, replay, span, tcp, udp
from attribution.traffic import OURS, THEIRS, ends_of
from pktproc.attribution import replay as replaying
from pktproc.attribution.history import Coverage
from pktproc.attribution.replay import ReplayAttributor
from pktproc.attribution.timeline import AFTERLIFE_NS
from pktproc.model import Match, Protocol

A, B, C = process("a", 10), process("b", 11), process("c", 12)
UDP_NUMBER = Protocol.UDP
CLIENT, SERVER = (OURS, 40000), (THEIRS, 80)
ANY = ("0.0.0.0", 5000)
AFTERLIFE_S = AFTERLIFE_NS / NS_PER_S


@pytest.fixture
def record() -> Record:
    record = Record()
    record.has(OURS)
    return record


def covered(*times: tuple[float, float], hears: bool = True, interval_ns: int = NS_PER_S) -> list[Coverage]:
    return [Coverage(at(first), at(last), "netlink", hears, interval_ns) for first, last in times]


def senders(record: Record, *times: float, port: int = 5000) -> list[str | None]:
    """Return who sent datagrams from a port at some times, by name or reason."""
    packets = [(time, udp((OURS, port), SERVER)) for time in times]
    return [name_of(source) for source, _ in replay(record, packets)]


class TestBetweenRecordings:
    def test_what_the_next_recording_did_not_find_is_not_named_within_it(self, record: Record) -> None:
        record.covered = covered((0, 10), (11, 20))
        record.saw(A, span(0, 10), ANY, protocol=UDP_NUMBER)
        assert senders(record, 10.5, 11.5) == ["a", "?no-socket"]

    def test_what_the_recording_before_did_not_find_is_not_named_within_it(self, record: Record) -> None:
        record.covered = covered((0, 10), (11, 20))
        record.saw(A, span(11, 20), ANY, protocol=UDP_NUMBER)
        assert senders(record, 9.5, 10.5) == ["?no-socket", "a"]

    def test_the_time_without_looks_may_have_been_of_either_owner(self, record: Record) -> None:
        record.covered = covered((0, 10), (11, 20))
        record.saw(A, span(0, 10), ANY, protocol=UDP_NUMBER)
        record.saw(B, span(11, 20), ANY, protocol=UDP_NUMBER)
        assert senders(record, 9.9, 10.5, 11.1) == ["a", "?ambiguous", "b"]

    def test_a_connection_of_an_earlier_recording_is_not_named_in_a_later_one(self, record: Record) -> None:
        record.covered = covered((0, 10), (11, 20))
        record.saw(A, span(0, 10), CLIENT, SERVER)
        packets = [(time, tcp(CLIENT, SERVER)) for time in (10.5, 11.5)]
        assert names(replay(record, packets)) == [("a", None), ("?no-socket", None)]

    def test_a_holder_of_an_earlier_recording_is_not_named_in_a_later_one(self, record: Record) -> None:
        record.covered = covered((0, 10), (11, 20))
        record.saw([(A, span(0, 10)), (B, span(11, 20))], span(0, 20), ANY, protocol=UDP_NUMBER)
        assert senders(record, 9.5, 11.5) == ["a", "b"]

    def test_an_address_of_an_earlier_recording_is_not_had_in_a_later_one(self, record: Record) -> None:
        moved = "10.77.9.9"
        record.covered = covered((0, 10), (11, 20))
        record.has(moved, when=span(0, 10))
        record.saw(A, span(0, 20), ("0.0.0.0", 53), protocol=UDP_NUMBER)
        packets = [(time, udp((THEIRS, 9), (moved, 53))) for time in (10.5, 11.5)]
        assert names(replay(record, packets)) == [(None, "a"), ("?forwarded", "?forwarded")]

    def test_times_of_deafness_do_not_divide_a_recording(self, record: Record) -> None:
        record.covered = [*covered((0, 5)), *covered((5, 6), hears=False), *covered((6, 20))]
        record.covered = [one._replace(last_ns=one.last_ns - 1) for one in record.covered]
        record.saw(A, span(1, 4, after=0, before=4.9), CLIENT, SERVER)
        packets = [(time, tcp(CLIENT, SERVER)) for time in (4.95, 5.5, 7)]
        assert names(replay(record, packets)) == [("a", None)] * 3

    def test_beyond_the_recording_nothing_is_said_to_be_missing(self, record: Record) -> None:
        record.covered = covered((10, 20))
        assert senders(record, 9, 15, 21) == ["?not-covered", "?no-socket", "?not-covered"]

    def test_beyond_the_recording_nothing_is_said_to_be_forwarded(self, record: Record) -> None:
        record.covered = covered((10, 20))
        packets = [(time, udp(("10.77.5.1", 1), ("10.77.6.1", 2))) for time in (9, 15, 21)]
        reasons = [source for source, _ in names(replay(record, packets))]
        assert reasons == ["?not-covered", "?forwarded", "?not-covered"]

    def test_nothing_is_known_before_the_time_from_which_evidence_was_dropped(self, record: Record) -> None:
        (kept,) = covered((10, 20))
        record.covered = [kept._replace(is_cut=True)]
        record.saw(A, span(1, 20), ANY, protocol=UDP_NUMBER)
        assert senders(record, 9.5, 10, 20.5) == ["?not-covered", "a", "a"]

    def test_a_single_look_counts_for_the_tolerance(self, record: Record) -> None:
        record.covered = covered((10, 10), hears=False, interval_ns=0)
        record.saw(A, span(10, 10), ANY, protocol=UDP_NUMBER)
        assert senders(record, 7.9, 8.5, 11.5, 12.1) == ["?not-covered", "a", "a", "?not-covered"]


class TestHolders:
    def test_who_was_seen_to_let_go_is_only_a_candidate_afterwards(self, record: Record) -> None:
        record.saw([(A, span(2, 4, after=1, before=5))], span(2, 9, after=1, before=9.5), ANY, protocol=UDP_NUMBER)
        ((source, _),) = replay(record, [(7, udp((OURS, 5000), SERVER))])
        assert source is not None
        assert (name_of(source), source.holders) == ("?closed", (A,))

    def test_who_was_not_there_yet_is_only_a_candidate_before(self, record: Record) -> None:
        record.saw([(A, span(6, 9, after=5))], span(2, 9, after=1), ANY, protocol=UDP_NUMBER)
        ((source, _),) = replay(record, [(3, udp((OURS, 5000), SERVER))])
        assert source is not None
        assert (name_of(source), source.holders) == ("?closed", (A,))

    def test_who_was_never_seen_to_let_go_is_named_to_the_end(self, record: Record) -> None:
        """The holders were last looked for at 4, the socket was there until 20."""
        record.saw([(A, span(0, 4))], span(0, 20, before=20.5), CLIENT, SERVER)
        assert names(replay(record, [(time, tcp(CLIENT, SERVER)) for time in (15, 21)])) == [("a", None)] * 2

    def test_who_went_with_the_socket_is_named_for_its_last_packets(self, record: Record) -> None:
        """The process was missed a moment before the end of its socket was heard."""
        record.saw([(A, span(2, 3, after=1, before=4.01))], span(2, 4, after=1, before=4.02), CLIENT, SERVER)
        assert names(replay(record, [(time, tcp(CLIENT, SERVER)) for time in (4.015, 5)])) == [("a", None)] * 2

    def test_nobody_known_to_have_held_a_socket_is_closed(self, record: Record) -> None:
        record.saw(None, span(2, 9, after=1), ANY, protocol=UDP_NUMBER)
        assert senders(record, 5) == ["?closed"]


class TestEras:
    def test_a_stray_syn_does_not_take_the_name_of_a_connection(self, record: Record) -> None:
        record.saw(A, span(2, 9, after=1, before=10), CLIENT, SERVER)
        packets = [
            (1.5, tcp(CLIENT, SERVER, "S", 100)),
            (5.0, tcp(CLIENT, SERVER, "S", 999)),
            (5.1, tcp(SERVER, CLIENT, "RA")),
            (6.0, tcp(CLIENT, SERVER)),
        ]
        assert names(replay(record, packets)) == [("a", None), ("a", None), (None, "a"), ("a", None)]

    def test_a_syn_at_the_time_when_a_socket_was_last_seen_begins_another_connection(self, record: Record) -> None:
        record.saw(A, span(2, 3, after=1, before=4), CLIENT, SERVER)
        packets = [(1.5, tcp(CLIENT, SERVER, "S", 1)), (3, tcp(CLIENT, SERVER, "S", 2)), (3.1, tcp(CLIENT, SERVER))]
        assert [name for name, _ in names(replay(record, packets))] == ["a", "?no-socket", "?no-socket"]

    def test_what_ended_before_a_syn_is_not_of_its_connection(self, record: Record) -> None:
        record.saw(A, span(5, 5, after=4, before=5.5), CLIENT, SERVER)
        packets = [(5.01, tcp(CLIENT, SERVER, "S", 1)), (5.1, tcp(CLIENT, SERVER))]
        assert [name for name, _ in names(replay(record, packets))] == ["?no-socket", "?no-socket"]

    def test_the_last_packets_of_a_connection_keep_its_name_so_long(self, record: Record) -> None:
        record.saw(A, span(2, 3, after=1, before=4), CLIENT, SERVER)
        packets = [(4 + AFTERLIFE_S + more, tcp(CLIENT, SERVER)) for more in (-0.1, 0.1)]
        assert 60 < AFTERLIFE_S < 120
        assert [name for name, _ in names(replay(record, packets))] == ["a", "?no-socket"]

    def test_of_two_that_ended_the_last_packets_are_the_later_one_s(self, record: Record) -> None:
        record.saw(B, span(4, 5, after=3, before=6), CLIENT, SERVER)
        record.saw(A, span(2, 3, after=1, before=4), CLIENT, SERVER)
        assert names(replay(record, [(8, tcp(CLIENT, SERVER))])) == [("b", None)]

    def test_of_two_in_one_era_the_later_one_is_meant_once_it_is_over(self, record: Record) -> None:
        """The end of the first was heard late, after the second one's SYN; else that one's SYN may be yet to come."""
        record.saw(None, span(3.45, 3.45, after=3, before=3.45), CLIENT, SERVER)
        record.saw(B, span(4, 5, after=3, before=6), CLIENT, SERVER)
        packets = [(3.42, tcp(CLIENT, SERVER, "S", 7)), (3.43, tcp(CLIENT, SERVER)), (3.46, tcp(CLIENT, SERVER))]
        assert [name for name, _ in names(replay(record, packets))] == ["?ambiguous", "?ambiguous", "b"]
        packets.append((7, tcp(CLIENT, SERVER, "S", 8)))
        assert [name for name, _ in names(replay(record, packets))] == ["b", "b", "b", "?no-socket"]

    def test_a_connection_is_not_taken_for_one_whose_syn_is_yet_to_be_read(self, record: Record) -> None:
        record.saw(A, span(2, 2, after=1, before=2.7), CLIENT, SERVER)
        record.saw(B, span(3, 5, after=2, before=6), CLIENT, SERVER)
        attributor = ReplayAttributor([record])
        blocks = [
            [(1.5, tcp(CLIENT, SERVER, "S", 1)), (2.2, tcp(CLIENT, SERVER))],
            [(2.75, tcp(CLIENT, SERVER, "S", 2)), (2.8, tcp(CLIENT, SERVER))],
        ]
        named = [names(ends_of(attributor.attribute(file_batch(block)))) for block in blocks]
        assert named == [[("a", None)] * 2, [("b", None)] * 2]

    def test_where_ends_are_not_heard_an_unread_syn_leaves_it_open(self, record: Record) -> None:
        """Nothing tells of the first connection but its packets; what a look found is of the second one."""
        record.covered = covered((0, 100), hears=False)
        record.saw(B, span(3, 5, after=2, before=6), CLIENT, SERVER)
        attributor = ReplayAttributor([record])
        blocks = [
            [(2.2, tcp(CLIENT, SERVER, "S", 1)), (2.3, tcp(CLIENT, SERVER))],
            [(2.7, tcp(CLIENT, SERVER, "S", 2)), (2.8, tcp(CLIENT, SERVER)), (3.2, tcp(CLIENT, SERVER))],
        ]
        named = [names(ends_of(attributor.attribute(file_batch(block)))) for block in blocks]
        assert named == [[("?ambiguous", None)] * 2, [("b", None)] * 3]


class TestDatagrams:
    def test_a_certain_wildcard_and_a_possible_specific_socket_are_ambiguous(self, record: Record) -> None:
        record.saw(A, span(0, 100), ANY, protocol=UDP_NUMBER)
        record.saw(B, span(4, 5, after=3, before=6), (OURS, 5000), protocol=UDP_NUMBER)
        packets = [(time, udp(SERVER, (OURS, 5000))) for time in (2, 3.5, 4.5, 7)]
        assert [name for _, name in names(replay(record, packets))] == ["a", "?ambiguous", "b", "a"]


class TestMemory:
    def test_what_is_forgotten_is_found_again(self, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replaying, "MAX_KNOWN_FLOWS", 2)
        for port in range(5):
            record.saw(process(f"p{port}", port), span(0, 100), (OURS, 40000 + port), SERVER)
        attributor = ReplayAttributor([record])
        packets = [(5, tcp((OURS, 40000 + port), SERVER)) for port in range(5)]
        for _ in range(2):
            found = names(ends_of(attributor.attribute(file_batch(packets))))
            assert found == [(f"p{port}", None) for port in range(5)]
            assert len(attributor._flows) == 2  # noqa: SLF001 - the bound is the point

    def test_a_later_block_s_earlier_packets_are_named_at_their_own_time(self, record: Record) -> None:
        record.saw(A, span(2, 3, after=1, before=4), ANY, protocol=UDP_NUMBER)
        record.saw(B, span(4, 5, after=4, before=6), ANY, protocol=UDP_NUMBER)
        attributor = ReplayAttributor([record])
        blocks = [[(4.5, udp((OURS, 5000), SERVER))], [(2.5, udp((OURS, 5000), SERVER))]]
        assert [names(ends_of(attributor.attribute(file_batch(block)))) for block in blocks] == [
            [("b", None)],
            [("a", None)],
        ]

    def test_the_way_back_is_named_at_its_own_time(self, record: Record) -> None:
        record.saw(A, span(2, 3, after=1, before=3.3), CLIENT, SERVER)
        record.saw(B, span(4, 5, after=3.3, before=6), CLIENT, SERVER)
        attributor = ReplayAttributor([record])
        blocks = [[(2.5, tcp(CLIENT, SERVER))], [(4.5, tcp(SERVER, CLIENT))], [(2.6, tcp(SERVER, CLIENT))]]
        assert [names(ends_of(attributor.attribute(file_batch(block)))) for block in blocks] == [
            [("a", None)],
            [(None, "b")],
            [(None, "a")],
        ]


class TestResets:
    def test_only_flows_of_nothing_but_resets_are_the_kernel_s(self, record: Record) -> None:
        closed, other = (OURS, 81), (OURS, 82)
        packets = [(5, tcp(closed, SERVER, "RA")), (5, tcp(other, SERVER, "RA")), (5.1, tcp(other, SERVER, "A"))]
        assert [source for source, _ in names(replay(record, packets))] == ["?kernel", "?no-socket", "?no-socket"]

    def test_a_reset_of_a_named_connection_keeps_its_name(self, record: Record) -> None:
        record.saw(A, span(0, 100), CLIENT, SERVER)
        assert names(replay(record, [(5, tcp(CLIENT, SERVER, "R"))])) == [("a", None)]


class TestPlaces:
    """Addresses that several namespaces have."""

    SHARED = "172.17.0.1"

    def test_a_connection_tells_the_namespace_if_all_others_are_known_to_lack_one(self, record: Record) -> None:
        record.has(self.SHARED)
        record.has(self.SHARED, netns=HOME + 1)
        record.saw(A, span(0, 100), (self.SHARED, 40000), SERVER)
        record.covered = covered((0, 100), hears=False)
        packets = [(5, tcp((self.SHARED, 40000), SERVER))]
        assert names(replay(record, packets)) == [("?ambiguous", None)]

    def test_equal_connections_in_two_namespaces_are_ambiguous(self, record: Record) -> None:
        record.has(self.SHARED)
        record.has(self.SHARED, netns=HOME + 1)
        for netns, who in ((HOME, A), (HOME + 1, B)):
            record.saw(who, span(0, 100), (self.SHARED, 40000), SERVER, netns=netns)
        assert names(replay(record, [(5, tcp((self.SHARED, 40000), SERVER))])) == [("?ambiguous", None)]

    def test_loopback_of_two_namespaces_that_both_fit_is_ambiguous(self, record: Record) -> None:
        record.has("10.77.8.1", netns=HOME + 1)
        here, there = ("127.0.0.1", 53), ("127.0.0.1", 40000)
        for netns, who in ((HOME, A), (HOME + 1, B)):
            record.saw(who, span(0, 100), here, protocol=UDP_NUMBER, netns=netns)
            record.saw(who, span(0, 100), there, here, protocol=UDP_NUMBER, netns=netns)
        assert names(replay(record, [(5, udp(there, here))])) == [("?ambiguous", "?ambiguous")]

    @pytest.mark.parametrize("hears", [True, False])
    def test_many_namespaces_are_told_apart_on_loopback(self, record: Record, *, hears: bool) -> None:
        record.covered = covered((0, 100), hears=hears)
        for number in range(40):
            record.has(f"10.77.9.{number}", netns=HOME + number)
        here, there = ("127.0.0.1", 53), ("127.0.0.1", 40000)
        record.saw(A, span(0, 100), here, protocol=UDP_NUMBER)
        record.saw(B, span(0, 100), here, protocol=UDP_NUMBER, netns=HOME + 30)
        record.saw(C, span(0, 100), there, here, protocol=UDP_NUMBER, netns=HOME + 30)
        expected = ("c", "b") if hears else ("?ambiguous", "?ambiguous")
        assert names(replay(record, [(5, udp(there, here))])) == [expected]


def test_echoes_in_a_recording_that_does_not_hear_ends_are_still_ping_s(record: Record) -> None:
    record.covered = covered((0, 100), hears=False)
    record.saw(process("ping", 4711), span(0, 100), ("0.0.0.0", 1), protocol=Protocol.ICMP, raw=True)
    ((source, _),) = replay(record, [(5, IP(src=OURS, dst=THEIRS) / ICMP(type=8, id=4711))])
    assert source is not None
    assert (name_of(source), source.match) == ("ping", Match.BOUND)
