"""Several hosts on one machine: a network namespace each, two switches between them, and a libvirtd for each that runs guests."""

import subprocess

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

    def remove(self):
        """The interfaces go with it, on all hosts."""
        run("ip", "netns", "delete", "switch")


class Host:
    """eth0 is on the hosts' network, eth1 on that of guests."""

    def __init__(self, name, number, switches, logs):
        self.name, self.address, self.logs = name, f"{NETWORK}.{number}", logs
        self.keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "--net", "bash", "-c", BECOME_HOST],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        assert self.keeper.stdout.readline() == "here\n", f"{name} does not come up"
        switches.connect(name, "lan", "eth0", ["netns", str(self.keeper.pid)])
        switches.connect(name, "guests", "eth1", ["netns", str(self.keeper.pid)])
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
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

    def remove(self):
        for process in reversed([self.keeper, *self.libvirt]):
            process.terminate()
            process.wait(20)
