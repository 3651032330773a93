"""The closing summary, one fact a line."""

from __future__ import annotations

from pktproc.attribution.tally import Tally
from pktproc.capture.tap import Statistics
from pktproc.output.counting import counted


def of_capture(tally: Tally, statistics: Statistics) -> str:
    """Return the summary of a live capture."""
    lines = [
        counted(tally.shown, "packet shown"),
        counted(statistics.received, "packet received by filter"),
        counted(statistics.dropped, "packet dropped by kernel"),
        counted(tally.attributed, "packet attributed"),
    ]
    return _text(lines, tally)


def of_file(tally: Tally) -> str:
    """Return the summary of packets from a file."""
    packets, size = _share(tally.attributed, tally.shown), _share(tally.attributed_bytes, tally.shown_bytes)
    return _text(
        [
            counted(tally.shown, "packet"),
            counted(tally.attributed, f"packet attributed ({packets} of the packets, {size} of the bytes)"),
        ],
        tally,
    )


def _text(lines: list[str], tally: Tally) -> str:
    if tally.hidden:
        lines.append(counted(tally.hidden, "packet of unknown owners not shown"))
    lines += [counted(count, f"end {reason}") for reason, count in tally.reasons.most_common() if count]
    return "\n".join(lines) + "\n"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
