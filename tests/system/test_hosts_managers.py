"""Real guests on two compute hosts under the managers of which `test_hosts.py` says nothing: a guest on each, which reach each other.

Under FlatManager an administrator made the bridges, and guests learn their addresses from a disk. Under VxlanManager the project's
network is in a VXLAN.
"""

import pytest

from spread import COMPUTE, Spread

FLAT, VXLAN = "Flat", "Vxlan"
FIRST = {FLAT: 21, VXLAN: 24}
NETWORK = {FLAT: ("10.44.0.0/24", "1", "256"), VXLAN: ("10.44.0.0/24", "2", "128", "16000000")}


def make_bridge(host, *addresses):
    """What the guide has in /etc/network/interfaces."""
    for words in [("add", "br100", "type", "bridge"), ("set", "eth1", "master", "br100"), ("set", "br100", "up")]:
        host.run("ip", "link", *words)
    for address in addresses:
        host.run("ip", "addr", "add", address, "dev", "br100")


@pytest.fixture(scope="module", params=[FLAT, VXLAN])
def lab(request, servers, switches, logs, tmp_path_factory):
    manager = request.param
    flag = f"--network_manager=nova.network.manager.{manager}Manager"
    lab = Spread(manager.lower(), FIRST[manager], tmp_path_factory.mktemp(manager), logs, servers, switches, flag)
    lab.manager = manager
    try:
        if manager == FLAT:
            make_bridge(lab.controller, "10.44.0.1/24")
            for host in lab.compute.values():
                make_bridge(host)
        lab.start(NETWORK[manager])
        yield lab
    finally:
        lab.remove()


@pytest.fixture(scope="module")
def guests(lab, tmp_path_factory):
    """By host, as the controller sees them."""
    client = lab.cloud.client("boto3")
    private_key = client.create_key_pair("pair")
    client.authorize("default", "icmp", -1, -1)
    client.authorize("default", "tcp", 22, 22)
    ids = {}
    for host in COMPUTE:
        placed = {"AvailabilityZone": f"nova:{host}"}
        answer = client.ec2.run_instances(ImageId=lab.cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny", KeyName="pair", Placement=placed)
        ids[host] = answer["Instances"][0]["InstanceId"]
    folder = tmp_path_factory.mktemp("pair")
    for id in ids.values():
        client.wait(id, "running")
    guests = {host: lab.cloud.guest(client.address(id), private_key, folder) for host, id in ids.items()}
    for host, guest in guests.items():
        guest.id = ids[host]
    return guests


def test_guests_on_two_hosts_reach_each_other(lab, guests):
    one, far = (guests[host] for host in COMPUTE)
    for guest in (one, far):
        guest.answers()
        assert guest.ssh("cat /run/instance-id") == guest.id
    mtu = 1450 if lab.manager == VXLAN else 1500
    for guest, other in ((one, far), (far, one)):
        assert guest.ssh("cat /sys/class/net/eth0/mtu") == str(mtu)
        for size in (56, mtu - 28):
            assert " 0% packet loss" in guest.ssh(f"ping -c 2 -W 2 -s {size} {other.address} || true"), f"{guest.address} does not reach {other.address}"
    lab.check()


def test_the_way_between_the_hosts_is_the_one_that_the_manager_makes(lab, guests):
    for host in lab.compute.values():
        ports = host.run("ip", "-br", "link", "show", "master", "br100" if lab.manager == FLAT else "br16000000").split("\n")
        names = sorted(line.split()[0].split("@")[0] for line in ports if line)
        assert [name[:5] for name in names] == (["eth1", "tap00"] if lab.manager == FLAT else ["tap00", "vxlan"])
        if lab.manager == VXLAN:
            assert "mtu 1450" in host.run("ip", "link", "show", names[0]), "the tap has the MTU of its bridge"
    dnsmasq = list((lab.cloud.state / "networks").glob("*.pid"))
    assert len(dnsmasq) == (0 if lab.manager == FLAT else 1)
