"""How `pktproc sockets` writes what it found: as the options have it, and the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from pktproc.cli.sockets_options import SocketsOptions
from pktproc.inventory.rows import Listing
from pktproc.kernel import cgroups, namespaces
from pktproc.output.socket_ends import Ends, resolved_name
from pktproc.output.socket_table import Look


def cgroup_names(options: SocketsOptions) -> Mapping[int, str]:
    """Return the paths of cgroups by id, where they are shown."""
    return cgroups.paths() if options.extended or options.format == "json" else {}


def ends_of(listing: Listing, options: SocketsOptions) -> Ends:
    """Return the writer of addresses and ports that was chosen."""
    return Ends(
        listing.interfaces,
        numeric=options.numeric or options.format == "csv",
        host_name=resolved_name if options.resolve else None,
    )


def look_of(listing: Listing, options: SocketsOptions, named: Mapping[int, str]) -> Look:
    """Return how the table looks here: as wide as the terminal, in colour where there is one."""
    terminal = sys.stdout.isatty()
    return Look(
        width=_width() if terminal else None,
        colour=terminal and not os.environ.get("NO_COLOR"),
        header=options.header,
        kinds=len(options.tables) > 1,
        peers=options.peers,
        namespaces=_spans_namespaces(listing),
        fds=options.selection.pids,
        timers=options.timers,
        extended=options.extended,
        info=options.info,
        memory=options.memory,
        one_line=options.one_line,
        cgroups=named,
    )


def _spans_namespaces(listing: Listing) -> bool:
    """Say whether it must be told which namespace sockets are of: not if all that were found are of the own one."""
    if len(listing.namespaces) < 2:
        return False
    own = namespaces.current()
    return not listing.entries or any(entry.row.netns not in (0, own) for entry in listing.entries)


def _width() -> int:
    """Return how many columns the terminal has."""
    import shutil  # noqa: PLC0415 - the compression libraries that it brings along cost 2 ms

    return shutil.get_terminal_size().columns
