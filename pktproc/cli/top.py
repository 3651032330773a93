"""`pktproc top`: who uses the network, on a live screen or in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pktproc.cli.capture_options import with_capture_options
from pktproc.cli.quantities import Period
from pktproc.cli.selection_options import with_selection_options
from pktproc.cli.top_options import EPILOG, GROUPS, TopCommand, TopOptions

_LEAST_DELAY_NS = 100_000_000


@click.command(cls=TopCommand, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@with_capture_options
@click.option("--by", "group", type=click.Choice(GROUPS), default="process", help="A line for each [process].")
@click.option("-d", "--delay", type=Period(_LEAST_DELAY_NS), metavar="TIME", help="Refresh so often: 0.5, 2, 1m [1].")
@click.option("-b", "--batch", is_flag=True, help="Print views one after the other instead of a screen.")
@click.option("-n", "count", type=click.IntRange(1), metavar="[N]",
              help="With a number, for --batch: exit after N views. Alone: no names of remote hosts.")  # fmt: skip
@click.option("--numeric", is_flag=True, help="No names of remote hosts, as -n without a number.")
@click.option("--format", type=click.Choice(["table", "json", "csv"]),
              help="With --batch: form of the views; json is an object a line [table].")  # fmt: skip
@click.option("--layer", type=click.Choice(["wire", "ip", "payload"]), default="wire",
              help="Count bytes of frames as captured, of IP packets, or of what they carry [wire].")  # fmt: skip
@click.option("--per-interface", is_flag=True,
              help="Count a packet on each interface that it passes; otherwise once.")  # fmt: skip
@click.option("--units", type=click.Choice(["iec", "si", "bits"]), default="iec",
              help="KiB, kB or kbit [iec].")  # fmt: skip
@click.option("--no-cmdline", is_flag=True, help="Leave command lines, which can hold secrets, out.")
@with_selection_options
@click.argument("words", nargs=-1, metavar="[FILTER]...")
def command(words: Sequence[str], **chosen: Any) -> None:
    """Show live which processes use the network, and how much.

    FILTER is a pcap-filter(7) expression. Each line has the rates of the time between two looks (-d), totals and a
    short history; traffic that nobody is known for stands at the end, with the reason, so that all lines add up to what
    was captured.

    A process is selected as with pktproc sniff; counted are then the packets with an end that fits.
    """
    options = TopOptions.of(words, chosen)
    from pktproc.cli import top_session  # noqa: PLC0415 - numpy and scapy, which --help can do without

    top_session.run(options)
