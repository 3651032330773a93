"""The type information of an object file (kernel: Documentation/bpf/btf.rst), as far as structures and enums go."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

STRUCT, ENUM = 4, 6
_TRAILER_BYTES = {1: 4, 3: 12, 13: 8, 14: 4, 15: 12, 17: 4, 19: 12}  # of each kind: once, or for each of its entries
_FOR_EACH_ENTRY = frozenset({4, 5, 6, 13, 15, 19})
_ENTRY_BYTES = {4: 12, 5: 12, 6: 8}


class Structure(NamedTuple):
    """A structure: its size, and the offset of each member in bytes."""

    size: int
    offsets: dict[str, int]


def sections(image: bytes) -> dict[str, bytes]:
    """Return the sections of a little-endian 64-bit ELF file (elf(5))."""
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", image, table + index * size) for index in range(count)]
    names = headers[names_at]
    return {
        image[names[4] + header[0] :].partition(b"\0")[0].decode(): image[header[4] : header[4] + header[5]]
        for header in headers
        if header[1] != 8
    }


def structures(btf: bytes) -> dict[str, Structure]:
    """Return the structures by name."""
    found = {}
    for name, kind, size, entries, text in _types(btf):
        if kind == STRUCT:
            members = struct.iter_unpack("<III", entries)
            found[name] = Structure(size, {text(at): offset // 8 for at, _, offset in members})
    return found


def enumerators(btf: bytes, wanted: str) -> dict[str, int]:
    """Return the names and values of an enum."""
    return next(
        {text(at): value for at, value in struct.iter_unpack("<Ii", entries)}
        for name, kind, _, entries, text in _types(btf)
        if kind == ENUM and name == wanted
    )


class _Names:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self, offset: int) -> str:
        return self._data[offset:].partition(b"\0")[0].decode()


def _types(btf: bytes) -> Iterator[tuple[str, int, int, bytes, _Names]]:
    header_bytes, types_at, types_bytes, names_at, _ = struct.unpack_from("<IIIII", btf, 4)
    names = _Names(btf[header_bytes + names_at :])
    position, end = header_bytes + types_at, header_bytes + types_at + types_bytes
    while position < end:
        name, info, size = struct.unpack_from("<III", btf, position)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        each = _ENTRY_BYTES.get(kind, _TRAILER_BYTES.get(kind, 0))
        length = each * count if kind in _FOR_EACH_ENTRY else each
        position += 12
        yield names(name), kind, size, btf[position : position + length], names
        position += length
