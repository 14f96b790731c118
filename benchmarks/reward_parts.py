"""Single parts of a reward's way: the box, the camera, and asking a model instead."""

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from doorkey import PROGRAM, TASK, in_turns, random_play, seconds

from carl.config import EMBEDDED_MODEL
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.rewards.frames import Frames
from carl.sandbox import child
from carl.sandbox.box import Box
from carl.tasks import get_task

CONTOURS = """
def progress(frame, initial):
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    mask = cv2.inRange(hsv, np.array([20, 80, 80]), np.array([35, 255, 255]))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = [cv2.moments(contour)["m00"] for contour in contours]
    return min(1.0, sum(areas) / mask.size)
"""
"""Hue, contours and moments: what larger models like to write."""


def box() -> dict[str, Any]:
    """64 frames of 96 x 96 pixels, judged in the box and in this process.

    As in rollouts, the initial frame lies in the box's memory, and the others are copied there.
    """
    frames, rows, first = np.stack(random_play(64, tile=12)), np.arange(64), np.zeros(64, dtype=np.intp)
    found: dict[str, Any] = {}
    for name, source in (("program", programs.PICK_UP_KEY), ("contours", CONTOURS)):
        code = child.SubTaskCode(1, source, child.namespace())
        with Box(RewardProgram(subtasks=(SubTask(name=name, code=source),))) as boxed:
            initials = boxed.room(1, 96, 96)
            initials[0] = frames[0]
            pid = boxed.pid
            times = in_turns(
                {
                    "in_process": lambda code=code: seconds(lambda: [code.judge(frame, frames[0]) for frame in frames]),
                    "boxed": lambda boxed=boxed, initials=initials: seconds(
                        lambda: boxed.judge(frames, initials, first, rows, first)
                    ),
                },
                turns=200,
            )
            found[name] = {
                "us_per_frame_in_process": round(times["in_process"] / 64 * 1e6, 1),
                "boxed_over_in_process": round(times["boxed"] / times["in_process"], 3),
                "own_memory_mb": own_memory_mb(pid),
            }
    return found


def own_memory_mb(pid: int) -> float | None:
    """Memory that only this process has; None where its owner may not look, which is everybody but root."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    return round(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024, 1)


def opening() -> dict[str, float]:
    """Milliseconds to put a program into a box: with a zygote that runs, and with one to start."""
    from carl.sandbox import supervisor

    supervisor.dismiss()
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


def camera() -> dict[str, Any]:
    """Frames of 16 environments that act at random, after each step, against MiniGrid's own of the same size."""
    return {f"{8 * tile}px": pictures(tile) for tile in (8, 12)}


def pictures(tile: int) -> dict[str, float]:
    """Microseconds a frame, and how many times as long MiniGrid takes."""
    task, slots = get_task(TASK), np.arange(16)
    envs = [task.make() for _ in slots]
    for slot, env in enumerate(envs):
        world: Any = env.unwrapped
        world.tile_size = tile
        env.reset(seed=slot)
    frames, rng = Frames(task, envs), np.random.default_rng(0)
    ours, theirs = [], []
    for _ in range(400):
        for env in envs:
            if any(env.step(int(rng.integers(6)))[2:4]):
                env.reset()
        ours.append(seconds(lambda: frames.take(slots)))
        theirs.append(
            seconds(lambda: [env.unwrapped.get_frame(highlight=False, tile_size=tile) for env in envs])  # type: ignore[attr-defined]
        )
    return {
        "us": round(float(np.median(ours)) / len(envs) * 1e6, 2),
        "minigrid_over_ours": round(float(np.median(theirs) / np.median(ours)), 1),
    }
