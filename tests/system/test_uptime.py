"""What passes through a floating address while daemons come and go: fifty echoes a second each way, and a stream.

A network host and a compute host, on MariaDB and RabbitMQ; whoever asks and listens is outside of both.
"""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

import netns
from cloud import FIVE
from lab import NETWORK, OUTSIDE
from wait import eventually

PUBLIC = f"{NETWORK}.180"
EVERY = 0.02
# Whether the only guest has its lease.
LEASED = "select leased from fixed_ips where instance_id is not null"
# And when it was last heard of.
NOTED = "select updated_at from fixed_ips where instance_id is not null"
TIMES = 5
BACK_WITHIN = 5
# What is sent in so long may be under way when a ping is told to end.
LAST_WORDS = 10
# Who may touch what packets pass, and the turns in which it does.
TURNS = {"nova-network": "networks", "nova-compute": "firewall"}


class Lab:
    """The two hosts, and a guest with a floating address."""

    def __init__(self, folder, logs, servers, switches):
        self.net = netns.a_host("up-net", 60, switches, logs)
        self.compute = netns.a_host("up-compute", 61, switches, logs)
        flags = ["--host=up-net", "--flat_interface=eth1"]
        self.cloud = netns.made(folder, self.net, logs, *flags, **servers.of("mariadb"))
        del self.cloud.daemons["nova-compute"]
        state = folder / "up-compute"
        state.mkdir()
        own = ["--host=up-compute", f"--my_ip={self.compute.address}", f"--state_path={state}", f"--s3_host={self.net.address}"]
        self.cloud.add("nova-compute", *own, inside=self.compute.command)
        assert set(self.cloud.daemons) == set(FIVE)

    def start(self):
        netns.start(self.cloud)
        self.cloud.manage("floating", "create", "up-net", f"{PUBLIC}/32")
        client = self.cloud.client("boto3")
        client.authorize("default", "icmp", -1, -1)
        client.authorize("default", "tcp", 80, 80)
        [instance] = client.ec2.run_instances(ImageId=self.cloud.image, MinCount=1, MaxCount=1, InstanceType="m1.tiny")["Instances"]
        client.wait(instance["InstanceId"], "running")
        self.guest = netns.Guest(client, instance["InstanceId"], self.compute)
        self.guest.is_ready()
        client.ec2.allocate_address()
        client.ec2.associate_address(InstanceId=self.guest.id, PublicIp=PUBLIC)
        outside = netns.Place()
        eventually(20, "the floating address answers", lambda: outside.pings(SimpleNamespace(address=PUBLIC)))
        # That is a moment before it is bound.
        eventually(20, "it is bound", lambda: f"inet {PUBLIC}/" in self.net.run("ip", "-o", "-4", "addr"))

    def dnsmasq(self):
        """The pids of both its processes."""
        own = f"--pid-file={self.cloud.state}/networks/nova-br100.pid"
        return [pid for pid in self.net.processes() if own in arguments(pid)]

    def remove(self):
        try:
            self.cloud.stop()
        finally:
            for host in (self.compute, self.net):
                host.remove()


def arguments(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.fixture(scope="module")
def lab(servers, switches, logs, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("uptime"), logs, servers, switches)
    try:
        lab.start()
        yield lab
    finally:
        lab.remove()


class Ping:
    """Fifty echoes a second, of which each that was not answered is known by its number."""

    def __init__(self, inside, address):
        command = inside("ping", "-i", str(EVERY), "-n", "-O", "-W", "1", address)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.answered, self.said = set(), []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            if number := re.search(r"icmp_seq=(\d+) ttl=", line):
                self.answered.add(int(number[1]))
            elif "no answer yet" not in line:
                self.said.append(line.strip())

    def last(self):
        return max(self.answered, default=0)

    def lost(self, since):
        """The numbers after `since` to which no answer came; what was sent a moment ago is not judged."""
        answered = set(self.answered)
        return [number for number in range(since + 1, max(answered, default=0) - LAST_WORDS) if number not in answered]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)
        self.reader.join(10)


class Stream:
    """A TCP connection to the guest's echo, over which a number goes to and fro without end."""

    def __init__(self, address, id):
        self.line = socket.create_connection((address, 80), timeout=20)
        self.file = self.line.makefile("rw", newline="\n")
        assert self.file.readline().strip() == id
        self.rounds, self.slowest, self.error, self.ends = 0, 0.0, None, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.ends:
                began = time.monotonic()
                self.file.write(f"{self.rounds}\n")
                self.file.flush()
                answer = self.file.readline().strip()
                assert answer == str(self.rounds), f"{answer!r} for {self.rounds}"
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.rounds += 1
                time.sleep(0.005)
        except (OSError, AssertionError) as error:
            self.error = error

    def stop(self):
        self.ends = True
        self.thread.join(20)
        self.line.close()


@pytest.fixture
def traffic(lab):
    traffic = SimpleNamespace(
        inward=Ping(netns.as_it_is, PUBLIC), outward=Ping(lab.guest.inside, OUTSIDE), stream=Stream(PUBLIC, lab.guest.id)
    )
    eventually(20, "all is under way", lambda: min(traffic.inward.last(), traffic.outward.last(), traffic.stream.rounds) > 20)
    yield traffic
    for one in vars(traffic).values():
        one.stop()


def losses(traffic, change):
    """Does something under the traffic, and returns how many echoes it cost in each direction."""
    pings = (traffic.inward, traffic.outward)
    since = [ping.last() for ping in pings]
    change()
    # The round that is under way may have waited for all of it.
    rounds = traffic.stream.rounds
    # All that was sent meanwhile is answered by now, or lost.
    wanted = [ping.last() + LAST_WORDS + 1 for ping in pings]
    eventually(20, "packets pass", lambda: all(ping.last() > number for ping, number in zip(pings, wanted, strict=True)), every=0.02)
    eventually(20, "the stream goes on", lambda: traffic.stream.error or traffic.stream.rounds > rounds, every=0.02)
    assert traffic.stream.error is None, f"the stream: {traffic.stream.error}"
    return tuple(len(ping.lost(number)) for ping, number in zip(pings, since, strict=True))


def settled(lab, name):
    """Whether a daemon has made a turn since its start: what it would do to packets it does in the first."""
    host = lab.compute if name == "nova-compute" else lab.net
    said = host.run("busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{lab.cloud.daemons[name].status_port}/metrics")
    counts = re.findall(rf'^nova_tick_seconds_count{{tick="{TURNS[name]}"}} (\d+)$', said, re.MULTILINE)
    return counts and int(counts[0]) >= 1


def test_the_loss_of_packets_is_seen(lab, traffic):
    """The control: what these pings and this stream say is worth something."""
    def cut():
        lab.net.run("ip", "link", "set", "br100", "down")
        time.sleep(0.5)
        lab.net.run("ip", "link", "set", "br100", "up")

    # A busy machine may have been slow before.
    traffic.stream.slowest = 0.0
    inward, outward = losses(traffic, cut)
    assert inward > 5 and outward > 5, (inward, outward)
    assert traffic.stream.slowest > 0.2


@pytest.mark.parametrize("names", [["nova-network"], ["nova-compute"], ["nova-api", "nova-scheduler", "nova-objectstore"]], ids="+".join)
def test_daemons_stop_and_die_and_no_packet_knows(lab, traffic, names):
    daemons = [lab.cloud.daemons[name] for name in names]
    found = {}
    for word in ("stop", "kill"):
        def change():
            for daemon in daemons:
                getattr(daemon, word)()
            for daemon in daemons:
                daemon.begin()
            for daemon in daemons:
                daemon.wait()
            for name in TURNS.keys() & names:
                eventually(20, f"{name} has looked around", lambda: settled(lab, name), every=0.05)

        found[word] = [losses(traffic, change) for _ in range(TIMES)]
    print(f"{names}: lost {found}; the stream went round {traffic.stream.rounds} times, once in {traffic.stream.slowest:.3f} s")
    assert max(max(lost) for each in found.values() for lost in each) <= 1, found
    lab.guest.renews()


def test_dnsmasq_dies_and_is_back_and_no_packet_knows(lab, traffic):
    def change():
        for pid in lab.dnsmasq():
            os.kill(pid, signal.SIGKILL)
        took.append(eventually(BACK_WITHIN, "both processes are back", lambda: len(lab.dnsmasq()) == 2)[1])

    took = []
    found = [losses(traffic, change) for _ in range(TIMES)]
    print(f"dnsmasq is back within {max(took):.2f} s; lost {found}")
    assert max(max(lost) for lost in found) <= 1, found
    lab.guest.renews()


@pytest.fixture(scope="module")
def foreign(lab):
    """A dnsmasq on the same host that is none of Nova's."""
    lab.net.run("ip", "link", "add", "theirs", "type", "bridge")
    lab.net.run("ip", "addr", "add", "10.99.0.1/24", "dev", "theirs")
    lab.net.run("ip", "link", "set", "theirs", "up")
    words = ["--keep-in-foreground", "--bind-interfaces", "--conf-file=", "--port=0", "--interface=theirs", "--except-interface=lo"]
    own = [f"--pid-file={lab.cloud.folder}/theirs.pid", f"--dhcp-leasefile={lab.cloud.folder}/theirs.leases", "--dhcp-range=10.99.0.9,10.99.0.99"]
    process = subprocess.Popen(lab.net.command("dnsmasq", *words, *own))
    yield process
    process.kill()
    process.wait(10)


def test_killall_dnsmasq_and_a_restart_bring_it_back_with_its_leases(lab, foreign):
    network = lab.cloud.daemons["nova-network"]
    noted = lab.cloud.rows(NOTED)
    # Without that it would be given a lease that has run out.
    eventually(20, "a renewal is noted", lambda: lab.guest.renews() or lab.cloud.rows(NOTED) > noted)
    for _ in range(2):
        old = lab.dnsmasq()
        assert len(old) == 2, "the guide's TWO dnsmasq processes"
        network.stop()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        eventually(10, "both have ended", lambda: lab.dnsmasq() == [])
        network.start()
        eventually(10, "both are back", lambda: len(lab.dnsmasq()) == 2)
        # Of a lease that it does not know it would say no.
        lab.guest.renews()
    assert foreign.poll() is None, "somebody else's was ended"
    assert lab.cloud.rows(LEASED) == [(True,)]
    lab.cloud.check()


def test_all_is_well_afterwards(lab):
    lab.cloud.check()
    processes = lab.guest.processes()
    assert set(processes) == {"nova-netns-gues", "busybox"}
    assert lab.guest.console().count("lease bound") == 1, lab.guest.console()


def test_what_dnsmasq_tells_arrives_even_if_nobody_was_there_to_hear_it(lab, servers, foreign):
    database, broker, cloud = servers["mariadb"], servers["rabbitmq"], lab.cloud
    client = lab.guest.processes()["busybox"]
    spool = cloud.state / "networks" / "events"
    assert cloud.rows(LEASED) == [(True,)]
    cloud.daemons["nova-api"].kill()
    database.kill()
    broker.kill()
    # dnsmasq itself does not wait for the database.
    old = lab.dnsmasq()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    eventually(60, "both processes are back", lambda: len(set(lab.dnsmasq()) - set(old)) == 2)
    # udhcpc gives the lease back.
    os.kill(client, signal.SIGUSR2)
    eventually(20, "the event is kept", lambda: [path.name for path in spool.iterdir() if lab.guest.address in path.name])
    cloud.daemons["nova-network"].kill()
    database.start()
    broker.start()
    for name in ("nova-network", "nova-api"):
        cloud.daemons[name].start()
    eventually(30, "the row knows", lambda: cloud.rows(LEASED) == [(False,)])
    eventually(30, "nothing is left of it", lambda: list(spool.iterdir()) == [])
    # And asks for it anew.
    os.kill(client, signal.SIGUSR1)
    eventually(30, "the row knows that too", lambda: cloud.rows(LEASED) == [(True,)])
    lab.guest.renews()
    assert foreign.poll() is None, "somebody else's was ended"
    eventually(30, "all daemons are well", lambda: all(daemon.runs() for daemon in cloud.daemons.values()))
    cloud.check()
