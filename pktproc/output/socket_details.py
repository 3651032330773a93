"""What `-e`, `-o`, `-i` and `-m` add to a socket, in the words of ss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pktproc.inventory.rows import AF_NETLINK, AF_UNIX, INET, Attributes, Row
from pktproc.inventory.states import LISTENING
from pktproc.inventory.tcp_info import OPTIONS, decode
from pktproc.model import format_address
from pktproc.output.escape import escape
from pktproc.output.names import user_name

TIMERS = {1: "on", 2: "keepalive", 3: "timewait", 4: "persist"}
"""ss's names for the timers of struct inet_diag_msg."""
MEMORY = ("r", "rb", "t", "tb", "f", "w", "o", "bl", "d")
"""ss's names for the counters of SK_MEMINFO_*."""
MEMORY_NAMES = ("rmem", "rcvbuf", "wmem", "sndbuf", "fwd_alloc", "wmem_queued", "optmem", "backlog", "drops")
"""Their names in JSON."""
_ARROWS = {0: "<->", 1: "-->", 2: "<--", 3: "---"}
_UNLIMITED_SSTHRESH = 0xFFFF
_DEFAULT_REORDERING = 3
_NO_PACING = (1 << 64) - 1
_UNKNOWN_RTT = 0xFFFFFFFF
_SINCE = {"last_data_sent": "lastsnd", "last_data_recv": "lastrcv", "last_ack_recv": "lastack"}
_SPENT = {"busy_time": "busy", "rwnd_limited": "rwnd_limited", "sndbuf_limited": "sndbuf_limited"}
_TRIPS = {"rcv_rtt": "rcv_rtt", "min_rtt": "minrtt"}


def timer(row: Row) -> str:
    """Return `timer:(keepalive,119min,0)`, or nothing if no timer runs."""
    if not row.timer:
        return ""
    name = TIMERS.get(row.timer, "unknown")
    return f"timer:({name},{_duration(row.expires_ms)},{row.retransmissions})"


def extended(row: Row, cgroups: Mapping[int, str]) -> str:
    """Return user, inode, cookie, cgroup and the like."""
    told = row.attributes
    words = [f"uid:{user_name(row.uid) or row.uid}"] if row.uid else []
    words += [f"ino:{row.inode}", f"sk:{row.cookie:x}"]
    if told.mark:
        words.append(f"fwmark:0x{told.mark:x}")
    if told.cgroup:
        words.append(f"cgroup:{escape(cgroups.get(told.cgroup, f'unreachable:{told.cgroup:x}'))}")
    if told.v6_only is not None and row.family in INET:
        words.append(f"v6only:{int(told.v6_only)}")
    if row.family == AF_NETLINK:
        words.append(f"groups=0x{told.groups or 0:08x}")
    if row.family == AF_UNIX or told.shutdown is not None:
        words.append(_ARROWS.get(told.shutdown or 0, ""))
    return " ".join([*words, *_of_unix(told), *_of_packet(told)])


def _of_unix(told: Attributes) -> Iterator[str]:
    if told.file is not None:
        inode, device = told.file
        yield f"file:{inode} dev:{device >> 20}/{device & 0xFFFFF}"
    if told.pending:
        yield f"waiting:{','.join(map(str, told.pending))}"


def _of_packet(told: Attributes) -> Iterator[str]:
    if told.fanout is not None:
        yield f"fanout:{told.fanout[0]}/{told.fanout[1]}"
    if told.rings is not None:
        yield f"rings:{told.rings[0]}/{told.rings[1]}"


def memory(told: Attributes) -> str:
    """Return `skmem:(r0,rb131072,...)`, or nothing if it is not known."""
    if told.memory is None:
        return ""
    return f"skmem:({','.join(f'{name}{value}' for name, value in zip(MEMORY, told.memory, strict=False))})"


def info(row: Row) -> str:
    """Return what TCP knows of a connection, or nothing."""
    told = row.attributes
    words = [] if told.congestion is None else [told.congestion]
    if told.upper_protocol:
        words.append(f"tcp-ulp-{escape(told.upper_protocol)}")
    for name, addresses in (("locals", told.locals), ("peers", told.peers)):
        if addresses:
            words.append(f"{name}:{','.join(map(format_address, addresses))}")
    if told.tcp_info is None or row.kind != "tcp":
        return " ".join(words)
    known = decode(told.tcp_info)
    flags = [name for bit, name in OPTIONS.items() if known.get("options", 0) & bit and name != "wscale"]
    return " ".join([*flags, *words, *_measures(known, listens=row.state == LISTENING)])


def _measures(known: Mapping[str, int], *, listens: bool) -> Iterator[str]:
    if not known:
        return
    if known["options"] & 4:
        yield f"wscale:{known['snd_wscale']},{known['rcv_wscale']}"
    if known["rto"] and not listens:
        yield f"rto:{known['rto'] / 1000:g}"
    if known["backoff"]:
        yield f"backoff:{known['backoff']}"
    if known["rtt"]:
        yield f"rtt:{known['rtt'] / 1000:g}/{known['rttvar'] / 1000:g}"
    if known["ato"]:
        yield f"ato:{known['ato'] / 1000:g}"
    names = {"snd_mss": "mss", "pmtu": "pmtu", "rcv_mss": "rcvmss", "advmss": "advmss", "snd_cwnd": "cwnd"}
    if not listens:
        yield from (f"{label}:{known[name]}" for name, label in names.items() if known[name])
    elif known["snd_cwnd"]:
        yield f"cwnd:{known['snd_cwnd']}"
    if known["snd_ssthresh"] < _UNLIMITED_SSTHRESH and not listens:
        yield f"ssthresh:{known['snd_ssthresh']}"
    yield from _counts(known)
    yield from _times(known, listens=listens)


def _counts(known: Mapping[str, int]) -> Iterator[str]:
    for name in ("bytes_sent", "bytes_retrans", "bytes_acked", "bytes_received", "segs_out", "segs_in",
                 "data_segs_out", "data_segs_in", "unacked", "lost", "dsack_dups", "reord_seen",
                 "delivered", "rcv_ooopack", "snd_wnd"):  # fmt: skip
        if known.get(name):
            yield f"{name}:{known[name]}"
    if known["sacked"] and known["state"] != LISTENING:
        yield f"sacked:{known['sacked']}"
    if known["retrans"] or known["total_retrans"]:
        yield f"retrans:{known['retrans']}/{known['total_retrans']}"
    if known.get("notsent_bytes"):
        yield f"notsent:{known['notsent_bytes']}"
    if known["reordering"] != _DEFAULT_REORDERING:
        yield f"reordering:{known['reordering']}"


def _times(known: Mapping[str, int], *, listens: bool) -> Iterator[str]:
    if listens:
        return
    if known["rtt"] and known["snd_mss"] and known["snd_cwnd"]:
        yield f"send {_rate(known['snd_cwnd'] * known['snd_mss'] * 1_000_000 / known['rtt'])}"
    yield from (f"{label}:{known[name]}" for name, label in _SINCE.items() if known[name])
    rates = {name: known.get(name, 0) for name in ("pacing_rate", "delivery_rate")}
    yield from (f"{name} {_rate(value)}" for name, value in rates.items() if value not in (0, _NO_PACING))
    if known["app_limited"]:
        yield "app_limited"
    yield from (f"{label}:{known[name] // 1000}ms" for name, label in _SPENT.items() if known.get(name))
    trips = {label: known.get(name, 0) for name, label in _TRIPS.items()}
    yield from (f"{label}:{value / 1000:g}" for label, value in trips.items() if value not in (0, _UNKNOWN_RTT))
    yield from (f"{name}:{known[name]}" for name in ("rcv_space", "rcv_ssthresh") if known[name])


def _rate(bytes_per_second: float) -> str:
    """Return a rate in bits as ss writes it: three digits, decimal units, no space."""
    bits = bytes_per_second * 8
    for factor, unit in ((1e9, "Gbps"), (1e6, "Mbps"), (1e3, "kbps")):
        if bits > factor:
            return f"{bits / factor:.3g}{unit}"
    return f"{bits:.3g}bps"


def _duration(milliseconds: int) -> str:
    """Return a time as ss writes it: `59sec`, `1min57sec`, `7.364ms`."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    text = f"{minutes}min" if minutes else ""
    if seconds:
        separator = "." if not minutes and seconds <= 9 and rest else ""
        return f"{text}{seconds}{separator}{f'{rest:03d}' if separator else ''}{'ms' if separator else 'sec'}"
    return text or f"{rest:03d}ms"
