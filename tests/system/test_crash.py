"""Nova is killed at any instant, again and again, and nothing leaks, nothing is given out twice, no accepted request is lost."""

import os
import random
import threading
import time

from load import RESTED, insist, states
from wait import eventually

LAUNCHES = 100
# Between launches, and between kills: what a launch takes is well below both.
LAUNCH_PAUSE = (0.0, 0.12)
KILL_PAUSE = (0.02, 0.4)


class Killer(threading.Thread):
    """Kills the cloud at random instants and starts it again at once."""

    def __init__(self, cloud, seed):
        super().__init__()
        self.cloud, self.random = cloud, random.Random(seed)
        self.done = threading.Event()
        self.kills = 0
        self.slowest = 0.0
        self.error = None

    def run(self):
        try:
            while not self.done.wait(self.random.uniform(*KILL_PAUSE)):
                self.cloud.kill()
                self.kills += 1
                self.slowest = max(self.slowest, self.cloud.start())
        except BaseException as error:  # told by the test, which would wait for ever otherwise
            self.error = error

    def tell(self):
        """Fails where the killing has failed: nobody starts the cloud again then."""
        if self.error:
            raise self.error

    def finish(self):
        self.done.set()
        self.join()
        self.tell()


def test_a_hundred_launches_and_terminations_survive_kill_9_at_random_instants(simulated):
    seed = int(os.environ.get("NOVA_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed: NOVA_SEED={seed}")
    chosen = random.Random(seed)
    simulated.add_fake_image()
    simulated.start()
    ec2 = simulated.client("boto3").ec2
    killer = Killer(simulated, seed + 1)
    killer.start()
    launched, ended = [], set()
    try:
        for n in range(LAUNCHES):
            time.sleep(chosen.uniform(*LAUNCH_PAUSE))
            answer = insist(ec2.run_instances, killer.tell, ImageId=simulated.image, MinCount=1, MaxCount=1, ClientToken=f"launch-{n}", InstanceType="m1.tiny")
            launched.append(answer["Instances"][0]["InstanceId"])
            if chosen.random() < 0.6:
                victim = chosen.choice([id for id in launched if id not in ended])
                insist(ec2.terminate_instances, killer.tell, InstanceIds=[victim])
                ended.add(victim)
    finally:
        killer.finish()
    print(f"kill -9: {killer.kills} times; slowest start {killer.slowest:.3f} s")
    assert killer.kills >= 10, "the test killed too seldom to mean anything"
    assert len(set(launched)) == LAUNCHES, "a client token was taken for two instances, or two for one"

    def at_rest():
        return all(state in RESTED for state in states(ec2, launched).values())

    eventually(30, "every instance is running or terminated", at_rest, every=0.3)
    seen = states(ec2, launched)
    assert {id for id, state in seen.items() if state == "terminated"} == ended
    simulated.check()
    addresses = simulated.rows("select address, count(*) from fixed_ips where instance_id is not null group by address having count(*) > 1")
    assert addresses == [], "an address was given out twice"

    insist(ec2.terminate_instances, InstanceIds=[id for id in launched if id not in ended])
    eventually(30, "all are terminated", lambda: set(states(ec2, launched).values()) == {"terminated"}, every=0.3)
    eventually(20, "no address is held", lambda: simulated.rows("select count(*) from fixed_ips where instance_id is not null") == [(0,)], every=0.5)
    simulated.check()
