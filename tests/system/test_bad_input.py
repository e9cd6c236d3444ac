"""What people get wrong. Each time: one clear line, a status or an EC2 code that says whose fault it is, nothing half done."""

import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from xml.etree import ElementTree

import pytest

from cloud import ADDRESS, BIN, PROJECT, USER


def one_line(done, *words):
    """Asserts that a program failed and told why in one line that holds all the words."""
    said = done.stderr.strip()
    assert done.returncode not in (0, 101, 134), f"status {done.returncode}: {said}"
    assert "panicked" not in said and "backtrace" not in said.lower(), said
    last = said.splitlines()[-1] if said else ""
    for word in words:
        assert word in last, f"{word!r} is not in: {said}"
    assert len(said.splitlines()) == 1, f"more than one line: {said}"


def run(program, *words, timeout=15, **more):
    return subprocess.run([BIN / program, *words], capture_output=True, text=True, timeout=timeout, cwd="/", **more)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--ec2_port=abc", ["ec2_port", "abc"]),
        ("--ec2_port=70000", ["ec2_port", "70000"]),
        ("--my_ip=300.1.1.1", ["my_ip", "300.1.1.1"]),
        ("--network_manager=nova.network.manager.Nonsense", ["network_manager", "Nonsense"]),
        ("--hypervisor=vmware", ["hypervisor", "vmware"]),
        ("--fixed_range=10.0.0.0/99", ["fixed_range", "10.0.0.0/99"]),
        ("--verbose=perhaps", ["verbose", "perhaps"]),
        ("--sql_connection=oracle://x/y", ["sql_connection"]),
        ("--flat_network_bridge=../br100", ["flat_network_bridge", "../br100"]),
        ("--region_list=east", ["region_list", "east"]),
        ("--trusted_proxies=proxy", ["trusted_proxies", "proxy"]),
        ("--state_path=/proc/version/nova", ["/proc/version/nova"]),
        ("--state_path=/proc/nova", ["/proc/nova"]),
        ("--flagfile=/nonexistent/nova.conf", ["/nonexistent/nova.conf"]),
    ],
)
def test_a_flag_that_cannot_be_is_told_in_one_line(simulated, flag, words):
    one_line(run("nova-combined", f"--flagfile={simulated.conf}", flag), *words)


def test_an_unknown_flag_in_a_file_is_a_warning_that_names_it_and_its_line(simulated):
    text = simulated.conf.read_text()
    simulated.conf.write_text(text + "\n# a comment\n--nonsense_flag=1\n")
    line = len(text.splitlines()) + 3
    simulated.start()
    simulated.stop()
    log = simulated.log.read_text()
    assert "nonsense_flag" in log and f"nova.conf:{line}" in log, log


def test_a_state_folder_that_cannot_be_written_is_told_in_one_line(simulated, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=True)
    try:
        one_line(run("nova-combined", f"--flagfile={simulated.conf}", f"--state_path={folder}/state"), str(folder))
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_port_in_use_is_told_in_one_line(simulated):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("0.0.0.0", simulated.port))
        taken.listen()
        done = run("nova-combined", f"--flagfile={simulated.conf}")
    one_line(SimpleFailure(done), str(simulated.port), "in use")


class SimpleFailure:
    """A failed daemon, of whose log only the errors count."""

    def __init__(self, done):
        self.returncode = done.returncode
        told = [line for line in (done.stdout + done.stderr).splitlines() if " INFO " not in line and " WARN " not in line]
        self.stderr = "\n".join(told)


@pytest.mark.parametrize(("there", "flags", "words"), [
    ([], [], ["nft", "apt-get install nftables"]),
    (["nft"], [], ["dnsmasq", "apt-get install dnsmasq-base"]),
    (["nft", "dnsmasq"], ["--libvirt_helper=/nonexistent/nova-libvirt"], ["libvirt", "/nonexistent/nova-libvirt"]),
], ids=["nft", "dnsmasq", "nova-libvirt"])
def test_a_program_that_is_missing_is_told_in_one_line(simulated, tmp_path, there, flags, words):
    path = tmp_path / "path"
    path.mkdir()
    for program in there:
        (path / program).symlink_to(shutil.which(program))
    done = run("nova-combined", f"--flagfile={simulated.conf}", "--hypervisor=libvirt", *flags, env={"PATH": str(path)})
    one_line(SimpleFailure(done), *words)


def test_two_processes_on_one_state_folder_are_one_too_many(simulated):
    simulated.start()
    second = run("nova-combined", f"--flagfile={simulated.conf}", "--ec2_port=18999")
    assert second.returncode != 0, "a second nova-combined worked on the same state folder"
    assert simulated.listens(), "the first one suffered"


@pytest.mark.parametrize("words", [
    ["network", "create", "10.44.0.0/25", "1", "128"],
    ["network", "create", "10.44.0.0/24", "1", "256"],
    ["network", "create", "10.50.0.1/99", "1", "256"],
    ["network", "create", "10.50.0.0/24", "1", "0"],
    ["network", "create", "10.50.0.0/24", "300", "256"],
    ["network", "create", "nonsense"],
    ["user", "create", USER],
    ["user", "create", "a\nb"],
    ["user", "create", "x" * 300],
    ["project", "create", PROJECT, USER],
    ["project", "create", "orphan", "nobody"],
    ["project", "create", "../../etc", USER],
    ["project", "environment", PROJECT, USER, "/nonexistent/novarc"],
    ["project", "quota", PROJECT, "instances", "many"],
    ["image", "kernel_register", "/nonexistent/kernel", PROJECT],
    ["image", "delete", "ami-zzz"],
    ["service", "disable", "nowhere", "nova-compute"],
], ids=lambda words: " ".join(words)[:48].replace("\n", "\\n"))
def test_nova_manage_refuses_in_one_line_and_changes_nothing(simulated, words):
    tables = ["users", "projects", "networks", "fixed_ips", "quotas"]
    count = lambda: [simulated.rows(f"select count(*) from {table}")[0][0] for table in tables]  # noqa: E731
    before = count()
    done = simulated.run_manage(*words)
    assert done.returncode == 1, f"status {done.returncode}: {done.stdout}{done.stderr}"
    one_line(done)
    assert count() == before


@pytest.mark.parametrize("words", [["nonsense"], ["user"], ["user", "nonsense"], ["user", "create"], ["network", "create", "a", "b", "c", "d", "e", "f", "g", "h"]], ids=" ".join)
def test_nova_manage_explains_how_it_is_called(simulated, words):
    done = simulated.run_manage(*words)
    assert done.returncode == 2, f"status {done.returncode}: {done.stdout}{done.stderr}"
    assert done.stdout.strip() or done.stderr.strip()


class Wire:
    """Requests that no client would send, signed by hand with version 2."""

    def __init__(self, cloud):
        self.cloud = cloud

    def sign(self, parameters, secret=None):
        pairs = {
            "Version": "2016-11-15",
            "AWSAccessKeyId": f"{self.cloud.access}:{PROJECT}",
            "SignatureVersion": "2",
            "SignatureMethod": "HmacSHA256",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **parameters,
        }
        quote = lambda text: urllib.parse.quote(text, safe="-_.~")  # noqa: E731
        query = "&".join(f"{quote(k)}={quote(v)}" for k, v in sorted(pairs.items()))
        text = f"POST\n{ADDRESS}:{self.cloud.port}\n/services/Cloud\n{query}"
        digest = hmac.new((secret or self.cloud.secret).encode(), text.encode(), hashlib.sha256).digest()
        return f"{query}&Signature={quote(b64encode(digest).decode())}"

    def post(self, body, headers=None):
        """Returns the HTTP status and the EC2 error code."""
        request = urllib.request.Request(self.cloud.url, data=body.encode(), headers=headers or {"Content-Type": "application/x-www-form-urlencoded"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, None
        except urllib.error.HTTPError as error:
            return error.code, ElementTree.fromstring(error.read()).findtext(".//Code")

    def ask(self, **parameters):
        return self.post(self.sign({name.replace("__", "."): value for name, value in parameters.items()}))


@pytest.fixture(scope="module")
def wire(tmp_path_factory, logs):
    """One simulated cloud for all requests below."""
    from cloud import Cloud

    cloud = Cloud(tmp_path_factory.mktemp("wire"), hypervisor="simulated", log=logs / "wire.log", port=18774)
    cloud.create()
    cloud.start()
    cloud.add_fake_image()
    yield Wire(cloud)
    cloud.check()
    cloud.stop()


RUN = {"Action": "RunInstances", "MinCount": "1", "MaxCount": "1"}
INGRESS = {"Action": "AuthorizeSecurityGroupIngress", "GroupName": "default", "CidrIp": "0.0.0.0/0"}


@pytest.mark.parametrize(("parameters", "code"), [
    ({"Action": "DescribeNonsense"}, "InvalidAction"),
    ({}, "MissingParameter"),
    ({"Action": "DescribeInstances", "InstanceId.1": "i-zzz"}, "InvalidInstanceID.Malformed"),
    ({"Action": "DescribeInstances", "InstanceId.1": "i-00abcdef"}, "InvalidInstanceID.NotFound"),
    ({"Action": "DescribeInstances", "Filter.1.Name": "nonsense", "Filter.1.Value.1": "x"}, "InvalidParameterValue"),
    ({"Action": "DescribeInstances", "MaxResults": "1"}, "InvalidParameterValue"),
    ({"Action": "DescribeInstances", "NextToken": "nonsense"}, "InvalidNextToken"),
    ({"Action": "DescribeInstances", "Nonsense": "1"}, "UnknownParameter"),
    ({"Action": "CreateKeyPair"}, "MissingParameter"),
    ({"Action": "CreateKeyPair", "KeyName": ""}, "MissingParameter"),
    ({"Action": "CreateKeyPair", "KeyName": "x" * 300}, "InvalidParameterValue"),
    ({"Action": "CreateKeyPair", "KeyName": "a\x01b"}, "InvalidParameterValue"),
    ({"Action": "ImportKeyPair", "KeyName": "k", "PublicKeyMaterial": "!!!"}, "InvalidKeyPair.Format"),
    ({"Action": "CreateSecurityGroup", "GroupName": "default", "GroupDescription": "d"}, "InvalidGroup.Duplicate"),
    ({"Action": "DeleteSecurityGroup", "GroupName": "nonsense"}, "InvalidGroup.NotFound"),
    ({**INGRESS, "IpProtocol": "tcp", "FromPort": "22", "ToPort": "70000"}, "InvalidParameterValue"),
    ({**INGRESS, "IpProtocol": "tcp", "FromPort": "23", "ToPort": "22"}, "InvalidParameterValue"),
    ({**INGRESS, "IpProtocol": "nonsense", "FromPort": "1", "ToPort": "1"}, "InvalidPermission.Malformed"),
    ({**INGRESS, "IpProtocol": "tcp", "FromPort": "1", "ToPort": "1", "CidrIp": "10.0.0.0/99"}, "InvalidParameterValue"),
    ({**RUN, "ImageId": "ami-zzz"}, "InvalidAMIID.Malformed"),
    ({**RUN, "ImageId": "ami-00000000"}, "InvalidAMIID.NotFound"),
    ({**RUN, "ImageId": "IMAGE", "MinCount": "0"}, "InvalidParameterValue"),
    ({**RUN, "ImageId": "IMAGE", "MinCount": "5", "MaxCount": "2"}, "InvalidParameterValue"),
    ({**RUN, "ImageId": "IMAGE", "MinCount": "100000", "MaxCount": "100000"}, "InvalidParameterValue"),
    ({**RUN, "ImageId": "IMAGE", "MinCount": "301", "MaxCount": "301", "InstanceType": "m1.tiny"}, "InstanceLimitExceeded"),
    ({**RUN, "ImageId": "IMAGE", "InstanceType": "z9.huge"}, "InvalidParameterValue"),
    ({**RUN, "ImageId": "IMAGE", "KeyName": "nonsense"}, "InvalidKeyPair.NotFound"),
    ({**RUN, "ImageId": "IMAGE", "SecurityGroup.1": "nonsense"}, "InvalidGroup.NotFound"),
    ({**RUN, "ImageId": "IMAGE", "UserData": "%%%"}, "InvalidUserData.Malformed"),
    ({**RUN, "ImageId": "IMAGE", "UserData": b64encode(b"x" * 20000).decode()}, "InvalidParameterValue"),
    ({"Action": "TerminateInstances"}, "MissingParameter"),
    ({"Action": "DescribeInstances", "Version": "nova"}, "NoSuchVersion"),
    ({**RUN, "ImageId": "IMAGE", "KernelId": "../../etc/passwd"}, "InvalidAMIID.Malformed"),
], ids=lambda value: None if isinstance(value, str) else " ".join(f"{k}={v[:16]!r}" for k, v in value.items() if k not in ("MaxCount", "CidrIp")) or "nothing")
def test_a_bad_request_is_answered_in_ec2_s_words(wire, parameters, code):
    asked = {name: wire.cloud.image if value == "IMAGE" else value for name, value in parameters.items()}
    before = wire.cloud.rows("select count(*) from instances")
    status, answered = wire.post(wire.sign(asked))
    assert (400 <= status < 500) and answered == code, f"{status} {answered}"
    assert wire.cloud.rows("select count(*) from instances") == before, "something was half done"


@pytest.mark.parametrize("header", ["Expect: 100-continue", "Expect:"], ids=["that asks first", "that does not ask"])
def test_a_body_that_is_too_large_is_refused(wire, tmp_path, header):
    body = tmp_path / "body"
    body.write_text(wire.sign({"Action": "DescribeInstances", "X": "y" * (2 << 20)}))
    command = ["curl", "--silent", "--show-error", "--header", header, "--data-binary", f"@{body}", "--write-out", "\n%{http_code}", wire.cloud.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    answer, status = done.stdout.rsplit("\n", 1)
    assert status in ("400", "413") and ElementTree.fromstring(answer).findtext(".//Code"), done.stdout


def test_too_many_parameters_are_refused(wire):
    status, code = wire.post(wire.sign({"Action": "DescribeInstances", **{f"InstanceId.{n}": "i-00000001" for n in range(1, 1100)}}))
    assert 400 <= status < 500 and code, (status, code)


def test_a_signature_with_another_secret_is_refused(wire):
    assert wire.post(wire.sign({"Action": "DescribeInstances"}, secret="another")) in ((401, "AuthFailure"), (403, "SignatureDoesNotMatch"), (401, "SignatureDoesNotMatch"), (403, "AuthFailure"))


def test_a_parameter_that_is_there_twice_is_refused(wire):
    status, code = wire.post(wire.sign({"Action": "DescribeInstances"}) + "&Action=TerminateInstances")
    assert 400 <= status < 500 and code, (status, code)


@pytest.mark.parametrize("body", ["", "%", "&&&&", "=", "a=%zz", "\x00" * 64, "<xml/>"], ids=repr)
def test_a_body_that_is_no_query_is_refused(wire, body):
    status, code = wire.post(body)
    assert 400 <= status < 500 and code, (status, code)
