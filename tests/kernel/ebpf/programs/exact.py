"""Run `pktproc` so that `--engine ebpf` can be chosen; the arguments are `python -m pktproc` and its own."""

from __future__ import annotations

import sys

import click

from pktproc.cli import main
from pktproc.cli.sniff import command
from pktproc.kernel.engines import ALL

if __name__ == "__main__":
    for parameter in command.params:
        if parameter.name == "engine":
            parameter.type = click.Choice(ALL)
    sys.argv = ["pktproc", *sys.argv[4:]]
    main()
