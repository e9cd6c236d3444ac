"""Several hosts on one machine: a network namespace each, two switches between them, and a libvirtd for each that runs guests."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from wait import eventually

NETWORK = "198.51.100"
# The test's own address on the hosts' network, where clients, database and broker are.
OUTSIDE = f"{NETWORK}.254"

# What a host has for itself. The rest of the file system is shared, and so are processes.
OWN = ["/run/libvirt", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"]
BECOME_HOST = f"""
set -e
umount --lazy /sys; mount -t sysfs sysfs /sys
for folder in {' '.join(OWN)}; do mkdir -p $folder; mount -t tmpfs -o mode=755 tmpfs $folder; done
printf '%s\\n' 'security_driver = "none"' 'namespaces = []' 'remember_owner = 0' >/etc/libvirt/qemu.conf
ip link set lo up
echo here
exec sleep infinity
"""


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr.strip()}"
    return done.stdout


class Switches:
    """A namespace with a bridge for the hosts' own traffic and one for that of guests."""

    KINDS = ("lan", "guests")

    def __init__(self):
        run("ip", "netns", "add", "switch")
        for kind in self.KINDS:
            run("ip", "-n", "switch", "link", "add", kind, "type", "bridge")
            run("ip", "-n", "switch", "link", "set", kind, "up")
        self.connect("outside", "lan", "outside")
        run("ip", "addr", "add", f"{OUTSIDE}/24", "dev", "outside")
        run("ip", "link", "set", "outside", "up")

    def connect(self, name, kind, device, netns=()):
        """Makes the interface `device` in a namespace, and its other end a port of a switch."""
        port = f"{name}-{kind}"[-15:]
        run("ip", "link", "add", device, *netns, "type", "veth", "peer", "name", port, "netns", "switch")
        run("ip", "-n", "switch", "link", "set", port, "master", kind, "up")
        return port

    def disconnect(self, port):
        """Takes away a port, and the interface that it leads to."""
        run("ip", "-n", "switch", "link", "delete", port)

    def remove(self):
        """The interfaces go with it, on all hosts."""
        run("ip", "netns", "delete", "switch")


class Host:
    """eth0 is on the hosts' network, eth1 on that of guests."""

    def __init__(self, name, number, switches, logs):
        self.name, self.address, self.switches, self.logs = name, f"{NETWORK}.{number}", switches, logs
        self.keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "--net", "bash", "-c", BECOME_HOST],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        assert self.keeper.stdout.readline() == "here\n", f"{name} does not come up"
        own = ["netns", str(self.keeper.pid)]
        self.ports = [switches.connect(name, kind, device, own) for kind, device in (("lan", "eth0"), ("guests", "eth1"))]
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        # The test's own host may remember who had the address before.
        run("ip", "neigh", "flush", "to", self.address)
        for device in ("eth0", "eth1"):
            self.run("ip", "link", "set", device, "up")
        self.run("ip", "route", "add", "default", "via", OUTSIDE)
        self.libvirt = []

    def command(self, *words):
        """The command line that runs on this host."""
        pid = self.keeper.pid
        return ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--net=/proc/{pid}/ns/net", "--", *map(str, words)]

    def run(self, *words):
        return run(*self.command(*words))

    def start_libvirt(self):
        # virtlogd comes first, or the first guest with a console file fails.
        for name in ("virtlogd", "libvirtd"):
            command = self.command(name, "--pid-file", f"/run/libvirt/{name}.pid")
            log = open(self.logs / f"{self.name}-{name}.log", "wb")
            self.libvirt.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def domains(self):
        """The names of the guests that run here; nothing while libvirtd does not answer."""
        done = subprocess.run(
            self.command("virsh", "--quiet", "--connect", "qemu:///system", "list", "--name"), capture_output=True, text=True
        )
        return done.stdout.split() if done.returncode == 0 else None

    def wait_for_libvirt(self):
        eventually(40, f"the libvirtd of {self.name} answers", lambda: self.domains() is not None, every=0.2)

    def pings(self, address):
        return subprocess.run(self.command("ping", "-c", "1", "-W", "1", "-q", address), capture_output=True).returncode == 0

    def processes(self):
        """The pids of all that runs on this host, beside its guests. A process of which nobody is the parent any more is one."""
        mine = os.readlink(f"/proc/{self.keeper.pid}/ns/net")
        return [int(path.parts[2]) for path in Path("/proc").glob("[0-9]*/ns/net") if network(path) == mine]

    def remove(self):
        """Ends all that runs here. One process, as a dnsmasq, would keep the network, and answer for it on the switch."""
        for port in self.ports:
            self.switches.disconnect(port)
        for process in reversed(self.libvirt):
            process.terminate()
            process.wait(20)
        for pid in set(self.processes()) - {self.keeper.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(20, f"nothing runs on {self.name}", lambda: self.processes() == [self.keeper.pid])
        self.keeper.terminate()
        self.keeper.wait(20)


def network(path):
    """Which network a process is in; none once it has ended."""
    with suppress(OSError):
        return os.readlink(path)
