"""scapy's `sniff(store=False)` on an interface until interrupted; prints how many packets it saw."""

from __future__ import annotations

import sys

from scapy.layers import inet, inet6, l2
from scapy.packet import Packet
from scapy.sendrecv import sniff


def main() -> None:
    """Count and dissect every packet."""
    count = 0

    def see(_packet: Packet) -> None:
        nonlocal count
        count += 1

    assert l2
    assert inet
    assert inet6
    sniff(iface=sys.argv[1], store=False, prn=see, started_callback=lambda: print("listening", flush=True))
    print(f"{count} packets captured")


if __name__ == "__main__":
    main()
