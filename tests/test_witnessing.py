"""What a witness tells bit by bit of sockets, put together."""

from __future__ import annotations

from pktproc.attribution.engine import Ends, Use, Way
from pktproc.model import Process, Protocol, pack_address
from pktproc.witnessing import Accounts, Sight

CURL = Process(pid=42, start_ticks=420, start_ns=0, name="curl")
NGINX = Process(pid=43, start_ticks=430, start_ns=0, name="nginx")
NOWHERE = Ends(0, 0, bytes(16), 0, bytes(16), 0)
HERE, THERE = pack_address("10.0.0.1"), pack_address("10.0.0.2")


def ends(protocol: int, port: int = 4000) -> Ends:
    return Ends(1, protocol, HERE, port, THERE, 80)


def told(*uses: Use, by_packets: bool = True) -> list[tuple[int, str, int, int | None, bool]]:
    """Return cookie, kind, state, pid and whether it closed, of each sight."""
    return [line(sight) for sight in Accounts(by_packets=by_packets).sights(uses)]


def line(sight: Sight) -> tuple[int, str, int, int | None, bool]:
    return sight.row.cookie, sight.row.kind, sight.row.state, sight.process.pid if sight.process else None, sight.closed


def test_a_connection_that_is_opened_and_closed() -> None:
    assert told(Use(1, Way.SENT, 7, ends(Protocol.TCP), CURL), Use(2, Way.CLOSED, 7, NOWHERE, None)) == [
        (7, "tcp", 2, 42, False),
        (7, "tcp", 2, 42, True),
    ]


BEGINS = Use(1, Way.BOUND, 7, ends(Protocol.TCP, 0), CURL)
ANSWERED = Use(2, Way.CONNECTS, 7, ends(Protocol.TCP), None)
GIVEN_UP = ANSWERED._replace(way=Way.GIVES_UP)
CLOSED = Use(3, Way.CLOSED, 7, NOWHERE, None)


def test_a_connection_belongs_to_who_began_it() -> None:
    assert told(BEGINS, by_packets=False) == []
    assert told(BEGINS, ANSWERED, CLOSED, by_packets=False) == [(7, "tcp", 1, 42, False), (7, "tcp", 1, 42, True)]


def test_a_connection_that_was_refused_was_not_established() -> None:
    assert told(BEGINS, GIVEN_UP, CLOSED, by_packets=False) == [(7, "tcp", 2, 42, False), (7, "tcp", 2, 42, True)]


def test_a_socket_that_connects_again_has_its_new_ends() -> None:
    uses = [GIVEN_UP, BEGINS, ANSWERED._replace(ends=ends(Protocol.TCP, 4001)), CLOSED]
    assert [sight.row.local_port for sight in Accounts(by_packets=False).sights(uses)] == [4000, 4001, 4001]


def test_without_packets_who_sends_first_has_not_begun_the_connection() -> None:
    assert told(Use(1, Way.SENT, 7, ends(Protocol.TCP), NGINX), by_packets=False) == [(7, "tcp", 1, 43, False)]


def test_a_connection_that_comes_in_is_its_first_users() -> None:
    comes = Use(1, Way.COMES_IN, 0, ends(Protocol.TCP), None)
    assert told(comes, Use(2, Way.SENT, 7, ends(Protocol.TCP), NGINX)) == [(7, "tcp", 1, 43, False)]
    assert told(comes, Use(2, Way.RECEIVED, 7, ends(Protocol.TCP), NGINX)) == [(7, "tcp", 1, 43, False)]
    assert told(comes) == []


def test_a_connection_that_is_closed_unused_was_of_who_closed_it() -> None:
    assert told(Use(1, Way.CLOSED, 7, ends(Protocol.TCP), NGINX)) == [(7, "tcp", 1, 43, False), (7, "tcp", 1, 43, True)]


def test_a_datagram_socket_that_only_receives_is_its_makers() -> None:
    made = Use(1, Way.BOUND, 7, NOWHERE._replace(protocol=Protocol.UDP), CURL)
    assert told(made, Use(2, Way.ARRIVES, 7, ends(Protocol.UDP), None)) == [(7, "udp", 7, 42, False)]
    assert told(made) == []


def test_what_nobody_is_known_for_has_no_process() -> None:
    assert told(Use(1, Way.ARRIVES, 7, ends(Protocol.UDP), None)) == [(7, "udp", 7, None, False)]


def test_raw_and_packet_sockets_are_not_taken_for_others() -> None:
    raw = Use(1, Way.BOUND, 7, NOWHERE._replace(protocol=255), CURL)
    assert told(raw, Use(2, Way.SENT, 7, ends(Protocol.UDP), CURL)) == []
    assert told(Use(1, Way.SENT, 1 << 63 | 42, ends(Protocol.TCP), CURL)) == []
    assert told(Use(1, Way.SENT, 7, ends(Protocol.ICMP), CURL)) == []


def test_the_end_of_what_was_not_seen_tells_nothing() -> None:
    assert told(Use(1, Way.CLOSED, 7, NOWHERE, None)) == []


def test_the_ends_stay_those_of_the_first_packet() -> None:
    accounts = Accounts()
    uses = [Use(at, Way.SENT, 7, ends(Protocol.UDP, port), CURL) for at, port in ((1, 4000), (2, 5000))]
    assert [sight.row.local_port for sight in accounts.sights(uses)] == [4000, 4000]
