"""A socket listing as a table for people: ss's columns, all holders in words, and who is at the other end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pktproc.inventory.rows import AF_INET, Entry, Holder, Key, Listing, Peer, Row
from pktproc.inventory.states import LABELS
from pktproc.output import socket_details
from pktproc.output.escape import escape_name
from pktproc.output.socket_ends import Ends
from pktproc.output.table_layout import Column, lay_out

NOBODY = "-"
_NS_PER_S = 1_000_000_000
_STYLES = {"LISTEN": "32", "TIME-WAIT": "2", "FIN-WAIT-2": "2", "CLOSE-WAIT": "33", "SYN-SENT": "33", "SYN-RECV": "33"}


@dataclass(frozen=True, slots=True)
class Look:
    """How a table looks.

    `width` is that of the terminal, None for no limit. `kinds`, `states`, `peers` and `namespaces` say which columns
    there are beside the others. `fds` puts the descriptors of the process with this pid in front. `timers`, `extended`,
    `info` and `memory` add details under each socket, or behind it with `one_line`. `marks` are colours of whole lines.
    """

    width: int | None = None
    colour: bool = False
    header: bool = True
    kinds: bool = True
    peers: bool = False
    namespaces: bool = False
    fds: frozenset[int] = frozenset()
    timers: bool = False
    extended: bool = False
    info: bool = False
    memory: bool = False
    one_line: bool = False
    cgroups: Mapping[int, str] | None = None
    marks: Mapping[Key, str] | None = None


def table(listing: Listing, ends: Ends, look: Look) -> str:
    """Return a listing as lines, one for each socket, and one more where there are details of it."""
    entries = listing.entries
    rows = [entry[0] for entry in entries]
    columns = list(_columns(listing, rows, ends, look))
    details = None
    if look.timers or look.extended or look.info or look.memory:
        details = [_details(row, look) for row in rows]
        if look.one_line:
            columns.append(Column("", details))
            details = None
    marks = [look.marks.get(row.key, "") for row in rows] if look.marks and look.colour else None
    return lay_out(columns, width=look.width, colour=look.colour, header=look.header, below=details, line_styles=marks)


def event_line(action: str, time_ns: int, entry: Entry, ends: Ends) -> str:
    """Return a line that says that a socket opened or closed, and whose it was."""
    row = entry.row
    seconds, fraction = divmod(time_ns, _NS_PER_S)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{fraction // 1_000_000:03d}"
    (holder,) = _holder_texts([entry], denied=False)
    if not entry.holders:
        holder = "?closed" if action == "closed" else NOBODY
    state = LABELS.get(row.state, str(row.state))
    local, remote = _joined(row, ends.local(row)), _joined(row, ends.remote(row, entry.peer))
    return f"{clock} {action:6} {row.kind:5} {state:10} {local} {remote} {holder}"


def _columns(listing: Listing, rows: Sequence[Row], ends: Ends, look: Look) -> Iterator[Column]:
    entries = listing.entries
    if look.fds:
        yield Column("FD", [_own_fds(entry.holders, look.fds) for entry in entries], right=True)
    if look.kinds:
        yield Column("Netid", [row[1] for row in rows])
    yield Column("State", [LABELS.get(row[3], str(row[3])) for row in rows], styles=_STYLES)
    yield Column("Recv-Q", [str(row[4]) for row in rows], right=True)
    yield Column("Send-Q", [str(row[5]) for row in rows], right=True)
    yield Column("Local Address:Port", _texts(rows, ends, remote=False), least=21)
    remote = _remote_texts(entries, ends) if look.peers else _texts(rows, ends, remote=True)
    yield Column("Peer Address:Port", remote, least=21)
    if look.namespaces:
        yield Column("Namespace", [_namespace(row, listing) for row in rows], least=8)
    yield Column("Process", _holder_texts(entries, denied=listing.denied), least=16, bold=True)
    if look.peers:
        others = [_peer_text(entry.peer) for entry in entries]
        if any(others):
            yield Column("Other end", others, least=12)
    if listing.sharing:
        yield Column("Shared", [_sharing_text(listing.sharing.get(row.key, 0)) for row in rows])


def _namespace(row: Row, listing: Listing) -> str:
    return escape_name(listing.namespaces.get(row.netns, str(row.netns))) if row.netns else NOBODY


def _texts(rows: Iterable[Row], ends: Ends, *, remote: bool) -> list[str]:
    """Return the texts of one end of each row; those of plain IPv4 sockets are put together without a detour."""
    addresses, ports = ends.addresses, ends.ports
    if remote:
        return [
            f"{addresses[row[8]]}:{ports[row[1]][row[9]]}" if row[2] == AF_INET else _joined(row, ends.remote(row))
            for row in rows
        ]
    return [
        f"{addresses[row[6]]}:{ports[row[1]][row[7]]}"
        if row[2] == AF_INET and not row[10]
        else _joined(row, ends.local(row))
        for row in rows
    ]


def _remote_texts(entries: Iterable[Entry], ends: Ends) -> list[str]:
    return [_joined(entry.row, ends.remote(entry.row, entry.peer)) for entry in entries]


def _joined(row: Row, end: tuple[str, str]) -> str:
    """Return an end in one text; names of unix sockets may hold colons, so that a space stands before the inode."""
    address, port = end
    if not port:
        return address
    return f"{address} {port}" if row[1].startswith("u_") else f"{address}:{port}"


def _holder_texts(entries: Iterable[Entry], *, denied: bool) -> list[str]:
    names = _Names()
    unknown = "?permission" if denied else NOBODY
    texts = []
    for row, holders, _, last in entries:
        if len(holders) == 1 and not last:
            ((process, name, fds),) = holders
            texts.append(f"{names[process, name]} fd {fds[0] if len(fds) == 1 else _numbers(fds)}")
        elif holders:
            texts.append(
                f"was {', '.join(names[holder[:2]] for holder in holders)}" if last else _several(holders, names)
            )
        else:
            texts.append(unknown if row[13] else NOBODY)
    return texts


class _Names(dict[tuple[object, str], str]):
    """`nginx[123]` by (process, name), written once each."""

    def __missing__(self, key: tuple[tuple[int, int], str]) -> str:
        (pid, _), name = key
        text = self[key] = f"{escape_name(name)}[{pid}]"
        return text


def _several(holders: Sequence[Holder], names: Mapping[tuple[object, str], str]) -> str:
    return "; ".join(f"{names[holder[:2]]} fd {_numbers(holder.fds)}" for holder in holders)


def _numbers(fds: Iterable[int]) -> str:
    return ",".join(map(str, fds))


def _own_fds(holders: Iterable[Holder], pids: frozenset[int]) -> str:
    return _numbers(fd for holder in holders if holder.pid in pids for fd in holder.fds)


def _peer_text(peer: Peer | None) -> str:
    if peer is None:
        return ""
    if peer.holders:
        return _several(peer.holders, _Names())
    return NOBODY if peer.inode else "not accepted yet"


def _sharing_text(count: int) -> str:
    return f"1 of {count} on this port" if count else ""


def _details(row: Row, look: Look) -> str:
    parts: list[str] = []
    if look.timers:
        parts.append(socket_details.timer(row))
    if look.extended:
        parts.append(socket_details.extended(row, look.cgroups or {}))
    if look.memory:
        parts.append(socket_details.memory(row.attributes))
    if look.info:
        parts.append(socket_details.info(row))
    return " ".join(part for part in parts if part)
