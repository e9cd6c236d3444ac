"""Fixtures: one cloud with real guests that most tests share, clouds of simulated guests that tests may break, and servers."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from cloud import Cloud
from servers import MariaDB, PostgreSQL, RabbitMQ
from wait import eventually

# What five daemons lean on; nova-combined brings its own.
ENGINES = ["mariadb", "postgresql"]


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


@pytest.fixture(scope="session")
def cloud(libvirt, logs, tmp_path_factory):
    """The cloud with real guests under libvirt."""
    folder = tmp_path_factory.mktemp("cloud")
    # libvirt's qemu has a user of its own, who must be able to walk to the disks.
    for parent in [folder, folder.parent]:
        os.chmod(parent, 0o711)
    cloud = Cloud(folder, hypervisor="libvirt", log=logs / "nova-combined.log", flags=["--libvirt_type=qemu"])
    cloud.create()
    cloud.start()
    cloud.add_image(Path(os.environ["NOVA_GUEST"]))
    yield cloud
    cloud.stop()


@pytest.fixture
def simulated(logs, tmp_path, request):
    """Makes a cloud of simulated guests, on a port and a state folder of its own; it is not started yet."""
    cloud = Cloud(tmp_path, hypervisor="simulated", log=logs / f"{request.node.name}.log", port=18773)
    cloud.create()
    yield cloud
    cloud.stop()


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


@pytest.fixture(autouse=True)
def report_time(request):
    """Prints how long each test took, so that a slow one is seen in the log."""
    began = time.monotonic()
    yield
    print(f"{request.node.name}: {time.monotonic() - began:.1f} s")
