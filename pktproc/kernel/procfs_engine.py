"""The engine `procfs`: sockets from /proc/net, processes from /proc/PID/fd, on any Linux and without privileges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pktproc.attribution.engine import Addresses, Ended, Holdings, Query
from pktproc.errors import Denied
from pktproc.kernel import addresses, namespaces, proc_net
from pktproc.kernel.holders import HolderScan, Listing
from pktproc.kernel.namespaces import Discovery, Namespace
from pktproc.kernel.processes import ProcessReader
from pktproc.kernel.socket_table import SocketTable
from pktproc.model import Process, Socket

Result = TypeVar("Result")

_IPPROTO_RAW = 255


class ProcfsEngine:
    """Answer from the text tables of a procfs; `proc` may be any directory that is laid out like one.

    With a `listing` looks at everyone are left to it, see `HolderScan`.
    `limits` is what the kernel refused or lacks: nothing, since all that there is can be read.
    """

    name = "procfs"
    hears_ends = False

    def __init__(self, proc: Path = Path("/proc"), *, cmdline: bool = True, listing: Listing | None = None) -> None:
        self._proc = proc
        self.limits: list[str] = []
        self._scan = HolderScan(ProcessReader(proc, cmdline=cmdline), listing)
        self._discovery = Discovery(proc)
        self._namespaces = self._discovery.namespaces()

    def companion(self, _namespaces: Iterable[int]) -> ProcfsEngine:
        """Return an engine for use in another thread beside this one."""
        return self

    def close(self) -> None:
        """Let go of everything; nothing is open between calls."""

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces of this host that can be seen, as of now."""
        return frozenset(self.discover())

    def namespaces_in_turns(self) -> frozenset[int]:
        """Return the network namespaces at less cost; moves of old processes may go unnoticed for a few calls."""
        return frozenset(self.discover(in_turns=True))

    def discover(self, *, in_turns: bool = False) -> dict[int, Namespace]:
        """Return the network namespaces that can be seen, as of now, with the ways into them."""
        self._namespaces = self._discovery.namespaces(in_turns=in_turns)
        return self._namespaces

    def readable(self, netns: int) -> bool:
        """Say whether the tables of this namespace can be reached."""
        return self._inside(netns, Path.exists, otherwise=False)

    def addresses(self, netns: int) -> Addresses:
        """Return the addresses of a namespace; none if it cannot be read."""
        return self._inside(netns, addresses.from_procfs, Addresses())

    def sockets(self, netns: int) -> list[Socket]:
        """Return all sockets of a namespace."""
        return [socket for table in proc_net.INET_TABLES for socket in self.table(netns, table)]

    def table(self, netns: int, name: str, ports: Container[str] | None = None) -> list[Socket]:
        """Return the sockets of one table of a namespace, those with local `ports`; none if it cannot be read."""
        return self._inside(netns, lambda net: proc_net.read_table(net, name, netns, ports), [])

    def raw_sockets(self, netns: int) -> tuple[list[Socket], dict[str, int]]:
        """Return the raw and ICMP sockets of a namespace, and how many of which kind are in use (`proc_net.in_use`)."""

        def work(net: Path) -> tuple[list[Socket], dict[str, int]]:
            counts = proc_net.in_use(net)
            tables = proc_net.ICMP_TABLES if counts.get("RAW") == 0 else proc_net.RAW_TABLES + proc_net.ICMP_TABLES
            return [socket for name in tables for socket in proc_net.read_table(net, name, netns)], counts

        nothing: tuple[list[Socket], dict[str, int]] = ([], {})
        return self._inside(netns, work, nothing)

    def candidates(self, queries: Sequence[Query]) -> list[list[Socket]]:
        """Return, for each query, the sockets that may fit; each table is read once."""
        ports: dict[tuple[int, int], set[str]] = defaultdict(set)
        for query in queries:
            ports[query.netns, query.protocol].add(proc_net.hexadecimal(query.local_port))
        tables = {
            (netns, protocol): SocketTable(
                socket for name in proc_net.tables_of(protocol) for socket in self.table(netns, name, wanted)
            )
            for (netns, protocol), wanted in ports.items()
        }
        return [tables[query.netns, query.protocol].candidates(query) for query in queries]

    def injectors(self, netns: int) -> list[Socket]:
        """Return the packet sockets and the raw ones of IPPROTO_RAW (raw(7)) of a namespace, this program's apart."""
        raw = [socket for name in ("raw", "raw6") for socket in self.table(netns, name)]
        injectors = self.table(netns, proc_net.PACKET_TABLE) + [s for s in raw if s.protocol == _IPPROTO_RAW]
        ours = self._scan.own({socket.inode for socket in injectors})
        return [socket for socket in injectors if socket.inode not in ours]

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

    def _inside(self, netns: int, work: Callable[[Path], Result], otherwise: Result) -> Result:
        """Run `work` on the folder with the tables of a namespace; return `otherwise` if it cannot be reached.

        A namespace in which no process is known is entered for it, which takes privileges.
        """
        space = self._namespaces.get(netns)
        if space is None or not _is_still(space):
            space = self.discover().get(netns)
        if space is None:
            return otherwise
        if space.pid is not None:
            result = work(self._proc / str(space.pid) / "net")
            return result if _is_still(space) else otherwise  # or what was read may be of another
        try:
            return namespaces.run_inside(space.path, lambda: work(Path("/proc/thread-self/net")), netns)
        except (Denied, OSError):
            return otherwise


def _is_still(space: Namespace) -> bool:
    try:
        found = namespaces.inode(space.path) if space.pid is None else namespaces.number(space.path)
    except (OSError, ValueError):
        return False
    return found == space.inode
