"""The closing summary adds up."""

from __future__ import annotations

import numpy as np
from scapy.layers.inet import IP, UDP

from output.attributed_packets import BY_CURL, NO_SOCKET, Ends, attributed, ethernet, rows
from pktproc.attribution.tally import Tally
from pktproc.capture.tap import Statistics
from pktproc.cli import closing
from pktproc.model import Attribution, Flow, Reason

FORWARDED = Attribution(reason=Reason.FORWARDED)
BY_PORT: dict[int, Ends] = {
    1: (BY_CURL, None),
    2: (None, NO_SOCKET),
    3: (NO_SOCKET, BY_CURL),
    4: (FORWARDED, FORWARDED),
    5: (None, None),
}


def ends(flow: Flow) -> Ends:
    return BY_PORT[flow.source_port]


def packets(*ports: int) -> list[bytes]:
    return ethernet(*(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=port, dport=9) for port in ports))


def test_a_packet_is_attributed_when_an_end_of_it_is_named_and_every_reason_is_counted_by_ends() -> None:
    tally = Tally()
    for ports in ((1, 1, 2, 3), (3, 4, 5)):
        block = attributed(packets(*ports), ends)
        tally.add(block, rows(block))
    assert (tally.shown, tally.attributed) == (7, 4)
    assert tally.reasons == {Reason.NO_SOCKET: 3, Reason.FORWARDED: 2}
    assert closing.of_capture(tally, Statistics(received=9, dropped=2)).splitlines() == [
        "7 packets shown",
        "9 packets received by filter",
        "2 packets dropped by kernel",
        "4 packets attributed",
        "3 ends no-socket",
        "2 ends forwarded",
    ]


def test_only_shown_packets_count_and_hidden_ones_whose_owner_is_unknown_are_told() -> None:
    tally = Tally()
    block = attributed(packets(1, 1, 2, 2, 3, 4, 5), ends)
    shown = np.array([0, 2], np.int64)
    tally.add(block, shown)
    tally.add_hidden(block, shown)
    assert (tally.shown, tally.attributed, tally.hidden) == (2, 1, 2)
    assert (
        "2 packets of unknown owners not shown"
        in closing.of_capture(tally, Statistics(received=7, dropped=0)).splitlines()
    )


def test_a_file_s_summary_has_the_shares_of_packets_and_of_bytes() -> None:
    tally = Tally()
    big = ethernet(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=2, dport=9) / bytes(942))
    block = attributed(packets(1) + big, ends)
    tally.add(block, rows(block))
    size = sum(map(len, packets(1)))
    share = 100 * size / (size + sum(map(len, big)))
    assert closing.of_file(tally).splitlines() == [
        "2 packets",
        f"1 packet attributed (50.0 % of the packets, {share:.1f} % of the bytes)",
        "1 end no-socket",
    ]
    assert closing.of_file(Tally()).splitlines()[1] == "0 packets attributed (- of the packets, - of the bytes)"
