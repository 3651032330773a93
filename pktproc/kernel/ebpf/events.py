"""What the programs tell, decoded: the layouts of events.h as NumPy dtypes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pktproc.attribution.engine import Ends
from pktproc.kernel.ebpf.ring import Records

COMM_BYTES = 16
PATH_BYTES = 256
ARGUMENT_BYTES = 1024
_WORD_BYTES = 8  # records begin at multiples of it, and so many bytes are copied at once
_PROCESS = struct.Struct(f"=QQIIII{COMM_BYTES}s")  # as PROCESS


class Kind(IntEnum):
    """What an event tells (`enum kind`)."""

    CREATED = 1
    SENT = 4
    RECEIVED = 5
    ARRIVES = 6
    COMES_IN = 7
    CLOSED = 8
    FORKED = 16
    EXECUTED = 17
    RENAMED = 18
    EXITED = 19


PROCESS = np.dtype(
    [
        ("start_ns", "u8"),
        ("cgroup", "u8"),
        ("pid", "u4"),
        ("ppid", "u4"),
        ("uid", "u4"),
        ("kernel", "u4"),
        ("comm", f"V{COMM_BYTES}"),
    ]
)
ENDS = np.dtype(
    [
        ("local", "V16"),
        ("remote", "V16"),
        ("netns", "u4"),
        ("protocol", "u2"),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("padding", "u2"),
    ]
)
SOCKET_EVENT = np.dtype(
    [
        ("time_ns", "u8"),
        ("kind", "u8"),
        ("cookie", "u8"),
        ("previous_ns", "u8"),
        ("ends", ENDS),
        ("padding", "u4"),
        ("process", PROCESS),
    ]
)
PROCESS_EVENT = np.dtype([("time_ns", "u8"), ("kind", "u8"), ("process", PROCESS)])
EXECUTION_EVENT = np.dtype(
    [
        ("of", PROCESS_EVENT),
        ("argument_bytes", "u4"),
        ("padding", "u4"),
        ("path", f"V{PATH_BYTES}"),
        ("arguments", f"V{ARGUMENT_BYTES}"),
    ]
)
HOLDING = np.dtype([("inode", "u8"), ("start_ns", "u8"), ("pid", "u4"), ("padding", "u4")])


class ProcessFacts(NamedTuple):
    """A process as the kernel had it at an event (`struct process_facts`)."""

    start_ns: int
    cgroup: int
    pid: int
    ppid: int
    uid: int
    kernel: int
    comm: bytes


class SocketEvent(NamedTuple):
    """Something about a socket (`struct socket_event`).

    `process` are the bytes of a `struct process_facts`, None where it tells of no process; see `process_facts`.
    """

    time_ns: int
    kind: int
    cookie: int
    previous_ns: int
    ends: Ends
    process: bytes | None


class ProcessEvent(NamedTuple):
    """Something about a process; `path` and `arguments` are those of a program that begins, else empty."""

    time_ns: int
    kind: int
    process: ProcessFacts
    path: bytes = b""
    arguments: bytes = b""
    argument_bytes: int = 0


Event = SocketEvent | ProcessEvent
Rows = npt.NDArray[np.void]


def decode(records: Records) -> list[Event]:
    """Return the events in records, in order; raise ValueError for a record of unknown length."""
    words = np.frombuffer(records.data, np.uint64, len(records.data) // _WORD_BYTES)
    events: list[Event | None] = [None] * len(records.lengths)
    count = 0
    for layout, build in _BUILDERS.items():
        rows = np.flatnonzero(records.lengths == layout.itemsize)
        if len(rows):
            at = records.positions[rows] // _WORD_BYTES
            built = build(words[at[:, None] + np.arange(layout.itemsize // _WORD_BYTES)].view(layout)[:, 0])
            if len(rows) == len(events):
                return list(built)
            for row, event in zip(rows.tolist(), built, strict=True):
                events[row] = event
            count += len(rows)
    if count != len(events):
        raise ValueError(f"records of {sorted(set(records.lengths.tolist()))} bytes are none of ours")
    return [event for event in events if event is not None]


def process_facts(data: bytes) -> ProcessFacts:
    """Return the process facts in some bytes, with the name cut at its end."""
    return _facts(_PROCESS.unpack(data))


def _facts(values: tuple[Any, ...]) -> ProcessFacts:
    return ProcessFacts._make((*values[:-1], values[-1].partition(b"\0")[0]))


def _socket_events(rows: Rows) -> Iterator[Event]:
    ends, process = rows["ends"], rows["process"]
    ends[(rows["kind"] == Kind.CLOSED) & (process["pid"] == 0)] = np.zeros((), ENDS)
    fields = [ends[name].tolist() for name in ("netns", "protocol", "local", "local_port", "remote", "remote_port")]
    facts = process.view(f"V{PROCESS.itemsize}").tolist()
    processes = [data if pid else None for data, pid in zip(facts, process["pid"].tolist(), strict=True)]
    columns = [rows[name].tolist() for name in ("time_ns", "kind", "cookie", "previous_ns")]
    return map(_socket_event, zip(*columns, map(_ends, zip(*fields, strict=True)), processes, strict=True))


def _process_events(rows: Rows) -> Iterator[Event]:
    return (ProcessEvent(time_ns, kind, _facts(process)) for time_ns, kind, process in rows.tolist())


def _execution_events(rows: Rows) -> Iterator[Event]:
    for (time_ns, kind, process), argument_bytes, _, path, arguments in rows.tolist():
        given = arguments[: min(argument_bytes, ARGUMENT_BYTES)]
        yield ProcessEvent(time_ns, kind, _facts(process), path.partition(b"\0")[0], given, argument_bytes)


_ends = partial(tuple.__new__, Ends)  # a third of what the constructors cost
_socket_event = partial(tuple.__new__, SocketEvent)
_BUILDERS: dict[np.dtype[np.void], Callable[[Rows], Iterator[Event]]] = {
    SOCKET_EVENT: _socket_events,
    PROCESS_EVENT: _process_events,
    EXECUTION_EVENT: _execution_events,
}
