"""What is scarce goes to as many as there is of it, however many ask at the same instant."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import botocore.exceptions
import pytest

from cloud import PROJECT, Cloud
from servers import ENGINES
from wait import eventually

AT_ONCE = 64


@pytest.fixture(scope="module", params=ENGINES)
def small(request, servers, logs, tmp_path_factory):
    """Five daemons with room for thousands of simulated guests, and with few addresses."""
    folder = tmp_path_factory.mktemp("limits")
    # An address is kept back as long as the lease of its last guest may run.
    flags = ["--dhcp_lease_time=1"]
    log = logs / f"limits-{request.param}.log"
    cloud = Cloud(folder, hypervisor="simulated", log=log, port=18775, flags=flags, **servers.of(request.param))
    cloud.create(network=("10.44.0.0/26", "1", "64"))
    cloud.start()
    cloud.add_fake_image()
    yield cloud
    cloud.stop()


def test_a_quota_of_ten_lets_exactly_ten_of_64_parallel_requests_in(small):
    small.manage("project", "quota", PROJECT, "instances", "10")
    answers = launch_at_once(small)
    launched = [id for id, _ in answers if id]
    refused = Counter(code for _, code in answers if code)
    assert (len(launched), refused) == (10, {"InstanceLimitExceeded": AT_ONCE - 10})
    assert usage(small) == (10, 10)
    wait_for_rest(small, launched)

    terminate(small, launched)
    assert usage(small) == (0, 0)
    small.check()


def test_the_ten_last_addresses_go_to_exactly_ten_of_64_parallel_launches(small):
    small.manage("project", "quota", PROJECT, "instances", "300")
    eventually(20, "every address is free", lambda: all_are_free(small), every=0.2)
    usable = small.rows("select count(*) from fixed_ips where not reserved")[0][0]
    first = launch(small, usable - 10)
    assert set(wait_for_rest(small, first)) == {"running"}

    launched = [id for id, code in launch_at_once(small) if not code]
    assert len(launched) == AT_ONCE, "the quota has room for all"
    states = wait_for_rest(small, launched)
    assert Counter(states) == {"running": 10, "terminated": AT_ONCE - 10}
    for instance in described(small, launched):
        if instance["State"]["Name"] == "terminated":
            assert instance["StateReason"]["Code"] == "Server.InsufficientFreeAddressesInSubnet", instance["StateReason"]
            assert instance["StateReason"]["Message"], instance
    holders = taken(small)
    assert len(holders) == len({address for address, _ in holders}) == len({holder for _, holder in holders}) == usable
    small.check()

    terminate(small, first + launched)
    assert usage(small) == (0, 0)
    small.check()


def launch(cloud, count):
    answer = cloud.client("boto3").ec2.run_instances(ImageId=cloud.image, MinCount=count, MaxCount=count, InstanceType="m1.tiny")
    return [instance["InstanceId"] for instance in answer["Instances"]]


def launch_at_once(cloud):
    """Asks for one instance 64 times at the same instant; returns each id, or each error's code."""
    ec2 = cloud.client("boto3").ec2
    together = threading.Barrier(AT_ONCE)

    def ask(_):
        together.wait()
        try:
            answer = ec2.run_instances(ImageId=cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny")
            return answer["Instances"][0]["InstanceId"], None
        except botocore.exceptions.ClientError as error:
            return None, error.response["Error"]["Code"]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, range(AT_ONCE)))


def described(cloud, ids):
    answer = cloud.client("boto3").ec2.describe_instances(InstanceIds=ids)
    found = [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]
    assert {instance["InstanceId"] for instance in found} == set(ids)
    return found


def wait_for_rest(cloud, ids):
    """Waits until each is running or terminated; returns their states."""
    states = lambda: [instance["State"]["Name"] for instance in described(cloud, ids)]  # noqa: E731
    eventually(30, "all are running or terminated", lambda: set(states()) <= {"running", "terminated"}, every=0.2)
    return states()


def terminate(cloud, ids):
    cloud.client("boto3").ec2.terminate_instances(InstanceIds=ids)
    eventually(30, "all are terminated", lambda: {i["State"]["Name"] for i in described(cloud, ids)} == {"terminated"}, every=0.2)


def usage(cloud):
    """What the counters say."""
    return cloud.rows(f"select instances, cores from quota_usages where project_id = '{PROJECT}'")[0]


def all_are_free(cloud):
    """Nobody has an address, and none is kept back."""
    until = [free_after for (free_after,) in cloud.rows("select free_after from fixed_ips where free_after is not null")]
    now = datetime.now(UTC)
    return taken(cloud) == [] and all(moment.replace(tzinfo=moment.tzinfo or UTC) < now for moment in until)


def taken(cloud):
    return cloud.rows("select address, instance_id from fixed_ips where instance_id is not null order by address")
