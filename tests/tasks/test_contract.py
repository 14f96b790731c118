"""Every built-in task keeps the contract that users' tasks are held to."""

import subprocess
import sys

import pytest

from carl.task import Task
from carl.tasks import BUILT_IN
from carl.testing import TaskContract


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
class TestBuiltIn(TaskContract):
    pass


def test_names_are_unique() -> None:
    assert len({task.name for task in BUILT_IN}) == len(BUILT_IN)


def test_listing_tasks_imports_no_environment() -> None:
    code = "import sys, carl.tasks; print({'minigrid', 'cv2', 'torch', 'ray', 'pygame'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_only_unlock_pickup_mixes_in_its_own_reward() -> None:
    def weight(task: Task) -> float:
        return task.env_reward_weight

    assert [task.name for task in BUILT_IN if weight(task)] == ["UnlockPickup"]
