"""What the programs tell, decoded: the layouts of events.h as NumPy dtypes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pktproc.attribution.engine import Ends, make_ends
from pktproc.packets.batch import Column

COMM_BYTES = 16
PATH_BYTES = 256
ARGUMENT_BYTES = 1024
_PROCESS = struct.Struct(f"=QQIIII{COMM_BYTES}s")  # as PROCESS


class Kind(IntEnum):
    """What an event tells (`enum kind`)."""

    BOUND = 1
    CONNECTS = 2
    GIVES_UP = 3
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
        ("type", "u2"),
    ]
)
EVENT = np.dtype(
    [
        ("sequence", "u4"),
        ("kind", "u2"),
        ("named", "u2"),
        ("time_ns", "u8"),
        ("cookie", "u8"),
        ("previous_ns", "u8"),
        ("ends", ENDS),
        ("padding", "u4"),
        ("process", PROCESS),
    ]
)
EXECUTION = np.dtype(
    [
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
    """Something about a socket (`struct event`).

    `process` are the bytes of a `struct process_facts`, None where it tells of no process; see `process_facts`.
    """

    time_ns: int
    kind: int
    cookie: int
    previous_ns: int
    ends: Ends
    process: bytes | None


class ProcessEvent(NamedTuple):
    """Something about a process (`struct event`); of a program that begins with its `path` and `arguments`."""

    time_ns: int
    kind: int
    process: ProcessFacts
    path: bytes = b""
    arguments: bytes = b""
    argument_bytes: int = 0


Event = SocketEvent | ProcessEvent
Rows = npt.NDArray[np.void]


def decode(rows: Rows, executions: Iterable[Any] = ()) -> list[Event]:
    """Return the events in some rows (`EVENT`), in order.

    `executions` are, for each program that begins, a row of `EXECUTION`, or None if it is not known any more.
    """
    lives = rows["kind"] >= Kind.FORKED
    if not lives.any():
        return list(_socket_events(rows))
    events: list[Event] = [_NO_EVENT] * len(rows)
    told: list[tuple[Column, Iterable[Event]]] = [
        (~lives, _socket_events(rows[~lives])),
        (lives, _process_events(rows[lives], iter(executions))),
    ]
    for chosen, built in told:
        for position, event in zip(np.flatnonzero(chosen).tolist(), built, strict=True):
            events[position] = event
    return events


def process_facts(data: bytes) -> ProcessFacts:
    """Return the process facts in some bytes, with the name cut at its end."""
    return _facts(_PROCESS.unpack(data))


def _facts(values: tuple[Any, ...]) -> ProcessFacts:
    return ProcessFacts._make((*values[:-1], values[-1].partition(b"\0")[0]))


def _socket_events(rows: Rows) -> Iterator[SocketEvent]:
    ends, process = rows["ends"], rows["process"]
    ends[(rows["kind"] == Kind.CLOSED) & (rows["named"] == 0)] = np.zeros((), ENDS)
    fields = [ends[name].tolist() for name in ("netns", "protocol", "local", "local_port", "remote", "remote_port")]
    facts = np.ascontiguousarray(process).view(f"V{PROCESS.itemsize}").tolist()
    processes = [data if named else None for data, named in zip(facts, rows["named"].tolist(), strict=True)]
    columns = [rows[name].tolist() for name in ("time_ns", "kind", "cookie", "previous_ns")]
    return map(_socket_event, zip(*columns, map(make_ends, zip(*fields, strict=True)), processes, strict=True))


def _process_events(rows: Rows, executions: Iterator[Any]) -> Iterator[ProcessEvent]:
    columns = (rows[name].tolist() for name in ("time_ns", "kind", "process"))
    for time_ns, kind, process in zip(*columns, strict=True):
        begun = next(executions) if kind == Kind.EXECUTED else None
        if begun is None:
            yield ProcessEvent(time_ns, kind, _facts(process))
            continue
        argument_bytes, _, path, arguments = begun.tolist()
        given = arguments[: min(argument_bytes, ARGUMENT_BYTES)]
        yield ProcessEvent(time_ns, kind, _facts(process), path.partition(b"\0")[0], given, argument_bytes)


_socket_event = partial(tuple.__new__, SocketEvent)  # a third of what the constructor costs
_NO_EVENT = ProcessEvent(0, 0, ProcessFacts(0, 0, 0, 0, 0, 0, b""))
