"""What faults cost: env runners, nodes and drivers that are killed. DoorKey-5x5; trainings by the program that the
embedded VLM writes for it, runs by whatever it writes. The last line is JSON.

    python benchmarks/faults.py --only runner --only node
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from common import run
from doorkey import MIX, PROGRAM

from carl.artefacts import LIVE, STAGES
from carl.cluster.session import ray_running
from carl.config import EvaluationConfig, TrainConfig
from carl.rewards.program import ProgramReward
from carl.runs.stages import ORDER
from carl.tasks import get_task
from carl.training import train as training
from carl.training.checkpoint import Progressed
from carl.training.evaluation import Evaluator
from carl.training.rllib.paid import trained_on
from carl.training.training import Training

TASK = "DoorKey-5x5"


@dataclass
class Iteration:
    """One iteration of a training: when it ended and how long it took, in seconds, and the runners that answered then;
    steps that were sampled and steps that were learned from."""

    ended: float
    seconds: float
    sampled: int
    learned: int
    runners: int


@dataclass
class Watched:
    """A training of ``steps`` that is disturbed: ``disturb`` is called before each iteration with its number."""

    runners: int
    steps: int
    disturb: Callable[[int, "Watched"], object]
    iterations: list[Iteration] = field(default_factory=list)
    algorithm: Any = None

    def train(self) -> Progressed:
        build = training.build

        def built(*arguments: Any) -> Any:
            self.algorithm = build(*arguments)
            step = self.algorithm.train
            self.algorithm.train = lambda: self._iterate(step)
            return self.algorithm

        settings = TrainConfig(
            env_runners=self.runners, env_steps=self.steps, evaluate_every=10**6, checkpoint_every=10**6
        )
        with tempfile.TemporaryDirectory() as folder, patch.object(training, "build", built):
            disturbed = Training(
                get_task(TASK), ProgramReward(PROGRAM), MIX, 0, Path(folder), settings, EvaluationConfig()
            )
            return training.train(disturbed, evaluator=Evaluator(workers=0)).progressed

    def _iterate(self, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        self.disturb(len(self.iterations), self)
        started = time.monotonic()
        result = step()
        now = time.monotonic()
        learned = sum(trained_on(result).values())
        sampled = result["env_runners"].get("num_env_steps_sampled", 0)
        healthy = self.algorithm.env_runner_group.num_healthy_remote_workers()
        self.iterations.append(Iteration(now, now - started, int(np.nan_to_num(sampled)), learned, healthy))
        return result

    def rate(self, first: int, last: int) -> float:
        """Environment steps per second of iterations ``first`` to ``last``, the latter not counted."""
        some = self.iterations[first:last]
        return sum(one.sampled for one in some) / sum(one.seconds for one in some)

    def lost(self) -> int:
        """Steps that were sampled and never learned from, or the other way round."""
        return sum(abs(one.sampled - one.learned) for one in self.iterations)

    def back_after(self, moment: float) -> float:
        """Seconds from ``moment`` until an iteration ended that had all runners."""
        fallen = next(one for one in self.iterations if one.ended > moment and one.runners < self.runners)
        return next(o.ended for o in self.iterations if o.ended > fallen.ended and o.runners == self.runners) - moment


def runner_processes() -> list[psutil.Process]:
    processes = psutil.Process().children(recursive=True)
    return [process for process in processes if process.cmdline()[:1] and "PaidRunner" in process.cmdline()[0]]


def runner() -> dict[str, Any]:
    """One of two runners is killed between two samplings, later another time in the middle of one."""
    killed: dict[str, float] = {}

    def kill(name: str, delay_s: float = 0.0) -> None:
        time.sleep(delay_s)
        killed[name] = time.monotonic()
        runner_processes()[0].kill()

    def disturb(number: int, watched: Watched) -> None:
        if number == 10:
            kill("idle")
        if number >= 40 and "sampling" not in killed and watched.iterations[-1].runners == 2:
            threading.Thread(target=kill, args=("sampling", 0.05)).start()
            time.sleep(0.02)

    with ray_running():
        watched = Watched(2, 300_000, disturb)
        progressed = watched.train()
    alone = [one.seconds for one in watched.iterations if one.runners == 1]
    return {
        **{f"back_after_{name}_s": round(watched.back_after(moment), 1) for name, moment in killed.items()},
        "iteration_s": {
            "both": round(1 / watched.rate(3, 10) * 2048, 2),
            "survivor_median": round(np.median(alone), 2),
        },
        "steps_lost_in_accounting": watched.lost(),
        "reward_version": progressed.reward_version,
    }


@contextmanager
def cluster(*nodes: int) -> Iterator[Any]:
    """A cluster of a head without CPUs and nodes with so many, all of them on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    many = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        many.workers = [many.add_node(num_cpus=cpus) for cpus in nodes]
        ray.init(many.address, log_to_driver=False, configure_logging=False)
        many.wait_for_nodes()
        yield many
    finally:
        ray.shutdown()
        many.shutdown()


def node() -> dict[str, Any]:
    """Of two nodes with two runners each one dies; ten iterations later another joins."""
    moments: dict[str, float] = {}

    def disturb(number: int, watched: Watched) -> None:
        if number == 10:
            moments["killed"] = time.monotonic()
            machines.remove_node(machines.workers[1], allow_graceful=False)
        if number == 20:
            moments["joined"] = time.monotonic()
            machines.add_node(num_cpus=2)
        if number > 20 and watched.iterations[-1].runners == 4:
            moments.setdefault("whole", watched.iterations[-1].ended)

    with cluster(2, 2) as machines:
        watched = Watched(4, 200_000, disturb)
        progressed = watched.train()
    return {
        "stall_s": round(max(one.seconds for one in watched.iterations[10:20]), 1),
        "whole_after_joining_s": round(moments["whole"] - moments["joined"], 1),
        "half_over_whole_rate": round(watched.rate(12, 20) / watched.rate(3, 10), 2),
        "steps_lost_in_accounting": watched.lost(),
        "reward_version": progressed.reward_version,
    }


def drain() -> dict[str, Any]:
    """A node gets notice, as a spot instance does, and is taken away ten seconds later."""
    moments: dict[str, float] = {}

    def disturb(number: int, _: Watched) -> None:
        if number == 10:
            moments["notice"] = time.monotonic()
            told_to_drain(machines.address, machines.workers[1].node_id, 10.0)
            threading.Timer(10.0, machines.remove_node, [machines.workers[1]], {"allow_graceful": False}).start()

    with cluster(2, 2, 2) as machines:
        watched = Watched(4, 400_000, disturb)
        watched.train()
    after = [one for one in watched.iterations if one.ended > moments["notice"]]
    return {
        "longest_iteration_s": round(max(one.seconds for one in after), 1),
        "fewest_runners": min(one.runners for one in after),
        "runners_at_the_end": after[-1].runners,
        "steps_lost_in_accounting": watched.lost(),
    }


def told_to_drain(address: str, node_id: str, seconds: float, environment: Mapping[str, str] | None = None) -> None:
    """What an autoscaler does when a spot instance gets its notice."""
    command = ["drain-node", "--address", address, "--node-id", node_id]
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds"]
    command = [sys.executable, "-m", "ray.scripts.scripts", *command, *reason, f"{seconds:g}"]
    subprocess.run(command, env=environment, check=True)


def driver() -> dict[str, Any]:
    """`carl run` is killed twice in every stage, two seconds in; then it may come to its end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        command = [sys.executable, "-m", "carl", "run", TASK, "--run-dir", str(path), "--set", "train.env_steps=40000"]
        command += ["--set", "train.baselines=false", "--set", "train.checkpoint_every=5"]
        going: dict[str, float] = {}
        for stage in [name for name in ORDER[:-1] for _ in range(2)]:
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                going[stage] = goes_on(stage, path)  # the second time counts: it begins in that stage
                time.sleep(2.0)
                process.kill()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = json.loads((path / "result.json").read_text())
        drafts = [found.name for found in path.rglob("*.new")]
    return {
        "back_after_start_s": going,
        "rework_steps": result["rework_steps"],
        "success": result["evaluation"]["success_rate"],
        "half_written": drafts,
    }


def goes_on(stage: str, path: Path, patience_s: float = 300.0) -> float:
    """Seconds from now until the run at ``path`` works at ``stage``; training works when an iteration has ended."""
    started, begun = time.monotonic(), time.time()
    while time.monotonic() - started < patience_s:
        time.sleep(0.1)
        live = path / "training/code" / LIVE
        mark = live if stage == "train" else path / STAGES
        if not mark.exists() or mark.stat().st_mtime < begun:
            continue
        stages = json.loads((path / STAGES).read_text())
        before = ORDER[: ORDER.index(stage)]
        if all(stages.get(name, {}).get("done") for name in before) or not before:
            return round(time.monotonic() - started, 1)
    raise RuntimeError(f"the run never came to {stage}")


if __name__ == "__main__":
    run("faults", {"runner": runner, "node": node, "drain": drain, "driver": driver}, task=TASK)
