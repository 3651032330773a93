"""Texts with bytes that are not UTF-8, which Python carries as lone surrogates (PEP 383)."""

from __future__ import annotations

import re

_UNDECODABLE = 0xDC00
_SURROGATE = re.compile("[\ud800-\udfff]")


def spell_surrogates(text: str) -> str:
    r"""Return a text in which lone surrogates are spelled: `\xNN` for an undecodable byte, `\uNNNN` for others."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return _SURROGATE.sub(_spell, text)


def _spell(found: re.Match[str]) -> str:
    code = ord(found[0])
    byte = code - _UNDECODABLE
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else f"\\u{code:04x}"
