"""Nova dies at each step of a floating address in turn, is started again, and the address leads to its guest or to nobody.

One process, on a host with a real interface and a real firewall, and a guest that is a namespace.
"""

from types import SimpleNamespace

import pytest

import netns
from lab import NETWORK
from test_failpoints import RECOVERY, dies_at, listed
from wait import eventually

PUBLIC = f"{NETWORK}.190"
# What the network's host does when an address comes to a guest, and when it leaves one.
COMES = [f"address.{step}" for step in ("translating", "translated", "forgotten", "binding", "announced", "bound")]
LEAVES = [f"address.{step}" for step in ("unbinding", "unbound", "translating", "translated", "forgotten")]


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
            "an answer": netns.Place().pings(SimpleNamespace(address=PUBLIC)),
        }

    def is_whole(self):
        return all(self.parts().values())

    def is_gone(self):
        return not any(self.parts().values())

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


@pytest.fixture
def allocated(lab):
    """The lab, with the address allocated and not associated; afterwards it is free."""
    if not lab.addresses():
        lab.allocate()
    assert lab.is_gone()
    yield lab
    if lab.addresses():
        lab.release()
    eventually(RECOVERY, "the address is gone", lab.is_gone)


def test_every_step_is_tried():
    assert set(listed("address")) == {*COMES, *LEAVES}


@pytest.mark.parametrize("point", listed("allocate"))
def test_allocate(lab, point):
    lab.again(f"--failpoint={point}")
    dies_at(lab.cloud, point, lab.allocate)
    lab.cloud.start()
    assert len(lab.addresses()) == (0 if point == "allocate.accepting" else 1), lab.addresses()
    lab.cloud.check()
    for address in lab.addresses():
        lab.client.ec2.release_address(PublicIp=address["PublicIp"])


@pytest.mark.parametrize("point", listed("associate") + COMES)
def test_associate(allocated, point):
    lab = allocated
    lab.again(f"--failpoint={point}")
    dies_at(lab.cloud, point, lab.associate)
    lab.cloud.start()
    if point == "associate.accepting":
        assert lab.is_gone(), lab.parts()
        # The client repeats what was not answered.
        lab.associate()
    eventually(RECOVERY, f"the address leads to its guest; {lab.parts()}", lab.is_whole)
    lab.cloud.check()


@pytest.mark.parametrize("point", listed("disassociate") + listed("release") + LEAVES)
def test_disassociate_and_release(allocated, point):
    lab = allocated
    lab.associate()
    eventually(RECOVERY, "the address leads to its guest", lab.is_whole)
    lab.again(f"--failpoint={point}")
    leave = lab.release if point.startswith("release") else lab.disassociate
    with netns.Place().talks(SimpleNamespace(address=PUBLIC, id=lab.guest.id), 80) as talk:
        assert talk.echoes("before")
        dies_at(lab.cloud, point, leave)
        lab.cloud.start()
        if point.endswith(".accepting"):
            assert lab.is_whole() and talk.echoes("as ever"), lab.parts()
            leave()
        eventually(RECOVERY, f"the address leads to nobody; {lab.parts()}", lab.is_gone)
        assert not talk.echoes("after"), "a connection outlives what it came by"
    assert len(lab.addresses()) == (0 if point.startswith("release") else 1)
    lab.cloud.check()
