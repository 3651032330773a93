"""Bytes as tcpdump shows them below a packet's line (`-x`, `-X`, `-A`)."""

from __future__ import annotations

from collections.abc import Iterator

_ROW = 16
_HEX_WIDTH = 40  # eight groups of two bytes, each behind a space
_ASCII = bytes(code if 0x21 <= code <= 0x7E else ord(".") for code in range(256))
_KEEP_LAYOUT = bytes(code if 0x21 <= code <= 0x7E or code in b"\t\n\r " else ord(".") for code in range(256))


def hexadecimal(data: bytes, *, characters: bool) -> Iterator[str]:
    """Yield one line for each 16 bytes: offset, hexadecimal groups, and the printable ASCII if `characters`."""
    for start in range(0, len(data), _ROW):
        row = data[start : start + _ROW]
        groups = "".join(f" {row[at : at + 2].hex()}" for at in range(0, len(row), 2))
        if characters:
            yield f"\t0x{start:04x}: {groups:<{_HEX_WIDTH}}  {row.translate(_ASCII).decode('ascii')}"
        else:
            yield f"\t0x{start:04x}: {groups}"


def ascii_text(data: bytes) -> str:
    """Return the bytes as text, with points for what is neither printable ASCII nor blank, tab or line break.

    A carriage return stays away before a line feed and is a point elsewhere.
    """
    return data.translate(_KEEP_LAYOUT).replace(b"\r\n", b"\n").replace(b"\r", b".").decode("ascii")
