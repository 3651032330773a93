"""Who used an address, a port or a pid, and when, by the evidence of a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from pktproc.attribution.history import RecordedSocket, Span
from pktproc.attribution.locality import is_loopback
from pktproc.attribution.matching import TCP_LISTEN
from pktproc.model import DATAGRAM, UNSPECIFIED, UNSPECIFIED_V4, V4_MAPPED_PREFIX, Protocol
from pktproc.snapshots.layout import Value
from pktproc.snapshots.reader import StoreReader
from pktproc.snapshots.wanted import Wanted

# Elsewhere what stands for a port is the number of a protocol or the id of an echo.
_WITH_PORTS = tuple(map(int, (Protocol.TCP, Protocol.UDP, Protocol.UDPLITE, Protocol.DCCP, Protocol.SCTP)))
_HAS_PORTS = f"s.raw = 0 AND s.protocol IN {_WITH_PORTS}"
_LISTENING = (
    "s.netns = ? AND s.protocol = ? AND s.local_port = ? AND s.remote_port = 0 AND s.raw = 0"
    f" AND s.state = {TCP_LISTEN}"
)
_DATAGRAMS = tuple(sorted(map(int, DATAGRAM)))
_OTHER = "(u.remote_address, u.remote_port) <> (s.remote_address, s.remote_port)"
_FLOWS = (
    "SELECT s.id, u.local_address, u.local_port, u.remote_address, u.remote_port, min(u.time)"
    " FROM use u JOIN socket s ON s.id = u.socket"
)
_ALWAYS = 1 << 62


def search(reader: StoreReader, wanted: Wanted, from_ns: int = -_ALWAYS, to_ns: int = _ALWAYS) -> list[RecordedSocket]:
    """Return the wanted sockets that may have been there between two times, both included, the oldest first."""
    values: dict[str, Value] = {"from": from_ns, "to": to_ns}
    conditions = [_ends(reader, wanted, values)] if wanted.address is not None or wanted.port is not None else []
    if wanted.pid is not None:
        values["pid"] = wanted.pid
        conditions.append(
            "s.id IN (SELECT h.socket FROM process p JOIN holder h ON h.process = p.id WHERE p.pid = :pid)"
        )
    then = "coalesce(s.after, s.first) <= :to AND (s.last IS NULL OR coalesce(s.before, s.last) >= :from)"
    found = reader.sockets(f"{then} AND ({' OR '.join(conditions)})", values)
    if reader.witnessed and (wanted.address is not None or wanted.port is not None):
        found += _flows(reader, wanted, then, values)
    there = [recorded for recorded in found if _may_overlap(recorded.span, from_ns, to_ns)]
    if wanted.port is None and wanted.address is None:
        there = [recorded for recorded in there if _held_by(recorded, wanted.pid, from_ns, to_ns)]
    else:
        there = list(dict.fromkeys([*there, *_listeners(reader, wanted, there)]))
    return sorted(there, key=lambda recorded: recorded.span.first_ns)


def _flows(reader: StoreReader, wanted: Wanted, then: str, values: dict[str, Value]) -> Iterator[RecordedSocket]:
    """Yield what else unconnected datagram sockets sent to and took from, each as if they were connected with it."""
    kind = f"s.protocol IN {_DATAGRAMS} AND u.remote_port <> 0 AND {_OTHER}"
    ends = {
        (row[0], *row[1:5]): row[5]
        for row in reader.rows(
            f"{_FLOWS} WHERE {then} AND {kind} AND ({_exactly(wanted)}) GROUP BY 1, 2, 3, 4, 5", values
        )
    }
    wanted_ids = json.dumps(sorted({row for row, *_ in ends}))
    by_row = dict(reader.numbered_sockets("s.id IN (SELECT value FROM json_each(?))", (wanted_ids,)))
    for (row, local_address, local_port, remote_address, remote_port), first_ns in ends.items():
        recorded = by_row[row]
        socket = recorded.socket._replace(
            local_address=local_address, local_port=local_port, remote_address=remote_address, remote_port=remote_port
        )
        span = recorded.span._replace(after_ns=first_ns - 1, first_ns=first_ns)
        yield recorded._replace(socket=socket, span=span._replace(last_ns=max(first_ns, span.last_ns)))


def _exactly(wanted: Wanted) -> str:
    """Return the condition for a use with an end that has the address, the port, or both."""
    if wanted.address is None:
        return ":port IN (u.local_port, u.remote_port)"
    if wanted.port is None:
        return ":address IN (u.local_address, u.remote_address)"
    return " OR ".join(f"(u.{side}_port = :port AND u.{side}_address = :address)" for side in ("local", "remote"))


def _listeners(reader: StoreReader, wanted: Wanted, found: Iterable[RecordedSocket]) -> Iterator[RecordedSocket]:
    """Yield the listeners that connections came in through, where they tell more than these do.

    They are the only trace of who took a connection that no look found, and of who serves an address on the wildcard.
    """
    served: dict[tuple[int, int, int], list[RecordedSocket]] = {}
    for one in found:
        socket = one.socket
        if socket.protocol != Protocol.TCP or not socket.remote_port:
            continue
        if not one.holders or (wanted.port is None and socket.local_address == wanted.address):
            served.setdefault((socket.netns, socket.protocol, socket.local_port), []).append(one)
    for place, connections in served.items():
        for listener in reader.sockets(_LISTENING, place):
            if any(_took(listener, connection) for connection in connections):
                yield listener


def _took(listener: RecordedSocket, connection: RecordedSocket) -> bool:
    own, served = listener.socket.local_address, connection.socket.local_address
    fits = own in (served, UNSPECIFIED) or (own == UNSPECIFIED_V4 and served.startswith(V4_MAPPED_PREFIX))
    return fits and _may_overlap(listener.span, connection.span.begin_ns(0), connection.span.last_ns)


def _ends(reader: StoreReader, wanted: Wanted, values: dict[str, Value]) -> str:
    values["port"], values["address"] = wanted.port, wanted.address
    if wanted.address is None:
        return f"{_HAS_PORTS} AND :port IN (s.local_port, s.remote_port)"
    if wanted.port is None:
        return ":address IN (s.local_address, s.remote_address)"
    local, remote = (f"s.{side}_port = :port AND s.{side}_address = :address" for side in ("local", "remote"))
    condition = f"({local}) OR ({remote})"
    if is_loopback(wanted.address) or reader.rows("SELECT 1 FROM address WHERE address = ? LIMIT 1", (wanted.address,)):
        values |= {"v4": UNSPECIFIED_V4, "v6": UNSPECIFIED}
        condition += " OR (s.local_port = :port AND s.remote_port = 0 AND s.local_address IN (:v4, :v6))"
    return f"{_HAS_PORTS} AND ({condition})"


def _may_overlap(span: Span, from_ns: int, to_ns: int) -> bool:
    return span.begin_ns(0) <= to_ns and (span.end_ns(0) > from_ns or span.covers(from_ns))


def _held_by(recorded: RecordedSocket, pid: int | None, from_ns: int, to_ns: int) -> bool:
    return any(holder.process.pid == pid and _may_overlap(holder.span, from_ns, to_ns) for holder in recorded.holders)
