"""Demonstrations: successful episodes of a script, a trained policy, a person or a loop of the user's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from carl.console.progress import Progress, silent
from carl.episodes.actions import cast
from carl.episodes.collect import allowed_failures
from carl.episodes.play import check_visible, first_frame
from carl.episodes.sizes import announce
from carl.episodes.tape import FilmedEnv, Tape, film
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import StoreError, TaskError
from carl.seeding import Role, seeds_after
from carl.task import Expert, Task, blaming

Existing = Literal["refuse", "append", "replace"]
"""What to do where there are demonstrations already."""


class Recorder(FilmedEnv):
    """``task.make()`` whose episodes are kept in a TrajectoryStore, each as soon as it has ended in success.

    Play in it as in any gymnasium environment, and close it, or use it as a context manager. Episodes that end without
    success, or that a reset cuts short, are left out and counted. One Recorder at a time may write to a store.

    Args:
        task: its camera takes the frames, its ``success`` decides.
        uri: folder or URI of the store.
        existing: what to do if it holds episodes already; "replace" replaces them with the first that is kept.
        role: that of the player, as the store records it.

    Attributes:
        kept, failed: episodes so far.

    Raises StoreError if there are episodes and ``existing`` is "refuse", or if they are of other frames; TaskError if
    an action is outside the environment's action space, or if nothing can be seen of a success.
    """

    def __init__(self, task: Task, uri: str | Path, existing: Existing = "refuse", role: str = "demonstration") -> None:
        self.store = TrajectoryStore(uri)
        self._replaces = existing == "replace"
        if existing == "refuse" and self.store.exists():
            raise StoreError(
                f"{uri} already holds {len(self.store)} demonstrations: append to them, replace them (--append, "
                "--replace; Recorder(..., existing=...)), or give another place"
            )
        super().__init__(task, task.make())
        self._role = role
        self.kept = self.failed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; without ``seed`` it gets one that is drawn, so that the record has it."""
        self.leave_out()
        began = super().reset(seed=seed, options=options)
        self.check(self.tape.size)
        return began

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step; ``action`` may be an int, a float, a list, or an array. Keeps the episode that it ends."""
        plays = self.tape.running
        action = cast(self.env.action_space, action, f"task {self.task.name!r}: the player")
        found = super().step(action)
        if plays and not self.tape.running:
            self.keep(self.tape)
        return found

    def close(self) -> None:
        """Leave out the episode under way, and close the environment."""
        self.leave_out()
        super().close()  # type: ignore[no-untyped-call]  # gymnasium leaves it unannotated

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise StoreError if frames of ``shape`` (H, W, 3) are to join others that the store holds."""
        if not self.kept and self._joins:
            there = self.store[0].frames.shape[1:]
            if there != shape:
                raise StoreError(
                    f"{self.store.uri} holds frames of {list(there)}, and those of task {self.task.name!r} are "
                    f"{list(shape)}; replace them (--replace), or give another place"
                )

    def keep(self, tape: Tape) -> None:
        """Write the episode on ``tape`` to the store if it succeeded, else count it as failed."""
        if not tape.success:
            self.failed += 1
            return
        episode = tape.trajectory(self._role)
        check_visible(self.task, episode)
        if self._replaces:
            self.store.write([episode], replace=True)
        else:
            self.store.append([episode])
        self._replaces = False
        self.kept += 1

    @property
    def _joins(self) -> bool:
        return not self._replaces and self.store.exists()

    @property
    def seeds(self) -> frozenset[int]:
        """Seeds of the episodes that are in the store already and stay."""
        return frozenset(self.store.endings("seed") if self._joins else ())

    def leave_out(self) -> None:
        """Give up the episode under way, if there is one; it has failed if a step was taken."""
        self.failed += self.tape.running and self.tape.steps > 0
        self.tape.stop()


Play = Callable[[Recorder, int], object]
"""Plays the episode of a seed."""


class Again(BaseException):
    """The player wants to begin another episode."""


def by(expert: Expert) -> Play:
    """Episodes that ``expert`` plays in the recorder."""

    def play(recorder: Recorder, seed: int) -> None:
        with blaming(recorder.task, f"the episode of seed {seed}"):
            film(recorder, expert, seed)

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

    KeyboardInterrupt, also of the player, ends that early. Raises TaskError if more than the share ``max_failed`` of
    the episodes fail (None: any may).
    """
    frame, limit = first_frame(recorder.task)
    recorder.check(frame.shape)
    announce(recorder.task.name, "demonstration", frame, episodes, (limit,), progress)
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
