"""A network host that is lost, and one that is only cut off: three hosts, of which two could serve the network.

The guest is on the third, and the test's own host is the world.
"""

import os
from types import SimpleNamespace

import pytest

import netns
from cloud import as_it_is
from lab import NETWORK, OUTSIDE, run
from wait import eventually, never

SERVERS = ["fover1", "fover2"]
GATEWAY = "10.44.0.1"
FLOATING = f"{NETWORK}.200"
METADATA = "http://169.254.169.254/latest/meta-data/instance-id"
# A lease is three reports.
REPORT = 2
LEASE = 3 * REPORT
SOON = 40


class Lab:
    """The hosts, and a cloud whose networks are served by one of two."""

    def __init__(self, folder, logs, servers, switches):
        self.controller = netns.a_host("fover0", 60, switches, logs)
        self.hosts = {name: netns.a_host(name, 61 + n, switches, logs) for n, name in enumerate(SERVERS)}
        self.ports = [servers["mariadb"].port, servers["rabbitmq"].port]
        flags = ["--host=fover0", "--flat_interface=eth1", f"--report_interval={REPORT}", "--service_down_time=8"]
        self.cloud = netns.made(folder, self.controller, logs, *flags, **servers.of("mariadb"))
        del self.cloud.daemons["nova-network"]
        self.own = {}
        for name, host in self.hosts.items():
            state = folder / name
            state.mkdir()
            # dnsmasq has a user of its own, who must be able to walk to the list of guests.
            os.chmod(state, 0o711)
            self.own[name] = [f"--host={name}", f"--my_ip={host.address}", f"--state_path={state}"]
            # The metadata service is where the network is served, and knows guests by their addresses.
            self.cloud.add("nova-api", *self.own[name], key=f"api-{name}", inside=host.command)
            self.cloud.add("nova-network", *self.own[name], key=name, inside=host.command)

    def start(self):
        """The first host is there before the second, and serves the network."""
        second = self.cloud.daemons.pop("fover2")
        netns.start(self.cloud)
        eventually(SOON, "the first host serves", lambda: self.has("fover1", GATEWAY))
        self.cloud.daemons["fover2"] = second
        second.start()

    def has(self, name, address):
        return f"inet {address}/" in self.hosts[name].run("ip", "-o", "-4", "addr")

    def holders(self, address):
        return [name for name in SERVERS if self.has(name, address)]

    def server(self):
        [(host,)] = self.cloud.rows("select host from networks where deleted = false")
        return host

    def log(self, name):
        return self.cloud.daemons[name].log.read_text()

    def plug(self, name, up):
        """Plugs a host's wires into both switches, or pulls them out."""
        for kind in ("lan", "guests"):
            run("ip", "-n", "switch", "link", "set", f"{name}-{kind}", "up" if up else "down")

    def cut_off(self, name):
        """The host loses the database and the broker, and nothing else."""
        rule = f"table inet cut {{ chain output {{ type filter hook output priority 0; tcp dport {{ {self.ports[0]}, {self.ports[1]} }} drop; }}; }}"
        self.hosts[name].run("nft", rule)

    def reconnect(self, name):
        self.hosts[name].run("nft", "delete", "table", "inet", "cut")

    def remove(self):
        self.cloud.stop()
        for host in [*self.hosts.values(), self.controller]:
            host.remove()


@pytest.fixture(scope="module")
def lab(servers, switches, logs, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("failover"), logs, servers, switches)
    try:
        lab.start()
        yield lab
    finally:
        lab.remove()


@pytest.fixture(scope="module")
def guest(lab):
    """A guest with a floating address and an open port."""
    client = lab.cloud.client("boto3")
    client.authorize("default", "tcp", 22, 22)
    guest = netns.Guest(client, client.run(lab.cloud.image, None, "default", ""), lab.controller)
    client.wait(guest.id, "running")
    guest.is_ready()
    lab.cloud.manage("floating", "create", "fover1", f"{FLOATING}/32")
    assert client.ec2.allocate_address()["PublicIp"] == FLOATING
    client.ec2.associate_address(InstanceId=guest.id, PublicIp=FLOATING)
    # It answers a moment before it is bound, and a daemon that is killed in that moment binds it at its next start.
    eventually(SOON, "the floating address is bound", lambda: lab.has("fover1", FLOATING))
    return guest


@pytest.fixture(scope="module")
def world():
    return netns.Place(as_it_is)


def metadata(guest):
    return guest.host.run("ip", "netns", "exec", guest.namespace, "curl", "-sS", "--max-time", "5", METADATA).strip()


def packets_pass(guest, world):
    """The guest reaches the world, and is reached at its floating address."""
    public = SimpleNamespace(address=FLOATING, id=guest.id)
    eventually(SOON, "the guest reaches the world", lambda: guest.pings(SimpleNamespace(address=OUTSIDE)))
    eventually(SOON, "the floating address answers", lambda: world.reaches(public, 22))


def all_is_well(guest, world):
    packets_pass(guest, world)
    assert metadata(guest) == guest.id


def test_a_host_whose_daemon_is_gone_keeps_its_network(lab, guest, world):
    all_is_well(guest, world)
    lab.cloud.daemons["fover1"].kill()
    eventually(SOON, "the other would take over", lambda: f"answers for the gateway {GATEWAY}" in lab.log("fover2"))
    never(2, "two hosts have the gateway", lambda: lab.has("fover2", GATEWAY))
    assert lab.server() == "fover1"
    doctor = lab.cloud.run_manage(*lab.own["fover2"], "doctor", "host", inside=lab.hosts["fover2"].command)
    assert f"answers for {GATEWAY}" in doctor.stdout, doctor.stdout + doctor.stderr
    all_is_well(guest, world)
    lab.cloud.daemons["fover1"].start()
    eventually(SOON, "the lease is the first host's", lambda: "has come back" in lab.log("fover2"))
    assert lab.server() == "fover1" and lab.holders(GATEWAY) == ["fover1"]


def test_a_host_that_loses_only_the_database_keeps_its_network(lab, guest, world):
    before = lab.log("fover2").count("answers for the gateway")
    lab.cut_off("fover1")
    eventually(SOON, "the other would take over", lambda: lab.log("fover2").count("answers for the gateway") > before)
    never(2, "two hosts have the gateway", lambda: lab.has("fover2", GATEWAY))
    guest.renews()
    # Its metadata service needs the database, too.
    packets_pass(guest, world)
    lab.reconnect("fover1")
    eventually(SOON, "the lease is the first host's", lambda: lab.log("fover2").count("has come back") == 2)
    assert lab.server() == "fover1" and lab.holders(GATEWAY) == ["fover1"]


def test_a_host_that_is_lost_is_replaced_and_drops_all_when_it_comes_back(lab, guest, world):
    lab.plug("fover1", up=False)
    _, took = eventually(SOON, "the other takes over", lambda: lab.has("fover2", GATEWAY))
    print(f"the network has another host after {took:.1f} s")
    guest.renews()
    all_is_well(guest, world)
    assert lab.server() == "fover2" and lab.holders(FLOATING) == ["fover1", "fover2"], "the lost one knows nothing yet"

    lab.plug("fover1", up=True)
    eventually(SOON, "the old host has dropped all", lambda: lab.holders(GATEWAY) == lab.holders(FLOATING) == ["fover2"])
    guest.renews()
    all_is_well(guest, world)
    for name, host in lab.hosts.items():
        lab.cloud.manage(*lab.own[name], "check", inside=host.command)


def test_the_network_is_handed_back_without_two_gateways(lab, guest, world):
    words = ["network", "modify", "10.44.0.0/24", "--host", "fover1"]
    eventually(SOON, "the first host reports again", lambda: lab.cloud.run_manage(*words).returncode == 0)
    eventually(SOON, "the first host serves again", lambda: lab.holders(GATEWAY) == ["fover1"])
    all_is_well(guest, world)
    guest.client.terminate(guest.id)
    guest.client.wait(guest.id, "terminated")
    lab.cloud.check()
