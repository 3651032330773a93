"""The engine `netlink`: sockets from sock_diag, with their cookies and ends; the rest from procfs."""

from __future__ import annotations

import select
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from pktproc.attribution.engine import Addresses, Ended, Holdings, Query
from pktproc.errors import Denied, EngineError, Unsupported
from pktproc.kernel import inet_diag, namespaces
from pktproc.kernel.addresses import AddressSocket
from pktproc.kernel.namespaces import Namespace
from pktproc.kernel.procfs_engine import ProcfsEngine
from pktproc.kernel.sock_diag import DiagSocket, EndedSockets
from pktproc.kernel.socket_table import SocketTable
from pktproc.model import Process, Protocol, Socket

# Above this many look-ups at once one dump of the table is cheaper (6 us a look-up in the kernel, 25 ms a 16 k dump).
_MAX_EXACT = 128
_MAX_PORT_DUMPS = 8
_EXACT_PROTOCOLS = frozenset({Protocol.TCP, Protocol.DCCP})
_DIAG_PROTOCOLS = (Protocol.TCP, Protocol.UDP, Protocol.UDPLITE, Protocol.SCTP, Protocol.DCCP)
_LISTEN_STATES = 1 << inet_diag.TCP_LISTEN


class _Room:
    """The sockets with which one network namespace is asked; `hears` says whether for the ends of sockets, too."""

    def __init__(self, netns: int, *, hears: bool) -> None:
        self.diag = DiagSocket(netns)
        self.addresses = AddressSocket()
        self.known: dict[int, dict[inet_diag.Lasting, Socket]] = {}
        self.ended: EndedSockets | None = None
        self.deaf = ""
        if not hears:
            return
        try:
            self.ended = EndedSockets(netns)
        except (Denied, Unsupported) as error:
            self.deaf = str(error)

    def close(self) -> None:
        self.diag.close()
        self.addresses.close()
        if self.ended:
            self.ended.close()


class NetlinkEngine:
    """Answer from sock_diag where the kernel has a handler, from procfs where it has not.

    Sockets of a namespace are asked through netlink sockets made inside it; those are closed again when the namespace
    has neither a process nor a name left, so that it can die. `limits` says what the kernel refused or lacks, once
    each.
    """

    name = "netlink"

    def __init__(
        self, proc: Path = Path("/proc"), *, cmdline: bool = True, floor: ProcfsEngine | None = None, hears: bool = True
    ) -> None:
        self._floor = floor or ProcfsEngine(proc, cmdline=cmdline)
        self._hears = hears
        self._rooms: dict[int, _Room | None] = {}
        self._own = namespaces.current()
        self._spaces = namespaces.discover(proc)
        self._unsupported: set[int] = set()
        self.limits: list[str] = []
        room = _Room(self._own, hears=hears)
        self._rooms[self._own] = room
        list(room.diag.dump(Protocol.TCP, states=_LISTEN_STATES))
        self.hears_ends = room.ended is not None
        if room.deaf:
            self._limit(room.deaf)

    def companion(self, namespaces: Iterable[int]) -> NetlinkEngine:
        """Return an engine for use in another thread beside this one, ready to be asked about some namespaces.

        It has its own netlink sockets, shares the view of processes and does not hear of ends.
        """
        companion = NetlinkEngine(floor=self._floor, hears=False)
        for netns in namespaces:
            companion._room(netns)
        return companion

    def close(self) -> None:
        """Close the netlink sockets of all namespaces."""
        for room in self._rooms.values():
            if room:
                room.close()
        self._rooms.clear()

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces of this host that can be seen, as of now, and let go of dead ones."""
        return self._let_go_of_dead(self._floor.discover())

    def namespaces_in_turns(self) -> frozenset[int]:
        """Return the network namespaces at less cost; moves of old processes may go unnoticed for a few calls."""
        return self._let_go_of_dead(self._floor.discover(in_turns=True))

    def _let_go_of_dead(self, spaces: dict[int, Namespace]) -> frozenset[int]:
        self._spaces = spaces
        for netns in self._rooms.keys() - self._spaces.keys() - {self._own}:
            if room := self._rooms.pop(netns):
                room.close()
        return frozenset(self._spaces)

    def readable(self, netns: int) -> bool:
        """Say whether the sockets of a namespace can be asked for, in it or through procfs."""
        return self._room(netns) is not None or self._floor.readable(netns)

    def addresses(self, netns: int) -> Addresses:
        """Return the addresses of a namespace; none if it cannot be read."""
        room = self._room(netns)
        return room.addresses.addresses() if room else self._floor.addresses(netns)

    def sockets(self, netns: int) -> list[Socket]:
        """Return all sockets of a namespace."""
        room = self._room(netns)
        if room is None:
            return self._floor.sockets(netns)
        found, in_use = self._floor.raw_sockets(netns)
        for protocol in _DIAG_PROTOCOLS:
            found += self._survey(room, protocol, in_use.get(protocol.name))
        return found

    def candidates(self, queries: Sequence[Query]) -> list[list[Socket]]:
        """Return, for each query, the sockets that may fit."""
        results: list[list[Socket]] = [[] for _ in queries]
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for position, query in enumerate(queries):
            groups[query.netns, query.protocol].append(position)
        for (netns, protocol), positions in groups.items():
            room = self._room(netns)
            group = [queries[position] for position in positions]
            for position, sockets in zip(positions, self._group(room, protocol, group), strict=True):
                results[position] = sockets
        return results

    def injectors(self, netns: int) -> list[Socket]:
        """Return the sockets of a namespace that send whatever their user makes up."""
        return self._floor.injectors(netns)

    def ended(self) -> Ended:
        """Return the sockets that ended since the last call, in all namespaces that were asked so far."""
        heard = [room.ended for room in self._rooms.values() if room and room.ended]
        received = [(one, *one.receive()) for one in heard]
        lost = any(overrun for _, _, overrun in received)
        if not any(notices for _, notices, _ in received):
            return Ended([], lost)
        known = self._seen_otherwise()
        return Ended([socket for one, notices, _ in received for socket in one.sockets_in(notices, known)], lost)

    def _seen_otherwise(self) -> Container[int]:
        """Return the cookies of sockets whose ends need not be told; asked once their notices have been received."""
        return ()

    def wait_for_ends(self, timeout_s: float) -> bool:
        """Wait until a socket ends, in the namespaces that were asked so far; return False if none does in time."""
        waiting = select.poll()
        for room in self._rooms.values():
            if room and room.ended:
                waiting.register(room.ended.fileno(), select.POLLIN)
        return bool(waiting.poll(timeout_s * 1000))

    def everyone(self, wanted: Mapping[int, int | None]) -> Holdings:
        """Look for wanted inodes (-> uid where known) in every process."""
        return self._floor.everyone(wanted)

    def newcomers(self, wanted: Iterable[int]) -> Holdings:
        """Look for wanted inodes only in processes that started since the last look at everyone."""
        return self._floor.newcomers(wanted)

    def recheck(self, held: Mapping[int, Sequence[Process]]) -> Holdings:
        """Look again at the holders of inodes, and at newcomers, which may have inherited them."""
        return self._floor.recheck(held)

    def _room(self, netns: int) -> _Room | None:
        if netns not in self._rooms and netns in self._spaces:
            self._enter(netns)
        return self._rooms.get(netns)

    def _enter(self, netns: int) -> None:
        """Make the room in a namespace: None where it may not be entered, nothing where it is gone."""

        def made(path: Path) -> _Room:
            return namespaces.run_inside(path, lambda: _Room(netns, hears=self._hears), netns)

        try:
            room = namespaces.reach(self._spaces[netns], made, self._discovered)
        except (Denied, OSError) as error:
            self._rooms[netns] = None
            self._limit(str(error))
            return
        if room is not None:
            self._rooms[netns] = room
            if room.deaf:
                self._limit(room.deaf)

    def _discovered(self) -> dict[int, Namespace]:
        self._spaces = self._floor.discover()
        return self._spaces

    def _limit(self, message: str) -> None:
        if message not in self.limits:
            self.limits.append(message)

    def _group(self, room: _Room | None, protocol: int, queries: list[Query]) -> list[list[Socket]]:
        if room is None or protocol not in _DIAG_PROTOCOLS or protocol in self._unsupported:
            return self._floor.candidates(queries)
        try:
            if protocol in _EXACT_PROTOCOLS and len(queries) <= _MAX_EXACT:
                return _exact(room.diag, protocol, queries)
            return _by_port(room.diag, protocol, queries)
        except Unsupported as error:
            self._unsupported.add(protocol)
            self._limit(f"{error}; reading procfs instead")
            return self._floor.candidates(queries)

    def _survey(self, room: _Room, protocol: int, in_use: int | None) -> Iterable[Socket]:
        """Return all sockets of a protocol; those that have not changed since the last time are the same objects.

        Of none in use nothing is asked. Where nothing of TCP but listeners is in use, the host's table of connections
        is not walked.
        """
        if in_use == 0:
            return ()
        try:
            known = room.known.get(protocol, {})
            found: dict[inet_diag.Lasting, Socket] | None = None
            if protocol == Protocol.TCP and in_use is not None:
                found = room.diag.survey(protocol, known, states=_LISTEN_STATES)
            if found is None or len(found) != in_use:
                found = room.diag.survey(protocol, known)
            room.known[protocol] = found
            return found.values()
        except (Unsupported, EngineError):
            self._unsupported.add(protocol)
            return [socket for table in _tables(protocol) for socket in self._floor.table(room.diag.netns, table)]


def _tables(protocol: int) -> tuple[str, ...]:
    names = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.UDPLITE: "udplite"}
    name = names.get(Protocol(protocol))
    return (name, f"{name}6") if name else ()


def _exact(diag: DiagSocket, protocol: int, queries: list[Query]) -> list[list[Socket]]:
    """Look each query up; add the listeners of its port where no file holds the connection."""
    results: list[list[Socket]] = []
    listeners: dict[int, list[Socket]] = {}
    for query in queries:
        found = diag.find(
            protocol,
            local=(query.local_address, query.local_port),
            remote=(query.remote_address, query.remote_port),
            ifindex=query.ifindex,
        )
        if found is None:
            results.append([])
        elif found.state == inet_diag.TCP_LISTEN or not found.inode:
            port = query.local_port
            if port not in listeners:
                listeners[port] = list(diag.dump(protocol, states=_LISTEN_STATES, port=port))
            results.append([found, *(socket for socket in listeners[port] if socket.cookie != found.cookie)])
        else:
            results.append([found])
    return results


def _by_port(diag: DiagSocket, protocol: int, queries: list[Query]) -> list[list[Socket]]:
    ports = {query.local_port for query in queries}
    connected: list[list[Socket]] = [[] for _ in queries]
    if len(queries) <= _MAX_PORT_DUMPS:
        connected = [_connected(diag, protocol, query) for query in queries]
        ports = {query.local_port for query, found in zip(queries, connected, strict=True) if not found}
    if len(ports) <= _MAX_PORT_DUMPS:
        table = SocketTable(socket for port in ports for socket in diag.dump(protocol, port=port))
    else:
        table = SocketTable(diag.dump(protocol))
    return [found or table.candidates(query) for query, found in zip(queries, connected, strict=True)]


def _connected(diag: DiagSocket, protocol: int, query: Query) -> list[Socket]:
    """Return the socket that is connected just so, in a list that is empty if there is none."""
    found = diag.find(
        protocol,
        local=(query.local_address, query.local_port),
        remote=(query.remote_address, query.remote_port),
        ifindex=query.ifindex,
    )
    if found and found[2:6] == (query.local_address, query.local_port, query.remote_address, query.remote_port):
        return [found]
    return []
