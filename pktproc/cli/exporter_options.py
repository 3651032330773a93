"""What the user asked of `pktproc exporter`, checked; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import click

from pktproc.cli.filter_words import expression
from pktproc.cli.selection_options import SelectionOptions

EPILOG = """\b
Examples:
  pktproc exporter                             http://127.0.0.1:9833/metrics
  pktproc exporter -i eth0 --listen :9833      one interface, for a Prometheus elsewhere
  pktproc exporter -Z nobody not port 22       a filter, and no longer as root

\b
Metrics:
  pktproc_bytes_total{program,user,direction}            and _packets_total
  pktproc_local_bytes_total{program,user,direction}      of them, between processes of this host
  pktproc_unattributed_bytes_total{reason,direction}     and _packets_total
  pktproc_both_ends_local_bytes_total                    captured, and counted at both ends
  pktproc_captured_bytes_total, pktproc_duplicate_bytes_total, each with _packets_total
  pktproc_dropped_packets_total                          lost before they were seen
  pktproc_open_connections, pktproc_programs_beyond_limit, pktproc_shortfalls
  pktproc_engine_info{engine}
"""

_MOST_PORT = 65535
EVERYWHERE = "::"


class Listen(NamedTuple):
    """Where to serve; port 0 takes any that is free."""

    address: str
    port: int

    def __str__(self) -> str:
        """Return it as in a URL."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class ListenAddress(click.ParamType[Listen]):
    """An address or host name and a port: `127.0.0.1:9833`, `[::1]:9833`, `:9833`."""

    name = "listen"

    def convert(self, value: str | Listen, param: click.Parameter | None, ctx: click.Context | None) -> Listen:
        """Return address and port."""
        if isinstance(value, Listen):
            return value
        address, colon, port = value.rpartition(":")
        bracketed = address.startswith("[") and address.endswith("]")
        if not colon or not (port.isascii() and port.isdecimal()) or int(port) > _MOST_PORT:
            self.fail(f"{value!r} is no ADDR:PORT: give for instance 127.0.0.1:9833 or :9833", param, ctx)
        if ":" in address and not bracketed:
            self.fail(f"{value!r}: put an IPv6 address in brackets, as in [::1]:9833", param, ctx)
        return Listen((address[1:-1] if bracketed else address) or EVERYWHERE, int(port))


@dataclass(frozen=True, slots=True)
class ExporterOptions:
    """Hold the options of one run."""

    interfaces: tuple[str, ...]
    netns: tuple[str, ...]
    expression: str
    engine: str
    listen: Listen
    max_series: int
    layer: str
    per_interface: bool
    user: str | None
    selection: SelectionOptions

    @classmethod
    def of(cls, words: Sequence[str], chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        return cls(
            interfaces=tuple(dict.fromkeys(chosen["interfaces"])) or ("any",),
            netns=tuple(dict.fromkeys(chosen["netns"])),
            expression=expression(words, chosen["filter_file"]),
            engine=chosen["engine"],
            listen=chosen["listen"],
            max_series=chosen["max_series"],
            layer=chosen["layer"],
            per_interface=chosen["per_interface"],
            user=chosen["user"],
            selection=SelectionOptions.of(chosen),
        )
