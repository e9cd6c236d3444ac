"""Five daemons as an administrator meets them: they start, stop, report, and are taken out of service."""

import random
import signal
import subprocess
from collections import Counter

import botocore.exceptions
import pytest

from cloud import Cloud
from load import insist, states
from wait import eventually, never

REPORT = ["--report_interval=1", "--service_down_time=5"]


@pytest.fixture(scope="module")
def cloud(servers, logs, tmp_path_factory):
    """Simulated guests on two hosts, each with a daemon and a state folder of its own."""
    folder = tmp_path_factory.mktemp("daemons")
    cloud = Cloud(folder, hypervisor="simulated", log=logs / "daemons.log", port=18777, flags=["--host=one", *REPORT], **servers.of("mariadb"))
    add_host(cloud, "two")
    cloud.create()
    cloud.add_fake_image()
    cloud.start()
    yield cloud
    cloud.stop()


def add_host(cloud, host):
    cloud.add("nova-compute", f"--host={host}", f"--state_path={cloud.folder}/{host}", key=host)


def launch(cloud, count):
    answer = cloud.client("boto3").ec2.run_instances(ImageId=cloud.image, MinCount=count, MaxCount=count, InstanceType="m1.tiny")
    return [instance["InstanceId"] for instance in answer["Instances"]]


def all_are(cloud, ids, state, within=30):
    ec2 = cloud.client("boto3").ec2
    eventually(within, f"all are {state}", lambda: set(states(ec2, ids).values()) == {state}, every=0.1)


def terminate(cloud, ids):
    cloud.client("boto3").ec2.terminate_instances(InstanceIds=ids)
    all_are(cloud, ids, "terminated")


def hosts(cloud, ids):
    """How many of the instances each host has."""
    numbers = ", ".join(str(int(id.removeprefix("i-"), 16)) for id in ids)
    return Counter(host for (host,) in cloud.rows(f"select host from instances where id in ({numbers})"))


def test_daemons_start_in_any_order_with_servers_absent_and_are_healthy_when_these_come(cloud, servers):
    cloud.stop()
    database, broker = cloud.database, servers["rabbitmq"]
    database.kill()
    broker.kill()
    daemons = list(cloud.daemons.values())
    random.shuffle(daemons)
    print("in this order:", [daemon.name for daemon in daemons])
    for daemon in daemons:
        daemon.begin()
    for daemon in daemons:
        daemon.wait()
        assert "database" in daemon.health(), f"{daemon.name} does not miss its database"
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        cloud.client("boto3").zones()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (500, 503)

    broker.begin()
    database.start()
    broker.wait()
    for daemon in daemons:
        eventually(15, f"{daemon.name} is healthy", lambda: daemon.health() == "ok", every=0.1)
    ids = insist(launch, cloud=cloud, count=4)
    all_are(cloud, ids, "running")
    assert hosts(cloud, ids) == {"one": 2, "two": 2}
    terminate(cloud, ids)
    cloud.check()


@pytest.mark.parametrize("binary", ["nova-compute", "nova-network"])
def test_a_second_process_of_one_host_name_is_refused(cloud, binary, tmp_path):
    command = [*cloud.daemons[binary].command, f"--state_path={tmp_path}/state", "--status_port=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd="/")
    assert done.returncode == 1, done.stderr
    assert f"another {binary} works as host one" in done.stderr, done.stderr
    assert cloud.daemons[binary].health() == "ok", "the first one suffered"


def test_asked_to_stop_they_finish_and_what_is_left_goes_on_at_the_next_start(cloud):
    ids = launch(cloud, 30)
    # It fails where one ends with another status than 0.
    cloud.stop()
    cloud.start()
    all_are(cloud, ids, "running")
    terminate(cloud, ids)
    cloud.check()


def test_a_hangup_opens_the_log_again(cloud, tmp_path):
    cloud.stop()
    logs = tmp_path / "logs"
    logs.mkdir()
    commands = {key: daemon.command for key, daemon in cloud.daemons.items()}
    for key, daemon in cloud.daemons.items():
        daemon.command = [*daemon.command, f"--logfile={logs}/{key}.log"]
    cloud.start()
    for key, daemon in cloud.daemons.items():
        log = logs / f"{key}.log"
        assert "Ready" in log.read_text()
        log.rename(logs / f"{key}.log.1")
        daemon.signal(signal.SIGHUP)
        eventually(5, f"{key} has a new log", log.exists)
        assert daemon.runs()
    cloud.stop()
    for key, daemon in cloud.daemons.items():
        assert "Stopped" in (logs / f"{key}.log").read_text(), "the new log is not written to"
        daemon.command = commands[key]
    cloud.start()


def test_a_disabled_host_takes_no_new_instances(cloud):
    before = launch(cloud, 4)
    all_are(cloud, before, "running")
    assert hosts(cloud, before) == {"one": 2, "two": 2}
    cloud.manage("service", "disable", "two", "nova-compute")
    during = launch(cloud, 6)
    all_are(cloud, during, "running")
    assert hosts(cloud, during) == {"one": 6}
    assert set(states(cloud.client("boto3").ec2, before).values()) == {"running"}, "what it has it keeps"

    cloud.manage("service", "enable", "two", "nova-compute")
    after = []

    def two_gets_one():
        after.extend(launch(cloud, 2))
        all_are(cloud, after, "running")
        return "two" in hosts(cloud, after)

    # A scheduler keeps hosts in memory, and sees within a tick that one may take part again.
    eventually(10, "the host gets instances again", two_gets_one, every=0.5)
    terminate(cloud, before + during + after)
    cloud.check()


def test_instances_of_a_dead_host_wait_for_it_until_it_is_evacuated(cloud):
    ids = launch(cloud, 4)
    all_are(cloud, ids, "running")
    # What was terminated just now may still count in the scheduler's memory, so that the halves need not be equal.
    split = hosts(cloud, ids)
    assert split["two"] > 0
    cloud.daemons["two"].kill()
    eventually(15, "the host counts as dead", lambda: is_dead(cloud, "two"), every=0.3)
    more = launch(cloud, 4)
    all_are(cloud, more, "running")
    assert hosts(cloud, more) == {"one": 4}, "a dead host takes no new instances"
    never(3, "the instances of a dead host are touched", lambda: hosts(cloud, ids) != split)
    assert set(states(cloud.client("boto3").ec2, ids).values()) == {"running"}

    cloud.manage("host", "evacuate", "two")
    eventually(20, "they run elsewhere", lambda: hosts(cloud, ids) == {"one": 4}, every=0.2)
    all_are(cloud, ids, "running")
    # It comes back, and gives up what it had.
    cloud.daemons["two"].start()
    eventually(20, "the host is back", lambda: not is_dead(cloud, "two"), every=0.3)
    eventually(20, "nothing is amiss", lambda: cloud.run_manage("check").returncode == 0, every=0.5)
    assert hosts(cloud, ids) == {"one": 4}
    terminate(cloud, ids + more)
    cloud.check()


def is_dead(cloud, host):
    """What `service list` says of its nova-compute."""
    [line] = [line for line in cloud.manage("service", "list").splitlines() if "nova-compute" in line and f" {host} " in f" {line} "]
    return "XXX" in line
