"""What it costs to write packets with their processes: CPU time a packet of both pcapng writers, on batches in memory.

The load is a million 570-byte packets of 5,000 flows in batches of 16 MiB, each flow with an owner of its own.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import print_table
from pktproc.attribution.answers import AttributedBatch
from pktproc.capture.capture_file import FileBatch, open_capture
from pktproc.model import Attribution, Flow, Interface, Match, PacketType, Process
from pktproc.output.pcapng import PcapngWriter
from pktproc.output.pcapng_rewrite import PcapngRewriter
from pktproc.packets.batch import PacketBatch
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

PACKET_BYTES = 570
FLOWS = 5_000
PROCESSES = 300
BATCHES = 5
REPEATED = 7
"""Times that the batches are written, one after another: a million packets in all."""
BATCH_PACKETS = (16 << 20) // PACKET_BYTES
ROUNDS = 3
START_NS = 1_700_000_000_000_000_000
ETH0 = Interface("eth0", 2, 0)


class Nowhere:
    """Count the bytes that are written."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.bytes += len(data)


def packets() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return one TCP packet of each flow, port by port, as rows of bytes."""
    ethernet = bytes(6) + bytes(6) + struct.pack(">H", 0x0800)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, PACKET_BYTES - 14, 0, 0, 64, 6, 0, b"\x0a\x4d\0\1", b"\x0a\x4d\0\2")
    tcp = struct.pack(">HHIIHHHH", 0, 443, 1, 1, 5 << 12 | 0x10, 1024, 0, 0)
    one = (ethernet + ip + tcp).ljust(PACKET_BYTES, b"x")
    rows = np.tile(np.frombuffer(one, np.uint8), (FLOWS, 1))
    rows[:, 34:36] = np.arange(10_000, 10_000 + FLOWS, dtype=">u2").view(np.uint8).reshape(-1, 2)
    return rows


def batches() -> Iterator[PacketBatch]:
    """Yield batches in which all flows take part in random order."""
    random, kinds = np.random.default_rng(1), packets()
    for number in range(BATCHES):
        chosen = kinds[random.integers(0, FLOWS, BATCH_PACKETS)]
        index = np.arange(BATCH_PACKETS, dtype=np.int64)
        yield PacketBatch(
            data=chosen.reshape(-1),
            offset=index * PACKET_BYTES,
            captured_bytes=np.full(BATCH_PACKETS, PACKET_BYTES, np.int64),
            wire_bytes=np.full(BATCH_PACKETS, PACKET_BYTES, np.int64),
            time_ns=START_NS + (number * BATCH_PACKETS + index) * 1000,
            interface=np.zeros(BATCH_PACKETS, np.int64),
            packet_type=np.full(BATCH_PACKETS, PacketType.OUTGOING, np.uint8),
            linktype=np.ones(BATCH_PACKETS, np.uint16),
            interfaces=(ETH0,),
        )


class Owners:
    """Give each flow an owner of its own, the same in every batch."""

    def __init__(self) -> None:
        self._owners: dict[Flow, Attribution] = {}
        self._fragments = FragmentTable()

    def attribute(self, batch: PacketBatch) -> AttributedBatch:
        columns = decode(batch, self._fragments)
        table = distinct_flows(batch, columns)
        return AttributedBatch(
            batch=batch,
            columns=columns,
            flow_of=table.flow_of,
            flows=table.flows,
            first=table.first,
            source=[self._owners.setdefault(flow, _owner(flow.source_port % PROCESSES)) for flow in table.flows],
            destination=[None] * len(table),
        )


def _owner(number: int) -> Attribution:
    process = Process(4000 + number, 100 + number, START_NS, "curl", "/usr/bin/curl", ("curl", "-s", "http://a/b"), 0)
    return Attribution(process, Match.EXACT, "netlink", holders=(process,))


def cost_us(write: Callable[[], int]) -> float:
    """Return the CPU time a packet of the best of some rounds; `write` returns how many packets it wrote."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        count = write()
        best = min(best, (time.process_time() - start) / count * 1e6)
    return best


def write_new(blocks: Iterable[AttributedBatch], forms: frozenset[str]) -> int:
    writer = PcapngWriter(Nowhere(), forms=forms)
    return sum(writer.write(block, np.arange(len(block.batch))) for _ in range(REPEATED) for block in blocks)


def rewrite(blocks: Iterable[tuple[FileBatch, AttributedBatch]], forms: frozenset[str]) -> int:
    writer = PcapngRewriter(Nowhere(), forms=forms)
    return sum(writer.write(file_batch, block) for _ in range(REPEATED) for file_batch, block in blocks)


def read(path: Path, owners: Owners) -> list[tuple[FileBatch, AttributedBatch]]:
    with open_capture(str(path)) as capture:
        return [(file_batch, owners.attribute(file_batch.batch)) for file_batch in capture]


def main() -> None:
    """Print the cost of both writers, with all forms of annotation and without any."""
    owners = Owners()
    blocks = [owners.attribute(batch) for batch in batches()]
    everything, nothing = frozenset({"comment", "pid", "darwin"}), frozenset[str]()
    with tempfile.TemporaryDirectory() as folder:
        plain, annotated = Path(folder, "plain.pcapng"), Path(folder, "annotated.pcapng")
        for path, forms in ((plain, nothing), (annotated, everything)):
            with path.open("wb") as file:
                writer = PcapngWriter(file, forms=forms)
                for block in blocks:
                    writer.write(block, np.arange(len(block.batch)))
        inputs = [read(path, owners) for path in (plain, annotated)]
        rows = []
        for name, forms in (("all forms", everything), ("comment", frozenset({"comment"})), ("none", nothing)):
            costs = [cost_us(partial(write_new, blocks, forms)), *(cost_us(partial(rewrite, i, forms)) for i in inputs)]
            rows.append((name, *(f"{cost:.2f}" for cost in costs)))
    print_table(("annotations", "new file", "rewritten", "rewritten, annotated before"), rows)


if __name__ == "__main__":
    main()
