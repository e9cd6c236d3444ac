"""A guest seen from its host: ping, ssh, ports."""

import subprocess

from wait import eventually, never

BOOTS_WITHIN = 90


class Guest:
    """An instance's address, and the private key that opens it; `inside` makes a command line one of the host that knocks."""

    def __init__(self, address, private_key, folder, inside=lambda *words: list(words)):
        self.address = address
        self.inside = inside
        self.key = folder / f"key-{address}"
        self.key.write_text(private_key if private_key.endswith("\n") else private_key + "\n")
        self.key.chmod(0o600)

    def pings(self):
        return subprocess.run(self.inside("ping", "-c", "1", "-W", "1", "-q", self.address), capture_output=True).returncode == 0

    def ssh_status(self, command, key=None, timeout=20, patience=3):
        """Runs a command in the guest; returns ssh's result."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", f"ConnectTimeout={patience}", "LogLevel=ERROR", "IdentitiesOnly=yes"]
        words = [word for option in options for word in ("-o", option)]
        return subprocess.run(
            self.inside("ssh", "-F", "/dev/null", *words, "-i", key or self.key, f"root@{self.address}", command),
            capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )

    def ssh(self, command):
        """Runs a command in the guest, which must succeed; returns what it printed."""
        # An emulated guest on a busy machine may be slow, and still well.
        done = self.ssh_status(command, timeout=40, patience=15)
        assert done.returncode == 0, f"ssh {self.address} {command!r}: {done.stderr.strip()}"
        return done.stdout.strip()

    def accepts_ssh(self):
        return self.ssh_status("true").returncode == 0

    def answers(self):
        """Waits until the guest is up: it answers ping, then ssh."""
        eventually(BOOTS_WITHIN, f"{self.address} answers ping", self.pings)
        eventually(BOOTS_WITHIN, f"{self.address} lets the key's owner in", self.accepts_ssh, every=0.3)

    def is_silent(self, seconds=2):
        never(seconds, f"{self.address} answers ping", self.pings)

    def open(self, port, timeout=0.5):
        """Whether a TCP connection to the port comes about."""
        connect = f"exec 3<>/dev/tcp/{self.address}/{port}"
        return subprocess.run(self.inside("timeout", str(timeout), "bash", "-c", connect), capture_output=True).returncode == 0
