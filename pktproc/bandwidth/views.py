"""What a screen, a report or an endpoint is given: frozen figures of one moment, safe to pass to another thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pktproc.model import Process, Reason


class Amount(NamedTuple):
    """Bytes and packets of local ends, or the same for each second.

    `local_sent_bytes` and `local_received_bytes` are the parts of `sent_bytes` and `received_bytes` whose other end is
    on this host, too: such a packet counts at both of its ends. `passed_*` is what had neither end here, or no way
    that a capture tells; rows with an owner have none of it.
    """

    sent_bytes: int | float = 0
    received_bytes: int | float = 0
    sent_packets: int | float = 0
    received_packets: int | float = 0
    local_sent_bytes: int | float = 0
    local_received_bytes: int | float = 0
    passed_bytes: int | float = 0
    passed_packets: int | float = 0


class Captured(NamedTuple):
    """What a capture saw, at the layer that is counted.

    `bytes` = the rows' `sent_bytes` + `received_bytes` - `local_received_bytes` + `passed_bytes`, in sum, exactly.
    `duplicate_*` are packets that were seen on another interface already and count nowhere else; `dropped_packets`
    those that the kernel could not hand over.
    """

    bytes: int = 0
    packets: int = 0
    duplicate_bytes: int = 0
    duplicate_packets: int = 0
    dropped_packets: int = 0


class Connection(NamedTuple):
    """A conversation between a local and a remote end; ports are 0 where the protocol has none.

    `state` is the name of the socket's TCP state where it is known. Addresses have 16 bytes.
    """

    netns: int
    protocol: int
    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int
    state: str | None
    total: Amount
    rate: Amount
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Connections:
    """The conversations of a row that are shown, of `known` in all.

    `folded` is how many connections ended so long ago that only their remote ends tell them apart, or nothing does.
    """

    shown: tuple[Connection, ...] = ()
    known: int = 0
    folded: int = 0


NO_CONNECTIONS = Connections()


@dataclass(frozen=True, slots=True)
class Row:
    """One group of a view.

    `key` has a text for each dimension that the view groups by and is the same in later views of the same group.
    `process` is the group's one process, None where it has several or none; `reason` says why nobody is known, and is
    None for rows with an owner. `rate` is for each second of the latest intervals, `mean` of all the time, `peak` of
    the busiest interval, or of all the time where that is more (each figure by itself). `connections` is how many were
    seen, `open_connections` how many had packets lately. `history` has the bytes sent and received in the latest
    intervals, oldest first. Times are in ns.
    """

    key: tuple[str, ...]
    process: Process | None
    reason: Reason | None
    total: Amount
    rate: Amount
    mean: Amount
    peak: Amount
    connections: int
    open_connections: int
    first_ns: int
    last_ns: int
    history: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """All groups at a moment; `by` names the dimensions of their keys, `layer` what was counted.

    Rows with an owner and those without (`reason`) are all in `rows`, of which the last may stand for many: there are
    `groups` in all. `rate_s` is what `rate` is taken over, `interval_s` what `peak` is and `elapsed_s` what `mean` is.
    `engine` and `notes` are what the user should know of where the names come from, and of what rows lack.
    """

    time_ns: int
    elapsed_s: float
    interval_s: float
    rate_s: float
    by: tuple[str, ...]
    layer: str
    rows: tuple[Row, ...]
    groups: int
    captured: Captured
    engine: str
    notes: tuple[str, ...] = ()


class Point(NamedTuple):
    """What a row moved in an interval that begins at `time_ns`, in bytes."""

    time_ns: int
    sent_bytes: int
    received_bytes: int
    passed_bytes: int


Series = dict[tuple[str, ...], tuple[Point, ...]]
"""The course of each row, by its key, in order of time; intervals without packets are left out."""
