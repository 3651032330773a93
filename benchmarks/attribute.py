"""pktproc's capture, decoding and attribution on an interface until interrupted; prints nothing but a closing count."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from pktproc.capture.live import CaptureOptions
from pktproc.live import LiveAttribution


def main() -> None:
    """Count the packets that went all the way."""
    with LiveAttribution(CaptureOptions(interfaces=(sys.argv[1],))) as live:

        def stop(_number: int, _frame: FrameType | None) -> None:
            live.stop()

        signal.signal(signal.SIGINT, stop)
        print("listening", flush=True)
        count = sum(len(block.batch) for block in live.blocks() if block is not None)
        print(f"{count} packets captured, {live.statistics().dropped} dropped")


if __name__ == "__main__":
    main()
