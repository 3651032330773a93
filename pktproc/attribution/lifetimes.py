"""How long an answer of the index is good before it is asked for again."""

from __future__ import annotations

from pktproc.attribution.engine import Query
from pktproc.model import DATAGRAM, Attribution, Match, Reason

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

# A socket's owners are asked again after its age has doubled, between these: forking servers hand a connection on
# within milliseconds, long-lived ones hardly ever.
MIN_TTL_NS = 5 * NS_PER_MS
MAX_TTL_NS = 2 * NS_PER_S
# Without notice of closed sockets a UDP port may have changed hands unseen.
MAX_TTL_UNHEARD_UDP_NS = 100 * NS_PER_MS
# What was not found is soon asked for again, but not at each block for ever.
MAX_NEGATIVE_TTL_NS = 250 * NS_PER_MS

_SETTLED = frozenset({Reason.KERNEL, Reason.PERMISSION})


def longest_ttl_ns(query: Query, attribution: Attribution, *, hears_ends: bool) -> int:
    """Return the longest time for which an answer is good; `hears_ends` says that the end of its socket is heard of."""
    if attribution.process is None and attribution.reason not in _SETTLED:
        return MAX_NEGATIVE_TTL_NS
    if attribution.match is Match.LISTENER or not attribution.final:
        return MIN_TTL_NS
    if query.protocol in DATAGRAM and not hears_ends:
        return MAX_TTL_UNHEARD_UDP_NS
    return MAX_TTL_NS
