"""Several saved evidences of one host as one: what each of them has seen was so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from cachetools import LRUCache

from pktproc.attribution.history import (
    Coverage,
    History,
    RecordedAddress,
    RecordedHolder,
    RecordedSocket,
    Span,
    Testimony,
)
from pktproc.model import Process, Socket

MAX_PROCESSES = 1 << 14
# A fact that one recording saw no end of and another one sees so soon afterwards is the same one, going on.
_BREAK_NS = 2_000_000_000

_Identity = tuple[object, ...]


def together(histories: Iterable[History]) -> list[History]:
    """Return one history for each host."""
    groups: list[tuple[frozenset[str], list[History]]] = []
    for history in histories:
        hosts, members = history.hosts(), [history]
        apart = []
        for group in groups:
            if group[0] & hosts:
                hosts, members = hosts | group[0], group[1] + members
            else:
                apart.append(group)
        groups = [*apart, (hosts, members)]
    return [members[0] if len(members) == 1 else MergedHistory(members) for _, members in groups]


class MergedHistory:
    """Answer from several histories of one host, in which a socket or a process that several have is one."""

    def __init__(self, histories: Sequence[History]) -> None:
        self._histories = histories
        self.name = histories[0].name
        self._processes: LRUCache[tuple[object, ...], Process] = LRUCache(MAX_PROCESSES)

    def hosts(self) -> frozenset[str]:
        """Return what tells the host."""
        return frozenset().union(*(history.hosts() for history in self._histories))

    def coverage(self) -> Sequence[Coverage]:
        """Return the intervals in which any recording ran, in order, without overlap."""
        return _coverage([one for history in self._histories for one in history.coverage()])

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces that were ever recorded."""
        return frozenset().union(*(history.namespaces() for history in self._histories))

    def namespaces_with(self, protocol: int, local_port: int) -> frozenset[int]:
        """Return the namespaces that ever had a socket with a protocol and local port, or a raw one of the protocol."""
        return frozenset().union(*(history.namespaces_with(protocol, local_port) for history in self._histories))

    def addresses(self, address: bytes) -> Sequence[RecordedAddress]:
        """Return when which namespaces had a 16-byte address, as their own or for broadcasts."""
        return [recorded for history in self._histories for recorded in history.addresses(address)]

    def connected(
        self, netns: int, protocol: int, local_port: int, remote_address: bytes, remote_port: int
    ) -> Sequence[RecordedSocket]:
        """Return the sockets of a namespace, at any time, with a protocol and local port and connected with an end."""
        return self._merged(lambda one: one.connected(netns, protocol, local_port, remote_address, remote_port))

    def free(self, netns: int, protocol: int, local_port: int) -> Sequence[RecordedSocket]:
        """Return the sockets of a namespace, at any time, with a protocol and local port and connected with nobody."""
        return self._merged(lambda one: one.free(netns, protocol, local_port))

    def users(
        self, netns: int, protocol: int, local_port: int, first_ns: int, last_ns: int
    ) -> frozenset[tuple[int, int]]:
        """Return (pid, start_ticks) of the processes that were first seen to hold a connection on a port in a time."""
        users = (history.users(netns, protocol, local_port, first_ns, last_ns) for history in self._histories)
        return frozenset().union(*users)

    def testimonies(self) -> Sequence[Testimony]:
        """Return what witnesses told, for each of the recordings."""
        return [testimony for history in self._histories for testimony in history.testimonies()]

    def _merged(self, look_up: Callable[[History], Sequence[RecordedSocket]]) -> Sequence[RecordedSocket]:
        merged: list[RecordedSocket] = []
        places: dict[_Identity, list[int]] = {}
        for history in self._histories:
            seen_before = len(merged)
            for recorded in look_up(history):
                holders = tuple(RecordedHolder(self._one(holder.process), holder.span) for holder in recorded.holders)
                one = recorded._replace(holders=holders)
                identities = _identities(one.socket)
                for place in dict.fromkeys(p for i in identities for p in places.get(i, ()) if p < seen_before):
                    if _meet(merged[place].span, one.span):
                        merged[place] = _joined(merged[place], one)
                        break
                else:
                    for identity in identities:
                        places.setdefault(identity, []).append(len(merged))
                    merged.append(one)
        return merged

    def _one(self, process: Process) -> Process:
        """Return a process as it was described first, if it was the same program."""
        return self._processes.setdefault((process.id, process.name, process.exe), process)


def _identities(socket: Socket) -> list[_Identity]:
    """Return what tells a socket; not each recording knows both."""
    numbers = (("cookie", socket.cookie), ("inode", socket.inode))
    return [(socket[:6], socket.raw, *number) for number in numbers if number[1]]


def _meet(one: Span, other: Span) -> bool:
    return max(one.first_ns, other.first_ns) <= min(one.end_ns(_BREAK_NS), other.end_ns(_BREAK_NS))


def _joined(one: RecordedSocket, other: RecordedSocket) -> RecordedSocket:
    """Return a socket of which two recordings tell; one may have heard of nothing but its end, and knows no inode."""
    holders = list(one.holders)
    for holder in other.holders:
        for place, known in enumerate(holders):
            if known.process == holder.process and _meet(known.span, holder.span):
                holders[place] = known._replace(span=_united(known.span, holder.span))
                break
        else:
            holders.append(holder)
    socket = one.socket if one.socket.inode else other.socket
    return RecordedSocket(socket, _united(one.span, other.span), tuple(holders))


def _united(one: Span, other: Span) -> Span:
    """Return the span of a fact that both are of."""
    seen = [span for span in (one, other) if span.before_ns is None or span.first_ns < span.before_ns] or [one]
    first_ns, last_ns = min(span.first_ns for span in seen), max(span.last_ns for span in seen)
    after_ns = max((span.after_ns for span in (one, other) if span.after_ns is not None), default=None)
    before_ns = min((span.before_ns for span in (one, other) if span.before_ns is not None), default=None)
    return Span(
        None if after_ns is None else min(after_ns, first_ns),
        first_ns,
        last_ns,
        None if before_ns is None else max(before_ns, last_ns),
    )


def _coverage(coverage: Sequence[Coverage]) -> list[Coverage]:
    """Return times of recording without overlap; ends are heard where one of the recordings hears them."""
    cuts = sorted({cut for one in coverage for cut in (one.first_ns, one.last_ns + 1)})
    waiting = sorted(coverage, reverse=True)
    running: list[Coverage] = []
    found: list[Coverage] = []
    for first_ns, end_ns in pairwise(cuts):
        running = [one for one in running if one.last_ns >= first_ns]
        while waiting and waiting[-1].first_ns <= first_ns:
            running.append(waiting.pop())
        if running:
            best = min(running, key=lambda one: (not one.hears_ends, one.interval_ns or 1 << 62))
            is_cut = all(one.is_cut and one.first_ns == first_ns for one in running)
            found.append(best._replace(first_ns=first_ns, last_ns=end_ns - 1, is_cut=is_cut))
    return found
