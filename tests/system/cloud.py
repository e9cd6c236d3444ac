"""A cloud: a state folder, its flag file, `nova-manage`, and `nova-combined` as a child that can be killed."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
from pathlib import Path

from clients import CLIENTS
from wait import eventually

BIN = Path(os.environ.get("NOVA_BIN", "target/debug"))
ADDRESS = "192.0.2.1"
PROJECT = "acme"
USER = "alice"


class Cloud:
    """One state folder and the process that works on it."""

    def __init__(self, folder, hypervisor, log, port=8773, flags=()):
        self.folder = Path(folder)
        self.state = self.folder / "state"
        self.conf = self.folder / "nova.conf"
        self.log = log
        self.port = port
        self.process = None
        self.image = None
        self.access = self.secret = None
        self.flags = [
            f"--state_path={self.state}",
            f"--my_ip={ADDRESS}",
            f"--ec2_port={port}",
            f"--hypervisor={hypervisor}",
            "--network_manager=nova.network.manager.FlatDHCPManager",
            "--flat_network_bridge=br100",
            "--fixed_range=10.44.0.0/24",
            f"--dhcpbridge={BIN}/nova-dhcpbridge",
            "--public_interface=uplink",
            "--quota_instances=300",
            "--quota_cores=600",
            "--ram_allocation_ratio=8",
            "--fixed_ip_disassociate_timeout=5",
            *flags,
        ]

    @property
    def url(self):
        return f"http://{ADDRESS}:{self.port}/services/Cloud"

    def create(self):
        """What an administrator does once: schema, user, project, network."""
        self.state.mkdir()
        self.conf.write_text("".join(f"{flag}\n" for flag in self.flags))
        self.manage("db", "sync")
        keys = self.manage("user", "admin", USER)
        self.access = re.search(r"EC2_ACCESS_KEY=(\S+)", keys)[1]
        self.secret = re.search(r"EC2_SECRET_KEY=(\S+)", keys)[1]
        self.manage("project", "create", PROJECT, USER)
        self.manage("network", "create", "10.44.0.0/24", "1", "256")

    def add_image(self, guest):
        """Registers kernel, ramdisk and disk; keeps the id of the machine image."""
        register = lambda file, *words: self.manage("image", "register", str(guest / file), "--public", *words).strip()  # noqa: E731
        kernel = register("kernel", "--kind", "kernel")
        ramdisk = register("initramfs", "--kind", "ramdisk")
        self.image = register("disk.raw", "--kernel", kernel, "--ramdisk", ramdisk)
        assert re.fullmatch("ami-[0-9a-f]{8}", self.image), self.image

    def add_fake_image(self):
        """Registers three small files, which is all that simulated guests need."""
        folder = self.folder / "image"
        folder.mkdir()
        for name in ("disk.raw", "kernel", "initramfs"):
            (folder / name).write_bytes(name.encode() * 512)
        self.add_image(folder)

    def run_manage(self, *words):
        """Runs `nova-manage` and returns how it went."""
        command = [BIN / "nova-manage", f"--flagfile={self.conf}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")

    def manage(self, *words):
        """Runs `nova-manage`, which must succeed, and returns what it printed."""
        done = self.run_manage(*words)
        assert done.returncode == 0, f"nova-manage {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def check(self):
        """`nova-manage check` must find nothing amiss."""
        self.manage("check")

    def client(self, kind, project=PROJECT):
        """A client of one of the kinds in `clients.py`, with the keys of the project's owner."""
        return CLIENTS[kind](self.url, f"{self.access}:{project}", self.secret)

    def start(self, *flags):
        """Starts the process and waits until the API answers; returns how many seconds that took."""
        out = open(self.log, "ab")
        command = [BIN / "nova-combined", f"--flagfile={self.conf}", *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")
        _, took = eventually(20, "nova-combined listens", lambda: self.listens() or self.died(), every=0.01)
        assert self.process.poll() is None, f"nova-combined ended with status {self.process.returncode}; see {self.log}"
        return took

    def died(self):
        return self.process.poll() is not None

    def listens(self):
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((ADDRESS, self.port)) == 0

    def kill(self):
        """The power cut: no signal handler runs."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self):
        """Asks the process to end, which it must do in order and soon."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        assert status == 0, f"nova-combined ended with status {status} when asked to stop; see {self.log}"

    def rows(self, query):
        """Reads the database beside Nova."""
        with sqlite3.connect(f"file:{self.state}/nova.sqlite?mode=ro", uri=True, timeout=10) as db:
            return db.execute(query).fetchall()
