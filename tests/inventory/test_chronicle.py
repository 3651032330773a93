"""Sockets open once and close once, whoever tells it first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inventory.entries import entry, holder, inet
from pktproc.inventory.chronicle import Chronicle, Happening
from pktproc.inventory.rows import Entry

ROW = inet("10.0.0.1:4000", "10.0.0.2:80", inode=0, cookie=7)
FOUND = ROW._replace(inode=100)
CURL, NGINX = holder(42, "curl"), holder(43, "nginx")
WITNESSED = CURL._replace(fds=())


def look(chronicle: Chronicle, *entries: Entry) -> list[Happening]:
    chronicle.begin_look()
    return chronicle.looked(entries, 9)


def told(happenings: list[Happening]) -> list[tuple[str, tuple[int, ...]]]:
    return [(each.action, tuple(holder.pid for holder in each.entry.holders)) for each in happenings]


def test_what_looks_find_opens_and_what_they_do_not_find_any_more_closes() -> None:
    chronicle = Chronicle()
    assert told(look(chronicle, entry(FOUND, CURL))) == [("opened", (42,))]
    assert told(look(chronicle, entry(FOUND, CURL))) == []
    assert told(look(chronicle)) == [("closed", (42,))]
    assert chronicle.ended(ROW, (), 10) == []


def test_a_connection_in_time_wait_has_closed() -> None:
    chronicle = Chronicle()
    look(chronicle, entry(FOUND, CURL))
    assert told(look(chronicle, entry(ROW._replace(state=6)))) == [("closed", (42,))]


def test_what_is_seen_to_open_during_a_look_is_not_closed_by_it() -> None:
    chronicle = Chronicle()
    chronicle.begin_look()
    assert told(chronicle.used(ROW, (WITNESSED,), 5)) == [("opened", (42,))]
    assert chronicle.looked([], 6) == []
    assert told(look(chronicle)) == [("closed", (42,))]


def test_what_is_heard_to_close_during_a_look_is_not_opened_by_it() -> None:
    chronicle = Chronicle()
    chronicle.begin_look()
    chronicle.used(ROW, (WITNESSED,), 5)
    assert told(chronicle.ended(ROW, (), 6)) == [("closed", (42,))]
    assert chronicle.looked([entry(FOUND, CURL)], 7) == []


def test_several_users_are_all_told_at_the_end_but_those_that_a_look_does_not_find() -> None:
    chronicle = Chronicle()
    chronicle.used(ROW, (WITNESSED,), 5)
    chronicle.used(ROW, (NGINX,), 6)
    assert told(chronicle.ended(ROW, (), 7)) == [("closed", (42, 43))]
    chronicle = Chronicle()
    chronicle.used(ROW, (WITNESSED,), 5)
    look(chronicle, entry(FOUND, NGINX))
    assert told(chronicle.ended(ROW, (), 7)) == [("closed", (43,))]


def test_what_a_look_finds_without_holder_keeps_the_one_that_was_seen() -> None:
    chronicle = Chronicle()
    chronicle.used(ROW, (WITNESSED,), 5)
    look(chronicle, entry(ROW))
    assert told(chronicle.ended(ROW, (), 7)) == [("closed", (42,))]


def test_a_socket_that_connects_again_closes_with_its_latest_ends() -> None:
    chronicle = Chronicle()
    look(chronicle, entry(FOUND, CURL))
    again = inet("10.0.0.1:4001", "10.0.0.3:80", inode=0, cookie=7)
    assert chronicle.used(again, (WITNESSED,), 1) == []
    (closed,) = chronicle.ended(ROW, (), 2)
    assert (closed.entry.row.local_port, closed.entry.row.remote) == (4001, again.remote)
    assert closed.entry.holders == (CURL,)


def test_an_end_of_what_was_never_met_tells_who_made_it_or_nobody() -> None:
    chronicle = Chronicle()
    assert told(chronicle.ended(ROW, (), 5)) == [("closed", ())]
    other = ROW._replace(cookie=8)
    assert told(chronicle.ended(other, (WITNESSED,), 5)) == [("opened", (42,)), ("closed", (42,))]


def test_a_connection_of_which_no_more_than_the_syn_was_seen_is_not_said_to_have_been_established() -> None:
    chronicle = Chronicle()
    chronicle.used(ROW._replace(state=2), (WITNESSED,), 5)
    (closed,) = chronicle.ended(ROW, (), 6)
    assert closed.entry.row.state == 7


ACTS = st.lists(st.tuples(st.sampled_from(["begin", "look", "use", "end"]), st.sets(st.integers(1, 3))), max_size=30)


@given(ACTS)
def test_openings_and_closings_of_a_socket_take_turns(acts: list[tuple[str, set[int]]]) -> None:
    chronicle = Chronicle()
    state: dict[int, str] = {}
    for act, cookies in acts:
        rows = [FOUND._replace(cookie=cookie) for cookie in sorted(cookies)]
        found: list[Happening] = []
        if act == "begin":
            chronicle.begin_look()
        elif act == "look":
            found = chronicle.looked([entry(row, CURL) for row in rows], 1)
        else:
            for row in rows:
                found += chronicle.used(row, (CURL,), 1) if act == "use" else chronicle.ended(row, (CURL,), 1)
        for each in found:
            cookie = each.entry.row.cookie
            assert state.get(cookie, "closed") != each.action
            state[cookie] = each.action
    assert len(chronicle) == sum(action == "opened" for action in state.values())
