"""Both ends of packets: which of them are on this host, and whose they are."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from attribution.asking import named, reason
from attribution.host import HOME, End
from attribution.traffic import IN_NEIGHBOUR, LO, NEIGHBOUR, OURS, OURS6, THEIRS, THEIRS6, Walk, addresses
from pktproc.model import Match, PacketType, Protocol, Reason

UDP_NUMBER = Protocol.UDP
INCOMING, OUTGOING, PASSING = PacketType.HOST, PacketType.OUTGOING, PacketType.OTHERHOST


def udp(source: End, destination: End) -> Packet:
    network = IPv6 if ":" in source[0] else IP
    return network(src=source[0], dst=destination[0]) / UDP(sport=source[1], dport=destination[1]) / b"payload"


def tcp(source: End, destination: End, flags: str) -> Packet:
    network = IPv6 if ":" in source[0] else IP
    return network(src=source[0], dst=destination[0]) / TCP(sport=source[1], dport=destination[1], flags=flags)


def in_fragments(whole: Packet) -> list[Packet]:
    parts: list[Packet] = fragment(whole, 1000)  # type: ignore[no-untyped-call]
    return parts


@pytest.mark.parametrize(("ours", "theirs"), [(OURS, THEIRS), (OURS6, THEIRS6)])
def test_the_local_end_is_named_both_ways(walk: Walk, ours: str, theirs: str) -> None:
    client = walk.host.start("client")
    walk.host.open(client, (ours, 5000), (theirs, 53), protocol=UDP_NUMBER)
    request, reply = walk.see(
        udp((ours, 5000), (theirs, 53)), udp((theirs, 53), (ours, 5000)), packet_type=[OUTGOING, INCOMING]
    )
    assert (named(request[0]), request[1]) == ((client, Match.EXACT), None)
    assert (reply[0], named(reply[1])) == (None, (client, Match.EXACT))


def test_both_ends_of_a_loopback_packet_are_named(walk: Walk) -> None:
    client, server = walk.host.start("client"), walk.host.start("server")
    walk.host.open(server, ("127.0.0.1", 80), ("127.0.0.1", 5000))
    walk.host.open(client, ("127.0.0.1", 5000), ("127.0.0.1", 80))
    there = tcp(("127.0.0.1", 5000), ("127.0.0.1", 80), "A")
    back = tcp(("127.0.0.1", 80), ("127.0.0.1", 5000), "A")
    for packet, expected in (there, (client, server)), (back, (server, client)):
        ((source, destination),) = walk.see(packet, packet_type=INCOMING, interface=LO)
        assert (named(source)[0], named(destination)[0]) == expected


@pytest.mark.parametrize("port", [5000, 5001])
def test_the_claimed_source_of_an_incoming_packet_is_never_named(walk: Walk, port: int) -> None:
    """Somebody else sends with our address, even with ports that we use."""
    server, other = walk.host.start("server"), walk.host.start("other")
    walk.host.open(server, (OURS, 53), protocol=UDP_NUMBER)
    walk.host.open(other, (OURS, 5000), protocol=UDP_NUMBER)
    ((source, destination),) = walk.see(udp((OURS, port), (OURS, 53)), packet_type=INCOMING)
    assert source is None
    assert named(destination) == (server, Match.BOUND)


def test_the_claimed_source_of_a_passing_packet_is_never_named(walk: Walk) -> None:
    walk.host.open(walk.host.start("server"), (OURS, 53), protocol=UDP_NUMBER)
    ((source, destination),) = walk.see(udp((OURS, 53), (THEIRS, 5000)), packet_type=PASSING)
    assert reason(source)[0] is Reason.FORWARDED
    assert reason(destination)[0] is Reason.FORWARDED


def test_packets_between_others_are_forwarded(walk: Walk) -> None:
    ((source, destination),) = walk.see(udp(("10.77.5.1", 1), ("10.77.6.1", 2)))
    assert reason(source) == reason(destination) == (Reason.FORWARDED, True)


def test_a_packet_that_is_not_ip_has_that_reason(walk: Walk) -> None:
    sent, received = walk.see(ARP(psrc=OURS, pdst=THEIRS), ARP(), packet_type=[OUTGOING, INCOMING])
    assert (reason(sent[0])[0], sent[1]) == (Reason.NOT_IP, None)
    assert (received[0], reason(received[1])[0]) == (None, Reason.NOT_IP)


def test_an_address_of_another_namespace_is_looked_up_there(walk: Walk) -> None:
    inside = walk.host.start("inside")
    walk.host.open(inside, (IN_NEIGHBOUR, 80), protocol=UDP_NUMBER, netns=NEIGHBOUR)
    sent, received = walk.see(
        udp((OURS, 5000), (IN_NEIGHBOUR, 80)), udp((IN_NEIGHBOUR, 80), (OURS, 5000)), packet_type=[OUTGOING, INCOMING]
    )
    assert named(sent[1]) == named(received[0]) == (inside, Match.BOUND)


def test_another_namespace_that_may_not_be_read_has_that_reason(walk: Walk) -> None:
    walk.host.unreadable.add(NEIGHBOUR)
    ((_, destination),) = walk.see(udp((OURS, 5000), (IN_NEIGHBOUR, 80)))
    assert reason(destination) == (Reason.OTHER_NAMESPACE, True)


def test_an_address_of_several_namespaces_is_ambiguous(walk: Walk) -> None:
    walk.host.spaces[NEIGHBOUR + 1] = walk.host.spaces[NEIGHBOUR]
    walk.attributor.addresses.refresh()
    ((_, destination),) = walk.see(udp((OURS, 5000), (IN_NEIGHBOUR, 80)))
    assert reason(destination)[0] is Reason.AMBIGUOUS


def test_a_new_address_is_learnt_within_a_second(walk: Walk) -> None:
    fresh = "10.77.0.77"
    server = walk.host.start("server")
    walk.host.open(server, (fresh, 53), protocol=UDP_NUMBER)
    packet = udp((THEIRS, 5000), (fresh, 53))
    ((source, destination),) = walk.see(packet, packet_type=INCOMING)
    assert reason(source)[0] is reason(destination)[0] is Reason.FORWARDED
    walk.host.spaces[HOME] = addresses(OURS, fresh)
    walk.clock.advance(1000)
    ((source, destination),) = walk.see(packet, packet_type=INCOMING)
    assert source is None
    assert named(destination) == (server, Match.BOUND)


def test_strangers_do_not_make_the_addresses_be_read_for_ever(walk: Walk) -> None:
    walk.host.calls.clear()
    for number in range(1000):
        walk.see(udp((THEIRS, 1000 + number), ("10.77.9.9", 53)), packet_type=INCOMING)
    assert 0 < walk.host.calls["addresses"] <= 2 * len(walk.host.spaces)


@pytest.mark.parametrize(
    ("address", "packet_type"),
    [
        ("224.0.0.251", PacketType.MULTICAST),
        ("255.255.255.255", PacketType.BROADCAST),
        ("10.77.255.255", PacketType.BROADCAST),
    ],
)
def test_multicast_and_broadcast_go_to_all_receivers(walk: Walk, address: str, packet_type: PacketType) -> None:
    receivers = tuple(walk.host.start(name) for name in ("one", "other"))
    for receiver in receivers:
        walk.host.open(receiver, ("0.0.0.0", 5353), protocol=UDP_NUMBER)
    ((source, destination),) = walk.see(udp((THEIRS, 5353), (address, 5353)), packet_type=packet_type)
    assert source is None
    assert named(destination) == (receivers[0], Match.SHARED)
    assert destination is not None
    assert destination.holders == receivers


def test_ipv6_multicast_goes_to_all_receivers(walk: Walk) -> None:
    receivers = tuple(walk.host.start(name) for name in ("one", "other"))
    for receiver in receivers:
        walk.host.open(receiver, ("::", 5353), protocol=UDP_NUMBER)
    packet = udp((THEIRS6, 5353), ("ff02::fb", 5353))
    ((_, destination),) = walk.see(packet, packet_type=PacketType.MULTICAST)
    assert destination is not None
    assert destination.holders == receivers


def test_sent_multicast_is_the_senders(walk: Walk) -> None:
    sender = walk.host.start("sender")
    walk.host.open(sender, ("0.0.0.0", 5353), protocol=UDP_NUMBER)
    ((source, _),) = walk.see(udp((OURS, 5353), ("224.0.0.251", 5353)))
    assert named(source) == (sender, Match.BOUND)


def test_a_dhcp_client_without_an_address_is_named(walk: Walk) -> None:
    dhcp = walk.host.start("dhclient")
    walk.host.open(dhcp, ("0.0.0.0", 68), protocol=UDP_NUMBER)
    ((source, _),) = walk.see(udp(("0.0.0.0", 68), ("255.255.255.255", 67)))
    assert named(source) == (dhcp, Match.BOUND)


def test_later_fragments_are_named_by_the_first(walk: Walk) -> None:
    sender = walk.host.start("sender")
    walk.host.open(sender, (OURS, 5000), (THEIRS, 53), protocol=UDP_NUMBER)
    whole = IP(src=OURS, dst=THEIRS, id=7) / UDP(sport=5000, dport=53) / Raw(bytes(3000))
    parts = in_fragments(whole)
    assert len(parts) > 2
    assert [named(source) for source, _ in walk.see(*parts)] == [(sender, Match.EXACT)] * len(parts)


def test_a_fragment_whose_first_was_not_seen_is_not_covered(walk: Walk) -> None:
    walk.host.open(walk.host.start("sender"), (OURS, 5000), (THEIRS, 53), protocol=UDP_NUMBER)
    whole = IP(src=OURS, dst=THEIRS, id=7) / UDP(sport=5000, dport=53) / Raw(bytes(3000))
    ((source, _),) = walk.see(in_fragments(whole)[1])
    assert reason(source)[0] is Reason.NOT_COVERED


@pytest.mark.parametrize(("flags", "expected"), [("R", Reason.KERNEL), ("RA", Reason.KERNEL), ("A", Reason.NO_SOCKET)])
def test_a_reset_without_a_socket_is_the_kernels(walk: Walk, flags: str, expected: Reason) -> None:
    ((source, _),) = walk.see(tcp((OURS, 81), (THEIRS, 5000), flags))
    assert reason(source)[0] is expected


def test_a_reset_of_a_connection_is_its_owners(walk: Walk) -> None:
    server = walk.host.start("server")
    connection = walk.host.open(server, (OURS, 80), (THEIRS, 5000))
    walk.see(tcp((OURS, 80), (THEIRS, 5000), "A"))
    walk.clock.advance(100)
    walk.host.close(connection)
    ((source, _),) = walk.see(tcp((OURS, 80), (THEIRS, 5000), "RA"))
    assert named(source) == (server, Match.EXACT)


def test_flows_that_are_known_cost_the_engine_nothing(walk: Walk) -> None:
    client = walk.host.start("client")
    walk.host.open(client, (OURS, 5000), (THEIRS, 53), protocol=UDP_NUMBER)
    packet = udp((OURS, 5000), (THEIRS, 53))
    for _ in range(1000):
        ((source, _),) = walk.see(packet)
        assert named(source) == (client, Match.EXACT)
    assert walk.host.asked < 12
