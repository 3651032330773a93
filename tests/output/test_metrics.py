"""What a Prometheus server reads, parsed as it parses it."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pktproc.bandwidth.views import Amount, Captured, Row, View
from pktproc.model import Reason
from pktproc.output.metrics import BY, ViewMetrics

NOTHING = Amount()


def row(program: str, total: Amount, *, user: str = "root", reason: Reason | None = None) -> Row:
    key = ("", "") if reason else (program, user)
    return Row(
        key=key, process=None, reason=reason, total=total, rate=NOTHING, mean=NOTHING, peak=NOTHING,
        connections=1, open_connections=1, first_ns=0, last_ns=0,
    )  # fmt: skip


class Source:
    """Views one after another, each by a scrape."""

    def __init__(self, *, max_series: int = 100) -> None:
        self.rows: Sequence[Row] = ()
        self._registry = CollectorRegistry()
        self._registry.register(ViewMetrics(self._view, max_series))

    def _view(self) -> View:
        captured = Captured(bytes=900, packets=9, duplicate_bytes=7, duplicate_packets=1, dropped_packets=2)
        return View(
            time_ns=0, elapsed_s=1, interval_s=1, rate_s=1, by=BY, layer="wire", rows=tuple(self.rows),
            groups=len(self.rows), captured=captured,
            engine="netlink",
        )  # fmt: skip

    def scrape(self, *rows: Row) -> dict[tuple[str, ...], float]:
        """Return the value of each series, by its name and the values of its labels in the order of their names."""
        self.rows = rows
        text = generate_latest(self._registry).decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def test_programs_and_reasons_have_series_of_their_own() -> None:
    sent = Amount(sent_bytes=500, received_bytes=300, sent_packets=5, received_packets=3, local_sent_bytes=20)
    told = Source().scrape(row("curl", sent), row("", Amount(passed_bytes=60), reason=Reason.FORWARDED))
    assert told["pktproc_bytes_total", "sent", "curl", "root"] == 500
    assert told["pktproc_bytes_total", "received", "curl", "root"] == 300
    assert told["pktproc_packets_total", "sent", "curl", "root"] == 5
    assert told["pktproc_local_bytes_total", "sent", "curl", "root"] == 20
    assert told["pktproc_unattributed_bytes_total", "passed", "forwarded"] == 60
    assert told["pktproc_captured_bytes_total",] == 900
    assert told["pktproc_duplicate_packets_total",] == 1
    assert told["pktproc_dropped_packets_total",] == 2
    assert told["pktproc_engine_info", "netlink"] == 1
    assert told["pktproc_open_connections",] == 2


def test_counters_never_run_backwards_when_bytes_are_named_late() -> None:
    source = Source()
    unknown = row("", Amount(received_bytes=100), reason=Reason.CLOSED)
    before = source.scrape(unknown)
    named = source.scrape(row("curl", Amount(received_bytes=100)))
    later = source.scrape(
        row("curl", Amount(received_bytes=100)), row("", Amount(received_bytes=130), reason=Reason.CLOSED)
    )
    key = ("pktproc_unattributed_bytes_total", "received", "closed")
    assert (before[key], named[key], later[key]) == (100, 100, 130)
    assert named["pktproc_bytes_total", "received", "curl", "root"] == 100


def test_a_program_that_is_gone_keeps_its_series() -> None:
    source = Source()
    source.scrape(row("curl", Amount(sent_bytes=5)))
    assert source.scrape()["pktproc_bytes_total", "sent", "curl", "root"] == 5


def test_programs_beyond_the_limit_are_told_together() -> None:
    source = Source(max_series=2)
    programs = [row(f"p{number}", Amount(sent_bytes=10 + number)) for number in range(5)]
    told = source.scrape(*programs)
    assert {key[2]: value for key, value in told.items() if key[:2] == ("pktproc_bytes_total", "sent")} == {
        "p0": 10,
        "p1": 11,
        "other": 12 + 13 + 14,
    }
    assert told["pktproc_programs_beyond_limit",] == 3
    again = source.scrape(*reversed(programs))
    assert again["pktproc_bytes_total", "sent", "other", "other"] == 39


def test_hostile_names_stay_one_label() -> None:
    name = 'a"} 9\n# HELP x\udcff\x1b[31m'
    told = Source().scrape(row(name, Amount(sent_bytes=5)))
    assert told["pktproc_bytes_total", "sent", r'a"} 9\x0a# HELP x\xff\x1b[31m', "root"] == 5
