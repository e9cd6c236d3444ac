"""Security groups over two compute hosts, packet by packet: every kind of rule, how soon it holds, and what guests may ask of hosts.

Each refusal is preceded or followed by the same thing being let through.
"""

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest

import netns
from cloud import USER
from wait import eventually, never

COMPUTE = ["groups1", "groups2"]
RIVAL = "rival"
GATEWAY = "10.44.0.1"
# What an idle machine needs is printed; a busy one is given more.
WITHIN = 3
ROUNDS = 5
# As good as never.
SELDOM = "--tick_interval=120"
DATABASE_PORT = 3306


class Lab:
    """A controller, two compute hosts, and a cloud whose daemons are spread over them."""

    def __init__(self, folder, logs, servers, switches):
        self.controller = netns.a_host("groups0", 70, switches, logs)
        self.compute = {name: netns.a_host(name, 71 + n, switches, logs) for n, name in enumerate(COMPUTE)}
        self.cloud = netns.made(folder, self.controller, logs, "--host=groups0", "--flat_interface=eth1", **servers.of("mariadb"))
        del self.cloud.daemons["nova-compute"]
        self.own = {}
        for name, host in self.compute.items():
            (folder / name).mkdir()
            self.own[name] = [
                f"--host={name}", f"--my_ip={host.address}", f"--state_path={folder / name}", f"--s3_host={self.controller.address}",
            ]
            self.cloud.add("nova-compute", *self.own[name], key=name, inside=host.command)

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
    lab = Lab(tmp_path_factory.mktemp("groups"), logs, servers, switches)
    try:
        netns.start(lab.cloud)
        lab.cloud.manage("project", "create", RIVAL, USER)
        yield lab
    finally:
        lab.remove()


@pytest.fixture(scope="module")
def guests(lab):
    """One on each host, without any rule."""
    client = lab.cloud.client("boto3")
    return [launched(lab, client, host) for host in COMPUTE]


@pytest.fixture(scope="module")
def rival(lab, guests):
    """One of another project, whom they do not know."""
    return launched(lab, lab.cloud.client("boto3", project=RIVAL), COMPUTE[0])


def launched(lab, client, host):
    answer = client.ec2.run_instances(
        ImageId=lab.cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny", Placement={"AvailabilityZone": f"nova:{host}"}
    )
    id = answer["Instances"][0]["InstanceId"]
    client.wait(id, "running")
    guest = netns.Guest(client, id, lab.compute[host])
    guest.is_ready()
    return guest


def restart(lab, *flags):
    """Starts nova-compute on both hosts again."""
    for host in COMPUTE:
        lab.cloud.daemons[host].stop()
        lab.cloud.daemons[host].start(*flags)


def times(guests, rival, change, opens, rounds=ROUNDS):
    """Seconds from before each call until the last host does as it says, one for each round."""
    seconds = []
    for _ in range(rounds):
        for call, wanted in ((change.authorize, True), (change.revoke, False)):
            began = time.monotonic()
            call("default", "tcp", 80, 80)
            for guest in guests:
                eventually(opens, f"port 80 of {guest.id} is {'open' if wanted else 'closed'}", lambda: rival.reaches(guest, 80, timeout=0.2) == wanted, every=0.01)
            seconds.append(time.monotonic() - began)
    return seconds


def test_a_message_brings_a_change_to_all_hosts_at_once(lab, guests, rival):
    restart(lab, SELDOM)
    seconds = times(guests, rival, guests[0].client, WITHIN)
    print(f"a change is in force on {len(COMPUTE)} hosts after {', '.join(f'{one:.2f}' for one in seconds)} s")
    assert sorted(seconds)[len(seconds) // 2] < 1, "half of them took longer than a second"
    restart(lab)
    lab.check()


def test_a_change_whose_message_is_lost_is_found(lab, guests, rival, servers):
    servers["rabbitmq"].kill()
    try:
        seconds = times(guests, rival, guests[0].client, 20, rounds=1)
        print(f"without a broker a change is in force after {', '.join(f'{one:.2f}' for one in seconds)} s")
    finally:
        servers["rabbitmq"].start()
    lab.check()


def python(inside, text, *words):
    return inside(sys.executable, "-c", text, *map(str, words))


# Answers whatever comes on a UDP port; or, of a protocol that nobody else speaks, by the same.
ECHO = """
import socket, sys
kind, number = sys.argv[1], int(sys.argv[2])
udp = kind == "udp"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_RAW, 0 if udp else number)
if udp: s.bind(("0.0.0.0", number))
print("here", flush=True)
while True:
    data, sender = s.recvfrom(2048)
    if b"ask" in data: s.sendto(b"answer", sender)
"""
# Asks everything at once, and prints what was answered soon.
ASK = """
import socket, sys, time
from select import select
address, *wanted = sys.argv[1:]
def icmp(kind):
    message = bytes([kind, 0, 0, 0, 0, 7, 0, 1]) + bytes(12)
    total = sum(int.from_bytes(message[at:at + 2], "big") for at in range(0, len(message), 2))
    total = (total & 0xffff) + (total >> 16)
    return message[:2] + (~total & 0xffff).to_bytes(2, "big") + message[4:]
asked = {}
for word in wanted:
    kind, number = word.split(":")
    number = int(number)
    if kind == "tcp":
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((address, number))
    elif kind == "udp":
        s = socket.socket(type=socket.SOCK_DGRAM)
        s.sendto(b"ask", (address, number))
    else:
        s = socket.socket(type=socket.SOCK_RAW, proto=1 if kind == "icmp" else number)
        s.sendto(icmp(number) if kind == "icmp" else b"ask", (address, 0))
    asked[s] = word
end = time.monotonic() + 0.5
while asked and (left := end - time.monotonic()) > 0:
    for s in select(list(asked), [], [], left)[0]:
        kind, number = asked[s].split(":")
        try:
            data = s.recv(2048)
        except OSError:
            del asked[s]
            continue
        # Each of these sockets hears of every ICMP message.
        if kind != "icmp" or data[20] == {"8": 0, "13": 14}[number]:
            print(asked.pop(s))
"""
# A protocol of nobody's (RFC 3692), and the ICMP types of an echo and of a question for the time.
EXPERIMENT, PING, TIME = 253, 8, 13


@contextmanager
def answering(guest, kind, number):
    with subprocess.Popen(python(guest.inside, ECHO, kind, number), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "here\n"
            yield
        finally:
            process.kill()


def answered(one, other):
    """What of all that may be asked the one guest is answered by the other."""
    asked = {f"{kind}:{number}": (kind, number) for kind, number in ALL}
    done = subprocess.run(python(one.inside, ASK, other.address, *asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {asked[word] for word in done.stdout.split()}


# What is asked for, and what of all that is then answered.
TCP, UDP, UDP_NEXT, OTHER = ("tcp", 80), ("udp", 5000), ("udp", 5001), ("ip", EXPERIMENT)
ALL = {("tcp", 22), TCP, UDP, UDP_NEXT, OTHER, ("icmp", PING), ("icmp", TIME)}
RULES = [
    pytest.param(("tcp", 80, 80), {TCP}, id="tcp"),
    pytest.param(("tcp", 0, 65535), {TCP, ("tcp", 22)}, id="tcp-all"),
    pytest.param(("udp", 5000, 5000), {UDP}, id="udp"),
    pytest.param(("udp", 4000, 5001), {UDP, UDP_NEXT}, id="udp-range"),
    pytest.param(("icmp", PING, 0), {("icmp", PING)}, id="icmp-type-code"),
    pytest.param(("icmp", TIME, -1), {("icmp", TIME)}, id="icmp-type"),
    pytest.param(("icmp", -1, -1), {("icmp", PING), ("icmp", TIME)}, id="icmp"),
    pytest.param(("-1", -1, -1), ALL, id="all"),
]


@pytest.fixture(scope="module")
def serving(guests):
    """The guest on the other host than the rival's, answering all that is asked."""
    guest = guests[1]
    with ExitStack() as stack:
        for kind, number in (UDP, UDP_NEXT, OTHER):
            stack.enter_context(answering(guest, kind, number))
        yield guest


@pytest.mark.parametrize(("rule", "opened"), RULES)
def test_a_rule_of_each_kind_lets_in_what_it_says(guests, rival, serving, rule, opened):
    client = serving.client
    client.authorize("default", *rule, cidr=f"{rival.address}/32")
    eventually(WITHIN, f"{rule} lets in {opened} and nothing else", lambda: answered(rival, serving) == opened)
    client.revoke("default", *rule, cidr=f"{rival.address}/32")
    eventually(WITHIN, f"{rule} is gone", lambda: not answered(rival, serving))


def test_the_flat_form_lets_a_group_of_another_project_in(lab, guests, rival):
    """As clients of 2010 ask, without ports, which is all of TCP, UDP and ICMP; the owner with his project, or the project alone."""
    ec2 = lab.cloud.client("boto 2.49").ec2

    def ask(action, owner):
        ec2.get_status(action, {"GroupName": "default", "SourceSecurityGroupName": "default", "SourceSecurityGroupOwnerId": owner}, verb="POST")

    def let_in():
        return [rival.reaches(guest, 22) and rival.pings(guest) for guest in guests]

    assert not any(let_in())
    ask("AuthorizeSecurityGroupIngress", f"{USER}:{RIVAL}")
    eventually(WITHIN, "the other group is let in", lambda: all(let_in()))
    [group] = [group for group in ec2.get_all_security_groups() if group.name == "default"]
    shown = {(rule.ip_protocol, grant.owner_id, grant.name) for rule in group.rules for grant in rule.grants}
    assert shown == {(protocol, RIVAL, "default") for protocol in ("tcp", "udp", "icmp")}
    assert guests[0].reaches(guests[1], 22), "the project itself as before"
    ask("RevokeSecurityGroupIngress", RIVAL)
    eventually(WITHIN, "it is shut out again", lambda: not any(let_in()))


def test_a_revoked_rule_ends_its_connections_and_no_others(lab, guests, rival):
    one, far = guests
    for port in (22, 80):
        far.client.authorize("default", "tcp", port, port, cidr=f"{rival.address}/32")
    eventually(WITHIN, "both ports are open", lambda: rival.reaches(far, 22) and rival.reaches(far, 80))
    with rival.talks(far, 22) as doomed, rival.talks(far, 80) as allowed, one.talks(far, 22) as neighbour:
        assert all(talk.echoes("before") for talk in (doomed, allowed, neighbour))
        far.client.revoke("default", "tcp", 22, 22, cidr=f"{rival.address}/32")
        eventually(WITHIN, "port 22 is closed", lambda: not rival.reaches(far, 22))
        assert not doomed.echoes("after"), "the connection goes on without its rule"
        assert allowed.echoes("after") and neighbour.echoes("after"), "a connection that is allowed was cut"
        far.client.authorize("default", "tcp", 22, 22, cidr=f"{rival.address}/32")
        eventually(20, "with the rule back it goes on", lambda: doomed.line(timeout=1) == "after")
    for port in (22, 80):
        far.client.revoke("default", "tcp", port, port, cidr=f"{rival.address}/32")
    eventually(WITHIN, "all is closed", lambda: not rival.reaches(far, 22) and not rival.reaches(far, 80))


@contextmanager
def listening(host, port):
    command = host.command("busybox", "nc", "-ll", "-p", str(port), "-e", "echo", host.name)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def test_guests_do_not_reach_what_else_hosts_serve(lab, guests):
    """At the gateway's address and the host's own; and where a compute host has an address on the bridge."""
    controller = lab.controller
    own = {name: f"10.55.0.{number}" for number, name in enumerate(COMPUTE, 1)}
    for name, host in lab.compute.items():
        # As where the bridge took over the address of --flat_interface.
        host.run("ip", "addr", "add", f"{own[name]}/24", "dev", "br100")
        host.run("ip", "route", "add", "10.44.0.0/24", "dev", "br100")
    controller.run("ip", "route", "add", "10.55.0.0/24", "dev", "br100")
    for guest in guests:
        subprocess.run(guest.inside("ip", "route", "add", "10.55.0.0/24", "dev", "eth0"), check=True)
    with ExitStack() as stack:
        for host in [controller, *lab.compute.values()]:
            stack.enter_context(listening(host, DATABASE_PORT))
        elsewhere = netns.Place()
        for address in (controller.address, *(host.address for host in lab.compute.values())):
            host = next(host for host in (controller, *lab.compute.values()) if host.address == address)
            place = SimpleNamespace(address=address, id=host.name)
            eventually(WITHIN, f"{host.name} serves", lambda: elsewhere.reaches(place, DATABASE_PORT))
        for guest in guests:
            for address in (GATEWAY, controller.address):
                assert not guest.reaches(SimpleNamespace(address=address, id=controller.name), DATABASE_PORT), f"{guest.id} reaches {address}"
            for name in COMPUTE:
                place = SimpleNamespace(address=own[name], id=name)
                assert netns.Place(controller.command).reaches(place, DATABASE_PORT), "the control: over the bridge, from who is no guest"
                # The address of the other host is that of a machine on the guests' network, like any.
                assert guest.reaches(place, DATABASE_PORT) == (guest.host is not lab.compute[name]), f"{guest.id} and {own[name]}"
            assert guest.pings(SimpleNamespace(address=GATEWAY)), "an echo is answered"
            assert guest.pings(SimpleNamespace(address=own[guest.host.name]))
            asked = subprocess.run(guest.inside("busybox", "nslookup", f"{guest.id}.novalocal", GATEWAY), capture_output=True, text=True)
            assert guest.address in asked.stdout, f"names are answered: {asked.stdout}{asked.stderr}"
            told = subprocess.run(guest.inside("busybox", "wget", "-q", "-O", "-", "http://169.254.169.254/latest/meta-data/instance-id"), capture_output=True, text=True)
            assert told.stdout == guest.id, "metadata is given"
            never(0.5, "the API is reached past the metadata address", lambda: guest.reaches(SimpleNamespace(address=GATEWAY, id=""), lab.cloud.port))
    lab.check()
