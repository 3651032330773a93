"""TCP headers in tcpdump's words, with sequence numbers counted from the start of the conversation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cachetools import LRUCache

from pktproc.model import Flow
from pktproc.output.names import tcp_flags
from pktproc.packets.batch import Column

TCP_HEADER = np.dtype(
    {
        "names": ["sequence", "acknowledgement", "window"],
        "formats": [">u4", ">u4", ">u2"],
        "offsets": [4, 8, 14],
        "itemsize": 20,
    }
)
"""The fields of a TCP header (RFC 9293, section 3.1) that a line shows."""

CUT = "[|tcp]"
"""What stands for a TCP header that the capture cut off."""

_FIN_SYN_RST = 7
_SYN = 2
_ACK = 16
_U32 = 0xFFFFFFFF
_FLAGS = tuple(f"Flags [{tcp_flags(flags)}]" for flags in range(256))
_CONVERSATIONS = (
    16_384  # like the flows of the text format; a forgotten conversation starts again from absolute numbers
)


class Conversation:
    """The first sequence numbers of both directions of a connection in `starts`, which is empty before any."""

    __slots__ = ("starts",)

    def __init__(self) -> None:
        self.starts: list[int] = []


class Conversations:
    """Find the conversation of a flow and which of its two directions the flow is."""

    def __init__(self) -> None:
        self._known: LRUCache[tuple[object, ...], Conversation] = LRUCache(maxsize=_CONVERSATIONS)

    def of(self, flow: Flow) -> tuple[Conversation, int]:
        """Return the conversation, one for both directions and all interfaces of a namespace, and the side, 0 or 1."""
        source = (flow.source_address, flow.source_port)
        destination = (flow.destination_address, flow.destination_port)
        side = int(source > destination)
        key = (flow.netns, destination, source) if side else (flow.netns, source, destination)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Conversation()
        return found, side


def tcp_texts(
    headers: Column, flags: Column, lengths: Column, conversations: Sequence[tuple[Conversation, int]]
) -> list[str]:
    """Return the text of each TCP header, in order of arrival.

    `headers` are rows of `TCP_HEADER`, `flags` uint8, `lengths` the payload bytes. As in tcpdump, the first segment
    with ACK of a conversation, and every SYN with ACK, shows its numbers as they are; later ones are counted from
    there; segments without ACK always show them as they are.
    """
    texts = []
    columns = (headers["sequence"], headers["acknowledgement"], headers["window"], flags, lengths)
    rows = zip(*(column.tolist() for column in columns), conversations, strict=True)
    for absolute, acknowledgement, window, flag, length, (conversation, side) in rows:
        sequence = absolute
        text = _FLAGS[flag]
        tail = ""
        if flag & _ACK:
            starts = conversation.starts
            if starts and not flag & _SYN:
                sequence = (absolute - starts[side]) & _U32
                tail = f", ack {(acknowledgement - starts[1 - side]) & _U32}"
            else:
                conversation.starts = [acknowledgement - 1, absolute] if side else [absolute, acknowledgement - 1]
                tail = f", ack {acknowledgement}"
        if length:
            text = f"{text}, seq {sequence}:{(sequence + length) & _U32}{tail}, win {window}, length {length}"
        elif flag & _FIN_SYN_RST:
            text = f"{text}, seq {sequence}{tail}, win {window}, length 0"
        else:
            text = f"{text}{tail}, win {window}, length 0"
        texts.append(text)
    return texts
