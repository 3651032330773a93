"""What the user asked of `pktproc summary`, checked; nothing heavy is imported here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click
from click.core import ParameterSource

from pktproc.cli.filter_words import expression
from pktproc.cli.selection_options import SelectionOptions
from pktproc.errors import UsageError

KEYS = ("process", "name", "exe", "cmdline", "user", "container", "unit", "remote", "remote-port", "protocol",
        "interface", "connection")  # fmt: skip
ORDERS = ("total", "sent", "received", "packets", "mean", "peak", "connections", "first", "last", "name")
LAYERS = ("wire", "ip", "payload")
PLOT_SUFFIXES = (".png", ".svg", ".html")
STANDARD = "-"
_CAPTURE_SUFFIXES = (".pcap", ".pcapng", ".cap", ".ntar", ".dmp")
_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")

EPILOG = """\b
Examples:
  pktproc summary --duration 1m               this host, the next minute
  pktproc summary -i eth0 tcp port 443        until Ctrl-C, one interface, a filter
  pktproc summary a.pcapng                    a file with processes in it
  pktproc summary a.pcap -s day.db            any file, with what was recorded then
  pktproc summary a.pcap -s day.db --by user,remote --top 10
  pktproc summary --name 'python*' --by remote-port --format csv
  pktproc summary a.pcapng --interval 10s --plot a.html

\b
Rows of unknown owners show why: see pktproc sniff --help. A packet whose two ends are
on this host counts at both, as sent and as received; the last line shows how it adds up.
"""


class Keys(click.ParamType[tuple[str, ...]]):
    """What to group by: one key, or several with commas between them."""

    name = "keys"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the keys."""
        if isinstance(value, tuple):
            return value
        words = [word.strip().lower() for word in value.split(",") if word.strip()]
        unknown = [word for word in words if word not in KEYS]
        if unknown or not words:
            what = f"{unknown[0]!r} is no key" if unknown else "no key is given"
            self.fail(f"{what}: give some of {', '.join(KEYS)}", param, ctx)
        return tuple(words)


@dataclass(frozen=True, slots=True)
class SummaryOptions:
    """Hold the options of one run; `source` is None for a live capture."""

    source: str | None
    stores: tuple[str, ...]
    interfaces: tuple[str, ...]
    netns: tuple[str, ...]
    expression: str
    duration_ns: int | None
    engine: str
    skew_s: float
    tolerance_s: float
    by: tuple[str, ...]
    layer: str
    per_interface: bool
    interval_ns: int | None
    sort: str
    most: int | None
    format: str
    units: str
    plot: str | None
    cmdline: bool
    colour: bool
    selection: SelectionOptions

    @classmethod
    def of(cls, context: click.Context, words: Sequence[str], chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        source, words = _source(context, words)
        by = tuple(dict.fromkeys(key for keys in chosen["by"] for key in keys)) or ("process",)
        cmdline = not chosen["no_cmdline"]
        if "cmdline" in by and not cmdline:
            raise UsageError("--by cmdline shows what --no-cmdline leaves out: choose one of them")
        if chosen["plot"] is not None:
            _check_plot(chosen["plot"], source, chosen["stores"])
        if source is None and chosen["stores"]:
            raise UsageError("-s names what was recorded, for the packets of a FILE: give the FILE, or leave -s out")
        return cls(
            source=source,
            stores=tuple(dict.fromkeys(chosen["stores"])),
            interfaces=tuple(dict.fromkeys(chosen["interfaces"])) or ("any",),
            netns=tuple(dict.fromkeys(chosen["netns"])),
            expression=expression(words, chosen["filter_file"]),
            duration_ns=chosen["duration"],
            engine=chosen["engine"],
            skew_s=chosen["skew"],
            tolerance_s=chosen["tolerance"],
            by=by,
            layer=chosen["layer"],
            per_interface=chosen["per_interface"],
            interval_ns=chosen["interval"],
            sort=chosen["sort"],
            most=chosen["most"],
            format=chosen["format"],
            units=chosen["units"],
            plot=chosen["plot"],
            cmdline=cmdline,
            colour=not os.environ.get("NO_COLOR"),
            selection=SelectionOptions.of(chosen),
        )


_LIVE = {"interfaces": "-i", "netns": "--netns", "duration": "--duration", "engine": "--engine"}
_OF_FILES = {"skew": "--skew", "tolerance": "--tolerance"}


def _source(context: click.Context, words: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """Tell the FILE, if there is one, from the words of the filter.

    The first word is a FILE if it is `-`, names a file that exists, or looks like one: it has a slash in it or ends as
    capture files do. With an option that only a live capture has, a word that merely happens to name a file is one of
    the filter.
    """
    live = next((flag for name, flag in _LIVE.items() if _is_given(context, name)), None)
    of_file = next((flag for name, flag in _OF_FILES.items() if _is_given(context, name)), None)
    if not words:
        if of_file:
            raise UsageError(f"{of_file} is for the packets of a FILE: give the FILE, or leave {of_file} out")
        return None, words
    first, rest = words[0], words[1:]
    looks = first == STANDARD or _looks_like_file(first)
    if live:
        if looks:
            raise UsageError(f"{live} captures, {first} is a file: leave one of them out")
        return None, words
    if looks or Path(first).is_file():
        return first, rest
    if of_file:
        raise UsageError(f"{first}: no such file, and {of_file} is for the packets of one")
    return None, words


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _looks_like_file(word: str) -> bool:
    name = word.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    has_slash = "/" in word and not word.rpartition("/")[2].isdecimal()  # not a network as in `net 10.0.0.0/8`
    return has_slash or name.endswith(_CAPTURE_SUFFIXES) or name != word.lower()


def _check_plot(plot: str, source: str | None, stores: Sequence[str]) -> None:
    if not plot.lower().endswith(PLOT_SUFFIXES):
        raise UsageError(f"--plot {plot}: the name of the file says what is drawn, end it with one of "
                         f"{', '.join(PLOT_SUFFIXES)}")  # fmt: skip
    if not Path(plot).absolute().parent.is_dir():
        raise UsageError(f"--plot {plot}: there is no folder {Path(plot).parent}, make it first")
    if any(read is not None and _is_same(plot, read) for read in (source, *stores)):
        raise UsageError(f"--plot {plot} would overwrite what is read: name another file")


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
