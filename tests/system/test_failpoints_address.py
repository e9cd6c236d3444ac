"""Nova dies at each step of a floating address in turn, is started again, and the address leads to its guest or to nobody.

One process, on a host with a real interface and a real firewall, and a guest that is a namespace.
"""

import subprocess
from types import SimpleNamespace

import pytest

import netns
from lab import NETWORK
from test_failpoints import RECOVERY, dies_at, listed
from wait import eventually

PUBLIC = f"{NETWORK}.190"
# What is done in turn when an address comes to a guest.
COMES = [
    "associate.accepting", "associate.accepted", "associate.hinted", "address.translating", "address.translated", "address.forgotten",
    "address.binding", "address.announced", "address.bound", "address.bound", "address.bound",
]
# And when it leaves one. What comes before such a step must not pass it when it is mended: after the translation nothing does.
LEAVES = [
    "disassociate.accepting", "disassociate.accepted", "disassociate.hinted", "release.accepting", "release.accepted", "release.hinted",
    "address.unbinding", "address.unbound", "address.translating", "address.translated", "address.forgotten",
]


class Lab:
    """A host, a guest on it, and an address."""

    def __init__(self, folder, logs, switches):
        self.host = netns.a_host("points", 70, switches, logs)
        self.cloud = netns.made(folder, self.host, logs, "--host=points")

    def start(self):
        netns.start(self.cloud)
        self.cloud.manage("floating", "create", "points", f"{PUBLIC}/32")
        self.client = self.cloud.client("boto3")
        self.client.authorize("default", "icmp", -1, -1)
        self.client.authorize("default", "tcp", 80, 80)
        [instance] = self.client.ec2.run_instances(ImageId=self.cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny")["Instances"]
        self.client.wait(instance["InstanceId"], "running")
        self.guest = netns.Guest(self.client, instance["InstanceId"], self.host)
        self.guest.is_ready()

    def allocate(self):
        self.client.ec2.allocate_address()

    def associate(self):
        self.client.ec2.associate_address(InstanceId=self.guest.id, PublicIp=PUBLIC)

    def disassociate(self):
        self.client.ec2.disassociate_address(PublicIp=PUBLIC)

    def release(self):
        self.client.ec2.release_address(PublicIp=PUBLIC)

    def addresses(self):
        return self.client.ec2.describe_addresses()["Addresses"]

    def parts(self):
        """Of what makes an address lead to its guest, what is there."""
        [row] = self.cloud.rows(f"select fixed_ip_id is not null from floating_ips where address = '{PUBLIC}'")
        translated = self.host.run("nft", "list", "table", "ip", "nova_network").count(PUBLIC)
        return {
            "the row": bool(row[0]),
            "the address": f" {PUBLIC}/32 " in self.host.run("ip", "-4", "addr", "show", "eth0"),
            # Both maps and the set.
            "inward, outward and all": translated == 3,
            "any translation": translated > 0,
        }

    def answers(self):
        return subprocess.run(["ping", "-c", "1", "-W", "0.5", "-q", PUBLIC], capture_output=True).returncode == 0

    def is_whole(self):
        return all(self.parts().values()) and self.answers()

    def is_gone(self):
        return not any(self.parts().values()) and not self.answers()

    def again(self, *flags):
        """Starts the process anew, with a failpoint or without."""
        self.cloud.stop()
        self.cloud.start(*flags)

    def remove(self):
        try:
            self.cloud.stop()
        finally:
            self.host.remove()


@pytest.fixture(scope="module")
def lab(switches, logs, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("points"), logs, switches)
    try:
        lab.start()
        yield lab
    finally:
        lab.remove()


def test_every_step_is_tried():
    assert {*COMES, *LEAVES} == {point for family in ("associate", "disassociate", "release", "address") for point in listed(family)}


@pytest.mark.parametrize("point", listed("allocate"))
def test_allocate(lab, point):
    lab.again(f"--failpoint={point}")
    dies_at(lab.cloud, point, lab.allocate)
    lab.cloud.start()
    assert len(lab.addresses()) == (0 if point == "allocate.accepting" else 1), lab.addresses()
    lab.cloud.check()
    for address in lab.addresses():
        lab.client.ec2.release_address(PublicIp=address["PublicIp"])


@pytest.mark.parametrize("comes, leaves", zip(COMES, LEAVES, strict=True))
def test_associate_and_disassociate(lab, comes, leaves):
    if not lab.addresses():
        lab.allocate()
    lab.again(f"--failpoint={comes}")
    dies_at(lab.cloud, comes, lab.associate)
    lab.cloud.start(f"--failpoint={leaves}")
    if comes == "associate.accepting":
        assert lab.is_gone(), lab.parts()
        # The client repeats what was not answered.
        lab.associate()
    eventually(RECOVERY, "the address leads to its guest", lab.is_whole)
    lab.cloud.check()
    with netns.Place().talks(SimpleNamespace(address=PUBLIC, id=lab.guest.id), 80) as talk:
        assert talk.echoes("before")
        leave = lab.release if leaves.startswith("release") else lab.disassociate
        dies_at(lab.cloud, leaves, leave)
        lab.cloud.start()
        if leaves.endswith(".accepting"):
            assert lab.is_whole() and talk.echoes("as ever"), lab.parts()
            leave()
        eventually(RECOVERY, "the address leads to nobody", lab.is_gone)
        assert not talk.echoes("after", timeout=1), "a connection outlives what it came by"
    assert len(lab.addresses()) == (0 if leaves.startswith("release") else 1)
    lab.cloud.check()
