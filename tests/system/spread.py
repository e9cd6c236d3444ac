"""A cloud whose daemons are spread over three hosts with real guests: a controller, and two that compute."""

import os
from pathlib import Path

from cloud import Cloud
from lab import OUTSIDE, Host

COMPUTE = ["compute1", "compute2"]


class Spread:
    """The hosts, and the cloud. `prefix` and `first` tell its hosts from those of other tests, which the kernel forgets in its own time."""

    def __init__(self, prefix, first, folder, logs, servers, switches, *flags):
        # libvirt's qemu has a user of its own, who must be able to walk to the disks.
        for parent in [folder, folder.parent]:
            os.chmod(parent, 0o711)
        machines = [Host(f"{prefix}{n}", first + n, switches, logs) for n in range(3)]
        self.controller, self.compute = machines[0], dict(zip(COMPUTE, machines[1:], strict=True))
        for host in self.compute.values():
            host.start_libvirt()
        self.own = {}
        flags = ["--host=controller", "--libvirt_type=qemu", "--public_interface=eth0", "--report_interval=2", "--service_down_time=8", *flags]
        self.cloud = Cloud(
            folder, hypervisor="libvirt", log=logs / f"{prefix}.log", flags=flags, database=servers["mariadb"], broker=servers["rabbitmq"],
            address=self.controller.address, servers_at=OUTSIDE, inside=self.controller.command,
        )
        del self.cloud.daemons["nova-compute"]
        for name, host in self.compute.items():
            state = folder / name
            state.mkdir()
            os.chmod(state, 0o711)
            own = [f"--host={name}", f"--my_ip={host.address}", f"--state_path={state}", f"--s3_host={self.controller.address}"]
            self.own[name] = own
            self.cloud.add("nova-compute", *own, key=name, inside=host.command)

    def start(self, network=("10.44.0.0/24", "1", "256")):
        """Starts it, with all that guests need."""
        self.cloud.create(network)
        self.cloud.add_image(Path(os.environ["NOVA_GUEST"]))
        for host in self.compute.values():
            host.wait_for_libvirt()
        self.cloud.start()

    def log(self, name):
        return self.cloud.daemons[name].log.read_text()

    def check(self):
        """Nothing is amiss in the database, on the controller, and on each compute host."""
        self.cloud.check()
        for name, host in self.compute.items():
            self.cloud.manage(*self.own[name], "check", inside=host.command)

    def remove(self):
        try:
            self.cloud.stop()
        finally:
            for host in [*self.compute.values(), self.controller]:
                host.remove()
