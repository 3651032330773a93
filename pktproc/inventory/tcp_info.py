"""struct tcp_info (linux/tcp.h): bytes to numbers by name."""

from __future__ import annotations

import struct

_HEAD = ("state", "ca_state", "retransmits", "probes", "backoff", "options")
_WORDS = (
    *("rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets"),
    *("last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv"),
    *("pmtu", "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss", "reordering"),
    *("rcv_rtt", "rcv_space", "total_retrans"),
)
_LATER = (
    ("pacing_rate", "Q"),
    ("max_pacing_rate", "Q"),
    ("bytes_acked", "Q"),
    ("bytes_received", "Q"),
    ("segs_out", "I"),
    ("segs_in", "I"),
    ("notsent_bytes", "I"),
    ("min_rtt", "I"),
    ("data_segs_in", "I"),
    ("data_segs_out", "I"),
    ("delivery_rate", "Q"),
    ("busy_time", "Q"),
    ("rwnd_limited", "Q"),
    ("sndbuf_limited", "Q"),
    ("delivered", "I"),
    ("delivered_ce", "I"),
    ("bytes_sent", "Q"),
    ("bytes_retrans", "Q"),
    ("dsack_dups", "I"),
    ("reord_seen", "I"),
    ("rcv_ooopack", "I"),
    ("snd_wnd", "I"),
)
_FIXED = struct.Struct("=6BBB24I")
OPTIONS = {1: "ts", 2: "sack", 4: "wscale", 8: "ecn", 16: "ecnseen", 32: "fastopen"}
"""The bits of `options` (TCPI_OPT_*)."""


def decode(data: bytes) -> dict[str, int]:
    """Return the members that a kernel told, without their prefix `tcpi_`; an older kernel tells fewer.

    Times are in microseconds, those since something happened in milliseconds, rates in bytes per second. `snd_wscale`,
    `rcv_wscale` and `app_limited` are taken out of their bit fields. Nothing is returned for less than the oldest form.
    """
    if len(data) < _FIXED.size:
        return {}
    values = _FIXED.unpack_from(data)
    found = dict(zip(_HEAD, values[:6], strict=True))
    found |= {"snd_wscale": values[6] & 15, "rcv_wscale": values[6] >> 4, "app_limited": values[7] & 1}
    found |= zip(_WORDS, values[8:], strict=True)
    at = _FIXED.size
    for name, code in _LATER:
        layout = struct.Struct(f"={code}")
        if at + layout.size > len(data):
            break
        (found[name],) = layout.unpack_from(data, at)
        at += layout.size
    return found
