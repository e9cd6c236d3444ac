"""The clients that people use, each behind the same few methods, and each asking the way only it does."""

import base64
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from urllib.parse import urlsplit

import six

# boto carries an old copy of six, which Python 3.12 can no longer import, and names a module that is gone since.
if sys.version_info >= (3, 12):
    sys.modules.setdefault("imp", types.ModuleType("imp"))
sys.modules.setdefault("boto.vendored.six", six)
for _name in ("moves", "moves.urllib", "moves.urllib.parse", "moves.urllib.request", "moves.urllib.error", "moves.http_client", "moves.configparser", "moves.queue"):
    __import__(f"six.{_name}")
    sys.modules.setdefault(f"boto.vendored.six.{_name}", sys.modules[f"six.{_name}"])

import boto.ec2.connection  # noqa: E402
import boto.ec2.regioninfo  # noqa: E402
import boto3  # noqa: E402
import botocore.config  # noqa: E402

WAIT = 120


class SigV2Connection(boto.ec2.connection.EC2Connection):
    """boto signs with version 4 unless told otherwise; the clients of 2010 knew version 2."""

    def _required_auth_capability(self):
        return ["ec2"]


class Boto2:
    """boto 2.49, signature version 2."""

    def __init__(self, url, access, secret):
        at = urlsplit(url)
        region = boto.ec2.regioninfo.RegionInfo(name="nova", endpoint=at.hostname)
        self.ec2 = SigV2Connection(access, secret, is_secure=False, port=at.port, path=at.path, region=region)

    def zones(self):
        return [zone.name for zone in self.ec2.get_all_zones()]

    def create_key_pair(self, name):
        return self.ec2.create_key_pair(name).material

    def delete_key_pair(self, name):
        self.ec2.delete_key_pair(name)

    def key_pairs(self):
        return [key.name for key in self.ec2.get_all_key_pairs()]

    def create_group(self, name):
        self.ec2.create_security_group(name, f"group {name}")

    def delete_group(self, name):
        self.ec2.delete_security_group(name)

    def authorize(self, group, protocol, first, last, cidr="0.0.0.0/0"):
        self.ec2.authorize_security_group(group, ip_protocol=protocol, from_port=first, to_port=last, cidr_ip=cidr)

    def revoke(self, group, protocol, first, last, cidr="0.0.0.0/0"):
        self.ec2.revoke_security_group(group, ip_protocol=protocol, from_port=first, to_port=last, cidr_ip=cidr)

    def run(self, image, key, group, user_data):
        reservation = self.ec2.run_instances(image, key_name=key, security_groups=[group], user_data=user_data, instance_type="m1.tiny")
        return reservation.instances[0].id

    def instance(self, id):
        return self.ec2.get_all_instances([id])[0].instances[0]

    def state(self, id):
        return self.instance(id).state

    def address(self, id):
        return self.instance(id).private_ip_address

    def console(self, id):
        return (self.ec2.get_console_output(id).output or b"").decode()

    def stop(self, id):
        self.ec2.stop_instances([id])

    def start(self, id):
        self.ec2.start_instances([id])

    def reboot(self, id):
        self.ec2.reboot_instances([id])

    def terminate(self, id):
        self.ec2.terminate_instances([id])

    def wait(self, id, state):
        """boto had no waiters: its users wrote this loop."""
        end = time.monotonic() + WAIT
        instance = self.instance(id)
        while instance.state != state:
            assert time.monotonic() < end, f"{id} is {instance.state}, not {state}: {instance.state_reason}"
            time.sleep(0.3)
            instance.update()


class Boto3:
    """boto3, signature version 4, with its own waiters."""

    def __init__(self, url, access, secret):
        # A server error is to fail the test, not to be tried again.
        config = botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30, max_pool_connections=64)
        session = boto3.session.Session(aws_access_key_id=access, aws_secret_access_key=secret, region_name="nova")
        self.ec2 = session.client("ec2", endpoint_url=url, config=config)

    def zones(self):
        return [zone["ZoneName"] for zone in self.ec2.describe_availability_zones()["AvailabilityZones"]]

    def create_key_pair(self, name):
        return self.ec2.create_key_pair(KeyName=name)["KeyMaterial"]

    def delete_key_pair(self, name):
        self.ec2.delete_key_pair(KeyName=name)

    def key_pairs(self):
        return [key["KeyName"] for key in self.ec2.describe_key_pairs()["KeyPairs"]]

    def create_group(self, name):
        self.ec2.create_security_group(GroupName=name, Description=f"group {name}")

    def delete_group(self, name):
        self.ec2.delete_security_group(GroupName=name)

    @staticmethod
    def permission(protocol, first, last, cidr):
        return [{"IpProtocol": protocol, "FromPort": first, "ToPort": last, "IpRanges": [{"CidrIp": cidr}]}]

    def authorize(self, group, protocol, first, last, cidr="0.0.0.0/0"):
        self.ec2.authorize_security_group_ingress(GroupName=group, IpPermissions=self.permission(protocol, first, last, cidr))

    def revoke(self, group, protocol, first, last, cidr="0.0.0.0/0"):
        self.ec2.revoke_security_group_ingress(GroupName=group, IpPermissions=self.permission(protocol, first, last, cidr))

    def run(self, image, key, group, user_data):
        more = {"KeyName": key} if key else {}
        answer = self.ec2.run_instances(
            ImageId=image, MinCount=1, MaxCount=1, SecurityGroups=[group], UserData=user_data, InstanceType="m1.tiny", **more
        )
        return answer["Instances"][0]["InstanceId"]

    def instance(self, id):
        return self.ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]

    def state(self, id):
        return self.instance(id)["State"]["Name"]

    def address(self, id):
        return self.instance(id)["PrivateIpAddress"]

    def address6(self, id):
        return self.instance(id)["Ipv6Address"]

    def console(self, id):
        # botocore has already undone the base64.
        return self.ec2.get_console_output(InstanceId=id).get("Output", "")

    def stop(self, id):
        self.ec2.stop_instances(InstanceIds=[id])

    def start(self, id):
        self.ec2.start_instances(InstanceIds=[id])

    def reboot(self, id):
        self.ec2.reboot_instances(InstanceIds=[id])

    def terminate(self, id):
        self.ec2.terminate_instances(InstanceIds=[id])

    def wait(self, id, state):
        self.ec2.get_waiter(f"instance_{state}").wait(InstanceIds=[id], WaiterConfig={"Delay": 1, "MaxAttempts": WAIT})
        if state == "running":
            self.ec2.get_waiter("instance_status_ok").wait(InstanceIds=[id], WaiterConfig={"Delay": 1, "MaxAttempts": WAIT})


class AwsCli:
    """aws-cli, a process for each call."""

    def __init__(self, url, access, secret):
        self.command = [Path(sys.executable).with_name("aws"), "--endpoint-url", url, "--region", "nova", "--output", "json", "ec2"]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
        }

    def aws(self, *words):
        done = subprocess.run([*self.command, *words], env=self.environment, capture_output=True, text=True, timeout=WAIT * 2)
        assert done.returncode == 0, f"aws ec2 {' '.join(words)}: {done.stderr.strip()}"
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def zones(self):
        return [zone["ZoneName"] for zone in self.aws("describe-availability-zones")["AvailabilityZones"]]

    def create_key_pair(self, name):
        return self.aws("create-key-pair", "--key-name", name)["KeyMaterial"]

    def delete_key_pair(self, name):
        self.aws("delete-key-pair", "--key-name", name)

    def key_pairs(self):
        return [key["KeyName"] for key in self.aws("describe-key-pairs")["KeyPairs"]]

    def create_group(self, name):
        self.aws("create-security-group", "--group-name", name, "--description", f"group {name}")

    def delete_group(self, name):
        self.aws("delete-security-group", "--group-name", name)

    def authorize(self, group, protocol, first, last, cidr="0.0.0.0/0"):
        self.rule("authorize-security-group-ingress", group, protocol, first, last, cidr)

    def revoke(self, group, protocol, first, last, cidr="0.0.0.0/0"):
        self.rule("revoke-security-group-ingress", group, protocol, first, last, cidr)

    def rule(self, action, group, protocol, first, last, cidr):
        ports = str(first) if first == last else f"{first}-{last}"
        self.aws(action, "--group-name", group, "--protocol", protocol, "--port", ports, "--cidr", cidr)

    def run(self, image, key, group, user_data):
        words = ["run-instances", "--image-id", image, "--key-name", key, "--security-groups", group, "--user-data", user_data]
        return self.aws(*words, "--instance-type", "m1.tiny")["Instances"][0]["InstanceId"]

    def instance(self, id):
        return self.aws("describe-instances", "--instance-ids", id)["Reservations"][0]["Instances"][0]

    def state(self, id):
        return self.instance(id)["State"]["Name"]

    def address(self, id):
        return self.instance(id)["PrivateIpAddress"]

    def console(self, id):
        return self.aws("get-console-output", "--instance-id", id).get("Output", "")

    def stop(self, id):
        self.aws("stop-instances", "--instance-ids", id)

    def start(self, id):
        self.aws("start-instances", "--instance-ids", id)

    def reboot(self, id):
        self.aws("reboot-instances", "--instance-ids", id)

    def terminate(self, id):
        self.aws("terminate-instances", "--instance-ids", id)

    def wait(self, id, state):
        """Its waiters ask every 15 s, so they are started when there is little left to wait for."""
        end = time.monotonic() + WAIT
        while (seen := self.state(id)) != state:
            assert time.monotonic() < end, f"{id} is {seen}, not {state}"
            time.sleep(0.5)
        self.aws("wait", f"instance-{state}", "--instance-ids", id)


CLIENTS = {"boto 2.49": Boto2, "boto3": Boto3, "aws-cli": AwsCli}


def encoded(text):
    """Base64 as the query API has it."""
    return base64.b64encode(text.encode()).decode()
