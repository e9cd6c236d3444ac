"""The interface that carries the host's own addresses comes onto the bridge, and who is connected over it stays so; also where that is cut off in the middle."""

from types import SimpleNamespace

import pytest

import netns
from lab import NETWORK, OUTSIDE, run
from test_failpoints import REACHED, listed
from wait import eventually

PORT = 7777
# Of the host on the interface: its own, one more of the same network, and two of others.
MORE = [f"{NETWORK}.81/24", "192.0.2.65/26", "203.0.113.7/32"]
# Beyond its default route: one through a neighbour, one without, and one that somebody prefers less.
ROUTES = [
    ["10.71.0.0/16", "via", f"{NETWORK}.2"],
    ["10.72.0.0/16"],
    ["default", "via", f"{NETWORK}.3", "metric", "700"],
    ["10.73.0.0/16", "via", f"{NETWORK}.2", "src", f"{NETWORK}.81"],
]


@pytest.fixture(scope="module")
def lab(switches, logs, tmp_path_factory):
    """A host with many addresses, on which Nova is to use the interface that carries them."""
    host = netns.a_host("attach", 80, switches, logs)
    cloud = netns.made(tmp_path_factory.mktemp("attach"), host, logs, "--flat_interface=eth0", "--public_interface=br100")
    try:
        for address in MORE:
            host.run("ip", "addr", "add", address, "dev", "eth0")
        for route in ROUTES:
            host.run("ip", "route", "add", *route, "dev", "eth0")
        echo = host.command("busybox", "nc", "-ll", "-p", PORT, "-e", "sh", "-c", "echo here; exec cat")
        with netns.running(echo):
            cloud.create()
            yield SimpleNamespace(host=host, cloud=cloud, address=host.address, before=routes(host, "eth0"))
            cloud.stop()
    finally:
        host.remove()


def addresses(host, device):
    shown = [line.split() for line in host.run("ip", "-4", "-o", "addr", "show").splitlines()]
    return {words[3] for words in shown if words[1] == device}


def routes(host, device):
    """The routes that somebody set, without the interface."""
    shown = [line.strip() for line in host.run("ip", "-4", "route", "show").splitlines()]
    return {line.replace(f" dev {device}", "") for line in shown if f"dev {device}" in line and "proto kernel" not in line}


def moved(lab):
    """What is not on the bridge as it was on the interface."""
    wanted = {f"{lab.address}/24", *MORE}
    host = lab.host
    return {
        "on eth0": addresses(host, "eth0"),
        "not on br100": wanted - addresses(host, "br100"),
        "routes of eth0": routes(host, "eth0"),
        "not routed by br100": lab.before - routes(host, "br100"),
    }


def is_moved(lab):
    return not any(moved(lab).values())


def back(lab):
    """As it was before Nova came, while it does not run."""
    host = lab.host
    dnsmasq = lab.cloud.state / "networks" / "nova-br100.pid"
    if dnsmasq.exists():
        host.run("kill", "-9", dnsmasq.read_text().strip())
    host.run("ip", "link", "delete", "br100")
    for address in [f"{lab.address}/24", *MORE]:
        host.run("ip", "addr", "add", address, "dev", "eth0")
    for route in [["default", "via", OUTSIDE], *ROUTES]:
        host.run("ip", "route", "add", *route, "dev", "eth0")
    assert routes(host, "eth0") == lab.before
    # The bridge had another hardware address.
    run("ip", "neigh", "flush", "dev", "outside")


@pytest.mark.parametrize("point", [None, *listed("attach")])
def test_the_hosts_own_interface_comes_onto_the_bridge(lab, point):
    host, cloud = lab.host, lab.cloud
    outside = netns.Place()
    here = SimpleNamespace(address=lab.address, id="here")
    assert lab.before == routes(host, "eth0") and len(lab.before) == 1 + len(ROUTES)
    with outside.talks(here, PORT) as talk:
        assert talk.echoes("before")
        if point:
            [daemon] = cloud.daemons.values()
            daemon.begin(f"--failpoint={point}")
            eventually(20, f"it dies at {point}", cloud.died, every=0.02)
            assert cloud.process.returncode == REACHED
            assert talk.echoes("in the middle") and outside.pings(here)
            assert lab.host.pings(OUTSIDE), "the host reaches nobody"
        cloud.start()
        eventually(20, "all has moved", lambda: is_moved(lab))
        assert talk.echoes("after") and outside.pings(here) and lab.host.pings(OUTSIDE)
        # A connection that is new, and addresses beside the first.
        for address in (lab.address, f"{NETWORK}.81"):
            with outside.talks(SimpleNamespace(address=address, id="here"), PORT) as another:
                assert another.echoes("new")
        cloud.stop()
        assert talk.echoes("and without it") and is_moved(lab), moved(lab)
    back(lab)
