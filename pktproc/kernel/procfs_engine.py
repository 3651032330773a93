"""The engine `procfs`: sockets from /proc/net, processes from /proc/PID/fd, on any Linux and without privileges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pktproc.attribution.engine import Addresses, Ended, Holdings, Query
from pktproc.kernel import addresses, namespaces, proc_net
from pktproc.kernel.holders import HolderScan
from pktproc.kernel.namespaces import Namespace
from pktproc.kernel.processes import ProcessReader
from pktproc.model import Process, Socket


class ProcfsEngine:
    """Answer from the text tables of a procfs; `proc` may be any directory that is laid out like one."""

    name = "procfs"
    hears_ends = False

    def __init__(self, proc: Path = Path("/proc"), *, cmdline: bool = True) -> None:
        self._proc = proc
        self._scan = HolderScan(ProcessReader(proc, cmdline=cmdline))
        self._namespaces = namespaces.discover(proc)

    def close(self) -> None:
        """Let go of everything; nothing is open between calls."""

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces of this host that can be seen, as of now."""
        self._namespaces = namespaces.discover(self._proc)
        return frozenset(self._namespaces)

    def readable(self, netns: int) -> bool:
        """Say whether some process shows the tables of this namespace."""
        return self._net(netns) is not None

    def addresses(self, netns: int) -> Addresses:
        """Return the addresses of a namespace; none if it cannot be read."""
        net = self._net(netns)
        return addresses.from_procfs(net) if net else Addresses()

    def sockets(self, netns: int) -> list[Socket]:
        """Return all sockets of a namespace."""
        return [socket for table in proc_net.INET_TABLES for socket in self.table(netns, table)]

    def table(self, netns: int, name: str) -> list[Socket]:
        """Return the sockets of one table of a namespace; none if it cannot be read."""
        net = self._net(netns)
        return proc_net.read_table(net, name, netns) if net else []

    def candidates(self, queries: Sequence[Query]) -> list[list[Socket]]:
        """Return, for each query, the sockets with its protocol and local port; each table is read once."""
        by_port: dict[tuple[int, int], dict[int, list[Socket]]] = {}
        raw: dict[tuple[int, int], list[Socket]] = {}
        for netns, protocol in {(query.netns, query.protocol) for query in queries}:
            ports: dict[int, list[Socket]] = defaultdict(list)
            raw_sockets: list[Socket] = []
            for table in proc_net.tables_of(protocol):
                for socket in self.table(netns, table):
                    (raw_sockets if socket.raw else ports[socket.local_port]).append(socket)
            by_port[netns, protocol] = ports
            raw[netns, protocol] = raw_sockets
        return [
            by_port[query.netns, query.protocol].get(query.local_port, []) + raw[query.netns, query.protocol]
            for query in queries
        ]

    def ended(self) -> Ended:
        """Return nothing: procfs does not tell when sockets end."""
        return Ended()

    def everyone(self, wanted: Mapping[int, int | None]) -> Holdings:
        """Look for wanted inodes (-> uid where known) in every process."""
        return self._scan.everyone(wanted)

    def newcomers(self, wanted: Iterable[int]) -> Holdings:
        """Look for wanted inodes only in processes that started since the last look at everyone."""
        return self._scan.newcomers(wanted)

    def recheck(self, held: Mapping[int, Sequence[Process]]) -> Holdings:
        """Look again at the holders of inodes, and at newcomers, which may have inherited them."""
        return self._scan.recheck(held)

    def _net(self, netns: int) -> Path | None:
        space = self._namespaces.get(netns)
        if space is None or space.pid is None:
            return None
        net = self._proc / str(space.pid) / "net"
        if not self._still_in(space):
            self.namespaces()
            space = self._namespaces.get(netns)
            return self._proc / str(space.pid) / "net" if space and space.pid else None
        return net

    @staticmethod
    def _still_in(space: Namespace) -> bool:
        try:
            return namespaces.inode(space.path) == space.inode
        except OSError:
            return False
