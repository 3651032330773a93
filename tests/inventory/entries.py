"""Entries of a listing made up for a test."""

from __future__ import annotations

from pktproc.inventory.rows import AF_INET, AF_UNIX, NO_ATTRIBUTES, Entry, Holder, Peer, Row
from pktproc.model import ProcessId, pack_address

HOME = 4026531840
UNIX_ROW = Row(HOME, "u_str", AF_UNIX, 1, 0, 0, b"", 0, b"", 0, 0, 1, None, 500, 0, 0, 0, NO_ATTRIBUTES)


def inet(
    local: str,
    remote: str = "0.0.0.0:0",
    *,
    kind: str = "tcp",
    state: int = 1,
    inode: int = 100,
    cookie: int = 0,
    netns: int = HOME,
    family: int = AF_INET,
) -> Row:
    """Return an inet socket with ends like `10.0.0.1:80`."""
    (address, _, port), (other, _, other_port) = local.rpartition(":"), remote.rpartition(":")
    return Row(
        netns=netns,
        kind=kind,
        family=family,
        state=state,
        receive_queue=0,
        send_queue=0,
        local=pack_address(address.strip("[]")),
        local_port=int(port),
        remote=pack_address(other.strip("[]")),
        remote_port=int(other_port),
        ifindex=0,
        cookie=cookie or inode,
        uid=0,
        inode=inode,
        timer=0,
        retransmissions=0,
        expires_ms=0,
        attributes=NO_ATTRIBUTES,
    )


def unix(name: bytes, *, inode: int, peer: int = 0, kind: str = "u_str") -> Row:
    """Return a unix socket."""
    return UNIX_ROW._replace(kind=kind, local=name, local_port=inode, remote_port=peer, inode=inode, cookie=inode)


def holder(pid: int, name: str, *fds: int) -> Holder:
    """Return a holder."""
    return Holder(ProcessId(pid, pid * 10), name, fds or (3,))


def entry(row: Row, *holders: Holder, peer: Peer | None = None, last: bool = False) -> Entry:
    """Return an entry."""
    return Entry(row, holders, peer, last)
