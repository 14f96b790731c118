"""Tasks of one's own, and how tasks are found."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import carl.tasks.registry
from carl.episodes.play import rollout
from carl.errors import TaskError
from carl.task import blaming, rewarded_end
from carl.tasks import get_task, tasks
from carl.testing import TaskContract

# ruff: isort: off
# README: begin
import gymnasium as gym

from carl.task import Task


def make() -> gym.Env:
    return gym.make("FrozenLake-v1", is_slippery=False, render_mode="rgb_array")


def expert(env: gym.Env):
    way = iter([1, 1, 2, 1, 2, 2])  # down, down, right, down, right, right
    return lambda observation: next(way)


FROZEN_LAKE = Task(name="FrozenLake", description="Cross the ice to the gift.", make=make, expert=expert)
# README: end
# ruff: isort: on


class TestFrozenLake(TaskContract):
    @pytest.fixture
    def task(self) -> Task:
        return FROZEN_LAKE


def test_a_task_of_ones_own_is_found_by_module_and_attribute() -> None:
    assert get_task(f"{__name__}:FROZEN_LAKE") is FROZEN_LAKE


def test_its_pictures_have_the_environments_size() -> None:
    assert rollout(FROZEN_LAKE, 0, "expert").frames.shape == (7, 256, 256, 3)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """What other packages are pretended to register."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(carl.tasks.registry, "entry_points", lambda group: found if group == "carl.tasks" else [])
    tasks.cache_clear()
    yield found
    tasks.cache_clear()


ONE_TASK = EntryPoint("frozen", f"{__name__}:FROZEN_LAKE", "carl.tasks")
SEVERAL_TASKS = EntryPoint("several", f"{__name__}:SEVERAL", "carl.tasks")
SEVERAL = (FROZEN_LAKE, Task(name="Another", description="Elsewhere.", make=make))


def test_packages_register_a_task_by_entry_point(installed: list[EntryPoint]) -> None:
    installed.append(ONE_TASK)
    assert get_task("FrozenLake") is FROZEN_LAKE
    assert "DoorKey-8x8" in tasks()


def test_an_entry_point_may_name_several_tasks(installed: list[EntryPoint]) -> None:
    installed.append(SEVERAL_TASKS)
    assert {"FrozenLake", "Another"} <= tasks().keys()


def test_two_tasks_of_one_name_are_refused(installed: list[EntryPoint]) -> None:
    installed.extend([ONE_TASK, SEVERAL_TASKS])
    with pytest.raises(TaskError, match="two tasks are called 'FrozenLake'"):
        tasks()


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(TaskError, match=r"unknown task 'DoorKey'.*DoorKey-8x8.*module:attribute"):
        get_task("DoorKey")


@pytest.mark.parametrize("name", ["no.such.module:TASK", f"{__name__}:NOTHING", f"{__name__}:make"])
def test_a_wrong_reference_is_explained(name: str) -> None:
    with pytest.raises(TaskError, match=name):
        get_task(name)


def test_another_gymnasium_than_rays_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "__version__", "1.4.0")
    with pytest.raises(TaskError, match=r"gymnasium 1\.4\.0 is installed, and Ray needs 1\.2\..*gymnasium==1\.2\.2"):
        get_task("DoorKey-8x8")


@pytest.mark.parametrize("line", ["import gymnasium.of_tomorrow", "from gymnasium import of_tomorrow"])
def test_a_task_that_needs_a_newer_gymnasium_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "tomorrow.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match=r"cannot import the task 'tomorrow:TASK'.*newer gymnasium than 1\.2"):
        get_task("tomorrow:TASK")


def test_a_task_whose_module_raises_is_named_with_what_it_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: list[EntryPoint]
) -> None:
    """As one does that was written for an older carl."""
    (tmp_path / "of_before.py").write_text(
        "from carl.task import Task\nTASK = Task(name='x', description='x', make=dict, env_steps=9)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match=r"cannot import the task 'of_before:TASK': TypeError: .*'env_steps'"):
        get_task("of_before:TASK")
    installed.append(EntryPoint("before", "of_before:TASK", "carl.tasks"))
    with pytest.raises(TaskError, match=r"the tasks of of_before:TASK, .*: TypeError: .*'env_steps'"):
        tasks()


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (IndexError("no way\n  left"), r"IndexError in a step: no way left \(.*test_task\.py:\d+, in "),
        (StopIteration(), r"StopIteration in a step \(.*test_task\.py:\d+, in "),
    ],
)
def test_what_a_tasks_code_raises_is_one_sentence_with_or_without_a_message(raised: Exception, said: str) -> None:
    with pytest.raises(TaskError, match=f"^task 'FrozenLake': its code raised {said}"), blaming(FROZEN_LAKE, "a step"):
        raise raised


def test_a_task_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        FROZEN_LAKE.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "picture", [None, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_what_is_no_rgb_picture_is_refused(picture: object) -> None:
    task = Task(name="blind", description="x", make=make, camera=lambda env: picture)
    with pytest.raises(TaskError, match="render_mode='rgb_array'"):
        task.frame(make())


def test_success_needs_an_end_and_a_reward() -> None:
    assert rewarded_end(0.1, True, False, {})
    assert rewarded_end(0.1, True, True, {})
    assert not rewarded_end(0.0, True, False, {})
    assert not rewarded_end(1.0, False, True, {})
