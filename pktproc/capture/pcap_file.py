"""The pcap format as a codec: bytes in, batches out, no reading (draft-ietf-opsawg-pcap, pcap-savefile(5))."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import numpy as np

from pktproc.capture.file_batch import MAX_RECORD_BYTES, FileBatch
from pktproc.capture.pcap_records import Layout, RecordFinder
from pktproc.errors import FormatError
from pktproc.model import Interface, PacketType
from pktproc.packets.batch import Bytes, Column, PacketBatch
from pktproc.packets.pcapng import ByteOrder

MAGIC_BYTES = 4
_MICROSECONDS, _NANOSECONDS, _MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
_FILE_HEADER_BYTES = 24
_VERSION = 2
_SWAPPED_LENGTHS_BEFORE = 3  # minor version; in older files the two lengths stand the other way round
_PACKET_TYPE_AT = 22
_NS_PER_S = 1_000_000_000
_INTERFACE = Interface("", 1, 0)  # the format tells no name
_PACKET_TYPE = np.full(256, PacketType.UNKNOWN, np.uint8)
_PACKET_TYPE[: PacketType.OUTGOING + 1] = np.arange(PacketType.OUTGOING + 1)


# The modified format of A. Kuznetzov has 8 bytes more: u32 ifindex, u16 protocol, u8 packet type, as libpcap reads it.
_LAYOUTS: dict[bytes, Layout] = {
    struct.pack(f"{order}I", magic): Layout(order, unit_ns, header_bytes)
    for order in get_args(ByteOrder)
    for magic, unit_ns, header_bytes in ((_MICROSECONDS, 1000, 16), (_NANOSECONDS, 1, 16), (_MODIFIED, 1000, 24))
}


def is_pcap(start: bytes) -> bool:
    """Tell whether a file that begins with these bytes, at least `MAGIC_BYTES`, is one."""
    return start[:MAGIC_BYTES] in _LAYOUTS


class PcapDecoder:
    """Decode a pcap file piece by piece; `position` is where in the file the next record begins."""

    def __init__(self) -> None:
        self.position = 0
        self._layout: Layout | None = None
        self._linktype = 0

    def decode(self, data: Bytes, *, is_last: bool) -> Iterator[FileBatch]:
        """Yield the packets of `data`, which begins at `position`; move that behind them.

        Raise `FormatError` behind the last packet before a defect; with `is_last` the end within a record is one.
        """
        start = 0
        if self._layout is None:
            if len(data) < _FILE_HEADER_BYTES:
                if is_last:
                    message = "the file header is cut short"
                    raise FormatError(message, offset=0)
                return
            self._layout = self._begin(data[:_FILE_HEADER_BYTES].tobytes())
            start = self.position = _FILE_HEADER_BYTES
        places, end, defect = _whole_records(data, start, self._layout)
        if len(places):
            self.position += end - start
            yield self._batch(data[start:end], places - start, self._layout)
        if defect or (is_last and end < len(data)):
            raise FormatError(defect or "the last record is cut short", offset=self.position)

    def _begin(self, header: bytes) -> Layout:
        found = _LAYOUTS[header[:MAGIC_BYTES]]
        major, minor, network = struct.unpack(f"{found.order}4xHH12xI", header)
        if major != _VERSION or minor < _SWAPPED_LENGTHS_BEFORE:
            message = f"version {major}.{minor} of the pcap format is not known"
            raise FormatError(message, offset=0)
        self._linktype = network & 0xFFFF  # above are the length of the frame check sequence and flags
        return found

    def _batch(self, data: Bytes, places: Column, layout: Layout) -> FileBatch:
        count = len(places)
        dtype = _record(layout)
        overlay = np.ndarray((len(data) - dtype.itemsize + 1,), f"V{dtype.itemsize}", data, strides=(1,))
        head = overlay[places].view(dtype)
        packet_type = np.full(count, PacketType.UNKNOWN, np.uint8)
        if layout.header_bytes > _PACKET_TYPE_AT:
            packet_type = _PACKET_TYPE[head["packet_type"]]
        batch = PacketBatch(
            data=data,
            offset=places + layout.header_bytes,
            captured_bytes=head["captured"].astype(np.int64),
            wire_bytes=head["wire"].astype(np.int64),
            time_ns=head["seconds"].astype(np.int64) * _NS_PER_S + head["fraction"].astype(np.int64) * layout.unit_ns,
            interface=np.zeros(count, np.int64),
            packet_type=packet_type,
            linktype=np.full(count, self._linktype, np.uint16),
            interfaces=(_INTERFACE,),
        )
        return FileBatch(batch, None, np.full(count, -1, np.int64), [])


@cache
def _record(layout: Layout) -> np.dtype[Any]:
    word = f"{layout.order}u4"
    fields = {"seconds": (word, 0), "fraction": (word, 4), "captured": (word, 8), "wire": (word, 12)}
    if layout.header_bytes > _PACKET_TYPE_AT:
        fields["packet_type"] = ("u1", _PACKET_TYPE_AT)
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": layout.header_bytes})


def _whole_records(data: Bytes, start: int, layout: Layout) -> tuple[Column, int, str | None]:
    """Return where the whole records of `data` begin, the end of the last one, and what is wrong behind it, if any."""
    found = RecordFinder(data, layout)
    places = found.places(start)
    lengths = np.append(np.diff(places) - layout.header_bytes, found.captured[places[-1:]])
    ends = places + lengths + layout.header_bytes
    count = int(ends.searchsorted(len(data), "right"))
    defect = None
    too_long = lengths > MAX_RECORD_BYTES
    if too_long.any() and (first := int(np.argmax(too_long))) <= count:
        count = first
        defect = f"a record claims {lengths[first]:,} bytes of packet"
    return places[:count], int(ends[count - 1]) if count else start, defect
