"""Sockets that a recorder follows, and who holds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pktproc.model import Process, ProcessId, Socket


@dataclass(slots=True)
class Holding:
    """A process that holds a socket, since `first_ns`; `row` is the process's in the store.

    `seen_ns` is the beginning of the last look that found it so.
    """

    process: Process
    row: int
    first_ns: int
    seen_ns: int


@dataclass(slots=True)
class TrackedSocket:
    """A socket that is there, since the times of its row in the store.

    `row` is None for a connection that nobody has accepted yet, which is not in the store. `missed` is set while the
    last look missed it: when it was seen last, and the time of that look. `verified_ns` is when everyone was last asked
    about its holders. Of a socket that a witness told of, `used_ns` is its last use that was told, `unshown_looks` how
    many looks have not found it since, and `is_over` says that its end was told.
    """

    socket: Socket
    after_ns: int | None
    first_ns: int
    row: int | None = None
    missed: tuple[int, int] | None = None
    verified_ns: int | None = None
    holders: dict[ProcessId, Holding] = field(default_factory=dict)
    used_ns: int = 0
    unshown_looks: int = 0
    is_over: bool = False
