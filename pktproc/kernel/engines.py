"""Choose the engine that facts come from."""

from __future__ import annotations

from collections.abc import Callable

from pktproc.errors import EngineError, UsageError
from pktproc.kernel.ebpf.engine import EbpfEngine
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.kernel.procfs_engine import ProcfsEngine

AUTO = "auto"
# What can be chosen for everything, and what for live captures alone, too.
NAMES = (AUTO, NetlinkEngine.name, ProcfsEngine.name)
ALL = (*NAMES, EbpfEngine.name)

LocalEngine = NetlinkEngine | ProcfsEngine


def open_engine(name: str = AUTO, *, cmdline: bool = True, witness: bool = True) -> tuple[LocalEngine, list[str]]:
    """Return the engine of this name, or the best that works here, and notes on why it is not a better one.

    `cmdline=False` leaves command lines unread; `witness=False` says that it is to look once, for which nothing needs
    to be told. Raise `UsageError` for a name that is not in `ALL` and `EngineError` if the engine asked for does not
    work here.
    """
    if name not in ALL:
        message = f"no engine {name!r}: choose from {', '.join(ALL)}"
        raise UsageError(message)
    if name != AUTO:
        engine = _ENGINES[name](cmdline=cmdline)
        return engine, list(engine.limits)
    notes: list[str] = []
    for kind, worse in ((EbpfEngine, NetlinkEngine), (NetlinkEngine, ProcfsEngine)):
        if kind is EbpfEngine and not witness:
            continue
        try:
            engine = kind(cmdline=cmdline)
        except (EngineError, OSError) as error:
            notes.append(f"engine {worse.name}, since {kind.name} does not work: {error}")
        else:
            return engine, notes + engine.limits
    return ProcfsEngine(cmdline=cmdline), notes


def witness_of(engine: LocalEngine) -> EbpfEngine | None:
    """Return an engine as the witness that it is, None if it is none."""
    return engine if isinstance(engine, EbpfEngine) else None


_ENGINES: dict[str, Callable[..., LocalEngine]] = {
    kind.name: kind for kind in (NetlinkEngine, ProcfsEngine, EbpfEngine)
}
