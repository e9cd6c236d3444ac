"""The guide's network part as it is written, with its flags, and each of its common issues: what the doctor says of it, and that its cure cures.

Its default manager needs VLANs, which namespaces may not have: this is the guide's FlatDHCPManager.
"""

import os
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest

import netns
from clients import SigV2Connection
from wait import eventually

GATEWAY = "192.168.0.1"


def of_the_guide(address):
    """Its block to cut and paste, trailing blanks and all, but for the servers: there are none here."""
    return [
        f"--s3_host={address}",
        f"--cc_host={address}  ",
        "--verbose             ",
        f"--ec2_url=http://{address}:8773/services/Cloud",
        "--network_manager=nova.network.manager.FlatDHCPManager",
        "--fixed_range=192.168.0.0/12",
        "--network_size=5000     ",
    ]


@pytest.fixture(scope="module")
def host(switches, logs):
    host = netns.a_host("guide", 45, switches, logs)
    yield host
    host.remove()


@pytest.fixture(scope="module")
def cloud(host, logs, tmp_path_factory):
    cloud = netns.made(tmp_path_factory.mktemp("guide"), host, logs, *of_the_guide(host.address))
    cloud.create(network=("192.168.0.0/24", "1", "255"))
    cloud.add_fake_image()
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def ec2(cloud, tmp_path_factory):
    """euca2ools with the zip's novarc."""
    folder = tmp_path_factory.mktemp("creds")
    cloud.manage("project", "zipfile", "acme", "alice", str(folder / "novacreds.zip"))
    with zipfile.ZipFile(folder / "novacreds.zip") as creds:
        novarc = creds.read("novarc").decode()
    said = subprocess.run(["bash", "-c", f"{novarc}\nprintf '%s\\n' $EC2_ACCESS_KEY $EC2_SECRET_KEY $EC2_URL"], capture_output=True, text=True)
    access, secret, url = said.stdout.split()
    assert url == cloud.url
    now = cloud.client("boto 2.49").ec2
    return SigV2Connection(access, secret, is_secure=False, port=cloud.port, path="/services/Cloud/", region=now.region, api_version="2009-11-30")


@pytest.fixture(scope="module")
def guest(cloud, host, ec2):
    [image] = [image.id for image in ec2.get_all_images() if image.id == cloud.image]
    id = ec2.run_instances(image, instance_type="m1.tiny").instances[0].id
    client = cloud.client("boto 2.49")
    client.wait(id, "running")
    guest = netns.Guest(client, id, host)
    guest.is_ready()
    return guest


@pytest.fixture(scope="module")
def outside(host):
    return netns.Place(host.command)


def doctor(cloud, guest, **keys):
    """Its status and what it found broken, by step."""
    inside = lambda *words: cloud.inside("env", *(f"{name}={value}" for name, value in keys.items()), *words)  # noqa: E731
    done = cloud.run_manage("doctor", "instance", guest.id, inside=inside)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    return done.returncode, {line[1]: done.stdout for line in lines if line[:1] == ["broken"]}, done.stdout


def dnsmasq(cloud):
    """The pids of those that serve this cloud's networks."""
    mine = f"--pid-file={cloud.state.resolve()}/networks/".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mine in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def test_the_network_is_what_the_guide_says(cloud, guest):
    rows = cloud.rows("select cidr, netmask, gateway, broadcast, bridge, vlan from networks")
    assert rows == [("192.168.0.0/24", "255.255.255.0", GATEWAY, "192.168.0.255", "br100", None)]
    reserved = cloud.rows("select address from fixed_ips where reserved order by id")
    assert reserved == [("192.168.0.0",), (GATEWAY,), ("192.168.0.255",)]
    assert guest.address.startswith("192.168.0.")
    cloud.check()


def test_not_authorized_is_the_first_common_issue(cloud, ec2, guest, outside):
    assert not outside.pings(guest) and not outside.reaches(guest, 22)
    status, broken, said = doctor(cloud, guest)
    assert status == 1 and set(broken) == {"ping", "ssh"}, said
    assert "euca-authorize -P icmp -t -1:-1 default" in said and "euca-authorize -P tcp -p 22 default" in said
    # These two commands.
    ec2.authorize_security_group("default", ip_protocol="icmp", from_port=-1, to_port=-1, cidr_ip="0.0.0.0/0")
    ec2.authorize_security_group("default", ip_protocol="tcp", from_port=22, to_port=22, cidr_ip="0.0.0.0/0")
    eventually(5, "the guest answers", lambda: outside.pings(guest) and outside.reaches(guest, 22))
    status, broken, said = doctor(cloud, guest)
    assert (status, broken) == (0, {}), said


def test_too_few_dnsmasq_is_the_second(cloud, guest):
    assert len(dnsmasq(cloud)) == 2, "TWO dnsmasq processes"
    # With nobody who starts them again meanwhile.
    cloud.stop()
    for pid in dnsmasq(cloud):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    eventually(5, "both are gone", lambda: not dnsmasq(cloud))
    _, broken, said = doctor(cloud, guest)
    assert "dnsmasq" in broken and "killall dnsmasq; service nova-network restart" in said, said
    cloud.start()
    eventually(10, "both are back", lambda: len(dnsmasq(cloud)) == 2)
    guest.renews(GATEWAY)
    status, broken, said = doctor(cloud, guest)
    assert (status, broken) == (0, {}), said


def test_a_wrong_key_is_the_third(cloud, ec2, guest):
    right = {"EC2_ACCESS_KEY": ec2.aws_access_key_id, "EC2_SECRET_KEY": ec2.aws_secret_access_key}
    status, broken, said = doctor(cloud, guest, **right)
    assert (status, broken) == (0, {}), said
    for wrong in ({"EC2_ACCESS_KEY": "nobody:acme"}, {"EC2_SECRET_KEY": "stale"}):
        status, broken, said = doctor(cloud, guest, **{**right, **wrong})
        assert status == 1 and list(broken) == ["API"], said
        assert ". /root/creds/novarc" in said


def test_the_guides_last_commands_answer(cloud, ec2, guest):
    assert cloud.image in [image.id for image in ec2.get_all_images()]
    [reservation] = ec2.get_all_instances()
    assert [instance.id for instance in reservation.instances] == [guest.id]
    cloud.check()
