"""Who is behind one end of a packet, in words: the short form for a line and the long form for below it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from pktproc.model import Attribution, Process, Reason
from pktproc.output.escape import escape, escape_name, join_command
from pktproc.output.names import user_name

Paint = Callable[[str, str], str]
"""Colours a text: `(text, key)`; equal keys give equal colours, an empty key stands for the background."""

_PALETTE = (31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96)
_COMMAND_CHARACTERS = 1000  # a command line can be megabytes long; JSON has all of it


def plain(text: str, key: str) -> str:
    """Return the text as it is, whatever its key."""
    del key
    return text


def ansi(text: str, key: str) -> str:
    """Return the text bold in a colour that depends on the key alone, or dim without a key (ECMA-48 SGR)."""
    if not key:
        return f"\x1b[2m{text}\x1b[0m"
    colour = _PALETTE[zlib.crc32(key.encode("utf-8", "surrogatepass")) % len(_PALETTE)]
    return f"\x1b[1;{colour}m{text}\x1b[0m"


def identify(name: str | None, pid: int) -> str:
    """Return `name[pid]` with the name escaped, `?[pid]` where it is unknown."""
    return f"{'?' if name is None else escape_name(name)}[{pid}]"


def short(end: Attribution | None, paint: Paint = plain) -> str:
    """Return what stands behind an address in a line: ` curl[4711]`, ` nginx[100]+3`, ` ?no-socket`, or nothing.

    `+3` counts further processes that hold the socket. An end that is not on this host, or not an IP end, has nothing.
    """
    if end is None or end.reason is Reason.NOT_IP:
        return ""
    if end.process is None:
        return " " + paint(f"?{end.reason or 'unknown'}", "")
    text = paint(identify(end.process.name, end.process.pid), end.process.name)
    others = len(end.holders) - 1
    return f" {text}+{others}" if others > 0 else f" {text}"


def long(side: str, end: Attribution, *, cmdline: bool = True) -> Iterator[str]:
    """Yield the indented lines that `-v` adds for one end: how it was found, and all about each process.

    Candidates of an ambiguous end are listed like holders. What is unknown is left out, command lines too without
    `cmdline`.
    """
    how = [end.match or "", f"by {end.evidence}" if end.evidence else "", "" if end.final else "not final"]
    found = ", ".join(filter(None, how))
    if end.process is None:
        yield f"    {side}: {end.reason or 'unknown'}" + (f", {found}" if found else "")
    else:
        yield f"    {side}: {identify(end.process.name, end.process.pid)}" + (f", {found}" if found else "")
        yield from _about(end.process, cmdline=cmdline)
    others = [holder for holder in end.holders if holder is not end.process and holder != end.process]
    for holder in others:
        yield f"    {'candidate' if end.process is None else 'also held by'}: {identify(holder.name, holder.pid)}"
        yield from _about(holder, cmdline=cmdline)


def _about(process: Process, *, cmdline: bool) -> Iterator[str]:
    if process.exe is not None:
        yield f"        exe: {escape(process.exe)}"
    if cmdline and process.cmdline:
        command = join_command(process.cmdline)
        cut = command if len(command) <= _COMMAND_CHARACTERS else command[:_COMMAND_CHARACTERS] + "..."
        yield f"        command: {cut}"
    facts = []
    if process.uid is not None:
        name = user_name(process.uid)
        facts.append(f"user: {process.uid}" if name is None else f"user: {escape(name)}({process.uid})")
    if process.ppid is not None:
        facts.append(f"parent: {identify(process.parent_name, process.ppid)}")
    if process.container_id is not None:
        facts.append(f"container: {escape(process.container_id)}")
    if facts:
        yield "        " + ", ".join(facts)
