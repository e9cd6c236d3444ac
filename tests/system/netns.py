"""Guests of `--hypervisor=netns`, seen from within: what a guest can reach, and who answers it."""

import os
import signal
import subprocess
from functools import cached_property
from select import select

from cloud import Cloud, as_it_is
from lab import OUTSIDE, Host
from wait import TooLate, eventually

READY_WITHIN = 30
PORTS = (22, 80)


def made(folder, host, logs, *flags, **more):
    """A cloud of such guests, with its daemons on a host of the test's own; it is not started yet."""
    # dnsmasq has a user of its own, who must be able to walk to the list of guests.
    for parent in [folder, folder.parent]:
        os.chmod(parent, 0o711)
    return Cloud(
        folder, hypervisor="netns", log=logs / f"{host.name}.log", flags=["--public_interface=eth0", *flags], address=host.address,
        servers_at=OUTSIDE, inside=host.command, **more,
    )


def start(cloud):
    """Starts a cloud, of which all is known but a machine image."""
    cloud.create()
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

    def processes(self):
        """The pids of its program and its DHCP client."""
        by_name = {}
        for pid in self.host.run("ip", "netns", "pids", self.namespace).split():
            with open(f"/proc/{pid}/comm") as comm:
                by_name[comm.read().strip()] = int(pid)
        return by_name

    def console(self):
        return self.client.console(self.id)

    def is_ready(self, times=1):
        """Waits until it has done all that it does when it boots; for the `times`-th time."""
        try:
            return eventually(READY_WITHIN, f"{self.id} is ready", lambda: self.console().count("nova-guest: ready") >= times)[1]
        except TooLate as late:
            raise TooLate(f"{late}; it said: {self.console()}") from None

    def renews(self):
        """Has it ask for its lease again, and waits for the answer."""
        before = self.console().count("lease renew")
        os.kill(self.processes()["busybox"], signal.SIGUSR1)
        # udhcpc takes its time before it asks again when a request is lost.
        eventually(40, f"the lease of {self.id} is renewed", lambda: self.console().count("lease renew") > before)


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

    def echoes(self, word):
        self.process.stdin.write(f"{word}\n".encode())
        return self.line() == word

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def a_host(name, number, switches, logs):
    host = Host(name, number, switches, logs)
    # Where `ip` keeps the names of this host's namespaces.
    host.run("mkdir", "-p", "/run/netns")
    host.run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    return host
