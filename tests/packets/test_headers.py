from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pktproc.packets.headers import IPV4, IPV6, PORTS, VERSION, gather

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(
    data=st.binary(max_size=80),
    where=st.lists(
        st.tuples(st.one_of(st.integers(-3, 90), INT64), st.one_of(st.integers(-3, 90), INT64)), max_size=12
    ),
    layout=st.sampled_from([VERSION, PORTS, IPV4, IPV6]),
)
def test_headers_are_the_bytes_at_their_positions_or_zero(
    data: bytes, where: list[tuple[int, int]], layout: np.dtype[np.void]
) -> None:
    position = np.array([p for p, _ in where], np.int64)
    end = np.array([e for _, e in where], np.int64)
    headers, ok = gather(np.frombuffer(data, np.uint8), position, end, layout)
    size = layout.itemsize
    inside = [p >= 0 and p + size <= min(e, len(data)) for p, e in where]
    assert ok.tolist() == inside
    assert headers.dtype == layout
    wanted = [data[p : p + size] if whole else bytes(size) for (p, _), whole in zip(where, inside, strict=True)]
    assert [header.tobytes() for header in headers] == wanted


def test_fields_are_big_endian() -> None:
    data = struct.pack("!HH", 0x1234, 0xABCD)
    headers, _ = gather(np.frombuffer(data, np.uint8), np.zeros(1, np.int64), np.full(1, 4, np.int64), PORTS)
    assert (int(headers["source"][0]), int(headers["destination"][0])) == (0x1234, 0xABCD)


def test_headers_can_be_written_to_without_changing_the_buffer() -> None:
    data = bytes(range(8))
    buffer = np.frombuffer(data, np.uint8)
    headers, _ = gather(buffer, np.zeros(1, np.int64), np.full(1, 8, np.int64), PORTS)
    headers["source"] = 0xFFFF
    assert buffer.tobytes() == data
