"""`pktproc enrich` without the terminal."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from pktproc.attribution.tally import Tally
from pktproc.offline import OfflineAttribution
from pktproc.output.annotate import ALL_FORMS
from pktproc.output.savefile import check_is_not_read
from pktproc.packet_file import PacketFile

_NS_PER_S = 1_000_000_000

Path = str | os.PathLike[str]


def enrich(
    source: Path,
    stores: Path | Sequence[Path],
    output: Path,
    *,
    filter: str = "",  # noqa: A002 - scapy's name for it
    skew: float = 0.0,
    tolerance: float = 2.0,
    annotate: Collection[str] = ALL_FORMS,
    cmdline: bool = True,
) -> Tally:
    """Write the packets of a capture file to `output`, pcapng, with the processes that saved evidence names.

    `stores` are one or several paths of what `pktproc record` or `snapshot` saved. `filter` is a pcap-filter(7)
    expression; `skew` (seconds) is added to the times of packets, `tolerance` (seconds) is how long a fact may have
    held beyond the looks that found it; `annotate` has some of `comment`, `pid`, `darwin`. Return how many packets and
    bytes there were, how many could be named, and the reasons for the others. Raise `FormatError` after everything up
    to a defect of the file has been written, `StoreError` and `UsageError` before anything is.
    """
    paths = [os.fspath(path) for path in ([stores] if isinstance(stores, (str, os.PathLike)) else stores)]
    check_is_not_read(os.fspath(output), [os.fspath(source), *paths])
    tally = Tally()
    with (
        OfflineAttribution(
            os.fspath(source),
            paths,
            expression=filter,
            skew_ns=round(skew * _NS_PER_S),
            tolerance_ns=round(tolerance * _NS_PER_S),
        ) as offline,
        PacketFile(os.fspath(output), forms=annotate, cmdline=cmdline) as file,
    ):
        for block in offline.blocks():
            file.write(block.attributed, block.rows, block.file_batch)
            tally.add(block.attributed, block.rows)
    return tally
