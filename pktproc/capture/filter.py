"""Packet filters: pcap-filter(7) expressions compiled by libpcap and attached to sockets in the kernel."""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from typing import NamedTuple

import cypcap

from pktproc.capture.interfaces import hardware_type
from pktproc.errors import CaptureError, UsageError

ANY = "any"
_SO_ATTACH_FILTER = 26
_SO_ATTACH_BPF = 50
_INSTRUCTION = struct.Struct("=HBBI")
_LINKTYPE_LINUX_SLL = 113
_SLL_HEADER_BYTES = 16
_COMPILE_BUFFER_BYTES = 1 << 16
# What libpcap asks the kernel for, which is not in the packet's bytes.
_OF_THE_KERNEL = re.compile(r"\b(vlan|inbound|outbound|ifindex)\b")

# Opcodes of classic BPF and the kernel's special offsets (linux/bpf_common.h, linux/filter.h).
_CLASS_MASK, _MODE_MASK = 0x07, 0xE0
_LD, _LDX = 0x00, 0x01
_ABS, _IND, _MSH = 0x20, 0x40, 0xA0
_LD_ABS_HALF, _JEQ, _RET = 0x28, 0x15, 0x06
_SKF_AD_OFF = 0xFFFFF000
_SKF_AD_PROTOCOL, _SKF_AD_PKTTYPE, _SKF_AD_HATYPE = 0, 4, 28
_SKF_NET_OFF = 0xFFF00000
_SLL_FIELDS = {0: _SKF_AD_PKTTYPE, 2: _SKF_AD_HATYPE, 14: _SKF_AD_PROTOCOL}

_PACKET_OUTGOING = 4  # linux/if_packet.h
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772  # linux/if_arp.h


class Instruction(NamedTuple):
    """One instruction of classic BPF (`struct sock_filter`)."""

    code: int
    jump_true: int
    jump_false: int
    k: int


DROP_ALL = (Instruction(_RET, 0, 0, 0),)


def compile_filter(expression: str, interface: str, snaplen: int) -> tuple[Instruction, ...]:
    """Return the program for an expression on an interface (or `any`), which keeps `snaplen` bytes of what matches.

    libpcap compiles for a live handle where it matters, so that `vlan` looks where Linux puts the tag. Raise
    `UsageError` for a bad expression.
    """
    handle = _handle(expression, interface, snaplen)
    try:
        program = handle.compile(expression, True, cypcap.NETMASK_UNKNOWN)
        cooked = int(handle.datalink()) == _LINKTYPE_LINUX_SLL
    except cypcap.Error as error:
        told = error.args[1] if len(error.args) > 1 else error
        message = f"bad filter {expression!r}: {told}; pcap-filter(7) has the syntax"
        raise UsageError(message) from error
    except UnicodeError as error:
        message = f"bad filter {expression!r}: not UTF-8"
        raise UsageError(message) from error
    finally:
        handle.close()
    instructions = tuple(Instruction(*instruction) for instruction in program)
    # libpcap reads interfaces whose link headers it does not know cooked, as `any`; the tap has no cooked headers.
    return relative_to_network(instructions) if cooked else instructions


def _handle(expression: str, interface: str, snaplen: int) -> cypcap.Pcap:
    linktype = _LINKTYPE_LINUX_SLL if interface == ANY else int(cypcap.DatalinkType.EN10MB)
    is_known = interface == ANY or hardware_type(interface) in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
    if is_known and not _OF_THE_KERNEL.search(expression):
        return cypcap.open_dead(linktype, snaplen)  # a live one has a ring of its own, which takes 50 ms
    try:
        handle = cypcap.create(interface)
        handle.set_snaplen(snaplen)
        handle.set_buffer_size(_COMPILE_BUFFER_BYTES)
        handle.activate()
    except cypcap.Error:
        return cypcap.open_dead(linktype, snaplen)
    return handle


def relative_to_network(program: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """Return a program compiled for Linux cooked headers so that it fits frames of any link type.

    On `any`, frames carry the headers of their own links. What lies behind the cooked header is addressed from the
    network header (SKF_NET_OFF); the cooked header's fields become the kernel's ancillary data. Raise `UsageError` for
    expressions about other link-layer fields.
    """
    return tuple(_relative(instruction) for instruction in program)


def _relative(instruction: Instruction) -> Instruction:
    mode = instruction.code & _MODE_MASK
    loads = (instruction.code & _CLASS_MASK == _LD and mode in (_ABS, _IND)) or (
        instruction.code & _CLASS_MASK == _LDX and mode == _MSH
    )
    if not loads or instruction.k >= _SKF_NET_OFF:
        return instruction
    if instruction.k >= _SLL_HEADER_BYTES:
        return instruction._replace(k=_SKF_NET_OFF + instruction.k - _SLL_HEADER_BYTES)
    if instruction.k in _SLL_FIELDS and instruction.code == _LD_ABS_HALF:
        return instruction._replace(k=_SKF_AD_OFF + _SLL_FIELDS[instruction.k])
    message = "a filter on link-layer headers needs an interface: say -i IFACE instead of any"
    raise UsageError(message)


def loopback_once(program: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """Return a program that also drops the outgoing copy of loopback packets, which the tap sees coming in as well."""
    head = (
        Instruction(_LD_ABS_HALF, 0, 0, _SKF_AD_OFF + _SKF_AD_PKTTYPE),
        Instruction(_JEQ, 0, 3, _PACKET_OUTGOING),
        Instruction(_LD_ABS_HALF, 0, 0, _SKF_AD_OFF + _SKF_AD_HATYPE),
        Instruction(_JEQ, 0, 1, _ARPHRD_LOOPBACK),
        Instruction(_RET, 0, 0, 0),
    )
    return (*head, *program)


def one_way(program: tuple[Instruction, ...], way: str) -> tuple[Instruction, ...]:
    """Return a program that keeps packets of one way alone: `in` or `out`; `inout` changes nothing."""
    if way == "inout":
        return program
    unwanted, wanted = (0, 1) if way == "in" else (1, 0)
    head = (
        Instruction(_LD_ABS_HALF, 0, 0, _SKF_AD_OFF + _SKF_AD_PKTTYPE),
        Instruction(_JEQ, unwanted, wanted, _PACKET_OUTGOING),
        Instruction(_RET, 0, 0, 0),
    )
    return (*head, *program)


def keep_all(snaplen: int) -> tuple[Instruction, ...]:
    """Return the program that keeps `snaplen` bytes of every packet."""
    return (Instruction(_RET, 0, 0, snaplen),)


def attach(target: socket.socket, program: tuple[Instruction, ...]) -> None:
    """Attach a program to a socket (SO_ATTACH_FILTER, socket(7)); raise `CaptureError` if the kernel refuses it."""
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*instruction) for instruction in program))
    fprog = struct.pack("HP", len(program), ctypes.addressof(code))
    try:
        target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    except OSError as error:
        message = f"the kernel refused the packet filter: {error.strerror}"
        raise CaptureError(message) from error


def attach_loaded(target: socket.socket, descriptor: int) -> None:
    """Attach an eBPF program instead (SO_ATTACH_BPF, socket(7)); raise `CaptureError` if the kernel refuses it."""
    try:
        target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, descriptor)
    except OSError as error:
        message = f"the kernel refused the program that counts: {error.strerror}"
        raise CaptureError(message) from error
