"""Who is at the other end: only where that is certain."""

from __future__ import annotations

from inventory.entries import HOME, holder, inet, unix
from pktproc.inventory.peers import Peers
from pktproc.inventory.rows import Holder, Row

AWAY = HOME + 1
HELD = {1: (holder(10, "one"),), 2: (holder(20, "two"),), 3: (holder(30, "three"),)}


def holders(inode: int) -> tuple[Holder, ...]:
    return HELD.get(inode, ())


def peer_of(row: Row, *others: Row) -> int | None:
    found = Peers([row, *others], holders).of(row)
    assert found is None or found.holders == holders(found.inode)
    return None if found is None else found.inode


CLIENT = inet("127.0.0.1:4000", "127.0.0.1:80", inode=1)
SERVER = inet("127.0.0.1:80", "127.0.0.1:4000", inode=2)


def test_both_ends_of_a_connection_are_each_others() -> None:
    assert peer_of(CLIENT, SERVER) == 2
    assert peer_of(SERVER, CLIENT) == 1


def test_loopback_of_another_namespace_is_another_one() -> None:
    assert peer_of(CLIENT, SERVER._replace(netns=AWAY)) is None
    assert peer_of(CLIENT, SERVER._replace(netns=AWAY, inode=3), SERVER) == 2


def test_the_other_end_may_be_in_another_namespace_unless_two_fit() -> None:
    client = inet("10.0.0.1:4000", "10.0.0.2:80", inode=1)
    server = inet("10.0.0.2:80", "10.0.0.1:4000", inode=2, netns=AWAY)
    assert peer_of(client, server) == 2
    assert peer_of(client, server, server._replace(netns=AWAY + 1, inode=3)) is None


def test_udp_and_tcp_never_mix() -> None:
    assert peer_of(CLIENT, SERVER._replace(kind="udp")) is None


def test_a_connection_that_nobody_accepted_yet_has_a_peer_without_holders() -> None:
    found = Peers([CLIENT, SERVER._replace(inode=0)], holders).of(CLIENT)
    assert found is not None
    assert (found.inode, found.holders) == (0, ())


def test_a_connected_datagram_socket_reaches_the_only_one_that_is_bound_there() -> None:
    sender = inet("127.0.0.1:4000", "127.0.0.1:53", kind="udp", inode=1)
    bound = inet("127.0.0.1:53", kind="udp", inode=2, state=7)
    wildcard = inet("0.0.0.0:53", kind="udp", inode=3, state=7)
    assert peer_of(sender, bound) == 2
    assert peer_of(sender, wildcard) == 3
    assert peer_of(sender, bound, wildcard) == 2
    assert peer_of(sender, bound, bound._replace(inode=3, cookie=9)) is None
    assert peer_of(bound, sender) is None


def test_a_wildcard_of_an_address_that_may_be_elsewhere_is_not_taken_for_the_peer() -> None:
    sender = inet("10.0.0.1:4000", "10.0.0.2:53", kind="udp", inode=1)
    assert peer_of(sender, inet("0.0.0.0:53", kind="udp", inode=2, state=7)) is None


def test_unix_peers_are_known_by_inode_even_if_no_table_shows_them() -> None:
    client = unix(b"", inode=1, peer=2)
    assert peer_of(client, unix(b"/run/x", inode=2, peer=1)) == 2
    assert peer_of(client) == 2
    assert peer_of(unix(b"/run/x", inode=1)) is None
