"""What an end of a flow calls for, once it is known where it lives: a look for its socket, or an answer at once."""

from __future__ import annotations

from functools import partial

from pktproc.attribution.engine import Query
from pktproc.model import Attribution, Flow, Protocol, Reason

_ECHO_REQUESTS: dict[int, int] = {Protocol.ICMP: 8, Protocol.ICMPV6: 128}
_ECHO_REPLIES: dict[int, int] = {Protocol.ICMP: 0, Protocol.ICMPV6: 129}
# Protocols that the kernel speaks by itself unless a raw socket does: IGMP, IP in IP, IPv6 in IP, GRE, ESP, AH, L2TP.
_KERNEL_PROTOCOLS = frozenset({2, 4, 41, 47, 50, 51, 115})

_query = partial(tuple.__new__, Query)  # a third of what the constructor costs

NOT_IP = Attribution(reason=Reason.NOT_IP)
FORWARDED = Attribution(reason=Reason.FORWARDED)
_KERNEL = Attribution(reason=Reason.KERNEL)
_NO_PORTS = Attribution(reason=Reason.NOT_COVERED)


def sender_query(flow: Flow, netns: int, ifindex: int) -> Query:
    """Return the query for the source of a flow, whose socket is in namespace `netns`."""
    local, remote = (flow.source_address, flow.source_port), (flow.destination_address, flow.destination_port)
    return _query((netns, flow.protocol, *local, *remote, ifindex, True, False))


def source_end(flow: Flow, netns: int, ifindex: int) -> Attribution | Query:
    """Return what the source of an IP flow calls for, which lives in namespace `netns`; `ifindex` is 0 for any."""
    if flow.quoted is not None or flow.icmp_type == _ECHO_REPLIES.get(flow.protocol, -2):
        return _KERNEL
    return sender_query(flow, netns, ifindex) if flow.ports_known else _NO_PORTS


def destination_end(flow: Flow, netns: int, ifindex: int, *, fan_out: bool) -> Attribution | Query:
    """Return what the destination of an IP flow calls for; for an ICMP error that is who sent the packet quoted."""
    if flow.quoted is not None:
        return sender_query(flow.quoted, netns, 0) if flow.quoted.ports_known else _NO_PORTS
    is_icmp = flow.protocol in _ECHO_REPLIES
    if (is_icmp and flow.icmp_type != _ECHO_REPLIES[flow.protocol]) or flow.protocol in _KERNEL_PROTOCOLS:
        return _KERNEL
    if not flow.ports_known:
        return _NO_PORTS
    local, remote = (flow.destination_address, flow.destination_port), (flow.source_address, flow.source_port)
    return _query((netns, flow.protocol, *local, *remote, ifindex, False, fan_out))


def sent_by_kernel(flow: Flow, answer: Attribution, *, only_resets: bool) -> Attribution:
    """Return the answer for a sender, or `kernel` where no socket was found for what the kernel sends by itself.

    `only_resets` says that all packets of the flow in a block are RSTs.
    """
    if answer.reason not in (Reason.NO_SOCKET, Reason.CLOSED):
        return answer
    if flow.protocol in _KERNEL_PROTOCOLS:
        return _KERNEL
    if flow.protocol == Protocol.TCP and only_resets:
        return _KERNEL
    if flow.protocol in _ECHO_REQUESTS and flow.icmp_type != _ECHO_REQUESTS[flow.protocol]:
        return _KERNEL
    return answer
