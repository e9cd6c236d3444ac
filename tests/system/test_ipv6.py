"""IPv6 for guests that are namespaces, on one host: two of one project, one of another, and the world behind the host.

Each refusal is preceded by the same thing being let through.
"""

import ipaddress
import json
import os
import subprocess
from types import SimpleNamespace

import pytest
from boto.ec2.instance import Reservation

import netns
from cloud import USER
from wait import eventually, never

RIVAL = "rival"
OPENS_WITHIN = 3
PREFIX = "fd00:44::/64"
GATEWAY = SimpleNamespace(address6="fd00:44::1")
# Where the host and the test meet outside of the cloud.
HOST_OUTSIDE, OUTSIDE = "fd00:99::1", "fd00:99::2"
# What a guest that plays router says.
ROGUE = "fd66::"


@pytest.fixture(scope="module")
def host(switches, logs):
    host = netns.a_host("ipv6", 45, switches, logs)
    host.run("ip", "-6", "addr", "add", f"{HOST_OUTSIDE}/64", "dev", "eth0", "nodad")
    run("ip", "-6", "addr", "add", f"{OUTSIDE}/64", "dev", "outside", "nodad")
    run("ip", "-6", "route", "add", PREFIX, "via", HOST_OUTSIDE)
    yield host
    run("ip", "-6", "addr", "del", f"{OUTSIDE}/64", "dev", "outside")
    host.remove()


@pytest.fixture(scope="module")
def cloud(host, logs, tmp_path_factory):
    cloud = netns.made(tmp_path_factory.mktemp("ipv6"), host, logs, "--use_ipv6", f"--fixed_range_v6={PREFIX}")
    netns.start(cloud)
    cloud.manage("project", "create", RIVAL, USER)
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def guests(cloud, host):
    """Two of one project, then one of another; none of their groups has a rule."""
    clients = [cloud.client("boto3"), cloud.client("boto3"), cloud.client("boto3", project=RIVAL)]
    ids = [client.run(cloud.image, None, "default", "") for client in clients]
    for client, id in zip(clients, ids, strict=True):
        client.wait(id, "running")
    guests = [netns.Guest(client, id, host) for client, id in zip(clients, ids, strict=True)]
    for guest in guests:
        guest.is_ready()
        guest.has_ipv6()
    return guests


@pytest.fixture(scope="module")
def world():
    """Beyond the host, which is the guests' router."""
    return netns.Place()


def run(*words):
    subprocess.run(words, check=True, capture_output=True)


def reaches(one, other, port):
    return one.reaches(other, port, timeout=3, family="v6")


def shut(one, other, port):
    return not one.reaches(other, port, family="v6")


def pings(one, other):
    return one.pings(other, family="v6")


def made_of(mac):
    a, b, c, d, e, f = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([a ^ 2, b, c, 0xFF, 0xFE, d, e, f])
    return str(ipaddress.ip_network(PREFIX)[int.from_bytes(interface, "big")])


def inside(guest, *words):
    return guest.host.run("ip", "netns", "exec", guest.namespace, *words)


def opens(what, condition):
    eventually(OPENS_WITHIN, what, condition, every=0.02)


def test_guests_make_their_addresses_and_everybody_knows_them(cloud, guests):
    old = cloud.client("boto 2.49").ec2
    shown = {i.id: i.dnsNameV6 for r in old.get_list("DescribeInstancesV6", {}, [("item", Reservation)]) for i in r.instances}
    for guest in guests[:2]:
        assert guest.address6 == made_of(guest.mac())
        assert shown[guest.id] == guest.address6
        page = inside(guest, "busybox", "wget", "-q", "-O", "-", "http://169.254.169.254/latest/meta-data/ipv6")
        assert page == guest.address6
    [network] = json.loads(cloud.manage("network", "list", "--output", "json"))
    assert network["IPv6"] == PREFIX
    cloud.check()


def test_one_project_is_among_itself_and_another_is_shut_out(guests, world):
    one, two, rival = guests
    for port in netns.PORTS:
        assert reaches(one, two, port) and reaches(two, one, port), "the control: one project reaches itself, so both serve"
        assert shut(rival, one, port) and shut(one, rival, port) and shut(world, one, port)
    assert pings(one, two) and pings(two, one) and pings(rival, GATEWAY)
    assert not pings(rival, one) and not pings(one, rival) and not pings(world, one)


def test_rules_open_running_guests_to_those_they_name_and_close_them_again(cloud, guests, world):
    one, two, rival = guests
    ec2, old = one.client.ec2, cloud.client("boto 2.49")

    def rule(protocol, first, last, range):
        return [{"IpProtocol": protocol, "FromPort": first, "ToPort": last, "Ipv6Ranges": [{"CidrIpv6": range}]}]

    ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=rule("tcp", 22, 22, f"{rival.address6}/128"))
    opens("port 22 is open to whom the rule names", lambda: reaches(rival, one, 22))
    assert reaches(rival, two, 22), "the other member of the group too"
    assert shut(rival, one, 80) and not pings(rival, one) and shut(world, one, 22), "and nothing and nobody else"
    ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=rule("tcp", 22, 22, f"{rival.address6}/128"))
    opens("it is closed again", lambda: shut(rival, one, 22))

    # As a client of 2010 says it: everybody.
    old.authorize("default", "tcp", 80, 80, cidr="::/0")
    opens("port 80 is open to everybody", lambda: reaches(world, one, 80) and reaches(rival, one, 80))
    assert not rival.reaches(one, 80), "by IPv6 only"
    [permission] = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["IpPermissions"]
    assert permission["Ipv6Ranges"] == [{"CidrIpv6": "::/0"}] and permission["IpRanges"] == []
    with world.talks(one, 80, family="v6") as talk:
        assert talk.echoes("before")
        old.revoke("default", "tcp", 80, 80, cidr="::/0")
        opens("it is closed again", lambda: shut(world, one, 80))
        assert not talk.echoes("after"), "what was open is cut"

    for protocol in ("icmp", "icmpv6"):
        ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=rule(protocol, -1, -1, "::/0"))
        opens(f"{protocol} is let in", lambda: pings(world, one) and pings(rival, one))
        ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=rule(protocol, -1, -1, "::/0"))
        opens(f"{protocol} is not", lambda: not pings(world, one))
    cloud.check()


def test_a_group_lets_in_the_members_of_another_by_ipv6_too(guests, world):
    one, _, rival = guests
    rule = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupName": "default", "UserId": RIVAL}]}]
    one.client.ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=rule)
    opens("port 80 is open to the other group", lambda: reaches(rival, one, 80))
    assert shut(rival, one, 22) and shut(one, rival, 80) and shut(world, one, 80)
    one.client.ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=rule)
    opens("it is closed again", lambda: shut(rival, one, 80))


@pytest.mark.parametrize("whose", ["victim", "nobody"])
def test_a_guest_that_takes_an_address_that_is_not_its_own_reaches_nobody(guests, whose):
    liar, victim, _ = guests
    taken = {"victim": victim.address6, "nobody": "fd00:44::66"}[whose]
    speak_as = lambda address: subprocess.run(liar.inside("ping", "-c", "1", "-W", "1", "-I", address, GATEWAY.address6), capture_output=True).returncode == 0  # noqa: E731
    assert speak_as(liar.address6), "the control: with its own it reaches the gateway"
    inside(liar, "ip", "-6", "addr", "add", f"{taken}/128", "dev", "eth0", "nodad")
    try:
        assert not speak_as(taken)
        # Nor is it asked: it cannot say that the address is its own.
        liar.host.run("ip", "-6", "neigh", "flush", "dev", "br100")
        assert pings(victim, GATEWAY), "the victim is cut off"
        asked = subprocess.run(liar.host.command("ping", "-c", "1", "-W", "1", taken), capture_output=True)
        known = liar.host.run("ip", "-6", "neigh", "show", "dev", "br100", "to", taken)
        assert liar.mac() not in known and (whose == "victim") == (victim.mac() in known), (known, asked)
    finally:
        inside(liar, "ip", "-6", "addr", "del", f"{taken}/128", "dev", "eth0")
    assert speak_as(liar.address6)


def test_a_guest_that_says_it_is_a_router_is_not_heard(guests, tmp_path):
    liar, *others = guests
    # Somebody on a wire without rules, who hears the same program.
    liar.host.run("ip", "netns", "add", "listener")
    inside(liar, "ip", "link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", "listener")
    inside(liar, "ip", "link", "set", "wire", "up")
    liar.host.run("ip", "-n", "listener", "link", "set", "eth0", "up")
    inside(liar, "ip", "-6", "addr", "add", f"{ROGUE}1/64", "dev", "eth0", "nodad")
    inside(liar, "ip", "-6", "addr", "add", f"{ROGUE}1/64", "dev", "wire", "nodad")
    command = [
        "timeout", "30", "dnsmasq", "--keep-in-foreground", "--conf-file=", "--port=0", "--interface=eth0", "--interface=wire", "--enable-ra",
        f"--dhcp-range={ROGUE},ra-only,64", "--dhcp-leasefile=/dev/null", f"--pid-file={tmp_path}/pid", "--ra-param=eth0,high,4,1800",
        "--ra-param=wire,high,4,1800",
    ]
    rogue = subprocess.Popen(liar.inside(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        heard = lambda namespace: ROGUE in liar.host.run("ip", "-n", namespace, "-6", "addr", "show", "dev", "eth0", "scope", "global")  # noqa: E731
        eventually(15, "the control: it is heard where there are no rules", lambda: heard("listener"))
        never(2, "a guest hears another as its router", lambda: any(heard(guest.namespace) for guest in others))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 15)
        rogue.wait(10)
        liar.host.run("ip", "netns", "delete", "listener")
        inside(liar, "ip", "-6", "addr", "flush", "dev", "eth0", "to", f"{ROGUE}/64")
    for guest in others:
        assert pings(guest, GATEWAY)


def test_advertisements_go_on_without_the_daemons_and_come_back_with_them(cloud, guests):
    one, two, _ = guests
    advertisers = lambda: subprocess.run(["pgrep", "-f", "nova-br100[.]ra .*--enable-ra"], capture_output=True, text=True).stdout.split()  # noqa: E731
    [before] = advertisers()
    cloud.kill()
    assert pings(one, two) and pings(one, GATEWAY)
    cloud.start()
    assert advertisers() == [before], "a restart starts nothing anew"
    os.kill(int(before), 9)
    eventually(10, "it runs again", lambda: advertisers() not in ([], [before]))
    cloud.check()
