"""Every built-in task keeps the contract that users' tasks are held to."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from carl.methods.code import CodeConfig
from carl.runs.resolve import by_default
from carl.task import Task
from carl.tasks import BUILT_IN
from carl.testing import TaskContract, difference
from tests.fakes.corridor import COIN_FLIP, CORRIDOR, Corridor


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
class TestBuiltIn(TaskContract):
    pass


def test_names_are_unique() -> None:
    assert len({task.name for task in BUILT_IN}) == len(BUILT_IN)


def test_listing_tasks_imports_no_environment() -> None:
    code = "import sys, carl.tasks; print({'minigrid', 'cv2', 'torch', 'ray', 'pygame'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_only_where_frames_do_not_tell_success_is_the_environments_own_reward_mixed_in() -> None:
    def weight(task: Task) -> float:
        return by_default(task, CodeConfig).reward.env_reward_weight

    assert [task.name for task in BUILT_IN if weight(task)] == ["UnlockPickup", "BlockedUnlockPickup", "OpenTwoDoors"]


# What the contract says of tasks that break it


@pytest.mark.parametrize(("idle", "complaint"), [((7,), "outside"), ((1,), "solves the task")])
def test_idle_actions_that_are_none_are_refused(idle: tuple[int, ...], complaint: str) -> None:
    contract = TaskContract()
    contract.random_steps = 3
    with pytest.raises(AssertionError, match=complaint):
        contract.test_idle_actions_change_nothing_that_counts(replace(CORRIDOR, idle=idle))


class Redrawing:
    """A camera that redraws the corridor's frame, and leaves ``wrong`` more in its first value."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong

    def __call__(self, env: gym.Env) -> np.ndarray:
        return env.render()

    def onto(self, env: gym.Env, frame: np.ndarray) -> Callable[[], bool]:
        def redraw() -> bool:
            frame[:] = env.render()
            frame[0, 0, 1] += self.wrong
            return True

        return redraw


class Flickering(Corridor):
    """Shows noise, so that two pictures of one moment differ."""

    def render(self) -> np.ndarray:
        frame = super().render()
        frame[7, 7] = self.np_random.integers(256, size=3)
        return frame


def redrawn(task: Task) -> None:
    TaskContract().test_a_frame_that_is_redrawn_is_the_one_that_is_taken(task)


def test_only_a_camera_that_redraws_is_tested_for_that() -> None:
    for task in (replace(CORRIDOR, make=Flickering), replace(CORRIDOR, camera=lambda env: env.render())):
        with pytest.raises(pytest.skip.Exception, match="redraws nothing"):
            redrawn(task)
    redrawn(replace(CORRIDOR, camera=Redrawing()))


def test_a_camera_that_redraws_otherwise_fails_with_where_and_by_how_much() -> None:
    with pytest.raises(AssertionError, match=r"step 1 of seed 11.*1 of 192 values, at \[0, 0, 1\], by up to 7; first"):
        redrawn(replace(CORRIDOR, camera=Redrawing(7)))


def test_an_episode_that_a_seed_does_not_fix_fails_with_the_first_step_that_differs() -> None:
    class Drifting(Corridor):
        episodes = 0

        def reset(self, **kwargs):
            Drifting.episodes += 1
            return super().reset(**kwargs)

        def render(self) -> np.ndarray:
            frame = super().render()
            frame[0, 0, 2] = 0
            if self.steps == 2:
                frame[2:4, 5] = 100 * (Drifting.episodes % 2)
            return frame

    where = r"frames differ first at step 2: 6 of 192 values, at \[2 to 3, 5, 0 to 2\], by up to 100; first 100 and 0"
    with pytest.raises(AssertionError, match=where):
        TaskContract().test_a_seed_fixes_the_episode(replace(CORRIDOR, make=Drifting))


def test_episodes_of_other_lengths_fail_with_both_ends() -> None:
    class Shrinking(Corridor):
        lives = iter([4, 3])

        def __init__(self) -> None:
            super().__init__(length=99, patience=next(self.lives))

    ended = "4 steps, terminated False, truncated True, success False; then after 3 steps"
    with pytest.raises(AssertionError, match=ended):
        TaskContract().test_a_seed_fixes_the_episode(replace(CORRIDOR, make=Shrinking))


def test_difference_is_of_numbers_not_of_bytes() -> None:
    one, other = np.array([[3, 250]], np.uint8), np.array([[3, 1]], np.uint8)
    assert difference(one, other) == "1 of 2 values, at [0, 1], by up to 249; first 250 and 1"
    assert difference(one, one) == ""
    assert difference(one, other[:, :1]) == "[1, 2] and [1, 1]"


def test_an_expert_may_fail_as_often_as_the_contract_allows() -> None:
    class Stochastic(TaskContract):
        seeds = range(10)
        max_failed = 0.8

    lucky = replace(COIN_FLIP, expert=lambda env: lambda observation: 1)
    Stochastic().test_the_expert_succeeds(lucky)
    Stochastic.max_failed = 0.1
    with pytest.raises(AssertionError, match="the expert fails in the episodes of the seeds"):
        Stochastic().test_the_expert_succeeds(lucky)
