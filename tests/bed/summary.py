"""`pktproc summary` as a user runs it, and the truth about bytes from tcpdump, tshark and the kernel's counters."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bed.evidence import Dump, tshark
from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command
from bed.sniff import pktproc_command
from bed.waiting import until

Row = dict[str, Any]
End = tuple[str, str, int]


class Report(NamedTuple):
    """What a finished run printed: rows of JSON, and the talk on standard error."""

    rows: list[Row]
    talk: str

    def by_pid(self) -> dict[int, tuple[int, int]]:
        """Return what each process sent and received, in bytes."""
        return {
            row["process"]["pid"]: (row["sent_bytes"], row["received_bytes"]) for row in self.rows if "process" in row
        }

    def unknown(self) -> dict[str, int]:
        """Return the bytes of each reason."""
        return {row["reason"]: moved(row) for row in self.rows if "reason" in row}

    def captured(self) -> int:
        """Return the sum that the rows stand for: bytes with two local ends count once."""
        return sum(moved(row) - row.get("local_received_bytes", 0) for row in self.rows)


class Counters(NamedTuple):
    """What the kernel counted at an interface, in bytes."""

    sent: int
    received: int


class Summary(Command):
    """Run `pktproc summary --format json` live; leaving the constructor means that the capture is running."""

    def __init__(self, *arguments: object, on: Sequence[Namespace], interface: str | None = None) -> None:
        options: list[str] = []
        for space in on:
            options += ["--netns", space.name]
        options += ["-i", interface or (on[0].interface if len(on) == 1 else "any")]
        super().__init__(pktproc_command("summary", "--format", "json", *options, *arguments))
        if not self.stderr.find(lambda line: "listening" in line, 1, TIMEOUT):
            self.close()
            raise AssertionError(f"the capture did not start: {self.describe()}")

    def stop(self) -> Report:
        """Interrupt as Ctrl-C does and return the report; AssertionError unless that is a normal end."""
        self.child.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> Report:
        """Wait for the run's own end and return the report."""
        assert self.finish() == 0, self.describe()
        talk = "\n".join(self.stderr.so_far())
        assert "Traceback" not in talk, talk
        assert "0 packets dropped by kernel" in talk, talk
        return Report(json.loads("\n".join(self.stdout.so_far())), talk)


SNAPLEN = 128
FILE_HEADER_BYTES, RECORD_HEADER_BYTES = 24, 16  # of pcap


class Tcpdump(Dump):
    """tcpdump with room for all that comes; it keeps heads only, and the lengths of frames."""

    def __init__(self, path: Path, on: Namespace, expression: str, *, interface: str | None = None) -> None:
        super().__init__(path, on, "-s", str(SNAPLEN), expression, interface=interface, room_kib=1 << 17)

    def wait_for(self, packets: int, frame_bytes: int) -> None:
        """Wait until it has written so many packets of a length; AssertionError when that takes too long.

        What it has not taken out of its buffer when it is interrupted is not written.
        """
        size = FILE_HEADER_BYTES + packets * (RECORD_HEADER_BYTES + min(frame_bytes, SNAPLEN))
        until(lambda: self.path.stat().st_size >= size, self.describe)

    def stop(self) -> Path:
        """Interrupt tcpdump, wait for its end and return the file; AssertionError if packets were lost."""
        path = super().stop()
        assert any(line.startswith("0 packets dropped by kernel") for line in self.stderr.so_far()), self.describe()
        return path


def moved(row: Row) -> int:
    """Return what a row sent, received and passed."""
    return int(row["sent_bytes"]) + int(row["received_bytes"]) + int(row.get("passed_bytes", 0))


def all_acknowledged(*namespaces: Namespace) -> None:
    """Wait until every TCP connection has had its last bytes acknowledged; AssertionError when that takes too long."""
    until(
        lambda: (
            not any(
                int(line.split()[2])
                for one in namespaces
                for line in one.run("ss", "-Htna").splitlines()
                if "LISTEN" not in line
            )
        ),
        lambda: "bytes stay unacknowledged",
    )


def counters(namespace: Namespace, interface: str | None = None) -> Counters:
    """Return the counters of /sys/class/net/*/statistics of an interface, as the namespace's own netlink tells them."""
    told = json.loads(namespace.run("ip", "-s", "-j", "link", "show", interface or namespace.interface))
    return Counters(told[0]["stats64"]["tx"]["bytes"], told[0]["stats64"]["rx"]["bytes"])


def bytes_by_end(capture: Path) -> tuple[Counter[End], Counter[End], int]:
    """Return the bytes of frames that left each end and came to it, by tshark, and their sum."""
    fields = ("frame.len", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport", "udp.srcport",
              "udp.dstport")  # fmt: skip
    sent, received, whole = Counter[End](), Counter[End](), 0
    for row in tshark(capture, "-T", "fields", *(word for field in fields for word in ("-e", field))):
        size, v4_source, v4_destination, v6_source, v6_destination, *ports = row
        transport = "tcp" if ports[0] else "udp"
        source, destination = (ports[0], ports[1]) if ports[0] else (ports[2], ports[3])
        whole += int(size)
        if source:
            sent[transport, v4_source or v6_source, int(source)] += int(size)
            received[transport, v4_destination or v6_destination, int(destination)] += int(size)
    return sent, received, whole
