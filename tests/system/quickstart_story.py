"""What `test_quickstart.py` runs as the only program of a host: the quickstart from nothing to nothing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
QUICKSTART = REPO / "packaging" / "quickstart"
SECOND_RUN = 10


def traces():
    """All that a cloud could leave on this host."""
    run = lambda *words: subprocess.run(words, capture_output=True, text=True).stdout.split("\n")  # noqa: E731
    links = {line.split(":")[1].split("@")[0].strip() for line in run("ip", "-o", "link") if line}
    tables = {line for line in run("nft", "list", "tables") if line}
    processes = {name for name in run("ps", "-eo", "comm=") if name} - {"ps"}
    files = {str(path) for folder in ("/var/lib/nova", "/etc/nova", "/run/nova", "/var/log/nova") for path in [Path(folder)] if path.exists()}
    domains = {line for line in run("virsh", "--quiet", "list", "--all", "--name") if line}
    return {"links": links, "tables": tables, "processes": processes, "files": files, "domains": domains}


def quickstart(*words):
    """Runs it (with what `tests/run` has built and installed), shows what it says, and returns that and the seconds it took."""
    began = time.monotonic()
    done = subprocess.run([QUICKSTART, "--built", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    took = time.monotonic() - began
    print(f"--- quickstart {' '.join(words)}: status {done.returncode}, {took:.1f} s\n{done.stdout}{done.stderr}", flush=True)
    assert done.returncode == 0, f"quickstart {words} failed"
    return done.stdout, took


def ssh(said, command):
    """Uses the ssh line that was printed, word for word."""
    line = re.search(r"^ +(ssh -i .*)$", said, re.MULTILINE)[1]
    words = [*shlex.split(line)[:-1], "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    done = subprocess.run([*words, shlex.split(line)[-1], command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def instance(said):
    return re.search(r"^(i-[0-9a-f]{8}) runs at (\d+(?:\.\d+){3})", said, re.MULTILINE).groups()


def the_aws_line_works(said):
    """The block with the aws line, as it stands, with the aws-cli of the tests."""
    block = said[said.index("AWS_ACCESS_KEY_ID="):].split("\n\n")[0]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", block], capture_output=True, text=True, env={**os.environ, "PATH": path, "HOME": "/root"}, timeout=60)
    assert done.returncode == 0 and instance(said)[0] in done.stdout, done.stderr


def the_novarc_line_works(said):
    """The credentials can be sourced, and name the same endpoint."""
    line = re.search(r"^ +(\. .*novarc)$", said, re.MULTILINE)[1]
    done = subprocess.run(["bash", "-euc", f"{line}; echo $EC2_URL"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in said, done.stderr


def main():
    simulated = sys.argv[1:]
    before = traces()
    # This host has no internet to fetch the guest's packages from.
    shutil.copytree(os.environ["NOVA_GUEST"], "/var/lib/nova/guest-image")
    said, _ = quickstart(*simulated)
    id, address = instance(said)
    the_aws_line_works(said)
    the_novarc_line_works(said)
    if not simulated:
        assert subprocess.run(["ping", "-c", "1", "-W", "2", "-q", address]).returncode == 0
        ssh(said, "echo kept >/disk/root/kept; sync")

    again, took = quickstart(*simulated)
    assert took <= SECOND_RUN, f"the second run took {took:.1f} s"
    assert instance(again) == (id, address), "the second run launched another instance"

    # As if it had been interrupted between registering the image and noting its id.
    Path("/var/lib/nova/run/image").unlink()
    again, _ = quickstart(*simulated)
    assert instance(again) == (id, address), "a run that goes on after an interruption launched another instance"

    quickstart("--down")
    left = traces()
    assert left["links"] == before["links"] and left["tables"] == before["tables"], left
    said, _ = quickstart(*simulated)
    assert instance(said) == (id, address), "what was stopped was not started again"
    if not simulated:
        assert ssh(said, "cat /disk/root/kept") == "kept"

    quickstart("--down", "--purge")
    after = traces()
    assert after == before, f"left behind: { {kind: after[kind] ^ before[kind] for kind in after} }"
    quickstart("--down", "--purge")


main()
