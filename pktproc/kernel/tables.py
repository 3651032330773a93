"""The socket tables of one network namespace, read from outside it."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pktproc.errors import Denied, EngineError, Unsupported
from pktproc.inventory.rows import Row
from pktproc.kernel import inet_table, namespaces, netlink_diag, packet_diag, proc_rows, unix_diag, vsock_diag
from pktproc.kernel.diag_dump import DumpSocket
from pktproc.kernel.inet_table import Fields

TABLES = ("tcp", "udp", "udplite", "raw", "icmp", "sctp", "dccp", "mptcp", "unix", "packet", "nl", "vsock")
"""The tables that can be asked for, in the order of a listing."""

if TYPE_CHECKING:
    from pktproc.kernel.sock_diag import EndedSockets

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_GONE = frozenset({errno.ENOENT, errno.ESTALE})
_COOKIES = Row._fields.index("cookie")
_COOKIE = attrgetter("cookie")
_ASSOCIATION = attrgetter("cookie", "local", "local_port", "remote", "remote_port")


class Extent(NamedTuple):
    """How much is asked of a table: `states` is a mask, `info` and `memory` ask for what `ss -i` and `-m` show.

    `binding` asks which sockets have a port that nobody asked for.
    """

    states: int
    info: bool = False
    memory: bool = False
    binding: bool = False

    @property
    def extensions(self) -> int:
        """Return the bits of inet_diag for what is asked."""
        wanted = inet_table.SHUTDOWN if self.info or self.memory else 0
        return wanted | (inet_table.INFO if self.info else 0) | (inet_table.MEMORY if self.memory else 0)


class Tables:
    """Read the tables of the namespace `netns` at `path`, None for the own one.

    `missing` maps the tables that this kernel does not show to the reason. Raise `Denied` if the namespace may not be
    entered, OSError if it is gone.
    """

    def __init__(self, netns: int, path: Path | None) -> None:
        self.netns = netns
        self.missing: dict[str, str] = {}
        with ExitStack() as opened:
            self._path = None if path is None else _held(path, netns, opened)
            self._diag = namespaces.run_inside(self._path, lambda: DumpSocket(netns))
            opened.callback(self._diag.close)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let go of the namespace."""
        self._opened.close()

    def interfaces(self) -> dict[int, str]:
        """Return the names of the namespace's interfaces by ifindex."""
        return namespaces.run_inside(self._path, lambda: dict(socket.if_nameindex()))

    def ephemeral_ports(self) -> tuple[int, int]:
        """Return the first and the last port that the kernel gives out where none is asked for (ip(7))."""
        text = namespaces.run_inside(self._path, lambda: _PORT_RANGE.read_text(encoding="ascii"))
        first, last = map(int, text.split())
        return first, last

    def ended(self) -> EndedSockets:
        """Return what hears of the ends of TCP and UDP sockets; raise `Denied` or `Unsupported` where nothing does."""
        from pktproc.kernel.sock_diag import EndedSockets  # noqa: PLC0415 - few listings need it

        return namespaces.run_inside(self._path, lambda: EndedSockets(self.netns))

    def destroy(self, row: Row) -> None:
        """Have the kernel close the socket of a row, whoever holds it (SOCK_DESTROY).

        Raise `Unsupported` for a kind or state that it does not close, `Denied` without CAP_NET_ADMIN, and EngineError
        if the socket is gone by now.
        """
        if row.kind not in inet_table.PROTOCOLS or not row.cookie:
            raise Unsupported(f"the kernel closes no {row.kind} sockets")
        code = self._diag.destroy(inet_table.destroy_request(row))
        if code in (errno.EPERM, errno.EACCES):
            raise Denied("closing sockets needs CAP_NET_ADMIN: run as root")
        if code in (errno.EOPNOTSUPP, errno.EINVAL):
            raise Unsupported(f"the kernel does not close {row.kind} sockets in this state")
        if code:
            raise EngineError(f"the socket is gone: {os.strerror(code)}" if code in _GONE else os.strerror(code))

    def read(self, table: str, extent: Extent) -> list[Row]:
        """Return the sockets of one of `TABLES`.

        One that changes its place in the table meanwhile can be told twice: it is taken as it was last.
        """
        rows = self._table(table, extent)
        # Without a cookie nothing tells sockets without inode apart; the tables of procfs are read in one go.
        once = dict(zip(map(_ASSOCIATION if table == "sctp" else _COOKIE, rows), rows, strict=True))
        return rows if len(once) == len(rows) or 0 in once else list(once.values())

    def fields(self, table: str, extent: Extent) -> list[Fields]:
        """Return the sockets of one of `TABLES` field by field, in blocks, those of IPv4 without what takes attributes.

        Otherwise it is what `read` returns, at half of the cost.
        """
        if table in inet_table.PROTOCOLS and table not in self.missing:
            try:
                blocks = list(inet_table.fields(self._diag, table, states=extent.states, attributes=False))
            except (EngineError, OSError):
                blocks = []
            cookies = list(chain.from_iterable(block[_COOKIES] for block in blocks))
            if cookies and 0 not in cookies[:1] and len(set(cookies)) == len(cookies):
                return blocks
        rows = self.read(table, extent)
        return [tuple(zip(*rows, strict=True))] if rows else []

    def _table(self, table: str, extent: Extent) -> list[Row]:
        if table in self.missing:
            return self._from_procfs(table, extent)
        try:
            return self._ask(table, extent)
        except (EngineError, OSError) as error:
            if not isinstance(error, Unsupported) and table not in proc_rows.TABLES:
                raise
            self.missing[table] = str(error)
            return self._from_procfs(table, extent)

    def _ask(self, table: str, extent: Extent) -> list[Row]:
        match table:
            case "unix":
                return list(unix_diag.rows(self._diag, states=extent.states, memory=extent.memory))
            case "packet":
                return list(packet_diag.rows(self._diag))
            case "nl":
                return list(netlink_diag.rows(self._diag))
            case "vsock":
                return list(vsock_diag.rows(self._diag, states=extent.states))
            case "icmp":
                raise Unsupported("no kernel lists ICMP sockets by sock_diag")
        rows = list(inet_table.rows(self._diag, table, states=extent.states, extensions=extent.extensions))
        return self._with_binding(rows, table, extent.states) if extent.binding else rows

    def _with_binding(self, rows: list[Row], table: str, states: int) -> list[Row]:
        chosen = inet_table.autobound(self._diag, table, states=states)
        return [
            row._replace(attributes=row.attributes._replace(autobound=row.cookie in chosen)) if row.cookie else row
            for row in rows
        ]

    def _from_procfs(self, table: str, extent: Extent) -> list[Row]:
        if table not in proc_rows.TABLES:
            return []
        net = Path("/proc/thread-self/net")
        return namespaces.run_inside(
            self._path, lambda: list(proc_rows.rows(net, table, self.netns, states=extent.states))
        )


def _held(path: Path, netns: int, opened: ExitStack) -> Path:
    """Return a path of a namespace that stays good when what it was found by is gone, as a process or a name can be."""
    descriptor = namespaces.hold(path, netns)
    opened.callback(os.close, descriptor)
    return Path(f"/proc/self/fd/{descriptor}")
