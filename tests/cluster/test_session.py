"""Ray for a command: quiet, ended by SIGTERM as by Ctrl-C, and clear when its cluster cannot be reached."""

import os
import subprocess
import sys

TERMINATED = """
import os, signal
from carl.cluster.logs import quiet
from carl.cluster.session import ray_running
quiet()
try:
    with ray_running():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""

UNREACHABLE = """
from carl.cluster.session import ray_running
from carl.errors import ResourceError
try:
    with ray_running():
        pass
except ResourceError as error:
    print(error)
"""

TWO_NODES = """
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
cluster.add_node(num_cpus=2)
cluster.connect()
from carl.episodes.parallel import in_parallel
def where(_):
    return [ray.get_runtime_context().get_node_id()]
print({node for nodes in in_parallel(where, [(0,), (1,), (2,)], [1, 1, 1], "", lambda *_: None) for node in nodes}
      == {ray.get_runtime_context().get_node_id()})
ray.shutdown()
cluster.shutdown()
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


def test_what_touches_the_run_directory_stays_on_its_node() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_NODES], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "True", done.stderr
