"""`pktproc snapshot`: one look at the sockets and processes of this host, kept."""

from __future__ import annotations

import click

from pktproc.cli.write_options import check_store


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--output", "store", required=True, metavar="STORE", help="Add to STORE, made if need be.")
@click.option("--engine", type=click.Choice(["auto", "netlink", "procfs"]), default="auto", help="Source of facts.")
@click.option("--no-cmdline", is_flag=True, help="Leave command lines, which can hold secrets, out of STORE.")
def command(*, store: str, engine: str, no_cmdline: bool) -> None:
    """Look once at the sockets and processes of this host and keep what was seen.

    It names the packets of that moment, and about two seconds around it; pktproc record keeps looking.
    """
    check_store(store)
    from pktproc.cli import recording_session  # noqa: PLC0415 - sqlite3, which --help can do without
    from pktproc.recording import Recording  # noqa: PLC0415

    recording_session.look_once(Recording(store, engine=engine, cmdline=not no_cmdline), store)
