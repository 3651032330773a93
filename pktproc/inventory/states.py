"""The states of sockets: the kernel's TCP state numbers (net/tcp_states.h), which it uses for every kind."""

from __future__ import annotations

from pktproc.inventory.rows import CONNECTION_KINDS

LABELS = {
    1: "ESTAB",
    2: "SYN-SENT",
    3: "SYN-RECV",
    4: "FIN-WAIT-1",
    5: "FIN-WAIT-2",
    6: "TIME-WAIT",
    7: "UNCONN",
    8: "CLOSE-WAIT",
    9: "LAST-ACK",
    10: "LISTEN",
    11: "CLOSING",
}
"""The words of ss for states by number; UNCONN is also what a socket without connections is in for good."""

NAMES = {
    1: "established",
    2: "syn-sent",
    3: "syn-recv",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    7: "closed",
    8: "close-wait",
    9: "last-ack",
    10: "listening",
    11: "closing",
}
"""The words that filters and JSON have for states."""

ESTABLISHED = 1
SYN_SENT = 2
TIME_WAIT = 6
CLOSED = 7
LISTENING = 10
ALL = 0xFFF
LISTENERS = 1 << LISTENING | 1 << CLOSED
CONNECTED = ALL & ~(1 << LISTENING | 1 << CLOSED | 1 << TIME_WAIT | 1 << 3)
"""What is shown where nothing else is asked for, as in ss."""

_GROUPS = {
    "all": ALL,
    "connected": ALL & ~(1 << CLOSED | 1 << LISTENING),
    "synchronized": ALL & ~(1 << CLOSED | 1 << LISTENING | 1 << 2),
    "bucket": 1 << 3 | 1 << TIME_WAIT,
    "big": ALL & ~(1 << 3 | 1 << TIME_WAIT),
    "syn-rcv": 1 << 3,
    "unconnected": 1 << CLOSED,
    "unconn": 1 << CLOSED,
    "estab": 1 << 1,
    "listen": 1 << LISTENING,
}
MASKS = {name: 1 << number for number, name in NAMES.items()} | _GROUPS
"""Masks of states, by the words of a filter: states, and ss's groups of them."""


def mask(word: str) -> int | None:
    """Return the mask for a word, None if there is no such state or group."""
    return MASKS.get(word.lower().replace("_", "-"))


def state_word(kind: str, state: int) -> str:
    """Return the word that JSON has for a state; `unconnected` for the kinds that have no connections to close."""
    if state == CLOSED and kind not in CONNECTION_KINDS:
        return "unconnected"
    return NAMES.get(state, str(state))
