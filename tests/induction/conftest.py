"""Episodes of a small room, played once a session."""

from collections.abc import Callable

import pytest

from carl.episodes.play import made, play
from carl.episodes.trajectory import Trajectory
from carl.tasks import get_task

Episodes = tuple[list[Trajectory], list[Trajectory]]


@pytest.fixture(scope="session")
def room() -> Callable[[int], Episodes]:
    """Expert and random episodes of DoorKey-5x5, with its oracle's events: 12 and 24 to search with (0), others (1)."""
    task = get_task("DoorKey-5x5")
    with made(task, 0) as env:
        parts = [
            (
                [play(task, env, 100 * part + seed, "expert", with_events=True) for seed in range(12)],
                [play(task, env, 1000 + 100 * part + seed, "random", 40, with_events=True) for seed in range(24)],
            )
            for part in range(2)
        ]
    return lambda part: parts[part]
