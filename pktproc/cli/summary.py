"""`pktproc summary`: who moved how many bytes, from a capture file or live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pktproc.cli.capture_options import with_capture_options
from pktproc.cli.file_options import DEFAULT_TOLERANCE_S
from pktproc.cli.quantities import Period
from pktproc.cli.selection_options import with_selection_options
from pktproc.cli.summary_options import EPILOG, KEYS, LAYERS, ORDERS, Keys, SummaryOptions

_LEAST_INTERVAL_NS = 10_000_000


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@with_capture_options
@click.option("--duration", type=Period(1), metavar="TIME", help="Capture for so long: 30, 10m, 1h [until Ctrl-C].")
@click.option("-s", "--store", "stores", multiple=True, metavar="STORE",
              help="Name the packets of FILE by what pktproc record saved; several for several hosts.")  # fmt: skip
@click.option("--skew", type=click.FloatRange(-1e9, 1e9), default=0.0, metavar="S",
              help="Seconds to add to the times of packets of FILE to get those of the store [0].")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(0, 1e9), default=DEFAULT_TOLERANCE_S, metavar="S",
              help="How long before its first and after its last look a fact may have held [2].")  # fmt: skip
@click.option("--by", type=Keys(), multiple=True, metavar="KEY[,KEY]",
              help=f"A row for each of: {', '.join(KEYS)} [process].")  # fmt: skip
@click.option("--layer", type=click.Choice(LAYERS), default="wire",
              help="Count bytes of frames as captured, of IP packets, or of what they carry [wire].")  # fmt: skip
@click.option("--per-interface", is_flag=True,
              help="Count a packet on each interface that it passes; otherwise once.")  # fmt: skip
@click.option("--interval", type=Period(_LEAST_INTERVAL_NS), metavar="TIME",
              help="Show the course over time, in steps of TIME; peaks are of such a step [1].")  # fmt: skip
@click.option("--sort", type=click.Choice(ORDERS), default="total", help="Order of the rows [total].")
@click.option("--top", "most", type=click.IntRange(1), metavar="N", help="N rows, and all others in one.")
@click.option("--format", type=click.Choice(["table", "json", "csv"]), default="table", help="Form of the report.")
@click.option("--units", type=click.Choice(["iec", "si", "bits"]), default="iec",
              help="Units in the table: KiB, kB or kbit [iec].")  # fmt: skip
@click.option("--plot", metavar="FILE", help="Draw bandwidth over time, by row, to a .png, .svg or .html file.")
@click.option("--no-cmdline", is_flag=True, help="Leave command lines, which can hold secrets, out.")
@with_selection_options
@click.argument("words", nargs=-1, metavar="[FILE] [FILTER]...")
@click.pass_context
def command(context: click.Context, /, words: Sequence[str], **chosen: Any) -> None:
    """Show who moved how many bytes: totals that add up exactly, for a capture FILE or live until Ctrl-C.

    FILE is pcap or pcapng, also compressed, or - for standard input; its packets are named by the stores of -s, or by
    the processes that it carries. The first word is taken for FILE if there is such a file or it looks like one (x/y,
    x.pcap); everything else is FILTER, a pcap-filter(7) expression.

    A process is selected as with pktproc sniff; counted are then the packets with an end that fits.
    """
    options = SummaryOptions.of(context, words, chosen)
    from pktproc.cli import summary_session  # noqa: PLC0415 - numpy and scapy, which --help can do without

    summary_session.run(options)
