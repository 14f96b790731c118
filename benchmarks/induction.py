"""Programs found without a model: which tasks get one that passes on held-out episodes, and how long the search takes.

Episodes are recorded first: those of the search, as many as are asked for, and held-out ones, as many as a run has. The
seconds are those of the search and the gate on both. Every search prints a line when it ends and, with ``--kept``, is
added to a file; what that file has is not searched again, nor are episodes recorded again that ``--episodes`` keeps.
The last line is JSON with the keys ``induction.<task>.verified`` (of how many seeds), ``induction.<task>.seconds`` and
``induction.<task>.cpu_seconds`` (of each; those of the boxes are included).

    python -m benchmarks.induction DoorKey-6x6 environments:TAXI --seeds 5 --experts 10
    python -m benchmarks.induction --bound
"""

import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import psutil
import typer

from carl.cameras import Shrunk
from carl.cli import bars
from carl.cluster.logs import quiet
from carl.config import SynthesisConfig
from carl.console.progress import Progress
from carl.episodes.trajectory import Trajectory
from carl.errors import CarlError
from carl.induction import induce
from carl.methods import code
from carl.methods.code import CodeConfig
from carl.methods.method import Work
from carl.methods.recorded import recorded
from carl.runs.resolve import by_default
from carl.runs.result import versions
from carl.task import Task
from carl.tasks import get_task
from carl.tasks.minigrid import TASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MORE = {"UnlockPickup": 40, "BlockedUnlockPickup": 40}
"""Tasks that are given more experts than others at least, and how many."""


def frozen_lake() -> Task:
    """The lake of 8 x 8 at 128 pixels, not slippery."""
    from environments import planner

    make = partial(gym.make, "FrozenLake-v1", map_name="8x8", is_slippery=False, render_mode="rgb_array")
    return Task("FrozenLake8x8", "Cross the ice to the gift.", make, expert=planner, camera=Shrunk(128))


def of_readme() -> Task:
    """The task that README.md shows: every expert takes the same way."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    shown = next(block.partition("```")[0] for block in blocks if "FROZEN_LAKE = Task(" in block)
    module = ModuleType("readme")
    exec(shown, vars(module))
    task: Task = module.FROZEN_LAKE
    return task


MADE = {"FrozenLake8x8": frozen_lake, "README:FROZEN_LAKE": of_readme}
OTHERS = (*MADE, "environments:CLIFF_WALKING", "environments:TAXI", "MountainCarContinuous")
"""What is measured beside MiniGrid's rooms."""


def configured(task: Task, seed: int, experts: int | None) -> CodeConfig:
    """The configuration of a run, with the limits that the task sets, of so many expert episodes."""
    given = {"task": task.name, "seed": seed, "synthesis": SynthesisConfig(proposers=("induction",))}
    config = CodeConfig(**by_default(task, CodeConfig).model_dump() | given)
    more = {"experts": experts, "randoms": config.verify.min_randoms}  # fewer are not judged by
    return config.model_copy(update={"collect": config.collect.model_copy(update=more)})


def searched(name: str, seed: int, experts: int | None, episodes: Path, progress: Progress) -> dict[str, Any]:
    """Whether a program is verified, the seconds of the search, and its sub-tasks or why there is none."""
    task = MADE[name]() if name in MADE else get_task(name)
    config = configured(task, seed, experts)
    with TemporaryDirectory() as directory:
        work = Work(task, config, Path(directory), progress, recordings=episodes)
        there = Work(task, config, episodes, progress)
        recorded(there, config.collect, config.synthesis.pairs)
        recorded(there, config.collect.model_copy(update={"experts": None}), config.synthesis.pairs, 1)
        start, cpu = time.monotonic(), cpu_seconds()
        try:
            code.synthesize(work)
            what = "; ".join(subtask.name for subtask in code.program_of(work).subtasks)
            verified = True
        except CarlError as error:
            verified, what = False, str(error)
        spent = {"seconds": round(time.monotonic() - start, 1), "cpu_seconds": round(cpu_seconds() - cpu, 1)}
        return {"verified": verified, **spent, "what": what}


def cpu_seconds() -> float:
    """Of this process and all that it started."""
    here = psutil.Process()
    return float(sum(sum(each.cpu_times()[:4]) for each in (here, *here.children(recursive=True))))


def unlike(number: int, solved: bool, steps: int = 100, side: int = 128) -> Trajectory:
    """A walk of ``steps`` over a checked board of ``side`` pixels to a gift that is then gone, or at random."""
    rng = np.random.default_rng([number, solved])
    board = np.kron(rng.integers(20, 60, (8, 8, 1)), np.ones((side // 8, side // 8, 3))).astype(np.uint8)
    frames = np.repeat(board[None], steps + 1, axis=0)
    start, end = rng.integers(8, side // 3, 2), rng.integers(side // 2, side - 16, 2)
    way = np.linspace(start, end - 4, steps + 1) if solved else start + rng.normal(0, 4, (steps + 1, 2)).cumsum(axis=0)
    for step, (frame, (y, x)) in enumerate(zip(frames, way.astype(int).clip(0, side - 9), strict=True)):
        if not solved or step < steps:
            frame[end[0] : end[0] + 8, end[1] : end[1] + 8] = (220, 200, 40)
        frame[y : y + 8, x : x + 8] = (220, 30, 30)
    kind = "expert" if solved else "random"
    return Trajectory(frames, np.zeros(steps), np.zeros(steps), solved, False, solved, number, kind)


def bound(tell: Any, experts: int = 60, others: int = 60) -> None:
    """Tell the seconds, CPU seconds and MiB beyond its episodes that a search in a process of its own takes."""
    played = [unlike(number, True) for number in range(experts)], [unlike(number, False) for number in range(others)]
    before, start, cpu = _peak(), time.monotonic(), time.process_time()
    found = induce(*played)
    tell.send(
        {
            "experts": experts,
            "others": others,
            "frame": list(played[0][0].frames.shape),
            "seconds": round(time.monotonic() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "mib": round(_peak() - before),
            "programs": len(found.programs),
            "refusal": found.refusal,
            "load": os.getloadavg()[0],
        }
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bounded() -> dict[str, Any]:
    """What ``bound`` tells; raises EOFError if its process dies."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=bound, args=(there,))
    process.start()
    there.close()  # so that what ends without a word is noticed
    told: dict[str, Any] = here.recv()
    process.join()
    return told


def kept_in(path: Path | None) -> dict[str, dict[str, Any]]:
    """What earlier runs found, by task, seed and number of experts; nothing without a file."""
    return json.loads(path.read_text()) if path and path.exists() else {}


def figures(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The keys of the last line."""
    told: dict[str, Any] = {}
    for name, runs in found.items():
        told[f"induction.{name}.verified"] = sum(run["verified"] for run in runs)
        for key in ("seconds", "cpu_seconds"):
            told[f"induction.{name}.{key}"] = [run[key] for run in runs]
    return told


def main(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks, else all of MiniGrid and five others.")] = None,
    seeds: Annotated[int, typer.Option(help="Searches of each task.")] = 5,
    experts: Annotated[int | None, typer.Option(help="Expert episodes of the search, else the default.")] = None,
    kept: Annotated[Path | None, typer.Option(help="File that results are added to, and not searched again.")] = None,
    episodes: Annotated[Path | None, typer.Option(help="Directory in which recorded episodes are kept.")] = None,
    largest: Annotated[bool, typer.Option("--bound", help="Measure the largest search instead.")] = False,
) -> None:
    """Search, and print what was found."""
    sys.path.insert(0, str(DOCS))
    where = {"seeds": seeds, "experts": experts, "cpus": os.cpu_count(), "machine": platform.machine()}
    setting = {"benchmark": "induction", "setting": {**where, "versions": versions()}}
    if largest:
        print(json.dumps({**setting, "bound": bounded()}))
        return
    known = kept_in(kept)
    found: dict[str, list[dict[str, Any]]] = {}
    with bars() as progress, TemporaryDirectory() as scratch:
        for seed, name in product(range(seeds), tasks or [*(each.name for each in TASKS), *OTHERS]):
            short = name.rpartition(":")[2]
            given = max(experts, MORE.get(name, 0)) if experts else None
            key, place = f"{name} {seed} {given}", (episodes or Path(scratch)) / f"{short}-{seed}-{given}"
            run = known[key] = known.get(key) or searched(name, seed, given, place, progress)
            found.setdefault(short, []).append(run)
            said = (
                f"{'verified' if run['verified'] else 'none'} in {run['seconds']:.0f} s, {run['cpu_seconds']:.0f} s CPU"
            )
            print(f"{name} {seed}: {said}: {run['what']}", flush=True)
            if kept:
                kept.write_text(json.dumps(known, indent=1))
    print(json.dumps({**setting, **figures(found)}))


if __name__ == "__main__":
    quiet()
    typer.run(main)
