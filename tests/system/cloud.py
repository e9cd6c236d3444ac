"""A cloud: a state folder, its flag file, `nova-manage`, and Nova's daemons as children that can be killed.

Without a broker it is `nova-combined`; with one it is five processes. The tests do not see the difference.
"""

import itertools
import os
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import servers
from clients import CLIENTS
from daemon import Daemon
from guest import Guest

BIN = Path(os.environ.get("NOVA_BIN", "target/debug")).resolve()
ADDRESS = "192.0.2.1"
PROJECT = "acme"
USER = "alice"
COMBINED = ["nova-combined"]
# In no particular order: each must bear that the others are not there yet.
FIVE = ["nova-compute", "nova-network", "nova-scheduler", "nova-objectstore", "nova-api"]
NUMBERS = itertools.count()


def as_it_is(*words):
    """The command line of what runs on the test's own host."""
    return list(words)


class SQLite:
    """The database of an installation that has no server for it."""

    def __init__(self, file):
        self.file = file

    def rows(self, _, query):
        with sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, timeout=10) as db:
            return db.execute(query).fetchall()


class Cloud:
    """One state folder and the processes that work on it."""

    def __init__(
        self, folder, hypervisor, log, port=8773, flags=(), database=None, broker=None, address=ADDRESS, servers_at="127.0.0.1", inside=as_it_is
    ):
        self.inside = inside
        self.folder = Path(folder)
        self.state = self.folder / "state"
        self.conf = self.folder / "nova.conf"
        self.log = Path(log)
        self.address, self.port = address, port
        self.image = None
        self.access = self.secret = None
        self.name = f"nova{next(NUMBERS)}"
        self.database = database or SQLite(self.state / "nova.sqlite")
        self.flags = [
            f"--state_path={self.state}",
            f"--my_ip={address}",
            f"--ec2_port={port}",
            # 3333 for 8773: several clouds run on one host.
            f"--s3_port={port - 5440}",
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
        ]
        if database:
            database.create(self.name)
            self.flags.append(f"--sql_connection={database.url(self.name, servers_at)}")
        if broker:
            self.flags += broker.flags(broker.virtual_host(), servers_at)
        if broker and hypervisor == "simulated":
            self.flags.append("--fake_network")
        self.flags += flags
        # By name; those that a test adds bear names of their own.
        self.daemons = {}
        for name in FIVE if broker else COMBINED:
            self.add(name)

    def add(self, name, *flags, key=None, inside=None):
        """Adds a daemon, or a second one of a kind under another key; it is not started yet."""
        key = key or name
        log, status_port = self.log, servers.free_port()
        if name not in COMBINED:
            log = log.with_name(f"{log.stem}-{key}.log")
        command = [BIN / name, f"--flagfile={self.conf}", f"--status_port={status_port}", *flags]
        self.daemons[key] = Daemon(key, (inside or self.inside)(*command), log, status_port)
        return self.daemons[key]

    @property
    def url(self):
        return f"http://{self.address}:{self.port}/services/Cloud"

    def create(self, network=("10.44.0.0/24", "1", "256")):
        """What an administrator does once: schema, user, project, network."""
        self.state.mkdir()
        self.conf.write_text("".join(f"{flag}\n" for flag in self.flags))
        self.manage("db", "sync")
        keys = self.manage("user", "admin", USER)
        self.access = re.search(r"EC2_ACCESS_KEY=(\S+)", keys)[1]
        self.secret = re.search(r"EC2_SECRET_KEY=(\S+)", keys)[1]
        self.manage("project", "create", PROJECT, USER)
        self.manage("network", "create", *network)

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

    def run_manage(self, *words, inside=None):
        """Runs `nova-manage` and returns how it went."""
        command = (inside or self.inside)(BIN / "nova-manage", f"--flagfile={self.conf}", *words)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")

    def manage(self, *words, inside=None):
        """Runs `nova-manage`, which must succeed, and returns what it printed."""
        done = self.run_manage(*words, inside=inside)
        assert done.returncode == 0, f"nova-manage {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def check(self):
        """`nova-manage check` must find nothing amiss."""
        self.manage("check")

    def guest(self, address, private_key, folder):
        """A guest as its host sees it."""
        return Guest(address, private_key, folder, self.inside)

    def client(self, kind, project=PROJECT, port=None):
        """A client of one of the kinds in `clients.py`, with the keys of the project's owner."""
        url = self.url if port is None else self.url.replace(f":{self.port}/", f":{port}/")
        return CLIENTS[kind](url, f"{self.access}:{project}", self.secret)

    @property
    def process(self):
        """The only process of a cloud that is one."""
        [daemon] = self.daemons.values()
        return daemon.process

    def died(self):
        """Whether a process has ended, and was not asked to."""
        return any(daemon.died() for daemon in self.daemons.values())

    def start(self, *flags):
        """Starts all daemons at once and waits until all are ready; returns how many seconds that took."""
        began = time.monotonic()
        for daemon in self.daemons.values():
            daemon.begin(*flags)
        for daemon in self.daemons.values():
            daemon.wait()
        assert self.listens(), "it is ready, and nobody listens"
        return time.monotonic() - began

    def listens(self):
        return servers.listens(self.address, self.port)

    def kill(self):
        """The power cut: no signal handler runs."""
        for daemon in self.daemons.values():
            daemon.kill()

    def stop(self):
        """Asks all processes to end, which they must do in order and soon."""
        running = [daemon for daemon in self.daemons.values() if daemon.runs()]
        for daemon in running:
            daemon.signal(signal.SIGTERM)
        for daemon in running:
            daemon.ends()

    def rows(self, query):
        """Reads the database beside Nova."""
        return [tuple(row) for row in self.database.rows(self.name, query)]
