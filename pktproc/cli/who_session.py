"""One run of `pktproc who`: stores searched, what was found as tables or JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import click

from pktproc.attribution.history import Coverage, RecordedSocket, Span
from pktproc.attribution.matching import TCP_LISTEN
from pktproc.cli.talk import say
from pktproc.model import Process, format_address
from pktproc.output.clock import utc
from pktproc.output.escape import escape, join_command, json_text
from pktproc.output.names import PORT_PROTOCOLS, protocol_label, transport
from pktproc.output.owners import identify
from pktproc.refusals import with_cures
from pktproc.snapshots.reader import StoreReader
from pktproc.snapshots.search import search
from pktproc.snapshots.wanted import Wanted

NS_PER_S = 1_000_000_000
_ALWAYS = 1 << 62
_MAX_HOLDERS = 4
_COMMAND_CHARACTERS = 200
Period = tuple[int | None, int | None]


class _Found(NamedTuple):
    store: str
    recorded: RecordedSocket


def run(stores: Sequence[str], wanted: Wanted, period: Period, *, what: str, as_json: bool) -> None:
    """Print what the stores have on what is wanted in a period of which either end may be open."""
    from_ns = -_ALWAYS if period[0] is None else period[0]
    to_ns = _ALWAYS if period[1] is None else period[1]
    with ExitStack() as opened:
        with with_cures():
            readers = {name: opened.enter_context(closing(StoreReader(name))) for name in stores}
        found = [
            _Found(name, recorded)
            for name, reader in readers.items()
            for recorded in search(reader, wanted, from_ns, to_ns)
        ]
        covered = [covered for reader in readers.values() for covered in reader.coverage]
    found.sort(key=lambda one: one.recorded.span.first_ns)
    if as_json:
        click.echo(_document(found))
    elif found:
        click.echo("\n".join([*_connections(found), "", *_processes(found)]))
    if not found:
        say(_nothing(escape(what), covered, from_ns, to_ns))


def _nothing(what: str, coverage: Sequence[Coverage], from_ns: int, to_ns: int) -> str:
    if not coverage:
        return "nothing was ever recorded there"
    if any(covered.first_ns <= to_ns and covered.last_ns >= from_ns for covered in coverage):
        return f"nothing recorded of {what} then"
    ended_ns = max((c.last_ns for c in coverage if c.last_ns < from_ns), default=None)
    begun_ns = min((c.first_ns for c in coverage if c.first_ns > to_ns), default=None)
    times = [f"ended at {_local(ended_ns)}"] if ended_ns is not None else []
    if begun_ns is not None:
        times.append(f"began {'again ' if times else ''}at {_local(begun_ns)}")
    return f"recording did not run then: it {' and '.join(times)}"


# Tables.


def _connections(found: Sequence[_Found]) -> Iterator[str]:
    """Yield a line for each connection; store and namespace stand there where there are several."""
    columns: dict[str, Callable[[_Found], str]] = {
        "FROM": lambda one: _begin(one.recorded.span),
        "TO": lambda one: _end(one.recorded.span),
        "PROTO": lambda one: protocol_label(one.recorded.socket.protocol).lower(),
        "LOCAL": lambda one: _local_end(one.recorded),
        "REMOTE": lambda one: _remote_end(one.recorded),
        "PROCESS": lambda one: _holders(one.recorded),
    }
    if len({one.recorded.socket.netns for one in found}) > 1:
        columns["NETNS"] = lambda one: str(one.recorded.socket.netns)
    if len({one.store for one in found}) > 1:
        columns["STORE"] = lambda one: escape(one.store)
    yield from _aligned([list(columns), *([text(one) for text in columns.values()] for one in found)])


def _processes(found: Sequence[_Found]) -> Iterator[str]:
    processes: dict[Process, tuple[int, int]] = {}
    for one in found:
        for process, span in one.recorded.holders:
            first_ns, last_ns = processes.get(process, (span.first_ns, span.last_ns))
            processes[process] = min(first_ns, span.first_ns), max(last_ns, span.last_ns)
    rows = [["PID", "NAME", "STARTED", "HELD FROM", "HELD TO", "USER", "COMMAND"]]
    for process, (first_ns, last_ns) in sorted(processes.items(), key=lambda item: item[1]):
        name = escape(process.name)
        times = [_local(ns) for ns in (process.start_ns, first_ns, last_ns)]
        rows.append(
            [str(process.pid), name, *times, "?" if process.uid is None else str(process.uid), _command(process)]
        )
    if processes:
        yield from _aligned(rows)
    else:
        yield "no process is known to have held any of these"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _local(time_ns: int) -> str:
    seconds, rest_ns = divmod(time_ns, NS_PER_S)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{rest_ns // 1_000_000:03d}"


def _begin(span: Span) -> str:
    if _only_ended(span):
        return "?"
    return f"{'<' if span.after_ns is None else ''}{_local(span.first_ns)}"


def _end(span: Span) -> str:
    return f"{'>' if span.before_ns is None else ''}{_local(span.last_ns)}"


def _only_ended(span: Span) -> bool:
    """Say whether no look found a socket, so that its end is all that was heard of it (`Span`)."""
    return span.first_ns == span.before_ns


def _local_end(recorded: RecordedSocket) -> str:
    return _end_text(recorded, recorded.socket.local_address, recorded.socket.local_port)


def _remote_end(recorded: RecordedSocket) -> str:
    socket = recorded.socket
    if socket.state == TCP_LISTEN:
        return "listening"
    if not socket.remote_port and not any(socket.remote_address.removeprefix(bytes(10) + b"\xff\xff")):
        return "*"
    return _end_text(recorded, socket.remote_address, socket.remote_port)


def _end_text(recorded: RecordedSocket, address: bytes, port: int) -> str:
    text = format_address(address)
    if recorded.socket.raw or recorded.socket.protocol not in PORT_PROTOCOLS:
        return text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _holders(recorded: RecordedSocket) -> str:
    eldest_first = sorted(recorded.holders, key=lambda holder: (holder.process.start_ticks, holder.span.first_ns))
    names = list(dict.fromkeys(identify(holder.process.name, holder.process.pid) for holder in eldest_first))
    more = f" +{len(names) - _MAX_HOLDERS}" if len(names) > _MAX_HOLDERS else ""
    return ", ".join(names[:_MAX_HOLDERS]) + more or "?"


def _command(process: Process) -> str:
    command = join_command(process.cmdline) if process.cmdline else escape(process.exe or "")
    return command if len(command) <= _COMMAND_CHARACTERS else command[:_COMMAND_CHARACTERS] + "..."


# JSON.


def _document(found: Sequence[_Found]) -> str:
    return "[" + ",\n ".join(map(_value, map(_connection, found))) + "]"


def _connection(one: _Found) -> dict[str, Any]:
    socket, span, holders = one.recorded
    has_ports = not socket.raw and socket.protocol in PORT_PROTOCOLS
    connected = socket.remote_port or any(socket.remote_address.removeprefix(bytes(10) + b"\xff\xff"))
    return {
        "store": one.store,
        "network": {"transport": transport(socket.protocol), "iana_number": str(int(socket.protocol))},
        "local": _json_end(socket.local_address, socket.local_port if has_ports else None),
        "remote": _json_end(socket.remote_address, socket.remote_port if has_ports else None) if connected else None,
        "listening": True if socket.state == TCP_LISTEN else None,
        "inode": socket.inode or None,
        "cookie": socket.cookie or None,
        "netns": socket.netns,
        "only_end_heard": True if _only_ended(span) else None,
        **_times(span),
        "holders": [_holder(process, times) for process, times in holders],
    }


def _json_end(address: bytes, port: int | None) -> dict[str, Any]:
    return {"ip": format_address(address), "port": port}


def _times(span: Span) -> dict[str, Any]:
    """Return the times of a fact; `not_before` and `not_after` are those at which it was not true."""
    return {
        "first_seen": utc(span.first_ns),
        "last_seen": utc(span.last_ns),
        "not_before": None if span.after_ns is None else utc(span.after_ns),
        "not_after": None if span.before_ns is None else utc(span.before_ns),
    }


def _holder(process: Process, span: Span) -> dict[str, Any]:
    parent = None if process.ppid is None else {"pid": process.ppid, "name": process.parent_name}
    return {
        "pid": process.pid,
        "name": process.name,
        "executable": process.exe,
        "command_line": join_command(process.cmdline) if process.cmdline else None,
        "start": utc(process.start_ns) if process.start_ns > 0 else None,
        "user": None if process.uid is None else {"id": str(process.uid)},
        "parent": parent,
        "container": None if process.container_id is None else {"id": process.container_id},
        **_times(span),
    }


def _value(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{json_text(key)}:{_value(item)}" for key, item in value.items() if item is not None)
        return f"{{{','.join(members)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return json_text(value) if isinstance(value, str) else str(int(value)) if value is not True else "true"
