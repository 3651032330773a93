"""Decoding: the headers of a whole block of packets into columns, with a fixed number of NumPy operations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pktproc.model import Protocol
from pktproc.packets.batch import Bytes, Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.fragments import FragmentTable
from pktproc.packets.icmp import ICMP_HEADER_BYTES, NO_ICMP, decode_icmp
from pktproc.packets.linktypes import ETHERTYPE_IPV4, ETHERTYPE_IPV6, NO_VLAN, Link, locate
from pktproc.packets.network import Network, decode_network, protocols_in
from pktproc.packets.transport import decode_ports, locate_transport

_NO_ROW = -1


def decode(batch: PacketBatch, fragments: FragmentTable) -> Columns:
    """Decode the headers of every packet of a block.

    Total on any bytes and any values in the batch's columns of lengths, offsets and link types: what is cut, broken or
    unknown is marked so, and no byte outside a packet's captured bytes has any influence. `fragments` is consulted
    for the ports of later fragments and learns those of first ones.
    """
    room = len(batch.data)
    start = np.minimum(np.maximum(batch.offset, 0), room)
    end = np.minimum(start + np.minimum(batch.captured_bytes, room), room)
    wire_end = start + np.maximum(batch.captured_bytes, batch.wire_bytes)
    link = locate(batch.data, start, end, batch.linktype)
    columns, ip, errors = _decode_datagrams(batch.data, link, end, wire_end)
    if ip.fragment.any():
        fragments.resolve(batch, columns, ip.identification)
    if len(errors):
        return _with_quoted(batch.data, columns, ip, errors)
    return columns


def _decode_datagrams(data: Bytes, link: Link, end: Column, wire_end: Column) -> tuple[Columns, Network, Column]:
    """Decode from the network layer upward; return also the IP headers and the rows of ICMP errors."""
    ip = decode_network(data, link.network_offset, end, wire_end, link.ethertype)
    count = len(end)
    columns = Columns(
        ethertype=link.ethertype,
        vlan=link.vlan,
        inner_vlan=link.inner_vlan,
        network=ip.network,
        protocol=ip.protocol,
        source_address=ip.source.view(np.uint8),
        destination_address=ip.destination.view(np.uint8),
        source_port=np.zeros(count, np.uint16),
        destination_port=np.zeros(count, np.uint16),
        ports_known=~ip.chain_cut,
        tcp_flags=np.zeros(count, np.uint8),
        icmp_type=np.full(count, NO_ICMP, np.int16),
        icmp_code=np.full(count, NO_ICMP, np.int16),
        fragment=ip.fragment,
        network_offset=link.network_offset,
        transport_offset=locate_transport(ip),
        payload_bytes=np.zeros(count, np.int64),
        quoted_row=np.full(count, _NO_ROW, np.int64),
        quoted=None,
    )
    present = protocols_in(ip.protocol)
    decode_ports(data, ip, columns, present)
    return columns, ip, decode_icmp(data, ip, columns, present)


def _with_quoted(data: Bytes, columns: Columns, ip: Network, errors: Column) -> Columns:
    """Decode the packets quoted by the ICMP errors in the rows `errors`; errors among the quoted are left alone."""
    ethertype = np.where(ip.protocol[errors] == Protocol.ICMPV6, ETHERTYPE_IPV6, ETHERTYPE_IPV4).astype(np.uint16)
    position = columns.transport_offset[errors] + ICMP_HEADER_BYTES
    end = ip.captured_end[errors]
    no_vlan = np.full(len(errors), NO_VLAN, np.int16)
    link = Link(ethertype, np.where(position < end, position, -1), no_vlan, no_vlan.copy())
    quoted, _, _ = _decode_datagrams(data, link, end, end)
    # A message too short to quote an IP header has no quoted packet.
    columns.quoted_row[errors] = np.where(quoted.network != 0, np.arange(len(errors)), _NO_ROW)
    return replace(columns, quoted=quoted)
