"""Floating addresses as each client asks for them: boto 2.49 as of today and as euca2ools spoke in 2010, boto3 with what Terraform calls, and aws-cli."""

import re

import boto.exception
import botocore.exceptions
import pytest

from clients import CLIENTS, SigV2Connection
from cloud import Cloud
from wait import eventually

POOL = [f"203.0.113.{last}" for last in range(4)]
QUOTA = 3


@pytest.fixture(scope="module")
def cloud(logs, tmp_path_factory):
    """One process with simulated guests: nobody binds these addresses."""
    cloud = Cloud(
        tmp_path_factory.mktemp("addresses"), hypervisor="simulated", log=logs / "addresses.log", port=18773,
        flags=["--fake_network", f"--quota_floating_ips={QUOTA}"],
    )
    cloud.create()
    cloud.add_fake_image()
    cloud.bob = re.search(r"EC2_ACCESS_KEY=(\S+)\n.*EC2_SECRET_KEY=(\S+)", cloud.manage("user", "create", "bob")).groups()
    cloud.manage("project", "create", "rival", "bob")
    for project in ([], ["rival"]):
        cloud.manage("role", "add", "bob", "netadmin", *project)
    cloud.manage("floating", "create", "netns0", "203.0.113.0/30")
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def rival(cloud):
    """Somebody of another project, who is no administrator."""
    access, secret = cloud.bob
    return CLIENTS["boto3"](cloud.url, f"{access}:rival", secret).ec2


@pytest.fixture(scope="module")
def instances(cloud):
    client = cloud.client("boto3")
    ids = [client.run(cloud.image, None, "default", "") for _ in range(2)]
    for id in ids:
        client.wait(id, "running")
    return ids


@pytest.fixture(autouse=True)
def all_are_free_again(cloud):
    yield
    assert cloud.rows("select count(*) from floating_ips where project_id is not null or fixed_ip_id is not null") == [(0,)]
    cloud.check()


def refused(code, call, *words, **more):
    """A client error of that code, whichever client raises it."""
    with pytest.raises((boto.exception.EC2ResponseError, botocore.exceptions.ClientError, AssertionError)) as raised:
        call(*words, **more)
    error = raised.value
    said = error.error_code if isinstance(error, boto.exception.EC2ResponseError) else str(error)
    assert code in said


def of_2010(cloud):
    """boto as euca2ools 1.2 and 1.3 used it."""
    now = cloud.client("boto 2.49").ec2
    return SigV2Connection(
        now.aws_access_key_id, now.aws_secret_access_key, is_secure=False, port=now.port, path="/services/Cloud/", region=now.region,
        api_version="2009-11-30",
    )


@pytest.mark.parametrize("of", [of_2010, lambda cloud: cloud.client("boto 2.49").ec2], ids=["2009-11-30", "2014-10-01"])
def test_boto(cloud, instances, of):
    ec2 = of(cloud)
    one, two = instances

    def shown(*addresses, **filters):
        return {address.public_ip: address.instance_id for address in ec2.get_all_addresses(list(addresses), filters or None)}

    def seen(id):
        instance = ec2.get_all_instances([id])[0].instances[0]
        return instance.ip_address, instance.dns_name, instance.private_ip_address

    private = seen(one)[2]
    assert seen(one)[0] is None and seen(one)[1] == private
    first, second = ec2.allocate_address(), ec2.allocate_address()
    assert first.domain == "standard" and {first.public_ip, second.public_ip} <= set(POOL)
    assert first.public_ip != second.public_ip
    assert shown() == {first.public_ip: "", second.public_ip: ""}
    assert ec2.associate_address(one, first.public_ip)
    assert shown(first.public_ip) == {first.public_ip: one}
    assert seen(one) == (first.public_ip, first.public_ip, private)
    assert ec2.associate_address(two, first.public_ip), "it moves"
    assert seen(one)[0] is None and seen(two)[0] == first.public_ip
    assert ec2.associate_address(two, second.public_ip), "another takes its place"
    assert shown() == {first.public_ip: "", second.public_ip: two}
    assert ec2.disassociate_address(second.public_ip) and ec2.disassociate_address(second.public_ip), "twice is no mistake"
    assert seen(two)[0] is None
    assert ec2.associate_address(one, second.public_ip)
    assert ec2.release_address(second.public_ip), "also of one that is associated"
    assert seen(one)[0] is None and shown() == {first.public_ip: ""}
    refused("InvalidAddress.NotFound", ec2.release_address, second.public_ip)
    refused("InvalidAddress.NotFound", ec2.get_all_addresses, [second.public_ip])
    # As an object: by the allocation where the version knows it.
    [address] = ec2.get_all_addresses()
    assert address.associate(one)
    [address] = ec2.get_all_addresses()
    assert address.disassociate() and address.release()


def test_boto3_and_what_terraform_calls(cloud, instances, rival):
    ec2 = cloud.client("boto3").ec2
    one, two = instances
    made = ec2.allocate_address(Domain="vpc")
    id, address = made["AllocationId"], made["PublicIp"]
    assert made["Domain"] == "vpc"

    def only(**wanted):
        [found] = ec2.describe_addresses(**wanted)["Addresses"]
        return found

    by = lambda name, value: {"Filters": [{"Name": name, "Values": [value]}]}  # noqa: E731
    assert only(AllocationIds=[id]) == only(**by("allocation-id", id)) == only(PublicIps=[address])
    assert only()["InstanceId"] == "" and "AssociationId" not in only()
    [attribute] = ec2.describe_addresses_attribute(AllocationIds=[id], Attribute="domain-name")["Addresses"]
    assert attribute == {"PublicIp": address, "AllocationId": id}

    association = ec2.associate_address(AllocationId=id, InstanceId=one)["AssociationId"]
    found = only(**by("association-id", association))
    assert (found["InstanceId"], found["AssociationId"], found["Domain"]) == (one, association, "vpc")
    private = ec2.describe_instances(InstanceIds=[two])["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
    refused("Resource.AlreadyAssociated", ec2.associate_address, AllocationId=id, PrivateIpAddress=private, AllowReassociation=False)
    moved = ec2.associate_address(AllocationId=id, PrivateIpAddress=private, AllowReassociation=True)["AssociationId"]
    assert only(**by("private-ip-address", private))["InstanceId"] == two and moved != association
    seen = ec2.describe_instances(Filters=[{"Name": "ip-address", "Values": [address]}])["Reservations"][0]["Instances"][0]
    assert (seen["InstanceId"], seen["PublicIpAddress"], seen["PublicDnsName"]) == (two, address, address)
    refused("InvalidAssociationID.NotFound", ec2.disassociate_address, AssociationId=association)
    ec2.disassociate_address(AssociationId=moved)
    assert ec2.describe_addresses(**by("association-id", moved))["Addresses"] == []

    refused("InvalidAllocationID.NotFound", rival.release_address, AllocationId=id)
    refused("InvalidAllocationID.NotFound", rival.associate_address, AllocationId=id, InstanceId=one)
    refused("DryRunOperation", ec2.release_address, AllocationId=id, DryRun=True)
    ec2.release_address(AllocationId=id)
    refused("InvalidAllocationID.NotFound", ec2.describe_addresses, AllocationIds=[id])


def test_the_quota_and_the_pool_end(cloud, rival):
    ec2 = cloud.client("boto3").ec2
    held = [ec2.allocate_address()["PublicIp"] for _ in range(QUOTA)]
    refused("AddressLimitExceeded", ec2.allocate_address)
    held.append(rival.allocate_address()["PublicIp"])
    assert sorted(held) == POOL
    refused("InsufficientAddressCapacity", rival.allocate_address)
    for address in held:
        (rival if address == held[-1] else ec2).release_address(PublicIp=address)


def test_aws_cli(cloud, instances):
    aws = cloud.client("aws-cli").aws
    address = aws("allocate-address")["PublicIp"]
    aws("associate-address", "--instance-id", instances[0], "--public-ip", address)
    [found] = aws("describe-addresses", "--filters", f"Name=instance-id,Values={instances[0]}")["Addresses"]
    assert (found["PublicIp"], found["Domain"]) == (address, "standard")
    aws("disassociate-address", "--association-id", found["AssociationId"])
    aws("release-address", "--allocation-id", found["AllocationId"])


def test_the_end_of_an_instance_leaves_the_address_to_the_project(cloud):
    client = cloud.client("boto3")
    id = client.run(cloud.image, None, "default", "")
    client.wait(id, "running")
    address = client.ec2.allocate_address()["PublicIp"]
    client.ec2.associate_address(PublicIp=address, InstanceId=id)
    refused("status 1", cloud.manage, "project", "scrub", "acme")
    client.terminate(id)
    client.wait(id, "terminated")
    eventually(10, "it is associated no more", lambda: client.ec2.describe_addresses()["Addresses"][0]["InstanceId"] == "")
    cloud.manage("project", "scrub", "acme")
    assert client.ec2.describe_addresses()["Addresses"] == []
