"""Where connections of a block were reset, and what ties the two directions of one together."""

from __future__ import annotations

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.engine import Ends, Query, asked_ends
from pktproc.attribution.eras import Pair, pair_of
from pktproc.model import Flow, Protocol
from pktproc.packets.headers import TCP_RST


def resets(attributed: AttributedBatch, asked: list[tuple[Query, int]], offset_ns: int) -> dict[Ends, int]:
    """Return when an RST last ended a connection in this block (monotonic), by its ends, in whichever direction."""
    rows = np.flatnonzero(attributed.columns.tcp_flags & TCP_RST)
    if not len(rows):
        return {}
    last: dict[tuple[int, Pair], int] = {}
    for position, time_ns in zip(
        attributed.flow_of[rows].tolist(), attributed.batch.time_ns[rows].tolist(), strict=True
    ):
        path = path_of(attributed.flows[position])
        last[path] = max(time_ns, last.get(path, time_ns))
    paths = (
        (query, path_of(attributed.flows[position])) for query, position in asked if query.protocol == Protocol.TCP
    )
    return {asked_ends(query): last[path] + offset_ns for query, path in paths if path in last}


def path_of(flow: Flow) -> tuple[int, Pair]:
    """Return the namespace and the ends of a flow, the same for both directions."""
    return flow.netns, pair_of(flow)


def path_of_query(query: Query) -> tuple[int, Pair]:
    """Return what `path_of` does for the flow that a query is about."""
    ends = (query.local_address, query.local_port), (query.remote_address, query.remote_port)
    return query.netns, frozenset(ends)
