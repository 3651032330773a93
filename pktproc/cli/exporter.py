"""`pktproc exporter`: who uses the network, for Prometheus to scrape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pktproc.cli.capture_options import with_capture_options
from pktproc.cli.exporter_options import EPILOG, ExporterOptions, ListenAddress
from pktproc.cli.selection_options import with_selection_options


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@with_capture_options
@click.option("--listen", type=ListenAddress(), default="127.0.0.1:9833", metavar="ADDR:PORT", show_default=True,
              help="Serve http://ADDR:PORT/metrics; :PORT is on all addresses.")  # fmt: skip
@click.option("--max-series", type=click.IntRange(1, 100_000), default=200, metavar="N", show_default=True,
              help="Programs and users with series of their own; all further ones are told as 'other'.")  # fmt: skip
@click.option("--layer", type=click.Choice(["wire", "ip", "payload"]), default="wire",
              help="Count bytes of frames as captured, of IP packets, or of what they carry [wire].")  # fmt: skip
@click.option("--per-interface", is_flag=True,
              help="Count a packet on each interface that it passes; otherwise once.")  # fmt: skip
@click.option("-Z", "--relinquish-privileges", "user", metavar="USER",
              help="Once everything is open, become USER, keeping only what finding processes needs.")  # fmt: skip
@with_selection_options
@click.argument("words", nargs=-1, metavar="[FILTER]...")
def command(words: Sequence[str], **chosen: Any) -> None:
    """Serve bytes and packets of programs to Prometheus, until Ctrl-C or SIGTERM.

    FILTER is a pcap-filter(7) expression. What nobody is known for has series by the reason, so that all adds up to
    what was captured. Neither command lines nor addresses are told.
    """
    options = ExporterOptions.of(words, chosen)
    from pktproc.cli import exporter_session  # noqa: PLC0415 - numpy and scapy, which --help can do without

    exporter_session.run(options)
