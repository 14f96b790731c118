"""A job on two machines, one of which is lost while it trains: two nodes by `ray start` on this machine, each with a
folder of its own, and jobs/doorkey.yaml by `carl submit`. The last line is JSON.

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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from common import run

from carl.progress import LINES, MARK
from carl.training.checkpoint import STATE, Checkpoints, Progressed

JOB = Path(__file__).parents[1] / "jobs/doorkey.yaml"
CPUS, RUNNERS = 2, 3
"""CPUs of each node, and env runners: more than the head has room for."""

LOST_AFTER = 20_000
"""Environment steps, a third of what the training takes."""

HERE = "127.0.0.1"
PR_SET_CHILD_SUBREAPER = 36


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened at a moment ago."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server((HERE, 0))).getsockname()[1] for _ in range(count)]


@dataclass
class Machines:
    """A head and another node; ``environment`` is that of somebody who has their cluster's token."""

    dashboard: str
    environment: Mapping[str, str]
    head: subprocess.Popen[bytes]
    node: subprocess.Popen[bytes]


@contextmanager
def machines() -> Iterator[Machines]:
    """Two nodes that ask for a token. What they started is dead afterwards, even if its parents died before it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whoever loses its parent becomes our child
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # The job gets carl from what is submitted alone, and each node its own folder: nodes that share one take the job's
    # files from each other.
    bare = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")} | token
    gcs, dashboard, client = free_ports(3)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        ports = ["--port", gcs, "--dashboard-port", dashboard, "--ray-client-server-port", client]
        try:
            head = ray_start(folder / "head", bare, "--head", *ports)
            node = ray_start(folder / "node", bare, "--address", f"{HERE}:{gcs}")
            yield Machines(f"http://{HERE}:{dashboard}", {**os.environ, **token}, head, node)
        finally:
            gone, alive = kill(psutil.Process().children(recursive=True))
            if alive:
                raise RuntimeError(f"{len(alive)} processes outlived their node: {alive}")


def ray_start(folder: Path, environment: Mapping[str, str], *more: Any) -> subprocess.Popen[bytes]:
    """A node, and the process that holds all of it; returns once it is up."""
    agent, metrics = free_ports(2)
    ports = ["--dashboard-agent-listen-port", agent, "--metrics-export-port", metrics]
    ports += ["--min-worker-port", 0, "--max-worker-port", 0]
    where = ["--node-ip-address", HERE, "--temp-dir", folder, "--num-cpus", CPUS]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += map(str, [*where, *ports, *more])
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = b""
    for line in process.stdout or ():
        said += line
        if b"Ray runtime started" in line:
            return process
    raise RuntimeError(f"a node did not start: {said.decode()}")


def kill(processes: list[psutil.Process]) -> tuple[list[psutil.Process], list[psutil.Process]]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return psutil.wait_procs(processes, timeout=30.0)


def lose(machine: subprocess.Popen[bytes]) -> dict[str, int]:
    """Kill a node and all that it started, at once; nobody is left who could clean up."""
    root = psutil.Process(machine.pid)
    processes = [root, *root.children(recursive=True)]
    titles = [" ".join(process.cmdline()) for process in processes]
    kill(processes)
    return {"processes": len(processes), "env_runners": sum("CodeRewardRunner" in title for title in titles)}


def lost() -> dict[str, Any]:
    """The second node is lost while the job trains."""
    return submitted(lose_a_node=True)


def kept() -> dict[str, Any]:
    """The same job while nothing happens."""
    return submitted(lose_a_node=False)


def submitted(*, lose_a_node: bool) -> dict[str, Any]:
    """Submit the job as a user does, and follow it; returns what its run directory says afterwards."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, machines() as two:
        path = Path(name) / "run"
        sets = [f"run_dir={path}", f"train.env_runners={RUNNERS}"]
        command = [sys.executable, "-m", "carl", "submit", str(JOB), "--address", two.dashboard]
        command += [part for setting in sets for part in ("--set", setting)]
        environment = {**two.environment, LINES: "1"}
        started = time.monotonic()
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as submit:
            for line in submit.stdout or ():
                steps = trained(line)
                if steps is None:
                    print(line, end="", file=sys.stderr)
                elif steps >= LOST_AFTER and lose_a_node and "lost" not in found:
                    found["lost"] = lose(two.node) | {"at_env_steps": steps}
        return found | {
            "exit_code": submit.returncode,
            "seconds": round(time.monotonic() - started),
            **outcome(path),
        }


def trained(line: str) -> int | None:
    """The environment steps that a line tells of; 0 if it tells of other work, None if it is no line of progress."""
    if not line.startswith(MARK):
        return None
    told = json.loads(line.removeprefix(MARK))
    return int(told["done"]) if told["label"].startswith("training") else 0


def outcome(path: Path) -> dict[str, Any]:
    result = json.loads((path / "result.json").read_text())
    training = path / "training/code"
    curve = [json.loads(line) for line in (training / "curve.jsonl").read_text().splitlines()]
    latest = Checkpoints(training / "checkpoints").latest()
    return {
        "stopped_at_success": latest is not None and Progressed.read(latest / STATE).solved,
        "env_steps": result["env_steps"],
        "env_steps_per_s": round(result["env_steps_per_s"]),
        "success": result["evaluation"]["success_rate"],
        "interval": result["evaluation"]["interval"],
        "rework_steps": result["rework_steps"],
        "reward_versions": sorted({point["reward_version"] for point in curve}),
        "seconds_of": result["seconds"],
    }


if __name__ == "__main__":
    run("job", {"lost": lost, "kept": kept}, cpus_of_each_node=CPUS, env_runners=RUNNERS)
