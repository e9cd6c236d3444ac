"""The whole path of a packet without a virtual machine: two guests of one project, one of another, on one host.

Each refusal is preceded by the same thing being let through.
"""

import hashlib
import os
import signal
import time
from types import SimpleNamespace

import pytest

import netns
from cloud import USER
from wait import eventually, never

USER_DATA = "#!/bin/sh\nreboot\n"
RIVAL = "rival"
OPENS_WITHIN = 2
DOZEN = 12


@pytest.fixture(scope="module")
def host(switches, logs):
    host = netns.a_host("netns", 40, switches, logs)
    yield host
    host.remove()


@pytest.fixture(scope="module")
def cloud(host, logs, tmp_path_factory):
    cloud = netns.made(tmp_path_factory.mktemp("netns"), host, logs)
    netns.start(cloud)
    cloud.manage("project", "create", RIVAL, USER)
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def guests(cloud, host):
    """Two of one project, then one of another; none of their groups has a rule."""
    clients = [cloud.client("boto3"), cloud.client("boto3"), cloud.client("boto3", project=RIVAL)]
    clients[0].create_key_pair("netns")
    ids = [client.run(cloud.image, "netns" if n == 0 else None, "default", USER_DATA) for n, client in enumerate(clients)]
    for client, id in zip(clients, ids, strict=True):
        client.wait(id, "running")
    return [netns.Guest(client, id, host) for client, id in zip(clients, ids, strict=True)]


@pytest.fixture(scope="module")
def outside(host):
    """The host itself, which is outside of all groups."""
    return netns.Place(host.command)


def test_guests_take_their_addresses_and_learn_who_they_are(guests):
    sum = hashlib.sha256(USER_DATA.encode()).hexdigest()
    for guest in guests:
        print(f"{guest.id} is ready after {guest.is_ready():.2f} s more")
        said = guest.console()
        assert f"ip={guest.address} instance-id={guest.id} " in said
        assert f"user-data-sha256={sum}" in said
    assert "nova-guest: key ssh-" in guests[0].console()
    assert "nova-guest: no key" in guests[1].console()
    guests[0].renews()


def test_one_project_is_among_itself_and_another_is_shut_out(guests, outside):
    one, two, rival = guests
    for guest in (one, two, rival):
        guest.is_ready()
    for port in netns.PORTS:
        assert one.reaches(two, port) and two.reaches(one, port), "the control: one project reaches itself, so both serve"
        assert not rival.reaches(one, port) and not one.reaches(rival, port) and not outside.reaches(one, port)
    assert one.pings(two) and two.pings(one)
    assert not rival.pings(one) and not one.pings(rival) and not outside.pings(one)


def test_a_rule_opens_a_port_to_those_it_names_and_closes_it_again(cloud, guests, outside):
    one, two, rival = guests
    client = one.client
    client.authorize("default", "tcp", 22, 22, cidr=f"{rival.address}/32")
    eventually(OPENS_WITHIN, "port 22 is open to whom the rule names", lambda: rival.reaches(one, 22), every=0.02)
    assert rival.reaches(two, 22), "the other member of the group too"
    assert not rival.reaches(one, 80) and not rival.pings(one), "and nothing but that port"
    assert not outside.reaches(one, 22), "and nobody else"
    client.authorize("default", "icmp", -1, -1)
    eventually(OPENS_WITHIN, "ping is let in", lambda: rival.pings(one) and outside.pings(one), every=0.02)
    client.revoke("default", "icmp", -1, -1)
    client.revoke("default", "tcp", 22, 22, cidr=f"{rival.address}/32")
    eventually(OPENS_WITHIN, "it is closed again", lambda: not rival.reaches(one, 22) and not rival.pings(one), every=0.02)
    never(1, "a revoked port is open", lambda: rival.reaches(one, 22))
    cloud.check()


def test_a_group_lets_the_members_of_another_projects_group_in(cloud, guests):
    one, _, rival = guests
    pair = {"GroupName": "default", "UserId": RIVAL}
    rule = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [pair]}]
    one.client.ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=rule)
    eventually(OPENS_WITHIN, "port 80 is open to the other group", lambda: rival.reaches(one, 80), every=0.02)
    assert not rival.reaches(one, 22), "and no other port"
    assert not one.reaches(rival, 80), "and not the other way"
    one.client.ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=rule)
    eventually(OPENS_WITHIN, "it is closed again", lambda: not rival.reaches(one, 80), every=0.02)
    cloud.check()


@pytest.mark.parametrize("what", [("address",), ("mac",), ("address", "mac"), ("free",)], ids="-".join)
def test_a_guest_that_takes_what_is_not_its_own_reaches_nobody(guests, what):
    liar, victim, _ = guests
    gateway = SimpleNamespace(address="10.44.0.1")
    inside = lambda *words: liar.host.run("ip", "netns", "exec", liar.namespace, *words)  # noqa: E731
    mac = {guest: guest.host.run(*guest.inside("cat", "/sys/class/net/eth0/address")).strip() for guest in (liar, victim)}

    def take(address, mac):
        inside("ip", "addr", "flush", "dev", "eth0")
        inside("ip", "link", "set", "eth0", "address", mac)
        inside("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        inside("ip", "route", "replace", "default", "via", gateway.address)

    assert liar.pings(gateway) and liar.pings(victim), "the control: with what is its own it reaches both"
    client = liar.processes()["busybox"]
    os.kill(client, signal.SIGSTOP)
    try:
        address = {"address": victim.address, "free": "10.44.0.250"}.get(what[0], liar.address)
        take(address, mac[victim if "mac" in what else liar])
        assert not liar.pings(gateway), "with what is another's it reaches the gateway"
        # Towards itself it would answer itself.
        assert "address" in what or not liar.pings(victim), "with what is another's it reaches the other"
        assert victim.pings(gateway), "the victim is cut off"
    finally:
        take(liar.address, mac[liar])
        os.kill(client, signal.SIGCONT)
    eventually(5, "with its own it reaches both again", lambda: liar.pings(gateway) and liar.pings(victim))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_guests_and_their_connections_outlive_the_daemons(cloud, guests, outside, end):
    one, two, rival = guests
    before = [guest.processes() for guest in guests]
    one.client.authorize("default", "tcp", 22, 22)
    eventually(OPENS_WITHIN, "port 22 is open", lambda: rival.reaches(one, 22))
    with two.talks(one, 80) as neighbour, rival.talks(one, 22) as stranger, outside.talks(one, 22) as host:
        talks = [neighbour, stranger, host]
        assert all(talk.echoes("before") for talk in talks)
        getattr(cloud, end)()
        assert all(talk.echoes("without") for talk in talks)
        assert not rival.reaches(one, 80), "closed while nobody watches"
        cloud.start()
        assert all(talk.echoes("after") for talk in talks)
    assert [guest.processes() for guest in guests] == before, "a guest was started again"
    one.client.revoke("default", "tcp", 22, 22)
    eventually(OPENS_WITHIN, "rules change as before", lambda: not rival.reaches(one, 22))
    assert two.reaches(one, 22)
    cloud.check()


def test_without_a_word_of_the_rules_not_even_one_project_is_let_in(cloud, guests):
    one, two, _ = guests
    assert two.reaches(one, 22) and two.pings(one), "the control: it is open by the flag"
    cloud.stop()
    cloud.start("--allow_project_net_traffic=false")
    eventually(10, "one project is closed to itself", lambda: not two.reaches(one, 22) and not two.pings(one))
    one.client.authorize("default", "tcp", 22, 22, cidr="10.44.0.0/24")
    eventually(OPENS_WITHIN, "port 22 is open by a rule", lambda: two.reaches(one, 22), every=0.02)
    assert not two.reaches(one, 80)
    one.client.revoke("default", "tcp", 22, 22, cidr="10.44.0.0/24")
    cloud.stop()
    cloud.start()
    eventually(10, "it is open by the flag again", lambda: two.reaches(one, 80))


def test_a_guest_is_stopped_started_restarted_and_seen_to_end_by_itself(cloud, guests):
    one, two, _ = guests
    client = two.client
    client.stop(two.id)
    client.wait(two.id, "stopped")
    assert not one.pings(two) and "power down" in two.console()
    client.start(two.id)
    client.wait(two.id, "running")
    two.is_ready(times=2)
    assert one.reaches(two, 22)
    client.reboot(two.id)
    two.is_ready(times=3)
    os.kill(two.processes()["nova-netns-gues"], signal.SIGKILL)
    client.wait(two.id, "stopped")
    assert not one.pings(two), "what is off answers"
    client.start(two.id)
    client.wait(two.id, "running")
    two.is_ready(times=4)
    assert one.reaches(two, 22)
    cloud.check()


def test_terminated_guests_leave_nothing(cloud, guests, host):
    for guest in guests:
        guest.client.terminate(guest.id)
    for guest in guests:
        guest.client.wait(guest.id, "terminated")
    assert netns.namespaces(host) == [] and netns.taps(host) == []
    folder = cloud.state / "instances"
    assert list(folder.glob("instance-*")) == [] and list((folder / ".netns-guests").iterdir()) == []
    cloud.check()


def test_a_namespace_that_is_of_no_instance_is_found(cloud, host):
    client = cloud.client("boto3")
    guest = netns.Guest(client, client.run(cloud.image, None, "default", USER_DATA), host)
    client.wait(guest.id, "running")
    stray = f"{guest.namespace[:-8]}0000ffff"
    client.terminate(guest.id)
    client.wait(guest.id, "terminated")
    cloud.check()
    host.run("ip", "netns", "add", stray)
    found = cloud.run_manage("check")
    assert found.returncode != 0 and f"the namespace {stray} is of i-0000ffff, which is not here" in found.stdout, found
    host.run("ip", "netns", "delete", stray)
    cloud.check()


def test_a_dozen_guests_are_ready_within_seconds(cloud, host):
    client = cloud.client("boto3")
    began = time.monotonic()
    answer = client.ec2.run_instances(ImageId=cloud.image, MinCount=DOZEN, MaxCount=DOZEN, InstanceType="m1.tiny")
    guests = [netns.Guest(client, instance["InstanceId"], host) for instance in answer["Instances"]]
    for guest in guests:
        guest.is_ready()
    print(f"{DOZEN} guests are ready after {time.monotonic() - began:.1f} s")
    for guest in guests:
        assert guests[0] is guest or guests[0].reaches(guest, 80)
    began = time.monotonic()
    client.ec2.terminate_instances(InstanceIds=[guest.id for guest in guests])
    eventually(30, "all are gone", lambda: netns.namespaces(host) == [] and netns.taps(host) == [])
    print(f"they are gone after {time.monotonic() - began:.1f} s")
    for guest in guests:
        client.wait(guest.id, "terminated")
    cloud.check()
