"""Peak memory of what records and reads episodes, over their number: it should not grow.

Episodes of 500 frames of 400 x 600 pixels, 60 of which are 22 GB, are recorded by Ray tasks, verified and copied as
demonstrations are, and one is drawn as the report does; each number of episodes in a process of its own. A figure is
the largest resident set of any process (the driver, Ray's, the boxes'), sampled every 50 ms; memory that several share
counts in each of them. The last line is JSON.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from common import run

from carl.cluster.logs import quiet
from carl.cluster.session import ray_running
from carl.config import VerifyConfig
from carl.episodes.collect import collect, read_in_parallel
from carl.episodes.trajectory import TrajectoryStore
from carl.program import RewardProgram, SubTask
from carl.runs.report.pictures import animation
from carl.task import Task
from carl.verification import Evidence, trace, verify

EPISODES = (30, 60)
STEPS, SIZE = 499, (400, 600)

PROGRAM = RewardProgram(
    subtasks=(
        SubTask(
            name="walk to the right end",
            code="def progress(frame, initial):\n    return min(1.0, (frame[200, :, 0] > 100).argmax() / 499)\n",
        ),
    )
)
"""Looks at one line of each frame, so that reading the frames is what takes the time."""


class Lane(gym.Env[Any, Any]):
    """A marker that walks to the right in steps of a pixel, before a ground that compresses as a drawn one does."""

    def __init__(self) -> None:
        self.render_mode = "rgb_array"
        self.action_space = gym.spaces.Discrete(2)
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        rows, columns = np.indices(SIZE) // 20
        self._ground = np.repeat(((rows + columns) % 2 * 20)[..., None], 3, axis=2).astype(np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._at = self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._at = max(0, self._at + (1 if action else -1))
        done = self._at == STEPS
        return np.zeros(1, np.float32), float(done), done, not done and self._steps == STEPS, {}

    def render(self) -> Any:
        frame = self._ground.copy()
        frame[180:220, self._at : self._at + 40] = (220, 40, 40)
        return frame


TASK = Task(name="lane", description="Walk.", make=Lane, expert=lambda _env: lambda _observation: 1)


def resident(pid: int) -> float:
    """MB of a process, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except (OSError, IndexError):
        return 0.0


def descendants(pid: int) -> list[int]:
    """Of a process, its own id first."""
    found = [pid]
    for one in found:
        try:
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
    return found


class Peak:
    """The largest process below this one while the context lasts, by the name of its command."""

    def __enter__(self) -> "Peak":
        self.mb: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for pid in descendants(os.getpid()):
                try:
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                except OSError:
                    continue
                self.mb[name] = max(self.mb.get(name, 0.0), resident(pid))


def passes(episodes: int, folder: Path) -> dict[str, Any]:
    """What each pass over so many episodes takes, in this process and those below it."""
    found: dict[str, Any] = {}

    def measured(name: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        with Peak() as peak:
            result = work()
        large = {name: round(mb) for name, mb in peak.mb.items() if mb > 100}
        found[name] = {"seconds": round(time.monotonic() - start, 1), "mb": large}
        return result

    store = measured("record", lambda: collect(TASK, range(episodes), "expert", str(folder / "experts")))
    read = read_in_parallel(store)
    lenient = VerifyConfig(max_random_completion=1, min_randoms=1)
    shown = {Evidence.EXPERTS: read, Evidence.RANDOMS: read}
    report = measured("verify", lambda: verify(PROGRAM, shown, lenient))
    assert report.accepted, report.evidence()
    measured("copy", lambda: TrajectoryStore(folder / "copy").write(store))
    measured("report", lambda: animation(store[0].frames, trace(PROGRAM, store[0]), [(0, 0, 0)]))
    peak = max(mb for figures in found.values() for mb in figures["mb"].values())
    frames = sum(length + 1 for part in store.manifest.parts for length in part.lengths)
    return found | {
        "frames_gb": round(frames * 3 * prod(SIZE) / 1e9, 1),
        "disk_mb": round(sum(part.bytes for part in store.manifest.parts) / 1e6, 1),
        "peak_mb": peak,
    }


def over_episodes() -> dict[str, Any]:
    """Each number in a process of its own."""
    found: dict[str, Any] = {}
    for episodes in EPISODES:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, str(episodes), folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found[str(episodes)] = json.loads(done.stdout.splitlines()[-1])
    few, many = (found[str(number)]["peak_mb"] for number in (EPISODES[0], EPISODES[-1]))
    share = many / 1000 / found[str(EPISODES[-1])]["frames_gb"]
    return found | {"growth": round(many / few, 2), "peak_over_frames": round(share, 3)}


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].isdigit():
        quiet()
        with ray_running():
            print(json.dumps(passes(int(sys.argv[1]), Path(sys.argv[2]))))
    else:
        run("memory", {"episodes": over_episodes}, steps=STEPS, frame=SIZE)
