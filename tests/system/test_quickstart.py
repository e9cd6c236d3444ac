"""`packaging/quickstart`, on a host of its own: up, up again, down, up, and away without a trace."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_quickstart_ends_with_a_guest_and_leaves_no_trace(logs):
    command = [HERE / "as-host", sys.executable, HERE / "quickstart_story.py"]
    with (logs / "quickstart.log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=600)
    said = (logs / "quickstart.log").read_text()
    assert done.returncode == 0, said[-4000:]


def test_the_quickstart_simulates_where_it_may_not_do_more(logs):
    command = [HERE / "as-host", sys.executable, HERE / "quickstart_story.py", "--simulated"]
    with (logs / "quickstart-simulated.log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=600)
    said = (logs / "quickstart-simulated.log").read_text()
    assert done.returncode == 0, said[-4000:]
