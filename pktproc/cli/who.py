"""`pktproc who`: who used an address, a port or a pid, and when, by saved evidence."""

from __future__ import annotations

import re

import click

from pktproc.cli.moments import Moment
from pktproc.errors import UsageError
from pktproc.model import pack_address
from pktproc.snapshots.wanted import Wanted

_BRACKETED = re.compile(r"\[([^\]]+)\](?::(\d{1,9}))?", re.ASCII)
_WITH_PORT = re.compile(r"([\d.]+):(\d{1,9})", re.ASCII)
_NUMBER = re.compile(r"(pid:|:|)(\d{1,9})", re.ASCII)
_MAX_PORT = 65535

EPILOG = """\b
WHAT is one of:
  10.0.0.5  fd00::1                  an address, at either end
  10.0.0.5:443  [fd00::1]:443        an address with a port, at either end
  :443                               a port, at either end
  pid:4711                           a process
  4711                               a number alone: both, as a port and as a pid

\b
TIME is local, or with a zone: '2026-11-21 03:12', 2026-11-21T03:12:30.5Z, 03:12 (today), now-5m,
1795231920 (seconds since the epoch).

\b
Examples:
  pktproc who -s day.db 10.0.0.5:443 --at '2026-11-21 03:12'
  pktproc who -s day.db :53 --from now-1h
  pktproc who -s web.db -s database.db 10.0.0.7:5432 --json

A time after > was the last one seen when recording ended, one after < the first when it began: the connection
was probably there for longer. Where ? stands for the time FROM, no look found it and only its end was heard, so that
its process is not known; the listener that it may have come in through is shown, too.
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-s", "--store", "stores", multiple=True, required=True, metavar="STORE",
              help="Evidence saved by pktproc record or snapshot; can be repeated.")  # fmt: skip
@click.option("--at", "at_ns", type=Moment(), metavar="TIME", help="Only what was there at this time.")
@click.option("--from", "from_ns", type=Moment(), metavar="TIME", help="Only what was there at this time or later.")
@click.option("--to", "to_ns", type=Moment(), metavar="TIME", help="Only what was there at this time or earlier.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of tables.")
@click.argument("what", metavar="WHAT")
def command(
    *,
    stores: tuple[str, ...],
    at_ns: int | None,
    from_ns: int | None,
    to_ns: int | None,
    as_json: bool,
    what: str,
) -> None:
    """Show the connections of an address, a port or a process in saved evidence, with their times and processes."""
    wanted = parse_wanted(what)
    if at_ns is not None:
        if from_ns is not None or to_ns is not None:
            raise UsageError("give --at, or --from and --to, not both")
        from_ns = to_ns = at_ns
    if from_ns is not None and to_ns is not None and from_ns > to_ns:
        raise UsageError("--from is later than --to")
    from pktproc.cli import who_session  # noqa: PLC0415 - sqlite3, which --help can do without

    who_session.run(stores, wanted, (from_ns, to_ns), what=what, as_json=as_json)


def parse_wanted(text: str) -> Wanted:
    """Return what the words of the user mean; raise `UsageError` if they mean nothing."""
    if matched := _NUMBER.fullmatch(text):
        number = int(matched[2])
        if not number:
            raise UsageError(f"{text!r}: nothing has number 0, give a port or pid from 1 on")
        if matched[1] == ":":
            return Wanted(port=_port(matched[2]))
        return Wanted(port=None if matched[1] or number > _MAX_PORT else number, pid=number)
    matched = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    address, port = (matched[1], matched[2]) if matched else (text, None)
    try:
        packed = pack_address(address.partition("%")[0])
    except ValueError:
        raise UsageError(
            f"{text!r} is not an address, ADDRESS:PORT, [IPV6]:PORT, :PORT, a number or pid:NUMBER"
        ) from None
    return Wanted(address=packed, port=None if port is None else _port(port))


def _port(text: str) -> int:
    if not 1 <= int(text) <= _MAX_PORT:
        raise UsageError(f"no port {text}: give one from 1 to {_MAX_PORT}")
    return int(text)
