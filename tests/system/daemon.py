"""One of Nova's programs as a child: started as an init starts it, and killed as none does."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_WITHIN = 30


class Daemon:
    """A command line, and the process that runs it now."""

    def __init__(self, name, command, log, status_port=None):
        self.name, self.command, self.log = name, [str(word) for word in command], Path(log)
        self.status_port = status_port
        # What an earlier run of the tests left there is not to be taken for this one.
        self.log.unlink(missing_ok=True)
        self.process = None
        self.ready = None
        # A host under emulation takes its time.
        self.ready_within = READY_WITHIN

    @property
    def pid(self):
        return self.process.pid

    def begin(self, *flags):
        """Starts the process, perhaps with flags of this once, without waiting for it."""
        self.forget()
        # An abstract name would belong to one network namespace; a daemon may run in another.
        path = Path(f"/run/{self.name}-{os.getpid()}-{time.monotonic_ns()}")
        self.ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ready.bind(str(path))
        self.path = path
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                [*self.command, *flags], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", env={**os.environ, "NOTIFY_SOCKET": str(path)}
            )

    def wait(self):
        """Waits until the process says that it is ready, as systemd does."""
        end = time.monotonic() + self.ready_within
        self.ready.settimeout(0.05)
        while True:
            try:
                if b"READY=1" in self.ready.recv(4096):
                    return
            except TimeoutError:
                assert not self.died(), f"{self.name} ended with status {self.process.returncode}; see {self.log}"
                assert time.monotonic() < end, f"{self.name} is not ready after {self.ready_within} s; see {self.log}"

    def start(self, *flags):
        """Starts the process and waits until it is ready; returns how many seconds that took."""
        began = time.monotonic()
        self.begin(*flags)
        self.wait()
        return time.monotonic() - began

    def health(self):
        """What it says of itself at /healthz: `ok`, or what it misses."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/healthz", timeout=5) as answer:
                return answer.read().decode().strip()
        except urllib.error.HTTPError as refused:
            return refused.read().decode().strip()

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def died(self):
        return self.process is not None and self.process.poll() is not None

    def kill(self):
        """The power cut: no signal handler runs."""
        if self.runs():
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Asks the process to end, which it must do in order and soon; does nothing where it does not run."""
        if self.runs():
            self.process.send_signal(signal.SIGTERM)
            self.ends()
        self.forget()

    def ends(self, within=20):
        """Waits for the end of a process that was asked to end."""
        status = self.process.wait(within)
        assert status == 0, f"{self.name} ended with status {status} when asked to stop; see {self.log}"

    def forget(self):
        """Closes the socket on which the last process would have said that it is ready."""
        if self.ready is not None:
            self.ready.close()
            self.path.unlink(missing_ok=True)
            self.ready = None
