"""JSON lines: the contract of names, read back by a JSON parser, with tshark as the judge of flow ids."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet

from output.attributed_packets import (
    BY_CURL,
    BY_SERVER,
    CURL,
    LEFT,
    LOOPBACK,
    NO_SOCKET,
    RIGHT,
    SERVER,
    START_NS,
    Ends,
    attributed,
    ethernet,
    rows,
    write_pcap,
)
from pktproc.model import Attribution, Interface, Match, PacketType, Process, Reason
from pktproc.output.jsonlines import JsonFormat

Document = dict[str, Any]

SEGMENT = IP(src="10.77.0.1", dst="10.77.0.2") / TCP(sport=40522, dport=80, flags="PA") / b"GET"
CURL_DOCUMENT = {
    "pid": 4711,
    "name": "curl",
    "executable": "/usr/bin/curl",
    "command_line": "curl -s 'http://10.77.0.2/a b'",
    "start": "2024-05-06T07:06:40.000000001Z",
    "parent": {"pid": 4600, "name": "bash"},
}
ROOT = {"id": "0", "name": "root"}


def documents(text: str) -> list[Document]:
    assert text.isascii()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def document(
    packet: Packet, ends: Ends = (None, None), *, json_format: JsonFormat | None = None, **how: Any
) -> Document:
    block = attributed([bytes(Ether(src=LEFT, dst=RIGHT) / packet)], ends, **how)
    (only,) = documents((json_format or JsonFormat()).lines(block, rows(block)))
    return only


def values(thing: Any) -> Iterator[Any]:
    if isinstance(thing, dict):
        for value in thing.values():
            yield from values(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from values(value)
    else:
        yield thing


def test_a_packet_of_a_local_sender_has_the_names_of_the_contract() -> None:
    found = document(SEGMENT, (BY_CURL, None))
    assert re.fullmatch("1:[A-Za-z0-9+/]{27}=", found["network"].pop("community_id"))
    assert found == {
        "@timestamp": "2024-05-06T07:08:09.123456789Z",
        "network": {"bytes": 57, "type": "ipv4", "transport": "tcp", "iana_number": "6", "direction": "egress"},
        "source": {"ip": "10.77.0.1", "port": 40522},
        "destination": {"ip": "10.77.0.2", "port": 80},
        "observer": {"ingress": {"interface": {"name": "eth0"}}, "egress": {"interface": {"name": "eth0"}}},
        "process": CURL_DOCUMENT,
        "user": ROOT,
        "pktproc": {
            "source": {"process": {**CURL_DOCUMENT, "user": ROOT}, "match": "exact", "evidence": "netlink"},
        },
    }


def test_the_process_of_an_incoming_packet_is_the_receiver() -> None:
    found = document(SEGMENT, (None, BY_SERVER), packet_type=PacketType.HOST)
    assert found["network"]["direction"] == "ingress"
    assert found["observer"] == {"ingress": {"interface": {"name": "eth0"}}}
    assert found["process"] == {"pid": 4700, "name": "python3", "start": "2024-05-06T07:05:00.000000000Z"}
    assert found["user"] == {"id": "65534", "name": "nobody"}
    assert list(found["pktproc"]) == ["destination"]


def test_the_process_of_a_local_packet_is_the_sender() -> None:
    found = document(SEGMENT, (BY_CURL, BY_SERVER), interface=LOOPBACK, packet_type=PacketType.HOST)
    assert found["network"]["direction"] == "internal"
    assert found["observer"]["ingress"]["interface"]["name"] == "lo"
    assert found["process"]["pid"] == 4711
    assert found["pktproc"]["source"]["process"]["pid"] == 4711
    assert found["pktproc"]["destination"]["process"]["pid"] == 4700


def test_an_unknown_sender_is_not_replaced_by_the_receiver() -> None:
    found = document(SEGMENT, (NO_SOCKET, BY_SERVER), interface=LOOPBACK)
    assert "process" not in found
    assert "user" not in found
    assert found["pktproc"]["source"] == {"reason": "no-socket", "evidence": "netlink"}
    assert found["pktproc"]["destination"]["process"]["name"] == "python3"


def test_a_packet_between_strangers_names_nobody() -> None:
    found = document(SEGMENT, packet_type=PacketType.OTHERHOST)
    assert not {"process", "user", "container", "pktproc"} & set(found)
    assert "direction" not in found["network"]


def test_all_holders_of_a_shared_socket_are_there() -> None:
    shared = Attribution(process=CURL, match=Match.SHARED, evidence="netlink", holders=(CURL, SERVER))
    found = document(SEGMENT, (shared, None))["pktproc"]["source"]
    assert found["match"] == "shared"
    assert found["holders"] == [{"pid": 4711, "name": "curl"}, {"pid": 4700, "name": "python3"}]
    ambiguous = Attribution(reason=Reason.AMBIGUOUS, holders=(SERVER,))
    found = document(SEGMENT, (ambiguous, None))["pktproc"]["source"]
    assert found == {"reason": "ambiguous", "holders": [{"pid": 4700, "name": "python3"}]}


def test_a_container_is_named() -> None:
    process = replace(CURL, container_id="4c01db0b339c")
    found = document(SEGMENT, (replace(BY_CURL, process=process), None))
    assert found["container"] == {"id": "4c01db0b339c"}
    assert found["pktproc"]["source"]["process"]["container"] == {"id": "4c01db0b339c"}


def test_command_lines_can_be_left_out() -> None:
    secret = replace(CURL, cmdline=("curl", "--user", "me:secret"))
    block = attributed(ethernet(SEGMENT), (replace(BY_CURL, process=secret), replace(BY_CURL, process=secret)))
    assert JsonFormat().lines(block, rows(block)).count("me:secret") == 3
    without = JsonFormat(cmdline=False).lines(block, rows(block))
    assert "secret" not in without
    assert "command_line" not in without
    assert documents(without)[0]["process"]["executable"] == "/usr/bin/curl"


@pytest.mark.parametrize(
    ("packet", "network", "ports"),
    [
        (IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=5, dport=6), ("ipv4", "udp", "17"), True),
        (IPv6(src="fd77::1", dst="fd77::2") / TCP(sport=5, dport=6), ("ipv6", "tcp", "6"), True),
        (IP(src="10.77.0.1", dst="10.77.0.2") / SCTP(sport=5, dport=6), ("ipv4", "sctp", "132"), True),
        (IP(src="10.77.0.1", dst="10.77.0.2") / ICMP(id=7), ("ipv4", "icmp", "1"), False),
        (IPv6(src="fd77::1", dst="fd77::2") / ICMPv6EchoRequest(id=7), ("ipv6", "ipv6-icmp", "58"), False),
        (IP(src="10.77.0.1", dst="10.77.0.2", proto=253) / b"x", ("ipv4", None, "253"), False),
    ],
    ids=lambda value: "/".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_protocols_have_their_iana_names(packet: Packet, network: tuple[str, str | None, str], *, ports: bool) -> None:
    found = document(packet)
    kind, transport, number = network
    assert found["network"]["type"] == kind
    assert found["network"].get("transport") == transport
    assert found["network"]["iana_number"] == number
    assert (found["source"].get("port"), found["destination"].get("port")) == ((5, 6) if ports else (None, None))
    assert found["source"]["ip"] in ("10.77.0.1", "fd77::1")


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (ARP(psrc="10.77.0.1", pdst="10.77.0.2"), "arp"),
        (Ether(src=LEFT, dst=RIGHT, type=0x88CC) / b"x", "lldp"),
        (Ether(src=LEFT, dst=RIGHT, type=0x88B5) / b"x", "0x88b5"),
    ],
)
def test_frames_without_ip_have_no_ends(packet: Packet, kind: str) -> None:
    frame = packet if isinstance(packet, Ether) else Ether(src=LEFT, dst=RIGHT) / packet
    block = attributed([bytes(frame)], (Attribution(reason=Reason.NOT_IP), None))
    (found,) = documents(JsonFormat().lines(block, rows(block)))
    assert found["network"] == {"bytes": len(frame), "type": kind, "direction": "egress"}
    assert not {"source", "destination", "process"} & set(found)
    assert found["pktproc"] == {"source": {"reason": "not-ip"}}


def test_vlan_ids_are_there_and_bytes_are_those_on_the_wire() -> None:
    found = document(Dot1Q(vlan=5) / Dot1Q(vlan=7) / SEGMENT, wire_bytes=[9000])
    assert found["network"]["vlan"] == {"id": "5"}
    assert found["network"]["inner"] == {"vlan": {"id": "7"}}
    assert found["network"]["bytes"] == 9000


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=5))
def test_times_keep_every_nanosecond(times: list[int]) -> None:
    block = attributed(ethernet(*[SEGMENT] * len(times)), times_ns=times)
    for time_ns, found in zip(times, documents(JsonFormat().lines(block, rows(block))), strict=True):
        whole, fraction = found["@timestamp"].removesuffix("Z").split(".")
        assert int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()) * 10**9 + int(fraction) == time_ns
        assert len(fraction) == 9


def test_only_the_rows_asked_for_are_there_in_that_order() -> None:
    block = attributed(ethernet(*(IP(dst="10.77.0.2") / UDP(sport=at, dport=9) for at in range(1, 7))))
    found = documents(JsonFormat().lines(block, np.array([4, 0, 5])))
    assert [one["source"]["port"] for one in found] == [5, 1, 6]
    assert JsonFormat().lines(block, np.array([], np.int64)) == ""


def test_a_better_answer_replaces_the_earlier_one_of_the_same_flow() -> None:
    json_format = JsonFormat()
    answers = [NO_SOCKET, BY_CURL, BY_SERVER, None]
    names = [
        document(SEGMENT, (answer, None), json_format=json_format).get("process", {}).get("name") for answer in answers
    ]
    assert names == [None, "curl", "python3", None]


V4: dict[str, Any] = {"src": "10.77.0.1", "dst": "10.77.0.2"}
V6: dict[str, Any] = {"src": "fd77::2", "dst": "fd77::1"}


def test_flow_ids_are_those_of_wireshark(tmp_path: Path) -> None:
    # Not redirects (5): Wireshark 4.0 leaves their code out.
    icmp = [ICMP(type=kind, code=code) for kind in (0, 3, 8, 9, 10, 11, 13, 14, 15, 17, 42) for code in (0, 1)]
    nd = [
        ICMPv6ND_NS(tgt="fd77::1"),
        ICMPv6ND_NA(tgt="fd77::1"),
        ICMPv6EchoRequest(),
        ICMPv6DestUnreach(code=4) / IPv6(**V6) / UDP(),
    ]
    block = attributed(
        ethernet(
            *(IP(**V4) / packet for packet in icmp),
            *(IPv6(**V6) / packet for packet in nd),
            *(IP(**V4) / layer(sport=source, dport=53000) for layer in (TCP, UDP, SCTP) for source in (1, 60000)),
            *(IPv6(**V6) / layer(sport=source, dport=53000) for layer in (TCP, UDP, SCTP) for source in (1, 60000)),
            IP(src="10.77.0.2", dst="10.77.0.1") / TCP(sport=53000, dport=1),
            *(IP(**V4, proto=number) / bytes(40) for number in (47, 89, 253)),
        )
    )
    path = write_pcap(tmp_path / "flows.pcap", block)
    command = ["tshark", "-r", str(path), "--enable-protocol", "communityid", "-T", "fields", "-e", "communityid"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [one["network"]["community_id"] for one in documents(JsonFormat().lines(block, rows(block)))] == told
    assert len(set(told)) > 30


HOSTILE = st.binary(max_size=30).map(os.fsdecode) | st.text(st.characters(codec=None), max_size=20)


@settings(deadline=None)
@given(name=HOSTILE, argument=HOSTILE, interface=HOSTILE)
def test_hostile_strings_are_valid_json_without_nulls(name: str, argument: str, interface: str) -> None:
    process = Process(1, 1, 0, name, argument, (argument, name), None, 1, name, argument)
    end = Attribution(process=process, match=Match.SHARED, evidence="netlink", holders=(process, process))
    block = attributed(ethernet(SEGMENT), (end, end), interface=Interface(interface, 3, 0))
    text = JsonFormat().lines(block, rows(block))
    assert text.replace("\n", "").isprintable()
    (found,) = documents(text)
    assert None not in values(found)
    if name.isascii():
        assert found["process"]["name"] == name
    json.dumps(found, ensure_ascii=False).encode("utf-8", "strict")


def test_the_first_packet_of_the_block_is_at_its_own_time() -> None:
    block = attributed(ethernet(*[SEGMENT] * 3))
    found = documents(JsonFormat().lines(block, rows(block)))
    seconds = [datetime.fromisoformat(one["@timestamp"][:19]).replace(tzinfo=UTC).timestamp() for one in found]
    assert seconds == [START_NS // 10**9 + at for at in range(3)]
