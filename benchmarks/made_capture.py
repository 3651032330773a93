"""Large capture files of given flows, made fast: TCP over IPv4 in Ethernet, with the packet sizes of a busy server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from pktproc.packets import pcapng

Format = Literal["pcap", "pcapng"]
START_NS = 1_790_000_000_000_000_000
STEP_NS = 10_000
LOCAL = "10.77.0.1"
_LOCAL_ADDRESS = 0x0A4D0001
_REMOTE_ADDRESS = 0x0A4D8001  # 10.77.128.1 and on
_SERVICE = 443
_FIRST_PORT = 20_000
_PORTS = 40_000
# Acknowledgements, requests and full segments: 570 bytes on average.
_SIZES = (66, 418, 1514)
_SHARES = (0.5, 0.2, 0.3)
_CHUNK = 50_000

_ETHERNET_IPV4_TCP = np.dtype(
    [
        ("macs", "u1", 12), ("ethertype", ">u2"), ("version_ihl", "u1"), ("tos", "u1"), ("length", ">u2"),
        ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"), ("protocol", "u1"), ("checksum", ">u2"),
        ("source", ">u4"), ("destination", ">u4"), ("source_port", ">u2"), ("destination_port", ">u2"),
        ("seq", ">u4"), ("ack", ">u4"), ("offset", "u1"), ("flags", "u1"), ("window", ">u2"), ("rest", "u4"),
    ]
)  # fmt: skip
_PCAP_RECORD = np.dtype([("seconds", "<u4"), ("nanoseconds", "<u4"), ("captured", "<u4"), ("wire", "<u4")])
_ENHANCED = np.dtype([(name, "<u4") for name in ("type", "length", "interface", "high", "low", "captured", "wire")])


def flow_ends(flow: int) -> tuple[int, int, int, int]:
    """Return local address, local port, remote address and remote port of a flow, addresses as numbers."""
    return _LOCAL_ADDRESS, _FIRST_PORT + flow % _PORTS, _REMOTE_ADDRESS + flow // _PORTS, _SERVICE


def make_capture(path: Path, packets: int, flows: int, format: Format) -> None:  # noqa: A002 - the field's word
    """Write a file of so many packets, each of a random one of the flows and in either direction."""
    random = np.random.default_rng(77)
    payload = random.integers(0, 256, _CHUNK * 2048, np.uint8)
    with path.open("wb") as file:
        file.write(_file_header(format))
        for first in range(0, packets, _CHUNK):
            count = min(_CHUNK, packets - first)
            sizes = random.choice(_SIZES, count, p=_SHARES)
            headers = _headers(random.integers(0, flows, count), random.integers(0, 2, count).astype(bool), sizes)
            times_ns = START_NS + STEP_NS * np.arange(first, first + count)
            _write(file, format, headers, sizes=sizes, times_ns=times_ns, payload=payload)


def _file_header(format_: Format) -> bytes:
    if format_ == "pcap":
        return np.array([0xA1B23C4D, 0x00040002, 0, 0, 262144, 1], "<u4").tobytes()
    section = np.array([pcapng.BYTE_ORDER_MAGIC, 1, 0xFFFFFFFF, 0xFFFFFFFF], "<u4").tobytes()
    interface = np.array([1, 262144], "<u4").tobytes()
    options = pcapng.option(pcapng.IF_NAME, b"eth0", "<") + pcapng.option(pcapng.IF_TSRESOL, b"\x09", "<") + bytes(4)
    return pcapng.block(pcapng.SECTION_HEADER, section, "<") + pcapng.block(
        pcapng.INTERFACE_DESCRIPTION, interface + options, "<"
    )


def _headers(flow: npt.NDArray[Any], outgoing: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    local, remote = np.full(len(flow), _LOCAL_ADDRESS), _REMOTE_ADDRESS + flow // _PORTS
    local_port, remote_port = _FIRST_PORT + flow % _PORTS, np.full(len(flow), _SERVICE)
    headers = np.zeros(len(flow), _ETHERNET_IPV4_TCP)
    headers["macs"] = [2, 0x77, 0, 0, 0, 2, 2, 0x77, 0, 0, 0, 1]
    headers["ethertype"], headers["version_ihl"], headers["ttl"], headers["protocol"] = 0x0800, 0x45, 64, 6
    headers["length"] = sizes - 14
    headers["source"], headers["destination"] = np.where(outgoing, (local, remote), (remote, local))
    headers["source_port"] = np.where(outgoing, local_port, remote_port)
    headers["destination_port"] = np.where(outgoing, remote_port, local_port)
    headers["offset"], headers["flags"], headers["window"] = 0x50, 0x10, 0xFFFF
    return headers


def _write(
    file: BinaryIO,
    format_: Format,
    headers: npt.NDArray[Any],
    *,
    sizes: npt.NDArray[Any],
    times_ns: npt.NDArray[Any],
    payload: npt.NDArray[np.uint8],
) -> None:
    """Write packets: random bytes everywhere, then the heads put in at their places."""
    if format_ == "pcap":
        heads = np.zeros(len(sizes), _PCAP_RECORD)
        heads["seconds"], heads["nanoseconds"] = np.divmod(times_ns, 1_000_000_000)
        lengths = sizes + heads.itemsize
    else:
        heads = np.zeros(len(sizes), _ENHANCED)
        lengths = heads.itemsize + (sizes + 3 & ~3) + 4
        heads["type"], heads["length"] = pcapng.ENHANCED_PACKET, lengths
        heads["high"], heads["low"] = times_ns >> 32, times_ns & 0xFFFFFFFF
    heads["captured"] = heads["wire"] = sizes
    starts = np.cumsum(lengths) - lengths
    data = payload[: lengths.sum()].copy()
    _put(data, starts, heads)
    _put(data, starts + heads.itemsize, headers)
    if format_ == "pcapng":
        _put(data, starts + lengths - 4, lengths.astype("<u4"))
    file.write(data.data)


def _put(data: npt.NDArray[np.uint8], starts: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    data[starts[:, None] + np.arange(values.itemsize)] = values.view(np.uint8).reshape(len(values), -1)
