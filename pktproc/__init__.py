"""Name the process behind every packet on a Linux host.

`sniff` captures packets as scapy's, with their processes; `Attributor` names the ends of packets that scapy captured;
`enrich` names those of a capture file by saved evidence; `summary` tells who moved how many bytes; `sockets` lists the
sockets of this host with all their processes.
The errors are in `pktproc.errors`, the nouns in `pktproc.model`. Everything is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pktproc.version import __version__

if TYPE_CHECKING:
    from pktproc.enrichment import enrich
    from pktproc.errors import PktprocError
    from pktproc.model import Attribution, Match, Process, Reason
    from pktproc.open_sockets import OpenSocket, sockets
    from pktproc.scapy_packets import Attributor, PacketAttribution, sniff
    from pktproc.usage import summary

__all__ = [
    "Attribution",
    "Attributor",
    "Match",
    "OpenSocket",
    "PacketAttribution",
    "PktprocError",
    "Process",
    "Reason",
    "__version__",
    "enrich",
    "sniff",
    "sockets",
    "summary",
]

_HOMES = {
    "Attribution": "model",
    "Attributor": "scapy_packets",
    "Match": "model",
    "OpenSocket": "open_sockets",
    "PacketAttribution": "scapy_packets",
    "PktprocError": "errors",
    "Process": "model",
    "Reason": "model",
    "enrich": "enrichment",
    "sniff": "scapy_packets",
    "sockets": "open_sockets",
    "summary": "usage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pktproc' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pktproc.{_HOMES[name]}"), name)
