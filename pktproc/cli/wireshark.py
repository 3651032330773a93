"""`pktproc wireshark`: the fields and the extcap for Wireshark, where they are and how they get into it."""

from __future__ import annotations

import sys

import click

from pktproc.cli.wireshark_folders import LUA_FILE, Folders, Installation, become_caller, installations, is_usable
from pktproc.errors import PktprocError, UsageError

_TEXT = f"""\
The fields for Wireshark and tshark are in
  {LUA_FILE}

once:      tshark -X lua_script:{LUA_FILE} -r FILE -Y 'pktproc.name == "curl"'
for good:  pktproc wireshark --install
live:      sudo pktproc sniff -w - | wireshark -k -i -
           or, once installed, one of the interfaces "with processes"; they capture as the user who runs Wireshark,
           so that takes root or the capabilities that `pktproc doctor` lists

pktproc.pid .name .match .reason .holder .evidence   either end of a packet
pktproc.src.pid ..., pktproc.dst.pid ...             its sender, its receiver
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--install", is_flag=True, help="Copy the fields and the extcap into your Wireshark's folders.")
@click.option("--uninstall", is_flag=True, help="Remove them from there.")
def command(*, install: bool, uninstall: bool) -> None:
    """Show how Wireshark shows processes, and set it up.

    The fields come from a Lua file that reads the comments of packets. With the extcap, Wireshark lists each interface
    a second time, "with processes". Both go into folders of your own; under sudo, into those of the user who called it.
    """
    if install and uninstall:
        raise UsageError("choose one of --install and --uninstall")
    lua = LUA_FILE.read_bytes()
    become_caller()
    if install:
        _install(lua)
    elif uninstall:
        _uninstall(lua)
    else:
        click.echo(_TEXT)
        for wanted in installations(Folders.told(), lua):
            click.echo(f"{wanted.path}: {_state(wanted)}")


def _state(wanted: Installation) -> str:
    try:
        present = wanted.present()
    except PktprocError:
        return "there is another file of this name"
    if present is None:
        return "not installed"
    return "installed" if present == wanted.content else "installed, from another pktproc"


def _install(lua: bytes) -> None:
    wanted = installations(Folders.told(), lua)
    outdated = [one for one in wanted if one.present() != one.content]
    for one in wanted:
        if one in outdated:
            one.write()
        click.echo(f"{one.path}: {'installed' if one in outdated else 'already installed'}")
    if not is_usable():
        message = f"you may not run {sys.executable}, so Wireshark will list no interfaces: install pktproc elsewhere"
        raise PktprocError(message)
    click.echo("Restart Wireshark to see the fields and the interfaces.")


def _uninstall(lua: bytes) -> None:
    found = 0
    for one in installations(Folders.told().joined(Folders.documented()), lua):
        try:
            present = one.present() is not None
        except PktprocError:  # somebody else's
            continue
        if present:
            one.path.unlink()
            click.echo(f"{one.path}: removed")
            found += 1
    if not found:
        click.echo("nothing to remove")
