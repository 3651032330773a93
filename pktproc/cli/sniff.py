"""`pktproc sniff`: packets as they pass, each with the processes at its ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pktproc.cli.capture_options import with_capture_options
from pktproc.cli.file_options import FileOptions
from pktproc.cli.print_options import with_print_options
from pktproc.cli.quantities import Period
from pktproc.cli.selection_options import with_selection_options
from pktproc.cli.sniff_options import EPILOG, SniffCommand, SniffOptions, check_reads_file
from pktproc.cli.write_options import with_annotate_option

_MILLISECOND_NS = 1_000_000
_IN_OUT = click.Choice(["in", "out", "inout"])


@click.command(cls=SniffCommand, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@with_capture_options
@click.option("-D", "--list-interfaces", is_flag=True, help="List the interfaces and exit.")
@click.option("-Q", "--direction", "way", type=_IN_OUT, default="inout", help="Only packets that come in or go out.")
@click.option("-p", "--no-promiscuous-mode", "no_promiscuous", is_flag=True, help="Leave the interface as it is.")
@click.option("-s", "--snapshot-length", "snaplen", type=click.IntRange(0, 262144), default=262144, metavar="BYTES",
              help="Keep this many bytes of each packet [262144].")  # fmt: skip
@click.option("-B", "--buffer-size", "buffer_kib", type=click.IntRange(256, 2097151), default=32768, metavar="KIB",
              help="Size of the capture ring in KiB [32768].")  # fmt: skip
@click.option("-r", "source", metavar="FILE", help="Read packets from FILE, with the processes that it names.")
@click.option("-w", "output", metavar="FILE", help="Write packets to FILE (pcapng, with processes); - is stdout.")
@with_annotate_option
@click.option("-C", "file_size", metavar="SIZE", help="Next file after SIZE million bytes, or e.g. 500k, 64m, 2g.")
@click.option("-G", "rotate_seconds", type=click.IntRange(1), metavar="S",
              help="Next file every S seconds; strftime(3) conversions in its name are replaced.")  # fmt: skip
@click.option("-W", "file_count", type=click.IntRange(1), metavar="N",
              help="With -C a ring of N files, with -G exit after N files.")  # fmt: skip
@click.option("-c", "count", type=click.IntRange(1), metavar="N", help="Exit after N packets.")
@click.option("--duration", type=Period(_MILLISECOND_NS), metavar="S", help="Exit after S seconds; also 90s, 2m, 1h.")
@with_selection_options
@with_print_options
@click.option("-l", "-U", "--line-buffered", is_flag=True,
              help="Accepted for tcpdump's sake: output is never held back.")  # fmt: skip
@click.option("--print", "print_", is_flag=True, help="Print packets as well, with -w.")
@click.option("-Z", "--relinquish-privileges", "user", metavar="USER",
              help="Once everything is open, become USER, keeping only what finding processes needs.")  # fmt: skip
@click.argument("words", nargs=-1, metavar="[FILTER]... [-- COMMAND ARG...]")
@click.pass_context
def command(context: click.Context, /, words: Sequence[str], **chosen: Any) -> None:
    """Show live packets with the processes that send and receive them.

    FILTER is a pcap-filter(7) expression, applied in the kernel. After each address that is on this host stands the
    process, as in curl[4711], or ? and the reason why there is none. An answer is waited for 50 ms at most.

    -i, --netns and the options that select processes can be repeated. A packet is shown if one of its ends fits one
    value of each option that selects.

    With COMMAND, start it, in the namespace of --netns if that is given, and show only packets of it and its
    descendants; its standard output goes to standard error.

    -w writes pcapng, with the processes as comments, which any reader shows, and in the fields that newer ones know; -r
    shows such a file again.
    """
    if chosen["source"] is not None:
        check_reads_file(context)
        from pktproc.cli import file_session  # noqa: PLC0415 - numpy

        file_session.run(FileOptions.of(chosen["source"], (), words, chosen))
        return
    options = SniffOptions.of(context, words, chosen)
    from pktproc.cli import sniff_session  # noqa: PLC0415 - numpy and scapy, which --help can do without

    if chosen["list_interfaces"]:
        sniff_session.list_interfaces(options)
    else:
        sniff_session.run(options)
