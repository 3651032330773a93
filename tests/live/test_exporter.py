"""What Prometheus scrapes, compared to the byte with tcpdump's capture of the same traffic."""

from __future__ import annotations

import http.client
import signal
import time
import urllib.request
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from bed.evidence import Dump, tshark
from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command
from bed.sniff import pktproc_command
from bed.waiting import until
from bed.web import WebServer, curl

FETCHES = 3
PORT = 8000
DOCUMENT_BYTES = 300_007

Series = dict[tuple[str, ...], float]


class Exporter(Command):
    """Run `pktproc exporter` on a namespace; leaving the constructor means that it serves."""

    def __init__(self, on: Namespace, *arguments: object) -> None:
        options = ("--netns", on.name, "-i", on.interface, "--listen", "127.0.0.1:0")
        super().__init__(pktproc_command("exporter", *options, *arguments))
        if not self.stderr.find(lambda line: "serving http" in line, 1, TIMEOUT):
            self.close()
            raise AssertionError(f"the exporter did not start: {self.describe()}")
        (line,) = [line for line in self.stderr.so_far() if "serving http" in line]
        self.url = line.split()[-1]

    def scrape(self) -> Series:
        """Return the value of each series, by its name and the values of its labels in the order of their names."""
        with urllib.request.urlopen(self.url, timeout=TIMEOUT) as answer:
            text = answer.read().decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def scrape_until(self, packets: int) -> Series:
        """Return the series once so many packets were captured."""
        deadline = time.monotonic() + TIMEOUT
        while (found := self.scrape())["pktproc_captured_packets_total",] < packets:
            assert time.monotonic() < deadline, (packets, found)
        return found

    def stop(self) -> str:
        """End it as a service manager does and return what it said; AssertionError unless that is a normal end."""
        self.child.send_signal(signal.SIGTERM)
        assert self.finish() == 0, self.describe()
        said = "\n".join(self.stderr.so_far())
        assert "Traceback" not in said, said
        return said

    def __enter__(self) -> Self:
        return self


def test_bytes_of_programs_are_those_that_tcpdump_captured(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(bytes(DOCUMENT_BYTES))
    with (
        WebServer(right.v4, PORT, tmp_path, right),
        Exporter(right, "tcp") as exporter,
        Dump(tmp_path / "truth.pcap", right, "tcp") as dump,
    ):
        for _ in range(FETCHES):
            curl(f"http://{right.v4}:{PORT}/", left)
        wait_for_quiet(dump.path, FETCHES)
        capture = dump.stop()
        frames = tshark(capture, "-T", "fields", "-e", "frame.len")
        told = exporter.scrape_until(len(frames))
        exporter.stop()
    size = sum(int(length) for (length,) in frames)
    (server,) = {key[2] for key in told if key[0] == "pktproc_bytes_total" and key[2].startswith("python")}
    assert {way: told["pktproc_bytes_total", way, server, "root"] for way in ("sent", "received")} == lengths(capture)
    assert told["pktproc_captured_bytes_total",] == size > FETCHES * DOCUMENT_BYTES
    assert told["pktproc_captured_packets_total",] == len(frames)
    assert told["pktproc_dropped_packets_total",] == 0
    # curl lives in another namespace of this host, so all packets have both ends here.
    assert told["pktproc_both_ends_local_bytes_total",] == size
    ends = sum(told[key] for key in told if key[0] in {"pktproc_bytes_total", "pktproc_unattributed_bytes_total"})
    assert ends == 2 * size


def wait_for_quiet(path: Path, connections: int) -> None:
    """Wait until both sides have ended so many connections and their last FIN was acknowledged, in a capture."""
    until(lambda: acknowledged_ends(path) >= 2 * connections, lambda: path)


def acknowledged_ends(path: Path) -> int:
    """Return how many sides of connections have ended, and the other side has said that it knows."""
    fields = [
        word for name in ("stream", "srcport", "flags.fin", "seq", "len", "ack") for word in ("-e", f"tcp.{name}")
    ]
    ends: dict[tuple[str, str], int] = {}
    acknowledged: set[tuple[str, str]] = set()
    for stream, port, fin, *numbers in tshark(path, "-T", "fields", *fields):
        begin, size, known = map(int, numbers)
        if fin in ("1", "True"):
            ends[stream, port] = begin + size + 1
        acknowledged |= {end for end, last in ends.items() if end[0] == stream and end[1] != port and known >= last}
    return len(acknowledged)


def lengths(path: Path) -> dict[str, int]:
    """Return the bytes that came from the server, and those that went to it, as captured."""
    found = {"sent": 0, "received": 0}
    for length, port in tshark(path, "-T", "fields", "-e", "frame.len", "-e", "tcp.srcport"):
        found["sent" if int(port) == PORT else "received"] += int(length)
    return found


def test_a_port_that_is_taken_is_one_line(left: Namespace) -> None:
    with Exporter(left) as first:
        address = first.url.removeprefix("http://").removesuffix("/metrics")
        with Command(pktproc_command("exporter", "--netns", left.name, "--listen", address)) as second:
            assert second.finish() == 1
            (last,) = second.stderr.so_far()[-1:]
        assert last.startswith(f"pktproc: cannot serve on {address}: ")
        first.stop()


def test_it_listens_on_this_host_alone_unless_told(left: Namespace) -> None:
    with Exporter(left) as exporter:
        listening = exporter.url.removeprefix("http://").removesuffix("/metrics")
        host, _, port = listening.rpartition(":")
        assert host == "127.0.0.1"
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()
        exporter.stop()
