"""Who reaches whom over two compute hosts, tried from every guest to every other: a guest of each of two projects on each host.

Each refusal is preceded by the same thing being let through.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

import netns
from cloud import USER
from wait import eventually

COMPUTE = ["netns1", "netns2"]
RIVAL = "rival"
OPENS_WITHIN = 3


class Lab:
    """A controller, two compute hosts, and a cloud whose daemons are spread over them."""

    def __init__(self, folder, logs, servers, switches):
        self.controller = netns.a_host("netns0", 50, switches, logs)
        self.compute = {name: netns.a_host(name, 51 + n, switches, logs) for n, name in enumerate(COMPUTE)}
        self.own = {}
        self.cloud = netns.made(folder, self.controller, logs, "--host=netns0", "--flat_interface=eth1", **servers.of("mariadb"))
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


@pytest.fixture(scope="module")
def lab(servers, switches, logs, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("netns-hosts"), logs, servers, switches)
    try:
        netns.start(lab.cloud)
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
    return guests


def reached(guests, knock):
    """All pairs (from, to) that the way `knock` lets through, each tried once, all at once."""
    pairs = list(itertools.permutations(guests, 2))
    with ThreadPoolExecutor(len(pairs)) as pool:
        found = pool.map(lambda pair: knock(guests[pair[0]], guests[pair[1]]), pairs)
        return {pair for pair, through in zip(pairs, found, strict=True) if through}


def ping(one, other):
    return one.pings(other)


def port(number):
    return lambda one, other: one.reaches(other, number, timeout=2)


def of_one_project(guests):
    return {(one, other) for one, other in itertools.permutations(guests, 2) if one[0] == other[0]}


def into(guests, project):
    return {(one, other) for one, other in itertools.permutations(guests, 2) if other[0] == project}


def test_guests_run_where_they_were_placed(lab, guests):
    for name, host in lab.compute.items():
        assert len(netns.namespaces(host)) == len(netns.taps(host)) == 2, f"{name} has others"
    lab.check()


def test_each_project_reaches_itself_on_both_hosts_and_no_other(guests):
    for knock in (ping, port(22), port(80)):
        eventually(OPENS_WITHIN, "each project reaches itself", lambda: reached(guests, knock) >= of_one_project(guests))
        assert reached(guests, knock) == of_one_project(guests)


def test_a_rule_opens_one_port_of_one_project_on_both_hosts(lab, guests):
    client = guests["acme", "netns1"].client
    client.authorize("default", "tcp", 80, 80)
    opened = of_one_project(guests) | into(guests, "acme")
    eventually(OPENS_WITHIN, "all reach port 80", lambda: reached(guests, port(80)) == opened)
    assert reached(guests, port(22)) == reached(guests, ping) == of_one_project(guests), "and nothing but that port"
    client.revoke("default", "tcp", 80, 80)
    eventually(OPENS_WITHIN, "port 80 is closed again", lambda: reached(guests, port(80)) == of_one_project(guests))
    lab.check()


def test_a_group_of_another_project_is_let_in_wherever_its_members_are(lab, guests):
    client = guests["acme", "netns1"].client
    rule = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupName": "default", "UserId": RIVAL}]}]
    client.ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=rule)
    opened = of_one_project(guests) | into(guests, "acme")
    eventually(OPENS_WITHIN, "the other group reaches port 22", lambda: reached(guests, port(22)) == opened)
    assert reached(guests, port(80)) == of_one_project(guests)
    client.ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=rule)
    eventually(OPENS_WITHIN, "port 22 is closed again", lambda: reached(guests, port(22)) == of_one_project(guests))
    lab.check()


def test_without_daemons_all_stays_as_it_is(lab, guests):
    before = {key: guest.processes() for key, guest in guests.items()}
    one, far, rival = guests["acme", "netns1"], guests["acme", "netns2"], guests[RIVAL, "netns2"]
    with far.talks(one, 22) as talk:
        lab.cloud.kill()
        assert talk.echoes("without")
        assert reached(guests, ping) == reached(guests, port(22)) == of_one_project(guests)
        lab.cloud.start()
        assert talk.echoes("after")
    assert reached(guests, port(22)) == of_one_project(guests)
    assert {key: guest.processes() for key, guest in guests.items()} == before, "a guest was started again"
    one.client.authorize("default", "tcp", 22, 22, cidr=f"{rival.address}/32")
    eventually(10, "rules change as before", lambda: rival.reaches(one, 22) and rival.reaches(far, 22))
    one.client.revoke("default", "tcp", 22, 22, cidr=f"{rival.address}/32")
    far.renews()
    lab.check()


def test_terminated_guests_leave_both_hosts(lab, guests):
    for guest in guests.values():
        guest.client.terminate(guest.id)
    for guest in guests.values():
        guest.client.wait(guest.id, "terminated")
    for host in lab.compute.values():
        assert netns.namespaces(host) == [] and netns.taps(host) == []
    lab.check()
