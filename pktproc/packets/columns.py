"""What decoding finds out about the packets of a block, column by column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pktproc.packets.batch import Column


@dataclass(frozen=True, slots=True)
class Columns:
    """Hold the decoded header fields of a block; every column has one entry for each packet.

    Addresses are (n, 16) uint8, IPv4 as IPv4-mapped, all zero for packets that are not IP. Everything else is
    one-dimensional. Offsets are int64 positions in the batch's buffer, -1 where the packet does not reach that header.

    - `ethertype` uint16: the network protocol below all VLAN tags, 0 when unknown (IEEE 802.3 LLC without SNAP
      included).
    - `vlan`, `inner_vlan` int16: VLAN ids of the outermost and the next tag, -1 for none.
    - `network` uint8: 4, 6, or 0 for packets that are not IP (or whose IP header is cut or broken).
    - `protocol` int16: IANA number after all IPv6 extension headers, -1 for packets that are not IP.
    - `source_port`, `destination_port` uint16: see `pktproc.model.Flow` for ICMP echo; 0 where there is none.
    - `ports_known` bool: False where the protocol has ports (or an echo id) and the packet does not show them.
    - `tcp_flags` uint8: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128; 0 for other protocols.
    - `icmp_type`, `icmp_code` int16: of ICMP and ICMPv6, -1 elsewhere.
    - `fragment` uint8: 0 whole, 1 first fragment, 2 a later one.
    - `network_offset`, `transport_offset` int64.
    - `payload_bytes` int64: bytes after the transport header by the IP header's length (never link padding); for
      a protocol without a known header, bytes after the IP header; 0 for packets that are not IP. With segmentation
      offload an IPv4 total length (or IPv6 payload length) of 0 means the rest of the frame.
    - `quoted_row` int64: for ICMP errors the row of `quoted` that describes the packet quoted inside, else -1.
    - `quoted`: columns of the quoted packets (their own `quoted` is None), or None when there are none.
    """

    ethertype: Column
    vlan: Column
    inner_vlan: Column
    network: Column
    protocol: Column
    source_address: Column
    destination_address: Column
    source_port: Column
    destination_port: Column
    ports_known: Column
    tcp_flags: Column
    icmp_type: Column
    icmp_code: Column
    fragment: Column
    network_offset: Column
    transport_offset: Column
    payload_bytes: Column
    quoted_row: Column
    quoted: Columns | None

    def __len__(self) -> int:
        return len(self.protocol)


def unseen(count: int) -> Columns:
    """Return the columns of packets of which nothing was captured."""
    nothing, nowhere = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    addresses = np.zeros((count, 16), np.uint8)
    return Columns(
        ethertype=nothing.astype(np.uint16),
        vlan=nowhere.astype(np.int16),
        inner_vlan=nowhere.astype(np.int16),
        network=nothing.astype(np.uint8),
        protocol=nowhere.astype(np.int16),
        source_address=addresses,
        destination_address=addresses,
        source_port=nothing.astype(np.uint16),
        destination_port=nothing.astype(np.uint16),
        ports_known=np.zeros(count, bool),
        tcp_flags=nothing.astype(np.uint8),
        icmp_type=nowhere.astype(np.int16),
        icmp_code=nowhere.astype(np.int16),
        fragment=nothing.astype(np.uint8),
        network_offset=nowhere,
        transport_offset=nowhere,
        payload_bytes=nothing,
        quoted_row=nowhere,
        quoted=None,
    )
