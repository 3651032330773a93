"""Sockets as a witness in the kernel sees them used: what the engine `ebpf` tells, as rows and processes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self, TypeVar

from pktproc.attribution.engine import Ends, Use, Way
from pktproc.inventory.rows import AF_INET, AF_INET6, NO_ATTRIBUTES, Holder, Row
from pktproc.inventory.states import CLOSED, ESTABLISHED, SYN_SENT
from pktproc.kernel.ebpf.engine import EbpfEngine
from pktproc.model import DATAGRAM, V4_MAPPED_PREFIX, Process, Protocol, Socket

Key = TypeVar("Key")
Value = TypeVar("Value")

_IPPROTO_MPTCP = 262
KINDS = {
    Protocol.TCP: "tcp",
    Protocol.UDP: "udp",
    Protocol.UDPLITE: "udplite",
    Protocol.SCTP: "sctp",
    Protocol.DCCP: "dccp",
    _IPPROTO_MPTCP: "mptcp",
}
"""The kinds of sockets that can be told by the number of their protocol."""

MOST_SOCKETS = 1 << 16
"""Of so many sockets it is remembered who used them, those that were used last; each costs less than 1 kB."""
_MOST_INCOMING = 1 << 12
_BEGUN = frozenset({Way.CONNECTS, Way.GIVES_UP})
# Packet sockets have no cookie: the pid stands in its place, with this bit.
_NO_COOKIE = 1 << 63


class Sight(NamedTuple):
    """A socket that was used, or that its last holder let go of (`closed`), at `time_ns` (monotonic).

    `process` is who did it or, where that is not told, who made the socket; None if it is not known, or is the kernel.
    """

    time_ns: int
    row: Row
    process: Process | None
    closed: bool = False


class Accounts:
    """Make sights of uses: what is told of a socket bit by bit is put together by its cookie.

    `by_packets` says that connections are told of as their first packets leave.
    """

    def __init__(self, *, by_packets: bool = True) -> None:
        self._by_packets = by_packets
        self._makers: OrderedDict[int, tuple[int, Process | None]] = OrderedDict()
        self._sights: OrderedDict[int, Sight] = OrderedDict()
        self._incoming: OrderedDict[Ends, None] = OrderedDict()

    def sights(self, uses: Iterable[Use]) -> Iterator[Sight]:
        """Yield what uses say of sockets, in their order.

        A socket is shown with the ends that it is told of first. Raw sockets cannot be told from others by what
        they send, so that those are left out whose packets are not of the socket's own protocol.
        """
        for use in uses:
            if use.way is Way.COMES_IN:
                _keep(self._incoming, use.ends, None, _MOST_INCOMING)
            elif use.way is Way.BOUND:
                _keep(self._makers, use.cookie, (use.ends.protocol, use.process), MOST_SOCKETS)
            elif use.way is Way.CLOSED and use.process is None:
                if (sight := self._sights.pop(use.cookie, None)) is not None:
                    yield sight._replace(time_ns=use.time_ns, closed=True)
            elif use.cookie < _NO_COOKIE and use.ends.protocol in KINDS:
                yield from self._used(use)

    def maker(self, cookie: int) -> Process | None:
        """Return who bound a socket to its port or connected it, None if that is not known."""
        return self._makers.get(cookie, (0, None))[1]

    def _used(self, use: Use) -> Iterator[Sight]:
        protocol, maker = self._makers.get(use.cookie, (use.ends.protocol, None))
        if protocol != use.ends.protocol:
            return
        known = None if use.way in _BEGUN else self._sights.get(use.cookie)  # a socket can connect again
        row = _row(use.cookie, use.ends, self._state(use)) if known is None else known.row
        sight = Sight(use.time_ns, row, use.process or maker)
        _keep(self._sights, use.cookie, sight, MOST_SOCKETS)
        yield sight
        if use.way is Way.CLOSED:
            del self._sights[use.cookie]
            yield sight._replace(closed=True)

    def _state(self, use: Use) -> int:
        if use.ends.protocol in DATAGRAM:
            return CLOSED
        begins = use.way is Way.SENT and self._by_packets and use.ends not in self._incoming
        return SYN_SENT if begins or use.way is Way.GIVES_UP else ESTABLISHED


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def _row(cookie: int, ends: Ends, state: int) -> Row:
    netns, protocol, local, local_port, remote, remote_port = ends
    return inet_row(Socket(netns, protocol, local, local_port, remote, remote_port, state, 0, cookie, None))


def inet_row(socket: Socket) -> Row:
    """Return a socket that is in no table any more, or not yet, as a row without queues and attributes."""
    v4 = socket.local_address.startswith(V4_MAPPED_PREFIX)
    return Row(
        netns=socket.netns,
        kind=KINDS.get(socket.protocol, str(socket.protocol)),
        family=AF_INET if v4 else AF_INET6,
        state=socket.state,
        receive_queue=0,
        send_queue=0,
        local=socket.local_address,
        local_port=socket.local_port,
        remote=socket.remote_address,
        remote_port=socket.remote_port,
        ifindex=socket.ifindex,
        cookie=socket.cookie,
        uid=socket.uid,
        inode=0,
        timer=0,
        retransmissions=0,
        expires_ms=0,
        attributes=NO_ATTRIBUTES,
    )


def holders_of(process: Process | None) -> tuple[Holder, ...]:
    """Return a process as the holder of a socket, whose descriptors are not known."""
    return () if process is None else (Holder(process.id, process.name, ()),)


class SocketWitness:
    """Hear from the kernel who uses which socket, on the whole host; a context manager.

    Raise EngineError or OSError where the programs cannot be loaded.
    """

    def __init__(self, *, cmdline: bool = True) -> None:
        self._engine = EbpfEngine(cmdline=cmdline, packets=False)
        self.accounts = Accounts(by_packets=self._engine.follows_packets)
        self.limits = tuple(self._engine.limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unload the programs."""
        self._engine.close()

    def told(self) -> tuple[list[Sight], int]:
        """Return what was seen since the last call, in order, and how much more there was no room for."""
        told = self._engine.told()
        return list(self.accounts.sights(told.uses)), told.lost
