"""Fixtures: one cloud with real guests that most tests share, and clouds of simulated guests that tests may break."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from cloud import Cloud
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


@pytest.fixture(autouse=True)
def report_time(request):
    """Prints how long each test took, so that a slow one is seen in the log."""
    began = time.monotonic()
    yield
    print(f"{request.node.name}: {time.monotonic() - began:.1f} s")
