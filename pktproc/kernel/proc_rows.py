"""Sockets of /proc/net tables as rows, for kinds that this kernel does not list by sock_diag (proc_pid_net(5))."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from pktproc.inventory.rows import NO_ATTRIBUTES, Row
from pktproc.kernel.proc_net import parse_address

TABLES = {
    "tcp": ("tcp", "tcp6"),
    "udp": ("udp", "udp6"),
    "udplite": ("udplite", "udplite6"),
    "raw": ("raw", "raw6"),
    "icmp": ("icmp", "icmp6"),
}
"""The tables of each kind: that of IPv4, and that of IPv6."""

_FIELDS = 10  # sl local remote st queues timer retransmissions uid timeout inode
_TICKS_MS = 10  # the tables count time in hundredths of a second (USER_HZ)


def rows(net: Path, kind: str, netns: int, *, states: int) -> Iterator[Row]:
    """Yield the sockets of one kind under `net` (/proc/PID/net); none if the kernel has no such table.

    Cookies are 0: procfs does not tell them.
    """
    for table, family in zip(TABLES[kind], (socket.AF_INET, socket.AF_INET6), strict=True):
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
    if len(fields) < _FIELDS:
        return None
    try:
        local, local_port = parse_address(fields[1])
        remote, remote_port = parse_address(fields[2])
        sending, receiving = (int(part, 16) for part in fields[4].split(":"))
        timer, expires = (int(part, 16) for part in fields[5].split(":"))
        state, retransmissions, uid, inode = int(fields[3], 16), int(fields[6], 16), int(fields[7]), int(fields[9])
    except ValueError:
        return None
    return Row(
        netns=netns,
        kind=kind,
        family=family,
        state=state,
        receive_queue=receiving,
        send_queue=sending,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        ifindex=0,
        cookie=0,
        uid=uid if inode else None,
        inode=inode,
        timer=timer,
        retransmissions=retransmissions,
        expires_ms=expires * _TICKS_MS,
        attributes=NO_ATTRIBUTES,
    )
