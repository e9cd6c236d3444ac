"""Nova dies at each failpoint in turn, is started again, and everything comes to a good end: none may be forgotten, for the programs list them."""

import signal
import subprocess

import botocore.exceptions
import pytest

from cloud import BIN, Cloud
from wait import eventually

# After a restart, so long may what was begun take.
RECOVERY = 30
REACHED = -signal.SIGABRT


def listed(family):
    """The failpoints of one operation, as the program itself lists them."""
    done = subprocess.run([BIN / "nova-combined", "--list-failpoints"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"built without failpoints? {done.stderr}"
    points = [name for name in done.stdout.split() if family is None or name.startswith(f"{family}.")]
    assert points, f"no failpoints of {family}"
    return points


@pytest.fixture(scope="module")
def cloud(logs, tmp_path_factory):
    """One cloud for all failpoints: each leaves it empty and in order."""
    cloud = Cloud(tmp_path_factory.mktemp("failpoints"), hypervisor="simulated", log=logs / "failpoints.log", port=18774, flags=["--dhcp_lease_time=1"])
    cloud.create()
    cloud.add_fake_image()
    yield cloud
    cloud.stop()


def run(cloud, token, **more):
    """Launches one instance; the same token gives the same one."""
    ec2 = cloud.client("boto3").ec2
    answer = ec2.run_instances(ImageId=cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny", ClientToken=token, **more)
    return answer["Instances"][0]["InstanceId"]


def shown(cloud, instance):
    answer = cloud.client("boto3").ec2.describe_instances(InstanceIds=[instance])
    return answer["Reservations"][0]["Instances"][0]


def row(cloud, instance):
    """What the user sees, and the work under way."""
    return cloud.rows(f"select vm_state, task_state from instances where id = {int(instance[2:], 16)}")[0]


def until(cloud, instance, *states):
    """Waits until an instance is at rest in one of some states, and returns which."""
    wanted = [(state, None) for state in states]
    eventually(RECOVERY, f"{instance} is {' or '.join(states)}", lambda: row(cloud, instance) in wanted)
    return row(cloud, instance)[0]


def dies_at(cloud, point, act):
    """Does something that the process does not survive, and checks that it died where it should."""
    try:
        act()
    except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError):
        pass
    eventually(20, f"the process reaches {point}", cloud.died, every=0.02)
    assert cloud.process.returncode == REACHED, f"status {cloud.process.returncode}"
    assert f"Failpoint {point} is reached." in cloud.log.read_text(errors="replace").splitlines()[-3:]


def leave(cloud, *instances):
    """Ends what is left; then nothing is held by anybody."""
    ec2 = cloud.client("boto3").ec2
    if instances:
        ec2.terminate_instances(InstanceIds=list(instances))
    for instance in instances:
        until(cloud, instance, "terminated", "error")
        seen = shown(cloud, instance)
        assert seen["State"]["Name"] == "terminated" and seen["StateReason"]["Message"], seen
    assert cloud.rows("select count(*) from fixed_ips where instance_id is not null") == [(0,)], "an address is held"
    assert cloud.rows("select sum(instances), sum(cores) from quota_usages") == [(0, 0)], "quota is held"
    journal = (cloud.state / "instances" / "simulated-guests").read_text().split("\n")
    guests = dict(line.split(" ", 1) for line in journal if " " in line)
    assert all(guests.get(instance, "gone") == "gone" for instance in instances), "a guest is left"
    cloud.check()
    cloud.stop()


def test_every_failpoint_is_of_an_operation_that_is_tested_here():
    # Simulated guests have no interfaces: those of `link` are in test_vlan.py, those of `attach` in test_attach.py.
    tested = {"launch", "terminate", "unplaced", "refuse", "stop", "start", "reboot", "image", "link", "attach"}
    # Nor is there a way to an address of theirs: see test_failpoints_address.py.
    tested |= {"allocate", "release", "associate", "disassociate", "address"}
    assert {name.split(".")[0] for name in listed(None)} == tested


@pytest.mark.parametrize("point", listed("launch"))
def test_launch(cloud, point):
    cloud.start(f"--failpoint={point}")
    dies_at(cloud, point, lambda: run(cloud, point))
    cloud.start()
    # The client repeats what was not answered.
    instance = run(cloud, point)
    assert until(cloud, instance, "running", "error") == "running"
    assert cloud.rows(f"select count(*) from instances where client_token = '{point}'") == [(1,)], "one request, two instances"
    leave(cloud, instance)


@pytest.mark.parametrize("point", listed("terminate"))
def test_terminate(cloud, point):
    cloud.start(f"--failpoint={point}")
    instance = run(cloud, point)
    until(cloud, instance, "running")
    dies_at(cloud, point, lambda: cloud.client("boto3").ec2.terminate_instances(InstanceIds=[instance]))
    cloud.start()
    if point != "terminate.accepting":
        # It was accepted: nobody has to ask again.
        until(cloud, instance, "terminated")
    leave(cloud, instance)


@pytest.mark.parametrize("point", listed("unplaced"))
def test_terminate_before_there_is_a_host(cloud, point):
    cloud.start()
    host = cloud.rows("select host from compute_nodes")[0][0]
    cloud.manage("service", "disable", host, "nova-compute")
    cloud.stop()
    try:
        cloud.start(f"--failpoint={point}")
        # Just after the start, that there is no host is not believed.
        instance = run(cloud, point)
        assert row(cloud, instance) == ("pending", "scheduling")
        dies_at(cloud, point, lambda: cloud.client("boto3").ec2.terminate_instances(InstanceIds=[instance]))
        cloud.start()
        until(cloud, instance, "terminated")
    finally:
        cloud.manage("service", "enable", host, "nova-compute")
    leave(cloud, instance)


@pytest.mark.parametrize("point", listed("refuse"))
def test_no_host_is_to_be_had(cloud, point):
    cloud.start(f"--failpoint={point}")
    nowhere = {"Placement": {"AvailabilityZone": "nova:nowhere"}}
    dies_at(cloud, point, lambda: run(cloud, point, **nowhere))
    cloud.start()
    instance = run(cloud, point, **nowhere)
    until(cloud, instance, "error")
    assert shown(cloud, instance)["StateReason"]["Code"] == "Server.InsufficientInstanceCapacity"
    leave(cloud, instance)


@pytest.mark.parametrize("point", listed("stop") + listed("start") + listed("reboot"))
def test_stop_start_and_reboot(cloud, point):
    cloud.start(f"--failpoint={point}")
    instance = run(cloud, point)
    until(cloud, instance, "running")
    word = point.split(".")[0]

    def ask():
        ec2 = cloud.client("boto3").ec2
        {"stop": ec2.stop_instances, "start": ec2.start_instances, "reboot": ec2.reboot_instances}[word](InstanceIds=[instance])

    if word == "start":
        cloud.client("boto3").ec2.stop_instances(InstanceIds=[instance])
        until(cloud, instance, "stopped")
    dies_at(cloud, point, ask)
    cloud.start()
    if point.endswith(".accepting"):
        ask()
    until(cloud, instance, "stopped" if word == "stop" else "running")
    leave(cloud, instance)


@pytest.mark.parametrize("point", listed("image"))
def test_image_registration(cloud, point, tmp_path):
    file = tmp_path / "disk.raw"
    file.write_bytes(point.encode() * 512)
    words = ["image", "register", str(file), "--public"]
    died = cloud.run_manage(f"--failpoint={point}", *words)
    assert died.returncode == REACHED, f"status {died.returncode}: {died.stderr}"
    again = cloud.run_manage(*words)
    if point == "image.registered":
        assert again.returncode == 1 and "registered already" in again.stderr, again
    else:
        assert again.returncode == 0, again.stderr
    found = cloud.rows(f"select id, state from images where location = '{file}' and deleted = 0")
    assert [state for _, state in found] == ["available"], found
    stored = [path for path in (cloud.state / "images").rglob("*") if path.name.startswith(".")]
    assert stored == [], "a draft is left"
    cloud.manage("check", "--older-than=0")
    cloud.manage("image", "delete", f"ami-{found[0][0]:08x}")
    cloud.check()
