"""Runs commands on a host with its own kernel: a program that serves there, and one here that stands for the command there.

    remote.py serve ADDRESS PORT             on that host
    remote.py run ADDRESS PORT COMMAND…      here: input, output, signals and status are the command's, and so is what it tells systemd

Whoever kills the one here kills the command there. It is for tests: whoever reaches the port may run what he likes.
Nothing but Python's own library is used, so that it starts fast under emulation.
"""

import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

CHUNK = 65536
# A child that outlives its parent may hold its output open.
LAST_WORDS_WITHIN = 2
HEAD = struct.Struct("!cI")
INPUT, SIGNAL, OUTPUT, ERRORS, NOTICE, STATUS = b"i", b"s", b"o", b"e", b"n", b"x"


class Line:
    """A connection that carries messages of several kinds."""

    def __init__(self, connection):
        self.connection, self.file, self.lock = connection, connection.makefile("rb"), threading.Lock()

    def send(self, kind, data=b""):
        with self.lock:
            self.connection.sendall(HEAD.pack(kind, len(data)) + data)

    def receive(self):
        """The next message, or nothing where the other end is gone."""
        try:
            head = self.file.read(HEAD.size)
            if len(head) == HEAD.size:
                kind, size = HEAD.unpack(head)
                data = self.file.read(size)
                return (kind, data) if len(data) == size else None
        except OSError:
            pass
        return None


def begin(task, *arguments):
    thread = threading.Thread(target=task, args=arguments, daemon=True)
    thread.start()
    return thread


def pass_on(line, kind, read):
    """Sends all that can be read as messages of a kind, and an empty one at the end."""
    try:
        while data := read(CHUNK):
            line.send(kind, data)
        line.send(kind)
    except OSError:
        pass


def serve(address, port):
    numbers = itertools.count()
    listener = socket.create_server((address, port), backlog=64)
    while True:
        connection, _ = listener.accept()
        begin(attend, Line(connection), next(numbers))


def attend(line, number):
    """Runs one command, until it ends or whoever asked for it is gone."""
    message = line.receive()
    if message is None:
        # Somebody only looked whether this port answers.
        return
    asked = json.loads(message[1])
    environment = dict(os.environ)
    if asked["notices"]:
        environment["NOTIFY_SOCKET"] = path = f"/run/notices-{number}"
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(path)
        begin(pass_on, line, NOTICE, notices.recv)
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(asked["command"], stdin=pipe, stdout=pipe, stderr=pipe, cwd="/", env=environment, start_new_session=True)
    except OSError as error:
        line.send(ERRORS, f"{error}\n".encode())
        line.send(STATUS, b"127")
        return
    outputs = [begin(pass_on, line, kind, lambda size, pipe=pipe: os.read(pipe.fileno(), size)) for kind, pipe in
               ((OUTPUT, process.stdout), (ERRORS, process.stderr))]
    begin(obey, line, process)
    status = process.wait()
    for output in outputs:
        output.join(LAST_WORDS_WITHIN)
    try:
        line.send(STATUS, str(status).encode())
        line.connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def obey(line, process):
    """Gives the command its input and signals."""
    while message := line.receive():
        kind, data = message
        if kind == SIGNAL:
            process.send_signal(int(data))
        else:
            try:
                process.stdin.write(data)
                process.stdin.flush()
                if not data:
                    process.stdin.close()
            except (OSError, ValueError):
                pass
    process.kill()


def run(address, port, command):
    line = Line(socket.create_connection((address, port), timeout=30))
    line.connection.settimeout(None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: line.send(SIGNAL, str(int(number)).encode()))
    path = os.environ.get("NOTIFY_SOCKET")
    line.send(b"c", json.dumps({"command": command, "notices": path is not None}).encode())
    begin(pass_on, line, INPUT, lambda size: os.read(0, size))
    while message := line.receive():
        kind, data = message
        if kind == STATUS:
            end(int(data))
        elif kind == NOTICE:
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(data, path)
        else:
            write(1 if kind == OUTPUT else 2, data)
    sys.exit("the host is gone")


def write(to, data):
    while data:
        data = data[os.write(to, data):]


def end(status):
    """Ends as the command did."""
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    what, address, port, *command = sys.argv[1:]
    if what == "serve":
        serve(address, int(port))
    else:
        run(address, int(port), command)
