"""Sockets of /proc/net tables as rows, for kinds that this kernel does not list by sock_diag (proc_pid_net(5))."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from pktproc.inventory.rows import NO_ATTRIBUTES, Row
from pktproc.kernel.proc_net import INET_TABLES, parse_line

TABLES = frozenset(name for name in INET_TABLES if not name.endswith("6"))
"""The kinds that have tables: one of this name for IPv4, and one with a 6 behind it for IPv6."""

_TICKS_MS = 10  # the tables count time in hundredths of a second (USER_HZ)


def rows(net: Path, kind: str, netns: int, *, states: int) -> Iterator[Row]:
    """Yield the sockets of one kind under `net` (/proc/PID/net); none if the kernel has no such table.

    Cookies are 0: procfs does not tell them.
    """
    for table, family in ((kind, socket.AF_INET), (f"{kind}6", socket.AF_INET6)):
        try:
            lines = (net / table).read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            row = _row(line.split(), kind, family, netns)
            if row is not None and states >> row.state & 1:
                yield row


def _row(fields: list[str], kind: str, family: int, netns: int) -> Row | None:
    """Return the socket of a line, None for the heading and what does not parse."""
    told = parse_line(fields)
    if told is None:
        return None
    try:
        sending, receiving = (int(part, 16) for part in fields[4].split(":"))
        timer, expires = (int(part, 16) for part in fields[5].split(":"))
        retransmissions = int(fields[6], 16)
    except ValueError:
        return None
    return Row(
        netns=netns,
        kind=kind,
        family=family,
        state=told.state,
        receive_queue=receiving,
        send_queue=sending,
        local=told.local_address,
        local_port=told.local_port,
        remote=told.remote_address,
        remote_port=told.remote_port,
        ifindex=0,
        cookie=0,
        uid=told.uid,
        inode=told.inode,
        timer=timer,
        retransmissions=retransmissions,
        expires_ms=expires * _TICKS_MS,
        attributes=NO_ATTRIBUTES,
    )
