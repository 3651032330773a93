"""What the user asked of `pktproc sniff`, checked; nothing heavy is imported here."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import click

from pktproc.errors import UsageError

EPILOG = """\b
Examples:
  pktproc sniff                             everything, on all interfaces
  pktproc sniff -i eth0 -n tcp port 443     one interface, a filter, ports as numbers
  pktproc sniff --name 'python*' --follow   programs by name, with their children
  pktproc sniff --netns web --json          another network namespace, as JSON lines
  pktproc sniff -- curl http://example.org  what one command sends and receives

\b
Unknown ends and why:
  no-socket  nothing has this address and port     kernel      the kernel itself sends or takes it
  closed     closed before it could be asked       forwarded   neither end is on this host
  permission processes may not be inspected        ambiguous   several fit, all are named with -v
  not-ip     ARP and the like                      not-covered not enough was seen (fragments)
  other-namespace  in a namespace that may not be entered

Ctrl-C ends with a summary: packets received, dropped by the kernel, attributed, and the reasons.
"""

TimeFormat = Literal["time", "epoch", "date", "none"]
Dump = Literal["", "x", "xx", "X", "XX", "A"]
_TIMES: dict[int, TimeFormat] = {0: "time", 1: "none", 2: "epoch", 4: "date"}
_COMMAND_KEY = "pktproc.command"


class SniffCommand(click.Command):
    """A command whose words after `--` are a command line of their own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the words after the first `--` aside, then parse the others as usual."""
        if "--" in args:
            at = args.index("--")
            args, program = args[:at], args[at + 1 :]
            if not program:
                raise click.UsageError("-- is followed by no command", ctx)
            ctx.meta[_COMMAND_KEY] = tuple(program)
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class SniffOptions:
    """Hold the options of one run, all checked as far as that needs no privilege."""

    interfaces: tuple[str, ...]
    netns: tuple[str, ...]
    expression: str
    program: tuple[str, ...]
    way: str
    promiscuous: bool
    snaplen: int
    buffer_bytes: int
    count: int | None
    duration_s: float | None
    engine: str
    pids: frozenset[int]
    names: tuple[str, ...]
    uids: frozenset[int]
    containers: tuple[str, ...]
    follow: bool
    as_json: bool
    cmdline: bool
    verbose: int
    quiet: bool
    link: bool
    numeric: bool
    time_format: TimeFormat
    nano: bool
    dump: Dump
    colour: bool
    user: str | None

    @classmethod
    def of(cls, context: click.Context, words: Sequence[str], chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        program = context.meta.get(_COMMAND_KEY, ())
        if program and (chosen["pids"] or chosen["names"] or chosen["users"] or chosen["containers"]):
            raise UsageError("a command after -- already says whose packets to show: leave --pid, --name, ... out")
        return cls(
            interfaces=tuple(dict.fromkeys(chosen["interfaces"])) or ("any",),
            netns=tuple(dict.fromkeys(chosen["netns"])),
            expression=_expression(words, chosen["filter_file"]),
            program=program,
            way=chosen["way"],
            promiscuous=not chosen["no_promiscuous"],
            snaplen=chosen["snaplen"] or 262144,
            buffer_bytes=chosen["buffer_kib"] << 10,
            count=chosen["count"],
            duration_s=chosen["duration"],
            engine=chosen["engine"],
            pids=frozenset(chosen["pids"]),
            names=chosen["names"],
            uids=frozenset(_uid(user) for user in chosen["users"]),
            containers=chosen["containers"],
            follow=chosen["follow"],
            as_json=chosen["as_json"],
            cmdline=not chosen["no_cmdline"],
            verbose=chosen["verbose"],
            quiet=chosen["quiet"],
            link=chosen["link"],
            numeric=chosen["numeric"] > 0,
            time_format=_time_format(chosen["times"]),
            nano=chosen["nano"],
            dump=_dump(chosen),
            colour=_colour(chosen["colour"]),
            user=chosen["user"],
        )


def _expression(words: Sequence[str], file: Any) -> str:
    expression = " ".join(words)
    if file is None:
        return expression
    if expression:
        raise UsageError("give the filter with -F or on the command line, not both")
    try:
        return str(file.read()).strip()
    except UnicodeError:
        raise UsageError(f"{file.name} holds no filter: it is not text") from None


def _uid(user: str) -> int:
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise UsageError(f"no user {user!r} on this host: give a name or a number") from None


def _time_format(count: int) -> TimeFormat:
    if count not in _TIMES:
        raise UsageError("times are shown with none of -t, or -t, -tt or -tttt")
    return _TIMES[count]


def _dump(chosen: Mapping[str, Any]) -> Dump:
    kinds: list[Dump] = []
    if chosen["hexes"]:
        kinds.append("x" if chosen["hexes"] == 1 else "xx")
    if chosen["hex_asciis"]:
        kinds.append("X" if chosen["hex_asciis"] == 1 else "XX")
    if chosen["ascii_"]:
        kinds.append("A")
    if len(kinds) > 1:
        raise UsageError("choose one of -x, -X and -A")
    return kinds[0] if kinds else ""


def _colour(choice: str) -> bool:
    if choice == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return choice == "always"
