"""`pktproc sockets` without the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from pktproc.attribution.process_selection import ProcessSelection
from pktproc.errors import UsageError
from pktproc.inventory import states as known_states
from pktproc.inventory.expression import parse
from pktproc.inventory.naming import unix_name
from pktproc.inventory.rows import AF_NETLINK, AF_PACKET, AF_UNIX, INET, UNLISTED, Entry, Holder, Peer
from pktproc.kernel.tables import TABLES
from pktproc.listing import Looker, Question
from pktproc.model import format_address
from pktproc.output.names import services
from pktproc.remembering import recorded_holders

Value = TypeVar("Value", int, str)


class OpenSocket(NamedTuple):
    """A socket with who holds it and who is at its other end.

    `transport` is ss's word for its kind (`tcp`, `udp`, `u_str`, ...), `state` as in filters (`established`,
    `listening`, ...). Addresses are texts: of a unix socket its path, or its abstract name behind `@`; ports are 0
    where there are none. `last` says that nobody holds the socket any more and `holders` are those who did.
    `entry` has all that is known.
    """

    transport: str
    state: str
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    receive_queue: int
    send_queue: int
    inode: int
    cookie: int
    uid: int | None
    netns: int
    holders: tuple[Holder, ...]
    peer: Peer | None
    last: bool
    entry: Entry

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the pids of the holders."""
        return tuple(holder.pid for holder in self.holders)


def sockets(
    *words: str,
    kinds: str | Sequence[str] = (),
    states: str | Sequence[str] = (),
    pid: int | Sequence[int] = (),
    name: str | Sequence[str] = (),
    uid: int | Sequence[int] = (),
    container: str | Sequence[str] = (),
    netns: str | Sequence[str] = (),
    store: str | os.PathLike[str] | None = None,
    peers: bool = True,
    info: bool = False,
    memory: bool = False,
) -> list[OpenSocket]:
    """Return the sockets of this host, in every state unless some are named, with all their processes.

    `words` are places (`":9000"`, `"nginx"`, `"10.0.0.5"`, `"/run/x.sock"`) or ss's filters. `kinds` are some of the
    tables `tcp`, `udp`, `udplite`, `raw`, `icmp`, `sctp`, `dccp`, `mptcp`, `unix`, `packet`, `nl`, `vsock`. Processes
    are selected as with the command, in all namespaces unless `netns` names some (`"all"` for all). `store` tells the
    last owners of sockets that nobody holds any more. Raise `UsageError` for words that mean nothing, `Denied` for a
    namespace that may not be entered.
    """
    wish = parse(words, lambda text: next((port for (_, port), known in services().items() if known == text), None))
    tables = _many(kinds) or TABLES
    if unknown := [kind for kind in tables if kind not in TABLES]:
        raise UsageError(f"no kind {unknown[0]!r}: give some of {', '.join(TABLES)}")
    chosen = ProcessSelection(frozenset(_many(pid)), _many(name), frozenset(_many(uid)), _many(container))
    question = Question(
        tables=tuple(table for table in TABLES if table in tables),
        states=_mask(_many(states)) if states else known_states.ALL if wish.states is None else wish.states,
        condition=wish.condition,
        processes=None if chosen.everything else chosen,
        netns=_many(netns),
        peers=peers,
        info=info,
        memory=memory,
    )
    with Looker(question, remembered=None if store is None else recorded_holders(store)) as looker:
        return [_open_socket(entry) for entry in looker.look().entries]


def _many(value: Value | Sequence[Value]) -> tuple[Value, ...]:
    return (value,) if isinstance(value, (str, int)) else tuple(value)


def _mask(words: Iterable[str]) -> int:
    mask = 0
    for word in words:
        named = known_states.mask(word)
        if named is None:
            raise UsageError(f"no state {word!r}: give some of {', '.join(known_states.MASKS)}")
        mask |= named
    return mask


def _open_socket(entry: Entry) -> OpenSocket:
    row = entry.row
    local, remote = _addresses(entry)
    has_ports = row.family not in (AF_UNIX, AF_PACKET, AF_NETLINK) and row.kind != UNLISTED
    return OpenSocket(
        transport=row.kind,
        state=known_states.state_word(row.kind, row.state),
        local_address=local,
        local_port=row.local_port if has_ports or row.family == AF_NETLINK else 0,
        remote_address=remote,
        remote_port=row.remote_port if has_ports else 0,
        receive_queue=row.receive_queue,
        send_queue=row.send_queue,
        inode=row.inode,
        cookie=row.cookie,
        uid=row.uid,
        netns=row.netns,
        holders=entry.holders,
        peer=entry.peer,
        last=entry.last,
        entry=entry,
    )


def _addresses(entry: Entry) -> tuple[str, str]:
    row = entry.row
    if row.family in INET:
        return format_address(row.local), format_address(row.remote)
    if row.family == AF_UNIX:
        peer = entry.peer.row if entry.peer else None
        return unix_name(row), unix_name(peer) if peer else ""
    return "", ""
