"""What the user asked of `pktproc sniff`, checked; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import click
from click.core import ParameterSource

from pktproc.cli.filter_words import expression
from pktproc.cli.print_options import PrintOptions
from pktproc.cli.selection_options import SelectionOptions
from pktproc.cli.write_options import annotation_forms, check_output, rotation
from pktproc.errors import UsageError

if TYPE_CHECKING:
    from pktproc.output.rotation import Rotation

EPILOG = """\b
Examples:
  pktproc sniff                             everything, on all interfaces
  pktproc sniff -i eth0 -n tcp port 443     one interface, a filter, ports as numbers
  pktproc sniff --name 'python*' --follow   programs by name, with their children
  pktproc sniff --netns web --json          another network namespace, as JSON lines
  pktproc sniff -- curl http://example.org  what one command sends and receives
  pktproc sniff --netns web -- ping 10.1.1.1  the same, run in a network namespace
  pktproc sniff -w day-%H.pcapng -G 3600    write a file an hour, with processes
  pktproc sniff -r day-09.pcapng port 443   show packets of such a file
  pktproc sniff -w - | wireshark -k -i -    watch in Wireshark

\b
Unknown ends and why:
  no-socket  nothing has this address and port     kernel      the kernel itself sends or takes it
  closed     closed before it could be asked       forwarded   neither end is on this host
  permission processes may not be inspected        ambiguous   several fit, all are named with -v
  not-ip     ARP and the like                      not-covered not enough was seen (fragments)
  other-namespace  in a namespace that may not be entered

Ctrl-C ends with a summary: packets received, dropped by the kernel, attributed, and the reasons.
"""

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
    duration_ns: int | None
    engine: str
    selection: SelectionOptions
    printing: PrintOptions
    prints: bool
    output: str | None
    forms: frozenset[str]
    rotation: Rotation | None
    user: str | None

    @classmethod
    def of(cls, context: click.Context, words: Sequence[str], chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        program = context.meta.get(_COMMAND_KEY, ())
        output = chosen["output"]
        prints = output is None or chosen["as_json"] or chosen["print_"]
        if output is not None:
            check_output(output, prints=prints)
        selection = SelectionOptions.of(chosen)
        if program and not selection.everything:
            raise UsageError("a command after -- already says whose packets to show: leave --pid, --name, ... out")
        netns = tuple(dict.fromkeys(chosen["netns"]))
        if program and len(netns) > 1:
            raise UsageError("a command after -- runs in one network namespace: give one --netns")
        return cls(
            interfaces=tuple(dict.fromkeys(chosen["interfaces"])) or ("any",),
            netns=netns,
            expression=expression(words, chosen["filter_file"]),
            program=program,
            way=chosen["way"],
            promiscuous=not chosen["no_promiscuous"],
            snaplen=chosen["snaplen"] or 262144,
            buffer_bytes=chosen["buffer_kib"] << 10,
            count=chosen["count"],
            duration_ns=chosen["duration"],
            engine=chosen["engine"],
            selection=selection,
            printing=PrintOptions.of(chosen),
            prints=prints,
            output=output,
            forms=annotation_forms(chosen["annotate"]),
            rotation=rotation(chosen),
            user=chosen["user"],
        )


_LIVE = {
    "interfaces": "-i",
    "netns": "--netns",
    "list_interfaces": "-D",
    "way": "-Q",
    "no_promiscuous": "-p",
    "snaplen": "-s",
    "buffer_kib": "-B",
    "file_size": "-C",
    "rotate_seconds": "-G",
    "file_count": "-W",
    "duration": "--duration",
    "engine": "--engine",
    "user": "-Z",
}


def check_reads_file(context: click.Context) -> None:
    """Raise `UsageError` for options of a live capture beside `-r`."""
    if _COMMAND_KEY in context.meta:
        raise UsageError("-r reads a file: leave the command after -- out")
    for name, flag in _LIVE.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"-r reads a file: leave {flag} out")
