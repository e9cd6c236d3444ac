"""Fixtures: one cloud with real guests that most tests share, clouds of simulated guests that tests may break, and servers."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from cloud import Cloud
from lab import OUTSIDE, Host, Switches
from servers import MariaDB, PostgreSQL, RabbitMQ
from wait import eventually



def pytest_configure(config):
    """Temporary folders lie in the memory of this host, and vanish with it."""
    config.option.basetemp = "/run/nova-tests"


def pytest_sessionstart(session):
    """Outside a host of their own these tests would build bridges and firewalls on the machine they run on."""
    if os.environ.get("NOVA_TEST_HOST") != "1":
        raise pytest.UsageError("run these tests by tests/run --system: they need a host of their own")


@pytest.fixture(scope="session")
def logs():
    """Where logs are kept after the tests."""
    folder = Path(os.environ["NOVA_LOGS"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def libvirt(logs):
    """A libvirtd of this test host."""
    # virtlogd comes first, or the first guest with a console file fails.
    for daemon in ("virtlogd", "libvirtd"):
        log = (logs / f"{daemon}.log").open("wb")
        subprocess.Popen([daemon], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    virsh = ["virsh", "--quiet", "--connect", "qemu:///system", "list", "--all"]
    eventually(30, "libvirtd answers", lambda: subprocess.run(virsh, capture_output=True).returncode == 0)


class Servers:
    """Servers of the test host, each started when the first test asks for it; the tests share them."""

    KINDS = {"mariadb": MariaDB, "postgresql": PostgreSQL, "rabbitmq": RabbitMQ}

    def __init__(self, logs):
        self.logs, self.started = logs, {}

    def __getitem__(self, name):
        if name not in self.started:
            # Not below the tests' own folders, into which only root may look.
            server = self.KINDS[name](f"/run/servers/{name}", self.logs / f"{name}.log")
            server.start()
            self.started[name] = server
        return self.started[name]

    def of(self, engine):
        """What a cloud on this engine is given: a database and a broker, or nothing."""
        return {} if engine == "combined" else {"database": self[engine], "broker": None if os.environ.get("TRY") else self["rabbitmq"]}


@pytest.fixture(scope="session")
def servers(logs):
    servers = Servers(logs)
    yield servers
    for server in servers.started.values():
        server.kill()


class Clouds:
    """Clouds with real guests under libvirt, each made when the first test asks for it; the tests share them.

    nova-combined is on the test's own host; five daemons are on one made for them.
    """

    def __init__(self, request, servers, switches, logs, folders):
        self.request, self.servers, self.switches, self.logs, self.folders = request, servers, switches, logs, folders
        self.made, self.hosts = {}, []

    def __getitem__(self, engine):
        if engine not in self.made:
            folder = self.folders.mktemp(f"cloud-{engine}")
            # libvirt's qemu has a user of its own, who must be able to walk to the disks.
            for parent in [folder, folder.parent]:
                os.chmod(parent, 0o711)
            cloud = self.combined(folder) if engine == "combined" else self.five(folder, engine)
            cloud.create()
            cloud.start()
            cloud.add_image(Path(os.environ["NOVA_GUEST"]))
            self.made[engine] = cloud
        return self.made[engine]

    def combined(self, folder):
        self.request.getfixturevalue("libvirt")
        return Cloud(folder, hypervisor="libvirt", log=self.logs / "nova-combined.log", flags=["--libvirt_type=qemu"])

    def five(self, folder, engine):
        host = Host(engine, 100 + len(self.hosts), self.switches, self.logs)
        self.hosts.append(host)
        # Its bridge is its own: on the switch it would answer for the gateway that hosts of other clouds there have, too.
        host.run("ip", "link", "set", "eth1", "down")
        host.start_libvirt()
        host.wait_for_libvirt()
        flags = ["--libvirt_type=qemu", "--public_interface=eth0"]
        return Cloud(
            folder, hypervisor="libvirt", log=self.logs / f"five-{engine}.log", flags=flags, address=host.address, servers_at=OUTSIDE,
            inside=host.command, **self.servers.of(engine),
        )

    def remove(self):
        for cloud in self.made.values():
            cloud.stop()
        for host in self.hosts:
            host.remove()


@pytest.fixture(scope="session")
def clouds(request, servers, switches, logs, tmp_path_factory):
    clouds = Clouds(request, servers, switches, logs, tmp_path_factory)
    yield clouds
    clouds.remove()


@pytest.fixture(scope="session")
def cloud(clouds):
    """The cloud that is one process."""
    return clouds["combined"]


@pytest.fixture(scope="session")
def switches():
    """What the hosts that tests make are connected by."""
    switches = Switches()
    yield switches
    switches.remove()


@pytest.fixture
def simulated(logs, tmp_path, request):
    """Makes a cloud of simulated guests, on a port and a state folder of its own; it is not started yet."""
    cloud = Cloud(tmp_path, hypervisor="simulated", log=logs / f"{request.node.name}.log", port=18773)
    cloud.create()
    yield cloud
    cloud.stop()


@pytest.fixture(autouse=True)
def report_time(request):
    """Prints how long each test took, so that a slow one is seen in the log."""
    began = time.monotonic()
    yield
    print(f"{request.node.name}: {time.monotonic() - began:.1f} s")
