"""The options that select processes, shared by the commands, and what they choose. Nothing heavy is imported here."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import click

from pktproc.errors import UsageError

if TYPE_CHECKING:
    from pktproc.attribution.process_selection import ProcessSelection

Command = TypeVar("Command", bound=Callable[..., Any])


def options_for(what: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options that select processes, by which `what` is selected."""
    options = (
        click.option("--pid", "pids", multiple=True, type=int, metavar="PID", help=f"Only {what} of this process."),
        click.option("--name", "names", multiple=True, metavar="GLOB",
                     help=f"Only {what} of processes with such a name."),
        click.option("--user", "users", multiple=True, metavar="USER", help=f"Only {what} of this user's processes."),
        click.option("--container", "containers", multiple=True, metavar="ID", help=f"Only {what} of this container."),
        click.option("--follow", is_flag=True, help="Descendants of the selected processes too."),
    )  # fmt: skip

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


with_selection_options = options_for("packets")
"""Give a command about packets the options that select processes."""


class SelectionOptions(NamedTuple):
    """Hold which processes are selected: one of each group that is not empty must fit."""

    pids: frozenset[int]
    names: tuple[str, ...]
    uids: frozenset[int]
    containers: tuple[str, ...]
    follow: bool

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for an unknown user."""
        return cls(
            pids=frozenset(chosen["pids"]),
            names=chosen["names"],
            uids=frozenset(_uid(user) for user in chosen["users"]),
            containers=chosen["containers"],
            follow=chosen["follow"],
        )

    @property
    def everything(self) -> bool:
        """Say whether nothing was selected."""
        return not (self.pids or self.names or self.uids or self.containers)

    def selection(self) -> ProcessSelection:
        """Return the selection as the join knows it."""
        from pktproc.attribution.process_selection import ProcessSelection  # noqa: PLC0415 - cachetools

        return ProcessSelection(self.pids, self.names, self.uids, self.containers, follow=self.follow)


def _uid(user: str) -> int:
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise UsageError(f"no user {user!r} on this host: give a name or a number") from None
