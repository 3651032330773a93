"""Lines of text: who is behind each end, and what is said of packets that are not plain TCP, UDP or echo."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot3, Ether
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
    Ends,
    attributed,
    ethernet,
    rows,
)
from pktproc.model import Attribution, Flow, Match, PacketType, Process, Reason
from pktproc.output.text import TextFormat

SEGMENT = IP(src="10.77.0.1", dst="10.77.0.2") / TCP(sport=40522, dport=48000, flags="S", seq=1711, window=64240)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def line(packet: Packet, ends: Ends = (None, None), text: TextFormat | None = None) -> str:
    """The only line of one packet, without the time."""
    block = attributed(ethernet(packet), ends)
    (only,) = (text or TextFormat(time_format="none", numeric=True)).lines(block, rows(block)).splitlines()
    return only


def below(ends: Ends, *, verbose: int) -> list[str]:
    """The lines below that of a TCP segment."""
    block = attributed(ethernet(SEGMENT), ends)
    return TextFormat(verbose=verbose).lines(block, rows(block)).splitlines()[1:]


def fragments(packet: Packet) -> list[Packet]:
    pieces: list[Packet] = fragment(packet, 1400)  # type: ignore[no-untyped-call]
    return pieces


def v4(payload: Packet) -> Packet:
    return IP(src="10.77.0.1", dst="10.77.0.2") / payload


@pytest.mark.parametrize(
    ("ends", "between"),
    [
        ((BY_CURL, None), "10.77.0.1.40522 curl[4711] > 10.77.0.2.48000: "),
        ((None, BY_SERVER), "10.77.0.1.40522 > 10.77.0.2.48000 python3[4700]: "),
        ((BY_CURL, BY_SERVER), "10.77.0.1.40522 curl[4711] > 10.77.0.2.48000 python3[4700]: "),
        ((NO_SOCKET, None), "10.77.0.1.40522 ?no-socket > 10.77.0.2.48000: "),
        (
            (Attribution(process=CURL, match=Match.SHARED, holders=(CURL, SERVER, SERVER, SERVER)), None),
            "10.77.0.1.40522 curl[4711]+3 > 10.77.0.2.48000: ",
        ),
        (
            (Attribution(reason=Reason.AMBIGUOUS, holders=(CURL, SERVER)), None),
            "10.77.0.1.40522 ?ambiguous > 10.77.0.2.48000: ",
        ),
        ((None, None), "10.77.0.1.40522 > 10.77.0.2.48000: "),
    ],
)
def test_each_end_on_this_host_is_followed_by_who_it_is(ends: Ends, between: str) -> None:
    assert line(SEGMENT, ends) == f"eth0  Out IP {between}Flags [S], seq 1711, win 64240, length 0"


def test_loopback_names_both_ends() -> None:
    packet = (
        Ether(type=0x0800) / IP(src="127.0.0.1", dst="127.0.0.1") / TCP(sport=40522, dport=8000, flags="PA") / b"ab"
    )
    block = attributed([bytes(packet)], (BY_CURL, BY_SERVER), interface=LOOPBACK, packet_type=PacketType.HOST)
    shown = TextFormat(time_format="none", numeric=True).lines(block, rows(block))
    assert shown == (
        "lo    In  IP 127.0.0.1.40522 curl[4711] > 127.0.0.1.8000 python3[4700]: "
        "Flags [P.], seq 0:2, ack 0, win 8192, length 2\n"
    )


@pytest.mark.parametrize(
    ("packet", "shown"),
    [
        (
            v4(ICMP(type=8, id=7, seq=2) / bytes(56)),
            "IP 10.77.0.1 > 10.77.0.2: ICMP echo request, id 7, seq 2, length 64",
        ),
        (
            v4(ICMP(type=3, code=3) / IP(src="10.77.0.2", dst="10.77.0.1") / UDP(sport=4444, dport=9) / b"lost"),
            (
                "IP 10.77.0.1 > 10.77.0.2: ICMP destination unreachable (type 3 code 3)"
                " for UDP 10.77.0.2.4444 > 10.77.0.1.9, length 40"
            ),
        ),
        (v4(ICMP(type=42, code=1)), "IP 10.77.0.1 > 10.77.0.2: ICMP type 42 code 1, length 8"),
        (
            IPv6(src="fd77::1", dst="fd77::2")
            / ICMPv6DestUnreach(code=4)
            / IPv6(src="fd77::2", dst="fd77::1")
            / UDP(sport=4444, dport=9),
            (
                "IP6 fd77::1 > fd77::2: ICMP6, destination unreachable (type 1 code 4)"
                " for UDP fd77::2.4444 > fd77::1.9, length 56"
            ),
        ),
        (
            IPv6(src="fd77::1", dst="ff02::1") / ICMPv6ND_NS(tgt="fd77::2"),
            "IP6 fd77::1 > ff02::1: ICMP6, neighbor solicitation, length 24",
        ),
        (IP(src="10.77.0.1", dst="10.77.0.2", proto=89) / bytes(44), "IP 10.77.0.1 > 10.77.0.2: OSPF, length 44"),
        (IP(src="10.77.0.1", dst="10.77.0.2", proto=253) / bytes(44), "IP 10.77.0.1 > 10.77.0.2: proto 253, length 44"),
        (
            IP(src="10.77.0.1", dst="10.77.0.2", proto=132) / bytes.fromhex("04571f40") / bytes(20),
            "IP 10.77.0.1.1111 > 10.77.0.2.8000: SCTP, length 12",
        ),
        (
            ARP(op=1, hwsrc=LEFT, psrc="10.77.0.1", pdst="10.77.0.2"),
            "ARP, Request who-has 10.77.0.2 tell 10.77.0.1, length 28",
        ),
        (ARP(op=3, hwsrc=LEFT), "ARP, operation 3, length 28"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_protocols_have_lines_of_their_own(packet: Packet, shown: str) -> None:
    assert line(packet) == f"eth0  Out {shown}"


@pytest.mark.parametrize("packet_type", [PacketType.UNKNOWN, 6])
def test_a_way_that_is_not_known_is_a_question_mark(packet_type: int) -> None:
    block = attributed(ethernet(SEGMENT), packet_type=packet_type)
    shown = TextFormat(time_format="none").lines(block, rows(block))
    assert shown.startswith("eth0  ?   IP 10.77.0.1.40522 > ")


def test_frames_without_ip_say_what_they_are() -> None:
    frames = [
        bytes(Ether(src=LEFT, dst=RIGHT, type=0x88CC) / bytes(50)),
        bytes(Ether(src=LEFT, dst=RIGHT, type=0x88B5) / bytes(50)),
        bytes(Dot3(src=LEFT, dst=RIGHT) / bytes.fromhex("424203") / bytes(47)),
        bytes(Ether(src=LEFT, dst=RIGHT, type=0x0800) / bytes(50)),
        bytes(Ether(src=LEFT, dst=RIGHT, type=0x0806) / bytes(6)),
    ]
    block = attributed(frames, (BY_CURL, Attribution(reason=Reason.NOT_IP)))
    shown = [shown[10:] for shown in TextFormat(time_format="none").lines(block, rows(block)).splitlines()]
    assert shown == [
        "ethertype LLDP (0x88cc), length 50, from curl[4711]",
        "ethertype 0x88b5, length 50, from curl[4711]",
        "unknown network protocol, length 64, from curl[4711]",
        "IP header cut or broken, length 50, from curl[4711]",
        "ARP, cut, length 6, from curl[4711]",
    ]


def test_fragments_are_noted_and_keep_the_ports_of_the_first() -> None:
    pieces = fragments(v4(UDP(sport=40000, dport=48000) / bytes(3000)))
    block = attributed(ethernet(*pieces), (BY_CURL, None))
    shown = TextFormat(time_format="none").lines(block, rows(block)).splitlines()
    start = "eth0  Out IP 10.77.0.1.40000 curl[4711] > 10.77.0.2.48000: UDP, length"
    assert shown == [
        f"{start} 1392 (first fragment)",
        f"{start} 1400 (later fragment)",
        f"{start} 208 (later fragment)",
    ]


def test_a_later_fragment_alone_has_no_ports() -> None:
    pieces = fragments(v4(TCP(sport=40000, dport=48000) / bytes(3000)))
    assert line(pieces[1]) == "eth0  Out IP 10.77.0.1 > 10.77.0.2: TCP, length 1400 (later fragment)"


def test_only_the_rows_asked_for_are_shown_in_that_order() -> None:
    block = attributed(ethernet(*(v4(UDP(sport=40000 + at, dport=48000)) for at in range(6))))
    text = TextFormat(time_format="none")
    shown = text.lines(block, np.array([4, 1, 5])).splitlines()
    assert [re.findall(r"0\.1\.(\d+)", one)[0] for one in shown] == ["40004", "40001", "40005"]
    assert text.lines(block, np.array([], np.int64)) == ""


def test_a_better_answer_replaces_the_earlier_one_of_the_same_flow() -> None:
    text = TextFormat(time_format="none")
    shown = []
    for end in (NO_SOCKET, BY_CURL, replace(BY_CURL, process=replace(CURL, name="wget")), None):
        block = attributed(ethernet(SEGMENT), (end, None))
        shown.append(text.lines(block, rows(block)).split(" > ")[0].removeprefix("eth0  Out IP "))
    start = "10.77.0.1.40522"
    assert shown == [f"{start} ?no-socket", f"{start} curl[4711]", f"{start} wget[4711]", start]


def test_colour_changes_nothing_but_colour() -> None:
    ends = (BY_CURL, NO_SOCKET)
    plain = line(SEGMENT, ends, TextFormat(time_format="none"))
    coloured = line(SEGMENT, ends, TextFormat(time_format="none", colour=True))
    assert ANSI.sub("", coloured) == plain
    assert re.search(r"\x1b\[1;\d\dmcurl\[4711]\x1b\[0m > ", coloured)
    assert "\x1b[2m?no-socket\x1b[0m: " in coloured
    assert coloured == line(SEGMENT, ends, TextFormat(time_format="none", colour=True))


def test_verbose_tells_all_about_the_owners_and_the_packet() -> None:
    worker = Process(
        4801, 7, 0, "nginx", "/usr/sbin/nginx", ("nginx: worker process",), 33, 4800, "nginx", "4c01db0b339c"
    )
    shared = Attribution(process=SERVER, match=Match.SHARED, evidence="netlink", holders=(SERVER, worker))
    assert below((BY_CURL, shared), verbose=1) == [
        "    source: curl[4711], exact, by netlink",
        "        exe: /usr/bin/curl",
        "        command: curl -s 'http://10.77.0.2/a b'",
        "        user: root(0), parent: bash[4600]",
        "    destination: python3[4700], shared, by netlink",
        "        user: nobody(65534)",
        "    also held by: nginx[4801]",
        "        exe: /usr/sbin/nginx",
        "        command: 'nginx: worker process'",
        "        user: www-data(33), parent: nginx[4800], container: 4c01db0b339c",
        "    Ether / IP / TCP 10.77.0.1:40522 > 10.77.0.2:48000 S",
    ]


def test_verbose_names_candidates_and_unknown_users() -> None:
    stranger = replace(SERVER, uid=4_000_000_000, name="x y")
    shown = below(
        (Attribution(reason=Reason.AMBIGUOUS, evidence="procfs", holders=(stranger,), final=False), None), verbose=1
    )
    assert shown[:3] == [
        "    source: ambiguous, by procfs, not final",
        '    candidate: "x y"[4700]',
        "        user: 4000000000",
    ]


def test_very_verbose_shows_every_field() -> None:
    shown = below((None, None), verbose=2)
    assert "    ###[ TCP ]###" in shown
    assert any(re.fullmatch(r" +window += 64240", one) for one in shown)


def test_a_long_command_line_is_cut_in_text() -> None:
    process = replace(CURL, cmdline=("curl", "x" * 100_000))
    shown = below((replace(BY_CURL, process=process), None), verbose=1)
    command = next(one for one in shown if one.startswith("        command: "))
    assert command.endswith("xxx...")
    assert len(command) < 1100


HOSTILE = st.binary(min_size=1, max_size=30).map(os.fsdecode) | st.text(min_size=1, max_size=20)


@settings(deadline=None)
@given(name=HOSTILE, argument=HOSTILE, payload=st.binary(max_size=60), port=st.sampled_from([48000, 53, 67, 123]))
def test_nothing_that_a_program_or_a_packet_holds_breaks_out_of_its_line(
    name: str, argument: str, payload: bytes, port: int
) -> None:
    process = replace(CURL, name=name, exe=argument, cmdline=(argument, name), parent_name=name, container_id=argument)
    end = Attribution(process=process, match=Match.SHARED, holders=(process, replace(process, pid=1)))
    block = attributed(ethernet(v4(UDP(sport=1, dport=port) / payload)), (end, end))
    for verbose in (1, 2):
        shown = TextFormat(verbose=verbose, dump="XX").lines(block, rows(block))
        assert shown.replace("\n", "").replace("\t", "").isprintable()
        first, *others = shown.removesuffix("\n").split("\n")
        assert first.endswith(f": UDP, length {len(payload)}")
        assert all(other.startswith(("    ", "\t0x")) for other in others)


def test_a_name_cannot_pretend_to_be_a_line() -> None:
    def forged(_flow: Flow) -> Ends:
        return replace(BY_CURL, process=replace(CURL, name="sh[1] > 10.77.0.9.22: Flags [S]")), None

    block = attributed(ethernet(SEGMENT), forged)
    shown = TextFormat(time_format="none").lines(block, rows(block))
    assert ' "sh[1] > 10.77.0.9.22: Flags [S]"[4711] > 10.77.0.2.48000: ' in shown
