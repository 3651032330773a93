"""A socket listing for programs: one JSON array, with names of the Elastic Common Schema, or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pktproc.inventory.naming import unix_name
from pktproc.inventory.rows import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    AF_VSOCK,
    INET,
    UNLISTED,
    Entry,
    Holder,
    Listing,
    Peer,
    Row,
)
from pktproc.inventory.states import state_word
from pktproc.inventory.tcp_info import decode
from pktproc.model import V4_MAPPED_PREFIX, Process, ProcessId, format_address
from pktproc.output.clock import utc
from pktproc.output.escape import csv_cell, escape, join_command
from pktproc.output.names import transport, user_name
from pktproc.output.socket_details import MEMORY_NAMES, TIMERS
from pktproc.output.socket_ends import Ends
from pktproc.packets.surrogates import spell_surrogates

_ABSENT: tuple[Any, ...] = (None, (), {})
Processes = Mapping[ProcessId, Process]


def json_array(listing: Listing, processes: Processes, cgroups: Mapping[int, str], *, cmdline: bool = True) -> str:
    """Return all sockets as one JSON array in ASCII, an object a line."""
    found = Objects(processes, cgroups, cmdline=cmdline).of(listing)
    return "[" + ",\n ".join(map(json.dumps, found)) + "]\n"


class Objects:
    """Make an object for each socket; a key whose value is not known is left out.

    `processes` has more about the holders, where it is known, `cgroups` the names of cgroups by id.
    """

    def __init__(self, processes: Processes, cgroups: Mapping[int, str], *, cmdline: bool = True) -> None:
        self._processes = processes
        self._cgroups = cgroups
        self._cmdline = cmdline
        self._known_processes: dict[ProcessId, dict[str, Any]] = {}

    def of(self, listing: Listing) -> Iterator[dict[str, Any]]:
        """Yield the objects of a listing's sockets."""
        for entry in listing.entries:
            yield self._object(entry, listing)

    def _object(self, entry: Entry, listing: Listing) -> dict[str, Any]:
        row = entry.row
        name = listing.namespaces.get(row.netns)
        device = listing.interfaces.get((row.netns, row.ifindex), f"if{row.ifindex}") if row.ifindex else None
        found = {
            "network": _known({"transport": row.kind, "type": _network_type(row), "protocol": _protocol(row)}),
            "family": FAMILIES.get(row.family),
            "state": state_word(row.kind, row.state),
            "local": end_of(row, local=True),
            "remote": end_of(row, local=False),
            "receive_queue": row.receive_queue,
            "send_queue": row.send_queue,
            "inode": row.inode or None,
            "cookie": row.cookie or None,
            "user": None if row.uid is None else _known({"id": str(row.uid), "name": user_name(row.uid)}),
            "netns": row.netns or None,
            "netns_name": None if name is None or name == str(row.netns) else spell_surrogates(name),
            "interface": device and {"name": device},
            "shared_by": listing.sharing.get(row.key),
            "timer": _timer(row),
            **self._attributes(row),
            "process": self._process(entry.holders[0]) if entry.holders and not entry.last else None,
            "peer": self._peer(entry.peer),
        }
        return _known(found) | {"last_holders" if entry.last else "holders": self._holders(entry.holders)}

    def _attributes(self, row: Row) -> dict[str, Any]:
        told = row.attributes
        return {
            "cgroup": None if told.cgroup is None else self._cgroups.get(told.cgroup),
            "mark": told.mark or None,
            "memory": None if told.memory is None else dict(zip(MEMORY_NAMES, told.memory, strict=False)),
            "congestion": told.congestion,
            "local_addresses": [format_address(address) for address in told.locals or ()] or None,
            "remote_addresses": [format_address(address) for address in told.peers or ()] or None,
            "tcp_info": decode(told.tcp_info) if told.tcp_info and row.kind == "tcp" else None,
        }

    def _holders(self, holders: tuple[Holder, ...]) -> list[dict[str, Any]]:
        found = []
        for holder in holders:
            known = self._process(holder)
            facts = {"pid": holder.pid, "name": known["name"], "fds": list(holder.fds)}
            found.append(facts | {key: known[key] for key in ("start", "container") if key in known})
        return found

    def _process(self, holder: Holder) -> dict[str, Any]:
        """Return what is known of a process, put together once each."""
        known = self._known_processes.get(holder.process)
        if known is None:
            known = self._known_processes[holder.process] = self._describe(holder)
        return known

    def _describe(self, holder: Holder) -> dict[str, Any]:
        facts: dict[str, Any] = {"pid": holder.pid, "name": spell_surrogates(holder.name)}
        process = self._processes.get(holder.process)
        if process is not None:
            user = None if process.uid is None else {"id": str(process.uid), "name": user_name(process.uid)}
            facts |= {
                "executable": process.exe and spell_surrogates(process.exe),
                "command_line": join_command(process.cmdline) if self._cmdline and process.cmdline else None,
                "start": utc(process.start_ns),
                "user": user and _known(user),
                "container": process.container_id and {"id": process.container_id},
            }
        return _known(facts)

    def _peer(self, peer: Peer | None) -> dict[str, Any] | None:
        if peer is None:
            return None
        path = unix_name(peer.row) if peer.row is not None and peer.row.family == AF_UNIX else ""
        facts = {
            "inode": peer.inode or None,
            "cookie": (peer.row.cookie or None) if peer.row else None,
            "netns": peer.row.netns if peer.row else None,
            "path": spell_surrogates(path) or None,
        }
        return _known(facts) | {"holders": self._holders(peer.holders)}


def end_of(row: Row, *, local: bool) -> dict[str, Any]:
    """Return one end of a socket as an object, by what its family has: `ip` and `port`, `path`, `cid`, ..."""
    address, port = (row.local, row.local_port) if local else (row.remote, row.remote_port)
    if row.family in INET:
        return {"ip": format_address(address)} | ({"port": port} if row.kind != "raw" else {})
    if row.family == AF_UNIX:
        return _known({"path": spell_surrogates(unix_name(row)) or None}) if local else _known({"inode": port or None})
    if row.family == AF_VSOCK:
        return {"cid": int.from_bytes(address, "little"), "port": port}
    if row.family == AF_NETLINK:
        return {"port": port} if local else {}
    return {"ethertype": port} if row.family == AF_PACKET and local else {}


FAMILIES = {
    AF_INET: "inet",
    AF_INET6: "inet6",
    AF_UNIX: "unix",
    AF_NETLINK: "netlink",
    AF_PACKET: "packet",
    AF_VSOCK: "vsock",
}
"""The families of sockets by number. An `inet6` socket may talk IPv4, which `network.type` tells."""


def _network_type(row: Row) -> str | None:
    if row.family not in INET:
        return None
    return "ipv6" if row.family == AF_INET6 and not row.local.startswith(V4_MAPPED_PREFIX) else "ipv4"


def _protocol(row: Row) -> str | None:
    if row.kind == "raw":
        return transport(row.local_port) or str(row.local_port)
    if row.kind == UNLISTED:
        return row.local.decode("ascii", "backslashreplace").lower() or None
    return str(row.remote_port) if row.family == AF_NETLINK else None


def _timer(row: Row) -> dict[str, Any] | None:
    if not row.timer:
        return None
    return {
        "name": TIMERS.get(row.timer, "unknown"),
        "expires_ms": row.expires_ms,
        "retransmissions": row.retransmissions,
    }


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in _ABSENT}


_CSV_COLUMNS = ("netid", "state", "receive_queue", "send_queue", "local_address", "local_port", "remote_address",
                "remote_port", "interface", "user", "inode", "cookie", "netns", "pids", "names", "fds", "last_known",
                "peer_pids", "peer_names")  # fmt: skip


def csv_table(listing: Listing, ends: Ends) -> str:
    """Return the sockets as CSV with a header (RFC 4180); several holders are separated by spaces or `; `.

    Names are escaped as in the table, and a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(_CSV_COLUMNS)
    writer.writerows(map(csv_cell, _cells(entry, ends)) for entry in listing.entries)
    return written.getvalue()


def _cells(entry: Entry, ends: Ends) -> Iterator[str]:
    row = entry.row
    peers = entry.peer.holders if entry.peer else ()
    yield from (row.kind, state_word(row.kind, row.state), str(row.receive_queue), str(row.send_queue))
    yield from (*ends.local(row), *ends.remote(row, entry.peer))
    yield ends.interface(row) if row.ifindex else ""
    yield from ("" if row.uid is None else str(row.uid), str(row.inode), str(row.cookie), str(row.netns))
    yield from _columns_of(entry.holders)
    yield ";".join(",".join(map(str, holder.fds)) for holder in entry.holders)
    yield "yes" if entry.last else ""
    yield from _columns_of(peers)


def _columns_of(holders: tuple[Holder, ...]) -> tuple[str, str]:
    return " ".join(str(holder.pid) for holder in holders), "; ".join(escape(holder.name) for holder in holders)
