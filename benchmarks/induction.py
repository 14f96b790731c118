"""Programs found without a model: which tasks get one that passes on held-out episodes, and how long the search takes.

Episodes are recorded first, for the search and the held-out verdict; the seconds are those of the search itself with
its gate. The last line is JSON with the keys ``induction.<task>.verified`` (of how many seeds) and
``induction.<task>.seconds`` (of each).

    python benchmarks/induction.py --task DoorKey-6x6 --task environments:TAXI --seeds 5
"""

import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import gymnasium as gym
import typer

from carl.cameras import Shrunk
from carl.cli import bars
from carl.cluster.logs import quiet
from carl.config import CollectConfig, SynthesisConfig
from carl.console.progress import Progress
from carl.errors import CarlError
from carl.methods import code
from carl.methods.code import CodeConfig
from carl.methods.method import Work
from carl.methods.recorded import recorded
from carl.runs.result import versions
from carl.task import Task
from carl.tasks import get_task
from carl.tasks.minigrid import TASKS

DOCS = Path(__file__).parent.parent / "docs"


def frozen_lake() -> Task:
    """The lake of 8 x 8 at 128 pixels, not slippery."""
    from environments import planner

    make = partial(gym.make, "FrozenLake-v1", map_name="8x8", is_slippery=False, render_mode="rgb_array")
    return Task("FrozenLake8x8", "Cross the ice to the gift.", make, expert=planner, camera=Shrunk(128))


OTHERS = ("FrozenLake8x8", "environments:CLIFF_WALKING", "environments:TAXI", "MountainCarContinuous")
"""What is measured beside MiniGrid's rooms."""


def searched(name: str, seed: int, experts: int | None, progress: Progress) -> tuple[bool, float, str]:
    """Whether a program is verified, the seconds of the search, and its sub-tasks or why there is none."""
    task = frozen_lake() if name == "FrozenLake8x8" else get_task(name)
    settings = {"collect": CollectConfig(experts=experts), "synthesis": SynthesisConfig(proposers=("induction",))}
    config = CodeConfig(task=task.name, seed=seed, **settings)
    with TemporaryDirectory() as directory:
        work = Work(task, config, Path(directory), progress)
        for held_out in range(2):
            recorded(work, config.collect, config.synthesis.pairs, held_out)
        start = time.monotonic()
        try:
            code.synthesize(work)
        except CarlError as error:
            return False, time.monotonic() - start, str(error)
        names = [subtask.name for subtask in code.program_of(work).subtasks]
        return True, time.monotonic() - start, "; ".join(names)


def main(
    task: Annotated[list[str] | None, typer.Option(help="Tasks, else all built-in ones and four others.")] = None,
    seeds: Annotated[int, typer.Option(help="Searches of each task.")] = 5,
    experts: Annotated[int | None, typer.Option(help="Expert episodes of the search, else the default.")] = None,
) -> None:
    """Search, and print what was found."""
    sys.path.insert(0, str(DOCS))
    found: dict[str, object] = {}
    with bars() as progress:
        for name in task or [*(each.name for each in TASKS), *OTHERS]:
            runs = [searched(name, seed, experts, progress) for seed in range(seeds)]
            for seed, (verified, seconds, what) in enumerate(runs):
                print(f"{name} {seed}: {'verified' if verified else 'none'} in {seconds:.0f} s: {what}", flush=True)
            short = name.rpartition(":")[2]
            found[f"induction.{short}.verified"] = sum(verified for verified, *_ in runs)
            found[f"induction.{short}.seconds"] = [round(seconds, 1) for _, seconds, _ in runs]
    where = {"seeds": seeds, "experts": experts, "cpus": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps({"benchmark": "induction", "setting": {**where, "versions": versions()}, **found}))


if __name__ == "__main__":
    quiet()
    typer.run(main)
