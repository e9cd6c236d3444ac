"""Guests of `--hypervisor=netns`, seen from within: what a guest can reach, and who answers it."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from select import select

from cloud import Cloud, as_it_is
from lab import OUTSIDE, Host, run
from wait import TooLate, eventually

READY_WITHIN = 30
PORTS = (22, 80)
# The first address of the clouds' only network.
GATEWAY = "10.44.0.1"
PROCESSES = ("nova-netns-gues", "busybox")
RENEW = Path(__file__).with_name("renew.py")


def made(folder, host, logs, *flags, **more):
    """A cloud of such guests, with its daemons on a host of the test's own; it is not started yet."""
    # dnsmasq has a user of its own, who must be able to walk to the list of guests.
    for parent in [folder, folder.parent]:
        os.chmod(parent, 0o711)
    return Cloud(
        folder, hypervisor="netns", log=logs / f"{host.name}.log", flags=["--public_interface=eth0", *flags], address=host.address,
        servers_at=OUTSIDE, inside=host.command, **more,
    )


def start(cloud, network=("10.44.0.0/24", "1", "256")):
    """Starts a cloud, of which all is known but a machine image."""
    cloud.create(network)
    cloud.add_fake_image()
    cloud.start()


class Place:
    """Somewhere from where one knocks: a guest, or a host."""

    def __init__(self, inside=as_it_is):
        self.inside = inside

    def pings(self, other, family="v4"):
        return subprocess.run(self.inside("ping", "-c", "1", "-W", "1", "-q", at(other, family)), capture_output=True).returncode == 0

    def reaches(self, other, port, timeout=0.5, family="v4"):
        """Whether a TCP connection comes about, and it is that guest who answers."""
        address = at(other, family)
        ask = f"exec 3<>/dev/tcp/{address}/{port} && head -n 1 <&3"
        done = subprocess.run(self.inside("timeout", str(timeout), "bash", "-c", ask), capture_output=True, text=True)
        assert done.returncode != 0 or done.stdout == f"{other.id}\n", f"another guest answers at {address}: {done.stdout!r}"
        return done.returncode == 0

    def talks(self, other, port, family="v4"):
        return Talk(self.inside("busybox", "nc", at(other, family), str(port)), other.id)


class Guest(Place):
    """One of them; `host` is the host it runs on."""

    def __init__(self, client, id, host):
        super().__init__(lambda *words: self.host.command("ip", "netns", "exec", self.namespace, *words))
        self.client, self.id, self.host = client, id, host

    @cached_property
    def address(self):
        """Known once the instance was placed."""
        return self.client.address(self.id)

    @cached_property
    def address6(self):
        """The same of IPv6, where the cloud has it."""
        return self.client.address6(self.id)

    def has_ipv6(self):
        """Waits until it has made its address of IPv6, and knows that nobody else has it."""
        said = f"nova-guest: ipv6={self.address6}"
        eventually(READY_WITHIN, f"{self.id} has {self.address6}", lambda: said in self.console().splitlines())

    def mac(self):
        return self.host.run(*self.inside("cat", "/sys/class/net/eth0/address")).strip()

    @property
    def namespace(self):
        """Its name ends with the instance's number."""
        [name] = [name for name in namespaces(self.host) if name.endswith(self.id.removeprefix("i-"))]
        return name

    def can(self, *words):
        """Whether a command succeeds in it."""
        return subprocess.run(self.inside(*words), capture_output=True).returncode == 0

    def runs(self, *words):
        """What a command prints in it, which must succeed."""
        return run(*self.inside(*words))

    def processes(self):
        """The pids of its program and its DHCP client. Of the programs that either runs for a moment, none is older."""
        oldest = {}
        for pid in self.host.run("ip", "netns", "pids", self.namespace).split():
            try:
                with open(f"/proc/{pid}/stat") as file:
                    # The second field is the name, in brackets; what follows begins with the third, and the 22nd is the start.
                    pid, name, rest = re.fullmatch(r"(\d+) \((.*)\) (.*)\n", file.read(), re.DOTALL).groups()
            except (FileNotFoundError, ProcessLookupError):
                continue
            age = int(rest.split()[19]), int(pid)
            if name in PROCESSES:
                oldest[name] = min(oldest.get(name, age), age)
        return {name: pid for name, (_, pid) in oldest.items()}

    def console(self):
        return self.client.console(self.id)

    def is_ready(self, times=1):
        """Waits until it has done all that it does when it boots; for the `times`-th time."""
        try:
            return eventually(READY_WITHIN, f"{self.id} is ready", lambda: self.console().count("nova-guest: ready") >= times)[1]
        except TooLate as late:
            raise TooLate(f"{late}; it said: {self.console()}") from None

    def renews(self, gateway=GATEWAY):
        """Asks for its lease again, which must be granted."""
        mac = self.host.run(*self.inside("cat", "/sys/class/net/eth0/address")).strip()
        answer = self.host.run(*self.inside(sys.executable, "-I", RENEW, self.address, gateway, mac)).strip()
        assert answer == "ack", f"{self.id} asked for {self.address} again; the answer: {answer}"


def at(other, family):
    """Where somebody is reached: by IPv4 (v4) or IPv6 (v6)."""
    return {"v4": lambda: other.address, "v6": lambda: other.address6}[family]()


def namespaces(host):
    """The names of the guests' namespaces on a host."""
    return [line.split()[0] for line in host.run("ip", "netns", "list").splitlines() if line.startswith("nova-")]


def taps(host):
    return [line for line in host.run("ip", "-o", "link", "show").splitlines() if ": tap" in line]


class Talk:
    """An open connection to a guest, which echoes."""

    def __init__(self, command, id):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        assert self.line() == id

    def line(self, timeout=3):
        ready, _, _ = select([self.process.stdout], [], [], timeout)
        return self.process.stdout.readline().decode().strip() if ready else None

    def echoes(self, word, timeout=3):
        self.process.stdin.write(f"{word}\n".encode())
        return self.line(timeout) == word

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@contextmanager
def running(command):
    """Has a program run beside the test."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def a_host(name, number, switches, logs):
    host = Host(name, number, switches, logs)
    # Where `ip` keeps the names of this host's namespaces.
    host.run("mkdir", "-p", "/run/netns")
    host.run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    return host
