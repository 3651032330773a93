"""Numbers with what they count."""

from __future__ import annotations

import pytest

from pktproc.output.counting import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "socket", "0 sockets"),
        (1, "socket", "1 socket"),
        (2, "process", "2 processes"),
        (1, "process recorded", "1 process recorded"),
        (3, "packet received by filter", "3 packets received by filter"),
    ],
)
def test_only_one_is_singular(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
