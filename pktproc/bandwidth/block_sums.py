"""What a block adds to each of its flows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pktproc.packets.batch import Column


class Headers(NamedTuple):
    """The flow of each packet that is counted, its TCP flags and its time."""

    flow_of: Column
    tcp_flags: Column
    time_ns: Column


class BlockSums(NamedTuple):
    """Columns, int64, with an entry for each flow that has packets; `met` says which flow of the block it is."""

    met: Column
    packets: Column
    bytes: Column
    first_ns: Column
    last_ns: Column


def by_flow(headers: Headers, sizes: Column, counts: Column | None, flows: int) -> BlockSums:
    """Return the sums of a block of so many `flows`; with `counts` a row stands for so many packets."""
    flow_of, _, time_ns = headers
    rows = np.bincount(flow_of, minlength=flows)
    packets = rows if counts is None else np.bincount(flow_of, counts, flows).astype(np.int64)
    met = np.flatnonzero(rows)
    size = np.bincount(flow_of, sizes, flows)[met].astype(np.int64)
    first, last = _extremes(flow_of, time_ns, flows)
    return BlockSums(met, packets[met], size, first[met], last[met])


def _extremes(flow_of: Column, time_ns: Column, count: int) -> tuple[Column, Column]:
    """Return the times of each flow's first and last packet; times can be out of order."""
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.full(count, np.iinfo(np.int64).min)
    if (time_ns[1:] >= time_ns[:-1]).all():
        first[flow_of[::-1]] = time_ns[::-1]
        last[flow_of] = time_ns
    else:
        np.minimum.at(first, flow_of, time_ns)
        np.maximum.at(last, flow_of, time_ns)
    return first, last
