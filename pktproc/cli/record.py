"""`pktproc record`: keep what is needed to name the packets of today's captures tomorrow."""

from __future__ import annotations

import click

from pktproc.cli.quantities import NS_PER_S, Period, Size
from pktproc.cli.write_options import check_store

_MILLISECOND_NS = 1_000_000
_MIN_BYTES = 8 << 20

EPILOG = """\b
Examples:
  pktproc record -o day.db                       until Ctrl-C or SIGTERM, a look a second
  pktproc record -o day.db --duration 8h         for a working day
  pktproc record -o ring.db --max-size 500M --max-age 7d    for ever, the oldest goes
  pktproc enrich a.pcap -s day.db -o a.pcapng    afterwards: the packets with their processes
  pktproc who -s day.db :443                     or: who used this port, and when
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--output", "store", required=True, metavar="STORE", help="Record into STORE, made if need be.")
@click.option("--interval", "interval_ns", type=Period(10 * _MILLISECOND_NS), default="1", metavar="S",
              help="Look every S seconds; also 500ms, 5m [1].")  # fmt: skip
@click.option("--duration", "duration_ns", type=Period(_MILLISECOND_NS), metavar="S", help="Exit after S; also 8h.")
@click.option("--max-size", "max_bytes", type=Size(_MIN_BYTES), metavar="N",
              help="Drop the oldest evidence when STORE reaches N bytes; also 500M, 2G.")  # fmt: skip
@click.option("--max-age", "max_age_ns", type=Period(NS_PER_S), metavar="T",
              help="Drop evidence of what ended longer ago than T: 12h, 7d.")  # fmt: skip
@click.option("--engine", type=click.Choice(["auto", "netlink", "procfs", "ebpf"]), default="auto",
              help="Source of facts; ebpf hears from the kernel also between looks.")  # fmt: skip
@click.option("--no-cmdline", is_flag=True, help="Leave command lines, which can hold secrets, out of STORE.")
def command(
    *,
    store: str,
    interval_ns: int,
    duration_ns: int | None,
    max_bytes: int | None,
    max_age_ns: int | None,
    engine: str,
    no_cmdline: bool,
) -> None:
    """Record which process holds which socket, in all network namespaces, until told to stop.

    Only what changes is written, so that an idle host costs next to nothing. STORE is an SQLite database that only its
    owner can read. Ctrl-C and SIGTERM are a normal end; a kill loses what happened since the last look.
    """
    check_store(store)
    from pktproc.cli import recording_session  # noqa: PLC0415 - sqlite3, which --help can do without
    from pktproc.recording import Recording  # noqa: PLC0415

    recording = Recording(
        store,
        engine=engine,
        cmdline=not no_cmdline,
        interval_ns=interval_ns,
        max_bytes=max_bytes,
        max_age_ns=max_age_ns,
    )
    recording_session.run(recording, store, duration_ns=duration_ns)
