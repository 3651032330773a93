"""The errors that callers of pktproc can meet: one tree, rooted at `PktprocError`."""

from __future__ import annotations


class PktprocError(Exception):
    """Base of every error that pktproc raises on purpose; its message says what, where and the cure."""


class UsageError(PktprocError):
    """The caller asked for something that makes no sense: an unknown interface, a bad filter."""


class FormatError(PktprocError):
    """A file or message does not follow its format.

    `path` is the file (None for bytes without one) and `offset` the byte at which reading stopped.
    """

    def __init__(self, message: str, *, path: str | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset


class EngineError(PktprocError):
    """An engine could not answer."""


class Unsupported(EngineError):
    """The kernel lacks a feature that was asked for by name."""


class Denied(EngineError):
    """The kernel has the feature and refuses it to this user; the message names the missing privilege."""


class CaptureError(PktprocError):
    """Packets cannot be captured, or can no longer be: the interface went away, the ring failed."""


class StoreError(PktprocError):
    """A snapshot store cannot be read or written."""
