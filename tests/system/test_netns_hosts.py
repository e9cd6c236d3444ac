"""Who reaches whom over two compute hosts, tried from every guest to every other by IPv4 and IPv6: a guest of each of two projects on
each host.

The projects share a bridge that an interface joins (FlatDHCPManager), or each has a network of its own that VXLANs carry
(VxlanManager). Each refusal is preceded by the same thing being let through.
"""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import netns
from cloud import USER
from wait import eventually

COMPUTE = ["netns1", "netns2"]
RIVAL = "rival"
OPENS_WITHIN = 3
FAMILIES = ("v4", "v6")
EVERYBODY = {"v4": {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, "v6": {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}}
FLAT_DHCP, VXLAN = "FlatDHCP", "Vxlan"
NETWORK = {FLAT_DHCP: ("10.44.0.0/24", "1", "256"), VXLAN: ("10.44.0.0/24", "4", "64", "70000")}


class Lab:
    """A controller, two compute hosts, and a cloud whose daemons are spread over them."""

    def __init__(self, manager, folder, logs, servers, switches):
        self.manager = manager
        # The kernel takes its time to forget the hosts of another lab: these bear other names.
        first = {FLAT_DHCP: 50, VXLAN: 80}[manager]
        names = ["netns0", *COMPUTE]
        machines = [netns.a_host(f"{manager.lower()}{n}", first + n, switches, logs) for n in range(len(names))]
        self.controller, self.compute = machines[0], dict(zip(COMPUTE, machines[1:], strict=True))
        self.hosts = dict(zip(names, machines, strict=True))
        self.own = {}
        self.cloud = netns.made(
            folder, self.controller, logs, "--host=netns0", f"--network_manager=nova.network.manager.{manager}Manager", "--flat_interface=eth1",
            "--use_ipv6", **servers.of("mariadb"),
        )
        del self.cloud.daemons["nova-compute"]
        for name, host in self.compute.items():
            state = folder / name
            state.mkdir()
            own = [f"--host={name}", f"--my_ip={host.address}", f"--state_path={state}", f"--s3_host={self.controller.address}"]
            self.own[name] = own
            self.cloud.add("nova-compute", *own, key=name, inside=host.command)

    def check(self):
        """Nothing is amiss in the database, on the controller, and on each compute host."""
        self.cloud.check()
        for name, host in self.compute.items():
            self.cloud.manage(*self.own[name], "check", inside=host.command)

    def remove(self):
        try:
            self.cloud.stop()
        finally:
            for host in [*self.compute.values(), self.controller]:
                host.remove()


@pytest.fixture(scope="module", params=[FLAT_DHCP, VXLAN])
def lab(request, servers, switches, logs, tmp_path_factory):
    lab = Lab(request.param, tmp_path_factory.mktemp("netns-hosts"), logs, servers, switches)
    try:
        netns.start(lab.cloud, NETWORK[lab.manager])
        lab.cloud.manage("project", "create", RIVAL, USER)
        yield lab
    finally:
        lab.remove()


@pytest.fixture(scope="module")
def guests(lab):
    """By project and host. None of their groups has a rule."""
    clients = {project: lab.cloud.client("boto3", project=project) for project in ("acme", RIVAL)}
    ids = {}
    for (project, client), host in itertools.product(clients.items(), COMPUTE):
        answer = client.ec2.run_instances(
            ImageId=lab.cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny", Placement={"AvailabilityZone": f"nova:{host}"}
        )
        ids[project, host] = answer["Instances"][0]["InstanceId"]
    for (project, _), id in ids.items():
        clients[project].wait(id, "running")
    guests = {(project, host): netns.Guest(clients[project], id, lab.compute[host]) for (project, host), id in ids.items()}
    for guest in guests.values():
        guest.is_ready()
        assert f"ip={guest.address} instance-id={guest.id} " in guest.console()
        guest.has_ipv6()
    return guests


def reached(guests, knock):
    """All pairs (from, to) that the way `knock` lets through, each tried once, all at once."""
    pairs = list(itertools.permutations(guests, 2))
    with ThreadPoolExecutor(len(pairs)) as pool:
        found = pool.map(lambda pair: knock(guests[pair[0]], guests[pair[1]]), pairs)
        return {pair for pair, through in zip(pairs, found, strict=True) if through}


def into_from(place, guests, number, family):
    """The guests whose port lets in who is elsewhere, each tried once, all at once."""
    with ThreadPoolExecutor(len(guests)) as pool:
        found = pool.map(lambda guest: place.reaches(guest, number, timeout=2, family=family), guests.values())
        return {key for key, through in zip(guests, found, strict=True) if through}


def ping(family):
    return lambda one, other: one.pings(other, family=family)


def port(number, family):
    return lambda one, other: one.reaches(other, number, timeout=2, family=family)


def of_one_project(guests):
    return {(one, other) for one, other in itertools.permutations(guests, 2) if one[0] == other[0]}


def into(lab, guests, project):
    """Who reaches a project that lets everybody in. Where each has a network, no rule leads from one to another."""
    if lab.manager == VXLAN:
        return {(one, other) for one, other in of_one_project(guests) if one[0] == project}
    return {(one, other) for one, other in itertools.permutations(guests, 2) if other[0] == project}


def test_guests_run_where_they_were_placed(lab, guests):
    for name, host in lab.compute.items():
        assert len(netns.namespaces(host)) == len(netns.taps(host)) == 2, f"{name} has others"
    lab.check()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_project_reaches_itself_on_both_hosts_and_no_other(guests, family):
    for knock in (ping(family), port(22, family), port(80, family)):
        eventually(OPENS_WITHIN, "each project reaches itself alone", lambda: reached(guests, knock) == of_one_project(guests))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_opens_one_port_of_one_project_on_both_hosts(lab, guests, family):
    client, outside = guests["acme", "netns1"].client, netns.Place(lab.controller.command)
    entered = lambda number: into_from(outside, guests, number, family)  # noqa: E731
    rule = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, **EVERYBODY[family]}]
    client.ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=rule)
    opened = of_one_project(guests) | into(lab, guests, "acme")
    eventually(OPENS_WITHIN, "their router reaches port 80", lambda: entered(80) == {("acme", host) for host in COMPUTE})
    eventually(OPENS_WITHIN, "all that may reach port 80", lambda: reached(guests, port(80, family)) == opened)
    assert reached(guests, port(22, family)) == reached(guests, ping(family)) == of_one_project(guests), "and nothing but that port"
    assert entered(22) == set()
    client.ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=rule)
    eventually(OPENS_WITHIN, "port 80 is closed again", lambda: reached(guests, port(80, family)) == of_one_project(guests))
    assert entered(80) == set()
    lab.check()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_of_another_project_is_let_in_wherever_its_members_are(lab, guests, family):
    if lab.manager == VXLAN:
        pytest.skip("its members are in another network")
    client = guests["acme", "netns1"].client
    rule = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupName": "default", "UserId": RIVAL}]}]
    client.ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=rule)
    opened = of_one_project(guests) | into(lab, guests, "acme")
    eventually(OPENS_WITHIN, "the other group reaches port 22", lambda: reached(guests, port(22, family)) == opened)
    assert reached(guests, port(80, family)) == of_one_project(guests)
    client.ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=rule)
    eventually(OPENS_WITHIN, "port 22 is closed again", lambda: reached(guests, port(22, family)) == of_one_project(guests))
    lab.check()


def test_without_daemons_all_stays_as_it_is(lab, guests):
    before = {key: guest.processes() for key, guest in guests.items()}
    one, far, rival = guests["acme", "netns1"], guests["acme", "netns2"], guests[RIVAL, "netns2"]
    with far.talks(one, 22) as talk, far.talks(one, 22, family="v6") as talk6:
        lab.cloud.kill()
        assert talk.echoes("without") and talk6.echoes("without")
        for family in FAMILIES:
            assert reached(guests, ping(family)) == reached(guests, port(22, family)) == of_one_project(guests)
        lab.cloud.start()
        assert talk.echoes("after") and talk6.echoes("after")
    assert reached(guests, port(22, "v4")) == of_one_project(guests)
    assert {key: guest.processes() for key, guest in guests.items()} == before, "a guest was started again"
    knocks = netns.Place(lab.controller.command) if lab.manager == VXLAN else rival
    one.client.authorize("default", "tcp", 22, 22)
    eventually(10, "rules change as before", lambda: knocks.reaches(one, 22) and knocks.reaches(far, 22))
    one.client.revoke("default", "tcp", 22, 22)
    far.renews()
    lab.check()


def peers(host, device):
    """The hosts that a VXLAN floods to, as `bridge` shows them."""
    lines = [line.split() for line in host.run("bridge", "fdb", "show", "dev", device).splitlines()]
    return {line[line.index("dst") + 1] for line in lines if line[0] == "00:00:00:00:00:00"}


def only_vxlan(lab):
    if lab.manager != VXLAN:
        pytest.skip("there are no VXLANs")


def test_each_network_leads_to_all_other_hosts(lab, guests):
    only_vxlan(lab)
    bridges = {project: bridge for project, bridge in lab.cloud.rows("select project_id, bridge from networks where project_id is not null")}
    assert len(set(bridges.values())) == 2 == len(bridges)
    for host in lab.hosts.values():
        others = {other.address for other in lab.hosts.values()} - {host.address}
        for bridge in bridges.values():
            device = bridge.replace("br", "vxlan")
            assert f"master {bridge} " in host.run("ip", "link", "show", device)
            assert peers(host, device) == others
    for (project, name), guest in guests.items():
        said = lab.cloud.run_manage(*lab.own[name], "doctor", "instance", guest.id, inside=guest.host.command).stdout
        device = bridges[project].replace("br", "vxlan")
        assert re.search(rf"^ok +vlan +{device} is on ", said, re.M) and re.search(rf"^ok +hosts +{device} leads to ", said, re.M), said
    lab.check()


def test_guests_know_how_large_a_packet_may_be_and_such_a_packet_gets_through_unbroken(lab, guests, tmp_path):
    only_vxlan(lab)
    one, far = guests["acme", "netns1"], guests["acme", "netns2"]
    mtu = lambda guest: guest.runs("cat", "/sys/class/net/eth0/mtu").strip()  # noqa: E731
    assert mtu(one) == mtu(far) == "1450"
    # What a DHCP client is told that does no more than ask.
    script = tmp_path / "told"
    script.write_text("#!/bin/sh\necho told: $1 $mtu\n")
    script.chmod(0o755)
    assert "told: bound 1450" in one.runs("busybox", "udhcpc", "-n", "-q", "-f", "-t", "10", "-T", "1", "-i", "eth0", "-O", "mtu", "-s", script)
    gateway = lab.cloud.rows("select gateway from networks where project_id = 'acme'")[0][0]
    for to in (far.address, gateway):
        large = lambda size: one.can("ping", "-c", "1", "-W", "2", "-M", "do", "-s", size, to)  # noqa: E731
        assert large(1450 - 28) and not large(1450 - 27), to


def test_a_host_is_led_to_while_it_has_a_row_and_not_any_longer(lab, guests):
    only_vxlan(lab)
    one, far, lost = guests["acme", "netns1"], guests["acme", "netns2"], lab.compute["netns2"]
    devices = [bridge.replace("br", "vxlan") for (bridge,) in lab.cloud.rows("select bridge from networks where project_id is not null")]
    others = [lab.controller, lab.compute["netns1"]]
    leads = lambda: {lost.address in peers(host, device) for host in others for device in devices}  # noqa: E731
    daemon = lab.cloud.daemons["netns2"]
    assert leads() == {True} and one.pings(far)
    daemon.kill()
    assert one.pings(far), "a silent host is one too"
    refused = lab.cloud.run_manage("service", "delete", "netns2", "nova-compute")
    assert refused.returncode != 0 and "stop it first" in refused.stderr
    lab.cloud.rows("update services set deleted = true where host = 'netns2'")
    eventually(5, "no VXLAN leads there", lambda: leads() == {False})
    assert not one.pings(far)
    daemon.start()
    eventually(10, "all VXLANs lead there again", lambda: leads() == {True})
    eventually(5, "guests reach each other again", lambda: one.pings(far))
    assert reached(guests, ping("v4")) == of_one_project(guests)
    lab.check()


def test_terminated_guests_leave_both_hosts(lab, guests):
    for guest in guests.values():
        guest.client.terminate(guest.id)
    for guest in guests.values():
        guest.client.wait(guest.id, "terminated")
    for host in lab.compute.values():
        assert netns.namespaces(host) == [] and netns.taps(host) == []
    lab.check()
    if lab.manager == VXLAN:
        links = lambda: lab.controller.run("ip", "-br", "link")  # noqa: E731
        assert "vxlan70000" in links() and "vxlan70001" in links()
        lab.cloud.manage("project", "scrub", RIVAL)
        eventually(5, "the network of that project is gone", lambda: "70001" not in links() or "70000" not in links())
        assert "7000" in links(), "the other stays"
