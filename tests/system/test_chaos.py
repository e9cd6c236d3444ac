"""Five daemons, their broker and their database are killed under load; nothing leaks, nothing is there twice, no accepted request is lost."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud import Cloud
from load import Init, Load
from servers import ENGINES
from wait import eventually

LAUNCHES = 60
KILL_EVERY = 0.5
# How long a server stays away at least.
AWAY = 1
# Of the two nova-api, between which the clients are shared out.
PORTS = (18776, 18778)


@pytest.fixture(scope="module", params=ENGINES)
def cloud(request, servers, logs, tmp_path_factory):
    """Simulated guests; two of each daemon of which there may be two."""
    folder = tmp_path_factory.mktemp("chaos")
    flags = ["--dhcp_lease_time=2", "--report_interval=2"]
    log = logs / f"chaos-{request.param}.log"
    cloud = Cloud(folder, hypervisor="simulated", log=log, port=PORTS[0], flags=flags, **servers.of(request.param))
    second = ["--host=second", f"--lock_path={folder}/second"]
    cloud.add("nova-api", *second, f"--ec2_listen_port={PORTS[1]}", key="second-api")
    cloud.add("nova-scheduler", *second, key="second-scheduler")
    cloud.add("nova-objectstore", *second, f"--s3_listen_port={PORTS[1] - 5440}", key="second-objectstore")
    cloud.create()
    cloud.start()
    cloud.add_fake_image()
    yield cloud
    cloud.stop()


@pytest.fixture
def seed():
    """What the test chooses, it chooses by this number, which can be given again."""
    seed = int(os.environ.get("NOVA_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed: NOVA_SEED={seed}")
    return seed


def test_a_random_daemon_is_killed_every_half_second(cloud, seed):
    load = Load(cloud, LAUNCHES, seed, PORTS)
    with Init(cloud, seed, pause=KILL_EVERY) as init:
        load.run()
    print(f"kill -9: {init.kills} times")
    load.ends_well()
    assert init.restarts == [], "a daemon ended by itself"
    assert init.kills >= 8, "the test killed too seldom to mean anything"


@pytest.mark.parametrize("cloud", ENGINES[:1], indirect=True)
def test_the_broker_is_killed_under_load(cloud, seed, servers):
    killed_under_load(cloud, seed, servers["rabbitmq"])


def test_the_database_is_killed_under_load(cloud, seed):
    killed_under_load(cloud, seed, cloud.database)


@pytest.mark.parametrize("cloud", ENGINES[:1], indirect=True)
def test_every_message_comes_twice_and_out_of_order(cloud, seed):
    cloud.stop()
    usual = cloud.conf.read_text()
    cloud.conf.write_text(f"{usual}--bus_faults={seed or 1}\n")
    cloud.start()
    worse = [key for key, daemon in cloud.daemons.items() if "come twice and out of order" in daemon.log.read_text()]
    assert {"nova-compute", "nova-scheduler"} <= set(worse), "messages come as they should"
    load = Load(cloud, LAUNCHES, seed, PORTS)
    with Init(cloud, seed) as init:
        load.run()
    load.ends_well()
    assert init.restarts == [], "a daemon ended by itself"
    cloud.stop()
    cloud.conf.write_text(usual)
    cloud.start()


def killed_under_load(cloud, seed, server):
    """What the daemons lean on vanishes, and comes back; they bear it without being started again."""
    load = Load(cloud, LAUNCHES, seed, PORTS)
    with Init(cloud, seed) as init, ThreadPoolExecutor(1) as pool:
        working = pool.submit(load.run)
        eventually(60, "a third is launched", lambda: len(load.launched) >= LAUNCHES // 3 or working.done(), every=0.02)
        server.kill()
        time.sleep(AWAY)
        launched = len(load.launched)
        away = AWAY + server.start()
        working.result()
    print(f"{server.name} was away for {away:.1f} s, after {launched} launches")
    assert launched < LAUNCHES, "it was killed too late to mean anything"
    load.ends_well()
    assert init.restarts == [], "a daemon ended by itself"
