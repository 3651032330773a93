"""pktproc as an extcap, a program that Wireshark captures through (extcap(4)).

Wireshark calls it once for each question, reads sentences on standard output, and once more for a capture, which goes
into a fifo. What a capture says on standard error is shown to the user as its failure.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Any

import click

from pktproc.cli import extcap_sentences as sentences
from pktproc.errors import PktprocError, UsageError

_READER_WAIT_S = 30.0
_READER_POLL_S = 0.02


# A newer Wireshark may pass more than is known here, which is no reason to fail.
@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--extcap-version", "wireshark_version", is_flag=False, flag_value="", metavar="VERSION")
@click.option("--extcap-interfaces", "lists_interfaces", is_flag=True)
@click.option("--extcap-dlts", "lists_datalinks", is_flag=True)
@click.option("--extcap-config", "lists_options", is_flag=True)
@click.option("--capture", "captures", is_flag=True)
@click.option("--extcap-interface", "interface", metavar="INTERFACE")
@click.option("--extcap-capture-filter", "expression", metavar="FILTER")
@click.option("--fifo", metavar="FIFO")
@click.option("--name", "names", default="", metavar="GLOB,...")
@click.option("--pid", "pids", default="", metavar="PID,...")
@click.option("--user", "users", default="", metavar="USER,...")
@click.option("--follow", is_flag=True)
@click.option("--no-cmdline", is_flag=True)
@click.option("--engine", default=sentences.ENGINES[0], metavar="ENGINE")
@click.option("--snaplen", default=str(sentences.SNAPLEN), metavar="BYTES")
@click.option("--promiscuous", default="true", metavar="true|false")
def command(**chosen: Any) -> None:
    """Answer Wireshark, or capture for it. `pktproc wireshark` says how to set it up."""
    if chosen["lists_interfaces"]:
        click.echo(sentences.interface_list())
    elif chosen["lists_datalinks"]:
        click.echo(sentences.datalink(sentences.interface_name(chosen["interface"])))
    elif chosen["lists_options"]:
        click.echo(sentences.dialog())
    elif chosen["captures"]:
        _capture(chosen)
    elif chosen["expression"] is not None:
        _check(chosen["expression"], sentences.interface_name(chosen["interface"]))
    elif chosen["wireshark_version"] is not None:
        click.echo(sentences.version())
    else:
        raise UsageError("Wireshark asks with --extcap-interfaces, --extcap-dlts, --extcap-config or --capture")


def _check(expression: str, interface: str) -> None:
    """Say what is wrong with a capture filter on standard output, where Wireshark looks; say nothing if it is fine."""
    from pktproc.capture.filter import compile_filter  # noqa: PLC0415 - libpcap, which the other questions do without

    try:
        compile_filter(expression, interface, sentences.SNAPLEN)
    except UsageError as error:
        click.echo(str(error))


def _capture(chosen: dict[str, Any]) -> None:
    # The fifo comes first: Wireshark waits for its end, whatever else is wrong. And nobody closes it: Wireshark looks
    # for the reason as soon as it ends, which is only with this process, when the reason has been said.
    if not chosen["fifo"]:
        raise UsageError("--capture needs a --fifo to capture into")
    fifo = open_fifo(chosen["fifo"])
    from pktproc.cli import extcap_session  # noqa: PLC0415 - numpy and scapy, which the questions can do without

    extcap_session.run(extcap_session.ExtcapOptions.of(chosen), fifo)


def open_fifo(path: str) -> int:
    """Return a descriptor that writes into a fifo, once somebody reads it; raise `PktprocError` if nobody does.

    Nothing but a fifo is ever written to, since the path comes from Wireshark and this process may be root.
    """
    deadline = time.monotonic() + _READER_WAIT_S
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:  # what fifo(7) says while nobody reads
                raise
        if time.monotonic() > deadline:
            message = f"{path}: nobody reads this fifo"
            raise PktprocError(message)
        time.sleep(_READER_POLL_S)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        message = f"{path} is not a fifo"
        raise UsageError(message)
    os.set_blocking(descriptor, True)
    return descriptor
