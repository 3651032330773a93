"""The Python API on real traffic, also in the hands of scapy's own sniffer."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from scapy.arch.linux import L2ListenSocket
from scapy.layers.inet import UDP
from scapy.packet import Packet
from scapy.sendrecv import AsyncSniffer

import pktproc

pytestmark = pytest.mark.live


@pytest.fixture
def udp_pair() -> tuple[socket.socket, socket.socket]:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("127.0.0.1", 0))
    sender.connect(receiver.getsockname())
    return sender, receiver


def both_ends_are_ours(packet: Packet) -> None:
    for end in (packet.attribution.source, packet.attribution.destination):
        assert end is not None
        assert end.process is not None, end
        assert end.process.pid == os.getpid()
    assert packet.process_information is not None
    assert packet.process_information["proc"]["id"] == os.getpid()


def test_sniff_returns_scapy_packets_with_their_processes(udp_pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = udp_pair
    port = receiver.getsockname()[1]
    packets = pktproc.sniff(
        3,
        iface="lo",
        filter=f"udp port {port}",
        timeout=20,
        started_callback=lambda: [sender.send(b"x" * size) for size in (1, 2, 3)],
    )
    assert [len(packet[UDP].payload) for packet in packets] == [1, 2, 3]
    for packet in packets:
        assert packet[UDP].dport == port
        assert packet.sniffed_on == "lo"
        both_ends_are_ours(packet)


def test_sniff_hands_packets_to_prn_and_stops_where_told(
    udp_pair: tuple[socket.socket, socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    sender, receiver = udp_pair
    packets = pktproc.sniff(
        iface="lo",
        filter=f"udp port {receiver.getsockname()[1]}",
        timeout=20,
        store=False,
        lfilter=lambda packet: len(packet[UDP].payload) > 1,
        prn=lambda packet: str(packet.attribution),
        stop_filter=lambda packet: len(packet[UDP].payload) == 3,
        started_callback=lambda: [sender.send(b"x" * size) for size in (1, 2, 3, 4)],
    )
    assert len(packets) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.count(f"[{os.getpid()}]") == 2 for line in lines)


def test_attributor_names_the_packets_of_scapys_async_sniffer(udp_pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = udp_pair
    seen: list[Packet] = []
    with pktproc.Attributor() as attributor:

        def name(packet: Packet) -> None:
            attributor.attribute(packet)
            seen.append(packet)

        started = threading.Event()
        sniffer = AsyncSniffer(
            opened_socket=L2ListenSocket(iface="lo"),
            lfilter=lambda packet: UDP in packet and packet[UDP].dport == receiver.getsockname()[1],
            prn=name,
            count=1,
            started_callback=started.set,
        )
        sniffer.start()
        assert started.wait(20)
        sender.send(b"x")
        sniffer.join(20)
    assert seen
    both_ends_are_ours(seen[0])


def test_a_bad_filter_is_a_usage_error() -> None:
    with pytest.raises(pktproc.PktprocError, match="bad filter"):
        pktproc.sniff(1, iface="lo", filter="no such thing", timeout=1)
