"""Seconds of verification, those of an earlier commit and today's side by side, on the same episodes.

The earlier commit records expert and random episodes of a task, so that both can read them; then both judge the program
that is known to be right by all their default rules, in processes of their own, in turn. Reading the stores and the
start of Python are not counted. The last line is JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
BEFORE = "500f036"
"""The last commit before verification took several kinds of episodes."""

RECORD = """
import math, sys
from carl.episodes.collect import collect
from carl.tasks import get_task
folder, name, experts, randoms = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
task = get_task(name)
shown = collect(task, range(experts), "expert", folder + "/expert")
longest = max(length for part in shown.manifest.parts for length in part.lengths)
collect(task, range(100_000, 100_000 + randoms), "random", folder + "/random", 4 * longest)
"""

JUDGE = """
import inspect, sys, time
from carl.config import VerifyConfig
from carl.episodes.trajectory import TrajectoryStore
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.verification import Evidence, verify
experts, randoms = (TrajectoryStore(sys.argv[1] + "/" + role).read() for role in ("expert", "random"))
codes = {"key": programs.PICK_UP_KEY, "door": programs.OPEN_DOOR, "goal": programs.REACH_GOAL}
program = RewardProgram(subtasks=tuple(SubTask(name=name, code=code) for name, code in codes.items()))
config = VerifyConfig(min_randoms=1)
kinds = {Evidence.EXPERTS: experts, Evidence.RANDOMS: randoms}
shown = (experts, randoms) if "experts" in inspect.signature(verify).parameters else (kinds,)
start = time.perf_counter()
report = verify(program, *shown, config)
seconds = time.perf_counter() - start
assert report.accepted, report.evidence()
print(seconds)
"""


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The files of a commit, in a git worktree that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "before")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


def output_of(code: str, where: Path, *arguments: str) -> str:
    """What ``code`` prints with the carl that lies in ``where``."""
    settings = {**os.environ, "PYTHONPATH": str(where), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=where, env=settings, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(
    task: Annotated[str, typer.Option(help="A room with a key, a door and a goal.")] = "DoorKey-8x8",
    before: Annotated[str, typer.Option(help="Commit, or a folder that holds its files.")] = BEFORE,
    experts: Annotated[int, typer.Option(help="Expert episodes.")] = 60,
    randoms: Annotated[int, typer.Option(help="Episodes of random play.")] = 200,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
) -> None:
    """Measure both in turn and print the figures."""
    with tempfile.TemporaryDirectory() as folder, _place(before) as earlier:
        output_of(RECORD, earlier, folder, task, str(experts), str(randoms))
        seconds: dict[Path, list[float]] = {earlier: [], ROOT: []}
        for _ in range(rounds):
            for where, measured in seconds.items():
                measured.append(float(output_of(JUDGE, where, folder).split()[-1]))
    then, now = (median(measured) for measured in seconds.values())
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    print(f"{task}: {then:.2f} s before ({before}), {now:.2f} s now; ratios {min(ratios):.2f} to {max(ratios):.2f}")
    setting = {"task": task, "experts": experts, "randoms": randoms, "rounds": rounds}
    print(json.dumps({"verify_over_before": now / then, "seconds": {"before": then, "now": now}, **setting}))


@contextmanager
def _place(before: str) -> Iterator[Path]:
    if Path(before).is_dir():
        yield Path(before)
        return
    with checked_out(before) as place:
        yield place


if __name__ == "__main__":
    typer.run(main)
