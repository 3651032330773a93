"""Records, decoded."""

from __future__ import annotations

import numpy as np
import pytest

from pktproc.attribution.engine import Ends
from pktproc.kernel.ebpf import events
from pktproc.kernel.ebpf.events import Kind, ProcessFacts, decode, process_facts
from pktproc.kernel.ebpf.ring import Records
from pktproc.model import pack_address

FACTS = ProcessFacts(start_ns=5, cgroup=6, pid=7, ppid=8, uid=9, kernel=0, comm=b"a name")
OURS, THEIRS = pack_address("10.77.0.1"), pack_address("fd77::2")


def record(layout: np.dtype[np.void], **values: object) -> bytes:
    array = np.zeros(1, layout)
    for name, value in values.items():
        target = array
        *path, last = name.split("__")
        for step in path:
            target = target[step]
        target[last] = value
    return array.tobytes()


def facts(prefix: str) -> dict[str, object]:
    return {f"{prefix}__{name}": value for name, value in FACTS._asdict().items()}


def records(*payloads: bytes) -> Records:
    lengths = np.array([len(payload) for payload in payloads], np.int64)
    return Records(b"".join(payloads), np.cumsum(lengths) - lengths, lengths)


def socket_record(**more: object) -> bytes:
    ends = {"local": OURS, "remote": THEIRS, "netns": 1, "protocol": 17, "local_port": 53, "remote_port": 54}
    named = {f"ends__{name}": value for name, value in ends.items()}
    return record(events.SOCKET_EVENT, time_ns=1, kind=Kind.SENT, cookie=2, previous_ns=3, **named, **more)


def test_a_socket_event_is_decoded() -> None:
    (event,) = decode(records(socket_record(**facts("process"))))
    assert isinstance(event, events.SocketEvent)
    assert event[:5] == (1, Kind.SENT, 2, 3, Ends(1, 17, OURS, 53, THEIRS, 54))
    assert event.process
    assert process_facts(event.process) == FACTS


def test_of_the_end_of_a_socket_no_ends_are_taken() -> None:
    ends = {"ends__local": OURS, "ends__netns": 1, "ends__local_port": 53}
    (event,) = decode(records(record(events.SOCKET_EVENT, kind=Kind.CLOSED, cookie=2, **ends)))
    assert isinstance(event, events.SocketEvent)
    assert event.ends == Ends(0, 0, bytes(16), 0, bytes(16), 0)


def test_an_event_without_a_process_has_none() -> None:
    (event,) = decode(records(socket_record()))
    assert isinstance(event, events.SocketEvent)
    assert event.process is None


def test_a_program_that_begins_has_its_path_and_arguments() -> None:
    data = record(
        events.EXECUTION_EVENT,
        of__time_ns=1,
        of__kind=Kind.EXECUTED,
        **facts("of__process"),
        argument_bytes=8,
        path=b"/bin/echo\0old",
        arguments=b"echo\0hi\0garbage",
    )
    (event,) = decode(records(data))
    assert event == events.ProcessEvent(1, Kind.EXECUTED, FACTS, b"/bin/echo", b"echo\0hi\0", 8)


def test_events_of_all_kinds_keep_their_order() -> None:
    life = record(events.PROCESS_EVENT, time_ns=2, kind=Kind.EXITED, **facts("process"))
    execution = record(events.EXECUTION_EVENT, of__kind=Kind.EXECUTED, **facts("of__process"))
    found = decode(records(life, socket_record(), execution, life))
    assert [event.kind for event in found] == [Kind.EXITED, Kind.SENT, Kind.EXECUTED, Kind.EXITED]


def test_a_record_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="none of ours"):
        decode(records(bytes(24)))
