"""Five daemons, their broker and their database are killed under load; nothing leaks, nothing is there twice, no accepted request is lost."""

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud import Cloud
from conftest import ENGINES
from load import Init, Load
from wait import eventually

LAUNCHES = 60
KILL_EVERY = 0.5


@pytest.fixture(scope="module", params=ENGINES)
def cloud(request, servers, logs, tmp_path_factory):
    """Simulated guests; two of each daemon of which there may be two."""
    folder = tmp_path_factory.mktemp("chaos")
    flags = ["--dhcp_lease_time=2", "--report_interval=2"]
    log = logs / f"chaos-{request.param}.log"
    cloud = Cloud(folder, hypervisor="simulated", log=log, port=18776, flags=flags, **servers.of(request.param))
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
    load = Load(cloud, LAUNCHES, seed)
    with Init(cloud, seed, pause=KILL_EVERY) as init:
        load.run()
    print(f"kill -9: {init.kills} times")
    load.ends_well()
    assert init.restarts == [], "a daemon ended by itself"
    assert init.kills >= 8, "the test killed too seldom to mean anything"


def test_the_broker_is_killed_under_load(cloud, seed, servers):
    killed_under_load(cloud, seed, servers["rabbitmq"])


def test_the_database_is_killed_under_load(cloud, seed):
    killed_under_load(cloud, seed, cloud.database)


def killed_under_load(cloud, seed, server):
    """What the daemons lean on vanishes, and comes back; they bear it without being started again."""
    load = Load(cloud, LAUNCHES, seed)
    with Init(cloud, seed) as init, ThreadPoolExecutor(1) as pool:
        working = pool.submit(load.run)
        eventually(60, "a third is launched", lambda: len(load.launched) >= LAUNCHES // 3 or working.done(), every=0.02)
        server.kill()
        launched = len(load.launched)
        away = server.start()
        working.result()
    print(f"{server.name} was away for {away:.1f} s, after {launched} launches")
    assert launched < LAUNCHES, "it was killed too late to mean anything"
    load.ends_well()
    assert init.restarts == [], "a daemon ended by itself"
