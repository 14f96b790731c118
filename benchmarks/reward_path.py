"""What a reward costs on its way: camera, box, cache, env runner, training, faults. DoorKey-8x8, unless said.

Every ratio is of two things measured in turns within one run of this script, as the median over the turns. The program
is the one that the embedded VLM writes for the task. Environments act at random, or by an untrained policy. The last
line is JSON.

    python benchmarks/reward_path.py --only camera --only box
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from gymnasium.spaces.utils import flatten
from numpy.typing import NDArray

from carl.cli import quiet
from carl.config import EMBEDDED_MODEL, TrainConfig
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.result import versions
from carl.rewards.program import ProgramReward
from carl.rewards.vector import Mix
from carl.sandbox import child
from carl.sandbox.box import Box
from carl.task import Frame, get_task

TASK = "DoorKey-8x8"
PROGRAM = RewardProgram(
    subtasks=(
        SubTask(name="pick up the key", source=programs.PICK_UP_KEY),
        SubTask(name="open the door", source=programs.OPEN_DOOR),
        SubTask(name="reach the goal", source=programs.REACH_GOAL),
    )
)
CONTOURS = '''
def progress(frame, initial):
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    mask = cv2.inRange(hsv, np.array([20, 80, 80]), np.array([35, 255, 255]))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = [cv2.moments(contour)["m00"] for contour in contours]
    return min(1.0, sum(areas) / mask.size)
'''
"""Hue, contours and moments: what larger models like to write."""


def in_turns(ways: Mapping[str, Callable[[], float]], turns: int) -> dict[str, float]:
    """Median of what each way measured, one turn after the other; a first turn is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns + 1):
        for name, way in ways.items():
            found[name].append(way())
    return {name: float(np.median(values[1:])) for name, values in found.items()}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def random_play(steps: int, tile: int = 8) -> list[Frame]:
    """Frames of one environment that acts at random."""
    env = get_task(TASK).make()
    world: Any = env.unwrapped
    world.tile_size = tile
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(steps):
        frames.append(np.asarray(env.render()))
        if any(env.step(int(rng.integers(6)))[2:4]):
            env.reset()
    return frames


def box() -> dict[str, Any]:
    """64 frames of 96 x 96 pixels in the box, and in this process."""
    frames = np.stack(random_play(64, tile=12))
    initials, tasks = np.broadcast_to(frames[0], frames.shape), np.zeros(64, dtype=np.intp)
    found: dict[str, Any] = {}
    for name, source in (("program", programs.PICK_UP_KEY), ("contours", CONTOURS)):
        code = child.SubTaskCode(1, source, child.namespace())
        with Box(RewardProgram(subtasks=(SubTask(name=name, source=source),))) as boxed:
            pid = boxed.pid
            times = in_turns(
                {
                    "in_process": lambda code=code: seconds(
                        lambda: [code.judge(*pair) for pair in zip(frames, initials, strict=True)]
                    ),
                    "boxed": lambda boxed=boxed: seconds(lambda: boxed.judge(frames, initials, tasks)),
                },
                turns=200,
            )
            found[name] = {
                "us_per_frame_in_process": round(times["in_process"] / 64 * 1e6, 1),
                "boxed_over_in_process": round(times["boxed"] / times["in_process"], 3),
                "own_memory_mb": own_memory_mb(pid),
            }
    return found


def own_memory_mb(pid: int) -> float:
    """Memory that only this process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return round(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024, 1)


def opening() -> dict[str, float]:
    """Milliseconds to put a program into a box: with a zygote that runs, and with one to start."""
    from carl.sandbox import process

    process.dismiss()
    cold = seconds(lambda: Box(PROGRAM).close())
    warm = float(np.median([seconds(lambda: Box(PROGRAM).close()) for _ in range(50)]))
    return {"cold_ms": round(cold * 1e3, 1), "warm_ms": round(warm * 1e3, 2)}


def asking() -> dict[str, Any]:
    """Judging a frame in the box against asking the embedded VLM about it, and against reading it from a PNG file."""
    from PIL import Image

    from carl.serving.engine import VlmEngine
    from carl.serving.prompt import Prompt, Sampling

    engine = VlmEngine.load(EMBEDDED_MODEL)
    frames = np.stack(random_play(64))
    initials, tasks = np.broadcast_to(frames[0], frames.shape), np.zeros(64, dtype=np.intp)
    code = child.SubTaskCode(1, programs.PICK_UP_KEY, child.namespace())

    def ask() -> None:
        images = [{"type": "image", "image": Image.fromarray(frame)} for frame in (frames[0], frames[-1])]
        words = {"type": "text", "text": "Is this done: pick up the key? Answer yes or no."}
        message = {"role": "user", "content": [*images, words]}
        engine.generate([Prompt((message,), Sampling(max_tokens=2))])

    with tempfile.TemporaryDirectory() as folder, Box(PROGRAM) as boxed:
        paths = [str(Path(folder) / f"{row}.png") for row in range(64)]
        for path, frame in zip(paths, frames, strict=True):
            cv2.imwrite(path, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

        def read_and_judge() -> None:
            for path in paths:
                code.judge(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB), frames[0])

        times = in_turns(
            {
                "boxed": lambda: seconds(lambda: boxed.judge(frames, initials, tasks)) / 64,
                "asked": lambda: seconds(ask),
                "from_png": lambda: seconds(read_and_judge) / 64,
            },
            turns=20,
        )
    return {
        "us_per_frame_boxed": round(times["boxed"] * 1e6, 1),
        "asking_over_boxed": round(times["asked"] / times["boxed"]),
        "from_png_over_boxed": round(times["from_png"] / times["boxed"], 2),
    }
