"""A view with rows of every kind, made by a ledger from packets."""

from __future__ import annotations

from collections.abc import Sequence

from bandwidth.counted import HOST, LOOPBACK, NS_PER_S, START_NS, Seen, arp, block, by, tcp, udp, why
from pktproc.bandwidth.ledger import Ledger
from pktproc.bandwidth.views import Series, View
from pktproc.model import PacketType, Reason

CURL = by(1, "curl", uid=0, exe="/usr/bin/curl", cmdline=("curl", "-s", "http://10.77.0.2/a b"), ppid=7)
SERVER = by(2, "a server whose name is long and has a \x1b[31m in it", unit="web.service", container_id="c" * 64)
SHEET = by(3, '=HYPERLINK("http://10.77.0.2/")')
NOBODY = why(Reason.NO_SOCKET)


def usage(keys: Sequence[str] = ("process",), most: int | None = None) -> tuple[View, Series]:
    """The rows, and the course of each over five seconds."""
    book = Ledger(keys)
    for second in range(5):
        time_ns = START_NS + second * NS_PER_S
        seen = [
            Seen(tcp(40000, 80, "PA", 500), (CURL, None), time_ns=time_ns, wire_bytes=1_000_003 * (second + 1)),
            Seen(tcp(80, 40000, "A", local="10.77.0.2"), (None, CURL), HOST, time_ns=time_ns + 1),
            Seen(tcp(50000, 8080, "PA", 90), (SERVER, SERVER), interface=LOOPBACK, time_ns=time_ns + 2),
            Seen(udp(40001, 53, 20), (SHEET, None), time_ns=time_ns + 3),
        ]
        if second == 2:
            seen += [
                Seen(udp(53, 9, 99, local="10.77.0.2"), (None, NOBODY), HOST, time_ns=time_ns + 4),
                Seen(arp(), (None, None), PacketType.OTHERHOST, time_ns=time_ns + 5),
            ]
        book.add(block(seen))
    view = book.view(most=most)
    return view, book.series(view)
