"""One of five daemons dies at each failpoint of launch and terminate in turn; it alone is started again, and everything comes to a good end."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud import BIN, Cloud
from load import insist, states
from wait import eventually

# After the restart, so long may what was begun take.
RECOVERY = 30
# Who may come to such a place; which of them does, the program decides.
ARMED = ["nova-api", "nova-scheduler", "nova-compute"]


def listed(operation):
    """The failpoints of one operation, as the programs themselves list them."""
    done = subprocess.run([BIN / "nova-compute", "--list-failpoints"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"built without failpoints? {done.stderr}"
    points = [name for name in done.stdout.split() if name.startswith(f"{operation}.")]
    assert points, f"no failpoints of {operation}"
    return points


@pytest.fixture(scope="module")
def cloud(servers, logs, tmp_path_factory):
    """One cloud for all failpoints: each leaves it empty and in order."""
    folder = tmp_path_factory.mktemp("failpoints-five")
    cloud = Cloud(folder, hypervisor="simulated", log=logs / "failpoints-five.log", port=18779, flags=["--dhcp_lease_time=1"], **servers.of("mariadb"))
    cloud.create()
    cloud.add_fake_image()
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def background():
    """Runs a function beside the test."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def arm(cloud, point):
    """Starts anew those who may die, each with the same failpoint."""
    daemons = [cloud.daemons[name] for name in ARMED]
    for daemon in daemons:
        daemon.kill()
        daemon.begin(f"--failpoint={point}")
    for daemon in daemons:
        daemon.wait()


def dies_once(cloud, point, answered):
    """Waits for the death at the failpoint, starts who died, and returns what the client got, who asked again."""
    eventually(20, f"a daemon reaches {point}", cloud.died, every=0.02)
    [dead] = [daemon for daemon in cloud.daemons.values() if daemon.died()]
    assert dead.process.returncode == -signal.SIGABRT, f"{dead.name}: status {dead.process.returncode}"
    assert f"Failpoint {point} is reached." in dead.log.read_text(errors="replace")
    dead.start()
    return answered.result(RECOVERY)


def run(cloud, token):
    """Launches one instance; the same token gives the same one."""
    ec2 = cloud.client("boto3").ec2
    answer = insist(ec2.run_instances, ImageId=cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny", ClientToken=token)
    [instance] = answer["Instances"]
    return instance["InstanceId"]


def terminate(cloud, id):
    insist(cloud.client("boto3").ec2.terminate_instances, InstanceIds=[id])


def is_(cloud, id, state):
    ec2 = cloud.client("boto3").ec2
    eventually(RECOVERY, f"{id} is {state}", lambda: states(ec2, [id])[id] == state)


def nothing_is_left(cloud):
    assert cloud.rows("select count(*) from fixed_ips where instance_id is not null") == [(0,)], "an address is held"
    assert cloud.rows("select instances, cores from quota_usages") == [(0, 0)], "quota is held"
    cloud.check()


@pytest.mark.parametrize("point", listed("launch"))
def test_launch(cloud, background, point):
    arm(cloud, point)
    id = dies_once(cloud, point, background(run, cloud, point))
    is_(cloud, id, "running")
    assert run(cloud, point) == id, "one client token, two instances"
    cloud.check()
    terminate(cloud, id)
    is_(cloud, id, "terminated")
    nothing_is_left(cloud)


@pytest.mark.parametrize("point", listed("terminate"))
def test_terminate(cloud, background, point):
    arm(cloud, point)
    id = run(cloud, point)
    is_(cloud, id, "running")
    dies_once(cloud, point, background(terminate, cloud, id))
    is_(cloud, id, "terminated")
    nothing_is_left(cloud)
