"""A job on a cluster of two nodes by `ray start`, and what goes wrong on the way: jobs/doorkey.yaml by `carl submit`.
Each node has a folder of its own, as on a machine of its own. The last line is JSON.

    python benchmarks/job.py --only lost
"""

import ctypes
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from common import run
from faults import told_to_drain

from carl.console.progress import LINES, MARK
from carl.training.checkpoint import STATE, Checkpoints, Progressed

JOB = Path(__file__).parents[1] / "jobs/doorkey.yaml"
CPUS, RUNNERS = 2, 3
"""CPUs of each node, and env runners: more than the head has room for."""

RUNNER, DRIVER, RAYLET = "ray::PaidRunner", "-m carl run", "--raylet_socket_name"
"""What the command lines of these processes hold."""

HERE = "127.0.0.1"
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Machines:
    """Nodes, the head first, each as the process that started all of it; ``environment`` has the cluster's token."""

    folder: str
    environment: Mapping[str, str]
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    nodes: list[psutil.Popen] = field(default_factory=list)

    def start(self, *more: Any) -> None:
        """Add a node; returns once it is up."""
        agent, metrics = free_ports(2)
        ports = ["--dashboard-agent-listen-port", agent, "--metrics-export-port", metrics]
        ports += ["--min-worker-port", 0, "--max-worker-port", 0]
        # Nodes that share a folder take the job's files from each other.
        where = ["--node-ip-address", HERE, "--temp-dir", tempfile.mkdtemp(dir=self.folder), "--num-cpus", CPUS]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += map(str, [*where, *ports, *more])
        node = psutil.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.nodes.append(node)
        printed = ""
        for line in node.stdout:
            printed += line
            if "Ray runtime started" in line:
                return
        raise RuntimeError(f"a node did not start: {printed}")

    @property
    def gcs(self) -> str:
        return f"{HERE}:{self.ports[0]}"

    @property
    def dashboard(self) -> str:
        return f"http://{HERE}:{self.ports[1]}"

    def lead(self) -> None:
        gcs, dashboard, client = self.ports
        self.start("--head", "--port", gcs, "--dashboard-port", dashboard, "--ray-client-server-port", client)

    def join(self) -> None:
        self.start("--address", self.gcs)


@contextmanager
def machines() -> Iterator[Machines]:
    """Two nodes that ask for a token. What they started is dead afterwards, even if its parents died before it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # a process that loses its parent becomes our child
    # Without PYTHONPATH: the job has the carl that is sent.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # sockets want a short path
        many = Machines(folder, environment)
        try:
            many.lead()
            many.join()
            yield many
        finally:
            if alive := kill(psutil.Process().children(recursive=True)):
                raise RuntimeError(f"{len(alive)} processes outlived their node: {alive}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened at a moment ago."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server((HERE, 0))).getsockname()[1] for _ in range(count)]


def kill(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Returns those that do not die."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return psutil.wait_procs(processes, timeout=30.0)[1]


def named(words: str, *nodes: psutil.Popen) -> dict[psutil.Process, str]:
    """The processes of ``nodes`` whose command lines hold ``words``, with these."""
    found = {}
    for process in (process for node in nodes for process in node.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            if words in (line := " ".join(process.cmdline())):
                found[process] = line
    return found


def whole_again(many: Machines) -> float:
    """Seconds until all env runners are there."""
    started = time.monotonic()
    while len(named(RUNNER, *many.nodes)) < RUNNERS:
        if time.monotonic() - started > 120.0:
            raise RuntimeError("the env runners are not back")
        time.sleep(0.1)
    return round(time.monotonic() - started, 1)


# What goes wrong


def runner_killed(many: Machines) -> dict[str, Any]:
    """An env runner on the head."""
    kill(list(named(RUNNER, many.nodes[0]))[:1])
    return {"started_again_after_s": whole_again(many)}


def node_lost(many: Machines) -> dict[str, Any]:
    """The newest node and all that it started, at once; nobody is left who could clean up."""
    node = many.nodes.pop()
    runners = named(RUNNER, node)
    processes = [node, *node.children(recursive=True)]
    kill(processes)
    return {"processes": len(processes), "env_runners": len(runners)}


def node_joined(many: Machines) -> dict[str, Any]:
    many.join()
    return {"runner_started_after_s": whole_again(many)}


def node_drained(many: Machines) -> dict[str, Any]:
    """The newest node gets notice, as a spot instance does, and is gone ten seconds later."""
    (raylet,) = (line.split() for line in named(RAYLET, many.nodes[-1]).values())
    (node_id,) = (word.removeprefix("--node_id=") for word in raylet if word.startswith("--node_id="))
    told_to_drain(many.gcs, node_id, 10.0, many.environment)
    time.sleep(10.0)
    return node_lost(many)


def driver_killed(many: Machines) -> dict[str, Any]:
    """On the head, with the shell that Ray started it by."""
    drivers = list(named(DRIVER, many.nodes[0]))
    kill(drivers)
    return {"processes": len(drivers)}


def cluster_restarted(many: Machines) -> dict[str, Any]:
    """The head is lost, with driver and Ray's records of jobs, and the other node with it; both start again."""
    processes = [each for node in many.nodes for each in (node, *node.children(recursive=True))]
    many.nodes.clear()
    kill(processes)
    many.lead()
    many.join()
    return {"processes": len(processes)}


# What comes of it


def kept() -> dict[str, Any]:
    """Nothing goes wrong."""
    return measured([{}])


def lost() -> dict[str, Any]:
    """A node is lost while the job trains."""
    return measured([{20_000: node_lost}])


def shaken() -> dict[str, Any]:
    """One after the other, in a training that goes on when the task is solved."""
    faults = {15_000: runner_killed, 50_000: node_lost, 60_000: node_joined, 120_000: node_drained}
    return measured([faults], "train.stop_at_success=null")


def driver() -> dict[str, Any]:
    """The driver is killed, and the same command given again."""
    return measured([{40_000: driver_killed}, {}])


def head() -> dict[str, Any]:
    """The head is lost, and the same command given to the one that takes its place."""
    return measured([{40_000: cluster_restarted}, {}])


Faults = Mapping[int, Callable[[Machines], dict[str, Any]]]
"""What goes wrong, by the environment step after which it does."""


def measured(attempts: list[Faults], *settings: str) -> dict[str, Any]:
    """Submit the same job as often as there are attempts, as a user does; what the run says, and what happened."""
    with tempfile.TemporaryDirectory() as folder, machines() as many:
        path = Path(folder) / "run"
        settings = (*settings, f"run_dir={path}", f"train.env_runners={RUNNERS}")
        submitted = [followed(many, faults, settings) for faults in attempts]
        return {"submitted": submitted, **outcome(path)}


def followed(many: Machines, faults: Faults, settings: tuple[str, ...]) -> dict[str, Any]:
    """`carl submit`, until it ends."""
    command = [sys.executable, "-m", "carl", "submit", str(JOB), "--address", many.dashboard]
    command += [part for setting in settings for part in ("--set", setting)]
    # With PYTHONPATH, if there is one: the command is this carl's.
    environment = {**os.environ, **many.environment, LINES: "1"}
    ahead, begun, started = dict(sorted(faults.items())), {}, time.monotonic()
    with (
        ThreadPoolExecutor(1) as hand,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as submit,
    ):
        for line in submit.stdout or ():
            steps = trained(line)
            if steps is None:
                print(line, end="", file=sys.stderr)
            for after in [after for after in ahead if after <= (steps or 0)]:
                fault = ahead.pop(after)
                begun[fault.__name__] = steps, hand.submit(fault, many)
    happened = {name: {"at_env_steps": steps, **future.result()} for name, (steps, future) in begun.items()}
    return {"exit_code": submit.returncode, "seconds": round(time.monotonic() - started), **happened}


def trained(line: str) -> int | None:
    """The environment steps in a line; 0 if it is of other work, None if it is no line of progress."""
    if not line.startswith(MARK):
        return None
    progress = json.loads(line.removeprefix(MARK))
    return int(progress["done"]) if progress["label"].startswith("training") else 0


def outcome(path: Path) -> dict[str, Any]:
    result = json.loads((path / "result.json").read_text())
    training = path / "training/code"
    curve = [json.loads(line) for line in (training / "curve.jsonl").read_text().splitlines()]
    latest = Checkpoints(training / "checkpoints").latest()
    return {
        "stopped_at_success": latest is not None and Progressed.read(latest / STATE).solved,
        "env_steps": result["env_steps"],
        "success": result["evaluation"]["success_rate"],
        "interval": result["evaluation"]["interval"],
        "reward_versions": sorted({point["reward_version"] for point in curve}),
        "rework_steps": result["rework_steps"],
        "seconds_of": result["seconds"],
        "half_written": [found.name for found in path.rglob("*.new")],
    }


if __name__ == "__main__":
    sections = {"kept": kept, "lost": lost, "shaken": shaken, "driver": driver, "head": head}
    run("job", sections, cpus_of_each_node=CPUS, env_runners=RUNNERS)
