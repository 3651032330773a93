"""One capture for Wireshark: annotated pcapng into a fifo until Wireshark has had enough."""

from __future__ import annotations

import re
import select
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pktproc.attribution.selection import ProcessSieve
from pktproc.capture.live import CaptureOptions
from pktproc.cli import extcap_sentences as sentences
from pktproc.cli import garbage
from pktproc.cli.selection_options import SelectionOptions
from pktproc.cli.signals import ended_by_signals
from pktproc.cli.talk import say
from pktproc.errors import Denied, UsageError
from pktproc.kernel.processes import ProcessReader
from pktproc.live import LiveAttribution
from pktproc.output.escape import escape
from pktproc.output.pcapng import PcapngWriter
from pktproc.output.stream import write_bytes

_OFF = frozenset({"false", "no", "off", "0"})
_SEPARATOR = re.compile(r"[,\s]+")
_LARGEST_PID = 1 << 22  # PID_MAX_LIMIT, linux/threads.h


@dataclass(frozen=True, slots=True)
class ExtcapOptions:
    """Hold what was chosen in Wireshark's dialog, checked as far as that needs no privilege."""

    capture: CaptureOptions
    selection: SelectionOptions
    engine: str
    cmdline: bool

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> Self:
        """Return the options that a command line chose; raise `UsageError` for what makes no sense."""
        capture = CaptureOptions(
            interfaces=(sentences.interface_name(chosen["interface"]),),
            expression=chosen["expression"] or "",
            snaplen=_number(chosen["snaplen"], "snapshot length", sentences.SNAPLEN),
            promiscuous=chosen["promiscuous"].lower() not in _OFF,
        )
        several = {
            "pids": [_number(pid, "process id", _LARGEST_PID) for pid in _words(chosen["pids"])],
            "names": tuple(name.strip() for name in chosen["names"].split(",") if name.strip()),
            "users": _words(chosen["users"]),
            "containers": (),
        }
        selection = SelectionOptions.of({**several, "follow": chosen["follow"]})
        return cls(capture, selection, chosen["engine"], cmdline=not chosen["no_cmdline"])


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATOR.split(text) if word]


def _number(text: str, meaning: str, largest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= largest:
        message = f"{text!r} is no {meaning}: give a number from 1 to {largest}"
        raise UsageError(message)
    return number


def run(options: ExtcapOptions, fifo: int) -> None:
    """Capture into a fifo until told to stop or nobody reads it any more."""
    try:
        live = LiveAttribution(options.capture, engine=options.engine, cmdline=options.cmdline)
    except Denied as error:
        interface = " ".join(map(escape, options.capture.interfaces))
        message = f"{error}; or Wireshark as yourself: sudo pktproc sniff -i {interface} -w - | wireshark -k -i -"
        raise Denied(message) from error
    with live, ended_by_signals(live.stop):
        live.start()
        garbage.look_no_more()
        _transfer(options, live, fifo)
        for shortfall in live.shortfalls():
            say(shortfall)


def _transfer(options: ExtcapOptions, live: LiveAttribution, fifo: int) -> None:
    sieve = ProcessSieve(options.selection.selection(), ProcessReader(cmdline=False).read)
    writer = PcapngWriter(Fifo(fifo), cmdline=options.cmdline)
    reader = select.poll()
    reader.register(fifo, 0)  # POLLERR alone: nobody reads
    try:
        for block in live.blocks():
            if reader.poll(0):
                return
            if block is not None:
                writer.write(block, sieve.rows(block))
        writer.statistics(live.statistics())
    except BrokenPipeError:
        return


class Fifo:
    """Write to the descriptor of a fifo, always all of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        """Write all of `data` and return how much that is; raise `BrokenPipeError` once nobody reads any more."""
        write_bytes(self._descriptor, data)
        return len(data)
