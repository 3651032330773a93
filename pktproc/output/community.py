"""The Community ID of a flow: a short text, equal for both directions of a conversation and in every tool."""

from __future__ import annotations

from communityid import CommunityID, FlowTuple

from pktproc.model import Flow, Protocol, format_address

_ALGORITHM = CommunityID()
_WITH_PORTS = frozenset({Protocol.TCP, Protocol.UDP, Protocol.SCTP})
_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})


def community_id(flow: Flow, icmp_code: int) -> str | None:
    """Return the Community ID (version 1, seed 0) of an IP flow, None where it cannot be known.

    That is so for packets that are not IP, and where ports (or, with ICMP, type and code, which take their place) are
    not in the packet. TCP, UDP and SCTP count their ports, all other protocols only addresses and protocol. See
    github.com/corelight/community-id-spec.
    """
    if flow.protocol < 0:
        return None
    ports: tuple[int, int] | tuple[None, None] = (None, None)
    if flow.protocol in _WITH_PORTS:
        if not flow.ports_known:
            return None
        ports = (flow.source_port, flow.destination_port)
    elif flow.protocol in _ICMP:
        if flow.icmp_type < 0 or icmp_code < 0:
            return None
        ports = (flow.icmp_type, icmp_code)
    addresses = (format_address(flow.source_address), format_address(flow.destination_address))
    # calc() does the same, but words a log message first, at a third more time.
    found = _ALGORITHM.hash(FlowTuple(int(flow.protocol), *addresses, *ports).in_nbo().in_order())
    return None if found is None else str(_ALGORITHM.render(found))
