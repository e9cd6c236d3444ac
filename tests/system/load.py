"""Clients that launch and terminate without pause, and an init whose daemons are killed meanwhile."""

import random
import threading
import time

import botocore.exceptions

from cloud import PROJECT
from wait import eventually

CLIENTS = 8
# Of each client, between its launches.
PAUSE = (0.0, 1.6)
RESTED = ("running", "terminated")
# How long a client asks again before it gives up: longer than RabbitMQ takes to start on a busy machine.
PATIENCE = 90


def insist(call, stop=lambda: None, **arguments):
    """Repeats a call until it is answered: what a careful client does when the line is cut, or the server says that it cannot now."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call(**arguments)
        except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError) as error:
            last = error
        except botocore.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
            last = error
        stop()
        assert time.monotonic() < end, f"no answer for {PATIENCE} s: {last}"
        time.sleep(0.02)


def states(ec2, ids):
    """The state of each instance, none of which may be missing."""
    found = {}
    for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                found[instance["InstanceId"]] = instance["State"]["Name"]
    missing = set(ids) - set(found)
    assert not missing, f"accepted, and gone: {missing}"
    return {id: found[id] for id in ids}


class Load:
    """Some launches and terminations, shared out among clients that work at the same time."""

    def __init__(self, cloud, launches, seed, ports=(None,)):
        self.cloud, self.launches, self.ports = cloud, launches, ports
        self.seed = seed
        self.lock = threading.Lock()
        self.left = iter(range(launches))
        self.launched = {}
        self.ended = set()
        self.errors = []
        self.rows_before = self.count()

    def count(self):
        return self.cloud.rows("select count(*) from instances")[0][0]

    def run(self):
        """Works until all is asked for."""
        threads = [threading.Thread(target=self.work, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def work(self, number):
        try:
            chosen = random.Random(self.seed * 100 + number)
            ec2 = self.cloud.client("boto3", port=self.ports[number % len(self.ports)]).ec2
            own = []
            while (n := self.next()) is not None:
                token = f"{self.seed}-{n}"
                own.append(self.launch(ec2, token))
                time.sleep(chosen.uniform(*PAUSE))
                if chosen.random() < 0.6:
                    victim = own.pop(chosen.randrange(len(own)))
                    insist(ec2.terminate_instances, self.stop, InstanceIds=[victim])
                    self.ended.add(victim)
        except BaseException as error:  # told by the test, whose thread this is not
            self.errors.append(error)

    def next(self):
        with self.lock:
            return next(self.left, None)

    def stop(self):
        if self.errors:
            raise self.errors[0]

    def launch(self, ec2, token):
        answer = insist(
            ec2.run_instances, self.stop, ImageId=self.cloud.image, MinCount=1, MaxCount=1, ClientToken=token, InstanceType="m1.tiny"
        )
        [instance] = answer["Instances"]
        known = self.launched.setdefault(token, (answer["ReservationId"], instance["InstanceId"]))
        assert known == (answer["ReservationId"], instance["InstanceId"]), f"one client token, two reservations: {token}"
        return instance["InstanceId"]

    def ids(self):
        return [id for _, id in self.launched.values()]

    def ends_well(self):
        """Nothing is lost, nothing is there twice, and nothing leaks."""
        ec2 = self.cloud.client("boto3", port=self.ports[0]).ec2
        ids = self.ids()
        assert len(set(ids)) == self.launches == self.count() - self.rows_before
        for token in self.launched:
            self.launch(ec2, token)
        eventually(60, "every instance is running or terminated", lambda: set(states(ec2, ids).values()) <= set(RESTED), every=0.3)
        terminated = {id for id, state in states(ec2, ids).items() if state == "terminated"}
        assert terminated == self.ended, f"ended by nobody: {terminated - self.ended}; not ended: {self.ended - terminated}"
        twice = self.cloud.rows("select address, count(*) from fixed_ips where instance_id is not null group by address having count(*) > 1")
        assert twice == [], "an address was given out twice"
        self.cloud.check()

        insist(ec2.terminate_instances, InstanceIds=ids)
        eventually(60, "all are terminated", lambda: set(states(ec2, ids).values()) == {"terminated"}, every=0.3)
        held = "select count(*) from fixed_ips where instance_id is not null"
        eventually(20, "no address is held", lambda: self.cloud.rows(held) == [(0,)], every=0.3)
        assert self.cloud.rows(f"select instances, cores from quota_usages where project_id = '{PROJECT}'") == [(0, 0)]
        self.cloud.check()


class Init(threading.Thread):
    """Starts again, at once and without waiting, what has ended; and kills a random daemon now and then, if it is told to."""

    def __init__(self, cloud, seed, pause=None):
        super().__init__(daemon=True)
        self.cloud, self.random, self.pause = cloud, random.Random(seed), pause
        self.done = threading.Event()
        self.kills, self.restarts, self.error = 0, [], None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()
        if self.error:
            raise self.error

    def run(self):
        try:
            while not self.done.wait(self.pause or 0.1):
                if self.pause:
                    daemon = self.random.choice(list(self.cloud.daemons.values()))
                    daemon.kill()
                    self.kills += 1
                    daemon.begin()
                for daemon in self.cloud.daemons.values():
                    if daemon.died():
                        # Whoever is killed starts at once; so this one has ended by itself.
                        self.restarts.append(f"{daemon.name}: status {daemon.process.returncode}")
                        daemon.begin()
        except BaseException as error:  # told by the test, whose thread this is not
            self.error = error
