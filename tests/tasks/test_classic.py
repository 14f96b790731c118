"""MountainCarContinuous: what success means, and the small frames."""

import numpy as np

from carl.episodes.play import made, rollout
from carl.tasks import get_task

TASK = get_task("MountainCarContinuous")


def test_pumping_reaches_the_flag() -> None:
    trajectory = rollout(TASK, 1, "expert")
    assert trajectory.terminated
    assert trajectory.success
    assert len(trajectory) < 200


def test_a_long_random_episode_is_no_success() -> None:
    assert not rollout(TASK, 1, "random", 100).success


def test_the_car_shows_in_the_small_frame() -> None:
    with made(TASK, 0) as env:
        env.reset(seed=0)
        env.unwrapped.state = np.array([-0.9, 0.0])
        left = TASK.frame(env)
        env.unwrapped.state = np.array([0.3, 0.0])
        right = TASK.frame(env)
    assert left.shape == (64, 96, 3)
    columns = np.nonzero((left != right).any(axis=(0, 2)))[0]
    assert columns.min() < 32
    assert columns.max() > 60
