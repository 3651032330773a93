"""Bytes by process, live: to the byte as tcpdump and the kernel's own counters have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bed.evidence import pktproc
from bed.namespaces import Namespace, NamespacePair
from bed.program import Event, Program
from bed.summary import Counters, Report, Summary, Tcpdump, all_acknowledged, bytes_by_end, counters, moved
from kernel.ebpf.exact_bed import ExactProgram
from pktproc import summary as pktproc_summary

PRIMES = [1, 2, 997, 65_537, 1_299_709, 15_485_863]
FIFTY = [15_013 + 2 * number for number in range(50)]


def check(report: Report, capture: Path, truth: dict[tuple[str, str, int], int], elsewhere: int | None = None) -> None:
    """Assert that each process has, to the byte, what tshark counts at its ends, and the rest nothing.

    `elsewhere` is a process in another namespace; if a third one has its address as well, its bytes are `ambiguous`.
    """
    sent, received, whole = bytes_by_end(capture)
    expected: dict[int, list[int]] = {}
    for end, pid in truth.items():
        amounts = expected.setdefault(pid, [0, 0])
        amounts[0] += sent.pop(end, 0)
        amounts[1] += received.pop(end, 0)
    assert report.captured() == whole
    found = {pid: list(amounts) for pid, amounts in report.by_pid().items()}
    if elsewhere is not None:
        of_elsewhere = sum(found.pop(elsewhere, [])) + report.unknown().pop("ambiguous", 0)
        assert of_elsewhere == sum(expected.pop(elsewhere))
        assert set(report.unknown()) <= {"ambiguous"}
    else:
        assert report.unknown() == {}
    assert found == expected


def ends(transport: str, told: list[Event]) -> dict[tuple[str, str, int], int]:
    """The truth that senders tell."""
    return {(transport, event["local"][0], event["local"][1]): event["pid"] for event in told}


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_several_processes_to_the_byte(
    left: Namespace, right: Namespace, tmp_path: Path, family: str, *, udp: bool
) -> None:
    address, transport = getattr(right, family), "udp" if udp else "tcp"
    sizes = PRIMES[:5] if udp else PRIMES
    with (
        Program("sink", address, 9000, namespace=right).ready() as sink,
        Tcpdump(tmp_path / "a.pcap", left, f"{transport} port 9000") as dump,
        Summary(f"{transport} port 9000", on=[left]) as summary,
        Program("senders", address, 9000, *sizes, *(["--udp"] if udp else []), namespace=left) as senders,
    ):
        told = senders.expect("sent", len(sizes))
        report = summary.stop()
        dump.stop()
    # The other namespace is on this host, too, so the sink has its row.
    truth = ends(transport, told) | {(transport, address, 9000): sink.pid}
    check(report, tmp_path / "a.pcap", truth, sink.pid)
    connections = {row["process"]["pid"]: row["connections"] for row in report.rows if "process" in row}
    assert connections.pop(sink.pid, len(sizes)) == len(sizes)
    assert connections == {event["pid"]: 1 for event in told}


def test_loopback_is_counted_at_both_ends_and_told_apart(left: Namespace, tmp_path: Path) -> None:
    with (
        Program("sink", "127.0.0.1", 9001, namespace=left).ready() as sink,
        Tcpdump(tmp_path / "a.pcap", left, "tcp port 9001", interface="lo") as dump,
        Summary("tcp port 9001", on=[left], interface="lo") as summary,
        Program("senders", "127.0.0.1", 9001, *PRIMES, namespace=left) as senders,
    ):
        told = senders.expect("sent", len(PRIMES))
        report = summary.stop()
        dump.stop()
    check(report, tmp_path / "a.pcap", ends("tcp", told) | {("tcp", "127.0.0.1", 9001): sink.pid})
    for row in report.rows:
        assert (row["local_sent_bytes"], row["local_received_bytes"]) == (row["sent_bytes"], row["received_bytes"])


def test_fifty_at_once(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    with (
        Program("sink", right.v4, 9002, namespace=right).ready() as sink,
        Tcpdump(tmp_path / "a.pcap", left, "tcp port 9002") as dump,
        Summary("tcp port 9002", on=[left]) as summary,
        Program("senders", right.v4, 9002, *FIFTY, namespace=left) as senders,
    ):
        told = senders.expect("sent", len(FIFTY))
        report = summary.stop()
        dump.stop()
    check(report, tmp_path / "a.pcap", ends("tcp", told) | {("tcp", right.v4, 9002): sink.pid}, sink.pid)


def test_short_lived_processes_add_up_and_are_never_another_s(
    left: Namespace, right: Namespace, tmp_path: Path
) -> None:
    with (
        Program("sink", right.v4, 9003, namespace=right).ready() as sink,
        Tcpdump(tmp_path / "a.pcap", left, "tcp port 9003") as dump,
        Summary("tcp port 9003", on=[left]) as summary,
        Program("storm", right.v4, 9003, "--count", 50, "--life-ms", 10, namespace=left).ready() as storm,
    ):
        storm.say()
        told = storm.expect("child", 50)
        storm.expect("done")
        report = summary.stop()
        dump.stop()
    sent, _, whole = bytes_by_end(tmp_path / "a.pcap")
    assert report.captured() == whole
    by_pid = report.by_pid()
    for event in told:
        end = ("tcp", left.v4, event["port"])
        if event["child"] in by_pid:
            assert by_pid.pop(event["child"])[0] <= sent[end]
    assert set(by_pid) == {sink.pid}
    named = sum(row["process"]["pid"] != sink.pid for row in report.rows if "process" in row)
    assert named >= 45


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_of_two_thousand_short_lived_programs_each_has_its_bytes(
    left: Namespace, right: Namespace, tmp_path: Path, transport: str
) -> None:
    count = 2000
    options = ("--count", count, "--parallel", 8, "--port", 20000, "--named", *(["--udp"] * (transport == "udp")))
    expression = f"{transport} port 9007"
    with (
        Program(f"{transport}_server", right.v4, 9007, namespace=right).ready(),
        Tcpdump(tmp_path / "a.pcap", left, expression) as dump,
        Summary("--by", "name", expression, on=[left]) as summary,
        ExactProgram("crowd", right.v4, 9007, *options, namespace=left).ready() as crowd,
    ):
        crowd.say()
        crowd.expect("done", timeout=120)
        report = summary.stop()
        dump.stop()
    sent, received, whole = bytes_by_end(tmp_path / "a.pcap")
    assert report.captured() == whole
    found = {row["name"]: (row["sent_bytes"], row["received_bytes"]) for row in report.rows if "name" in row}
    for number in range(count):
        end = (transport, left.v4, 20000 + number)
        assert found.pop(f"one-{number}") == (sent[end], received.get(end, 0))
    # The server is elsewhere: if a third namespace has its address as well, its bytes are `ambiguous`.
    assert set(report.unknown()) <= {"ambiguous"}
    assert sum(map(sum, found.values())) + report.unknown().get("ambiguous", 0) == whole


def test_workers_of_a_server_have_rows_of_their_own(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    with (
        Program("tcp_prefork", right.v4, 9004, "--workers", 3, namespace=right).ready() as server,
        Tcpdump(tmp_path / "a.pcap", right, "tcp port 9004") as dump,
        Summary("tcp port 9004", on=[right]) as summary,
        Program("parallel_clients", right.v4, 9004, "--clients", 3, namespace=left) as clients,
    ):
        told = clients.expect("client", 3)
        served = server.expect("accepted", 3)
        all_acknowledged(left, right)
        report = summary.stop()
        dump.stop()
    _, _, whole = bytes_by_end(tmp_path / "a.pcap")
    assert report.captured() == whole
    by_pid = report.by_pid()
    assert {event["pid"] for event in told} <= set(by_pid), report
    assert (
        {event["pid"] for event in served}
        <= set(by_pid)
        <= {
            *(event["pid"] for event in told + served),
            server.pid,
        }
    )


@pytest.fixture
def quiet() -> Iterator[NamespacePair]:
    """A pair in which nothing is sent that nobody asked for."""
    with NamespacePair() as pair:
        for side, other in ((pair.left, pair.right), (pair.right, pair.left)):
            side.run("sysctl", "-qw", f"net.ipv6.conf.{side.interface}.disable_ipv6=1")
            side.run("ip", "neigh", "replace", other.v4, "lladdr", other.mac, "dev", side.interface, "nud", "permanent")
        yield pair


@pytest.mark.parametrize("segments", [1, 65535], ids=["a segment a frame", "segmentation offloaded"])
def test_the_kernel_s_counters_agree(quiet: NamespacePair, segments: int) -> None:
    left, right = quiet.left, quiet.right
    for side in (left, right):
        side.run("ip", "link", "set", side.interface, "gso_max_segs", str(segments))
    with Program("sink", right.v4, 9005, namespace=right).ready():
        before = counters(left)
        with (
            Summary("--by", "interface", on=[left]) as summary,
            Program("senders", right.v4, 9005, *PRIMES, namespace=left) as senders,
        ):
            senders.expect("sent", len(PRIMES))
            report = summary.stop()
            after = counters(left)
    (row,) = report.rows
    assert row["interface"] == left.interface
    counted = Counters(after.sent - before.sent, after.received - before.received)
    # Each packet has its other end on this host, so it was both sent and received.
    assert (moved(row), row["local_sent_bytes"]) == (2 * sum(counted), sum(counted))


VLAN, VLAN_TAG_BYTES = 7, 4
TAGGED = "10.77.7.1", "10.77.7.2"


@pytest.fixture
def tagged(quiet: NamespacePair) -> Iterator[NamespacePair]:
    """A quiet pair whose ends have an interface of a VLAN each, and addresses on that alone."""
    sides, addresses = (quiet.left, quiet.right), TAGGED
    with ExitStack() as opened:
        for side, own, other, there in zip(sides, addresses, sides[::-1], addresses[::-1], strict=True):
            name = vlan_of(side)
            side.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
            opened.enter_context(Program("vlan_tap", side.interface, name, VLAN, namespace=side).ready())
            side.run("ip", "link", "set", name, "address", side.mac, "up")
            side.run("ip", "address", "flush", "dev", side.interface)
            side.run("ip", "address", "add", f"{own}/24", "dev", name)
            side.run("ip", "neigh", "replace", there, "lladdr", other.mac, "dev", name, "nud", "permanent")
        yield quiet


def vlan_of(side: Namespace) -> str:
    return f"{side.interface}.{VLAN}"


def test_the_kernel_s_counters_of_a_vlan_and_its_parent_agree(tagged: NamespacePair) -> None:
    left, (_, there) = tagged.left, TAGGED
    parent, vlan = left.interface, vlan_of(left)
    with Program("sink", there, 9008, namespace=tagged.right).ready():
        before = {name: counters(left, name) for name in (parent, vlan)}
        with (
            Summary("--by", "interface", "--per-interface", on=[left], interface="any") as each,
            Summary("--by", "interface", on=[left], interface="any") as once,
            Summary("--by", "interface", on=[left], interface=vlan) as of_vlan,
            Program("senders", there, 9008, *PRIMES[:5], namespace=left) as senders,
        ):
            senders.expect("sent", 5)
            reports = each.stop(), once.stop(), of_vlan.stop()
            after = {name: counters(left, name) for name in (parent, vlan)}
    kernel = {name: sum(after[name]) - sum(before[name]) for name in before}
    counted_each, counted_once, counted_vlan = ({row["interface"]: row for row in one.rows} for one in reports)
    # Each packet has its other end on this host, so it was both sent and received.
    assert {name: row["sent_bytes"] for name, row in counted_each.items()} == kernel
    assert {name: row["sent_bytes"] for name, row in counted_vlan.items()} == {vlan: kernel[vlan]}
    packets = counted_vlan[vlan]["sent_packets"]
    assert kernel[parent] == kernel[vlan] + VLAN_TAG_BYTES * packets
    # A packet counts on the interface that it passes first: what is sent is not tagged yet, what comes still is.
    assert sum(row["sent_packets"] for row in counted_once.values()) == packets
    assert f"{packets} packets seen again on another interface" in reports[1].talk


def test_a_packet_that_crosses_a_bridge_counts_once(tmp_path: Path) -> None:
    """Two namespaces, each with a veth end in a third one's bridge, captured there on `any`."""
    with NamespacePair() as middle:
        hub, other = middle.left, middle.right
        hub.run("ip", "link", "add", "hub0", "type", "bridge")
        hub.run("ip", "link", "set", "hub0", "up")
        numbers = [
            json.loads(hub.run("ip", "-j", "link", "show", name))[0]["ifindex"] for name in ("hub0", hub.interface)
        ]
        hub.run("ip", "link", "set", hub.interface, "master", "hub0")
        near, far = "10.77.9.1", "10.77.9.2"  # of no other namespace
        for side, address, interface in ((hub, near, "hub0"), (other, far, other.interface)):
            side.run("ip", "address", "flush", "dev", side.interface)
            side.run("ip", "address", "add", f"{address}/24", "dev", interface)
        with (
            Program("sink", near, 9006, namespace=hub).ready() as sink,
            Tcpdump(tmp_path / "a.pcap", hub, "port 9006") as dump,
            Tcpdump(tmp_path / "any.pcap", hub, "port 9006", interface="any") as dump_any,
            Summary("port 9006", on=[hub], interface="any") as once,
            Summary("--per-interface", "port 9006", on=[hub], interface="any") as each,
            Program("senders", near, 9006, *PRIMES, namespace=other) as senders,
        ):
            told = senders.expect("sent", len(PRIMES))
            counted_once, counted_each = once.stop(), each.stop()
            dump.stop()
            dump_any.stop()
    check(counted_once, tmp_path / "a.pcap", ends("tcp", told) | {("tcp", near, 9006): sink.pid})
    assert counted_each.captured() == 2 * counted_once.captured()
    assert "seen again on another interface" in counted_once.talk
    of_file = pktproc_summary(tmp_path / "any.pcap", by="interface", layer="ip")
    of_interface = pktproc_summary(tmp_path / "a.pcap", layer="ip")
    assert of_file.captured.bytes == of_interface.captured.bytes
    assert of_file.captured.packets == of_file.captured.duplicate_packets == of_interface.captured.packets
    apart = pktproc_summary(tmp_path / "any.pcap", by="interface", layer="ip", per_interface=True)
    assert {row.key: row.total.passed_bytes for row in apart.rows} == {
        (f"if{number}",): of_interface.captured.bytes for number in numbers
    }


def test_both_ends_of_a_veth_pair_count_once(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    with (
        Program("sink", right.v4, 9007, namespace=right).ready(),
        Tcpdump(tmp_path / "a.pcap", left, "port 9007") as dump,
        Summary("port 9007", on=[left, right]) as summary,
        Program("senders", right.v4, 9007, *PRIMES, "--udp", namespace=left) as senders,
    ):
        senders.expect("sent", len(PRIMES))
        report = summary.stop()
        dump.stop()
    _, _, whole = bytes_by_end(tmp_path / "a.pcap")
    assert report.captured() == whole
    assert sum(row["sent_packets"] for row in report.rows) == sum(-(-size // 997) for size in PRIMES)


def test_a_run_ends_by_itself_and_says_how_it_adds_up(left: Namespace) -> None:
    done = pktproc("summary", "--netns", left.name, "-i", "lo", "--duration", "300ms")
    assert done.returncode == 0, done.stderr
    assert "0 packets, 0 B in 0.3" in done.stdout
    assert "0 B = 0 sent + 0 received" in done.stdout
    assert "0 packets received by filter" in done.stderr
