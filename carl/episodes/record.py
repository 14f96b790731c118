"""Demonstrations: successful episodes of a script, a trained policy, a person or a loop of the user's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from carl.console.progress import Progress, silent
from carl.episodes.actions import cast, recorded
from carl.episodes.collect import allowed_failures, check_visible, first_frame
from carl.episodes.frames import Reel
from carl.episodes.sizes import announce
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import StoreError, TaskError
from carl.seeding import Role, seeds_after
from carl.task import LONGEST, Expert, Task, blaming, overlong

Existing = Literal["refuse", "append", "replace"]
"""What to do where there are demonstrations already."""


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """``task.make()`` whose episodes are kept in a TrajectoryStore, each as soon as it has ended in success.

    Play in it as in any gymnasium environment, and close it, or use it as a context manager. Episodes that end without
    success, or that a reset cuts short, are left out and counted. One Recorder at a time may write to a store.

    Args:
        task: its camera takes the frames, its ``success`` decides.
        uri: folder or URI of the store.
        existing: what to do if it holds episodes already; "replace" replaces them with the first that is kept.
        source: who plays.

    Attributes:
        kept, failed: episodes so far.

    Raises StoreError if there are episodes and ``existing`` is "refuse", or if they are of other frames; TaskError if
    an action is none of the environment's, or if nothing can be seen of a success.
    """

    def __init__(
        self, task: Task, uri: str | Path, existing: Existing = "refuse", source: str = "demonstration"
    ) -> None:
        self.task, self.store = task, TrajectoryStore(uri)
        self._replaces = existing == "replace"
        if existing == "refuse" and self.store.exists():
            raise StoreError(
                f"{uri} already holds {len(self.store)} demonstrations: append to them, replace them (--append, "
                "--replace; Recorder(..., existing=...)), or give another place"
            )
        super().__init__(task.make())
        self._source = source
        self._draws = np.random.default_rng()
        self._reel: Reel | None = None
        self._actions: list[Any] = []
        self._rewards: list[float] = []
        self._seed = 0
        self.kept = self.failed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; without ``seed`` it gets one that is drawn, so that the record has it."""
        self.leave_out()
        self._seed = int(self._draws.integers(1 << 31)) if seed is None else seed
        observation, info = self.env.reset(seed=self._seed, options=options)
        self._reel, self._actions, self._rewards = Reel(), [], []
        frame = self.task.frame(self.env)
        self._check(frame.shape)
        self._reel.add(frame)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        action = cast(self.env.action_space, action, f"task {self.task.name!r}: whoever plays")
        kept = recorded(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._reel is not None:
            self._reel.add(self.task.frame(self.env))
            self._actions.append(kept)
            self._rewards.append(float(reward))
            if terminated or truncated:
                success = self.task.success(float(reward), bool(terminated), bool(truncated), info)
                self._keep(bool(terminated), bool(truncated)) if success else self.leave_out()
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        self.leave_out()
        super().close()  # type: ignore[no-untyped-call]  # gymnasium leaves it unannotated

    def _check(self, shape: tuple[int, ...]) -> None:
        """Before an episode is played: it has to go with those that are there."""
        if not self.kept and self._joins:
            there = self.store[0].frames.shape[1:]
            if there != shape:
                raise StoreError(
                    f"{self.store.uri} holds frames of {list(there)}, and those of task {self.task.name!r} are "
                    f"{list(shape)}; replace them (--replace), or give another place"
                )

    def _keep(self, terminated: bool, truncated: bool) -> None:
        assert self._reel is not None
        episode = Trajectory(
            frames=self._reel.frames(),
            actions=np.stack(self._actions),
            rewards=np.array(self._rewards),
            terminated=terminated,
            truncated=truncated,
            success=True,
            seed=self._seed,
            source=self._source,
        )
        check_visible(self.task, episode)
        if self._replaces:
            self.store.write([episode], replace=True)
        else:
            self.store.append([episode])
        self._replaces, self._reel = False, None
        self.kept += 1

    @property
    def _joins(self) -> bool:
        return not self._replaces and self.store.exists()

    @property
    def seeds(self) -> frozenset[int]:
        """Of the episodes that are there already and stay."""
        return frozenset(self.store.endings("seed") if self._joins else ())

    @property
    def steps(self) -> int:
        """Of the episode under way."""
        return len(self._actions)

    def leave_out(self) -> None:
        """Give up the episode under way, if there is one."""
        self.failed += self._reel is not None and bool(self._actions)
        self._reel = None


Play = Callable[[Recorder, int], object]
"""Plays the episode of a seed."""


class Again(BaseException):
    """Whoever plays wants to begin another episode."""


def by(expert: Expert) -> Play:
    """Episodes that ``expert`` plays."""

    def play(recorder: Recorder, seed: int) -> None:
        with blaming(recorder.task, f"the episode of seed {seed}"):
            observation, _ = recorder.reset(seed=seed)
            act = expert(recorder.env)
            over = False
            while not over and not overlong(recorder.steps):
                observation, _, terminated, truncated, _ = recorder.step(act(observation))
                over = terminated or truncated

    return play


def record(
    recorder: Recorder,
    play: Play,
    episodes: int,
    seed: int = 0,
    max_failed: float | None = 0.5,
    progress: Progress = silent,
) -> None:
    """Play until ``episodes`` more are kept, on seeds spawned from ``seed`` that are not in the store yet.

    KeyboardInterrupt, also of whoever plays, ends that early. Raises TaskError if more than the share ``max_failed`` of
    the episodes fail (None: any may).
    """
    frame, limit = first_frame(recorder.task)
    announce(recorder.task.name, "demonstration", frame, episodes, min(limit or LONGEST, LONGEST), progress)
    label = f"demonstrations of {recorder.task.name}"
    known = recorder.seeds
    seeds = (one for one in seeds_after(seed, Role.DEMONSTRATION, 0) if one not in known)
    while recorder.kept < episodes:
        progress(label, recorder.kept, episodes)
        try:
            play(recorder, next(seeds))
        except Again:
            pass
        except KeyboardInterrupt:
            break
        recorder.leave_out()
        if max_failed is not None and recorder.failed > allowed_failures(episodes, max_failed):
            raise TaskError(
                f"task {recorder.task.name!r}: {recorder.failed} of {recorder.kept + recorder.failed} episodes failed, "
                f"and at most the share {max_failed:g} may (--max-failed); the others are in {recorder.store.uri}"
            )
    recorder.leave_out()
    progress(label, recorder.kept, episodes)
