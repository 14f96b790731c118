"""Ray for a command: quiet, ended by SIGTERM as by Ctrl-C, and clear when its cluster cannot be reached."""

import os
import subprocess
import sys

TERMINATED = """
import os, signal
from carl.cli import quiet
from carl.cluster import ray_running
quiet()
try:
    with ray_running():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""

UNREACHABLE = """
from carl.cluster import ray_running
from carl.errors import ResourceError
try:
    with ray_running():
        pass
except ResourceError as error:
    print(error)
"""


def test_termination_interrupts_and_ray_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", TERMINATED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "interrupted\n"
    assert done.stderr == ""


def test_a_cluster_that_cannot_be_used_is_named() -> None:
    environment = os.environ | {"RAY_ADDRESS": "no-such-host:notaport"}
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "RAY_ADDRESS=no-such-host:notaport cannot be used" in done.stdout
