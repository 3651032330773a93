"""What the programs tell, decoded: the layouts of events.h as NumPy dtypes."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from pktproc.attribution.engine import Ends
from pktproc.kernel.ebpf.ring import Records

COMM_BYTES = 16
PATH_BYTES = 256
ARGUMENT_BYTES = 1024
_PID = 2  # position in PROCESS


class Kind(IntEnum):
    """What an event tells (`enum kind`)."""

    CREATED = 1
    LISTENED = 2
    CONNECTED = 3
    SENT = 4
    RECEIVED = 5
    ARRIVES = 6
    ACCEPTABLE = 7
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
    """Something about a socket (`struct socket_event`); `process` is None where it tells of none."""

    time_ns: int
    kind: int
    cookie: int
    previous_ns: int
    ends: Ends
    process: ProcessFacts | None


class ProcessEvent(NamedTuple):
    """Something about a process; `path` and `arguments` are those of a program that begins, else empty."""

    time_ns: int
    kind: int
    process: ProcessFacts
    path: bytes = b""
    arguments: bytes = b""
    argument_bytes: int = 0


Event = SocketEvent | ProcessEvent


def decode(records: Records) -> list[Event]:
    """Return the events in records, in order; raise ValueError for a record of unknown length."""
    data = np.frombuffer(records.data, np.uint8)
    lengths = np.array(records.lengths, np.int64)
    positions = np.array(records.positions, np.int64)
    events: list[Event | None] = [None] * len(lengths)
    for layout, build in _BUILDERS.items():
        rows = np.flatnonzero(lengths == layout.itemsize)
        if len(rows):
            fields = data[positions[rows][:, None] + np.arange(layout.itemsize)].view(layout)[:, 0].tolist()
            for row, values in zip(rows.tolist(), fields, strict=True):
                events[row] = build(values)
    found = [event for event in events if event is not None]
    if len(found) != len(events):
        raise ValueError(f"records of {sorted(set(records.lengths))} bytes are none of ours")
    return found


def process_facts(values: tuple[Any, ...]) -> ProcessFacts:
    """Return process facts from their fields, with the name cut at its end."""
    return ProcessFacts._make((*values[:-1], values[-1].partition(b"\0")[0]))


def _socket_event(values: tuple[Any, ...]) -> SocketEvent:
    *event, (local, remote, netns, protocol, local_port, remote_port, _), _, process = values
    ends = Ends(netns, protocol, local, local_port, remote, remote_port)
    return SocketEvent._make((*event, ends, process_facts(process) if process[_PID] else None))


def _process_event(values: tuple[Any, ...]) -> ProcessEvent:
    time_ns, kind, process = values
    return ProcessEvent(time_ns, kind, process_facts(process))


def _execution_event(values: tuple[Any, ...]) -> ProcessEvent:
    (time_ns, kind, process), argument_bytes, _, path, arguments = values
    given = arguments[: min(argument_bytes, ARGUMENT_BYTES)]
    return ProcessEvent(time_ns, kind, process_facts(process), path.partition(b"\0")[0], given, argument_bytes)


_BUILDERS: dict[np.dtype[np.void], Callable[[tuple[Any, ...]], Event]] = {
    SOCKET_EVENT: _socket_event,
    PROCESS_EVENT: _process_event,
    EXECUTION_EVENT: _execution_event,
}
