"""What a user asks for in words: places, and what ss's filters mean beyond what ss itself can be asked about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.entries import entry, holder, inet, unix
from pktproc.errors import UsageError
from pktproc.inventory import states
from pktproc.inventory.expression import parse
from pktproc.inventory.rows import Entry, Peer

PORTS = {"http": 80, "ssh": 22}
WEB = entry(inet("10.0.0.5:80", "10.0.0.9:4711", inode=1), holder(42, "nginx"))
SHELL = entry(inet("10.0.0.5:22", "10.0.1.9:80", inode=2), holder(80, "sshd"), holder(81, "sshd-session"))
SIX = entry(inet("[fd00::1]:443", "[fd00::2]:9000", inode=3, family=10), holder(43, "python3"))
SERVER = unix(b"/run/my app.sock", inode=10, peer=11)
CLIENT = entry(unix(b"", inode=11, peer=10), holder(44, "client"), peer=Peer(10, (), SERVER))
UNIX = entry(SERVER, holder(45, "server"))
ABSTRACT = entry(unix(b"\0bus", inode=12), holder(46, "bus"))
ALL = [WEB, SHELL, SIX, CLIENT, UNIX, ABSTRACT]


def chosen(*words: str) -> list[Entry]:
    wish = parse(words, PORTS.get)
    return [one for one in ALL if wish.condition is None or wish.condition.fits(one)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ALL),
        ([":80"], [WEB, SHELL]),
        ([":http"], [WEB, SHELL]),
        (["80"], [WEB, SHELL]),  # a port of one, the pid and the other end of another
        (["pid:80"], [SHELL]),
        (["43"], [SIX]),
        (["100000"], []),
        (["10.0.0.5"], [WEB, SHELL]),
        (["10.0.0.5:80"], [WEB]),
        (["10.0.0.5:4711"], []),
        (["10.0.0.0/24"], [WEB, SHELL]),
        (["10.0.1.0/24"], [SHELL]),
        (["fd00::2"], [SIX]),
        (["[fd00::1]:443"], [SIX]),
        (["fd00::/16"], [SIX]),
        (["*:443"], [SIX]),
        (["80/tcp"], [WEB, SHELL]),
        (["tcp:http"], [WEB, SHELL]),
        (["ssh/tcp", "9000/tcp"], [SHELL, SIX]),
        (["80/udp"], []),
        (["nginx"], [WEB]),
        (["ss*"], [SHELL]),
        (["nginx", "python3"], [WEB, SIX]),
        ([":22", ":443"], [SHELL, SIX]),
        (["nginx", ":22"], []),
        (["nginx", "or", ":22"], [WEB, SHELL]),
        (["/run/my app.sock"], [CLIENT, UNIX]),
        (["/run/*"], [CLIENT, UNIX]),
        (["src", "/run/*"], [UNIX]),
        (["dst", "/run/*"], [CLIENT]),
        (["@bus"], [ABSTRACT]),
        (["unix:@b*"], [ABSTRACT]),
        (["not", "src", "10.0.0.0/8", "and", "sport", ">=", "443"], [SIX]),
        (["! ( sport = :22 or sport = :443 ) dport > 0"], [WEB]),
        (["src", "!=", "10.0.0.5"], [SIX, CLIENT, UNIX, ABSTRACT]),
    ],
    ids=str,
)
def test_words_choose_what_they_say(words: list[str], expected: list[Entry]) -> None:
    assert chosen(*words) == expected


@pytest.mark.parametrize(
    ("words", "mask"),
    [
        (["state", "established"], 1 << 1),
        (["state", "listening", "state", "close-wait"], 1 << 10 | 1 << 8),
        (["state", "all", "exclude", "time-wait"], states.ALL & ~(1 << 6)),
        (["exclude", "listen"], states.ALL & ~(1 << 10)),
        (["state", "fin_wait_1"], 1 << 4),
    ],
    ids=str,
)
def test_states_are_named_in_front(words: list[str], mask: int) -> None:
    wish = parse([*words, "sport", "=", "22"], PORTS.get)
    assert wish.states == mask
    assert wish.condition is not None
    assert not wish.places


def test_places_are_told_from_filters() -> None:
    assert parse([":80"], PORTS.get).places
    assert not parse(["sport", "80"], PORTS.get).places


@pytest.mark.parametrize(
    "words",
    [
        ["sport"],
        ["sport", "=", "nosuch"],
        ["sport", "70000"],
        [":70000"],
        ["70000/tcp"],
        ["udp:nosuch"],
        ["src", "nosuch"],
        ["src", ">", "10.0.0.1"],
        ["10.0.0.0/33"],
        ["fd00::/129"],
        ["(", ":80"],
        [":80", ")"],
        ["and"],
        ["not"],
        ["state"],
        ["state", "asleep"],
        [":80", "state", "listening"],
        ["="],
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_with_a_reason(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"\S"):
        parse(words, PORTS.get)


@given(st.lists(st.text(st.sampled_from("ab01.:/@*()!=<>& |[]%-")) | st.sampled_from(["src", "dport", "not", "state"])))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    try:
        wish = parse(words, PORTS.get)
    except UsageError:
        return
    assert all(wish.condition is None or wish.condition.fits(one) in (True, False) for one in ALL)
