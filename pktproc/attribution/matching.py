"""Which of several sockets a packet belongs to: the kernel's own order of look-up, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pktproc.attribution.engine import Query
from pktproc.model import UNSPECIFIED, UNSPECIFIED_V4, V4_MAPPED_PREFIX, Match, Protocol, Socket

TCP_LISTEN = 10  # net/tcp_states.h
_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})
_CONNECTED = frozenset({Protocol.TCP, Protocol.DCCP, Protocol.SCTP})
_UNSPECIFIED = (UNSPECIFIED, UNSPECIFIED_V4)


class Selection(NamedTuple):
    """The sockets that fit a query equally well and how they fit; `match` is None when there are none."""

    match: Match | None
    sockets: list[Socket]


def select(query: Query, sockets: Iterable[Socket]) -> Selection:
    """Return the best fit: exact connection, then bound to the address, then to the wildcard address.

    Of a connection-oriented protocol only listeners can fit without being connected. A sender may also be bound
    to the wildcard while another socket has the very address, so outgoing queries keep both; so do
    multicast and broadcast, which reach both. A dual-stack `::` socket fits IPv4 unless an IPv4 socket does
    (compute_score in net/ipv4/udp.c and net/ipv4/inet_hashtables.c prefer PF_INET).
    """
    fitting = [socket for socket in sockets if _may_fit(query, socket)]
    exact = [socket for socket in fitting if _is_exact(query, socket)]
    if exact:
        return Selection(Match.EXACT, exact)
    free = [s for s in fitting if _is_free(s) and _device_fits(query, s)]
    if not all(socket.raw for socket in free):
        free = [socket for socket in free if not socket.raw]  # a ping socket has the very id; a raw one hears all
    match = Match.BOUND
    if query.protocol in _CONNECTED:
        free = [socket for socket in free if socket.state == TCP_LISTEN]
        match = Match.LISTENER
    specific = [socket for socket in free if socket.local_address == query.local_address]
    wildcard = _wildcard(query, free)
    both = query.fan_out or (query.outgoing and match is Match.BOUND)
    chosen = specific + wildcard if both else specific or wildcard
    return Selection(match, chosen) if chosen else Selection(None, [])


def select_listeners(query: Query, sockets: Iterable[Socket]) -> Selection:
    """Return the listeners that a not yet accepted connection came through."""
    return select(query, [socket for socket in sockets if socket.state == TCP_LISTEN])


def _may_fit(query: Query, socket: Socket) -> bool:
    return (
        socket.netns == query.netns
        and socket.protocol == query.protocol
        and (_raw_may_fit(query, socket) if socket.raw else socket.local_port == query.local_port)
    )


def _raw_may_fit(query: Query, socket: Socket) -> bool:
    return socket.remote_address in (*_UNSPECIFIED, query.remote_address)


def _is_exact(query: Query, socket: Socket) -> bool:
    return (
        socket.remote_port == query.remote_port
        and socket.remote_address == query.remote_address
        and socket.local_address == query.local_address
        and not socket.raw
        and not _is_unconnected(socket)
    )


def _is_free(socket: Socket) -> bool:
    """Say whether a socket takes packets from anywhere; ping sockets always do (ping_lookup in net/ipv4/ping.c)."""
    return socket.raw or socket.protocol in _ICMP or _is_unconnected(socket)


def _is_unconnected(socket: Socket) -> bool:
    return socket.remote_port == 0 and socket.remote_address in _UNSPECIFIED


def _device_fits(query: Query, socket: Socket) -> bool:
    return not query.ifindex or socket.ifindex in (0, query.ifindex)


def _wildcard(query: Query, sockets: list[Socket]) -> list[Socket]:
    if not query.local_address.startswith(V4_MAPPED_PREFIX):
        return [socket for socket in sockets if socket.local_address == UNSPECIFIED]
    v4 = [socket for socket in sockets if socket.local_address == UNSPECIFIED_V4]
    dual = [socket for socket in sockets if socket.local_address == UNSPECIFIED and not socket.v6_only]
    return v4 + dual if query.fan_out or query.outgoing else v4 or dual


def accepted(query: Query, sockets: list[Socket]) -> Selection:
    """Return what fits; a connection that no file holds may belong to the listener that it came through."""
    selection = select(query, sockets)
    if selection.match is Match.EXACT and not any(socket.inode for socket in selection.sockets):
        listeners = select_listeners(query, sockets)
        if listeners.sockets:
            return Selection(Match.LISTENER, [*selection.sockets, *listeners.sockets])
    return selection
