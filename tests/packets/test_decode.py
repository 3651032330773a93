from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from packets.capture_files import DIRECTORY, FILES, pack, read
from packets.wireshark_fields import Dissected, dissect
from pktproc.model import PacketType
from pktproc.packets.batch import PacketBatch, one_packet
from pktproc.packets.columns import Columns
from pktproc.packets.decode import decode
from pktproc.packets.fragments import FragmentTable

PORTED = {6, 17, 33, 132, 136}
ICMPS = {1, 58}
QUERIES = {(1, 8), (1, 0), (1, 13), (1, 14), (58, 128), (58, 129)}

DTYPES = {
    **dict.fromkeys(("ethertype", "source_port", "destination_port"), "uint16"),
    **dict.fromkeys(("vlan", "inner_vlan", "protocol", "icmp_type", "icmp_code"), "int16"),
    **dict.fromkeys(("network", "tcp_flags", "fragment", "source_address", "destination_address"), "uint8"),
    **dict.fromkeys(("network_offset", "transport_offset", "payload_bytes", "quoted_row"), "int64"),
    "ports_known": "bool",
}


def described(batch: PacketBatch, columns: Columns, row: int) -> Dissected:
    """A row of our columns in the words of the oracle."""
    start = int(batch.offset[row])
    return Dissected(
        ethertype=int(columns.ethertype[row]),
        vlans=tuple(int(v) for v in (columns.vlan[row], columns.inner_vlan[row]) if v >= 0),
        **network_fields(columns, row, start),
        quoted=quoted_packet(columns, row, start),
    )


def quoted_packet(columns: Columns, row: int, start: int) -> Dissected | None:
    at = int(columns.quoted_row[row])
    if at < 0:
        return None
    assert columns.quoted is not None
    assert columns.quoted.quoted is None
    return Dissected(ethertype=int(columns.quoted.ethertype[at]), **network_fields(columns.quoted, at, start))


def network_fields(columns: Columns, row: int, start: int) -> dict[str, Any]:
    return {
        "network": int(columns.network[row]),
        "protocol": int(columns.protocol[row]),
        "source": columns.source_address[row].tobytes(),
        "destination": columns.destination_address[row].tobytes(),
        "fragment": int(columns.fragment[row]),
        "network_at": position(columns.network_offset[row], start),
        "transport_at": position(columns.transport_offset[row], start),
        "source_port": int(columns.source_port[row]),
        "destination_port": int(columns.destination_port[row]),
        "ports_known": bool(columns.ports_known[row]),
        "tcp_flags": int(columns.tcp_flags[row]),
        "icmp_type": int(columns.icmp_type[row]),
        "icmp_code": int(columns.icmp_code[row]),
        "payload_bytes": int(columns.payload_bytes[row]),
    }


def position(offset: int, start: int) -> int | None:
    return None if offset < 0 else int(offset) - start


def expected(theirs: Dissected) -> Dissected:
    """What the oracle says, completed by what our columns say in place of nothing."""
    shows_ports = theirs.source_port is not None or theirs.destination_port is not None
    has_ports = theirs.protocol in PORTED or (theirs.protocol, theirs.icmp_type) in QUERIES
    has_ports |= theirs.protocol in ICMPS and theirs.icmp_type < 0
    return replace(
        theirs,
        vlans=theirs.vlans[:2],
        identification=None,
        source_port=theirs.source_port or 0,
        destination_port=theirs.destination_port or 0,
        ports_known=shows_ports or not has_ports,
        quoted=None if theirs.quoted is None else replace(expected(theirs.quoted), quoted=None),
    )


def with_ports_of_first(packets: list[Dissected]) -> list[Dissected]:
    """The oracle's packets, later fragments completed from the first of the same datagram.

    It is the one before, or where there is none before, the next one.
    """
    completed = []
    for row, packet in enumerate(packets):
        order = [*packets[row::-1], *packets[row:]] if packet.fragment == 2 else []
        first = next((p for p in order if p.fragment == 1 and same_datagram(p, packet)), packet)
        known = ("protocol", "source_port", "destination_port", "icmp_type", "icmp_code")
        completed.append(replace(packet, **{name: getattr(first, name) for name in known}))
    return completed


def same_datagram(one: Dissected, other: Dissected) -> bool:
    names = ["network", "source", "destination", "identification", *(["protocol"] if other.network == 4 else [])]
    return all(getattr(one, name) == getattr(other, name) for name in names)


def without_what_oracle_lacks(ours: Dissected, theirs: Dissected) -> Dissected:
    names = ("network_at", "transport_at", "payload_bytes")
    lacking: dict[str, Any] = {name: None for name in names if getattr(theirs, name) is None}
    quoted = ours.quoted
    if quoted is not None and theirs.quoted is not None:
        quoted = replace(without_what_oracle_lacks(quoted, theirs.quoted), payload_bytes=theirs.quoted.payload_bytes)
    return replace(ours, **lacking, quoted=quoted)


@pytest.mark.parametrize("name", [name for name in FILES if name != "cut.pcap"])
def test_every_field_is_what_tshark_shows(name: str) -> None:
    batch = read(name)
    columns = decode(batch, FragmentTable())
    packets = with_ports_of_first(dissect(DIRECTORY / name))
    assert len(packets) == len(batch) > 0
    for row, theirs in enumerate(map(expected, packets)):
        ours = without_what_oracle_lacks(described(batch, columns, row), theirs)
        assert ours == theirs, f"frame {row + 1} of {name}"


def test_a_cut_packet_shows_what_it_has_and_nothing_else() -> None:
    batch = read("cut.pcap")
    columns = decode(batch, FragmentTable())
    theirs_by_row = dissect(DIRECTORY / "cut.pcap")
    whole_row = -1
    for row in reversed(range(len(batch))):
        # The last one of each run of cuts is whole.
        whole_row = row if batch.captured_bytes[row] == batch.wire_bytes[row] else whole_row
        cut, whole, theirs = (
            described(batch, columns, row),
            described(batch, columns, whole_row),
            theirs_by_row[whole_row],
        )
        captured = int(batch.captured_bytes[row])
        assert theirs.network_at is not None
        assert theirs.transport_at is not None
        ip_header_bytes = 40 if theirs.network == 6 else 24 if theirs.vlans else 20
        port_bytes = 6 if theirs.icmp_type == 128 else 2 if theirs.icmp_type >= 0 else 4
        assert cut.ethertype == (whole.ethertype if captured >= theirs.network_at else 0)
        assert cut.network == (theirs.network if captured >= theirs.network_at + ip_header_bytes else 0)
        assert cut.ports_known == (cut.network == 0 or captured >= theirs.transport_at + port_bytes)
        if cut.network:
            assert (cut.source, cut.destination) == (theirs.source, theirs.destination)
            assert (cut.transport_at is not None) == (captured > theirs.transport_at)
        if cut.network and cut.ports_known:
            known = ("protocol", "source_port", "destination_port", "icmp_type", "icmp_code", "payload_bytes")
            assert all(getattr(cut, name) == getattr(whole, name) for name in known)
        else:
            assert (cut.source_port, cut.destination_port, cut.tcp_flags) == (0, 0, 0)


def test_an_empty_block_has_empty_columns() -> None:
    columns = decode(pack([], 1), FragmentTable())
    assert len(columns) == 0
    assert columns.source_address.shape == (0, 16)
    assert columns.quoted is None


def test_one_packet_is_decoded_as_in_a_block() -> None:
    block = read("icmp.pcap")
    columns = decode(block, FragmentTable())
    for row in range(len(block)):
        alone = one_packet(block.packet(row), 1, block.interfaces[0], PacketType.HOST, 0)
        assert described(alone, decode(alone, FragmentTable()), 0) == described(block, columns, row)


def test_column_types_are_as_documented() -> None:
    batch = read("icmp.pcap")
    columns = decode(batch, FragmentTable())
    assert columns.quoted is not None
    for table in (columns, columns.quoted):
        dtypes = {name: getattr(table, name).dtype.name for name in DTYPES}
        assert dtypes == DTYPES
        assert table.source_address.shape == table.destination_address.shape == (len(table), 16)


def test_no_bytes_outside_a_packet_have_influence() -> None:
    for name in FILES:
        batch = read(name)
        packets = [batch.packet(row) for row in range(len(batch))]
        wire_bytes = batch.wire_bytes.tolist()
        views = []
        for between in (b"", b"\x00" * 70, b"\xff" * 61, bytes.fromhex("4500002800010000401100000a4d00010a4d0002") * 4):
            other = pack(packets, batch.linktype.tolist(), wire_bytes=wire_bytes, between=between)
            columns = decode(other, FragmentTable())
            views.append([described(other, columns, row) for row in range(len(other))])
        assert views[0] == views[1] == views[2] == views[3]
