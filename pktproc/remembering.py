"""Who held the sockets that nobody holds any more, by what was recorded of this very boot."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from pktproc.attribution.history import RecordedHolder, RecordedSocket
from pktproc.errors import UsageError
from pktproc.inventory.remembered import LastHolders
from pktproc.inventory.rows import Holder
from pktproc.model import Protocol
from pktproc.refusals import with_cures
from pktproc.snapshots.reader import StoreReader

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_REACH_NS = 600_000_000_000
"""Sockets that ended longer ago than this are in no table any more: TIME_WAIT and FIN_WAIT2 last for a minute."""
_KINDS = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.UDPLITE: "udplite", Protocol.SCTP: "sctp"}


def recorded_holders(path: str | os.PathLike[str]) -> LastHolders:
    """Return who was last seen to hold each socket, by a store; cookies are good for one boot of one host.

    Raise `UsageError` for a store without anything of this boot, `StoreError` for what is none.
    """
    found = LastHolders()
    with with_cures(), closing(StoreReader(path)) as reader:
        boots = {str(row[0]) for row in reader.rows("SELECT boot_id FROM host")}
        if _BOOT_ID.read_text(encoding="ascii").strip() not in boots:
            raise UsageError(f"{os.fspath(path)} has nothing of this boot of this host, and no other helps here")
        recent = time.time_ns() - _REACH_NS
        for recorded in reader.sockets("s.cookie != 0 AND (s.last IS NULL OR s.last >= ?)", (recent,)):
            kind = _KINDS.get(Protocol(recorded.socket.protocol)) if recorded.socket.protocol in _KINDS else None
            if kind and recorded.holders and not recorded.socket.raw:
                found.keep((recorded.socket.netns, recorded.socket.cookie, kind, 0), _last(recorded))
    return found


def _last(recorded: RecordedSocket) -> tuple[Holder, ...]:
    """Return those who were seen to hold a socket last; their descriptors are not recorded."""
    latest = max(_seen_ns(holder) for holder in recorded.holders)
    return tuple(
        Holder(holder.process.id, holder.process.name, ()) for holder in recorded.holders if _seen_ns(holder) == latest
    )


def _seen_ns(holder: RecordedHolder) -> int:
    return holder.span.last_ns
