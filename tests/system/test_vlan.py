"""VLANs on hosts with a kernel of their own: a network host and a compute host on one trunk, and two projects.

Each project has a network of its own, and what is said in one is not heard in the other. The tests build on each other, in the order of this file.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import netns
import vm
from cloud import BIN, PROJECT, USER
from wait import eventually

RIVAL = "rival"
TAGS = {PROJECT: 100, RIVAL: 101}
STATE = "/var/lib/nova"
# What takes a second outside takes ten on these hosts, and more where other work is done.
SLOWLY = 180
BOTH = ["ping", "tcp"]
IPV4, ARP = "0800", "0806"
# A guest that no Nova started: the VPN server of the project, at the address that is kept for it. It answers as OpenVPN does.
VPN = """
set -e
ip netns add vpn
ip link add name vpn-wire type veth peer name eth0 netns vpn
ip link set vpn-wire master {bridge} up
ip -n vpn addr add {private}/27 dev eth0
ip -n vpn link set eth0 up
ip -n vpn route add default via {gateway}
exec ip netns exec vpn {python} -c '
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("{private}", 1194))
while True:
    said, client = server.recvfrom(100)
    server.sendto(bytes([0x40]) + bytes(13) + said[1:9] + bytes(4), client)
'
"""


class Lab:
    """A controller as everywhere, a network host and a compute host with kernels of their own, and a cloud spread over them."""

    def __init__(self, folder, logs, servers, switches, undo):
        trunk = vm.Trunk()
        undo(trunk.remove)
        self.hosts = {}
        for name, number in (("vlan-net", 61), ("vlan-compute", 62)):
            self.hosts[name] = vm.Host(name, number, logs, folder)
            undo(self.hosts[name].remove)
        self.net, self.compute = self.hosts.values()
        self.taps = [vm.Tap(host.taps["trunk"], folder) for host in self.hosts.values()]
        for tap in self.taps:
            undo(tap.stop)
        self.controller = netns.a_host("vlan0", 60, switches, logs)
        undo(self.controller.remove)
        # Who asks for metadata is known by his address: it is not translated on the way to the API, which must know the way back.
        self.controller.run("ip", "route", "add", "10.45.0.0/16", "via", self.net.address)
        flags = [
            "--host=vlan0", "--network_manager=nova.network.manager.VlanManager", "--vlan_interface=eth1", "--vlan_start=100",
            "--fixed_range=10.45.0.0/16", "--dmz_cidr=198.51.100.60/32", f"--s3_host={self.controller.address}",
            f"--ec2_dmz_host={self.controller.address}",
        ]
        self.cloud = netns.made(folder, self.controller, logs, *flags, **servers.of("mariadb"))
        undo(self.cloud.stop)
        # It is started by the test that kills it.
        del self.cloud.daemons["nova-compute"]
        self.own = {host.name: [f"--host={host.name}", f"--my_ip={host.address}", f"--state_path={STATE}"] for host in self.hosts.values()}
        self.add("nova-network", self.net)

    def add(self, daemon, host):
        """Adds a daemon on one of these hosts."""
        added = self.cloud.add(daemon, *self.own[host.name], inside=host.command)
        added.ready_within = SLOWLY
        return added

    def start(self):
        cloud = self.cloud
        cloud.create(network=("10.45.0.0/24", "4", "32"))
        cloud.add_fake_image()
        cloud.manage("project", "create", RIVAL, USER)
        for host in self.hosts.values():
            host.wait()
            host.write(cloud.conf, cloud.conf.read_text())
            host.run("mkdir", "-p", STATE)
        cloud.start()

    def launch(self, project):
        client = self.cloud.client("boto3", project=project)
        [made] = client.ec2.run_instances(ImageId=self.cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny")["Instances"]
        return netns.Guest(client, made["InstanceId"], self.compute)

    def network(self, project):
        [row] = self.cloud.rows(
            "select vlan, bridge, gateway, vpn_private_address, vpn_public_address, vpn_public_port, host, netmask from networks"
            f" where project_id = '{project}'"
        )
        return dict(zip(("vlan", "bridge", "gateway", "private", "public", "port", "host", "netmask"), row, strict=True))

    def frames(self):
        """Each kind of frame that passed the trunk, once."""
        return [frame for tap in self.taps for frame in tap.frames()]

    def check(self):
        """Nothing is amiss in the database, on the controller, and on each host."""
        self.cloud.check()
        for name, host in self.hosts.items():
            self.cloud.manage(*self.own[name], "check", inside=host.command)


@pytest.fixture(scope="module")
def lab(servers, switches, logs, tmp_path_factory, request):
    if why := vm.missing():
        pytest.skip(why)
    lab = Lab(tmp_path_factory.mktemp("vlan"), logs, servers, switches, request.addfinalizer)
    lab.start()
    return lab


@pytest.fixture(scope="module")
def guests(lab):
    """Two of one project, one of the other, all on one host. Its nova-compute is killed twice while it makes the first one's interfaces."""
    compute = lab.add("nova-compute", lab.compute)
    guests = []
    for point, made in (("link.segment-made", "vlan100"), ("link.bridge-made", "br100")):
        compute.start(f"--failpoint={point}")
        guests = guests or [lab.launch(PROJECT)]
        eventually(SLOWLY, f"nova-compute dies at {point}", compute.died)
        assert f"Failpoint {point} is reached." in compute.log.read_text(errors="replace")
        assert "alias" not in lab.compute.run("ip", "link", "show", made), "it came to its mark"
    compute.start()
    guests += [lab.launch(project) for project in (PROJECT, RIVAL)]
    for guest in guests:
        eventually(SLOWLY, f"{guest.id} is ready", lambda: "nova-guest: ready" in guest.console(), every=1)
    return guests


def ways(one, other):
    """How one reaches another."""
    return [way for way, through in (("ping", one.pings(other)), ("tcp", one.reaches(other, 22, timeout=5))) if through]


def wires(host):
    """The VLANs and bridges of a host, all of which are marked as Nova's."""
    links = [link for link in host.links() if link["ifname"].startswith(("vlan", "br"))]
    assert all(link.get("ifalias") == "nova" for link in links), links
    return sorted(link["ifname"] for link in links)


def test_guests_get_their_address_and_metadata_over_the_vlan_of_their_project(lab, guests):
    for guest, project in zip(guests, (PROJECT, PROJECT, RIVAL), strict=True):
        network = lab.network(project)
        assert (network["vlan"], network["bridge"], network["host"]) == (TAGS[project], f"br{TAGS[project]}", "vlan-net")
        # The address it has by DHCP; as what the metadata service knows it.
        assert f"ip={guest.address} instance-id={guest.id} " in guest.console()
    for host in lab.hosts.values():
        assert wires(host) == ["br100", "br101", "vlan100", "vlan101"]
        for tag in TAGS.values():
            shown = json.loads(host.run("ip", "-d", "-j", "link", "show", f"vlan{tag}"))[0]
            assert (shown["link"], shown["master"], shown["linkinfo"]["info_data"]["id"]) == ("eth1", f"br{tag}", tag)
    lab.check()


def test_a_project_reaches_itself_and_not_the_other(lab, guests):
    one, two, rival = guests
    # What is refused below is refused by the VLANs alone.
    for client in (one.client, rival.client):
        client.authorize("default", "icmp", -1, -1)
        client.authorize("default", "tcp", 22, 22)
    gateway = netns.Place()
    gateway.address = lab.network(RIVAL)["gateway"]
    network_host = netns.Place(lab.net.command)

    for guest in guests:
        eventually(SLOWLY, f"the network host reaches {guest.id}", lambda: ways(network_host, guest) == BOTH)
    assert ways(one, two) == ways(two, one) == BOTH, "acme reaches acme"
    assert rival.pings(gateway), "the rival's network answers"
    apart = [(one, rival), (two, rival), (rival, one), (rival, two)]
    with ThreadPoolExecutor(len(apart)) as pool:
        found = pool.map(lambda pair: ways(*pair), apart)
        assert [(pair[0].id, pair[1].id, through) for pair, through in zip(apart, found, strict=True) if through] == []
    assert ways(one, two) == BOTH, "as it did"


def test_frames_of_guests_are_tagged_on_the_trunk(lab, guests):
    one, two, rival = (json.loads(guest.host.run("ip", "-n", guest.namespace, "-j", "link", "show", "eth0"))[0]["address"] for guest in guests)
    tags = {address: TAGS[project] for address, project in ((one, PROJECT), (two, PROJECT), (rival, RIVAL))}
    frames = lab.frames()
    for address, tag in tags.items():
        for kind in (IPV4, ARP):
            assert any((frame[0], frame[1], frame[3]) == (tag, address, kind) for frame in frames), f"{address} sends {kind} with tag {tag}"
    wrong = [frame for frame in frames if any(tags.get(address, frame[0]) != frame[0] for address in frame[1:3])]
    assert wrong == [], "a guest's frame has no tag, or another's"
    assert [frame for frame in frames if frame[0] is None and frame[3] in (IPV4, ARP)] == [], "somebody speaks without a tag"
    assert not [frame for frame in frames if {frame[1], frame[2]} == {one, two}], "what stays on the host is not on the trunk"


def test_the_vpn_of_a_project_is_reached_from_outside(lab, guests):
    network = lab.network(PROJECT)
    assert (network["public"], network["port"]) == (lab.net.address, 1000), "--vpn_ip is the network host's, --vpn_start what it was"
    server = subprocess.Popen(lab.compute.command("bash", "-c", VPN.format(**network, python=" ".join(vm.PYTHON))), stdin=subprocess.DEVNULL)

    def vpns():
        return {vpn["project"]: vpn for vpn in json.loads(lab.cloud.manage("vpn", "list", "--output", "json"))}

    eventually(SLOWLY, "the VPN answers", lambda: "up" in vpns()[PROJECT].values(), every=0.5)
    assert "down" in vpns()[RIVAL].values(), "nobody is there"
    server.kill()
    server.wait()
    lab.compute.run("ip", "netns", "delete", "vpn")


def test_what_no_guest_needs_any_more_goes_from_both_hosts(lab, guests):
    *_, rival = guests
    rival.client.terminate(rival.id)
    rival.client.wait(rival.id, "terminated")
    eventually(SLOWLY, "the compute host has only what guests need", lambda: wires(lab.compute) == ["br100", "vlan100"], every=0.5)
    assert wires(lab.net) == ["br100", "br101", "vlan100", "vlan101"], "the project has its network still"
    assert guests[0].pings(guests[1]), "as it did"
    for guest in guests[:2]:
        guest.client.terminate(guest.id)
    for guest in guests[:2]:
        guest.client.wait(guest.id, "terminated")
    for project in TAGS:
        lab.cloud.manage("project", "scrub", project)
    for name, host in lab.hosts.items():
        eventually(SLOWLY, f"nothing is left on {name}", lambda: wires(host) == [], every=0.5)
    lab.check()


def test_the_kernels_part_keeps_its_contract_where_there_are_vlans(lab):
    """Tests of `crates/link` that skip on a kernel without VLANs."""
    built = sorted(Path(BIN, "deps").glob("kernel-*[!.d]"), key=os.path.getmtime)
    if not built:
        pytest.skip("the tests of crates/link are not built")
    names = ["segments_keep_the_contract", "a_network_reaches_other_hosts_by_its_vlan_and_no_other"]
    done = subprocess.run(lab.compute.command(built[-1], "--exact", *names), capture_output=True, text=True)
    assert done.returncode == 0 and "2 passed" in done.stdout and "skipped" not in done.stdout, done.stdout + done.stderr
