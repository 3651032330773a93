"""`pktproc sockets`: the sockets of this host with all their processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pktproc.cli.selection_options import options_for
from pktproc.cli.sockets_options import EPILOG, FAMILIES, SocketsOptions, is_signal, with_table_options

_KILL = "--kill"
_DEFAULT_SIGNAL = "TERM"


class _Command(click.Command):
    """A command whose `--kill` takes a signal, if one stands behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join `--kill` and the signal; give it one if none is there."""
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == _KILL:
                word = f"{_KILL}={rest.pop(0) if rest and is_signal(rest[0]) else _DEFAULT_SIGNAL}"
            joined.append(word)
        return super().parse_args(ctx, joined)


@click.command(cls=_Command, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@with_table_options
@click.option("-f", "--family", type=click.Choice(list(FAMILIES)), help="Sockets of a family, as ss has them.")
@click.option("-4", "--ipv4", "v4", is_flag=True, help="IPv4 alone.")
@click.option("-6", "--ipv6", "v6", is_flag=True, help="IPv6 alone.")
@click.option("-l", "--listening", is_flag=True, help="What listens or is bound without being connected.")
@click.option("-a", "--all", "all_states", is_flag=True, help="Sockets in every state.")
@click.option("-n", "--numeric", is_flag=True, help="Ports as numbers, not as names of services.")
@click.option("-r", "--resolve", is_flag=True, help="Addresses as host names; this may ask the network.")
@click.option("-p", "--processes", is_flag=True, help="Changes nothing: processes are always shown.")
@click.option("-e", "--extended", is_flag=True, help="User, inode, cookie, cgroup, mark and the like.")
@click.option("-o", "--options", "timers", is_flag=True, help="Timers.")
@click.option("-i", "--info", is_flag=True, help="What TCP knows: rtt, window, retransmissions, rates.")
@click.option("-m", "--memory", is_flag=True, help="Memory.")
@click.option("-s", "--summary", is_flag=True, help="Numbers of sockets by kind and state, and who holds most.")
@click.option("-H", "--no-header", is_flag=True, help="No line of titles.")
@click.option("-O", "--oneline", "one_line", is_flag=True, help="Details in the line of the socket.")
@options_for("sockets")
@click.option("-N", "--netns", multiple=True, metavar="NAME",
              help="Sockets of this network namespace (name, path or pid), or all.")  # fmt: skip
@click.option("--peers", is_flag=True, help="Who is at the other end, where that is on this host.")
@click.option("--format", type=click.Choice(["table", "json", "csv"]), default="table", help="Form of the listing.")
@click.option("--no-cmdline", is_flag=True, help="Leave command lines, which can hold secrets, out of JSON.")
@click.option("--store", metavar="STORE",
              help="Name the last owner of sockets that nobody holds any more, as pktproc record saw it.")  # fmt: skip
@click.option("--watch", "watch_s", type=click.FloatRange(0.1, 86400), metavar="S",
              help="Look again every S seconds, until Ctrl-C; what changed stands out.")  # fmt: skip
@click.option("-E", "--events", is_flag=True, help="Sockets as they open and close, until Ctrl-C.")
@click.option("--engine", type=click.Choice(["auto", "ebpf", "netlink"]), default="auto",
              help="Who tells --events and --watch of short lives: the kernel (ebpf), or looks.")  # fmt: skip
@click.option(_KILL, metavar="[SIGNAL]", help="Send SIGNAL [TERM] to those who hold the sockets.")
@click.option("-K", "--close", is_flag=True, help="Have the kernel close the sockets, as ss -K.")
@click.option("--yes", is_flag=True, help="Do not ask before --kill and --close.")
@click.argument("words", nargs=-1, metavar="[WORD]...")
def command(words: Sequence[str], **chosen: Any) -> None:
    """Show sockets with all their processes: who holds a port, what a process is connected to, who is at the other end.

    With --pid, --name, --user and --container these are sockets of all network namespaces, otherwise of the own one.
    """
    options = SocketsOptions.of(words, chosen)
    from pktproc.cli import sockets_session  # noqa: PLC0415 - what --help can do without

    sockets_session.run(options)
