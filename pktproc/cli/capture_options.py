"""The options that say what a live capture is of, shared by the commands. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-i", "--interface", "interfaces", multiple=True, metavar="IFACE", help="Capture on IFACE [any]."),
    click.option(
        "--netns", multiple=True, metavar="NAME", help="Capture in this network namespace (name, path or pid)."
    ),
    click.option("-F", "filter_file", type=click.File(), metavar="FILE", help="Read the filter expression from FILE."),
    click.option(
        "--engine",
        type=click.Choice(["auto", "ebpf", "netlink", "procfs"]),
        default="auto",
        help="Source of facts: ebpf is told by the kernel itself who uses each socket. auto takes it where it loads, "
        "or else netlink or procfs, and says why.",
    ),
)


def with_capture_options(command: Command) -> Command:
    """Give a command the options of a live capture."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
