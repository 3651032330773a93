"""The packet in scapy's words.

Importing this module imports scapy's layers, which takes a while: do it only on demand.
"""

from __future__ import annotations

import scapy.layers.dhcp
import scapy.layers.dns
import scapy.layers.inet
import scapy.layers.inet6
import scapy.layers.l2
import scapy.layers.ntp
import scapy.layers.sctp  # noqa: F401 - each import registers its layers below those of l2
from scapy.config import conf
from scapy.packet import Packet, Raw

from pktproc.output.escape import spell_unprintable


def dissect(data: bytes, linktype: int) -> Packet:
    """Return the packet that scapy makes of captured bytes, `Raw` where it knows no such link type or gives up."""
    layer = conf.l2types.num2layer.get(linktype, Raw)
    try:
        return layer(data)
    except Exception:  # noqa: BLE001 - a dissector fed with hostile bytes may raise anything
        return Raw(data)


def describe(data: bytes, linktype: int, *, whole: bool) -> str:
    """Return scapy's summary of a packet, or every field of every layer if `whole`; escaped, without final newline."""
    packet = dissect(data, linktype)
    try:
        text = packet.show(dump=True) if whole else packet.summary()
    except Exception as error:  # noqa: BLE001 - as above, for the fields that are decoded when shown
        text = f"not shown by scapy: {type(error).__name__}"
    return "\n".join(f"    {spell_unprintable(line)}" for line in str(text).rstrip("\n").split("\n"))
