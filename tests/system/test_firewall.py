"""Security groups and anti-spoofing, tried on real guests. Each refusal is preceded by the same thing being let through."""

import threading

import pytest

from wait import eventually, never

OPENS_WITHIN = 2
SERVE = "#!/bin/sh\nmkdir -p /run/www; echo hello >/run/www/index.html; httpd -p 8080 -h /run/www; httpd -p 8081 -h /run/www\n"


@pytest.fixture(scope="module", params=["combined", "mariadb"])
def cloud(request, clouds):
    """One process, and five: the hints travel another way."""
    return clouds[request.param]


@pytest.fixture(scope="module")
def neighbours(cloud, tmp_path_factory):
    """Two guests of one project in one group, which lets icmp and ssh through."""
    client = cloud.client("boto3")
    folder = tmp_path_factory.mktemp("neighbours")
    private_key = client.create_key_pair("neighbours")
    client.create_group("neighbours")
    client.authorize("neighbours", "icmp", -1, -1)
    client.authorize("neighbours", "tcp", 22, 22)
    ids = [client.run(cloud.image, "neighbours", "neighbours", SERVE) for _ in range(2)]
    for id in ids:
        client.wait(id, "running")
    guests = [cloud.guest(client.address(id), private_key, folder) for id in ids]
    for guest in guests:
        guest.answers()
    yield guests
    for id in ids:
        client.terminate(id)
    for id in ids:
        client.wait(id, "terminated")
    client.delete_group("neighbours")
    client.delete_key_pair("neighbours")
    cloud.check()


def test_a_port_is_closed_until_it_is_authorized_and_closes_when_it_is_revoked(cloud, neighbours):
    guest = neighbours[0]
    client = cloud.client("boto3")
    # The guest itself does serve: what keeps us out is Nova.
    eventually(20, "the guest serves", lambda: guest.ssh("wget -q -O - http://127.0.0.1:8080/ || true") == "hello")
    assert guest.open(22), "the control: an authorized port is open"
    never(2, "a port that nobody authorized is open", lambda: guest.open(8080))

    client.authorize("neighbours", "tcp", 8080, 8080)
    _, took = eventually(OPENS_WITHIN, "port 8080 is open after authorize", lambda: guest.open(8080, timeout=0.2), every=0.02)
    assert took <= OPENS_WITHIN
    assert not guest.open(8081), "its neighbour was not authorized"

    client.revoke("neighbours", "tcp", 8080, 8080)
    eventually(OPENS_WITHIN, "port 8080 is closed after revoke", lambda: not guest.open(8080, timeout=0.2), every=0.02)
    never(1, "a revoked port is open", lambda: guest.open(8080))


def test_a_rule_for_one_range_lets_no_other_in(cloud, neighbours):
    guest = neighbours[0]
    client = cloud.client("boto3")
    client.authorize("neighbours", "tcp", 8081, 8081, cidr="203.0.113.0/24")
    never(2, "a port is open to a range it was not authorized for", lambda: guest.open(8081))
    client.revoke("neighbours", "tcp", 8081, 8081, cidr="203.0.113.0/24")


# Run inside the guest, while its DHCP client holds still, and detached, for it cuts its own connection; what it finds it writes down and puts everything back.
SPOOF = """
say() {{ echo "$1 $(ping -c 3 -W 1 -q {target} | sed -n 's/.* \\([0-9]*\\) packets received.*/\\1/p')" >>/disk/spoof; }}
rm -f /disk/spoof
mac=$(cat /sys/class/net/eth0/address)
killall -STOP udhcpc
say own
{take}
say taken
ip addr flush dev eth0; ip link set eth0 down; ip link set eth0 address $mac; ip link set eth0 up
ip addr add {own}/24 dev eth0; ip route replace default via {gateway}
sleep 1
say again
killall -CONT udhcpc
echo done >>/disk/spoof
"""


# How the daemons speak to each other has no part in it; so once is enough.
@pytest.mark.parametrize("cloud", ["combined"], indirect=True)
@pytest.mark.parametrize(
    "take",
    [
        pytest.param("ip addr flush dev eth0; ip addr add {other}/24 dev eth0", id="address"),
        pytest.param("ip link set eth0 down; ip link set eth0 address {other_mac}; ip link set eth0 up; sleep 1", id="mac"),
        pytest.param(
            "ip link set eth0 down; ip link set eth0 address {other_mac}; ip link set eth0 up;"
            " ip addr flush dev eth0; ip addr add {other}/24 dev eth0; sleep 1",
            id="both",
        ),
        pytest.param("ip addr flush dev eth0; ip addr add 10.44.0.250/24 dev eth0", id="free-address"),
    ],
)
def test_a_guest_that_takes_what_is_not_its_own_reaches_nobody(neighbours, take):
    liar, victim = neighbours
    gateway = liar.address.rsplit(".", 1)[0] + ".1"
    mac = victim.ssh("cat /sys/class/net/eth0/address")
    taken = take.format(other=victim.address, other_mac=mac)
    script = SPOOF.format(target=gateway, take=taken, own=liar.address, gateway=gateway)
    liar.ssh(f"cat >/disk/spoof.sh <<'END'\n{script}\nEND\nsetsid sh /disk/spoof.sh </dev/null >/disk/spoof.log 2>&1 &")

    with Watch(victim) as watch:
        eventually(60, "the guest is itself again", lambda: "done" in liar.ssh_status("cat /disk/spoof").stdout, every=0.5)
    found = dict(line.split() for line in liar.ssh("cat /disk/spoof").splitlines() if " " in line)
    assert found["own"] == "3", f"the control: with what is its own it reaches the gateway ({found})"
    assert found["taken"] == "0", f"with what is another's it reaches nobody ({found})"
    assert found["again"] == "3", f"and with its own it does again ({found})"
    assert watch.lost <= 1, f"the victim was cut off: {watch.lost} of {watch.sent} pings were lost"


class Watch(threading.Thread):
    """Pings a guest all the while."""

    def __init__(self, guest):
        super().__init__()
        self.guest, self.enough, self.sent, self.lost = guest, threading.Event(), 0, 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.enough.set()
        self.join()

    def run(self):
        while not self.enough.wait(0.2):
            self.sent += 1
            self.lost += not self.guest.pings()
