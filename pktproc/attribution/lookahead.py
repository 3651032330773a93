"""Look at once for the sockets and processes of flows that just began, while the rest of the walk is busy.

What is found is only taken down here. It enters the index later, in the thread that owns the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cachetools import TTLCache

from pktproc.attribution.ends import sender_query
from pktproc.attribution.engine import Engine, Holdings, Query
from pktproc.attribution.matching import select
from pktproc.model import UNSPECIFIED_V4, Flow, Match, Protocol, Socket

_AGAIN_NS = 20_000_000
_MAX_RECENT = 1 << 12


@dataclass(frozen=True, slots=True)
class Sighting:
    """Hold what an engine said of a flow's sender at `asked_ns`, moments after a packet at `packet_ns` (monotonic)."""

    query: Query
    sockets: list[Socket]
    holdings: Holdings
    packet_ns: int
    asked_ns: int


class LookAhead:
    """Ask an engine for the senders of first packets; `clock` returns monotonic nanoseconds.

    TCP is asked for at each SYN, datagrams 50 times a second for each local address and port at most.
    """

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._recent: TTLCache[tuple[int, int, bytes, int], bool] = TTLCache(_MAX_RECENT, _AGAIN_NS, timer=clock)

    def rehearse(self, netns: int) -> None:
        """Ask for what cannot be, so that nothing has to be opened or loaded when the first packet comes."""
        self._engine.candidates([Query(netns, Protocol.TCP, UNSPECIFIED_V4, 0, UNSPECIFIED_V4, 0, outgoing=True)])
        self._engine.newcomers([0])

    def sightings(self, flows: Iterable[tuple[Flow, int]]) -> list[Sighting]:
        """Return what can be found out about the senders of outgoing flows, each with the time of a packet.

        Datagrams without a socket are left out. Of connections of the same ends that follow each other, sockets are
        looked for only for the last.
        """
        found = []
        heard = list(flows)
        last_ns = dict(heard)
        for flow, packet_ns in heard:
            query = sender_query(flow, flow.netns, flow.ifindex)
            if flow.protocol != Protocol.TCP:
                socket = query[:4]
                if socket in self._recent:
                    continue
                self._recent[socket] = True
            asked_ns = self._clock()
            if flow.protocol == Protocol.TCP and packet_ns != last_ns[flow]:
                found.append(Sighting(query, [], Holdings(), packet_ns, asked_ns))
                continue
            selection = select(query, self._engine.candidates([query])[0])
            inodes = [socket.inode for socket in selection.sockets if socket.inode]
            if selection.match is Match.LISTENER:
                continue
            if inodes or flow.protocol == Protocol.TCP:
                found.append(Sighting(query, selection.sockets, self._engine.newcomers(inodes), packet_ns, asked_ns))
        return found


def still_theirs(sightings: Iterable[Sighting], heard: Iterable[tuple[Flow, int]]) -> list[Sighting]:
    """Return sightings without the sockets of those connections after which others of the same ends were `heard`.

    What was seen then may have been the later one's already.
    """
    begun = {sender_query(flow, flow.netns, flow.ifindex) for flow, _ in heard if flow.protocol == Protocol.TCP}
    return [replace(sighting, sockets=[]) if sighting.query in begun else sighting for sighting in sightings]
