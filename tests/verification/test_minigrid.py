"""On every built-in gridworld, programs that are right pass the gate, and plausible ones that are wrong do not."""

from functools import cache

import pytest

from carl.config import VerifyConfig
from carl.episodes.play import made, play
from carl.episodes.trajectory import Trajectory
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.tasks import get_task
from carl.verification import verify
from tests.verification.episodes import kinds

SOURCES = {
    "key": programs.PICK_UP_KEY,
    "door": programs.OPEN_DOOR,
    "goal": programs.REACH_GOAL,
    "put down": programs.PUT_DOWN_KEY,
    "box": programs.with_free_hands(programs.PICK_UP_BOX),
    # plausible and wrong
    "yellow key": programs.pick_up_colour("yellow"),
    "anything changed": "from carl import vision\n\n\ndef progress(frame, initial):\n"
    "    return float(vision.changed(frame, initial).any())\n",
    "green": "from carl import vision\n\n\ndef progress(frame, initial):\n"
    '    return float(vision.colour(frame, "green").mean() > 0)\n',
}
DOOR_KEY = ("key", "door", "goal")
RIGHT = {
    "Empty-8x8": ("goal",),
    "DoorKey-5x5": DOOR_KEY,
    "DoorKey-6x6": DOOR_KEY,
    "DoorKey-8x8": DOOR_KEY,
    "DoorKey-16x16": DOOR_KEY,
    "Unlock": ("key", "door"),
    "UnlockPickup": ("key", "door", "put down", "box"),
}
WRONG = [
    ("Empty-8x8", ("anything changed",), "done_with_task", 0),
    ("Empty-8x8", ("green",), "already_done", 0),
    ("DoorKey-6x6", ("key", "goal", "door"), "already_done", 2),
    ("DoorKey-6x6", ("put down", "door", "goal"), "already_done", 0),
    ("Unlock", ("yellow key", "door"), "experts_complete", 0),
    ("UnlockPickup", ("yellow key", "door", "put down", "box"), "experts_complete", 0),
    ("UnlockPickup", ("key", "put down", "door", "box"), "already_done", 2),
]
EXPERTS, RANDOMS, CUT = 12, 16, 50


@cache
def episodes(task_name: str) -> tuple[list[Trajectory], list[Trajectory]]:
    task = get_task(task_name)
    with made(task, 0) as env:
        experts = [play(task, env, seed, "expert", 10_000) for seed in range(EXPERTS)]
        return experts, [play(task, env, 1000 + seed, "random", CUT) for seed in range(RANDOMS)]


def judged(task_name: str, names: tuple[str, ...]):
    program = RewardProgram(subtasks=tuple(SubTask(name=name, code=SOURCES[name]) for name in names))
    return verify(program, kinds(*episodes(task_name)), VerifyConfig(min_experts=2, min_randoms=RANDOMS))


@pytest.mark.parametrize(("task_name", "names"), RIGHT.items())
def test_the_right_program_is_accepted(task_name, names):
    report = judged(task_name, names)
    assert report.accepted, report.evidence()


@pytest.mark.parametrize(("task_name", "names", "check", "subtask"), WRONG)
def test_a_wrong_program_is_rejected_for_the_right_reason(task_name, names, check, subtask):
    report = judged(task_name, names)
    assert (check, subtask) in {(failed.name, failed.subtask) for failed in report.failed}, report.evidence()
