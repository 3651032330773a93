"""The command line: `pktproc COMMAND ...`; one module for each command, imported when it runs.

This is the only place that knows exit codes: see `EXIT_CODES`.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from pktproc.cli import garbage
from pktproc.errors import Denied, PktprocError, Unsupported, UsageError
from pktproc.version import __version__

COMMANDS = {
    "sniff": "Show live packets with the processes that send and receive them.",
    "enrich": "Name the processes behind the packets of a capture file, by saved evidence.",
    "summary": "Show who moved how many bytes, from a capture file or live.",
    "top": "Show live which processes use the network, and how much.",
    "sockets": "Show sockets with all their processes, and who is at the other end.",
    "exporter": "Serve bytes and packets of programs to Prometheus.",
    "wireshark": "Show how Wireshark shows processes, and set it up.",
    "snapshot": "Look once at the sockets and processes of this host and keep what was seen.",
    "record": "Keep looking, so that captures can be enriched afterwards.",
    "who": "Show who used an address, a port or a pid, and when.",
    "doctor": "Show what this machine permits, and the cure for what it does not.",
}
"""The commands and what `--help` says of them; the module of each has its click command as `command`."""

FAILED = 1
INTERRUPTED = 130
EXIT_CODES: dict[type[BaseException], int] = {
    UsageError: 2,
    click.UsageError: 2,
    Denied: 3,
    Unsupported: 3,
    PktprocError: FAILED,
    click.ClickException: FAILED,
    OSError: FAILED,
    click.Abort: INTERRUPTED,
    KeyboardInterrupt: INTERRUPTED,
}
"""Exit codes by error, most specific first; 0 when a command returns, also when its reader goes away."""

EPILOG = """\b
Examples:
  pktproc sniff                      every packet on every interface
  pktproc sniff -i eth0 port 443     one interface, a pcap-filter(7) expression
  pktproc sniff --json > log.json    JSON lines, Elastic Common Schema names
  pktproc sniff -- curl example.org  only the packets of one command
  pktproc doctor                     why something does not work, and the cure

\b
Exit codes: 0 fine, 1 failed, 2 wrong use, 3 missing privilege or kernel feature.
Shell completion (bash; zsh and fish likewise): eval "$(_PKTPROC_COMPLETE=bash_source pktproc)"
"""

_ERRORS = tuple(EXIT_CODES)
_NAME = "pktproc"
_COMPLETE = "_PKTPROC_COMPLETE"
_EXTCAP = "extcap"


class Commands(click.Group):
    """A group that imports a command's module only to run it; listing and completing names need none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in the order of `--help`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None for a name that is not one."""
        del ctx
        if cmd_name not in COMMANDS and cmd_name != _EXTCAP:
            return None
        command = importlib.import_module(f"{__name__}.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"{__name__}.{cmd_name}.command is not a click command")
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what Wireshark says to an extcap for a command of its own, which has no name there."""
        return super().parse_args(ctx, [_EXTCAP, *args] if _is_extcap_call(args) else args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands, as click does, from `COMMANDS`."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        """Return the commands and options that begin with `incomplete`."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [click.shell_completion.CompletionItem(name, help=COMMANDS[name]) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=_NAME)
def group() -> None:
    """Name the process behind every packet on this host."""


def _is_extcap_call(arguments: Sequence[str]) -> bool:
    return bool(arguments) and (arguments[0] == "--capture" or arguments[0].startswith("--extcap-"))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (`sys.argv` by default) and end the process with its exit code."""
    # NumPy's linear algebra, which nothing here uses, would start a thread for each processor.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    garbage.look_seldom()
    if _COMPLETE in os.environ:
        group.main(prog_name=_NAME, complete_var=_COMPLETE)
    code = _run(sys.argv[1:] if arguments is None else arguments)
    _let_go_of_output()
    garbage.look_no_more()  # nor does the interpreter have to look for it at its end
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    try:
        with group.make_context(_NAME, list(arguments)) as context:
            group.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        return 0
    except _ERRORS as error:
        _tell(error)
        return _exit_code(error)
    return 0


def _exit_code(error: BaseException) -> int:
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))


def _tell(error: BaseException) -> None:
    """Say on stderr in one line what went wrong; nothing after Ctrl-C."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)) or sys.stderr is None:
        return
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        text = error.format_message()
    elif isinstance(error, click.ClickException):
        where = getattr(error, "ctx", None)
        hint = f" (see {where.command_path} --help)" if isinstance(where, click.Context) else ""
        text = f"{_NAME}: {_one_line(error.format_message()).rstrip('.')}{hint}"
    else:
        text = f"{_NAME}: {_one_line(_words(error))}"
    try:
        click.echo(text, err=True)
    except OSError:
        return


def _words(error: BaseException) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    if error.errno == errno.ENOSPC and error.filename is None:
        return "cannot write the output: no space left on the device"
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _let_go_of_output() -> None:
    """Point stdout at nothing if it cannot be written any more, so that the interpreter's last flush stays quiet."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
