"""The TCP states of connections, asked of the kernel when they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pktproc.attribution.engine import Ends, Query
from pktproc.bandwidth.views import Connection
from pktproc.kernel.engines import LocalEngine
from pktproc.model import V4_MAPPED_PREFIX, Protocol

CLOSED = "CLOSED"
_STATES = {
    1: "ESTABLISHED",
    2: "SYN-SENT",
    3: "SYN-RECV",
    4: "FIN-WAIT-1",
    5: "FIN-WAIT-2",
    6: "TIME-WAIT",
    7: CLOSED,
    8: "CLOSE-WAIT",
    9: "LAST-ACK",
    11: "CLOSING",
    12: "SYN-RECV",
}
"""TCP states (RFC 9293) by the kernel's numbers (net/tcp_states.h)."""

_MOST_NAMESPACES = 64
_LOOPBACK_V4, _LOOPBACK_V6 = V4_MAPPED_PREFIX + bytes((127,)), bytes(15) + bytes((1,))


class TcpStates:
    """Ask an engine of its own, which no other thread may use, for the states of sockets."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def added_to(self, connections: Sequence[Connection]) -> tuple[Connection, ...]:
        """Return the connections with the states that their sockets have now.

        The socket of an end can be in another namespace than the packets were captured in: in one with its address.
        """
        wanted = {Ends(*one[:6]) for one in connections if one.protocol == Protocol.TCP and one.remote_port}
        states = self._found({ends: ends for ends in wanted})
        missing = wanted - states.keys()
        if missing:
            for netns, local in self._addresses():
                here = [ends for ends in missing if ends.local_address in local and _can_be_in(netns, ends)]
                moved = {ends._replace(netns=netns): ends for ends in here}
                states |= dict.fromkeys(moved.values(), CLOSED) | states | self._found(moved)
        return tuple(one._replace(state=states.get(Ends(*one[:6]))) for one in connections)

    def _found(self, wanted: Mapping[Ends, Ends]) -> dict[Ends, str]:
        """Return the states of sockets with the ends that are the keys, each for the ends that it is wanted for."""
        found = self._engine.candidates([Query(*ends) for ends in wanted]) if wanted else []
        return {
            wanted[ends]: _STATES.get(socket.state, CLOSED)
            for ends, sockets in zip(wanted, found, strict=True)
            for socket in sockets
            if socket[:6] == ends
        }

    def _addresses(self) -> Iterator[tuple[int, frozenset[bytes]]]:
        """Yield namespaces with the addresses that they have."""
        for netns in sorted(self._engine.namespaces())[:_MOST_NAMESPACES]:
            yield netns, self._engine.addresses(netns).local


def _can_be_in(netns: int, ends: Ends) -> bool:
    """Say whether the socket of an end can be in a namespace that has its address: every one has loopback ones."""
    address = ends.local_address
    return netns == ends.netns or not (address == _LOOPBACK_V6 or address.startswith(_LOOPBACK_V4))
