"""The options that every command shares that prints packets, and what they choose. Nothing heavy is imported here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import click

from pktproc.errors import UsageError

if TYPE_CHECKING:
    from pktproc.output.jsonlines import JsonFormat
    from pktproc.output.text import TextFormat

TimeFormat = Literal["time", "epoch", "date", "none"]
Dump = Literal["", "x", "xx", "X", "XX", "A"]
_TIMES: dict[int, TimeFormat] = {0: "time", 1: "none", 2: "epoch", 4: "date"}
Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="JSON lines with Elastic Common Schema names."),
    click.option("--no-cmdline", is_flag=True, help="Leave command lines, which can hold secrets, out."),
    click.option(
        "-v", "--verbose", count=True, help="Exe, command line, user, parent, container; -vv dissects in full."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Shorter lines."),
    click.option("-e", "link", is_flag=True, help="Show the link-level header."),
    click.option("-n", "numeric", count=True, help="Show ports as numbers; addresses always are."),
    click.option("-t", "times", count=True, help="No time; -tt seconds since the epoch; -tttt date and time."),
    click.option("--nano", is_flag=True, help="Nanoseconds in times."),
    click.option("-x", "hexes", count=True, help="Hex dump; -xx with the link-level header."),
    click.option("-X", "hex_asciis", count=True, help="Hex and ASCII dump; -XX with the link-level header."),
    click.option("-A", "ascii_", is_flag=True, help="ASCII dump."),
    click.option(
        "--color",
        "--colour",
        "colour",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        help="Colour names [auto: on a terminal, unless NO_COLOR is set].",
    ),
)


def with_print_options(command: Command) -> Command:
    """Give a command the options that say how packets are printed."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class PrintOptions:
    """Hold how packets are printed."""

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

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        return cls(
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
        )

    def formatter(self) -> TextFormat | JsonFormat:
        """Return what turns packets into lines; raise `UsageError` if there is nowhere to print them."""
        if sys.stdout is None:
            raise UsageError("standard output is closed: open it, or write to a file")
        if self.as_json:
            from pktproc.output.jsonlines import JsonFormat  # noqa: PLC0415 - numpy, which --help can do without

            return JsonFormat(cmdline=self.cmdline)
        from pktproc.output.text import TextFormat  # noqa: PLC0415

        return TextFormat(
            verbose=self.verbose,
            quiet=self.quiet,
            link=self.link,
            dump=self.dump,
            colour=self.colour,
            numeric=self.numeric,
            cmdline=self.cmdline,
            time_format=self.time_format,
            precision="nano" if self.nano else "micro",
        )


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
        return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return choice == "always"
