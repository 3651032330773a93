"""Captures of tcpdump, named afterwards by what was recorded meanwhile; programs tell the truth about themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from bed.evidence import Dump, Recorder, enrich, packets_of, pids_by_scapy, pktproc, tshark
from bed.namespaces import Namespace
from bed.program import Command, Program
from bed.verdict import Verdict, fully_named, judge, processes_at
from bed.web import WebServer

SLOWLY = ["curl", "--silent", "--limit-rate", "300k", "--output", "/dev/null"]
REPORT = ["--write-out", "%{stdout}%{local_ip} %{local_port}\n"]
DOCUMENT_BYTES = 600_000
UNTOUCHED = ("frame.time_epoch", "frame.len", "frame.cap_len", "ip.id", "tcp.seq_raw", "tcp.payload", "udp.payload")


class Evidence:
    """What one walk of a user leaves: captures of both sides, a store, and the truth of each side."""

    def __init__(self, directory: Path, left: Namespace, right: Namespace) -> None:
        self.store = directory / "day.db"
        (directory / "index.html").write_bytes(bytes(DOCUMENT_BYTES))
        # With larger buffers the server would be done long before curl is, and its socket gone before any look.
        left.run("sysctl", "-qw", "net.ipv4.tcp_rmem=4096 16384 16384")
        right.run("sysctl", "-qw", "net.ipv4.tcp_wmem=4096 16384 16384")
        with (
            WebServer(right.v4, 8000, directory, right) as server,
            Program("udp_server", right.v4, 7000, namespace=right).ready() as echo,
            Recorder(self.store) as recorder,
            Dump(directory / "near.pcap", left) as near,
            Dump(directory / "far.pcap", right) as far,
            Command([*SLOWLY, *REPORT, f"http://{right.v4}:8000/"], left) as curl,
            Command(["ping", "-c", "4", "-i", "0.3", right.v4], left) as ping,
            Program("udp_client", right.v4, 7000, "--count", 3, "--paced", namespace=left).ready() as asker,
        ):
            recorder.saw(curl.pid).saw(asker.pid, asker.expect("ready")[0]["local"][1]).saw(ping.pid)
            for _ in range(3):
                asker.say()
            (asked,) = asker.expect("done")
            assert (curl.finish(), ping.finish()) == (0, 0)
            address, port = curl.stdout.so_far()[-1].split()
            recorder.looked_again()
            self.near, self.far = near.stop(), far.stop()
            self.talk = recorder.stop()
        self.client_address, self.server = address, right.v4
        self.curl, self.ping = curl.pid, ping.pid
        self.clients = {("tcp", address, int(port)): curl.pid, ("udp", *asked["local"]): asker.pid}
        self.servers = {("tcp", right.v4, 8000): server.pid, ("udp", right.v4, 7000): echo.pid}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory, pair: object) -> Evidence:
    return Evidence(tmp_path_factory.mktemp("walk"), pair.left, pair.right)  # type: ignore[attr-defined]


def test_every_packet_of_a_process_that_outlived_the_interval_is_named(evidence: Evidence) -> None:
    """The store has both namespaces, so both ends of each packet have a name, whichever side it was captured on."""
    for capture in (evidence.near, evidence.far):
        packets, talk = enrich(capture, "-s", evidence.store)
        named = [packet for packet in packets if packet["network"].get("transport") in ("tcp", "udp")]
        verdict = fully_named(named, evidence.clients | evidence.servers)
        assert verdict.total == 2 * len(named) > 60
        assert f"{len(packets)} packets" in talk
    echoes = [packet for packet in packets if packet["network"].get("transport") == "icmp"]
    assert processes_at(echoes, evidence.client_address) == [(evidence.ping, "ping")] * 8


def test_wireshark_s_filters_and_scapy_agree(evidence: Evidence, tmp_path: Path) -> None:
    annotated = tmp_path / "near.pcapng"
    done = pktproc("enrich", evidence.near, "-s", evidence.store, "-o", annotated)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    expected = {
        number
        for number, (port, source) in enumerate(tshark(evidence.near, "-T", "fields", "-e", "tcp.port", "-e", "ip.src"))
        if "8000" in port.split(",") and source
    }
    script = pktproc("wireshark").stdout
    lua = next(word for line in script.splitlines() for word in line.split() if word.endswith("pktproc.lua"))
    for how in (["-Y", 'frame.comment contains "curl"'], ["-X", f"lua_script:{lua}", "-Y", 'pktproc.name == "curl"']):
        numbers = {int(row[0]) - 1 for row in tshark(annotated, *how, "-T", "fields", "-e", "frame.number")}
        assert numbers == expected, how
    by_scapy = pids_by_scapy(annotated)
    assert {by_scapy[number] for number in expected} == {evidence.curl, evidence.servers["tcp", evidence.server, 8000]}


def test_packets_times_and_order_are_the_input_s(evidence: Evidence, tmp_path: Path) -> None:
    annotated = tmp_path / "near.pcapng"
    pktproc("enrich", evidence.near, "-s", evidence.store, "-o", annotated)
    fields = [argument for field in UNTOUCHED for argument in ("-e", field)]
    assert tshark(annotated, "-T", "fields", *fields) == tshark(evidence.near, "-T", "fields", *fields)


def test_what_was_annotated_is_read_back(evidence: Evidence, tmp_path: Path) -> None:
    annotated = tmp_path / "far.pcapng"
    pktproc("enrich", evidence.far, "-s", evidence.store, "-o", annotated)
    packets = packets_of(annotated)
    fully_named([p for p in packets if p["network"].get("transport") == "tcp"], evidence.clients | evidence.servers)
    by_curl = [p["process"] for p in packets if p.get("process", {}).get("pid") == evidence.curl]
    assert {process["name"] for process in by_curl} == {"curl"}
    assert by_curl[0]["executable"].endswith("/curl")
    assert "--limit-rate" in by_curl[0]["command_line"]


def test_a_capture_of_another_time_names_nobody(evidence: Evidence) -> None:
    packets, _ = enrich(evidence.near, "-s", evidence.store, "--skew", 7200)
    verdict = judge(packets, evidence.clients | evidence.servers)
    assert (verdict.right, verdict.wrong) == (0, 0), verdict
    assert set(verdict.unknown) == {"not-covered"}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_used_again_by_another_process_is_split_at_the_right_packet(
    left: Namespace, right: Namespace, tmp_path: Path, protocol: str
) -> None:
    server = Program(f"{protocol}_server", right.v4, 7100, namespace=right)
    options = ("--source-port", 7200, "--paced", *(["--udp"] if protocol == "udp" else []))
    with (
        server.ready(),
        Recorder(tmp_path / "day.db") as recorder,
        Dump(tmp_path / "a.pcap", left, protocol) as dump,
        Program("tuple_reuse", right.v4, 7100, *options, namespace=left).ready() as users,
    ):
        users.say()
        for number in (1, 2):
            user = users.expect("used", number)[-1]
            recorder.saw(user["pid"], 7200)
            users.say()
        users.expect("done")
        recorder.looked_again()
        capture = dump.stop()
        recorder.stop()
    used = {event["bytes"]: event["pid"] for event in users.events("used")}
    packets, _ = enrich(capture, "-s", tmp_path / "day.db")
    lengths = "tcp.len" if protocol == "tcp" else "udp.length"
    header_bytes = 0 if protocol == "tcp" else 8
    sizes = [int(row[0]) - header_bytes for row in tshark(capture, "-T", "fields", "-e", lengths)]
    told = Verdict()
    for packet, size in zip(packets, sizes, strict=True):
        if size:
            told.add(packet, "source" if packet["source"]["port"] == 7200 else "destination", used[size])
    assert told.wrong == 0, told
    whole = sum(size > 0 for size in sizes)
    assert told.total == whole >= 20
    if protocol == "tcp":
        assert told.right == whole, told
    else:  # no SYN says when the second began; until the end of the first was heard it may be either
        assert set(told.unknown) <= {"ambiguous"}, told
        assert told.right >= whole // 2, told


def test_command_lines_that_are_not_wanted_are_not_shown_and_not_left_in_a_file(
    evidence: Evidence, tmp_path: Path
) -> None:
    for command in (["enrich", evidence.near, "-s", evidence.store], ["sniff", "-r", tmp_path / "with.pcapng"]):
        pktproc("enrich", evidence.near, "-s", evidence.store, "-o", tmp_path / "with.pcapng")
        assert "--limit-rate" in pktproc(*command, "-v").stdout
        assert "--limit-rate" not in pktproc(*command, "-v", "--no-cmdline").stdout
        assert "--limit-rate" not in pktproc(*command, "--json", "--no-cmdline").stdout
    refused = pktproc("sniff", "-r", tmp_path / "with.pcapng", "-w", tmp_path / "without.pcapng", "--no-cmdline")
    assert refused.returncode == 2
    assert "use the original" in refused.stderr.splitlines()[-1]
    assert b"--limit-rate" not in (tmp_path / "without.pcapng").read_bytes()
