"""Make text from untrusted programs safe to show.

Process names, paths and command lines hold whatever their program put there: terminal escape sequences, line breaks,
bidirectional overrides that reorder what the eye sees (Unicode TR 36, section 2.6), bytes that are not UTF-8 (which
Python carries as surrogates U+DC80 to U+DCFF, PEP 383).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pktproc.packets.surrogates import spell_surrogates

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
_BARE_NAME = re.compile(r"[^\s\"<>\[\]?]+")


def escape(text: str) -> str:
    r"""Return `text` with everything that is not printable spelled out.

    Control characters below U+0080 and undecodable bytes become `\xNN`, other unprintable characters `\uNNNN` or
    `\UNNNNNNNN`, and a backslash is doubled, so that no two texts look alike. Printable Unicode stays.
    `str.isprintable` decides; it refuses controls (C0, DEL, C1), format characters (bidi overrides, zero-width ones),
    separators other than the space, private use, and unassigned code points.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_spell, text))


def spell_unprintable(text: str) -> str:
    """Return `text` with unprintable characters spelled out as in `escape`, but backslashes as they are.

    For text of a program that escapes on its own account and must not be escaped twice.
    """
    if text.isprintable():
        return text
    return "".join(character if character == "\\" else _spell(character) for character in text)


def escape_name(name: str) -> str:
    """Return a process name for a line of text, in double quotes where it could be mistaken for the line itself."""
    if _BARE_NAME.fullmatch(name) and name.isprintable() and "\\" not in name:
        return name
    safe = escape(name)
    return safe if _BARE_NAME.fullmatch(safe) else '"' + safe.replace('"', '\\"') + '"'


def join_command(arguments: Iterable[str]) -> str:
    """Return a command line as one line that a shell would take apart into the same arguments.

    Plain arguments stay bare, printable ones are quoted as `shlex.quote` does, and the rest appears in the `$'...'`
    quoting of bash (ANSI-C quoting) with the spelling of `escape`.
    """
    return " ".join(map(_quote, arguments))


def json_text(text: str) -> str:
    r"""Return a text as a JSON string with its quotes, in ASCII only.

    An undecodable byte becomes the four characters `\xNN`, any other lone surrogate the six characters `\uNNNN` (a JSON
    string cannot carry either, RFC 8259 section 8.2); everything else comes back unchanged from a JSON parser. A text
    that really holds a backslash followed by `xNN` reads the same; in exchange ordinary backslashes need no second
    unescaping.
    """
    import json  # noqa: PLC0415 - tables do without

    return json.dumps(spell_surrogates(text))


def csv_cell(text: str) -> str:
    """Return a CSV cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _spell(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _quote(argument: str) -> str:
    if argument.isprintable():
        import shlex  # noqa: PLC0415 - tables do without

        return shlex.quote(argument)
    return "$'" + escape(argument).replace("'", "\\'") + "'"
