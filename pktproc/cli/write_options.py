"""How packets are written to files: what the commands share that write them. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from pktproc.errors import UsageError
from pktproc.output.savefile import check_is_not_read

if TYPE_CHECKING:
    from pktproc.output.rotation import Rotation

STANDARD = "-"
"""Standard input or output in place of a file's name."""

ALL_FORMS = "comment,pid,darwin"
FORMS = tuple(ALL_FORMS.split(","))
"""The forms of annotation in pcapng files."""


with_annotate_option = click.option(
    "--annotate",
    default=ALL_FORMS,
    metavar="FORMS",
    help=f"Which annotations to write, of comment, pid and darwin, or none [{ALL_FORMS}].",
)
"""Give a command the option that says which annotations are written."""


def annotation_forms(text: str) -> frozenset[str]:
    """Return the forms in a list such as `comment,pid`; `none` and `all` stand alone."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return frozenset()
    if words == ["all"]:
        return frozenset(FORMS)
    unknown = [word for word in words if word not in FORMS]
    if unknown or not words:
        raise UsageError(f"--annotate {text}: give some of {', '.join(FORMS)}, or none")
    return frozenset(words)


def rotation(chosen: Mapping[str, Any]) -> Rotation | None:
    """Return when to go on to another file, as `-C`, `-G` and `-W` chose; raise `UsageError` for nonsense."""
    size, seconds, files = chosen["file_size"], chosen["rotate_seconds"], chosen["file_count"]
    if size is None and seconds is None:
        if files is not None:
            raise UsageError("-W says how many files: say with -C or -G when to go on to the next one")
        return None
    if chosen["output"] in (None, STANDARD):
        raise UsageError("-C and -G need a file to go on from: give -w FILE")
    from pktproc.output.rotation import Rotation, parse_size  # noqa: PLC0415 - only where files rotate

    return Rotation(None if size is None else parse_size(size), seconds, files)


def check_output(output: str, sources: Sequence[str] = (), *, prints: bool) -> None:
    """Raise `UsageError` if a file cannot be written beside what else is done: printing, reading `sources`."""
    if prints and output == STANDARD:
        raise UsageError("standard output is taken by the file: leave --json and --print out, or name a file")
    check_is_not_read(output, sources)


def check_store(store: str) -> None:
    """Raise `UsageError` for standard output in place of a store, which is a database and no stream."""
    if store == STANDARD:
        raise UsageError("a store cannot be standard output: give -o FILE")
