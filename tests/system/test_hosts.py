"""Three hosts on one switch: a controller, and two that run real guests."""

import re

import pytest

from guest import BOOTS_WITHIN
from spread import COMPUTE, Spread
from wait import eventually

GUESTS = 4


@pytest.fixture(scope="module")
def lab(servers, switches, logs, tmp_path_factory):
    lab = Spread("hosts", 1, tmp_path_factory.mktemp("hosts"), logs, servers, switches, "--flat_interface=eth1")
    try:
        lab.start()
        yield lab
    finally:
        lab.remove()


@pytest.fixture(scope="module")
def launched(lab, tmp_path_factory):
    """The ids of four guests that were launched with one request, and the guests, as the controller sees them."""
    client = lab.cloud.client("boto3")
    folder = tmp_path_factory.mktemp("four")
    private_key = client.create_key_pair("four")
    client.authorize("default", "icmp", -1, -1)
    client.authorize("default", "tcp", 22, 22)
    answer = client.ec2.run_instances(ImageId=lab.cloud.image, MinCount=GUESTS, MaxCount=GUESTS, InstanceType="m1.tiny", KeyName="four")
    ids = [instance["InstanceId"] for instance in answer["Instances"]]
    for id in ids:
        client.wait(id, "running")
    return ids, [lab.cloud.guest(client.address(id), private_key, folder) for id in ids]


def test_four_guests_land_on_both_hosts_and_reach_each_other_and_the_controller(lab, launched):
    ids, guests = launched
    hosts = dict(lab.cloud.rows("select host, count(*) from instances where deleted = false group by host"))
    assert hosts == {"compute1": 2, "compute2": 2}, "the guests are not spread"
    assert {name: len(host.domains()) for name, host in lab.compute.items()} == hosts, "the rows say what libvirt does not"
    for guest in guests:
        guest.answers()
    assert {guest.ssh("cat /run/instance-id") for guest in guests} == set(ids), "the metadata is another's"
    for guest in guests:
        for other in guests:
            assert " 0% packet loss" in guest.ssh(f"ping -c 2 -W 2 {other.address} || true"), f"{guest.address} does not reach {other.address}"
        # The gateway is on the controller; of other addresses of hosts guests are to know nothing.
        assert " 0% packet loss" in guest.ssh("ping -c 2 -W 2 10.44.0.1 || true")
        assert lab.controller.pings(guest.address)
    lab.check()


def test_each_host_fetched_each_image_once(lab, launched):
    for name in COMPUTE:
        fetched = re.findall(r"Fetching (\S+) from http", lab.log(name))
        assert len(fetched) == len(set(fetched)) == 3, f"kernel, ramdisk and disk: {fetched}"


def test_guests_keep_their_leases(lab, launched):
    _, guests = launched
    # They are written now and then, and when a server starts.
    eventually(20, "all leases are written down", lambda: set(leases(lab)) == {guest.address for guest in guests}, every=0.3)
    before = leases(lab)
    for guest in guests:
        # What udhcpc does at half the lease's time, which dnsmasq makes two minutes at least.
        guest.ssh("killall -USR1 udhcpc")
    eventually(30, "all leases are longer", lambda: all(leases(lab)[address] > end for address, end in before.items()), every=0.3)
    for guest in guests:
        assert guest.accepts_ssh()
    assert sorted(leases(lab)) == sorted(before)


def leases(lab):
    """When the lease of each address ends, as dnsmasq wrote it down."""
    lines = [line.split() for file in (lab.cloud.state / "networks").rglob("*leases*") if file.is_file() for line in file.read_text().splitlines()]
    return {line[2]: int(line[0]) for line in lines}


def test_a_compute_host_whose_daemon_is_killed_and_started_knows_its_guests(lab, launched):
    ids, guests = launched
    daemon = lab.cloud.daemons["compute1"]
    domains = lab.compute["compute1"].domains()
    boots = {guest: guest.ssh("cat /proc/sys/kernel/random/boot_id") for guest in guests}
    daemon.kill()
    for guest in guests:
        assert guest.pings(), "a guest needs no daemon to run"
    daemon.start()
    client = lab.cloud.client("boto3")
    for id in ids:
        client.wait(id, "running")
    assert lab.compute["compute1"].domains() == domains
    assert {guest: guest.ssh("cat /proc/sys/kernel/random/boot_id") for guest in guests} == boots, "a guest was started again"
    # It is known: it does what it is told.
    victim = one_on(lab, ids, "compute1")
    client.reboot(victim)
    guest = guests[ids.index(victim)]
    eventually(BOOTS_WITHIN, "the guest has booted again", lambda: rebooted(guest, boots[guest]), every=0.5)
    lab.check()


def one_on(lab, ids, host):
    """One of the instances that run on the host."""
    number = min(row[0] for row in lab.cloud.rows(f"select id from instances where host = '{host}' and deleted = false"))
    id = f"i-{number:08x}"
    assert id in ids
    return id


def rebooted(guest, before):
    seen = guest.ssh_status("cat /proc/sys/kernel/random/boot_id")
    return seen.returncode == 0 and seen.stdout.strip() != before


def test_terminated_guests_leave_both_hosts(lab, launched):
    ids, guests = launched
    client = lab.cloud.client("boto3")
    client.ec2.terminate_instances(InstanceIds=ids)
    for id in ids:
        client.wait(id, "terminated")
    assert all(host.domains() == [] for host in lab.compute.values())
    for guest in guests:
        assert not guest.pings()
    lab.check()
