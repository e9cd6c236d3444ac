"""Prints what kinds of frames pass an interface, each once, as JSON: [tag or null, from, to, type].  frames.py INTERFACE

The kernel takes the tag out of a frame before it hands it over, and tells it beside.
"""

import json
import socket
import struct
import sys

ALL = 3
PACKET_AUXDATA = 8
SOL_PACKET = 263
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid.
AUXDATA = struct.Struct("=IIIHHHH")
TAG_IS_VALID = 1 << 4
TAGGED = 0x8100
TAG = 0x0FFF


def hardware(address):
    return ":".join(f"{byte:02x}" for byte in address)


def main(interface):
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    frames.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    frames.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    frames.bind((interface, ALL))
    seen = set()
    while True:
        frame, beside, _, _ = frames.recvmsg(64, socket.CMSG_SPACE(AUXDATA.size))
        [kind] = struct.unpack_from("!H", frame, 12)
        tag = None
        if kind == TAGGED:
            tag, kind = struct.unpack_from("!HH", frame, 14)
        for level, what, data in beside:
            if (level, what) == (SOL_PACKET, PACKET_AUXDATA):
                status, *_, tci, _ = AUXDATA.unpack(data)
                tag = tci if status & TAG_IS_VALID else tag
        shown = (None if tag is None else tag & TAG, hardware(frame[6:12]), hardware(frame[:6]), f"{kind:04x}")
        if shown not in seen:
            seen.add(shown)
            print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
