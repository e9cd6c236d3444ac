"""Hosts with a kernel of their own, for what the kernel of this machine cannot do: the distribution's, under qemu's emulation, on this machine's files.

They boot in some ten seconds, and programs take ten times as long in them as outside. What they write goes to their memory.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lab
from lab import OUTSIDE
from servers import listens
from wait import eventually

HERE = Path(__file__).resolve().parent
# Where tests/run has put what tests/system/host-kernel makes.
KERNEL = Path(os.environ.get("NOVA_HOST_KERNEL", "target/host-kernel")).resolve()
# Without the packages that this interpreter's environment has: the hosts need none.
PYTHON = [str(Path(sys.executable).resolve()), "-I", "-S"]
PORT = 17
MEMORY_MIB = 768
BOOTS_WITHIN = 240
SWITCH = ["nsenter", "--net=/run/netns/switch", "--"]
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")


def missing():
    """Why there can be no such host here; nothing where there can."""
    if shutil.which("qemu-system-x86_64") is None:
        return "there is no qemu-system-x86_64"
    if not any(map(os.path.exists, VIRTIOFSD)):
        return "there is no virtiofsd"
    if not (KERNEL / "stamp").exists():
        return f"there is no kernel for hosts in {KERNEL}: see tests/system/host-kernel"
    return None


class Trunk:
    """A switch that carries tagged frames: a plain bridge does. Hosts are on it by eth1."""

    NAME = "trunk"

    def __init__(self):
        lab.run("ip", "-n", "switch", "link", "add", self.NAME, "type", "bridge", "mcast_snooping", "0")
        lab.run("ip", "-n", "switch", "link", "set", self.NAME, "up")

    def remove(self):
        lab.run("ip", "-n", "switch", "link", "delete", self.NAME)


class Tap:
    """Writes down the frames that pass a port of the trunk, both ways."""

    def __init__(self, port, folder):
        self.file = folder / f"{port}.frames"
        with open(self.file, "wb") as out:
            command = [*SWITCH, *PYTHON, str(HERE / "frames.py"), port]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out)

    def frames(self):
        """Each kind of frame once: tag (or none), from, to, and what it carries."""
        complete = self.file.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines()]

    def stop(self):
        self.process.kill()
        self.process.wait()


class Host:
    """As `lab.Host`: eth0 is on the hosts' network; eth1 is on the trunk."""

    def __init__(self, name, number, logs, folder):
        self.name, self.address, self.logs = name, f"{lab.NETWORK}.{number}", logs
        self.processes, self.taps = [], {}
        for kind in ("lan", Trunk.NAME):
            self.taps[kind] = tap = f"{name}-{kind}"[-15:]
            lab.run("ip", "-n", "switch", "tuntap", "add", tap, "mode", "tap")
            lab.run("ip", "-n", "switch", "link", "set", tap, "master", kind, "up")
        share = folder / f"{name}.files"
        program = next(filter(os.path.exists, VIRTIOFSD))
        self.begin("files", program, f"--socket-path={share}", "-o", "source=/", "-o", "cache=auto", "-o", "sandbox=chroot")
        eventually(30, f"the files of {name} are served", share.exists)
        self.begin("kernel", *SWITCH, "qemu-system-x86_64", *self.machine(share, number))

    def machine(self, share, number):
        """qemu's arguments. Whoever started it takes it along when it ends."""
        start = [HERE / "vm" / "start", KERNEL, self.name, f"{self.address}/24", OUTSIDE, *PYTHON, HERE / "remote.py", "serve", self.address, PORT]
        words = [
            "-machine", "q35,memory-backend=memory", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY_MIB, "-no-reboot",
            "-nodefaults", "-display", "none", "-serial", f"file:{self.logs}/{self.name}-console.log",
            "-object", f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on",
            "-chardev", f"socket,id=files,path={share}", "-device", "vhost-user-fs-pci,chardev=files,tag=machine",
            "-kernel", KERNEL / "kernel", "-initrd", KERNEL / "initramfs",
            # On a machine under load the kernel takes late interrupts for missing ones.
            "-append", f"console=ttyS0 quiet panic=-1 no_timer_check nowatchdog -- {' '.join(map(str, start))}",
        ]
        for n, tap in enumerate(self.taps.values()):
            words += ["-netdev", f"tap,id=n{n},ifname={tap},script=no,downscript=no"]
            words += ["-device", f"virtio-net-pci,netdev=n{n},mac=52:54:00:00:{n:02x}:{number:02x}"]
        return map(str, words)

    def begin(self, what, *command):
        with open(self.logs / f"{self.name}-{what}.log", "wb") as log:
            self.processes.append(
                subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def wait(self):
        """Waits until commands can be run there; returns how many seconds that took."""
        return eventually(BOOTS_WITHIN, f"{self.name} boots (see its console's log)", self.answers, every=0.2)[1]

    def answers(self):
        for process in self.processes:
            assert process.poll() is None, f"{process.args[3]} of {self.name} ended with status {process.returncode}"
        return listens(self.address, PORT)

    def command(self, *words):
        """The command line that runs on this host."""
        return [*PYTHON, str(HERE / "remote.py"), "run", self.address, str(PORT), *map(str, words)]

    def run(self, *words, **more):
        return lab.run(*self.command(*words), **more)

    def write(self, path, text):
        """Writes a file there, whose folder is made."""
        self.run("install", "-D", "-m", "644", "/dev/stdin", path, input=text)

    def links(self):
        """Its interfaces, as `ip` shows them."""
        return json.loads(self.run("ip", "-j", "link"))

    def remove(self):
        """The power cut."""
        for process in reversed(self.processes):
            process.kill()
            process.wait(20)
        for tap in self.taps.values():
            lab.run("ip", "-n", "switch", "link", "delete", tap)
