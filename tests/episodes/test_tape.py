"""The same episode is recorded whatever plays it: an expert, a loop in a Recorder, a policy on a paid environment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carl.episodes.play import rollout
from carl.episodes.record import Recorder
from carl.episodes.tape import FilmedEnv
from carl.episodes.trajectory import Trajectory
from carl.errors import TaskError
from carl.rewards.mix import Mix
from carl.training.evaluation import Exam
from carl.training.final import record
from tests.fakes.corridor import CORRIDOR, Corridor

WALKER = replace(CORRIDOR, expert=lambda env: lambda observation: 1)
SPARSE = Mix(source=0.0, env=1.0)


class Rightwards:
    """A policy that walks to the right."""

    def act(self, observations: np.ndarray, *, greedy: bool) -> np.ndarray:
        return np.ones(len(observations), dtype=np.int64)


def by_hand(place: Path) -> Trajectory:
    with Recorder(WALKER, place) as env:
        env.reset(seed=5)
        while not any(env.step(1)[2:4]):
            pass
        return env.store[0]


def test_an_episode_is_the_same_whoever_plays_it(tmp_path: Path) -> None:
    expert = rollout(WALKER, 5, "expert")
    others = by_hand(tmp_path), record(Rightwards(), Exam(WALKER, SPARSE, None, 0), 5)
    for other, role in zip(others, ("demonstration", "policy"), strict=True):
        for name in ("frames", "actions", "rewards"):
            mine, theirs = np.asarray(getattr(expert, name)), np.asarray(getattr(other, name))
            assert (mine.dtype, mine.tolist()) == (theirs.dtype, theirs.tolist()), name
        assert replace(other, frames=0, actions=0, rewards=0, role="", step_seconds=None).__dict__ == (
            replace(expert, frames=0, actions=0, rewards=0, role="", step_seconds=None).__dict__
        )
        assert other.role == role


def test_the_camera_films_the_tasks_own_environment_while_a_policy_plays() -> None:
    """Not a wrapper around it, which would hide what a camera may read of it."""
    task = replace(WALKER, camera=lambda env: np.full((8, 8, 3), env.position, np.uint8))
    assert record(Rightwards(), Exam(task, SPARSE, None, 0), 5).frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_an_episode_without_end_is_truncated_and_not_recorded_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carl.task.LONGEST", 3)
    env = FilmedEnv(WALKER, Corridor(1000, 1000))
    env.reset(seed=1)
    assert [env.step(1)[3] for _ in range(4)] == [False, False, True, False]
    assert len(env.tape.trajectory("x")) == 3


def test_a_number_that_is_none_is_refused_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    class Failing(Corridor):
        def step(self, action: int):
            observation, reward, *rest = super().step(action)
            return observation, reward + np.nan, *rest

    with Recorder(replace(WALKER, make=Failing), tmp_path) as env:
        env.reset(seed=7)
        with pytest.raises(TaskError, match="the reward in step 1 of the episode of seed 7 holds NaN"):
            env.step(1)
