"""Nothing that a program calls itself can reach a terminal as anything but printable text, and nothing is lost."""

from __future__ import annotations

import codecs
import json
import os
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pktproc.output.escape import escape, escape_name, join_command, json_text

LURES = "\x00\x1b\n\\\x7f\x9b\u202e\u2028\udcff\ud800"
HOSTILE = st.text(st.characters(codec=None) | st.sampled_from(LURES))
FROM_THE_KERNEL = st.binary(max_size=40).map(os.fsdecode)
ARGUMENTS = st.lists(st.binary(max_size=12).map(lambda data: os.fsdecode(data.replace(b"\0", b" "))), max_size=5)


def restored(text: str) -> str:
    """The original of an escaped text: `\\xNN` above 7f is an undecodable byte, all else as in Python's literals."""

    def one(found: re.Match[str]) -> str:
        spelled = found[0]
        if spelled == "\\\\":
            return "\\"
        code = int(found["digits"], base=16)
        return chr(code + 0xDC00) if spelled[1] == "x" and code >= 0x80 else chr(code)

    return re.sub(r"\\(?:\\|[xuU](?P<digits>(?<=x)..|(?<=u)....|(?<=U).{8}))", one, text)


@settings(deadline=None)
@given(HOSTILE | FROM_THE_KERNEL)
def test_escaped_text_is_printable_and_nothing_is_lost(text: str) -> None:
    escaped = escape(text)
    assert escaped.isprintable()
    assert escaped.encode("utf-8").decode("utf-8") == escaped
    assert restored(escaped) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 漢字 🦀", "größe 漢字 🦀"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\x7f", r"a\x0ab\x09c\x7f"),
        ("\x9b31m", r"\u009b31m"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("back\\slash", r"back\\slash"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_the_spelling_is_the_usual_one(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("kworker/0:1-events", "kworker/0:1-events"),
        ("(sd-pam)", "(sd-pam)"),
        ("tmux: server", '"tmux: server"'),
        ("a[1] > 10.77.0.2.80", '"a[1] > 10.77.0.2.80"'),
        ('sa"id', '"sa\\"id"'),
        ("?no-socket", '"?no-socket"'),
        ("", '""'),
        ("two\nlines", r"two\x0alines"),
    ],
)
def test_a_name_that_could_be_taken_for_the_line_is_quoted(name: str, shown: str) -> None:
    assert escape_name(name) == shown


@settings(max_examples=40, deadline=None)
@given(ARGUMENTS)
def test_a_shell_takes_a_joined_command_apart_again(arguments: list[str]) -> None:
    joined = join_command(arguments)
    assert joined.isprintable()
    told = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' begin {joined}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    assert told.stdout.split(b"\0")[1:-1] == [os.fsencode(argument) for argument in arguments]


@settings(deadline=None)
@given(HOSTILE | FROM_THE_KERNEL)
def test_json_text_is_printable_ascii_that_a_parser_gives_back(text: str) -> None:
    written = json_text(text)
    assert written.isascii()
    assert written.isprintable()
    parsed = json.loads(written)
    assert parsed.encode("utf-8").decode("utf-8") == parsed
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert parsed == text


def test_bytes_that_are_not_utf8_can_be_read_in_json() -> None:
    parsed = json.loads(json_text(os.fsdecode(b"caf\xe9\\")))
    assert parsed == "caf\\xe9\\"
    assert codecs.escape_decode(b"caf\\xe9")[0] == b"caf\xe9"
