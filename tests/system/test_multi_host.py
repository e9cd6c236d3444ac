"""A router on each host: two compute hosts, each of which serves its own guests, and a controller that serves none.

The test's own host is the world.
"""

import os
import subprocess
from types import SimpleNamespace

import pytest

import netns
from cloud import as_it_is
from lab import NETWORK, OUTSIDE
from wait import eventually, never

COMPUTE = ["multi1", "multi2"]
RANGE = "10.44.0.0/24"
FLOATING = [f"{NETWORK}.210", f"{NETWORK}.211"]
METADATA = "http://169.254.169.254/latest/meta-data/instance-id"
WORLD = SimpleNamespace(address=OUTSIDE)
SOON = 30


class Lab:
    """The hosts, and a cloud whose network has a router on each of them."""

    def __init__(self, folder, logs, servers, switches):
        self.controller = netns.a_host("multi0", 70, switches, logs)
        self.hosts = {name: netns.a_host(name, 71 + n, switches, logs) for n, name in enumerate(COMPUTE)}
        self.cloud = netns.made(folder, self.controller, logs, "--host=multi0", "--flat_interface=eth1", "--multi_host", **servers.of("mariadb"))
        for name in ("nova-compute", "nova-network"):
            del self.cloud.daemons[name]
        self.own = {}
        for name, host in self.hosts.items():
            state = folder / name
            state.mkdir()
            # dnsmasq has a user of its own, who must be able to walk to the list of guests.
            os.chmod(state, 0o711)
            own = [f"--host={name}", f"--my_ip={host.address}", f"--state_path={state}", f"--s3_host={self.controller.address}"]
            self.own[name] = own
            # The metadata service knows guests by their addresses, so it is where they are routed.
            for daemon in ("nova-compute", "nova-network", "nova-api"):
                self.cloud.add(daemon, *own, key=f"{daemon}-{name}", inside=host.command)

    def addresses(self, name):
        """What the host has on the bridge."""
        lines = self.hosts[name].run("ip", "-o", "-4", "addr", "show", "dev", "br100").splitlines()
        return [line.split()[3].split("/")[0] for line in lines]

    def router(self, name):
        """The host's own address, as the rows have it."""
        [(address,)] = self.cloud.rows(f"select address from fixed_ips where host = '{name}' and deleted = false")
        return address

    def has(self, name, address):
        return f"inet {address}/" in self.hosts[name].run("ip", "-o", "-4", "addr")

    def manage_on(self, name, *words):
        return self.cloud.manage(*self.own[name], *words, inside=self.hosts[name].command)

    def well(self, name, guest):
        """What the doctor says of a guest on its host, if nothing is broken."""
        done = self.cloud.run_manage(*self.own[name], "doctor", "instance", guest.id, inside=self.hosts[name].command)
        return done.stdout if done.returncode == 0 else None

    def check(self):
        for name in COMPUTE:
            self.manage_on(name, "check")

    def host_of(self, id):
        [(host,)] = self.cloud.rows(f"select host from instances where id = {int(id[2:], 16)}")
        return host

    def kill_router(self, name):
        """What serves the guests of a host dies and is gone: daemon, DHCP server, and the address on the bridge."""
        self.cloud.daemons[f"nova-network-{name}"].kill()
        folder = self.cloud.folder / name / "networks"
        [pid] = [file.read_text().strip() for file in folder.glob("nova-br100.pid")]
        self.hosts[name].run("kill", "-9", pid)
        self.hosts[name].run("ip", "addr", "del", f"{self.router(name)}/24", "dev", "br100")

    def remove(self):
        self.cloud.stop()
        for host in [*self.hosts.values(), self.controller]:
            host.remove()


@pytest.fixture(scope="module")
def lab(servers, switches, logs, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("multi"), logs, servers, switches)
    try:
        netns.start(lab.cloud)
        yield lab
    finally:
        lab.remove()


@pytest.fixture(scope="module")
def guests(lab):
    """One on each host, by the host's name."""
    client = lab.cloud.client("boto3")
    answer = client.ec2.run_instances(ImageId=lab.cloud.image, MinCount=2, MaxCount=2, InstanceType="m1.tiny")
    ids = [instance["InstanceId"] for instance in answer["Instances"]]
    for id in ids:
        client.wait(id, "running")
    guests = {lab.host_of(id): netns.Guest(client, id, lab.hosts[lab.host_of(id)]) for id in ids}
    assert sorted(guests) == COMPUTE, "the guests are not spread"
    for guest in guests.values():
        guest.is_ready()
    return guests


def inside(guest, *words):
    return guest.host.run("ip", "netns", "exec", guest.namespace, *words)


def offered(guest):
    """Whether any DHCP server answers the guest; its address stays as it is."""
    command = guest.inside("busybox", "udhcpc", "-n", "-q", "-f", "-t", "3", "-T", "1", "-i", "eth0", "-s", "/bin/true")
    return subprocess.run(command, capture_output=True).returncode == 0


def metadata(guest):
    return inside(guest, "curl", "-sS", "--max-time", "5", METADATA).strip()


def test_guests_are_served_by_their_own_host(lab, guests):
    one, two = (guests[name] for name in COMPUTE)
    routers = [lab.router(name) for name in COMPUTE]
    assert len({*routers, one.address, two.address}) == 4
    for name, guest in guests.items():
        assert lab.addresses(name) == [lab.router(name)]
        assert inside(guest, "ip", "route", "show", "default").split()[2] == lab.router(name)
        assert metadata(guest) == guest.id
        assert guest.pings(WORLD), "the world"
        guest.renews(lab.router(name))
    assert one.pings(two) and two.reaches(one, 22), "across the hosts, and the ports of their project"
    shown = lab.cloud.manage("network", "list", "--output", "json")
    assert all(f"{name} ({lab.router(name)})" in shown for name in COMPUTE), shown
    lab.check()


def test_floating_addresses_are_where_their_guests_are(lab, guests):
    world = netns.Place(as_it_is)
    client = guests[COMPUTE[0]].client
    client.authorize("default", "tcp", 22, 22)
    client.authorize("default", "icmp", -1, -1)
    for name, guest in guests.items():
        # A guest knows of its lease before the row does.
        said, _ = eventually(SOON, f"nothing is broken on {name}", lambda: lab.well(name, guest))
        assert f"nova-network on {name} serves {RANGE}" in said
    lab.cloud.manage("floating", "create", "multi0", f"{NETWORK}.210/31")
    for name, address in zip(COMPUTE, FLOATING, strict=True):
        assert client.ec2.allocate_address()["PublicIp"] == address
        client.ec2.associate_address(InstanceId=guests[name].id, PublicIp=address)
    for name, address in zip(COMPUTE, FLOATING, strict=True):
        public = SimpleNamespace(address=address, id=guests[name].id)
        eventually(SOON, "the floating address answers", lambda: world.reaches(public, 22))
        eventually(SOON, "its guest's host has it", lambda: [other for other in COMPUTE if lab.has(other, address)] == [name])
    # Associated with the other's guest, an address moves to the other host.
    client.ec2.associate_address(InstanceId=guests["multi2"].id, PublicIp=FLOATING[0])
    public = SimpleNamespace(address=FLOATING[0], id=guests["multi2"].id)
    # Until then it may still be the other guest who answers.
    eventually(SOON, "the other host has it", lambda: [other for other in COMPUTE if lab.has(other, FLOATING[0])] == ["multi2"])
    eventually(SOON, "it answers there", lambda: world.reaches(public, 22))
    lab.check()


def test_the_loss_of_one_router_is_no_others_loss(lab, guests):
    one, two = (guests[name] for name in COMPUTE)
    assert offered(one) and offered(two), "the control: each is answered"
    lab.kill_router("multi1")
    assert not one.pings(WORLD), "the control: nothing else routes the guests of that host"
    assert not offered(one), "the server of another host hears the question, and answers it"
    assert two.pings(WORLD) and metadata(two) == two.id and offered(two)
    two.renews(lab.router("multi2"))
    never(2, "the other host's guest is disturbed", lambda: not two.pings(WORLD))
    assert one.pings(two), "on the same bridge all is well"

    lab.cloud.daemons["nova-network-multi1"].start()
    eventually(SOON, "the guests of the first host reach the world again", lambda: one.pings(WORLD))
    one.renews(lab.router("multi1"))
    assert metadata(one) == one.id
    lab.check()


def test_a_lost_hosts_guests_are_served_where_they_go(lab, guests):
    client, guest = guests["multi1"].client, guests["multi1"]
    address, old = guest.address, lab.router("multi1")
    for daemon in ("nova-compute", "nova-network", "nova-api"):
        lab.cloud.daemons.pop(f"{daemon}-multi1").stop()
    lab.cloud.manage("host", "evacuate", "multi1", "--force")
    client.wait(guest.id, "running")
    moved = netns.Guest(client, guest.id, lab.hosts["multi2"])
    moved.is_ready()
    assert moved.address == address
    assert inside(moved, "ip", "route", "show", "default").split()[2] == lab.router("multi2")
    assert metadata(moved) == moved.id
    lab.cloud.manage("service", "delete", "multi1", "nova-network")
    assert lab.cloud.rows(f"select host from fixed_ips where address = '{old}'") == [(None,)], "the address is free again"
