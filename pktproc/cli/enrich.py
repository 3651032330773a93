"""`pktproc enrich`: a capture file and saved evidence in, the packets with their processes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pktproc.cli.file_options import DEFAULT_TOLERANCE_S, FileOptions
from pktproc.cli.print_options import with_print_options
from pktproc.cli.selection_options import with_selection_options
from pktproc.cli.write_options import with_annotate_option

EPILOG = """\b
Examples:
  pktproc record -o day.db                           all day, beforehand
  pktproc enrich a.pcap -s day.db -o a.pcapng        for Wireshark, with processes
  pktproc enrich a.pcap -s day.db tcp port 443       print some packets
  pktproc enrich a.pcap -s day.db --name curl        those of a program
  pktproc enrich a.pcapng -s web.db -s db.db --json  two hosts, JSON lines
  ssh host tcpdump -w - | pktproc enrich - -s h.db   from a pipe

\b
Unknown ends and why:
  not-covered  nobody recorded then, or no look found the socket
  closed       it was over before a look could find its process
  no-socket    nothing had this address and port
  ambiguous    it may have been one of several; -v lists them
  forwarded    neither end is on a recorded host
  kernel       the kernel itself sends or takes it
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-s", "--store", "stores", multiple=True, required=True, metavar="STORE",
              help="Evidence saved by pktproc record or snapshot; several for several hosts.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Write an annotated pcapng file; - is standard output.")
@with_annotate_option
@click.option("--skew", type=click.FloatRange(-1e9, 1e9), default=0.0, metavar="S",
              help="Seconds to add to the times of packets to get those of the store [0].")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(0, 1e9), default=DEFAULT_TOLERANCE_S, metavar="S",
              help="How long before its first and after its last look a fact may have held [2].")  # fmt: skip
@click.option("-F", "filter_file", type=click.File(), metavar="FILE", help="Read the filter expression from FILE.")
@click.option("-c", "count", type=click.IntRange(1), metavar="N", help="Exit after N packets.")
@with_selection_options
@with_print_options
@click.option("--print", "print_", is_flag=True, help="Print packets as well, with -o.")
@click.argument("source", metavar="IN.pcap[ng]|-")
@click.argument("words", nargs=-1, metavar="[FILTER]...")
def command(source: str, words: Sequence[str], **chosen: Any) -> None:
    """Name the processes behind the packets of a capture file, by evidence that was saved when they ran.

    The file may be pcap or pcapng, from any tool, also compressed (gz, zst, xz, bz2). Each end of a packet is looked up
    in the store of the host that had its address then, at the packet's own time; the sockets of now are never asked.
    Without -o the packets are printed as by pktproc sniff. FILTER is a pcap-filter(7) expression.
    """
    options = FileOptions.of(source, chosen["stores"], words, chosen)
    from pktproc.cli import file_session  # noqa: PLC0415 - numpy and sqlite3, which --help can do without

    file_session.run(options)
