"""Events, decoded."""

from __future__ import annotations

import numpy as np

from pktproc.attribution.engine import Ends
from pktproc.kernel.ebpf import events
from pktproc.kernel.ebpf.events import Kind, ProcessFacts, Rows, decode, process_facts
from pktproc.model import pack_address

FACTS = ProcessFacts(start_ns=5, cgroup=6, pid=7, ppid=8, uid=9, kernel=0, comm=b"a name")
OURS, THEIRS = pack_address("10.77.0.1"), pack_address("fd77::2")


def row(_layout: np.dtype[np.void] | None = None, /, **values: object) -> Rows:
    array = np.zeros(1, events.EVENT if _layout is None else _layout)
    for name, value in values.items():
        target = array
        *path, last = name.split("__")
        for step in path:
            target = target[step]
        target[last] = value
    return array


def facts() -> dict[str, object]:
    return {"named": 1} | {f"process__{name}": value for name, value in FACTS._asdict().items()}


def socket_row(**more: object) -> Rows:
    ends = {"local": OURS, "remote": THEIRS, "netns": 1, "protocol": 17, "local_port": 53, "remote_port": 54}
    named = {f"ends__{name}": value for name, value in ends.items()}
    return row(time_ns=1, kind=Kind.SENT, cookie=2, previous_ns=3, **named, **more)


def test_a_socket_event_is_decoded() -> None:
    (event,) = decode(socket_row(**facts()))
    assert isinstance(event, events.SocketEvent)
    assert event[:5] == (1, Kind.SENT, 2, 3, Ends(1, 17, OURS, 53, THEIRS, 54))
    assert event.process
    assert process_facts(event.process) == FACTS


def test_of_the_end_of_a_socket_no_ends_are_taken() -> None:
    ends = {"ends__local": OURS, "ends__netns": 1, "ends__local_port": 53}
    (event,) = decode(row(kind=Kind.CLOSED, cookie=2, **ends))
    assert isinstance(event, events.SocketEvent)
    assert event.ends == Ends(0, 0, bytes(16), 0, bytes(16), 0)


def test_an_event_without_a_process_has_none_though_one_stood_there_before() -> None:
    (event,) = decode(socket_row(**(facts() | {"named": 0})))
    assert isinstance(event, events.SocketEvent)
    assert event.process is None


def test_a_program_that_begins_has_its_path_and_arguments() -> None:
    begun = row(events.EXECUTION, argument_bytes=8, path=b"/bin/echo\0old", arguments=b"echo\0hi\0garbage")
    (event,) = decode(row(time_ns=1, kind=Kind.EXECUTED, **facts()), [begun[0]])
    assert event == events.ProcessEvent(1, Kind.EXECUTED, FACTS, b"/bin/echo", b"echo\0hi\0", 8)


def test_a_program_that_was_overtaken_is_not_known() -> None:
    (event,) = decode(row(time_ns=1, kind=Kind.EXECUTED, **facts()), [None])
    assert event == events.ProcessEvent(1, Kind.EXECUTED, FACTS)


def test_events_of_all_kinds_keep_their_order() -> None:
    life, begins = row(kind=Kind.EXITED, **facts()), row(kind=Kind.EXECUTED, **facts())
    found = decode(np.concatenate([life, socket_row(), begins, life]), [None])
    assert [event.kind for event in found] == [Kind.EXITED, Kind.SENT, Kind.EXECUTED, Kind.EXITED]
