"""Figures of one moment, written down: what a source tells in the tests of the screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pktproc.bandwidth.views import Amount, Captured, Connection, Connections, Row, View
from pktproc.model import Process, Reason, pack_address

NOW_NS = 1_790_000_000_000_000_000
S = 1_000_000_000


def process(pid: int, name: str, uid: int = 0, *cmdline: str, parent: str = "bash") -> Process:
    return Process(
        pid=pid,
        start_ticks=pid * 7,
        start_ns=NOW_NS - 3600 * S,
        name=name,
        exe=f"/usr/bin/{name}",
        cmdline=cmdline or (name,),
        uid=uid,
        ppid=811,
        parent_name=parent,
    )


def amount(sent: float, received: float, local_sent: float = 0, local_received: float = 0) -> Amount:
    return Amount(sent, received, sent // 900, received // 900, local_sent, local_received)


def row(
    key: str,
    who: Process | Reason | None,
    rate: Amount,
    total: Amount,
    *,
    connections: int = 1,
    history: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 12, 6, 3, 1),
    elapsed_s: float = 83.4,
) -> Row:
    mean = Amount(*(figure / elapsed_s for figure in total))
    return Row(
        key=(key,),
        process=who if isinstance(who, Process) else None,
        reason=who if isinstance(who, Reason) else None,
        total=total,
        rate=rate,
        mean=mean,
        peak=rate,
        connections=connections,
        open_connections=min(connections, 2),
        first_ns=NOW_NS - 60 * S,
        last_ns=NOW_NS,
        history=history,
    )


def process_row(who: Process, rate: Amount, total: Amount, connections: int = 1) -> Row:
    return row(f"{who.pid}:{who.start_ticks}", who, rate, total, connections=connections)


CURL = process(4711, "curl", 0, "curl", "-s", "-o", "/dev/null", "https://example.org/disk.iso")
FIREFOX = process(2290, "firefox", 65534, "/usr/lib/firefox/firefox", "--new-window", parent="gnome-shell")
SSHD = process(801, "sshd", 0, "sshd: root@pts/0", parent="systemd")
POSTGRES = process(977, "postgres", 65534, "/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/postgresql/15/main")

ROWS = (
    process_row(CURL, amount(41_872, 12_345_678), amount(3_871_004, 1_003_871_553)),
    process_row(FIREFOX, amount(103_993, 884_003), amount(12_004_331, 188_440_037), connections=37),
    process_row(SSHD, amount(1_304, 608), amount(99_991, 60_013)),
    process_row(POSTGRES, amount(7_919, 7_919, 7_919, 7_919), amount(700_001, 700_001, 700_001, 700_001), 3),
    row("?kernel", Reason.KERNEL, amount(120, 60), amount(10_007, 5_003)),
    row("?not-ip", Reason.NOT_IP, amount(42, 42), amount(2_003, 4_001)),
)


def view(
    rows: tuple[Row, ...] = ROWS,
    by: tuple[str, ...] = ("process",),
    notes: tuple[str, ...] = (),
    rate_s: float = 1,
    groups: int = 0,
) -> View:
    captured = sum(
        one.total.sent_bytes + one.total.received_bytes - one.total.local_received_bytes + one.total.passed_bytes
        for one in rows
    )
    return View(
        time_ns=NOW_NS,
        elapsed_s=83.4 if rows else 0,
        interval_s=1,
        rate_s=rate_s,
        by=by,
        layer="wire",
        rows=rows,
        groups=groups or len(rows),
        captured=Captured(int(captured), int(captured) // 900),
        engine="netlink",
        notes=notes,
    )


def connection(
    remote: str, port: int, rate: Amount, total: Amount, *, protocol: int = 6, state: str | None = "ESTABLISHED"
) -> Connection:
    local = "fd77::1" if ":" in remote else "10.77.0.1"
    return Connection(
        netns=4026531840,
        protocol=protocol,
        local_address=pack_address(local),
        local_port=40_000 + port % 1000,
        remote_address=pack_address(remote),
        remote_port=port,
        state=state,
        total=total,
        rate=rate,
        first_ns=NOW_NS - 75 * S,
        last_ns=NOW_NS,
    )


CONNECTIONS = (
    connection("93.184.216.34", 443, amount(41_872, 12_345_678), amount(3_871_004, 1_003_871_553)),
    connection("2606:2800:220:1:248:1893:25c8:1946", 443, amount(0, 0), amount(1_009, 7_013), state="TIME-WAIT"),
    connection("10.77.0.53", 53, amount(80, 160), amount(701, 1_409), protocol=17, state=None),
)


def renamed(rows: tuple[Row, ...], dimension: str) -> tuple[Row, ...]:
    """Return rows as a view by another dimension would have them, one for each of its texts."""
    texts: dict[str, Callable[[Process], str]] = {
        "name": lambda one: one.name,
        "user": lambda one: "root" if one.uid == 0 else "nobody",
        "container": lambda one: one.container_id or "",
        "remote": lambda one: f"192.0.2.{one.pid % 200}",
    }
    found: dict[str, Row] = {}
    for one in rows:
        key = one.key[0] if one.process is None else texts[dimension](one.process)
        found[key] = _joined(found[key], one) if key in found else replace(one, key=(key,))
    return tuple(found.values())


def _joined(one: Row, other: Row) -> Row:
    return replace(
        one,
        process=None,
        rate=Amount(*map(sum, zip(one.rate, other.rate, strict=True))),
        mean=Amount(*map(sum, zip(one.mean, other.mean, strict=True))),
        total=Amount(*map(sum, zip(one.total, other.total, strict=True))),
        connections=one.connections + other.connections,
    )


@dataclass
class FrozenSource:
    """Tell the same figures again and again, or what `tell` has after so many resets; note what was asked."""

    rows: tuple[Row, ...] = ROWS
    shown: tuple[Connection, ...] = CONNECTIONS
    notes: tuple[str, ...] = ()
    groups: int = 0
    connection_count: int = 0
    folded: int = 0
    place: str = "eth0, wlan0"
    tell: Callable[[int], tuple[Row, ...]] | None = None
    error: Exception | None = None
    above: tuple[Process, ...] = (process(811, "bash"), process(801, "sshd"), process(1, "systemd"))
    asked: list[tuple[str, ...]] = field(default_factory=list)
    opened: list[tuple[str, ...]] = field(default_factory=list)
    resets: int = 0

    def view(self, by: tuple[str, ...], rate_s: float) -> View:
        self.asked.append(by)
        if self.error is not None:
            raise self.error
        rows = self.rows if self.tell is None else self.tell(self.resets)
        return view(rows if by == ("process",) else renamed(rows, by[0]), by, self.notes, rate_s, self.groups)

    def connections(self, by: tuple[str, ...], key: tuple[str, ...], rate_s: float) -> Connections:
        del by, rate_s
        self.opened.append(key)
        return Connections(self.shown, self.connection_count or len(self.shown), self.folded)

    def ancestors(self, process: Process) -> tuple[Process, ...]:
        del process
        return self.above

    def reset(self) -> None:
        self.resets += 1
