"""What commands say beside their output."""

from __future__ import annotations

import click


def say(text: str) -> None:
    """Write a line to standard error, under the program's name."""
    click.echo(f"pktproc: {text}", err=True)
