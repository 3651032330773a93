"""A socket listing as a table for people: ss's columns, all holders in words, and who is at the other end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

from pktproc.inventory.rows import AF_INET, Entry, Holder, Key, Listing, Peer, Row, key_of, make_row
from pktproc.inventory.states import LABELS
from pktproc.output import socket_details
from pktproc.output.escape import escape_name
from pktproc.output.socket_ends import Ends
from pktproc.output.table_layout import Column, lay_out, whole_width

NOBODY = "-"
Fields = Sequence[Sequence[Any]]
_STYLES = {"LISTEN": "32", "TIME-WAIT": "2", "FIN-WAIT-2": "2", "CLOSE-WAIT": "33", "SYN-SENT": "33", "SYN-RECV": "33"}


_FOLDED = frozenset({"Process", "Other end", "Shared"})
_ARROW = "  <->  "


class Mark(NamedTuple):
    """What makes a line stand out: a sign in front of it and, in colour, the SGR code of the whole line."""

    sign: str
    style: str


_UNMARKED = Mark(" ", "")
OPENED, CLOSED, ALTERED = Mark("+", "32"), Mark("-", "31"), Mark("*", "33")


class Look(NamedTuple):
    """How a table looks.

    `width` is that of the terminal, None for no limit. `kinds`, `states`, `peers` and `namespaces` say which columns
    there are beside the others. `fds` puts the descriptors of the process with this pid in front. `timers`, `extended`,
    `info` and `memory` add details under each socket, or behind it with `one_line`. `marks` let sockets stand out.
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
    marks: Mapping[Key, Mark] | None = None


def table(listing: Listing, ends: Ends, look: Look) -> str:
    """Return a listing as lines, one for each socket, and one more where there are details of it."""
    fields = fields_of(listing.entries)
    return drawn(fields, _holder_texts(listing.entries, denied=listing.denied), listing, ends, look)


def fields_of(entries: Sequence[Entry]) -> Fields:
    """Return the rows of entries field by field."""
    return list(zip(*(entry[0] for entry in entries), strict=True)) or [()] * len(Row._fields)


def drawn(fields: Fields, holders: Sequence[str], listing: Listing, ends: Ends, look: Look) -> str:
    """Return the table of rows that are given field by field, with the texts of their holders.

    The entries of `listing` are asked for what takes more than that: `fds`, `peers`, `marks` and details.
    """
    columns = list(_columns(fields, holders, listing, ends, look))
    details = None
    if look.timers or look.extended or look.info or look.memory:
        details = [_details(entry.row, look) for entry in listing.entries]
        if look.one_line:
            columns.append(Column("", details))
            details = None
    if (
        look.width is not None
        and not look.one_line
        and whole_width(columns, header=look.header, short=True) > look.width
    ):
        columns, details = _folded(columns, details)
    marks = None
    if look.marks is not None:
        found = [look.marks.get(entry.row.key, _UNMARKED) for entry in listing.entries]
        columns.insert(0, Column(" ", [mark.sign for mark in found]))
        marks = [mark.style for mark in found] if look.colour else None
    return lay_out(columns, width=look.width, colour=look.colour, header=look.header, below=details, line_styles=marks)


def _folded(columns: Sequence[Column], details: Sequence[str] | None) -> tuple[list[Column], list[str]]:
    """Return a table that is too wide with its processes under each line: they are what must not be cut."""
    kept = [column for column in columns if column.title not in _FOLDED]
    parts = [column.texts for column in columns if column.title in _FOLDED]
    below = [_ARROW.join(part for part in texts if part) for texts in zip(*parts, strict=True)]
    if details is not None:
        below = [f"{text}\n\t{more}" if more else text for text, more in zip(below, details, strict=True)]
    return kept, below


def _columns(fields: Fields, holders: Sequence[str], listing: Listing, ends: Ends, look: Look) -> Iterator[Column]:
    entries = listing.entries
    if look.fds:
        yield Column("FD", [_own_fds(entry.holders, look.fds) for entry in entries], right=True)
    if look.kinds:
        yield Column("Netid", fields[1])
    yield Column("State", list(map(LABELS.get, fields[3], repeat("?"))), styles=_STYLES)
    lengths = _Numbers()
    yield Column("Recv-Q", list(map(lengths.__getitem__, fields[4])), right=True)
    yield Column("Send-Q", list(map(lengths.__getitem__, fields[5])), right=True)
    yield Column("Local Address:Port", _texts(fields, ends, remote=False), least=21, short="Local")
    remote = _remote_texts(entries, ends) if look.peers else _texts(fields, ends, remote=True)
    yield Column("Peer Address:Port", remote, least=21, short="Peer")
    if look.namespaces:
        yield Column("Namespace", [_namespace(netns, listing) for netns in fields[0]], least=8)
    yield Column("Process", holders, least=16, bold=True)
    if look.peers:
        others = [_peer_text(entry.peer, denied=listing.denied) for entry in entries]
        if any(others):
            yield Column("Other end", others, least=12)
    if listing.sharing:
        keys = map(key_of, fields[0], fields[11], fields[1], fields[13])
        shared = [_sharing_text(listing.sharing[key]) if key in listing.sharing else "" for key in keys]
        if any(shared):
            yield Column("Shared", shared)


class _Numbers(dict[int, str]):
    """Numbers, most of which come again and again, written once each."""

    def __missing__(self, number: int) -> str:
        text = self[number] = str(number)
        return text


def _namespace(netns: int, listing: Listing) -> str:
    return escape_name(listing.namespaces.get(netns, str(netns))) if netns else NOBODY


def _texts(fields: Fields, ends: Ends, *, remote: bool) -> list[str]:
    """Return the texts of one end of each row; those of plain IPv4 sockets are put together without a detour."""
    at = 8 if remote else 6
    kinds, families, addresses, ports = fields[1], fields[2], fields[at], fields[at + 1]
    devices = [0] * len(families) if remote else fields[10]
    plain = not any(devices) and set(families) == {AF_INET}
    if plain and ends.numeric:
        written, numbers = ends.addresses, ends.ports[""]
        return [f"{written[address]}:{numbers[port]}" for address, port in zip(addresses, ports, strict=True)]
    texts = [
        f"{ends.addresses[address]}:{ends.ports[kind][port]}" if family == AF_INET and not device else ""
        for kind, family, address, port, device in zip(kinds, families, addresses, ports, devices, strict=True)
    ]
    write = ends.remote if remote else ends.local
    for index in [index for index, text in enumerate(texts) if not text]:
        row = make_row([column[index] for column in fields])
        texts[index] = end_text(row, write(row))
    return texts


def _remote_texts(entries: Iterable[Entry], ends: Ends) -> list[str]:
    return [end_text(entry.row, ends.remote(entry.row, entry.peer)) for entry in entries]


def end_text(row: Row, end: tuple[str, str]) -> str:
    """Return an end in one text; names of unix sockets may hold colons, so that a space stands before the inode."""
    address, port = end
    if not port:
        return address
    return f"{address} {port}" if row[1].startswith("u_") else f"{address}:{port}"


def _holder_texts(entries: Iterable[Entry], *, denied: bool) -> list[str]:
    return [holder_text(entry[1], entry[0][13], denied=denied, last=entry[3]) for entry in entries]


def holder_text(holders: Sequence[Holder], inode: int, *, denied: bool, last: bool = False) -> str:
    """Return who holds an inode: `nginx[123] fd 3,4; nginx[124] fd 3`, `was nginx[123]`, `?permission` or `-`."""
    if last:
        return f"was {', '.join(label(holder.name, holder.pid) for holder in holders)}"
    if holders:
        return _several(holders)
    return "?permission" if denied and inode else NOBODY


@lru_cache(1 << 16)
def label(name: str, pid: int) -> str:
    """Return `nginx[123]`."""
    return f"{escape_name(name)}[{pid}]"


def _several(holders: Sequence[Holder]) -> str:
    return "; ".join(
        f"{label(holder.name, holder.pid)} fd {_numbers(holder.fds)}" if holder.fds else label(holder.name, holder.pid)
        for holder in holders
    )


def _numbers(fds: Iterable[int]) -> str:
    return ",".join(map(str, fds))


def _own_fds(holders: Iterable[Holder], pids: frozenset[int]) -> str:
    return _numbers(fd for holder in holders if holder.pid in pids for fd in holder.fds)


def _peer_text(peer: Peer | None, *, denied: bool) -> str:
    if peer is None:
        return ""
    return holder_text(peer.holders, peer.inode, denied=denied) if peer.inode or peer.holders else "not accepted yet"


def _sharing_text(count: int) -> str:
    return f"1 of {count} on this port"


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
