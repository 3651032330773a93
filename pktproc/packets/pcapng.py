"""What is fixed in pcapng files: block types, option codes and layouts (draft-ietf-opsawg-pcapng).

Every number of a section is in the section's own byte order, which the prefix of `struct` formats, `<` or `>`, names.
Blocks and options are padded to 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

from pktproc.errors import FormatError

ByteOrder = Literal["<", ">"]

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
OBSOLETE_PACKET = 2
SIMPLE_PACKET = 3
NAME_RESOLUTION = 4
INTERFACE_STATISTICS = 5
ENHANCED_PACKET = 6
DECRYPTION_SECRETS = 10
DARWIN_PROCESS = 0x80000001
"""Apple's process event block: u32 pid, then options; packets refer to it by its position in the section."""

BYTE_ORDER_MAGIC = 0x1A2B3C4D
UNKNOWN_SECTION_BYTES = -1

# Options of every block (section 3.5).
OPT_END = 0
OPT_COMMENT = 1
# Section header, section 4.1.
SHB_HARDWARE, SHB_OS, SHB_USERAPPL = 2, 3, 4
# Interface description, section 4.2.
IF_NAME, IF_DESCRIPTION, IF_TSRESOL, IF_FILTER, IF_OS, IF_TSOFFSET = 2, 3, 9, 11, 12, 14
# Enhanced packet, section 4.3; the last two are Apple's.
EPB_FLAGS, EPB_PROCESSID_THREADID = 2, 8
EPB_DARWIN_PROCESS, EPB_DARWIN_EFFECTIVE_PROCESS = 0x8001, 0x8003
# Interface statistics, section 4.6.
ISB_STARTTIME, ISB_ENDTIME, ISB_IFRECV, ISB_IFDROP = 2, 3, 4, 5
# Apple's process event block.
DARWIN_PROCESS_NAME, DARWIN_PROCESS_UUID = 2, 4

BLOCK_HEAD_BYTES = 8
BLOCK_TAIL_BYTES = 4
OPTION_HEAD_BYTES = 4
ENHANCED_PACKET_BYTES = 20
"""Fixed part of an enhanced packet block behind its head: interface, time high and low, captured and wire length."""


def padded(length: int) -> int:
    """Return a length rounded up to whole 32-bit words."""
    return -(-length // 4) * 4


def option(code: int, value: bytes, order: ByteOrder) -> bytes:
    """Return an encoded option (section 3.5), at most 65,535 bytes of value."""
    return struct.pack(f"{order}HH", code, len(value)) + value.ljust(padded(len(value)), b"\0")


def block(kind: int, body: bytes, order: ByteOrder) -> bytes:
    """Return a whole block (section 3.1) around a body that is a multiple of 4 bytes long."""
    length = BLOCK_HEAD_BYTES + len(body) + BLOCK_TAIL_BYTES
    return struct.pack(f"{order}II", kind, length) + body + struct.pack(f"{order}I", length)


def read_options(data: bytes, order: ByteOrder) -> Iterator[tuple[int, bytes]]:
    """Yield code and value of each option up to opt_endofopt or the end; raise `FormatError` at one that is cut."""
    at = 0
    while at < len(data):
        if at + OPTION_HEAD_BYTES > len(data):
            raise FormatError("the head of an option is cut short", offset=at)
        code, length = struct.unpack_from(f"{order}HH", data, at)
        if code == OPT_END:
            return
        end = at + OPTION_HEAD_BYTES + length
        if end > len(data):
            message = f"option {code} claims {length:,} bytes"
            raise FormatError(message, offset=at)
        yield code, data[at + OPTION_HEAD_BYTES : end]
        at = padded(end)
