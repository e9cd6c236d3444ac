"""How `nova-combined` starts: soon, small, and without libraries that a machine may lack."""

import subprocess
from pathlib import Path

from cloud import BIN

# The budget is 150 ms and 60 MiB for what is shipped; these tests run what developers build, beside other work.
DEBUG_START_SECONDS = 1.0
RSS_MIB = 60


def test_it_is_ready_soon_on_a_state_folder_that_exists(simulated):
    simulated.start()
    simulated.stop()
    took = min(restart(simulated) for _ in range(3))
    rss = rss_mib(simulated.process.pid)
    print(f"ready after {took * 1000:.0f} ms, {rss:.1f} MiB resident")
    assert took <= DEBUG_START_SECONDS
    assert rss <= RSS_MIB


def restart(cloud):
    cloud.stop()
    return cloud.start()


def rss_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_no_program_but_the_helper_is_linked_with_libvirt():
    linked = {name: "libvirt.so" in subprocess.run(["ldd", BIN / name], capture_output=True, text=True, check=True).stdout for name in
              ("nova-combined", "nova-manage", "nova-dhcpbridge", "nova-libvirt")}
    assert linked == {"nova-combined": False, "nova-manage": False, "nova-dhcpbridge": False, "nova-libvirt": True}
