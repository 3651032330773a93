r"""JSON lines with the names of the Elastic Common Schema: one object a packet, nested, no nulls, ASCII only.

Strings come from untrusted programs. Everything outside printable ASCII is a `\u` escape of JSON, so that a line is
safe on a terminal too; bytes that are not UTF-8 appear as the text `\xNN` (see `pktproc.output.escape.json_text`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Attribution, Direction, Flow, Process, format_address
from pktproc.output.clock import utc, utc_seconds
from pktproc.output.community import community_id
from pktproc.output.escape import join_command, json_text
from pktproc.output.names import PORT_PROTOCOLS, network_type, transport, user_name
from pktproc.output.perflow import PerFlow
from pktproc.packets.batch import Column

_FLOWS = 8_192  # what a busy host talks on at one time; 2 to 4 KiB each, a long command line more
_SECOND = 1_000_000_000
_Key = tuple[int, int, int, int, int, int]
_DIRECTIONS: dict[int, str] = {
    Direction.INCOMING: "ingress",
    Direction.OUTGOING: "egress",
    Direction.LOOPBACK: "internal",
}


@dataclass(frozen=True, slots=True)
class _FlowJson:
    """The members of every object of a flow: serialised ends and owners, and the Community ID by ICMP code."""

    flow: Flow
    ends: str
    owners: str
    community: dict[int, str | None] = field(default_factory=dict)

    def community_id(self, icmp_code: int) -> str | None:
        if icmp_code not in self.community:
            self.community[icmp_code] = community_id(self.flow, icmp_code)
        return self.community[icmp_code]


class JsonFormat:
    """Turn attributed packets into JSON lines; `cmdline` False leaves command lines out.

    An object has `@timestamp` (RFC 3339, UTC, nanoseconds), `network`, `source`, `destination`, `observer`, and where
    known `process`, `user` and `container` of the end on this host, which is the sender's where both ends are, and
    never the receiver's in its place. `pktproc.source` and `pktproc.destination` have `process` or `reason`, `match`,
    `evidence`, and `holders` where there are several. A key whose value is not known is left out.
    """

    def __init__(self, *, cmdline: bool = True) -> None:
        self._cmdline = cmdline
        self._flows = PerFlow(self._flow_json, _FLOWS)
        self._second: int | None = None
        self._text = ""

    def lines(self, attributed: AttributedBatch, rows: Column) -> str:
        """Return the objects of the given packets (int64 row numbers), in that order, each ending with a newline."""
        batch, columns = attributed.batch, attributed.columns
        seconds, fractions = np.divmod(batch.time_ns[rows], _SECOND)
        keyed = (attributed.flow_of, batch.interface, columns.network, columns.vlan, columns.inner_vlan)
        keys = zip(*(column[rows].tolist() for column in (*keyed, columns.icmp_code)), strict=True)
        tails: dict[_Key, str] = {}
        lines = []
        varying = (seconds.tolist(), fractions.tolist(), batch.wire_bytes[rows].tolist(), keys)
        for second, fraction, size, key in zip(*varying, strict=True):
            tail = tails.get(key)
            if tail is None:
                tail = tails[key] = self._tail(attributed, key)
            if second != self._second:
                self._second, self._text = second, utc_seconds(second)
            lines.append(f'{{"@timestamp":"{self._text}.{fraction:09d}Z","network":{{"bytes":{size}{tail}\n')
        return "".join(lines)

    def _tail(self, attributed: AttributedBatch, key: _Key) -> str:
        """Return all that follows `network.bytes`."""
        flow, interface, network, vlan, inner, icmp_code = key
        made = self._flows.of(attributed, flow)
        tagged = {"id": str(vlan)} if vlan >= 0 else None
        about = {
            "type": network_type(network, made.flow.ethertype),
            "transport": transport(made.flow.protocol),
            "iana_number": str(int(made.flow.protocol)) if made.flow.protocol >= 0 else None,
            "direction": _DIRECTIONS.get(made.flow.direction),
            "community_id": made.community_id(icmp_code),
            "vlan": tagged,
            "inner": {"vlan": {"id": str(inner)}} if inner >= 0 else None,
        }
        observer = ""
        if name := attributed.batch.interfaces[interface].name:
            device = {"interface": {"name": name}}
            outgoing = made.flow.direction == Direction.OUTGOING
            observer = f',"observer":{_object({"ingress": device, "egress": device if outgoing else None})}'
        return f"{_members(about)}}}{made.ends}{observer}{made.owners}}}"

    def _flow_json(self, flow: Flow, source: Attribution | None, destination: Attribution | None) -> _FlowJson:
        ends = ""
        if flow.protocol >= 0:
            shown = flow.protocol in PORT_PROTOCOLS and flow.ports_known
            ends = _members(
                {
                    "source": _end(flow.source_address, flow.source_port if shown else None),
                    "destination": _end(flow.destination_address, flow.destination_port if shown else None),
                }
            )
        local = destination if source is None else source
        owner = None if local is None else local.process
        owners: dict[str, Any] = {} if owner is None else _owner(owner, cmdline=self._cmdline)
        answers = {"source": self._answer(source), "destination": self._answer(destination)}
        owners["pktproc"] = answers if any(answers.values()) else None
        return _FlowJson(flow, ends, _members(owners))

    def _answer(self, end: Attribution | None) -> dict[str, Any] | None:
        if end is None:
            return None
        process = None
        if end.process is not None:
            owner = _owner(end.process, cmdline=self._cmdline)
            process = owner.pop("process") | owner
        several = len(end.holders) > (0 if end.process is None else 1)
        return {
            "process": process,
            "match": end.match,
            "evidence": end.evidence,
            "reason": end.reason,
            "holders": [{"pid": holder.pid, "name": holder.name} for holder in end.holders] if several else None,
        }


def _end(address: bytes, port: int | None) -> dict[str, Any]:
    return {"ip": format_address(address), "port": port}


def _owner(process: Process, *, cmdline: bool) -> dict[str, Any]:
    """Return the members `process`, `user` and `container` for one process; what is not known is None."""
    parent = {"pid": process.ppid, "name": process.parent_name}
    user = None if process.uid is None else {"id": str(process.uid), "name": user_name(process.uid)}
    return {
        "process": {
            "pid": process.pid,
            "name": process.name,
            "executable": process.exe,
            "command_line": join_command(process.cmdline) if cmdline and process.cmdline else None,
            "start": utc(process.start_ns) if process.start_ns > 0 else None,
            "parent": None if process.ppid is None else parent,
        },
        "user": user,
        "container": None if process.container_id is None else {"id": process.container_id},
    }


def _members(values: dict[str, Any]) -> str:
    """Return members with known values as JSON, each behind a comma."""
    return "".join(f',"{key}":{_value(value)}' for key, value in values.items() if value is not None)


def _object(values: dict[str, Any]) -> str:
    return f"{{{_members(values)[1:]}}}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return _object(value)
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return json_text(value) if isinstance(value, str) else str(int(value))
