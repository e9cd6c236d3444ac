"""The whole life of a guest, asked for by each client that people use."""

import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients import CLIENTS
from guest import BOOTS_WITHIN
from servers import ENGINES
from wait import eventually


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_guest_lives_as_each_client_asks(cloud, kind, tmp_path):
    a_guest_lives(cloud, kind, tmp_path)
    cloud.check()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_guest_lives_as_each_client_asks_of_five_daemons(clouds, engine, tmp_path):
    cloud = clouds[engine]
    # All at once, to save time: each has a guest of its own.
    with ThreadPoolExecutor(len(CLIENTS)) as pool:
        for life in [pool.submit(a_guest_lives, cloud, kind, tmp_path) for kind in CLIENTS]:
            life.result()
    cloud.check()


def a_guest_lives(cloud, kind, tmp_path):
    """From its key pair to its end."""
    client = cloud.client(kind)
    name = kind.replace(" ", "-")
    user_data = f"#!/bin/sh\necho 'user data of {kind}' >/disk/from-user-data\n"
    assert client.zones() == ["nova"]

    private_key = client.create_key_pair(name)
    assert name in client.key_pairs()
    client.create_group(name)
    client.authorize(name, "icmp", -1, -1)
    client.authorize(name, "tcp", 22, 22)
    id = client.run(cloud.image, name, name, user_data)
    assert client.state(id) in ("pending", "running")
    client.wait(id, "running")

    guest = cloud.guest(client.address(id), private_key, tmp_path)
    guest.answers()
    assert guest.ssh("cat /run/instance-id") == id
    only_its_owner_may_enter(guest, tmp_path / f"another-key-{name}")
    the_guest_saw_its_user_data(client, id, guest, user_data, kind)

    stop_and_start(client, id, guest)
    reboot(client, id, guest)

    client.terminate(id)
    client.wait(id, "terminated")
    guest.is_silent()
    client.delete_group(name)
    client.delete_key_pair(name)
    assert name not in client.key_pairs()


def only_its_owner_may_enter(guest, other):
    """ssh with another key is refused; that the guest's own is let in was seen before."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    refused = guest.ssh_status("true", key=other)
    assert refused.returncode == 255 and "Permission denied" in refused.stderr, refused.stderr


def the_guest_saw_its_user_data(client, id, guest, user_data, kind):
    """Byte for byte, says its console; and it ran."""
    digest = hashlib.sha256(user_data.encode()).hexdigest()
    eventually(20, "the console shows the user data's digest", lambda: f"user-data-sha256={digest}" in client.console(id), every=0.5)
    eventually(20, "the user data has run", lambda: guest.ssh("cat /disk/from-user-data || true") == f"user data of {kind}")


def stop_and_start(client, id, guest):
    """A stopped guest is silent and keeps its disk and its address."""
    boots = int(guest.ssh("cat /disk/boot-count"))
    guest.ssh("echo precious >/disk/root/kept; sync")
    client.stop(id)
    client.wait(id, "stopped")
    guest.is_silent()
    client.start(id)
    client.wait(id, "running")
    assert client.address(id) == guest.address
    guest.answers()
    assert guest.ssh("cat /disk/root/kept") == "precious"
    assert int(guest.ssh("cat /disk/boot-count")) == boots + 1


def reboot(client, id, guest):
    """A rebooted guest has another boot id, and was `running` for its user all the time."""
    before = guest.ssh("cat /proc/sys/kernel/random/boot_id")
    client.reboot(id)

    def came_back():
        seen = guest.ssh_status("cat /proc/sys/kernel/random/boot_id")
        return seen.returncode == 0 and seen.stdout.strip() != before

    eventually(BOOTS_WITHIN, "the guest has booted again", came_back, every=0.5)
    client.wait(id, "running")
