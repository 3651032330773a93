"""Bytes whose owner is found late, and ports that change hands."""

from __future__ import annotations

import pytest

from bandwidth.counted import HOST, NS_PER_S, OUT, START_NS, Seen, adds_up, block, by, tcp, totals, udp, why
from pktproc.attribution.answers import AttributedBatch
from pktproc.bandwidth.ledger import Ledger
from pktproc.model import Attribution, Reason

CURL, WGET = by(1, "curl"), by(2, "wget")
UNKNOWN = why(Reason.NO_SOCKET)


def out(frame: bytes, owner: Attribution, at_s: float = 0) -> AttributedBatch:
    """A block with one packet that a local process sent."""
    return block([Seen(frame, (owner, None), OUT, time_ns=START_NS + round(at_s * NS_PER_S))])


def into(frame: bytes, owner: Attribution, at_s: float = 0) -> AttributedBatch:
    """A block with one packet that came in."""
    return block([Seen(frame, (None, owner), HOST, time_ns=START_NS + round(at_s * NS_PER_S))])


def sent(*blocks: AttributedBatch) -> dict[str, int]:
    """What each name sent, after some blocks."""
    book = Ledger(["name"])
    for one in blocks:
        book.add(one)
    adds_up(book.view())
    return {key[0]: amounts[0] for key, amounts in totals(book.view()).items()}


SYN, DATA = tcp(40000, 80, "S"), tcp(40000, 80, "PA", 100)


def test_bytes_that_came_before_the_name_follow_it() -> None:
    assert sent(out(SYN, UNKNOWN), out(DATA, CURL, 0.1)) == {"curl": len(SYN) + len(DATA)}


def test_a_name_that_is_final_follows_as_well() -> None:
    assert sent(out(SYN, why(Reason.NO_SOCKET, final=True)), out(DATA, CURL, 1)) == {"curl": len(SYN) + len(DATA)}


@pytest.mark.parametrize("reason", [Reason.CLOSED, Reason.AMBIGUOUS, Reason.KERNEL, Reason.OTHER_NAMESPACE])
def test_what_may_be_another_s_stays(reason: Reason) -> None:
    assert sent(out(SYN, why(reason)), out(DATA, CURL, 0.1)) == {f"?{reason}": len(SYN), "curl": len(DATA)}


def test_a_new_connection_on_the_same_ports_leaves_earlier_bytes_alone() -> None:
    assert sent(out(SYN, UNKNOWN), out(DATA, UNKNOWN, 0.1), out(SYN, WGET, 0.2), out(DATA, WGET, 0.3)) == {
        "?no-socket": len(SYN) + len(DATA),
        "wget": len(SYN) + len(DATA),
    }


def test_unknown_bytes_of_two_connections_do_not_follow_one_name() -> None:
    assert sent(out(DATA, UNKNOWN), out(SYN, UNKNOWN, 0.2), out(DATA, WGET, 0.3)) == {
        "?no-socket": len(DATA),
        "wget": len(SYN) + len(DATA),
    }


def test_the_other_side_s_syn_counts_too() -> None:
    answer, syn = tcp(80, 40000, "PA", 10), tcp(40000, 80, "S", local="10.77.0.2")
    blocks = [out(answer, UNKNOWN), into(syn, WGET, 0.1), out(answer, WGET, 0.2)]
    assert sent(*blocks) == {"?no-socket": len(answer), "wget": len(answer)}


def test_another_process_begins_anew() -> None:
    assert sent(out(DATA, CURL), out(DATA, WGET, 0.1), out(DATA, WGET, 0.2)) == {
        "curl": len(DATA),
        "wget": 2 * len(DATA),
    }


def test_an_answer_that_comes_back_finds_its_account() -> None:
    blocks = [out(DATA, owner, at / 10) for at, owner in enumerate([CURL, why(Reason.AMBIGUOUS), CURL, WGET, CURL])]
    assert sent(*blocks) == {"curl": 3 * len(DATA), "wget": len(DATA), "?ambiguous": len(DATA)}


def test_a_name_comes_too_late_for_what_was_long_ago() -> None:
    datagram = udp(5000, 53, 20)
    assert sent(out(datagram, UNKNOWN), out(datagram, CURL, 3)) == {"?no-socket": len(datagram), "curl": len(datagram)}
    assert sent(out(DATA, UNKNOWN), out(DATA, CURL, 100)) == {"?no-socket": len(DATA), "curl": len(DATA)}
    assert sent(out(datagram, UNKNOWN), out(datagram, CURL, 1)) == {"curl": 2 * len(datagram)}


def test_datagrams_to_a_port_that_nobody_has_are_not_given_to_who_opens_it_later() -> None:
    book = Ledger(["name"])
    asked = udp(5000, 53, 20, local="10.77.0.2")
    book.add(into(asked, UNKNOWN))
    book.add(into(asked, CURL, 0.5))
    assert totals(book.view()) == {("?no-socket",): (0, len(asked)), ("curl",): (0, len(asked))}


def test_datagrams_that_answer_a_process_follow_its_name() -> None:
    book = Ledger(["name"])
    question, answer = udp(5000, 53, 20), udp(53, 5000, 90, local="10.77.0.2")
    for one in (out(question, UNKNOWN), into(answer, UNKNOWN, 0.1), out(question, CURL, 0.2), into(answer, CURL, 0.3)):
        book.add(one)
    (row,) = book.view().rows
    assert (row.key, row.total.sent_bytes, row.total.received_bytes) == (("curl",), 2 * len(question), 2 * len(answer))
    assert row.connections == 1


def test_history_follows_too() -> None:
    book = Ledger(["name"], start_ns=START_NS)
    book.add(out(SYN, UNKNOWN, 0.5))
    book.add(out(DATA, CURL, 1.5))
    (row,) = book.view(START_NS + 3 * NS_PER_S).rows
    assert row.history == (len(SYN), len(DATA), 0)
    assert (row.rate.sent_bytes, row.peak.sent_bytes) == (0, len(DATA))
    assert row.mean.sent_bytes == pytest.approx((len(SYN) + len(DATA)) / 3)


def test_the_same_process_under_another_program_s_name_is_one_row_by_process_and_two_by_name() -> None:
    book = Ledger(["process"])
    book.add(out(SYN, by(1, "bash")))
    book.add(out(DATA, by(1, "curl"), 0.1))
    (row,) = book.view().rows
    assert row.process is not None
    assert (row.process.name, row.total.sent_bytes) == ("curl", len(SYN) + len(DATA))
    assert set(totals(book.view(by=["name"]))) == {("bash",), ("curl",)}


def test_a_pid_that_is_used_again_is_another_row() -> None:
    book = Ledger(["process"])
    first, second = by(1, "curl"), Attribution(process=by(1, "curl").process)
    assert second.process is not None
    book.add(out(SYN, first))
    book.add(out(tcp(40001, 80), by(2, "curl"), 0.1))
    assert len(book.view().rows) == 2


def test_connections_are_counted_once_in_both_directions() -> None:
    book = Ledger(["name"])
    for flags, back in (("S", False), ("SA", True), ("A", False), ("FA", False), ("FA", True), ("A", False)):
        frame = tcp(80, 40000, flags, local="10.77.0.2") if back else tcp(40000, 80, flags)
        book.add((into if back else out)(frame, CURL))
    assert [row.connections for row in book.view().rows] == [1]
    book.add(out(SYN, CURL, 1))
    assert [row.connections for row in book.view().rows] == [2]
    book.add(out(tcp(40001, 80, "S"), CURL, 1))
    assert [row.connections for row in book.view().rows] == [3]
