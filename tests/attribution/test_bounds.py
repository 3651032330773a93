"""However many flows and processes there are, the index stays within its named bounds."""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterable

from scapy.layers.inet import IP, UDP

from attribution.asking import ask_block
from attribution.host import Clock, Host, query
from attribution.traffic import OURS, THEIRS, Walk
from pktproc.attribution import attributor, index, ownership
from pktproc.attribution.index import ConnectionIndex
from pktproc.model import Process, ProcessId, Socket

LARGEST = max(index.MAX_ANSWERS, index.MAX_PAST, ownership.MAX_INODES, attributor.MAX_KNOWN_FLOWS)
SERVER = ("10.77.0.2", 80)
CONNECTIONS = 70_000  # or flows: more than any bound
BLOCK = 100


def reachable(root: object) -> list[object]:
    """Return the containers that an object keeps alive; the double's own are not among them."""
    seen: dict[int, object] = {}
    pending: list[object] = [root]
    while pending:
        found = pending.pop()
        if id(found) in seen or isinstance(found, (Host, type, Process)) or callable(found):
            continue
        seen[id(found)] = found
        if type(found).__module__ in {"sys", "types"}:
            continue
        pending += gc.get_referents(found)
    return list(seen.values())


def largest(objects: Iterable[object]) -> int:
    return max(len(found) for found in objects if isinstance(found, (dict, set, list, frozenset)))


def end(number: int) -> tuple[str, int]:
    return f"10.77.{number >> 16}.{number >> 8 & 255}", 1 + (number & 255)


def test_flows_that_nobody_has(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    for start in range(0, CONNECTIONS, BLOCK):
        ask_block(index, [query(end(number), SERVER) for number in range(start, start + BLOCK)])
        clock.advance(5)
    assert host.asked == CONNECTIONS
    assert largest(reachable(index)) <= LARGEST


def test_connections_that_come_and_go(clock: Clock) -> None:
    host = Host(clock, scan_ms=20)
    index = ConnectionIndex(host, clock, clock.wall_ns)
    client = host.start("client")
    for start in range(0, CONNECTIONS, BLOCK):
        open_now = [host.open(client, end(number), SERVER) for number in range(start, start + BLOCK)]
        answers = ask_block(index, [query(end(number), SERVER) for number in range(start, start + BLOCK)])
        assert {answer.process for answer in answers} <= {client, None}
        clock.advance(5)
        forget(host, open_now)
    assert largest(reachable(index)) <= LARGEST


def forget(host: Host, sockets: list[Socket]) -> None:
    """Close many sockets at once."""
    for socket in sockets:
        host.close(socket)


def test_a_port_that_is_served_by_a_new_process_each_time(clock: Clock) -> None:
    """A server that forks for each connection, as inetd does, for a long time."""
    host = Host(clock, scan_ms=20)
    index = ConnectionIndex(host, clock, clock.wall_ns)
    for start in range(0, CONNECTIONS, BLOCK):
        workers = [host.start("worker") for _ in range(BLOCK)]
        clients = [end(start + number) for number in range(BLOCK)]
        for worker, client in zip(workers, clients, strict=True):
            host.open(worker, SERVER, client)
        answers = ask_block(index, [query(SERVER, client) for client in clients])
        assert {answer.process for answer in answers} <= {*workers, None}
        for worker in workers:
            host.end(worker)
        clock.advance(5)
    kept = reachable(index)
    assert largest(kept) <= LARGEST
    assert sum(isinstance(found, ProcessId) for found in kept) <= LARGEST


def test_flows_of_packets(walk: Walk) -> None:
    """A template with other ports in each frame: bytes 34 to 37, behind Ethernet and IPv4 without options."""
    template = walk.block([IP(src=OURS, dst=THEIRS) / UDP(sport=1, dport=1)]).packet(0)
    for start in range(0, CONNECTIONS, BLOCK):
        ports = [struct.pack("!HH", 1 + number // 1000, 1 + number % 1000) for number in range(start, start + BLOCK)]
        attributed = walk.attributor.attribute(walk.frames([template[:34] + port + template[38:] for port in ports]))
        assert len(attributed.flows) == BLOCK
        walk.clock.advance(5)
    assert largest(reachable(walk.attributor)) <= LARGEST
