"""Who used a socket at the time of a packet, from what a witness told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pktproc.attribution.engine import Ends, Query, Told, Use, Way
from pktproc.attribution.turns import Period
from pktproc.attribution.usage import Account, Usage
from pktproc.model import Match, Process, ProcessId, Protocol, Reason, pack_address

MS = 1_000_000
NOW = 1_000 * MS
OURS, THEIRS = pack_address("10.77.0.1"), pack_address("10.77.0.2")
GROUP = pack_address("239.1.1.1")


def process(pid: int) -> Process:
    return Process(pid, 1, 0, f"p{pid}")


A, B = process(10), process(20)


class Host:
    """A witness that tells what a test lets happen, and the usage that listens to it."""

    evidence, fallback = "witness", "looking"

    def __init__(self) -> None:
        self.now = NOW
        self._uses: list[Use] = []
        self._exits: list[tuple[ProcessId, int]] = []
        self.lost = 0
        self.usage = Usage(self, lambda: self.now)

    def told(self) -> Told:
        told = Told(self._uses, self._exits, self.lost)
        self._uses, self._exits, self.lost = [], [], 0
        return told

    def happens(
        self,
        time_ms: float,
        way: Way,
        who: Process | None = None,
        *,
        cookie: int = 1,
        protocol: int = Protocol.TCP,
        local: bytes = OURS,
        remote_port: int = 80,
        previous_ms: float = 0,
    ) -> None:
        ends = Ends(1, protocol, local, 5000, THEIRS if remote_port else bytes(16), remote_port)
        cookie = 0 if way is Way.COMES_IN else cookie
        if way is Way.CLOSED and not who:
            ends = Ends(0, 0, bytes(16), 0, bytes(16), 0)
        self._uses.append(Use(int(time_ms * MS), way, cookie, ends, who, int(previous_ms * MS)))

    def exits(self, time_ms: float, who: Process) -> None:
        self._exits.append((who.id, int(time_ms * MS)))

    def ask(
        self,
        first_ms: float,
        last_ms: float | None = None,
        *,
        outgoing: bool = True,
        protocol: int = Protocol.TCP,
        local: bytes = OURS,
        fan_out: bool = False,
    ) -> Account:
        self.usage.drain()
        query = Query(1, protocol, local, 5000, THEIRS, 80, outgoing=outgoing, fan_out=fan_out)
        last_ms = first_ms if last_ms is None else last_ms
        return self.usage.testify(query, Period(int(first_ms * MS), int(last_ms * MS)))


@pytest.fixture
def host() -> Host:
    return Host()


def named(account: Account) -> tuple[Match | None, Sequence[Process]]:
    assert account.attribution
    return account.attribution.match, account.attribution.holders


def test_the_sender_is_named_for_both_directions(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    assert named(host.ask(10.01)) == (Match.EXACT, (A,))
    assert named(host.ask(10.5, outgoing=False)) == (Match.EXACT, (A,))
    assert host.ask(10.01).attribution.evidence == "witness"  # type: ignore[union-attr]


def test_what_was_never_told_is_left_to_others(host: Host) -> None:
    assert host.ask(10) == Account(None, settled=True)


def test_packets_before_the_first_use_of_an_accepted_connection_are_its_users(host: Host) -> None:
    host.happens(10, Way.COMES_IN)
    host.happens(11, Way.RECEIVED, A)
    assert named(host.ask(9.9, 10.9, outgoing=False)) == (Match.EXACT, (A,))
    assert named(host.ask(9.9, 10.9)) == (Match.EXACT, (A,))


def test_a_connection_that_nobody_has_used_yet_is_waited_for(host: Host) -> None:
    host.happens(990, Way.COMES_IN)
    assert host.ask(990, outgoing=False) == Account(None, settled=False)
    host.now += 100 * MS
    assert host.ask(990, outgoing=False).settled


def test_a_socket_that_is_handed_on_is_its_new_users_from_then_on(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    host.happens(200, Way.SENT, B)
    host.happens(201, Way.RECEIVED, B, previous_ms=11)
    assert named(host.ask(10.2)) == (Match.EXACT, (A,))
    assert named(host.ask(10.2, outgoing=False)) == (Match.EXACT, (A,))
    assert named(host.ask(200.2)) == (Match.EXACT, (B,))
    assert named(host.ask(200.5, outgoing=False)) == (Match.EXACT, (B,))


def test_who_alone_sent_goes_on_to_when_another_begins_to_receive(host: Host) -> None:
    host.happens(10, Way.RECEIVED, A)
    host.happens(20, Way.SENT, A)
    host.happens(200, Way.RECEIVED, B, previous_ms=30)
    assert named(host.ask(210)) == (Match.EXACT, (A,))
    assert named(host.ask(210, outgoing=False)) == (Match.EXACT, (B,))


def test_who_alone_received_may_go_on_to_when_another_begins_to_send(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    host.happens(20, Way.RECEIVED, A)
    host.happens(200, Way.SENT, B)
    assert named(host.ask(210)) == (Match.EXACT, (B,))
    assert named(host.ask(210, outgoing=False)) == (Match.SHARED, (A, B))


@pytest.mark.parametrize("receives", [False, True])
def test_each_of_three_users_has_a_turn(host: Host, *, receives: bool) -> None:
    third = process(30)
    for time_ms, who in ((100, A), (200, B), (300, third)):
        host.happens(time_ms, Way.SENT, who)
        if receives:
            host.happens(time_ms + 1, Way.RECEIVED, who, previous_ms=time_ms - 50)
    for time_ms, who in ((110, A), (210, B), (310, third)):
        assert named(host.ask(time_ms)) == (Match.EXACT, (who,))
        assert named(host.ask(time_ms, outgoing=False)) == (Match.EXACT, (who,))


def test_what_came_in_while_somebody_untold_received_is_not_the_next_reader_s(host: Host) -> None:
    host.happens(200, Way.RECEIVED, B, previous_ms=11)
    assert host.ask(10, outgoing=False).attribution is None
    assert named(host.ask(12, outgoing=False)) == (Match.EXACT, (B,))


def test_packets_of_two_senders_in_one_block_are_shared(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    host.happens(12, Way.SENT, B)
    assert named(host.ask(10.5, 12.5)) == (Match.SHARED, (A, B))


def test_packets_about_the_time_when_another_socket_takes_over_are_nobodys(host: Host) -> None:
    for protocol in (Protocol.UDP, Protocol.TCP):
        host.happens(10, Way.SENT, A, cookie=2, protocol=protocol)
        host.happens(12, Way.SENT, B, cookie=3, protocol=protocol)
        account = host.ask(10.5, 12.5, protocol=protocol)
        assert account.attribution is not None
        assert (account.attribution.reason, account.attribution.holders) == (Reason.AMBIGUOUS, (A, B))
        assert not account.lasting
        assert named(host.ask(12.5, 13, protocol=protocol)) == (Match.EXACT, (B,))


def test_what_is_shared_in_one_block_is_asked_again_in_the_next(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    host.happens(12, Way.SENT, B)
    assert not host.ask(10.5, 12.5).lasting


def test_an_answer_does_not_last_beyond_what_is_already_known_to_follow(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    assert host.ask(10.5).lasting
    host.happens(12, Way.SENT, B)
    assert not host.ask(10.5).lasting
    assert host.ask(12.5).lasting


def test_two_who_take_turns_in_receiving_are_shared(host: Host) -> None:
    host.happens(10, Way.RECEIVED, A)
    host.happens(12, Way.RECEIVED, B, previous_ms=11.9)
    assert named(host.ask(11.5, outgoing=False)) == (Match.SHARED, (A, B))


def test_what_comes_in_after_another_began_to_send_may_be_for_either(host: Host) -> None:
    host.happens(10, Way.RECEIVED, A)
    host.happens(500, Way.SENT, B)
    match, holders = named(host.ask(501, outgoing=False))
    assert (match, set(holders)) == (Match.SHARED, {A, B})


def test_who_ended_long_ago_has_left_an_open_socket_to_somebody_else(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    host.exits(20, A)
    assert named(host.ask(30)) == (Match.EXACT, (A,))
    assert host.ask(500).attribution is None


def test_a_closed_socket_stays_that_of_who_closed_it(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    host.happens(20, Way.CLOSED)
    host.exits(20, A)
    assert named(host.ask(500)) == (Match.EXACT, (A,))


def test_a_connection_that_is_closed_unused_is_of_who_closes_it(host: Host) -> None:
    host.happens(10, Way.COMES_IN)
    host.happens(12, Way.CLOSED, A)
    host.exits(12, A)
    assert named(host.ask(10.1, outgoing=False)) == (Match.EXACT, (A,))
    assert named(host.ask(500)) == (Match.EXACT, (A,))


def test_the_same_ends_are_told_apart_by_time(host: Host) -> None:
    host.happens(10, Way.SENT, A, cookie=1)
    host.happens(20, Way.CLOSED, cookie=1)
    host.happens(30, Way.SENT, B, cookie=2)
    assert named(host.ask(25)) == (Match.EXACT, (A,))
    assert named(host.ask(30.1)) == (Match.EXACT, (B,))
    account = host.ask(25, 31)
    assert account.attribution
    assert (account.attribution.reason, set(account.attribution.holders)) == (Reason.AMBIGUOUS, {A, B})


def test_who_had_the_same_ends_long_ago_is_no_candidate(host: Host) -> None:
    host.happens(10, Way.RECEIVED, A, cookie=1)
    host.happens(20, Way.CLOSED, cookie=1)
    host.happens(3000.1, Way.COMES_IN)
    host.happens(3001, Way.RECEIVED, B, cookie=2)
    assert named(host.ask(3000, outgoing=False)) == (Match.EXACT, (B,))


def test_the_kernel_is_nobody(host: Host) -> None:
    host.happens(10, Way.SENT, None)
    account = host.ask(10.1)
    assert account.attribution
    assert account.attribution.reason is Reason.KERNEL


def test_a_datagram_is_for_the_socket_that_it_reached(host: Host) -> None:
    host.happens(5, Way.BOUND, A, cookie=1, protocol=Protocol.UDP, remote_port=0)
    host.happens(5, Way.BOUND, B, cookie=2, protocol=Protocol.UDP, remote_port=0)
    host.happens(10, Way.ARRIVES, cookie=2, protocol=Protocol.UDP)
    assert named(host.ask(9.99, outgoing=False, protocol=Protocol.UDP)) == (Match.EXACT, (B,))


def test_a_multicast_datagram_is_for_all_that_it_reached(host: Host) -> None:
    for cookie, who in ((1, A), (2, B)):
        host.happens(5, Way.BOUND, who, cookie=cookie, protocol=Protocol.UDP, remote_port=0)
        host.happens(10, Way.ARRIVES, cookie=cookie, protocol=Protocol.UDP, local=GROUP)
    account = host.ask(10, outgoing=False, protocol=Protocol.UDP, local=GROUP, fan_out=True)
    assert named(account) == (Match.SHARED, (A, B))


def test_an_echo_reply_that_several_raw_sockets_hear_is_for_who_asked(host: Host) -> None:
    host.happens(5, Way.BOUND, A, cookie=1, protocol=Protocol.ICMP, remote_port=0)
    host.happens(10, Way.SENT, B, cookie=2, protocol=Protocol.ICMP)
    for cookie in (1, 2):
        host.happens(11, Way.ARRIVES, cookie=cookie, protocol=Protocol.ICMP)
    assert named(host.ask(11, outgoing=False, protocol=Protocol.ICMP)) == (Match.EXACT, (B,))


def test_a_reply_that_comes_after_its_asker_is_gone_was_meant_for_it(host: Host) -> None:
    host.happens(990, Way.SENT, A, protocol=Protocol.UDP)
    host.happens(991, Way.CLOSED)
    account = host.ask(999, outgoing=False, protocol=Protocol.UDP)
    assert named(account) == (Match.EXACT, (A,))
    assert not account.settled
    host.now += 10 * MS
    assert host.ask(999, outgoing=False, protocol=Protocol.UDP).settled
    assert host.ask(5000, outgoing=False, protocol=Protocol.UDP).attribution is None


def test_after_a_loss_nothing_counts_that_was_told_before(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    assert host.ask(10.5).attribution
    host.lost = 1
    host.happens(11, Way.SENT, B)
    assert host.ask(11.5).attribution is None
    assert host.usage.lost == 1
    host.happens(12, Way.SENT, B)
    assert named(host.ask(12.5)) == (Match.EXACT, (B,))


def test_a_flow_is_touched_by_its_higher_port(host: Host) -> None:
    host.happens(10, Way.SENT, A)
    assert list(host.usage.drain()) == [(Protocol.TCP, 5000)]
