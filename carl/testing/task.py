"""What a Task has to do, as pytest tests to inherit."""

import pickle
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from carl.episodes.demonstrations import demonstrations
from carl.episodes.play import attempt, made, play, rollout
from carl.episodes.trajectory import Trajectory
from carl.methods.arms import main_arm, mix_of
from carl.methods.code import CodeConfig, check_frames
from carl.rewards.frames import Frames
from carl.runs.resolve import by_default
from carl.runs.trial import Trial
from carl.task import Task


class TaskContract:
    """Provide a fixture ``task`` that returns the Task under test."""

    seeds: ClassVar[Sequence[int]] = (11, 12, 13)
    """Episodes that the expert has to solve and random play has to survive."""

    max_failed: ClassVar[float] = 0.0
    """Largest share of them that the expert may fail to solve, where the environment is stochastic."""

    random_steps: ClassVar[int] = 60
    """Steps after which random play is cut."""

    def test_frames_are_rgb_pictures_of_one_size(self, task: Task) -> None:
        """Frames of all ``seeds`` are ``uint8[H, W, 3]`` with one H and W."""
        shapes = set()
        for seed in self.seeds:
            frames = rollout(task, seed, "random", self.random_steps).frames
            assert frames.dtype == np.uint8, "frames have to be uint8[H, W, 3]"
            shapes.add(frames.shape[1:])
        assert len(shapes) == 1, f"frames have to keep one size over episodes, not {shapes}"

    def test_a_frame_that_is_redrawn_is_the_one_that_is_taken(self, task: Task) -> None:
        """A camera with ``onto`` redraws exactly the frame that it takes."""
        with made(task, 0) as env:
            env.reset(seed=self.seeds[0])
            onto: Any = getattr(task.camera, "onto", None)
            if onto is None or onto(env, task.frame(env).copy()) is None:
                pytest.skip("this camera redraws nothing: it takes every frame anew")
            frames, slot = Frames(task, [env]), np.zeros(1, dtype=np.intp)
            for seed in self.seeds:
                env.reset(seed=seed)
                for step, action in enumerate(self._random_actions(env, self.random_steps // 3)):
                    found = difference(task.frame(env), frames.take(slot)[0])
                    assert not found, f"step {step} of seed {seed}: the camera redraws what it does not film: {found}"
                    if any(env.step(action)[2:4]):
                        break

    def test_observations_are_in_their_space(self, task: Task) -> None:
        """``observation_space`` contains every observation of random play."""
        with made(task, 0) as env:
            observation, _ = env.reset(seed=self.seeds[0])
            for action in self._random_actions(env, self.random_steps):
                assert env.observation_space.contains(observation), "an observation is outside observation_space"
                observation, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    break

    def test_a_policy_takes_its_spaces_and_a_program_its_frames(self, task: Task) -> None:
        """Two slots are stepped by an untrained policy, and a box judges their frames."""
        config = by_default(task, CodeConfig)
        mix, judged = mix_of(config, main_arm(config)), partial(check_frames, task, config)
        Trial(task, 0, config.train, [mix], films=True, judge=judged).check_policies()

    def test_a_seed_fixes_the_episode(self, task: Task) -> None:
        """The same seed and actions give the same rewards and frames."""
        first, again = (rollout(task, self.seeds[0], "random", self.random_steps) for _ in range(2))
        _assert_equal(first, again)

    def test_a_seed_fixes_the_episode_whatever_was_played_before(self, task: Task) -> None:
        """So they do in an environment that has played another episode."""
        alone = rollout(task, self.seeds[1], "random", self.random_steps)
        with made(task, 0) as env:
            play(task, env, self.seeds[0], "random", self.random_steps)
            _assert_equal(alone, play(task, env, self.seeds[1], "random", self.random_steps))

    def test_the_expert_succeeds(self, task: Task) -> None:
        """The expert solves all ``seeds`` but the share ``max_failed``, and the last frame shows a change."""
        if task.expert is None:
            assert task.demonstrations, "a Task needs an expert or demonstrations"
            assert demonstrations(task, 1)
            return
        with made(task, self.seeds[0]) as env:
            played = [attempt(task, env, seed, "expert") for seed in self.seeds]
        failed = [trajectory.seed for trajectory in played if not trajectory.success]
        assert len(failed) <= self.max_failed * len(played), f"the expert fails in the episodes of the seeds {failed}"
        for trajectory in played:
            if trajectory.success:
                assert np.any(trajectory.frames[0] != trajectory.frames[-1]), "the last frame looks like the first"

    def test_random_play_ends_or_is_cut(self, task: Task) -> None:
        """Random play ends by itself or after ``random_steps``."""
        for seed in self.seeds:
            trajectory = rollout(task, seed, "random", self.random_steps)
            assert 0 < len(trajectory) <= self.random_steps
            ended = trajectory.terminated or trajectory.truncated
            assert ended or len(trajectory) == self.random_steps

    def test_idle_actions_change_nothing_that_counts(self, task: Task) -> None:
        """After random play, actions that the task calls idle neither solve it nor change an oracle event."""
        with made(task, 0) as env:
            for seed in self.seeds if task.idle else ():
                env.reset(seed=seed)
                if any(any(env.step(action)[2:4]) for action in self._random_actions(env, self.random_steps // 3)):
                    continue
                before = task.oracle(env) if task.oracle else {}
                for action in task.idle * 4:
                    assert env.action_space.contains(np.int64(action)), f"idle: {action} is outside {env.action_space}"
                    _, reward, terminated, truncated, info = env.step(action)
                    solved = task.success(float(reward), bool(terminated), bool(truncated), info)
                    assert not solved, f"idle: {action} solves the task, in the episode of seed {seed}"
                    assert not task.oracle or task.oracle(env) == before, f"idle: {action} changes an oracle event"
                    if terminated or truncated:
                        break

    def test_it_travels_to_other_processes(self, task: Task) -> None:
        """A pickled copy of the task plays the same episode."""
        from ray import cloudpickle

        copy = pickle.loads(cloudpickle.dumps(task))  # type: ignore[no-untyped-call]
        _assert_equal(
            rollout(copy, self.seeds[0], "random", self.random_steps),
            rollout(task, self.seeds[0], "random", self.random_steps),
        )

    def test_info_carries_neither_frames_nor_oracle(self, task: Task) -> None:
        """``info`` holds no oracle event and nothing of a frame's shape."""
        with made(task, 0) as env:
            _, info = env.reset(seed=self.seeds[0])
            shape = task.frame(env).shape
            events = set(task.oracle(env)) if task.oracle else set()
            for action in [None, *self._random_actions(env, 20)]:
                if action is not None:
                    _, _, terminated, truncated, info = env.step(action)
                assert not events & set(info), "oracle events must not travel in info"
                assert all(np.shape(value) != shape for value in info.values()), "frames must not travel in info"
                if action is not None and (terminated or truncated):
                    break

    def test_its_description_is_not_empty(self, task: Task) -> None:
        """The task has a name and a description."""
        assert task.name
        assert task.description.strip(), "the VLM reads the description: write the task in plain words"

    def test_its_defaults_are_settings_of_a_run(self, task: Task) -> None:
        """``defaults`` name settings that there are, with valid values."""
        weight = by_default(task, CodeConfig).reward.env_reward_weight
        assert weight == 0 or task.env_reward_reason, "say why the environment's reward is mixed in"

    @staticmethod
    def _random_actions(env: Any, count: int) -> list[Any]:
        env.action_space.seed(0)
        return [env.action_space.sample() for _ in range(count)]


def difference(one: NDArray[Any], other: NDArray[Any]) -> str:
    """Where two arrays differ and by how much, such as two frames; empty if they are equal."""
    if one.shape != other.shape:
        return f"{list(one.shape)} and {list(other.shape)}"
    places = np.argwhere(one != other)
    if not len(places):
        return ""
    first, low, high = (tuple(map(int, place)) for place in (places[0], places.min(axis=0), places.max(axis=0)))
    within = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(low, high, strict=True))
    most = np.abs(one.astype(float) - other.astype(float)).max()
    return (
        f"{len(places)} of {one.size} values, at [{within}], by up to {most:g}; first {one[first]} and {other[first]}"
    )


def _assert_equal(one: Trajectory, other: Trajectory) -> None:
    """Fail unless both are the same episode, step by step."""
    for what in ("actions", "rewards", "frames"):
        for step, (mine, theirs) in enumerate(zip(getattr(one, what), getattr(other, what), strict=False)):
            found = difference(np.asarray(mine), np.asarray(theirs))
            assert not found, f"the same seed gave another episode: {what} differ first at step {step}: {found}"
    ends = [
        f"{len(each)} steps, terminated {each.terminated}, truncated {each.truncated}, success {each.success}"
        for each in (one, other)
    ]
    assert ends[0] == ends[1], f"the same seed gave another episode: it ended after {ends[0]}; then after {ends[1]}"
