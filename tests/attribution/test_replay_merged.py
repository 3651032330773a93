"""Two records of one host put to the join together: they are one host, not two that contradict each other."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from attribution.host import HOME, NS_PER_S
from attribution.recorded import Record, at, file_batch, names, process, replay, span, tcp, udp
from attribution.traffic import OURS, THEIRS, addresses, ends_of
from pktproc.attribution.history import Coverage
from pktproc.attribution.merged import MergedHistory, together
from pktproc.attribution.replay import ReplayAttributor
from pktproc.model import Protocol, pack_address
from pktproc.snapshots.history import StoreHistory
from snapshots.bench import BEGIN_NS, Bench
from snapshots.bench import OURS as BENCH

A, B = process("a", 10), process("b", 11)
UDP_NUMBER = Protocol.UDP
CLIENT, SERVER = (OURS, 40000), (THEIRS, 80)
ANY = ("0.0.0.0", 5000)


@pytest.fixture
def records() -> list[Record]:
    records = [Record(boots=frozenset({"boot"})), Record(boots=frozenset({"boot", "next boot"}))]
    for record in records:
        record.has(OURS)
    return records


def test_two_records_of_a_host_agree(records: list[Record]) -> None:
    for record, who in zip(records, (A, replace(A, cmdline=("a",))), strict=True):
        record.saw(who, span(1, 9), CLIENT, SERVER)
        record.saw(who, span(1, 9), ANY, protocol=UDP_NUMBER)
    assert names(replay(records, [(5, tcp(CLIENT, SERVER)), (5, udp((OURS, 5000), SERVER))])) == [("a", None)] * 2


def test_records_of_different_boots_are_of_different_hosts(records: list[Record]) -> None:
    records[0].boots = frozenset({"other"})
    for record, who in zip(records, (A, B), strict=True):
        record.saw(who, span(1, 9), CLIENT, SERVER)
    assert names(replay(records, [(5, tcp(CLIENT, SERVER))])) == [("?ambiguous", None)]


def test_what_one_record_lacks_the_other_one_has(records: list[Record]) -> None:
    records[0].saw(A, span(1, 9), CLIENT, SERVER)
    records[1].saw(B, span(1, 9), ANY, protocol=UDP_NUMBER)
    assert names(replay(records, [(5, tcp(CLIENT, SERVER)), (5, udp((OURS, 5000), SERVER))])) == [
        ("a", None),
        ("b", None),
    ]


def test_different_sockets_of_two_records_stay_apart(records: list[Record]) -> None:
    records[0].saw(A, span(1, 9), ANY, protocol=UDP_NUMBER)
    records[1].saw(None, span(1, 9), ("0.0.0.0", 1), protocol=UDP_NUMBER)  # so that cookies differ
    records[1].saw(B, span(1, 9), ANY, protocol=UDP_NUMBER)
    assert names(replay(records, [(5, udp((OURS, 5000), SERVER))])) == [("?ambiguous", None)]


def test_the_limits_of_a_socket_are_the_narrowest_of_both(records: list[Record]) -> None:
    records[0].saw(A, span(2, 4, after=1, before=6), ANY, protocol=UDP_NUMBER)
    records[1].saw(A, span(3, 5, after=1.5), ANY, protocol=UDP_NUMBER)
    packets = [(time, udp((OURS, 5000), SERVER)) for time in (1.2, 1.7, 4.5, 5.5, 6.5)]
    named = [name for name, _ in names(replay(records, packets))]
    assert named == ["?no-socket", "a", "a", "a", "?no-socket"]


def test_one_record_heard_the_end_of_what_the_other_one_saw(records: list[Record]) -> None:
    records[0].covered = [Coverage(at(0), at(5), "netlink", hears_ends=True, interval_ns=NS_PER_S)]
    records[0].saw(A, span(2, 5, after=1), ANY, protocol=UDP_NUMBER)
    records[1].saw(None, span(5.5, 5.5, after=1, before=5.5), ANY, protocol=UDP_NUMBER)
    packets = [(time, udp((OURS, 5000), SERVER)) for time in (4, 5.2, 5.8)]
    assert [name for name, _ in names(replay(records, packets))] == ["a", "a", "?no-socket"]


def test_a_cookie_that_is_used_again_after_a_boot_is_another_socket(records: list[Record]) -> None:
    records[0].saw(A, span(2, 4, after=1, before=5), ANY, protocol=UDP_NUMBER)
    records[1].saw(A, span(50, 60, after=49), ANY, protocol=UDP_NUMBER)
    assert names(replay(records, [(30, udp((OURS, 5000), SERVER))])) == [("?no-socket", None)]


def test_the_times_of_both_are_covered_and_ends_are_heard_if_one_hears_them() -> None:
    one, other = (Record(boots=frozenset({"boot"})) for _ in range(2))
    one.covered = [Coverage(at(0), at(10), "netlink", True, NS_PER_S), Coverage(at(30), at(40), "netlink", True, 0)]
    other.covered = [Coverage(at(5), at(20), "procfs", False, NS_PER_S, is_cut=True)]
    (merged,) = together([one, other])
    assert [(c.first_ns, c.last_ns, c.hears_ends, c.is_cut) for c in merged.coverage()] == [
        (at(0), at(5) - 1, True, False),
        (at(5), at(10), True, False),
        (at(10) + 1, at(20), False, False),
        (at(30), at(40), True, False),
    ]


def test_three_records_of_two_boots_that_one_of_them_spans_are_of_one_host() -> None:
    boots = [{"one"}, {"two"}, {"far"}, {"one", "two"}]
    merged = together([Record(boots=frozenset(one)) for one in boots])
    assert [isinstance(one, MergedHistory) for one in merged] == [False, True]
    assert merged[1].hosts() == {"one", "two"}


def test_users_and_namespaces_of_both_count(records: list[Record]) -> None:
    for record, who, netns in zip(records, (A, B), (HOME, HOME + 1), strict=True):
        record.has("10.77.3.3", netns=netns)
        record.saw(who, span(1, 9), (OURS, 80), (THEIRS, 7))
        record.saw(who, span(1, 9), ANY, protocol=UDP_NUMBER, netns=netns)
    (merged,) = together(records)
    assert merged.namespaces() == merged.namespaces_with(UDP_NUMBER, 5000) == {HOME, HOME + 1}
    assert merged.users(HOME, Protocol.TCP, 80, at(0), at(9)) == {A.id, B.id}
    assert {one.netns for one in merged.addresses(pack_address("10.77.3.3"))} == {HOME, HOME + 1}


def test_a_store_given_twice_by_two_names_is_one_host(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "day.db")
    bench.host.spaces[HOME] = addresses(BENCH)
    curl = bench.host.start("curl")
    bench.bind(curl)
    bench.recorder.look()
    bench.look()
    bench.look()
    bench.end()
    (tmp_path / "again.db").symlink_to(tmp_path / "day.db")
    packets = file_batch([(0, udp((BENCH, 5000), SERVER))])
    packets = replace(packets, time_ns=packets.time_ns * 0 + BEGIN_NS + NS_PER_S // 2)
    with (
        closing(StoreHistory(tmp_path / "day.db")) as one,
        closing(StoreHistory(tmp_path / "again.db")) as other,
    ):
        assert len(together([one, other])) == 1
        assert names(ends_of(ReplayAttributor([one, other]).attribute(packets))) == [("curl", None)]
