"""Run within a guest: asks for its lease again, as its DHCP client does half-way through one, and says what the answer is.

udhcpc is not told to, for it asks from a connected socket and listens on another: an answer that comes before it has closed the first
is lost. Then it broadcasts three times a second apart, and gives its address up if a busy machine takes longer.

    renew.py ADDRESS SERVER MAC
"""

import os
import socket
import struct
import sys
import time

PATIENCE = 30
ASK_EVERY = 1
REQUEST, ACK, NAK = 3, 5, 6
COOKIE = b"\x63\x82\x53\x63"
MESSAGE_TYPE, END = 53, 255


def request(address, mac, number):
    """A DHCPREQUEST of a client that has the address: who it is and what it has, and nothing else (RFC 2131, 4.3.2)."""
    header = struct.pack("!BBBBIHH4s12x6s10x192x", 1, 1, 6, 0, number, 0, 0, socket.inet_aton(address), mac)
    return header + COOKIE + bytes([MESSAGE_TYPE, 1, REQUEST, 61, 7, 1]) + mac + bytes([END])


def kind(answer, number):
    """The type of a message that answers this request; nothing of any other."""
    if len(answer) < 240 or struct.unpack_from("!I", answer, 4)[0] != number:
        return None
    at = 240
    while at + 2 < len(answer) and answer[at] != END:
        if answer[at] == MESSAGE_TYPE:
            return answer[at + 2]
        at += 1 if answer[at] == 0 else 2 + answer[at + 1]
    return None


def renew(address, server, mac):
    number = int.from_bytes(os.urandom(4), "big")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = ask(request(address, mac, number), server, number)
        if answer in (ACK, NAK):
            return "ack" if answer == ACK else "nak"
    return "silence"


def ask(request, server, number):
    """Asks once. Each time from a new socket: the client may listen at this moment, for half a minute, and the latest socket hears."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # As the client's is; any other would hear nothing beside it.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        # A refusal is broadcast.
        line.bind(("", 68))
        line.settimeout(ASK_EVERY)
        try:
            line.sendto(request, (server, 67))
            return kind(line.recv(2048), number)
        except TimeoutError:
            return None


if __name__ == "__main__":
    address, server, mac = sys.argv[1:]
    print(renew(address, server, bytes.fromhex(mac.replace(":", ""))))
