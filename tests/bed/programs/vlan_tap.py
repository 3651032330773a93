"""A VLAN subinterface in user space, for kernels built without one: a TAP device, tagged on its parent interface."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import selectors
import socket
import struct

from bed.programs.telling import tell

# <linux/if_tun.h>, <linux/if_packet.h>, <linux/if_ether.h>
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4
ETH_P_ALL, ETH_P_8021Q = 0x0003, 0x8100
AUXDATA = struct.Struct("=IIIHHHH")


def main() -> None:
    """Carry frames until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parent")
    parser.add_argument("name")
    parser.add_argument("vlan", type=int)
    options = parser.parse_args()
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", options.name.encode(), IFF_TAP | IFF_NO_PI))
    parent = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    parent.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    parent.bind((options.parent, ETH_P_ALL))
    tell("ready")
    carry(tap, parent, options.vlan)


def carry(tap: int, parent: socket.socket, vlan: int) -> None:
    """Tag what the TAP device sends (IEEE 802.1Q section 9.6), give it what arrives with the tag."""
    tag = struct.pack("!HH", ETH_P_8021Q, vlan)
    selector = selectors.DefaultSelector()
    selector.register(tap, selectors.EVENT_READ)
    selector.register(parent, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == tap:
                frame = os.read(tap, 65536)
                parent.send(frame[:12] + tag + frame[12:])
            elif (received := arrived(parent, vlan)) is not None:
                with contextlib.suppress(OSError):  # EIO while the device is down
                    os.write(tap, received)


def arrived(parent: socket.socket, vlan: int) -> bytes | None:
    """Return the frame that came, without the tag, which the kernel tells apart; None if it is not of the VLAN."""
    frame, told, _, sender = parent.recvmsg(65536, socket.CMSG_SPACE(AUXDATA.size))
    if sender[2] == socket.PACKET_OUTGOING:
        return None
    for level, kind, data in told:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, *_, tag, _ = AUXDATA.unpack(data)
            return frame if status & TP_STATUS_VLAN_VALID and tag & 0xFFF == vlan else None
    return None


if __name__ == "__main__":
    main()
