"""Which socket takes a packet: the rows are what the kernel's own look-up does (inet_hashtables.c, udp.c, raw.c)."""

from __future__ import annotations

import pytest

from attribution.host import ESTABLISHED, HOME, LISTEN, TIME_WAIT, Clock, End, Host, query
from pktproc.attribution.engine import Query
from pktproc.attribution.matching import Selection, select, select_listeners
from pktproc.model import Match, Protocol, Socket

OURS, THEIRS = "10.77.0.1", "10.77.0.2"
OURS6, THEIRS6 = "fd77::1", "fd77::2"
TCP, UDP, ICMP = Protocol.TCP, Protocol.UDP, Protocol.ICMP
NOTHING = Selection(None, [])
PEER = (THEIRS, 40000)
PEER6 = (THEIRS6, 40000)


@pytest.fixture
def host() -> Host:
    return Host(Clock())


def socket(
    host: Host,
    protocol: int,
    local: End,
    remote: End | None = None,
    *,
    state: int | None = None,
    netns: int = HOME,
    ifindex: int = 0,
    v6_only: bool = False,
    raw: bool = False,
) -> Socket:
    return host.open(
        None, local, remote, protocol=protocol, state=state, netns=netns, ifindex=ifindex, v6_only=v6_only, raw=raw
    )


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("outgoing", [True, False])
def test_a_connection_beats_everything_else_on_its_port(host: Host, protocol: int, outgoing: bool) -> None:
    for local in (OURS, "0.0.0.0", "::"):
        socket(host, protocol, (local, 80))
    socket(host, protocol, (OURS, 80), (THEIRS, 40001))
    socket(host, protocol, (OURS, 80), ("10.77.0.3", 40000))
    mine = socket(host, protocol, (OURS, 80), PEER)
    asked = query((OURS, 80), PEER, protocol=protocol, outgoing=outgoing)
    assert select(asked, host.sockets(HOME)) == Selection(Match.EXACT, [mine])


@pytest.mark.parametrize(
    ("locals_", "asked", "winner"),
    [
        ([OURS, "0.0.0.0", "::"], (OURS, 80), OURS),
        (["0.0.0.0", "::"], (OURS, 80), "0.0.0.0"),
        (["::"], (OURS, 80), "::"),
        ([OURS, "0.0.0.0"], ("10.77.0.9", 80), "0.0.0.0"),
        ([OURS6, "::"], (OURS6, 80), OURS6),
        (["::", "0.0.0.0"], (OURS6, 80), "::"),
        (["::"], ("127.0.0.1", 80), "::"),
        (["::"], ("::1", 80), "::"),
    ],
)
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_the_address_beats_the_wildcard_and_ipv4_beats_dual_stack(
    host: Host, locals_: list[str], asked: End, winner: str, protocol: int
) -> None:
    match = Match.LISTENER if protocol == TCP else Match.BOUND
    sockets = {local: socket(host, protocol, (local, 80)) for local in locals_}
    remote = PEER6 if ":" in asked[0] else PEER
    found = select(query(asked, remote, protocol=protocol), host.sockets(HOME))
    assert found == Selection(match, [sockets[winner]])


@pytest.mark.parametrize(
    ("local", "asked"),
    [
        (("0.0.0.0", 80), (OURS6, 80)),
        ((OURS, 80), ("10.77.0.9", 80)),
        ((OURS, 80), (OURS, 81)),
        (("::", 81), (OURS6, 80)),
    ],
)
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_another_address_or_port_does_not_fit(host: Host, local: End, asked: End, protocol: int) -> None:
    socket(host, protocol, local)
    remote = PEER6 if ":" in asked[0] else PEER
    assert select(query(asked, remote, protocol=protocol), host.sockets(HOME)) == NOTHING


def test_protocols_and_namespaces_never_mix(host: Host) -> None:
    socket(host, TCP, (OURS, 53))
    socket(host, Protocol.UDPLITE, (OURS, 53))
    socket(host, UDP, (OURS, 53), netns=HOME + 1)
    asked = query((OURS, 53), PEER, protocol=UDP)
    assert select(asked, [*host.sockets(HOME), *host.sockets(HOME + 1)]) == NOTHING


def test_a_v6_only_socket_takes_no_ipv4(host: Host) -> None:
    only = socket(host, UDP, ("::", 53), v6_only=True)
    assert select(query((OURS, 53), PEER, protocol=UDP), [only]) == NOTHING
    assert select(query((OURS6, 53), PEER6, protocol=UDP), [only]) == Selection(Match.BOUND, [only])


def test_a_tcp_connection_of_somebody_else_takes_nothing(host: Host) -> None:
    socket(host, TCP, (OURS, 80), (THEIRS, 40001))
    assert select(query((OURS, 80), PEER), host.sockets(HOME)) == NOTHING


def test_a_connected_udp_socket_takes_only_its_peer(host: Host) -> None:
    socket(host, UDP, (OURS, 53), (THEIRS, 40001))
    assert select(query((OURS, 53), PEER, protocol=UDP), host.sockets(HOME)) == NOTHING


@pytest.mark.parametrize("state", [ESTABLISHED, TIME_WAIT])
def test_an_unconnected_tcp_socket_that_does_not_listen_takes_nothing(host: Host, state: int) -> None:
    socket(host, TCP, (OURS, 80), state=state)
    assert select(query((OURS, 80), PEER), host.sockets(HOME)) == NOTHING


def test_listeners_alone_can_be_asked_for(host: Host) -> None:
    socket(host, TCP, (OURS, 80), PEER)
    listener = socket(host, TCP, ("0.0.0.0", 80), state=LISTEN)
    found = select_listeners(query((OURS, 80), PEER), host.sockets(HOME))
    assert found == Selection(Match.LISTENER, [listener])


@pytest.mark.parametrize(("bound_to", "seen_on", "fits"), [(0, 7, True), (7, 7, True), (7, 8, False), (7, 0, True)])
def test_a_socket_bound_to_a_device_takes_only_what_comes_by_it(
    host: Host, bound_to: int, seen_on: int, fits: bool
) -> None:
    bound = socket(host, UDP, ("0.0.0.0", 68), ifindex=bound_to)
    found = select(query((OURS, 68), PEER, protocol=UDP, ifindex=seen_on), [bound])
    assert found == (Selection(Match.BOUND, [bound]) if fits else NOTHING)


def test_two_daemons_on_one_port_are_told_apart_by_their_devices(host: Host) -> None:
    first = socket(host, UDP, ("0.0.0.0", 68), ifindex=7)
    second = socket(host, UDP, ("0.0.0.0", 68), ifindex=8)
    for bound in (first, second):
        asked = query((OURS, 68), PEER, protocol=UDP, ifindex=bound.ifindex, outgoing=True)
        assert select(asked, [first, second]).sockets == [bound]


def test_every_socket_of_a_reuseport_group_is_kept(host: Host) -> None:
    group = [socket(host, UDP, (OURS, 53)) for _ in range(3)]
    assert select(query((OURS, 53), PEER, protocol=UDP), group) == Selection(Match.BOUND, group)


def test_a_sender_may_be_bound_to_the_address_or_to_the_wildcard(host: Host) -> None:
    bound = [socket(host, UDP, (local, 53)) for local in (OURS, "0.0.0.0", "::")]
    asked = query((OURS, 53), PEER, protocol=UDP, outgoing=True)
    assert select(asked, bound) == Selection(Match.BOUND, bound)


def test_multicast_reaches_every_socket_bound_to_it_or_to_the_wildcard(host: Host) -> None:
    group = [socket(host, UDP, (local, 5353)) for local in ("224.0.0.251", "0.0.0.0", "::")]
    socket(host, UDP, (OURS, 5353))
    asked = query(("224.0.0.251", 5353), PEER, protocol=UDP, fan_out=True)
    assert select(asked, host.sockets(HOME)) == Selection(Match.BOUND, group)


@pytest.mark.parametrize(
    ("local", "remote", "fits"),
    [
        ("0.0.0.0", None, True),
        (OURS, None, True),
        ("10.77.0.9", None, False),
        ("0.0.0.0", THEIRS, True),
        ("0.0.0.0", "10.77.0.9", False),
    ],
)
def test_a_raw_socket_takes_its_protocol_whatever_the_ports(
    host: Host, local: str, remote: str | None, fits: bool
) -> None:
    raw = socket(host, ICMP, (local, ICMP), (remote, 0) if remote else None, raw=True)
    found = select(query((OURS, 4711), (THEIRS, 0), protocol=ICMP), [raw])
    assert found == (Selection(Match.BOUND, [raw]) if fits else NOTHING)


@pytest.mark.parametrize("outgoing", [True, False])
def test_a_ping_socket_fits_by_its_echo_id(host: Host, outgoing: bool) -> None:
    ping = socket(host, ICMP, (OURS, 77))
    socket(host, ICMP, (OURS, 78))
    found = select(query((OURS, 77), (THEIRS, 0), protocol=ICMP, outgoing=outgoing), host.sockets(HOME))
    assert found == Selection(Match.BOUND, [ping])


@pytest.mark.parametrize("port", [0, 1025])
def test_a_connected_ping_socket_fits_whatever_port_it_was_connected_to(host: Host, port: int) -> None:
    """The kernel looks at the id, the local address and the device only (ping_lookup in net/ipv4/ping.c)."""
    ping = socket(host, ICMP, (OURS, 77), (THEIRS, port))
    asked: Query = query((OURS, 77), (THEIRS, 0), protocol=ICMP, outgoing=True)
    assert select(asked, [ping]).sockets == [ping]
