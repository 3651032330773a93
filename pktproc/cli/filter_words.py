"""A filter expression from the command line or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from pktproc.errors import UsageError


def expression(words: Sequence[str], file: TextIO | None) -> str:
    """Return the pcap-filter(7) expression of a command line's words or of a file; raise `UsageError` for both."""
    found = " ".join(words)
    if file is None:
        return found
    if found:
        raise UsageError("give the filter with -F or on the command line, not both")
    try:
        return file.read().strip()
    except UnicodeError:
        raise UsageError(f"{file.name} holds no filter: it is not text") from None
