"""Choose the engine that facts come from."""

from __future__ import annotations

from pktproc.errors import EngineError, UsageError
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.kernel.procfs_engine import ProcfsEngine

AUTO = "auto"
NAMES = (AUTO, NetlinkEngine.name, ProcfsEngine.name)

LocalEngine = NetlinkEngine | ProcfsEngine


def open_engine(name: str = AUTO, *, cmdline: bool = True) -> tuple[LocalEngine, list[str]]:
    """Return the engine of this name, or the best that works here, and notes on why it is not a better one.

    `cmdline=False` leaves command lines unread. Raise `UsageError` for a name that is not in `NAMES` and `EngineError`
    if the engine asked for does not work here.
    """
    if name not in NAMES:
        message = f"no engine {name!r}: choose from {', '.join(NAMES)}"
        raise UsageError(message)
    if name == ProcfsEngine.name:
        return ProcfsEngine(cmdline=cmdline), []
    try:
        engine = NetlinkEngine(cmdline=cmdline)
    except (EngineError, OSError) as error:
        if name == NetlinkEngine.name:
            raise
        return ProcfsEngine(cmdline=cmdline), [f"engine procfs, since netlink does not work: {error}"]
    return engine, list(engine.limits)
