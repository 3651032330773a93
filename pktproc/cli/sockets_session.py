"""One run of `pktproc sockets`: a look, and what is to be done with what it found."""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from pktproc.cli import garbage
from pktproc.cli.sockets_looks import cgroup_names, ends_of, look_of
from pktproc.cli.sockets_options import SocketsOptions
from pktproc.cli.talk import say
from pktproc.errors import EngineError, PktprocError
from pktproc.inventory.remembered import LastHolders
from pktproc.inventory.rows import Listing, Row
from pktproc.listing import Looker, processes_of
from pktproc.output.socket_table import drawn, holder_text, label, table
from pktproc.output.stream import write_all

if TYPE_CHECKING:
    from pktproc.witnessing import SocketWitness

WITNESSED = frozenset({"tcp", "udp", "udplite", "sctp", "dccp", "mptcp"})
"""The kinds whose use a witness tells."""
_INODE = Row._fields.index("inode")


def run(options: SocketsOptions) -> None:
    """Do what the options ask for; raise `PktprocError` if that has no effect, or there is nowhere to tell of it."""
    if sys.stdout is None:
        raise PktprocError("standard output is closed: there is nowhere to write to")
    # All that is made here lives until the end: to look for what could be let go of takes a third of the time.
    gc.disable()
    goes_on = options.watch_s is not None or options.events
    with Looker(options.question(), remembered=_remembered(options), keeps=goes_on) as looker:
        if goes_on:
            garbage.look_no_more()
            _go_on(looker, options)
        else:
            _once(looker, options)


def _go_on(looker: Looker, options: SocketsOptions) -> None:
    """Look again and again, with a witness where there can be one."""
    with ExitStack() as opened:
        witness = _witness(options)
        if witness is not None:
            opened.enter_context(witness)
        if options.watch_s is not None:
            from pktproc.cli import sockets_watch  # noqa: PLC0415 - rich

            sockets_watch.run(looker, witness, options, options.watch_s)
        else:
            from pktproc.cli import sockets_events  # noqa: PLC0415 - only where it is asked for

            sockets_events.run(looker, witness, options)


def _witness(options: SocketsOptions) -> SocketWitness | None:
    """Return what hears of each use of a socket; None where that is not wanted, or does not work and need not."""
    if options.engine == "netlink" or not WITNESSED & set(options.tables):
        return None
    from pktproc.witnessing import SocketWitness  # noqa: PLC0415 - numpy and libbpf

    try:
        witness = SocketWitness(cmdline=options.cmdline)
    except (EngineError, OSError) as error:
        if options.engine == "ebpf":
            raise
        say(f"engine netlink, since ebpf does not work: {error}; the owners of short-lived sockets are not known")
        return None
    for limit in witness.limits:
        say(limit)
    return witness


def _remembered(options: SocketsOptions) -> LastHolders | None:
    if options.store is None:
        return None
    from pktproc.remembering import recorded_holders  # noqa: PLC0415 - sqlite3

    return recorded_holders(options.store)


def _once(looker: Looker, options: SocketsOptions) -> None:
    if looker.is_plain and _is_plain(options):
        _write_plainly(looker, options)
        return
    listing = looker.look()
    nothing = options.named and not listing.entries
    if not nothing or options.format != "table":
        write_all(sys.stdout.fileno(), written(listing, options))
    for note in listing.notes:
        say(note)
    if nothing:
        from pktproc.cli.sockets_absence import absence  # noqa: PLC0415 - most look for what is there

        raise PktprocError(absence(options))
    if options.signal or options.close:
        from pktproc.cli import sockets_endings  # noqa: PLC0415 - only where it is asked for

        if options.signal:
            sockets_endings.kill(listing.entries, options)
        else:
            sockets_endings.close(listing.entries, looker, options)


def written(listing: Listing, options: SocketsOptions) -> str:
    """Return a listing in the form that was chosen."""
    if options.summary:
        from pktproc.output.socket_summary import summary  # noqa: PLC0415 - only where it is asked for

        return summary(listing)
    named = cgroup_names(options)
    if options.format == "json":
        from pktproc.output.socket_export import json_array  # noqa: PLC0415 - only where it is asked for

        return json_array(listing, processes_of(listing.entries), named, cmdline=options.cmdline)
    ends = ends_of(listing, options)
    if options.format == "csv":
        from pktproc.output.socket_export import csv_table  # noqa: PLC0415 - only where it is asked for

        return csv_table(listing, ends)
    return table(listing, ends, look_of(listing, options, named))


def _is_plain(options: SocketsOptions) -> bool:
    details = options.timers or options.extended or options.info or options.memory or options.summary
    return options.format == "table" and not (details or options.signal or options.close)


def _write_plainly(looker: Looker, options: SocketsOptions) -> None:
    """Write a table without making an object of each socket."""
    fields, join, listing = looker.look_plainly()
    write = partial(holder_text, denied=listing.denied)
    holders = join.texts(fields[_INODE], label, write)
    text = drawn(fields, holders, listing, ends_of(listing, options), look_of(listing, options, {}))
    write_all(sys.stdout.fileno(), text)
    for note in listing.notes:
        say(note)
