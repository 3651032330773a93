"""What the user asked of `pktproc top`, checked; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import click

from pktproc.cli.filter_words import expression
from pktproc.cli.quantities import NS_PER_S
from pktproc.cli.selection_options import SelectionOptions
from pktproc.errors import UsageError

GROUPS = ("process", "program", "user", "container", "remote")
DEFAULT_DELAY_NS = NS_PER_S

EPILOG = """\b
Examples:
  pktproc top                              who uses the network right now
  pktproc top -i eth0 -n tcp port 443      one interface, a filter, no host names
  pktproc top --netns web --by program     another network namespace
  pktproc top --name 'postgres*' --follow  some programs and their children
  pktproc top --batch -n 5 -d 10 --format csv > log.csv
                                           five times, every ten seconds

\b
Keys: ? shows them all. Enter opens a process, / filters, g groups, < > sort, q ends.
"""

_NUMERIC = "--numeric"
_BARE = {"-n": (), "-bn": ("-b",), "-nb": ("-b",)}


class TopCommand(click.Command):
    """A command whose `-n` is tcpdump's where no number follows, and that of top(1) where one does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `-n` without a number for `--numeric`, then parse as usual."""
        told: list[str] = []
        for at, word in enumerate(args):
            if word == "--":
                told += args[at:]
                break
            follows = args[at + 1] if at + 1 < len(args) else ""
            if word == "-nb" or (word in _BARE and not follows.isdecimal()):
                told += [*_BARE[word], _NUMERIC]
            else:
                told.append(word)
        return super().parse_args(ctx, told)


@dataclass(frozen=True, slots=True)
class TopOptions:
    """Hold the options of one run."""

    interfaces: tuple[str, ...]
    netns: tuple[str, ...]
    expression: str
    engine: str
    group: str
    layer: str
    per_interface: bool
    delay_ns: int
    batch: bool
    count: int | None
    format: str
    units: str
    numeric: bool
    cmdline: bool
    selection: SelectionOptions

    @classmethod
    def of(cls, words: Sequence[str], chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        batch = chosen["batch"]
        if chosen["count"] is not None and not batch:
            raise UsageError("-n N says how many views --batch prints: add --batch, or leave N out for no host names")
        if chosen["format"] is not None and not batch:
            raise UsageError("--format is for --batch: add it")
        return cls(
            interfaces=tuple(dict.fromkeys(chosen["interfaces"])) or ("any",),
            netns=tuple(dict.fromkeys(chosen["netns"])),
            expression=expression(words, chosen["filter_file"]),
            engine=chosen["engine"],
            group=chosen["group"],
            layer=chosen["layer"],
            per_interface=chosen["per_interface"],
            delay_ns=chosen["delay"] or DEFAULT_DELAY_NS,
            batch=batch,
            count=chosen["count"],
            format=chosen["format"] or "table",
            units=chosen["units"],
            numeric=chosen["numeric"],
            cmdline=not chosen["no_cmdline"],
            selection=SelectionOptions.of(chosen),
        )
